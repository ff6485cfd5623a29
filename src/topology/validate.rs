//! What a topology means, checked against the field's rules before a kernel sees it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::problem::{Path, Problem, Severity, Span};
use super::{Address, Effective, Mtu, NextHop, Route, Topology};
use crate::state::{AddressKey, AdminState, InterfaceName, MAIN_TABLE, RouteKey, RouteType, Ttl};

/// Devices that the kernel's tunnel modules make for themselves (`init_net` fallback devices).
const KERNEL_DEVICES: [&str; 10] = [
    "tunl0", "gre0", "gretap0", "erspan0", "sit0", "ip_vti0", "ip6tnl0", "ip6gre0", "ip6_vti0",
    "lo",
];

/// The least MTU with which a device has IPv6 (RFC 8200 section 5); the kernel takes IPv6 off a device below it.
const IPV6_MIN_MTU: u32 = 1280;

/// Checks a topology. `complete`: nothing of the file is missing from `topology`, so what it lacks, it lacks.
pub(super) fn validate(
    topology: &Topology,
    complete: bool,
    locate: impl Fn(&Path) -> Span,
) -> Vec<Problem> {
    let mut check = Check {
        topology,
        locate,
        problems: Vec::new(),
    };
    check.defaults();
    check.tunnels();
    check.addresses();
    check.routes();
    if complete {
        check.gateways();
        check.loops();
    }
    check.problems
}

struct Check<'a, L> {
    topology: &'a Topology,
    locate: L,
    problems: Vec<Problem>,
}

/// A route with the place where it's written, and the tunnel that it belongs to.
struct Written<'a> {
    route: &'a Route,
    tunnel: Option<InterfaceName>,
    path: Path,
}

impl<'a, L: Fn(&Path) -> Span> Check<'a, L> {
    fn error(&mut self, path: &Path, message: impl Into<String>) -> &mut Problem {
        self.report(path, Severity::Error, message.into())
    }

    fn warning(&mut self, path: &Path, message: impl Into<String>) -> &mut Problem {
        self.report(path, Severity::Warning, message.into())
    }

    fn report(&mut self, path: &Path, severity: Severity, message: String) -> &mut Problem {
        let span = (self.locate)(path);
        let index = self.problems.len();
        self.problems.push(Problem {
            severity,
            message: format!("{path}: {message}"),
            span,
            related: None,
            help: None,
        });
        &mut self.problems[index]
    }

    fn duplicate(&mut self, path: &Path, first: &Path, message: String) {
        let span = (self.locate)(first);
        self.error(path, message).related = Some((span, format!("`{first}` is the first")));
    }

    fn defaults(&mut self) {
        let path = Path::default().key("defaults");
        for (key, given) in [
            ("addresses", !self.topology.defaults.addresses.is_empty()),
            ("routes", !self.topology.defaults.routes.is_empty()),
        ] {
            if given {
                self.error(
                    &path.key(key),
                    format!("`{key}` can't be a default: every tunnel would get the same"),
                )
                .help = Some("give them to the tunnel that they belong to".into());
            }
        }
    }

    fn tunnels(&mut self) {
        let mut endpoints = BTreeMap::new();
        for (name, tunnel) in &self.topology.tunnels {
            let path = tunnel_path(name);
            let options = self.topology.tunnel(tunnel);
            if KERNEL_DEVICES
                .iter()
                .any(|device| name.as_bytes() == device.as_bytes())
            {
                self.error(
                    &path,
                    format!("{name} is the kernel's own device and can't be a tunnel of ours"),
                )
                .help = Some("choose another name, such as tun1".into());
            }
            self.ends(&path, &options);
            self.path_mtu_discovery(&path, &options);
            if options.get(|t| &t.device) == Some(*name) {
                self.error(
                    &path.key("device"),
                    "a tunnel can't be its own underlay device",
                );
            }
            let address = |field: fn(&super::Tunnel) -> &Option<super::Endpoint>| {
                options.get(field).and_then(|e| e.address())
            };
            let key = (
                address(|t| &t.local),
                address(|t| &t.remote),
                options.get(|t| &t.device),
            );
            if key == (None, None, None) {
                let message = "neither `local` nor `remote` nor `device`: the kernel's own tunl0 has these endpoints already";
                self.error(&path, message).help =
                    Some("set `local` for a multipoint tunnel".into());
            } else if let Some(first) = endpoints.insert(key, path.clone()) {
                self.duplicate(
                    &path,
                    &first,
                    "two tunnels with the same (local, remote, device): the kernel could not tell their packets apart"
                        .into(),
                );
            }
            if options.get(|t| &t.state) == Some(AdminState::Down) && !tunnel.routes.is_empty() {
                self.warning(
                    &path.key("routes"),
                    "the tunnel is down, so its routes are held back: the kernel refuses them",
                );
            }
            self.ipv6_in_ipip(&path, tunnel, &options);
        }
    }

