//! The picture as SVG, complete in itself: no script, no font, nothing from elsewhere. Light or dark as its viewer is.

use std::fmt::Write as _;

use super::layout::{
    CHIP, FONT, Frame, HEAD, LINE, Layout, Line, PAD, Plate, Point, Rect, TITLE_FONT, Tag, Wire,
    cut, layout, text_width,
};
use super::{Card, CardKind, GroupKind, Picture, Web};

const STYLE: &str = include_str!("style.css");
/// Colours that the style has for webs.
const COLORS: usize = 8;
/// Around everything.
const MARGIN: i32 = 28;
/// From the top to below the name and the summary.
const HEADER: i32 = 76;
/// A line of the legend, or of the notes.
const ROW: i32 = 22;
const NAME_FONT: i32 = 20;
/// More lines of one web are drawn fainter.
const MANY_LINES: usize = 60;

/// What stands around the layout.
struct Page<'a> {
    picture: &'a Picture,
    layout: &'a Layout,
    width: i32,
    height: i32,
    /// Where the layout's top left goes.
    at: Point,
}

pub(super) fn write(picture: &Picture) -> String {
    let layout = layout(picture);
    let page = Page::new(picture, &layout);
    let mut text = String::new();
    page.head(&mut text);
    let _ = writeln!(
        text,
        "<g transform=\"translate({} {})\">",
        page.at.x, page.at.y
    );
    for part in layout.frames.iter().filter(|frame| !frame.above) {
        page.frame(part, &mut text);
    }
    for part in &layout.wires {
        page.wire(part, &mut text);
    }
    for part in layout.frames.iter().filter(|frame| frame.above) {
        page.frame(part, &mut text);
    }
    for part in &layout.frames {
        page.frame_title(part, &mut text);
    }
    for part in &layout.plates {
        page.plate(part, &mut text);
    }
    for (card, area) in picture.cards.iter().zip(&layout.cards) {
        write_card(card, *area, &mut text);
    }
    for wire in &layout.wires {
        dots(wire, &mut text);
    }
    for part in &layout.tags {
        tag(part, &mut text);
    }
    text += "</g>\n";
    page.notes(&mut text);
    text += "</svg>\n";
    text
}

impl<'a> Page<'a> {
    fn new(picture: &'a Picture, layout: &'a Layout) -> Self {
        let legend = layout.unnamed.iter().map(|&web| {
            let heading = picture.webs[web].heading();
            44 + text_width(&heading, FONT)
        });
        let notes = picture.notes.iter().map(|note| text_width(note, FONT));
        let head = text_width(&picture.title, NAME_FONT).max(text_width(&picture.summary, FONT));
        let words = legend.chain(notes).fold(head, i32::max);
        let width = layout.width.max(words) + 2 * MARGIN;
        let rows = |count: usize| ROW * i32::try_from(count).unwrap_or(i32::MAX);
        let top = HEADER + rows(layout.unnamed.len()) + 12;
        let notes = match picture.notes.len() {
            0 => 0,
            count => rows(count) + 10,
        };
        Self {
            picture,
            layout,
            width,
            height: top + layout.height + notes + MARGIN,
            at: Point {
                x: (width - layout.width) / 2,
                y: top,
            },
        }
    }

    fn head(&self, text: &mut String) {
        let (width, height) = (self.width, self.height);
        let (title, summary) = (escape(&self.picture.title), escape(&self.picture.summary));
        let webs = self.picture.webs.iter().map(|web| escape(&web.heading()));
        let description = std::iter::once(summary.clone()).chain(webs);
        let description = description.collect::<Vec<_>>().join(". ");
        let _ = writeln!(
            text,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"tunnelform\" role=\"img\" \
             aria-labelledby=\"tunnelform-title tunnelform-desc\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\">\n<title id=\"tunnelform-title\">{title}</title>\n\
             <desc id=\"tunnelform-desc\">{description}.</desc>\n<style>\n{STYLE}</style>\n\
             <rect class=\"page\" width=\"{width}\" height=\"{height}\"/>"
        );
        words(text, "name", MARGIN, MARGIN + 18, &self.picture.title);
        words(text, "quiet", MARGIN, MARGIN + 40, &self.picture.summary);
        let mut y = HEADER + 12;
        for &number in &self.layout.unnamed {
            let (color, web) = (number % COLORS, &self.picture.webs[number]);
            let _ = writeln!(
                text,
                "<line class=\"wire s{color}\" x1=\"{MARGIN}\" y1=\"{0}\" x2=\"{1}\" y2=\"{0}\"/>",
                y - 4,
                MARGIN + 28
            );
            words(text, "", MARGIN + 40, y, &web.heading());
            y += ROW;
        }
    }

