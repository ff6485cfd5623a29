//! A plan on file: made now, read by people, carried out later as it is or not at all.
//!
//! The file holds what a host needs for that: the topology, the terms, the changes, and what they rest on. Its digest is
//! against accidents and edits by hand; it's no signature, and who can write the file can make the digest fit.

use std::net::Ipv4Addr;

use schemars::{JsonSchema, Schema};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::basis::Basis;
use super::{Action, Change, Delta, Document, Plan, Terms};
use crate::state::{Address, AddressKey, InterfaceName, Route, RouteKey, Tunnel};
use crate::topology::{Host, Name, Topology};

/// Version of the file's shape.
const FORMAT_VERSION: u32 = 1;
/// Of a file. In memory it takes up to twenty times as much.
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
    /// SHA-256 of the topology's file; of a directory, of what `sha256sum *.yaml` prints in it.
    pub topology_digest: Option<String>,
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
        saved.digest = digest(&without_digest(value(&saved)?)?);
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
        let file_without = without_digest(file)?;
        if written != digest(&file_without) {
            return Err(Unfit::Digest);
        }
        let mut saved: Self = typed(with_digest(file_without, written))?;
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
        let text = serde_json::to_string_pretty(self).map_err(Unfit::Syntax)? + "\n";
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
        let told: Told = typed(self.plan.clone())?;
        let changes = told.changes.into_iter().map(Change::try_from);
        Ok(Plan {
            changes: changes.collect::<Result<_, _>>()?,
            warnings: told.warnings,
            ..Plan::default()
        })
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
        let origin = [
            Some(&self.origin.made),
            self.origin.host.as_ref(),
            self.origin.netns.as_ref(),
        ];
        let reasons = plan.changes.iter().filter_map(Change::why);
        let words = origin.into_iter().flatten().chain(&plan.warnings);
        let mut words = words.map(String::as_str).chain(reasons);
        // All of them are printed.
        match words.find(|text| text.chars().any(char::is_control)) {
            Some(text) => Err(shape(format!("{text:?} holds control characters"))),
            None => Ok(()),
        }
    }
}

/// What of the document the changes can be made of. The rest follows from them.
#[derive(Deserialize)]
struct Told {
    changes: Vec<ToldChange>,
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct ToldChange {
    action: Action,
    object: String,
    before: Value,
    after: Value,
    why: Option<String>,
}

#[derive(Deserialize)]
struct TunnelKey {
    name: InterfaceName,
}

#[derive(Deserialize)]
struct AddressPlace {
    device: InterfaceName,
    address: std::net::IpAddr,
}

impl TryFrom<ToldChange> for Change {
    type Error = Unfit;

