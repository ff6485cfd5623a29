//! The way back: what plans may touch, as it was before them, and the plan that makes it so again.
//!
//! Going back is planning as usual, towards what was. Ownership plays no part in it: what was adopted goes back to
//! nobody, and what the kernel dropped of others' is put back.

mod written;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::model::Model;
use super::order::{is_kernels_address, is_kernels_route};
use super::{Change, Delta, Plan, in_place, order, stand_in};
use written::{pairs, places};

use crate::state::{Address, AddressKey, InterfaceName, Observed, Route, RouteKey, State, Tunnel};

/// What plans touch, as it was before the first of them. As JSON it waits in a file for whoever goes back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    /// What they change; `None`: it wasn't there.
    #[serde(with = "pairs")]
    tunnels: BTreeMap<InterfaceName, Option<Tunnel>>,
    #[serde(with = "pairs")]
    addresses: BTreeMap<AddressKey, Option<Address>>,
    #[serde(with = "pairs")]
    routes: BTreeMap<RouteKey, Option<Route>>,
    /// What the kernel drops because of them, and nobody's change says.
    #[serde(with = "pairs")]
    addresses_along: BTreeMap<AddressKey, Address>,
    #[serde(with = "pairs")]
    routes_along: BTreeMap<RouteKey, Route>,
    /// The IPv4 addresses of the devices concerned, in the kernel's order.
    #[serde(with = "places")]
    order: BTreeMap<InterfaceName, Vec<AddressKey>>,
}

impl Undo {
    /// Remembers what a plan, made for `observed`, is about to touch. What an earlier one has touched is known already.
    pub fn note(&mut self, plan: &Plan, observed: &Observed) {
        self.note_since(plan, observed, &observed.state);
    }

    /// As [`Self::note`], of a plan that comes long after the first, before which there was `state`: what the plan only
    /// repairs was lost since then, and going back mustn't lose it again.
    pub fn note_since(&mut self, plan: &Plan, observed: &Observed, state: &State) {
        let now = &observed.state;
        for change in &plan.changes {
            match change {
                Change::Tunnel(name, delta) => {
                    note(&mut self.tunnels, *name, [&state.tunnels, &now.tunnels]);
                    // It may be left behind, of this plan or of the one that goes back.
                    if let (Delta::Replace { .. }, Some(stand_in)) =
                        (delta, stand_in::name_for(*name))
                    {
                        note(&mut self.tunnels, stand_in, [&state.tunnels, &now.tunnels]);
                    }
                }
                Change::Address(key, _) => {
                    note(
                        &mut self.addresses,
                        *key,
                        [&state.addresses, &now.addresses],
                    );
                }
                Change::Route(key, _) => {
                    note(&mut self.routes, *key, [&state.routes, &now.routes]);
                }
            }
        }
        if order::may_drop(&plan.changes) {
            self.note_what_goes_along(plan, observed);
        }
        self.note_order(observed);
    }

    fn note_order(&mut self, observed: &Observed) {
        let touched = self.addresses.keys().chain(self.addresses_along.keys());
        let concerned: BTreeSet<InterfaceName> = touched
            .map(|key| key.device)
            .filter(|device| !self.order.contains_key(device))
            .collect();
        for key in &observed.ipv4_order {
            if concerned.contains(&key.device) {
                self.order.entry(key.device).or_default().push(*key);
            }
        }
    }

    fn note_what_goes_along(&mut self, plan: &Plan, observed: &Observed) {
        let model = Model::carried_out(plan, observed);
        let after = model.state();
        let addresses = observed.state.addresses.iter();
        let addresses = addresses.filter(|(key, address)| {
            let gone = !after.addresses.contains_key(key);
            gone && !self.addresses.contains_key(key) && !is_kernels_address(address.protocol)
        });
        let routes = observed.state.routes.iter().filter(|(key, route)| {
            let gone = after.routes.get(key) != Some(route);
            gone && !self.routes.contains_key(key) && !is_kernels_route(route.protocol)
        });
        for (key, address) in addresses {
            let along = self.addresses_along.entry(*key);
            along.or_insert_with(|| address.clone());
        }
        for (key, route) in routes {
            let along = self.routes_along.entry(*key);
            along.or_insert_with(|| route.clone());
        }
    }

    /// What differs from before, in the order in which it's to be made so again, whatever that does to traffic. `now` holds
    /// the routes of every protocol.
    pub fn plan(&self, now: &Observed) -> Plan {
        let before = self.before(now);
        let mut plan = Plan {
            changes: self.changes(&before, now),
            ..Plan::default()
        };
        order::order(&mut plan, &before, now);
        plan
    }

