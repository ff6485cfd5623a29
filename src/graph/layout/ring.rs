//! Groups along the four sides of a rectangle, one card deep, each card's line starting at its inner side.
//!
//! The inside is convex, so a straight line between two sides leaves it nowhere: no line crosses a card.

use std::collections::BTreeMap;

use super::{
    FRAME_HEAD, FRAME_PAD, Frame, Layout, Line, Plate, Point, Rect, Wire, card_size, has_frame,
    plate_size, px, size, text_width,
};
use crate::graph::Picture;

/// More cards are better off in rows.
const MOST_CARDS: usize = 40;
/// The same for a group that can't be bent round a corner.
const MOST_IN_GROUP: usize = 12;
/// More cards around a mesh's shape would be far from it.
const MOST_AROUND: usize = 24;
/// More links aren't told apart where a mesh's shape stands among them.
const MOST_BEHIND: usize = 12;
/// Between cards of a group.
const GAP: i32 = 16;
/// Between groups.
const BETWEEN: i32 = 24;
/// Between the sides and the corners of the inside.
const INSET: i32 = 34;
/// Around what stands in the middle.
const CLEAR: i32 = 76;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Top,
    Right,
    Bottom,
    Left,
}

/// Cards that stay together on one side.
struct Block {
    /// Numbers of cards.
    cards: Vec<usize>,
    frame: Option<usize>,
}

/// What stands in the middle.
#[derive(Clone, Copy)]
enum Middle {
    Nothing,
    Plate(usize),
    Hub(usize),
}

/// `None`: there is too much for it.
pub(super) fn layout(picture: &Picture) -> Option<Layout> {
    let shapes: Vec<usize> = (0..picture.webs.len())
        .filter(|&web| picture.webs[web].is_shape())
        .collect();
    if picture.cards.len() > MOST_CARDS || shapes.len() > 1 {
        return None;
    }
    let links: usize = picture.webs.iter().map(|web| web.links.len()).sum();
    let crowded = links > MOST_BEHIND || picture.cards.len() > MOST_AROUND;
    if !shapes.is_empty() && crowded {
        return None;
    }
    let frames = (0..picture.groups.len()).filter(|&group| has_frame(picture, group));
    let lone = match frames.collect::<Vec<_>>().as_slice() {
        [only] if picture.groups.len() == 1 => Some(*only),
        _ => None,
    };
    let bends = picture.groups.len() == 1;
    let largest = picture.groups.iter().map(|group| group.cards.len()).max()?;
    if !bends && largest > MOST_IN_GROUP {
        return None;
    }
    let middle = match shapes.first() {
        Some(&web) => Middle::Plate(web),
        None => hub(picture, bends).map_or(Middle::Nothing, Middle::Hub),
    };
    let blocks = blocks(picture, bends, middle);
    let mut ring = Ring::new(picture, middle, &blocks);
    ring.place(&blocks);
    if let Some(group) = lone {
        ring.surround(group);
    }
    Some(ring.finish())
}

/// The one card that every link has at an end, if there is one and it's no group's part among others.
fn hub(picture: &Picture, bends: bool) -> Option<usize> {
    let links = || picture.webs.iter().flat_map(|web| &web.links);
    let first = links().next()?.ends;
    let alone = |card: usize| {
        let mut groups = picture.groups.iter();
        groups.any(|group| group.cards.contains(&card) && group.cards.len() == 1)
    };
    let mut candidates = [first.0, first.1].into_iter();
    let hub = candidates.find(|&card| links().all(|l| l.ends.0 == card || l.ends.1 == card))?;
    (links().count() > 2 && (bends || alone(hub))).then_some(hub)
}

fn blocks(picture: &Picture, bends: bool, middle: Middle) -> Vec<Block> {
    let outer = |card: &usize| match middle {
        Middle::Hub(hub) => *card != hub,
        Middle::Nothing | Middle::Plate(_) => true,
    };
    if bends {
        let cards = (0..picture.cards.len()).filter(outer);
        return cards
            .map(|card| Block {
                cards: vec![card],
                frame: None,
            })
            .collect();
    }
    let groups = picture.groups.iter().enumerate();
    let blocks = groups.map(|(number, group)| Block {
        cards: group.cards.clone().filter(outer).collect(),
        frame: has_frame(picture, number).then_some(number),
    });
    blocks.filter(|block| !block.cards.is_empty()).collect()
}

