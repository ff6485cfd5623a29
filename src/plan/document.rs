//! The plan for machines: one JSON document, its shape versioned and described by a schema.

use schemars::{JsonSchema, Schema};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{Action, Change, Conflict, Counts, Cut, Effect, Obstacle, Plan};
use crate::state::InterfaceName;

/// Version of the document's shape. It changes when a key goes or means something else, not when one is added.
const FORMAT_VERSION: u32 = 1;

/// A plan, and what became of it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "tunnelform plan")]
pub struct Document<'a> {
    /// Version of this shape: 1.
    pub format_version: u32,
    /// Version of the tunnelform that wrote it.
    pub tunnelform_version: String,
    /// Name of the topology, the owner of the objects.
    pub owner: String,
    /// Whether nothing was to be changed.
    pub dry_run: bool,
    /// Whether the host is now as the topology says.
    pub in_sync: bool,
    /// How many changes there are of each kind.
    pub counts: Counts,
    /// The changes.
    #[schemars(with = "Vec<ChangeDocument>")]
    pub changes: Changes<'a>,
    /// What stands in the way; nothing is changed while there is any.
    pub conflicts: Vec<Conflict>,
    /// What the kernel would refuse.
    pub obstacles: Vec<Obstacle>,
    /// Protected addresses that would be cut off; nothing is changed while there is any.
    pub cuts: Vec<Cut>,
    /// With `--require-hitless` the changes that stop traffic, with their effect; nothing is changed while there is any.
    pub hits: Vec<String>,
    /// What else to know.
    pub warnings: Vec<String>,
    /// What became of what was done before something went wrong; null: nothing was taken back.
    pub taken_back: Option<TakenBackDocument>,
    /// Seconds until the change is taken back unless it's confirmed; null: it isn't on trial.
    pub on_trial_s: Option<u64>,
    /// What went wrong apart from a change of its own.
    pub errors: Vec<String>,
}

/// The changes of some plans. Each is put into words as it's written: there may be a million.
#[derive(Debug)]
pub struct Changes<'a>(Vec<(&'a Plan, &'a [Outcome])>);

impl Serialize for Changes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let changes = self.0.iter().flat_map(|(plan, outcomes)| {
            let outcome = |index: usize| outcomes.get(index).unwrap_or(&Outcome::PENDING);
            ChangeDocument::all(plan, outcome)
        });
        serializer.collect_seq(changes)
    }
}

/// How going back to the state before has ended.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TakenBackDocument {
    /// Whether the host is as before.
    pub complete: bool,
    /// What still differs from before, as changes that would make it so.
    pub left: Vec<ChangeDocument>,
    /// Why it isn't known what differs.
    pub error: Option<String>,
}

/// The plans of a fleet.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "tunnelform fleet plan")]
pub struct FleetDocument<'a> {
    /// Version of this shape: 1.
    pub format_version: u32,
    /// Version of the tunnelform that wrote it.
    pub tunnelform_version: String,
    /// Name of the topology, the owner of the objects.
    pub owner: String,
    /// The nodes, in the order of their names.
    pub nodes: Vec<NodeDocument<'a>>,
    /// How many changes of each kind there are on all nodes.
    pub counts: Counts,
    /// Whether no node changes.
    pub in_sync: bool,
}

/// The plan of one node.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NodeDocument<'a> {
    /// Its name; the topology's where that has no nodes.
    pub node: String,
    /// Why there is no plan; null where there is one.
    pub error: Option<String>,
    /// The plan.
    pub plan: Option<Document<'a>>,
}

/// One change.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ChangeDocument {
    /// What is done.
    pub action: Action,
    /// Kind of object: `tunnel`, `address` or `route`.
    pub object: String,
    /// The object's key in words: `tun1`, `10.0.0.1/24 on tun1`, `10.244.0.0/16`.
    pub key: String,
    /// The object as it is; null where it isn't there.
    pub before: Value,
    /// The object as it will be; null where it won't be there.
    pub after: Value,
    /// The attributes that an update or replacement changes.
    pub attributes: Vec<AttributeDocument>,
    /// Why it is replaced or put back, or what the kernel deletes with it; null otherwise.
    pub why: Option<String>,
    /// The device that carries a tunnel's traffic while the tunnel is replaced; null: none does.
    pub stand_in: Option<String>,
    /// What it does to traffic.
    pub effect: Effect,
    /// What became of it.
    pub status: Status,
    /// Why it failed or was skipped.
    pub error: Option<String>,
}

