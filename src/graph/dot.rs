//! The picture in Graphviz's language.

use std::fmt::Write as _;

use super::{Card, CardKind, Group, GroupKind, Picture, Web};

pub(super) fn write(picture: &Picture) -> String {
    let mut text = format!("graph {} {{\n", quoted(&[&picture.title]));
    let _ = writeln!(
        text,
        "  label={};",
        quoted(&[&picture.title, &picture.summary])
    );
    text +=
        "  labelloc=t;\n  compound=true;\n  node [shape=box, style=rounded, fontname=monospace];\n";
    text += "  edge [fontname=monospace];\n  fontname=monospace;\n";
    for (number, group) in picture.groups.iter().enumerate() {
        write_group(picture, number, group, &mut text);
    }
    for (number, web) in picture.webs.iter().enumerate() {
        write_web(number, web, &mut text);
    }
    for note in &picture.notes {
        let _ = writeln!(text, "  // {note}");
    }
    text + "}\n"
}

fn write_group(picture: &Picture, number: usize, group: &Group, text: &mut String) {
    let style = match group.kind {
        GroupKind::Subnet => Some("rounded"),
        GroupKind::Unknown | GroupKind::Outside => Some("\"rounded,dashed\""),
        GroupKind::Loose => None,
    };
    let style = style.filter(|_| !group.title.is_empty());
    if let Some(style) = style {
        let title = quoted(&[&group.title]);
        let _ = writeln!(
            text,
            "  subgraph cluster_{number} {{\n    label={title};\n    style={style};"
        );
    }
    for card in group.cards.clone() {
        write_card(card, &picture.cards[card], text);
    }
    if style.is_some() {
        *text += "  }\n";
    }
}

fn write_card(number: usize, card: &Card, text: &mut String) {
    let lines = card.lines.iter().chain(&card.subnets);
    let label: Vec<&str> = std::iter::once(&card.title)
        .chain(lines)
        .map(String::as_str)
        .collect();
    let details: Vec<&str> = card.details.iter().map(String::as_str).collect();
    let style = match card.kind {
        CardKind::Node | CardKind::Host | CardKind::Tunnel => "",
        CardKind::Outside => ", style=dashed",
        CardKind::Many => ", peripheries=2",
    };
    let _ = writeln!(
        text,
        "    n{number} [label={}, tooltip={}{style}];",
        quoted(&label),
        quoted(&details)
    );
}

fn write_web(number: usize, web: &Web, text: &mut String) {
    let heading = web.heading();
    if web.is_shape() {
        let facts = web.facts.iter().map(String::as_str);
        let label: Vec<&str> = std::iter::once(web.title.as_str()).chain(facts).collect();
        let _ = writeln!(
            text,
            "  m{number} [shape=ellipse, style=bold, label={}];",
            quoted(&label)
        );
        for &member in &web.members {
            let hub = if web.hubs.binary_search(&member).is_ok() {
                " [penwidth=3]"
            } else {
                ""
            };
            let _ = writeln!(text, "  n{member} -- m{number}{hub};");
        }
        return;
    }
    for link in &web.links {
        let mut tooltip = vec![heading.as_str()];
        tooltip.extend(link.details.iter().map(String::as_str));
        let label = match link.label.as_str() {
            "" => String::new(),
            label => format!("label={}, ", quoted(&[label])),
        };
        let _ = writeln!(
            text,
            "  n{} -- n{} [{label}tooltip={}];",
            link.ends.0,
            link.ends.1,
            quoted(&tooltip)
        );
    }
}

/// Lines as a string. Graphviz knows sequences of a backslash, and HTML's entities, even there.
fn quoted(lines: &[&str]) -> String {
    let mut text = "\"".to_owned();
    for (number, line) in lines.iter().enumerate() {
        if number > 0 {
            text += "\\n";
        }
        for c in line.chars() {
            match c {
                '"' => text += "\\\"",
                '\\' => text += "\\\\",
                '&' => text += "&amp;",
                c => text.push(c),
            }
        }
    }
    text + "\""
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::{HOSTILE, topology};

    #[test]
    fn strings_end_where_they_should() {
        assert_eq!(quoted(&["a\"b", "\\N", "&lt;"]), r#""a\"b\n\\N\n&amp;lt;""#);
    }

    /// Outside strings there is nothing but the language's own words; brackets match.
    #[test]
    fn keeps_what_is_from_the_file_in_strings() {
        let text = write(&Picture::of(&topology(HOSTILE), 300));
        let mut outside = String::new();
        let (mut string, mut escaped) = (false, false);
        for c in text.chars() {
            match c {
                '"' if !escaped => string = !string,
                c if !string => outside.push(c),
                _ => {}
            }
            escaped = c == '\\' && !escaped;
        }
        assert!(!string, "{text}");
        let plain = |c: char| c.is_ascii_alphanumeric() || " \n{}[]=,;-_:/?.".contains(c);
        let code = outside
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            assert!(line.chars().all(plain), "{line}");
        }
        assert_eq!(outside.matches('{').count(), outside.matches('}').count());
        assert!(text.contains(r#"label="a\"<&amp;>'""#), "{text}");
    }
}
