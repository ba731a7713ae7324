//! The deployed permissions, as they stand in `{app}.permissions`.

use std::collections::BTreeMap;

use kelvin_protocol::Condition;
use serde::Deserialize;

/// The permissions of all tables.
///
/// A table that is not in here can neither be read nor written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Permissions {
    #[serde(default)]
    tables: BTreeMap<String, TablePermissions>,
}

/// Rules for rows and for single columns of one table.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct TablePermissions {
    row: Option<PermissionAsset>,
    cell: Option<BTreeMap<String, PermissionAsset>>,
}

/// Rules per operation.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct PermissionAsset {
    /// Who may see a row. Nothing for a single column.
    pub select: Option<Policy>,
    /// Who may insert.
    pub insert: Option<Policy>,
    /// Who may update.
    pub update: Option<UpdateRules>,
    /// Who may delete.
    pub delete: Option<Policy>,
}

/// Rules of an update, for the row as it was and as it becomes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateRules {
    /// For the row as it was.
    pub pre_mutation: Option<Policy>,
    /// For the row as it becomes.
    pub post_mutation: Option<Policy>,
}

/// Conditions of which one has to hold; none at all holds never.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Policy(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Rule(Allow, Condition);

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Allow {
    Allow,
}

/// The deployed permissions cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the deployed permissions cannot be read; deploy them again: {0}")]
pub struct PermissionsError(#[from] serde_json::Error);

impl Permissions {
    /// Reads the JSON of `{app}.permissions`; `None` for SQL NULL, which permits nothing.
    ///
    /// # Errors
    /// It is not what `zero-deploy-permissions` writes.
    pub fn parse(json: Option<&str>) -> Result<Self, PermissionsError> {
        match json {
            None | Some("null") => Ok(Self::default()),
            Some(json) => Ok(serde_json::from_str(json)?),
        }
    }

    /// Rules for rows of `table`.
    #[must_use]
    pub fn row(&self, table: &str) -> Option<&PermissionAsset> {
        self.tables.get(table)?.row.as_ref()
    }

    /// Rules for single columns of `table`.
    pub fn cells(&self, table: &str) -> impl Iterator<Item = (&str, &PermissionAsset)> {
        let cells = self.tables.get(table).and_then(|table| table.cell.as_ref());
        cells
            .into_iter()
            .flatten()
            .map(|(column, asset)| (column.as_str(), asset))
    }
}

impl Policy {
    /// The condition a row has to meet: any of the rules.
    #[must_use]
    pub fn condition(&self) -> Condition {
        Condition::Or {
            conditions: self
                .0
                .iter()
                .map(|Rule(_, condition)| condition.clone())
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_deployed_permits_nothing() {
        for json in [None, Some("null"), Some("{}"), Some(r#"{"tables":{}}"#)] {
            assert!(Permissions::parse(json).unwrap().row("issue").is_none());
        }
        assert!(Permissions::parse(Some("[")).is_err());
        assert!(Permissions::parse(Some(r#"{"tables":{"a":{"row":5}}}"#)).is_err());
    }

    #[test]
    fn rules_of_every_operation_are_read() {
        let json = r#"{"tables":{"issue":{
            "row":{"select":[["allow",{"type":"and","conditions":[]}]],
                   "update":{"preMutation":[],"postMutation":[["allow",{"type":"simple","op":"=",
                     "left":{"type":"static","anchor":"authData","field":"sub"},
                     "right":{"type":"column","name":"owner"}}]]}},
            "cell":{"title":{"insert":[]}}}}}"#;
        let permissions = Permissions::parse(Some(json)).unwrap();
        let row = permissions.row("issue").unwrap();
        assert!(row.insert.is_none() && row.select.is_some());
        assert_eq!(
            row.update.as_ref().unwrap().pre_mutation,
            Some(Policy::default())
        );
        assert_eq!(permissions.cells("issue").count(), 1);
        assert_eq!(permissions.cells("other").count(), 0);
    }
}