    fn try_from(told: ToldChange) -> Result<Self, Unfit> {
        let some = [&told.after, &told.before]
            .into_iter()
            .find(|value| !value.is_null());
        let key = some.ok_or_else(|| shape("a change of nothing"))?.clone();
        Ok(match told.object.as_str() {
            "tunnel" => Self::Tunnel(typed::<TunnelKey>(key)?.name, told.delta::<Tunnel>()?),
            "address" => {
                let AddressPlace { device, address } = typed(key.clone())?;
                let value: Address = typed(key)?;
                let key = AddressKey::new(device, address, value.peer, value.prefix_len);
                Self::Address(key, told.delta()?)
            }
            "route" => Self::Route(typed::<RouteKey>(key)?, told.delta::<Route>()?),
            other => return Err(shape(format!("{other:?} is no kind of object"))),
        })
    }
}

impl ToldChange {
    fn delta<T: DeserializeOwned>(self) -> Result<Delta<T>, Unfit> {
        let why = || self.why.clone().unwrap_or_default();
        Ok(match self.action {
            Action::Create => Delta::Create(typed(self.after)?),
            Action::Update => Delta::Update {
                from: typed(self.before)?,
                to: typed(self.after)?,
            },
            Action::Replace => Delta::Replace {
                why: why(),
                from: typed(self.before)?,
                to: typed(self.after)?,
            },
            Action::Delete => Delta::Delete {
                from: typed(self.before)?,
                along: self.why,
            },
            Action::Restore => Delta::Restore {
                why: why(),
                to: typed(self.after)?,
            },
        })
    }
}

fn state_digest(changes: &[Change], rests_on: &Basis) -> Result<String, Unfit> {
    let objects = changes.iter().map(|change| {
        let (before, _) = change.values();
        json!({"object": change.to_string(), "before": before})
    });
    let objects: Vec<Value> = objects.collect();
    Ok(digest(
        &json!({"objects": objects, "rests_on": value(rests_on)?}),
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
fn digest(value: &Value) -> String {
    let mut sorted = value.clone();
    sorted.sort_all_objects();
    sha256(sorted.to_string().as_bytes())
}

/// SHA-256, as the file has it: `sha256:` and 64 hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    let digits = Sha256::digest(bytes);
    let digits = digits.iter().map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", digits.collect::<String>())
}

fn value(of: impl Serialize) -> Result<Value, Unfit> {
    serde_json::to_value(of).map_err(|error| shape(error.to_string()))
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Unfit> {
    serde_json::from_value(value).map_err(|error| shape(error.to_string()))
}

fn shape(message: impl Into<String>) -> Unfit {
    Unfit::Shape(message.into())
}

/// JSON Schema of the file.
pub fn schema() -> Schema {
    schemars::schema_for!(Saved)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::kernel::roundtrip::{any_address, any_route, device, tunnel};
    use crate::plan::testing::{bare_with, terms};

    /// Every way in which one thing becomes another.
    fn delta<T: Clone>(kind: usize, from: T, to: T, why: String) -> Delta<T> {
        match kind {
            0 => Delta::Create(to),
            1 => Delta::Update { from, to },
            2 => Delta::Replace { from, to, why },
            3 => Delta::delete(from),
            4 => Delta::Delete {
                from,
                along: Some(why),
            },
            _ => Delta::Restore { to, why },
        }
    }

    fn any_change() -> impl Strategy<Value = Change> {
        let why = || "[ -~]{0,20}";
        let tunnels = (device(), 0..6usize, tunnel(), tunnel(), why());
        let addresses = (0..6usize, any_address(), any::<(bool, u32)>(), why());
        let routes = (0..6usize, any_route(), any_route(), why());
        prop_oneof![
            tunnels.prop_map(|(name, kind, from, to, why)| {
                Change::Tunnel(name, delta(kind, from, to, why))
            }),
            addresses.prop_map(|(kind, (key, from), (noprefixroute, metric), why)| {
                let to = Address {
                    noprefixroute,
                    metric,
                    ..from.clone()
                };
                Change::Address(key, delta(kind, from, to, why))
            }),
            routes.prop_map(|(kind, (key, from), (_, to), why)| {
                Change::Route(key, delta(kind, from, to, why))
            }),
        ]
    }

    prop_compose! {
        fn any_plan()(changes in vec(any_change(), 0..6), warnings in vec("[ -~ü]{0,30}", 0..2)) -> Plan {
            Plan { changes, warnings, ..Plan::default() }
        }
    }

    fn topology() -> Topology {
        let text =
            "name: t\ntunnels: {tun1: {local: 192.0.2.1, remote: 192.0.2.2, routes: [10.0.0.0/8]}}";
        Topology::parse("t.yaml", text).unwrap().topology
    }

    fn saved(plan: &Plan) -> Saved {
        let origin = Origin {
            made: "2026-01-02T03:04:05Z".into(),
            host: Some("gw".into()),
            ..Origin::default()
        };
        let basis = Basis::of(plan, &bare_with(&["eth0"]));
        let topology = topology();
        Saved::new(
            origin,
            Purpose::Apply,
            &terms("t"),
            Some(&topology),
            plan,
            basis,
        )
        .unwrap()
    }

    fn a_plan() -> Plan {
        let tunnel: Tunnel = typed(json!({
            "kind": "ipip", "local": "192.0.2.1", "remote": "192.0.2.2", "device": null, "mode": "ipip", "ttl": 64, "tos": 0,
            "pmtudisc": true, "fwmark": 0, "external": false, "encap": null, "mtu": 1480, "state": "up", "alias": "tunnelform:t"
        }))
        .unwrap();
        let other = Tunnel {
            mtu: 1400,
            ..tunnel.clone()
        };
        let name = "tun1".parse().unwrap();
        let update = Delta::Update {
            from: other,
            to: tunnel,
        };
        Plan {
            changes: vec![Change::Tunnel(name, update)],
            ..Plan::default()
        }
    }

    /// What a file holds after somebody who knows about the digest has been at it.
    fn forged(text: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut file: Value = serde_json::from_str(text).unwrap();
        change(&mut file);
        let file = without_digest(file).unwrap();
        let digest = digest(&file);
        with_digest(file, digest.into()).to_string()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]

        #[test]
        fn reads_as_written(plan in any_plan()) {
            let saved = saved(&plan);
            let text = saved.text().unwrap();
            prop_assert!(Saved::is_meant(text.as_bytes()));
            let (again, read) = Saved::read(text.as_bytes()).unwrap();
            prop_assert_eq!(&read.changes, &plan.changes);
            prop_assert_eq!(&read.warnings, &plan.warnings);
            prop_assert_eq!(&again.rests_on, &saved.rests_on);
            prop_assert_eq!(&again.origin, &saved.origin);
            prop_assert_eq!(&again.terms, &saved.terms);
            prop_assert_eq!(again.host().unwrap().unwrap().topology, topology());
        }

        /// Whatever byte becomes another: the file means what it meant, or it's refused.
        #[test]
        fn an_edit_is_seen(plan in any_plan(), place: Index, byte: u8) {
            let text = saved(&plan).text().unwrap();
            let mut edited = text.clone().into_bytes();
            *place.get_mut(&mut edited) = byte;
            if Saved::read(&edited).is_ok() {
                let value = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
                prop_assert_eq!(value(&edited), value(text.as_bytes()));
            }
        }

        #[test]
        fn garbage_is_an_error(bytes in vec(any::<u8>(), 0..100), plan in any_plan(), cut: Index, values in vec((any::<Index>(), any_json()), 1..3)) {
            prop_assert!(Saved::read(&bytes).is_err());
            let text = saved(&plan).text().unwrap();
            let cut = cut.index(text.trim_end().len());
            prop_assert!(Saved::read(&text.as_bytes()[..cut]).is_err());
            // With a digest that fits nothing panics either.
            let forged = forged(&text, |file| {
                for (place, value) in values {
                    let mut all = Vec::new();
                    pointers(file, String::new(), &mut all);
                    if let Some(spot) = file.pointer_mut(&all[place.index(all.len())]) {
                        *spot = value;
                    }
                }
            });
            if let Ok((saved, plan)) = Saved::read(forged.as_bytes()) {
                let _ = saved.host();
                let _ = plan.text(crate::plan::Style { color: false });
            }
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let values = [
            json!(null),
            json!(-1),
            json!(1e300),
            json!("x"),
            json!([]),
            json!({}),
            json!([[{}]]),
            json!("10.0.0.0/99"),
        ];
        proptest::sample::select(values.to_vec())
    }

    fn pointers(value: &Value, at: String, all: &mut Vec<String>) {
        if let Some(map) = value.as_object() {
            map.iter().for_each(|(key, value)| {
                pointers(
                    value,
                    format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")),
                    all,
                )
            });
        }
        if let Some(list) = value.as_array() {
            list.iter()
                .enumerate()
                .for_each(|(index, value)| pointers(value, format!("{at}/{index}"), all));
        }
        if !at.is_empty() {
            all.push(at);
        }
    }

    /// Every value, taken away or made another.
    #[test]
    fn any_other_value_is_refused() {
        let text = saved(&a_plan()).text().unwrap();
        let file: Value = serde_json::from_str(&text).unwrap();
        let mut all = Vec::new();
        pointers(&file, String::new(), &mut all);
        assert!(all.len() > 80, "{}", all.len());
        for place in all {
            let mut edited = file.clone();
            let spot = edited.pointer_mut(&place).unwrap();
            *spot = match &spot {
                Value::String(text) => json!(format!("{text}x")),
                Value::Bool(set) => json!(!*set),
                Value::Number(number) => json!(number.as_u64().unwrap() + 1),
                Value::Null => json!("x"),
                Value::Array(_) => json!([1]),
                Value::Object(_) => json!({"other": 1}),
            };
            assert!(
                Saved::read(edited.to_string().as_bytes()).is_err(),
                "{place}"
            );
        }
    }

    #[test]
    fn what_is_wrong_has_a_name() {
        let text = saved(&a_plan()).text().unwrap();
        let edited = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        };
        let forged =
            |at: &str, value: Value| forged(&text, |file| *file.pointer_mut(at).unwrap() = value);
        for (file, expected) in [
            (
                edited("\"ttl\": 64", "\"ttl\": 65"),
                "it was changed after it was made",
            ),
            (
                edited("plan\": 1", "plan\": 2"),
                "its tunnelform_saved_plan is 2, and this release knows 1",
            ),
            (
                edited(
                    &format!("version\": \"{VERSION}\""),
                    "version\": \"99.0.0\"",
                ),
                "tunnelform \"99.0.0\" made it",
            ),
            (edited("{", "{,"), "line 1 column 2"),
            (
                forged("/plan/changes/0/after/mtu", json!(9)),
                "doesn't follow from its changes",
            ),
            (
                forged("/plan/counts/update", json!(9)),
                "doesn't follow from its changes",
            ),
            (
                forged("/plan/changes/0/object", json!("bridge")),
                "\"bridge\" is no kind of object",
            ),
            (forged("/plan/changes/0/before", json!({})), "missing field"),
            (
                forged("/state_digest", json!("sha256:0")),
                "its state_digest isn't of its state",
            ),
            (
                forged("/origin/made", json!("\u{1b}[2J")),
                "holds control characters",
            ),
            (
                forged("/origin", json!({"made": "x", "mode": 1})),
                "unknown field `mode`",
            ),
            ("[]".into(), "its tunnelform_saved_plan is null"),
            (
                format!("{}1{}", "[".repeat(9000), "]".repeat(9000)),
                "recursion limit",
            ),
        ] {
            let error = Saved::read(file.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}: no {expected:?}");
        }
        for (at, value, expected) in [
            (
                "/topology",
                json!({"name": "other"}),
                "its terms aren't its topology's",
            ),
            (
                "/topology",
                json!({"name": "t", "nodes": {"a": {}}}),
                "its topology has nodes",
            ),
            ("/topology/tunnels/tun1/ttl", json!(0), "ttl"),
        ] {
            let mut file: Value = serde_json::from_str(&text).unwrap();
            file["topology"]["tunnels"]["tun1"]["ttl"] = json!(1);
            *file.pointer_mut(at).unwrap() = value;
            let file = without_digest(file).unwrap();
            let digest = digest(&file);
            let text = with_digest(file, digest.into()).to_string();
            let (saved, _) = Saved::read(text.as_bytes()).unwrap();
            let error = saved.host().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}: no {expected:?}");
        }
    }

    #[test]
    fn a_topology_is_told_apart() {
        for (text, meant) in [
            ("", false),
            ("name: t", false),
            ("{\"name\": \"t\"}", false),
            ("{name: tunnelform_saved_plan}", false),
            (
                "{\"name\": \"t\", \"labels\": {\"tunnelform_saved_plan\": 1}}",
                false,
            ),
            (" {\"name\": \"t\", \"tunnelform_saved_plan\": []}", true),
            ("{\"tunnelform_saved_plan\": 1, \"made", true),
        ] {
            assert_eq!(Saved::is_meant(text.as_bytes()), meant, "{text}");
        }
    }
}
