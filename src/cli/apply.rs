//! `tunnelform apply` and `tunnelform destroy`.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use tunnelform::kernel::{Kernel, NamespaceId, OnRefusal};
use tunnelform::lock::Lock;
use tunnelform::plan::{
    Action, ChangeDocument, Document, Outcome, Plan, Status, Style, TakenBackDocument, Terms, Undo,
    unified_diff,
};
use tunnelform::reconcile::{self, Goal, Look, Pass, Round, TakenBack, Witness};
use tunnelform::state::Unmet;
use tunnelform::topology::{Host, Owner, Protocol, Topology};
use tunnelform::trial::{self, Guarded, Unconfirmed};

use super::input::{Input, NodeChoice};
use super::offline::{self, Against};
use super::operator;
use super::{
    CHANGES, DONE, FAILED, Failure, HALF_DONE, Output, Result, Terminal, complain, print,
    print_json, require_privilege, tell_of_daemon, warn,
};

/// Make the host as the topology says.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  tunnelform apply --dry-run hq.yaml\n  tunnelform apply hq.yaml\n  \
                        tunnelform apply --dry-run --detailed-exitcode --output json hq.yaml\n  \
                        tunnelform apply --netns blue hq.yaml\n\n\
                        When the kernel refuses a change, all that was done is taken back.\n\n\
                        Exit codes: 0 done or nothing to do, 1 error and nothing changed, 3 error and something \
                        changed; with --detailed-exitcode 2 for changes, pending in a dry run and made otherwise. With \
                        --keep-going 1 for any error."
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
    /// All or nothing: when the kernel refuses a change, take back what was done. The default.
    #[arg(long, overrides_with = "keep_going")]
    atomic: bool,
    /// When the kernel refuses a change, make the others all the same.
    #[arg(long, short, overrides_with = "atomic")]
    keep_going: bool,
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
struct Options {
    /// Only show what would change. Needs no root.
    #[arg(long)]
    dry_run: bool,
    /// Exit with 2 if there are changes.
    #[arg(long)]
    detailed_exitcode: bool,
    /// Work in the network namespace that `ip netns` calls so.
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// Form of the output.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    /// Show the plan as a unified diff of the state.
    #[arg(long, conflicts_with = "output")]
    diff: bool,
    /// Seconds to wait for another run in the same namespace.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    lock_timeout: u64,
    /// Change nothing that removes or redirects the way to this address. So it is with the other end of the SSH connection
    /// that the command is run from.
    #[arg(long, value_name = "ADDRESS")]
    protect: Vec<IpAddr>,
    /// Change it all the same.
    #[arg(long)]
    force: bool,
    /// Take the change back unless `tunnelform confirm` comes within that time (1s to 1day, such as `60s`), even if this
    /// command and its terminal are gone.
    #[arg(long, value_name = "TIME", conflicts_with = "dry_run")]
    confirm_within: Option<Within>,
}

/// How long a change may wait to be confirmed.
#[derive(Clone, Copy)]
struct Within(Duration);

impl std::str::FromStr for Within {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let range = Duration::from_secs(1)..=Duration::from_secs(86_400);
        let time = humantime::parse_duration(text).ok();
        time.filter(|time| range.contains(time))
            .map(Self)
            .ok_or_else(|| "expected a time from 1s to 1day, such as `60s`".into())
    }
}

/// Shows each plan before it's carried out, and has a guardian keep the way back.
struct Stand<'a> {
    options: &'a Options,
    terminal: &'a Terminal,
    terms: &'a Terms,
    namespace: NamespaceId,
    shown: std::result::Result<(), Failure>,
    guarded: Option<Guarded>,
}

impl Witness for Stand<'_> {
    fn sees(&mut self, look: &Look) {
        if self.options.output == Output::Text && self.shown.is_ok() {
            self.shown = print(&self.options.text(look, self.terminal.style()));
        }
    }

    fn will_touch(&mut self, undo: &Undo) -> std::result::Result<(), reconcile::Error> {
        let no_way_back = |error: trial::Error| reconcile::Error::NoWayBack(error.into());
        let Some(within) = self.options.confirm_within else {
            return Ok(());
        };
        if self.guarded.is_none() {
            let netns = self.options.netns.as_deref();
            let guarded = Guarded::begin(self.namespace, netns, self.terms, within.0);
            self.guarded = Some(guarded.map_err(no_way_back)?);
        }
        match &mut self.guarded {
            Some(guarded) => guarded.note(undo).map_err(no_way_back),
            None => Ok(()),
        }
    }
}

