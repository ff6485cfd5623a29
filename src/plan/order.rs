//! The order of the steps, and what is put back.
//!
//! What is to come stands before what is to go: tunnels, addresses and routes are put in place, then routes, addresses
//! and tunnels are removed. What holds a place that something else wants goes first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::model::Model;
use super::{Action, Change, Delta, Object, Part, Plan, Step, stand_in};
use crate::state::{
    Address, AddressKey, AdminState, Endpoints, InterfaceName, Observed, Route, RouteKey,
    RouteType, State,
};

pub(super) fn order(plan: &mut Plan, desired: &State, observed: &Observed) {
    if plan.changes.is_empty() {
        return;
    }
    break_endpoint_cycles(plan, observed);
    let early = Early::new(plan);
    let behind = behind(observed);
    let mut run = Run::new(plan, desired, observed, &behind);

    run.remove(|change| stands_behind(change, &behind));
    let shaken = early.shaken(&run.plan.changes);
    run.remove(|change| goes_along(change, &shaken));
    run.remove(|change| early.removes(change));
    let tunnels = in_tunnel_order(run.plan, observed, &early);
    let goes_down = |index: &usize| is_set_down(&run.plan.changes[*index]);
    let (down, tunnels): (Vec<usize>, Vec<usize>) = tunnels.into_iter().partition(goes_down);
    run.put(tunnels);
    run.put_back();
    run.put_in_order();

    run.remove(|change| matches!(change, Change::Route(..)));
    run.remove(|change| matches!(change, Change::Address(..)));
    run.remove(|change| matches!(change, Change::Tunnel(..)));
    run.put(down);
    run.put_back();
    run.put_in_order();
    stand_in::prepare(plan, desired, observed);
}

/// Whether changes may make the kernel drop more than they say.
pub(super) fn may_drop(changes: &[Change]) -> bool {
    changes.iter().any(|change| match change {
        Change::Tunnel(_, delta) => match delta {
            Delta::Update { from, to } => from.state != to.state,
            Delta::Replace { .. } | Delta::Delete { .. } => true,
            Delta::Create(_) | Delta::Restore { .. } => false,
        },
        Change::Address(_, delta) => {
            matches!(delta, Delta::Replace { .. } | Delta::Delete { .. })
        }
        Change::Route(..) => false,
    })
}

/// Routes behind another with the same key.
type Behind<'a> = BTreeMap<RouteKey, Vec<&'a Route>>;

fn behind(observed: &Observed) -> Behind<'_> {
    let mut behind = Behind::new();
    for (key, route) in &observed.duplicate_routes {
        behind.entry(*key).or_default().push(route);
    }
    behind
}

/// Steps as they are chosen, with the state that they lead to.
struct Run<'a> {
    plan: &'a mut Plan,
    desired: &'a State,
    observed: &'a Observed,
    behind: &'a Behind<'a>,
    /// Only where a change makes the kernel drop something.
    model: Option<Model<'a>>,
    /// What stays as it is, whatever is desired.
    left: BTreeSet<Object>,
    removed: BTreeSet<usize>,
    put: BTreeSet<usize>,
}

impl<'a> Run<'a> {
    fn new(
        plan: &'a mut Plan,
        desired: &'a State,
        observed: &'a Observed,
        behind: &'a Behind<'a>,
    ) -> Self {
        let drops = may_drop(&plan.changes);
        let model = drops.then(|| Model::new(observed));
        let withheld = plan.withheld.iter().map(Change::object);
        let left = withheld.chain(plan.conflicts.iter().map(|conflict| conflict.on));
        let left = left.filter(|_| drops).collect();
        Self {
            plan,
            desired,
            observed,
            behind,
            model,
            left,
            removed: BTreeSet::new(),
            put: BTreeSet::new(),
        }
    }

    fn step(&mut self, change: usize, part: Part) {
        let step = Step { change, part };
        if let Some(model) = &mut self.model {
            model.step(self.plan, step);
        }
        self.plan.steps.push(step);
    }

