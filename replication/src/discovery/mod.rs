//! What the publications publish → the replica's catalog.

mod build;
mod compare;
mod read;
mod selection;

use std::collections::{BTreeMap, HashMap};

use kelvin_storage::{Catalog, Table, TableId};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_postgres::GenericClient;

pub(crate) use compare::{
    ORIGINS, READINGS, ROW_FILTERS, SchemaDifference, difference, made_anew, table_difference,
};

pub(crate) use selection::Selection;

use crate::Result;
use crate::advice::Advice;

/// The published tables, as the upstream has them now (or in the transaction's snapshot).
pub(crate) struct Discovery {
    pub(crate) catalog: Catalog,
    /// For each table of the catalog, in its order, how it is copied.
    pub(crate) sources: Vec<Source>,
    /// The tables that are not held.
    pub(crate) left_out: Vec<LeftOut>,
    /// By `pg_class.oid`, how the tables of the catalog are stored.
    pub(crate) heaps: HashMap<u32, Heap>,
    /// The publications that do not exist, but for one that is still to be created.
    pub(crate) absent: Vec<String>,
}

/// What tells where the values in a table's columns come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heap {
    /// `relnatts`: the highest `attnum` that was ever given.
    pub(crate) columns: i16,
    /// `relfilenode`: another one after every rewrite; zero where there is no file, as of a
    /// partitioned table.
    pub(crate) filenode: u32,
    /// Whether it is partitioned, or a partition.
    pub(crate) in_tree: bool,
    /// The `attnum`s of the columns there are, published or not.
    pub(crate) live: Vec<i16>,
    /// By `attnum`, what rows older than the column have in it, as text.
    pub(crate) missing: Vec<(i16, String)>,
    /// What its rows come through.
    pub(crate) origins: Vec<Origin>,
    /// How its values read.
    pub(crate) readings: Vec<Reading>,
}

/// What published rows come through: a partition that holds them, or an entry of the table in a
/// publication. Of what happens to the rows when it goes or comes, the stream tells nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) oid: u32,
    /// `relfilenode` of a partition; another one after TRUNCATE, which the stream tells only of
    /// whole tables.
    pub(crate) filenode: u32,
    /// The transaction that attached a partition, which tells one that was away meanwhile.
    pub(crate) attached: u32,
    /// Whether it was made as a partition, and so came without rows, and has not been emptied
    /// since.
    pub(crate) made: bool,
}

/// An [`Origin`] as it is written down.
pub(crate) type OriginId = [u32; 3];

/// How values read that are stored already: the modifier of a column's type by its `attnum` and the
/// table's `relfilenode`, or the hash of an enum's label by its `pg_enum.oid`. Of values that read
/// otherwise afterwards the stream tells nothing.
pub(crate) type Reading = [u32; 3];

impl Origin {
    pub(crate) fn id(&self) -> OriginId {
        [self.oid, self.filenode, self.attached]
    }
}

/// A published table that is not held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(crate) oid: u32,
    /// Name as clients would say it.
    pub(crate) name: String,
    pub(crate) why: Advice,
}

impl Discovery {
    /// Finds out how large the tables are, which a copy is divided by. Waits for whoever holds one
    /// of them for itself alone.
    pub(crate) async fn measure(&mut self, client: &impl GenericClient) -> Result<()> {
        let tables = self.catalog.tables();
        let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
        let sizes = read::sizes(client, &oids).await?;
        for (oid, source) in oids.iter().zip(&mut self.sources) {
            source.size = sizes.get(oid).copied().unwrap_or_default();
        }
        Ok(())
    }

    /// Says which rows are published, as far as the catalog does not: an object of the tables'
    /// names and the conditions of which a row must meet one.
    pub(crate) fn row_filters(&self) -> String {
        let tables = self.catalog.tables().iter().zip(&self.sources);
        let filtered: BTreeMap<_, _> = tables
            .filter(|(_, source)| !source.filters.is_empty())
            .map(|(table, source)| (&table.name, &source.filters))
            .collect();
        serde_json::to_string(&filtered).unwrap_or_default()
    }

    /// The same but for these tables.
    pub(crate) fn without(mut self, tables: &BTreeMap<TableId, String>) -> Self {
        let Self {
            catalog, sources, ..
        } = self;
        let gone = |table: &Table| tables.contains_key(&table.id);
        let all = catalog.tables().iter().zip(sources);
        let (stay, sources): (Vec<_>, Vec<_>) = all
            .filter(|(table, _)| !gone(table))
            .map(|(table, source)| ((**table).clone(), source))
            .unzip();
        for table in catalog.tables().iter().filter(|table| gone(table)) {
            self.heaps.remove(&table.oid);
        }
        Self {
            catalog: Catalog::new(stay, catalog.unsynced().to_vec()),
            sources,
            left_out: self.left_out,
            heaps: self.heaps,
            absent: self.absent,
        }
    }

