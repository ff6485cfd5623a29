//! The kernel: what it holds, and how a plan is carried out on it. The only place that knows netlink.

mod address;
#[doc(hidden)]
pub mod codec;
mod execute;
mod link;
mod message;
mod monitor;
mod netns;
#[cfg(test)]
pub(crate) mod roundtrip;
mod route;
mod snapshot;
mod socket;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;

use thiserror::Error;

use crate::plan::{Outcome, Plan, Scope};
use crate::state::{Device, InterfaceName, Observed};
pub use monitor::{Interest, Monitor, News};
pub use snapshot::Extent;
use socket::Channel;
pub use socket::Traffic;

type Indices = HashMap<InterfaceName, u32>;

/// Why the kernel can't be asked, or its answer not be understood.
#[derive(Debug, Error)]
pub enum Error {
    /// No rtnetlink socket.
    #[error("can't open an rtnetlink socket")]
    Open(#[source] io::Error),
    /// The socket failed in the middle.
    #[error("the conversation with the kernel broke off")]
    Talk(#[source] io::Error),
    /// The kernel refused a question.
    #[error("the kernel refused to tell its state: {0}")]
    Refused(Refusal),
    /// The kernel's answer makes no sense here.
    #[error("can't understand the kernel's answer: {0}")]
    Malformed(String),
    /// Not a namespace's name.
    #[error(
        "{0:?} can't be the name of a network namespace: `ip netns list` shows those that exist"
    )]
    NamespaceName(String),
    /// The namespace can't be entered.
    #[error("can't enter the network namespace {name:?}")]
    Namespace {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// The kernel's "no" to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The error number, positive.
    pub errno: i32,
    /// The kernel's own sentence (extended acknowledgement), where it has one.
    pub sentence: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.errno))?;
        match &self.sentence {
            Some(sentence) => write!(f, ": {sentence}"),
            None => Ok(()),
        }
    }
}

/// What to do when the kernel refuses a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRefusal {
    /// Send nothing more than what is on its way.
    Stop,
    /// Make what doesn't depend on it.
    GoOn,
}

/// A connection to the kernel, in one network namespace.
pub struct Kernel {
    channel: Channel,
    identity: NamespaceId,
    marks_addresses: bool,
}

/// What tells one network namespace from another while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceId {
    /// Device of the namespace's inode.
    pub device: u64,
    /// Number of the namespace's inode.
    pub inode: u64,
}

impl Kernel {
    /// Connects to the kernel in the network namespace `name`, or in the caller's.
    ///
    /// # Errors
    /// [`Error::NamespaceName`], [`Error::Namespace`] or [`Error::Open`].
    pub fn open(name: Option<&str>) -> Result<Self, Error> {
        let (channel, identity) = match name {
            Some(name) => netns::inside(name, &netns::open(name)?, connect)?,
            None => connect()?,
        };
        let release = rustix::system::uname();
        let marks_addresses = release_at_least(&release.release().to_string_lossy(), (5, 18));
        Ok(Self {
            channel,
            identity,
            marks_addresses,
        })
    }

    /// Which namespace this is.
    pub fn namespace(&self) -> NamespaceId {
        self.identity
    }

    /// Whether the kernel itself filters dumps, so that other programs' routes cost nothing.
    pub fn filters_dumps(&self) -> bool {
        self.channel.filters_dumps()
    }

    /// The number by which the kernel knows this connection, and marks what it does.
    fn port(&self) -> u32 {
        self.channel.port()
    }

    /// How many messages went over this connection.
    pub fn traffic(&self) -> Traffic {
        self.channel.traffic()
    }

    /// One snapshot.
    ///
    /// # Errors
    /// An answer that is refused, breaks off, or can't be understood: an object must not vanish silently.
    pub fn observe(&mut self, extent: &Extent) -> Result<Observed, Error> {
        snapshot::take(&mut self.channel, extent, self.marks_addresses)
    }

    /// A snapshot after a plan: what its `scope` doesn't concern is taken to be as it was.
    ///
    /// # Errors
    /// As of [`Self::observe`].
    pub fn observe_again(
        &mut self,
        extent: &Extent,
        known: Observed,
        scope: &Scope,
    ) -> Result<Observed, Error> {
        snapshot::take_again(&mut self.channel, extent, known, scope)
    }

    /// Takes a snapshot's routes again, with those of every protocol. `own_protocol` comes first where several share a key.
    ///
    /// # Errors
    /// As of [`Self::observe`].
    pub fn widen(&mut self, observed: &mut Observed, own_protocol: u8) -> Result<(), Error> {
        snapshot::widen(&mut self.channel, observed, own_protocol)
    }

    /// The network devices alone, with their counters.
    ///
    /// # Errors
    /// As of [`Self::observe`].
    pub fn devices(&mut self) -> Result<BTreeMap<InterfaceName, Device>, Error> {
        snapshot::devices(&mut self.channel)
    }

    /// Carries out a plan that was made for `observed`, or as much of it as `on_refusal` says. What became of each change, in their order.
    ///
    /// # Errors
    /// When the conversation itself breaks off. A change that the kernel refuses is an outcome, not an error.
    pub fn execute(
        &mut self,
        plan: &Plan,
        observed: &Observed,
        on_refusal: OnRefusal,
    ) -> Result<Vec<Outcome>, Error> {
        execute::execute(&mut self.channel, plan, observed, on_refusal)
    }
}

/// Runs `work` in a network namespace, for what only a thread inside can see (`/proc/sys/net`).
///
/// # Errors
/// [`Error::NamespaceName`] or [`Error::Namespace`].
pub fn inside_namespace<T: Send>(
    name: Option<&str>,
    work: impl FnOnce() -> T + Send,
) -> Result<T, Error> {
    match name {
        Some(name) => netns::inside(name, &netns::open(name)?, || Ok(work())),
        None => Ok(work()),
    }
}

fn connect() -> Result<(Channel, NamespaceId), Error> {
    let identity =
        rustix::fs::stat("/proc/thread-self/ns/net").map_err(|errno| Error::Open(errno.into()))?;
    Ok((
        Channel::open()?,
        NamespaceId {
            device: identity.st_dev,
            inode: identity.st_ino,
        },
    ))
}

/// Whether a kernel's release (`6.1.0-13-amd64`) is at least `wanted`.
pub fn release_at_least(release: &str, wanted: (u32, u32)) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= wanted
}
