//! What a pass has come to, in the log and in one line: a line for each change in the plan's words, a summary, and
//! nothing where nothing happened.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Serialize;

use super::damping::{Cause, Damping};
use crate::plan::{Action, Change, Counts, Object, Status, Style};
use crate::reconcile::{Kept, Round};
use crate::trial::Ended;

/// What made the pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// Another topology.
    File,
    /// News of the kernel's.
    Kernel,
    /// More news than there was room for.
    Overrun,
    /// Time, in case something was never told.
    Resync,
    /// SIGHUP.
    Signal,
    /// Something that was left alone has its turn.
    Retry,
    /// Peers that don't answer any more, or again.
    Probe,
    /// A trial that has ended.
    Trial,
}

impl Trigger {
    /// Whether something else is wanted than before, so that what differs needs no repair.
    pub(super) fn is_wish(self) -> bool {
        match self {
            Self::File | Self::Probe | Self::Trial => true,
            Self::Kernel | Self::Overrun | Self::Resync | Self::Signal | Self::Retry => false,
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Kernel => "kernel",
            Self::Overrun => "overrun",
            Self::Resync => "resync",
            Self::Signal => "signal",
            Self::Retry => "retry",
            Self::Probe => "probe",
            Self::Trial => "trial",
        })
    }
}

/// What has been said, so that it's said once.
#[derive(Default)]
pub(super) struct Reporter {
    ready: bool,
    standing: String,
    disputes: BTreeSet<String>,
    pending: BTreeSet<String>,
    put_off: Option<String>,
    polls: bool,
}

impl Reporter {
    /// Whether a pass has left nothing undone but what waits.
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    pub(super) fn bad_file(&self, name: &str, error: &str, in_force: bool) {
        let so = match in_force {
            true => "the last good topology stays in force",
            false => "there is none in force yet",
        };
        tracing::error!("{name} can't be used, {so}:\n{error}");
    }

    /// Files are read again and again.
    pub(super) fn polls(&mut self, why: &str) {
        if !std::mem::replace(&mut self.polls, true) {
            tracing::warn!("{why}: the topology is read every 2 s instead");
        }
    }

    /// There was no pass.
    pub(super) fn put_off(&mut self, why: &str) {
        if self.put_off.as_deref() != Some(why) {
            tracing::warn!("no pass: {why}");
            self.put_off = Some(why.to_owned());
        }
        self.standing = format!("waiting: {why}");
    }

    pub(super) fn pass(
        &mut self,
        kept: &Kept,
        trigger: Trigger,
        took: Duration,
        damping: &mut Damping,
    ) {
        self.put_off = None;
        let mut counts = Counts::default();
        let mut refused = 0;
        for round in &kept.rounds {
            for (change, outcome) in round.plan.changes.iter().zip(&round.outcomes) {
                match outcome.status {
                    Status::Done => {
                        done(change, trigger, damping);
                        count(&mut counts, change.action());
                    }
                    Status::Failed | Status::Skipped | Status::Pending | Status::Undone => {
                        refused += 1;
                        let why = outcome.error.as_deref().unwrap_or("not carried out");
                        self.refused(change, why, damping);
                    }
                }
            }
        }
        self.left(kept);
        let unsettled = unsettled(kept);
        damping.settled(|object| !unsettled.contains(object), Instant::now());
        if !kept.rounds.is_empty() {
            tracing::info!(
                trigger = %trigger,
                took_ms = (took.as_secs_f64() * 1e4).round() / 10.0,
                "{}",
                summary(&counts, refused)
            );
        }
        self.standing = standing(kept, damping);
        self.ready |= refused == 0 && kept.left.plan.changes.is_empty();
    }

    fn refused(&self, change: &Change, why: &str, damping: &mut Damping) {
        let wait = damping.refused(change.object(), Instant::now(), chance());
        tracing::warn!(
            object = %change,
            "failed: {}: {why}; next try in {:.1} s",
            line(change),
            wait.as_secs_f64()
        );
    }

    /// What is in dispute, and what waits for a device.
    fn left(&mut self, kept: &Kept) {
        let disputes = kept.left.plan.conflicts.iter();
        let disputes = disputes.map(|c| format!("{}: {}; {}", c.object, c.found, c.help));
        for dispute in news(&mut self.disputes, disputes) {
            tracing::warn!("conflict: {dispute}");
        }
        let pending = kept.left.pending.iter();
        for pending in news(&mut self.pending, pending.map(ToString::to_string)) {
            tracing::warn!("pending: {pending}");
        }
    }

    /// What was on trial isn't any more; the rounds are the daemon's own.
    pub(super) fn taken_back(&mut self, rounds: &[Round], ended: &Ended) {
        self.carried_out(rounds);
        tracing::warn!("{ended}");
        self.standing = "taken back".into();
    }

