//! What the kernel does to a state when a step is carried out, including what it drops by itself.
//!
//! The order of a plan rests on this model, and so does what a plan puts back. Where the kernel's behaviour depends on
//! a setting (`promote_secondaries`, `keep_addr_on_down`), the model takes the setting that drops more: putting back
//! what is still there changes nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Change, Part, Step};
use crate::state::{AddressKey, AdminState, InterfaceName, MAIN_TABLE, Route, State};

/// Carries out `step` on `state`. `secondaries` are the addresses that stand behind another in their network.
pub fn simulate(
    state: &mut State,
    secondaries: &BTreeSet<AddressKey>,
    changes: &[Change],
    step: Step,
) {
    let Some(change) = changes.get(step.change) else {
        return;
    };
    match (change, step.part) {
        (Change::Tunnel(name, _), Part::Remove) => {
            state.tunnels.remove(name);
            drop_device(state, *name);
        }
        (Change::Tunnel(name, delta), Part::Put) => {
            let Some(to) = delta.after() else { return };
            let was = state.tunnels.insert(*name, to.clone());
            if to.state == AdminState::Down && was.is_some_and(|was| was.state == AdminState::Up) {
                set_down(state, *name);
            }
        }
        (Change::Address(key, _), Part::Remove) => drop_address(state, secondaries, *key),
        (Change::Address(key, delta), Part::Put) => {
            let Some(to) = delta.after() else { return };
            state.addresses.insert(*key, to.clone());
        }
        // One of two routes with the same key: what's left is the other.
        (Change::Route(key, delta), Part::Remove) if state.routes.get(key) == delta.before() => {
            state.routes.remove(key);
        }
        (Change::Route(..), Part::Remove) => {}
        (Change::Route(key, delta), Part::Put) => {
            let Some(to) = delta.after() else { return };
            state.routes.insert(*key, to.clone());
        }
    }
}

/// A device that goes takes its addresses and routes along. An IPv4 route goes as a whole (`fib_sync_down_dev`), an
/// IPv6 one hop by hop (`rt6_disable_ip`).
fn drop_device(state: &mut State, device: InterfaceName) {
    let gone: Vec<_> = state
        .addresses
        .keys()
        .filter(|key| key.device == device)
        .copied()
        .collect();
    for key in gone {
        state.addresses.remove(&key);
        drop_preferred_source(state, key);
    }
    state.routes.retain(|key, route| {
        let concerned = route.devices().any(|on| on == device);
        if concerned && key.to.addr().is_ipv6() {
            route.nexthops.retain(|hop| hop.device != Some(device));
        }
        !concerned || (key.to.addr().is_ipv6() && !route.nexthops.is_empty())
    });
}

/// A device that is set down keeps its IPv4 addresses and loses its routes; of several next hops those on it are dead
/// until it's up again.
fn set_down(state: &mut State, device: InterfaceName) {
    state
        .addresses
        .retain(|key, _| key.device != device || key.local.is_ipv4());
    state.routes.retain(|_, route| {
        !route.devices().any(|on| on == device) || route.devices().any(|on| on != device)
    });
}

/// An address that goes may take along the secondaries of its network, and the routes that prefer it as their source.
fn drop_address(state: &mut State, secondaries: &BTreeSet<AddressKey>, key: AddressKey) {
    let Some(address) = state.addresses.remove(&key) else {
        return;
    };
    drop_preferred_source(state, key);
    if secondaries.contains(&key) {
        return;
    }
    let network = address.network(&key);
    let behind: Vec<AddressKey> = state
        .addresses
        .iter()
        .filter(|(other, value)| {
            other.device == key.device
                && secondaries.contains(other)
                && value.network(other) == network
        })
        .map(|(other, _)| *other)
        .collect();
    for other in behind {
        state.addresses.remove(&other);
        drop_preferred_source(state, other);
    }
}

/// An IPv4 route of the main table goes with the last address that it prefers as its source (`fib_sync_down_addr`). An
/// IPv6 route on the address's device only loses the preference, even where another device has the address too
/// (`fib6_remove_prefsrc`). Every other route keeps a source that isn't there.
fn drop_preferred_source(state: &mut State, key: AddressKey) {
    let src = Some(key.local);
    match key.local {
        IpAddr::V4(_) if state.addresses.keys().any(|other| other.local == key.local) => {}
        IpAddr::V4(_) => state
            .routes
            .retain(|route, value| route.table != MAIN_TABLE || value.src != src),
        IpAddr::V6(_) => {
            let on_device = |route: &&mut Route| route.devices().any(|device| device == key.device);
            for route in state
                .routes
                .values_mut()
                .filter(on_device)
                .filter(|route| route.src == src)
            {
                route.src = None;
            }
        }
    }
}
