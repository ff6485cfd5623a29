//! The state of a host's overlay: tunnels, addresses and routes, keyed as the kernel keys them.
//!
//! One type serves for what is desired and for what is observed, with every default filled in, so "does it differ?"
//! is `!=`. Nothing here knows netlink, files or time.

mod address;
mod ascending;
mod interface;
mod observed;
mod route;
mod tunnel;
mod unmet;

use std::collections::BTreeMap;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

pub use address::{Address, AddressKey, Lifetime};
pub(crate) use ascending::{Ascending, sorted_map};
pub use interface::{InterfaceName, InvalidName};
pub use observed::{Counters, Device, Observed, Path};
pub use route::{
    IPV6_DEFAULT_METRIC, MAIN_TABLE, NextHop, NextHops, Route, RouteKey, RouteType, Scope,
};
pub(crate) use route::{Lengths, prefixes};
pub use tunnel::{AdminState, Encap, Endpoints, IPV6_MIN_MTU, Ipip, Kind, Mode, Tos, Ttl, Tunnel};
pub use unmet::{Desired, Unmet};

/// Tunnels, addresses and routes of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Tunnel devices by name.
    pub tunnels: BTreeMap<InterfaceName, Tunnel>,
    /// Addresses.
    pub addresses: BTreeMap<AddressKey, Address>,
    /// Routes.
    pub routes: BTreeMap<RouteKey, Route>,
}

impl State {
    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.tunnels.len() + self.addresses.len() + self.routes.len()
    }

    /// Whether there is no object at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Written for people to compare: a map of tunnels, a list of addresses, a list of routes.
impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("tunnels", &self.tunnels)?;
        map.serialize_entry("addresses", &Entries(&self.addresses))?;
        map.serialize_entry("routes", &Entries(&self.routes))?;
        map.end()
    }
}

struct Entries<'a, K, V>(&'a BTreeMap<K, V>);

impl<K: Serialize, V: Serialize> Serialize for Entries<'_, K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Entry<'a, K, V> {
            #[serde(flatten)]
            key: &'a K,
            #[serde(flatten)]
            value: &'a V,
        }
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for (key, value) in self.0 {
            list.serialize_element(&Entry { key, value })?;
        }
        list.end()
    }
}

impl Serialize for AddressKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("device", &self.device)?;
        map.serialize_entry("address", &self.local)?;
        map.end()
    }
}
