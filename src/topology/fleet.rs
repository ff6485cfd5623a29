//! The words of a fleet: nodes, and the meshes that join them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::scalar::{Word, prefix};
use super::{Address, FromWord, Name, Prefix, Routes, Short, Tunnel, is_default, schema};
use crate::state::InterfaceName;

/// One host of a fleet.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize, serde::Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Where the other nodes reach it: its address, `{device: eth0}` to look it up on the node itself, or both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub underlay: Option<Short<Underlay>>,
    /// Overlay networks that live behind this node, IPv4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<Subnet>,
    /// What `members` of a mesh may choose it by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Options for every tunnel of this node that doesn't set them itself. They come before the top-level `defaults`.
    #[serde(default, skip_serializing_if = "Tunnel::is_default")]
    #[schemars(schema_with = "schema::defaults")]
    pub defaults: Tunnel,
    /// Tunnels of this node alone, by the name of their device.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tunnels: BTreeMap<InterfaceName, Tunnel>,
    /// Addresses on this node's devices that are not ours, or on a mesh's device instead of its default one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub addresses: BTreeMap<InterfaceName, Vec<Short<Address>>>,
    /// Routes of this node alone that don't belong to one of its tunnels.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(schema_with = "schema::routes")]
    pub routes: Routes,
}

/// A node's place in the underlay: `192.168.10.2` for short, or a mapping.
#[derive(Debug, Clone, Copy, PartialEq, serde::Deserialize, serde::Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Underlay {
    /// Its address. With a prefix length, plans without a host know which peers are on the same network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Prefix>,
    /// Device that has the address. Without `address` the node looks its own address up there, and no other node knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<InterfaceName>,
}

impl Underlay {
    /// The address, where the file has it.
    pub fn address(&self) -> Option<Ipv4Addr> {
        match self.address?.net {
            IpNet::V4(net) => Some(net.addr()),
            IpNet::V6(_) => None,
        }
    }

    /// The network around the address, where the file has it.
    pub fn network(&self) -> Option<Ipv4Net> {
        let address = self.address.filter(|address| address.explicit)?;
        match address.net {
            IpNet::V4(net) => Some(net.trunc()),
            IpNet::V6(_) => None,
        }
    }
}

impl FromWord for Underlay {
    const EXPECTED: &'static str = "an IPv4 address, or a mapping with `address`, `device` or both";

    type Word = Prefix;

    fn from_word(word: &str) -> Result<Self, String> {
        Ok(Self {
            address: Some(Prefix::from_word(word)?),
            device: None,
        })
    }

    fn word(&self) -> Option<String> {
        let Self { address, device } = self;
        device.is_none().then(|| address.map(|a| a.to_string()))?
    }
}

/// A network behind a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet(pub Ipv4Net);

impl Word for Subnet {
    const EXPECTED: &'static str = "an IPv4 network such as 10.244.1.0/24";

    fn from_word(word: &str) -> Result<Self, String> {
        match prefix(word) {
            Some(IpNet::V4(net)) if net.trunc() == net => Ok(Self(net)),
            Some(IpNet::V4(net)) => Err(format!(
                "{word} has host bits set behind its prefix length\nwrite {} to mean the network",
                net.trunc()
            )),
            Some(IpNet::V6(_)) => Err(format!(
                "{word} is an IPv6 network: an ipip tunnel carries IPv4 only (RFC 2003)\nleave it out"
            )),
            None => Err(format!("expected {}, found {word:?}", Self::EXPECTED)),
        }
    }
}

