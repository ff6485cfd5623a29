//! The entries of a topology's lists: addresses and routes, which may be written as one word.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::{Destination, Ip, Label, Prefix, RouteTos, Table, is_default, scalar, schema};
use crate::state::{
    AddressKey, IPV6_DEFAULT_METRIC, InterfaceName, MAIN_TABLE, RouteKey, RouteType, Scope,
};

/// An address: `10.0.0.1/24` for short, or a mapping.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, serde::Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// The address with its prefix length.
    pub address: Prefix,
    /// The other end of a point-to-point address; its prefix length, if given, is the one that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<Prefix>,
    /// How far the address is valid, IPv4 only (IPv6 derives it). Default: `global`, `host` within 127.0.0.0/8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::scope")]
    pub scope: Option<Scope>,
    /// Label, IPv4 only. Default: the device's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<Label>,
    /// Don't add a route for the prefix. Default: false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub noprefixroute: bool,
    /// Metric of the prefix route. Default: 0, the kernel's own choice.
    #[serde(default, skip_serializing_if = "is_default")]
    pub metric: u32,
}

/// A route: `10.0.0.0/8` for short, or a mapping.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, serde::Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Destination: a prefix without host bits, an address, or `default`.
    pub to: Destination,
    /// Gateway. Default: none, the destination is on the link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<Ip>,
    /// Device that packets leave by. Default: the tunnel, or the device whose prefix holds `via`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<InterfaceName>,
    /// Take the gateway as reachable on the link although no prefix says so. Default: false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub onlink: bool,
    /// Leave the tunnel aside where the gateway is in the network of the tunnel's `local` address. Default: false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub direct: bool,
    /// Priority, the lowest wins. Default: 0; for IPv6 0 means 1024.
    #[serde(default, skip_serializing_if = "is_default")]
    pub metric: u32,
    /// TOS that the route serves, IPv4 only. Default: 0, any.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tos: RouteTos,
    /// Routing table. Default: `main`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<Table>,
    /// How far the destination is, IPv4 only. Default: `link` without a gateway, else `global`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::scope")]
    pub scope: Option<Scope>,
    /// Source address that the host prefers for its own packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<Ip>,
    /// What becomes of a packet. Default: `unicast`.
    #[serde(default, rename = "type", skip_serializing_if = "is_default")]
    pub kind: RouteType,
    /// MTU of the path, bytes, 68 to 65520.
    #[schemars(range(min = 68, max = 65520))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// TCP maximum segment size to advertise, bytes, 1 to 65495.
    #[schemars(range(min = 1, max = 65495))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// Several ways out, instead of `via` and `device` (equal-cost multipath).
    #[serde(default, skip_serializing_if = "is_default")]
    pub nexthops: Vec<NextHop>,
}

/// One of several ways out.
#[derive(Debug, Clone, Copy, PartialEq, serde::Deserialize, serde::Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NextHop {
    /// Gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<Ip>,
    /// Device that packets leave by. Default: the device whose prefix holds `via`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<InterfaceName>,
    /// Share of the traffic, 1 to 256. Default: 1.
    #[schemars(range(min = 1, max = 256))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Take the gateway as reachable on the link although no prefix says so. Default: false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub onlink: bool,
    /// Leave the tunnel aside where the gateway is in the network of the tunnel's `local` address. Default: false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub direct: bool,
}

impl Address {
    /// The prefix length that counts: the peer's, unless the address alone has one.
    pub fn prefix_len(&self) -> u8 {
        match self.peer {
            Some(peer) if peer.explicit || !self.address.explicit => peer.net.prefix_len(),
            _ => self.address.net.prefix_len(),
        }
    }

    /// The other end of a point-to-point address.
    pub fn peer(&self) -> Option<IpAddr> {
        self.peer.map(|peer| peer.net.addr())
    }

    /// The kernel's key of the address on `device`.
    pub fn key(&self, device: InterfaceName) -> AddressKey {
        AddressKey::new(
            device,
            self.address.net.addr(),
            self.peer(),
            self.prefix_len(),
        )
    }

    /// The network that the address puts on the link.
    pub fn network(&self) -> Option<IpNet> {
        IpNet::new(
            self.peer().unwrap_or(self.address.net.addr()),
            self.prefix_len(),
        )
        .ok()
        .map(|net| net.trunc())
    }
}

impl Route {
    /// A route that says nothing but where it leads.
    pub(super) fn plain(to: Destination) -> Self {
        Self {
            to,
            via: None,
            device: None,
            onlink: false,
            direct: false,
            metric: 0,
            tos: RouteTos::default(),
            table: None,
            scope: None,
            src: None,
            kind: RouteType::Unicast,
            mtu: None,
            advmss: None,
            nexthops: Vec::new(),
        }
    }

