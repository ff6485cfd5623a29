//! The files of a trial: what is needed to go back, and how it ended.

use std::borrow::Cow;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::kernel::NamespaceId;
use crate::lock::run_file;
use crate::plan::{Style, Terms, Undo};
use crate::reconcile::TakenBack;

/// Version of both files' shape.
const FORMAT_VERSION: u32 = 1;
/// So many peers are named that didn't answer.
const MOST_SILENT: usize = 5;
/// More isn't read, bytes.
const MOST_BYTES: u64 = 1 << 30;
/// Bytes.
const WRITTEN_AT_ONCE: usize = 64 << 10;

/// What is needed to go back.
#[derive(Serialize, Deserialize)]
pub(super) struct Journal<'a> {
    format_version: u32,
    /// Name of the topology whose change is on trial.
    pub(super) topology: String,
    /// The process that takes it back.
    pub(super) guardian: u32,
    pub(super) route_protocol: u8,
    /// What a daemon knows the files by whose topology is on trial; `None`: the change is a run's.
    #[serde(default)]
    pub(super) generation: Option<String>,
    /// Milliseconds since boot, the time in suspension among them; `None`: the change is being made.
    deadline: Option<u64>,
    pub(super) undo: Cow<'a, Undo>,
}

/// How a trial ended by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    format_version: u32,
    /// Name of the topology whose change was on trial.
    pub topology: String,
    /// When, RFC 3339.
    pub time: String,
    /// Why.
    pub reason: Reason,
    /// Whether the host is as it was before.
    pub complete: bool,
    /// What differs from before, or why that isn't known, in words.
    pub left: String,
    /// What a daemon knows the files by that it doesn't try again; `None`: the change was a run's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<String>,
    /// The peers that didn't answer any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<String>,
}

/// Why a change was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Nobody confirmed it in time.
    Unconfirmed,
    /// The run that made it ended in the middle.
    Interrupted,
    /// Somebody wanted it.
    ByHand,
    /// Peers that had answered before didn't in time.
    Unanswered,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topology, time, .. } = self;
        let why = self.why();
        write!(
            f,
            "the last change of {topology} was taken back at {time}, {why}"
        )?;
        if !self.complete {
            write!(f, ", but not wholly:\n{}", self.left)?;
        }
        Ok(())
    }
}

impl Journal<'_> {
    pub(super) fn new(terms: &Terms, guardian: u32) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            topology: terms.owner.to_string(),
            guardian,
            route_protocol: terms.protocol,
            generation: None,
            deadline: None,
            undo: Cow::default(),
        }
    }

    /// Of a change that is being made.
    pub(super) fn of<'a>(terms: &Terms, undo: &'a Undo) -> Journal<'a> {
        Journal {
            undo: Cow::Borrowed(undo),
            ..Journal::new(terms, std::process::id())
        }
    }

    /// The trial begins now.
    pub(super) fn begin(&mut self, within: Duration) {
        let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        self.deadline = Some(now().saturating_add(within));
    }

    /// Until it's taken back.
    pub(super) fn left(&self) -> Option<Duration> {
        let left = self.deadline?.saturating_sub(now());
        Some(Duration::from_millis(left))
    }

    pub(super) fn path(namespace: NamespaceId) -> PathBuf {
        run_file(namespace, "trial")
    }

    pub(super) fn read(namespace: NamespaceId) -> Result<Option<Self>, Error> {
        read(&Self::path(namespace), |journal: &Self| {
            journal.format_version
        })
    }

    /// What a run has left for its heir.
    pub(super) fn read_will(path: &Path) -> Result<Self, Error> {
        let journal = read(path, |journal: &Self| journal.format_version)?;
        journal.ok_or_else(|| fault(path, rustix::io::Errno::NOENT.into()))
    }

    pub(super) fn write(&self, namespace: NamespaceId) -> Result<(), Error> {
        write(&Self::path(namespace), self)
    }

    pub(super) fn remove(namespace: NamespaceId) -> Result<(), Error> {
        remove(&Self::path(namespace))
    }
}

