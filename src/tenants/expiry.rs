//! When a key's time is over: a date as RFC 3339 writes it, with or without a time of day.
//!
//! It reads texts and no clock.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// What is wrong with any other text, as the end of a sentence.
const FORM: &str = "must be a date such as 2027-01-31, the last day in UTC, or a moment such as 2027-01-31T18:00:00Z";

/// From when on a key is refused, in milliseconds since 1970-01-01 UTC. A day counts to its end.
///
/// # Errors
/// The end of a sentence that begins with the setting's name.
pub fn parse(text: &str) -> Result<i64, &'static str> {
    // Without a time of day; jiff would leave one out in silence.
    if text.len() == "2027-01-31".len() {
        let next = text.parse::<Date>().and_then(Date::tomorrow);
        let midnight = next.and_then(|day| day.to_zoned(TimeZone::UTC));
        return midnight.map(|moment| moment.timestamp().as_millisecond()).map_err(|_| FORM);
    }
    text.parse::<Timestamp>().map(Timestamp::as_millisecond).map_err(|_| FORM)
}

/// The last day on which a key works that is made now and works for so many more days: as the setting has it.
///
/// # Errors
/// One line, if there is no such day.
pub fn last_day(unix_ms: i64, days: u32) -> Result<String, String> {
    let no_day = |_| format!("there is no day {days} days from now");
    let today = Timestamp::from_millisecond(unix_ms).map_err(no_day)?.to_zoned(TimeZone::UTC).date();
    let day = today.checked_add(jiff::Span::new().try_days(days).map_err(no_day)?).map_err(no_day)?;
    Ok(day.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_counts_to_its_end_and_a_moment_to_itself() {
        for (text, end) in [
            ("1970-01-01", Some(86_400_000)),
            ("1970-01-01T00:00:01Z", Some(1_000)),
            ("1970-01-01t01:00:01.5+01:00", Some(1_500)),
            ("2024-02-29", Some(1_709_251_200_000)),
            ("2023-02-29", None),
            ("1970-01-01T00:00:01", None),
            ("00:00:01", None),
            ("tomorrow", None),
            ("19700101", None),
            ("", None),
        ] {
            assert_eq!(parse(text).ok(), end, "{text}");
        }
    }

    #[test]
    fn days_from_now_are_counted_in_utc() {
        assert_eq!(last_day(86_399_999, 0).unwrap(), "1970-01-01");
        assert_eq!(last_day(86_400_000, 30).unwrap(), "1970-02-01");
        assert!(last_day(0, u32::MAX).is_err());
    }
}
