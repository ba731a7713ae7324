//! Read rules become part of a query.

use kelvin_protocol::{Ast, Condition, CorrelatedSubquery, System};

use super::rules::Permissions;
use super::simplify::simplify;

/// Narrows a client's query to the rows its user may see, in each of its tables: what a subquery of
/// EXISTS may not see does not exist for it either. Parameters stay; bind them afterwards.
///
/// A table without rules shows nothing.
#[must_use]
pub fn apply_read(ast: Ast, permissions: &Permissions) -> Ast {
    let rules = permissions
        .row(&ast.table)
        .and_then(|row| row.select.as_ref());
    let allowed = rules.map_or_else(never, |policy| as_system(policy.condition()));
    let asked = ast
        .filter
        .map(|filter| narrow_condition(filter, permissions));
    let conditions = asked.into_iter().chain([allowed]).collect();
    Ast {
        filter: Some(simplify(Condition::And { conditions })),
        related: ast
            .related
            .into_iter()
            .map(|related| narrow_subquery(related, permissions))
            .collect(),
        ..ast
    }
}

fn never() -> Condition {
    Condition::Or {
        conditions: Vec::new(),
    }
}

fn narrow_subquery(related: CorrelatedSubquery, permissions: &Permissions) -> CorrelatedSubquery {
    CorrelatedSubquery {
        subquery: apply_read(related.subquery, permissions),
        ..related
    }
}

fn narrow_condition(condition: Condition, permissions: &Permissions) -> Condition {
    map_subqueries(condition, &|related| narrow_subquery(related, permissions))
}

/// Marks the subqueries of a rule: their rows decide, but are not synced. Rules themselves see
/// every row.
fn as_system(condition: Condition) -> Condition {
    map_subqueries(condition, &|related| {
        let subquery = Ast {
            filter: related.subquery.filter.map(as_system),
            ..related.subquery
        };
        CorrelatedSubquery {
            subquery,
            system: Some(System::Permissions),
            ..related
        }
    })
}

fn map_subqueries(
    condition: Condition,
    map: &dyn Fn(CorrelatedSubquery) -> CorrelatedSubquery,
) -> Condition {
    let all = |conditions: Vec<Condition>| -> Vec<Condition> {
        let mapped = conditions.into_iter();
        mapped
            .map(|condition| map_subqueries(condition, map))
            .collect()
    };
    match condition {
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
            related: Box::new(map(*related)),
            op,
            flip,
            scalar,
        },
        simple @ Condition::Simple { .. } => simple,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ast(json: &str) -> Ast {
        serde_json::from_str(json).unwrap()
    }

    fn permissions() -> Permissions {
        let json = r#"{"tables":{
            "open":{"row":{"select":[["allow",{"type":"and","conditions":[]}]]}},
            "shut":{"row":{"select":[]}},
            "owned":{"row":{"select":[["allow",{"type":"correlatedSubquery","op":"EXISTS","related":
              {"correlation":{"parentField":["id"],"childField":["owned_id"]},
               "subquery":{"table":"shut","alias":"x"}}}]]}}}}"#;
        Permissions::parse(Some(json)).unwrap()
    }

    #[test]
    fn a_table_without_rules_shows_nothing() {
        for table in ["shut", "unknown"] {
            let asked = ast(&format!(r#"{{"table":"{table}"}}"#));
            let narrowed = apply_read(asked, &permissions());
            assert_eq!(narrowed.filter, Some(never()));
        }
    }

    #[test]
    fn anyone_can_leaves_the_query_as_it_is() {
        let filter = r#"{"type":"simple","op":"=","left":{"type":"column","name":"a"},"right":{"type":"literal","value":1}}"#;
        let asked = ast(&format!(r#"{{"table":"open","where":{filter}}}"#));
        assert_eq!(apply_read(asked.clone(), &permissions()), asked);
        let bare = apply_read(ast(r#"{"table":"open"}"#), &permissions());
        let always = Condition::And { conditions: vec![] };
        assert_eq!(bare.filter, Some(always));
    }

    #[test]
    fn related_and_exists_subqueries_are_narrowed_and_rules_are_not() {
        let asked = ast(
            r#"{"table":"owned","where":{"type":"correlatedSubquery","op":"EXISTS","related":
            {"correlation":{"parentField":["id"],"childField":["b"]},"system":"client",
             "subquery":{"table":"unknown","alias":"y"}}},
            "related":[{"correlation":{"parentField":["id"],"childField":["b"]},
             "subquery":{"table":"shut","alias":"z"}}]}"#,
        );
        let narrowed = apply_read(asked, &permissions());
        assert_eq!(narrowed.related[0].subquery.filter, Some(never()));
        let Some(Condition::And { conditions }) = &narrowed.filter else {
            panic!("{narrowed:?}");
        };
        let subquery = |at: usize| match &conditions[at] {
            Condition::CorrelatedSubquery { related, .. } => related,
            other => panic!("{other:?}"),
        };
        assert_eq!(subquery(0).subquery.filter, Some(never()));
        assert_eq!(subquery(0).system, Some(System::Client));
        assert_eq!(subquery(1).subquery.filter, None, "rules see every row");
        assert_eq!(subquery(1).system, Some(System::Permissions));
    }
}
