//! Netlink attributes, read where they lie, without a copy and without trust.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smol_str::SmolStr;

use super::Error;

/// Without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` (`include/uapi/linux/netlink.h`).
const NLA_TYPE_MASK: u16 = 0x3fff;

/// The attributes of a message, or of a nested attribute: kind (without its flag bits) and value. After one that is
/// malformed there is no other.
pub(super) fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes(bytes)
}

pub(super) struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), Error>;

    /// `struct nlattr`: a length with these four bytes in it, a kind, a value; the next begins at a multiple of four.
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let rest = std::mem::take(&mut self.0);
        let [low, high, kind @ ..] = match rest.first_chunk::<4>() {
            Some(header) => *header,
            None if rest.is_empty() => return None,
            None => return Some(Err(malformed("attribute header"))),
        };
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let Some(value) = rest.get(4..length) else {
            return Some(Err(malformed("attribute length")));
        };
        self.0 = rest.get((length + 3) & !3..).unwrap_or_default();
        Some(Ok((u16::from_ne_bytes(kind) & NLA_TYPE_MASK, value)))
    }
}

/// Appends an attribute, of at most 65531 bytes.
pub(super) fn put(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = 4 + value.len() as u16;
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
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

#[cfg(test)]
mod tests {
    use super::*;

    type Read<'a> = Option<(u16, &'a [u8])>;

    #[test]
    fn reads_attributes_up_to_what_is_malformed() {
        let cases: [(&[u8], &[Read]); 7] = [
            (&[], &[]),
            (&[4, 0, 7, 0], &[Some((7, &[]))]),
            (
                &[5, 0, 1, 0x80, 9, 0, 0, 0, 4, 0, 2, 0x40],
                &[Some((1, &[9])), Some((2, &[]))],
            ),
            // The last one's padding may be missing.
            (&[5, 0, 1, 0, 9], &[Some((1, &[9]))]),
            (&[4, 0, 7, 0, 4, 0, 8], &[Some((7, &[])), None]),
            (&[3, 0, 7, 0, 4, 0, 8, 0], &[None]),
            (&[9, 0, 7, 0, 1, 2, 3, 4], &[None]),
        ];
        for (bytes, expected) in cases {
            let found: Vec<Read> = attributes(bytes).map(Result::ok).collect();
            assert_eq!(found, expected, "{bytes:?}");
        }
    }
}
