//! Packets, carried from host to host by the routes that each should have.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::random::{Random, RandomMesh};
use crate::reconcile::Look;
use crate::state::{
    InterfaceName, Ipip, Kind, MAIN_TABLE, NextHop, NextHops, Observed, RouteType, State,
};
use crate::topology::{Host, Name};

pub(super) struct World<'a> {
    random: &'a Random,
    states: BTreeMap<&'a str, &'a State>,
    /// Whose an underlay address is.
    holders: BTreeMap<IpAddr, &'a str>,
}

impl<'a> World<'a> {
    pub(super) fn new(random: &'a Random, looks: &'a [(Name, Host, Look)]) -> Self {
        let states = looks
            .iter()
            .map(|(name, _, look)| (name.as_str(), &look.desired));
        let holders = random.observed.iter().flat_map(|(name, observed)| {
            observed
                .state
                .addresses
                .keys()
                .map(|key| (key.local, *name))
        });
        Self {
            random,
            states: states.collect(),
            holders: holders.collect(),
        }
    }

    /// Addresses of a node that a mesh leads to: the first and last of its subnets, and those on the mesh's devices.
    pub(super) fn targets(&self, mesh: &RandomMesh, node: &str) -> BTreeSet<IpAddr> {
        let subnets = self.random.subnets[node].iter();
        let subnets = subnets.flat_map(|net| [net.network().into(), net.broadcast().into()]);
        let own = self.states[node].addresses.keys();
        let own = own.filter(|key| key.device.as_bytes().starts_with(mesh.name.as_bytes()));
        subnets.chain(own.map(|key| key.local)).collect()
    }

    /// By every way that the routes give, the packet comes to `to`.
    pub(super) fn walk(&self, from: &str, to: &str, target: IpAddr) -> Result<(), String> {
        self.step(from, to, target, &mut vec![])
            .map_err(|error| format!("from {from} to {target} of {to}: {error}"))
    }

    fn step(
        &self,
        here: &str,
        to: &str,
        target: IpAddr,
        trail: &mut Vec<String>,
    ) -> Result<(), String> {
        if here == to {
            return Ok(());
        }
        if trail.iter().any(|node| node == here) {
            return Err(format!("a loop: {trail:?} and {here} again"));
        }
        let state = self.states[here];
        let hops =
            best_route(state, target).ok_or_else(|| format!("{trail:?}: no route on {here}"))?;
        trail.push(here.to_owned());
        for hop in hops {
            let next = self
                .next(here, &hop)
                .map_err(|error| format!("{trail:?}: {hop:?}: {error}"))?;
            self.step(next, to, target, trail)?;
        }
        trail.pop();
        Ok(())
    }

    /// The host that a way out leads to.
    fn next(&self, here: &str, hop: &NextHop) -> Result<&'a str, String> {
        let device = hop.device.ok_or("no device")?;
        let holder = |address: IpAddr| {
            self.holders
                .get(&address)
                .copied()
                .ok_or(format!("nobody has {address}"))
        };
        match self.states[here].tunnels.get(&device) {
            None => {
                let via = hop.via.ok_or("no gateway on the underlay")?;
                let observed = &self.random.observed[here];
                if hop.onlink || !on_link(observed, device, via) {
                    return Err(format!("{via} is not on the link of {device}"));
                }
                holder(via)
            }
            Some(tunnel) => {
                let Kind::Ipip(Ipip { local, remote, .. }) = &tunnel.kind;
                let outer = remote
                    .map(IpAddr::V4)
                    .or(hop.via)
                    .ok_or("no outer destination")?;
                if hop.via.is_some() && !hop.onlink {
                    return Err("the kernel would refuse the gateway".into());
                }
                let next = holder(outer)?;
                let source = local.map(IpAddr::V4).ok_or("no outer source")?;
                self.takes(next, outer, source)?;
                Ok(next)
            }
        }
    }

    /// Whether a tunnel of `node` takes packets that `source` sends to `outer`.
    fn takes(&self, node: &str, outer: IpAddr, source: IpAddr) -> Result<(), String> {
        let mut tunnels = self.states[node].tunnels.values();
        let taken = tunnels.any(|tunnel| {
            let Kind::Ipip(Ipip { local, remote, .. }) = &tunnel.kind;
            local.is_none_or(|local| local == outer) && remote.is_none_or(|remote| remote == source)
        });
        taken
            .then_some(())
            .ok_or(format!("{node} takes no packets from {source}"))
    }
}

fn on_link(observed: &Observed, device: InterfaceName, via: IpAddr) -> bool {
    let mut addresses = observed.state.addresses.iter();
    addresses.any(|(key, address)| {
        key.device == device && address.network(key).is_some_and(|net| net.contains(&via))
    })
}

/// The next hops of the longest prefix, and of the lowest metric: of a route, or of an address's network.
fn best_route(state: &State, target: IpAddr) -> Option<NextHops> {
    let of_addresses = state.addresses.iter().filter_map(|(key, address)| {
        let net = address.network(key).filter(|_| address.peer.is_some())?;
        let hop = NextHop {
            via: None,
            device: Some(key.device),
            weight: 1,
            onlink: false,
        };
        Some((net, 0, NextHops::from_elem(hop, 1)))
    });
    let routes = state
        .routes
        .iter()
        .filter(|(key, _)| key.table == MAIN_TABLE);
    let of_routes = routes.map(|(key, route)| {
        let hops = match route.kind {
            RouteType::Unicast => route.nexthops.clone(),
            RouteType::Blackhole
            | RouteType::Unreachable
            | RouteType::Prohibit
            | RouteType::Throw
            | RouteType::Other => NextHops::new(),
        };
        (key.to, key.metric, hops)
    });
    let candidates = of_addresses
        .chain(of_routes)
        .filter(|(net, ..)| net.contains(&target));
    let (_, _, hops) = candidates.max_by_key(|(net, metric, _): &(IpNet, u32, NextHops)| {
        (net.prefix_len(), std::cmp::Reverse(*metric))
    })?;
    Some(hops).filter(|hops| !hops.is_empty())
}
