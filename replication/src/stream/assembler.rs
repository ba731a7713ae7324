//! Puts transactions together.

mod announced;
mod outstanding;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use kelvin_protocol::Version;
use kelvin_storage::{Catalog, RowOp, SchemaChange, Table, TableId, Transaction};

use super::evolution::{Survey, Told};
use super::modes::not_in_binary;
use super::pgoutput::{Message, Relation};
use super::relation::{Target, held};
use super::survey::Marks;
use crate::backfill::{Backfills, Outstanding};
use crate::shift::Shift;
use crate::{Error, Result};

/// Estimated bytes an operation takes beside its values.
const OP_OVERHEAD: usize = 128;

/// The share of the limit that operations take together which follow on a transaction's first part.
const LATER_PARTS: usize = 8;

/// What came of a message.
#[derive(Debug)]
pub(crate) enum Assembled {
    /// Nothing yet.
    Nothing,
    /// A table was described, or PostgreSQL tells of a change; the schema may have changed.
    Described,
    /// A table was described that is held in another form: to be
    /// [interpreted](Assembler::interpret) with the help of a survey before the stream goes on.
    Unclear(Relation),
    /// The schema was surveyed; to be [adopted](Assembler::adopt) before the stream goes on.
    Marked(u64),
    /// A message came that is only timed.
    Timed(u64),
    /// A transaction is complete.
    Transaction {
        transaction: Transaction,
        /// Estimated bytes in memory.
        weight: usize,
    },
    /// Operations of a transaction that is too large to be put together, in order.
    Part {
        /// What its tables have to become before its first operation, in a transaction of its own.
        reform: Option<Transaction>,
        version: Version,
        ops: Vec<RowOp>,
        /// Estimated bytes in memory.
        weight: usize,
        /// Whether the transaction is complete with them.
        last: bool,
    },
    /// A transaction is complete that changed nothing that is held.
    Empty {
        /// The position after its commit record.
        end: Version,
    },
}

/// Decodes one stream. What it knows of tables and of an open transaction ends with the stream.
pub(crate) struct Assembler {
    schema: StreamSchema,
    marks: Option<Marks>,
    backfills: Backfills,
    targets: HashMap<u32, (Relation, Target)>,
    open: Option<Open>,
    /// Estimated bytes beyond which a transaction is given away in parts.
    limit: usize,
    shift: Shift,
    /// Whether values come in binary form, where they have one.
    binary: bool,
    renews: Option<Renewal>,
}

/// Why the stream has to be begun anew behind the open transaction.
#[derive(Clone, Debug)]
enum Renewal {
    /// What is published has changed, and the connection may go on as before.
    Stale,
    /// Something does not come in binary form.
    Text(String),
}

/// The schema at a place of the stream. The replica may still be behind it.
#[derive(Clone)]
pub(crate) struct StreamSchema {
    pub(crate) catalog: Arc<Catalog>,
    /// Number of the last survey that had a part in it.
    survey: u64,
    told: Told,
    /// By `pg_class.oid`, the tables that are copied beside the stream. Those of them that are held
    /// stand still.
    pub(crate) outstanding: BTreeMap<u32, Outstanding>,
    /// Where the connection was stale: by `xid8`, the transactions before this one may have changed
    /// a table while it was published as before; zero where the next survey will tell which. Until
    /// these have ended, no table is added, and then the stream is begun anew once more.
    ///
    /// INVARIANT: a connection that meets one of them is stale again, and what it sends of the
    /// table from there on, or does not send, is lost. No copy counts that is older than the
    /// connection after it.
    pub(crate) awaited: Option<u64>,
    /// See [`Facts::lingers`](crate::preflight::Facts::lingers).
    lingers: bool,
}

impl StreamSchema {
    /// That of a replica which stands where the stream begins.
    pub(crate) fn new(catalog: Arc<Catalog>) -> Self {
        Self {
            outstanding: outstanding::left_by(&catalog),
            catalog,
            survey: 0,
            told: Told::default(),
            awaited: None,
            lingers: false,
        }
    }

