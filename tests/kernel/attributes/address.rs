//! An address's properties, on one of our tunnels and on devices that aren't ours.

use serde_json::{Value, json};

use crate::world::{Host, Plan, World, assert_same, trials};

trials![on_a_tunnel, on_a_foreign_device, on_lo];

/// A property of an address. `IP` in its entries stands for the first bytes of an address that no other row has.
struct Row {
    name: &'static str,
    /// Without the property, then with two values of it.
    entries: [&'static str; 3],
    /// What `ip` shows of each; `DEV` is the device.
    shown: [fn() -> Value; 3],
    /// Where `ip` shows it.
    key: &'static str,
    change: Change,
}

#[derive(Clone, Copy, PartialEq)]
enum Change {
    /// The kernel changes it in place.
    Update,
    /// It can't.
    Replace,
    /// It changes one value for another in place, but can't take it away.
    UpdateOnly,
    /// It's another address to the kernel.
    Another,
}

const ROWS: [Row; 10] = [
    Row {
        name: "peer",
        entries: [
            "IP.1/32",
            "{address: IP.1/32, peer: IP.2}",
            "{address: IP.1, peer: IP.3/32}",
        ],
        shown: [|| Value::Null, || json!("IP.2"), || json!("IP.3")],
        key: "address",
        change: Change::Another,
    },
    Row {
        name: "scope",
        entries: [
            "IP.1/24",
            "{address: IP.1/24, scope: link}",
            "{address: IP.1/24, scope: host}",
        ],
        shown: [|| json!("global"), || json!("link"), || json!("host")],
        key: "scope",
        change: Change::Replace,
    },
    Row {
        name: "label",
        entries: [
            "IP.1/24",
            "{address: IP.1/24, label: 'DEV:a'}",
            "{address: IP.1/24, label: 'DEV:b'}",
        ],
        shown: [|| json!("DEV"), || json!("DEV:a"), || json!("DEV:b")],
        key: "label",
        change: Change::Replace,
    },
    Row {
        name: "noprefixroute",
        entries: [
            "IP.1/24",
            "{address: IP.1/24, noprefixroute: true}",
            "{address: IP.1/24, noprefixroute: false}",
        ],
        shown: [|| Value::Null, || json!(true), || Value::Null],
        key: "noprefixroute",
        change: Change::Replace,
    },
    Row {
        name: "metric",
        entries: [
            "IP.1/24",
            "{address: IP.1/24, metric: 50}",
            "{address: IP.1/24, metric: 60}",
        ],
        shown: [|| Value::Null, || json!(50), || json!(60)],
        key: "metric",
        change: Change::Update,
    },
    Row {
        name: "prefix length",
        entries: ["IP.1/24", "IP.1/25", "IP.1/30"],
        shown: [|| json!(24), || json!(25), || json!(30)],
        key: "prefixlen",
        change: Change::Another,
    },
    Row {
        name: "IPv6 peer",
        entries: [
            "'IP::1/128'",
            "{address: 'IP::1/128', peer: 'IP::2'}",
            "{address: 'IP::1', peer: 'IP::3/128'}",
        ],
        shown: [|| Value::Null, || json!("IP::2"), || json!("IP::3")],
        key: "address",
        change: Change::UpdateOnly,
    },
    Row {
        name: "IPv6 noprefixroute",
        entries: [
            "'IP::1/64'",
            "{address: 'IP::1/64', noprefixroute: true}",
            "{address: 'IP::1/64', noprefixroute: false}",
        ],
        shown: [|| Value::Null, || json!(true), || Value::Null],
        key: "noprefixroute",
        change: Change::Update,
    },
    Row {
        name: "IPv6 metric",
        entries: [
            "'IP::1/64'",
            "{address: 'IP::1/64', metric: 50}",
            "{address: 'IP::1/64', metric: 60}",
        ],
        shown: [|| Value::Null, || json!(50), || json!(60)],
        key: "metric",
        change: Change::UpdateOnly,
    },
    Row {
        name: "IPv6 prefix length",
        entries: ["'IP::1/64'", "'IP::1/48'", "'IP::1/128'"],
        shown: [|| json!(64), || json!(48), || json!(128)],
        key: "prefixlen",
        change: Change::Replace,
    },
];

impl Row {
    fn ipv6(&self) -> bool {
        self.name.starts_with("IPv6")
    }

