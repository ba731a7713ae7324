//! Filling the tables: rows made on a thread of their own, copied in binary on three connections.

use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use tokio::sync::mpsc;
use tokio_postgres::Client;

use super::cluster::{Cluster, DATABASE};
use super::content::{self, Content, Issue, LABELS, PROJECTS, USERS};
use super::progress::Progress;
use super::schema::connect;
use super::{Error, copy::CopyRows};

/// Bytes that go to PostgreSQL at once.
const CHUNK: usize = 256 * 1024;

/// Chunks a connection may lag behind the generator.
const CHUNKS_AHEAD: usize = 4;

const COPY_ISSUES: &str = "COPY issues (id, number, project_id, title, body, state, priority, \
     creator_id, assignee_id, comment_count, created, modified) FROM STDIN (FORMAT binary)";
const COPY_COMMENTS: &str =
    "COPY comments (id, issue_id, author_id, body, created) FROM STDIN (FORMAT binary)";
const COPY_LABELS: &str = "COPY issue_labels (issue_id, label_id) FROM STDIN (FORMAT binary)";

/// How many rows were loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Rows of `comments`.
    pub comments: u64,
    /// Rows of `issue_labels`.
    pub labels: u64,
}

/// Fills all tables.
///
/// # Errors
/// When PostgreSQL refuses the rows.
pub async fn fill(
    cluster: &Cluster,
    client: &Client,
    sample: Content,
    progress: &Progress,
) -> Result<Loaded, Error> {
    fill_small_tables(client).await?;
    let (to_issues, issues) = mpsc::channel(CHUNKS_AHEAD);
    let (to_comments, comments) = mpsc::channel(CHUNKS_AHEAD);
    let (to_labels, labels) = mpsc::channel(CHUNKS_AHEAD);
    let outlets = Outlets {
        issues: Outlet::new(to_issues),
        comments: Outlet::new(to_comments),
        labels: Outlet::new(to_labels),
    };
    let progress = progress.clone();
    // It ends early when a connection below is gone, because its channel is closed then.
    let maker = tokio::task::spawn_blocking(move || outlets.make(sample, &progress));
    let url = cluster.url(DATABASE);
    let copied = tokio::try_join!(
        copy(&url, COPY_ISSUES, issues),
        copy(&url, COPY_COMMENTS, comments),
        copy(&url, COPY_LABELS, labels),
    );
    let made = maker.await;
    let (_, comments, labels) = copied?;
    made.map_err(|error| Error::Io {
        doing: "making the sample data".to_owned(),
        source: std::io::Error::other(error),
    })?;
    Ok(Loaded { comments, labels })
}

async fn fill_small_tables(client: &Client) -> Result<(), Error> {
    let filling = "filling the demo's small tables";
    let user = client
        .prepare("INSERT INTO users VALUES ($1, $2, $3)")
        .await;
    let user = user.map_err(Error::sql(filling))?;
    for index in 0..USERS {
        let (id, name) = (content::user_id(index), content::user_name(index));
        let color = content::color(index * 5);
        client
            .execute(&user, &[&id, &name, &color])
            .await
            .map_err(Error::sql(filling))?;
    }
    let project = "INSERT INTO projects VALUES ($1, $2, $3, $4)";
    for (index, (key, name)) in PROJECTS.iter().enumerate() {
        let (id, color) = (content::project_id(index), content::color(index));
        client
            .execute(project, &[&id, key, name, &color])
            .await
            .map_err(Error::sql(filling))?;
    }
    let label = "INSERT INTO labels VALUES ($1, $2, $3)";
    for (index, (name, color)) in LABELS.iter().enumerate() {
        let id = content::label_id(index);
        client
            .execute(label, &[&id, name, color])
            .await
            .map_err(Error::sql(filling))?;
    }
    Ok(())
}

/// Copies chunks into a table until the channel ends; returns the number of rows.
async fn copy(url: &str, statement: &str, mut chunks: mpsc::Receiver<Bytes>) -> Result<u64, Error> {
    let filling = "filling the demo's tables";
    let client = connect(url).await?;
    let sink = client
        .copy_in(statement)
        .await
        .map_err(Error::sql(filling))?;
    let mut sink = std::pin::pin!(sink);
    while let Some(chunk) = chunks.recv().await {
        sink.send(chunk).await.map_err(Error::sql(filling))?;
    }
    sink.finish().await.map_err(Error::sql(filling))
}

/// Rows on their way to one table.
struct Outlet {
    rows: CopyRows,
    chunks: mpsc::Sender<Bytes>,
    gone: bool,
}

impl Outlet {
    fn new(chunks: mpsc::Sender<Bytes>) -> Self {
        Self {
            rows: CopyRows::new(BytesMut::with_capacity(CHUNK * 2)),
            chunks,
            gone: false,
        }
    }

    fn pass_on(&mut self, least: usize) {
        if self.rows.len() >= least {
            self.gone = self.chunks.blocking_send(self.rows.take()).is_err();
        }
    }
}

/// The three large tables.
struct Outlets {
    issues: Outlet,
    comments: Outlet,
    labels: Outlet,
}

impl Outlets {
    fn make(mut self, sample: Content, progress: &Progress) {
        for number in 1..=sample.issues {
            self.write(&sample.issue(number));
            let all = [&mut self.issues, &mut self.comments, &mut self.labels];
            for outlet in all {
                outlet.pass_on(CHUNK);
                if outlet.gone {
                    return;
                }
            }
            progress.at(number);
        }
        for mut outlet in [self.issues, self.comments, self.labels] {
            outlet.rows.end();
            outlet.pass_on(0);
        }
    }

    fn write(&mut self, issue: &Issue) {
        let id = content::issue_id(issue.number);
        let rows = &mut self.issues.rows;
        rows.row(12);
        rows.text(&id);
        rows.int4(issue.number.cast_signed());
        rows.text(&content::project_id(issue.project));
        rows.text(&issue.title);
        rows.text(&issue.body);
        rows.text(if issue.open { "open" } else { "closed" });
        rows.int2(issue.priority);
        rows.text(&content::user_id(issue.creator));
        match issue.assignee {
            Some(user) => rows.text(&content::user_id(user)),
            None => rows.null(),
        }
        rows.int4(i32::try_from(issue.comments.len()).unwrap_or(i32::MAX));
        rows.timestamp(issue.created_ms);
        rows.timestamp(issue.modified_ms);
        for (index, comment) in issue.comments.iter().enumerate() {
            let rows = &mut self.comments.rows;
            rows.row(5);
            rows.text(&format!("comment-{}-{}", issue.number, index + 1));
            rows.text(&id);
            rows.text(&content::user_id(comment.author));
            rows.text(&comment.body);
            rows.timestamp(comment.created_ms);
        }
        for label in &issue.labels {
            let rows = &mut self.labels.rows;
            rows.row(2);
            rows.text(&id);
            rows.text(&content::label_id(*label));
        }
    }
}
