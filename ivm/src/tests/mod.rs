//! Tests of whole plans against a real replica and an evaluator that knows nothing of plans.

mod case;
mod costs;
mod explaining;
mod hard_cases;
mod histories;
mod naive;
mod plans;
mod queries;
mod random;
mod refusals;
mod routing;
mod routing_random;
mod watched;
mod world;