    /// Says what rows come through: an object of the tables' names and the [`OriginId`]s.
    pub(crate) fn origins(&self) -> String {
        let tables = self.catalog.tables().iter();
        let origins = tables.filter_map(|table| {
            let heap = self.heaps.get(&table.oid)?;
            let origins: Vec<OriginId> = heap.origins.iter().map(Origin::id).collect();
            (!origins.is_empty()).then_some((&table.name, origins))
        });
        let origins: BTreeMap<_, _> = origins.collect();
        serde_json::to_string(&origins).unwrap_or_default()
    }

    /// Says how values read: an object of the tables' names and the readings.
    pub(crate) fn readings(&self) -> String {
        let tables = self.catalog.tables().iter();
        let readings = tables.filter_map(|table| {
            let readings = &self.heaps.get(&table.oid)?.readings;
            (!readings.is_empty()).then_some((&table.name, readings))
        });
        let readings: BTreeMap<_, _> = readings.collect();
        serde_json::to_string(&readings).unwrap_or_default()
    }
}

/// Reads what [`Discovery::row_filters`], [`Discovery::origins`] or [`Discovery::readings`] wrote.
/// What cannot be read is that of no table at all.
pub(crate) fn read_detail<T: DeserializeOwned>(text: &str) -> HashMap<String, Vec<T>> {
    serde_json::from_str(text).unwrap_or_default()
}

/// Such a detail with what `now` says of one table in place of what it said.
pub(crate) fn amend_detail(detail: &str, table: &str, now: &str) -> String {
    let read = |text| serde_json::from_str::<BTreeMap<String, Value>>(text).unwrap_or_default();
    let mut amended = read(detail);
    amended.remove(table);
    amended.extend(read(now));
    serde_json::to_string(&amended).unwrap_or_default()
}

/// What the copy of a table has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// Whether rows are in partitions.
    pub(crate) partitioned: bool,
    /// Conditions of which a row must meet one; all rows where empty.
    pub(crate) filters: Vec<String>,
    /// Nothing until it is [measured](Discovery::measure).
    pub(crate) size: Size,
    /// The planner's estimate of the number of rows.
    pub(crate) rows: u64,
    /// `relfilenode`; zero where there is no file.
    pub(crate) filenode: u32,
}

/// What a table takes on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    /// Blocks of the main fork.
    pub(crate) blocks: u64,
    /// Bytes including TOAST.
    pub(crate) bytes: u64,
}

/// Reads the catalog of PostgreSQL, as the transaction's snapshot has it.
///
/// Takes no lock on a table, for a migration may hold one for hours; but where a row filter is
/// read, from PostgreSQL 17 on.
pub(crate) async fn discover(
    client: &impl GenericClient,
    publications: &[String],
) -> Result<Discovery> {
    discover_selected(client, &Selection::of(publications)).await
}

/// As [`discover`], of tables that may be published only later.
pub(crate) async fn discover_selected(
    client: &impl GenericClient,
    selection: &Selection,
) -> Result<Discovery> {
    let published = read::published(client, selection).await?;
    let absent = read::absent(client, selection).await?;
    Ok(Discovery {
        absent,
        ..build::build(published)
    })
}

