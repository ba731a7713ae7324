//! Users, projects and labels: the small tables, written by hand.

use super::words::{FAMILY_NAMES, GIVEN_NAMES};

/// How many users there are.
pub const USERS: usize = 100;

/// Key and name of every project; the first ones get the most issues.
pub const PROJECTS: [(&str, &str); 20] = [
    ("WEB", "Web app"),
    ("API", "Public API"),
    ("SYN", "Sync engine"),
    ("IOS", "Mobile (iOS)"),
    ("AND", "Mobile (Android)"),
    ("DSK", "Desktop app"),
    ("BIL", "Billing"),
    ("SRC", "Search"),
    ("DES", "Design system"),
    ("AUT", "Sign-in"),
    ("NOT", "Notifications"),
    ("EDI", "Editor"),
    ("INT", "Integrations"),
    ("REP", "Reports"),
    ("OPS", "Operations"),
    ("DAT", "Data platform"),
    ("DOC", "Documentation"),
    ("SEC", "Security"),
    ("GRO", "Onboarding"),
    ("LAB", "Research"),
];

/// Name and colour of every label.
pub const LABELS: [(&str, &str); 15] = [
    ("bug", "#ef4444"),
    ("feature", "#6366f1"),
    ("regression", "#dc2626"),
    ("performance", "#f59e0b"),
    ("accessibility", "#06b6d4"),
    ("design", "#ec4899"),
    ("docs", "#3b82f6"),
    ("good first issue", "#10b981"),
    ("customer", "#8b5cf6"),
    ("flaky test", "#f97316"),
    ("refactor", "#64748b"),
    ("security", "#b91c1c"),
    ("mobile", "#14b8a6"),
    ("needs info", "#a3a3a3"),
    ("question", "#84cc16"),
];

/// The name of a user, by index; no two of the [`USERS`] share one.
#[must_use]
pub fn user_name(index: usize) -> String {
    let given = GIVEN_NAMES
        .get(index % GIVEN_NAMES.len())
        .copied()
        .unwrap_or("Kim");
    let turn = index + index / GIVEN_NAMES.len() * 7;
    let family = FAMILY_NAMES
        .get(turn % FAMILY_NAMES.len())
        .copied()
        .unwrap_or("Lee");
    format!("{given} {family}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_and_keys_are_unique() {
        let names: BTreeSet<String> = (0..USERS).map(user_name).collect();
        assert_eq!(names.len(), USERS);
        let keys: BTreeSet<&str> = PROJECTS.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys.len(), PROJECTS.len());
        let labels: BTreeSet<&str> = LABELS.iter().map(|(name, _)| *name).collect();
        assert_eq!(labels.len(), LABELS.len());
    }
}
