//! How a tunnel is probed: echoes to the host at its other end. Nothing of it reaches the kernel's objects.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

use super::Effective;
use super::scalar::{Number, Word, number, word};

/// How a tunnel is probed. A key that is absent means its default.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, serde::Deserialize, serde::Serialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Time from the start of one probe to the start of the next while the daemon runs, 1s to 1day. Default: `10s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// How long an answer may take, 10ms to 1m. Default: `1s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Timeout>,
    /// Echoes of one probe, 1 to 100. Default: 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<Count>,
    /// Overlay address of the host at the other end. Default: what the tunnel's addresses or the fleet tell. A tunnel's
    /// own only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<ProbeTarget>,
    /// What becomes of a peer's routes, while the daemon runs, from a probe without any answer to the next answer.
    /// `true`: they are taken out, but never the last peer's of all that have this key; `all`: also then. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withdraw_routes: Option<Withdraw>,
}

/// Whether a dead peer's routes are taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdraw {
    /// They stay.
    No,
    /// Unless all peers would be dead at once.
    Yes,
    /// Also then.
    All,
}

/// Time between two probes: 1 second to 1 day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(pub Duration);

/// How long an answer may take: 10 milliseconds to 1 minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout(pub Duration);

/// Echoes of one probe: 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count(pub u32);

/// The IPv4 address of one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeTarget(pub Ipv4Addr);

impl Interval {
    /// What holds where the topology says nothing.
    pub const DEFAULT: Self = Self(Duration::from_secs(10));
}

impl Timeout {
    /// What holds where the topology says nothing.
    pub const DEFAULT: Self = Self(Duration::from_secs(1));
}

impl Count {
    /// What holds where the topology says nothing.
    pub const DEFAULT: Self = Self(3);
}

impl Probe {
    /// These options, and `general`'s where they say nothing.
    pub(super) fn or(self, general: Self) -> Self {
        let Self {
            interval,
            timeout,
            count,
            target,
            withdraw_routes,
        } = self;
        Self {
            interval: interval.or(general.interval),
            timeout: timeout.or(general.timeout),
            count: count.or(general.count),
            target: target.or(general.target),
            withdraw_routes: withdraw_routes.or(general.withdraw_routes),
        }
    }
}

/// A tunnel's options, those of `general` where it sets none.
pub(super) fn merge(own: Option<Probe>, general: Option<Probe>) -> Option<Probe> {
    match (own, general) {
        (Some(own), Some(general)) => Some(own.or(general)),
        (own, general) => own.or(general),
    }
}

impl Effective<'_> {
    /// How the tunnel is probed: key by key its own option, else the topology's.
    ///
    /// `None`: the topology says nothing of it.
    pub fn probe(&self) -> Option<Probe> {
        merge(self.own.probe, self.defaults.probe)
    }
}

/// A duration within a range, from words as `humantime` reads them.
fn duration(word: &str, least: Duration, most: Duration) -> Option<Duration> {
    let duration = humantime::parse_duration(word).ok()?;
    (least..=most).contains(&duration).then_some(duration)
}

macro_rules! durations {
    ($($type:ident $least:expr, $most:expr, $expected:literal);+ $(;)?) => {$(
        impl Word for $type {
            const EXPECTED: &'static str = $expected;

            fn from_word(word: &str) -> Result<Self, String> {
                duration(word, $least, $most)
                    .map(Self)
                    .ok_or_else(|| format!("expected {}, found {word:?}", Self::EXPECTED))
            }
        }

        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::from_word(text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                humantime::format_duration(self.0).fmt(f)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                word(deserializer)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "description": concat!("Expected ", $expected, "."),
                    "type": "string",
                    "pattern": r"^\s*(\d+\s*[a-zA-Zµ]+\s*)+$"
                })
            }
        }
    )+};
}

durations!(
    Interval Duration::from_secs(1), Duration::from_secs(86_400), "a duration from 1s to 1day, such as `10s`";
    Timeout Duration::from_millis(10), Duration::from_secs(60), "a duration from 10ms to 1m, such as `300ms`";
);

impl Number for Count {
    const EXPECTED: &'static str = "a number from 1 to 100";

    fn from_number(number: u64) -> Option<Self> {
        u32::try_from(number)
            .ok()
            .filter(|count| (1..=100).contains(count))
            .map(Self)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number(deserializer)
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl JsonSchema for Count {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Count".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Number of echoes, 1 to 100.",
            "type": "integer", "minimum": 1, "maximum": 100
        })
    }
}

impl Word for ProbeTarget {
    const EXPECTED: &'static str = "the IPv4 address of one host";

