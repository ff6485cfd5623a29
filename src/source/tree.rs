//! YAML as a tree whose every node knows where it stands.
//!
//! Built from a parser's events under a budget, so that deep nesting, alias bombs and endless lines end in an error at
//! their position rather than in a minute of work. What YAML 1.1 and 1.2 read differently (`no`, `010`) is refused
//! here, for keys and values alike: a topology must not mean one thing to this tool and another to the next.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span as ParserSpan};

use super::problem::{Path, Problem, Segment, Span};

/// Nesting that no topology needs.
const MAX_DEPTH: usize = 32;
/// The largest source, bytes. A million routes take about 40 MB.
const MAX_SOURCE: usize = 256 << 20;
/// The longest line, bytes. JSON without line breaks is YAML too.
const MAX_LINE: usize = 32 << 20;
/// The most values: a million routes with all their keys have fewer, and so many take 1 GB of memory.
pub(super) const MAX_NODES: usize = 16_000_000;
/// Nodes that aliases and merge keys may copy, in all.
const MAX_COPIED: usize = 100_000;

/// A node and the characters that it spans.
#[derive(Debug, Clone)]
pub(crate) struct Node<'a> {
    pub(crate) span: Span,
    pub(crate) value: Value<'a>,
}

#[derive(Debug, Clone)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    Text(Cow<'a, str>),
    Sequence(Vec<Node<'a>>),
    Mapping(Vec<(Node<'a>, Node<'a>)>),
    /// What this module has reported already, so that nobody reports it a second time.
    Refused,
    /// A list's item that was taken out. It keeps its place: the paths of later items stay true.
    Removed,
}

/// What a source holds.
pub(crate) struct Tree<'a> {
    /// `None` where the syntax allows no reading.
    pub(crate) root: Option<Node<'a>>,
    pub(crate) problems: Vec<Problem>,
    /// Keys with whole lists or mappings behind them were left out, so what the tree lacks, the file may have.
    pub(crate) partial: bool,
}

impl Tree<'_> {
    /// The same tree in a file before which so many characters stand.
    pub(crate) fn behind(mut self, characters: usize) -> Self {
        if characters > 0 {
            if let Some(root) = &mut self.root {
                root.move_behind(characters);
            }
            let problems = self.problems.into_iter();
            self.problems = problems.map(|p| p.behind(characters)).collect();
        }
        self
    }
}

/// Reads one YAML document. A syntax error ends the reading; everything else is collected.
pub(crate) fn parse(source: &str) -> Tree<'_> {
    let mut builder = Builder {
        parser: Parser::new_from_str(source),
        anchors: HashMap::new(),
        nodes: 0,
        copied: 0,
        problems: Vec::new(),
        partial: false,
    };
    let root = check_size(source).and_then(|()| builder.document());
    let Builder {
        mut problems,
        partial,
        ..
    } = builder;
    let root = root.map_err(|fatal| problems.push(*fatal)).ok();
    Tree {
        root,
        problems,
        partial,
    }
}

pub(super) fn check_size(source: &str) -> Result<(), Fatal> {
    if source.len() > MAX_SOURCE {
        let message = format!("the file has more than the {MAX_SOURCE} bytes allowed");
        return Err(Box::new(Problem::error(Span::at(0), message)));
    }
    let mut start = 0;
    for line in source.split('\n') {
        if line.len() > MAX_LINE {
            let message = format!(
                "this line has {} bytes, more than the {MAX_LINE} allowed",
                line.len()
            );
            let span = Span::at(source[..start].chars().count());
            return Err(Box::new(Problem::error(span, message)));
        }
        start += line.len() + 1;
    }
    Ok(())
}

/// An error past which the tree can't be built. Boxed because it is the rare case.
type Fatal = Box<Problem>;

struct Builder<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, Node<'a>>,
    nodes: usize,
    copied: usize,
    problems: Vec<Problem>,
    partial: bool,
}

type Entries<'a> = Vec<(Node<'a>, Node<'a>)>;
/// The keys of a mapping, with their places.
type Seen<'a> = HashMap<Cow<'a, str>, Span>;

