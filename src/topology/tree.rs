//! YAML as a tree whose every node knows where it stands.
//!
//! Built from a parser's events under a budget, so that deep nesting, alias bombs and endless lines end in an error at
//! their position rather than in a minute of work. What YAML 1.1 and 1.2 read differently (`no`, `010`) is refused
//! here, for keys and values alike: a topology must not mean one thing to this tool and another to the next.

use std::borrow::Cow;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span as ParserSpan};

use super::problem::{Path, Problem, Segment, Span};

/// Nesting that no topology needs.
const MAX_DEPTH: usize = 32;
/// The largest source, bytes. A million routes take about 40 MB.
const MAX_SOURCE: usize = 256 << 20;
/// The longest line, bytes. JSON without line breaks is YAML too.
const MAX_LINE: usize = 32 << 20;
/// Nodes that aliases and merge keys may copy, in all.
const MAX_COPIED: usize = 100_000;

/// A node and the characters that it spans.
#[derive(Debug, Clone)]
pub(super) struct Node<'a> {
    pub(super) span: Span,
    pub(super) value: Value<'a>,
}

#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    Text(Cow<'a, str>),
    Sequence(Vec<Node<'a>>),
    Mapping(Vec<(Node<'a>, Node<'a>)>),
}

/// Reads one YAML document. Syntax errors end at the first; duplicate keys and ambiguous scalars are collected.
pub(super) fn parse(source: &str) -> Result<Node<'_>, Vec<Problem>> {
    check_size(source).map_err(|problem| vec![problem])?;
    let mut builder = Builder {
        parser: Parser::new_from_str(source),
        anchors: Vec::new(),
        copied: 0,
        problems: vec![],
    };
    let root = builder.document().map_err(|problem| vec![*problem])?;
    if builder.problems.is_empty() {
        Ok(root)
    } else {
        Err(builder.problems)
    }
}

fn check_size(source: &str) -> Result<(), Problem> {
    if source.len() > MAX_SOURCE {
        let message = format!(
            "the file has {} bytes, more than the {MAX_SOURCE} allowed",
            source.len()
        );
        return Err(Problem::error(Span::at(0), message));
    }
    let mut start = 0;
    for (number, line) in source.split('\n').enumerate() {
        if line.len() > MAX_LINE {
            let message = format!(
                "line {} has {} bytes, more than the {MAX_LINE} allowed",
                number + 1,
                line.len()
            );
            return Err(Problem::error(
                Span::at(source[..start].chars().count()),
                message,
            ));
        }
        start += line.len() + 1;
    }
    Ok(())
}

/// A syntax error: the tree can't be built past it. Boxed because it is the rare case.
type Fatal = Box<Problem>;

struct Builder<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: Vec<(usize, Node<'a>)>,
    copied: usize,
    problems: Vec<Problem>,
}

