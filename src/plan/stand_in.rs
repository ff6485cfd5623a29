//! The tunnel that stands in for one that is replaced: it's made first, under another name, with the ends that the new one
//! will have, and carries what the old one carried until the new one is there.
//!
//! The new one is made with its name and ifindex, but waits on `lo` until it takes over the ends: two tunnels can't have
//! the same. Renaming the stand-in would be simpler, but it would leave another ifindex, and before Linux 6.2 a device has
//! to be down for it, while the kernel waits a grace period in the middle (`dev_change_name` in `net/core/dev.c`).

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::{Change, Delta, Part, Plan, Step, order, sha256};
use crate::state::{
    Address, AddressKey, AdminState, Endpoints, InterfaceName, Ipip, Kind, NextHop, Observed,
    Route, RouteKey, RouteType, State, Tunnel,
};
use crate::topology::Owner;

/// What a stand-in's name ends with.
const SUFFIX: char = '~';
/// Hexadecimal digits of the digest that stands for a name which leaves no room for the suffix.
const DIGEST: usize = 13;

/// What stands in for a tunnel is always called the same, so that a later run knows one that was left behind.
pub(super) fn name_for(tunnel: InterfaceName) -> Option<InterfaceName> {
    let name = tunnel.to_string();
    let short = format!("{name}{SUFFIX}").parse();
    short.ok().or_else(|| {
        let digest = sha256(name.as_bytes());
        let (_, digits) = digest.split_once(':')?;
        let digits = digits.get(..DIGEST)?;
        format!("{SUFFIX}{digits}{SUFFIX}").parse().ok()
    })
}

/// Whether anything could be called so that stands in.
pub(super) fn may_be(name: InterfaceName) -> bool {
    name.as_bytes()
        .ends_with(SUFFIX.encode_utf8(&mut [0; 4]).as_bytes())
}

/// The tunnel that stands in. It carries an owner's mark whatever becomes of the tunnel; `None`: it has no owner, before
/// or after.
pub(crate) fn stand_in(from: &Tunnel, to: &Tunnel) -> Option<Tunnel> {
    let mut aliases = [&to.alias, &from.alias].into_iter();
    let alias = aliases.find(|alias| Owner::of_alias(alias).is_some())?;
    Some(Tunnel {
        alias: alias.clone(),
        ..to.clone()
    })
}

/// A tunnel before it takes over: out of the way, and what it's given goes nowhere.
pub(crate) fn waiting(tunnel: &Tunnel) -> Tunnel {
    on_loopback(tunnel, |local| local)
}

/// A stand-in that has handed over: out of the way of the one that waits, too.
pub(crate) fn leaving(tunnel: &Tunnel) -> Tunnel {
    on_loopback(tunnel, |local| match local {
        Some(_) => None,
        None => Some(Ipv4Addr::LOCALHOST),
    })
}

fn on_loopback(tunnel: &Tunnel, local: impl Fn(Option<Ipv4Addr>) -> Option<Ipv4Addr>) -> Tunnel {
    let Kind::Ipip(ipip) = &tunnel.kind;
    let ipip = Ipip {
        local: local(ipip.local),
        device: Some(InterfaceName::LOOPBACK),
        ..ipip.clone()
    };
    Tunnel {
        kind: Kind::Ipip(ipip),
        ..tunnel.clone()
    }
}

/// An address as a stand-in has it. Its label would be the tunnel's name.
pub(crate) fn address_on(
    stand_in: InterfaceName,
    key: &AddressKey,
    address: &Address,
) -> (AddressKey, Address) {
    let key = AddressKey {
        device: stand_in,
        ..*key
    };
    let address = Address {
        label: None,
        ..address.clone()
    };
    (key, address)
}

/// A route that leads over other devices.
pub(crate) fn led_over(
    route: &Route,
    other: impl Fn(InterfaceName) -> Option<InterfaceName>,
) -> Route {
    let mut route = route.clone();
    for device in route
        .nexthops
        .iter_mut()
        .filter_map(|hop| hop.device.as_mut())
    {
        *device = other(*device).unwrap_or(*device);
    }
    route.nexthops.sort();
    route
}

