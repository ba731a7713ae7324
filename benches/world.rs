//! The tables that benches work on: issues with comments, members who own them, and their notes.

use std::path::Path;

use kelvin_protocol::{Direction, Value, ValueType, Version};
use kelvin_storage::{
    Catalog, Column, Index, IndexId, Replica, ReplicaIdentity, ReplicaOptions, RowOp, Table,
    TableId, Transaction,
};

pub const ISSUE: TableId = TableId(1);
pub const COMMENT: TableId = TableId(2);
pub const MEMBER: TableId = TableId(3);
pub const NOTE: TableId = TableId(4);
pub const BY_MODIFIED: IndexId = IndexId(1);

/// Version of the load.
pub const LOADED: Version = 1000;
/// Bytes of an issue's body.
const BODY: usize = 200;

fn table(id: TableId, name: &str, columns: &[(&str, &str, u32, ValueType)]) -> Table {
    let column =
        |(at, (name, upstream_type, oid, value_type)): (usize, &(&str, &str, u32, _))| Column {
            name: (*name).into(),
            attnum: i16::try_from(at + 1).unwrap(),
            upstream_type: (*upstream_type).into(),
            type_oid: *oid,
            value_type: *value_type,
            not_null: at == 0,
        };
    Table {
        id,
        name: name.into(),
        schema: "public".into(),
        upstream_name: name.into(),
        oid: 20_000 + id.0,
        columns: columns.iter().enumerate().map(column).collect(),
        unsynced_columns: Vec::new(),
        key: vec![0],
        unique_keys: vec![vec![0]],
        indexes: Vec::new(),
    }
}

fn index(id: IndexId, column: usize, direction: Direction) -> Index {
    Index {
        id,
        name: format!("index_{}", id.0),
        columns: vec![(column, direction)],
        unique: false,
    }
}

/// Issues, with one index by `modified` alone or with those that queries want.
pub fn catalog(for_queries: bool) -> Catalog {
    let text = |name| (name, "text", 25, ValueType::String);
    let mut issue = table(
        ISSUE,
        "issue",
        &[
            ("id", "int4", 23, ValueType::Number),
            text("title"),
            text("body"),
            ("open", "bool", 16, ValueType::Boolean),
            ("modified", "timestamptz", 1184, ValueType::Number),
            text("owner"),
        ],
    );
    issue.indexes = vec![index(BY_MODIFIED, 4, Direction::Desc)];
    let mut comment = table(
        COMMENT,
        "comment",
        &[
            ("id", "int4", 23, ValueType::Number),
            ("issue_id", "int4", 23, ValueType::Number),
            text("author"),
            text("body"),
        ],
    );
    let active = ("active", "bool", 16, ValueType::Boolean);
    let member = table(MEMBER, "member", &[text("name"), active]);
    let mut note = table(
        NOTE,
        "note",
        &[
            text("id"),
            text("owner"),
            ("modified", "timestamptz", 1184, ValueType::Number),
        ],
    );
    if for_queries {
        note.indexes = vec![index(IndexId(1), 1, Direction::Asc)];
        issue.indexes.push(index(IndexId(2), 5, Direction::Asc));
        comment.indexes = vec![index(IndexId(1), 1, Direction::Asc)];
    }
    Catalog::new(vec![issue, comment, member, note], Vec::new())
}

fn number(n: usize) -> Value {
    Value::from(n as f64)
}

/// Issue number `id`, modified at `modified`.
pub fn issue(id: usize, modified: usize, owner: &str) -> Vec<Value> {
    let title = format!("Issue {id} cannot be reproduced here");
    let body: String = title.chars().cycle().take(BODY).collect();
    vec![
        number(id),
        Value::from(title),
        Value::from(body),
        Value::from(!id.is_multiple_of(3)),
        number(modified),
        Value::from(owner),
    ]
}

/// Comment number `id` on an issue.
pub fn comment(id: usize, issue: usize, author: &str) -> Vec<Value> {
    let body = Value::from("It happens to me as well, on every second start.");
    vec![number(id), number(issue), Value::from(author), body]
}

/// A member.
pub fn member(name: &str, active: bool) -> Vec<Value> {
    vec![Value::from(name), Value::from(active)]
}

/// Note number `n`, whose key is a UUID.
pub fn note(n: usize, owner: &str) -> Vec<Value> {
    let scattered = (n as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let digits = format!("{scattered:032x}");
    let (a, b, c, d, e) = (
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..],
    );
    let id = Value::from(format!("{a}-{b}-{c}-{d}-{e}"));
    vec![id, Value::from(owner), number(n)]
}

/// A fresh replica with these rows.
pub fn load(dir: &Path, catalog: Catalog, tables: &[(TableId, Vec<Vec<Value>>)]) -> Replica {
    let loader = Replica::create(dir, &ReplicaOptions::default(), catalog).unwrap();
    for (table, rows) in tables {
        let mut table = loader.table(*table).unwrap();
        for row in rows {
            table.insert(row).unwrap();
        }
        table.finish().unwrap();
    }
    loader.finish(ReplicaIdentity::default(), LOADED).unwrap()
}

/// The next transaction: these rows are written.
pub fn write(replica: &Replica, table: TableId, rows: Vec<Vec<Value>>) -> Transaction {
    Transaction {
        version: replica.watermark() + 1,
        ops: rows
            .into_iter()
            .map(|row| RowOp::Insert { table, row })
            .collect(),
    }
}
