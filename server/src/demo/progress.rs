//! Says what is going on: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Elsewhere than on a terminal, a line is printed this often.
const LINE_EVERY_PERCENT: u32 = 25;

/// The spinner turns this often.
const SPIN: Duration = Duration::from_millis(90);

/// The progress of a step that is done in countable parts.
#[derive(Debug, Clone)]
pub struct Progress {
    bar: Option<ProgressBar>,
    total: u32,
    noun: &'static str,
}

impl Progress {
    /// Begins a step of `total` parts.
    #[must_use]
    pub fn start(doing: &'static str, noun: &'static str, total: u32) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(u64::from(total));
            let template = "  {msg:<28} {bar:32.cyan/blue} {human_pos}/{human_len} {eta}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("━╸─"));
            }
            bar.set_message(doing);
            bar
        });
        if bar.is_none() {
            eprintln!("  {doing}: {total} {noun}");
        }
        Self { bar, total, noun }
    }

    /// So many parts are done.
    pub fn at(&self, done: u32) {
        if let Some(bar) = &self.bar {
            if done.is_multiple_of(512) {
                bar.set_position(u64::from(done));
            }
            return;
        }
        let step = (self.total / (100 / LINE_EVERY_PERCENT)).max(1);
        if done.is_multiple_of(step) && done < self.total {
            eprintln!("    {done} of {} {}", self.total, self.noun);
        }
    }

    /// The step is done.
    pub fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A step without parts: a spinner on a terminal while it lasts, then a line with how long it took.
#[derive(Debug)]
pub struct Step {
    begun: Instant,
    /// Cleared when dropped, so that an error message begins on a clean line.
    spinner: Option<ProgressBar>,
}

impl Step {
    /// Begins it.
    #[must_use]
    pub fn start(doing: &'static str) -> Self {
        Self::begun_at(doing, Instant::now())
    }

    /// Goes on with a step of which a part was shown in another way.
    #[must_use]
    pub fn begun_at(doing: &'static str, begun: Instant) -> Self {
        let spinner = std::io::stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("  {spinner:.cyan} {msg}") {
                spinner.set_style(style);
            }
            spinner.set_message(doing);
            spinner.enable_steady_tick(SPIN);
            spinner
        });
        Self { begun, spinner }
    }

    /// Prints what was done.
    pub fn done(self, what: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        eprintln!("  ✓ {what} ({:.1} s)", self.begun.elapsed().as_secs_f64());
    }
}
