//! Problems with their place and a piece of the source, for people and for machines.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::problem::{Located, Problem, Problems, Severity, Span};

/// More problems than this don't help to mend the first.
const MOST_SHOWN: usize = 100;
/// More characters of a message than this are somebody's data, not ours.
const LONGEST_MESSAGE: usize = 500;
/// A source line with more characters than this is shown as a piece of itself.
const WIDEST_LINE: usize = 120;
/// Characters of a long line that are shown before its problem.
const BEFORE: usize = 40;

impl Problems {
    /// The problems with line and column.
    pub fn located(&self) -> impl Iterator<Item = Located<'_>> {
        let lines = Lines::new(&self.source);
        self.list.iter().map(move |problem| {
            let place = lines.place(problem.span.start);
            Located {
                severity: problem.severity,
                message: &problem.message,
                file: &self.file,
                line: place.line + 1,
                column: place.column + 1,
                help: problem.help.as_deref(),
            }
        })
    }

    /// Each problem with its place and a piece of the source, as rustc shows them.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let lines = Lines::new(&self.source);
        let mut shown: Vec<String> = self
            .list
            .iter()
            .take(MOST_SHOWN)
            .map(|problem| self.render_one(problem, &lines, &renderer))
            .collect();
        let more = self.list.len().saturating_sub(MOST_SHOWN);
        if more > 0 {
            shown.push(format!("… and {more} more; `--output json` lists them all"));
        }
        shown.join("\n\n")
    }

    fn render_one(&self, problem: &Problem, lines: &Lines, renderer: &Renderer) -> String {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut main = lines.excerpt(problem.span, AnnotationKind::Primary, "");
        let mut related = None;
        if let Some((span, label)) = &problem.related {
            let other = lines.excerpt(*span, AnnotationKind::Context, label);
            // Next to each other on one line, else a piece of the source for each.
            if other.shows_same_text(&main) {
                main.marks.extend(other.marks);
            } else {
                related = Some(other);
            }
        }
        let mut group = Group::with_title(level.primary_title(printable(&problem.message)));
        let file = printable(&self.file);
        for excerpt in std::iter::once(main).chain(related) {
            group = group
                .element(excerpt.origin(&file))
                .element(excerpt.snippet());
        }
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(printable(help)));
        }
        renderer.render(&[group]).to_string()
    }
}

/// Where a character stands, all counted from 0.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
}

/// The lines of a source, found once for all of its problems.
struct Lines<'s> {
    source: &'s str,
    /// Where each line starts: in bytes, and in characters.
    starts: Vec<(usize, usize)>,
}

impl<'s> Lines<'s> {
    fn new(source: &'s str) -> Self {
        let mut starts = vec![(0, 0)];
        let (mut bytes, mut characters) = (0, 0);
        for line in source.split_inclusive('\n') {
            bytes += line.len();
            characters += line.chars().count();
            if line.ends_with('\n') {
                starts.push((bytes, characters));
            }
        }
        Self { source, starts }
    }

    fn place(&self, character: usize) -> Place {
        let after = self
            .starts
            .partition_point(|(_, start)| *start <= character);
        let line = after.saturating_sub(1);
        let column = character - self.starts[line].1;
        Place { line, column }
    }

    fn text(&self, line: usize) -> &'s str {
        let rest = &self.source[self.starts[line].0..];
        rest.lines().next().unwrap_or_default()
    }

    fn excerpt(&self, span: Span, kind: AnnotationKind, label: &str) -> Excerpt {
        let place = self.place(span.start);
        let line = self.text(place.line);
        let long = line.chars().nth(WIDEST_LINE).is_some();
        let skipped = if long {
            place.column.saturating_sub(BEFORE)
        } else {
            0
        };
        let mut text = String::new();
        if skipped > 0 {
            text.push('…');
        }
        // In bytes of the text as it is shown; an error behind the last character is marked there.
        let mut mark = None;
        let mut shown = line.chars().skip(skipped);
        for column in skipped..skipped + WIDEST_LINE {
            if column == place.column {
                mark = Some(text.len());
            }
            let end = place.column + (span.end - span.start).max(1);
            if column == end {
                break_mark(&mut mark);
            }
            match shown.next() {
                Some(c) => text.push(visible(c)),
                None => break,
            }
        }
        todo!()
    }
}
