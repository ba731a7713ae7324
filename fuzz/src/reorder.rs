//! Other ways to say the same query.

use kelvin_protocol::{Ast, Condition, CorrelatedSubquery, Operand, SimpleOp};

/// Shuffles what has no order and changes what is a hint, as the seed says.
pub(crate) fn reorder(ast: &mut Ast, seed: u64) {
    Reorder(seed).ast(ast);
}

/// The state of a generator of random numbers (SplitMix64).
struct Reorder(u64);

impl Reorder {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 29)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            let other = self.next() % (at as u64 + 1);
            items.swap(at, usize::try_from(other).expect("an index"));
        }
    }

    fn ast(&mut self, ast: &mut Ast) {
        if let Some(filter) = &mut ast.filter {
            self.condition(filter);
        }
        for child in &mut ast.related {
            self.child(child);
        }
    }

    fn child(&mut self, child: &mut CorrelatedSubquery) {
        let (parents, children) = (
            &mut child.correlation.parent_field,
            &mut child.correlation.child_field,
        );
        if parents.len() == children.len() {
            let mut pairs: Vec<_> = parents.drain(..).zip(children.drain(..)).collect();
            self.shuffle(&mut pairs);
            (*parents, *children) = pairs.into_iter().unzip();
        }
        self.ast(&mut child.subquery);
    }

    fn condition(&mut self, condition: &mut Condition) {
        match condition {
            Condition::And { conditions } | Condition::Or { conditions } => {
                for member in conditions.iter_mut() {
                    self.condition(member);
                }
                if self.next().is_multiple_of(4) {
                    conditions.extend(conditions.first().cloned());
                }
                self.shuffle(conditions);
            }
            Condition::CorrelatedSubquery {
                related,
                flip,
                scalar,
                ..
            } => {
                *flip = [None, Some(true), Some(false)][(self.next() % 3) as usize];
                *scalar = [None, Some(false)][(self.next() % 2) as usize];
                self.child(related);
            }
            Condition::Simple {
                op: SimpleOp::In | SimpleOp::NotIn,
                right:
                    Operand::Literal {
                        value: serde_json::Value::Array(items),
                    },
                ..
            } => self.shuffle(items),
            Condition::Simple { .. } => {}
        }
    }
}
