//! What the addresses and routes of a file mean together: gateways that no prefix reaches, tunnels whose outer packets
//! would go round in circles.
//!
//! The host has routes that the file doesn't know. So a gateway is judged only on a tunnel, which has nothing but what
//! the file gives it, and a loop is what the file's own routes make.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::routes::Written;
use super::{Check, ends, looks_like};
use crate::source::{Path, Segment};
use crate::state::{InterfaceName, Lengths, MAIN_TABLE};
use crate::topology::scalar::prefix;
use crate::topology::{Address, NextHop, Tunnel};

impl<'a> Check<'a> {
    pub(super) fn reach(&mut self) {
        let on_link = OnLink::new(self);
        self.gateways(&on_link);
        self.loops(&on_link);
    }

    fn gateways(&mut self, on_link: &OnLink) {
        for written in self.written_routes() {
            for (index, hop) in written.route.hops().iter().enumerate() {
                if let Some(via) = hop.via.filter(|_| !hop.onlink) {
                    self.gateway(&written, index, hop, via.0, on_link);
                }
            }
        }
    }

    fn gateway(
        &mut self,
        written: &Written,
        index: usize,
        hop: &NextHop,
        via: IpAddr,
        on_link: &OnLink,
    ) {
        let link_local = matches!(via, IpAddr::V6(ip) if ip.is_unicast_link_local());
        match written.device(hop) {
            // Every IPv6 device reaches its link-local neighbours.
            _ if link_local || self.may_be_reached(via) => {}
            Some(device)
                if !self.topology.tunnels.contains_key(&device) || on_link.reaches(device, via) => {
            }
            Some(device) => {
                let message = format!(
                    "no prefix of {device} holds the gateway {via}: the kernel would refuse it"
                );
                let help =
                    "add `onlink: true`, or give the tunnel an address in the gateway's network";
                self.error(&written.hop(index, "via"), message).help = Some(help.into());
            }
            None if on_link.device_of(via).is_some() => {}
            None => {
                let message = format!("no prefix in this file holds the gateway {via}");
                let help =
                    "name the `device`, so that the route doesn't depend on what else the host has";
                self.warning(&written.hop(index, "via"), message).help = Some(help.into());
            }
        }
    }

    /// Whether something that couldn't be read may be the way to `ip`.
    fn may_be_reached(&self, ip: IpAddr) -> bool {
        self.lacks(|path, written| match path {
            [.., Segment::Index(_)] => self.may_hold(written, ip),
            [Segment::Key(top), _, Segment::Key(key)] if top == "tunnels" => {
                looks_like(key, &["addresses", "routes"])
            }
            // One option, one name.
            [Segment::Key(top), _] if top == "tunnels" || top == "defaults" => false,
            [Segment::Key(top)] => !["version", "name", "route_protocol"].contains(&top.as_str()),
            _ => true,
        })
    }

    /// Whether the network of an unread address or route may hold `ip`.
    fn may_hold(&self, path: &Path, ip: IpAddr) -> bool {
        let words = ["", "to", "address", "peer"].into_iter().filter_map(|key| {
            let path = match key {
                "" => path.clone(),
                key => path.key(key),
            };
            self.root.find(&path)?.text()
        });
        let networks: Vec<Option<IpNet>> = words.map(prefix).collect();
        networks.is_empty()
            || networks
                .iter()
                .any(|net| net.is_none_or(|net| net.contains(&ip)))
    }

