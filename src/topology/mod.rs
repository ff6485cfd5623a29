//! The topology: what a person writes, in YAML, for one host.
//!
//! [`Topology::parse`] reads a source and returns the types below or every problem in it, each at its place. Nothing
//! here opens a file or asks the kernel.

mod problem;
mod read;
mod render;
mod scalar;
mod schema;
#[cfg(test)]
mod testing;
mod tree;
mod validate;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};

use crate::state::{
    AddressKey, AdminState, IPV6_DEFAULT_METRIC, InterfaceName, MAIN_TABLE, Mode, RouteKey,
    RouteType, Scope, Tos, Ttl,
};
pub use problem::{Located, Path, Problem, Problems, Severity, Span};
pub use scalar::{
    Destination, Endpoint, Ip, Label, Mtu, Owner, Prefix, Protocol, RouteTos, Table, Version,
};

/// A topology: the tunnels, addresses and routes that one host should have.
#[derive(Debug, Clone, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "tunnelform topology")]
pub struct Topology {
    /// Version of the format: 1.
    #[serde(default)]
    pub version: Version,
    /// The owner's name: it marks in the kernel what this topology owns (`tunnelform:NAME` in a tunnel's alias), so
    /// no two topologies on one host may share it.
    pub name: Owner,
    /// Routing protocol number that marks routes, and addresses outside our tunnels, as owned. Default: 117.
    #[serde(default)]
    pub route_protocol: Protocol,
    /// Options for every tunnel that doesn't set them itself.
    #[serde(default)]
    #[schemars(schema_with = "schema::defaults")]
    pub defaults: Tunnel,
    /// Tunnels by the name of their device.
    #[serde(default)]
    pub tunnels: BTreeMap<InterfaceName, Tunnel>,
    /// Addresses on devices that are not ours, by the device's name.
    #[serde(default)]
    pub addresses: BTreeMap<InterfaceName, Vec<Short<Address>>>,
    /// Routes that don't belong to one of our tunnels.
    #[serde(default)]
    pub routes: Vec<Short<Route>>,
}

/// A tunnel. A key that is absent means its default, never "leave it alone".
#[derive(Debug, Clone, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    /// Kind of tunnel. Default: `ipip`. `ip link add … type`.
    pub kind: Option<TunnelKind>,
    /// Outer source address. Default: `any`, chosen by routing. `ip tunnel … local`.
    pub local: Option<Endpoint>,
    /// Outer destination address. Default: `any`, a multipoint tunnel. `ip tunnel … remote`.
    pub remote: Option<Endpoint>,
    /// What the tunnel carries: `ipip` (IPv4), `mplsip` (MPLS), `any` (both). Default: `ipip`. `ip link … mode`.
    pub mode: Option<Mode>,
    /// TTL of the outer header: `inherit` or 1 to 255. Default: `inherit`. `ip tunnel … ttl`.
    pub ttl: Option<Ttl>,
    /// TOS of the outer header: `inherit` or an even number up to 254. Default: 0. `ip tunnel … tos`.
    pub tos: Option<Tos>,
    /// Path MTU discovery: DF on the outer header (RFC 1191, RFC 2003 section 5.1). A fixed `ttl` forces it on.
    /// Default: true. `ip tunnel … [no]pmtudisc`.
    pub pmtudisc: Option<bool>,
    /// Underlay device that outer packets are bound to. Default: none. `ip tunnel … dev`.
    pub device: Option<InterfaceName>,
    /// Firewall mark of outer packets, for policy routing of the underlay. Default: 0, none. `ip link … fwmark`.
    pub fwmark: Option<u32>,
    /// MTU in bytes, 68 to 65515, or `auto`: the outer path's MTU less 20. Default: `auto`. `ip link set … mtu`.
    pub mtu: Option<Mtu>,
    /// `up` or `down`. A tunnel that is down has no routes. Default: `up`. `ip link set … up`.
    pub state: Option<AdminState>,
    /// Addresses of the tunnel device.
    #[serde(default)]
    pub addresses: Vec<Short<Address>>,
    /// Routes through the tunnel.
    #[serde(default)]
    pub routes: Vec<Short<Route>>,
}

/// The kinds of tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TunnelKind {
    /// IPv4 in IPv4, RFC 2003.
    #[default]
    Ipip,
}

/// An address: `10.0.0.1/24` for short, or a mapping.
#[derive(Debug, Clone, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// The address with its prefix length.
    pub address: Prefix,
    /// The other end of a point-to-point address; its prefix length, if given, is the one that counts.
    pub peer: Option<Prefix>,
    /// How far the address is valid, IPv4 only (IPv6 derives it). Default: `global`, `host` within 127.0.0.0/8.
    #[serde(default)]
    #[schemars(schema_with = "schema::scope")]
    pub scope: Option<Scope>,
    /// Label, IPv4 only. Default: the device's name.
    pub label: Option<Label>,
    /// Don't add a route for the prefix. Default: false.
    #[serde(default)]
    pub noprefixroute: bool,
    /// Metric of the prefix route. Default: 0, the kernel's own choice.
    #[serde(default)]
    pub metric: u32,
}

