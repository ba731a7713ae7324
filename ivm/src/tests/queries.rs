//! Random queries over every feature.

use serde_json::{Value as Json, json};

use super::random::Random;
use super::world::COLUMNS;

const NUMBERS: [&str; 4] = ["a", "b", "x", "y"];
const TEXTS: [&str; 2] = ["s", "z"];

pub(crate) fn random_query(random: &mut Random) -> Json {
    node(random, 0, false)
}

fn node(random: &mut Random, depth: usize, in_exists: bool) -> Json {
    let mut ast = json!({ "table": format!("t{}", 1 + random.below(3)) });
    if random.chance(60) {
        ast["where"] = condition(random, depth, 0);
    }
    if random.chance(60) {
        let order: Vec<Json> = (0..random.below(4))
            .map(|_| json!([random.pick(&COLUMNS).0, random.pick(&["asc", "desc"])]))
            .collect();
        ast["orderBy"] = Json::Array(order);
    }
    if random.chance(40) {
        ast["limit"] = json!(*random.pick(&[0, 1, 1, 2, 2, 2, 3, 3, 4, 5, 7, 1000]));
    }
    if random.chance(if in_exists { 5 } else { 20 }) {
        let mut row = serde_json::Map::new();
        for _ in 0..random.below(4) {
            let column = random.below(COLUMNS.len());
            row.insert(COLUMNS[column].0.to_owned(), literal(random, column));
        }
        ast["start"] = json!({ "row": row, "exclusive": random.chance(50) });
    }
    if !in_exists && depth < 3 && random.chance(60) {
        let related: Vec<Json> = (0..random.below(3))
            .map(|_| related(random, depth + 1))
            .collect();
        ast["related"] = Json::Array(related);
    }
    ast
}

fn correlation(random: &mut Random) -> Json {
    if random.chance(15) {
        return json!({ "parentField": ["s"], "childField": [*random.pick(&["s", "z"])] });
    }
    let pairs = 1 + usize::from(random.chance(20));
    let side =
        |random: &mut Random| -> Vec<&str> { (0..pairs).map(|_| *random.pick(&NUMBERS)).collect() };
    json!({ "parentField": side(random), "childField": side(random) })
}

fn related(random: &mut Random, depth: usize) -> Json {
    let mut subquery = node(random, depth, false);
    subquery["alias"] = json!(random.pick(&["p", "q", "r"]));
    let mut link = json!({ "correlation": correlation(random), "subquery": subquery });
    if random.chance(20) {
        link["hidden"] = json!(true);
    }
    if random.chance(50) {
        link["system"] = json!(if random.chance(8) {
            "permissions"
        } else {
            "client"
        });
    }
    link
}

fn condition(random: &mut Random, depth: usize, nesting: usize) -> Json {
    match random.below(100) {
        0..30 if nesting < 3 => {
            let members: Vec<Json> = (0..random.below(4))
                .map(|_| condition(random, depth, nesting + 1))
                .collect();
            json!({ "type": random.pick(&["and", "or"]), "conditions": members })
        }
        30..60 if depth < 3 => exists(random, depth + 1),
        _ => simple(random),
    }
}

fn exists(random: &mut Random, depth: usize) -> Json {
    let mut subquery = node(random, depth, true);
    subquery["alias"] = json!("zsubq_p");
    let mut related = json!({ "correlation": correlation(random), "subquery": subquery });
    if random.chance(70) {
        related["system"] = json!(if random.chance(25) {
            "permissions"
        } else {
            "client"
        });
    }
    let mut condition = json!({
        "type": "correlatedSubquery",
        "op": if random.chance(70) { "EXISTS" } else { "NOT EXISTS" },
        "related": related,
    });
    if random.chance(30) {
        condition["flip"] = json!(random.chance(50));
    }
    if random.chance(20) {
        condition["scalar"] = json!(random.chance(50));
    }
    condition
}

/// A literal that may well equal a value of the column.
fn literal(random: &mut Random, column: usize) -> Json {
    if random.chance(10) {
        return Json::Null;
    }
    match COLUMNS[column].0 {
        "a" | "b" | "x" | "y" => json!(random.below(5)),
        "t" => json!(random.chance(50)),
        "u" => json!(format!("u{}", random.below(40))),
        "z" if random.chance(20) => json!("long".repeat(4000)),
        _ => json!(random.pick(&["", "a", "A", "ab", "ä", "Ä\n", "😀", "%"])),
    }
}

fn simple(random: &mut Random) -> Json {
    let column = random.below(COLUMNS.len());
    let name = COLUMNS[column].0;
    let of_column = json!({ "type": "column", "name": name });
    let (op, right) = match random.below(100) {
        0..20 if TEXTS.contains(&name) => {
            let pattern = *random.pick(&["%", "_", "a%", "%A", r"\%", "__", "ä_", "", "%b%", "AB"]);
            let op = *random.pick(&["LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE"]);
            (
                op,
                if random.chance(5) {
                    Json::Null
                } else {
                    json!(pattern)
                },
            )
        }
        0..20 => {
            let values: Vec<Json> = (0..random.below(4))
                .map(|_| literal(random, column))
                .filter(|value| !value.is_null())
                .collect();
            let list = if random.chance(5) {
                Json::Null
            } else {
                Json::Array(values)
            };
            (*random.pick(&["IN", "NOT IN"]), list)
        }
        20..30 => (*random.pick(&["IS", "IS NOT"]), literal(random, column)),
        30..50 => ("=", literal(random, column)),
        50..60 => ("!=", literal(random, column)),
        60..63 => (*random.pick(&["=", "!=", "<", ">="]), json!("a")),
        _ => (
            *random.pick(&["<", "<=", ">", ">="]),
            literal(random, column),
        ),
    };
    let left = if random.chance(4) {
        json!({ "type": "literal", "value": literal(random, column) })
    } else {
        of_column
    };
    json!({
        "type": "simple", "op": op, "left": left,
        "right": { "type": "literal", "value": right },
    })
}
