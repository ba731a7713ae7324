//! How the replica's tables follow a change of the upstream's schema without being copied again.
//!
//! A relation message says how the rows behind it look, but neither which column is which nor what
//! older rows have in a new one. A survey of the catalogs says both, but may have been made later
//! than the message was written. Together they tell the table's form at the message, or else that
//! it cannot be told; then the table is copied anew, beside the stream.

use std::collections::{BTreeMap, HashMap};

use kelvin_protocol::Value;
use kelvin_storage::{Alteration, Catalog, Column, SchemaChange, Table};

use super::pgoutput::{Relation, RelationColumn};
use crate::backfill::Outstanding;
use crate::decode::Decoder;
use crate::discovery::{Discovery, Origin, OriginId, Reading, client_name};

/// How a table was stored when its columns were those of the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    columns: i16,
    filenode: u32,
    /// The conditions of which its rows were held to meet one.
    filters: Vec<String>,
    /// What its rows came through; `None` where that is not known.
    origins: Option<Vec<OriginId>>,
    /// How its values read, as far as that is known.
    readings: Vec<Reading>,
}

impl Known {
    /// Of a table whose columns may be any.
    pub(crate) fn of_rows(
        filters: Vec<String>,
        origins: Option<Vec<OriginId>>,
        readings: Vec<Reading>,
    ) -> Self {
        Self {
            columns: i16::MAX,
            filenode: 0,
            filters,
            origins,
            readings,
        }
    }

    /// With these conditions of its rows, which came through these and read so.
    pub(crate) fn with_rows(
        self,
        filters: Vec<String>,
        origins: Option<Vec<OriginId>>,
        readings: Vec<Reading>,
    ) -> Self {
        Self {
            filters,
            origins: origins.or(self.origins),
            readings,
            ..self
        }
    }
}

/// By `pg_class.oid`, what is known of tables.
pub(crate) type KnownTables = HashMap<u32, Known>;

/// What the stream has told of tables, by `pg_class.oid`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// The highest `attnum` a table had, where it was higher than is known otherwise.
    pub(crate) seen: HashMap<u32, i16>,
    /// Tables whose last description was that of the form they are held in, with the number of
    /// surveys begun until then.
    pub(crate) described: HashMap<u32, u64>,
}

/// What `discovery` teaches about its tables, all of which the replica holds in the same form.
pub(crate) fn known(discovery: &Discovery) -> KnownTables {
    let tables = discovery.catalog.tables().iter().zip(&discovery.sources);
    let known = tables.filter_map(|(table, source)| {
        let heap = discovery.heaps.get(&table.oid)?;
        let known = Known {
            columns: heap.columns,
            filenode: heap.filenode,
            filters: source.filters.clone(),
            origins: Some(heap.origins.iter().map(Origin::id).collect()),
            readings: heap.readings.clone(),
        };
        Some((table.oid, known))
    });
    known.collect()
}

/// What a survey makes of the tables that are held.
#[derive(Default)]
pub(crate) struct Verdict {
    /// What can be followed, and what is gone.
    pub(crate) changes: Vec<SchemaChange>,
    /// By `pg_class.oid`, the tables that have to be copied.
    pub(crate) copies: Vec<(u32, Outstanding)>,
    /// Those that need not be copied any more.
    pub(crate) spared: Vec<u32>,
    /// Whether the connection has to be made anew, see [`Survey::passes_on`].
    pub(crate) renews: bool,
}

/// The upstream's schema at one moment.
pub(crate) struct Survey {
    /// Grows with each survey of a process.
    pub(crate) number: u64,
    pub(crate) discovery: Discovery,
    /// What was known before.
    pub(crate) known: KnownTables,
    /// Number of the survey it is known from.
    pub(crate) calm: u64,
    /// Schemas whose tables kelvin itself needs.
    pub(crate) internal: [String; 2],
    pub(crate) running: Running,
}

