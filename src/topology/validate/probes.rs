//! How tunnels are probed.

use crate::source::Path;
use crate::state::InterfaceName;
use crate::topology::mesh::Fleet;
use crate::topology::{Effective, Topology, Withdraw};

use super::{Check, tunnel_path};

/// The tunnels in writing whose other ends' overlay addresses only the fleet tells.
pub(super) fn ends_that_the_fleet_tells(fleet: &Fleet, number: usize) -> Vec<InterfaceName> {
    let host = fleet.written(number);
    let tunnels = host.topology.tunnels.iter();
    tunnels
        .filter(|(_, tunnel)| withdraws(&host.topology.tunnel(tunnel)) != Withdraw::No)
        .filter(|(_, tunnel)| {
            let end = fleet.counterpart(&host, tunnel);
            end.is_some_and(|(_, address)| address.is_some())
        })
        .map(|(name, _)| *name)
        .collect()
}

fn withdraws(options: &Effective) -> Withdraw {
    let given = options.probe().and_then(|probe| probe.withdraw_routes);
    given.unwrap_or(Withdraw::No)
}

impl Check<'_> {
    pub(super) fn probes(&mut self) {
        self.default_target();
        let topology = self.topology;
        let withdrawing: Vec<(InterfaceName, Withdraw)> = topology
            .tunnels
            .iter()
            .map(|(name, tunnel)| (*name, withdraws(&topology.tunnel(tunnel))))
            .filter(|(_, withdraws)| *withdraws != Withdraw::No)
            .collect();
        for (name, _) in &withdrawing {
            if !self.view.is_of_mesh(*name) {
                self.withdrawal(topology, *name);
            }
        }
        if let [(name, Withdraw::Yes)] = withdrawing.as_slice()
            && !self.view.is_of_mesh(*name)
        {
            self.warning(
                &self.withdraw_path(topology, *name),
                "no other peer has `withdraw_routes`, and the last one's routes are never taken out",
            )
            .help = Some("write `all` to take them out nevertheless".into());
        }
    }

    fn default_target(&mut self) {
        let probe = self.topology.defaults.probe;
        if probe.is_some_and(|probe| probe.target.is_some()) {
            let path = Path::default().key("defaults").key("probe").key("target");
            self.error(
                &path,
                "`target` can't be a default: every tunnel would be probed at the same host",
            )
            .help = Some("give it to the tunnel that leads to that host".into());
        }
    }

    /// Routes can be taken out only where it's known whom to ask, and which they are.
    fn withdrawal(&mut self, topology: &Topology, name: InterfaceName) {
        let tunnel = &topology.tunnels[&name];
        let options = topology.tunnel(tunnel);
        let remote = options.get(|t| &t.remote).and_then(|end| end.address());
        let target = options.probe().and_then(|probe| probe.target);
        let (message, help) = if remote.is_none() {
            (
                "nothing tells which routes of a multipoint tunnel lead to the probed peer: none is taken out",
                "leave it out, or let a mesh make the tunnel",
            )
        } else if target.is_none() && tunnel.other_end().is_none() && !self.view.tells_end(name) {
            (
                "nothing tells the peer's overlay address: it isn't probed, and no route is taken out",
                "add `target: ADDRESS`",
            )
        } else {
            return;
        };
        if self.knows(name, &["remote", "addresses", "probe"]) {
            self.warning(&self.withdraw_path(topology, name), message)
                .help = Some(help.into());
        }
    }

    /// Where the key is written that holds for a tunnel.
    fn withdraw_path(&self, topology: &Topology, name: InterfaceName) -> Path {
        let own = topology.tunnels[&name].probe;
        let place = match own.and_then(|probe| probe.withdraw_routes) {
            Some(_) => tunnel_path(name),
            None => Path::default().key("defaults"),
        };
        place.key("probe").key("withdraw_routes")
    }
}

#[cfg(test)]
mod tests {
    use crate::topology::testing::check;

    #[test]
    fn who_can_be_withdrawn() {
        let tunnel = |more: &str| {
            format!(
                "tunnels:\n  tun1: {{local: 192.0.2.1, {more}}}\n  tun2: {{local: 192.0.2.1, remote: 192.0.2.3, addresses: [10.9.0.1/30], probe: {{withdraw_routes: all}}}}"
            )
        };
        for (more, expected) in [
            (
                "remote: 192.0.2.2, addresses: [10.0.0.1/30], probe: {withdraw_routes: true}",
                None,
            ),
            (
                "remote: 192.0.2.2, addresses: [10.0.0.1/24], probe: {withdraw_routes: true, target: 10.0.0.2}",
                None,
            ),
            (
                "remote: 192.0.2.2, addresses: [10.0.0.1/24], probe: {withdraw_routes: false}",
                None,
            ),
            (
                "remote: 192.0.2.2, addresses: [10.0.0.1/24], probe: {withdraw_routes: »true}",
                Some("warning: nothing tells the peer's overlay address"),
            ),
            (
                "addresses: [10.0.0.1/24], probe: {target: 10.0.0.2, withdraw_routes: »all}",
                Some("warning: multipoint"),
            ),
        ] {
            let expected: Vec<&str> = expected.into_iter().collect();
            check(&[(tunnel(more).as_str(), &expected)]);
        }
        check(&[
            (
                "defaults: {probe: {withdraw_routes: »true}}\ntunnels: {tun1: {local: 192.0.2.1, remote: 192.0.2.2, addresses: [10.0.0.1/30]}}",
                &["warning: no other peer has `withdraw_routes`"],
            ),
            (
                "defaults: {probe: {withdraw_routes: all}}\ntunnels: {tun1: {local: 192.0.2.1, remote: 192.0.2.2, addresses: [10.0.0.1/30]}}",
                &[],
            ),
            (
                "nodes: {a: {underlay: 192.0.2.1, subnets: [10.1.0.0/24]}, b: {underlay: 192.0.2.2, subnets: [10.2.0.0/24]}}\nmeshes: {m: {tunnel: {probe: {withdraw_routes: true}}}}",
                &[],
            ),
        ]);
    }

    /// The tunnel that leads back tells the address.
    #[test]
    fn what_the_fleet_tells() {
        let source = |there: &str, mark: &str| {
            format!(
                "nodes:
  a: {{underlay: 192.0.2.1, tunnels: {{x: {{local: a, remote: b, addresses: [10.0.0.1/24], probe: {{withdraw_routes: {mark}all}}}}}}}}
  b: {{underlay: 192.0.2.2, tunnels: {{y: {{local: b, remote: a, addresses: [{there}]}}}}}}"
            )
        };
        check(&[
            (source("10.0.0.9/24", "").as_str(), &[]),
            (
                source("10.7.0.9/24", "»").as_str(),
                &["warning: nothing tells the peer's overlay address"],
            ),
        ]);
    }
}
