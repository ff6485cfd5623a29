//! Words of a picture.

use std::fmt::Display;

/// What a file says, without what drives a terminal, hides text or is no XML (XML 1.0, section 2.2).
pub(super) fn clean(text: impl Display) -> String {
    let mut text = text.to_string();
    if text.chars().any(is_hostile) {
        text = text.replace(is_hostile, "\u{fffd}");
    }
    text
}

fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// `1 node`, `2 nodes`, `2 meshes`, `2 addresses`; thousands apart.
pub(super) fn counted(count: usize, one: &str) -> String {
    let hisses = one.ends_with('s') || one.ends_with("sh");
    let end = match (count, hisses) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{} {one}{end}", number(count))
}

/// A number with its thousands apart.
pub(super) fn number(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The first `most`, and how many more there are.
pub(super) fn first<T: Display>(
    list: impl ExactSizeIterator<Item = T>,
    most: usize,
) -> Vec<String> {
    let count = list.len();
    let shown = if count <= most { count } else { most - 1 };
    let mut texts: Vec<String> = list.take(shown).map(clean).collect();
    if count > shown {
        texts.push(format!("+{} more", number(count - shown)));
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_as_people_do() {
        assert_eq!(counted(1, "mesh"), "1 mesh");
        assert_eq!(counted(2, "mesh"), "2 meshes");
        assert_eq!(counted(12_345, "node"), "12,345 nodes");
        assert_eq!(number(100), "100");
        assert_eq!(number(1_000_000), "1,000,000");
    }

    #[test]
    fn says_how_much_it_leaves_out() {
        assert_eq!(first([1, 2, 3].iter(), 3), ["1", "2", "3"]);
        assert_eq!(first([1, 2, 3, 4].iter(), 3), ["1", "2", "+2 more"]);
    }

    #[test]
    fn nothing_drives_a_terminal_or_hides() {
        assert_eq!(
            clean("a\u{1b}b\u{202e}c\nd\u{ffff}"),
            "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}"
        );
        assert_eq!(clean("grün <&>"), "grün <&>");
    }
}