impl Apply {
    pub(super) fn run(self, terminal: &Terminal) -> Result {
        let topology = self.input.topology(terminal)?;
        let mut terms = terms(&topology, self.adopt, !self.no_prune);
        terms.protect = self.options.protected(self.against.is_none());
        let Some(against) = &self.against else {
            let mut kernel = Kernel::open(self.options.netns.as_deref())?;
            let host = self.node.host(&topology, &mut kernel)?;
            let wish = Wish {
                goal: Goal::Host(&host),
                terms: &terms,
                on_refusal: self.on_refusal(),
            };
            return self.options.run(&mut kernel, &wish, terminal);
        };
        if let (Against::Empty, Some(warning)) = (against, offline::unknowable(&topology)) {
            warn(terminal, &warning);
        }
        if self.all_nodes {
            return self.every_node(&topology, against, &terms, terminal);
        }
        let observed = against.state(terminal)?;
        let host = match &observed {
            Some(observed) => self.node.host_of(&topology, observed)?,
            None => self.node.host_named(&topology)?,
        };
        let look = offline::plan(&host, &topology, observed, &terms);
        let wish = Wish {
            goal: Goal::Host(&host),
            terms: &terms,
            on_refusal: self.on_refusal(),
        };
        self.options.report_preview(&look, &wish, terminal)
    }

    fn on_refusal(&self) -> OnRefusal {
        if self.keep_going {
            OnRefusal::GoOn
        } else {
            OnRefusal::Stop
        }
    }

    fn every_node(
        &self,
        topology: &Topology,
        against: &Against,
        terms: &Terms,
        terminal: &Terminal,
    ) -> Result {
        let fleet = topology.fleet();
        let plans = offline::plans(&fleet, topology, against, terms, terminal);
        let totals = match self.options.output {
            Output::Text => offline::print_text(plans, terminal.style())?,
            Output::Json => offline::print_json(terms.owner.as_str(), plans)?,
        };
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
                    protect: self.options.protected(true),
                };
                let wish = Wish::destroy(None, &terms);
                self.options.run(&mut kernel, &wish, terminal)
            }
            Which { file, .. } => {
                let topology = Input {
                    file: file.unwrap_or_else(|| "-".into()),
                }
                .topology(terminal)?;
                let mut kernel = Kernel::open(self.options.netns.as_deref())?;
                let host = self.node.host(&topology, &mut kernel)?;
                let mut terms = terms(&topology, false, true);
                terms.protect = self.options.protected(true);
                let wish = Wish::destroy(Some(&host), &terms);
                self.options.run(&mut kernel, &wish, terminal)
            }
        }
    }
}

/// What is to be done, and how.
struct Wish<'a> {
    goal: Goal<'a>,
    terms: &'a Terms,
    on_refusal: OnRefusal,
}

impl<'a> Wish<'a> {
    /// As much as can be.
    fn destroy(known: Option<&'a Host>, terms: &'a Terms) -> Self {
        Self {
            goal: Goal::Nothing(known),
            terms,
            on_refusal: OnRefusal::GoOn,
        }
    }
}

pub(super) fn terms(topology: &Topology, adopt: bool, prune: bool) -> Terms {
    Terms {
        owner: topology.name.clone(),
        protocol: topology.route_protocol.0,
        adopt,
        prune,
        protect: Default::default(),
    }
}

impl Options {
    /// The addresses whose way is protected. An SSH connection leads to the namespace that it came into.
    fn protected(&self, live: bool) -> BTreeSet<IpAddr> {
        let here = live && self.netns.is_none();
        let ssh = here.then(operator::ssh_ends).unwrap_or_default();
        let wards = self.protect.iter().copied().chain(ssh);
        wards.filter(|_| !self.force).collect()
    }

