//! `tunnelform status`.

mod grouped;
mod text;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use tunnelform::kernel::Kernel;
use tunnelform::lock::Daemon;
use tunnelform::plan::{Action, Change, Object, Plan, Style};
use tunnelform::probe::{self, Followed, Target};
use tunnelform::reconcile::{self, Goal, Look};
use tunnelform::state::{Counters, InterfaceName, Kind};
use tunnelform::topology::{Host, Silent};
use tunnelform::trial::{self, Ended, Unconfirmed};

use self::grouped::{Group, Grouped};
use super::apply::terms;
use super::input::{Input, Netns, NodeChoice};
use super::{
    CHANGES, DONE, Failure, Output, Result, Terminal, note, print, print_json, tell_of_daemon, warn,
};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tunnelform status hq.yaml\n  tunnelform status --output json hq.yaml\n\n\
                        A tunnel is in sync, drifted (it, its addresses or its routes differ), missing, pending (its \
                        `local` waits for an address), or foreign (the name is another owner's).\nExit codes: 0, 1 error; \
                        with --detailed-exitcode 2 unless all is in sync."
)]
pub(super) struct Status {
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    node: NodeChoice,
    #[command(flatten)]
    netns: Netns,
    /// Form of the output.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    /// Exit with 2 unless all is in sync.
    #[arg(long)]
    detailed_exitcode: bool,
}

#[derive(serde::Serialize)]
struct Report {
    format_version: u32,
    owner: String,
    in_sync: bool,
    tunnels: Vec<Row>,
    /// What doesn't belong to a tunnel.
    outside: Outside,
    /// The change that waits to be confirmed.
    on_trial: Option<Unconfirmed>,
    /// How the last one ended that nobody confirmed.
    taken_back: Option<Ended>,
    /// What a daemon knows of the peers, 1000 at most; null: no daemon probes any.
    probes: Option<Vec<Followed>>,
    warnings: Vec<String>,
}

#[derive(serde::Serialize)]
struct Row {
    name: InterfaceName,
    state: Standing,
    local: Option<String>,
    remote: Option<String>,
    /// The device that outer packets leave by.
    underlay: Option<InterfaceName>,
    addresses: Tally,
    routes: Tally,
    counters: Option<Counters>,
    /// What differs, in the plan's words.
    differences: Vec<String>,
}

#[derive(serde::Serialize)]
struct Outside {
    addresses: Tally,
    routes: Tally,
    differences: Vec<String>,
}

/// How many of the desired objects are as they should be.
#[derive(Clone, Copy, Default, serde::Serialize)]
struct Tally {
    in_sync: usize,
    desired: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Standing {
    InSync,
    Drifted,
    Missing,
    Pending,
    Foreign,
}

impl Status {
    pub(super) fn run(self, terminal: &Terminal) -> Result {
        let topology = self.input.topology(terminal)?;
        let terms = terms(&topology, false, true);
        let mut kernel = Kernel::open(self.netns.name())?;
        let mut host = self.node.host(&topology, &mut kernel)?;
        let daemon = tell_of_daemon(&kernel, &terms.owner, terminal);
        let probes = daemon.and_then(|daemon| peers(&daemon));
        // What the daemon leaves out isn't missing.
        host.silent = silent(&probe::targets(&topology.fleet(), &host), &probes);
        let look = reconcile::look(&mut kernel, Goal::Host(&host), &terms, true)?;
        let mut report = Report::new(&host, &look, probes);
        report.on_trial = or_warn(Unconfirmed::find(kernel.namespace()), terminal);
        report.taken_back = or_warn(trial::ended(kernel.namespace()), terminal);
        report.tell_of_trials(terminal);
        match self.output {
            Output::Json => print_json(&report)?,
            Output::Text => print(&report.text(terminal.style()))?,
        }
        Ok(if !report.in_sync && self.detailed_exitcode {
            CHANGES
        } else {
            DONE
        })
    }
}

impl Report {
    fn new(host: &Host, look: &Look, probes: Option<Vec<Followed>>) -> Self {
        let topology = &host.topology;
        let standing = Grouped::new(look);
        let conflicts = look
            .plan
            .conflicts
            .iter()
            .filter(|conflict| !matches!(conflict.on, Object::Tunnel(_)));
        let peers = probes.iter().flatten();
        let narrow = peers.filter_map(|peer| peer.warning.as_ref());
        let conflicts = conflicts
            .map(|conflict| format!("  conflict: {}: {}", conflict.object, conflict.found));
        Self {
            format_version: 1,
            owner: topology.name.to_string(),
            in_sync: look.plan.is_empty()
                && look.plan.conflicts.is_empty()
                && look.plan.unmet.is_empty(),
            tunnels: look
                .desired
                .tunnels
                .keys()
                .map(|name| Row::new(*name, look, standing.of(Some(*name))))
                .collect(),
            outside: Outside {
                addresses: standing.of(None).addresses,
                routes: standing.of(None).routes,
                differences: standing
                    .of(None)
                    .changes
                    .iter()
                    .copied()
                    .map(differs)
                    .chain(conflicts)
                    .collect(),
            },
            on_trial: None,
            taken_back: None,
            warnings: warnings(&look.plan).chain(narrow.cloned()).collect(),
            probes,
        }
    }

