//! The board as one JSON document.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use schemars::{JsonSchema, Schema};
use serde::Serialize;

use super::super::board::{
    Board, DriftRow, HeldRow, MOST_TOLD, Outcome, PassRow, Standing, TunnelRow,
};
use super::super::damping::Cause;
use super::super::report::Trigger;
use super::super::trial::Told;
use crate::plan::{Conflict, Counts, Lack};
use crate::probe::Followed;
use crate::state::{Counters, Device, InterfaceName};

/// The host's devices by name.
pub(super) type Devices = BTreeMap<InterfaceName, Device>;

/// How a host stands that `tunnelform watch` keeps.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "tunnelform watch status")]
pub(super) struct Status {
    /// Version of this shape: 1.
    format_version: u32,
    /// Version of the program.
    version: &'static str,
    /// When this was said, RFC 3339.
    time: String,
    /// The file or directory that is followed.
    file: String,
    /// Why the file can't be used; null: it can. What was in force stays so.
    error: Option<String>,
    /// Whether a pass has left nothing undone but what waits.
    ready: bool,
    /// How it stands, in words.
    standing: String,
    /// The topology in force; null: there is none yet.
    in_force: Option<InForce>,
    /// The topology in force waits to be confirmed; null: it doesn't.
    on_trial: Option<OnTrial>,
    /// How many new topologies this daemon has taken back.
    taken_back_total: u64,
    /// How many objects stand how after the last pass.
    objects: Objects,
    /// The tunnels that are wanted.
    tunnels: Vec<Tunnel>,
    /// The peers that are probed.
    probes: Vec<Followed>,
    /// What waits for a device, 1000 at most.
    pending: Vec<Pending>,
    /// What is in dispute, 1000 at most.
    conflicts: Vec<Conflict>,
    /// What is left alone for a while, 1000 at most.
    held: Vec<Held>,
    /// The last passes, 20 at most, the latest first.
    passes: Vec<Pass>,
    /// What was repaired lately, 20 at most, the latest first.
    drift: Vec<Drift>,
}

/// The topology in force.
#[derive(Serialize, JsonSchema)]
struct InForce {
    /// The topology's name.
    owner: String,
    /// Which node of a fleet this is; null: the topology is for one host.
    node: Option<String>,
    /// What tells these files from others.
    generation: String,
    /// When they were read, RFC 3339.
    loaded: String,
}

/// A topology that is taken back unless it's confirmed.
#[derive(Serialize, JsonSchema)]
struct OnTrial {
    /// Seconds until it's taken back.
    seconds_left: f64,
    /// Whether the peers' answers confirm it.
    by_probe: bool,
    /// Peers that have to answer, each with its tunnel, 1000 at most.
    awaited: Vec<String>,
}

/// Objects by kind.
#[derive(Serialize, JsonSchema)]
struct Objects {
    /// Tunnels.
    tunnels: Tally,
    /// Addresses.
    addresses: Tally,
    /// Routes.
    routes: Tally,
}

/// How many objects stand how.
#[derive(Serialize, JsonSchema)]
struct Tally {
    /// As they should be.
    in_sync: usize,
    /// They wait for a device or its address, or for an object that isn't in sync.
    pending: usize,
    /// Somebody puts them back whenever they are repaired.
    fought: usize,
    /// The kernel refused them.
    failed: usize,
    /// Their place is taken.
    conflict: usize,
}

/// A tunnel that is wanted.
#[derive(Serialize, JsonSchema)]
struct Tunnel {
    /// The device's name.
    name: String,
    /// The worst of the tunnel, its addresses and its routes after the last pass.
    state: Standing,
    /// Outer source address; null: chosen by routing.
    local: Option<String>,
    /// Outer destination; null: multipoint.
    remote: Option<String>,
    /// Whether it's there and set up now; null: the kernel can't be asked.
    up: Option<bool>,
    /// Its traffic now; null: it isn't there, isn't ours, or the kernel can't be asked.
    counters: Option<Counters>,
}

/// What waits for a device.
#[derive(Serialize, JsonSchema)]
struct Pending {
    /// The object in words: `tunnel tun1`.
    object: String,
    /// The device.
    device: String,
    /// What is missing of it.
    lacks: Lack,
}

/// What is left alone for a while.
#[derive(Serialize, JsonSchema)]
struct Held {
    /// The object in words: `tunnel tun1`.
    object: String,
    /// Why.
    cause: HeldCause,
    /// Seconds until its turn; null: when that is settled which it depends on.
    seconds_left: Option<f64>,
}

