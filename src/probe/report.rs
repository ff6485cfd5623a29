//! What a probe found, as a document.

use std::net::Ipv4Addr;
use std::time::Duration;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::{Outcome, Target};

/// Version of the document's shape.
const FORMAT_VERSION: u32 = 1;

/// What `tunnelform probe --output json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "tunnelform probe")]
pub struct Report {
    /// Version of this shape: 1.
    pub format_version: u32,
    /// Owner of the topology.
    pub owner: String,
    /// The node that was probed from; null: the topology is for one host.
    pub node: Option<String>,
    /// Whether every peer with a known address answered.
    pub all_reachable: bool,
    /// One entry for each peer of each tunnel.
    pub probes: Vec<Row>,
    /// What else is wrong, such as an MTU black hole.
    pub warnings: Vec<String>,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// Tunnel that leads there.
    pub tunnel: String,
    /// Name of the node, or the tunnel's remote address.
    pub peer: Option<String>,
    /// Overlay address that was probed.
    pub target: Option<Ipv4Addr>,
    /// How it stands.
    pub state: State,
    /// Echoes sent.
    pub sent: u32,
    /// Echoes answered.
    pub received: u32,
    /// Share of the echoes that was lost, in percent; null: none was sent.
    pub loss_percent: Option<f64>,
    /// Round-trip times; null: no answer.
    pub rtt: Option<Rtt>,
    /// Largest packet that passes, in bytes with its IP header; null: not looked for.
    pub path_mtu: Option<u32>,
    /// MTU of the tunnel's device; null: there is no such device.
    pub tunnel_mtu: Option<u32>,
    /// Why there is no answer, where anything says so.
    pub reason: Option<String>,
}

/// A peer that the daemon probes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Followed {
    /// What the last probe found, but for the path's MTU, which is looked for less often.
    #[serde(flatten)]
    pub row: Row,
    /// Since when it's in this state, RFC 3339.
    pub since: String,
    /// When the last probe was over, RFC 3339; null: there was none.
    pub probed: Option<String>,
    /// Echoes sent since the daemon knows the peer.
    pub sent_total: u64,
    /// Echoes answered since then.
    pub received_total: u64,
    /// Whether its routes are taken out until it answers again.
    pub withdrawn: bool,
    /// What else is wrong, such as an MTU black hole.
    pub warning: Option<String>,
}

/// How a peer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// At least one echo was answered.
    Reachable,
    /// None was.
    Unreachable,
    /// Nothing tells the peer's overlay address. No failure.
    NoTarget,
    /// The topology keeps the tunnel down. No failure.
    Down,
    /// It wasn't probed yet, or can't be. No failure.
    Unknown,
}

/// Round-trip times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rtt {
    /// The shortest, in milliseconds.
    pub min_ms: f64,
    /// The mean, in milliseconds.
    pub avg_ms: f64,
    /// The longest, in milliseconds.
    pub max_ms: f64,
}

/// JSON Schema of the document.
pub fn schema() -> Schema {
    schemars::schema_for!(Report)
}

impl State {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Reachable => "reachable",
            Self::Unreachable => "unreachable",
            Self::NoTarget => "no target",
            Self::Down => "down",
            Self::Unknown => "unknown",
        }
    }
}

impl Report {
    /// A report of what became of each target; no outcome: it was not probed. With the MTU of its tunnel's device.
    pub fn new<'a>(
        owner: String,
        node: Option<String>,
        found: impl IntoIterator<Item = (&'a Target, Option<Outcome>, Option<u32>)>,
    ) -> Self {
        let mut warnings = Vec::new();
        let probes: Vec<Row> = found
            .into_iter()
            .map(|(target, outcome, mtu)| {
                warnings.extend(
                    outcome
                        .as_ref()
                        .and_then(|outcome| too_narrow(target, outcome)),
                );
                Row::new(target, outcome, mtu)
            })
            .collect();
        Self {
            format_version: FORMAT_VERSION,
            owner,
            node,
            all_reachable: !probes.iter().any(|row| row.state == State::Unreachable),
            probes,
            warnings,
        }
    }
}

