//! The user PostgreSQL runs as: whoever starts the demo, unless that is root.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command as BlockingCommand;

use tokio::process::Command;

use super::Error;

/// Users root runs PostgreSQL as, the first one that exists.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// Whom programs run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// Whoever runs the demo.
    Own,
    /// Another user, by user and group number.
    Other(u32, u32),
}

impl Account {
    /// Chooses by the owner of `own_directory`, which the demo made itself.
    ///
    /// # Errors
    /// When root runs the demo and there is no user to run PostgreSQL as.
    pub fn choose(own_directory: &Path) -> Result<Self, Error> {
        let facts =
            fs::metadata(own_directory).map_err(Error::io("reading the demo's directory"))?;
        if facts.uid() != 0 {
            return Ok(Self::Own);
        }
        CANDIDATES
            .into_iter()
            .find_map(|name| Some(Self::Other(id("-u", name)?, id("-g", name)?)))
            .ok_or(Error::NoUser)
    }

    /// Gives a file or directory to the user.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn own(&self, path: &Path) -> Result<(), Error> {
        match *self {
            Self::Own => Ok(()),
            Self::Other(user, group) => chown(path, Some(user), Some(group)).map_err(Error::io(
                format!("giving {} to PostgreSQL's user", path.display()),
            )),
        }
    }

    /// A program that runs as the user, in `directory`, in a process group of its own: Ctrl-C in
    /// the terminal reaches the demo alone, which then ends everything in order.
    pub fn command(&self, program: &Path, directory: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(directory)
            .process_group(0)
            .kill_on_drop(true);
        command
            .env_remove("PGDATA")
            .env_remove("PGPORT")
            .env_remove("PGHOST")
            .env("LC_ALL", "C");
        if let Self::Other(user, group) = *self {
            command.uid(user).gid(group);
        }
        command
    }
}

/// The number of a user or of its group, by the system's `id`.
fn id(flag: &str, name: &str) -> Option<u32> {
    let answer = BlockingCommand::new("id")
        .args([flag, name])
        .output()
        .ok()?;
    String::from_utf8(answer.stdout).ok()?.trim().parse().ok()
}
