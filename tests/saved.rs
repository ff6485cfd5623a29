//! Saved plans as a person or a pipeline meets them. Nothing here needs root or ipip: what carries them out is seen in
//! `tests/kernel`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_tunnelform");
const ONE: &str = "examples/point-to-point.yaml";
const FLEET: &str = "\
name: pods
nodes:
  node-1: {underlay: 203.0.113.1, subnets: [10.244.1.0/24]}
  node-2: {underlay: 203.0.113.2, subnets: [10.244.2.0/24]}
  node-3: {underlay: 203.0.113.3}
meshes:
  pods: {interface: pods0, members: [node-1, node-2]}
";

/// A directory that is gone when the test is.
struct Desk(TempDir);

/// The arguments that save a plan.
fn saving<'a>(against: &'a str, out: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    let save = ["apply", "--dry-run", "--against", against, "--out", out];
    [&save, rest].concat()
}

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory can be made"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).expect("a file can be written");
        path
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("there's a file")
    }

    fn names(&self) -> Vec<String> {
        names(self.0.path())
    }

    /// A plan of the one host, against a host that has nothing.
    fn plan(&self) -> String {
        let path = self.path("plan.json");
        let save = saving("empty", &path, &[ONE]);
        run(&save).exits(0);
        path
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("there's a directory");
    let names = entries.map(|entry| entry.expect("it can be read").file_name());
    let mut names: Vec<String> = names
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn new(output: Output) -> Self {
        Self {
            code: output.status.code().expect("tunnelform isn't killed"),
            out: String::from_utf8(output.stdout).expect("standard output is text"),
            err: String::from_utf8(output.stderr).expect("standard error is text"),
        }
    }

    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        self
    }

    #[track_caller]
    fn says(self, expected: &str) -> Self {
        assert!(
            self.err.contains(expected),
            "no {expected:?} in {}",
            self.err
        );
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).expect("standard output is JSON")
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("NO_COLOR")
        .env_remove("TUNNELFORM_NODE")
        .args(arguments);
    command
}

fn run(arguments: &[&str]) -> Ran {
    Ran::new(command(arguments).output().expect("tunnelform runs"))
}

fn run_with(arguments: &[&str], stdin: &str) -> Ran {
    let output = command(arguments).write_stdin(stdin).output();
    Ran::new(output.expect("tunnelform runs"))
}

/// On this very machine: the plan shown, saved, shown again and tried.
#[test]
fn shows_what_the_dry_run_showed() {
    let desk = Desk::new();
    let file = desk.path("plan.json");
    let dry = run(&["apply", "--dry-run", "--out", &file, ONE]).exits(0);
    let dry = dry.says(&format!(
        "note: the plan is saved: `tunnelform apply {file}`"
    ));
    let shown = run(&["show", &file]).exits(0);
    let (title, text) = shown.out.split_once('\n').expect("a title");
    assert_eq!(text, dry.out);
    for part in [
        "plan for left on ",
        ", made at 2",
        "Z by tunnelform 0",
        " from the topology sha256:",
    ] {
        assert!(title.contains(part), "{title}");
    }
    let document = run(&["apply", "--dry-run", "--output", "json", ONE]).json();
    assert_eq!(run(&["show", "--output", "json", &file]).json(), document);
    let markdown = run(&["show", "--output", "markdown", &file]).exits(0).out;
    assert!(
        markdown.contains("\n| left | 3 | 0 | 0 | 0 |\n"),
        "{markdown}"
    );
    assert!(
        markdown.contains("\n+ address 10.10.100.1/24 on tun1\n"),
        "{markdown}"
    );

    let tried = run(&["apply", "--dry-run", "--detailed-exitcode", &file]).exits(2);
    assert_eq!(tried.out, dry.out);
    let text = desk.read("plan.json");
    assert_eq!(
        run_with(&["apply", "--dry-run", "-"], &text).exits(0).out,
        dry.out
    );
    assert_eq!(run_with(&["show", "-"], &text).exits(0).out, shown.out);
}

#[test]
fn a_file_that_was_changed_is_refused() {
    let desk = Desk::new();
    let plan = desk.plan();
    let text = desk.read("plan.json");
    let version = concat!("\"", env!("CARGO_PKG_VERSION"), "\"");
    for (from, to, message) in [
        (
            "\"ttl\":64",
            "\"ttl\":63",
            "it was changed after it was made, as its digest tells",
        ),
        (
            "\"prune\":true",
            "\"prune\":false",
            "it was changed after it was made",
        ),
        (
            version,
            "\"99.0.0\"",
            "tunnelform \"99.0.0\" made it, and this is",
        ),
        (
            "_plan\":1",
            "_plan\":2",
            "its tunnelform_saved_plan is 2, and this release knows 1",
        ),
        ("\"goal\"", "goal", "line "),
    ] {
        let edited = text.replacen(from, to, 1);
        assert_ne!(edited, text);
        let file = desk.write("edited.json", &edited);
        for command in [
            &["apply", &file][..],
            &["apply", "--dry-run", &file],
            &["show", &file],
        ] {
            let ran = run(command)
                .exits(1)
                .says("can't use the saved plan")
                .says(message);
            assert_eq!(ran.out, "");
        }
    }
    let half = desk.write("half.json", &text[..text.len() / 2]);
    run(&["apply", &half])
        .exits(1)
        .says("it's no whole JSON document");
    // Another order and other white space mean the same.
    let other: Value = serde_json::from_str(&text).expect("JSON");
    let other = desk.write("other.json", &other.to_string());
    assert_eq!(
        run(&["show", &other]).exits(0).out,
        run(&["show", &plan]).out
    );
}

