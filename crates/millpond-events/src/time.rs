//! Times of events: milliseconds since 1970, written and read as RFC 3339.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY_MS: i64 = 86_400_000;

/// A time to the millisecond, in UTC. Its text is RFC 3339: `2026-11-28T09:30:00.250Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The text is no RFC 3339 time between the years 0 and 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseTimestampError;

impl fmt::Display for ParseTimestampError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an RFC 3339 time")
    }
}

impl std::error::Error for ParseTimestampError {}

impl Timestamp {
    /// A time this many milliseconds after the beginning of 1970, kept within the years 0 to 9999.
    #[must_use]
    pub fn from_unix_ms(ms: i64) -> Self {
        Self(ms.clamp(days_from_civil(0, 1, 1) * DAY_MS, days_from_civil(10_000, 1, 1) * DAY_MS - 1))
    }

    /// Milliseconds since the beginning of 1970.
    #[must_use]
    pub const fn unix_ms(self) -> i64 {
        self.0
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let whole = |since: Duration| i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self::from_unix_ms(whole(since)),
            Err(before) => Self::from_unix_ms(-whole(before.duration())),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, ms) = (self.0.div_euclid(DAY_MS), self.0.rem_euclid(DAY_MS));
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
    }
}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, ParseTimestampError> {
        parse(text.as_bytes()).ok_or(ParseTimestampError)
    }
}

fn parse(text: &[u8]) -> Option<Timestamp> {
    let (stem, rest) = text.split_at_checked(19)?;
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    let is_separated = separators.iter().all(|(at, byte)| stem[*at] == *byte);
    if !is_separated || !matches!(stem[10], b'T' | b't' | b' ') {
        return None;
    }
    let (year, month, day) = (number(&stem[..4])?, number(&stem[5..7])?, number(&stem[8..10])?);
    let (hour, minute, second) = (number(&stem[11..13])?, number(&stem[14..16])?, number(&stem[17..19])?);
    // RFC 3339 allows a leap second, which counts as the last millisecond before it.
    if !(1..=12).contains(&month) || !(1..=month_len(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction_ms, zone) = fraction(rest)?;
    let of_day = (hour * 60 + minute) * 60_000 + if second == 60 { 59_999 } else { second * 1000 + fraction_ms };
    let local = days_from_civil(year, month, day) * DAY_MS + of_day;
    let utc = local - offset_minutes(zone)? * 60_000;
    (Timestamp::from_unix_ms(utc).0 == utc).then_some(Timestamp(utc))
}

/// The milliseconds of a fraction of a second, if there is one, and what follows it. Further digits are dropped.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = text.strip_prefix(b".") else { return Some((0, text)) };
    let len = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, zone) = digits.split_at(len);
    let ms = (0..3).fold(0, |ms, nth| ms * 10 + digits.get(nth).map_or(0, |digit| i64::from(digit - b'0')));
    (len > 0).then_some((ms, zone))
}

fn offset_minutes(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            let offset = hours * 60 + minutes;
            (hours <= 23 && minutes <= 59).then_some(if *sign == b'-' { -offset } else { offset })
        }
        _ => None,
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    let is_number = digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
}

fn month_len(year: i64, month: i64) -> i64 {
    let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    days_from_civil(next_year, next_month, 1) - days_from_civil(year, month, 1)
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar. Years begin in March here, so that a leap day ends one.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_ten_thousand_years_has_one_text() {
        let first = days_from_civil(0, 1, 1);
        let mut last = String::new();
        for day in first..days_from_civil(10_000, 1, 1) {
            let text = Timestamp(day * DAY_MS).to_string();
            assert!(last < text, "{last} comes before {text}");
            assert_eq!(text.parse(), Ok(Timestamp(day * DAY_MS)));
            last = text;
        }
        assert_eq!(last, "9999-12-31T00:00:00.000Z");
    }

    #[test]
    fn known_times_have_known_texts() {
        let known = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_800_000_000_123, "2027-01-15T08:00:00.123Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ];
        for (ms, text) in known {
            assert_eq!(Timestamp(ms).to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp(ms)));
        }
    }

    #[test]
    fn offsets_and_fractions_are_read() {
        let same = ["2027-01-15T09:00:00.123999+01:00", "2027-01-15T02:30:00.123-05:30", "2027-01-15t08:00:00.123z"];
        for text in same {
            assert_eq!(text.parse(), Ok(Timestamp(1_800_000_000_123)), "{text}");
        }
        assert_eq!("2027-01-15T08:00:00Z".parse(), Ok(Timestamp(1_800_000_000_000)));
        assert_eq!(
            "2016-12-31T23:59:60Z".parse::<Timestamp>().map(|time| time.to_string()),
            Ok("2016-12-31T23:59:59.999Z".to_owned())
        );
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let wrong = [
            "",
            "now",
            "2027-01-15",
            "2027-01-15T08:00:00",
            "2027-13-15T08:00:00Z",
            "2027-02-29T08:00:00Z",
            "2027-01-15T24:00:00Z",
            "2027-01-15T08:60:00Z",
            "2027-01-15T08:00:61Z",
            "2027-01-15T08:00:00.Z",
            "2027-01-15T08:00:00+0100",
            "2027-01-15T08:00:00+24:00",
            "2027-1-15T08:00:00Z",
            "2027-01-15T08:00:00Zx",
            "0000-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "２027-01-15T08:00:00Z",
        ];
        for text in wrong {
            assert_eq!(text.parse::<Timestamp>(), Err(ParseTimestampError), "{text}");
        }
    }
}
