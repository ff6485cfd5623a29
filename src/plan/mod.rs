//! The plan: what differs between desired and observed, in the order in which it is carried out.
//!
//! A plan is a value: it's shown, written as JSON and carried out, and whoever carries it out decides nothing.

mod around;
mod change;
mod cut;
mod dependents;
mod diff;
mod document;
mod effect;
#[cfg(test)]
mod forwarding_tests;
mod in_place;
mod model;
mod obstacles;
mod order;
mod saved;
mod scope;
mod stand_in;
#[cfg(test)]
mod testing;
#[cfg(test)]
pub(crate) mod tests;
mod text;
mod undo;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::state::{AdminState, Desired, InterfaceName, Observed, State, Unmet};
use crate::topology::Owner;
pub use around::{Around, Lack, Pending, plan_around};
pub use change::{Action, Change, Delta, Object};
pub use dependents::is_kernels_link_local;
pub use document::{
    ChangeDocument, Document, FleetDocument, NodeDocument, Outcome, Status, TakenBackDocument,
    fleet_schema, schema,
};
pub use saved::{
    Basis, Origin, Purpose, Saved, Unfit, Verdict, judge, schema as saved_schema, sha256,
};
pub use scope::Scope;
pub(crate) use stand_in::{address_on, leaving, led_over, stand_in, waiting};
pub use text::{Style, unified_diff};
pub use undo::Undo;

/// Whose objects a plan may touch, and how far it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Whose tunnels.
    pub owner: Owner,
    /// The mark of routes, and of addresses outside tunnels.
    #[serde(rename = "route_protocol")]
    pub protocol: u8,
    /// Take over what exists without our mark.
    pub adopt: bool,
    /// Delete what is ours and not desired.
    pub prune: bool,
    /// Addresses whose way isn't to be removed or redirected.
    pub protect: BTreeSet<IpAddr>,
    /// Whether traffic mustn't stop anywhere, not even briefly.
    #[serde(rename = "require_hitless")]
    pub hitless: bool,
}

impl Terms {
    /// Deletes what is ours and not desired, adopts nothing, protects nothing.
    pub fn new(owner: Owner, protocol: u8) -> Self {
        Self {
            owner,
            protocol,
            adopt: false,
            prune: true,
            protect: BTreeSet::new(),
            hitless: false,
        }
    }
}

/// The changes, and what a person should know before they are made.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// What differs: tunnels, addresses, routes, each in the order of their keys.
    pub changes: Vec<Change>,
    /// What differs and has to stay so for now.
    pub withheld: Vec<Change>,
    /// Tunnels that lack a fact about the host: nothing of theirs is among the changes.
    pub unmet: BTreeMap<InterfaceName, Unmet>,
    /// What each change does to traffic.
    pub effects: Vec<Effect>,
    /// How the changes are carried out.
    pub steps: Vec<Step>,
    /// Tunnels that are replaced, each with the device that carries its traffic meanwhile.
    pub stand_ins: BTreeMap<InterfaceName, InterfaceName>,
    /// Objects that stand in the way. A plan with conflicts must not be carried out.
    pub conflicts: Vec<Conflict>,
    /// What the kernel will refuse. The other changes can be made all the same.
    pub obstacles: Vec<Obstacle>,
    /// Protected addresses that would be cut off. A plan with cuts must not be carried out.
    pub cuts: Vec<Cut>,
    /// What stops traffic where nothing may. A plan with hits must not be carried out.
    pub hits: Vec<String>,
    /// What else to know.
    pub warnings: Vec<String>,
}

/// One move of the execution: a change, or a part of a replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Index of the change.
    pub change: usize,
    /// Which part.
    pub part: Part,
}

/// The parts of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Take the object away.
    Remove,
    /// Create the object, or make it as it should be. A tunnel with a stand-in waits on `lo`.
    Put,
    /// Make the stand-in, put the address on it, lead the route over it.
    Prepare,
    /// The tunnel takes the ends over from its stand-in.
    TakeOver,
    /// Take the address from the stand-in, or the stand-in away.
    Clear,
}

/// An object that is in the way and isn't ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Conflict {
    /// The object.
    #[serde(skip)]
    pub on: Object,
    /// The object in words: `tunnel tun1`.
    pub object: String,
    /// What was found there.
    pub found: String,
    /// What to do about it.
    pub help: String,
}

/// Why the kernel will refuse changes, as far as the snapshot tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Obstacle {
    /// The reason, in words.
    pub reason: String,
    /// The objects that can't be made because of it, in words: `route 10.244.0.0/16`.
    pub objects: Vec<String>,
}

/// A protected address whose way a plan removes or redirects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Cut {
    /// The address.
    #[schemars(with = "String")]
    pub address: IpAddr,
    /// What becomes of its way, in words.
    pub why: String,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} would be cut off: {}", self.address, self.why)
    }
}

/// What a change does to traffic.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// No packet is lost. (The kernel takes a tunnel whose options it sets out of its table for a moment: no loss was
    /// seen.)
    None,
    /// Packets may be lost until the run's next messages are carried out, or until senders have learnt of a smaller MTU.
    Brief,
    /// Traffic that goes now won't, or not to the same far end.
    Stops,
}

