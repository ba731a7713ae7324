//! Mutations: executed in PostgreSQL, or forwarded to the application's endpoint.

use std::sync::Arc;

use kelvin_protocol::{AckMutationResponses, ErrorBody, ErrorKind, Mutation, PushBody};
use kelvin_storage::Catalog;

use crate::app_api::{AppApi, Caller};
use crate::auth::Auth;
use crate::config::Config;

/// Executes and forwards mutations.
pub struct Mutations;

/// What became of a CRUD mutation.
pub enum CrudOutcome {
    /// It is done, was done before, or was denied: the client learns it by its mutation id.
    Done,
    /// The client is told; the connection goes on.
    Reported(Box<ErrorBody>),
    /// The client is told, and the connection ends.
    Fatal(Box<ErrorBody>),
}

/// Where a push came from.
pub struct PushContext {
    /// The client group.
    pub group_id: String,
    /// The client whose connection it came over.
    pub client_id: String,
    /// The connection.
    pub ws_id: String,
    /// State of the connection's credentials.
    pub revision: u64,
    /// On whose behalf the endpoint is called.
    pub caller: Arc<Caller>,
    /// Told which client's connections to fail, and with what.
    pub on_failure: Arc<dyn Fn(String, ErrorBody) + Send + Sync>,
}

/// Mutations could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("mutations cannot be set up: {0}")]
pub struct MutationSetupError(String);

fn refusal() -> Box<ErrorBody> {
    Box::new(ErrorBody::new(
        ErrorKind::InvalidPush,
        "This server does not take mutations yet.",
    ))
}

impl Mutations {
    /// Connects lazily; fails only if the configuration cannot be used.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    #[expect(clippy::unused_async, reason = "the signature callers rely on")]
    pub async fn new(
        _config: &Config,
        _catalog: Arc<Catalog>,
        _app_api: Arc<AppApi>,
    ) -> Result<Self, MutationSetupError> {
        Ok(Self)
    }

    /// Executes a CRUD mutation.
    #[expect(clippy::unused_async, reason = "the signature callers rely on")]
    pub async fn crud(
        &self,
        _group: &str,
        _mutation: &Mutation,
        _auth: Option<&Auth>,
    ) -> CrudOutcome {
        CrudOutcome::Fatal(refusal())
    }

    /// Queues a push for the endpoint.
    ///
    /// # Errors
    /// What to tell the client before its connection is closed.
    pub fn push_custom(
        &self,
        _context: PushContext,
        _body: PushBody,
    ) -> Result<(), Box<ErrorBody>> {
        Err(refusal())
    }

    /// Has the endpoint drop mutation results a client has seen.
    pub fn ack(&self, _group: &str, _ack: &AckMutationResponses, _caller: &Arc<Caller>) {}

    /// Has the endpoint drop the mutation results of clients that are gone.
    pub fn clean_up_clients(&self, _group: &str, _clients: &[String], _caller: &Arc<Caller>) {}
}
