//! A process that is left behind when a run is killed in the middle: it takes back what was done.
//!
//! It's a copy of the run itself, made before anything is touched, so it knows what was there, and holds the namespace's
//! lock as the run does: nobody comes between.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, setsid, waitpid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::Error;
use super::journal::{Ended, Journal, Reason};
use crate::kernel::Kernel;
use crate::plan::{Terms, Undo};
use crate::reconcile;

/// What it's told when the run needs it no more.
const DISMISSED: &[u8] = b"done";

/// The process. Dropped, or lost with the run, it takes back what was done.
pub struct Heir {
    process: Pid,
    pipe: File,
}

impl Heir {
    /// Leaves a copy of this process behind, which must have no other thread. Under the namespace's lock.
    ///
    /// # Errors
    /// [`Error::Guardian`]: no process more, or no descriptor.
    pub fn leave(netns: Option<&str>, terms: &Terms, undo: &Undo) -> Result<Self, Error> {
        let (ear, mouth) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Error::Guardian(errno.into()))?;
        // SAFETY: the copy has this thread alone, and this process no other that could hold a lock the copy needs: the
        // one that enters namespaces has ended.
        match unsafe { libc::fork() } {
            -1 => Err(Error::Guardian(io::Error::last_os_error())),
            0 => {
                drop(mouth);
                wait(ear, netns, terms, undo);
                // SAFETY: ends this process at once: what the run has buffered is the run's to write.
                unsafe { libc::_exit(0) }
            }
            process => Ok(Self {
                process: Pid::from_raw(process)
                    .ok_or_else(|| Error::Guardian(io::ErrorKind::InvalidData.into()))?,
                pipe: mouth.into(),
            }),
        }
    }

    /// Nothing is to be taken back, or somebody else sees to it.
    pub fn dismiss(self) {
        let Self { process, mut pipe } = self;
        // If it's gone there is nobody to dismiss.
        let _ = pipe.write_all(DISMISSED);
        // It listens to the end.
        drop(pipe);
        while let Err(rustix::io::Errno::INTR) = waitpid(Some(process), WaitOptions::empty()) {}
    }
}

/// Until the run is over, or gone.
fn wait(ear: OwnedFd, netns: Option<&str>, terms: &Terms, undo: &Undo) {
    // What ends the run, by hand or by a service manager, isn't meant for whoever cleans up after it.
    let _ = setsid();
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        let _ = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
    }
    let mut told = Vec::new();
    let _ = File::from(ear).read_to_end(&mut told);
    if told == DISMISSED {
        return;
    }
    let ended = Kernel::open(netns)
        .map_err(Error::from)
        .and_then(|mut kernel| {
            let taken_back = reconcile::take_back(&mut kernel, undo, terms.protocol);
            let journal = Journal::new(terms, std::process::id());
            let ended = Ended::new(&journal, Reason::Interrupted, Vec::new(), &taken_back);
            ended.leave(kernel.namespace())?;
            Ok(ended)
        });
    let text = match ended {
        Ok(ended) => ended.to_string(),
        Err(error) => format!("what was done before the run ended couldn't be taken back: {error}"),
    };
    let _ = writeln!(io::stderr(), "tunnelform: {text}");
}
