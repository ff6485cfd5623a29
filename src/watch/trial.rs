//! A new topology on trial: the daemon goes back to the last good one unless somebody confirms it, or, where the peers
//! decide, unless each that answered before answers again.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant, SystemTime};

use super::report::Trigger;
use super::source::Good;
use super::{Confirm, Daemon, Error, Origin, in_words};
use crate::kernel::{Kernel, NamespaceId};
use crate::lock::Lock;
use crate::plan::Plan;
use crate::reconcile::{self, Kept};
use crate::state::Observed;
use crate::trial::{self, Ended, Own, Reason};

/// How often it's looked whether somebody has confirmed it.
const LOOK: Duration = Duration::from_millis(250);

/// What of it others are told.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) until: Instant,
    /// The same time for people, RFC 3339.
    pub(super) time: String,
    pub(super) by_probe: bool,
    /// Whose answer is waited for, in words.
    pub(super) awaited: Vec<String>,
}

impl Told {
    /// In a few words.
    pub(super) fn words(&self) -> String {
        let unless = match self.by_probe {
            true => format!("{} peers have to answer", self.awaited.len()),
            false => "to be confirmed".to_owned(),
        };
        format!("a new topology is on trial, {unless} until {}", self.time)
    }
}

/// The new topology, from when it's read until it's known whether it stays.
pub(super) struct Trial {
    confirm: Confirm,
    /// The last good topology; `None`: only the way back on the host is known.
    fallback: Option<Good>,
    /// Who answered before.
    answering: BTreeSet<Ipv4Addr>,
    /// Since something was touched.
    own: Option<Own>,
    /// Another topology is in force that no pass has been made for.
    is_new: bool,
    told: Option<Told>,
}

/// What is to become of a trial.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    GoesOn,
    Kept,
    GoesBack(Reason),
    /// Somebody has taken it back already.
    WentBack,
}

/// How a trial stands.
struct Standing {
    /// Whether the file that says so is still there.
    is_on: bool,
    /// Whether it's known that the change was taken back.
    is_taken_back: bool,
    /// The file followed holds again what was good before.
    is_withdrawn: bool,
    /// Another topology has come, and its time hasn't begun.
    is_new: bool,
    /// Whether all that there is to wait for has come; `None`: it's not for the peers to say.
    has_answers: Option<bool>,
    is_over: bool,
}

impl Standing {
    fn verdict(&self) -> Verdict {
        match *self {
            Self {
                is_on: false,
                is_taken_back,
                ..
            } => match is_taken_back {
                true => Verdict::WentBack,
                false => Verdict::Kept,
            },
            Self {
                is_withdrawn: true, ..
            } => Verdict::GoesBack(Reason::ByHand),
            Self { is_new: true, .. } => Verdict::GoesOn,
            Self {
                has_answers: Some(true),
                ..
            } => Verdict::Kept,
            Self { is_over: false, .. } => Verdict::GoesOn,
            Self {
                has_answers: Some(false),
                ..
            } => Verdict::GoesBack(Reason::Unanswered),
            Self {
                has_answers: None, ..
            } => Verdict::GoesBack(Reason::Unconfirmed),
        }
    }
}

impl Trial {
    /// A topology that takes the place of the last good one.
    fn new(confirm: Confirm, fallback: Option<Good>, answering: BTreeSet<Ipv4Addr>) -> Self {
        Self {
            confirm,
            fallback,
            answering,
            own: None,
            is_new: true,
            told: None,
        }
    }

    /// Whether something was touched.
    pub(super) fn is_on(&self) -> bool {
        self.own.is_some()
    }

    /// Writes down what is about to be touched.
    pub(super) fn note(
        &mut self,
        namespace: NamespaceId,
        good: &Good,
        plan: &Plan,
        observed: &Observed,
    ) -> Result<(), reconcile::Error> {
        let no_way_back = |error: trial::Error| reconcile::Error::NoWayBack(error.into());
        let mut own = match self.own.take() {
            Some(own) => own,
            None => Own::begin(namespace, &good.terms, observed).map_err(no_way_back)?,
        };
        let was_on = own.is_on();
        let noted = own.note(&good.generation, plan, observed);
        // What was never written down was never touched.
        self.own = (was_on || noted.is_ok()).then_some(own);
        noted.map_err(no_way_back)
    }

    fn is_withdrawn(&self, good: Option<&Good>) -> bool {
        let generation = |good: Option<&Good>| good.map(|good| good.generation.clone());
        self.fallback.is_some() && generation(self.fallback.as_ref()) == generation(good)
    }
}

fn warn_of_end(error: &trial::Error) {
    let why = in_words(error);
    tracing::warn!("can't tell how the last trial ended: {why}");
}

