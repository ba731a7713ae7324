//! What is created in the upstream.

use std::sync::Arc;

use kelvin_replication::{ErrorKind, Options, prepare};

use crate::cluster::Cluster;
use crate::following::{options, prepared};

const SHAPE: &str = "
    SELECT string_agg(format('%s.%s.%s %s', table_schema, table_name, column_name, data_type), ', '
                      ORDER BY table_schema, table_name, ordinal_position)
    FROM information_schema.columns
    WHERE (table_schema, table_name) IN
      (('zero', 'permissions'), ('zero_0', 'clients'), ('zero_0', 'mutations'))";

#[tokio::test]
async fn the_tables_others_rely_on_are_as_zero_cache_makes_them() {
    let cluster = Cluster::start();
    let (options, _directory) = options(&cluster);
    drop(prepared(&options).await);
    let shape = cluster.value(SHAPE).await.unwrap();
    assert_eq!(
        shape,
        "zero.permissions.permissions jsonb, zero.permissions.hash text, \
         zero.permissions.lock boolean, \
         zero_0.clients.clientGroupID text, zero_0.clients.clientID text, \
         zero_0.clients.lastMutationID bigint, zero_0.clients.userID text, \
         zero_0.mutations.clientGroupID text, zero_0.mutations.clientID text, \
         zero_0.mutations.mutationID bigint, zero_0.mutations.result json"
    );
    cluster
        .sql("UPDATE zero.permissions SET permissions = '{\"tables\": {}}'")
        .await;
    let hash = cluster
        .value("SELECT hash = md5(permissions::text) FROM zero.permissions")
        .await;
    assert_eq!(hash.as_deref(), Some("t"));
    let version = "SELECT \"dataVersion\" FROM zero_0.\"versionHistory\"";
    assert_eq!(cluster.value(version).await.as_deref(), Some("22"));
    let config = "SELECT publications::text || \"ddlDetection\"::text FROM zero_0.\"shardConfig\"";
    assert_eq!(
        cluster.value(config).await.as_deref(),
        Some("{_zero_metadata_0,_zero_public_0}false")
    );
    let registered = "SELECT count(*) FROM zero_0.\"kelvinReplicas\" r
                      JOIN pg_replication_slots s ON s.slot_name = r.slot WHERE copied";
    assert_eq!(cluster.value(registered).await.as_deref(), Some("1"));
    let slot = "SELECT slot_name FROM pg_replication_slots";
    assert_eq!(
        cluster.value(slot).await.as_deref(),
        Some("kelvin_zero_0_a")
    );
}

#[tokio::test]
async fn an_unclaimed_slot_is_dropped_but_not_that_of_another_app_or_of_zero_cache() {
    let cluster = Cluster::start();
    let create =
        |name: &str| format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')");
    // The last is of shard 1 of the app `zero_0`.
    let names = [
        "kelvin_zero_0_a",
        "kelvin_zero_0_k",
        "kelvin_zero_0_1_a",
        "zero_0_a",
    ];
    for name in names {
        cluster.sql(&create(name)).await;
    }
    let (options, _directory) = options(&cluster);
    drop(prepared(&options).await);
    let slots = "SELECT string_agg(slot_name, ' ' ORDER BY slot_name COLLATE \"C\")
                 FROM pg_replication_slots";
    let slots = cluster.value(slots).await;
    assert_eq!(
        slots.as_deref(),
        Some("kelvin_zero_0_1_a kelvin_zero_0_a zero_0_a")
    );
}

