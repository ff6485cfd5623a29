//! What is wrong with a topology, where, and what to do about it.

use std::fmt;

use serde::Serialize;

/// A range of characters in the source, counted through all of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span {
    /// The first character.
    pub start: usize,
    /// The one behind the last.
    pub end: usize,
}

impl Span {
    /// The same range in a file before which so many characters stand.
    pub(crate) fn behind(self, characters: usize) -> Self {
        Self {
            start: self.start + characters,
            end: self.end + characters,
        }
    }

    pub(crate) fn at(start: usize) -> Self {
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
pub(crate) enum Segment {
    Key(String),
    Index(usize),
}

impl Path {
    pub(crate) fn segments(&self) -> &[Segment] {
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

    /// This path and more.
    pub(crate) fn join(&self, more: &[Segment]) -> Self {
        Self(self.0.iter().chain(more).cloned().collect())
    }

    /// A message about what stands here.
    pub(crate) fn describe(&self, message: &str) -> String {
        if self.0.is_empty() {
            message.to_owned()
        } else {
            format!("{self}: {message}")
        }
    }

    pub(crate) fn prepend(&mut self, segment: Segment) {
        self.0.insert(0, segment);
    }

    /// The first `len` segments.
    pub(crate) fn prefix(&self, len: usize) -> Self {
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
    /// The same problem in a file before which so many characters stand.
    pub(crate) fn behind(mut self, characters: usize) -> Self {
        self.span = self.span.behind(characters);
        if let Some((span, _)) = &mut self.related {
            *span = span.behind(characters);
        }
        self
    }

    pub(crate) fn error(span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            span,
            related: None,
            help: None,
        }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related = Some((span, label.into()));
        self
    }
}

/// The problems of one source.
#[derive(Debug, Clone)]
pub struct Problems {
    /// What was read: a file, a directory, or `<stdin>`.
    pub name: String,
    /// The text that spans refer to.
    pub files: Vec<SourceFile>,
    /// Sorted by place.
    pub list: Vec<Problem>,
}

/// One file of a source.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Its name for messages.
    pub name: String,
    /// What it holds.
    pub text: String,
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

impl Problems {
    pub(crate) fn new(name: &str, files: Vec<SourceFile>, mut list: Vec<Problem>) -> Self {
        list.sort_by(|a, b| {
            (a.span, a.severity, &a.message).cmp(&(b.span, b.severity, &b.message))
        });
        list.dedup();
        Self {
            name: name.to_owned(),
            files,
            list,
        }
    }

    /// How many there are of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.list
            .iter()
            .filter(|problem| problem.severity == severity)
            .count()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.render(false))
    }
}

impl std::error::Error for Problems {}