impl<'a> Builder<'a> {
    fn document(&mut self) -> Result<Node<'a>, Fatal> {
        let root = loop {
            match self.event()? {
                (Event::StreamStart | Event::DocumentStart(_), _) => {}
                (Event::StreamEnd, _) => {
                    let help = "write at least `name: NAME`; the name marks what the topology owns in the kernel";
                    return Err(Box::new(
                        Problem::error(Span::at(0), "the file holds no YAML document").help(help),
                    ));
                }
                (event, span) => break self.node(event, span, 0)?,
            }
        };
        loop {
            match self.event()? {
                (Event::DocumentEnd, _) => {}
                (Event::StreamEnd, _) => return Ok(root),
                (_, span) => {
                    let problem = Problem::error(
                        start(span),
                        "a second YAML document: a topology is one document",
                    );
                    self.problems
                        .push(problem.help("delete it, or make it a file of its own"));
                    return Ok(root);
                }
            }
        }
    }

    fn event(&mut self) -> Result<(Event<'a>, ParserSpan), Fatal> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(Box::new(syntax_error(&error))),
            None => Ok((Event::StreamEnd, ParserSpan::empty(Marker::new(0, 1, 0)))),
        }
    }

    fn node(
        &mut self,
        event: Event<'a>,
        span: ParserSpan,
        depth: usize,
    ) -> Result<Node<'a>, Fatal> {
        if depth > MAX_DEPTH {
            return Err(Box::new(too_deep(start(span))));
        }
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message = format!("more than the {MAX_NODES} values allowed");
            return Err(Box::new(Problem::error(start(span), message)));
        }
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), span);
                (anchor, self.scalar(text, style, span))
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), span);
                (anchor, self.sequence(span, depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.is_some(), span);
                (anchor, self.mapping(span, depth)?)
            }
            Event::Alias(anchor) => (0, self.alias(anchor, span)?),
            _ => return Err(Box::new(Problem::error(start(span), "expected a value"))),
        };
        if anchor != 0 {
            self.budget(&node, span)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn sequence(&mut self, opened: ParserSpan, depth: usize) -> Result<Node<'a>, Fatal> {
        let mut items = Vec::new();
        let closed = loop {
            match self.event()? {
                (Event::SequenceEnd, span) => break span,
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        };
        Ok(Node {
            span: between(opened, closed),
            value: Value::Sequence(items),
        })
    }

    fn mapping(&mut self, opened: ParserSpan, depth: usize) -> Result<Node<'a>, Fatal> {
        let mut entries = Vec::new();
        let mut seen = HashMap::new();
        let mut merges = Vec::new();
        let closed = loop {
            let (event, span) = self.event()?;
            if matches!(event, Event::MappingEnd) {
                break span;
            }
            let merge = is_merge(&event);
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.event()?;
            let value = self.node(event, span, depth + 1)?;
            if merge {
                merges.push(value);
            } else if let Err(problem) = new_key(&key, &mut seen) {
                self.partial |= value.is_collection();
                self.problems.extend(problem);
            } else {
                entries.push((key, value));
            }
        };
        for merge in merges {
            self.merge(&mut entries, &mut seen, merge);
        }
        Ok(Node {
            span: between(opened, closed),
            value: Value::Mapping(entries),
        })
    }

    /// `<<: *anchor`: the anchor's keys, where the mapping has none of its own.
    fn merge(&mut self, entries: &mut Entries<'a>, seen: &mut Seen<'a>, source: Node<'a>) {
        match source.value {
            Value::Mapping(merged) => {
                for (key, value) in merged {
                    if let Entry::Vacant(slot) = seen.entry(key.name()) {
                        slot.insert(key.span);
                        entries.push((key, value));
                    }
                }
            }
            Value::Sequence(items) => {
                for item in items {
                    self.merge(entries, seen, item);
                }
            }
            _ => self.problems.push(Problem::error(
                source.span,
                "`<<` merges a mapping or a list of mappings",
            )),
        }
    }

    fn alias(&mut self, anchor: usize, span: ParserSpan) -> Result<Node<'a>, Fatal> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return Err(Box::new(Problem::error(
                start(span),
                "an alias inside its own anchor",
            )));
        };
        self.budget(&node, span)?;
        Ok(node)
    }

    fn budget(&mut self, node: &Node, span: ParserSpan) -> Result<(), Fatal> {
        self.copied += node.count();
        if self.copied > MAX_COPIED {
            let message = format!("anchors and aliases copy more than {MAX_COPIED} values");
            return Err(Box::new(
                Problem::error(start(span), message)
                    .help("write the values out, or generate the file"),
            ));
        }
        Ok(())
    }

    fn scalar(&mut self, text: Cow<'a, str>, style: ScalarStyle, span: ParserSpan) -> Node<'a> {
        let span = between(span, span);
        match style {
            ScalarStyle::Plain => plain(text, span, &mut self.problems),
            _ => Node {
                span,
                value: Value::Text(text),
            },
        }
    }

    fn refuse_tag(&mut self, tagged: bool, span: ParserSpan) {
        if tagged {
            self.problems.push(
                Problem::error(start(span), "a topology uses no YAML tags")
                    .help("delete the `!…`; text that looks like something else goes in quotes"),
            );
        }
    }
}

