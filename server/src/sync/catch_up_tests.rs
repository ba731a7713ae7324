//! A client is brought up by what the logs say exactly as by two evaluations.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kelvin_ivm::{Budget, ClientKeys, Plan};
use kelvin_protocol::{Ast, Value, ValueType, Version};
use kelvin_replication::CommitListener as _;
use kelvin_storage::{
    Catalog, Column, Datum, Replica, ReplicaIdentity, ReplicaOptions, RowOp, Table, TableId,
    Transaction,
};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::catch_up::{Held, Pasts, RowReader, question};
use super::poke::PokeBody;
use crate::engine::{Engine, EngineOptions, GroupEvent, GroupId};

const FIRST: Version = 100;
const ISSUE: TableId = TableId(1);
const COMMENT: TableId = TableId(2);
const CLIENTS: TableId = TableId(3);
const MUTATIONS: TableId = TableId(4);

fn table(id: TableId, name: &str, columns: &[(&str, ValueType)]) -> Table {
    let column = |(at, (name, value_type)): (usize, &(&str, ValueType))| Column {
        name: (*name).to_owned(),
        attnum: i16::try_from(at).unwrap() + 1,
        upstream_type: "float8".to_owned(),
        type_oid: 701,
        value_type: *value_type,
        not_null: true,
    };
    Table {
        id,
        name: name.to_owned(),
        schema: "public".to_owned(),
        upstream_name: name.to_owned(),
        oid: 1000 + id.0,
        columns: columns.iter().enumerate().map(column).collect(),
        unsynced_columns: Vec::new(),
        key: vec![0],
        unique_keys: vec![vec![0], vec![1]],
        indexes: Vec::new(),
    }
}

fn catalog() -> Catalog {
    let number = ValueType::Number;
    let issue = [
        ("id", number),
        ("code", number),
        ("project", number),
        ("votes", number),
    ];
    let comment = [
        ("id", number),
        ("code", number),
        ("issue", number),
        ("likes", number),
    ];
    let text = ValueType::String;
    let clients = [
        ("clientID", text),
        ("lastMutationID", number),
        ("clientGroupID", text),
    ];
    let mutations = [
        ("clientID", text),
        ("mutationID", number),
        ("result", ValueType::Json),
    ];
    let mut tables = vec![
        table(ISSUE, "issue", &issue),
        table(COMMENT, "comment", &comment),
        table(CLIENTS, "app_0.clients", &clients),
        table(MUTATIONS, "app_0.mutations", &mutations),
    ];
    for internal in &mut tables[2..] {
        internal.unique_keys = vec![vec![0]];
    }
    Catalog::new(tables, Vec::new())
}

/// Queries whose rows overlap: filters, windows, witnesses, and whole tables.
fn plans(catalog: &Arc<Catalog>) -> Vec<Arc<Plan>> {
    let exists = json!({"type": "correlatedSubquery", "op": "EXISTS", "related": {
        "correlation": {"parentField": ["id"], "childField": ["issue"]},
        "subquery": {"table": "comment", "alias": "c"}}});
    let not_exists = json!({"type": "correlatedSubquery", "op": "NOT EXISTS", "related": {
        "correlation": {"parentField": ["id"], "childField": ["issue"]},
        "subquery": {"table": "comment", "alias": "c"}}});
    let is = |column: &str, value: u32| {
        json!({"type": "simple", "op": "=", "left": {"type": "column", "name": column},
               "right": {"type": "literal", "value": value}})
    };
    let related = json!([{
        "correlation": {"parentField": ["id"], "childField": ["issue"]},
        "subquery": {"table": "comment", "alias": "comments",
                     "orderBy": [["likes", "desc"], ["id", "asc"]], "limit": 2}}]);
    let by_votes = json!([["votes", "desc"], ["id", "asc"]]);
    let queries = [
        json!({"table": "issue"}),
        json!({"table": "issue", "where": is("project", 1)}),
        json!({"table": "issue", "orderBy": by_votes, "limit": 3}),
        json!({"table": "issue", "orderBy": by_votes, "limit": 5, "related": related}),
        json!({"table": "issue", "where": exists}),
        json!({"table": "issue", "where": not_exists}),
        json!({"table": "comment", "where": is("likes", 2)}),
        json!({"table": "comment", "orderBy": [["id", "desc"]], "limit": 4}),
        json!({"table": "app_0.clients"}),
        json!({"table": "app_0.mutations"}),
    ];
    // Issues are known to clients by another key than the replica's.
    let keys = ClientKeys::from([("issue".to_owned(), vec!["code".to_owned()])]);
    let compile = |query: serde_json::Value| {
        let ast: Ast = serde_json::from_value(query).unwrap();
        Arc::new(Plan::compile(&ast, catalog, &keys).unwrap())
    };
    queries.into_iter().map(compile).collect()
}

