//! Shares of the processors: one for kelvin, one for PostgreSQL and one for whoever writes, as the
//! system gives them to services and containers that run side by side.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// Names a directory of the system's `cpu` controller in which groups can be made.
const VARIABLE: &str = "KELVIN_BENCH_CPU_GROUPS";

const KELVIN: &str = "kelvin-bench";
const POSTGRES: &str = "kelvin-bench-postgres";
const WRITERS: &str = "kelvin-bench-writers";

/// What a group has its share in, by the version of control groups.
const WEIGHTS: [&str; 2] = ["cpu.shares", "cpu.weight"];

/// Groups of processes with equal shares, which go when this is dropped.
pub struct Shares {
    directory: PathBuf,
}

impl Shares {
    /// Puts this process, which is kelvin, and the server with this process id into groups, if that
    /// is asked for.
    pub fn divide(postmaster: u32) -> Option<Self> {
        let directory = PathBuf::from(std::env::var_os(VARIABLE)?);
        let procs = directory.join("cgroup.procs");
        assert!(
            procs.exists(),
            "{VARIABLE}: there is no {}",
            procs.display()
        );
        let shares = Self { directory };
        for name in [KELVIN, POSTGRES, WRITERS] {
            let group = shares.directory.join(name);
            // It may be left from another run.
            let _ = fs::create_dir(&group);
            let weighed = WEIGHTS.iter().any(|weight| group.join(weight).exists());
            assert!(weighed, "{VARIABLE}: {} has no share", group.display());
        }
        shares.put(KELVIN, std::process::id());
        shares.put(POSTGRES, postmaster);
        for child in children(postmaster) {
            shares.put(POSTGRES, child);
        }
        Some(shares)
    }

    /// The command of somebody who writes, to be run in the group of those.
    pub fn of_writers(&self, command: &Command) -> Command {
        let mut shell = Command::new("sh");
        shell
            .current_dir("/")
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(self.directory.join(WRITERS).join("cgroup.procs"))
            .arg(command.get_program())
            .args(command.get_args());
        shell
    }

    fn put(&self, group: &str, process: u32) {
        let procs = self.directory.join(group).join("cgroup.procs");
        let put = OpenOptions::new().write(true).open(&procs);
        let put = put.and_then(|mut file| file.write_all(process.to_string().as_bytes()));
        put.unwrap_or_else(|error| panic!("{VARIABLE}: {}: {error}", procs.display()));
    }
}

impl Drop for Shares {
    fn drop(&mut self) {
        // What cannot be undone does no harm: groups that end with these processes, or are empty.
        for group in [KELVIN, POSTGRES, WRITERS].map(|name| self.directory.join(name)) {
            let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            for process in processes.lines() {
                let _ = fs::write(self.directory.join("cgroup.procs"), process);
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