/// Which of the upstream's transactions may have been running at a survey, by `xid8`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    /// All before this one had ended.
    pub(crate) oldest: u64,
    /// This one and all behind it had not begun.
    pub(crate) next: u64,
}

/// Why a table cannot follow.
type Reason = String;

impl Survey {
    fn table(&self, oid: u32) -> Option<&Table> {
        let tables = self.discovery.catalog.tables().iter();
        tables.map(|table| &**table).find(|table| table.oid == oid)
    }

    /// What turns `held` into the tables of the survey. Of the tables that are `outstanding`
    /// already, those whose copy is `hopeless` are held no longer.
    ///
    /// # Errors
    /// Why only a new copy of everything can.
    pub(crate) fn changes(
        &self,
        held: &Catalog,
        told: &Told,
        outstanding: &BTreeMap<u32, Outstanding>,
        hopeless: &dyn Fn(u32) -> bool,
    ) -> Result<Verdict, Reason> {
        // PostgreSQL itself ends the stream for want of a publication only before version 18.
        if let Some(name) = self.discovery.absent.first() {
            return Err(format!("publication {name:?} is gone"));
        }
        let (mut verdict, mut alterations, mut still) =
            (Verdict::default(), Vec::new(), Vec::new());
        for table in held.tables() {
            let Some(now) = self.table(table.oid) else {
                if self.is_internal(table) {
                    return Err(format!("table {:?} is gone", table.name));
                }
                match self.successor(table, held) {
                    Some(other) if !hopeless(other.oid) => still.push(table),
                    _ => verdict.changes.push(SchemaChange::DropTable(table.id)),
                }
                continue;
            };
            if outstanding.contains_key(&table.oid) {
                if hopeless(table.oid) {
                    verdict.changes.push(SchemaChange::DropTable(table.id));
                } else {
                    still.push(table);
                }
                continue;
            }
            match self.alteration(table, now, told) {
                Ok(alteration) => alterations.extend(alteration),
                Err(why) if self.is_internal(table) => return Err(why),
                Err(why) => {
                    let name = table.name.clone();
                    let replaces = None;
                    let known = Outstanding {
                        name,
                        why,
                        replaces,
                    };
                    verdict.copies.push((table.oid, known));
                    still.push(table);
                }
            }
        }
        // A table that stands still gives its name away to one that goes on.
        still.retain(|table| {
            let named = |it: &Alteration| it.table.name == table.name;
            alterations.iter().any(named)
        });
        let given = still.iter().map(|table| SchemaChange::DropTable(table.id));
        verdict.changes.extend(given);
        let alterations = alterations.into_iter().map(SchemaChange::AlterTable);
        verdict.changes.extend(alterations);
        self.judge_new(held, outstanding, &mut verdict);
        verdict.renews = self.passes_on(held, &verdict);
        Ok(verdict)
    }

    /// Whether rows that came as those of a partitioned table come as those of its partitions from
    /// now on, or the other way round.
    ///
    /// PostgreSQL remembers for each connection as whose rows it sends those of a partition, and
    /// does not notice when that changes because a publication by schema has the partitioned table
    /// no longer, or has it now (seen in 15 to 18). What it sends then is of a table that is not
    /// published, and a TRUNCATE it does not send at all.
    fn passes_on(&self, held: &Catalog, verdict: &Verdict) -> bool {
        let is_new = |oid: &u32| verdict.copies.iter().any(|(new, _)| new == oid);
        // At first it is not known what the process before this one saw go.
        let mut all = self.discovery.heaps.iter();
        if self.calm == 0 && all.any(|(oid, heap)| heap.in_tree && is_new(oid)) {
            return true;
        }
        let mut gone = held.tables().iter().map(|table| table.oid);
        gone.any(|gone| {
            if self.table(gone).is_some() {
                return false;
            }
            let known = self
                .known
                .get(&gone)
                .and_then(|known| known.origins.as_ref());
            let mut parts = known.into_iter().flatten();
            let heaps = &self.discovery.heaps;
            let mut whole = heaps.iter().filter(|(oid, _)| is_new(oid));
            parts.any(|[oid, ..]| *oid != gone && is_new(oid))
                || whole.any(|(_, heap)| heap.origins.iter().any(|origin| origin.oid == gone))
        })
    }

