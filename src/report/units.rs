//! Sizes and times for people.

/// "61 MB", "1.4 GB": decimal, as disks and downloads are labelled.
pub fn bytes(size: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    if size < 1000 {
        return format!("{size} B");
    }
    let (mut value, mut unit) = (size as f64 / 1000.0, 0);
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if value < 9.95 { format!("{value:.1} {}", units[unit]) } else { format!("{value:.0} {}", units[unit]) }
}

/// "9.8 s", "2 min 05 s".
pub fn seconds(seconds: f64) -> String {
    if seconds < 99.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    format!("{} min {:02} s", whole / 60, whole % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_digits_that_mean_something() {
        for (size, text) in
            [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (61_927_529, "62 MB"), (999_900_000, "1.0 GB")]
        {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn long_times_are_minutes() {
        assert_eq!(seconds(0.04), "0.0 s");
        assert_eq!(seconds(16.94), "16.9 s");
        assert_eq!(seconds(125.0), "2 min 05 s");
    }
}
