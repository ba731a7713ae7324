//! Pokes: their content, and their frames in both forms of the protocol.

use std::collections::HashSet;

use bytes::Bytes;
use kelvin_protocol::{BINARY_POKE_VERSION, Cookie, Down};

use super::desire::DesiredPatches;
use super::record::QueryPatches;
use super::row_json::push_string;
use crate::engine::PlanPatch;
use crate::http::OutFrame;

/// Bytes of JSON after which a poke part ends and the next begins; also the size of a binary chunk.
const PART_BYTES: usize = 1 << 20;

/// What a poke tells. Rows, last mutation ids and mutation results are JSON fragments.
#[derive(Clone, Debug, Default)]
pub struct PokeBody {
    /// Changes of queries.
    pub queries: QueryPatches,
    /// `del` operations of `rowsPatch`.
    pub dels: Vec<std::sync::Arc<str>>,
    /// `put` operations of `rowsPatch`.
    pub puts: Vec<std::sync::Arc<str>>,
    /// Last mutation ids by client.
    pub last_mutation_ids: Vec<(std::sync::Arc<str>, u64)>,
    /// Clients whose last mutation id fell. No poke can say so.
    pub fallen: Vec<std::sync::Arc<str>>,
    /// Operations of `mutationsPatch`.
    pub mutations: Vec<std::sync::Arc<str>>,
}

impl PokeBody {
    /// A poke of nothing but changed wishes.
    #[must_use]
    pub fn of_desires(desired: DesiredPatches) -> Self {
        Self {
            queries: QueryPatches {
                desired,
                got: Vec::new(),
            },
            ..Self::default()
        }
    }

