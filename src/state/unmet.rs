//! What a host should have, as far as its facts tell.

use std::collections::BTreeMap;

use super::{InterfaceName, State};

/// What a host should have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// The state. A tunnel that lacks a fact is in it as it is on the host.
    pub state: State,
    /// Tunnels that lack a fact: until it's known they, their addresses and their routes stay as they are.
    pub unmet: BTreeMap<InterfaceName, Unmet>,
    /// Tunnels whose MTU is more than their outer path carries, and what would fit, in bytes.
    pub too_large: BTreeMap<InterfaceName, u32>,
}

impl From<State> for Desired {
    fn from(state: State) -> Self {
        Self {
            state,
            unmet: BTreeMap::new(),
            too_large: BTreeMap::new(),
        }
    }
}

/// A fact about the host that a tunnel needs and the host doesn't have: its `local` is to be looked up on a device that
/// has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "tunnel {tunnel}: its `local` is the first IPv4 address of {device}, and {device} has none here"
)]
pub struct Unmet {
    /// The tunnel.
    pub tunnel: InterfaceName,
    /// The device.
    pub device: InterfaceName,
}