/// Why an object is left alone.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum HeldCause {
    /// The kernel refused it.
    Refused,
    /// Somebody puts it back whenever it's repaired.
    Fought,
    /// It depends on something that isn't in sync.
    Depends,
}

/// A pass.
#[derive(Serialize, JsonSchema)]
struct Pass {
    /// When it was over, RFC 3339.
    time: String,
    /// What made it.
    trigger: Trigger,
    /// How long it took.
    took_ms: f64,
    /// What it came to.
    result: Outcome,
    /// The changes that were made.
    counts: Counts,
    /// How many the kernel refused.
    failed: usize,
}

/// A repair.
#[derive(Serialize, JsonSchema)]
struct Drift {
    /// When, RFC 3339.
    time: String,
    /// The object in words: `tunnel tun1`.
    object: String,
    /// What was done, in the plan's words.
    change: String,
}

/// JSON Schema of what `/status` answers.
pub fn schema() -> Schema {
    schemars::schema_for!(Status)
}

impl Status {
    pub(super) fn new(board: &Board, devices: Option<&Devices>) -> Self {
        let in_force = board.in_force.as_ref().map(|in_force| InForce {
            owner: in_force.owner.clone(),
            node: in_force.node.clone(),
            generation: in_force.generation.clone(),
            loaded: time(in_force.loaded),
        });
        let tally = |kind| {
            let of = |standing| board.objects.get(&(kind, standing)).copied().unwrap_or(0);
            Tally {
                in_sync: of(Standing::InSync),
                pending: of(Standing::Pending),
                fought: of(Standing::Fought),
                failed: of(Standing::Failed),
                conflict: of(Standing::Conflict),
            }
        };
        let pending = board.pending.iter().map(|pending| Pending {
            object: pending.object.to_string(),
            device: pending.device.to_string(),
            lacks: pending.lacks,
        });
        Self {
            format_version: 1,
            version: env!("CARGO_PKG_VERSION"),
            time: time(SystemTime::now()),
            file: board.file.clone(),
            error: board.error.clone(),
            ready: board.ready,
            standing: board.standing.clone(),
            in_force,
            on_trial: board.on_trial.as_ref().map(on_trial),
            taken_back_total: board.taken_back,
            objects: Objects {
                tunnels: tally("tunnel"),
                addresses: tally("address"),
                routes: tally("route"),
            },
            tunnels: board
                .tunnels
                .iter()
                .map(|row| tunnel(row, devices))
                .collect(),
            probes: board.probes.clone(),
            pending: pending.collect(),
            conflicts: board.conflicts.clone(),
            held: board.held.iter().map(held).collect(),
            passes: board.passes.iter().map(pass).collect(),
            drift: board.drift.iter().map(drift).collect(),
        }
    }
}

/// The device of a tunnel that is ours.
pub(super) fn device<'a>(row: &TunnelRow, devices: &'a Devices) -> Option<&'a Device> {
    devices.get(&row.name).filter(|_| !row.foreign)
}

fn tunnel(row: &TunnelRow, devices: Option<&Devices>) -> Tunnel {
    let found = devices.map(|devices| device(row, devices));
    Tunnel {
        name: row.name.to_string(),
        state: row.standing,
        local: row.local.map(|address| address.to_string()),
        remote: row.remote.map(|address| address.to_string()),
        up: found.map(|device| device.is_some_and(|device| device.up)),
        counters: found
            .flatten()
            .and_then(|device| device.counters.as_deref().copied()),
    }
}

fn on_trial(told: &Told) -> OnTrial {
    OnTrial {
        seconds_left: left(told.until),
        by_probe: told.by_probe,
        awaited: told.awaited.iter().take(MOST_TOLD).cloned().collect(),
    }
}

/// Seconds until then.
fn left(until: Instant) -> f64 {
    let left = until.saturating_duration_since(Instant::now());
    left.as_secs_f64()
}

fn held(row: &HeldRow) -> Held {
    Held {
        object: row.object.clone(),
        cause: match row.cause {
            Some(Cause::Refused) => HeldCause::Refused,
            Some(Cause::Fought) => HeldCause::Fought,
            None => HeldCause::Depends,
        },
        seconds_left: row.until.map(left),
    }
}

fn pass(row: &PassRow) -> Pass {
    Pass {
        time: time(row.time),
        trigger: row.trigger,
        took_ms: row.took.as_secs_f64() * 1e3,
        result: row.outcome,
        counts: row.counts,
        failed: row.failed,
    }
}

fn drift(row: &DriftRow) -> Drift {
    Drift {
        time: time(row.time),
        object: row.object.clone(),
        change: row.change.clone(),
    }
}

fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
