//! Getting in, and what is said to those who do not.

use std::sync::Arc;

use kelvin_replication::{Error, ErrorKind, Options, connect_sql, prepare};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::cluster::{Cluster, PASSWORD, Setup};
use crate::following::options;

/// Percent-encodes everything, which is always allowed.
fn encoded(password: &str) -> String {
    password
        .bytes()
        .map(|byte| format!("%{byte:02x}"))
        .collect()
}

pub(crate) fn login(password: &str) -> String {
    format!("postgres:{}", encoded(password))
}

/// Prepares from an address.
async fn attempt(cluster: &Cluster, upstream: String) -> Result<(), Error> {
    let (options, _directory) = options(cluster);
    let options = Options {
        upstream,
        ..options
    };
    prepare(&options, Arc::new(())).await.map(drop)
}

/// The text of a refusal that the operator has to mend.
async fn refusal(cluster: &Cluster, upstream: String) -> String {
    let error = attempt(cluster, upstream).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn passwords_are_given_as_the_server_asks_for_them() {
    for (method, stored) in [
        ("password", "md5"),
        ("md5", "md5"),
        ("scram-sha-256", "scram-sha-256"),
    ] {
        let access = format!("host all all all {method}\nhost replication all all {method}\n");
        let cluster = Cluster::with(Setup {
            settings: &format!("password_encryption = '{stored}'"),
            access: Some(&format!("local all all trust\n{access}")),
            tls: false,
        });
        cluster
            .sql(&format!("ALTER ROLE postgres PASSWORD '{PASSWORD}'"))
            .await;
        let right = cluster.address(&login(PASSWORD), "postgres", "");
        attempt(&cluster, right)
            .await
            .unwrap_or_else(|error| panic!("{method}: {error}"));
        let wrong = cluster.address(&login("wrong"), "postgres", "");
        let text = refusal(&cluster, wrong).await;
        assert!(text.contains("password"), "{text}");
        assert!(!text.contains("wrong"), "{text}");
        let missing = cluster.address("postgres", "postgres", "");
        let text = refusal(&cluster, missing).await;
        assert!(text.contains("password"), "{text}");
    }
}

#[tokio::test]
async fn tls_is_used_as_the_address_says() {
    let cluster = Cluster::with(Setup {
        settings: "",
        access: Some(
            "local all all trust\nhostssl all all all scram-sha-256\n\
             hostssl replication all all scram-sha-256\n",
        ),
        tls: true,
    });
    let certificate = cluster.certificate().display().to_string();
    let address = |tls: &str| cluster.address(&login(PASSWORD), "postgres", tls);
    for tls in [
        "",
        "sslmode=require",
        "sslmode=no-verify",
        &format!("sslmode=require&sslrootcert={certificate}"),
        &format!("sslmode=verify-ca&sslrootcert={certificate}"),
        &format!("sslmode=verify-full&sslrootcert={certificate}"),
    ] {
        attempt(&cluster, address(tls))
            .await
            .unwrap_or_else(|error| panic!("{tls}: {error}"));
    }
    let client = connect_sql(&address("sslmode=require")).await.unwrap();
    let query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert!(
        client
            .query_one(query, &[])
            .await
            .unwrap()
            .get::<_, bool>(0)
    );

    let text = refusal(&cluster, address("sslmode=verify-full")).await;
    assert!(text.contains("sslrootcert"), "{text}");
    let text = refusal(&cluster, address("sslmode=disable")).await;
    assert!(text.contains("TLS"), "{text}");
    // The name in the certificate is another one, which only verify-full minds.
    let by_number = |tls: &str| {
        let tls = format!("sslmode={tls}&sslrootcert={certificate}");
        address(&tls).replace("@localhost", "@127.0.0.1")
    };
    attempt(&cluster, by_number("verify-ca")).await.unwrap();
    refusal(&cluster, by_number("verify-full")).await;
}

#[tokio::test]
async fn a_server_without_tls_is_named_where_tls_is_asked_for() {
    let cluster = Cluster::start();
    let text = refusal(
        &cluster,
        cluster.address("postgres", "postgres", "sslmode=require"),
    )
    .await;
    assert!(text.contains("does not offer TLS"), "{text}");
    attempt(&cluster, cluster.socket_url()).await.unwrap();
}

#[tokio::test]
async fn what_the_operator_must_mend_is_said() {
    let cluster = Cluster::start();
    cluster
        .sql("CREATE ROLE modest LOGIN; GRANT CREATE ON DATABASE postgres TO modest")
        .await;
    let text = refusal(&cluster, cluster.address("postgres", "nowhere", "")).await;
    assert!(
        text.contains("\"nowhere\"") && text.contains("CREATE DATABASE"),
        "{text}"
    );
    let text = refusal(&cluster, cluster.address("nobody", "postgres", "")).await;
    assert!(text.contains("\"nobody\""), "{text}");
    let text = refusal(&cluster, cluster.address("modest", "postgres", "")).await;
    assert!(text.contains("ALTER ROLE \"modest\" REPLICATION"), "{text}");
    cluster.stop("fast");
    let text = refusal(&cluster, cluster.url()).await;
    assert!(text.contains("check that PostgreSQL runs there"), "{text}");
    let text = refusal(&cluster, "postgres://host.invalid/x".into()).await;
    assert!(text.contains("host.invalid"), "{text}");
}

#[tokio::test]
async fn a_server_that_does_not_decode_says_how_to_make_it() {
    let cluster = Cluster::with(Setup {
        settings: "wal_level = replica",
        ..Setup::default()
    });
    let text = refusal(&cluster, cluster.url()).await;
    assert!(
        text.contains("wal_level") && text.contains("restart"),
        "{text}"
    );
}

#[tokio::test]
async fn a_server_without_free_slots_or_senders_says_what_to_raise() {
    let cluster = Cluster::with(Setup {
        settings: "max_replication_slots = 1",
        ..Setup::default()
    });
    cluster
        .sql("SELECT pg_create_logical_replication_slot('other', 'pgoutput')")
        .await;
    let text = refusal(&cluster, cluster.url()).await;
    assert!(text.contains("max_replication_slots"), "{text}");

    let cluster = Cluster::with(Setup {
        settings: "max_wal_senders = 0",
        ..Setup::default()
    });
    let text = refusal(&cluster, cluster.url()).await;
    assert!(text.contains("max_wal_senders"), "{text}");
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_named_before_anything_is_copied() {
    let cluster = Cluster::start();
    let (options, directory) = options(&cluster);
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let options = Options {
        replica_dir: file.join("replica"),
        ..options
    };
    let error = prepare(&options, Arc::new(())).await.err().unwrap();
    assert!(error.to_string().contains("file/replica"), "{error}");
    let slots = cluster
        .value("SELECT count(*) FROM pg_replication_slots")
        .await;
    assert_eq!(slots.as_deref(), Some("0"));
}

#[tokio::test]
async fn an_old_server_is_refused() {
    let cluster = Cluster::start();
    // The settings come from a function of another schema, which says what an old server would.
    cluster
        .sql(
            "CREATE SCHEMA old; CREATE FUNCTION old.current_setting(name text) RETURNS text
               AS $$ SELECT CASE name WHEN 'server_version_num' THEN '140012' ELSE '14.12' END $$
               LANGUAGE sql;
             ALTER ROLE postgres SET search_path = old, pg_catalog",
        )
        .await;
    let text = refusal(&cluster, cluster.url()).await;
    assert!(
        text.contains("14.12") && text.contains("version 15"),
        "{text}"
    );
}

#[tokio::test]
async fn a_pooler_in_between_is_recognised() {
    let cluster = Cluster::start();
    let pooler = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = cluster.url().replace(
        &cluster.port.to_string(),
        &pooler.local_addr().unwrap().port().to_string(),
    );
    let server = cluster.port;
    tokio::spawn(async move {
        while let Ok((client, _)) = pooler.accept().await {
            tokio::spawn(pool(client, server));
        }
    });
    let text = refusal(&cluster, format!("{url}sslmode=disable")).await;
    assert!(text.contains("pooler"), "{text}");
}

/// Passes a connection on, unless it is for replication.
async fn pool(mut client: TcpStream, server: u16) {
    let mut start = vec![0; 4096];
    let length = client.read(&mut start).await.unwrap();
    start.truncate(length);
    if start.windows(11).any(|part| part == b"replication") {
        let fields = b"SFATAL\0C08P01\0Munsupported startup parameter: replication\0\0";
        let mut refusal = vec![b'E'];
        refusal.extend(u32::try_from(fields.len() + 4).unwrap().to_be_bytes());
        refusal.extend(fields);
        client.write_all(&refusal).await.unwrap();
        return;
    }
    let mut server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
    server.write_all(&start).await.unwrap();
    // The test is over when this fails.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}
