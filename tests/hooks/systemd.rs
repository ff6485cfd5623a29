//! `examples/systemd`: systemd takes the unit, and finds little that it could do besides its work.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{TUNNELFORM, examples, read, run, write};

/// Ten times what `systemd-analyze security` may call the exposure: 2.0 is the end of "OK".
const EXPOSURE: &str = "20";

/// The units, and how often each calls the binary.
const UNITS: [(&str, &str, usize); 2] = [
    (
        "tunnelform.service",
        "=/usr/local/bin/tunnelform apply /etc/tunnelform\n",
        2,
    ),
    (
        "tunnelform-watch.service",
        "=/usr/local/bin/tunnelform watch /etc/tunnelform\n",
        1,
    ),
];

/// A unit, with the binary under test.
fn unit((name, call, times): (&str, &str, usize)) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().join(name);
    let text = read(examples().join("systemd").join(name));
    assert_eq!(text.matches(call).count(), times);
    write(
        &path,
        &text.replace("/usr/local/bin/tunnelform", TUNNELFORM),
    );
    (directory, path)
}

#[test]
fn systemd_takes_the_units() {
    for described in UNITS {
        let (_directory, unit) = unit(described);
        let mut verify = Command::new("systemd-analyze");
        let verified = run(verify.args(["verify", "--man=no"]).arg(unit)).ok();
        // Of units beside it systemd may say what it likes.
        let said = verified
            .said
            .lines()
            .find(|line| line.contains(described.0));
        assert_eq!(said, None);
    }
}

#[test]
fn the_units_can_do_little_else() {
    for described in UNITS {
        let (_directory, unit) = unit(described);
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=true", "--no-pager"]);
        run(security.arg(format!("--threshold={EXPOSURE}")).arg(unit)).ok();
    }
}

/// systemd itself starts, reloads and stops them, inside the sandbox that each unit asks for.
#[test]
fn systemd_runs_the_units() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut boot = Command::new(tests.join("with-ipip"));
    boot.arg(tests.join("hooks/under-systemd"))
        .arg(TUNNELFORM)
        .arg(examples().join("systemd/tunnelform.service"))
        .arg(examples().join("systemd/tunnelform-watch.service"))
        .arg(examples().join("two-sites.yaml"))
        .env("TUNNELFORM_UML", "1")
        .env("TUNNELFORM_KERNEL_TIMEOUT", "300");
    let ran = run(&mut boot).ok();
    [
        "active\nboot: active, success\n",
        "alias tunnelform:sites",
        "reload: active, success\n",
        // What it has made outlives it, and so does the lock that others may hold.
        "stop: inactive, success\n",
        "still: to-rome",
        "still: netns-",
        "Done: 3 created, 0 changed, 0 replaced, 0 deleted.\n",
        "No changes.\n",
        "daemon: active, success, in sync: 1 tunnels",
        "daemon's CapEff:\t0000000000001000\n",
        "mended: to-rome",
        "daemon reload: active, success\n",
        "daemon stop: inactive, success\n",
        "left: to-rome",
    ]
    .into_iter()
    .fold(ran, |ran, expected| ran.says(expected));
}
