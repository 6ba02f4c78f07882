//! What apt's complaints mean, and the ways out.

use crate::diagnostics::{Fault, FaultKind, suggest};

/// Lines of output that a fault shows.
const TAIL: usize = 20;

/// The fault for apt's output. `names` are the packages that the lists have, asked only where it helps.
pub(super) fn explain(message: &str, output: &[String], names: impl FnOnce() -> Vec<String>) -> Fault {
    let errors: Vec<&String> = output.iter().filter(|line| line.starts_with("E: ")).collect();
    let tail = if errors.is_empty() || errors.iter().any(|line| line.contains("dpkg")) {
        output.iter().rev().take(TAIL).rev().cloned().collect()
    } else {
        // What lies before is the list of unmet dependencies, where there is one.
        let first = output.iter().position(|line| line.starts_with("The following packages have unmet"));
        output[first.unwrap_or(output.len())..]
            .iter()
            .filter(|line| !line.starts_with("E: "))
            .chain(errors.iter().copied())
            .cloned()
            .collect()
    };
    let mut fault = Fault::new(FaultKind::Failed, message).tail(tail);
    let mut known = None;
    let mut names = Some(names);
    for line in output {
        if let Some(package) = missing(line) {
            let known = known.get_or_insert_with(|| names.take().map(|names| names()).unwrap_or_default());
            let names = known.iter().map(String::as_str);
            fault.hints.push(match suggest(package, names) {
                Some(close) if close == package => {
                    format!("a repository has `{package}`, but no version that the pins and the root's packages allow")
                }
                Some(close) => format!("no repository of the root has `{package}`; did you mean `{close}`?"),
                None => format!("no repository of the root has `{package}`"),
            });
        }
        let hint = hint(line);
        fault.hints.extend(hint.filter(|hint| !fault.hints.contains(hint)));
    }
    fault
}

/// The package that a line says is not there.
fn missing(line: &str) -> Option<&str> {
    line.strip_prefix("E: Unable to locate package ").or_else(|| {
        line.strip_prefix("E: Package '").and_then(|rest| rest.strip_suffix("' has no installation candidate"))
    })
}

fn hint(line: &str) -> Option<String> {
    if let Some(rest) = line.strip_prefix("dpkg: error processing ") {
        let package = rest.trim_start_matches("package ").trim_start_matches("archive ");
        let package = package.split_whitespace().next()?;
        return Some(format!("it is the package `{package}` that failed; what it said stands above"));
    }
    if line.contains("No space left on device") {
        return Some("the disk is full: make room, or let `debforge store prune` do it".to_owned());
    }
    if line.starts_with("E: Unable to correct problems, you have held broken packages") {
        return Some(
            "the packages do not fit together in these suites: see the dependencies above, and the pins".into(),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn suggests_a_package_of_the_lists() {
        let output = lines("Reading package lists...\nE: Unable to locate package openssh-sever");
        let fault = explain("apt failed", &output, || vec!["openssh-server".into(), "bash".into()]);
        assert_eq!(fault.tail, ["E: Unable to locate package openssh-sever"]);
        assert_eq!(fault.hints, ["no repository of the root has `openssh-sever`; did you mean `openssh-server`?"]);
    }

    #[test]
    fn shows_unmet_dependencies() {
        let output = lines(
            "Building\nThe following packages have unmet dependencies:\n a : Depends: b\nE: Unable to correct problems, you have held broken packages.",
        );
        let fault = explain("apt failed", &output, Vec::new);
        assert_eq!(fault.tail.len(), 3);
        assert!(fault.hints[0].contains("do not fit together"));
    }

    #[test]
    fn names_the_package_whose_script_failed() {
        let output = lines(
            "boom\ndpkg: error processing package frob (--configure):\n installed frob package post-installation script subprocess returned error exit status 1\nE: Sub-process /usr/bin/dpkg returned an error code (1)",
        );
        let fault = explain("apt failed", &output, Vec::new);
        assert_eq!(fault.tail[0], "boom");
        assert_eq!(fault.hints, ["it is the package `frob` that failed; what it said stands above"]);
    }
}
