//! A plan that goes round what is held back: objects in dispute, objects that wait for a device or for their time.
//!
//! `apply` refuses a plan with conflicts whole, as somebody is there to decide. A daemon goes on with the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Change, Delta, Object, Plan, Terms, diff, effect, order};
use crate::state::{Desired, InterfaceName, Observed, Unmet};

/// A plan, and what it leaves for later.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// What can be done now. Its conflicts are in dispute, and it has no change of them.
    pub plan: Plan,
    /// What has to wait for a device.
    pub pending: Vec<Pending>,
    /// What differs and is held back.
    pub held: Vec<Object>,
}

/// An object that waits for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// The object.
    pub object: Object,
    /// The device.
    pub device: InterfaceName,
    /// What is missing of it.
    pub lacks: Lack,
}

/// What is missing of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lack {
    /// The device itself.
    Device,
    /// Its first IPv4 address.
    Address,
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, device, .. } = self;
        match self.lacks {
            Lack::Device => write!(f, "{object} waits for the device {device}"),
            Lack::Address => write!(f, "{object} waits for an address on {device}"),
        }
    }
}

/// Compares desired with observed, and leaves alone what is `held`, what is in dispute or lacks a fact, and what depends
/// on any of them.
pub fn plan_around(
    desired: &Desired,
    observed: &Observed,
    terms: &Terms,
    held: &BTreeSet<Object>,
) -> Around {
    let Desired { state, unmet, .. } = desired;
    let diff::Difference {
        changes,
        withheld,
        conflicts,
        warnings,
    } = diff::diff(desired, Some(state), observed, terms);
    let disputed: BTreeSet<Object> = conflicts.iter().map(|conflict| conflict.on).collect();
    let absent = Absent::new(&changes, desired, observed, held, &disputed);
    let mut around = Around::waiting_for(unmet);
    around.plan.conflicts = conflicts;
    around.plan.warnings = warnings;
    for change in withheld {
        around.put_off(change, None);
    }
    for change in changes {
        let object = change.object();
        if disputed.contains(&object) {
            continue;
        }
        let is_held = held.contains(&object);
        let absentee = absent.devices_of(&change).next();
        if absentee.is_none() && !is_held {
            around.plan.changes.push(change);
        } else {
            let missing = absentee.filter(|device| !is_held && absent.nobody_makes(device));
            around.put_off(change, missing);
        }
    }
    order::order(&mut around.plan, state, observed);
    around.plan.effects = effect::effects(&around.plan, observed);
    around
}

impl Around {
    fn waiting_for(unmet: &BTreeMap<InterfaceName, Unmet>) -> Self {
        let pending = unmet.values().map(|unmet| Pending {
            object: Object::Tunnel(unmet.tunnel),
            device: unmet.device,
            lacks: Lack::Address,
        });
        Self {
            pending: pending.collect(),
            plan: Plan {
                unmet: unmet.clone(),
                ..Plan::default()
            },
            held: Vec::new(),
        }
    }

    /// Leaves a change for later: when the device is there, or what holds it back is settled.
    fn put_off(&mut self, change: Change, device: Option<InterfaceName>) {
        let object = change.object();
        match (object, device) {
            (_, Some(device)) => self.pending.push(Pending {
                object,
                device,
                lacks: Lack::Device,
            }),
            // It's said already.
            (Object::Tunnel(name), None) if self.plan.unmet.contains_key(&name) => {}
            (_, None) => self.held.push(object),
        }
        self.plan.withheld.push(change);
    }
}

/// Devices that won't be there, or not be ours, when this plan is done.
struct Absent {
    /// Tunnels of ours that have to wait or are in dispute, and tunnels bound to such.
    tunnels: BTreeSet<InterfaceName>,
    /// Devices of nobody.
    missing: BTreeSet<InterfaceName>,
}

impl Absent {
    fn new(
        changes: &[Change],
        desired: &Desired,
        observed: &Observed,
        held: &BTreeSet<Object>,
        disputed: &BTreeSet<Object>,
    ) -> Self {
        let mut absent = Self {
            tunnels: BTreeSet::new(),
            missing: BTreeSet::new(),
        };
        let Desired { state, unmet, .. } = desired;
        for name in state.tunnels.keys() {
            let object = Object::Tunnel(*name);
            let there = observed.devices.contains_key(name);
            let waits = held.contains(&object) || unmet.contains_key(name);
            if disputed.contains(&object) || (waits && !there) {
                absent.tunnels.insert(*name);
            }
        }
        let needed = changes.iter().filter_map(after_devices).flatten();
        absent.missing.extend(needed.filter(|device| {
            !observed.devices.contains_key(device) && !state.tunnels.contains_key(device)
        }));
        absent.spread(changes);
        absent
    }