    fn remove(&mut self, chosen: impl Fn(&Change) -> bool) {
        for index in 0..self.plan.changes.len() {
            let change = &self.plan.changes[index];
            if removes(change) && chosen(change) && self.removed.insert(index) {
                self.step(index, Part::Remove);
            }
        }
    }

    /// Addresses, then routes without a gateway, by way of which gateways are reached, then those with one. A blackhole
    /// comes last, as what leads out of it has to be there.
    fn put_in_order(&mut self) {
        self.put_all(|change| matches!(change, Change::Address(..)));
        self.put_all(|change| leads_somewhere(change) && !has_gateway(change));
        self.put_all(|change| leads_somewhere(change) && has_gateway(change));
        self.put_all(|change| matches!(change, Change::Route(..)));
    }

    fn put_all(&mut self, chosen: impl Fn(&Change) -> bool) {
        let puts = |change: &Change| change.action() != Action::Delete && chosen(change);
        let indices: Vec<usize> = (0..self.plan.changes.len())
            .filter(|&index| puts(&self.plan.changes[index]))
            .collect();
        self.put(indices);
    }

    fn put(&mut self, indices: Vec<usize>) {
        for index in indices {
            // A replacement that nothing forced to go first goes now.
            if matches!(
                &self.plan.changes[index],
                Change::Address(_, Delta::Replace { .. })
            ) && self.removed.insert(index)
            {
                self.step(index, Part::Remove);
            }
            if self.put.insert(index) {
                self.step(index, Part::Put);
            }
        }
    }

    /// Adds what the steps so far made the kernel drop, and what shall stay.
    fn put_back(&mut self) {
        let Some(model) = &self.model else { return };
        let mut lost = self.lost_addresses(model);
        let returning = lost.iter().map(|(key, _)| key.local).collect();
        let (mut routes, mut warnings) = self.lost_routes(model, &returning);
        let why = || "another change makes the kernel drop it".to_owned();
        let addresses = lost
            .drain(..)
            .map(|(key, to)| Change::Address(key, Delta::Restore { to, why: why() }));
        let routes = routes
            .drain(..)
            .map(|(key, to)| Change::Route(key, Delta::Restore { to, why: why() }));
        let changes: Vec<Change> = addresses.chain(routes).collect();
        self.plan.changes.extend(changes);
        self.plan.warnings.append(&mut warnings);
    }

    /// Indices of the changes that say by themselves what becomes of their object: it's to go, or a later step puts it.
    fn spoken_for(&self) -> impl Iterator<Item = &Change> {
        let changes = self.plan.changes.iter().enumerate();
        changes
            .filter(|(index, change)| {
                change.action() == Action::Delete || !self.put.contains(index)
            })
            .map(|(_, c)| c)
            .filter(|change| !stands_behind(change, self.behind))
    }

    fn lost_addresses(&self, model: &Model) -> Vec<(AddressKey, Address)> {
        let spoken_for: BTreeSet<AddressKey> = self
            .spoken_for()
            .filter_map(|change| match change {
                Change::Address(key, _) => Some(*key),
                Change::Tunnel(..) | Change::Route(..) => None,
            })
            .collect();
        let desired = &self.desired.addresses;
        let left = |key: &AddressKey| self.left.contains(&Object::Address(*key));
        either(desired, &self.observed.state.addresses, left)
            .filter(|(key, _)| {
                !spoken_for.contains(key) && !model.state().addresses.contains_key(key)
            })
            .filter(|(key, to)| desired.contains_key(key) || !is_kernels_address(to.protocol))
            .filter(|(key, _)| {
                let state = model.state();
                // What is desired of a tunnel that is down is its addresses.
                let ours = desired.contains_key(key) && state.tunnels.contains_key(&key.device);
                ours || stands(state, self.observed, key.device)
            })
            .map(|(key, to)| (*key, to.clone()))
            .collect()
    }

