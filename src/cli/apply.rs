//! `tunnelform apply` and `tunnelform destroy`.

use std::time::Duration;

use clap::Args;
use tunnelform::kernel::Kernel;
use tunnelform::lock::Lock;
use tunnelform::plan::{
    Action, Document, Outcome, Plan, Saved, Status, Style, Terms, unified_diff,
};
use tunnelform::reconcile::{self, Goal, Look, Pass, Round};
use tunnelform::topology::{Host, Owner, Protocol, Topology};

use super::carry_out::{self, CarryOut};
use super::input::{Input, NodeChoice};
use super::offline::{self, Against};
use super::save::{self, Directory, Source, run_or_save};
use super::{
    CHANGES, DONE, FAILED, Failure, Output, Result, Terminal, complain, print, print_json,
    require_privilege, tell_of_daemon, warn,
};

/// Make the host as the topology says, or carry out a saved plan.
///
/// A saved plan is carried out as it is, or not at all: on a host that is no longer as it was when the plan was made, it's
/// refused, and what differs is named.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  tunnelform apply --dry-run hq.yaml\n  tunnelform apply hq.yaml\n  \
                        tunnelform apply --dry-run --detailed-exitcode --output json hq.yaml\n  \
                        tunnelform apply --netns blue hq.yaml\n  \
                        tunnelform apply --dry-run --out plan.json hq.yaml && tunnelform apply plan.json\n\n\
                        Exit codes: 0 done or nothing to do, 1 error; with --detailed-exitcode 2 for changes, pending \
                        in a dry run and made otherwise."
)]
pub(super) struct Apply {
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    node: NodeChoice,
    #[command(flatten)]
    options: Options,
    /// With --dry-run: plan without a host, against what `export --state` has printed, or `empty` for a bare host. With
    /// --all-nodes a directory with NODE.yaml for each.
    #[arg(
        long,
        value_name = "STATE",
        requires = "dry_run",
        conflicts_with = "netns"
    )]
    against: Option<Against>,
    /// With --against: the plan of every node.
    #[arg(long, requires = "against", conflicts_with_all = ["node", "diff"])]
    all_nodes: bool,
    /// Leave alone what is ours and no longer in the topology.
    #[arg(long)]
    no_prune: bool,
    /// Take over tunnels, addresses and routes that exist without our mark.
    #[arg(long)]
    adopt: bool,
}

/// Take away what a topology owns, and nothing else.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  tunnelform destroy hq.yaml\n  tunnelform destroy --dry-run --owner hq\n\n\
                        Exit codes: as of apply."
)]
pub(super) struct Destroy {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    node: NodeChoice,
    /// With --owner: the protocol that marks the owner's routes.
    #[arg(long, value_name = "NUMBER", default_value_t = Protocol::DEFAULT.0, conflicts_with = "file",
        value_parser = clap::value_parser!(u8).range(5..))]
    route_protocol: u8,
    #[command(flatten)]
    options: Options,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The topology; `-` for standard input.
    #[arg(value_name = "FILE")]
    file: Option<std::path::PathBuf>,
    /// The name of a topology whose file is lost.
    #[arg(long, value_name = "NAME")]
    owner: Option<Owner>,
}

#[derive(Args)]
pub(super) struct Options {
    /// Only show what would change. Needs no root.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// With --dry-run: save the plan, which `apply FILE` carries out later. With --all-nodes a directory, in which each
    /// node that changes gets its NODE.json.
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    pub(super) out: Option<std::path::PathBuf>,
    /// Exit with 2 if there are changes.
    #[arg(long)]
    detailed_exitcode: bool,
    /// Work in the network namespace that `ip netns` calls so.
    #[arg(long, value_name = "NAME")]
    pub(super) netns: Option<String>,
    /// Form of the output.
    #[arg(long, short, value_enum, default_value_t)]
    pub(super) output: Output,
    /// Show the plan as a unified diff of the state.
    #[arg(long, conflicts_with = "output")]
    diff: bool,
    /// Seconds to wait for another run in the same namespace.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(super) lock_timeout: u64,
}

