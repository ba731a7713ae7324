//! The oracle: one connection to a PostgreSQL of its own.

use kelvin_fuzz::query::{Answer, Answers, Case, gates, relationships};
use kelvin_protocol::Ast;
use serde_json::Value as Json;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::sql;

/// A connection.
pub(crate) struct Postgres {
    runtime: Runtime,
    client: Client,
}

impl Postgres {
    pub(crate) fn connect(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
            tokio::spawn(connection);
            // The tables are small: what costs is the planning.
            let settings = "SET jit = off; SET geqo = off; SET client_min_messages = warning; \
                            SET standard_conforming_strings = on";
            client.batch_execute(settings).await.unwrap();
            client
        });
        Self { runtime, client }
    }

    /// Runs the case, in a transaction that leaves nothing behind.
    ///
    /// # Errors
    /// What PostgreSQL says, with the statements.
    pub(crate) fn answers(&self, case: &Case) -> Result<Answers, String> {
        let queries: Vec<Ast> = case
            .queries
            .iter()
            .map(|ast| case.with_rules(ast))
            .collect();
        // Planned once: that costs more than the answers.
        let mut script = format!("DEALLOCATE ALL; BEGIN; {}", sql::create(case));
        let mut asked = String::new();
        for (at, ast) in queries.iter().enumerate() {
            script += &format!("PREPARE q{at} AS {}", sql::answer(case, ast));
            asked += &format!("EXECUTE q{at}; ");
        }
        script += &asked;
        for transaction in case.transactions() {
            script.extend(transaction.iter().map(|op| sql::statement(case, op)));
            script += &asked;
        }
        let messages = self.runtime.block_on(self.client.simple_query(&script));
        let rolled_back = self.client.batch_execute("ROLLBACK");
        self.runtime.block_on(rolled_back).unwrap();
        let messages = messages.map_err(|error| format!("{error:?}\n{script}"))?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        let answers: Vec<_> = rows
            .zip(queries.iter().cycle())
            .map(|(text, ast)| parse(case, ast, &serde_json::from_str(text).unwrap()))
            .collect();
        Ok(answers.chunks(queries.len()).map(<[_]>::to_vec).collect())
    }
}

fn parse(case: &Case, ast: &Ast, list: &Json) -> Vec<Answer> {
    let (_, table) = case.table(&ast.table);
    let lists = |lists: &Json, asts: Vec<&Ast>| {
        // Witnesses have no children, and so no lists of them.
        let lists = lists.as_array().unwrap().iter().zip(asts);
        lists.map(|(list, ast)| parse(case, ast, list)).collect()
    };
    let of = |row: &Json| Answer {
        row: {
            let texts = row[0].as_array().unwrap().iter();
            table.row(&texts.map(|text| text.as_str().map(str::to_owned)).collect())
        },
        related: lists(
            &row[1],
            relationships(ast)
                .iter()
                .map(|link| &link.subquery)
                .collect(),
        ),
        witnesses: lists(
            &row[2],
            gates(ast).iter().map(|link| &link.subquery).collect(),
        ),
    };
    list.as_array().unwrap().iter().map(of).collect()
}
