//! A small world of issues, comments, labels and users, and a query that is watched over it.

#![expect(
    clippy::needless_pass_by_value,
    reason = "the tests hand over JSON they have just written"
)]

use kelvin_protocol::{Value, ValueType};
use kelvin_storage::{Datum, RowOp};
use serde_json::{Value as Json, json};

use super::watched::Watched;
use super::world::{World, table};
use crate::{ChangeSet, ClientKeys, PlanDelta};

pub(crate) struct Case {
    pub(crate) world: World,
    pub(crate) watched: Watched,
}

pub(crate) fn world() -> World {
    use ValueType::{Boolean, Number, String};
    let issue = [
        ("id", Number),
        ("owner", Number),
        ("prio", Number),
        ("title", String),
        ("open", Boolean),
    ];
    World::new(vec![
        table(1, "issue", &issue, &[0]),
        table(
            2,
            "comment",
            &[("id", Number), ("issue", Number), ("author", Number)],
            &[0],
        ),
        table(3, "label", &[("id", Number), ("name", String)], &[0]),
        table(
            4,
            "issue_label",
            &[("issue", Number), ("label", Number)],
            &[0, 1],
        ),
        table(5, "user", &[("id", Number), ("boss", Number)], &[0]),
    ])
}

pub(crate) fn values(row: &Json) -> Vec<Value> {
    row.as_array().unwrap().iter().map(Value::from).collect()
}

pub(crate) fn put(world: &World, table: &str, row: Json) -> RowOp {
    let table = world.catalog().table(table).unwrap().id;
    let row = values(&row);
    RowOp::Insert { table, row }
}

pub(crate) fn delete(world: &World, table: &str, key: Json) -> RowOp {
    let table = world.catalog().table(table).unwrap().id;
    let key = values(&key);
    RowOp::Delete { table, key }
}

pub(crate) fn rekey(world: &World, table: &str, old_key: Json, row: Json) -> RowOp {
    let table = world.catalog().table(table).unwrap().id;
    RowOp::Update {
        table,
        old_key: Some(values(&old_key)),
        row: values(&row).into_iter().map(Datum::Value).collect(),
    }
}

impl Case {
    /// A query over a world that was filled with these rows.
    pub(crate) fn new(rows: &[(&str, Json)], query: &Json) -> Self {
        let mut world = world();
        let ops = rows.iter().flat_map(|(table, rows)| {
            rows.as_array()
                .unwrap()
                .iter()
                .map(|row| put(&world, table, row.clone()))
        });
        let ops: Vec<RowOp> = ops.collect();
        world.apply(ops);
        let watched = Watched::new(query, &world, &ClientKeys::new());
        Self { world, watched }
    }

    pub(crate) fn step(&mut self, ops: impl FnOnce(&World) -> Vec<RowOp>) -> PlanDelta {
        let before = self.world.view();
        let ops = ops(&self.world);
        let changes = ChangeSet::new(self.world.apply(ops));
        let after = self.world.view();
        self.watched
            .step(&self.world, &changes, (&before, &after), "step")
    }

    /// Keys of the rows of a table in the view.
    pub(crate) fn keys(&self, table: &str) -> Vec<Json> {
        let table = self.world.catalog().table(table).unwrap().id;
        let rows = self.watched.rows.keys().filter(|(of, _)| *of == table);
        rows.map(|(_, key)| Json::Array(key.iter().map(json_of).collect()))
            .collect()
    }

    /// The only column of the keys of a table's rows in the view.
    pub(crate) fn ids(&self, table: &str) -> Vec<i64> {
        self.keys(table)
            .iter()
            .map(|key| key[0].as_i64().unwrap())
            .collect()
    }
}

pub(crate) fn json_of(value: &Value) -> Json {
    json!(value.as_f64().unwrap() as i64)
}

/// How many rows entered, changed and left.
pub(crate) fn counts(delta: &PlanDelta) -> (usize, usize, usize) {
    let count = |old: bool, new: bool| {
        let of = |row: &&crate::RowDelta| row.old.is_some() == old && row.new.is_some() == new;
        delta.rows.iter().filter(of).count()
    };
    (count(false, true), count(true, true), count(true, false))
}

pub(crate) fn issue(id: i64, owner: Json, prio: Json) -> Json {
    json!([id, owner, prio, format!("title {id}"), true])
}

pub(crate) fn link(parent: &str, child: &str, subquery: Json) -> Json {
    json!({
        "correlation": { "parentField": [parent], "childField": [child] },
        "subquery": subquery,
    })
}

pub(crate) fn exists(parent: &str, child: &str, subquery: Json) -> Json {
    json!({
        "type": "correlatedSubquery", "op": "EXISTS", "related": link(parent, child, subquery),
    })
}

pub(crate) fn not_exists(parent: &str, child: &str, subquery: Json) -> Json {
    let mut condition = exists(parent, child, subquery);
    condition["op"] = json!("NOT EXISTS");
    condition
}

pub(crate) fn equal(column: &str, right: Json) -> Json {
    json!({
        "type": "simple", "op": "=", "left": { "type": "column", "name": column },
        "right": { "type": "literal", "value": right },
    })
}

pub(crate) fn of(table: &str) -> Json {
    json!({ "table": table, "alias": table })
}

pub(crate) fn filtered(table: &str, condition: Json) -> Json {
    json!({ "table": table, "alias": table, "where": condition })
}

pub(crate) fn any(members: &[Json]) -> Json {
    json!({ "type": "or", "conditions": members })
}