    /// Tunnels whose outer packets would go into a tunnel again, and round and round.
    fn loops(&mut self, on_link: &OnLink) {
        let tunnels = self.topology.tunnels.values();
        let remotes = tunnels.filter_map(|tunnel| ends(&self.topology.tunnel(tunnel)).1);
        let ways = Ways::new(self, on_link, &Asked::new(remotes.map(IpAddr::V4)));
        let outer: BTreeMap<InterfaceName, Outer> = self
            .topology
            .tunnels
            .iter()
            .filter_map(|(name, tunnel)| Some((*name, self.outer(*name, tunnel, &ways)?)))
            .collect();
        for (name, way) in &outer {
            let Some(through) = circle(*name, &outer) else {
                continue;
            };
            let remote = way.remote;
            let route = match way.route {
                None => "`device`".to_owned(),
                Some(net) if net.prefix_len() == 0 => "the default route".to_owned(),
                Some(net) => net.to_string(),
            };
            let through = match through.as_slice() {
                [] => "this tunnel itself".to_owned(),
                others => {
                    let names: Vec<String> = others.iter().map(ToString::to_string).collect();
                    format!("{} and this tunnel again", names.join(", "))
                }
            };
            let message = format!(
                "the way to {remote} is {route}, through {through}: outer packets would go round in circles"
            );
            let help = format!(
                "route {remote}/32 by way of the underlay (`{{to: {remote}/32, via: …, device: eth0}}` in the top-level `routes`), or set this tunnel's `device` to the underlay's"
            );
            let path = self.option(*name, "remote");
            self.error(&path, message).help = Some(help);
        }
    }

    /// Which tunnels of this file a tunnel's outer packets go through next.
    fn outer(&self, name: InterfaceName, tunnel: &Tunnel, ways: &Ways) -> Option<Outer> {
        let options = self.topology.tunnel(tunnel);
        if self.is_down(name) || !self.knows(name, &["remote", "device", "fwmark", "state"]) {
            return None;
        }
        let (_, remote) = ends(&options);
        let remote = remote.filter(|remote| !self.may_be_reached((*remote).into()))?;
        match options.get(|t| &t.device) {
            // That has a rule of its own.
            Some(device) if device == name => None,
            Some(device) => Some(Outer {
                remote,
                route: None,
                through: vec![device],
            }),
            // A mark is there for policy routing, which looks into other tables than this one.
            None if options.get(|t| &t.fwmark).unwrap_or(0) != 0 => None,
            None => {
                let (route, way) = ways.to(remote.into())?;
                Some(Outer {
                    remote,
                    route: Some(route),
                    through: way.devices.clone(),
                })
            }
        }
    }
}

/// The first leg of a tunnel's outer packets.
struct Outer {
    remote: Ipv4Addr,
    /// The route that they take; `None`: the tunnel is bound to the device.
    route: Option<IpNet>,
    through: Vec<InterfaceName>,
}

/// Tunnels in tunnels beyond which no circle is looked for: the kernel drops packets at the eighth (`XMIT_RECURSION_LIMIT`).
const DEEPEST: usize = 32;

/// The tunnels that lead from `start` back to it, the shortest way; itself not among them.
fn circle(
    start: InterfaceName,
    outer: &BTreeMap<InterfaceName, Outer>,
) -> Option<Vec<InterfaceName>> {
    let mut seen = BTreeSet::new();
    let mut trails = vec![(start, Vec::new())];
    for _ in 0..DEEPEST {
        let mut longer = Vec::new();
        for (last, trail) in trails {
            for next in outer.get(&last).map_or(&[][..], |way| &way.through) {
                if *next == start {
                    return Some(trail);
                }
                if seen.insert(*next) {
                    longer.push((*next, trail.iter().copied().chain([*next]).collect()));
                }
            }
        }
        trails = longer;
    }
    None
}

/// The addresses to which ways are asked for. A file may have a million networks that hold none of them.
struct Asked(Vec<IpAddr>);

impl Asked {
    fn new(addresses: impl Iterator<Item = IpAddr>) -> Self {
        let mut sorted: Vec<IpAddr> = Vec::new();
        for address in addresses {
            if sorted.last() != Some(&address) {
                sorted.push(address);
            }
        }
        sorted.sort_unstable();
        sorted.dedup();
        Self(sorted)
    }

    fn has_one_in(&self, net: IpNet) -> bool {
        let first = self.0.partition_point(|address| *address < net.network());
        let first = self.0.get(first);
        first.is_some_and(|address| net.contains(address))
    }
}

/// What this file makes reachable without a gateway.
struct OnLink {
    lengths: Lengths,
    by_device: HashSet<(InterfaceName, IpNet)>,
    devices: HashMap<IpNet, InterfaceName>,
    /// Gateways by whose networks something is judged, or gets its device.
    gateways: Asked,
}

