//! What apt's complaints mean, and the ways out.

use std::collections::{HashMap, VecDeque};

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
            if let Some((name, architecture)) = foreign(package) {
                fault.hints.push(format!(
                    "`{name}` for {architecture} can be had where the root is for {architecture}, too: by `architectures` of `mmdebstrap`, or before this action a `run` with `chroot: true` and `dpkg --add-architecture {architecture}`"
                ));
                continue;
            }
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

/// What apt says before it lists what does not fit together.
const UNMET: &str = "The following packages have unmet dependencies:";
/// How far what does not fit is followed.
const LONGEST_CHAIN: usize = 8;

/// What apt says of dependencies that cannot be met, down to their cause: of a package that "is not going to be
/// installed" it says why once it is asked for that, too. `ask` gives apt's output for `args`.
pub(super) fn chain(
    args: &[String],
    ask: &mut dyn FnMut(&[String]) -> anyhow::Result<Vec<String>>,
) -> anyhow::Result<Vec<String>> {
    let (mut asked, mut chain) = (args.to_vec(), Vec::new());
    for _ in 0..LONGEST_CHAIN {
        let output = ask(&asked)?;
        let unmet: Vec<String> = unmet(&output).filter(|line| !chain.contains(*line)).cloned().collect();
        let mut further: Vec<String> = unmet.iter().filter_map(|line| left_out(line)).map(str::to_owned).collect();
        further.retain(|package| !asked.contains(package));
        chain.extend(unmet);
        if further.is_empty() {
            break;
        }
        asked.extend(further);
    }
    if !chain.is_empty() {
        chain.insert(0, UNMET.to_owned());
    }
    Ok(chain)
}

/// Why packages of apt's list are wanted at all: from what was asked for, by what each needs. `needs` gives
/// packages with the names of those that they need.
pub(super) fn wanted_for(asked: &[String], chain: &[String], needs: &[(String, Vec<String>)]) -> Vec<String> {
    let name = |word: &String| word.split(['/', '=', ':']).next().unwrap_or_default().to_owned();
    let asked: Vec<String> = asked.iter().map(name).collect();
    let mut heads: Vec<&str> = chain.iter().filter_map(|line| Some(line.split_once(" : ")?.0.trim())).collect();
    heads.dedup();
    let mut by_name: HashMap<&str, Vec<&String>> = HashMap::new();
    for (name, needed) in needs {
        by_name.entry(name).or_default().extend(needed);
    }
    let mut before: HashMap<&str, &str> = HashMap::new();
    let mut queue: VecDeque<&str> = asked.iter().map(String::as_str).collect();
    while let Some(package) = queue.pop_front() {
        for needed in by_name.get(package).into_iter().flatten().filter(|needed| !asked.contains(needed)) {
            before.entry(needed).or_insert_with(|| {
                queue.push_back(needed);
                package
            });
        }
    }
    let path = |head: &str| {
        let mut path = vec![head.to_owned()];
        let mut at = head;
        while let Some(above) = before.get(at) {
            path.push((*above).to_owned());
            at = above;
        }
        path.reverse();
        (path.len() > 1).then(|| path.join(" → "))
    };
    heads.into_iter().map(|head| head.split(':').next().unwrap_or(head)).filter_map(path).collect()
}

/// The lines of apt's list.
fn unmet(output: &[String]) -> impl Iterator<Item = &String> {
    let list = output.iter().skip_while(|line| !line.starts_with(UNMET)).skip(1);
    list.take_while(|line| line.starts_with(' '))
}

/// The package that another depends on and that is not chosen, for a reason that is not said.
fn left_out(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("Depends: ")?;
    rest.split_once(" but it is not going to be installed")?.0.split_whitespace().next()
}

/// Name and architecture of a package that is asked for with one. apt finds it by them, where the root is for that.
fn foreign(package: &str) -> Option<(&str, &str)> {
    let (name, architecture) = package.split_once(':')?;
    (!matches!(architecture, "any" | "native" | "all")).then_some((name, architecture))
}

/// Packages that the output says are not there.
pub(super) fn missing_packages(output: &[String]) -> Vec<&str> {
    output.iter().filter_map(|line| missing(line)).filter(|package| foreign(package).is_none()).collect()
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
    if line.contains("start-stop-daemon.debforge") {
        return Some(
            "while packages are installed start-stop-daemon is diverted, so that no daemon starts: have a `run` with `chroot: true` divert it, before or after"
                .to_owned(),
        );
    }
    if line.contains("MODULES dep requires") || line.contains("workaround is MODULES=most") {
        return Some(
            "`MODULES=dep` takes the drivers of the machine that it runs on, which no build shows: `MODULES=most`, or `MODULES=list` with the drivers in /etc/initramfs-tools/modules"
                .to_owned(),
        );
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
    fn a_package_of_another_architecture_says_how_that_is_added() {
        let output = lines("E: Unable to locate package libc6:i386\nE: Unable to locate package foo:any");
        let fault = explain("apt failed", &output, || vec!["libc6-i386".into()]);
        assert!(fault.hints[0].contains("dpkg --add-architecture i386"), "{:?}", fault.hints);
        assert!(fault.hints[1].starts_with("no repository of the root has `foo:any`"), "{:?}", fault.hints);
    }

    #[test]
    fn an_initramfs_for_the_machine_that_builds_is_refused_with_the_way_out() {
        let output = lines(
            "mkinitramfs: MODULES dep requires mounted sysfs on /sys\nE: Sub-process /usr/bin/dpkg returned an error code (1)",
        );
        let fault = explain("apt failed", &output, Vec::new);
        assert!(fault.hints[0].contains("`MODULES=most`"), "{:?}", fault.hints);
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
    fn follows_what_does_not_fit_to_its_cause() {
        let mut questions = Vec::new();
        let found = chain(&["install".into(), "a".into()], &mut |args| {
            questions.push(args.join(" "));
            Ok(lines(match args.len() {
                2 => "The following packages have unmet dependencies:\n a : Depends: b but it is not going to be installed\nE: broken",
                _ => "The following packages have unmet dependencies:\n b : PreDepends: c (>= 2) but 1 is to be installed\nE: broken",
            }))
        })
        .unwrap();
        assert_eq!(questions, ["install a", "install a b"]);
        assert_eq!(found.len(), 3);
        assert!(found[2].contains("c (>= 2) but 1"));
    }

    #[test]
    fn says_by_what_a_package_is_wanted() {
        let needs = [("a", "b x"), ("b", "c"), ("x", "c")];
        let needs = needs.map(|(name, needed)| (name.to_owned(), needed.split(' ').map(str::to_owned).collect()));
        let chain =
            lines("The following packages have unmet dependencies:\n c:amd64 : Depends: d (>= 2)\n a : Depends: z");
        assert_eq!(wanted_for(&["install".into(), "a=1".into()], &chain, &needs), ["a → b → c"]);
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
