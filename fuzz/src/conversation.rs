//! Everything a PostgreSQL server says on a replication connection.

use kelvin_replication::{Address, fuzzing};

/// Whether the address has a password (first byte), then all that the server says, from the request
/// to log in to the stream of changes: the talk ends in an error, and what came of the stream
/// before is no more than what was said.
pub fn conversation(data: &[u8]) {
    let Some((password, script)) = data.split_first() else {
        return;
    };
    let secret = if password & 1 == 1 { ":secret" } else { "" };
    let address = format!("postgres://kelvin{secret}@localhost/app?sslmode=disable");
    let address = Address::parse(&address).expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime");
    let talk = fuzzing::conversation(&address, script.to_vec());
    let (messages, _error) = runtime.block_on(talk);
    let bytes: usize = messages.iter().map(bytes::Bytes::len).sum();
    assert!(bytes <= script.len());
}
