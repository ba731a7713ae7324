//! Random queries over every feature of ZQL.

use serde_json::{Map, Value as Json, json};

use super::case::{Case, TableSpec};
use super::choices::Choices;
use super::schema::random_text;
use super::values::{Kind, Pools};

/// Levels of subqueries.
const MAX_DEPTH: usize = 4;
/// Levels of AND and OR.
const MAX_NESTING: usize = 3;

/// Makes queries.
pub(crate) struct Queries<'c, 'b> {
    pub(crate) case: &'c Case,
    pub(crate) pools: &'c Pools,
    pub(crate) choices: &'c mut Choices<'b>,
    /// Subqueries that this one may still have.
    pub(crate) left: usize,
    /// Whether all of it is a permission rule.
    pub(crate) rule: bool,
}

impl<'c> Queries<'c, '_> {
    pub(crate) fn query(&mut self) -> Json {
        let table = self.table();
        self.node(table, 0, false)
    }

    /// A read rule of a table.
    pub(crate) fn rule(&mut self, table: &'c TableSpec) -> Json {
        self.rule = true;
        self.condition(table, MAX_DEPTH - 2, 1)
    }

    fn table(&mut self) -> &'c TableSpec {
        let tables = self.case.tables.as_slice();
        &tables[self.choices.below(tables.len())]
    }

    fn node(&mut self, table: &'c TableSpec, depth: usize, in_exists: bool) -> Json {
        let mut ast = json!({ "table": table.name });
        // Each level that asks for much leaves little to go wrong in the next.
        if self.choices.chance(if depth == 0 { 65 } else { 40 }) {
            ast["where"] = self.condition(table, depth, 0);
        }
        if self.choices.chance(if in_exists { 15 } else { 55 }) {
            let order: Vec<Json> = (0..self.choices.below(4))
                .map(|_| {
                    let column = self.column(table);
                    let direction = self.choices.pick(&["asc", "desc"]);
                    json!([table.columns[column].0, direction])
                })
                .collect();
            ast["orderBy"] = Json::Array(order);
        }
        if self.choices.chance(if in_exists { 15 } else { 45 }) {
            let limit =
                *self
                    .choices
                    .pick(&[1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 5, 5, 7, 0, 1_000_000_000]);
            ast["limit"] = json!(limit);
        }
        if self.choices.chance(if in_exists { 4 } else { 14 }) {
            ast["start"] = self.start(table, &ast);
        }
        // Below an EXISTS they bring nothing.
        let likely = if in_exists { 4 } else { 65 };
        if depth < MAX_DEPTH && self.choices.chance(likely) {
            let related =
                (0..self.choices.between(1, 2)).filter_map(|_| self.related(table, depth + 1));
            ast["related"] = Json::Array(related.collect());
        }
        ast
    }

    /// A column that queries may compare.
    fn column(&mut self, table: &TableSpec) -> usize {
        let columns = table.columns.len();
        let from = self.choices.below(columns);
        let mut around = (0..columns).map(|step| (from + step) % columns);
        around
            .find(|at| table.columns[*at].1 != Kind::Json)
            .expect("keys are not JSON")
    }

    fn literal(&mut self, table: &TableSpec, column: usize) -> Json {
        let (_, kind, _) = table.columns[column];
        let text = if self.choices.chance(8) {
            None
        } else {
            random_text(self.choices, self.pools, table, column)
        };
        text.map_or(Json::Null, |text| kind.literal(&text))
    }

    /// Mostly in the columns of the order.
    fn start(&mut self, table: &TableSpec, ast: &Json) -> Json {
        let mut row = Map::new();
        let ordered: Vec<usize> = ast["orderBy"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|by| by[0].as_str())
            .map(|name| table.column(name))
            .collect();
        for column in ordered.into_iter().chain(self.case.order_key(table)) {
            if self.choices.chance(85) {
                let value = self.literal(table, column);
                row.insert(table.columns[column].0.clone(), value);
            }
        }
        json!({ "row": row, "exclusive": self.choices.chance(50) })
    }

    /// A subquery's table and what ties it to its parent.
    fn correlation(&mut self, parent: &TableSpec) -> (&'c TableSpec, Json) {
        let child = self.table();
        let pairs = *self.choices.pick(&[1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3]);
        let (mut of_parent, mut of_child) = (Vec::new(), Vec::new());
        for _ in 0..pairs {
            let (above, mut below) = (self.column(parent), self.column(child));
            let kind = parent.columns[above].1;
            // Columns of unlike types never meet, which is seldom worth a try.
            if !self.choices.chance(10) {
                let columns = child.columns.len();
                let mut around = (0..columns).map(|step| (below + step) % columns);
                let same = self.choices.chance(70);
                let alike = |at: &usize| {
                    let other = child.columns[*at].1;
                    other == kind || (!same && other.value_type() == kind.value_type())
                };
                below = around.find(alike).unwrap_or(below);
            }
            of_parent.push(parent.columns[above].0.as_str());
            of_child.push(child.columns[below].0.as_str());
        }
        (
            child,
            json!({ "parentField": of_parent, "childField": of_child }),
        )
    }

    fn related(&mut self, table: &TableSpec, depth: usize) -> Option<Json> {
        self.left = self.left.checked_sub(1)?;
        let (child, correlation) = self.correlation(table);
        let mut subquery = self.node(child, depth, false);
        subquery["alias"] = json!(self.choices.pick(&["p", "q", "r"]));
        let mut link = json!({ "correlation": correlation, "subquery": subquery });
        if self.choices.chance(20) {
            link["hidden"] = json!(true);
        }
        if self.choices.chance(50) {
            let rare = self.choices.chance(4);
            link["system"] = json!(if rare { "permissions" } else { "client" });
        }
        Some(link)
    }

    fn condition(&mut self, table: &'c TableSpec, depth: usize, nesting: usize) -> Json {
        match self.choices.below(100) {
            30..60 if nesting < MAX_NESTING => {
                let members: Vec<Json> = (0..*self.choices.pick(&[2, 0, 1, 2, 2, 3, 3]))
                    .map(|_| self.condition(table, depth, nesting + 1))
                    .collect();
                json!({ "type": self.choices.pick(&["and", "or"]), "conditions": members })
            }
            60.. if depth < MAX_DEPTH && self.left > 0 => self.exists(table, depth + 1),
            _ => self.simple(table),
        }
    }

    fn exists(&mut self, table: &TableSpec, depth: usize) -> Json {
        self.left -= 1;
        let (child, correlation) = self.correlation(table);
        let mut subquery = self.node(child, depth, true);
        subquery["alias"] = json!(self.choices.pick(&["zsubq_p", "zsubq_q"]));
        let mut related = json!({ "correlation": correlation, "subquery": subquery });
        if self.rule || self.choices.chance(60) {
            let permissions = self.rule || self.choices.chance(8);
            related["system"] = json!(if permissions { "permissions" } else { "client" });
        }
        let mut condition = json!({
            "type": "correlatedSubquery",
            "op": if self.choices.chance(25) { "NOT EXISTS" } else { "EXISTS" },
            "related": related,
        });
        for hint in ["flip", "scalar"] {
            if self.choices.chance(30) {
                condition[hint] = json!(self.choices.chance(50));
            }
        }
        condition
    }

    fn simple(&mut self, table: &TableSpec) -> Json {
        let column = self.choices.below(table.columns.len());
        let (name, kind, _) = &table.columns[column];
        let mut left = json!({ "type": "column", "name": name });
        if *kind == Kind::Json {
            // Anything else about JSON is no query that clients can ask.
            let op = self.choices.pick(&["IS", "IS NOT"]);
            let right = json!({ "type": "literal", "value": null });
            return json!({ "type": "simple", "op": op, "left": left, "right": right });
        }
        let (op, mut right) = match self.choices.below(100) {
            0..35 if *kind == Kind::Text => {
                let op = *self
                    .choices
                    .pick(&["LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE"]);
                (op, json!(self.pattern()))
            }
            20..35 => {
                let many = self.choices.chance(4);
                let length = if many { 70 } else { self.choices.below(4) };
                let mut values: Vec<Json> = (0..length)
                    .map(|_| self.literal(table, column))
                    .filter(|value| !value.is_null())
                    .collect();
                if self.choices.chance(6) {
                    values.extend([json!("1"), json!(1), json!(true)]);
                }
                (*self.choices.pick(&["IN", "NOT IN"]), Json::Array(values))
            }
            35..45 => (
                *self.choices.pick(&["IS", "IS NOT"]),
                self.literal(table, column),
            ),
            45..75 => (
                *self.choices.pick(&["=", "=", "=", "!="]),
                self.literal(table, column),
            ),
            _ => (
                *self.choices.pick(&["<", "<=", ">", ">="]),
                self.literal(table, column),
            ),
        };
        if self.choices.chance(4) {
            right = Json::Null;
        } else if self.choices.chance(4) && !right.is_array() && !op.ends_with("LIKE") {
            right = self
                .choices
                .pick(&[json!("1"), json!(1), json!(true)])
                .clone();
        }
        if self.choices.chance(4) {
            left = json!({ "type": "literal", "value": self.literal(table, column) });
        }
        let right = json!({ "type": "literal", "value": right });
        json!({ "type": "simple", "op": op, "left": left, "right": right })
    }

    /// A pattern; whatever it begins to escape is there.
    fn pattern(&mut self) -> String {
        let mut pattern = String::new();
        for _ in 0..self.choices.between(1, 3) {
            if self.choices.chance(50) {
                pattern += *self
                    .choices
                    .pick(&["%", "_", "\\%", "\\_", "\\\\", "__", "\\a", "\\Ä"]);
            } else {
                let text = self.pools.value(self.choices, Kind::Text, false);
                let text = match self.choices.below(5) {
                    0 => text.to_uppercase(),
                    1 => text.to_lowercase(),
                    _ => text,
                };
                pattern += &text.replace('\\', "\\\\");
            }
        }
        pattern
    }
}
