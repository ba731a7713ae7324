//! Titles, descriptions and comments from sentence patterns.

use fastrand::Rng;

use super::words::{
    ACTIONS, ADJECTIVES, BROKEN, CONDITIONS, NOTES, OUTCOMES, PLACES, REMARKS, THINGS, WISHES,
};

/// One of the choices.
fn one<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of.get(rng.usize(0..of.len().max(1)))
        .copied()
        .unwrap_or_default()
}

/// The title of an issue, such as `Comment box loses focus after a reconnect`.
#[must_use]
pub fn title(rng: &mut Rng) -> String {
    let (thing, condition) = (one(rng, THINGS), one(rng, CONDITIONS));
    let text = match rng.u8(0..10) {
        0..=4 => format!("{thing} {} {condition}", one(rng, BROKEN)),
        5..=6 => format!(
            "{} {} {}",
            one(rng, WISHES),
            within(thing),
            one(rng, PLACES)
        ),
        7..=8 => {
            format!("{} {} {condition}", one(rng, ACTIONS), within(thing))
        }
        _ => format!(
            "{} {} {}",
            one(rng, ADJECTIVES),
            within(thing),
            one(rng, PLACES)
        ),
    };
    capitalised(&text)
}

/// The description of an issue: what happens, how to see it, what was expected.
#[must_use]
pub fn body(rng: &mut Rng) -> String {
    let (thing, condition) = (one(rng, THINGS), one(rng, CONDITIONS));
    let (broken, outcome) = (one(rng, BROKEN), one(rng, OUTCOMES));
    let mut text = format!("{thing} {broken} {condition}. {}", one(rng, NOTES));
    if rng.bool() {
        let (place, action) = (one(rng, PLACES), one(rng, ACTIONS));
        text.push_str("\n\nTo see it:\n");
        text.push_str(&format!("1. Open the page {place}\n2. {action} "));
        text.push_str(&format!(
            "{}\n3. Wait until {outcome}",
            within(one(rng, THINGS))
        ));
    }
    if rng.u8(0..3) > 0 {
        text.push_str(&format!("\n\n{} {}", one(rng, REMARKS), one(rng, NOTES)));
    }
    text
}

/// What somebody says about an issue.
#[must_use]
pub fn comment(rng: &mut Rng) -> String {
    let mut text = one(rng, REMARKS).to_owned();
    if rng.bool() {
        text.push(' ');
        text.push_str(one(rng, NOTES));
    }
    if rng.u8(0..4) == 0 {
        let (thing, broken) = (one(rng, THINGS), one(rng, BROKEN));
        text.push_str(&format!(
            " It is the same cause as when {} {broken}.",
            within(thing)
        ));
    }
    text
}

/// A thing within a sentence: small, unless it begins with an abbreviation.
fn within(thing: &str) -> String {
    if thing.chars().nth(1).is_some_and(char::is_uppercase) {
        thing.to_owned()
    } else {
        thing.to_lowercase()
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_vary_and_fit_on_a_line() {
        let mut rng = Rng::with_seed(1);
        let titles: std::collections::BTreeSet<String> =
            (0..1_000).map(|_| title(&mut rng)).collect();
        assert!(titles.len() > 900, "{}", titles.len());
        assert!(
            titles
                .iter()
                .all(|title| title.len() < 120 && !title.contains('\n'))
        );
    }
}