    /// What is now, but for what was touched. What the kernel makes by itself it makes again.
    fn before(&self, now: &Observed) -> State {
        let mut before = now.state.clone();
        before
            .addresses
            .retain(|_, address| !is_kernels_address(address.protocol));
        before
            .routes
            .retain(|_, route| !is_kernels_route(route.protocol));
        restore(&mut before.tunnels, &self.tunnels);
        restore(&mut before.addresses, &self.addresses);
        restore(&mut before.routes, &self.routes);
        // What somebody has put there meanwhile is theirs.
        for (key, address) in &self.addresses_along {
            let there = before.addresses.entry(*key);
            there.or_insert_with(|| address.clone());
        }
        for (key, route) in &self.routes_along {
            let there = before.routes.entry(*key);
            there.or_insert_with(|| route.clone());
        }
        before
    }

    /// Addresses that are there and stand before one that was before them. A new address comes last, so all from the
    /// first that is missing have to be made anew.
    fn misplaced(
        &self,
        places: &BTreeMap<AddressKey, usize>,
        before: &State,
        now: &Observed,
    ) -> BTreeSet<AddressKey> {
        let mut misplaced = BTreeSet::new();
        for (device, order) in &self.order {
            let stays =
                |key: &&AddressKey| key.device == *device && before.addresses.contains_key(key);
            let there = now.ipv4_order.iter().filter(stays);
            let there: Vec<&AddressKey> = there.filter(|key| places.contains_key(key)).collect();
            let wanted: Vec<&AddressKey> = order.iter().filter(stays).collect();
            let pairs = wanted.iter().zip(&there);
            let right = pairs.take_while(|(wanted, there)| wanted == there).count();
            misplaced.extend(there[right..].iter().copied());
        }
        misplaced
    }

    /// Each IPv4 address's place on its device.
    fn places(&self) -> BTreeMap<AddressKey, usize> {
        let orders = self.order.values();
        let places = orders.flat_map(|order| order.iter().enumerate());
        places.map(|(place, key)| (*key, place)).collect()
    }

    fn changes(&self, before: &State, now: &Observed) -> Vec<Change> {
        let State {
            tunnels,
            addresses,
            routes,
        } = &now.state;
        let goes = |device: InterfaceName| {
            tunnels.contains_key(&device) && !before.tunnels.contains_key(&device)
        };
        let mut changes = Vec::new();
        for name in self.tunnels.keys() {
            let delta = delta(
                tunnels.get(name),
                before.tunnels.get(name),
                in_place::change_tunnel,
            );
            changes.extend(delta.map(|delta| Change::Tunnel(*name, delta)));
        }
        let places = self.places();
        let misplaced = self.misplaced(&places, before, now);
        let keys = self.addresses.keys().chain(self.addresses_along.keys());
        let keys: BTreeSet<AddressKey> = keys.chain(&misplaced).copied().collect();
        let mut keys: Vec<AddressKey> = keys.into_iter().filter(|key| !goes(key.device)).collect();
        keys.sort_by_key(|key| places.get(key).copied().unwrap_or(usize::MAX));
        for key in keys {
            let (from, to) = (addresses.get(&key), before.addresses.get(&key));
            let delta = match (from, to) {
                (Some(from), Some(to)) if misplaced.contains(&key) => Some(Delta::Replace {
                    from: from.clone(),
                    to: to.clone(),
                    why: "it had another place among the device's addresses".into(),
                }),
                _ => delta(from, to, |from, to| in_place::change_address(key, from, to)),
            };
            changes.extend(delta.map(|delta| Change::Address(key, delta)));
        }
        for key in self.routes.keys().chain(self.routes_along.keys()) {
            let (from, to) = (routes.get(key), before.routes.get(key));
            let update = |from: &Route, to: &Route| Delta::Update {
                from: from.clone(),
                to: to.clone(),
            };
            let drops = to.is_none() && from.is_some_and(|from| from.devices().any(goes));
            let delta = delta(from, to, update).filter(|_| !drops);
            changes.extend(delta.map(|delta| Change::Route(*key, delta)));
        }
        changes
    }
}

/// As it was in the first of the states that has it: what came after the first isn't ours to take away.
fn note<K: Ord, V: Clone>(
    touched: &mut BTreeMap<K, Option<V>>,
    key: K,
    states: [&BTreeMap<K, V>; 2],
) {
    let was = states.iter().find_map(|state| state.get(&key)).cloned();
    touched.entry(key).or_insert(was);
}

fn restore<K: Ord + Clone, V: Clone>(state: &mut BTreeMap<K, V>, touched: &BTreeMap<K, Option<V>>) {
    for (key, was) in touched {
        match was {
            Some(was) => state.insert(key.clone(), was.clone()),
            None => state.remove(key),
        };
    }
}

/// How to make one object of another; `None`: nothing is to do.
fn delta<T: Clone + PartialEq>(
    from: Option<&T>,
    to: Option<&T>,
    change: impl Fn(&T, &T) -> Delta<T>,
) -> Option<Delta<T>> {
    match (from, to) {
        (None, None) => None,
        (None, Some(to)) => Some(Delta::Create(to.clone())),
        (Some(from), None) => Some(Delta::delete(from.clone())),
        (Some(from), Some(to)) => (from != to).then(|| change(from, to)),
    }
}
