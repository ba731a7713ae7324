//! Which tables are outstanding and how far they are: what the stream and the copier tell each
//! other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kelvin_protocol::Version;
use kelvin_storage::{LoadedTable, Table, TableId, UnsyncedTable};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::kept::{Change, Kept};
use crate::stream::{Message, Relation};
use crate::{CopyProgress, Error, ErrorKind, Progress};

/// Pause before a copy that failed is begun again; it doubles from then on.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest pause between two attempts.
const RETRY_LONGEST: Duration = Duration::from_secs(300);

/// No transaction is awaited.
const NOBODY: u64 = u64::MAX;

/// What the schema at a place of the stream knows of a table that is outstanding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outstanding {
    /// Name as clients say it.
    pub(crate) name: String,
    /// Why it is copied.
    pub(crate) why: String,
    /// A table of the same name that is gone upstream, and stays until this one takes its place.
    pub(crate) replaces: Option<TableId>,
}

/// How far the copy of one table beside the stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backfill {
    /// Name of the table as clients say it.
    pub table: String,
    /// Why it is copied.
    pub reason: String,
    /// Whether it is being copied now, and does not wait for its turn or for another attempt.
    pub running: bool,
    /// Rows copied.
    pub rows: u64,
    /// PostgreSQL's estimate of the rows to copy, which may be far off; zero where it has none.
    pub estimated_rows: u64,
    /// Bytes received.
    pub bytes: u64,
    /// See [`CopyProgress::time_left`].
    pub time_left: Option<Duration>,
    /// Bytes of changes that wait for the copy.
    pub kept_bytes: u64,
    /// Attempts that failed.
    pub failures: u32,
    /// Why the last one failed.
    pub failure: Option<String>,
}

/// The tables that are copied beside the stream. Cloning gives another handle to the same ones.
#[derive(Clone)]
pub struct Backfills(Arc<Shared>);

struct Shared {
    tables: Mutex<BTreeMap<u32, Entry>>,
    /// Bytes of changes that are kept before the stream waits.
    limit: usize,
    /// Told whenever something changed.
    changed: Notify,
    /// See [`StreamSchema::awaited`](crate::stream::StreamSchema::awaited); [`NOBODY`] for none.
    awaited: AtomicU64,
}

struct Entry {
    known: Outstanding,
    stage: Stage,
    kept: Kept,
    /// Ends the attempt under way.
    run: CancellationToken,
    copied: CopyProgress,
    failures: u32,
    /// Why the last attempt failed, and whether only the operator can mend it.
    failure: Option<(String, bool)>,
    retry_at: Option<Instant>,
}

enum Stage {
    /// Nothing is kept: all that is said now will be in the copy.
    Waiting,
    /// What commits from now on is kept, or from this version on once it is known.
    Copying(Option<Version>),
    /// The rows as of this version are there.
    Copied(Version, LoadedTable),
    /// They are in a transaction that is on its way to the replica.
    Settling,
}

/// One attempt to copy a table.
pub(crate) struct Run {
    pub(crate) oid: u32,
    pub(crate) known: Outstanding,
    pub(crate) token: CancellationToken,
}

/// A table that is copied, with what was kept.
pub(crate) struct Ready {
    pub(crate) oid: u32,
    pub(crate) loaded: LoadedTable,
    pub(crate) kept: Kept,
}

impl Entry {
    fn new(known: Outstanding) -> Self {
        Self {
            known,
            stage: Stage::Waiting,
            kept: Kept::default(),
            run: CancellationToken::new(),
            copied: CopyProgress::default(),
            failures: 0,
            failure: None,
            retry_at: None,
        }
    }

    /// Gives up what there is; it is copied anew.
    fn restart(&mut self) {
        self.run.cancel();
        self.stage = Stage::Waiting;
        self.kept = Kept::default();
    }

    /// Whether its changes are kept.
    fn keeps(&self) -> bool {
        matches!(self.stage, Stage::Copying(_) | Stage::Copied(..))
    }

    fn unsynced(&self) -> UnsyncedTable {
        let reason = match &self.failure {
            Some((failure, _)) => format!("it cannot be copied: {failure}"),
            None => "it is being copied".into(),
        };
        UnsyncedTable {
            name: self.known.name.clone(),
            reason,
        }
    }
}

