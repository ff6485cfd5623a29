//! The picture: a bar for each contestant's median, on a logarithmic scale.

use std::fmt::Write;

use crate::peers::Peer;
use crate::report::{Entries, Entry, time};
use crate::workload::Step;

const CASES: [&str; 3] = ["200 tunnels", "1,000 tunnels", "100,000 routes"];
const WIDTH: f64 = 860.0;
const LEFT: f64 = 190.0;
/// For the time behind the longest bar.
const RIGHT: f64 = 80.0;
const BAR: f64 = 14.0;
const GAP: f64 = 10.0;

const STYLE: &str = "text { font: 12px system-ui, sans-serif; fill: #24292f }
.case { font-weight: 600; font-size: 14px }
.step { text-anchor: end }
.tunnelform { fill: #0969da } .ip { fill: #8c959f } .raw { fill: #d0d7de } .ifstate { fill: #bc4c00 } .ifupdown2 { fill: #bf8700 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.tunnelform { fill: #4493f8 } .ip { fill: #7d8590 } .raw { fill: #3d444d } .ifstate { fill: #db6d28 } .ifupdown2 { fill: #d29922 }
}";

/// SVG that needs nothing else and follows the viewer's light or dark setting.
pub fn draw(entries: &Entries) -> String {
    let drawn = |entry: &&Entry| CASES.contains(&entry.case.as_str()) && class(entry.who).is_some();
    let all = || entries.entries.iter().filter(drawn).map(Entry::seconds);
    let (least, most) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
    let length = |seconds: f64| {
        let share = (seconds / least * 2.0).ln() / (most / least * 2.0).ln();
        share * (WIDTH - LEFT - RIGHT)
    };
    let (mut body, mut y) = (legend(), 34.0);
    for case in CASES
        .into_iter()
        .filter(|case| entries.cases().contains(case))
    {
        y += 26.0;
        let _ = writeln!(body, r#"<text class="case" x="12" y="{y}">{case}</text>"#);
        y += GAP;
        for step in Step::ALL.map(Step::name) {
            let _ = writeln!(
                body,
                r#"<text class="step" x="{}" y="{}">{step}</text>"#,
                LEFT - 8.0,
                y + 11.0
            );
            for entry in entries.row(case, step).filter(drawn) {
                body += &bar(entry, y, length(entry.seconds()));
                y += BAR;
            }
            y += GAP;
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\" aria-label=\"time a step takes, logarithmic; shorter is better\">\n<style>{STYLE}</style>\n{body}</svg>\n",
        height = y + 10.0,
    )
}

fn bar(entry: &Entry, y: f64, length: f64) -> String {
    let class = class(entry.who).unwrap_or_default();
    format!(
        "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{}\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
        BAR - 2.0,
        LEFT + length + 6.0,
        y + 10.5,
        time(entry.seconds())
    )
}

fn legend() -> String {
    let mut text = String::from("<text x=\"12\" y=\"20\">median time, logarithmic</text>\n");
    let mut x = LEFT;
    for peer in Peer::ALL {
        let (name, class) = (peer.name(), class(peer.name()).unwrap_or_default());
        let _ = writeln!(
            text,
            r#"<rect class="{class}" x="{x}" y="10" width="12" height="12"/><text x="{}" y="20">{name}</text>"#,
            x + 18.0
        );
        x += 110.0;
    }
    text
}

/// What a bar is coloured by; `None`: it has no bar.
fn class(who: &str) -> Option<&'static str> {
    let peer = Peer::ALL.into_iter().find(|peer| peer.name() == who)?;
    Some(match peer {
        Peer::Tunnelform => "tunnelform",
        Peer::IpBatch => "ip",
        Peer::Raw => "raw",
        Peer::Ifstate => "ifstate",
        Peer::Ifupdown2 => "ifupdown2",
    })
}
