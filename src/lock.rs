//! One run at a time in a network namespace, and who is there for longer.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::kernel::NamespaceId;
use crate::topology::Owner;

/// Where locks are kept. Gone at the next boot, as what they guard.
const RUN_DIRECTORY: &str = "/run/tunnelform";
/// More than this of what a daemon says of itself isn't read, bytes.
const LONGEST_PRESENCE: u64 = 16 << 10;
/// More than this of what a daemon says of its peers isn't read, bytes.
const LONGEST_PEERS: u64 = 1 << 20;
/// How often a lock that is held is tried again.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// Why the lock wasn't had.
#[derive(Debug, Error)]
pub enum Error {
    /// The directory or the file can't be made.
    #[error("can't open the lock {}: set TUNNELFORM_RUN_DIR to a directory that only you can write", path.display())]
    Open {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another daemon keeps the same owner's objects.
    #[error("another `tunnelform watch` (process {process}) keeps this owner's objects in this network namespace already ({} is locked)",
        path.display())]
    Watched {
        /// Its process.
        process: u32,
        /// The file that says so.
        path: PathBuf,
    },
    /// Another run holds it.
    #[error("another tunnelform is at work in this network namespace and didn't finish within {} s ({} is locked)",
        waited.as_secs(), path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
}

/// The lock. The kernel releases it when the process ends, however it ends.
pub struct Lock {
    file: File,
}

/// Whoever is given the descriptor holds the lock as well.
impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A daemon that keeps a topology in a network namespace. It's there as long as this is.
pub struct Presence {
    file: File,
    topology: String,
    /// Where others read of its peers.
    peers: PathBuf,
}

/// What others read of a [`Presence`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// Its process.
    pub process: u32,
    /// The file or directory that it follows.
    pub topology: String,
    /// How it stands, in words.
    pub standing: String,
    /// What it knows of the peers that it probes, a JSON document. `None`: it probes nobody.
    pub peers: Option<String>,
}

impl Presence {
    /// Lets others know that this process keeps `topology` here for `owner`.
    ///
    /// # Errors
    /// [`Error::Open`]; [`Error::Watched`] if another process does.
    pub fn announce(namespace: NamespaceId, owner: &Owner, topology: &str) -> Result<Self, Error> {
        let path = daemon_path(namespace, owner);
        let fail = |source| Error::Open {
            path: path.clone(),
            source,
        };
        let file = open(&path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let daemon = Daemon::find(namespace, owner);
                let process = daemon.map_or(0, |daemon| daemon.process);
                return Err(Error::Watched { process, path });
            }
            Err(fs::TryLockError::Error(source)) => return Err(fail(source)),
        }
        let mut presence = Self {
            file,
            topology: std::path::absolute(topology)
                .map_or_else(|_| topology.to_owned(), |path| path.display().to_string()),
            peers: peers_path(&path),
        };
        // A daemon that was killed has left its own.
        presence.leave(None);
        presence.tell("starting");
        Ok(presence)
    }

    /// How it stands. Nobody is told where the disk is full.
    pub fn tell(&mut self, standing: &str) {
        let text = format!("{}\n{}\n{standing}\n", std::process::id(), self.topology);
        // In this order there is always a process and a topology to read.
        let written = self
            .file
            .write_all_at(text.as_bytes(), 0)
            .and_then(|()| self.file.set_len(text.len() as u64));
        if let Err(error) = written {
            tracing::debug!("can't write how it stands: {error}");
        }
    }

    /// What is known of the peers, for others to read; `None`: nobody is probed.
    pub fn leave(&self, document: Option<&[u8]>) {
        let written = match document {
            Some(document) => replace(&self.peers, document),
            None => match fs::remove_file(&self.peers) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            },
        };
        if let Err(error) = written {
            tracing::debug!("can't write how the peers stand: {error}");
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.leave(None);
    }
}

/// Nobody ever reads half of it.
fn replace(path: &Path, document: &[u8]) -> io::Result<()> {
    let other = path.with_extension("new");
    let mut file = open_alone(&other)?;
    file.set_len(0)?;
    file.write_all(document)?;
    fs::rename(&other, path)
}

impl Daemon {
    /// The daemon that keeps an owner's objects in a network namespace.
    pub fn find(namespace: NamespaceId, owner: &Owner) -> Option<Self> {
        let path = daemon_path(namespace, owner);
        let file = File::open(&path).ok()?;
        // Who holds no lock any more is gone, and its file is what it left.
        if !matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)) {
            return None;
        }
        let mut text = String::new();
        file.take(LONGEST_PRESENCE).read_to_string(&mut text).ok()?;
        let mut lines = text.lines();
        Some(Self {
            process: lines.next()?.parse().ok()?,
            topology: lines.next()?.to_owned(),
            standing: lines.next().unwrap_or_default().to_owned(),
            peers: read(&peers_path(&path), LONGEST_PEERS),
        })
    }
}

/// At most so many bytes of a file; `None`: it isn't there, or isn't text.
fn read(path: &Path, most: u64) -> Option<String> {
    let mut text = String::new();
    let file = File::open(path).ok()?;
    file.take(most).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Beside the file that says that a daemon is there.
fn peers_path(presence: &Path) -> PathBuf {
    presence.with_extension("peers")
}

fn run_directory() -> PathBuf {
    std::env::var_os("TUNNELFORM_RUN_DIR").map_or_else(|| RUN_DIRECTORY.into(), PathBuf::from)
}

/// A network namespace's file in the run directory.
pub(crate) fn run_file(namespace: NamespaceId, name: &str) -> PathBuf {
    let NamespaceId { device, inode } = namespace;
    run_directory().join(format!("netns-{device}-{inode}.{name}"))
}

fn daemon_path(namespace: NamespaceId, owner: &Owner) -> PathBuf {
    run_file(namespace, &format!("{owner}.watch"))
}

impl Lock {
    /// Takes the lock of a network namespace; waits for it at most `limit`.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::Held`].
    pub fn take(namespace: NamespaceId, limit: Duration) -> Result<Self, Error> {
        let path = run_file(namespace, "lock");
        let file = open(&path).map_err(|source| Error::Open {
            path: path.clone(),
            source,
        })?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { file }),
                Err(fs::TryLockError::WouldBlock) if start.elapsed() < limit => {
                    std::thread::sleep(TRY_EVERY)
                }
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(Error::Held {
                        path,
                        waited: limit,
                    });
                }
                Err(fs::TryLockError::Error(source)) => return Err(Error::Open { path, source }),
            }
        }
    }
}

/// The file belongs to its maker alone: whoever can open it could hold the lock for ever.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    match fs::DirBuilder::new().mode(0o755).create(run_directory()) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    open_alone(path)
}

fn open_alone(path: &Path) -> io::Result<File> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(no_follow)
        .open(path)
}
