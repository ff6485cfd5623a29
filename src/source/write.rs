//! YAML that reads as what was written, whoever reads it.

use serde::Serialize;

use super::tree::is_ambiguous;

/// Writes a value without floating-point numbers. Words that YAML 1.1 and 1.2 read differently (`no`, `010`, `1e310`)
/// come in quotes: serde_yaml sees nothing in them but strings.
///
/// # Errors
/// Of serde_yaml's.
pub(crate) fn write(value: &impl Serialize) -> Result<String, serde_yaml::Error> {
    let plain = serde_yaml::to_string(value)?;
    let mut text = String::with_capacity(plain.len());
    // The column of the key or dash whose text of several lines this is: there a `no` is a part of it.
    let mut literal: Option<usize> = None;
    for line in plain.split_inclusive('\n') {
        let spaces = line.len() - line.trim_start_matches(' ').len();
        if literal.is_some_and(|column| spaces > column || line.trim().is_empty()) {
            text.push_str(line);
            continue;
        }
        let (before, entry) = line.split_at(line.len() - entry_of(line).len());
        literal = opens_literal(entry).then(|| match entry.contains(": ") {
            true => before.len(),
            false => before.len().saturating_sub("- ".len()),
        });
        quote_words(before, entry.trim_end_matches('\n'), &mut text);
    }
    Ok(text)
}

/// What stands behind the indentation and the dashes of lists.
fn entry_of(line: &str) -> &str {
    let mut entry = line.trim_start_matches(' ');
    while let Some(item) = entry.strip_prefix("- ") {
        entry = item;
    }
    entry
}

/// `key: |-` or `- |-`: what a text of several lines starts with.
fn opens_literal(entry: &str) -> bool {
    let value = entry.rsplit_once(": ").map_or(entry, |(_, value)| value);
    let options = value.trim_end().strip_prefix(['|', '>']);
    options.is_some_and(|rest| rest.bytes().all(|byte| b"+-0123456789".contains(&byte)))
}

/// A line of serde_yaml's is `key:`, `key: value` or `value`.
fn quote_words(before: &str, line: &str, text: &mut String) {
    let (key, value) = match (line.rsplit_once(": "), line.strip_suffix(':')) {
        (Some((key, value)), _) => (Some(key), Some(value)),
        (None, Some(key)) => (Some(key), None),
        (None, None) => (None, Some(line)),
    };
    let quoted = |word: &str| match is_ambiguous(word) {
        true => format!("'{word}'"),
        false => word.to_owned(),
    };
    text.push_str(before);
    if let Some(key) = key {
        text.push_str(&quoted(key));
        text.push(':');
    }
    if let Some(value) = value {
        text.push_str(if key.is_some() { " " } else { "" });
        text.push_str(&quoted(value));
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::{Shape, parse, read};
    use super::write;

    type Words = BTreeMap<String, Vec<String>>;

    fn word() -> impl Strategy<Value = String> {
        let difficult = [
            "no", "On", "OFF", "yes", "y", "010", "-00", "+01", "1e3", "1e310", "null", "~", "",
            "0x1f", "true", ".5", "-", "|", "|-", "a: no", "no:", "- no", "# no", "no #",
            "a\nno\n", "\nno", "no\n\n", " no", "'no'", "\"", "&a", "*a", "a: |", "::1", "12:30",
            "=", "<<", "{", "[]",
        ];
        prop_oneof![
            3 => prop::sample::select(difficult.to_vec()).prop_map(str::to_owned),
            1 => "[ -~\n]{0,12}",
        ]
    }

    /// A key of several lines takes a `?`, which nobody needs.
    fn key() -> impl Strategy<Value = String> {
        word().prop_map(|word| word.replace('\n', " "))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

        #[test]
        fn reads_as_written(words in prop::collection::btree_map(key(), prop::collection::vec(word(), 0..3), 1..4)) {
            let text = write(&words).unwrap();
            let tree = parse(&text);
            prop_assert!(tree.problems.is_empty(), "{:?}\n{text}", tree.problems);
            let shape = Shape { entry_of: Clone::clone };
            let reading = read::<Words>(&tree.root.unwrap(), &shape);
            prop_assert_eq!(reading.document, Some(words), "{}", text);
        }
    }
}
