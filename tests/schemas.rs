//! The committed JSON Schemas: current, complete, and of one opinion with the program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use jsonschema::Validator;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn tunnelform(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tunnelform"));
    command.current_dir(root()).args(arguments);
    command
}

fn printed(arguments: &[&str]) -> String {
    let output = tunnelform(arguments).output().expect("tunnelform runs");
    String::from_utf8(output.stdout).expect("tunnelform prints text")
}

fn schema(of: &str) -> Value {
    serde_json::from_str(&printed(&["schema", of])).expect("a schema is JSON")
}

fn validator(of: &str) -> Validator {
    jsonschema::validator_for(&schema(of)).expect("a schema is a schema")
}

/// The topologies in a directory.
fn topologies(directory: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(directory)).expect("there are examples");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an example can be read").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn is_current(of: &str, file: &str) {
    let path = root().join("schemas").join(file);
    let printed = printed(&["schema", of]);
    if std::env::var_os("UPDATE_SCHEMAS").is_some_and(|value| value == "1") {
        std::fs::write(&path, &printed).expect("the schema can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == printed,
        "schemas/{file} is not what `tunnelform schema {of}` prints: run `UPDATE_SCHEMAS=1 cargo test --test schemas` \
         and commit it"
    );
}

#[test]
fn topology_schema_is_current() {
    is_current("topology", "topology.schema.json");
}

#[test]
fn fleet_plan_schema_is_current() {
    is_current("fleet-plan", "fleet-plan.schema.json");
}

#[test]
fn state_schema_is_current() {
    is_current("state", "state.schema.json");
}

#[test]
fn probe_schema_is_current() {
    is_current("probe", "probe.schema.json");
}

#[test]
fn watch_status_schema_is_current() {
    is_current("watch-status", "watch-status.schema.json");
}

#[test]
fn plan_schema_is_current() {
    is_current("plan", "plan.schema.json");
}

#[test]
fn saved_plan_schema_is_current() {
    is_current("saved-plan", "saved-plan.schema.json");
}

