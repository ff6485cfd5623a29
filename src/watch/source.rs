//! The topology as it was last good, and what is wrong with the file since.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::kernel::Kernel;
use crate::plan::Terms;
use crate::probe::{self, Target};
use crate::source::{Content, ListFile};
use crate::topology::{Host, Parsed, Silent, Topology};

/// Where the topology comes from.
pub trait Origin {
    /// What it's called.
    fn name(&self) -> String;

    /// Reads the files.
    ///
    /// # Errors
    /// Why they can't be read.
    fn read(&self) -> Result<Vec<Content>, String>;

    /// What the topology has for this host.
    ///
    /// # Errors
    /// Why it isn't known which node this is.
    fn host(&self, topology: &Topology, kernel: &mut Kernel) -> Result<Host, String>;
}

/// A topology that was read without an error.
pub struct Good {
    /// This host's part.
    pub host: Host,
    /// Whose objects, and what of them.
    pub terms: Terms,
    /// Who is at the other ends of this host's tunnels.
    pub targets: Vec<Target>,
    /// What tells these files from others, also to another daemon.
    pub generation: String,
}

/// What reading again has brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Loaded {
    /// The files hold what they held.
    Same,
    /// Another topology is in force.
    New,
    /// The files are no good; what was in force stays so.
    Bad,
}

/// The topology in force.
pub struct Source<O> {
    origin: O,
    adopt: bool,
    allow_empty: bool,
    digest: Option<String>,
    /// Where the files' lists are.
    lists: Vec<PathBuf>,
    /// Of what was last looked at, and not read yet.
    glimpse: Option<String>,
    good: Option<Good>,
    /// What was in force before.
    previous: Option<Good>,
    error: Option<String>,
    rejected: Option<Rejected>,
}

/// Files that were tried and taken back. They aren't tried again by themselves.
struct Rejected {
    generation: String,
    why: String,
}

impl<O: Origin> Source<O> {
    pub(super) fn new(origin: O, adopt: bool, allow_empty: bool) -> Self {
        Self {
            origin,
            adopt,
            allow_empty,
            digest: None,
            lists: Vec::new(),
            glimpse: None,
            good: None,
            previous: None,
            error: None,
            rejected: None,
        }
    }

    pub(super) fn name(&self) -> String {
        self.origin.name()
    }

    /// The files of lists that were named when the topology was read last.
    pub(super) fn lists(&self) -> &[PathBuf] {
        &self.lists
    }

    pub(super) fn good(&self) -> Option<&Good> {
        self.good.as_ref()
    }

    /// What is wrong with the files; `None`: what is in force is what they hold.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Reads the files again. What can't be read, or holds nothing, never replaces what is in force.
    pub(super) fn load(&mut self, kernel: &mut Kernel) -> Loaded {
        let read = self.origin.read();
        if let Ok(contents) = &read {
            let lists = contents.iter().flat_map(|content| &content.lists);
            self.lists = lists.map(|list| list.path.clone()).collect();
        }
        // An error may go away without the files being others: a node finds out who it is once it has its address.
        let digest = digest(&read);
        let is_same = self.digest.as_ref() == Some(&digest);
        if is_same && self.error.is_none() {
            return Loaded::Same;
        }
        self.digest = Some(digest.clone());
        let read = read.and_then(|contents| match &self.rejected {
            Some(rejected) if rejected.generation == digest => Err(rejected.why.clone()),
            Some(_) | None => Ok(contents),
        });
        match read.and_then(|contents| self.parse(contents, kernel, !is_same)) {
            Ok((host, terms, targets)) => {
                (self.error, self.rejected) = (None, None);
                let good = Good {
                    host,
                    terms,
                    targets,
                    generation: digest,
                };
                self.previous = self.good.replace(good);
                Loaded::New
            }
            Err(error) => {
                let known = is_same && self.error.as_ref() == Some(&error);
                self.error = Some(error);
                if known { Loaded::Same } else { Loaded::Bad }
            }
        }
    }

