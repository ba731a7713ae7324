//! The `kelvin` binary: reads its command, sets up logging and signals, and hands over.

use std::process::ExitCode;

use kelvin_server::config::{Config, ConfigError, Environment};
use kelvin_server::{analysis, demo, doctor, log, serve};
use tokio_util::sync::CancellationToken;

/// Rows are small and come and go on many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
kelvin - a sync server for PostgreSQL and Zero clients

Usage: kelvin [COMMAND] [OPTIONS]

Commands:
  serve    sync a PostgreSQL database to Zero clients (default)
  doctor   look whether a PostgreSQL is ready for that, and say how to mend it
  analyze  tell what a query reads, through which indexes, and what that costs
  demo     start a throwaway PostgreSQL, a sample app and a server on it

Options of `serve` are flags, environment variables or lines of a .env file;
`kelvin serve --help` lists them. `doctor` reads the same ones. `kelvin doctor
--help`, `kelvin analyze --help` and `kelvin demo --help` say more about these.
  -h, --help      print this
  -V, --version   print the version
";

/// Exit code for a mistake of the operator: configuration, database, port, disk.
const OPERATOR_MISTAKE: u8 = 1;

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let command = match arguments.first().map(String::as_str) {
        Some("-h" | "--help" | "help") => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Some("-V" | "--version" | "version") => {
            println!("kelvin {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Some(command @ ("serve" | "doctor" | "analyze" | "demo")) => command.to_owned(),
        Some(other) if !other.starts_with('-') => {
            eprintln!("kelvin: unknown command {other:?}\n\n{USAGE}");
            return ExitCode::from(2);
        }
        _ => String::new(),
    };
    if !command.is_empty() {
        arguments.remove(0);
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("kelvin: cannot start its threads: {error}");
            return ExitCode::from(OPERATOR_MISTAKE);
        }
    };
    let code = match command.as_str() {
        "demo" => runtime.block_on(Box::pin(run_demo(arguments))),
        "analyze" => runtime.block_on(Box::pin(run_analyze(arguments))),
        "doctor" => runtime.block_on(Box::pin(run_doctor(arguments))),
        _ => runtime.block_on(Box::pin(run_server(arguments))),
    };
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    code
}

async fn run_server(arguments: Vec<String>) -> ExitCode {
    let environment: Environment = std::env::vars().collect();
    let directory = std::env::current_dir().unwrap_or_default();
    let config = match Config::load(arguments, &environment, &directory) {
        Ok(config) => config,
        Err(error @ ConfigError::Help(_)) => {
            println!("{error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("kelvin: {error}");
            return ExitCode::from(error.exit_code());
        }
    };
    log::init(config.log);
    choose_pages(&config);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let shutdown = CancellationToken::new();
    shut_down_on_signals(shutdown.clone());
    match Box::pin(serve::run(config, shutdown, |_port| {})).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            eprintln!("kelvin: {error}");
            ExitCode::from(OPERATOR_MISTAKE)
        }
    }
}

async fn run_doctor(arguments: Vec<String>) -> ExitCode {
    let environment: Environment = std::env::vars().collect();
    let directory = std::env::current_dir().unwrap_or_default();
    ExitCode::from(doctor::run(arguments, &environment, &directory).await)
}

async fn run_analyze(arguments: Vec<String>) -> ExitCode {
    let environment: Environment = std::env::vars().collect();
    ExitCode::from(analysis::run(arguments, &environment).await)
}

async fn run_demo(arguments: Vec<String>) -> ExitCode {
    if arguments
        .iter()
        .any(|argument| matches!(argument.as_str(), "-h" | "--help"))
    {
        print!("{}", demo::HELP);
        return ExitCode::SUCCESS;
    }
    let options = match demo::Options::parse(arguments) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("kelvin demo: {error}");
            return ExitCode::from(2);
        }
    };
    match Box::pin(demo::run(
        options,
        Box::new(|request| Box::pin(serve_demo(request))),
    ))
    .await
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kelvin demo: {error}");
            ExitCode::from(OPERATOR_MISTAKE)
        }
    }
}

/// The server of the demo: the ordinary one, configured for the demo's PostgreSQL.
async fn serve_demo(request: demo::ServeRequest) -> Result<(), demo::ServeError> {
    let settings = [
        ("ZERO_UPSTREAM_DB", request.upstream),
        ("ZERO_APP_ID", request.app_id),
        ("ZERO_PORT", request.port.to_string()),
        ("ZERO_KELVIN_LISTEN_ADDRESS", "127.0.0.1".to_owned()),
        (
            "ZERO_REPLICA_FILE",
            request.replica_dir.join("demo").display().to_string(),
        ),
        ("ZERO_LOG_LEVEL", "warn".to_owned()),
        ("NODE_ENV", "development".to_owned()),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value));
    let environment: Environment = settings.into_iter().collect();
    let config = Config::load(Vec::new(), &environment, &request.replica_dir)?;
    log::init(config.log);
    choose_pages(&config);
    let ready = request.ready;
    let announce = move |_port| {
        // Nobody waits any more if the demo is being ended.
        let _ = ready.send(());
    };
    Box::pin(serve::run(config, request.shutdown, announce)).await?;
    Ok(())
}

/// Keeps the system from giving memory in pages of 2 MiB, unless the operator wants that.
///
/// The allocator keeps what threads ask for apart, and what they ask for by its size, so that there
/// is a little in each of many places: in large pages that is two to three times as much memory.
/// What many reads find in the cache is a few percent quicker to get at in them.
fn choose_pages(config: &Config) {
    // Where this cannot be, more memory is taken, and all else is the same.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(!config.huge_pages);
    #[cfg(not(target_os = "linux"))]
    let _ = config;
}

/// SIGTERM and SIGINT end the server in order; a second one, and SIGQUIT, at once.
fn shut_down_on_signals(shutdown: CancellationToken) {
    tokio::spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut term), Ok(mut int), Ok(mut quit)) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
            signal(SignalKind::quit()),
        ) else {
            tracing::warn!("signals cannot be handled; kill -9 is safe, though");
            return;
        };
        loop {
            tokio::select! {
                _ = term.recv() => tracing::info!("initiating drain (SIGTERM)"),
                _ = int.recv() => tracing::info!("initiating drain (SIGINT)"),
                _ = quit.recv() => std::process::exit(0),
            }
            if shutdown.is_cancelled() {
                std::process::exit(0);
            }
            shutdown.cancel();
        }
    });
}
