//! Random desired × observed states: the plan, carried out on the model of the kernel, leads to what is desired, and
//! what isn't ours is as before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::model::Model;
use super::testing::steps;
use super::{Action, Change, Delta, Effect, Part, Plan, Terms, Undo, plan};
use crate::state::{
    Address, AddressKey, AdminState, Device, InterfaceName, Ipip, Kind, MAIN_TABLE, Mode, NextHop,
    Observed, Route, RouteKey, RouteType, Scope, State, Ttl, Tunnel,
};

pub(super) const OURS: &str = "tunnelform:ours";
pub(super) const PROTOCOL: u8 = 117;
pub(super) const FOREIGN: u8 = 4;

fn name(text: &str) -> InterfaceName {
    text.parse().unwrap()
}

fn tunnel(local: u8, remote: Option<u8>, ttl: u8, alias: &str) -> Tunnel {
    let address = |host| Ipv4Addr::new(192, 0, 2, host);
    let ipip = Ipip {
        local: Some(address(local)),
        remote: remote.map(address),
        ttl: Ttl(ttl),
        ..Ipip::default()
    };
    Tunnel {
        kind: Kind::Ipip(ipip),
        mtu: 1480,
        state: AdminState::Up,
        alias: alias.into(),
    }
}

fn address(
    device: &str,
    host: u8,
    prefix_len: u8,
    metric: u32,
    protocol: u8,
) -> (AddressKey, Address) {
    let local = IpAddr::V4(Ipv4Addr::new(10, 0, 0, host));
    let value = Address {
        prefix_len,
        peer: None,
        broadcast: None,
        scope: Scope::GLOBAL,
        label: Some(device.into()),
        noprefixroute: false,
        metric,
        protocol,
        lifetime: None,
    };
    (
        AddressKey::new(name(device), local, None, prefix_len),
        value,
    )
}

fn route(net: u8, device: Option<&str>, src: Option<u8>, protocol: u8) -> (RouteKey, Route) {
    let to = IpNet::new(IpAddr::V4(Ipv4Addr::new(10, 1, net, 0)), 24).unwrap();
    let hop = device.map(|device| NextHop {
        via: None,
        device: Some(name(device)),
        weight: 1,
        onlink: false,
    });
    let value = Route {
        kind: if hop.is_some() {
            RouteType::Unicast
        } else {
            RouteType::Blackhole
        },
        protocol,
        scope: if hop.is_some() {
            Scope::LINK
        } else {
            Scope::GLOBAL
        },
        src: src.map(|host| IpAddr::V4(Ipv4Addr::new(10, 0, 0, host))),
        mtu: None,
        advmss: None,
        nexthops: hop.into_iter().collect(),
        other_attributes: false,
    };
    (
        RouteKey {
            table: MAIN_TABLE,
            to,
            tos: 0,
            metric: 0,
        },
        value,
    )
}

/// A prefix, of few that lie in one another, and a metric.
fn any_route() -> impl Strategy<Value = (IpNet, u32)> {
    let to = prop_oneof![
        6 => (1..5u8).prop_map(|net| Ipv4Addr::new(10, 1, net, 0)).prop_map(|ip| (ip, 24)),
        1 => Just((Ipv4Addr::new(10, 1, 1, 128), 25)),
        1 => Just((Ipv4Addr::new(10, 1, 0, 0), 16)),
    ];
    let to = to.prop_map(|(ip, length)| IpNet::new(ip.into(), length).unwrap());
    (to, prop::sample::select(vec![0, 0, 7]))
}

