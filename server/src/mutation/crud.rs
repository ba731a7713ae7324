//! Executes CRUD mutations.

use std::time::Duration;

use kelvin_protocol::Mutation;
use kelvin_storage::Catalog;
use rand::RngExt as _;

use super::failure::{Abort, CrudFailure, Executed};
use super::pool::SqlPool;
use super::transaction::{Mode, Statements};
use crate::config::AppId;
use crate::permissions::AuthData;

/// Attempts of one mutation that collides with others.
const MAX_ATTEMPTS: u32 = 10;
/// Longest pause between two of them, milliseconds; the first pauses are shorter.
const MAX_PAUSE_MS: u64 = 200;
/// Longest time one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a missing predecessor is waited for where custom mutations may bring it, and how long.
const ORDER_RETRIES: u32 = 2;
const ORDER_PAUSE: Duration = Duration::from_millis(100);

/// A CRUD mutation and who makes it.
pub(super) struct CrudRequest<'a> {
    /// The group of the connection.
    pub(super) client_group_id: &'a str,
    /// The mutation.
    pub(super) mutation: &'a Mutation,
    /// Claims of the connection's JWT.
    pub(super) claims: AuthData<'a>,
    /// Which tables and columns there are.
    pub(super) catalog: &'a Catalog,
}

/// Executes CRUD mutations upstream, one transaction each.
pub(super) struct CrudExecutor {
    pool: SqlPool,
    statements: Statements,
    /// Custom mutations of the same clients may be under way elsewhere.
    has_custom: bool,
}

impl CrudExecutor {
    /// An executor for the app's shard. `has_custom` says whether custom mutations are configured
    /// too.
    pub(super) fn new(pool: SqlPool, app: &AppId, has_custom: bool) -> Self {
        Self {
            pool,
            statements: Statements::new(app),
            has_custom,
        }
    }

    /// Executes one mutation. The caller sees to it that a client's mutations come one after
    /// another.
    ///
    /// # Errors
    /// What the client is told, and whether its connection ends.
    pub(super) async fn execute(&self, request: &CrudRequest<'_>) -> Result<Executed, CrudFailure> {
        let mut mode = Mode::Whole;
        let mut rejection: Option<String> = None;
        let (mut attempt, mut order_retries) = (1, 0);
        loop {
            match (self.attempt(request, mode).await, &rejection) {
                (Ok(Executed::AlreadyProcessed), _) => {
                    return Ok(Executed::AlreadyProcessed);
                }
                (Ok(_), Some(message)) => return Err(CrudFailure::failed(message)),
                (Ok(outcome), None) => return Ok(outcome),
                (Err(Abort::Serialization), _) if attempt < MAX_ATTEMPTS => {
                    tokio::time::sleep(pause(attempt)).await;
                    attempt += 1;
                }
                (Err(Abort::OutOfOrder(_)), _)
                    if self.has_custom && order_retries < ORDER_RETRIES =>
                {
                    order_retries += 1;
                    tokio::time::sleep(ORDER_PAUSE).await;
                }
                (Err(Abort::OutOfOrder(expected)), _) => {
                    return Err(CrudFailure::out_of_order(request.mutation.id, expected));
                }
                (Err(Abort::Rejected(message)), None) => {
                    tracing::info!(message, id = ?request.mutation.id, "a CRUD mutation failed");
                    rejection = Some(message);
                    mode = Mode::IdOnly;
                }
                // Not even the id can be advanced, or nobody can be written to: the client keeps
                // the mutation and comes back with it.
                (Err(abort), _) => {
                    tracing::warn!(%abort, "a CRUD mutation could not be committed");
                    return Err(CrudFailure::unavailable());
                }
            }
        }
    }

    async fn attempt(&self, request: &CrudRequest<'_>, mode: Mode) -> Result<Executed, Abort> {
        let mut client = self.pool.get().await.map_err(Abort::Unavailable)?;
        let run = self.statements.run(&mut client, request, mode);
        match tokio::time::timeout(ATTEMPT_TIMEOUT, Box::pin(run)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                // The statement may still run; without its connection PostgreSQL rolls it back.
                drop(deadpool::managed::Object::take(client));
                Err(Abort::Unavailable(format!(
                    "no answer within {ATTEMPT_TIMEOUT:?}"
                )))
            }
        }
    }
}

/// Pause after attempt number `attempt`: at random, so that two that collided do not meet again.
fn pause(attempt: u32) -> Duration {
    let most = (10 * 2_u64.pow(attempt.min(10))).min(MAX_PAUSE_MS);
    Duration::from_millis(rand::rng().random_range(0..most))
}
