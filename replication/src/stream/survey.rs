//! Looking at the upstream's schema, and marking in the stream that it was looked at.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, IsolationLevel, Transaction};

use super::ddl::Announcements;
use super::evolution::{KnownTables, Running, Survey, known};
use super::lag::Lag;
use crate::discovery::discover;
use crate::{Address, Error, Options, Result, sql};

/// Application name of the connection that looks.
const APPLICATION: &str = "kelvin-schema-watch";
/// What was running when the snapshot of a look was taken.
const RUNNING: &str = "
    SELECT pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint
    FROM pg_current_snapshot() s";
/// Longest query of a look.
const STATEMENT_TIMEOUT: &str = "SET statement_timeout = '30s'";
/// Longest look, which also ends one whose server is gone without a word. The stream waits for it.
const LONGEST_LOOK: Duration = Duration::from_secs(45);
/// How long the connection of the last look may take to answer, before a new one is opened.
const PROBE: Duration = Duration::from_secs(3);
/// Announced surveys that are kept until the stream comes to their marks; the newest count.
const ANNOUNCED: usize = 8;

/// Looks at the schema over a connection of its own.
pub(crate) struct Surveyor {
    address: Address,
    publications: Vec<String>,
    internal: [String; 2],
    marks: Marks,
    client: Option<Client>,
    known: KnownTables,
    /// Number of the survey it is known from; zero for what was known at first.
    calm: u64,
    announced: VecDeque<Arc<Survey>>,
    /// Told when the stream breaks off.
    broken: Arc<Notify>,
}

/// What marks look like: messages that PostgreSQL passes on where they stand among transactions.
#[derive(Clone, Debug)]
pub(crate) struct Marks {
    prefix: String,
    /// Prefix of messages that are only timed.
    lag_prefix: String,
    /// Tells marks of this process from those of others.
    nonce: u64,
    /// Surveys begun.
    begun: Arc<AtomicU64>,
    announcements: Announcements,
}

impl Marks {
    /// Marks of this process.
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            prefix: format!("kelvin/{}/schema", options.shard().schema()),
            lag_prefix: format!("kelvin/{}/lag", options.shard().schema()),
            nonce: RandomState::new().build_hasher().finish(),
            begun: Arc::default(),
            announcements: Announcements::new(options),
        }
    }

    /// How many surveys were begun so far, which is the number of the last.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// Tells what others say of the schema.
    pub(crate) fn announcements(&self) -> &Announcements {
        &self.announcements
    }

    fn content(&self, number: u64) -> String {
        format!("{:x}:{number}", self.nonce)
    }

    /// The number of the survey that a message marks, if it is one of ours.
    pub(crate) fn number(&self, prefix: &str, content: &[u8]) -> Option<u64> {
        let is_mark = prefix == self.prefix;
        is_mark.then(|| self.counted(content)).flatten()
    }

    /// The number of a message that is only timed, if it is one of ours.
    pub(crate) fn timed(&self, prefix: &str, content: &[u8]) -> Option<u64> {
        let is_timed = prefix == self.lag_prefix;
        is_timed.then(|| self.counted(content)).flatten()
    }

    fn counted(&self, content: &[u8]) -> Option<u64> {
        let content = std::str::from_utf8(content).ok()?;
        let (nonce, number) = content.split_once(':')?;
        let ours = nonce == format!("{:x}", self.nonce);
        ours.then(|| number.parse().ok()).flatten()
    }
}

impl Surveyor {
    /// A surveyor that knows of the tables as the replica holds them.
    pub(crate) fn new(
        options: &Options,
        address: Address,
        publications: Vec<String>,
        known: KnownTables,
    ) -> Self {
        Self {
            address,
            publications,
            internal: options.internal_schemas(),
            marks: Marks::new(options),
            client: None,
            known,
            calm: 0,
            announced: VecDeque::new(),
            broken: Arc::default(),
        }
    }

    /// What ends the work at hand when it is told: who sees that the stream breaks off knows that
    /// the surveyor's connection, which goes the same way, may be lost too. Nobody would say so
    /// for long, and the next stream may need a survey.
    pub(crate) fn broken(&self) -> Arc<Notify> {
        Arc::clone(&self.broken)
    }

    pub(crate) fn marks(&self) -> Marks {
        self.marks.clone()
    }

    /// Looks at the schema.
    ///
    /// # Errors
    /// [`Error::Timeout`] where PostgreSQL does not answer in time, else what the queries bring up.
    pub(crate) async fn survey(&mut self) -> Result<Arc<Survey>> {
        let broken = self.broken();
        in_time(&broken, "describe its tables", self.look()).await
    }

    /// Takes the connection. A look that is given up or fails leaves it in an unknown state, so it
    /// is put back only by one that does not.
    async fn connected(&mut self) -> Result<Client> {
        Ok(match self.client.take() {
            Some(client) if answers(&client).await => client,
            _ => {
                let fresh = sql::connect(&self.address, APPLICATION).await?;
                sql::set_session(&fresh).await?;
                fresh.batch_execute(STATEMENT_TIMEOUT).await?;
                fresh
            }
        })
    }

