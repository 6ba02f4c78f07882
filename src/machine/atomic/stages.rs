//! The stages of a test: a table of what is done to the system, and of what has to hold afterwards.

use anyhow::Result;

use super::cut;
use super::test::{Checks, Test};
use super::updates::mark;
use crate::diagnostics::size_shown;

/// One stage. It finds the system running and leaves it so.
pub struct Stage {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it does.
    pub title: &'static str,
    /// Stages that have to be run before it.
    pub needs: &'static [&'static str],
    run: fn(&mut Test) -> Result<Outcome>,
}

/// How a stage ended that has not failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All held; a few words on it.
    Passed(String),
    /// It could not be tried, and why.
    Skipped(String),
}

impl Stage {
    /// Runs it.
    pub fn run(&self, test: &mut Test) -> Result<Outcome> {
        test.system.note(&format!("stage {}: {}", self.name, self.title));
        (self.run)(test)
    }
}

/// All stages in their order.
pub const STAGES: [Stage; 8] = [
    Stage { name: "boot", title: "the image starts", needs: &[], run: boot },
    Stage { name: "update", title: "edit /etc, mark /var, update, restart", needs: &["boot"], run: update },
    Stage { name: "rollback", title: "roll back, restart", needs: &["boot", "update"], run: rollback },
    Stage { name: "same-kernel", title: "staged update, same kernel", needs: &["boot"], run: same_kernel },
    Stage { name: "unsigned", title: "refuse an unsigned commit", needs: &["boot"], run: unsigned },
    Stage { name: "rebase", title: "follow another branch, restart", needs: &["boot"], run: rebase },
    Stage { name: "power-cut", title: "lose power in an update, 5 times", needs: &["boot"], run: cut::power_cuts },
    Stage { name: "fsck", title: "check repository and file system", needs: &["boot"], run: fsck },
];

/// The stages with these names and those that they need; all where none is named.
pub fn chosen(names: &[String]) -> Vec<&'static Stage> {
    static ALL: [Stage; STAGES.len()] = STAGES;
    let wanted = |stage: &Stage| {
        let asked = |name: &str| names.iter().any(|wanted| wanted == name);
        let needed = ALL.iter().any(|other| asked(other.name) && other.needs.contains(&stage.name));
        names.is_empty() || asked(stage.name) || needed
    };
    ALL.iter().filter(|stage| wanted(stage)).collect()
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

fn boot(test: &mut Test) -> Result<Outcome> {
    let commit = test.origin.commit.clone();
    let kernel = test.boot(&commit, false)?;
    test.connect()?;
    Ok(Outcome::Passed(format!("{}, Linux {kernel}", short(&commit))))
}

fn update(test: &mut Test) -> Result<Outcome> {
    let (commit, branch) = test.to.clone();
    if commit == test.origin.commit {
        return Ok(Outcome::Skipped("both recipes make the same commit".into()));
    }
    test.edit()?;
    test.updates.lead(&branch, &commit)?;
    let before = test.fetched();
    if branch == test.branch {
        test.system.output("ostree admin upgrade")?;
    } else {
        // Its commit says which branch it belongs to.
        test.system.output(&format!("ostree admin switch {}:{branch}", test.origin.remote))?;
        test.branch.clone_from(&branch);
    }
    let (files, bytes) = test.fetched();
    let kernel = test.reboot(&commit)?;
    let changed = test.check_difference(true)?;
    check_rollback_listed(test)?;
    let fetched = format!("{} files, {} fetched", files - before.0, size_shown(bytes - before.1));
    let same = if test.difference.kernel { "" } else { " (the same)" };
    Ok(Outcome::Passed(format!("{}, Linux {kernel}{same}; {fetched}; seen {changed}", short(&commit))))
}

fn check_rollback_listed(test: &mut Test) -> Result<()> {
    let deployments = test.deployments()?;
    let mut checks = Checks::default();
    let listed = deployments.iter().any(|other| !other.booted && other.commit == test.origin.commit);
    checks.holds("the deployment before the update is listed", listed, &format!("{deployments:?}"));
    test.finish(checks)
}

