//! The sample data: an issue tracker that looks like one.
//!
//! Issue `n` depends on the seed and `n` alone, so the same demo can be made again and a larger one
//! begins like a smaller one. Rows are made one issue at a time, with its comments and labels.

mod people;
mod prose;
mod words;

pub use people::{LABELS, PROJECTS, USERS, user_name};
pub use prose::{body, comment, title};

use fastrand::Rng;

/// Two years, in milliseconds: the oldest issues were opened so long ago.
const AGE_MS: f64 = 2.0 * 365.0 * 86_400_000.0;

/// The newest sample row is this old, so that live edits are always on top.
const QUIET_MS: i64 = 90_000;

/// Most comments of one issue.
const MAX_COMMENTS: usize = 24;

/// Colours of users, projects and labels.
pub const COLORS: [&str; 12] = [
    "#6366f1", "#ec4899", "#f59e0b", "#10b981", "#3b82f6", "#ef4444", "#8b5cf6", "#14b8a6",
    "#f97316", "#84cc16", "#06b6d4", "#d946ef",
];

/// What the data depend on.
#[derive(Debug, Clone, Copy)]
pub struct Content {
    /// Chooses among all the possible databases.
    pub seed: u64,
    /// The present, in milliseconds since 1970; ages are reckoned from it.
    pub now_ms: i64,
    /// How many issues there are.
    pub issues: u32,
}

/// One issue. Users, projects and labels are meant by their index.
#[derive(Debug, Clone, PartialEq)]
pub struct Issue {
    /// 1 for the oldest, which also makes its id.
    pub number: u32,
    /// Index into [`PROJECTS`].
    pub project: usize,
    /// One line.
    pub title: String,
    /// Some paragraphs.
    pub body: String,
    /// Open, or closed.
    pub open: bool,
    /// 0 (none) to 4 (urgent).
    pub priority: i16,
    /// Index of the user who opened it.
    pub creator: usize,
    /// Index of the user who works on it.
    pub assignee: Option<usize>,
    /// When it was opened, in milliseconds since 1970.
    pub created_ms: i64,
    /// When it or its comments last changed, in milliseconds since 1970.
    pub modified_ms: i64,
    /// Oldest first.
    pub comments: Vec<Comment>,
    /// Indexes into [`LABELS`], ascending.
    pub labels: Vec<usize>,
}

/// What somebody said about an issue.
#[derive(Debug, Clone, PartialEq)]
pub struct Comment {
    /// Index of the user who said it.
    pub author: usize,
    /// One paragraph.
    pub body: String,
    /// When, in milliseconds since 1970.
    pub created_ms: i64,
}

/// The id of an issue of the sample data.
#[must_use]
pub fn issue_id(number: u32) -> String {
    format!("issue-{number}")
}

/// The id of a user, by index.
#[must_use]
pub fn user_id(index: usize) -> String {
    format!("user-{:03}", index + 1)
}

/// The id of a project, by index.
#[must_use]
pub fn project_id(index: usize) -> String {
    PROJECTS
        .get(index)
        .map_or_else(String::new, |(key, _)| key.to_lowercase())
}

/// The id of a label, by index.
#[must_use]
pub fn label_id(index: usize) -> String {
    LABELS
        .get(index)
        .map_or_else(String::new, |(name, _)| name.replace(' ', "-"))
}

/// A colour, by any number.
#[must_use]
pub fn color(index: usize) -> &'static str {
    COLORS
        .get(index % COLORS.len())
        .copied()
        .unwrap_or("#6366f1")
}

