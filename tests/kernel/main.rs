//! The promises of tunnelform, seen on a real kernel through the real binary.
//!
//! `cargo test --test kernel -- FILTER` boots a kernel with ipip, or uses this machine's (`tests/with-ipip`), once for
//! all tests. `ip` is the independent witness: no test believes what tunnelform says of itself alone.

mod attributes;
mod commands;
mod drift;
mod effects;
mod export;
mod failure;
mod fleet;
mod kill;
mod lock;
mod mtu;
mod netns;
mod ownership;
mod random;
mod scale;
mod seed;
mod traffic;
mod world;

use std::path::Path;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};

/// Seconds for all tests together: several times what a slow machine takes.
const TIME_LIMIT: u32 = 3000;

/// What `tests/with-ipip` sets for the command that it runs.
const INSIDE: &str = "TUNNELFORM_KERNEL";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if std::env::var_os(INSIDE).is_none() && !arguments.list {
        return on_a_kernel();
    }
    // The tests are sequences of programs that share one kernel and its locks.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials()).exit_code()
}

fn trials() -> Vec<Trial> {
    [
        seed::trials(),
        commands::trials(),
        attributes::trials(),
        ownership::trials(),
        drift::trials(),
        effects::trials(),
        mtu::trials(),
        failure::trials(),
        fleet::trials(),
        export::trials(),
        kill::trials(),
        traffic::trials(),
        lock::trials(),
        netns::trials(),
        scale::trials(),
        random::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Runs this program again, on a kernel that has ipip.
fn on_a_kernel() -> ExitCode {
    let with_ipip = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/with-ipip");
    let this =
        std::env::current_exe().unwrap_or_else(|error| panic!("no name of this program: {error}"));
    let status = Command::new(&with_ipip)
        .arg(this)
        .args(std::env::args_os().skip(1))
        .env("TUNNELFORM_KERNEL_TIMEOUT", TIME_LIMIT.to_string())
        .status()
        .unwrap_or_else(|error| panic!("can't run {}: {error}", with_ipip.display()));
    let code = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(101);
    if code == 125 {
        eprintln!("error: the kernel tests need a kernel with ipip, and did NOT run: see above");
    }
    ExitCode::from(code)
}
