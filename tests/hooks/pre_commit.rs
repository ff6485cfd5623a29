//! `examples/pre-commit`: git refuses a commit with a topology that isn't valid.

use std::path::Path;

use super::{Ran, Repository, TUNNELFORM, examples, path_with, python_tool, read, run};

const GOOD: &str = "name: t\ntunnels: {tun1: {local: 192.0.2.1, remote: 192.0.2.2}}\n";
const BAD: &str = "name: t\ntunnels: {tun1: {local: 192.0.2.1, ttl: 300}}\n";

#[test]
fn commits_with_a_bad_topology_are_refused() {
    let repository = Repository::new();
    let cache = tempfile::tempdir().expect("a directory can be made");
    let binaries = Path::new(TUNNELFORM)
        .parent()
        .expect("it is in a directory");
    let with_hooks = |program: &Path, arguments: &[&str]| -> Ran {
        let mut command = repository.command(program);
        command.env("PATH", path_with(&[binaries]));
        command.env("PRE_COMMIT_HOME", cache.path());
        run(command.args(arguments))
    };
    let commit = || {
        repository.git(["add", "--all"]);
        with_hooks(Path::new("git"), &["commit", "--message=test"])
    };
    let config = read(examples().join("pre-commit/.pre-commit-config.yaml"));
    repository.write(".pre-commit-config.yaml", &config);
    for part in ["10-base.yaml", "20-office.yaml", "30-backup.yaml"] {
        let text = read(examples().join("directory").join(part));
        repository.write(&format!("fleet/{part}"), &text);
    }
    with_hooks(&python_tool("pre-commit"), &["install"]).ok();

    repository.write("hosts/one.yaml", GOOD);
    repository.write("hosts/two.yaml", GOOD);
    repository.write("notes.yaml", BAD); // not a topology, for all that the hooks know
    commit().ok().says("Passed");

    repository.write("hosts/two.yaml", BAD);
    let refused = commit().ends_with(1);
    refused
        .says("hosts/two.yaml:2:41")
        .says("hosts/two.yaml has 1 error");
    repository.write("hosts/two.yaml", GOOD);

    // By itself the new file is valid.
    let twice = read(examples().join("directory/20-office.yaml"));
    repository.write("fleet/40-office.yaml", &twice);
    commit().ends_with(1).says("fleet has 1 error");

    // A commit that only deletes: of what is left, nothing says what it belongs to.
    repository.git(["reset", "--quiet", "--hard"]);
    for part in ["10-base.yaml", "20-office.yaml", "30-backup.yaml"] {
        repository.git(["rm", "--quiet", &format!("fleet/{part}")]);
    }
    commit().ends_with(1).says("can't read fleet");
}
