//! What a mesh costs one of its nodes as it grows, without a kernel: `cargo bench --bench side_by_side -- sizes [NODES]`.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, io};

use crate::measure::Cost;
use crate::peers::{text, this_program, tunnelform};
use crate::report::time;

const SIZES: [u32; 5] = [100, 1_000, 10_000, 30_000, 100_000];

struct Style {
    name: &'static str,
    mesh: &'static str,
    /// Of the network that each node's underlay address is in.
    bits: u8,
}

const STYLES: [Style; 4] = [
    Style {
        name: "multipoint",
        mesh: "{}",
        bits: 32,
    },
    Style {
        name: "point-to-point",
        mesh: "{style: point-to-point}",
        bits: 32,
    },
    Style {
        name: "hub and spokes",
        mesh: "{topology: {hub: [n-000000]}}",
        bits: 32,
    },
    Style {
        name: "direct routing",
        mesh: "{direct_routing: true}",
        bits: 16,
    },
];

/// Prints a row for each style and each size up to `most`.
pub fn main(most: u32) -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("fleet.yaml");
    let head = "validate             render --node        plan of one node     changes";
    println!("{:<16}{:>9}{:>9}   {head}", "style", "nodes", "MB");
    for style in STYLES {
        for nodes in SIZES.into_iter().filter(|nodes| *nodes <= most) {
            fs::write(&file, fleet(&style, nodes))?;
            row(&style, nodes, &file)?;
        }
    }
    Ok(())
}

/// A subnet for each node.
fn fleet(style: &Style, nodes: u32) -> String {
    let bits = style.bits;
    let mut text = String::from("version: 1\nname: pods\nnodes:\n");
    for node in 0..nodes {
        // As many in a network as leave its last address free.
        let (network, host) = (node / 60_000, node % 60_000);
        let underlay = Ipv4Addr::new(172, 16 + network as u8, 0, 1).to_bits() + host;
        let underlay = Ipv4Addr::from_bits(underlay);
        let subnet = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + node * 64);
        let network = match bits {
            32 => String::new(),
            _ => format!("/{bits}, device: eth0"),
        };
        let _ = writeln!(
            text,
            "  n-{node:06}: {{underlay: {{address: {underlay}{network}}}, subnets: [{subnet}/26]}}"
        );
    }
    text + &format!("meshes: {{p: {}}}\n", style.mesh)
}

fn row(style: &Style, nodes: u32, file: &Path) -> io::Result<()> {
    let (file, node) = (text(file), format!("n-{:06}", nodes / 2));
    let plan = [
        "apply",
        "--dry-run",
        "--against",
        "empty",
        "--node",
        &node,
        &file,
    ];
    let costs = [
        cost(&["validate", &file])?,
        cost(&["render", &file, "--node", &node])?,
        cost(&plan)?,
    ];
    let figures = costs.map(|cost| {
        let mebibytes = cost.kilobytes as f64 / 1024.0;
        format!("{:>8} {:>6.1} MiB", time(cost.seconds), mebibytes)
    });
    println!(
        "{:<16}{nodes:>9}{:>9.1}   {}   {}",
        style.name,
        fs::metadata(&file)?.len() as f64 / 1e6,
        figures.join("   "),
        changes(&plan)?
    );
    Ok(())
}

/// Of a process of its own, the best of three.
fn cost(arguments: &[&str]) -> io::Result<Cost> {
    let mut best: Option<Cost> = None;
    for _ in 0..3 {
        let mut command = Command::new(this_program());
        let output = output(command.args(["measure", &tunnelform()]).args(arguments))?;
        let cost: Cost = serde_json::from_slice(&output)?;
        if best.is_none_or(|best| cost.seconds < best.seconds) {
            best = Some(cost);
        }
    }
    best.ok_or_else(|| io::Error::other("no run"))
}

/// How many objects are to be created.
fn changes(plan: &[&str]) -> io::Result<String> {
    let output = output(Command::new(tunnelform()).args(plan))?;
    let text = String::from_utf8_lossy(&output);
    let count = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("Plan: "));
    let count = count.and_then(|count| count.split(' ').next());
    Ok(count
        .ok_or_else(|| io::Error::other("a plan without a sum"))?
        .to_owned())
}

fn output(command: &mut Command) -> io::Result<Vec<u8>> {
    let output = command.stderr(Stdio::inherit()).output()?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(io::Error::other(format!("{command:?}: {}", output.status))),
    }
}
