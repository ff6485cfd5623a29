//! Devices and tunnels on the wire: `struct ifinfomsg`, `IFLA_*` and `IFLA_IPTUN_*`.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoIpTunnel, InfoKind, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, TunnelEncapFlags,
};
use smol_str::SmolStr;

use super::message::Query;
use super::socket::{NLM_F_CREATE, NLM_F_EXCL, Request};
use super::{Error, Indices, wire};
use crate::state::{
    AdminState, Counters, Device, Encap, InterfaceName, Ipip, Kind, Mode, Tos, Ttl, Tunnel,
};

const RTM_GETLINK: u16 = 18;
/// `struct ifinfomsg`, all zeros.
const ANY_DEVICE: [u8; 16] = [0; 16];
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_STATS64: u16 = 23;
const IFLA_GROUP: u16 = 27;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFF_UP: u32 = 1;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;

const IPPROTO_ANY: u8 = 0;
const IPPROTO_IPIP: u8 = 4;
const IPPROTO_MPLS: u8 = 137;

/// A device as it was read.
pub(super) struct RawLink<'a> {
    pub(super) name: InterfaceName,
    /// Without its counters.
    pub(super) device: Device,
    /// `struct rtnl_link_stats64`: the kernel gives it whether it was asked for or not.
    pub(super) statistics: Option<&'a [u8]>,
    /// Those that could be a device's name; an alternative one may be longer.
    pub(super) alternative_names: Vec<InterfaceName>,
    /// If it is a tunnel of a kind that this crate manages.
    pub(super) tunnel: Option<RawTunnel>,
}

/// A tunnel whose underlay device, if it is bound to one, is still an index: the name may come later in a dump.
pub(super) struct RawTunnel {
    tunnel: Tunnel,
    underlay: Option<u32>,
}

/// A request for every device. Without `counters` the kernel leaves IPv6's statistics out, the longest of all.
pub(super) fn dump(counters: bool) -> Query {
    let query = Query::new(RTM_GETLINK, &ANY_DEVICE);
    match counters {
        true => query,
        false => query.with(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes()),
    }
}

/// A request for one device, without its statistics.
pub(super) fn look_up(name: InterfaceName) -> Query {
    let name = format!("{name}\0");
    dump(false).with(IFLA_IFNAME, name.as_bytes())
}

