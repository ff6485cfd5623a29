//! One host, its tunnels beside it, their remotes beside these.

use super::{Layout, Line, Point, Rect, Wire, card_size, size};
use crate::graph::Picture;

/// Between columns, for the lines.
const ACROSS: i32 = 90;
const GAP: i32 = 22;

pub(super) fn layout(picture: &Picture) -> Layout {
    let mut layout = Layout::default();
    let mut x = 0;
    let columns: Vec<(Vec<(i32, i32)>, i32)> = picture
        .groups
        .iter()
        .map(|group| {
            let cards = &picture.cards[group.cards.clone()];
            let sizes = cards.iter().map(size).collect();
            (sizes, card_size(cards.iter()).0)
        })
        .collect();
    let heights = columns.iter().map(|(sizes, _)| {
        let cards: i32 = sizes.iter().map(|size| size.1 + GAP).sum();
        cards - GAP
    });
    layout.height = heights.max().unwrap_or_default();
    for (sizes, width) in &columns {
        let tall: i32 = sizes.iter().map(|size| size.1).sum();
        // What is left over stands between the cards, and half as much at either end.
        let gap = (layout.height - tall) / super::px(sizes.len()).max(1);
        let mut y = gap / 2;
        for &(_, height) in sizes {
            layout.cards.push(Rect {
                x,
                y,
                width: *width,
                height,
            });
            y += height + gap;
        }
        x += width + ACROSS;
    }
    layout.width = x - ACROSS;
    wires(picture, &mut layout);
    layout
}

fn wires(picture: &Picture, layout: &mut Layout) {
    for (number, web) in picture.webs.iter().enumerate() {
        let lines = web.links.iter().map(|link| {
            let (left, right) = (layout.cards[link.ends.0], layout.cards[link.ends.1]);
            let from = Point {
                x: left.right(),
                y: left.centre().y,
            };
            // Half a pixel of a slope would look like a mistake.
            let level = (right.centre().y - from.y).abs() <= 2;
            let to = Point {
                x: right.x,
                y: if level { from.y } else { right.centre().y },
            };
            let bend = ACROSS / 2;
            let [start, end] = [(from, bend), (to, -bend)].map(|(at, bend)| Point {
                x: at.x + bend,
                y: at.y,
            });
            Line::Curve([from, start, end, to])
        });
        layout.wires.push(Wire {
            web: number,
            title: web.heading(),
            lines: lines.collect(),
            dots: Vec::new(),
        });
    }
}