    fn ends(&mut self, path: &Path, options: &Effective) {
        let local = options.get(|t| &t.local).and_then(|end| end.address());
        let remote = options.get(|t| &t.remote).and_then(|end| end.address());
        for (key, end) in [("local", local), ("remote", remote)] {
            let Some(kind) = end.and_then(unusable) else {
                continue;
            };
            self.error(
                &path.key(key),
                format!(
                    "{} is {kind} address: a tunnel's end is one host",
                    end.unwrap_or(Ipv4Addr::UNSPECIFIED)
                ),
            );
        }
        if let (Some(local), Some(remote)) = (local, remote)
            && local == remote
        {
            self.error(
                &path.key("remote"),
                format!(
                    "`local` and `remote` are both {local}: the tunnel would end where it starts"
                ),
            );
        }
    }

    fn path_mtu_discovery(&mut self, path: &Path, options: &Effective) {
        let fixed_ttl = options
            .get(|t| &t.ttl)
            .is_some_and(|ttl| ttl != Ttl::INHERIT);
        if fixed_ttl && options.get(|t| &t.pmtudisc) == Some(false) {
            self.error(
                &path.key("pmtudisc"),
                "`pmtudisc: false` with a fixed `ttl`: the kernel would turn path MTU discovery on again",
            )
            .help = Some("set `ttl: inherit`, or leave `pmtudisc` out".into());
        }
    }

    fn ipv6_in_ipip(&mut self, path: &Path, tunnel: &super::Tunnel, options: &Effective) {
        let mtu = options.get(|t| &t.mtu);
        for (index, address) in tunnel
            .addresses
            .iter()
            .enumerate()
            .filter(|(_, a)| a.address.net.addr().is_ipv6())
        {
            if let Some(Mtu::Bytes(mtu)) =
                mtu.filter(|&mtu| matches!(mtu, Mtu::Bytes(mtu) if mtu < IPV6_MIN_MTU))
            {
                self.error(
                    &path.key("addresses").index(index),
                    format!(
                        "IPv6 needs an MTU of {IPV6_MIN_MTU}: with {mtu} the kernel takes {} away",
                        address.address.net
                    ),
                );
            }
        }
        for (index, route) in tunnel
            .routes
            .iter()
            .enumerate()
            .filter(|(_, route)| is_ipv6(route))
        {
            self.warning(
                &path.key("routes").index(index),
                format!(
                    "an ipip tunnel carries IPv4 only: it drops every packet that takes {}",
                    route.prefix()
                ),
            );
        }
    }

    fn addresses(&mut self) {
        let mut seen: HashMap<AddressKey, Path> = HashMap::new();
        for (device, address, path) in self.written_addresses() {
            let local = address.address.net.addr();
            self.address(&path, address);
            let key = address.key(device);
            if let Some(first) = seen.insert(key, path.clone()) {
                self.duplicate(
                    &path,
                    &first,
                    format!("address {local} is twice on {device}"),
                );
            }
        }
        for device in self
            .topology
            .addresses
            .keys()
            .filter(|device| self.topology.tunnels.contains_key(device))
        {
            let path = Path::default().key("addresses").key(device);
            let message = format!("{device} is a tunnel of this topology");
            self.error(&path, message).help =
                Some(format!("move the list to `tunnels.{device}.addresses`"));
        }
    }

    fn written_addresses(&self) -> Vec<(InterfaceName, &'a Address, Path)> {
        let of_tunnels = self.topology.tunnels.iter().flat_map(|(name, tunnel)| {
            let path = tunnel_path(name).key("addresses");
            tunnel
                .addresses
                .iter()
                .enumerate()
                .map(move |(index, address)| (*name, &address.0, path.index(index)))
        });
        let of_devices = self.topology.addresses.iter().flat_map(|(name, list)| {
            let path = Path::default().key("addresses").key(name);
            list.iter()
                .enumerate()
                .map(move |(index, address)| (*name, &address.0, path.index(index)))
        });
        of_tunnels.chain(of_devices).collect()
    }