    /// Finds the tables that are new, and those that are outstanding in vain.
    fn judge_new(
        &self,
        held: &Catalog,
        outstanding: &BTreeMap<u32, Outstanding>,
        verdict: &mut Verdict,
    ) {
        let gone = outstanding.keys().filter(|oid| self.table(**oid).is_none());
        verdict.spared.extend(gone);
        let is_held = |oid: u32| held.tables().iter().any(|table| table.oid == oid);
        for table in self.discovery.catalog.tables() {
            if is_held(table.oid) || outstanding.contains_key(&table.oid) {
                continue;
            }
            let before = held.table(&table.name);
            let before = before.filter(|before| self.table(before.oid).is_none());
            let known = Outstanding {
                name: table.name.clone(),
                why: format!("table {:?} is new", table.name),
                replaces: before.map(|before| before.id),
            };
            verdict.copies.push((table.oid, known));
        }
    }

    /// Whether kelvin itself needs the table.
    pub(crate) fn is_internal(&self, table: &Table) -> bool {
        self.internal.contains(&table.schema)
    }

    /// The table that has the name of one that is gone, and is not held.
    fn successor(&self, gone: &Table, held: &Catalog) -> Option<&Table> {
        let now = self.discovery.catalog.table(&gone.name)?;
        let is_new = !held.tables().iter().any(|table| table.oid == now.oid);
        is_new.then_some(&**now)
    }

    /// What turns a table that is held into that of the survey, if they differ.
    ///
    /// # Errors
    /// Why that cannot be told.
    fn alteration(
        &self,
        table: &Table,
        now: &Table,
        told: &Told,
    ) -> Result<Option<Alteration>, Reason> {
        let fills = self.fills(table, now, told)?;
        if let Some(what) = self.rows_differ(table.oid) {
            return Err(format!("{what} of table {:?} changed", table.name));
        }
        let now = Table {
            id: table.id,
            ..now.clone()
        };
        Ok((!alike(table, &now)).then(|| alteration(now, fills)))
    }

