//! Where values of options come from: flags, then the environment, then `.env`, then defaults.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::ConfigError;
use super::options::{self, Kind, Setting, Shown};
use super::usage::usage;
use super::value::OptionValue;

/// Environment variables by name.
pub type Environment = BTreeMap<String, String>;

/// The values somebody gave, by flag; defaults are not among them.
#[derive(Debug, Default)]
pub(super) struct Given {
    values: BTreeMap<&'static str, OptionValue>,
    /// Deprecations, for the log.
    pub(super) warnings: Vec<String>,
}

impl Given {
    /// Collects what the arguments and the environment say.
    pub(super) fn collect(
        arguments: impl IntoIterator<Item = String>,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let mut values = from_environment(environment)?;
        values.extend(from_arguments(arguments.into_iter().collect())?);
        let mut given = Self {
            values: BTreeMap::new(),
            warnings: Vec::new(),
        };
        given.resolve_aliases(&values);
        Ok(given)
    }

    fn resolve_aliases(&mut self, values: &BTreeMap<&'static str, OptionValue>) {
        for setting in options::all() {
            let Some(value) = values.get(setting.flag) else {
                continue;
            };
            if let Shown::Deprecated(why) = setting.shown {
                let env = setting.env();
                self.warnings.push(format!("{env} is deprecated: {why}"));
            }
            match setting.alias_of {
                // The new name wins over the old one.
                Some(target) if values.contains_key(target) => {}
                Some(target) => {
                    self.values.insert(target, value.clone());
                }
                None => {
                    self.values.insert(setting.flag, value.clone());
                }
            }
        }
    }

    /// What was said about `flag`.
    pub(super) fn get(&self, flag: &str) -> Option<&OptionValue> {
        self.values.get(flag)
    }

    /// Environment names of the given options that have no effect.
    pub(super) fn without_effect(&self) -> Vec<(String, &'static str)> {
        options::ACCEPTED
            .iter()
            .filter(|setting| self.values.contains_key(setting.flag))
            .map(|setting| (setting.env(), setting.no_effect.unwrap_or_default()))
            .collect()
    }
}

/// Adds what `.env` in `dir` says to `environment`, which wins. A missing file is fine.
///
/// # Errors
/// The file is there and cannot be read.
pub(super) fn load_dotenv(
    dir: &Path,
    environment: &Environment,
) -> Result<Environment, ConfigError> {
    let path = dir.join(".env");
    let mut merged = environment.clone();
    if !path.exists() {
        return Ok(merged);
    }
    let failed = |error: dotenvy::Error| ConfigError::DotEnv {
        path: path.display().to_string(),
        problem: error.to_string(),
    };
    for pair in dotenvy::from_path_iter(&path).map_err(failed)? {
        let (name, value) = pair.map_err(failed)?;
        merged.entry(name).or_insert(value);
    }
    Ok(merged)
}

fn from_environment(
    environment: &Environment,
) -> Result<BTreeMap<&'static str, OptionValue>, ConfigError> {
    let mut values = BTreeMap::new();
    for setting in options::all() {
        let env = setting.env();
        // A variable set to nothing counts as unset.
        if let Some(text) = environment.get(&env).filter(|text| !text.is_empty()) {
            values.insert(setting.flag, parse(setting, &env, text)?);
        }
    }
    Ok(values)
}

fn from_arguments(
    arguments: Vec<String>,
) -> Result<BTreeMap<&'static str, OptionValue>, ConfigError> {
    let mut values = BTreeMap::new();
    let mut arguments = arguments.into_iter().peekable();
    while let Some(argument) = arguments.next() {
        if argument == "--help" || argument == "-h" {
            return Err(ConfigError::Help(usage()));
        }
        let unknown = || ConfigError::UnknownArgument {
            argument: argument.clone(),
            usage: usage(),
        };
        let name = argument.strip_prefix("--").ok_or_else(unknown)?;
        let (name, inline) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let setting = options::find(name).ok_or_else(unknown)?;
        let mut texts: Vec<String> = inline.into_iter().collect();
        let several = setting.kind == Kind::List;
        while (several || texts.is_empty())
            && let Some(text) = arguments.next_if(|next| !next.starts_with("--"))
        {
            texts.push(text);
        }
        values.insert(setting.flag, argument_value(setting, texts)?);
    }
    Ok(values)
}

