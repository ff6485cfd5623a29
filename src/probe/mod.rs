//! Whether the hosts at the other ends of the tunnels answer, how fast, and how large a packet may be.
//!
//! [`targets`] tells from a topology whom to ask; [`icmp`] asks; [`Report`] is what is shown. Only [`icmp`] has sockets
//! and a clock.

pub mod icmp;
mod report;
mod search;
mod session;
mod target;

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use thiserror::Error;

use crate::state::InterfaceName;
pub(crate) use report::too_narrow;
pub use report::{Followed, Report, Row, State, schema};
pub use search::Search;
pub use target::{Target, Terms, targets};

/// Why nothing can be probed.
#[derive(Debug, Error)]
pub enum Error {
    /// The kernel refuses raw sockets.
    #[error("probing needs CAP_NET_RAW, for raw ICMP sockets: run as root")]
    Privilege,
    /// No socket, or it can't be waited for.
    #[error("can't use a raw ICMP socket")]
    Socket(#[source] io::Error),
}

/// What [`icmp::probe`] is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The device that packets leave by; `None`: any.
    pub device: Option<InterfaceName>,
    /// Whom to ask.
    pub to: Ipv4Addr,
    /// How many echoes.
    pub count: u32,
    /// How long an answer may take.
    pub timeout: Duration,
    /// The MTU of the tunnel; `None`: it isn't known.
    pub mtu: Option<u32>,
    /// Look for the path's MTU, up to the tunnel's.
    pub search: bool,
}

/// What became of an [`Order`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Echoes that should have been answered.
    pub sent: u32,
    /// How long those took that were.
    pub times: Vec<Duration>,
    /// The path's MTU, where it was looked for.
    pub mtu: Option<Mtu>,
    /// The last that went wrong with an echo, in words.
    pub complaint: Option<String>,
}

/// The largest packets that pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mtu {
    /// The largest that was answered, in bytes with its IP header.
    pub path: u32,
    /// The tunnel's own MTU.
    pub tunnel: u32,
    /// Who said that larger ones don't pass, in words; `None`: they vanish.
    pub complaint: Option<String>,
}

impl Outcome {
    /// Nothing could be sent.
    fn failed(complaint: String) -> Self {
        Self {
            complaint: Some(complaint),
            ..Self::default()
        }
    }
}