/// In quotes, `<<` is a key like any other.
fn is_merge(key: &Event) -> bool {
    matches!(key, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<")
}

/// Whether a mapping may take the key. `Err(None)`: it was reported already.
fn new_key<'a>(key: &Node<'a>, seen: &mut Seen<'a>) -> Result<(), Option<Problem>> {
    match key.value {
        Value::Refused => return Err(None),
        Value::Sequence(_) | Value::Mapping(_) => {
            let message = "a key must be a word, not a list or a mapping";
            return Err(Some(Problem::error(key.span, message)));
        }
        _ => {}
    }
    let name = key.name();
    match seen.entry(name.clone()) {
        Entry::Vacant(slot) => {
            slot.insert(key.span);
            Ok(())
        }
        Entry::Occupied(first) => Err(Some(
            Problem::error(key.span, format!("key {name:?} is given twice"))
                .related(*first.get(), "first given here")
                .help("delete one of the two; YAML leaves open which one counts"),
        )),
    }
}

fn between(first: ParserSpan, last: ParserSpan) -> Span {
    let start = first.start.index();
    let end = last.end.index().max(start + 1);
    Span { start, end }
}

fn start(span: ParserSpan) -> Span {
    Span::at(span.start.index())
}

fn too_deep(span: Span) -> Problem {
    Problem::error(span, format!("nested more than {MAX_DEPTH} levels deep"))
}

fn syntax_error(error: &saphyr_parser::ScanError) -> Problem {
    if error.info().contains("recursion limit") {
        return too_deep(Span::at(error.marker().index()));
    }
    let problem = Problem::error(
        Span::at(error.marker().index()),
        format!("not valid YAML: {}", error.info()),
    );
    let hints = [
        ("tabs disallowed", "indent with spaces: YAML allows no tabs"),
        (
            "mapping values are not allowed",
            "put a text that has `: ` in it in quotes; check the indentation",
        ),
        (
            "unknown anchor",
            "put a text that starts with `*` in quotes; an alias needs its `&anchor` before it",
        ),
    ];
    match hints.iter().find(|(part, _)| error.info().contains(part)) {
        Some((_, help)) => problem.help(*help),
        None => problem,
    }
}

/// A plain scalar as what it means.
pub(super) fn plain<'a>(text: Cow<'a, str>, span: Span, problems: &mut Vec<Problem>) -> Node<'a> {
    let value = match resolve(&text) {
        Ok(Some(value)) => value,
        Ok(None) => Value::Text(text),
        Err(ambiguity) => {
            problems.push(Problem::error(span, ambiguity.message).help(ambiguity.help));
            Value::Refused
        }
    };
    Node { span, value }
}

/// A plain scalar that means different things to different YAML readers.
pub(super) struct Ambiguity {
    message: String,
    help: String,
}

/// Whether a plain scalar is refused, a merge key, or a number with a fraction or exponent: no format of ours has any.
pub(super) fn is_ambiguous(text: &str) -> bool {
    text == "<<" || matches!(resolve(text), Err(_) | Ok(Some(Value::Float(_))))
}

/// What a plain scalar means by YAML 1.2's core schema; `None`: a string.
pub(super) fn resolve(text: &str) -> Result<Option<Value<'static>>, Ambiguity> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    Ok(Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if ["yes", "no", "on", "off"]
            .iter()
            .any(|word| text.eq_ignore_ascii_case(word)) =>
        {
            return Err(Ambiguity {
                message: format!("`{text}` is a boolean in YAML 1.1 and a word in YAML 1.2"),
                help: format!("write `true` or `false`, or {text:?} in quotes for the word"),
            });
        }
        _ if digits.len() > 1
            && digits.starts_with('0')
            && digits.bytes().all(|b| b.is_ascii_digit()) =>
        {
            return Err(Ambiguity {
                message: format!("`{text}` is octal in YAML 1.1 and decimal in YAML 1.2"),
                help: "write the number without leading zeros, or the text in quotes".into(),
            });
        }
        _ => match number(text, digits) {
            Some(value) => value,
            None => return Ok(None),
        },
    }))
}

