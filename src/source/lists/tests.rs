use super::*;
use crate::source::{Problems, Severity};
use crate::topology::{Parsed, Topology};

fn files(topology: &str, lists: &[(&str, Result<&str, &str>)]) -> Vec<Content> {
    let lists = lists.iter().map(|(file, text)| ListFile {
        file: (*file).to_owned(),
        path: Path::new("d").join(file),
        bytes: text
            .map(|text| text.as_bytes().to_vec())
            .map_err(str::to_owned),
    });
    vec![Content {
        lists: lists.collect(),
        ..Content::new("d/t.yaml", topology)
    }]
}

fn topology(files: Vec<Content>) -> Topology {
    match Topology::parse_files("d", files) {
        Ok(Parsed { topology, .. }) => topology,
        Err(problems) => panic!("{problems}"),
    }
}

fn problems(topology: &str, lists: &[(&str, Result<&str, &str>)]) -> Problems {
    Topology::parse_files("d", files(topology, lists)).expect_err("there are problems")
}

const LIST: &str = "\
# the first
10.1.0.0/16
  10.2.0.0/16\tmetric 7 # its own

10.3.0.0/16 table 100\r
default metric 9";

#[test]
fn a_line_is_a_route() {
    let written = topology(vec![Content::new(
        "t.yaml",
        "name: t
routes:
- {to: 10.1.0.0/16, device: e, metric: 5}
- {to: 10.2.0.0/16, device: e, metric: 7}
- {to: 10.3.0.0/16, device: e, metric: 5, table: 100}
- {to: default, device: e, metric: 9}
",
    )]);
    for head in [
        "routes: {file: l/r.txt, device: e, metric: 5}",
        "routes: [{metric: 5, device: e, file: l/r.txt}]",
        "routes:\n- file: l/r.txt\n  device: e\n  metric: 5\n",
        // What makes it go the long way.
        "routes: {\"file\": l/r.txt, device: e, metric: 5}",
    ] {
        let listed = files(&format!("name: t\n{head}\n"), &[("l/r.txt", Ok(LIST))]);
        assert_eq!(Content::named(&listed[0].bytes), ["l/r.txt"]);
        assert_eq!(topology(listed), written, "{head}");
    }
}

#[test]
fn lists_and_routes_mix_everywhere() {
    let source = "name: t
routes: [10.0.0.0/8, {file: a, type: blackhole}, {to: 10.9.0.0/16, type: throw}]
nodes:
  n:
    underlay: 192.0.2.1
    routes: {file: b, device: e}
    tunnels: {t: {remote: 192.0.2.9, routes: [{file: c}, 10.8.0.0/16]}}
";
    let source = source.replace("10.0.0.0/8, ", "{to: 10.0.0.0/8, type: throw}, ");
    let lists = [
        ("a", Ok("10.1.0.0/16\n10.2.0.0/16\n")),
        ("b", Ok("10.5.0.0/16")),
        ("c", Ok("10.6.0.0/16\n10.7.0.0/16")),
    ];
    let topology = topology(files(&source, &lists));
    let routes = |routes: &[crate::topology::Short<crate::topology::Route>]| -> Vec<String> {
        routes
            .iter()
            .map(|route| route.prefix().to_string())
            .collect()
    };
    let node = &topology.nodes["n"];
    assert_eq!(
        routes(&topology.routes),
        ["10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16", "10.9.0.0/16"]
    );
    assert_eq!(routes(&node.routes), ["10.5.0.0/16"]);
    let tunnel = node.tunnels.values().next().unwrap();
    assert_eq!(
        routes(&tunnel.routes),
        ["10.6.0.0/16", "10.7.0.0/16", "10.8.0.0/16"]
    );
}

