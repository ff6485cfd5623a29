//! One pass: observe, compare, carry out, and observe again until nothing is left.

use std::collections::BTreeSet;

use crate::desired::{desired, lookups};
use crate::kernel::{self, Extent, Kernel, OnRefusal};
use crate::plan::{
    Around, Change, Object, Outcome, Plan, Scope, Status, Terms, Undo, draft, plan, plan_around,
};
use crate::state::{Desired, Observed, State};
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
    /// The way back can't be kept, so nothing is touched.
    #[error("without a way back nothing is changed")]
    NoWayBack(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Who sees what a pass is about to do.
pub trait Witness {
    /// Sees each plan before it's carried out, and the first also where there is nothing to carry out.
    fn sees(&mut self, look: &Look) {
        let _ = look;
    }

    /// Learns what is about to be touched, as it is, and all that was touched before; and whether a process that is killed
    /// may leave some of it done and some not.
    ///
    /// # Errors
    /// [`Error::NoWayBack`]: then nothing more is touched.
    fn will_touch(&mut self, undo: &Undo, may_stop_halfway: bool) -> Result<(), Error> {
        let _ = (undo, may_stop_halfway);
        Ok(())
    }
}

/// Nobody looks.
impl Witness for () {}

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
    /// What ended the pass before its end.
    pub broken: Option<Error>,
    /// How going back has ended, where something went wrong and everything was to be taken back.
    pub taken_back: Option<TakenBack>,
}

/// How going back to the state before has ended.
pub struct TakenBack {
    /// The plans that were carried out.
    pub rounds: Vec<Round>,
    /// What still differs from before. Empty: nothing.
    pub left: Result<Plan, Error>,
}

impl TakenBack {
    /// Whether the host is as before.
    pub fn is_complete(&self) -> bool {
        self.left.as_ref().is_ok_and(Plan::is_empty)
    }

    fn mark(&self, round: &mut Round) {
        let Ok(left) = &self.left else { return };
        let left: BTreeSet<Object> = left.changes.iter().map(Change::object).collect();
        for (change, outcome) in round.plan.changes.iter().zip(&mut round.outcomes) {
            if outcome.status == Status::Done && !left.contains(&change.object()) {
                outcome.status = Status::Undone;
            }
        }
    }
}

impl Round {
    /// Whether something was refused, or not even tried.
    fn is_incomplete(&self) -> bool {
        let mut outcomes = self.outcomes.iter();
        outcomes.any(|outcome| outcome.status != Status::Done)
    }
}

/// Compares the host with the goal. Changes nothing and needs no privilege.
///
/// # Errors
/// When the kernel can't be asked.
pub fn look(kernel: &mut Kernel, goal: Goal, terms: &Terms, counters: bool) -> Result<Look, Error> {
    Ok(compare(kernel, goal, terms, counters, None)?)
}

/// A snapshot, and what was carried out since.
type Known = (Observed, Scope);

fn compare(
    kernel: &mut Kernel,
    goal: Goal,
    terms: &Terms,
    counters: bool,
    known: Option<Known>,
) -> Result<Look, kernel::Error> {
    let extent = extent(goal, terms, counters);
    let difference = |observed: &Observed| difference(goal, observed, terms);
    let (observed, (desired, mut plan)) =
        observe(kernel, &extent, terms, known, difference, |(_, plan)| plan)?;
    plan.complete(&desired, &observed, terms);
    Ok(Look {
        desired: desired.state,
        observed,
        plan,
    })
}

fn extent(goal: Goal, terms: &Terms, counters: bool) -> Extent {
    let paths = match goal {
        Goal::Host(host) => lookups(host),
        Goal::Nothing(_) => BTreeSet::new(),
    };
    Extent {
        protocol: Some(terms.protocol),
        own_protocol: terms.protocol,
        paths: paths.into_iter().chain(terms.protect.clone()).collect(),
        counters,
    }
}

