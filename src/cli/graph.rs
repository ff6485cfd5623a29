//! `tunnelform graph`: the topology as a picture.

use tunnelform::graph::{Format, draw};

use super::input::Input;
use super::{DONE, Result, Terminal, print};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tunnelform graph fleet.yaml > fleet.svg\n  \
                        tunnelform graph --format dot fleet.yaml | dot -Tpdf > fleet.pdf\n  \
                        tunnelform graph --format mermaid fleet.yaml  for a page in Markdown\n\n\
                        Exit codes: 0 drawn, 1 error."
)]
pub(super) struct Graph {
    #[command(flatten)]
    input: Input,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    format: Form,
}

/// The form of the output.
#[derive(Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For Graphviz.
    Dot,
    /// For Mermaid, as in a Markdown page on GitHub or GitLab.
    Mermaid,
    /// For a browser: an image that needs nothing else.
    #[default]
    Svg,
}

impl Graph {
    pub(super) fn run(self, terminal: &Terminal) -> Result {
        let topology = self.input.topology(terminal)?;
        let format = match self.format {
            Form::Dot => Format::Dot,
            Form::Mermaid => Format::Mermaid,
            Form::Svg => Format::Svg,
        };
        print(&draw(&topology, format))?;
        Ok(DONE)
    }
}
