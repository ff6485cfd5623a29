//! A thousand tunnels, with an address and a route each.

use crate::world::{Host, TUNNELFORM, World, parse, run, trials};

trials![a_thousand_tunnels];

const TUNNELS: usize = 1000;
/// A tunnel takes two messages, an address and a route one each.
const MESSAGES: usize = 4 * TUNNELS;
/// Dumps, look-ups and part-filled batches, twice: the pass and its verification.
const CONSTANT: usize = 60;

fn topology(tunnels: usize, ttl: impl Fn(usize) -> u8) -> String {
    let mut text =
        String::from("version: 1\nname: hq\ndefaults: {local: 192.168.10.2}\ntunnels:\n");
    for n in 0..tunnels {
        let (high, low) = (n / 250, n % 250);
        text += &format!(
            "  t{n}: {{remote: 192.168.{}.{low}, ttl: {}, addresses: [10.{high}.{low}.1/24], routes: [10.{}.{low}.0/24]}}\n",
            20 + high,
            ttl(n),
            100 + high
        );
    }
    text
}

/// Applies, and returns the plan's counts and how many sends it took.
fn sends(host: &Host, file: &str) -> (serde_json::Value, usize) {
    let log = format!("/run/{}.strace", host.netns);
    let strace = ["-f", "-qq", "-o", &log, "-e", "trace=sendto,sendmsg"];
    let tunnelform = [
        TUNNELFORM,
        "apply",
        "-",
        "--output",
        "json",
        "--netns",
        &host.netns,
    ];
    let run = run("strace", &[&strace[..], &tunnelform].concat(), file).ok();
    let lines = std::fs::read_to_string(log)
        .expect("the log of strace")
        .lines()
        .count();
    (parse(&run.stdout)["counts"].clone(), lines)
}

#[track_caller]
fn takes(host: &Host, file: &str, action: &str, count: usize, messages: usize) {
    let (counts, sends) = sends(host, file);
    assert_eq!(counts[action], count, "{counts}");
    let most = messages / 64 + CONSTANT;
    assert!(
        sends <= most,
        "{sends} sends to {action} {count} objects, more than {most}"
    );
}

/// No round trip an object: creating, changing a tenth and deleting all take few sends, and a second apply has nothing
/// to do.
fn a_thousand_tunnels() {
    let world = World::new();
    let host = world.lone();
    let same = |_| 64;
    let tenth = |n: usize| if n.is_multiple_of(10) { 32 } else { 64 };
    takes(
        &host,
        &topology(TUNNELS, same),
        "create",
        3 * TUNNELS,
        MESSAGES,
    );
    host.settled(&topology(TUNNELS, same));
    assert_eq!(host.seen().tunnels().len(), TUNNELS);
    takes(
        &host,
        &topology(TUNNELS, tenth),
        "update",
        TUNNELS / 10,
        TUNNELS / 10,
    );
    takes(&host, "version: 1\nname: hq\n", "delete", TUNNELS, TUNNELS);
    assert!(host.seen().tunnels().is_empty());
}
