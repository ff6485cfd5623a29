//! Where the reading stands in an ordinary file: words, quotes, lines and their columns.

use super::{Unusual, text_of};
use crate::source::lists::{LIST, List};
use crate::source::tree::MAX_NODES;

/// Nesting that is left to the long way; a topology has less.
const DEEPEST: usize = 16;
/// Some parsers take no longer keys (YAML 1.2 section 7.4.2 allows 1024 characters).
const LONGEST_KEY: usize = 128;

/// Between two calls it stands before a value or key, or behind one.
pub(super) struct Scan<'s> {
    source: &'s str,
    lists: &'s [List<'s>],
    at: usize,
    /// The column at which the line's content starts, or that of what is behind its dash; `None` behind the last line.
    column: Option<usize>,
    /// The keys of the mappings that are open, those of the outermost first.
    keys: Vec<&'s str>,
    nodes: usize,
    depth: usize,
}

/// A place to return to.
pub(super) struct Mark {
    at: usize,
    column: Option<usize>,
    keys: usize,
    nodes: usize,
    depth: usize,
}

impl<'s> Scan<'s> {
    /// At the first line.
    pub(super) fn new(source: &'s str, lists: &'s [List<'s>]) -> Result<Self, Unusual> {
        let mut scan = Self {
            source,
            lists,
            at: 0,
            column: None,
            keys: Vec::new(),
            nodes: 0,
            depth: 0,
        };
        if source.starts_with("---\n") {
            scan.at = 4;
        }
        scan.find_line()?;
        Ok(scan)
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.column.is_none()
    }

    /// Of the line, or of what is behind its dash.
    pub(super) fn column(&self) -> Result<usize, Unusual> {
        self.column.ok_or(Unusual)
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.byte(self.at)
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.source.as_bytes().get(at).copied()
    }

    /// A collection begins. Where its keys will be.
    pub(super) fn enter(&mut self) -> Result<usize, Unusual> {
        self.count(1)?;
        self.depth += 1;
        (self.depth <= DEEPEST)
            .then_some(self.keys.len())
            .ok_or(Unusual)
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// The long way allows so many, and says so.
    pub(super) fn count(&mut self, nodes: usize) -> Result<(), Unusual> {
        self.nodes += nodes;
        (self.nodes <= MAX_NODES).then_some(()).ok_or(Unusual)
    }

    pub(super) fn lists(&self) -> &'s [List<'s>] {
        self.lists
    }

    /// Whether the value of the last key may be a list in a file of its own.
    pub(super) fn is_at_list(&self) -> bool {
        !self.lists.is_empty() && self.keys.last() == Some(&LIST)
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            at: self.at,
            column: self.column,
            keys: self.keys.len(),
            nodes: self.nodes,
            depth: self.depth,
        }
    }

    pub(super) fn return_to(&mut self, mark: Mark) {
        self.at = mark.at;
        self.column = mark.column;
        self.keys.truncate(mark.keys);
        self.nodes = mark.nodes;
        self.depth = mark.depth;
    }

    pub(super) fn is_at_dash(&self) -> bool {
        self.peek() == Some(b'-') && self.byte(self.at + 1) == Some(b' ')
    }

    /// A word with a colon and nothing, or a space, behind it.
    pub(super) fn is_at_key(&self) -> bool {
        let end = self.word_end();
        end > self.at && self.byte(end) == Some(b':') && self.ends_word(end + 1)
    }

    fn ends_word(&self, at: usize) -> bool {
        matches!(self.byte(at), None | Some(b' ' | b'\n'))
    }

    fn word_end(&self) -> usize {
        let bytes = self.source.as_bytes();
        let mut end = self.at;
        loop {
            match bytes.get(end) {
                Some(b'-' | b'.' | b'+') if end == self.at => return end,
                Some(byte) if is_word(*byte) => end += 1,
                Some(b':')
                    if bytes
                        .get(end + 1)
                        .is_some_and(|next| is_word(*next) || *next == b':') =>
                {
                    end += 1
                }
                _ => return end,
            }
        }
    }

