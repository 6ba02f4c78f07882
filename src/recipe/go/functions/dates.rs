//! slim-sprig's dates. `Local` is UTC, unless values that are others each time are allowed: a recipe means the
//! same on every machine.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ZonedDateTime};

use super::Param::{Any, String as Text, Time};
use super::impure::now;
use super::{Context, Error, Function, Result, function, text};
use crate::recipe::go::duration::{SECOND, parse_duration, shown_duration};
use crate::recipe::go::time;
use crate::recipe::go::value::Value;

pub(super) const TABLE: &[Function] = &[
    function("date", &[Text, Any], |cx, given| in_zone(cx, given[0].str(), &given[1], "Local")),
    function("dateInZone", &[Text, Any, Text], |cx, given| in_zone(cx, given[0].str(), &given[1], given[2].str())),
    function("date_in_zone", &[Text, Any, Text], |cx, given| in_zone(cx, given[0].str(), &given[1], given[2].str())),
    function("htmlDate", &[Any], |cx, given| in_zone(cx, "2006-01-02", &given[0], "Local")),
    function("htmlDateInZone", &[Any, Text], |cx, given| in_zone(cx, "2006-01-02", &given[0], given[1].str())),
    function("dateModify", &[Text, Time], |cx, given| Ok(modify(cx, given).unwrap_or_else(|_| given[1].clone()))),
    function("date_modify", &[Text, Time], |cx, given| Ok(modify(cx, given).unwrap_or_else(|_| given[1].clone()))),
    function("mustDateModify", &[Text, Time], modify),
    function("must_date_modify", &[Text, Time], modify),
    function("toDate", &[Text, Text], |cx, given| {
        Ok(to_date(cx, given).unwrap_or_else(|_| Value::Time(Box::new(time::zero()))))
    }),
    function("mustToDate", &[Text, Text], to_date),
    function("unixEpoch", &[Time], |_, given| match &given[0] {
        Value::Time(at) => text(at.timestamp().as_second().to_string()),
        _ => text("0"),
    }),
    function("ago", &[Any], |cx, given| {
        let at = at(cx, &given[0])?;
        let seconds = now(cx)?.timestamp().duration_since(at.timestamp()).as_secs();
        text(shown_duration(seconds.saturating_mul(SECOND)))
    }),
    function("duration", &[Any], |_, given| {
        let seconds: i64 = match &given[0] {
            Value::String(text) => text.parse().unwrap_or(0),
            Value::Int64(seconds) => *seconds,
            _ => 0,
        };
        text(shown_duration(seconds.saturating_mul(SECOND)))
    }),
    function("durationRound", &[Any], |cx, given| {
        let nanoseconds = match &given[0] {
            Value::String(text) => parse_duration(text).unwrap_or(0),
            Value::Int64(nanoseconds) => *nanoseconds,
            Value::Time(at) => {
                let passed = now(cx)?.timestamp().duration_since(at.timestamp());
                i64::try_from(passed.as_nanos()).unwrap_or(i64::MAX)
            }
            _ => 0,
        };
        text(rounded(nanoseconds))
    }),
];

/// The zone called `Local`.
fn local(cx: Context) -> TimeZone {
    if cx.impure { TimeZone::system() } else { TimeZone::UTC }
}

/// A time, seconds since 1970, or, of anything else, now.
fn at(cx: Context, value: &Value) -> Result<ZonedDateTime> {
    match value {
        Value::Time(at) => Ok((**at).clone()),
        Value::Int(seconds) | Value::Int64(seconds) => Timestamp::from_second(*seconds)
            .map(|at| at.to_zoned_datetime(local(cx)))
            .map_err(|_| Error::Failed(format!("{seconds} seconds since 1970 are no date"))),
        _ => now(cx),
    }
}

fn in_zone(cx: Context, layout: &str, value: &Value, zone: &str) -> Result {
    let zone = match zone {
        "Local" => local(cx),
        "" | "UTC" => TimeZone::UTC,
        name => TimeZone::get(name).unwrap_or(TimeZone::UTC),
    };
    text(time::format(&at(cx, value)?.with_time_zone(zone), layout))
}

fn modify(_: Context, given: &[Value]) -> Result {
    let change = SignedDuration::from_nanos(parse_duration(given[0].str())?);
    match &given[1] {
        Value::Time(at) => match at.checked_add(change) {
            Ok(at) => Ok(Value::Time(Box::new(at))),
            Err(error) => Err(error.to_string().into()),
        },
        other => Ok(other.clone()),
    }
}

fn to_date(cx: Context, given: &[Value]) -> Result {
    Ok(Value::Time(Box::new(time::parse(given[0].str(), given[1].str(), &local(cx))?)))
}

/// sprig's one unit of a duration: the largest that it is more than one of.
fn rounded(nanoseconds: i64) -> String {
    let second = SECOND.unsigned_abs();
    let hour = 3600 * second;
    let units = [
        (hour * 24 * 365, "y"),
        (hour * 24 * 30, "mo"),
        (hour * 24, "d"),
        (hour, "h"),
        (60 * second, "m"),
        (second, "s"),
    ];
    let all = nanoseconds.unsigned_abs();
    let found = units.iter().find(|(unit, _)| all > *unit);
    found.map_or_else(|| "0s".to_owned(), |(unit, name)| format!("{}{name}", all / unit))
}
