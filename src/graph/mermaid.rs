//! The picture as a Mermaid flowchart.

use std::fmt::Write as _;

use super::{Card, CardKind, GroupKind, Link, Picture, Web};

/// Mermaid draws no more lines than this unless its page allows it (`maxEdges`).
const MOST_EDGES: usize = 500;
/// Nor longer texts (`maxTextSize`), in characters.
const LONGEST: usize = 50_000;

/// Whether Mermaid will draw it.
pub(super) fn fits(picture: &Picture) -> bool {
    let edges = picture.webs.iter().map(|web| match web.is_shape() {
        true => web.members.len(),
        false => web.links.len(),
    });
    edges.sum::<usize>() <= MOST_EDGES && write(picture).chars().count() <= LONGEST
}

pub(super) fn write(picture: &Picture) -> String {
    let mut text = format!("%% {}: {}\n", picture.title, picture.summary);
    for note in &picture.notes {
        let _ = writeln!(text, "%% {note}");
    }
    text += "flowchart LR\n";
    for (number, group) in picture.groups.iter().enumerate() {
        let framed = match group.kind {
            GroupKind::Subnet | GroupKind::Unknown | GroupKind::Outside => !group.title.is_empty(),
            GroupKind::Loose => false,
        };
        if framed {
            let _ = writeln!(text, "  subgraph g{number}[\"{}\"]", escape(&group.title));
        }
        for card in group.cards.clone() {
            write_card(card, &picture.cards[card], &mut text);
        }
        if framed {
            text += "  end\n";
        }
    }
    for (number, web) in picture.webs.iter().enumerate() {
        write_web(number, web, &mut text);
    }
    text + "  classDef outside stroke-dasharray: 5 5\n"
}

fn write_card(number: usize, card: &Card, text: &mut String) {
    let lines = card.lines.iter().chain(&card.subnets);
    let label: Vec<String> = std::iter::once(&card.title)
        .chain(lines)
        .map(|line| escape(line))
        .collect();
    let class = match card.kind {
        CardKind::Node | CardKind::Host | CardKind::Tunnel | CardKind::Many => "",
        CardKind::Outside => ":::outside",
    };
    let _ = writeln!(text, "    n{number}[\"{}\"]{class}", label.join("<br/>"));
}

fn write_web(number: usize, web: &Web, text: &mut String) {
    if web.is_shape() {
        let lines = std::iter::once(&web.title).chain(&web.facts);
        let label: Vec<String> = lines.map(|line| escape(line)).collect();
        let _ = writeln!(text, "  m{number}([\"{}\"])", label.join("<br/>"));
        for &member in &web.members {
            let hub = web.hubs.binary_search(&member).is_ok();
            let line = if hub { "===" } else { "---" };
            let _ = writeln!(text, "  n{member} {line} m{number}");
        }
        return;
    }
    for Link { ends, label, .. } in &web.links {
        let label = match label.as_str() {
            "" => String::new(),
            label => format!("|\"{}\"|", escape(label)),
        };
        let _ = writeln!(text, "  n{} ---{label} n{}", ends.0, ends.1);
    }
}

/// Mermaid's entities are HTML's with `#` for `&`; whatever could mean something to it, to Markdown or to HTML is one.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        let plain = c.is_alphanumeric()
            || matches!(c, ' ' | '.' | '-' | '/' | ',' | ':' | '?' | '+' | '·' | '…');
        if plain {
            escaped.push(c);
        } else {
            let _ = write!(escaped, "#{};", u32::from(c));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::{HOSTILE, mesh, topology};
    use crate::graph::{Format, draw};

    #[test]
    fn nothing_means_anything_to_mermaid() {
        assert_eq!(escape("a\"b#1;<br>"), "a#34;b#35;1#59;#60;br#62;");
        assert_eq!(escape("`x` %%{}"), "#96;x#96; #37;#37;#123;#125;");
    }

    #[test]
    fn every_line_has_a_known_shape() {
        let text = write(&Picture::of(&topology(HOSTILE), 300));
        for line in text
            .lines()
            .map(str::trim)
            .skip_while(|line| line.starts_with("%%"))
        {
            let known = ["flowchart LR", "end"].contains(&line)
                || ["subgraph g", "n", "m", "classDef "]
                    .iter()
                    .any(|start| line.starts_with(start));
            assert!(known, "{line}");
            assert!(line.matches('"').count() % 2 == 0, "{line}");
        }
        assert!(text.contains("|\"#93;--#62;#124;x\"|"), "{text}");
    }

    #[test]
    fn a_fleet_that_is_too_large_for_mermaid_is_drawn_by_subnet() {
        let fleet = mesh(
            290,
            50,
            "style: point-to-point, topology: {hub: [node-0, node-1]}",
        );
        assert!(!fits(&Picture::of(&fleet, 300)));
        let text = draw(&fleet, Format::Mermaid);
        assert!(
            text.contains("50 nodes") && !text.contains("node-17"),
            "{text}"
        );
    }
}
