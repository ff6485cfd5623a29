//! What is written, read again, is what was written: for every tunnel, address and route.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use allocation_counter::measure;
use ipnet::IpNet;
use netlink_packet_core::Emitable;
use netlink_packet_route::RouteNetlinkMessage;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use smol_str::SmolStr;

use super::route::Family;
use super::{Indices, address, link, route};
use crate::state::{
    Address, AddressKey, AdminState, Encap, InterfaceName, Ipip, Kind, Lifetime, Mode, NextHop,
    NextHops, Route, RouteKey, RouteType, Scope, Tos, Ttl, Tunnel,
};

const NAMES: [&str; 3] = ["eth0", "tun1", "tun2"];

fn indices() -> Indices {
    NAMES
        .iter()
        .zip(2..)
        .map(|(name, index)| (name.parse().unwrap(), index))
        .collect()
}

fn name_of(index: u32) -> Option<InterfaceName> {
    indices()
        .into_iter()
        .find(|(_, known)| *known == index)
        .map(|(name, _)| name)
}

fn payload(message: &RouteNetlinkMessage) -> Vec<u8> {
    fn emit(message: &impl Emitable) -> Vec<u8> {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }
    match message {
        RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::SetLink(message) => {
            emit(message)
        }
        RouteNetlinkMessage::NewAddress(message) => emit(message),
        RouteNetlinkMessage::NewRoute(message) => emit(message),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn device() -> impl Strategy<Value = InterfaceName> {
    select(&NAMES[..]).prop_map(|name| name.parse().unwrap())
}

/// Any address but 0.0.0.0, which is the wire's word for none.
fn v4() -> impl Strategy<Value = Ipv4Addr> {
    (1..=u32::MAX).prop_map(Ipv4Addr::from)
}

fn v6() -> impl Strategy<Value = Ipv6Addr> {
    (1..=u128::MAX).prop_map(Ipv6Addr::from)
}

fn ip(ipv6: bool) -> BoxedStrategy<IpAddr> {
    if ipv6 {
        v6().prop_map(IpAddr::V6).boxed()
    } else {
        v4().prop_map(IpAddr::V4).boxed()
    }
}

prop_compose! {
    pub(crate) fn tunnel()(
        ends in (option::of(v4()), option::of(v4()), option::of(device())),
        mode in select(vec![Mode::Ipip, Mode::Mplsip, Mode::Any]),
        (ttl, tos, pmtudisc, fwmark, external) in any::<(u8, u8, bool, u32, bool)>(),
        encap in option::of((1..=2u16, any::<u16>(), any::<u16>(), any::<u16>())),
        mtu in 68..=65515u32,
        state in select(vec![AdminState::Up, AdminState::Down]),
        alias in "[a-z:]{1,40}",
    ) -> Tunnel {
        let (local, remote, device) = ends;
        let encap = encap.map(|(kind, flags, sport, dport)| Encap { kind, flags, sport, dport });
        let ipip = Ipip { local, remote, device, mode, ttl: Ttl(ttl), tos: Tos(tos), pmtudisc, fwmark, external, encap };
        Tunnel { kind: Kind::Ipip(ipip), mtu, state, alias: alias.into() }
    }
}

pub(crate) fn any_address() -> impl Strategy<Value = (AddressKey, Address)> {
    any::<bool>().prop_flat_map(|ipv6| {
        let length = if ipv6 { 0..=128u8 } else { 0..=32u8 };
        let lifetime = option::of((0..u32::MAX, 0..u32::MAX));
        let common = (
            device(),
            ip(ipv6),
            option::of(ip(ipv6)),
            length,
            any::<(bool, u32, u8)>(),
            lifetime,
        );
        let v4_only = (
            option::of(v4()),
            option::of("[a-z0-9]{1,15}"),
            select(vec![0u8, 200, 253, 254]),
        );
        (common, v4_only).prop_map(
            move |(
                (device, local, peer, prefix_len, rest, lifetime),
                (broadcast, label, scope),
            )| {
                let peer = peer.filter(|peer| *peer != local);
                let (noprefixroute, metric, protocol) = rest;
                let address = Address {
                    prefix_len,
                    peer,
                    broadcast: broadcast.filter(|_| !ipv6),
                    scope: Scope(scope),
                    label: label.filter(|_| !ipv6).map(SmolStr::from),
                    noprefixroute,
                    metric,
                    protocol,
                    lifetime: lifetime.map(|(valid, preferred)| Lifetime { valid, preferred }),
                };
                (AddressKey::new(device, local, peer, prefix_len), address)
            },
        )
    })
}

fn next_hops(ipv6: bool) -> impl Strategy<Value = Vec<NextHop>> {
    let hop = (option::of(ip(ipv6)), device(), 1..=256u16, any::<bool>());
    vec(
        hop.prop_map(|(via, device, weight, onlink)| NextHop {
            via,
            device: Some(device),
            weight,
            onlink,
        }),
        1..4,
    )
    .prop_map(|mut hops| {
        // A single next hop has no weight on the wire.
        if let [hop] = hops.as_mut_slice() {
            hop.weight = 1;
        }
        hops.sort();
        hops
    })
}

pub(crate) fn any_route() -> impl Strategy<Value = (RouteKey, Route)> {
    any::<bool>().prop_flat_map(|ipv6| {
        let to = (ip(ipv6), if ipv6 { 0..=128u8 } else { 0..=32u8 });
        let to = to.prop_map(|(ip, length)| IpNet::new(ip, length).unwrap().trunc());
        let kinds = vec![
            RouteType::Unicast,
            RouteType::Blackhole,
            RouteType::Unreachable,
            RouteType::Prohibit,
            RouteType::Throw,
        ];
        let numbers = (
            1..=u32::MAX,
            any::<(u8, u32, u8, u8)>(),
            option::of(any::<u32>()),
            option::of(any::<u32>()),
        );
        (
            to,
            select(kinds),
            numbers,
            option::of(ip(ipv6)),
            next_hops(ipv6),
        )
            .prop_map(
                |(to, kind, (table, (tos, metric, protocol, scope), mtu, advmss), src, hops)| {
                    let nexthops = if kind == RouteType::Unicast {
                        hops.into()
                    } else {
                        NextHops::new()
                    };
                    let scope = Scope(scope);
                    let route = Route {
                        kind,
                        protocol,
                        scope,
                        src,
                        mtu,
                        advmss,
                        nexthops,
                        other_attributes: false,
                    };
                    (
                        RouteKey {
                            table,
                            to,
                            tos,
                            metric,
                        },
                        route,
                    )
                },
            )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn tunnels(tunnel in tunnel()) {
        let requests = link::create("tun9".parse().unwrap(), None, &tunnel, &indices()).unwrap();
        let messages: Vec<_> = requests.iter().map(|request| payload(&request.message)).collect();
        let mut read = messages.iter().map(|bytes| link::decode(bytes).unwrap());
        let created = read.next().unwrap();
        prop_assert_eq!(created.name.to_string(), "tun9");
        let mut found = created.tunnel.unwrap().named(|index| name_of(index).unwrap());
        prop_assert_eq!(found.state, AdminState::Down);
        for set in read {
            prop_assert_eq!(set.name, created.name);
            if !set.device.alias.is_empty() {
                found.alias = set.device.alias;
            }
            if set.device.up {
                found.state = AdminState::Up;
            }
        }
        prop_assert_eq!(found, tunnel);
    }

    #[test]
    fn addresses((key, address) in any_address(), new: bool) {
        let index = indices()[&key.device];
        let bytes = payload(&address::put(&key, &address, index, new, false).message);
        let read = address::decode(&bytes, name_of).unwrap().unwrap();
        prop_assert_eq!((read.key, read.address), (key, address));
    }

    #[test]
    fn routes((key, route) in any_route(), new: bool) {
        let bytes = payload(&route::put(&key, &route, &indices(), new).unwrap().message);
        let family = if key.to.addr().is_ipv4() { Family::V4 } else { Family::V6 };
        prop_assert_eq!(route::decode(&bytes, family, name_of).unwrap(), Some((key, route)));
    }

    /// A message that was cut or spoilt is an error or another object, never a panic.
    #[test]
    fn garbage(bytes in vec(any::<u8>(), 0..200), (key, route) in any_route(), spoil in any::<(u16, u8)>(), cut: u16) {
        let mut spoilt = payload(&route::put(&key, &route, &indices(), true).unwrap().message);
        let position = usize::from(spoil.0) % spoilt.len();
        spoilt[position] ^= spoil.1;
        spoilt.truncate(usize::from(cut) % (spoilt.len() + 1));
        for bytes in [bytes, spoilt] {
            for family in [Family::V4, Family::V6] {
                let _ = route::decode(&bytes, family, name_of);
            }
            let _ = address::decode(&bytes, name_of);
            let _ = link::decode(&bytes);
        }
    }
}

/// There may be a million of them.
#[test]
fn reading_a_route_allocates_nothing() {
    let mut runner = TestRunner::deterministic();
    let name: InterfaceName = "tun1".parse().unwrap();
    for _ in 0..200 {
        let (key, route) = any_route().new_tree(&mut runner).unwrap().current();
        let bytes = payload(&route::put(&key, &route, &indices(), true).unwrap().message);
        let family = match key.to {
            IpNet::V4(_) => Family::V4,
            IpNet::V6(_) => Family::V6,
        };
        let found = measure(|| drop(route::decode(&bytes, family, |_| Some(name)).unwrap()));
        let several = route.nexthops.len() > 1;
        assert!(found.count_total == 0 || several, "{found:?}: {route:?}");
    }
}
