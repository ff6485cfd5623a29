//! A tunnel device: its options, every default filled in.

use std::fmt;
use std::net::Ipv4Addr;

use schemars::JsonSchema;
use serde::de::{Error as _, IntoDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;

use super::InterfaceName;
use super::route::NumberOrWord;

/// The least MTU with which a device has IPv6 (RFC 8200 section 5); the kernel takes IPv6 off a device below it.
pub const IPV6_MIN_MTU: u32 = 1280;

/// A tunnel as the kernel holds it. Its key is the device's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tunnel {
    /// What kind of tunnel, with that kind's options.
    #[serde(flatten)]
    pub kind: Kind,
    /// MTU of the device in bytes, 68 to 65515.
    pub mtu: u32,
    /// Whether the device is set up.
    pub state: AdminState,
    /// The device's alias, which names its owner. Empty: none.
    pub alias: SmolStr,
}

/// The kinds of tunnel and their options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Kind {
    /// IPv4 in IPv4, RFC 2003 (`net/ipv4/ipip.c`).
    Ipip(Ipip),
}

/// The options of an ipip tunnel, one for each attribute in `enum IFLA_IPTUN_*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ipip {
    /// Outer source address; `any`: chosen by routing.
    #[serde(serialize_with = "any", deserialize_with = "any_or_address")]
    #[schemars(with = "String")]
    pub local: Option<Ipv4Addr>,
    /// Outer destination; `any`: a multipoint tunnel, whose routes name the peer as an on-link gateway.
    #[serde(serialize_with = "any", deserialize_with = "any_or_address")]
    #[schemars(with = "String")]
    pub remote: Option<Ipv4Addr>,
    /// Underlay device that outer packets are bound to.
    #[schemars(with = "Option<String>")]
    pub device: Option<InterfaceName>,
    /// What the tunnel carries.
    pub mode: Mode,
    /// Outer TTL.
    pub ttl: Ttl,
    /// Outer TOS.
    #[serde(deserialize_with = "any_tos")]
    pub tos: Tos,
    /// Path MTU discovery: set DF on the outer header.
    pub pmtudisc: bool,
    /// Mark of outer packets for policy routing; 0: none.
    pub fwmark: u32,
    /// Metadata mode (`ip link … external`): routes and tc choose the endpoints.
    pub external: bool,
    /// UDP encapsulation (`IFLA_IPTUN_ENCAP_*`); null: none.
    pub encap: Option<Encap>,
}

/// UDP encapsulation of the outer packet (`net/ipv4/fou_core.c`). Only ever observed: a topology has no option for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Encap {
    /// `TUNNEL_ENCAP_*`: 1 fou, 2 gue.
    pub kind: u16,
    /// `TUNNEL_ENCAP_FLAG_*`.
    pub flags: u16,
    /// UDP source port, 0: chosen by flow.
    pub sport: u16,
    /// UDP destination port.
    pub dport: u16,
}

impl Default for Ipip {
    /// The defaults that a topology documents. They are the kernel's, but for `mode`: `ip link add type ipip` makes
    /// `any`, which also takes in MPLS.
    fn default() -> Self {
        Self {
            local: None,
            remote: None,
            device: None,
            mode: Mode::Ipip,
            ttl: Ttl::INHERIT,
            tos: Tos::default(),
            pmtudisc: true,
            fwmark: 0,
            external: false,
            encap: None,
        }
    }
}

impl Tunnel {
    /// What stands before the owner's name in the alias of a tunnel that has one.
    pub(crate) const MARK: &str = "tunnelform:";

    /// Whether it has an owner: it was made by this program, or taken over.
    pub(crate) fn is_marked(&self) -> bool {
        self.alias.starts_with(Self::MARK)
    }

