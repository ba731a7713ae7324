//! A case: tables, queries over them and a history of transactions. It is plain data, so that it
//! can be shrunk, printed and committed.

use std::collections::BTreeMap;

use kelvin_ivm::ClientKeys;
use kelvin_protocol::{Ast, Condition, CorrelatedSubquery, Direction, ExistsOp, System, Value};
use kelvin_storage::{Catalog, Column, Datum, Index, IndexId, RowOp, Table, TableId};
use serde::{Deserialize, Serialize};

use super::model::Model;
use super::values::Kind;

/// Texts above this many bytes are not sent again when they stay.
const SENT_BYTES: usize = 400;

/// Texts of the values of a row as PostgreSQL reads and writes them; `None` is NULL.
pub type Texts = Vec<Option<String>>;

/// A case.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Case {
    /// What it showed, for cases that are kept.
    #[serde(default)]
    pub note: String,
    /// Whether reads give up early, as they do on large tables.
    #[serde(default)]
    pub impatient: bool,
    /// The tables.
    pub tables: Vec<TableSpec>,
    /// Primary keys that the client schema declares, by table.
    #[serde(default)]
    pub keys: BTreeMap<String, Vec<String>>,
    /// Read rules by table: the server adds them wherever the table is read.
    #[serde(default)]
    pub rules: BTreeMap<String, Condition>,
    /// The queries, as clients ask them.
    pub queries: Vec<Ast>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// A table of a case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TableSpec {
    /// Its name.
    pub name: String,
    /// Its columns: name, type, whether NULL is allowed.
    pub columns: Vec<(String, Kind, bool)>,
    /// Positions of the primary key.
    pub key: Vec<usize>,
    /// Positions of other unique keys over columns without NULL.
    #[serde(default)]
    pub unique: Vec<Vec<usize>>,
    /// Indexes there are from the start.
    #[serde(default)]
    pub indexes: Vec<Vec<(usize, Direction)>>,
}

/// One thing that happens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Step {
    /// Transactions that reach the replica as one batch.
    Commit(Vec<Vec<Op>>),
    /// An index is built: table and columns.
    Index(usize, Vec<(usize, Direction)>),
    /// The replica is closed and opened again.
    Reopen,
}

/// One statement. Tables are positions; keys are texts of the columns of the primary key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Op {
    /// A new row.
    Insert(usize, Texts),
    /// The row of a key becomes another.
    Update(usize, Texts, Texts),
    /// The row of a key goes.
    Delete(usize, Texts),
    /// All rows of tables go.
    Truncate(Vec<usize>),
}

impl TableSpec {
    /// A row as values.
    #[must_use]
    pub fn row(&self, texts: &Texts) -> Vec<Value> {
        let kinds = self.columns.iter().map(|(_, kind, _)| *kind);
        kinds
            .zip(texts)
            .map(|(kind, text)| kind.value(text.as_deref()))
            .collect()
    }

    /// The key of a row.
    #[must_use]
    pub fn key_of<T: Clone>(&self, row: &[T]) -> Vec<T> {
        self.key.iter().map(|at| row[*at].clone()).collect()
    }

    /// A key as values.
    #[must_use]
    pub fn key_values(&self, texts: &Texts) -> Vec<Value> {
        let kinds = self.key.iter().map(|at| self.columns[*at].1);
        kinds
            .zip(texts)
            .map(|(kind, text)| kind.value(text.as_deref()))
            .collect()
    }

    /// Position of a column.
    #[must_use]
    pub fn column(&self, name: &str) -> usize {
        let mut names = self.columns.iter().map(|(name, _, _)| name);
        names
            .position(|known| known == name)
            .expect("a column of the table")
    }

    /// An updated row as it is sent: without long texts that stay, unless they are of the key.
    fn data(&self, row: Vec<Value>, old: &[Value]) -> Vec<Datum> {
        let columns = row.into_iter().zip(old).enumerate();
        let sent = |(at, (new, old)): (usize, (Value, &Value))| match &new {
            Value::String(text)
                if text.len() > SENT_BYTES && new == *old && !self.key.contains(&at) =>
            {
                Datum::Unchanged
            }
            _ => Datum::Value(new),
        };
        columns.map(sent).collect()
    }

    fn of_replica(&self, at: usize) -> Table {
        let column = |(at, (name, kind, nullable)): (usize, &(String, Kind, bool))| Column {
            name: name.clone(),
            attnum: i16::try_from(at + 1).expect("few columns"),
            upstream_type: kind.name().into(),
            type_oid: kind.oid(),
            value_type: kind.value_type(),
            not_null: !nullable,
        };
        let index = |(at, columns): (usize, &Vec<(usize, Direction)>)| Index {
            id: IndexId(u16::try_from(at + 1).expect("few indexes")),
            name: format!("index_{at}"),
            columns: columns.clone(),
            unique: false,
        };
        let mut unique_keys = vec![self.key.clone()];
        unique_keys.extend(self.unique.iter().cloned());
        Table {
            id: table_id(at),
            name: self.name.clone(),
            schema: "public".into(),
            upstream_name: self.name.clone(),
            oid: 20_000 + table_id(at).0,
            columns: self.columns.iter().enumerate().map(column).collect(),
            unsynced_columns: Vec::new(),
            key: self.key.clone(),
            unique_keys,
            indexes: self.indexes.iter().enumerate().map(index).collect(),
        }
    }
}