impl OnLink {
    fn new(check: &Check) -> Self {
        let tunnels = &check.topology.tunnels;
        let gateways = check.written_routes().flat_map(|written| {
            let hops = written.route.hops();
            let asking = hops.iter().filter(|hop| match written.device(hop) {
                Some(device) => !hop.onlink && tunnels.contains_key(&device),
                None => true,
            });
            // A list of none takes no memory, and most routes name their device.
            asking.filter_map(|hop| hop.via).collect::<Vec<_>>()
        });
        let mut on_link = Self {
            gateways: Asked::new(gateways.map(|gateway| gateway.0)),
            lengths: Lengths::default(),
            by_device: HashSet::new(),
            devices: HashMap::new(),
        };
        for written in check.written_addresses() {
            if let Some(net) = prefix_route(written.address) {
                on_link.add(written.device, net);
            }
        }
        for written in check.written_routes() {
            let prefix = written.route.prefix();
            let hops = written.route.hops();
            let direct = hops.iter().filter(|hop| hop.via.is_none());
            let own = written.tunnel.filter(|_| hops.is_empty());
            for device in direct.filter_map(|hop| written.device(hop)).chain(own) {
                on_link.add(device, prefix);
            }
        }
        on_link
    }

    fn add(&mut self, device: InterfaceName, net: IpNet) {
        if !self.gateways.has_one_in(net) {
            return;
        }
        self.lengths.add(net);
        self.by_device.insert((device, net));
        self.devices.entry(net).or_insert(device);
    }

    fn reaches(&self, device: InterfaceName, gateway: IpAddr) -> bool {
        let mut networks = self.lengths.holding(gateway);
        networks.any(|net| self.by_device.contains(&(device, net)))
    }

    fn device_of(&self, gateway: IpAddr) -> Option<InterfaceName> {
        let mut networks = self.lengths.holding(gateway);
        networks.find_map(|net| self.devices.get(&net).copied())
    }
}

/// The way to a prefix that the main table prefers.
struct Way {
    metric: u32,
    devices: Vec<InterfaceName>,
}

/// The main table as this file makes it.
#[derive(Default)]
struct Ways {
    lengths: Lengths,
    ways: HashMap<IpNet, Way>,
    /// Those of this host's addresses that are asked for: the local table comes before the main one.
    own: HashSet<IpAddr>,
}

impl Ways {
    fn new(check: &Check, on_link: &OnLink, asked: &Asked) -> Self {
        let mut ways = Self::default();
        for written in check.written_addresses() {
            let own = written.address.address.net.addr();
            if asked.has_one_in(own.into()) {
                ways.own.insert(own);
            }
            let net = prefix_route(written.address).filter(|net| asked.has_one_in(*net));
            if let Some(net) = net.filter(|_| !check.is_down(written.device)) {
                ways.add(net, written.address.metric, vec![written.device]);
            }
        }
        for written in check.written_routes() {
            let key = written.route.key();
            let held_back = written.tunnel.is_some_and(|tunnel| check.is_down(tunnel));
            if key.table == MAIN_TABLE && key.tos == 0 && !held_back && asked.has_one_in(key.to) {
                ways.add(key.to, key.metric, devices(&written, on_link));
            }
        }
        ways
    }

    fn add(&mut self, net: IpNet, metric: u32, devices: Vec<InterfaceName>) {
        self.lengths.add(net);
        let way = Way { metric, devices };
        match self.ways.get(&net) {
            Some(known) if Reverse(known.metric) >= Reverse(metric) => {}
            _ => {
                self.ways.insert(net, way);
            }
        }
    }

    fn to(&self, ip: IpAddr) -> Option<(IpNet, &Way)> {
        if self.own.contains(&ip) {
            return None;
        }
        let mut networks = self.lengths.holding(ip);
        networks.find_map(|net| Some((net, self.ways.get(&net)?)))
    }
}

/// The devices that a route leaves by; a gateway's network tells it where the file doesn't.
fn devices(written: &Written, on_link: &OnLink) -> Vec<InterfaceName> {
    let hops = written.route.hops();
    let devices = hops.iter().filter_map(|hop| {
        let by_gateway = || on_link.device_of(hop.via?.0);
        written.device(hop).or_else(by_gateway)
    });
    let own = written.tunnel.filter(|_| hops.is_empty());
    devices.chain(own).collect()
}