    fn address(&mut self, path: &Path, address: &Address) {
        let net = address.address.net;
        if let Some(kind) = never_an_address(net.addr()) {
            self.error(
                path,
                format!("{} is {kind} address: no interface can have it", net.addr()),
            );
        }
        match (net, address.peer) {
            (IpNet::V4(net), None) if net.prefix_len() < 31 && net.addr() == net.network() => {
                self.error(path, format!("{net} is the network's own address"))
                    .help = Some(format!(
                    "give a host's, such as {}/{}",
                    next(net.network()),
                    net.prefix_len()
                ));
            }
            (IpNet::V4(net), None) if net.prefix_len() < 31 && net.addr() == net.broadcast() => {
                self.error(path, format!("{net} is the network's broadcast address"));
            }
            (net, Some(peer)) if net.addr().is_ipv4() != peer.net.addr().is_ipv4() => {
                self.error(
                    path,
                    format!(
                        "{} and its peer {} are of two families",
                        net.addr(),
                        peer.net.addr()
                    ),
                );
            }
            (net, Some(peer))
                if address.address.explicit
                    && peer.explicit
                    && net.prefix_len() != peer.net.prefix_len() =>
            {
                self.error(
                    path,
                    format!(
                        "the prefix length is given twice: {net} and peer {}",
                        peer.net
                    ),
                )
                .help = Some("the peer's is the one that counts: leave the other out".into());
            }
            _ => {}
        }
        if net.addr().is_ipv6() {
            for (key, given) in [
                ("scope", address.scope.is_some()),
                ("label", address.label.is_some()),
            ] {
                if given {
                    self.error(
                        &path.key(key),
                        format!("an IPv6 address has no {key} of its own choice"),
                    );
                }
            }
        }
    }

