//! `examples/gitops` on hosts: planned from their own state, applied as reviewed, refused where one has changed.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::world::{Host, Run, TUNNELFORM, World, assert_same, trials};

trials!(from_review_to_hosts);

const TOPOLOGY: &str = "\
name: pods
nodes:
  node-1: {underlay: 192.168.10.1, subnets: [10.244.1.0/24]}
  node-2: {underlay: 192.168.10.2, subnets: [10.244.2.0/24]}
meshes:
  pods: {interface: pods0}
";

/// Stands for SSH: the node is a network namespace, and what the host lets the key do is `gate`'s.
const SSH: &str = r#"#!/bin/sh
set -eu
node=${5#root@}
shift 5
SSH_ORIGINAL_COMMAND="$*" exec ip netns exec "$WORLD$node" "$GATE" "$ROLE"
"#;

/// A runner's working directory.
struct Desk {
    path: PathBuf,
    prefix: String,
}

impl Desk {
    fn new(host: &Host, name: &str) -> Self {
        let prefix = host.netns.strip_suffix(name).expect("a namespace's name");
        let path = PathBuf::from(format!("/run/{prefix}desk"));
        std::fs::create_dir_all(path.join("bin")).expect("a directory in /run");
        let ssh = path.join("bin/ssh");
        std::fs::write(&ssh, SSH).expect("a file in /run");
        std::fs::set_permissions(&ssh, PermissionsExt::from_mode(0o755)).expect("a mode");
        std::os::unix::fs::symlink(TUNNELFORM, path.join("bin/tunnelform")).expect("a link");
        Self {
            path,
            prefix: prefix.to_owned(),
        }
    }

    fn write(&self, topology: &str) {
        std::fs::write(self.path.join("fleet.yaml"), topology).expect("a file in /run");
    }

    /// Runs a script of the example with the key of a role.
    fn run(&self, script: &str, role: &str) -> Run {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gitops");
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", self.path.join("bin").display());
        let output = Command::new(examples.join(script))
            .args(["fleet.yaml", "plans"])
            .current_dir(&self.path)
            .envs([
                ("PATH", path.as_str()),
                ("ROLE", role),
                ("WORLD", &self.prefix),
            ])
            .env("GATE", examples.join("gate"))
            .output();
        Run::new(script.to_owned(), output.expect("a script runs"))
    }

    fn comment(&self) -> String {
        std::fs::read_to_string(self.path.join("plans/comment.md")).expect("a comment")
    }
}

fn from_review_to_hosts() {
    let world = World::new();
    let (one, two) = (world.host("node-1"), world.host("node-2"));
    world.cable(
        (&one, "eth0", "192.168.10.1/24"),
        (&two, "eth0", "192.168.10.2/24"),
    );
    let desk = Desk::new(&one, "node-1");
    desk.write(TOPOLOGY);
    desk.run("plan.sh", "plan").ok();
    desk.run("apply.sh", "apply").ok();
    for host in [&one, &two] {
        host.settled(TOPOLOGY);
    }

    // A change, planned on what they have.
    let faster = TOPOLOGY.replace("pods0}", "pods0, tunnel: {ttl: 64}}");
    desk.write(&faster);
    desk.run("plan.sh", "apply")
        .exits(1)
        .says("a key for apply can't do this");
    desk.run("plan.sh", "plan").ok();
    let comment = desk.comment();
    assert!(
        comment.contains("| node-1 | 0 | 1 | 0 | 0 |\n| node-2 | 0 | 1 |"),
        "{comment}"
    );
    assert!(comment.contains("ttl: inherit -> 64"), "{comment}");

    // Somebody works by hand between review and merge: no node is touched, the change is named.
    two.ip("link set pods0 mtu 1400");
    let before = (one.seen(), two.seen());
    desk.run("apply.sh", "plan")
        .exits(1)
        .says("a key for plan can't do this");
    desk.run("apply.sh", "apply")
        .exits(1)
        .says("tunnel pods0: mtu was 1480, is 1400")
        .says("node-2 can't carry out its plan")
        .says("no node was touched");
    assert_same(&one.seen(), &before.0);
    assert_same(&two.seen(), &before.1);

    two.ip("link set pods0 mtu 1480");
    desk.run("apply.sh", "apply")
        .ok()
        .says("Done: 0 created, 1 changed");
    for host in [&one, &two] {
        host.settled(&faster);
    }
    desk.run("apply.sh", "apply")
        .ok()
        .says("Nothing to do: the host is already as planned.");

    // The branch has gone on since the review.
    desk.write(&faster.replace("64", "65"));
    desk.run("apply.sh", "apply").exits(1).says("plan again");
}