fn number(text: &str, digits: &str) -> Option<Value<'static>> {
    let first = digits.bytes().next()?;
    if !(first.is_ascii_digit() || first == b'.') {
        return None;
    }
    // An address or prefix: no number has two points, or a slash.
    if text.contains('/') || text.find('.') != text.rfind('.') {
        return None;
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(Value::Unsigned);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return u64::from_str_radix(octal, 8).ok().map(Value::Unsigned);
    }
    if let Ok(number) = text.parse::<u64>() {
        return Some(Value::Unsigned(number));
    }
    if let Ok(number) = text.parse::<i64>() {
        return Some(Value::Negative(number));
    }
    text.parse::<f64>().ok().map(Value::Float)
}

impl<'a> Node<'a> {
    /// The text of a string scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What a key is called, also where it should have been a word and isn't.
    pub(crate) fn name(&self) -> Cow<'a, str> {
        match &self.value {
            Value::Text(text) => text.clone(),
            Value::Null => Cow::Borrowed("null"),
            Value::Bool(value) => value.to_string().into(),
            Value::Unsigned(number) => number.to_string().into(),
            Value::Negative(number) => number.to_string().into(),
            Value::Float(number) => number.to_string().into(),
            Value::Sequence(_) | Value::Mapping(_) | Value::Refused | Value::Removed => {
                Cow::Borrowed("?")
            }
        }
    }

    fn move_behind(&mut self, characters: usize) {
        self.span = self.span.behind(characters);
        match &mut self.value {
            Value::Sequence(items) => {
                for item in items {
                    item.move_behind(characters);
                }
            }
            Value::Mapping(entries) => {
                for (key, value) in entries {
                    key.move_behind(characters);
                    value.move_behind(characters);
                }
            }
            _ => {}
        }
    }

    fn is_collection(&self) -> bool {
        matches!(self.value, Value::Sequence(_) | Value::Mapping(_))
    }

    fn count(&self) -> usize {
        1 + match &self.value {
            Value::Sequence(items) => items.iter().map(Node::count).sum(),
            Value::Mapping(entries) => entries
                .iter()
                .map(|(key, value)| key.count() + value.count())
                .sum(),
            _ => 0,
        }
    }

    /// What a segment of a path leads to, and the place of its key.
    fn child(&self, segment: &Segment) -> Option<(Span, &Self)> {
        match (segment, &self.value) {
            (Segment::Key(name), Value::Mapping(entries)) => entries
                .iter()
                .find(|(key, _)| key.name() == **name)
                .map(|(key, value)| (key.span, value)),
            (Segment::Index(index), Value::Sequence(items)) => {
                items.get(*index).map(|item| (item.span, item))
            }
            _ => None,
        }
    }

    /// Where `path` stands: a scalar's own place, else its key's. The nearest parent where the path goes further
    /// than the tree (a default that nobody wrote).
    pub(crate) fn locate(&self, path: &Path) -> Span {
        self.locate_by(path, Self::child)
    }

    fn locate_by<'n>(
        &'n self,
        path: &Path,
        child: impl Fn(&'n Self, &Segment) -> Option<(Span, &'n Self)>,
    ) -> Span {
        let mut node = self;
        let mut span = self.span;
        for segment in path.segments() {
            let Some((key, next)) = child(node, segment) else {
                return span;
            };
            node = next;
            // Nothing has no place of its own either.
            span = if node.is_collection() || matches!(node.value, Value::Null) {
                key
            } else {
                node.span
            };
        }
        span
    }

    /// Takes the entry at `path` out of the tree. False where there is none.
    pub(crate) fn remove(&mut self, path: &Path) -> bool {
        let Some((last, parents)) = path.segments().split_last() else {
            return false;
        };
        let mut node = self;
        for segment in parents {
            let next = match (segment, &mut node.value) {
                (Segment::Key(name), Value::Mapping(entries)) => entries
                    .iter_mut()
                    .find(|(key, _)| key.name() == **name)
                    .map(|(_, value)| value),
                (Segment::Index(index), Value::Sequence(items)) => items.get_mut(*index),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => return false,
            }
        }
        match (last, &mut node.value) {
            (Segment::Key(name), Value::Mapping(entries)) => {
                let before = entries.len();
                entries.retain(|(key, _)| key.name() != **name);
                entries.len() < before
            }
            (Segment::Index(index), Value::Sequence(items)) => match items.get_mut(*index) {
                Some(item) if !matches!(item.value, Value::Removed) => {
                    item.value = Value::Removed;
                    true
                }
                _ => false,
            },
            _ => false,
        }
    }
}

