//! Topology files, as they come from the command line, and the part of them that is this host's.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tunnelform::kernel::{Extent, Kernel};
use tunnelform::plan::Saved;
use tunnelform::source::{Content, ListFile, Problems, Severity};
use tunnelform::state::Observed;
use tunnelform::topology::{Fleet, Host, Name, Parsed, Topology};

use super::{Failure, Terminal};

/// More than the topology's own limit, so that the limit's own message is seen.
const MOST_BYTES: u64 = (256 << 20) + 1;

/// How many candidates an error names.
const MOST_NAMED: usize = 20;

// These have no doc comments: a command that flattens one in would take it for its own description.

#[derive(clap::Args)]
pub(super) struct Input {
    /// The topology: a file, a directory whose *.yaml are one topology, or `-` for standard input.
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
}

#[derive(clap::Args)]
pub(super) struct NodeChoice {
    /// In a fleet, the node that this host is [default: $TUNNELFORM_NODE, else the host's name, else the node whose
    /// underlay address this host has].
    #[arg(long, value_name = "NAME")]
    pub(super) node: Option<Name>,
}

#[derive(clap::Args)]
pub(super) struct Netns {
    /// Work in the network namespace that `ip netns` calls so.
    #[arg(long = "netns", value_name = "NAME")]
    pub(super) netns: Option<String>,
}

impl Netns {
    /// The namespace's name; `None`: the process's own.
    pub(super) fn name(&self) -> Option<&str> {
        self.netns.as_deref()
    }
}

/// Why there's no topology.
pub(super) enum Unusable {
    /// The file can't be read.
    Unreadable(Failure),
    /// It has problems.
    Wrong(Problems),
}

impl Input {
    /// Reads and checks the topology.
    pub(super) fn parse(&self) -> Result<Parsed, Unusable> {
        let name = self.name();
        let files = self.read().map_err(Unusable::Unreadable)?;
        Topology::parse_files(&name, files).map_err(Unusable::Wrong)
    }

    /// Reads the topology; shows what is wrong with it.
    pub(super) fn topology(&self, terminal: &Terminal) -> Result<Topology, Failure> {
        self.topology_of(self.read()?, terminal)
    }

    /// The topology in files that were read; shows what is wrong with it.
    pub(super) fn topology_of(
        &self,
        files: Vec<Content>,
        terminal: &Terminal,
    ) -> Result<Topology, Failure> {
        let name = self.name();
        if files.iter().any(|file| Saved::is_meant(&file.bytes)) {
            return Err(Failure(format!(
                "{name} is a saved plan and no topology: `tunnelform apply` carries it out, `tunnelform show` shows it"
            )));
        }
        match Topology::parse_files(&name, files) {
            Ok(Parsed { topology, warnings }) => {
                show(&warnings, terminal);
                Ok(topology)
            }
            Err(problems) => {
                show(&problems, terminal);
                Err(Failure(tally(&problems)))
            }
        }
    }

    pub(super) fn name(&self) -> String {
        if self.is_stdin() {
            "<stdin>".to_owned()
        } else {
            self.file.display().to_string()
        }
    }

    pub(super) fn is_stdin(&self) -> bool {
        self.file == Path::new("-")
    }

    /// The files, with those that they name.
    pub(super) fn read(&self) -> Result<Vec<Content>, Failure> {
        let mut room = MOST_BYTES;
        if self.is_stdin() {
            let bytes = bounded(&mut io::stdin().lock(), 0, room);
            let bytes = bytes.map_err(|error| unreadable("<stdin>", &error))?;
            return Ok(vec![content(self.name(), Path::new(""), bytes, &mut room)]);
        }
        let directory = |path: &Path| path.parent().unwrap_or(Path::new("")).to_owned();
        if !self.file.is_dir() {
            let bytes = read_file(&self.file)?;
            let directory = directory(&self.file);
            return Ok(vec![content(self.name(), &directory, bytes, &mut room)]);
        }
        let mut paths = yaml_files(&self.file)?;
        paths.sort();
        if paths.is_empty() {
            return Err(Failure(format!(
                "can't read {}: a directory's *.yaml together are the topology, and it has none",
                self.name()
            )));
        }
        let mut files = Vec::new();
        for path in paths {
            let bytes = read_file(&path)?;
            let name = path.display().to_string();
            files.push(content(name, &directory(&path), bytes, &mut room));
            if room == 0 {
                let most = MOST_BYTES - 1;
                let name = self.name();
                return Err(Failure(format!(
                    "{name}: its files have more than {most} bytes"
                )));
            }
        }
        Ok(files)
    }
}

