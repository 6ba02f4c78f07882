//! Times and durations as Go's package `time` reads and writes them.

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, ZonedDateTime};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// How a `time.Time` prints.
const SHOWN: &str = "2006-01-02 15:04:05.999999999 -0700 MST";

/// Parts of a layout, longest first where one starts like another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    LongMonth,
    Month,
    NumMonth,
    ZeroMonth,
    LongWeekDay,
    WeekDay,
    Day,
    UnderDay,
    ZeroDay,
    UnderYearDay,
    ZeroYearDay,
    Hour,
    Hour12,
    ZeroHour12,
    Minute,
    ZeroMinute,
    Second,
    ZeroSecond,
    LongYear,
    Year,
    Pm,
    SmallPm,
    Zone,
    /// An offset, whether `Z` stands for none, with colons, to minutes (2) or seconds (3) or hours (1).
    Offset {
        zulu: bool,
        colon: bool,
        parts: u8,
    },
    /// Digits of a second's fraction, and whether zeros at the end are kept.
    Fraction {
        digits: usize,
        zeros: bool,
        separator: char,
    },
}

const PARTS: &[(&str, Part)] = &[
    ("January", Part::LongMonth),
    ("Jan", Part::Month),
    ("Monday", Part::LongWeekDay),
    ("Mon", Part::WeekDay),
    ("MST", Part::Zone),
    ("002", Part::ZeroYearDay),
    ("01", Part::ZeroMonth),
    ("02", Part::ZeroDay),
    ("03", Part::ZeroHour12),
    ("04", Part::ZeroMinute),
    ("05", Part::ZeroSecond),
    ("06", Part::Year),
    ("15", Part::Hour),
    ("1", Part::NumMonth),
    ("2006", Part::LongYear),
    ("2", Part::Day),
    ("__2", Part::UnderYearDay),
    ("_2", Part::UnderDay),
    ("3", Part::Hour12),
    ("4", Part::Minute),
    ("5", Part::Second),
    ("PM", Part::Pm),
    ("pm", Part::SmallPm),
    ("-07:00:00", Part::Offset { zulu: false, colon: true, parts: 3 }),
    ("-070000", Part::Offset { zulu: false, colon: false, parts: 3 }),
    ("-07:00", Part::Offset { zulu: false, colon: true, parts: 2 }),
    ("-0700", Part::Offset { zulu: false, colon: false, parts: 2 }),
    ("-07", Part::Offset { zulu: false, colon: false, parts: 1 }),
    ("Z07:00:00", Part::Offset { zulu: true, colon: true, parts: 3 }),
    ("Z070000", Part::Offset { zulu: true, colon: false, parts: 3 }),
    ("Z07:00", Part::Offset { zulu: true, colon: true, parts: 2 }),
    ("Z0700", Part::Offset { zulu: true, colon: false, parts: 2 }),
    ("Z07", Part::Offset { zulu: true, colon: false, parts: 1 }),
];

/// What stands before the first part of a layout, the part, and what follows.
fn next_part(layout: &str) -> Option<(&str, Part, &str)> {
    for (at, c) in layout.char_indices() {
        let rest = &layout[at..];
        // `Jan` is a part, `Janet` is a name; `_2006` is an underscore before a year.
        let named = |text: &str, after: &str| {
            !(matches!(text, "Jan" | "Mon") && after.starts_with(|c: char| c.is_ascii_lowercase()))
        };
        if let Some(after) = rest.strip_prefix("_2006") {
            return Some((&layout[..=at], Part::LongYear, after));
        }
        let found = PARTS.iter().find_map(|(text, part)| {
            let after = rest.strip_prefix(text)?;
            named(text, after).then_some((*part, after))
        });
        if let Some((part, after)) = found {
            return Some((&layout[..at], part, after));
        }
        if matches!(c, '.' | ',')
            && let Some(digit @ ('0' | '9')) = rest[1..].chars().next()
        {
            let digits = rest[1..].chars().take_while(|c| *c == digit).count();
            let after = &rest[1 + digits..];
            if !after.starts_with(|c: char| c.is_ascii_digit()) {
                return Some((&layout[..at], Part::Fraction { digits, zeros: digit == '0', separator: c }, after));
            }
        }
    }
    None
}

/// `Time.Format`
pub(super) fn format(time: &ZonedDateTime, layout: &str) -> String {
    let mut out = String::new();
    let mut rest = layout;
    while let Some((before, part, after)) = next_part(rest) {
        out.push_str(before);
        out.push_str(&shown_part(time, part));
        rest = after;
    }
    out + rest
}

