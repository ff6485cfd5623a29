//! `examples/ci`: the pipelines are well-formed, and their scripts do what they say when a stand-in answers for the forge.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_yaml::Value;

use super::{
    Ran, Repository, TUNNELFORM, examples, path_with, python_tool, read, run, write, write_program,
};

const OLD: &str = "name: t\ntunnels: {tun1: {local: 192.0.2.1, remote: 192.0.2.2}}\n";
const NEW: &str = "name: t\ntunnels: {tun1: {local: 192.0.2.1, remote: 192.0.2.2, ttl: 64}}\n";
const BAD: &str = "name: t\ntunnels: {tun1: {local: 192.0.2.1, ttl: 300}}\n";
const MARK: &str = "<!-- tunnelform -->\n";

/// `curl` as both pipelines call it. A download is the binary under test; GitLab is files.
const CURL: &str = r#"#!/bin/bash
set -euo pipefail
method=GET output=/dev/stdout
while [ $# -gt 0 ]; do
    case $1 in
    --fail | --silent | --show-error | --location) ;;
    --output) output=$2; shift ;;
    --request) method=$2; shift ;;
    --data-urlencode) body=${2#body@}; shift ;;
    --config) [ "$2" = - ] && cat >"$FORGE/config"; shift ;;
    http*) url=$1 ;;
    *) echo "curl: what is $1?" >&2; exit 2 ;;
    esac
    shift
done
case "$method $url" in
*" https://downloads.example.com/tunnelform") cp "$FORGE/tunnelform" "$output" ;;
"GET https://gitlab.example.com/api/v4/user") echo '{"id": 42}' >"$output" ;;
"GET https://gitlab.example.com/api/v4/projects/5/merge_requests/7/notes"?*"&page="*)
    page=$FORGE/comments-${url##*=}.json
    if [ -e "$page" ]; then cat "$page"; else echo '[]'; fi >"$output" ;;
"P"*) echo "$method ${url#https://gitlab.example.com/api/v4/}" >>"$FORGE/requests"; cp "$body" "$FORGE/body" ;;
*) echo "curl: $method $url?" >&2; exit 22 ;;
esac
"#;

/// `gh` as the workflows call it.
const GH: &str = r#"#!/bin/bash
set -euo pipefail
[ "$GH_TOKEN" = secret ]
if [ "$1" = run ]; then
    [ "$2 $4 $6 $8" = "download --repo --name --dir" ]
    cp -r "$FORGE/artifacts/$7" "$9"
    exit
fi
[ "$1" = api ]
shift
method=GET
while [ $# -gt 0 ]; do
    case $1 in
    --paginate | --silent) ;;
    --jq) filter=$2; shift ;;
    --method) method=$2; shift ;;
    --field) body=${2#body=@}; shift ;;
    repos/*) path=$1 ;;
    *) echo "gh: what is $1?" >&2; exit 2 ;;
    esac
    shift
done
if [ "$method" = GET ]; then
    case $path in
    */comments*) pages=("$FORGE"/comments-*.json) ;;
    */commits/"$GITHUB_SHA"/pulls) pages=("$FORGE/pulls.json") ;;
    */actions/artifacts\?name=*) pages=("$FORGE/artifacts.json") ;;
    *) echo "gh: $path?" >&2; exit 2 ;;
    esac
    for page in "${pages[@]}"; do jq -r "$filter" "$page"; done
else
    echo "$method $path" >>"$FORGE/requests"
    cp "$body" "$FORGE/body"
fi
"#;

/// The stand-ins, and what they have been told.
pub(super) struct Forge {
    directory: tempfile::TempDir,
}

impl Forge {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        for (name, text) in [("curl", CURL), ("gh", GH), ("apt-get", "#!/bin/sh\n")] {
            write_program(directory.path().join("bin").join(name), text);
        }
        // Not the binary itself: debug information makes that large to copy and to sum.
        let download = format!("#!/bin/sh\nexec '{TUNNELFORM}' \"$@\"\n");
        write(directory.path().join("tunnelform"), &download);
        let sum = run(Command::new("sha256sum").arg(directory.path().join("tunnelform")));
        write(directory.path().join("sum"), &sum.ok().said);
        Self { directory }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A page of the comments that there are already.
    pub(super) fn comments(&self, page: u32, comments: &serde_json::Value) {
        let path = self.path(&format!("comments-{page}.json"));
        write(path, &comments.to_string());
    }

