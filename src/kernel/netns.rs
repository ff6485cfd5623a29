//! Network namespaces by the name that `ip netns` gives them.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Error;

/// Where `ip netns add` binds namespaces.
const NAMED: &str = "/run/netns";

/// Opens the namespace `name`.
///
/// # Errors
/// A name that leads out of the directory, or a namespace that doesn't exist or may not be opened.
pub(super) fn open(name: &str) -> Result<File, Error> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(Error::NamespaceName(name.to_owned()));
    }
    File::open(Path::new(NAMED).join(name)).map_err(|source| Error::Namespace {
        name: name.to_owned(),
        source,
    })
}

/// Runs `work` on a thread of its own inside the namespace. The thread ends with it, so no other work ever finds
/// itself there.
pub(super) fn inside<T: Send>(
    name: &str,
    namespace: &File,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let enter = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).map_err(
            |errno| Error::Namespace {
                name: name.to_owned(),
                source: errno.into(),
            },
        )?;
        work()
    };
    std::thread::scope(|scope| match scope.spawn(enter).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
