//! Tables that were made anew upstream.

use kelvin_storage::{Alteration, Catalog, SchemaChange, Table};

use crate::discovery::made_anew;

/// What brings the tables that are held under the identity they have in a snapshot, if they have
/// another one than before. Their rows stay, and are compared like those of all others.
///
/// `pg_class.oid` and `attnum` say nothing across databases, and one of the old may be that of
/// another table in the new. So names decide, and everything is compared anyhow.
pub(super) struct Renewal {
    /// What there is to change, before anything is compared.
    pub(super) changes: Vec<SchemaChange>,
    /// The tables that are held then. Indexes are left out of those that were made anew.
    pub(super) catalog: Catalog,
}

impl Renewal {
    pub(super) fn of(held: &Catalog, now: &Catalog) -> Self {
        let new = |table: &Table| made_anew(table, now.table(&table.name)?);
        let new: Vec<Option<Table>> = held.tables().iter().map(|table| new(table)).collect();
        let (mut dropped, mut altered, mut tables) = (Vec::new(), Vec::new(), Vec::new());
        for (table, renewed) in held.tables().iter().zip(&new) {
            if let Some(renewed) = renewed {
                altered.push(SchemaChange::AlterTable(Alteration {
                    table: renewed.clone(),
                    fills: Vec::new(),
                    made_anew: true,
                }));
                tables.push(renewed.clone());
            } else if new.iter().flatten().any(|other| other.oid == table.oid) {
                // What is upstream under its oid is another one that is held. The schema watch
                // finds what has its name now, if anything has.
                dropped.push(SchemaChange::DropTable(table.id));
            } else {
                tables.push((**table).clone());
            }
        }
        dropped.append(&mut altered);
        Self {
            changes: dropped,
            catalog: Catalog::new(tables, held.unsynced().to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use kelvin_protocol::ValueType;
    use kelvin_storage::{Column, TableId};

    use super::*;

    /// A table of an id and a name, the one under the `attnum` after that of the other.
    fn table(id: u32, name: &str, oid: u32, columns: [&str; 2]) -> Table {
        let columns = columns.iter().zip(1_i16..).map(|(name, attnum)| Column {
            name: (*name).into(),
            attnum,
            upstream_type: "text".into(),
            type_oid: 25,
            value_type: ValueType::String,
            not_null: true,
        });
        let columns: Vec<_> = columns.collect();
        let key = columns.iter().position(|column| column.name == "id");
        let key: Vec<_> = key.into_iter().collect();
        Table {
            id: TableId(id),
            name: name.into(),
            schema: "public".into(),
            upstream_name: name.into(),
            oid,
            columns,
            unsynced_columns: Vec::new(),
            unique_keys: vec![key.clone()],
            key,
            indexes: Vec::new(),
        }
    }

    fn catalog(tables: &[(u32, &str, u32, [&str; 2])]) -> Catalog {
        let tables = tables
            .iter()
            .map(|(id, name, oid, columns)| table(*id, name, *oid, *columns));
        Catalog::new(tables.collect(), Vec::new())
    }

    /// What is held in the end, and which tables are dropped.
    fn renewed(held: &Catalog, now: &Catalog) -> (Vec<(u32, String, u32)>, Vec<u32>) {
        let renewal = Renewal::of(held, now);
        let tables = renewal.catalog.tables().iter();
        let mut tables: Vec<_> = tables
            .map(|table| (table.id.0, table.name.clone(), table.oid))
            .collect();
        tables.sort_unstable();
        let dropped = renewal.changes.iter().filter_map(|change| match change {
            SchemaChange::DropTable(id) => Some(id.0),
            _ => None,
        });
        (tables, dropped.collect())
    }

    const FORM: [&str; 2] = ["id", "name"];

    #[test]
    fn tables_that_are_as_they_were_stay() {
        let held = catalog(&[(1, "a", 11, FORM), (2, "b", 12, FORM)]);
        let now = catalog(&[(1, "a", 11, FORM), (2, "renamed", 12, FORM)]);
        let (tables, dropped) = renewed(&held, &now);
        assert_eq!(tables, [(1, "a".into(), 11), (2, "b".into(), 12)]);
        assert!(dropped.is_empty());
        assert!(Renewal::of(&held, &now).changes.is_empty());
    }

    #[test]
    fn names_decide_where_numbers_were_given_to_others() {
        let held = catalog(&[(1, "a", 11, FORM), (2, "b", 12, FORM)]);
        let now = catalog(&[(1, "b", 11, FORM), (2, "a", 12, ["name", "id"])]);
        let (tables, dropped) = renewed(&held, &now);
        assert_eq!(tables, [(1, "a".into(), 12), (2, "b".into(), 11)]);
        assert!(dropped.is_empty());
    }

    #[test]
    fn a_table_whose_number_another_one_has_now_is_held_no_longer() {
        let other = ["id", "title"];
        let held = catalog(&[
            (1, "a", 11, FORM),
            (2, "b", 12, FORM),
            (3, "gone", 13, FORM),
        ]);
        let now = catalog(&[(1, "a", 12, FORM), (2, "b", 14, other)]);
        let (tables, dropped) = renewed(&held, &now);
        assert_eq!(tables, [(1, "a".into(), 12), (3, "gone".into(), 13)]);
        assert_eq!(dropped, [2]);
    }
}
