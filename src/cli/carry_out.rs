//! `tunnelform apply` of a saved plan: just what it holds, or nothing.

use tunnelform::kernel::{Kernel, OnRefusal};
use tunnelform::plan::{Document, Origin, Plan, Purpose, Saved, Verdict, judge};
use tunnelform::reconcile::{self, Goal, Look};
use tunnelform::topology::{Host, Name};

use super::input::{NodeChoice, addresses_here, hostnames};
use super::make::{Options, Wish};
use super::{Failure, Output, Result, Terminal, print, print_json, tell_of_daemon};

/// How many differences an error lists; a machine gets all of them.
const MOST_LISTED: usize = 20;

/// Reads a saved plan. `name` is its file's.
pub(super) fn read(name: &str, bytes: &[u8]) -> std::result::Result<(Saved, Plan), Failure> {
    Saved::read(bytes)
        .map_err(|error| Failure(format!("{name}: can't use the saved plan: {error}")))
}

/// A plan on file, and how to carry it out.
pub(super) struct CarryOut<'a> {
    pub(super) saved: Saved,
    pub(super) planned: Plan,
    pub(super) options: &'a Options,
    pub(super) node: &'a NodeChoice,
    pub(super) on_refusal: OnRefusal,
}

impl CarryOut<'_> {
    pub(super) fn run(&self, terminal: &Terminal) -> Result {
        let Self { saved, options, .. } = self;
        let host = saved.host();
        let host = host.map_err(|error| Failure(format!("can't use the saved plan: {error}")))?;
        let goal = goal(saved.goal, host.as_ref())?;
        let mut kernel = Kernel::open(options.netns.name())?;
        self.is_for_this_host(&mut kernel)?;
        tell_of_daemon(&kernel, &saved.terms.owner, terminal);
        let terms = options.on_terms(saved.terms.clone(), true);
        let wish = Wish {
            goal,
            terms: &terms,
            on_refusal: self.on_refusal,
        };
        if options.dry_run {
            return match self.look(&mut kernel, &wish)? {
                Some(look) => options.report_preview(&look, &wish, terminal),
                None => self.already_so(),
            };
        }
        let lock = options.lock(&kernel)?;
        match self.look(&mut kernel, &wish)? {
            Some(look) => options.make(&mut kernel, &wish, lock, Some(look), terminal),
            None => self.already_so(),
        }
    }

    /// The plan made anew, which is the one on file; `None`: nothing is left to do. Anything else is an error.
    fn look(&self, kernel: &mut Kernel, wish: &Wish) -> std::result::Result<Option<Look>, Failure> {
        let Self { saved, planned, .. } = self;
        let look = reconcile::look(kernel, wish.goal, wish.terms, false)?;
        match judge(planned, &saved.rests_on, &look.plan, &look.observed) {
            Verdict::Fits => Ok(Some(look)),
            Verdict::Reached => Ok(None),
            Verdict::Stale(found) => Err(self.stale(found)?),
        }
    }

    fn stale(&self, found: Vec<String>) -> std::result::Result<Failure, Failure> {
        let failure = Failure(format!(
            "the plan is stale: this host is not as it was when the plan was made. Nothing was changed; make a new \
             plan\n{}",
            listed(&found)
        ));
        if self.options.output == Output::Json {
            let mut document = self.document(false, &self.planned);
            document.errors = found;
            print_json(&document)?;
        }
        Ok(failure)
    }

    fn already_so(&self) -> Result {
        match self.options.output {
            Output::Json => print_json(&self.document(true, &Plan::default()))?,
            Output::Text => print("Nothing to do: the host is already as planned.\n")?,
        }
        Ok(self.options.code(false))
    }

    fn document<'a>(&self, in_sync: bool, plan: &'a Plan) -> Document<'a> {
        let owner = self.saved.terms.owner.as_str();
        Document::new(owner, self.options.dry_run, in_sync, &[(plan, &[])])
    }

    fn is_for_this_host(&self, kernel: &mut Kernel) -> std::result::Result<(), Failure> {
        let origin = &self.saved.origin;
        let [hostname, short] = hostnames();
        match (&origin.node, &origin.host) {
            (Some(node), _) => self.is_node(node, [&hostname, &short], kernel)?,
            (None, _) if self.node.node.is_some() => {
                return Err(Failure(
                    "--node: the plan is for one host, not for a node".into(),
                ));
            }
            (None, Some(host)) if *host != hostname => {
                return Err(Failure(format!(
                    "the plan was made for the host {host}, and this is {hostname}"
                )));
            }
            (None, _) => {}
        }
        is_namespace(origin, self.options.netns.name())
    }

    /// As a fleet's node is found: by what somebody says, by the host's name, by its underlay address.
    fn is_node(
        &self,
        node: &Name,
        hostnames: [&String; 2],
        kernel: &mut Kernel,
    ) -> std::result::Result<(), Failure> {
        match self.node.said()? {
            Some(said) if said == *node => return Ok(()),
            Some(said) => {
                return Err(Failure(format!(
                    "the plan is for the node {node}, and this one is said to be {said}"
                )));
            }
            None => {}
        }
        if hostnames.into_iter().any(|name| name == node.as_str()) {
            return Ok(());
        }
        let [hostname, _] = hostnames;
        let underlay = self.saved.origin.underlay;
        let here = addresses_here(kernel, self.saved.terms.protocol)?;
        match underlay {
            Some(address) if here.contains(&address.into()) => Ok(()),
            Some(address) => Err(Failure(format!(
                "the plan is for the node {node}: this host is called {hostname}, and hasn't that node's underlay \
                 address {address}. If it is {node}, say so with --node {node}"
            ))),
            None => Err(Failure(format!(
                "the plan is for the node {node}, and this host is called {hostname}. If it is {node}, say so with \
                 --node {node}"
            ))),
        }
    }
}

/// The first of them, a line each.
fn listed(found: &[String]) -> String {
    let lines = found.iter().take(MOST_LISTED).map(|one| format!("  {one}"));
    let more = found.len().saturating_sub(MOST_LISTED);
    let more = (more > 0).then(|| format!("  … and {more} more"));
    lines.chain(more).collect::<Vec<_>>().join("\n")
}

fn goal(purpose: Purpose, host: Option<&Host>) -> std::result::Result<Goal<'_>, Failure> {
    match (purpose, host) {
        (Purpose::Apply, Some(host)) => Ok(Goal::Host(host)),
        (Purpose::Apply, None) => Err(Failure("the saved plan holds no topology".into())),
        (Purpose::Destroy, host) => Ok(Goal::Nothing(host)),
    }
}

/// A plan that a kernel was asked for is for the namespace that was asked.
fn is_namespace(origin: &Origin, here: Option<&str>) -> std::result::Result<(), Failure> {
    if origin.host.is_none() || origin.netns.as_deref() == here {
        return Ok(());
    }
    let words = |netns: Option<&str>| {
        netns.map_or("without --netns".into(), |name| {
            format!("with --netns {name}")
        })
    };
    Err(Failure(format!(
        "the plan was made {}, and this is {}",
        words(origin.netns.as_deref()),
        words(here)
    )))
}

#[cfg(test)]
mod tests {
    use super::{MOST_LISTED, listed};

    #[test]
    fn a_long_list_is_cut() {
        let found = vec!["x".to_owned(); MOST_LISTED];
        assert_eq!(listed(&found).lines().count(), MOST_LISTED);
        let more = [found, vec!["y".into(), "y".into()]].concat();
        assert!(listed(&more).ends_with("\n  x\n  … and 2 more"));
    }
}
