//! What the kernel does to a state when a step is carried out, including what it drops by itself.
//!
//! The order of a plan rests on this model, and so does what a plan puts back. Where the kernel's behaviour depends on
//! a setting (`promote_secondaries`, `keep_addr_on_down`), the model takes the setting that drops more: putting back
//! what is still there changes nothing.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::{Change, Delta, Part, Plan, Step, stand_in};
use crate::state::{
    Address, AddressKey, AdminState, InterfaceName, MAIN_TABLE, Observed, Route, RouteKey, State,
    Tunnel,
};

/// A state that steps are carried out on.
pub(super) struct Model<'a> {
    state: State,
    /// Routes behind another with the same key, of which packets take the first (`ip route append`).
    behind: BTreeMap<RouteKey, Vec<Route>>,
    /// Addresses that stand behind another in their network.
    secondaries: &'a BTreeSet<AddressKey>,
    /// Where to look for the routes of a device or with a source: every one that is there, and some that no longer are.
    through: BTreeMap<InterfaceName, BTreeSet<RouteKey>>,
    from: BTreeMap<IpAddr, BTreeSet<RouteKey>>,
    /// The devices with an address.
    holders: BTreeMap<IpAddr, BTreeSet<AddressKey>>,
}

impl<'a> Model<'a> {
    pub(super) fn new(observed: &'a Observed) -> Self {
        Self::holding(observed.state.clone(), observed)
    }

    /// Of a plan that makes the kernel drop nothing more than it says: no other route is looked at than those beside the
    /// ones that change, and there may be a million.
    pub(super) fn of_what_changes(plan: &Plan, observed: &'a Observed) -> Self {
        let State {
            tunnels: _,
            addresses,
            routes,
        } = &observed.state;
        let mut state = State::default();
        for change in &plan.changes {
            match change {
                Change::Tunnel(..) => {}
                Change::Address(key, _) => {
                    let there = addresses.get_key_value(key);
                    state.addresses.extend(there.map(|(k, v)| (*k, v.clone())));
                }
                Change::Route(key, _) => {
                    let there = routes.range(key.any_metric());
                    state.routes.extend(there.map(|(k, v)| (*k, v.clone())));
                }
            }
        }
        Self::holding(state, observed)
    }

    fn holding(state: State, observed: &'a Observed) -> Self {
        let mut model = Self {
            state,
            behind: BTreeMap::new(),
            secondaries: &observed.secondaries,
            through: BTreeMap::new(),
            from: BTreeMap::new(),
            holders: BTreeMap::new(),
        };
        for key in model.state.addresses.keys() {
            model.holders.entry(key.local).or_default().insert(*key);
        }
        for (key, route) in &model.state.routes {
            for device in route.devices() {
                model.through.entry(device).or_default().insert(*key);
            }
            if let Some(src) = route.src {
                model.from.entry(src).or_default().insert(*key);
            }
        }
        for (key, route) in &observed.duplicate_routes {
            model.index_route(*key, route);
            model.behind.entry(*key).or_default().push(route.clone());
        }
        model
    }

    /// After all steps of a plan.
    pub(super) fn carried_out(plan: &Plan, observed: &'a Observed) -> Self {
        let mut model = Self::new(observed);
        plan.steps.iter().for_each(|step| model.step(plan, *step));
        model
    }

    /// The state after the steps so far.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Routes behind others with the same key.
    #[cfg(test)]
    pub(super) fn behind(&self) -> impl Iterator<Item = (RouteKey, &Route)> {
        let behind = self.behind.iter();
        behind.flat_map(|(key, routes)| routes.iter().map(|route| (*key, route)))
    }

    /// Whether the host has an address.
    pub(super) fn is_local(&self, address: IpAddr) -> bool {
        self.holders
            .get(&address)
            .is_some_and(|keys| !keys.is_empty())
    }

