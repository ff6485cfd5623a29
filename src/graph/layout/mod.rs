//! Where everything in a picture goes, in pixels.
//!
//! A small fleet stands around what joins it, so that no line crosses a box ([`ring`]); a large one stands in rows, each
//! mesh a rail along them ([`rows`]); one host's tunnels stand between it and their remotes ([`columns`]).

mod columns;
mod ring;
mod rows;

use super::{Card, CardKind, GroupKind, Picture};

/// Pixels of the font on cards.
pub(super) const FONT: i32 = 12;
/// Pixels of the font of titles.
pub(super) const TITLE_FONT: i32 = 14;
/// Between a card's border and its text.
pub(super) const PAD: i32 = 12;
/// From one line of a card to the next.
pub(super) const LINE: i32 = 18;
/// From one overlay subnet of a card to the next.
pub(super) const CHIP: i32 = 23;
/// From a card's top to below its title.
pub(super) const HEAD: i32 = 32;
/// Above a group's cards, for its title.
const FRAME_HEAD: i32 = 34;
/// Between a group's border and its cards.
const FRAME_PAD: i32 = 14;
/// A card is no wider, and its text is cut.
const WIDEST: i32 = 260;
/// The same where there are routes to read.
const WIDEST_OF_HOST: i32 = 400;
const NARROWEST: i32 = 120;

/// A box, in pixels from the top left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Rect {
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) width: i32,
    pub(super) height: i32,
}

/// A place, in pixels from the top left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) x: i32,
    pub(super) y: i32,
}

/// A picture with everything in its place.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) width: i32,
    pub(super) height: i32,
    /// One for each card.
    pub(super) cards: Vec<Rect>,
    pub(super) frames: Vec<Frame>,
    pub(super) wires: Vec<Wire>,
    pub(super) plates: Vec<Plate>,
    pub(super) tags: Vec<Tag>,
    /// Webs that no plate names, for a legend.
    pub(super) unnamed: Vec<usize>,
}

/// A border around a group.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) group: usize,
    /// Lines end at it rather than at its cards.
    pub(super) above: bool,
    pub(super) area: Rect,
    /// Where its title's baseline begins.
    pub(super) title: Point,
}

/// A line, or all lines of a web in one.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) web: usize,
    pub(super) title: String,
    pub(super) lines: Vec<Line>,
    /// Where it ends at a card, and whether at a hub.
    pub(super) dots: Vec<(Point, bool)>,
}

#[derive(Debug)]
pub(super) enum Line {
    /// From corner to corner.
    Straight(Vec<Point>),
    /// A cubic curve: from, two that draw it to them, to.
    Curve([Point; 4]),
}

/// A web's name and facts, as its shape.
#[derive(Debug)]
pub(super) struct Plate {
    pub(super) web: usize,
    pub(super) area: Rect,
    /// The facts stand below the name, not behind it.
    pub(super) tall: bool,
}

/// A line's label.
#[derive(Debug)]
pub(super) struct Tag {
    pub(super) web: usize,
    pub(super) area: Rect,
    pub(super) text: String,
}

/// Places everything.
pub(super) fn layout(picture: &Picture) -> Layout {
    if picture.groups.iter().all(|group| group.title.is_empty()) && picture.cards.len() < 40 {
        let spread = picture.groups.len() > 1;
        if spread {
            return columns::layout(picture);
        }
    }
    ring::layout(picture).unwrap_or_else(|| rows::layout(picture))
}

/// How wide a text is at the most: fonts of one width have 0.6 of their size, East Asian characters all of it.
pub(super) fn text_width(text: &str, font: i32) -> i32 {
    let units: i32 = text.chars().map(units).sum();
    (units * font + 99) / 100
}

fn units(c: char) -> i32 {
    if c < '\u{1100}' { 61 } else { 105 }
}

