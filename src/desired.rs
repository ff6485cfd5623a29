//! From a topology to the desired state: every default filled in, with the facts of one host.

mod mtu;
mod withdraw;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::state::{
    Address, AddressKey, AdminState, Ascending, Desired, InterfaceName, Ipip, Kind, Lengths,
    MAIN_TABLE, Mode, NextHop, NextHops, Observed, Route, RouteKey, RouteType, Scope, State,
    Tunnel, Unmet, prefixes, sorted_map,
};
use crate::topology::{
    self, Effective, Endpoint, Hops, Host, Mtu, PeerRoute, Topology, TunnelKind,
};

/// How many parts the routes are made in, and how many a part has at least: appending one passes over those
/// that are there.
const PARTS: usize = 8;
const LEAST_PART: usize = 1024;

/// The addresses whose way through the underlay [`desired`] wants to know: remotes that `mtu: auto` depends on, and
/// gateways without a device.
pub fn lookups(host: &Host) -> BTreeSet<IpAddr> {
    let topology = &host.topology;
    let remotes = topology.tunnels.values().filter_map(|tunnel| {
        let options = topology.tunnel(tunnel);
        let automatic = matches!(options.get(|t| &t.mtu), None | Some(Mtu::Auto))
            && options.get(|t| &t.device).is_none();
        options
            .get(|t| &t.remote)
            .filter(|_| automatic)?
            .address()
            .map(IpAddr::V4)
    });
    remotes.chain(gateways(topology)).collect()
}

/// The gateways without a device.
fn gateways(topology: &Topology) -> impl Iterator<Item = IpAddr> {
    let gateways = topology.routes.iter().flat_map(|route| {
        let own = route.via.filter(|_| route.device.is_none());
        let listed = route.nexthops.iter().filter(|hop| hop.device.is_none());
        own.into_iter().chain(listed.filter_map(|hop| hop.via))
    });
    gateways.map(|gateway| gateway.0)
}

/// What a host of the topology wants, with the facts of the one that was observed.
pub fn desired(host: &Host, observed: &Observed) -> Desired {
    let topology = &host.topology;
    let mut build = Build {
        topology,
        observed,
        underlay: BTreeMap::new(),
        networks: BTreeMap::new(),
        firsts: BTreeMap::new(),
        unmet: BTreeMap::new(),
        lengths: Lengths::default(),
    };
    let mut state = State {
        addresses: build.addresses(),
        ..State::default()
    };
    let asks_networks = gateways(topology).next().is_some();
    // What the topology says of a network comes last, and so wins.
    for addresses in [&observed.state.addresses, &state.addresses] {
        build.note_networks(addresses, asks_networks);
    }
    build.look_up_locals();
    build.peers(host, &mut state);
    build.routes(&mut state);
    build.withdraw(host, &mut state);
    let main = state.routes.keys().filter(|key| key.table == MAIN_TABLE);
    build.lengths = Lengths::of(main.map(|key| key.to));
    build.tunnels(&mut state);
    Desired {
        too_large: build.too_large(&state),
        state,
        unmet: build.unmet,
    }
}

struct Build<'a> {
    topology: &'a Topology,
    observed: &'a Observed,
    /// The host's addresses with their devices and networks, but for tunnels: an unnumbered one borrows the underlay's.
    underlay: BTreeMap<IpAddr, Vec<(InterfaceName, Option<IpNet>)>>,
    /// The networks of the host's and the topology's addresses, with their devices, where a gateway has none.
    networks: BTreeMap<IpNet, InterfaceName>,
    /// The first addresses of devices, where a tunnel's `local` is one.
    firsts: BTreeMap<InterfaceName, Option<Ipv4Addr>>,
    /// Tunnels whose `local` is a device without an address.
    unmet: BTreeMap<InterfaceName, Unmet>,
    /// Those of the routes in the main table.
    lengths: Lengths,
}

