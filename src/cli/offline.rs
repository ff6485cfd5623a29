//! Plans without a host: against a state that was captured, or a bare host that is made up.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use comfy_table::{CellAlignment, Table};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use smol_str::ToSmolStr;
use tunnelform::capture;
use tunnelform::desired::desired;
use tunnelform::plan::{self, Counts, Document, NodeDocument, Plan, Style, Terms};
use tunnelform::reconcile::{self, Look};
use tunnelform::state::{
    Address, AddressKey, Desired, InterfaceName, Observed, Scope, State, Unmet,
};
use tunnelform::topology::{Fleet, Host, Name, Topology};

use super::input::{read_file, show, tally};
use super::save::{Directory, Source};
use super::{Failure, Terminal, print};

/// What stands for a host that has nothing.
const EMPTY: &str = "empty";
/// The MTU of a device of a host that is made up.
const ETHERNET_MTU: u32 = 1500;

/// What to plan against.
#[derive(Clone)]
pub(super) enum Against {
    /// A bare host.
    Empty,
    /// A captured state, or a directory of them.
    Captured(PathBuf),
}

impl std::str::FromStr for Against {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            EMPTY => Self::Empty,
            path => Self::Captured(path.into()),
        })
    }
}

impl Against {
    /// The one host's state; `None`: there is nothing to tell it by.
    pub(super) fn state(&self, terminal: &Terminal) -> Result<Option<Observed>, Failure> {
        match self {
            Self::Empty => Ok(None),
            Self::Captured(path) if path.is_dir() => Err(Failure(format!(
                "{} is a directory: name one state in it, or plan --all-nodes",
                path.display()
            ))),
            Self::Captured(path) => read_state(path, terminal).map(Some),
        }
    }

    /// A node's state.
    fn state_of(&self, host: &Host, terminal: &Terminal) -> Result<Option<Observed>, Failure> {
        match (self, &host.node) {
            (Self::Empty, _) => Ok(None),
            (Self::Captured(directory), Some(name)) => {
                read_state(&directory.join(format!("{name}.yaml")), terminal).map(Some)
            }
            (Self::Captured(file), None) => read_state(file, terminal).map(Some),
        }
    }
}

fn read_state(path: &Path, terminal: &Terminal) -> Result<Observed, Failure> {
    let bytes = read_file(path)?;
    capture::read(&path.display().to_string(), &bytes).map_err(|problems| {
        show(&problems, terminal);
        Failure(format!(
            "{}; `tunnelform export --state` writes such a file",
            tally(&problems)
        ))
    })
}

/// A host that has nothing, but the underlay device where the file says which and with what address.
pub(super) fn bare(topology: &Topology, node: Option<&Name>) -> Observed {
    let mut observed = Observed::bare();
    let node = node.and_then(|name| topology.nodes.get(name));
    let underlay = node.and_then(|node| node.underlay.as_ref());
    let Some((device, (address, network))) =
        underlay.and_then(|u| Some((u.device?, (u.address()?, u.network()?))))
    else {
        return observed;
    };
    observed.add_device(device, ETHERNET_MTU);
    let key = AddressKey::new(device, address.into(), None, network.prefix_len());
    let value = Address {
        prefix_len: network.prefix_len(),
        peer: None,
        broadcast: None,
        scope: Scope::GLOBAL,
        label: Some(device.to_smolstr()),
        noprefixroute: false,
        metric: 0,
        protocol: 0,
        lifetime: None,
    };
    observed.state.addresses.insert(key, value);
    observed
}

/// What a made-up host can't tell. Said once for a topology.
pub(super) fn unknowable(topology: &Topology) -> Option<String> {
    let direct = topology
        .meshes
        .iter()
        .find(|(_, mesh)| mesh.direct_routing)?;
    let vague = topology.nodes.iter().find(|(_, node)| {
        let underlay = node.underlay.as_ref();
        underlay.is_none_or(|u| u.device.is_none() || u.network().is_none())
    })?;
    Some(format!(
        "the mesh {} routes directly where hosts share a network, and only hosts know their networks: here every peer \
         is behind the tunnel. Plan against captured states, or write `underlay: {{address: ADDRESS/LENGTH, device: \
         eth0}}` (as for {})",
        direct.0, vague.0
    ))
}

