//! Configuration: the options of zero-cache with their names, rules and defaults, and our own.
//!
//! One table ([`options`]) says what there is; [`Config::load`] reads flags, environment and `.env`
//! by it and checks what comes out. Nothing else in the server reads the environment.

mod build;
mod error;
pub mod options;
mod replication;
mod settings;
mod source;
mod usage;
mod value;

use std::path::Path;

pub use error::ConfigError;
pub use replication::ReplicationConfig;
pub use settings::{
    AppApi, AppEndpoint, AppId, Auth, Config, Engine, Groups, Listen, Log, LogFormat, LogLevel,
    MutationLimit, Replica, Upstream,
};
pub use source::Environment;
pub use usage::usage;

impl Config {
    /// Reads the configuration from `arguments` (without the program's name), `environment`, and
    /// the file `.env` in `dotenv_dir`, which may be missing.
    ///
    /// # Errors
    /// Help was asked for, or something is wrong; see [`ConfigError`].
    pub fn load(
        arguments: impl IntoIterator<Item = String>,
        environment: &Environment,
        dotenv_dir: &Path,
    ) -> Result<Self, ConfigError> {
        let environment = source::load_dotenv(dotenv_dir, environment)?;
        let given = source::Given::collect(arguments, &environment)?;
        build::build(&given, &environment)
    }
}
