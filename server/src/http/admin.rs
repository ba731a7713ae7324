//! The admin password, and what it protects over HTTP.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use serde_json::Value;
use subtle::ConstantTimeEq as _;

/// Who may see the inside of the server.
#[derive(Clone)]
pub struct AdminGate {
    password: Option<String>,
    development: bool,
}

impl AdminGate {
    /// A gate with this password. Without one it is open in development and shut otherwise.
    #[must_use]
    pub fn new(password: Option<String>, development: bool) -> Self {
        Self {
            password,
            development,
        }
    }

    /// Whether `given` opens the gate. The comparison takes the same time for every wrong password
    /// of the right length.
    #[must_use]
    pub fn allows(&self, given: Option<&str>) -> bool {
        match (&self.password, given) {
            (Some(password), Some(given)) => password.as_bytes().ct_eq(given.as_bytes()).into(),
            (Some(_), None) | (None, Some(_)) => false,
            (None, None) => self.development,
        }
    }

    /// Whether an `Authorization` header opens the gate. The user name does not matter.
    pub(super) fn allows_header(&self, header: Option<&str>) -> bool {
        let password = header.and_then(basic_password);
        self.allows(password.as_deref())
    }
}

fn basic_password(header: &str) -> Option<String> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (_user, password) = decoded.split_once(':')?;
    Some(password.to_owned())
}

/// Where the numbers of `/statz` come from.
pub trait Statz: Send + Sync + 'static {
    /// The groups there are, in the order they are shown.
    fn groups(&self) -> &[&'static str];

    /// The numbers of one group, an object. An error is shown in its place.
    fn collect<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<Value, String>>;
}

/// Answers questions about queries: `/queryz` and `/analyzez`.
pub trait QueryDesk: Send + Sync + 'static {
    /// The live plans that took most time and those with most rows, at most `most` of each.
    fn list(&self, most: usize) -> BoxFuture<'_, Result<Value, Refusal>>;

    /// What a query does.
    fn analyze(&self, query: AskedQuery) -> BoxFuture<'_, Result<Value, Refusal>>;
}

/// The query that is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskedQuery {
    /// A live plan by the beginning of its id.
    Plan(String),
    /// An AST in JSON.
    Ast(String),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whether the question is to blame, and not the state of the server.
    pub wrong_question: bool,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// The question is wrong.
    pub fn wrong(message: impl Into<String>) -> Self {
        Self {
            wrong_question: true,
            message: message.into(),
        }
    }

    /// The server cannot answer now.
    pub fn unable(message: impl Into<String>) -> Self {
        Self {
            wrong_question: false,
            message: message.into(),
        }
    }
}

/// Plans of a list of `/queryz`, unless `n` says otherwise.
const LISTED_PLANS: usize = 20;
/// The most that can be asked for.
const MOST_LISTED_PLANS: usize = 200;

/// How many plans to list, from the query part of an address.
pub(super) fn listed_plans(query: &str) -> usize {
    let asked = parameter(query, "n").and_then(|text| text.parse().ok());
    asked.unwrap_or(LISTED_PLANS).clamp(1, MOST_LISTED_PLANS)
}

/// A parameter from the query part of an address.
pub(super) fn parameter(query: &str, wanted: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let found = pairs.find(|(name, _)| name == wanted);
    found.map(|(_, value)| value.into_owned())
}

/// What was asked of `/statz`.
#[derive(Debug, Default, PartialEq)]
pub(super) struct StatzQuery {
    groups: Vec<String>,
    json: bool,
    pretty: bool,
}

impl StatzQuery {
    pub(super) fn parse(query: &str) -> Self {
        let mut asked = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "group" => asked.groups.extend(value.split(',').map(str::to_owned)),
                "format" => asked.json = value == "json",
                "pretty" => asked.pretty = true,
                _ => {}
            }
        }
        asked
    }

    pub(super) fn content_type(&self) -> &'static str {
        if self.json {
            "application/json"
        } else {
            "text/plain; charset=utf-8"
        }
    }

    /// Collects what was asked; unknown groups are dropped, no group means all.
    pub(super) async fn answer(&self, statz: &dyn Statz) -> String {
        let mut collected: Vec<(&str, Value)> = Vec::new();
        for group in statz.groups() {
            if !self.groups.is_empty() && !self.groups.iter().any(|asked| asked == group) {
                continue;
            }
            let value = match statz.collect(group).await {
                Ok(value) => value,
                Err(message) => serde_json::json!({ "error": message }),
            };
            collected.push((group, value));
        }
        if self.json {
            let all: BTreeMap<_, _> = collected.into_iter().collect();
            let text = if self.pretty {
                serde_json::to_string_pretty(&all)
            } else {
                serde_json::to_string(&all)
            };
            return text.unwrap_or_default();
        }
        let mut text = String::new();
        for (group, value) in &collected {
            text.push_str(&format!("=== {group} ===\n"));
            for (name, value) in value.as_object().into_iter().flatten() {
                text.push_str(&format!("{name}: {value:#}\n"));
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_opens_for_the_password_alone() {
        let gate = AdminGate::new(Some("se:cret".into()), true);
        let header = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert!(gate.allows_header(Some(&header("anyone:se:cret"))));
        for wrong in [
            header(":secret"),
            header("se:cret"),
            "Bearer x".into(),
            "Basic %".into(),
        ] {
            assert!(!gate.allows_header(Some(&wrong)), "{wrong}");
        }
        assert!(!gate.allows_header(None));
    }

    #[test]
    fn the_length_of_a_list_is_bounded() {
        for (query, plans) in [
            ("", 20),
            ("n=3", 3),
            ("n=0", 1),
            ("n=1e9", 20),
            ("n=9999", 200),
        ] {
            assert_eq!(listed_plans(query), plans, "{query}");
        }
        assert_eq!(parameter("a=b&plan=x%20y", "plan").as_deref(), Some("x y"));
    }

    #[test]
    fn without_a_password_the_gate_is_open_in_development_only() {
        assert!(AdminGate::new(None, true).allows(None));
        assert!(!AdminGate::new(None, true).allows(Some("")));
        assert!(!AdminGate::new(None, false).allows(None));
    }

    struct Numbers;

    impl Statz for Numbers {
        fn groups(&self) -> &[&'static str] {
            &["os", "broken"]
        }

        fn collect<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<Value, String>> {
            Box::pin(async move {
                match group {
                    "os" => Ok(serde_json::json!({ "uptime": 5 })),
                    _ => Err("no".to_owned()),
                }
            })
        }
    }

    #[tokio::test]
    async fn a_failing_group_does_not_fail_the_others() {
        let all = StatzQuery::parse("").answer(&Numbers).await;
        assert_eq!(
            all,
            "=== os ===\nuptime: 5\n\n=== broken ===\nerror: \"no\"\n\n"
        );
        let some = StatzQuery::parse("group=os,nope&format=json");
        assert_eq!(some.answer(&Numbers).await, r#"{"os":{"uptime":5}}"#);
    }
}
