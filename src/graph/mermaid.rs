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
