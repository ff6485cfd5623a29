//! One end of a tunnel: an address, or what an address is found by.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::Name;
use super::scalar::Word;
use crate::state::InterfaceName;

/// One end of an ipip tunnel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// `any`: what the absence of the key means too.
    Any,
    /// One address.
    Address(Ipv4Addr),
    /// The underlay address of a node of this topology.
    Node(Name),
    /// The first address of a device of this host, `{device: eth0}`. At a tunnel's `local` only.
    Device(InterfaceName),
}

impl Endpoint {
    pub(super) const ANY: &'static str = "any";

    /// The address, where the topology alone tells it.
    pub fn address(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Any | Self::Node(_) | Self::Device(_) => None,
        }
    }
}

/// A mapping instead of an address.
#[derive(serde::Deserialize, serde::Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EndpointDevice {
    /// Device whose first address it is.
    device: InterfaceName,
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrMap;

        impl<'de> Visitor<'de> for WordOrMap {
            type Value = Endpoint;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(Endpoint::EXPECTED)
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Endpoint, E> {
                Endpoint::from_word(word).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Endpoint, A::Error> {
                EndpointDevice::deserialize(MapAccessDeserializer::new(map))
                    .map(|EndpointDevice { device }| Endpoint::Device(device))
            }
        }

        deserializer.deserialize_any(WordOrMap)
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_str(Self::ANY),
            Self::Address(address) => serializer.collect_str(address),
            Self::Node(name) => serializer.collect_str(name),
            Self::Device(device) => EndpointDevice { device: *device }.serialize(serializer),
        }
    }
}

impl JsonSchema for Endpoint {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Endpoint".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let name = generator.subschema_for::<Name>();
        let device = generator.subschema_for::<EndpointDevice>();
        json_schema!({
            "description": "IPv4 address of a tunnel's end, `any`, or a node's name for its underlay address. For `local` also `{device: eth0}`.",
            "anyOf": [{"type": "string", "pattern": r"^(any|\d+\.\d+\.\d+\.\d+)$"}, name, device]
        })
    }
}

impl Word for Endpoint {
    const EXPECTED: &'static str = "an IPv4 address or `any`";

    fn from_word(word: &str) -> Result<Self, String> {
        if word == Self::ANY || word == "0.0.0.0" {
            return Ok(Self::Any);
        }
        match word.parse() {
            Ok(IpAddr::V4(address)) => Ok(Self::Address(address)),
            Ok(IpAddr::V6(_)) => Err(format!(
                "{word} is an IPv6 address: an ipip tunnel's outer header is IPv4 (RFC 2003)\ngive the peer's IPv4 address"
            )),
            Err(_) => word
                .parse()
                .map(Self::Node)
                .map_err(|_| format!("expected {}, found {word:?}", Self::EXPECTED)),
        }
    }
}