    /// Takes back what was just read, as it can't be kept here. False: nothing was in force before.
    pub(super) fn withdraw(&mut self, why: String) -> bool {
        self.good = self.previous.take();
        self.error = Some(why);
        self.good.is_some()
    }

    /// What was in force before what was just read.
    pub(super) fn take_previous(&mut self) -> Option<Good> {
        self.previous.take()
    }

    /// Files that were tried in vain: they are no good until they are others, or [`Self::forgive`].
    pub(super) fn reject(&mut self, generation: String, why: String) {
        self.rejected = Some(Rejected { generation, why });
    }

    /// What was in force goes, for what was before.
    pub(super) fn put_back(&mut self, fallback: Option<Good>) {
        self.good = fallback;
        self.error = self.rejected.as_ref().map(|rejected| rejected.why.clone());
    }

    /// Whether the files are those that were tried in vain.
    pub(super) fn is_rejected(&self) -> bool {
        let rejected = self.rejected.as_ref().map(|rejected| &rejected.generation);
        rejected.is_some() && rejected == self.digest.as_ref()
    }

    /// Files that were tried in vain may be tried again. Whether there were any.
    pub(super) fn forgive(&mut self) -> bool {
        self.rejected.take().is_some()
    }

    /// Leaves out the routes to these peers from now on. Whether they are others than before.
    pub(super) fn silence(&mut self, silent: Vec<Silent>) -> bool {
        let Some(good) = &mut self.good else {
            return false;
        };
        let is_new = good.host.silent != silent;
        good.host.silent = silent;
        is_new
    }

    /// Whether the files hold now what they held when this was asked last, or what was read from them: then nobody is in
    /// the middle of writing them.
    pub(super) fn is_settled(&mut self) -> bool {
        let digest = Some(digest(&self.origin.read()));
        let is_settled = digest == self.glimpse || digest == self.digest;
        self.glimpse = digest;
        is_settled
    }

    fn parse(
        &self,
        contents: Vec<Content>,
        kernel: &mut Kernel,
        warn: bool,
    ) -> Result<(Host, Terms, Vec<Target>), String> {
        let Parsed { topology, warnings } = Topology::parse_files(&self.origin.name(), contents)
            .map_err(|problems| problems.to_string())?;
        for warning in warnings.located().filter(|_| warn) {
            tracing::warn!(
                file = warning.file,
                line = warning.line,
                "{}",
                warning.message
            );
        }
        let host = self.origin.host(&topology, kernel)?;
        if is_empty(&host) && !self.allow_empty {
            return Err(format!(
                "{} holds nothing for this host: everything of the owner {} would be deleted. --allow-empty lets it",
                self.origin.name(),
                topology.name
            ));
        }
        let terms = Terms {
            adopt: self.adopt,
            ..Terms::new(topology.name.clone(), topology.route_protocol.0)
        };
        let targets = probe::targets(&topology.fleet(), &host);
        Ok((host, terms, targets))
    }
}

fn is_empty(host: &Host) -> bool {
    let Topology {
        tunnels,
        addresses,
        routes,
        ..
    } = &host.topology;
    tunnels.is_empty() && addresses.is_empty() && routes.is_empty() && host.peers().len() == 0
}

/// The same in every release, as one daemon leaves it to the next.
fn digest(read: &Result<Vec<Content>, String>) -> String {
    let mut hasher = Sha256::new();
    let mut take = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    match read {
        Ok(contents) => contents.iter().for_each(|Content { name, bytes, lists }| {
            take(name.as_bytes());
            take(bytes);
            for ListFile { file, bytes, .. } in lists {
                take(file.as_bytes());
                take(match bytes {
                    Ok(bytes) => bytes,
                    Err(error) => error.as_bytes(),
                });
            }
        }),
        Err(error) => take(error.as_bytes()),
    }
    let digits = hasher.finalize();
    let digits = digits.iter().take(8).map(|byte| format!("{byte:02x}"));
    digits.collect()
}
