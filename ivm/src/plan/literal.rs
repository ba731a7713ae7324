//! Simple conditions: a column or a literal on the left, a literal on the right.

use std::hash::RandomState;

use hashbrown::HashSet;
use kelvin_protocol::{Operand, SimpleOp, Value, ValueType};
use kelvin_storage::{Column, Table};

use crate::Error;
use crate::check::{Check, Like};
use crate::like::Pattern;
use crate::plan::draft::{column, invalid};

/// Largest magnitude below which every integer is a double: 2^53.
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;
/// 2^63, the first double that is too large for an `int8`.
const INT8_END: f64 = 9_223_372_036_854_775_808.0;

/// A compiled simple condition.
pub(crate) enum Simple {
    Const(bool),
    Test { column: usize, check: Check },
}

pub(crate) fn compile_simple(
    table: &Table,
    op: SimpleOp,
    left: &Operand,
    right: &Operand,
) -> Result<Simple, Error> {
    let right = match right {
        Operand::Literal { value } => value,
        Operand::Static { anchor, field } => return Err(unbound(anchor, field)),
        Operand::Column { name } => {
            let problem = format!("column {name:?} on the right side of a condition");
            return Err(invalid(table, problem));
        }
    };
    match left {
        Operand::Static { anchor, field } => Err(unbound(anchor, field)),
        Operand::Literal { value } => {
            let left = Value::from(value);
            Ok(Simple::Const(match compile(table, op, None, right)? {
                Ok(check) => check.holds(left.as_ref()),
                Err(truth) => truth,
            }))
        }
        Operand::Column { name } => {
            let at = column(table, name)?;
            let check = compile(table, op, table.columns.get(at), right)?;
            Ok(match check {
                Ok(check) => Simple::Test { column: at, check },
                Err(truth) => Simple::Const(truth),
            })
        }
    }
}

/// The check an operator makes of its left side, or its truth where the right side alone decides.
fn compile(
    table: &Table,
    op: SimpleOp,
    column: Option<&Column>,
    right: &serde_json::Value,
) -> Result<Result<Check, bool>, Error> {
    if right.is_null() {
        return Ok(match op {
            SimpleOp::Is => Ok(Check::IsNull),
            SimpleOp::IsNot => Ok(Check::NotNull),
            _ => Err(false),
        });
    }
    let value = || match column {
        Some(column) => bind_to_column(column, Value::from(right)),
        None => Value::from(right),
    };
    Ok(match op {
        SimpleOp::Eq | SimpleOp::Is => Ok(Check::Equal(value())),
        SimpleOp::Ne => Ok(Check::NotEqual(value())),
        SimpleOp::IsNot => Ok(Check::Differs(value())),
        SimpleOp::Lt => Ok(Check::Less(value())),
        SimpleOp::Le => Ok(Check::AtMost(value())),
        SimpleOp::Gt => Ok(Check::Greater(value())),
        SimpleOp::Ge => Ok(Check::AtLeast(value())),
        SimpleOp::In => among(table, column, right, false)?,
        SimpleOp::NotIn => among(table, column, right, true)?,
        SimpleOp::Like => Ok(like(table, column, right, false, false)?),
        SimpleOp::NotLike => Ok(like(table, column, right, false, true)?),
        SimpleOp::ILike => Ok(like(table, column, right, true, false)?),
        SimpleOp::NotILike => Ok(like(table, column, right, true, true)?),
    })
}

fn among(
    table: &Table,
    column: Option<&Column>,
    right: &serde_json::Value,
    negated: bool,
) -> Result<Result<Check, bool>, Error> {
    let serde_json::Value::Array(items) = right else {
        return Err(invalid(table, "IN and NOT IN need an array".into()));
    };
    let mut values: HashSet<Value, RandomState> = items
        .iter()
        .map(Value::from)
        .filter(|value| !value.is_null())
        .map(|value| match column {
            Some(column) => bind_to_column(column, value),
            None => value,
        })
        .collect();
    if values.len() > 1 {
        let values = Box::new(values);
        return Ok(Ok(Check::Among { values, negated }));
    }
    Ok(match (values.drain().next(), negated) {
        (None, false) => Err(false),
        (None, true) => Ok(Check::NotNull),
        (Some(value), false) => Ok(Check::Equal(value)),
        (Some(value), true) => Ok(Check::NotEqual(value)),
    })
}

fn like(
    table: &Table,
    column: Option<&Column>,
    right: &serde_json::Value,
    ignore_case: bool,
    negated: bool,
) -> Result<Check, Error> {
    if let Some(column) = column
        && !matches!(column.value_type, ValueType::String | ValueType::Null)
    {
        let problem = format!("LIKE needs a text column, {:?} is not one", column.name);
        return Err(invalid(table, problem));
    }
    let source = match right {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let pattern = Pattern::compile(&source, ignore_case).map_err(|_| {
        invalid(
            table,
            format!("LIKE pattern {source:?} must not end with the escape character"),
        )
    })?;
    Ok(Check::Like(Box::new(Like {
        pattern,
        source,
        ignore_case,
        negated,
    })))
}

/// A literal in the form the column's values have: an `int8` column tells integers beyond 2^53
/// apart, any other number column holds doubles.
pub(crate) fn bind_to_column(column: &Column, value: Value) -> Value {
    let int8 = column.upstream_type == "int8";
    match value {
        #[expect(
            clippy::cast_precision_loss,
            reason = "that is what such a column holds"
        )]
        Value::BigInt(int) if !int8 => Value::from(int as f64),
        #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
        Value::Number(number)
            if int8
                && number.fract() == 0.0
                && (EXACT_INTEGERS..INT8_END).contains(&number.abs()) =>
        {
            Value::from_i64(number as i64)
        }
        other => other,
    }
}

fn unbound(anchor: &str, field: &serde_json::Value) -> Error {
    let path = match field {
        serde_json::Value::String(name) => name.clone(),
        serde_json::Value::Array(hops) => hops
            .iter()
            .map(|hop| hop.as_str().map_or_else(|| hop.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join("."),
        other => other.to_string(),
    };
    Error::UnboundParameter(format!("{anchor}.{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_takes_the_form_that_the_values_of_its_column_have() {
        let bound = |upstream_type: &str, value: Value| {
            let column = Column {
                name: "n".into(),
                attnum: 1,
                upstream_type: upstream_type.into(),
                type_oid: 0,
                value_type: kelvin_protocol::ValueType::Number,
                not_null: false,
            };
            bind_to_column(&column, value)
        };
        let large = 2_f64.powi(60);
        let whole = Value::from_i64(1 << 60);
        assert_eq!(bound("int8", Value::from(large)), whole);
        assert_eq!(bound("float8", whole), Value::from(large));
        for (of, number) in [
            ("float8", large),
            ("int8", 1.5),
            ("int8", 7.0),
            ("int8", 2_f64.powi(63)),
        ] {
            let value = Value::from(number);
            assert!(
                matches!(bound(of, value), Value::Number(n) if n == number),
                "{of} {number}"
            );
        }
    }
}