    /// Why other rows of a table are published than are known to be held, without a change of
    /// theirs in the stream.
    pub(crate) fn rows_differ(&self, oid: u32) -> Option<&'static str> {
        let mut tables = self.discovery.catalog.tables().iter();
        let at = tables.position(|table| table.oid == oid)?;
        let (source, known) = (self.discovery.sources.get(at)?, self.known.get(&oid)?);
        if source.filters != known.filters {
            return Some("the row filter");
        }
        let now = &self.discovery.heaps.get(&oid)?.origins;
        let before = known.origins.as_deref();
        let came = |origin: &Origin| {
            !origin.made && before.is_some_and(|before| !before.contains(&origin.id()))
        };
        let went = |[oid, ..]: &OriginId| !now.iter().any(|origin| origin.oid == *oid);
        let differ = now.iter().any(came) || before.unwrap_or_default().iter().any(went);
        if differ {
            return Some("a partition or the publication");
        }
        let heap = self.discovery.heaps.get(&oid)?;
        // A wider type leaves what is stored as it is, and so the file.
        let otherwise = |[what, how, file]: &Reading| {
            let mut before = known.readings.iter();
            before.any(|[was, which, stored]| {
                was == what && which != how && (file != stored || *file == 0)
            })
        };
        heap.readings.iter().any(otherwise).then_some("a type")
    }

    /// What turns `held` into the table that a relation message describes, which is as old as the
    /// survey or older.
    ///
    /// # Errors
    /// Why that cannot be told.
    pub(crate) fn form(
        &self,
        held: &Table,
        relation: &Relation,
        told: &Told,
    ) -> Result<Alteration, Reason> {
        let name = client_name(&relation.schema, &relation.name);
        let reason = |what: &str| format!("{what} of table {:?} changed", held.name);
        let now = self.table(relation.oid).ok_or_else(|| reason("the form"))?;
        if name != held.name && name != now.name {
            return Err(reason("the name"));
        }
        let mut fills = self.fills(held, now, told)?;
        let mut columns: Vec<Column> = Vec::with_capacity(relation.columns.len());
        for there in &relation.columns {
            let is = |column: &&Column| is_described(column, there);
            // INVARIANT: `fills` has made sure that no name stands for one column then and for
            // another one now.
            match now.columns.iter().chain(&held.columns).find(is) {
                Some(column) => columns.push(column.clone()),
                None if is_unsynced(now, &there.name) || is_unsynced(held, &there.name) => {}
                None => return Err(reason(&format!("column {:?}", there.name))),
            }
        }
        let ascending = columns.is_sorted_by(|a, b| a.attnum < b.attnum);
        let stays = |column: &&Column| now.columns.iter().any(|it| it.attnum == column.attnum);
        let lost = |column: &Column| !columns.iter().any(|it| it.attnum == column.attnum);
        if !ascending || held.columns.iter().filter(stays).any(lost) {
            return Err(reason("the columns"));
        }
        let new = |attnum: i16| !held.columns.iter().any(|it| it.attnum == attnum);
        fills.retain(|(attnum, _)| new(*attnum) && columns.iter().any(|c| c.attnum == *attnum));
        if name == now.name && columns == now.columns {
            let table = Table {
                id: held.id,
                ..now.clone()
            };
            return Ok(alteration(table, fills));
        }
        let table = between(held, now, relation, columns).ok_or_else(|| reason("the key"))?;
        Ok(alteration(table, fills))
    }

    /// What rows written before have in the columns that are new in `now`.
    ///
    /// # Errors
    /// Why `now` does not continue `held`, or the reason why the values cannot be told.
    fn fills(&self, held: &Table, now: &Table, told: &Told) -> Result<Vec<(i16, Value)>, Reason> {
        let reason = |what: &str| format!("{what} of table {:?} changed", held.name);
        for column in &held.columns {
            let same = now.columns.iter().find(|it| it.attnum == column.attnum);
            let named = now.columns.iter().find(|it| it.name == column.name);
            let kept = same.is_none_or(|same| same.type_oid == column.type_oid)
                && same.is_none_or(|same| same.upstream_type == column.upstream_type)
                && named.is_none_or(|named| named.attnum == column.attnum);
            if !kept {
                return Err(reason(&format!("column {:?}", column.name)));
            }
        }
        if attnums(held, &held.key) != attnums(now, &now.key) {
            return Err(reason("the key"));
        }
        let seen = told.seen.get(&now.oid).copied().unwrap_or(0);
        let is_new = |column: &&Column| !held.columns.iter().any(|it| it.attnum == column.attnum);
        let is_gone = |column: &&Column| !now.columns.iter().any(|it| it.attnum == column.attnum);
        // A column may have been dropped, another one added under its name, and that one renamed. A
        // description in between looks as if nothing had happened, unless a survey since then shows
        // that nothing had. Types that turn into each other without a rewrite are alike for
        // clients.
        let described = told.described.get(&now.oid);
        let doubtful = described.is_some_and(|begun| *begun >= self.calm);
        let mistaken = |gone: &Column| {
            let mut new = now.columns.iter().filter(is_new);
            new.any(|column| column.value_type == gone.value_type)
        };
        if doubtful && held.columns.iter().filter(is_gone).any(mistaken) {
            return Err(reason("the columns"));
        }
        let mut fills = Vec::new();
        for column in now.columns.iter().filter(is_new) {
            let fill = self.fill(now.oid, column, seen);
            let value = fill.ok_or_else(|| reason(&format!("column {:?}", column.name)))?;
            // Rows may have come since with its values, which were taken for those of a column that
            // is not synced.
            if is_unsynced(held, &column.name) {
                return Err(reason(&format!("column {:?}", column.name)));
            }
            fills.push((column.attnum, value));
        }
        Ok(fills)
    }

    /// What rows older than a column have in it; `None` if that cannot be told. Columns up to
    /// `seen` are older than the place of the stream.
    fn fill(&self, oid: u32, column: &Column, seen: i16) -> Option<Value> {
        let (heap, known) = (self.discovery.heaps.get(&oid)?, self.known.get(&oid)?);
        // A number that was given since and is out of use again may have had the same name.
        let seen = seen.max(known.columns);
        let mut given = seen.saturating_add(1)..=heap.columns;
        if column.attnum <= seen || !given.all(|attnum| heap.live.contains(&attnum)) {
            return None;
        }
        let mut missing = heap.missing.iter();
        if let Some((_, text)) = missing.find(|(attnum, _)| *attnum == column.attnum) {
            return Decoder::of(column).text(text.as_bytes()).ok();
        }
        // Without a rewrite, PostgreSQL itself reads null where a row is older than the column.
        (heap.filenode != 0 && heap.filenode == known.filenode).then_some(Value::Null)
    }
}