impl Backfills {
    /// None yet. When so many bytes of changes are kept, the stream waits.
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Shared {
            tables: Mutex::default(),
            limit,
            changed: Notify::new(),
            awaited: AtomicU64::new(NOBODY),
        }))
    }

    fn tables(&self) -> MutexGuard<'_, BTreeMap<u32, Entry>> {
        let tables = self.0.tables.lock();
        tables.unwrap_or_else(PoisonError::into_inner)
    }

    /// How far they are.
    #[must_use]
    pub fn list(&self) -> Vec<Backfill> {
        let tables = self.tables();
        let shown = tables.values().map(|entry| Backfill {
            table: entry.known.name.clone(),
            reason: entry.known.why.clone(),
            running: !matches!(entry.stage, Stage::Waiting),
            rows: entry.copied.rows,
            estimated_rows: entry.copied.estimated_rows,
            bytes: entry.copied.bytes,
            time_left: entry.copied.time_left,
            kept_bytes: entry.kept.bytes() as u64,
            failures: entry.failures,
            failure: entry.failure.as_ref().map(|(failure, _)| failure.clone()),
        });
        shown.collect()
    }

    /// The tables, by `pg_class.oid`.
    pub(crate) fn oids(&self) -> Vec<u32> {
        self.tables().keys().copied().collect()
    }

    /// What the catalog says of tables that are not synced: of those of the survey and of these.
    pub(crate) fn unsynced(&self, surveyed: &[UnsyncedTable]) -> Vec<UnsyncedTable> {
        let mut all: Vec<_> = self.tables().values().map(Entry::unsynced).collect();
        let others = surveyed.iter().filter(|table| {
            let same = |other: &UnsyncedTable| other.name == table.name;
            !all.iter().any(same)
        });
        let others: Vec<_> = others.cloned().collect();
        all.extend(others);
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.dedup_by(|a, b| a.name == b.name);
        all
    }

    /// Whether two such lists say the same. Reasons of the survey's tables are texts that another
    /// version may put otherwise.
    pub(crate) fn same_unsynced(&self, held: &[UnsyncedTable], now: &[UnsyncedTable]) -> bool {
        let tables = self.tables();
        let outstanding = |name: &str| tables.values().any(|entry| entry.known.name == name);
        let mut held: Vec<_> = held.iter().collect();
        held.sort_by(|a, b| a.name.cmp(&b.name));
        let same = |(held, now): (&&UnsyncedTable, &UnsyncedTable)| {
            held.name == now.name && (held.reason == now.reason || !outstanding(&now.name))
        };
        held.len() == now.len() && held.iter().zip(now).all(same)
    }

    /// The transactions before this one, by `xid8`, that have to end before a table is added.
    pub(crate) fn awaited(&self) -> Option<u64> {
        let awaited = self.0.awaited.load(Ordering::SeqCst);
        (awaited != NOBODY).then_some(awaited)
    }

    /// Whether the copy of a table failed in a way that only the operator can mend.
    pub(crate) fn is_hopeless(&self, oid: u32) -> bool {
        let tables = self.tables();
        let failure = tables.get(&oid).and_then(|entry| entry.failure.as_ref());
        failure.is_some_and(|(_, hopeless)| *hopeless)
    }
}

/// The stream's part.
impl Backfills {
    /// A session begins, where the schema knows of these tables, and of transactions that are
    /// awaited. What the one before kept may be told again or not, so every table is copied anew.
    pub(crate) fn restart(&self, known: &BTreeMap<u32, Outstanding>, awaited: Option<u64>) {
        self.awaits(awaited);
        let mut tables = self.tables();
        tables.retain(|oid, entry| {
            entry.restart();
            known.contains_key(oid)
        });
        for (oid, known) in known {
            let new = || Entry::new(known.clone());
            tables.entry(*oid).or_insert_with(new);
        }
        self.0.changed.notify_waiters();
    }

