//! The way back: from what a kernel holds to a topology that a person can keep.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::desired::default_address_scope;
use crate::plan::is_kernels_link_local;
use crate::state::{
    self, AddressKey, AdminState, IPV6_DEFAULT_METRIC, Ipip, Kind, MAIN_TABLE, Mode, Observed,
    RouteKey, RouteType, Scope, Tos, Ttl,
};
use crate::topology::{
    Address, Destination, Endpoint, Ip, Label, Mtu, NextHop, Owner, Prefix, Protocol, Route,
    RouteTos, Short, Table, Topology, Tunnel,
};

/// What routes are worth taking over: those that a person or a boot script has added (`RTPROT_BOOT`, `RTPROT_STATIC`).
/// A daemon's come back by themselves.
const BY_HAND: [u8; 2] = [3, 4];
/// The kernel's own.
const KERNEL: u8 = 2;
/// The ipip module's fallback device.
const FALLBACK: &[u8] = b"tunl0";

/// Whose objects to export.
pub enum Whose<'a> {
    /// Tunnels that nobody owns, to be taken over by `apply --adopt` under a new name.
    Nobodys(&'a Owner),
    /// What a topology owns, with the protocol that marks its routes.
    Owners(&'a Owner, Protocol),
}

/// What was found, and what of it no topology can say.
pub struct Export {
    /// The topology.
    pub topology: Topology,
    /// A line for each object that was left out, and why.
    pub left_out: Vec<String>,
}

/// The topology that an observed host has already.
pub fn export(observed: &Observed, whose: &Whose) -> Export {
    let (name, route_protocol) = match whose {
        Whose::Nobodys(name) => (*name, Protocol::DEFAULT),
        Whose::Owners(name, protocol) => (*name, *protocol),
    };
    let mut build = Build {
        observed,
        whose,
        topology: Topology::named(name.clone(), route_protocol),
        left_out: Vec::new(),
    };
    build.tunnels();
    build.addresses();
    build.routes();
    Export {
        topology: build.topology,
        left_out: build.left_out,
    }
}

struct Build<'a> {
    observed: &'a Observed,
    whose: &'a Whose<'a>,
    topology: Topology,
    left_out: Vec<String>,
}

