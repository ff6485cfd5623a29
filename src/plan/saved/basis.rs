//! What of a host a plan rests on, and what has become of it since.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plan::text::{differences, show};
use crate::plan::{Action, Change, Conflict, Object, Plan};
use crate::state::{InterfaceName, Observed};

/// Facts that a plan's values follow from, or that it counts on, beside the objects that it changes. Null: not there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Basis {
    /// Devices that the changes name.
    #[schemars(with = "BTreeMap<String, Option<DeviceFact>>")]
    devices: BTreeMap<InterfaceName, Option<DeviceFact>>,
    /// The tunnels' outer source addresses, with the device that has each.
    #[schemars(with = "BTreeMap<String, Option<String>>")]
    locals: BTreeMap<Ipv4Addr, Option<InterfaceName>>,
    /// The kernel's ways to remotes and gateways.
    #[schemars(with = "BTreeMap<String, Option<PathFact>>")]
    paths: BTreeMap<IpAddr, Option<PathFact>>,
}

/// A device, as far as a plan counts on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DeviceFact {
    /// MTU in bytes.
    mtu: u32,
    /// Administratively up.
    up: bool,
}

/// A way, as far as a plan counts on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PathFact {
    /// Device that packets leave by.
    #[schemars(with = "String")]
    device: InterfaceName,
    /// MTU of the path in bytes.
    mtu: u32,
}

impl Basis {
    /// What a plan rests on.
    pub fn of(plan: &Plan, observed: &Observed) -> Self {
        let changed: BTreeSet<Object> = plan.changes.iter().map(Change::object).collect();
        let mut asked = Self::default();
        for change in &plan.changes {
            asked.ask_for(change, observed);
        }
        // One that changes itself is compared whole.
        asked
            .devices
            .retain(|name, _| !changed.contains(&Object::Tunnel(*name)));
        asked.again(observed)
    }

    /// Without the kernel's ways, where no kernel was asked. What follows from them is in the changes.
    pub fn without_ways(mut self) -> Self {
        self.paths.clear();
        self
    }

    fn ask_for(&mut self, change: &Change, observed: &Observed) {
        let devices: Vec<InterfaceName> = match change {
            Change::Tunnel(_, delta) => {
                let ends = delta.after().map(|tunnel| tunnel.endpoints());
                self.locals
                    .extend(ends.and_then(|ends| Some((ends.local?, None))));
                self.ask_way(ends.and_then(|ends| ends.remote).map(IpAddr::V4), observed);
                ends.and_then(|ends| ends.device).into_iter().collect()
            }
            Change::Address(key, _) => vec![key.device],
            Change::Route(_, delta) => {
                let route = delta.after().or(delta.before());
                let hops = route
                    .map(|route| route.nexthops.as_slice())
                    .unwrap_or_default();
                for hop in hops {
                    self.ask_way(hop.via, observed);
                }
                hops.iter().filter_map(|hop| hop.device).collect()
            }
        };
        self.devices
            .extend(devices.into_iter().map(|device| (device, None)));
    }

    fn ask_way(&mut self, address: Option<IpAddr>, observed: &Observed) {
        let known = address.filter(|address| observed.paths.contains_key(address));
        self.paths.extend(known.map(|address| (address, None)));
    }

    /// The same questions, and what a host answers.
    pub fn again(&self, observed: &Observed) -> Self {
        let device = |name: &InterfaceName| {
            observed.devices.get(name).map(|device| DeviceFact {
                mtu: device.mtu,
                up: device.up,
            })
        };
        let holder = |local: &Ipv4Addr| {
            let mut keys = observed.state.addresses.keys();
            let key = keys.find(|key| key.local == IpAddr::V4(*local));
            key.map(|key| key.device)
        };
        let path = |to: &IpAddr| {
            observed.paths.get(to).map(|path| PathFact {
                device: path.device,
                mtu: path.mtu,
            })
        };
        Self {
            devices: self.devices.keys().map(|key| (*key, device(key))).collect(),
            locals: self.locals.keys().map(|key| (*key, holder(key))).collect(),
            paths: self.paths.keys().map(|key| (*key, path(key))).collect(),
        }
    }