/// One host's state: few names, endpoints and prefixes, so that things collide.
pub(crate) fn any_state(
    aliases: &'static [&'static str],
    protocols: &'static [u8],
) -> impl Strategy<Value = State> {
    let alias = prop::sample::select(aliases);
    let protocol = prop::sample::select(protocols);
    let tunnels = btree_map(
        prop::sample::select(vec!["tun1", "tun2", "tun3"]),
        (
            1..3u8,
            option::of(11..14u8),
            prop::sample::select(vec![0u8, 64]),
            alias,
        ),
        0..4,
    );
    let addresses = vec(
        (
            prop::sample::select(vec!["tun1", "tun2", "tun3", "eth0"]),
            1..4u8,
            24..26u8,
            0..2u32,
            protocol.clone(),
        ),
        0..5,
    );
    let hop = option::of(prop::sample::select(vec!["tun1", "tun2", "tun3", "eth0"]));
    let routes = vec((any_route(), hop, option::of(1..4u8), protocol), 0..6);
    (tunnels, addresses, routes).prop_map(|(tunnels, addresses, routes)| {
        let mut state = State::default();
        let mut endpoints = BTreeSet::new();
        for (device, (local, remote, ttl, alias)) in tunnels {
            let tunnel = tunnel(local, remote, ttl, alias);
            if endpoints.insert(tunnel.endpoints()) {
                state.tunnels.insert(name(device), tunnel);
            }
        }
        let exists = |state: &State, device: &str| {
            device == "eth0" || state.tunnels.contains_key(&name(device))
        };
        for (device, host, prefix_len, metric, protocol) in addresses {
            if exists(&state, device) {
                state
                    .addresses
                    .extend([address(device, host, prefix_len, metric, protocol)]);
            }
        }
        for ((to, metric), device, src, protocol) in routes {
            let src = src.filter(|_| device.is_some()).filter(|host| {
                let local = IpAddr::V4(Ipv4Addr::new(10, 0, 0, *host));
                state.addresses.keys().any(|key| key.local == local)
            });
            if device.is_none_or(|device| exists(&state, device)) {
                let (key, value) = route(0, device, src, protocol);
                state.routes.insert(RouteKey { to, metric, ..key }, value);
            }
        }
        state
    })
}

pub(crate) fn observe(state: State) -> Observed {
    let mut observed = Observed {
        state,
        marks_addresses: true,
        all_routes: true,
        ..Observed::default()
    };
    let mut networks = BTreeSet::new();
    for (key, address) in &observed.state.addresses {
        if !networks.insert((key.device, address.network(key))) {
            observed.secondaries.insert(*key);
        }
    }
    let device = |index, kind: &str, alias: &str| Device {
        index,
        kind: kind.into(),
        mtu: 1500,
        up: true,
        alias: alias.into(),
        group: 0,
        counters: Default::default(),
    };
    observed.devices.insert(name("lo"), device(1, "", ""));
    observed.devices.insert(name("eth0"), device(2, "", ""));
    for (index, (name, tunnel)) in observed.state.tunnels.iter().enumerate() {
        observed
            .devices
            .insert(*name, device(index as u32 + 3, "ipip", &tunnel.alias));
    }
    observed
}

/// With those of these routes that `ip route append` could add.
fn with_behind(mut seen: Observed, routes: impl Iterator<Item = (RouteKey, Route)>) -> Observed {
    for (key, route) in routes {
        let state = &seen.state;
        let has = |local| state.addresses.keys().any(|key| key.local == local);
        let stands = route.devices().all(|on| seen.devices.contains_key(&on));
        let behind = (key, route);
        if state
            .routes
            .get(&key)
            .is_some_and(|first| *first != behind.1)
            && stands
            && behind.1.src.is_none_or(has)
            && !seen.duplicate_routes.contains(&behind)
        {
            seen.duplicate_routes.push(behind);
        }
    }
    seen
}

pub(super) fn terms(adopt: bool) -> Terms {
    Terms {
        adopt,
        ..Terms::new("ours".parse().unwrap(), PROTOCOL)
    }
}

/// What the plan leads to. Fails where the kernel would refuse: endpoints that another tunnel holds, an object on a
/// device that isn't there, a route like one behind it.
fn carry_out(plan: &Plan, observed: &Observed) -> Result<Observed, TestCaseError> {
    let mut model = Model::new(observed);
    for step in &plan.steps {
        if let (Change::Route(key, delta), Part::Put) = (&plan.changes[step.change], step.part) {
            for device in delta.after().unwrap().devices() {
                let there = model.state().tunnels.contains_key(&device) || device == name("eth0");
                prop_assert!(there, "{key} leads through {device}, which isn't there");
            }
            let put = delta.after().unwrap();
            prop_assert!(
                model.state().routes.get(key) == Some(put)
                    || model.behind().all(|behind| behind != (*key, put)),
                "{key} is there already, behind another"
            );
            let src = put.src;
            prop_assert!(
                src.is_none_or(|src| model.state().addresses.keys().any(|a| a.local == src)),
                "{key} has no source"
            );
        }
        model.step(plan, *step);
        let tunnels = model.state().tunnels.iter();
        let mut held = BTreeMap::new();
        for (name, tunnel) in tunnels {
            let holder = held.insert(tunnel.endpoints(), name);
            prop_assert!(holder.is_none(), "{name} has the endpoints of {holder:?}");
        }
    }
    let mut end = observe(model.state().clone());
    end.duplicate_routes = model.behind().map(|(key, r)| (key, r.clone())).collect();
    Ok(end)
}

