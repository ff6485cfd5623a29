//! The program as a person or a script meets it: arguments, streams, exit codes. Nothing here needs root or ipip.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_tunnelform");
const COMMANDS: [&str; 15] = [
    "validate",
    "apply",
    "destroy",
    "status",
    "probe",
    "watch",
    "doctor",
    "diff",
    "show",
    "render",
    "graph",
    "export",
    "schema",
    "completions",
    "man",
];
const GOOD: &str = "name: t\ntunnels: {tun1: {local: 192.0.2.1, remote: 192.0.2.2}}\n";
const BAD: &str = "name: t\ntunnels: {tun1: {local: 192.0.2.1, ttl: 300, mut: 5}}\n";
const ESCAPE: u8 = 0x1b;

fn tunnelform<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("NO_COLOR")
        .args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    tunnelform(arguments).output().expect("tunnelform runs")
}

fn run_with(arguments: &[&str], stdin: impl Into<Vec<u8>>) -> Output {
    let output = tunnelform(arguments).write_stdin(stdin.into()).output();
    output.expect("tunnelform runs")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("tunnelform isn't killed")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("standard output is text")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("standard error is text")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("standard output is JSON")
}

/// A file that is gone when the directory is.
fn file(content: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().join("hq.yaml");
    fs::write(&path, content).expect("a file can be written");
    (directory, path)
}

fn examples() -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let entries = fs::read_dir(directory).expect("there are examples");
    let names = entries.map(|entry| entry.expect("an example can be read").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".yaml")).collect();
    assert!(names.len() >= 10, "{names:?}");
    names.push("directory".to_owned());
    names
}

#[test]
fn every_command_describes_itself() {
    let help = out(&run(&["--help"]));
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    let mut seen = 0;
    for line in commands.filter(|line| line.starts_with("  ") && !line.starts_with("    ")) {
        let (name, about) = line.trim().split_once(' ').expect("a description");
        if name != "help" {
            let own = out(&run(&[name, "-h"]));
            assert!(own.starts_with(about.trim()), "{name}: {about}\n{own}");
            seen += 1;
        }
    }
    assert!(seen > 10, "{help}");
}

/// What a run leaves for whoever takes it back, and nobody else writes.
#[test]
fn inherits_nothing_that_makes_no_sense() {
    for (will, said) in [
        ("--will=99", "/proc/self/fd/99: No such file or directory"),
        ("--will=-1", "/proc/self/fd/-1: No such file or directory"),
        ("--will=0", "/proc/self/fd/0 isn't what this release"),
    ] {
        let output = run(&["inherit", will]);
        assert_eq!(code(&output), 1);
        assert!(err(&output).contains(said), "{}", err(&output));
    }
}

#[test]
fn validates_every_example_without_a_warning() {
    for name in examples() {
        let output = run(&["validate", &format!("examples/{name}")]);
        assert_eq!(code(&output), 0, "{}", err(&output));
        assert_eq!(err(&output), "", "{name}");
        assert!(out(&output).starts_with(&format!("examples/{name}: valid (")));
    }
}

#[test]
fn validate_says_what_is_in_a_valid_file() {
    let output = run_with(&["validate", "-"], GOOD);
    assert_eq!(code(&output), 0);
    assert_eq!(
        out(&output),
        "<stdin>: valid (1 tunnel, 0 addresses, 0 routes)\n"
    );
    assert_eq!(err(&output), "");
    let warned = format!("{GOOD}routes: [{{to: 10.0.0.0/8, via: 10.1.0.1}}]\n");
    let output = run_with(&["validate", "-"], warned);
    assert_eq!(code(&output), 0);
    assert_eq!(
        out(&output),
        "<stdin>: valid (1 tunnel, 0 addresses, 1 route), 1 warning\n"
    );
    assert!(
        err(&output).contains("--> <stdin>:3:32"),
        "{}",
        err(&output)
    );
}