/// Compares desired with observed.
///
/// `known`: what the topology names, which is more than `desired` where it is being destroyed; `None`: nobody knows.
pub fn plan(desired: &Desired, known: Option<&State>, observed: &Observed, terms: &Terms) -> Plan {
    let mut plan = draft(desired, known, observed, terms);
    plan.complete(desired, observed, terms);
    plan
}

/// As [`plan`], but the changes alone, in no order: enough to tell whether they concern all routes.
pub fn draft(desired: &Desired, known: Option<&State>, observed: &Observed, terms: &Terms) -> Plan {
    let diff::Difference {
        changes,
        withheld,
        conflicts,
        warnings,
    } = diff::diff(desired, known, observed, terms);
    Plan {
        changes,
        withheld,
        unmet: desired.unmet.clone(),
        conflicts,
        warnings,
        ..Plan::default()
    }
}

/// What to know of a tunnel that takes larger packets than its outer path.
fn narrow(change: &Change, desired: &Desired) -> Option<String> {
    let Change::Tunnel(name, delta) = change else {
        return None;
    };
    let mtu = delta.after()?.mtu;
    let fits = desired.too_large.get(name)?;
    Some(format!(
        "tunnel {name}: of its mtu of {mtu} the outer path carries {fits}: larger packets are cut up or refused"
    ))
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether one message carries it out, which the kernel does whole or not at all.
    pub fn is_indivisible(&self) -> bool {
        match (self.changes.as_slice(), self.steps.as_slice()) {
            // Of several options the first may be set when the second is refused (`do_setlink`).
            ([Change::Tunnel(_, Delta::Update { from, to })], [_]) => {
                let options = [
                    from.kind != to.kind,
                    from.mtu != to.mtu,
                    from.state != to.state,
                    from.alias != to.alias,
                ];
                options.into_iter().filter(|differs| *differs).count() == 1
            }
            ([Change::Address(_, Delta::Create(_) | Delta::Delete { .. })], [_]) => true,
            ([Change::Route(..)], [_]) => true,
            _ => false,
        }
    }

    /// Orders a [`draft`] of the same desired and observed, and finds out what a person should know.
    pub fn complete(&mut self, desired: &Desired, observed: &Observed, terms: &Terms) {
        order::order(self, &desired.state, observed);
        let changes = self.changes.iter();
        self.warnings
            .extend(changes.filter_map(|change| narrow(change, desired)));
        self.effects = effect::effects(self, observed);
        self.obstacles = obstacles::obstacles(&self.changes, desired, observed);
        self.cuts = cut::cuts(self, &terms.protect, observed);
        if terms.hitless {
            self.hits = self.all_hits().collect();
        }
    }

    /// Whether the plan depends on routes of other protocols: it adds or changes routes, which may conflict with them,
    /// makes the kernel drop some, or comes near the way to a protected address.
    pub fn concerns_all_routes(&self, terms: &Terms, observed: &Observed) -> bool {
        let own = self.changes.iter().any(|change| match change {
            Change::Tunnel(_, Delta::Update { to, .. }) => to.state == AdminState::Down,
            Change::Tunnel(_, delta) => !matches!(delta, Delta::Create(_)),
            Change::Address(_, delta) => {
                matches!(delta, Delta::Delete { .. } | Delta::Replace { .. })
            }
            Change::Route(_, delta) => !matches!(delta, Delta::Delete { .. }),
        });
        own || cut::may_cut(self, &terms.protect, observed)
    }

    /// What a change does to traffic. Where nobody has found out, it may stop.
    pub fn effect(&self, change: usize) -> Effect {
        self.effects.get(change).copied().unwrap_or(Effect::Stops)
    }

    /// What carries the traffic of a tunnel while it's replaced.
    fn stand_in(&self, change: &Change) -> Option<InterfaceName> {
        match change {
            Change::Tunnel(name, _) => self.stand_ins.get(name).copied(),
            Change::Address(..) | Change::Route(..) => None,
        }
    }

    /// The changes that have an effect on traffic, in words.
    fn all_hits(&self) -> impl Iterator<Item = String> {
        let changes = self.changes.iter().enumerate();
        changes.filter_map(|(index, change)| {
            let effect = self.effect(index).words()?;
            Some(format!("{change} ({effect})"))
        })
    }

    /// How many changes of each kind there are.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for change in &self.changes {
            *match change.action() {
                Action::Create => &mut counts.create,
                Action::Update => &mut counts.update,
                Action::Replace => &mut counts.replace,
                Action::Delete => &mut counts.delete,
                Action::Restore => &mut counts.restore,
            } += 1;
        }
        counts
    }
}

impl Effect {
    /// The effect in words; `None`: there is none.
    fn words(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Brief => Some("traffic: brief"),
            Self::Stops => Some("traffic: stops"),
        }
    }
}

/// How many changes of each kind a plan has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Counts {
    /// To create.
    pub create: usize,
    /// To update in place.
    pub update: usize,
    /// To delete and create.
    pub replace: usize,
    /// To delete.
    pub delete: usize,
    /// To put back after another change made the kernel drop them.
    pub restore: usize,
}