/// What clients are told, in an order that does not depend on the way it was found.
type Told = (Vec<String>, Vec<String>, BTreeMap<String, u64>, Vec<String>);

struct World {
    random: fastrand::Rng,
    replica: Replica,
    engine: Engine,
    runtime: Runtime,
    plans: Vec<Arc<Plan>>,
    /// Of all transactions; and whether the engine stood there.
    versions: Vec<(Version, bool)>,
    rows: HashMap<TableId, BTreeMap<u32, Vec<Value>>>,
    groups: Vec<mpsc::Receiver<GroupEvent>>,
    options: EngineOptions,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(seed: u64, options: EngineOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let loader = Replica::create(dir.path(), &ReplicaOptions::default(), catalog()).unwrap();
        let replica = loader.finish(ReplicaIdentity::default(), FIRST).unwrap();
        let engine = Engine::start(replica.clone(), "app", 0, options.clone()).unwrap();
        let plans = plans(&replica.catalog());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        Self {
            random: fastrand::Rng::with_seed(seed),
            replica,
            engine,
            runtime,
            plans,
            versions: vec![(FIRST, true)],
            rows: HashMap::new(),
            groups: Vec::new(),
            options,
            _dir: dir,
        }
    }

    /// An engine that knows nothing of the past, as after a restart.
    fn restart(&mut self) {
        self.groups.clear();
        let replica = self.replica.clone();
        self.engine = Engine::start(replica, "app", 0, self.options.clone()).unwrap();
    }

    /// Has the engine keep all plans up to date from now on, for so many groups.
    fn subscribe(&mut self, groups: u64) {
        for group in (0..groups).map(GroupId) {
            let (sender, mut events) = mpsc::channel(10_000);
            let (engine, plans) = (&self.engine, self.plans.clone());
            let failed = self.runtime.block_on(async {
                engine.attach(group, sender).await.unwrap();
                engine.reconcile(group, plans).await.unwrap();
                match events.recv().await.unwrap() {
                    GroupEvent::Reconciled(reconciled) => reconciled.failed,
                    other => panic!("{other:?}"),
                }
            });
            assert_eq!(failed, []);
            self.groups.push(events);
        }
    }

    /// One commit, of one transaction or of two that the engine takes as one step.
    fn commit(&mut self) {
        let count = if self.random.u8(..4) == 0 { 2 } else { 1 };
        let mut version = self.replica.watermark();
        let transactions = (0..count).map(|_| {
            version += 10;
            let ops = (0..1 + self.random.usize(..4))
                .flat_map(|_| random_ops(&mut self.random, &mut self.rows));
            Transaction {
                version,
                ops: ops.collect(),
            }
        });
        let transactions: Vec<Transaction> = transactions.collect();
        let applied = self.replica.apply(&transactions).unwrap();
        let versions = transactions.iter().map(|transaction| transaction.version);
        self.versions.extend(versions.map(|at| (at, at == version)));
        self.engine.committed(applied);
    }

    /// Some of the plans, most of the time all.
    fn some_plans(&mut self) -> Vec<Arc<Plan>> {
        let mut plans = self.plans.clone();
        self.random.shuffle(&mut plans);
        if self.random.bool() {
            plans.truncate(1 + self.random.usize(..plans.len()));
        }
        plans
    }

    fn told(&self, old: &Held, new: &Held, pasts: &Pasts) -> Told {
        let reader = RowReader {
            replica: self.replica.clone(),
            snapshots: Arc::clone(self.engine.snapshots()),
            budget: Arc::new(Budget::unlimited),
        };
        let mut body = PokeBody::default();
        reader.difference(old, new, pasts, &mut body).unwrap();
        let sorted = |ops: Vec<Arc<str>>| {
            let mut ops: Vec<String> = ops.iter().map(ToString::to_string).collect();
            ops.sort_unstable();
            ops
        };
        let mutation_ids = body.last_mutation_ids.into_iter();
        let mutation_ids = mutation_ids.map(|(client, id)| (client.to_string(), id));
        let (dels, puts) = (sorted(body.dels), sorted(body.puts));
        (dels, puts, mutation_ids.collect(), sorted(body.mutations))
    }

    fn pasts(&self, old: &Held, new: &Held) -> Pasts {
        let question = question(old, new.plans.iter(), new.version);
        let pasts = self.engine.pasts(question);
        self.runtime.block_on(pasts).unwrap()
    }

