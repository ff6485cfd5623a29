//! The scalars of a topology: words and numbers that are checked as they are read.
//!
//! A parser's error is one line that says what was expected and found, and behind a line break what to do.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use smol_str::SmolStr;

use super::Endpoint;
use super::fleet::Subnet;
use crate::state::{InterfaceName, Scope, Tos, Ttl, Tunnel};

/// A value that is written as one word.
pub(crate) trait Word: Sized {
    /// "expected …".
    const EXPECTED: &'static str;

    fn from_word(word: &str) -> Result<Self, String>;
}

/// A value that is written as a whole number, or as a word that stands for one.
pub(super) trait Number: Sized {
    /// "expected …".
    const EXPECTED: &'static str;

    fn from_number(number: u64) -> Option<Self>;

    fn from_word(_word: &str) -> Option<Self> {
        None
    }
}

struct WordVisitor<T>(PhantomData<T>);

impl<T: Word> Visitor<'_> for WordVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<T, E> {
        T::from_word(word).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        Err(unquoted::<T, E>("number", &number.to_string()))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<T, E> {
        Err(unquoted::<T, E>("boolean", &value.to_string()))
    }
}

/// YAML takes the word for something else, because it isn't in quotes.
fn unquoted<T: Word, E: de::Error>(kind: &str, text: &str) -> E {
    let message = format!("expected {}, found the {kind} {text}", T::EXPECTED);
    E::custom(match T::from_word(text) {
        Ok(_) => format!("{message}\nwrite {text:?} in quotes to mean the word"),
        Err(_) => message,
    })
}

struct NumberVisitor<T>(PhantomData<T>);

impl<T: Number> Visitor<'_> for NumberVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        T::from_number(number)
            .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<T, E> {
        // An `invalid_type` rather than an `invalid_value`: a number in quotes gets its own advice.
        T::from_word(word).ok_or_else(|| E::invalid_type(de::Unexpected::Str(word), &self))
    }
}

macro_rules! deserialize_by {
    ($visitor:ident: $($type:ty),+ $(,)?) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any($visitor::<Self>(PhantomData))
            }
        }
    )+};
}

deserialize_by!(WordVisitor: InterfaceName, Owner, Name, Subnet, Destination, Ip, Prefix, Label);
deserialize_by!(NumberVisitor: Version, Ttl, Tos, Mtu, Table, Protocol, RouteTos, Scope);

/// Reads a value that is written as one word, where its module isn't this one.
pub(super) fn word<'de, T: Word, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(WordVisitor(PhantomData))
}

/// Reads a value that is written as a number, where its module isn't this one.
pub(super) fn number<'de, T: Number, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(NumberVisitor(PhantomData))
}

/// Schemas of the words: a string with a pattern that catches the commonest slips in an editor.
macro_rules! word_schema {
    ($($type:ident $pattern:literal $description:literal),+ $(,)?) => {$(
        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"description": $description, "type": "string", "pattern": $pattern})
            }
        }
    )+};
}

word_schema!(
    InterfaceName r"^[^/:\s]{1,15}$" "Name of a network interface, 1 to 15 bytes.",
    Owner "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$" "Letters, digits, `.`, `_` and `-`; 63 characters at most.",
    Name "^[A-Za-z0-9._-]*[A-Za-z][A-Za-z0-9._-]*$" "Name of a node or mesh: letters, digits, `.`, `_` and `-`, at least one letter; 63 characters at most.",
    Subnet r"^\d+\.\d+\.\d+\.\d+(/\d+)?$" "IPv4 network.",
    Destination "^(default|[0-9A-Fa-f:.]+(/[0-9]{1,3})?)$" "A prefix, an address, or `default`.",
    Ip "^[0-9A-Fa-f:.]+$" "IPv4 or IPv6 address.",
    Prefix "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$" "Address and prefix length: `10.0.0.1/24`.",
    Label r"^\S{1,15}$" "Label of an IPv4 address, 1 to 15 bytes.",
);

impl Word for InterfaceName {
    const EXPECTED: &'static str = "the name of a network interface";

    fn from_word(word: &str) -> Result<Self, String> {
        word.parse()
            .map_err(|error: crate::state::InvalidName| error.to_string())
    }
}

/// Who owns the objects: the topology's `name`, as the kernel keeps it in a tunnel's alias.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner(String);

impl Owner {
    /// A tunnel's alias under this owner.
    pub fn alias(&self) -> SmolStr {
        SmolStr::from_iter([Tunnel::MARK, &self.0])
    }