/// The text, or as much of it as there is room for.
pub(super) fn cut(text: &str, font: i32, room: i32) -> String {
    if text_width(text, font) <= room {
        return text.to_owned();
    }
    let mut left = room - text_width("…", font);
    let fits = |c: &char| {
        left -= text_width(c.encode_utf8(&mut [0; 4]), font);
        left >= 0
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// The size that holds each of the cards.
fn card_size<'a>(cards: impl Iterator<Item = &'a Card>) -> (i32, i32) {
    let sizes = cards.map(size);
    let size = sizes.reduce(|one, other| (one.0.max(other.0), one.1.max(other.1)));
    size.unwrap_or((NARROWEST, HEAD))
}

fn size(card: &Card) -> (i32, i32) {
    let title = text_width(&card.title, TITLE_FONT);
    let lines = card.lines.iter().map(|line| text_width(line, FONT));
    let chips = card.subnets.iter().map(|text| text_width(text, FONT) + 14);
    let widest = lines.chain(chips).fold(title, i32::max);
    let height = HEAD + px(card.lines.len()) * LINE + px(card.subnets.len()) * CHIP + 10;
    let most = match card.kind {
        CardKind::Host | CardKind::Tunnel => WIDEST_OF_HOST,
        CardKind::Node | CardKind::Outside | CardKind::Many => WIDEST,
    };
    ((widest + 2 * PAD).clamp(NARROWEST, most), height)
}

fn px(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn has_frame(picture: &Picture, group: usize) -> bool {
    match picture.groups[group].kind {
        GroupKind::Subnet | GroupKind::Unknown | GroupKind::Outside => {
            !picture.groups[group].title.is_empty()
        }
        GroupKind::Loose => false,
    }
}

/// A web's plate with its facts below its name.
fn plate_size(picture: &Picture, web: usize) -> (i32, i32) {
    let web = &picture.webs[web];
    let facts = web.facts.iter().map(|fact| text_width(fact, FONT));
    let widest = facts.fold(text_width(&web.title, TITLE_FONT), i32::max);
    let height = 36 + px(web.facts.len()) * 17;
    ((widest + 56).max(170), height + 12)
}

impl Rect {
    fn right(&self) -> i32 {
        self.x + self.width
    }

    fn bottom(&self) -> i32 {
        self.y + self.height
    }

    fn centre(&self) -> Point {
        Point {
            x: self.x + self.width / 2,
            y: self.y + self.height / 2,
        }
    }

    /// Whether the two have a point in common, or less than `gap` between them.
    pub(super) fn touches(&self, other: &Self, gap: i32) -> bool {
        self.x < other.right() + gap
            && other.x < self.right() + gap
            && self.y < other.bottom() + gap
            && other.y < self.bottom() + gap
    }
}

impl Layout {
    /// Puts a label on a line, where it hides nothing; where there's no such place, the line's title has to do.
    fn tag(&mut self, web: usize, text: &str, line: &Line) {
        if text.is_empty() {
            return;
        }
        let (width, height) = (text_width(text, FONT - 1) + 14, 20);
        let free = |area: &Rect, layout: &Self| {
            let plates = layout.plates.iter().map(|plate| &plate.area);
            let tags = layout.tags.iter().map(|tag| &tag.area);
            let mut others = layout.cards.iter().chain(plates).chain(tags);
            others.all(|other| !area.touches(other, 3))
        };
        let places = [50, 40, 60, 30, 70, 20, 80, 45, 55, 35, 65].map(|percent| line.at(percent));
        let areas = places.map(|at| Rect {
            x: at.x - width / 2,
            y: at.y - height / 2,
            width,
            height,
        });
        if let Some(area) = areas.into_iter().find(|area| free(area, self)) {
            self.tags.push(Tag {
                web,
                area,
                text: text.to_owned(),
            });
        }
    }
}

impl Line {
    /// The place after so many hundredths of the way.
    fn at(&self, percent: i32) -> Point {
        let between = |a: Point, b: Point| Point {
            x: a.x + (b.x - a.x) * percent / 100,
            y: a.y + (b.y - a.y) * percent / 100,
        };
        match self {
            Self::Straight(points) => match (points.first(), points.last()) {
                (Some(&first), Some(&last)) => between(first, last),
                _ => Point { x: 0, y: 0 },
            },
            Self::Curve([a, b, c, d]) => {
                // De Casteljau.
                let (ab, bc, cd) = (between(*a, *b), between(*b, *c), between(*c, *d));
                between(between(ab, bc), between(bc, cd))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::graph::testing::{HOSTILE, mesh, topology};

    const MESHES: [&str; 5] = [
        "direct_routing: true",
        "style: point-to-point",
        "style: point-to-point, topology: {hub: [node-0]}",
        "topology: {hub: [node-0, node-1]}",
        "topology: {edges: [[node-0, node-1]]}",
    ];

    fn check(picture: &Picture) {
        let layout = layout(picture);
        let plates = layout.plates.iter().map(|plate| plate.area);
        let tags = layout.tags.iter().map(|tag| tag.area);
        let boxes: Vec<Rect> = layout
            .cards
            .iter()
            .copied()
            .chain(plates)
            .chain(tags)
            .collect();
        for (number, one) in boxes.iter().enumerate() {
            assert!(
                inside(one, &layout),
                "{one:?} is outside {}x{}",
                layout.width,
                layout.height
            );
            for other in &boxes[number + 1..] {
                assert!(!one.touches(other, 0), "{one:?} touches {other:?}");
            }
        }
        for (number, frame) in layout.frames.iter().enumerate() {
            assert!(inside(&frame.area, &layout));
            let area = frame.area;
            assert!(area.x <= frame.title.x && frame.title.y < area.bottom());
            for other in &layout.frames[number + 1..] {
                assert!(
                    !area.touches(&other.area, 0),
                    "{area:?} touches {:?}",
                    other.area
                );
            }
            let group = &picture.groups[frame.group];
            for card in &layout.cards[group.cards.clone()] {
                assert!(card.x >= area.x && card.right() <= area.right());
                assert!(card.y >= area.y && card.bottom() <= area.bottom());
            }
        }
        for line in layout.wires.iter().flat_map(|wire| &wire.lines) {
            for percent in 0..=100 {
                let at = line.at(percent);
                assert!((0..=layout.width).contains(&at.x), "{line:?}");
                assert!((0..=layout.height).contains(&at.y), "{line:?}");
            }
        }
    }

    fn inside(area: &Rect, layout: &Layout) -> bool {
        area.x >= 0 && area.y >= 0 && area.right() <= layout.width && area.bottom() <= layout.height
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn nothing_overlaps_or_leaves_the_picture(
            count in 2_usize..400,
            per_network in 1_usize..60,
            kind in 0..MESHES.len(),
        ) {
            check(&Picture::of(&mesh(count, per_network, MESHES[kind]), 300));
        }

        #[test]
        fn small_fleets_too(count in 2_usize..32, per_network in 1_usize..13, kind in 0..MESHES.len()) {
            check(&Picture::of(&mesh(count, per_network, MESHES[kind]), 300));
        }
    }

    /// In a ring no line crosses a card but those that it ends at, and what stands in the middle.
    #[test]
    fn lines_of_a_ring_cross_no_card() {
        for (count, per_network) in [(3, 1), (8, 3), (12, 12), (24, 6), (30, 7)] {
            let picture = Picture::of(&mesh(count, per_network, MESHES[1]), 300);
            let layout = layout(&picture);
            for line in layout.wires.iter().flat_map(|wire| &wire.lines) {
                for percent in 3..97 {
                    let at = line.at(percent);
                    let on = |card: &Rect| {
                        (card.x + 1..card.right()).contains(&at.x)
                            && (card.y + 1..card.bottom()).contains(&at.y)
                    };
                    assert!(!layout.cards.iter().any(on), "{count} nodes: {line:?}");
                }
            }
        }
    }

    #[test]
    fn hosts_and_odd_fleets_fit() {
        let tunnels = |count: usize| {
            let one = |n| {
                format!("t{n}: {{local: 192.0.2.1, remote: 198.51.{n}.1, routes: [10.{n}.0.0/24]}}")
            };
            let list: Vec<String> = (0..count).map(one).collect();
            topology(&format!("tunnels: {{{}}}", list.join(", ")))
        };
        check(&Picture::of(&topology(""), 300));
        for count in [1, 2, 16, 17, 60] {
            check(&Picture::of(&tunnels(count), 300));
            check(&Picture::of(&tunnels(count), 0));
        }
        check(&Picture::of(&topology(HOSTILE), 300));
        check(&Picture::of(&topology(HOSTILE), 0));
    }

    #[test]
    fn long_texts_are_cut_to_their_room() {
        assert_eq!(cut("node-1", FONT, 100), "node-1");
        let text = cut("a-node-with-a-very-long-name", FONT, 100);
        assert!(
            text.ends_with('…') && text_width(&text, FONT) <= 100,
            "{text}"
        );
        assert!(text_width("節点", FONT) > text_width("ab", FONT));
    }
}
