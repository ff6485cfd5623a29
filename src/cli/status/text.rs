//! How tunnels stand, as people read it.

use comfy_table::{CellAlignment, Table};
use tunnelform::plan::Style;
use tunnelform::state::Counters;

use super::{Outside, Report, Standing, Tally};
use crate::cli::probe;

impl Report {
    pub(super) fn text(&self, style: Style) -> String {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header([
            "TUNNEL",
            "STATE",
            "LOCAL",
            "REMOTE",
            "UNDERLAY",
            "ADDRESSES",
            "ROUTES",
            "RX",
            "TX",
        ]);
        for row in &self.tunnels {
            let or_any = |end: &Option<String>| end.clone().unwrap_or_else(|| "any".into());
            let traffic = |way: fn(&Counters) -> Traffic| match row.counters.as_ref().map(way) {
                Some(traffic) => traffic.text(),
                None => "-".into(),
            };
            table.add_row([
                row.name.to_string(),
                row.state.words().into(),
                or_any(&row.local),
                or_any(&row.remote),
                row.underlay.map_or("-".into(), |device| device.to_string()),
                row.addresses.text(),
                row.routes.text(),
                traffic(Traffic::received),
                traffic(Traffic::sent),
            ]);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
            column.set_cell_alignment(CellAlignment::Left);
        }
        let mut text = String::new();
        if !self.tunnels.is_empty() {
            for line in table.to_string().lines() {
                text += line.trim_end();
                text.push('\n');
            }
        }
        let Outside {
            addresses,
            routes,
            differences,
        } = &self.outside;
        if addresses.desired + routes.desired + differences.len() > 0 {
            text += &format!(
                "outside tunnels: addresses {}, routes {}\n",
                addresses.text(),
                routes.text()
            );
        }
        if let Some(probes) = &self.probes {
            text.push('\n');
            text += &probe::table(probes.iter().map(|peer| (&peer.row, peer.withdrawn)));
        }
        let lines = self
            .tunnels
            .iter()
            .flat_map(|row| &row.differences)
            .chain(differences);
        let lines: Vec<&String> = lines.chain(&self.warnings).collect();
        if !lines.is_empty() {
            text.push('\n');
        }
        for line in lines {
            text += line;
            text.push('\n');
        }
        if style.color {
            probe::color(&color(&text))
        } else {
            text
        }
    }
}

/// The words of a standing, wherever they stand in the table.
fn color(text: &str) -> String {
    use anstyle::AnsiColor::{Green, Red, Yellow};
    let paint = |color: anstyle::AnsiColor, word: &str| {
        let style = color.on_default();
        format!("{style}{word}{style:#}")
    };
    text.lines()
        .map(|line| {
            let colored = [
                (Green, "in sync"),
                (Yellow, "drifted"),
                (Red, "missing"),
                (Yellow, "pending"),
                (Red, "foreign"),
            ]
            .into_iter()
            .find(|(_, word)| line.contains(word));
            colored.map_or_else(
                || line.to_owned(),
                |(hue, word)| line.replacen(word, &paint(hue, word), 1),
            ) + "\n"
        })
        .collect()
}

impl Tally {
    fn text(&self) -> String {
        format!("{}/{}", self.in_sync, self.desired)
    }
}

impl Standing {
    fn words(self) -> &'static str {
        match self {
            Self::InSync => "in sync",
            Self::Drifted => "drifted",
            Self::Missing => "missing",
            Self::Pending => "pending",
            Self::Foreign => "foreign",
        }
    }
}

/// Traffic one way.
struct Traffic {
    packets: u64,
    bytes: u64,
    errors: u64,
    dropped: u64,
}

impl Traffic {
    fn received(counters: &Counters) -> Self {
        Self {
            packets: counters.rx_packets,
            bytes: counters.rx_bytes,
            errors: counters.rx_errors,
            dropped: counters.rx_dropped,
        }
    }

    fn sent(counters: &Counters) -> Self {
        Self {
            packets: counters.tx_packets,
            bytes: counters.tx_bytes,
            errors: counters.tx_errors,
            dropped: counters.tx_dropped,
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{} pkts {}", self.packets, size(self.bytes));
        for (count, what) in [(self.errors, "errors"), (self.dropped, "dropped")] {
            if count > 0 {
                text += &format!(", {count} {what}");
            }
        }
        text
    }
}

/// Bytes in binary units.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {unit}")
    }
}
