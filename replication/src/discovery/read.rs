//! Queries on the system catalogs.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::{GenericClient, Row};

use crate::Result;
use crate::advice::Advice;
use crate::decode::ElementKind;
use crate::discovery::{Heap, Origin, Reading, Selection, Size, Source};

/// A published table with everything the catalogs say about it.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    /// `relreplident`: d, n, f or i.
    pub(super) identity: String,
    pub(super) columns: Vec<PublishedColumn>,
    pub(super) indexes: Vec<PublishedIndex>,
    pub(super) source: Source,
    pub(super) heap: Heap,
}

#[derive(Debug)]
pub(super) struct PublishedColumn {
    pub(super) name: String,
    pub(super) attnum: i16,
    pub(super) type_oid: u32,
    /// `typname`, or the element's with `[]` for each dimension.
    pub(super) type_name: String,
    pub(super) kind: ElementKind,
    pub(super) not_null: bool,
    /// What rows older than the column have in it, as text.
    pub(super) missing: Option<String>,
}

#[derive(Debug)]
pub(super) struct PublishedIndex {
    pub(super) name: String,
    pub(super) btree: bool,
    pub(super) unique: bool,
    pub(super) primary: bool,
    pub(super) replica_identity: bool,
    pub(super) immediate: bool,
    /// attnum and whether descending; attnum 0 is an expression.
    pub(super) columns: Vec<(i16, bool)>,
}

/// Columns and conditions of the query on the tables; the relation comes in between.
const TABLES: [&str; 2] = [
    "
    SELECT c.oid, n.nspname, c.relname, c.relreplident::text, c.relkind::text,
           p.attnames::text[], p.rowfilter, p.pubname::text,
           greatest(c.reltuples, 0)::bigint, c.relnatts, c.relfilenode, c.relispartition
    FROM ",
    " p
    JOIN pg_namespace n ON n.nspname = p.schemaname
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
    WHERE p.pubname = ANY ($1)
    ORDER BY n.nspname, c.relname, p.pubname",
];

/// The functions wait for locks on the table, which is why the query above does without them.
const SIZES: &str = "
    SELECT c.oid,
           coalesce(CASE WHEN c.relkind = 'r' THEN pg_relation_size(c.oid) END, 0)
             / current_setting('block_size')::bigint,
           coalesce(pg_table_size(c.oid), 0)
    FROM pg_class c
    WHERE c.oid = ANY ($1)";

const COLUMNS: &str = "
    SELECT a.attrelid, a.attname, a.attnum, t.oid, t.typname, t.typtype::text,
           e.typname, greatest(a.attndims::int, 1), a.attnotnull,
           CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] END
    FROM pg_attribute a
    JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_type e ON e.typarray = t.oid
    WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attrelid, a.attnum";

const INDEXES: &str = "
    SELECT x.indrelid, i.relname, m.amname = 'btree', x.indisunique, x.indisprimary,
           x.indisreplident, x.indimmediate, x.indkey::int2[], x.indoption::int2[],
           x.indnkeyatts::int
    FROM pg_index x
    JOIN pg_class i ON i.oid = x.indexrelid
    JOIN pg_am m ON m.oid = i.relam
    WHERE x.indrelid = ANY ($1) AND x.indisvalid AND x.indpred IS NULL AND x.indexprs IS NULL
    ORDER BY x.indrelid, i.relname";

/// What was made as a partition became one in the transaction that made its type. A file that is
/// its table's first has its number. `pg_partition_tree` would not do, for it sees the newest state
/// whatever snapshot the transaction has.
const ORIGINS: &str = "
    WITH RECURSIVE tree (root, relid, attached) AS (
      SELECT i.inhparent, i.inhrelid, i.xmin
      FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent
      WHERE i.inhparent = ANY ($1) AND p.relkind = 'p' AND NOT i.inhdetachpending
      UNION ALL
      SELECT t.root, i.inhrelid, i.xmin
      FROM tree t JOIN pg_inherits i ON i.inhparent = t.relid
      JOIN pg_class p ON p.oid = i.inhparent
      WHERE p.relkind = 'p' AND NOT i.inhdetachpending
    )
    SELECT t.root, t.relid, c.relfilenode, t.attached::text::oid,
           coalesce(t.attached = y.xmin AND c.relfilenode = c.oid, false)
    FROM tree t
    JOIN pg_class c ON c.oid = t.relid
    LEFT JOIN pg_type y ON y.typrelid = t.relid
    WHERE c.relkind <> 'p'
    UNION ALL
    SELECT e.prrelid, e.oid, 0::oid, 0::oid, false
    FROM pg_publication_rel e JOIN pg_publication p ON p.oid = e.prpubid
    WHERE e.prrelid = ANY ($1) AND p.pubname = ANY ($2)
    ORDER BY 1, 2";

