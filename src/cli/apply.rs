//! `tunnelform apply` and `tunnelform destroy`.

use clap::Args;
use tunnelform::kernel::{Kernel, OnRefusal};
use tunnelform::plan::{Saved, Terms};
use tunnelform::reconcile::Goal;
use tunnelform::source::Content;
use tunnelform::topology::{Owner, Protocol, Topology};

use super::carry_out::{self, CarryOut};
use super::input::{Input, NodeChoice};
use super::make::{Options, Wish};
use super::offline::{self, Against};
use super::save::{self, Directory, Source, run_or_save};
use super::{Failure, Output, Result, Terminal, warn};

#[derive(Args)]
#[command(
    after_help = "Examples:\n  tunnelform apply --dry-run hq.yaml\n  tunnelform apply hq.yaml\n  \
                        tunnelform apply --confirm-within 60s hq.yaml && tunnelform confirm\n  \
                        tunnelform apply --dry-run --detailed-exitcode --output json hq.yaml\n  \
                        tunnelform apply --netns blue hq.yaml\n  \
                        tunnelform apply --dry-run --out plan.json hq.yaml && tunnelform apply plan.json\n\n\
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

impl Apply {
    pub(super) fn run(self, terminal: &Terminal) -> Result {
        let files = self.input.read()?;
        if let [Content { bytes, .. }] = files.as_slice()
            && Saved::is_meant(bytes)
        {
            return self.carry_out(bytes, terminal);
        }
        let source = Source::new(&self.input, files, &self.options, terminal)?;
        let topology = &source.topology;
        let terms = terms(topology, self.adopt, !self.no_prune);
        let terms = self.options.on_terms(terms, self.against.is_none());
        let wish = |goal| Wish {
            goal,
            terms: &terms,
            on_refusal: self.on_refusal(),
        };
        let Some(against) = &self.against else {
            let mut kernel = Kernel::open(self.options.netns.name())?;
            let host = self.node.host(topology, &mut kernel)?;
            let host = self.options.to_save(host);
            let wish = wish(Goal::Host(&host));
            return run_or_save(&self.options, &mut kernel, &wish, Some(&source), terminal);
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
        let look = offline::plan(&host, topology, observed, &terms);
        let wish = wish(Goal::Host(&host));
        let code = self.options.report_preview(&look, &wish, terminal)?;
        if let Some(file) = &self.options.out {
            save::save_offline(file, (&source, &host), against, &look, &terms)?;
            save::tell(file, terminal);
        }
        Ok(code)
    }

    fn on_refusal(&self) -> OnRefusal {
        if self.keep_going {
            OnRefusal::GoOn
        } else {
            OnRefusal::Stop
        }
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
            on_refusal: self.on_refusal(),
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
        let Self {
            which,
            node,
            route_protocol,
            options,
        } = self;
        let mut kernel = Kernel::open(options.netns.name())?;
        match which {
            Which {
                owner: Some(owner), ..
            } => {
                let terms = options.on_terms(Terms::new(owner, route_protocol), true);
                let wish = Wish::destroy(None, &terms);
                run_or_save(&options, &mut kernel, &wish, None, terminal)
            }
            Which { file, .. } => {
                let input = Input {
                    file: file.unwrap_or_else(|| "-".into()),
                };
                let source = Source::new(&input, input.read()?, &options, terminal)?;
                let host = node.host(&source.topology, &mut kernel)?;
                let host = options.to_save(host);
                let terms = options.on_terms(terms(&source.topology, false, true), true);
                let wish = Wish::destroy(Some(&host), &terms);
                run_or_save(&options, &mut kernel, &wish, Some(&source), terminal)
            }
        }
    }
}

pub(super) fn terms(topology: &Topology, adopt: bool, prune: bool) -> Terms {
    Terms {
        adopt,
        prune,
        ..Terms::new(topology.name.clone(), topology.route_protocol.0)
    }
}
