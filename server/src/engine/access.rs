//! Indexes that plans need and the upstream does not have.

use kelvin_ivm::Plan;
use kelvin_storage::{IndexBuilder, Replica, Table};

/// Tables with fewer rows are scanned: an index would cost more than it saves.
const WORTH_INDEXING: u64 = 1_000;
/// Indexes of ours that a table may have beside those of the upstream. Each costs every write.
const MAX_OWN_INDEXES: usize = 8;
/// How names of our indexes begin, in the form the storage gives them.
const OWN_PREFIX: &str = "kelvin";

/// Asks for the secondary indexes that spare `plan` scans of large tables. They are built beside
/// the stream; until they are there the query scans, and is right all the same.
pub(super) fn ask_for_indexes(replica: &Replica, builder: &IndexBuilder, plan: &Plan) {
    let catalog = replica.catalog();
    for wish in plan.missing_indexes(&catalog) {
        let Some(table) = catalog.table_by_id(wish.table) else {
            continue;
        };
        let few = own_indexes(table) + builder.pending(wish.table) < MAX_OWN_INDEXES;
        let large = replica.row_count(wish.table) > WORTH_INDEXING;
        if few && large && !builder.request(wish.table, &wish.columns) {
            tracing::debug!(table = table.name, "too many indexes wait to be built");
        }
    }
}

fn own_indexes(table: &Table) -> usize {
    table
        .indexes
        .iter()
        .filter(|index| index.name.starts_with(OWN_PREFIX))
        .count()
}
