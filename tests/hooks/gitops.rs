//! `examples/gitops`: a pull request shows the plans of every node, and its merge applies these. Stand-ins answer for the
//! forge and for the hosts; `tests/kernel` runs the scripts on hosts that are real.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::ci::{Forge, comment, environment, passes, run_job, shellcheck, steps, yaml};
use super::{Ran, Repository, examples, path_with, python_tool, read, run, write, write_program};

const OLD: &str = "\
name: pods
nodes:
  node-1: {underlay: 192.168.10.2, subnets: [10.244.1.0/24]}
  node-2: {underlay: 192.168.20.2, subnets: [10.244.2.0/24]}
meshes:
  pods: {interface: pods0}
";
const MARK: &str = "<!-- tunnelform plans -->\n";
/// A host that has nothing.
const STATE: &str = "{format_version: 1, tunnelform_version: x, marks_addresses: true, devices: {}, tunnels: {}, \
                     addresses: [], routes: []}";

/// The host's end is the real `gate`.
const SSH: &str = r#"#!/bin/bash
set -euo pipefail
[ "$1 $2 $3 $4" = "-o BatchMode=yes -o ConnectTimeout=10" ]
[ "$(cat ~/.ssh/id_ed25519)" = "a key" ] && grep -q node-1 ~/.ssh/known_hosts
export NODE=${5#root@}
shift 5
[ ! -e "$FORGE/down-$NODE" ] || { echo "ssh: $NODE is out of reach" >&2; exit 255; }
case "$*" in *export*) role=plan ;; *) role=apply ;; esac
PATH=$FORGE/host:$PATH SSH_ORIGINAL_COMMAND="$*" exec "$GATE" "$role"
"#;

/// What `gate` starts on a host.
const HOST: &str = r#"#!/bin/bash
set -euo pipefail
case "$*" in
"export --state") cat "$FORGE/state.yaml" ;;
"apply --dry-run -")
    cat >/dev/null
    [ ! -e "$FORGE/stale-$NODE" ] || { echo "error: the plan is stale: tunnel pods0: ttl was 64, is 7" >&2; exit 1; } ;;
"apply -")
    [ ! -e "$FORGE/broken-$NODE" ] || { echo "error: broken" >&2; exit 1; }
    cat >"$FORGE/applied-$NODE" ;;
*) exit 2 ;;
esac
"#;

fn gitops(name: &str) -> PathBuf {
    examples().join("gitops").join(name)
}

fn workflow() -> serde_yaml::Value {
    yaml(&gitops("github-actions.yaml"))
}

#[test]
fn the_workflow_fits_its_schema() {
    let mut check = Command::new(python_tool("check-jsonschema"));
    let arguments = ["--builtin-schema", "vendor.github-workflows"];
    run(check.args(arguments).arg(gitops("github-actions.yaml"))).ok();
}

#[test]
fn the_scripts_are_sound() {
    let mut check = Command::new("shellcheck");
    check.args(["--external-sources", "--source-path=SCRIPTDIR"]);
    let scripts = ["plan.sh", "apply.sh", "hosts.sh", "gate"].map(gitops);
    run(check.args(scripts)).ok();
    for job in ["plan", "apply"] {
        for step in steps(&workflow()["jobs"][job]) {
            assert!(!step.script.contains("${{"), "{}", step.name);
            shellcheck(&step.script);
        }
    }
}

/// A pull request reads and comments; a merge reads. Keys are those of an environment.
#[test]
fn the_workflow_may_do_little() {
    let workflow = workflow();
    let none = workflow["permissions"].as_mapping();
    assert!(none.is_some_and(|all| all.is_empty()));
    for (job, expected) in [
        (
            "plan",
            &[("contents", "read"), ("pull-requests", "write")][..],
        ),
        (
            "apply",
            &[
                ("actions", "read"),
                ("contents", "read"),
                ("pull-requests", "read"),
            ],
        ),
    ] {
        let job = &workflow["jobs"][job];
        let permissions = environment(&job["permissions"]);
        let permissions: Vec<(&str, &str)> = permissions
            .iter()
            .map(|(name, can)| (&**name, &**can))
            .collect();
        assert_eq!(permissions, expected);
        assert!(job["environment"].is_string());
    }
    assert!(workflow["on"]["pull_request_target"].is_null());
}