    /// Carries out a step.
    pub(super) fn step(&mut self, plan: &Plan, step: Step) {
        match &plan.changes[step.change] {
            Change::Tunnel(name, delta) => {
                let stand_in = plan.stand_ins.get(name).copied();
                self.step_tunnel(*name, delta, stand_in, step.part);
            }
            Change::Address(key, delta) => {
                let stand_in = plan.stand_ins.get(&key.device).copied();
                self.step_address(key, delta, stand_in, step.part);
            }
            Change::Route(key, delta) => match step.part {
                Part::Remove => self.keep_routes(*key, |route| Some(&*route) != delta.before()),
                Part::Put => {
                    let to = delta.after().cloned();
                    to.into_iter().for_each(|to| self.put_route(*key, to));
                }
                Part::Prepare => {
                    let other = |device| plan.stand_ins.get(&device).copied();
                    let to = delta.after().map(|to| stand_in::led_over(to, other));
                    to.into_iter().for_each(|to| self.put_route(*key, to));
                }
                Part::TakeOver | Part::Clear => {}
            },
        }
    }

    fn step_tunnel(
        &mut self,
        name: InterfaceName,
        delta: &Delta<Tunnel>,
        stand_in: Option<InterfaceName>,
        part: Part,
    ) {
        match (part, delta.before(), delta.after(), stand_in) {
            (Part::Remove, ..) => self.remove_tunnel(name),
            (Part::Put, _, Some(to), None) => self.put_tunnel(name, to.clone()),
            (Part::Put, _, Some(to), Some(_)) => self.put_tunnel(name, stand_in::waiting(to)),
            (Part::Prepare, Some(from), Some(to), Some(stand_in)) => {
                let made = stand_in::stand_in(from, to);
                made.into_iter()
                    .for_each(|made| self.put_tunnel(stand_in, made));
            }
            (Part::TakeOver, _, Some(to), Some(stand_in)) => {
                self.put_tunnel(stand_in, stand_in::leaving(to));
                self.put_tunnel(name, to.clone());
            }
            (Part::Clear, _, _, Some(stand_in)) => self.remove_tunnel(stand_in),
            (Part::Put | Part::Prepare | Part::TakeOver | Part::Clear, ..) => {}
        }
    }

    fn step_address(
        &mut self,
        key: &AddressKey,
        delta: &Delta<Address>,
        stand_in: Option<InterfaceName>,
        part: Part,
    ) {
        match (part, delta.after(), stand_in) {
            (Part::Remove, ..) => self.drop_address(*key),
            (Part::Put, Some(to), _) => self.put_address(*key, to.clone()),
            (Part::Prepare, Some(to), Some(stand_in)) => {
                let (key, to) = stand_in::address_on(stand_in, key, to);
                self.put_address(key, to);
            }
            (Part::Clear, _, Some(device)) => self.drop_address(AddressKey { device, ..*key }),
            (Part::Put | Part::Prepare | Part::TakeOver | Part::Clear, ..) => {}
        }
    }

    fn put_tunnel(&mut self, name: InterfaceName, to: Tunnel) {
        let goes_down = to.state == AdminState::Down;
        let was = self.state.tunnels.insert(name, to);
        if goes_down && was.is_some_and(|was| was.state == AdminState::Up) {
            self.set_down(name);
        }
    }

    fn remove_tunnel(&mut self, name: InterfaceName) {
        self.state.tunnels.remove(&name);
        self.drop_device(name);
    }

    fn put_address(&mut self, key: AddressKey, to: Address) {
        self.holders.entry(key.local).or_default().insert(key);
        self.state.addresses.insert(key, to);
    }

    fn put_route(&mut self, key: RouteKey, route: Route) {
        self.index_route(key, &route);
        self.state.routes.insert(key, route);
    }

    fn index_route(&mut self, key: RouteKey, route: &Route) {
        for device in route.devices() {
            self.through.entry(device).or_default().insert(key);
        }
        if let Some(src) = route.src {
            self.from.entry(src).or_default().insert(key);
        }
    }

    /// Of the routes with a key those stay of which `stays` says so, which may change them.
    fn keep_routes(&mut self, key: RouteKey, mut stays: impl FnMut(&mut Route) -> bool) {
        let Entry::Occupied(mut first) = self.state.routes.entry(key) else {
            return;
        };
        let mut behind = self.behind.remove(&key).unwrap_or_default();
        behind.retain_mut(&mut stays);
        if !stays(first.get_mut()) {
            match behind.is_empty() {
                true => drop(first.remove()),
                false => drop(first.insert(behind.remove(0))),
            }
        }
        if !behind.is_empty() {
            self.behind.insert(key, behind);
        }
    }

