//! A change on trial: unless somebody confirms it in time, it's taken back.
//!
//! What is needed for that is in a file under the run directory, and a process of its own ([`Guarded`]) waits: the connection, the
//! terminal and the command that made the change may all be gone. The file decides: while it's there the change is on
//! trial, and whoever removes it, holding the namespace's lock, has confirmed. A reboot forgets the file as it forgets
//! what the kernel held.
//!
//! A change that isn't on trial has somebody behind it only while it's made ([`Heir`]).

mod daemon;
mod guardian;
mod heir;
mod journal;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

use crate::kernel::{self, Kernel, NamespaceId};
use crate::lock::{self, Lock};
use crate::reconcile::{self, TakenBack};
pub(crate) use daemon::{Own, take_back_abandoned};
pub use guardian::{Guarded, guard};
pub use heir::{Heir, inherit};
use journal::Journal;
pub use journal::{Ended, Reason};

/// How long the namespace's lock is waited for: another run's pass is over by then.
const LOCK_LIMIT: Duration = Duration::from_secs(60);

/// Why a trial can't be begun, ended or told of.
#[derive(Debug, Error)]
pub enum Error {
    /// The file can't be read or written.
    #[error("can't keep the way back in {}", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file makes no sense here.
    #[error("{} isn't what this release of tunnelform writes: {why}", path.display())]
    Strange {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is no process to take the change back.
    #[error("can't start the process that would take the change back")]
    Guardian(#[source] io::Error),
    /// A change is on trial already.
    #[error("{0}")]
    OnTrial(Unconfirmed),
    /// Nothing is on trial.
    #[error("no change is on trial here{}", .0.as_ref().map(|ended| format!(": {ended}")).unwrap_or_default())]
    Nothing(Option<Box<Ended>>),
    /// The namespace is busy.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// The kernel can't be asked.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
}

/// A change that waits to be confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unconfirmed {
    /// Name of the topology.
    pub topology: String,
    /// Seconds until it's taken back; `None`: it's being made.
    pub seconds_left: Option<u64>,
    /// Whether somebody is there to take it back.
    pub guarded: bool,
}

impl Unconfirmed {
    /// The change that is on trial in a network namespace.
    ///
    /// # Errors
    /// [`Error::Journal`], [`Error::Strange`].
    pub fn find(namespace: NamespaceId) -> Result<Option<Self>, Error> {
        let Some(journal) = Journal::read(namespace)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            seconds_left: journal.left().map(|left| left.as_secs()),
            guarded: guardian::is_there(namespace),
            topology: journal.topology,
        }))
    }

    /// Refuses where a change is on trial.
    ///
    /// # Errors
    /// [`Error::OnTrial`]; as of [`Self::find`].
    pub fn refuse(namespace: NamespaceId) -> Result<(), Error> {
        match Self::find(namespace)? {
            Some(change) => Err(Error::OnTrial(change)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Unconfirmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a change of {} is on trial here", self.topology)?;
        match (self.guarded, self.seconds_left) {
            (false, _) => write!(f, ", and the process that would take it back is gone")?,
            (true, None) => write!(f, " and being made")?,
            (true, Some(left)) => write!(f, " and is taken back in {left} s")?,
        }
        write!(
            f,
            ": `tunnelform confirm` keeps it, `tunnelform rollback` takes it back now"
        )
    }
}

/// How the last trial ended by itself in a network namespace.
///
/// # Errors
/// [`Error::Journal`], [`Error::Strange`].
pub fn ended(namespace: NamespaceId) -> Result<Option<Ended>, Error> {
    Ended::read(namespace)
}

/// A change was made that stays: how the last trial ended is no news any more.
///
/// # Errors
/// [`Error::Journal`].
pub fn forget(namespace: NamespaceId) -> Result<(), Error> {
    Ended::forget(namespace)
}

/// Keeps the change that is on trial. Its topology's name.
///
/// # Errors
/// [`Error::Nothing`]; when the lock isn't had or the file can't be removed.
pub fn confirm(namespace: NamespaceId) -> Result<String, Error> {
    let _lock = Lock::take(namespace, LOCK_LIMIT)?;
    let Some(journal) = Journal::read(namespace)? else {
        return Err(Error::Nothing(Ended::read(namespace)?.map(Box::new)));
    };
    Journal::remove(namespace)?;
    Ok(journal.topology)
}

/// Takes back the change that is on trial, now.
///
/// # Errors
/// As of [`confirm`].
pub fn roll_back(kernel: &mut Kernel) -> Result<(String, TakenBack), Error> {
    let namespace = kernel.namespace();
    let _lock = Lock::take(namespace, LOCK_LIMIT)?;
    let Some(journal) = Journal::read(namespace)? else {
        return Err(Error::Nothing(Ended::read(namespace)?.map(Box::new)));
    };
    let (taken_back, ended) = go_back(kernel, &journal, Reason::ByHand, Vec::new());
    ended.leave(namespace)?;
    Ok((journal.topology, taken_back))
}

/// Makes the host as it was. Under the namespace's lock, and until [`Ended::leave`] the change is on trial for others.
fn go_back(
    kernel: &mut Kernel,
    journal: &Journal,
    reason: Reason,
    silent: Vec<String>,
) -> (TakenBack, Ended) {
    let taken_back = reconcile::take_back(kernel, &journal.undo, journal.route_protocol);
    let ended = Ended::new(journal, reason, silent, &taken_back);
    (taken_back, ended)
}