    /// What is otherwise now, a sentence each.
    fn changed(&self, now: &Self) -> Vec<String> {
        let devices = changed("device", &self.devices, &now.devices, |device| {
            let state = if device.up { "up" } else { "down" };
            format!("{state}, mtu {}", device.mtu)
        });
        let locals = changed("local", &self.locals, &now.locals, |device| {
            format!("on {device}")
        });
        let paths = changed("way to", &self.paths, &now.paths, |path| {
            format!("dev {}, mtu {}", path.device, path.mtu)
        });
        [devices, locals, paths].concat()
    }
}

fn changed<K: std::fmt::Display + Ord, V: PartialEq>(
    kind: &str,
    was: &BTreeMap<K, Option<V>>,
    now: &BTreeMap<K, Option<V>>,
    show: impl Fn(&V) -> String,
) -> Vec<String> {
    let words = |value: Option<&V>| value.map_or("not there".to_owned(), &show);
    was.iter()
        .map(|(key, value)| (key, value.as_ref(), now.get(key).and_then(Option::as_ref)))
        .filter(|(_, was, now)| was != now)
        .map(|(key, was, now)| format!("{kind} {key}: was {}, is {}", words(was), words(now)))
        .collect()
}

/// How a saved plan stands against a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The host is as it was, and the plan made anew is the same.
    Fits,
    /// The host is already as the topology says.
    Reached,
    /// It isn't: what differs, a sentence each.
    Stale(Vec<String>),
}

/// Compares what was planned and what it rests on with the plan that a host would get now.
pub fn judge(planned: &Plan, rests_on: &Basis, now: &Plan, observed: &Observed) -> Verdict {
    if now.is_empty() && now.conflicts.is_empty() {
        return Verdict::Reached;
    }
    let mut found: Vec<String> = now.conflicts.iter().map(in_the_way).collect();
    let (was, is) = (by_object(planned), by_object(now));
    let objects: BTreeSet<&Object> = was.keys().chain(is.keys()).collect();
    let in_the_way: BTreeSet<&Object> = now.conflicts.iter().map(|conflict| &conflict.on).collect();
    for object in objects.difference(&in_the_way) {
        let (was, is) = (was.get(object), is.get(object));
        let count = |list: Option<&Vec<&Change>>| list.map_or(0, Vec::len);
        for index in 0..count(was).max(count(is)) {
            let (was, is) = (
                was.and_then(|l| l.get(index)),
                is.and_then(|l| l.get(index)),
            );
            found.extend(difference(was.copied(), is.copied()));
        }
    }
    found.extend(rests_on.changed(&rests_on.again(observed)));
    if found.is_empty() {
        Verdict::Fits
    } else {
        Verdict::Stale(found)
    }
}

/// A key has several changes where the kernel has several routes of it.
fn by_object(plan: &Plan) -> BTreeMap<Object, Vec<&Change>> {
    let mut map: BTreeMap<Object, Vec<&Change>> = BTreeMap::new();
    for change in &plan.changes {
        map.entry(change.object()).or_default().push(change);
    }
    map
}

fn in_the_way(conflict: &Conflict) -> String {
    format!(
        "{}: it's in the way now: {}",
        conflict.object, conflict.found
    )
}

fn difference(was: Option<&Change>, is: Option<&Change>) -> Option<String> {
    match (was, is) {
        (Some(was), Some(is)) if was == is => None,
        (Some(was), Some(is)) => Some(format!("{was}: {}", otherwise(was, is))),
        (Some(was), None) => Some(format!(
            "{was}: was to be {}, and nothing is to be done now",
            done(was.action())
        )),
        (None, Some(is)) => {
            let attributes = is.attributes().into_iter();
            let attributes = attributes
                .map(|(name, old, new)| format!(" ({name}: {} -> {})", show(&old), show(&new)));
            Some(format!(
                "{is}: nothing was to be done, and now it's to be {}{}",
                done(is.action()),
                attributes.collect::<String>()
            ))
        }
        (None, None) => None,
    }
}

