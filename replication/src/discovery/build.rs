//! Decides what of a published table is held, by which key, with which indexes.

use std::collections::HashMap;

use kelvin_protocol::{Direction, ValueType};
use kelvin_storage::{Catalog, Column, Index, IndexId, Table, TableId, UnsyncedTable};

use super::read::{Published, PublishedColumn, PublishedIndex};
use super::{Discovery, LeftOut, client_name};
use crate::advice::Advice;
use crate::quote::{identifier, qualified};

/// Builds the catalog. Tables are numbered from 1 by schema and name.
pub(super) fn build(published: Vec<Published>) -> Discovery {
    let (mut tables, mut sources, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    let mut heaps = HashMap::new();
    for table in published {
        let (source, oid) = (table.source.clone(), table.oid);
        let heap = table.heap.clone();
        let name = client_name(&table.schema, &table.name);
        match hold(table, &name) {
            Ok(mut table) => {
                table.id = TableId(u32::try_from(tables.len()).unwrap_or(u32::MAX - 1) + 1);
                tables.push(table);
                sources.push(source);
                heaps.insert(oid, heap);
            }
            Err(why) => left_out.push(LeftOut { oid, name, why }),
        }
    }
    let unsynced = left_out.iter().map(|table| UnsyncedTable {
        name: table.name.clone(),
        reason: table.why.to_string(),
    });
    Discovery {
        catalog: Catalog::new(tables, unsynced.collect()),
        sources,
        left_out,
        heaps,
        absent: Vec::new(),
    }
}

/// The table as it is held, or why it is not.
fn hold(table: Published, name: &str) -> Result<Table, Advice> {
    let upstream = qualified(&table.schema, &table.name);
    if !is_plain_name(&table.schema, b"") || !is_plain_name(&table.name, b"") {
        return Err(Advice::new(
            "its name has characters other than letters, digits, _ and -",
            format!("ALTER TABLE {upstream} RENAME TO …, or leave it out of the publication"),
        ));
    }
    if table.identity == "n" {
        return Err(Advice::new(
            "its REPLICA IDENTITY is NOTHING",
            format!("ALTER TABLE {upstream} REPLICA IDENTITY DEFAULT"),
        ));
    }
    let (columns, unsynced_columns) = split(table.columns);
    let indexes: Vec<Mirrored> = table
        .indexes
        .iter()
        .filter_map(|index| mirror(index, &columns))
        .collect();
    let unique_keys = unique_keys(&indexes, &columns);
    let key = choose_key(&table.identity, &table.indexes, &indexes, &unique_keys)
        .map_err(|missing| missing.advice(&upstream))?;
    let mut held = Table {
        id: TableId(0),
        name: name.to_owned(),
        schema: table.schema,
        upstream_name: table.name,
        oid: table.oid,
        columns,
        unsynced_columns,
        key,
        unique_keys,
        indexes: Vec::new(),
    };
    held.indexes = secondary(indexes, &held.key);
    Ok(held)
}

/// Letters, digits, `_`, `-` and what is in `also`, beginning with a letter or `_`.
fn is_plain_name(name: &str, also: &[u8]) -> bool {
    let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let rest =
        |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte) || also.contains(&byte);
    name.bytes().next().is_some_and(first) && name.bytes().all(rest)
}

/// Columns that are held, and the others with the reason.
fn split(columns: Vec<PublishedColumn>) -> (Vec<Column>, Vec<(String, String)>) {
    let (mut held, mut left_out) = (Vec::new(), Vec::new());
    for column in columns {
        if !is_plain_name(&column.name, b".") {
            let reason = "its name has characters other than letters, digits, _, - and .";
            left_out.push((column.name, reason.to_owned()));
            continue;
        }
        match column.kind.value_type(&column.type_name, column.type_oid) {
            Some(value_type) => held.push(Column {
                name: column.name,
                attnum: column.attnum,
                upstream_type: column.type_name,
                type_oid: column.type_oid,
                value_type,
                not_null: column.not_null,
            }),
            None => {
                let reason = format!("its type {} is not supported", column.type_name);
                left_out.push((column.name, reason));
            }
        }
    }
    (held, left_out)
}

