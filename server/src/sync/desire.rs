//! Which client wants which query, and for how long.

use std::collections::BTreeMap;

use kelvin_protocol::{ErrorBody, ErrorKind, QueryPatch, UpQueryOp, Version};

use super::record::{Definition, Desire, GroupRecord, QueryRecord};

/// How long a query is kept if its client does not say, milliseconds.
pub const DEFAULT_TTL_MS: u64 = 300_000;
/// How long a query is kept at most, milliseconds.
pub const MAX_TTL_MS: u64 = 600_000;
/// Longest hash of a query. It is a part of the name of a record.
const MAX_HASH_BYTES: usize = 1024;

/// How large a group may grow.
#[derive(Clone, Copy, Debug)]
pub struct GroupLimits {
    /// Queries that are kept up to date.
    pub queries: usize,
    /// Clients.
    pub clients: usize,
}

/// Patches of desired queries by client.
pub type DesiredPatches = BTreeMap<String, Vec<QueryPatch>>;

fn clamp_ttl(ttl: Option<f64>) -> u64 {
    match ttl {
        None => DEFAULT_TTL_MS,
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "in range"
        )]
        Some(ttl) if (0.0..=600_000.0).contains(&ttl) => ttl as u64,
        Some(_) => MAX_TTL_MS,
    }
}

impl GroupRecord {
    /// Applies what `client` asked for at the group's version `version`; the config number grows if
    /// anything changed. Returns what to tell the group's clients.
    ///
    /// # Errors
    /// For a definition that is neither a client's nor a custom query, and past `limits`.
    pub fn apply_desires(
        &mut self,
        client: &str,
        ops: Vec<UpQueryOp>,
        version: Version,
        limits: GroupLimits,
    ) -> Result<DesiredPatches, ErrorBody> {
        let mut patches = Vec::new();
        let config = self.config + 1;
        if self.clients.len() >= limits.clients && !self.clients.contains(client) {
            return Err(too_many(limits.clients, "clients", "MAX_CLIENTS_PER_GROUP"));
        }
        let new_client = self.clients.insert(client.to_owned());
        for op in ops {
            match op {
                UpQueryOp::Put {
                    hash,
                    ttl,
                    ast,
                    name,
                    args,
                } => {
                    if hash.len() > MAX_HASH_BYTES {
                        return Err(ErrorBody::new(
                            ErrorKind::InvalidMessage,
                            format!("a query's hash may have at most {MAX_HASH_BYTES} bytes"),
                        ));
                    }
                    let known = self.queries.get(&hash).is_some_and(|q| q.removed.is_none());
                    if !known && self.live_queries().count() >= limits.queries {
                        return Err(too_many(limits.queries, "queries", "MAX_QUERIES_PER_GROUP"));
                    }
                    let definition = definition(&hash, ast, name, args);
                    let ttl = clamp_ttl(ttl);
                    patches.extend(self.want(client, hash, ttl, definition, (config, version))?);
                }
                UpQueryOp::Del { hash } => {
                    patches.extend(self.unwant(client, &hash, config, version));
                }
                UpQueryOp::Clear => {
                    for hash in self
                        .queries
                        .hashes(|query| query.desires.contains_key(client))
                    {
                        patches.extend(self.clear(client, &hash, config, version));
                    }
                }
            }
        }
        if new_client || !patches.is_empty() {
            self.config = config;
        }
        let mut by_client = DesiredPatches::new();
        if !patches.is_empty() {
            by_client.insert(client.to_owned(), patches);
        }
        Ok(by_client)
    }

    fn want(
        &mut self,
        client: &str,
        hash: String,
        ttl_ms: u64,
        definition: Result<Definition, ErrorBody>,
        (config, version): (u64, Version),
    ) -> Result<Option<QueryPatch>, ErrorBody> {
        let known = self.queries.get(&hash);
        if known.is_some_and(|query| matches!(query.definition, Definition::Internal(_))) {
            return Ok(None);
        }
        let standing = |query: &QueryRecord| {
            let desire = query.desires.get(client);
            query.removed.is_none()
                && desire.is_some_and(|d| {
                    d.inactivated_at_ms.is_none() && !d.cleared && d.ttl_ms >= ttl_ms
                })
        };
        if known.is_some_and(standing) {
            return Ok(None);
        }
        let query = self
            .queries
            .get_or_insert(&hash, || definition.map(QueryRecord::new))?;
        // A query that was withdrawn, by expiry or by an error, starts again.
        if query.removed.take().is_some() {
            query.got = None;
        }
        let desire = Desire {
            ttl_ms,
            inactivated_at_ms: None,
            config,
            version,
            cleared: false,
        };
        query.desires.insert(client.to_owned(), desire);
        Ok(Some(QueryPatch { op: "put", hash }))
    }

