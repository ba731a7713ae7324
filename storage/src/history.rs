//! Keeping the history, and letting go of it.
//!
//! The history is cut into *buckets*, each a keyspace of its own that holds what ended in one range
//! of versions, and the changelog of that range. When the horizon passes the end of a bucket its
//! keyspace is dropped as a whole: no deletes, no compaction. (A compaction filter would never meet
//! records that are moved to the last level untouched, which is what happens to the history of a
//! table that is consumed in key order, such as a queue.)

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fail::fail_point;
use fjall::{Database, Keyspace};
use kelvin_protocol::Version;

use crate::error::Result;
use crate::layout::{bucket_keyspace, is_bucket_keyspace};
use crate::meta::BucketRange;
use crate::replica::{Inner, Writer};
use crate::retire::Retired;
use crate::shape::{Bucket, Shape};
use crate::{Replica, ReplicaOptions};

/// Full buckets that make up the whole history, at the least.
const FEWEST: u64 = 8;
/// Buckets beyond which each is as large as it may be: each more is one more place to look into for
/// what stood long ago. What a bucket takes on the disk, compressed, is less than what was written
/// to it, so more of them than were reckoned with make up the history.
const MOST: usize = 64;
/// Part of a memtable's limit that a bucket may have, while there are few. What is written to it
/// comes to one file that way, which the engine never has to merge with another.
const MEMTABLE_FRACTION: u64 = 2;
/// A bucket with less in it is not closed because of its age.
const MIN_FRACTION: u64 = 64;
/// Points in time that are remembered for one `history_age`.
const SAMPLES: u32 = 64;

/// Watermarks at points in time.
#[derive(Default)]
pub(crate) struct Samples {
    points: VecDeque<(Duration, Version)>,
}

impl Samples {
    /// How far back from `now` the oldest point lies from which on everything is kept.
    fn span(&self, now: Duration, horizon: Version) -> Duration {
        let mut points = self.points.iter();
        let oldest = points.find(|(_, version)| *version >= horizon);
        oldest.map_or(Duration::ZERO, |(at, _)| now.saturating_sub(*at))
    }

    /// Notes the watermark at `now`; returns the newest version that is at least `age` old.
    fn note(&mut self, now: Duration, version: Version, age: Duration) -> Option<Version> {
        let due = self
            .points
            .back()
            .is_none_or(|(at, _)| *at + age / SAMPLES <= now);
        if due {
            self.points.push_back((now, version));
        }
        let mut old = None;
        while let Some((at, version)) = self.points.front().copied()
            && at + age <= now
        {
            old = Some(version);
            self.points.pop_front();
        }
        old
    }
}

impl Replica {
    /// Raises the horizon to `keep_from` (at most the watermark) and drops what is wholly below it.
    /// Views that were made before stay right. The work is bounded: it does not depend on how much
    /// is dropped.
    ///
    /// # Errors
    /// What writing brings up.
    pub fn trim_history(&self, keep_from: Version) -> Result<()> {
        let mut writer = self.inner.writer()?;
        self.inner.trim(&mut writer, keep_from)
    }

    /// Periodic upkeep, to be called every few seconds from the thread that applies: lets go of
    /// history by age and size, releases old snapshots, keeps the journals bounded. `now` is the
    /// time since any fixed point.
    ///
    /// # Errors
    /// What writing brings up.
    pub fn maintain(&self, now: Duration) -> Result<()> {
        let inner = &self.inner;
        let mut writer = inner.writer()?;
        let watermark = self.watermark();
        if let Some(version) = writer
            .samples
            .note(now, watermark, inner.options.history_age)
        {
            inner.trim(&mut writer, version)?;
        }
        inner.trim_to_size(&mut writer)?;
        inner.sweep_garbage(&mut writer)?;
        // A busy replica sheds its recent views by itself, and somebody may still want the last
        // one.
        if writer.maintained_at == watermark {
            inner.release_recent()?;
        }
        writer.maintained_at = watermark;
        let span = writer.samples.span(now, self.horizon()).as_millis();
        let span = u64::try_from(span).unwrap_or(u64::MAX);
        inner.history_age_ms.store(span, Ordering::Relaxed);
        inner.gate.check()?;
        let keyspaces = inner.keyspaces(&self.latest()?.inner().shape);
        let started = inner.gate.bound_journals(&keyspaces)?;
        inner.gate.settle(&keyspaces)?;
        if started > 0 {
            tracing::debug!(started, "flushed tables that held back the journal");
        }
        Ok(())
    }
}

/// Bytes of history and changelog in sorted files.
pub(crate) fn history_bytes(shape: &Shape) -> u64 {
    let buckets = shape.buckets.iter();
    buckets.map(|bucket| bucket.keyspace.disk_space()).sum()
}

/// Bytes after which the last of so many buckets is closed.
fn bucket_limit(options: &ReplicaOptions, buckets: usize) -> u64 {
    let largest = (options.history_bytes / FEWEST).max(1);
    if buckets > MOST {
        return largest;
    }
    let smallest = options.history_bytes / MOST as u64;
    let limit = options.memtable_bytes / MEMTABLE_FRACTION;
    limit.max(smallest).clamp(1, largest)
}

impl Inner {
    /// Bytes after which a bucket is closed.
    fn bucket_limit(&self) -> u64 {
        let buckets = self.current().latest.inner().shape.buckets.len();
        bucket_limit(&self.options, buckets)
    }

