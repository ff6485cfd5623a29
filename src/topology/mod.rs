//! The topology: what a person writes, in YAML, for one host or for a fleet.
//!
//! [`Topology::parse`] reads a source and returns the types below or every problem in it, each at its place.
//! [`Topology::host`] takes out of it what one host should have. Nothing here opens a file or asks the kernel.

mod fleet;
mod host;
mod merge;
mod mesh;
mod scalar;
mod schema;
#[cfg(test)]
pub(crate) mod testing;
mod validate;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::source::{self, Path, Problem, Problems, Segment, Severity, SourceFile, Span};
use crate::state::{
    AddressKey, AdminState, IPV6_DEFAULT_METRIC, InterfaceName, MAIN_TABLE, Mode, RouteKey,
    RouteType, Scope, Tos, Ttl,
};
pub use fleet::{Links, Members, Mesh, Node, Style, Subnet, Underlay};
pub use host::{Host, PeerRoute, Way};
pub use mesh::{Fleet, Graph};
pub use scalar::{
    Destination, Endpoint, Ip, Label, Mtu, Name, Owner, Prefix, Protocol, RouteTos, Table, Version,
};

/// A topology: the tunnels, addresses and routes that one host should have, or every host of a fleet.
///
/// In a fleet, the top-level `defaults`, `tunnels`, `addresses` and `routes` hold for every node.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, serde::Serialize, JsonSchema)]
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
    #[serde(default, skip_serializing_if = "is_default")]
    pub route_protocol: Protocol,
    /// Options for every tunnel that doesn't set them itself.
    #[serde(default, skip_serializing_if = "Tunnel::is_default")]
    #[schemars(schema_with = "schema::defaults")]
    pub defaults: Tunnel,
    /// Tunnels by the name of their device.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tunnels: BTreeMap<InterfaceName, Tunnel>,
    /// Addresses on devices that are not ours, by the device's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub addresses: BTreeMap<InterfaceName, Vec<Short<Address>>>,
    /// Routes that don't belong to one of our tunnels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Short<Route>>,
    /// The hosts of a fleet, by name. Without any, the topology is for one host.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<Name, Node>,
    /// Tunnels and routes that join nodes, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meshes: BTreeMap<Name, Mesh>,
}

/// A tunnel. A key that is absent means its default, never "leave it alone".
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize, serde::Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tunnel {
    /// Kind of tunnel. Default: `ipip`. `ip link add … type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<TunnelKind>,
    /// Outer source address. Default: `any`, chosen by routing. `ip tunnel … local`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<Endpoint>,
    /// Outer destination address. Default: `any`, a multipoint tunnel. `ip tunnel … remote`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<Endpoint>,
    /// What the tunnel carries: `ipip` (IPv4), `mplsip` (MPLS), `any` (both). Default: `ipip`. `ip link … mode`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// TTL of the outer header: `inherit` or 1 to 255. Default: `inherit`. `ip tunnel … ttl`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Ttl>,
    /// TOS of the outer header: `inherit` or an even number up to 254. Default: 0. `ip tunnel … tos`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tos: Option<Tos>,
    /// Path MTU discovery: DF on the outer header (RFC 1191, RFC 2003 section 5.1). A fixed `ttl` forces it on.
    /// Default: true. `ip tunnel … [no]pmtudisc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pmtudisc: Option<bool>,
    /// Underlay device that outer packets are bound to. Default: none. `ip tunnel … dev`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<InterfaceName>,
    /// Firewall mark of outer packets, for policy routing of the underlay. Default: 0, none. `ip link … fwmark`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fwmark: Option<u32>,
    /// MTU in bytes, 68 to 65515, or `auto`: the outer path's MTU less 20. Default: `auto`. `ip link set … mtu`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Mtu>,
    /// `up` or `down`. A tunnel that is down has no routes. Default: `up`. `ip link set … up`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<AdminState>,
    /// Addresses of the tunnel device.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Short<Address>>,
    /// Routes through the tunnel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Short<Route>>,
}

/// The kinds of tunnel.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum TunnelKind {
    /// IPv4 in IPv4, RFC 2003.
    #[default]
    Ipip,
}

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
#[derive(Debug, Clone, PartialEq, serde::Deserialize, serde::Serialize, JsonSchema)]
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

/// A topology that was read, and what its author should know about it.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// The topology.
    pub topology: Topology,
    /// Warnings only. With the source they refer to.
    pub warnings: Problems,
}

impl Topology {
    /// A topology with nothing in it.
    pub fn named(name: Owner, route_protocol: Protocol) -> Self {
        Self {
            version: Version,
            name,
            route_protocol,
            defaults: Tunnel::default(),
            tunnels: BTreeMap::new(),
            addresses: BTreeMap::new(),
            routes: Vec::new(),
            nodes: BTreeMap::new(),
            meshes: BTreeMap::new(),
        }
    }

    /// Writes the topology as YAML that reads as the same again.
    ///
    /// # Errors
    /// None that a topology could cause; of the writer's.
    pub fn to_yaml(&self) -> Result<String, serde_yaml::Error> {
        source::write(self)
    }

    /// Reads a topology. `file` is its name for messages.
    ///
    /// # Errors
    /// Every problem of the source, sorted by place, warnings among them.
    pub fn parse(file: &str, source: &str) -> Result<Parsed, Problems> {
        Self::parse_files(file, vec![(file.to_owned(), source.as_bytes().to_vec())])
    }

