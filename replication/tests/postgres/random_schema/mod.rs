//! Random changes of rows and of the schema, held against what a new copy has after them.
//!
//! `KELVIN_DDL_CASES` says how many cases there are, `KELVIN_DDL_MINUTES` for how long to go on
//! instead, and `KELVIN_DDL_SEED` replays the one case that it printed. Statements of transactions
//! that run at the same time may meet otherwise then.

mod statement;
mod tables;
mod value;

use std::env;
use std::fmt::Write;
use std::time::{Duration, Instant};

use fastrand::Rng;
use kelvin_replication::Options;
use kelvin_storage::{Replica, ReplicaOptions, Table, TableId};
use tokio_postgres::Client;

use crate::cluster::{Cluster, Setup};
use crate::following::{Following, give_up, of_a_new_copy, options, rows, wait};
use crate::in_progress::SMALL_MEMORY;
use statement::{Generator, Publishing};
use tables::tables;

/// Cases where nothing else is asked for.
const CASES: u64 = 8;
/// Steps of a case.
const STEPS: usize = 8;
/// The replica is compared after as many steps, and after the last one.
const COMPARED: usize = 2;

const START: &str = "DROP SCHEMA IF EXISTS apart, beside CASCADE; DROP SCHEMA public CASCADE;
    CREATE SCHEMA public; CREATE SCHEMA apart; CREATE SCHEMA beside;
    CREATE TABLE beside.bulk (filler text);
    DROP PUBLICATION IF EXISTS mine, _zero_public_0, _fresh_public_0;
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad');
    CREATE DOMAIN positive AS integer CHECK (value >= 0)";

/// Changes of what is not published, so many that all of their transaction is sent so far.
const BULK: &str = "INSERT INTO beside.bulk SELECT repeat('x', 900) FROM generate_series(1, 120)";

/// How many statements there were, and how many of them PostgreSQL took.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    made: u32,
    taken: u32,
    /// Transactions that were sent before they ended.
    in_progress: u32,
}

/// A connection that runs random transactions.
struct Writer {
    client: Client,
    generator: Generator,
    tally: Tally,
    log: String,
}

impl Writer {
    async fn new(cluster: &Cluster, seed: u64, publishing: Publishing, prefix: &str) -> Self {
        let client = cluster.client().await;
        let settings = "SET lock_timeout = '2s'; SET deadlock_timeout = '50ms'";
        client.batch_execute(settings).await.unwrap();
        let generator = Generator {
            rng: Rng::with_seed(seed),
            publishing,
            moves: true,
            prefix: prefix.into(),
            named: 0,
        };
        Self {
            client,
            generator,
            tally: Tally::default(),
            log: String::new(),
        }
    }

    /// Runs a statement; one that PostgreSQL refuses has no effect.
    async fn run(&mut self, statement: &str, within: bool) {
        let whole = if within {
            format!("SAVEPOINT one; {statement}; RELEASE one")
        } else {
            statement.to_owned()
        };
        self.tally.made += 1;
        let outcome = self.client.batch_execute(&whole).await;
        let shown: String = statement.chars().take(400).collect();
        match outcome {
            Ok(()) => {
                self.tally.taken += 1;
                writeln!(self.log, "  {shown}").unwrap();
            }
            Err(error) => {
                let why = error.as_db_error().map(ToString::to_string);
                writeln!(self.log, "  -- {shown}: {why:?}").unwrap();
                let back = if within {
                    "ROLLBACK TO one"
                } else {
                    "ROLLBACK"
                };
                let _ = self.client.batch_execute(back).await;
            }
        }
    }

    /// One transaction of some statements, sometimes rolled back.
    async fn transaction(&mut self, most: usize) {
        self.client.batch_execute("BEGIN").await.unwrap();
        self.log += "BEGIN\n";
        let in_progress = self.generator.rng.bool();
        for _ in 0..self.generator.rng.usize(1..=most) {
            if in_progress && self.generator.rng.bool() {
                self.run(BULK, true).await;
            }
            let tables = tables(&self.client).await;
            let statement = self.generator.statement(&tables);
            self.run(&statement, true).await;
        }
        let end = if self.generator.rng.u8(..20) == 0 {
            "ROLLBACK"
        } else {
            "COMMIT"
        };
        // A deferred check or a deadlock may refuse it.
        let ended = self.client.batch_execute(end).await;
        writeln!(self.log, "{end} {}", ended.is_ok()).unwrap();
    }

