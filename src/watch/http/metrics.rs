//! The board in Prometheus' words (OpenMetrics text).

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::super::board::Board;
use super::status::{Devices, device};
use crate::kernel::Traffic;
use crate::probe::{Followed, State};
use crate::state::{Counters, Device};

/// What the text is.
pub(super) const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;
type Counts = Family<Labels, Counter>;
type Number = Gauge<i64>;
type Real = Gauge<f64, AtomicU64>;

/// The counters of a tunnel: name, help, value.
type Column = (&'static str, &'static str, fn(&Counters) -> u64);
const COLUMNS: [Column; 8] = [
    ("tunnel_rx_bytes", "Bytes received by a tunnel", |c| {
        c.rx_bytes
    }),
    ("tunnel_tx_bytes", "Bytes sent by a tunnel", |c| c.tx_bytes),
    ("tunnel_rx_packets", "Packets received by a tunnel", |c| {
        c.rx_packets
    }),
    ("tunnel_tx_packets", "Packets sent by a tunnel", |c| {
        c.tx_packets
    }),
    (
        "tunnel_rx_errors",
        "Packets that a tunnel received with an error",
        |c| c.rx_errors,
    ),
    (
        "tunnel_tx_errors",
        "Packets that a tunnel could not send",
        |c| c.tx_errors,
    ),
    (
        "tunnel_rx_dropped",
        "Packets that a tunnel received and threw away",
        |c| c.rx_dropped,
    ),
    (
        "tunnel_tx_dropped",
        "Packets that a tunnel threw away before sending",
        |c| c.tx_dropped,
    ),
];

/// All metrics.
pub(super) fn text(board: &Board, devices: Option<&Devices>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("tunnelform");
    passes(board, &mut registry);
    objects(board, &mut registry);
    file(board, &mut registry);
    probes(&board.probes, &mut registry);
    if let Some(devices) = devices {
        tunnels(board, devices, &mut registry);
    }
    let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "What runs", version);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn passes(board: &Board, registry: &mut Registry) {
    let passes = Counts::default();
    for ((trigger, outcome), count) in &board.passes_made {
        let labels = vec![
            ("trigger", trigger.to_string()),
            ("result", outcome.word().to_owned()),
        ];
        passes.get_or_create(&labels).inc_by(*count);
    }
    registry.register("passes", "Passes, and those that were put off", passes);
    let help = "Seconds that a pass took";
    registry.register("pass_duration_seconds", help, board.durations.clone());
    if let Some(last) = board.passes.front() {
        let help = "When the last pass was over or put off";
        registry.register("last_pass_timestamp_seconds", help, seconds(last.time));
    }
    let changes = Counts::default();
    for ((kind, action), count) in &board.changes {
        let labels = vec![
            ("kind", (*kind).to_owned()),
            ("action", (*action).to_owned()),
        ];
        changes.get_or_create(&labels).inc_by(*count);
    }
    registry.register("changes", "Changes that were made", changes);
    let repairs = Counts::default();
    for kind in ["tunnel", "address", "route"] {
        let count = board.repairs.get(kind).copied().unwrap_or_default();
        let labels = vec![("kind", kind.to_owned())];
        repairs.get_or_create(&labels).inc_by(count);
    }
    let help = "Changes that undid what was changed without another topology";
    registry.register("drift_repairs", help, repairs);
    let overruns: Counter = Counter::default();
    overruns.inc_by(board.overruns);
    let help = "Times that the kernel had more news than there was room for";
    registry.register("overruns", help, overruns);
    let messages = Counts::default();
    let Traffic { sent, received } = board.traffic;
    for (direction, count) in [("sent", sent), ("received", received)] {
        let labels = vec![("direction", direction.to_owned())];
        messages.get_or_create(&labels).inc_by(count);
    }
    let help = "Netlink messages of passes, without the kernel's news";
    registry.register("netlink_messages", help, messages);
    let on_trial = Number::default();
    on_trial.set(i64::from(board.on_trial.is_some()));
    let help = "Whether a new topology waits to be confirmed";
    registry.register("on_trial", help, on_trial);
    let taken_back: Counter = Counter::default();
    taken_back.inc_by(board.taken_back);
    let help = "New topologies that were taken back";
    registry.register("taken_back", help, taken_back);
}

