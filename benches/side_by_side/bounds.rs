//! Where it must come out: ratios of whole runs, the verification included, on the same kernel in the same run.

use std::fmt::Write;

use crate::peers::Peer;
use crate::report::{ADDED, Entries, Entry, short};
use crate::watching::{BESIDE, IDLE, Watched};
use crate::workload::Step;

const OWN: &str = Peer::Tunnelform.name();
const BATCH: &str = Peer::IpBatch.name();
const RAW: &str = Peer::Raw.name();
const IFSTATE: &str = Peer::Ifstate.name();
const MEBIBYTE: f64 = 1_048_576.0;

/// A figure, where its rows were run, and what it may be at most.
struct Bound {
    text: &'static str,
    found: Option<f64>,
    most: f64,
}

/// A line for each bound, judged by the medians, with the fastest runs' figure beside it; one whose rows weren't run says
/// so.
pub fn table(entries: &Entries) -> String {
    let mut text = format!(
        "\n{:<64}{:>9}{:>9}{:>9}\n",
        "bound", "median", "best", "at most"
    );
    let by_best = bounds(entries, Entry::best);
    for (bound, best) in bounds(entries, Entry::seconds).iter().zip(by_best) {
        let verdict = match bound.found {
            Some(found) if found <= bound.most => "met",
            Some(_) => "NOT MET",
            None => "not run",
        };
        let figure = |figure: Option<f64>| figure.map_or("-".into(), short);
        let (found, best, most) = (figure(bound.found), figure(best.found), short(bound.most));
        let _ = writeln!(
            text,
            "  {:<62}{found:>9}{best:>9}{most:>9}  {verdict}",
            bound.text
        );
    }
    text
}

fn bounds(entries: &Entries, seconds: fn(&Entry) -> f64) -> Vec<Bound> {
    let find = |case: &str, step: Step, who: &str| entries.find(case, step.name(), who);
    let took = |case: &str, step: Step, who: &str| find(case, step, who).map(seconds);
    let ratio =
        |case: &str, step: Step, than: &str| divide(took(case, step, OWN), took(case, step, than));
    let memory = |case: &str| find(case, Step::NoOp, OWN).map(Entry::bytes);
    let growth = |who: &str| {
        divide(
            took("10,000 tunnels", Step::Create, who),
            took("1,000 tunnels", Step::Create, who),
        )
    };

    let (ten, two_hundred, thousand) = ("10 tunnels", "200 tunnels", "1,000 tunnels");
    let (routes, million) = ("100,000 routes", "1,000,000 routes");
    let foreign = "10 tunnels beside foreign 1,000,000 routes";
    let change = divide(
        took(thousand, Step::ChangeOne, OWN),
        took(thousand, Step::NoOp, OWN),
    );
    let above = memory(million).map(|bytes| (bytes - 16.0 * MEBIBYTE) / 1e6);
    let megabytes = memory(thousand).map(|bytes| bytes / MEBIBYTE);
    let watched = |what: &str, of: fn(&Watched) -> f64| {
        entries.watched.iter().find(|row| row.what == what).map(of)
    };
    let bound = |text, found, most| Bound { text, found, most };
    vec![
        bound(
            "1,000 tunnels, create: × ip -batch",
            ratio(thousand, Step::Create, BATCH),
            0.6,
        ),
        bound(
            "1,000 tunnels, delete: × ip -batch (0.5 on one processor)",
            ratio(thousand, Step::Delete, BATCH),
            if several_processors() { 0.05 } else { 0.5 },
        ),
        bound(
            "1,000 tunnels, no-op: × raw dumps and parsing",
            ratio(thousand, Step::NoOp, ADDED[0]),
            1.3,
        ),
        bound("1,000 tunnels, change 1: × no-op", change, 1.2),
        bound(
            "200 tunnels, no-op: × ifstate",
            ratio(two_hundred, Step::NoOp, IFSTATE),
            0.002,
        ),
        bound(
            "100,000 routes, create: × ip -batch",
            ratio(routes, Step::Create, BATCH),
            0.6,
        ),
        bound(
            "100,000 routes, no-op: × ip route show",
            ratio(routes, Step::NoOp, ADDED[2]),
            2.0,
        ),
        bound(
            "100,000 routes, no-op from a list: × ip route show",
            divide(
                took(routes, Step::NoOp, ADDED[3]),
                took(routes, Step::NoOp, ADDED[2]),
            ),
            1.2,
        ),
        bound(
            "beside 1,000,000 foreign routes, no-op: × ip route show",
            ratio(foreign, Step::NoOp, ADDED[2]),
            0.15,
        ),
        bound(
            "beside 1,000,000 foreign routes, no-op: × memory without",
            divide(memory(foreign), memory(ten)),
            1.05,
        ),
        bound(
            "10 tunnels, no-op: × ip link show",
            ratio(ten, Step::NoOp, ADDED[1]),
            3.0,
        ),
        bound("1,000 tunnels, no-op: MiB", megabytes, 16.0),
        bound(
            "1,000,000 routes, no-op: bytes a route above 16 MiB",
            above,
            400.0,
        ),
        bound(
            "1,000 to 10,000 tunnels, create: growth × raw's",
            divide(growth(OWN), growth(RAW)),
            1.3,
        ),
        bound(
            "watch, idle: wake-ups a minute",
            watched(IDLE, |row| row.wakes),
            0.0,
        ),
        bound(
            "watch, idle: MiB",
            watched(IDLE, |row| row.bytes / MEBIBYTE),
            12.0,
        ),
        bound(
            "watch, beside a routing daemon: parts of a processor",
            watched(BESIDE, |row| row.processor),
            0.1,
        ),
    ]
}

/// Where each deletion waits for all other processors.
fn several_processors() -> bool {
    std::thread::available_parallelism().is_ok_and(|count| count.get() > 1)
}

fn divide(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a? / b?)
}
