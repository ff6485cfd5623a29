//! Several files as one topology: a directory to which each role of a host adds its part.
//!
//! What has a name is given once: a second tunnel, node option or default of the same name is an error that shows both
//! places, never a silent override. Lists of addresses and routes add up. `version`, `name` and `route_protocol` may be
//! repeated as they are.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::source::{self, List, Node, Path, Problem, Texts, Tree, Value};

/// Reads the files into one tree, whose places count through all of them.
pub(super) fn parse(texts: &Texts) -> Tree<'_> {
    let mut before = 0;
    let mut all: Option<Tree> = None;
    for document in &texts.documents {
        let (text, lists) = texts.of(document);
        let mut tree = source::parse(text);
        source::expand(&mut tree, &lists);
        let tree = tree.behind(before);
        before += text.chars().count() + lists.iter().map(List::characters).sum::<usize>();
        all = Some(match all {
            None => tree,
            Some(first) => join(first, tree),
        });
    }
    all.unwrap_or(Tree {
        root: None,
        problems: Vec::new(),
        partial: false,
    })
}

fn join<'a>(mut first: Tree<'a>, second: Tree<'a>) -> Tree<'a> {
    first.problems.extend(second.problems);
    first.partial |= second.partial;
    first.root = match (first.root, second.root) {
        (Some(mut root), Some(other)) => {
            let mut merge = Merge {
                problems: &mut first.problems,
            };
            merge.document(&mut root, other, &Path::default());
            Some(root)
        }
        // What a file that can't be read would have added is unknown.
        _ => None,
    };
    first
}

/// What becomes of a key that both have.
enum Rule {
    /// Entries by name, each given once.
    Once,
    /// Entries that are documents of their own.
    Documents,
    /// Entries whose lists add up.
    Lists,
    /// A list that adds up.
    Add,
    /// A value that may be repeated as it is.
    Same,
}

fn rule(key: &str, top: bool) -> Rule {
    match key {
        "nodes" if top => Rule::Documents,
        "tunnels" | "meshes" | "defaults" | "labels" => Rule::Once,
        "addresses" => Rule::Lists,
        "routes" | "subnets" => Rule::Add,
        _ => Rule::Same,
    }
}

struct Merge<'p> {
    problems: &'p mut Vec<Problem>,
}

impl Merge<'_> {
    fn document<'a>(&mut self, to: &mut Node<'a>, from: Node<'a>, path: &Path) {
        let top = path.segments().is_empty();
        let span = from.span;
        let (Value::Mapping(entries), Value::Mapping(others)) = (&mut to.value, from.value) else {
            let message = path.describe("expected a mapping in each file");
            self.problems.push(Problem::error(span, message));
            return;
        };
        let mut index = by_name(entries);
        for (key, value) in others {
            let name = key.name();
            let path = path.key(&name);
            let Some(&position) = index.get(&name) else {
                index.insert(name, entries.len());
                entries.push((key, value));
                continue;
            };
            let (first, known) = &mut entries[position];
            let first = first.span;
            match rule(&name, top) {
                Rule::Once => self.entries(known, value, &path, &Rule::Same),
                Rule::Documents => self.entries(known, value, &path, &Rule::Documents),
                Rule::Lists => self.entries(known, value, &path, &Rule::Add),
                Rule::Add => self.add(known, value, first, key.span, &path),
                Rule::Same => {
                    if !same(known, &value) {
                        self.clash(first, key.span, &path);
                    }
                }
            }
        }
    }

    fn entries<'a>(&mut self, to: &mut Node<'a>, from: Node<'a>, path: &Path, rule: &Rule) {
        let (span, other) = (to.span, from.span);
        let (Value::Mapping(entries), Value::Mapping(others)) = (&mut to.value, from.value) else {
            self.clash(span, other, path);
            return;
        };
        let mut known = by_name(entries);
        for (key, value) in others {
            let path = path.key(key.name());
            match known.get(&key.name()) {
                None => {
                    known.insert(key.name(), entries.len());
                    entries.push((key, value));
                }
                Some(&index) => {
                    let (first, known) = &mut entries[index];
                    match rule {
                        Rule::Documents => self.document(known, value, &path),
                        Rule::Add => self.add(known, value, first.span, key.span, &path),
                        Rule::Once | Rule::Lists | Rule::Same => {
                            self.clash(first.span, key.span, &path);
                        }
                    }
                }
            }
        }
    }

    fn add<'a>(
        &mut self,
        to: &mut Node<'a>,
        from: Node<'a>,
        first: source::Span,
        second: source::Span,
        path: &Path,
    ) {
        match (&mut to.value, from.value) {
            (Value::Sequence(items), Value::Sequence(others)) => items.extend(others),
            _ => self.clash(first, second, path),
        }
    }

    fn clash(&mut self, first: source::Span, second: source::Span, path: &Path) {
        let problem = Problem::error(second, path.describe("given in two files"))
            .related(first, "first given here")
            .help("keep one of the two: files of a directory add to one another, none overrides another");
        self.problems.push(problem);
    }
}

