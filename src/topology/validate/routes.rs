//! The rules of routes, each by itself.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Check, given_twice, never_an_address, tunnel_path};
use crate::source::Path;
use crate::state::{IPV6_MIN_MTU, InterfaceName, RouteType, Scope};
use crate::topology::{Destination, Endpoint, Ip, NextHop, Route};

/// The kernel cuts a route's MTU down to this (`ip_metrics_convert` in `net/ipv4/metrics.c`).
const MAX_MTU: u32 = 65535 - 15;
/// And the segment size to this.
const MAX_ADVMSS: u32 = 65535 - 40;

/// An attribute's length has 16 bits, and an IPv6 next hop takes 28 bytes of it; far more than anybody balances over.
const MAX_NEXT_HOPS: usize = 1024;

/// A route with the place where it's written.
#[derive(Clone, Copy)]
pub(super) struct Written<'a> {
    pub(super) route: &'a Route,
    /// The tunnel in whose list it is.
    pub(super) tunnel: Option<InterfaceName>,
    index: usize,
}

impl Written<'_> {
    fn path(&self) -> Path {
        self.tunnel
            .map_or_else(Path::default, tunnel_path)
            .key("routes")
            .index(self.index)
    }

    fn at(&self, key: &str) -> Path {
        self.path().key(key)
    }

    /// The key of a way out: the route's own, or that of one of its `nexthops`.
    pub(super) fn hop(&self, index: usize, key: &str) -> Path {
        if self.route.nexthops.is_empty() {
            self.at(key)
        } else {
            self.at("nexthops").index(index).key(key)
        }
    }

    /// The device of a way out, where the file names one.
    pub(super) fn device(&self, hop: &NextHop) -> Option<InterfaceName> {
        self.tunnel.or(hop.device)
    }

    fn is_ipv6(&self) -> bool {
        matches!(self.route.prefix(), IpNet::V6(_))
    }
}

impl<'a> Check<'a> {
    pub(super) fn written_routes(&self) -> impl Iterator<Item = Written<'a>> + use<'a> {
        let topology = self.topology;
        let of_tunnels = topology
            .tunnels
            .iter()
            .map(|(name, tunnel)| (Some(*name), &tunnel.routes));
        of_tunnels
            .chain([(None, &topology.routes)])
            .flat_map(|(tunnel, list)| {
                list.iter().enumerate().map(move |(index, route)| Written {
                    route,
                    tunnel,
                    index,
                })
            })
    }

    pub(super) fn routes(&mut self) {
        for written in self.written_routes() {
            self.route(&written);
        }
        for (first, again) in self.given_twice() {
            let key = again.route.key();
            let message =
                format!("route {key} is given twice (same table, prefix, tos and metric)");
            let help = "give the first `nexthops` for several ways out, or this one another `metric` for a spare way";
            self.duplicate(&again.path(), &first.path(), message).help = Some(help.into());
        }
    }

    /// Each route whose key an earlier one has, with the last such.
    fn given_twice(&self) -> Vec<(Written<'a>, Written<'a>)> {
        let keys = || self.written_routes().map(|written| written.route.key());
        // A sorted file, of which nothing has to be remembered.
        if keys().is_sorted_by(|one, next| one < next) {
            return Vec::new();
        }
        let pairs = given_twice(keys().zip(0_usize..).collect());
        if pairs.is_empty() {
            return Vec::new();
        }
        let routes: Vec<Written> = self.written_routes().collect();
        pairs
            .into_iter()
            .map(|(first, again)| (routes[first], routes[again]))
            .collect()
    }

    fn route(&mut self, written: &Written) {
        match written.route.kind {
            RouteType::Unicast => self.leads_somewhere(written),
            _ => self.leads_nowhere(written),
        }
        if let Some(tunnel) = written.tunnel {
            self.of_tunnel(written, tunnel);
        }
        self.nexthops(written);
        self.onlink(written);
        self.direct(written);
        self.scope(written);
        self.numbers(written);
        self.families(written);
        self.host_addresses(written);
        self.through_tunnels(written);
    }

