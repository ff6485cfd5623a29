//! Tables of topologies and the problems that they should have.

use super::Topology;
use crate::source::{Problems, Severity};

/// A topology's source, and what each of its problems says, sorted by place. In the source a `»` marks where each
/// problem should stand; `warning:` before a text asks for a warning rather than an error.
pub(crate) type Case<'a> = (&'a str, &'a [&'a str]);

/// Checks cases whose source stands below `name: t`.
pub(crate) fn check(cases: &[Case]) {
    check_below("name: t\n", cases);
}

/// Checks cases whose source stands below `head`.
pub(crate) fn check_below(head: &str, cases: &[Case]) {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(source, expected)| differs(&format!("{head}{source}"), expected))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Everything that `source` has to say, errors and warnings.
pub(crate) fn problems(source: &str) -> Problems {
    match Topology::parse("test.yaml", source) {
        Ok(parsed) => parsed.warnings,
        Err(problems) => problems,
    }
}

fn differs(marked: &str, expected: &[&str]) -> Option<String> {
    let source = marked.replace('»', "");
    let found = problems(&source);
    let same =
        found.list.len() == expected.len()
            && found.list.iter().zip(expected).zip(marks(marked)).all(
                |((problem, expected), mark)| {
                    let (severity, text) = match expected.strip_prefix("warning:") {
                        Some(text) => (Severity::Warning, text.trim_start()),
                        None => (Severity::Error, *expected),
                    };
                    problem.severity == severity
                        && problem.message.contains(text)
                        && problem.span.start == mark
                },
            );
    (!same).then(|| format!("expected {expected:#?}\nat the marks of\n{marked}\nfound\n{found}"))
}

/// Where the marks are, in characters of the source without them. Behind the last comes its place again and again:
/// problems may share it.
fn marks(marked: &str) -> impl Iterator<Item = usize> {
    let positions = marked.chars().enumerate().filter(|(_, c)| *c == '»');
    let marks: Vec<usize> = positions
        .enumerate()
        .map(|(before, (position, _))| position - before)
        .collect();
    let last = marks.last().copied().unwrap_or_default();
    marks.into_iter().chain(std::iter::repeat(last))
}
