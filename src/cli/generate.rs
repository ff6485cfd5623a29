//! `tunnelform schema`, `completions` and `man`: files made from the program itself.

use clap::ValueEnum;
use clap_complete::Shell;
use tunnelform::topology::Topology;
use tunnelform::{capture, plan, probe, watch};

use super::{DONE, Failure, Result, print, print_json};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tunnelform schema > topology.schema.json\n  tunnelform schema plan\n\n\
                        Exit codes: 0 printed, 1 error."
)]
pub(super) struct Schema {
    /// Which one.
    #[arg(value_enum, default_value_t)]
    of: Of,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Of {
    /// What FILE holds.
    #[default]
    Topology,
    /// What `apply --output json` prints.
    Plan,
    /// What `apply --all-nodes` and `diff` print with `--output json`.
    FleetPlan,
    /// What `apply --dry-run --out` writes.
    SavedPlan,
    /// What `export --state` prints.
    State,
    /// What `probe --output json` prints.
    Probe,
    /// What `watch --listen` answers at /status.
    WatchStatus,
}

#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  tunnelform completions bash > /etc/bash_completion.d/tunnelform\n\n\
                        Exit codes: 0 printed, 1 error."
)]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tunnelform man | man -l -\n  tunnelform man apply > tunnelform-apply.1\n\n\
                        Exit codes: 0 printed, 1 no such command."
)]
pub(super) struct Man {
    /// The command.
    #[arg(value_name = "COMMAND")]
    of: Option<String>,
}

impl Schema {
    pub(super) fn run(self) -> Result {
        match self.of {
            Of::Topology => print_json(&Topology::schema())?,
            Of::Plan => print_json(&plan::schema())?,
            Of::FleetPlan => print_json(&plan::fleet_schema())?,
            Of::SavedPlan => print_json(&plan::saved_schema())?,
            Of::State => print_json(&capture::schema())?,
            Of::Probe => print_json(&probe::schema())?,
            Of::WatchStatus => print_json(&watch::status_schema())?,
        }
        Ok(DONE)
    }
}

impl Completions {
    pub(super) fn run(self, mut command: clap::Command) -> Result {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "tunnelform", &mut script);
        print(&String::from_utf8_lossy(&script))?;
        Ok(DONE)
    }
}

impl Man {
    pub(super) fn run(self, mut command: clap::Command) -> Result {
        command.build();
        let command = match &self.of {
            None => command,
            Some(name) => match command.find_subcommand(name) {
                Some(subcommand) => subcommand.clone(),
                None => {
                    return Err(Failure(format!(
                        "there is no command {name:?}: `tunnelform --help` lists them"
                    )));
                }
            },
        };
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        print(&String::from_utf8_lossy(&page))?;
        Ok(DONE)
    }
}
