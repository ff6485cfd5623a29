//! A thousand tunnels, with an address and a route each: what is asked of the kernel, in counts that no machine's speed
//! changes. benches/ has the times.

use crate::world::{Host, TUNNELFORM, World, parse, run, trials};

trials![a_thousand_tunnels];

const TUNNELS: usize = 1000;
/// A tenth of them, and the one that was changed before.
const CHANGED: usize = TUNNELS / 10 + 1;
/// Requests in one send.
const BATCH: usize = 128;
/// Dumps of one snapshot: devices, addresses, IPv4 and IPv6 routes.
const SNAPSHOT: usize = 4;
/// The dumps of a snapshot that is widened by everybody's routes.
const WIDENED: usize = SNAPSHOT + 2;
/// The dumps of a snapshot that looks at some devices alone.
const NARROW: usize = SNAPSHOT - 1;
/// Devices that are asked for in one send: their answers share the receive buffer.
const DEVICES: usize = 16;
/// Starting, reading the file, the lock, starting the process that takes back what a killed run did; the receives.
const SYSTEM_CALLS: usize = 700;

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

/// What a run asks of the kernel, or may ask of it at most.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    dumps: usize,
    /// Of the way through the underlay to a tunnel's remote, for `mtu: auto`, and of a device that was changed.
    look_ups: usize,
    /// Requests that change something.
    changes: usize,
    sends: usize,
    system_calls: usize,
}

impl Asked {
    /// Whole batches for each kind of object.
    fn at_most(dumps: usize, ways: usize, devices: usize, changes: &[usize]) -> Self {
        let batches = |messages: &usize| messages.div_ceil(BATCH);
        let look_up_sends = ways.div_ceil(BATCH) + devices.div_ceil(DEVICES);
        Self {
            dumps,
            look_ups: ways + devices,
            changes: changes.iter().sum(),
            sends: dumps + look_up_sends + changes.iter().map(batches).sum::<usize>(),
            system_calls: SYSTEM_CALLS,
        }
    }

    /// Counts in a log of strace, where a send shows each message in it.
    fn count(log: &str) -> Self {
        let mut asked = Self::default();
        for line in log.lines() {
            let call = line
                .split_once(' ')
                .map_or("", |(_, call)| call.trim_start());
            if call.starts_with("<... ") {
                continue;
            }
            asked.system_calls += 1;
            if !call.starts_with("sendto(") && !call.starts_with("sendmsg(") {
                continue;
            }
            let dumps = call.matches("NLM_F_DUMP").count();
            let questions = call.matches("nlmsg_type=RTM_GET").count();
            asked.sends += 1;
            asked.dumps += dumps;
            asked.look_ups += questions - dumps;
            asked.changes += call.matches("nlmsg_type=RTM_").count() - questions;
        }
        asked
    }

    fn is_within(&self, most: &Self) -> bool {
        let Self {
            dumps,
            look_ups,
            changes,
            sends,
            system_calls,
        } = *self;
        dumps <= most.dumps
            && look_ups <= most.look_ups
            && changes <= most.changes
            && sends <= most.sends
            && system_calls <= most.system_calls
    }
}

/// Applies, and returns the plan's counts and what it asked.
fn apply(host: &Host, file: &str) -> (serde_json::Value, Asked) {
    let log = format!("/run/{}.strace", host.netns);
    let strace = ["-f", "-qq", "-v", "-s", "16", "-o", &log];
    // What is received would be decoded at length, and isn't counted. Cargo's directories of libraries would be searched.
    let quietly = [
        "-e",
        "raw=recvfrom,recvmsg,recvmmsg",
        "-E",
        "LD_LIBRARY_PATH",
    ];
    let strace = [&strace[..], &quietly].concat();
    let tunnelform = [TUNNELFORM, "apply", "-", "--output", "json"];
    // strace reads the messages of sockets in its own network namespace alone.
    let run = host.inside(|| run("strace", &[&strace[..], &tunnelform].concat(), file).ok());
    let log = std::fs::read(log).expect("the log of strace");
    let asked = Asked::count(&String::from_utf8_lossy(&log));
    (parse(&run.stdout)["counts"].clone(), asked)
}

#[track_caller]
fn takes(host: &Host, file: &str, (action, count): (&str, usize), most: Asked) {
    let (counts, asked) = apply(host, file);
    assert_eq!(counts[action], count, "{counts}");
    println!("{action} {count}: {asked:?}");
    assert!(asked.dumps > 0, "strace shows no netlink messages");
    assert!(
        asked.is_within(&most),
        "to {action} {count} objects it takes\n{asked:?}, more than\n{most:?}"
    );
}

/// No round trip an object, and no pass too many. What is done in fewer may lower these numbers.
fn a_thousand_tunnels() {
    let world = World::new();
    let host = world.lone();
    let same = topology(TUNNELS, |_| 64);
    let one = topology(TUNNELS, |n| if n == 1 { 32 } else { 64 });
    let tenth = topology(TUNNELS, |n| if n.is_multiple_of(10) { 32 } else { 64 });
    // The topology's own objects and everybody's routes, as places may be taken; the new indices; all again at the end, but
    // for the ways, which nothing has changed.
    let create = [4 * TUNNELS, 2 * TUNNELS];
    let most = Asked::at_most(WIDENED + 1 + SNAPSHOT, TUNNELS, 0, &create);
    takes(&host, &same, ("create", 3 * TUNNELS), most);
    let most = Asked::at_most(SNAPSHOT, TUNNELS, 0, &[]);
    takes(&host, &same, ("create", 0), most);
    assert_eq!(host.seen().tunnels().len(), TUNNELS);
    let most = Asked::at_most(SNAPSHOT + NARROW, TUNNELS, 1, &[1]);
    takes(&host, &one, ("update", 1), most);
    let most = Asked::at_most(SNAPSHOT + NARROW, TUNNELS, CHANGED, &[CHANGED]);
    takes(&host, &tenth, ("update", CHANGED), most);
    // Each send moves its tunnels into a group, and deletes that.
    let groups = TUNNELS.div_ceil(BATCH - 1);
    let most = Asked::at_most(WIDENED + SNAPSHOT, 0, 0, &[TUNNELS + groups]);
    takes(&host, "version: 1\nname: hq\n", ("delete", TUNNELS), most);
    assert!(host.seen().tunnels().is_empty());
}
