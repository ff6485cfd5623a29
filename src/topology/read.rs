//! From the tree to the types, with every problem rather than the first.
//!
//! serde stops at its first error. Each error carries its path, so the entry at fault is taken out of the tree and the
//! rest is read again, until what's left reads well. What has an error is left out of the check of meaning too.

use serde::Deserialize;
use serde::de::{
    self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, Unexpected, Visitor,
};

use super::Topology;
use super::problem::{Path, Problem, Segment, Span};
use super::tree::{Node, Value};

/// Past this many errors, reading again costs more than the next message is worth.
const MAX_PROBLEMS: usize = 100;

/// What could be read, and what couldn't.
pub(super) struct Reading {
    /// `None` where too little is left to make sense.
    pub(super) topology: Option<Topology>,
    pub(super) problems: Vec<Problem>,
}

/// Reads a topology from its tree.
pub(super) fn read(root: &Node) -> Reading {
    match Topology::deserialize(Reader { node: root }) {
        Ok(topology) => Reading {
            topology: Some(topology),
            problems: Vec::new(),
        },
        Err(error) => read_around(root, error),
    }
}

fn read_around(root: &Node, first: ReadError) -> Reading {
    let mut tree = root.clone();
    let mut sound = root.clone();
    let mut problems = Vec::new();
    let mut error = first;
    loop {
        let again = make_readable(&mut tree, &error);
        make_readable(
            &mut sound,
            &ReadError {
                path: entry_of(&error.path),
                ..error.clone()
            },
        );
        problems.push(error.into_problem(root));
        if !again || problems.len() == MAX_PROBLEMS {
            return Reading {
                topology: None,
                problems,
            };
        }
        match Topology::deserialize(Reader { node: &tree }) {
            Ok(_) => {
                return Reading {
                    topology: Topology::deserialize(Reader { node: &sound }).ok(),
                    problems,
                };
            }
            Err(next) => error = next,
        }
    }
}

/// Takes what is wrong out of the tree; gives a required key a value that stands for it.
fn make_readable(tree: &mut Node, error: &ReadError) -> bool {
    match (&error.missing, error.path.segments()) {
        (Some(key), []) => stand_in(tree, key),
        (_, [Segment::Key(key)]) if key == "name" => {
            tree.remove(&error.path) && stand_in(tree, "name")
        }
        _ => tree.remove(&error.path),
    }
}

fn stand_in(tree: &mut Node, key: &'static str) -> bool {
    let Value::Mapping(entries) = &mut tree.value else {
        return false;
    };
    let node = |text: &'static str| Node {
        span: tree.span,
        value: Value::Text(text.into()),
    };
    entries.push((node(key), node("unnamed")));
    true
}

/// The tunnel, address or route that a path leads into: half of one would be checked for the wrong meaning.
fn entry_of(path: &Path) -> Path {
    let depth = match path.segments() {
        [
            Segment::Key(top),
            _,
            Segment::Key(list),
            Segment::Index(_),
            ..,
        ] if top == "tunnels" && is_list(list) => 4,
        [Segment::Key(top), _, Segment::Index(_), ..] if top == "addresses" => 3,
        [Segment::Key(top), ..] if top == "tunnels" || top == "addresses" || top == "routes" => 2,
        _ => 1,
    };
    path.prefix(depth)
}

fn is_list(key: &str) -> bool {
    key == "addresses" || key == "routes"
}

/// An error of serde's, with the path to the entry at fault.
#[derive(Debug, Clone)]
pub(super) struct ReadError {
    message: String,
    help: Option<String>,
    path: Path,
    /// The key itself is wrong, not its value.
    at_key: Option<Span>,
    missing: Option<&'static str>,
}

impl ReadError {
    fn new(message: String) -> Self {
        Self {
            message,
            help: None,
            path: Path::default(),
            at_key: None,
            missing: None,
        }
    }

    fn within(mut self, segment: Segment) -> Self {
        self.path.prepend(segment);
        self
    }

