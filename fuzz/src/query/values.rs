//! Types of columns, and values where mistakes are likely.

use kelvin_protocol::{Value, ValueType};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::choices::Choices;

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "they are named after PostgreSQL's types")]
pub enum Kind {
    Float8,
    Int4,
    Int8,
    Text,
    Bool,
    Json,
}

/// Types of columns that queries may compare.
pub(crate) const COMPARABLE: [Kind; 5] =
    [Kind::Int4, Kind::Text, Kind::Float8, Kind::Bool, Kind::Int8];

/// Numbers that are doubles, at their edges.
const FLOATS: [&str; 18] = [
    "1.5",
    "-1",
    "-0",
    "0.1",
    "1e300",
    "-1e300",
    "5e-324",
    "9007199254740991",
    "9007199254740992",
    "9007199254740994",
    "-9007199254740992",
    "1e17",
    "1e19",
    "1e21",
    "-1e21",
    "Infinity",
    "-Infinity",
    "NaN",
];
const INT4S: [&str; 3] = ["-1", "2147483647", "-2147483648"];
const INT8S: [&str; 9] = [
    "-1",
    "9007199254740991",
    "9007199254740992",
    "9007199254740993",
    "-9007199254740993",
    "9223372036854775807",
    "9223372036854775806",
    "-9223372036854775808",
    "2147483648",
];
/// Few, so that they meet; case pairs, LIKE's own characters, what sorts otherwise in UTF-16, what
/// looks alike but is not, what changes its length in lower case.
const TEXTS: [&str; 32] = [
    "",
    "a",
    "A",
    "b",
    "ab",
    "aB",
    "AB",
    "%",
    "_",
    "\\",
    "a%b",
    "a_b",
    "a\\b",
    "ä",
    "Ä",
    "a\u{308}",
    "A\u{308}",
    "\u{1f600}",
    "\u{1f600}a",
    "\u{ff5e}",
    "ß",
    "ss",
    "\u{1e9e}",
    "İ",
    "ı",
    "\u{212a}",
    "k",
    "ΑΣ",
    "ας",
    "ασ",
    "a\nb",
    " a",
];
const JSONS: [&str; 6] = [
    "{}",
    "[1,null,\"é\"]",
    "\"a\"",
    "0",
    "true",
    "{\"a\": {\"b\": []}}",
];

impl Kind {
    /// Its name in PostgreSQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Float8 => "float8",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Text => "text",
            Self::Bool => "bool",
            Self::Json => "json",
        }
    }

    /// Its number in PostgreSQL.
    #[must_use]
    pub fn oid(self) -> u32 {
        match self {
            Self::Float8 => 701,
            Self::Int4 => 23,
            Self::Int8 => 20,
            Self::Text => 25,
            Self::Bool => 16,
            Self::Json => 114,
        }
    }

    /// What it is for ZQL.
    #[must_use]
    pub fn value_type(self) -> ValueType {
        match self {
            Self::Float8 | Self::Int4 | Self::Int8 => ValueType::Number,
            Self::Text => ValueType::String,
            Self::Bool => ValueType::Boolean,
            Self::Json => ValueType::Json,
        }
    }

    /// The value of a text.
    #[must_use]
    pub fn value(self, text: Option<&str>) -> Value {
        let Some(text) = text else {
            return Value::Null;
        };
        match self {
            Self::Float8 => Value::from(text.parse::<f64>().expect("a double")),
            Self::Int4 | Self::Int8 => Value::from_i64(text.parse().expect("an integer")),
            Self::Text => Value::from(text),
            Self::Bool => Value::from(text == "true"),
            Self::Json => Value::Json(text.into()),
        }
    }

    /// A literal as JavaScript writes it: whole numbers below 10^21 without an exponent.
    #[must_use]
    pub fn literal(self, text: &str) -> Json {
        match self {
            Self::Float8 => {
                let number: f64 = text.parse().expect("a double");
                if number.fract() == 0.0 && number.abs() < 9e18 {
                    #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
                    return json!(number as i64);
                }
                json!(if number.is_finite() { number } else { 0.0 })
            }
            Self::Int4 | Self::Int8 => json!(text.parse::<i64>().expect("an integer")),
            Self::Text => json!(text),
            Self::Bool => json!(text == "true"),
            Self::Json => serde_json::from_str(text).expect("JSON"),
        }
    }

    /// Any value of this type.
    fn any(self, choices: &mut Choices<'_>) -> String {
        let edges: &[&str] = match self {
            Self::Float8 => &FLOATS,
            Self::Int4 => &INT4S,
            Self::Int8 => &INT8S,
            Self::Text => return (*choices.pick(&TEXTS)).into(),
            Self::Bool => return choices.chance(50).to_string(),
            Self::Json => return (*choices.pick(&JSONS)).into(),
        };
        if choices.chance(25) {
            return (*choices.pick(edges)).into();
        }
        choices.below(5).to_string()
    }
}

/// The few values of each type that a case mostly uses, so that rows tie, meet and match.
#[derive(Debug)]
pub(crate) struct Pools([Vec<String>; 6]);

impl Pools {
    /// Values in a pool.
    const SIZE: usize = 4;

    pub(crate) fn random(choices: &mut Choices<'_>) -> Self {
        let kinds = [
            Kind::Float8,
            Kind::Int4,
            Kind::Int8,
            Kind::Text,
            Kind::Bool,
            Kind::Json,
        ];
        let mut pools = kinds.map(|kind| (0..Self::SIZE).map(|_| kind.any(choices)).collect());
        if choices.chance(8) {
            // An index of two columns holds only the beginning of the longer of these.
            let length = *choices.pick(&[520, 520, 17_000]);
            let texts: &mut Vec<String> = &mut pools[Kind::Text as usize];
            for text in texts.iter_mut().skip(1) {
                *text = format!("{}{text}", "x".repeat(length));
            }
        }
        Self(pools)
    }

    /// Whether there are texts that an index holds only the beginning of.
    pub(crate) fn are_long(&self) -> bool {
        let texts = &self.0[Kind::Text as usize];
        texts.iter().any(|text| text.len() > 1000)
    }

    /// A value of the type; `roomy` where it has to be unlike others.
    pub(crate) fn value(&self, choices: &mut Choices<'_>, kind: Kind, roomy: bool) -> String {
        if roomy && choices.chance(60) {
            match kind {
                Kind::Text => return format!("u{}", choices.below(20)),
                Kind::Int4 | Kind::Int8 | Kind::Float8 => return choices.below(14).to_string(),
                Kind::Bool | Kind::Json => {}
            }
        }
        if choices.chance(88) {
            let value = choices.pick(&self.0[kind as usize]);
            // Primary keys have to fit into those of the store.
            if !roomy || value.len() < 1000 {
                return value.clone();
            }
        }
        kind.any(choices)
    }
}
