//! The tunnel that stands in for one that is replaced: it's made first, under another name, with the ends that the new one
//! will have, and carries what the old one carried until the new one is there.
//!
//! The new one is made with its name and ifindex, but waits on `lo` until it takes over the ends: two tunnels can't have
//! the same. Renaming the stand-in would be simpler, but it would leave another ifindex, and before Linux 6.2 a device has
//! to be down for it, while the kernel waits a grace period in the middle (`dev_change_name` in `net/core/dev.c`).

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{bare_with, terms, wanted};
    use crate::plan::tests::observe;
    use crate::plan::{plan, tests::FOREIGN};

    const BEFORE: &str = "tun1: {local: 192.0.2.1, addresses: [10.0.0.1/24], \
        routes: [{to: 10.1.0.0/16, via: 192.0.2.9, onlink: true}]}";
    const AFTER: &str = "tun1: {local: 192.0.2.1, remote: 192.0.2.9, addresses: [10.0.0.1/24], \
        routes: [{to: 10.1.0.0/16, via: 192.0.2.9, onlink: true}]}";

    fn state(tunnels: &str) -> State {
        let topology = format!("version: 1\nname: hq\ntunnels:\n  {tunnels}\n");
        wanted(&topology, &bare_with(&["eth0"])).state
    }

    /// The plan from one topology to another, after something has happened.
    fn planned(from: &str, to: &str, happened: impl FnOnce(&mut Observed)) -> Plan {
        let desired = state(to);
        let mut observed = observe(state(from));
        happened(&mut observed);
        let wanted = desired.clone().into();
        plan(&wanted, Some(&desired), &observed, &terms("hq"))
    }

    fn steps(plan: &Plan) -> Vec<String> {
        let steps = plan.steps.iter();
        let words = steps.map(|step| format!("{:?} {}", step.part, plan.changes[step.change]));
        words.collect()
    }

    /// Also what is others' is led over it, and what comes and goes with the new file.
    #[test]
    fn carries_everything_until_it_hands_over() {
        let after = AFTER.replace("10.1.0.0/16, ", "10.3.0.0/16, src: 10.0.0.1, ");
        let foreign = |host: &mut Observed| {
            let (key, mut route) = host.state.routes.pop_first().unwrap();
            let to = "10.2.0.0/16".parse().unwrap();
            host.state.routes.insert(key, route.clone());
            route.protocol = FOREIGN;
            host.state.routes.insert(RouteKey { to, ..key }, route);
        };
        let expected = [
            "Prepare tunnel tun1",
            "Prepare address 10.0.0.1/24 on tun1",
            "Prepare route 10.2.0.0/16",
            "Prepare route 10.3.0.0/16",
            "Remove route 10.1.0.0/16",
            "Remove tunnel tun1",
            "Put tunnel tun1",
            "Put address 10.0.0.1/24 on tun1",
            "TakeOver tunnel tun1",
            "Put route 10.2.0.0/16",
            "Put route 10.3.0.0/16",
            "Clear address 10.0.0.1/24 on tun1",
            "Clear tunnel tun1",
        ];
        let mut found = steps(&planned(BEFORE, &after, foreign));
        // The order of the routes is that of the changes.
        found[2..4].sort();
        found[9..11].sort();
        assert_eq!(found, expected);
        assert!(planned(AFTER, BEFORE, |_| {}).stand_ins.len() == 1);
    }

    #[test]
    fn is_told() {
        let plan = planned(BEFORE, AFTER, |_| {});
        let text = plan.text(crate::plan::Style { color: false });
        let line = "-/+ tunnel tun1  (the kernel can't turn a tunnel between multipoint and one remote in place)  \
            (tun1~ stands in)  (traffic: brief)";
        assert!(text.contains(line), "{text}");
    }

    type Event = fn(&mut Observed);

    /// Where it isn't possible, the tunnel is deleted and created.
    #[test]
    fn is_there_where_it_can_be() {
        let nothing: Event = |_| {};
        let (tun1, longest) = ("tun1: {", "fifteen-bytes-x: {");
        let on_eth0 = AFTER.replace("local:", "device: eth0, local:");
        let cases: &[(&str, String, String, Event, usize)] = &[
            ("as it is", BEFORE.into(), AFTER.into(), nothing, 1),
            ("back", AFTER.into(), BEFORE.into(), nothing, 1),
            ("a device", BEFORE.into(), on_eth0, nothing, 1),
            (
                "the longest name",
                BEFORE.replace(tun1, longest),
                AFTER.replace(tun1, longest),
                nothing,
                1,
            ),
            (
                "the same endpoints",
                AFTER.into(),
                AFTER.replace("local:", "mode: any, local:"),
                nothing,
                0,
            ),
            (
                "down",
                BEFORE.into(),
                "tun1: {local: 192.0.2.1, remote: 192.0.2.9, state: down}".into(),
                nothing,
                0,
            ),
            (
                "endpoints that another leaves",
                format!("{BEFORE}\n  tun2: {{local: 192.0.2.1, remote: 192.0.2.9}}"),
                AFTER.into(),
                nothing,
                0,
            ),
            (
                "on a tunnel that is new",
                BEFORE.into(),
                format!(
                    "{}\n  tun2: {{remote: 192.0.2.9}}",
                    AFTER.replace("local:", "device: tun2, local:")
                ),
                nothing,
                0,
            ),
            (
                "two that would wait at one place",
                format!("{BEFORE}\n  tun2: {{local: 192.0.2.1, device: eth0}}"),
                format!("{AFTER}\n  tun2: {{local: 192.0.2.1, remote: 192.0.2.9, device: eth0}}"),
                nothing,
                1,
            ),
            (
                "a name that is taken",
                BEFORE.into(),
                AFTER.into(),
                |host| host.add_device("tun1~".parse().unwrap(), 1500),
                0,
            ),
            (
                "an alternative name that is taken",
                BEFORE.into(),
                AFTER.into(),
                |host| {
                    let (other, device) = ("tun1~".parse().unwrap(), "eth0".parse().unwrap());
                    host.alternative_names.insert(other, device);
                },
                0,
            ),
            (
                "external, which there was none of",
                BEFORE.into(),
                AFTER.into(),
                |host| {
                    for tunnel in host.state.tunnels.values_mut() {
                        let Kind::Ipip(ipip) = &mut tunnel.kind;
                        ipip.external = true;
                    }
                },
                1,
            ),
            (
                "a route that can't be moved",
                BEFORE.into(),
                AFTER.into(),
                |host| {
                    for route in host.state.routes.values_mut() {
                        (route.other_attributes, route.protocol) = (true, FOREIGN);
                    }
                    let (key, route) = host.state.routes.pop_first().unwrap();
                    let to = "10.9.0.0/16".parse().unwrap();
                    host.state.routes.insert(RouteKey { to, ..key }, route);
                },
                0,
            ),
        ];
        for (what, from, to, happened, count) in cases {
            let plan = planned(from, to, happened);
            assert!(plan.counts().replace > 0, "{what}: {:?}", plan.conflicts);
            assert_eq!(plan.stand_ins.len(), *count, "{what}: {:?}", plan.stand_ins);
        }
    }

    #[test]
    fn external_has_none() {
        let mut observed = observe(state(BEFORE));
        let mut desired = state(AFTER);
        for tunnel in desired.tunnels.values_mut() {
            let Kind::Ipip(ipip) = &mut tunnel.kind;
            ipip.external = true;
        }
        let to_external = plan(&desired.clone().into(), None, &observed, &terms("hq"));
        assert!(to_external.counts().replace == 1 && to_external.stand_ins.is_empty());
        // What nobody owns before or after would be nobody's when it's left behind.
        for tunnel in observed
            .state
            .tunnels
            .values_mut()
            .chain(desired.tunnels.values_mut())
        {
            tunnel.alias.clear();
        }
        let (from, to) = (&observed.state.tunnels, &desired.tunnels);
        let pairs = from.values().zip(to.values());
        assert!(
            pairs
                .into_iter()
                .all(|(from, to)| stand_in(from, to).is_none())
        );
    }

    /// Another run was killed: its stand-in goes, and what is others' leads over the tunnel again, pruned or not.
    #[test]
    fn one_that_was_left_behind_goes() {
        let left = |host: &mut Observed| {
            let (tun1, stand_in) = ("tun1".parse().unwrap(), "tun1~".parse().unwrap());
            let made = state(AFTER).tunnels.remove(&tun1).unwrap();
            host.add_device(stand_in, 1480);
            host.devices.get_mut(&stand_in).unwrap().alias = made.alias.clone();
            host.state.tunnels.insert(stand_in, made);
            for route in host.state.routes.values_mut() {
                *route = led_over(route, |_| Some(stand_in));
            }
            let (key, mut route) = host.state.routes.pop_first().unwrap();
            route.protocol = FOREIGN;
            let to = "10.2.0.0/16".parse().unwrap();
            host.state.routes.insert(RouteKey { to, ..key }, route);
        };
        for prune in [true, false] {
            let desired = state(AFTER);
            let mut observed = observe(state(BEFORE));
            left(&mut observed);
            let terms = crate::plan::Terms {
                prune,
                ..terms("hq")
            };
            let plan = plan(&desired.clone().into(), Some(&desired), &observed, &terms);
            assert_eq!(plan.conflicts, [], "prune {prune}");
            let end = crate::plan::model::Model::carried_out(&plan, &observed);
            let end = end.state();
            assert_eq!(end.tunnels, desired.tunnels, "prune {prune}");
            let mut routes = end.routes.values();
            assert!(routes.all(|route| {
                route
                    .devices()
                    .all(|device| desired.tunnels.contains_key(&device))
            }));
            assert_eq!(end.routes.len(), 2, "prune {prune}");
        }
    }
}
