//! Connections that commit mutations upstream.

use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, Object, Pool, RecycleError, RecycleResult, Timeouts};
use futures_util::future::BoxFuture;
use tokio_postgres::Client;

/// Opens a connection; the error is one sentence for people.
pub(super) type ConnectSql =
    Arc<dyn Fn() -> BoxFuture<'static, Result<Client, String>> + Send + Sync>;

/// Longest wait for a connection, whether opened or given back by somebody else.
const WAIT: Duration = Duration::from_secs(10);

/// A bounded number of connections.
#[derive(Clone)]
pub(super) struct SqlPool {
    pool: Pool<Opener>,
}

/// One of them, given back when dropped.
pub(super) type Pooled = Object<Opener>;

pub(super) struct Opener {
    connect: ConnectSql,
}

impl Manager for Opener {
    type Type = Client;
    type Error = String;

    async fn create(&self) -> Result<Client, String> {
        (self.connect)().await
    }

    async fn recycle(&self, client: &mut Client, _: &Metrics) -> RecycleResult<String> {
        if client.is_closed() {
            return Err(RecycleError::message("the connection is closed"));
        }
        Ok(())
    }
}

impl SqlPool {
    /// At most `max` connections, each opened when it is first needed.
    ///
    /// # Errors
    /// There is no runtime to measure timeouts with.
    pub(super) fn new(connect: ConnectSql, max: usize) -> Result<Self, String> {
        let timeouts = Timeouts {
            wait: Some(WAIT),
            create: Some(WAIT),
            recycle: Some(WAIT),
        };
        let builder = Pool::builder(Opener { connect })
            .max_size(max.max(1))
            .timeouts(timeouts)
            .runtime(deadpool::Runtime::Tokio1);
        let pool = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { pool })
    }

    pub(super) async fn get(&self) -> Result<Pooled, String> {
        self.pool.get().await.map_err(|error| error.to_string())
    }
}