impl Build<'_> {
    fn protocol(&self) -> u8 {
        self.topology.route_protocol.0
    }

    /// What leads to addresses and gateways later; `asked`: whether a gateway needs the device of its network.
    fn note_networks(&mut self, addresses: &BTreeMap<AddressKey, Address>, asked: bool) {
        let mut there = Ascending::new(&self.observed.state.tunnels);
        let mut own = Ascending::new(&self.topology.tunnels);
        for (key, address) in addresses {
            let network = address.network(key);
            if asked {
                self.networks
                    .extend(network.map(|network| (network, key.device)));
            }
            let (there, own) = (there.get(&key.device), own.get(&key.device));
            if there.is_none() && own.is_none() {
                let place = (key.device, network);
                self.underlay.entry(key.local).or_default().push(place);
            }
        }
    }

    /// Once for each device that a `local` names.
    fn look_up_locals(&mut self) {
        for (&tunnel, own) in &self.topology.tunnels {
            if let Some(Endpoint::Device(device)) = self.topology.tunnel(own).get(|t| &t.local) {
                let first = self.firsts.entry(device);
                let first = first.or_insert_with(|| first_address(self.observed, device));
                if first.is_none() {
                    self.unmet.insert(tunnel, Unmet { tunnel, device });
                }
            }
        }
    }

    /// After the routes, which `mtu: auto` follows. A tunnel comes after the one that it is bound to, whose MTU it needs.
    fn tunnels(&self, state: &mut State) {
        let tunnels = self.topology.tunnels.iter();
        let mut waiting: Vec<_> = tunnels.map(|(name, own)| (*name, own)).collect();
        while !waiting.is_empty() {
            let is_ready = |own| {
                let device = self.topology.tunnel(own).get(|t| &t.device);
                device.is_none_or(|device| {
                    !self.topology.tunnels.contains_key(&device)
                        || state.tunnels.contains_key(&device)
                })
            };
            let (mut ready, mut rest): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|(_, own)| is_ready(own));
            if ready.is_empty() {
                // Bound to one another in a circle, which validation refuses.
                ready.append(&mut rest);
            }
            let made = ready
                .into_iter()
                .map(|(name, own)| (name, self.tunnel(name, own, state)));
            state.tunnels.append(&mut sorted_map(made.collect()));
            waiting = rest;
        }
    }

    fn tunnel(&self, name: InterfaceName, own: &topology::Tunnel, state: &State) -> Tunnel {
        self.as_it_is(name)
            .unwrap_or_else(|| self.wanted(name, &self.topology.tunnel(own), state))
    }

    /// A tunnel of ours that lacks a fact. What rests on it, such as the MTU of one that is bound to it, stays too.
    fn as_it_is(&self, name: InterfaceName) -> Option<Tunnel> {
        self.unmet.get(&name)?;
        let found = self.observed.state.tunnels.get(&name)?;
        (found.alias == self.topology.name.alias()).then(|| found.clone())
    }

    fn wanted(&self, name: InterfaceName, options: &Effective, state: &State) -> Tunnel {
        let mtu = match options.get(|t| &t.mtu) {
            Some(Mtu::Bytes(bytes)) => bytes,
            Some(Mtu::Auto) | None => self.automatic_mtu(name, options, state),
        };
        let kind = match options.get(|t| &t.kind).unwrap_or_default() {
            TunnelKind::Ipip => Kind::Ipip(self.ipip(options)),
        };
        Tunnel {
            kind,
            mtu,
            state: admin_state(options),
            alias: self.topology.name.alias(),
        }
    }

    fn ipip(&self, options: &Effective) -> Ipip {
        let defaults = Ipip::default();
        Ipip {
            local: self.local(options),
            remote: options.get(|t| &t.remote).and_then(|end| end.address()),
            device: options.get(|t| &t.device),
            mode: options.get(|t| &t.mode).unwrap_or(Mode::Ipip),
            ttl: options.get(|t| &t.ttl).unwrap_or(defaults.ttl),
            tos: options.get(|t| &t.tos).unwrap_or(defaults.tos),
            pmtudisc: options.get(|t| &t.pmtudisc).unwrap_or(defaults.pmtudisc),
            fwmark: options.get(|t| &t.fwmark).unwrap_or(defaults.fwmark),
            external: defaults.external,
            encap: defaults.encap,
        }
    }

    /// A tunnel's outer source address.
    fn local(&self, options: &Effective) -> Option<Ipv4Addr> {
        match options.get(|t| &t.local)? {
            Endpoint::Device(device) => *self.firsts.get(&device)?,
            end => end.address(),
        }
    }

    fn addresses(&self) -> BTreeMap<AddressKey, Address> {
        let of_tunnels = self.topology.tunnels.iter();
        let of_tunnels = of_tunnels.map(|(name, tunnel)| (name, &tunnel.addresses));
        let lists = of_tunnels.chain(&self.topology.addresses);
        let addresses = lists.flat_map(|(&device, list)| {
            let list = list.iter();
            list.map(move |address| (address.key(device), self.address(device, address)))
        });
        sorted_map(addresses.collect())
    }

    fn address(&self, device: InterfaceName, address: &topology::Address) -> Address {
        let local = address.address.net.addr();
        let label = match local {
            IpAddr::V4(_) => Some(
                address
                    .label
                    .as_ref()
                    .map_or_else(|| device.text(), |label| label.0.clone()),
            ),
            IpAddr::V6(_) => None,
        };
        Address {
            prefix_len: address.prefix_len(),
            peer: address.peer().filter(|peer| *peer != local),
            broadcast: None,
            scope: address
                .scope
                .unwrap_or_else(|| default_address_scope(local)),
            label,
            noprefixroute: address.noprefixroute,
            metric: address.metric,
            protocol: if self.observed.marks_addresses {
                self.protocol()
            } else {
                0
            },
            lifetime: None,
        }
    }

    fn peers(&self, host: &Host, state: &mut State) {
        let mut up = BTreeMap::new();
        let mut is_up = |name: InterfaceName| {
            *up.entry(name).or_insert_with(|| {
                let tunnel = self.topology.tunnels.get(&name);
                tunnel.is_some_and(|own| admin_state(&self.topology.tunnel(own)) == AdminState::Up)
            })
        };
        let routes = host.peers().filter_map(|route| {
            let up = route.ways.iter().all(|way| is_up(way.tunnel)) && !route.ways.is_empty();
            up.then(|| self.peer(&route))
        });
        append(&mut state.routes, host.peers().len(), routes);
    }

    fn peer(&self, route: &PeerRoute) -> (RouteKey, Route) {
        let key = RouteKey {
            table: MAIN_TABLE,
            to: IpNet::V4(route.to),
            tos: 0,
            metric: 0,
        };
        let nexthops = route.ways.iter().map(|way| {
            let via = way.via.map(IpAddr::V4);
            let straight = via
                .filter(|_| way.direct)
                .and_then(|via| self.straight(way.tunnel, via));
            NextHop {
                via,
                device: Some(straight.unwrap_or(way.tunnel)),
                weight: 1,
                onlink: via.is_some() && straight.is_none(),
            }
        });
        let mut nexthops: NextHops = nexthops.collect();
        nexthops.sort();
        let link = matches!(nexthops.as_slice(), [NextHop { via: None, .. }]);
        let value = Route {
            kind: RouteType::Unicast,
            protocol: self.protocol(),
            scope: if link { Scope::LINK } else { Scope::GLOBAL },
            src: None,
            mtu: None,
            advmss: None,
            nexthops,
            other_attributes: false,
        };
        (key, value)
    }

    /// The underlay's device, where a gateway is in the same network as the tunnel's own outer address.
    fn straight(&self, tunnel: InterfaceName, gateway: IpAddr) -> Option<InterfaceName> {
        let own = self.topology.tunnels.get(&tunnel)?;
        let local = IpAddr::V4(self.local(&self.topology.tunnel(own))?);
        let mut places = self.underlay.get(&local)?.iter().rev();
        places
            .find(|(_, network)| network.is_some_and(|network| network.contains(&gateway)))
            .map(|(device, _)| *device)
    }

    /// After the addresses, which tell the device of a gateway.
    fn routes(&self, state: &mut State) {
        let tunnels = self.topology.tunnels.iter();
        // The kernel has no routes through a device that is down.
        let up = tunnels
            .filter(|(_, tunnel)| admin_state(&self.topology.tunnel(tunnel)) == AdminState::Up);
        let lists = up.map(|(&name, tunnel)| (Some(name), &tunnel.routes));
        let lists = lists.chain([(None, &self.topology.routes)]);
        let count = lists.clone().map(|(_, list)| list.len()).sum();
        let routes = lists.flat_map(|(tunnel, list)| {
            let routes = list.iter();
            routes.map(move |route| self.route(route, tunnel))
        });
        append(&mut state.routes, count, routes);
    }

    fn route(&self, route: &topology::Route, tunnel: Option<InterfaceName>) -> (RouteKey, Route) {
        let key = route.key();
        let mut hops = route.hops();
        if hops.is_empty() && route.kind == RouteType::Unicast {
            hops = Hops::Only(topology::NextHop {
                via: None,
                device: tunnel,
                weight: None,
                onlink: false,
                direct: false,
            });
        }
        let several = hops.len() > 1;
        let mut nexthops: NextHops = hops
            .iter()
            .map(|hop| {
                let device = tunnel
                    .or(hop.device)
                    .or_else(|| self.device_towards(hop.via?.0));
                let straight = match (hop.direct, device, hop.via) {
                    (true, Some(tunnel), Some(via)) => self.straight(tunnel, via.0),
                    _ => None,
                };
                NextHop {
                    via: hop.via.map(|via| via.0),
                    device: straight.or(device),
                    // The kernel knows no weight of an only way.
                    weight: hop.weight.filter(|_| several).unwrap_or(1),
                    onlink: hop.onlink && straight.is_none(),
                }
            })
            .collect();
        nexthops.sort();
        // As `ip route` chooses: a list of next hops is global, whatever is in it.
        let direct =
            route.kind == RouteType::Unicast && route.nexthops.is_empty() && route.via.is_none();
        let default_scope = match key.to {
            IpNet::V4(_) if direct => Scope::LINK,
            _ => Scope::GLOBAL,
        };
        let value = Route {
            kind: route.kind,
            protocol: self.protocol(),
            scope: route.scope.unwrap_or(default_scope),
            src: route.src.map(|src| src.0),
            mtu: route.mtu,
            advmss: route.advmss,
            nexthops,
            other_attributes: false,
        };
        (key, value)
    }

    /// The device whose network holds a gateway: in the topology, on the host, or as the kernel routes to it.
    fn device_towards(&self, gateway: IpAddr) -> Option<InterfaceName> {
        let nearest = prefixes(gateway).find_map(|network| self.networks.get(&network));
        nearest
            .copied()
            .or_else(|| self.observed.paths.get(&gateway).map(|path| path.device))
    }
}

