//! Topology files, as they come from the command line.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tunnelform::topology::{Parsed, Problems, Severity, Topology};

use super::{Failure, Terminal};

/// More than the topology's own limit, so that the limit's own message is seen.
const MOST_BYTES: u64 = (256 << 20) + 1;

/// The file to read.
#[derive(clap::Args)]
pub(super) struct Input {
    /// The topology; `-` for standard input.
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
}

/// Why there's no topology.
pub(super) enum Unusable {
    /// The file can't be read.
    Unreadable(Failure),
    /// It has problems.
    Wrong(Problems),
}

impl Input {
    /// Reads and checks the topology.
    pub(super) fn parse(&self) -> Result<Parsed, Unusable> {
        let name = if self.is_stdin() {
            "<stdin>".to_owned()
        } else {
            self.file.display().to_string()
        };
        let bytes = self.read().map_err(|error| {
            Unusable::Unreadable(Failure(format!("can't read {name}: {error}")))
        })?;
        Topology::parse_bytes(&name, &bytes).map_err(Unusable::Wrong)
    }

    /// Reads the topology; shows what is wrong with it.
    pub(super) fn topology(&self, terminal: &Terminal) -> Result<Topology, Failure> {
        match self.parse() {
            Ok(Parsed { topology, warnings }) => {
                show(&warnings, terminal);
                Ok(topology)
            }
            Err(Unusable::Unreadable(failure)) => Err(failure),
            Err(Unusable::Wrong(problems)) => {
                show(&problems, terminal);
                Err(Failure(tally(&problems)))
            }
        }
    }

    fn is_stdin(&self) -> bool {
        self.file == Path::new("-")
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if self.is_stdin() {
            io::stdin()
                .lock()
                .take(MOST_BYTES)
                .read_to_end(&mut bytes)?;
        } else {
            File::open(&self.file)?
                .take(MOST_BYTES)
                .read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    }
}

/// Shows problems on standard error.
pub(super) fn show(problems: &Problems, terminal: &Terminal) {
    if !problems.list.is_empty() {
        let mut stderr = io::stderr().lock();
        // Nobody is left to tell when standard error is closed.
        let _ = io::Write::write_all(
            &mut stderr,
            (problems.render(terminal.error_style().color) + "\n\n").as_bytes(),
        );
    }
}

/// How many problems there are, in words.
pub(super) fn tally(problems: &Problems) -> String {
    let (errors, warnings) = (
        problems.count(Severity::Error),
        problems.count(Severity::Warning),
    );
    let mut text = format!("{} has {}", problems.file, counted(errors, "error"));
    if warnings > 0 {
        text += &format!(" and {}", counted(warnings, "warning"));
    }
    text
}

/// `1 route`, `2 routes`, `2 addresses`.
pub(super) fn counted(count: usize, one: &str) -> String {
    match (count, one.ends_with('s')) {
        (1, _) => format!("1 {one}"),
        (_, true) => format!("{count} {one}es"),
        (_, false) => format!("{count} {one}s"),
    }
}
