//! Whom a host's tunnels lead to.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::Order;
use crate::state::{AdminState, InterfaceName};
use crate::topology::{Count, Fleet, Host, Interval, Peer, Silent, Timeout, Way, Withdraw};

/// One end to send echoes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The way there, through a tunnel.
    pub way: Way,
    /// Who is there: a node's name, or the tunnel's remote address. `None`: neither is known.
    pub peer: Option<String>,
    /// Its address in the overlay; `None`: nothing tells it.
    pub address: Option<Ipv4Addr>,
    /// Whether the topology keeps the tunnel down.
    pub down: bool,
    /// Whether the daemon is to probe it.
    pub watched: bool,
    /// How to probe it.
    pub terms: Terms,
}

/// How a target is probed, every default filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Time from one probe to the next.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Echoes of one probe.
    pub count: u32,
    /// Whether its routes are taken out while it's dead.
    pub withdraw: Withdraw,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to ", self.way.tunnel)?;
        match (&self.peer, self.address) {
            (Some(peer), Some(address)) => write!(f, "{peer} ({address})"),
            (Some(peer), None) => f.write_str(peer),
            (None, Some(address)) => address.fmt(f),
            (None, None) => f.write_str("nobody"),
        }
    }
}

impl Target {
    /// What to ask; `None`: nothing, as its address isn't known or the tunnel is kept down.
    pub fn order(&self, mtu: Option<u32>) -> Option<Order> {
        Some(Order {
            device: (!self.way.direct).then_some(self.way.tunnel),
            to: self.address.filter(|_| !self.down)?,
            count: self.terms.count,
            timeout: self.terms.timeout,
            mtu,
            search: true,
        })
    }

    /// The target as one that doesn't answer; `None`: nobody asks it.
    pub fn silent(&self) -> Option<Silent> {
        Some(Silent {
            way: self.way,
            address: self.address.filter(|_| !self.down)?,
        })
    }
}