fn alteration(table: Table, fills: Vec<(i16, Value)>) -> Alteration {
    Alteration {
        table,
        fills,
        made_anew: false,
    }
}

/// The table between `held` and `now` with these columns; `None` if it has no key then.
fn between(held: &Table, now: &Table, relation: &Relation, columns: Vec<Column>) -> Option<Table> {
    let place = |attnum: &i16| columns.iter().position(|column| column.attnum == *attnum);
    let places = |key: &Vec<i16>| key.iter().map(place).collect::<Option<Vec<usize>>>();
    let key = places(&attnums(held, &held.key))?;
    let before: Vec<_> = held
        .unique_keys
        .iter()
        .map(|key| attnums(held, key))
        .collect();
    let after = now.unique_keys.iter().map(|key| attnums(now, key));
    let both = after.filter(|key| before.contains(key));
    let unique_keys: Vec<_> = both.filter_map(|key| places(&key)).collect();
    if !unique_keys.contains(&key) {
        return None;
    }
    let described = |name: &str| relation.columns.iter().any(|column| column.name == name);
    let mut unsynced_columns = now.unsynced_columns.clone();
    for column in &held.unsynced_columns {
        if !unsynced_columns.iter().any(|(name, _)| *name == column.0) {
            unsynced_columns.push(column.clone());
        }
    }
    unsynced_columns.retain(|(name, _)| described(name));
    Some(Table {
        id: held.id,
        name: client_name(&relation.schema, &relation.name),
        schema: relation.schema.clone(),
        upstream_name: relation.name.clone(),
        oid: relation.oid,
        columns,
        unsynced_columns,
        key,
        unique_keys,
        indexes: Vec::new(),
    })
}

fn attnums(table: &Table, key: &[usize]) -> Vec<i16> {
    let columns = key.iter().filter_map(|at| table.columns.get(*at));
    columns.map(|column| column.attnum).collect()
}

fn is_described(column: &Column, there: &RelationColumn) -> bool {
    column.name == there.name && column.type_oid == there.type_oid
}

fn is_unsynced(table: &Table, column: &str) -> bool {
    let mut names = table.unsynced_columns.iter();
    names.any(|(name, _)| name == column)
}

/// Whether two forms of a table differ in nothing but indexes and the wording of reasons.
fn alike(held: &Table, now: &Table) -> bool {
    let names = |table: &Table| -> Vec<String> {
        let names = table.unsynced_columns.iter().map(|(name, _)| name.clone());
        names.collect()
    };
    held.name == now.name
        && (&held.schema, &held.upstream_name) == (&now.schema, &now.upstream_name)
        && held.columns == now.columns
        && held.key == now.key
        && held.unique_keys == now.unique_keys
        && names(held) == names(now)
}
