//! A route's properties, through one of our tunnels and outside.

use serde_json::{Value, json};

use crate::world::{Host, Plan, World, assert_same, trials};

trials![
    through_a_tunnel,
    outside,
    types,
    device,
    nexthops,
    default_route
];

/// A property of a route: what the entry says of it, and what `ip` shows.
struct Row {
    name: &'static str,
    /// Without the property, then with two values of it.
    says: [&'static str; 3],
    shown: [fn() -> Value; 3],
    read: fn(&Value) -> Value,
    /// The property is part of the kernel's key, so that another value makes another route.
    key: bool,
}

const V4: &str = "10.8.0.0/16";
const V6: &str = "fd08::/48";

/// Rows for any device. `tun1` has 10.10.100.1/24 and fd00::1/64; so has `eth0`, in other tests.
const ROWS: [Row; 16] = [
    Row {
        name: "via",
        says: ["", "via: 10.10.100.7", "via: 10.10.100.8"],
        shown: [
            || Value::Null,
            || json!("10.10.100.7"),
            || json!("10.10.100.8"),
        ],
        read: |route| route["gateway"].clone(),
        key: false,
    },
    Row {
        name: "onlink",
        says: [
            "via: 10.10.100.7",
            "via: 172.16.0.1, onlink: true",
            "via: 10.10.100.7, onlink: true",
        ],
        shown: [|| json!([]), || json!(["onlink"]), || json!(["onlink"])],
        read: |route| route["flags"].clone(),
        key: false,
    },
    Row {
        name: "metric",
        says: ["", "metric: 50", "metric: 4294967295"],
        shown: [|| Value::Null, || json!(50), || json!(4_294_967_295_u32)],
        read: |route| route["metric"].clone(),
        key: true,
    },
    Row {
        name: "table",
        says: ["", "table: 100", "table: 70000"],
        shown: [|| json!("main"), || json!("100"), || json!("70000")],
        read: |route| route["table"].clone(),
        key: true,
    },
    Row {
        name: "scope",
        says: ["", "scope: host", "scope: global"],
        shown: [|| json!("link"), || json!("host"), || json!("global")],
        read: |route| route["scope"].clone(),
        key: false,
    },
    Row {
        name: "src",
        says: ["", "src: 10.10.100.1", "src: 192.168.10.2"],
        shown: [
            || Value::Null,
            || json!("10.10.100.1"),
            || json!("192.168.10.2"),
        ],
        read: |route| route["prefsrc"].clone(),
        key: false,
    },
    Row {
        name: "mtu",
        says: ["", "mtu: 1400", "mtu: 1300"],
        shown: [|| Value::Null, || json!(1400), || json!(1300)],
        read: |route| route["metrics"][0]["mtu"].clone(),
        key: false,
    },
    Row {
        name: "advmss",
        says: ["", "advmss: 1200", "advmss: 1300, mtu: 1400"],
        shown: [|| Value::Null, || json!(1200), || json!(1300)],
        read: |route| route["metrics"][0]["advmss"].clone(),
        key: false,
    },
    Row {
        name: "tos",
        says: ["", "tos: 4", "tos: 28"],
        shown: [|| Value::Null, || json!("0x04"), || json!("0x1c")],
        read: |route| route["tos"].clone(),
        key: true,
    },
    Row {
        name: "ipv6_via",
        says: ["", "via: 'fd00::7'", "via: 'fe80::8'"],
        shown: [|| Value::Null, || json!("fd00::7"), || json!("fe80::8")],
        read: |route| route["gateway"].clone(),
        key: false,
    },
    Row {
        name: "ipv6_onlink",
        says: [
            "via: 'fd00::7'",
            "via: 'fd99::1', onlink: true",
            "via: 'fd00::7', onlink: true",
        ],
        shown: [|| json!([]), || json!(["onlink"]), || json!(["onlink"])],
        read: |route| route["flags"].clone(),
        key: false,
    },
    Row {
        name: "ipv6_metric",
        says: ["", "metric: 50", "metric: 60"],
        shown: [|| json!(1024), || json!(50), || json!(60)],
        read: |route| route["metric"].clone(),
        key: true,
    },
    Row {
        name: "ipv6_table",
        says: ["", "table: 100", "table: 70000"],
        shown: [|| json!("main"), || json!("100"), || json!("70000")],
        read: |route| route["table"].clone(),
        key: true,
    },
    Row {
        name: "ipv6_src",
        says: ["", "src: 'fd00::1'", "src: 'fd00::2'"],
        shown: [|| Value::Null, || json!("fd00::1"), || json!("fd00::2")],
        read: |route| route["prefsrc"].clone(),
        key: false,
    },
    Row {
        name: "ipv6_mtu",
        says: ["", "mtu: 1400", "mtu: 1300"],
        shown: [|| Value::Null, || json!(1400), || json!(1300)],
        read: |route| route["metrics"][0]["mtu"].clone(),
        key: false,
    },
    Row {
        name: "ipv6_advmss",
        says: ["", "advmss: 1200", "advmss: 1300, mtu: 1400"],
        shown: [|| Value::Null, || json!(1200), || json!(1300)],
        read: |route| route["metrics"][0]["advmss"].clone(),
        key: false,
    },
];

/// A tunnel, and a device that isn't ours. The one that the test is about has 10.10.100.1/24 and fd00::1/64.
fn topology(device: &str, entry: &str) -> String {
    let addresses = "[10.10.100.1/24, 'fd00::1/64', 'fd00::2/64']";
    let tunnel = "version: 1\nname: hq\ntunnels:\n  tun1:\n    local: 192.168.10.2\n    remote: 192.168.20.2\n";
    match device {
        "tun1" => format!("{tunnel}    addresses: {addresses}\n    routes: [{entry}]\n"),
        device => format!("{tunnel}addresses: {{{device}: {addresses}}}\nroutes: [{entry}]\n"),
    }
}

impl Row {
    /// Where the row's route leads: no other row's does.
    fn to(&self, n: usize) -> String {
        if self.name.starts_with("ipv6") {
            format!("fd08:{n:x}::/48")
        } else {
            format!("10.8.{n}.0/24")
        }
    }