    fn written_routes(&self) -> Vec<Written<'a>> {
        let of_tunnels = self.topology.tunnels.iter().flat_map(|(name, tunnel)| {
            let path = tunnel_path(name).key("routes");
            let written = move |(index, route): (usize, &'a super::Short<Route>)| Written {
                route: &route.0,
                tunnel: Some(*name),
                path: path.index(index),
            };
            tunnel.routes.iter().enumerate().map(written)
        });
        let path = Path::default().key("routes");
        let others = self
            .topology
            .routes
            .iter()
            .enumerate()
            .map(move |(index, route)| Written {
                route: &route.0,
                tunnel: None,
                path: path.index(index),
            });
        of_tunnels.chain(others).collect()
    }

    fn routes(&mut self) {
        let mut seen: HashMap<RouteKey, Path> = HashMap::new();
        for Written {
            route,
            tunnel,
            path,
        } in self.written_routes()
        {
            self.route(&path, route, tunnel);
            let key = route.key();
            if let Some(first) = seen.insert(key, path.clone()) {
                let message =
                    format!("route {key} is given twice (same table, prefix, tos and metric)");
                self.duplicate(&path, &first, message);
            }
        }
    }

    fn route(&mut self, path: &Path, route: &Route, tunnel: Option<InterfaceName>) {
        let hops = route.hops();
        let inline = route.via.is_some() || route.device.is_some();
        if inline && !route.nexthops.is_empty() {
            self.error(
                &path.key("nexthops"),
                "`nexthops` stands instead of `via` and `device`, not beside them",
            );
        }
        if route.kind != RouteType::Unicast {
            if tunnel.is_some() {
                self.error(
                    &path.key("type"),
                    format!(
                        "a {} route goes nowhere, so not through a tunnel",
                        route.kind
                    ),
                )
                .help = Some("move it to the top-level `routes`".into());
            } else if inline || !route.nexthops.is_empty() {
                self.error(
                    &path.key("type"),
                    format!(
                        "a {} route has no `via`, `device` or `nexthops`",
                        route.kind
                    ),
                );
            }
            if route.mtu.is_some() || route.advmss.is_some() {
                self.error(
                    &path.key("type"),
                    format!("a {} route has no `mtu` or `advmss`", route.kind),
                );
            }
        } else if tunnel.is_none() && hops.is_empty() {
            self.error(path, format!("route {} leads nowhere", route.prefix()))
                .help =
                Some("give `via`, `device` or `nexthops`, or a `type` such as blackhole".into());
        }
        if let Some(tunnel) = tunnel {
            if route.device.is_some_and(|device| device != tunnel) || !route.nexthops.is_empty() {
                self.error(
                    path,
                    format!("a route in {tunnel}'s list goes through {tunnel}"),
                )
                .help = Some("move it to the top-level `routes`".into());
            }
        } else if route.onlink && route.via.is_none() {
            self.error(
                &path.key("onlink"),
                "`onlink` is about a gateway: `via` is missing",
            );
        }
        self.route_numbers(path, route);
        self.route_families(path, route, &hops);
    }

    fn route_numbers(&mut self, path: &Path, route: &Route) {
        let (least, prefix) = if is_ipv6(route) {
            (IPV6_MIN_MTU, "an IPv6")
        } else {
            (68, "an IPv4")
        };
        if let Some(mtu) = route.mtu.filter(|mtu| !(least..=65535).contains(mtu)) {
            self.error(
                &path.key("mtu"),
                format!("{prefix} route's `mtu` is {least} to 65535 bytes, found {mtu}"),
            );
        }
        if let Some(advmss) = route
            .advmss
            .filter(|advmss| !(1..=65535 - 40).contains(advmss))
        {
            self.error(
                &path.key("advmss"),
                format!("`advmss` is 1 to 65495 bytes, found {advmss}"),
            );
        }
        for (index, hop) in route.nexthops.iter().enumerate() {
            if let Some(weight) = hop.weight.filter(|weight| !(1..=256).contains(weight)) {
                let path = path.key("nexthops").index(index).key("weight");
                self.error(&path, format!("`weight` is 1 to 256, found {weight}"));
            }
        }
    }

    fn route_families(&mut self, path: &Path, route: &Route, hops: &[NextHop]) {
        let ipv6 = is_ipv6(route);
        let vias = hops.iter().filter_map(|hop| hop.via).chain(route.src);
        if let Some(other) = vias.map(|ip| ip.0).find(|ip| ip.is_ipv6() != ipv6) {
            self.error(
                path,
                format!("{} and {other} are of two families", route.prefix()),
            );
        }
        for (index, hop) in hops.iter().enumerate() {
            let Some(kind) = hop.via.and_then(|via| never_an_address(via.0)) else {
                continue;
            };
            let place = if route.nexthops.is_empty() {
                path.clone()
            } else {
                path.key("nexthops").index(index)
            };
            self.error(
                &place.key("via"),
                format!("a gateway can't be {kind} address"),
            );
        }
        if ipv6 {
            for (key, given) in [("scope", route.scope.is_some()), ("tos", route.tos.0 != 0)] {
                if given {
                    self.error(&path.key(key), format!("IPv6 routes have no `{key}`"));
                }
            }
        }
    }

    /// A gateway that no prefix of its device reaches. Only a device whose addresses this file gives can be judged.
    fn gateways(&mut self) {
        let on_link = OnLink::new(self);
        for Written {
            route,
            tunnel,
            path,
        } in self.written_routes()
        {
            for (index, hop) in route.hops().iter().enumerate() {
                let Some(via) = hop.via.filter(|_| !hop.onlink).map(|via| via.0) else {
                    continue;
                };
                let place = if route.nexthops.is_empty() {
                    path.clone()
                } else {
                    path.key("nexthops").index(index)
                };
                let place = place.key("via");
                let Some(device) = tunnel.or(hop.device) else {
                    if on_link.device_of(via).is_none() {
                        self.warning(&place, format!("no prefix in this file holds the gateway {via}")).help = Some(
                            "name the `device`, so that the route doesn't depend on what else the host has".into(),
                        );
                    }
                    continue;
                };
                if self.topology.tunnels.contains_key(&device) && !on_link.reaches(device, via) {
                    self.error(
                        &place,
                        format!("no prefix of {device} holds the gateway {via}: the kernel would refuse it"),
                    )
                    .help = Some("add `onlink: true`, or give the tunnel an address in the gateway's network".into());
                }
            }
        }
    }

    /// Tunnels whose outer packets would go into a tunnel again, and round and round.
    fn loops(&mut self) {
        let outer: BTreeMap<InterfaceName, (InterfaceName, IpNet)> = self
            .topology
            .tunnels
            .iter()
            .filter_map(|(name, tunnel)| {
                Some((*name, self.outer_route(&self.topology.tunnel(tunnel))?))
            })
            .collect();
        for (name, (next, net)) in &outer {
            let mut through = vec![*next];
            while let Some((next, _)) = through
                .last()
                .and_then(|last| outer.get(last))
                .filter(|_| through.last() != Some(name))
            {
                if through.contains(next) {
                    break;
                }
                through.push(*next);
            }
            if through.last() != Some(name) {
                continue;
            }
            let way = match through.as_slice() {
                [_] => "the tunnel itself".to_owned(),
                [others @ .., _] => others
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
                [] => continue,
            };
            let message =
                format!("the way to `remote` is {net} through {way}: outer packets would loop");
            self.error(&tunnel_path(name).key("remote"), message).help = Some(
                "add a route to the remote by way of the underlay (`{to: REMOTE/32, via: …, device: eth0}`), or set the tunnel's `device`"
                    .into(),
            );
        }
    }

    /// The route of this file that a tunnel's outer packets take, if it leads into a tunnel of this file.
    fn outer_route(&self, options: &Effective) -> Option<(InterfaceName, IpNet)> {
        // A tunnel bound to a device, or with a mark for policy routing, doesn't follow the main table alone.
        if options.get(|t| &t.device).is_some() || options.get(|t| &t.fwmark).unwrap_or(0) != 0 {
            return None;
        }
        let remote = IpAddr::V4(options.get(|t| &t.remote)?.address()?);
        let connected = self
            .written_addresses()
            .into_iter()
            .filter(|(_, address, _)| !address.noprefixroute)
            .filter_map(|(device, address, _)| {
                Some((address.network()?, address.metric, Some(device)))
            });
        let routes = self
            .written_routes()
            .into_iter()
            .filter(|written| written.route.key().table == MAIN_TABLE)
            .map(|written| {
                let route = written.route;
                (
                    route.prefix(),
                    route.metric,
                    written
                        .tunnel
                        .or_else(|| route.hops().first().and_then(|hop| hop.device)),
                )
            });
        let (net, _, device) = connected
            .chain(routes)
            .filter(|(net, ..)| net.contains(&remote))
            .max_by_key(|(net, metric, _)| (net.prefix_len(), std::cmp::Reverse(*metric)))?;
        let device = device.filter(|device| self.topology.tunnels.contains_key(device))?;
        Some((device, net))
    }
}

