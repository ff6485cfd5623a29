//! Problems with their place and a piece of the source, for people and for machines.

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};

use super::problem::{Located, Problem, Problems, Severity, SourceFile, Span};

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
        let lines = Lines::new(&self.files);
        self.list.iter().map(move |problem| {
            let place = lines.place(problem.span.start);
            Located {
                severity: problem.severity,
                message: &problem.message,
                file: &self.files[place.file].name,
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
        let lines = Lines::new(&self.files);
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
        let mut excerpts = vec![lines.excerpt(problem.span, AnnotationKind::Primary, "")];
        if let Some((span, label)) = &problem.related {
            let other = lines.excerpt(*span, AnnotationKind::Context, label);
            // Next to each other on one line, else a piece of the source for each.
            if other.shows_same_text(&excerpts[0]) {
                excerpts[0].marks.extend(other.marks);
            } else {
                excerpts.push(other);
            }
        }
        let mut group = Group::with_title(level.primary_title(printable(&problem.message)));
        for excerpt in &excerpts {
            group = group.element(excerpt.snippet());
        }
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(printable(help)));
        }
        let shown = renderer.render(&[group]).to_string();
        excerpts
            .iter()
            .fold(shown, |shown, excerpt| excerpt.name_real_column(&shown))
    }
}

/// Where a character stands, all counted from 0.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    file: usize,
    line: usize,
    column: usize,
}

/// The lines of a source, found once for all of its problems.
struct Lines<'s> {
    files: &'s [SourceFile],
    /// Where each line starts, in characters of all files, in bytes of its own.
    starts: Vec<Start>,
}

#[derive(Clone, Copy)]
struct Start {
    character: usize,
    file: usize,
    line: usize,
    byte: usize,
}

impl<'s> Lines<'s> {
    fn new(files: &'s [SourceFile]) -> Self {
        let mut starts = Vec::new();
        let mut character = 0;
        for (file, SourceFile { text, .. }) in files.iter().enumerate() {
            let (mut line, mut byte) = (0, 0);
            loop {
                starts.push(Start {
                    character,
                    file,
                    line,
                    byte,
                });
                let Some(length) = text[byte..].find('\n').map(|end| end + 1) else {
                    break;
                };
                character += text[byte..byte + length].chars().count();
                byte += length;
                line += 1;
            }
            character += text[byte..].chars().count();
        }
        Self { files, starts }
    }

    fn start(&self, character: usize) -> Start {
        let after = self
            .starts
            .partition_point(|start| start.character <= character);
        self.starts[after.saturating_sub(1)]
    }

    fn place(&self, character: usize) -> Place {
        let start = self.start(character);
        Place {
            file: start.file,
            line: start.line,
            column: character - start.character,
        }
    }

    fn text(&self, start: Start) -> &'s str {
        let rest = &self.files[start.file].text[start.byte..];
        rest.lines().next().unwrap_or_default()
    }

    fn excerpt(&self, span: Span, kind: AnnotationKind, label: &str) -> Excerpt {
        let place = self.place(span.start);
        let line = self.text(self.start(span.start));
        let piece = |from: usize, count: usize| -> String {
            line.chars().skip(from).take(count).map(visible).collect()
        };
        let long = line.chars().nth(WIDEST_LINE).is_some();
        let skipped = if long {
            place.column.saturating_sub(BEFORE)
        } else {
            0
        };
        let mut text = if skipped > 0 { "…" } else { "" }.to_owned();
        text += &piece(skipped, place.column - skipped);
        let start = text.len();
        let room = (skipped + WIDEST_LINE).saturating_sub(place.column);
        let width = (span.end - span.start).min(room);
        text += &piece(place.column, width);
        let end = text.len();
        text += &piece(place.column + width, room - width);
        if line.chars().nth(skipped + WIDEST_LINE).is_some() {
            text.push('…');
        }
        Excerpt {
            file: printable(&self.files[place.file].name),
            place,
            text,
            marks: vec![Mark {
                range: start..end,
                kind,
                label: printable(label),
            }],
        }
    }
}

/// A line of the source, or a piece of a long one, made safe to show.
struct Excerpt {
    file: String,
    place: Place,
    text: String,
    marks: Vec<Mark>,
}

/// What is marked, in bytes of the excerpt.
struct Mark {
    range: std::ops::Range<usize>,
    kind: AnnotationKind,
    label: String,
}

impl Excerpt {
    fn shows_same_text(&self, other: &Self) -> bool {
        let Place { file, line, .. } = other.place;
        self.place.file == file && self.place.line == line && self.text == other.text
    }