impl Content {
    /// The issue of a number from 1 to `issues`.
    #[must_use]
    pub fn issue(&self, number: u32) -> Issue {
        let mut rng = Rng::with_seed(self.seed ^ (u64::from(number) << 20));
        let created_ms = self.created(number, &mut rng);
        let newest = self.now_ms - QUIET_MS;
        // Most projects are small and a few are large.
        let project = rng
            .usize(0..PROJECTS.len())
            .min(rng.usize(0..PROJECTS.len()));
        let age = 1.0 - f64::from(number) / f64::from(self.issues.max(1));
        let open = rng.f64() > 0.25 + 0.55 * age.sqrt();
        let comments = comments(&mut rng, created_ms, newest);
        let last = comments
            .last()
            .map_or(created_ms, |comment| comment.created_ms);
        let modified_ms = (last + rng.i64(0..7_200_000))
            .min(newest - rng.i64(0..60_000))
            .max(last);
        Issue {
            number,
            project,
            title: title(&mut rng),
            body: body(&mut rng),
            open,
            priority: [0, 0, 1, 1, 2, 2, 2, 3, 3, 4]
                .get(rng.usize(0..10))
                .copied()
                .unwrap_or(0),
            creator: rng.usize(0..USERS),
            assignee: (rng.u8(0..10) < 7).then(|| rng.usize(0..USERS)),
            created_ms,
            modified_ms,
            comments,
            labels: labels(&mut rng),
        }
    }

    /// Numbers grow with time, and more issues were opened lately than long ago.
    fn created(&self, number: u32, rng: &mut Rng) -> i64 {
        let total = f64::from(self.issues.max(1));
        let age = (f64::from(self.issues.saturating_sub(number)) + rng.f64()) / total;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "two years of milliseconds fit"
        )]
        let ago = (age.powf(1.4) * AGE_MS) as i64;
        self.now_ms - QUIET_MS - 60_000 - ago
    }
}

/// Three on average, most of them soon after the issue was opened.
fn comments(rng: &mut Rng, created_ms: i64, newest_ms: i64) -> Vec<Comment> {
    let mut count = 0;
    while count < MAX_COMMENTS && rng.u8(0..4) < 3 {
        count += 1;
    }
    let mut at = created_ms;
    let mut made = Vec::with_capacity(count);
    for _ in 0..count {
        at += rng.i64(60_000..6 * 3_600_000) * rng.i64(1..6);
        if at >= newest_ms - 60_000 {
            at = newest_ms - 60_000;
        }
        made.push(Comment {
            author: rng.usize(0..USERS),
            body: comment(rng),
            created_ms: at,
        });
    }
    made
}

/// One and a half on average.
fn labels(rng: &mut Rng) -> Vec<usize> {
    let count = [0, 1, 1, 1, 2, 2, 2, 3]
        .get(rng.usize(0..8))
        .copied()
        .unwrap_or(0);
    let mut chosen: Vec<usize> = (0..count).map(|_| rng.usize(0..LABELS.len())).collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: Content = Content {
        seed: 7,
        now_ms: 1_700_000_000_000,
        issues: 2_000,
    };

    #[test]
    fn the_same_issue_comes_out_the_same_again() {
        assert_eq!(CONTENT.issue(77), CONTENT.issue(77));
        assert_ne!(CONTENT.issue(77).title, CONTENT.issue(78).title);
    }

    #[test]
    fn times_are_in_order_and_in_the_past() {
        for number in 1..=CONTENT.issues {
            let issue = CONTENT.issue(number);
            let mut last = issue.created_ms;
            for comment in &issue.comments {
                assert!(comment.created_ms >= last, "issue {number}");
                last = comment.created_ms;
            }
            assert!(issue.modified_ms >= last && issue.modified_ms < CONTENT.now_ms);
        }
    }

    #[test]
    fn there_is_enough_of_everything() {
        let issues: Vec<Issue> = (1..=CONTENT.issues)
            .map(|number| CONTENT.issue(number))
            .collect();
        let comments: usize = issues.iter().map(|issue| issue.comments.len()).sum();
        let labels: usize = issues.iter().map(|issue| issue.labels.len()).sum();
        assert!((5_000..7_000).contains(&comments), "{comments} comments");
        assert!((2_500..3_500).contains(&labels), "{labels} labels");
        assert!(issues.iter().any(|issue| issue.open) && issues.iter().any(|issue| !issue.open));
    }
}
