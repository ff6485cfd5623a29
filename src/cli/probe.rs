//! `tunnelform probe`.

use comfy_table::{CellAlignment, Table};
use tunnelform::kernel::{Extent, Kernel, inside_namespace};
use tunnelform::plan::Style;
use tunnelform::probe::{self, Order, Outcome, Report, Row, State, Target};
use tunnelform::state::Observed;
use tunnelform::topology::{Timeout, Topology};

use super::input::{Input, Netns, NodeChoice};
use super::{CHANGES, DONE, Failure, Output, Result, Terminal, print, print_json, warn};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tunnelform probe hq.yaml\n  tunnelform apply fleet.yaml && tunnelform probe fleet.yaml\n  \
                        tunnelform probe --count 10 --timeout 300ms --no-mtu --output json hq.yaml\n\n\
                        Exit codes: 0 every peer answers (a peer whose overlay address nothing tells is no failure), \
                        1 error, 2 a peer doesn't answer."
)]
pub(super) struct Probe {
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    node: NodeChoice,
    #[command(flatten)]
    netns: Netns,
    /// Form of the output.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    /// Echoes to each peer, 1 to 100 [default: the topology's, else 3].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100))]
    count: Option<u32>,
    /// How long an answer may take, 10ms to 1m [default: the topology's, else 1s].
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Timeout>,
    /// Don't look for the largest packet that passes.
    #[arg(long)]
    no_mtu: bool,
}

impl Probe {
    pub(super) fn run(self, terminal: &Terminal) -> Result {
        let topology = self.input.topology(terminal)?;
        let mut kernel = Kernel::open(self.netns.name())?;
        let host = self.node.host(&topology, &mut kernel)?;
        let observed = observe(&topology, &mut kernel)?;
        let targets = probe::targets(&topology.fleet(), &host);
        let orders: Vec<Option<Order>> = targets
            .iter()
            .map(|target| self.order(target, &observed))
            .collect();
        let wanted: Vec<Order> = orders.iter().flatten().copied().collect();
        let outcomes = match wanted.as_slice() {
            [] => Vec::new(),
            wanted => inside_namespace(self.netns.name(), || probe::icmp::probe(wanted))??,
        };
        let mut outcomes = outcomes.into_iter();
        let found = targets.iter().zip(&orders).map(|(target, order)| {
            let outcome: Option<Outcome> = order.and_then(|_| outcomes.next());
            (target, outcome, mtu(target, &observed))
        });
        let node = host.node.as_ref().map(ToString::to_string);
        let report = Report::new(topology.name.to_string(), node, found);
        match self.output {
            Output::Json => print_json(&report)?,
            Output::Text => {
                print(&text(&report, terminal.style()))?;
                for warning in &report.warnings {
                    warn(terminal, warning);
                }
            }
        }
        Ok(if report.all_reachable { DONE } else { CHANGES })
    }

    /// What to do about a target; `None`: nothing.
    fn order(&self, target: &Target, observed: &Observed) -> Option<Order> {
        let order = target.order(mtu(target, observed))?;
        Some(Order {
            count: self.count.unwrap_or(order.count),
            timeout: self.timeout.map_or(order.timeout, |given| given.0),
            search: !self.no_mtu,
            ..order
        })
    }
}

/// The devices alone matter.
fn observe(topology: &Topology, kernel: &mut Kernel) -> std::result::Result<Observed, Failure> {
    Ok(kernel.observe(&Extent {
        protocol: Some(topology.route_protocol.0),
        own_protocol: topology.route_protocol.0,
        paths: Default::default(),
        counters: false,
    })?)
}

fn mtu(target: &Target, observed: &Observed) -> Option<u32> {
    let device = observed.devices.get(&target.way.tunnel);
    device.map(|device| device.mtu)
}

fn text(report: &Report, style: Style) -> String {
    let text = match report.probes.as_slice() {
        [] => "The topology has no tunnels.\n".to_owned(),
        rows => table(rows.iter().map(|row| (row, false))),
    };
    if style.color { color(&text) } else { text }
}

/// Peers, and which of them have their routes taken out.
pub(super) fn table<'a>(rows: impl Iterator<Item = (&'a Row, bool)>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["TUNNEL", "PEER", "TARGET", "STATE", "RTT", "LOSS", "MTU"]);
    let mut reasons = String::new();
    for (row, withdrawn) in rows {
        table.add_row(cells(row, withdrawn));
        if let Some(reason) = &row.reason {
            let peer = row.peer.as_deref().unwrap_or("-");
            reasons += &format!("  {} to {peer}: {reason}\n", row.tunnel);
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
        column.set_cell_alignment(CellAlignment::Left);
    }
    let mut text = String::new();
    for line in table.to_string().lines() {
        text += line.trim_end();
        text.push('\n');
    }
    if !reasons.is_empty() {
        text.push('\n');
    }
    // A name may hold what drives a terminal.
    (text + &reasons).replace(|c: char| c.is_control() && c != '\n', "\u{fffd}")
}

fn cells(row: &Row, withdrawn: bool) -> [String; 7] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    [
        row.tunnel.clone(),
        or_dash(row.peer.clone()),
        or_dash(row.target.map(|target| target.to_string())),
        match withdrawn {
            true => format!("{}, withdrawn", row.state.words()),
            false => row.state.words().into(),
        },
        or_dash(row.rtt.map(|rtt| {
            format!(
                "{}/{}/{} ms",
                short(rtt.min_ms),
                short(rtt.avg_ms),
                short(rtt.max_ms)
            )
        })),
        or_dash(row.loss_percent.map(|loss| format!("{loss}%"))),
        or_dash(row.path_mtu.map(|path| match row.tunnel_mtu {
            Some(own) if own != path => format!("{path} of {own}"),
            Some(_) | None => path.to_string(),
        })),
    ]
}

/// Milliseconds with as many digits as mean something.
fn short(milliseconds: f64) -> String {
    match milliseconds {
        ms if ms < 10.0 => format!("{ms:.2}"),
        ms if ms < 100.0 => format!("{ms:.1}"),
        ms => format!("{ms:.0}"),
    }
}

/// The word of a state, wherever it stands in the table.
pub(super) fn color(text: &str) -> String {
    use anstyle::AnsiColor::{Green, Red, Yellow};
    let hues = [
        (Red, State::Unreachable),
        (Green, State::Reachable),
        (Yellow, State::NoTarget),
        (Yellow, State::Down),
        (Yellow, State::Unknown),
    ];
    text.lines()
        .map(|line| {
            let found = hues.iter().find_map(|(hue, state)| {
                Some((hue, format!("  {}", state.words()))).filter(|(_, word)| line.contains(word))
            });
            found.map_or_else(
                || line.to_owned(),
                |(hue, word)| {
                    let style = hue.on_default();
                    line.replacen(&word, &format!("{style}{word}{style:#}"), 1)
                },
            ) + "\n"
        })
        .collect()
}
