//! Items from a list in a file of its own.

use std::fmt;
use std::str::Split;

use serde::de::value::StrDeserializer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};

use super::{Node, Scan, Shape, Unusual, text_of, visit};
use crate::source::lists::{FILE, FIRST, List, words};

/// A mapping that names the file of a list.
#[derive(Default)]
struct Naming {
    file: Option<String>,
    /// What stands beside it.
    defaults: Vec<(String, Scalar)>,
}

enum Scalar {
    Text(String),
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
}

/// The lines of a list's file that are still to be read.
pub(super) struct Lines<'s> {
    rest: Split<'s, char>,
    defaults: Vec<(String, Scalar)>,
    /// The keys and values of the line that is being read.
    pairs: Vec<(&'s str, &'s str)>,
}

impl<'s> Lines<'s> {
    /// The lines of the file that the next mapping names. `None`: it's an item like any other, and still next.
    pub(super) fn named(scan: &mut Scan<'s>, is_block: bool) -> Result<Option<Self>, Unusual> {
        let before = scan.mark();
        let node = Node {
            scan,
            is_block,
            is_list: false,
        };
        let naming = match node.shape() {
            Shape::Mapping => Naming::deserialize(node).ok(),
            Shape::Sequence | Shape::Quoted | Shape::Word => None,
        };
        let Some(Naming {
            file: Some(file),
            defaults,
        }) = naming
        else {
            scan.return_to(before);
            return Ok(None);
        };
        let list = List::find(&file, scan.lists()).ok_or(Unusual)?;
        let is_ambiguous = defaults.iter().any(|(key, _)| key == FIRST);
        (!is_ambiguous).then_some(()).ok_or(Unusual)?;
        Ok(Some(Self {
            rest: list.text.map_err(|_| Unusual)?.split('\n'),
            defaults,
            pairs: Vec::new(),
        }))
    }

    /// The next line that has an item, as a mapping.
    pub(super) fn next(&mut self, scan: &mut Scan) -> Result<Option<Line<'_, 's>>, Unusual> {
        for line in self.rest.by_ref() {
            let mut words = words(line);
            let Some(first) = words.next() else {
                continue;
            };
            self.pairs.clear();
            self.pairs.push((FIRST, first));
            while let Some(key) = words.next() {
                if self.gives(key) {
                    return Err(Unusual);
                }
                self.pairs.push((key, words.next().ok_or(Unusual)?));
            }
            scan.count(1 + 2 * (self.pairs.len() + self.defaults.len()))?;
            return Ok(Some(Line {
                lines: self,
                next: 0,
            }));
        }
        Ok(None)
    }

    fn gives(&self, key: &str) -> bool {
        self.pairs.iter().any(|(given, _)| *given == key)
    }
}

/// A line as a mapping: its own keys, and the others that stand beside the file's name.
pub(super) struct Line<'l, 's> {
    lines: &'l Lines<'s>,
    next: usize,
}

impl Line<'_, '_> {
    fn key(&self) -> Option<&str> {
        let Lines {
            pairs, defaults, ..
        } = self.lines;
        match pairs.get(self.next) {
            Some((key, _)) => Some(key),
            None => Some(&defaults.get(self.next - pairs.len())?.0),
        }
    }

    fn is_own(&self) -> bool {
        self.next < self.lines.pairs.len()
    }
}

impl<'de> MapAccess<'de> for Line<'_, '_> {
    type Error = Unusual;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Unusual> {
        while !self.is_own() && self.key().is_some_and(|key| self.lines.gives(key)) {
            self.next += 1;
        }
        match self.key() {
            Some(key) => seed.deserialize(StrDeserializer::new(key)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Unusual> {
        let Lines {
            pairs, defaults, ..
        } = self.lines;
        let value = match pairs.get(self.next) {
            Some((_, word)) => Given::Word(word),
            None => Given::Beside(&defaults[self.next - pairs.len()].1),
        };
        self.next += 1;
        seed.deserialize(value)
    }
}

/// A value: a word of the line, or what stands beside the file's name.
enum Given<'a> {
    Word(&'a str),
    Beside(&'a Scalar),
}

impl<'de> Deserializer<'de> for Given<'_> {
    type Error = Unusual;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        match self {
            Self::Word(word) => visit(word, visitor),
            Self::Beside(Scalar::Text(text)) => visitor.visit_str(text),
            Self::Beside(Scalar::Bool(value)) => visitor.visit_bool(*value),
            Self::Beside(Scalar::Unsigned(number)) => visitor.visit_u64(*number),
            Self::Beside(Scalar::Negative(number)) => visitor.visit_i64(*number),
            Self::Beside(Scalar::Float(number)) => visitor.visit_f64(*number),
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
        let text = match self {
            Self::Word(word) => text_of(word)?,
            Self::Beside(Scalar::Text(text)) => text,
            Self::Beside(_) => return Err(Unusual),
        };
        visitor.visit_enum(IntoDeserializer::<Unusual>::into_deserializer(text))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

impl<'de> Deserialize<'de> for Naming {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamingVisitor;
        impl<'de> Visitor<'de> for NamingVisitor {
            type Value = Naming;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Naming, A::Error> {
                let mut naming = Naming::default();
                while let Some(key) = map.next_key::<String>()? {
                    if key == FILE {
                        naming.file = Some(map.next_value()?);
                    } else {
                        naming.defaults.push((key, map.next_value()?));
                    }
                }
                Ok(naming)
            }
        }
        deserializer.deserialize_map(NamingVisitor)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl Visitor<'_> for ScalarVisitor {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a scalar")
            }

            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar::Bool(value))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar::Unsigned(number))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar::Negative(number))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar::Float(number))
            }
        }
        deserializer.deserialize_any(ScalarVisitor)
    }
}
