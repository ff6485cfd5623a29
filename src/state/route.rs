//! A route in one of the kernel's tables.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer, Serialize};
use smallvec::SmallVec;

use super::InterfaceName;

/// The table that `ip route` means when none is given (`RT_TABLE_MAIN`).
pub const MAIN_TABLE: u32 = 254;

/// What the kernel makes of metric 0 in IPv6 (`IP6_RT_PRIO_USER`).
pub const IPV6_DEFAULT_METRIC: u32 = 1024;

/// What makes two routes the same one to the kernel: `ip route replace` finds a route by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouteKey {
    /// Routing table, 1 to 4294967295.
    pub table: u32,
    /// Destination prefix, host bits zero.
    pub to: IpNet,
    /// Type of service that the route serves; IPv4 only.
    pub tos: u8,
    /// Priority; the lowest wins. IPv6 makes 1024 of 0.
    pub metric: u32,
}

impl RouteKey {
    /// The keys of the same table, prefix and TOS, the preferred first.
    pub(crate) fn any_metric(&self) -> std::ops::RangeInclusive<Self> {
        let with = |metric| Self { metric, ..*self };
        with(0)..=with(u32::MAX)
    }
}

/// The prefixes that hold an address, the longest first.
pub(crate) fn prefixes(address: IpAddr) -> impl Iterator<Item = IpNet> {
    let longest = IpNet::from(address).prefix_len();
    (0..=longest)
        .rev()
        .filter_map(move |length| IpNet::new(address, length).ok().map(|net| net.trunc()))
}

/// The lengths of known prefixes, few, each with the first and the last of its prefixes: so few prefixes of an address need
/// be looked for, and mostly none, as overlay and underlay seldom lie among one another.
#[derive(Debug, Default)]
pub(crate) struct Lengths(BTreeMap<u8, (IpNet, IpNet)>);

impl Lengths {
    /// Those of these prefixes.
    pub(crate) fn of(prefixes: impl Iterator<Item = IpNet>) -> Self {
        let mut lengths = Self::default();
        prefixes.for_each(|net| lengths.add(net));
        lengths
    }

    pub(crate) fn add(&mut self, net: IpNet) {
        let (first, last) = self.0.entry(net.prefix_len()).or_insert((net, net));
        *first = net.min(*first);
        *last = net.max(*last);
    }

    /// The networks that could hold an address, the longest first.
    pub(crate) fn holding(&self, ip: IpAddr) -> impl Iterator<Item = IpNet> {
        let lengths = self.0.iter().rev();
        lengths.filter_map(move |(&length, (first, last))| {
            let net = IpNet::new(ip, length).ok()?.trunc();
            (*first..=*last).contains(&net).then_some(net)
        })
    }
}

/// The properties of a route that its key doesn't hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Route {
    /// What becomes of a packet that takes the route.
    #[serde(rename = "type", deserialize_with = "any_type")]
    pub kind: RouteType,
    /// Who added it (`rtm_protocol`).
    pub protocol: u8,
    /// How far the destination is; IPv4 only, `global` for IPv6.
    #[serde(deserialize_with = "any_scope")]
    pub scope: Scope,
    /// Source address that the host prefers for packets of its own.
    #[schemars(with = "Option<String>")]
    pub src: Option<IpAddr>,
    /// MTU of the path, bytes; null: the device's.
    pub mtu: Option<u32>,
    /// TCP maximum segment size to advertise, bytes; null: from the MTU.
    pub advmss: Option<u32>,
    /// Where packets go; empty for a type that drops them. Sorted.
    pub nexthops: NextHops,
    /// The route carries attributes that are not modelled here (a next hop object, an encapsulation, realms, other
    /// metrics). Only ever observed.
    pub other_attributes: bool,
}

/// The ways out of a route. Nearly every one has a single way: that one needs no memory of its own.
pub type NextHops = SmallVec<[NextHop; 1]>;

/// One way out of a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct NextHop {
    /// Gateway; null: the destination is on the link.
    #[schemars(with = "Option<String>")]
    pub via: Option<IpAddr>,
    /// Device that the packet leaves by.
    #[schemars(with = "Option<String>")]
    pub device: Option<InterfaceName>,
    /// Share of the traffic among several next hops, 1 to 256.
    pub weight: u16,
    /// Take the gateway as reachable on the link although no prefix says so.
    pub onlink: bool,
}

