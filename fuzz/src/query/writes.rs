//! Random transactions, over what is in the tables at the time.

use super::case::{Case, Op, Step, Texts};
use super::choices::Choices;
use super::model::Model;
use super::schema::{UNIQUE, random_index, random_text};
use super::values::Pools;

/// Writes transactions and keeps what they leave, as texts.
pub(crate) struct Writer<'a> {
    case: &'a Case,
    pools: &'a Pools,
    model: Model,
    /// Rows by table, in the order they came.
    rows: Vec<Vec<Texts>>,
    ops: Vec<Op>,
}

pub(crate) fn random_steps(choices: &mut Choices<'_>, pools: &Pools, case: &Case) -> Vec<Step> {
    let mut writer = Writer {
        case,
        pools,
        model: Model::of(case),
        rows: vec![Vec::new(); case.tables.len()],
        ops: Vec::new(),
    };
    for at in 0..case.tables.len() {
        for _ in 0..*choices.pick(&[8, 0, 4, 12, 12, 18, 30]) {
            writer.insert(choices, at);
        }
    }
    let mut steps = vec![Step::Commit(vec![std::mem::take(&mut writer.ops)])];
    for _ in 0..*choices.pick(&[2, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 9]) {
        if choices.chance(10) {
            let at = choices.below(case.tables.len());
            steps.push(Step::Index(at, random_index(choices, &case.tables[at])));
        }
        if choices.chance(8) {
            steps.push(Step::Reopen);
        }
        let transactions = if choices.chance(15) {
            choices.between(2, 3)
        } else {
            1
        };
        let batch = (0..transactions)
            .map(|_| writer.transaction(choices))
            .collect();
        steps.push(Step::Commit(batch));
    }
    steps
}

impl Writer<'_> {
    fn transaction(&mut self, choices: &mut Choices<'_>) -> Vec<Op> {
        for _ in 0..choices.between(1, 6) {
            let at = choices.below(self.case.tables.len());
            let victim = choices.below(self.rows[at].len().max(1));
            let victim = self.rows[at].get(victim).cloned();
            match (choices.below(100), victim) {
                (0..40, Some(row)) => self.update(choices, at, &row),
                (40..46, Some(row)) => self.swap(choices, at, &row),
                (46..50, Some(row)) => {
                    // The same statement, with nothing to change.
                    let key = self.case.tables[at].key_of(&row);
                    self.push(Op::Update(at, key, row));
                }
                (50..54, Some(row)) => {
                    for _ in 0..2 {
                        self.update(choices, at, &row);
                    }
                }
                (54..74, Some(row)) => self.delete(choices, at, &row),
                (98.., _) => self.truncate(choices, at),
                _ => self.insert(choices, at),
            }
        }
        std::mem::take(&mut self.ops)
    }

    fn push(&mut self, op: Op) {
        if !self.model.apply(self.case, &op) {
            return;
        }
        let tables = &self.case.tables;
        let same = |at: usize, key: &Texts| {
            let (table, key) = (&tables[at], tables[at].key_values(key));
            move |row: &Texts| table.key_of(&table.row(row)) == key
        };
        match &op {
            Op::Insert(at, row) => self.rows[*at].push(row.clone()),
            Op::Update(at, key, row) => {
                let rows = &mut self.rows[*at];
                let place = rows
                    .iter()
                    .position(same(*at, key))
                    .expect("the row is there");
                rows[place] = row.clone();
            }
            Op::Delete(at, key) => {
                let gone = same(*at, key);
                self.rows[*at].retain(|row| !gone(row));
            }
            Op::Truncate(tables) => {
                for at in tables {
                    self.rows[*at].clear();
                }
            }
        }
        self.ops.push(op);
    }

    fn insert(&mut self, choices: &mut Choices<'_>, at: usize) {
        let table = &self.case.tables[at];
        let columns = 0..table.columns.len();
        let row = columns
            .map(|column| random_text(choices, self.pools, table, column))
            .collect();
        self.push(Op::Insert(at, row));
    }

    fn update(&mut self, choices: &mut Choices<'_>, at: usize, old: &Texts) {
        let table = &self.case.tables[at];
        let mut row = old.clone();
        for _ in 0..choices.between(1, 3) {
            // Columns of keys change less often: most such changes would not fit.
            let least = if choices.chance(25) { 0 } else { UNIQUE + 1 };
            let column = choices.between(least, table.columns.len() - 1);
            let other = choices.below(self.rows[at].len());
            row[column] = if choices.chance(40) {
                self.rows[at][other][column].clone()
            } else {
                random_text(choices, self.pools, table, column)
            };
        }
        self.push(Op::Update(at, table.key_of(old), row));
    }

    /// Two rows exchange their unique values, by way of a third.
    fn swap(&mut self, choices: &mut Choices<'_>, at: usize, one: &Texts) {
        let table = &self.case.tables[at];
        let other = self.rows[at][choices.below(self.rows[at].len())].clone();
        if other == *one {
            return;
        }
        let with = |row: &Texts, value: Option<String>| {
            let mut row = row.clone();
            row[UNIQUE] = value;
            row
        };
        let aside = with(one, Some("1000".into()));
        let ends = [
            with(&other, one[UNIQUE].clone()),
            with(one, other[UNIQUE].clone()),
        ];
        let [of_other, of_one] = ends;
        self.push(Op::Update(at, table.key_of(one), aside.clone()));
        self.push(Op::Update(at, table.key_of(&other), of_other));
        self.push(Op::Update(at, table.key_of(&aside), of_one));
    }

    /// Deletes a row, and may put it back, or one like it.
    fn delete(&mut self, choices: &mut Choices<'_>, at: usize, row: &Texts) {
        let table = &self.case.tables[at];
        self.push(Op::Delete(at, table.key_of(row)));
        if choices.chance(30) {
            let mut row = row.clone();
            if choices.chance(50) {
                let column = choices.between(UNIQUE + 1, table.columns.len() - 1);
                row[column] = random_text(choices, self.pools, table, column);
            }
            self.push(Op::Insert(at, row));
        }
    }

    fn truncate(&mut self, choices: &mut Choices<'_>, at: usize) {
        let all = choices.chance(20);
        let tables = if all {
            (0..self.case.tables.len()).collect()
        } else {
            vec![at]
        };
        self.push(Op::Truncate(tables));
    }
}
