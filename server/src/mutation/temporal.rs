//! Dates and times, which clients write in milliseconds, as PostgreSQL reads them.

use serde_json::Value;

const DAY_MICROS: i64 = 86_400_000_000;
/// Beyond the range of PostgreSQL's timestamps, and within that of an `i64`.
const MAX_MICROS: f64 = 9.22e18;

/// A value for a column of PostgreSQL type `type_name` (with `[]` for each array dimension):
/// milliseconds become text where the type is a date or a time; anything else stays.
///
/// # Errors
/// The number is beyond what the type can hold; one sentence.
pub(super) fn to_column(type_name: &str, value: &Value) -> Result<Value, String> {
    let base = type_name.trim_end_matches("[]");
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(ms) => convert(base, ms).map(|text| text.map_or(value.clone(), Value::String)),
            None => Ok(value.clone()),
        },
        Value::Array(items) if base.len() < type_name.len() => {
            let items = items.iter().map(|item| to_column(type_name, item));
            items.collect::<Result<Vec<_>, _>>().map(Value::Array)
        }
        other => Ok(other.clone()),
    }
}

fn convert(base: &str, ms: f64) -> Result<Option<String>, String> {
    if !matches!(
        base,
        "timestamp" | "timestamptz" | "date" | "time" | "timetz"
    ) {
        return Ok(None);
    }
    let micros = (ms * 1000.0).round();
    if !(-MAX_MICROS..=MAX_MICROS).contains(&micros) {
        return Err(format!("{ms} is beyond every {base}"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range was just checked"
    )]
    let micros = micros as i64;
    let (days, rest) = (micros.div_euclid(DAY_MICROS), micros.rem_euclid(DAY_MICROS));
    Ok(Some(match base {
        "date" => {
            let (date, era) = civil(days);
            format!("{date}{era}")
        }
        "timestamp" | "timestamptz" => {
            let (date, era) = civil(days);
            let zone = if base == "timestamptz" { "+00" } else { "" };
            format!("{date} {}{zone}{era}", clock(rest))
        }
        // Midnight at the end of a day has a spelling of its own.
        _ if (0..=DAY_MICROS).contains(&micros) => {
            let zone = if base == "timetz" { "+00" } else { "" };
            format!("{}{zone}", clock(micros))
        }
        _ => return Err(format!("{ms} is no time of a day in milliseconds")),
    }))
}

fn clock(micros: i64) -> String {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{fraction:06}")
}

/// The proleptic Gregorian date of a day counted from 1970, and ` BC` for years before 1.
fn civil(days: i64) -> (String, &'static str) {
    // Days from 0000-03-01: a year that begins in March has its leap day last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    if year > 0 {
        (format!("{year:04}-{month:02}-{day:02}"), "")
    } else {
        (format!("{:04}-{month:02}-{day:02}", 1 - year), " BC")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn milliseconds_become_dates_and_times_exactly() {
        let cases = [
            ("timestamp", json!(0), "1970-01-01 00:00:00.000000"),
            (
                "timestamptz",
                json!(1_700_000_000_123.456),
                "2023-11-14 22:13:20.123456+00",
            ),
            ("timestamp", json!(-1), "1969-12-31 23:59:59.999000"),
            (
                "timestamp",
                json!(-62_135_596_800_001_i64),
                "0001-12-31 23:59:59.999000 BC",
            ),
            ("date", json!(951_782_400_000_i64), "2000-02-29"),
            ("date", json!(-1), "1969-12-31"),
            ("time", json!(3_723_004), "01:02:03.004000"),
            ("time", json!(86_400_000), "24:00:00.000000"),
            ("timetz", json!(0), "00:00:00.000000+00"),
        ];
        for (name, value, text) in cases {
            assert_eq!(to_column(name, &value), Ok(json!(text)), "{name} {value}");
        }
    }

    #[test]
    fn other_values_and_other_types_stay_as_they_are() {
        for (name, value) in [
            ("int4", json!(5)),
            ("timestamp", json!("2020-01-01")),
            ("timestamp", json!(null)),
            ("jsonb", json!([1, { "a": 2 }])),
            ("int4[]", json!([1, [2]])),
        ] {
            assert_eq!(to_column(name, &value), Ok(value.clone()), "{name}");
        }
        let array = to_column("date[]", &json!([0, null, [86_400_000]])).unwrap();
        assert_eq!(array, json!(["1970-01-01", null, ["1970-01-02"]]));
    }

    #[test]
    fn what_is_beyond_a_type_is_an_error() {
        for (name, value) in [("timestamp", 1e300), ("time", -1.0), ("time", 86_400_001.0)] {
            assert!(to_column(name, &json!(value)).is_err(), "{name} {value}");
        }
    }
}
