//! Lists in files of their own: `routes: {file: routes.txt, device: eth0}` stands for an item for each of the file's lines.
//!
//! A line has a prefix, and behind it keys with their values as a mapping would have them: `10.0.0.0/8 metric 50`. What
//! stands beside `file` holds for every line that doesn't say it itself. Nothing here opens the file.

#[cfg(test)]
mod tests;

use std::path::{Component, Path, PathBuf};

use super::problem::{Problem, SourceFile, Span};
use super::tree::{self, MAX_NODES, Node, Tree, Value};

/// The key whose value may be such a list.
pub(super) const LIST: &str = "routes";
/// The key that names the file.
pub(super) const FILE: &str = "file";
/// The key of a line's first word.
pub(super) const FIRST: &str = "to";

/// A file of a topology, with the files of its lists.
#[derive(Debug, Clone)]
pub struct Content {
    /// Its name for messages.
    pub name: String,
    /// What it holds; it need not be text.
    pub bytes: Vec<u8>,
    /// The files that it names.
    pub lists: Vec<ListFile>,
}

/// A list in a file of its own.
#[derive(Debug, Clone)]
pub struct ListFile {
    /// As the topology's file names it.
    pub file: String,
    /// Where it is.
    pub path: PathBuf,
    /// What it holds, or why it can't be read.
    pub bytes: Result<Vec<u8>, String>,
}

impl Content {
    /// A file that names no other.
    pub fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            bytes: bytes.into(),
            lists: Vec::new(),
        }
    }

    /// The files that a topology's file names for its lists and that may be read, each once.
    ///
    /// Only what stands in the topology's directory or below it: who may write a topology need not be allowed to read
    /// whatever the one who applies it can.
    pub fn named(bytes: &[u8]) -> Vec<String> {
        let mut names = Vec::new();
        // Most have none, and need no look.
        let text = std::str::from_utf8(bytes).ok();
        if let Some(text) = text.filter(|text| text.contains(FILE)) {
            let tree = tree::parse(text);
            tree.root
                .iter()
                .for_each(|root| add_names(root, &mut names));
        }
        names
    }
}

fn add_names(node: &Node, names: &mut Vec<String>) {
    match &node.value {
        Value::Mapping(entries) => {
            for (key, value) in entries {
                if key.text() == Some(LIST) {
                    let files = items(value).iter().filter_map(|item| file(item)?.text());
                    for file in files.filter(|file| is_below(file)) {
                        if !names.iter().any(|name| name == file) {
                            names.push(file.to_owned());
                        }
                    }
                } else {
                    add_names(value, names);
                }
            }
        }
        Value::Sequence(items) => items.iter().for_each(|item| add_names(item, names)),
        _ => {}
    }
}

/// The items of a list; a mapping is the only item of one.
fn items<'n, 's>(list: &'n Node<'s>) -> &'n [Node<'s>] {
    match &list.value {
        Value::Sequence(items) => items,
        _ => std::slice::from_ref(list),
    }
}

/// What an item has for the name of a file.
fn file<'n, 's>(item: &'n Node<'s>) -> Option<&'n Node<'s>> {
    let Value::Mapping(entries) = &item.value else {
        return None;
    };
    let mut entries = entries.iter();
    entries.find_map(|(key, value)| (key.text() == Some(FILE)).then_some(value))
}

fn is_below(file: &str) -> bool {
    let mut parts = Path::new(file).components();
    !file.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// The text of a list, as the topology's file names it.
#[derive(Clone, Copy)]
pub(crate) struct List<'s> {
    pub(crate) file: &'s str,
    /// Why it can't be read, else.
    pub(crate) text: Result<&'s str, &'s str>,
    /// Characters before it, counted from the beginning of the file that names it.
    pub(crate) start: usize,
}

impl<'s> List<'s> {
    pub(crate) fn characters(&self) -> usize {
        self.text.map_or(0, |text| text.chars().count())
    }

    pub(super) fn find(file: &str, lists: &[Self]) -> Option<Self> {
        lists.iter().find(|list| list.file == file).copied()
    }
}

/// The words of a line up to its comment.
pub(super) fn words(line: &str) -> impl Iterator<Item = &str> {
    let words = line.split_ascii_whitespace();
    words.take_while(|word| !word.starts_with('#'))
}

