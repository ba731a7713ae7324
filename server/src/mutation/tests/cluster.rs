//! A throwaway PostgreSQL, shared by the tests of one process.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// A running server; stopped when the last test has let go of it.
pub(super) struct Cluster {
    directory: TempDir,
    port: u16,
}

static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

impl Cluster {
    pub(super) fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let cluster = Arc::new(Self::start());
            *shared = Arc::downgrade(&cluster);
            cluster
        })
    }

    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(directory.path()));
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let cluster = Self { directory, port };
        run(tool("initdb")
            .args([
                "--no-sync",
                "-A",
                "trust",
                "-U",
                "postgres",
                "--encoding",
                "UTF8",
            ])
            .args(["--locale", "C.UTF-8", "-D"])
            .arg(cluster.data()));
        let options = format!("-p {port} -k '' -c fsync=off -c listen_addresses=127.0.0.1");
        run(tool("pg_ctl")
            .args(["start", "-w", "-s", "-o", &options, "-l"])
            .arg(cluster.directory.path().join("log"))
            .arg("-D")
            .arg(cluster.data()));
        cluster
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A connection to a database.
    pub(super) async fn connect(&self, database: &str) -> Result<Client, String> {
        let port = self.port;
        let url = format!("postgres://postgres@127.0.0.1:{port}/{database}");
        let connected = tokio_postgres::connect(&url, NoTls).await;
        let (client, connection) = connected.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(client)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut stop = tool("pg_ctl");
        stop.args(["stop", "-w", "-s", "-m", "immediate", "-D"])
            .arg(self.data());
        let _ = stop.status();
    }
}

/// A program of PostgreSQL, under an account it is willing to run as.
fn tool(name: &str) -> Command {
    let program = programs().join(name);
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command
        .args(["-u", "postgres", "--"])
        .arg(program)
        .current_dir("/");
    command
}

fn programs() -> PathBuf {
    if let Ok(directory) = std::env::var("PG_BIN") {
        return directory.into();
    }
    // Debian keeps each version in a directory of its own, out of the search path.
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let newest = versions.map(|version| version.path().join("bin")).max();
    newest.unwrap_or_else(|| Path::new("").to_path_buf())
}

fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout == b"0\n")
}

fn run(command: &mut Command) {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "{command:?}");
}
