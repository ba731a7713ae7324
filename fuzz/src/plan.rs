//! Queries.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use kelvin_ivm::{Budget, ClientKeys, ErrorKind, Plan, evaluate};
use kelvin_protocol::Ast;
use kelvin_storage::{Catalog, RowId, TableId, View};

use crate::reorder::reorder;
use crate::tables::world;

/// Rows one query may examine here.
const MAX_ROWS: u64 = 20_000;

/// A query as JSON: it is planned or refused as a query; another order of its conditions, a
/// condition said twice, other hints, and client keys that are those of the replica change neither
/// the plan's id nor the rows.
pub fn plan(data: &[u8]) {
    let Ok(mut ast) = serde_json::from_slice::<Ast>(data) else {
        return;
    };
    let (catalog, view) = world();
    let planned = compile(&ast, catalog, &ClientKeys::new());
    let seed = data.iter().fold(data.len() as u64, |seed, byte| {
        seed.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    reorder(&mut ast, seed);
    let again = compile(&ast, catalog, &declared(catalog));
    assert_eq!(planned.is_some(), again.is_some(), "{ast:?}");
    let (Some(planned), Some(again)) = (planned, again) else {
        return;
    };
    assert_eq!(planned.id(), again.id(), "{ast:?}");
    assert!(planned.is_current(catalog));
    let _ = planned.missing_indexes(catalog);
    if let (Some(rows), Some(same)) = (rows(&planned, view), rows(&again, view)) {
        assert_eq!(rows, same, "{ast:?}");
    }
}

fn compile(ast: &Ast, catalog: &Arc<Catalog>, keys: &ClientKeys) -> Option<Plan> {
    let plan = Plan::compile(ast, catalog, keys);
    plan.inspect_err(|error| assert_eq!(error.kind(), ErrorKind::Query, "{error}"))
        .ok()
}

/// The keys of the replica, as a client would declare them.
fn declared(catalog: &Catalog) -> ClientKeys {
    let tables = catalog.tables().iter();
    tables
        .map(|table| {
            let names = table.key.iter().map(|at| table.columns[*at].name.clone());
            (table.name.clone(), names.collect())
        })
        .collect()
}

/// The rows of the plan; `None` where it would examine too many.
fn rows(plan: &Plan, view: &View) -> Option<BTreeSet<(TableId, RowId)>> {
    let mut rows = BTreeSet::new();
    let outcome = evaluate(plan, view, &Budget::rows(MAX_ROWS), &mut |table, row| {
        assert!(rows.insert((table, row.id)), "a row comes once");
        ControlFlow::Continue(())
    });
    outcome
        .inspect_err(|error| assert_eq!(error.kind(), ErrorKind::Budget, "{error}"))
        .ok()
        .map(|()| rows)
}
