//! Random statements over the tables there are.
//!
//! Left out is what is known not to be followed (see COMPAT.md): `ALTER TYPE … USING` to the same type;
//! partitions that are made, filled and attached in one transaction, so only what was a partition
//! is attached; and tables that move to another schema and back between two looks, which is why
//! they move at most once in a step.

use fastrand::Rng;

use super::tables::{Column, Table};
use super::value::{KEYS, TYPES, value};

/// How tables come to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publishing {
    /// All of schema `public`, by kelvin's own publication.
    Default,
    /// All of two schemas.
    Schemas,
    /// Tables one by one.
    Tables,
}

/// Makes up statements.
pub(super) struct Generator {
    pub(super) rng: Rng,
    pub(super) publishing: Publishing,
    /// Whether a table may still move to another schema.
    pub(super) moves: bool,
    /// Distinguishes names of this generator from those of others.
    pub(super) prefix: String,
    pub(super) named: u32,
}

impl Generator {
    fn name(&mut self, what: &str) -> String {
        self.named += 1;
        format!("{what}{}{}", self.prefix, self.named)
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        (!of.is_empty()).then(|| &of[self.rng.usize(..of.len())])
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.rng.u8(..100) < percent
    }

    /// A statement, or several that belong together.
    pub(super) fn statement(&mut self, tables: &[Table]) -> String {
        let Some(table) = self.pick(tables).cloned() else {
            return self.create();
        };
        let made = if self.chance(60) {
            self.rows(&table)
        } else if tables.len() < 3 && self.chance(30) {
            Some(self.create())
        } else {
            self.form(&table, tables)
        };
        made.unwrap_or_else(|| self.insert(&table))
    }

    /// A statement about rows.
    pub(super) fn rows(&mut self, table: &Table) -> Option<String> {
        let name = table.qualified();
        let some = format!(
            "abs(hashtext(it::text)) % {} = 0",
            [1, 2, 3, 5, 9][self.rng.usize(..5)]
        );
        if !table.changeable && self.chance(70) {
            return Some(self.insert(table));
        }
        match self.rng.u8(..20) {
            0..9 => Some(self.insert(table)),
            9..14 => {
                let columns: Vec<_> = table.columns.iter().filter(|it| !it.generated).collect();
                let column = *self.pick(&columns)?;
                let to = self.change(column);
                Some(format!(
                    "UPDATE {name} AS it SET {} = {to} WHERE {some}",
                    column.name
                ))
            }
            14 => {
                // Some columns are written as they are, large ones among them.
                let column = table.columns.iter().find(|it| !it.generated)?;
                let column = &column.name;
                Some(format!(
                    "UPDATE {name} AS it SET {column} = {column} WHERE {some}"
                ))
            }
            15..18 => Some(format!("DELETE FROM {name} AS it WHERE {some}")),
            18 if self.chance(40) => Some(format!("TRUNCATE {name}")),
            _ => {
                let (insert, name) = (self.insert(table), self.name("s"));
                Some(format!(
                    "SAVEPOINT {name}; {insert}; ROLLBACK TO {name}; {insert}"
                ))
            }
        }
    }

    /// What a column is set to. Keys get values that stay apart from each other.
    fn change(&mut self, column: &Column) -> String {
        match column.of.as_str() {
            "integer" | "bigint" if column.key => {
                format!(
                    "(it.{} + 1000 * {}) % 100000",
                    column.name,
                    self.rng.u8(1..90)
                )
            }
            "text" if column.key => format!("it.{} || '{}'", column.name, self.rng.u8(..10)),
            of => value(&mut self.rng, of, !column.not_null),
        }
    }