    /// The transactions before this one have to end before a table is added.
    pub(crate) fn awaits(&self, xid: Option<u64>) {
        let awaited = xid.unwrap_or(NOBODY);
        self.0.awaited.store(awaited, Ordering::SeqCst);
    }

    /// A table is to be copied.
    pub(crate) fn add(&self, oid: u32, known: Outstanding) {
        if let Some(before) = self.tables().insert(oid, Entry::new(known)) {
            before.run.cancel();
        }
        self.0.changed.notify_waiters();
    }

    /// A table is gone, or the replica holds it.
    pub(crate) fn remove(&self, oid: u32) {
        if let Some(entry) = self.tables().remove(&oid) {
            entry.run.cancel();
        }
        self.0.changed.notify_waiters();
    }

    /// A table is described in the transaction at `version`.
    pub(crate) fn describe(&self, version: Version, relation: &Relation) {
        if let Some(entry) = self.tables().get_mut(&relation.oid)
            && entry.keeps()
        {
            let change = Change::Described(relation.clone());
            entry.kept.push(version, change, 0);
        }
    }

    /// Rows of a table, which `relation` describes, change in the transaction at `version`.
    pub(crate) fn keep(
        &self,
        version: Version,
        relation: &Relation,
        message: Message,
        length: usize,
    ) {
        let mut tables = self.tables();
        let Some(entry) = tables.get_mut(&relation.oid).filter(|it| it.keeps()) else {
            return;
        };
        if let Stage::Copying(Some(from)) | Stage::Copied(from, _) = entry.stage
            && version < from
        {
            return;
        }
        if !entry.kept.is_described() {
            let described = Change::Described(relation.clone());
            entry.kept.push(version, described, 0);
        }
        entry.kept.push(version, Change::Rows(message), length);
        // The stream waits for a copy between two transactions at the latest, so this much is kept
        // only where one transaction changes more. The next snapshot has all of it.
        if entry.kept.bytes() >= 2 * self.0.limit {
            entry.fail(&Error::Timeout(
                "one transaction changed more of it than may be kept".into(),
            ));
            drop(tables);
            self.0.changed.notify_waiters();
        }
    }

    /// The rows of a table became others in the transaction at `version`, in a way of which the
    /// stream does not tell: a copy of what was before is of no use.
    pub(crate) fn outdated(&self, oid: u32, version: Version) {
        if let Some(entry) = self.tables().get_mut(&oid) {
            match entry.stage {
                Stage::Copying(Some(from)) | Stage::Copied(from, _) if version < from => {}
                Stage::Copying(_) | Stage::Copied(..) => entry.restart(),
                Stage::Waiting | Stage::Settling => {}
            }
        }
        self.0.changed.notify_waiters();
    }

    /// Waits until the stream may go on: there is room for more changes, or a copy is there for
    /// which they waited.
    pub(crate) async fn room(&self) {
        loop {
            let changed = self.0.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if self.has_room() {
                return;
            }
            changed.await;
        }
    }

    /// Whether the stream may go on.
    pub(crate) fn has_room(&self) -> bool {
        let tables = self.tables();
        let copying = tables.values();
        let copying = copying.filter(|entry| matches!(entry.stage, Stage::Copying(_)));
        copying.map(|entry| entry.kept.bytes()).sum::<usize>() < self.0.limit
    }

    /// Takes the tables that can be added by a transaction at `version`, as far as they fit there.
    pub(crate) fn take_ready(
        &self,
        version: Version,
        fits: impl Fn(u32, &Table) -> bool,
    ) -> Vec<Ready> {
        let mut ready = Vec::new();
        for (oid, entry) in self.tables().iter_mut() {
            entry.stage = match std::mem::replace(&mut entry.stage, Stage::Settling) {
                Stage::Copied(from, loaded) if from <= version && fits(*oid, loaded.table()) => {
                    let (oid, kept) = (*oid, std::mem::take(&mut entry.kept));
                    ready.push(Ready { oid, loaded, kept });
                    Stage::Settling
                }
                other => other,
            };
            // A name that is not given away soon must not let more and more be kept.
            let stays = matches!(entry.stage, Stage::Copied(from, _) if from <= version);
            if stays && entry.kept.bytes() >= self.0.limit {
                entry.fail(&Error::Timeout("its name is that of another table".into()));
            }
        }
        ready
    }

