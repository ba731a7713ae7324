//! Shares of the processors: one for kelvin, one for PostgreSQL and one for whoever writes, as the
//! system gives them to services and containers that run side by side.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Names a directory of the system's `cpu` controller in which groups can be made.
const VARIABLE: &str = "KELVIN_BENCH_CPU_GROUPS";

/// Who gets a share.
#[derive(Clone, Copy)]
pub enum Share {
    Kelvin,
    Postgres,
    Writers,
}

/// Groups of processes with equal shares, which go when this is dropped; no groups at all unless
/// they are asked for.
pub struct Shares(Option<PathBuf>);

impl Shares {
    /// Puts this process, which is kelvin, and the server with this process id into groups.
    pub fn divide(postmaster: u32) -> Self {
        let Some(directory) = std::env::var_os(VARIABLE) else {
            return Self(None);
        };
        let shares = Self(Some(directory.into()));
        for share in [Share::Kelvin, Share::Postgres, Share::Writers] {
            // It may be left from another run.
            let _ = fs::create_dir(shares.group(share).unwrap());
        }
        shares.put(Share::Kelvin, std::process::id());
        shares.put(Share::Postgres, postmaster);
        for child in children(postmaster) {
            shares.put(Share::Postgres, child);
        }
        shares
    }

    pub fn are_divided(&self) -> bool {
        self.0.is_some()
    }

    /// The command, to be run in the group of that share.
    pub fn command(&self, share: Share, command: &Command) -> Command {
        let mut shell = Command::new("sh");
        shell.current_dir("/");
        match self.group(share) {
            Some(group) => shell
                .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
                .arg(group.join("cgroup.procs")),
            None => shell.args(["-c", "exec \"$@\"", "sh"]),
        };
        shell.arg(command.get_program()).args(command.get_args());
        shell
    }

    fn group(&self, share: Share) -> Option<PathBuf> {
        let name = match share {
            Share::Kelvin => "kelvin-bench",
            Share::Postgres => "kelvin-bench-postgres",
            Share::Writers => "kelvin-bench-writers",
        };
        self.0.as_ref().map(|directory| directory.join(name))
    }

    fn put(&self, share: Share, process: u32) {
        let procs = self.group(share).unwrap().join("cgroup.procs");
        let put = fs::write(&procs, process.to_string());
        put.unwrap_or_else(|error| panic!("{VARIABLE}: {}: {error}", procs.display()));
    }
}

impl Drop for Shares {
    fn drop(&mut self) {
        let Some(directory) = &self.0 else {
            return;
        };
        // What cannot be undone does no harm: groups that end with these processes, or are empty.
        for share in [Share::Kelvin, Share::Postgres, Share::Writers] {
            let group = self.group(share).unwrap();
            let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            for process in processes.lines() {
                let _ = fs::write(directory.join("cgroup.procs"), process);
            }
            let _ = fs::remove_dir(group);
        }
    }
}

/// Processes that this one has started.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |process: &u32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // Behind the name, which is in brackets: the state, and the parent.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        fields.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    numbers.filter(is_child).collect()
}
