//! How to watch.

use std::path::PathBuf;
use std::time::Duration;

use super::Listen;

/// What to do when the daemon is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// Leave the network as it is.
    Leave,
    /// Take away what the topology owns.
    Destroy,
}

/// How to watch.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file or directory whose changes to follow.
    pub path: PathBuf,
    /// The network namespace to work in; `None`: the caller's.
    pub netns: Option<String>,
    /// How often to look although nothing was told.
    pub resync: Duration,
    /// How long a file must be left alone before it's read.
    pub debounce: Duration,
    /// How long to wait for another run in the namespace.
    pub lock_timeout: Duration,
    /// Take over what exists without our mark.
    pub adopt: bool,
    /// Let a topology that holds nothing delete everything.
    pub allow_empty: bool,
    /// What to do at the end.
    pub on_exit: OnExit,
    /// Where to answer over HTTP; `None`: nowhere.
    pub listen: Option<Listen>,
    /// How a new topology is confirmed; `None`: it needn't be.
    pub confirm: Option<Confirm>,
}

/// How a new topology is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirm {
    /// How long it's waited for.
    pub within: Duration,
    /// Whether the peers' answers confirm it.
    pub by_probe: bool,
}
