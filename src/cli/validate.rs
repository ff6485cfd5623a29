//! `tunnelform validate`.

use tunnelform::source::{Located, Problems, Severity};
use tunnelform::topology::{Parsed, Topology};

use super::input::{Input, Unusable, counted, show, tally};
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
        print(&format!(
            "{}: valid ({}){}\n",
            problems.name,
            contents(&topology),
            warned(&problems)
        ))?;
        Ok(DONE)
    }
}

fn contents(topology: &Topology) -> String {
    let nodes = topology.nodes.values();
    let tunnels = topology.tunnels.values();
    let tunnels = tunnels.chain(nodes.clone().flat_map(|node| node.tunnels.values()));
    let devices = topology.addresses.values();
    let devices = devices.chain(nodes.clone().flat_map(|node| node.addresses.values()));
    let lists = [&topology.routes]
        .into_iter()
        .chain(nodes.map(|node| &node.routes));
    let addresses = tunnels.clone().map(|tunnel| &tunnel.addresses);
    let routes = tunnels.clone().map(|tunnel| &tunnel.routes);
    let mut parts = vec![
        counted(tunnels.count(), "tunnel"),
        counted(addresses.chain(devices).map(Vec::len).sum(), "address"),
        counted(routes.chain(lists).map(Vec::len).sum(), "route"),
    ];
    if !topology.nodes.is_empty() {
        let fleet = [
            counted(topology.nodes.len(), "node"),
            counted(topology.meshes.len(), "mesh"),
        ];
        parts.splice(0..0, fleet);
    }
    parts.join(", ")
}

fn warned(problems: &Problems) -> String {
    match problems.count(Severity::Warning) {
        0 => String::new(),
        count => format!(", {}", counted(count, "warning")),
    }
}
