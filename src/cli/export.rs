//! `tunnelform export`: what the kernel has, as a topology or as a state.

use tunnelform::capture;
use tunnelform::export::{Whose, export};
use tunnelform::kernel::{Extent, Kernel};
use tunnelform::topology::{Owner, Protocol, Topology};

use super::input::{Netns, show, tally};
use super::{DONE, Failure, Output, Result, Terminal, print, print_json, warn};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tunnelform export > hq.yaml\n  tunnelform export --owner hq\n  \
                        tunnelform export --state > states/node-1.yaml\n\n\
                        Exit codes: 0 printed, 1 error."
)]
pub(super) struct Export {
    /// Everything that a plan depends on, every default filled in: for `--against`.
    #[arg(long, conflicts_with = "owner")]
    state: bool,
    /// What this topology owns.
    #[arg(long, value_name = "NAME")]
    owner: Option<Owner>,
    /// With --owner: the protocol that marks the owner's routes.
    #[arg(long, value_name = "NUMBER", default_value_t = Protocol::DEFAULT.0, requires = "owner",
        value_parser = clap::value_parser!(u8).range(5..))]
    route_protocol: u8,
    #[command(flatten)]
    netns: Netns,
    /// Form of the output: YAML or JSON.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

impl Export {
    pub(super) fn run(self, terminal: &Terminal) -> Result {
        let observed = Kernel::open(self.netns.name())?.observe(&Extent {
            protocol: None,
            own_protocol: self.route_protocol,
            paths: Default::default(),
            counters: false,
        })?;
        if self.state {
            match self.output {
                Output::Text => print(&capture::write(&observed)?)?,
                Output::Json => print_json(&capture::json(&observed))?,
            }
            return Ok(DONE);
        }
        let fallback = host_name()?;
        let whose = match &self.owner {
            Some(owner) => Whose::Owners(owner, Protocol(self.route_protocol)),
            None => Whose::Nobodys(&fallback),
        };
        let exported = export(&observed, &whose);
        for line in &exported.left_out {
            warn(terminal, &format!("left out: {line}"));
        }
        let text = exported.topology.to_yaml()?;
        match self.output {
            Output::Text => print(&text)?,
            Output::Json => print_json(&exported.topology)?,
        }
        // The kernel allows what the format refuses: a device called `all`, an address of a whole network.
        match Topology::parse("exported", &text) {
            Ok(_) => Ok(DONE),
            Err(problems) => {
                show(&problems, terminal);
                Err(Failure(format!(
                    "{}: mend it before it is applied",
                    tally(&problems)
                )))
            }
        }
    }
}

/// The host's name as an owner's.
fn host_name() -> std::result::Result<Owner, Failure> {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String = name.chars().filter(|c| fits(*c)).take(63).collect();
    name.parse()
        .or_else(|_| "exported".parse())
        .map_err(Failure)
}
