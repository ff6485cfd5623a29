//! What is desired and what differs, by the tunnel that it belongs to.

use std::collections::BTreeMap;

use tunnelform::plan::{Action, Change};
use tunnelform::reconcile::Look;
use tunnelform::state::InterfaceName;

use super::Tally;

/// What is desired and what differs, by the tunnel that it belongs to; `None`: outside tunnels.
pub(super) struct Grouped<'a> {
    groups: BTreeMap<Option<InterfaceName>, Group<'a>>,
    empty: Group<'a>,
}

#[derive(Default)]
pub(super) struct Group<'a> {
    addresses: usize,
    routes: usize,
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
                groups.entry(name).or_default().addresses += 1;
            }
        }
        for route in look.desired.routes.values() {
            for name in tunnels_of(route.devices().collect()) {
                groups.entry(name).or_default().routes += 1;
            }
        }
        for change in look.plan.changes.iter().chain(&look.plan.withheld) {
            for name in tunnels_of(devices(change)) {
                groups.entry(name).or_default().changes.push(change);
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

impl Group<'_> {
    pub(super) fn addresses(&self) -> Tally {
        Tally::new(
            self.addresses,
            self.changes
                .iter()
                .filter(|c| matches!(c, Change::Address(..))),
        )
    }

    pub(super) fn routes(&self) -> Tally {
        Tally::new(
            self.routes,
            self.changes
                .iter()
                .filter(|c| matches!(c, Change::Route(..))),
        )
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
    fn new<'a>(desired: usize, changes: impl Iterator<Item = &'a &'a Change>) -> Self {
        let off = changes
            .filter(|change| change.action() != Action::Delete)
            .count();
        Self {
            in_sync: desired.saturating_sub(off),
            desired,
        }
    }
}