/// The properties without a description, by their path.
fn undescribed(schema: &Value, path: &str, found: &mut Vec<String>) {
    if let Some(Value::Object(properties)) = schema.get("properties") {
        let bare = properties
            .iter()
            // The tag of an enum is a constant, which says everything itself.
            .filter(|(_, property)| property.get("const").is_none())
            .filter(|(_, property)| property["description"].as_str().is_none_or(str::is_empty));
        found.extend(bare.map(|(key, _)| format!("{path}.{key}")));
    }
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                undescribed(value, &format!("{path}.{key}"), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                undescribed(item, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn every_key_has_a_description() {
    for of in [
        "topology",
        "plan",
        "fleet-plan",
        "saved-plan",
        "state",
        "probe",
        "watch-status",
    ] {
        let mut found = Vec::new();
        undescribed(&schema(of), of, &mut found);
        assert!(found.is_empty(), "no doc comment: {found:#?}");
    }
}

#[test]
fn examples_fit_the_schema_that_they_name() {
    let validator = validator("topology");
    for file in topologies("examples")
        .into_iter()
        .chain(topologies("examples/directory"))
    {
        let source = std::fs::read_to_string(&file).expect("an example can be read");
        let named = source
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("# yaml-language-server: $schema="))
            .and_then(|schema| file.parent()?.join(schema).canonicalize().ok());
        let schema = root().join("schemas/topology.schema.json");
        assert_eq!(named, schema.canonicalize().ok(), "{}", file.display());
        let value: Value = serde_yaml::from_str(&source).expect("an example is YAML");
        fits(&validator, &value, &file.display().to_string());
    }
}

#[test]
fn schema_and_program_agree() {
    let validator = validator("topology");
    let tunnel =
        |option: &str| format!("name: t\ntunnels: {{tun1: {{local: 10.0.0.1, {option}}}}}");
    let route = |keys: &str| format!("name: t\nroutes: [{{device: eth0, {keys}}}]");
    let cases: Vec<(String, bool)> = [
        ("version: 1", false),
        ("name: t", true),
        ("name: t\nversion: 1\nroute_protocol: 5", true),
        ("name: t\nversion: 2", false),
        ("name: 7", false),
        ("name: a b", false),
        ("name: t\nroute_protocol: 4", false),
        ("name: t\ntunels: {}", false),
        ("name: t\ntunnels:", false),
        ("name: t\ntunnels: []", false),
        ("name: t\ntunnels: {a/b: {local: 10.0.0.1}}", false),
        (
            "name: t\ntunnels: {sixteen-bytes-xx: {local: 10.0.0.1}}",
            false,
        ),
        ("name: t\ndefaults: {routes: [10.0.0.0/8]}", false),
        (
            "name: t\naddresses: {lo: [10.0.0.1, {address: 10.0.0.2/32, scope: host}]}",
            true,
        ),
        ("name: t\ndefaults: {probe: {interval: 5s}}", true),
        ("name: t\ndefaults: {probe: {target: 10.0.0.2}}", false),
        ("name: t\naddresses: {lo: [localhost]}", false),
        ("name: t\naddresses: {lo: [{peer: 10.0.0.1}]}", false),
        (
            "name: t\naddresses: {lo: [{address: 10.0.0.2/32, scope: far}]}",
            false,
        ),
        ("name: t\nroutes: [{device: eth0}]", false),
        (
            "name: t\nroutes: [{to: 10.0.0.0/8, nexthops: [{device: eth0, weight: 257}]}]",
            false,
        ),
        (
            "name: t\nroutes: [{to: 10.0.0.0/8, nexthops: [{device: eth0, weight: 256}]}]",
            true,
        ),
    ]
    .into_iter()
    .map(|(source, good)| (source.to_owned(), good))
    .chain(
        [
            ("kind: gre", false),
            ("remote: \"2001:db8::1\"", false),
            ("remote: any", true),
            ("ttl: 0", false),
            ("ttl: 255", true),
            ("ttl: inherit", true),
            ("ttl: ~", false),
            ("ttl: \"64\"", false),
            ("tos: 256", false),
            ("pmtudisc: 1", false),
            ("fwmark: 4294967296", false),
            ("fwmark: 4294967295", true),
            ("mtu: 67", false),
            ("mtu: auto", true),
            ("state: on", false),
            ("colour: red", false),
            ("probe: {}", true),
            (
                "probe: {interval: 1m 30s, timeout: 300ms, count: 5, target: 10.10.100.2}",
                true,
            ),
            ("probe: {interval: 10}", false),
            ("probe: {timeout: soon}", false),
            ("probe: {count: 0}", false),
            ("probe: {target: b}", false),
            ("probe: 10s", false),
        ]
        .map(|(option, good)| (tunnel(option), good)),
    )
    .chain(
        [
            ("to: default", true),
            ("to: 10.0.0.0/8, table: main", true),
            ("to: everywhere", false),
            ("to: 10.0.0.0/8, table: 255", false),
            ("to: 10.0.0.0/8, table: local", false),
            ("to: 10.0.0.0/8, metric: -1", false),
            ("to: 10.0.0.0/8, metric: 4294967296", false),
            ("to: 10.0.0.0/8, tos: 3", false),
            ("to: 10.0.0.0/8, type: nat", false),
            ("to: 10.0.0.0/8, mtu: 65521", false),
            ("to: 10.0.0.0/8, advmss: 0", false),
            ("to: 10.0.0.0/8, onlink: \"yes\"", false),
        ]
        .map(|(keys, good)| (route(keys), good)),
    )
    .collect();
    for (source, good) in cases {
        let value: Value = serde_yaml::from_str(&source).expect("a case is YAML");
        assert_eq!(
            validator.is_valid(&value),
            good,
            "the schema says of\n{source}"
        );
        let run = tunnelform(&["validate", "-"])
            .write_stdin(source.clone())
            .output();
        let accepted = run.expect("tunnelform runs").status.success();
        assert_eq!(accepted, good, "the program says of\n{source}");
    }
}

#[track_caller]
fn fits(validator: &Validator, value: &Value, name: &str) {
    let errors: Vec<String> = validator
        .iter_errors(value)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{name}: {errors:#?}");
}

fn document(arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(arguments)).expect("a plan is JSON")
}

/// A plan that creates everything; answers how many objects that is.
#[track_caller]
fn created(plan: &Value) -> usize {
    assert_eq!(plan["format_version"], 1);
    assert_eq!(plan["dry_run"], true);
    let changes = plan["changes"].as_array().expect("changes are a list");
    let created = changes.iter().all(|change| change["action"] == "create");
    assert!(created, "{plan:#}");
    assert_eq!(plan["counts"]["create"], changes.len());
    changes.len()
}

fn is_fleet(file: &Path) -> bool {
    let source = std::fs::read_to_string(file).expect("an example can be read");
    let value: Value = serde_yaml::from_str(&source).expect("an example is YAML");
    value.get("nodes").is_some()
}

fn name(file: &Path) -> String {
    let name = file.file_name().and_then(|name| name.to_str());
    name.expect("an example has a name").to_owned()
}

/// How many changes the dry run of each example for one host has where nothing of it exists yet.
#[test]
fn plans_of_the_examples_fit_their_schema() {
    let validator = validator("plan");
    let expected = [
        ("blackhole-and-second-table.yaml", 6),
        ("blocklist.yaml", 4),
        ("directory", 9),
        ("ecmp.yaml", 6),
        ("point-to-point-peer.yaml", 3),
        ("point-to-point.yaml", 3),
        ("router.yaml", 10),
        ("several-tunnels.yaml", 10),
    ];
    let mut files = topologies("examples");
    files.retain(|file| !is_fleet(file));
    files.push("examples/directory".into());
    let planned: BTreeMap<String, usize> = files
        .iter()
        .map(|file| {
            let name = name(file);
            let path = format!("examples/{name}");
            let plan = document(&["apply", "--dry-run", "--output", "json", &path]);
            fits(&validator, &plan, &name);
            (name, created(&plan))
        })
        .collect();
    assert_eq!(planned, expected.map(|(n, c)| (n.to_owned(), c)).into());
}

/// A plan on file, of a host that has something already.
#[test]
fn a_saved_plan_fits_its_schema() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let file = directory.path().join("plan.json").display().to_string();
    let example = "examples/router.yaml";
    for against in [&["--against", "empty"][..], &[]] {
        let save = [&["apply", "--dry-run", "--out", &file, example], against].concat();
        printed(&save);
        let text = std::fs::read_to_string(&file).expect("a plan was saved");
        let saved: Value = serde_json::from_str(&text).expect("a plan is JSON");
        fits(&validator("saved-plan"), &saved, &file);
        fits(&validator("topology"), &saved["topology"], &file);
    }
}

/// How many changes each node of each example has that is for a fleet.
#[test]
fn fleet_plans_of_the_examples_fit_their_schema() {
    let validator = validator("fleet-plan");
    let expected: [(&str, &[usize]); 4] = [
        ("direct-routing.yaml", &[6, 6, 6, 6]),
        ("hub-and-spokes.yaml", &[9, 12, 9, 9]),
        ("pod-mesh.yaml", &[7, 7, 7, 7, 7]),
        ("two-sites.yaml", &[3, 3]),
    ];
    let mut files = topologies("examples");
    files.retain(|file| is_fleet(file));
    let planned: BTreeMap<String, Vec<usize>> = files
        .iter()
        .map(|file| {
            let name = name(file);
            let path = format!("examples/{name}");
            let plans = document(&[
                "apply",
                "--dry-run",
                "--against",
                "empty",
                "--all-nodes",
                "--output",
                "json",
                &path,
            ]);
            fits(&validator, &plans, &name);
            let nodes = plans["nodes"].as_array().expect("nodes are a list");
            for node in nodes {
                assert_eq!(node["plan"]["warnings"], Value::Array(vec![]));
            }
            let counts: Vec<usize> = nodes.iter().map(|node| created(&node["plan"])).collect();
            assert_eq!(plans["counts"]["create"], counts.iter().sum::<usize>());
            (name, counts)
        })
        .collect();
    let expected = expected.map(|(name, counts)| (name.to_owned(), counts.to_vec()));
    assert_eq!(planned, expected.into());
}

/// Whom the example sends to without the tunnel: the neighbours in the same underlay network, and nobody else.
#[test]
fn direct_routes_of_the_example_lead_to_neighbours() {
    let plans = document(&[
        "apply",
        "--dry-run",
        "--against",
        "empty",
        "--all-nodes",
        "--output",
        "json",
        "examples/direct-routing.yaml",
    ]);
    let nodes = plans["nodes"].as_array().expect("nodes are a list");
    let direct: Vec<(&Value, Vec<&Value>)> = nodes
        .iter()
        .map(|node| {
            let changes = node["plan"]["changes"].as_array();
            let direct = changes
                .expect("changes are a list")
                .iter()
                .filter(|change| {
                    change["object"] == "route"
                        && change["after"].to_string().contains("\"device\":\"eth0\"")
                });
            (&node["node"], direct.map(|c| &c["key"]).collect())
        })
        .collect();
    let expected = [
        ("node-1", "10.244.2.0/24"),
        ("node-2", "10.244.1.0/24"),
        ("node-3", "10.244.4.0/24"),
        ("node-4", "10.244.3.0/24"),
    ];
    assert_eq!(direct.len(), expected.len());
    for ((node, keys), (expected_node, expected_key)) in direct.iter().zip(expected) {
        assert_eq!(*node, expected_node);
        assert_eq!(keys.len(), 1, "{keys:?}");
        assert_eq!(*keys[0], expected_key);
    }
}
