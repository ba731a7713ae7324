//! What there is to change, as PostgreSQL's catalogs say within a transaction.

use tokio_postgres::Client;

/// A table and what statements about it have to know.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) partitioned: bool,
    pub(super) is_partition: bool,
    /// Whether rows can be changed and deleted while the table is published.
    pub(super) changeable: bool,
    pub(super) columns: Vec<Column>,
    /// Names of unique constraints and of the primary key.
    pub(super) constraints: Vec<String>,
    /// Names of indexes that are of no constraint, and of unique ones of any kind.
    pub(super) indexes: Vec<String>,
    pub(super) unique: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    /// As `format_type` says it.
    pub(super) of: String,
    /// Whether only PostgreSQL writes it.
    pub(super) generated: bool,
    pub(super) not_null: bool,
    /// Whether it is in the primary key.
    pub(super) key: bool,
}

impl Table {
    pub(super) fn qualified(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

const TABLES: &str = "
    SELECT n.nspname, c.relname, c.relkind = 'p', c.relispartition, c.relreplident = 'f'
             OR c.relreplident = 'd' AND EXISTS (SELECT FROM pg_index x WHERE indrelid = c.oid AND indisprimary)
             OR EXISTS (SELECT FROM pg_index x WHERE indrelid = c.oid AND indisreplident),
           coalesce((SELECT array_agg(conname::text ORDER BY conname) FROM pg_constraint k
             WHERE conrelid = c.oid AND contype IN ('p', 'u')), '{}'),
           coalesce((SELECT array_agg(i.relname::text ORDER BY i.relname) FROM pg_index x
             JOIN pg_class i ON i.oid = indexrelid WHERE indrelid = c.oid AND NOT EXISTS
               (SELECT FROM pg_constraint k WHERE conindid = indexrelid)), '{}'),
           coalesce((SELECT array_agg(i.relname::text ORDER BY i.relname) FROM pg_index x
             JOIN pg_class i ON i.oid = indexrelid WHERE indrelid = c.oid AND indisunique), '{}'),
           c.oid
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname IN ('public', 'apart') AND c.relkind IN ('r', 'p')
    ORDER BY 1, 2";

const COLUMNS: &str = "
    SELECT a.attname, format_type(a.atttypid, a.atttypmod),
           a.attgenerated <> '' OR a.attidentity = 'a', a.attnotnull,
           EXISTS (SELECT FROM pg_index x WHERE indrelid = a.attrelid AND indisprimary
                   AND a.attnum = ANY (indkey))
    FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum";

/// All of them, in an order that a seed brings about again.
pub(super) async fn tables(client: &Client) -> Vec<Table> {
    let mut tables = Vec::new();
    // Another transaction may drop what was just listed.
    for row in client.query(TABLES, &[]).await.unwrap_or_default() {
        let oid: u32 = row.get(8);
        let columns = client.query(COLUMNS, &[&oid]).await.unwrap_or_default();
        let columns = columns.iter().map(|column| Column {
            name: column.get(0),
            of: column.get(1),
            generated: column.get(2),
            not_null: column.get(3),
            key: column.get(4),
        });
        tables.push(Table {
            schema: row.get(0),
            name: row.get(1),
            partitioned: row.get(2),
            is_partition: row.get(3),
            changeable: row.get(4),
            columns: columns.collect(),
            constraints: row.get(5),
            indexes: row.get(6),
            unique: row.get(7),
        });
    }
    tables
}