/// Puts the lines' items in place of the mappings that name their files.
pub(crate) fn expand<'s>(tree: &mut Tree<'s>, lists: &[List<'s>]) {
    expand_up_to(MAX_NODES, tree, lists);
}

fn expand_up_to<'s>(most: usize, tree: &mut Tree<'s>, lists: &[List<'s>]) {
    let mut expansion = Expansion {
        lists,
        most,
        nodes: 0,
        problems: &mut tree.problems,
    };
    tree.root.iter_mut().for_each(|root| expansion.node(root));
}

struct Expansion<'t, 's> {
    lists: &'t [List<'s>],
    /// So many nodes may be made.
    most: usize,
    /// So many were.
    nodes: usize,
    problems: &'t mut Vec<Problem>,
}

type Entries<'s> = Vec<(Node<'s>, Node<'s>)>;

impl<'s> Expansion<'_, 's> {
    fn node(&mut self, node: &mut Node<'s>) {
        match &mut node.value {
            Value::Mapping(entries) => {
                for (key, value) in entries {
                    match key.text() {
                        Some(LIST) => self.list(value),
                        _ => self.node(value),
                    }
                }
            }
            Value::Sequence(items) => items.iter_mut().for_each(|item| self.node(item)),
            _ => {}
        }
    }

    fn list(&mut self, list: &mut Node<'s>) {
        if !items(list).iter().any(|item| file(item).is_some()) {
            return;
        }
        let value = std::mem::replace(&mut list.value, Value::Refused);
        let written = match value {
            Value::Sequence(items) => items,
            value => vec![Node {
                span: list.span,
                value,
            }],
        };
        let mut items = Vec::new();
        for item in written {
            match item.value {
                Value::Mapping(entries) if file_of(&entries).is_some() => {
                    self.file(entries, &mut items);
                }
                _ => items.push(item),
            }
        }
        list.value = Value::Sequence(items);
    }

    /// Adds an item for each line of the file that a mapping names.
    fn file(&mut self, mut entries: Entries<'s>, items: &mut Vec<Node<'s>>) {
        let Some(index) = file_of(&entries) else {
            return;
        };
        let (_, file) = entries.remove(index);
        if let Some((key, _)) = entries.iter().find(|(key, _)| key.text() == Some(FIRST)) {
            let message = format!("`{FIRST}` is what the file's lines begin with");
            self.problems
                .push(Problem::error(key.span, message).help("delete it"));
        }
        let list = match self.find(&file) {
            Ok(list) => list,
            Err(problem) => {
                self.problems.push(problem);
                // Something is missing, and it's known what.
                items.push(Node {
                    value: Value::Refused,
                    ..file
                });
                return;
            }
        };
        let mut start = list.start;
        for line in list.text.unwrap_or_default().split('\n') {
            let item = self.line(line, start, &entries);
            items.extend(item);
            start += line.chars().count() + 1;
            if self.nodes > self.most {
                let message = format!("more than the {} values allowed", self.most);
                self.problems.push(Problem::error(file.span, message));
                return;
            }
        }
    }

    fn find(&self, file: &Node<'s>) -> Result<List<'s>, Problem> {
        let problem = |message: String| Problem::error(file.span, message);
        let Some(name) = file.text().filter(|name| !name.is_empty()) else {
            return Err(problem("`file` is the name of a file".into()));
        };
        if !is_below(name) {
            let help = "put the list beside the topology, and give its name";
            return Err(problem(format!(
                "expected a file in the topology's directory or below it, found {name:?}"
            ))
            .help(help));
        }
        let list = List::find(name, self.lists);
        let list = list.ok_or_else(|| problem(format!("{name} was not read")))?;
        match list.text {
            Ok(_) => Ok(list),
            Err(why) => Err(problem(format!("can't read {name}: {why}"))
                .help("the name is that of a file beside the topology")),
        }
    }

    /// The item of a line, if there's any on it. The line starts behind so many characters.
    fn line(&mut self, line: &'s str, start: usize, defaults: &Entries<'s>) -> Option<Node<'s>> {
        let span = |word: &str| {
            let before = word.as_ptr().addr() - line.as_ptr().addr();
            let start = start + line[..before].chars().count();
            Span {
                start,
                end: start + word.chars().count(),
            }
        };
        let mut words = words(line);
        let first = words.next()?;
        let mut entries = vec![(
            text(FIRST, span(first)),
            tree::plain(first.into(), span(first), self.problems),
        )];
        while let Some(key) = words.next() {
            let at = span(key);
            let Some(value) = words.next() else {
                let message = format!("expected a value behind {key:?}, found the line's end");
                self.problems.push(Problem::error(at, message));
                break;
            };
            if entries.iter().any(|(known, _)| known.text() == Some(key)) {
                let message = format!("{key:?} is given twice on this line");
                self.problems.push(Problem::error(at, message));
                continue;
            }
            let value = tree::plain(value.into(), span(value), self.problems);
            entries.push((text(key, at), value));
        }
        let given = entries.len();
        for (key, value) in defaults {
            let own = &entries[..given];
            if !own.iter().any(|(known, _)| known.name() == key.name()) {
                entries.push((key.clone(), value.clone()));
            }
        }
        self.nodes += 1 + 2 * entries.len();
        Some(Node {
            span: span(first),
            value: Value::Mapping(entries),
        })
    }
}

