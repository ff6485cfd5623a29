//! A fleet of five nodes in two underlay networks with a router between them, and a pod behind each node.

use std::collections::{BTreeMap, BTreeSet};

use crate::seed::{captured, received};
use crate::traffic::Flood;
use crate::world::{Host, Plan, Run, TUNNELFORM, World, assert_same, run, trials};

trials![
    every_mesh_reaches_every_pod,
    several_hubs,
    unused_addresses_go_nowhere,
    own_subnets_have_a_last_resort,
    an_underlay_is_looked_up,
    a_multipoint_fleet_changes,
    a_point_to_point_fleet_changes,
    a_node_finds_itself
];

pub const NODES: usize = 5;

/// The number of a node's underlay network: 1 and 2 are in the first, the others in the second.
fn network(node: usize) -> usize {
    if node <= 2 { 10 } else { 20 }
}

/// A node's underlay address.
pub fn underlay(node: usize) -> [u8; 4] {
    [192, 168, network(node) as u8, node as u8 + 1]
}

/// The address of the pod behind a node.
fn pod(node: usize) -> [u8; 4] {
    [10, 244, node as u8, 10]
}

pub fn text(address: [u8; 4]) -> String {
    std::net::Ipv4Addr::from(address).to_string()
}

/// What the underlay has, before any tunnel.
pub struct Site {
    router: Host,
    /// By number, from 1.
    pub nodes: BTreeMap<usize, Host>,
    pods: BTreeMap<usize, Host>,
    _world: World,
}

impl Site {
    pub fn new() -> Self {
        let world = World::new();
        let router = world.host("router");
        router.ip(
            "link add br10 up type bridge\naddr add 192.168.10.1/24 dev br10
             link add br20 up type bridge\naddr add 192.168.20.1/24 dev br20",
        );
        router.sysctl("ipv4/ip_forward", "1");
        let (mut nodes, mut pods) = (BTreeMap::new(), BTreeMap::new());
        for number in 1..=NODES {
            let node = world.host(&format!("n{number}"));
            let (port, bridge) = (format!("port{number}"), format!("br{}", network(number)));
            node.ip(&format!(
                "link add eth0 up type veth peer name {port} netns {}
                 addr add {}/24 dev eth0
                 route add default via 192.168.{}.1",
                router.netns,
                text(underlay(number)),
                network(number)
            ));
            router.ip(&format!("link set {port} master {bridge} up"));
            node.sysctl("ipv4/ip_forward", "1");
            let inside = world.host(&format!("p{number}"));
            let gateway = format!("10.244.{number}.1");
            world.cable(
                (&node, "cni0", &format!("{gateway}/24")),
                (&inside, "eth0", &format!("{}/24", text(pod(number)))),
            );
            inside.ip(&format!("route add default via {gateway}"));
            nodes.insert(number, node);
            pods.insert(number, inside);
        }
        Self {
            router,
            nodes,
            pods,
            _world: world,
        }
    }

    /// Every node takes its part. The plans, by node.
    #[track_caller]
    pub fn apply(&self, fleet: &str) -> BTreeMap<usize, Plan> {
        let plans = self.nodes.iter();
        plans
            .map(|(number, node)| (*number, node.apply(fleet)))
            .collect()
    }

    #[track_caller]
    fn settled(&self, fleet: &str) {
        for node in self.nodes.values() {
            node.settled(fleet);
        }
    }

    /// Each pod sends an echo to each other. The pairs without an answer.
    fn unreachable(&self) -> Vec<(usize, usize)> {
        let mut lost = Vec::new();
        for (from, inside) in &self.pods {
            let others: Vec<usize> = self.pods.keys().copied().filter(|to| to != from).collect();
            // All at once: a lost echo takes a second.
            let pings = others.iter().map(|to| {
                format!(
                    "ping -n -q -c 1 -W 3 {} >/dev/null && echo {to} &\n",
                    text(pod(*to))
                )
            });
            let script = pings.collect::<String>() + "wait";
            let answered = inside.exec(&["sh", "-c", &script]).stdout;
            let answered: BTreeSet<&str> = answered.lines().collect();
            let silent = others
                .into_iter()
                .filter(|to| !answered.contains(to.to_string().as_str()));
            lost.extend(silent.map(|to| (*from, to)));
        }
        lost
    }
}

