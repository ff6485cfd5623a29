//! From the tree to types, with every problem rather than the first.
//!
//! serde stops at its first error. Each error carries its path, so the entry at fault is taken out of the tree and the
//! rest is read again, until what's left reads well. What has an error is left out of the check of meaning too.

use std::collections::BTreeSet;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess,
    Unexpected, Visitor,
};

use super::problem::{Path, Problem, Segment, Span};
use super::tree::{Node, Value};

/// Past this many errors, reading again costs more than the next message is worth.
const MAX_PROBLEMS: usize = 100;

/// What could be read, and what couldn't.
pub(crate) struct Reading<T> {
    /// `None` where too little is left to make sense.
    pub(crate) document: Option<T>,
    pub(crate) problems: Vec<Problem>,
    /// What the file has and `document` lacks.
    pub(crate) lost: Lost,
}

/// The entries that were left out of a document because something in them couldn't be read.
#[derive(Default)]
pub(crate) struct Lost(Vec<Path>);

impl Lost {
    /// The path in the file of what has `path` in the document: behind a lost item of a list the indices differ.
    pub(crate) fn written(&self, path: &Path) -> Path {
        let mut written = Path::default();
        for segment in path.segments() {
            written = match segment {
                Segment::Key(key) => written.key(key),
                Segment::Index(index) => {
                    let index = self.written_index(&written, *index);
                    written.index(index)
                }
            };
        }
        written
    }

    fn written_index(&self, list: &Path, mut index: usize) -> usize {
        let lost: BTreeSet<usize> = self
            .0
            .iter()
            .filter_map(|path| match path.segments().split_last()? {
                (Segment::Index(lost), parent) if parent == list.segments() => Some(*lost),
                _ => None,
            })
            .collect();
        for lost in lost {
            if lost <= index {
                index += 1;
            }
        }
        index
    }

    /// Something is missing, and nobody knows what.
    pub(crate) fn add_unknown(&mut self) {
        self.0.push(Path::default());
    }

    /// Whether something that satisfies the condition is missing.
    pub(crate) fn any(&self, condition: impl FnMut(&Path) -> bool) -> bool {
        self.0.iter().any(condition)
    }
}

/// What a file's types have to say about reading around errors.
pub(crate) struct Shape {
    /// The address, route or option that a path leads into: half of one would be checked for the wrong meaning.
    pub(crate) entry_of: fn(&Path) -> Path,
}

/// Reads a document from its tree.
pub(crate) fn read<T: DeserializeOwned>(root: &Node, shape: &Shape) -> Reading<T> {
    match T::deserialize(Reader { node: root }) {
        Ok(document) => Reading {
            document: Some(document),
            problems: Vec::new(),
            lost: Lost::default(),
        },
        Err(error) => read_around(root, error, shape),
    }
}

