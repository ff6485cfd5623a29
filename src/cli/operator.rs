//! Where the operator sits: the other end of the SSH connection that a command is run from.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;

/// What sshd sets: the client's address and port, and this host's (sshd(8)).
const VARIABLE: &str = "SSH_CONNECTION";
/// The process that no connection starts.
const INIT: u32 = 1;
/// How far up it's looked for who still knows it.
const MOST_ANCESTORS: usize = 32;
/// What an environment seldom is longer than, bytes.
const USUAL_BYTES: usize = 8 << 10;
/// More of an environment isn't read, bytes.
const MOST_BYTES: u64 = 1 << 20;

/// Both ends of the SSH connection; empty: there is none. sudo takes the variable away, so the processes are asked that
/// this one descends from.
pub(super) fn ssh_ends() -> Vec<IpAddr> {
    let own = std::env::var(VARIABLE).ok();
    let connection = own.or_else(|| ancestors().find_map(connection_of));
    connection.map_or_else(Vec::new, |connection| ends(&connection))
}

fn ends(connection: &str) -> Vec<IpAddr> {
    let addresses = connection.split(' ').step_by(2);
    addresses.filter_map(|word| word.parse().ok()).collect()
}

fn ancestors() -> impl Iterator<Item = u32> {
    let parent = |process: &u32| {
        let stat = read(&format!("/proc/{process}/stat"))?;
        // The program's name, in brackets, may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let parent: u32 = rest.split_whitespace().nth(1)?.parse().ok()?;
        Some(parent)
    };
    let up = std::iter::successors(Some(std::os::unix::process::parent_id()), parent);
    up.take(MOST_ANCESTORS)
        .take_while(|process| *process > INIT)
}

fn connection_of(process: u32) -> Option<String> {
    let environment = read(&format!("/proc/{process}/environ"))?;
    let mut variables = environment.split('\0');
    variables.find_map(|variable| {
        let value = variable.strip_prefix(VARIABLE)?.strip_prefix('=')?;
        Some(value.to_owned())
    })
}

fn read(path: &str) -> Option<String> {
    // Room at once: without it a file of unknown length is read in very small steps.
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    let file = File::open(path).ok()?;
    file.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_connection() {
        let cases = [
            (
                "203.0.113.5 51234 192.0.2.10 22",
                &["203.0.113.5", "192.0.2.10"][..],
            ),
            (
                "2001:db8::5 51234 2001:db8::1 22",
                &["2001:db8::5", "2001:db8::1"],
            ),
            ("fe80::5%eth0 51234 fe80::1%eth0 22", &[]),
            ("UNKNOWN 65535 UNKNOWN 65535", &[]),
            ("", &[]),
        ];
        for (connection, expected) in cases {
            let found: Vec<String> = ends(connection).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{connection}");
        }
    }
}
