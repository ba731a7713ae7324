//! The stream of changes.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use kelvin_replication::fuzzing::Stream;
use kelvin_storage::{Catalog, RowOp, Transaction};

use crate::tables::catalog;

/// Messages of pgoutput, each behind two bytes of its length: they come to transactions whose rows
/// and keys are as wide as their tables, until one is an error.
pub fn pgoutput(data: &[u8]) {
    static CATALOG: OnceLock<Arc<Catalog>> = OnceLock::new();
    let catalog = CATALOG.get_or_init(|| Arc::new(catalog()));
    let mut stream = Stream::new(catalog.clone());
    let mut rest = Bytes::copy_from_slice(data);
    while let Some((&[high, low], _)) = rest.split_first_chunk() {
        let _length = rest.split_to(2);
        let length = usize::from(u16::from_be_bytes([high, low]));
        let message = rest.split_to(length.min(rest.len()));
        match stream.push(message) {
            Ok(None) => {}
            Ok(Some(transaction)) => check(catalog, &transaction),
            Err(_) => return,
        }
    }
}

fn check(catalog: &Catalog, transaction: &Transaction) {
    assert!(!transaction.ops.is_empty());
    for op in &transaction.ops {
        let (id, row, key) = match op {
            RowOp::Insert { table, row } => (table, Some(row.len()), None),
            RowOp::Update {
                table,
                old_key,
                row,
            } => (table, Some(row.len()), old_key.as_ref()),
            RowOp::Delete { table, key } => (table, None, Some(key)),
            RowOp::Truncate { tables } => {
                assert!(tables.iter().all(|id| catalog.table_by_id(*id).is_some()));
                continue;
            }
            RowOp::Schema(_) => panic!("the stream brings rows only"),
        };
        let table = catalog.table_by_id(*id).expect("a table of ours");
        assert!(row.is_none_or(|width| width == table.columns.len()));
        assert!(key.is_none_or(|key| key.len() == table.key.len()));
    }
}
