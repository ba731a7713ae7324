//! What the demo prints once everything runs.

use super::Options;

/// The facts of a running demo.
#[derive(Debug)]
pub struct Summary<'a> {
    /// What was asked for.
    pub options: &'a Options,
    /// The port the page really has.
    pub web_port: u16,
    /// A `psql` call for the database.
    pub psql: &'a str,
}

impl Summary<'_> {
    /// The text, for a terminal or a pipe.
    #[must_use]
    pub fn text(&self) -> String {
        let Self {
            options,
            web_port,
            psql,
        } = self;
        let activity = if options.activity > 0.0 {
            format!(
                "Simulated people make {} edits a second: watch the rows.",
                options.activity
            )
        } else {
            "Nothing changes by itself (--activity 0).".to_owned()
        };
        let number = options.issues;
        format!(
            "\n  kelvin demo is running\n\n    \
             Open    http://localhost:{web_port}\n    \
             Sync    http://localhost:{sync_port} (for any Zero client)\n    \
             SQL     {psql}\n\n  \
             {activity} Edit in two tabs, or in SQL:\n\n    \
             UPDATE issues SET title = 'Hello from SQL' WHERE number = {number};\n\n  \
             Everything is thrown away at the end. Ctrl-C ends it.\n",
            sync_port = options.port,
        )
    }
}
