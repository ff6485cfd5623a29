//! What is written is read again, and what was changed is refused.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::kernel::roundtrip::{any_address, any_route, device, tunnel};
use crate::plan::testing::{bare_with, terms};
use crate::plan::{Delta, Style};
use crate::state::{Address, Tunnel};

/// Every way in which one thing becomes another.
fn delta<T: Clone>(kind: usize, from: T, to: T, why: String) -> Delta<T> {
    match kind {
        0 => Delta::Create(to),
        1 => Delta::Update { from, to },
        2 => Delta::Replace { from, to, why },
        3 => Delta::delete(from),
        4 => Delta::Delete {
            from,
            along: Some(why),
        },
        _ => Delta::Restore { to, why },
    }
}

fn any_change() -> impl Strategy<Value = Change> {
    let why = || "[ -~]{0,20}";
    let tunnels = (device(), 0..6usize, tunnel(), tunnel(), why());
    let addresses = (0..6usize, any_address(), any::<(bool, u32)>(), why());
    let routes = (0..6usize, any_route(), any_route(), why());
    prop_oneof![
        tunnels.prop_map(|(name, kind, from, to, why)| {
            Change::Tunnel(name, delta(kind, from, to, why))
        }),
        addresses.prop_map(|(kind, (key, from), (noprefixroute, metric), why)| {
            let to = Address {
                noprefixroute,
                metric,
                ..from.clone()
            };
            Change::Address(key, delta(kind, from, to, why))
        }),
        routes.prop_map(|(kind, (key, from), (_, to), why)| {
            Change::Route(key, delta(kind, from, to, why))
        }),
    ]
}

prop_compose! {
    fn any_plan()(changes in vec(any_change(), 0..6), warnings in vec("[ -~ü]{0,30}", 0..2)) -> Plan {
        Plan { changes, warnings, ..Plan::default() }
    }
}

fn topology() -> Topology {
    let text =
        "name: t\ntunnels: {tun1: {local: 192.0.2.1, remote: 192.0.2.2, routes: [10.0.0.0/8]}}";
    Topology::parse("t.yaml", text).unwrap().topology
}

fn saved(plan: &Plan) -> Saved {
    let origin = Origin {
        made: "2026-01-02T03:04:05Z".into(),
        host: Some("gw".into()),
        ..Origin::default()
    };
    let basis = Basis::of(plan, &bare_with(&["eth0"]));
    let topology = topology();
    Saved::new(
        origin,
        Purpose::Apply,
        &terms("t"),
        Some(&topology),
        plan,
        basis,
    )
    .unwrap()
}

fn a_plan() -> Plan {
    let tunnel: Tunnel = typed(&json!({
            "kind": "ipip", "local": "192.0.2.1", "remote": "192.0.2.2", "device": null, "mode": "ipip", "ttl": 64, "tos": 0,
            "pmtudisc": true, "fwmark": 0, "external": false, "encap": null, "mtu": 1480, "state": "up", "alias": "tunnelform:t"
        }))
        .unwrap();
    let other = Tunnel {
        mtu: 1400,
        ..tunnel.clone()
    };
    let name = "tun1".parse().unwrap();
    let update = Delta::Update {
        from: other,
        to: tunnel,
    };
    Plan {
        changes: vec![Change::Tunnel(name, update)],
        ..Plan::default()
    }
}

