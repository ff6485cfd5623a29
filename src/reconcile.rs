//! One pass: observe, compare, carry out, and observe again until nothing is left.

use std::collections::BTreeSet;

use crate::desired::{Unmet, desired, lookups};
use crate::kernel::{self, Extent, Kernel};
use crate::plan::{Around, Object, Outcome, Plan, Status, Terms, plan, plan_around};
use crate::state::{Observed, State};
use crate::topology::Host;

/// How often a pass may act. The second time is for what follows from the first, such as `mtu: auto` over a route that
/// this very pass has added.
const ROUNDS: usize = 3;

/// Why there is no pass.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel can't be asked.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// The host lacks what the topology counts on.
    #[error(transparent)]
    Unmet(#[from] Unmet),
}

/// What the host should become.
#[derive(Clone, Copy)]
pub enum Goal<'a> {
    /// What the topology says of it.
    Host(&'a Host),
    /// Without anything that the owner has. The topology, where it's known, tells which unmarked objects are its own.
    Nothing(Option<&'a Host>),
}

/// What was found, and what is to do.
pub struct Look {
    /// The state that is wanted.
    pub desired: State,
    /// The state that is.
    pub observed: Observed,
    /// The difference.
    pub plan: Plan,
}

/// A plan that was carried out, and what became of its changes.
pub struct Round {
    /// The plan.
    pub plan: Plan,
    /// What became of each of its changes.
    pub outcomes: Vec<Outcome>,
}

/// What a pass did.
pub struct Pass {
    /// The plans that were carried out, mostly one.
    pub rounds: Vec<Round>,
    /// What is still to do at the end. Empty: the host is as it should be.
    pub left: Plan,
}

/// Compares the host with the goal. Changes nothing and needs no privilege.
///
/// # Errors
/// When the kernel can't be asked, or lacks what the topology counts on.
pub fn look(kernel: &mut Kernel, goal: Goal, terms: &Terms, counters: bool) -> Result<Look, Error> {
    let first = compare(kernel, goal, terms, counters, Some(terms.protocol))?;
    // Routes of other protocols matter only to a plan that may run into them, and there may be a million.
    if first.plan.concerns_all_routes() {
        compare(kernel, goal, terms, counters, None)
    } else {
        Ok(first)
    }
}

fn observe(
    kernel: &mut Kernel,
    goal: Goal,
    terms: &Terms,
    counters: bool,
    protocol: Option<u8>,
) -> Result<Observed, Error> {
    let paths = match goal {
        Goal::Host(host) => lookups(host),
        Goal::Nothing(_) => BTreeSet::new(),
    };
    Ok(kernel.observe(&Extent {
        protocol,
        own_protocol: terms.protocol,
        paths,
        counters,
    })?)
}

fn compare(
    kernel: &mut Kernel,
    goal: Goal,
    terms: &Terms,
    counters: bool,
    protocol: Option<u8>,
) -> Result<Look, Error> {
    let observed = observe(kernel, goal, terms, counters, protocol)?;
    let (desired, plan) = match goal {
        Goal::Host(host) => {
            let desired = desired(host, &observed)?;
            let plan = plan(&desired, Some(&desired), &observed, terms);
            (desired, plan)
        }
        Goal::Nothing(known) => {
            let known = known.map(|host| desired(host, &observed)).transpose()?;
            let plan = plan(&State::default(), known.as_ref(), &observed, terms);
            (State::default(), plan)
        }
    };
    Ok(Look {
        desired,
        observed,
        plan,
    })
}

/// What keeping a host as it should be has come to.
pub struct Kept {
    /// The plans that were carried out.
    pub rounds: Vec<Round>,
    /// What is left: in dispute, waiting, held back.
    pub left: Around,
    /// The state that is wanted.
    pub desired: State,
    /// The state that is.
    pub observed: Observed,
}

/// Makes the host as the topology says, object by object: what is `held`, in dispute or refused costs nothing else its
/// turn. `before_look` is called before each snapshot: what has changed until then is in it.
///
/// # Errors
/// As of [`look`]. What the kernel refuses is in the outcomes.
pub fn keep(
    kernel: &mut Kernel,
    host: &Host,
    terms: &Terms,
    mut held: BTreeSet<Object>,
    mut before_look: impl FnMut(&mut Kernel) -> Result<(), Error>,
) -> Result<Kept, Error> {
    let goal = Goal::Host(host);
    let mut rounds: Vec<Round> = Vec::new();
    loop {
        before_look(kernel)?;
        let mut observed = observe(kernel, goal, terms, false, Some(terms.protocol))?;
        let mut wanted = desired(host, &observed)?;
        let mut left = plan_around(&wanted, &observed, terms, &held);
        if left.plan.concerns_all_routes() {
            observed = observe(kernel, goal, terms, false, None)?;
            wanted = desired(host, &observed)?;
            left = plan_around(&wanted, &observed, terms, &held);
        }
        if left.plan.is_empty() || rounds.len() == ROUNDS {
            return Ok(Kept {
                rounds,
                left,
                desired: wanted,
                observed,
            });
        }
        let outcomes = kernel.execute(&left.plan, &observed)?;
        let pairs = left.plan.changes.iter().zip(&outcomes);
        held.extend(
            pairs
                .filter(|(_, outcome)| outcome.status != Status::Done)
                .map(|(change, _)| change.object()),
        );
        rounds.push(Round {
            plan: left.plan,
            outcomes,
        });
    }
}

/// Compares a host that was observed elsewhere, or is made up, with what a topology says of it. Asks no kernel.
///
/// # Errors
/// When the host lacks what the topology counts on.
pub fn foresee(mut observed: Observed, host: &Host, terms: &Terms) -> Result<Look, Unmet> {
    let ways = lookups(host).into_iter();
    let ways = ways.filter_map(|address| Some((address, observed.path_to(address)?)));
    observed.paths = ways.collect();
    let desired = desired(host, &observed)?;
    let plan = plan(&desired, Some(&desired), &observed, terms);
    Ok(Look {
        desired,
        observed,
        plan,
    })
}

/// Carries out the plan that was found, once, and looks what is left.
///
/// # Errors
/// As of [`look`]. What the kernel refuses is in the outcomes.
pub fn carry_out(
    kernel: &mut Kernel,
    goal: Goal,
    terms: &Terms,
    found: Look,
) -> Result<Pass, Error> {
    let outcomes = kernel.execute(&found.plan, &found.observed)?;
    let round = Round {
        plan: found.plan,
        outcomes,
    };
    Ok(Pass {
        rounds: vec![round],
        left: look(kernel, goal, terms, false)?.plan,
    })
}

/// Makes the host as the goal says. `announce` sees each plan before it's carried out.
///
/// # Errors
/// As of [`look`]. What the kernel refuses is in the outcomes.
pub fn apply(
    kernel: &mut Kernel,
    goal: Goal,
    terms: &Terms,
    mut announce: impl FnMut(&Look),
) -> Result<Pass, Error> {
    let mut rounds: Vec<Round> = Vec::new();
    loop {
        let found = look(kernel, goal, terms, false)?;
        let refused = rounds
            .last()
            .is_some_and(|round| round.outcomes.iter().any(|o| o.status != Status::Done));
        let over = found.plan.is_empty()
            || !found.plan.conflicts.is_empty()
            || refused
            || rounds.len() == ROUNDS;
        if rounds.is_empty() || !over {
            announce(&found);
        }
        if over {
            return Ok(Pass {
                rounds,
                left: found.plan,
            });
        }
        tracing::debug!(
            round = rounds.len() + 1,
            changes = found.plan.changes.len(),
            "carrying out"
        );
        let outcomes = kernel.execute(&found.plan, &found.observed)?;
        rounds.push(Round {
            plan: found.plan,
            outcomes,
        });
    }
}
