//! The branch that the operator sits on isn't cut.

use std::process::Command;

use crate::world::{Host, Run, TUNNELFORM, World, assert_same, trials};

trials![
    the_way_is_not_removed_or_redirected,
    the_tunnel_that_carries_it,
    the_own_end,
    only_where_the_kernel_looks,
    the_variable_that_sudo_takes_away,
];

fn hq(body: &str) -> String {
    format!("version: 1\nname: hq\n{body}\n")
}

/// Runs a command as somebody who came by SSH from `peer` to `own`.
fn by_ssh(host: &Host, (peer, own): (&str, &str), file: &str, arguments: &[&str]) -> Run {
    let path = format!("/run/protect-{}.yaml", host.netns);
    std::fs::write(&path, file).expect("a file in /run");
    let connection = format!("{peer} 50022 {own} 22");
    let mut command = Command::new(TUNNELFORM);
    command.args(arguments).arg(path);
    command.env("SSH_CONNECTION", connection);
    let output = host.inside(|| command.output());
    Run::new(format!("{command:?}"), output.expect("tunnelform"))
}

/// It's refused, also as a dry run and with --keep-going, and nothing is touched; with --force it's made.
#[track_caller]
fn cuts(host: &Host, ssh: (&str, &str), file: &str, why: &str) {
    let before = host.seen();
    for arguments in [
        &["apply"][..],
        &["apply", "--dry-run"],
        &["apply", "--keep-going"],
    ] {
        by_ssh(host, ssh, file, arguments)
            .exits(1)
            .says(why)
            .says("--force");
        assert_same(&host.seen(), &before);
    }
    // It leads to another namespace.
    host.tunnelform(&["apply", "--dry-run", "-"], file).ok();
    let protect = [
        "apply",
        "--dry-run",
        "-",
        "--protect",
        ssh.0,
        "--protect",
        ssh.1,
    ];
    host.tunnelform(&protect, file).exits(1).says(why);
    by_ssh(host, ssh, file, &["apply", "--force"]).ok();
    host.settled(file);
}

fn the_way_is_not_removed_or_redirected() {
    let world = World::new();
    let host = world.lone();
    let near = ("192.168.10.77", "192.168.10.2");
    let far = ("203.0.113.5", "192.168.10.2");
    // Nothing comes near it.
    let tunnels = "tunnels:\n  tun1: {local: 192.168.10.2, remote: 192.168.20.2, addresses: [10.10.100.1/24], routes: [10.244.2.0/24]}\n";
    by_ssh(&host, near, &hq(tunnels), &["apply"]).ok();
    by_ssh(&host, far, &hq(tunnels), &["apply"]).ok();
    let with = |routes: &str| hq(&format!("{tunnels}routes: [{routes}]"));
    cuts(
        &host,
        near,
        &with("{to: 192.168.10.77/32, type: blackhole}"),
        "192.168.10.77 would be cut off: its way (dev eth0) goes",
    );
    cuts(
        &host,
        far,
        &with("{to: 203.0.113.0/24, via: 192.168.10.9, device: eth0}"),
        "its way is via 192.168.10.1 dev eth0 now, and then via 192.168.10.9 dev eth0",
    );
    cuts(
        &host,
        far,
        &hq(tunnels),
        "its way is via 192.168.10.9 dev eth0 now, and then via 192.168.10.1 dev eth0",
    );
    // The same way by another route.
    let same = with("{to: 203.0.113.0/24, via: 192.168.10.1, device: eth0}");
    by_ssh(&host, far, &same, &["apply"]).ok();
}

fn the_tunnel_that_carries_it() {
    let world = World::new();
    let host = world.lone();
    let inside = ("10.244.2.9", "10.10.100.1");
    let file = |remote: &str, more: &str| {
        hq(&format!(
            "tunnels:\n  tun1: {{local: 192.168.10.2, remote: {remote}, addresses: [10.10.100.1/24], routes: [10.244.2.0/24]{more}}}"
        ))
    };
    host.apply(&file("192.168.20.2", ""));
    by_ssh(
        &host,
        inside,
        &file("192.168.20.2", ", ttl: 32"),
        &["apply"],
    )
    .ok();
    cuts(
        &host,
        inside,
        &file("192.168.20.3", ""),
        "its way leads through tun1, whose ends change",
    );
    cuts(
        &host,
        inside,
        &file("192.168.20.3", ", state: down"),
        "its way is dev tun1 now, and then via 192.168.10.1 dev eth0",
    );
    host.apply(&file("192.168.20.3", ""));
    let before = host.seen();
    let destroy = by_ssh(&host, inside, &file("192.168.20.3", ""), &["destroy"]);
    destroy.exits(1).says("would be cut off");
    assert_same(&host.seen(), &before);
}

fn the_own_end() {
    let world = World::new();
    let host = world.lone();
    host.apply(&hq("addresses: {lo: [10.0.0.1/32]}"));
    cuts(
        &host,
        ("203.0.113.5", "10.0.0.1"),
        &hq("addresses: {lo: [10.0.0.2/32]}"),
        "10.0.0.1 would be cut off: it's an address here that goes",
    );
}

/// A rule sends the operator's packets to another table: what the main table has doesn't matter, and that one's does.
fn only_where_the_kernel_looks() {
    let world = World::new();
    let host = world.lone();
    host.ip("route add default via 192.168.10.9 dev eth0 table 100
             rule add to 203.0.113.5 lookup 100");
    let far = ("203.0.113.5", "192.168.10.2");
    let route = |more: &str| {
        hq(&format!(
            "routes: [{{to: 203.0.113.0/24, type: blackhole{more}}}]"
        ))
    };
    by_ssh(&host, far, &route(""), &["apply"]).ok();
    cuts(
        &host,
        far,
        &route(", table: 100"),
        "its way (via 192.168.10.9 dev eth0) goes",
    );
}

/// sudo clears the environment, but its parents remember.
fn the_variable_that_sudo_takes_away() {
    let world = World::new();
    let host = world.lone();
    let path = format!("/run/protect-{}.yaml", host.netns);
    let file = hq("routes: [{to: 192.168.10.77/32, type: blackhole}]");
    std::fs::write(&path, file).expect("a file in /run");
    let output = host.inside(|| {
        let clears = format!("env -u SSH_CONNECTION {TUNNELFORM} apply {path}; exit $?");
        let mut command = Command::new("sh");
        command.args(["-c", &clears]);
        let connection = "192.168.10.77 50022 192.168.10.2 22";
        command.env("SSH_CONNECTION", connection).output()
    });
    let run = Run::new("apply".into(), output.expect("sh"));
    run.exits(1).says("192.168.10.77 would be cut off");
}
