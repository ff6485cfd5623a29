//! What is wrong with a topology, where, and what to do about it.

use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

/// A range of characters in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span {
    /// The first character.
    pub start: usize,
    /// The one behind the last.
    pub end: usize,
}

impl Span {
    pub(super) fn at(start: usize) -> Self {
        Self {
            start,
            end: start + 1,
        }
    }
}

/// Where a value stands in the topology: `tunnels.tun1.routes[2].via`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(Vec<Segment>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Segment {
    Key(String),
    Index(usize),
}

impl Path {
    pub(super) fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// This path and one key more.
    pub fn key(&self, key: impl fmt::Display) -> Self {
        self.with(Segment::Key(key.to_string()))
    }

    /// This path and one list index more.
    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }

    pub(super) fn prepend(&mut self, segment: Segment) {
        self.0.insert(0, segment);
    }

    /// The first `len` segments.
    pub(super) fn prefix(&self, len: usize) -> Self {
        Self(self.0[..len.min(self.0.len())].to_vec())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if position == 0 => write!(f, "{key}")?,
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The topology can't be used.
    Error,
    /// It can, but hardly does what its author wants.
    Warning,
}

/// One thing that is wrong, at its place in the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// What was expected and what was found.
    pub message: String,
    /// Where.
    pub span: Span,
    /// Another place that has to do with it, and what it has.
    pub related: Option<(Span, String)>,
    /// What to do.
    pub help: Option<String>,
}

impl Problem {
    pub(super) fn error(span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            span,
            related: None,
            help: None,
        }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related = Some((span, label.into()));
        self
    }
}

/// The problems of one file.
#[derive(Debug, Clone)]
pub struct Problems {
    /// The file's name, `<stdin>` for standard input.
    pub file: String,
    /// The text that spans refer to.
    pub source: String,
    /// Sorted by place.
    pub list: Vec<Problem>,
}

/// A problem for machines.
#[derive(Debug, Serialize)]
pub struct Located<'a> {
    /// Error or warning.
    pub severity: Severity,
    /// What was expected and what was found.
    pub message: &'a str,
    /// The file's name.
    pub file: &'a str,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// What to do.
    pub help: Option<&'a str>,
}

/// A source line longer than this is shown as a piece of itself.
const WIDEST_LINE: usize = 200;

impl Problems {
    /// The problems with line and column.
    pub fn located(&self) -> impl Iterator<Item = Located<'_>> {
        self.list.iter().map(|problem| {
            let (line, column) = position(&self.source, problem.span.start);
            Located {
                severity: problem.severity,
                message: &problem.message,
                file: &self.file,
                line,
                column,
                help: problem.help.as_deref(),
            }
        })
    }

    /// How many there are of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.list
            .iter()
            .filter(|problem| problem.severity == severity)
            .count()
    }

    /// Each problem with its place and a piece of the source, as rustc shows them.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let shown: Vec<String> = self
            .list
            .iter()
            .map(|problem| self.render_one(problem, &renderer))
            .collect();
        shown.join("\n\n")
    }

    fn render_one(&self, problem: &Problem, renderer: &Renderer) -> String {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let message = printable(&problem.message);
        let excerpt = Excerpt::new(
            &self.source,
            problem.span,
            problem.related.as_ref().map(|(span, _)| *span),
        );
        let origin = format!("{}:{}:{}", self.file, excerpt.line, excerpt.column);
        if excerpt.long {
            // The renderer's own trimming needs a terminal's width, and it would still walk the whole line.
            let help = problem
                .help
                .as_ref()
                .map(|help| format!("\n  = help: {}", printable(help)))
                .unwrap_or_default();
            let severity = if problem.severity == Severity::Error {
                "error"
            } else {
                "warning"
            };
            return format!(
                "{severity}: {message}\n  --> {origin}\n   | …{}…{help}",
                excerpt.piece
            );
        }
        let mut snippet = Snippet::source(excerpt.piece.as_str())
            .line_start(excerpt.first_line)
            .path(&self.file)
            .annotation(AnnotationKind::Primary.span(excerpt.span.0..excerpt.span.1));
        if let (Some((start, end)), Some((_, label))) = (excerpt.related, &problem.related) {
            snippet = snippet.annotation(
                AnnotationKind::Context
                    .span(start..end)
                    .label(label.as_str()),
            );
        }
        let mut group = Group::with_title(level.primary_title(message.as_str())).element(snippet);
        let help = problem.help.as_deref().map(printable);
        if let Some(help) = &help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group]).to_string()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.render(false))
    }
}

impl std::error::Error for Problems {}

/// The lines that a problem is about, in bytes relative to the piece.
struct Excerpt {
    piece: String,
    first_line: usize,
    line: usize,
    column: usize,
    span: (usize, usize),
    related: Option<(usize, usize)>,
    long: bool,
}

impl Excerpt {
    fn new(source: &str, span: Span, related: Option<Span>) -> Self {
        let (line, column) = position(source, span.start);
        let main = bytes(source, span);
        let other = related.map(|related| bytes(source, related));
        let from = other.map_or(main.0, |other| other.0.min(main.0));
        let to = other.map_or(main.1, |other| other.1.max(main.1));
        let from = source[..from].rfind('\n').map_or(0, |newline| newline + 1);
        let to = source[to..]
            .find('\n')
            .map_or(source.len(), |newline| to + newline);
        let long = source[from..to]
            .lines()
            .any(|line| line.len() > WIDEST_LINE);
        if long {
            let start = source.floor_char_boundary(main.0.saturating_sub(30));
            let end = source.ceil_char_boundary((main.0 + 50).min(source.len()));
            let piece = printable(source[start..end].lines().last().unwrap_or_default());
            return Self {
                piece,
                first_line: line,
                line,
                column,
                span: (0, 0),
                related: None,
                long,
            };
        }
        let relative = |(start, end): (usize, usize)| (start - from, end - from);
        Self {
            first_line: source[..from].matches('\n').count() + 1,
            // A control character would reach the reader's terminal; spaces of the same length keep the columns.
            piece: source[from..to]
                .chars()
                .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
                .collect(),
            line,
            column,
            span: relative(main),
            related: other.map(relative),
            long,
        }
    }
}

/// A span in bytes, ended at the end of its first line.
fn bytes(source: &str, span: Span) -> (usize, usize) {
    let byte = |index: usize| match source.is_ascii() {
        true => index.min(source.len()),
        false => source
            .char_indices()
            .nth(index)
            .map_or(source.len(), |(byte, _)| byte),
    };
    let (start, end) = (byte(span.start), byte(span.end));
    let line_end = source[start..]
        .find('\n')
        .map_or(source.len(), |newline| start + newline);
    (start, end.clamp(start, line_end.max(start)))
}

/// Line and column of a character, both counted from 1.
fn position(source: &str, index: usize) -> (usize, usize) {
    let (start, _) = bytes(source, Span::at(index));
    let before = &source[..start];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// The text without control characters, which could drive the reader's terminal, and without endless length.
fn printable(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(500)
        .map(|c| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    if shown.len() < text.len() && text.chars().count() > 500 {
        shown.push('…');
    }
    shown
}