    fn unwant(
        &mut self,
        client: &str,
        hash: &str,
        config: u64,
        version: Version,
    ) -> Option<QueryPatch> {
        let now = self.ttl_clock_ms;
        let desire = self.queries.get(hash)?.desires.get(client)?;
        if desire.inactivated_at_ms.is_some() || desire.cleared {
            return None;
        }
        let desire = self.queries.get_mut(hash)?.desires.get_mut(client)?;
        desire.inactivated_at_ms = Some(now);
        (desire.config, desire.version) = (config, version);
        Some(QueryPatch {
            op: "del",
            hash: hash.to_owned(),
        })
    }

    fn clear(
        &mut self,
        client: &str,
        hash: &str,
        config: u64,
        version: Version,
    ) -> Option<QueryPatch> {
        if self.queries.get(hash)?.desires.get(client)?.cleared {
            return None;
        }
        let patch = self.unwant(client, hash, config, version);
        let desire = self.queries.get_mut(hash)?.desires.get_mut(client)?;
        desire.cleared = true;
        patch
    }

    /// Forgets clients: what they wanted is over from now on. Unknown ones are passed over.
    pub fn forget_clients(&mut self, clients: &[String], version: Version) -> DesiredPatches {
        let config = self.config + 1;
        let mut patches = DesiredPatches::new();
        for client in clients {
            if !self.clients.remove(client) {
                continue;
            }
            self.config = config;
            for hash in self
                .queries
                .hashes(|query| query.desires.contains_key(client))
            {
                if let Some(patch) = self.unwant(client, &hash, config, version) {
                    patches.entry(client.clone()).or_default().push(patch);
                }
            }
        }
        patches
    }

    /// Queries whose time is over for every client that wanted them.
    #[must_use]
    pub fn expired(&self) -> Vec<String> {
        let now = self.ttl_clock_ms;
        let over = |query: &QueryRecord| query.expires_at_ms().is_some_and(|at| at <= now);
        self.live_queries()
            .filter(|(_, query)| over(query))
            .map(|(hash, _)| hash.clone())
            .collect()
    }

    /// TTL clock at which the next query's time is over.
    #[must_use]
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.live_queries()
            .filter_map(|(_, query)| query.expires_at_ms())
            .min()
    }
}

impl QueryRecord {
    /// TTL clock at which nobody wants it any more; `None` while somebody does.
    fn expires_at_ms(&self) -> Option<u64> {
        if matches!(self.definition, Definition::Internal(_)) {
            return None;
        }
        let mut latest = 0;
        for desire in self.desires.values().filter(|desire| !desire.cleared) {
            latest = latest.max(desire.inactivated_at_ms? + desire.ttl_ms);
        }
        Some(latest)
    }
}

fn too_many(limit: usize, what: &str, option: &str) -> ErrorBody {
    let message =
        format!("a client group may have at most {limit} {what}; see ZERO_KELVIN_{option}");
    ErrorBody::new(ErrorKind::InvalidMessage, message)
}

fn definition(
    hash: &str,
    ast: Option<Box<serde_json::value::RawValue>>,
    name: Option<String>,
    args: Option<Vec<Box<serde_json::value::RawValue>>>,
) -> Result<Definition, ErrorBody> {
    match (ast, name, args) {
        // Whether it is a query at all shows when it is compiled; if not, it fails alone.
        (Some(ast), None, None) => Ok(Definition::Client(ast)),
        (None, Some(name), Some(args)) => Ok(Definition::Custom { name, args }),
        _ => Err(ErrorBody::new(
            ErrorKind::InvalidMessage,
            format!("query {hash} needs either an ast, or a name and args"),
        )),
    }
}

#[cfg(test)]
const LIMITS: GroupLimits = GroupLimits {
    queries: 3,
    clients: 2,
};

