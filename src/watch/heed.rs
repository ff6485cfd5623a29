//! What the daemon does about what it hears of peers.

use std::time::{Duration, Instant};

use super::report::Trigger;
use super::{Daemon, Origin};
use crate::probe::{Followed, State};

/// How long news of peers may gather before they are left for others to read.
const UNTIL_LEFT: Duration = Duration::from_millis(500);
/// So many peers are left to read.
const MOST_LEFT: usize = 1_000;

impl<O: Origin> Daemon<'_, O> {
    /// Something was heard of peers, or from them.
    pub(super) fn hear_peers(&mut self) {
        self.due.hear = None;
        let words = self.probing.words();
        self.probing.hear();
        if self.heed_peers() {
            self.due.wish(Trigger::Probe);
        }
        if self.trial.is_some() {
            self.due.trial = Some(Instant::now());
        }
        if self.probing.words() != words || self.trial.is_some() {
            self.tell();
        }
    }

    /// What is known of the peers goes where it's wanted. Whether other routes are to be left out.
    pub(super) fn heed_peers(&mut self) -> bool {
        if let Some(board) = &self.board {
            board.with(|board| self.probing.show(&mut board.probes));
        }
        if self.probing.shown().next().is_some() {
            let then = Instant::now() + UNTIL_LEFT;
            self.due.peers.get_or_insert(then);
        } else {
            self.leave_peers();
        }
        self.source.silence(self.probing.silent())
    }

    /// For `tunnelform status`, which has nobody else to ask.
    pub(super) fn leave_peers(&mut self) {
        self.due.peers = None;
        let Some((_, presence)) = &self.presence else {
            return;
        };
        let mut shown: Vec<&Followed> = self.probing.shown().collect();
        shown.sort_by_key(|peer| peer.row.state != State::Unreachable);
        shown.truncate(MOST_LEFT);
        match serde_json::to_vec(&shown) {
            Ok(_) if shown.is_empty() => presence.leave(None),
            Ok(document) => presence.leave(Some(&document)),
            Err(error) => tracing::debug!("can't tell of peers: {error}"),
        }
    }
}