    fn entry(&self, n: usize, device: &str, turn: usize) -> String {
        let device = if device == "tun1" {
            String::new()
        } else {
            format!(", device: {device}")
        };
        let says = if self.says[turn].is_empty() {
            String::new()
        } else {
            format!(", {}", self.says[turn])
        };
        format!("{{to: '{}'{device}{says}}}", self.to(n))
    }
}

/// What was done to a route.
fn done(plan: &Plan, to: &str) -> Vec<String> {
    let moves = plan.moves();
    let of_row = moves
        .iter()
        .filter(|line| line.split(' ').any(|word| word == to));
    of_row
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect()
}

/// Every property of a route: created, read back, changed (in place unless it's part of the kernel's key), changed
/// back, left out, deleted. Nothing else changes.
fn check(device: &str) {
    let world = World::new();
    let host = host(&world);
    let file = |turn: usize| {
        let entries: Vec<String> = ROWS
            .iter()
            .enumerate()
            .map(|(n, row)| row.entry(n, device, turn))
            .collect();
        topology(device, &entries.join(", "))
    };
    host.apply(&topology(device, ""));
    let at_first = host.seen();
    let mut exists = false;
    for turn in [1, 2, 1, 0] {
        let plan = host.apply(&file(turn));
        let mut seen = host.seen();
        for (n, row) in ROWS.iter().enumerate() {
            let to = row.to(n);
            let expected: &[&str] = match exists {
                false => &["create"],
                true if row.key => &["create", "delete"],
                true => &["update"],
            };
            assert_eq!(
                done(&plan, &to),
                expected,
                "{}: {:?}",
                row.name,
                plan.moves()
            );
            let route = seen.route(&to);
            assert_eq!(
                (row.read)(route),
                row.shown[turn](),
                "{}: {route}",
                row.name
            );
        }
        exists = true;
        seen.routes.retain(|route| route["protocol"] != "117");
        assert_same(&seen, &at_first);
    }
    host.settled(&file(0));
    host.apply(&topology(device, ""));
    assert_same(&host.seen(), &at_first);
}

/// Routes of one of our tunnels.
fn through_a_tunnel() {
    check("tun1");
}

/// Routes through a device that isn't ours.
fn outside() {
    check("veth0");
}

fn host(world: &World) -> Host {
    let host = world.lone();
    let far = world.host("far");
    host.ip(&format!(
        "link add veth0 up type veth peer name veth0 netns {}",
        far.netns
    ));
    far.ip("link set veth0 up");
    host
}

fn routes(list: &str) -> String {
    format!("version: 1\nname: hq\nroutes: [{list}]\n")
}

/// The five types of route, of both families: each changes into each other in place.
fn types() {
    let world = World::new();
    let host = host(&world);
    host.ip("addr add fd00::1/64 dev eth0 nodad");
    let types = [
        "blackhole",
        "unreachable",
        "prohibit",
        "throw",
        "unicast",
        "blackhole",
        "throw",
        "unreachable",
    ];
    for (to, family) in [("10.8.0.0/16", "v4"), ("fd08::/48", "v6")] {
        let mut first = true;
        for kind in types {
            let device = if kind == "unicast" {
                ", device: eth0"
            } else {
                ""
            };
            let plan = host.apply(&routes(&format!("{{to: '{to}', type: {kind}{device}}}")));
            let action = if first { "create" } else { "update" };
            assert_eq!(
                plan.moves(),
                [format!("{action} route {to}")],
                "{family} {kind}"
            );
            first = false;
            assert_eq!(host.seen().route(to)["type"], kind);
        }
        host.does(&routes(""), &[&format!("delete route {to}")]);
        assert!(host.seen().routes_to(to).is_empty());
    }
}

/// A route moves from device to device in place.
fn device() {
    let world = World::new();
    let host = host(&world);
    for (turn, device) in ["eth0", "veth0", "eth0"].into_iter().enumerate() {
        let plan = host.apply(&routes(&format!(
            "{{to: {V4}, device: {device}}}, {{to: '{V6}', device: {device}}}"
        )));
        let action = if turn == 0 { "create" } else { "update" };
        assert_eq!(
            plan.moves(),
            [
                format!("{action} route {V4}"),
                format!("{action} route {V6}")
            ]
        );
        let seen = host.seen();
        assert_eq!(
            (&seen.route(V4)["dev"], &seen.route(V6)["dev"]),
            (&json!(device), &json!(device))
        );
    }
}

/// Several next hops with weights, of both families: more, fewer, other weights, one.
fn nexthops() {
    let world = World::new();
    let host = host(&world);
    host.ip("addr add 10.10.100.1/24 dev veth0
             addr add fd00::1/64 dev veth0 nodad
             addr add fd10::1/64 dev eth0 nodad");
    let v4 = [
        "nexthops: [{via: 10.10.100.7}, {via: 192.168.10.7}]",
        "nexthops: [{via: 10.10.100.7, weight: 3}, {via: 192.168.10.7, weight: 256}]",
        "nexthops: [{via: 10.10.100.7}, {via: 192.168.10.7}, {via: 10.10.100.9, device: veth0, weight: 2}]",
        "nexthops: [{device: eth0}, {device: veth0}]",
        "nexthops: [{via: 172.16.0.1, device: eth0, onlink: true}, {via: 10.10.100.7}]",
        "via: 10.10.100.7",
        "nexthops: [{via: 10.10.100.7}]",
    ];
    // The kernel wants a gateway in each of several IPv6 next hops.
    let v6 = v4.map(|hops| {
        hops.replace(
            "{device: eth0}, {device: veth0}",
            "{via: 10.10.100.5}, {via: 192.168.10.7}",
        )
    });
    let v6 = v6.map(|hops| {
        hops.replace("10.10.100.", "fd00::")
            .replace("192.168.10.", "fd10::")
            .replace("172.16.0.1", "fd99::1")
            .replace("via: fd", "via: 'fd")
            .replace("::5", "::5'")
            .replace("::7", "::7'")
            .replace("::9", "::9'")
            .replace("::1,", "::1',")
    });
    for (to, list) in [(V4, v4.map(str::to_owned)), (V6, v6)] {
        for (turn, hops) in list.iter().enumerate() {
            let plan = host.apply(&routes(&format!("{{to: '{to}', {hops}}}")));
            let expected = match turn {
                0 => vec![format!("create route {to}")],
                // One next hop in the list is the same route as `via`.
                6 => vec![],
                _ => vec![format!("update route {to}")],
            };
            assert_eq!(plan.moves(), expected, "{hops}");
            let seen = host.seen();
            let count = seen.route(to)["nexthops"].as_array().map_or(1, Vec::len);
            assert_eq!(
                count,
                hops.matches('{').count().max(1),
                "{hops} {:#}",
                seen.route(to)
            );
        }
        host.apply(&routes(""));
        assert!(host.seen().routes_to(to).is_empty());
    }
}

/// `default`, of both families, beside the host's own with another metric.
fn default_route() {
    let world = World::new();
    let host = host(&world);
    host.ip("addr add fd10::1/64 dev eth0 nodad");
    let before = host.seen();
    let file =
        routes("{to: default, via: 192.168.10.7, metric: 10}, {to: default, via: 'fd10::7'}");
    host.does(
        &file,
        &[
            "create route default metric 10",
            "create route default (IPv6)",
        ],
    );
    assert_eq!(host.seen().routes_to("default").len(), 3);
    host.apply(&routes(""));
    assert_eq!(host.seen(), before);
}
