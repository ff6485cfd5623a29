//! Routes on the wire: `struct rtmsg`, `RTA_*`, `struct rtnexthop`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop,
    RouteNextHopFlags, RouteScope, RouteType as WireType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::message::Query;
use super::socket::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Request};
use super::{Error, Indices, wire};
use crate::state::{InterfaceName, NextHop, NextHops, Path, Route, RouteKey, RouteType, Scope};

const RTM_GETROUTE: u16 = 26;
pub(super) const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_CACHEINFO: u16 = 12;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_PREF: u16 = 20;
const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;
const RTNH_F_ONLINK: u32 = 4;
const RTM_F_CLONED: u32 = 0x200;
const RTM_F_LOOKUP_TABLE: u32 = 0x1000;
const RTM_F_FIB_MATCH: u32 = 0x2000;

/// A family, as a dump asks for it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Family {
    V4 = AF_INET,
    V6 = AF_INET6,
}

/// A request for the routes of one family in every table; of one protocol and by way of one device, where the kernel
/// filters dumps.
pub(super) fn dump(family: Family, protocol: Option<u8>, device: Option<u32>) -> Query {
    let protocol = protocol.unwrap_or(0);
    let query = Query::new(RTM_GETROUTE, &header(family, 0, protocol, 0));
    match device {
        Some(index) => query.with(RTA_OIF, &index.to_ne_bytes()),
        None => query,
    }
}

/// `struct rtmsg`: family, lengths of destination and source, TOS, table, protocol, scope and type, each a byte, and flags.
fn header(family: Family, prefix_len: u8, protocol: u8, flags: u32) -> [u8; 12] {
    let [a, b, c, d] = flags.to_ne_bytes();
    [
        family as u8,
        prefix_len,
        0,
        0,
        0,
        protocol,
        0,
        0,
        a,
        b,
        c,
        d,
    ]
}

/// The kinds of route, ours and the kernel's.
const TYPES: [(u8, RouteType); 5] = [
    (1, RouteType::Unicast),
    (6, RouteType::Blackhole),
    (7, RouteType::Unreachable),
    (8, RouteType::Prohibit),
    (9, RouteType::Throw),
];

/// Reads a route; `None` for what is no route of a table (cache entries, routes by source, another family).
pub(super) fn decode(
    payload: &[u8],
    family: Family,
    name_of: impl Fn(u32) -> Option<InterfaceName>,
) -> Result<Option<(RouteKey, Route)>, Error> {
    let (header, attributes) = wire::split::<12>(payload)?;
    let [
        wire_family,
        prefix_len,
        source_len,
        tos,
        table,
        protocol,
        scope,
        kind,
        ..,
    ] = *header;
    let flags = wire::u32(&header[8..])?;
    let unspecified = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    // A kernel without IPv6 answers a request for IPv6 with the routes of every family.
    if wire_family != family as u8 || source_len != 0 || flags & RTM_F_CLONED != 0 {
        return Ok(None);
    }
    let (mut to, mut metric, mut table) = (unspecified, 0, u32::from(table));
    let mut single = NextHop {
        via: None,
        device: None,
        weight: 1,
        onlink: flags & RTNH_F_ONLINK != 0,
    };
    let mut route = Route {
        kind: TYPES
            .iter()
            .find(|(number, _)| *number == kind)
            .map_or(RouteType::Other, |(_, kind)| *kind),
        protocol,
        scope: Scope(scope),
        src: None,
        mtu: None,
        advmss: None,
        nexthops: NextHops::new(),
        other_attributes: false,
    };
    for attribute in wire::attributes(attributes) {
        match attribute? {
            (RTA_DST, value) => to = wire::ip(value)?,
            (RTA_OIF, value) => single.device = name_of(wire::u32(value)?),
            (RTA_GATEWAY, value) => single.via = Some(wire::ip(value)?),
            (RTA_VIA, value) => single.via = Some(wire::ip(value.get(2..).unwrap_or_default())?),
            (RTA_PRIORITY, value) => metric = wire::u32(value)?,
            (RTA_PREFSRC, value) => route.src = Some(wire::ip(value)?),
            (RTA_TABLE, value) => table = wire::u32(value)?,
            (RTA_METRICS, value) => metrics(value, &mut route)?,
            (RTA_MULTIPATH, value) => multipath(value, &mut route, &name_of)?,
            // Every IPv6 route has a preference; 0 is medium.
            (RTA_PREF, [0]) | (RTA_CACHEINFO, _) => {}
            _ => route.other_attributes = true,
        }
    }
    let to = IpNet::new(to, prefix_len).map_err(|_| wire::malformed("prefix length of a route"))?;
    let drops = matches!(
        route.kind,
        RouteType::Blackhole | RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw
    );
    if drops {
        // IPv6 hangs them on lo.
        route.nexthops.clear();
    } else if route.nexthops.is_empty() {
        route.nexthops.push(single);
    }
    route.nexthops.sort();
    Ok(Some((
        RouteKey {
            table,
            to,
            tos,
            metric,
        },
        route,
    )))
}

