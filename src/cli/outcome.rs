//! What is said of a plan that was carried out, or can't be.

use tunnelform::kernel::OnRefusal;
use tunnelform::plan::{Action, ChangeDocument, Outcome, Plan, Status, Style, TakenBackDocument};
use tunnelform::reconcile::{Pass, Round, TakenBack};
use tunnelform::state::Unmet;

use super::{FAILED, Failure, HALF_DONE, Terminal, complain};

/// Why a plan can't be carried out; `None`: it can.
pub(super) fn in_the_way(plan: &Plan, on_refusal: OnRefusal) -> Option<String> {
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
    if !plan.hits.is_empty() {
        return Some(format!(
            "--require-hitless, and not hitless: {}",
            plan.hits.join("; ")
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

pub(super) fn taken_back(taken_back: &TakenBack) -> TakenBackDocument {
    let left = taken_back.left.as_ref();
    let changes = left.iter();
    TakenBackDocument {
        complete: taken_back.is_complete(),
        left: changes
            .flat_map(|plan| ChangeDocument::all(plan, |_| &Outcome::PENDING))
            .collect(),
        error: left.err().map(|error| {
            let Failure(why) = error.into();
            why
        }),
    }
}

/// What was done, as the plan's last line is counted.
pub(super) fn made(rounds: &[Round]) -> String {
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
pub(super) fn unmet(plan: &Plan) -> impl Iterator<Item = String> {
    let stay =
        |unmet: &Unmet| format!("{unmet}; it, its addresses and its routes stay as they are");
    plan.unmet.values().map(stay)
}

/// What went wrong: what the kernel refused, what ended the pass, what stands in the way of a further round, and what
/// differs at the end without any reason.
pub(super) fn failures(pass: &Pass, on_refusal: OnRefusal) -> Vec<String> {
    let mut failures: Vec<String> = pass.rounds.iter().flat_map(refusals).collect();
    failures.extend(pass.broken.as_ref().map(|error| {
        let Failure(why) = error.into();
        why
    }));
    if failures.is_empty() && !pass.rounds.is_empty() {
        match in_the_way(&pass.left, on_refusal) {
            Some(why) => {
                failures.push(format!("what follows from these changes isn't made: {why}"))
            }
            None => failures.extend(pass.left.changes.iter().map(|change| {
                let text = change.text(Style { color: false });
                format!("the kernel took every change, but this still differs:\n{text}")
            })),
        }
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
