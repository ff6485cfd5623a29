//! One run at a time in a network namespace.

use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::world::{Host, Run, TUNNELFORM, World, trials, wait_until};

trials![
    waits_and_goes_on,
    gives_up,
    two_at_once,
    each_namespace_its_own,
    dry_run_and_status_do_not_wait
];

const FILE: &str = "version: 1\nname: hq\ntunnels: {tun1: {local: 192.168.10.2, remote: 192.168.20.2, addresses: [10.10.100.1/24]}}\n";

/// Where the locks of a test are. On the new /run: the host's own file systems know no locks of ours.
fn run_directory() -> TempDir {
    tempfile::tempdir_in("/run").expect("a directory for locks")
}

fn command(directory: &TempDir, host: &Host, arguments: &[&str]) -> Command {
    let mut command = Command::new(TUNNELFORM);
    command
        .env("TUNNELFORM_RUN_DIR", directory.path())
        .args(arguments)
        .args(["--netns", &host.netns]);
    command
}

fn start(mut command: Command) -> Child {
    use std::io::Write;
    let streams = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = streams.spawn().expect("tunnelform starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    pipe.write_all(FILE.as_bytes()).expect("tunnelform reads");
    child
}

fn end(child: Child) -> Run {
    Run::new(
        "tunnelform".into(),
        child.wait_with_output().expect("tunnelform ends"),
    )
}

/// Somebody else who holds the lock, until the value goes.
struct Holder(std::fs::File);

fn hold(directory: &TempDir, host: &Host) -> Holder {
    let namespace = std::fs::metadata(format!("/run/netns/{}", host.netns)).expect("the namespace");
    let name = format!("netns-{}-{}.lock", namespace.dev(), namespace.ino());
    let file = std::fs::File::create(directory.path().join(name)).expect("the lock file");
    file.lock().expect("the lock");
    Holder(file)
}

/// Whether a process waits for something on this lock: it has the lock's file open.
fn has_open(child: &Child, directory: &TempDir) -> bool {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", child.id()));
    let mut targets = descriptors
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.any(|target| target.starts_with(directory.path()))
}

/// A run waits while another holds the lock, changes nothing meanwhile, and goes on afterwards.
fn waits_and_goes_on() {
    let world = World::new();
    let (host, directory) = (world.lone(), run_directory());
    let holder = hold(&directory, &host);
    let mut waiting = start(command(&directory, &host, &["apply", "-"]));
    wait_until("the run comes to the lock", || {
        has_open(&waiting, &directory)
    });
    assert!(host.seen().tunnels().is_empty());
    assert!(waiting.try_wait().expect("its state").is_none());
    drop(holder.0);
    end(waiting).ok().says("Done: 2 created");
}

/// `--lock-timeout` bounds the wait: exit code 1, and the message says what is going on.
fn gives_up() {
    let world = World::new();
    let (host, directory) = (world.lone(), run_directory());
    let _holder = hold(&directory, &host);
    for (seconds, least) in [("0", 0), ("1", 1)] {
        let begin = Instant::now();
        let run = end(start(command(
            &directory,
            &host,
            &["apply", "-", "--lock-timeout", seconds],
        )));
        run.exits(1)
            .says("another tunnelform is at work")
            .says("lock");
        assert!(begin.elapsed() >= Duration::from_secs(least));
    }
    assert!(host.seen().tunnels().is_empty());
    end(start(command(
        &directory,
        &host,
        &["destroy", "-", "--lock-timeout", "0"],
    )))
    .exits(1)
    .says("another tunnelform");
}

/// Several that start at once all succeed: one does the work, the others find it done.
fn two_at_once() {
    let world = World::new();
    let (host, directory) = (world.lone(), run_directory());
    let runs: Vec<Child> = (0..4)
        .map(|_| {
            start(command(
                &directory,
                &host,
                &["apply", "-", "--detailed-exitcode"],
            ))
        })
        .collect();
    let mut codes: Vec<i32> = runs.into_iter().map(|child| end(child).code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 0, 0, 2]);
    host.settled(FILE);
}

/// A run in another namespace doesn't wait.
fn each_namespace_its_own() {
    let world = World::new();
    let (host, other, directory) = (world.lone(), world.lone_as("other"), run_directory());
    let _holder = hold(&directory, &host);
    end(start(command(
        &directory,
        &other,
        &["apply", "-", "--lock-timeout", "0"],
    )))
    .ok();
}

/// Whoever only looks needs no lock.
fn dry_run_and_status_do_not_wait() {
    let world = World::new();
    let (host, directory) = (world.lone(), run_directory());
    let _holder = hold(&directory, &host);
    end(start(command(
        &directory,
        &host,
        &["apply", "-", "--dry-run", "--lock-timeout", "0"],
    )))
    .ok();
    end(start(command(&directory, &host, &["status", "-"]))).ok();
}
