//! The kernel command line that boot loaders are given.

use super::site::Options;
use crate::build::image;
use crate::image::Spec;

/// Where a system keeps it, for kernels to come (kernel-install(8)).
pub const FILE: &str = "/etc/kernel/cmdline";

/// Bits per second where a serial console says none.
const SPEED: &str = "115200";

/// The words, where the system has `file` so far: told another root or none, it gets the layout's.
pub fn words(spec: &Spec, slot: Option<&str>, file: &str, options: &Options) -> Vec<String> {
    let mut words = image::split(options.kernel_cmdline.as_deref().unwrap_or(file));
    if !words.iter().any(|word| word.starts_with("root=")) {
        let known: Vec<String> = image::root_words(spec, slot, None);
        words.splice(0..0, known);
    }
    let append = image::split(options.append.as_deref().unwrap_or_default());
    for word in append.into_iter().chain(consoles(options.console.as_deref())) {
        // Twice the same console is one too many for the kernel; and a build that is changed adds to
        // what it wrote before.
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words
}

/// The kernel's consoles: the screen, and then the one that `/dev/console` is.
fn consoles(console: Option<&str>) -> Vec<String> {
    let Some(console) = console else { return Vec::new() };
    let serial = console.starts_with("tty") && !console.starts_with("tty0") && !console.contains(',');
    let full = if serial { format!("{console},{SPEED}") } else { console.to_owned() };
    vec!["console=tty0".into(), format!("console={full}")]
}

/// What `root=` says, the last where there are several.
pub fn root(words: &[String]) -> Option<&str> {
    words.iter().rev().find_map(|word| word.strip_prefix("root="))
}

/// All words but `root=`.
pub fn without_root(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).filter(|word| !word.starts_with("root=")).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::consoles;

    #[rstest]
    #[case("ttyS0", "console=ttyS0,115200")]
    #[case("ttyAMA0,57600n8", "console=ttyAMA0,57600n8")]
    #[case("hvc0", "console=hvc0")]
    fn a_console_has_its_speed(#[case] console: &str, #[case] word: &str) {
        assert_eq!(consoles(Some(console)), ["console=tty0", word]);
    }
}
