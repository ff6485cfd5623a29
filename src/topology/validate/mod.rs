//! What a topology means, checked against the field's rules before a kernel sees it.
//!
//! Here: the frame, and what tunnels are by themselves. Addresses, routes, and what the parts mean together have a file
//! each. A rule refuses only what the kernel would refuse, or what could never carry a packet.

mod addresses;
mod fleet;
mod probes;
mod reach;
mod routes;
mod view;

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use view::View;

use super::{Effective, Endpoint, Mtu, Topology, Tunnel};
use crate::source::{Index, Lost, Path, Problem, Segment, Severity};
use crate::state::{AdminState, IPV6_MIN_MTU, InterfaceName, Ttl};

/// Devices that the kernel makes for itself: `lo`, and the fallback devices of its tunnel modules.
const KERNEL_DEVICES: [&str; 10] = [
    "lo", "tunl0", "gre0", "gretap0", "erspan0", "sit0", "ip_vti0", "ip6tnl0", "ip6gre0",
    "ip6_vti0",
];

/// Names that sysctl has taken (`/proc/sys/net/ipv4/conf/all`): the kernel refuses them for devices.
const SYSCTL_NAMES: [&str; 2] = ["all", "default"];

/// Checks a topology; `root` is what it was read from, and `lost` what it lacks of that.
pub(super) fn validate(topology: &Topology, lost: &Lost, root: &Index) -> Vec<Problem> {
    let fleet = topology.fleet();
    let mut problems = if knows_the_fleet(topology, lost) {
        fleet::validate(&fleet, lost, root)
    } else {
        Vec::new()
    };
    if topology.nodes.is_empty() {
        problems.extend(host(topology, View::WHOLE, lost, root));
        return problems;
    }
    // Nodes with nothing of their own differ in nothing but their addresses: one stands for all in the same meshes.
    let mut seen = HashSet::new();
    for number in 0..fleet.nodes.len() {
        let node = fleet.nodes[number];
        let own = !node.tunnels.is_empty()
            || !node.addresses.is_empty()
            || !node.routes.is_empty()
            || node.defaults != Tunnel::default();
        let meshes = fleet.meshes.iter().map(|graph| graph.has(number));
        if own || seen.insert(meshes.collect::<Vec<bool>>()) {
            let sample = fleet.sample(number);
            let view = View::of(&fleet, number);
            problems.extend(host(&sample, view, lost, root));
        }
        if problems.len() > MOST_PROBLEMS {
            break;
        }
    }
    problems
}

/// Whether nothing is missing that has to do with every node: else a rule would find fault with what is right.
fn knows_the_fleet(topology: &Topology, lost: &Lost) -> bool {
    let ends = ["tunnels", "defaults"];
    !lost.any(|path| match path.segments() {
        [Segment::Key(top), _, Segment::Key(part), ..] if top == "nodes" => {
            part != "addresses" && part != "routes"
        }
        [Segment::Key(top), ..] if ends.contains(&top.as_str()) => !topology.nodes.is_empty(),
        [Segment::Key(top), ..] => top == "nodes" || top == "meshes",
        _ => true,
    })
}

/// More than this aren't looked for: what every node has is wrong in every node.
const MOST_PROBLEMS: usize = 10_000;

fn host(topology: &Topology, view: View, lost: &Lost, root: &Index) -> Vec<Problem> {
    let mut check = Check {
        topology,
        view,
        lost,
        root,
        problems: Vec::new(),
        ipv6_in_ipip: BTreeSet::new(),
    };
    check.defaults();
    check.tunnels();
    check.probes();
    check.addresses();
    check.routes();
    check.reach();
    check.problems
}

struct Check<'a> {
    /// What one host has.
    topology: &'a Topology,
    view: View<'a>,
    lost: &'a Lost,
    root: &'a Index<'a, 'a>,
    problems: Vec<Problem>,
    /// Tunnels whose author was told that they carry no IPv6: once is enough.
    ipv6_in_ipip: BTreeSet<InterfaceName>,
}