impl<O: Origin> Daemon<'_, O> {
    /// Another topology was read. To be called before the peers are its own.
    pub(super) fn try_out(&mut self) {
        let previous = self.source.take_previous();
        let Some(confirm) = self.options.confirm else {
            return;
        };
        match &mut self.trial {
            // Still back to the last one that was confirmed.
            Some(trial) => trial.is_new = true,
            // What was tried in vain before this daemon started has left a host to go back to.
            None if previous.is_some() || self.is_wary => {
                let answering = self.probing.answering();
                self.trial = Some(Trial::new(confirm, previous, answering));
            }
            None => {}
        }
    }

    /// At the start: takes back what a daemon that was killed had on trial, and learns what was tried in vain. False: it
    /// has to be tried again.
    pub(super) fn recover(&mut self, kernel: &mut Kernel) -> bool {
        let namespace = kernel.namespace();
        let lock = || Ok(Lock::take(namespace, Duration::ZERO)?);
        let taken_back = match trial::take_back_abandoned(kernel, lock) {
            Ok(taken_back) => taken_back,
            Err(trial::Error::Lock(error)) => {
                self.locked_out(&error, Trigger::Trial, Instant::now());
                return false;
            }
            Err(error) => {
                let why = in_words(&error);
                tracing::error!("can't tell whether a change is to be taken back: {why}");
                return true;
            }
        };
        if let Some((taken_back, ended)) = taken_back {
            self.reporter.taken_back(&taken_back.rounds, &ended);
            self.publish(|board| board.taken_back += 1);
            self.is_wary = true;
        }
        match trial::ended(namespace) {
            Ok(Some(ended)) => self.reject(&ended),
            Ok(None) => {}
            Err(error) => warn_of_end(&error),
        }
        true
    }

    fn reject(&mut self, ended: &Ended) {
        if let Some(generation) = &ended.generation {
            let why = format!(
                "this topology was taken back at {}, {}: change it, or send SIGHUP to try it again",
                ended.time,
                ended.why()
            );
            self.source.reject(generation.clone(), why);
        }
    }

    /// Somebody asks for another try.
    pub(super) fn forgive(&mut self, namespace: NamespaceId) {
        if self.source.forgive()
            && let Err(error) = trial::forget(namespace)
        {
            let why = in_words(&error);
            tracing::warn!("can't forget how the last trial ended: {why}");
        }
    }

    /// Before a pass, under the lock: ends the trial whose time has come. Whether the pass is to be made.
    pub(super) fn judge(&mut self, kernel: &mut Kernel) -> Result<bool, Error> {
        self.due.trial = None;
        let Some(verdict) = self.verdict(kernel) else {
            return Ok(true);
        };
        match verdict {
            Verdict::GoesOn => self.due.trial = Some(Instant::now() + LOOK),
            Verdict::Kept => self.keep(),
            Verdict::GoesBack(reason) => {
                self.go_back(kernel, reason)?;
                return Ok(false);
            }
            Verdict::WentBack => {
                let trial = self.trial.take();
                match trial::ended(kernel.namespace()) {
                    Ok(Some(ended)) => {
                        self.reporter.taken_back(&[], &ended);
                        self.reject(&ended);
                    }
                    Ok(None) => {}
                    Err(error) => warn_of_end(&error),
                }
                self.reinstate(kernel, trial)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// `None`: nothing was touched, so there is nothing to judge.
    fn verdict(&self, kernel: &Kernel) -> Option<Verdict> {
        let trial = self.trial.as_ref()?;
        let own = trial.own.as_ref()?;
        let is_on = own.is_on();
        let standing = Standing {
            is_on,
            // What can't be read is taken for what everybody sees: that the change is no longer on trial.
            is_taken_back: !is_on && matches!(trial::ended(kernel.namespace()), Ok(Some(_))),
            is_withdrawn: trial.is_withdrawn(self.source.good()),
            is_new: trial.is_new,
            has_answers: (trial.confirm.by_probe).then(|| self.probing.awaited().is_empty()),
            is_over: own.left().is_some_and(|left| left.is_zero()),
        };
        Some(standing.verdict())
    }

    /// Without the lock, and often: a trial that may have ended is looked at in a pass.
    pub(super) fn look_at_trial(&mut self, kernel: &Kernel) {
        let now = Instant::now();
        self.due.trial = None;
        match self.verdict(kernel) {
            None => {}
            Some(Verdict::GoesOn) => self.due.trial = Some(now + LOOK),
            Some(Verdict::Kept | Verdict::GoesBack(_) | Verdict::WentBack) => {
                self.due.pass_at(now, Trigger::Trial);
            }
        }
    }

    fn keep(&mut self) {
        let Some(Trial {
            own: Some(own),
            confirm,
            ..
        }) = self.trial.take()
        else {
            return;
        };
        self.is_wary = false;
        self.probing.await_nobody();
        let how = match confirm.by_probe && own.is_on() {
            true => "no answer is missing",
            false => "somebody has confirmed it",
        };
        if let Err(error) = own.keep() {
            let why = in_words(&error);
            tracing::error!("the next daemon would take the change back: {why}");
        }
        tracing::info!("the new topology is kept: {how}");
    }

    fn go_back(&mut self, kernel: &mut Kernel, reason: Reason) -> Result<(), Error> {
        let Some(mut trial) = self.trial.take() else {
            return Ok(());
        };
        if let Some(own) = trial.own.take() {
            let silent = match reason {
                Reason::Unanswered => self.probing.awaited(),
                Reason::Unconfirmed | Reason::Interrupted | Reason::ByHand => Vec::new(),
            };
            let (taken_back, ended) = own.take_back(kernel, reason, silent);
            if let Err(error) = ended.leave(kernel.namespace()) {
                let why = in_words(&error);
                tracing::error!("others can't be told that the change is taken back: {why}");
            }
            self.reporter.taken_back(&taken_back.rounds, &ended);
            if !trial.is_withdrawn(self.source.good()) {
                self.reject(&ended);
            }
        }
        self.reinstate(kernel, Some(trial))
    }

    /// What was taken back on the host isn't in force any more.
    fn reinstate(&mut self, kernel: &mut Kernel, trial: Option<Trial>) -> Result<(), Error> {
        let is_withdrawn = trial
            .as_ref()
            .is_some_and(|trial| trial.is_withdrawn(self.source.good()));
        self.publish(|board| board.taken_back += 1);
        self.source.put_back(trial.and_then(|trial| trial.fallback));
        self.listen(kernel)?;
        self.take_up();
        if !is_withdrawn {
            self.tell_bad_file();
        }
        self.tell();
        Ok(())
    }

    /// After a pass, still under the lock: what was touched is on trial from now on.
    pub(super) fn passed_on_trial(&mut self, kept: &Kept) {
        let (Some(trial), Some(good)) = (&mut self.trial, self.source.good()) else {
            return;
        };
        let Some(own) = &mut trial.own else {
            // The host is as the new topology says without any change.
            self.trial = None;
            return;
        };
        let Confirm { within, by_probe } = trial.confirm;
        if by_probe && (trial.is_new || !kept.rounds.is_empty()) {
            self.probing.await_answers(&trial.answering);
        }
        if std::mem::take(&mut trial.is_new) {
            if let Err(error) = own.made(&good.terms, &good.generation, within) {
                let why = in_words(&error);
                tracing::error!("others can't be told how long the trial takes: {why}");
            }
            let told = Told {
                until: Instant::now() + within,
                time: humantime::format_rfc3339_seconds(SystemTime::now() + within).to_string(),
                by_probe,
                awaited: self.probing.awaited(),
            };
            if by_probe && told.awaited.is_empty() {
                tracing::warn!(
                    "no peer that the new topology probes has answered before: nothing speaks against it, and nothing for it"
                );
            } else {
                tracing::info!("{}", told.words());
            }
            trial.told = Some(told);
        }
        self.due.trial = Some(Instant::now());
    }

    /// What others are told of the trial; `None`: nothing is on trial.
    pub(super) fn told_of_trial(&self) -> Option<Told> {
        let told = self.trial.as_ref()?.told.clone()?;
        Some(Told {
            awaited: self.probing.awaited(),
            ..told
        })
    }

    /// The daemon ends, and nobody would take the change back.
    pub(super) fn end_trial(&mut self, kernel: &mut Kernel) -> Result<(), Error> {
        if self.trial.as_ref().is_none_or(|trial| trial.own.is_none()) {
            self.trial = None;
            return Ok(());
        }
        let _lock = Lock::take(kernel.namespace(), self.options.lock_timeout)?;
        if !self.judge(kernel)? || self.trial.is_none() {
            return Ok(());
        }
        self.go_back(kernel, Reason::Interrupted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        use Verdict::{GoesBack, GoesOn, Kept, WentBack};
        let made = || Standing {
            is_on: true,
            is_taken_back: false,
            is_withdrawn: false,
            is_new: false,
            has_answers: None,
            is_over: false,
        };
        type Change = fn(&mut Standing);
        let cases: [(&str, Change, Verdict); 11] = [
            ("it waits", |_| {}, GoesOn),
            ("confirmed", |s| s.is_on = false, Kept),
            (
                "confirmed at the last moment",
                |s| (s.is_on, s.is_over) = (false, true),
                Kept,
            ),
            (
                "rolled back",
                |s| (s.is_on, s.is_taken_back) = (false, true),
                WentBack,
            ),
            ("late", |s| s.is_over = true, GoesBack(Reason::Unconfirmed)),
            (
                "another file came in time",
                |s| (s.is_over, s.is_new) = (true, true),
                GoesOn,
            ),
            (
                "the old file came",
                |s| (s.is_withdrawn, s.is_new) = (true, true),
                GoesBack(Reason::ByHand),
            ),
            ("no answer yet", |s| s.has_answers = Some(false), GoesOn),
            ("all answer", |s| s.has_answers = Some(true), Kept),
            (
                "the answers were to another topology",
                |s| (s.has_answers, s.is_new) = (Some(true), true),
                GoesOn,
            ),
            (
                "no answer",
                |s| (s.has_answers, s.is_over) = (Some(false), true),
                GoesBack(Reason::Unanswered),
            ),
        ];
        for (what, change, expected) in cases {
            let mut standing = made();
            change(&mut standing);
            assert_eq!(standing.verdict(), expected, "{what}");
        }
    }
}