fn shown_part(time: &ZonedDateTime, part: Part) -> String {
    let hour12 = match time.hour() % 12 {
        0 => 12,
        hour => hour,
    };
    match part {
        Part::LongMonth => month_name(time.month()).to_owned(),
        Part::Month => month_name(time.month())[..3].to_owned(),
        Part::NumMonth => time.month().to_string(),
        Part::ZeroMonth => format!("{:02}", time.month()),
        Part::LongWeekDay => day_name(time).to_owned(),
        Part::WeekDay => day_name(time)[..3].to_owned(),
        Part::Day => time.day().to_string(),
        Part::UnderDay => format!("{:2}", time.day()),
        Part::ZeroDay => format!("{:02}", time.day()),
        Part::UnderYearDay => format!("{:3}", time.day_of_year()),
        Part::ZeroYearDay => format!("{:03}", time.day_of_year()),
        Part::Hour => format!("{:02}", time.hour()),
        Part::Hour12 => hour12.to_string(),
        Part::ZeroHour12 => format!("{hour12:02}"),
        Part::Minute => time.minute().to_string(),
        Part::ZeroMinute => format!("{:02}", time.minute()),
        Part::Second => time.second().to_string(),
        Part::ZeroSecond => format!("{:02}", time.second()),
        Part::LongYear => format!("{:04}", time.year()),
        Part::Year => format!("{:02}", time.year().rem_euclid(100)),
        Part::Pm => if time.hour() >= 12 { "PM" } else { "AM" }.to_owned(),
        Part::SmallPm => if time.hour() >= 12 { "pm" } else { "am" }.to_owned(),
        Part::Zone => zone_name(time),
        Part::Offset { zulu, colon, parts } => shown_offset(time.offset(), zulu, colon, parts),
        Part::Fraction { digits, zeros, separator } => {
            let nanoseconds = format!("{:09}", time.subsec_nanosecond());
            let shown: String = nanoseconds.chars().chain(std::iter::repeat('0')).take(digits).collect();
            match if zeros { shown.as_str() } else { shown.trim_end_matches('0') } {
                "" => String::new(),
                shown => format!("{separator}{shown}"),
            }
        }
    }
}

/// The name of a month, of which the first is 1.
pub(super) fn month_name(month: i8) -> &'static str {
    usize::try_from(month - 1).ok().and_then(|index| MONTHS.get(index)).copied().unwrap_or("%!Month")
}

fn day_name(time: &ZonedDateTime) -> &'static str {
    usize::try_from(time.weekday().to_sunday_zero_offset()).ok().and_then(|day| DAYS.get(day)).copied().unwrap_or("")
}

/// The zone's abbreviation; an offset alone has none, and is its own name.
fn zone_name(time: &ZonedDateTime) -> String {
    let zone = time.time_zone();
    if zone.iana_name().is_none() && *zone != TimeZone::UTC && zone.to_fixed_offset().is_ok() {
        return shown_offset(time.offset(), false, false, 2);
    }
    time.strftime("%Z").to_string()
}

fn shown_offset(offset: Offset, zulu: bool, colon: bool, parts: u8) -> String {
    let seconds = offset.seconds();
    if zulu && seconds == 0 {
        return "Z".into();
    }
    let mark = if seconds < 0 { '-' } else { '+' };
    let seconds = seconds.unsigned_abs();
    let separator = if colon { ":" } else { "" };
    let all = [seconds / 3600, seconds / 60 % 60, seconds % 60];
    let shown: Vec<String> = all.iter().take(usize::from(parts)).map(|part| format!("{part:02}")).collect();
    format!("{mark}{}", shown.join(separator))
}

/// As `%v` prints it.
pub(super) fn shown(time: &ZonedDateTime) -> String {
    format(time, SHOWN)
}

/// The year 1 in UTC, which Go has where a time could not be read.
pub(super) fn zero() -> ZonedDateTime {
    DateTime::constant(1, 1, 1, 0, 0, 0, 0)
        .to_zoned_datetime(TimeZone::UTC)
        .unwrap_or_else(|_| Timestamp::UNIX_EPOCH.to_zoned_datetime(TimeZone::UTC))
}