    /// Starts a new bucket when the current one is full, and makes room for it.
    ///
    /// INVARIANT: called before a batch, not after it, so that the horizon never passes the version
    /// the batch starts from: whoever hears of a commit can read the state before it.
    pub(crate) fn rotate_if_full(&self, writer: &mut Writer) -> Result<()> {
        if writer.bucket_bytes < self.bucket_limit() {
            return Ok(());
        }
        let (shape, horizon) = self.shape();
        let shape = self.rotated(writer, &shape)?;
        self.install(writer, shape, horizon)?;
        self.trim_to_size(writer)
    }

    fn trim(&self, writer: &mut Writer, keep_from: Version) -> Result<()> {
        let (mut shape, horizon) = self.shape();
        let watermark = self.current().latest.version();
        let horizon_now = keep_from.min(watermark);
        if horizon_now <= horizon {
            return Ok(());
        }
        let aged = shape.active_bucket()?.range.from < horizon_now;
        if aged && writer.bucket_bytes >= self.bucket_limit() / MIN_FRACTION {
            shape = self.rotated(writer, &shape)?;
        }
        self.install(writer, shape, horizon_now)
    }

    /// Drops the oldest buckets while the history is larger than it may be.
    fn trim_to_size(&self, writer: &mut Writer) -> Result<()> {
        let (shape, _) = self.shape();
        let mut excess = history_bytes(&shape).saturating_sub(self.options.history_bytes);
        let mut keep_from = None;
        for bucket in &shape.buckets {
            let Some(to) = bucket.range.to.filter(|_| excess > 0) else {
                break;
            };
            excess = excess.saturating_sub(bucket.keyspace.disk_space());
            keep_from = Some(to);
        }
        match keep_from {
            Some(version) => self.trim(writer, version),
            None => Ok(()),
        }
    }

    /// Every keyspace of ours.
    pub(crate) fn keyspaces(&self, shape: &Shape) -> Vec<Keyspace> {
        let mut keyspaces = shape.keyspaces();
        keyspaces.extend([self.meta.clone(), self.groups.clone()]);
        keyspaces
    }

    /// A copy of the shape, and the horizon.
    pub(crate) fn shape(&self) -> (Shape, Version) {
        let current = self.current();
        ((*current.latest.inner().shape).clone(), current.horizon)
    }

    /// The shape with its last bucket closed at the watermark and a new one begun.
    fn rotated(&self, writer: &mut Writer, shape: &Shape) -> Result<Shape> {
        let mut shape = shape.clone();
        let watermark = self.current().latest.version();
        let mut number = 0;
        if let Some(last) = shape.buckets.last_mut() {
            last.range.to = Some(watermark);
            // Nobody writes to it any more.
            self.gate.sealer.request(&last.keyspace);
            number = last.range.number + 1;
        }
        let range = BucketRange {
            number,
            from: watermark,
            to: None,
        };
        shape.buckets.push(Bucket::begin(&self.db, range)?);
        writer.bucket_bytes = 0;
        Ok(shape)
    }

    /// Writes down the shape and the horizon, then drops what is below the horizon.
    fn install(&self, writer: &mut Writer, mut shape: Shape, horizon: Version) -> Result<()> {
        let dead = |bucket: &Bucket| bucket.range.to.is_some_and(|to| to <= horizon);
        let (dropped, kept) = shape.buckets.drain(..).partition::<Vec<_>, _>(|b| dead(b));
        shape.buckets = kept;
        let retired = Retired::take(&mut shape, writer, horizon);
        let mut batch = self.db.batch();
        let mut meta = self.meta_writer(&mut batch);
        meta.buckets(&shape.ranges())?;
        meta.horizon(horizon)?;
        retired.forget(&mut meta);
        self.gate.commit(batch, std::slice::from_ref(&self.meta))?;
        fail_point!("trim-before-drop");
        self.publish_shape(shape, horizon)?;
        // INVARIANT: dropped only once nothing on disk speaks of it, not even after a power loss. A
        // crash in between leaves an orphan, which the next opening removes. Views that still read
        // it keep its files alive.
        if !dropped.is_empty() || retired.drops() {
            self.gate.sync()?;
        }
        for bucket in dropped {
            self.gate.drop_keyspace(bucket.keyspace)?;
        }
        retired.drop_all(&self.gate, writer)
    }
}

/// Drops keyspaces of buckets that are no longer, or were never, part of the history.
pub(crate) fn remove_orphans(db: &Database, ranges: &[BucketRange]) -> Result<()> {
    for name in db.list_keyspace_names() {
        let known = ranges
            .iter()
            .any(|range| bucket_keyspace(range.number) == *name);
        if is_bucket_keyspace(&name) && !known {
            let keyspace = db.keyspace(&name, fjall::KeyspaceCreateOptions::default)?;
            db.delete_keyspace(keyspace)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_come_to_one_file_each_until_there_are_many() {
        let options = |history_bytes, memtable_bytes| ReplicaOptions {
            history_bytes,
            memtable_bytes,
            ..ReplicaOptions::default()
        };
        let default = ReplicaOptions::default();
        assert_eq!(bucket_limit(&default, 1), default.memtable_bytes / 2);
        assert_eq!(bucket_limit(&default, MOST), default.memtable_bytes / 2);
        // However well what is in them is compressed.
        assert_eq!(bucket_limit(&default, MOST + 1), default.history_bytes / 8);
        assert_eq!(bucket_limit(&options(8_000, 1_000_000), 1), 1_000);
        assert_eq!(bucket_limit(&options(6_400_000, 1_000), 1), 100_000);
        assert_eq!(bucket_limit(&options(0, 0), 1), 1);
    }
}
