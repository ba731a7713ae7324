//! Transformations that were just answered, for the clients that ask the same at once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kelvin_protocol::Ast;
use tokio::time::Instant;

/// How long an answer may be used again.
const LIFETIME: Duration = Duration::from_secs(5);
/// Answers kept; the oldest goes first.
const MAX_ENTRIES: usize = 4096;

/// Everything an answer depends on: credentials, endpoint, and the query with its arguments. The
/// client's hash of the query is not enough: it is the client's word.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CacheKey(pub(super) Arc<str>);

/// Successful answers of the last seconds.
#[derive(Default)]
pub(super) struct TransformCache {
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    by_key: HashMap<CacheKey, (Instant, Arc<Ast>)>,
    order: VecDeque<(Instant, CacheKey)>,
}

impl TransformCache {
    pub(super) fn get(&self, key: &CacheKey) -> Option<Arc<Ast>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, ast) = entries.by_key.get(key)?;
        (at.elapsed() < LIFETIME).then(|| Arc::clone(ast))
    }

    pub(super) fn put(&self, key: CacheKey, ast: Arc<Ast>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while let Some((at, _)) = entries.order.front()
            && (entries.order.len() >= MAX_ENTRIES || now - *at >= LIFETIME)
        {
            let Some((at, old)) = entries.order.pop_front() else {
                break;
            };
            // A key that was put again has a younger entry, which stays.
            if entries
                .by_key
                .get(&old)
                .is_some_and(|(newest, _)| *newest == at)
            {
                entries.by_key.remove(&old);
            }
        }
        entries.order.push_back((now, key.clone()));
        entries.by_key.insert(key, (now, ast));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(at: usize) -> CacheKey {
        CacheKey(at.to_string().into())
    }

    fn ast() -> Arc<Ast> {
        serde_json::from_str::<Ast>(r#"{"table":"t"}"#)
            .unwrap()
            .into()
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_forgotten_after_their_lifetime_and_beyond_the_bound() {
        let cache = TransformCache::default();
        cache.put(key(0), ast());
        assert!(cache.get(&key(0)).is_some());
        tokio::time::advance(LIFETIME).await;
        assert!(cache.get(&key(0)).is_none());
        for at in 0..MAX_ENTRIES * 2 {
            cache.put(key(at), ast());
        }
        let entries = cache.entries.lock().unwrap();
        assert!(entries.by_key.len() <= MAX_ENTRIES && entries.order.len() <= MAX_ENTRIES);
    }
}
