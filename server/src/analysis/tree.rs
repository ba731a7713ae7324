//! An analysis as a tree for people.

use std::fmt::Write as _;

use kelvin_ivm::{Driver, NodeExplanation, Purpose, ReadExplanation, Role};

use super::Analysis;

/// Indentation of a level.
const STEP: &str = "  ";

/// The tree, the sums and the warnings, and a line end.
pub(super) fn render(analysis: &Analysis) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "plan {}", analysis.explanation.plan);
    below(&mut text, &analysis.explanation.nodes, None, 0);
    let (rows, examined) = (analysis.explanation.rows, analysis.explanation.examined);
    let ms = analysis.elapsed_ms;
    let _ = writeln!(text, "\n{rows} rows, {examined} examined, {ms:.1} ms");
    for warning in &analysis.warnings {
        let _ = writeln!(text, "warning: {}", clean(warning));
    }
    text
}

fn below(text: &mut String, nodes: &[NodeExplanation], parent: Option<usize>, level: usize) {
    for (at, node) in nodes.iter().enumerate() {
        if node.parent == parent && (at > 0 || parent.is_none()) {
            let indent = STEP.repeat(level);
            let _ = writeln!(text, "{indent}{}", clean(&head(node)));
            let indent = STEP.repeat(level + 1);
            let _ = writeln!(text, "{indent}{}", clean(&facts(node)));
            for read in &node.reads {
                let _ = writeln!(text, "{indent}{}", clean(&read_line(&node.table, read)));
            }
            below(text, nodes, Some(at), level + 1);
        }
    }
}

/// What is asked for, in one line.
#[must_use]
pub fn head(node: &NodeExplanation) -> String {
    let role = match node.role {
        Role::Query => "",
        Role::Related => "related ",
        Role::Exists => "exists ",
        Role::NotExists => "not exists ",
    };
    let mut text = format!("{role}{}", node.table);
    for (at, (parent, own)) in node.ties.iter().enumerate() {
        let word = if at == 0 { "on" } else { "and" };
        let _ = write!(text, " {word} {own} = parent.{parent}");
    }
    if let Some(condition) = &node.condition {
        let _ = write!(text, " where {condition}");
    }
    if let Some(order) = &node.order {
        let _ = write!(text, " order by {order}");
    }
    if let Some(start) = &node.start {
        let _ = write!(text, " starting {start}");
    }
    if let Some(limit) = node.limit {
        let _ = write!(text, " limit {limit}");
    }
    text
}

fn facts(node: &NodeExplanation) -> String {
    let mut text = format!("{} of {} rows", node.rows, node.table_rows);
    if !node.synced {
        text.push_str(", not synced");
    }
    let driver = node.driver.map(|driver| match driver {
        Driver::Parent => "; driven by the parent",
        Driver::Child => "; drives the parent",
        Driver::ParentAfterTrial => "; too many to drive the parent, which is asked row by row",
        Driver::Neither => "; not asked",
    });
    text.push_str(driver.unwrap_or_default());
    text
}

/// One way of reading a table, in the words that SQLite has for it: tools know these.
pub(super) fn read_line(table: &str, read: &ReadExplanation) -> String {
    let mut text = way(table, read);
    let purpose = match read.purpose {
        Purpose::Rows => "rows",
        Purpose::Probe => "one for each parent",
        Purpose::Survey => "once for all parents",
        Purpose::Drive => "from the selective side",
        Purpose::Choice => "to choose an index",
        Purpose::Parents => "parents of what changed",
    };
    let _ = write!(text, " [{purpose}]: ");
    match read.scans {
        1 => text.push_str("1 scan, "),
        scans => {
            let _ = write!(text, "{scans} scans, ");
        }
    }
    if let Some(estimated) = read.estimated {
        let _ = write!(text, "{estimated} rows expected, ");
    }
    let _ = write!(text, "{} examined", read.examined);
    text
}

pub(super) fn way(table: &str, read: &ReadExplanation) -> String {
    let verb = if read.narrowed_by.is_empty() {
        "SCAN"
    } else {
        "SEARCH"
    };
    let mut text = format!("{verb} {table}");
    match &read.index {
        Some(index) => {
            let _ = write!(text, " USING INDEX {index}");
        }
        None if !read.narrowed_by.is_empty() || !read.sorted_by.is_empty() => {
            text.push_str(" USING PRIMARY KEY");
        }
        None => {}
    }
    if !read.narrowed_by.is_empty() {
        let _ = write!(text, " ({}=?)", read.narrowed_by.join("=? AND "));
    }
    if !read.sorted_by.is_empty() {
        let _ = write!(text, " ORDERED BY {}", read.sorted_by.join(", "));
    }
    text
}

/// Names come from the database, and a terminal obeys control characters.
fn clean(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(visible).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_tree_shows_every_node_below_its_parent() {
        let node = |parent: Option<usize>, role: &str, table: &str| {
            json!({
                "parent": parent, "role": role, "table": table, "tableRows": 9, "synced": true,
                "rows": 2, "reads": [],
            })
        };
        let mut root = node(None, "query", "issue");
        root["condition"] = json!("owner = 1");
        root["order"] = json!("prio desc");
        root["limit"] = json!(5);
        root["reads"] = json!([{
            "purpose": "rows", "index": "by_owner", "narrowedBy": ["owner"], "sortedBy": ["prio"],
            "scans": 1, "examined": 3,
        }]);
        let mut gate = node(Some(0), "exists", "evil\u{1b}[2J");
        gate["driver"] = json!("parent-after-trial");
        gate["ties"] = json!([["id", "issue"]]);
        let analysis: Analysis = serde_json::from_value(json!({
            "elapsedMs": 1.26, "warnings": ["slow"], "plan": "ab", "rows": 4, "examined": 7,
            "nodes": [root, node(Some(0), "related", "comment"), node(Some(1), "related", "user"), gate],
            "missingIndexes": [],
        }))
        .unwrap();
        let text = render(&analysis);
        let expected = "\
plan ab
issue where owner = 1 order by prio desc limit 5
  2 of 9 rows
  SEARCH issue USING INDEX by_owner (owner=?) ORDERED BY prio [rows]: 1 scan, 3 examined
  related comment
    2 of 9 rows
    related user
      2 of 9 rows
  exists evil\u{fffd}[2J on issue = parent.id
    2 of 9 rows; too many to drive the parent, which is asked row by row

4 rows, 7 examined, 1.3 ms
warning: slow
";
        assert_eq!(text, expected);
    }
}
