//! Connections over which nothing comes any more, and transactions that do not end.

use std::sync::Arc;
use std::time::Duration;

use kelvin_replication::{Error, Options, prepare};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::cluster::{Cluster, PASSWORD, Setup};
use crate::following::{Following, options, prepared, row, rows};
use crate::login::login;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)";

/// A network between kelvin and the server that can lose all connections there are without telling
/// either end.
struct Network {
    port: u16,
    outage: watch::Sender<u32>,
}

impl Network {
    async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (outage, outages) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut outages = outages.clone();
                outages.mark_unchanged();
                tokio::spawn(async move {
                    let mut client = client;
                    let mut server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                    let passing = tokio::io::copy_bidirectional(&mut client, &mut server);
                    tokio::select! {
                        _ = passing => {}
                        lost = outages.changed() => {
                            // Both ends stay open for as long as there is a network.
                            let _ends = (client, server);
                            if lost.is_ok() {
                                while outages.changed().await.is_ok() {}
                            }
                        }
                    }
                });
            }
        });
        Self { port, outage }
    }

    /// Nothing comes over the connections of now any more.
    fn lose_connections(&self) {
        self.outage.send_modify(|outage| *outage += 1);
    }
}

/// Options to follow over a network, which reach the server at `address` without it.
fn over(network: &Network, cluster: &Cluster, address: &str, options: Options) -> Options {
    let (direct, detour) = (format!(":{}/", cluster.port), format!(":{}/", network.port));
    Options {
        upstream: address.replace(&direct, &detour),
        inbound_timeout: Some(Duration::from_secs(2)),
        ..options
    }
}

/// Follows over a network that loses its connections.
async fn outlives_an_outage(cluster: &Cluster, login: &str, parameters: &str) {
    cluster.sql(TABLE).await;
    let network = Network::before(cluster.port).await;
    let (options, _directory) = options(cluster);
    let address = cluster.address(login, "postgres", parameters);
    let options = over(&network, cluster, &address, options);
    let mut following = Following::start(&options).await;
    cluster.sql("INSERT INTO t VALUES (2)").await;
    following.until_rows("t", &[row(&["1"]), row(&["2"])]).await;
    let identity = following.replica.identity();
    network.lose_connections();
    // The server believes that the old stream is there, and that the slot is in use.
    cluster.sql("INSERT INTO t VALUES (3)").await;
    let three = ["1", "2", "3"].map(|id| row(&[id]));
    following.until_rows("t", &three).await;
    // Nor does looking at the schema go on over a connection that is lost.
    network.lose_connections();
    cluster
        .sql("ALTER TABLE t ADD note text DEFAULT 'x'; INSERT INTO t VALUES (4)")
        .await;
    // However often, and whatever was going on over them.
    for _ in 0..8 {
        network.lose_connections();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let four = ["1", "2", "3", "4"].map(|id| row(&[id, "x"]));
    following.until_rows("t", &four).await;
    assert_eq!(following.replica.identity().slot, identity.slot);
    following.stop().await;
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_replaced() {
    outlives_an_outage(&Cluster::start(), "postgres", "sslmode=disable").await;
}

#[tokio::test]
async fn a_connection_with_tls_that_falls_silent_is_replaced() {
    let cluster = Cluster::with(Setup {
        settings: "",
        access: Some(
            "local all all trust\nhostssl all all all scram-sha-256\n\
             hostssl replication all all scram-sha-256\n",
        ),
        tls: true,
    });
    outlives_an_outage(&cluster, &login(PASSWORD), "sslmode=require").await;
}

/// It would be waited for as long as a look may take.
#[tokio::test]
async fn a_look_at_the_schema_that_falls_silent_does_not_hold_up_the_next_stream() {
    let cluster = Cluster::start();
    cluster.sql(TABLE).await;
    let network = Network::before(cluster.port).await;
    let (options, _directory) = options(&cluster);
    let options = over(&network, &cluster, &cluster.url(), options);
    let mut following = Following::start(&options).await;
    let holder = cluster.client().await;
    let lock = "BEGIN; LOCK TABLE pg_publication IN ACCESS EXCLUSIVE MODE";
    holder.batch_execute(lock).await.unwrap();
    let looks = "SELECT 1::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                 AND application_name = 'kelvin-schema-watch'";
    while cluster.value(looks).await.is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    network.lose_connections();
    holder.batch_execute("ROLLBACK").await.unwrap();
    cluster
        .sql("ALTER TABLE t ADD note text DEFAULT 'x'; INSERT INTO t VALUES (2)")
        .await;
    let expected = ["1", "2"].map(|id| row(&[id, "x"]));
    following.until_rows("t", &expected).await;
    following.stop().await;
}

#[tokio::test]
async fn a_transaction_that_stays_open_holds_up_neither_others_nor_a_restart() {
    let cluster = Cluster::start();
    cluster.sql(TABLE).await;
    cluster.sql("CREATE TABLE u (id int PRIMARY KEY)").await;
    let (options, _directory) = options(&cluster);
    let mut following = Following::start(&options).await;
    let open = cluster.client().await;
    open.batch_execute("BEGIN; INSERT INTO t VALUES (2); ALTER TABLE t ADD note text")
        .await
        .unwrap();
    cluster.sql("INSERT INTO u VALUES (1)").await;
    following.until_rows("u", &[row(&["1"])]).await;
    let identity = following.replica.identity();
    following.stop().await;
    let mut again = Following::start(&options).await;
    cluster.sql("INSERT INTO u VALUES (2)").await;
    again.until_rows("u", &[row(&["1"]), row(&["2"])]).await;
    assert_eq!(again.replica.identity(), identity);
    assert_eq!(again.rows("t"), [row(&["1"])]);
    open.batch_execute("COMMIT").await.unwrap();
    cluster.sql("UPDATE t SET note = 'n'").await;
    let expected = [row(&["1", "n"]), row(&["2", "n"])];
    again.until_rows("t", &expected).await;
    again.stop().await;
}

#[tokio::test]
async fn a_first_start_says_that_it_waits_for_a_transaction_that_does_not_end() {
    let cluster = Cluster::start();
    cluster.sql(TABLE).await;
    let (options, _directory) = options(&cluster);
    let open = cluster.client().await;
    open.batch_execute("BEGIN; INSERT INTO t VALUES (2)")
        .await
        .unwrap();
    let impatient = Options {
        slot_timeout: Duration::from_secs(1),
        ..options.clone()
    };
    let error = prepare(&impatient, Arc::new(())).await.err().unwrap();
    assert!(matches!(error, Error::Timeout(_)), "{error:?}");
    assert!(error.to_string().contains("pg_stat_activity"), "{error}");
    assert!(error.may_pass());
    let slots = "SELECT count(*)::text FROM pg_replication_slots";
    assert_eq!(cluster.value(slots).await.as_deref(), Some("0"));
    open.batch_execute("COMMIT").await.unwrap();
    let replica = prepared(&options).await.replica;
    assert_eq!(rows(&replica, "t").len(), 2);
}