/// Reads a device.
pub(super) fn decode(payload: &[u8]) -> Result<RawLink<'_>, Error> {
    let (header, attributes) = wire::split::<16>(payload)?;
    let (mut name, mut data, mut statistics) = (None, None, None);
    let mut alternative_names = Vec::new();
    let mut device = Device {
        index: wire::u32(&header[4..])?,
        kind: SmolStr::default(),
        mtu: 0,
        up: wire::u32(&header[8..])? & IFF_UP != 0,
        alias: SmolStr::default(),
        group: 0,
        counters: None,
    };
    for attribute in wire::attributes(attributes) {
        match attribute? {
            (IFLA_IFNAME, value) => name = InterfaceName::from_kernel(value),
            (IFLA_MTU, value) => device.mtu = wire::u32(value)?,
            (IFLA_IFALIAS, value) => device.alias = wire::text(value),
            (IFLA_GROUP, value) => device.group = wire::u32(value)?,
            (IFLA_STATS64, value) => statistics = Some(value),
            (IFLA_PROP_LIST, value) => {
                for property in wire::attributes(value) {
                    if let (IFLA_ALT_IFNAME, value) = property? {
                        alternative_names.extend(InterfaceName::from_kernel(value));
                    }
                }
            }
            (IFLA_LINKINFO, value) => {
                for info in wire::attributes(value) {
                    match info? {
                        (IFLA_INFO_KIND, value) => device.kind = wire::text(value),
                        (IFLA_INFO_DATA, value) => data = Some(value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let name = name.ok_or_else(|| wire::malformed("a device without a name"))?;
    let data = data.filter(|_| device.kind == "ipip");
    let tunnel = data.map(|data| RawTunnel::new(&device, data)).transpose()?;
    Ok(RawLink {
        name,
        device,
        statistics,
        alternative_names,
        tunnel,
    })
}

impl RawTunnel {
    fn new(device: &Device, data: &[u8]) -> Result<Self, Error> {
        let (ipip, underlay) = decode_ipip(data)?;
        let tunnel = Tunnel {
            kind: Kind::Ipip(ipip),
            mtu: device.mtu,
            state: if device.up {
                AdminState::Up
            } else {
                AdminState::Down
            },
            alias: device.alias.clone(),
        };
        Ok(Self { tunnel, underlay })
    }

    /// The tunnel, when the devices' names are known.
    pub(super) fn named(self, name_of: impl Fn(u32) -> InterfaceName) -> Tunnel {
        let Self {
            mut tunnel,
            underlay,
        } = self;
        let Kind::Ipip(ipip) = &mut tunnel.kind;
        ipip.device = underlay.map(name_of);
        tunnel
    }
}

/// A device's statistics, as far as they are shown.
pub(super) fn counters(value: &[u8]) -> Result<Counters, Error> {
    let field = |index: usize| wire::u64(value.get(index * 8..).unwrap_or_default());
    Ok(Counters {
        rx_packets: field(0)?,
        tx_packets: field(1)?,
        rx_bytes: field(2)?,
        tx_bytes: field(3)?,
        rx_errors: field(4)?,
        tx_errors: field(5)?,
        rx_dropped: field(6)?,
        tx_dropped: field(7)?,
    })
}

/// The options of a tunnel but for the device that it is bound to, and that one's index.
fn decode_ipip(data: &[u8]) -> Result<(Ipip, Option<u32>), Error> {
    let mut underlay = None;
    let mut ipip = Ipip {
        pmtudisc: false,
        ..Ipip::default()
    };
    let mut encap = Encap {
        kind: 0,
        flags: 0,
        sport: 0,
        dport: 0,
    };
    for attribute in wire::attributes(data) {
        match attribute? {
            (1, value) => underlay = Some(wire::u32(value)?).filter(|&index| index != 0),
            (2, value) => ipip.local = endpoint(value)?,
            (3, value) => ipip.remote = endpoint(value)?,
            (4, value) => ipip.ttl = Ttl(wire::u8(value)?),
            (5, value) => ipip.tos = Tos(wire::u8(value)?),
            (9, value) => {
                ipip.mode = match wire::u8(value)? {
                    IPPROTO_ANY => Mode::Any,
                    IPPROTO_IPIP => Mode::Ipip,
                    IPPROTO_MPLS => Mode::Mplsip,
                    other => {
                        return Err(Error::Malformed(format!("ipip tunnel of protocol {other}")));
                    }
                };
            }
            (10, value) => ipip.pmtudisc = wire::u8(value)? != 0,
            (15, value) => encap.kind = wire::u16(value)?,
            (16, value) => encap.flags = wire::u16(value)?,
            (17, value) => encap.sport = wire::u16_be(value)?,
            (18, value) => encap.dport = wire::u16_be(value)?,
            (19, _) => ipip.external = true,
            (20, value) => ipip.fwmark = wire::u32(value)?,
            _ => {}
        }
    }
    ipip.encap = Some(encap).filter(|encap| encap.kind != 0);
    Ok((ipip, underlay))
}

fn endpoint(value: &[u8]) -> Result<Option<Ipv4Addr>, Error> {
    match wire::ip(value)? {
        IpAddr::V4(address) => Ok(Some(address).filter(|address| !address.is_unspecified())),
        IpAddr::V6(_) => Err(wire::malformed("IPv6 endpoint of an ipip tunnel")),
    }
}

/// Every option of an ipip tunnel: the kernel resets those that are missing.
fn encode_ipip(ipip: &Ipip, indices: &Indices) -> Result<Vec<InfoIpTunnel>, InterfaceName> {
    let Ipip {
        local,
        remote,
        device,
        mode,
        ttl,
        tos,
        pmtudisc,
        fwmark,
        external,
        encap,
    } = ipip;
    let address = |address: &Option<Ipv4Addr>| IpAddr::V4(address.unwrap_or(Ipv4Addr::UNSPECIFIED));
    let protocol = match mode {
        Mode::Any => IPPROTO_ANY,
        Mode::Ipip => IPPROTO_IPIP,
        Mode::Mplsip => IPPROTO_MPLS,
    };
    let encap = encap.unwrap_or(Encap {
        kind: 0,
        flags: 0,
        sport: 0,
        dport: 0,
    });
    let mut attributes = vec![
        InfoIpTunnel::Link(
            device.map_or(Ok(0), |device| indices.get(&device).copied().ok_or(device))?,
        ),
        InfoIpTunnel::Local(address(local)),
        InfoIpTunnel::Remote(address(remote)),
        InfoIpTunnel::Ttl(ttl.0),
        InfoIpTunnel::Tos(tos.0),
        InfoIpTunnel::Protocol(i32::from(protocol).into()),
        InfoIpTunnel::PMtuDisc(*pmtudisc),
        InfoIpTunnel::FwMark(*fwmark),
        InfoIpTunnel::EncapType(encap.kind.into()),
        InfoIpTunnel::EncapFlags(TunnelEncapFlags::from_bits_retain(encap.flags)),
        InfoIpTunnel::EncapSPort(encap.sport),
        InfoIpTunnel::EncapDPort(encap.dport),
    ];
    if *external {
        attributes.push(InfoIpTunnel::CollectMetadata);
    }
    Ok(attributes)
}

fn link_info(kind: &Kind, indices: &Indices) -> Result<LinkAttribute, InterfaceName> {
    match kind {
        Kind::Ipip(ipip) => {
            let data = InfoData::IpTunnel(encode_ipip(ipip, indices)?);
            Ok(LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::IpIp),
                LinkInfo::Data(data),
            ]))
        }
    }
}

/// The requests that create a tunnel, mark it and bring it up. They belong into one send: the kernel ignores an alias in
/// the request that creates a device. With an index, the device has that one.
///
/// An ipip tunnel carries no IPv6 (`ipip_tunnel_xmit`), so one of ours gets no link-local address; another's that is put
/// back has what the kernel gives it. A host without IPv6 refuses that with EAFNOSUPPORT, as does a tunnel whose MTU is
/// below IPv6's.
///
/// Every event of a device that is up has IPv6 look through all its routes, of which a link-local address makes two
/// (`rt6_sync_up`): among many tunnels that takes most of the time, so all but the last request find the device down.
///
/// # Errors
/// The underlay device, if it doesn't exist.
pub(super) fn create(
    name: InterfaceName,
    index: Option<u32>,
    tunnel: &Tunnel,
    indices: &Indices,
) -> Result<Vec<Request>, InterfaceName> {
    let ifname = LinkAttribute::IfName(name.to_string());
    let mut message = LinkMessage::default();
    message.header.index = index.unwrap_or(0);
    message.attributes = vec![
        ifname.clone(),
        LinkAttribute::Mtu(tunnel.mtu),
        link_info(&tunnel.kind, indices)?,
    ];
    let mut requests = vec![Request {
        message: RouteNetlinkMessage::NewLink(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }];
    let mut set = |change: &dyn Fn(&mut LinkMessage)| {
        let mut message = LinkMessage::default();
        message.attributes.push(ifname.clone());
        change(&mut message);
        requests.push(Request {
            message: RouteNetlinkMessage::SetLink(message),
            flags: 0,
        });
    };
    set(&|message| {
        let alias = LinkAttribute::IfAlias(tunnel.alias.to_string());
        message.attributes.push(alias);
    });
    if tunnel.is_marked() {
        set(&|message| message.attributes.push(no_link_local_address()));
    }
    if tunnel.state == AdminState::Up {
        set(&|message| admin_state(message, AdminState::Up));
    }
    Ok(requests)
}

/// `addrgenmode none`.
fn no_link_local_address() -> LinkAttribute {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])])
}