    fn from_word(word: &str) -> Result<Self, String> {
        let one_host = |address: &Ipv4Addr| {
            !address.is_unspecified()
                && !address.is_broadcast()
                && !address.is_multicast()
                && !address.is_loopback()
        };
        word.parse()
            .ok()
            .filter(one_host)
            .map(Self)
            .ok_or_else(|| format!("expected {}, found {word:?}", Self::EXPECTED))
    }
}

impl<'de> Deserialize<'de> for ProbeTarget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        word(deserializer)
    }
}

impl Serialize for ProbeTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl JsonSchema for ProbeTarget {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ProbeTarget".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "IPv4 address of one host.",
            "type": "string", "pattern": r"^\d+\.\d+\.\d+\.\d+$"
        })
    }
}

impl Withdraw {
    const EXPECTED: &'static str = "true, false or all";
    const ALL: &'static str = "all";
}

impl<'de> Deserialize<'de> for Withdraw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choice;

        impl Visitor<'_> for Choice {
            type Value = Withdraw;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(Withdraw::EXPECTED)
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Withdraw, E> {
                Ok(if value { Withdraw::Yes } else { Withdraw::No })
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Withdraw, E> {
                match word {
                    Withdraw::ALL => Ok(Withdraw::All),
                    _ => Err(E::custom(format!(
                        "expected {}, found {word:?}",
                        Withdraw::EXPECTED
                    ))),
                }
            }
        }

        deserializer.deserialize_any(Choice)
    }
}

impl Serialize for Withdraw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::No => serializer.serialize_bool(false),
            Self::Yes => serializer.serialize_bool(true),
            Self::All => serializer.serialize_str(Self::ALL),
        }
    }
}

impl JsonSchema for Withdraw {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Withdraw".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Expected true, false or all.",
            "enum": [true, false, "all"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Topology;
    use crate::topology::testing::check;

    #[test]
    fn refuses_what_is_out_of_range() {
        let tunnel =
            |probe: &str| format!("tunnels: {{tun1: {{local: 10.0.0.1, probe: {probe}}}}}");
        let cases = [
            ("{interval: »999ms}", "a duration from 1s to 1day"),
            ("{interval: »2days}", "a duration from 1s to 1day"),
            ("{interval: »10}", "found the number 10"),
            ("{timeout: »9ms}", "a duration from 10ms to 1m"),
            ("{timeout: »soon}", "found \"soon\""),
            ("{count: »0}", "a number from 1 to 100"),
            ("{count: »101}", "a number from 1 to 100"),
            ("{target: »2001:db8::1}", "the IPv4 address of one host"),
            ("{target: »224.0.0.1}", "the IPv4 address of one host"),
            ("{withdraw_routes: »1}", "true, false or all"),
            ("{withdraw_routes: »none}", "found \"none\""),
            ("{»often: 3}", "often"),
        ];
        for (probe, message) in cases {
            check(&[(tunnel(probe).as_str(), &[message])]);
        }
    }

    #[test]
    fn a_target_is_one_tunnels_own() {
        check(&[
            (
                "defaults: {probe: {target: »10.0.0.2}}",
                &["`target` can't be a default"],
            ),
            (
                "nodes: {a: {underlay: 10.0.0.1}, b: {underlay: 10.0.0.2}}\nmeshes: {m: {style: point-to-point, tunnel: {probe: {target: »10.0.0.2}}}}",
                &["`target`"],
            ),
            (
                "nodes: {a: {underlay: 10.0.0.1, defaults: {probe: {target: »10.0.0.2}}}}",
                &["`target` can't be a default"],
            ),
        ]);
    }

    /// Each key by itself: who sets one keeps the defaults of the others. What is written reads as the same again.
    #[test]
    fn options_are_merged_key_by_key() {
        let source = "name: t\ndefaults: {probe: {interval: 1m 30s, count: 7}}\ntunnels: {tun1: {local: 10.0.0.1, probe: {count: 2, timeout: 300ms, target: 10.1.0.2, withdraw_routes: all}}}";
        let topology = Topology::parse("t.yaml", source).unwrap().topology;
        let probe = topology
            .tunnel(topology.tunnels.values().next().unwrap())
            .probe();
        assert_eq!(
            probe,
            Some(Probe {
                interval: Some(Interval(Duration::from_secs(90))),
                timeout: Some(Timeout(Duration::from_millis(300))),
                count: Some(Count(2)),
                target: Some(ProbeTarget(Ipv4Addr::new(10, 1, 0, 2))),
                withdraw_routes: Some(Withdraw::All),
            })
        );
        let yaml = topology.to_yaml().unwrap();
        assert_eq!(Topology::parse("t.yaml", &yaml).unwrap().topology, topology);
    }
}
