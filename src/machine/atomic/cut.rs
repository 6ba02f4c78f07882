//! Power cuts in the middle of an update: what starts afterwards is the old system or the new one, whole.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::stages::Outcome;
use super::test::{Checks, Test};

/// When the power goes, in parts of the time that an update takes.
const MOMENTS: [f64; 5] = [0.2, 0.45, 0.65, 0.8, 0.95];

/// How the system is updated here.
const UPDATE: &str = "ostree admin upgrade";

/// Measures an update, then cuts the power in the middle of others. QEMU is killed: what the system has not written
/// out is lost, which its file system and OSTree have to live with.
pub(super) fn power_cuts(test: &mut Test) -> Result<Outcome> {
    // What would start if nothing happened any more.
    let mut standing = next(test, "power")?;
    let started = Instant::now();
    test.system.output(UPDATE)?;
    let whole = started.elapsed();
    let (mut old, mut new) = (0, 0);
    for (index, moment) in MOMENTS.into_iter().enumerate() {
        let commit = next(test, &format!("power-cut-{}", index + 1))?;
        let after = whole.mul_f64(moment);
        test.system.cut_during(UPDATE, after)?;
        // What the boot loader would start is looked at from here; going through it each time would take twice as long.
        test.system.start(true)?;
        let booted = test.deployments()?.into_iter().find(|deployment| deployment.booted).map(|found| found.commit);
        let booted = booted.unwrap_or_default();
        let known = [&standing, &commit].contains(&&booted);
        let mut checks = Checks::default();
        let what = format!("after a cut at {}, what runs is the old commit or the new", shown(after));
        checks.holds(&what, known, &booted);
        test.finish(checks)?;
        test.inspect(&booted)?;
        if booted == commit {
            new += 1
        } else {
            old += 1
        }
        standing = booted;
    }
    // Reads every object. Once is enough: what a cut damaged is still there.
    test.system.output("ostree fsck --quiet")?;
    Ok(Outcome::Passed(format!("an update takes {}; then ran {old} times the old, {new} times the new", shown(whole))))
}

/// Makes an update with another kernel than that which runs, where there are two; its commit.
fn next(test: &mut Test, name: &str) -> Result<String> {
    let running = test.kernel(&test.booted)?;
    let (one, other) = (test.origin.commit.clone(), test.to.0.clone());
    let from = if test.kernel(&other)? == running { one } else { other };
    let branch = test.branch.clone();
    test.updates.derive(&from, &branch, name, true)
}

fn shown(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
