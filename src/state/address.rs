//! An IP address on a device.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::route::any_scope;
use super::{InterfaceName, Scope};

/// What makes two addresses the same one to the kernel.
///
/// IPv4 compares the address, the prefix length and the peer's network (`find_matching_ifa` and `inet_insert_ifa` in
/// `net/ipv4/devinet.c`); IPv6 the address alone (`ipv6_add_addr` in `net/ipv6/addrconf.c`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressKey {
    /// The device that carries the address.
    pub device: InterfaceName,
    /// The address itself.
    pub local: IpAddr,
    /// The network that the address opens; `None` for IPv6, where it doesn't tell addresses apart.
    pub network: Option<IpNet>,
}

/// The properties of an address that its key doesn't hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Address {
    /// Length of the prefix, of the peer's where there is one.
    pub prefix_len: u8,
    /// The other end of a point-to-point address (`ip address add … peer`).
    pub peer: Option<IpAddr>,
    /// The broadcast address. A topology never sets one.
    pub broadcast: Option<Ipv4Addr>,
    /// How far the address is valid.
    #[serde(deserialize_with = "any_scope")]
    pub scope: Scope,
    /// The label, IPv4 only; the device's name unless set. Null for IPv6.
    pub label: Option<SmolStr>,
    /// Don't add a route for the prefix.
    pub noprefixroute: bool,
    /// Metric of the prefix route; 0: the kernel's default.
    pub metric: u32,
    /// Who added it (`IFA_PROTO`, Linux 5.18 and later); 0: unspecified.
    pub protocol: u8,
    /// Seconds for which the kernel keeps the address; null: for ever.
    pub lifetime: Option<Lifetime>,
}

/// How long an address lives (`struct ifa_cacheinfo`), both in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lifetime {
    /// Until it's removed.
    pub valid: u32,
    /// Until it's deprecated.
    pub preferred: u32,
}

impl AddressKey {
    /// The key of `local`/`prefix_len` (or of the peer's prefix) on `device`.
    pub fn new(device: InterfaceName, local: IpAddr, peer: Option<IpAddr>, prefix_len: u8) -> Self {
        let network = match local {
            IpAddr::V4(_) => IpNet::new(peer.unwrap_or(local), prefix_len)
                .ok()
                .map(|net| net.trunc()),
            IpAddr::V6(_) => None,
        };
        Self {
            device,
            local,
            network,
        }
    }
}

impl Address {
    /// The network that is on-link because of this address.
    pub fn network(&self, key: &AddressKey) -> Option<IpNet> {
        IpNet::new(self.peer.unwrap_or(key.local), self.prefix_len)
            .ok()
            .map(|net| net.trunc())
    }

    /// The address as `ip address` takes it: `10.0.0.1/24`, or `10.0.0.1 peer 10.0.0.2/32`.
    pub fn show(&self, key: &AddressKey) -> String {
        match self.peer {
            Some(peer) => format!("{} peer {peer}/{}", key.local, self.prefix_len),
            None => format!("{}/{}", key.local, self.prefix_len),
        }
    }
}

impl fmt::Display for AddressKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.network {
            Some(net) if net.contains(&self.local) => {
                write!(f, "{}/{}", self.local, net.prefix_len())?
            }
            Some(net) => write!(f, "{} peer {net}", self.local)?,
            None => write!(f, "{}", self.local)?,
        }
        write!(f, " on {}", self.device)
    }
}