/// A tree in which many paths are looked up: each large mapping is gone through once.
pub(crate) struct Index<'t, 's> {
    /// `None`: there is no tree, and so no place of anything.
    root: Option<&'t Node<'s>>,
    /// Positions of the keys, by the mapping's address.
    keys: RefCell<HashMap<usize, HashMap<String, usize>>>,
}

impl<'t, 's> Index<'t, 's> {
    /// Mappings with fewer entries are gone through each time.
    const SMALL: usize = 32;

    pub(crate) fn new(root: &'t Node<'s>) -> Self {
        Self {
            root: Some(root),
            keys: RefCell::default(),
        }
    }

    /// For those who only want to know whether there is anything to say.
    pub(crate) fn nowhere() -> Self {
        Self {
            root: None,
            keys: RefCell::default(),
        }
    }

    /// What `path` leads to.
    pub(crate) fn find(&self, path: &Path) -> Option<&'t Node<'s>> {
        let mut segments = path.segments().iter();
        segments.try_fold(self.root?, |node, segment| {
            Some(self.child(node, segment)?.1)
        })
    }

    /// As [`Node::locate`].
    pub(crate) fn locate(&self, path: &Path) -> Span {
        self.root.map_or_else(Span::default, |root| {
            root.locate_by(path, |node, segment| self.child(node, segment))
        })
    }