    fn run(&self, kernel: &mut Kernel, wish: &Wish, terminal: &Terminal) -> Result {
        let Wish {
            goal,
            terms,
            on_refusal,
        } = *wish;
        tell_of_daemon(kernel, &terms.owner, terminal);
        if self.dry_run {
            let look = reconcile::look(kernel, goal, terms, false)?;
            return self.report_preview(&look, wish, terminal);
        }
        require_privilege()?;
        let namespace = kernel.namespace();
        let lock = Lock::take(namespace, Duration::from_secs(self.lock_timeout))?;
        Unconfirmed::refuse(namespace)?;
        let mut stand = Stand {
            options: self,
            terminal,
            terms,
            namespace,
            shown: Ok(()),
            guarded: None,
        };
        let pass = reconcile::apply(kernel, goal, terms, on_refusal, &mut stand)?;
        let Stand { shown, guarded, .. } = stand;
        let on_trial = self.end(guarded, &pass)?;
        drop(lock);
        let report = self.report_pass(&pass, wish, terminal);
        let code = shown.and(report)?;
        match on_trial {
            Some(within) => self.ask(namespace, within, code, terminal),
            None => Ok(code),
        }
    }

    /// Whether the change is on trial now, and for how long: there is one, and it isn't taken back already.
    fn end(
        &self,
        guarded: Option<Guarded>,
        pass: &Pass,
    ) -> std::result::Result<Option<Duration>, Failure> {
        match (guarded, &pass.taken_back) {
            (Some(guarded), None) => {
                guarded.made()?;
                Ok(self.confirm_within.map(|within| within.0))
            }
            (Some(guarded), Some(_)) => {
                guarded.abandon()?;
                Ok(None)
            }
            (None, _) => Ok(None),
        }
    }

    /// Tells how to keep the change; somebody at the terminal just presses Enter.
    fn ask(
        &self,
        namespace: NamespaceId,
        within: Duration,
        code: u8,
        terminal: &Terminal,
    ) -> Result {
        let at_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
        if at_terminal && self.output == Output::Text {
            return super::confirm::ask(namespace, code, terminal);
        }
        let netns = self.netns.as_ref().map(|name| format!(" --netns {name}"));
        let note = format!(
            "on trial: `tunnelform confirm{}` keeps the change, else it's taken back in {}",
            netns.unwrap_or_default(),
            humantime::format_duration(within)
        );
        super::note(terminal, &note);
        Ok(code)
    }

    fn text(&self, look: &Look, style: Style) -> String {
        match self.diff {
            true if look.plan.conflicts.is_empty() => unified_diff(&look.desired, &look.plan),
            true | false => look.plan.text(style),
        }
    }

    fn report_preview(&self, look: &Look, wish: &Wish, terminal: &Terminal) -> Result {
        let Wish {
            terms, on_refusal, ..
        } = wish;
        let plan = &look.plan;
        match self.output {
            Output::Json => {
                let in_sync = plan.is_empty() && plan.unmet.is_empty();
                let mut document =
                    Document::new(terms.owner.as_str(), true, in_sync, &[(plan, &[])]);
                document.errors = unmet(plan).collect();
                print_json(&document)?;
            }
            Output::Text => print(&self.text(look, terminal.style()))?,
        }
        if let Some(why) = in_the_way(plan, *on_refusal) {
            return Err(Failure(format!("nothing would be changed: {why}")));
        }
        if !plan.unmet.is_empty() {
            unmet(plan).for_each(|failure| complain(terminal, &failure));
            return Ok(FAILED);
        }
        Ok(self.code(!plan.is_empty()))
    }

    fn report_pass(&self, pass: &Pass, wish: &Wish, terminal: &Terminal) -> Result {
        let Wish {
            terms, on_refusal, ..
        } = *wish;
        let mut failures = failures(pass);
        if on_refusal == OnRefusal::GoOn {
            failures.extend(unmet(&pass.left));
        }
        let left = &pass.left;
        let whole = left.is_empty() && left.conflicts.is_empty() && left.unmet.is_empty();
        let in_sync = whole && pass.broken.is_none();
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
                document.taken_back = pass.taken_back.as_ref().map(taken_back);
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
        match &pass.taken_back {
            Some(taken_back) => return Ok(tell_of_return(taken_back, terminal)),
            None if pass.rounds.is_empty() => {
                let why = in_the_way(&pass.left, on_refusal);
                let why = why.map(|why| format!("nothing was changed: {why}"));
                why.iter().for_each(|why| complain(terminal, why));
            }
            None => {}
        }
        Ok(FAILED)
    }

