//! Groups of cards in rows. A mesh is a rail: from its plate at the top down the left margin, along the groups, into each
//! of them, and along the rows of cards, with a stub to every member.

use super::{
    FRAME_HEAD, FRAME_PAD, Frame, Layout, Line, Plate, Point, Rect, TITLE_FONT, Wire, card_size,
    has_frame, px, text_width,
};
use crate::graph::{Group, Picture};

/// Between cards of a row.
const GAP: i32 = 14;
/// Between groups of a shelf.
const BETWEEN: i32 = 26;
/// Between rails.
const RAIL: i32 = 8;
/// From one plate to the next, and one rail of the margin to the next.
const STEP: (i32, i32) = (18, 44);
const PLATE: i32 = 34;
/// Tenths of a group's height that its width may be.
const SHAPES: [i32; 7] = [7, 10, 14, 20, 30, 50, 100];
/// What 10,000 empty square pixels are worth when layouts are compared, in pixels of length.
const EMPTY: i32 = 6;
/// Between the lowest rail and the cards.
const DROP: i32 = 14;

/// A group with its place.
struct Cell<'a> {
    group: usize,
    cards: &'a Group,
    /// Webs with members here, as rails.
    rails: Vec<usize>,
    columns: usize,
    area: Rect,
}

pub(super) fn layout(picture: &Picture) -> Layout {
    let rails: Vec<usize> = (0..picture.webs.len())
        .filter(|&web| picture.webs[web].is_shape() || !picture.webs[web].hubs.is_empty())
        .collect();
    let mut rows = Rows {
        picture,
        card: card_size(picture.cards.iter()),
        rails,
        layout: Layout {
            cards: vec![Rect::default(); picture.cards.len()],
            ..Layout::default()
        },
    };
    let shelves = rows.best();
    rows.plates();
    rows.place(shelves);
    rows.links();
    rows.layout
}

struct Rows<'a> {
    picture: &'a Picture,
    card: (i32, i32),
    /// Webs that are drawn as rails.
    rails: Vec<usize>,
    layout: Layout,
}

