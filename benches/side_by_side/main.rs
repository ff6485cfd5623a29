//! tunnelform beside what people use, on one kernel: `make bench`. benches/README.md says how to read it.

mod bounds;
mod chart;
mod measure;
mod peers;
mod raw;
mod report;
mod seen;
mod sizes;
mod watching;
mod workload;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;
use std::{env, fs, io};

use tunnelform::topology::Topology;

use measure::Host;
use peers::{Field, Peer, apply, text, this_program};
use report::{ADDED, Entries};
use workload::{Case, Step};

/// What `tests/with-ipip` sets for the command that it runs.
const INSIDE: &str = "TUNNELFORM_KERNEL";
/// The most tunnels; the most routes are a hundred times as many.
const MAX: &str = "BENCH_MAX";
/// A part of a case's name: no other is taken.
const ONLY: &str = "BENCH_ONLY";
/// Where the peers' programs are.
const PEERS: &str = "BENCH_PEERS";
/// Where the results go.
const RESULTS: &str = "BENCH_RESULTS";

/// A case is taken again while this would not be exceeded, in seconds.
const PATIENCE: f64 = 60.0;
const ROUNDS: usize = 7;
/// As often at least, unless one round alone exceeds it.
const FEWEST: usize = 3;
/// Where every system call is written down: not above this, as strace costs a millisecond a call.
const COUNTED: u32 = 1_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let outcome = match arguments.split_first() {
        Some((word, rest)) if word == "raw" => raw_program(rest),
        Some((word, rest)) if word == "measure" => measure::main(rest),
        Some((word, rest)) if word == "sizes" => sizes_program(rest),
        Some((word, _)) => Err(io::Error::other(format!("what is {word:?}?"))),
        None => return side_by_side(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `raw STEP KIND COUNT [TOPOLOGY]`, which is parsed and checked first, `raw foreign COUNT` or `raw flood RATE SECONDS`.
fn raw_program(words: &[String]) -> io::Result<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let count = |word: &str| word.parse::<u32>().map_err(io::Error::other);
    let (step, case, file) = match words.as_slice() {
        ["foreign", size] => return raw::add_foreign(count(size)?),
        ["flood", rate, seconds] => return raw::flood(count(rate)?, count(seconds)?),
        [step, "tunnels", size, file @ ..] => (step, Case::Tunnels(count(size)?), file),
        [step, "routes", size, file @ ..] => (step, Case::Routes(count(size)?), file),
        _ => return Err(io::Error::other(format!("raw: what is {words:?}?"))),
    };
    let step = Step::ALL.into_iter().find(|known| known.name() == *step);
    let step = step.ok_or_else(|| io::Error::other("raw: no such step"))?;
    for file in file {
        let parsed = Topology::parse(file, &fs::read_to_string(file)?);
        parsed.map_err(|problems| io::Error::other(problems.to_string()))?;
    }
    raw::step(case, step)
}

/// `sizes [NODES]`: nothing larger than that.
fn sizes_program(words: &[String]) -> io::Result<()> {
    let most = words.first().map_or(Ok(100_000), |word| word.parse());
    sizes::main(most.map_err(io::Error::other)?)
}

fn side_by_side() -> ExitCode {
    let Ok(max) = env::var(MAX) else {
        println!("side_by_side: NOT run, as {MAX} isn't set; `make bench` does it all");
        return ExitCode::SUCCESS;
    };
    let Ok(max) = max.parse() else {
        eprintln!("error: {MAX}: expected a number of tunnels, found {max:?}");
        return ExitCode::FAILURE;
    };
    if env::var_os(INSIDE).is_none() {
        return on_a_kernel();
    }
    let folder = |name: &str| env::var_os(name).map(PathBuf::from).unwrap_or_default();
    let field = Field::new(folder(PEERS), PathBuf::from("/run/bench"));
    let mut entries = Entries {
        kernel: measure::kernel(),
        ..Entries::default()
    };
    println!("{}", entries.kernel);
    let only = env::var(ONLY).unwrap_or_default();
    for case in cases(max)
        .into_iter()
        .filter(|case| case.to_string().contains(&only))
    {
        measure_case(&field, case, &mut entries);
        print!("{}", report::table(&entries, &case.to_string()));
    }
    if "beside foreign routes".contains(&only) {
        beside_foreign_routes(&field, max.saturating_mul(100).min(1_000_000), &mut entries);
    }
    if "watch".contains(&only) {
        eprintln!("watch …");
        match watching::watch(&field) {
            Ok(watched) => entries.watched = watched,
            Err(failure) => entries.fail(format!("watch: {failure}")),
        }
        print!("{}", report::watched(&entries.watched));
    }
    match report::write(&entries, &folder(RESULTS)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs this program again, on a kernel that has ipip.
fn on_a_kernel() -> ExitCode {
    let with_ipip = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/with-ipip");
    let status = Command::new(&with_ipip).arg(this_program()).status();
    let status =
        status.unwrap_or_else(|error| panic!("can't run {}: {error}", with_ipip.display()));
    match status.code() {
        Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(101)),
        None => ExitCode::FAILURE,
    }
}

fn cases(max: u32) -> Vec<Case> {
    let tunnels = [10, 200, 1_000, 10_000, 30_000].map(Case::Tunnels);
    let routes = [1_000, 100_000, 1_000_000].map(Case::Routes);
    let fits = |case: &Case| match case {
        Case::Tunnels(count) => *count <= max,
        Case::Routes(count) => *count <= max.saturating_mul(100),
    };
    tunnels.into_iter().chain(routes).filter(fits).collect()
}

/// Several rounds; in each, every peer in turn has a host of its own.
fn measure_case(field: &Field, case: Case, entries: &mut Entries) {
    eprintln!("{case} …");
    let mut peers: Vec<Peer> = field
        .peers
        .iter()
        .copied()
        .filter(|peer| peer.takes(case))
        .collect();
    for peer in &peers {
        field
            .write(*peer, case)
            .unwrap_or_else(|error| panic!("what {} reads: {error}", peer.name()));
    }
    // Whoever fails has no more rounds.
    let mut out = Vec::new();
    let mut all = 0.0;
    for round in 0..ROUNDS {
        // Those that are slow are measured once, and keep nobody else from more rounds.
        let mut last = 0.0;
        peers.rotate_left(1);
        for peer in &peers {
            if round == 0 || !peer.is_slow() || case.size() <= 10 {
                let start = Instant::now();
                let outcome = measure_peer(field, case, *peer, round, entries);
                out.extend(outcome.err().map(|failure| (*peer, failure)));
                if !peer.is_slow() {
                    last += start.elapsed().as_secs_f64();
                }
            }
        }
        all += last;
        for (peer, failure) in out.drain(..) {
            entries.fail(format!("{case}, {}: {failure}", peer.name()));
            peers.retain(|other| *other != peer);
        }
        if last > PATIENCE || (round + 1 >= FEWEST && all + last > PATIENCE) {
            break;
        }
    }
    for peer in peers
        .iter()
        .filter(|peer| case.size() <= COUNTED && !peer.is_slow())
    {
        if let Err(failure) = count_peer(field, case, *peer, entries) {
            entries.fail(format!("{case}, {}, counting: {failure}", peer.name()));
        }
    }
}

/// Once under strace, whose time says nothing.
fn count_peer(field: &Field, case: Case, peer: Peer, entries: &mut Entries) -> Result<(), String> {
    let host = Host::new("counted");
    for step in Step::ALL {
        let calls = host.count(&field.command(peer, case, step))?;
        entries.calls(&case.to_string(), step.name(), peer.name(), calls);
    }
    Ok(())
}

fn measure_peer(
    field: &Field,
    case: Case,
    peer: Peer,
    round: usize,
    entries: &mut Entries,
) -> Result<(), String> {
    let host = Host::new("bench");
    if peer == Peer::Ifupdown2 {
        // What it remembers of the host before.
        let _ = fs::remove_dir_all("/run/network");
        fs::create_dir("/run/network").unwrap_or_else(|error| panic!("/run/network: {error}"));
    }
    let label = case.to_string();
    for step in Step::ALL {
        let cost = host.measure(&field.command(peer, case, step))?;
        if round == 0 {
            seen::check(&host, case, step)?;
        }
        entries.add(&label, step.name(), peer.name(), cost);
        if (peer, step) == (Peer::Tunnelform, Step::NoOp) {
            for (name, command) in beside_the_no_op(field, case) {
                entries.add(&label, step.name(), name, host.measure(&command)?);
            }
        }
    }
    Ok(())
}

/// What a no-op is held against, on the very same host.
fn beside_the_no_op(field: &Field, case: Case) -> Vec<(&'static str, Vec<String>)> {
    let mut raw = field.command(Peer::Raw, case, Step::NoOp);
    raw.push(text(&field.topology(Step::NoOp)));
    let show = |what| ["ip", what, "show"].map(str::to_owned).to_vec();
    match case {
        Case::Tunnels(_) => vec![
            (ADDED[0], raw),
            (ADDED[1], show("link")),
            (ADDED[4], apply(&field.automatic())),
        ],
        Case::Routes(_) => vec![
            (ADDED[0], raw),
            (ADDED[2], show("route")),
            (ADDED[3], apply(&field.listing())),
        ],
    }
}

/// A full routing table that belongs to somebody else.
fn beside_foreign_routes(field: &Field, count: u32, entries: &mut Entries) {
    let case = Case::Tunnels(10);
    let label = format!("10 tunnels beside foreign {}", Case::Routes(count));
    eprintln!("{label} …");
    field
        .write(Peer::Tunnelform, case)
        .unwrap_or_else(|error| panic!("what tunnelform reads: {error}"));
    if let Err(failure) = measure_beside(field, case, &label, count, entries) {
        entries.fail(format!("{label}: {failure}"));
    }
    print!("{}", report::table(entries, &label));
}

fn measure_beside(
    field: &Field,
    case: Case,
    label: &str,
    count: u32,
    entries: &mut Entries,
) -> Result<(), String> {
    let host = Host::new("bench");
    host.measure(&[&this_program(), "raw", "foreign", &count.to_string()].map(str::to_owned))?;
    host.measure(&field.command(Peer::Tunnelform, case, Step::Create))?;
    let show = ["ip", "route", "show"].map(str::to_owned);
    for _ in 0..3 {
        let cost = host.measure(&field.command(Peer::Tunnelform, case, Step::NoOp))?;
        entries.add(label, Step::NoOp.name(), Peer::Tunnelform.name(), cost);
        entries.add(label, Step::NoOp.name(), ADDED[2], host.measure(&show)?);
    }
    Ok(())
}
