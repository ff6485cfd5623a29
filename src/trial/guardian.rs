//! The process that waits, and takes the change back unless it's confirmed.
//!
//! It's told by a pipe what becomes of the run that made the change: a pipe that closes without a word means that the
//! run was killed.

use std::borrow::Cow;
use std::fs::{File, TryLockError};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT};

use super::journal::{Ended, Journal, Reason};
use super::{Error, LOCK_LIMIT, go_back};
use crate::kernel::{Kernel, NamespaceId};
use crate::lock::{self, Lock, run_file};
use crate::plan::{Terms, Undo};

/// What the guardian says when it's there, and what it's told when the change is made.
const READY: &str = "ready";
const MADE: &str = "made";
/// How often it looks whether the change was confirmed.
const LOOK: Duration = Duration::from_millis(250);
/// How long a guardian's place is waited for: the one before it has looked again by then, and left.
const UNTIL_LEFT: Duration = Duration::from_secs(2);

/// A change that is made under a guardian's eyes. Dropped, it's taken back.
pub struct Guarded {
    namespace: NamespaceId,
    journal: Journal<'static>,
    within: Duration,
    pipe: ChildStdin,
}

impl Guarded {
    /// Starts a guardian, by running this program's `guard`. Under the namespace's lock.
    ///
    /// # Errors
    /// [`Error::Guardian`].
    pub fn begin(
        namespace: NamespaceId,
        netns: Option<&str>,
        terms: &Terms,
        within: Duration,
    ) -> Result<Self, Error> {
        // However this program is called, and even if another has taken its file's place: this one.
        let mut guardian = Command::new("/proc/self/exe")
            .arg0("tunnelform")
            .arg("guard")
            .args(netns.map(|name| format!("--netns={name}")))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::Guardian)?;
        let ends = guardian.stdin.take().zip(guardian.stdout.take());
        let (pipe, answer) =
            ends.ok_or_else(|| Error::Guardian(io::ErrorKind::BrokenPipe.into()))?;
        let mut line = String::new();
        BufReader::new(answer)
            .read_line(&mut line)
            .map_err(Error::Guardian)?;
        if line.trim_end() != READY {
            let why = io::Error::other(line.trim_end().to_owned());
            return Err(Error::Guardian(why));
        }
        Ok(Self {
            namespace,
            journal: Journal::new(terms, guardian.id()),
            within,
            pipe,
        })
    }

    /// Writes down what is about to be touched, as it is.
    ///
    /// # Errors
    /// [`Error::Journal`]: without it there is no way back.
    pub fn note(&mut self, undo: &Undo) -> Result<(), Error> {
        self.journal.undo = Cow::Owned(undo.clone());
        self.journal.write(self.namespace)
    }

    /// The change is made: from now on it's on trial.
    ///
    /// # Errors
    /// [`Error::Journal`], [`Error::Guardian`].
    pub fn made(mut self) -> Result<(), Error> {
        Ended::forget(self.namespace)?;
        self.journal.begin(self.within);
        self.journal.write(self.namespace)?;
        writeln!(self.pipe, "{MADE}").map_err(Error::Guardian)
    }

    /// There is nothing to take back.
    ///
    /// # Errors
    /// [`Error::Journal`].
    pub fn abandon(self) -> Result<(), Error> {
        Journal::remove(self.namespace)
    }
}

/// Whether a guardian waits in a network namespace.
pub(super) fn is_there(namespace: NamespaceId) -> bool {
    match File::open(run_file(namespace, "guardian")) {
        Ok(file) => matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
        // Who may not look can't tell; mostly it's there.
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

/// Be the guardian: waits until the change is confirmed, or takes it back. What `tunnelform guard` does.
///
/// # Errors
/// When the change can't be taken back; before that, what is said on standard output.
pub fn guard(netns: Option<&str>) -> Result<(), Error> {
    let mut kernel = Kernel::open(netns)?;
    let namespace = kernel.namespace();
    detach().map_err(Error::Guardian)?;
    let _there = stand(namespace).map_err(Error::Guardian)?;
    writeln!(io::stdout(), "{READY}").map_err(Error::Guardian)?;
    let mut line = String::new();
    let told = BufReader::new(io::stdin()).read_line(&mut line);
    let reason = if told.is_ok() && line.trim_end() == MADE {
        Reason::Unconfirmed
    } else {
        Reason::Interrupted
    };
    loop {
        let left = match Journal::read(namespace)? {
            None => return Ok(()),
            // Confirmed, and another change is on trial already.
            Some(journal) if journal.guardian != std::process::id() => return Ok(()),
            Some(_) if reason == Reason::Interrupted => Duration::ZERO,
            Some(journal) => journal.left().unwrap_or_default(),
        };
        if left.is_zero() {
            break;
        }
        std::thread::sleep(left.min(LOOK));
    }
    let _lock = loop {
        // Whoever is at work ends some time, and nobody else would take the change back.
        if let Ok(lock) = Lock::take(namespace, LOCK_LIMIT) {
            break lock;
        }
    };
    // Somebody may have confirmed it meanwhile.
    match Journal::read(namespace)? {
        Some(journal) if journal.guardian == std::process::id() => {
            let (_, ended) = go_back(&mut kernel, &journal, reason, Vec::new());
            ended.leave(namespace)?;
        }
        Some(_) | None => {}
    }
    Ok(())
}

/// Leaves the terminal and the session to whoever is there.
fn detach() -> io::Result<()> {
    let _ = rustix::process::setsid();
    for signal in [SIGHUP, SIGINT] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    Ok(())
}

/// Lets others know that a guardian is here, as long as the file is open.
pub(super) fn stand(namespace: NamespaceId) -> io::Result<File> {
    let file = lock::open(&run_file(namespace, "guardian"))?;
    // The last one may be about to see that it isn't needed any more.
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if start.elapsed() < UNTIL_LEFT => {
                std::thread::sleep(LOOK / 10);
            }
            Err(error) => return Err(error.into()),
        }
    }
}
