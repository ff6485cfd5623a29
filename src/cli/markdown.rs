//! Plans as Markdown: a comment on a pull request.

use tunnelform::plan::Style;

use super::input::counted;
use super::offline::{NodePlan, Totals, summary};
use super::{Failure, print};

/// What a comment on a pull request may hold; GitHub takes 65,536 characters.
const MOST_MARKDOWN: usize = 60_000;

/// The form of the output.
#[derive(Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Form {
    /// For people.
    #[default]
    Text,
    /// For machines: one document.
    Json,
    /// For a comment on a pull request.
    Markdown,
}

/// A heading with what follows it, a table of the nodes that change, and each one's plan folded away.
pub(super) fn markdown(
    plans: impl Iterator<Item = NodePlan>,
    heading: &str,
) -> Result<Totals, Failure> {
    let mut totals = Totals::default();
    let mut table = String::new();
    let mut details = String::new();
    let mut left_out = 0;
    for node in plans {
        totals.add(&node);
        let (counts, text) = match &node.plan {
            Ok(plan) if plan.is_empty() && plan.conflicts.is_empty() => continue,
            Ok(plan) => (plan.counts(), plan.text(Style { color: false })),
            Err(error) => (Default::default(), error.clone()),
        };
        let row = format!(
            "| {} | {} | {} | {} | {} |\n",
            node.node, counts.create, counts.update, counts.replace, counts.delete
        );
        let block = format!(
            "<details><summary>{}</summary>\n\n```diff\n{}\n```\n\n</details>\n",
            node.node,
            as_diff(&text)
        );
        if table.len() + row.len() + details.len() + block.len() > MOST_MARKDOWN {
            left_out += 1;
            continue;
        }
        table += &row;
        details += &block;
    }
    let mut text = format!("### tunnelform: {heading}");
    if table.is_empty() && left_out == 0 {
        text += "No node changes.\n";
    } else {
        text +=
            "| node | create | change | replace | delete |\n| --- | ---: | ---: | ---: | ---: |\n";
        text += &table;
        if left_out > 0 {
            text += &format!(
                "\n… and {}: too much for a comment.\n",
                counted(left_out, "more node")
            );
        }
        text += &format!("{}\n\n{details}", summary(&totals));
    }
    print(&text)?;
    Ok(totals)
}

/// With the sign in the first column, where a diff is coloured by it.
fn as_diff(text: &str) -> String {
    let lines = text.trim_end().lines().map(|line| {
        let (sign, rest) = match line.get(..3) {
            Some("  +") => ("+", &line[3..]),
            Some("  -") => ("-", &line[3..]),
            Some("  ~") => ("!", &line[3..]),
            Some("-/+") => ("!", line),
            _ => ("", line),
        };
        // Nothing in a plan may end the block.
        format!("{sign}{}", rest.replace("```", "'''"))
    });
    lines.collect::<Vec<_>>().join("\n")
}
