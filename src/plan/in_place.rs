//! What the kernel changes in place, and what only a deletion and a creation can change.

use super::Delta;
use crate::state::{Address, AddressKey, Kind, Tunnel};

/// How to make one tunnel of another.
pub(super) fn change_tunnel(from: &Tunnel, to: &Tunnel) -> Delta<Tunnel> {
    let (from, to) = (from.clone(), to.clone());
    let Kind::Ipip(old) = &from.kind;
    let Kind::Ipip(new) = &to.kind;
    let why = if old.external != new.external {
        "the kernel can't turn external mode on or off in place"
    } else if old.remote.is_some() != new.remote.is_some() {
        "the kernel can't turn a tunnel between multipoint and one remote in place"
    } else if old.mode != new.mode {
        // ip_tunnel_update() copies every option but the protocol, and reports success.
        "the kernel can't change a tunnel's mode in place"
    } else {
        return Delta::Update { from, to };
    };
    Delta::Replace {
        from,
        to,
        why: why.into(),
    }
}

/// How to make one address of another.
///
/// In place the kernel changes an IPv4 address's metric and lifetime (`inet_rtm_newaddr`; what else the request says is
/// ignored, without an error), and of an IPv6 address also the mark, `noprefixroute` and the peer, but takes neither a
/// metric nor a peer away (`inet6_addr_modify`).
pub(super) fn change_address(key: AddressKey, from: &Address, to: &Address) -> Delta<Address> {
    let (from, to) = (from.clone(), to.clone());
    let mut in_place = Address {
        metric: to.metric,
        lifetime: to.lifetime,
        ..from.clone()
    };
    if key.local.is_ipv6() {
        in_place.metric = if to.metric == 0 {
            from.metric
        } else {
            to.metric
        };
        in_place.protocol = to.protocol;
        in_place.noprefixroute = to.noprefixroute;
        in_place.peer = to.peer.or(from.peer);
    }
    if in_place == to {
        Delta::Update { from, to }
    } else {
        let why = "the kernel can't change these properties of an address in place".into();
        Delta::Replace { from, to, why }
    }
}