    /// Lets a command see the stand-ins, before anything else, and the checksum of what they let it download.
    fn serve(&self, command: &mut Command, more: &Path) {
        let sum = read(self.path("sum"));
        let sum = sum.split(' ').next().unwrap_or_default();
        command
            .env("FORGE", self.directory.path())
            .env("TUNNELFORM_SHA256", sum)
            .env("PATH", path_with(&[&self.path("bin"), more]));
    }

    /// The requests that changed something, and the last one's text.
    pub(super) fn told(&self) -> (String, String) {
        let read = |name| fs::read_to_string(self.path(name)).unwrap_or_default();
        (read("requests"), read("body"))
    }
}

/// What the topology was on the main branch and is on another: `None` for a file that isn't there.
fn repository(old: Option<&str>, new: &str) -> (Repository, String) {
    let repository = Repository::new();
    repository.write("README", "");
    if let Some(old) = old {
        repository.write("topology/t.yaml", old);
    }
    let base = repository.commit();
    repository.git(["checkout", "--quiet", "-b", "change"]);
    repository.write("topology/t.yaml", new);
    repository.commit();
    // The main branch goes on, and what it has got is none of the change's.
    repository.git(["checkout", "--quiet", "main"]);
    repository.write("README", "more\n");
    repository.commit();
    repository.git(["checkout", "--quiet", "change"]);
    (repository, base)
}

pub(super) fn yaml(path: &Path) -> Value {
    serde_yaml::from_str(&read(path)).expect("a pipeline is YAML")
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().expect("it is text").to_owned()
}

