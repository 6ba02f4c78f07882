//! POSIX ACLs: from an extended attribute to the text of acl(5).

/// The attribute of a file's own ACL.
pub const ACCESS: &str = "system.posix_acl_access";

/// The attribute of the ACL that files in a directory begin with.
pub const DEFAULT: &str = "system.posix_acl_default";

/// Tags of entries (linux/posix_acl.h), and the words for them.
const TAGS: [(u16, &str); 6] = [(1, "u"), (2, "u"), (4, "g"), (8, "g"), (16, "m"), (32, "o")];

/// Entries as setfacl(1) takes them, users and groups by number: `u:33:rw-,g::r-x`. Each begins with `prefix`.
/// `None` where the attribute is of no version that is known (linux/posix_acl_xattr.h).
pub fn text(attribute: &[u8], prefix: &str) -> Option<String> {
    let entries = attribute.strip_prefix(&2_u32.to_le_bytes())?;
    let entries = entries.as_chunks::<8>();
    let texts = entries.0.iter().map(|entry| {
        let [tag, _, bits, _, number @ ..] = *entry;
        let (_, word) = TAGS.iter().find(|(known, _)| *known == u16::from(tag))?;
        let named = [2, 8].contains(&tag);
        let number = if named { u32::from_le_bytes(number).to_string() } else { String::new() };
        let bit = |mask: u8, letter: char| if bits & mask == 0 { '-' } else { letter };
        Some(format!("{prefix}{word}:{number}:{}{}{}", bit(4, 'r'), bit(2, 'w'), bit(1, 'x')))
    });
    entries.1.is_empty().then(|| texts.collect::<Option<Vec<_>>>()).flatten().map(|texts| texts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_words_with_numbers() {
        let entry = |tag: u8, bits: u8, number: u32| [&[tag, 0, bits, 0], number.to_le_bytes().as_slice()].concat();
        let all = [entry(1, 7, u32::MAX), entry(2, 6, 33), entry(4, 5, u32::MAX), entry(16, 7, 0), entry(32, 0, 0)];
        let attribute = [vec![2, 0, 0, 0], all.concat()].concat();
        assert_eq!(text(&attribute, "d:").unwrap(), "d:u::rwx,d:u:33:rw-,d:g::r-x,d:m::rwx,d:o::---");
        assert_eq!(text(&[3, 0, 0, 0], ""), None);
    }
}