/// The fleet's file: its nodes, and a mesh.
pub fn fleet(mesh: &str) -> String {
    let lines = (1..=NODES).map(|number| node_line(number, underlay(number), number));
    write_fleet(lines, mesh)
}

fn node_line(number: usize, underlay: [u8; 4], subnet: usize) -> String {
    format!(
        "  node-{number}: {{underlay: {}, subnets: [10.244.{subnet}.0/24]}}\n",
        text(underlay)
    )
}

fn write_fleet(nodes: impl Iterator<Item = String>, mesh: &str) -> String {
    let nodes: String = nodes.collect();
    format!("version: 1\nname: pods\nnodes:\n{nodes}meshes:\n  pods: {{{mesh}}}\n")
}

/// Who has a tunnel to whom.
#[derive(Clone, Copy, PartialEq)]
enum Links {
    Full,
    /// Node 1 is the hub.
    Hub,
    /// 1-2-3-4-5-1.
    Ring,
}

impl Links {
    fn words(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Hub => "{hub: [node-1]}",
            Self::Ring => {
                "{edges: [[node-1, node-2], [node-2, node-3], [node-3, node-4], [node-4, node-5], [node-5, node-1]]}"
            }
        }
    }

    /// The nodes that a packet comes through, both ends among them.
    fn path(self, from: usize, to: usize) -> Vec<usize> {
        match self {
            Self::Full => vec![from, to],
            Self::Hub if from == 1 || to == 1 => vec![from, to],
            Self::Hub => vec![from, 1, to],
            Self::Ring => {
                let around = |step: usize| {
                    let next = move |node: &usize| Some((node - 1 + step) % NODES + 1);
                    let way = std::iter::successors(Some(from), next);
                    let mut way: Vec<usize> = way.take_while(|node| *node != to).collect();
                    way.push(to);
                    way
                };
                let (one, other) = (around(1), around(NODES - 1));
                if one.len() < other.len() { one } else { other }
            }
        }
    }
}

type Packets = BTreeSet<(u8, [u8; 8])>;

fn packet(protocol: u8, from: [u8; 4], to: [u8; 4]) -> (u8, [u8; 8]) {
    let mut ends = [0; 8];
    ends[..4].copy_from_slice(&from);
    ends[4..].copy_from_slice(&to);
    (protocol, ends)
}

/// What the underlay should carry when every pod has sent to every other: IPIP from node to node, and the bare packet
/// where both are in the same network and the mesh routes directly.
fn expected(links: Links, direct: bool) -> Packets {
    const IPIP: u8 = 4;
    const ICMP: u8 = 1;
    let pairs = (1..=NODES).flat_map(|from| (1..=NODES).map(move |to| (from, to)));
    let mut packets = Packets::new();
    for (from, to) in pairs.filter(|(from, to)| from != to) {
        for leg in links.path(from, to).windows(2) {
            packets.insert(if direct && network(leg[0]) == network(leg[1]) {
                packet(ICMP, pod(from), pod(to))
            } else {
                packet(IPIP, underlay(leg[0]), underlay(leg[1]))
            });
        }
    }
    packets
}

