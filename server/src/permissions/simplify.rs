//! Shorter conditions of the same meaning.

use kelvin_protocol::Condition;

/// Unwraps single conditions, flattens nested ones of one kind, and lets TRUE and FALSE (an empty
/// AND, an empty OR) win where they decide.
#[must_use]
pub fn simplify(condition: Condition) -> Condition {
    match condition {
        Condition::And { conditions } => {
            let mut flat = Vec::with_capacity(conditions.len());
            for condition in conditions {
                match simplify(condition) {
                    Condition::And { conditions } => flat.extend(conditions),
                    never @ Condition::Or { .. } if is_false(&never) => return never,
                    other => flat.push(other),
                }
            }
            unwrap_single(flat).unwrap_or_else(|conditions| Condition::And { conditions })
        }
        Condition::Or { conditions } => {
            let mut flat = Vec::with_capacity(conditions.len());
            for condition in conditions {
                match simplify(condition) {
                    Condition::Or { conditions } => flat.extend(conditions),
                    always @ Condition::And { .. } if is_true(&always) => return always,
                    other => flat.push(other),
                }
            }
            unwrap_single(flat).unwrap_or_else(|conditions| Condition::Or { conditions })
        }
        other => other,
    }
}

fn is_true(condition: &Condition) -> bool {
    matches!(condition, Condition::And { conditions } if conditions.is_empty())
}

fn is_false(condition: &Condition) -> bool {
    matches!(condition, Condition::Or { conditions } if conditions.is_empty())
}

fn unwrap_single(mut conditions: Vec<Condition>) -> Result<Condition, Vec<Condition>> {
    match conditions.pop() {
        Some(only) if conditions.is_empty() => Ok(only),
        Some(last) => {
            conditions.push(last);
            Err(conditions)
        }
        None => Err(conditions),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Condition {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn constants_win_and_nesting_goes() {
        let simple = r#"{"type":"simple","op":"=","left":{"type":"column","name":"a"},"right":{"type":"literal","value":1}}"#;
        let and =
            |parts: &[&str]| format!(r#"{{"type":"and","conditions":[{}]}}"#, parts.join(","));
        let or = |parts: &[&str]| format!(r#"{{"type":"or","conditions":[{}]}}"#, parts.join(","));
        let cases = [
            (and(&[simple]), simple.to_owned()),
            (and(&[&or(&[simple])]), simple.to_owned()),
            (and(&[simple, &or(&[])]), or(&[])),
            (or(&[simple, &and(&[])]), and(&[])),
            (
                and(&[simple, &and(&[simple, simple])]),
                and(&[simple, simple, simple]),
            ),
            (or(&[simple, &or(&[])]), simple.to_owned()),
            (and(&[]), and(&[])),
            (or(&[]), or(&[])),
        ];
        for (before, after) in cases {
            assert_eq!(simplify(parse(&before)), parse(&after), "{before}");
        }
    }
}