    fn leads_somewhere(&mut self, written: &Written) {
        let Written { route, tunnel, .. } = written;
        if tunnel.is_none() && route.hops().is_empty() {
            let message = format!("route {} leads nowhere", route.key());
            self.error(&written.path(), message).help =
                Some("give `via`, `device` or `nexthops`, or a `type` such as blackhole".into());
        }
    }

    fn leads_nowhere(&mut self, written: &Written) {
        let Written { route, tunnel, .. } = written;
        let kind = route.kind;
        if tunnel.is_some() {
            let message = format!(
                "{} {kind} route goes nowhere, so not through a tunnel",
                article(kind)
            );
            self.error(&written.at("type"), message).help =
                Some("move it to the top-level `routes`".into());
        } else if !route.hops().is_empty() {
            let message = format!(
                "{} {kind} route has no `via`, `device` or `nexthops`",
                article(kind)
            );
            self.error(&written.at("type"), message);
        }
        if route.mtu.is_some() || route.advmss.is_some() {
            let message = format!("{} {kind} route has no `mtu` or `advmss`", article(kind));
            self.error(&written.at("type"), message);
        }
    }

    /// A route in a tunnel's list has its device already.
    fn of_tunnel(&mut self, written: &Written, tunnel: InterfaceName) {
        let route = written.route;
        let elsewhere = [
            (
                "device",
                route.device.is_some_and(|device| device != tunnel),
            ),
            ("nexthops", !route.nexthops.is_empty()),
        ];
        for (key, given) in elsewhere {
            if given {
                let message = format!("a route in {tunnel}'s list goes through {tunnel}");
                self.error(&written.at(key), message).help =
                    Some("move it to the top-level `routes`".into());
            }
        }
    }

    fn nexthops(&mut self, written: &Written) {
        let route = written.route;
        let inline = route.via.is_some() || route.device.is_some();
        if inline && !route.nexthops.is_empty() {
            self.error(
                &written.at("nexthops"),
                "`nexthops` stands instead of `via` and `device`, not beside them",
            );
        }
        for (index, hop) in route.nexthops.iter().enumerate() {
            if hop.via.is_none() && hop.device.is_none() {
                let path = written.at("nexthops").index(index);
                self.error(&path, "a next hop needs `via`, `device` or both");
            }
            if let Some(weight) = hop.weight.filter(|weight| !(1..=256).contains(weight)) {
                let message = format!("`weight` is 1 to 256, found {weight}");
                self.error(&written.hop(index, "weight"), message);
            }
        }
    }

    fn onlink(&mut self, written: &Written) {
        let route = written.route;
        if route.onlink && !route.nexthops.is_empty() {
            self.error(
                &written.at("onlink"),
                "with `nexthops`, each of them has its own `onlink`",
            );
        } else if route.onlink && route.via.is_none() {
            self.error(
                &written.at("onlink"),
                "`onlink` is about a gateway: `via` is missing",
            );
        }
        for (index, hop) in route.nexthops.iter().enumerate() {
            if hop.onlink && hop.via.is_none() {
                self.error(
                    &written.hop(index, "onlink"),
                    "`onlink` is about a gateway: `via` is missing",
                );
            }
        }
    }

    /// Without the tunnel needs a tunnel, its own outer address, and the host to go to.
    fn direct(&mut self, written: &Written) {
        let listed = !written.route.nexthops.is_empty();
        if written.route.direct && listed {
            let message = "with `nexthops`, each of them has its own `direct`";
            self.error(&written.at("direct"), message);
        }
        for (index, hop) in written.route.hops().iter().enumerate() {
            if !hop.direct {
                continue;
            }
            let tunnel = written
                .device(hop)
                .and_then(|device| self.topology.tunnels.get(&device));
            let local = tunnel.and_then(|tunnel| self.topology.tunnel(tunnel).get(|t| &t.local));
            let problem = if hop.via.is_none() {
                (
                    "`direct` is about a gateway: `via` is missing",
                    "name the other host's underlay address",
                )
            } else if tunnel.is_none() {
                (
                    "`direct` leaves a tunnel aside, and this way leads through none of this file's",
                    "leave it out",
                )
            } else if local.is_none_or(|end| end == Endpoint::Any) {
                (
                    "`direct` goes by the network of the tunnel's `local`, which is not given",
                    "give the tunnel its `local`",
                )
            } else {
                continue;
            };
            self.error(&written.hop(index, "direct"), problem.0).help = Some(problem.1.into());
        }
    }

