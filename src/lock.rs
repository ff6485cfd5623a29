//! One run at a time in a network namespace.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::kernel::NamespaceId;

/// Where locks are kept. Gone at the next boot, as what they guard.
const RUN_DIRECTORY: &str = "/run/tunnelform";
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
    _file: File,
}

impl Lock {
    /// Takes the lock of a network namespace; waits for it at most `limit`.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::Held`].
    pub fn take(namespace: NamespaceId, limit: Duration) -> Result<Self, Error> {
        let directory = std::env::var_os("TUNNELFORM_RUN_DIR")
            .map_or_else(|| RUN_DIRECTORY.into(), PathBuf::from);
        let path = directory.join(format!(
            "netns-{}-{}.lock",
            namespace.device, namespace.inode
        ));
        let file = open(&directory, &path).map_err(|source| Error::Open {
            path: path.clone(),
            source,
        })?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
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
fn open(directory: &Path, path: &Path) -> io::Result<File> {
    match fs::DirBuilder::new().mode(0o755).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(no_follow)
        .open(path)
}
