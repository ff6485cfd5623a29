//! What the loop leaves for those who ask over HTTP: plain data, which one thread writes and another reads.
//!
//! Nothing is decided from it.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::metrics::histogram::Histogram;
use schemars::JsonSchema;
use serde::Serialize;

use super::damping::{Cause, Damping};
use super::report::{Trigger, count, line};
use super::source::Good;
use super::trial::Told;
use crate::graph;
use crate::kernel::Traffic;
use crate::plan::{Action, Change, Conflict, Counts, Object, Pending, Status};
use crate::probe::Followed;
use crate::reconcile::Kept;
use crate::state::{InterfaceName, Kind, Route, RouteKey, State};

/// How many passes, and how many repairs, are remembered.
const REMEMBERED: usize = 20;
/// How many objects of a list are told one by one: a million routes may wait for one device.
pub(super) const MOST_TOLD: usize = 1_000;
/// Seconds: a pass over some tunnels takes milliseconds, one over a million routes seconds.
const DURATIONS: [f64; 10] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// A board that two threads share.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Board>>);

impl Shared {
    pub(super) fn new(file: String) -> Self {
        Self(Arc::new(Mutex::new(Board::new(file))))
    }

    /// A thread that has panicked leaves numbers behind, and no broken promise.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Board) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How an object stands after the last pass, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Standing {
    /// As it should be.
    InSync,
    /// It waits for a device or its address, or for an object that isn't in sync.
    Pending,
    /// Somebody puts it back whenever it's repaired, so it's left alone for a while.
    Fought,
    /// The kernel refused it; it's tried again later.
    Failed,
    /// Its place is taken by something that isn't ours.
    Conflict,
}

impl Standing {
    pub(super) const ALL: [Self; 5] = [
        Self::InSync,
        Self::Pending,
        Self::Fought,
        Self::Failed,
        Self::Conflict,
    ];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::InSync => "in_sync",
            Self::Pending => "pending",
            Self::Fought => "fought",
            Self::Failed => "failed",
            Self::Conflict => "conflict",
        }
    }
}

/// What a pass has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// There was nothing to do.
    Unchanged,
    /// What was to do is done.
    Changed,
    /// The kernel refused something.
    Failed,
    /// It wasn't made: another run is at work.
    PutOff,
}

impl Outcome {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Changed => "changed",
            Self::Failed => "failed",
            Self::PutOff => "put_off",
        }
    }
}

/// The topology in force.
pub(super) struct InForce {
    pub(super) owner: String,
    pub(super) node: Option<String>,
    pub(super) generation: String,
    pub(super) loaded: SystemTime,
    /// An SVG.
    pub(super) picture: Arc<str>,
}

/// A tunnel that is wanted.
pub(super) struct TunnelRow {
    pub(super) name: InterfaceName,
    pub(super) local: Option<Ipv4Addr>,
    pub(super) remote: Option<Ipv4Addr>,
    /// Of the tunnel, its addresses and routes, the worst.
    pub(super) standing: Standing,
    /// The device of that name is somebody else's.
    pub(super) foreign: bool,
}

/// An object that is left alone.
pub(super) struct HeldRow {
    pub(super) object: String,
    pub(super) cause: Option<Cause>,
    pub(super) until: Option<Instant>,
}

pub(super) struct PassRow {
    pub(super) time: SystemTime,
    pub(super) trigger: Trigger,
    pub(super) took: Duration,
    pub(super) outcome: Outcome,
    pub(super) counts: Counts,
    pub(super) failed: usize,
}

pub(super) struct DriftRow {
    pub(super) time: SystemTime,
    pub(super) object: String,
    pub(super) change: String,
}

