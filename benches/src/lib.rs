//! What the benches of kelvin's parts have in common: a replica of a sample database, its
//! transactions and queries.
//!
//! It **is** a small issue tracker: `issue` with an index on (open, modified desc) and `comment`
//! with one on its issue. It is **not** a load generator: each bench measures one part in one
//! process. Compare runs on one machine only; lone numbers say little.
//!
//! # Invariants
//! * Deterministic: the same size gives the same rows, transactions and queries in every run.
//!
//! # Example
//! ```
//! use kelvin_benches::{Sample, by_newest};
//!
//! let sample = Sample::new(100)?;
//! let view = sample.replica.latest()?;
//! let newest = view.scan(kelvin_benches::ISSUE, &by_newest())?.count();
//! assert_eq!(newest, 50);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use kelvin_protocol::{Ast, Direction, Value, ValueType, Version};
use kelvin_storage::{
    Catalog, Column, Datum, Error, Index, IndexId, Replica, ReplicaIdentity, ReplicaOptions, RowOp,
    Scan, Table, TableId, Transaction,
};

/// Table of issues: id, title, open, owner, modified.
pub const ISSUE: TableId = TableId(1);
/// Table of comments: id, issue, body.
pub const COMMENT: TableId = TableId(2);
/// Comments that each issue has.
pub const COMMENTS_PER_ISSUE: u64 = 3;
/// Owners of issues.
const OWNERS: u64 = 50;
/// Version of the initial copy.
const COPIED: Version = 1_000;

/// A replica filled with issues and their comments, and the version it stands at.
pub struct Sample {
    /// The replica.
    pub replica: Replica,
    /// Number of issues.
    pub issues: u64,
    version: Version,
    _folder: tempfile::TempDir,
}

impl Sample {
    /// A replica in a temporary folder with this many issues.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn new(issues: u64) -> Result<Self, Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let catalog = Catalog::new(vec![issue_table(), comment_table()], vec![]);
        let loader = Replica::create(folder.path(), &ReplicaOptions::default(), catalog)?;
        let mut table = loader.table(ISSUE)?;
        for n in 0..issues {
            table.insert(issue(n, 0))?;
        }
        table.finish()?;
        let mut table = loader.table(COMMENT)?;
        for n in 0..issues * COMMENTS_PER_ISSUE {
            table.insert(comment(n, n / COMMENTS_PER_ISSUE))?;
        }
        table.finish()?;
        Ok(Self {
            replica: loader.finish(ReplicaIdentity::default(), COPIED)?,
            issues,
            version: COPIED,
            _folder: folder,
        })
    }

    /// The next transaction: it changes `rows` issues, which become the newest.
    pub fn next(&mut self, rows: u64) -> Transaction {
        self.version += 1;
        let at = |n| (self.version * 7_919 + n * 104_729) % self.issues;
        let ops = (0..rows).map(|n| RowOp::Update {
            table: ISSUE,
            old_key: None,
            row: issue(at(n), self.version)
                .into_iter()
                .map(Datum::Value)
                .collect(),
        });
        Transaction {
            version: self.version,
            ops: ops.collect(),
        }
    }

    /// Applies a transaction.
    ///
    /// # Errors
    /// Those of [`Replica::apply`].
    pub fn apply(&self, transaction: Transaction) -> Result<kelvin_storage::Applied, Error> {
        self.replica.apply(&[transaction])
    }
}

/// The open issues, newest first, as a scan of the index on (open, modified desc).
#[must_use]
pub fn by_newest() -> Scan {
    Scan {
        prefix: vec![Value::from(true)],
        ..Scan::of(IndexId(1))
    }
}

/// The id of the issue with a number.
#[must_use]
pub fn issue_id(n: u64) -> Value {
    Value::from(format!("issue-{n:08}").as_str())
}

/// The newest open issues with their comments: the page of an issue tracker.
///
/// # Errors
/// Never: the text is a constant.
pub fn page() -> Result<Ast, serde_json::Error> {
    serde_json::from_str(
        r#"{"table":"issue",
            "where":{"type":"simple","op":"=",
              "left":{"type":"column","name":"open"},"right":{"type":"literal","value":true}},
            "orderBy":[["modified","desc"]],"limit":100,
            "related":[{"correlation":{"parentField":["id"],"childField":["issue_id"]},
              "subquery":{"table":"comment","alias":"comments"}}]}"#,
    )
}

/// The issues of one owner that somebody commented on.
///
/// # Errors
/// Never: the text is made from a number.
pub fn owned(owner: u64) -> Result<Ast, serde_json::Error> {
    serde_json::from_str(&format!(
        r#"{{"table":"issue",
            "where":{{"type":"and","conditions":[
              {{"type":"simple","op":"=","left":{{"type":"column","name":"owner"}},
                "right":{{"type":"literal","value":{owner}}}}},
              {{"type":"correlatedSubquery","op":"EXISTS","related":{{
                "correlation":{{"parentField":["id"],"childField":["issue_id"]}},
                "subquery":{{"table":"comment","alias":"comments"}}}}}}]}}}}"#,
    ))
}

/// Row of an issue; `generation` makes it newer.
#[expect(clippy::cast_precision_loss, reason = "sample numbers are small")]
fn issue(n: u64, generation: u64) -> Vec<Value> {
    vec![
        issue_id(n),
        Value::from(format!("Issue {n} in its generation {generation}").as_str()),
        Value::from((n + generation).is_multiple_of(2)),
        Value::from((n % OWNERS) as f64),
        Value::from((generation * 1_000_000 + n) as f64),
    ]
}

fn comment(n: u64, of: u64) -> Vec<Value> {
    vec![
        Value::from(format!("comment-{n:08}").as_str()),
        issue_id(of),
        Value::from("A comment of the length that comments have on average, more or less."),
    ]
}

fn issue_table() -> Table {
    let columns = vec![
        column("id", 1, ValueType::String),
        column("title", 2, ValueType::String),
        column("open", 3, ValueType::Boolean),
        column("owner", 4, ValueType::Number),
        column("modified", 5, ValueType::Number),
    ];
    let newest = vec![(2, Direction::Asc), (4, Direction::Desc)];
    table(
        ISSUE,
        "issue",
        columns,
        vec![newest, vec![(3, Direction::Asc)]],
    )
}

fn comment_table() -> Table {
    let columns = vec![
        column("id", 1, ValueType::String),
        column("issue_id", 2, ValueType::String),
        column("body", 3, ValueType::String),
    ];
    table(COMMENT, "comment", columns, vec![vec![(1, Direction::Asc)]])
}

fn table(
    id: TableId,
    name: &str,
    columns: Vec<Column>,
    indexes: Vec<Vec<(usize, Direction)>>,
) -> Table {
    let index = |(at, columns)| Index {
        id: IndexId(u16::try_from(at + 1).unwrap_or(u16::MAX)),
        name: format!("{name}_{at}"),
        columns,
        unique: false,
    };
    Table {
        id,
        name: name.into(),
        schema: "public".into(),
        upstream_name: name.into(),
        oid: 16_384 + id.0,
        columns,
        unsynced_columns: vec![],
        key: vec![0],
        unique_keys: vec![vec![0]],
        indexes: indexes.into_iter().enumerate().map(index).collect(),
    }
}

fn column(name: &str, attnum: i16, value_type: ValueType) -> Column {
    Column {
        name: name.into(),
        attnum,
        upstream_type: "text".into(),
        type_oid: 25,
        value_type,
        not_null: true,
    }
}