    /// Transactions of one statement each, among them those that may not be part of others.
    async fn singles(&mut self, count: usize) {
        for _ in 0..count {
            let tables = tables(&self.client).await;
            let rng = &mut self.generator.rng;
            let name = (!tables.is_empty()).then(|| tables[rng.usize(..tables.len())].qualified());
            let statement = match (rng.u8(..8), name) {
                (0, Some(name)) => format!("VACUUM FULL {name}"),
                (1, Some(name)) => format!("VACUUM ANALYZE {name}"),
                _ => self.generator.statement(&tables),
            };
            self.run(&statement, false).await;
        }
    }

    /// Begins a transaction and writes to a table.
    async fn hold(&mut self) {
        let tables = tables(&self.client).await;
        let Some(table) = tables.get(self.generator.rng.usize(..tables.len().max(1))) else {
            return;
        };
        // A partition that is written to for the first time has its root locked.
        let statement = self.generator.insert(table);
        for first in ["BEGIN", "ROLLBACK; BEGIN"] {
            self.client.batch_execute(first).await.unwrap();
            writeln!(self.log, "{first} held").unwrap();
            self.run(&statement, true).await;
        }
    }

    /// Ends what is open.
    async fn release(&mut self) {
        let ended = self.client.batch_execute("COMMIT").await;
        writeln!(self.log, "COMMIT held {}", ended.is_ok()).unwrap();
    }

    /// A transaction that changes many rows.
    async fn large(&mut self) {
        let tables = tables(&self.client).await;
        self.client.batch_execute("BEGIN").await.unwrap();
        self.log += "BEGIN large\n";
        for _ in 0..30 {
            let at = self.generator.rng.usize(..tables.len().max(1));
            let Some(table) = tables.get(at) else { break };
            let Some(statement) = self.generator.rows(table) else {
                continue;
            };
            self.run(&statement, true).await;
        }
        self.client.batch_execute("COMMIT").await.unwrap();
        self.log += "COMMIT\n";
    }
}

/// Every table with its columns and rows, and what is left out.
fn contents(replica: &Replica) -> String {
    let view = replica.latest().unwrap();
    let mut contents = String::new();
    let mut tables = view.catalog().tables().to_vec();
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    for table in tables {
        if table.schema == "public" || table.schema == "apart" {
            let mut table = Table {
                id: TableId(0),
                indexes: Vec::new(),
                ..(*table).clone()
            };
            // Reasons may be put otherwise.
            for (_, reason) in &mut table.unsynced_columns {
                reason.clear();
            }
            let rows = rows(replica, &table.name);
            writeln!(contents, "{table:?}").unwrap();
            // Tables may have rows in common, which `difference` must not mix up.
            for row in rows {
                writeln!(contents, "    {}: {row:?}", table.name).unwrap();
            }
        }
    }
    let unsynced = view.catalog().unsynced().iter().map(|table| &table.name);
    let mut unsynced: Vec<_> = unsynced.collect();
    unsynced.sort();
    contents + &format!("{unsynced:?}")
}

/// Lines that only one of two texts has.
fn difference(ours: &str, theirs: &str) -> String {
    let shorten = |line: &str| line.chars().take(2000).collect::<String>();
    let only = |a: &str, b: &str, sign: &str| -> String {
        let there: std::collections::HashSet<_> = b.lines().collect();
        let lines = a.lines().filter(|line| !there.contains(line));
        lines
            .map(|line| format!("{sign} {}\n", shorten(line)))
            .collect()
    };
    only(ours, theirs, "-") + &only(theirs, ours, "+")
}

/// A case under way.
struct Case<'a> {
    cluster: &'a Cluster,
    seed: u64,
    options: Options,
    following: Option<Following>,
    replica_version: u64,
    rng: Rng,
    writer: Writer,
    publishing: Publishing,
    /// Whether a transaction that also changes the schema may be too large.
    small: bool,
}

