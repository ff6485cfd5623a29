//! A process that is left behind when a run is killed in the middle: it takes back what was done.
//!
//! It's this program again, started before anything is touched, and small: what it needs it reads only when the run is
//! gone. Until then that is in memory which has no name and goes with its last reader. The namespace's lock is its own, too:
//! nobody comes between.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::journal::{self, Journal, Reason};
use super::{Error, go_back};
use crate::kernel::Kernel;
use crate::lock::Lock;
use crate::plan::{Terms, Undo};

/// The process. Dropped, or lost with the run, it takes back what was done.
pub struct Heir(Child);

impl Heir {
    /// Leaves it behind, by running this program's `inherit`. Under the namespace's lock.
    ///
    /// # Errors
    /// [`Error::Guardian`]: no process more, or no descriptor, or no memory.
    pub fn leave(
        netns: Option<&str>,
        terms: &Terms,
        undo: &Undo,
        lock: &Lock,
    ) -> Result<Self, Error> {
        let start = || {
            let will = unnamed_file()?;
            journal::put(&will, &Journal::of(terms, undo))?;
            let mut heir = Command::new("/proc/self/exe");
            heir.arg0("tunnelform")
                .arg("inherit")
                .arg(format!("--will={}", will.as_raw_fd()))
                .args(netns.map(|name| format!("--netns={name}")))
                // What a terminal sends to the run isn't meant for whoever cleans up after it.
                .process_group(0)
                .stdin(Stdio::piped())
                .stdout(Stdio::null());
            let _handed_on = [Inherited::of(&will)?, Inherited::of(lock)?];
            heir.spawn()
        };
        start().map(Self).map_err(Error::Guardian)
    }

    /// Nothing is to be taken back, or somebody else sees to it.
    pub fn dismiss(self) {
        let Self(mut heir) = self;
        // It has nothing to put in order, and a short run is over before it has even begun. If it's gone, so much the better.
        let _ = heir.kill();
        let _ = heir.wait();
    }
}

/// A host may refuse memory that could be executed (`vm.memfd_noexec`), and Linux before 6.3 can't be told that it can't.
fn unnamed_file() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC;
    let memory = match memfd_create("will", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create("will", flags),
        made => made,
    };
    Ok(memory?.into())
}

/// A descriptor that goes to whatever program is started meanwhile.
struct Inherited<'a>(BorrowedFd<'a>);

impl<'a> Inherited<'a> {
    fn of(file: &'a impl AsFd) -> io::Result<Self> {
        fcntl_setfd(file, FdFlags::empty())?;
        Ok(Self(file.as_fd()))
    }
}

impl Drop for Inherited<'_> {
    fn drop(&mut self) {
        let _ = fcntl_setfd(self.0, FdFlags::CLOEXEC);
    }
}

/// Be the heir: waits until the run is gone, and then takes back what it has done. What `tunnelform inherit` does.
/// `will` is the descriptor of what it has left.
///
/// # Errors
/// When there is no such will, or it can't be done.
pub fn inherit(netns: Option<&str>, will: RawFd) -> Result<(), Error> {
    // A service manager's signal to all is meant for the run.
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        let _ = signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)));
    }
    // Nobody writes: it ends with the run, and only with it.
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    let journal = Journal::read_will(Path::new(&format!("/proc/self/fd/{will}")))?;
    let mut kernel = Kernel::open(netns)?;
    let (_, ended) = go_back(&mut kernel, &journal, Reason::Interrupted, Vec::new());
    ended.leave(kernel.namespace())?;
    let _ = writeln!(io::stderr(), "tunnelform: {ended}");
    Ok(())
}
