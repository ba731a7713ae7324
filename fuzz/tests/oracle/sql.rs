//! Queries of ZQL as SQL, from the semantics of ZQL alone.
//!
//! Where PostgreSQL means something else by the same word, the SQL says what ZQL means:
//! * A null operand makes a condition false, never unknown. Under NOT EXISTS, OR and AND that comes
//!   to the same; but `x NOT IN ()` is true only of what is not null.
//! * Literals are never coerced: what is of another type is unequal and in no order.
//! * Text sorts by code points (the columns are `COLLATE "C"`), nulls come first, or last where it
//!   is descending.
//! * ILIKE lowers by Unicode, which `COLLATE "C"` does not; see [`like`].

use std::fmt::Write;

use kelvin_fuzz::query::{Case, Kind, Op, TableSpec, Texts, WITNESSES, gates, relationships};
use kelvin_protocol::{Ast, Condition, CorrelatedSubquery, Direction, ExistsOp, Operand, SimpleOp};
use serde_json::Value as Json;

/// A row of the query above: its table, and its name in the SQL.
type Outer<'o> = (&'o TableSpec, &'o str);

/// A text in quotes, which no backslash ends.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn name(text: &str) -> String {
    format!("\"{text}\"")
}

fn text_or_null(text: Option<&str>) -> String {
    text.map_or_else(|| "NULL".into(), quoted)
}

fn truth(is: bool) -> String {
    if is { "TRUE" } else { "FALSE" }.into()
}

/// Longest text that a column may hold if no row of its table is to be too large for a page.
const SHORT: usize = 60;

/// Makes the tables; they go with the transaction.
pub(crate) fn create(case: &Case) -> String {
    let mut sql = String::new();
    // Most of the time a case takes went into making tables for what is too large for a page.
    let text = if is_short(case) {
        format!("varchar({SHORT}) COLLATE \"C\"")
    } else {
        "text COLLATE \"C\"".to_owned()
    };
    for table in &case.tables {
        let columns = table.columns.iter().map(|(column, kind, nullable)| {
            let kind = match kind {
                Kind::Text => text.as_str(),
                kind => kind.name(),
            };
            let null = if *nullable { "" } else { " NOT NULL" };
            format!("{} {kind}{null}", name(column))
        });
        let columns = columns.collect::<Vec<_>>().join(", ");
        write!(
            sql,
            "CREATE TEMP TABLE {} ({columns}) ON COMMIT DROP; ",
            name(&table.name)
        )
        .unwrap();
    }
    sql
}

fn is_short(case: &Case) -> bool {
    let rows = case.transactions().flatten().filter_map(|op| match op {
        Op::Insert(_, row) | Op::Update(_, _, row) => Some(row),
        Op::Delete(..) | Op::Truncate(_) => None,
    });
    rows.flatten().flatten().all(|text| text.len() <= SHORT)
}

/// One statement of a transaction.
pub(crate) fn statement(case: &Case, op: &Op) -> String {
    match op {
        Op::Insert(at, row) => {
            let values: Vec<_> = row
                .iter()
                .map(|text| text_or_null(text.as_deref()))
                .collect();
            format!(
                "INSERT INTO {} VALUES ({}); ",
                name(&case.tables[*at].name),
                values.join(", ")
            )
        }
        Op::Update(at, key, row) => {
            let table = &case.tables[*at];
            let sets = table.columns.iter().zip(row).map(|((column, _, _), text)| {
                format!("{} = {}", name(column), text_or_null(text.as_deref()))
            });
            let sets = sets.collect::<Vec<_>>().join(", ");
            format!(
                "UPDATE {} SET {sets} WHERE {}; ",
                name(&table.name),
                with_key(table, key)
            )
        }
        Op::Delete(at, key) => {
            let table = &case.tables[*at];
            format!(
                "DELETE FROM {} WHERE {}; ",
                name(&table.name),
                with_key(table, key)
            )
        }
        Op::Truncate(tables) => {
            let names: Vec<_> = tables
                .iter()
                .map(|at| name(&case.tables[*at].name))
                .collect();
            format!("TRUNCATE {}; ", names.join(", "))
        }
    }
}

fn with_key(table: &TableSpec, key: &Texts) -> String {
    let columns = table.key.iter().zip(key).map(|(at, text)| {
        format!(
            "{} = {}",
            name(&table.columns[*at].0),
            text_or_null(text.as_deref())
        )
    });
    columns.collect::<Vec<_>>().join(" AND ")
}

