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

/// A step as far as its course depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// What it changes.
    pub changes: Changes,
    /// Whether it looks at the root when it is run.
    pub reads_root: bool,
    /// Whether nothing of the root before it is in the one that it leaves.
    pub makes_root: bool,
    /// What the store has of it.
    pub kept: Kept,
}

/// The course of each step.
///
/// Artifacts are always wanted, and so is the root after the last step that makes one. The root in
/// between is wanted only by steps that are run and look at it; what is kept for later steps (downloads, bytes
/// for the image) by those that are run.
pub fn courses(steps: &[Facts]) -> Vec<Course> {
    let mut wanted =
        steps.last().is_none_or(|step| !(step.changes.artifacts || step.changes.outside) || step.changes.root);
    let mut runs = false;
    let mut courses: Vec<Course> = steps
        .iter()
        .rev()
        .map(|Facts { changes, reads_root, makes_root, kept }| {
            let asked = changes.artifacts || changes.outside || wanted || (runs && (changes.write || changes.origin));
            let course = match kept {
                Kept::Whole => Course::Restore,
                Kept::Artifacts if changes.artifacts && !wanted => Course::RestoreArtifacts,
                Kept::Nothing | Kept::Artifacts if asked => {
                    runs = true;
                    wanted |= reads_root;
                    Course::Run
                }
                Kept::Nothing | Kept::Artifacts => Course::Skip,
            };
            // Those before it need not make what it does without.
            wanted &= !makes_root;
            course
        })
        .collect();
    courses.reverse();
    courses
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Changes = Changes::ROOT;
    const PACK: Changes = Changes::ARTIFACTS;
    const HOST_RUN: Changes = Changes { root: true, artifacts: true, origin: false, write: false, outside: false };

    fn courses(steps: &[(Changes, Kept)]) -> Vec<Course> {
        let facts = steps.iter().map(|(changes, kept)| Facts {
            changes: *changes,
            reads_root: true,
            makes_root: false,
            kept: *kept,
        });
        super::courses(&facts.collect::<Vec<_>>())
    }

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

    #[test]
    fn a_step_that_makes_its_own_root_wants_none_before_it() {
        let step = |changes, makes_root: bool, kept| Facts { changes, reads_root: !makes_root, makes_root, kept };
        let (root, commit) = (step(ROOT, false, Kept::Nothing), step(PACK, false, Kept::Whole));
        let (deploy, image) = (step(ROOT, true, Kept::Nothing), step(PACK, false, Kept::Nothing));
        assert_eq!(
            super::courses(&[root, commit, deploy, image]),
            [Course::Skip, Course::Restore, Course::Run, Course::Run]
        );
    }

    #[test]
    fn what_is_done_outside_is_done_in_every_build() {
        let push = Changes::OUTSIDE;
        let step = |changes, reads_root, kept| Facts { changes, reads_root, makes_root: false, kept };
        let (root, pack) = (step(ROOT, true, Kept::Nothing), step(PACK, true, Kept::Whole));
        assert_eq!(
            super::courses(&[root, pack, step(push, false, Kept::Nothing)]),
            [Course::Skip, Course::Restore, Course::Run]
        );
    }

    #[test]
    fn bytes_for_an_image_are_made_where_the_image_is_written() {
        let raw = Changes::WRITE;
        let step = |changes, kept| Facts { changes, reads_root: false, makes_root: false, kept };
        let (image, raw) = (|kept| step(PACK, kept), step(raw, Kept::Nothing));
        assert_eq!(super::courses(&[raw, image(Kept::Nothing)]), [Course::Run, Course::Run]);
        assert_eq!(super::courses(&[raw, image(Kept::Whole)]), [Course::Skip, Course::Restore]);
    }

    #[test]
    fn a_step_that_works_on_artifacts_alone_wants_no_root() {
        let step = |changes, reads_root, kept| Facts { changes, reads_root, makes_root: false, kept };
        let (root, pack) = (step(ROOT, true, Kept::Nothing), step(PACK, true, Kept::Whole));
        assert_eq!(
            super::courses(&[root, pack, step(PACK, false, Kept::Nothing)]),
            [Course::Skip, Course::Restore, Course::Run]
        );
    }
}