/// The route that the kernel makes for an address: none for a host's own.
fn prefix_route(address: &Address) -> Option<IpNet> {
    let net = address.network()?;
    let alone = address.peer.is_none() && net.prefix_len() == net.max_prefix_len();
    Some(net).filter(|_| !address.noprefixroute && !alone)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::check;

    /// `tunnels.tun1` from 192.0.2.1 with more options, and more keys behind it.
    fn check_tunnel(cases: &[(&str, &str, &[&str])]) {
        for (options, more, expected) in cases {
            let source = format!("tunnels:\n  tun1: {{local: 192.0.2.1, {options}}}\n{more}");
            check(&[(&source, expected)]);
        }
    }

    #[test]
    fn gateways_are_on_a_tunnels_link() {
        check_tunnel(&[
            (
                "addresses: [10.1.0.1/24], routes: [{to: 10.2.0.0/16, via: »10.1.1.2}]",
                "",
                &["no prefix of tun1 holds the gateway 10.1.1.2"],
            ),
            (
                "addresses: [10.1.0.1/24], routes: [{to: 10.2.0.0/16, via: 10.1.0.2}]",
                "",
                &[],
            ),
            (
                "routes: [{to: 10.2.0.0/16, via: 198.51.100.1, onlink: true}]",
                "",
                &[],
            ),
            (
                "routes: [10.1.1.2, {to: 10.2.0.0/16, via: 10.1.1.2}]",
                "",
                &[],
            ),
            (
                "addresses: [{address: 10.1.0.1, peer: 10.1.1.2}], routes: [{to: 10.2.0.0/16, via: 10.1.1.2}]",
                "",
                &[],
            ),
            (
                "addresses: [{address: 10.1.0.1/24, noprefixroute: true}], routes: [{to: 10.2.0.0/16, via: »10.1.0.2}]",
                "",
                &["no prefix of tun1"],
            ),
            (
                "addresses: [10.1.0.1/32], routes: [{to: 10.2.0.0/16, via: »10.1.0.2}]",
                "addresses: {eth0: [10.1.0.9/24]}",
                &["no prefix of tun1"],
            ),
            (
                "addresses: [10.1.0.1/24]",
                "routes: [{to: 10.2.0.0/16, via: »10.9.0.2, device: tun1}]",
                &["no prefix of tun1"],
            ),
            (
                "addresses: [10.1.0.1/24]",
                "routes: [{to: 10.2.0.0/16, via: 10.1.0.2}]",
                &[],
            ),
            (
                "addresses: [10.1.0.1/24]",
                "routes: [{to: 10.2.0.0/16, nexthops: [{via: 10.1.0.2}, {via: »10.9.0.2, device: tun1}]}]",
                &["nexthops[1].via: no prefix"],
            ),
            (
                "ttl: 64",
                "routes: [{to: 10.2.0.0/16, via: »10.9.0.2}]",
                &["warning: no prefix in this file holds the gateway"],
            ),
            // What eth0 has besides, nobody knows here.
            (
                "ttl: 64",
                "routes: [{to: 10.2.0.0/16, via: 10.9.0.2, device: eth0}]",
                &[],
            ),
            (
                "ttl: 64",
                "routes: [{to: 10.2.0.0/16, via: 169.254.0.1, device: eth0, table: 100}]",
                &[],
            ),
        ]);
    }

    #[test]
    fn a_tunnel_does_not_carry_itself() {
        check_tunnel(&[
            (
                "remote: »198.51.100.1, routes: [198.51.100.0/24]",
                "",
                &["is 198.51.100.0/24, through this tunnel itself"],
            ),
            (
                "remote: »198.51.100.1, routes: [default]",
                "",
                &["is the default route, through this tunnel itself"],
            ),
            (
                "remote: »198.51.100.1, addresses: [198.51.100.9/24]",
                "",
                &["through this tunnel itself"],
            ),
            (
                "remote: »198.51.100.1, addresses: [{address: 10.0.0.1, peer: 198.51.100.1}]",
                "",
                &["through this tunnel itself"],
            ),
            (
                "remote: »198.51.100.1",
                "routes: [{to: default, device: tun1}]",
                &["through this tunnel itself"],
            ),
            (
                "remote: »198.51.100.1, addresses: [10.0.0.1/24]",
                "routes: [{to: default, via: 10.0.0.2}]",
                &["through this tunnel itself"],
            ),
            (
                "remote: »198.51.100.1",
                "routes: [{to: default, nexthops: [{via: 192.0.2.9, device: eth0}, {device: tun1}]}]",
                &["through this tunnel itself"],
            ),
            // The route that wins leads elsewhere.
            (
                "remote: 198.51.100.1, routes: [default]",
                "routes: [{to: 198.51.100.1, via: 192.0.2.9, device: eth0}]",
                &[],
            ),
            (
                "remote: 198.51.100.1, routes: [default]",
                "addresses: {eth0: [198.51.100.9/24]}",
                &[],
            ),
            (
                "remote: 198.51.100.1, routes: [{to: 198.51.100.0/24, metric: 100}]",
                "routes: [{to: 198.51.100.0/24, via: 192.0.2.9, device: eth0, metric: 50}]",
                &[],
            ),
            (
                "remote: »198.51.100.1, routes: [{to: 198.51.100.0/24, metric: 50}]",
                "routes: [{to: 198.51.100.0/24, via: 192.0.2.9, device: eth0, metric: 100}]",
                &["through this tunnel itself"],
            ),
            (
                "remote: 198.51.100.1, routes: [default]",
                "routes: [{to: 198.51.100.0/24, type: blackhole}]",
                &[],
            ),
            // Outer packets don't look where these stand.
            (
                "remote: 198.51.100.1, routes: [{to: default, table: 100}]",
                "",
                &[],
            ),
            (
                "remote: 198.51.100.1, routes: [{to: default, tos: 16}]",
                "",
                &[],
            ),
            (
                "remote: 198.51.100.1, device: eth0, routes: [default]",
                "",
                &[],
            ),
            (
                "remote: 198.51.100.1, fwmark: 7, routes: [default]",
                "",
                &[],
            ),
            ("routes: [default]", "", &[]),
            (
                "remote: 198.51.100.1, addresses: [198.51.100.1/32]",
                "",
                &[],
            ),
            (
                "remote: 198.51.100.1, addresses: [{address: 198.51.100.9/24, noprefixroute: true}]",
                "",
                &[],
            ),
            (
                "remote: 198.51.100.1, state: down, »routes: [default]",
                "",
                &["warning: held back"],
            ),
        ]);
    }

    #[test]
    fn tunnels_nest_but_not_in_circles() {
        check_tunnel(&[
            // tun2 inside tun1; with everything through tun2, also tun1's own outer packets.
            (
                "remote: »198.51.100.1, addresses: [10.0.0.1/24]",
                "  tun2: {remote: »10.0.0.2, routes: [default]}",
                &[
                    "is the default route, through tun2 and this",
                    "is 10.0.0.0/24, through tun1 and this",
                ],
            ),
            (
                "remote: 198.51.100.1, addresses: [10.0.0.1/24]",
                "  tun2: {remote: 10.0.0.2, addresses: [10.1.0.1/24]}",
                &[],
            ),
            (
                "remote: »10.1.0.2, addresses: [10.0.0.1/24]",
                "  tun2: {remote: »10.0.0.2, addresses: [10.1.0.1/24]}",
                &[
                    "the way to 10.1.0.2 is 10.1.0.0/24, through tun2 and this tunnel again",
                    "the way to 10.0.0.2 is 10.0.0.0/24, through tun1 and this tunnel again",
                ],
            ),
            (
                "remote: »10.1.0.2, addresses: [10.0.0.1/24]",
                "  tun2: {remote: »10.2.0.2, addresses: [10.1.0.1/24]}\n  tun3: {remote: »10.0.0.2, addresses: [10.2.0.1/24]}",
                &[
                    "through tun2, tun3 and",
                    "through tun3, tun1 and",
                    "through tun1, tun2 and",
                ],
            ),
            (
                "remote: »198.51.100.1, device: tun2",
                "  tun2: {remote: »198.51.100.2, routes: [10.0.0.0/8]}\nroutes: [{to: 198.51.100.0/24, device: tun1}]",
                &[
                    "is `device`, through tun2",
                    "is 198.51.100.0/24, through tun1",
                ],
            ),
        ]);
    }
}
