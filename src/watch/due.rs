//! What has to be done, and when.

use std::time::{Duration, Instant};

use super::report::Trigger;

/// A writer that never pauses is read after so many times the pause that would have been waited for.
const MOST_PAUSES: u32 = 10;

/// What has to be done, and when.
pub(super) struct Due {
    pub(super) file: Option<Pause>,
    pub(super) pass: Option<(Instant, Trigger)>,
    pub(super) resync: Instant,
    /// Before this the kernel's news wait.
    pub(super) rested: Instant,
    /// What was heard of peers is looked at.
    pub(super) hear: Option<Instant>,
    /// What is known of the peers is left for others to read.
    pub(super) peers: Option<Instant>,
    /// It's looked whether a trial has ended.
    pub(super) trial: Option<Instant>,
}

/// A pause that a writer has to make.
#[derive(Clone, Copy)]
pub(super) struct Pause {
    first: Instant,
    pub(super) at: Instant,
    /// Nobody told that the file has changed, nor that it's being written.
    pub(super) blind: bool,
}

impl Pause {
    pub(super) fn until(at: Instant, blind: bool) -> Self {
        let first = at;
        Self { first, at, blind }
    }
}

impl Due {
    pub(super) fn at_start() -> Self {
        let now = Instant::now();
        Self {
            file: Some(Pause::until(now, false)),
            pass: None,
            resync: now,
            rested: now,
            hear: None,
            peers: None,
            trial: None,
        }
    }

    pub(super) fn file_changed(&mut self, debounce: Duration) {
        let now = Instant::now();
        let writing = self.file.filter(|pause| !pause.blind);
        let first = writing.map_or(now, |pause| pause.first);
        let at = (now + debounce).min(first + debounce * MOST_PAUSES);
        let blind = false;
        self.file = Some(Pause { first, at, blind });
    }

    /// A pass at that time, or before if one is due. What somebody wishes stays what it's made for.
    pub(super) fn pass_at(&mut self, at: Instant, trigger: Trigger) {
        match &mut self.pass {
            Some((known, wish)) if wish.is_wish() => *known = at.min(*known),
            Some((known, _)) if *known <= at => {}
            Some(_) | None => self.pass = Some((at, trigger)),
        }
    }

    /// A pass now for what somebody wishes. Another file comes before other peers.
    pub(super) fn wish(&mut self, trigger: Trigger) {
        let trigger = match self.pass {
            Some((_, Trigger::File)) => Trigger::File,
            Some(_) | None => trigger,
        };
        self.pass = Some((Instant::now(), trigger));
    }

    /// The first of all this.
    pub(super) fn first(&self) -> Instant {
        let dues = [
            self.file.map(|pause| pause.at),
            self.pass.as_ref().map(|(at, _)| *at),
            self.hear,
            self.peers,
            self.trial,
        ];
        let first = dues.into_iter().flatten().min();
        first.map_or(self.resync, |first| first.min(self.resync))
    }

    pub(super) fn trigger(&mut self, now: Instant) -> Option<Trigger> {
        match self.pass {
            Some((at, trigger)) if at <= now => Some(trigger),
            _ if self.resync <= now => Some(Trigger::Resync),
            _ => None,
        }
    }
}
