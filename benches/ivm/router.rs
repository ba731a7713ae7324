//! Who hears of a change: what that costs for ever more plans, by what their queries ask.

use std::hint::black_box;

use kelvin_ivm::{ChangeSet, Router};
use kelvin_protocol::Value;

use super::World;
use super::measure::{Measure, size};
use super::world::{self, ISSUE};

/// What queries ask; `n` is the number of the plan.
struct Shape {
    name: &'static str,
    query: fn(usize) -> String,
    /// An issue that no plan of so many is concerned with, though their values lie on both sides of
    /// its own.
    nobodys: fn(usize) -> Vec<Value>,
    /// An issue that concerns one of them, if there can be such a one.
    ones: Option<fn(usize) -> Vec<Value>>,
}

/// Steps between the ranges of two plans, which leave every other step free.
const STRIDE: usize = 10;

fn simple(column: &str, op: &str, right: &str) -> String {
    format!(
        r#"{{"type":"simple","op":"{op}","left":{{"type":"column","name":"{column}"}},"right":{{"type":"literal","value":{right}}}}}"#
    )
}

fn all(conditions: &[String]) -> String {
    let conditions = conditions.join(",");
    format!(r#"{{"table":"issue","where":{{"type":"and","conditions":[{conditions}]}}}}"#)
}

const SHAPES: [Shape; 3] = [
    Shape {
        name: "equality",
        query: |n| all(&[simple("owner", "=", &format!("\"user {n}\""))]),
        nobodys: |plans| world::issue(0, 0, &format!("user {plans}")),
        ones: Some(|plans| world::issue(0, 0, &format!("user {}", plans / 2))),
    },
    Shape {
        name: "range",
        query: |n| {
            let (from, to) = (n * STRIDE, n * STRIDE + STRIDE / 2);
            all(&[
                simple("modified", ">=", &from.to_string()),
                simple("modified", "<", &to.to_string()),
            ])
        },
        nobodys: |plans| world::issue(0, plans / 2 * STRIDE + STRIDE / 2, "ann"),
        ones: Some(|plans| world::issue(0, plans / 2 * STRIDE, "ann")),
    },
    // A test that all share, and that each ties to an EXISTS of its own.
    Shape {
        name: "residual",
        query: |n| {
            let owner = format!(
                r#"{{"type":"correlatedSubquery","op":"EXISTS","related":{{"correlation":{{"parentField":["owner"],"childField":["name"]}},"subquery":{{"table":"member","alias":"o","where":{}}}}}}}"#,
                simple("name", "!=", &format!("\"user {n}\"")),
            );
            all(&[simple("title", "LIKE", "\"%nowhere%\""), owner])
        },
        nobodys: |_| world::issue(0, 0, "ann"),
        ones: None,
    },
];

/// A change that concerns none of ever more plans, the most of them against each lesser number; and
/// one that concerns a single plan, beside one that concerns none. All take turns, so that
/// whatever else the machine does meets each.
pub fn routing(measure: &mut Measure, world: &World) {
    let most = size("PLANS", 100_000);
    for shape in &SHAPES {
        let mut sizes = vec![most, 10_000, 10];
        sizes.retain(|plans| *plans <= most);
        sizes.dedup();
        let routed = sizes
            .into_iter()
            .map(|plans| Routed::new(world, shape, plans));
        let routed: Vec<Routed> = routed.collect();
        let mut routines: Vec<_> = routed.iter().map(|routed| || routed.route()).collect();
        let names = routed.iter().map(|routed| routed.name.as_str());
        let mut contenders: Vec<_> = names
            .zip(routines.iter_mut().map(|routine| routine as _))
            .collect();
        let group = format!("router, {}: a change that concerns none", shape.name);
        measure.run_all(&group, &mut contenders);
        if let (Some(ones), Some(routed)) = (shape.ones, routed.first()) {
            // Before the change, the issue is nobody's.
            world.write(ISSUE, vec![(shape.nobodys)(most)]);
            let one = world.write(ISSUE, vec![ones(most)]).1;
            assert_eq!(routed.router.route(&one).len(), 1);
            let group = format!("router, {}: {}", shape.name, routed.name);
            measure.run_all(
                &group,
                &mut [
                    ("a change that concerns one", &mut || {
                        drop(black_box(routed.router.route(&one)));
                    }),
                    ("one that concerns none", &mut || routed.route()),
                ],
            );
        }
    }
}

/// So many plans of a shape, and a change that concerns none of them.
struct Routed {
    name: String,
    router: Router,
    changes: ChangeSet,
}

impl Routed {
    fn new(world: &World, shape: &Shape, plans: usize) -> Self {
        let router = router(world, shape, plans);
        // Before the change, the issue is nobody's either.
        world.write(ISSUE, vec![(shape.nobodys)(plans)]);
        let (_, changes, _) = world.write(ISSUE, vec![(shape.nobodys)(plans)]);
        assert!(router.route(&changes).is_empty());
        let name = format!("{plans} plans");
        Self {
            name,
            router,
            changes,
        }
    }

    fn route(&self) {
        drop(black_box(self.router.route(&self.changes)));
    }
}

fn router(world: &World, shape: &Shape, plans: usize) -> Router {
    let mut router = Router::new();
    for n in 0..plans {
        let plan = world.plan(&(shape.query)(n));
        router.insert(plan.id(), &plan);
    }
    router
}