    /// A tunnel that is to be made on an absent device is absent, too.
    fn spread(&mut self, changes: &[Change]) {
        loop {
            let before = self.tunnels.len();
            for change in changes {
                if let Change::Tunnel(name, Delta::Create(_)) = change
                    && self.devices_of(change).next().is_some()
                {
                    self.tunnels.insert(*name);
                }
            }
            if self.tunnels.len() == before {
                return;
            }
        }
    }

    /// The absent devices that a change needs.
    fn devices_of(&self, change: &Change) -> impl Iterator<Item = InterfaceName> {
        let devices = after_devices(change).into_iter().flatten();
        devices.filter(|device| self.tunnels.contains(device) || self.missing.contains(device))
    }

    fn nobody_makes(&self, device: &InterfaceName) -> bool {
        self.missing.contains(device)
    }
}

/// The devices that an object needs once the change is made; `None`: it won't be there.
fn after_devices(change: &Change) -> Option<Vec<InterfaceName>> {
    Some(match change {
        Change::Tunnel(_, delta) => delta.after()?.endpoints().device.into_iter().collect(),
        Change::Address(key, delta) => delta.after().map(|_| vec![key.device])?,
        Change::Route(_, delta) => delta.after()?.devices().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{bare_with, terms, wanted};

    fn objects(changes: &[Change]) -> Vec<String> {
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_waits_takes_nothing_else_along() {
        let desired = wanted(
            "name: t
tunnels:
  a: {local: 10.0.0.1, device: eth9, addresses: [10.1.0.1/24], routes: [10.2.0.0/16]}
  b: {local: 10.0.0.2, device: a, addresses: [10.3.0.1/24]}
  c: {local: 10.0.0.3, addresses: [10.4.0.1/24]}
",
            &Observed::bare(),
        );
        let around = plan_around(&desired, &bare_with(&[]), &terms("t"), &BTreeSet::new());
        assert_eq!(
            objects(&around.plan.changes),
            ["tunnel c", "address 10.4.0.1/24 on c"]
        );
        let eth9 = "eth9".parse().unwrap();
        let a = "a".parse().unwrap();
        let waits = Pending {
            object: Object::Tunnel(a),
            device: eth9,
            lacks: Lack::Device,
        };
        assert_eq!(around.pending, [waits]);
        // What needs the tunnel waits with it.
        assert_eq!(around.held.len(), 4);
        let around = plan_around(
            &desired,
            &bare_with(&["eth9"]),
            &terms("t"),
            &BTreeSet::new(),
        );
        assert_eq!(around.plan.changes.len(), 7);
        assert!(around.pending.is_empty() && around.held.is_empty());
    }

    #[test]
    fn a_dispute_takes_nothing_else_along() {
        let desired = wanted(
            "name: t
tunnels:
  a: {local: 10.0.0.1, addresses: [10.1.0.1/24], routes: [10.2.0.0/16]}
  c: {local: 10.0.0.3, addresses: [10.4.0.1/24]}
",
            &Observed::bare(),
        );
        let around = plan_around(&desired, &bare_with(&["a"]), &terms("t"), &BTreeSet::new());
        assert_eq!(around.plan.conflicts.len(), 1);
        assert_eq!(
            objects(&around.plan.changes),
            ["tunnel c", "address 10.4.0.1/24 on c"]
        );
        assert_eq!(around.held.len(), 2);
    }

    #[test]
    fn what_is_held_stays_as_it_is() {
        let topology = "name: t\ntunnels: {a: {local: 10.0.0.1, routes: [10.2.0.0/16]}}";
        let desired = wanted(topology, &Observed::bare());
        let route = *desired.state.routes.keys().next().unwrap();
        let held = BTreeSet::from([Object::Route(route)]);
        let around = plan_around(&desired, &bare_with(&[]), &terms("t"), &held);
        assert_eq!(objects(&around.plan.changes), ["tunnel a"]);
        assert_eq!(around.held, [Object::Route(route)]);
        let held = BTreeSet::from([Object::Tunnel("a".parse().unwrap())]);
        let around = plan_around(&desired, &bare_with(&[]), &terms("t"), &held);
        assert_eq!(around.plan.changes.len(), 0);
        assert_eq!(around.held.len(), 2);
    }

    const LOOKED_UP: &str = "name: t
tunnels:
  a: {local: {device: eth0}, remote: 10.9.0.1, ttl: 9, addresses: [10.1.0.1/24], routes: [10.2.0.0/16]}
  b: {local: 10.0.0.2, device: a, addresses: [10.3.0.1/24]}
  c: {local: 10.0.0.3, addresses: [10.4.0.1/24]}
";

    fn around(topology: &str, observed: &Observed) -> Around {
        let desired = wanted(topology, observed);
        plan_around(&desired, observed, &terms("t"), &BTreeSet::new())
    }

    /// A host as a topology says, but for the first address of `eth0`.
    fn host_of(topology: &str) -> Observed {
        let mut observed = bare_with(&["eth0"]);
        let desired = wanted(&topology.replace("{device: eth0}", "10.0.0.1"), &observed);
        for (name, tunnel) in &desired.state.tunnels {
            observed.add_device(*name, tunnel.mtu);
        }
        observed.state = desired.state;
        observed
    }

    #[test]
    fn a_missing_address_takes_nothing_else_along() {
        let around = around(LOOKED_UP, &bare_with(&["eth0"]));
        assert_eq!(
            objects(&around.plan.changes),
            ["tunnel c", "address 10.4.0.1/24 on c"]
        );
        let pending: Vec<String> = around.pending.iter().map(ToString::to_string).collect();
        assert_eq!(pending, ["tunnel a waits for an address on eth0"]);
        // Its address and route, and the tunnel on it with its address.
        assert_eq!(around.held.len(), 4);
        assert_eq!(around.plan.withheld.len(), 5);
    }

    #[test]
    fn what_has_lost_its_address_stays_as_it_is() {
        let observed = host_of(LOOKED_UP);
        let left = around(LOOKED_UP, &observed);
        assert!(left.plan.is_empty() && left.held.is_empty());
        assert_eq!(left.pending.len(), 1);
        // Whatever another file wants of it.
        let other = LOOKED_UP
            .replace("10.1.0.1", "10.1.0.2")
            .replace("10.2.0.0", "10.5.0.0")
            .replace("ttl: 9", "ttl: 10");
        let left = around(&other, &observed);
        assert!(left.plan.is_empty(), "{:?}", left.plan.changes);
        assert_eq!(left.held.len(), 4);
        assert_eq!(left.pending.len(), 1);
        // Another topology's is in dispute all the same.
        let mut taken = observed.clone();
        for tunnel in taken.state.tunnels.values_mut() {
            tunnel.alias = "tunnelform:other".into();
        }
        let left = around(LOOKED_UP, &taken);
        let disputed: Vec<&str> = left.plan.conflicts.iter().map(|on| &*on.object).collect();
        assert_eq!(disputed, ["tunnel a", "tunnel b", "tunnel c"]);
        // And when the file no longer has it, it goes.
        let gone = around("name: t\ntunnels: {}", &observed);
        assert_eq!(gone.plan.counts().delete, 3);
        assert!(gone.pending.is_empty());
    }

    #[test]
    fn endpoints_that_arent_known_are_in_nobodys_way() {
        let foreign = "name: other\ntunnels: {z: {remote: 10.9.0.1}}";
        let left = around(LOOKED_UP, &host_of(foreign));
        assert_eq!(left.plan.conflicts.len(), 0);
        assert_eq!(left.plan.changes.len(), 2);
    }

    /// `c` is made anew, and its route that is in dispute is somebody else's.
    #[test]
    fn what_is_left_alone_isnt_put_back() {
        let before = "name: t\ntunnels: {c: {local: 10.0.0.3, routes: [10.2.0.0/16]}}";
        let after = before.replace("10.0.0.3", "10.0.0.3, remote: 10.9.0.1");
        let mut observed = host_of(before);
        let key = *observed.state.routes.keys().next().unwrap();
        let wait = BTreeSet::from([Object::Route(key)]);
        let foreign = observed.state.routes.get_mut(&key).unwrap();
        (foreign.protocol, foreign.nexthops[0].device) = (186, Some(InterfaceName::LOOPBACK));
        let disputed = around(&after, &observed);
        assert_eq!(disputed.plan.conflicts.len(), 1);
        assert_eq!(objects(&disputed.plan.changes), ["tunnel c"]);
        observed.state.routes.clear();
        let desired = wanted(&after, &observed);
        let held = plan_around(&desired, &observed, &terms("t"), &wait);
        assert_eq!(objects(&held.plan.changes), ["tunnel c"]);
    }
}