/// Chooses the replacements that can be prepared, and puts the steps for it among the plan's.
pub(super) fn prepare(plan: &mut Plan, desired: &State, observed: &Observed) {
    let replaced = plan.changes.iter().filter_map(|change| match change {
        Change::Tunnel(name, Delta::Replace { from, to, .. }) => Some((*name, from, to)),
        Change::Tunnel(..) | Change::Address(..) | Change::Route(..) => None,
    });
    let mut replaced = replaced.peekable();
    if replaced.peek().is_none() {
        return;
    }
    let mut choice = Choice::new(plan, desired, observed);
    replaced.for_each(|(name, from, to)| choice.consider(name, from, to));
    plan.stand_ins = choice.chosen;
    if !plan.stand_ins.is_empty() {
        plan.steps = with_stand_ins(plan, observed);
    }
}

struct Choice<'a> {
    desired: &'a State,
    observed: &'a Observed,
    /// Tunnels that the plan makes or takes away.
    unsteady: BTreeSet<InterfaceName>,
    /// Devices with a route that couldn't be moved.
    stuck: BTreeSet<InterfaceName>,
    /// Endpoints that nobody else may have meanwhile.
    taken: BTreeSet<Endpoints>,
    /// Tunnels, each with the name of what stands in for it.
    chosen: BTreeMap<InterfaceName, InterfaceName>,
}

impl<'a> Choice<'a> {
    fn new(plan: &Plan, desired: &'a State, observed: &'a Observed) -> Self {
        let unsteady = plan.changes.iter().filter_map(|change| match change {
            Change::Tunnel(_, Delta::Update { .. }) => None,
            Change::Tunnel(name, _) => Some(*name),
            Change::Address(..) | Change::Route(..) => None,
        });
        let there = observed.state.tunnels.values();
        Self {
            desired,
            observed,
            unsteady: unsteady.collect(),
            stuck: stuck(plan, observed),
            taken: there.map(Tunnel::endpoints).collect(),
            chosen: BTreeMap::new(),
        }
    }

    fn consider(&mut self, name: InterfaceName, from: &Tunnel, to: &Tunnel) {
        let Some(stand_in) = name_for(name).filter(|stand_in| self.is_free(*stand_in)) else {
            return;
        };
        let up = |tunnel: &Tunnel| tunnel.state == AdminState::Up;
        let ends = to.endpoints();
        let steady = ends.device.is_none_or(|device| {
            self.observed.devices.contains_key(&device) && !self.unsteady.contains(&device)
        });
        // The kernel has one external tunnel, so none can wait beside it.
        let possible = up(from) && up(to) && steady && !ends.external;
        if possible
            && !self.stuck.contains(&name)
            && self::stand_in(from, to).is_some()
            && self.takes([to, &waiting(to), &leaving(to)])
        {
            self.chosen.insert(name, stand_in);
        }
    }

    fn is_free(&self, name: InterfaceName) -> bool {
        let Observed {
            devices,
            alternative_names,
            ..
        } = self.observed;
        !devices.contains_key(&name)
            && !alternative_names.contains_key(&name)
            && !self.desired.tunnels.contains_key(&name)
            && !self.chosen.values().any(|other| *other == name)
            && devices.contains_key(&InterfaceName::LOOPBACK)
    }

    fn takes(&mut self, tunnels: [&Tunnel; 3]) -> bool {
        let wanted = tunnels.map(Tunnel::endpoints);
        let free = wanted.iter().all(|ends| !self.taken.contains(ends));
        if free {
            self.taken.extend(wanted);
        }
        free
    }
}

/// Devices with a route that stays and can't be led over another device as it is: one with attributes that nobody here
/// knows, one of several with the same key.
fn stuck(plan: &Plan, observed: &Observed) -> BTreeSet<InterfaceName> {
    let changed = plan.changes.iter().filter_map(|change| match change {
        Change::Route(_, Delta::Restore { .. }) | Change::Tunnel(..) | Change::Address(..) => None,
        Change::Route(key, _) => Some(key),
    });
    let changed: BTreeSet<&RouteKey> = changed.collect();
    let whole = |route: &Route| route.kind == RouteType::Unicast && !route.other_attributes;
    let routes = observed.state.routes.iter();
    let routes = routes.filter(|(key, route)| !whole(route) && !changed.contains(key));
    let routes = routes.map(|(_, route)| route);
    let duplicates = observed.duplicate_routes.iter().map(|(_, route)| route);
    let stuck = routes.chain(duplicates);
    let stuck = stuck.filter(|route| !order::is_kernels_route(route.protocol));
    stuck.flat_map(Route::devices).collect()
}

