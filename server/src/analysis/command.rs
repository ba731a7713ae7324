//! `kelvin analyze`: asks a server, or a replica that no server has open.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use kelvin_ivm::{ClientKeys, Plan};
use kelvin_protocol::Ast;
use kelvin_storage::{Replica, ReplicaOptions};

use super::options::{HELP, Options, Parsed, Query, Target};
use super::tree::render;
use super::{Analysis, analyze};
use crate::app_api::HttpClient;
use crate::config::Environment;
use crate::engine::{EngineOptions, budget};

const FAILED: u8 = 1;
const WRONG_OPTIONS: u8 = 2;
const WARNINGS: u8 = 3;

/// How long a server may take: longer than a query may.
const SERVER_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes of a query.
const MAX_QUERY_BYTES: u64 = 1 << 20;

/// Runs the command and gives its exit code: 0 where all is well, 3 where there are warnings, 1
/// where there is no answer, 2 where the options are wrong. Prints to standard output.
pub async fn run(arguments: Vec<String>, environment: &Environment) -> u8 {
    let password = environment.get("ZERO_ADMIN_PASSWORD").cloned();
    let options = match Options::parse(arguments, password) {
        Ok(Parsed::Help) => {
            print(HELP);
            return 0;
        }
        Ok(Parsed::Options(options)) => options,
        Err(error) => {
            eprintln!("kelvin analyze: {error}\nRun `kelvin analyze --help` for what it takes.");
            return WRONG_OPTIONS;
        }
    };
    match answer(&options).await {
        Ok(analysis) => {
            let text = if options.json {
                let json = serde_json::to_string_pretty(&analysis);
                json.map_or_else(|error| error.to_string(), |json| json + "\n")
            } else {
                render(&analysis)
            };
            print(&text);
            if analysis.warnings.is_empty() {
                0
            } else {
                WARNINGS
            }
        }
        Err(error) => {
            eprintln!("kelvin analyze: {error}");
            FAILED
        }
    }
}

async fn answer(options: &Options) -> Result<Analysis, String> {
    match &options.target {
        Target::Server { url, password } => {
            let client = HttpClient::new().map_err(|error| error.to_string())?;
            let client = client.requests();
            let url = format!("{}/analyzez", url.trim_end_matches('/'));
            let request = match &options.query {
                Query::Plan(id) => {
                    let query = form_urlencoded::Serializer::new(String::new())
                        .append_pair("plan", id)
                        .finish();
                    client.get(format!("{url}?{query}"))
                }
                query => client.post(url).body(read(query)?),
            };
            let request = match password {
                Some(password) => request.basic_auth("kelvin", Some(password)),
                None => request,
            };
            ask(request.timeout(SERVER_TIMEOUT)).await
        }
        Target::Replica(directory) => {
            let (directory, text) = (directory.clone(), read(&options.query)?);
            let work = move || from_replica(&directory, &text);
            let done = tokio::task::spawn_blocking(work).await;
            done.map_err(|error| error.to_string())?
        }
    }
}

async fn ask(request: reqwest::RequestBuilder) -> Result<Analysis, String> {
    let response = request.send().await.map_err(|error| {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        text
    })?;
    let status = response.status();
    let text = response.text().await.map_err(|error| error.to_string())?;
    if status == reqwest::StatusCode::UNAUTHORIZED {
        return Err("the server asks for its admin password".into());
    }
    if !status.is_success() {
        return Err(text.trim().to_owned());
    }
    serde_json::from_str(&text)
        .map_err(|_| format!("the server's answer is none of ours: {text:.200}"))
}

fn from_replica(directory: &Path, text: &str) -> Result<Analysis, String> {
    let replica = Replica::open(directory, &ReplicaOptions::default())
        .map_err(|error| format!("{error}; a server that runs is asked with --server"))?;
    let view = replica.latest().map_err(|error| error.to_string())?;
    let ast: Ast = serde_json::from_str(text).map_err(|error| not_a_query(&error))?;
    let plan = Plan::compile(&ast, view.catalog(), &ClientKeys::new());
    let plan = plan.map_err(|error| error.to_string())?;
    let budget = budget(&EngineOptions::default(), Instant::now());
    analyze(&replica, &view, &plan, &budget, &mut |_, _| {})
}

/// What to say of text that is no AST.
pub(crate) fn not_a_query(error: &serde_json::Error) -> String {
    format!("the query is not an AST: {error}")
}

fn read(query: &Query) -> Result<String, String> {
    let mut text = String::new();
    let done = match query {
        Query::File(path) => {
            let named = |error| format!("{}: {error}", path.display());
            let file = std::fs::File::open(path).map_err(named)?;
            file.take(MAX_QUERY_BYTES + 1)
                .read_to_string(&mut text)
                .map_err(named)
        }
        _ => {
            let mut input = std::io::stdin().take(MAX_QUERY_BYTES + 1);
            input
                .read_to_string(&mut text)
                .map_err(|error| error.to_string())
        }
    };
    done?;
    if text.len() as u64 > MAX_QUERY_BYTES {
        return Err(format!("a query has at most {MAX_QUERY_BYTES} bytes"));
    }
    Ok(text)
}

/// A reader that has gone away is no error: `kelvin analyze | head`.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