/// The plan of one host.
pub(super) fn plan(
    host: &Host,
    topology: &Topology,
    observed: Option<Observed>,
    terms: &Terms,
) -> Look {
    match observed {
        Some(observed) => reconcile::foresee(observed, host, terms),
        None => {
            let bare = bare(topology, host.node.as_ref());
            let desired = desired(host, &bare);
            let observed = with_devices_of(bare, &desired.state);
            let plan = on_paper(&desired, &desired.state, &observed, terms);
            Look {
                desired: desired.state,
                observed,
                plan,
            }
        }
    }
}

/// A plan for a made-up host: what that lacks tells nothing of the real one.
pub(super) fn on_paper(
    desired: &Desired,
    known: &State,
    made_up: &Observed,
    terms: &Terms,
) -> Plan {
    let mut plan = plan::plan(desired, Some(known), made_up, terms);
    plan.obstacles.clear();
    plan
}

/// A made-up host has every device that a state counts on and doesn't make itself.
pub(super) fn with_devices_of(mut host: Observed, state: &State) -> Observed {
    let bound = state.tunnels.values();
    let bound = bound.filter_map(|tunnel| tunnel.endpoints().device);
    let with_addresses = state.addresses.keys().map(|key| key.device);
    let routed = state.routes.values().flat_map(|route| route.devices());
    for device in bound.chain(with_addresses).chain(routed) {
        if !state.tunnels.contains_key(&device) {
            host.add_device(device, ETHERNET_MTU);
        }
    }
    host
}

/// The plan of every node, one after the other; saved, too, where there's a directory for it.
pub(super) fn plans<'a>(
    fleet: &'a Fleet<'a>,
    source: &'a Source,
    against: &'a Against,
    terms: &'a Terms,
    out: Option<&'a Directory>,
    terminal: &'a Terminal,
) -> impl Iterator<Item = NodePlan> + 'a {
    let one = fleet.names().len() == 0;
    let hosts = fleet.names().map(Some).chain(one.then_some(None));
    hosts.filter_map(move |name| {
        let host = fleet.host(name)?;
        let host = match out {
            Some(_) => host.written_out(),
            None => host,
        };
        let node = name.map_or_else(|| source.topology.name.to_string(), Name::to_string);
        let plan = against
            .state_of(&host, terminal)
            .map(|observed| plan(&host, &source.topology, observed, terms))
            .and_then(|look| match look.plan.unmet.is_empty() {
                true => Ok(look),
                false => Err(Failure(unmet(&look.plan.unmet))),
            })
            .and_then(|look| {
                let saved = out.map(|out| out.save(&node, (source, &host), against, &look, terms));
                saved.transpose().map(|_| look.plan)
            })
            .map_err(|Failure(message)| message);
        Some(NodePlan { node, plan })
    })
}

/// Tunnels that lack a fact, a line each.
pub(super) fn unmet(unmet: &BTreeMap<InterfaceName, Unmet>) -> String {
    let lines: Vec<String> = unmet.values().map(Unmet::to_string).collect();
    lines.join("\n")
}

/// A node's plan, or why there is none.
pub(super) struct NodePlan {
    pub(super) node: String,
    pub(super) plan: Result<Plan, String>,
}

/// What the plans of a fleet come to.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) nodes: usize,
    pub(super) changed: usize,
    pub(super) conflicts: usize,
    pub(super) obstacles: usize,
    pub(super) not_hitless: usize,
    pub(super) failures: usize,
    pub(super) counts: Counts,
}

impl Totals {
    pub(super) fn add(&mut self, node: &NodePlan) {
        self.nodes += 1;
        match &node.plan {
            Ok(plan) => {
                self.changed += usize::from(!plan.is_empty());
                self.conflicts += usize::from(!plan.conflicts.is_empty());
                self.obstacles += usize::from(!plan.obstacles.is_empty());
                self.not_hitless += usize::from(!plan.hits.is_empty());
                self.counts += plan.counts();
            }
            Err(_) => self.failures += 1,
        }
    }

    /// Why the fleet can't be brought to this.
    pub(super) fn failure(&self) -> Option<Failure> {
        let mut parts = Vec::new();
        if self.failures > 0 {
            parts.push(format!("no plan for {}", nodes(self.failures)));
        }
        if self.conflicts > 0 {
            parts.push(format!("conflicts on {}", nodes(self.conflicts)));
        }
        if self.obstacles > 0 {
            parts.push(format!("obstacles on {}", nodes(self.obstacles)));
        }
        if self.not_hitless > 0 {
            parts.push(format!("stopped traffic on {}", nodes(self.not_hitless)));
        }
        (!parts.is_empty()).then(|| Failure(parts.join(", ")))
    }
}

fn nodes(count: usize) -> String {
    super::input::counted(count, "node")
}