#[test]
fn a_plan_and_a_topology_are_told_apart() {
    let desk = Desk::new();
    let plan = desk.plan();
    run(&["validate", &plan]).exits(1);
    for arguments in [
        &["destroy", &plan][..],
        &["render", &plan],
        &["graph", &plan],
        &["diff", &plan, ONE],
    ] {
        run(arguments)
            .exits(1)
            .says("is a saved plan and no topology");
    }
    let json = run(&["render", "--output", "json", ONE]).exits(0).out;
    let topology = desk.write("hq.json", &json);
    let planned = run(&["apply", "--dry-run", "--against", "empty", &topology]).exits(0);
    assert!(planned.out.contains("Plan: 3 to create"), "{}", planned.out);
    run(&["show", &topology]).exits(1).says("is no saved plan");
    run(&["show", "examples/directory"])
        .exits(1)
        .says("is no saved plan");
    run(&["show", "/nowhere"])
        .exits(1)
        .says("can't read /nowhere");
}

#[test]
fn flags_that_would_make_another_plan_are_refused() {
    let desk = Desk::new();
    let plan = desk.plan();
    let out = desk.path("again.json");
    for (flag, rest) in [
        ("--adopt", &[][..]),
        ("--no-prune", &[]),
        ("--against", &["empty", "--dry-run"]),
        ("--out", &[&out, "--dry-run"]),
    ] {
        let arguments = [&["apply", &plan, flag], rest].concat();
        let message = format!("is a saved plan, carried out as it is: {flag} goes with a topology");
        run(&arguments).exits(1).says(&message);
    }
    run(&["apply", "--out", &out, ONE])
        .exits(2)
        .says("--dry-run");
    run(&["destroy", "--out", &out, ONE])
        .exits(2)
        .says("--dry-run");
    run(&["show", "--output", "json", &plan, &plan])
        .exits(1)
        .says("one PLAN at a time");
    assert_eq!(desk.names(), ["plan.json"]);
}

/// A plan for a node is for no other, whoever says so.
#[test]
fn another_node_refuses_the_plan() {
    let desk = Desk::new();
    let fleet = desk.write("fleet.yaml", FLEET);
    let plan = desk.path("plan.json");
    let save = saving("empty", &plan, &["--node", "node-2", &fleet]);
    let planned = run(&save).exits(0);
    let tried = ["apply", "--dry-run", &plan];
    run(&tried)
        .exits(1)
        .says("the plan is for the node node-2: this host is called ")
        .says("hasn't that node's underlay address 203.0.113.2");
    let message = "the plan is for the node node-2, and this one is said to be node-1";
    run(&[&tried[..], &["--node", "node-1"]].concat())
        .exits(1)
        .says(message);
    let output = command(&tried).env("TUNNELFORM_NODE", "node-1").output();
    Ran::new(output.expect("tunnelform runs"))
        .exits(1)
        .says(message);
    let itself = run(&[&tried[..], &["--node", "node-2"]].concat()).exits(0);
    // This host may have a default route, from which the blackhole takes packets.
    let itself = itself.out.replace("  (traffic: stops)", "");
    assert_eq!(itself, planned.out);
    run(&["apply", "--dry-run", "--node", "node-2", &desk.plan()])
        .exits(1)
        .says("the plan is for one host, not for a node");
}

#[test]
fn every_node_that_changes_gets_its_file() {
    let desk = Desk::new();
    let fleet = desk.write("fleet.yaml", FLEET);
    let plans = desk.path("plans");
    let save = saving("empty", &plans, &["--all-nodes", &fleet]);
    let ran = run(&save)
        .exits(0)
        .says("has no plan for what doesn't change: the nodes are node-3");
    assert!(!ran.err.contains("another time"), "{}", ran.err);
    let plans = Path::new(&plans);
    assert_eq!(names(plans), ["node-1.json", "node-2.json"]);
    fs::copy(plans.join("node-1.json"), plans.join("node-3.json")).expect("a copy");
    run(&save)
        .exits(0)
        .says("node-3.json was made another time");
    assert_eq!(names(plans), ["node-1.json", "node-2.json", "node-3.json"]);

    let files = ["node-1.json", "node-2.json"].map(|name| plans.join(name).display().to_string());
    let markdown = run(&["show", "--output", "markdown", &files[0], &files[1]])
        .exits(0)
        .out;
    for part in [
        "### tunnelform: pods\n",
        "| node-1 | 4 | 0 | 0 | 0 |\n| node-2 | 4 | 0 | 0 | 0 |\n",
        "8 to create",
    ] {
        assert!(markdown.contains(part), "{markdown}");
    }
    let text = run(&["show", &files[0], &files[1]]).exits(0).out;
    assert!(
        text.contains("\n\nplan for node-2 of pods, made at"),
        "{text}"
    );
}

