//! What `ostree admin status` says of a system's deployments.

/// A deployment, as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deployment {
    /// The commit's checksum.
    pub(super) commit: String,
    /// Whether it is the one that runs.
    pub(super) booted: bool,
    /// `pending`, `staged`, `rollback`, or nothing.
    pub(super) state: String,
    /// What it follows: `origin:debian/trixie`.
    pub(super) refspec: String,
}

/// Reads the list, in the order of the boot menu.
pub(super) fn parse(text: &str) -> Vec<Deployment> {
    let mut all: Vec<Deployment> = Vec::new();
    for line in text.lines() {
        if let Some(refspec) = line.trim().strip_prefix("origin refspec: ") {
            if let Some(last) = all.last_mut() {
                last.refspec = refspec.to_owned();
            }
            continue;
        }
        let (booted, rest) = match (line.strip_prefix("* "), line.strip_prefix("  ")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            _ => continue,
        };
        let mut words = rest.split(' ');
        let (Some(os), Some(name)) = (words.next(), words.next()) else { continue };
        let Some((commit, serial)) = name.split_once('.') else { continue };
        if os.is_empty() || !crate::ostree::repository::is_checksum(commit) || serial.parse::<u32>().is_err() {
            continue;
        }
        let state = words.next().unwrap_or_default().trim_matches(['(', ')']).to_owned();
        all.push(Deployment { commit: commit.to_owned(), booted, state, refspec: String::new() });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployments_are_listed_with_their_state() {
        let (one, two) = ("ab".repeat(32), "cd".repeat(32));
        let text = format!(
            "  debian {one}.0 (pending)\n    Version: 2\n    origin refspec: origin:debian/trixie\n\
             * debian {two}.1\n    Version: 1\n    origin refspec: origin:debian/trixie\n    GPG: Good signature\n"
        );
        let found = parse(&text);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].commit.as_str(), found[0].booted, found[0].state.as_str()), (&*one, false, "pending"));
        assert_eq!((found[1].commit.as_str(), found[1].booted, found[1].state.as_str()), (&*two, true, ""));
        assert_eq!(found[1].refspec, "origin:debian/trixie");
        assert!(parse("No deployments.\n").is_empty());
    }
}