impl Apply {
    pub(super) fn run(self, terminal: &Terminal) -> Result {
        let files = self.input.read()?;
        if let [(_, bytes)] = files.as_slice()
            && Saved::is_meant(bytes)
        {
            return self.carry_out(bytes, terminal);
        }
        let source = Source::new(&self.input, files, terminal)?;
        let topology = &source.topology;
        let terms = terms(topology, self.adopt, !self.no_prune);
        let Some(against) = &self.against else {
            let mut kernel = Kernel::open(self.options.netns.as_deref())?;
            let host = self.node.host(topology, &mut kernel)?;
            let host = self.options.to_save(host);
            let goal = Goal::Host(&host);
            return run_or_save(
                &self.options,
                &mut kernel,
                goal,
                &terms,
                Some(&source),
                terminal,
            );
        };
        if let (Against::Empty, Some(warning)) = (against, offline::unknowable(topology)) {
            warn(terminal, &warning);
        }
        if self.all_nodes {
            return self.every_node(&source, against, &terms, terminal);
        }
        let observed = against.state(terminal)?;
        let host = match &observed {
            Some(observed) => self.node.host_of(topology, observed)?,
            None => self.node.host_named(topology)?,
        };
        let host = self.options.to_save(host);
        let look = offline::plan(&host, topology, observed, &terms)?;
        let code = self.options.report_preview(&look, &terms, terminal)?;
        if let Some(file) = &self.options.out {
            save::save_offline(file, (&source, &host), against, &look, &terms)?;
            save::tell(file, terminal);
        }
        Ok(code)
    }

    /// A saved plan has its terms, which no flag changes.
    fn carry_out(&self, bytes: &[u8], terminal: &Terminal) -> Result {
        let name = self.input.name();
        let flags = [
            (self.adopt, "--adopt"),
            (self.no_prune, "--no-prune"),
            (self.against.is_some(), "--against"),
            (self.options.out.is_some(), "--out"),
        ];
        if let Some((_, flag)) = flags.into_iter().find(|(given, _)| *given) {
            return Err(Failure(format!(
                "{name} is a saved plan, carried out as it is: {flag} goes with a topology"
            )));
        }
        let (saved, planned) = carry_out::read(&name, bytes)?;
        let carry_out = CarryOut {
            saved,
            planned,
            options: &self.options,
            node: &self.node,
        };
        carry_out.run(terminal)
    }

    fn every_node(
        &self,
        source: &Source,
        against: &Against,
        terms: &Terms,
        terminal: &Terminal,
    ) -> Result {
        let out = self
            .options
            .out
            .as_deref()
            .map(Directory::new)
            .transpose()?;
        let fleet = source.topology.fleet();
        let plans = offline::plans(&fleet, source, against, terms, out.as_ref(), terminal);
        let totals = match self.options.output {
            Output::Text => offline::print_text(plans, terminal.style())?,
            Output::Json => offline::print_json(terms.owner.as_str(), plans)?,
        };
        if let Some(out) = &out {
            out.tell(terminal);
        }
        match totals.failure() {
            Some(failure) => Err(failure),
            None => Ok(self.options.code(totals.changed > 0)),
        }
    }
}

impl Destroy {
    pub(super) fn run(self, terminal: &Terminal) -> Result {
        match self.which {
            Which {
                owner: Some(owner), ..
            } => {
                let mut kernel = Kernel::open(self.options.netns.as_deref())?;
                let terms = Terms {
                    owner,
                    protocol: self.route_protocol,
                    adopt: false,
                    prune: true,
                };
                let goal = Goal::Nothing(None);
                run_or_save(&self.options, &mut kernel, goal, &terms, None, terminal)
            }
            Which { file, .. } => {
                let input = Input {
                    file: file.unwrap_or_else(|| "-".into()),
                };
                let source = Source::new(&input, input.read()?, terminal)?;
                let topology = &source.topology;
                let mut kernel = Kernel::open(self.options.netns.as_deref())?;
                let host = self.node.host(topology, &mut kernel)?;
                let host = self.options.to_save(host);
                let terms = terms(topology, false, true);
                let goal = Goal::Nothing(Some(&host));
                run_or_save(
                    &self.options,
                    &mut kernel,
                    goal,
                    &terms,
                    Some(&source),
                    terminal,
                )
            }
        }
    }
}

pub(super) fn terms(topology: &Topology, adopt: bool, prune: bool) -> Terms {
    Terms {
        owner: topology.name.clone(),
        protocol: topology.route_protocol.0,
        adopt,
        prune,
    }
}

impl Options {
    /// What is saved is planned as it will be read.
    fn to_save(&self, host: Host) -> Host {
        match self.out {
            Some(_) => host.written_out(),
            None => host,
        }
    }

    pub(super) fn run(
        &self,
        kernel: &mut Kernel,
        goal: Goal,
        terms: &Terms,
        terminal: &Terminal,
    ) -> Result {
        tell_of_daemon(kernel, &terms.owner, terminal);
        if self.dry_run {
            let look = reconcile::look(kernel, goal, terms, false)?;
            return self.report_preview(&look, terms, terminal);
        }
        require_privilege()?;
        let _lock = Lock::take(kernel.namespace(), Duration::from_secs(self.lock_timeout))?;
        let mut shown = Ok(());
        let pass = reconcile::apply(kernel, goal, terms, |look| {
            if self.output == Output::Text && shown.is_ok() {
                shown = print(&self.text(look, terminal.style()));
            }
        })?;
        let report = self.report_pass(&pass, terms, terminal);
        shown.and(report)
    }