    fn frame(&self, frame: &Frame, text: &mut String) {
        let group = &self.picture.groups[frame.group];
        let class = match group.kind {
            GroupKind::Subnet | GroupKind::Loose => "frame",
            GroupKind::Unknown => "frame unknown",
            GroupKind::Outside => "frame outside",
        };
        rect(text, class, frame.area, 10);
    }

    /// Above the lines, with a border that keeps them off.
    fn frame_title(&self, frame: &Frame, text: &mut String) {
        let group = &self.picture.groups[frame.group];
        let class = match group.kind {
            GroupKind::Subnet | GroupKind::Loose => "quiet halo",
            GroupKind::Unknown | GroupKind::Outside => "quiet page-halo",
        };
        let room = frame.area.x + frame.area.width - frame.title.x;
        let title = cut(&group.title, FONT, room);
        words(text, class, frame.title.x, frame.title.y, &title);
    }

    fn wire(&self, wire: &Wire, text: &mut String) {
        let mut path = String::new();
        for line in &wire.lines {
            path += &line_path(line);
        }
        if path.is_empty() {
            return;
        }
        let web: &Web = &self.picture.webs[wire.web];
        let faint = match wire.lines.len() {
            1 if web.links.len() > MANY_LINES => " faint",
            _ => "",
        };
        let color = wire.web % COLORS;
        open(text, &wire.title);
        let _ = writeln!(
            text,
            "<path class=\"wire s{color}{faint}\" d=\"{path}\"/></g>"
        );
    }

    fn plate(&self, plate: &Plate, text: &mut String) {
        let web = &self.picture.webs[plate.web];
        let area = plate.area;
        let color = plate.web % COLORS;
        open(text, &web.heading());
        rect(
            text,
            &format!("plate s{color}"),
            area,
            area.height.min(56) / 2,
        );
        let middle = area.x + area.width / 2;
        if plate.tall {
            let mut y = area.y + 29;
            centred(text, &format!("title f{color}"), middle, y, &web.title);
            y += 2;
            for fact in &web.facts {
                y += 17;
                centred(text, "quiet", middle, y, fact);
            }
        } else {
            let x = area.x + 20;
            let y = area.y + 22;
            words(text, &format!("title f{color}"), x, y, &web.title);
            let facts = web.facts.join(" · ");
            let x = x + text_width(&web.title, TITLE_FONT) + 14;
            words(text, "quiet", x, y, &facts);
        }
        *text += "</g>\n";
    }

    fn notes(&self, text: &mut String) {
        let mut y = self.at.y + self.layout.height + 8;
        for note in &self.picture.notes {
            y += ROW;
            words(text, "quiet", MARGIN, y, note);
        }
    }
}

fn write_card(card: &Card, area: Rect, text: &mut String) {
    let class = match card.kind {
        CardKind::Node | CardKind::Host | CardKind::Tunnel => "card",
        CardKind::Outside => "card far",
        CardKind::Many => "card many",
    };
    let title = std::iter::once(&card.title).chain(&card.details);
    open(
        text,
        &title.map(String::as_str).collect::<Vec<_>>().join("\n"),
    );
    rect(text, class, area, 7);
    let (x, room) = (area.x + PAD, area.width - 2 * PAD);
    let mut y = area.y + 24;
    if card.lines.is_empty() && card.subnets.is_empty() {
        y = area.y + area.height / 2 + 5;
    }
    words(text, "title", x, y, &cut(&card.title, TITLE_FONT, room));
    y = area.y + HEAD + 12;
    for line in &card.lines {
        words(text, "quiet", x, y, &cut(line, FONT, room));
        y += LINE;
    }
    y -= 7;
    for subnet in &card.subnets {
        let subnet = cut(subnet, FONT, room - 14);
        let chip = Rect {
            x,
            y: y - 3,
            width: text_width(&subnet, FONT) + 14,
            height: CHIP - 4,
        };
        rect(text, "chip", chip, 5);
        words(text, "chip-text", x + 7, y + 11, &subnet);
        y += CHIP;
    }
    *text += "</g>\n";
}