pub(super) struct Board {
    pub(super) file: String,
    /// When the loop last turned.
    pub(super) turned: Instant,
    pub(super) in_force: Option<InForce>,
    pub(super) error: Option<String>,
    pub(super) standing: String,
    pub(super) ready: bool,
    pub(super) tunnels: Vec<TunnelRow>,
    /// By kind of object.
    pub(super) objects: BTreeMap<(&'static str, Standing), usize>,
    /// How the peers stand that are probed.
    pub(super) probes: Vec<Followed>,
    pub(super) pending: Vec<Pending>,
    pub(super) conflicts: Vec<Conflict>,
    pub(super) held: Vec<HeldRow>,
    pub(super) passes: VecDeque<PassRow>,
    pub(super) drift: VecDeque<DriftRow>,
    pub(super) passes_made: BTreeMap<(Trigger, Outcome), u64>,
    pub(super) durations: Histogram,
    /// By kind of object and action.
    pub(super) changes: BTreeMap<(&'static str, &'static str), u64>,
    /// By kind of object.
    pub(super) repairs: BTreeMap<&'static str, u64>,
    pub(super) overruns: u64,
    /// Over the connection that passes are made with.
    pub(super) traffic: Traffic,
    /// The new topology that is on trial.
    pub(super) on_trial: Option<Told>,
    pub(super) taken_back: u64,
    /// What didn't stand well after the last pass.
    unwell: BTreeMap<Object, Standing>,
    /// The topology hasn't been applied yet: what differs is no drift.
    fresh: bool,
}

impl Board {
    fn new(file: String) -> Self {
        Self {
            file,
            turned: Instant::now(),
            in_force: None,
            error: None,
            standing: String::new(),
            ready: false,
            tunnels: Vec::new(),
            objects: BTreeMap::new(),
            probes: Vec::new(),
            pending: Vec::new(),
            conflicts: Vec::new(),
            held: Vec::new(),
            passes: VecDeque::new(),
            drift: VecDeque::new(),
            passes_made: BTreeMap::new(),
            durations: Histogram::new(DURATIONS),
            changes: BTreeMap::new(),
            repairs: BTreeMap::new(),
            overruns: 0,
            traffic: Traffic::default(),
            on_trial: None,
            taken_back: 0,
            unwell: BTreeMap::new(),
            fresh: true,
        }
    }

    /// Another topology is in force, or none.
    pub(super) fn load(&mut self, good: Option<&Good>) {
        self.fresh = true;
        self.in_force = good.map(|good| InForce {
            owner: good.terms.owner.to_string(),
            node: good.host.node.as_ref().map(ToString::to_string),
            generation: good.generation.clone(),
            loaded: SystemTime::now(),
            picture: graph::draw(&good.host.topology, graph::Format::Svg).into(),
        });
    }

    /// A pass wasn't made.
    pub(super) fn put_off(&mut self, trigger: Trigger, took: Duration) {
        self.row(trigger, took, Outcome::PutOff, Counts::default(), 0);
    }

    pub(super) fn pass(
        &mut self,
        kept: &Kept,
        trigger: Trigger,
        took: Duration,
        damping: &Damping,
    ) {
        let (mut counts, mut failed) = (Counts::default(), 0);
        for round in &kept.rounds {
            for (change, outcome) in round.plan.changes.iter().zip(&round.outcomes) {
                match outcome.status {
                    Status::Done => {
                        count(&mut counts, change.action());
                        self.done(change, trigger);
                    }
                    Status::Failed | Status::Skipped | Status::Pending | Status::Undone => {
                        failed += 1
                    }
                }
            }
        }
        let outcome = match (failed, kept.rounds.is_empty()) {
            (0, true) => Outcome::Unchanged,
            (0, false) => Outcome::Changed,
            _ => Outcome::Failed,
        };
        self.row(trigger, took, outcome, counts, failed);
        self.durations.observe(took.as_secs_f64());
        self.fresh = false;
        self.left(kept, damping);
    }

    fn row(
        &mut self,
        trigger: Trigger,
        took: Duration,
        outcome: Outcome,
        counts: Counts,
        failed: usize,
    ) {
        *self.passes_made.entry((trigger, outcome)).or_default() += 1;
        let row = PassRow {
            time: SystemTime::now(),
            trigger,
            took,
            outcome,
            counts,
            failed,
        };
        remember(&mut self.passes, row);
    }

    fn done(&mut self, change: &Change, trigger: Trigger) {
        let (kind, action) = (change.kind(), change.action());
        *self.changes.entry((kind, word(action))).or_default() += 1;
        if !trigger.is_wish() && self.is_drift(change) {
            *self.repairs.entry(kind).or_default() += 1;
            let row = DriftRow {
                time: SystemTime::now(),
                object: change.to_string(),
                change: line(change),
            };
            remember(&mut self.drift, row);
        }
    }

    /// What stood as it should and no longer did, though the topology is the same. What waited or had failed comes late.
    fn is_drift(&self, change: &Change) -> bool {
        let before = self.unwell.get(&change.object());
        !self.fresh
            && change.action() != Action::Restore
            && before.is_none_or(|before| *before == Standing::Fought)
    }

