//! The topology: what a person writes, in YAML, for one host or for a fleet.
//!
//! [`Topology::parse`] reads a source and returns the types below or every problem in it, each at its place.
//! [`Topology::fleet`] takes out of it what each host should have. Nothing here opens a file or asks the kernel.

mod endpoint;
mod entry;
mod fleet;
mod host;
mod merge;
mod mesh;
mod peer;
mod probe;
mod scalar;
mod schema;
#[cfg(test)]
pub(crate) mod testing;
mod validate;

use std::collections::BTreeMap;

use schemars::JsonSchema;

use crate::source::{self, Content, Lost, Path, Problem, Problems, Segment, Severity, Texts};
use crate::state::{AdminState, InterfaceName, Mode, Tos, Ttl};
pub use endpoint::Endpoint;
use entry::FromWord;
pub use entry::{Address, Hops, NextHop, Route, Routes, Shared, Short};
pub use fleet::{Links, Members, Mesh, Node, Style, Subnet, Underlay};
pub use host::{Host, PeerRoute, Silent, Way};
pub use mesh::{Fleet, Graph};
pub use peer::Peer;
pub use probe::{Count, Interval, Probe, ProbeTarget, Timeout, Withdraw};
pub use scalar::{
    Destination, Ip, Label, Mtu, Name, Owner, Prefix, Protocol, RouteTos, Table, Version,
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
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(with = "BTreeMap<InterfaceName, Tunnel>")]
    pub tunnels: Shared<BTreeMap<InterfaceName, Tunnel>>,
    /// Addresses on devices that are not ours, by the device's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub addresses: BTreeMap<InterfaceName, Vec<Short<Address>>>,
    /// Routes that don't belong to one of our tunnels.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(schema_with = "schema::routes")]
    pub routes: Routes,
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
    /// How the tunnel is probed: by `tunnelform probe`, and, where this key is given, by `tunnelform watch` all the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// Addresses of the tunnel device.
    #[serde(
        default,
        deserialize_with = "entry::no_larger",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub addresses: Vec<Short<Address>>,
    /// Routes through the tunnel.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(schema_with = "schema::routes")]
    pub routes: Routes,
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
            tunnels: Shared::default(),
            addresses: BTreeMap::new(),
            routes: Routes::default(),
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
        Self::parse_files(file, vec![Content::new(file, source)])
    }

    /// Reads a topology from its files, which need not be text. `name` is what they are called together.
    ///
    /// # Errors
    /// As of [`Topology::parse`].
    pub fn parse_files(name: &str, files: Vec<Content>) -> Result<Parsed, Problems> {
        let (texts, not_text) = Texts::new(files);
        if !not_text.is_empty() {
            return Err(Problems::new(name, texts.files, not_text));
        }
        let (list, topology) = read(&texts);
        let problems = Problems::new(name, texts.files, list);
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

fn read(texts: &Texts) -> (Vec<Problem>, Option<Topology>) {
    if let Some(topology) = read_plain(texts) {
        return (Vec::new(), Some(topology));
    }
    let tree = merge::parse(texts);
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

/// The short way, for one file in ordinary YAML about which there's nothing to say. It needs no tree.
fn read_plain(texts: &Texts) -> Option<Topology> {
    let [document] = texts.documents.as_slice() else {
        return None;
    };
    let (text, lists) = texts.of(document);
    let topology = source::read_plain(text, &lists)?;
    let problems = validate::validate(&topology, &Lost::default(), &source::Index::nowhere());
    problems.is_empty().then_some(topology)
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
            probe,
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
            probe: probe::merge(probe, general.probe),
            addresses,
            routes,
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
