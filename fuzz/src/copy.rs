//! The initial copy.

use kelvin_replication::fuzzing::copy_rows;
use kelvin_storage::Table;

use crate::tables::{TYPES, every_type};

/// A COPY: whether it is binary, the size of the pieces it comes in, up to three columns by the
/// numbers of their types, then its bytes. Rows and errors are the same in whatever pieces they
/// come, and every row has as many values as the table has columns.
pub fn copy(data: &[u8]) {
    let [binary, size, width, a, b, c, bytes @ ..] = data else {
        return;
    };
    let mut table = every_type();
    let width = 1 + usize::from(*width) % 3;
    table.columns = [a, b, c]
        .iter()
        .take(width)
        .map(|at| table.columns[usize::from(**at) % TYPES.len()].clone())
        .collect();
    let (rows, end) = read(&table, *binary, bytes, bytes.len().max(1));
    assert!(rows.iter().all(|row| row.len() == width));
    let (same_rows, same_end) = read(&table, *binary, bytes, usize::from(*size).max(1));
    assert_eq!(rows, same_rows);
    assert_eq!(end, same_end);
}

type Outcome = (Vec<Vec<kelvin_protocol::Value>>, Result<(), String>);

fn read(table: &Table, binary: u8, bytes: &[u8], size: usize) -> Outcome {
    let (rows, end) = copy_rows(table, binary & 1 == 1, bytes.chunks(size));
    (rows, end.map_err(|error| error.to_string()))
}
