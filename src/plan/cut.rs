//! The branch that the operator sits on: addresses whose way a plan removes or redirects.
//!
//! The kernel says which way it is now. Where it will be is predicted in the same table: policy rules are taken to stay.

use std::collections::BTreeSet;
use std::net::IpAddr;

use smallvec::smallvec;

use super::model::Model;
use super::{Change, Cut, Delta, Plan};
use crate::state::{
    Address, AddressKey, InterfaceName, MAIN_TABLE, NextHop, NextHops, Observed, Route, RouteKey,
    RouteType, State, Tunnel, prefixes,
};

/// Whether changes may touch the way to one of the addresses, so that it's worth to know every route.
pub(super) fn may_cut(plan: &Plan, wards: &BTreeSet<IpAddr>, observed: &Observed) -> bool {
    let on_the_way = |device: InterfaceName| {
        let mut paths = wards.iter().filter_map(|ward| observed.paths.get(ward));
        paths.any(|path| path.device == device)
    };
    !wards.is_empty()
        && plan.changes.iter().any(|change| match change {
            Change::Tunnel(name, _) => on_the_way(*name),
            Change::Address(key, delta) => {
                let states = delta.before().into_iter().chain(delta.after());
                let mut networks = states.filter_map(|address| address.network(key));
                on_the_way(key.device)
                    || wards.contains(&key.local)
                    || networks.any(|network| wards.iter().any(|ward| network.contains(ward)))
            }
            Change::Route(key, _) => wards.iter().any(|ward| key.to.contains(ward)),
        })
}

/// The addresses whose way the plan removes or redirects. Of the host's own, those that it removes.
pub(super) fn cuts(plan: &Plan, wards: &BTreeSet<IpAddr>, observed: &Observed) -> Vec<Cut> {
    if !observed.all_routes || !may_cut(plan, wards, observed) {
        return Vec::new();
    }
    let model = Model::carried_out(plan, observed);
    let after = model.state();
    let cuts = wards.iter().filter_map(|ward| {
        let why = match is_local(&observed.state, *ward) {
            true => (!is_local(after, *ward)).then(|| "it's an address here that goes".into()),
            false => redirected(plan, observed, after, *ward),
        };
        why.map(|why| Cut {
            address: *ward,
            why,
        })
    });
    cuts.collect()
}

fn is_local(state: &State, address: IpAddr) -> bool {
    state.addresses.keys().any(|key| key.local == address)
}

fn redirected(plan: &Plan, observed: &Observed, after: &State, ward: IpAddr) -> Option<String> {
    // What can't be reached now can't be cut.
    let path = observed.paths.get(&ward)?;
    let before = way(&observed.state, path.table, ward)?;
    let Some(then) = way(after, path.table, ward) else {
        return Some(format!("its way ({before}) goes"));
    };
    if then != before {
        return Some(format!("its way is {before} now, and then {then}"));
    }
    let tunnels = plan.changes.iter().filter_map(|change| match change {
        Change::Tunnel(name, delta) if *name == path.device => Some((name, delta)),
        Change::Tunnel(..) | Change::Address(..) | Change::Route(..) => None,
    });
    let mut changed = tunnels.filter(|(_, delta)| leads_elsewhere(delta));
    let (name, _) = changed.next()?;
    Some(format!("its way leads through {name}, whose ends change"))
}

fn leads_elsewhere(delta: &Delta<Tunnel>) -> bool {
    match delta {
        Delta::Update { from, to } => from.endpoints() != to.endpoints(),
        Delta::Replace { .. } | Delta::Delete { .. } => true,
        Delta::Create(_) | Delta::Restore { .. } => false,
    }
}

/// Where packets leave by: a route, or an address's network.
#[derive(PartialEq, Eq)]
struct Way(NextHops);

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hops = self.0.iter().map(|hop| {
            let via = hop.via.map(|via| format!("via {via} "));
            let device = hop.device.map(|device| format!("dev {device}"));
            format!("{}{}", via.unwrap_or_default(), device.unwrap_or_default())
        });
        f.write_str(&hops.collect::<Vec<_>>().join(", "))
    }
}

