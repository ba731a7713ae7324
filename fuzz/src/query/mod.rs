//! Queries over histories: random tables, rows, queries and transactions, and what must hold of
//! them.
//!
//! [`Case::generate`] makes a case from [`Choices`]; [`check`] runs it on kelvin and holds every
//! view against an oracle's answers. The target uses [`naive_answers`]; the `oracle` test asks a
//! real PostgreSQL.

mod answer;
mod ast;
mod case;
mod choices;
mod model;
mod naive;
mod run;
mod schema;
mod shrink;
mod values;
mod writes;

pub use answer::{Answer, WITNESSES, gates, relationships};
pub use case::{Case, Op, Step, TableSpec, Texts};
pub use choices::Choices;
pub use model::Model;
pub use naive::Naive;
pub use run::{Answers, Failure, check, naive_answers};
pub use shrink::shrink;
pub use values::Kind;

use self::ast::Queries;
use self::values::Pools;

/// Subqueries that one query has at most.
const MAX_SUBQUERIES: usize = 7;

impl Case {
    /// A case as the choices fall, settled.
    #[must_use]
    pub fn generate(choices: &mut Choices<'_>) -> Self {
        let pools = Pools::random(choices);
        let mut case = Self {
            impatient: choices.chance(50),
            tables: schema::random_tables(choices),
            ..Self::default()
        };
        schema::random_keys(choices, &mut case);
        if pools.are_long() {
            schema::index_texts(choices, &mut case);
        }
        let ruled = choices.chance(25);
        for table in case.tables.clone() {
            if ruled && choices.chance(60) {
                let mut queries = Queries {
                    case: &case,
                    pools: &pools,
                    choices,
                    left: 2,
                    rule: true,
                };
                let (_, of_case) = case.table(&table.name);
                let rule = serde_json::from_value(queries.rule(of_case));
                case.rules.insert(table.name, rule.expect("a condition"));
            }
        }
        for _ in 0..choices.between(2, 5) {
            let mut queries = Queries {
                case: &case,
                pools: &pools,
                choices,
                left: MAX_SUBQUERIES,
                rule: false,
            };
            let query = serde_json::from_value(queries.query());
            case.queries.push(query.expect("a query"));
        }
        case.steps = writes::random_steps(choices, &pools, &case);
        case.settle();
        case
    }
}

/// Decisions: whatever case they come to, what is maintained is what is evaluated afresh, at old
/// versions and after a catch-up from any of them, and what the naive evaluator says; and clients
/// compute the answers from the rows they are sent.
pub fn query(data: &[u8]) {
    let case = Case::generate(&mut Choices::of_bytes(data));
    let Some(expected) = naive_answers(&case) else {
        return;
    };
    if let Err(failure) = check(&case, &expected) {
        let case = serde_json::to_string(&case).expect("a case is JSON");
        panic!("{}: {}\n{case}", failure.check, failure.detail);
    }
}
