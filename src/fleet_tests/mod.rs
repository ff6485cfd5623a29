//! Random fleets: what each host is told by itself must come together to a network that carries packets.

mod random;
mod walk;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use crate::desired::desired;
use crate::plan::{Change, Terms};
use crate::probe;
use crate::reconcile::{Look, foresee};
use crate::state::{InterfaceName, Kind, NextHop, Observed, State};
use crate::topology::{Fleet, Host, Name, Parsed, Topology};
use random::{Random, any_fleet};
use walk::World;

fn parse(text: &str) -> Result<Parsed, TestCaseError> {
    Topology::parse("fleet.yaml", text)
        .map_err(|problems| TestCaseError::fail(format!("{problems}\n{text}")))
}

fn parse_quietly(text: &str) -> Result<Topology, TestCaseError> {
    let Parsed { topology, warnings } = parse(text)?;
    prop_assert!(warnings.list.is_empty(), "{warnings}");
    Ok(topology)
}

fn terms(topology: &Topology) -> Terms {
    Terms::new(topology.name.clone(), topology.route_protocol.0)
}

fn look(host: &Host, observed: &Observed, topology: &Topology) -> Look {
    foresee(observed.clone(), host, &terms(topology))
}

/// Each node's part of the fleet, in the order of their names.
fn looks(random: &Random, topology: &Topology) -> Vec<(Name, Host, Look)> {
    let fleet = topology.fleet();
    let hosts = fleet.names().map(|name| {
        let host = fleet.host(Some(name)).unwrap();
        let look = look(&host, &random.observed[name.as_str()], topology);
        (name.clone(), host, look)
    });
    hosts.collect()
}