#[tokio::test]
async fn what_is_there_is_left_alone() {
    let cluster = Cluster::start();
    // As zero-deploy-permissions leaves it.
    cluster
        .sql(
            "CREATE SCHEMA zero;
             CREATE TABLE zero.permissions (permissions JSONB, hash TEXT,
               lock BOOL PRIMARY KEY DEFAULT true CHECK (lock));
             CREATE FUNCTION zero.set_permissions_hash() RETURNS TRIGGER AS $$
               BEGIN NEW.hash = 'theirs'; RETURN NEW; END $$ LANGUAGE plpgsql;
             CREATE TRIGGER on_set_permissions BEFORE INSERT OR UPDATE ON zero.permissions
               FOR EACH ROW EXECUTE FUNCTION zero.set_permissions_hash();
             INSERT INTO zero.permissions (permissions) VALUES ('{\"a\": 1}')",
        )
        .await;
    let (options, directory) = options(&cluster);
    drop(prepared(&options).await);
    let kept = "SELECT permissions::text || hash FROM zero.permissions";
    assert_eq!(
        cluster.value(kept).await.as_deref(),
        Some("{\"a\": 1}theirs")
    );
    cluster
        .sql("INSERT INTO zero_0.clients VALUES ('g', 'c', 7)")
        .await;
    // Another list of publications makes zero-cache drop the shard; here clients stay.
    cluster
        .sql("CREATE PUBLICATION mine FOR TABLES IN SCHEMA public")
        .await;
    let other = Options {
        publications: vec!["mine".into()],
        ..options
    };
    drop(prepared(&other).await);
    let kept = "SELECT \"lastMutationID\" FROM zero_0.clients";
    assert_eq!(cluster.value(kept).await.as_deref(), Some("7"));
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(cluster.value(slots).await.as_deref(), Some("1"));
    drop(directory);
}

#[tokio::test]
async fn two_servers_can_set_up_at_the_same_time() {
    let cluster = Cluster::start();
    let ((one, _first), (two, _second)) = (options(&cluster), options(&cluster));
    let (one, two) = tokio::join!(prepare(&one, Arc::new(())), prepare(&two, Arc::new(())));
    one.unwrap();
    two.unwrap();
}

#[tokio::test]
async fn publications_that_cannot_serve_are_refused_with_the_remedy() {
    let cluster = Cluster::start();
    cluster
        .sql("CREATE PUBLICATION inserts WITH (publish = 'insert')")
        .await;
    for (name, remedy) in [
        ("missing", "CREATE PUBLICATION"),
        ("inserts", "SET (publish"),
        ("_own", "not valid"),
    ] {
        let (options, _directory) = options(&cluster);
        let options = Options {
            publications: vec![name.into()],
            ..options
        };
        let error = prepare(&options, Arc::new(())).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(remedy), "{error}");
    }
}

#[tokio::test]
async fn a_role_that_is_no_superuser_can_replicate_its_own_publication() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE ROLE app LOGIN REPLICATION; GRANT CREATE ON DATABASE postgres TO app;
             CREATE TABLE t (id int PRIMARY KEY); GRANT SELECT ON t TO app;
             CREATE PUBLICATION mine FOR TABLE t",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let mut options = Options {
        upstream: cluster.address("app", "postgres", ""),
        ..options
    };
    let error = prepare(&options, Arc::new(())).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().contains("ZERO_APP_PUBLICATIONS"),
        "{error}"
    );
    options.publications = vec!["mine".into()];
    let replica = prepared(&options).await.replica;
    assert!(replica.catalog().table("t").is_some());
}

#[tokio::test]
async fn tables_without_a_primary_key_get_an_identity() {
    let cluster = Cluster::start();
    cluster
        .sql(
            "CREATE TABLE t (a int, b int NOT NULL, c int NOT NULL);
             CREATE UNIQUE INDEX t_nullable ON t (a);
             CREATE UNIQUE INDEX t_partial ON t (b) WHERE b > 0;
             CREATE UNIQUE INDEX t_whole ON t (c, b)",
        )
        .await;
    let (options, _directory) = options(&cluster);
    let replica = prepared(&options).await.replica;
    let identity = "SELECT relname FROM pg_index JOIN pg_class c ON c.oid = indexrelid
                    WHERE indisreplident";
    assert_eq!(cluster.value(identity).await.as_deref(), Some("t_whole"));
    assert_eq!(replica.catalog().table("t").unwrap().key, [2, 1]);
}
