//! Dates and times → milliseconds.
//!
//! Text and binary forms both come down to microseconds first, so that both ways round alike.

use super::DecodeError;

/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL's days begin.
const POSTGRES_EPOCH_DAYS: i64 = 10_957;
const DAY_MILLIS: i64 = 86_400_000;
const DAY_MICROS: i128 = 86_400_000_000;
/// Largest integer up to which every one is a double.
const EXACT: i128 = 1 << 53;

/// Days since 2000 → milliseconds since 1970.
pub(super) fn date_from_days(days: i32) -> f64 {
    match days {
        i32::MAX => f64::INFINITY,
        i32::MIN => f64::NEG_INFINITY,
        days => exact_millis((i64::from(days) + POSTGRES_EPOCH_DAYS) * DAY_MILLIS),
    }
}

/// Microseconds since 2000 → milliseconds since 1970.
pub(super) fn timestamp_from_micros(micros: i64) -> f64 {
    match micros {
        i64::MAX => f64::INFINITY,
        i64::MIN => f64::NEG_INFINITY,
        micros => millis(i128::from(micros) + i128::from(POSTGRES_EPOCH_DAYS) * DAY_MICROS),
    }
}

/// Microseconds since midnight → whole milliseconds.
pub(super) fn time_from_micros(micros: i64) -> f64 {
    exact_millis(micros / 1000)
}

/// Microseconds since midnight in a zone, given in seconds west of UTC → milliseconds of the day
/// in UTC.
pub(super) fn timetz_from_micros(micros: i64, west: i32) -> f64 {
    exact_millis((micros / 1000 + i64::from(west) * 1000).rem_euclid(DAY_MILLIS))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "no date or time of day comes near 2^53"
)]
fn exact_millis(millis: i64) -> f64 {
    millis as f64
}

/// Microseconds / 1000, correctly rounded.
fn millis(micros: i128) -> f64 {
    if micros.abs() <= EXACT {
        #[expect(clippy::cast_precision_loss, reason = "the range was just checked")]
        let exact = micros as f64;
        return exact / 1000.0;
    }
    let sign = if micros < 0 { "-" } else { "" };
    let (whole, rest) = (micros.abs() / 1000, micros.abs() % 1000);
    format!("{sign}{whole}.{rest:03}")
        .parse()
        .unwrap_or(f64::NAN)
}

pub(super) fn date_from_text(text: &str) -> Result<f64, DecodeError> {
    if let Some(infinity) = infinity(text) {
        return Ok(infinity);
    }
    let mut cursor = Cursor(text.as_bytes());
    let (year, month, day) = cursor.date()?;
    let year = cursor.era(year)?;
    Ok(exact_millis(
        days_from_civil(year, month, day)? * DAY_MILLIS,
    ))
}

pub(super) fn timestamp_from_text(text: &str) -> Result<f64, DecodeError> {
    if let Some(infinity) = infinity(text) {
        return Ok(infinity);
    }
    let mut cursor = Cursor(text.as_bytes());
    let (year, month, day) = cursor.date()?;
    cursor.expect(b' ')?;
    let time = cursor.time()?;
    let west = cursor.zone()?;
    let year = cursor.era(year)?;
    let days = i128::from(days_from_civil(year, month, day)?);
    Ok(millis(
        days * DAY_MICROS + i128::from(time) + i128::from(west) * 1_000_000,
    ))
}

pub(super) fn time_from_text(text: &str) -> Result<f64, DecodeError> {
    let mut cursor = Cursor(text.as_bytes());
    let micros = cursor.time()?;
    cursor.end()?;
    Ok(time_from_micros(micros))
}

pub(super) fn timetz_from_text(text: &str) -> Result<f64, DecodeError> {
    let mut cursor = Cursor(text.as_bytes());
    let micros = cursor.time()?;
    let west = cursor.zone()?;
    cursor.end()?;
    Ok(timetz_from_micros(micros, west))
}

fn infinity(text: &str) -> Option<f64> {
    match text {
        "infinity" => Some(f64::INFINITY),
        "-infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// Days from 1970-01-01 to a day of the proleptic Gregorian calendar; year 0 is 1 BC.
fn days_from_civil(year: i64, month: i64, day: i64) -> Result<i64, DecodeError> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year.abs() > 10_000_000 {
        return Err(DecodeError("a date is out of range"));
    }
    // Years that begin in March put the leap day last.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Ok(era * 146_097 + day_of_era - 719_468)
}

/// Reads the ISO forms.
struct Cursor<'a>(&'a [u8]);

