//! Users and groups of a system whose /etc and /usr are replaced from outside: their numbers have to stay, since
//! files in /var keep them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Numbers that Debian's packages give to system users and groups (Debian Policy, 9.2.2): 100 to 999. Those below
/// are the same everywhere.
const GIVEN_OUT: std::ops::RangeInclusive<u32> = 100..=999;

/// A line of passwd(5) or group(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// All fields.
    fields: Vec<String>,
}

impl Account {
    fn number_at(&self, field: usize) -> Option<u32> {
        self.fields.get(field)?.parse().ok()
    }

    /// Its number: of a user's line or a group's.
    pub fn number(&self) -> Option<u32> {
        self.number_at(2)
    }

    /// The group of a user's line.
    fn group(&self) -> Option<u32> {
        self.number_at(3)
    }
}

/// The lines of `passwd` or `group`.
pub fn parse(text: &str) -> Vec<Account> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '+', '-']));
    lines
        .map(|line| {
            let fields: Vec<String> = line.split(':').map(str::to_owned).collect();
            Account { name: fields[0].clone(), fields }
        })
        .collect()
}

/// What becomes of numbers: old to new.
pub type Renumbering = BTreeMap<u32, u32>;

/// How `now` is to be renumbered so that every name that `before` has keeps its number there. Names that are new
/// keep theirs, unless it is taken; then they get a free one.
pub fn renumbering(before: &[Account], now: &[Account]) -> Renumbering {
    let old: BTreeMap<&str, u32> = before.iter().filter_map(|it| Some((it.name.as_str(), it.number()?))).collect();
    let mut taken: BTreeSet<u32> = old.values().copied().collect();
    let mut changes = Renumbering::new();
    for account in now {
        let (Some(number), Some(known)) = (account.number(), old.get(account.name.as_str())) else { continue };
        if number != *known {
            changes.insert(number, *known);
        }
    }
    for account in now.iter().filter(|account| !old.contains_key(account.name.as_str())) {
        let Some(number) = account.number().filter(|number| GIVEN_OUT.contains(number)) else { continue };
        if taken.insert(number) {
            continue;
        }
        let used = |number: &u32| taken.contains(number) || now.iter().any(|other| other.number() == Some(*number));
        if let Some(free) = GIVEN_OUT.rev().find(|number| !used(number)) {
            taken.insert(free);
            changes.insert(number, free);
        }
    }
    changes
}

/// Names that cannot get their old numbers back, because a name that is not a system user's has it now: both
/// names and the number.
pub fn conflicts(changes: &Renumbering, now: &[Account]) -> Vec<(String, String, u32)> {
    let holder = |number: u32| now.iter().find(|account| account.number() == Some(number));
    changes
        .iter()
        .filter_map(|(from, to)| {
            let (wants, has) = (holder(*from)?, holder(*to)?);
            (!changes.contains_key(to)).then(|| (wants.name.clone(), has.name.clone(), *to))
        })
        .collect()
}

/// `passwd` with other numbers.
pub fn renumber_passwd(text: &str, users: &Renumbering, groups: &Renumbering) -> String {
    renumber(text, &[(2, users), (3, groups)])
}

/// `group` with other numbers.
pub fn renumber_group(text: &str, groups: &Renumbering) -> String {
    renumber(text, &[(2, groups)])
}

fn renumber(text: &str, changes: &[(usize, &Renumbering)]) -> String {
    text.lines().fold(String::new(), |all, line| {
        let mut fields: Vec<String> = line.split(':').map(str::to_owned).collect();
        for (field, changes) in changes {
            let Some(text) = fields.get_mut(*field) else { continue };
            if let Some(number) = text.parse().ok().and_then(|number: u32| changes.get(&number)) {
                *text = number.to_string();
            }
        }
        all + &fields.join(":") + "\n"
    })
}

