//! The query AST as it stands on the wire, in server names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One query, or one subquery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ast {
    /// Unused; internal queries of other servers set it to the empty string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Server name of the table.
    pub table: String,
    /// Name of the relationship; absent on a root query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Which rows.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<Condition>,
    /// Child rows to bring along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<CorrelatedSubquery>,
    /// Where the ordered result begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Bound>,
    /// At most so many rows, per value of the correlation in a subquery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// Order of the result; completed with the primary key by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_by: Option<Vec<Ordering>>,
}

/// One column of an `orderBy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordering(pub String, pub Direction);

/// Direction of one ordering column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Ascending, nulls first.
    Asc,
    /// Descending, nulls last.
    Desc,
}

/// The row an ordered result starts at. Columns missing from `row` count as null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// Values of the ordering columns.
    pub row: BTreeMap<String, serde_json::Value>,
    /// Whether the row itself is left out.
    pub exclusive: bool,
}

/// A subquery tied to its parent by equal columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CorrelatedSubquery {
    /// The columns that must be equal.
    pub correlation: Correlation,
    /// The subquery.
    pub subquery: Ast,
    /// Whether this is the hop over a junction table: its rows are synced, but not shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<bool>,
    /// Who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<System>,
}

/// Column names of both sides, paired by position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Correlation {
    /// Columns of the parent.
    pub parent_field: Vec<String>,
    /// Columns of the child.
    pub child_field: Vec<String>,
}

/// Origin of a correlated subquery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// A permission rule: its rows decide, but are not synced.
    Permissions,
    /// The application's query.
    Client,
    /// A test of the client library.
    Test,
}

/// A condition on a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Condition {
    /// A comparison.
    Simple {
        /// The operator.
        op: SimpleOp,
        /// A column, literal or static parameter.
        left: Operand,
        /// A literal or static parameter.
        right: Operand,
    },
    /// All of them; true if there is none.
    And {
        /// The conditions.
        conditions: Vec<Condition>,
    },
    /// Any of them; false if there is none.
    Or {
        /// The conditions.
        conditions: Vec<Condition>,
    },
    /// EXISTS or NOT EXISTS.
    CorrelatedSubquery {
        /// The subquery.
        related: Box<CorrelatedSubquery>,
        /// Which of the two.
        op: ExistsOp,
        /// A hint which side drives; never changes a result.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        flip: Option<bool>,
        /// A hint that at most one row matches; never changes a result.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scalar: Option<bool>,
    },
}

/// EXISTS or NOT EXISTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ExistsOp {
    /// At least one child.
    #[serde(rename = "EXISTS")]
    Exists,
    /// No child.
    #[serde(rename = "NOT EXISTS")]
    NotExists,
}

/// Operator of a simple condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "each is named after the operator it stands for"
)]
pub enum SimpleOp {
    #[serde(rename = "=")]
    Eq,
    #[serde(rename = "!=")]
    Ne,
    #[serde(rename = "IS")]
    Is,
    #[serde(rename = "IS NOT")]
    IsNot,
    #[serde(rename = "<")]
    Lt,
    #[serde(rename = ">")]
    Gt,
    #[serde(rename = "<=")]
    Le,
    #[serde(rename = ">=")]
    Ge,
    #[serde(rename = "LIKE")]
    Like,
    #[serde(rename = "NOT LIKE")]
    NotLike,
    #[serde(rename = "ILIKE")]
    ILike,
    #[serde(rename = "NOT ILIKE")]
    NotILike,
    #[serde(rename = "IN")]
    In,
    #[serde(rename = "NOT IN")]
    NotIn,
}

/// One side of a simple condition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Operand {
    /// A constant; an array only with IN and NOT IN.
    Literal {
        /// The constant.
        value: serde_json::Value,
    },
    /// A column of the query's own table.
    Column {
        /// Server name of the column.
        name: String,
    },
    /// A parameter bound before the query is planned.
    Static {
        /// `authData` or `preMutationRow`.
        anchor: String,
        /// One field, or a path of fields.
        field: serde_json::Value,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_round_trips() {
        let text = r#"{"table":"issue","where":{"type":"and","conditions":[{"type":"simple","op":"=","left":{"type":"column","name":"open"},"right":{"type":"literal","value":true}},{"type":"correlatedSubquery","related":{"correlation":{"parentField":["id"],"childField":["issue_id"]},"subquery":{"table":"issue_label","alias":"zsubq_labels"},"system":"client"},"op":"EXISTS"}]},"start":{"row":{"id":"a"},"exclusive":true},"limit":50.0,"orderBy":[["modified","desc"]]}"#;
        let ast: Ast = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&ast).unwrap(), text);
    }
}