    /// What a gateway leads to is beyond the link (`fib_check_nh` in `net/ipv4/fib_semantics.c`).
    fn scope(&mut self, written: &Written) {
        let Written { route, .. } = written;
        let gateway = route.hops().iter().any(|hop| hop.via.is_some());
        if gateway && !written.is_ipv6() && route.scope.is_some_and(|scope| scope >= Scope::LINK) {
            self.error(
                &written.at("scope"),
                "a route with a gateway leads beyond the link: the kernel refuses this scope",
            )
            .help = Some("leave `scope` out".into());
        }
    }

    fn numbers(&mut self, written: &Written) {
        let route = written.route;
        let (least, family) = match written.is_ipv6() {
            true => (IPV6_MIN_MTU, "an IPv6"),
            false => (68, "an IPv4"),
        };
        if let Some(mtu) = route.mtu.filter(|mtu| !(least..=MAX_MTU).contains(mtu)) {
            let message =
                format!("{family} route's `mtu` is {least} to {MAX_MTU} bytes, found {mtu}");
            self.error(&written.at("mtu"), message);
        }
        if let Some(advmss) = route.advmss.filter(|mss| !(1..=MAX_ADVMSS).contains(mss)) {
            let message = format!("`advmss` is 1 to {MAX_ADVMSS} bytes, found {advmss}");
            self.error(&written.at("advmss"), message);
        }
        if route.nexthops.len() > MAX_NEXT_HOPS {
            let found = route.nexthops.len();
            let message = format!("a route has at most {MAX_NEXT_HOPS} next hops, found {found}");
            self.error(&written.at("nexthops"), message);
        }
    }

    fn families(&mut self, written: &Written) {
        let route = written.route;
        let ipv6 = written.is_ipv6();
        let hops = route.hops();
        let other = |ip: &Ip| ip.0.is_ipv6() != ipv6;
        let vias = hops.iter().enumerate();
        let vias = vias.filter_map(|(index, hop)| Some((index, hop.via.filter(other)?)));
        let vias = vias.map(|(index, via)| (written.hop(index, "via"), via.0));
        let src = route
            .src
            .filter(other)
            .map(|src| (written.at("src"), src.0));
        for (path, ip) in vias.chain(src) {
            let message = format!("route {} and {ip} are of two families", route.key());
            let problem = self.error(&path, message);
            if route.to == Destination::Default && !ipv6 {
                problem.help = Some("write `to: ::/0` for the default route of IPv6".into());
            }
        }
        let several = ipv6 && route.nexthops.len() > 1;
        for (index, _) in hops
            .iter()
            .enumerate()
            .filter(|(_, hop)| several && hop.via.is_none())
        {
            let message = "a next hop without `via`: IPv6 takes none among several (`ip6_route_multipath_add`)";
            self.error(&written.at("nexthops").index(index), message)
                .help = Some("give the gateway, or one route with `device` alone".into());
        }
        for (key, given) in [("scope", route.scope.is_some()), ("tos", route.tos.0 != 0)] {
            if given && ipv6 {
                self.error(&written.at(key), format!("IPv6 routes have no `{key}`"));
            }
        }
    }