/// The targets of a host's tunnels, by the tunnels' names.
pub fn targets(fleet: &Fleet, host: &Host) -> Vec<Target> {
    let mut of_meshes: BTreeMap<InterfaceName, Vec<Peer>> = BTreeMap::new();
    for peer in fleet.mesh_peers(host) {
        of_meshes.entry(peer.way.tunnel).or_default().push(peer);
    }
    let mut targets = Vec::new();
    for (&name, tunnel) in &host.topology.tunnels {
        let options = host.topology.tunnel(tunnel);
        let (watched, probe) = (
            options.probe().is_some(),
            options.probe().unwrap_or_default(),
        );
        let target = |way, peer, address| Target {
            way,
            peer,
            address,
            down: options.get(|t| &t.state) == Some(AdminState::Down),
            watched,
            terms: Terms {
                interval: probe.interval.unwrap_or(Interval::DEFAULT).0,
                timeout: probe.timeout.unwrap_or(Timeout::DEFAULT).0,
                count: probe.count.unwrap_or(Count::DEFAULT).0,
                withdraw: probe.withdraw_routes.unwrap_or(Withdraw::No),
            },
        };
        match of_meshes.remove(&name) {
            Some(peers) => targets.extend(
                peers
                    .into_iter()
                    .map(|peer| target(peer.way, Some(peer.node.to_string()), peer.address)),
            ),
            None => {
                let (node, theirs) = fleet.counterpart(host, tunnel).unzip();
                let remote = options.get(|t| &t.remote).and_then(|end| end.address());
                let given = probe.target.map(|target| target.0);
                let way = Way {
                    tunnel: name,
                    via: None,
                    direct: false,
                };
                let mut found = target(
                    way,
                    node.map(|node| node.to_string())
                        .or(remote.map(|remote| remote.to_string())),
                    given.or(tunnel.other_end()).or(theirs.flatten()),
                );
                if remote.is_none() {
                    // Which routes lead to that one of many peers, nothing tells.
                    found.terms.withdraw = Withdraw::No;
                }
                targets.push(found);
            }
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Topology;

    /// `tunnel peer address` of each target.
    fn found(source: &str, node: Option<&str>) -> Vec<String> {
        let topology = match Topology::parse("test.yaml", &format!("name: t\n{source}\n")) {
            Ok(parsed) => parsed.topology,
            Err(problems) => panic!("{problems}"),
        };
        let fleet = topology.fleet();
        let node = node.map(|node| node.parse().unwrap());
        let host = fleet.host(node.as_ref()).unwrap();
        let line = |target: Target| {
            let peer = target.peer.unwrap_or_else(|| "-".into());
            let address = target.address.map_or("-".into(), |a| a.to_string());
            let direct = if target.way.direct { " direct" } else { "" };
            let down = if target.down { " down" } else { "" };
            format!("{} {peer} {address}{direct}{down}", target.way.tunnel)
        };
        targets(&fleet, &host).into_iter().map(line).collect()
    }

    #[test]
    fn of_one_hosts_tunnels() {
        let ends = "local: 192.0.2.1, remote: 192.0.2.2";
        for (tunnel, expected) in [
            ("addresses: [10.0.0.1/30]", "192.0.2.2 10.0.0.2"),
            ("addresses: [10.0.0.1/31]", "192.0.2.2 10.0.0.0"),
            ("addresses: [10.0.0.1/24]", "192.0.2.2 -"),
            ("addresses: []", "192.0.2.2 -"),
            (
                "addresses: [{address: 10.0.0.1, peer: 10.9.0.2}]",
                "192.0.2.2 10.9.0.2",
            ),
            (
                "addresses: [10.0.0.1/30], probe: {target: 10.0.0.7}",
                "192.0.2.2 10.0.0.7",
            ),
            (
                "addresses: [10.0.0.1/30], state: down",
                "192.0.2.2 10.0.0.2 down",
            ),
        ] {
            let source = format!("tunnels: {{tun1: {{{ends}, {tunnel}}}}}");
            assert_eq!(
                found(&source, None),
                [format!("tun1 {expected}")],
                "{tunnel}"
            );
        }
        assert_eq!(
            found(
                "tunnels: {tun1: {local: 192.0.2.1, addresses: [10.0.0.1/24]}}",
                None
            ),
            ["tun1 - -"]
        );
    }

    const NODES: &str = "nodes:
  a: {underlay: 192.0.2.1, subnets: [10.1.0.0/24]}
  b: {underlay: 192.0.2.2, subnets: [10.2.0.0/24]}
  c: {underlay: 192.0.2.3, subnets: [10.3.0.0/24]";

    #[test]
    fn of_meshes() {
        for (rest, expected) in [
            (
                "}\nmeshes: {m: {}}",
                ["m b 10.2.0.0", "m c 10.3.0.0"].as_slice(),
            ),
            (
                ", addresses: {m: [10.3.0.1/32]}}\nmeshes: {m: {direct_routing: true}}",
                &["m b 10.2.0.0 direct", "m c 10.3.0.1 direct"],
            ),
            ("}\nmeshes: {m: {topology: {hub: [c]}}}", &["m c 10.3.0.0"]),
            (
                "}\nmeshes: {m: {style: point-to-point}}",
                &["m-b b 10.2.0.0", "m-c c 10.3.0.0"],
            ),
            (
                "}\nmeshes: {m: {style: point-to-point, link_network: 10.99.0.0/24}}",
                &["m-b b 10.99.0.2", "m-c c 10.99.0.3"],
            ),
        ] {
            assert_eq!(
                found(&format!("{NODES}{rest}"), Some("a")),
                expected,
                "{rest}"
            );
        }
    }

    /// The tunnel that leads back has an address in the same network.
    #[test]
    fn of_tunnels_between_nodes() {
        let source = |there: &str| {
            format!(
                "nodes:
  a: {{underlay: 192.0.2.1, tunnels: {{x: {{local: a, remote: b, addresses: [10.0.0.1/24]}}}}}}
  b: {{underlay: 192.0.2.2, tunnels: {{y: {{local: b, remote: a, addresses: [{there}]}}}}}}"
            )
        };
        assert_eq!(found(&source("10.0.0.9/24"), Some("a")), ["x b 10.0.0.9"]);
        assert_eq!(found(&source("10.7.0.9/24"), Some("a")), ["x b -"]);
        assert_eq!(found(&source("10.0.0.9/24"), Some("b")), ["y a 10.0.0.1"]);
    }
}
