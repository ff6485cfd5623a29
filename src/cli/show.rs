//! `tunnelform show`: a saved plan, read.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tunnelform::plan::{Document, Plan, Purpose, Saved};
use tunnelform::source::Content;

use super::carry_out::read;
use super::input::Input;
use super::markdown::{Form, markdown};
use super::offline::NodePlan;
use super::{DONE, Failure, Result, Terminal, print, print_json};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tunnelform show plan.json\n  tunnelform show --output markdown plans/*.json\n\n\
                        Exit codes: 0 shown, 1 error: no saved plan, or one that was changed."
)]
pub(super) struct Show {
    /// The saved plans; `-` for standard input.
    #[arg(value_name = "PLAN", required = true)]
    files: Vec<PathBuf>,
    /// Form of the output. JSON is the plan's document, of one PLAN alone.
    #[arg(long, short, value_enum, default_value_t)]
    output: Form,
}

impl Show {
    pub(super) fn run(self, terminal: &Terminal) -> Result {
        let plans = self.files.into_iter().map(one);
        let plans = plans.collect::<std::result::Result<Vec<_>, _>>()?;
        match (self.output, plans.as_slice()) {
            (Form::Text, plans) => {
                let style = terminal.style();
                let blocks = plans.iter().map(|(saved, plan)| {
                    format!("{}\n{}", style.heading(&title(saved)), plan.text(style))
                });
                print(&blocks.collect::<Vec<_>>().join("\n"))?;
            }
            (Form::Json, [(saved, plan)]) => {
                let owner = saved.terms.owner.as_str();
                print_json(&Document::new(owner, true, plan.is_empty(), &[(plan, &[])]))?;
            }
            (Form::Json, _) => {
                return Err(Failure("--output json shows one PLAN at a time".into()));
            }
            (Form::Markdown, _) => {
                let heading = heading(&plans);
                let plans = plans.into_iter().map(|(saved, plan)| NodePlan {
                    node: subject(&saved),
                    plan: Ok(plan),
                });
                markdown(plans, &heading)?;
            }
        }
        Ok(DONE)
    }
}

fn one(file: PathBuf) -> std::result::Result<(Saved, Plan), Failure> {
    let input = Input { file };
    let name = input.name();
    match input.read()?.as_slice() {
        [Content { bytes, .. }] if Saved::is_meant(bytes) => read(&name, bytes),
        _ => Err(Failure(format!(
            "{name} is no saved plan: `tunnelform apply --dry-run --out PLAN` saves one"
        ))),
    }
}

/// What changes: a node, or the one host of a topology.
fn subject(saved: &Saved) -> String {
    let node = saved.origin.node.as_ref().map(ToString::to_string);
    node.unwrap_or_else(|| saved.terms.owner.to_string())
}

/// For whom, when and with what a plan was made.
fn title(saved: &Saved) -> String {
    let what = match saved.goal {
        Purpose::Apply => "plan",
        Purpose::Destroy => "plan to destroy",
    };
    let owner = match &saved.origin.node {
        Some(_) => format!(" of {}", saved.terms.owner),
        None => String::new(),
    };
    let host = saved.origin.host.iter().map(|host| format!(" on {host}"));
    let netns = saved
        .origin
        .netns
        .iter()
        .map(|netns| format!(" in {netns}"));
    let place: String = host.chain(netns).collect();
    format!(
        "{what} for {}{owner}{place}, {}",
        subject(saved),
        made(saved)
    )
}

fn made(saved: &Saved) -> String {
    let terms = [
        (saved.terms.adopt, " --adopt"),
        (!saved.terms.prune, " --no-prune"),
    ];
    let terms = terms
        .into_iter()
        .filter(|(set, _)| *set)
        .map(|(_, flag)| flag);
    let topology = saved.origin.topology_digest.as_ref();
    let topology = topology.map(|digest| format!(" from the topology {digest}"));
    format!(
        "made at {} by tunnelform {}{}{}",
        saved.origin.made,
        env!("CARGO_PKG_VERSION"),
        terms.collect::<String>(),
        topology.unwrap_or_default()
    )
}

/// Whose plans they are, and a line for each time that some were made.
fn heading(plans: &[(Saved, Plan)]) -> String {
    let owners: BTreeSet<&str> = plans
        .iter()
        .map(|(saved, _)| saved.terms.owner.as_str())
        .collect();
    let owners: Vec<&str> = owners.into_iter().collect();
    let times: BTreeSet<String> = plans.iter().map(|(saved, _)| made(saved)).collect();
    let times: String = times.into_iter().map(|time| format!("{time}\n")).collect();
    format!("{}\n\n{}\n", owners.join(", "), times)
}