/// The plan's steps, and among them those of the stand-ins: before all others, as soon as routes are put, and at the end.
fn with_stand_ins(plan: &Plan, observed: &Observed) -> Vec<Step> {
    let is_stood_in_for = |step: &&Step| match &plan.changes[step.change] {
        Change::Tunnel(name, _) => plan.stand_ins.contains_key(name),
        Change::Address(key, _) => plan.stand_ins.contains_key(&key.device),
        Change::Route(..) => false,
    };
    let puts = || plan.steps.iter().filter(|step| step.part == Part::Put);
    let all = |kind: fn(&Change) -> bool, part: Part| {
        let steps = puts().filter(is_stood_in_for);
        let steps = steps.filter(move |step| kind(&plan.changes[step.change]));
        steps.map(move |step| Step { part, ..*step })
    };
    let is_tunnel = |change: &Change| matches!(change, Change::Tunnel(..));
    let is_address = |change: &Change| matches!(change, Change::Address(..));
    let movable = Movable::new(plan, observed);
    let routes = puts().filter(|step| movable.holds(&plan.changes[step.change]));
    let routes = routes.map(|step| Step {
        part: Part::Prepare,
        ..*step
    });
    let (before, routes_put, after) =
        around_routes(plan, &all(is_tunnel, Part::Put).collect::<Vec<_>>());
    all(is_tunnel, Part::Prepare)
        .chain(all(is_address, Part::Prepare))
        .chain(routes)
        .chain(before.iter().copied())
        .chain(all(is_tunnel, Part::TakeOver))
        .chain(routes_put.iter().copied())
        .chain(all(is_address, Part::Clear))
        .chain(after.iter().copied())
        .chain(all(is_tunnel, Part::Clear))
        .collect()
}

/// The steps before the routes are put that lead over what waits, those that put them, and those behind.
fn around_routes<'a>(plan: &'a Plan, waiting: &[Step]) -> (&'a [Step], &'a [Step], &'a [Step]) {
    let steps = plan.steps.as_slice();
    let puts_route = |step: &Step| {
        step.part == Part::Put && matches!(plan.changes[step.change], Change::Route(..))
    };
    let last = steps.iter().rposition(|step| waiting.contains(step));
    let made = last.map_or(0, |last| last + 1);
    let first = steps[made..].iter().position(puts_route);
    let first = first.map_or(steps.len(), |first| made + first);
    let count = steps[first..]
        .iter()
        .take_while(|step| puts_route(step))
        .count();
    let (before, rest) = steps.split_at(first);
    let (routes, after) = rest.split_at(count);
    (before, routes, after)
}

/// Which routes can lead over the stand-ins at once.
struct Movable<'a> {
    plan: &'a Plan,
    observed: &'a Observed,
    locals: BTreeSet<IpAddr>,
}

impl<'a> Movable<'a> {
    fn new(plan: &'a Plan, observed: &'a Observed) -> Self {
        let on_stand_in = plan.changes.iter().filter_map(|change| match change {
            Change::Address(key, _) if plan.stand_ins.contains_key(&key.device) => Some(key.local),
            Change::Tunnel(..) | Change::Address(..) | Change::Route(..) => None,
        });
        let there = observed.state.addresses.keys().map(|key| key.local);
        Self {
            plan,
            observed,
            locals: there.chain(on_stand_in).collect(),
        }
    }

    /// Where it leads to a stand-in the kernel takes it, as it will take it at last. Where it leads elsewhere, too, only
    /// what it does so now is sure.
    fn holds(&self, change: &Change) -> bool {
        let Change::Route(key, delta) = change else {
            return false;
        };
        let Some(to) = delta.after() else {
            return false;
        };
        let stood_in_for = |hop: &NextHop| {
            hop.device
                .is_some_and(|device| self.plan.stand_ins.contains_key(&device))
        };
        let now = self.observed.state.routes.get(key);
        let is_now = |hop: &NextHop| now.is_some_and(|now| now.nexthops.contains(hop));
        to.nexthops.iter().any(stood_in_for)
            && to
                .nexthops
                .iter()
                .all(|hop| stood_in_for(hop) || is_now(hop))
            && to.src.is_none_or(|src| self.locals.contains(&src))
    }
}