fn file_of(entries: &Entries) -> Option<usize> {
    entries.iter().position(|(key, _)| key.text() == Some(FILE))
}

fn text(word: &str, span: Span) -> Node<'_> {
    Node {
        span,
        value: Value::Text(word.into()),
    }
}

/// The texts of a topology's files, in the order in which places count through them: each with its lists behind it.
pub(crate) struct Texts {
    /// The texts.
    pub(crate) files: Vec<SourceFile>,
    /// For each file of the topology its number among them, and its lists'.
    pub(crate) documents: Vec<Document>,
}

/// One file of a topology among the texts.
pub(crate) struct Document {
    file: usize,
    lists: Vec<(String, Result<usize, String>)>,
}

impl Texts {
    /// Takes the files apart; what isn't text is a problem.
    pub(crate) fn new(contents: Vec<Content>) -> (Self, Vec<Problem>) {
        let mut texts = Self {
            files: Vec::new(),
            documents: Vec::new(),
        };
        let mut problems = Vec::new();
        let mut before = 0;
        for Content { name, bytes, lists } in contents {
            let file = texts.add(name, bytes, &mut before, &mut problems);
            let lists = lists.into_iter().map(|ListFile { file, path, bytes }| {
                let name = path.display().to_string();
                let number = bytes.map(|bytes| texts.add(name, bytes, &mut before, &mut problems));
                (file, number)
            });
            let lists = lists.collect();
            texts.documents.push(Document { file, lists });
        }
        (texts, problems)
    }

    fn add(
        &mut self,
        name: String,
        bytes: Vec<u8>,
        before: &mut usize,
        problems: &mut Vec<Problem>,
    ) -> usize {
        let text = String::from_utf8(bytes).unwrap_or_else(|error| {
            let valid = error.utf8_error().valid_up_to();
            let found = error.as_bytes()[valid];
            let valid = String::from_utf8_lossy(&error.as_bytes()[..valid]);
            let span = Span::at(*before + valid.chars().count());
            let message = format!("expected UTF-8 text, found the byte {found:#04x}");
            problems.push(Problem::error(span, message).help("save the file as UTF-8"));
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        });
        // Editors don't count a byte order mark as a column.
        let text = match text.strip_prefix('\u{feff}') {
            Some(rest) => rest.to_owned(),
            None => text,
        };
        *before += text.chars().count();
        self.files.push(SourceFile { name, text });
        self.files.len() - 1
    }

    /// The text of a file of the topology, and its lists.
    pub(crate) fn of<'t>(&'t self, document: &'t Document) -> (&'t str, Vec<List<'t>>) {
        let text = &self.files[document.file].text;
        let mut start = text.chars().count();
        let lists = document.lists.iter().map(|(file, number)| {
            let text = number
                .as_ref()
                .map(|number| self.files[*number].text.as_str());
            let list = List {
                file,
                text: text.map_err(String::as_str),
                start,
            };
            start += list.characters();
            list
        });
        (text, lists.collect())
    }
}
