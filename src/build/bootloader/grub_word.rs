//! Words of the kernel command line in GRUB's script language. What writes grub.cfg on atomic systems
//! (`ostree/grub_generator.sh`) goes by the same rules, and a test holds both against each other.

use anyhow::Result;

use crate::diagnostics::Fault;

/// Characters that mean themselves in GRUB's language, anywhere in a word.
const PLAIN: &str = "-_./:=,+@%^";

/// A word of GRUB's script language.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What stands for a word of the kernel command line in grub.cfg.
///
/// GRUB puts quotes around a word with a space and a backslash before each quote and backslash but that of `\x2d`
/// (`grub_create_loader_cmdline`), and the kernel takes quotes away that stand around a word or around its value
/// (`next_arg`). So quotes are left to GRUB.
///
/// # Errors
/// Where the kernel would be given another word.
pub fn kernel_word(word: &str) -> Result<String> {
    let bare = match word.split_once('=') {
        _ if in_quotes(word) => word[1..word.len() - 1].to_owned(),
        Some((name, value)) if in_quotes(value) => format!("{name}={}", &value[1..value.len() - 1]),
        _ => word.to_owned(),
    };
    if let Some(spoiled) = spoiled(&bare) {
        let reason = match spoiled {
            '\'' | '"' | '\\' => "GRUB puts a backslash before it",
            _ => "it would end the word",
        };
        return Err(Fault::recipe(format!("GRUB cannot give the kernel the argument `{word}`"))
            .hint(format!("{spoiled:?} is the reason: {reason}; a value with spaces is written `name=\"a b\"`"))
            .into());
    }
    let plain = bare.chars().all(|c| c.is_ascii_alphanumeric() || PLAIN.contains(c));
    Ok(if plain && !bare.is_empty() { bare } else { quoted(&bare) })
}

/// Whether quotes are around it, and none is in it.
fn in_quotes(text: &str) -> bool {
    text.len() > 1
        && text.starts_with('"')
        && text.find('"').and_then(|at| text[at + 1..].find('"')) == Some(text.len() - 2)
}

/// A character that does not reach the kernel as it is.
fn spoiled(bare: &str) -> Option<char> {
    let code = |rest: &str| {
        rest.strip_prefix('x')
            .is_some_and(|rest| rest.len() > 1 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()))
    };
    bare.char_indices().find_map(|(at, c)| match c {
        '\\' if code(&bare[at + 1..]) => None,
        '\\' | '\'' | '"' => Some(c),
        c if c.is_ascii_control() => Some(c),
        _ => None,
    })
}

#[cfg(test)]
#[allow(missing_docs)]
pub mod tests {
    use super::*;

    /// Words, and what stands for them in grub.cfg; `None` where they are refused.
    pub const WORDS: &[(&str, Option<&str>)] = &[
        ("root=UUID=1f2e-3d", Some("root=UUID=1f2e-3d")),
        ("console=ttyS0,115200n8", Some("console=ttyS0,115200n8")),
        ("rd.luks.name=1;2", Some("'rd.luks.name=1;2'")),
        ("a=$b", Some("'a=$b'")),
        ("a={b}", Some("'a={b}'")),
        ("a=*", Some("'a=*'")),
        ("a=b&c|d<e>f#g", Some("'a=b&c|d<e>f#g'")),
        ("#", Some("'#'")),
        ("dyndbg=\"file a.c +p; file b.c +p\"", Some("'dyndbg=file a.c +p; file b.c +p'")),
        ("\"a=b c\"", Some("'a=b c'")),
        ("a=\"\"", Some("a=")),
        ("a=\"b\"", Some("a=b")),
        (r"systemd.unit=a\x2db.service", Some(r"'systemd.unit=a\x2db.service'")),
        (r"a=\n", None),
        (r"a=\x", None),
        ("a=it's", None),
        ("a=b\"c d\"", None),
        ("a=\"b\"\"c\"", None),
    ];

    #[test]
    fn kernel_arguments_reach_the_kernel_as_they_are_or_are_refused() {
        for (word, written) in WORDS {
            assert_eq!(kernel_word(word).ok().as_deref(), *written, "{word}");
        }
    }

    #[test]
    fn paths_are_words_of_grubs_language() {
        assert_eq!(quoted("/it's"), r"'/it'\''s'");
    }
}
