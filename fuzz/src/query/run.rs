//! A case on kelvin, checked against an oracle.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_ivm::fuzzing::impatient;
use kelvin_ivm::{Budget, ChangeSet, Plan, PlanDelta, PlanState, Router, evaluate};
use kelvin_protocol::{Ast, Version};
use kelvin_storage::{
    ErrorKind, Replica, ReplicaIdentity, Row, TableId, Transaction, View as Snapshot,
};

use super::answer::{Answer, View, rows, shown};
use super::case::{Case, Op, Step, runs_at_clients};
use super::model::Model;
use super::naive::Naive;
use crate::tables::options;

/// Version of the empty tables, and what each transaction adds.
const FIRST: Version = 100;
const STEP: Version = 10;
/// Longest wait for somebody else to let go of a replica.
const RELEASE: Duration = Duration::from_secs(10);

/// Answers to every query (inner) at first and after every transaction (outer).
pub type Answers = Vec<Vec<Vec<Answer>>>;

/// What was found wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The check that failed: two failures of one check are likely one mistake.
    pub check: &'static str,
    /// Where, and what it saw.
    pub detail: String,
}

type Outcome<T> = Result<T, Failure>;

fn fail<T>(check: &'static str, detail: impl std::fmt::Debug) -> Outcome<T> {
    let detail = format!("{detail:?}");
    Err(Failure { check, detail })
}

/// Answers of the naive evaluator; `None` where the case is too large for it.
#[must_use]
pub fn naive_answers(case: &Case) -> Option<Answers> {
    let queries: Vec<Ast> = case
        .queries
        .iter()
        .map(|ast| case.with_rules(ast))
        .collect();
    let at = |model: &Model| {
        let naive = Naive::new(case, model);
        queries.iter().map(|ast| naive.answers(ast)).collect()
    };
    case.models().iter().map(at).collect()
}

/// Runs a settled case on kelvin and holds every view against the oracle's answers: maintained,
/// fresh, read at old versions, fast-forwarded from every earlier version and taken back to it;
/// then what clients compute from the rows they were sent.
///
/// # Errors
/// The first check that failed; a panic is one too.
pub fn check(case: &Case, expected: &Answers) -> Outcome<()> {
    let run = AssertUnwindSafe(|| {
        let views = if case.impatient {
            impatient(|| Run::new(case)?.views())?
        } else {
            Run::new(case)?.views()?
        };
        compare(case, expected, &views)?;
        check_clients(case, expected, &views)
    });
    catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        fail("no panic", text)
    })
}

/// Views of every query (inner) at every version (outer).
type Views = Vec<Vec<View>>;

/// A query that is maintained.
struct Watched {
    plan: Arc<Plan>,
    state: PlanState,
    view: View,
    /// The view, and the state hydrated there, at each version so far.
    past: Vec<(View, PlanState)>,
}

struct Run<'a> {
    case: &'a Case,
    /// There is always one, but while it is opened again.
    replica: Option<Replica>,
    router: Router,
    /// Knows no windows, so that it answers for changes from any version on.
    wide_router: Router,
    watched: Vec<Watched>,
    versions: Vec<Version>,
    directory: tempfile::TempDir,
}

impl<'a> Run<'a> {
    fn new(case: &'a Case) -> Outcome<Self> {
        let directory = directory();
        let loader = Replica::create(directory.path(), &options(), case.catalog());
        let loader = loader.or_else(|error| fail("creates", error))?;
        let replica = loader.finish(ReplicaIdentity::default(), FIRST);
        let mut run = Self {
            case,
            replica: Some(replica.or_else(|error| fail("creates", error))?),
            router: Router::new(),
            wide_router: Router::new(),
            watched: Vec::new(),
            versions: vec![FIRST],
            directory,
        };
        let snapshot = run.latest()?;
        for ast in &case.queries {
            let ast = case.with_rules(ast);
            let plan = Plan::compile(&ast, &run.replica().catalog(), &case.client_keys());
            let plan = Arc::new(plan.or_else(|error| fail("plans", (error, &ast)))?);
            run.router.insert(plan.id(), &plan);
            run.wide_router.insert(plan.id(), &plan);
            let (state, view) = hydrate(&plan, &snapshot)?;
            run.router.narrow(&state);
            let past = vec![(view.clone(), state.clone())];
            run.watched.push(Watched {
                plan,
                state,
                view,
                past,
            });
        }
        Ok(run)
    }

    fn replica(&self) -> &Replica {
        self.replica.as_ref().expect("a replica")
    }

    fn reopen(&mut self) -> Outcome<()> {
        // Two of them would not share the directory.
        drop(self.replica.take());
        let deadline = Instant::now() + RELEASE;
        let replica = loop {
            match Replica::open(self.directory.path(), &options()) {
                // A program that another test starts has our files open between fork and exec.
                Err(error) if error.kind() == ErrorKind::Locked && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                opened => break opened,
            }
        };
        self.replica = Some(replica.or_else(|error| fail("opens", error))?);
        Ok(())
    }

