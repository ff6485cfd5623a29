//! Names of network interfaces, as the kernel allows them.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use smol_str::SmolStr;
use thiserror::Error;

/// The kernel's `IFNAMSIZ`, its terminating NUL included (`include/uapi/linux/if.h`).
const IFNAMSIZ: usize = 16;

/// The name of a network interface: 1 to 15 bytes, stored inline.
///
/// Two ways lead to one: [`FromStr`] checks what the kernel's `dev_valid_name` (`net/core/dev.c`) checks, and
/// [`InterfaceName::from_kernel`] takes whatever the kernel says, which need not be UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InterfaceName([u8; IFNAMSIZ]);

/// Why a string can't be the name of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidName {
    /// Empty.
    #[error("an interface name can't be empty")]
    Empty,
    /// More than 15 bytes.
    #[error("interface name {0:?} is {len} bytes long: the kernel allows 15", len = .0.len())]
    TooLong(String),
    /// A byte that `dev_valid_name` refuses.
    #[error(
        "interface name {0:?} contains {1:?}: the kernel allows neither '/', ':' nor white space"
    )]
    Character(String, char),
    /// `.` and `..`, which would be paths in sysfs.
    #[error("{0:?} can't be an interface name: it would be a path in sysfs")]
    Dots(String),
}

impl InterfaceName {
    /// `lo`.
    pub const LOOPBACK: Self = Self([b'l', b'o', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

    /// The name in a netlink attribute, with or without its NUL. `None` if it's empty or over 15 bytes.
    pub fn from_kernel(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.split(|&b| b == 0).next().unwrap_or_default();
        if bytes.is_empty() || bytes.len() >= IFNAMSIZ {
            return None;
        }
        let mut name = [0; IFNAMSIZ];
        name[..bytes.len()].copy_from_slice(bytes);
        Some(Self(name))
    }

    /// The name as it is, as far as it is UTF-8. [`Display`](fmt::Display) shows nothing that drives a terminal.
    pub(crate) fn text(&self) -> SmolStr {
        String::from_utf8_lossy(self.as_bytes()).into()
    }

    /// The name's bytes, without padding.
    pub fn as_bytes(&self) -> &[u8] {
        let len = self.0.iter().position(|&b| b == 0).unwrap_or(IFNAMSIZ);
        &self.0[..len]
    }
}

/// By bytes, compared as one number: names are the keys of nearly every map.
impl Ord for InterfaceName {
    fn cmp(&self, other: &Self) -> Ordering {
        u128::from_be_bytes(self.0).cmp(&u128::from_be_bytes(other.0))
    }
}

impl PartialOrd for InterfaceName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for InterfaceName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        // isspace() of the kernel is Latin-1's: it takes U+00A0's byte for a space wherever that stands in UTF-8.
        let refused = |c: char| c == '/' || c == ':' || c.is_whitespace() || drives_terminal(c);
        if text.is_empty() {
            return Err(InvalidName::Empty);
        }
        if text == "." || text == ".." {
            return Err(InvalidName::Dots(text.into()));
        }
        if let Some(c) = text.chars().find(|&c| refused(c)) {
            return Err(InvalidName::Character(text.into(), c));
        }
        if text.as_bytes().contains(&0xa0) {
            return Err(InvalidName::Character(text.into(), '\u{a0}'));
        }
        Self::from_kernel(text.as_bytes()).ok_or_else(|| InvalidName::TooLong(text.into()))
    }
}

/// Control characters, and those that hide text or turn its direction: the kernel allows them all in a name.
fn drives_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = String::from_utf8_lossy(self.as_bytes());
        if !name.contains(drives_terminal) {
            return f.pad(&name);
        }
        f.pad(&name.replace(drives_terminal, "\u{fffd}"))
    }
}

impl fmt::Debug for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for InterfaceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_the_kernel_accepts() {
        for name in ["tun1", "a", "fifteen-bytes-x", "ünï"] {
            assert_eq!(name.parse::<InterfaceName>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn refuses_what_the_kernel_refuses() {
        for name in [
            "",
            ".",
            "..",
            "sixteen-bytes-xx",
            "a/b",
            "a b",
            "a:b",
            "a\tb",
            "a\0b",
            "à",
        ] {
            assert!(name.parse::<InterfaceName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn is_sorted_by_bytes() {
        let names = ["a", "a1", "ab", "b", "t1", "t10", "t2", "ünï", "\u{ffff}"];
        for a in names {
            for b in names {
                let of = |name: &str| InterfaceName::from_kernel(name.as_bytes()).unwrap();
                assert_eq!(of(a).cmp(&of(b)), a.as_bytes().cmp(b.as_bytes()), "{a} {b}");
            }
        }
    }

    #[test]
    fn reads_the_kernels_bytes() {
        let name = InterfaceName::from_kernel(b"tun1\0\0\0").unwrap();
        assert_eq!(name.as_bytes(), b"tun1");
        assert_eq!(InterfaceName::from_kernel(b""), None);
        assert_eq!(InterfaceName::from_kernel(&[b'x'; 16]), None);
        assert_eq!(
            InterfaceName::from_kernel(&[0xff]).unwrap().to_string(),
            "\u{fffd}"
        );
    }
}