    pub(super) fn text(&self, look: &Look, style: Style) -> String {
        match self.diff {
            true if look.plan.conflicts.is_empty() => unified_diff(&look.desired, &look.plan),
            true | false => look.plan.text(style),
        }
    }

    pub(super) fn report_preview(&self, look: &Look, terms: &Terms, terminal: &Terminal) -> Result {
        let plan = &look.plan;
        match self.output {
            Output::Json => {
                print_json(&Document::new(
                    terms.owner.as_str(),
                    true,
                    plan.is_empty(),
                    &[(plan, &[])],
                ))?;
            }
            Output::Text => print(&self.text(look, terminal.style()))?,
        }
        if !plan.conflicts.is_empty() {
            return Err(Failure(format!(
                "nothing would be changed: {}",
                conflicts(plan)
            )));
        }
        Ok(self.code(!plan.is_empty()))
    }

    pub(super) fn report_pass(&self, pass: &Pass, terms: &Terms, terminal: &Terminal) -> Result {
        let failures = failures(pass);
        let in_sync = pass.left.is_empty() && pass.left.conflicts.is_empty();
        match self.output {
            Output::Json => {
                let mut rounds: Vec<(&Plan, &[Outcome])> = pass
                    .rounds
                    .iter()
                    .map(|round| (&round.plan, round.outcomes.as_slice()))
                    .collect();
                if rounds.is_empty() {
                    rounds.push((&pass.left, &[]));
                }
                let mut document = Document::new(terms.owner.as_str(), false, in_sync, &rounds);
                document.errors = failures.clone();
                print_json(&document)?;
            }
            Output::Text if !self.diff && !pass.rounds.is_empty() => {
                print(&(made(&pass.rounds) + "\n"))?
            }
            Output::Text => {}
        }
        if in_sync && failures.is_empty() {
            return Ok(self.code(!pass.rounds.is_empty()));
        }
        for failure in &failures {
            complain(terminal, failure);
        }
        if pass.rounds.is_empty() && !pass.left.conflicts.is_empty() {
            complain(
                terminal,
                &format!("nothing was changed: {}", conflicts(&pass.left)),
            );
        }
        Ok(FAILED)
    }

    pub(super) fn code(&self, changes: bool) -> u8 {
        if changes && self.detailed_exitcode {
            CHANGES
        } else {
            DONE
        }
    }
}

fn conflicts(plan: &Plan) -> String {
    let objects: Vec<&str> = plan
        .conflicts
        .iter()
        .map(|conflict| conflict.object.as_str())
        .collect();
    format!("not ours: {}", objects.join(", "))
}

/// What was done, as the plan's last line is counted.
fn made(rounds: &[Round]) -> String {
    let count = |action: Action| {
        let done = |round: &Round| {
            let pairs = round.plan.changes.iter().zip(&round.outcomes);
            pairs
                .filter(|(change, outcome)| {
                    change.action() == action && outcome.status == Status::Done
                })
                .count()
        };
        rounds.iter().map(done).sum::<usize>()
    };
    let mut text = format!(
        "Done: {} created, {} changed, {} replaced, {} deleted",
        count(Action::Create),
        count(Action::Update),
        count(Action::Replace),
        count(Action::Delete)
    );
    if count(Action::Restore) > 0 {
        text += &format!(", {} put back", count(Action::Restore));
    }
    text + "."
}

/// What went wrong: what the kernel refused, and what differs at the end without its having refused anything.
fn failures(pass: &Pass) -> Vec<String> {
    let mut failures = Vec::new();
    for round in &pass.rounds {
        for (change, outcome) in round.plan.changes.iter().zip(&round.outcomes) {
            let why = outcome.error.as_deref().unwrap_or_default();
            match outcome.status {
                Status::Done => {}
                Status::Failed => failures.push(format!(
                    "failed to {} {change}: {why}",
                    verb(change.action())
                )),
                Status::Skipped => {
                    failures.push(format!("didn't {} {change}: {why}", verb(change.action())))
                }
                Status::Pending => {
                    failures.push(format!("didn't {} {change}", verb(change.action())))
                }
            }
        }
    }
    if failures.is_empty() && !pass.rounds.is_empty() {
        let left = pass.left.changes.iter();
        failures.extend(left.map(|change| {
            let text = change.text(Style { color: false });
            format!("the kernel took every change, but this still differs:\n{text}")
        }));
    }
    failures
}

fn verb(action: Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Update => "change",
        Action::Replace => "replace",
        Action::Delete => "delete",
        Action::Restore => "put back",
    }
}
