//! An observed state as a document: written on one host, read on another, where plans are made without the first.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::source::{self, Problem, Problems, Severity, SourceFile};
use crate::state::{
    Address, AddressKey, Device, InterfaceName, Observed, Route, RouteKey, State, Tunnel,
};

/// Version of the document's shape.
const FORMAT_VERSION: u32 = 1;

/// What a host's kernel holds, every default filled in.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "tunnelform state")]
struct Document {
    /// Version of this shape: 1.
    format_version: u32,
    /// Version of the tunnelform that wrote it.
    tunnelform_version: String,
    /// Whether addresses can carry a mark (`IFA_PROTO`, Linux 5.18).
    marks_addresses: bool,
    /// Network devices of every kind, by name.
    #[schemars(with = "BTreeMap<String, Device>")]
    devices: BTreeMap<InterfaceName, Device>,
    /// Alternative names of devices, with the device that each stands for.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    alternative_names: BTreeMap<InterfaceName, InterfaceName>,
    /// Tunnels of every owner, by name.
    #[schemars(with = "BTreeMap<String, Tunnel>")]
    tunnels: BTreeMap<InterfaceName, Tunnel>,
    /// Addresses of every device.
    addresses: Vec<AddressEntry>,
    /// Routes of every protocol and table, without the kernel's own for addresses.
    routes: Vec<RouteEntry>,
    /// Second and later routes of the same key.
    #[serde(default)]
    duplicate_routes: Vec<RouteEntry>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct AddressEntry {
    /// The device that carries it.
    #[schemars(with = "String")]
    device: InterfaceName,
    /// The address itself.
    address: IpAddr,
    /// Whether it stands behind another in the same network (`IFA_F_SECONDARY`).
    #[serde(default)]
    secondary: bool,
    #[serde(flatten)]
    value: Address,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct RouteEntry {
    /// Routing table.
    table: u32,
    /// Destination.
    #[schemars(with = "String")]
    to: IpNet,
    /// Type of service that it serves.
    tos: u8,
    /// Priority.
    metric: u32,
    #[serde(flatten)]
    value: Route,
}

/// Writes a state down. It should hold the routes of every protocol.
///
/// # Errors
/// None that a state could cause; of the writer's.
pub fn write(observed: &Observed) -> Result<String, serde_yaml::Error> {
    source::write(&Document::new(observed))
}

/// The same as JSON.
pub fn json(observed: &Observed) -> impl Serialize {
    Document::new(observed)
}

/// Reads a state, YAML or JSON. `file` is its name for messages.
///
/// # Errors
/// Every problem, at its place.
pub fn read(file: &str, bytes: &[u8]) -> Result<Observed, Problems> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let tree = source::parse(&text);
    let mut problems = tree.problems;
    let document = tree.root.and_then(|root| {
        let shape = source::Shape {
            entry_of: source::Path::clone,
        };
        let reading = source::read::<Document>(&root, &shape);
        problems.extend(reading.problems);
        let document = reading.document?;
        if document.format_version != FORMAT_VERSION {
            let message = format!(
                "format_version: expected {FORMAT_VERSION}, found {}",
                document.format_version
            );
            let place = source::Path::default().key("format_version");
            problems.push(
                Problem::error(root.locate(&place), message)
                    .help("capture the state with the same release: `tunnelform export --state`"),
            );
        }
        Some(document)
    });
    let files = vec![SourceFile {
        name: file.to_owned(),
        text: text.clone(),
    }];
    let problems = Problems::new(file, files, problems);
    match document {
        Some(document) if problems.count(Severity::Error) == 0 => Ok(document.observed()),
        _ => Err(problems),
    }
}

/// JSON Schema of the document.
pub fn schema() -> Schema {
    schemars::schema_for!(Document)
}

impl Document {
    fn new(observed: &Observed) -> Self {
        let Observed {
            state:
                State {
                    tunnels,
                    addresses,
                    routes,
                },
            duplicate_routes,
            secondaries,
            // No plan depends on it, only the way back.
            ipv4_order: _,
            devices,
            alternative_names,
            // What a topology asks for is found in the routes again.
            paths: _,
            marks_addresses,
            all_routes: _,
        } = observed;
        let addresses = addresses.iter().map(|(key, value)| AddressEntry {
            device: key.device,
            address: key.local,
            secondary: secondaries.contains(key),
            value: value.clone(),
        });
        let entry = |(key, value): (&RouteKey, &Route)| RouteEntry {
            table: key.table,
            to: key.to,
            tos: key.tos,
            metric: key.metric,
            value: value.clone(),
        };
        let duplicates = duplicate_routes.iter().map(|(key, route)| (key, route));
        Self {
            format_version: FORMAT_VERSION,
            tunnelform_version: env!("CARGO_PKG_VERSION").into(),
            marks_addresses: *marks_addresses,
            devices: devices.clone(),
            alternative_names: alternative_names.clone(),
            tunnels: tunnels.clone(),
            addresses: addresses.collect(),
            routes: routes.iter().map(entry).collect(),
            duplicate_routes: duplicates.map(entry).collect(),
        }
    }

