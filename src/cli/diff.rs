//! `tunnelform diff`: what another version of the file changes on each node.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tunnelform::desired::desired;
use tunnelform::plan::{Plan, Terms};
use tunnelform::state::{Desired, InterfaceName, Observed, State};
use tunnelform::topology::{Fleet, Host, Name, Topology};

use super::apply::terms;
use super::input::{Input, no_such_node};
use super::markdown::{Form, markdown};
use super::offline::{
    NodePlan, bare, on_paper, print_json, print_text, unknowable, unmet, with_devices_of,
};
use super::{CHANGES, DONE, Failure, Result, Terminal, warn};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  tunnelform diff old.yaml new.yaml\n  tunnelform diff --node node-1 old.yaml new.yaml\n  \
                        git show main:fleet.yaml | tunnelform diff --output markdown - fleet.yaml\n\n\
                        Exit codes: 0 compared, 1 error; with --detailed-exitcode 2 if anything differs."
)]
pub(super) struct Diff {
    /// The file as it was: a file, a directory, `-` for standard input, or /dev/null for none.
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The file as it will be.
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// One node alone.
    #[arg(long, value_name = "NAME", conflicts_with = "all_nodes")]
    node: Option<Name>,
    /// Every node of either file. The default.
    #[arg(long)]
    all_nodes: bool,
    /// Form of the output.
    #[arg(long, short, value_enum, default_value_t)]
    output: Form,
    /// Exit with 2 if anything differs.
    #[arg(long)]
    detailed_exitcode: bool,
}

impl Diff {
    pub(super) fn run(self, terminal: &Terminal) -> Result {
        let (old, new) = self.read(terminal)?;
        for warning in unknowable(&new)
            .or(unknowable(&old))
            .into_iter()
            .chain(renamed(&old, &new))
        {
            warn(terminal, &warning);
        }
        let (was, will) = (old.fleet(), new.fleet());
        let names = self.names(&was, &will)?;
        let terms = terms(&new, false, true);
        let plans = names.iter().filter_map(|name| {
            let name = name.as_ref();
            let plan = compare((&old, was.host(name)), (&new, will.host(name)), &terms);
            // A file that says nothing yet is no host beside the nodes of the other.
            let nobody =
                name.is_none() && names.len() > 1 && plan.as_ref().is_ok_and(Plan::is_empty);
            (!nobody).then(|| NodePlan {
                node: name.map_or_else(|| new.name.to_string(), Name::to_string),
                plan,
            })
        });
        let totals = match self.output {
            Form::Text => print_text(plans, terminal.style())?,
            Form::Json => print_json(new.name.as_str(), plans)?,
            Form::Markdown => markdown(plans, &self.heading())?,
        };
        match totals.failure() {
            Some(failure) => Err(failure),
            None if self.detailed_exitcode && totals.changed > 0 => Ok(CHANGES),
            None => Ok(DONE),
        }
    }

    /// The two topologies. As for git, /dev/null is a file that isn't there.
    fn read(&self, terminal: &Terminal) -> std::result::Result<(Topology, Topology), Failure> {
        let read = |file: &PathBuf| match file.as_path() == Path::new("/dev/null") {
            true => Ok(None),
            false => Input { file: file.clone() }.topology(terminal).map(Some),
        };
        let nothing = |other: &Topology| Topology::named(other.name.clone(), other.route_protocol);
        match (read(&self.old)?, read(&self.new)?) {
            (Some(old), Some(new)) => Ok((old, new)),
            (None, Some(new)) => Ok((nothing(&new), new)),
            (Some(old), None) => {
                let new = nothing(&old);
                Ok((old, new))
            }
            (None, None) => Err(Failure("OLD and NEW are both /dev/null".into())),
        }
    }

    fn heading(&self) -> String {
        let old = Input {
            file: self.old.clone(),
        };
        format!("{} → {}\n\n", old.name(), self.new.display())
    }

    /// The nodes to compare, in the order of their names; `None` is the one host of a topology without nodes.
    fn names(&self, was: &Fleet, will: &Fleet) -> std::result::Result<Vec<Option<Name>>, Failure> {
        if let Some(name) = &self.node {
            let known = was.host(Some(name)).or_else(|| will.host(Some(name)));
            return match known {
                Some(_) => Ok(vec![Some(name.clone())]),
                None => Err(no_such_node(will, name)),
            };
        }
        let names: BTreeSet<&Name> = was.names().chain(will.names()).collect();
        let one = was.names().len() == 0 || will.names().len() == 0;
        let names = names.into_iter().cloned().map(Some);
        Ok(one.then_some(None).into_iter().chain(names).collect())
    }
}

fn renamed(old: &Topology, new: &Topology) -> Option<String> {
    let marks =
        (old.name != new.name).then_some(("name", old.name.to_string(), new.name.to_string()));
    let protocols = (old.route_protocol.0, new.route_protocol.0);
    let routes = (protocols.0 != protocols.1).then(|| {
        (
            "route_protocol",
            protocols.0.to_string(),
            protocols.1.to_string(),
        )
    });
    let (key, was, will) = marks.or(routes)?;
    Some(format!(
        "`{key}` changes from {was} to {will}: hosts know what is theirs by it. `destroy` the old file before the new \
         one is applied, or `apply --adopt` it"
    ))
}

/// What leads from the one to the other on a host that has nothing else.
fn compare(
    (old, was): (&Topology, Option<Host>),
    (new, will): (&Topology, Option<Host>),
    terms: &Terms,
) -> std::result::Result<Plan, String> {
    let want = |topology: &Topology, host: Option<&Host>| match host {
        Some(host) => {
            let wanted = desired(host, &bare(topology, host.node.as_ref()));
            match wanted.unmet.is_empty() {
                true => Ok(wanted.state),
                false => Err(unmet(&wanted.unmet)),
            }
        }
        None => Ok(State::default()),
    };
    let from = want(old, was.as_ref())?;
    let to = want(new, will.as_ref())?;
    let known = will.is_none().then(|| from.clone());
    let observed = holding(from, &to);
    let to = Desired::from(to);
    Ok(on_paper(
        &to,
        known.as_ref().unwrap_or(&to.state),
        &observed,
        terms,
    ))
}

/// A host that has a state, and every device that either state counts on.
fn holding(state: State, other: &State) -> Observed {
    let mut observed = with_devices_of(Observed::bare(), other);
    observed = with_devices_of(observed, &state);
    // The other state's own tunnels aren't there yet.
    let made = |name: &InterfaceName| other.tunnels.contains_key(name);
    observed.devices.retain(|name, _| !made(name));
    for (name, tunnel) in &state.tunnels {
        observed.add_device(*name, tunnel.mtu);
        if let Some(device) = observed.devices.get_mut(name) {
            device.alias.clone_from(&tunnel.alias);
            device.kind = "ipip".into();
        }
    }
    observed.state = state;
    observed
}
