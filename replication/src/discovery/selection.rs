//! Which tables are looked at: those of publications, one of which may not be there yet.

use crate::quote::literal;

/// What is published, or will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Names of publications; those that do not exist publish nothing.
    pub(crate) publications: Vec<String>,
    /// A publication of all tables of schema `public`, by partition root, that is still to be
    /// created. One of `publications`.
    pub(crate) pending: Option<String>,
}

impl Selection {
    /// What publications that exist publish.
    pub(crate) fn of(publications: &[String]) -> Self {
        Self {
            publications: publications.to_vec(),
            pending: None,
        }
    }

    /// An SQL relation with the columns of `pg_publication_tables`.
    pub(crate) fn relation(&self) -> String {
        let Some(pending) = &self.pending else {
            return "pg_publication_tables".into();
        };
        // A partition is published as part of its root where the root is published too.
        format!(
            "(SELECT pubname, schemaname, tablename, attnames, rowfilter
              FROM pg_publication_tables
              UNION ALL
              SELECT {}::name, n.nspname, c.relname,
                     (SELECT array_agg(a.attname ORDER BY a.attnum) FROM pg_attribute a
                      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                        AND a.attgenerated = ''),
                     NULL::text
              FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
                AND NOT EXISTS (
                  SELECT 1 FROM pg_partition_ancestors(c.oid) AS a (relid)
                  JOIN pg_class r ON r.oid = a.relid
                  WHERE a.relid <> c.oid AND r.relnamespace = c.relnamespace))",
            literal(pending)
        )
    }
}
