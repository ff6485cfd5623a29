//! A state as netlink messages, and back, without a kernel: for those who measure what that costs.

use std::collections::BTreeSet;

use super::route::Family;
use super::snapshot::{Names, gone};
use super::socket::Request;
use super::{Error, Indices, address, link, message, route};
use crate::state::{InterfaceName, State};

/// The messages that make a state.
pub struct Messages {
    bytes: Vec<u8>,
    names: Names,
}

/// Writes what makes the state where nothing of it is there, as if every device existed.
///
/// # Errors
/// [`Error::Malformed`] for a device without an index, of which there is none here.
pub fn encode(state: &State) -> Result<Messages, Error> {
    let devices = devices(state);
    let indices: Indices = devices.iter().copied().zip(1..).collect();
    let missing = |device| Error::Malformed(format!("no device {device}"));
    let mut bytes = Vec::new();
    let mut put = |Request { message, flags }| message::write(&mut bytes, message, flags, 0);
    for (name, tunnel) in &state.tunnels {
        let requests = link::create(*name, indices.get(name).copied(), tunnel, &indices);
        requests.map_err(missing)?.into_iter().for_each(&mut put);
    }
    for (key, value) in &state.addresses {
        let on_tunnel = state.tunnels.contains_key(&key.device);
        put(address::put(
            key,
            value,
            indices[&key.device],
            true,
            on_tunnel,
        ));
    }
    for (key, value) in &state.routes {
        put(route::put(key, value, &indices, true).map_err(missing)?);
    }
    let names = Names::new((1..).zip(devices));
    Ok(Messages { bytes, names })
}

/// Every device that the state names.
fn devices(state: &State) -> BTreeSet<InterfaceName> {
    let tunnels = state.tunnels.iter();
    let tunnels = tunnels.flat_map(|(name, tunnel)| [Some(*name), tunnel.endpoints().device]);
    let carrying = state.addresses.keys().map(|key| key.device);
    let ways = state.routes.values().flat_map(|route| route.devices());
    tunnels.flatten().chain(carrying).chain(ways).collect()
}

impl Messages {
    /// Reads the state again. A tunnel is as its first message makes it: down, without an alias.
    ///
    /// # Errors
    /// [`Error::Malformed`], which messages of [`encode`]'s aren't.
    pub fn decode(&self) -> Result<State, Error> {
        const RTM_NEWLINK: u16 = 16;
        const RTM_NEWADDR: u16 = 20;
        const RTM_NEWROUTE: u16 = 24;
        let name_of = |index| self.names.get(index);
        let (mut tunnels, mut addresses, mut routes) = (Vec::new(), Vec::new(), Vec::new());
        for message in message::messages(&self.bytes) {
            let (header, payload) = message?;
            match header.message_type {
                RTM_NEWLINK => {
                    let raw = link::decode(payload)?;
                    let named = |index| name_of(index).unwrap_or_else(|| gone(index));
                    let tunnel = raw.tunnel.map(|tunnel| (raw.name, tunnel.named(named)));
                    tunnels.extend(tunnel);
                }
                RTM_NEWADDR => {
                    let raw = address::decode(payload, name_of)?;
                    addresses.extend(raw.map(|raw| (raw.key, raw.address)));
                }
                RTM_NEWROUTE => {
                    let family = match payload.first() {
                        Some(&route::AF_INET) => Family::V4,
                        Some(_) | None => Family::V6,
                    };
                    routes.extend(route::decode(payload, family, name_of)?);
                }
                _ => {}
            }
        }
        Ok(State {
            tunnels: tunnels.into_iter().collect(),
            addresses: addresses.into_iter().collect(),
            routes: routes.into_iter().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, hash_map};
    use proptest::prelude::*;

    use super::super::roundtrip::{any_address, any_route, device, tunnel};
    use super::*;
    use crate::state::AdminState;

    proptest! {
        #[test]
        fn a_state_is_read_as_it_was_written(
            tunnels in btree_map(device(), tunnel(), 0..3),
            addresses in hash_map(any::<u8>(), any_address(), 0..20),
            routes in hash_map(any::<u8>(), any_route(), 0..20),
        ) {
            let mut state = State {
                tunnels,
                addresses: addresses.into_values().collect(),
                routes: routes.into_values().collect(),
            };
            let read = encode(&state).unwrap().decode().unwrap();
            for tunnel in state.tunnels.values_mut() {
                tunnel.state = AdminState::Down;
                tunnel.alias = Default::default();
            }
            prop_assert_eq!(read, state);
        }
    }
}
