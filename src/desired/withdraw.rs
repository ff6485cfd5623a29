//! Routes without the peers that don't answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::Build;
use crate::state::{InterfaceName, NextHop, RouteType, State};
use crate::topology::{Host, PeerRoute, Silent, Way};

/// The next hops that lead to silent peers.
#[derive(Default)]
struct Gone {
    /// Tunnels with one other end.
    tunnels: BTreeSet<InterfaceName>,
    gateways: BTreeSet<(InterfaceName, IpAddr)>,
}

impl Gone {
    fn leads(&self, hop: &NextHop) -> bool {
        let by_gateway = |device| {
            hop.via
                .is_some_and(|via| self.gateways.contains(&(device, via)))
        };
        hop.device
            .is_some_and(|device| self.tunnels.contains(&device) || by_gateway(device))
    }
}

impl Build<'_> {
    /// Takes out the next hops that lead to silent peers, and the routes that have no other. After the routes.
    pub(super) fn withdraw(&self, host: &Host, state: &mut State) {
        if host.silent.is_empty() {
            return;
        }
        let gone = self.gone(&host.silent);
        state.routes.retain(|_, route| {
            if route.kind != RouteType::Unicast {
                return true;
            }
            let several = route.nexthops.len() > 1;
            route.nexthops.retain(|hop| !gone.leads(hop));
            if let ([hop], true) = (route.nexthops.as_mut_slice(), several) {
                // The kernel knows no weight of an only way.
                hop.weight = 1;
            }
            !route.nexthops.is_empty()
        });
        self.keep_asking(&host.silent, state);
    }

    fn gone(&self, silent: &[Silent]) -> Gone {
        let mut gone = Gone::default();
        for Silent { way, .. } in silent {
            if self.has_one_end(way.tunnel) {
                gone.tunnels.insert(way.tunnel);
            }
            if let Some(via) = way.via.map(IpAddr::V4) {
                gone.gateways.insert((way.tunnel, via));
                let straight = self.straight(way.tunnel, via).filter(|_| way.direct);
                gone.gateways.extend(straight.map(|device| (device, via)));
            }
        }
        gone
    }

    fn has_one_end(&self, tunnel: InterfaceName) -> bool {
        let own = self.topology.tunnels.get(&tunnel);
        own.and_then(|own| self.topology.tunnel(own).get(|t| &t.remote)?.address())
            .is_some()
    }

    /// A multipoint tunnel finds its other end by the route alone, so the peer's own address keeps one: else nobody
    /// would notice that it's back. Where several tunnels lead there, each probe takes its own next hop.
    fn keep_asking(&self, silent: &[Silent], state: &mut State) {
        let mut asked: BTreeMap<Ipv4Addr, Vec<Way>> = BTreeMap::new();
        for Silent { way, address } in silent.iter().filter(|one| one.way.via.is_some()) {
            asked.entry(*address).or_default().push(*way);
        }
        for (address, ways) in asked {
            let to = address.into();
            let (key, route) = self.peer(&PeerRoute { to, ways: &ways });
            state.routes.entry(key).or_insert(route);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::desired;
    use crate::state::Observed;
    use crate::topology::{Name, Topology};

    /// `to via dev` of each route but the last resorts.
    fn routes(source: &str, node: Option<&str>, silent: &[Silent]) -> Vec<String> {
        let parsed = Topology::parse("t.yaml", &format!("name: t\n{source}"));
        let topology = parsed
            .unwrap_or_else(|problems| panic!("{problems}"))
            .topology;
        let node: Option<Name> = node.map(|node| node.parse().unwrap());
        let mut host = topology.fleet().host(node.as_ref()).unwrap();
        host.silent = silent.to_vec();
        let state = desired(&host, &Observed::bare()).state;
        let hop = |hop: &NextHop| {
            let via = hop.via.map_or("-".into(), |via| via.to_string());
            let weight = match hop.weight {
                1 => String::new(),
                weight => format!(" weight {weight}"),
            };
            format!(" {via} {}{weight}", hop.device.unwrap())
        };
        let routes = state.routes.iter();
        let routes = routes.filter(|(_, route)| route.kind == RouteType::Unicast);
        routes
            .map(|(key, route)| {
                let hops: String = route.nexthops.iter().map(hop).collect();
                format!("{}{hops}", key.to)
            })
            .collect()
    }

    fn silent(tunnel: &str, via: Option<&str>, address: &str, direct: bool) -> Silent {
        Silent {
            way: Way {
                tunnel: tunnel.parse().unwrap(),
                via: via.map(|via| via.parse().unwrap()),
                direct,
            },
            address: address.parse().unwrap(),
        }
    }

    const TWO: &str = "tunnels:
  tun1: {local: 192.0.2.1, remote: 192.0.2.2, addresses: [10.0.1.1/30], routes: [10.1.0.0/24]}
  tun2: {local: 192.0.2.1, remote: 192.0.2.3, addresses: [10.0.2.1/30], routes: [10.2.0.0/24]}
routes:
  - {to: 10.8.0.0/16, via: 10.0.1.2}
  - {to: 10.9.0.0/16, nexthops: [{via: 10.0.1.2, weight: 3}, {via: 10.0.2.2, weight: 5}]}
  - {to: 10.10.0.0/16, via: 192.0.2.9, device: eth0}
";

    /// Every route through the tunnel goes, a multipath one loses one hop, the others stay as they are.
    #[test]
    fn of_a_tunnel_with_one_end() {
        let (one, other) = (
            silent("tun1", None, "10.0.1.2", false),
            silent("tun2", None, "10.0.2.2", false),
        );
        assert_eq!(
            routes(TWO, None, &[]),
            [
                "10.1.0.0/24 - tun1",
                "10.2.0.0/24 - tun2",
                "10.8.0.0/16 10.0.1.2 tun1",
                "10.9.0.0/16 10.0.1.2 tun1 weight 3 10.0.2.2 tun2 weight 5",
                "10.10.0.0/16 192.0.2.9 eth0"
            ]
        );
        assert_eq!(
            routes(TWO, None, &[one]),
            [
                "10.2.0.0/24 - tun2",
                "10.9.0.0/16 10.0.2.2 tun2",
                "10.10.0.0/16 192.0.2.9 eth0"
            ]
        );
        assert_eq!(
            routes(TWO, None, &[one, other]),
            ["10.10.0.0/16 192.0.2.9 eth0"]
        );
    }

    const NODES: &str = "nodes:
  a: {underlay: {address: 192.0.2.1/24, device: eth0}, subnets: [10.1.0.0/24], addresses: {eth0: [192.0.2.1/24]}}
  b: {underlay: 192.0.2.2, subnets: [10.2.0.0/24, 10.22.0.0/24]}
  c: {underlay: 198.51.100.3, subnets: [10.3.0.7/32]}
";

    /// The peer's address keeps a route by way of the peer. A peer whose only network is that address keeps it whole.
    #[test]
    fn of_a_tunnel_with_many_ends() {
        for (mesh, device, direct) in [("{}", "m", false), ("{direct_routing: true}", "eth0", true)]
        {
            let b = silent("m", Some("192.0.2.2"), "10.2.0.0", direct);
            let c = silent("m", Some("198.51.100.3"), "10.3.0.7", direct);
            let source = format!("{NODES}meshes: {{m: {mesh}}}\n");
            let kept = format!("10.2.0.0/32 192.0.2.2 {device}");
            assert_eq!(
                routes(&source, Some("a"), &[b]),
                [kept.as_str(), "10.3.0.7/32 198.51.100.3 m"]
            );
            assert_eq!(
                routes(&source, Some("a"), &[b, c]),
                [kept.as_str(), "10.3.0.7/32 198.51.100.3 m"]
            );
        }
    }

    /// Who is reached through two hubs is reached through the one that answers.
    #[test]
    fn of_a_hub() {
        let source = "nodes:
  a: {underlay: 192.0.2.1, subnets: [10.1.0.0/24]}
  b: {underlay: 192.0.2.2, subnets: [10.2.0.0/24]}
  c: {underlay: 192.0.2.3, subnets: [10.3.0.0/24]}
  d: {underlay: 192.0.2.4, subnets: [10.4.0.0/24]}
";
        let b = |tunnel, via| silent(tunnel, via, "10.2.0.0", false);
        let multipoint = format!("{source}meshes: {{m: {{topology: {{hub: [b, c]}}}}}}\n");
        assert_eq!(
            routes(&multipoint, Some("a"), &[b("m", Some("192.0.2.2"))]),
            [
                "10.2.0.0/32 192.0.2.2 m",
                "10.3.0.0/24 192.0.2.3 m",
                "10.4.0.0/24 192.0.2.3 m"
            ]
        );
        let tunnels = format!(
            "{source}meshes: {{m: {{style: point-to-point, topology: {{hub: [b, c]}}}}}}\n"
        );
        assert_eq!(
            routes(&tunnels, Some("a"), &[b("m-b", None)]),
            ["10.3.0.0/24 - m-c", "10.4.0.0/24 - m-c"]
        );
    }
}