/// What one change has that the other hasn't.
fn otherwise(was: &Change, is: &Change) -> String {
    let ((before_was, after_was), (before_is, after_is)) = (was.values(), is.values());
    let mut parts = Vec::new();
    match (before_was.is_null(), before_is.is_null()) {
        (true, false) => parts.push("wasn't there, and is now".to_owned()),
        (false, true) => parts.push("was there, and is gone".to_owned()),
        (true, true) | (false, false) => {
            parts.extend(attributes(&before_was, &before_is, "was", "is"))
        }
    }
    if was.action() != is.action() && before_was.is_null() == before_is.is_null() {
        parts.push(format!(
            "was to be {}, and is to be {} now",
            done(was.action()),
            done(is.action())
        ));
    }
    parts.extend(attributes(
        &after_was,
        &after_is,
        "was to become",
        "would become",
    ));
    if parts.is_empty() {
        let why = |change: &Change| change.why().unwrap_or("nothing").to_owned();
        parts.push(format!("{} then, {} now", why(was), why(is)));
    }
    parts.join("; ")
}

fn attributes(was: &Value, is: &Value, then: &str, now: &str) -> Vec<String> {
    if was.is_null() || is.is_null() {
        return Vec::new();
    }
    let words = differences(was, is).into_iter();
    words
        .map(|(name, old, new)| format!("{name} {then} {}, {now} {}", show(&old), show(&new)))
        .collect()
}

