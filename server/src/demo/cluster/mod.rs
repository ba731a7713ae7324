//! A throwaway PostgreSQL: found, made, started, stopped.

mod account;
mod installation;

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

use super::{Error, Options};
use account::Account;
pub use installation::Installation;

/// The database of the demo.
pub const DATABASE: &str = "demo";

/// PostgreSQL is given this long to accept connections after its start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// And this long to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// Another program may take the chosen port before PostgreSQL does; so many ports are tried.
const PORT_ATTEMPTS: usize = 3;

/// So much of the end of a log is shown when PostgreSQL fails, in lines.
const LOG_TAIL: usize = 15;

/// What the server is set to: everything logical replication needs, and no care for durability,
/// since its data are removed when it stops.
const SETTINGS: &[&str] = &[
    "wal_level=logical",
    "max_wal_senders=10",
    "max_replication_slots=10",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "max_wal_size=4GB",
    "shared_buffers=256MB",
    "maintenance_work_mem=128MB",
    "listen_addresses=127.0.0.1",
    "logging_collector=off",
];

/// A running PostgreSQL.
#[derive(Debug)]
pub struct Cluster {
    installation: Installation,
    account: Account,
    directory: PathBuf,
    password: String,
    port: u16,
    /// Killed when dropped; [`Cluster::stop`] is the orderly way.
    server: Child,
}

impl Cluster {
    /// Makes a cluster in `directory` (which must not exist) and starts it.
    ///
    /// # Errors
    /// When none is installed, or it does not start; with the end of its log.
    pub async fn start(options: &Options, directory: &Path) -> Result<Self, Error> {
        let installation = Installation::find(options.postgres_bin.as_deref())?;
        let account = Account::choose(directory.parent().unwrap_or(directory))?;
        fs::create_dir(directory).map_err(Error::io("making PostgreSQL's directory"))?;
        // Nobody else looks into it: the password passes through it.
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
            .map_err(Error::io("closing PostgreSQL's directory"))?;
        account.own(directory)?;
        let password = random_password()?;
        let init = Init {
            installation: &installation,
            account: &account,
            directory,
        };
        init.run(&password).await?;
        let mut attempt = 1;
        let (server, port) = loop {
            match init.start_server().await {
                Ok(started) => break started,
                Err(Error::Postgres { log, .. })
                    if log.contains("could not bind") && attempt < PORT_ATTEMPTS =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        };
        let directory = directory.to_owned();
        Ok(Self {
            installation,
            account,
            directory,
            password,
            port,
            server,
        })
    }

    /// The version, such as `17.4`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.installation.version
    }

    /// The address of a database of it.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let Self { password, port, .. } = self;
        format!("postgresql://postgres:{password}@127.0.0.1:{port}/{database}")
    }

    /// The `psql` to type for the demo's database.
    #[must_use]
    pub fn psql(&self) -> String {
        let on_path = installation::on_path("psql").is_some();
        let program = if on_path {
            PathBuf::from("psql")
        } else {
            self.installation.program("psql")
        };
        format!("{} {}", program.display(), self.url(DATABASE))
    }

    /// Returns when the server has ended by itself, with the end of its log.
    pub async fn ended(&mut self) -> Error {
        let reason = match self.server.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        failure("postgres", reason, &self.directory)
    }

    /// Stops the server: connections are cut, transactions rolled back. Kills it if it takes longer
    /// than [`STOP_TIMEOUT`].
    pub async fn stop(mut self) {
        let mut stop = self
            .account
            .command(&self.installation.program("pg_ctl"), &self.directory);
        stop.arg("stop").arg("--mode=fast").arg("--no-wait");
        stop.arg("--pgdata").arg(self.directory.join("data"));
        let _ = timeout(
            STOP_TIMEOUT,
            stop.stdout(Stdio::null()).stderr(Stdio::null()).status(),
        )
        .await;
        if timeout(STOP_TIMEOUT, self.server.wait()).await.is_err() {
            let _ = self.server.kill().await;
        }
    }
}

/// What making a cluster and starting it have in common.
struct Init<'a> {
    installation: &'a Installation,
    account: &'a Account,
    directory: &'a Path,
}