    /// Of a server that [lingers](crate::preflight::Facts::lingers), or not.
    pub(crate) fn lingering(self, lingers: bool) -> Self {
        let awaited = (lingers && !self.outstanding.is_empty()).then_some(0);
        Self {
            awaited,
            lingers,
            ..self
        }
    }
}

struct Open {
    version: Version,
    ops: Vec<RowOp>,
    weight: usize,
    /// Whether parts of it were given away.
    parted: bool,
    /// Whether it changes the schema.
    reforms: bool,
    /// By `pg_class.oid`, the tables it made as partitions of others.
    made: HashMap<u32, u32>,
}

impl Open {
    /// Takes out the changes of the schema, to be applied before the rest.
    ///
    /// INVARIANT: they are told by a description of a table, which comes before the first row it is
    /// about; what changed the table has mostly been committed before. So they may be seen a
    /// version earlier, which no other transaction has: a commit is not one byte long.
    fn reform(&mut self, limit: usize) -> Result<Option<Transaction>> {
        if !std::mem::take(&mut self.reforms) {
            return Ok(None);
        }
        let is_schema = |op: &RowOp| matches!(op, RowOp::Schema(_));
        let rows = self.ops.iter().skip_while(|op| is_schema(op));
        if rows.clone().any(is_schema) {
            // Rows before it cannot be read by the form their table has only behind them.
            return Err(too_large(limit));
        }
        let rows = self.ops.split_off(self.ops.len() - rows.count());
        Ok(Some(Transaction {
            version: self.version.saturating_sub(1),
            ops: std::mem::replace(&mut self.ops, rows),
        }))
    }
}

impl Assembler {
    /// An assembler for a stream that begins with this schema. Without `marks` it takes no notice
    /// of surveys. Transactions of more than `limit` bytes come in parts.
    pub(crate) fn new(
        schema: StreamSchema,
        marks: Option<Marks>,
        backfills: Backfills,
        limit: usize,
    ) -> Self {
        Self {
            schema,
            marks,
            backfills,
            targets: HashMap::new(),
            open: None,
            limit,
            shift: Shift::default(),
            binary: false,
            renews: None,
        }
    }

    /// With versions that are so much ahead of LSNs.
    pub(crate) fn shifted(self, shift: Shift) -> Self {
        Self { shift, ..self }
    }

    /// Of a stream whose values come in binary form, where they have one.
    pub(crate) fn in_binary(self, binary: bool) -> Self {
        Self { binary, ..self }
    }

    /// The schema after the last message.
    pub(crate) fn schema(&self) -> &StreamSchema {
        &self.schema
    }

    /// The tables that are copied beside the stream.
    pub(crate) fn backfills(&self) -> &Backfills {
        &self.backfills
    }

    /// Why the stream has to be begun anew after the transaction that came last, if it has to.
    pub(crate) fn renewal(&self) -> Option<Error> {
        Some(match self.renews.clone()? {
            Renewal::Stale => Error::Timeout(
                "tables are published otherwise from now on, which this PostgreSQL may tell to new \
                 connections only"
                    .into(),
            ),
            Renewal::Text(why) => Error::NotInBinary(why),
        })
    }

    /// Whether a transaction has begun and not ended.
    pub(crate) fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// How the table with this `pg_class.oid` was described last, if it was.
    pub(crate) fn relation(&self, oid: u32) -> Option<&Relation> {
        self.targets.get(&oid).map(|(relation, _)| relation)
    }

    /// Goes back to how a table was described before.
    pub(crate) fn recall(&mut self, relation: Relation) {
        let target = if self.schema.outstanding.contains_key(&relation.oid) {
            Ok(Target::Outstanding)
        } else {
            Target::resolve(&relation, &self.schema.catalog)
        };
        match target {
            Ok(target) => drop(self.targets.insert(relation.oid, (relation, target))),
            // PostgreSQL describes it anew, for its form is another one.
            Err(_) => drop(self.targets.remove(&relation.oid)),
        }
    }

    /// Takes in one pgoutput message.
    pub(crate) fn push(&mut self, bytes: Bytes) -> Result<Assembled> {
        let length = bytes.len();
        self.take(Message::parse(bytes)?, length)
    }