/// As a shell lists `*.yaml`: hidden files, such as an editor's, are not among them.
fn yaml_files(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let fail = |error: &io::Error| unreadable(&directory.display().to_string(), error);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|error| fail(&error))? {
        let entry = entry.map_err(|error| fail(&error))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".yaml") && !name.starts_with('.') {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

/// Opens what is in a directory, wherever symbolic links lead to, but not outside: what is wrong with the file is told with
/// its lines.
fn open_below(directory: &Path, file: &str) -> io::Result<File> {
    let here = match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let base = rustix::fs::open(here, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let below = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&base, file, flags, Mode::empty(), below) {
        Err(Errno::XDEV) => Err(leads_out()),
        // Before Linux 5.6, and where a sandbox doesn't know it.
        Err(Errno::NOSYS | Errno::PERM) => {
            let path = here.join(file).canonicalize()?;
            match path.starts_with(here.canonicalize()?) {
                true => Ok(rustix::fs::open(path, flags, Mode::empty())?.into()),
                false => Err(leads_out()),
            }
        }
        opened => Ok(opened?.into()),
    }
}

fn leads_out() -> io::Error {
    io::Error::other("a symbolic link leads out of the topology's directory")
}

pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    File::open(path)
        .and_then(|mut file| bounded_file(&mut file, MOST_BYTES))
        .map_err(|error| unreadable(&path.display().to_string(), &error))
}

