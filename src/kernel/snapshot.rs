//! The kernel's state in one pass: devices, addresses, routes, and the way to the addresses that a topology asks about.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use super::route::Family;
use super::socket::Channel;
use super::{Error, Indices, address, link, route};
use crate::plan::Scope;
use crate::state::{
    Address, AddressKey, Device, InterfaceName, Observed, Route, RouteKey, sorted_map,
};

/// What a snapshot shall hold.
#[derive(Debug, Clone)]
pub struct Extent {
    /// Routes of this protocol; `None`: of every one.
    pub protocol: Option<u8>,
    /// The protocol that comes first where several routes share a key.
    pub own_protocol: u8,
    /// Addresses whose way through the underlay is asked for.
    pub paths: BTreeSet<IpAddr>,
    /// Traffic counters of the devices.
    pub counters: bool,
}

/// Where so many of the devices are asked for, a dump of all costs no more.
const DUMP_FROM_ONE_IN: usize = 4;
/// At most for so many devices the kernel is asked for what is on each: every time it passes over all that is there.
const MOST_FILTERED: usize = 4;
/// Most answers about a device are shorter, most about a route by far.
const DEVICE_BYTES: usize = 4 << 10;
const ROUTE_BYTES: usize = 512;

pub(super) fn take(
    channel: &mut Channel,
    extent: &Extent,
    marks_addresses: bool,
) -> Result<Observed, Error> {
    let mut observed = Observed {
        marks_addresses,
        ..Observed::default()
    };
    let names = links(channel, &mut observed, extent.counters)?;
    addresses(channel, &mut observed, &names)?;
    routes(channel, &mut observed, &names, extent)?;
    paths(channel, &mut observed, &names, &extent.paths)?;
    Ok(observed)
}

/// As [`take`], but what `scope` doesn't concern stays as it is known, without the counters.
pub(super) fn take_again(
    channel: &mut Channel,
    extent: &Extent,
    mut observed: Observed,
    scope: &Scope,
) -> Result<Observed, Error> {
    let names = match scope.devices().len() * DUMP_FROM_ONE_IN < observed.devices.len() {
        true => links_again(channel, &mut observed, scope.devices())?,
        false => links(channel, &mut observed, false)?,
    };
    let few = few_devices(channel, &observed, extent, scope);
    // One may go while the kernel is asked for what is on it.
    let is_seen =
        few.is_some_and(|few| on_devices(channel, &mut observed, &names, extent, &few).is_ok());
    if !is_seen {
        addresses(channel, &mut observed, &names)?;
        routes(channel, &mut observed, &names, extent)?;
    }
    let concerned = |address: &&IpAddr| scope.concerns(**address, observed.paths.get(address));
    let asked: BTreeSet<IpAddr> = extent.paths.iter().filter(concerned).copied().collect();
    observed.paths.retain(|address, _| !asked.contains(address));
    paths(channel, &mut observed, &names, &asked)?;
    Ok(observed)
}

/// Takes the routes again, with those of every protocol.
pub(super) fn widen(
    channel: &mut Channel,
    observed: &mut Observed,
    own_protocol: u8,
) -> Result<(), Error> {
    let extent = Extent {
        protocol: None,
        own_protocol,
        paths: BTreeSet::new(),
        counters: false,
    };
    let names = Names::of(observed);
    routes(channel, observed, &names, &extent)
}

/// The devices alone, with their counters.
pub(super) fn devices(channel: &mut Channel) -> Result<BTreeMap<InterfaceName, Device>, Error> {
    let mut observed = Observed::default();
    links(channel, &mut observed, true)?;
    Ok(observed.devices)
}

/// The devices' names, sorted by their indices.
pub(super) struct Names(Vec<(u32, InterfaceName)>);

impl Names {
    pub(super) fn new(names: impl Iterator<Item = (u32, InterfaceName)>) -> Self {
        let mut names: Vec<_> = names.collect();
        names.sort_unstable_by_key(|(index, _)| *index);
        Self(names)
    }

    fn of(observed: &Observed) -> Self {
        let devices = observed.devices.iter();
        Self::new(devices.map(|(name, device)| (device.index, *name)))
    }

    pub(super) fn get(&self, index: u32) -> Option<InterfaceName> {
        let place = self.0.binary_search_by_key(&index, |(index, _)| *index);
        place.ok().map(|place| self.0[place].1)
    }
}

/// Devices as they are read, before the index of each is known.
#[derive(Default)]
struct Links {
    all: Vec<(InterfaceName, Device, Option<link::RawTunnel>)>,
    alternative_names: BTreeMap<InterfaceName, InterfaceName>,
}

impl Links {
    fn read(&mut self, payload: &[u8], counters: bool) -> Result<(), Error> {
        let mut raw = link::decode(payload)?;
        if let Some(statistics) = raw.statistics.filter(|_| counters) {
            raw.device.counters = Some(link::counters(statistics)?.into());
        }
        let others = raw.alternative_names.into_iter();
        self.alternative_names
            .extend(others.map(|other| (other, raw.name)));
        self.all.push((raw.name, raw.device, raw.tunnel));
        Ok(())
    }