    /// Takes in a message of so many bytes.
    pub(crate) fn take(&mut self, message: Message, length: usize) -> Result<Assembled> {
        match message {
            Message::Begin { .. } if self.open.is_some() => {
                // Going on would drop what has come of the one that is open.
                return Err(Error::Protocol(
                    "pgoutput: a transaction begins within another one".into(),
                ));
            }
            Message::Begin { final_lsn } => {
                self.open = Some(Open {
                    version: self.shift.version(final_lsn),
                    ops: Vec::new(),
                    weight: OP_OVERHEAD,
                    parted: false,
                    reforms: false,
                    made: HashMap::new(),
                });
            }
            Message::Commit {
                commit_lsn,
                end_lsn,
            } => {
                let shift = self.shift;
                return self.commit(shift.version(commit_lsn), shift.version(end_lsn));
            }
            Message::Relation(relation) => return self.describe(relation),
            Message::Logical { prefix, content } => {
                let marks = self.marks.as_ref();
                if let Some(number) = marks.and_then(|marks| marks.number(&prefix, &content)) {
                    return Ok(Assembled::Marked(number));
                }
                if let Some(number) = marks.and_then(|marks| marks.timed(&prefix, &content)) {
                    return Ok(Assembled::Timed(number));
                }
                let announcements = marks.map(Marks::announcements);
                if let Some(said) = announcements.and_then(|all| all.read(&prefix, &content)) {
                    let concerns = self.concerns(&said);
                    self.heed(said)?;
                    if concerns {
                        return Ok(Assembled::Described);
                    }
                }
            }
            message @ (Message::Insert { oid, .. }
            | Message::Update { oid, .. }
            | Message::Delete { oid, .. }) => return self.row(oid, message, length),
            Message::Truncate { oids } => self.truncate(&oids)?,
            Message::Other => {}
        }
        Ok(Assembled::Nothing)
    }

    fn describe(&mut self, relation: Relation) -> Result<Assembled> {
        if self.schema.outstanding.contains_key(&relation.oid) {
            let version = self.open.as_ref().map_or(0, |open| open.version);
            self.backfills.describe(version, &relation);
            let target = Target::Outstanding;
            self.targets.insert(relation.oid, (relation, target));
            return Ok(Assembled::Nothing);
        }
        match Target::resolve(&relation, &self.schema.catalog) {
            Ok(target) => {
                let begun = self.marks.as_ref().map_or(0, Marks::begun);
                self.schema.told.described.insert(relation.oid, begun);
                self.targets.insert(relation.oid, (relation, target));
                Ok(Assembled::Described)
            }
            Err(_) if held(&relation, &self.schema.catalog).is_some() => {
                // INVARIANT: nothing waits for a survey in the middle of a transaction that is
                // applied in parts: who surveys may be waiting for the replica, which waits for the
                // rest of the transaction.
                if self.open.as_ref().is_some_and(|open| open.parted) {
                    return Err(too_large(self.limit));
                }
                Ok(Assembled::Unclear(relation))
            }
            Err(error) => Err(error),
        }
    }

    /// Changes the form of a table to the one that `relation` describes, for what follows in the
    /// transaction. The survey was made after the relation was received. A table whose form cannot
    /// be told stands still until it is copied anew.
    ///
    /// # Errors
    /// [`Error::Resync`] where kelvin itself needs the table.
    pub(crate) fn interpret(&mut self, relation: Relation, survey: &Survey) -> Result<()> {
        self.schema.survey = self.schema.survey.max(survey.number);
        let held = held(&relation, &self.schema.catalog).cloned();
        let target = match &held {
            Some(table) => self.follow(table, &relation, survey),
            None => Target::resolve(&relation, &self.schema.catalog),
        };
        let target = match (target, held) {
            (Err(Error::Resync(why)), Some(table)) if !survey.is_internal(&table) => {
                self.stand_still(&table, why)?;
                Target::Outstanding
            }
            (target, _) => target?,
        };
        self.targets.insert(relation.oid, (relation, target));
        Ok(())
    }

