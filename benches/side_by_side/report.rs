//! The measurements as text, JSON and a picture.

use std::path::Path;
use std::{fs, io};

use serde::Serialize;

use crate::measure::{Calls, Cost, median};
use crate::peers::Peer;
use crate::watching::Watched;
use crate::workload::Step;
use crate::{bounds, chart};

/// Further contestants, in the no-op alone.
pub const ADDED: [&str; 5] = [
    "raw + parse",
    "ip link show",
    "ip route show",
    "from a list",
    "mtu: auto",
];

/// One contestant's part in one step of a case.
#[derive(Debug, Serialize)]
pub struct Entry {
    pub case: String,
    pub step: &'static str,
    pub who: &'static str,
    pub costs: Vec<Cost>,
    pub calls: Option<Calls>,
}

impl Entry {
    pub fn seconds(&self) -> f64 {
        median(self.costs.iter().map(|cost| cost.seconds))
    }

    /// The fastest, which a busy machine disturbs least.
    pub fn best(&self) -> f64 {
        self.costs
            .iter()
            .map(|cost| cost.seconds)
            .fold(f64::MAX, f64::min)
    }

    /// Half of the way from the fastest to the slowest, as a part of the median.
    pub fn spread(&self) -> f64 {
        let most = self
            .costs
            .iter()
            .map(|cost| cost.seconds)
            .fold(0.0, f64::max);
        (most - self.best()) / 2.0 / self.seconds()
    }

    pub fn bytes(&self) -> f64 {
        1024.0 * median(self.costs.iter().map(|cost| cost.kilobytes as f64))
    }
}

#[derive(Default, Serialize)]
pub struct Entries {
    /// And on what it runs.
    pub kernel: String,
    pub entries: Vec<Entry>,
    pub watched: Vec<Watched>,
    /// What couldn't be measured, and why.
    pub failures: Vec<String>,
}

impl Entries {
    pub fn add(&mut self, case: &str, step: &'static str, who: &'static str, cost: Cost) {
        self.entry(case, step, who).costs.push(cost);
    }

    pub fn calls(&mut self, case: &str, step: &'static str, who: &'static str, calls: Calls) {
        self.entry(case, step, who).calls = Some(calls);
    }

    /// Says so at once, and again below the table.
    pub fn fail(&mut self, failure: String) {
        eprintln!("FAILED: {failure}");
        self.failures.push(failure);
    }

    fn entry(&mut self, case: &str, step: &'static str, who: &'static str) -> &mut Entry {
        let is = |entry: &Entry| (entry.case.as_str(), entry.step, entry.who) == (case, step, who);
        let place = self.entries.iter().position(is).unwrap_or_else(|| {
            self.entries.push(Entry {
                case: case.to_owned(),
                step,
                who,
                costs: Vec::new(),
                calls: None,
            });
            self.entries.len() - 1
        });
        &mut self.entries[place]
    }

    pub fn find(&self, case: &str, step: &str, who: &str) -> Option<&Entry> {
        let is = |entry: &&Entry| (entry.case.as_str(), entry.step, entry.who) == (case, step, who);
        self.entries.iter().find(is)
    }

    /// The cases, in the order in which they were taken.
    pub fn cases(&self) -> Vec<&str> {
        let mut cases: Vec<&str> = self
            .entries
            .iter()
            .map(|entry| entry.case.as_str())
            .collect();
        cases.dedup();
        cases
    }

    /// The entries of a row, always in the same order.
    pub fn row<'a>(&'a self, case: &'a str, step: &'a str) -> impl Iterator<Item = &'a Entry> {
        let names = Peer::ALL.map(Peer::name).into_iter().chain(ADDED);
        names.filter_map(move |who| self.find(case, step, who))
    }
}

/// Prints the bounds, and writes `bench.txt`, `bench.json` and `bench.svg`.
pub fn write(entries: &Entries, folder: &Path) -> io::Result<()> {
    let bounds = bounds::table(entries);
    print!("{bounds}");
    let cases = entries.cases().into_iter().map(|case| table(entries, case));
    let kernel = format!("{}\n", entries.kernel);
    let mut report = kernel + &cases.collect::<String>() + &watched(&entries.watched) + &bounds;
    for failure in &entries.failures {
        report += &format!("FAILED: {failure}\n");
    }
    fs::create_dir_all(folder)?;
    fs::write(folder.join("bench.txt"), report)?;
    fs::write(
        folder.join("bench.json"),
        serde_json::to_vec_pretty(entries)?,
    )?;
    fs::write(folder.join("bench.svg"), chart::draw(entries))?;
    println!(
        "\nbench.txt, bench.json and bench.svg are in {}",
        folder.display()
    );
    Ok(())
}

/// A case's rows.
pub fn table(entries: &Entries, case: &str) -> String {
    let head = "      time  spread   ratio    best    memory    calls   sends  messages";
    let mut text = format!("\n{case:<45}{head}\n");
    for step in Step::ALL.map(Step::name) {
        let batch = entries.find(case, step, Peer::IpBatch.name());
        for entry in entries.row(case, step) {
            text += &line(entry, batch);
        }
    }
    text
}

/// The daemon's rows.
pub fn watched(rows: &[Watched]) -> String {
    let mut text = String::new();
    for row in rows {
        text += &format!(
            "\nwatch, {}, for {:.0} s: {:.0} changes of foreign routes a second, {:.1} wake-ups a minute, {:.1} % of a processor, {:.1} MiB",
            row.what,
            row.seconds,
            row.changes,
            row.wakes,
            100.0 * row.processor,
            row.bytes / f64::from(1 << 20)
        );
    }
    text + "\n"
}

fn line(entry: &Entry, batch: Option<&Entry>) -> String {
    let ratio =
        |of: fn(&Entry) -> f64| batch.map_or("-".into(), |batch| short(of(entry) / of(batch)));
    let calls = entry.calls.as_ref();
    let count = |of: fn(&Calls) -> usize| calls.map_or("-".into(), |calls| of(calls).to_string());
    format!(
        "  {:<14}{:<18}{:>3} rounds{:>10}{:>8}{:>8}{:>8}{:>10}{:>9}{:>8}{:>10}\n",
        entry.step,
        entry.who,
        entry.costs.len(),
        time(entry.seconds()),
        format!("±{:.0} %", 100.0 * entry.spread()),
        ratio(Entry::seconds),
        ratio(Entry::best),
        format!("{:.1} MiB", entry.bytes() / f64::from(1 << 20)),
        count(|calls| calls.system_calls),
        count(|calls| calls.sends),
        count(|calls| calls.messages),
    )
}

/// `12 ms`, `1.25 s`.
pub fn time(seconds: f64) -> String {
    match seconds {
        ..0.01 => format!("{:.1} ms", 1000.0 * seconds),
        ..1.0 => format!("{:.0} ms", 1000.0 * seconds),
        ..100.0 => format!("{seconds:.2} s"),
        _ => format!("{seconds:.0} s"),
    }
}

/// A ratio with two significant digits or so.
pub fn short(ratio: f64) -> String {
    match ratio {
        ..0.1 => format!("{ratio:.3}"),
        ..10.0 => format!("{ratio:.2}"),
        _ => format!("{ratio:.0}"),
    }
}
