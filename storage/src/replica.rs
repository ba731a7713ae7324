//! The replica: opening it, reading from it, applying to it.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use fjall::{Database, Keyspace};
use kelvin_protocol::Version;

use crate::directory::Directory;
use crate::engine;
use crate::era::Spaces;
use crate::error::{Error, Result};
use crate::gate::WriteGate;
use crate::history::Samples;
use crate::index_build::Builds;
use crate::layout::{GROUPS, META};
use crate::meta::{self, Garbage, Meta, MetaWriter, ReplicaIdentity};
use crate::overlay::{Readers, Slots, Workshop};
use crate::row_counts::RowCounts;
use crate::shape::{Bucket, Shape, recorded_keyspace};
use crate::sorted_ingest::Scratch;
use crate::view::View;
use crate::{Applied, Catalog, Groups, ReplicaOptions, RowId, TableId, Written};

/// Views at the last so many watermarks that are kept, so that the state before a commit can be
/// read without consulting the history. Each pins what the batches since have overwritten.
const RECENT_VIEWS: usize = 8;

/// A replica of an upstream database. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct Replica {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) db: Database,
    pub(crate) meta: Keyspace,
    pub(crate) groups: Keyspace,
    pub(crate) options: ReplicaOptions,
    pub(crate) identity: RwLock<ReplicaIdentity>,
    pub(crate) row_counts: RowCounts,
    pub(crate) builds: Builds,
    pub(crate) scratch: Scratch,
    pub(crate) readers: Readers,
    pub(crate) gate: WriteGate,
    /// Milliseconds the history spans, for metrics.
    pub(crate) history_age_ms: AtomicU64,
    current: RwLock<Current>,
    writer: Mutex<Writer>,
    /// Whether parts of a transaction are written that is not there as a whole.
    pub(crate) under_way: AtomicBool,
    /// Newest version that is known to survive a power loss.
    durable: AtomicU64,
    /// Dropped last, so that nobody opens the directory while the engine still writes.
    _directory: Directory,
}

/// What readers see. Changes as a whole.
pub(crate) struct Current {
    pub(crate) horizon: Version,
    pub(crate) latest: View,
    /// Views at earlier watermarks, oldest first. They hold all they need.
    pub(crate) recent: VecDeque<View>,
}

/// What only the writer sees.
pub(crate) struct Writer {
    pub(crate) next_rows: HashMap<TableId, RowId>,
    pub(crate) next_indexes: HashMap<TableId, u16>,
    /// Bytes written to the newest part of the history.
    pub(crate) bucket_bytes: u64,
    pub(crate) samples: Samples,
    /// Watermark at the last upkeep.
    pub(crate) maintained_at: Version,
    pub(crate) next_space: u32,
    /// The highest number of a table that was given out here.
    pub(crate) given_table: u32,
    /// The forms of tables on record: table and version since which it has it.
    pub(crate) forms: Vec<(TableId, Version)>,
    /// Indexes whose entries are to be removed.
    pub(crate) garbage: Vec<Garbage>,
    /// Empty ones that the last batch left for the next one.
    pub(crate) slots: Slots,
}

impl Writer {
    /// A number that no table ever had, and none will have that is not given it now.
    pub(crate) fn take_table(&mut self) -> Result<TableId> {
        let known = self
            .forms
            .iter()
            .map(|(id, _)| id)
            .chain(self.next_rows.keys());
        let highest = known
            .map(|id| id.0)
            .max()
            .unwrap_or(0)
            .max(self.given_table);
        let exhausted = Error::Invalid("the numbers of tables are used up".into());
        self.given_table = highest.checked_add(1).ok_or(exhausted)?;
        Ok(TableId(self.given_table))
    }

    /// A number that no space ever had.
    pub(crate) fn take_space(&mut self) -> Result<u32> {
        crate::era::take_space(&mut self.next_space)
    }

    /// Since when a table has had the form it has at `version`.
    pub(crate) fn form_of(&self, table: TableId, version: Version) -> Version {
        let forms = self.forms.iter();
        let until = forms.filter(|(id, since)| *id == table && *since <= version);
        until.map(|(_, since)| *since).max().unwrap_or(version)
    }
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica")
            .field("watermark", &self.watermark())
            .finish_non_exhaustive()
    }
}