struct Ring<'a> {
    picture: &'a Picture,
    middle: Middle,
    card: (i32, i32),
    /// Of the inside, when nothing on a side asks for more.
    least: (i32, i32),
    sides: Vec<Option<Side>>,
    inside: Rect,
    layout: Layout,
    /// How many links two cards have so far.
    between: BTreeMap<(usize, usize), i32>,
}

impl<'a> Ring<'a> {
    fn new(picture: &'a Picture, middle: Middle, blocks: &[Block]) -> Self {
        let outer = blocks.iter().flat_map(|block| &block.cards);
        let (width, height) = card_size(outer.map(|&card| &picture.cards[card]));
        let titles = blocks.iter().filter_map(|block| block.frame);
        let titles = titles.map(|group| text_width(&picture.groups[group].title, 12));
        let card = (titles.fold(width, i32::max), height);
        let labels = picture.webs.iter().flat_map(|web| &web.links);
        let label = labels.map(|link| text_width(&link.label, 11)).max();
        let open = label.unwrap_or_default().max(90) + 70;
        let lines: usize = picture.webs.iter().map(|web| web.links.len()).sum();
        let least = match middle {
            // Many lines want room to be told apart.
            Middle::Nothing => (open, 60 + px(lines.min(12)) * 10),
            Middle::Plate(web) => grown(plate_size(picture, web)),
            Middle::Hub(hub) => {
                let (width, height) = size(&picture.cards[hub]);
                grown((width.max(open), height + FRAME_HEAD))
            }
        };
        Self {
            picture,
            middle,
            card,
            least,
            sides: vec![None; picture.cards.len()],
            inside: Rect::default(),
            layout: Layout {
                cards: vec![Rect::default(); picture.cards.len()],
                ..Layout::default()
            },
            between: BTreeMap::new(),
        }
    }

    fn block(&self, block: &Block, side: Side) -> (i32, i32) {
        let count = px(block.cards.len());
        let (width, height) = match side {
            Side::Top | Side::Bottom => (count * (self.card.0 + GAP) - GAP, self.card.1),
            Side::Right | Side::Left => (self.card.0, count * (self.card.1 + GAP) - GAP),
        };
        match block.frame {
            Some(_) => (width + 2 * FRAME_PAD, height + FRAME_HEAD + FRAME_PAD),
            None => (width, height),
        }
    }

    /// What the blocks of a side need along it, and across.
    fn need(&self, blocks: &[Block], side: Side) -> (i32, i32) {
        let sizes = blocks.iter().map(|block| self.block(block, side));
        let turned = sizes.map(|(width, height)| match side {
            Side::Top | Side::Bottom => (width, height),
            Side::Right | Side::Left => (height, width),
        });
        turned.fold((0, 0), |all, one| {
            (all.0 + one.0 + BETWEEN, all.1.max(one.1))
        })
    }

