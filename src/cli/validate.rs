//! `tunnelform validate`.

use tunnelform::topology::{Located, Parsed, Problems, Severity};

use super::input::{Input, Unusable, show, tally};
use super::{DONE, FAILED, Failure, Output, Result, Terminal, print, print_json};

/// Check a topology. Needs no root and asks no kernel.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tunnelform validate hq.yaml\n  helm template . | tunnelform validate -\n\n\
                        Exit codes: 0 valid (warnings or none), 1 not valid."
)]
pub(super) struct Validate {
    #[command(flatten)]
    input: Input,
    /// Form of the output.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// The problems, for machines.
#[derive(serde::Serialize)]
struct Report<'a> {
    format_version: u32,
    valid: bool,
    problems: Vec<Located<'a>>,
}

impl Validate {
    pub(super) fn run(self, terminal: &Terminal) -> Result {
        let (topology, problems) = match self.input.parse() {
            Ok(Parsed { topology, warnings }) => (Some(topology), warnings),
            Err(Unusable::Wrong(problems)) => (None, problems),
            Err(Unusable::Unreadable(failure)) => return Err(failure),
        };
        match self.output {
            Output::Json => {
                let valid = topology.is_some();
                print_json(&Report {
                    format_version: 1,
                    valid,
                    problems: problems.located().collect(),
                })?;
                return Ok(if valid { DONE } else { FAILED });
            }
            Output::Text => show(&problems, terminal),
        }
        let Some(topology) = topology else {
            return Err(Failure(tally(&problems)));
        };
        let routes = topology.routes.len()
            + topology
                .tunnels
                .values()
                .map(|t| t.routes.len())
                .sum::<usize>();
        let addresses = topology.addresses.values().map(Vec::len).sum::<usize>()
            + topology
                .tunnels
                .values()
                .map(|t| t.addresses.len())
                .sum::<usize>();
        let counted = format!(
            "{} tunnels, {addresses} addresses, {routes} routes",
            topology.tunnels.len()
        );
        print(&format!(
            "{}: valid ({counted}){}\n",
            problems.file,
            warned(&problems)
        ))?;
        Ok(DONE)
    }
}

fn warned(problems: &Problems) -> String {
    match problems.count(Severity::Warning) {
        0 => String::new(),
        1 => ", 1 warning".into(),
        count => format!(", {count} warnings"),
    }
}