fn done(action: Action) -> &'static str {
    match action {
        Action::Create => "created",
        Action::Update => "changed",
        Action::Replace => "replaced",
        Action::Delete => "deleted",
        Action::Restore => "put back",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::plan;
    use crate::plan::testing::{bare_with, terms, wanted};
    use crate::state::{Path, State};

    const TOPOLOGY: &str = "\
name: t
tunnels: {tun1: {local: 192.0.2.1, remote: 192.0.2.2, ttl: 64, addresses: [10.1.0.1/24], routes: [10.2.0.0/16]}}
routes:
  - {to: 10.3.0.0/16, via: 192.0.2.9, device: eth0}
";

    fn host_state(topology: &str) -> State {
        wanted(topology, &Observed::bare()).state
    }

    fn host() -> Observed {
        let mut host = bare_with(&["eth0"]);
        host.state = host_state("name: o\naddresses: {eth0: [192.0.2.1/24]}");
        for address in host.state.addresses.values_mut() {
            address.protocol = 0;
        }
        host.paths.insert(
            "192.0.2.2".parse().unwrap(),
            Path {
                device: "eth0".parse().unwrap(),
                mtu: 1500,
                prefix_len: 24,
                table: 254,
            },
        );
        host
    }

    fn planned(wanted: &State, host: &Observed) -> Plan {
        plan(&wanted.clone().into(), Some(wanted), host, &terms("t"))
    }

    type Event = Box<dyn Fn(&mut Observed)>;

    /// With the tunnel of the topology, in this state.
    fn with_tunnel(wanted: &State, change: impl FnOnce(&mut crate::state::Tunnel)) -> Observed {
        let mut host = host();
        let name = "tun1".parse().unwrap();
        let mut tunnel = wanted.tunnels[&name].clone();
        change(&mut tunnel);
        host.add_device(name, 1480);
        host.devices.get_mut(&name).unwrap().alias = tunnel.alias.clone();
        host.state.tunnels.insert(name, tunnel);
        host
    }

    #[test]
    fn a_change_is_named() {
        let wanted = host_state(TOPOLOGY);
        let eth0: InterfaceName = "eth0".parse().unwrap();
        let tun1: InterfaceName = "tun1".parse().unwrap();
        let as_it_was = with_tunnel(&wanted, |tunnel| tunnel.mtu = 1400);
        let cases: [(&str, Event, &[&str]); 9] = [
            ("nothing", Box::new(|_| {}), &[]),
            (
                "what isn't asked",
                Box::new(|host| host.add_device("eth7".parse().unwrap(), 1500)),
                &[],
            ),
            (
                "another value",
                Box::new(move |host| host.state.tunnels.get_mut(&tun1).unwrap().mtu = 1300),
                &["tunnel tun1: mtu was 1400, is 1300"],
            ),
            (
                "gone",
                Box::new(move |host| {
                    host.state.tunnels.remove(&tun1);
                    host.devices.remove(&tun1);
                }),
                &["tunnel tun1: was there, and is gone"],
            ),
            (
                "not for us to change",
                Box::new(move |host| host.state.tunnels.get_mut(&tun1).unwrap().alias = "x".into()),
                &["tunnel tun1: it's in the way now: it exists"],
            ),
            (
                "a device",
                Box::new(move |host| host.devices.get_mut(&eth0).unwrap().up = false),
                &["device eth0: was up, mtu 1500, is down, mtu 1500"],
            ),
            (
                "a local address",
                Box::new(|host| host.state.addresses.clear()),
                &["local 192.0.2.1: was on eth0, is not there"],
            ),
            (
                "a way",
                Box::new(|host| host.paths.clear()),
                &["way to 192.0.2.2: was dev eth0, mtu 1500, is not there"],
            ),
            (
                "done by somebody",
                Box::new(|host| {
                    let wanted = host_state(TOPOLOGY);
                    let (key, route) = wanted.routes.iter().next().unwrap();
                    host.state.routes.insert(*key, route.clone());
                }),
                &["route 10.2.0.0/16: was to be created, and nothing is to be done now"],
            ),
        ];
        let was = planned(&wanted, &as_it_was);
        let basis = Basis::of(&was, &as_it_was);
        for (what, change, expected) in cases {
            let mut host = as_it_was.clone();
            change(&mut host);
            let now = planned(&wanted, &host);
            let found = match judge(&was, &basis, &now, &host) {
                Verdict::Fits => Vec::new(),
                Verdict::Reached => panic!("{what}"),
                Verdict::Stale(found) => found,
            };
            assert_eq!(found.len(), expected.len(), "{what}: {found:#?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.starts_with(expected), "{what}: {found}");
            }
        }
    }

    #[test]
    fn what_is_reached_needs_nothing() {
        let wanted = host_state(TOPOLOGY);
        let was = planned(&wanted, &host());
        let mut there = with_tunnel(&wanted, |_| {});
        there.state.addresses.extend(wanted.addresses.clone());
        there.state.routes.extend(wanted.routes.clone());
        let now = planned(&wanted, &there);
        assert_eq!(
            judge(&was, &Basis::of(&was, &host()), &now, &there),
            Verdict::Reached
        );
    }

    /// Another change of an object, and one that wasn't planned.
    #[test]
    fn other_changes_are_told() {
        let wanted = host_state(TOPOLOGY);
        let drifted = with_tunnel(&wanted, |tunnel| tunnel.mtu = 1400);
        let was = planned(&wanted, &drifted);
        let other = host_state(
            &TOPOLOGY
                .replace("ttl: 64", "ttl: 65")
                .replace("192.0.2.9", "192.0.2.8"),
        );
        let more = host_state(&format!(
            "{TOPOLOGY}  - {{to: 10.4.0.0/16, type: blackhole}}\n"
        ));
        for (wanted, expected) in [
            (&other, "tunnel tun1: ttl was to become 64, would become 65"),
            (
                &more,
                "route 10.4.0.0/16: nothing was to be done, and now it's to be created",
            ),
        ] {
            let now = planned(wanted, &drifted);
            let Verdict::Stale(found) = judge(&was, &Basis::default(), &now, &drifted) else {
                panic!("{expected}");
            };
            assert!(found.iter().any(|found| found == expected), "{found:#?}");
        }
    }
}
