//! Sizes and offsets as recipes write them.

use std::str::FromStr;

/// How many bytes one of a unit is; `None` where there is no such unit. `MB` and `M` are decimal, `MiB`
/// and `Mi` binary, as for parted.
pub(super) fn unit(name: &str) -> Option<u64> {
    let name = name.to_ascii_lowercase();
    let mut letters = name.chars();
    let exponent = match letters.next() {
        None => return Some(1),
        Some('b') => return letters.next().is_none().then_some(1),
        Some(letter) => "kmgtp".find(letter)? as u32 + 1,
    };
    match letters.as_str() {
        "" | "b" => Some(1000_u64.pow(exponent)),
        "i" | "ib" => Some(1024_u64.pow(exponent)),
        _ => None,
    }
}

/// A number with digits after a point, kept exactly: `number / scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal {
    pub(super) number: i128,
    pub(super) scale: i128,
}

impl Decimal {
    /// Reads the digits at the start of a text; what is left of it.
    pub(super) fn parse(text: &str) -> Option<(Self, &str)> {
        let length = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
        let (digits, rest) = text.split_at(length);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() || fraction.contains('.') || digits.len() > 21 {
            return None;
        }
        let number = format!("{whole}{fraction}").parse().ok()?;
        Some((Self { number, scale: 10_i128.pow(u32::try_from(fraction.len()).ok()?) }, rest))
    }

    /// The number times so many bytes, rounded down.
    pub(super) fn times(self, unit: u64) -> Option<i128> {
        Some(self.number.checked_mul(i128::from(unit))? / self.scale)
    }
}

/// A number of bytes: `512 MiB`, `1GB`, `1.5G`, `0x3F8000`, `1048576`; in sectors `2048s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// So many bytes.
    Bytes(u64),
    /// So many sectors.
    Sectors(u64),
}

impl Size {
    /// In bytes, on a disk with sectors of that many bytes; `None` beyond what a disk can have.
    pub fn bytes(self, sector_size: u32) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Sectors(sectors) => sectors.checked_mul(u64::from(sector_size)),
        }
        .filter(|bytes| i64::try_from(*bytes).is_ok())
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a size");
        let trimmed = text.trim();
        let (hex, digits) = match trimmed.strip_prefix("0x").or_else(|| trimmed.strip_prefix("0X")) {
            Some(digits) => (true, digits),
            None => (false, trimmed),
        };
        if hex {
            let (digits, sectors) = match digits.strip_suffix('s') {
                Some(digits) => (digits, true),
                None => (digits, false),
            };
            let number = u64::from_str_radix(digits, 16).map_err(|_| wrong())?;
            return Ok(if sectors { Self::Sectors(number) } else { Self::Bytes(number) });
        }
        let (decimal, rest) = Decimal::parse(digits).ok_or_else(wrong)?;
        let rest = rest.trim_start();
        let number = |unit| decimal.times(unit).and_then(|number| u64::try_from(number).ok()).ok_or_else(wrong);
        if rest.eq_ignore_ascii_case("s") {
            return if decimal.scale == 1 { Ok(Self::Sectors(number(1)?)) } else { Err(wrong()) };
        }
        Ok(Self::Bytes(number(unit(rest).ok_or_else(wrong)?)?))
    }
}

/// A number of bytes for people, in the largest binary unit that leaves no rest.
pub fn exact(bytes: u64) -> String {
    for (name, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes != 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{} {name}", bytes >> shift);
        }
    }
    if bytes == 1 { "1 byte".into() } else { format!("{bytes} bytes") }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("512 MiB", Size::Bytes(512 << 20))]
    #[case("512MiB", Size::Bytes(512 << 20))]
    #[case("1Gi", Size::Bytes(1 << 30))]
    #[case("1.5 GiB", Size::Bytes(3 << 29))]
    #[case("1GB", Size::Bytes(1_000_000_000))]
    #[case("1g", Size::Bytes(1_000_000_000))]
    #[case("64k", Size::Bytes(64_000))]
    #[case("1048576", Size::Bytes(1 << 20))]
    #[case("7B", Size::Bytes(7))]
    #[case("0x3F8000", Size::Bytes(0x3F_8000))]
    #[case("0x40s", Size::Sectors(64))]
    #[case("2048s", Size::Sectors(2048))]
    #[case("0", Size::Bytes(0))]
    fn a_size_is_read(#[case] text: &str, #[case] size: Size) {
        assert_eq!(text.parse(), Ok(size));
    }

    #[rstest]
    fn what_is_no_size_is_refused(
        #[values("", "x", "-1", "1 XB", "1.2.3", ".5", "1.5s", "0x", "0xg", "10%", "99999999999999999999999", "1e9")]
        text: &str,
    ) {
        text.parse::<Size>().unwrap_err();
    }

    #[rstest]
    fn a_number_of_sectors_beyond_any_disk_is_none() {
        assert_eq!(Size::Sectors(u64::MAX / 2).bytes(512), None);
        assert_eq!(Size::Sectors(3).bytes(4096), Some(12288));
    }
}