    fn observed(self) -> Observed {
        let mut observed = Observed {
            devices: self.devices,
            alternative_names: self.alternative_names,
            marks_addresses: self.marks_addresses,
            all_routes: true,
            ..Observed::default()
        };
        observed.state.tunnels = self.tunnels;
        for entry in self.addresses {
            let AddressEntry {
                device,
                address,
                secondary,
                value,
            } = entry;
            let key = AddressKey::new(device, address, value.peer, value.prefix_len);
            if secondary {
                observed.secondaries.insert(key);
            }
            observed.state.addresses.insert(key, value);
        }
        observed.state.routes = self.routes.into_iter().map(RouteEntry::pair).collect();
        let duplicates = self.duplicate_routes.into_iter();
        observed.duplicate_routes = duplicates.map(RouteEntry::pair).collect();
        observed
    }
}

impl RouteEntry {
    fn pair(self) -> (RouteKey, Route) {
        let Self {
            table,
            to,
            tos,
            metric,
            value,
        } = self;
        let key = RouteKey {
            table,
            to: to.trunc(),
            tos,
            metric,
        };
        (key, value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::{json, read, write};
    use crate::kernel::roundtrip::{any_address, any_route, device, tunnel};
    use crate::state::{Device, InterfaceName, Observed, State};

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("no".to_owned()),
            Just("010".to_owned()),
            "[ -~\n]{0,20}"
        ]
    }

    /// Names that YAML has other ideas about.
    fn name() -> impl Strategy<Value = InterfaceName> {
        let names = [
            "no", "on", "010", "1e3", "null", "~", "true", "0x1f", "-", "<<", "a'b", "\"", "#",
            "ünï", "{}",
        ];
        prop::sample::select(names.to_vec()).prop_map(|name| name.parse().unwrap())
    }

    prop_compose! {
        fn any_device()(index: u32, kind in "[a-z]{0,4}", mtu: u32, up: bool, alias in text(), group: u32) -> Device {
            Device { index, kind: kind.into(), mtu, up, alias: alias.into(), group, counters: None }
        }
    }

    prop_compose! {
        fn any_observed()(
            devices in btree_map(name(), any_device(), 0..4),
            alternative_names in btree_map(name(), device(), 0..3),
            tunnels in btree_map(prop_oneof![device(), name()], tunnel(), 0..3),
            addresses in vec((any_address(), any::<bool>()), 0..4),
            routes in vec(any_route(), 0..4),
            duplicate_routes in vec(any_route(), 0..2),
            marks_addresses: bool,
        ) -> Observed {
            let secondaries = addresses.iter().filter(|(_, second)| *second);
            let secondaries = secondaries.map(|((key, _), _)| *key).collect();
            let state = State {
                tunnels,
                addresses: addresses.into_iter().map(|(address, _)| address).collect(),
                routes: routes.into_iter().collect(),
            };
            Observed {
                ipv4_order: Vec::new(),
                state,
                duplicate_routes,
                secondaries,
                devices,
                alternative_names,
                paths: Default::default(),
                marks_addresses,
                all_routes: true,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

        #[test]
        fn reads_as_written(observed in any_observed()) {
            let yaml = write(&observed).unwrap();
            let json = serde_json::to_string(&json(&observed)).unwrap();
            for text in [yaml, json] {
                match read("state", text.as_bytes()) {
                    Ok(again) => prop_assert_eq!(&again, &observed, "{}", text),
                    Err(problems) => return Err(TestCaseError::fail(format!("{problems}\n{text}"))),
                }
            }
        }

        #[test]
        fn garbage_is_an_error(
            observed in any_observed(),
            bytes in vec(any::<u8>(), 0..100),
            spoil in vec((any::<Index>(), any::<u8>()), 1..4),
            words in vec((any::<Index>(), prop::sample::select(vec!["-1", "999", "x", "null", "[]", "{}", "10.0.0.0/99", "::/129"])), 1..4),
        ) {
            let _ = read("state", &bytes);
            let yaml = write(&observed).unwrap();
            let mut spoilt = yaml.clone().into_bytes();
            for (place, byte) in spoil {
                *place.get_mut(&mut spoilt) = byte;
            }
            let _ = read("state", &spoilt);
            let mut lines: Vec<String> = yaml.lines().map(str::to_owned).collect();
            for (place, word) in words {
                let line = place.get_mut(&mut lines);
                if let Some((key, _)) = line.split_once(": ") {
                    *line = format!("{key}: {word}");
                }
            }
            let _ = read("state", lines.join("\n").as_bytes());
        }
    }
}
