//! How one peer stands, and since when. The clock is the caller's.

use std::time::SystemTime;

use crate::probe::{Followed, Mtu, Outcome, Row, State, Target, too_narrow};

/// Something that somebody should hear of once.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Something is wrong.
    Alarm(String),
    /// It isn't any more.
    Relief(String),
}

/// A peer that the daemon probes.
pub(super) struct Peer {
    pub(super) target: Target,
    pub(super) shown: Followed,
    /// Of the last search.
    mtu: Option<Mtu>,
    /// A whole probe had no answer.
    pub(super) dead: bool,
}

impl Peer {
    pub(super) fn new(target: Target, before: Option<Self>, now: SystemTime) -> Self {
        let fresh = Row::new(&target, None, None);
        match before {
            Some(before) => {
                let mut shown = before.shown;
                shown.row.peer = fresh.peer;
                Self {
                    target,
                    shown,
                    ..before
                }
            }
            None => Self {
                target,
                shown: Followed {
                    row: fresh,
                    since: time(now),
                    probed: None,
                    sent_total: 0,
                    received_total: 0,
                    withdrawn: false,
                    warning: None,
                },
                mtu: None,
                dead: false,
            },
        }
    }

    pub(super) fn heard(&mut self, mut outcome: Outcome, now: SystemTime) -> Vec<News> {
        let tunnel_mtu = self.shown.row.tunnel_mtu;
        let was_narrow = narrow(self.mtu.as_ref());
        self.mtu = match (outcome.mtu.take(), outcome.times.is_empty()) {
            (Some(found), _) => Some(found),
            (None, true) => None,
            (None, false) => self.mtu.take().filter(|mtu| Some(mtu.tunnel) == tunnel_mtu),
        };
        outcome.mtu.clone_from(&self.mtu);
        self.dead = outcome.sent > 0 && outcome.times.is_empty();
        let warning = too_narrow(&self.target, &outcome);
        let row = Row::new(&self.target, Some(outcome), tunnel_mtu);
        let mut news: Vec<News> = self.change(&row).into_iter().collect();
        match (was_narrow, narrow(self.mtu.as_ref())) {
            (before, Some(now)) if before != Some(now) => {
                news.extend(warning.clone().map(News::Alarm));
            }
            (Some(_), None) if row.state == State::Reachable && self.mtu.is_some() => {
                let text = format!("{}: packets of the tunnel's MTU pass again", self.target);
                news.push(News::Relief(text));
            }
            _ => {}
        }
        let shown = &mut self.shown;
        shown.sent_total += u64::from(row.sent);
        shown.received_total += u64::from(row.received);
        shown.probed = Some(time(now));
        shown.warning = warning;
        self.show(row, now);
        news
    }

    fn change(&self, row: &Row) -> Option<News> {
        match (self.shown.row.state, row.state) {
            (State::Unreachable, State::Unreachable) => None,
            (_, State::Unreachable) => {
                let why = row.reason.iter().map(|why| format!(": {why}"));
                let why: String = why.collect();
                Some(News::Alarm(format!("{}: no answer{why}", self.target)))
            }
            (State::Unreachable, State::Reachable) => {
                Some(News::Relief(format!("{}: answers again", self.target)))
            }
            (
                State::Reachable | State::NoTarget | State::Down | State::Unknown,
                State::Reachable,
            )
            | (_, State::NoTarget | State::Down | State::Unknown) => None,
        }
    }

    /// Nothing is known of it any more. Whether that is new.
    pub(super) fn unable(&mut self, why: &str, now: SystemTime) -> bool {
        let row = Row {
            reason: Some(why.to_owned()),
            ..Row::new(&self.target, None, self.shown.row.tunnel_mtu)
        };
        let is_new = self.shown.row != row;
        (self.mtu, self.dead, self.shown.warning) = (None, false, None);
        self.show(row, now);
        is_new
    }

    fn show(&mut self, row: Row, now: SystemTime) {
        if self.shown.row.state != row.state {
            self.shown.since = time(now);
        }
        self.shown.row = row;
    }
}

/// The path's MTU and the tunnel's, where the path's is smaller.
fn narrow(mtu: Option<&Mtu>) -> Option<(u32, u32)> {
    let mtu = mtu.filter(|mtu| mtu.path < mtu.tunnel)?;
    Some((mtu.path, mtu.tunnel))
}

fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
