//! Which steps are to be run, which are taken from the store, and which nobody needs.

use crate::actions::Changes;

/// What becomes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// It is run, unless it turns out to be a hit when it is reached.
    Run,
    /// Its result is taken from the store.
    Restore,
    /// Its artifacts are taken from the store, and nothing wants the root that it left.
    RestoreArtifacts,
    /// Its result is not in the store, and nothing wants it.
    Skip,
}

/// What the store has of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Nothing of use.
    Nothing,
    /// What it did to the artifacts, but not the root that it left, as where there are no checkpoints.
    Artifacts,
    /// All of it.
    Whole,
}

/// The course of each step, from what it changes and what the store has of it.
///
/// Artifacts are always wanted, and so is the root after the last step that makes one. The root in
/// between is wanted only by steps that are run.
pub fn courses(steps: &[(Changes, Kept)]) -> Vec<Course> {
    let mut wanted = steps.last().is_none_or(|(changes, _)| !changes.artifacts || changes.root);
    let mut courses: Vec<Course> = steps
        .iter()
        .rev()
        .map(|(changes, kept)| match kept {
            Kept::Whole => Course::Restore,
            Kept::Artifacts if changes.artifacts && !wanted => Course::RestoreArtifacts,
            Kept::Nothing | Kept::Artifacts if changes.artifacts || wanted => {
                wanted = true;
                Course::Run
            }
            Kept::Nothing | Kept::Artifacts => Course::Skip,
        })
        .collect();
    courses.reverse();
    courses
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Changes = Changes { root: true, artifacts: false, origin: false, write: false };
    const PACK: Changes = Changes { root: false, artifacts: true, origin: false, write: false };
    const HOST_RUN: Changes = Changes { root: true, artifacts: true, origin: false, write: false };

    #[test]
    fn layers_that_only_a_cached_artifact_came_from_are_not_made_again() {
        assert_eq!(
            courses(&[(ROOT, Kept::Nothing), (ROOT, Kept::Whole), (PACK, Kept::Whole)]),
            [Course::Skip, Course::Restore, Course::Restore]
        );
    }

    #[test]
    fn a_step_that_runs_wants_the_whole_root_below_it() {
        assert_eq!(
            courses(&[(ROOT, Kept::Nothing), (ROOT, Kept::Whole), (PACK, Kept::Nothing)]),
            [Course::Run, Course::Restore, Course::Run]
        );
    }

    #[test]
    fn a_root_that_nothing_packs_is_the_result() {
        assert_eq!(courses(&[(PACK, Kept::Whole), (ROOT, Kept::Nothing)]), [Course::Restore, Course::Run]);
    }

    #[test]
    fn a_command_of_the_host_is_run_again_only_where_its_root_is_wanted() {
        let kept = (HOST_RUN, Kept::Artifacts);
        assert_eq!(courses(&[kept, (PACK, Kept::Whole)]), [Course::RestoreArtifacts, Course::Restore]);
        assert_eq!(courses(&[kept, (PACK, Kept::Nothing)]), [Course::Run, Course::Run]);
    }
}
