//! POSIX ACLs: as the kernel keeps them in `system.posix_acl_access` and `system.posix_acl_default`
//! (linux/posix_acl_xattr.h), and as tar archives have them (acl(5), "long text form").

use std::fmt::Write as _;

/// The kernel's name of a file's ACL.
pub(super) const ACCESS: &str = "system.posix_acl_access";
/// The kernel's name of a directory's default ACL.
pub(super) const DEFAULT: &str = "system.posix_acl_default";

const VERSION: u32 = 2;
const NO_ID: u32 = u32::MAX;
const TAGS: [(u16, &str, bool); 6] = [
    (0x01, "user", false),
    (0x02, "user", true),
    (0x04, "group", false),
    (0x08, "group", true),
    (0x10, "mask", false),
    (0x20, "other", false),
];

/// Names to numbers, as the target has them.
pub(super) type Lookup<'a> = &'a dyn Fn(&str, Who) -> Option<u32>;

/// See [`Lookup`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    User,
    Group,
}

/// The text of an ACL, owners as numbers; `None` where the kernel's form is not one we know.
pub(super) fn to_text(value: &[u8]) -> Option<String> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || entries.len() % 8 != 0 {
        return None;
    }
    let mut text = String::new();
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let permissions = u16::from_le_bytes([entry[2], entry[3]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let (_, name, has_id) = TAGS.iter().find(|(known, ..)| *known == tag)?;
        if !text.is_empty() {
            text.push(',');
        }
        let _ = write!(text, "{name}:");
        if *has_id {
            let _ = write!(text, "{id}");
        }
        text.push(':');
        for (bit, letter) in [(4, 'r'), (2, 'w'), (1, 'x')] {
            text.push(if permissions & bit != 0 { letter } else { '-' });
        }
    }
    Some(text)
}

/// The kernel's form of a text; an error is the part that makes no sense.
pub(super) fn from_text<'t>(text: &'t str, lookup: Lookup<'_>) -> Result<Vec<u8>, &'t str> {
    let mut entries = Vec::new();
    for entry in text.split([',', '\n']).map(str::trim).filter(|entry| !entry.is_empty() && !entry.starts_with('#')) {
        entries.push(parse_entry(entry, lookup).ok_or(entry)?);
    }
    // The kernel wants them in the order of its tags.
    entries.sort_unstable();
    let mut value = VERSION.to_le_bytes().to_vec();
    for (tag, id, permissions) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    Ok(value)
}

/// `user:NAME:rwx`; star adds `:ID` where it knows the name's number.
fn parse_entry(entry: &str, lookup: Lookup<'_>) -> Option<(u16, u32, u16)> {
    let mut fields = entry.split(':');
    let (kind, name, letters) = (fields.next()?, fields.next()?, fields.next()?);
    let kind = match kind {
        "u" => "user",
        "g" => "group",
        "m" => "mask",
        "o" => "other",
        other => other,
    };
    let (tag, ..) = TAGS.iter().find(|(_, known, has_id)| *known == kind && *has_id != name.is_empty())?;
    let id = if name.is_empty() {
        NO_ID
    } else {
        let who = if kind == "user" { Who::User } else { Who::Group };
        let number = fields.next().unwrap_or(name).parse().ok();
        number.or_else(|| lookup(name, who))?
    };
    // Comments of effective rights may follow.
    let mut permissions = 0;
    for letter in letters.split_whitespace().next()?.chars() {
        permissions |= match letter {
            'r' => 4,
            'w' => 2,
            'x' => 1,
            '-' => 0,
            _ => return None,
        };
    }
    Some((*tag, id, permissions))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody(_: &str, _: Who) -> Option<u32> {
        None
    }

    #[test]
    fn text_and_kernel_form_are_the_same() {
        let text = "user::rwx,user:33:r-x,group::r-x,group:4:r--,mask::rwx,other::---";
        let value = from_text(text, &nobody).unwrap();
        assert_eq!(value.len(), 4 + 6 * 8);
        assert_eq!(to_text(&value).as_deref(), Some(text));
    }

    #[test]
    fn names_are_looked_up() {
        let lookup = |name: &str, who| (name == "www-data" && who == Who::User).then_some(33);
        let value = from_text("user::rw-\nuser:www-data:r--\ngroup::r--\nmask::r--\nother::r--\n", &lookup).unwrap();
        assert_eq!(to_text(&value).as_deref(), Some("user::rw-,user:33:r--,group::r--,mask::r--,other::r--"));
        assert_eq!(from_text("user:lisa:r--", &lookup), Err("user:lisa:r--"));
        assert!(from_text("user:lisa:r--:1000", &lookup).is_ok());
    }
}
