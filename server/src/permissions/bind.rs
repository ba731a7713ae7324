//! Static parameters become literals.

use kelvin_protocol::{Ast, Condition, CorrelatedSubquery, Operand};
use serde_json::{Map, Value};

/// What rules know of the user: the claims of a JWT. Without one, every parameter is null.
pub type AuthData<'a> = Option<&'a Map<String, Value>>;

/// Replaces every static parameter of a query by a literal.
#[must_use]
pub fn bind_static(ast: Ast, auth_data: AuthData<'_>) -> Ast {
    Ast {
        filter: ast.filter.map(|filter| bind_condition(filter, auth_data)),
        related: ast
            .related
            .into_iter()
            .map(|related| bind_subquery(related, auth_data))
            .collect(),
        ..ast
    }
}

fn bind_subquery(related: CorrelatedSubquery, auth_data: AuthData<'_>) -> CorrelatedSubquery {
    CorrelatedSubquery {
        subquery: bind_static(related.subquery, auth_data),
        ..related
    }
}

/// Replaces every static parameter of a condition by a literal.
#[must_use]
pub fn bind_condition(condition: Condition, auth_data: AuthData<'_>) -> Condition {
    let all = |conditions: Vec<Condition>| -> Vec<Condition> {
        let bound = conditions.into_iter();
        bound
            .map(|condition| bind_condition(condition, auth_data))
            .collect()
    };
    match condition {
        Condition::Simple { op, left, right } => Condition::Simple {
            op,
            left: bind_operand(left, auth_data),
            right: bind_operand(right, auth_data),
        },
        Condition::And { conditions } => Condition::And {
            conditions: all(conditions),
        },
        Condition::Or { conditions } => Condition::Or {
            conditions: all(conditions),
        },
        Condition::CorrelatedSubquery {
            related,
            op,
            flip,
            scalar,
        } => Condition::CorrelatedSubquery {
            related: Box::new(bind_subquery(*related, auth_data)),
            op,
            flip,
            scalar,
        },
    }
}

fn bind_operand(operand: Operand, auth_data: AuthData<'_>) -> Operand {
    match operand {
        // `preMutationRow` has nothing behind it, and neither has any other anchor.
        Operand::Static { anchor, field } => {
            let data = auth_data.filter(|_| anchor == "authData");
            let found = data.and_then(|data| look_up(data, &field));
            Operand::Literal {
                value: found.cloned().unwrap_or(Value::Null),
            }
        }
        other => other,
    }
}

fn look_up<'a>(data: &'a Map<String, Value>, field: &Value) -> Option<&'a Value> {
    match field {
        Value::String(name) => data.get(name),
        Value::Array(path) => {
            let (first, rest) = path.split_first()?;
            let found = data.get(first.as_str()?);
            rest.iter()
                .fold(found, |found, name| found?.get(name.as_str()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_become_literals_in_every_corner() {
        let parameter = |field: &str| {
            format!(
                r#"{{"type":"simple","op":"IS","left":{{"type":"column","name":"a"}},
                "right":{{"type":"static","anchor":"authData","field":{field}}}}}"#
            )
        };
        let json = format!(
            r#"{{"table":"t","where":{{"type":"and","conditions":[{},{{"type":"correlatedSubquery",
            "op":"EXISTS","related":{{"correlation":{{"parentField":["a"],"childField":["b"]}},
            "subquery":{{"table":"u","where":{}}}}}}}]}},
            "related":[{{"correlation":{{"parentField":["a"],"childField":["b"]}},
            "subquery":{{"table":"v","where":{}}}}}]}}"#,
            parameter(r#""sub""#),
            parameter(r#"["org","id"]"#),
            parameter(r#"["org","no","such"]"#),
        );
        let claims = serde_json::json!({ "sub": "u", "org": { "id": 7 } });
        let ast: Ast = serde_json::from_str(&json).unwrap();
        let bound = bind_static(ast.clone(), claims.as_object());
        let text = serde_json::to_string(&bound).unwrap();
        for literal in [r#""value":"u""#, r#""value":7"#, r#""value":null"#] {
            assert!(text.contains(literal), "{text}");
        }
        assert!(!text.contains("static"));
        let anonymous = serde_json::to_string(&bind_static(ast, None)).unwrap();
        assert_eq!(anonymous.matches(r#""value":null"#).count(), 3);
    }
}