impl Init<'_> {
    /// Runs `initdb`.
    async fn run(&self, password: &str) -> Result<(), Error> {
        let secret = self.directory.join("password");
        fs::write(&secret, password).map_err(Error::io("writing the password of PostgreSQL"))?;
        self.account.own(&secret)?;
        let mut initdb = self
            .account
            .command(&self.installation.program("initdb"), self.directory);
        initdb.args([
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
        ]);
        initdb.args(["--locale=C", "--no-sync", "--no-instructions"]);
        initdb
            .arg("--pwfile")
            .arg(&secret)
            .arg("--pgdata")
            .arg(self.directory.join("data"));
        let log = log_file(self.directory)?;
        initdb
            .stdout(log.try_clone().map_err(Error::io("opening the log"))?)
            .stderr(log);
        let status = initdb.status().await.map_err(Error::io("running initdb"))?;
        let _ = fs::remove_file(&secret);
        if status.success() {
            Ok(())
        } else {
            Err(failure("initdb", status.to_string(), self.directory))
        }
    }

    /// Starts the server on a free port and waits until it answers.
    async fn start_server(&self) -> Result<(Child, u16), Error> {
        let port = free_port()?;
        let mut postgres = self
            .account
            .command(&self.installation.program("postgres"), self.directory);
        postgres
            .arg("-D")
            .arg(self.directory.join("data"))
            .arg("-p")
            .arg(port.to_string());
        for setting in SETTINGS {
            postgres.arg("-c").arg(setting);
        }
        // The default socket directory belongs to the system's own PostgreSQL.
        postgres.arg("-k").arg(self.directory);
        let log = log_file(self.directory)?;
        postgres
            .stdout(log.try_clone().map_err(Error::io("opening the log"))?)
            .stderr(log);
        let mut server = postgres.spawn().map_err(Error::io("starting postgres"))?;
        self.wait_until_ready(&mut server, port).await?;
        Ok((server, port))
    }

    async fn wait_until_ready(&self, server: &mut Child, port: u16) -> Result<(), Error> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = server.try_wait().map_err(Error::io("watching postgres"))? {
                return Err(failure("postgres", status.to_string(), self.directory));
            }
            let mut ask = self
                .account
                .command(&self.installation.program("pg_isready"), self.directory);
            ask.args(["--host=127.0.0.1", "--quiet", "--timeout=3"])
                .arg(format!("--port={port}"));
            if ask.status().await.is_ok_and(|answer| answer.success()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let reason = format!("not ready after {} seconds", START_TIMEOUT.as_secs());
                return Err(failure("postgres", reason, self.directory));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Kills the server a dead demo left running in `directory`, if there is one.
pub fn kill_abandoned(directory: &Path) {
    let Ok(lines) = fs::read_to_string(directory.join("data/postmaster.pid")) else {
        return;
    };
    let mut lines = lines.lines();
    let pid = lines
        .next()
        .and_then(|line| line.trim().parse::<u32>().ok())
        .filter(|pid| *pid > 1);
    // INVARIANT: the number may by now belong to another process, so only a program that works on
    // this very directory is killed.
    let Some(pid) = pid else { return };
    let listing = std::process::Command::new("ps")
        .args(["-o", "args=", "-p", &pid.to_string()])
        .stderr(Stdio::null())
        .output();
    let data = directory.join("data");
    let ours = listing
        .is_ok_and(|seen| String::from_utf8_lossy(&seen.stdout).contains(&*data.to_string_lossy()));
    if ours {
        let kill = ["-QUIT", &pid.to_string()];
        let _ = std::process::Command::new("kill")
            .args(kill)
            .stderr(Stdio::null())
            .status();
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn log_file(directory: &Path) -> Result<File, Error> {
    let path = directory.join("log");
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(Error::io("opening the log"))
}

fn failure(program: &str, reason: String, directory: &Path) -> Error {
    let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines
        .get(lines.len().saturating_sub(LOG_TAIL)..)
        .unwrap_or_default()
        .join("\n");
    Error::Postgres {
        program: program.to_owned(),
        reason,
        log: tail,
    }
}

fn free_port() -> Result<u16, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .map_err(Error::io("looking for a free port"))?;
    Ok(listener
        .local_addr()
        .map_err(Error::io("looking for a free port"))?
        .port())
}

/// 128 bits from the system, in hexadecimal.
fn random_password() -> Result<String, Error> {
    use std::io::Read;
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(Error::io("reading /dev/urandom"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
