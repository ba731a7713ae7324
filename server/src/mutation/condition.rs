//! Conditions of permission rules as SQL, with the meaning ZQL gives them.
//!
//! A condition stands in a WHERE clause, where NULL counts as false: just what ZQL makes of a
//! comparison with null.

use kelvin_protocol::{Ast, Condition, CorrelatedSubquery, ExistsOp, Operand, SimpleOp, ValueType};
use kelvin_storage::{Catalog, Column, Table};
use serde_json::Value;

use super::sql::{Param, Statement, identifier, qualified};

/// What kind of value an expression has. Values of unlike kinds are never equal and never ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Flag,
    Number,
    Text,
    /// JSON; compared with null only.
    Json,
}

struct Expression {
    sql: String,
    kind: Kind,
}

/// Compiles conditions.
pub(super) struct ConditionCompiler<'a> {
    catalog: &'a Catalog,
    aliases: usize,
}

impl<'a> ConditionCompiler<'a> {
    pub(super) fn new(catalog: &'a Catalog) -> Self {
        Self {
            catalog,
            aliases: 0,
        }
    }

    /// Appends `condition` about the row of `table` called `alias`, parameters bound already.
    ///
    /// # Errors
    /// The condition names what is not there; one sentence.
    pub(super) fn compile(
        &mut self,
        condition: &Condition,
        table: &Table,
        alias: &str,
        out: &mut Statement,
    ) -> Result<(), String> {
        match condition {
            Condition::Simple { op, left, right } => {
                let sql = simple(*op, left, right, table, alias, out)?;
                out.push(&sql);
                Ok(())
            }
            Condition::And { conditions } => {
                self.join(conditions, " AND ", "TRUE", (table, alias), out)
            }
            Condition::Or { conditions } => {
                self.join(conditions, " OR ", "FALSE", (table, alias), out)
            }
            Condition::CorrelatedSubquery { related, op, .. } => {
                out.push(match op {
                    ExistsOp::Exists => "EXISTS (",
                    ExistsOp::NotExists => "NOT EXISTS (",
                });
                self.subquery(related, table, alias, out)?;
                out.push(")");
                Ok(())
            }
        }
    }

    fn join(
        &mut self,
        conditions: &[Condition],
        separator: &str,
        empty: &str,
        (table, alias): (&Table, &str),
        out: &mut Statement,
    ) -> Result<(), String> {
        if conditions.is_empty() {
            out.push(empty);
            return Ok(());
        }
        for (at, condition) in conditions.iter().enumerate() {
            out.push(if at == 0 { "(" } else { separator });
            self.compile(condition, table, alias, out)?;
        }
        out.push(")");
        Ok(())
    }

    fn subquery(
        &mut self,
        related: &CorrelatedSubquery,
        parent: &Table,
        parent_alias: &str,
        out: &mut Statement,
    ) -> Result<(), String> {
        let Ast {
            table,
            filter,
            start,
            ..
        } = &related.subquery;
        if start.is_some() {
            return Err("a permission rule must not use start()".to_owned());
        }
        let child = self.catalog.table(table).ok_or_else(|| {
            format!("a permission rule names table {table:?}, which is not synced")
        })?;
        self.aliases += 1;
        let alias = format!("c{}", self.aliases);
        let name = qualified(&child.schema, &child.upstream_name);
        out.push(&format!("SELECT 1 FROM {name} AS {alias} WHERE TRUE"));
        let correlation = &related.correlation;
        if correlation.parent_field.len() != correlation.child_field.len() {
            return Err("a correlation has unlike numbers of columns".to_owned());
        }
        for (outer, inner) in correlation
            .parent_field
            .iter()
            .zip(&correlation.child_field)
        {
            let (outer, inner) = (column(parent, outer)?, column(child, inner)?);
            // Columns of one type are compared as they are, so that indexes serve.
            let sql = if outer.type_oid == inner.type_oid {
                let (outer, inner) = (identifier(&outer.name), identifier(&inner.name));
                format!(" AND {alias}.{inner} = {parent_alias}.{outer}")
            } else {
                let (outer, inner) = (value_of(outer, parent_alias), value_of(inner, &alias));
                match outer.kind == inner.kind && outer.kind != Kind::Json {
                    true => format!(" AND {} = {}", inner.sql, outer.sql),
                    false => " AND FALSE".to_owned(),
                }
            };
            out.push(&sql);
        }
        if let Some(filter) = filter {
            out.push(" AND ");
            self.compile(filter, child, &alias, out)?;
        }
        Ok(())
    }
}

fn column<'t>(table: &'t Table, name: &str) -> Result<&'t Column, String> {
    let at = table.column(name).and_then(|at| table.columns.get(at));
    at.ok_or_else(|| {
        let table = &table.name;
        format!("a permission rule names column {name:?}, which table {table:?} does not sync")
    })
}

/// A column in the form ZQL gives its values.
fn value_of(column: &Column, alias: &str) -> Expression {
    let name = format!("{alias}.{}", identifier(&column.name));
    let (sql, kind) = match (column.value_type, column.upstream_type.as_str()) {
        (ValueType::Boolean, _) => (name, Kind::Flag),
        (ValueType::Json, _) => (name, Kind::Json),
        (ValueType::Null, _) => ("NULL".to_owned(), Kind::Null),
        (ValueType::Number, "timestamp" | "timestamptz" | "date") => (
            format!("(extract(epoch FROM {name}) * 1000)::float8"),
            Kind::Number,
        ),
        (ValueType::Number, "time") => (
            format!("trunc(extract(epoch FROM {name}) * 1000)::float8"),
            Kind::Number,
        ),
        (ValueType::Number, "timetz") => (time_in_utc(&name), Kind::Number),
        (ValueType::Number, _) => (format!("{name}::float8"), Kind::Number),
        (ValueType::String, "text" | "varchar") => {
            (format!("({name}::text COLLATE \"C\")"), Kind::Text)
        }
        // A cast would drop the padding of char(n) and add a prefix length to inet: ZQL has what
        // is printed.
        (ValueType::String, _) => {
            let printed = format!("CASE WHEN {name} IS NOT NULL THEN format('%s', {name}) END");
            (format!("(({printed}) COLLATE \"C\")"), Kind::Text)
        }
    };
    Expression { sql, kind }
}

