//! How the copy is split: a chunk is one COPY.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kelvin_storage::Table;

use crate::decode::Decoder;
use crate::discovery::{Discovery, Source};
use crate::quote::{identifier, qualified};

/// Blocks of 8 KiB in one chunk of a large table, at least.
const CHUNK_BLOCKS: u64 = 16_384;
/// Chunks of one table for each worker, at most: what comes in order of the key keeps a file of the
/// replica open for each chunk until the end.
const CHUNKS_PER_WORKER: u64 = 4;

/// One COPY: a table, or a range of its blocks.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) table: Arc<Table>,
    /// The statement.
    pub(crate) statement: String,
    pub(crate) format: Format,
    /// `relfilenode` of the table; zero where it has no file.
    pub(crate) filenode: u32,
    /// Chunks of the table that are not copied yet.
    remaining: Arc<AtomicU64>,
}

/// Form of the rows of a COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Binary,
}

impl Chunk {
    /// Marks the chunk as copied; whether the whole table is now.
    pub(crate) fn done(&self) -> bool {
        self.remaining.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// All chunks, those of the largest tables first, so that none of them is left for the end.
pub(crate) fn plan(discovery: &Discovery, text: bool, workers: usize) -> Vec<Chunk> {
    let most = CHUNKS_PER_WORKER * u64::try_from(workers).unwrap_or(1).max(1);
    let format = if text { Format::Text } else { Format::Binary };
    let tables = discovery.catalog.tables().iter();
    let mut tables: Vec<_> = tables.zip(&discovery.sources).collect();
    tables.sort_by_key(|(_, source)| std::cmp::Reverse(source.size.bytes));
    let mut chunks = Vec::new();
    for (table, source) in tables {
        let ranges = ranges(source, most);
        let remaining = Arc::new(AtomicU64::new(u64::try_from(ranges.len()).unwrap_or(0)));
        chunks.extend(ranges.into_iter().map(|range| Chunk {
            table: Arc::clone(table),
            statement: statement(table, source, range.as_deref(), format),
            format,
            filenode: source.filenode,
            remaining: Arc::clone(&remaining),
        }));
    }
    chunks
}

/// Conditions that split a table by block; `None` for all of it. The last has no upper end, so that
/// a wrong size loses nothing. There are not more than `most`.
fn ranges(source: &Source, most: u64) -> Vec<Option<String>> {
    let blocks = source.size.blocks.div_ceil(most).max(CHUNK_BLOCKS);
    let count = source.size.blocks.div_ceil(blocks);
    if source.partitioned || count < 2 {
        return vec![None];
    }
    (0..count)
        .map(|chunk| {
            let (from, to) = (chunk * blocks, (chunk + 1) * blocks);
            Some(if chunk + 1 == count {
                format!("ctid >= '({from},0)'")
            } else {
                format!("ctid >= '({from},0)' AND ctid < '({to},0)'")
            })
        })
        .collect()
}

fn statement(table: &Table, source: &Source, range: Option<&str>, format: Format) -> String {
    let columns: Vec<_> = table
        .columns
        .iter()
        .map(|column| {
            let name = identifier(&column.name);
            if format == Format::Text || Decoder::of(column).knows_binary() {
                name
            } else {
                // The output function's form, which is what the stream sends; a cast to text is
                // another thing for some types. `format` would make an empty text of a null.
                format!("CASE WHEN {name} IS NOT NULL THEN format('%s', {name}) END")
            }
        })
        .collect();
    let mut conditions: Vec<String> = range.map(str::to_owned).into_iter().collect();
    if !source.filters.is_empty() {
        let filters: Vec<_> = source
            .filters
            .iter()
            .map(|filter| format!("({filter})"))
            .collect();
        conditions.push(format!("({})", filters.join(" OR ")));
    }
    let condition = if conditions.is_empty() {
        String::new()
    } else {
        format!(" WHERE {}", conditions.join(" AND "))
    };
    // Children that inherit from a table are published as tables of their own.
    let only = if source.partitioned { "" } else { "ONLY " };
    let name = qualified(&table.schema, &table.upstream_name);
    let form = match format {
        Format::Text => "text",
        Format::Binary => "binary",
    };
    format!(
        "COPY (SELECT {} FROM {only}{name}{condition}) TO STDOUT WITH (FORMAT {form})",
        columns.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::Size;

    fn source(blocks: u64) -> Source {
        Source {
            partitioned: false,
            filters: Vec::new(),
            size: Size { blocks, bytes: 0 },
            rows: 0,
            filenode: 0,
        }
    }

    #[test]
    fn ranges_cover_every_block_once() {
        assert_eq!(ranges(&source(0), 8), [None]);
        assert_eq!(ranges(&source(CHUNK_BLOCKS), 8), [None]);
        let three = ranges(&source(CHUNK_BLOCKS * 2 + 1), 8);
        let shown: Vec<_> = three.iter().flatten().map(String::as_str).collect();
        assert_eq!(
            shown,
            [
                "ctid >= '(0,0)' AND ctid < '(16384,0)'",
                "ctid >= '(16384,0)' AND ctid < '(32768,0)'",
                "ctid >= '(32768,0)'",
            ]
        );
    }

    #[test]
    fn a_large_table_has_larger_chunks_and_not_more_of_them() {
        let huge = ranges(&source(CHUNK_BLOCKS * 80 + 1), 8);
        assert_eq!(huge.len(), 8);
        assert_eq!(
            huge[0].as_deref(),
            Some("ctid >= '(0,0)' AND ctid < '(163841,0)'")
        );
        assert_eq!(huge[7].as_deref(), Some("ctid >= '(1146887,0)'"));
    }

    #[test]
    fn partitioned_tables_are_not_split_by_block() {
        let mut source = source(CHUNK_BLOCKS * 9);
        source.partitioned = true;
        assert_eq!(ranges(&source, 8), [None]);
    }
}