/// The entries' places: a fleet has thousands.
fn by_name<'a>(entries: &[(Node<'a>, Node<'a>)]) -> HashMap<Cow<'a, str>, usize> {
    let entries = entries.iter().enumerate();
    entries
        .map(|(index, (key, _))| (key.name(), index))
        .collect()
}

/// Whether two scalars are the same.
fn same(one: &Node, other: &Node) -> bool {
    let scalar = |node: &Node| !matches!(node.value, Value::Sequence(_) | Value::Mapping(_));
    scalar(one) && scalar(other) && one.name() == other.name()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_yaml::{Mapping, Value};

    use crate::source::Content;
    use crate::topology::Topology;

    fn parse(files: &[(&str, &str)]) -> Result<Topology, String> {
        let files = files.iter();
        let files = files.map(|(name, text)| Content::new(*name, *text));
        match Topology::parse_files("hq.d", files.collect()) {
            Ok(parsed) => Ok(parsed.topology),
            Err(problems) => Err(problems.to_string()),
        }
    }

    #[test]
    fn files_add_up() {
        let topology = parse(&[
            ("1.yaml", "version: 1\nname: t\ndefaults: {ttl: 64}\naddresses: {lo: [10.0.0.1]}\nroutes: [{to: 10.1.0.0/16, type: blackhole}]\nnodes: {a: {underlay: 192.0.2.1}}"),
            ("2.yaml", "version: 1\nname: t\ndefaults: {tos: 2}\naddresses: {lo: [10.0.0.2], eth0: [10.0.1.1/24]}\nroutes: [{to: 10.2.0.0/16, type: blackhole}]\nnodes: {a: {subnets: [10.244.1.0/24]}, b: {underlay: 192.0.2.2}}"),
        ])
        .unwrap();
        assert_eq!(topology.routes.len(), 2);
        assert_eq!(topology.addresses.len(), 2);
        assert_eq!(topology.addresses.values().map(Vec::len).sum::<usize>(), 3);
        assert!(topology.defaults.ttl.is_some() && topology.defaults.tos.is_some());
        assert_eq!(topology.nodes["a"].subnets.len(), 1);
        assert_eq!(topology.nodes.len(), 2);
    }

    #[test]
    fn a_clash_names_both_places() {
        let cases = [
            (
                "name: t\ntunnels: {a: {local: 10.0.0.1}}",
                "\ntunnels: {a: {local: 10.0.0.2}}",
                "tunnels.a: given in two files",
                "2.yaml:2:11",
            ),
            (
                "name: t",
                "name: u",
                "name: given in two files",
                "2.yaml:1:1",
            ),
            (
                "name: t\ndefaults: {ttl: 1}",
                "defaults: {ttl: 1}",
                "defaults.ttl: given in two files",
                "2.yaml:1:12",
            ),
            (
                "name: t\nnodes: {a: {underlay: 192.0.2.1}}",
                "nodes: {a: {underlay: 192.0.2.2}}",
                "nodes.a.underlay: given in two files",
                "2.yaml:1:13",
            ),
            (
                "name: t\nnodes: {a: {tunnels: {x: {local: 192.0.2.1}}}}",
                "nodes: {a: {tunnels: {x: {local: 192.0.2.1}}}}",
                "nodes.a.tunnels.x: given in two files",
                "2.yaml:1:23",
            ),
            (
                "name: t\nroutes: []",
                "routes: {}",
                "routes: given in two files",
                "2.yaml:1:1",
            ),
        ];
        for (first, second, message, place) in cases {
            let problems = parse(&[("1.yaml", first), ("2.yaml", second)]).unwrap_err();
            assert!(problems.contains(message), "{problems}");
            assert!(problems.contains(place), "{problems}");
            assert!(problems.contains("1.yaml:"), "{problems}");
            assert!(problems.contains("first given here"), "{problems}");
        }
    }

    #[test]
    fn an_error_is_shown_in_its_own_file() {
        let problems = parse(&[
            ("1.yaml", "name: t # ü\n"),
            ("2.yaml", "# ü\ndefaults: {ttl: 300}\n"),
        ])
        .unwrap_err();
        assert!(problems.contains("2.yaml:2:17"), "{problems}");
        let problems = parse(&[("1.yaml", "name: t\n"), ("2.yaml", "a: [\n")]).unwrap_err();
        assert!(problems.contains("2.yaml:2:1"), "{problems}");
        let problems = parse(&[("1.yaml", "name: t\n"), ("2.yaml", "- a\n")]).unwrap_err();
        assert!(
            problems.contains("expected a mapping in each file"),
            "{problems}"
        );
    }

    const WHOLE: &str = "
version: 1
name: t
route_protocol: 118
defaults: {ttl: 64, mtu: 1400, mode: any}
tunnels:
  one: {remote: 198.51.100.1, addresses: [10.9.0.1/32], routes: [10.9.1.0/24]}
  two: {remote: 198.51.100.2}
addresses: {lo: [10.9.0.2, 10.9.0.3], eth0: [10.9.2.1/24]}
routes: [{to: 10.8.0.0/16, type: blackhole}, {to: 10.7.0.0/16, device: eth0}, {to: 10.6.0.0/16, device: eth0}]
nodes:
  a:
    underlay: 192.0.2.1
    subnets: [10.1.0.0/24, 10.1.1.0/24]
    labels: {role: hub, rack: r1}
    defaults: {tos: 4, ttl: 32}
    tunnels: {three: {remote: 198.51.100.3}, four: {remote: 198.51.100.4}}
    addresses: {lo: [10.9.0.4, 10.9.0.5]}
    routes: [{to: 10.5.0.0/16, device: eth0}, {to: 10.4.0.0/16, device: eth0}]
  b: {underlay: {address: 192.0.2.2, device: eth0}, subnets: [10.2.0.0/24], labels: {role: hub}}
  c: {underlay: 192.0.2.3}
meshes:
  m: {members: {role: hub}}
  n: {style: point-to-point, members: [b, c], interface: p}
";

    /// What may be said in parts of a mapping, at this depth of the file.
    fn in_parts(path: &[&str]) -> bool {
        let document = match path {
            [] | ["nodes"] | ["nodes", _] => return true,
            ["nodes", _, rest @ ..] | rest => rest,
        };
        matches!(
            document,
            ["defaults" | "tunnels" | "addresses" | "routes" | "labels" | "subnets" | "meshes"]
                | ["addresses", _]
        )
    }

    /// Deals what a value holds out to two files.
    fn split(value: &Value, path: &[&str], coin: &mut dyn FnMut() -> usize) -> [Option<Value>; 2] {
        let whole = |place: usize| {
            let mut parts = [None, None];
            parts[place] = Some(value.clone());
            parts
        };
        match value {
            _ if !in_parts(path) => whole(coin() % 2),
            Value::Mapping(entries) => {
                let mut parts = [Mapping::new(), Mapping::new()];
                for (key, value) in entries {
                    let path: Vec<&str> = path.iter().copied().chain(key.as_str()).collect();
                    let values = split(value, &path, coin);
                    for (part, value) in parts.iter_mut().zip(values) {
                        part.extend(value.map(|value| (key.clone(), value)));
                    }
                }
                parts.map(|part| Some(Value::Mapping(part)))
            }
            Value::Sequence(items) => {
                let (head, tail) = items.split_at(coin() % (items.len() + 1));
                [head, tail].map(|items| Some(Value::Sequence(items.to_vec())))
            }
            _ => whole(coin() % 2),
        }
    }

    proptest! {
        #[test]
        fn parts_are_the_whole(coins in vec(any::<usize>(), 100)) {
            let mut coins = coins.into_iter().cycle();
            let mut coin = || coins.next().unwrap();
            let whole: Value = serde_yaml::from_str(WHOLE).unwrap();
            let [one, rest] = split(&whole, &[], &mut coin);
            let [two, three] = split(&rest.unwrap(), &[], &mut coin);
            let files = [one, two, three].map(|file| serde_yaml::to_string(&file.unwrap()).unwrap());
            let named: Vec<(&str, &str)> = files.iter().map(|text| ("part.yaml", text.as_str())).collect();
            match parse(&named) {
                Ok(topology) => prop_assert_eq!(topology, parse(&[("whole.yaml", WHOLE)]).unwrap()),
                Err(problems) => return Err(TestCaseError::fail(problems + &files.join("---\n"))),
            }
        }
    }
}
