//! `tunnelform confirm` and `tunnelform rollback`: what becomes of a change that is on trial.

use std::io::{self, BufRead, Write};

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tunnelform::kernel::{Kernel, NamespaceId};
use tunnelform::trial::{self, Unconfirmed};

use super::input::Netns;
use super::outcome::tell_of_return;
use super::{DONE, FAILED, Failure, Result, Terminal, complain, note, print, require_privilege};

#[derive(Args)]
#[command(after_help = "Exit codes: 0 it's kept, 1 there is none, or it was taken back already.")]
pub(super) struct Confirm {
    #[command(flatten)]
    netns: Netns,
}

#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 the host is as before, 1 there is no change to take back, 3 not everything could be \
                  taken back."
)]
pub(super) struct Rollback {
    #[command(flatten)]
    netns: Netns,
}

#[derive(Args)]
pub(super) struct Guard {
    #[command(flatten)]
    netns: Netns,
}

#[derive(Args)]
pub(super) struct Inherit {
    #[command(flatten)]
    netns: Netns,
    /// The descriptor of what the run has left.
    #[arg(long, value_name = "NUMBER")]
    will: i32,
}

impl Confirm {
    pub(super) fn run(self) -> Result {
        require_privilege()?;
        let kernel = Kernel::open(self.netns.name())?;
        let topology = trial::confirm(kernel.namespace())?;
        print(&format!("The change of {topology} is kept.\n"))?;
        Ok(DONE)
    }
}

impl Rollback {
    pub(super) fn run(self, terminal: &Terminal) -> Result {
        require_privilege()?;
        let mut kernel = Kernel::open(self.netns.name())?;
        let (topology, taken_back) = trial::roll_back(&mut kernel)?;
        if !taken_back.is_complete() {
            return Ok(tell_of_return(&taken_back, terminal));
        }
        print(&format!(
            "The change of {topology} is taken back, and the host is as before.\n"
        ))?;
        Ok(DONE)
    }
}

impl Guard {
    pub(super) fn run(self) -> Result {
        let guarded = trial::guard(self.netns.name());
        if let Err(error) = &guarded {
            // Whoever waits for a word that it's ready reads this in its place.
            let _ = writeln!(io::stdout(), "{error}");
        }
        guarded?;
        Ok(DONE)
    }
}

impl Inherit {
    pub(super) fn run(self) -> Result {
        let inherited = trial::inherit(self.netns.name(), self.will).map_err(Failure::from);
        inherited.map_err(|Failure(why)| {
            Failure(format!(
                "what was done before the run ended couldn't be taken back: {why}"
            ))
        })?;
        Ok(DONE)
    }
}

/// Asks whoever sits at the terminal whether to keep the change, until it's kept or taken back. `code` is what the
/// command ends with where it's kept.
pub(super) fn ask(namespace: NamespaceId, code: u8, terminal: &Terminal) -> Result {
    let stdin = io::stdin();
    loop {
        let Some(left) = Unconfirmed::find(namespace)?.and_then(|change| change.seconds_left)
        else {
            show("");
            return tell_of_end(namespace, code, terminal);
        };
        show(&format!(
            "Press Enter to keep the change. Taken back in {left} s "
        ));
        if !is_pressed(&stdin)? {
            continue;
        }
        let mut line = String::new();
        if stdin.lock().read_line(&mut line)? == 0 {
            show("");
            note(
                terminal,
                "nobody is at the terminal any more: the change stays on trial",
            );
            return Ok(code);
        }
        return match trial::confirm(namespace) {
            Ok(_) => {
                print("The change is kept.\n")?;
                Ok(code)
            }
            Err(trial::Error::Nothing(_)) => tell_of_end(namespace, code, terminal),
            Err(error) => Err(error.into()),
        };
    }
}

/// One line that is written over again and again.
fn show(text: &str) {
    let mut stderr = io::stderr();
    // Nobody is left to tell when standard error is closed.
    let _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush());
}

/// Within a second, as the time that is left is shown.
fn is_pressed(stdin: &io::Stdin) -> std::result::Result<bool, Failure> {
    let mut polled = [PollFd::new(stdin, PollFlags::IN)];
    let second = Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    match poll(&mut polled, Some(&second)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(errno) => Err(io::Error::from(errno).into()),
    }
}

/// The change isn't on trial any more: somebody else has confirmed it, or it was taken back.
fn tell_of_end(namespace: NamespaceId, code: u8, terminal: &Terminal) -> Result {
    match trial::ended(namespace)? {
        Some(ended) => {
            complain(terminal, &ended.to_string());
            Ok(FAILED)
        }
        None => {
            print("The change is kept.\n")?;
            Ok(code)
        }
    }
}