/// What there is to say of a path that carries less than the tunnel.
pub(crate) fn too_narrow(target: &Target, outcome: &Outcome) -> Option<String> {
    let mtu = outcome.mtu.as_ref().filter(|mtu| mtu.path < mtu.tunnel)?;
    let (path, own) = (mtu.path, mtu.tunnel);
    Some(match &mtu.complaint {
        Some(complaint) => format!(
            "{target}: packets over {path} bytes don't pass, the tunnel's MTU is {own}: {complaint}"
        ),
        None => format!(
            "{target}: MTU black hole: packets over {path} bytes are lost, the tunnel's MTU is {own}"
        ),
    })
}

impl Row {
    pub(crate) fn new(target: &Target, outcome: Option<Outcome>, tunnel_mtu: Option<u32>) -> Self {
        let probed = outcome.is_some();
        let outcome = outcome.unwrap_or_default();
        let received = u32::try_from(outcome.times.len()).unwrap_or(u32::MAX);
        let state = match (probed, received) {
            (true, 0) => State::Unreachable,
            (true, _) => State::Reachable,
            (false, _) if target.down => State::Down,
            (false, _) if target.address.is_none() => State::NoTarget,
            (false, _) => State::Unknown,
        };
        let lost = f64::from(outcome.sent.saturating_sub(received));
        Self {
            tunnel: target.way.tunnel.to_string(),
            peer: target.peer.clone(),
            target: target.address,
            state,
            sent: outcome.sent,
            received,
            loss_percent: (outcome.sent > 0)
                .then(|| rounded(lost * 100.0 / f64::from(outcome.sent), 10.0)),
            rtt: Rtt::of(&outcome.times),
            path_mtu: outcome.mtu.map(|mtu| mtu.path),
            tunnel_mtu,
            reason: outcome.complaint,
        }
    }
}

impl Rtt {
    fn of(times: &[Duration]) -> Option<Self> {
        let (min, max) = (times.iter().min()?, times.iter().max()?);
        let ms = |time: Duration| rounded(time.as_secs_f64() * 1000.0, 1000.0);
        let count = u32::try_from(times.len()).unwrap_or(u32::MAX);
        Some(Self {
            min_ms: ms(*min),
            avg_ms: ms(times.iter().sum::<Duration>() / count),
            max_ms: ms(*max),
        })
    }
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Mtu, Terms};
    use crate::topology::{Way, Withdraw};

    fn target() -> Target {
        Target {
            way: Way {
                tunnel: "tun1".parse().unwrap(),
                via: None,
                direct: false,
            },
            peer: Some("b".into()),
            address: Some(Ipv4Addr::new(10, 0, 0, 2)),
            down: false,
            watched: false,
            terms: Terms {
                interval: Duration::ZERO,
                timeout: Duration::ZERO,
                count: 3,
                withdraw: Withdraw::No,
            },
        }
    }

    fn report(target: &Target, outcome: Option<Outcome>) -> Report {
        Report::new("t".into(), None, [(target, outcome, Some(1480))])
    }

    #[test]
    fn no_target_is_no_failure() {
        let target = Target {
            address: None,
            ..target()
        };
        let report = report(&target, None);
        assert!(report.all_reachable);
        assert_eq!(report.probes[0].state, State::NoTarget);
    }

    #[test]
    fn silence_is_a_failure() {
        let outcome = Outcome {
            sent: 3,
            ..Outcome::default()
        };
        let report = report(&target(), Some(outcome));
        assert!(!report.all_reachable);
        assert_eq!(report.probes[0].state, State::Unreachable);
        assert_eq!(report.probes[0].loss_percent, Some(100.0));
    }

    #[test]
    fn times_and_losses() {
        let outcome = Outcome {
            sent: 3,
            times: vec![Duration::from_micros(1500), Duration::from_micros(2500)],
            mtu: Some(Mtu {
                path: 1300,
                tunnel: 1480,
                complaint: None,
            }),
            complaint: None,
        };
        let report = report(&target(), Some(outcome));
        let row = &report.probes[0];
        assert_eq!(row.loss_percent, Some(33.3));
        let expected = Rtt {
            min_ms: 1.5,
            avg_ms: 2.0,
            max_ms: 2.5,
        };
        assert_eq!(row.rtt, Some(expected));
        assert_eq!(
            report.warnings,
            [
                "tun1 to b (10.0.0.2): MTU black hole: packets over 1300 bytes are lost, the tunnel's MTU is 1480"
            ]
        );
    }
}
