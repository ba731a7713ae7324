//! What is remembered of a client group: small, and independent of its data.

mod queries;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kelvin_protocol::{ClientSchema, Cookie, QueryPatch, Version};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use queries::{Queries, Unsaved};

/// Form of the stored record. A record of another form is treated as absent, which makes the
/// group's clients start afresh.
pub const RECORD_FORMAT: u32 = 2;

/// Withdrawn queries that are remembered for clients that come back.
const MAX_WITHDRAWN: usize = 2_000;

/// A client group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupRecord {
    /// See [`RECORD_FORMAT`].
    pub format: u32,
    /// Lineage of the upstream the group's cookies belong to.
    pub epoch: u32,
    /// Counts changes of this record that clients can see. It only ever grows.
    pub config: u64,
    /// Highest config number whose changes have been forgotten.
    pub trimmed_config: u64,
    /// Milliseconds during which the group had a connected client; the clock of TTLs.
    pub ttl_clock_ms: u64,
    /// When it last had a connected client, milliseconds since 1970.
    pub last_active_ms: u64,
    /// What its clients declared.
    pub client_schema: ClientSchema,
    /// Its clients.
    pub clients: BTreeSet<String>,
    /// Its queries, each of which is stored by itself.
    #[serde(skip)]
    pub queries: Queries,
}

/// What a query was defined as.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Definition {
    /// By the client, as an AST.
    Client(Box<RawValue>),
    /// By name and arguments; the application's endpoint knows the AST.
    Custom {
        /// The name.
        name: String,
        /// The arguments.
        args: Vec<Box<RawValue>>,
    },
    /// By this server.
    Internal(Arc<str>),
}

/// A query of a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueryRecord {
    /// What it was defined as.
    pub definition: Definition,
    /// Which clients want it, or wanted it.
    pub desires: BTreeMap<String, Desire>,
    /// Config number since which clients have its answer.
    pub got: Option<u64>,
    /// Config number and version at which its answer was withdrawn.
    pub removed: Option<(u64, Version)>,
    /// The plans it stood for, oldest first. Only the last may be open.
    pub assignments: Vec<Assignment>,
}

/// A client's wish for a query.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Desire {
    /// How long to keep the query after the wish ended, milliseconds.
    pub ttl_ms: u64,
    /// TTL clock when the wish ended; `None` while it stands.
    pub inactivated_at_ms: Option<u64>,
    /// Config number of its last change.
    pub config: u64,
    /// Version of the group at its last change.
    pub version: Version,
    /// Whether the wish is over without any time to keep the query.
    pub cleared: bool,
}

/// The plan a query stood for, and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Assignment {
    /// The transformed AST as JSON.
    pub ast: Arc<str>,
    /// Config number since which it holds.
    pub since: u64,
    /// Config number and version since which it holds no more.
    pub until: Option<(u64, Version)>,
}

/// Changes of queries since a config number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryPatches {
    /// Of desired queries, by client.
    pub desired: BTreeMap<String, Vec<QueryPatch>>,
    /// Of got queries.
    pub got: Vec<QueryPatch>,
}

impl QueryPatches {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.desired.is_empty() && self.got.is_empty()
    }
}

fn put(hash: &str) -> QueryPatch {
    QueryPatch {
        op: "put",
        hash: hash.to_owned(),
    }
}

fn del(hash: &str) -> QueryPatch {
    QueryPatch {
        op: "del",
        hash: hash.to_owned(),
    }
}

impl GroupRecord {
    /// A group that has no clients yet.
    #[must_use]
    pub fn new(epoch: u32, client_schema: ClientSchema) -> Self {
        Self {
            format: RECORD_FORMAT,
            epoch,
            config: 0,
            trimmed_config: 0,
            ttl_clock_ms: 0,
            last_active_ms: 0,
            client_schema,
            clients: BTreeSet::new(),
            queries: Queries::default(),
        }
    }

    /// The plans a client at `config` has, as transformed ASTs.
    pub fn plans_at(&self, config: u64) -> impl Iterator<Item = &Arc<str>> {
        let held = move |assignment: &&Assignment| {
            assignment.since <= config && assignment.until.is_none_or(|(until, _)| until > config)
        };
        self.queries
            .values()
            .flat_map(move |query| query.assignments.iter().filter(held))
            .map(|assignment| &assignment.ast)
    }

