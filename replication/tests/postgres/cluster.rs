//! A throwaway PostgreSQL server.

use std::fmt::Write;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio_postgres::Client;

/// The account servers run under where the tests run as root.
const ACCOUNT: &str = "postgres";
pub(crate) const PASSWORD: &str = "s3cret/?&";

/// A running server; stopped and removed when dropped.
pub(crate) struct Cluster {
    directory: TempDir,
    pub(crate) port: u16,
}

/// How the server differs from one that replicates without a password.
#[derive(Clone, Copy, Default)]
pub(crate) struct Setup<'a> {
    /// Lines for `postgresql.conf`.
    pub(crate) settings: &'a str,
    /// `pg_hba.conf`, if not `trust` for all.
    pub(crate) access: Option<&'a str>,
    /// Whether to make a certificate and turn TLS on.
    pub(crate) tls: bool,
}

impl Cluster {
    /// A server with `wal_level = logical` that lets everybody in.
    pub(crate) fn start() -> Self {
        Self::with(Setup::default())
    }

    pub(crate) fn with(setup: Setup<'_>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        give_away(directory.path());
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let cluster = Self { directory, port };
        let secret = cluster.path("secret");
        fs::write(&secret, PASSWORD).unwrap();
        give_away(&secret);
        let data = cluster.path("data");
        run(tool("initdb")
            .args([
                "--no-sync",
                "--no-instructions",
                "-A",
                "trust",
                "-U",
                "postgres",
            ])
            .args(["--encoding", "UTF8", "--locale", "C"])
            .arg("--pwfile")
            .arg(secret)
            .arg("-D")
            .arg(&data));
        cluster.configure(setup);
        cluster.launch();
        cluster
    }

    fn configure(&self, setup: Setup<'_>) {
        let mut settings = format!(
            "port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n\
             wal_level = logical\nfsync = off\nshared_buffers = 16MB\nmax_connections = 40\n",
            self.port,
            self.directory.path().display()
        );
        if setup.tls {
            self.make_certificate();
            settings.push_str("ssl = on\nssl_cert_file = '../server.crt'\n");
            settings.push_str("ssl_key_file = '../server.key'\n");
        }
        writeln!(settings, "{}", setup.settings).unwrap();
        let file = self.path("data/postgresql.conf");
        let mut conf = fs::read_to_string(&file).unwrap();
        conf.push_str(&settings);
        fs::write(file, conf).unwrap();
        if let Some(access) = setup.access {
            fs::write(self.path("data/pg_hba.conf"), access).unwrap();
        }
    }

    fn make_certificate(&self) {
        run(Command::new("openssl")
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            ])
            .args([
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost",
            ])
            .arg("-keyout")
            .arg(self.path("server.key"))
            .arg("-out")
            .arg(self.certificate()));
        for file in [self.path("server.key"), self.certificate()] {
            give_away(&file);
        }
    }

    /// The certificate, which is its own authority.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.path("server.crt")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts the server after [`Cluster::stop`].
    pub(crate) fn launch(&self) {
        run(tool("pg_ctl")
            .args(["start", "-w", "-s", "-l"])
            .arg(self.path("log"))
            .arg("-D")
            .arg(self.path("data"))
            .stdout(Stdio::null()));
    }

    /// Stops the server; `immediate` as a crash does.
    pub(crate) fn stop(&self, mode: &str) {
        run(tool("pg_ctl")
            .args(["stop", "-w", "-s", "-m", mode, "-D"])
            .arg(self.path("data")));
    }

    /// Keeps a copy of all files of the server, which is stopped for it.
    pub(crate) fn back_up(&self) {
        self.stop("fast");
        run(Command::new("cp")
            .arg("-a")
            .arg(self.path("data"))
            .arg(self.path("backup")));
        self.launch();
    }

    /// Takes the server back to where it was when it was backed up. It has to be stopped.
    pub(crate) fn restore(&self) {
        run(Command::new("rm").arg("-r").arg(self.path("data")));
        run(Command::new("cp")
            .arg("-a")
            .arg(self.path("backup"))
            .arg(self.path("data")));
    }

    /// Starts the server, after [`Cluster::stop`], on a new timeline, as one that takes over.
    pub(crate) async fn take_over(&self) {
        let signal = self.path("data/recovery.signal");
        fs::write(&signal, "").unwrap();
        give_away(&signal);
        let file = self.path("data/postgresql.conf");
        let mut conf = fs::read_to_string(&file).unwrap();
        conf.push_str("restore_command = 'false'\n");
        fs::write(&file, conf).unwrap();
        self.launch();
        while self.value("SELECT pg_is_in_recovery()").await.as_deref() != Some("f") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// A process of another program that streams from a slot.
    pub(crate) async fn hold_slot(&self, slot: &str, publication: &str) -> Child {
        let child = tool("pg_recvlogical")
            .args([
                "--start",
                "--no-loop",
                "-f",
                "/dev/null",
                "-U",
                "postgres",
                "-d",
                "postgres",
            ])
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-S", slot])
            .args([
                "-o",
                "proto_version=1",
                "-o",
                &format!("publication_names={publication}"),
            ])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let active =
            format!("SELECT 1 FROM pg_replication_slots WHERE active AND slot_name = '{slot}'");
        while self.value(&active).await.is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        child
    }

    /// Address of a database for a role, with more parameters.
    pub(crate) fn address(&self, login: &str, database: &str, parameters: &str) -> String {
        format!(
            "postgres://{login}@localhost:{}/{database}?{parameters}",
            self.port
        )
    }

    /// Address of the default database for the superuser.
    pub(crate) fn url(&self) -> String {
        self.address("postgres", "postgres", "")
    }

    /// Address over the Unix socket.
    pub(crate) fn socket_url(&self) -> String {
        let directory = self.directory.path().display();
        format!(
            "postgres://postgres@/postgres?host={directory}&port={}",
            self.port
        )
    }

    pub(crate) async fn client(&self) -> Client {
        kelvin_replication::connect_sql(&self.socket_url())
            .await
            .unwrap()
    }

    /// Runs statements as the superuser.
    pub(crate) async fn sql(&self, statements: &str) {
        let client = self.client().await;
        client.batch_execute(statements).await.unwrap();
    }

    /// The text of the first column of the first row.
    pub(crate) async fn value(&self, query: &str) -> Option<String> {
        let rows = self.client().await.simple_query(query).await.unwrap();
        rows.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut stop = tool("pg_ctl");
        stop.args(["stop", "-w", "-s", "-m", "immediate", "-D"]);
        // It may be stopped already.
        let _ = stop.arg(self.path("data")).stderr(Stdio::null()).status();
    }
}

/// A program of PostgreSQL, under an account it is willing to run as.
pub(crate) fn tool(name: &str) -> Command {
    let program = directory_of_programs().join(name);
    let mut command = if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", ACCOUNT, "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/");
    command
}

fn directory_of_programs() -> PathBuf {
    if let Ok(directory) = std::env::var("PG_BIN") {
        return directory.into();
    }
    // Debian keeps each version in a directory of its own, out of the search path.
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| {
            entries
                .flatten()
                .map(|entry| entry.path().join("bin"))
                .collect()
        })
        .unwrap_or_default();
    versions.sort();
    versions.pop().unwrap_or_default()
}

fn is_root() -> bool {
    output(Command::new("id").arg("-u")) == "0"
}

/// Hands a file to the account the server runs under.
fn give_away(path: &Path) {
    if is_root() {
        run(Command::new("chown").arg(ACCOUNT).arg(path));
    }
}

fn run(command: &mut Command) {
    let status = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{command:?}");
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
