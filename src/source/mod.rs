//! YAML as people write it: a tree that knows where everything stands, serde over it, and problems shown at their place.
//!
//! What the keys mean is none of its business.

mod lists;
mod plain;
mod problem;
mod read;
mod render;
mod tree;
mod write;

pub use lists::{Content, ListFile};
pub(crate) use lists::{List, Texts, expand};
pub(crate) use plain::read_plain;
pub(crate) use problem::Segment;
pub use problem::{Located, Path, Problem, Problems, Severity, SourceFile, Span};
pub(crate) use read::{Lost, Shape, read};
pub(crate) use tree::{Index, Node, Tree, Value, parse};
pub(crate) use write::write;