/// Name of a table as clients say it.
pub(crate) fn client_name(schema: &str, name: &str) -> String {
    if schema == "public" {
        name.to_owned()
    } else {
        format!("{schema}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Cluster;
    use crate::prepare::import;

    /// What is published, by name, with columns, conditions and what rows come through.
    fn told(discovery: &Discovery) -> Vec<String> {
        let tables = discovery.catalog.tables().iter();
        let told = tables.zip(&discovery.sources).map(|(table, source)| {
            let columns = table.columns.iter().map(|column| column.name.as_str());
            let columns: Vec<_> = columns.collect();
            let origins = discovery.heaps[&table.oid].origins.len();
            let filters = &source.filters;
            format!("{} {columns:?} {filters:?} {origins}", table.name)
        });
        told.collect()
    }

    #[tokio::test]
    async fn a_snapshot_is_described_as_it_is_whatever_changed_since() {
        let cluster = Cluster::start();
        let setup = "CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id);
            CREATE TABLE t0 PARTITION OF t FOR VALUES FROM (0) TO (10);
            CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (10) TO (20);
            CREATE TABLE away (id int PRIMARY KEY);
            CREATE TABLE filtered (id int PRIMARY KEY, a int, b int);
            CREATE SCHEMA apart; CREATE TABLE apart.u (id int PRIMARY KEY);
            CREATE PUBLICATION p FOR TABLE filtered (id, a) WHERE (id > 1);
            CREATE PUBLICATION s FOR TABLES IN SCHEMA apart;
            CREATE PUBLICATION r FOR TABLE t, away WITH (publish_via_partition_root)";
        cluster.sql(setup).await;
        let names = ["p", "r", "s"].map(str::to_owned);
        let mut holder = cluster.client().await;
        let holder = holder.build_transaction();
        let holder = holder.isolation_level(tokio_postgres::IsolationLevel::RepeatableRead);
        let holder = holder.start().await.unwrap();
        let exported = holder.query_one("SELECT pg_export_snapshot()", &[]).await;
        let snapshot: String = exported.unwrap().get(0);
        let before = told(&discover(&holder, &names).await.unwrap());
        assert_eq!(
            before,
            [
                "apart.u [\"id\"] [] 0",
                "away [\"id\"] [] 1",
                "filtered [\"id\", \"a\"] [\"(id > 1)\"] 1",
                "t [\"id\"] [] 3",
            ]
        );
        let changes = "ALTER TABLE t DETACH PARTITION t1;
            ALTER PUBLICATION r ADD TABLE t1; ALTER PUBLICATION r DROP TABLE away;
            ALTER PUBLICATION p SET TABLE filtered (id); DROP PUBLICATION s";
        cluster.sql(changes).await;
        let mut client = cluster.client().await;
        let transaction = import(&mut client, &snapshot).await.unwrap();
        let described = discover(&transaction, &names).await.unwrap();
        assert_eq!(told(&described), before);
        drop(transaction);
        let now = told(&discover(&client, &names).await.unwrap());
        assert_eq!(
            now,
            [
                "filtered [\"id\"] [] 1",
                "t [\"id\"] [] 2",
                "t1 [\"id\"] [] 1",
            ]
        );
    }

    #[tokio::test]
    async fn what_is_published_is_what_postgresql_says_is() {
        let cluster = Cluster::start();
        let setup = "CREATE SCHEMA apart; CREATE SCHEMA other;
            CREATE TABLE plain (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id) STORED);
            CREATE TABLE apart.one (id int PRIMARY KEY, gone int, a text);
            ALTER TABLE apart.one DROP gone;
            CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
            CREATE TABLE child () INHERITS (plain);
            CREATE TABLE root (id int, k int, PRIMARY KEY (id, k)) PARTITION BY RANGE (id);
            CREATE TABLE apart.middle PARTITION OF root FOR VALUES FROM (0) TO (10)
              PARTITION BY RANGE (k);
            CREATE TABLE other.leaf PARTITION OF apart.middle FOR VALUES FROM (0) TO (5);
            CREATE TABLE leaf2 PARTITION OF apart.middle FOR VALUES FROM (5) TO (9);
            CREATE TABLE leaf3 PARTITION OF root FOR VALUES FROM (20) TO (30);
            CREATE TABLE empty (id int PRIMARY KEY) PARTITION BY RANGE (id);
            CREATE VIEW shown AS SELECT * FROM plain;
            CREATE PUBLICATION every FOR ALL TABLES;
            CREATE PUBLICATION every_root FOR ALL TABLES WITH (publish_via_partition_root);
            CREATE PUBLICATION here FOR TABLES IN SCHEMA public;
            CREATE PUBLICATION here_root FOR TABLES IN SCHEMA public, apart
              WITH (publish_via_partition_root);
            CREATE PUBLICATION apart_root FOR TABLES IN SCHEMA apart, TABLE root
              WITH (publish_via_partition_root);
            CREATE PUBLICATION apart_leaf FOR TABLES IN SCHEMA apart, TABLE plain WHERE (id > 3);
            CREATE PUBLICATION listed FOR TABLE plain (id) WHERE (id < 9), apart.middle, leaf3;
            CREATE PUBLICATION listed_root FOR TABLE root WHERE (id > 5), other.leaf (id, k), empty
              WITH (publish_via_partition_root)";
        cluster.sql(setup).await;
        let client = cluster.client().await;
        let rows = async |relation: &str| -> Vec<String> {
            let query = format!(
                "SELECT format('%s %s.%s %s %s', pubname, schemaname, tablename,
                        array_remove(attnames, 'g'), rowfilter)
                 FROM {relation} p WHERE schemaname <> 'information_schema' ORDER BY 1"
            );
            let rows = client.query(&query, &[]).await.unwrap();
            rows.iter().map(|row| row.get(0)).collect()
        };
        let ours = rows(&Selection::of(&[]).relation()).await;
        assert_eq!(ours, rows("pg_publication_tables").await);
        assert!(ours.len() > 30, "{ours:?}");
    }
}