#[test]
fn validate_shows_every_problem_and_fails() {
    let (_directory, path) = file(BAD);
    let output = tunnelform(&[Path::new("validate"), &path])
        .output()
        .expect("runs");
    assert_eq!(code(&output), 1);
    assert_eq!(out(&output), "");
    let text = err(&output);
    for expected in [
        "expected `inherit` or a number from 1 to 255, found the number 300",
        "hq.yaml:2:41",
        "unknown key \"mut\"",
        "did you mean `mtu`?",
        "hq.yaml has 2 errors",
    ] {
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn validate_reports_to_machines() {
    let output = run_with(&["validate", "--output", "json", "-"], BAD);
    assert_eq!(code(&output), 1);
    assert_eq!(err(&output), "");
    let report = json(&output);
    assert_eq!(report["format_version"], 1);
    assert_eq!(report["valid"], false);
    let problems = report["problems"].as_array().expect("problems are a list");
    assert_eq!(problems.len(), 2);
    assert_eq!(problems[0]["severity"], "error");
    assert_eq!(problems[0]["file"], "<stdin>");
    assert_eq!(problems[0]["line"], 2);
    assert_eq!(problems[0]["column"], 41);
    assert_eq!(problems[1]["help"], "did you mean `mtu`?");
    let report = json(&run_with(&["validate", "--output", "json", "-"], GOOD));
    assert_eq!(report["valid"], true);
    assert_eq!(report["problems"], Value::Array(vec![]));
}

/// As a hook gives them: several files, each by itself, and none hides what is wrong with another.
#[test]
fn validate_takes_several_files() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = |name: &str, content: &str| {
        let path = directory.path().join(name);
        fs::write(&path, content).expect("the file can be written");
        path.display().to_string()
    };
    let (good, bad) = (path("good.yaml", GOOD), path("bad.yaml", BAD));
    let other = path("other.yaml", GOOD);
    let missing = directory.path().join("missing.yaml").display().to_string();

    let output = run(&["validate", &good, &other]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(out(&output).lines().count(), 2);

    let output = run(&["validate", &bad, &missing, &good]);
    assert_eq!(code(&output), 1);
    assert!(out(&output).starts_with(&format!("{good}: valid (")));
    for expected in ["bad.yaml has 2 errors", "missing.yaml: No such file"] {
        assert!(err(&output).contains(expected), "{}", err(&output));
    }

    let output = run(&["validate", "--output", "json", &bad, &good, &bad]);
    assert_eq!(code(&output), 1);
    let report = json(&output);
    assert_eq!(report["valid"], false);
    assert_eq!(report["problems"].as_array().map(Vec::len), Some(4));
}

/// What a pipeline compares a new fleet with is a file without anything, which is none of its nodes.
#[test]
fn an_empty_file_is_no_node() {
    let fleet = "examples/two-sites.yaml";
    let output = run_with(&["diff", "-", fleet], "name: sites\n");
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("2 of 2 nodes would change"));
    // A host of its own is one.
    let output = run_with(
        &["diff", "-", fleet],
        GOOD.replace("name: t", "name: sites"),
    );
    assert!(out(&output).contains("3 of 3 nodes would change"));
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let missing = directory.path().join("missing.yaml");
    for (path, expected) in [
        (missing.as_path(), "No such file or directory"),
        (directory.path(), "and it has none"),
    ] {
        for command in ["validate", "apply", "destroy", "status"] {
            let output = tunnelform(&[Path::new(command), path])
                .output()
                .expect("runs");
            assert_eq!(code(&output), 1, "{command}");
            let text = err(&output);
            assert!(text.starts_with("error: can't read "), "{text}");
            assert!(text.contains(expected), "{text}");
            assert!(text.contains(&*path.to_string_lossy()), "{text}");
        }
    }
}

#[test]
fn a_file_that_is_no_text_is_refused_at_its_place() {
    let output = run_with(&["validate", "-"], b"name: t\n# \xff\n".as_slice());
    assert_eq!(code(&output), 1);
    let text = err(&output);
    assert!(
        text.contains("expected UTF-8 text, found the byte 0xff"),
        "{text}"
    );
    assert!(text.contains("<stdin>:2:3"), "{text}");
    // UTF-16, as some editors save.
    let output = run_with(
        &["validate", "--output", "json", "-"],
        b"\xff\xfen\0a\0".as_slice(),
    );
    assert_eq!(json(&output)["problems"][0]["line"], 1);
}

/// A 100 MB line and 200 KB of brackets end quickly, with little memory and a short message.
#[test]
fn hostile_files_end_quickly() {
    let line = format!("name: {}\n", "x".repeat(100 << 20));
    for (source, expected) in [
        (line, "this line has 104857606 bytes"),
        ("[".repeat(200_000), "nested more than 32 levels"),
    ] {
        let (_directory, path) = file(source);
        let started = Instant::now();
        let output = Command::new("sh")
            .args([
                "-c",
                "ulimit -v 1000000; exec \"$0\" validate \"$1\"",
                BINARY,
            ])
            .arg(&path)
            .output()
            .expect("a shell runs");
        assert_eq!(code(&output), 1, "{}", err(&output));
        let text = err(&output);
        assert!(text.contains(expected), "{text}");
        assert!(text.len() < 2_000, "{} bytes", text.len());
        let took = started.elapsed();
        assert!(took < Duration::from_secs(30), "{took:?}");
    }
}

#[test]
fn nothing_from_a_file_drives_the_terminal() {
    let sources = [
        "name: \"\\e[2J\"\n".to_owned(),
        "name: t # \u{1b}[2J\nfoo: 1\n".to_owned(),
        "name: t\ntunnels: {\"a\\e[2J\": {}}\n".to_owned(),
        "name: t\n\"\\e[2J\": 1\n".to_owned(),
    ];
    for source in sources {
        let output = run_with(&["validate", "-"], source.clone());
        assert_eq!(code(&output), 1, "{source:?}");
        assert!(!output.stderr.contains(&ESCAPE), "{source:?}");
    }
    let output = run(&["validate", "a\u{1b}[2J.yaml"]);
    assert!(!output.stderr.contains(&ESCAPE));
}

#[test]
fn colours_only_where_they_are_wanted() {
    let colored = |arguments: &[&str], no_color: Option<&str>| {
        let mut command = tunnelform(arguments);
        if let Some(value) = no_color {
            command.env("NO_COLOR", value);
        }
        let output = command.write_stdin(BAD).output().expect("tunnelform runs");
        output.stderr.contains(&ESCAPE) || output.stdout.contains(&ESCAPE)
    };
    assert!(!colored(&["validate", "-"], None));
    assert!(!colored(&["validate", "-"], Some("1")));
    assert!(!colored(&["--color", "never", "validate", "-"], None));
    assert!(colored(&["--color", "always", "validate", "-"], None));
    assert!(colored(&["validate", "--color", "always", "-"], Some("1")));
    let plan = |color: &str| run(&["apply", "--dry-run", "--color", color, "examples/ecmp.yaml"]);
    assert!(plan("always").stdout.contains(&ESCAPE));
    assert!(!plan("auto").stdout.contains(&ESCAPE));
}

/// `tunnelform … | head -1`: the reader has gone away before everything is written.
#[test]
fn a_closed_pipe_is_no_failure() {
    for arguments in [
        &["schema"][..],
        &["man"],
        &["completions", "bash"],
        &["--help"],
        &["validate", "examples/ecmp.yaml"],
        &[
            "apply",
            "--dry-run",
            "--against",
            "empty",
            "examples/ecmp.yaml",
        ],
        &["graph", "examples/ecmp.yaml"],
    ] {
        let mut child = std::process::Command::new(BINARY)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tunnelform runs");
        drop(child.stdout.take());
        let mut text = String::new();
        let mut stderr = child.stderr.take().expect("standard error is a pipe");
        stderr
            .read_to_string(&mut text)
            .expect("standard error is text");
        let status = child.wait().expect("tunnelform ends");
        assert!(!text.contains("panicked"), "{arguments:?}: {text}");
        assert!(status.success(), "{arguments:?}: {status}: {text}");
    }
}

#[test]
fn a_dry_run_plans_without_root() {
    let output = run(&["apply", "--dry-run", "examples/point-to-point.yaml"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let text = out(&output);
    for expected in [
        "  + tunnel tun1  ipip local 192.168.10.2 remote 192.168.20.2 ttl 64",
        "  + address 10.10.100.1/24 on tun1",
        "  + route 10.244.2.0/24  dev tun1",
        "Plan: 3 to create, 0 to change, 0 to replace, 0 to delete.",
    ] {
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn a_dry_run_says_by_its_exit_code_whether_there_are_changes() {
    let changes = ["apply", "--dry-run", "--detailed-exitcode", "-"];
    assert_eq!(code(&run_with(&changes, GOOD)), 2);
    assert_eq!(code(&run_with(&changes, "name: empty\n")), 0);
    assert_eq!(code(&run_with(&changes, BAD)), 1);
    assert_eq!(code(&run_with(&["apply", "--dry-run", "-"], GOOD)), 0);
    let destroy = [
        "destroy",
        "--dry-run",
        "--detailed-exitcode",
        "--owner",
        "nobody",
    ];
    assert_eq!(code(&run(&destroy)), 0);
}

/// A list beside the topology is read for every command, and nothing else is.
#[test]
fn routes_come_from_a_file_beside_the_topology() {
    let (directory, path) = file("name: t\nroutes: {file: lists/r.txt, device: eth0}\n");
    let lists = directory.path().join("lists");
    let list = lists.join("r.txt");
    fs::create_dir(&lists).expect("a directory can be made");
    fs::write(&list, "10.1.0.0/16\n10.2.0.0/16 metric 7\n").expect("a file can be written");
    let path = path.to_str().expect("its name is text");
    let output = run(&["validate", path]);
    assert!(
        out(&output).contains("valid (0 tunnels, 0 addresses, 2 routes)"),
        "{}",
        err(&output)
    );
    let rendered = out(&run(&["render", path]));
    assert!(
        rendered.contains("metric: 7") && !rendered.contains("file:"),
        "{rendered}"
    );
    let plan = out(&run(&["apply", "--dry-run", "--against", "empty", path]));
    assert!(
        plan.contains("+ route 10.2.0.0/16 metric 7  dev eth0"),
        "{plan}"
    );
    let (_other, old) = file("name: t\nroutes: [{to: 10.1.0.0/16, device: eth0}]\n");
    let diff = out(&run(&["diff", old.to_str().expect("text"), path]));
    assert!(
        diff.contains("Plan: 1 to create, 0 to change, 0 to replace, 0 to delete."),
        "{diff}"
    );
    fs::write(&list, "10.1.0.0/16\n  10.2.0.1/16\n").expect("a file can be written");
    let output = run(&["validate", "--output", "json", path]);
    let problem = &json(&output)["problems"][0];
    assert_eq!(
        (problem["line"].as_u64(), problem["column"].as_u64()),
        (Some(2), Some(3))
    );
    assert_eq!(problem["file"].as_str(), list.to_str());
}

/// As a ConfigMap is mounted: links to links, in the same directory.
#[test]
fn a_list_may_be_a_link_that_stays_in_the_directory() {
    let (directory, path) = file("name: t\nroutes: {file: list, device: eth0}\n");
    let here = directory.path();
    let made = fs::create_dir(here.join("..2026"));
    made.expect("a directory can be made");
    fs::write(here.join("..2026/list"), "10.1.0.0/16\n").expect("a file can be written");
    for (link, target) in [("..data", "..2026"), ("list", "..data/list")] {
        std::os::unix::fs::symlink(target, here.join(link)).expect("a link can be made");
    }
    let output = run(&["validate", path.to_str().expect("text")]);
    assert_eq!(code(&output), 0, "{}", err(&output));
}

/// Whatever the name leads to, the answer comes at once and stands at the name.
#[test]
fn a_list_that_is_no_file_is_refused() {
    let (directory, path) = file("name: t\nroutes: {file: list, device: eth0}\n");
    let list = directory.path().join("list");
    let refuses = |why: &str| {
        let output = tunnelform(&["validate".as_ref(), path.as_os_str()])
            .timeout(Duration::from_secs(60))
            .output()
            .expect("tunnelform runs");
        assert_eq!(code(&output), 1, "{}", out(&output));
        let told = err(&output);
        assert!(
            told.contains(why) && told.contains("hq.yaml:2:16"),
            "{why}: {told}"
        );
    };
    refuses("can't read list: No such file");
    fs::create_dir(&list).expect("a directory can be made");
    refuses("can't read list: not a regular file");
    fs::remove_dir(&list).expect("it can be deleted");
    for (target, why) in [
        ("/dev/zero", "leads out of the topology's directory"),
        ("/etc/hostname", "leads out of the topology's directory"),
        (
            "../../etc/hostname",
            "leads out of the topology's directory",
        ),
        ("list", "symbolic link"),
    ] {
        std::os::unix::fs::symlink(target, &list).expect("a link can be made");
        refuses(why);
        fs::remove_file(&list).expect("it can be deleted");
    }
    let made = std::process::Command::new("mkfifo").arg(&list).status();
    assert!(made.expect("mkfifo runs").success());
    refuses("can't read list: not a regular file");
    fs::remove_file(&list).expect("it can be deleted");
    fs::write(&list, b"\xff\n").expect("a file can be written");
    let told = err(&run(&["validate", path.to_str().expect("text")]));
    assert!(
        told.contains("expected UTF-8 text") && told.contains("/list:1:1"),
        "{told}"
    );
}

#[test]
fn a_plan_has_three_forms() {
    let file = "examples/point-to-point.yaml";
    let plan = json(&run(&["apply", "--dry-run", "--output", "json", file]));
    assert_eq!(plan["owner"], "left");
    assert_eq!(plan["counts"]["create"], 3);
    let diff = out(&run(&["apply", "--dry-run", "--diff", file]));
    assert!(diff.starts_with("--- observed\n+++ desired\n"), "{diff}");
    assert!(diff.contains("\n+  tun1:\n"), "{diff}");
    let both = run(&["apply", "--dry-run", "--diff", "--output", "json", file]);
    assert_eq!(code(&both), 2);
}

const DRAWN: &str = "\
name: fleet
nodes:
  berlin: {underlay: 198.51.100.1/24, subnets: [10.1.0.0/16], tunnels: {\"a<b>&\": {remote: 203.0.113.9}}}
  tokyo: {underlay: 192.0.2.1, subnets: [10.2.0.0/16]}
meshes:
  pods: {interface: tunl1}
";

#[test]
fn draws_a_fleet_and_every_example() {
    for (format, start, escaped) in [
        (
            "svg",
            "<svg xmlns=\"http://www.w3.org/2000/svg\"",
            "a&lt;b&gt;&amp;",
        ),
        ("dot", "graph \"fleet\" {\n", "a<b>&amp;"),
        ("mermaid", "%% fleet: 2 nodes", "a#60;b#62;#38;"),
    ] {
        let output = run_with(&["graph", "--format", format, "-"], DRAWN);
        assert_eq!(code(&output), 0, "{}", err(&output));
        let text = out(&output);
        assert!(text.starts_with(start), "{text}");
        for expected in ["berlin", "10.2.0.0/16", "pods", "192.0.2.0/24 ?", escaped] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let again = run_with(&["graph", "--format", format, "-"], DRAWN);
        assert_eq!(text, out(&again), "the same file, the same bytes");
        for name in examples() {
            let output = run(&["graph", "--format", format, &format!("examples/{name}")]);
            assert_eq!(code(&output), 0, "{name}: {}", err(&output));
        }
    }
    let svg = out(&run_with(&["graph", "-"], DRAWN));
    assert!(roxmltree::Document::parse(&svg).is_ok(), "{svg}");
    assert_eq!(code(&run_with(&["graph", "-"], BAD)), 1);
}

/// As one picture of 40 boxes, and not after fifty million pairs.
#[test]
fn draws_ten_thousand_nodes() {
    let node = |n: usize| {
        let (net, host) = (n / 250, n % 250 + 1);
        let (high, low) = (n / 256, n % 256);
        format!("  n{n}: {{underlay: 172.16.{net}.{host}/24, subnets: [10.{high}.{low}.0/24]}}\n")
    };
    let nodes: String = (0..10_000).map(node).collect();
    let source = format!("name: t\nnodes:\n{nodes}meshes: {{pods: {{}}}}\n");
    let started = Instant::now();
    let output = run_with(&["graph", "-"], source);
    let took = started.elapsed();
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(out(&output).matches("250 nodes").count(), 40);
    // A build without optimization, on a busy machine.
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn wrong_arguments_are_told_apart_from_failures() {
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["validate"],
        &["validate", "--frobnicate", "-"],
        &["apply", "--dry-run"],
        &["apply", "--output", "xml", "-"],
        &["destroy"],
        &["destroy", "--owner", "a b"],
        &["destroy", "--owner", "hq", "hq.yaml"],
        &["destroy", "--owner", "hq", "--route-protocol", "4"],
        &["graph"],
        &["graph", "--format", "png", "-"],
        &["schema", "everything"],
        &["completions", "tcsh"],
    ] {
        let output = run(arguments);
        let text = err(&output);
        assert_eq!(code(&output), 2, "{arguments:?}: {text}");
        assert!(text.contains("--help") || text.contains("Usage:"), "{text}");
    }
}

#[test]
fn help_teaches_by_example() {
    for command in COMMANDS {
        let text = out(&run(&[command, "--help"]));
        assert!(text.contains("Example"), "{text}");
        assert!(text.contains(&format!("tunnelform {command}")), "{text}");
        assert!(text.contains("Exit codes:"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
    let text = out(&run(&["--help"]));
    for command in COMMANDS {
        assert!(text.contains(&format!("\n  {command} ")), "{text}");
    }
    assert!(text.contains("Exit codes:"), "{text}");
    assert!(out(&run(&["--version"])).starts_with("tunnelform "));
}

#[test]
fn prints_completions() {
    for (shell, expected) in [
        ("bash", "complete -F _tunnelform"),
        ("zsh", "#compdef tunnelform"),
        ("fish", "complete -c tunnelform"),
    ] {
        let output = run(&["completions", shell]);
        assert_eq!(code(&output), 0);
        let script = out(&output);
        assert!(script.contains(expected), "{shell}");
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn prints_manual_pages() {
    let page = out(&run(&["man"]));
    assert!(page.contains("\n.TH tunnelform 1 "), "{page}");
    for command in COMMANDS {
        let page = out(&run(&["man", command]));
        assert!(page.contains(".SH NAME"), "{page}");
        assert!(page.contains("Exit codes"), "{page}");
        if let Some(warnings) = groff_warnings(&page) {
            assert_eq!(warnings, "", "{command}");
        }
    }
    let output = run(&["man", "frobnicate"]);
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("there is no command \"frobnicate\""));
}

/// What groff has to say about a page; nothing where there's no groff.
fn groff_warnings(page: &str) -> Option<String> {
    let groff = Command::new("groff")
        .args(["-man", "-Tutf8", "-ww", "-z"])
        .write_stdin(page)
        .output();
    groff.ok().map(|output| err(&output))
}

/// The README's fleet, and the plan that it shows.
#[test]
fn plans_the_fleet_of_the_readme() {
    let readme = include_str!("../README.md");
    let block = |start: &str| {
        let rest = readme.split(start).nth(1).expect("the README has it");
        rest.split("```").next().unwrap_or_default().to_owned()
    };
    let fleet = block("```yaml\n# fleet.yaml\n");
    let arguments = "apply --dry-run --against empty --node node-2";
    let shown = block(&format!("$ tunnelform {arguments} fleet.yaml\n"));
    let arguments: Vec<&str> = arguments.split(' ').chain(["-"]).collect();
    let planned = run_with(&arguments, fleet);
    assert_eq!(out(&planned), shown, "{}", err(&planned));
    assert_eq!(err(&planned), "");
}

const FLEET: &str = "\
name: pods
nodes:
  node-1: {underlay: 192.168.10.2, subnets: [10.244.1.0/24]}
  node-2: {underlay: 192.168.20.2, subnets: [10.244.2.0/24]}
  node-3: {underlay: 192.168.20.3, subnets: [10.244.3.0/24]}
meshes: {pods: {interface: pods0}}
";

/// `--node` and TUNNELFORM_NODE choose; who is nobody hears who there is.
#[test]
fn a_node_is_chosen_by_flag_and_environment() {
    let render = |node: Option<&str>, environment: Option<&str>| {
        let mut command = tunnelform(&["render", "-"]);
        command.args(node.into_iter().flat_map(|name| ["--node", name]));
        command.env_remove("TUNNELFORM_NODE");
        if let Some(name) = environment {
            command.env("TUNNELFORM_NODE", name);
        }
        command.write_stdin(FLEET).output().expect("runs")
    };
    for (node, environment, local) in [
        (Some("node-1"), None, "local: 192.168.10.2"),
        (None, Some("node-2"), "local: 192.168.20.2"),
        (Some("node-1"), Some("node-2"), "local: 192.168.10.2"),
    ] {
        let output = render(node, environment);
        assert!(out(&output).contains(local), "{}", err(&output));
    }
    for (node, environment, message) in [
        (
            Some("node-x"),
            None,
            "no node is called node-x: did you mean node-",
        ),
        (Some("zzz"), None, "the nodes are node-1, node-2, node-3"),
        (None, Some("zzz"), "the nodes are node-1, node-2, node-3"),
        (None, None, "which node is this?"),
        (Some("a b"), None, "expected a name of 1 to 63 letters"),
    ] {
        let output = render(node, environment);
        assert!(code(&output) > 0);
        assert!(err(&output).contains(message), "{}", err(&output));
    }
    let output = run_with(&["render", "--node", "node-1", "-"], GOOD);
    assert!(err(&output).contains("has no `nodes`"), "{}", err(&output));
}

/// What `render` prints is a topology for one host, with the same plan.
#[test]
fn a_rendered_topology_has_the_same_plan() {
    for node in ["node-1", "node-3"] {
        let of_fleet = run_with(
            &[
                "apply",
                "--dry-run",
                "--against",
                "empty",
                "--node",
                node,
                "-",
            ],
            FLEET,
        );
        let rendered = out(&run_with(&["render", "--node", node, "-"], FLEET));
        let of_rendered = run_with(&["apply", "--dry-run", "--against", "empty", "-"], rendered);
        assert_eq!(out(&of_fleet), out(&of_rendered));
        assert!(out(&of_fleet).contains("Plan: 5 to create"));
    }
}

#[test]
fn every_node_is_planned_in_one_go() {
    let all = [
        "apply",
        "--dry-run",
        "--all-nodes",
        "--against",
        "empty",
        "-",
    ];
    let output = run_with(&all, FLEET);
    let text = out(&output);
    assert_eq!(code(&output), 0);
    for line in [
        "node-2:\n  + tunnel pods0  ipip local 192.168.20.2",
        "NODE    CREATE  CHANGE  REPLACE  DELETE  STATE",
        "3 of 3 nodes would change: 15 to create, 0 to change, 0 to replace, 0 to delete.",
    ] {
        assert!(text.contains(line), "no {line:?} in\n{text}");
    }
    let machine = [&all[..], &["--output", "json", "--detailed-exitcode"]].concat();
    let output = run_with(&machine, FLEET);
    assert_eq!(code(&output), 2);
    let document = json(&output);
    assert_eq!(document["counts"]["create"], 15);
    assert_eq!(document["in_sync"], false);
    assert_eq!(document["nodes"][2]["node"], "node-3");
    assert_eq!(document["nodes"][2]["plan"]["counts"]["create"], 5);
}

/// States of some nodes, and none of another: that one has no plan, and the exit code says so.
#[test]
fn a_state_is_missing() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let state = "{format_version: 1, tunnelform_version: x, marks_addresses: true, devices: {}, tunnels: {}, addresses: [], routes: []}";
    for node in ["node-1", "node-2"] {
        let path = directory.path().join(format!("{node}.yaml"));
        fs::write(path, state).expect("a file can be written");
    }
    let against = directory.path().to_string_lossy().into_owned();
    let output = run_with(
        &[
            "apply",
            "--dry-run",
            "--all-nodes",
            "--against",
            &against,
            "-",
        ],
        FLEET,
    );
    assert_eq!(code(&output), 1);
    assert!(
        err(&output).contains("no plan for 1 node"),
        "{}",
        err(&output)
    );
    assert!(
        out(&output).contains("node-3.yaml: No such file"),
        "{}",
        out(&output)
    );
    assert!(out(&output).contains("2 of 3 nodes would change: 10 to create"));
    let one = [
        "apply",
        "--dry-run",
        "--node",
        "node-1",
        "--against",
        &against,
        "-",
    ];
    assert!(err(&run_with(&one, FLEET)).contains("is a directory"));
}

#[test]
fn offline_flags_go_together() {
    for arguments in [
        &["apply", "--against", "empty", "-"][..],
        &["apply", "--dry-run", "--all-nodes", "-"],
        &[
            "apply",
            "--dry-run",
            "--against",
            "empty",
            "--netns",
            "x",
            "-",
        ],
        &[
            "apply",
            "--dry-run",
            "--against",
            "empty",
            "--all-nodes",
            "--node",
            "node-1",
            "-",
        ],
        &["diff", "-"],
        &["diff", "a", "b", "--node", "x", "--all-nodes"],
        &["export", "--state", "--owner", "hq"],
    ] {
        assert_eq!(code(&run_with(arguments, FLEET)), 2, "{arguments:?}");
    }
}

/// A node that comes, one that goes, one that moves: each node's changes, in three forms.
#[test]
fn a_diff_shows_what_changes_on_each_node() {
    let (_old, old) = file(FLEET);
    let (_new, new) = file(
        FLEET
            .replace("node-3", "node-4")
            .replace("10.244.3.0", "10.244.4.0")
            .replace("192.168.20.3", "192.168.20.4"),
    );
    let (old, new) = (old.to_string_lossy(), new.to_string_lossy());
    let output = run(&["diff", &old, &new]);
    let text = out(&output);
    assert_eq!(code(&output), 0, "{}", err(&output));
    for line in [
        "node-1:\n  + route 10.244.4.0/24  via 192.168.20.4 dev pods0 onlink\n  - route 10.244.3.0/24",
        "node-3:\n  - tunnel pods0",
        "node-4:\n  + tunnel pods0",
        "4 of 4 nodes would change: 7 to create, 0 to change, 0 to replace, 4 to delete.",
    ] {
        assert!(text.contains(line), "no {line:?} in\n{text}");
    }
    let output = run(&[
        "diff",
        &old,
        &new,
        "--output",
        "json",
        "--detailed-exitcode",
    ]);
    assert_eq!(code(&output), 2);
    assert_eq!(json(&output)["nodes"][0]["plan"]["counts"]["create"], 1);
    let text = out(&run(&["diff", &old, &new, "--output", "markdown"]));
    assert!(text.contains("| node-1 | 1 | 0 | 0 | 1 |"), "{text}");
    assert!(
        text.contains("<details><summary>node-1</summary>\n\n```diff\n+ route 10.244.4.0/24"),
        "{text}"
    );
    let output = run(&["diff", &old, &old, "--detailed-exitcode"]);
    assert_eq!(code(&output), 0);
    assert!(
        out(&output).contains("0 of 3 nodes would change"),
        "{}",
        out(&output)
    );
    let one = run(&["diff", &old, &new, "--node", "node-2"]);
    assert!(
        out(&one).contains("1 of 1 node would change"),
        "{}",
        out(&one)
    );
    assert!(err(&run(&["diff", &old, &new, "--node", "zzz"])).contains("no node is called zzz"));
}

/// A comment on a pull request has a limit: what is beyond it is counted.
#[test]
fn a_large_diff_fits_into_a_comment() {
    let fleet = |nodes: usize| {
        let nodes: String = (1..=nodes)
            .map(|n| format!("  n{n}: {{underlay: 192.168.10.{n}, subnets: [10.244.{n}.0/24]}}\n"))
            .collect();
        format!("name: t\nnodes:\n{nodes}meshes: {{m: {{}}}}\n")
    };
    let (_old, old) = file(fleet(2));
    let (_new, new) = file(fleet(100));
    let arguments = [
        "diff",
        &old.to_string_lossy(),
        &new.to_string_lossy(),
        "-o",
        "markdown",
    ];
    let text = out(&run(&arguments));
    assert!(text.len() < 65_536, "{}", text.len());
    assert!(
        text.contains("more nodes: too much for a comment"),
        "{text}"
    );
}

/// A directory is one topology; hidden files and others than *.yaml are not in it.
#[test]
fn a_directory_is_one_topology() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let write = |name: &str, text: &str| {
        fs::write(directory.path().join(name), text).expect("a file can be written");
    };
    write(
        "20-tunnels.yaml",
        "tunnels: {tun1: {local: 192.0.2.1, remote: 192.0.2.2}}",
    );
    write("10-base.yaml", "name: t\ndefaults: {ttl: 64}");
    write(".#20-tunnels.yaml", "[");
    write("notes.txt", "[");
    let path = directory.path().to_string_lossy().into_owned();
    let output = run(&["validate", &path]);
    assert!(out(&output).contains("valid (1 tunnel"), "{}", err(&output));
    write(
        "30-more.yaml",
        "tunnels: {tun1: {local: 192.0.2.1, remote: 192.0.2.3}}",
    );
    let output = run(&["validate", &path]);
    assert_eq!(code(&output), 1);
    for place in [
        "30-more.yaml:1:11",
        "20-tunnels.yaml:1:11",
        "given in two files",
    ] {
        assert!(
            err(&output).contains(place),
            "no {place} in {}",
            err(&output)
        );
    }
}
