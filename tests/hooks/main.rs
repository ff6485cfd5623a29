//! What people run tunnelform from: each example under `examples/` is handed to the tool that it is for.
//!
//! `make setup` brings the tools: Debian packages, and a Python environment beside what cargo builds. A tool that is
//! missing fails the test.

mod ansible;
mod ci;
mod gitops;
mod pre_commit;
mod systemd;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The binary under test.
const TUNNELFORM: &str = env!("CARGO_BIN_EXE_tunnelform");

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// A tool of the Python environment that `make setup` makes.
fn python_tool(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("cargo's directory for tests is in its target directory");
    let tool = target.join("venv/bin").join(name);
    assert!(
        tool.exists(),
        "{} is missing: run `make setup`",
        tool.display()
    );
    tool
}

/// What a program said, and how it ended.
struct Ran {
    what: String,
    code: Option<i32>,
    /// Standard output and standard error.
    said: String,
}

impl Ran {
    #[track_caller]
    fn ok(self) -> Self {
        self.ends_with(0)
    }

    #[track_caller]
    fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}:\n{}", self.what, self.said);
        self
    }

    #[track_caller]
    fn says(self, expected: &str) -> Self {
        let Self { what, said, .. } = &self;
        assert!(
            said.contains(expected),
            "{what}: no {expected:?} in\n{said}"
        );
        self
    }
}

#[track_caller]
fn run(command: &mut Command) -> Ran {
    let what = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{what}: {error}: run `make setup`"));
    let said = [output.stdout, output.stderr].concat();
    Ran {
        what,
        code: output.status.code(),
        said: String::from_utf8_lossy(&said).into_owned(),
    }
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Writes a file, and the directories above it.
fn write(path: impl AsRef<Path>, text: &str) {
    let path = path.as_ref();
    path.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(path, text))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn write_program(path: impl AsRef<Path>, text: &str) {
    write(&path, text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode can be set");
}

/// `PATH` with other directories before it.
fn path_with(first: &[&Path]) -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let first = first.iter().map(|directory| directory.to_path_buf());
    std::env::join_paths(first.chain(std::env::split_paths(&path)))
        .expect("a directory's name has no colon")
}

/// A git repository, away from the settings of whoever runs the tests.
struct Repository {
    directory: tempfile::TempDir,
}

impl Repository {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let repository = Self { directory };
        repository.git(["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, name: &str, text: &str) {
        write(self.path().join(name), text);
    }

    /// A command that runs in it.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path());
        // Where a git hook runs the tests, these name another repository.
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
            command.env_remove(name);
        }
        command
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1");
        for role in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{role}_NAME"), "test")
                .env(format!("GIT_{role}_EMAIL"), "test@example.com");
        }
        command
    }

    #[track_caller]
    fn git<const N: usize>(&self, arguments: [&str; N]) -> String {
        run(self.command("git").args(arguments)).ok().said
    }

    /// Commits everything; answers the commit.
    #[track_caller]
    fn commit(&self) -> String {
        self.git(["add", "--all"]);
        self.git(["commit", "--quiet", "--message=test"]);
        self.git(["rev-parse", "HEAD"]).trim().to_owned()
    }
}
