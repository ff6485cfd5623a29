//! `--out`: the plan that was shown, on file.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tunnelform::kernel::Kernel;
use tunnelform::plan::{Basis, Origin, Plan, Purpose, Saved, Terms, sha256};
use tunnelform::reconcile::{self, Goal, Look};
use tunnelform::source::{Content, ListFile};
use tunnelform::topology::{Host, Topology};

use super::input::{Input, candidates, hostnames};
use super::make::{Options, Wish};
use super::offline::Against;
use super::{Failure, Terminal, note, tell_of_daemon, warn};

/// A topology, and which one it is, where a saved plan is to say so.
pub(super) struct Source {
    pub(super) topology: Topology,
    digest: Option<String>,
}

impl Source {
    pub(super) fn new(
        input: &Input,
        files: Vec<Content>,
        options: &Options,
        terminal: &Terminal,
    ) -> Result<Self, Failure> {
        let digest = options.out.is_some().then(|| digest(input, &files));
        let topology = input.topology_of(files, terminal)?;
        Ok(Self { topology, digest })
    }

    /// What a saved plan says of itself, as far as the topology tells it.
    fn origin(&self, host: &Host) -> Origin {
        let node = host.node.as_ref();
        let node = node.and_then(|name| self.topology.nodes.get(name));
        Origin {
            node: host.node.clone(),
            underlay: node.and_then(|node| node.underlay.as_ref()?.address()),
            topology_digest: self.digest.clone(),
            ..made_now()
        }
    }
}

fn made_now() -> Origin {
    Origin {
        made: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        ..Origin::default()
    }
}

/// A file's own; that of several, and of a directory's, that of the lines that `sha256sum` prints for them, where each
/// file's lists come behind it.
fn digest(input: &Input, files: &[Content]) -> String {
    let line = |(path, bytes): (&Path, &[u8])| {
        let name = path.file_name().unwrap_or_default();
        let digest = sha256(bytes);
        let digits = digest.trim_start_matches("sha256:");
        format!("{digits}  {}\n", name.to_string_lossy())
    };
    match files {
        [Content { bytes, lists, .. }] if lists.is_empty() && !input.file.is_dir() => sha256(bytes),
        files => {
            let mut lines = String::new();
            for Content { name, bytes, lists } in files {
                lines += &line((Path::new(name), bytes));
                lines.extend(lists.iter().filter_map(file).map(line));
            }
            sha256(lines.as_bytes())
        }
    }
}

fn file(list: &ListFile) -> Option<(&Path, &[u8])> {
    Some((&list.path, list.bytes.as_deref().ok()?))
}

/// Runs, or where the plan is to be saved, shows and saves it.
pub(super) fn run_or_save(
    options: &Options,
    kernel: &mut Kernel,
    wish: &Wish,
    source: Option<&Source>,
    terminal: &Terminal,
) -> super::Result {
    let Some(file) = &options.out else {
        return options.run(kernel, wish, terminal);
    };
    let Wish { goal, terms, .. } = *wish;
    let (purpose, host) = match goal {
        Goal::Host(host) => (Purpose::Apply, Some(host)),
        Goal::Nothing(host) => (Purpose::Destroy, host),
    };
    tell_of_daemon(kernel, &terms.owner, terminal);
    let look = reconcile::look(kernel, goal, terms, false)?;
    let code = options.report_preview(&look, wish, terminal)?;
    let [hostname, _] = hostnames();
    let origin = source.zip(host).map(|(source, host)| source.origin(host));
    let origin = Origin {
        host: Some(hostname),
        netns: options.netns.name().map(str::to_owned),
        ..origin.unwrap_or_else(made_now)
    };
    let basis = Basis::of(&look.plan, &look.observed);
    let topology = host.map(|host| &host.topology);
    let saved = Saved::new(origin, purpose, terms, topology, &look.plan, basis);
    write(file, &saved.map_err(cannot_save)?)?;
    tell(file, terminal);
    Ok(code)
}