impl Build<'_> {
    fn leave_out(&mut self, object: &str, why: &str) {
        self.left_out.push(format!("{object}: {why}"));
    }

    fn tunnels(&mut self) {
        let mut owned: BTreeMap<String, usize> = BTreeMap::new();
        for (name, tunnel) in &self.observed.state.tunnels {
            let owner = Owner::of_alias(&tunnel.alias);
            let wanted = match self.whose {
                Whose::Nobodys(_) => owner.is_none() && name.as_bytes() != FALLBACK,
                Whose::Owners(wanted, _) => owner == Some(wanted.as_str()),
            };
            if !wanted {
                if let (Whose::Nobodys(_), Some(owner)) = (self.whose, owner) {
                    *owned.entry(owner.to_owned()).or_default() += 1;
                }
                continue;
            }
            let Kind::Ipip(ipip) = &tunnel.kind;
            let special = [
                (ipip.external, "a topology has no `external` mode"),
                (ipip.encap.is_some(), "a topology has no UDP encapsulation"),
                (
                    inherits_partly(ipip.tos),
                    "its TOS is inherited and has bits of its own",
                ),
            ];
            match special.into_iter().find(|(is, _)| *is) {
                Some((_, why)) => self.leave_out(&format!("tunnel {name}"), why),
                None => {
                    self.topology.tunnels.insert(*name, written(ipip, tunnel));
                }
            }
        }
        for (owner, count) in owned {
            let why = format!("{count} in all; `tunnelform export --owner {owner}` has them");
            self.leave_out(&format!("tunnels of the topology {owner}"), &why);
        }
    }

    fn addresses(&mut self) {
        for (key, address) in &self.observed.state.addresses {
            if is_kernels_link_local(*key, address, self.observed.marks_addresses) {
                continue;
            }
            let outside = match self.whose {
                Whose::Nobodys(_) => false,
                Whose::Owners(_, protocol) => {
                    address.protocol == protocol.0
                        && !self.observed.state.tunnels.contains_key(&key.device)
                }
            };
            let on_tunnel = self.topology.tunnels.contains_key(&key.device);
            if !on_tunnel && !outside {
                continue;
            }
            if address.lifetime.is_some() {
                self.leave_out(
                    &format!("address {key}"),
                    "it has a lifetime, so a daemon keeps it",
                );
                continue;
            }
            if address.broadcast.is_some() {
                self.left_out.push(format!(
                    "address {key}: its broadcast address; a topology never sets one, so taking it over replaces it"
                ));
            }
            let entry = Short(written_address(key, address));
            match self.topology.tunnels.get_mut(&key.device) {
                Some(tunnel) => tunnel.addresses.push(entry),
                None => self
                    .topology
                    .addresses
                    .entry(key.device)
                    .or_default()
                    .push(entry),
            }
        }
    }

    fn routes(&mut self) {
        let duplicates = self.observed.duplicate_routes.iter();
        let duplicates: Vec<_> = duplicates
            .filter(|(_, route)| self.leads_through(route) && self.concerns(route))
            .map(|(key, _)| format!("route {key}"))
            .collect();
        for object in duplicates {
            self.leave_out(
                &object,
                "a second route of the same key (`ip route append`)",
            );
        }
        for (key, route) in &self.observed.state.routes {
            let through = self.leads_through(route);
            let own = match self.whose {
                Whose::Nobodys(_) => through,
                Whose::Owners(..) => {
                    let mut tunnels = route
                        .devices()
                        .filter_map(|d| self.observed.state.tunnels.get(&d));
                    // Through another's tunnel it is another's.
                    through || tunnels.next().is_none()
                }
            };
            if !own || route.protocol == KERNEL {
                continue;
            }
            if !self.concerns(route) {
                if through {
                    let why = format!("protocol {}: whoever added it keeps it", route.protocol);
                    self.leave_out(&format!("route {key}"), &why);
                }
                continue;
            }
            if route.other_attributes || route.kind == RouteType::Other {
                self.leave_out(
                    &format!("route {key}"),
                    "it has attributes that a topology has no words for",
                );
                continue;
            }
            self.route(key, route);
        }
    }

    /// Whether the route's protocol is one that this export is about.
    fn concerns(&self, route: &state::Route) -> bool {
        match self.whose {
            Whose::Nobodys(_) => BY_HAND.contains(&route.protocol),
            Whose::Owners(_, protocol) => route.protocol == protocol.0,
        }
    }

    fn leads_through(&self, route: &state::Route) -> bool {
        route
            .devices()
            .any(|device| self.topology.tunnels.contains_key(&device))
    }

    fn route(&mut self, key: &RouteKey, route: &state::Route) {
        let mut entry = written_route(key, route);
        let list = match route.nexthops.as_slice() {
            [hop] => {
                entry.via = hop.via.map(Ip);
                entry.onlink = hop.onlink;
                match hop
                    .device
                    .and_then(|device| self.topology.tunnels.get_mut(&device))
                {
                    Some(tunnel) => &mut tunnel.routes,
                    None => {
                        entry.device = hop.device;
                        &mut self.topology.routes
                    }
                }
            }
            hops => {
                let hops = hops.iter().map(|hop| NextHop {
                    via: hop.via.map(Ip),
                    device: hop.device,
                    weight: Some(hop.weight).filter(|weight| *weight != 1),
                    onlink: hop.onlink,
                    direct: false,
                });
                entry.nexthops = hops.collect();
                &mut self.topology.routes
            }
        };
        list.push(Short(entry));
    }
}

/// What is as the default has it is left out.
fn written(ipip: &Ipip, tunnel: &state::Tunnel) -> Tunnel {
    let Ipip {
        local,
        remote,
        device,
        mode,
        ttl,
        tos,
        pmtudisc,
        fwmark,
        external: _,
        encap: _,
    } = ipip;
    let state::Tunnel {
        kind: _,
        mtu,
        state,
        alias: _,
    } = tunnel;
    Tunnel {
        kind: None,
        local: local.map(Endpoint::Address),
        remote: remote.map(Endpoint::Address),
        mode: Some(*mode).filter(|mode| *mode != Mode::Ipip),
        ttl: Some(*ttl).filter(|ttl| *ttl != Ttl::INHERIT),
        tos: Some(*tos).filter(|tos| *tos != Tos::default()),
        pmtudisc: Some(*pmtudisc).filter(|on| !on),
        device: *device,
        fwmark: Some(*fwmark).filter(|mark| *mark != 0),
        mtu: Some(Mtu::Bytes(*mtu)),
        state: Some(*state).filter(|state| *state == AdminState::Down),
        probe: None,
        addresses: Vec::new(),
        routes: Default::default(),
    }
}

/// Bit 0 says to inherit; what else is set then counts for packets that have no TOS (`ip tunnel … tos inherit/0x10`).
fn inherits_partly(tos: Tos) -> bool {
    tos.0 & Tos::INHERIT.0 != 0 && tos != Tos::INHERIT
}

fn written_address(key: &AddressKey, address: &state::Address) -> Address {
    let state::Address {
        prefix_len,
        peer,
        broadcast: _,
        scope,
        label,
        noprefixroute,
        metric,
        protocol: _,
        lifetime: _,
    } = address;
    let prefix = |ip: IpAddr, explicit| Prefix {
        net: IpNet::new(ip, if explicit { *prefix_len } else { longest(ip) })
            .unwrap_or(IpNet::from(ip)),
        explicit,
    };
    let other_label = label
        .as_ref()
        .filter(|label| **label != key.device.to_string());
    Address {
        address: prefix(key.local, peer.is_none()),
        peer: peer.map(|peer| prefix(peer, true)),
        scope: Some(*scope)
            .filter(|scope| key.local.is_ipv4() && *scope != default_address_scope(key.local)),
        label: other_label.cloned().map(Label),
        noprefixroute: *noprefixroute,
        metric: *metric,
    }
}