/// Every style with every way of linking, with direct routing and without: every pod reaches every other, and the
/// underlay sees protocol 4 exactly where it should. One mesh follows on the other, by `apply` alone.
fn every_mesh_reaches_every_pod() {
    let site = Site::new();
    for style in ["multipoint", "point-to-point"] {
        for links in [Links::Full, Links::Hub, Links::Ring] {
            for direct in [false, true] {
                let mesh = format!(
                    "style: {style}, topology: {}, direct_routing: {direct}",
                    links.words()
                );
                println!("{mesh}");
                let file = fleet(&mesh);
                site.apply(&file);
                site.settled(&file);
                let (lost, seen) = captured(&site.router, || site.unreachable());
                assert_eq!(lost, [], "{mesh}");
                let seen: Packets = seen
                    .into_iter()
                    .filter(|(protocol, ends)| *protocol == 4 || ends[0] == 10)
                    .collect();
                assert_eq!(seen, expected(links, direct), "{mesh}");
            }
        }
    }
    for (number, node) in &site.nodes {
        node.tunnelform(&["destroy", "-"], &fleet("style: multipoint"))
            .ok();
        assert_eq!(node.seen().tunnels(), BTreeSet::new(), "node-{number}");
        assert!(node.seen().routes_of("117").is_empty(), "node-{number}");
    }
}

/// With two hubs, the spokes have two ways of equal cost to one another.
fn several_hubs() {
    let site = Site::new();
    for style in ["multipoint", "point-to-point, link_network: 10.255.0.0/16"] {
        let file = fleet(&format!(
            "style: {style}, topology: {{hub: [node-1, node-3]}}"
        ));
        site.apply(&file);
        site.settled(&file);
        assert_eq!(site.unreachable(), []);
        let seen = site.nodes[&5].seen();
        let ways = seen.route("10.244.4.0/24")["nexthops"]
            .as_array()
            .map(Vec::len);
        assert_eq!(ways, Some(2), "{style}");
        assert!(seen.route("10.244.1.0/24")["nexthops"].is_null(), "{style}");
    }
}

/// A packet to an address that no pod has is dropped where it should have been, also when the bridge is gone.
fn unused_addresses_go_nowhere() {
    let site = Site::new();
    site.apply(&fleet(""));
    site.nodes[&2].ip("link del cni0");
    let (lost, seen) = captured(&site.router, || {
        let sent = site.pods[&1].exec(&["ping", "-n", "-q", "-c", "1", "-W", "1", "10.244.2.99"]);
        1 - received(&sent.stdout)
    });
    assert_eq!(lost, 1);
    let crossed = |packet: &&(u8, [u8; 8])| packet.0 == 4;
    let crossings: Vec<_> = seen.iter().filter(crossed).collect();
    assert_eq!(crossings, [&packet(4, underlay(1), underlay(2))]);
    let routes = site.nodes[&2].seen();
    assert_eq!(routes.route("10.244.2.0/24")["type"], "blackhole");
}

/// Behind the bridge's own route stands a blackhole, or the device that the mesh names, or nothing.
fn own_subnets_have_a_last_resort() {
    let site = Site::new();
    let node = &site.nodes[&1];
    let resort = || {
        let seen = node.seen();
        let routes = seen.routes_to("10.244.1.0/24");
        let last = routes.iter().find(|route| route["metric"] == u32::MAX);
        assert!(routes.iter().any(|route| route["protocol"] == "kernel"));
        last.map(|route| (route["type"].clone(), route["dev"].clone()))
    };
    node.apply(&fleet(""));
    assert_eq!(
        resort(),
        Some(("blackhole".into(), serde_json::Value::Null))
    );
    node.apply(&fleet("local: cni0"));
    assert_eq!(resort(), Some(("unicast".into(), "cni0".into())));
    node.apply(&fleet("blackhole: false"));
    assert_eq!(resort(), None);
}