impl Case<'_> {
    async fn step(&mut self, number: usize) {
        writeln!(self.writer.log, "-- step {number}").unwrap();
        self.writer.generator.moves = true;
        let stopped = self.rng.u8(..10) == 0;
        if stopped {
            self.writer.log += "-- stopped\n";
            self.stop().await;
        }
        let mut holder = None;
        if self.rng.u8(..8) == 0 {
            let prefix = format!("h{number}");
            let seed = self.rng.u64(..);
            let mut writer = Writer::new(self.cluster, seed, self.publishing, &prefix).await;
            writer.hold().await;
            self.take_in("held", &mut writer);
            holder = Some(writer);
        }
        match self.rng.u8(..20) {
            0..8 => self.writer.transaction(6).await,
            8..12 => {
                for _ in 0..self.rng.usize(2..5) {
                    self.writer.transaction(3).await;
                }
            }
            12..16 => self.writer.singles(6).await,
            16..18 => self.at_the_same_time().await,
            _ => self.writer.large().await,
        }
        if !stopped && self.rng.u8(..8) == 0 {
            self.writer.log += "-- connection lost\n";
            let kill = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots \
                        WHERE active AND slot_name LIKE 'kelvin_zero%'";
            self.cluster.sql(kill).await;
            self.writer.transaction(3).await;
        }
        if let Some(mut writer) = holder {
            writer.release().await;
            self.take_in("held", &mut writer);
        }
        if stopped {
            self.following = Some(Following::start(&self.options).await);
        }
    }

    async fn at_the_same_time(&mut self) {
        let mut writers = Vec::new();
        for prefix in ["x", "y", "z"] {
            let prefix = format!("{prefix}{}", self.rng.u16(..));
            let seed = self.rng.u64(..);
            let writer = Writer::new(self.cluster, seed, self.publishing, &prefix);
            let mut writer = writer.await;
            // Two of them may move a table there and back.
            writer.generator.moves = false;
            writers.push(tokio::spawn(async move {
                for _ in 0..2 {
                    writer.transaction(3).await;
                }
                writer
            }));
        }
        for writer in writers {
            let mut other = writer.await.unwrap();
            self.take_in("at the same time", &mut other);
        }
    }

    /// Adds what another writer did since the last time.
    fn take_in(&mut self, how: &str, other: &mut Writer) {
        let (log, tally) = (
            std::mem::take(&mut other.log),
            std::mem::take(&mut other.tally),
        );
        writeln!(self.writer.log, "-- {how}:\n{log}").unwrap();
        self.writer.tally.made += tally.made;
        self.writer.tally.taken += tally.taken;
    }

    async fn stop(&mut self) {
        if let Some(following) = self.following.take() {
            if following.ended() {
                let error = following.failure().await;
                panic!("seed {}: {error}\n{}", self.seed, self.writer.log);
            }
            following.stop().await;
        }
    }

    /// Waits until the replica has what a new copy would have.
    async fn settles(&mut self) {
        let expected = of_a_new_copy(self.cluster, &self.options, contents).await;
        let following = self.following.as_ref().unwrap();
        wait(|| following.ended() || contents(&following.replica) == expected).await;
        if following.ended() {
            let error = self.following.take().unwrap().failure().await;
            let known = self.small && error.to_string().contains("larger than");
            assert!(known, "seed {}: {error}\n{}", self.seed, self.writer.log);
            give_up(&self.options).await;
            let again = Following::start(&self.options).await;
            self.replica_version = again.replica.identity().replica_version;
            assert_eq!(contents(&again.replica), expected);
            self.following = Some(again);
            return;
        }
        let ours = contents(&following.replica);
        assert!(
            ours == expected,
            "seed {}:\n{}\n{:?}\n{}",
            self.seed,
            self.writer.log,
            following.backfills.list(),
            difference(&ours, &expected)
        );
        let version = following.replica.identity().replica_version;
        if self.small {
            // A transaction that is too large for what it changes costs what differs.
            self.replica_version = version;
        }
        let log = &self.writer.log;
        assert_eq!(version, self.replica_version, "seed {}:\n{log}", self.seed);
    }
}