/// The request that changes a tunnel in place. The options of its kind are sent only where they differ: the kernel
/// takes the tunnel out of its table for a moment to set them.
///
/// # Errors
/// The underlay device, if it doesn't exist.
pub(super) fn update(
    index: u32,
    from: &Tunnel,
    to: &Tunnel,
    indices: &Indices,
) -> Result<Request, InterfaceName> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    admin_state(&mut message, to.state);
    message.attributes.push(LinkAttribute::Mtu(to.mtu));
    if from.alias != to.alias {
        message
            .attributes
            .push(LinkAttribute::IfAlias(to.alias.to_string()));
    }
    if from.kind != to.kind {
        message.attributes.push(link_info(&to.kind, indices)?);
    }
    Ok(Request {
        message: RouteNetlinkMessage::NewLink(message),
        flags: 0,
    })
}

fn admin_state(message: &mut LinkMessage, state: AdminState) {
    message.header.change_mask = LinkFlags::Up;
    message.header.flags = match state {
        AdminState::Up => LinkFlags::Up,
        AdminState::Down => LinkFlags::empty(),
    };
}

/// The request that deletes one device.
pub(super) fn delete(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    Request {
        message: RouteNetlinkMessage::DelLink(message),
        flags: 0,
    }
}

/// The request that moves a device into a group.
pub(super) fn set_group(index: u32, group: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::Group(group));
    Request {
        message: RouteNetlinkMessage::SetLink(message),
        flags: 0,
    }
}

/// The request that deletes every device of a group.
pub(super) fn delete_group(group: u32) -> Request {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(group));
    Request {
        message: RouteNetlinkMessage::DelLink(message),
        flags: 0,
    }
}
