//! SQL text and its parameters.

use tokio_postgres::types::{ToSql, Type};

/// A parameter. Each has one type, so that no statement has to be prepared.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Param {
    Text(String),
    Number(f64),
    Flag(bool),
    Texts(Vec<String>),
    Numbers(Vec<f64>),
    Flags(Vec<bool>),
}

impl Param {
    fn bound(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Self::Text(text) => (text, Type::TEXT),
            Self::Number(number) => (number, Type::FLOAT8),
            Self::Flag(flag) => (flag, Type::BOOL),
            Self::Texts(texts) => (texts, Type::TEXT_ARRAY),
            Self::Numbers(numbers) => (numbers, Type::FLOAT8_ARRAY),
            Self::Flags(flags) => (flags, Type::BOOL_ARRAY),
        }
    }
}

/// A statement.
#[derive(Debug, Default)]
pub(super) struct Statement {
    pub(super) text: String,
    params: Vec<Param>,
}

impl Statement {
    /// Appends text.
    pub(super) fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Adds a parameter; returns how it is called.
    pub(super) fn param(&mut self, param: Param) -> String {
        self.params.push(param);
        format!("${}", self.params.len())
    }

    /// The parameters with their types.
    pub(super) fn bound(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.params.iter().map(Param::bound).collect()
    }
}

/// A quoted identifier.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `schema.table`, both quoted.
pub(super) fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_in_names_are_doubled() {
        assert_eq!(qualified("a\"b", "c.d"), "\"a\"\"b\".\"c.d\"");
    }
}