fn dots(wire: &Wire, text: &mut String) {
    let color = wire.web % COLORS;
    for (at, hub) in &wire.dots {
        let radius = if *hub { 5 } else { 3 };
        let _ = writeln!(
            text,
            "<circle class=\"dot f{color}\" cx=\"{}\" cy=\"{}\" r=\"{radius}\"/>",
            at.x, at.y
        );
    }
}

fn tag(tag: &Tag, text: &mut String) {
    let area = tag.area;
    rect(text, &format!("tag s{}", tag.web % COLORS), area, 10);
    centred(
        text,
        "label",
        area.x + area.width / 2,
        area.y + 14,
        &tag.text,
    );
}

fn line_path(line: &Line) -> String {
    match line {
        Line::Straight(points) => {
            let mut path = String::new();
            for (number, at) in points.iter().enumerate() {
                let step = if number == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{step}{} {}", at.x, at.y);
            }
            path
        }
        Line::Curve([a, b, c, d]) => format!(
            "M{} {}C{} {} {} {} {} {}",
            a.x, a.y, b.x, b.y, c.x, c.y, d.x, d.y
        ),
    }
}

/// Begins a group with what is shown when the mouse rests on it.
fn open(text: &mut String, title: &str) {
    let _ = write!(text, "<g><title>{}</title>", escape(title));
}

fn rect(text: &mut String, class: &str, area: Rect, radius: i32) {
    let _ = write!(
        text,
        "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"{radius}\"/>",
        area.x, area.y, area.width, area.height
    );
}

fn words(text: &mut String, class: &str, x: i32, y: i32, words: &str) {
    let words = escape(words);
    let class = match class {
        "" => String::new(),
        class => format!(" class=\"{class}\""),
    };
    let _ = writeln!(text, "<text{class} x=\"{x}\" y=\"{y}\">{words}</text>");
}

fn centred(text: &mut String, class: &str, x: i32, y: i32, words: &str) {
    let words = escape(words);
    let _ = writeln!(
        text,
        "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{words}</text>"
    );
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::testing::{HOSTILE, mesh, topology};

    #[test]
    fn is_well_formed_and_complete_in_itself() {
        for picture in [
            Picture::of(&topology(HOSTILE), 300),
            Picture::of(&topology(HOSTILE), 0),
            Picture::of(&topology(""), 300),
            Picture::of(&mesh(70, 20, ""), 300),
        ] {
            let text = write(&picture);
            let document = roxmltree::Document::parse(&text).expect("well-formed XML");
            let root = document.root_element();
            assert_eq!(root.attribute("role"), Some("img"));
            for node in document.descendants().filter(roxmltree::Node::is_element) {
                assert_ne!(node.tag_name().name(), "script");
                let refers = |name: &str| name.contains("href") || name.starts_with("on");
                assert!(!node.attributes().any(|attribute| refers(attribute.name())));
            }
            assert!(!text.contains("url(") && !text.contains("@import"));
        }
    }

    #[test]
    fn says_what_the_file_says() {
        let text = write(&Picture::of(&topology(HOSTILE), 300));
        let document = roxmltree::Document::parse(&text).expect("well-formed XML");
        let texts: Vec<&str> = document
            .descendants()
            .filter_map(|node| node.text())
            .collect();
        for expected in [
            "a\"<&>'",
            "]-->|x",
            "device m<\"&",
            "address of <eth>",
            "198.51.100.0/24 ?",
        ] {
            assert!(texts.contains(&expected), "{expected}: {texts:?}");
        }
        assert!(
            texts
                .iter()
                .any(|text| text.contains("<b>\"=\\N & ]]> --> `x` #35; \u{fffd}[31m"))
        );
    }

    /// Whatever the layout placed is within the page.
    #[test]
    fn the_layout_is_within_the_page() {
        for picture in [
            Picture::of(&topology(HOSTILE), 300),
            Picture::of(&mesh(5, 2, ""), 300),
            Picture::of(&mesh(299, 40, ""), 300),
        ] {
            let layout = layout(&picture);
            let page = Page::new(&picture, &layout);
            assert!(page.at.x >= MARGIN && page.at.x + layout.width + MARGIN <= page.width);
            assert!(page.at.y >= HEADER && page.at.y + layout.height + MARGIN <= page.height);
        }
    }
}
