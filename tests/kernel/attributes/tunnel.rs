//! A tunnel's options.

use serde_json::{Value, json};

use crate::world::{Host, Seen, World, parse, trials, wait_until};

trials![
    each_option,
    every_pair_of_options,
    remote_any,
    mode,
    state,
    defaults,
    no_link_local_address
];

/// An option that the kernel changes in place.
struct InPlace {
    key: &'static str,
    /// Two values as the file has them, neither of them the default.
    values: [&'static str; 2],
    /// The default and the two values, as `ip` shows them.
    shown: [fn() -> Value; 3],
    read: fn(&Seen, tunnel: &str) -> Value,
}

const OPTIONS: [InPlace; 8] = [
    InPlace {
        key: "local",
        values: ["192.168.10.3", "192.168.10.4"],
        shown: [
            || json!("any"),
            || json!("192.168.10.3"),
            || json!("192.168.10.4"),
        ],
        read: |seen, tunnel| seen.tunnel(tunnel)["local"].clone(),
    },
    InPlace {
        key: "remote",
        values: ["192.168.30.2", "192.168.30.3"],
        shown: [
            || json!("192.168.20"),
            || json!("192.168.30"),
            || json!("192.168.30"),
        ],
        read: |seen, tunnel| {
            let remote = seen.tunnel(tunnel)["remote"].as_str().unwrap_or_default();
            json!(remote.rsplit_once('.').map(|(network, _)| network))
        },
    },
    InPlace {
        key: "ttl",
        values: ["64", "255"],
        shown: [|| json!(0), || json!(64), || json!(255)],
        read: |seen, tunnel| seen.tunnel(tunnel)["ttl"].clone(),
    },
    InPlace {
        key: "tos",
        values: ["8", "inherit"],
        shown: [|| Value::Null, || json!("0x8"), || json!("0x1")],
        read: |seen, tunnel| seen.tunnel(tunnel)["tos"].clone(),
    },
    InPlace {
        key: "pmtudisc",
        values: ["false", "true"],
        shown: [|| json!(true), || json!(false), || json!(true)],
        read: |seen, tunnel| seen.tunnel(tunnel)["pmtudisc"].clone(),
    },
    InPlace {
        key: "device",
        values: ["eth0", "eth1"],
        shown: [|| Value::Null, || json!("eth0"), || json!("eth1")],
        read: |seen, tunnel| seen.tunnel(tunnel)["link"].clone(),
    },
    InPlace {
        key: "fwmark",
        values: ["5", "4294967295"],
        shown: [|| Value::Null, || json!("0x5"), || json!("0xffffffff")],
        read: |seen, tunnel| seen.tunnel(tunnel)["fwmark"].clone(),
    },
    InPlace {
        key: "mtu",
        values: ["1400", "9000"],
        shown: [|| json!(1480), || json!(1400), || json!(9000)],
        read: |seen, tunnel| seen.link(tunnel)["mtu"].clone(),
    },
];

const NOTHING: &str = "version: 1\nname: hq\n";

fn host(world: &World) -> Host {
    let host = world.lone();
    host.ip("addr add 192.168.10.3/24 dev eth0
             addr add 192.168.10.4/24 dev eth0
             link add eth1 up type dummy");
    host
}

/// Tunnels with options. The n-th has the remote 192.168.20.n, unless its options say otherwise, and always addresses
/// and routes.
fn topology(tunnels: &[(String, Vec<(&str, String)>)]) -> String {
    let mut text = format!("{NOTHING}tunnels:\n");
    for (n, (name, options)) in tunnels.iter().enumerate() {
        text += &format!("  {name}:\n    addresses: [10.10.{n}.1/24, 'fd00:{n}::1/64']\n");
        text +=
            &format!("    routes: [10.100.{n}.0/24, {{to: 10.101.{n}.0/24, via: 10.10.{n}.2}}]\n");
        if !options.iter().any(|(key, _)| *key == "remote") {
            text += &format!("    remote: 192.168.20.{n}\n");
        }
        for (key, value) in options {
            text += &format!("    {key}: {value}\n");
        }
    }
    text
}

/// The devices' indices, addresses and routes.
fn kept(seen: &Seen) -> Seen {
    let mut seen = seen.clone();
    for link in &mut seen.links {
        *link = json!({ "ifname": link["ifname"], "ifindex": link["ifindex"] });
    }
    seen
}

/// Applies tunnels, and shows that those which differ, and nothing else, were updated in place: indices, addresses and
/// routes are as `first`.
fn updates(host: &Host, file: &str, expected: &[String], first: &Seen) -> Seen {
    let plan = host.apply(file);
    let expected: Vec<String> = expected
        .iter()
        .map(|name| format!("update tunnel {name}"))
        .collect();
    assert_eq!(
        plan.moves(),
        crate::world::sorted(&expected.iter().map(String::as_str).collect::<Vec<_>>()),
        "{:#}",
        plan.0
    );
    let now = host.seen();
    crate::world::assert_same(&kept(&now), &kept(first));
    now
}

/// Each option alone, on a tunnel of its own: created, read back, changed in place, changed back, taken out of the file
/// (its default returns), and deleted.
fn each_option() {
    let world = World::new();
    let host = host(&world);
    let with = |turn: usize| -> Vec<(String, Vec<(&str, String)>)> {
        let options = |option: &InPlace| match turn {
            0 => vec![],
            turn => vec![(option.key, option.values[turn - 1].to_owned())],
        };
        OPTIONS
            .iter()
            .map(|option| (format!("t-{}", option.key), options(option)))
            .collect()
    };
    host.apply(&topology(&with(1)));
    let first = host.seen();
    let mut before = 1;
    for turn in [1, 2, 1, 0] {
        let differ = |option: &&InPlace| {
            turn != before
                && (option.shown[turn]() != option.shown[before]() || option.key == "remote")
        };
        let changed: Vec<String> = OPTIONS
            .iter()
            .filter(differ)
            .map(|option| format!("t-{}", option.key))
            .collect();
        let seen = updates(&host, &topology(&with(turn)), &changed, &first);
        for option in &OPTIONS {
            assert_eq!(
                (option.read)(&seen, &format!("t-{}", option.key)),
                option.shown[turn](),
                "{}",
                option.key
            );
        }
        before = turn;
    }
    host.settled(&topology(&with(0)));
    let names: Vec<String> = OPTIONS
        .iter()
        .map(|option| format!("delete tunnel t-{}", option.key))
        .collect();
    host.does(
        NOTHING,
        &names.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    assert!(host.seen().tunnels().is_empty());
}

/// Every pair of options, on a tunnel of its own: created, taken out of the file, and set again in place. Both come out
/// as the file says, and no other option with them.
fn every_pair_of_options() {
    let world = World::new();
    let host = host(&world);
    let mut pairs = Vec::new();
    for (index, a) in OPTIONS.iter().enumerate() {
        // A fixed TTL turns path MTU discovery on: no file may say otherwise.
        let others = OPTIONS[index + 1..]
            .iter()
            .filter(|b| (a.key, b.key) != ("ttl", "pmtudisc"));
        pairs.extend(others.map(|b| (a, b)));
    }
    let name = |n: usize| format!("t{n}");
    let with = |turn: usize| -> Vec<(String, Vec<(&str, String)>)> {
        let value = |option: &InPlace, n: usize| match option.key {
            // No two tunnels may have the same endpoints.
            "remote" => format!("192.168.30.{}", n + 1),
            _ => option.values[turn - 1].to_owned(),
        };
        let options = |n: usize| match turn {
            0 => vec![],
            _ => vec![
                (pairs[n].0.key, value(pairs[n].0, n)),
                (pairs[n].1.key, value(pairs[n].1, n)),
            ],
        };
        (0..pairs.len()).map(|n| (name(n), options(n))).collect()
    };
    host.apply(&topology(&with(1)));
    let first = host.seen();
    let all: Vec<String> = (0..pairs.len()).map(name).collect();
    for turn in [0, 1, 0] {
        let seen = updates(&host, &topology(&with(turn)), &all, &first);
        for (n, (a, b)) in pairs.iter().enumerate() {
            for option in &OPTIONS {
                let given = option.key == a.key || option.key == b.key;
                let expected = option.shown[if given { turn } else { 0 }]();
                assert_eq!(
                    (option.read)(&seen, &name(n)),
                    expected,
                    "{} with {} and {}",
                    option.key,
                    a.key,
                    b.key
                );
            }
        }
    }
    host.settled(&topology(&with(0)));
}

fn one(options: &[(&'static str, &str)]) -> String {
    let options = options
        .iter()
        .map(|(key, value)| (*key, (*value).to_owned()))
        .collect();
    topology(&[("tun1".to_owned(), options)])
}

/// `tun1` was replaced, for this reason, and has its addresses and routes again.
fn is_replaced(host: &Host, file: &str, why: &str) -> Seen {
    let before = host.index("tun1");
    let plan = host.apply(file);
    let change = plan.change("tunnel", "tun1");
    assert_eq!(
        (&change["action"], &change["effect"]),
        (&json!("replace"), &json!("brief"))
    );
    assert!(
        change["why"]
            .as_str()
            .is_some_and(|said| said.contains(why)),
        "{change:#}"
    );
    host.settled(file);
    let seen = host.seen();
    assert_eq!(seen.link("tun1")["ifindex"], before);
    assert_eq!(seen.link("tun1")["ifalias"], "tunnelform:hq");
    seen.address("tun1", "10.10.0.1");
    seen.address("tun1", "fd00::1");
    assert_eq!(seen.routes_of("117").len(), 2);
    seen
}

/// From one remote to any and back can't be in place: a replacement that says why, after which everything stands again.
fn remote_any() {
    let world = World::new();
    let host = host(&world);
    let any = one(&[("local", "192.168.10.2"), ("remote", "any")]);
    let unicast = one(&[("local", "192.168.10.2")]);
    host.apply(&unicast);
    for (file, shown) in [(&any, "any"), (&unicast, "192.168.20.0"), (&any, "any")] {
        let seen = is_replaced(&host, file, "multipoint");
        assert_eq!(seen.tunnel("tun1")["remote"], shown);
    }
}

/// The kernel takes another `mode` without a word and keeps the old one, so that is a replacement, too.
fn mode() {
    let world = World::new();
    let host = host(&world);
    host.apply(&one(&[("mode", "any")]));
    assert_eq!(host.seen().tunnel("tun1")["proto"], "any");
    for (file, shown) in [
        (one(&[("mode", "mplsip")]), "mplsip"),
        (one(&[("mode", "any")]), "any"),
        (one(&[]), "ipip"),
    ] {
        let seen = is_replaced(&host, &file, "mode");
        assert_eq!(seen.tunnel("tun1")["proto"], shown);
    }
}

/// `state: down` takes the routes away and keeps the device; `up`, or nothing in the file, brings them back.
fn state() {
    let world = World::new();
    let host = host(&world);
    let up = |seen: &Seen| {
        seen.link("tun1")["flags"]
            .as_array()
            .is_some_and(|flags| flags.contains(&json!("UP")))
    };
    host.apply(&one(&[("state", "down")]));
    host.settled(&one(&[("state", "down")]));
    assert!(!up(&host.seen()));
    let index = host.index("tun1");
    for file in [one(&[("state", "up")]), one(&[("state", "down")]), one(&[])] {
        let plan = host.apply(&file);
        host.settled(&file);
        assert_eq!(plan.change("tunnel", "tun1")["action"], "update");
        let seen = host.seen();
        let down = file.contains("down");
        assert_eq!(up(&seen), !down);
        assert_eq!(
            seen.routes_of("117").len(),
            if down { 0 } else { 2 },
            "{:#?}",
            seen.routes
        );
        seen.address("tun1", "10.10.0.1");
        seen.address("tun1", "fd00::1");
        assert_eq!(seen.link("tun1")["ifindex"], index);
    }
}

/// `defaults` are the options of every tunnel that doesn't set them itself.
fn defaults() {
    let world = World::new();
    let host = host(&world);
    let file = |ttl: &str| {
        format!(
            "{NOTHING}defaults: {{ttl: {ttl}, local: 192.168.10.2}}\ntunnels:\n  tun1: {{remote: 192.168.20.2}}\n  \
             tun2: {{remote: 192.168.20.3, ttl: inherit}}\n"
        )
    };
    host.apply(&file("64"));
    let seen = host.seen();
    assert_eq!(
        (&seen.tunnel("tun1")["ttl"], &seen.tunnel("tun2")["ttl"]),
        (&json!(64), &json!(0))
    );
    host.does(&file("32"), &["update tunnel tun1"]);
}

/// An ipip tunnel, of whatever mode, carries no IPv6: it counts what it's given as an error.
fn no_link_local_address() {
    let world = World::new();
    let host = world.lone();
    host.ip("link add plain up type ipip local 192.168.10.2 remote 192.168.20.9");
    host.apply(
        "version: 1\nname: hq\ndefaults: {local: 192.168.10.2}\ntunnels:\n  tun1: {remote: 192.168.20.1}\n  \
         small: {remote: 192.168.20.2, mtu: 1279}\n  \
         six: {remote: 192.168.20.3, addresses: ['fd00::1/64'], routes: ['fd01::/64']}\n",
    );
    let addresses = |device: &str| {
        let shown = host.exec(&["ip", "-6", "-oneline", "address", "show", "dev", device]);
        shown.ok().stdout
    };
    let errors = |device: &str| {
        let shown = host.exec(&["ip", "-json", "-stats", "link", "show", "dev", device]);
        parse(&shown.ok().stdout)[0]["stats64"]["tx"]["errors"].clone()
    };
    wait_until("there is one by itself", || {
        addresses("plain").contains("fe80:")
    });
    assert_eq!(errors("plain"), 0);
    host.exec(&["ping", "-6", "-c", "1", "-W", "1", "fe80::1%plain"]);
    assert_ne!(errors("plain"), 0);
    assert_eq!([addresses("tun1"), addresses("small")], ["", ""]);
    let six = addresses("six");
    assert!(
        six.contains("fd00::1/64") && !six.contains("fe80:"),
        "{six}"
    );
}
