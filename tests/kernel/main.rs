//! The promises of tunnelform, seen on a real kernel through the real binary.
//!
//! `cargo test --test kernel -- FILTER` boots a kernel with ipip, or uses this machine's (`tests/with-ipip`), once for
//! each half of the tests. `ip` is the independent witness: no test believes what tunnelform says of itself alone.

mod atomic;
mod attributes;
mod commands;
mod drift;
mod drops;
mod effects;
mod export;
mod failure;
mod fleet;
mod follow;
mod gitops;
mod http;
mod kill;
mod lock;
mod mtu;
mod netns;
mod ownership;
mod peers;
mod probe;
mod protect;
mod random;
mod replace;
mod saved;
mod scale;
mod seed;
mod soak;
mod traffic;
mod trial;
mod watch;
mod watch_trial;
mod world;

use std::path::Path;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};

/// Seconds for all tests together: several times what a slow machine takes.
const TIME_LIMIT: &str = "3000";
/// Seconds instead of these.
const OTHER_LIMIT: &str = "TUNNELFORM_KERNEL_TIMEOUT";

/// What `tests/with-ipip` sets for the command that it runs.
const INSIDE: &str = "TUNNELFORM_KERNEL";

/// Which half of the tests to run; all of them where it isn't set.
const HALF: &str = "TUNNELFORM_KERNEL_HALF";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if std::env::var_os(INSIDE).is_none() && !arguments.list {
        return match arguments.filter {
            None => in_halves(),
            Some(_) => on_a_kernel(None, Output::AsItComes).map_or(ExitCode::FAILURE, exit_code),
        };
    }
    // The tests are sequences of programs that share one kernel and its locks.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials()).exit_code()
}

fn trials() -> Vec<Trial> {
    let one = || {
        [
            seed::trials(),
            commands::trials(),
            attributes::trials(),
            ownership::trials(),
            drift::trials(),
            drops::trials(),
            effects::trials(),
            mtu::trials(),
            failure::trials(),
            atomic::trials(),
            lock::trials(),
            netns::trials(),
            scale::trials(),
            export::trials(),
            kill::trials(),
            traffic::trials(),
            watch::trials(),
            probe::trials(),
            http::trials(),
            gitops::trials(),
            saved::trials(),
        ]
    };
    let other = || {
        [
            fleet::trials(),
            random::trials(),
            follow::trials(),
            soak::trials(),
            replace::trials(),
            peers::trials(),
            protect::trials(),
            watch_trial::trials(),
            trial::trials(),
        ]
    };
    match std::env::var(HALF).as_deref() {
        Ok("1") => one().into_iter().flatten().collect(),
        Ok("2") => other().into_iter().flatten().collect(),
        _ => one().into_iter().chain(other()).flatten().collect(),
    }
}

/// The two halves at once, as a booted kernel has one processor. The second's output comes when both are done.
fn in_halves() -> ExitCode {
    let second = std::thread::spawn(|| on_a_kernel(Some("2"), Output::AtTheEnd));
    let first = on_a_kernel(Some("1"), Output::AsItComes);
    let second = second
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    match (first, second) {
        (Some(0), Some(code)) | (Some(code), Some(_)) => exit_code(code),
        (None, _) | (_, None) => ExitCode::FAILURE,
    }
}

enum Output {
    AsItComes,
    AtTheEnd,
}

/// Runs this program again, on a kernel that has ipip. Its exit code; `None` where a signal ended it.
fn on_a_kernel(half: Option<&str>, output: Output) -> Option<i32> {
    let with_ipip = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/with-ipip");
    let this =
        std::env::current_exe().unwrap_or_else(|error| panic!("no name of this program: {error}"));
    let limit = std::env::var_os(OTHER_LIMIT).unwrap_or_else(|| TIME_LIMIT.into());
    let mut command = Command::new(&with_ipip);
    command
        .arg(this)
        .args(std::env::args_os().skip(1))
        .env(OTHER_LIMIT, limit)
        .envs(half.map(|half| (HALF, half)));
    let ended = match output {
        Output::AsItComes => command.status(),
        Output::AtTheEnd => command.output().map(|output| {
            print!("{}", String::from_utf8_lossy(&output.stdout));
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            output.status
        }),
    };
    let status = ended.unwrap_or_else(|error| panic!("can't run {}: {error}", with_ipip.display()));
    if status.code() == Some(125) {
        eprintln!("error: the kernel tests need a kernel with ipip, and did NOT run: see above");
    }
    status.code()
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(101))
}
