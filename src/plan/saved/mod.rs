//! A plan on file: made now, read by people, carried out later as it is or not at all.
//!
//! The file holds what a host needs for that: the topology, the terms, the changes, and what they rest on. Its digest is
//! against accidents and edits by hand; it's no signature, and who can write the file can make the digest fit.

mod basis;
#[cfg(test)]
mod tests;
mod told;

use std::net::Ipv4Addr;

use schemars::{JsonSchema, Schema};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Change, Document, Plan, Terms};
use crate::topology::{Host, Name, Topology};
pub use basis::{Basis, Verdict, judge};
use told::Told;

/// Version of the file's shape.
const FORMAT_VERSION: u32 = 1;
/// Of a file: some 150,000 changes. In memory it takes up to twenty times as much.
const MOST_BYTES: usize = 64 << 20;
/// The key that no topology has.
const MARK: &str = "tunnelform_saved_plan";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A plan on file.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "tunnelform saved plan")]
pub struct Saved {
    /// Version of this shape: 1. What tells a saved plan from a topology.
    tunnelform_saved_plan: u32,
    /// Version of the tunnelform that made it. No other carries it out.
    tunnelform_version: String,
    /// Where and when it was made.
    pub origin: Origin,
    /// What it leads to.
    pub goal: Purpose,
    /// Whose objects it may touch, and how far it goes.
    pub terms: Terms,
    /// The topology for this host alone, as `render` prints it; null where only an owner's name was given.
    #[schemars(with = "Option<serde_json::Map<String, Value>>")]
    topology: Option<Value>,
    /// What of the host the changes rest on, beside what they change.
    pub rests_on: Basis,
    /// SHA-256 of `rests_on` and of the objects that change as they were: the part of the observed state that the plan
    /// rests on.
    state_digest: String,
    /// The plan.
    #[schemars(with = "Document")]
    plan: Value,
    /// SHA-256 of everything else, as JSON without white space and with sorted keys.
    digest: String,
}

/// Where and when a plan was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// When, RFC 3339.
    pub made: String,
    /// The node that it is for; null where the topology is for one host.
    pub node: Option<Name>,
    /// The node's underlay address, if the topology has it.
    pub underlay: Option<Ipv4Addr>,
    /// Name of the host whose kernel was asked; null for a plan against a captured state or a bare host.
    pub host: Option<String>,
    /// Network namespace on that host, as `ip netns` calls it; null: the one that tunnelform ran in.
    pub netns: Option<String>,
    /// SHA-256 of the topology's file; of a directory, of what `sha256sum *.yaml` prints in it. Files of lists come behind the
    /// file that names them, also where that is the only one.
    pub topology_digest: Option<String>,
}

impl Origin {
    /// That nothing in it says more than it should, on a terminal or in a comment.
    fn check(&self) -> Result<(), Unfit> {
        if humantime::parse_rfc3339(&self.made).is_err() {
            return Err(shape(format!("{:?} is no RFC 3339 time", self.made)));
        }
        if self
            .topology_digest
            .as_deref()
            .is_some_and(|digest| !is_digest(digest))
        {
            return Err(shape("its topology_digest is none"));
        }
        let mut names = [&self.host, &self.netns].into_iter().flatten();
        match names.find(|name| name.chars().any(char::is_control)) {
            Some(name) => Err(shape(format!("{name:?} holds control characters"))),
            None => Ok(()),
        }
    }
}

/// What a plan leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// The host as the topology says.
    Apply,
    /// The host without anything that the owner has.
    Destroy,
}

/// Why a file can't be taken for a plan.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Too large.
    #[error("a saved plan has at most {MOST_BYTES} bytes")]
    TooLarge,
    /// Cut off, or spoilt.
    #[error("it's no whole JSON document: {0}")]
    Syntax(serde_json::Error),
    /// Of a later release, as it seems.
    #[error("its {MARK} is {0}, and this release knows {FORMAT_VERSION}: make the plan anew")]
    Format(Value),
    /// Of another release.
    #[error("tunnelform {0} made it, and this is {VERSION}: make the plan anew with this one")]
    Version(Value),
    /// Not as it was written.
    #[error("it was changed after it was made, as its digest tells: make the plan anew")]
    Digest,
    /// The digest fits, and what it is of is no plan that this release writes.
    #[error("it isn't as tunnelform writes a plan: {0}")]
    Shape(String),
}

impl Saved {
    /// Writes a plan down. `topology` is the host's own, without nodes.
    ///
    /// # Errors
    /// [`Unfit`]: what can't be read again, such as a device whose name isn't text, can't be saved.
    pub fn new(
        origin: Origin,
        goal: Purpose,
        terms: &Terms,
        topology: Option<&Topology>,
        plan: &Plan,
        rests_on: Basis,
    ) -> Result<Self, Unfit> {
        let document = Document::new(terms.owner.as_str(), true, plan.is_empty(), &[(plan, &[])]);
        let mut saved = Self {
            tunnelform_saved_plan: FORMAT_VERSION,
            tunnelform_version: VERSION.into(),
            origin,
            goal,
            terms: terms.clone(),
            topology: topology.map(value).transpose()?,
            state_digest: state_digest(&plan.changes, &rests_on)?,
            rests_on,
            plan: value(&document)?,
            digest: String::new(),
        };
        saved.digest = digest(&mut without_digest(value(&saved)?)?);
        let (again, read) = Self::read(saved.text()?.as_bytes())?;
        again.host()?;
        if read.changes == plan.changes {
            Ok(saved)
        } else {
            Err(shape("an object's name can't be written"))
        }
    }