impl<'a> Rows<'a> {
    /// The shelves of groups that come nearest to a screen's shape.
    fn best(&self) -> Vec<Vec<Cell<'a>>> {
        let widths = (2..40).map(|columns| columns * (self.card.0 + GAP));
        let tries = widths.flat_map(|width| SHAPES.map(|shape| self.shelves(width, shape)));
        let cost = |shelves: &Vec<Vec<Cell>>| {
            let width = shelves
                .iter()
                .map(|shelf| extent(shelf).0)
                .max()
                .unwrap_or_default();
            let height: i32 = shelves.iter().map(|shelf| extent(shelf).1 + BETWEEN).sum();
            // What is left empty counts, too.
            let used: i32 = shelves.iter().flatten().map(|cell| area(cell) / 100).sum();
            let empty = (width * (height / 10) / 10 - used).max(0) / 100;
            (width * 10 / 15).max(height) * 4 + width + height + empty * EMPTY
        };
        tries.min_by_key(cost).unwrap_or_default()
    }

    fn shelves(&self, widest: i32, shape: i32) -> Vec<Vec<Cell<'a>>> {
        let mut shelves: Vec<Vec<Cell>> = Vec::new();
        for (number, group) in self.picture.groups.iter().enumerate() {
            let cell = self.cell(number, group, widest, shape);
            match shelves.last_mut() {
                Some(shelf) if extent(shelf).0 + BETWEEN + cell.area.width <= widest => {
                    shelf.push(cell);
                }
                _ => shelves.push(vec![cell]),
            }
        }
        shelves
    }

    fn cell(&self, number: usize, group: &'a Group, widest: i32, shape: i32) -> Cell<'a> {
        let count = group.cards.len();
        let has = |web: &usize| {
            let members = &self.picture.webs[*web].members;
            let next = members.partition_point(|&card| card < group.cards.start);
            members
                .get(next)
                .is_some_and(|card| group.cards.contains(card))
        };
        let rails: Vec<usize> = self.rails.iter().copied().filter(has).collect();
        let most = (widest / (self.card.0 + GAP)).max(1);
        let shapely = (1..=count)
            .find(|columns| {
                let rows = px(count.div_ceil(*columns));
                px(*columns) * self.card.0 * 10 >= rows * (self.card.1 + 30) * shape
            })
            .unwrap_or(count);
        let columns = shapely.min(usize::try_from(most).unwrap_or(1)).max(1);
        let mut cell = Cell {
            group: number,
            cards: group,
            rails,
            columns,
            area: Rect::default(),
        };
        let rows = px(count.div_ceil(columns));
        let title = text_width(&group.title, 12) + self.trunk(&cell);
        let width = px(columns) * (self.card.0 + GAP) - GAP + self.trunk(&cell) + FRAME_PAD;
        cell.area.width = width.max(title + FRAME_PAD);
        cell.area.height = self.head(&cell) + rows * (self.card.1 + self.gutter(&cell)) + FRAME_PAD;
        cell
    }

    /// What the rails need on a group's left.
    fn trunk(&self, cell: &Cell) -> i32 {
        FRAME_PAD + px(cell.rails.len()) * RAIL
    }

    /// Above each row of cards.
    fn gutter(&self, cell: &Cell) -> i32 {
        match cell.rails.len() {
            0 => GAP,
            count => px(count) * RAIL + DROP + 4,
        }
    }

    fn head(&self, cell: &Cell) -> i32 {
        match (has_frame(self.picture, cell.group), cell.rails.is_empty()) {
            (true, true) => FRAME_HEAD - GAP,
            (true, false) => FRAME_HEAD - 8,
            (false, _) => 0,
        }
    }

    /// A rail's number from the outside.
    fn lane(&self, web: usize) -> i32 {
        px(self
            .rails
            .iter()
            .position(|&rail| rail == web)
            .unwrap_or_default())
    }

    /// One below the other, each further right: so that its rail passes the others by.
    fn plates(&mut self) {
        for &web in &self.rails {
            let lane = self.lane(web);
            let width = text_width(&self.picture.webs[web].heading(), TITLE_FONT) + 40;
            self.layout.plates.push(Plate {
                web,
                area: Rect {
                    x: lane * STEP.0,
                    y: lane * STEP.1,
                    width,
                    height: PLATE,
                },
                tall: false,
            });
        }
        let right = self
            .layout
            .plates
            .iter()
            .map(|plate| plate.area.right())
            .max();
        self.layout.width = right.unwrap_or_default();
    }

    fn place(&mut self, shelves: Vec<Vec<Cell<'a>>>) {
        let count = px(self.rails.len());
        let margin = if count > 0 { count * STEP.0 + 12 } else { 0 };
        let mut wires: Vec<Wire> = self.rails.iter().map(|&web| self.wire(web)).collect();
        let mut lowest: Vec<Option<i32>> = vec![None; self.rails.len()];
        let mut y = count * STEP.1;
        for mut shelf in shelves {
            let mut webs: Vec<usize> = shelf.iter().flat_map(|cell| cell.rails.clone()).collect();
            webs.sort_unstable();
            webs.dedup();
            let top = y + if webs.is_empty() {
                0
            } else {
                px(webs.len()) * RAIL + DROP
            };
            let mut x = margin;
            for cell in &mut shelf {
                (cell.area.x, cell.area.y) = (x, top);
                self.cards(cell);
                x = cell.area.right() + BETWEEN;
            }
            for (place, &web) in webs.iter().enumerate() {
                let lane = self.lane(web);
                let at = y + 4 + px(place) * RAIL;
                let number = usize::try_from(lane).unwrap_or_default();
                lowest[number] = Some(at);
                self.rail(web, at, &shelf, &mut wires[number]);
            }
            self.layout.width = self.layout.width.max(x - BETWEEN);
            y = top + extent(&shelf).1 + BETWEEN;
        }
        self.layout.height = y - BETWEEN;
        for (wire, lowest) in wires.iter_mut().zip(lowest) {
            let lane = self.lane(wire.web);
            if let Some(to) = lowest {
                let x = margin_rail(lane);
                wire.lines
                    .push(straight([(x, lane * STEP.1 + PLATE), (x, to)]));
            }
        }
        self.layout.wires.extend(wires);
    }

    fn wire(&self, web: usize) -> Wire {
        Wire {
            web,
            title: self.picture.webs[web].heading(),
            lines: Vec::new(),
            dots: Vec::new(),
        }
    }

    fn cards(&mut self, cell: &Cell) {
        let (width, height) = self.card;
        for (place, card) in cell.cards.cards.clone().enumerate() {
            self.layout.cards[card] = Rect {
                x: cell.area.x + self.trunk(cell) + px(place % cell.columns) * (width + GAP),
                y: self.row(cell, place / cell.columns),
                width,
                height,
            };
        }
        if has_frame(self.picture, cell.group) {
            self.layout.frames.push(Frame {
                group: cell.group,
                above: false,
                area: cell.area,
                title: Point {
                    x: cell.area.x + self.trunk(cell),
                    y: cell.area.y + 22,
                },
            });
        }
    }

    /// Where a row's cards begin.
    fn row(&self, cell: &Cell, row: usize) -> i32 {
        let gutter = self.gutter(cell);
        cell.area.y + self.head(cell) + gutter + px(row) * (self.card.1 + gutter)
    }

    /// A rail along a shelf, and into its groups.
    fn rail(&self, web: usize, y: i32, shelf: &[Cell], wire: &mut Wire) {
        let mut end = margin_rail(self.lane(web));
        for cell in shelf {
            let Some(place) = cell.rails.iter().position(|&rail| rail == web) else {
                continue;
            };
            let place = px(place);
            let trunk = cell.area.x + FRAME_PAD / 2 + 3 + place * RAIL;
            let lowest = self.stubs(web, place, trunk, cell, wire);
            wire.lines.push(straight([(trunk, y), (trunk, lowest)]));
            end = trunk;
        }
        wire.lines
            .push(straight([(margin_rail(self.lane(web)), y), (end, y)]));
    }

    /// The rails along a group's rows, with a stub to each member; says where the last one is.
    fn stubs(&self, web: usize, place: i32, trunk: i32, cell: &Cell, wire: &mut Wire) -> i32 {
        let web = &self.picture.webs[web];
        let members: Vec<usize> = cell
            .cards
            .cards
            .clone()
            .filter(|card| web.members.binary_search(card).is_ok())
            .collect();
        let row_of = |card: &usize| (card - cell.cards.cards.start) / cell.columns;
        let mut lowest = cell.area.y;
        for row in members.chunk_by(|one, other| row_of(one) == row_of(other)) {
            let below = px(cell.rails.len()) - place;
            let y = self.row(cell, row_of(&row[0])) - DROP - (below - 1) * RAIL;
            let mut end = trunk;
            for &card in row {
                let area = self.layout.cards[card];
                let x = area.x + 20 + (place * 14).rem_euclid((area.width - 40).max(1));
                wire.lines.push(straight([(x, y), (x, area.y)]));
                let at = Point { x, y: area.y };
                wire.dots.push((at, web.hubs.binary_search(&card).is_ok()));
                end = end.max(x);
            }
            wire.lines.push(straight([(trunk, y), (end, y)]));
            lowest = y;
        }
        lowest
    }

    /// Single lines pass below the cards.
    fn links(&mut self) {
        for (number, web) in self.picture.webs.iter().enumerate() {
            if self.rails.contains(&number) {
                continue;
            }
            self.layout.unnamed.push(number);
            for link in &web.links {
                let ends = [link.ends.0, link.ends.1].map(|card| self.layout.cards[card].centre());
                let line = Line::Straight(ends.to_vec());
                self.layout.tag(number, &link.label, &line);
                self.layout.wires.push(Wire {
                    web: number,
                    title: link.details.join("\n"),
                    lines: vec![line],
                    dots: Vec::new(),
                });
            }
        }
    }
}

fn margin_rail(lane: i32) -> i32 {
    lane * STEP.0 + 12
}

fn straight(points: [(i32, i32); 2]) -> Line {
    Line::Straight(points.map(|(x, y)| Point { x, y }).to_vec())
}

/// In square pixels.
fn area(cell: &Cell) -> i32 {
    cell.area.width * cell.area.height
}

/// What the groups of a shelf need, wherever they stand.
fn extent(shelf: &[Cell]) -> (i32, i32) {
    let widths: i32 = shelf.iter().map(|cell| cell.area.width + BETWEEN).sum();
    let height = shelf.iter().map(|cell| cell.area.height).max();
    (widths - BETWEEN, height.unwrap_or_default())
}