    pub(super) fn carried_out(&self, rounds: &[Round]) {
        for round in rounds {
            for (change, outcome) in round.plan.changes.iter().zip(&round.outcomes) {
                match &outcome.error {
                    None => tracing::info!(object = %change, "{}", line(change)),
                    Some(why) => {
                        tracing::error!(object = %change, "failed: {}: {why}", line(change));
                    }
                }
            }
        }
    }

    /// How it stands, in one line.
    pub(super) fn words(
        &self,
        name: &str,
        error: Option<&str>,
        more: impl Iterator<Item = String>,
    ) -> String {
        let mut standing = match self.standing.as_str() {
            "" => "starting".to_owned(),
            standing => standing.to_owned(),
        };
        for more in more {
            standing += &format!("; {more}");
        }
        match error.and_then(|error| error.lines().next()) {
            Some(error) => format!("{standing}; {name} can't be used: {error}"),
            None => format!("{standing}; follows {name}"),
        }
    }
}

/// A change that was made. One that nothing new asked for is a repair, and may be one too many.
fn done(change: &Change, trigger: Trigger, damping: &mut Damping) {
    let action = change.action();
    tracing::info!(object = %change, trigger = %trigger, "{}", line(change));
    if trigger.is_wish() || action == Action::Restore {
        return;
    }
    if let Some(wait) = damping.repaired(change.object(), Instant::now()) {
        tracing::warn!(
            object = %change,
            "{change} is changed again and again{}: left alone for {} s",
            who(change),
            wait.as_secs()
        );
    }
}

/// Who might be at work, where the object tells.
fn who(change: &Change) -> String {
    match change {
        Change::Route(_, delta) => match (delta.before(), delta.after()) {
            (Some(from), Some(to)) if from.protocol != to.protocol => {
                format!(", by protocol {}", from.protocol)
            }
            _ => String::new(),
        },
        Change::Tunnel(_, delta) => match (delta.before(), delta.after()) {
            (Some(from), Some(to)) if from.alias != to.alias => {
                format!(", its alias to {:?}", from.alias)
            }
            _ => String::new(),
        },
        Change::Address(..) => String::new(),
    }
}

/// What doesn't stand as it should after the pass.
fn unsettled(kept: &Kept) -> BTreeSet<Object> {
    let left = &kept.left;
    let planned = left.plan.changes.iter().map(Change::object);
    let held = left.held.iter().copied();
    let disputes = left.plan.conflicts.iter().map(|conflict| conflict.on);
    planned.chain(held).chain(disputes).collect()
}

/// The plan's words on one line.
pub(super) fn line(change: &Change) -> String {
    let text = change.text(Style { color: false });
    let mut lines = text.lines().map(str::trim);
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |line, attribute| format!("{line}  {attribute}"))
}

pub(super) fn count(counts: &mut Counts, action: Action) {
    *match action {
        Action::Create => &mut counts.create,
        Action::Update => &mut counts.update,
        Action::Replace => &mut counts.replace,
        Action::Delete => &mut counts.delete,
        Action::Restore => &mut counts.restore,
    } += 1;
}

fn summary(counts: &Counts, refused: usize) -> String {
    let Counts {
        create,
        update,
        replace,
        delete,
        restore,
    } = counts;
    let mut text =
        format!("pass: {create} created, {update} changed, {replace} replaced, {delete} deleted");
    for (count, what) in [(*restore, "put back"), (refused, "failed")] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    text
}

fn standing(kept: &Kept, damping: &Damping) -> String {
    let state = &kept.desired;
    let waiting: Vec<Cause> = damping
        .waiting(Instant::now())
        .map(|(_, cause, _)| cause)
        .collect();
    let of = |cause| waiting.iter().filter(|waiting| **waiting == cause).count();
    let parts = [
        (kept.left.plan.changes.len(), "not as they should be"),
        (kept.left.pending.len(), "pending"),
        (kept.left.plan.conflicts.len(), "in conflict"),
        (of(Cause::Refused), "failed"),
        (of(Cause::Fought), "fought over"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let wanted = format!(
        "{} tunnels, {} addresses, {} routes",
        state.tunnels.len(),
        state.addresses.len(),
        state.routes.len()
    );
    match parts.is_empty() {
        true => format!("in sync: {wanted}"),
        false => format!("{} of {wanted}", parts.join(", ")),
    }
}

/// What wasn't said before; what no longer holds may be said again.
fn news(said: &mut BTreeSet<String>, now: impl Iterator<Item = String>) -> Vec<String> {
    let now: BTreeSet<String> = now.collect();
    let news = now.difference(said).cloned().collect();
    *said = now;
    news
}

/// From 0 to 1, by the randomness that the standard library's maps are seeded with.
fn chance() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(random >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}