    fn enter(mut self, observed: &mut Observed) -> Names {
        self.all.sort_unstable_by_key(|(name, ..)| *name);
        let tunnels = self.all.iter_mut();
        let tunnels = tunnels.filter_map(|(name, _, tunnel)| Some((*name, tunnel.take()?)));
        let tunnels: Vec<_> = tunnels.collect();
        let devices = self.all.into_iter().map(|(name, device, _)| (name, device));
        observed.devices.append(&mut devices.collect());
        observed
            .alternative_names
            .append(&mut self.alternative_names);
        let names = Names::of(observed);
        let name_of = |index| names.get(index).unwrap_or_else(|| gone(index));
        let tunnels = tunnels.into_iter();
        let tunnels = tunnels.map(|(name, tunnel)| (name, tunnel.named(name_of)));
        observed.state.tunnels.append(&mut tunnels.collect());
        names
    }
}

fn links(channel: &mut Channel, observed: &mut Observed, counters: bool) -> Result<Names, Error> {
    let request = link::dump(counters);
    let links = channel.dump(&request, |links: &mut Links, _, payload| {
        links.read(payload, counters)
    })?;
    observed.devices.clear();
    observed.alternative_names.clear();
    observed.state.tunnels.clear();
    Ok(links.enter(observed))
}

fn links_again(
    channel: &mut Channel,
    observed: &mut Observed,
    devices: &BTreeSet<InterfaceName>,
) -> Result<Names, Error> {
    let requests: Vec<_> = devices.iter().copied().map(link::look_up).collect();
    let mut links = Links::default();
    channel.look_up(&requests, DEVICE_BYTES, |_, payload| {
        links.read(payload, false)
    })?;
    for name in devices {
        observed.devices.remove(name);
        observed.state.tunnels.remove(name);
    }
    observed
        .alternative_names
        .retain(|_, device| !devices.contains(device));
    Ok(links.enter(observed))
}

/// A name for a device that a tunnel is bound to and that is gone. It holds a character that no real name has.
pub(super) fn gone(index: u32) -> InterfaceName {
    let name = format!("gone:{index}");
    InterfaceName::from_kernel(&name.as_bytes()[..name.len().min(15)])
        .unwrap_or_else(|| unreachable!("1 to 15 bytes"))
}

#[derive(Default)]
struct Addresses {
    all: Vec<(AddressKey, Address)>,
    secondaries: BTreeSet<AddressKey>,
    ipv4_order: Vec<AddressKey>,
    /// The IPv4 address that came last.
    last: Option<AddressKey>,
}

impl Addresses {
    /// Mostly there is nothing to note: a device has one address. The kernel lists them device by device.
    fn note_order(&mut self, key: AddressKey) {
        if !key.local.is_ipv4() {
            return;
        }
        let before = self.last.replace(key);
        if let Some(before) = before.filter(|before| before.device == key.device) {
            if self.ipv4_order.last() != Some(&before) {
                self.ipv4_order.push(before);
            }
            self.ipv4_order.push(key);
        }
    }
}

fn addresses(channel: &mut Channel, observed: &mut Observed, names: &Names) -> Result<(), Error> {
    let seen = addresses_of(channel, names, None)?;
    observed.state.addresses = sorted_map(seen.all);
    observed.secondaries = seen.secondaries;
    observed.ipv4_order = seen.ipv4_order;
    Ok(())
}

fn addresses_of(
    channel: &mut Channel,
    names: &Names,
    device: Option<u32>,
) -> Result<Addresses, Error> {
    let name_of = |index| names.get(index);
    let request = address::dump(device);
    channel.dump(&request, |seen: &mut Addresses, _, payload| {
        let Some(raw) = address::decode(payload, name_of)? else {
            return Ok(());
        };
        if raw.secondary {
            seen.secondaries.insert(raw.key);
        }
        seen.note_order(raw.key);
        seen.all.push((raw.key, raw.address));
        Ok(())
    })
}

fn routes(
    channel: &mut Channel,
    observed: &mut Observed,
    names: &Names,
    extent: &Extent,
) -> Result<(), Error> {
    observed.all_routes = extent.protocol.is_none();
    // Their memory is needed again.
    observed.state.routes.clear();
    let mut seen = routes_of(channel, names, extent, None)?;
    observed.duplicate_routes = duplicates(&mut seen, extent.own_protocol);
    observed.state.routes = seen.into_iter().collect();
    Ok(())
}

/// The routes of both families, sorted.
fn routes_of(
    channel: &mut Channel,
    names: &Names,
    extent: &Extent,
    device: Option<u32>,
) -> Result<Vec<(RouteKey, Route)>, Error> {
    let mut seen = routes_of_family(channel, names, Family::V4, extent, device)?;
    let ipv6 = routes_of_family(channel, names, Family::V6, extent, device)?;
    seen.reserve_exact(ipv6.len());
    seen.extend(ipv6);
    seen.sort_by_key(|(key, _)| *key);
    Ok(seen)
}

