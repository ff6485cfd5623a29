use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_yaml::Value;

use super::read_plain;
use crate::source::{self, Shape};

/// What the long way reads, if it finds nothing wrong.
fn read_long(source: &str) -> Option<Value> {
    let tree = source::parse(source);
    let shape = Shape {
        entry_of: Clone::clone,
    };
    let reading = source::read::<Value>(&tree.root?, &shape);
    let sound = tree.problems.is_empty() && reading.problems.is_empty();
    reading.document.filter(|_| sound)
}

/// The short way may give up, but never read what the long way reads otherwise.
fn agrees(source: &str) -> Result<bool, TestCaseError> {
    let Some(document) = read_plain::<Value>(source, &[]) else {
        return Ok(false);
    };
    prop_assert_eq!(Some(document), read_long(source), "{:?}", source);
    Ok(true)
}

#[test]
fn ordinary_files_go_the_short_way() {
    for source in [
        "a: b\n",
        "a: b",
        "---\n# c\n\na: 1 # ü\nb: {c: [d, 2.5, \"e f\", '~'], g: {}, h: []}\n",
        "a:\n  - b\n  -   c # d\n# e\n  - {f: g, h: [i, j]}\ni: 10.0.0.1/8\n",
        "a:\n- b: 1\n  c: d\n\n- e: [2001:db8::/32, ::/0, fe80::1]\nf:\n    g:\n        h: 0x10\n",
        "- - a\n  - b\n- c: d\n",
    ] {
        assert!(agrees(source).unwrap(), "{source}");
    }
    let examples = std::fs::read_dir("examples").unwrap();
    let paths = examples.map(|entry| entry.unwrap().path());
    for path in paths.filter(|path| path.extension().is_some_and(|end| end == "yaml")) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(agrees(&text).unwrap(), "{}", path.display());
    }
}

#[test]
fn the_long_way_is_left_what_is_not_ordinary() {
    for source in [
        "",
        "a:\n",
        "a: 1\na: 2\n",
        "{a: 1, b: 2, a: 3}\n",
        "a: b\n  c\n",
        "a: b: c\n",
        "a: [b,\n  c]\n",
        "a: [b, ]\n",
        "a: &b c\n",
        "a: no\nb: 010\n",
        "no: a\n",
        "1: a\n",
        "\"a\": b\n",
        "a: \"b\\n\"\n",
        "a: 'b''c'\n",
        "a: |\n  b\n",
        "a: b\r\n",
        "a:\tb\n",
        "a: b\n---\nc: d\n",
        "a: {<<: b}\n",
        "a: b\n - c\n",
        "a:\n - b\n  - c\n",
        "a: b # \0\n",
    ] {
        assert_eq!(read_plain::<Value>(source, &[]), None, "{source:?}");
    }
    let nested = format!("a: {}{}", "[".repeat(200_000), "]".repeat(200_000));
    assert_eq!(read_plain::<Value>(&nested, &[]), None);
}

const WORDS: [&str; 24] = [
    "a",
    "b",
    "c1",
    "to",
    "lo.1",
    "x_y-z",
    "10.0.0.0/8",
    "2001:db8::/32",
    "::",
    "::1",
    "1",
    "0",
    "-1",
    "0x1f",
    "1.5",
    "1e3",
    "true",
    "no",
    "null",
    "010",
    "12:30",
    "a:b",
    "a/b+c",
    "default",
];
const PIECES: [&str; 34] = [
    " ", "  ", "\n", "\n  ", "\n    ", "- ", "-", ": ", ":", ", ", ",", "{", "}", "[", "]", "\"",
    "'", "#", " # é", "\t", "\r\n", "&a ", "*a", "!t ", "|\n", "? ", "---\n", "...\n", "<<: ", "~",
    "\\", "%", "ü", "\u{85}",
];

/// A document in one of the styles that people and programs write.
fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        3 => select(&WORDS[..]).prop_map(|word| Value::String(word.into())),
        1 => any::<u32>().prop_map(|number| Value::Number(number.into())),
        1 => any::<bool>().prop_map(Value::Bool),
    ];
    let value = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Sequence),
            entries(inner).prop_map(Value::Mapping),
        ]
    });
    entries(value).prop_map(Value::Mapping)
}

fn entries(value: impl Strategy<Value = Value>) -> impl Strategy<Value = serde_yaml::Mapping> {
    vec((select(&WORDS[..6]), value), 1..4).prop_map(|entries| {
        let entries = entries.into_iter();
        entries
            .map(|(key, value)| (Value::String(key.into()), value))
            .collect()
    })
}

/// Writes a value behind what stands on its line. Odd `styles` ask for lines, even ones for brackets.
fn write(value: &Value, column: usize, styles: &mut dyn Iterator<Item = u8>, text: &mut String) {
    let style = styles.next().unwrap_or_default();
    let is_inline = style.is_multiple_of(2);
    match value {
        Value::Sequence(items) if !is_inline && !items.is_empty() => {
            let column = column + usize::from(style % 4 / 2) * 2;
            for item in items {
                *text += &format!("\n{}- ", " ".repeat(column));
                write(item, column + 2, &mut std::iter::empty(), text);
            }
        }
        Value::Mapping(entries) if !is_inline && !entries.is_empty() => {
            for (key, value) in entries {
                *text += &format!("\n{}{}: ", " ".repeat(column + 2), key.as_str().unwrap());
                write(value, column + 2, styles, text);
            }
        }
        Value::Sequence(items) => {
            *text += "[";
            for (index, item) in items.iter().enumerate() {
                *text += if index > 0 { ", " } else { "" };
                write(item, column, &mut std::iter::empty(), text);
            }
            *text += "]";
        }
        Value::Mapping(entries) => {
            *text += "{";
            for (index, (key, value)) in entries.iter().enumerate() {
                *text += &format!(
                    "{}{}: ",
                    if index > 0 { ", " } else { "" },
                    key.as_str().unwrap()
                );
                write(value, column, &mut std::iter::empty(), text);
            }
            *text += "}";
        }
        Value::String(word) if style % 8 == 7 => *text += &format!("{word:?}"),
        Value::String(word) => *text += word,
        Value::Number(number) => *text += &number.to_string(),
        Value::Bool(value) => *text += &value.to_string(),
        Value::Null | Value::Tagged(_) => unreachable!("none is made"),
    }
}

fn written(document: &Value, styles: &[u8]) -> String {
    let Value::Mapping(entries) = document else {
        unreachable!("a document is a mapping");
    };
    let mut styles = styles.iter().copied().cycle();
    let mut text = String::new();
    for (key, value) in entries {
        text += &format!("{}:", key.as_str().unwrap());
        text += " ";
        write(value, 0, &mut styles, &mut text);
        text += "\n";
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn both_ways_read_the_same(
        document in document(),
        styles in vec(any::<u8>(), 1..16),
        slips in vec((any::<Index>(), 0..3_usize, select(&PIECES[..])), 0..4),
    ) {
        let mut text = written(&document, &styles);
        agrees(&text)?;
        for (place, delete, piece) in slips {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let index = place.index(places.len());
            let end = places.get(index + delete).copied().unwrap_or(text.len());
            text.replace_range(places[index]..end, piece);
            agrees(&text)?;
        }
    }

    #[test]
    fn both_ways_read_soup_the_same(pieces in vec(prop_oneof![select(&PIECES[..]), select(&WORDS[..])], 0..20)) {
        agrees(&pieces.concat())?;
    }
}