fn check(desired: &State, observed: Observed, adopt: bool) -> Result<(), TestCaseError> {
    let plan = plan(
        &desired.clone().into(),
        Some(desired),
        &observed,
        &terms(adopt),
    );
    if !plan.conflicts.is_empty() {
        return Ok(());
    }
    let seen = carry_out(&plan, &observed)?;
    let end = &seen.state;
    for (key, tunnel) in &desired.tunnels {
        prop_assert_eq!(end.tunnels.get(key), Some(tunnel), "tunnel {}", key);
    }
    for (key, address) in &desired.addresses {
        let found = end.addresses.get(key).map(|found| Address {
            protocol: address.protocol,
            ..found.clone()
        });
        prop_assert_eq!(found.as_ref(), Some(address), "address {}", key);
    }
    for (key, route) in &desired.routes {
        prop_assert_eq!(end.routes.get(key), Some(route), "route {}", key);
    }
    foreign_is_untouched(desired, &observed.state, end)?;
    let second = super::plan(&desired.clone().into(), Some(desired), &seen, &terms(adopt));
    prop_assert!(
        second.is_empty(),
        "a second plan:\n{}",
        second.text(super::Style { color: false })
    );
    Ok(())
}

/// A plan that is carried out, or broken off after some steps, and taken back.
fn check_undo(
    desired: &State,
    start: State,
    adopt: bool,
    done: usize,
) -> Result<(), TestCaseError> {
    let observed = observe(start);
    let wanted = desired.clone().into();
    let mut plan = plan(&wanted, Some(desired), &observed, &terms(adopt));
    if !plan.conflicts.is_empty() {
        return Ok(());
    }
    let mut undo = Undo::default();
    undo.note(&plan, &observed);
    let written = serde_json::to_string(&undo).unwrap();
    prop_assert_eq!(
        serde_json::from_str::<Undo>(&written).unwrap(),
        undo.clone()
    );
    plan.steps.truncate(done);
    let middle = carry_out(&plan, &observed)?;
    let back = undo.plan(&middle);
    let end = carry_out(&back, &middle)?;
    prop_assert_eq!(&end.state, &observed.state);
    prop_assert!(undo.plan(&end).is_empty());
    Ok(())
}

/// What was lost and repaired since the first plan stays when everything is taken back; what others made since, too.
#[test]
fn a_repair_is_not_undone() {
    let ours = |remote| tunnel(1, Some(remote), 64, OURS);
    let foreign = tunnel(1, Some(5), 9, "");
    let state = |tunnels: &[(&str, &Tunnel)]| {
        let tunnels = tunnels.iter();
        State {
            tunnels: tunnels.map(|(n, t)| (name(n), (*t).clone())).collect(),
            ..State::default()
        }
    };
    let steps = |desired: &State, now: &Observed| {
        let wanted = desired.clone().into();
        plan(&wanted, Some(desired), now, &terms(true))
    };
    let before = observe(state(&[("tun1", &ours(2)), ("tun2", &ours(3))]));
    let first = state(&[("tun2", &ours(3)), ("tun3", &ours(4))]);
    let mut undo = Undo::default();
    undo.note(&steps(&first, &before), &before);
    let damaged = observe(state(&[("tun3", &ours(4)), ("tun4", &foreign)]));
    let last = state(&[("tun2", &ours(3)), ("tun3", &ours(4)), ("tun4", &ours(5))]);
    undo.note_since(&steps(&last, &damaged), &damaged, &before.state);
    let last = observe(last);
    let back = undo.plan(&last);
    let end = carry_out(&back, &last).unwrap().state;
    let expected = [("tun1", &ours(2)), ("tun2", &ours(3)), ("tun4", &foreign)];
    assert_eq!(end, state(&expected));
}

