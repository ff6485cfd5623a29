//! What the kernel will refuse, as far as the snapshot tells: known before anything is touched.
//!
//! Only what is sure. Where a rule, a table or a setting may make a difference the kernel has the last word.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Change, Object, Obstacle};
use crate::state::{
    AdminState, Desired, InterfaceName, NextHop, Observed, Route, RouteType, State, Unmet, prefixes,
};

/// Why changes of a plan can't be made: each reason with the objects that it keeps from being made.
pub(super) fn obstacles(
    changes: &[Change],
    desired: &Desired,
    observed: &Observed,
) -> Vec<Obstacle> {
    let host = Host {
        desired: &desired.state,
        observed,
        networks: OnceCell::new(),
        reached: RefCell::new(BTreeMap::new()),
        locals: OnceCell::new(),
    };
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for change in changes {
        for reason in host.reasons(change) {
            found.entry(reason).or_default().push(change.to_string());
        }
    }
    for Unmet { tunnel, device } in desired.unmet.values() {
        let reason = format!("device {device} has no IPv4 address to be its `local`");
        let objects = found.entry(reason).or_default();
        objects.push(Object::Tunnel(*tunnel).to_string());
    }
    let found = found.into_iter();
    found
        .map(|(reason, objects)| Obstacle { reason, objects })
        .collect()
}

/// What there is, or will be when the plan is carried out.
struct Host<'a> {
    desired: &'a State,
    observed: &'a Observed,
    /// What is on the link of a device.
    networks: OnceCell<BTreeSet<(InterfaceName, ipnet::IpNet)>>,
    /// Gateways that were looked for: many routes share one.
    reached: RefCell<BTreeMap<(InterfaceName, IpAddr), bool>>,
    locals: OnceCell<BTreeSet<IpAddr>>,
}