impl Check<'_> {
    fn error(&mut self, path: &Path, message: impl Into<String>) -> &mut Problem {
        self.report(path, Severity::Error, message.into())
    }

    fn warning(&mut self, path: &Path, message: impl Into<String>) -> &mut Problem {
        self.report(path, Severity::Warning, message.into())
    }

    fn report(&mut self, path: &Path, severity: Severity, message: String) -> &mut Problem {
        let path = self.place(path);
        let index = self.problems.len();
        self.problems.push(Problem {
            severity,
            message: path.describe(&message),
            span: self.root.locate(&path),
            related: None,
            help: None,
        });
        &mut self.problems[index]
    }

    fn duplicate(&mut self, path: &Path, first: &Path, message: String) -> &mut Problem {
        let first = self.place(first);
        let span = self.root.locate(&first);
        let problem = self.error(path, message);
        problem.related = Some((span, format!("`{first}` is the first")));
        problem
    }

    /// Where the file has what the host has at `path`.
    fn place(&self, path: &Path) -> Path {
        self.lost.written(&self.view.place(path, self.root))
    }

    /// Where a tunnel's option is written: at the tunnel, or among the defaults.
    fn option(&self, tunnel: InterfaceName, key: &str) -> Path {
        let own = tunnel_path(tunnel).key(key);
        let default = Path::default().key("defaults").key(key);
        let written = |path: &Path| self.root.find(&self.view.place(path, self.root)).is_some();
        if !written(&own) && written(&default) {
            default
        } else {
            own
        }
    }

    /// Whether something of this host's is missing that satisfies the condition.
    /// It gets the path as the host has it, and as the file does.
    fn lacks(&self, mut condition: impl FnMut(&[Segment], &Path) -> bool) -> bool {
        self.lost.any(|path| {
            let within = self.view.within(path);
            within.is_some_and(|segments| condition(segments, path))
        })
    }

    /// Whether a tunnel's `keys` are as the file has them. A lost key that looks like one of them may be meant for it.
    fn knows(&self, tunnel: InterfaceName, keys: &[&str]) -> bool {
        !self.lacks(|path, _| match path {
            [Segment::Key(top), Segment::Key(of), Segment::Key(key), ..] => {
                top == "tunnels" && of.as_bytes() == tunnel.as_bytes() && looks_like(key, keys)
            }
            [Segment::Key(top), Segment::Key(key)] => top == "defaults" && looks_like(key, keys),
            _ => false,
        })
    }

    fn is_down(&self, device: InterfaceName) -> bool {
        let tunnel = self.topology.tunnels.get(&device);
        tunnel.is_some_and(|tunnel| {
            self.topology.tunnel(tunnel).get(|t| &t.state) == Some(AdminState::Down)
        })
    }

    fn defaults(&mut self) {
        let path = Path::default().key("defaults");
        let Tunnel {
            addresses, routes, ..
        } = &self.topology.defaults;
        for (key, given) in [
            ("addresses", !addresses.is_empty()),
            ("routes", !routes.is_empty()),
        ] {
            if given {
                self.error(
                    &path.key(key),
                    format!("`{key}` can't be a default: every tunnel would get the same"),
                )
                .help = Some("give them to the tunnel that they belong to".into());
            }
        }
    }

    fn tunnels(&mut self) {
        let topology = self.topology;
        let broadcasts = self.broadcasts();
        for (&name, tunnel) in &topology.tunnels {
            let options = topology.tunnel(tunnel);
            self.name(name);
            self.ends(name, &options, &broadcasts);
            self.path_mtu_discovery(name, &options);
            self.underlay_device(name, &options);
            if self.is_down(name) && !tunnel.routes.is_empty() {
                self.warning(
                    &tunnel_path(name).key("routes"),
                    "the tunnel is down, so its routes are held back: the kernel refuses them",
                );
            }
            self.ipv6_below_its_mtu(name, tunnel, &options);
        }
        self.endpoints();
    }

    fn endpoints(&mut self) {
        let topology = self.topology;
        let mut known = Vec::new();
        for (&name, tunnel) in &topology.tunnels {
            let options = topology.tunnel(tunnel);
            let end = |field: fn(&Tunnel) -> &Option<Endpoint>| {
                options.get(field).filter(|end| *end != Endpoint::Any)
            };
            let ends = (
                end(|t| &t.local),
                end(|t| &t.remote),
                options.get(|t| &t.device),
            );
            if !self.knows(name, &["local", "remote", "device"]) {
                // What was lost may tell this tunnel apart.
            } else if ends == (None, None, None) {
                let message = "neither `local` nor `remote` nor `device`: the kernel's own tunl0 has these endpoints already";
                self.error(&tunnel_path(name), message).help =
                    Some("set `local` for a multipoint tunnel".into());
            } else if !self.view.is_sample(name) {
                // Of a sample's others the fleet's rules know as well.
                known.push((ends, name));
            }
        }
        for (first, again) in given_twice(known) {
            if self.view.is_of_mesh(first) && self.view.is_of_mesh(again) {
                continue;
            }
            let message = "two tunnels with the same (local, remote, device): the kernel could not tell their packets apart";
            self.duplicate(&tunnel_path(again), &tunnel_path(first), message.into())
                .help = Some("give one of them another `local`, `remote` or `device`".into());
        }
    }

    fn name(&mut self, name: InterfaceName) {
        let is = |other: &&str| name.as_bytes() == other.as_bytes();
        let message = if KERNEL_DEVICES.iter().any(is) {
            format!("{name} is the kernel's own device and can't be a tunnel of ours")
        } else if SYSCTL_NAMES.iter().any(is) {
            format!("a device can't be called {name}: it stands for every device in sysctl")
        } else if name.as_bytes().contains(&b'%') {
            format!("the kernel takes {name} for a pattern and would choose a number itself")
        } else {
            return;
        };
        self.error(&tunnel_path(name), message).help =
            Some("choose another name, such as tun1".into());
    }

    fn ends(&mut self, name: InterfaceName, options: &Effective, broadcasts: &HashSet<Ipv4Addr>) {
        let (local, remote) = ends(options);
        if let Some(Endpoint::Device(device)) = options.get(|t| &t.remote) {
            self.error(
                &self.option(name, "remote"),
                format!(
                    "`remote` is the other host's address, and {device} is a device of this one"
                ),
            );
        }
        for (key, end) in [("local", local), ("remote", remote)] {
            let Some(end) = end else { continue };
            let kind = unusable(end).or(broadcasts.contains(&end).then_some("a broadcast"));
            if let Some(kind) = kind {
                self.error(
                    &self.option(name, key),
                    format!("{end} is {kind} address: a tunnel's end is one host"),
                );
            }
        }
        if let Some(local) = local.filter(|_| local == remote) {
            self.error(
                &self.option(name, "remote"),
                format!(
                    "`local` and `remote` are both {local}: the tunnel would end where it starts"
                ),
            )
            .help = Some("`local` is this host's address, `remote` the other's".into());
        }
    }

    /// The broadcast addresses of the networks that this file puts on devices.
    fn broadcasts(&self) -> HashSet<Ipv4Addr> {
        self.written_addresses()
            .filter_map(|written| match written.address.network()? {
                IpNet::V4(net) if net.prefix_len() < 31 => Some(net.broadcast()),
                IpNet::V4(_) | IpNet::V6(_) => None,
            })
            .collect()
    }

    fn path_mtu_discovery(&mut self, name: InterfaceName, options: &Effective) {
        let fixed_ttl = options
            .get(|t| &t.ttl)
            .is_some_and(|ttl| ttl != Ttl::INHERIT);
        if fixed_ttl
            && self.knows(name, &["ttl", "pmtudisc"])
            && options.get(|t| &t.pmtudisc) == Some(false)
        {
            self.error(
                &self.option(name, "pmtudisc"),
                "`pmtudisc: false` with a fixed `ttl`: the kernel would turn path MTU discovery on again",
            )
            .help = Some("set `ttl: inherit`, or leave `pmtudisc` out".into());
        }
    }

    fn underlay_device(&mut self, name: InterfaceName, options: &Effective) {
        if options.get(|t| &t.device) == Some(name) {
            self.error(
                &self.option(name, "device"),
                "a tunnel can't be its own underlay device",
            );
        }
    }

    fn ipv6_below_its_mtu(&mut self, name: InterfaceName, tunnel: &Tunnel, options: &Effective) {
        let Some(Mtu::Bytes(mtu @ ..IPV6_MIN_MTU)) = options.get(|t| &t.mtu) else {
            return;
        };
        let addresses = tunnel.addresses.iter().map(|a| a.address.net.addr());
        let routes = tunnel.routes.iter().map(|route| route.prefix().addr());
        let first =
            |mut list: Box<dyn Iterator<Item = IpAddr> + '_>| list.position(|ip| ip.is_ipv6());
        let found = [
            ("addresses", first(Box::new(addresses))),
            ("routes", first(Box::new(routes))),
        ];
        for (key, index) in found {
            if let Some(index) = index {
                self.error(
                    &tunnel_path(name).key(key).index(index),
                    format!("IPv6 needs an MTU of {IPV6_MIN_MTU}: with {mtu} the kernel takes it off the device"),
                );
            }
        }
    }
}

