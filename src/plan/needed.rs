//! Which steps are to be run, which are taken from the store, and which nobody needs.

use crate::actions::Changes;

/// What becomes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// It is run, unless it turns out to be a hit when it is reached.
    Run,
    /// Its result is taken from the store.
    Restore,
    /// Its result is not in the store, and nothing wants it.
    Skip,
}

/// The course of each step, from what it changes and whether the store has it.
///
/// Artifacts are always wanted, and so is the root after the last step that makes one. The root in
/// between is wanted only by steps that are run.
pub fn courses(steps: &[(Changes, bool)]) -> Vec<Course> {
    let mut wanted = steps.last().is_none_or(|(changes, _)| !changes.artifacts || changes.root);
    let mut courses: Vec<Course> = steps
        .iter()
        .rev()
        .map(|(changes, hit)| match (hit, changes.artifacts || wanted) {
            (true, _) => Course::Restore,
            (false, true) => {
                wanted = true;
                Course::Run
            }
            (false, false) => Course::Skip,
        })
        .collect();
    courses.reverse();
    courses
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Changes = Changes { root: true, artifacts: false, origin: false };
    const PACK: Changes = Changes { root: false, artifacts: true, origin: false };

    #[test]
    fn layers_that_only_a_cached_artifact_came_from_are_not_made_again() {
        assert_eq!(
            courses(&[(ROOT, false), (ROOT, true), (PACK, true)]),
            [Course::Skip, Course::Restore, Course::Restore]
        );
    }

    #[test]
    fn a_step_that_runs_wants_the_whole_root_below_it() {
        assert_eq!(courses(&[(ROOT, false), (ROOT, true), (PACK, false)]), [Course::Run, Course::Restore, Course::Run]);
    }

    #[test]
    fn a_root_that_nothing_packs_is_the_result() {
        assert_eq!(courses(&[(PACK, true), (ROOT, false)]), [Course::Restore, Course::Run]);
    }
}