    fn tell_of_trials(&self, terminal: &Terminal) {
        let on_trial = self.on_trial.as_ref().map(ToString::to_string);
        let taken_back = self.taken_back.as_ref().map(ToString::to_string);
        let notes = [on_trial, taken_back];
        notes.iter().flatten().for_each(|text| note(terminal, text));
    }
}

/// What a daemon has left to read of the peers that it probes.
fn peers(daemon: &Daemon) -> Option<Vec<Followed>> {
    serde_json::from_str(daemon.peers.as_ref()?).ok()
}

/// Those whose routes it has taken out.
fn silent(targets: &[Target], probes: &Option<Vec<Followed>>) -> Vec<Silent> {
    let withdrawn: BTreeSet<(&str, Ipv4Addr)> = probes
        .iter()
        .flatten()
        .filter(|peer| peer.withdrawn)
        .filter_map(|peer| Some((peer.row.tunnel.as_str(), peer.row.target?)))
        .collect();
    let silent = targets.iter().filter_map(|target| {
        let silent = target.silent()?;
        let tunnel = silent.way.tunnel.to_string();
        withdrawn
            .contains(&(tunnel.as_str(), silent.address))
            .then_some(silent)
    });
    silent.collect()
}

impl Row {
    fn new(name: InterfaceName, look: &Look, group: &Group) -> Self {
        let tunnel = &look.desired.tunnels[&name];
        let Kind::Ipip(ipip) = &tunnel.kind;
        let object = Object::Tunnel(name);
        let foreign = look
            .plan
            .conflicts
            .iter()
            .find(|conflict| conflict.on == object);
        let create = |change: &&Change| {
            matches!(change, Change::Tunnel(..)) && change.action() == Action::Create
        };
        let unmet = look.plan.unmet.get(&name);
        let state = match foreign {
            Some(_) => Standing::Foreign,
            None if unmet.is_some() => Standing::Pending,
            None if group.changes.iter().any(create) => Standing::Missing,
            None if group.changes.is_empty() => Standing::InSync,
            None => Standing::Drifted,
        };
        let path = ipip
            .remote
            .and_then(|remote| look.observed.paths.get(&remote.into()));
        let counters = look
            .observed
            .devices
            .get(&name)
            .filter(|_| state != Standing::Foreign)
            .and_then(|device| device.counters.as_deref().copied());
        Self {
            name,
            state,
            local: ipip.local.map(|address| address.to_string()),
            remote: ipip.remote.map(|address| address.to_string()),
            underlay: ipip.device.or(path.map(|path| path.device)),
            addresses: group.addresses,
            routes: group.routes,
            counters,
            differences: match (foreign, unmet) {
                (Some(conflict), _) => vec![format!("  {object}: {}", conflict.found)],
                (None, Some(unmet)) => vec![format!("  {unmet}")],
                (None, None) => group.changes.iter().copied().map(differs).collect(),
            },
        }
    }
}

/// A file of a trial that makes no sense doesn't keep the rest from being shown.
fn or_warn<T>(
    found: std::result::Result<Option<T>, trial::Error>,
    terminal: &Terminal,
) -> Option<T> {
    found.unwrap_or_else(|error| {
        let Failure(why) = error.into();
        warn(terminal, &why);
        None
    })
}

fn warnings(plan: &Plan) -> impl Iterator<Item = String> {
    let obstacles = plan.obstacles.iter().map(ToString::to_string);
    obstacles.chain(plan.warnings.iter().cloned())
}

fn differs(change: &Change) -> String {
    change.text(Style { color: false })
}
