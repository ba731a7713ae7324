//! The demo from its first step to its last.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::assets::Assets;
use super::cluster::{Cluster, DATABASE};
use super::content::Content;
use super::home::Home;
use super::progress::{Progress, Step};
use super::summary::Summary;
use super::{Error, Options, Serve, ServeError, ServeRequest};
use super::{activity, load, permissions, schema, web};

/// Chooses the sample data.
const SEED: u64 = 0x6B65_6C76_696E;

/// The application id of the demo.
const APP_ID: &str = "zero";

/// The sync server is given this long to end in order.
const END_TIMEOUT: Duration = Duration::from_secs(15);

/// Cancels `shutdown` on SIGINT or SIGTERM. A second one ends the process at once.
pub async fn cancel_on_signal(shutdown: CancellationToken) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return;
    };
    for first in [true, false] {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if !first {
            // What is left behind is removed when the next demo starts.
            std::process::exit(130);
        }
        eprintln!("\n  Ending. Ctrl-C again ends at once.");
        shutdown.cancel();
    }
}

/// Runs everything in `home` until `shutdown` or until something ends by itself.
///
/// # Errors
/// When a step fails. [`Error::Interrupted`] when `shutdown` came before everything was running.
pub async fn run(
    options: &Options,
    serve: Serve,
    home: &Home,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    // What can be wrong is found before anything takes time.
    let assets = Assets::load(options.assets.as_deref())?;
    let listener = web::listen(options.web_port).await?;
    check_sync_port(options.port).await?;

    let step = Step::start("Starting PostgreSQL");
    let mut cluster = unless(shutdown, Cluster::start(options, &home.cluster())).await?;
    step.done(&format!("PostgreSQL {} is running", cluster.version()));
    let outcome = {
        let stage = Stage {
            options,
            home,
            shutdown,
        };
        Box::pin(stage.play(&mut cluster, assets, listener, serve)).await
    };
    shutdown.cancel();
    cluster.stop().await;
    outcome
}

/// The sync server binds its port itself, a while later; that it is taken should be said now.
async fn check_sync_port(port: u16) -> Result<(), Error> {
    let bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await;
    bound.map(drop).map_err(|source| Error::Port {
        port,
        flag: "--port",
        source,
    })
}

/// What a step comes to, unless the demo is to end before.
async fn unless<T>(
    shutdown: &CancellationToken,
    step: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        outcome = step => outcome,
        () = shutdown.cancelled() => Err(Error::Interrupted),
    }
}

struct Stage<'a> {
    options: &'a Options,
    home: &'a Home,
    shutdown: &'a CancellationToken,
}

impl Stage<'_> {
    async fn play(
        &self,
        cluster: &mut Cluster,
        assets: Assets,
        listener: TcpListener,
        serve: Serve,
    ) -> Result<(), Error> {
        let client = unless(self.shutdown, Box::pin(self.fill(cluster))).await?;
        let url = cluster.url(DATABASE);
        let mut server = self.start_server(&url, serve).await?;
        let outcome = unless(self.shutdown, permissions::deploy(&client, APP_ID)).await;
        let outcome = match outcome {
            Ok(()) => self.live(cluster, assets, listener, &mut server).await,
            Err(error) => Err(error),
        };
        self.shutdown.cancel();
        // A server that has ended was awaited already.
        if !server.is_finished() && timeout(END_TIMEOUT, &mut server).await.is_err() {
            server.abort();
        }
        outcome
    }

    async fn fill(&self, cluster: &Cluster) -> Result<tokio_postgres::Client, Error> {
        let begun = Instant::now();
        let client = schema::create(cluster).await?;
        let sample = Content {
            seed: SEED,
            now_ms: now_ms(),
            issues: self.options.issues,
        };
        let progress = Progress::start("Filling the database", "issues", sample.issues);
        let loaded = load::fill(cluster, &client, sample, &progress).await;
        progress.done();
        let loaded = loaded?;
        let step = Step::begun_at("Indexing the database", begun);
        schema::finish(cluster, &client).await?;
        step.done(&format!(
            "{} issues, {} comments and {} labels on them are in it",
            sample.issues, loaded.comments, loaded.labels
        ));
        Ok(client)
    }

    /// Starts the sync server and waits until it is ready.
    async fn start_server(
        &self,
        url: &str,
        serve: Serve,
    ) -> Result<JoinHandle<Result<(), ServeError>>, Error> {
        let step = Step::start("Copying the database to kelvin");
        let (ready, is_ready) = oneshot::channel();
        let request = ServeRequest {
            upstream: url.to_owned(),
            app_id: APP_ID.to_owned(),
            port: self.options.port,
            replica_dir: self.home.replica(),
            shutdown: self.shutdown.child_token(),
            ready,
        };
        let mut server = tokio::spawn(serve(request));
        tokio::select! {
            told = is_ready => match told {
                Ok(()) => {
                    step.done("kelvin has copied it and accepts clients");
                    Ok(server)
                }
                Err(_) => Err(ended(server.await)),
            },
            result = &mut server => Err(ended(result)),
        }
    }

    /// Everything runs; until the end.
    async fn live(
        &self,
        cluster: &mut Cluster,
        assets: Assets,
        listener: TcpListener,
        server: &mut JoinHandle<Result<(), ServeError>>,
    ) -> Result<(), Error> {
        let bound = listener
            .local_addr()
            .map_err(Error::io("reading the page's address"))?;
        let page = web::Page {
            assets,
            sync_port: self.options.port,
            database: format!("demo-{}", now_ms()),
        };
        tokio::spawn(web::serve(listener, page, self.shutdown.clone()));
        let (url, rate) = (cluster.url(DATABASE), self.options.activity);
        let seed = now_ms().unsigned_abs();
        tokio::spawn(activity::simulate(url, rate, seed, self.shutdown.clone()));
        let psql = cluster.psql();
        let summary = Summary {
            options: self.options,
            web_port: bound.port(),
            psql: &psql,
        };
        println!("{}", summary.text());
        tokio::select! {
            // The server ends by the same token: that is not its own doing.
            biased;
            () = self.shutdown.cancelled() => Ok(()),
            result = server => Err(ended(result)),
            error = cluster.ended() => Err(error),
        }
    }
}

/// The sync server has ended although nobody asked it to.
fn ended(result: Result<Result<(), ServeError>, tokio::task::JoinError>) -> Error {
    Error::Serve(match result {
        Ok(Ok(())) => "nobody had asked it to".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    })
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