/// Only devices that the host has or is to have, and only its own addresses.
fn is_its_own(state: &State, observed: &Observed) -> Result<(), TestCaseError> {
    let own: BTreeSet<_> = observed
        .state
        .addresses
        .keys()
        .map(|key| key.local)
        .collect();
    let there = |device: &InterfaceName| {
        state.tunnels.contains_key(device) || observed.devices.contains_key(device)
    };
    for (name, tunnel) in &state.tunnels {
        let Kind::Ipip(ipip) = &tunnel.kind;
        prop_assert!(
            ipip.local.is_some_and(|local| own.contains(&local.into())),
            "{name}: {ipip:?}"
        );
        prop_assert!(
            ipip.remote
                .is_none_or(|remote| !own.contains(&remote.into())),
            "{name}: {ipip:?}"
        );
    }
    for key in state.addresses.keys() {
        prop_assert!(state.tunnels.contains_key(&key.device), "{key}");
    }
    for (key, route) in &state.routes {
        prop_assert!(
            route.devices().all(|device| there(&device)),
            "{key}: {route:?}"
        );
        let vias = route.nexthops.iter().filter_map(|hop| hop.via);
        prop_assert!(
            vias.into_iter().all(|via| !own.contains(&via)),
            "{key}: {route:?}"
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn packets_arrive(random in any_fleet()) {
        let topology = parse_quietly(&random.text)?;
        let looks = looks(&random, &topology);
        let world = World::new(&random, &looks);
        for mesh in random.meshes.iter().filter(|mesh| mesh.routes) {
            for from in &mesh.members {
                for to in mesh.members.iter().filter(|to| *to != from) {
                    for target in world.targets(mesh, to) {
                        world.walk(from, to, target).map_err(|error| TestCaseError::fail(format!("{error}\n{}", random.text)))?;
                    }
                }
            }
        }
    }

    #[test]
    fn a_host_has_its_own_part(random in any_fleet()) {
        let topology = parse_quietly(&random.text)?;
        for (name, host, look) in looks(&random, &topology) {
            let observed = &random.observed[name.as_str()];
            is_its_own(&look.desired, observed)?;
            prop_assert!(look.plan.conflicts.is_empty(), "{:?}", look.plan.conflicts);
            let strange = look.plan.changes.iter().find(|change| match change {
                Change::Tunnel(key, _) => !look.desired.tunnels.contains_key(key),
                Change::Address(key, _) => !look.desired.addresses.contains_key(key),
                Change::Route(key, _) => !look.desired.routes.contains_key(key),
            });
            prop_assert!(strange.is_none(), "{strange:?}");
            let alone = host.into_topology().to_yaml().unwrap();
            let alone = parse(&alone)?.topology;
            let alone = alone.fleet().host(None).unwrap();
            prop_assert_eq!(desired(&alone, &look.observed).state, look.desired);
        }
    }

    /// Whoever is silent: no route leads that way but to the peer's own address, and nothing else is changed.
    #[test]
    fn silent_peers_are_left_out(random in any_fleet(), chosen: u64) {
        let topology = parse_quietly(&random.text)?;
        let fleet = topology.fleet();
        for (name, mut host, look) in looks(&random, &topology) {
            let silent = probe::targets(&fleet, &host).into_iter().enumerate();
            let silent = silent.filter(|(number, _)| chosen >> (number % 64) & 1 == 1);
            host.silent = silent.filter_map(|(_, target)| target.silent()).collect();
            let silent = host.silent.clone();
            let addresses: BTreeSet<IpNet> = silent.iter().map(|one| IpAddr::V4(one.address).into()).collect();
            let unlike = self::look(&host, &random.observed[name.as_str()], &topology).desired;
            let in_underlay = |hop: &NextHop| hop.device.is_some_and(|device| !look.desired.tunnels.contains_key(&device));
            let leads = |hop: &NextHop| silent.iter().any(|one| {
                let via = one.way.via.map(IpAddr::V4);
                let device = hop.device == Some(one.way.tunnel) || (one.way.direct && in_underlay(hop));
                device && (via.is_none() || hop.via == via)
            });
            for (key, route) in &look.desired.routes {
                let left: Vec<NextHop> = route.nexthops.iter().filter(|hop| !leads(hop)).cloned().collect();
                let found = unlike.routes.get(key).map_or(&[][..], |route| &route.nexthops);
                if !addresses.contains(&key.to) {
                    prop_assert_eq!(found, left, "{} {}\n{}", name, key, random.text);
                }
            }
            let more = unlike.routes.keys().find(|key| !look.desired.routes.contains_key(key) && !addresses.contains(&key.to));
            prop_assert!(more.is_none(), "{name} {more:?}\n{}", random.text);
            for one in silent.iter().filter(|one| one.way.via.is_some()) {
                let to = IpNet::from(IpAddr::V4(one.address));
                prop_assert!(unlike.routes.keys().any(|key| key.to == to), "{name} {one:?}\n{}", random.text);
            }
        }
    }

    #[test]
    fn a_fleet_is_read_as_it_is_written(random in any_fleet()) {
        let topology = parse_quietly(&random.text)?;
        let written = topology.to_yaml().unwrap();
        prop_assert_eq!(parse_quietly(&written)?, topology, "{}", written);
    }

    /// Without a node that joins nobody else together, the others' tunnels are as they were.
    #[test]
    fn who_goes_changes_nothing_for_those_who_stay(random in any_fleet(), gone: prop::sample::Index) {
        let topology = parse_quietly(&random.text)?;
        let mut fewer = topology.clone();
        let gone = gone.get(&random.names).parse::<Name>().unwrap();
        let address = topology.nodes[&gone].underlay.and_then(|underlay| underlay.address());
        fewer.nodes.remove(&gone);
        let (before, after) = (topology.fleet(), fewer.fleet());
        for name in after.names() {
            let host = |fleet: &Fleet| fleet.host(Some(name)).unwrap().topology.tunnels;
            let mut expected = host(&before);
            expected.retain(|_, tunnel| {
                let remote = tunnel.remote.as_ref().and_then(|remote| remote.address());
                remote.is_none() || remote != address
            });
            prop_assert_eq!(host(&after), expected);
        }
    }
}