    pub(super) fn insert(&mut self, table: &Table) -> String {
        let mut columns: Vec<&Column> = Vec::new();
        for column in &table.columns {
            if !column.generated && (column.key || column.not_null || self.chance(90)) {
                columns.push(column);
            }
        }
        if columns.is_empty() {
            return format!("INSERT INTO {} DEFAULT VALUES", table.qualified());
        }
        let rows: Vec<_> = (0..self.rng.usize(1..6))
            .map(|_| {
                let values: Vec<_> = columns
                    .iter()
                    .map(|it| value(&mut self.rng, &it.of, !it.not_null))
                    .collect();
                format!("({})", values.join(", "))
            })
            .collect();
        let names: Vec<_> = columns.iter().map(|it| it.name.as_str()).collect();
        format!(
            "INSERT INTO {} ({}) VALUES {} ON CONFLICT DO NOTHING",
            table.qualified(),
            names.join(", "),
            rows.join(", ")
        )
    }

    /// A new table, published where that has to be said.
    pub(super) fn create(&mut self) -> String {
        let name = self.name("t");
        let partitioned = self.chance(20);
        let keys = if partitioned { 1 } else { self.rng.usize(..3) };
        let mut columns: Vec<String> = (0..keys)
            .map(|at| {
                let of = if partitioned {
                    "integer"
                } else {
                    self.rng.choice(KEYS).unwrap()
                };
                format!("k{at} {of} NOT NULL")
            })
            .collect();
        for at in 0..self.rng.usize(1..6) {
            columns.push(format!("c{at} {}", self.rng.choice(TYPES).unwrap()));
        }
        if keys > 0 && (partitioned || self.chance(85)) {
            let names: Vec<_> = (0..keys).map(|at| format!("k{at}")).collect();
            columns.push(format!("PRIMARY KEY ({})", names.join(", ")));
        }
        let mut made = format!("CREATE TABLE {name} ({})", columns.join(", "));
        if partitioned {
            made += " PARTITION BY RANGE (k0)";
            for at in 0..2 {
                made += &partition(&name, at, &name);
            }
        } else if self.chance(25) {
            made += &format!("; ALTER TABLE {name} REPLICA IDENTITY FULL");
        }
        if self.publishing == Publishing::Tables && self.chance(80) {
            made += &format!("; ALTER PUBLICATION mine ADD TABLE {name}");
        }
        made
    }

    /// A statement about the form of a table.
    fn form(&mut self, table: &Table, tables: &[Table]) -> Option<String> {
        let name = table.qualified();
        match self.rng.u8(..24) {
            0..11 => self.columns(table),
            11..15 => self.keys(table),
            15 if self.chance(50) => Some(format!("DROP TABLE {name}")),
            15 => Some(self.create()),
            16 => {
                let to = self.name(if table.is_partition { "p" } else { "t" });
                Some(format!("ALTER TABLE {name} RENAME TO {to}"))
            }
            17 => {
                let column = &self.pick(&table.columns)?.name;
                let index = self.name("i");
                Some(format!("CREATE INDEX {index} ON {name} ({column})"))
            }
            18 => Some(format!(
                "DROP INDEX {}.{}",
                table.schema,
                self.pick(&table.indexes)?
            )),
            19 if self.moves && !table.is_partition => {
                self.moves = false;
                let to = if table.schema == "public" {
                    "apart"
                } else {
                    "public"
                };
                Some(format!("ALTER TABLE {name} SET SCHEMA {to}"))
            }
            20 => {
                let value = self.name("mood");
                Some(format!("ALTER TYPE mood ADD VALUE '{value}'"))
            }
            21 if self.chance(40) => {
                let to = self.name("mood");
                Some(format!(
                    "DO $$ BEGIN EXECUTE format('ALTER TYPE mood RENAME VALUE %L TO %L', \
                     (enum_range(NULL::mood))[1 + {} % 3], '{to}'); END $$",
                    self.rng.u8(..3)
                ))
            }
            21 => self.partitions(tables),
            _ => self.publish(table),
        }
    }

