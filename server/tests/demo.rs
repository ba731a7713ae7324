//! The demo on a real PostgreSQL, with a sync server that only looks at what it was given.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

use std::fs;
use std::net::TcpListener as BlockingListener;
use std::path::PathBuf;
use std::time::Duration;

use kelvin_server::demo::{self, Error, Options, Serve, ServeError, ServeRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

/// Far beyond what a step takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn page() -> tempfile::TempDir {
    let page = tempfile::tempdir().unwrap();
    fs::write(page.path().join("index.html"), "<title>page</title>").unwrap();
    page
}

fn free_port() -> u16 {
    BlockingListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn options(page: &tempfile::TempDir) -> Options {
    Options {
        port: free_port(),
        web_port: free_port(),
        issues: 300,
        assets: Some(page.path().to_owned()),
        activity: 0.0,
        ..Options::default()
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// What the demo leaves to a sync server to make.
async fn make_permissions_table(client: &Client, app_id: &str) -> Result<(), ServeError> {
    let statements = format!(
        "CREATE SCHEMA \"{app_id}\";
         CREATE TABLE \"{app_id}\".permissions (permissions jsonb, lock bool PRIMARY KEY);
         INSERT INTO \"{app_id}\".permissions VALUES (NULL, true);"
    );
    Ok(client.batch_execute(&statements).await?)
}

/// A sync server that makes the permissions table, is ready, and passes on what it was given.
fn look_only(seen: mpsc::Sender<(String, PathBuf)>) -> Serve {
    Box::new(move |request: ServeRequest| {
        Box::pin(async move {
            let client = connect(&request.upstream).await;
            make_permissions_table(&client, &request.app_id).await?;
            let _ = request.ready.send(());
            seen.send((request.upstream, request.replica_dir)).await?;
            request.shutdown.cancelled().await;
            Ok(())
        })
    })
}

async fn get(port: u16, path: &str) -> String {
    for _ in 0..600 {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await {
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: box:1\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the page is not served");
}

async fn count(client: &Client, of: &str) -> i64 {
    client
        .query_one(&format!("SELECT count(*) FROM {of}"), &[])
        .await
        .unwrap()
        .get(0)
}

async fn its_triggers_keep_issues_up_to_date(client: &Client) {
    client
        .execute(
            "INSERT INTO comments VALUES ('c', 'issue-1', 'user-001', 'x')",
            &[],
        )
        .await
        .unwrap();
    let modified = "issues WHERE id = 'issue-1' AND modified > now() - interval '1 minute'";
    assert_eq!(
        count(client, modified).await,
        1,
        "a comment is a change of its issue"
    );
    client
        .execute(
            "INSERT INTO issues (id, project_id, title, creator_id) \
         VALUES ('new', 'web', 'x', 'user-001')",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(
        count(client, "issues WHERE id = 'new' AND number = 301").await,
        1
    );
}

#[tokio::test]
async fn a_demo_is_filled_served_and_leaves_nothing_behind() {
    let page = page();
    let options = options(&page);
    let (port, web_port) = (options.port, options.web_port);
    let (seen, mut given) = mpsc::channel(1);
    let shutdown = CancellationToken::new();
    let demo = tokio::spawn(demo::run_until(options, look_only(seen), shutdown.clone()));
    let (upstream, replica) = tokio::time::timeout(PATIENCE, given.recv())
        .await
        .unwrap()
        .expect("the demo runs");

    let client = connect(&upstream).await;
    assert_eq!(count(&client, "issues").await, 300);
    assert!(count(&client, "comments").await > 600);
    let miscounted = "issues i WHERE comment_count <> \
                      (SELECT count(*) FROM comments c WHERE c.issue_id = i.id)";
    assert_eq!(count(&client, miscounted).await, 0);

    let config = get(web_port, "/config.json").await;
    assert!(
        config.contains(&format!("\"server\":\"http://box:{port}\"")),
        "{config}"
    );
    assert!(
        get(web_port, "/issue/issue-7")
            .await
            .contains("<title>page</title>")
    );
    assert!(
        get(web_port, "/missing.js")
            .await
            .starts_with("HTTP/1.1 404")
    );
    assert_eq!(
        count(&client, "zero.permissions WHERE permissions IS NOT NULL").await,
        1
    );

    its_triggers_keep_issues_up_to_date(&client).await;

    shutdown.cancel();
    tokio::time::timeout(PATIENCE, demo)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(
        !replica.parent().unwrap().exists(),
        "the demo's directory is gone"
    );
    assert!(
        tokio_postgres::connect(&upstream, NoTls).await.is_err(),
        "PostgreSQL is gone"
    );
}

#[tokio::test]
async fn simulated_people_change_the_data() {
    let page = page();
    let options = Options {
        activity: 50.0,
        ..options(&page)
    };
    let (seen, mut given) = mpsc::channel(1);
    let shutdown = CancellationToken::new();
    let demo = tokio::spawn(demo::run_until(options, look_only(seen), shutdown.clone()));
    let (upstream, _) = tokio::time::timeout(PATIENCE, given.recv())
        .await
        .unwrap()
        .unwrap();
    let client = connect(&upstream).await;
    let changed = "issues WHERE modified > now() - interval '80 seconds'";
    tokio::time::timeout(PATIENCE, async {
        while count(&client, changed).await < 10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    shutdown.cancel();
    demo.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_fails_ends_the_demo_with_its_words() {
    let page = page();
    let serve: Serve = Box::new(|_| Box::pin(async { Err("the slot is taken".into()) }));
    let outcome = demo::run_until(options(&page), serve, CancellationToken::new()).await;
    assert!(
        outcome
            .unwrap_err()
            .to_string()
            .contains("the slot is taken")
    );
}

#[tokio::test]
async fn a_taken_port_is_said_before_anything_is_started() {
    let page = page();
    let taken = BlockingListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (options, flag) in [
        (
            Options {
                port,
                ..options(&page)
            },
            "--port",
        ),
        (
            Options {
                web_port: port,
                ..options(&page)
            },
            "--web-port",
        ),
    ] {
        let serve: Serve = Box::new(|_| Box::pin(async { panic!("it was started") }));
        let error = demo::run_until(options, serve, CancellationToken::new())
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Port { .. }), "{error}");
        assert!(error.to_string().contains(flag), "{error}");
    }
}

#[tokio::test]
async fn a_demo_that_is_ended_while_it_is_filled_ends_without_an_error() {
    let page = page();
    let shutdown = CancellationToken::new();
    let ending = shutdown.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(700)).await;
        ending.cancel();
    });
    let (seen, _given) = mpsc::channel(1);
    let options = Options {
        issues: 1_000_000,
        ..options(&page)
    };
    demo::run_until(options, look_only(seen), shutdown)
        .await
        .unwrap();
}