fn metrics(value: &[u8], route: &mut Route) -> Result<(), Error> {
    for metric in wire::attributes(value) {
        match metric? {
            (RTAX_MTU, value) => route.mtu = Some(wire::u32(value)?),
            (RTAX_ADVMSS, value) => route.advmss = Some(wire::u32(value)?),
            _ => route.other_attributes = true,
        }
    }
    Ok(())
}

fn multipath(
    mut rest: &[u8],
    route: &mut Route,
    name_of: &impl Fn(u32) -> Option<InterfaceName>,
) -> Result<(), Error> {
    while !rest.is_empty() {
        let (header, _) = wire::split::<8>(rest)?;
        let length = usize::from(wire::u16(header)?);
        let attributes = rest
            .get(8..length)
            .ok_or_else(|| wire::malformed("length of a next hop"))?;
        let mut hop = NextHop {
            via: None,
            device: name_of(wire::u32(&header[4..])?),
            weight: u16::from(header[3]) + 1,
            onlink: u32::from(header[2]) & RTNH_F_ONLINK != 0,
        };
        for attribute in wire::attributes(attributes) {
            match attribute? {
                (RTA_GATEWAY, value) => hop.via = Some(wire::ip(value)?),
                (RTA_VIA, value) => hop.via = Some(wire::ip(value.get(2..).unwrap_or_default())?),
                _ => route.other_attributes = true,
            }
        }
        route.nexthops.push(hop);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

/// The request that adds a route. `new`: none may have its key yet; else it takes that one's place at once.
///
/// # Errors
/// A device that doesn't exist.
pub(super) fn put(
    key: &RouteKey,
    route: &Route,
    indices: &Indices,
    new: bool,
) -> Result<Request, InterfaceName> {
    let flags = NLM_F_CREATE | if new { NLM_F_EXCL } else { NLM_F_REPLACE };
    Ok(Request {
        message: RouteNetlinkMessage::NewRoute(encode(key, route, indices)?),
        flags,
    })
}

/// The request that deletes a route, and no other with the same key.
///
/// # Errors
/// A device that doesn't exist.
pub(super) fn delete(
    key: &RouteKey,
    route: &Route,
    indices: &Indices,
) -> Result<Request, InterfaceName> {
    Ok(Request {
        message: RouteNetlinkMessage::DelRoute(encode(key, route, indices)?),
        flags: 0,
    })
}

fn encode(key: &RouteKey, route: &Route, indices: &Indices) -> Result<RouteMessage, InterfaceName> {
    let RouteKey {
        table,
        to,
        tos,
        metric,
    } = key;
    let Route {
        kind,
        protocol,
        scope,
        src,
        mtu,
        advmss,
        nexthops,
        other_attributes: _,
    } = route;
    let mut message = RouteMessage::default();
    message.header.address_family = match to {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = to.prefix_len();
    message.header.tos = *tos;
    message.header.table = u8::try_from(*table).unwrap_or(0);
    message.header.protocol = (*protocol).into();
    message.header.scope = RouteScope::from(scope.0);
    message.header.kind = WireType::from(
        TYPES
            .iter()
            .find(|(_, own)| own == kind)
            .map_or(1, |(number, _)| *number),
    );
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Destination(to.addr().into()));
    attributes.push(RouteAttribute::Table(*table));
    if *metric != 0 {
        attributes.push(RouteAttribute::Priority(*metric));
    }
    attributes.extend(src.map(|src| RouteAttribute::PrefSource(src.into())));
    let metrics: Vec<RouteMetric> = mtu
        .map(RouteMetric::Mtu)
        .into_iter()
        .chain(advmss.map(RouteMetric::Advmss))
        .collect();
    if !metrics.is_empty() {
        attributes.push(RouteAttribute::Metrics(metrics));
    }
    match nexthops.as_slice() {
        [] => {}
        [hop] => {
            if hop.onlink {
                message.header.flags |= RouteFlags::from_bits_retain(RTNH_F_ONLINK);
            }
            attributes.extend(hop.via.map(|via| gateway(via, to)));
            attributes.extend(index_of(hop, indices)?.map(RouteAttribute::Oif));
        }
        hops => {
            let hops = hops
                .iter()
                .map(|hop| encode_hop(hop, to, indices))
                .collect::<Result<_, _>>()?;
            attributes.push(RouteAttribute::MultiPath(hops));
        }
    }
    Ok(message)
}

fn encode_hop(hop: &NextHop, to: &IpNet, indices: &Indices) -> Result<RouteNextHop, InterfaceName> {
    let mut encoded = RouteNextHop::default();
    encoded.hops = u8::try_from(hop.weight.saturating_sub(1)).unwrap_or(u8::MAX);
    encoded.interface_index = index_of(hop, indices)?.unwrap_or(0);
    if hop.onlink {
        encoded.flags = RouteNextHopFlags::Onlink;
    }
    encoded
        .attributes
        .extend(hop.via.map(|via| gateway(via, to)));
    Ok(encoded)
}

fn index_of(hop: &NextHop, indices: &Indices) -> Result<Option<u32>, InterfaceName> {
    hop.device
        .map(|device| indices.get(&device).copied().ok_or(device))
        .transpose()
}

/// A gateway of the route's own family, or an IPv6 one of an IPv4 route (RFC 5549).
fn gateway(via: IpAddr, to: &IpNet) -> RouteAttribute {
    match (via, to) {
        (IpAddr::V6(via), IpNet::V4(_)) => RouteAttribute::Via(RouteVia::Inet6(via)),
        (via, _) => RouteAttribute::Gateway(RouteAddress::from(via)),
    }
}

/// A request for the route to an address, as the table holds it.
pub(super) fn look_up(address: IpAddr) -> Query {
    let flags = RTM_F_FIB_MATCH | RTM_F_LOOKUP_TABLE;
    match address {
        IpAddr::V4(address) => Query::new(RTM_GETROUTE, &header(Family::V4, 32, 0, flags))
            .with(RTA_DST, &address.octets()),
        IpAddr::V6(address) => Query::new(RTM_GETROUTE, &header(Family::V6, 128, 0, flags))
            .with(RTA_DST, &address.octets()),
    }
}

/// The way that a looked-up route leads, if it leads out of the host. `mtu_of` tells a device's.
pub(super) fn path(
    key: &RouteKey,
    route: &Route,
    mtu_of: impl Fn(InterfaceName) -> Option<u32>,
) -> Option<Path> {
    let device = route
        .devices()
        .next()
        .filter(|_| route.kind == RouteType::Unicast)?;
    let mtu = mtu_of(device)?;
    Some(Path {
        device,
        mtu: route.mtu.map_or(mtu, |route| route.min(mtu)),
        prefix_len: key.to.prefix_len(),
        table: key.table,
    })
}