    /// With warnings about foreign routes that can't be put back as they were.
    fn lost_routes(
        &self,
        model: &Model,
        returning: &BTreeSet<IpAddr>,
    ) -> (Vec<(RouteKey, Route)>, Vec<String>) {
        let spoken_for: BTreeSet<RouteKey> = self
            .spoken_for()
            .filter_map(|change| match change {
                Change::Route(key, _) => Some(*key),
                Change::Tunnel(..) | Change::Address(..) => None,
            })
            .collect();
        let desired = &self.desired.routes;
        let (mut lost, mut warnings) = (Vec::new(), Vec::new());
        let left = |key: &RouteKey| self.left.contains(&Object::Route(*key));
        for (key, to) in either(desired, &self.observed.state.routes, left) {
            let ours = desired.contains_key(key);
            if spoken_for.contains(key)
                || model.state().routes.get(key) == Some(to)
                || (!ours && is_kernels_route(to.protocol))
                || !to
                    .devices()
                    .all(|device| stands(model.state(), self.observed, device))
            {
                continue;
            }
            let gone = to
                .src
                .filter(|src| !ours && !model.is_local(*src) && !returning.contains(src));
            if let Some(src) = gone {
                let protocol = to.protocol;
                warnings.push(format!(
                    "route {key} (protocol {protocol}) prefers the source {src} and goes with it"
                ));
                continue;
            }
            if to.kind == RouteType::Other {
                let protocol = to.protocol;
                warnings.push(format!("route {key} (protocol {protocol}) is dropped by the kernel, and of a type that tunnelform can't put back"));
                continue;
            }
            if to.other_attributes {
                warnings.push(format!(
                    "route {key} (protocol {}) is put back without the attributes that tunnelform doesn't know",
                    to.protocol
                ));
            }
            lost.push((*key, to.clone()));
        }
        (lost, warnings)
    }
}

/// Whether a change takes its object away, be it for a moment.
fn removes(change: &Change) -> bool {
    match change {
        // A route is replaced atomically, so only a deletion removes it.
        Change::Route(..) => change.action() == Action::Delete,
        Change::Tunnel(..) | Change::Address(..) => {
            matches!(change.action(), Action::Delete | Action::Replace)
        }
    }
}

/// Whether a route is to go that stands behind another with the same key: no packet takes it, and the other may be
/// about to become like it.
fn stands_behind(change: &Change, behind: &Behind) -> bool {
    match change {
        Change::Route(key, Delta::Delete { from, .. }) => {
            behind.get(key).is_some_and(|routes| routes.contains(&from))
        }
        Change::Route(..) | Change::Tunnel(..) | Change::Address(..) => false,
    }
}

/// Whether a tunnel is only set down: what goes through it now is led elsewhere first.
fn is_set_down(change: &Change) -> bool {
    match change {
        Change::Tunnel(_, Delta::Update { from, to }) => {
            from.state != to.state
                && to.state == AdminState::Down
                && from.endpoints() == to.endpoints()
        }
        Change::Tunnel(..) | Change::Address(..) | Change::Route(..) => false,
    }
}

/// Addresses that the kernel makes again by itself (`IFAPROT_KERNEL_*`).
pub(super) fn is_kernels_address(protocol: u8) -> bool {
    (1..=3).contains(&protocol)
}

/// Routes that the kernel makes again by itself (`RTPROT_REDIRECT`, `RTPROT_KERNEL`, `RTPROT_RA`).
pub(super) fn is_kernels_route(protocol: u8) -> bool {
    matches!(protocol, 1 | 2 | 9)
}

/// Whether a device is there to hold what is put back: a tunnel that is up in this state, or no tunnel at all.
fn stands(model: &State, observed: &Observed, device: InterfaceName) -> bool {
    match model.tunnels.get(&device) {
        Some(tunnel) => tunnel.state == AdminState::Up,
        None => {
            !observed.state.tunnels.contains_key(&device) && observed.devices.contains_key(&device)
        }
    }
}

