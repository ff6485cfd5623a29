//! The plan for people: terraform's signs, iproute2's words.

use std::fmt::Write;

use anstyle::{AnsiColor, Effects};
use serde_json::Value;
use similar::TextDiff;

use super::{Action, Change, Delta, Obstacle, Plan};
use crate::state::{
    Address, AddressKey, AdminState, Ipip, Kind, Mode, NextHop, Route, RouteType, State, Tos,
    Tunnel,
};

/// Whether to colour.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Use ANSI colours.
    pub color: bool,
}

impl Style {
    fn paint(self, color: AnsiColor, text: &str) -> String {
        let style = color.on_default();
        if self.color {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    /// The name of what follows.
    pub fn heading(self, name: &str) -> String {
        self.bold(&format!("{name}:"))
    }

    fn bold(self, text: &str) -> String {
        let style = anstyle::Style::new().effects(Effects::BOLD);
        if self.color {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    fn sign(self, action: Action) -> String {
        match action {
            Action::Create => self.paint(AnsiColor::Green, "  +"),
            Action::Update => self.paint(AnsiColor::Yellow, "  ~"),
            Action::Replace => format!(
                "{}/{}",
                self.paint(AnsiColor::Red, "-"),
                self.paint(AnsiColor::Green, "+")
            ),
            Action::Delete => self.paint(AnsiColor::Red, "  -"),
            Action::Restore => self.paint(AnsiColor::Cyan, "  ="),
        }
    }
}

impl Plan {
    /// The plan as text: conflicts and warnings, a block for each change, a line of counts.
    pub fn text(&self, style: Style) -> String {
        let mut text = String::new();
        for conflict in &self.conflicts {
            let sign = style.paint(AnsiColor::Red, "conflict:");
            let _ = writeln!(
                text,
                "{sign} {}: {}\n          {}",
                conflict.object, conflict.found, conflict.help
            );
        }
        for obstacle in &self.obstacles {
            let sign = style.paint(AnsiColor::Red, "obstacle:");
            let _ = writeln!(text, "{sign} {obstacle}");
        }
        for cut in &self.cuts {
            let sign = style.paint(AnsiColor::Red, "cut:");
            let _ = writeln!(text, "{sign} {cut}");
        }
        for hit in &self.hits {
            let sign = style.paint(AnsiColor::Red, "not hitless:");
            let _ = writeln!(text, "{sign} {hit}");
        }
        for warning in &self.warnings {
            let _ = writeln!(
                text,
                "{} {warning}",
                style.paint(AnsiColor::Yellow, "warning:")
            );
        }
        for (index, change) in self.changes.iter().enumerate() {
            let _ = write!(text, "{}", change.head(style));
            if let Some(stand_in) = self.stand_in(change) {
                let _ = write!(text, "  ({stand_in} stands in)");
            }
            if let Some(effect) = self.effect(index).words() {
                let _ = write!(text, "  ({effect})");
            }
            let _ = writeln!(text, "{}", change.attribute_lines());
        }
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = writeln!(text, "{}", style.bold(&self.summary()));
        text
    }

    /// The line of counts.
    pub fn summary(&self) -> String {
        match self.conflicts.len() {
            0 => {}
            1 => return "1 conflict: nothing can be changed.".into(),
            count => return format!("{count} conflicts: nothing can be changed."),
        }
        if self.is_empty() {
            return "No changes.".into();
        }
        let counts = self.counts();
        let mut line = format!(
            "Plan: {} to create, {} to change, {} to replace, {} to delete",
            counts.create, counts.update, counts.replace, counts.delete
        );
        if counts.restore > 0 {
            let _ = write!(line, ", {} to put back", counts.restore);
        }
        line + "."
    }
}

/// How many objects of a list are named.
const MOST_NAMED: usize = 3;

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let named: Vec<&str> = self
            .objects
            .iter()
            .take(MOST_NAMED)
            .map(String::as_str)
            .collect();
        let others = match self.objects.len().saturating_sub(MOST_NAMED) {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        write!(f, "{}{others}: {}", named.join(", "), self.reason)
    }
}

impl Change {
    /// The change's block: its sign, its object, and what differs.
    pub fn text(&self, style: Style) -> String {
        self.head(style) + &self.attribute_lines()
    }

    fn head(&self, style: Style) -> String {
        let mut text = format!(
            "{} {}",
            style.sign(self.action()),
            style.bold(&self.to_string())
        );
        match self.action() {
            Action::Create | Action::Delete => {
                let details = self.details();
                if !details.is_empty() {
                    let _ = write!(text, "  {details}");
                }
                if let Some(along) = self.why() {
                    let _ = write!(text, "  (and with it {along})");
                }
            }
            Action::Replace => {
                let _ = write!(text, "  ({})", self.why().unwrap_or_default());
            }
            Action::Restore => {
                let _ = write!(text, "  (put back: {})", self.why().unwrap_or_default());
            }
            Action::Update => {}
        }
        text
    }

    /// What differs, a line for each attribute, each with the line break before it.
    fn attribute_lines(&self) -> String {
        let mut text = String::new();
        for (attribute, old, new) in self.attributes() {
            let _ = write!(
                text,
                "\n        {attribute}: {} -> {}",
                show(&old),
                show(&new)
            );
        }
        text
    }

    /// The attributes that differ, with the old and the new value.
    pub fn attributes(&self) -> Vec<(String, Value, Value)> {
        fn differing<T: serde::Serialize>(delta: &Delta<T>) -> Vec<(String, Value, Value)> {
            match delta {
                Delta::Update { from, to } | Delta::Replace { from, to, .. } => {
                    differences(from, to)
                }
                Delta::Create(_) | Delta::Delete { .. } | Delta::Restore { .. } => Vec::new(),
            }
        }
        match self {
            Self::Tunnel(_, delta) => differing(delta),
            Self::Address(_, delta) => differing(delta),
            Self::Route(_, delta) => differing(delta),
        }
    }

    fn details(&self) -> String {
        match self {
            Self::Tunnel(_, delta) => delta.after().or(delta.before()).map(tunnel_words),
            Self::Address(key, delta) => delta
                .after()
                .or(delta.before())
                .map(|address| address_words(key, address)),
            Self::Route(_, delta) => delta.after().or(delta.before()).map(route_words),
        }
        .unwrap_or_default()
    }
}

pub(super) fn differences<T: serde::Serialize>(from: &T, to: &T) -> Vec<(String, Value, Value)> {
    let object = |value: &T| match serde_json::to_value(value) {
        Ok(Value::Object(object)) => object,
        _ => serde_json::Map::new(),
    };
    let (from, to) = (object(from), object(to));
    let old = |key: &String| from.get(key).cloned().unwrap_or(Value::Null);
    to.iter()
        .map(|(key, new)| (key.clone(), old(key), new.clone()))
        .filter(|(_, old, new)| old != new)
        .collect()
}

pub(super) fn show(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(text) => {
            if text.is_empty() {
                "none".into()
            } else {
                printable(text)
            }
        }
        Value::Array(items) if items.is_empty() => "none".into(),
        Value::Array(items) => items.iter().map(show).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let set = fields
                .iter()
                .filter(|(_, value)| !value.is_null() && **value != Value::Bool(false));
            set.map(|(key, value)| format!("{key} {}", show(value)))
                .collect::<Vec<_>>()
                .join(" ")
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// The text without control characters: an alias may hold anything, also what drives a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// The options of a tunnel that tell it apart or aren't the default.
fn tunnel_words(tunnel: &Tunnel) -> String {
    let Kind::Ipip(ipip) = &tunnel.kind;
    let defaults = Ipip::default();
    let mut words = format!("ipip {}", tunnel.endpoints());
    if ipip.mode != defaults.mode {
        words += match ipip.mode {
            Mode::Ipip => " mode ipip",
            Mode::Mplsip => " mode mplsip",
            Mode::Any => " mode any",
        };
    }
    if ipip.ttl != defaults.ttl {
        let _ = write!(words, " ttl {}", ipip.ttl.0);
    }
    if ipip.tos == Tos::INHERIT {
        words += " tos inherit";
    } else if ipip.tos != defaults.tos {
        let _ = write!(words, " tos {}", ipip.tos.0);
    }
    if !ipip.pmtudisc {
        words += " nopmtudisc";
    }
    if ipip.fwmark != 0 {
        let _ = write!(words, " fwmark {:#x}", ipip.fwmark);
    }
    let _ = write!(words, " mtu {}", tunnel.mtu);
    if tunnel.state == AdminState::Down {
        words += " down";
    }
    words
}

fn address_words(key: &AddressKey, address: &Address) -> String {
    let mut words = Vec::new();
    if let Some(label) = address
        .label
        .as_ref()
        .filter(|label| **label != key.device.to_string())
    {
        words.push(format!("label {}", printable(label)));
    }
    if address.noprefixroute {
        words.push("noprefixroute".into());
    }
    if address.metric != 0 {
        words.push(format!("metric {}", address.metric));
    }
    words.join(" ")
}

fn route_words(route: &Route) -> String {
    let mut words = Vec::new();
    if route.kind != RouteType::Unicast {
        words.push(route.kind.to_string());
    }
    match route.nexthops.as_slice() {
        [hop] => words.extend(hop_words(hop)),
        hops => {
            for hop in hops {
                let weight = format!("weight {}", hop.weight);
                words.extend(
                    ["nexthop".to_owned()]
                        .into_iter()
                        .chain(hop_words(hop))
                        .chain([weight]),
                );
            }
        }
    }
    words.extend(route.src.map(|src| format!("src {src}")));
    words.extend(route.mtu.map(|mtu| format!("mtu {mtu}")));
    words.extend(route.advmss.map(|advmss| format!("advmss {advmss}")));
    words.join(" ")
}

fn hop_words(hop: &NextHop) -> Vec<String> {
    let via = hop.via.map(|via| format!("via {via}"));
    let device = hop.device.map(|device| format!("dev {device}"));
    let onlink = hop.onlink.then(|| "onlink".to_owned());
    [via, device, onlink].into_iter().flatten().collect()
}

/// The plan as a unified diff of the state's YAML, every default filled in.
pub fn unified_diff(desired: &State, plan: &Plan) -> String {
    let (mut before, mut after) = (desired.clone(), desired.clone());
    for change in plan.changes.iter().chain(&plan.withheld) {
        put(&mut before, change, Side::Before);
    }
    for change in &plan.changes {
        put(&mut after, change, Side::After);
    }
    for change in &plan.withheld {
        put(&mut after, change, Side::Before);
    }
    let yaml = |state: &State| serde_yaml::to_string(state).unwrap_or_default();
    let (before, after) = (yaml(&before), yaml(&after));
    TextDiff::from_lines(&before, &after)
        .unified_diff()
        .header("observed", "desired")
        .to_string()
}

/// Which end of a change.
#[derive(Clone, Copy)]
enum Side {
    Before,
    After,
}

impl Side {
    fn of<T>(self, delta: &Delta<T>) -> Option<&T> {
        match self {
            Self::Before => delta.before(),
            Self::After => delta.after(),
        }
    }
}

fn put(state: &mut State, change: &Change, side: Side) {
    match change {
        Change::Tunnel(key, delta) => set(&mut state.tunnels, *key, side.of(delta)),
        Change::Address(key, delta) => set(&mut state.addresses, *key, side.of(delta)),
        Change::Route(key, delta) => set(&mut state.routes, *key, side.of(delta)),
    }
}

fn set<K: Ord, V: Clone>(map: &mut std::collections::BTreeMap<K, V>, key: K, value: Option<&V>) {
    match value {
        Some(value) => {
            map.insert(key, value.clone());
        }
        None => {
            map.remove(&key);
        }
    }
}