/// `time.ParseInLocation`, where the time does not say its own.
pub(super) fn parse(layout: &str, text: &str, zone: &TimeZone) -> Result<ZonedDateTime, String> {
    let wrong = |what: &str| {
        let quote = super::format::quote;
        format!("parsing time {} as {}: {what}", quote(text), quote(layout))
    };
    let mut read = Read::default();
    let mut value = text;
    let mut rest = layout;
    while let Some((before, part, after)) = next_part(rest) {
        value = value.strip_prefix(before).ok_or_else(|| {
            wrong(&format!("cannot parse {} as {}", super::format::quote(value), super::format::quote(before)))
        })?;
        let given = value;
        value = read.part(part, value, after).ok_or_else(|| {
            let asked = &rest[before.len()..rest.len() - after.len()];
            wrong(&format!("cannot parse {} as {}", super::format::quote(given), super::format::quote(asked)))
        })?;
        rest = after;
    }
    value = value.strip_prefix(rest).ok_or_else(|| {
        wrong(&format!("cannot parse {} as {}", super::format::quote(value), super::format::quote(rest)))
    })?;
    if !value.is_empty() {
        let quote = super::format::quote;
        return Err(format!("parsing time {}: extra text: {}", quote(text), quote(value)));
    }
    read.time(zone).ok_or_else(|| format!("parsing time {}: day out of range", super::format::quote(text)))
}

/// What was read of a time so far.
#[derive(Default)]
struct Read {
    year: Option<i16>,
    month: Option<i8>,
    day: Option<i8>,
    year_day: Option<i16>,
    hour: i8,
    minute: i8,
    second: i8,
    nanosecond: i32,
    afternoon: Option<bool>,
    offset: Option<i32>,
    utc: bool,
}

impl Read {
    fn part<'t>(&mut self, part: Part, text: &'t str, after: &str) -> Option<&'t str> {
        let rest = match part {
            Part::LongMonth | Part::Month => {
                let short = part == Part::Month;
                let (index, rest) = name(text, &MONTHS, short)?;
                self.month = i8::try_from(index + 1).ok();
                rest
            }
            Part::LongWeekDay | Part::WeekDay => name(text, &DAYS, part == Part::WeekDay)?.1,
            Part::NumMonth | Part::ZeroMonth => {
                let (month, rest) = digits(text, if part == Part::ZeroMonth { 2 } else { 1 }, 2)?;
                self.month = i8::try_from(month).ok().filter(|month| (1..=12).contains(month));
                self.month.map(|_| rest)?
            }
            Part::Day | Part::UnderDay | Part::ZeroDay => {
                let text = if part == Part::UnderDay { text.strip_prefix(' ').unwrap_or(text) } else { text };
                let (day, rest) = digits(text, if part == Part::ZeroDay { 2 } else { 1 }, 2)?;
                self.day = i8::try_from(day).ok();
                rest
            }
            Part::UnderYearDay | Part::ZeroYearDay => {
                let trimmed = if part == Part::UnderYearDay { text.trim_start_matches(' ') } else { text };
                let (day, rest) = digits(trimmed, 1, 3)?;
                self.year_day = i16::try_from(day).ok();
                rest
            }
            Part::Hour => {
                let (hour, rest) = digits(text, 2, 2)?;
                self.hour = i8::try_from(hour).ok().filter(|hour| *hour < 24)?;
                rest
            }
            Part::Hour12 | Part::ZeroHour12 => {
                let (hour, rest) = digits(text, if part == Part::ZeroHour12 { 2 } else { 1 }, 2)?;
                self.hour = i8::try_from(hour).ok().filter(|hour| *hour <= 12)?;
                rest
            }
            Part::Minute | Part::ZeroMinute => {
                let (minute, rest) = digits(text, if part == Part::ZeroMinute { 2 } else { 1 }, 2)?;
                self.minute = i8::try_from(minute).ok().filter(|minute| *minute < 60)?;
                rest
            }
            Part::Second | Part::ZeroSecond => {
                let (second, rest) = digits(text, if part == Part::ZeroSecond { 2 } else { 1 }, 2)?;
                self.second = i8::try_from(second).ok().filter(|second| *second < 60)?;
                // A fraction may follow, also where the layout names none.
                match next_part(after) {
                    Some(("", Part::Fraction { .. }, _)) => rest,
                    _ if rest.starts_with(['.', ',']) && rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                        let count = rest[1..].bytes().take_while(u8::is_ascii_digit).count();
                        self.fraction(&rest[1..=count])?;
                        &rest[1 + count..]
                    }
                    _ => rest,
                }
            }
            Part::LongYear => {
                let (year, rest) = digits(text, 4, 4)?;
                self.year = i16::try_from(year).ok();
                rest
            }
            Part::Year => {
                let (year, rest) = digits(text, 2, 2)?;
                self.year = i16::try_from(if year >= 69 { year + 1900 } else { year + 2000 }).ok();
                rest
            }
            Part::Pm | Part::SmallPm => {
                let words = if part == Part::Pm { ["AM", "PM"] } else { ["am", "pm"] };
                let index = words.iter().position(|word| text.starts_with(word))?;
                self.afternoon = Some(index == 1);
                &text[2..]
            }
            Part::Zone => {
                let length = text.bytes().take_while(u8::is_ascii_uppercase).count();
                if !(3..=5).contains(&length) {
                    return None;
                }
                self.utc = &text[..length] == "UTC";
                &text[length..]
            }
            Part::Offset { zulu, colon, parts } => self.read_offset(text, zulu, colon, parts)?,
            Part::Fraction { digits: count, zeros, separator: _ } => {
                if !text.starts_with(['.', ',']) {
                    return if zeros { None } else { Some(text) };
                }
                let found = text[1..].bytes().take_while(u8::is_ascii_digit).count();
                let taken = if zeros { count } else { found };
                if found < taken || taken > 9 {
                    return None;
                }
                self.fraction(&text[1..=taken])?;
                &text[1 + taken..]
            }
        };
        Some(rest)
    }

    fn fraction(&mut self, digits: &str) -> Option<()> {
        self.nanosecond = format!("{digits:0<9}")[..9].parse().ok()?;
        Some(())
    }

    fn read_offset<'t>(&mut self, text: &'t str, zulu: bool, colon: bool, parts: u8) -> Option<&'t str> {
        if zulu && let Some(rest) = text.strip_prefix('Z') {
            self.offset = Some(0);
            self.utc = true;
            return Some(rest);
        }
        let negative = match text.chars().next()? {
            '+' => false,
            '-' => true,
            _ => return None,
        };
        let mut rest = &text[1..];
        let mut seconds = 0;
        for (index, unit) in [3600, 60, 1].iter().enumerate().take(usize::from(parts)) {
            if index > 0 && colon {
                rest = rest.strip_prefix(':')?;
            }
            let (value, after) = digits(rest, 2, 2)?;
            seconds += i32::try_from(value).ok()? * unit;
            rest = after;
        }
        self.offset = Some(if negative { -seconds } else { seconds });
        Some(rest)
    }

    fn time(&self, zone: &TimeZone) -> Option<ZonedDateTime> {
        let hour = match (self.afternoon, self.hour) {
            (Some(true), hour) if hour < 12 => hour + 12,
            (Some(false), 12) => 0,
            (_, hour) => hour,
        };
        let year = self.year.unwrap_or(0);
        let date = match self.year_day {
            Some(day) => jiff::civil::Date::new(year, 1, 1).ok()?.with().day_of_year(day).build().ok()?,
            None => jiff::civil::Date::new(year, self.month.unwrap_or(1), self.day.unwrap_or(1)).ok()?,
        };
        let zone = match self.offset {
            Some(0) if self.utc => TimeZone::UTC,
            Some(seconds) => TimeZone::fixed(Offset::from_seconds(seconds).ok()?),
            None if self.utc => TimeZone::UTC,
            None => zone.clone(),
        };
        date.at(hour, self.minute, self.second, self.nanosecond).to_zoned_datetime(zone).ok()
    }
}