impl Host<'_> {
    fn reasons(&self, change: &Change) -> BTreeSet<String> {
        let reasons: Vec<Option<String>> = match change {
            Change::Tunnel(_, delta) => {
                let device = delta.after().and_then(|to| to.endpoints().device);
                vec![device.and_then(|device| self.missing(device))]
            }
            Change::Address(key, delta) => {
                vec![delta.after().and_then(|_| self.missing(key.device))]
            }
            Change::Route(_, delta) => match delta.after() {
                Some(route) => self.of_route(route),
                None => Vec::new(),
            },
        };
        reasons.into_iter().flatten().collect()
    }

    fn of_route(&self, route: &Route) -> Vec<Option<String>> {
        let hops = route.nexthops.iter().map(|hop| self.of_hop(hop));
        hops.chain([route.src.and_then(|src| self.no_source(src))])
            .collect()
    }

    fn of_hop(&self, hop: &NextHop) -> Option<String> {
        let Some(device) = hop.device else {
            let via = hop.via?;
            return Some(format!("no device reaches the gateway {via}"));
        };
        let unreached = |via| format!("nothing on {device} reaches the gateway {via}");
        self.missing(device)
            .or_else(|| self.down(device))
            .or_else(|| {
                let via = hop.via.filter(|_| !hop.onlink)?;
                (!self.reaches(device, via)).then(|| unreached(via))
            })
    }

    fn missing(&self, device: InterfaceName) -> Option<String> {
        let there = self.observed.devices.contains_key(&device)
            || self.desired.tunnels.contains_key(&device);
        (!there).then(|| format!("device {device} doesn't exist"))
    }

    /// The kernel has no routes through such a device (`fib_check_nh`, `ip6_route_info_create`).
    fn down(&self, device: InterfaceName) -> Option<String> {
        let up = match self.desired.tunnels.get(&device) {
            Some(tunnel) => tunnel.state == AdminState::Up,
            None => self.observed.devices.get(&device)?.up,
        };
        (!up).then(|| format!("device {device} is down"))
    }

    /// Whether a prefix on the device's link holds the gateway, before or after.
    fn reaches(&self, device: InterfaceName, via: IpAddr) -> bool {
        let link_local = matches!(via, IpAddr::V6(via) if via.is_unicast_link_local());
        let networks = self.networks.get_or_init(|| self.networks());
        let on_link = || prefixes(via).any(|network| networks.contains(&(device, network)));
        let mut reached = self.reached.borrow_mut();
        link_local
            || !self.observed.all_routes
            || *reached.entry((device, via)).or_insert_with(on_link)
    }

    fn networks(&self) -> BTreeSet<(InterfaceName, ipnet::IpNet)> {
        let states = [self.desired, &self.observed.state];
        let addresses = states.iter().flat_map(|state| &state.addresses);
        let networks =
            addresses.filter_map(|(key, address)| Some((key.device, address.network(key)?)));
        let routes = states.iter().flat_map(|state| &state.routes);
        let routes = routes.chain(self.observed.duplicate_routes.iter().map(|(k, r)| (k, r)));
        let on_link = routes.flat_map(|(key, route)| {
            let hops = route.nexthops.iter().filter(|hop| hop.via.is_none());
            hops.filter_map(|hop| Some((hop.device?, key.to)))
        });
        networks.chain(on_link).collect()
    }

    fn no_source(&self, src: IpAddr) -> Option<String> {
        let locals = self.locals.get_or_init(|| {
            let states = [self.desired, &self.observed.state];
            let keys = states.iter().flat_map(|state| state.addresses.keys());
            keys.map(|key| key.local).collect()
        });
        // A prefix may be local by a route of its own (`ip route add local …`).
        let mut routes = self.observed.state.routes.iter();
        let local = locals.contains(&src)
            || !self.observed.all_routes
            || routes.any(|(key, route)| route.kind == RouteType::Other && key.to.contains(&src));
        (!local).then(|| format!("no device has the source address {src}"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::plan::plan;
    use crate::plan::testing::{bare_with, terms, wanted};

    /// What stands against a topology on a host with a device `eth0`, and one `eth1` that is down.
    fn reasons(topology: &str) -> BTreeMap<String, Vec<String>> {
        let mut host = bare_with(&["eth0", "eth1"]);
        if let Some(eth1) = host.devices.get_mut(&"eth1".parse().unwrap()) {
            eth1.up = false;
        }
        let desired = wanted(&format!("name: t\n{topology}"), &host);
        let plan = plan(&desired, Some(&desired.state), &host, &terms("t"));
        let obstacles = plan.obstacles.into_iter();
        obstacles
            .map(|obstacle| (obstacle.reason, obstacle.objects))
            .collect()
    }

    #[test]
    fn what_the_kernel_would_refuse() {
        let cases = [
            (
                "addresses: {eth7: [10.0.0.1/24]}",
                "device eth7 doesn't exist",
            ),
            (
                "tunnels: {tun1: {local: 10.0.0.1, device: eth7}}",
                "device eth7 doesn't exist",
            ),
            (
                "routes: [{to: 10.1.0.0/16, device: eth7}]",
                "device eth7 doesn't exist",
            ),
            (
                "routes: [{to: 10.1.0.0/16, device: eth1}]",
                "device eth1 is down",
            ),
            (
                "routes: [{to: 10.1.0.0/16, via: 172.16.0.1, device: eth0}]",
                "nothing on eth0 reaches the gateway 172.16.0.1",
            ),
            (
                "routes: [{to: 10.1.0.0/16, via: 172.16.0.1}]",
                "no device reaches the gateway 172.16.0.1",
            ),
            (
                "routes: [{to: 10.1.0.0/16, device: eth0, src: 172.16.0.1}]",
                "no device has the source address 172.16.0.1",
            ),
            (
                "tunnels: {tun1: {local: {device: eth0}}}",
                "device eth0 has no IPv4 address to be its `local`",
            ),
        ];
        for (topology, reason) in cases {
            let found = reasons(topology);
            assert_eq!(found.len(), 1, "{topology}: {found:?}");
            assert!(found.contains_key(reason), "{topology}: {found:?}");
        }
    }

    #[test]
    fn what_it_would_take() {
        let cases = [
            "addresses: {eth0: [172.16.0.2/24]}\nroutes: [{to: 10.1.0.0/16, via: 172.16.0.1, device: eth0, src: 172.16.0.2}]",
            "routes: [{to: 172.16.0.0/24, device: eth0}, {to: 10.1.0.0/16, via: 172.16.0.1, device: eth0}]",
            "routes: [{to: 10.1.0.0/16, via: 172.16.0.1, device: eth0, onlink: true}]",
            "routes: [{to: 2001:db8::/32, via: 'fe80::1', device: eth0}]",
            "tunnels: {tun1: {local: 10.0.0.1, routes: [10.1.0.0/16]}}",
        ];
        for topology in cases {
            assert_eq!(reasons(topology), BTreeMap::new(), "{topology}");
        }
    }

    /// It's no obstacle: the kernel takes it.
    #[test]
    fn an_mtu_that_the_outer_path_has_not() {
        let warnings = |mtu: &str| {
            let topology = format!(
                "name: t\ntunnels: {{tun1: {{device: eth0, remote: 10.0.0.2, mtu: {mtu}}}}}"
            );
            let host = bare_with(&["eth0"]);
            let desired = wanted(&topology, &host);
            plan(&desired, Some(&desired.state), &host, &terms("t")).warnings
        };
        assert_eq!(warnings("1480"), [""; 0]);
        assert_eq!(warnings("auto"), [""; 0]);
        let found = warnings("1500");
        assert_eq!(found.len(), 1);
        assert!(
            found[0].contains("the outer path carries 1480"),
            "{found:?}"
        );
    }

    #[test]
    fn a_reason_is_said_once() {
        let found =
            reasons("routes: [{to: 10.1.0.0/16, device: eth7}, {to: 10.2.0.0/16, device: eth7}]");
        let objects = &found["device eth7 doesn't exist"];
        assert_eq!(objects, &["route 10.1.0.0/16", "route 10.2.0.0/16"]);
    }
}
