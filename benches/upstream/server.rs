//! The PostgreSQL server, and what is asked of it without kelvin.

use std::process::{Child, Stdio};
use std::time::Duration;

use kelvin_replication::Lsn;
use tokio_postgres::Client;

use crate::cluster::{Cluster, Setup, tool};

/// Slot of the stream that is thrown away.
const SLOT: &str = "beside";
/// What kelvin makes of schema `public`.
const PUBLICATION: &str = "_zero_public_0";

/// Enough memory to copy from, and nothing that comes up by itself.
const SETTINGS: &str = "shared_buffers = 256MB\nmax_wal_size = 16GB\ncheckpoint_timeout = 1h\n\
    autovacuum = off\n";

const TABLE: &str = "CREATE TABLE issue (id int PRIMARY KEY, title text NOT NULL, \
    body text NOT NULL, open bool NOT NULL, modified timestamptz NOT NULL, owner text);\
    CREATE INDEX issue_modified ON issue (modified);";

/// A server with one table of issues, of about 300 bytes each as COPY sends them.
pub struct Server {
    pub cluster: Cluster,
    pub client: Client,
    /// Issues it has.
    pub rows: usize,
}

impl Server {
    pub async fn start(rows: usize) -> Self {
        let settings = SETTINGS;
        let cluster = Cluster::with(Setup {
            settings,
            ..Setup::default()
        });
        let client = cluster.client().await;
        client.batch_execute(TABLE).await.unwrap();
        let mut server = Self {
            cluster,
            client,
            rows: 0,
        };
        server.add(rows).await;
        // Else the first reader would write hint bits.
        let tidy = "VACUUM (FREEZE, ANALYZE) issue; CHECKPOINT";
        for statement in tidy.split(';') {
            server.client.batch_execute(statement).await.unwrap();
        }
        server
    }

    /// Adds issues in one transaction. Gives a position before its commit and after all other
    /// commits, so that who has come further has this one.
    pub async fn add(&mut self, count: usize) -> Lsn {
        let insert = self.insert(count);
        self.commit(&insert).await
    }

    fn insert(&mut self, count: usize) -> String {
        let (first, last) = (self.rows + 1, self.rows + count);
        self.rows = last;
        format!(
            "INSERT INTO issue SELECT n, 'Issue ' || n || ' cannot be reproduced here', \
             substr(repeat(md5(n::text), 7), 1, 210), n % 3 <> 0, \
             timestamptz '2026-01-01' + n * interval '1 second', 'member ' || n % 97 \
             FROM generate_series({first}, {last}) n"
        )
    }

    /// Adds issues in a transaction that stays open; the position is as for [`Server::add`].
    pub async fn begin_to_add(&mut self, count: usize) -> Lsn {
        let insert = self.insert(count);
        self.begin(&insert).await
    }

    async fn begin(&self, statement: &str) -> Lsn {
        let begin = format!("BEGIN; {statement}");
        self.client.batch_execute(&begin).await.unwrap();
        self.position("pg_current_wal_insert_lsn()").await
    }

    /// Waits until all WAL was decoded for the one who streams.
    pub async fn until_sent(&self) {
        let query =
            "SELECT bool_and(sent_lsn >= pg_current_wal_flush_lsn()) FROM pg_stat_replication";
        let sent = async || {
            let row = self.client.query_one(query, &[]).await.unwrap();
            row.get::<_, Option<bool>>(0) == Some(true)
        };
        while !sent().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Commits a statement; the position is as for [`Server::add`].
    pub async fn commit(&self, statement: &str) -> Lsn {
        let before = self.begin(statement).await;
        self.client.batch_execute("COMMIT").await.unwrap();
        before
    }

    /// A position that this expression stands for.
    pub async fn position(&self, expression: &str) -> Lsn {
        let query = format!("SELECT {expression}::text");
        let row = self.client.query_one(&query, &[]).await.unwrap();
        row.get::<_, String>(0).parse().unwrap()
    }

    /// The process id of the server.
    pub async fn process(&self) -> u32 {
        let query = "SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)";
        let row = self.client.query_one(query, &[]).await.unwrap();
        row.get::<_, String>(0).parse().unwrap()
    }

    /// Makes the slot of the stream that is thrown away, once kelvin has made its publications.
    pub async fn create_slot(&self) {
        let query =
            format!("SELECT 1 FROM pg_create_logical_replication_slot('{SLOT}', 'pgoutput')");
        self.client.batch_execute(&query).await.unwrap();
    }

    /// Drops that slot, and ends who streams from it.
    pub async fn drop_slot(&self, reader: Option<Child>) {
        let end = format!(
            "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots \
             WHERE slot_name = '{SLOT}' AND active"
        );
        self.client.batch_execute(&end).await.unwrap();
        if let Some(mut reader) = reader {
            reader.wait().unwrap();
        }
        let query = format!("SELECT pg_drop_replication_slot('{SLOT}')");
        self.client.batch_execute(&query).await.unwrap();
    }

    /// Drops the slots there are, as an operator does who does not know better.
    pub async fn drop_slots(&self) {
        let drop = "DO $$ BEGIN
            FOR attempt IN 1..1000 LOOP
                EXIT WHEN NOT EXISTS (SELECT FROM pg_replication_slots WHERE active);
                PERFORM pg_sleep(0.01);
            END LOOP;
            PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots;
        END $$";
        self.client.batch_execute(drop).await.unwrap();
    }

    /// Starts to receive the stream of that slot and to throw it away, up to `end` if there is one.
    pub fn throw_away(&self, end: Option<Lsn>) -> Child {
        let mut command = tool("pg_recvlogical");
        command
            .args(["--start", "--no-loop", "-f", "/dev/null", "-F", "0"])
            .args(["-U", "postgres", "-d", "postgres", "-h", "127.0.0.1"])
            .args(["-p", &self.cluster.port.to_string(), "-S", SLOT])
            .args(["-o", "proto_version=1"])
            .args(["-o", &format!("publication_names={PUBLICATION}")]);
        if let Some(end) = end {
            command.arg(format!("--endpos={end}"));
        }
        command.stderr(Stdio::null()).spawn().unwrap()
    }

    /// Waits until somebody streams from that slot.
    pub async fn until_streaming(&self) {
        let query = format!(
            "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{SLOT}' AND active"
        );
        let active = async || {
            let row = self.client.query_one(&query, &[]).await.unwrap();
            row.get::<_, i64>(0) == 1
        };
        while !active().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