/// What becomes of a packet: `TYPE` of `ip route` (`enum rtn_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RouteType {
    /// Forward to a next hop.
    #[default]
    Unicast,
    /// Drop silently.
    Blackhole,
    /// Drop, answer "host unreachable".
    Unreachable,
    /// Drop, answer "administratively prohibited".
    Prohibit,
    /// Stop looking in this table, go on with the next policy rule.
    Throw,
    /// A type that only the kernel and other tools make (local, broadcast, multicast, nat…).
    #[serde(skip_deserializing)]
    Other,
}

/// A topology can't ask for the types that only others make; an observed state has them.
fn any_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RouteType, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "other" => Ok(RouteType::Other),
        word => RouteType::deserialize(word.into_deserializer()),
    }
}

/// As [`any_type`]: 255, nowhere, is the kernel's own.
pub(super) fn any_scope<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Scope, D::Error> {
    match NumberOrWord::deserialize(deserializer)? {
        NumberOrWord::Number(number) => Ok(Scope(number)),
        NumberOrWord::Word(word) => Scope::deserialize(word.into_deserializer()),
    }
}

/// A byte of the kernel's, or a word that stands for one.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum NumberOrWord {
    Number(u8),
    Word(String),
}

/// How far an address or a route's destination reaches (`enum rt_scope_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope(pub u8);

impl Scope {
    /// Everywhere: `RT_SCOPE_UNIVERSE`.
    pub const GLOBAL: Self = Self(0);
    /// Within the site (IPv6).
    pub const SITE: Self = Self(200);
    /// On this link: `RT_SCOPE_LINK`.
    pub const LINK: Self = Self(253);
    /// On this host: `RT_SCOPE_HOST`.
    pub const HOST: Self = Self(254);
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::GLOBAL => f.pad("global"),
            Self::SITE => f.pad("site"),
            Self::LINK => f.pad("link"),
            Self::HOST => f.pad("host"),
            Self(number) => write!(f, "{number}"),
        }
    }
}

impl Serialize for Scope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::GLOBAL | Self::SITE | Self::LINK | Self::HOST => serializer.collect_str(self),
            Self(number) => serializer.serialize_u8(number),
        }
    }
}

impl JsonSchema for Scope {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scope".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "`global`, `link` or `host`, or the kernel's number for another scope.",
            "anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0, "maximum": 254}]
        })
    }
}

impl Route {
    /// The devices that the route leaves by.
    pub fn devices(&self) -> impl Iterator<Item = InterfaceName> + '_ {
        self.nexthops.iter().filter_map(|hop| hop.device)
    }
}

impl fmt::Display for RouteType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unicast => "unicast",
            Self::Blackhole => "blackhole",
            Self::Unreachable => "unreachable",
            Self::Prohibit => "prohibit",
            Self::Throw => "throw",
            Self::Other => "other",
        })
    }
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.to.prefix_len() == 0 {
            write!(f, "default")?;
            if self.to.addr().is_ipv6() {
                write!(f, " (IPv6)")?;
            }
        } else {
            write!(f, "{}", self.to)?;
        }
        if self.tos != 0 {
            write!(f, " tos {:#04x}", self.tos)?;
        }
        let default_metric = if self.to.addr().is_ipv6() {
            IPV6_DEFAULT_METRIC
        } else {
            0
        };
        if self.metric != default_metric {
            write!(f, " metric {}", self.metric)?;
        }
        if self.table != MAIN_TABLE {
            write!(f, " table {}", self.table)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_known_prefix_is_looked_for() {
        let known: BTreeSet<IpNet> = [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.9.0.0/16",
            "10.1.2.0/24",
            "2001:db8::/32",
            "2001:db8:1::/48",
            "fc00::/7",
        ]
        .iter()
        .map(|net| net.parse().unwrap())
        .collect();
        let lengths = Lengths::of(known.iter().copied());
        for address in [
            "10.1.2.3",
            "10.5.0.1",
            "10.9.2.3",
            "192.0.2.1",
            "0.0.0.0",
            "2001:db8:1::1",
            "2001:db8:2::1",
            "fd00::1",
            "::1",
        ] {
            let address: IpAddr = address.parse().unwrap();
            let found = lengths.holding(address).filter(|net| known.contains(net));
            let expected = prefixes(address).filter(|net| known.contains(net));
            assert!(found.eq(expected), "{address}");
        }
        let outside = lengths.holding([192, 0, 2, 1].into());
        assert_eq!(outside.map(|net| net.prefix_len()).collect::<Vec<_>>(), [0]);
    }
}