const MALFORMED: DecodeError = DecodeError("a date or time is malformed");

impl Cursor<'_> {
    /// A number of at least one digit.
    fn number(&mut self) -> Result<i64, DecodeError> {
        let length = self
            .0
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if !(1..=9).contains(&length) {
            return Err(MALFORMED);
        }
        let (digits, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(digits
            .iter()
            .fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
    }

    fn take(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), DecodeError> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(MALFORMED)
        }
    }

    fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(MALFORMED)
        }
    }

    fn date(&mut self) -> Result<(i64, i64, i64), DecodeError> {
        let year = self.number()?;
        self.expect(b'-')?;
        let month = self.number()?;
        self.expect(b'-')?;
        Ok((year, month, self.number()?))
    }

    /// `HH:MM:SS[.ffffff]` → microseconds.
    fn time(&mut self) -> Result<i64, DecodeError> {
        let hours = self.number()?;
        self.expect(b':')?;
        let minutes = self.number()?;
        self.expect(b':')?;
        let seconds = self.number()?;
        let mut micros = 0;
        if self.take(b'.') {
            let before = self.0.len();
            let fraction = self.number()?;
            let digits = u32::try_from(before - self.0.len()).map_err(|_| MALFORMED)?;
            let scale = 6_u32.checked_sub(digits).ok_or(MALFORMED)?;
            micros = fraction * 10_i64.pow(scale);
        }
        if hours > 24 || minutes > 59 || seconds > 60 {
            return Err(MALFORMED);
        }
        Ok(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
    }

    /// `±HH[:MM[:SS]]`, if it is there → seconds west of UTC.
    fn zone(&mut self) -> Result<i32, DecodeError> {
        let sign = if self.take(b'+') {
            -1
        } else if self.take(b'-') {
            1
        } else {
            return Ok(0);
        };
        let mut seconds = self.number()? * 3600;
        if self.take(b':') {
            seconds += self.number()? * 60;
        }
        if self.take(b':') {
            seconds += self.number()?;
        }
        i32::try_from(seconds * sign).map_err(|_| MALFORMED)
    }

    /// The end, or ` BC`: the astronomical year.
    fn era(&mut self, year: i64) -> Result<i64, DecodeError> {
        match self.0 {
            b"" => Ok(year),
            b" BC" => Ok(1 - year),
            _ => Err(MALFORMED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_forms_come_to_milliseconds() {
        assert_eq!(date_from_text("1970-01-02"), Ok(86_400_000.0));
        assert_eq!(date_from_text("0001-01-01 BC"), Ok(-62_167_219_200_000.0));
        assert_eq!(
            timestamp_from_text("2019-01-12 00:30:35.381101"),
            Ok(1_547_253_035_381.101)
        );
        assert_eq!(
            timestamp_from_text("1969-12-31 23:59:59.999999+00"),
            Ok(-0.001)
        );
        assert_eq!(
            timestamp_from_text("2000-01-01 05:30:00+05:30"),
            timestamp_from_text("2000-01-01 00:00:00")
        );
        assert_eq!(timestamp_from_text("-infinity"), Ok(f64::NEG_INFINITY));
        assert_eq!(time_from_text("24:00:00"), Ok(86_400_000.0));
        assert_eq!(time_from_text("00:00:00.0019"), Ok(1.0));
        assert_eq!(timetz_from_text("01:00:00+02"), Ok(82_800_000.0));
        assert_eq!(timetz_from_text("24:00:00+00"), Ok(0.0));
    }

    #[test]
    fn binary_forms_agree_with_text_forms_at_the_ends_of_the_range() {
        assert_eq!(
            timestamp_from_text("294276-12-31 23:59:59.999999"),
            Ok(timestamp_from_micros(9_223_371_331_199_999_999))
        );
        assert_eq!(
            timestamp_from_text("4714-11-24 00:00:00 BC"),
            Ok(timestamp_from_micros(-211_813_488_000_000_000))
        );
        assert_eq!(date_from_text("2000-01-01"), Ok(date_from_days(0)));
    }

    proptest! {
        #[test]
        fn days_advance_by_one(day in -2_000_000_i64..100_000_000) {
            // From the day number to a date by counting, and back by the formula.
            let (year, month, date) = civil(day);
            prop_assert_eq!(days_from_civil(year, month, date), Ok(day));
        }
    }

    fn civil(days: i64) -> (i64, i64, i64) {
        let shifted = days + 719_468;
        let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day_of_year + 2) / 153;
        let date = day_of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        (year + era * 400 + i64::from(month <= 2), month, date)
    }
}