#[cfg(test)]
pub(super) fn put_for_test(record: &mut GroupRecord, client: &str, hash: &str) -> DesiredPatches {
    let op = UpQueryOp::Put {
        hash: hash.to_owned(),
        ttl: Some(1000.0),
        ast: None,
        name: Some("q".to_owned()),
        args: Some(Vec::new()),
    };
    record.apply_desires(client, vec![op], 5, LIMITS).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kelvin_protocol::ClientSchema;

    #[test]
    fn a_repeated_put_changes_nothing() {
        let mut record = GroupRecord::new(0, ClientSchema::default());
        assert_eq!(put_for_test(&mut record, "c1", "h").len(), 1);
        let config = record.config;
        assert!(put_for_test(&mut record, "c1", "h").is_empty());
        assert_eq!(record.config, config);
        assert_eq!(put_for_test(&mut record, "c2", "h").len(), 1);
    }

    #[test]
    fn a_query_expires_when_the_last_wish_and_its_ttl_are_over() {
        let mut record = GroupRecord::new(0, ClientSchema::default());
        put_for_test(&mut record, "c1", "h");
        put_for_test(&mut record, "c2", "h");
        record.forget_clients(&["c1".to_owned()], 6);
        assert_eq!(record.next_expiry_ms(), None);
        record.ttl_clock_ms = 500;
        record
            .apply_desires("c2", vec![UpQueryOp::Del { hash: "h".into() }], 6, LIMITS)
            .unwrap();
        assert_eq!(record.next_expiry_ms(), Some(1500));
        assert!(record.expired().is_empty());
        record.ttl_clock_ms = 1500;
        assert_eq!(record.expired(), ["h"]);
    }

    #[test]
    fn clear_leaves_no_time_to_keep_the_query() {
        let mut record = GroupRecord::new(0, ClientSchema::default());
        put_for_test(&mut record, "c1", "h");
        record
            .apply_desires("c1", vec![UpQueryOp::Clear], 6, LIMITS)
            .unwrap();
        assert_eq!(record.expired(), ["h"]);
    }

    #[test]
    fn a_put_needs_exactly_one_definition() {
        let mut record = GroupRecord::new(0, ClientSchema::default());
        let op = UpQueryOp::Put {
            hash: "h".into(),
            ttl: None,
            ast: None,
            name: None,
            args: None,
        };
        assert!(record.apply_desires("c1", vec![op], 1, LIMITS).is_err());
    }

    #[test]
    fn a_hash_too_long_for_the_name_of_a_record_is_refused() {
        let mut record = GroupRecord::new(0, ClientSchema::default());
        let mut put = |bytes: usize| {
            let op = UpQueryOp::Put {
                hash: "h".repeat(bytes),
                ttl: None,
                ast: None,
                name: Some("q".into()),
                args: Some(Vec::new()),
            };
            record.apply_desires("c1", vec![op], 1, LIMITS)
        };
        assert!(put(MAX_HASH_BYTES).is_ok());
        let refused = put(MAX_HASH_BYTES + 1).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::InvalidMessage);
        assert!(refused.message.contains("1024"), "{}", refused.message);
    }

    #[test]
    fn a_group_does_not_outgrow_its_limits() {
        let mut record = GroupRecord::new(0, ClientSchema::default());
        for hash in ["h1", "h2", "h3"] {
            put_for_test(&mut record, "c1", hash);
        }
        put_for_test(&mut record, "c2", "h3");
        let op = |hash: &str| UpQueryOp::Put {
            hash: hash.into(),
            ttl: None,
            ast: None,
            name: Some("q".into()),
            args: Some(Vec::new()),
        };
        assert!(
            record
                .apply_desires("c1", vec![op("h4")], 6, LIMITS)
                .is_err()
        );
        assert!(
            record
                .apply_desires("c3", vec![op("h1")], 6, LIMITS)
                .is_err()
        );
    }

    #[test]
    fn ttls_are_clamped() {
        assert_eq!(clamp_ttl(None), DEFAULT_TTL_MS);
        assert_eq!(clamp_ttl(Some(-1.0)), MAX_TTL_MS);
        assert_eq!(clamp_ttl(Some(f64::NAN)), MAX_TTL_MS);
        assert_eq!(clamp_ttl(Some(0.0)), 0);
    }
}