    async fn look(&mut self) -> Result<Arc<Survey>> {
        let mut client = self.connected().await?;
        // INVARIANT: counted before the snapshot is taken, so that a description that came at a
        // lower count is older than the snapshot.
        let number = self.marks.begun.fetch_add(1, Ordering::SeqCst) + 1;
        // One snapshot for all queries, so that a change is seen whole or not at all.
        let transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        let discovery = discover(&transaction, &self.publications).await?;
        let running = running(&transaction).await?;
        transaction.commit().await?;
        self.client = Some(client);
        Ok(Arc::new(Survey {
            number,
            discovery,
            known: self.known.clone(),
            calm: self.calm,
            internal: self.internal.clone(),
            running,
        }))
    }

    /// The replica holds every table in the form it has in `survey`, but for those that are
    /// outstanding.
    pub(crate) fn learn(&mut self, survey: &Survey, outstanding: &[u32]) {
        let mut learned = known(&survey.discovery);
        learned.retain(|oid, _| !outstanding.contains(oid));
        self.known.retain(|oid, _| outstanding.contains(oid));
        self.known.extend(learned);
        self.calm = survey.number;
    }

    /// The replica is about to hold these tables in the form they had in the snapshot they are
    /// copied from.
    pub(crate) fn teach(&mut self, copied: KnownTables) {
        self.known.extend(copied);
    }

    /// Puts a mark into the stream: what is found there behind it was written with the schema of
    /// the survey, or with a later one.
    pub(crate) async fn announce(&mut self, survey: Arc<Survey>) -> Result<()> {
        let Some(client) = self.client.take() else {
            return Ok(());
        };
        let content = self.marks.content(survey.number);
        self.announced.push_back(survey);
        if self.announced.len() > ANNOUNCED {
            self.announced.pop_front();
        }
        let emitted = emit(&client, &self.marks.prefix, &content);
        in_time(&self.broken, "take a message", emitted).await?;
        self.client = Some(client);
        Ok(())
    }

    /// Puts a message into the stream that is only timed.
    pub(crate) async fn probe(&mut self, lag: &Lag) -> Result<()> {
        let broken = self.broken();
        let client = in_time(&broken, "answer", self.connected()).await?;
        let number = lag.send();
        let content = self.marks.content(number);
        let emitted = emit(&client, &self.marks.lag_prefix, &content);
        match in_time(&broken, "take a message", emitted).await {
            Ok(()) => self.client = Some(client),
            // It may have been written all the same.
            Err(error @ Error::Timeout(_)) => return Err(error),
            Err(error) => {
                lag.lost(number);
                return Err(error);
            }
        }
        Ok(())
    }

    /// The survey with this number, unless newer ones have pushed it out.
    pub(crate) fn announced(&self, number: u64) -> Option<Arc<Survey>> {
        let mut announced = self.announced.iter();
        announced.find(|survey| survey.number == number).cloned()
    }
}

async fn running(transaction: &Transaction<'_>) -> Result<Running> {
    let row = transaction.query_one(RUNNING, &[]).await?;
    let id = |at| Ok::<_, Error>(row.try_get::<_, i64>(at)?.cast_unsigned());
    Ok(Running {
        oldest: id(0)?,
        next: id(1)?,
    })
}

/// Commits a message of its own.
async fn emit(client: &Client, prefix: &str, content: &str) -> Result<()> {
    let message: [&(dyn ToSql + Sync); 2] = [&prefix, &content];
    client
        .execute(
            "SELECT pg_logical_emit_message(true, $1, $2::text)",
            &message,
        )
        .await?;
    Ok(())
}

/// What PostgreSQL has to do, unless it takes too long or the stream breaks off meanwhile.
async fn in_time<T>(
    broken: &Notify,
    what: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        done = timeout(LONGEST_LOOK, work) => done.unwrap_or_else(|_| {
            Err(Error::Timeout(format!(
                "PostgreSQL did not {what} within {LONGEST_LOOK:?}"
            )))
        }),
        () = broken.notified() => Err(Error::Timeout(format!(
            "the stream broke off before PostgreSQL could {what}"
        ))),
    }
}

/// Whether there is still a server at the other end. Of one that is gone without a word, as behind
/// a router that forgot the connection, nothing would ever be heard.
async fn answers(client: &Client) -> bool {
    matches!(timeout(PROBE, client.check_connection()).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_others_are_not_taken_for_ours() {
        let (ours, others) = (
            Marks::new(&Options::default()),
            Marks::new(&Options::default()),
        );
        let content = ours.content(7);
        assert_eq!(ours.number(&ours.prefix, content.as_bytes()), Some(7));
        assert_eq!(others.number(&ours.prefix, content.as_bytes()), None);
        assert_eq!(ours.number("zero/0/ddl", content.as_bytes()), None);
        assert_eq!(ours.number(&ours.prefix, b"\xff"), None);
        assert_eq!(ours.number(&ours.lag_prefix, content.as_bytes()), None);
        assert_eq!(ours.timed(&ours.lag_prefix, content.as_bytes()), Some(7));
        assert_eq!(ours.timed(&ours.prefix, content.as_bytes()), None);
    }
}