    /// The kernel's own key of a tunnel within its kind: no two may share it (`ip_tunnel_find` in
    /// `net/ipv4/ip_tunnel.c`).
    pub fn endpoints(&self) -> Endpoints {
        let Kind::Ipip(Ipip {
            local,
            remote,
            device,
            external,
            ..
        }) = &self.kind;
        Endpoints {
            local: *local,
            remote: *remote,
            device: *device,
            external: *external,
        }
    }
}

/// What tells one tunnel's packets from another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoints {
    /// Outer address here.
    pub local: Option<Ipv4Addr>,
    /// Outer address there.
    pub remote: Option<Ipv4Addr>,
    /// Underlay device.
    pub device: Option<InterfaceName>,
    /// Metadata mode; there is one such tunnel at most.
    pub external: bool,
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |a: Option<Ipv4Addr>| a.map_or("any".to_owned(), |a| a.to_string());
        write!(f, "local {} remote {}", show(self.local), show(self.remote))?;
        if let Some(device) = self.device {
            write!(f, " device {device}")?;
        }
        if self.external {
            write!(f, " external")?;
        }
        Ok(())
    }
}

/// What an ipip tunnel carries: `mode` of `ip tunnel`, `IFLA_IPTUN_PROTO` of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// IPv4 alone (protocol 4). `ip tunnel add … mode ipip`.
    Ipip,
    /// MPLS alone (protocol 137). `ip link add … type ipip mode mplsip`.
    Mplsip,
    /// IPv4 and MPLS. `ip link add … type ipip mode any`, and what `ip link` makes without a mode.
    Any,
}

/// Whether a device is administratively up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AdminState {
    /// `ip link set … up`.
    Up,
    /// `ip link set … down`: its routes are gone meanwhile.
    Down,
}

/// TTL of the outer header: 0, shown as `inherit`, takes the inner packet's; 1 to 255 is fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl(pub u8);

impl Ttl {
    /// Take the inner packet's TTL: `ip tunnel … ttl inherit`.
    pub const INHERIT: Self = Self(0);
}

/// TOS of the outer header as the kernel holds it: bit 0 means "inherit from the inner packet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tos(pub u8);

impl Tos {
    /// Take the inner packet's TOS: `ip tunnel … tos inherit`.
    pub const INHERIT: Self = Self(1);
}

impl Serialize for Ttl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        inherit_or_number(*self == Self::INHERIT, self.0, serializer)
    }
}

impl Serialize for Tos {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        inherit_or_number(*self == Self::INHERIT, self.0, serializer)
    }
}

fn inherit_or_number<S: Serializer>(
    inherit: bool,
    number: u8,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    if inherit {
        serializer.serialize_str("inherit")
    } else {
        serializer.serialize_u8(number)
    }
}

/// The schema that [`Ttl`] and [`Tos`] share: the word `inherit` or a number.
macro_rules! inherit_schema {
    ($type:ident, $low:literal, $high:literal, $description:literal) => {
        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "description": $description,
                    "oneOf": [
                        {"const": "inherit"},
                        {"type": "integer", "minimum": $low, "maximum": $high}
                    ]
                })
            }
        }
    };
}
inherit_schema!(
    Ttl,
    1,
    255,
    "`inherit` (take the inner packet's TTL) or 1 to 255."
);
inherit_schema!(
    Tos,
    0,
    254,
    "`inherit` (take the inner packet's TOS) or an even number from 0 to 254."
);

/// Other tools set bit 0 beside others: a topology can't, but an observed state has it.
fn any_tos<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tos, D::Error> {
    match NumberOrWord::deserialize(deserializer)? {
        NumberOrWord::Number(number) => Ok(Tos(number)),
        NumberOrWord::Word(word) => Tos::deserialize(word.into_deserializer()),
    }
}

fn any_or_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Ipv4Addr>, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "any" => Ok(None),
        address => address.parse().map(Some).map_err(D::Error::custom),
    }
}

fn any<S: Serializer>(address: &Option<Ipv4Addr>, serializer: S) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => serializer.collect_str(address),
        None => serializer.serialize_str("any"),
    }
}