    /// Whether a file means to be a saved plan. A broken one still does.
    pub fn is_meant(bytes: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Marked {
            tunnelform_saved_plan: Option<IgnoredAny>,
        }
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return false;
        }
        match serde_json::from_slice::<Marked>(bytes) {
            Ok(marked) => marked.tunnelform_saved_plan.is_some(),
            Err(_) => {
                let mark = format!("\"{MARK}\"");
                bytes.windows(mark.len()).any(|at| at == mark.as_bytes())
            }
        }
    }

    /// Reads a plan, if it is one and nobody has changed it.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn read(bytes: &[u8]) -> Result<(Self, Plan), Unfit> {
        if bytes.len() > MOST_BYTES {
            return Err(Unfit::TooLarge);
        }
        let file: Value = serde_json::from_slice(bytes).map_err(Unfit::Syntax)?;
        if file[MARK] != FORMAT_VERSION {
            return Err(Unfit::Format(file[MARK].clone()));
        }
        if file["tunnelform_version"] != VERSION {
            return Err(Unfit::Version(file["tunnelform_version"].clone()));
        }
        let written = file["digest"].clone();
        let mut rest = without_digest(file)?;
        if written != digest(&mut rest) {
            return Err(Unfit::Digest);
        }
        let mut saved: Self = typed(&with_digest(rest, written))?;
        let plan = saved.plan()?;
        saved.check(&plan)?;
        // It has been read, and a plan may be large.
        saved.plan = Value::Null;
        Ok((saved, plan))
    }

    /// The file's text.
    ///
    /// # Errors
    /// [`Unfit::TooLarge`]: nobody could read it.
    pub fn text(&self) -> Result<String, Unfit> {
        let text = serde_json::to_string(self).map_err(Unfit::Syntax)? + "\n";
        match text.len() {
            0..=MOST_BYTES => Ok(text),
            _ => Err(Unfit::TooLarge),
        }
    }

    /// What the topology has for the host; `None`: the plan was made of an owner's name alone.
    ///
    /// # Errors
    /// [`Unfit::Shape`].
    pub fn host(&self) -> Result<Option<Host>, Unfit> {
        let Some(topology) = &self.topology else {
            return Ok(None);
        };
        let parsed = Topology::parse("the plan's topology", &topology.to_string());
        let topology = parsed
            .map_err(|problems| shape(problems.to_string()))?
            .topology;
        let terms = (&self.terms.owner, self.terms.protocol);
        if (&topology.name, topology.route_protocol.0) != terms {
            return Err(shape("its terms aren't its topology's"));
        }
        let mut host = topology.fleet().host(None);
        if let Some(host) = &mut host {
            host.node.clone_from(&self.origin.node);
        }
        host.map(Some)
            .ok_or_else(|| shape("its topology has nodes"))
    }

    /// The changes, taken out of the document.
    fn plan(&self) -> Result<Plan, Unfit> {
        typed::<Told>(&self.plan)?.plan()
    }

    /// That everything in the file follows from the changes as this release has it.
    fn check(&self, plan: &Plan) -> Result<(), Unfit> {
        let owner = self.terms.owner.as_str();
        let document = Document::new(owner, true, plan.is_empty(), &[(plan, &[])]);
        if value(&document)? != self.plan {
            return Err(shape("its plan doesn't follow from its changes"));
        }
        if self.state_digest != state_digest(&plan.changes, &self.rests_on)? {
            return Err(shape("its state_digest isn't of its state"));
        }
        self.origin.check()?;
        let reasons = plan.changes.iter().filter_map(Change::why);
        let mut words = plan.warnings.iter().map(String::as_str).chain(reasons);
        // All of them are printed.
        match words.find(|text| text.chars().any(char::is_control)) {
            Some(text) => Err(shape(format!("{text:?} holds control characters"))),
            None => Ok(()),
        }
    }
}

fn state_digest(changes: &[Change], rests_on: &Basis) -> Result<String, Unfit> {
    let objects = changes.iter().map(|change| {
        let (before, _) = change.values();
        json!({"object": change.to_string(), "before": before})
    });
    let objects: Vec<Value> = objects.collect();
    Ok(digest(
        &mut json!({"objects": objects, "rests_on": value(rests_on)?}),
    ))
}

fn without_digest(mut file: Value) -> Result<Value, Unfit> {
    let map = file
        .as_object_mut()
        .ok_or_else(|| shape("it's no mapping"))?;
    map.remove("digest");
    Ok(file)
}

fn with_digest(mut file: Value, digest: Value) -> Value {
    file["digest"] = digest;
    file
}

/// Of JSON without white space. `serde_json` sorts keys, unless a crate has asked it for the order of writing.
fn digest(value: &mut Value) -> String {
    value.sort_all_objects();
    sha256(value.to_string().as_bytes())
}

/// SHA-256, as the file has it: `sha256:` and 64 hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    let digits = Sha256::digest(bytes);
    let digits = digits.iter().map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", digits.collect::<String>())
}

fn is_digest(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:");
    digits.is_some_and(|digits| digits.chars().all(|digit| digit.is_ascii_hexdigit()))
}

fn value(of: impl Serialize) -> Result<Value, Unfit> {
    serde_json::to_value(of).map_err(|error| shape(error.to_string()))
}

fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, Unfit> {
    T::deserialize(value).map_err(|error| shape(error.to_string()))
}

fn shape(message: impl Into<String>) -> Unfit {
    Unfit::Shape(message.into())
}

/// JSON Schema of the file.
pub fn schema() -> Schema {
    schemars::schema_for!(Saved)
}