/// One attribute that changes.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AttributeDocument {
    /// Its name.
    pub name: String,
    /// As it is.
    pub old: Value,
    /// As it will be.
    pub new: Value,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It was not carried out (yet).
    Pending,
    /// The kernel did it.
    Done,
    /// The kernel refused it.
    Failed,
    /// It could not be tried, because something it needs is missing.
    Skipped,
    /// The kernel did it, and it was taken back.
    Undone,
}

/// What became of one change, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What became of it.
    pub status: Status,
    /// Why it failed or was skipped.
    pub error: Option<String>,
}

impl Outcome {
    /// Not carried out.
    pub const PENDING: Self = Self {
        status: Status::Pending,
        error: None,
    };
    /// Carried out.
    pub const DONE: Self = Self {
        status: Status::Done,
        error: None,
    };
}

impl<'a> Document<'a> {
    /// The document of plans that were carried out one after the other, or of one that wasn't.
    pub fn new(
        owner: &str,
        dry_run: bool,
        in_sync: bool,
        rounds: &[(&'a Plan, &'a [Outcome])],
    ) -> Self {
        let mut document = Self {
            format_version: FORMAT_VERSION,
            tunnelform_version: env!("CARGO_PKG_VERSION").into(),
            owner: owner.into(),
            dry_run,
            in_sync,
            counts: Counts::default(),
            changes: Changes(rounds.to_vec()),
            conflicts: Vec::new(),
            obstacles: Vec::new(),
            cuts: Vec::new(),
            hits: Vec::new(),
            warnings: Vec::new(),
            taken_back: None,
            on_trial_s: None,
            errors: Vec::new(),
        };
        for (plan, _) in rounds {
            document.counts += plan.counts();
            document.conflicts.extend(plan.conflicts.iter().cloned());
            document.obstacles.extend(plan.obstacles.iter().cloned());
            document.cuts.extend(plan.cuts.iter().cloned());
            document.hits.extend(plan.hits.iter().cloned());
            document.warnings.extend(plan.warnings.iter().cloned());
        }
        document
    }
}

impl ChangeDocument {
    /// A plan's changes, and what became of each.
    pub fn all<'a>(
        plan: &'a Plan,
        outcome: impl Fn(usize) -> &'a Outcome + 'a,
    ) -> impl Iterator<Item = Self> + 'a {
        let changes = plan.changes.iter().enumerate();
        changes.map(move |(index, change)| {
            let stand_in = plan.stand_in(change);
            Self::new(change, stand_in, plan.effect(index), outcome(index))
        })
    }

    fn new(
        change: &Change,
        stand_in: Option<InterfaceName>,
        effect: Effect,
        outcome: &Outcome,
    ) -> Self {
        let (before, after) = change.values();
        let attributes = change
            .attributes()
            .into_iter()
            .map(|(name, old, new)| AttributeDocument { name, old, new });
        Self {
            action: change.action(),
            object: change.kind().into(),
            key: change.key(),
            before,
            after,
            attributes: attributes.collect(),
            why: change.why().map(str::to_owned),
            stand_in: stand_in.map(|name| name.to_string()),
            effect,
            status: outcome.status,
            error: outcome.error.clone(),
        }
    }
}

impl Change {
    /// The object with its key, as it is and as it will be; null where it isn't there.
    pub(super) fn values(&self) -> (Value, Value) {
        match self {
            Self::Tunnel(name, delta) => {
                let with_name = |value| keyed(&serde_json::json!({ "name": name }), value);
                (
                    with_name(json(delta.before())),
                    with_name(json(delta.after())),
                )
            }
            Self::Address(key, delta) => (
                keyed(&json(key), json(delta.before())),
                keyed(&json(key), json(delta.after())),
            ),
            Self::Route(key, delta) => (
                keyed(&json(key), json(delta.before())),
                keyed(&json(key), json(delta.after())),
            ),
        }
    }
}

fn json<T: Serialize>(value: T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// The object's key and value as one; null stays null.
fn keyed(key: &Value, value: Value) -> Value {
    match (key, value) {
        (Value::Object(key), Value::Object(value)) => {
            Value::Object(key.clone().into_iter().chain(value).collect())
        }
        (_, value) => value,
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        let Self {
            create,
            update,
            replace,
            delete,
            restore,
        } = other;
        self.create += create;
        self.update += update;
        self.replace += replace;
        self.delete += delete;
        self.restore += restore;
    }
}

/// JSON Schema of the document.
pub fn schema() -> Schema {
    schemars::schema_for!(Document)
}

/// JSON Schema of the document of a fleet.
pub fn fleet_schema() -> Schema {
    schemars::schema_for!(FleetDocument)
}
