//! The queries of a group, and which of them have changed since they were stored.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::QueryRecord;

/// Queries by hash, the internal ones included.
///
/// INVARIANT: what differs from what the store has is noted. So nothing is lent for writing that is
/// only looked at: with each wish of a client, all of its queries would be stored again.
#[derive(Clone, Debug, Default)]
pub struct Queries {
    by_hash: BTreeMap<String, QueryRecord>,
    unsaved: Unsaved,
}

/// What the store has yet to hear of.
#[derive(Clone, Debug, Default)]
pub enum Unsaved {
    /// All, and that there is nothing else: the store may hold queries of a group of the same name.
    #[default]
    All,
    /// These, some of which may be gone.
    Some(BTreeSet<String>),
}

impl Queries {
    /// As they were stored.
    #[must_use]
    pub fn stored(by_hash: BTreeMap<String, QueryRecord>) -> Self {
        Self {
            by_hash,
            unsaved: Unsaved::Some(BTreeSet::new()),
        }
    }

    /// The query of this hash.
    #[must_use]
    pub fn get(&self, hash: &str) -> Option<&QueryRecord> {
        self.by_hash.get(hash)
    }

    /// The query of this hash, to be changed.
    pub fn get_mut(&mut self, hash: &str) -> Option<&mut QueryRecord> {
        let query = self.by_hash.get_mut(hash)?;
        self.unsaved.note(hash);
        Some(query)
    }

    /// The query of this hash, to be changed; made by `new` where there is none.
    ///
    /// # Errors
    /// That of `new`.
    pub fn get_or_insert<E>(
        &mut self,
        hash: &str,
        new: impl FnOnce() -> Result<QueryRecord, E>,
    ) -> Result<&mut QueryRecord, E> {
        let query = match self.by_hash.entry(hash.to_owned()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(new()?),
        };
        self.unsaved.note(hash);
        Ok(query)
    }

    /// Puts a query in place of that of the same hash.
    pub fn insert(&mut self, hash: String, query: QueryRecord) {
        self.unsaved.note(&hash);
        self.by_hash.insert(hash, query);
    }

    /// Takes a query out.
    pub fn remove(&mut self, hash: &str) -> Option<QueryRecord> {
        let query = self.by_hash.remove(hash)?;
        self.unsaved.note(hash);
        Some(query)
    }

    /// Hashes of the queries for which `is_meant` holds, to look at each while changing them.
    pub fn hashes(&self, is_meant: impl Fn(&QueryRecord) -> bool) -> Vec<String> {
        let meant = self.iter().filter(|(_, query)| is_meant(query));
        meant.map(|(hash, _)| hash.clone()).collect()
    }

    /// All hashes and queries, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &QueryRecord)> {
        self.by_hash.iter()
    }

    /// All queries, in the order of their hashes.
    pub fn values(&self) -> impl Iterator<Item = &QueryRecord> {
        self.by_hash.values()
    }

    /// What the store has yet to hear of.
    #[must_use]
    pub fn unsaved(&self) -> &Unsaved {
        &self.unsaved
    }

    /// The store has heard of all.
    pub fn saved(&mut self) {
        self.unsaved = Unsaved::Some(BTreeSet::new());
    }
}

impl Unsaved {
    fn note(&mut self, hash: &str) {
        if let Self::Some(hashes) = self
            && !hashes.contains(hash)
        {
            hashes.insert(hash.to_owned());
        }
    }
}