impl Serialize for Subnet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Nodes that reach one another's subnets through tunnels.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, serde::Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mesh {
    /// multipoint: the device's name. point-to-point: what the names of the devices begin with, before the peer's
    /// name. Default: the mesh's name, with `-` behind it for point-to-point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<InterfaceName>,
    /// `multipoint`: one device a node and a route for each peer's subnet. `point-to-point`: a tunnel for each peer.
    /// Default: `multipoint`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub style: Style,
    /// Reach a peer in the same underlay network without encapsulation. Default: false.
    #[serde(default, skip_serializing_if = "is_default")]
    pub direct_routing: bool,
    /// `all`, a list of nodes, or the labels that a node must have. Default: `all`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub members: Members,
    /// Who has a tunnel to whom: `full` (everyone to everyone), `hub: [NODE…]` or `edges: [[NODE, NODE]…]`.
    /// Default: `full`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub topology: Links,
    /// point-to-point: the network that the link addresses are taken from, each node's with the last bits of its
    /// underlay address. Default: none, a node's link address is its first subnet's network address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_network: Option<Subnet>,
    /// Route to the members' subnets. Default: true. Set it to false where a routing daemon does that.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub routes: bool,
    /// A last resort for packets to unused addresses of the node's own subnets: drop them. Default: true.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub blackhole: bool,
    /// Device that the node's own subnets are behind, instead of the blackhole. It must exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<InterfaceName>,
    /// Options of the mesh's tunnels. They come before a node's and the top-level `defaults`.
    #[serde(default, skip_serializing_if = "Tunnel::is_default")]
    #[schemars(schema_with = "schema::mesh_tunnel")]
    pub tunnel: Tunnel,
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

/// How a mesh is made of devices.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    /// One device without a remote; the routes name the peer as an on-link gateway.
    #[default]
    Multipoint,
    /// A tunnel for each peer.
    PointToPoint,
}

/// The nodes of a mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Members {
    /// Every node.
    #[default]
    All,
    /// These.
    List(Vec<Name>),
    /// Those that have all of these labels.
    Labels(BTreeMap<String, String>),
}

/// The pairs of a mesh that have a tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Links {
    /// Every pair.
    #[default]
    Full,
    /// The pairs with a hub in them.
    Hub(Vec<Name>),
    /// These.
    Edges(Vec<(Name, Name)>),
}

impl Members {
    const EXPECTED: &'static str = "`all`, a list of nodes, or a mapping of labels";
}

impl Links {
    const EXPECTED: &'static str = "`full`, `hub: [NODE…]` or `edges: [[NODE, NODE]…]`";
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Chosen;

        impl<'de> Visitor<'de> for Chosen {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(Members::EXPECTED)
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Members, E> {
                match word {
                    "all" => Ok(Members::All),
                    _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Members, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Members::List)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Members, A::Error> {
                BTreeMap::deserialize(MapAccessDeserializer::new(map)).map(Members::Labels)
            }
        }

        deserializer.deserialize_any(Chosen)
    }
}

/// A mapping of one key or the other.
#[derive(serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LinkMap {
    /// The hubs. The other members reach one another through them.
    hub: Option<Vec<Name>>,
    /// The pairs. Who has no tunnel to another reaches it by the shortest way over others.
    edges: Option<Vec<(Name, Name)>>,
}

impl<'de> Deserialize<'de> for Links {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrMap;

        impl<'de> Visitor<'de> for WordOrMap {
            type Value = Links;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(Links::EXPECTED)
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Links, E> {
                match word {
                    "full" => Ok(Links::Full),
                    _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Links, A::Error> {
                match LinkMap::deserialize(MapAccessDeserializer::new(map))? {
                    LinkMap {
                        hub: Some(hubs),
                        edges: None,
                    } => Ok(Links::Hub(hubs)),
                    LinkMap {
                        hub: None,
                        edges: Some(edges),
                    } => Ok(Links::Edges(edges)),
                    LinkMap { .. } => Err(de::Error::custom(format!(
                        "expected {}, one of them",
                        Links::EXPECTED
                    ))),
                }
            }
        }

        deserializer.deserialize_any(WordOrMap)
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::List(names) => names.serialize(serializer),
            Self::Labels(labels) => labels.serialize(serializer),
        }
    }
}

impl Serialize for Links {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Full => serializer.serialize_str("full"),
            Self::Hub(hubs) => BTreeMap::from([("hub", hubs)]).serialize(serializer),
            Self::Edges(edges) => BTreeMap::from([("edges", edges)]).serialize(serializer),
        }
    }
}

impl JsonSchema for Members {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Members".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let names = generator.subschema_for::<Vec<Name>>();
        let labels = generator.subschema_for::<BTreeMap<String, String>>();
        json_schema!({
            "description": format!("Expected {}.", Self::EXPECTED),
            "anyOf": [{"const": "all"}, names, labels]
        })
    }
}

impl JsonSchema for Links {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Links".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let map = generator.subschema_for::<LinkMap>();
        json_schema!({
            "description": format!("Expected {}.", Self::EXPECTED),
            "anyOf": [{"const": "full"}, map]
        })
    }
}