/// The way by a table's routes; in the main table, also by the networks of addresses, whose routes the kernel makes.
fn way(state: &State, table: u32, ward: IpAddr) -> Option<Way> {
    let route = longest(state, table, ward);
    let networks = state.addresses.iter().filter_map(|(key, address)| {
        let network = on_link(key, address)?;
        network.contains(&ward).then_some((network, key.device))
    });
    let network = networks
        .filter(|_| table == MAIN_TABLE)
        .max_by_key(|(network, _)| network.prefix_len());
    match (route, network) {
        (Some((key, route)), network)
            if network.is_none_or(|(network, _)| network.prefix_len() <= key.to.prefix_len()) =>
        {
            (route.kind == RouteType::Unicast).then(|| Way(route.nexthops.clone()))
        }
        (_, Some((_, device))) => Some(Way(smallvec![NextHop {
            via: None,
            device: Some(device),
            weight: 1,
            onlink: false,
        }])),
        (Some(_) | None, None) => None,
    }
}

fn on_link(key: &AddressKey, address: &Address) -> Option<ipnet::IpNet> {
    address.network(key).filter(|_| !address.noprefixroute)
}

fn longest(state: &State, table: u32, ward: IpAddr) -> Option<(&RouteKey, &Route)> {
    prefixes(ward).find_map(|to| {
        let key = RouteKey {
            table,
            to,
            tos: 0,
            metric: 0,
        };
        state.routes.range(key.any_metric()).next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{bare_with, terms, wanted};
    use crate::plan::{Terms, plan};

    const WARD: &str = "203.0.113.5";

    /// A host that reaches the ward by its default route, and the network of `eth0` directly.
    fn host() -> Observed {
        let mut host = bare_with(&["eth0"]);
        let topology = "name: o\naddresses: {eth0: [192.0.2.1/24]}\nroutes: [{to: default, via: 192.0.2.254, device: eth0}]";
        host.state = wanted(topology, &host).state;
        host.state
            .addresses
            .values_mut()
            .for_each(|a| a.protocol = 0);
        host.state.routes.values_mut().for_each(|r| r.protocol = 4);
        host
    }

    /// Why a topology would cut one of these addresses off.
    fn cut_by(topology: &str, wards: &[&str]) -> Vec<String> {
        let mut host = host();
        let wards: BTreeSet<IpAddr> = wards.iter().map(|ward| ward.parse().unwrap()).collect();
        host.paths = wards
            .iter()
            .filter_map(|ward| Some((*ward, host.path_to(*ward)?)))
            .collect();
        let terms = Terms {
            protect: wards,
            adopt: true,
            ..terms("t")
        };
        let desired = wanted(&format!("name: t\n{topology}"), &host);
        let plan = plan(&desired, Some(&desired.state), &host, &terms);
        plan.cuts.into_iter().map(|cut| cut.why).collect()
    }

    #[test]
    fn the_way_may_not_change() {
        let cases = [
            (
                "routes: [{to: 203.0.113.0/24, type: blackhole}]",
                "its way (via 192.0.2.254 dev eth0) goes",
            ),
            (
                "routes: [{to: default, via: 192.0.2.9, device: eth0}]",
                "its way is via 192.0.2.254 dev eth0 now, and then via 192.0.2.9 dev eth0",
            ),
            (
                "tunnels: {tun1: {local: 192.0.2.1, remote: 198.51.100.1, routes: [203.0.113.0/24]}}",
                "its way is via 192.0.2.254 dev eth0 now, and then dev tun1",
            ),
        ];
        for (topology, why) in cases {
            assert_eq!(cut_by(topology, &[WARD]), [why], "{topology}");
        }
    }

    #[test]
    fn what_is_elsewhere_may() {
        let cases = [
            "routes: [{to: 198.51.100.0/24, type: blackhole}]",
            "routes: [{to: 203.0.113.0/24, via: 192.0.2.254, device: eth0}]",
            "routes: [{to: 203.0.113.0/24, type: blackhole, table: 100}]",
            "tunnels: {tun1: {local: 192.0.2.1, remote: 198.51.100.1, routes: [10.0.0.0/8]}}",
            "addresses: {eth0: [192.0.2.7/24]}",
        ];
        for topology in cases {
            assert_eq!(
                cut_by(topology, &[WARD, "192.0.2.1"]),
                [""; 0],
                "{topology}"
            );
        }
    }

    #[test]
    fn an_unreachable_address_cannot_be_cut_off() {
        let topology = "routes: [{to: '2001:db8::/32', type: blackhole}]";
        assert_eq!(cut_by(topology, &["2001:db8::5"]), [""; 0]);
    }
}