    fn child(&self, node: &'t Node<'s>, segment: &Segment) -> Option<(Span, &'t Node<'s>)> {
        let (Segment::Key(name), Value::Mapping(entries)) = (segment, &node.value) else {
            return node.child(segment);
        };
        if entries.len() < Self::SMALL {
            return node.child(segment);
        }
        let mut keys = self.keys.borrow_mut();
        let keys = keys
            .entry(std::ptr::from_ref(node).addr())
            .or_insert_with(|| {
                let keys = entries.iter().enumerate();
                // Backwards, so that the first of a name stays.
                let keys = keys
                    .rev()
                    .map(|(index, (key, _))| (key.name().into_owned(), index));
                keys.collect()
            });
        let (key, value) = entries.get(*keys.get(name.as_str())?)?;
        Some((key.span, value))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::topology::testing::{check, check_below, problems};

    #[test]
    fn refuses_what_yaml_versions_read_differently() {
        check(&[
            ("version: »01", &["`01` is octal in YAML 1.1"]),
            (
                "routes: [{to: 10.0.0.0/8, device: e, metric: »010}]",
                &["`010` is octal"],
            ),
            (
                "tunnels: {tun1: {local: 10.0.0.1, state: »no}}",
                &["`no` is a boolean"],
            ),
            (
                "tunnels: {tun1: {local: 10.0.0.1, pmtudisc: »Off}}",
                &["`Off` is a boolean"],
            ),
            ("tunnels: {»on: {local: 10.0.0.1}}", &["`on` is a boolean"]),
            ("tunnels: {\"on\": {local: 10.0.0.1}}", &[]),
            (
                "tunnels: {tun1: {local: 10.0.0.1, pmtudisc: True, ttl: 0x40}}",
                &[],
            ),
        ]);
        check_below(
            "",
            &[("name: »010", &["`010` is octal"]), ("name: \"010\"", &[])],
        );
    }

    #[test]
    fn refuses_keys_that_are_ambiguous_or_no_words() {
        check(&[
            (
                "version: 1\n»version: 1",
                &["key \"version\" is given twice"],
            ),
            (
                "tunnels:\n  tun1: {local: 10.0.0.1}\n  »tun1: {local: 10.0.0.2}",
                &["key \"tun1\" is given twice"],
            ),
            ("? »[a, b]\n: c", &["a key must be a word"]),
            ("? »{a: b}\n: c", &["a key must be a word"]),
            ("»~: 1", &["unknown key \"null\""]),
            (
                "tunnels: {»100: {local: 10.0.0.1}}",
                &["expected the name of a network interface, found the number 100"],
            ),
            ("tunnels: {\"100\": {local: 10.0.0.1}}", &[]),
        ]);
    }

    #[test]
    fn shows_where_a_duplicate_was_given_first() {
        let found = problems("name: t\nversion: 1\nversion: 1\n").to_string();
        assert!(found.contains("test.yaml:3:1"), "{found}");
        assert!(found.contains("test.yaml:2:1"), "{found}");
        assert!(found.contains("first given here"), "{found}");
    }

    #[test]
    fn merges_and_copies_within_reason() {
        check(&[
            (
                "tunnels:\n  tun1: &base {local: 10.0.0.1, ttl: 64}\n  tun2: {<<: *base, local: 10.0.0.2}",
                &[],
            ),
            (
                "tunnels:\n  tun1: &base {local: 10.0.0.1, ttl: »300}\n  tun2: {<<: *base, local: 10.0.0.2}",
                &["tunnels.tun1.ttl: expected", "tunnels.tun2.ttl: expected"],
            ),
            (
                "tunnels:\n  tun1: {<<: »3, local: 10.0.0.1}",
                &["`<<` merges a mapping"],
            ),
            ("routes: &all [»*all]", &["an alias inside its own anchor"]),
            ("routes: »*none", &["found unknown anchor"]),
        ]);
    }

    #[test]
    fn refuses_what_is_no_single_plain_document() {
        check(&[
            ("»---\nname: u", &["a second YAML document"]),
            ("version: »!!int 1", &["uses no YAML tags"]),
            ("tunnels: »!ours {}", &["uses no YAML tags"]),
            (
                "tunnels:\n\t»tun1: {}",
                &["not valid YAML: tabs disallowed"],
            ),
            (
                "defaults: a»: b",
                &["not valid YAML: mapping values are not allowed"],
            ),
        ]);
        check_below(
            "",
            &[
                ("»", &["no YAML document"]),
                ("»# nothing\n# at all\n", &["no YAML document"]),
                ("---\n»...\n", &["expected a mapping, found nothing"]),
                ("»[1, t]", &["expected a mapping, found a list"]),
                ("»text", &["expected a mapping, found \"text\""]),
                ("name: t»\0", &["not valid YAML"]),
                ("{»", &["not valid YAML"]),
            ],
        );
    }

    #[test]
    fn counts_characters_whatever_the_encoding_of_lines() {
        for (source, line, column) in [
            ("name: t\r\nfoo: 1\r\n", 2, 1),
            ("\u{feff}foo: 1\nname: t\n", 1, 1),
            ("# äöü€😀\nname: t\ndefaults: {ä: 1, mode: no}\n", 3, 24),
            ("name: t\n\n\n  \nversion: 2\n", 5, 10),
        ] {
            let found = problems(source);
            let places: Vec<_> = found.located().map(|at| (at.line, at.column)).collect();
            assert!(places.contains(&(line, column)), "{source:?}: {places:?}");
        }
    }

    /// What would cost a naive reader a minute or all the memory ends at once, with a message at its place.
    #[test]
    fn ends_quickly_on_bombs() {
        let nested = |open: &str| open.repeat(200_000);
        let laughs: String = (0..9)
            .map(|n| match n {
                0 => "  l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned(),
                _ => {
                    let alias = format!("*l{}, ", n - 1).repeat(10);
                    format!("  l{n}: &l{n} [{alias}]\n")
                }
            })
            .collect();
        let merges: String = (1..60)
            .map(|n| {
                format!(
                    "  l{n}: &l{n} {{a{n}: 1, <<: [*l{}, *l{}]}}\n",
                    n - 1,
                    n - 1
                )
            })
            .collect();
        for (source, expected) in [
            (nested("["), "nested more than 32 levels"),
            (nested("{a: "), "nested more than 32 levels"),
            (nested("- "), "nested more than 32 levels"),
            (nested("? "), "nested more than 32 levels"),
            (
                format!("name: t\nignored:\n{laughs}"),
                "anchors and aliases copy",
            ),
            (
                format!("name: t\nignored:\n  l0: &l0 {{a: 1}}\n{merges}"),
                "unknown key \"ignored\"",
            ),
            ("a".repeat(MAX_LINE + 1), "this line has 33554433 bytes"),
        ] {
            let started = Instant::now();
            let found = problems(&source);
            let shown = found.to_string();
            assert!(shown.contains(expected), "{shown}");
            assert!(shown.len() < 2_000, "{} bytes", shown.len());
            let took = started.elapsed();
            assert!(took < Duration::from_secs(5), "{expected}: {took:?}");
        }
    }
}
