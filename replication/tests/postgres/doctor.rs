//! What the doctor makes of servers that are slow, old or busy. What it finds of a server's set-up
//! is tested from outside, with the binary.

use std::time::Duration;

use kelvin_replication::Options;
use kelvin_replication::doctor::{Finding, Limits, State, examine};
use tokio::net::{TcpListener, TcpStream};

use crate::cluster::{Cluster, Setup};
use crate::following::{PATIENCE, options};

/// The worst state of a check's findings.
fn state(findings: &[Finding], check: &str) -> Option<State> {
    let of_check = findings.iter().filter(|finding| finding.check == check);
    of_check.map(|finding| finding.state).max()
}

fn found<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
    findings
        .iter()
        .filter(|finding| finding.check == check)
        .max_by_key(|finding| finding.state)
        .unwrap_or_else(|| panic!("no {check} in {findings:#?}"))
}

#[tokio::test]
async fn a_transaction_is_long_from_the_age_on_that_is_called_long() {
    let cluster = Cluster::with(Setup {
        settings: "max_prepared_transactions = 2",
        ..Setup::default()
    });
    cluster.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let (options, _directory) = options(&cluster);
    let client = cluster.client().await;
    client
        .batch_execute("BEGIN; INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    cluster
        .sql("BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'stays'")
        .await;
    let patient = examine(&options, &Limits::default()).await;
    assert_eq!(state(&patient, "transactions"), Some(State::Ok));
    assert_eq!(state(&patient, "prepared"), Some(State::Ok));
    let strict = Limits {
        long_transaction: Duration::ZERO,
        ..Limits::default()
    };
    let findings = examine(&options, &strict).await;
    let fix = |check| found(&findings, check).fix.clone().unwrap();
    assert_eq!(state(&findings, "transactions"), Some(State::Warning));
    cluster.sql(&fix("transactions")).await;
    assert!(fix("prepared").ends_with("ROLLBACK PREPARED 'stays'"));
    cluster.sql("ROLLBACK PREPARED 'stays'").await;
    let healed = examine(&options, &strict).await;
    assert_eq!(state(&healed, "transactions"), Some(State::Ok));
    assert_eq!(state(&healed, "prepared"), Some(State::Ok));
}

#[tokio::test]
async fn a_check_that_has_to_wait_is_given_up_and_the_others_go_on() {
    let cluster = Cluster::start();
    cluster.sql("CREATE TABLE t (id int PRIMARY KEY)").await;
    let (options, _directory) = options(&cluster);
    let client = cluster.client().await;
    client
        .batch_execute("BEGIN; LOCK pg_publication IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let limits = Limits {
        query: Duration::from_millis(200),
        ..Limits::default()
    };
    let findings = examine(&options, &limits).await;
    let publications = found(&findings, "publication");
    assert_eq!(publications.state, State::Warning);
    assert!(
        publications.found.starts_with("could not be checked"),
        "{publications:?}"
    );
    assert!(publications.fix.is_some());
    for check in [
        "version",
        "wal_level",
        "pooler",
        "replication",
        "transactions",
        "replica",
    ] {
        assert!(
            state(&findings, check).is_some_and(|state| state <= State::Note),
            "{check}"
        );
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_does_not_hold_the_doctor() {
    let cluster = Cluster::start();
    let (options, _directory) = options(&cluster);
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = relay.local_addr().unwrap().port();
    let server = cluster.port;
    tokio::spawn(async move {
        // The first connection is passed on; those after it are never answered.
        let mut silent = Vec::new();
        let (mut client, _) = relay.accept().await.unwrap();
        tokio::spawn(async move {
            let mut server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
        while let Ok((client, _)) = relay.accept().await {
            silent.push(client);
        }
    });
    let options = Options {
        upstream: format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable"),
        ..options
    };
    let limits = Limits {
        check: Duration::from_millis(500),
        total: Duration::from_secs(3),
        ..Limits::default()
    };
    let findings = tokio::time::timeout(PATIENCE, examine(&options, &limits));
    let findings = findings.await.expect("it ends");
    assert_eq!(state(&findings, "version"), Some(State::Ok));
    let pooler = found(&findings, "pooler");
    assert_eq!(pooler.state, State::Warning);
    assert!(pooler.found.contains("no answer within"), "{pooler:?}");
}

#[tokio::test]
async fn an_old_server_is_called_old_and_looked_at_all_the_same() {
    let cluster = Cluster::start();
    let (options, _directory) = options(&cluster);
    let old = [
        ("140012", "14.12", State::Error, "upgrade the server"),
        (
            "170004",
            "17.4",
            State::Note,
            "update the server to 17.5 or later",
        ),
    ];
    for (number, text, expected, fix) in old {
        // The settings come from a function of another schema, which says what that server would.
        cluster
            .sql(&format!(
                "CREATE SCHEMA IF NOT EXISTS old;
                 CREATE OR REPLACE FUNCTION old.current_setting(name text) RETURNS text
                   AS $$ SELECT CASE name WHEN 'server_version_num' THEN '{number}'
                                          WHEN 'server_version' THEN '{text}'
                                          ELSE pg_catalog.current_setting(name) END $$
                   LANGUAGE sql;
                 ALTER ROLE postgres SET search_path = old, pg_catalog"
            ))
            .await;
        let findings = examine(&options, &Limits::default()).await;
        let version = found(&findings, "version");
        assert_eq!(version.state, expected);
        assert!(version.found.contains(text), "{version:?}");
        assert_eq!(version.fix.as_deref(), Some(fix));
        assert_eq!(state(&findings, "wal_level"), Some(State::Ok));
    }
}

#[tokio::test]
async fn a_hosted_server_is_told_by_its_roles_and_mended_in_its_own_way() {
    let cluster = Cluster::with(Setup {
        settings: "wal_level = replica",
        ..Setup::default()
    });
    cluster
        .sql(
            "CREATE ROLE rds_superuser; CREATE ROLE rds_replication;
             CREATE ROLE app LOGIN IN ROLE rds_superuser; GRANT CREATE ON DATABASE postgres TO app",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let options = Options {
        upstream: cluster.address("app", "postgres", ""),
        ..options
    };
    let findings = examine(&options, &Limits::default()).await;
    assert!(found(&findings, "version").found.contains("Amazon RDS"));
    let wal_level = found(&findings, "wal_level").fix.clone().unwrap();
    assert!(wal_level.contains("rds.logical_replication"), "{wal_level}");
    let replication = found(&findings, "replication").fix.clone().unwrap();
    assert_eq!(replication, "GRANT rds_replication TO \"app\"");
    // Whether it lets its administrators publish everything is not in the catalogs.
    assert_eq!(found(&findings, "publish").state, State::Note);
    assert_eq!(found(&findings, "event_triggers").state, State::Ok);
}
