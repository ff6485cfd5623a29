//! How a plan is shown and carried out, as `apply` and `destroy` share it.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tunnelform::kernel::{Kernel, NamespaceId, OnRefusal};
use tunnelform::lock::Lock;
use tunnelform::plan::{Document, Outcome, Plan, Style, Terms, Undo, unified_diff};
use tunnelform::reconcile::{self, Goal, Look, Pass, Witness};
use tunnelform::topology::Host;
use tunnelform::trial::{self, Guarded, Heir, Unconfirmed};

use super::input::Netns;
use super::operator;
use super::outcome::{failures, in_the_way, made, taken_back, tell_of_return, unmet};
use super::{
    CHANGES, DONE, FAILED, Failure, Output, Result, Terminal, complain, print, print_json,
    require_privilege, tell_of_daemon,
};

#[derive(Args)]
pub(super) struct Options {
    /// Only show what would change. Needs no root.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// With --dry-run: save the plan, which `apply FILE` carries out later. With --all-nodes a directory, in which each
    /// node that changes gets its NODE.json.
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    pub(super) out: Option<PathBuf>,
    /// Exit with 2 if there are changes.
    #[arg(long)]
    detailed_exitcode: bool,
    #[command(flatten)]
    pub(super) netns: Netns,
    /// Form of the output.
    #[arg(long, short, value_enum, default_value_t)]
    pub(super) output: Output,
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
    /// Change nothing if any change would stop traffic, even briefly.
    #[arg(long)]
    require_hitless: bool,
    /// Take the change back unless `tunnelform confirm` comes within that time (1s to 1day, such as `60s`), even if this
    /// command and its terminal are gone.
    #[arg(long, value_name = "TIME", conflicts_with = "dry_run")]
    confirm_within: Option<Within>,
}

/// How long a change may wait to be confirmed.
#[derive(Clone, Copy)]
pub(super) struct Within(pub(super) Duration);

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

/// Shows each plan before it's carried out, and has somebody keep the way back: a guardian for a change on trial, an heir
/// while one is made that is to be whole or nothing.
struct Stand<'a> {
    options: &'a Options,
    terminal: &'a Terminal,
    terms: &'a Terms,
    namespace: NamespaceId,
    lock: &'a Lock,
    on_refusal: OnRefusal,
    shown: std::result::Result<(), Failure>,
    guarded: Option<Guarded>,
    heir: Option<Heir>,
}

impl Stand<'_> {
    fn dismiss(&mut self) {
        if let Some(heir) = self.heir.take() {
            heir.dismiss();
        }
    }
}

impl Witness for Stand<'_> {
    fn sees(&mut self, look: &Look) {
        if self.options.output == Output::Text && self.shown.is_ok() {
            self.shown = print(&self.options.text(look, self.terminal.style()));
        }
    }

    fn will_touch(
        &mut self,
        undo: &Undo,
        may_stop_halfway: bool,
    ) -> std::result::Result<(), reconcile::Error> {
        let no_way_back = |error: trial::Error| reconcile::Error::NoWayBack(error.into());
        let netns = self.options.netns.name();
        let Some(within) = self.options.confirm_within else {
            self.dismiss();
            if self.on_refusal == OnRefusal::Stop && may_stop_halfway {
                let heir = Heir::leave(netns, self.terms, undo, self.lock);
                self.heir = Some(heir.map_err(no_way_back)?);
            }
            return Ok(());
        };
        if self.guarded.is_none() {
            let guarded = Guarded::begin(self.namespace, netns, self.terms, within.0);
            self.guarded = Some(guarded.map_err(no_way_back)?);
        }
        match &mut self.guarded {
            Some(guarded) => guarded.note(undo).map_err(no_way_back),
            None => Ok(()),
        }
    }
}

/// What is to be done, and how.
pub(super) struct Wish<'a> {
    pub(super) goal: Goal<'a>,
    pub(super) terms: &'a Terms,
    pub(super) on_refusal: OnRefusal,
}

impl<'a> Wish<'a> {
    /// As much as can be.
    pub(super) fn destroy(known: Option<&'a Host>, terms: &'a Terms) -> Self {
        Self {
            goal: Goal::Nothing(known),
            terms,
            on_refusal: OnRefusal::GoOn,
        }
    }
}

