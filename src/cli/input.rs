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
        match String::from_utf8(bytes) {
            Ok(source) => Topology::parse(&name, &source).map_err(Unusable::Wrong),
            Err(error) => {
                let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
                    .split(|&b| b == b'\n')
                    .count();
                Err(Unusable::Unreadable(Failure(format!(
                    "{name}:{line}: not UTF-8, so not a YAML file"
                ))))
            }
        }
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
    let count = |severity, one: &str| match problems.count(severity) {
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    };
    let mut text = format!("{} has {}", problems.file, count(Severity::Error, "error"));
    if problems.count(Severity::Warning) > 0 {
        text += &format!(" and {}", count(Severity::Warning, "warning"));
    }
    text
}