/// What a file holds after somebody who knows about the digest has been at it.
fn forged(text: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut file: Value = serde_json::from_str(text).unwrap();
    change(&mut file);
    let mut file = without_digest(file).unwrap();
    let digest = digest(&mut file);
    with_digest(file, digest.into()).to_string()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]

    #[test]
    fn reads_as_written(plan in any_plan()) {
        let saved = saved(&plan);
        let text = saved.text().unwrap();
        prop_assert!(Saved::is_meant(text.as_bytes()));
        let (again, read) = Saved::read(text.as_bytes()).unwrap();
        prop_assert_eq!(&read.changes, &plan.changes);
        prop_assert_eq!(&read.warnings, &plan.warnings);
        prop_assert_eq!(&again.rests_on, &saved.rests_on);
        prop_assert_eq!(&again.origin, &saved.origin);
        prop_assert_eq!(&again.terms, &saved.terms);
        prop_assert_eq!(again.host().unwrap().unwrap().topology, topology());
    }

    /// Whatever byte becomes another: the file means what it meant, or it's refused.
    #[test]
    fn an_edit_is_seen(plan in any_plan(), place: Index, byte: u8) {
        let text = saved(&plan).text().unwrap();
        let mut edited = text.clone().into_bytes();
        *place.get_mut(&mut edited) = byte;
        if Saved::read(&edited).is_ok() {
            let value = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
            prop_assert_eq!(value(&edited), value(text.as_bytes()));
        }
    }

    #[test]
    fn garbage_is_an_error(bytes in vec(any::<u8>(), 0..100), plan in any_plan(), cut: Index, values in vec((any::<Index>(), any_json()), 1..3)) {
        prop_assert!(Saved::read(&bytes).is_err());
        let text = saved(&plan).text().unwrap();
        let cut = cut.index(text.trim_end().len());
        prop_assert!(Saved::read(&text.as_bytes()[..cut]).is_err());
        // With a digest that fits nothing panics either.
        let forged = forged(&text, |file| {
            for (place, value) in values {
                let mut all = Vec::new();
                pointers(file, String::new(), &mut all);
                if let Some(spot) = file.pointer_mut(&all[place.index(all.len())]) {
                    *spot = value;
                }
            }
        });
        if let Ok((saved, plan)) = Saved::read(forged.as_bytes()) {
            let _ = saved.host();
            let _ = plan.text(Style { color: false });
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let values = [
        json!(null),
        json!(-1),
        json!(1e300),
        json!("x"),
        json!([]),
        json!({}),
        json!([[{}]]),
        json!("10.0.0.0/99"),
    ];
    proptest::sample::select(values.to_vec())
}

fn pointers(value: &Value, at: String, all: &mut Vec<String>) {
    if let Some(map) = value.as_object() {
        map.iter().for_each(|(key, value)| {
            pointers(
                value,
                format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")),
                all,
            )
        });
    }
    if let Some(list) = value.as_array() {
        list.iter()
            .enumerate()
            .for_each(|(index, value)| pointers(value, format!("{at}/{index}"), all));
    }
    if !at.is_empty() {
        all.push(at);
    }
}

/// Every value, taken away or made another.
#[test]
fn any_other_value_is_refused() {
    let text = saved(&a_plan()).text().unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let mut all = Vec::new();
    pointers(&file, String::new(), &mut all);
    assert!(all.len() > 80, "{}", all.len());
    for place in all {
        let mut edited = file.clone();
        let spot = edited.pointer_mut(&place).unwrap();
        *spot = match &spot {
            Value::String(text) => json!(format!("{text}x")),
            Value::Bool(set) => json!(!*set),
            Value::Number(number) => json!(number.as_u64().unwrap() + 1),
            Value::Null => json!("x"),
            Value::Array(_) => json!([1]),
            Value::Object(_) => json!({"other": 1}),
        };
        assert!(
            Saved::read(edited.to_string().as_bytes()).is_err(),
            "{place}"
        );
    }
}

#[test]
fn what_is_wrong_has_a_name() {
    let text = saved(&a_plan()).text().unwrap();
    let edited = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    let forged =
        |at: &str, value: Value| forged(&text, |file| *file.pointer_mut(at).unwrap() = value);
    for (file, expected) in [
        (
            edited("\"ttl\":64", "\"ttl\":65"),
            "it was changed after it was made",
        ),
        (
            edited("plan\":1", "plan\":2"),
            "its tunnelform_saved_plan is 2, and this release knows 1",
        ),
        (
            edited(&format!("version\":\"{VERSION}\""), "version\":\"99.0.0\""),
            "tunnelform \"99.0.0\" made it",
        ),
        (edited("{", "{,"), "line 1 column 2"),
        (
            forged("/plan/changes/0/after/mtu", json!(9)),
            "doesn't follow from its changes",
        ),
        (
            forged("/plan/counts/update", json!(9)),
            "doesn't follow from its changes",
        ),
        (
            forged("/plan/changes/0/object", json!("bridge")),
            "\"bridge\" is no kind of object",
        ),
        (forged("/plan/changes/0/before", json!({})), "missing field"),
        (
            forged("/state_digest", json!("sha256:0")),
            "its state_digest isn't of its state",
        ),
        (
            forged("/origin/host", json!("\u{1b}[2J")),
            "holds control characters",
        ),
        (
            forged("/origin/made", json!("<b>")),
            "\"<b>\" is no RFC 3339 time",
        ),
        (
            forged("/origin/topology_digest", json!("sha256:<b>")),
            "its topology_digest is none",
        ),
        (
            forged("/origin", json!({"made": "x", "mode": 1})),
            "unknown field `mode`",
        ),
        ("[]".into(), "its tunnelform_saved_plan is null"),
        (
            format!("{}1{}", "[".repeat(9000), "]".repeat(9000)),
            "recursion limit",
        ),
    ] {
        let error = Saved::read(file.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}: no {expected:?}");
    }
    for (at, value, expected) in [
        (
            "/topology",
            json!({"name": "other"}),
            "its terms aren't its topology's",
        ),
        (
            "/topology",
            json!({"name": "t", "nodes": {"a": {}}}),
            "its topology has nodes",
        ),
        ("/topology/tunnels/tun1/ttl", json!(0), "ttl"),
    ] {
        let mut file: Value = serde_json::from_str(&text).unwrap();
        file["topology"]["tunnels"]["tun1"]["ttl"] = json!(1);
        *file.pointer_mut(at).unwrap() = value;
        let mut file = without_digest(file).unwrap();
        let digest = digest(&mut file);
        let text = with_digest(file, digest.into()).to_string();
        let (saved, _) = Saved::read(text.as_bytes()).unwrap();
        let error = saved.host().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}: no {expected:?}");
    }
}

#[test]
fn a_topology_is_told_apart() {
    for (text, meant) in [
        ("", false),
        ("name: t", false),
        ("{\"name\": \"t\"}", false),
        ("{name: tunnelform_saved_plan}", false),
        (
            "{\"name\": \"t\", \"labels\": {\"tunnelform_saved_plan\": 1}}",
            false,
        ),
        (" {\"name\": \"t\", \"tunnelform_saved_plan\": []}", true),
        ("{\"tunnelform_saved_plan\": 1, \"made", true),
    ] {
        assert_eq!(Saved::is_meant(text.as_bytes()), meant, "{text}");
    }
}