#[test]
fn the_gate_lets_through_what_a_job_needs() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    write_program(
        directory.path().join("tunnelform"),
        "#!/bin/sh\necho \"ran $*\"\n",
    );
    let pass = |role: &str, command: &str| {
        let mut gate = Command::new(gitops("gate"));
        gate.arg(role)
            .env("SSH_ORIGINAL_COMMAND", command)
            .env("PATH", path_with(&[directory.path()]));
        run(&mut gate)
    };
    for (role, command) in [
        ("plan", "tunnelform export --state"),
        ("apply", "tunnelform apply --dry-run -"),
        ("apply", "tunnelform apply -"),
    ] {
        let ran = command.trim_start_matches("tunnelform ");
        pass(role, command).ok().says(&format!("ran {ran}"));
    }
    for (role, command) in [
        ("plan", "tunnelform apply -"),
        ("apply", "tunnelform export --state"),
        ("apply", "tunnelform apply - ; id"),
        ("apply", "tunnelform apply /etc/hq.yaml"),
        ("other", "tunnelform apply -"),
        ("plan", ""),
    ] {
        pass(role, command).ends_with(1).says("can't do this");
    }
}

/// A forge, its repository with the change on a branch, and hosts.
struct Team {
    forge: Forge,
    repository: Repository,
}

impl Team {
    fn new(new: &str) -> Self {
        let forge = Forge::new();
        forge.comments(1, &json!([comment(1, "mallory", MARK)]));
        write_program(forge.path("bin/ssh"), SSH);
        write_program(forge.path("host/tunnelform"), HOST);
        write(forge.path("state.yaml"), STATE);
        let repository = Repository::new();
        for name in ["plan.sh", "apply.sh", "hosts.sh"] {
            write_program(
                repository.path().join("gitops").join(name),
                &read(gitops(name)),
            );
        }
        repository.write(".gitignore", "plans\n");
        repository.write("topology/fleet.yaml", OLD);
        repository.commit();
        repository.git(["checkout", "--quiet", "-b", "change"]);
        repository.write("topology/fleet.yaml", new);
        repository.commit();
        Self { forge, repository }
    }

    /// The pull request's job; what it saves is there for the other.
    fn plan(&self) -> Option<(String, Ran)> {
        let head = self.repository.git(["rev-parse", "HEAD"]);
        let failed = self.job("plan");
        let artifact = self
            .forge
            .path("artifacts")
            .join(format!("plans-{}", head.trim()));
        fs::create_dir_all(&artifact).expect("a directory can be made");
        for entry in fs::read_dir(self.repository.path().join("plans")).expect("there are plans") {
            let entry = entry.expect("it can be read");
            fs::copy(entry.path(), artifact.join(entry.file_name())).expect("it can be copied");
        }
        write(
            self.forge.path("artifacts.json"),
            &json!({"artifacts": [
                {"expired": false, "created_at": "2026-01-01T00:00:00Z", "workflow_run": {"id": 1}},
                {"expired": true, "created_at": "2026-01-02T00:00:00Z", "workflow_run": {"id": 2}},
            ]})
            .to_string(),
        );
        let pull = json!({"merged_at": "2026-01-01T00:00:00Z", "head": {"sha": head.trim()}});
        write(self.forge.path("pulls.json"), &json!([pull]).to_string());
        failed
    }

    /// Merges; the job that the merge starts.
    fn merge(&self) -> Option<(String, Ran)> {
        fs::remove_dir_all(self.repository.path().join("plans")).expect("another runner");
        self.repository.git(["checkout", "--quiet", "main"]);
        self.repository
            .git(["merge", "--quiet", "--no-ff", "--message=merge", "change"]);
        self.job("apply")
    }

    fn job(&self, name: &str) -> Option<(String, Ran)> {
        let mut workflow = workflow();
        workflow["env"]["GATE"] = gitops("gate").display().to_string().into();
        run_job(&self.forge, &self.repository, &workflow, name)
    }

    fn applied(&self, node: &str) -> Option<Value> {
        let text = fs::read_to_string(self.forge.path(&format!("applied-{node}"))).ok()?;
        Some(serde_json::from_str(&text).expect("a plan is JSON"))
    }

    fn touch(&self, name: &str) {
        write(self.forge.path(name), "");
    }

    fn heal(&self, name: &str) {
        fs::remove_file(self.forge.path(name)).expect("a file");
    }
}

fn new() -> String {
    OLD.replace("pods0}", "pods0, tunnel: {ttl: 64}}")
}

