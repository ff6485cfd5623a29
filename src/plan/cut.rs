//! The branch that the operator sits on: addresses whose way a plan removes or redirects.
//!
//! The kernel says which way it is now. Where it will be is predicted in the same table: policy rules are taken to stay.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::model::Model;
use super::{Change, Cut, Delta, Plan};
use crate::state::{
    Address, AddressKey, InterfaceName, MAIN_TABLE, NextHop, Observed, Route, RouteKey, RouteType,
    State, Tunnel, prefixes,
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
    let mut model = Model::new(observed);
    for step in &plan.steps {
        model.step(&plan.changes, *step);
    }
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
struct Way(Vec<NextHop>);

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
        (_, Some((_, device))) => Some(Way(vec![NextHop {
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
        let key = |tos, metric| RouteKey {
            table,
            to,
            tos,
            metric,
        };
        state.routes.range(key(0, 0)..=key(0, u32::MAX)).next()
    })
}
