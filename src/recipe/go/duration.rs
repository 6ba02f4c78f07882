//! Durations as Go's package `time` reads and writes them, in nanoseconds.

use super::format::quote;

/// A second.
pub(super) const SECOND: i64 = 1_000_000_000;

/// `time.ParseDuration`, in nanoseconds.
pub(super) fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0f64;
    let mut exact = 0i128;
    while !rest.is_empty() {
        let length = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let (number, after) = rest.split_at(length);
        if number.trim_matches('.').is_empty() || number.matches('.').count() > 1 {
            return Err(invalid());
        }
        let length = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(length);
        let scale: i64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3600 * SECOND,
            "" => return Err(format!("time: missing unit in duration {}", quote(text))),
            unit => {
                let (unit, text) = (quote(unit), quote(text));
                return Err(format!("time: unknown unit {unit} in duration {text}"));
            }
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        exact += whole.parse::<i128>().unwrap_or(0).saturating_mul(i128::from(scale));
        if !fraction.is_empty() {
            #[allow(clippy::cast_precision_loss)] // As Go does it.
            let part = format!("0.{fraction}").parse::<f64>().unwrap_or(0.0) * scale as f64;
            total += part.trunc();
        }
        rest = after;
    }
    #[allow(clippy::cast_possible_truncation)] // A fraction of an hour at most.
    let sum = exact + total as i128;
    i64::try_from(if negative { -sum } else { sum }).map_err(|_| invalid())
}

/// `Duration.String`: `1h2m3s`, of nanoseconds.
pub(super) fn shown_duration(nanoseconds: i64) -> String {
    let mark = if nanoseconds < 0 { "-" } else { "" };
    let all = nanoseconds.unsigned_abs();
    let second = SECOND.unsigned_abs();
    let decimal = |value: u64, unit: u64| {
        let fraction = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
        match fraction.trim_end_matches('0') {
            _ if unit == 1 => value.to_string(),
            "" => (value / unit).to_string(),
            fraction => format!("{}.{fraction}", value / unit),
        }
    };
    match all {
        0 => "0s".into(),
        all if all < 1_000 => format!("{mark}{all}ns"),
        all if all < 1_000_000 => format!("{mark}{}µs", decimal(all, 1_000)),
        all if all < second => format!("{mark}{}ms", decimal(all, 1_000_000)),
        all => {
            let seconds = decimal(all % (60 * second), second);
            let (hours, minutes) = (all / (3600 * second), all / (60 * second) % 60);
            match (hours, minutes) {
                (0, 0) => format!("{mark}{seconds}s"),
                (0, minutes) => format!("{mark}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{mark}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, expected) in [
            ("1h", "1h0m0s"),
            ("90m", "1h30m0s"),
            ("1.5h", "1h30m0s"),
            ("-2h45m", "-2h45m0s"),
            ("1500ms", "1.5s"),
            ("2us", "2µs"),
            ("0", "0s"),
        ] {
            assert_eq!(parse_duration(text).map(shown_duration).as_deref(), Ok(expected), "{text}");
        }
        assert!(parse_duration("1").unwrap_err().contains("missing unit"));
        assert!(parse_duration("1x").unwrap_err().contains("unknown unit"));
    }
}