/// Options of a case: those of the tests, or such that bounds are met.
fn case_options(options: Options, rng: &mut Rng, publishing: Publishing) -> (Options, bool) {
    let small = rng.u8(..3) == 0;
    let mut options = Options {
        schema_interval: Duration::from_millis(100),
        event_triggers: rng.bool(),
        text_stream: rng.u8(..3) == 0,
        spool_bytes: [0, 64 << 10, 1 << 30, 1 << 30][rng.usize(..4)],
        ..options
    };
    if publishing != Publishing::Default {
        options.publications = vec!["mine".into()];
    }
    if small {
        options.transaction_bytes = 24 << 10;
        options.backfill_bytes = 16 << 10;
        options.storage = ReplicaOptions {
            part_bytes: 8 << 10,
            ..options.storage
        };
    }
    (options, small)
}

async fn case(cluster: &Cluster, seed: u64) -> Tally {
    let mut rng = Rng::with_seed(seed);
    cluster.sql(START).await;
    let publishing = match rng.u8(..3) {
        0 => Publishing::Default,
        1 => Publishing::Schemas,
        _ => Publishing::Tables,
    };
    match publishing {
        Publishing::Default => {}
        Publishing::Schemas => {
            let publication = "CREATE PUBLICATION mine FOR TABLES IN SCHEMA public, apart \
                               WITH (publish_via_partition_root)";
            cluster.sql(publication).await;
        }
        Publishing::Tables => {
            let publication = "CREATE TABLE always (id int PRIMARY KEY); CREATE PUBLICATION mine \
                               FOR TABLE always WITH (publish_via_partition_root)";
            cluster.sql(publication).await;
        }
    }
    let mut writer = Writer::new(cluster, rng.u64(..), publishing, "").await;
    for _ in 0..3 {
        let create = writer.generator.create();
        writer.run(&create, false).await;
    }
    for table in tables(&writer.client).await {
        for _ in 0..3 {
            let insert = writer.generator.insert(&table);
            writer.run(&insert, false).await;
        }
    }
    let (options, _directory) = options(cluster);
    let (options, small) = case_options(options, &mut rng, publishing);
    let following = Following::start(&options).await;
    let mut case = Case {
        cluster,
        seed,
        replica_version: following.replica.identity().replica_version,
        following: Some(following),
        options,
        rng,
        writer,
        publishing,
        small,
    };
    for number in 1..=STEPS {
        case.step(number).await;
        if number % COMPARED == 0 || number == STEPS {
            case.settles().await;
        }
    }
    // It is opened as it is.
    case.stop().await;
    case.following = Some(Following::start(&case.options).await);
    case.settles().await;
    case.stop().await;
    let sent = "SELECT sum(stream_txns) FROM pg_stat_replication_slots";
    let sent = cluster.value(sent).await;
    case.writer.tally.in_progress = sent.map_or(0, |sent| sent.parse().unwrap());
    give_up(&case.options).await;
    case.writer.tally
}

/// A server that sends transactions of a few hundred changes before they commit.
fn cluster() -> Cluster {
    Cluster::with(Setup {
        settings: SMALL_MEMORY,
        ..Setup::default()
    })
}

fn variable(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(value.parse().expect(name))
}

#[tokio::test]
async fn random_changes_of_the_schema_lead_to_what_a_new_copy_has() {
    let cluster = cluster();
    let seed = variable("KELVIN_DDL_SEED");
    let minutes = variable("KELVIN_DDL_MINUTES");
    let cases = if seed.is_some() {
        1
    } else {
        variable("KELVIN_DDL_CASES").unwrap_or(CASES)
    };
    let began = Instant::now();
    let (mut total, mut run) = (Tally::default(), 0);
    loop {
        let over = match minutes {
            Some(minutes) => began.elapsed() >= Duration::from_secs(60 * minutes),
            None => run >= cases,
        };
        if over {
            break;
        }
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        println!("KELVIN_DDL_SEED={seed}");
        let tally = case(&cluster, seed).await;
        total.made += tally.made;
        total.taken += tally.taken;
        total.in_progress += tally.in_progress;
        run += 1;
    }
    println!(
        "{run} cases, {} of {} statements taken, {} transactions sent in progress",
        total.taken, total.made, total.in_progress
    );
}

#[tokio::test]
async fn most_random_statements_are_taken() {
    let cluster = cluster();
    let tally = case(&cluster, 7).await;
    let Tally { made, taken, .. } = tally;
    assert!(made > 30 && taken * 2 > made, "{taken} of {made}");
}