#[test]
fn what_is_wrong_is_shown_in_the_list() {
    let cases = [
        ("10.1.0.1/16", "r.txt:1:1", "host bits"),
        ("\n  10.1.0.0/16 metric x", "r.txt:2:22", "metric: expected"),
        (
            "10.1.0.0/16 metirc 5",
            "r.txt:1:13",
            "did you mean `metric`",
        ),
        (
            "10.1.0.0/16 metric",
            "r.txt:1:13",
            "expected a value behind \"metric\"",
        ),
        (
            "10.1.0.0/16 metric 1 metric 2",
            "r.txt:1:22",
            "given twice on this line",
        ),
        ("10.1.0.0/16 metric 010", "r.txt:1:20", "octal"),
        (
            "# ü\n10.1.0.0/16 # ü\n10.1.0.0/16",
            "r.txt:3:1",
            "given twice (same table",
        ),
        ("word", "r.txt:1:1", "a prefix"),
        ("10", "r.txt:1:1", "found the number 10"),
    ];
    for (list, place, message) in cases {
        let found = problems(
            "name: t # ü\nroutes: {file: r.txt, device: e}\n",
            &[("r.txt", Ok(list))],
        );
        assert_eq!(found.count(Severity::Error), 1, "{list}: {found}");
        let found = found.to_string();
        assert!(found.contains(&format!("d/{place}")), "{list}: {found}");
        assert!(found.contains(message), "{list}: {found}");
    }
}

#[test]
fn what_is_wrong_with_the_name_is_shown_there() {
    let cases = [
        (
            "{file: gone}",
            Err("it's gone"),
            "can't read gone: it's gone",
        ),
        ("{file: other}", Ok(""), "other was not read"),
        (
            "{file: ../up}",
            Ok(""),
            "directory or below it, found \"../up\"",
        ),
        (
            "{file: /etc/passwd}",
            Ok(""),
            "directory or below it, found \"/etc/passwd\"",
        ),
        ("{file: 7}", Ok(""), "`file` is the name of a file"),
        ("{file: \"\"}", Ok(""), "`file` is the name of a file"),
        (
            "{file: gone, to: 10.0.0.0/8}",
            Ok("10.0.0.0/8"),
            "`to` is what the file's lines begin with",
        ),
    ];
    for (list, text, message) in cases {
        let source = format!("name: t\nroutes: {list}\n");
        let found = problems(&source, &[("gone", text)]).to_string();
        assert!(found.contains(message), "{list}: {found}");
        assert!(found.contains("d/t.yaml:2:"), "{list}: {found}");
    }
}

/// In another file, so that places count through those before.
#[test]
fn every_file_of_a_directory_has_its_own_lists() {
    let mut contents = files(
        "name: t\nroutes: {file: a, device: e}\n",
        &[("a", Ok("10.1.0.0/16\n"))],
    );
    contents.extend(files(
        "# ü\nroutes: [{file: a, device: f}]\n",
        &[("a", Ok("10.2.0.0/16\n10.1.0.0/16\n"))],
    ));
    contents[1].name = "d/u.yaml".into();
    let found = Topology::parse_files("d", contents).expect_err("a route is there twice");
    let found = found.to_string();
    assert!(found.contains("d/a:2:1"), "{found}");
    assert!(found.contains("d/a:1:1"), "{found}");
}

#[test]
fn only_what_may_be_read_is_named() {
    let source = b"routes: [{file: a}, {file: ../b}, {file: /c}, {file: d/e}, {file: a}, {file: .}]\nx: {file: f}\n";
    assert_eq!(Content::named(source), ["a", "d/e"]);
    assert!(Content::named(b"routes: {file: a\n").is_empty());
    assert!(Content::named(b"\xff file").is_empty());
}

/// A file that is named again and again.
#[test]
fn no_more_is_made_than_a_file_may_hold() {
    let lists = "{file: r.txt}, ".repeat(20);
    let source = format!("routes: [{lists}]");
    let list = List {
        file: "r.txt",
        text: Ok("10.0.0.0/8 metric 1\n10.1.0.0/16\n"),
        start: 0,
    };
    let made = |most| {
        let mut tree = tree::parse(&source);
        expand_up_to(most, &mut tree, &[list]);
        tree.problems
    };
    assert_eq!(made(20 * (5 + 3)), []);
    let found = &made(20 * (5 + 3) - 1)[0].message;
    assert!(found.contains("values allowed"), "{found}");
}