impl<'a> Builder<'a> {
    fn document(&mut self) -> Result<Node<'a>, Fatal> {
        let root = loop {
            match self.event()? {
                (Event::StreamStart | Event::DocumentStart(_), _) => {}
                (Event::StreamEnd, span) => {
                    let help = "write at least `name: NAME`; the name marks what the topology owns in the kernel";
                    return Err(Box::new(
                        Problem::error(start(span), "the file holds no YAML document").help(help),
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
                    let message = "a second YAML document: a topology is one document";
                    return Err(Box::new(Problem::error(start(span), message)));
                }
            }
        }
    }

    fn event(&mut self) -> Result<(Event<'a>, ParserSpan), Fatal> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let at = Span::at(error.marker().index());
                Err(Box::new(Problem::error(
                    at,
                    format!("not valid YAML: {}", error.info()),
                )))
            }
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
            let message = format!("nested more than {MAX_DEPTH} levels deep");
            return Err(Box::new(Problem::error(start(span), message)));
        }
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(tag.is_some(), span)?;
                (anchor, self.scalar(text, style, span))
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_tag(tag.is_some(), span)?;
                (anchor, self.sequence(span, depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                refuse_tag(tag.is_some(), span)?;
                (anchor, self.mapping(span, depth)?)
            }
            Event::Alias(anchor) => (0, self.alias(anchor, span)?),
            _ => return Err(Box::new(Problem::error(start(span), "expected a value"))),
        };
        if anchor != 0 {
            self.budget(&node, span)?;
            self.anchors.push((anchor, node.clone()));
        }
        Ok(node)
    }

    fn sequence(&mut self, opened: ParserSpan, depth: usize) -> Result<Node<'a>, Fatal> {
        let mut items = Vec::new();
        loop {
            match self.event()? {
                (Event::SequenceEnd, _) => break,
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
        Ok(Node {
            span: start(opened),
            value: Value::Sequence(items),
        })
    }

    fn mapping(&mut self, opened: ParserSpan, depth: usize) -> Result<Node<'a>, Fatal> {
        let mut entries: Vec<(Node<'a>, Node<'a>)> = Vec::new();
        let mut seen = std::collections::HashMap::new();
        let mut merges = Vec::new();
        loop {
            let key = match self.event()? {
                (Event::MappingEnd, _) => break,
                (event, span) => self.node(event, span, depth + 1)?,
            };
            let (event, span) = self.event()?;
            let value = self.node(event, span, depth + 1)?;
            match key.text() {
                Some("<<") => merges.push(value),
                Some(name) => match seen.insert(name.to_owned(), key.span) {
                    Some(first) => self.problems.push(
                        Problem::error(key.span, format!("key {name:?} is given twice"))
                            .related(first, "first given here")
                            .help("delete one of the two; YAML leaves open which one counts"),
                    ),
                    None => entries.push((key, value)),
                },
                None if matches!(key.value, Value::Sequence(_) | Value::Mapping(_)) => {
                    self.problems.push(Problem::error(
                        key.span,
                        "a key must be a word, not a list or a mapping",
                    ));
                }
                None => entries.push((key, value)),
            }
        }
        for merge in merges {
            self.merge(&mut entries, &mut seen, merge)?;
        }
        Ok(Node {
            span: start(opened),
            value: Value::Mapping(entries),
        })
    }

    /// `<<: *anchor`: the anchor's keys, where the mapping has none of its own.
    fn merge(
        &mut self,
        entries: &mut Vec<(Node<'a>, Node<'a>)>,
        seen: &mut std::collections::HashMap<String, Span>,
        source: Node<'a>,
    ) -> Result<(), Fatal> {
        match source.value {
            Value::Mapping(merged) => {
                for (key, value) in merged {
                    let name = key.text().unwrap_or_default().to_owned();
                    if let std::collections::hash_map::Entry::Vacant(slot) = seen.entry(name) {
                        slot.insert(key.span);
                        entries.push((key, value));
                    }
                }
            }
            Value::Sequence(items) => {
                for item in items {
                    self.merge(entries, seen, item)?;
                }
            }
            _ => self.problems.push(Problem::error(
                source.span,
                "`<<` merges a mapping or a list of mappings",
            )),
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, span: ParserSpan) -> Result<Node<'a>, Fatal> {
        let Some((_, node)) = self.anchors.iter().rev().find(|(id, _)| *id == anchor) else {
            return Err(Box::new(Problem::error(
                start(span),
                "an alias inside its own anchor",
            )));
        };
        let node = node.clone();
        self.budget(&node, span)?;
        Ok(node)
    }

    fn budget(&mut self, node: &Node, span: ParserSpan) -> Result<(), Fatal> {
        self.copied += node.count();
        if self.copied > MAX_COPIED {
            let message = format!("aliases expand to more than {MAX_COPIED} nodes");
            return Err(Box::new(Problem::error(start(span), message)));
        }
        Ok(())
    }

    fn scalar(&mut self, text: Cow<'a, str>, style: ScalarStyle, span: ParserSpan) -> Node<'a> {
        let span = Span {
            start: span.start.index(),
            end: span.end.index().max(span.start.index() + 1),
        };
        let value = match style {
            ScalarStyle::Plain => match resolve(&text) {
                Ok(Some(value)) => value,
                Ok(None) => Value::Text(text),
                Err(ambiguity) => {
                    self.problems
                        .push(Problem::error(span, ambiguity.message).help(ambiguity.help));
                    Value::Text(text)
                }
            },
            _ => Value::Text(text),
        };
        Node { span, value }
    }
}

fn start(span: ParserSpan) -> Span {
    Span::at(span.start.index())
}

fn refuse_tag(tagged: bool, span: ParserSpan) -> Result<(), Fatal> {
    if tagged {
        Err(Box::new(Problem::error(
            start(span),
            "a topology uses no YAML tags",
        )))
    } else {
        Ok(())
    }
}

/// A plain scalar that means different things to different YAML readers.
struct Ambiguity {
    message: String,
    help: String,
}

/// What a plain scalar means by YAML 1.2's core schema; `None`: a string.
fn resolve(text: &str) -> Result<Option<Value<'static>>, Ambiguity> {
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
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
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

    /// Where `path` stands: a scalar's own place, else its key's. The nearest parent where the path goes further
    /// than the tree (a default that nobody wrote).
    pub(super) fn locate(&self, path: &Path) -> Span {
        let mut node = self;
        let mut span = self.span;
        for segment in path.segments() {
            let (key, next) = match (segment, &node.value) {
                (Segment::Key(name), Value::Mapping(entries)) => {
                    match entries.iter().find(|(key, _)| key.text() == Some(name)) {
                        Some((key, value)) => (key.span, value),
                        None => return span,
                    }
                }
                (Segment::Index(index), Value::Sequence(items)) => match items.get(*index) {
                    Some(item) => (item.span, item),
                    None => return span,
                },
                _ => return span,
            };
            node = next;
            span = if matches!(node.value, Value::Sequence(_) | Value::Mapping(_)) {
                key
            } else {
                node.span
            };
        }
        span
    }

    /// Takes the entry at `path` out of the tree. False where there is none.
    pub(super) fn remove(&mut self, path: &Path) -> bool {
        let Some((last, parents)) = path.segments().split_last() else {
            return false;
        };
        let mut node = self;
        for segment in parents {
            let next = match (segment, &mut node.value) {
                (Segment::Key(name), Value::Mapping(entries)) => entries
                    .iter_mut()
                    .find(|(key, _)| key.text() == Some(name))
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
                entries.retain(|(key, _)| key.text() != Some(name));
                entries.len() < before
            }
            // Later items keep their index: paths that were recorded stay true.
            (Segment::Index(index), Value::Sequence(items)) => match items.get_mut(*index) {
                Some(item) if !matches!(item.value, Value::Null) => {
                    item.value = Value::Null;
                    true
                }
                _ => false,
            },
            _ => false,
        }
    }
}