pub(super) fn environment(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_mapping().into_iter().flatten();
    pairs
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

#[track_caller]
pub(super) fn shellcheck(script: &str) {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let path = directory.path().join("script");
    write(&path, script);
    run(Command::new("shellcheck").args(["--shell=bash"]).arg(path)).ok();
}

fn github() -> PathBuf {
    examples().join("ci/github-actions.yaml")
}

fn gitlab() -> PathBuf {
    examples().join("ci/gitlab-ci.yaml")
}

#[test]
fn pipelines_fit_their_schemas() {
    for (schema, file) in [
        ("vendor.github-workflows", github()),
        ("vendor.gitlab-ci", gitlab()),
    ] {
        let mut check = Command::new(python_tool("check-jsonschema"));
        run(check.args(["--builtin-schema", schema]).arg(file)).ok();
    }
}

/// A step of the workflow that is a script.
pub(super) struct Step {
    pub(super) name: String,
    pub(super) script: String,
    always: bool,
    environment: BTreeMap<String, String>,
}

pub(super) fn steps(job: &Value) -> Vec<Step> {
    let steps = job["steps"].as_sequence();
    let scripts = steps
        .expect("steps are a list")
        .iter()
        .filter(|step| !step["run"].is_null());
    scripts
        .map(|step| Step {
            name: text(&step["name"]),
            script: text(&step["run"]),
            always: step["if"]
                .as_str()
                .is_some_and(|when| when.contains("!cancelled()")),
            environment: environment(&step["env"]),
        })
        .collect()
}

/// Nothing that the forge puts into a script, and so nothing that a pull request says, is taken for a command; the token
/// can do two things.
#[test]
fn the_workflow_trusts_nobody() {
    let workflow = yaml(&github());
    assert!(
        workflow["permissions"]
            .as_mapping()
            .is_some_and(|all| all.is_empty())
    );
    let permissions = environment(&workflow["jobs"]["plan"]["permissions"]);
    let permissions: Vec<(&str, &str)> = permissions
        .iter()
        .map(|(name, can)| (&**name, &**can))
        .collect();
    assert_eq!(
        permissions,
        [("contents", "read"), ("pull-requests", "write")]
    );
    assert!(workflow["on"]["pull_request_target"].is_null());
    let steps = steps(&workflow["jobs"]["plan"]);
    assert_eq!(steps.len(), 4);
    for step in steps {
        assert!(!step.script.contains("${{"), "{}", step.name);
        shellcheck(&step.script);
    }
}

#[test]
fn the_scripts_of_gitlab_are_sound() {
    shellcheck(&gitlab_script());
}

/// Runs the workflow's scripts as a runner does; answers the first that fails.
fn run_workflow(forge: &Forge, repository: &Repository) -> Option<(String, Ran)> {
    // The checkout is the pull request as it would be merged.
    repository.git(["checkout", "--quiet", "--detach", "main"]);
    repository.git(["merge", "--quiet", "--no-ff", "--message=merge", "change"]);
    run_job(forge, repository, &yaml(&github()), "plan")
}

/// Runs a job's scripts as a runner does; answers the first that fails.
pub(super) fn run_job(
    forge: &Forge,
    repository: &Repository,
    workflow: &Value,
    job: &str,
) -> Option<(String, Ran)> {
    let job = &workflow["jobs"][job];
    let shell = text(&job["defaults"]["run"]["shell"]);
    assert_eq!(shell, "bash -euo pipefail {0}");
    let temporary = forge.path("runner");
    write(temporary.join("path"), "");
    let mut failed = None;
    for step in steps(job) {
        if failed.is_some() && !step.always {
            continue;
        }
        let script = temporary.join("script");
        write(&script, &step.script);
        let mut command = repository.command("bash");
        command.args(["-euo", "pipefail"]).arg(script);
        command.envs(environment(&workflow["env"]));
        for (name, expression) in step.environment {
            let value = match expression.as_str() {
                "${{ github.token }}" => "secret",
                "${{ github.event.pull_request.number }}" => "7",
                "${{ secrets.TUNNELFORM_KEY }}" => "a key",
                "${{ vars.TUNNELFORM_KNOWN_HOSTS }}" => "node-1 ssh-ed25519 AAAA",
                other => panic!("what is {other}?"),
            };
            command.env(name, value);
        }
        command
            .env("HOME", &temporary)
            .env("GITHUB_REPOSITORY", "o/r")
            .env("GITHUB_SHA", repository.git(["rev-parse", "HEAD"]).trim())
            .env("GITHUB_PATH", temporary.join("path"))
            .env("GITHUB_STEP_SUMMARY", temporary.join("summary"))
            .env("RUNNER_TEMP", &temporary);
        let added = read(temporary.join("path"));
        forge.serve(&mut command, Path::new(added.trim_end()));
        let ran = run(&mut command);
        if ran.code != Some(0) {
            failed.get_or_insert((step.name, ran));
        }
    }
    failed
}

pub(super) fn comment(id: u32, login: &str, body: &str) -> serde_json::Value {
    serde_json::json!({"id": id, "user": {"login": login}, "body": body})
}

#[track_caller]
pub(super) fn passes(failed: Option<(String, Ran)>) {
    if let Some((name, ran)) = failed {
        panic!("{name}:\n{}", ran.said);
    }
}

#[test]
fn the_workflow_comments_once() {
    let forge = Forge::new();
    let (changed, _) = repository(Some(OLD), NEW);
    let others = [
        comment(1, "mallory", MARK),
        comment(2, "github-actions[bot]", "of another workflow"),
    ];
    forge.comments(1, &others.into_iter().collect());
    passes(run_workflow(&forge, &changed));
    let (requests, body) = forge.told();
    assert_eq!(requests, "POST repos/o/r/issues/7/comments\n");
    assert!(body.starts_with(MARK), "{body}");
    assert!(body.contains("| t | 0 | 1 | 0 | 0 |"), "{body}");
    assert!(body.contains("ttl: inherit -> 64"), "{body}");
    assert_eq!(read(forge.path("runner/summary")), body);

    // The next push finds the comment, on whichever page.
    let forge = Forge::new();
    let (changed, _) = repository(Some(OLD), NEW);
    forge.comments(1, &[comment(1, "mallory", MARK)].into_iter().collect());
    let own = [3, 4].map(|id| comment(id, "github-actions[bot]", &format!("{MARK}### …")));
    forge.comments(2, &own.into_iter().collect());
    passes(run_workflow(&forge, &changed));
    let (requests, _) = forge.told();
    assert_eq!(requests, "PATCH repos/o/r/issues/comments/3\n");
}

/// A topology that is new, one that mends what was broken, and one that is broken.
#[test]
fn the_workflow_meets_the_odd_cases() {
    for (old, new, expected) in [
        (None, NEW, Some("| t | 1 | 0 | 0 | 0 |")),
        (Some(BAD), NEW, Some("nothing to compare with")),
        (Some(OLD), OLD, Some("No node changes.")),
        (Some(OLD), BAD, None),
    ] {
        let forge = Forge::new();
        forge.comments(1, &serde_json::json!([]));
        let (changed, _) = repository(old, &format!("{new}# changed\n"));
        let failed = run_workflow(&forge, &changed);
        let (requests, body) = forge.told();
        match expected {
            Some(expected) => {
                passes(failed);
                assert!(body.contains(expected), "{body}");
            }
            None => {
                let (step, ran) = failed.expect("it fails");
                assert_eq!(step, "Validate");
                ran.says("t.yaml:2:");
                assert_eq!(requests, "");
            }
        }
    }
}

#[test]
fn a_download_that_is_another_is_refused() {
    let forge = Forge::new();
    write(forge.path("tunnelform"), "something else");
    let (changed, base) = repository(Some(OLD), NEW);
    let (step, ran) = run_workflow(&forge, &changed).expect("it fails");
    assert_eq!(step, "Install tunnelform");
    ran.says("tunnelform: FAILED");
    changed.git(["checkout", "--quiet", "change"]);
    run_gitlab(&forge, &changed, &base, Some("secret"))
        .ends_with(1)
        .says("tunnelform: FAILED");
}

/// The whole of the job, which GitLab runs in one shell.
fn gitlab_script() -> String {
    let pipeline = yaml(&gitlab());
    let job = &pipeline["tunnels"];
    let parts = [&job["before_script"], &job["script"]];
    let lines = parts
        .into_iter()
        .flat_map(|part| part.as_sequence().expect("a script is a list"));
    lines.fold("set -eo pipefail\n".to_owned(), |script, line| {
        script + &text(line) + "\n"
    })
}

fn run_gitlab(forge: &Forge, repository: &Repository, base: &str, token: Option<&str>) -> Ran {
    let script = forge.path("script");
    write(&script, &gitlab_script());
    let mut command = repository.command("bash");
    command
        .arg(script)
        .envs(environment(&yaml(&gitlab())["variables"]))
        .env("CI_API_V4_URL", "https://gitlab.example.com/api/v4")
        .env("CI_PROJECT_ID", "5")
        .env("CI_MERGE_REQUEST_IID", "7")
        .env("CI_MERGE_REQUEST_DIFF_BASE_SHA", base)
        .env_remove("TUNNELFORM_GITLAB_TOKEN");
    if let Some(token) = token {
        command.env("TUNNELFORM_GITLAB_TOKEN", token);
    }
    forge.serve(&mut command, &forge.path("bin"));
    run(&mut command)
}

fn note(id: u32, author: u32, body: &str) -> serde_json::Value {
    serde_json::json!({"id": id, "author": {"id": author}, "body": body})
}

#[test]
fn gitlab_notes_once() {
    let forge = Forge::new();
    let (changed, base) = repository(Some(OLD), NEW);
    let others = [note(1, 1, MARK), note(2, 42, "something else")];
    forge.comments(1, &others.into_iter().collect());
    run_gitlab(&forge, &changed, &base, Some("secret")).ok();
    let (requests, body) = forge.told();
    assert_eq!(requests, "POST projects/5/merge_requests/7/notes\n");
    assert!(body.starts_with(MARK), "{body}");
    assert!(body.contains("ttl: inherit -> 64"), "{body}");
    assert_eq!(
        read(forge.path("config")),
        "header = \"PRIVATE-TOKEN: secret\"\n"
    );

    let forge = Forge::new();
    let (changed, base) = repository(Some(OLD), NEW);
    forge.comments(1, &[note(1, 1, MARK)].into_iter().collect());
    let own = [3, 4].map(|id| note(id, 42, &format!("{MARK}### …")));
    forge.comments(2, &own.into_iter().collect());
    run_gitlab(&forge, &changed, &base, Some("secret")).ok();
    let (requests, _) = forge.told();
    assert_eq!(requests, "PUT projects/5/merge_requests/7/notes/3\n");
}

#[test]
fn gitlab_meets_the_odd_cases() {
    for (old, new, expected) in [
        (None, NEW, Some("| t | 1 | 0 | 0 | 0 |")),
        (Some(BAD), NEW, Some("nothing to compare with")),
        (Some(OLD), OLD, Some("No node changes.")),
        (Some(OLD), BAD, None),
    ] {
        let forge = Forge::new();
        let (changed, base) = repository(old, &format!("{new}# changed\n"));
        let ran = run_gitlab(&forge, &changed, &base, Some("secret"));
        let (requests, body) = forge.told();
        match expected {
            Some(expected) => {
                ran.ok();
                assert!(body.contains(expected), "{body}");
            }
            None => {
                ran.ends_with(1).says("t.yaml:2:");
                assert_eq!(requests, "");
            }
        }
    }
    // A fork has no token.
    let forge = Forge::new();
    let (changed, base) = repository(Some(OLD), NEW);
    run_gitlab(&forge, &changed, &base, None)
        .ok()
        .says("ttl: inherit -> 64")
        .says("no note");
    assert_eq!(forge.told().0, "");
}