/// sysusers.d(5) for all users and groups, with their numbers: files of the system may be theirs.
pub fn sysusers(passwd: &str, group: &str) -> String {
    let (users, groups) = (parse(passwd), parse(group));
    let mut text = String::from("# The numbers that this system's users and groups have.\n");
    for account in &groups {
        let Some(number) = account.number() else { continue };
        writeln!(text, "g {} {number}", account.name).unwrap_or_default();
    }
    for account in &users {
        let (Some(user), Some(group)) = (account.number(), account.group()) else { continue };
        let field = |index: usize| account.fields.get(index).map(String::as_str).filter(|field| !field.is_empty());
        let comment = field(4).map_or("-".to_owned(), |text| format!("\"{}\"", text.replace('"', "'")));
        let (home, shell) = (field(5).unwrap_or("-"), field(6).unwrap_or("-"));
        writeln!(text, "u {} {user}:{group} {comment} {home} {shell}", account.name).unwrap_or_default();
    }
    for account in &groups {
        let members = account.fields.get(3).map(String::as_str).unwrap_or_default();
        for member in members.split(',').filter(|member| !member.is_empty()) {
            if users.iter().any(|user| user.name == member) {
                writeln!(text, "m {member} {}", account.name).unwrap_or_default();
            }
        }
    }
    text
}

/// A package's sysusers.d(5) without lines for users and groups that `passwd` and `group` have: [`sysusers`] has them
/// with their numbers, and systemd would complain of each. `None` where there are none.
pub fn without_known(text: &str, passwd: &str, group: &str) -> Option<String> {
    let (users, groups) = (parse(passwd), parse(group));
    let is_known = |line: &str| {
        let mut words = line.split_whitespace();
        let (kind, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().trim_matches('"'));
        let among = |accounts: &[Account]| accounts.iter().any(|account| account.name == name);
        match kind {
            "u" | "u!" => among(&users),
            "g" => among(&groups),
            _ => false,
        }
    };
    if !text.lines().any(is_known) {
        return None;
    }
    let lines = text
        .lines()
        .map(|line| if is_known(line) { format!("# In 00-image.conf: {line}\n") } else { format!("{line}\n") });
    Some(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str =
        "root:x:0:0::/root:/bin/bash\nmessagebus:x:100:101::/:/bin/false\nsshd:x:101:65534::/:/bin/false\n";
    const NOW: &str = "root:x:0:0::/root:/bin/bash\nsshd:x:100:65534::/:/bin/false\nnew:x:101:1::/:/bin/false\n\
                       messagebus:x:102:102:System bus:/:/bin/false\nme:x:1000:1000::/home/me:/bin/sh\n";

    #[test]
    fn names_keep_the_numbers_that_they_had() {
        let changes = renumbering(&parse(BEFORE), &parse(NOW));
        assert_eq!(changes, Renumbering::from([(100, 101), (101, 999), (102, 100)]));
        assert!(conflicts(&changes, &parse(NOW)).is_empty());
        let text = renumber_passwd(NOW, &changes, &Renumbering::from([(102, 101)]));
        assert!(text.contains("\nsshd:x:101:65534:"), "{text}");
        assert!(text.contains("\nnew:x:999:1:"), "{text}");
        assert!(text.contains("\nmessagebus:x:100:101:System bus:"), "{text}");
        assert!(text.contains("\nme:x:1000:1000:"), "{text}");
    }

    #[test]
    fn a_number_that_somebody_else_has_for_good_is_a_conflict() {
        let now = parse("a:x:100:1::/:/\nfixed:x:50:1::/:/\n");
        let changes = renumbering(&parse("a:x:50:1::/:/\n"), &now);
        assert_eq!(conflicts(&changes, &now), [("a".to_owned(), "fixed".to_owned(), 50)]);
    }

    #[test]
    fn sysusers_has_all_users_groups_and_members() {
        let text = sysusers(NOW, "root:x:0:\nssl-cert:x:105:sshd,me\nme:x:1000:\n");
        assert_eq!(
            text.lines().skip(1).collect::<Vec<_>>(),
            [
                "g root 0",
                "g ssl-cert 105",
                "g me 1000",
                "u root 0:0 - /root /bin/bash",
                "u sshd 100:65534 - / /bin/false",
                "u new 101:1 - / /bin/false",
                "u messagebus 102:102 \"System bus\" / /bin/false",
                "u me 1000:1000 - /home/me /bin/sh",
                "m sshd ssl-cert",
                "m me ssl-cert",
            ]
        );
    }

    #[test]
    fn packages_lines_of_known_accounts_are_left_out() {
        let text = "# x\nu! root 0 \"Super User\"\ng input -\nu other -\nm root input\nr - 1-2";
        assert_eq!(
            without_known(text, "root:x:0:0::/root:/bin/sh\n", "input:x:5:\n").unwrap(),
            "# x\n# In 00-image.conf: u! root 0 \"Super User\"\n# In 00-image.conf: g input -\nu other -\nm root input\nr - 1-2\n"
        );
        assert_eq!(without_known(text, "", ""), None);
    }
}