/// A statement whose one value is the answer: a JSON list of rows, each `[values, lists of children
/// by relationship, lists of witnesses by EXISTS]`, the values as texts.
pub(crate) fn answer(case: &Case, ast: &Ast) -> String {
    let mut compiler = Compiler { case, names: 0 };
    format!("SELECT {}; ", compiler.list(ast, None, Part::Rows))
}

/// What part of a query a subquery is.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Rows,
    Witnesses,
}

struct Compiler<'c> {
    case: &'c Case,
    names: usize,
}

impl Compiler<'_> {
    fn name(&mut self) -> String {
        self.names += 1;
        format!("r{}", self.names)
    }

    fn list(
        &mut self,
        ast: &Ast,
        parent: Option<(&CorrelatedSubquery, Outer<'_>)>,
        part: Part,
    ) -> String {
        let (_, table) = self.case.table(&ast.table);
        let row = self.name();
        let columns = table
            .columns
            .iter()
            .map(|(column, _, _)| format!("{row}.{}::text", name(column)));
        let columns = columns.collect::<Vec<_>>().join(", ");
        let related: Vec<_> = relationships(ast)
            .into_iter()
            .filter(|_| part == Part::Rows)
            .map(|link| self.list(&link.subquery, Some((link, (table, &row))), Part::Rows))
            .collect();
        let witnesses: Vec<_> = gates(ast)
            .into_iter()
            .map(|link| self.list(&link.subquery, Some((link, (table, &row))), Part::Witnesses))
            .collect();
        let order = order(table, &row, &self.case.order(ast, part == Part::Rows));
        let limit = match part {
            Part::Rows => ast.limit,
            Part::Witnesses => Some(WITNESSES as f64),
        };
        let limit = limit.map_or_else(String::new, |limit| format!(" LIMIT {limit}"));
        format!(
            "(SELECT coalesce(json_agg(l.j ORDER BY l.n), '[]') FROM (SELECT json_build_array(\
             json_build_array({columns}), json_build_array({}), json_build_array({})) AS j, \
             row_number() OVER (ORDER BY {order}) AS n FROM {} AS {row} WHERE {} \
             ORDER BY {order}{limit}) AS l)",
            related.join(", "),
            witnesses.join(", "),
            name(&table.name),
            self.filter(ast, parent, table, &row),
        )
    }

    /// Which rows of the table, before any limit.
    fn filter(
        &mut self,
        ast: &Ast,
        parent: Option<(&CorrelatedSubquery, Outer<'_>)>,
        table: &TableSpec,
        row: &str,
    ) -> String {
        let mut conditions = vec![truth(true)];
        if let Some((link, above)) = parent {
            conditions.push(correlated(link, above, (table, row)));
        }
        if let Some(bound) = &ast.start {
            let order = self.case.order(ast, true);
            let values: Vec<_> = order
                .iter()
                .map(|(at, _)| bound.row.get(&table.columns[*at].0).unwrap_or(&Json::Null))
                .collect();
            conditions.push(start((table, row), &order, &values, bound.exclusive));
        }
        if let Some(condition) = &ast.filter {
            conditions.push(self.condition(condition, table, row));
        }
        conditions.join(" AND ")
    }

    fn condition(&mut self, condition: &Condition, table: &TableSpec, row: &str) -> String {
        match condition {
            Condition::Simple { op, left, right } => {
                let Operand::Literal { value: right } = right else {
                    unreachable!("the right side is a literal");
                };
                match left {
                    Operand::Column { name: column } => {
                        let kind = table.columns[table.column(column)].1;
                        simple(*op, &format!("{row}.{}", name(column)), kind, right)
                    }
                    Operand::Literal { value } => constant(*op, value, right),
                    Operand::Static { .. } => unreachable!("parameters are bound"),
                }
            }
            Condition::And { conditions } | Condition::Or { conditions } => {
                let all = matches!(condition, Condition::And { .. });
                let mut parts = vec![truth(all)];
                parts.extend(
                    conditions
                        .iter()
                        .map(|member| self.condition(member, table, row)),
                );
                format!("({})", parts.join(if all { " AND " } else { " OR " }))
            }
            Condition::CorrelatedSubquery { related, op, .. } => {
                let not = if *op == ExistsOp::NotExists {
                    "NOT "
                } else {
                    ""
                };
                let ast = &related.subquery;
                let (_, below) = self.case.table(&ast.table);
                let inner = self.name();
                let filter = self.filter(ast, Some((related, (table, row))), below, &inner);
                // A limit of 0 leaves nothing that exists; any other changes nothing.
                let limit = if ast.limit == Some(0.0) {
                    " LIMIT 0"
                } else {
                    ""
                };
                let from = name(&below.name);
                format!("({not}EXISTS (SELECT 1 FROM {from} AS {inner} WHERE {filter}{limit}))")
            }
        }
    }
}

fn order(table: &TableSpec, row: &str, order: &[(usize, Direction)]) -> String {
    let columns = order.iter().map(|(at, direction)| {
        let direction = match direction {
            Direction::Asc => "ASC NULLS FIRST",
            Direction::Desc => "DESC NULLS LAST",
        };
        format!("{row}.{} {direction}", name(&table.columns[*at].0))
    });
    columns.collect::<Vec<_>>().join(", ")
}

/// NULL meets nothing, as in SQL.
fn correlated(link: &CorrelatedSubquery, above: Outer<'_>, below: Outer<'_>) -> String {
    let (parents, children) = (
        &link.correlation.parent_field,
        &link.correlation.child_field,
    );
    let pairs = parents.iter().zip(children).map(|(parent, child)| {
        let (of_parent, of_child) = (
            format!("{}.{}", above.1, name(parent)),
            format!("{}.{}", below.1, name(child)),
        );
        let kinds = (
            above.0.columns[above.0.column(parent)].1,
            below.0.columns[below.0.column(child)].1,
        );
        if kinds.0.value_type() != kinds.1.value_type() {
            return truth(false);
        }
        let equal = format!("{of_parent} = {of_child}");
        // An int8 that no client can be sent equals no double: here they would be compared as
        // doubles, and 2^53 + 1 be 2^53.
        match kinds {
            (Kind::Int8, Kind::Float8) => format!("({equal} AND {} )", safe(&of_parent)),
            (Kind::Float8, Kind::Int8) => format!("({equal} AND {} )", safe(&of_child)),
            _ => equal,
        }
    });
    pairs.collect::<Vec<_>>().join(" AND ")
}

fn safe(int8: &str) -> String {
    format!("{int8} BETWEEN -9007199254740991 AND 9007199254740991")
}

/// Rows at or behind a bound, column by column.
fn start(
    (table, row): Outer<'_>,
    order: &[(usize, Direction)],
    values: &[&Json],
    exclusive: bool,
) -> String {
    let mut cases = Vec::new();
    let mut equal = vec![truth(true)];
    for ((at, direction), value) in order.iter().zip(values) {
        let (column, kind, _) = &table.columns[*at];
        let column = format!("{row}.{}", name(column));
        let behind = match (direction, value.is_null()) {
            (Direction::Asc, true) => format!("{column} IS NOT NULL"),
            (Direction::Asc, false) => simple(SimpleOp::Gt, &column, *kind, value),
            (Direction::Desc, true) => truth(false),
            (Direction::Desc, false) => {
                format!(
                    "({column} IS NULL OR {})",
                    simple(SimpleOp::Lt, &column, *kind, value)
                )
            }
        };
        cases.push(format!("({} AND {behind})", equal.join(" AND ")));
        equal.push(simple(SimpleOp::Is, &column, *kind, value));
    }
    if !exclusive {
        cases.push(format!("({})", equal.join(" AND ")));
    }
    format!("({})", cases.join(" OR "))
}

/// A literal for comparison with a column: what the column is to be read as, and the literal.
/// `None` where it is of another type.
fn literal(column: &str, kind: Kind, value: &Json) -> Option<(String, String)> {
    let plain = |literal: String| Some((column.to_owned(), literal));
    match (kind, value) {
        (Kind::Text, Json::String(text)) => plain(format!("{}::text COLLATE \"C\"", quoted(text))),
        (Kind::Bool, Json::Bool(is)) => plain(truth(*is)),
        // Exactly, whatever is beyond 2^53.
        (Kind::Int8, Json::Number(number)) => match number.as_i64() {
            Some(int) => plain(format!("'{int}'::int8")),
            None => Some((
                format!("{column}::numeric"),
                format!("'{}'::numeric", number.as_f64().unwrap()),
            )),
        },
        (Kind::Int4 | Kind::Float8, Json::Number(number)) => Some((
            format!("{column}::float8"),
            format!("'{}'::float8", number.as_f64().unwrap()),
        )),
        _ => None,
    }
}

/// A condition on a column.
fn simple(op: SimpleOp, column: &str, kind: Kind, right: &Json) -> String {
    if right.is_null() {
        return match op {
            SimpleOp::Is => format!("{column} IS NULL"),
            SimpleOp::IsNot => format!("{column} IS NOT NULL"),
            _ => truth(false),
        };
    }
    let known = format!("{column} IS NOT NULL");
    if let Json::Array(items) = right {
        let literals = items.iter().filter_map(|item| literal(column, kind, item));
        let any: Vec<_> = literals
            .map(|(column, value)| format!("{column} = {value}"))
            .collect();
        let any = if any.is_empty() {
            truth(false)
        } else {
            any.join(" OR ")
        };
        return match op {
            SimpleOp::In => format!("({known} AND ({any}))"),
            SimpleOp::NotIn => format!("({known} AND NOT ({any}))"),
            op => unreachable!("{op:?} of a list"),
        };
    }
    let Some((column, value)) = literal(column, kind, right) else {
        return match op {
            SimpleOp::Ne => known,
            SimpleOp::IsNot => truth(true),
            _ => truth(false),
        };
    };
    match op {
        SimpleOp::Eq => format!("({column} = {value})"),
        SimpleOp::Ne => format!("({column} <> {value})"),
        SimpleOp::Is => format!("({column} IS NOT DISTINCT FROM {value})"),
        SimpleOp::IsNot => format!("({column} IS DISTINCT FROM {value})"),
        SimpleOp::Lt => format!("({column} < {value})"),
        SimpleOp::Le => format!("({column} <= {value})"),
        SimpleOp::Gt => format!("({column} > {value})"),
        SimpleOp::Ge => format!("({column} >= {value})"),
        SimpleOp::Like => like(&column, right, false, false),
        SimpleOp::NotLike => like(&column, right, false, true),
        SimpleOp::ILike => like(&column, right, true, false),
        SimpleOp::NotILike => like(&column, right, true, true),
        SimpleOp::In | SimpleOp::NotIn => unreachable!("they ask of a list"),
    }
}

/// LIKE means the same, `_` a code point and `\` an escape included. ILIKE does not: PostgreSQL
/// folds as the collation says, ZQL lowers as JavaScript does, so both sides are lowered by ICU.
/// With a wildcard ZQL looks at each character by itself: a sigma is not final there, and the one
/// character whose lower case is two (İ) stays one for `_`.
fn like(column: &str, pattern: &Json, ignore_case: bool, negated: bool) -> String {
    let pattern = pattern.as_str().unwrap();
    let not = if negated { "NOT " } else { "" };
    let quoted = quoted(pattern);
    if !ignore_case {
        return format!("({column} {not}LIKE {quoted})");
    }
    let lower = |text: &str| format!("lower({text} COLLATE \"und-x-icu\")");
    if !pattern.contains(['%', '_', '\\']) {
        return format!("({not}({} = {}) )", lower(column), lower(&quoted));
    }
    let single = |text: &str| {
        let text = lower(&format!("replace({text}, 'İ', U&'\\E000')"));
        format!("replace({text}, 'ς', 'σ') COLLATE \"C\"")
    };
    format!("({} {not}LIKE {})", single(column), single(&quoted))
}

/// A condition between constants, which PostgreSQL decides too.
fn constant(op: SimpleOp, left: &Json, right: &Json) -> String {
    let column = |kind: Kind, text: String| (kind, format!("({}::{})", quoted(&text), kind.name()));
    let (kind, left) = match left {
        Json::String(text) => (
            Kind::Text,
            format!("({}::text COLLATE \"C\")", quoted(text)),
        ),
        Json::Bool(is) => column(Kind::Bool, is.to_string()),
        Json::Number(number) => match number.as_i64() {
            Some(int) => column(Kind::Int8, int.to_string()),
            None => column(Kind::Float8, number.to_string()),
        },
        _ => (Kind::Text, "(NULL::text)".into()),
    };
    if kind != Kind::Text && op_is_like(op) {
        return truth(false);
    }
    simple(op, &left, kind, right)
}

fn op_is_like(op: SimpleOp) -> bool {
    matches!(
        op,
        SimpleOp::Like | SimpleOp::NotLike | SimpleOp::ILike | SimpleOp::NotILike
    )
}
