//! Finding the PostgreSQL that is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Error;

/// The oldest PostgreSQL kelvin replicates from.
const OLDEST: u32 = 15;

/// Directories with one subdirectory for each version, as distributions lay them out.
const VERSIONED: [(&str, &str); 4] = [
    ("/usr/lib/postgresql", "bin"),
    ("/usr", "bin"),
    ("/opt/homebrew/opt", "bin"),
    ("/usr/local/opt", "bin"),
];

/// Where else the programs may be.
const FIXED: [&str; 5] = [
    "/usr/local/pgsql/bin",
    "/usr/local/bin",
    "/opt/homebrew/bin",
    "/usr/bin",
    "/Applications/Postgres.app/Contents/Versions/latest/bin",
];

/// Most directories that are looked at.
const MAX_CANDIDATES: usize = 64;

/// An installed PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// The directory of its programs.
    bin: PathBuf,
    /// Its version, such as `17.4`.
    pub version: String,
    major: u32,
}

impl Installation {
    /// The newest one installed, or the one in `named`.
    ///
    /// # Errors
    /// [`Error::NoPostgres`] when there is none that is recent enough.
    pub fn find(named: Option<&Path>) -> Result<Self, Error> {
        let candidates = match named {
            Some(directory) => vec![directory.to_owned()],
            None => candidates(),
        };
        let all: Vec<Self> = candidates
            .iter()
            .filter_map(|bin| Self::inspect(bin))
            .collect();
        let found = match (all.iter().map(|one| &one.version).next(), named) {
            (Some(version), _) => format!("only version {version} is there"),
            (None, Some(directory)) => {
                format!(
                    "there is no `initdb` and `postgres` in {}",
                    directory.display()
                )
            }
            (None, None) => "none was found".to_owned(),
        };
        all.into_iter()
            .filter(|one| one.major >= OLDEST)
            .max_by_key(|one| one.major)
            .ok_or(Error::NoPostgres { found })
    }

    /// One of its programs.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    fn inspect(bin: &Path) -> Option<Self> {
        let complete = ["initdb", "postgres", "pg_ctl", "pg_isready"];
        if !complete.iter().all(|program| bin.join(program).is_file()) {
            return None;
        }
        let answer = Command::new(bin.join("postgres"))
            .arg("--version")
            .output()
            .ok()?;
        let (version, major) = parse_version(&String::from_utf8(answer.stdout).ok()?)?;
        Some(Self {
            bin: bin.to_owned(),
            version,
            major,
        })
    }
}

/// Reads `postgres (PostgreSQL) 17.4 (Debian 17.4-1)`.
fn parse_version(answer: &str) -> Option<(String, u32)> {
    let version = answer
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((version.to_owned(), digits.parse().ok()?))
}

/// Directories that may have PostgreSQL's programs, most wanted first.
fn candidates() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| {
            std::env::split_paths(&path)
                .filter(|dir| dir.is_absolute())
                .collect()
        })
        .unwrap_or_default();
    if let Some(bin) = pg_config() {
        found.push(bin);
    }
    for (parent, child) in VERSIONED {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let mut versions: Vec<PathBuf> = entries
            .filter(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                parent == "/usr/lib/postgresql"
                    || name.starts_with("pgsql")
                    || name.starts_with("postgresql")
            })
            .map(|entry| entry.path().join(child))
            .collect();
        versions.sort();
        found.extend(versions.into_iter().rev());
    }
    found.extend(FIXED.iter().map(PathBuf::from));
    found.truncate(MAX_CANDIDATES);
    found
}

fn pg_config() -> Option<PathBuf> {
    let answer = Command::new(on_path("pg_config")?)
        .arg("--bindir")
        .output()
        .ok()?;
    Some(PathBuf::from(String::from_utf8(answer.stdout).ok()?.trim()))
}

/// Where a program is on the user's PATH.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_postgres_prints_them() {
        let debian = "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n";
        assert_eq!(parse_version(debian), Some(("15.14".to_owned(), 15)));
        assert_eq!(
            parse_version("postgres (PostgreSQL) 19devel"),
            Some(("19devel".to_owned(), 19))
        );
        assert_eq!(parse_version("no such thing"), None);
    }

    #[test]
    fn a_directory_without_postgres_is_named_in_the_message() {
        let empty = tempfile::tempdir().unwrap();
        let error = Installation::find(Some(empty.path())).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&empty.path().display().to_string()),
            "{error}"
        );
        assert!(error.to_string().contains("--postgres-bin"), "{error}");
    }
}