impl Replica {
    /// Opens a complete replica.
    ///
    /// # Errors
    /// [`Error::Missing`] where there is none or its load never finished; [`Error::Foreign`],
    /// [`Error::Corrupt`], [`Error::NewerFormat`], [`Error::OlderFormat`], [`Error::Locked`],
    /// [`Error::DiskFull`], [`Error::ReadOnly`] and [`Error::Io`] as their names say. A replica is
    /// opened only where it can be written.
    pub fn open(dir: &Path, options: &ReplicaOptions) -> Result<Self> {
        let directory = Directory::open(dir)?;
        if !directory.has_store()? {
            return Err(Error::Missing(dir.into()));
        }
        directory.remove_runs()?;
        let db = engine::open(&directory, options)?;
        if !db.keyspace_exists(META) {
            return Err(Error::Missing(dir.into()));
        }
        let keyspace = recorded_keyspace(&db, META)?;
        let meta = meta::read(dir, &db.snapshot(), &keyspace)?;
        Self::assemble(directory, db, options, meta)
    }

    /// Looks whether there is a replica in `dir` that could be opened, without opening it. What is
    /// inside is not looked at.
    ///
    /// # Errors
    /// As [`Replica::open`], apart from [`Error::Corrupt`].
    pub fn probe(dir: &Path) -> Result<()> {
        Directory::probe(dir)
    }

    /// Removes the replica in `dir`, and nothing else that may be there. Every handle to it has to
    /// be gone; views that are still there may fail to read from then on.
    ///
    /// # Errors
    /// [`Error::Locked`] while it is open, [`Error::Foreign`] for files that are not ours.
    pub fn wipe(dir: &Path) -> Result<()> {
        Directory::wipe(dir)
    }