/// What shall be there: what is desired, and besides what is there already. What is left alone is as it was found.
fn either<'a, K: Ord, V>(
    desired: &'a BTreeMap<K, V>,
    observed: &'a BTreeMap<K, V>,
    is_left: impl Fn(&K) -> bool + Copy,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    let others = observed.iter();
    let others = others.filter(move |(key, _)| is_left(key) || !desired.contains_key(key));
    desired
        .iter()
        .filter(move |(key, _)| !is_left(key))
        .chain(others)
}

fn leads_somewhere(change: &Change) -> bool {
    match change {
        Change::Route(_, delta) => delta
            .after()
            .is_some_and(|route| route.kind == RouteType::Unicast),
        Change::Tunnel(..) | Change::Address(..) => false,
    }
}

fn has_gateway(change: &Change) -> bool {
    match change {
        Change::Route(_, delta) => delta.after().is_some_and(|route| {
            route
                .nexthops
                .iter()
                .any(|hop| hop.via.is_some() && !hop.onlink)
        }),
        Change::Tunnel(..) | Change::Address(..) => false,
    }
}

/// Whether a route is to go that the kernel would drop by itself. It goes first: to delete one of metric 0 that is gone
/// already deletes another metric's (`fib_table_delete` takes 0 for any), which may just have been put.
fn goes_along(change: &Change, shaken: &BTreeSet<InterfaceName>) -> bool {
    match change {
        Change::Route(_, Delta::Delete { from, .. }) => {
            from.devices().any(|device| shaken.contains(&device))
        }
        Change::Tunnel(..) | Change::Address(..) | Change::Route(..) => false,
    }
}

/// What has to go before anything is put: it holds endpoints, or a network, that something else wants.
struct Early {
    endpoints: BTreeSet<Endpoints>,
    networks: BTreeSet<(InterfaceName, Option<ipnet::IpNet>)>,
    locals: BTreeSet<(InterfaceName, IpAddr)>,
}

impl Early {
    fn new(plan: &Plan) -> Self {
        let mut early = Self {
            endpoints: BTreeSet::new(),
            networks: BTreeSet::new(),
            locals: BTreeSet::new(),
        };
        for change in &plan.changes {
            match change {
                Change::Tunnel(_, delta) => early
                    .endpoints
                    .extend(delta.after().map(|tunnel| tunnel.endpoints())),
                Change::Address(key, Delta::Create(to) | Delta::Replace { to, .. }) => {
                    early.networks.insert((key.device, to.network(key)));
                    early.locals.insert((key.device, key.local));
                }
                Change::Address(..) | Change::Route(..) => {}
            }
        }
        early
    }

    /// The devices that lose their routes early, with themselves or with an address.
    fn shaken(&self, changes: &[Change]) -> BTreeSet<InterfaceName> {
        let removed = changes.iter();
        let removed = removed.filter(|change| removes(change) && self.removes(change));
        let devices = removed.filter_map(|change| match change {
            Change::Tunnel(name, _) => Some(*name),
            Change::Address(key, _) => Some(key.device),
            Change::Route(..) => None,
        });
        devices.collect()
    }

    fn removes(&self, change: &Change) -> bool {
        match change {
            Change::Tunnel(_, Delta::Replace { .. }) => true,
            Change::Tunnel(_, delta) => delta
                .before()
                .is_some_and(|t| self.endpoints.contains(&t.endpoints())),
            Change::Address(key, delta) => delta.before().is_some_and(|address| {
                match key.local {
                    // The new one would become the old one's secondary, and go with it. In another network the same
                    // address may stand twice.
                    IpAddr::V4(_) => self.networks.contains(&(key.device, address.network(key))),
                    IpAddr::V6(_) => self.locals.contains(&(key.device, key.local)),
                }
            }),
            Change::Route(..) => false,
        }
    }
}

