//! A replica of issues, and standing queries on it.

use std::ops::ControlFlow;
use std::sync::Arc;

use kelvin_ivm::{Budget, ChangeSet, ClientKeys, Plan, PlanState};
use kelvin_protocol::{Ast, Value};
use kelvin_storage::{Replica, TableId, View};
use tempfile::TempDir;

use super::world::{self, COMMENT, ISSUE, MEMBER, NOTE};

/// Comments of an issue.
pub const COMMENTS: usize = 3;
/// Who owns the issues of the EXISTS bench, and nothing else.
pub const OWNER: &str = "the owner";

/// The replica, and what the writers of the benches keep in mind.
pub struct World {
    _dir: TempDir,
    pub replica: Replica,
    pub issues: usize,
    /// The first so many are owned by one member.
    pub owned: usize,
    pub clock: usize,
    /// Steps measured.
    pub steps: usize,
}

impl World {
    /// So many issues, the first `owned` of them owned by one member.
    pub fn new(issues: usize, owned: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let owner = |id: usize| match id {
            id if id < owned => OWNER.to_owned(),
            id => format!("member {}", id % 1000),
        };
        let issue = |id| world::issue(id, id, &owner(id));
        let comment = |id: usize| world::comment(id, id / COMMENTS, &owner(id % issues));
        let mut members: Vec<_> = (0..1000)
            .map(|n| world::member(&format!("member {n}"), true))
            .collect();
        members.push(world::member(OWNER, true));
        let notes = (0..issues).map(|n| world::note(n, &owner(owned + n)));
        let tables = [
            (NOTE, notes.collect()),
            (ISSUE, (0..issues).map(issue).collect()),
            (COMMENT, (0..issues * COMMENTS).map(comment).collect()),
            (MEMBER, members),
        ];
        let replica = world::load(dir.path(), world::catalog(true), &tables);
        Self {
            _dir: dir,
            replica,
            issues,
            owned,
            clock: issues,
            steps: 0,
        }
    }

    pub fn plan(&self, query: &str) -> Arc<Plan> {
        let ast: Ast = serde_json::from_str(query).unwrap();
        let plan = Plan::compile(&ast, &self.replica.catalog(), &ClientKeys::new());
        Arc::new(plan.unwrap())
    }

    /// Writes rows; gives the views before and after, and what changed.
    pub fn write(&self, table: TableId, rows: Vec<Vec<Value>>) -> (View, ChangeSet, View) {
        let before = self.replica.latest().unwrap();
        let transaction = world::write(&self.replica, table, rows);
        let changes = ChangeSet::new(self.replica.apply(&[transaction]).unwrap());
        (before, changes, self.replica.latest().unwrap())
    }
}

/// The state of a plan, with no bound of time or rows.
pub fn hydrate(plan: &Arc<Plan>, view: &View) -> PlanState {
    let mut sink = |_, _: &_| ControlFlow::Continue(());
    PlanState::hydrate(plan.clone(), view, &Budget::unlimited(), &mut sink).unwrap()
}
