//! What standard output is: how wide, and whether colours make sense.

use std::io::IsTerminal as _;

/// Width where nobody says, as in a file; in characters.
const DEFAULT_WIDTH: usize = 100;
/// Narrower than this the table is not made, whatever the terminal says.
const LEAST_WIDTH: usize = 60;
/// Longer lines are hard to read.
const MOST_WIDTH: usize = 140;

/// How to write for whoever reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terminal {
    /// Characters in a line.
    pub(super) width: usize,
    pub(super) colours: bool,
}

impl Terminal {
    /// Standard output as it is. `COLUMNS` wins over what the terminal says, and `NO_COLOR` keeps
    /// colours out.
    pub(super) fn of_stdout() -> Self {
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        let told = std::env::var("COLUMNS")
            .ok()
            .and_then(|text| text.parse().ok());
        let size = || rustix::termios::tcgetwinsize(&stdout).ok();
        let seen = || {
            size()
                .map(|size| usize::from(size.ws_col))
                .filter(|width| *width > 0)
        };
        let width = told.or_else(|| if terminal { seen() } else { None });
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            width: width
                .unwrap_or(DEFAULT_WIDTH)
                .clamp(LEAST_WIDTH, MOST_WIDTH),
            colours: terminal && !dumb && !set("NO_COLOR"),
        }
    }
}