/// Prints each plan as it comes, and a table of all at the end.
pub(super) fn print_text(
    plans: impl Iterator<Item = NodePlan>,
    style: Style,
) -> Result<Totals, Failure> {
    let mut totals = Totals::default();
    let mut rows = Vec::new();
    for node in plans {
        totals.add(&node);
        match &node.plan {
            Ok(plan)
                if plan.is_empty() && plan.conflicts.is_empty() && plan.warnings.is_empty() => {}
            Ok(plan) => print(&format!(
                "{}\n{}\n",
                style.heading(&node.node),
                plan.text(style)
            ))?,
            Err(error) => print(&format!("{}\n{error}\n\n", style.heading(&node.node)))?,
        }
        rows.push(row(&node));
    }
    print(&table(rows))?;
    print(&(summary(&totals) + "\n"))?;
    Ok(totals)
}

const COLUMNS: [&str; 6] = ["NODE", "CREATE", "CHANGE", "REPLACE", "DELETE", "STATE"];

fn row(node: &NodePlan) -> [String; 6] {
    let name = node.node.clone();
    let (counts, state) = match &node.plan {
        Err(_) => {
            return [
                name,
                "-".into(),
                "-".into(),
                "-".into(),
                "-".into(),
                "no plan".into(),
            ];
        }
        Ok(plan) if !plan.conflicts.is_empty() => (
            plan.counts(),
            super::input::counted(plan.conflicts.len(), "conflict"),
        ),
        Ok(plan) if plan.is_empty() => (plan.counts(), "in sync".to_owned()),
        Ok(plan) => (plan.counts(), "changes".to_owned()),
    };
    let Counts {
        create,
        update,
        replace,
        delete,
        ..
    } = counts;
    let numbers = [create, update, replace, delete].map(|count| count.to_string());
    let [create, update, replace, delete] = numbers;
    [name, create, update, replace, delete, state]
}

fn table(rows: Vec<[String; 6]>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(COLUMNS);
    for row in rows {
        table.add_row(row);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        let numbers = (1..=4).contains(&index);
        column.set_cell_alignment(if numbers {
            CellAlignment::Right
        } else {
            CellAlignment::Left
        });
    }
    let lines = table.to_string();
    lines
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

pub(super) fn summary(totals: &Totals) -> String {
    let Counts {
        create,
        update,
        replace,
        delete,
        ..
    } = totals.counts;
    format!(
        "\n{} of {} would change: {create} to create, {update} to change, {replace} to replace, {delete} to delete.",
        totals.changed,
        nodes(totals.nodes)
    )
}

/// Prints one document, a node at a time: a fleet's plans may be larger than memory.
pub(super) fn print_json(
    owner: &str,
    plans: impl Iterator<Item = NodePlan>,
) -> Result<Totals, Failure> {
    let report = Report {
        owner,
        plans: RefCell::new(plans),
        totals: Cell::default(),
    };
    super::print_json(&report)?;
    Ok(report.totals.take())
}

/// [`tunnelform::plan::FleetDocument`], written as it is made.
struct Report<'a, I> {
    owner: &'a str,
    plans: RefCell<I>,
    totals: Cell<Totals>,
}

impl<I: Iterator<Item = NodePlan>> Serialize for Report<'_, I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(6))?;
        map.serialize_entry("format_version", &1)?;
        map.serialize_entry("tunnelform_version", env!("CARGO_PKG_VERSION"))?;
        map.serialize_entry("owner", self.owner)?;
        map.serialize_entry("nodes", &Nodes(self))?;
        let totals = self.totals.take();
        map.serialize_entry("counts", &totals.counts)?;
        map.serialize_entry(
            "in_sync",
            &(totals.changed + totals.conflicts + totals.failures == 0),
        )?;
        self.totals.set(totals);
        map.end()
    }
}

struct Nodes<'r, 'a, I>(&'r Report<'a, I>);

impl<I: Iterator<Item = NodePlan>> Serialize for Nodes<'_, '_, I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Report {
            owner,
            plans,
            totals,
        } = self.0;
        let mut list = serializer.serialize_seq(None)?;
        for node in plans.borrow_mut().by_ref() {
            let mut sum = totals.take();
            sum.add(&node);
            totals.set(sum);
            let plan = node.plan.as_ref();
            list.serialize_element(&NodeDocument {
                node: node.node.clone(),
                error: plan.err().cloned(),
                plan: plan
                    .ok()
                    .map(|plan| Document::new(owner, true, plan.is_empty(), &[(plan, &[])])),
            })?;
        }
        list.end()
    }
}