    /// What a client at `config` has not heard about the queries. `None` stands for a client that
    /// has heard nothing.
    #[must_use]
    pub fn patches_since(&self, config: Option<u64>) -> QueryPatches {
        let newer = |at: u64| config.is_none_or(|config| at > config);
        let mut patches = QueryPatches::default();
        for (hash, query) in self.queries.iter() {
            if matches!(query.definition, Definition::Internal(_)) {
                continue;
            }
            for (client, desire) in query
                .desires
                .iter()
                .filter(|(_, desire)| newer(desire.config))
            {
                let active = desire.inactivated_at_ms.is_none() && !desire.cleared;
                if active || config.is_some() {
                    let patch = if active { put(hash) } else { del(hash) };
                    patches
                        .desired
                        .entry(client.clone())
                        .or_default()
                        .push(patch);
                }
            }
            match (query.got, query.removed) {
                (Some(got), _) if newer(got) => patches.got.push(put(hash)),
                (None, Some((removed, _))) if newer(removed) && config.is_some() => {
                    patches.got.push(del(hash));
                }
                _ => {}
            }
        }
        patches
    }

    /// Notes that `hash` stands for `ast` from config number `config` on. Returns the patch that
    /// tells clients, if they did not have an answer before.
    pub fn assign(
        &mut self,
        hash: &str,
        ast: &Arc<str>,
        config: u64,
        version: Version,
    ) -> Option<QueryPatch> {
        if self.queries.get(hash)?.current() == Some(ast) {
            return None;
        }
        let query = self.queries.get_mut(hash)?;
        query.close(config, version);
        query.assignments.push(Assignment {
            ast: Arc::clone(ast),
            since: config,
            until: None,
        });
        query.removed = None;
        if query.got.is_some() {
            return None;
        }
        query.got = Some(config);
        (!matches!(query.definition, Definition::Internal(_))).then(|| put(hash))
    }

    /// Withdraws a query's answer at config number `config`. Returns the patch that tells clients.
    pub fn withdraw(&mut self, hash: &str, config: u64, version: Version) -> Option<QueryPatch> {
        let query = self.queries.get_mut(hash)?;
        query.close(config, version);
        query.got = None;
        query.removed = Some((config, version));
        Some(del(hash))
    }

    /// Whether the answer of a client at `cookie` can still be computed, with the oldest version
    /// that can be read being `horizon`.
    #[must_use]
    pub fn remembers(&self, cookie: Cookie, horizon: Version) -> bool {
        let readable = cookie.version >= horizon || self.plans_at(cookie.config).next().is_none();
        cookie.epoch == self.epoch && cookie.config >= self.trimmed_config && readable
    }

    /// Forgets what only clients below `horizon` could still ask for.
    pub fn trim(&mut self, horizon: Version) {
        let mut trimmed = self.trimmed_config;
        for hash in self.queries.hashes(|query| query.can_forget(horizon)) {
            let Some(query) = self.queries.get_mut(&hash) else {
                continue;
            };
            trimmed = trimmed.max(query.forget(horizon));
            if let Some((config, _)) = query.removed.filter(|_| query.is_forgotten(horizon)) {
                trimmed = trimmed.max(config);
                self.queries.remove(&hash);
            }
        }
        self.trimmed_config = trimmed;
        self.forget_oldest();
    }

    /// Bounds the withdrawn queries that are remembered: of too many the oldest go, whatever the
    /// horizon.
    fn forget_oldest(&mut self) {
        let mut withdrawn: Vec<(u64, String)> = self
            .queries
            .iter()
            .filter_map(|(hash, query)| Some((query.removed?.0, hash.clone())))
            .collect();
        let excess = withdrawn.len().saturating_sub(MAX_WITHDRAWN);
        withdrawn.sort_unstable();
        for (config, hash) in withdrawn.into_iter().take(excess) {
            let last_wish = self
                .queries
                .remove(&hash)
                .into_iter()
                .flat_map(|query| query.desires);
            let last_wish = last_wish.map(|(_, desire)| desire.config).max();
            self.trimmed_config = self.trimmed_config.max(config).max(last_wish.unwrap_or(0));
        }
    }

    /// Queries whose answer clients have or wait for: everything that is not withdrawn.
    pub fn live_queries(&self) -> impl Iterator<Item = (&String, &QueryRecord)> {
        self.queries
            .iter()
            .filter(|(_, query)| query.removed.is_none())
    }
}

impl QueryRecord {
    /// A query nobody has asked for yet.
    #[must_use]
    pub fn new(definition: Definition) -> Self {
        Self {
            definition,
            desires: BTreeMap::new(),
            got: None,
            removed: None,
            assignments: Vec::new(),
        }
    }

    /// The plan it stood for holds no more from config number `config` on.
    fn close(&mut self, config: u64, version: Version) {
        let open = self.assignments.last_mut();
        if let Some(last) = open.filter(|last| last.until.is_none()) {
            last.until = Some((config, version));
        }
    }