/// An upstream index over columns that are held.
struct Mirrored {
    name: String,
    btree: bool,
    unique: bool,
    columns: Vec<(usize, Direction)>,
}

impl Mirrored {
    fn positions(&self) -> Vec<usize> {
        self.columns.iter().map(|(at, _)| *at).collect()
    }
}

fn mirror(index: &PublishedIndex, columns: &[Column]) -> Option<Mirrored> {
    let positions = index.columns.iter().map(|(attnum, descending)| {
        let at = columns.iter().position(|column| column.attnum == *attnum)?;
        Some((
            at,
            if *descending {
                Direction::Desc
            } else {
                Direction::Asc
            },
        ))
    });
    Some(Mirrored {
        name: index.name.clone(),
        btree: index.btree,
        // A deferrable constraint may be broken in the middle of a transaction. A deferrable
        // primary key still is the only key that may be streamed.
        unique: index.unique && (index.immediate || index.primary),
        columns: positions.collect::<Option<_>>()?,
    })
}

/// Keys over non-null columns that are not JSON: shortest first, then by column names.
fn unique_keys(indexes: &[Mirrored], columns: &[Column]) -> Vec<Vec<usize>> {
    let fits = |at: &usize| {
        columns
            .get(*at)
            .is_some_and(|column| column.not_null && column.value_type != ValueType::Json)
    };
    let names = |key: &[usize]| -> Vec<&str> {
        key.iter()
            .filter_map(|at| columns.get(*at).map(|column| column.name.as_str()))
            .collect()
    };
    let mut keys: Vec<_> = indexes
        .iter()
        .filter(|index| index.unique)
        .map(Mirrored::positions)
        .filter(|key| !key.is_empty() && key.iter().all(fits))
        .collect();
    keys.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| names(a).cmp(&names(b))));
    keys.dedup();
    keys
}

/// Why there is no key to hold rows by.
enum NoKey {
    /// No unique index can serve.
    None,
    /// The one of this name would have to, and cannot.
    Unfit(String),
}

impl NoKey {
    fn advice(&self, table: &str) -> Advice {
        match self {
            Self::None => Advice::new(
                "it has no primary key and no unique index over columns that are NOT NULL and of \
                 supported types",
                format!("ALTER TABLE {table} ADD PRIMARY KEY (…)"),
            ),
            Self::Unfit(index) => Advice::new(
                format!(
                    "the columns of its key {} are not all of supported types (a key of JSON \
                     cannot be held either)",
                    identifier(index)
                ),
                format!(
                    "ALTER TABLE {table} REPLICA IDENTITY USING INDEX …, a unique index over \
                     other columns"
                ),
            ),
        }
    }
}

/// The key rows are held by.
///
/// INVARIANT: the stream tells the old values of this key whenever it changes. With the default
/// identity and with that of an index it tells those of one certain key, so that one it must be;
/// only with FULL, or with a table that takes nothing but inserts, is there a choice.
fn choose_key(
    identity: &str,
    published: &[PublishedIndex],
    indexes: &[Mirrored],
    unique_keys: &[Vec<usize>],
) -> Result<Vec<usize>, NoKey> {
    let named = published.iter().find(|index| match identity {
        "d" => index.primary,
        "i" => index.replica_identity,
        _ => false,
    });
    let Some(named) = named else {
        return unique_keys.first().cloned().ok_or(NoKey::None);
    };
    indexes
        .iter()
        .find(|index| index.name == named.name)
        .map(Mirrored::positions)
        .filter(|key| unique_keys.contains(key))
        .ok_or_else(|| NoKey::Unfit(named.name.clone()))
}

