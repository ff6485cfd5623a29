//! `tunnelform render`: the single-host topology that a node gets.

use tunnelform::topology::Topology;

use super::input::{Input, NodeChoice, show, tally};
use super::{DONE, Failure, Output, Result, Terminal, print, print_json};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tunnelform render fleet.yaml --node node-1\n  \
                        tunnelform render fleet.yaml --node node-1 | ssh node-1 tunnelform apply -\n\n\
                        Exit codes: 0 printed, 1 error."
)]
pub(super) struct Render {
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    node: NodeChoice,
    /// Form of the output: YAML or JSON.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

impl Render {
    pub(super) fn run(self, terminal: &Terminal) -> Result {
        let topology = self.input.topology(terminal)?;
        let host = self.node.host_named(&topology)?;
        let rendered = host.into_topology();
        let text = rendered.to_yaml()?;
        // What one node gets is checked as a file of its own would be.
        if let Err(problems) = Topology::parse("rendered", &text) {
            show(&problems, terminal);
            return Err(Failure(tally(&problems)));
        }
        match self.output {
            Output::Text => print(&text)?,
            Output::Json => print_json(&rendered)?,
        }
        Ok(DONE)
    }
}