    /// Where the route leads; `default` takes its family from the gateway.
    pub fn prefix(&self) -> IpNet {
        let ipv6 = self
            .via
            .iter()
            .chain(self.nexthops.iter().filter_map(|hop| hop.via.as_ref()))
            .any(|ip| ip.0.is_ipv6());
        match self.to {
            Destination::Prefix(net) => net,
            Destination::Default if ipv6 => IpNet::V6(Ipv6Net::default()),
            Destination::Default => IpNet::V4(Ipv4Net::default()),
        }
    }

    /// The ways out: `nexthops`, or the one that `via`, `device` and `onlink` make.
    pub fn hops(&self) -> Hops<'_> {
        if !self.nexthops.is_empty() || (self.via.is_none() && self.device.is_none()) {
            return Hops::Listed(&self.nexthops);
        }
        Hops::Only(NextHop {
            via: self.via,
            device: self.device,
            weight: None,
            onlink: self.onlink,
            direct: self.direct,
        })
    }

    /// The kernel's key of the route.
    pub fn key(&self) -> RouteKey {
        let to = self.prefix();
        let metric = match to {
            IpNet::V6(_) if self.metric == 0 => IPV6_DEFAULT_METRIC,
            _ => self.metric,
        };
        RouteKey {
            table: self.table.map_or(MAIN_TABLE, |Table(table)| table),
            to,
            tos: self.tos.0,
            metric,
        }
    }
}

/// A route's ways out.
pub enum Hops<'a> {
    /// The one that is written in the route itself.
    Only(NextHop),
    /// Those of its list, or none.
    Listed(&'a [NextHop]),
}

impl std::ops::Deref for Hops<'_> {
    type Target = [NextHop];

    fn deref(&self) -> &[NextHop] {
        match self {
            Self::Only(hop) => std::slice::from_ref(hop),
            Self::Listed(hops) => hops,
        }
    }
}

/// Routes as they are written.
pub type Routes = Shared<Vec<Short<Route>>>;

/// What there may be a million of. A copy costs nothing until it's changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shared<T>(Arc<T>);

impl<T> std::ops::Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> std::ops::DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<'a, T> IntoIterator for &'a Shared<T>
where
    &'a T: IntoIterator,
{
    type Item = <&'a T as IntoIterator>::Item;
    type IntoIter = <&'a T as IntoIterator>::IntoIter;

    fn into_iter(self) -> Self::IntoIter {
        (&*self.0).into_iter()
    }
}

impl<A, T: FromIterator<A>> FromIterator<A> for Shared<T> {
    fn from_iter<I: IntoIterator<Item = A>>(items: I) -> Self {
        Self(Arc::new(items.into_iter().collect()))
    }
}

impl<T: Serialize> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Shared<Vec<T>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Arc::new(no_larger(deserializer)?)))
    }
}

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Deserialize<'de>
    for Shared<BTreeMap<K, V>>
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Arc::new(BTreeMap::deserialize(deserializer)?)))
    }
}

/// A list that grows by doubling has room for as many more, and a short one for four.
pub(super) fn no_larger<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let mut list = Vec::deserialize(deserializer)?;
    list.shrink_to_fit();
    Ok(list)
}

/// An entry that may be written as one word: its address or destination alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Short<T>(pub T);

impl<T> std::ops::Deref for Short<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

pub(super) trait FromWord: DeserializeOwned + Serialize {
    /// What the word alone is.
    type Word: JsonSchema;

    const EXPECTED: &'static str;

    fn from_word(word: &str) -> Result<Self, String>;

    /// The word, where it says everything.
    fn word(&self) -> Option<String>;
}

impl<T: FromWord> Serialize for Short<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.word() {
            Some(word) => serializer.serialize_str(&word),
            None => self.0.serialize(serializer),
        }
    }
}

impl FromWord for Address {
    type Word = Prefix;

    const EXPECTED: &'static str = "an address such as 10.0.0.1/24, or a mapping with `address`";

    fn from_word(word: &str) -> Result<Self, String> {
        let address = scalar::Word::from_word(word)?;
        Ok(Self {
            address,
            peer: None,
            scope: None,
            label: None,
            noprefixroute: false,
            metric: 0,
        })
    }

    fn word(&self) -> Option<String> {
        let word = self.address.to_string();
        (Self::from_word(&word).as_ref() == Ok(self)).then_some(word)
    }
}

impl FromWord for Route {
    type Word = Destination;

    const EXPECTED: &'static str = "a prefix such as 10.0.0.0/8, or a mapping with `to`";

    fn from_word(word: &str) -> Result<Self, String> {
        scalar::Word::from_word(word).map(Self::plain)
    }

    fn word(&self) -> Option<String> {
        let word = self.to.to_string();
        (Self::from_word(&word).as_ref() == Ok(self)).then_some(word)
    }
}

impl<'de, T: FromWord> Deserialize<'de> for Short<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrMap<T>(PhantomData<T>);

        impl<'de, T: FromWord> Visitor<'de> for WordOrMap<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<T, E> {
                T::from_word(word).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer
            .deserialize_any(WordOrMap(PhantomData))
            .map(Short)
    }
}