    /// Lets go of the tables that went to the replica.
    pub(crate) fn settled(&self) {
        let mut tables = self.tables();
        tables.retain(|_, entry| {
            let settled = matches!(entry.stage, Stage::Settling);
            if settled {
                entry.run.cancel();
            }
            !settled
        });
        drop(tables);
        self.0.changed.notify_waiters();
    }

    /// Copies a table anew after a while, for what was copied does not fit.
    pub(crate) fn retry(&self, oid: u32, error: &Error) {
        if let Some(entry) = self.tables().get_mut(&oid) {
            entry.fail(error);
        }
        self.0.changed.notify_waiters();
    }
}

impl Entry {
    fn fail(&mut self, error: &Error) {
        self.restart();
        let hopeless = error.kind() == ErrorKind::Config && !error.may_pass();
        self.failure = Some((error.to_string(), hopeless));
        let pause = RETRY_FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        self.retry_at = Some(Instant::now() + pause.min(RETRY_LONGEST));
    }
}

/// The copier's part. An attempt that was given up changes nothing any more.
impl Backfills {
    /// Waits for a table whose turn it is.
    pub(crate) async fn next(&self) -> Run {
        loop {
            let changed = self.0.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            let wait = match self.due() {
                Ok(run) => return run,
                Err(wait) => wait,
            };
            let _ = tokio::time::timeout(wait, changed).await;
        }
    }

    /// The table whose turn it is, or how long to wait for one.
    fn due(&self) -> Result<Run, Duration> {
        let (now, mut wait) = (Instant::now(), RETRY_LONGEST);
        for (oid, entry) in self.tables().iter_mut() {
            if !matches!(entry.stage, Stage::Waiting) {
                continue;
            }
            if let Some(at) = entry.retry_at.filter(|at| *at > now) {
                wait = wait.min(at - now);
                continue;
            }
            entry.run = CancellationToken::new();
            entry.copied = CopyProgress::default();
            return Ok(Run {
                oid: *oid,
                known: entry.known.clone(),
                token: entry.run.clone(),
            });
        }
        Err(wait)
    }

    fn with(&self, run: &Run, act: impl FnOnce(&mut Entry)) {
        let mut tables = self.tables();
        if let Some(entry) = tables.get_mut(&run.oid)
            && !run.token.is_cancelled()
        {
            act(entry);
        }
        drop(tables);
        self.0.changed.notify_waiters();
    }

    /// Keeps what commits from now on.
    pub(crate) fn begin(&self, run: &Run) {
        self.with(run, |entry| entry.stage = Stage::Copying(None));
    }

    /// The copy has everything that committed before `from`.
    pub(crate) fn snapshot(&self, run: &Run, from: Version) {
        self.with(run, |entry| {
            entry.stage = Stage::Copying(Some(from));
            entry.kept.forget_before(from);
        });
    }

    /// The copy is there.
    pub(crate) fn copied(&self, run: &Run, from: Version, loaded: LoadedTable) {
        self.with(run, |entry| entry.stage = Stage::Copied(from, loaded));
    }

    /// The attempt failed.
    pub(crate) fn failed(&self, run: &Run, error: &Error) {
        self.with(run, |entry| entry.fail(error));
    }

    /// Waits until the replica has the table, or it is to be copied anew.
    pub(crate) async fn settling(&self, run: &Run) {
        loop {
            let changed = self.0.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if run.token.is_cancelled() || !self.tables().contains_key(&run.oid) {
                return;
            }
            changed.await;
        }
    }

    /// Told how far an attempt is.
    pub(crate) fn progress(&self, oid: u32) -> Arc<dyn Progress> {
        Arc::new(TableProgress {
            backfills: self.clone(),
            oid,
        })
    }
}

struct TableProgress {
    backfills: Backfills,
    oid: u32,
}

impl Progress for TableProgress {
    fn copying(&self, progress: CopyProgress) {
        if let Some(entry) = self.backfills.tables().get_mut(&self.oid) {
            entry.copied = progress;
        }
    }
}