    fn latest(&self) -> Outcome<Snapshot> {
        self.replica()
            .latest()
            .or_else(|error| fail("reads", error))
    }

    fn at(&self, version: Version) -> Outcome<Snapshot> {
        self.replica()
            .at(version)
            .or_else(|error| fail("reads", (version, error)))
    }

    fn views(mut self) -> Outcome<Views> {
        let (mut transactions, mut model) = (0, Model::of(self.case));
        for step in &self.case.steps {
            match step {
                Step::Index(at, columns) => {
                    let id = super::case::table_id(*at);
                    let built = self.replica().add_index(id, columns, &|| true);
                    built.or_else(|error| fail("builds", error))?;
                }
                Step::Reopen => self.reopen()?,
                Step::Commit(batch) => {
                    let batch: Vec<Transaction> = batch
                        .iter()
                        .map(|ops| {
                            transactions += 1;
                            self.transaction(FIRST + STEP * transactions, ops, &mut model)
                        })
                        .collect();
                    self.commit(&batch)?;
                }
            }
        }
        self.read_back()?;
        let versions = 0..self.versions.len();
        let at = |version: usize| {
            self.watched
                .iter()
                .map(|query| query.past[version].0.clone())
                .collect()
        };
        Ok(versions.map(at).collect())
    }

    fn transaction(&self, version: Version, ops: &[Op], model: &mut Model) -> Transaction {
        let mut each = |op: &Op| {
            let for_replica = op.for_replica(self.case, model);
            assert!(model.apply(self.case, op), "the case is settled: {op:?}");
            for_replica
        };
        let ops = ops.iter().map(&mut each).collect();
        Transaction { version, ops }
    }

    fn commit(&mut self, batch: &[Transaction]) -> Outcome<()> {
        let before = self.latest()?;
        let applied = self
            .replica()
            .apply(batch)
            .or_else(|error| fail("applies", error))?;
        let changes = ChangeSet::new(applied);
        let after = self.latest()?;
        for transaction in batch {
            self.versions.push(transaction.version);
        }
        let routed = self.router.route(&changes);
        for query in &mut self.watched {
            if routed.contains(&query.plan.id()) {
                let delta = query.state.advance(&changes, &before, &after);
                let delta = delta.or_else(|error| fail("advances", error))?;
                fold(&mut query.view, &delta, &after)?;
                self.router.narrow(&query.state);
            }
        }
        for transaction in batch {
            let snapshot = self.at(transaction.version)?;
            for query in &mut self.watched {
                let (state, view) = hydrate(&query.plan, &snapshot)?;
                query.past.push((view, state));
            }
        }
        for query in &self.watched {
            let (view, state) = &query.past[query.past.len() - 1];
            if query.view != *view {
                return fail("maintained is fresh", (after.version(), &query.view, view));
            }
            same_members(&query.state, state)?;
        }
        self.catch_up(&after)
    }

    /// From every earlier version to this one.
    fn catch_up(&self, after: &Snapshot) -> Outcome<()> {
        for (at, from) in self.versions.iter().enumerate() {
            if *from == after.version() {
                continue;
            }
            let changes = self.replica().changes(*from, after.version());
            let changes = ChangeSet::new(changes.or_else(|error| fail("reads", error))?);
            let before = self.at(*from)?;
            let routed = self.wide_router.route(&changes);
            for query in &self.watched {
                let (mut view, mut state) = query.past[at].clone();
                if routed.contains(&query.plan.id()) {
                    let delta = state.advance(&changes, &before, after);
                    let delta = delta.or_else(|error| fail("catches up", error))?;
                    fold(&mut view, &delta, after)?;
                }
                let (fresh, fresh_state) = &query.past[query.past.len() - 1];
                if view != *fresh {
                    return fail("catch-up is fresh", (from, after.version(), &view, fresh));
                }
                same_members(&state, fresh_state)?;
            }
            self.go_back(&changes.reversed(), after, (at, &before))?;
        }
        Ok(())
    }

    /// The other way: from this version to an earlier one.
    fn go_back(
        &self,
        changes: &ChangeSet,
        after: &Snapshot,
        (at, before): (usize, &Snapshot),
    ) -> Outcome<()> {
        let routed = self.wide_router.route(changes);
        for query in &self.watched {
            let (mut view, mut state) = (query.view.clone(), query.state.clone());
            if routed.contains(&query.plan.id()) {
                let delta = state.rewind(changes, after, before);
                let delta = delta.or_else(|error| fail("goes back", error))?;
                fold(&mut view, &delta, before)?;
            }
            let (then, then_state) = &query.past[at];
            if view != *then {
                return fail("what was gone back to is what was", (at, &view, then));
            }
            same_members(&state, then_state)?;
        }
        Ok(())
    }

    /// Every version once more, with all that came after it in the history.
    fn read_back(&self) -> Outcome<()> {
        for (at, version) in self.versions.iter().enumerate() {
            let snapshot = self.at(*version)?;
            for query in &self.watched {
                let then = fresh(&query.plan, &snapshot)?;
                if then != query.past[at].0 {
                    return fail("old versions stay", (version, &then, &query.past[at].0));
                }
            }
        }
        Ok(())
    }
}

