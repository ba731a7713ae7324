//! The tables that targets work on, and a replica with some rows in them.

use std::sync::{Arc, OnceLock};

use kelvin_protocol::{Direction, Value, ValueType};
use kelvin_storage::{
    Catalog, Column, Index, IndexId, Replica, ReplicaIdentity, ReplicaOptions, Table, TableId, View,
};
use tempfile::TempDir;

const MIB: u64 = 1024 * 1024;

/// Every type that is decoded in a way of its own, with its oid.
pub(crate) const TYPES: [(&str, u32, ValueType); 24] = [
    ("bool", 16, ValueType::Boolean),
    ("int2", 21, ValueType::Number),
    ("int4", 23, ValueType::Number),
    ("int8", 20, ValueType::Number),
    ("float4", 700, ValueType::Number),
    ("float8", 701, ValueType::Number),
    ("numeric", 1700, ValueType::Number),
    ("text", 25, ValueType::String),
    ("mood", 16500, ValueType::String),
    ("uuid", 2950, ValueType::String),
    ("json", 114, ValueType::Json),
    ("jsonb", 3802, ValueType::Json),
    ("date", 1082, ValueType::Number),
    ("timestamp", 1114, ValueType::Number),
    ("timestamptz", 1184, ValueType::Number),
    ("time", 1083, ValueType::Number),
    ("timetz", 1266, ValueType::Number),
    ("inet", 869, ValueType::String),
    ("macaddr", 829, ValueType::String),
    ("pg_lsn", 3220, ValueType::String),
    ("int4[]", 1007, ValueType::Json),
    ("text[]", 1009, ValueType::Json),
    ("box[]", 1020, ValueType::Json),
    ("timestamptz[][]", 1185, ValueType::Json),
];

pub(crate) const ISSUE: TableId = TableId(1);
pub(crate) const COMMENT: TableId = TableId(2);
pub(crate) const MEMBER: TableId = TableId(3);

/// `name type`, for each column.
fn table(id: TableId, name: &str, columns: &[(&str, &str)], key: &[usize]) -> Table {
    let column = |(at, (name, type_name)): (usize, &(&str, &str))| {
        let known = TYPES.iter().find(|(known, _, _)| known == type_name);
        let (_, type_oid, value_type) = known.expect("a known type");
        Column {
            name: (*name).into(),
            attnum: i16::try_from(at + 1).expect("few columns"),
            upstream_type: (*type_name).into(),
            type_oid: *type_oid,
            value_type: *value_type,
            not_null: key.contains(&at),
        }
    };
    Table {
        id,
        name: name.into(),
        schema: "public".into(),
        upstream_name: name.into(),
        oid: 20_000 + id.0,
        columns: columns.iter().enumerate().map(column).collect(),
        unsynced_columns: vec![("secret".into(), "it is of type mystery".into())],
        key: key.to_vec(),
        unique_keys: vec![key.to_vec()],
        indexes: Vec::new(),
    }
}

fn index(id: u16, columns: &[(usize, Direction)]) -> Index {
    Index {
        id: IndexId(id),
        name: format!("index_{id}"),
        columns: columns.to_vec(),
        unique: false,
    }
}

/// A table with a column of every type, named after it; its key is the `int8`.
pub(crate) fn every_type() -> Table {
    let columns: Vec<_> = TYPES.iter().map(|(name, _, _)| (*name, *name)).collect();
    table(TableId(9), "every_type", &columns, &[3])
}

/// Issues, comments and members.
pub(crate) fn catalog() -> Catalog {
    let columns = [
        ("id", "text"),
        ("title", "text"),
        ("open", "bool"),
        ("votes", "float8"),
        ("number", "int8"),
        ("owner", "text"),
        ("labels", "jsonb"),
    ];
    let mut issue = table(ISSUE, "issue", &columns, &[0]);
    let (asc, desc) = (Direction::Asc, Direction::Desc);
    issue.indexes = vec![index(1, &[(2, asc), (3, desc)]), index(2, &[(5, asc)])];
    let columns = [
        ("id", "int4"),
        ("issue_id", "text"),
        ("author", "text"),
        ("body", "text"),
    ];
    let mut comment = table(COMMENT, "comment", &columns, &[0]);
    comment.indexes = vec![index(1, &[(1, asc)])];
    let columns = [("org", "int4"), ("name", "text"), ("admin", "bool")];
    let member = table(MEMBER, "member", &columns, &[0, 1]);
    Catalog::new(vec![issue, comment, member, every_type()], Vec::new())
}

fn rows(id: TableId) -> Vec<Vec<Value>> {
    let number = |n: u32| Value::from(f64::from(n));
    let name = |n: u32| Value::from(["ann", "Bob", "çem", ""][n as usize % 4]);
    let or_null = |n: u32, value: Value| {
        if n.is_multiple_of(5) {
            Value::Null
        } else {
            value
        }
    };
    (0..12)
        .map(|n| match id {
            ISSUE => vec![
                Value::from(format!("i{n}")),
                or_null(
                    n + 2,
                    Value::from(["Crash", "100%", "a_b", "crash\n"][n as usize % 4]),
                ),
                or_null(n, Value::from(n % 2 == 0)),
                or_null(n + 1, number(n % 3)),
                Value::from_i64(i64::MAX - i64::from(n)),
                or_null(n + 3, name(n)),
                Value::Json("[1]".into()),
            ],
            COMMENT => vec![
                number(n),
                Value::from(format!("i{}", n % 7)),
                or_null(n, name(n / 2)),
                Value::from("text"),
            ],
            _ => vec![number(n % 3), name(n / 3), Value::from(n % 2 == 0)],
        })
        .collect()
}

/// Options of small replicas.
pub(crate) fn options() -> ReplicaOptions {
    ReplicaOptions {
        cache_bytes: 4 * MIB,
        memtable_bytes: MIB,
        worker_threads: 1,
        ..ReplicaOptions::default()
    }
}

/// The catalog and a view of a replica of it, made once.
pub(crate) fn world() -> &'static (Arc<Catalog>, View) {
    static WORLD: OnceLock<(TempDir, Arc<Catalog>, View)> = OnceLock::new();
    static SHOWN: OnceLock<(Arc<Catalog>, View)> = OnceLock::new();
    let (_, catalog, view) = WORLD.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let loader = Replica::create(dir.path(), &options(), catalog()).expect("a replica");
        for id in [ISSUE, COMMENT, MEMBER] {
            let mut table = loader.table(id).expect("a table");
            for row in rows(id) {
                table.insert(&row).expect("a row");
            }
            table.finish().expect("a loaded table");
        }
        let replica = loader
            .finish(ReplicaIdentity::default(), 100)
            .expect("a replica");
        (dir, replica.catalog(), replica.latest().expect("a view"))
    });
    SHOWN.get_or_init(|| (catalog.clone(), view.clone()))
}