/// A snapshot, and what `make` makes of it. Routes of other protocols matter only to a `plan` that may run into them, and
/// there may be a million.
fn observe<T>(
    kernel: &mut Kernel,
    extent: &Extent,
    terms: &Terms,
    known: Option<Known>,
    make: impl Fn(&Observed) -> T,
    plan: impl Fn(&T) -> &Plan,
) -> Result<(Observed, T), kernel::Error> {
    let mut observed = match known {
        Some((known, scope)) => kernel.observe_again(extent, known, &scope)?,
        None => kernel.observe(extent)?,
    };
    let made = make(&observed);
    if !plan(&made).concerns_all_routes(terms, &observed) {
        return Ok((observed, made));
    }
    // Its memory is needed again.
    drop(made);
    kernel.widen(&mut observed, terms.protocol)?;
    let made = make(&observed);
    Ok((observed, made))
}

fn difference(goal: Goal, observed: &Observed, terms: &Terms) -> (Desired, Plan) {
    match goal {
        Goal::Host(host) => {
            let desired = desired(host, observed);
            let draft = draft(&desired, Some(&desired.state), observed, terms);
            (desired, draft)
        }
        Goal::Nothing(known) => {
            let nothing = Desired::default();
            let known = known.map(|host| desired(host, observed).state);
            let draft = draft(&nothing, known.as_ref(), observed, terms);
            (nothing, draft)
        }
    }
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
/// turn. `before_look` is called before each snapshot: what has changed until then is in it. `before_touch` learns what is
/// about to be carried out, and on what; where it fails, nothing more is touched.
///
/// # Errors
/// As of [`look`], and `before_touch`'s. What the kernel refuses is in the outcomes.
pub fn keep(
    kernel: &mut Kernel,
    host: &Host,
    terms: &Terms,
    mut held: BTreeSet<Object>,
    mut before_look: impl FnMut(&mut Kernel) -> Result<(), kernel::Error>,
    mut before_touch: impl FnMut(&Plan, &Observed) -> Result<(), Error>,
) -> Result<Kept, Error> {
    let extent = extent(Goal::Host(host), terms, false);
    let mut rounds: Vec<Round> = Vec::new();
    loop {
        before_look(kernel)?;
        // Everything, as `before_look` has let go of the news of others' changes.
        let around = |observed: &Observed| {
            let wanted = desired(host, observed);
            let left = plan_around(&wanted, observed, terms, &held);
            (wanted, left)
        };
        let (observed, (wanted, left)) =
            observe(kernel, &extent, terms, None, around, |(_, left)| &left.plan)?;
        if left.plan.is_empty() || rounds.len() == ROUNDS {
            return Ok(Kept {
                rounds,
                left,
                desired: wanted.state,
                observed,
            });
        }
        before_touch(&left.plan, &observed)?;
        let outcomes = kernel.execute(&left.plan, &observed, OnRefusal::GoOn)?;
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
pub fn foresee(mut observed: Observed, host: &Host, terms: &Terms) -> Look {
    let ways = lookups(host).into_iter().chain(terms.protect.clone());
    let ways = ways.filter_map(|address| Some((address, observed.path_to(address)?)));
    observed.paths = ways.collect();
    let desired = desired(host, &observed);
    let plan = plan(&desired, Some(&desired.state), &observed, terms);
    Look {
        desired: desired.state,
        observed,
        plan,
    }
}

/// Makes the host as the goal says.
///
/// With [`OnRefusal::Stop`] all or nothing: nothing is touched while something stands in the way that is known
/// beforehand, and where something goes wrong all the same, everything is taken back.
///
/// # Errors
/// As of [`look`], before anything was touched. What the kernel refuses is in the outcomes.
pub fn apply(
    kernel: &mut Kernel,
    goal: Goal,
    terms: &Terms,
    on_refusal: OnRefusal,
    witness: &mut impl Witness,
) -> Result<Pass, Error> {
    Run::new(goal, terms, on_refusal, ROUNDS).finish(kernel, None, witness)
}

/// As [`apply`], but carries out the plan that was found, and no other.
///
/// # Errors
/// As of [`apply`].
pub fn carry_out(
    kernel: &mut Kernel,
    goal: Goal,
    terms: &Terms,
    on_refusal: OnRefusal,
    found: Look,
    witness: &mut impl Witness,
) -> Result<Pass, Error> {
    Run::new(goal, terms, on_refusal, 1).finish(kernel, Some(found), witness)
}

struct Run<'a> {
    goal: Goal<'a>,
    terms: &'a Terms,
    on_refusal: OnRefusal,
    most_rounds: usize,
    undo: Undo,
    /// Whether anything may have been changed.
    touched: bool,
    rounds: Vec<Round>,
}

impl<'a> Run<'a> {
    fn new(goal: Goal<'a>, terms: &'a Terms, on_refusal: OnRefusal, most_rounds: usize) -> Self {
        Self {
            goal,
            terms,
            on_refusal,
            most_rounds,
            undo: Undo::default(),
            touched: false,
            rounds: Vec::new(),
        }
    }

    /// The whole of it, or nothing.
    fn finish(
        mut self,
        kernel: &mut Kernel,
        found: Option<Look>,
        witness: &mut impl Witness,
    ) -> Result<Pass, Error> {
        let end = self.carry_out(kernel, found, witness);
        let (left, broken) = match end {
            Ok(left) => (left, None),
            Err(error) if self.touched && self.on_refusal == OnRefusal::Stop => {
                (Plan::default(), Some(error))
            }
            Err(error) => return Err(error),
        };
        let whole = left.is_empty() && broken.is_none();
        let taken_back = match self.on_refusal {
            OnRefusal::Stop if self.touched && !whole => {
                Some(take_back(kernel, &self.undo, self.terms.protocol))
            }
            OnRefusal::Stop | OnRefusal::GoOn => None,
        };
        if let Some(taken_back) = &taken_back {
            self.rounds
                .iter_mut()
                .for_each(|round| taken_back.mark(round));
        }
        Ok(Pass {
            rounds: self.rounds,
            left,
            broken,
            taken_back,
        })
    }

    /// Until nothing is left to do, or nothing more can be done. What is left.
    fn carry_out(
        &mut self,
        kernel: &mut Kernel,
        mut found: Option<Look>,
        witness: &mut impl Witness,
    ) -> Result<Plan, Error> {
        let mut known = None;
        loop {
            let found = match found.take() {
                Some(found) => found,
                None => compare(kernel, self.goal, self.terms, false, known.take())?,
            };
            let over = self.is_over(&found.plan);
            if self.rounds.is_empty() || !over {
                witness.sees(&found);
            }
            if over {
                return Ok(found.plan);
            }
            tracing::debug!(
                round = self.rounds.len() + 1,
                changes = found.plan.changes.len(),
                "carrying out"
            );
            self.undo.note(&found.plan, &found.observed);
            let may_stop_halfway = self.touched || !found.plan.is_indivisible();
            witness.will_touch(&self.undo, may_stop_halfway)?;
            self.touched = true;
            let outcomes = kernel.execute(&found.plan, &found.observed, self.on_refusal)?;
            let round = Round {
                plan: found.plan,
                outcomes,
            };
            // Nobody knows what a change that was refused has left.
            let scope = Scope::of(&round.plan).filter(|_| !round.is_incomplete());
            known = scope.map(|scope| (found.observed, scope));
            self.rounds.push(round);
        }
    }

    fn is_over(&self, plan: &Plan) -> bool {
        let stands = match self.on_refusal {
            OnRefusal::Stop => !plan.obstacles.is_empty(),
            OnRefusal::GoOn => false,
        };
        plan.is_empty()
            || !plan.conflicts.is_empty()
            || !plan.cuts.is_empty()
            || !plan.hits.is_empty()
            || stands
            || self.rounds.last().is_some_and(Round::is_incomplete)
            || self.rounds.len() == self.most_rounds
    }
}

/// Makes what was touched as it was before.
pub fn take_back(kernel: &mut Kernel, undo: &Undo, route_protocol: u8) -> TakenBack {
    let mut rounds = Vec::new();
    let extent = Extent {
        protocol: None,
        own_protocol: route_protocol,
        paths: BTreeSet::new(),
        counters: false,
    };
    let mut tries = 0;
    let left = loop {
        tries += 1;
        let found = kernel
            .observe(&extent)
            .map(|observed| (undo.plan(&observed), observed));
        let broken = match found {
            Ok((plan, _)) if plan.is_empty() || tries > ROUNDS => break Ok(plan),
            Ok((plan, observed)) => match kernel.execute(&plan, &observed, OnRefusal::GoOn) {
                Ok(outcomes) => {
                    rounds.push(Round { plan, outcomes });
                    continue;
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        // A conversation that broke off may go on: the next round begins with what there is then.
        if tries > ROUNDS {
            break Err(broken.into());
        }
    };
    TakenBack { rounds, left }
}