fn longest(ip: IpAddr) -> u8 {
    IpNet::from(ip).prefix_len()
}

fn written_route(key: &RouteKey, route: &state::Route) -> Route {
    let RouteKey {
        table,
        to,
        tos,
        metric,
    } = *key;
    let ipv6 = to.addr().is_ipv6();
    let link = matches!(route.nexthops.as_slice(), [hop] if hop.via.is_none());
    let default_scope = if link && !ipv6 {
        Scope::LINK
    } else {
        Scope::GLOBAL
    };
    Route {
        to: Destination::Prefix(to),
        via: None,
        device: None,
        onlink: false,
        direct: false,
        metric: if ipv6 && metric == IPV6_DEFAULT_METRIC {
            0
        } else {
            metric
        },
        tos: RouteTos(tos),
        table: Some(table).filter(|table| *table != MAIN_TABLE).map(Table),
        scope: Some(route.scope).filter(|scope| *scope != default_scope),
        src: route.src.map(Ip),
        kind: route.kind,
        mtu: route.mtu,
        advmss: route.advmss,
        nexthops: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::{Whose, export};
    use crate::plan::tests::{any_state, observe};
    use crate::plan::{Change, Delta, Terms};
    use crate::reconcile::foresee;
    use crate::state::{AddressKey, Kind, Mode, Scope, State, Tos};
    use crate::topology::{Owner, Topology};

    /// What the others' generator leaves as it is by default.
    fn vary(mut state: State, numbers: (u8, u8, u32), loopback: bool) -> State {
        let (tos, scope, mtu) = numbers;
        for tunnel in state.tunnels.values_mut() {
            let Kind::Ipip(ipip) = &mut tunnel.kind;
            ipip.tos = Tos(tos & !1);
            ipip.mode = if tos & 1 == 0 { Mode::Ipip } else { Mode::Any };
            tunnel.mtu = mtu;
        }
        for address in state.addresses.values_mut() {
            address.scope = Scope(scope.min(254));
            address.label = Some("tun1:label".into());
        }
        for route in state.routes.values_mut() {
            route.mtu = Some(mtu).filter(|_| route.nexthops.len() == 1);
        }
        if let Some(device) = state.tunnels.keys().next().copied().filter(|_| loopback) {
            let local = IpAddr::V4(Ipv4Addr::new(127, 9, 0, 1));
            let known = state.addresses.values().next().cloned();
            let value = known.map(|known| crate::state::Address {
                prefix_len: 32,
                ..known
            });
            let key = AddressKey::new(device, local, None, 32);
            state.addresses.extend(value.map(|value| (key, value)));
        }
        state
    }

    /// Nothing but the marks.
    fn is_adoption(change: &Change) -> bool {
        match change {
            Change::Tunnel(_, Delta::Update { from, to }) => {
                let mut marked = from.clone();
                marked.alias = to.alias.clone();
                marked == *to
            }
            Change::Address(_, Delta::Update { from, to }) => {
                let mut marked = from.clone();
                marked.protocol = to.protocol;
                marked == *to
            }
            Change::Route(_, Delta::Update { from, to }) => {
                let mut marked = from.clone();
                marked.protocol = to.protocol;
                marked == *to
            }
            Change::Tunnel(..) | Change::Address(..) | Change::Route(..) => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn what_was_exported_is_there_already(
            state in any_state(&[""], &[4]),
            numbers in (any::<u8>(), any::<u8>(), 1280..9000u32),
            loopback: bool,
        ) {
            let observed = observe(vary(state, numbers, loopback));
            let owner: Owner = "ours".parse().unwrap();
            let exported = export(&observed, &Whose::Nobodys(&owner));
            prop_assert!(exported.left_out.is_empty(), "{:?}", exported.left_out);
            let text = exported.topology.to_yaml().unwrap();
            let topology = Topology::parse("exported", &text).map_err(|problems| TestCaseError::fail(problems.to_string()))?.topology;
            prop_assert_eq!(&topology, &exported.topology);
            let host = topology.fleet().host(None).unwrap();
            let terms = Terms { adopt: true, ..Terms::new(owner, topology.route_protocol.0) };
            let plan = foresee(observed, &host, &terms).plan;
            prop_assert!(plan.conflicts.is_empty(), "{:?}", plan.conflicts);
            let other = plan.changes.iter().find(|change| !is_adoption(change));
            prop_assert!(other.is_none(), "{other:?}\n{text}");
        }
    }
}
