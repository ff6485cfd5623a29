//! Messages on the wire: `struct nlmsghdr` and what it holds.

use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;

use super::{Error, wire};

/// Bytes of a `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;

/// A request that changes nothing: for a dump, or for one object. Each run makes some, mostly nothing else, and they are
/// short: a fixed header and an attribute or two.
pub(super) struct Query {
    kind: u16,
    body: Vec<u8>,
}

impl Query {
    /// Of the type `RTM_GET…`, with the fixed header of its family of messages.
    pub(super) fn new(kind: u16, header: &[u8]) -> Self {
        Self {
            kind,
            body: header.to_vec(),
        }
    }

    /// With an attribute more.
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        wire::put(&mut self.body, kind, value);
        self
    }

    /// Appends the message.
    pub(super) fn write(&self, bytes: &mut Vec<u8>, flags: u16, sequence: u32) {
        let length = (HEADER + self.body.len()) as u32;
        bytes.extend(length.to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        // The kernel knows from whom it comes.
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(&self.body);
    }
}

/// Appends a message that changes something.
pub(super) fn write(bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
}

/// The messages in a row, each with its payload. After one that is malformed there is no other.
pub(super) fn messages(bytes: &[u8]) -> impl Iterator<Item = Result<(Header, &[u8]), Error>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let bytes = std::mem::take(&mut rest);
        let message = (!bytes.is_empty()).then(|| Header::split(bytes))?;
        Some(message.map(|(header, payload, next)| {
            rest = next;
            (header, payload)
        }))
    })
}

/// `struct nlmsghdr`.
pub(super) struct Header {
    pub(super) message_type: u16,
    pub(super) flags: u16,
    pub(super) sequence_number: u32,
}

impl Header {
    /// The first of several messages, its payload, and the others.
    pub(super) fn split(bytes: &[u8]) -> Result<(Self, &[u8], &[u8]), Error> {
        let header = Self::of(bytes)?;
        let length = wire::u32(bytes)? as usize;
        let payload = bytes
            .get(HEADER..length)
            .ok_or_else(|| wire::malformed("message length"))?;
        let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Ok((header, payload, next))
    }

    /// Of a message that may be cut.
    pub(super) fn of(bytes: &[u8]) -> Result<Self, Error> {
        let (raw, _) = wire::split::<HEADER>(bytes)?;
        Ok(Self {
            message_type: u16::from_ne_bytes([raw[4], raw[5]]),
            flags: u16::from_ne_bytes([raw[6], raw[7]]),
            sequence_number: u32::from_ne_bytes([raw[8], raw[9], raw[10], raw[11]]),
        })
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::address::AddressMessage;
    use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
    use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};
    use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

    use super::super::route::Family;
    use super::super::{address, link, route};
    use super::*;

    #[test]
    fn queries_are_what_the_library_writes() {
        let skip = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
        let devices = |attributes: Vec<LinkAttribute>| {
            let mut message = LinkMessage::default();
            message.attributes = attributes;
            RouteNetlinkMessage::GetLink(message)
        };
        let mut of_device = AddressMessage::default();
        of_device.header.index = 7;
        let routes = |family, change: &dyn Fn(&mut RouteMessage)| {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            change(&mut message);
            RouteNetlinkMessage::GetRoute(message)
        };
        let ways = RouteFlags::FibMatch | RouteFlags::LookupTable;
        let (v4, v6) = (AddressFamily::Inet, AddressFamily::Inet6);
        let cases = [
            (link::dump(true), devices(vec![])),
            (link::dump(false), devices(vec![skip.clone()])),
            (
                link::look_up("tun1".parse().unwrap()),
                devices(vec![skip, LinkAttribute::IfName("tun1".into())]),
            ),
            (
                address::dump(None),
                RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            ),
            (
                address::dump(Some(7)),
                RouteNetlinkMessage::GetAddress(of_device),
            ),
            (route::dump(Family::V6, None, None), routes(v6, &|_| {})),
            (
                route::dump(Family::V4, Some(117), Some(7)),
                routes(v4, &|message| {
                    message.header.protocol = 117.into();
                    message.attributes = vec![RouteAttribute::Oif(7)];
                }),
            ),
            (
                route::look_up([192, 0, 2, 1].into()),
                routes(v4, &|message| {
                    message.header.destination_prefix_length = 32;
                    message.header.flags = ways;
                    let to = std::net::Ipv4Addr::new(192, 0, 2, 1);
                    message.attributes = vec![RouteAttribute::Destination(to.into())];
                }),
            ),
            (
                route::look_up(std::net::Ipv6Addr::LOCALHOST.into()),
                routes(v6, &|message| {
                    message.header.destination_prefix_length = 128;
                    message.header.flags = ways;
                    let to = std::net::Ipv6Addr::LOCALHOST;
                    message.attributes = vec![RouteAttribute::Destination(to.into())];
                }),
            ),
        ];
        for (query, expected) in cases {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            query.write(&mut ours, 0x301, 42);
            write(&mut theirs, expected.clone(), 0x301, 42);
            assert_eq!(ours, theirs, "{expected:?}");
        }
    }
}
