//! What the service manager hears (`sd_notify(3)`). Without one, nobody hears it.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The conversation with the service manager.
pub(super) struct Manager {
    ready: bool,
    reloading: bool,
    told: String,
    /// Half of what the manager waits for before it takes the process for dead.
    beat: Option<Duration>,
    next_beat: Instant,
}

impl Manager {
    pub(super) fn new() -> Self {
        Self {
            ready: false,
            reloading: false,
            told: String::new(),
            beat: sd_notify::watchdog_enabled().map(|limit| limit / 2),
            next_beat: Instant::now(),
        }
    }

    /// When the next sign of life is due, which is given here if it is: so it's given only while the loop turns.
    pub(super) fn next_sign_of_life(&mut self, now: Instant) -> Option<Instant> {
        let beat = self.beat?;
        if self.next_beat <= now {
            send(&[NotifyState::Watchdog]);
            self.next_beat = now + beat;
        }
        Some(self.next_beat)
    }

    pub(super) fn reloading(&mut self) {
        // Who isn't ready yet isn't after a reload either.
        if !self.ready {
            return;
        }
        self.reloading = true;
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(_) => send(&[NotifyState::Reloading]),
        }
    }

    /// How it stands, in words. The first time that it's ready, and after each reload, that it is.
    pub(super) fn status(&mut self, words: &str, is_ready: bool) {
        if self.told != words {
            words.clone_into(&mut self.told);
            send(&[NotifyState::Status(words)]);
        }
        if (is_ready && !self.ready) || self.reloading {
            self.ready |= is_ready;
            self.reloading = false;
            send(&[NotifyState::Ready]);
        }
    }

    pub(super) fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }
}

/// A manager that can't be told isn't a reason to let the network be.
fn send(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("can't tell the service manager: {error}");
    }
}