fn routes_of_family(
    channel: &mut Channel,
    names: &Names,
    family: Family,
    extent: &Extent,
    device: Option<u32>,
) -> Result<Vec<(RouteKey, Route)>, Error> {
    let name_of = |index| names.get(index);
    let filter = extent.protocol.filter(|_| channel.filters_dumps());
    let request = route::dump(family, filter, device);
    channel.dump(&request, |seen: &mut Vec<_>, _, payload| {
        let decoded = route::decode(payload, family, name_of)?;
        seen.extend(decoded.filter(|(_, route)| {
            extent
                .protocol
                .is_none_or(|wanted| route.protocol == wanted)
        }));
        Ok(())
    })
}

/// The devices, where nothing but what is on them can be otherwise, and so few that the kernel may look for that.
fn few_devices(
    channel: &Channel,
    observed: &Observed,
    extent: &Extent,
    scope: &Scope,
) -> Option<Vec<(InterfaceName, u32)>> {
    let may_ask = channel.filters_dumps()
        && scope.is_of_devices_alone()
        && scope.devices().len() <= MOST_FILTERED
        && observed.all_routes == extent.protocol.is_none()
        && observed.duplicate_routes.is_empty();
    let index = |name: &InterfaceName| Some((*name, observed.devices.get(name)?.index));
    let devices: Option<_> = scope.devices().iter().map(index).collect();
    devices.filter(|_| may_ask)
}

/// Addresses and routes of some devices again; every route, where several share a key.
fn on_devices(
    channel: &mut Channel,
    observed: &mut Observed,
    names: &Names,
    extent: &Extent,
    devices: &[(InterfaceName, u32)],
) -> Result<(), Error> {
    for &(device, index) in devices {
        let addresses = addresses_of(channel, names, Some(index))?;
        let elsewhere = |key: &AddressKey| key.device != device;
        observed.state.addresses.retain(|key, _| elsewhere(key));
        observed.secondaries.retain(elsewhere);
        observed.ipv4_order.retain(elsewhere);
        observed.state.addresses.extend(addresses.all);
        observed.secondaries.extend(addresses.secondaries);
        observed.ipv4_order.extend(addresses.ipv4_order);
    }
    for &(device, index) in devices {
        let found = routes_of(channel, names, extent, Some(index))?;
        let known = &mut observed.state.routes;
        known.retain(|_, route| !route.devices().any(|other| other == device));
        let share_a_key = found.windows(2).any(|pair| pair[0].0 == pair[1].0)
            || found.iter().any(|(key, _)| known.contains_key(key));
        if share_a_key {
            return self::routes(channel, observed, names, extent);
        }
        known.extend(found);
    }
    Ok(())
}

/// Takes out of sorted routes all but one of each key: one of ours, else the first, stays.
fn duplicates(routes: &mut Vec<(RouteKey, Route)>, own_protocol: u8) -> Vec<(RouteKey, Route)> {
    let mut duplicates = Vec::new();
    routes.dedup_by(|(key, route), (stays_key, stays)| {
        let same = key == stays_key;
        if same {
            if stays.protocol != own_protocol && route.protocol == own_protocol {
                std::mem::swap(route, stays);
            }
            duplicates.push((*key, route.clone()));
        }
        same
    });
    duplicates
}

fn paths(
    channel: &mut Channel,
    observed: &mut Observed,
    names: &Names,
    wanted: &BTreeSet<IpAddr>,
) -> Result<(), Error> {
    let wanted: Vec<IpAddr> = wanted.iter().copied().collect();
    let requests: Vec<_> = wanted
        .iter()
        .map(|address| route::look_up(*address))
        .collect();
    let Observed { devices, paths, .. } = observed;
    channel.look_up(&requests, ROUTE_BYTES, |index, payload| {
        let family = if wanted[index].is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        if let Some((key, route)) = route::decode(payload, family, |index| names.get(index))? {
            let path = route::path(&key, &route, |device| {
                devices.get(&device).map(|device| device.mtu)
            });
            paths.extend(path.map(|path| (wanted[index], path)));
        }
        Ok(())
    })
}

/// The devices' indices, for what a plan names by name.
pub(super) fn indices(channel: &mut Channel) -> Result<Indices, Error> {
    channel.dump(&link::dump(false), |seen: &mut Indices, _, payload| {
        let raw = link::decode(payload)?;
        seen.insert(raw.name, raw.device.index);
        Ok(())
    })
}

/// The addresses that are under duplicate address detection.
pub(super) fn tentative(
    channel: &mut Channel,
    indices: &Indices,
) -> Result<HashSet<IpAddr>, Error> {
    let names = Names::new(indices.iter().map(|(name, index)| (*index, *name)));
    channel.dump(&address::dump(None), |seen: &mut HashSet<_>, _, payload| {
        let raw = address::decode(payload, |index| names.get(index))?;
        seen.extend(raw.filter(|raw| raw.tentative).map(|raw| raw.key.local));
        Ok(())
    })
}

/// The devices' indices as a snapshot has them.
pub(super) fn indices_of(observed: &Observed) -> Indices {
    observed
        .devices
        .iter()
        .map(|(name, device)| (*name, device.index))
        .collect()
}
