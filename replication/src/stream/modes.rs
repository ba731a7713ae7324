//! How PostgreSQL is asked to send the stream.

use kelvin_protocol::Version;
use kelvin_storage::{Catalog, Column, Table};

use super::assembler::StreamSchema;
use crate::decode::Decoder;
use crate::wire::StreamOptions;
use crate::{Error, Options};

/// SQLSTATE of a value without a send function, as in an array of a type that has none.
const NO_SEND_FUNCTION: &str = "42883";
/// Classes of SQLSTATEs with which send functions may refuse a value: features that are not
/// supported, and data exceptions.
const REFUSALS: [&str; 2] = ["0A", "22"];

/// Chooses for each connection, and remembers what did not work.
#[derive(Debug, Default)]
pub(crate) struct Modes {
    /// Where the stream stood when something came that cannot come in binary form.
    text_at: Option<Version>,
    /// Where it stood when a transaction in progress could not be kept.
    whole_at: Option<Version>,
}

impl Modes {
    /// How to begin a stream at `start`, with this schema.
    ///
    /// INVARIANT: what a mode failed at lies behind the position where it did, so it is tried again
    /// only beyond that position. Each connection comes further, or is lost for another reason.
    pub(crate) fn choose(
        &mut self,
        options: &Options,
        schema: &StreamSchema,
        start: Version,
    ) -> StreamOptions {
        // Changes of a table that is being copied are read when it is copied.
        let settled = schema.outstanding.is_empty();
        self.text_at = self.text_at.filter(|at| start <= *at || !settled);
        let binary = !options.text_stream
            && self.text_at.is_none()
            && not_in_binary(&schema.catalog).is_none();
        self.whole_at = self.whole_at.filter(|at| start <= *at);
        let in_progress = options.spool_bytes > 0 && self.whole_at.is_none();
        StreamOptions {
            binary,
            in_progress,
        }
    }

    /// Takes notice of why a stream in this mode ended, when the next one is to begin at `start`.
    /// Whether the next one is begun otherwise, and so need not wait.
    pub(crate) fn learn(&mut self, mode: StreamOptions, error: &Error, start: Version) -> bool {
        let in_text = matches!(error, Error::NotInBinary(_))
            || matches!(error, Error::Server(error) if is_of_sending(&error.code));
        if mode.binary && in_text {
            self.text_at = Some(start);
            return true;
        }
        if mode.in_progress && matches!(error, Error::Unspooled(_)) {
            self.whole_at = Some(start);
            return true;
        }
        false
    }
}

/// Whether an error may be that of a send function.
fn is_of_sending(code: &str) -> bool {
    code == NO_SEND_FUNCTION || REFUSALS.iter().any(|class| code.starts_with(class))
}

/// Why the tables cannot be streamed in binary form, if they cannot.
pub(super) fn not_in_binary(catalog: &Catalog) -> Option<String> {
    catalog.tables().iter().find_map(|table| {
        let mut columns = table.columns.iter();
        let text = columns.find(|column| !Decoder::takes_binary(column))?;
        Some(taken_as_text(table, text))
    })
}

/// Says that a column is not understood in binary form.
pub(super) fn taken_as_text(table: &Table, column: &Column) -> String {
    format!(
        "column {:?} of table {:?} is of type {}, which is taken as text",
        column.name, table.name, column.upstream_type
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ServerError;

    fn chosen(modes: &mut Modes, start: Version) -> StreamOptions {
        let schema = StreamSchema::new(Arc::default());
        let options = Options {
            spool_bytes: 1,
            ..Options::default()
        };
        modes.choose(&options, &schema, start)
    }

    #[test]
    fn a_stream_that_cannot_be_in_binary_form_is_so_again_only_further_on() {
        let mut modes = Modes::default();
        let mode = chosen(&mut modes, 7);
        assert!(mode.binary);
        assert!(!modes.learn(mode, &Error::Timeout("lost".into()), 7));
        assert!(chosen(&mut modes, 7).binary);
        let missing = Error::Server(ServerError {
            code: NO_SEND_FUNCTION.into(),
            ..ServerError::default()
        });
        assert!(modes.learn(mode, &missing, 7));
        let mode = chosen(&mut modes, 7);
        assert!(!mode.binary);
        // It did not come from the binary form.
        assert!(!modes.learn(mode, &missing, 7));
        assert!(chosen(&mut modes, 8).binary);
    }

    #[test]
    fn transactions_that_could_not_be_kept_are_sent_whole_until_the_stream_is_further_on() {
        let mut modes = Modes::default();
        let mode = chosen(&mut modes, 7);
        assert!(mode.in_progress);
        assert!(modes.learn(mode, &Error::Unspooled("the disk is full".into()), 7));
        let mode = chosen(&mut modes, 7);
        assert!(!mode.in_progress && mode.binary);
        assert!(chosen(&mut modes, 8).in_progress);
    }

    #[test]
    fn an_option_keeps_the_stream_in_text() {
        let options = Options {
            text_stream: true,
            ..Options::default()
        };
        let schema = StreamSchema::new(Arc::default());
        assert!(!Modes::default().choose(&options, &schema, 1).binary);
    }
}