    /// The blocks of each side, in the order of reading: whatever comes nearest to a screen's shape.
    fn split<'b>(&self, blocks: &'b [Block]) -> [(Side, &'b [Block]); 4] {
        let count = blocks.len();
        let mut best = None;
        for one in 0..=count {
            for two in one..=count {
                for three in two..=count {
                    let split = [
                        (Side::Top, &blocks[..one]),
                        (Side::Left, &blocks[one..two]),
                        (Side::Right, &blocks[two..three]),
                        (Side::Bottom, &blocks[three..]),
                    ];
                    let cost = self.cost(&split);
                    if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                        best = Some((cost, split));
                    }
                }
            }
        }
        best.map_or([(Side::Top, blocks); 4], |(_, split)| split)
    }

    fn cost(&self, split: &[(Side, &[Block]); 4]) -> i32 {
        let [top, left, right, bottom] = split.map(|(side, blocks)| self.need(blocks, side));
        let inside = (
            self.least.0.max(top.0).max(bottom.0),
            self.least.1.max(right.0).max(left.0),
        );
        let width = inside.0 + left.1 + right.1 + 2 * INSET;
        let height = inside.1 + top.1 + bottom.1 + 2 * INSET;
        let shape = (width * 10 / 16).max(height) * 4 + width + height;
        // A picture that leans to a side looks unfinished.
        let tilt = (top.0 - bottom.0).abs() + (right.0 - left.0).abs();
        shape + tilt + (top.1 - bottom.1).abs() + 2 * (right.1 - left.1).abs()
    }

    fn place(&mut self, blocks: &[Block]) {
        let split = self.split(blocks);
        let [top, left, right, bottom] = split.map(|(side, blocks)| self.need(blocks, side));
        let across = |side: (i32, i32)| if side.1 > 0 { side.1 + INSET } else { 0 };
        self.inside = Rect {
            x: across(left),
            y: across(top),
            width: self.least.0.max(top.0).max(bottom.0),
            height: self.least.1.max(right.0).max(left.0),
        };
        self.layout.width = self.inside.right() + across(right);
        self.layout.height = self.inside.bottom() + across(bottom);
        for (side, blocks) in split {
            self.side(side, blocks);
        }
    }

    /// Blocks along a side, what is left over between and around them.
    fn side(&mut self, side: Side, blocks: &[Block]) {
        let inside = self.inside;
        let sizes: Vec<(i32, i32)> = blocks.iter().map(|block| self.block(block, side)).collect();
        let (room, taken) = match side {
            Side::Top | Side::Bottom => {
                (inside.width, sizes.iter().map(|size| size.0).sum::<i32>())
            }
            Side::Right | Side::Left => (inside.height, sizes.iter().map(|size| size.1).sum()),
        };
        let gap = (room - taken) / px(blocks.len()).max(1);
        let mut along = gap / 2;
        for (block, (width, height)) in blocks.iter().zip(sizes) {
            let (x, y) = match side {
                Side::Top => (inside.x + along, inside.y - INSET - height),
                Side::Bottom => (inside.x + along, inside.bottom() + INSET),
                Side::Left => (inside.x - INSET - width, inside.y + along),
                Side::Right => (inside.right() + INSET, inside.y + along),
            };
            let area = Rect {
                x,
                y,
                width,
                height,
            };
            self.put(block, side, area);
            along += gap
                + match side {
                    Side::Top | Side::Bottom => width,
                    Side::Right | Side::Left => height,
                };
        }
    }

    fn put(&mut self, block: &Block, side: Side, area: Rect) {
        let (mut x, mut y) = (area.x, area.y);
        if let Some(group) = block.frame {
            x += FRAME_PAD;
            // The title stands on the outer side, where no line leaves.
            y += if side == Side::Bottom {
                FRAME_PAD
            } else {
                FRAME_HEAD
            };
            self.layout.frames.push(Frame {
                group,
                above: false,
                area,
                title: Point {
                    x,
                    y: match side {
                        Side::Bottom => area.bottom() - 13,
                        Side::Top | Side::Right | Side::Left => area.y + 22,
                    },
                },
            });
        }
        for &card in &block.cards {
            let (width, height) = self.card;
            self.sides[card] = Some(side);
            self.layout.cards[card] = Rect {
                x,
                y,
                width,
                height,
            };
            match side {
                Side::Top | Side::Bottom => x += width + GAP,
                Side::Right | Side::Left => y += height + GAP,
            }
        }
    }

    /// A frame around everything.
    fn surround(&mut self, group: usize) {
        let layout = &mut self.layout;
        for card in &mut layout.cards {
            card.x += FRAME_PAD + 6;
            card.y += FRAME_HEAD + 6;
        }
        self.inside.x += FRAME_PAD + 6;
        self.inside.y += FRAME_HEAD + 6;
        layout.width += 2 * FRAME_PAD + 12;
        layout.height += FRAME_HEAD + FRAME_PAD + 12;
        layout.frames.push(Frame {
            group,
            above: false,
            area: Rect {
                x: 0,
                y: 0,
                width: layout.width,
                height: layout.height,
            },
            title: Point {
                x: FRAME_PAD,
                y: 22,
            },
        });
    }

    fn finish(mut self) -> Layout {
        let centre = self.inside.centre();
        let at_centre = |(width, height)| Rect {
            x: centre.x - width / 2,
            y: centre.y - height / 2,
            width,
            height,
        };
        match self.middle {
            Middle::Nothing => {}
            Middle::Hub(card) => self.hub(card, at_centre(size(&self.picture.cards[card]))),
            Middle::Plate(web) => {
                let area = at_centre(plate_size(self.picture, web));
                self.layout.plates.push(Plate {
                    web,
                    area,
                    tall: true,
                });
                self.spokes(web, area.centre());
            }
        }
        for (number, web) in self.picture.webs.iter().enumerate() {
            if !web.is_shape() {
                self.links(number);
            }
        }
        self.layout
    }

    fn hub(&mut self, card: usize, area: Rect) {
        self.layout.cards[card] = area;
        let groups = self.picture.groups.iter();
        let group = groups.clone().position(|group| group.cards.contains(&card));
        let Some(group) = group.filter(|_| groups.len() > 1) else {
            return;
        };
        if has_frame(self.picture, group) {
            self.layout.frames.push(Frame {
                group,
                above: true,
                area: Rect {
                    x: area.x - FRAME_PAD,
                    y: area.y - FRAME_HEAD,
                    width: area.width + 2 * FRAME_PAD,
                    height: area.height + FRAME_HEAD + FRAME_PAD,
                },
                title: Point {
                    x: area.x,
                    y: area.y - 12,
                },
            });
        }
    }

    /// Where a card's lines start.
    fn port(&self, card: usize) -> Point {
        let area = self.layout.cards[card];
        let centre = area.centre();
        match self.sides[card] {
            Some(Side::Top) => Point {
                y: area.bottom(),
                ..centre
            },
            Some(Side::Bottom) => Point {
                y: area.y,
                ..centre
            },
            Some(Side::Left) => Point {
                x: area.right(),
                ..centre
            },
            Some(Side::Right) => Point {
                x: area.x,
                ..centre
            },
            None => centre,
        }
    }

    fn spokes(&mut self, web: usize, centre: Point) {
        let members = &self.picture.webs[web].members;
        let ports: Vec<Point> = members.iter().map(|&card| self.port(card)).collect();
        let lines = ports.iter().map(|&port| Line::Straight(vec![port, centre]));
        self.layout.wires.push(Wire {
            web,
            title: self.picture.webs[web].heading(),
            lines: lines.collect(),
            dots: ports.iter().map(|&port| (port, false)).collect(),
        });
    }

    fn links(&mut self, number: usize) {
        let web = &self.picture.webs[number];
        self.layout.unnamed.push(number);
        for link in &web.links {
            let known = self.between.entry(link.ends).or_default();
            let before = *known;
            *known += 1;
            let line = self.line(link.ends, before);
            let end = |card: usize| {
                let hub = web.hubs.binary_search(&card).is_ok();
                self.sides[card].map(|_| (self.port(card), hub))
            };
            let dots = [end(link.ends.0), end(link.ends.1)];
            self.layout.tag(number, &link.label, &line);
            self.layout.wires.push(Wire {
                web: number,
                title: link.details.join("\n"),
                lines: vec![line],
                dots: dots.into_iter().flatten().collect(),
            });
        }
    }

    /// The line of a link, when two cards have so many before it.
    fn line(&self, (one, other): (usize, usize), before: i32) -> Line {
        let (from, to) = (self.port(one), self.port(other));
        let side = self.sides[one].filter(|side| self.sides[other] == Some(*side));
        let Some(side) = side else {
            if before == 0 {
                return Line::Straight(vec![from, to]);
            }
            // Towards the middle, which is inside like everything between it and the ends.
            let middle = self.inside.centre();
            let tenths = before.min(6) + 1;
            let pulled = |at: Point| Point {
                x: at.x + (middle.x - at.x) * tenths / 10,
                y: at.y + (middle.y - at.y) * tenths / 10,
            };
            let between = |a: i32, b: i32, thirds: i32| a + (b - a) * thirds / 3;
            let [near, far] = [1, 2].map(|thirds| {
                pulled(Point {
                    x: between(from.x, to.x, thirds),
                    y: between(from.y, to.y, thirds),
                })
            });
            return Line::Curve([from, near, far, to]);
        };
        let apart = (from.x - to.x).abs() + (from.y - to.y).abs();
        let deepest = match side {
            Side::Top | Side::Bottom => self.inside.height,
            Side::Right | Side::Left => self.inside.width,
        };
        let depth = (apart * 2 / 5 + before * 30).clamp(50, deepest.max(50));
        let bent = |at: Point| match side {
            Side::Top => Point {
                y: at.y + depth,
                ..at
            },
            Side::Bottom => Point {
                y: at.y - depth,
                ..at
            },
            Side::Left => Point {
                x: at.x + depth,
                ..at
            },
            Side::Right => Point {
                x: at.x - depth,
                ..at
            },
        };
        Line::Curve([from, bent(from), bent(to), to])
    }
}

fn grown((width, height): (i32, i32)) -> (i32, i32) {
    (width + 2 * CLEAR, height + 2 * CLEAR)
}
