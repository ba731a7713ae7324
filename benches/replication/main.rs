//! What it costs to decode what PostgreSQL sends. See the README.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench fails by panicking and uses its share of what is shared"
)]

#[path = "../measure.rs"]
mod measure;
#[path = "../world.rs"]
mod world;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kelvin_replication::fuzzing::{Stream, copy_rows};
use kelvin_storage::Table;
use measure::{Measure, size};
use world::ISSUE;

/// Bytes of a piece of a COPY.
const PIECE: usize = 8192;
const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// The values of an issue as PostgreSQL prints them, `modified` apart: it differs by form.
fn texts(id: usize) -> [String; 6] {
    let row = world::issue(id, id, "member 17");
    let text = |at: usize| row[at].as_str().unwrap().to_owned();
    let modified = format!("2026-01-{:02} 12:{:02}:09.123+00", 1 + id % 28, id % 60);
    [
        id.to_string(),
        text(1),
        text(2),
        "t".into(),
        modified,
        text(5),
    ]
}

/// The values of an issue as send functions write them.
fn binaries(id: usize) -> [Vec<u8>; 6] {
    let [_, title, body, _, _, owner] = texts(id);
    let number = i32::try_from(id).unwrap().to_be_bytes();
    let modified = (id as i64 * 1_000_003).to_be_bytes();
    [
        number.to_vec(),
        title.into(),
        body.into(),
        vec![1],
        modified.to_vec(),
        owner.into(),
    ]
}

fn stream(table: &Table, rows: usize, binary: bool) -> Vec<Bytes> {
    let mut messages = Vec::with_capacity(rows + 3);
    let mut message = BytesMut::new();
    message.put_u8(b'B');
    message.put_u64(9);
    message.put_bytes(0, 12);
    messages.push(message.split().freeze());
    message.put_u8(b'R');
    message.put_u32(table.oid);
    message.put_slice(b"public\0issue\0d");
    message.put_u16(6);
    for (at, column) in table.columns.iter().enumerate() {
        message.put_u8(u8::from(at == 0));
        message.put_slice(column.name.as_bytes());
        message.put_u8(0);
        message.put_u32(column.type_oid);
        message.put_i32(-1);
    }
    messages.push(message.split().freeze());
    for id in 0..rows {
        message.put_u8(b'I');
        message.put_u32(table.oid);
        message.put_u8(b'N');
        message.put_u16(6);
        let (form, fields) = if binary {
            (b'b', binaries(id))
        } else {
            (b't', texts(id).map(String::into_bytes))
        };
        for field in fields {
            message.put_u8(form);
            message.put_u32(u32::try_from(field.len()).unwrap());
            message.put_slice(&field);
        }
        messages.push(message.split().freeze());
    }
    message.put_slice(b"C\0");
    message.put_u64(9);
    message.put_u64(10);
    message.put_u64(0);
    messages.push(message.freeze());
    messages
}

fn text_copy(rows: usize) -> Vec<u8> {
    let line = |id| texts(id).join("\t") + "\n";
    (0..rows).map(line).collect::<String>().into_bytes()
}

fn binary_copy(rows: usize) -> Vec<u8> {
    let mut copy = COPY_HEADER.to_vec();
    for id in 0..rows {
        copy.put_u16(6);
        for field in binaries(id) {
            copy.put_u32(u32::try_from(field.len()).unwrap());
            copy.put_slice(&field);
        }
    }
    copy.put_i16(-1);
    copy
}

/// Copies every field out of the messages' rows into a text, and knows nothing of types.
fn split_only(messages: &[Bytes]) -> usize {
    let mut fields = Vec::new();
    for message in messages.iter().filter(|message| message[0] == b'I') {
        let mut rest = &message[8..];
        let mut row = Vec::with_capacity(6);
        while let Some((&[_, a, b, c, d], after)) = rest.split_first_chunk() {
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            let (field, after) = after.split_at(length);
            row.push(std::str::from_utf8(field).unwrap().to_owned());
            rest = after;
        }
        fields.push(row);
    }
    fields.len()
}

fn main() {
    let mut measure = Measure::new();
    let catalog = Arc::new(world::catalog(false));
    let table = catalog.table_by_id(ISSUE).unwrap();
    let rows = size("DECODE_ROWS", 10_000);
    let group = format!("decode {rows} rows");
    let messages = stream(table, rows, false);
    let in_binary = stream(table, rows, true);
    for (name, messages) in [
        ("stream in text", &messages),
        ("stream in binary", &in_binary),
    ] {
        measure.run(&group, name, rows, || {
            let mut stream = Stream::new(catalog.clone());
            let last = messages
                .iter()
                .cloned()
                .map(|message| stream.push(message).unwrap());
            let transaction = last.last().flatten().unwrap();
            assert_eq!(transaction.ops.len(), rows);
            transaction
        });
    }
    for (name, binary, bytes) in [
        ("copy in binary", true, binary_copy(rows)),
        ("copy in text", false, text_copy(rows)),
    ] {
        measure.run(&group, name, rows, || {
            let (read, end) = copy_rows(table, binary, bytes.chunks(PIECE));
            end.unwrap();
            assert_eq!(read.len(), rows);
            read
        });
    }
    measure.run(&group, "split into texts only", rows, || {
        split_only(&messages)
    });
    measure.finish();
}