fn tunnel_path(name: InterfaceName) -> Path {
    Path::default().key("tunnels").key(name)
}

/// Each that has the key of an earlier one, with the last such.
fn given_twice<K: Ord, V: Copy>(mut list: Vec<(K, V)>) -> Vec<(V, V)> {
    list.sort_by(|(one, _), (other, _)| one.cmp(other));
    let pairs = list.windows(2).filter(|pair| pair[0].0 == pair[1].0);
    pairs.map(|pair| (pair[0].1, pair[1].1)).collect()
}

fn ends(options: &Effective) -> (Option<Ipv4Addr>, Option<Ipv4Addr>) {
    let address = |field: fn(&Tunnel) -> &Option<super::Endpoint>| {
        options.get(field).and_then(|end| end.address())
    };
    (address(|t| &t.local), address(|t| &t.remote))
}

fn looks_like(key: &str, keys: &[&str]) -> bool {
    !similar::get_close_matches(key, keys, 1, 0.6).is_empty()
}

/// What was expected of a tunnel's end that is the name of nobody.
fn looks_like_ipv4_end(found: &str) -> String {
    format!("expected an IPv4 address or `any`, found {found:?}")
}

/// What keeps an address from being the end of a tunnel.
fn unusable(address: Ipv4Addr) -> Option<&'static str> {
    never_an_address(IpAddr::V4(address)).or(address.is_loopback().then_some("a loopback"))
}