    pub(crate) fn assemble(
        directory: Directory,
        db: Database,
        options: &ReplicaOptions,
        meta: Meta,
    ) -> Result<Self> {
        let forms = meta.tables.iter().map(|form| (form.id, form.since));
        let forms: Vec<_> = forms.collect();
        let mut spaces = Spaces::recorded(&db);
        let buckets = meta.buckets.iter();
        let shape = Shape {
            eras: spaces.eras(meta.tables, &meta.unsynced, meta.horizon)?,
            buckets: buckets
                .map(|range| Bucket::recorded(&db, *range))
                .collect::<Result<_>>()?,
            loaded_at: meta.loaded_at,
            reads: Arc::default(),
        };
        crate::history::remove_orphans(&db, &meta.buckets)?;
        crate::retire::remove_orphans(&db, &shape)?;
        let keyspace = recorded_keyspace(&db, META)?;
        let gate = WriteGate::new(&db, &directory, options);
        if let Some(version) = meta.under_way {
            crate::undo::roll_back(&gate, &keyspace, &shape, version, &|| Ok(()))?;
        }
        let bucket_bytes = shape.active_bucket()?.keyspace.disk_space();
        let row_counts = RowCounts::open(&db, &keyspace, &shape)?;
        let latest = View::new(
            meta.watermark,
            meta.watermark,
            db.snapshot(),
            Arc::new(shape),
        )?;
        let inner = Inner {
            meta: keyspace,
            row_counts,
            gate,
            history_age_ms: AtomicU64::new(0),
            groups: recorded_keyspace(&db, GROUPS)?,
            options: options.clone(),
            identity: RwLock::new(meta.identity),
            current: RwLock::new(Current {
                horizon: meta.horizon,
                latest,
                recent: VecDeque::new(),
            }),
            writer: Mutex::new(Writer {
                next_rows: meta.next_rows,
                next_indexes: meta.next_indexes,
                bucket_bytes,
                samples: Samples::default(),
                maintained_at: 0,
                next_space: meta.next_space,
                given_table: 0,
                forms,
                garbage: meta.garbage,
                slots: Slots::default(),
            }),
            builds: Builds::default(),
            scratch: Scratch::new(directory.runs()),
            readers: Readers::default(),
            under_way: AtomicBool::new(false),
            durable: AtomicU64::new(0),
            db,
            _directory: directory,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The tables there are.
    #[must_use]
    pub fn catalog(&self) -> Arc<Catalog> {
        self.inner.current().latest.catalog().clone()
    }

    /// What the load was finished with, or [`Replica::set_identity`] last wrote.
    #[must_use]
    pub fn identity(&self) -> ReplicaIdentity {
        let identity = self.inner.identity.read();
        identity.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the identity.
    ///
    /// # Errors
    /// As [`Replica::update_identity`].
    pub fn set_identity(&self, identity: ReplicaIdentity) -> Result<()> {
        self.update_identity(|now| *now = identity)
    }

    /// Changes the identity, and makes it safe from a power loss together with everything applied
    /// before. Nobody else changes it meanwhile.
    ///
    /// # Errors
    /// What writing brings up.
    pub fn update_identity(&self, change: impl FnOnce(&mut ReplicaIdentity)) -> Result<()> {
        let _writer = self.inner.writer()?;
        let mut identity = self.identity();
        change(&mut identity);
        let mut batch = self.inner.db.batch();
        self.inner.meta_writer(&mut batch).identity(&identity)?;
        let keyspaces = std::slice::from_ref(&self.inner.meta);
        self.inner.gate.commit(batch, keyspaces)?;
        self.inner.gate.sync()?;
        *self
            .inner
            .identity
            .write()
            .unwrap_or_else(PoisonError::into_inner) = identity;
        Ok(())
    }

    /// The newest version.
    #[must_use]
    pub fn watermark(&self) -> Version {
        self.inner.current().latest.version()
    }

    /// The oldest version [`Replica::at`] accepts.
    #[must_use]
    pub fn horizon(&self) -> Version {
        self.inner.current().horizon
    }

    /// A view at the watermark. It pins what it reads: keep it short-lived.
    ///
    /// # Errors
    /// None today; reserved for engines that can fail here.
    pub fn latest(&self) -> Result<View> {
        Ok(self.inner.current().latest.clone())
    }

    /// The database as it was at `version`. The last few watermarks can be read even if the horizon
    /// has passed them.
    ///
    /// # Errors
    /// [`Error::BelowHorizon`] or [`Error::AheadOfWatermark`].
    pub fn at(&self, version: Version) -> Result<View> {
        self.inner.current().at(version)
    }

    /// What happened in `(from, to]`: the net change of each row that was written in between, the
    /// tables that a transaction in [parts](Replica::apply_in_parts) wrote to, and the tables whose
    /// schema changed.
    ///
    /// # Errors
    /// As [`Replica::at`] for either end; [`Error::Invalid`] if `to` is older than `from`.
    pub fn changes(&self, from: Version, to: Version) -> Result<Applied> {
        if to < from {
            return Err(Error::Invalid("changes are asked for backwards".into()));
        }
        let (before, after) = {
            let current = self.inner.current();
            (current.at(from)?, current.at(to)?)
        };
        let (changes, swept) = crate::changelog::between(&before, &after)?;
        Ok(Applied {
            from,
            version: to,
            changes,
            swept,
            altered: after.inner().era.altered_since(&before.inner().era),
        })
    }

    /// Which tables the transactions in `(from, to]` wrote to; `None` if that are more than `most`
    /// pairs of a transaction and a table. Reads only the changelog.
    ///
    /// # Errors
    /// As [`Replica::changes`].
    pub fn written(&self, from: Version, to: Version, most: usize) -> Result<Option<Written>> {
        if to < from {
            return Err(Error::Invalid("changes are asked for backwards".into()));
        }
        let (before, after) = {
            let current = self.inner.current();
            (current.at(from)?, current.at(to)?)
        };
        crate::changelog::written(&before, &after, most)
    }

    /// Makes everything applied so far safe from a power loss; returns the version that is.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Poisoned`]; then nothing may be confirmed to the upstream.
    pub fn sync(&self) -> Result<Version> {
        // INVARIANT: the version is read before the journal is synced, so it never runs ahead.
        let version = self.watermark();
        if self.inner.durable.load(Ordering::Acquire) < version {
            self.inner.gate.sync()?;
            self.inner.durable.fetch_max(version, Ordering::AcqRel);
        }
        Ok(version)
    }

    /// The records of client groups.
    #[must_use]
    pub fn groups(&self) -> Groups {
        Groups::new(self.inner.clone())
    }
}

impl Current {
    fn at(&self, version: Version) -> Result<View> {
        let watermark = self.latest.version();
        if version > watermark {
            return Err(Error::AheadOfWatermark {
                asked: version,
                watermark,
            });
        }
        if version == watermark {
            return Ok(self.latest.clone());
        }
        if let Some(view) = self.recent.iter().find(|view| view.version() == version) {
            return Ok(view.clone());
        }
        if version < self.horizon {
            return Err(Error::BelowHorizon {
                asked: version,
                horizon: self.horizon,
            });
        }
        let latest = self.latest.inner();
        let (snapshot, shape) = (latest.snapshot.clone(), latest.shape.clone());
        if latest.partial {
            return View::partial(version, watermark, snapshot, shape);
        }
        View::new(version, watermark, snapshot, shape)
    }
}

impl Inner {
    pub(crate) fn current(&self) -> RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a batch of this writer is made with.
    pub(crate) fn workshop<'a>(&'a self, writer: &'a Writer) -> Workshop<'a> {
        Workshop {
            db: &self.db,
            options: &self.options,
            scratch: &self.scratch,
            readers: &self.readers,
            next_space: writer.next_space,
            next_indexes: &writer.next_indexes,
        }
    }

    /// The right to write. A writer that panicked half-way has left nothing behind on disk, but its
    /// numbers in memory may be off.
    ///
    /// INVARIANT: nobody gets it while parts of a transaction are written that is not there as a
    /// whole. What readers see is made of a new snapshot whenever somebody writes, and that
    /// snapshot must not hold such parts.
    pub(crate) fn writer(&self) -> Result<MutexGuard<'_, Writer>> {
        let writer = self.writer_to_roll_back()?;
        if self.under_way.load(Ordering::Acquire) {
            return Err(Error::Poisoned);
        }
        Ok(writer)
    }

    /// The right to write, to take back what was half written.
    pub(crate) fn writer_to_roll_back(&self) -> Result<MutexGuard<'_, Writer>> {
        self.writer.lock().map_err(|_| Error::Poisoned)
    }

    pub(crate) fn meta_writer<'a>(
        &'a self,
        batch: &'a mut fjall::OwnedWriteBatch,
    ) -> MetaWriter<'a> {
        MetaWriter {
            meta: &self.meta,
            batch,
        }
    }

    /// Lets readers see a new version.
    ///
    /// INVARIANT: called by the holder of the writer lock only, after its batch is committed and
    /// before another begins. So the snapshot holds exactly the rows of `version`: the engine's own
    /// snapshots may otherwise show half of a batch that is being committed while a flush publishes
    /// a later sequence number.
    pub(crate) fn publish(&self, version: Version, shape: Arc<Shape>) -> Result<()> {
        let view = View::new(version, version, self.db.snapshot(), shape)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let earlier = std::mem::replace(&mut current.latest, view);
        if earlier.version() < version {
            current.recent.push_back(earlier);
            if current.recent.len() > RECENT_VIEWS {
                current.recent.pop_front();
            }
        }
        Ok(())
    }

    /// Lets readers see the newest version in a snapshot of now, which may hold parts of a
    /// transaction that is under way. Gives that view.
    ///
    /// INVARIANT: called after each of its batches. The engine keeps all that was written since the
    /// oldest snapshot in memory, so a snapshot from before would let memory grow with the
    /// transaction. The views of earlier watermarks are let go of for the same reason.
    pub(crate) fn show_partial(&self, shape: &Arc<Shape>) -> Result<View> {
        let version = self.current().latest.version();
        let view = View::partial(version, version, self.db.snapshot(), shape.clone())?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        current.latest = view.clone();
        current.recent.clear();
        Ok(view)
    }

    /// Raises the horizon and lets readers see a new shape of the same version.
    pub(crate) fn publish_shape(&self, shape: Shape, horizon: Version) -> Result<()> {
        let version = self.current().latest.version();
        let view = View::new(version, version, self.db.snapshot(), Arc::new(shape))?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        // Older views would lack an index that their catalog has now.
        if !Arc::ptr_eq(current.latest.catalog(), view.catalog()) {
            current.recent.clear();
        }
        current.latest = view;
        current.horizon = horizon;
        Ok(())
    }

    /// Lets go of everything older than the newest view.
    pub(crate) fn release_recent(&self) -> Result<()> {
        let (version, shape) = {
            let current = self.current();
            let latest = &current.latest;
            (latest.version(), latest.inner().shape.clone())
        };
        let view = View::new(version, version, self.db.snapshot(), shape)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        current.latest = view;
        current.recent.clear();
        Ok(())
    }
}