    /// The owner that an alias names, if it names one.
    pub fn of_alias(alias: &str) -> Option<&str> {
        alias.strip_prefix(Tunnel::MARK)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl std::str::FromStr for Owner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.len() <= 63
            && text.chars().all(fits)
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "expected {}, found {text:?}",
                <Self as Word>::EXPECTED
            ))
        }
    }
}

impl Word for Owner {
    const EXPECTED: &'static str =
        "a name of 1 to 63 letters, digits, `.`, `_` and `-` that starts with a letter or digit";

    fn from_word(word: &str) -> Result<Self, String> {
        word.parse()
    }
}

/// The name of a node or a mesh.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

impl Name {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        // With a letter in it, it can't be taken for an address.
        if text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.contains(|c: char| c.is_ascii_alphabetic())
            && text.len() <= 63
            && text.chars().all(fits)
            && text != Endpoint::ANY
        {
            Ok(Self(text.into()))
        } else {
            Err(format!(
                "expected {}, found {text:?}",
                <Self as Word>::EXPECTED
            ))
        }
    }
}

impl Word for Name {
    const EXPECTED: &'static str = "a name of 1 to 63 letters, digits, `.`, `_` and `-` with at least one letter, other than `any`";

    fn from_word(word: &str) -> Result<Self, String> {
        word.parse()
    }
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// `default`: everything, in the family of the route's gateway (IPv4 without one).
    Default,
    /// A prefix.
    Prefix(IpNet),
}

impl Word for Destination {
    const EXPECTED: &'static str = "a prefix such as 10.0.0.0/8, or `default`";

    fn from_word(word: &str) -> Result<Self, String> {
        if word == "default" {
            return Ok(Self::Default);
        }
        let net =
            prefix(word).ok_or_else(|| format!("expected {}, found {word:?}", Self::EXPECTED))?;
        if net.trunc() == net {
            Ok(Self::Prefix(net))
        } else {
            Err(format!(
                "{word} has host bits set behind its prefix length\nwrite {} to mean the network",
                net.trunc()
            ))
        }
    }
}

/// An address, IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ip(pub IpAddr);

impl Word for Ip {
    const EXPECTED: &'static str = "an IP address";

    fn from_word(word: &str) -> Result<Self, String> {
        word.parse()
            .map(Self)
            .map_err(|_| format!("expected {}, found {word:?}", Self::EXPECTED))
    }
}

/// An address with its prefix length; without one it stands alone (/32, /128).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Address and length.
    pub net: IpNet,
    /// Whether the length was written.
    pub explicit: bool,
}

impl Word for Prefix {
    const EXPECTED: &'static str = "an address such as 10.0.0.1/24";

    fn from_word(word: &str) -> Result<Self, String> {
        let net =
            prefix(word).ok_or_else(|| format!("expected {}, found {word:?}", Self::EXPECTED))?;
        Ok(Self {
            net,
            explicit: word.contains('/'),
        })
    }
}

/// A network, with host bits or without; an address alone is one, too.
pub(super) fn prefix(word: &str) -> Option<IpNet> {
    word.parse()
        .ok()
        .or_else(|| word.parse::<IpAddr>().ok().map(IpNet::from))
}

/// The label of an IPv4 address (`IFA_LABEL`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label(pub SmolStr);

impl Word for Label {
    const EXPECTED: &'static str = "a label of 1 to 15 bytes without white space";

    fn from_word(word: &str) -> Result<Self, String> {
        if (1..16).contains(&word.len())
            && !word.contains(|c: char| c.is_whitespace() || c.is_control())
        {
            Ok(Self(word.into()))
        } else {
            Err(format!("expected {}, found {word:?}", Self::EXPECTED))
        }
    }
}

/// Version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Version;

impl Number for Version {
    const EXPECTED: &'static str = "1, the only version of the format that this release knows";

    fn from_number(number: u64) -> Option<Self> {
        (number == 1).then_some(Self)
    }
}

impl Number for Ttl {
    const EXPECTED: &'static str = "`inherit` or a number from 1 to 255";

    fn from_number(number: u64) -> Option<Self> {
        u8::try_from(number).ok().filter(|&ttl| ttl > 0).map(Self)
    }

    fn from_word(word: &str) -> Option<Self> {
        (word == "inherit").then_some(Self::INHERIT)
    }
}

impl Number for Tos {
    const EXPECTED: &'static str =
        "`inherit` or an even number from 0 to 254 (bit 0 is the kernel's mark for inherit)";

    fn from_number(number: u64) -> Option<Self> {
        u8::try_from(number)
            .ok()
            .filter(|&tos| tos % 2 == 0)
            .map(Self)
    }

    fn from_word(word: &str) -> Option<Self> {
        (word == "inherit").then_some(Self::INHERIT)
    }
}