impl Options {
    /// The addresses whose way is protected. An SSH connection leads to the namespace that it came into.
    fn protected(&self, live: bool) -> BTreeSet<IpAddr> {
        let here = live && self.netns.name().is_none();
        let ssh = here.then(operator::ssh_ends).unwrap_or_default();
        let wards = self.protect.iter().copied().chain(ssh);
        wards.filter(|_| !self.force).collect()
    }

    /// The terms, with what the flags add to them.
    pub(super) fn on_terms(&self, terms: Terms, live: bool) -> Terms {
        Terms {
            protect: self.protected(live),
            hitless: terms.hitless || self.require_hitless,
            ..terms
        }
    }

    /// What is saved is planned as it will be read.
    pub(super) fn to_save(&self, host: Host) -> Host {
        match self.out {
            Some(_) => host.written_out(),
            None => host,
        }
    }

    pub(super) fn run(&self, kernel: &mut Kernel, wish: &Wish, terminal: &Terminal) -> Result {
        tell_of_daemon(kernel, &wish.terms.owner, terminal);
        if self.dry_run {
            let look = reconcile::look(kernel, wish.goal, wish.terms, false)?;
            return self.report_preview(&look, wish, terminal);
        }
        let lock = self.lock(kernel)?;
        self.make(kernel, wish, lock, None, terminal)
    }

    /// The right to change the namespace.
    pub(super) fn lock(&self, kernel: &Kernel) -> std::result::Result<Lock, Failure> {
        require_privilege()?;
        let namespace = kernel.namespace();
        let lock = Lock::take(namespace, Duration::from_secs(self.lock_timeout))?;
        Unconfirmed::refuse(namespace)?;
        Ok(lock)
    }

    /// Makes the host as it's wished, or carries out just the plan that was found.
    pub(super) fn make(
        &self,
        kernel: &mut Kernel,
        wish: &Wish,
        lock: Lock,
        found: Option<Look>,
        terminal: &Terminal,
    ) -> Result {
        let Wish {
            goal,
            terms,
            on_refusal,
        } = *wish;
        let namespace = kernel.namespace();
        let mut stand = Stand {
            options: self,
            terminal,
            terms,
            namespace,
            lock: &lock,
            on_refusal,
            shown: Ok(()),
            guarded: None,
            heir: None,
        };
        let made = match found {
            Some(found) => reconcile::carry_out(kernel, goal, terms, on_refusal, found, &mut stand),
            None => reconcile::apply(kernel, goal, terms, on_refusal, &mut stand),
        };
        stand.dismiss();
        let pass = made?;
        let Stand { shown, guarded, .. } = stand;
        let on_trial = self.end(namespace, guarded, &pass)?;
        drop(lock);
        let report = self.report_pass(&pass, wish, on_trial, terminal);
        let code = shown.and(report)?;
        match on_trial {
            Some(within) => self.ask(namespace, within, code, terminal),
            None => Ok(code),
        }
    }

    /// Whether the change is on trial now, and for how long: there is one, and it isn't taken back already.
    fn end(
        &self,
        namespace: NamespaceId,
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
            (None, None) if !pass.rounds.is_empty() => {
                trial::forget(namespace)?;
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
        let netns = self.netns.name().map(|name| format!(" --netns {name}"));
        let note = format!(
            "on trial: `tunnelform confirm{}` keeps the change, else it's taken back in {}",
            netns.unwrap_or_default(),
            humantime::format_duration(within)
        );
        super::note(terminal, &note);
        Ok(code)
    }

    pub(super) fn text(&self, look: &Look, style: Style) -> String {
        match self.diff {
            true if look.plan.conflicts.is_empty() => unified_diff(&look.desired, &look.plan),
            true | false => look.plan.text(style),
        }
    }

    pub(super) fn report_preview(&self, look: &Look, wish: &Wish, terminal: &Terminal) -> Result {
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

    fn report_pass(
        &self,
        pass: &Pass,
        wish: &Wish,
        on_trial: Option<Duration>,
        terminal: &Terminal,
    ) -> Result {
        let Wish {
            terms, on_refusal, ..
        } = *wish;
        let mut failures = failures(pass, on_refusal);
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
                document.on_trial_s = on_trial.map(|within| within.as_secs());
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

    pub(super) fn code(&self, changes: bool) -> u8 {
        if changes && self.detailed_exitcode {
            CHANGES
        } else {
            DONE
        }
    }
}