    fn left(&mut self, kept: &Kept, damping: &Damping) {
        let left = &kept.left;
        let waiting: BTreeMap<&Object, (Cause, Instant)> = damping
            .waiting(Instant::now())
            .map(|(object, cause, until)| (object, (cause, until)))
            .collect();
        self.unwell = unwell(kept, &waiting);
        self.objects = objects(&kept.desired, &self.unwell);
        self.tunnels = tunnels(kept, &self.unwell);
        self.pending = left.pending.iter().take(MOST_TOLD).copied().collect();
        self.conflicts = left
            .plan
            .conflicts
            .iter()
            .take(MOST_TOLD)
            .cloned()
            .collect();
        let dependent = left.held.iter().filter(|held| !waiting.contains_key(held));
        let dependent = dependent.map(|object| (object, None));
        let waiting = waiting.iter().map(|(object, why)| (*object, Some(*why)));
        self.held = waiting
            .chain(dependent)
            .take(MOST_TOLD)
            .map(|(object, why)| HeldRow {
                object: object.to_string(),
                cause: why.map(|(cause, _)| cause),
                until: why.map(|(_, until)| until),
            })
            .collect();
    }
}

fn remember<T>(rows: &mut VecDeque<T>, row: T) {
    rows.push_front(row);
    rows.truncate(REMEMBERED);
}

fn word(action: Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Update => "update",
        Action::Replace => "replace",
        Action::Delete => "delete",
        Action::Restore => "restore",
    }
}

/// What doesn't stand as it should. Of two reasons the one counts that somebody has to do something about.
fn unwell(
    kept: &Kept,
    waiting: &BTreeMap<&Object, (Cause, Instant)>,
) -> BTreeMap<Object, Standing> {
    let left = &kept.left;
    let held = left.held.iter().map(|on| (*on, Standing::Pending));
    let pending = left.pending.iter();
    let pending = pending.map(|pending| (pending.object, Standing::Pending));
    let undone = left.plan.changes.iter();
    let undone = undone.map(|change| (change.object(), Standing::Failed));
    let waiting = waiting.iter().map(|(on, (cause, _))| match cause {
        Cause::Refused => (**on, Standing::Failed),
        Cause::Fought => (**on, Standing::Fought),
    });
    let disputes = left.plan.conflicts.iter();
    let disputes = disputes.map(|conflict| (conflict.on, Standing::Conflict));
    held.chain(pending)
        .chain(undone)
        .chain(waiting)
        .chain(disputes)
        .collect()
}

fn kind(object: &Object) -> &'static str {
    match object {
        Object::Tunnel(_) => "tunnel",
        Object::Address(_) => "address",
        Object::Route(_) => "route",
    }
}

fn objects(
    desired: &State,
    unwell: &BTreeMap<Object, Standing>,
) -> BTreeMap<(&'static str, Standing), usize> {
    let wanted = [
        ("tunnel", desired.tunnels.len()),
        ("address", desired.addresses.len()),
        ("route", desired.routes.len()),
    ];
    let mut objects = BTreeMap::new();
    for (kind, count) in wanted {
        for standing in Standing::ALL {
            objects.insert((kind, standing), 0);
        }
        objects.insert((kind, Standing::InSync), count);
    }
    for (object, standing) in unwell {
        *objects.entry((kind(object), *standing)).or_default() += 1;
        let is_wanted = match object {
            Object::Tunnel(name) => desired.tunnels.contains_key(name),
            Object::Address(key) => desired.addresses.contains_key(key),
            Object::Route(key) => desired.routes.contains_key(key),
        };
        if is_wanted {
            *objects.entry((kind(object), Standing::InSync)).or_default() -= 1;
        }
    }
    objects
}

fn tunnels(kept: &Kept, unwell: &BTreeMap<Object, Standing>) -> Vec<TunnelRow> {
    let mut worst: BTreeMap<InterfaceName, Standing> = BTreeMap::new();
    for (object, standing) in unwell {
        for device in devices(object, kept) {
            let worst = worst.entry(device).or_insert(*standing);
            *worst = (*worst).max(*standing);
        }
    }
    let rows = kept.desired.tunnels.iter().map(|(name, tunnel)| {
        let Kind::Ipip(ipip) = &tunnel.kind;
        TunnelRow {
            name: *name,
            local: ipip.local,
            remote: ipip.remote,
            standing: worst.get(name).copied().unwrap_or(Standing::InSync),
            foreign: unwell.get(&Object::Tunnel(*name)) == Some(&Standing::Conflict),
        }
    });
    rows.collect()
}

fn devices(object: &Object, kept: &Kept) -> Vec<InterfaceName> {
    let route = |key: &RouteKey| -> Option<&Route> {
        let routes = &kept.desired.routes;
        routes.get(key).or(kept.observed.state.routes.get(key))
    };
    match object {
        Object::Tunnel(name) => vec![*name],
        Object::Address(key) => vec![key.device],
        Object::Route(key) => route(key).map_or_else(Vec::new, |route| route.devices().collect()),
    }
}