/// What this file makes reachable without a gateway.
struct OnLink(Vec<(InterfaceName, IpNet)>);

impl OnLink {
    fn new<L: Fn(&Path) -> Span>(check: &Check<L>) -> Self {
        let addresses = check
            .written_addresses()
            .into_iter()
            .filter_map(|(device, address, _)| Some((device, address.network()?)));
        let routes = check.written_routes().into_iter().flat_map(|written| {
            let prefix = written.route.prefix();
            let direct: Vec<_> = match (written.tunnel, written.route.via) {
                (Some(tunnel), None) => vec![(tunnel, prefix)],
                (Some(_), Some(_)) => Vec::new(),
                (None, _) => written
                    .route
                    .hops()
                    .iter()
                    .filter(|hop| hop.via.is_none())
                    .filter_map(|hop| Some((hop.device?, prefix)))
                    .collect(),
            };
            direct
        });
        Self(addresses.chain(routes).collect())
    }

    fn reaches(&self, device: InterfaceName, gateway: IpAddr) -> bool {
        // Every IPv6 device reaches its link-local neighbours.
        let link_local = matches!(gateway, IpAddr::V6(ip) if ip.is_unicast_link_local());
        link_local
            || self
                .0
                .iter()
                .any(|(on, net)| *on == device && net.contains(&gateway))
    }

    fn device_of(&self, gateway: IpAddr) -> Option<InterfaceName> {
        self.0
            .iter()
            .find(|(_, net)| net.contains(&gateway))
            .map(|(device, _)| *device)
    }
}

fn tunnel_path(name: &InterfaceName) -> Path {
    Path::default().key("tunnels").key(name)
}

fn is_ipv6(route: &Route) -> bool {
    matches!(route.prefix(), IpNet::V6(_))
}

fn next(address: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(address).wrapping_add(1))
}

/// What keeps an address from being the end of a tunnel.
fn unusable(address: Ipv4Addr) -> Option<&'static str> {
    never_an_address(IpAddr::V4(address)).or_else(|| address.is_loopback().then_some("a loopback"))
}

/// What keeps an address from being on any interface.
fn never_an_address(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_multicast() => Some("a multicast"),
        _ if address.is_unspecified() => Some("the unspecified"),
        IpAddr::V4(address) if address.is_broadcast() => Some("the broadcast"),
        _ => None,
    }
}
