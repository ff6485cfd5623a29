//! No window without a route: walking any plan's steps, whoever could be reached before and can be after can be reached
//! all the time, but where a change says that traffic stops.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;

use super::model::Model;
use super::tests::{FOREIGN, OURS, PROTOCOL, any_state, observe, terms};
use super::{Action, Change, Effect, Object, Part, Plan, Step, effect, plan};
use crate::state::{
    AdminState, InterfaceName, MAIN_TABLE, Observed, RouteKey, RouteType, State, prefixes,
};

/// What a packet takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Taken {
    Route(RouteKey),
    Network(InterfaceName),
}

/// What a packet to an address takes in the main table, if it leads anywhere: the longest prefix, among routes and the
/// networks of addresses, then the lowest metric.
fn taken(state: &State, address: IpAddr) -> Option<Taken> {
    prefixes(address).find_map(|to| {
        let with = |tos, metric| RouteKey {
            table: MAIN_TABLE,
            to,
            tos,
            metric,
        };
        let mut routes = state.routes.range(with(0, 0)..=with(0, u32::MAX));
        let networks = state.addresses.iter().filter(|(key, value)| {
            let up = |tunnel: &crate::state::Tunnel| tunnel.state == AdminState::Up;
            value.network(key) == Some(to)
                && !value.noprefixroute
                && state.tunnels.get(&key.device).is_none_or(up)
        });
        let network = networks.min_by_key(|(_, value)| value.metric);
        match (routes.next(), network) {
            (Some((key, route)), network)
                if network.is_none_or(|(_, value)| key.metric <= value.metric) =>
            {
                Some((route.kind == RouteType::Unicast).then_some(Taken::Route(*key)))
            }
            (_, Some((key, _))) => Some(Some(Taken::Network(key.device))),
            (Some(_) | None, None) => None,
        }
    })?
}

/// The addresses that tell the prefixes of random states apart.
fn samples() -> Vec<IpAddr> {
    let behind = (1..5).flat_map(|net| [[10, 1, net, 9], [10, 1, net, 200]]);
    let nearby = [[10, 0, 0, 9], [10, 0, 0, 200], [10, 1, 9, 9]];
    behind.chain(nearby).map(IpAddr::from).collect()
}

/// Whether a change that says that it stops traffic is about what a packet took, or will take.
fn is_told(plan: &Plan, ways: [(&State, Taken); 2]) -> bool {
    let (mut objects, mut devices) = (BTreeSet::new(), BTreeSet::new());
    let mut sources = BTreeSet::new();
    for (state, taken) in ways {
        match taken {
            Taken::Network(device) => {
                devices.insert(device);
            }
            Taken::Route(key) => {
                objects.insert(Object::Route(key));
                let route = &state.routes[&key];
                devices.extend(route.devices());
                sources.extend(route.src);
            }
        }
    }
    plan.changes.iter().enumerate().any(|(index, change)| {
        let concerned = match change.object() {
            Object::Tunnel(name) => devices.contains(&name),
            Object::Address(key) => devices.contains(&key.device) || sources.contains(&key.local),
            route @ Object::Route(_) => objects.contains(&route),
        };
        concerned && plan.effect(index) != Effect::None
    })
}

fn check(plan: &Plan, observed: &Observed) -> Result<(), TestCaseError> {
    let states = states(plan, observed);
    stand_ins_carry(plan, &states)?;
    let on_all = effect::effects_on(Model::new(observed), plan, &observed.state);
    prop_assert_eq!(&plan.effects, &on_all);
    let (before, after) = (&states[0], &states[states.len() - 1]);
    for address in samples() {
        let ends = taken(before, address).zip(taken(after, address));
        let Some((first, last)) = ends else { continue };
        for (state, step) in states[1..].iter().zip(&plan.steps) {
            let told = || is_told(plan, [(before, first), (after, last)]);
            prop_assert!(
                taken(state, address).is_some() || told(),
                "{address} has no route after {:?} of {}, and nothing says so:\n{}",
                step.part,
                plan.changes[step.change],
                plan.text(super::Style { color: false })
            );
        }
    }
    says_what_stops(plan, before, after)
}

/// Who is reached over a tunnel with a stand-in is reached but for the few steps in which it hands over.
fn stand_ins_carry(plan: &Plan, states: &[State]) -> Result<(), TestCaseError> {
    let of = |part: Part| move |step: &Step| step.part == part;
    let Some(handed_over) = plan.steps.iter().position(of(Part::TakeOver)) else {
        return Ok(());
    };
    let puts_route = |step: &Step| matches!(plan.changes[step.change], Change::Route(..));
    let behind = plan.steps[handed_over..].iter();
    let behind = behind.skip_while(|step| step.part == Part::TakeOver);
    let behind = behind.skip_while(|step| step.part == Part::Put && puts_route(step));
    let behind = behind.skip_while(|step| step.part == Part::Clear);
    let (before, after) = (&states[0], &states[states.len() - 1]);
    let outside = (0..=handed_over).chain(states.len() - behind.count()..states.len());
    let outside: Vec<usize> = outside.collect();
    for address in samples() {
        let ways = [before, after].map(|state| way(plan, state, address));
        let [Some(first), Some(last)] = &ways else {
            continue;
        };
        let stopped = [before, after]
            .into_iter()
            .any(|state| route_stops(plan, state, address));
        if first != last || stopped || !first.iter().all(|on| plan.stand_ins.contains_key(on)) {
            continue;
        }
        for &index in &outside {
            prop_assert!(
                way(plan, &states[index], address).is_some(),
                "{address} isn't carried after {:?} of\n{}",
                plan.steps[..index].last(),
                plan.text(super::Style { color: false })
            );
        }
    }
    Ok(())
}