/// Types with modifiers, also in arrays, and labels.
const READINGS: &str = "
    SELECT a.attrelid, a.attnum::int::oid, (a.atttypmod::bigint & 4294967295)::oid, c.relfilenode
    FROM pg_attribute a
    JOIN pg_class c ON c.oid = a.attrelid
    JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped AND t.typmodin <> 0
    UNION ALL
    SELECT a.attrelid, e.oid, (hashtext(e.enumlabel::text)::bigint & 4294967295)::oid, 0::oid
    FROM pg_attribute a
    JOIN pg_type t ON t.oid = a.atttypid
    JOIN pg_enum e ON e.enumtypid IN (t.oid, t.typelem)
    WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY 1, 2";

/// Everything the publications publish, by schema and name.
pub(super) async fn published(
    client: &impl GenericClient,
    selection: &Selection,
) -> Result<Vec<Published>> {
    let tables = tables(client, selection).await?;
    let oids: Vec<u32> = tables.values().map(|(table, _)| table.oid).collect();
    let mut columns = columns(client, &oids).await?;
    let mut indexes = indexes(client, &oids).await?;
    let mut origins = origins(client, &oids, selection).await?;
    let mut readings = readings(client, &oids).await?;
    Ok(tables
        .into_values()
        .map(|(mut table, names)| {
            table.columns = columns.remove(&table.oid).unwrap_or_default();
            for column in &mut table.columns {
                table.heap.live.push(column.attnum);
                let missing = column.missing.take();
                table
                    .heap
                    .missing
                    .extend(missing.map(|text| (column.attnum, text)));
            }
            table.columns.retain(|column| names.contains(&column.name));
            table.indexes = indexes.remove(&table.oid).unwrap_or_default();
            table.heap.readings = readings.remove(&table.oid).unwrap_or_default();
            table.heap.origins = origins.remove(&table.oid).unwrap_or_default();
            table
        })
        .collect())
}

