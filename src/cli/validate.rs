//! `tunnelform validate`.

use std::path::PathBuf;

use tunnelform::source::{Located, Problems, Severity};
use tunnelform::topology::{Parsed, Topology};

use super::input::{Input, Unusable, counted, show, tally};
use super::{DONE, FAILED, Failure, Output, Result, Terminal, complain, print, print_json};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tunnelform validate hq.yaml\n  tunnelform validate hosts/*.yaml\n  helm template . | \
                        tunnelform validate -\n\nExit codes: 0 all valid (warnings or none), 1 not valid."
)]
pub(super) struct Validate {
    /// The topologies: each a file, a directory whose *.yaml are one topology, or `-` for standard input.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Form of the output.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// The problems of all files, for machines.
#[derive(serde::Serialize)]
struct Report<'a> {
    format_version: u32,
    valid: bool,
    problems: Vec<Located<'a>>,
}

impl Validate {
    pub(super) fn run(self, terminal: &Terminal) -> Result {
        let inputs = self.files.iter().map(|file| Input { file: file.clone() });
        match self.output {
            Output::Text => in_words(inputs, terminal),
            Output::Json => for_machines(inputs),
        }
    }
}

fn in_words(inputs: impl Iterator<Item = Input>, terminal: &Terminal) -> Result {
    let mut code = DONE;
    for input in inputs {
        let failure = match input.parse() {
            Ok(Parsed { topology, warnings }) => {
                show(&warnings, terminal);
                print(&format!(
                    "{}: valid ({}){}\n",
                    warnings.name,
                    contents(&topology),
                    warned(&warnings)
                ))?;
                continue;
            }
            Err(Unusable::Wrong(problems)) => {
                show(&problems, terminal);
                tally(&problems)
            }
            Err(Unusable::Unreadable(Failure(message))) => message,
        };
        complain(terminal, &failure);
        code = FAILED;
    }
    Ok(code)
}

fn for_machines(inputs: impl Iterator<Item = Input>) -> Result {
    let mut valid = true;
    let mut found = Vec::new();
    for input in inputs {
        found.push(match input.parse() {
            Ok(Parsed { warnings, .. }) => warnings,
            Err(Unusable::Wrong(problems)) => {
                valid = false;
                problems
            }
            Err(Unusable::Unreadable(failure)) => return Err(failure),
        });
    }
    print_json(&Report {
        format_version: 1,
        valid,
        problems: found.iter().flat_map(Problems::located).collect(),
    })?;
    Ok(if valid { DONE } else { FAILED })
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
    let host = [
        (tunnels.count(), "tunnel"),
        (addresses.chain(devices).map(Vec::len).sum(), "address"),
        (routes.chain(lists).map(|list| list.len()).sum(), "route"),
    ];
    let fleet = [
        (topology.nodes.len(), "node"),
        (topology.meshes.len(), "mesh"),
    ];
    // Of a fleet only what it has: its meshes make the most of it.
    let is_fleet = !topology.nodes.is_empty();
    let parts = fleet.iter().filter(|(count, _)| *count > 0);
    let parts = parts.chain(host.iter().filter(|(count, _)| *count > 0 || !is_fleet));
    let parts: Vec<String> = parts.map(|(count, of)| counted(*count, of)).collect();
    parts.join(", ")
}

fn warned(problems: &Problems) -> String {
    match problems.count(Severity::Warning) {
        0 => String::new(),
        count => format!(", {}", counted(count, "warning")),
    }
}
