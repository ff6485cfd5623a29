//! Where to listen.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where to answer over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// At an address and a port, in the network namespace that the daemon was started in.
    Tcp(SocketAddr),
    /// At a socket in the file system.
    Unix(PathBuf),
}

impl Listen {
    /// Whether other hosts can ask.
    pub fn is_open_to_others(&self) -> bool {
        match self {
            Self::Tcp(address) => !address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => false,
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(path.into())),
                false => Err(
                    "a socket's path starts with /, as in unix:/run/tunnelform/watch.sock".into(),
                ),
            };
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            "expected an address with a port or a socket, such as 127.0.0.1:9117, [::1]:9117 or \
             unix:/run/tunnelform/watch.sock"
                .into()
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_sockets() {
        for (text, is_open) in [
            ("127.0.0.1:9117", false),
            ("127.8.8.8:0", false),
            ("[::1]:9117", false),
            ("[::ffff:127.0.0.1]:9117", false),
            ("unix:/run/x", false),
            ("0.0.0.0:9117", true),
            ("[::]:9117", true),
            ("192.0.2.1:9117", true),
        ] {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.to_string(), text);
            assert_eq!(listen.is_open_to_others(), is_open, "{text}");
        }
        for text in [
            "",
            "9117",
            ":9117",
            "localhost:9117",
            "127.0.0.1",
            "unix:",
            "unix:run/x",
        ] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}