fn foreign_is_untouched(
    desired: &State,
    before: &State,
    after: &State,
) -> Result<(), TestCaseError> {
    for (key, tunnel) in before
        .tunnels
        .iter()
        .filter(|(key, t)| t.alias != OURS && !desired.tunnels.contains_key(key))
    {
        prop_assert_eq!(
            after.tunnels.get(key),
            Some(tunnel),
            "foreign tunnel {}",
            key
        );
    }
    let stays = |device: &InterfaceName| match before.tunnels.get(device) {
        Some(tunnel) => tunnel.alias != OURS && !desired.tunnels.contains_key(device),
        None => true,
    };
    let foreign = before
        .addresses
        .iter()
        .filter(|(key, a)| stays(&key.device) && a.protocol != PROTOCOL);
    for (key, address) in foreign.filter(|(key, _)| !desired.addresses.contains_key(key)) {
        prop_assert_eq!(
            after.addresses.get(key),
            Some(address),
            "foreign address {}",
            key
        );
    }
    let foreign = before
        .routes
        .iter()
        .filter(|(_, r)| r.protocol != PROTOCOL && r.devices().all(|d| stays(&d)));
    for (key, route) in foreign.filter(|(key, _)| !desired.routes.contains_key(key)) {
        let src_stays = route
            .src
            .is_none_or(|src| after.addresses.keys().any(|a| a.local == src));
        if src_stays {
            prop_assert_eq!(after.routes.get(key), Some(route), "foreign route {}", key);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_leads_from_ours_to_desired(
        desired in any_state(&[OURS], &[PROTOCOL]),
        start in any_state(&[OURS], &[PROTOCOL]),
    ) {
        check(&desired, observe(start), false)?;
    }

    #[test]
    fn one_of_several_routes_with_a_key_is_left(
        desired in any_state(&[OURS], &[PROTOCOL]),
        start in any_state(&[OURS], &[PROTOCOL]),
        more in any_state(&[OURS], &[PROTOCOL]),
    ) {
        let others = [more, desired.clone()].into_iter().flat_map(|state| state.routes);
        check(&desired, with_behind(observe(start), others), false)?;
    }

    #[test]
    fn what_was_done_can_be_undone(
        desired in any_state(&[OURS], &[PROTOCOL]),
        start in any_state(&[OURS, "", "tunnelform:theirs"], &[PROTOCOL, FOREIGN]),
        adopt: bool,
        done in 0..40usize,
    ) {
        check_undo(&desired, start, adopt, done)?;
    }

    #[test]
    fn a_plan_leaves_foreign_objects_alone(
        desired in any_state(&[OURS], &[PROTOCOL]),
        start in any_state(&[OURS, "", "tunnelform:theirs"], &[PROTOCOL, FOREIGN]),
        adopt: bool,
    ) {
        check(&desired, observe(start), adopt)?;
    }
}

/// The tests above pass over plans with conflicts. They would prove nothing if all had some.
#[test]
fn most_random_plans_have_no_conflict() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let desired = any_state(&[OURS], &[PROTOCOL]);
    let start = any_state(&[OURS], &[PROTOCOL]);
    let mut clear = 0;
    for _ in 0..200 {
        let desired = desired.new_tree(&mut runner).unwrap().current();
        let observed = observe(start.new_tree(&mut runner).unwrap().current());
        clear += usize::from(
            plan(
                &desired.clone().into(),
                Some(&desired),
                &observed,
                &terms(false),
            )
            .conflicts
            .is_empty(),
        );
    }
    assert!(clear > 150, "{clear} of 200");
}

fn state(
    tunnels: &[(&str, Tunnel)],
    addresses: &[(AddressKey, Address)],
    routes: &[(RouteKey, Route)],
) -> State {
    State {
        tunnels: tunnels
            .iter()
            .map(|(device, tunnel)| (name(device), tunnel.clone()))
            .collect(),
        addresses: addresses.iter().cloned().collect(),
        routes: routes.iter().cloned().collect(),
    }
}

fn plan_of(desired: &State, start: &State) -> Plan {
    plan(
        &desired.clone().into(),
        Some(desired),
        &observe(start.clone()),
        &terms(false),
    )
}

#[test]
fn tunnels_that_swap_endpoints_cost_one_replacement() {
    let start = state(
        &[
            ("tun1", tunnel(1, Some(11), 0, OURS)),
            ("tun2", tunnel(1, Some(12), 0, OURS)),
        ],
        &[],
        &[],
    );
    let desired = state(
        &[
            ("tun1", tunnel(1, Some(12), 0, OURS)),
            ("tun2", tunnel(1, Some(11), 0, OURS)),
        ],
        &[],
        &[],
    );
    let counts = plan_of(&desired, &start).counts();
    assert_eq!((counts.replace, counts.update), (1, 1));
}

#[test]
fn a_renamed_tunnel_frees_its_endpoints_first() {
    let start = state(&[("tun1", tunnel(1, Some(11), 0, OURS))], &[], &[]);
    let desired = state(&[("tun2", tunnel(1, Some(11), 0, OURS))], &[], &[]);
    let plan = plan_of(&desired, &start);
    assert_eq!(
        plan.steps.iter().map(|step| step.part).collect::<Vec<_>>(),
        [Part::Remove, Part::Put]
    );
}

#[test]
fn what_is_to_come_stands_before_what_is_to_go() {
    let start = state(
        &[("tun1", tunnel(1, Some(11), 0, OURS))],
        &[],
        &[route(1, Some("tun1"), None, PROTOCOL)],
    );
    let desired = state(
        &[("tun2", tunnel(1, Some(12), 0, OURS))],
        &[],
        &[route(1, Some("tun2"), None, PROTOCOL)],
    );
    let plan = plan_of(&desired, &start);
    let order: Vec<String> = plan
        .steps
        .iter()
        .map(|step| format!("{:?} {}", step.part, plan.changes[step.change]))
        .collect();
    assert_eq!(
        order,
        [
            "Put tunnel tun2",
            "Put route 10.1.1.0/24",
            "Remove tunnel tun1"
        ]
    );
    assert!(
        matches!(&plan.changes[2], Change::Route(_, Delta::Update { .. })),
        "replaced, not deleted and added"
    );
}

#[test]
fn a_forced_replacement_says_why_and_puts_back() {
    let objects = (
        [address("tun1", 1, 24, 0, PROTOCOL)],
        [
            route(1, Some("tun1"), None, PROTOCOL),
            route(2, Some("tun1"), None, FOREIGN),
        ],
    );
    let start = state(
        &[("tun1", tunnel(1, Some(11), 0, OURS))],
        &objects.0,
        &objects.1,
    );
    let desired = state(
        &[("tun1", tunnel(1, None, 0, OURS))],
        &objects.0,
        &objects.1[..1],
    );
    let plan = plan_of(&desired, &start);
    assert!(plan.changes[0].why().unwrap().contains("multipoint"));
    assert_eq!(
        plan.counts().restore,
        3,
        "{}",
        plan.text(super::Style { color: false })
    );
    assert_eq!(
        plan.changes
            .iter()
            .filter(|change| change.action() == Action::Restore)
            .count(),
        3
    );
}

#[test]
fn a_replaced_tunnel_that_is_down_keeps_its_addresses() {
    let addresses = [address("tun1", 1, 24, 0, PROTOCOL)];
    let down = |tunnel: Tunnel| Tunnel {
        state: AdminState::Down,
        ..tunnel
    };
    let start = tunnel(1, Some(11), 0, OURS);
    let start = state(&[("tun1", start)], &addresses, &[]);
    let desired = down(tunnel(1, None, 0, OURS));
    let desired = state(&[("tun1", desired)], &addresses, &[]);
    let plan = plan_of(&desired, &start);
    let moves: Vec<Action> = plan.changes.iter().map(Change::action).collect();
    assert_eq!(moves, [Action::Replace, Action::Restore]);
}

#[test]
fn a_route_goes_before_the_tunnel_that_would_take_it_along() {
    let (key, value) = route(1, Some("tun1"), None, PROTOCOL);
    let other = RouteKey { metric: 2, ..key };
    let start = state(
        &[("tun1", tunnel(1, Some(11), 0, OURS))],
        &[],
        &[(key, value.clone())],
    );
    // It has the same endpoints, so that nothing can stand in for it.
    let mut any = tunnel(1, Some(11), 0, OURS);
    let Kind::Ipip(ipip) = &mut any.kind;
    ipip.mode = Mode::Any;
    let desired = state(&[("tun1", any)], &[], &[(other, value)]);
    let plan = plan_of(&desired, &start);
    assert_eq!(
        steps(&plan),
        [
            "Remove route 10.1.1.0/24",
            "Remove tunnel tun1",
            "Put tunnel tun1",
            "Put route 10.1.1.0/24 metric 2",
        ]
    );
}

/// A tunnel that changes where it is takes no route along, so nothing goes early for its sake.
#[test]
fn a_route_of_another_metric_comes_before_the_old_one_goes() {
    let (key, value) = route(1, Some("tun1"), None, PROTOCOL);
    let other = RouteKey { metric: 7, ..key };
    let start = state(
        &[("tun1", tunnel(1, Some(11), 0, OURS))],
        &[],
        &[(key, value.clone())],
    );
    let desired = state(
        &[("tun1", tunnel(1, Some(11), 64, OURS))],
        &[],
        &[(other, value)],
    );
    let plan = plan_of(&desired, &start);
    assert_eq!(
        steps(&plan),
        [
            "Put tunnel tun1",
            "Put route 10.1.1.0/24 metric 7",
            "Remove route 10.1.1.0/24",
        ]
    );
}

#[test]
fn what_leads_out_of_a_blackhole_comes_before_it() {
    let (key, blackhole) = route(1, None, None, PROTOCOL);
    let shorter = RouteKey {
        to: "10.1.0.0/16".parse().unwrap(),
        ..key
    };
    let longer = route(1, Some("eth0"), None, PROTOCOL);
    let plan = plan_of(
        &state(&[], &[], &[(shorter, blackhole), longer]),
        &State::default(),
    );
    let steps = plan.steps.iter();
    let order: Vec<String> = steps
        .map(|step| plan.changes[step.change].to_string())
        .collect();
    assert_eq!(order, ["route 10.1.1.0/24", "route 10.1.0.0/16"]);
}

#[test]
fn a_route_moves_before_its_tunnel_is_set_down() {
    let (one, other) = (tunnel(1, Some(11), 0, OURS), tunnel(1, Some(12), 0, OURS));
    let down = Tunnel {
        state: AdminState::Down,
        ..one.clone()
    };
    let start = state(
        &[("tun1", one), ("tun2", other.clone())],
        &[],
        &[route(1, Some("tun1"), None, PROTOCOL)],
    );
    let desired = state(
        &[("tun1", down), ("tun2", other)],
        &[],
        &[route(1, Some("tun2"), None, PROTOCOL)],
    );
    let plan = plan_of(&desired, &start);
    assert_eq!(steps(&plan), ["Put route 10.1.1.0/24", "Put tunnel tun1"]);
    assert_eq!(plan.effects, [Effect::Stops, Effect::None]);
}

#[test]
fn one_message_is_done_whole_or_not_at_all() {
    let tunnel = tunnel(1, Some(11), 0, OURS);
    let with = |mtu, ttl| {
        let mut tunnel = tunnel.clone();
        let Kind::Ipip(ipip) = &mut tunnel.kind;
        (tunnel.mtu, ipip.ttl) = (mtu, Ttl(ttl));
        tunnel
    };
    let of = |tunnel: Option<Tunnel>, routes: u8| {
        let tunnels: Vec<_> = tunnel.map(|tunnel| ("tun1", tunnel)).into_iter().collect();
        let routes: Vec<_> = (1..=routes)
            .map(|net| route(net, None, None, PROTOCOL))
            .collect();
        state(&tunnels, &[], &routes)
    };
    let start = of(Some(with(1400, 0)), 0);
    for (desired, indivisible) in [
        (of(Some(with(1300, 0)), 0), true),
        (of(Some(with(1400, 9)), 0), true),
        (of(Some(with(1300, 9)), 0), false),
        (of(Some(with(1400, 0)), 1), true),
        (of(Some(with(1400, 0)), 2), false),
        (of(Some(with(1300, 0)), 1), false),
        (of(None, 0), false),
    ] {
        let plan = plan_of(&desired, &start);
        assert_eq!(plan.is_indivisible(), indivisible, "{:?}", steps(&plan));
    }
    assert!(!plan_of(&start, &of(None, 0)).is_indivisible());
}

#[test]
fn a_route_follows_its_source_address() {
    let old = [address("eth0", 1, 24, 0, PROTOCOL)];
    let new = [address("eth0", 2, 24, 0, PROTOCOL)];
    let start = state(
        &[],
        &old,
        &[
            route(1, Some("eth0"), Some(1), PROTOCOL),
            route(2, Some("eth0"), Some(1), FOREIGN),
        ],
    );
    let desired = state(&[], &new, &[route(1, Some("eth0"), Some(2), PROTOCOL)]);
    let plan = plan_of(&desired, &start);
    assert!(
        plan.warnings
            .iter()
            .any(|warning| warning.contains("10.1.2.0/24")),
        "{:?}",
        plan.warnings
    );
}