/// Milliseconds since midnight UTC; shifting the zone may have left the day.
fn time_in_utc(name: &str) -> String {
    let ms = format!("trunc(extract(epoch FROM {name}) * 1000)");
    format!(
        "(CASE WHEN {ms} < 0 THEN {ms} + 86400000 WHEN {ms} > 86400000 THEN {ms} - 86400000 \
         ELSE {ms} END)::float8"
    )
}

fn literal(value: &Value, out: &mut Statement) -> Expression {
    let (sql, kind) = match value {
        Value::Null => ("NULL".to_owned(), Kind::Null),
        Value::Bool(flag) => (out.param(Param::Flag(*flag)), Kind::Flag),
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or(f64::NAN);
            (out.param(Param::Number(number)), Kind::Number)
        }
        Value::String(text) => {
            let param = out.param(Param::Text(text.clone()));
            (format!("({param} COLLATE \"C\")"), Kind::Text)
        }
        Value::Array(_) | Value::Object(_) => ("NULL".to_owned(), Kind::Json),
    };
    Expression { sql, kind }
}

fn operand(
    operand: &Operand,
    table: &Table,
    alias: &str,
    out: &mut Statement,
) -> Result<Expression, String> {
    match operand {
        Operand::Column { name } => Ok(value_of(column(table, name)?, alias)),
        Operand::Literal { value } => Ok(literal(value, out)),
        Operand::Static { .. } => Err("a parameter of a rule is not bound".to_owned()),
    }
}

fn simple(
    op: SimpleOp,
    left: &Operand,
    right: &Operand,
    table: &Table,
    alias: &str,
    out: &mut Statement,
) -> Result<String, String> {
    let left_side = operand(left, table, alias, out)?;
    if let (SimpleOp::In | SimpleOp::NotIn, Operand::Literal { value }) = (op, right) {
        return Ok(membership(op, &left_side, value, out));
    }
    let right_side = operand(right, table, alias, out)?;
    let (a, b) = (&left_side.sql, &right_side.sql);
    if right_side.kind == Kind::Null {
        return Ok(match op {
            SimpleOp::Is => format!("({a} IS NULL)"),
            SimpleOp::IsNot => format!("({a} IS NOT NULL)"),
            _ => "FALSE".to_owned(),
        });
    }
    if left_side.kind != right_side.kind || left_side.kind == Kind::Json {
        return Ok(match op {
            SimpleOp::IsNot => "TRUE".to_owned(),
            SimpleOp::Ne => format!("({a} IS NOT NULL)"),
            _ => "FALSE".to_owned(),
        });
    }
    let is_text = left_side.kind == Kind::Text;
    Ok(match op {
        SimpleOp::Eq => format!("({a} = {b})"),
        SimpleOp::Ne => format!("({a} <> {b})"),
        SimpleOp::Is => format!("({a} IS NOT DISTINCT FROM {b})"),
        SimpleOp::IsNot => format!("({a} IS DISTINCT FROM {b})"),
        SimpleOp::Lt => format!("({a} < {b})"),
        SimpleOp::Gt => format!("({a} > {b})"),
        SimpleOp::Le => format!("({a} <= {b})"),
        SimpleOp::Ge => format!("({a} >= {b})"),
        SimpleOp::Like if is_text => format!("({a} LIKE {b})"),
        SimpleOp::NotLike if is_text => format!("({a} NOT LIKE {b})"),
        // Folding needs a collation that knows letters beyond ASCII.
        SimpleOp::ILike if is_text => {
            format!("({a} COLLATE \"default\" ILIKE {b} COLLATE \"default\")")
        }
        SimpleOp::NotILike if is_text => {
            format!("({a} COLLATE \"default\" NOT ILIKE {b} COLLATE \"default\")")
        }
        _ => "FALSE".to_owned(),
    })
}

/// IN and NOT IN. Values of another kind than the column's cannot be equal to it.
fn membership(op: SimpleOp, left: &Expression, value: &Value, out: &mut Statement) -> String {
    let Value::Array(items) = value else {
        return "FALSE".to_owned();
    };
    let sql = &left.sql;
    let param = match left.kind {
        Kind::Text => {
            let texts = items.iter().filter_map(Value::as_str).map(str::to_owned);
            Param::Texts(texts.collect())
        }
        Kind::Number => Param::Numbers(items.iter().filter_map(Value::as_f64).collect()),
        Kind::Flag => Param::Flags(items.iter().filter_map(Value::as_bool).collect()),
        Kind::Json if op == SimpleOp::NotIn => return format!("({sql} IS NOT NULL)"),
        Kind::Json | Kind::Null => return "FALSE".to_owned(),
    };
    let param = out.param(param);
    match op {
        SimpleOp::In => format!("({sql} = ANY ({param}))"),
        _ => format!("({sql} IS NOT NULL AND {sql} <> ALL ({param}))"),
    }
}