#[track_caller]
fn fails(failed: Option<(String, Ran)>, step: &str) -> Ran {
    let (name, ran) = failed.expect("a step fails");
    assert_eq!(name, step, "{}", ran.said);
    ran.ends_with(1)
}

#[test]
fn what_was_reviewed_is_applied() {
    let team = Team::new(&new());
    passes(team.plan());
    let (requests, body) = team.forge.told();
    assert_eq!(requests, "POST repos/o/r/issues/7/comments\n");
    assert!(body.starts_with(MARK), "{body}");
    for part in [
        "| node-1 | 4 | 0 | 0 | 0 |\n| node-2 | 4 |",
        "+ tunnel pods0  ipip local 192.168.20.2 remote any ttl 64",
    ] {
        assert!(body.contains(part), "{body}");
    }
    // What the hosts have by now is for them to judge.
    write(team.forge.path("state.yaml"), "");
    passes(team.merge());
    for node in ["node-1", "node-2"] {
        let plan = team.applied(node).expect("it was applied");
        assert_eq!(plan["origin"]["node"], node);
        assert_eq!(plan["plan"]["counts"]["create"], 4);
    }
}

#[test]
fn a_stale_plan_touches_no_node() {
    let team = Team::new(&new());
    passes(team.plan());
    team.touch("stale-node-2");
    fails(team.merge(), "Apply")
        .says("tunnel pods0: ttl was 64, is 7")
        .says("node-2 can't carry out its plan")
        .says("no node was touched");
    assert!(team.applied("node-1").is_none() && team.applied("node-2").is_none());
}

#[test]
fn a_failure_stops_and_goes_on() {
    let team = Team::new(&new());
    passes(team.plan());
    team.touch("broken-node-1");
    fails(team.merge(), "Apply").says("stopped at node-1");
    assert!(team.applied("node-2").is_none());
    team.heal("broken-node-1");
    fs::remove_dir_all(team.repository.path().join("plans")).expect("another runner");
    passes(team.job("apply"));
    assert!(team.applied("node-1").is_some() && team.applied("node-2").is_some());
}

#[test]
fn another_topology_than_was_reviewed_is_not_applied() {
    let team = Team::new(&new());
    passes(team.plan());
    team.repository
        .write("topology/fleet.yaml", &new().replace("64", "65"));
    team.repository.commit();
    fails(team.merge(), "Apply").says("the plan of node-1 is not for what topology has of it now");
    assert!(team.applied("node-1").is_none());
}

#[test]
fn a_node_out_of_reach_is_named() {
    let team = Team::new(&new());
    team.touch("down-node-2");
    fails(team.plan(), "Plan").says("plan.sh: node-2 doesn't say how it is");
    let (_, body) = team.forge.told();
    assert!(
        body.contains("| node-1 | 4 |") && body.contains("\nnode-2       -"),
        "{body}"
    );
    team.heal("down-node-2");
    passes(team.merge());
    assert!(team.applied("node-1").is_some() && team.applied("node-2").is_none());
}

#[test]
fn nothing_to_do_is_said() {
    let team = Team::new("name: pods\nnodes: {node-1: {underlay: 192.168.10.2}}\n");
    passes(team.plan());
    let (_, body) = team.forge.told();
    assert!(body.contains("No node has a plan."), "{body}");
    passes(team.merge());
    assert!(team.applied("node-1").is_none());
}

#[test]
fn what_nobody_reviewed_is_not_applied() {
    let team = Team::new(&new());
    passes(team.plan());
    write(team.forge.path("pulls.json"), "[]");
    fails(team.merge(), "Fetch the plans that were reviewed").says("nothing was reviewed");
    write(team.forge.path("artifacts.json"), r#"{"artifacts": []}"#);
    let pull = json!([{"merged_at": "x", "head": {"sha": "abc"}}]);
    write(team.forge.path("pulls.json"), &pull.to_string());
    fails(team.job("apply"), "Fetch the plans that were reviewed")
        .says("the plans of abc are gone");
}

/// The README names what is there.
#[test]
fn the_readme_is_whole() {
    let readme = read(gitops("README.md"));
    let entries = fs::read_dir(gitops("")).expect("there are examples");
    for entry in entries {
        let name = entry.expect("it can be read").file_name();
        let name = Path::new(&name).display().to_string();
        assert!(
            name == "README.md" || readme.contains(&format!("[{name}]({name})")),
            "{name}"
        );
    }
}