    /// Gateways and sources are hosts.
    fn host_addresses(&mut self, written: &Written) {
        for (index, hop) in written.route.hops().iter().enumerate() {
            let Some(via) = hop.via.map(|via| via.0) else {
                continue;
            };
            if let Some(kind) = never_an_address(via) {
                let message = format!("a gateway can't be {kind} address");
                self.error(&written.hop(index, "via"), message);
            }
            let link_local = matches!(via, IpAddr::V6(ip) if ip.is_unicast_link_local());
            if link_local && written.device(hop).is_none() {
                self.error(
                    &written.hop(index, "via"),
                    format!(
                        "the gateway {via} is link-local: it means nothing without its `device`"
                    ),
                )
                .help = Some("name the `device` beside it".into());
            }
        }
        if let Some(kind) = written.route.src.and_then(|src| never_an_address(src.0)) {
            let message = format!("`src` can't be {kind} address");
            self.error(&written.at("src"), message);
        }
    }

    /// What an ipip tunnel, or one that is down, can't do for a route.
    fn through_tunnels(&mut self, written: &Written) {
        let route = written.route;
        let hops = route.hops();
        let devices = hops.iter().map(|hop| written.device(hop));
        let devices = devices.chain([written.tunnel]).flatten();
        for device in devices.filter(|device| self.topology.tunnels.contains_key(device)) {
            if written.is_ipv6() && self.ipv6_in_ipip.insert(device) {
                let message = format!(
                    "{device} is an ipip tunnel and carries IPv4 only: it drops every packet that takes {}",
                    route.key()
                );
                self.warning(&written.path(), message);
            }
            if written.tunnel.is_none() && self.is_down(device) {
                let message =
                    format!("{device} is down in this file: the kernel refuses a route through it");
                self.error(&written.path(), message).help = Some(format!(
                    "leave the route out, or set `tunnels.{device}.state: up`"
                ));
            }
        }
    }
}