fn name<'t>(text: &'t str, names: &[&str], short: bool) -> Option<(usize, &'t str)> {
    names.iter().enumerate().find_map(|(index, name)| {
        let name = if short { &name[..3] } else { name };
        let start = text.get(..name.len())?;
        start.eq_ignore_ascii_case(name).then(|| (index, &text[name.len()..]))
    })
}

fn digits(text: &str, least: usize, most: usize) -> Option<(u32, &str)> {
    let count = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    (count >= least).then(|| text[..count].parse().ok().map(|value| (value, &text[count..]))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> ZonedDateTime {
        parse("2006-01-02T15:04:05Z07:00", text, &TimeZone::UTC).unwrap()
    }

    #[test]
    fn layouts_are_those_of_go() {
        let at = time("2024-02-03T16:05:06.07+01:00");
        for (layout, expected) in [
            ("2006-01-02", "2024-02-03"),
            ("Jan _2 15:04:05 2006", "Feb  3 16:05:06 2024"),
            ("Monday, 02-Jan-06 15:04:05 MST", "Saturday, 03-Feb-24 16:05:06 +0100"),
            ("Mon Jan 2 3:04:05PM -0700", "Sat Feb 3 4:05:06PM +0100"),
            ("20060102.150405.000", "20240203.160506.070"),
            ("15h4m5s .999", "16h5m6s .07"),
            ("Z07:00 January 1 002 __2", "+01:00 February 2 034  34"),
            ("Janet", "Janet"),
        ] {
            assert_eq!(format(&at, layout), expected, "{layout}");
        }
        assert_eq!(shown(&time("2024-02-03T16:05:06Z")), "2024-02-03 16:05:06 +0000 UTC");
    }
}