    /// A plain scalar.
    pub(super) fn word(&mut self) -> Result<&'s str, Unusual> {
        self.count(1)?;
        let end = self.word_end();
        let word = &self.source[self.at..end];
        self.at = end;
        (!word.is_empty()).then_some(word).ok_or(Unusual)
    }

    /// A text in quotes, without escapes, on one line.
    pub(super) fn quoted(&mut self) -> Result<&'s str, Unusual> {
        self.count(1)?;
        let quote = self.peek().ok_or(Unusual)?;
        let start = self.at + 1;
        let inner = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != quote && *byte != b'\\';
        let rest = &self.source.as_bytes()[start..];
        let length = rest.iter().take_while(|byte| inner(byte)).count();
        self.at = start + length + 1;
        // Two quotes are one within a text; a colon would make a key of it.
        let ends = !matches!(self.peek(), Some(b'\'' | b'"' | b':'));
        (rest.get(length) == Some(&quote) && ends)
            .then(|| &self.source[start..start + length])
            .ok_or(Unusual)
    }

    /// A key, up to its value or to the end of the line.
    pub(super) fn key(&mut self) -> Result<&'s str, Unusual> {
        let key = text_of(self.word()?)?;
        if key.len() > LONGEST_KEY || self.peek() != Some(b':') || !self.ends_word(self.at + 1) {
            return Err(Unusual);
        }
        self.at += 1;
        self.skip_spaces();
        self.keys.push(key);
        Ok(key)
    }

    /// A mapping is over, whose keys begin there. None may be there twice.
    pub(super) fn forget_keys(&mut self, first: usize) -> Result<(), Unusual> {
        let keys = &mut self.keys[first..];
        keys.sort_unstable();
        let twice = keys.windows(2).any(|pair| pair[0] == pair[1]);
        self.keys.truncate(first);
        (!twice).then_some(()).ok_or(Unusual)
    }

    fn skip_spaces(&mut self) {
        let rest = &self.source.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|byte| **byte == b' ').count();
    }

    /// Whether nothing but a comment is left of the line. Behind spaces.
    pub(super) fn is_at_line_end(&self) -> bool {
        matches!(self.peek(), None | Some(b'\n'))
            || (self.peek() == Some(b'#') && self.byte(self.at - 1) == Some(b' '))
    }

    /// From behind a value to the next line that has content.
    pub(super) fn end_line(&mut self) -> Result<(), Unusual> {
        self.skip_spaces();
        if self.is_at_line_end() {
            self.skip_comment()?;
            self.find_line()
        } else {
            Err(Unusual)
        }
    }

    /// To the line's end.
    fn skip_comment(&mut self) -> Result<(), Unusual> {
        if self.peek() != Some(b'#') {
            return Ok(());
        }
        let rest = &self.source[self.at..];
        let comment = rest.split('\n').next().unwrap_or_default();
        self.at += comment.len();
        // Parsers don't agree on whether these end a line, or may be there at all.
        let disputed = |c: char| {
            (c.is_control() && c != '\t') || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
        };
        (!comment.contains(disputed)).then_some(()).ok_or(Unusual)
    }

    /// To the content of the first line from here that has any.
    fn find_line(&mut self) -> Result<(), Unusual> {
        loop {
            let start = self.at;
            self.skip_spaces();
            match self.peek() {
                None => {
                    self.column = None;
                    return Ok(());
                }
                Some(b'\n') => self.at += 1,
                Some(b'#') => self.skip_comment()?,
                Some(_) => {
                    self.column = Some(self.at - start);
                    return Ok(());
                }
            }
        }
    }

    /// From a key without a value on its line to what is below it. A list may start at the key's own column.
    pub(super) fn descend(&mut self, column: usize) -> Result<(), Unusual> {
        self.end_line()?;
        let below = self.column()?;
        let is_below = below > column || (below == column && self.is_at_dash());
        let is_lines = self.is_at_dash() || self.is_at_key();
        (is_below && is_lines).then_some(()).ok_or(Unusual)
    }

    /// Whether this line is another entry of the mapping at that column.
    pub(super) fn next_entry(&self, column: usize) -> Result<bool, Unusual> {
        match self.column {
            Some(found) if found > column => Err(Unusual),
            found => Ok(found == Some(column)),
        }
    }

    /// Whether this line is another item of the list at that column; then what is behind its dash is next.
    pub(super) fn next_item(&mut self, column: usize) -> Result<bool, Unusual> {
        let has_next = self.next_entry(column)? && self.is_at_dash();
        if has_next {
            let dash = self.at;
            self.at += 1;
            self.skip_spaces();
            if self.is_at_line_end() {
                return Err(Unusual);
            }
            self.column = Some(column + self.at - dash);
        }
        Ok(has_next)
    }

    /// Whether there is another part of a collection in brackets; then it's next.
    pub(super) fn next_in_brackets(&mut self, close: u8, is_first: bool) -> Result<bool, Unusual> {
        if is_first {
            self.at += 1;
        }
        self.skip_spaces();
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(false);
        }
        if !is_first {
            if self.peek() != Some(b',') {
                return Err(Unusual);
            }
            self.at += 1;
            self.skip_spaces();
        }
        // Nothing between two commas, or behind the last.
        (!matches!(self.peek(), Some(b',' | b']' | b'}')))
            .then_some(true)
            .ok_or(Unusual)
    }
}

/// What a plain scalar consists of here. A colon with another such character behind it is one of them, too.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'/' | b'+' | b'-')
}
