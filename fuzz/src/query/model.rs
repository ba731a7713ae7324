//! What is in the tables, as a plain map.

use std::collections::BTreeMap;

use kelvin_protocol::Value;

use super::case::{Case, Op, Step, TableSpec, Texts};

/// Rows of one table by primary key.
pub type Rows = BTreeMap<Vec<Value>, Vec<Value>>;

/// Rows of all tables, by the position of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Model(pub Vec<Rows>);

impl Model {
    /// Empty tables.
    #[must_use]
    pub fn of(case: &Case) -> Self {
        Self(vec![Rows::new(); case.tables.len()])
    }

    /// Does what the operation says; refuses what PostgreSQL would not do or what would do nothing.
    pub fn apply(&mut self, case: &Case, op: &Op) -> bool {
        match op {
            Op::Insert(at, row) => self.insert(*at, &case.tables[*at], row),
            Op::Update(at, key, row) => {
                let (table, key) = (&case.tables[*at], case.tables[*at].key_values(key));
                let Some(old) = self.0[*at].remove(&key) else {
                    return false;
                };
                let fits = self.insert(*at, table, row);
                if !fits {
                    self.0[*at].insert(key, old);
                }
                fits
            }
            Op::Delete(at, key) => {
                let key = case.tables[*at].key_values(key);
                self.0[*at].remove(&key).is_some()
            }
            Op::Truncate(tables) => {
                for at in tables {
                    self.0[*at].clear();
                }
                true
            }
        }
    }

    fn insert(&mut self, at: usize, table: &TableSpec, texts: &Texts) -> bool {
        let row = table.row(texts);
        let null = |at: &usize| row[*at].is_null();
        let forbidden = table.columns.iter().enumerate();
        if forbidden
            .into_iter()
            .any(|(at, (_, _, nullable))| !nullable && null(&at))
        {
            return false;
        }
        let rows = &mut self.0[at];
        let taken = |unique: &Vec<usize>| {
            let mut others = rows.values();
            others.any(|other| unique.iter().all(|at| other[*at] == row[*at]))
        };
        let key = table.key_of(&row);
        if rows.contains_key(&key) || table.unique.iter().any(taken) {
            return false;
        }
        rows.insert(key, row);
        true
    }
}

impl Case {
    /// Leaves out operations that do not fit what is in the tables, and what is then empty.
    pub fn settle(&mut self) {
        let (mut model, mut steps) = (Model::of(self), std::mem::take(&mut self.steps));
        for step in &mut steps {
            if let Step::Commit(batch) = step {
                for transaction in batch.iter_mut() {
                    transaction.retain(|op| model.apply(self, op));
                }
                batch.retain(|transaction| !transaction.is_empty());
            }
        }
        steps.retain(|step| !matches!(step, Step::Commit(batch) if batch.is_empty()));
        self.steps = steps;
    }

    /// What is in the tables at first and after each transaction.
    #[must_use]
    pub fn models(&self) -> Vec<Model> {
        let mut models = vec![Model::of(self)];
        for transaction in self.transactions() {
            let mut model = models[models.len() - 1].clone();
            for op in transaction {
                assert!(model.apply(self, op), "the case is settled: {op:?}");
            }
            models.push(model);
        }
        models
    }
}