/// Adds so many routes, mostly sorted. In parts: a map that is built in one go takes the memory of a list besides, and one
/// that is filled one by one leaves half of its room empty.
fn append(
    known: &mut BTreeMap<RouteKey, Route>,
    count: usize,
    mut routes: impl Iterator<Item = (RouteKey, Route)>,
) {
    let part = (count / PARTS).max(LEAST_PART);
    loop {
        let some: Vec<(RouteKey, Route)> = routes.by_ref().take(part).collect();
        if some.is_empty() {
            return;
        }
        known.append(&mut sorted_map(some));
    }
}

/// The first IPv4 address of a device that is there for all the world.
fn first_address(observed: &Observed, device: InterfaceName) -> Option<Ipv4Addr> {
    let addresses = observed.state.addresses.iter();
    let on_device = addresses.filter(|(key, address)| {
        key.device == device
            && address.scope == Scope::GLOBAL
            && !observed.secondaries.contains(key)
    });
    let ipv4 = on_device.filter_map(|(key, _)| match key.local {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    ipv4.min()
}

fn admin_state(options: &Effective) -> AdminState {
    options.get(|t| &t.state).unwrap_or(AdminState::Up)
}

/// What `ip address add` gives an IPv4 address, and what the kernel makes of an IPv6 one (`ipv6_addr_scope`).
pub(crate) fn default_address_scope(address: IpAddr) -> Scope {
    match address {
        IpAddr::V4(address) if address.is_loopback() => Scope::HOST,
        IpAddr::V6(address) if address.is_loopback() => Scope::HOST,
        IpAddr::V6(address) if address.is_unicast_link_local() => Scope::LINK,
        IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfec0 => Scope::SITE,
        IpAddr::V4(_) | IpAddr::V6(_) => Scope::GLOBAL,
    }
}
