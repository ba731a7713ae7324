//! Names of the keyspaces and shapes of their keys.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `meta` | name | one JSON document or number |
//! | `groups` | name | bytes of the caller |
//! | `t<space>` | part (0 = rows, else index id), memcomparable key | see [`archive`](crate::archive) |
//! | `h<bucket>` | `0`, version, sequence | changelog: rows touched, or first that they are many |
//! | `h<bucket>` | `1`, space, key in `t<space>`, version at which it ended | the record as it was |
//!
//! A space is one form of a table: it gets another one when its key changes.

use std::ops::Range;

use byteview::ByteView;
use fjall::Slice;
use kelvin_protocol::Version;

use crate::IndexId;

pub(crate) const META: &str = "meta";
pub(crate) const GROUPS: &str = "groups";

/// Bytes of the space at the start of every key of a table.
pub(crate) const SPACE_BYTES: usize = 2;

const CHANGELOG: u8 = 0;
const ENDED: u8 = 1;

/// Bytes before the table's own key in a history key.
const ENDED_HEADER: usize = 5;
/// Bytes of the version at its end.
const END_BYTES: usize = 8;

pub(crate) fn table_keyspace(space: u32) -> String {
    format!("t{space}")
}

/// The number in the name of a table's keyspace, if it is one.
pub(crate) fn space_of_keyspace(name: &str) -> Option<u32> {
    name.strip_prefix('t')?.parse().ok()
}

pub(crate) fn bucket_keyspace(bucket: u64) -> String {
    format!("h{bucket}")
}

/// Whether a keyspace of this name holds a history bucket.
pub(crate) fn is_bucket_keyspace(name: &str) -> bool {
    name.strip_prefix('h')
        .is_some_and(|number| number.parse::<u64>().is_ok())
}

/// Key in a table: the space, then room for what follows.
pub(crate) fn space_key(space: IndexId) -> Vec<u8> {
    let mut key = Vec::with_capacity(48);
    put_space(space, &mut key);
    key
}

/// Puts the space at the start of a key.
pub(crate) fn put_space(space: IndexId, key: &mut Vec<u8>) {
    key.extend_from_slice(&space.0.to_be_bytes());
}

/// The space at the start of a key.
pub(crate) fn space_of(key: &[u8]) -> IndexId {
    IndexId(
        key.first_chunk()
            .map_or(0, |bytes| u16::from_be_bytes(*bytes)),
    )
}

/// Start of the history keys of `key` (or of all keys it is a prefix of).
pub(crate) fn ended_prefix(space: u32, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ENDED_HEADER + key.len() + END_BYTES);
    out.push(ENDED);
    out.extend_from_slice(&space.to_be_bytes());
    out.extend_from_slice(key);
    out
}

/// Key of a record that ended at `end`.
pub(crate) fn ended_key(space: u32, key: &[u8], end: Version) -> Vec<u8> {
    let mut out = ended_prefix(space, key);
    out.extend_from_slice(&end.to_be_bytes());
    out
}

/// The table's key and the end version in a history key.
pub(crate) fn split_ended(key: &[u8]) -> Option<(&[u8], Version)> {
    let (head, end) = key.split_at_checked(key.len().checked_sub(END_BYTES)?)?;
    let end = Version::from_be_bytes(end.try_into().ok()?);
    Some((head.get(ENDED_HEADER..)?, end))
}

/// A part of bytes, which keeps all of them alive.
pub(crate) fn part(bytes: &Slice, range: Range<usize>) -> Slice {
    ByteView::from(bytes.clone()).slice(range).into()
}

/// Key of the changelog record number `sequence` of the transaction at `version`.
pub(crate) fn changelog_key(version: Version, sequence: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + 8 + 4);
    out.push(CHANGELOG);
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&sequence.to_be_bytes());
    out
}

/// The version in a key of the changelog.
pub(crate) fn changelog_version(key: &[u8]) -> Option<Version> {
    Some(Version::from_be_bytes(key.get(1..9)?.try_into().ok()?))
}
