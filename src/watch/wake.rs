//! The one place where the daemon waits: for signals, for the file, for the kernel, for probes, for the time.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use super::files::Files;
use crate::kernel::Monitor;

/// Two ends of a wire: what is written at one wakes the other.
struct Wire {
    near: UnixStream,
    far: UnixStream,
}

impl Wire {
    fn new() -> io::Result<Self> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        Ok(Self { near, far })
    }

    /// Whether something has come; takes it.
    fn has_come(&mut self) -> bool {
        let mut buffer = [0; 256];
        let mut come = false;
        while self.near.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {
            come = true;
        }
        come
    }
}

/// What may wake the daemon.
pub(super) struct Wake {
    reload: Wire,
    stop: Wire,
    probes: Wire,
}

/// What has woken it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Woken {
    pub(super) file: bool,
    pub(super) kernel: bool,
    pub(super) probes: bool,
    pub(super) reload: bool,
    pub(super) stop: bool,
}

impl Wake {
    /// From here on SIGHUP, SIGTERM and SIGINT wake the daemon instead of ending it.
    pub(super) fn new() -> io::Result<Self> {
        let wake = Self {
            reload: Wire::new()?,
            stop: Wire::new()?,
            probes: Wire::new()?,
        };
        pipe::register(SIGHUP, wake.reload.far.try_clone()?)?;
        for signal in [SIGTERM, SIGINT] {
            pipe::register(signal, wake.stop.far.try_clone()?)?;
        }
        Ok(wake)
    }

    /// What the thread that probes wakes the daemon by.
    pub(super) fn bell(&self) -> io::Result<UnixStream> {
        self.probes.far.try_clone()
    }

    /// Sleeps until something happens, or for `limit`.
    pub(super) fn wait(
        &mut self,
        files: &Files,
        monitor: Option<&Monitor>,
        limit: Duration,
    ) -> io::Result<Woken> {
        let mut descriptors: Vec<BorrowedFd> = vec![
            files.as_fd(),
            self.reload.near.as_fd(),
            self.stop.near.as_fd(),
            self.probes.near.as_fd(),
        ];
        descriptors.extend(monitor.map(AsFd::as_fd));
        let readable = sleep(&descriptors, Some(Instant::now() + limit))?;
        Ok(Woken {
            file: files.has_changed(),
            kernel: readable.get(4).copied().unwrap_or(false),
            probes: self.probes.has_come(),
            reload: self.reload.has_come(),
            stop: self.stop.has_come(),
        })
    }
}

/// Sleeps until there is something to read, or until `end`. Which of them can be read.
pub(super) fn sleep(descriptors: &[BorrowedFd], end: Option<Instant>) -> io::Result<Vec<bool>> {
    let mut polled: Vec<PollFd> = descriptors
        .iter()
        .map(|descriptor| PollFd::from_borrowed_fd(*descriptor, PollFlags::IN))
        .collect();
    let limit = end.map(|end| {
        let limit = end.saturating_duration_since(Instant::now());
        Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        }
    });
    match poll(&mut polled, limit.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect())
}
