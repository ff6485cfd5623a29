//! What the kernel holds now: the state, and the facts about the host that a plan rests on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::route::prefixes;
use super::{AddressKey, InterfaceName, MAIN_TABLE, Route, RouteKey, RouteType, State};

/// One snapshot of a network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Tunnels of every owner, addresses of every device, and the routes that the snapshot asked for.
    pub state: State,
    /// Second and later routes of a key (`ip route append`), which [`State`] has no place for.
    pub duplicate_routes: Vec<(RouteKey, Route)>,
    /// IPv4 addresses that stand behind another in the same network (`IFA_F_SECONDARY`) and may go when it goes.
    pub secondaries: BTreeSet<AddressKey>,
    /// The IPv4 addresses of devices that have several, in the kernel's order: the first is the source of packets that
    /// nothing else gives one.
    pub ipv4_order: Vec<AddressKey>,
    /// Every network device, tunnels included.
    pub devices: BTreeMap<InterfaceName, Device>,
    /// Alternative names of devices (`ip link property add … altname`), which a device's name can't be.
    pub alternative_names: BTreeMap<InterfaceName, InterfaceName>,
    /// The way to each address that was asked for (remotes, gateways). One without a route is missing.
    pub paths: BTreeMap<IpAddr, Path>,
    /// Whether addresses can carry a mark (`IFA_PROTO`, Linux 5.18).
    pub marks_addresses: bool,
    /// Whether `state` holds the routes of every protocol, or those of one protocol alone.
    pub all_routes: bool,
}

impl Observed {
    /// A host that has nothing but `lo`.
    pub fn bare() -> Self {
        let mut bare = Self {
            marks_addresses: true,
            all_routes: true,
            ..Self::default()
        };
        bare.add_device(InterfaceName::LOOPBACK, 65536);
        bare
    }

    /// A host that has this and nothing more.
    pub fn holding(state: &State) -> Self {
        let mut host = Self {
            state: state.clone(),
            ..Self::bare()
        };
        for (name, tunnel) in &state.tunnels {
            host.add_device(*name, tunnel.mtu);
        }
        host
    }

    /// Adds a device that is up and nothing more.
    pub fn add_device(&mut self, name: InterfaceName, mtu: u32) {
        let index = u32::try_from(self.devices.len() + 1).unwrap_or(u32::MAX);
        self.devices.entry(name).or_insert(Device {
            index,
            kind: SmolStr::default(),
            mtu,
            up: true,
            alias: SmolStr::default(),
            group: 0,
            counters: None,
        });
    }

    /// The way to an address by the observed routes of the main table, as the kernel without policy rules would choose.
    pub fn path_to(&self, address: IpAddr) -> Option<Path> {
        if self.state.addresses.keys().any(|key| key.local == address) {
            return None;
        }
        let (key, route) = prefixes(address).find_map(|to| {
            let key = RouteKey {
                table: MAIN_TABLE,
                to,
                tos: 0,
                metric: 0,
            };
            self.state.routes.range(key.any_metric()).next()
        })?;
        let device = route.devices().next()?;
        let mtu = route.mtu.or(self.devices.get(&device).map(|d| d.mtu))?;
        (route.kind == RouteType::Unicast).then_some(Path {
            device,
            mtu,
            prefix_len: key.to.prefix_len(),
            table: MAIN_TABLE,
        })
    }
}

/// A network device of any kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// The kernel's number for it.
    pub index: u32,
    /// `IFLA_INFO_KIND`; empty for hardware and `lo`.
    pub kind: SmolStr,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// The device's alias, as far as it is UTF-8.
    pub alias: SmolStr,
    /// Device group (`ip link set … group`), 0 unless someone set it.
    pub group: u32,
    /// Traffic counters, where they were asked for.
    #[serde(skip)]
    pub counters: Option<Box<Counters>>,
}

/// A device's traffic since it was made (`struct rtnl_link_stats64`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Counters {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets received with an error.
    pub rx_errors: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets received and thrown away.
    pub rx_dropped: u64,
    /// Packets thrown away before they were sent.
    pub tx_dropped: u64,
}

/// The kernel's route to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Device that packets leave by.
    pub device: InterfaceName,
    /// MTU of the path in bytes: the route's own, else the device's.
    pub mtu: u32,
    /// Length of the prefix of the route that was taken.
    pub prefix_len: u8,
    /// The table that it was found in.
    pub table: u32,
}