    /// Brings a client from each version to a random later one; returns how many plans were
    /// followed.
    fn check(&mut self, context: &str) -> usize {
        let mut followed = 0;
        let versions = self.versions.clone();
        for (at, (version, _)) in versions.iter().copied().enumerate() {
            let later = versions[at..].iter().filter(|(_, stood)| *stood);
            let later: Vec<Version> = later.map(|(version, _)| *version).collect();
            let last = self.replica.watermark();
            let until = if self.random.bool() {
                last
            } else {
                *self.random.choice(&later).unwrap()
            };
            let old = Held {
                plans: self.some_plans(),
                version,
            };
            let same = self.random.bool();
            let plans = if same {
                old.plans.clone()
            } else {
                self.some_plans()
            };
            let new = Held {
                plans,
                version: until,
            };
            let pasts = self.pasts(&old, &new);
            followed += pasts.len();
            let expected = self.told(&old, &new, &Pasts::new());
            let told = self.told(&old, &new, &pasts);
            assert_eq!(told, expected, "{context}, from {version} to {until}");
        }
        followed
    }
}

fn random_ops(
    random: &mut fastrand::Rng,
    rows: &mut HashMap<TableId, BTreeMap<u32, Vec<Value>>>,
) -> Vec<RowOp> {
    let table = *random
        .choice(&[ISSUE, ISSUE, COMMENT, COMMENT, CLIENTS, MUTATIONS])
        .unwrap();
    let rows = rows.entry(table).or_default();
    let id = random.u32(..12);
    let small = |random: &mut fastrand::Rng| Value::from(f64::from(random.u32(..4)));
    let key = match table {
        ISSUE | COMMENT => Value::from(f64::from(id)),
        _ => Value::from(format!("c{id}")),
    };
    let known = rows.get(&id).cloned();
    // Codes are unique, and sometimes change hands.
    let code = f64::from(id) + if random.u8(..4) == 0 { 100.0 } else { 0.0 };
    let mut row = vec![key.clone(), Value::from(code)];
    match table {
        ISSUE | COMMENT => row.extend([Value::from(f64::from(random.u32(..6))), small(random)]),
        CLIENTS => row.push(Value::from("g")),
        _ => row.push(Value::Json("{}".into())),
    }
    let delete = RowOp::Delete {
        table,
        key: vec![key],
    };
    match (known, random.u8(..10)) {
        (Some(_), 0..4) => {
            rows.remove(&id);
            vec![delete]
        }
        // Under the same key, it is a row of another number.
        (Some(_), 4..6) => {
            rows.insert(id, row.clone());
            vec![delete, RowOp::Insert { table, row }]
        }
        (Some(_), _) => {
            rows.insert(id, row.clone());
            let row = row.into_iter().map(Datum::Value).collect();
            vec![RowOp::Update {
                table,
                old_key: None,
                row,
            }]
        }
        (None, _) => {
            rows.insert(id, row.clone());
            vec![RowOp::Insert { table, row }]
        }
    }
}

#[test]
fn following_the_logs_tells_what_two_evaluations_tell() {
    for seed in 0..12 {
        let mut world = World::new(seed, EngineOptions::default());
        for _ in 0..5 {
            world.commit();
        }
        world.subscribe(1);
        let mut followed = 0;
        for step in 0..12 {
            world.commit();
            followed += world.check(&format!("seed {seed}, step {step}"));
        }
        assert!(followed > 100, "only {followed} plans were followed");
    }
}

#[test]
fn what_was_before_the_engine_began_is_recalled_from_the_changelog() {
    for seed in 200..212 {
        let mut world = World::new(seed, EngineOptions::default());
        for _ in 0..12 {
            world.commit();
        }
        world.subscribe(20);
        for step in 0..4 {
            world.commit();
            world.check(&format!("seed {seed}, step {step}"));
        }
        world.restart();
        world.subscribe(20);
        world.random.shuffle(&mut world.plans);
        for step in 4..8 {
            world.check(&format!("seed {seed}, restarted, step {step}"));
            world.commit();
        }
        let counts = world.engine.metrics().pasts;
        assert!(counts.recalled > 100 && counts.logged > 0, "{counts:?}");
        assert!(counts.evaluated < counts.recalled, "{counts:?}");
    }
}

#[test]
fn short_logs_tell_the_same() {
    for seed in 100..106 {
        let mut world = World::new(
            seed,
            EngineOptions {
                delta_log_bytes: 2_000,
                ..EngineOptions::default()
            },
        );
        world.subscribe(1);
        for step in 0..15 {
            world.commit();
            world.check(&format!("seed {seed}, step {step}"));
        }
        let metrics = world.engine.metrics();
        assert!(metrics.delta_log_bytes <= 2_000);
        assert!(metrics.pasts.evaluated > 0 && metrics.pasts.logged > 0);
    }
}