    /// Reads a topology from the bytes of its files, which need not be text. `name` is what they are called together.
    ///
    /// # Errors
    /// As of [`Topology::parse`].
    pub fn parse_files(name: &str, files: Vec<(String, Vec<u8>)>) -> Result<Parsed, Problems> {
        let (files, not_text) = texts(files);
        if !not_text.is_empty() {
            return Err(Problems::new(name, files, not_text));
        }
        let (list, topology) = read(&files);
        let problems = Problems::new(name, files, list);
        match topology {
            Some(topology) if problems.count(Severity::Error) == 0 => Ok(Parsed {
                topology,
                warnings: problems,
            }),
            _ => Err(problems),
        }
    }

    /// A tunnel's options where it sets none itself.
    pub fn tunnel<'a>(&'a self, own: &'a Tunnel) -> Effective<'a> {
        Effective {
            own,
            defaults: &self.defaults,
        }
    }
}

/// The files as text, and a problem for each that isn't.
fn texts(files: Vec<(String, Vec<u8>)>) -> (Vec<SourceFile>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut before = 0;
    let texts = files.into_iter().map(|(name, bytes)| {
        let text = String::from_utf8(bytes).unwrap_or_else(|error| {
            let valid = error.utf8_error().valid_up_to();
            let found = error.as_bytes()[valid];
            let characters = String::from_utf8_lossy(&error.as_bytes()[..valid])
                .chars()
                .count();
            problems.push(
                Problem::error(
                    Span::at(before + characters),
                    format!("expected UTF-8 text, found the byte {found:#04x}"),
                )
                .help("save the file as UTF-8"),
            );
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        });
        // Editors don't count a byte order mark as a column.
        let text = match text.strip_prefix('\u{feff}') {
            Some(rest) => rest.to_owned(),
            None => text,
        };
        before += text.chars().count();
        SourceFile { name, text }
    });
    (texts.collect(), problems)
}

fn read(files: &[SourceFile]) -> (Vec<Problem>, Option<Topology>) {
    let tree = merge::parse(files);
    let mut list = tree.problems;
    let topology = tree.root.and_then(|root| {
        let shape = source::Shape { entry_of };
        let mut reading = source::read::<Topology>(&root, &shape);
        if tree.partial {
            reading.lost.add_unknown();
        }
        list.extend(reading.problems);
        let topology = reading.document?;
        let places = source::Index::new(&root);
        list.extend(validate::validate(&topology, &reading.lost, &places));
        Some(topology)
    });
    (list, topology)
}

/// The address, route or option that a path leads into: half of one would be checked for the wrong meaning.
fn entry_of(path: &Path) -> Path {
    let within = match path.segments() {
        [Segment::Key(top), _, rest @ ..] if top == "nodes" && !rest.is_empty() => 2,
        _ => 0,
    };
    let depth = match &path.segments()[within..] {
        [
            Segment::Key(top),
            _,
            Segment::Key(list),
            Segment::Index(_),
            ..,
        ] if top == "tunnels" && is_list(list) => 4,
        [Segment::Key(top), _, Segment::Key(_), ..] if top == "tunnels" => 3,
        [Segment::Key(top), _, Segment::Index(_), ..] if top == "addresses" => 3,
        [Segment::Key(top), Segment::Index(_), ..] if top == "routes" || top == "subnets" => 2,
        [Segment::Key(top), ..]
            if within > 0 && top != "defaults" && !is_list(top) && top != "tunnels" =>
        {
            1
        }
        [Segment::Key(_), _, ..] => 2,
        _ => 1,
    };
    path.prefix(within + depth)
}

fn is_list(key: &str) -> bool {
    key == "addresses" || key == "routes"
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

impl Tunnel {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// These options, and `general`'s where they say nothing. The lists stay as they are.
    pub(crate) fn or(self, general: &Self) -> Self {
        let Self {
            kind,
            local,
            remote,
            mode,
            ttl,
            tos,
            pmtudisc,
            device,
            fwmark,
            mtu,
            state,
            addresses,
            routes,
        } = self;
        Self {
            kind: kind.or(general.kind),
            local: local.or_else(|| general.local.clone()),
            remote: remote.or_else(|| general.remote.clone()),
            mode: mode.or(general.mode),
            ttl: ttl.or(general.ttl),
            tos: tos.or(general.tos),
            pmtudisc: pmtudisc.or(general.pmtudisc),
            device: device.or(general.device),
            fwmark: fwmark.or(general.fwmark),
            mtu: mtu.or(general.mtu),
            state: state.or(general.state),
            addresses,
            routes,
        }
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
    /// A route that says nothing but where it leads.
    fn plain(to: Destination) -> Self {
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
    pub fn hops(&self) -> Vec<NextHop> {
        if !self.nexthops.is_empty() || (self.via.is_none() && self.device.is_none()) {
            return self.nexthops.clone();
        }
        vec![NextHop {
            via: self.via,
            device: self.device,
            weight: None,
            onlink: self.onlink,
            direct: self.direct,
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
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Short<T>(pub T);

impl<T> std::ops::Deref for Short<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

trait FromWord: DeserializeOwned + Serialize {
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

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