    /// Whether something of it, or all, is of use only to clients below `horizon`.
    fn can_forget(&self, horizon: Version) -> bool {
        self.assignments.iter().any(|one| one.is_past(horizon))
            || self.desires.values().any(|one| self.is_over(one, horizon))
            || self.is_forgotten(horizon)
    }

    /// Forgets what is of use only to clients below `horizon`. Returns the highest config number of
    /// it.
    fn forget(&mut self, horizon: Version) -> u64 {
        let past = self.assignments.iter().filter(|one| one.is_past(horizon));
        let past = past.filter_map(|one| Some(one.until?.0)).max();
        self.assignments.retain(|one| !one.is_past(horizon));
        let desires = std::mem::take(&mut self.desires);
        let (over, kept): (BTreeMap<_, _>, _) = desires
            .into_iter()
            .partition(|(_, one)| self.is_over(one, horizon));
        self.desires = kept;
        let over = over.values().map(|one| one.config).max();
        past.max(over).unwrap_or(0)
    }

    /// Whether a wish is over, and clients that have heard of it are above `horizon`.
    fn is_over(&self, desire: &Desire, horizon: Version) -> bool {
        let ended = desire.inactivated_at_ms.is_some() && self.got.is_none();
        (desire.cleared || ended) && self.removed.is_some() && desire.version < horizon
    }

    /// Whether nothing of it is left but that it was withdrawn, below `horizon`.
    fn is_forgotten(&self, horizon: Version) -> bool {
        let withdrawn = self.removed.is_some_and(|(_, version)| version < horizon);
        withdrawn && self.desires.is_empty() && self.assignments.is_empty()
    }

    /// The plan it stands for now, as a transformed AST.
    #[must_use]
    pub fn current(&self) -> Option<&Arc<str>> {
        self.assignments
            .last()
            .filter(|last| last.until.is_none())
            .map(|last| &last.ast)
    }

    /// Its name for error messages.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.definition {
            Definition::Custom { name, .. } => name,
            Definition::Client(_) | Definition::Internal(_) => "query",
        }
    }
}

impl Assignment {
    /// Whether it held below `horizon` only.
    fn is_past(&self, horizon: Version) -> bool {
        self.until.is_some_and(|(_, version)| version < horizon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::desire::put_for_test;

    fn ast(table: &str) -> Arc<str> {
        format!(r#"{{"table":"{table}"}}"#).into()
    }

    #[test]
    fn plans_are_those_of_the_config_number_asked_for() {
        let mut record = GroupRecord::new(0, ClientSchema::default());
        put_for_test(&mut record, "c1", "h1");
        record.assign("h1", &ast("a"), 2, 10);
        record.assign("h1", &ast("b"), 3, 20);
        record.withdraw("h1", 4, 30);
        let at = |config| {
            record
                .plans_at(config)
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(at(1), Vec::<String>::new());
        assert_eq!(at(2), [r#"{"table":"a"}"#]);
        assert_eq!(at(3), [r#"{"table":"b"}"#]);
        assert_eq!(at(4), Vec::<String>::new());
    }

    #[test]
    fn a_client_hears_only_what_is_newer_than_its_cookie() {
        let mut record = GroupRecord::new(0, ClientSchema::default());
        put_for_test(&mut record, "c1", "h1");
        record.config = 2;
        record.assign("h1", &ast("a"), 2, 10);
        assert_eq!(record.patches_since(Some(2)), QueryPatches::default());
        assert_eq!(record.patches_since(Some(1)).got, [put("h1")]);
        assert_eq!(record.patches_since(None).desired["c1"], [put("h1")]);
        record.withdraw("h1", 3, 20);
        assert_eq!(record.patches_since(Some(2)).got, [del("h1")]);
        assert_eq!(record.patches_since(None).got, []);
    }

    #[test]
    fn a_cookie_below_the_horizon_is_forgotten_unless_it_held_no_rows() {
        let mut record = GroupRecord::new(0, ClientSchema::default());
        put_for_test(&mut record, "c1", "h1");
        record.assign("h1", &ast("a"), 2, 10);
        let cookie = |version, config| Cookie {
            epoch: 0,
            version,
            config,
        };
        assert!(record.remembers(cookie(0, 1), 100));
        assert!(!record.remembers(cookie(50, 2), 100));
        assert!(record.remembers(cookie(100, 2), 100));
        record.withdraw("h1", 3, 20);
        record.trim(100);
        assert!(!record.remembers(cookie(0, 1), 100));
        assert!(record.remembers(cookie(100, 3), 100));
    }
}
