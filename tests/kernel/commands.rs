//! What the commands say: the README's plans, word for word, and the doctor's findings.

use super::world::{Host, World, parse, trials};

trials!(readme, diff, doctor);

const README: &str = include_str!("../../README.md");

/// The README's example, planned and applied, says what the README shows.
fn readme() {
    let world = World::new();
    let host = world.lone();
    let topology = block("```yaml\n# hq.yaml\n");
    let plans: Vec<&str> = README
        .split("```console\n$ tunnelform apply ")
        .skip(1)
        .collect();
    let shown = |index: usize| {
        let (_, after_command) = plans[index].split_once('\n').unwrap_or_default();
        after_command
            .split("```")
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let said =
        |arguments: &[&str], topology: &str| host.tunnelform(arguments, topology).ok().stdout;

    assert_eq!(said(&["apply", "--dry-run", "-"], &topology), shown(0));
    said(&["apply", "-"], &topology);
    let later = topology
        .replace("ttl: 64", "ttl: 32")
        .replace("10.244.2.0", "10.244.3.0");
    let later = later.replace("10.10.100.1", "10.10.100.7");
    assert_eq!(said(&["apply", "-"], &later), shown(1));
}

/// A fenced block of the README, by its beginning.
fn block(start: &str) -> String {
    let rest = README
        .split(start)
        .nth(1)
        .unwrap_or_else(|| panic!("no {start:?} in the README"));
    rest.split("```").next().unwrap_or_default().to_owned()
}

/// `--diff` shows the same change as a unified diff.
fn diff() {
    let world = World::new();
    let host = world.lone();
    let topology =
        "name: hq\ntunnels: {tun1: {local: 192.168.10.2, remote: 192.168.20.2, ttl: 64}}";
    host.apply(topology);
    let run = host.tunnelform(
        &["apply", "--dry-run", "--diff", "-"],
        &topology.replace("64", "32"),
    );
    let run = run.ok().says("--- observed").says("+++ desired");
    assert!(
        run.stdout.contains("\n-    ttl: 64\n+    ttl: 32\n"),
        "{}",
        run.stdout
    );
    assert_eq!(
        host.tunnelform(&["apply", "--dry-run", "--diff", "-"], topology)
            .ok()
            .stdout,
        ""
    );
}

/// The doctor finds strict reverse path filters, tunnels that nobody owns, and what is well; it says what to do.
fn doctor() {
    let world = World::new();
    let host = world.lone();
    host.ip("link add foreign type ipip local 192.168.10.2 remote 192.0.2.9");
    host.sysctl("ipv4/conf/eth0/rp_filter", "1");
    host.sysctl("ipv4/ip_forward", "1");
    assert_eq!(verdict(&host, "ipip"), "ok");
    assert_eq!(verdict(&host, "CAP_NET_ADMIN"), "ok");
    assert_eq!(verdict(&host, "ip_forward"), "ok");
    assert_eq!(verdict(&host, "rp_filter"), "warn");
    assert_eq!(verdict(&host, "other IPIP tunnels"), "warn");
    let text = host.tunnelform(&["doctor"], "").ok();
    text.says("strict on eth0")
        .says("sysctl -w net.ipv4.conf.$d.rp_filter=2")
        .says("foreign (left alone");

    host.sysctl("ipv4/conf/eth0/rp_filter", "2");
    host.sysctl("ipv4/ip_forward", "0");
    host.ip("link del foreign");
    assert_eq!(verdict(&host, "ip_forward"), "warn");
    assert_eq!(verdict(&host, "rp_filter"), "ok");
    assert_eq!(verdict(&host, "other IPIP tunnels"), "ok");
}

fn verdict(host: &Host, name: &str) -> String {
    let report = parse(
        &host
            .tunnelform(&["doctor", "--output", "json"], "")
            .ok()
            .stdout,
    );
    let checks = report["checks"].as_array().cloned().unwrap_or_default();
    let check = checks.iter().find(|check| check["name"] == name);
    check.unwrap_or_else(|| panic!("no check {name}: {report:#}"))["verdict"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}
