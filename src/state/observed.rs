//! What the kernel holds now: the state, and the facts about the host that a plan rests on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use super::{AddressKey, InterfaceName, Route, RouteKey, State};

/// One snapshot of a network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Tunnels of every owner, addresses of every device, and the routes that the snapshot asked for.
    pub state: State,
    /// Second and later routes of a key (`ip route append`), which [`State`] has no place for.
    pub duplicate_routes: Vec<(RouteKey, Route)>,
    /// IPv4 addresses that stand behind another in the same network (`IFA_F_SECONDARY`) and may go when it goes.
    pub secondaries: BTreeSet<AddressKey>,
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

/// A network device of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The kernel's number for it.
    pub index: u32,
    /// `IFLA_INFO_KIND`; empty for hardware and `lo`.
    pub kind: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// The device's alias, as far as it is UTF-8.
    pub alias: String,
    /// Device group (`ip link set … group`), 0 unless someone set it.
    pub group: u32,
    /// Traffic counters.
    pub counters: Counters,
}

/// A device's traffic since it was made (`struct rtnl_link_stats64`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
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
}