    fn snippet(&self) -> Snippet<'_, Annotation<'_>> {
        let marks = self.marks.iter().map(|mark| {
            let label = Some(mark.label.as_str()).filter(|label| !label.is_empty());
            mark.kind.span(mark.range.clone()).label(label)
        });
        Snippet::source(self.text.as_str())
            .line_start(self.place.line + 1)
            .path(self.file.as_str())
            .annotations(marks)
    }

    /// The renderer counts columns in the piece of a long line that it is given.
    fn name_real_column(&self, shown: &str) -> String {
        let [mark, ..] = self.marks.as_slice() else {
            return shown.to_owned();
        };
        let line = self.place.line + 1;
        let counted = self.text[..mark.range.start].chars().count() + 1;
        let real = self.place.column + 1;
        let place = |column: usize| format!(":{line}:{column}");
        match counted == real {
            true => shown.to_owned(),
            false => shown.replacen(&place(counted), &place(real), 1),
        }
    }
}

/// The text without what drives the reader's terminal or hides in it, and without endless length.
fn printable(text: &str) -> String {
    let mut shown: String = text.chars().take(LONGEST_MESSAGE).map(visible).collect();
    if text.chars().nth(LONGEST_MESSAGE).is_some() {
        shown.push('…');
    }
    shown
}

/// Control characters, and those that change the direction of text or have no width, as one that is seen.
fn visible(c: char) -> char {
    match c {
        '\t' | '\r' => ' ',
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => '\u{fffd}',
        _ if c.is_control() => '\u{fffd}',
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use crate::source::Content;
    use crate::topology::Topology;
    use crate::topology::testing::problems;

    #[test]
    fn shows_place_source_and_help() {
        let shown = problems("name: t\ntunnels:\n  tun1: {local: 10.0.0.1, ttl: 300, mut: 5}\n");
        assert_eq!(
            shown.to_string(),
            "\
error: tunnels.tun1.ttl: expected `inherit` or a number from 1 to 255, found the number 300
 --> test.yaml:3:32
  |
3 |   tun1: {local: 10.0.0.1, ttl: 300, mut: 5}
  |                                ^^^

error: tunnels.tun1: unknown key \"mut\"
 --> test.yaml:3:37
  |
3 |   tun1: {local: 10.0.0.1, ttl: 300, mut: 5}
  |                                     ^^^
  |
  = help: did you mean `mtu`?"
        );
    }

    #[test]
    fn shows_a_piece_of_a_long_line() {
        let source = format!("name: t\ndefaults: {{{}ttl: 300}}\n", " ".repeat(5_000));
        let shown = problems(&source).to_string();
        assert!(shown.contains("test.yaml:2:5017"), "{shown}");
        assert!(shown.contains("ttl: 300}"), "{shown}");
        assert!(shown.len() < 500, "{shown}");
    }

    /// What a file holds must not drive the terminal of who reads about it, nor show other text than there is.
    #[test]
    fn lets_no_control_characters_through() {
        for hidden in [
            '\u{1b}', '\u{7}', '\u{9b}', '\u{202e}', '\u{2066}', '\u{200b}',
        ] {
            for source in [
                format!("name: \"x{hidden}[31m\""),
                format!("name: t # {hidden}[31m\nx{hidden}: 1"),
                format!("name: t\ntunnels: {{x{hidden}: {{local: 10.0.0.1, x: 1}}}} # {hidden}"),
                format!("name: t\nroutes: [{{to: 10.0.0.0/8, type: 'x{hidden}'}}]"),
                format!("name: t\nx{hidden}: 1\nx{hidden}: 1"),
            ] {
                let shown = problems(&source).to_string();
                assert!(!shown.contains(hidden), "{source:?}: {shown:?}");
            }
        }
        let named = Topology::parse("x\u{1b}[31m.yaml", "").map(|_| ());
        assert!(named.is_err_and(|problems| !problems.to_string().contains('\u{1b}')));
    }

    #[test]
    fn counts_the_problems_that_it_does_not_show() {
        let routes: String = (0..300)
            .map(|n| format!("  - 10.{}.{}.0/24\n", n / 256, n % 256))
            .collect();
        let found = problems(&format!("name: t\nroutes:\n{routes}"));
        assert_eq!(found.list.len(), 300);
        assert!(
            found
                .to_string()
                .ends_with("… and 200 more; `--output json` lists them all")
        );
    }

    #[test]
    fn refuses_what_is_no_text() {
        let Err(found) = Topology::parse_files(
            "test.yaml",
            vec![Content::new("test.yaml", *b"name: t\n# \xfc\nfoo: 1\n")],
        ) else {
            panic!("taken for text");
        };
        let shown = found.to_string();
        assert!(
            shown.contains("expected UTF-8 text, found the byte 0xfc"),
            "{shown}"
        );
        assert!(shown.contains("test.yaml:2:3"), "{shown}");
    }
}