/// A node that knows its underlay's device alone has that device's address, whatever it is at the time.
fn an_underlay_is_looked_up() {
    let world = World::new();
    let host = world.lone();
    let file = "\
name: t
nodes:
  here:
    underlay: {device: eth0}
    tunnels: {hq: {local: here, remote: there, addresses: [10.1.0.1/24]}}
  there:
    underlay: 192.168.20.2
    tunnels: {branches: {local: there, addresses: [10.1.0.2/24]}}
";
    let apply = |code| {
        let arguments = ["apply", "-", "--node", "here", "--output", "json"];
        host.tunnelform(&arguments, file).exits(code)
    };
    apply(0);
    assert_eq!(host.seen().tunnel("hq")["local"], "192.168.10.2");
    host.ip("addr del 192.168.10.2/24 dev eth0\naddr add 192.168.10.77/24 dev eth0");
    let moves = apply(0).plan().moves();
    assert_eq!(moves, ["update tunnel hq"]);
    assert_eq!(host.seen().tunnel("hq")["local"], "192.168.10.77");
    host.ip("addr flush dev eth0");
    let before = host.seen();
    apply(1).says("tunnel hq: device eth0 has no IPv4 address to be its `local`");
    assert_same(&host.seen(), &before);
}

/// What becomes of a fleet, step by step: the file, what it makes the others do for node 5, and what it makes of the site.
struct Step<'a> {
    what: &'a str,
    file: String,
    /// On the nodes 1 to 3, in [`Plan::moves`]' words, with the node's own link address for `OWN`.
    moves: &'a [&'a str],
    prepare: &'a dyn Fn(&Site),
}

/// Every node takes its part; one that the file doesn't have any more takes everything away.
fn converge(site: &Site, file: &str) -> BTreeMap<usize, Plan> {
    let plans = site.nodes.iter().map(|(number, node)| {
        let plan = match file.contains(&format!("node-{number}:")) {
            true => node.apply(file),
            false => node
                .tunnelform(&["destroy", "--owner", "pods", "-o", "json"], "")
                .ok()
                .plan(),
        };
        (*number, plan)
    });
    plans.collect()
}

/// Goes through the steps while node 1's pod and node 3's send to each other: nothing is replaced, nothing is lost.
fn steps(site: &Site, steps: &[Step]) {
    let mut floods = Vec::new();
    for Step {
        what,
        file,
        moves,
        prepare,
    } in steps
    {
        println!("{what}");
        prepare(site);
        for (number, plan) in converge(site, file).range(..=3) {
            let own = format!("10.255.{}.{}", network(*number), number + 1);
            let moves: Vec<String> = moves.iter().map(|text| text.replace("OWN", &own)).collect();
            assert_eq!(
                plan.moves(),
                moves,
                "{what}, node-{number}: {}",
                plan.told()
            );
        }
        if file.contains("node-5:") {
            assert_eq!(site.unreachable(), [], "{what}");
        }
        if floods.is_empty() {
            floods = vec![
                Flood::start(&site.pods[&1], &text(pod(3))),
                Flood::start(&site.pods[&2], &text(pod(1))),
            ];
        }
    }
    for flood in floods {
        let (sent, answered) = flood.end();
        assert_eq!(sent, answered, "between nodes that aren't concerned");
        assert!(sent > 20, "only {sent} echoes");
    }
}

const MOVED: [u8; 4] = [192, 168, 20, 66];

/// Nodes with the underlay address and subnet that a step gives to node 5.
fn with_fifth(fifth: Option<([u8; 4], usize)>, fourth_subnet: usize, mesh: &str) -> String {
    let steady = (1..=3).map(|number| node_line(number, underlay(number), number));
    let fourth = node_line(4, underlay(4), fourth_subnet);
    let fifth = fifth.map(|(address, subnet)| node_line(5, address, subnet));
    write_fleet(steady.chain([fourth]).chain(fifth), mesh)
}

fn swap_pods(site: &Site) {
    for (number, other) in [(4, 5), (5, 4)] {
        site.nodes[&number].ip(&format!(
            "addr del 10.244.{number}.1/24 dev cni0\naddr add 10.244.{other}.1/24 dev cni0"
        ));
        site.pods[&number].ip(&format!(
            "addr flush dev eth0\naddr add {}/24 dev eth0\nroute add default via 10.244.{other}.1",
            text(pod(other))
        ));
    }
}

