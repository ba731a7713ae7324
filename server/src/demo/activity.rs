//! Simulated people: a steady trickle of plausible edits, straight in PostgreSQL.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::content::{self, LABELS, PROJECTS, USERS};
use super::schema::connect;

/// An edit that takes longer is given up, and the connection with it.
const EDIT_TIMEOUT: Duration = Duration::from_secs(10);

/// After a failure the next try waits this long at first, and at most [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(500);

/// See [`MIN_PAUSE`].
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Most edits concern one of this many issues that changed last: people work on what is current.
const CURRENT: i64 = 150;

/// Works in the database at `url`, at `rate` edits a second, until `shutdown`.
pub async fn simulate(url: String, rate: f64, seed: u64, shutdown: CancellationToken) {
    if rate <= 0.0 {
        return;
    }
    tokio::select! {
        () = work(&url, rate, seed) => {}
        () = shutdown.cancelled() => {}
    }
}

async fn work(url: &str, rate: f64, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut pause = MIN_PAUSE;
    loop {
        if let Ok(client) = connect(url).await {
            pause = MIN_PAUSE;
            let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                let edited = timeout(EDIT_TIMEOUT, edit(&client, &mut rng)).await;
                if !matches!(edited, Ok(Ok(()))) {
                    break;
                }
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// One edit, one transaction.
async fn edit(client: &Client, rng: &mut Rng) -> Result<(), tokio_postgres::Error> {
    let kind = rng.u8(0..100);
    if kind < 8 {
        return open_issue(client, rng).await;
    }
    let Some(issue) = some_issue(client, rng).await? else {
        return Ok(());
    };
    let user = content::user_id(rng.usize(0..USERS));
    match kind {
        8..50 => {
            let body = content::comment(rng);
            let insert = "INSERT INTO comments (id, issue_id, author_id, body) \
                          VALUES (gen_random_uuid()::text, $1, $2, $3)";
            client.execute(insert, &[&issue, &user, &body]).await?;
        }
        50..70 => {
            let turn = "UPDATE issues SET state = CASE state WHEN 'open' THEN 'closed' \
                        ELSE 'open' END WHERE id = $1";
            client.execute(turn, &[&issue]).await?;
        }
        70..84 => {
            let assign = "UPDATE issues SET assignee_id = $2 WHERE id = $1";
            client.execute(assign, &[&issue, &user]).await?;
        }
        84..92 => {
            let rank = "UPDATE issues SET priority = $2 WHERE id = $1";
            client.execute(rank, &[&issue, &rng.i16(0..=4)]).await?;
        }
        _ => {
            let label = content::label_id(rng.usize(0..LABELS.len()));
            let put = "WITH put AS (INSERT INTO issue_labels VALUES ($1, $2) \
                       ON CONFLICT DO NOTHING) \
                       UPDATE issues SET modified = now() WHERE id = $1";
            client.execute(put, &[&issue, &label]).await?;
        }
    }
    Ok(())
}

async fn open_issue(client: &Client, rng: &mut Rng) -> Result<(), tokio_postgres::Error> {
    let project = content::project_id(rng.usize(0..PROJECTS.len()));
    let (title, body) = (content::title(rng), content::body(rng));
    let (creator, priority) = (content::user_id(rng.usize(0..USERS)), rng.i16(0..=4));
    let insert = "INSERT INTO issues (id, project_id, title, body, creator_id, priority) \
                  VALUES (gen_random_uuid()::text, $1, $2, $3, $4, $5)";
    client
        .execute(insert, &[&project, &title, &body, &creator, &priority])
        .await?;
    Ok(())
}

/// The id of a current issue, or now and then of any issue.
async fn some_issue(
    client: &Client,
    rng: &mut Rng,
) -> Result<Option<String>, tokio_postgres::Error> {
    let current = "SELECT id FROM issues ORDER BY modified DESC OFFSET $1 LIMIT 1";
    let any = "SELECT id FROM issues WHERE number > $1 ORDER BY number LIMIT 1";
    let row = if rng.u8(0..10) < 8 {
        client.query_opt(current, &[&rng.i64(0..CURRENT)]).await?
    } else {
        let last: Option<i32> = client
            .query_one("SELECT max(number) FROM issues", &[])
            .await?
            .get(0);
        client
            .query_opt(any, &[&rng.i32(0..last.unwrap_or(1).max(1))])
            .await?
    };
    row.map(|row| row.try_get(0)).transpose()
}