fn objects(board: &Board, registry: &mut Registry) {
    let objects = Family::<Labels, Number>::default();
    for ((kind, standing), count) in &board.objects {
        let labels = vec![
            ("kind", (*kind).to_owned()),
            ("state", standing.word().to_owned()),
        ];
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        objects.get_or_create(&labels).set(count);
    }
    registry.register("objects", "Objects after the last pass", objects);
    let ready = Number::default();
    ready.set(i64::from(board.ready));
    registry.register(
        "ready",
        "Whether a pass has left nothing undone but what waits",
        ready,
    );
}

fn file(board: &Board, registry: &mut Registry) {
    let bad = Number::default();
    bad.set(i64::from(board.error.is_some()));
    registry.register("file_bad", "Whether the file can't be used", bad);
    let Some(in_force) = &board.in_force else {
        return;
    };
    let help = "When the topology in force was read";
    let loaded = seconds(in_force.loaded);
    registry.register("last_good_load_timestamp_seconds", help, loaded);
    let info = Info::new(vec![
        ("owner", in_force.owner.clone()),
        ("node", in_force.node.clone().unwrap_or_default()),
        ("file", board.file.clone()),
        ("generation", in_force.generation.clone()),
    ]);
    registry.register("topology", "The topology in force", info);
}

fn tunnels(board: &Board, devices: &Devices, registry: &mut Registry) {
    let rows: Vec<(Labels, Option<&Device>)> = board
        .tunnels
        .iter()
        .map(|row| (vec![("tunnel", row.name.to_string())], device(row, devices)))
        .collect();
    let up = Family::<Labels, Number>::default();
    for (labels, device) in &rows {
        let is_up = device.is_some_and(|device| device.up);
        up.get_or_create(labels).set(i64::from(is_up));
    }
    registry.register("tunnel_up", "Whether a tunnel is there and set up", up);
    for (name, help, read) in COLUMNS {
        let counts = Counts::default();
        for (labels, device) in &rows {
            if let Some(counters) = device.and_then(|device| device.counters.as_deref()) {
                counts.get_or_create(labels).inc_by(read(counters));
            }
        }
        registry.register(name, help, counts);
    }
}

/// What is known of a peer: name, help, value.
type Reading = (&'static str, &'static str, fn(&Followed) -> Option<f64>);
const READINGS: [Reading; 7] = [
    (
        "probe_up",
        "Whether the last probe of a peer was answered",
        |peer| match peer.row.state {
            State::Reachable => Some(1.0),
            State::Unreachable => Some(0.0),
            State::NoTarget | State::Down | State::Unknown => None,
        },
    ),
    (
        "probe_withdrawn",
        "Whether the routes to a peer are taken out until it answers",
        |peer| Some(f64::from(u8::from(peer.withdrawn))),
    ),
    (
        "probe_loss_ratio",
        "Share of the last probe's echoes that was lost",
        |peer| Some(peer.row.loss_percent? / 100.0),
    ),
    (
        "probe_path_mtu_bytes",
        "Largest packet that passes to a peer, with its IP header",
        |peer| peer.row.path_mtu.map(f64::from),
    ),
    (
        "probe_rtt_min_seconds",
        "Shortest round-trip time of the last probe",
        |peer| Some(peer.row.rtt?.min_ms / 1e3),
    ),
    (
        "probe_rtt_avg_seconds",
        "Mean round-trip time of the last probe",
        |peer| Some(peer.row.rtt?.avg_ms / 1e3),
    ),
    (
        "probe_rtt_max_seconds",
        "Longest round-trip time of the last probe",
        |peer| Some(peer.row.rtt?.max_ms / 1e3),
    ),
];

fn probes(peers: &[Followed], registry: &mut Registry) {
    if peers.is_empty() {
        return;
    }
    let labels = |peer: &Followed| -> Labels {
        let name = peer.row.peer.clone().unwrap_or_default();
        vec![("tunnel", peer.row.tunnel.clone()), ("peer", name)]
    };
    for (name, help, read) in READINGS {
        let readings = Family::<Labels, Real>::default();
        for peer in peers {
            if let Some(value) = read(peer) {
                readings.get_or_create(&labels(peer)).set(value);
            }
        }
        registry.register(name, help, readings);
    }
    let (sent, received) = (Counts::default(), Counts::default());
    for peer in peers {
        sent.get_or_create(&labels(peer)).inc_by(peer.sent_total);
        received
            .get_or_create(&labels(peer))
            .inc_by(peer.received_total);
    }
    registry.register("probe_echoes_sent", "Echoes sent to a peer", sent);
    registry.register(
        "probe_echoes_answered",
        "Echoes that a peer answered",
        received,
    );
}

fn seconds(time: SystemTime) -> Real {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let gauge = Real::default();
    gauge.set(since.as_secs_f64());
    gauge
}