fn move_fifth(site: &Site) {
    site.nodes[&5].ip(&format!(
        "addr del {}/24 dev eth0\naddr add {}/24 dev eth0\nroute replace default via 192.168.20.1",
        text(underlay(5)),
        text(MOVED)
    ));
}

fn a_multipoint_fleet_changes() {
    a_fleet_changes(
        "interface: pods0",
        "pods0",
        &["create route 10.244.5.0/24"],
        &["update route 10.244.5.0/24"],
        &["delete route 10.244.4.0/24"],
    );
}

fn a_point_to_point_fleet_changes() {
    a_fleet_changes(
        "style: point-to-point, interface: l-, link_network: 10.255.0.0/16",
        "l-node-4",
        &[
            "create address OWN peer 10.255.20.6/32 on l-node-5",
            "create route 10.244.5.0/24",
            "create tunnel l-node-5",
        ],
        &[
            "create address OWN peer 10.255.20.66/32 on l-node-5",
            "delete address OWN peer 10.255.20.6/32 on l-node-5",
            "update tunnel l-node-5",
        ],
        &["delete tunnel l-node-5"],
    );
}

/// A node joins, moves, swaps its subnet with another and leaves: what the others do, and that `device` of node 1 stays
/// the one that it is.
fn a_fleet_changes(mesh: &str, device: &str, joins: &[&str], moves: &[&str], leaves: &[&str]) {
    let site = Site::new();
    let file = |fifth, fourth| with_fifth(fifth, fourth, mesh);
    converge(&site, &file(None, 4));
    let index = || site.nodes[&1].index(device);
    let before = index();
    let step = |what, file, moves, prepare| Step {
        what,
        file,
        moves,
        prepare,
    };
    let nothing: &dyn Fn(&Site) = &|_| ();
    let swaps = ["update route 10.244.4.0/24", "update route 10.244.5.0/24"];
    let joined = file(Some((underlay(5), 5)), 4);
    let moved = file(Some((MOVED, 5)), 4);
    let swapped = file(Some((MOVED, 4)), 5);
    steps(
        &site,
        &[
            step("as it is", file(None, 4), &[], nothing),
            step("a node joins", joined, joins, nothing),
            step("it moves", moved, moves, &move_fifth),
            step(
                "it swaps its subnet with another",
                swapped,
                &swaps,
                &swap_pods,
            ),
            step("it leaves", file(None, 5), leaves, nothing),
        ],
    );
    assert_eq!(index(), before);
}

/// By `--node`, by the environment, by an underlay address; told which there are where none fits.
fn a_node_finds_itself() {
    let site = Site::new();
    let file = fleet("");
    let plan = |arguments: &[&str]| -> Run {
        let mut all = vec!["apply", "-", "--dry-run"];
        all.extend(arguments);
        site.nodes[&2].tunnelform(&all, &file)
    };
    plan(&[]).ok().says("local 192.168.10.3");
    // As node-4 it meets the pod network of node-2.
    plan(&["--node", "node-4"])
        .exits(1)
        .says("local 192.168.20.5");
    plan(&["--node", "node-9"])
        .exits(1)
        .says("no node is called node-9");
    // Its name comes before its address. Another name for a moment, in a UTS namespace of its own.
    let named =
        "echo node-3 >/proc/sys/kernel/hostname && exec \"$0\" apply - --dry-run --netns \"$1\"";
    let arguments = [
        "--uts",
        "sh",
        "-c",
        named,
        TUNNELFORM,
        &site.nodes[&2].netns,
    ];
    run("unshare", &arguments, &file).says("local 192.168.20.4");
    site.nodes[&2].ip("addr add 192.168.20.5/32 dev lo");
    plan(&[])
        .exits(1)
        .says("has the underlay addresses of node-2, node-4");
    site.nodes[&2].ip("addr flush dev eth0\naddr flush dev lo");
    plan(&[])
        .exits(1)
        .says("the nodes are node-1, node-2, node-3, node-4, node-5");
}