/// MTU of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mtu {
    /// The outer path's MTU less the outer header's 20 bytes.
    Auto,
    /// Bytes, 68 to 65515.
    Bytes(u32),
}

impl Number for Mtu {
    const EXPECTED: &'static str = "`auto` or a number of bytes from 68 to 65515";

    fn from_number(number: u64) -> Option<Self> {
        u32::try_from(number)
            .ok()
            .filter(|mtu| (68..=65515).contains(mtu))
            .map(Self::Bytes)
    }

    fn from_word(word: &str) -> Option<Self> {
        (word == "auto").then_some(Self::Auto)
    }
}

/// A routing table: 1 to 4294967295, or `main` (254) or `default` (253).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table(pub u32);

impl Number for Table {
    const EXPECTED: &'static str = "`main`, `default` or a table's number from 1 to 4294967295 (but 255: `local` is the kernel's)";

    fn from_number(number: u64) -> Option<Self> {
        u32::try_from(number)
            .ok()
            .filter(|&table| table != 0 && table != 255)
            .map(Self)
    }

    fn from_word(word: &str) -> Option<Self> {
        match word {
            "main" => Some(Self(254)),
            "default" => Some(Self(253)),
            _ => None,
        }
    }
}

/// A routing protocol's number that can serve as a mark: 5 to 255. The kernel, `ip` and boot scripts use the lower ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol(pub u8);

impl Protocol {
    /// What marks a route when the topology says nothing.
    pub const DEFAULT: Self = Self(117);
}

impl Default for Protocol {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Number for Protocol {
    const EXPECTED: &'static str =
        "a routing protocol number from 5 to 255 that no other program uses";

    fn from_number(number: u64) -> Option<Self> {
        u8::try_from(number)
            .ok()
            .filter(|&protocol| protocol > 4)
            .map(Self)
    }
}

/// The TOS that a route serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteTos(pub u8);

impl Number for RouteTos {
    const EXPECTED: &'static str = "a TOS that is a multiple of 4 from 4 to 28 (RFC 1349's bits)";

    fn from_number(number: u64) -> Option<Self> {
        u8::try_from(number)
            .ok()
            .filter(|&tos| tos & !0x1c == 0)
            .map(Self)
    }
}

impl Number for Scope {
    const EXPECTED: &'static str = "`global`, `site`, `link`, `host` or a number from 0 to 254";

    fn from_number(number: u64) -> Option<Self> {
        u8::try_from(number)
            .ok()
            .filter(|&scope| scope < 255)
            .map(Self)
    }

    fn from_word(word: &str) -> Option<Self> {
        match word {
            "global" | "universe" => Some(Self::GLOBAL),
            "site" => Some(Self::SITE),
            "link" => Some(Self::LINK),
            "host" => Some(Self::HOST),
            _ => None,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.pad("default"),
            Self::Prefix(net) => net.fmt(f),
        }
    }
}

/// Without a length it stays without one: beside a peer that makes a difference.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.explicit {
            true => self.net.fmt(f),
            false => self.net.addr().fmt(f),
        }
    }
}

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! serialize_as_text {
    ($($type:ident),+) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )+};
}

serialize_as_text!(Owner, Name, Destination, Prefix, Ip, Label);

macro_rules! serialize_as_number {
    ($($type:ident: $number:expr),+ $(,)?) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let number: fn(&Self) -> u32 = $number;
                serializer.serialize_u32(number(self))
            }
        }
    )+};
}

serialize_as_number!(
    Version: |_| 1,
    Table: |table| table.0,
    Protocol: |protocol| protocol.0.into(),
    RouteTos: |tos| tos.0.into(),
);

impl Serialize for Mtu {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Bytes(bytes) => serializer.serialize_u32(*bytes),
        }
    }
}

/// Schemas of the numbers.
macro_rules! number_schema {
    ($($type:ident $schema:tt),+ $(,)?) => {$(
        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )+};
}

number_schema!(
    Version {"description": "Version of the format.", "const": 1},
    Mtu {
        "description": "`auto` (the outer path's MTU less 20) or a number of bytes.",
        "oneOf": [{"const": "auto"}, {"type": "integer", "minimum": 68, "maximum": 65515}]
    },
    Table {
        "description": "`main`, `default` or a table's number.",
        "oneOf": [
            {"enum": ["main", "default"]},
            {"type": "integer", "minimum": 1, "maximum": 4294967295u32, "not": {"const": 255}}
        ]
    },
    Protocol {"description": "Routing protocol number (rt_protos).", "type": "integer", "minimum": 5, "maximum": 255},
    RouteTos {
        "description": "Type of service that the route serves.",
        "type": "integer", "minimum": 0, "maximum": 28, "multipleOf": 4
    },
);
