//! What a plan refuses: to read beyond its budget, and to be moved by changes of other versions.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::case::{Case, issue, of, put};
use crate::{Budget, ChangeSet, ClientKeys, ErrorKind, Plan, PlanState};

fn hydrate(case: &Case, query: &Json, budget: &Budget) -> Result<PlanState, crate::Error> {
    let ast = serde_json::from_value(query.clone()).unwrap();
    let plan = Plan::compile(&ast, &case.world.catalog(), &ClientKeys::new())?;
    let mut ignore = |_, _: &_| std::ops::ControlFlow::Continue(());
    PlanState::hydrate(Arc::new(plan), &case.world.view(), budget, &mut ignore)
}

#[test]
fn a_query_over_its_budget_or_past_its_deadline_ends_alone() {
    let issues: Vec<Json> = (0..600).map(|id| issue(id, json!(1), json!(id))).collect();
    let query = of("issue");
    let case = Case::new(&[("issue", json!(issues))], &query);
    let error = hydrate(&case, &query, &Budget::rows(100)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Budget);
    let error = hydrate(&case, &query, &Budget::unlimited().with_stop(|| true)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped);
    assert_eq!(
        hydrate(&case, &query, &Budget::rows(600))
            .unwrap()
            .row_count(),
        600
    );
}

#[test]
fn changes_of_other_versions_than_the_state_expects_are_refused() {
    let query = of("issue");
    let mut case = Case::new(&[("issue", json!([issue(1, json!(1), json!(1))]))], &query);
    let mut state = hydrate(&case, &query, &Budget::unlimited()).unwrap();
    let before = case.world.view();
    let op = put(&case.world, "issue", issue(2, json!(1), json!(1)));
    let changes = ChangeSet::new(case.world.apply(vec![op]));
    let after = case.world.view();
    let error = state.advance(&changes, &after, &after).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale);
    assert_eq!(
        state.advance(&changes, &before, &after).unwrap().rows.len(),
        1
    );
    let error = state.advance(&changes, &before, &after).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stale);
    let issue = case.world.catalog().table("issue").unwrap().id;
    let ids: BTreeSet<u32> = state.rows().flat_map(|(_, ids)| ids.iter()).collect();
    assert!(ids.iter().all(|id| state.contains(issue, *id)) && ids.len() == 2);
}