/// The publications that do not exist.
pub(super) async fn absent(
    client: &impl GenericClient,
    selection: &Selection,
) -> Result<Vec<String>> {
    let query = "SELECT name FROM unnest($1::text[]) AS name
                 WHERE name IS DISTINCT FROM $2 AND NOT EXISTS (
                   SELECT 1 FROM pg_publication WHERE pubname = name)";
    let (names, pending) = (&selection.publications, &selection.pending);
    let rows = client.query(query, &[names, pending]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

type ByName = BTreeMap<(String, String), (Published, Vec<String>)>;

/// The tables with the names of their published columns.
async fn tables(client: &impl GenericClient, selection: &Selection) -> Result<ByName> {
    let mut tables = ByName::new();
    let mut unfiltered = Vec::new();
    let query = TABLES.join(&selection.relation());
    for row in client.query(&query, &[&selection.publications]).await? {
        let (table, names) = table(&row)?;
        let filter: Option<String> = row.try_get(6)?;
        let publication: String = row.try_get(7)?;
        let at = (table.schema.clone(), table.name.clone());
        let entry = tables
            .entry(at.clone())
            .or_insert_with(|| (table, names.clone()));
        if entry.1 != names {
            let found = format!(
                "table {:?} is in several publications, and {publication:?} publishes other \
                 columns of it than the rest",
                at.1
            );
            return Err(Advice::new(found, "give them the same column list").into());
        }
        match filter {
            Some(filter) => entry.0.source.filters.push(filter),
            // One publication without a filter publishes every row.
            None => unfiltered.push(at),
        }
    }
    for at in unfiltered {
        if let Some((table, _)) = tables.get_mut(&at) {
            table.source.filters.clear();
        }
    }
    Ok(tables)
}

fn table(row: &Row) -> Result<(Published, Vec<String>)> {
    let kind: String = row.try_get(4)?;
    let table = Published {
        oid: row.try_get(0)?,
        schema: row.try_get(1)?,
        name: row.try_get(2)?,
        identity: row.try_get(3)?,
        columns: Vec::new(),
        indexes: Vec::new(),
        source: Source {
            partitioned: kind == "p",
            filters: Vec::new(),
            size: Size::default(),
            rows: count(row, 8)?,
            filenode: row.try_get(10)?,
        },
        heap: Heap {
            columns: row.try_get(9)?,
            filenode: row.try_get(10)?,
            in_tree: kind == "p" || row.try_get(11)?,
            ..Heap::default()
        },
    };
    let names: Option<Vec<String>> = row.try_get(5)?;
    Ok((table, names.unwrap_or_default()))
}

fn count(row: &Row, at: usize) -> Result<u64> {
    let count: i64 = row.try_get(at)?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Sizes of tables. Waits for whoever holds one of them for itself alone.
pub(super) async fn sizes(client: &impl GenericClient, oids: &[u32]) -> Result<HashMap<u32, Size>> {
    let mut sizes = HashMap::with_capacity(oids.len());
    for row in client.query(SIZES, &[&oids]).await? {
        let (blocks, bytes) = (count(&row, 1)?, count(&row, 2)?);
        sizes.insert(row.try_get(0)?, Size { blocks, bytes });
    }
    Ok(sizes)
}

async fn columns(
    client: &impl GenericClient,
    oids: &[u32],
) -> Result<HashMap<u32, Vec<PublishedColumn>>> {
    let mut columns = HashMap::<u32, Vec<_>>::new();
    for row in client.query(COLUMNS, &[&oids]).await? {
        let own_name: String = row.try_get(4)?;
        let element: Option<String> = row.try_get(6)?;
        let dimensions = usize::try_from(row.try_get::<_, i32>(7)?).unwrap_or(1);
        let kind = match (&element, row.try_get::<_, String>(5)?.as_str()) {
            (Some(_), _) => ElementKind::Array,
            (None, "e") => ElementKind::Enum,
            (None, "b") => ElementKind::Base,
            _ => ElementKind::Other,
        };
        let column = PublishedColumn {
            name: row.try_get(1)?,
            attnum: row.try_get(2)?,
            type_oid: row.try_get(3)?,
            type_name: element.map_or(own_name, |name| name + &"[]".repeat(dimensions)),
            kind,
            not_null: row.try_get(8)?,
            missing: row.try_get(9)?,
        };
        columns.entry(row.try_get(0)?).or_default().push(column);
    }
    Ok(columns)
}

/// What the rows of tables come through.
async fn origins(
    client: &impl GenericClient,
    oids: &[u32],
    selection: &Selection,
) -> Result<HashMap<u32, Vec<Origin>>> {
    let mut origins = HashMap::<u32, Vec<_>>::new();
    let publications = &selection.publications;
    for row in client.query(ORIGINS, &[&oids, publications]).await? {
        let origin = Origin {
            oid: row.try_get(1)?,
            filenode: row.try_get(2)?,
            attached: row.try_get(3)?,
            made: row.try_get(4)?,
        };
        origins.entry(row.try_get(0)?).or_default().push(origin);
    }
    Ok(origins)
}

/// How the values of tables read.
async fn readings(client: &impl GenericClient, oids: &[u32]) -> Result<HashMap<u32, Vec<Reading>>> {
    let mut readings = HashMap::<u32, Vec<_>>::new();
    for row in client.query(READINGS, &[&oids]).await? {
        let reading = [row.try_get(1)?, row.try_get(2)?, row.try_get(3)?];
        readings.entry(row.try_get(0)?).or_default().push(reading);
    }
    Ok(readings)
}

async fn indexes(
    client: &impl GenericClient,
    oids: &[u32],
) -> Result<HashMap<u32, Vec<PublishedIndex>>> {
    let mut indexes = HashMap::<u32, Vec<_>>::new();
    for row in client.query(INDEXES, &[&oids]).await? {
        let attnums: Vec<i16> = row.try_get(7)?;
        let options: Vec<i16> = row.try_get(8)?;
        let keys = usize::try_from(row.try_get::<_, i32>(9)?).unwrap_or(0);
        let descending = |at: usize| options.get(at).is_some_and(|option| option & 1 == 1);
        let index = PublishedIndex {
            name: row.try_get(1)?,
            btree: row.try_get(2)?,
            unique: row.try_get(3)?,
            primary: row.try_get(4)?,
            replica_identity: row.try_get(5)?,
            immediate: row.try_get(6)?,
            columns: attnums
                .iter()
                .take(keys)
                .enumerate()
                .map(|(at, attnum)| (*attnum, descending(at)))
                .collect(),
        };
        indexes.entry(row.try_get(0)?).or_default().push(index);
    }
    Ok(indexes)
}