/// Tunnels to put, each after what it waits for: the tunnel that leaves the endpoints which it takes over, and the
/// tunnel that is made anew and that it is bound to.
fn in_tunnel_order(plan: &Plan, observed: &Observed, early: &Early) -> Vec<usize> {
    let mut held = holders(observed);
    let mut puts = BTreeMap::new();
    for (index, change) in plan.changes.iter().enumerate() {
        let Change::Tunnel(name, delta) = change else {
            continue;
        };
        if let Delta::Delete { from, .. } | Delta::Replace { from, .. } = delta
            && early.removes(change)
        {
            held.remove(&from.endpoints());
        }
        if let Some(to) = delta.after() {
            puts.insert(
                *name,
                (index, to.endpoints(), matches!(delta, Delta::Update { .. })),
            );
        }
    }
    let waits_for = |name: &InterfaceName| {
        let (_, endpoints, _) = puts[name];
        let leaves = held
            .get(&endpoints)
            .filter(|holder| *holder != name)
            .copied();
        let underlay = endpoints
            .device
            .filter(|device| puts.get(device).is_some_and(|(.., updated)| !updated));
        leaves
            .into_iter()
            .chain(underlay)
            .filter(|other| puts.contains_key(other))
            .collect::<Vec<_>>()
    };
    let (mut ordered, mut visited) = (Vec::new(), BTreeSet::new());
    for start in puts.keys() {
        // Depth first, without recursion: a chain may be as long as there are tunnels.
        let mut stack = vec![(*start, false)];
        while let Some((name, ready)) = stack.pop() {
            if ready {
                ordered.push(puts[&name].0);
            } else if visited.insert(name) {
                stack.push((name, true));
                stack.extend(waits_for(&name).into_iter().map(|other| (other, false)));
            }
        }
    }
    ordered
}

fn holders(observed: &Observed) -> BTreeMap<Endpoints, InterfaceName> {
    observed
        .state
        .tunnels
        .iter()
        .map(|(name, tunnel)| (tunnel.endpoints(), *name))
        .collect()
}

/// Tunnels that swap endpoints, or pass them round: no order of updates works, so one of each circle is replaced.
fn break_endpoint_cycles(plan: &mut Plan, observed: &Observed) {
    let changes = plan.changes.iter().enumerate();
    let mut moved = changes
        .filter_map(|(index, change)| match change {
            Change::Tunnel(name, Delta::Update { from, to }) => {
                let (from, to) = (from.endpoints(), to.endpoints());
                (from != to).then_some((*name, index, to))
            }
            Change::Tunnel(..) | Change::Address(..) | Change::Route(..) => None,
        })
        .peekable();
    if moved.peek().is_none() {
        return;
    }
    let held = holders(observed);
    let wants: BTreeMap<InterfaceName, (usize, InterfaceName)> = moved
        .filter_map(|(name, index, to)| {
            let holder = held.get(&to).filter(|holder| **holder != name)?;
            Some((name, (index, *holder)))
        })
        .collect();
    let mut settled: BTreeSet<InterfaceName> = BTreeSet::new();
    for &start in wants.keys() {
        let mut way = vec![start];
        while let Some((_, next)) = way.last().and_then(|last| wants.get(last)) {
            if settled.contains(next) {
                break;
            }
            if way.contains(next) {
                let (index, holder) = wants[next];
                replace_to_swap(&mut plan.changes[index], holder);
                break;
            }
            way.push(*next);
        }
        settled.extend(way);
    }
}

fn replace_to_swap(change: &mut Change, holder: InterfaceName) {
    if let Change::Tunnel(_, delta) = change
        && let Delta::Update { from, to } = delta
    {
        let why = format!(
            "it takes over the endpoints of {holder}, and {holder}'s change waits for its own"
        );
        *delta = Delta::Replace {
            from: from.clone(),
            to: to.clone(),
            why,
        };
    }
}