    fn follow(&mut self, table: &Table, relation: &Relation, survey: &Survey) -> Result<Target> {
        let form = survey.form(table, relation, &self.schema.told);
        let form = form.map_err(Error::Resync)?;
        let taken = self.schema.catalog.table(&form.table.name);
        if taken.is_some_and(|other| other.id != table.id) {
            let message = format!("two tables are called {:?}", form.table.name);
            return Err(Error::Resync(message));
        }
        let columns = table.columns.iter().chain(&form.table.columns);
        let highest = columns.map(|column| column.attnum).max().unwrap_or(0);
        let seen = self.schema.told.seen.entry(relation.oid).or_insert(highest);
        *seen = highest.max(*seen);
        self.schema.told.described.remove(&relation.oid);
        self.change(vec![SchemaChange::AlterTable(form)])?;
        Target::resolve(relation, &self.schema.catalog)
    }

    /// Makes the schema that of an announced survey whose mark the stream has come to. Tables that
    /// are new there, or cannot be followed to there, become outstanding.
    ///
    /// # Errors
    /// [`Error::Resync`] where that cannot be done without a new copy of everything.
    pub(crate) fn adopt(&mut self, survey: &Survey) -> Result<()> {
        // INVARIANT: a description behind the survey may have brought the schema further already.
        // That took a later survey, and this one must not take it back.
        if survey.number <= self.schema.survey {
            return Ok(());
        }
        let schema = &self.schema;
        let hopeless = |oid| self.backfills.is_hopeless(oid);
        let verdict = survey
            .changes(
                &schema.catalog,
                &schema.told,
                &schema.outstanding,
                &hopeless,
            )
            .map_err(Error::Resync)?;
        self.judged(verdict, survey)?;
        self.await_end(survey);
        if self.binary
            && let Some(why) = not_in_binary(&survey.discovery.catalog)
        {
            self.renews = Some(Renewal::Text(why));
        }
        self.schema.survey = survey.number;
        let heaps = survey.discovery.heaps.iter();
        self.schema
            .told
            .seen
            .extend(heaps.map(|(oid, heap)| (*oid, heap.columns)));
        // Tables are described anew before their next change if their columns are others now. What
        // was described before is understood by the new form, or no longer.
        let StreamSchema {
            catalog,
            outstanding,
            ..
        } = &self.schema;
        self.targets.retain(|oid, (relation, target)| {
            if outstanding.contains_key(oid) {
                *target = Target::Outstanding;
                return true;
            }
            Target::resolve(relation, catalog)
                .map(|now| *target = now)
                .is_ok()
        });
        Ok(())
    }