    fn columns(&mut self, table: &Table) -> Option<String> {
        let (alter, new) = (format!("ALTER TABLE {}", table.qualified()), self.name("c"));
        let column = self.pick(&table.columns)?.clone();
        let (at, of) = (&column.name, *self.rng.choice(TYPES).unwrap());
        Some(match self.rng.u8(..20) {
            0..3 => format!("{alter} ADD {new} {of}"),
            3..6 => {
                let default = value(&mut self.rng, of, false);
                // Subqueries are not allowed in defaults.
                let default = if default.contains("SELECT") {
                    "'x'"
                } else {
                    &default
                };
                let not_null = if self.chance(40) { " NOT NULL" } else { "" };
                format!("{alter} ADD {new} {of} DEFAULT {default}{not_null}")
            }
            6 => format!("{alter} ADD {new} double precision DEFAULT random()"),
            7 => format!("{alter} ADD {new} bigserial"),
            8 => format!("{alter} ADD {new} text GENERATED ALWAYS AS ('g') STORED"),
            9..12 if table.columns.len() > 2 => format!("{alter} DROP {at}"),
            12 => format!("{alter} RENAME {at} TO {new}"),
            // Under a name that there was.
            13 => format!("{alter} DROP {at}; {alter} ADD {at} {of}"),
            14 => format!(
                "{alter} RENAME {at} TO {new}; {alter} ADD {at} {}",
                column.of
            ),
            15 => format!("{alter} ALTER {at} SET NOT NULL"),
            16 if !column.key => format!("{alter} ALTER {at} DROP NOT NULL"),
            17 => format!("{alter} ALTER {at} DROP DEFAULT"),
            _ => self.retype(&alter, &column),
        })
    }

    /// Another type, with and without a rewrite.
    fn retype(&mut self, alter: &str, column: &Column) -> String {
        let to: &[&str] = match column.of.as_str() {
            "integer" | "smallint" => &["bigint", "numeric", "text"],
            "bigint" => &["numeric", "text", "double precision"],
            "text" => &["bytea USING convert_to", "character varying"],
            of if of.starts_with("character varying(") => &["text", "character varying(200)"],
            of if of.starts_with("numeric") && !of.ends_with(']') => {
                &["numeric(12,1)", "numeric", "text", "double precision"]
            }
            of if of.starts_with("timestamp") => &[
                "timestamp with time zone",
                "date",
                "timestamp(0) without time zone",
            ],
            "json" => &["jsonb"],
            "jsonb" => &["json"],
            "integer[]" => &["bigint[]", "text[]"],
            _ => &["text"],
        };
        let (at, to) = (&column.name, *self.rng.choice(to).unwrap());
        if to == column.of {
            return format!("{alter} ALTER {at} DROP DEFAULT");
        }
        match to.strip_suffix(" USING convert_to") {
            Some(to) => format!("{alter} ALTER {at} TYPE {to} USING convert_to({at}, 'UTF8')"),
            None if to == "text" && column.of != to => {
                format!("{alter} ALTER {at} DROP DEFAULT, ALTER {at} TYPE text USING {at}::text")
            }
            None => format!("{alter} ALTER {at} DROP DEFAULT, ALTER {at} TYPE {to}"),
        }
    }

