//! The one table of options: what `--help` prints, what is parsed, what each option means.

mod accepted;
mod own;
mod zero;

pub use accepted::ACCEPTED;
pub use own::OWN;
pub use zero::ZERO;

/// How the value of an option is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A number as JavaScript reads one.
    Number,
    /// `true`, `1`, `false` or `0`.
    Flag,
    /// Texts separated by commas.
    List,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// Whether `--help` shows an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// It does.
    Yes,
    /// It does not.
    Hidden,
    /// It does not, and using it gives this warning.
    Deprecated(&'static str),
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Name on the command line, without the dashes.
    pub flag: &'static str,
    /// How its value is written.
    pub kind: Kind,
    /// What it is when nobody says; written as in the environment, empty for unset.
    pub default: &'static str,
    /// What it does, for people.
    pub help: &'static str,
    /// Whether `--help` shows it.
    pub shown: Shown,
    /// The option this is an old name of.
    pub alias_of: Option<&'static str>,
    /// Why it has no effect, if it has none.
    pub no_effect: Option<&'static str>,
}

impl Setting {
    const fn new(flag: &'static str, kind: Kind, default: &'static str) -> Self {
        Self {
            flag,
            kind,
            default,
            help: "",
            shown: Shown::Yes,
            alias_of: None,
            no_effect: None,
        }
    }

    const fn help(mut self, help: &'static str) -> Self {
        self.help = help;
        self
    }

    const fn hidden(mut self) -> Self {
        self.shown = Shown::Hidden;
        self
    }

    const fn deprecated(mut self, why: &'static str) -> Self {
        self.shown = Shown::Deprecated(why);
        self
    }

    const fn alias_of(mut self, flag: &'static str) -> Self {
        self.alias_of = Some(flag);
        self
    }

    const fn no_effect(mut self, why: &'static str) -> Self {
        self.no_effect = Some(why);
        self
    }

    /// Name in the environment: `ZERO_` and the flag in upper snake case.
    #[must_use]
    pub fn env(&self) -> String {
        format!("ZERO_{}", self.flag.to_uppercase().replace('-', "_"))
    }
}

const fn text(flag: &'static str, default: &'static str) -> Setting {
    Setting::new(flag, Kind::Text, default)
}

const fn number(flag: &'static str, default: &'static str) -> Setting {
    Setting::new(flag, Kind::Number, default)
}

const fn flag(flag: &'static str, default: &'static str) -> Setting {
    Setting::new(flag, Kind::Flag, default)
}

const fn list(flag: &'static str) -> Setting {
    Setting::new(flag, Kind::List, "")
}

const fn choice(
    flag: &'static str,
    words: &'static [&'static str],
    default: &'static str,
) -> Setting {
    Setting::new(flag, Kind::Choice(words), default)
}

/// Every option there is.
pub fn all() -> impl Iterator<Item = &'static Setting> {
    ZERO.iter().chain(OWN).chain(ACCEPTED)
}

/// The option called `flag`.
#[must_use]
pub fn find(flag: &str) -> Option<&'static Setting> {
    all().find(|setting| setting.flag == flag)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_option_is_listed_twice_and_aliases_lead_somewhere() {
        let mut seen = HashSet::new();
        for setting in all() {
            assert!(seen.insert(setting.flag), "{} is there twice", setting.flag);
            if let Some(target) = setting.alias_of {
                let target = find(target).unwrap();
                assert_eq!(target.kind, setting.kind);
                assert!(matches!(setting.shown, Shown::Deprecated(_)));
            }
        }
    }

    #[test]
    fn every_option_says_what_it_does() {
        for setting in all() {
            let explained = !setting.help.is_empty() || setting.no_effect.is_some();
            assert!(explained || setting.alias_of.is_some(), "{}", setting.flag);
        }
    }
}
