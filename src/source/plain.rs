//! The short way: ordinary YAML straight into types, without a tree between them.
//!
//! Block mappings and lists, collections in brackets on one line, words, and texts in quotes without escapes: what long
//! files are written in. Whatever else there is, and whatever is wrong, gives `None`: the long way, by [`super::parse`]
//! and [`super::read`], has all of YAML, all rules, and the places of what is wrong. Here nothing is read that it would
//! refuse or read otherwise; the tests hold both against each other with random YAML.

mod lines;
mod scan;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};

use super::lists::List;
use super::tree::{self, check_size, resolve};
use lines::Lines;
use scan::Scan;

/// Reads a document and its lists, if they are ordinary and without a problem.
pub(crate) fn read_plain<'s, T: DeserializeOwned>(
    source: &'s str,
    lists: &'s [List<'s>],
) -> Option<T> {
    check_size(source).ok()?;
    let mut scan = Scan::new(source, lists).ok()?;
    let document = T::deserialize(Node::block(&mut scan)).ok()?;
    scan.is_at_end().then_some(document)
}

/// It isn't ordinary, or isn't right. The long way says what it is.
#[derive(Debug)]
struct Unusual;

impl fmt::Display for Unusual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not ordinary YAML")
    }
}

impl std::error::Error for Unusual {}

impl de::Error for Unusual {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }

    fn invalid_type(_: de::Unexpected, _: &dyn de::Expected) -> Self {
        Self
    }

    fn invalid_value(_: de::Unexpected, _: &dyn de::Expected) -> Self {
        Self
    }

    fn unknown_field(_: &str, _: &'static [&'static str]) -> Self {
        Self
    }

    fn unknown_variant(_: &str, _: &'static [&'static str]) -> Self {
        Self
    }
}

/// serde's view of what comes next.
struct Node<'n, 's> {
    scan: &'n mut Scan<'s>,
    /// It has lines of its own, rather than a part of one.
    is_block: bool,
    /// It may be a list in a file of its own, or have one among its items.
    is_list: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Mapping,
    Sequence,
    Quoted,
    Word,
}

impl<'n, 's> Node<'n, 's> {
    fn block(scan: &'n mut Scan<'s>) -> Self {
        Self {
            scan,
            is_block: true,
            is_list: false,
        }
    }

    fn inline(scan: &'n mut Scan<'s>) -> Self {
        Self {
            scan,
            is_block: false,
            is_list: false,
        }
    }

    /// The value of the key that was read last.
    fn value(self) -> Self {
        Self {
            is_list: self.scan.is_at_list(),
            ..self
        }
    }

    fn shape(&self) -> Shape {
        match self.scan.peek() {
            Some(b'{') => Shape::Mapping,
            Some(b'[') => Shape::Sequence,
            Some(b'"' | b'\'') => Shape::Quoted,
            _ if self.is_block && self.scan.is_at_dash() => Shape::Sequence,
            _ if self.is_block && self.scan.is_at_key() => Shape::Mapping,
            _ => Shape::Word,
        }
    }

    fn mapping<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        let first_key = self.scan.enter()?;
        let layout = self.layout()?;
        let mut entries = Entries {
            scan: self.scan,
            layout,
            first_key,
            is_over: false,
        };
        let value = visitor.visit_map(&mut entries)?;
        let Entries { scan, is_over, .. } = entries;
        scan.leave();
        is_over.then_some(value).ok_or(Unusual)
    }

    fn sequence<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        self.scan.enter()?;
        let layout = match self.shape() {
            Shape::Mapping => Layout::Alone {
                is_block: self.is_block,
                is_over: false,
            },
            Shape::Sequence | Shape::Quoted | Shape::Word => self.layout()?,
        };
        let mut items = Items {
            is_list: self.is_list,
            scan: self.scan,
            layout,
            lines: None,
            is_over: false,
        };
        let value = visitor.visit_seq(&mut items)?;
        let Items { scan, is_over, .. } = items;
        scan.leave();
        is_over.then_some(value).ok_or(Unusual)
    }

    fn layout(&self) -> Result<Layout, Unusual> {
        match self.scan.peek() {
            Some(b'{') => Ok(Layout::brackets(b'}', self.is_block)),
            Some(b'[') => Ok(Layout::brackets(b']', self.is_block)),
            _ => Ok(Layout::Lines {
                column: self.scan.column()?,
            }),
        }
    }

    fn quoted<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        let text = self.scan.quoted()?;
        self.end()?;
        visitor.visit_str(text)
    }

    fn word<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        let word = self.scan.word()?;
        self.end()?;
        visit(word, visitor)
    }

    /// A scalar that has lines of its own must end with its first.
    fn end(self) -> Result<(), Unusual> {
        if self.is_block {
            self.scan.end_line()
        } else {
            Ok(())
        }
    }
}