fn read_around<T: DeserializeOwned>(root: &Node, first: ReadError, shape: &Shape) -> Reading<T> {
    let mut tree = root.clone();
    let mut sound = root.clone();
    let mut problems = Vec::new();
    let mut removed = Vec::new();
    let mut lost = Lost::default();
    let mut error = first;
    let document = loop {
        let again = make_readable(&mut tree, &error);
        let entry = ReadError {
            path: (shape.entry_of)(&error.path),
            ..error.clone()
        };
        make_readable(&mut sound, &entry);
        lost.0.push(entry.path);
        removed.push(error.path.clone());
        let news = !error.reported && !error.follows_from(&removed);
        if news {
            problems.push(error.into_problem(root));
        }
        if problems.len() == MAX_PROBLEMS {
            let end = problems[MAX_PROBLEMS - 1].span.end;
            problems.push(Problem::error(
                Span::at(end),
                format!("reading ends here, after {MAX_PROBLEMS} errors"),
            ));
            break None;
        }
        if !again {
            break None;
        }
        match T::deserialize(Reader { node: &tree }) {
            Ok(_) => break T::deserialize(Reader { node: &sound }).ok(),
            Err(next) => error = next,
        }
    };
    Reading {
        document,
        problems,
        lost,
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

/// An error of serde's, with the path to the entry at fault.
#[derive(Debug, Clone)]
pub(crate) struct ReadError {
    message: String,
    help: Option<String>,
    path: Path,
    /// The key itself is wrong, not its value.
    at_key: Option<Span>,
    missing: Option<&'static str>,
    /// The tree has told of it.
    reported: bool,
}

impl ReadError {
    fn new(message: String) -> Self {
        Self {
            message,
            help: None,
            path: Path::default(),
            at_key: None,
            missing: None,
            reported: false,
        }
    }

    /// A required key is missing because it was taken out for its own error.
    fn follows_from(&self, removed: &[Path]) -> bool {
        self.missing
            .is_some_and(|key| removed.contains(&self.path.key(key)))
    }

    fn within(mut self, segment: Segment) -> Self {
        self.path.prepend(segment);
        self
    }

    fn into_problem(self, root: &Node) -> Problem {
        let span = self.at_key.unwrap_or_else(|| root.locate(&self.path));
        // The message names a key that is wrong itself: its parent is the place.
        let depth = self.path.segments().len() - usize::from(self.at_key.is_some());
        let place = self.path.prefix(depth);
        let problem = Problem::error(span, place.describe(&self.message));
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
        let help = match found {
            Unexpected::Unit => "delete it to mean the default, or give it a value",
            Unexpected::Str(text) if is_plain(text) => "write it without quotes",
            _ => return error,
        };
        Self {
            help: Some(help.into()),
            ..error
        }
    }

    fn invalid_value(found: Unexpected, expected: &dyn Expected) -> Self {
        Self::new(format!(
            "expected {}, found {}",
            in_words(&expected.to_string()),
            show(found)
        ))
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

/// What serde expects, in a topology's author's words.
fn in_words(expected: &str) -> &str {
    match expected {
        "a sequence" => "a list",
        "a map" => "a mapping",
        "a boolean" => "`true` or `false`",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        other => other,
    }
}

/// Text that would mean something else without its quotes.
fn is_plain(text: &str) -> bool {
    text.parse::<bool>().is_ok() || text.parse::<u64>().is_ok()
}

fn show(found: Unexpected) -> String {
    match found {
        Unexpected::Unit => "nothing".into(),
        Unexpected::Str(text) => format!("{text:?}"),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "a mapping".into(),
        Unexpected::Unsigned(number) => format!("the number {number}"),
        Unexpected::Signed(number) => format!("the number {number}"),
        Unexpected::Float(number) => format!("the number {number:?}"),
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
            Value::Refused | Value::Removed => Err(ReadError {
                reported: true,
                ..ReadError::new(String::new())
            }),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        // serde would also take a list, key by key in the order of our source.
        match &self.node.value {
            Value::Mapping(_) | Value::Refused | Value::Removed => self.deserialize_any(visitor),
            _ => Err(self.mismatch("a mapping")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        // serde would pass over what is too much.
        match &self.node.value {
            Value::Sequence(items) if items.len() != len => Err(ReadError::new(format!(
                "expected a list of {len}, found one of {}",
                items.len()
            ))),
            _ => self.deserialize_any(visitor),
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

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        // One of our own keys, or unknown: `1` and `null` are called what they are called.
        visitor.visit_str(&self.node.name())
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple_struct map ignored_any
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
        let mut items = self
            .items
            .by_ref()
            .filter(|(_, node)| !matches!(node.value, Value::Removed));
        match items.next() {
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
                let mut error = error.within(Segment::Key(key.name().into_owned()));
                error.at_key = Some(key.span);
                error
            })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let Some((key, node)) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(Reader { node })
            .map_err(|error| error.within(Segment::Key(key.name().into_owned())))
    }
}

#[cfg(test)]
mod tests {
    use crate::topology::testing::{check, check_below, problems};

    #[test]
    fn says_what_was_expected_and_found() {
        check(&[
            ("version: »2", &["version: expected 1, the only version"]),
            ("version: »\"1\"", &["expected 1, the only version"]),
            (
                "route_protocol: »4",
                &["a routing protocol number from 5 to 255"],
            ),
            ("route_protocol: 5", &[]),
            (
                "»tunnels: []",
                &["tunnels: expected a mapping, found a list"],
            ),
            ("»tunnels:", &["tunnels: expected a mapping, found nothing"]),
            ("tunnels: {}", &[]),
            ("»routes: {}", &["routes: expected a list, found a mapping"]),
            (
                "addresses: »3",
                &["addresses: expected a mapping, found the number 3"],
            ),
            (
                "tunnels: {»tun1: []}",
                &["tunnels.tun1: expected a mapping, found a list"],
            ),
            (
                "tunnels: {tun1: »ipip}",
                &["tunnels.tun1: expected a mapping, found \"ipip\""],
            ),
            ("»rotues: []", &["unknown key \"rotues\""]),
            (
                "tunnels: {tun1: {local: 10.0.0.1, »remot: 10.0.0.2}}",
                &["tunnels.tun1: unknown key \"remot\""],
            ),
        ]);
        check_below(
            "",
            &[
                ("»version: 1", &["the key `name` is required"]),
                ("name: »7", &["expected a name of 1 to 63 letters, digits"]),
                (
                    "name: »\"a b\"",
                    &["expected a name of 1 to 63 letters, digits"],
                ),
                ("name: »true", &["found the boolean true"]),
                ("name: \"7\"", &[]),
                ("»name: [t]", &["found a list"]),
            ],
        );
    }

    #[test]
    fn checks_every_option_of_a_tunnel() {
        let tunnel = |option: &str| format!("tunnels: {{tun1: {{local: 10.0.0.1, {option}}}}}");
        for (option, expected) in [
            ("kind: »gre", "expected `ipip`, found \"gre\""),
            ("remote: »10.0.0", "expected an IPv4 address or `any`"),
            ("remote: »10.0", "found the number 10.0"),
            (
                "remote: »2001:db8::1",
                "is an IPv6 address: an ipip tunnel's outer header is IPv4",
            ),
            ("mode: »gre", "expected `ipip`, `mplsip` or `any`"),
            (
                "mode: »4",
                "expected `ipip`, `mplsip` or `any`, found the number 4",
            ),
            (
                "ttl: »0",
                "expected `inherit` or a number from 1 to 255, found the number 0",
            ),
            ("ttl: »256", "found the number 256"),
            ("ttl: »-1", "found the number -1"),
            ("ttl: »64.0", "found the number 64.0"),
            ("ttl: »\"64\"", "found \"64\""),
            ("tos: »3", "an even number from 0 to 254"),
            ("tos: »256", "an even number from 0 to 254"),
            (
                "pmtudisc: »1",
                "expected `true` or `false`, found the number 1",
            ),
            (
                "pmtudisc: »\"true\"",
                "expected `true` or `false`, found \"true\"",
            ),
            ("device: »eth 0", "interface name \"eth 0\" contains ' '"),
            ("fwmark: »4294967296", "a whole number from 0 to 4294967295"),
            ("fwmark: »99999999999999999999", "found the number 1e20"),
            ("mtu: »67", "`auto` or a number of bytes from 68 to 65515"),
            (
                "mtu: »65516",
                "`auto` or a number of bytes from 68 to 65515",
            ),
            ("state: »enabled", "expected `up` or `down`"),
            ("»state: ~", "expected `up` or `down`, found nothing"),
            ("»addresses: {}", "expected a list, found a mapping"),
            (
                "routes: »10.0.0.0/8",
                "expected a list, found \"10.0.0.0/8\"",
            ),
        ] {
            check(&[(&tunnel(option), &[expected])]);
        }
        for option in [
            "kind: ipip",
            "remote: any",
            "remote: 0.0.0.0",
            "mode: mplsip",
            "ttl: 1",
            "ttl: 255",
            "ttl: inherit",
            "tos: 0",
            "tos: inherit",
            "tos: 254",
            "device: eth0.100",
            "device: \"5\"",
            "fwmark: 0xffffffff",
            "mtu: 68",
            "mtu: 65515",
            "mtu: auto",
            "state: down",
        ] {
            check(&[(&tunnel(option), &[])]);
        }
    }

    #[test]
    fn checks_the_words_of_addresses_and_routes() {
        check(&[
            (
                "addresses: {lo: [»10.0.0.1/33]}",
                &["expected an address such as 10.0.0.1/24"],
            ),
            (
                "addresses: {lo: [»7]}",
                &["or a mapping with `address`, found the number 7"],
            ),
            ("addresses: {lo: [»~]}", &["found nothing"]),
            (
                "addresses: {lo: [»{scope: link}]}",
                &["the key `address` is required"],
            ),
            (
                "addresses: {lo: [{address: »10.0.0.256}]}",
                &["expected an address"],
            ),
            (
                "addresses: {lo: [{address: 10.0.0.1/32, label: »\"a b\"}]}",
                &["a label of 1 to 15 bytes"],
            ),
            (
                "addresses: {lo: [{address: 10.0.0.1/32, scope: »far}]}",
                &["`global`, `site`, `link`, `host` or a number"],
            ),
            (
                "addresses: {lo: [10.0.0.1, \"2001:db8::1/64\", {address: 10.0.0.2/32, scope: 200, label: lo:2}]}",
                &[],
            ),
            (
                "routes: [{to: »10.0.0.1/8, device: e}]",
                &["10.0.0.1/8 has host bits set"],
            ),
            (
                "routes: [{to: »\"2001:db8::1/32\", device: e}]",
                &["2001:db8::1/32 has host bits set"],
            ),
            ("routes: [»{device: e}]", &["the key `to` is required"]),
            (
                "routes: [{to: 10.0.0.0/8, device: e, table: »255}]",
                &["`local` is the kernel's"],
            ),
            (
                "routes: [{to: 10.0.0.0/8, device: e, table: »0}]",
                &["a table's number from 1"],
            ),
            (
                "routes: [{to: 10.0.0.0/8, device: e, tos: »2}]",
                &["a multiple of 4"],
            ),
            (
                "routes: [{to: 10.0.0.0/8, type: »local}]",
                &["`unicast`, `blackhole`"],
            ),
            (
                "routes: [{to: 10.0.0.0/8, nexthops: [{device: e, weight: »-1}]}]",
                &["a whole number from 0 to 65535"],
            ),
            (
                "routes: [{to: 10.0.0.5, device: e}, {to: 10.0.0.0/8, device: e, table: main, scope: universe}]",
                &[],
            ),
        ]);
    }

    /// Whatever one of them does to the reading, the others are found too, each at its own place.
    #[test]
    fn reports_every_problem_at_once() {
        check(&[(
            "\
version: »3
»version: 1
defaults: {ttl: 64, »mut: 5}
tunnels:
  tun1:
    local: 10.0.0.1
    remote: »10.0.0.1
    ttl: »010
    »colour: red
    addresses: [»10.1.0.0/24, {address: 10.1.0.7, »pere: 10.1.0.8}, 10.1.0.2/24, »10.1.0.2/24]
    routes:
      - »10.2.0.1/16
      - {to: 10.3.0.0/16, via: 10.9.9.9, metric: »no}
      - {to: 10.3.1.0/24, via: »10.9.9.9}
      - {to: 10.4.0.0/16, onlink: »true}
      - {to: 10.4.0.0/16, »vai: 10.1.0.9, metric: 5}
  »tun%d: {remote: 10.0.0.9}
  tun3: {local: 10.0.0.1, remote: »10.8.0.1, routes: [10.8.0.0/16]}
routes:
  - {to: »10.5.0.1/16, via: 10.0.0.1, device: eth0}
  - {to: 10.6.0.0/16, type: »blakhole}
  - »10.7.0.0/16
",
            &[
                "version: expected 1",
                "key \"version\" is given twice",
                "defaults: unknown key \"mut\"",
                "both 10.0.0.1",
                "`010` is octal",
                "tunnels.tun1: unknown key \"colour\"",
                "tunnels.tun1.addresses[0]: 10.1.0.0/24 is the network's own",
                "tunnels.tun1.addresses[1]: unknown key \"pere\"",
                "tunnels.tun1.addresses[3]: address 10.1.0.2/24 on tun1 is given twice",
                "tunnels.tun1.routes[0]: 10.2.0.1/16 has host bits",
                "`no` is a boolean",
                "tunnels.tun1.routes[2].via: no prefix of tun1",
                "tunnels.tun1.routes[3].onlink",
                "tunnels.tun1.routes[4]: unknown key \"vai\"",
                "takes tun%d for a pattern",
                "tunnels.tun3.remote",
                "routes[0].to: 10.5.0.1/16 has host bits",
                "routes[1].type: expected `unicast`",
                "routes[2]: route 10.7.0.0/16 leads nowhere",
            ],
        )]);
    }

    #[test]
    fn says_what_to_do() {
        for (source, expected) in [
            (
                "version: 1",
                "two files that shared a default name would prune each other's objects",
            ),
            ("name: t\ntunels: {}", "did you mean `tunnels`?"),
            (
                "name: t\nzzz: {}",
                "the keys here are version, name, route_protocol",
            ),
            ("name: 7", "write \"7\" in quotes"),
            ("name: t\nversion: \"1\"", "without quotes"),
            ("name: t\ntunnels:", "delete it to mean the default"),
            (
                "name: t\nroutes: [{to: 10.1.2.3/8, device: e}]",
                "write 10.0.0.0/8",
            ),
        ] {
            let found = problems(source).to_string();
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn gives_up_after_many_errors() {
        let source = "name: t\nroutes:\n".to_owned() + &"  - 10.0.0.1/8\n".repeat(1_000);
        let found = problems(&source);
        assert_eq!(found.list.len(), super::MAX_PROBLEMS + 1);
        let last = &found.list[super::MAX_PROBLEMS];
        assert!(
            last.message.contains("reading ends here"),
            "{}",
            last.message
        );
    }
}
