//! What can be wrong with a configuration.

/// Why there is no [`Config`](super::Config).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// `--help` was asked for; this is it.
    #[error("{0}")]
    Help(String),
    /// An argument nobody knows, with the usage.
    #[error("Invalid arguments: {argument}\n\n{usage}")]
    UnknownArgument {
        /// The argument.
        argument: String,
        /// What `--help` prints.
        usage: String,
    },
    /// A required option is missing.
    #[error("Missing required option {0}")]
    Missing(String),
    /// An option has a value it cannot have.
    #[error("{option} {problem}")]
    Invalid {
        /// Name in the environment.
        option: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The `.env` file cannot be read.
    #[error("cannot read {path}: {problem}")]
    DotEnv {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

impl ConfigError {
    /// The process's exit code: 0 for help, 2 for a mistake of the operator.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Help(_) => 0,
            _ => 2,
        }
    }

    pub(super) fn invalid(option: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid {
            option: option.into(),
            problem: problem.into(),
        }
    }
}
