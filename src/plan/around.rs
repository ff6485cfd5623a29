//! A plan that goes round what is held back: objects in dispute, objects that wait for a device or for their time.
//!
//! `apply` refuses a plan with conflicts whole, as somebody is there to decide. A daemon goes on with the rest.

use std::collections::BTreeSet;

use super::{Change, Delta, Object, Plan, Terms, diff, order};
use crate::state::{InterfaceName, Observed, State};

/// A plan, and what it leaves for later.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// What can be done now. Its conflicts are in dispute, and it has no change of them.
    pub plan: Plan,
    /// What differs and has to wait for a device that doesn't exist, with that device.
    pub pending: Vec<(Object, InterfaceName)>,
    /// What differs and is held back.
    pub held: Vec<Object>,
}

/// Compares desired with observed, and leaves alone what is `held`, what is in dispute, and what depends on either.
pub fn plan_around(
    desired: &State,
    observed: &Observed,
    terms: &Terms,
    held: &BTreeSet<Object>,
) -> Around {
    let diff::Difference {
        changes,
        conflicts,
        warnings,
    } = diff::diff(desired, Some(desired), observed, terms);
    let disputed: BTreeSet<Object> = conflicts.iter().map(|conflict| conflict.on).collect();
    let mut around = Around {
        plan: Plan {
            conflicts,
            warnings,
            ..Plan::default()
        },
        ..Around::default()
    };
    let absent = Absent::new(&changes, desired, observed, held, &disputed);
    for change in changes {
        let object = change.object();
        if disputed.contains(&object) {
            continue;
        }
        let waits = absent.devices_of(&change).next();
        match waits {
            _ if held.contains(&object) => around.held.push(object),
            Some(device) if absent.nobody_makes(&device) => around.pending.push((object, device)),
            Some(_) => around.held.push(object),
            None => around.plan.changes.push(change),
        }
    }
    order::order(&mut around.plan, desired, observed);
    around
}

/// Devices that won't be there, or not be ours, when this plan is done.
struct Absent {
    /// Tunnels of ours that are held back or in dispute, and tunnels bound to such.
    tunnels: BTreeSet<InterfaceName>,
    /// Devices of nobody.
    missing: BTreeSet<InterfaceName>,
}

impl Absent {
    fn new(
        changes: &[Change],
        desired: &State,
        observed: &Observed,
        held: &BTreeSet<Object>,
        disputed: &BTreeSet<Object>,
    ) -> Self {
        let mut absent = Self {
            tunnels: BTreeSet::new(),
            missing: BTreeSet::new(),
        };
        for name in desired.tunnels.keys() {
            let object = Object::Tunnel(*name);
            let there = observed.devices.contains_key(name);
            if disputed.contains(&object) || (held.contains(&object) && !there) {
                absent.tunnels.insert(*name);
            }
        }
        let needed = changes.iter().filter_map(after_devices).flatten();
        absent.missing.extend(needed.filter(|device| {
            !observed.devices.contains_key(device) && !desired.tunnels.contains_key(device)
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
    use crate::plan::testing::{bare_with, host_state, terms};

    fn objects(changes: &[Change]) -> Vec<String> {
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_waits_takes_nothing_else_along() {
        let desired = host_state(
            "name: t
tunnels:
  a: {local: 10.0.0.1, device: eth9, addresses: [10.1.0.1/24], routes: [10.2.0.0/16]}
  b: {local: 10.0.0.2, device: a, addresses: [10.3.0.1/24]}
  c: {local: 10.0.0.3, addresses: [10.4.0.1/24]}
",
        );
        let around = plan_around(&desired, &bare_with(&[]), &terms("t"), &BTreeSet::new());
        assert_eq!(
            objects(&around.plan.changes),
            ["tunnel c", "address 10.4.0.1/24 on c"]
        );
        let eth9 = "eth9".parse().unwrap();
        let a = "a".parse().unwrap();
        assert_eq!(around.pending, [(Object::Tunnel(a), eth9)]);
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
        let desired = host_state(
            "name: t
tunnels:
  a: {local: 10.0.0.1, addresses: [10.1.0.1/24], routes: [10.2.0.0/16]}
  c: {local: 10.0.0.3, addresses: [10.4.0.1/24]}
",
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
        let desired = host_state("name: t\ntunnels: {a: {local: 10.0.0.1, routes: [10.2.0.0/16]}}");
        let route = *desired.routes.keys().next().unwrap();
        let held = BTreeSet::from([Object::Route(route)]);
        let around = plan_around(&desired, &bare_with(&[]), &terms("t"), &held);
        assert_eq!(objects(&around.plan.changes), ["tunnel a"]);
        assert_eq!(around.held, [Object::Route(route)]);
        let held = BTreeSet::from([Object::Tunnel("a".parse().unwrap())]);
        let around = plan_around(&desired, &bare_with(&[]), &terms("t"), &held);
        assert_eq!(around.plan.changes.len(), 0);
        assert_eq!(around.held.len(), 2);
    }
}
