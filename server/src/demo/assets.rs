//! The built page: found, and read into memory.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::Error;

/// The page's files may be this large together; the real ones are below 1 MiB.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// And this many.
const MAX_FILES: usize = 1_000;

/// Content types by file name extension.
const TYPES: [(&str, &str); 12] = [
    ("css", "text/css; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/x-icon"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("map", "application/json"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("txt", "text/plain; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("woff2", "font/woff2"),
];

/// A file as it is sent.
#[derive(Debug, Clone)]
pub struct Asset {
    /// Its content type.
    pub content_type: &'static str,
    /// Its content.
    pub content: Bytes,
}

/// All files of the page by their path in the address, such as `/assets/index.js`.
///
/// INVARIANT: what is not in here is not served, so no path in a request can reach another file.
#[derive(Debug)]
pub struct Assets {
    files: HashMap<String, Asset>,
}

impl Assets {
    /// Reads the page from `named`, or from where it usually is.
    ///
    /// # Errors
    /// [`Error::NoAssets`] when it is not built; an I/O error when it cannot be read.
    pub fn load(named: Option<&Path>) -> Result<Self, Error> {
        let looked = named.map_or_else(usual_places, |directory| vec![directory.to_owned()]);
        let built = looked
            .iter()
            .find(|directory| directory.join("index.html").is_file());
        let Some(root) = built else {
            return Err(Error::NoAssets { looked });
        };
        let mut assets = Self {
            files: HashMap::new(),
        };
        let reading = || Error::io(format!("reading the page in {}", root.display()));
        assets
            .read(root, &mut MAX_BYTES.clone())
            .map_err(reading())?;
        Ok(assets)
    }

    /// The file for the path of a request. A path that names no file is one of the page's own
    /// addresses, unless it looks like a file.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Asset> {
        let last = path.rsplit('/').next().unwrap_or_default();
        let wanted = if last.contains('.') {
            path
        } else {
            "/index.html"
        };
        self.files.get(wanted)
    }

    fn read(&mut self, root: &Path, budget: &mut u64) -> std::io::Result<()> {
        let mut directories = vec![root.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory)? {
                let path = entry?.path();
                // Links are not followed: one could lead out of the directory.
                let facts = fs::symlink_metadata(&path)?;
                if facts.is_dir() {
                    directories.push(path);
                } else if facts.is_file() {
                    *budget = budget.checked_sub(facts.len()).ok_or_else(too_large)?;
                    self.add(root, &path)?;
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, root: &Path, path: &Path) -> std::io::Result<()> {
        if self.files.len() >= MAX_FILES {
            return Err(too_large());
        }
        let (Ok(relative), content) = (path.strip_prefix(root), Bytes::from(fs::read(path)?))
        else {
            return Ok(());
        };
        let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
        let asset = Asset {
            content_type: content_type(path),
            content,
        };
        self.files.insert(format!("/{}", parts.join("/")), asset);
        Ok(())
    }
}

fn usual_places() -> Vec<PathBuf> {
    let program = std::env::current_exe().ok();
    let beside = program
        .as_deref()
        .and_then(Path::parent)
        .map(|directory| directory.join("demo"));
    let source = std::env::current_dir().map(|directory| directory.join("server/demo/dist"));
    beside.into_iter().chain(source).collect()
}

fn content_type(path: &Path) -> &'static str {
    let extension = path
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .to_ascii_lowercase();
    let known = TYPES.iter().find(|(name, _)| *name == extension);
    known.map_or("application/octet-stream", |(_, content_type)| content_type)
}

fn too_large() -> std::io::Error {
    std::io::Error::other("it is far too large for the demo's page")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> (tempfile::TempDir, Assets) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("assets")).unwrap();
        fs::write(directory.path().join("index.html"), "<p>").unwrap();
        fs::write(directory.path().join("assets/app-1.js"), "1").unwrap();
        let assets = Assets::load(Some(directory.path())).unwrap();
        (directory, assets)
    }

    #[test]
    fn files_are_found_and_the_pages_own_addresses_lead_to_it() {
        let (_directory, assets) = page();
        assert!(
            assets
                .get("/assets/app-1.js")
                .unwrap()
                .content_type
                .starts_with("text/javascript")
        );
        for address in ["/", "/index.html", "/issue/issue-7", "/assets/"] {
            assert_eq!(
                &assets.get(address).unwrap().content[..],
                b"<p>",
                "{address}"
            );
        }
        assert!(assets.get("/assets/app-2.js").is_none());
    }

    #[test]
    fn no_path_leads_out_of_the_directory() {
        let (directory, assets) = page();
        let outside = directory.path().join("../outside.txt");
        for path in [
            "/../outside.txt",
            "//etc/passwd.txt",
            "/assets/../../outside.txt",
            "/%2e%2e/x.y",
        ] {
            assert!(assets.get(path).is_none(), "{path} {}", outside.display());
        }
    }

    #[test]
    fn a_page_that_is_not_built_is_said_with_the_command_that_builds_it() {
        let empty = tempfile::tempdir().unwrap();
        let message = Assets::load(Some(empty.path())).unwrap_err().to_string();
        assert!(message.contains("npm run build"), "{message}");
        assert!(
            message.contains(&empty.path().display().to_string()),
            "{message}"
        );
    }
}