impl Ended {
    /// Why the change was taken back, in words.
    pub(crate) fn why(&self) -> String {
        match self.reason {
            Reason::Unconfirmed => "as nobody confirmed it in time".into(),
            Reason::Interrupted => match self.generation {
                Some(_) => "as the daemon that made it ended before somebody confirmed it".into(),
                None => "as the run that made it ended in the middle".into(),
            },
            Reason::ByHand => "by hand".into(),
            Reason::Unanswered => {
                let shown = self.silent.iter().take(MOST_SILENT);
                let shown: Vec<&str> = shown.map(String::as_str).collect();
                let more = match self.silent.len().saturating_sub(MOST_SILENT) {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                format!("as no answer came any more from {}{more}", shown.join(", "))
            }
        }
    }

    pub(super) fn new(
        journal: &Journal,
        reason: Reason,
        silent: Vec<String>,
        taken_back: &TakenBack,
    ) -> Self {
        let left = match &taken_back.left {
            Ok(left) => {
                let changes = left.changes.iter();
                let lines = changes.map(|change| change.text(Style { color: false }));
                lines.collect::<Vec<_>>().join("\n")
            }
            Err(error) => error.to_string(),
        };
        Self {
            format_version: FORMAT_VERSION,
            topology: journal.topology.clone(),
            time: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            reason,
            complete: taken_back.is_complete(),
            left,
            generation: journal.generation.clone(),
            silent,
        }
    }

    fn path(namespace: NamespaceId) -> PathBuf {
        run_file(namespace, "taken-back")
    }

    pub(super) fn read(namespace: NamespaceId) -> Result<Option<Self>, Error> {
        read(&Self::path(namespace), |ended: &Self| ended.format_version)
    }

    /// Tells others, for whom the trial is over from now on.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub(crate) fn leave(&self, namespace: NamespaceId) -> Result<(), Error> {
        let written = write(&Self::path(namespace), self);
        // What is taken back isn't on trial, even if nobody can be told how it ended.
        Journal::remove(namespace)?;
        written
    }

    pub(super) fn forget(namespace: NamespaceId) -> Result<(), Error> {
        remove(&Self::path(namespace))
    }
}

/// Milliseconds since boot, the time in suspension among them.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000 + nanoseconds / 1_000_000
}

fn read<T: DeserializeOwned>(path: &Path, version: impl Fn(&T) -> u32) -> Result<Option<T>, Error> {
    let mut text = String::new();
    let file = File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text));
    match file {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(fault(path, source)),
    }
    let strange = |why: String| Error::Strange {
        path: path.to_owned(),
        why,
    };
    let document: T = serde_json::from_str(&text).map_err(|error| strange(error.to_string()))?;
    match version(&document) {
        FORMAT_VERSION => Ok(Some(document)),
        other => Err(strange(format!(
            "expected format_version {FORMAT_VERSION}, found {other}"
        ))),
    }
}

/// Puts a document into a file that is new.
pub(super) fn put(file: &File, document: &impl Serialize) -> io::Result<()> {
    let mut writer = io::BufWriter::with_capacity(WRITTEN_AT_ONCE, file);
    serde_json::to_writer(&mut writer, document)?;
    writer.flush()
}

/// Whole or not at all: it's written beside, and takes the old one's place.
fn write(path: &Path, document: &impl Serialize) -> Result<(), Error> {
    let beside = path.with_extension("new");
    let written = || -> io::Result<()> {
        let _ = fs::remove_file(&beside);
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&beside)?;
        put(&file, document)?;
        fs::rename(&beside, path)
    };
    written().map_err(|source| {
        let _ = fs::remove_file(&beside);
        fault(path, source)
    })
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(fault(path, source)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn fault(path: &Path, source: io::Error) -> Error {
    Error::Journal {
        path: path.to_owned(),
        source,
    }
}
