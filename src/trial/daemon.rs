//! A daemon's own change on trial: the daemon is its own guardian, and one that was killed is followed by the next.

use std::fs::File;
use std::time::Duration;

use super::guardian::{is_there, stand};
use super::journal::{Ended, Journal, Reason};
use super::{Error, go_back};
use crate::kernel::{Kernel, NamespaceId};
use crate::plan::{Plan, Terms};
use crate::reconcile::TakenBack;
use crate::state::{Observed, State};

/// A change of this process that is on trial. Dropped, it's for the next daemon to take back.
pub(crate) struct Own {
    namespace: NamespaceId,
    journal: Journal<'static>,
    /// The host before the change.
    before: State,
    /// Tells others that the way back is watched.
    _guardian: File,
}

impl Own {
    /// Nothing is touched yet, and the host is as `observed`. Under the namespace's lock, as all that follows.
    ///
    /// # Errors
    /// [`Error::Guardian`], [`Error::Journal`].
    pub(crate) fn begin(
        namespace: NamespaceId,
        terms: &Terms,
        observed: &Observed,
    ) -> Result<Self, Error> {
        // How this one ends is told from there being an end.
        Ended::forget(namespace)?;
        Ok(Self {
            namespace,
            journal: Journal::new(terms, std::process::id()),
            before: observed.state.clone(),
            _guardian: stand(namespace).map_err(Error::Guardian)?,
        })
    }

    /// Writes down what is about to be touched for the files of that generation.
    ///
    /// # Errors
    /// [`Error::Journal`]: without it there is no way back.
    pub(crate) fn note(
        &mut self,
        generation: &str,
        plan: &Plan,
        observed: &Observed,
    ) -> Result<(), Error> {
        self.journal.generation = Some(generation.to_owned());
        let undo = self.journal.undo.to_mut();
        undo.note_since(plan, observed, &self.before);
        self.journal.write(self.namespace)
    }

    /// The change is made, by these terms, for the files of that generation: its time begins now.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub(crate) fn made(
        &mut self,
        terms: &Terms,
        generation: &str,
        within: Duration,
    ) -> Result<(), Error> {
        self.journal.topology = terms.owner.to_string();
        self.journal.generation = Some(generation.to_owned());
        self.journal.begin(within);
        self.journal.write(self.namespace)
    }

    /// Whether nobody has confirmed it or taken it back. Also without the lock.
    pub(crate) fn is_on(&self) -> bool {
        Journal::path(self.namespace).exists()
    }

    /// Until it's to be taken back; `None`: it's being made.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.journal.left()
    }

    /// The change stays.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub(crate) fn keep(self) -> Result<(), Error> {
        Journal::remove(self.namespace)
    }

    /// The host becomes as it was, and others are to be told by [`Ended::leave`]. `silent`: the peers that didn't answer any
    /// more.
    pub(crate) fn take_back(
        &self,
        kernel: &mut Kernel,
        reason: Reason,
        silent: Vec<String>,
    ) -> (TakenBack, Ended) {
        go_back(kernel, &self.journal, reason, silent)
    }
}

/// The journal of a daemon that was killed.
fn abandoned(namespace: NamespaceId) -> Result<Option<Journal<'static>>, Error> {
    let journal = Journal::read(namespace)?;
    Ok(journal.filter(|journal| journal.generation.is_some() && !is_there(namespace)))
}

/// Takes back what a daemon that was killed had on trial. `lock` is asked for only where there is such a change.
///
/// # Errors
/// As of [`super::roll_back`]; `lock`'s.
pub(crate) fn take_back_abandoned<L>(
    kernel: &mut Kernel,
    lock: impl FnOnce() -> Result<L, Error>,
) -> Result<Option<(TakenBack, Ended)>, Error> {
    let namespace = kernel.namespace();
    if abandoned(namespace)?.is_none() {
        return Ok(None);
    }
    let _lock = lock()?;
    // Somebody may have confirmed it meanwhile.
    let Some(journal) = abandoned(namespace)? else {
        return Ok(None);
    };
    let (taken_back, ended) = go_back(kernel, &journal, Reason::Interrupted, Vec::new());
    ended.leave(namespace)?;
    Ok(Some((taken_back, ended)))
}