fn rollback(test: &mut Test) -> Result<Outcome> {
    let commit = test.origin.commit.clone();
    if test.booted == commit {
        return Ok(Outcome::Skipped("there was no update".into()));
    }
    test.system.output("debforge-rollback")?;
    let kernel = test.reboot(&commit)?;
    test.check_difference(false)?;
    // What is followed stays with each deployment.
    test.branch = test.origin.branch.clone();
    test.system.output("ostree fsck --quiet")?;
    Ok(Outcome::Passed(format!("{}, Linux {kernel}", short(&commit))))
}

fn same_kernel(test: &mut Test) -> Result<Outcome> {
    let (from, branch) = (test.booted.clone(), test.branch.clone());
    let commit = test.updates.derive(&from, &branch, "same-kernel", true)?;
    test.system.output("ostree admin upgrade --stage")?;
    test.reboot(&commit)?;
    test.system.output(&format!("cat {}", mark("same-kernel").display()))?;
    Ok(Outcome::Passed(short(&commit).to_owned()))
}

fn unsigned(test: &mut Test) -> Result<Outcome> {
    if !test.origin.verified {
        return Ok(Outcome::Skipped("the system takes unsigned commits: `gpg-keys` of `ostree-deploy`".into()));
    }
    let (from, branch) = (test.booted.clone(), test.branch.clone());
    test.updates.derive(&from, &branch, "unsigned", false)?;
    let before = test.deployments()?;
    let answer = test.system.run("ostree admin upgrade")?;
    let mut checks = Checks::default();
    let said = answer.output.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned();
    checks.holds("an unsigned commit is refused", answer.code != 0, &answer.output);
    let about = said.contains("GPG") || said.to_lowercase().contains("signature");
    checks.holds("it is refused for its signature", about, &said);
    let after = test.deployments()?;
    checks.holds("no deployment was made of it", before == after, &format!("{after:?}"));
    test.updates.lead(&branch, &from)?;
    test.finish(checks)?;
    // `error: Commit …: GPG verification enabled, but no signatures found (use …)`
    let said = said.rsplit(": ").next().unwrap_or_default();
    Ok(Outcome::Passed(said.split(" (").next().unwrap_or_default().to_owned()))
}

fn rebase(test: &mut Test) -> Result<Outcome> {
    let branch = "debforge/test/rebase";
    let to = test.to.0.clone();
    let commit = test.updates.derive(&to, branch, "rebase", true)?;
    let refspec = format!("{}:{branch}", test.origin.remote);
    test.system.output(&format!("ostree admin switch {refspec}"))?;
    let kernel = test.reboot(&commit)?;
    let deployments = test.deployments()?;
    let booted = deployments.iter().find(|deployment| deployment.booted);
    let mut checks = Checks::default();
    checks.equal("what is followed", &refspec, booted.map_or("", |deployment| &deployment.refspec));
    test.finish(checks)?;
    branch.clone_into(&mut test.branch);
    Ok(Outcome::Passed(format!("{}, Linux {kernel}", short(&commit))))
}

fn fsck(test: &mut Test) -> Result<Outcome> {
    test.system.output("ostree fsck --quiet")?;
    test.system.shut_down("poweroff")?;
    let faults = test.system.disk.faults()?;
    let mut checks = Checks::default();
    checks.holds("e2fsck finds nothing", faults.is_none(), &faults.unwrap_or_default());
    test.finish(checks)?;
    Ok(Outcome::Passed(String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_brings_those_that_it_needs() {
        let names = |wanted: &[&str]| -> Vec<&str> {
            chosen(&wanted.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).iter().map(|s| s.name).collect()
        };
        assert_eq!(names(&["rollback"]), ["boot", "update", "rollback"]);
        assert_eq!(names(&["unsigned"]), ["boot", "unsigned"]);
        assert_eq!(names(&[]).len(), STAGES.len());
    }

    #[test]
    fn needs_are_complete_and_come_before() {
        for (index, stage) in STAGES.iter().enumerate() {
            for need in stage.needs {
                let found = STAGES[..index].iter().find(|other| other.name == *need);
                let found = found.unwrap_or_else(|| panic!("{} needs {need}", stage.name));
                assert!(found.needs.iter().all(|need| stage.needs.contains(need)), "{}", stage.name);
            }
        }
    }
}