/// A directory in memory where there is one: a new replica waits for the disk a dozen times, and
/// nothing of it has to last.
fn directory() -> tempfile::TempDir {
    let in_memory = tempfile::tempdir_in("/dev/shm");
    in_memory
        .or_else(|_| tempfile::tempdir())
        .expect("a directory")
}

fn hydrate(plan: &Arc<Plan>, snapshot: &Snapshot) -> Outcome<(PlanState, View)> {
    let mut view = View::new();
    let mut twice = false;
    let mut sink = |table: TableId, row: &Row| {
        twice |= insert(&mut view, snapshot, table, row).is_some();
        ControlFlow::Continue(())
    };
    let state = PlanState::hydrate(plan.clone(), snapshot, &Budget::unlimited(), &mut sink);
    let state = state.or_else(|error| fail("hydrates", error))?;
    if twice {
        return fail("each row once", view);
    }
    Ok((state, view))
}

fn fresh(plan: &Plan, snapshot: &Snapshot) -> Outcome<View> {
    let mut view = View::new();
    let mut sink = |table: TableId, row: &Row| {
        insert(&mut view, snapshot, table, row);
        ControlFlow::Continue(())
    };
    let outcome = evaluate(plan, snapshot, &Budget::unlimited(), &mut sink);
    outcome.or_else(|error| fail("evaluates", error))?;
    Ok(view)
}

fn insert(
    view: &mut View,
    snapshot: &Snapshot,
    id: TableId,
    row: &Row,
) -> Option<Vec<kelvin_protocol::Value>> {
    let table = snapshot
        .catalog()
        .table_by_id(id)
        .expect("a table of the case");
    view.insert((id, row.project(&table.key)), row.to_values())
}

fn fold(view: &mut View, delta: &PlanDelta, after: &Snapshot) -> Outcome<()> {
    for change in &delta.rows {
        let table = after
            .catalog()
            .table_by_id(change.table)
            .expect("a table of the case");
        let key = |row: &Row| (change.table, row.project(&table.key));
        let held = match (&change.old, &change.new) {
            (_, Some(new)) => view.insert(key(new), new.to_values()),
            (Some(old), None) => view.remove(&key(old)),
            (None, None) => return fail("a delta says something", change.table),
        };
        if held != change.old.as_ref().map(Row::to_values) {
            return fail("a delta knows what was there", (change, held));
        }
    }
    Ok(())
}

fn same_members(state: &PlanState, other: &PlanState) -> Outcome<()> {
    let members = |state: &PlanState| -> Vec<_> {
        let rows = state.rows().filter(|(_, rows)| !rows.is_empty());
        rows.map(|(table, rows)| (table, rows.clone())).collect()
    };
    if members(state) != members(other) {
        return fail(
            "members are those of the view",
            (members(state), members(other)),
        );
    }
    Ok(())
}

fn compare(case: &Case, expected: &Answers, views: &Views) -> Outcome<()> {
    for (version, (answers, views)) in expected.iter().zip(views).enumerate() {
        let queries = case.queries.iter().zip(answers).zip(views);
        for (at, ((ast, answers), view)) in queries.enumerate() {
            let wanted = rows(case, &case.with_rules(ast), answers);
            if wanted != *view {
                let missing: Vec<_> = wanted
                    .iter()
                    .filter(|(k, v)| view.get(*k) != Some(*v))
                    .collect();
                let surplus: Vec<_> = view
                    .iter()
                    .filter(|(k, v)| wanted.get(*k) != Some(*v))
                    .collect();
                let found = (
                    "transaction",
                    version,
                    "query",
                    at,
                    "missing",
                    missing,
                    "surplus",
                    surplus,
                );
                return fail("the view is the oracle's", found);
            }
        }
    }
    Ok(())
}

/// What clients compute from the rows they were sent is the answer: from those of one query, and
/// from those of all.
fn check_clients(case: &Case, expected: &Answers, views: &Views) -> Outcome<()> {
    let model = |views: &[View]| {
        let mut model = Model::of(case);
        for ((table, key), row) in views.iter().flatten() {
            let at = table.0 as usize - 1;
            model.0[at].insert(key.clone(), row.clone());
        }
        model
    };
    for (version, (answers, views)) in expected.iter().zip(views).enumerate() {
        let all = model(views);
        for (at, ast) in case.queries.iter().enumerate() {
            if !runs_at_clients(ast) {
                continue;
            }
            let wanted = shown(&answers[at]);
            for (what, model) in [("alone", &model(&views[at..=at])), ("with others", &all)] {
                let Some(found) = Naive::new(case, model).answers(ast) else {
                    continue;
                };
                let found = shown(&found);
                if found != wanted {
                    let detail = ("transaction", version, "query", at, what, found, wanted);
                    return fail("a client computes the answer", detail);
                }
            }
        }
    }
    Ok(())
}