    /// A device that goes takes its addresses and routes along. An IPv4 route goes as a whole (`fib_sync_down_dev`), an
    /// IPv6 one hop by hop (`rt6_disable_ip`).
    fn drop_device(&mut self, device: InterfaceName) {
        for key in self.addresses_on(device) {
            self.forget_address(key);
        }
        for key in self.through.remove(&device).unwrap_or_default() {
            self.keep_routes(key, |route| {
                let hops = route.nexthops.len();
                route.nexthops.retain(|hop| hop.device != Some(device));
                let lost = hops - route.nexthops.len();
                lost == 0 || (key.to.addr().is_ipv6() && !route.nexthops.is_empty())
            });
        }
    }

    /// A device that is set down keeps its IPv4 addresses and loses its routes; of several next hops those on it are
    /// dead until it's up again.
    fn set_down(&mut self, device: InterfaceName) {
        for key in self
            .addresses_on(device)
            .into_iter()
            .filter(|key| key.local.is_ipv6())
        {
            self.forget_address(key);
        }
        self.drop_routes_only_through(device, |_| true);
    }

    /// An address that goes may take along the secondaries of its network. With a device's last IPv4 address go its IPv4
    /// routes, as if it were set down (`fib_inetaddr_event` in `net/ipv4/fib_frontend.c`).
    fn drop_address(&mut self, key: AddressKey) {
        let Some(address) = self.state.addresses.get(&key) else {
            return;
        };
        let network = address.network(&key);
        self.forget_address(key);
        if !self.secondaries.contains(&key) {
            for other in self.addresses_on(key.device) {
                let theirs = self
                    .state
                    .addresses
                    .get(&other)
                    .and_then(|value| value.network(&other));
                if self.secondaries.contains(&other) && theirs == network {
                    self.forget_address(other);
                }
            }
        }
        let any_left = self
            .addresses_on(key.device)
            .iter()
            .any(|other| other.local.is_ipv4());
        if key.local.is_ipv4() && !any_left {
            self.drop_routes_only_through(key.device, |route| route.to.addr().is_ipv4());
        }
    }

    /// Of several next hops those on the device are dead until it has an address again, or is up.
    fn drop_routes_only_through(
        &mut self,
        device: InterfaceName,
        of_family: impl Fn(&RouteKey) -> bool,
    ) {
        for key in self.through.get(&device).cloned().unwrap_or_default() {
            if of_family(&key) {
                self.keep_routes(key, |route| {
                    let mut devices = route.devices().peekable();
                    devices.peek().is_none() || devices.any(|on| on != device)
                });
            }
        }
    }

    fn addresses_on(&self, device: InterfaceName) -> Vec<AddressKey> {
        let first = AddressKey {
            device,
            local: Ipv4Addr::UNSPECIFIED.into(),
            network: None,
        };
        let keys = self.state.addresses.range(first..).map(|(key, _)| *key);
        keys.take_while(|key| key.device == device).collect()
    }

    /// With the last holder of an IPv4 address go the routes of the main table that prefer it as their source
    /// (`fib_sync_down_addr`). An IPv6 route on the address's device only loses the preference, even where another
    /// device has the address too (`fib6_remove_prefsrc`). Every other route keeps a source that isn't there.
    fn forget_address(&mut self, key: AddressKey) {
        self.state.addresses.remove(&key);
        if let Some(keys) = self.holders.get_mut(&key.local) {
            keys.remove(&key);
        }
        if key.local.is_ipv4() && self.is_local(key.local) {
            return;
        }
        for route in self.from.get(&key.local).cloned().unwrap_or_default() {
            self.keep_routes(route, |value| {
                let prefers = value.src == Some(key.local);
                if prefers
                    && key.local.is_ipv6()
                    && value.devices().any(|device| device == key.device)
                {
                    value.src = None;
                }
                !(prefers && key.local.is_ipv4() && route.table == MAIN_TABLE)
            });
        }
    }
}