fn article(kind: RouteType) -> &'static str {
    match kind {
        RouteType::Unreachable | RouteType::Other => "an",
        RouteType::Unicast | RouteType::Blackhole | RouteType::Prohibit | RouteType::Throw => "a",
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::check;

    fn check_routes(cases: &[(&str, &[&str])]) {
        for (routes, expected) in cases {
            check(&[(&format!("routes:\n{routes}"), expected)]);
        }
    }

    #[test]
    fn routes_are_given_once() {
        check_routes(&[
            (
                "- {to: 10.0.0.0/8, device: a}\n- »{to: 10.0.0.0/8, device: b}",
                &["route 10.0.0.0/8 is given twice"],
            ),
            (
                "- {to: default, device: a}\n- »{to: 0.0.0.0/0, device: b}",
                &["route default is given twice"],
            ),
            (
                "- {to: 10.0.0.0/8, device: a}\n- »{to: 10.0.0.0/8, type: blackhole, table: 254}",
                &["given twice"],
            ),
            (
                "- {to: \"2001:db8::/32\", device: a}\n- »{to: \"2001:db8::/32\", device: b, metric: 1024}",
                &["given twice"],
            ),
            (
                "- {to: 10.0.0.0/8, device: a}\n- {to: 10.0.0.0/8, device: a, metric: 5}",
                &[],
            ),
            (
                "- {to: 10.0.0.0/8, device: a}\n- {to: 10.0.0.0/8, device: a, tos: 16}",
                &[],
            ),
            (
                "- {to: 10.0.0.0/8, device: a}\n- {to: 10.0.0.0/8, device: a, table: 10}",
                &[],
            ),
            (
                "- {to: 10.0.0.0/8, device: a}\n- {to: 10.0.0.0/9, device: a}",
                &[],
            ),
            (
                "- {to: default, device: a}\n- {to: \"::/0\", device: a}",
                &[],
            ),
        ]);
        check(&[(
            "tunnels: {tun1: {local: 10.0.0.1, routes: [10.0.0.0/8]}}\nroutes: [»{to: 10.0.0.0/8, device: eth0}]",
            &["routes[0]: route 10.0.0.0/8 is given twice"],
        )]);
    }

    #[test]
    fn routes_lead_somewhere_or_say_that_they_do_not() {
        check_routes(&[
            ("- »10.0.0.0/8", &["route 10.0.0.0/8 leads nowhere"]),
            ("- »{to: default}", &["route default leads nowhere"]),
            (
                "- {to: 10.0.0.0/8, nexthops: [»{weight: 2}, {device: a}]}",
                &["a next hop needs `via`, `device` or both"],
            ),
            (
                "- {to: 10.0.0.0/8, type: »blackhole, device: a}",
                &["a blackhole route has no `via`, `device` or `nexthops`"],
            ),
            (
                "- {to: 10.0.0.0/8, type: »unreachable, mtu: 1400}",
                &["an unreachable route has no `mtu`"],
            ),
            ("- {to: 10.0.0.0/8, type: throw, table: 10, metric: 5}", &[]),
            (
                "- {to: 10.0.0.0/8, device: a, »nexthops: [{device: b}]}",
                &["`nexthops` stands instead of"],
            ),
            (
                "- {to: 10.0.0.0/8, nexthops: [{device: a, weight: »0}]}",
                &["`weight` is 1 to 256, found 0"],
            ),
            (
                "- {to: 10.0.0.0/8, nexthops: [{device: a, weight: »257}]}",
                &["`weight` is 1 to 256, found 257"],
            ),
            (
                "- {to: 10.0.0.0/8, nexthops: [{device: a, weight: 256}, {via: 192.0.2.1, device: b}]}",
                &[],
            ),
        ]);
    }

    #[test]
    fn onlink_needs_a_gateway() {
        check_routes(&[
            (
                "- {to: 10.0.0.0/8, device: a, onlink: »true}",
                &["`via` is missing"],
            ),
            (
                "- {to: 10.0.0.0/8, nexthops: [{device: a, onlink: »true}]}",
                &["`via` is missing"],
            ),
            (
                "- {to: 10.0.0.0/8, onlink: »true, nexthops: [{via: 192.0.2.1, device: a}]}",
                &["each of them has its own `onlink`"],
            ),
            (
                "- {to: 10.0.0.0/8, via: 192.0.2.1, device: a, onlink: true}",
                &[],
            ),
        ]);
    }

    #[test]
    fn gateways_lead_beyond_the_link() {
        check_routes(&[
            (
                "- {to: 10.0.0.0/8, via: 192.0.2.1, device: a, scope: »link}",
                &["a route with a gateway leads beyond the link"],
            ),
            (
                "- {to: 10.0.0.0/8, scope: »host, nexthops: [{device: a}, {via: 192.0.2.1, device: b}]}",
                &["beyond the link"],
            ),
            (
                "- {to: 10.0.0.0/8, via: 192.0.2.1, device: a, scope: 200}",
                &[],
            ),
            ("- {to: 10.0.0.0/8, device: a, scope: link}", &[]),
        ]);
    }

    #[test]
    fn numbers_stay_what_they_are_in_the_kernel() {
        check_routes(&[
            (
                "- {to: 10.0.0.0/8, device: a, mtu: »67}",
                &["an IPv4 route's `mtu` is 68 to 65520 bytes, found 67"],
            ),
            (
                "- {to: 10.0.0.0/8, device: a, mtu: »65521}",
                &["found 65521"],
            ),
            (
                "- {to: \"2001:db8::/32\", device: a, mtu: »1279}",
                &["an IPv6 route's `mtu` is 1280"],
            ),
            (
                "- {to: 10.0.0.0/8, device: a, advmss: »0}",
                &["`advmss` is 1 to 65495 bytes"],
            ),
            (
                "- {to: 10.0.0.0/8, device: a, advmss: »65496}",
                &["`advmss` is 1 to 65495 bytes"],
            ),
            (
                "- {to: 10.0.0.0/8, device: a, mtu: 65520, advmss: 65495}",
                &[],
            ),
        ]);
    }

    #[test]
    fn families_do_not_mix() {
        check_routes(&[
            (
                "- {to: 10.0.0.0/8, via: »\"fe80::1\", device: a}",
                &["10.0.0.0/8 and fe80::1 are of two families"],
            ),
            (
                "- {to: 10.0.0.0/8, device: a, src: »\"2001:db8::1\"}",
                &["are of two families"],
            ),
            (
                "- {to: \"2001:db8::/32\", nexthops: [{via: \"2001:db8:1::1\", device: a}, {via: »192.0.2.1, device: a}]}",
                &["are of two families"],
            ),
            (
                "- {to: default, device: a, src: »\"2001:db8::1\"}",
                &["route default and 2001:db8::1"],
            ),
            (
                "- {to: default, via: \"2001:db8::1\", device: a, src: \"2001:db8::2\"}",
                &[],
            ),
            (
                "- {to: \"2001:db8::/32\", device: a, scope: »link}",
                &["IPv6 routes have no `scope`"],
            ),
            (
                "- {to: \"2001:db8::/32\", device: a, tos: »16}",
                &["IPv6 routes have no `tos`"],
            ),
        ]);
    }

    #[test]
    fn gateways_and_sources_are_hosts() {
        check_routes(&[
            (
                "- {to: 10.0.0.0/8, via: »224.0.0.1, device: a}",
                &["a gateway can't be a multicast address"],
            ),
            (
                "- {to: 10.0.0.0/8, via: »0.0.0.0, device: a}",
                &["a gateway can't be the unspecified address"],
            ),
            (
                "- {to: 10.0.0.0/8, device: a, src: »255.255.255.255}",
                &["`src` can't be the broadcast address"],
            ),
            (
                "- {to: default, via: »\"fe80::1\"}",
                &["is link-local: it means nothing without its `device`"],
            ),
            ("- {to: default, via: \"fe80::1\", device: a}", &[]),
            (
                "- {to: \"2001:db8::/32\", nexthops: [»{device: a}, {via: \"2001:db8:1::1\", device: b}]}",
                &["a next hop without `via`"],
            ),
            ("- {to: \"2001:db8::/32\", nexthops: [{device: a}]}", &[]),
            (
                "- {to: default, via: 169.254.1.1, device: a, onlink: true}",
                &[],
            ),
            ("- {to: 224.0.0.0/4, device: a}", &[]),
        ]);
    }

    #[test]
    fn next_hops_fit_into_a_message() {
        for (count, expected) in [(1024, 0), (1025, 1)] {
            let hops = vec!["{via: 192.0.2.1, device: a}"; count].join(", ");
            let source = format!("name: t\nroutes: [{{to: 10.0.0.0/8, nexthops: [{hops}]}}]");
            let problems = crate::topology::Topology::parse("test.yaml", &source).err();
            assert_eq!(
                problems.map_or(0, |problems| problems.list.len()),
                expected,
                "{count}"
            );
        }
    }

    #[test]
    fn a_tunnels_routes_go_through_it() {
        let tunnel =
            |route: &str| format!("tunnels: {{tun1: {{local: 10.0.0.1, routes: [{route}]}}}}");
        for (route, expected) in [
            (
                "{to: 10.0.0.0/8, device: »eth0}",
                &["a route in tun1's list goes through tun1"][..],
            ),
            ("{to: 10.0.0.0/8, device: tun1}", &[]),
            (
                "{to: 10.0.0.0/8, »nexthops: [{device: tun1}]}",
                &["a route in tun1's list"],
            ),
            (
                "{to: 10.0.0.0/8, type: »blackhole}",
                &["a blackhole route goes nowhere"],
            ),
            ("{to: 10.0.0.0/8, onlink: »true}", &["`via` is missing"]),
            (
                "»\"2001:db8::/32\", \"2001:db8:1::/48\"",
                &["warning: tun1 is an ipip tunnel and carries IPv4 only"],
            ),
        ] {
            check(&[(&tunnel(route), expected)]);
        }
        check(&[
            (
                "tunnels: {tun1: {local: 10.0.0.1, state: down}}\nroutes: [»{to: 10.0.0.0/8, device: tun1}]",
                &["tun1 is down in this file"],
            ),
            (
                "tunnels: {tun1: {local: 10.0.0.1}, tun2: {local: 10.0.0.2}}\nroutes: [{to: 10.0.0.0/8, nexthops: [{device: tun1}, {device: tun2, weight: 2}]}]",
                &[],
            ),
        ]);
    }
}