/// Gives a plain scalar to a visitor as what it means.
fn visit<'de, V: Visitor<'de>>(word: &str, visitor: V) -> Result<V::Value, Unusual> {
    match resolve(word).map_err(|_| Unusual)? {
        None => visitor.visit_str(word),
        Some(tree::Value::Bool(value)) => visitor.visit_bool(value),
        Some(tree::Value::Unsigned(number)) => visitor.visit_u64(number),
        Some(tree::Value::Negative(number)) => visitor.visit_i64(number),
        Some(tree::Value::Float(number)) => visitor.visit_f64(number),
        Some(_) => Err(Unusual),
    }
}

/// A plain scalar that means nothing but its text.
fn text_of(word: &str) -> Result<&str, Unusual> {
    match resolve(word) {
        Ok(None) => Ok(word),
        Ok(Some(_)) | Err(_) => Err(Unusual),
    }
}

impl<'de> Deserializer<'de> for Node<'_, '_> {
    type Error = Unusual;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        match self.shape() {
            Shape::Mapping if !self.is_list => self.mapping(visitor),
            Shape::Mapping | Shape::Sequence => self.sequence(visitor),
            Shape::Quoted => self.quoted(visitor),
            Shape::Word => self.word(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unusual> {
        // serde would also take a list, key by key in the order of our source.
        match self.shape() {
            Shape::Mapping => self.mapping(visitor),
            Shape::Sequence | Shape::Quoted | Shape::Word => Err(Unusual),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unusual> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unusual> {
        let text = match self.shape() {
            Shape::Quoted => self.scan.quoted()?,
            Shape::Word => text_of(self.scan.word()?)?,
            Shape::Mapping | Shape::Sequence => return Err(Unusual),
        };
        self.end()?;
        visitor.visit_enum(IntoDeserializer::<Unusual>::into_deserializer(text))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

/// How a collection is written.
#[derive(Clone, Copy)]
enum Layout {
    /// An entry or item a line, which starts at this column.
    Lines { column: usize },
    /// In brackets, of which this one closes.
    Brackets {
        close: u8,
        is_first: bool,
        ends_line: bool,
    },
    /// A mapping that is the only item.
    Alone { is_block: bool, is_over: bool },
}

impl Layout {
    fn brackets(close: u8, ends_line: bool) -> Self {
        Self::Brackets {
            close,
            is_first: true,
            ends_line,
        }
    }

    /// Whether there is another entry or item; then it's next.
    fn has_next(&mut self, scan: &mut Scan, is_sequence: bool) -> Result<bool, Unusual> {
        match self {
            Self::Lines { column } if is_sequence => scan.next_item(*column),
            Self::Lines { column } => scan.next_entry(*column),
            Self::Brackets {
                close,
                is_first,
                ends_line,
            } => {
                let has_next = scan.next_in_brackets(*close, std::mem::take(is_first))?;
                if !has_next && *ends_line {
                    scan.end_line()?;
                }
                Ok(has_next)
            }
            Self::Alone { is_over, .. } => Ok(!std::mem::replace(is_over, true)),
        }
    }

    /// Whether an item has lines of its own.
    fn has_lines(self) -> bool {
        match self {
            Self::Lines { .. } => true,
            Self::Brackets { .. } => false,
            Self::Alone { is_block, .. } => is_block,
        }
    }
}

struct Items<'n, 's> {
    scan: &'n mut Scan<'s>,
    layout: Layout,
    /// Some may be lists in files of their own.
    is_list: bool,
    /// The rest of one that was begun.
    lines: Option<Lines<'s>>,
    is_over: bool,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Unusual;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Unusual> {
        loop {
            if let Some(lines) = &mut self.lines
                && let Some(line) = lines.next(self.scan)?
            {
                let item = MapAccessDeserializer::new(line);
                return seed.deserialize(item).map(Some);
            }
            if !self.layout.has_next(self.scan, true)? {
                self.is_over = true;
                return Ok(None);
            }
            let is_block = self.layout.has_lines();
            if self.is_list {
                self.lines = Lines::named(self.scan, is_block)?;
            }
            if self.lines.is_none() {
                if matches!(self.layout, Layout::Alone { .. }) {
                    return Err(Unusual);
                }
                let item = Node {
                    scan: self.scan,
                    is_block,
                    is_list: false,
                };
                return seed.deserialize(item).map(Some);
            }
        }
    }
}

struct Entries<'n, 's> {
    scan: &'n mut Scan<'s>,
    layout: Layout,
    /// Where this mapping's keys begin among those of all that are open.
    first_key: usize,
    is_over: bool,
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = Unusual;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Unusual> {
        if !self.layout.has_next(self.scan, false)? {
            self.is_over = true;
            self.scan.forget_keys(self.first_key)?;
            return Ok(None);
        }
        let key = self.scan.key()?;
        seed.deserialize(StrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Unusual> {
        let Layout::Lines { column } = self.layout else {
            return seed.deserialize(Node::inline(self.scan).value());
        };
        if self.scan.is_at_line_end() {
            self.scan.descend(column)?;
            return seed.deserialize(Node::block(self.scan).value());
        }
        let value = seed.deserialize(Node::inline(self.scan).value())?;
        self.scan.end_line()?;
        Ok(value)
    }
}