/// All of it, `most` bytes at most. With room for what is probably there: otherwise the first reads are very small.
fn bounded(reader: &mut impl Read, probably: u64, most: u64) -> io::Result<Vec<u8>> {
    let room = usize::try_from(probably.min(most)).unwrap_or_default();
    let mut bytes = Vec::with_capacity(room);
    reader.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn bounded_file(file: &mut File, most: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    bounded(file, length, most)
}

/// A file with those that it names, whose names are relative to the directory. As many bytes as all may have are in `room`.
fn content(name: String, directory: &Path, bytes: Vec<u8>, room: &mut u64) -> Content {
    *room = room.saturating_sub(bytes.len() as u64);
    let names = match Saved::is_meant(&bytes) {
        true => Vec::new(),
        false => Content::named(&bytes),
    };
    let lists = names.into_iter().map(|file| {
        let bytes = read_list(directory, &file, *room).map_err(|error| error.to_string());
        let path = directory.join(&file);
        *room -= bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        ListFile { file, path, bytes }
    });
    let lists = lists.collect();
    Content { name, bytes, lists }
}

/// A pipe would be waited for, and a device might have no end.
fn read_list(directory: &Path, file: &str, room: u64) -> io::Result<Vec<u8>> {
    let mut file = open_below(directory, file)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let bytes = bounded_file(&mut file, room)?;
    if bytes.len() as u64 == room {
        let most = MOST_BYTES - 1;
        return Err(io::Error::other(format!(
            "with it, the topology has more than {most} bytes"
        )));
    }
    Ok(bytes)
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure(format!("can't read {name}: {error}"))
}

impl NodeChoice {
    /// What the topology has for this host.
    pub(super) fn host(&self, topology: &Topology, kernel: &mut Kernel) -> Result<Host, Failure> {
        self.host_among(topology, || {
            addresses_here(kernel, topology.route_protocol.0)
        })
    }

    /// The node that somebody says this host is: the flag, else the environment.
    pub(super) fn said(&self) -> Result<Option<Name>, Failure> {
        match &self.node {
            Some(name) => Ok(Some(name.clone())),
            None => said_by_environment(),
        }
    }

    /// What the topology has for the host that was observed elsewhere.
    pub(super) fn host_of(
        &self,
        topology: &Topology,
        observed: &Observed,
    ) -> Result<Host, Failure> {
        self.host_among(topology, || Ok(addresses(observed)))
    }

    /// What the topology has for the node that is named, or for the one host.
    pub(super) fn host_named(&self, topology: &Topology) -> Result<Host, Failure> {
        self.host_among(topology, || Ok(Vec::new()))
    }

    fn host_among(
        &self,
        topology: &Topology,
        addresses: impl FnOnce() -> Result<Vec<IpAddr>, Failure>,
    ) -> Result<Host, Failure> {
        let fleet = topology.fleet();
        let name = match &self.node {
            Some(name) if topology.nodes.is_empty() => {
                return Err(Failure(format!(
                    "--node {name}: the topology is for one host and has no `nodes`"
                )));
            }
            Some(name) => Some(name.clone()),
            None if topology.nodes.is_empty() => None,
            None => Some(this_node(topology, addresses)?),
        };
        fleet.host(name.as_ref()).ok_or_else(|| match name {
            Some(name) => no_such_node(&fleet, &name),
            None => Failure("the topology has nodes, and none was chosen".into()),
        })
    }
}

pub(super) fn no_such_node(fleet: &Fleet, name: &Name) -> Failure {
    let names: Vec<&str> = fleet.names().map(Name::as_str).collect();
    let close = similar::get_close_matches(name.as_str(), &names, 1, 0.6);
    Failure(match close.first() {
        Some(close) => format!("no node is called {name}: did you mean {close}?"),
        None => format!("no node is called {name}: {}", candidates(&names)),
    })
}

/// What `nodes` are called, some of many.
pub(super) fn candidates(names: &[&str]) -> String {
    let shown = names.iter().take(MOST_NAMED).copied().collect::<Vec<_>>();
    let more = names.len().saturating_sub(MOST_NAMED);
    match more {
        0 => format!("the nodes are {}", shown.join(", ")),
        more => format!("the nodes are {} and {more} more", shown.join(", ")),
    }
}

/// The addresses of this host.
pub(super) fn addresses_here(kernel: &mut Kernel, protocol: u8) -> Result<Vec<IpAddr>, Failure> {
    let observed = kernel.observe(&Extent {
        protocol: Some(protocol),
        own_protocol: protocol,
        paths: Default::default(),
        counters: false,
    })?;
    Ok(addresses(&observed))
}

/// What this host is called, and the first label of that.
pub(super) fn hostnames() -> [String; 2] {
    let uname = rustix::system::uname();
    let hostname = uname.nodename().to_string_lossy().into_owned();
    let short = hostname.split('.').next().unwrap_or_default().to_owned();
    [hostname, short]
}

fn said_by_environment() -> Result<Option<Name>, Failure> {
    let said = std::env::var_os("TUNNELFORM_NODE").filter(|name| !name.is_empty());
    let name = said.map(|name| name.to_string_lossy().parse()).transpose();
    name.map_err(|error| Failure(format!("TUNNELFORM_NODE: {error}")))
}

fn addresses(observed: &Observed) -> Vec<IpAddr> {
    observed
        .state
        .addresses
        .keys()
        .map(|key| key.local)
        .collect()
}

/// Who this host is, when nobody says so: by the environment, by its name, by an address.
fn this_node(
    topology: &Topology,
    addresses: impl FnOnce() -> Result<Vec<IpAddr>, Failure>,
) -> Result<Name, Failure> {
    if let Some(name) = said_by_environment()? {
        return Ok(name);
    }
    let [hostname, short] = hostnames();
    if let Some((name, _)) = [&hostname, &short]
        .into_iter()
        .find_map(|name| topology.nodes.get_key_value(name.as_str()))
    {
        return Ok(name.clone());
    }
    let own = addresses()?;
    let here: Vec<&Name> = topology
        .nodes
        .iter()
        .filter(|(_, node)| {
            let address = node
                .underlay
                .as_ref()
                .and_then(|underlay| underlay.address());
            address.is_some_and(|address| own.contains(&address.into()))
        })
        .map(|(name, _)| name)
        .collect();
    match here.as_slice() {
        [only] => Ok((*only).clone()),
        [] => {
            let names: Vec<&str> = topology.nodes.keys().map(Name::as_str).collect();
            Err(Failure(format!(
                "which node is this? None is called {hostname}, and this host has no node's underlay address. Say it \
                 with --node or TUNNELFORM_NODE; {}",
                candidates(&names)
            )))
        }
        several => {
            let names: Vec<&str> = several.iter().map(|name| name.as_str()).collect();
            Err(Failure(format!(
                "which node is this? None is called {hostname}, and this host has the underlay addresses of {}. Say \
                 it with --node or TUNNELFORM_NODE",
                names.join(", ")
            )))
        }
    }
}

/// Shows problems on standard error.
pub(super) fn show(problems: &Problems, terminal: &Terminal) {
    if !problems.list.is_empty() {
        let mut stderr = io::stderr().lock();
        // Nobody is left to tell when standard error is closed.
        let _ = io::Write::write_all(
            &mut stderr,
            (problems.render(terminal.error_style().color) + "\n\n").as_bytes(),
        );
    }
}

/// How many problems there are, in words.
pub(super) fn tally(problems: &Problems) -> String {
    let (errors, warnings) = (
        problems.count(Severity::Error),
        problems.count(Severity::Warning),
    );
    let mut text = format!("{} has {}", problems.name, counted(errors, "error"));
    if warnings > 0 {
        text += &format!(" and {}", counted(warnings, "warning"));
    }
    text
}

/// `1 route`, `2 routes`, `2 addresses`, `2 meshes`.
pub(super) fn counted(count: usize, one: &str) -> String {
    let hisses = one.ends_with('s') || one.ends_with("sh");
    match (count, hisses) {
        (1, _) => format!("1 {one}"),
        (_, true) => format!("{count} {one}es"),
        (_, false) => format!("{count} {one}s"),
    }
}