/// The ordered indexes to hold beside the key, without duplicates.
fn secondary(indexes: Vec<Mirrored>, key: &[usize]) -> Vec<Index> {
    let mut kept: Vec<Index> = Vec::new();
    for index in indexes.into_iter().filter(|index| index.btree) {
        let is_key = index.columns.iter().map(|(at, _)| at).eq(key)
            && index.columns.iter().all(|(_, way)| *way == Direction::Asc);
        if is_key {
            continue;
        }
        if let Some(twin) = kept.iter_mut().find(|twin| twin.columns == index.columns) {
            twin.unique |= index.unique;
            continue;
        }
        let Ok(number) = u16::try_from(kept.len() + 1) else {
            break;
        };
        kept.push(Index {
            id: IndexId(number),
            name: index.name,
            columns: index.columns,
            unique: index.unique,
        });
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::super::{Heap, Size, Source};
    use super::*;
    use crate::decode::ElementKind;

    fn column(name: &str, attnum: i16, type_name: &str, not_null: bool) -> PublishedColumn {
        PublishedColumn {
            name: name.into(),
            attnum,
            type_oid: 25,
            type_name: type_name.into(),
            kind: if type_name.ends_with("[]") {
                ElementKind::Array
            } else {
                ElementKind::Base
            },
            not_null,
            missing: None,
        }
    }

    fn index(name: &str, unique: bool, columns: &[i16]) -> PublishedIndex {
        PublishedIndex {
            name: name.into(),
            btree: true,
            unique,
            primary: name == "pkey",
            replica_identity: name == "identity",
            immediate: true,
            columns: columns.iter().map(|attnum| (*attnum, false)).collect(),
        }
    }

    fn table(identity: &str, indexes: Vec<PublishedIndex>) -> Published {
        Published {
            oid: 1,
            schema: "public".into(),
            name: "t".into(),
            identity: identity.into(),
            heap: Heap::default(),
            columns: vec![
                column("a", 1, "int4", true),
                column("b", 2, "text", true),
                column("c", 3, "point", true),
                column("d", 5, "int4[]", true),
                column("e", 6, "int4", false),
            ],
            indexes,
            source: Source {
                partitioned: false,
                filters: Vec::new(),
                size: Size::default(),
                rows: 0,
                filenode: 0,
            },
        }
    }

    fn held(published: Published) -> Table {
        let discovery = build(vec![published]);
        let table = discovery.catalog.table("t").expect("held");
        (**table).clone()
    }

    #[test]
    fn the_key_is_the_one_whose_old_values_are_streamed() {
        let indexes = || vec![index("pkey", true, &[1, 2]), index("u", true, &[2])];
        let by_default = held(table("d", indexes()));
        assert_eq!(by_default.key, [0, 1]);
        assert_eq!(by_default.unique_keys, [vec![1], vec![0, 1]]);
        assert_eq!(held(table("f", indexes())).key, [1]);
    }

    #[test]
    fn tables_without_a_usable_key_are_left_out_with_a_reason() {
        let unusable = [
            ("d", vec![]),
            ("d", vec![index("nullable", true, &[6])]),
            ("d", vec![index("pkey", true, &[3]), index("u", true, &[1])]),
            ("d", vec![index("pkey", true, &[5])]),
            ("n", vec![index("pkey", true, &[1])]),
        ];
        for (identity, indexes) in unusable {
            let discovery = build(vec![table(identity, indexes)]);
            assert_eq!(discovery.catalog.tables().len(), 0);
            assert_eq!(discovery.catalog.unsynced().len(), 1);
        }
    }

    #[test]
    fn odd_names_leave_out_a_column_or_a_table_and_nothing_else() {
        let mut odd = table("d", vec![index("pkey", true, &[1])]);
        odd.columns.push(column("sp ace", 9, "text", false));
        let table_of_odd_column = held(odd);
        assert_eq!(table_of_odd_column.unsynced_columns.len(), 2);
        let mut odd = table("d", vec![index("pkey", true, &[1])]);
        odd.name = "sp ace".into();
        assert_eq!(build(vec![odd]).catalog.unsynced().len(), 1);
    }

    #[test]
    fn indexes_are_mirrored_once_and_never_over_missing_columns() {
        let mut twin = index("twin", true, &[6]);
        twin.columns = vec![(6, true)];
        let held = held(table(
            "d",
            vec![
                index("pkey", true, &[1]),
                index("e1", false, &[6]),
                index("e2", true, &[6]),
                twin,
                index("over_point", false, &[3]),
                index("key_again", false, &[1]),
            ],
        ));
        let shown: Vec<_> = held
            .indexes
            .iter()
            .map(|index| (index.id.0, index.name.as_str(), index.unique))
            .collect();
        assert_eq!(shown, [(1, "e1", true), (2, "twin", true)]);
    }
}
