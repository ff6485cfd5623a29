//! What the kernel would refuse is known before anything is touched; with `--keep-going` it's said in the kernel's words,
//! and doesn't keep the rest from being done.

use serde_json::Value;

use crate::world::{Host, Plan, Run, TUNNELFORM, World, assert_same, run, trials};

trials![
    unreachable_gateway,
    missing_device,
    device_that_is_down,
    missing_address,
    source_that_no_device_has,
    without_privilege
];

fn hq(body: &str) -> String {
    format!("version: 1\nname: hq\n{body}\n")
}

/// A device without the address that a tunnel is to have as its `local`: that tunnel stays away, or as it is.
fn missing_address() {
    let world = World::new();
    let host = world.lone();
    host.ip("link add eth1 up type dummy");
    let file = hq(&format!(
        "{TUNNELS}  tun2: {{local: {{device: eth1}}, remote: 192.168.20.3, addresses: [10.10.101.1/24]}}\n  \
         tun3: {{local: {{device: eth9}}, remote: 192.168.20.3}}"
    ));
    let sentences = ["tun2", "tun3"].map(|tunnel| format!("tunnel {tunnel}: its `local` is"));
    let told = |run: Run| {
        let run = run.exits(1).says(&sentences[0]).says(&sentences[1]);
        assert_eq!(run.plan().0["in_sync"], false);
        run.plan().moves()
    };
    for (device, tunnel) in [("eth1", "tunnel tun2"), ("eth9", "tunnel tun3")] {
        let reason = format!("device {device} has no IPv4 address to be its `local`");
        stands_in_the_way(&host, &file, &reason, &[tunnel]);
    }
    let before = host.seen();
    let preview = told(host.try_apply(&file, &["--dry-run", "--keep-going"]));
    assert_same(&host.seen(), &before);
    let made = told(host.try_apply(&file, &["--keep-going"]));
    assert_eq!(made, preview);
    assert_eq!(made.len(), 3, "{made:?}");
    assert_eq!(host.seen().tunnels(), ["tun1".to_owned()].into());
    host.ip("addr add 192.168.30.2/24 dev eth1");
    host.try_apply(&file, &["--keep-going"]).exits(1);
    host.ip("addr del 192.168.30.2/24 dev eth1");
    let there = host.seen();
    assert_eq!(there.tunnel("tun2")["local"], "192.168.30.2");
    assert_eq!(told(host.try_apply(&file, &["--keep-going"])).len(), 0);
    assert_same(&host.seen(), &there);
    host.tunnelform(&["destroy", "-"], &file).ok();
    assert_eq!(host.seen().tunnels(), [].into());
}

/// Each change's status, by its key.
fn status<'a>(plan: &'a Plan, object: &str, key: &str) -> &'a Value {
    &plan.change(object, key)["status"]
}

const TUNNELS: &str = "tunnels:\n  tun1: {local: 192.168.10.2, remote: 192.168.20.2, addresses: [10.10.100.1/24], routes: [10.244.0.0/16]}\n";

/// Nothing is touched, and the plan already says why.
#[track_caller]
fn stands_in_the_way(host: &Host, file: &str, reason: &str, keys: &[&str]) {
    let before = host.seen();
    for arguments in [&["--dry-run"][..], &[], &["--keep-going", "--atomic"]] {
        let plan = host.try_apply(file, arguments).exits(1).says(reason).plan();
        let obstacles = plan.0["obstacles"].as_array().expect("a list");
        let about = |obstacle: &&Value| obstacle["reason"] == reason;
        let obstacle = obstacles.iter().find(about).expect("the obstacle");
        assert_eq!(obstacle["objects"], Value::from(keys.to_vec()));
        assert_same(&host.seen(), &before);
    }
}

/// All but the failed one is done, and done for good: repeating changes nothing but tries that one again.
#[track_caller]
fn fails_alone(host: &Host, file: &str, key: &str, sentence: &str) {
    for turn in 0..2 {
        let run = host
            .try_apply(file, &["--keep-going"])
            .exits(1)
            .says(sentence)
            .says(key);
        let plan = run.plan();
        assert_eq!(status(&plan, "route", key), "failed");
        let error = plan.change("route", key)["error"]
            .as_str()
            .unwrap_or_default();
        assert!(error.contains(sentence), "{error}");
        assert_eq!(plan.0["in_sync"], false);
        assert_eq!(plan.changes().len() > 1, turn == 0, "{:?}", plan.moves());
        let seen = host.seen();
        seen.address("tun1", "10.10.100.1");
        seen.route("10.244.0.0/16");
        seen.route("10.66.0.0/16");
    }
}