/// Saves a plan that was made without the host, which is written out.
pub(super) fn save_offline(
    file: &Path,
    (source, host): (&Source, &Host),
    against: &Against,
    look: &Look,
    terms: &Terms,
) -> Result<(), Failure> {
    let basis = match against {
        Against::Empty => Basis::default(),
        // The captured ways are worked out of the routes, which the kernel may do otherwise.
        Against::Captured(_) => Basis::of(&look.plan, &look.observed).without_ways(),
    };
    let topology = Some(&host.topology);
    let origin = source.origin(host);
    let saved = Saved::new(origin, Purpose::Apply, terms, topology, &look.plan, basis);
    write(file, &saved.map_err(cannot_save)?)
}

pub(super) fn tell(file: &Path, terminal: &Terminal) {
    let file = file.display();
    note(
        terminal,
        &format!("the plan is saved: `tunnelform apply {file}` carries it out, on its host"),
    );
}

fn cannot_save(error: impl std::fmt::Display) -> Failure {
    Failure(format!("can't save the plan: {error}"))
}

/// Writes the whole file or none: beside it first, then over it.
fn write(file: &Path, saved: &Saved) -> Result<(), Failure> {
    let text = saved.text().map_err(cannot_save)?;
    put(file, &text).map_err(|error| Failure(format!("can't write {}: {error}", file.display())))
}

fn put(file: &Path, text: &str) -> io::Result<()> {
    // A link stays, and so does a device such as /dev/null, which a rename would replace.
    let file = match fs::canonicalize(file) {
        Ok(there) if !there.is_file() => return Err(io::Error::other("it's not a regular file")),
        Ok(there) if !may_go(&there)? => {
            let message = "what is there is no saved plan, and isn't overwritten";
            return Err(io::Error::other(message));
        }
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => file.to_owned(),
        Err(error) => return Err(error),
    };
    let directory = file.parent().filter(|path| !path.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    let mut beside = tempfile::Builder::new()
        .prefix(".tunnelform-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)?;
    beside.write_all(text.as_bytes())?;
    beside.as_file().sync_all()?;
    beside.persist(file).map_err(|error| error.error)?;
    Ok(())
}

/// Whether a file may be overwritten: a plan, or nothing. Two names are easily swapped.
fn may_go(file: &Path) -> io::Result<bool> {
    let bytes = fs::read(file)?;
    Ok(bytes.is_empty() || Saved::is_meant(&bytes))
}

/// A directory with the plan of each node that has changes.
pub(super) struct Directory {
    pub(super) path: PathBuf,
    /// The nodes that have none.
    idle: std::cell::RefCell<Vec<String>>,
}

impl Directory {
    pub(super) fn new(path: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(path)
            .map_err(|error| Failure(format!("can't make {}: {error}", path.display())))?;
        Ok(Self {
            path: path.to_owned(),
            idle: Default::default(),
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.json"))
    }

    /// Saves the plan of a node, if it changes anything and may be carried out.
    pub(super) fn save(
        &self,
        name: &str,
        of: (&Source, &Host),
        against: &Against,
        look: &Look,
        terms: &Terms,
    ) -> Result<(), Failure> {
        let Plan {
            changes,
            conflicts,
            obstacles,
            hits,
            ..
        } = &look.plan;
        if changes.is_empty() && conflicts.is_empty() {
            self.idle.borrow_mut().push(name.to_owned());
        }
        let stands = !conflicts.is_empty() || !obstacles.is_empty() || !hits.is_empty();
        if changes.is_empty() || stands {
            return Ok(());
        }
        save_offline(&self.file(name), of, against, look, terms)
    }

    /// Says who has no plan, and where one of another time is still there.
    pub(super) fn tell(&self, terminal: &Terminal) {
        let idle = self.idle.borrow();
        let path = self.path.display();
        if !idle.is_empty() {
            let names: Vec<&str> = idle.iter().map(String::as_str).collect();
            let names = candidates(&names);
            note(
                terminal,
                &format!("{path} has no plan for what doesn't change: {names}"),
            );
        }
        for file in idle
            .iter()
            .map(|name| self.file(name))
            .filter(|file| file.exists())
        {
            let file = file.display();
            warn(
                terminal,
                &format!("{file} was made another time: its node has nothing to change now"),
            );
        }
    }
}
