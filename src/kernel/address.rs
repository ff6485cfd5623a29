//! Addresses on the wire: `struct ifaddrmsg` and `IFA_*`.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::message::Query;
use super::socket::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Request};
use super::{Error, wire};
use crate::state::{Address, AddressKey, InterfaceName, Lifetime, Scope};

const RTM_GETADDR: u16 = 22;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_BROADCAST: u16 = 4;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFA_PROTO: u16 = 11;
const IFA_F_SECONDARY: u32 = 0x01;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_OPTIMISTIC: u32 = 0x04;
const IFA_F_TENTATIVE: u32 = 0x40;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;
/// `INFINITY_LIFE_TIME`.
const FOREVER: u32 = u32::MAX;

/// An address as it was read.
pub(super) struct RawAddress {
    pub(super) key: AddressKey,
    pub(super) address: Address,
    pub(super) secondary: bool,
    /// Under duplicate address detection still, so that no route may prefer it as a source.
    pub(super) tentative: bool,
}

/// A request for the addresses of both families: every one, or those of one device, where the kernel filters dumps.
pub(super) fn dump(device: Option<u32>) -> Query {
    // `struct ifaddrmsg`: family, length of the prefix, flags and scope, each a byte, and the index.
    let mut header = [0; 8];
    header[4..].copy_from_slice(&device.unwrap_or(0).to_ne_bytes());
    Query::new(RTM_GETADDR, &header)
}

/// Reads an address; `None` for a family other than IPv4 and IPv6, and for a device that `name_of` doesn't know (it
/// came or went meanwhile).
pub(super) fn decode(
    payload: &[u8],
    name_of: impl Fn(u32) -> Option<InterfaceName>,
) -> Result<Option<RawAddress>, Error> {
    let (header, attributes) = wire::split::<8>(payload)?;
    let [family, prefix_len, flags, scope, ..] = *header;
    let Some(device) =
        name_of(wire::u32(&header[4..])?).filter(|_| family == AF_INET || family == AF_INET6)
    else {
        return Ok(None);
    };
    let mut flags = u32::from(flags);
    let (mut on_link, mut local) = (None, None);
    let mut address = Address {
        prefix_len,
        peer: None,
        broadcast: None,
        scope: Scope(scope),
        label: None,
        noprefixroute: false,
        metric: 0,
        protocol: 0,
        lifetime: None,
    };
    for attribute in wire::attributes(attributes) {
        match attribute? {
            (IFA_ADDRESS, value) => on_link = Some(wire::ip(value)?),
            (IFA_LOCAL, value) => local = Some(wire::ip(value)?),
            (IFA_LABEL, value) => address.label = Some(wire::text(value)),
            (IFA_BROADCAST, value) => {
                address.broadcast = match wire::ip(value)? {
                    IpAddr::V4(broadcast) => Some(broadcast),
                    IpAddr::V6(_) => None,
                };
            }
            (IFA_CACHEINFO, value) => address.lifetime = lifetime(value)?,
            (IFA_FLAGS, value) => flags = wire::u32(value)?,
            (IFA_RT_PRIORITY, value) => address.metric = wire::u32(value)?,
            (IFA_PROTO, value) => address.protocol = wire::u8(value)?,
            _ => {}
        }
    }
    address.noprefixroute = flags & IFA_F_NOPREFIXROUTE != 0;
    // 0.0.0.0 of an unnumbered point-to-point device has no IFA_ADDRESS.
    let local = local
        .or(on_link)
        .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    address.peer = on_link.filter(|on_link| *on_link != local);
    let key = AddressKey::new(device, local, address.peer, prefix_len);
    Ok(Some(RawAddress {
        key,
        address,
        secondary: family == AF_INET && flags & IFA_F_SECONDARY != 0,
        tentative: flags & IFA_F_TENTATIVE != 0 && flags & IFA_F_OPTIMISTIC == 0,
    }))
}

fn lifetime(value: &[u8]) -> Result<Option<Lifetime>, Error> {
    let (preferred, valid) = (
        wire::u32(value)?,
        wire::u32(value.get(4..).unwrap_or_default())?,
    );
    Ok(Some(Lifetime { valid, preferred }).filter(|_| valid != FOREVER || preferred != FOREVER))
}

/// The request that adds an address. `new`: it must not exist yet; else it's changed in place where it does.
///
/// `on_tunnel`: there's nobody to ask about a duplicate, and the kernel asks nobody (`IFF_NOARP`), but it calls an IPv6
/// address tentative until a worker has found that out, and refuses it as a route's source meanwhile.
pub(super) fn put(
    key: &AddressKey,
    address: &Address,
    index: u32,
    new: bool,
    on_tunnel: bool,
) -> Request {
    let Address {
        prefix_len: _,
        peer: _,
        broadcast,
        scope,
        label,
        noprefixroute,
        metric,
        protocol,
        lifetime,
    } = address;
    let mut message = identify(key, address, index);
    message.header.scope = AddressScope::from(scope.0);
    message
        .attributes
        .extend(broadcast.map(AddressAttribute::Broadcast));
    message.attributes.extend(
        label
            .as_deref()
            .map(|label| AddressAttribute::Label(label.to_owned())),
    );
    let mut flags = 0;
    if *noprefixroute {
        flags |= IFA_F_NOPREFIXROUTE;
    }
    if on_tunnel && key.local.is_ipv6() {
        flags |= IFA_F_NODAD;
    }
    if flags != 0 {
        let flags = AddressFlags::from_bits_retain(flags);
        message.attributes.push(AddressAttribute::Flags(flags));
    }
    if *metric != 0 {
        message
            .attributes
            .push(AddressAttribute::RoutePriority(*metric));
    }
    if *protocol != 0 {
        message
            .attributes
            .push(AddressAttribute::Protocol(AddressProtocol::from(*protocol)));
    }
    if let Some(Lifetime { valid, preferred }) = lifetime {
        let mut info = CacheInfo::default();
        (info.ifa_valid, info.ifa_preferred) = (*valid, *preferred);
        message.attributes.push(AddressAttribute::CacheInfo(info));
    }
    let flags = NLM_F_CREATE | if new { NLM_F_EXCL } else { NLM_F_REPLACE };
    Request {
        message: RouteNetlinkMessage::NewAddress(message),
        flags,
    }
}

/// The request that deletes an address.
pub(super) fn delete(key: &AddressKey, address: &Address, index: u32) -> Request {
    Request {
        message: RouteNetlinkMessage::DelAddress(identify(key, address, index)),
        flags: 0,
    }
}

fn identify(key: &AddressKey, address: &Address, index: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = match key.local {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.prefix_len = address.prefix_len;
    message.header.index = index;
    let on_link = address.peer.unwrap_or(key.local);
    message.attributes = vec![
        AddressAttribute::Local(key.local),
        AddressAttribute::Address(on_link),
    ];
    message
}