    fn keys(&mut self, table: &Table) -> Option<String> {
        let alter = format!("ALTER TABLE {}", table.qualified());
        let column = self.pick(&table.columns)?.name.clone();
        let name = self.name("u");
        let has_key = table.columns.iter().any(|it| it.key);
        Some(match self.rng.u8(..10) {
            0 => format!("{alter} DROP CONSTRAINT {}", self.pick(&table.constraints)?),
            1 | 2 if !has_key => {
                let first = table.columns.iter().find(|it| it.not_null)?;
                format!("{alter} ADD PRIMARY KEY ({})", first.name)
            }
            1 | 2 => {
                let key = table
                    .columns
                    .iter()
                    .filter(|it| it.key || it.name == column);
                let key: Vec<_> = key.map(|it| it.name.as_str()).collect();
                let primary = table.constraints.iter().find(|it| it.ends_with("_pkey"))?;
                let key = key.join(", ");
                format!("{alter} DROP CONSTRAINT {primary}, ADD PRIMARY KEY ({key})")
            }
            3 | 4 => {
                let key = table
                    .columns
                    .iter()
                    .find(|it| it.key)
                    .map(|it| it.name.as_str());
                let key = key
                    .filter(|it| *it != column)
                    .map_or(String::new(), |it| format!(", {it}"));
                format!("{alter} ADD CONSTRAINT {name} UNIQUE ({column}{key})")
            }
            5..8 => format!("{alter} REPLICA IDENTITY FULL"),
            8 if has_key => format!("{alter} REPLICA IDENTITY DEFAULT"),
            _ => {
                let index = self.pick(&table.unique)?;
                format!("{alter} REPLICA IDENTITY USING INDEX {index}")
            }
        })
    }

    fn partitions(&mut self, tables: &[Table]) -> Option<String> {
        let roots: Vec<_> = tables.iter().filter(|it| it.partitioned).collect();
        let root = self.pick(&roots)?.qualified();
        let parts: Vec<_> = tables.iter().filter(|it| it.is_partition).collect();
        let apart = |it: &&Table| !it.is_partition && it.name.contains("_p");
        let apart: Vec<_> = tables.iter().filter(apart).collect();
        match self.rng.u8(..4) {
            0 => {
                let at = self.rng.u8(2..6);
                let name = self.name("part");
                Some(partition(&root, at, &name).trim_start_matches("; ").into())
            }
            1 => {
                let part = self.pick(&parts)?.qualified();
                Some(format!("ALTER TABLE {root} DETACH PARTITION {part}"))
            }
            2 => Some(format!("DROP TABLE {}", self.pick(&parts)?.qualified())),
            _ => {
                let part = self.pick(&apart)?;
                let at = part.name.rsplit("_p").next()?.parse().ok()?;
                let bounds = bounds(at);
                Some(format!(
                    "ALTER TABLE {root} ATTACH PARTITION {} {bounds}",
                    part.qualified()
                ))
            }
        }
    }

    fn publish(&mut self, table: &Table) -> Option<String> {
        if self.publishing != Publishing::Tables || table.is_partition {
            return None;
        }
        let name = table.qualified();
        let column = self.pick(&table.columns)?.name.clone();
        let publish = format!("ALTER PUBLICATION mine ADD TABLE {name}");
        let again = format!("ALTER PUBLICATION mine DROP TABLE {name}; {publish}");
        Some(match self.rng.u8(..8) {
            0..3 => publish,
            3 => format!("ALTER PUBLICATION mine DROP TABLE {name}"),
            4 => {
                let keys = table
                    .columns
                    .iter()
                    .filter(|it| it.key || it.name == column);
                let keys: Vec<_> = keys.map(|it| it.name.as_str()).collect();
                format!("{again} ({})", keys.join(", "))
            }
            5 => {
                let of = table
                    .columns
                    .iter()
                    .find(|it| it.name == column)?
                    .of
                    .clone();
                let limit = value(
                    &mut self.rng,
                    if of == "text" { "uuid" } else { &of },
                    false,
                );
                let limit = if of == "text" { "'8'".into() } else { limit };
                format!("{again} WHERE ({column} < {limit})")
            }
            _ => again,
        })
    }
}

fn bounds(at: u8) -> String {
    let from = u32::from(at) * 500;
    // The first one takes whatever is below.
    let lower = if at == 0 {
        "MINVALUE".to_owned()
    } else {
        from.to_string()
    };
    format!("FOR VALUES FROM ({lower}) TO ({})", from + 500)
}

fn partition(of: &str, at: u8, name: &str) -> String {
    let bounds = bounds(at);
    format!("; CREATE TABLE {name}_p{at} PARTITION OF {of} {bounds}")
}
