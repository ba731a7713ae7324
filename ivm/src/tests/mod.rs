//! Tests of whole plans against a real replica and an evaluator that knows nothing of plans.

mod hard_cases;
mod histories;
mod naive;
mod queries;
mod random;
mod world;
