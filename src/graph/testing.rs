//! Topologies to draw.

use std::fmt::Write as _;

use crate::topology::Topology;

/// The topology of a source that stands below `name: t`.
pub(super) fn topology(source: &str) -> Topology {
    match Topology::parse("test.yaml", &format!("name: t\n{source}\n")) {
        Ok(parsed) => parsed.topology,
        Err(problems) => panic!("{problems}"),
    }
}

/// Nodes with a subnet each, `per_network` of them in an underlay network.
pub(super) fn nodes(count: usize, per_network: usize) -> String {
    let mut text = "nodes:\n".to_owned();
    for number in 0..count {
        let (network, host) = (number / per_network, number % per_network + 1);
        let _ = writeln!(
            text,
            "  node-{number}: {{underlay: 172.{}.{}.{host}/24, subnets: [10.{}.{}.0/24]}}",
            16 + network / 256,
            network % 256,
            number / 256,
            number % 256
        );
    }
    text
}

/// Nodes as above, in a mesh of the given kind.
pub(super) fn mesh(count: usize, per_network: usize, mesh: &str) -> Topology {
    topology(&format!(
        "{}meshes:\n  pods: {{{mesh}}}",
        nodes(count, per_network)
    ))
}

/// One of everything, and names that no format takes as they are.
pub(super) const HOSTILE: &str = r##"
tunnels:
  "a\"<&>'": {remote: 203.0.113.9}
nodes:
  one: {underlay: 192.0.2.1/24, subnets: [10.1.0.0/24], labels: {"<b>\"": "\\N & ]]> --> `x` #35; \e[31m"}}
  end: {underlay: 192.0.2.2/24, subnets: [10.2.0.0/24], tunnels: {"]-->|x": {remote: one}, "{;}\\": {local: 192.0.2.77}}}
  three: {underlay: 198.51.100.3, subnets: [10.3.0.0/24], tunnels: {"é\\n$": {local: 198.51.100.3, remote: 203.0.113.10}}}
  four: {underlay: {device: "<eth>"}}
meshes:
  pods: {interface: "m<\"&", members: [one, end, three], direct_routing: true, routes: false}
  link: {style: point-to-point, topology: {hub: [one]}, members: [one, end, three]}
"##;