    fn into_problem(self, root: &Node) -> Problem {
        let span = self.at_key.unwrap_or_else(|| root.locate(&self.path));
        let place = if self.path.segments().is_empty() {
            String::new()
        } else {
            format!("{}: ", self.path)
        };
        let problem = Problem::error(span, format!("{place}{}", self.message));
        match self.help {
            Some(help) => problem.help(help),
            None => problem,
        }
    }
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.message)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        // A parser of ours may add what to do, behind a line break.
        let text = message.to_string();
        match text.split_once('\n') {
            Some((message, help)) => Self {
                help: Some(help.into()),
                ..Self::new(message.into())
            },
            None => Self::new(text),
        }
    }

    fn invalid_type(found: Unexpected, expected: &dyn Expected) -> Self {
        let error = Self::invalid_value(found, expected);
        match found {
            Unexpected::Unit => Self {
                help: Some("delete the key to mean its default, or give it a value".into()),
                ..error
            },
            _ => error,
        }
    }

    fn invalid_value(found: Unexpected, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}, found {}", show(found)))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let close = similar::get_close_matches(field, expected, 1, 0.6);
        let help = match close.first() {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("the keys here are {}", expected.join(", ")),
        };
        Self {
            help: Some(help),
            ..Self::new(format!("unknown key {field:?}"))
        }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("expected {}, found {variant:?}", words(expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        let help = (field == "name").then(|| {
            "it marks in the kernel what this topology owns; two files that shared a default name would prune each \
             other's objects"
                .to_owned()
        });
        Self {
            help,
            missing: Some(field),
            ..Self::new(format!("the key `{field}` is required"))
        }
    }
}

fn words(list: &[&str]) -> String {
    match list {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [head @ .., last] => {
            let head: Vec<String> = head.iter().map(|word| format!("`{word}`")).collect();
            format!("{} or `{last}`", head.join(", "))
        }
    }
}

fn show(found: Unexpected) -> String {
    match found {
        Unexpected::Unit => "nothing".into(),
        Unexpected::Str(text) => format!("{text:?}"),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "a mapping".into(),
        Unexpected::Unsigned(number) => format!("the number {number}"),
        Unexpected::Signed(number) => format!("the number {number}"),
        Unexpected::Float(number) => format!("the number {number}"),
        Unexpected::Bool(value) => format!("the boolean {value}"),
        other => other.to_string(),
    }
}

/// serde's view of a node.
#[derive(Clone, Copy)]
struct Reader<'t, 's> {
    node: &'t Node<'s>,
}

impl<'de, 's> IntoDeserializer<'de, ReadError> for Reader<'_, 's> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Reader<'_, '_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Unsigned(number) => visitor.visit_u64(*number),
            Value::Negative(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Text(text) => visitor.visit_str(text),
            Value::Sequence(items) => visitor.visit_seq(Items {
                items: items.iter().enumerate(),
            }),
            Value::Mapping(entries) => visitor.visit_map(Entries {
                entries: entries.iter(),
                value: None,
            }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        // A key with nothing behind it is an accident (`remote:`), not a wish for the default.
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Text(text) => {
                visitor.visit_enum(IntoDeserializer::<ReadError>::into_deserializer(&**text))
            }
            _ => Err(self.mismatch(&words(variants))),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

impl Reader<'_, '_> {
    fn mismatch(self, expected: &str) -> ReadError {
        struct Nothing<'a>(&'a str);
        impl Visitor<'_> for Nothing<'_> {
            type Value = ();
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str(self.0)
            }
        }
        match self.deserialize_any(Nothing(expected)) {
            Err(error) => error,
            Ok(()) => ReadError::new(format!("expected {expected}")),
        }
    }
}

struct Items<'t, 's> {
    items: std::iter::Enumerate<std::slice::Iter<'t, Node<'s>>>,
}

impl<'de> de::SeqAccess<'de> for Items<'_, '_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ReadError> {
        match self.items.next() {
            Some((index, node)) => seed
                .deserialize(Reader { node })
                .map(Some)
                .map_err(|error| error.within(Segment::Index(index))),
            None => Ok(None),
        }
    }
}

struct Entries<'t, 's> {
    entries: std::slice::Iter<'t, (Node<'s>, Node<'s>)>,
    value: Option<(&'t Node<'s>, &'t Node<'s>)>,
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ReadError> {
        let Some((key, value)) = self.entries.next() else {
            return Ok(None);
        };
        self.value = Some((key, value));
        seed.deserialize(Reader { node: key })
            .map(Some)
            .map_err(|error| {
                let mut error =
                    error.within(Segment::Key(key.text().unwrap_or_default().to_owned()));
                error.at_key = Some(key.span);
                error
            })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let Some((key, node)) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(Reader { node })
            .map_err(|error| error.within(Segment::Key(key.text().unwrap_or_default().to_owned())))
    }
}