/// A gateway that nothing reaches: the kernel's sentence is shown, the rest is done, the exit code is 1.
fn unreachable_gateway() {
    let world = World::new();
    let host = world.lone();
    let file = hq(&format!(
        "{TUNNELS}routes:\n  - {{to: 10.8.0.0/16, via: 172.16.0.1, device: eth0}}\n  - {{to: 10.66.0.0/16, type: blackhole}}"
    ));
    stands_in_the_way(
        &host,
        &file,
        "nothing on eth0 reaches the gateway 172.16.0.1",
        &["route 10.8.0.0/16"],
    );
    fails_alone(&host, &file, "10.8.0.0/16", "Nexthop has invalid gateway");
}

/// A source that is no address of the host.
fn source_that_no_device_has() {
    let world = World::new();
    let host = world.lone();
    let file = hq(&format!(
        "{TUNNELS}routes:\n  - {{to: 10.8.0.0/16, device: eth0, src: 172.16.0.1}}\n  - {{to: 10.66.0.0/16, type: blackhole}}"
    ));
    stands_in_the_way(
        &host,
        &file,
        "no device has the source address 172.16.0.1",
        &["route 10.8.0.0/16"],
    );
    fails_alone(&host, &file, "10.8.0.0/16", "Invalid prefsrc address");
}

/// A device that isn't there: the plan says so, and what needs it is skipped.
fn missing_device() {
    let world = World::new();
    let host = world.lone();
    let file = hq(&format!(
        "{TUNNELS}  tun2: {{local: 192.168.10.2, remote: 192.168.20.3, device: eth7, addresses: [10.10.101.1/24]}}\n\
         routes:\n  - {{to: 10.8.0.0/16, device: eth8}}\n  - {{to: 10.66.0.0/16, type: blackhole}}\naddresses: {{eth9: [10.9.0.1/24]}}"
    ));
    for (device, object) in [
        ("eth7", "tunnel tun2"),
        ("eth8", "route 10.8.0.0/16"),
        ("eth9", "address 10.9.0.1/24 on eth9"),
    ] {
        let reason = format!("device {device} doesn't exist");
        stands_in_the_way(&host, &file, &reason, &[object]);
    }
    let plan = host.try_apply(&file, &["--keep-going"]).exits(1).plan();
    for device in ["eth7", "eth8", "eth9"] {
        assert!(
            plan.0["errors"].to_string().contains(device),
            "{}",
            plan.told()
        );
    }
    for (object, key) in [
        ("tunnel", "tun2"),
        ("address", "10.10.101.1/24 on tun2"),
        ("address", "10.9.0.1/24 on eth9"),
        ("route", "10.8.0.0/16"),
    ] {
        assert_eq!(status(&plan, object, key), "skipped", "{key}");
    }
    let seen = host.seen();
    seen.route("10.244.0.0/16");
    seen.route("10.66.0.0/16");
    assert_eq!(seen.tunnels().len(), 1);
    host.ip(
        "link add eth7 up type dummy\nlink add eth8 up type dummy\nlink add eth9 up type dummy",
    );
    host.apply(&file);
    host.settled(&file);
}

/// The kernel has no routes through a device that is down, of either family.
fn device_that_is_down() {
    let world = World::new();
    let host = world.lone();
    host.ip("link add eth1 type dummy\naddr add 172.16.0.2/24 dev eth1");
    let file = hq(&format!(
        "{TUNNELS}routes:\n  - {{to: 10.8.0.0/16, via: 172.16.0.1, device: eth1}}\n  - {{to: 'fd08::/48', device: eth1}}\n  - {{to: 10.66.0.0/16, type: blackhole}}"
    ));
    let keys = ["route 10.8.0.0/16", "route fd08::/48"];
    stands_in_the_way(&host, &file, "device eth1 is down", &keys);
    let plan = host.try_apply(&file, &["--keep-going"]).exits(1).plan();
    for key in ["10.8.0.0/16", "fd08::/48"] {
        assert_eq!(status(&plan, "route", key), "failed");
    }
    host.ip("link set eth1 up");
    host.apply(&file);
    host.settled(&file);
}

/// A user without CAP_NET_ADMIN can look and can't change: `apply` says so before it does anything.
fn without_privilege() {
    let world = World::new();
    let host = world.lone();
    let file = std::env::temp_dir().join(format!("tunnelform-{}.yaml", host.netns));
    std::fs::write(&file, hq(TUNNELS)).expect("a file for the topology");
    let path = file.to_str().expect("a name in UTF-8");
    let before = host.seen();
    let nobody = |arguments: &[&str]| {
        let mut all = vec![
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--bounding-set=-all",
            TUNNELFORM,
        ];
        all.extend(arguments);
        host.inside(|| run("setpriv", &all, ""))
    };
    nobody(&["apply", path])
        .exits(1)
        .says("CAP_NET_ADMIN")
        .says("--dry-run");
    nobody(&["destroy", path]).exits(1).says("CAP_NET_ADMIN");
    assert_same(&host.seen(), &before);
    nobody(&["apply", "--dry-run", path])
        .ok()
        .says("3 to create");
    nobody(&["status", path]).ok().says("missing");
    nobody(&["validate", path]).ok();
    let _ = std::fs::remove_file(file);
}