    /// Changes the schema within the open transaction.
    fn change(&mut self, changes: Vec<SchemaChange>) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let open = self.open.as_mut().ok_or_else(outside)?;
        if open.parted {
            return Err(too_large(self.limit));
        }
        open.reforms = true;
        let catalog = &self.schema.catalog;
        let mut tables: Vec<Table> = catalog.tables().iter().map(|it| (**it).clone()).collect();
        let mut unsynced = catalog.unsynced().to_vec();
        for change in &changes {
            match change {
                SchemaChange::AlterTable(form) => {
                    let altered = tables.iter_mut().find(|table| table.id == form.table.id);
                    if let Some(table) = altered {
                        table.clone_from(&form.table);
                    }
                }
                SchemaChange::DropTable(gone) => tables.retain(|table| table.id != *gone),
                SchemaChange::SetUnsynced(now) => unsynced.clone_from(now),
                SchemaChange::CreateTable(table) => tables.push(table.clone()),
                SchemaChange::LoadTable(loaded) => tables.push((**loaded.table()).clone()),
                SchemaChange::DropIndex { .. } => {}
            }
        }
        for change in changes {
            tracing::info!(table = ?name_of(catalog, change.table()), "the schema changed");
            open.ops.push(RowOp::Schema(Box::new(change)));
            open.weight += OP_OVERHEAD;
        }
        self.schema.catalog = Arc::new(Catalog::new(tables, unsynced));
        Ok(())
    }

    fn row(&mut self, oid: u32, message: Message, length: usize) -> Result<Assembled> {
        let (relation, target) = self.targets.get(&oid).ok_or_else(|| undescribed(oid))?;
        let open = self.open.as_mut().ok_or_else(outside)?;
        match target {
            Target::Held(held) => {
                open.ops.extend(held.change(&message)?);
                open.weight += OP_OVERHEAD + length;
            }
            Target::Outstanding => {
                self.backfills.keep(open.version, relation, message, length);
            }
            Target::Ignored | Target::Unknown => {}
        }
        let share = if open.parted { LATER_PARTS } else { 1 };
        if open.weight <= self.limit / share {
            return Ok(Assembled::Nothing);
        }
        let reform = open.reform(self.limit)?;
        open.parted = true;
        Ok(Assembled::Part {
            reform,
            version: open.version,
            ops: std::mem::take(&mut open.ops),
            weight: std::mem::replace(&mut open.weight, OP_OVERHEAD),
            last: false,
        })
    }

    fn truncate(&mut self, oids: &[u32]) -> Result<()> {
        let open = self.open.as_mut().ok_or_else(outside)?;
        let mut tables = Vec::new();
        for oid in oids {
            let (relation, target) = self.targets.get(oid).ok_or_else(|| undescribed(*oid))?;
            match target {
                Target::Held(held) => tables.push(held.table().id),
                Target::Outstanding => {
                    let message = Message::Truncate { oids: vec![*oid] };
                    self.backfills.keep(open.version, relation, message, 0);
                }
                Target::Ignored | Target::Unknown => {}
            }
        }
        if !tables.is_empty() {
            open.ops.push(RowOp::Truncate { tables });
        }
        Ok(())
    }

    fn commit(&mut self, version: Version, end: Version) -> Result<Assembled> {
        // Parts that were given away cannot be followed by a change of the schema: a later
        // transaction adds what is ready.
        if self.open.as_ref().is_some_and(|open| !open.parted) {
            self.settle()?;
        }
        let open = self.open.take().ok_or_else(outside)?;
        if self.binary
            && open.reforms
            && let Some(why) = not_in_binary(&self.schema.catalog)
        {
            self.renews = Some(Renewal::Text(why));
        }
        if open.version != version {
            return Err(Error::Protocol(
                "pgoutput: a commit is not at the LSN its transaction began with".into(),
            ));
        }
        if open.parted {
            return Ok(Assembled::Part {
                reform: None,
                version: open.version,
                ops: open.ops,
                weight: open.weight,
                last: true,
            });
        }
        // The stream is begun anew behind a transaction that was queued.
        if open.ops.is_empty() && self.renews.is_none() {
            return Ok(Assembled::Empty { end });
        }
        Ok(Assembled::Transaction {
            transaction: Transaction {
                version: open.version,
                ops: open.ops,
            },
            weight: open.weight,
        })
    }
}

fn name_of(catalog: &Catalog, table: Option<TableId>) -> Option<&str> {
    let table = table.and_then(|id| catalog.table_by_id(id));
    table.map(|table| table.name.as_str())
}

fn too_large(limit: usize) -> Error {
    Error::Resync(format!(
        "a transaction changes the schema between rows and is larger than {limit} bytes, as much as \
         may be held in memory"
    ))
}

fn undescribed(oid: u32) -> Error {
    Error::Protocol(format!(
        "pgoutput: a change of table {oid}, which was not described"
    ))
}

fn outside() -> Error {
    Error::Protocol("pgoutput: a change outside a transaction".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_within_another_one_ends_the_stream_instead_of_dropping_the_first() {
        let schema = StreamSchema::new(Arc::default());
        let mut assembler = Assembler::new(schema, None, Backfills::new(0), usize::MAX);
        let begin = Bytes::from_static(b"B\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\0\0\0\0\0");
        assert!(assembler.push(begin.clone()).is_ok());
        assert!(matches!(assembler.push(begin), Err(Error::Protocol(_))));
    }
}