/// The replica's number of the table at a position.
#[must_use]
pub fn table_id(at: usize) -> TableId {
    TableId(u32::try_from(at + 1).expect("few tables"))
}

impl Op {
    /// The operation for the replica, given what is in the tables before it.
    #[must_use]
    pub fn for_replica(&self, case: &Case, model: &Model) -> RowOp {
        match self {
            Self::Insert(at, row) => RowOp::Insert {
                table: table_id(*at),
                row: case.tables[*at].row(row),
            },
            Self::Update(at, key, row) => {
                let (table, row) = (&case.tables[*at], case.tables[*at].row(row));
                let key = table.key_values(key);
                let old = &model.0[*at][&key];
                RowOp::Update {
                    table: table_id(*at),
                    old_key: (table.key_of(&row) != key).then_some(key),
                    row: table.data(row, old),
                }
            }
            Self::Delete(at, key) => RowOp::Delete {
                table: table_id(*at),
                key: case.tables[*at].key_values(key),
            },
            Self::Truncate(tables) => RowOp::Truncate {
                tables: tables.iter().map(|at| table_id(*at)).collect(),
            },
        }
    }
}

impl Case {
    /// The catalog of the replica.
    #[must_use]
    pub fn catalog(&self) -> Catalog {
        let tables = self.tables.iter().enumerate();
        Catalog::new(
            tables.map(|(at, table)| table.of_replica(at)).collect(),
            Vec::new(),
        )
    }

    /// The declared keys.
    #[must_use]
    pub fn client_keys(&self) -> ClientKeys {
        self.keys.clone().into_iter().collect()
    }

    /// Position and form of a table.
    #[must_use]
    pub fn table(&self, name: &str) -> (usize, &TableSpec) {
        let mut tables = self.tables.iter().enumerate();
        tables
            .find(|(_, table)| table.name == name)
            .expect("a table of the case")
    }

    /// The key that completes orders of a table, and in whose order witnesses are chosen.
    #[must_use]
    pub fn order_key(&self, table: &TableSpec) -> Vec<usize> {
        match self.keys.get(&table.name) {
            Some(names) => names.iter().map(|name| table.column(name)).collect(),
            None => table.key.clone(),
        }
    }

    /// The completed order of a query; without what it asks for where that means nothing.
    #[must_use]
    pub fn order(&self, ast: &Ast, as_asked: bool) -> Vec<(usize, Direction)> {
        let (_, table) = self.table(&ast.table);
        let asked = ast.order_by.iter().flatten().filter(|_| as_asked);
        let mut order: Vec<_> = asked.map(|by| (table.column(&by.0), by.1)).collect();
        for column in self.order_key(table) {
            order.push((column, Direction::Asc));
        }
        order
    }

    /// All transactions, in order.
    pub fn transactions(&self) -> impl Iterator<Item = &Vec<Op>> {
        self.steps.iter().flat_map(|step| match step {
            Step::Commit(batch) => batch.as_slice(),
            Step::Index(..) | Step::Reopen => &[],
        })
    }

    /// The query with the read rules in it: what the server runs.
    #[must_use]
    pub fn with_rules(&self, query: &Ast) -> Ast {
        let mut ast = query.clone();
        self.add_rules(&mut ast);
        ast
    }

    fn add_rules(&self, ast: &mut Ast) {
        if let Some(filter) = &mut ast.filter {
            self.add_rules_below(filter);
        }
        for child in &mut ast.related {
            self.add_rules(&mut child.subquery);
        }
        if let Some(rule) = self.rules.get(&ast.table) {
            let mut conditions = vec![rule.clone()];
            conditions.extend(ast.filter.take());
            ast.filter = Some(Condition::And { conditions });
        }
    }

    fn add_rules_below(&self, condition: &mut Condition) {
        match condition {
            Condition::Simple { .. } => {}
            Condition::And { conditions } | Condition::Or { conditions } => {
                for member in conditions {
                    self.add_rules_below(member);
                }
            }
            Condition::CorrelatedSubquery { related, .. } => self.add_rules(&mut related.subquery),
        }
    }
}

/// Whether a client can run the query on its own: it has no permission rules, and refuses NOT
/// EXISTS.
#[must_use]
pub fn runs_at_clients(ast: &Ast) -> bool {
    ast.filter.as_ref().is_none_or(clear) && ast.related.iter().all(clear_link)
}

fn clear_link(link: &CorrelatedSubquery) -> bool {
    link.system != Some(System::Permissions) && runs_at_clients(&link.subquery)
}

fn clear(condition: &Condition) -> bool {
    match condition {
        Condition::Simple { .. } => true,
        Condition::And { conditions } | Condition::Or { conditions } => {
            conditions.iter().all(clear)
        }
        Condition::CorrelatedSubquery { related, op, .. } => {
            *op == ExistsOp::Exists && clear_link(related)
        }
    }
}