/// A route: `10.0.0.0/8` for short, or a mapping.
#[derive(Debug, Clone, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Destination: a prefix without host bits, an address, or `default`.
    pub to: Destination,
    /// Gateway. Default: none, the destination is on the link.
    pub via: Option<Ip>,
    /// Device that packets leave by. Default: the tunnel, or the device whose prefix holds `via`.
    pub device: Option<InterfaceName>,
    /// Take the gateway as reachable on the link although no prefix says so. Default: false.
    #[serde(default)]
    pub onlink: bool,
    /// Priority, the lowest wins. Default: 0; for IPv6 0 means 1024.
    #[serde(default)]
    pub metric: u32,
    /// TOS that the route serves, IPv4 only. Default: 0, any.
    #[serde(default)]
    pub tos: RouteTos,
    /// Routing table. Default: `main`.
    pub table: Option<Table>,
    /// How far the destination is, IPv4 only. Default: `link` without a gateway, else `global`.
    #[serde(default)]
    #[schemars(schema_with = "schema::scope")]
    pub scope: Option<Scope>,
    /// Source address that the host prefers for its own packets.
    pub src: Option<Ip>,
    /// What becomes of a packet. Default: `unicast`.
    #[serde(default, rename = "type")]
    pub kind: RouteType,
    /// MTU of the path, bytes, 68 to 65520.
    #[schemars(range(min = 68, max = 65520))]
    pub mtu: Option<u32>,
    /// TCP maximum segment size to advertise, bytes, 1 to 65495.
    #[schemars(range(min = 1, max = 65495))]
    pub advmss: Option<u32>,
    /// Several ways out, instead of `via` and `device` (equal-cost multipath).
    #[serde(default)]
    pub nexthops: Vec<NextHop>,
}

/// One of several ways out.
#[derive(Debug, Clone, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NextHop {
    /// Gateway.
    pub via: Option<Ip>,
    /// Device that packets leave by. Default: the device whose prefix holds `via`.
    pub device: Option<InterfaceName>,
    /// Share of the traffic, 1 to 256. Default: 1.
    #[schemars(range(min = 1, max = 256))]
    pub weight: Option<u16>,
    /// Take the gateway as reachable on the link although no prefix says so. Default: false.
    #[serde(default)]
    pub onlink: bool,
}

/// A topology that was read, and what its author should know about it.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// The topology.
    pub topology: Topology,
    /// Warnings only. With the source they refer to.
    pub warnings: Problems,
}

impl Topology {
    /// Reads a topology. `file` is its name for messages.
    ///
    /// # Errors
    /// Every problem of the source, sorted by place, warnings among them.
    pub fn parse(file: &str, source: &str) -> Result<Parsed, Problems> {
        // Editors don't count a byte order mark as a column.
        let source = source.strip_prefix('\u{feff}').unwrap_or(source);
        let tree = tree::parse(source);
        let mut list = tree.problems;
        let topology = tree.root.and_then(|root| {
            let mut reading = read::read(&root);
            if tree.partial {
                reading.lost.add_unknown();
            }
            list.extend(reading.problems);
            let topology = reading.topology?;
            list.extend(validate::validate(&topology, &reading.lost, &root));
            Some(topology)
        });
        let problems = Problems::new(file, source.to_owned(), list);
        match topology {
            Some(topology) if problems.count(Severity::Error) == 0 => Ok(Parsed {
                topology,
                warnings: problems,
            }),
            _ => Err(problems),
        }
    }

    /// Reads a topology from a file's bytes, which need not be text.
    ///
    /// # Errors
    /// As of [`Topology::parse`].
    pub fn parse_bytes(file: &str, bytes: &[u8]) -> Result<Parsed, Problems> {
        let error = match std::str::from_utf8(bytes) {
            Ok(source) => return Self::parse(file, source),
            Err(error) => error,
        };
        let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let found = bytes[error.valid_up_to()];
        let problem = Problem::error(
            Span::at(valid.chars().count()),
            format!("expected UTF-8 text, found the byte {found:#04x}"),
        )
        .help("save the file as UTF-8");
        let source = String::from_utf8_lossy(bytes).into_owned();
        Err(Problems::new(file, source, vec![problem]))
    }

    /// A tunnel's options where it sets none itself.
    pub fn tunnel<'a>(&'a self, own: &'a Tunnel) -> Effective<'a> {
        Effective {
            own,
            defaults: &self.defaults,
        }
    }
}

/// A tunnel's options with the topology's `defaults` behind them.
#[derive(Clone, Copy)]
pub struct Effective<'a> {
    own: &'a Tunnel,
    defaults: &'a Tunnel,
}

impl Effective<'_> {
    /// The option that `field` picks: the tunnel's own, else the topology's, else none.
    pub fn get<T: Clone>(&self, field: impl Fn(&Tunnel) -> &Option<T>) -> Option<T> {
        field(self.own)
            .clone()
            .or_else(|| field(self.defaults).clone())
    }
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
    pub fn hops(&self) -> Vec<NextHop> {
        if !self.nexthops.is_empty() || (self.via.is_none() && self.device.is_none()) {
            return self.nexthops.clone();
        }
        vec![NextHop {
            via: self.via,
            device: self.device,
            weight: None,
            onlink: self.onlink,
        }]
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

/// An entry that may be written as one word: its address or destination alone.
#[derive(Debug, Clone)]
pub struct Short<T>(pub T);

impl<T> std::ops::Deref for Short<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

trait FromWord: DeserializeOwned {
    /// What the word alone is.
    type Word: JsonSchema;

    const EXPECTED: &'static str;

    fn from_word(word: &str) -> Result<Self, String>;
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
}

impl FromWord for Route {
    type Word = Destination;

    const EXPECTED: &'static str = "a prefix such as 10.0.0.0/8, or a mapping with `to`";

    fn from_word(word: &str) -> Result<Self, String> {
        Ok(Self {
            to: scalar::Word::from_word(word)?,
            via: None,
            device: None,
            onlink: false,
            metric: 0,
            tos: RouteTos::default(),
            table: None,
            scope: None,
            src: None,
            kind: RouteType::Unicast,
            mtu: None,
            advmss: None,
            nexthops: Vec::new(),
        })
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