    /// Adds what plans of one version contribute; row deletions are the caller's. A row that several
    /// of them have is told once.
    pub fn add_plans<'a>(&mut self, patches: impl IntoIterator<Item = &'a PlanPatch>) {
        let mut patches = patches.into_iter().peekable();
        let Some(first) = patches.next() else { return };
        if patches.peek().is_none() {
            // A plan by itself has each row once.
            return self.add_plan(first);
        }
        let mut told = HashSet::new();
        for patch in std::iter::once(first).chain(patches) {
            let untold = patch.puts.iter().filter(|put| told.insert(&***put));
            self.puts.extend(untold.cloned());
            self.add_messages(patch);
        }
    }

    /// Adds what one plan contributes; row deletions are the caller's.
    pub fn add_plan(&mut self, patch: &PlanPatch) {
        self.puts.extend(patch.puts.iter().cloned());
        self.add_messages(patch);
    }

    /// Adds what is no row.
    fn add_messages(&mut self, patch: &PlanPatch) {
        self.last_mutation_ids
            .extend(patch.last_mutation_ids.iter().cloned());
        self.fallen.extend(patch.fallen.iter().cloned());
        self.mutations.extend(patch.mutations.iter().cloned());
    }

    /// Whether the client would notice it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
            && self.dels.is_empty()
            && self.puts.is_empty()
            && self.last_mutation_ids.is_empty()
            && self.mutations.is_empty()
    }

    /// The poke part bodies. Deletions come before puts, so that a row that was deleted and written
    /// again is there in the end. Mutation results come with the mutation ids, in the first part.
    fn parts(&self, poke_id: &str) -> Vec<String> {
        let mut parts = Vec::new();
        let mut part = self.head(poke_id);
        let mut rows = self.dels.iter().chain(&self.puts).peekable();
        while rows.peek().is_some() {
            part.push_str(r#","rowsPatch":["#);
            let mut first = true;
            while let Some(op) = rows.next_if(|_| part.len() < PART_BYTES) {
                if !std::mem::take(&mut first) {
                    part.push(',');
                }
                part.push_str(op);
            }
            part.push_str("]}");
            let mut next = String::from(r#"{"pokeID":"#);
            push_string(&mut next, poke_id);
            parts.push(std::mem::replace(&mut part, next));
        }
        if parts.is_empty() && !self.is_empty() {
            part.push('}');
            parts.push(part);
        }
        parts
    }

    /// The first part up to its rows, without the closing brace.
    fn head(&self, poke_id: &str) -> String {
        let mut text = String::from(r#"{"pokeID":"#);
        push_string(&mut text, poke_id);
        if !self.queries.desired.is_empty() {
            let json = serde_json::to_string(&self.queries.desired).unwrap_or_default();
            text.push_str(r#","desiredQueriesPatches":"#);
            text.push_str(&json);
        }
        if !self.queries.got.is_empty() {
            let json = serde_json::to_string(&self.queries.got).unwrap_or_default();
            text.push_str(r#","gotQueriesPatch":"#);
            text.push_str(&json);
        }
        if !self.last_mutation_ids.is_empty() {
            text.push_str(r#","lastMutationIDChanges":{"#);
            // Of several numbers for one client the last one stands, as in any JSON object.
            for (at, (client, number)) in self.last_mutation_ids.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                push_string(&mut text, client);
                text.push(':');
                text.push_str(&number.to_string());
            }
            text.push('}');
        }
        if !self.mutations.is_empty() {
            text.push_str(r#","mutationsPatch":["#);
            text.push_str(&self.mutations.join(","));
            text.push(']');
        }
        text
    }
}

/// A poke to one cookie. Its parts are assembled once for each form of the protocol, whoever
/// receives it.
pub struct Poke {
    cookie: Cookie,
    text_parts: Vec<Bytes>,
    binary_chunks: std::sync::OnceLock<Vec<Bytes>>,
}

impl Poke {
    /// A poke that leads to `cookie`.
    #[must_use]
    pub fn new(cookie: Cookie, body: &PokeBody) -> Self {
        let parts = body.parts(&cookie.to_string());
        let text_parts = parts.into_iter().map(Bytes::from).collect();
        Self {
            cookie,
            text_parts,
            binary_chunks: std::sync::OnceLock::new(),
        }
    }

    /// The state it leads to.
    #[must_use]
    pub fn cookie(&self) -> Cookie {
        self.cookie
    }

    /// Its frames for a client at `base` that speaks `protocol`.
    #[must_use]
    pub fn frames(&self, base: Option<Cookie>, protocol: u32) -> Vec<OutFrame> {
        let id = self.cookie.to_string();
        let text = |down: Down| OutFrame::Text(Bytes::from(down.to_text()));
        let start = Down::poke_start(id.clone(), base.map(|cookie| cookie.to_string()));
        let mut frames = vec![text(start)];
        if protocol >= BINARY_POKE_VERSION {
            let chunks = self
                .binary_chunks
                .get_or_init(|| binary_chunks(&self.text_parts));
            frames.extend(chunks.iter().cloned().map(OutFrame::Binary));
        } else {
            frames.extend(
                self.text_parts
                    .iter()
                    .map(|part| OutFrame::Text(poke_part(part))),
            );
        }
        frames.push(text(Down::poke_end(id.clone(), id)));
        frames
    }
}

fn poke_part(body: &[u8]) -> Bytes {
    let mut text = Vec::with_capacity(body.len() + 16);
    text.extend_from_slice(br#"["pokePart","#);
    text.extend_from_slice(body);
    text.push(b']');
    text.into()
}

/// Slices of one JSON array of the part bodies, each behind the tag byte `0x00`.
fn binary_chunks(parts: &[Bytes]) -> Vec<Bytes> {
    if parts.is_empty() {
        return Vec::new();
    }
    let total: usize = parts.iter().map(|part| part.len() + 1).sum();
    let mut json = Vec::with_capacity(total + 1);
    json.push(b'[');
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        json.extend_from_slice(part);
    }
    json.push(b']');
    let chunk = |slice: &[u8]| {
        let mut chunk = Vec::with_capacity(slice.len() + 1);
        chunk.push(0);
        chunk.extend_from_slice(slice);
        Bytes::from(chunk)
    };
    json.chunks(PART_BYTES - 1).map(chunk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOKIE: Cookie = Cookie {
        epoch: 0,
        version: 36,
        config: 1,
    };

    fn texts(frames: &[OutFrame]) -> Vec<String> {
        let text = |frame: &OutFrame| match frame {
            OutFrame::Text(bytes) | OutFrame::Binary(bytes) => {
                String::from_utf8_lossy(bytes).into_owned()
            }
            OutFrame::Close(_) => "close".into(),
        };
        frames.iter().map(text).collect()
    }

    #[test]
    fn what_several_plans_have_is_told_once() {
        let patch = |puts: &[&str]| PlanPatch {
            puts: puts.iter().map(|put| (*put).into()).collect(),
            ..PlanPatch::default()
        };
        let patches = [&["a", "b"][..], &["b"], &["c", "a"]].map(patch);
        let mut body = PokeBody::default();
        body.add_plans(&patches);
        assert_eq!(body.puts, ["a".into(), "b".into(), "c".into()]);
    }

    #[test]
    fn an_empty_poke_has_a_start_and_an_end() {
        let poke = Poke::new(COOKIE, &PokeBody::default());
        let frames = texts(&poke.frames(Some(COOKIE), 51));
        assert_eq!(
            frames,
            [
                r#"["pokeStart",{"pokeID":"k00.110:01","baseCookie":"k00.110:01"}]"#,
                r#"["pokeEnd",{"pokeID":"k00.110:01","cookie":"k00.110:01"}]"#
            ]
        );
    }

    #[test]
    fn old_clients_get_json_parts_and_new_ones_binary_chunks() {
        let op = |text: &str| std::sync::Arc::<str>::from(text);
        let body = PokeBody {
            dels: vec![op(r#"{"op":"del"}"#)],
            puts: vec![op(r#"{"op":"put"}"#)],
            last_mutation_ids: vec![("c".into(), 7)],
            ..PokeBody::default()
        };
        let poke = Poke::new(COOKIE, &body);
        let json = r#"{"pokeID":"k00.110:01","lastMutationIDChanges":{"c":7},"rowsPatch":[{"op":"del"},{"op":"put"}]}"#;
        assert_eq!(
            texts(&poke.frames(None, 51))[1],
            format!(r#"["pokePart",{json}]"#)
        );
        assert_eq!(texts(&poke.frames(None, 52))[1], format!("\0[{json}]"));
    }

    #[test]
    fn a_large_poke_is_split_into_parts_and_chunks_that_join_to_valid_json() {
        let op: std::sync::Arc<str> = format!(r#"{{"v":"{}"}}"#, "é".repeat(1000)).into();
        let body = PokeBody {
            puts: vec![op; 2000],
            ..PokeBody::default()
        };
        let poke = Poke::new(COOKIE, &body);
        let parts = poke.frames(None, 51);
        assert!(parts.len() > 4);
        for part in &texts(&parts)[1..parts.len() - 1] {
            assert!(serde_json::from_str::<serde_json::Value>(part).is_ok());
        }
        let mut joined = Vec::new();
        for frame in poke.frames(None, 52) {
            if let OutFrame::Binary(chunk) = frame {
                assert!(chunk.len() <= PART_BYTES && chunk[0] == 0);
                joined.extend_from_slice(&chunk[1..]);
            }
        }
        let parts: Vec<serde_json::Value> = serde_json::from_slice(&joined).unwrap();
        let rows: usize = parts
            .iter()
            .map(|p| p["rowsPatch"].as_array().unwrap().len())
            .sum();
        assert_eq!(rows, 2000);
    }
}