    fn code(&self, changes: bool) -> u8 {
        if changes && self.detailed_exitcode {
            CHANGES
        } else {
            DONE
        }
    }
}

/// Why a plan can't be carried out; `None`: it can.
fn in_the_way(plan: &Plan, on_refusal: OnRefusal) -> Option<String> {
    if !plan.conflicts.is_empty() {
        let conflicts = plan.conflicts.iter();
        let objects: Vec<&str> = conflicts.map(|conflict| conflict.object.as_str()).collect();
        return Some(format!("not ours: {}", objects.join(", ")));
    }
    if !plan.cuts.is_empty() {
        let cuts: Vec<String> = plan.cuts.iter().map(ToString::to_string).collect();
        let cuts = cuts.join("; ");
        return Some(format!(
            "{cuts} (--force changes it all the same, --confirm-within takes it back if that was wrong)"
        ));
    }
    match on_refusal {
        OnRefusal::Stop if !plan.obstacles.is_empty() => {
            let obstacles: Vec<String> = plan.obstacles.iter().map(ToString::to_string).collect();
            let obstacles = obstacles.join("; ");
            Some(format!("{obstacles} (--keep-going makes what can be made)"))
        }
        OnRefusal::Stop | OnRefusal::GoOn => None,
    }
}

/// What became of taking back, and the exit code.
pub(super) fn tell_of_return(taken_back: &TakenBack, terminal: &Terminal) -> u8 {
    match &taken_back.left {
        Ok(left) if left.is_empty() => {
            complain(
                terminal,
                "nothing is changed: what was done is taken back, and the host is as before",
            );
            FAILED
        }
        Ok(left) => {
            for round in &taken_back.rounds {
                for failure in refusals(round) {
                    complain(terminal, &format!("while taking back: {failure}"));
                }
            }
            let left = left.changes.iter();
            let left: String = left
                .map(|change| change.text(Style { color: false }) + "\n")
                .collect();
            complain(
                terminal,
                &format!(
                    "not everything could be taken back; this would make the host as before:\n{left}"
                ),
            );
            HALF_DONE
        }
        Err(error) => {
            let Failure(why) = error.into();
            complain(
                terminal,
                &format!(
                    "what was done couldn't be taken back, and it isn't known how the host differs from before: {why}"
                ),
            );
            HALF_DONE
        }
    }
}

fn taken_back(taken_back: &TakenBack) -> TakenBackDocument {
    let left = taken_back.left.as_ref();
    let changes = left.map_or(&[][..], |plan| &plan.changes).iter();
    TakenBackDocument {
        complete: taken_back.is_complete(),
        left: changes
            .map(|change| ChangeDocument::new(change, &Outcome::PENDING))
            .collect(),
        error: left.err().map(|error| {
            let Failure(why) = error.into();
            why
        }),
    }
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

/// What has to stay as it is, tunnel by tunnel.
fn unmet(plan: &Plan) -> impl Iterator<Item = String> {
    let stay =
        |unmet: &Unmet| format!("{unmet}; it, its addresses and its routes stay as they are");
    plan.unmet.values().map(stay)
}

/// What went wrong: what the kernel refused, what the host lacks, and what differs at the end without any reason.
fn failures(pass: &Pass) -> Vec<String> {
    let mut failures: Vec<String> = pass.rounds.iter().flat_map(refusals).collect();
    failures.extend(pass.broken.as_ref().map(|error| {
        let Failure(why) = error.into();
        why
    }));
    if failures.is_empty() && !pass.rounds.is_empty() {
        let left = pass.left.changes.iter();
        failures.extend(left.map(|change| {
            let text = change.text(Style { color: false });
            format!("the kernel took every change, but this still differs:\n{text}")
        }));
    }
    failures
}

/// What the kernel refused, and what could not be tried. What waits behind a refusal isn't worth a line.
fn refusals(round: &Round) -> Vec<String> {
    let mut lines = Vec::new();
    for (change, outcome) in round.plan.changes.iter().zip(&round.outcomes) {
        let why = outcome.error.as_deref().unwrap_or_default();
        let verb = verb(change.action());
        match outcome.status {
            Status::Failed => lines.push(format!("failed to {verb} {change}: {why}")),
            Status::Skipped => lines.push(format!("didn't {verb} {change}: {why}")),
            Status::Done | Status::Undone | Status::Pending => {}
        }
    }
    lines
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
