//! The text of `--help`, made from the table of options.

use std::fmt::Write as _;

use super::options::{Kind, OWN, Setting, Shown, ZERO};

const WIDTH: usize = 96;
const INDENT: usize = 10;

/// The text of `--help`. Hidden, deprecated and ineffective options are left out.
#[must_use]
pub fn usage() -> String {
    let mut text = String::from(
        "Usage: kelvin serve [options]\n\n\
         Each option is a flag or an environment variable; the flag wins. A file .env in the\n\
         working directory is read first.\n\n",
    );
    let shown = |setting: &&Setting| setting.shown == Shown::Yes;
    for setting in ZERO.iter().filter(shown) {
        describe(&mut text, setting);
    }
    text.push_str("Options of kelvin alone:\n\n");
    for setting in OWN.iter().filter(shown) {
        describe(&mut text, setting);
    }
    text
}

fn describe(text: &mut String, setting: &Setting) {
    let value = match setting.kind {
        Kind::Text => "text".to_owned(),
        Kind::Number => "number".to_owned(),
        Kind::Flag => "true|false".to_owned(),
        Kind::List => "text,...".to_owned(),
        Kind::Choice(words) => words.join("|"),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  --{} <{value}>", setting.flag);
    let _ = writeln!(text, "{:INDENT$}{}", "", setting.env());
    let mut sentence = setting.help.to_owned();
    if !setting.default.is_empty() {
        let _ = write!(sentence, " (default: {})", setting.default);
    }
    wrap(text, &sentence);
    text.push('\n');
}

fn wrap(text: &mut String, sentence: &str) {
    let mut column = 0;
    for word in sentence.split_whitespace() {
        if column == 0 || column + 1 + word.len() > WIDTH {
            if column > 0 {
                text.push('\n');
            }
            text.extend(std::iter::repeat_n(' ', INDENT));
            column = INDENT;
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_flag_variable_and_default_and_keeps_quiet_about_old_names() {
        let help = usage();
        assert!(help.contains("  --port <number>\n          ZERO_PORT\n"));
        assert!(help.contains("(default: 4848)"));
        assert!(help.contains("ZERO_KELVIN_CACHE_BYTES"));
        assert!(!help.contains("ZERO_PUSH_URL"));
        assert!(!help.contains("LITESTREAM_EXECUTABLE"));
        assert!(help.lines().all(|line| line.chars().count() <= WIDTH));
    }
}
