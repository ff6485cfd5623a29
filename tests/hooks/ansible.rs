//! `examples/ansible`: the playbook, run by Ansible on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Ran, TUNNELFORM, examples, python_tool, run, write, write_program};

/// What `tests/with-ipip` sets for the command that it runs.
const INSIDE: &str = "TUNNELFORM_KERNEL";

/// A place for what Ansible keeps and writes, with an inventory whose only host is this machine.
struct Controller {
    directory: tempfile::TempDir,
    binary: PathBuf,
}

impl Controller {
    fn new(binary: impl Into<PathBuf>) -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let python = python_tool("python");
        let inventory = format!(
            "[gateways]\nparis ansible_connection=local ansible_python_interpreter={}\n",
            python.display()
        );
        write(directory.path().join("inventory"), &inventory);
        write(directory.path().join("ansible.cfg"), "");
        Self {
            directory,
            binary: binary.into(),
        }
    }

    /// Where the host keeps its topology.
    fn file(&self) -> PathBuf {
        self.directory.path().join("etc/fleet.yaml")
    }

    fn play(&self, arguments: &[&str]) -> Ran {
        self.play_times(1, arguments)
    }

    /// Plays it several times, in one process: starting Ansible is what takes long.
    fn play_times(&self, times: usize, arguments: &[&str]) -> Ran {
        let mut command = Command::new(python_tool("ansible-playbook"));
        command
            .current_dir(&self.directory)
            .env("ANSIBLE_HOME", self.directory.path().join("home"))
            .env("ANSIBLE_CONFIG", self.directory.path().join("ansible.cfg"))
            .env("ANSIBLE_LOCALHOST_WARNING", "false")
            .env("LC_ALL", "C.UTF-8") // Ansible refuses any other encoding
            .args(["--inventory", "inventory"])
            // Who runs this is root already, where it matters, and sudo need not be here.
            .args(["--extra-vars", "ansible_become=false"]);
        for (name, path) in [
            ("tunnelform_file", &self.file()),
            ("tunnelform_binary", &self.binary),
        ] {
            command.arg(format!("--extra-vars={name}={}", path.display()));
        }
        let playbook = examples().join("ansible/playbook.yaml");
        command.args(std::iter::repeat_n(playbook, times));
        run(command.args(arguments))
    }
}

/// Check mode changes nothing, the first run does, the second has nothing to do.
#[test]
fn the_playbook_changes_a_host_once() {
    if std::env::var_os(INSIDE).is_none() {
        return on_a_kernel("ansible::the_playbook_changes_a_host_once");
    }
    for arguments in [
        "link add eth0 up type dummy",
        "address add 192.168.10.2/24 dev eth0",
        "route add default via 192.168.10.1",
    ] {
        ip(arguments).ok();
    }
    let controller = Controller::new(TUNNELFORM);
    let created = ["create tunnel to-rome", "create route 10.244.2.0/24"];

    let check = controller.play(&["--check", "--diff"]).ok();
    let check = check.says("changed=3 ").says("+  to-rome:");
    created.iter().fold(check, |check, line| check.says(line));
    ip("link show to-rome").ends_with(1);
    assert!(!controller.file().exists());

    let twice = controller.play_times(2, &[]).ok();
    let twice = created.iter().fold(twice, |twice, line| twice.says(line));
    // The counts of the recaps run on.
    let plays: Vec<&str> = twice.said.split("PLAY [Tunnels").collect();
    assert_eq!(plays.len(), 3, "{}", twice.said);
    assert!(plays[1].contains("changed=3 "), "{}", twice.said);
    assert!(plays[2].contains("changed=3 "), "{}", twice.said);
    assert!(!plays[2].contains("changed: ["), "{}", twice.said);
    ip("-details link show to-rome")
        .ok()
        .says("remote 192.168.20.2")
        .says("alias tunnelform:sites");
    ip("route show 10.244.2.0/24").ok().says("dev to-rome");
    assert!(controller.file().exists());
}

fn ip(arguments: &str) -> Ran {
    run(Command::new("ip").args(arguments.split(' ')))
}

/// Runs a test of this program again, on a kernel that has ipip.
fn on_a_kernel(test: &str) {
    let with_ipip = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/with-ipip");
    let this = std::env::current_exe().expect("this program has a name");
    let mut command = Command::new(with_ipip);
    command.arg(this).args(["--exact", test, "--nocapture"]);
    command.env("TUNNELFORM_KERNEL_TIMEOUT", "600");
    run(&mut command).ok().says("1 passed");
}

/// What ends with 2 without a word of JSON are wrong arguments, and with 1 a failure, whatever it has printed.
#[test]
fn the_playbook_tells_failures_from_changes() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let stub = directory.path().join("tunnelform");
    for (script, failed) in [
        ("echo 'unexpected argument' >&2; exit 2", true),
        ("echo '{\"changes\": []}'; exit 1", true),
        ("echo '{\"changes\": []}'; exit 0", false),
    ] {
        write_program(&stub, &format!("#!/bin/sh\n{script}\n"));
        let controller = Controller::new(&stub);
        let played = controller.play(&["--check"]);
        if failed {
            played.ends_with(2).says("failed=1 ");
            assert!(!controller.file().exists());
        } else {
            // The directory and the file that check mode doesn't make.
            played.ok().says("changed=2 ");
        }
    }
}
