//! Modes as chmod(1) takes them.

/// A mode, or changes to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FileMode {
    /// Whatever the file has.
    Octal(u32),
    /// Changes, in order.
    Symbolic(Vec<Change>),
}

/// One change: `go-w`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    who: u32,
    operator: char,
    letters: String,
}

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHER: u32 = 0o1007;
const ALL: u32 = 0o7777;

impl FileMode {
    /// `None` where it is no mode.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= ALL).map(Self::Octal);
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            let operators = clause.find(['+', '-', '='])?;
            let (who, mut rest) = clause.split_at(operators);
            let who = who.chars().try_fold(0, |mask, letter| {
                Some(
                    mask | match letter {
                        'u' => USER,
                        'g' => GROUP,
                        'o' => OTHER,
                        'a' => ALL,
                        _ => return None,
                    },
                )
            })?;
            while let Some(operator) = rest.chars().next() {
                let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |next| next + 1);
                let letters = &rest[1..end];
                if !letters.chars().all(|letter| "rwxXst".contains(letter)) {
                    return None;
                }
                changes.push(Change { who: if who == 0 { ALL } else { who }, operator, letters: letters.to_owned() });
                rest = &rest[end..];
            }
        }
        Some(Self::Symbolic(changes))
    }

    /// The mode of a file that had `mode`.
    pub(super) fn apply(&self, mode: u32) -> u32 {
        match self {
            Self::Octal(octal) => *octal,
            Self::Symbolic(changes) => changes.iter().fold(mode, |mode, change| change.apply(mode)),
        }
    }
}

impl Change {
    fn apply(&self, mode: u32) -> u32 {
        let bits = self.letters.chars().fold(0, |bits, letter| {
            bits | match letter {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                // Only where somebody may execute it already.
                'X' if mode & 0o111 != 0 => 0o111,
                's' => 0o6000,
                't' => 0o1000,
                _ => 0,
            }
        }) & self.who;
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => mode & !self.who | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::FileMode;

    #[rstest]
    #[case("0644", 0o755, 0o644)]
    #[case("4755", 0o644, 0o4755)]
    #[case("600", 0o644, 0o600)]
    #[case("u+x", 0o644, 0o744)]
    #[case("+x", 0o644, 0o755)]
    #[case("a+X", 0o644, 0o644)]
    #[case("a+X", 0o744, 0o755)]
    #[case("u=rw,go-w", 0o777, 0o655)]
    #[case("u=rw,go=", 0o4777, 0o600)]
    #[case("go-rwx", 0o755, 0o700)]
    #[case("u+s", 0o755, 0o4755)]
    #[case("g+s-x", 0o755, 0o2745)]
    #[case("+t", 0o755, 0o1755)]
    fn does_as_chmod_does(#[case] said: &str, #[case] before: u32, #[case] after: u32) {
        assert_eq!(FileMode::parse(said).map(|mode| mode.apply(before)), Some(after));
    }

    #[rstest]
    fn refuses(#[values("", "rwx", "0888", "77777", "u+q", "x=r", "u+x,", "0o644", "-rw-r--r--x ")] said: &str) {
        assert_eq!(FileMode::parse(said), None);
    }
}