/// What keeps an address from being on any interface.
fn never_an_address(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_multicast() => Some("a multicast"),
        _ if address.is_unspecified() => Some("the unspecified"),
        IpAddr::V4(address) if address.is_broadcast() => Some("the broadcast"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;

    #[test]
    fn names_the_kernel_has_no_use_for() {
        check(&[
            (
                "tunnels: {»sixteen-bytes-xx: {local: 10.0.0.1}}",
                &["is 16 bytes long: the kernel allows 15"],
            ),
            ("tunnels: {fifteen-bytes-x: {local: 10.0.0.1}}", &[]),
            ("tunnels: {»ééééééée: {local: 10.0.0.1}}", &[]),
            (
                "tunnels: {»éééééééé: {local: 10.0.0.1}}",
                &["is 16 bytes long"],
            ),
            ("tunnels: {»a/b: {local: 10.0.0.1}}", &["contains '/'"]),
            ("tunnels: {»a b: {local: 10.0.0.1}}", &["contains ' '"]),
            ("tunnels: {»\"\": {local: 10.0.0.1}}", &["can't be empty"]),
            (
                "tunnels: {»..: {local: 10.0.0.1}}",
                &["can't be an interface name"],
            ),
            (
                "tunnels: {»tunl0: {local: 10.0.0.1}}",
                &["tunl0 is the kernel's own device"],
            ),
            ("tunnels: {tunl1: {local: 10.0.0.1}}", &[]),
            (
                "tunnels: {»lo: {local: 10.0.0.1}}",
                &["lo is the kernel's own device"],
            ),
            (
                "tunnels: {»all: {local: 10.0.0.1}}",
                &["can't be called all"],
            ),
            (
                "tunnels: {»tun%d: {local: 10.0.0.1}}",
                &["takes tun%d for a pattern"],
            ),
        ]);
    }

    #[test]
    fn ends_are_hosts_and_two() {
        check(&[
            (
                "tunnels: {tun1: {remote: »224.0.0.5}}",
                &["224.0.0.5 is a multicast address"],
            ),
            (
                "tunnels: {tun1: {remote: »255.255.255.255}}",
                &["is the broadcast address"],
            ),
            (
                "tunnels: {tun1: {local: »127.0.0.1, remote: 10.0.0.1}}",
                &["is a loopback address"],
            ),
            (
                "addresses: {eth0: [192.0.2.1/24]}\ntunnels: {tun1: {remote: »192.0.2.255}}",
                &["192.0.2.255 is a broadcast address"],
            ),
            (
                "addresses: {eth0: [192.0.2.254/31]}\ntunnels: {tun1: {remote: 192.0.2.255}}",
                &[],
            ),
            ("tunnels: {tun1: {remote: 240.0.0.1}}", &[]),
            (
                "tunnels: {tun1: {local: 169.254.0.1, remote: 169.254.0.2}}",
                &[],
            ),
            (
                "tunnels: {tun1: {local: 10.0.0.1, remote: »10.0.0.1}}",
                &["both 10.0.0.1"],
            ),
            (
                "defaults: {local: 10.0.0.1}\ntunnels: {tun1: {remote: »10.0.0.1}}",
                &["both 10.0.0.1"],
            ),
            (
                "defaults: {remote: »10.0.0.1}\ntunnels: {tun1: {local: 10.0.0.1}, tun2: {local: 10.0.0.2}}",
                &["defaults"],
            ),
        ]);
    }

    #[test]
    fn endpoints_tell_tunnels_apart() {
        check(&[
            (
                "tunnels:\n  a: {local: 10.0.0.1, remote: 10.0.0.2}\n  »b: {local: 10.0.0.1, remote: 10.0.0.2, ttl: 5}",
                &["two tunnels with the same (local, remote, device)"],
            ),
            (
                "defaults: {local: 10.0.0.1}\ntunnels:\n  a: {remote: 10.0.0.2}\n  »b: {local: 10.0.0.1, remote: 10.0.0.2}",
                &["two tunnels with the same"],
            ),
            (
                "tunnels:\n  a: {local: 10.0.0.1, remote: 10.0.0.2}\n  b: {local: 10.0.0.1, remote: 10.0.0.2, device: eth0}",
                &[],
            ),
            (
                "tunnels:\n  a: {local: 10.0.0.1, remote: 10.0.0.2}\n  b: {remote: 10.0.0.2}\n  c: {local: 10.0.0.1}",
                &[],
            ),
            (
                "tunnels: {»tun1: {ttl: 64}}",
                &["the kernel's own tunl0 has these endpoints"],
            ),
            ("tunnels: {tun1: {device: eth0}}", &[]),
        ]);
    }

    #[test]
    fn options_that_exclude_each_other() {
        check(&[
            (
                "tunnels: {tun1: {local: 10.0.0.1, ttl: 64, pmtudisc: »false}}",
                &["`pmtudisc: false` with a fixed `ttl`"],
            ),
            (
                "defaults: {ttl: 64}\ntunnels: {tun1: {local: 10.0.0.1, pmtudisc: »false}}",
                &["`pmtudisc: false` with a fixed `ttl`"],
            ),
            (
                "defaults: {pmtudisc: »false}\ntunnels: {tun1: {local: 10.0.0.1, ttl: 1}, tun2: {local: 10.0.0.2}}",
                &["`pmtudisc: false` with a fixed `ttl`"],
            ),
            (
                "defaults: {ttl: 64}\ntunnels: {tun1: {local: 10.0.0.1, ttl: inherit, pmtudisc: false}}",
                &[],
            ),
            (
                "tunnels: {tun1: {local: 10.0.0.1, ttl: 64, pmtudisc: true}}",
                &[],
            ),
            (
                "tunnels: {tun1: {local: 10.0.0.1, device: »tun1}}",
                &["its own underlay device"],
            ),
            (
                "tunnels: {tun1: {local: 10.0.0.1, mtu: 1279, addresses: [10.1.0.1/24, »\"2001:db8::1/64\"]}}",
                &["IPv6 needs an MTU of 1280"],
            ),
            (
                "tunnels: {tun1: {local: 10.0.0.1, mtu: 1280, addresses: [\"2001:db8::1/64\"]}}",
                &[],
            ),
            (
                "defaults: {»addresses: [10.0.0.1/24]}",
                &["`addresses` can't be a default"],
            ),
            (
                "tunnels: {tun1: {local: 10.0.0.1, state: down, »routes: [10.0.0.0/8]}}",
                &["warning: its routes are held back"],
            ),
        ]);
    }
}