fn argument_value(setting: &Setting, mut texts: Vec<String>) -> Result<OptionValue, ConfigError> {
    let name = format!("--{}", setting.flag);
    match (setting.kind, texts.pop()) {
        (Kind::Flag, None) => Ok(OptionValue::Flag(true)),
        (_, None) => Err(ConfigError::invalid(name, "needs a value")),
        (Kind::List, Some(last)) => {
            texts.push(last);
            Ok(OptionValue::List(texts))
        }
        (_, Some(text)) => parse(setting, &name, &text),
    }
}

fn parse(setting: &Setting, name: &str, text: &str) -> Result<OptionValue, ConfigError> {
    OptionValue::parse(setting.kind, text).map_err(|problem| ConfigError::invalid(name, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    fn collect(arguments: &[&str], pairs: &[(&str, &str)]) -> Result<Given, ConfigError> {
        let arguments = arguments.iter().map(|text| (*text).to_owned());
        Given::collect(arguments, &environment(pairs))
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_an_empty_variable_is_unset() {
        let given = collect(
            &["--port", "1", "--lazy-startup", "--query-url", "a", "b"],
            &[("ZERO_PORT", "2"), ("ZERO_APP_ID", "")],
        )
        .unwrap();
        assert_eq!(given.get("port"), Some(&OptionValue::Number(1.0)));
        assert_eq!(given.get("app-id"), None);
        assert_eq!(given.get("lazy-startup"), Some(&OptionValue::Flag(true)));
        let urls = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(given.get("query-url"), Some(&OptionValue::List(urls)));
    }

    #[test]
    fn an_old_name_works_warns_and_loses_to_the_new_one() {
        let old = collect(&[], &[("ZERO_PUSH_URL", "http://old")]).unwrap();
        let value = OptionValue::List(vec!["http://old".to_owned()]);
        assert_eq!(old.get("mutate-url"), Some(&value));
        assert!(old.warnings[0].starts_with("ZERO_PUSH_URL is deprecated:"));
        let both = [
            ("ZERO_PUSH_URL", "http://old"),
            ("ZERO_MUTATE_URL", "http://new"),
        ];
        let value = OptionValue::List(vec!["http://new".to_owned()]);
        assert_eq!(collect(&[], &both).unwrap().get("mutate-url"), Some(&value));
    }

    #[test]
    fn unknown_flags_are_refused_and_unknown_variables_ignored() {
        let error = collect(&["--prot", "1"], &[]).unwrap_err();
        assert!(
            matches!(&error, ConfigError::UnknownArgument { argument, .. }
            if argument == "--prot")
        );
        assert_eq!(error.exit_code(), 2);
        assert!(collect(&[], &[("ZERO_NO_SUCH_THING", "1")]).is_ok());
        assert_eq!(collect(&["-h"], &[]).unwrap_err().exit_code(), 0);
    }

    #[test]
    fn a_bad_value_names_its_variable() {
        let error = collect(&[], &[("ZERO_LAZY_STARTUP", "maybe")]).unwrap_err();
        assert!(error.to_string().starts_with("ZERO_LAZY_STARTUP must be"));
    }

    #[test]
    fn the_environment_wins_over_the_dotenv_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".env"), "ZERO_PORT=1\nZERO_APP_ID='x'\n").unwrap();
        let merged = load_dotenv(dir.path(), &environment(&[("ZERO_PORT", "2")])).unwrap();
        assert_eq!(merged["ZERO_PORT"], "2");
        assert_eq!(merged["ZERO_APP_ID"], "x");
    }
}
