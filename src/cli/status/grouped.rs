//! What is desired and what differs, by the tunnel that it belongs to.

use std::collections::BTreeMap;

use tunnelform::plan::{Action, Change};
use tunnelform::reconcile::Look;
use tunnelform::state::{InterfaceName, State};

use super::Tally;

/// What is desired and what differs, by the tunnel that it belongs to; `None`: outside tunnels.
pub(super) struct Grouped<'a> {
    groups: BTreeMap<Option<InterfaceName>, Group<'a>>,
    empty: Group<'a>,
}

#[derive(Default)]
pub(super) struct Group<'a> {
    pub(super) addresses: Tally,
    pub(super) routes: Tally,
    pub(super) changes: Vec<&'a Change>,
}

impl<'a> Grouped<'a> {
    pub(super) fn new(look: &'a Look) -> Self {
        let mut groups: BTreeMap<Option<InterfaceName>, Group> = BTreeMap::new();
        let tunnels = &look.desired.tunnels;
        let tunnels_of = |devices: Vec<InterfaceName>| {
            let ours: Vec<_> = devices
                .into_iter()
                .filter(|name| tunnels.contains_key(name))
                .map(Some)
                .collect();
            if ours.is_empty() { vec![None] } else { ours }
        };
        for key in look.desired.addresses.keys() {
            for name in tunnels_of(vec![key.device]) {
                groups.entry(name).or_default().addresses.add();
            }
        }
        for route in look.desired.routes.values() {
            for name in tunnels_of(route.devices().collect()) {
                groups.entry(name).or_default().routes.add();
            }
        }
        for change in look.plan.changes.iter().chain(&look.plan.withheld) {
            for name in tunnels_of(devices(change)) {
                groups
                    .entry(name)
                    .or_default()
                    .differs(change, &look.desired);
            }
        }
        Self {
            groups,
            empty: Group::default(),
        }
    }

    pub(super) fn of(&self, tunnel: Option<InterfaceName>) -> &Group<'a> {
        self.groups.get(&tunnel).unwrap_or(&self.empty)
    }
}

impl<'a> Group<'a> {
    fn differs(&mut self, change: &'a Change, desired: &State) {
        self.changes.push(change);
        let tally = match change {
            Change::Tunnel(..) => return,
            Change::Address(key, _) if desired.addresses.contains_key(key) => &mut self.addresses,
            Change::Route(key, _) if desired.routes.contains_key(key) => &mut self.routes,
            // Others' that is put back or moved, or ours that goes.
            Change::Address(..) | Change::Route(..) => return,
        };
        match change.action() {
            Action::Create | Action::Update | Action::Replace => tally.is_off(),
            // A second one with the same key goes, or it is as it should be and put back.
            Action::Delete | Action::Restore => {}
        }
    }
}

/// The devices that a change is about.
fn devices(change: &Change) -> Vec<InterfaceName> {
    match change {
        Change::Tunnel(name, _) => vec![*name],
        Change::Address(key, _) => vec![key.device],
        Change::Route(_, delta) => delta
            .after()
            .or(delta.before())
            .map(|r| r.devices().collect())
            .unwrap_or_default(),
    }
}

impl Tally {
    fn add(&mut self) {
        self.desired += 1;
        self.in_sync += 1;
    }

    fn is_off(&mut self) {
        self.in_sync = self.in_sync.saturating_sub(1);
    }
}