/// Whether a change of the route that packets take says that they stop, be it for a moment: another takes over by and by,
/// or it waits for an address that comes later; or the route's source goes from where nothing stands in, and the kernel
/// drops the route.
fn route_stops(plan: &Plan, state: &State, address: IpAddr) -> bool {
    let Some(Taken::Route(key)) = taken(state, address) else {
        return false;
    };
    let src = state.routes[&key].src;
    plan.changes.iter().enumerate().any(|(index, change)| {
        let effect = plan.effect(index);
        match change.object() {
            Object::Tunnel(_) => false,
            Object::Address(of) if plan.stand_ins.contains_key(&of.device) => {
                Some(of.local) == src && effect == Effect::Stops
            }
            Object::Address(of) => Some(of.local) == src && effect != Effect::None,
            Object::Route(route) => {
                let stays = change.action() == Action::Restore;
                route == key && effect != Effect::None && !(stays && effect == Effect::Brief)
            }
        }
    })
}

/// The devices by which an address is reached; `None`: it isn't.
fn way(plan: &Plan, state: &State, address: IpAddr) -> Option<Vec<InterfaceName>> {
    let waits = |device: &InterfaceName| {
        let tunnel = state.tunnels.get(device);
        tunnel.is_some_and(|tunnel| tunnel.endpoints().device == Some(InterfaceName::LOOPBACK))
    };
    let devices = match taken(state, address)? {
        // The kernel takes the one that was there first, which is the stand-in.
        Taken::Network(device) if waits(&device) => vec![*plan.stand_ins.get(&device)?],
        Taken::Network(device) => vec![device],
        Taken::Route(key) => state.routes[&key].devices().collect(),
    };
    Some(devices).filter(|devices| !devices.iter().any(waits))
}

/// Whoever can't be reached any more was stopped by a change that says so.
fn says_what_stops(plan: &Plan, before: &State, after: &State) -> Result<(), TestCaseError> {
    let stops = (0..plan.changes.len()).any(|index| plan.effect(index) == Effect::Stops);
    for address in samples() {
        let lost = taken(before, address).is_some() && taken(after, address).is_none();
        prop_assert!(
            stops || !lost,
            "{address} is cut off, and nothing says so:\n{}",
            plan.text(super::Style { color: false })
        );
    }
    Ok(())
}

/// The state before the first step, and after each.
fn states(plan: &Plan, observed: &Observed) -> Vec<State> {
    let mut model = Model::new(observed);
    let mut states = vec![model.state().clone()];
    for step in &plan.steps {
        model.step(plan, *step);
        states.push(model.state().clone());
    }
    states
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_window_without_a_route(
        desired in any_state(&[OURS], &[PROTOCOL]),
        start in any_state(&[OURS, OURS, "", "tunnelform:theirs"], &[PROTOCOL, PROTOCOL, FOREIGN]),
        adopt: bool,
    ) {
        let observed = observe(start);
        let plan = plan(&desired.clone().into(), Some(&desired), &observed, &terms(adopt));
        if plan.conflicts.is_empty() {
            check(&plan, &observed)?;
        }
    }
}

/// A route that changes is looked at with those of its prefix, whatever else there is.
#[test]
fn other_routes_arent_looked_at() {
    use crate::plan::testing::{bare_with, terms, wanted};
    let of = |mtu: &str| {
        let route = format!("{{to: 10.1.0.0/16, via: 10.0.0.9, device: eth0{mtu}}}");
        let topology = format!("name: t\naddresses: {{eth0: [10.0.0.1/24]}}\nroutes: [{route}]");
        wanted(&topology, &bare_with(&["eth0"]))
    };
    let mut observed = observe(of("").state);
    let (key, mut route) = observed.state.routes.pop_first().unwrap();
    observed.state.routes.insert(key, route.clone());
    route.protocol = FOREIGN;
    let others = (0..1_000).map(|metric| RouteKey {
        metric,
        to: "10.2.0.0/16".parse().unwrap(),
        ..key
    });
    observed
        .state
        .routes
        .extend(others.map(|other| (other, route.clone())));
    observed
        .state
        .routes
        .insert(RouteKey { metric: 7, ..key }, route);
    let desired = of(", mtu: 1300");
    let plan = plan(&desired, Some(&desired.state), &observed, &terms("t"));
    assert_eq!(plan.effects, [Effect::Brief]);
    let looked_at = Model::of_what_changes(&plan, &observed);
    assert_eq!(looked_at.state().routes.len(), 2);
}

/// The random test would prove nothing if nearly all of the plans stopped traffic anyway.
#[test]
fn many_random_plans_lose_nothing() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let states = any_state(&[OURS], &[PROTOCOL]);
    let mut hitless = 0;
    for _ in 0..400 {
        let desired = states.new_tree(&mut runner).unwrap().current();
        let observed = observe(states.new_tree(&mut runner).unwrap().current());
        let plan = plan(
            &desired.clone().into(),
            Some(&desired),
            &observed,
            &terms(false),
        );
        let moved = plan
            .changes
            .iter()
            .any(|change| matches!(change, Change::Route(..)));
        let none = (0..plan.changes.len()).all(|index| plan.effect(index) == Effect::None);
        hitless += usize::from(plan.conflicts.is_empty() && moved && none);
    }
    assert!(hitless > 20, "{hitless} of 400");
}