/// One node's state has what is in the way: it gets no file, the others do, and the exit code says so.
#[test]
fn a_plan_with_conflicts_is_not_saved() {
    let desk = Desk::new();
    let fleet = desk.write("fleet.yaml", FLEET);
    let states = desk.0.path().join("states");
    fs::create_dir(&states).expect("a directory");
    let device = "{index: 2, kind: bridge, mtu: 1500, up: true, alias: '', group: 0}";
    for (node, devices) in [
        ("node-1", format!("{{pods0: {device}}}")),
        ("node-2", "{}".into()),
        ("node-3", "{}".into()),
    ] {
        let state = format!(
            "{{format_version: 1, tunnelform_version: x, marks_addresses: true, devices: {devices}, tunnels: {{}}, \
             addresses: [], routes: []}}"
        );
        fs::write(states.join(format!("{node}.yaml")), state).expect("a file");
    }
    let states = states.display().to_string();
    let plans = desk.path("plans");
    let all = saving(&states, &plans, &["--all-nodes", &fleet]);
    run(&all).exits(1).says("conflicts on 1 node");
    assert_eq!(names(Path::new(&plans)), ["node-2.json"]);
    let state = format!("{states}/node-1.yaml");
    let file = desk.path("plan.json");
    let one = saving(&state, &file, &["--node", "node-1", &fleet]);
    run(&one)
        .exits(1)
        .says("nothing would be changed: not ours: tunnel pods0");
    assert!(!Path::new(&file).exists());
}

/// What is there stays whole until the new plan is.
#[test]
fn a_file_is_written_whole_or_not_at_all() {
    let desk = Desk::new();
    let plan = desk.plan();
    let old = desk.read("plan.json");
    let save = saving("empty", &plan, &[ONE]);
    // A disk with room for 512 bytes. Without the trap the signal would end the program.
    let full = format!(
        "trap '' XFSZ; ulimit -f 1; exec {BINARY} {}",
        save.join(" ")
    );
    let output = Command::new("sh")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["-c", &full])
        .output();
    Ran::new(output.expect("sh runs"))
        .exits(1)
        .says("can't write")
        .says("too large");
    assert_eq!(desk.read("plan.json"), old);
    assert_eq!(desk.names(), ["plan.json"]);

    run(&save).exits(0);
    assert_eq!(desk.names(), ["plan.json"]);
    let mode = |name: &str| {
        fs::metadata(desk.path(name))
            .expect("a file")
            .permissions()
            .mode()
    };
    desk.write("as-usual", "");
    assert_eq!(mode("plan.json"), mode("as-usual"));

    for (file, message) in [
        (
            "/dev/null",
            "can't write /dev/null: it's not a regular file",
        ),
        ("/dev/full", "it's not a regular file"),
        (&desk.path(""), "it's not a regular file"),
        (
            &desk.write("hq.yaml", "name: hq"),
            "what is there is no saved plan, and isn't overwritten",
        ),
        (&desk.path("nowhere/plan.json"), "No such file or directory"),
    ] {
        let save = saving("empty", file, &[ONE]);
        run(&save).exits(1).says(message);
    }
    // What a link leads to becomes the plan.
    let link = desk.path("link");
    std::os::unix::fs::symlink(&plan, &link).expect("a link");
    let before = desk.read("plan.json");
    run(&saving("empty", &link, &["examples/router.yaml"])).exits(0);
    assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
    assert_ne!(desk.read("plan.json"), before);
}

/// The topology's digest is what `sha256sum` says.
#[test]
fn a_plan_says_which_topology_it_is_of() {
    let desk = Desk::new();
    let file = desk.path("plan.json");
    let digest = |topology: &str| {
        let save = saving("empty", &file, &[topology]);
        run(&save).exits(0);
        let saved: Value = serde_json::from_str(&desk.read("plan.json")).expect("JSON");
        saved["origin"]["topology_digest"]
            .as_str()
            .expect("a digest")
            .to_owned()
    };
    let sum = |script: &str| {
        let output = Command::new("sh")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["-c", script])
            .output();
        let out = Ran::new(output.expect("sh runs")).exits(0).out;
        format!("sha256:{}", out.split(' ').next().unwrap_or_default())
    };
    assert_eq!(digest(ONE), sum(&format!("sha256sum {ONE}")));
    let directory = "cd examples/directory && sha256sum *.yaml | sha256sum";
    assert_eq!(digest("examples/directory"), sum(directory));
}