    /// The text with the row's address and the device in it.
    fn fill(&self, n: usize, device: &str, text: &str) -> String {
        let ip = if self.ipv6() {
            format!("fd07:{n}")
        } else {
            format!("10.7.{n}")
        };
        text.replace("IP", &ip).replace("DEV", device)
    }

    fn shown(&self, n: usize, device: &str, turn: usize) -> Value {
        match (self.shown[turn])() {
            Value::String(text) => json!(self.fill(n, device, &text)),
            other => other,
        }
    }

    fn actions(&self, before: Option<usize>, turn: usize) -> &'static [&'static str] {
        let Some(before) = before else {
            return &["create"];
        };
        let (from, to) = ((self.shown[before])(), (self.shown[turn])());
        match self.change {
            _ if from == to => &[],
            Change::Update => &["update"],
            Change::UpdateOnly if !to.is_null() => &["update"],
            Change::UpdateOnly | Change::Replace => &["replace"],
            Change::Another => &["create", "delete"],
        }
    }
}

/// The tunnel always stands, with an address and a route of its own, and the device has an address that never changes.
fn topology(device: &str, entries: &str) -> String {
    let (on_tunnel, elsewhere) = match device {
        "tun1" => (format!(", {entries}"), String::new()),
        device => (
            String::new(),
            format!("addresses: {{{device}: [10.6.0.1/24, {entries}]}}\n"),
        ),
    };
    format!(
        "version: 1\nname: hq\n{elsewhere}tunnels:\n  tun1: {{local: 192.168.10.2, remote: 192.168.20.2, \
         addresses: [10.10.100.1/24{on_tunnel}], routes: [{{to: 10.244.0.0/16, src: 10.10.100.1}}]}}\n"
    )
}

/// What was done to the addresses of a row.
fn done(plan: &Plan, address: &str) -> Vec<String> {
    let of_row = |line: &&String| line.split([' ', '/']).any(|word| word == address);
    let moves = plan.moves();
    moves
        .iter()
        .filter(of_row)
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect()
}

/// Every property of an address on `device`: created, changed as the kernel allows, changed back, left out, deleted.
fn check(host: &Host, device: &str) {
    let file = |turn: usize| {
        let entries: Vec<String> = ROWS
            .iter()
            .enumerate()
            .map(|(n, row)| row.fill(n, device, row.entries[turn]))
            .collect();
        topology(device, &entries.join(", "))
    };
    host.apply(&topology(device, ""));
    let at_first = host.seen();
    let mut before = None;
    for turn in [1, 2, 1, 0] {
        let plan = host.apply(&file(turn));
        let seen = host.seen();
        for (n, row) in ROWS.iter().enumerate() {
            let local = row.fill(n, device, if row.ipv6() { "IP::1" } else { "IP.1" });
            assert_eq!(
                done(&plan, &local),
                row.actions(before, turn),
                "{}: {:?}",
                row.name,
                plan.moves()
            );
            let address = seen.address(device, &local);
            assert_eq!(
                address[row.key],
                row.shown(n, device, turn),
                "{}: {address}",
                row.name
            );
        }
        before = Some(turn);
    }
    host.settled(&file(0));
    host.apply(&topology(device, ""));
    assert_same(&host.seen(), &at_first);
}

/// Addresses of one of our tunnels.
fn on_a_tunnel() {
    let world = World::new();
    check(&world.lone(), "tun1");
}

/// Addresses of a device that isn't ours, and has an address of its own.
fn on_a_foreign_device() {
    let world = World::new();
    check(&world.lone(), "eth0");
}

/// Addresses of `lo`.
fn on_lo() {
    let world = World::new();
    check(&world.lone(), "lo");
}
