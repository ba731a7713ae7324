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

    /// An SQL relation with the columns of `pg_publication_tables`, but for columns that are
    /// generated and not published, which that view lists before PostgreSQL 16.
    ///
    /// INVARIANT: it is made of tables alone. The functions behind that view see the newest state,
    /// whatever snapshot the transaction has, and from PostgreSQL 16 on they wait for locks.
    pub(crate) fn relation(&self) -> String {
        let pending = self.pending.as_deref().map(|name| {
            format!(
                "UNION ALL SELECT 0::oid, {}::name, false, true, false, c.oid
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = 'public' AND {PUBLISHABLE}",
                literal(name)
            )
        });
        PUBLISHED
            .replace("{publishable}", PUBLISHABLE)
            .replace("{pending}", pending.as_deref().unwrap_or_default())
    }
}

/// What PostgreSQL can publish, of `pg_class c`.
const PUBLISHABLE: &str = "c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.oid >= 16384";

/// `lineage` has every partition with each of its ancestors; `listed` what publications name, by
/// table or by schema; `member` that as it is published: by root, or by what holds the rows.
///
/// Conditions and column lists count where the publication has neither all tables nor the schema.
const PUBLISHED: &str = "(
    WITH RECURSIVE lineage (relid, ancestor) AS (
      SELECT i.inhrelid, i.inhparent
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
      WHERE c.relispartition AND NOT i.inhdetachpending
      UNION
      SELECT l.relid, i.inhparent
      FROM lineage l JOIN pg_inherits i ON i.inhrelid = l.ancestor
      JOIN pg_class c ON c.oid = i.inhrelid
      WHERE c.relispartition AND NOT i.inhdetachpending
    ), listed (pubid, pubname, every, by_root, generated, relid) AS (
      SELECT p.oid, p.pubname, p.puballtables, p.pubviaroot,
             coalesce(to_jsonb(p) ->> 'pubgencols' = 's', false), c.oid
      FROM pg_publication p JOIN pg_class c ON p.puballtables OR EXISTS (
          SELECT 1 FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid)
        OR EXISTS (
          SELECT 1 FROM pg_publication_namespace s
          WHERE s.pnpubid = p.oid AND s.pnnspid = c.relnamespace)
      WHERE {publishable}
      {pending}
    ), member AS (
      SELECT l.* FROM listed l WHERE by_root AND NOT EXISTS (
        SELECT 1 FROM lineage a JOIN listed o ON o.relid = a.ancestor
        WHERE a.relid = l.relid AND o.pubid = l.pubid)
      UNION
      SELECT l.* FROM listed l JOIN pg_class c ON c.oid = l.relid
      WHERE NOT by_root AND c.relkind = 'r'
      UNION
      SELECT l.pubid, l.pubname, l.every, l.by_root, l.generated, c.oid
      FROM listed l JOIN lineage a ON a.ancestor = l.relid JOIN pg_class c ON c.oid = a.relid
      WHERE NOT by_root AND {publishable} AND c.relkind = 'r'
    )
    SELECT m.pubname, n.nspname AS schemaname, c.relname AS tablename,
           (SELECT array_agg(a.attname ORDER BY a.attnum) FROM pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
              AND CASE WHEN r.prattrs IS NOT NULL THEN a.attnum = ANY (r.prattrs)
                       ELSE a.attgenerated = '' OR m.generated AND a.attgenerated = 's' END
           ) AS attnames,
           pg_get_expr(r.prqual, r.prrelid) AS rowfilter
    FROM member m
    JOIN pg_class c ON c.oid = m.relid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_publication_rel r ON r.prpubid = m.pubid AND r.prrelid = m.relid
      AND NOT m.every AND NOT EXISTS (
        SELECT 1 FROM pg_publication_namespace s
        WHERE s.pnpubid = m.pubid AND s.pnnspid = c.relnamespace)
)";
