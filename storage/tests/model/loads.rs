//! Tables that are loaded beside the replica.

use std::rc::Rc;

use kelvin_protocol::Direction;
use kelvin_storage::{RowOp, SchemaChange, Table, TableLoad, Transaction};

use crate::expected::{Expected, Rows, key_of};
use crate::operations::{self, MOST_TABLES, row};
use crate::world::World;

impl World<'_> {
    /// Loads a table while transactions are applied. It is given up on the way, or taken up.
    pub fn load_table(&mut self) {
        let version = self.model.watermark();
        let table = Table {
            name: format!("load {}", self.next_table + 1),
            ..operations::table(0, &[0], &[&[(1, Direction::Desc)]])
        };
        let load = self.replica().load_table(table, version).unwrap();
        self.next_table = self.next_table.max(load.table().id.0);
        let table = (**load.table()).clone();
        let rows: Rows = (0..self.random.below(40))
            .map(|birth| {
                let values = row(&mut self.random, &table);
                let row = Expected {
                    version,
                    birth,
                    values,
                };
                (key_of(&table, &row.values), Rc::new(row))
            })
            .collect();
        self.fill(&load, &rows);
        if self.random.chance(30) {
            self.apply();
        }
        if self.random.chance(20) {
            return;
        }
        let loaded = load.finish().unwrap();
        if self.random.chance(30) {
            self.apply();
        }
        if self.random.chance(30) {
            return;
        }
        self.model.loads(&table, rows);
        let mut ops = Vec::new();
        let tables: Vec<_> = self.model.latest().keys().copied().collect();
        if tables.len() >= MOST_TABLES {
            ops.push(SchemaChange::DropTable(*self.random.pick(&tables)));
        }
        ops.push(SchemaChange::LoadTable(loaded));
        let ops = ops
            .into_iter()
            .map(|change| RowOp::Schema(Box::new(change)));
        let from = self.model.watermark();
        let transaction = Transaction {
            version: from + 1 + self.random.below(3),
            ops: ops.collect(),
        };
        self.model.apply(&transaction);
        self.apply_all(from, &[transaction]);
        self.check_at(self.model.watermark());
    }

    /// Inserts the rows in two parts.
    fn fill(&mut self, load: &TableLoad, rows: &Rows) {
        let mut parts = [load.part(), load.part()];
        for row in rows.values() {
            let part = usize::try_from(self.random.below(2)).unwrap();
            parts[part].insert(&row.values).unwrap();
        }
        for part in parts {
            part.finish().unwrap();
        }
    }
}
