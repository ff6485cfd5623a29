//! Reading netlink attributes where they lie, without a copy and without trust.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::NlasIterator;
use smol_str::SmolStr;

use super::Error;

/// The attributes of a message, or of a nested attribute: kind (without its flag bits) and value.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), Error>> {
    NlasIterator::new(bytes).map(|item| {
        let attribute = item.map_err(|error| Error::Malformed(error.to_string()))?;
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        attribute
            .into_inner()
            .get(4..length)
            .map(|value| (kind, value))
            .ok_or_else(|| malformed("attribute length"))
    })
}

pub(super) fn malformed(what: &str) -> Error {
    Error::Malformed(what.to_owned())
}

/// A fixed-size header and what follows it.
pub(super) fn split<const N: usize>(bytes: &[u8]) -> Result<(&[u8; N], &[u8]), Error> {
    bytes
        .split_first_chunk()
        .ok_or_else(|| malformed("short message"))
}

fn array<const N: usize>(value: &[u8]) -> Result<[u8; N], Error> {
    value
        .first_chunk()
        .copied()
        .ok_or_else(|| malformed("short attribute"))
}

pub(super) fn u8(value: &[u8]) -> Result<u8, Error> {
    array(value).map(u8::from_ne_bytes)
}

pub(super) fn u16(value: &[u8]) -> Result<u16, Error> {
    array(value).map(u16::from_ne_bytes)
}

pub(super) fn u16_be(value: &[u8]) -> Result<u16, Error> {
    array(value).map(u16::from_be_bytes)
}

pub(super) fn u32(value: &[u8]) -> Result<u32, Error> {
    array(value).map(u32::from_ne_bytes)
}

pub(super) fn u64(value: &[u8]) -> Result<u64, Error> {
    array(value).map(u64::from_ne_bytes)
}

/// An address of the family that its length says.
pub(super) fn ip(value: &[u8]) -> Result<IpAddr, Error> {
    match value.len() {
        4 => array::<4>(value).map(|octets| Ipv4Addr::from(octets).into()),
        16 => array::<16>(value).map(|octets| Ipv6Addr::from(octets).into()),
        _ => Err(malformed("address length")),
    }
}

/// Text up to its NUL, as far as it is UTF-8.
pub(super) fn text(value: &[u8]) -> SmolStr {
    String::from_utf8_lossy(value.split(|&b| b == 0).next().unwrap_or_default()).into()
}
