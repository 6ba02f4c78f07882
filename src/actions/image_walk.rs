//! What the steps of a recipe have to do with its disk image, one after the other.

use super::Action;
use crate::debian::Architecture;
use crate::image::{Deploy, Spec, Strategy, Write, WriteSource};

/// What a step has to do with a disk image.
#[derive(Debug, Clone)]
pub enum ImageRole {
    /// Nothing, or no more than with any artifact.
    None,
    /// Says what it looks like.
    Declares(Box<Spec>),
    /// Binds the root to it.
    Deploys(Deploy),
    /// Prepares the first start of what was deployed, as the step that writes the image would have done
    /// by itself.
    PreparesFirstBoot,
    /// Has bytes written over it. A [`WriteSource::Step`] of any number means the step itself.
    Writes(Vec<Write>),
}

/// What an action may ask about before it says its role.
#[derive(Debug, Clone, Copy)]
pub struct ImageSurroundings<'a> {
    /// The image so far.
    pub spec: Option<&'a Spec>,
    /// What is built.
    pub architecture: Architecture,
    /// Of disks, in bytes.
    pub sector_size: u32,
}

/// Walks steps in the order in which they run and knows the image that they describe. Used when a
/// recipe is checked and again when it is planned.
#[derive(Debug, Clone, Default)]
pub struct ImageWalk {
    spec: Option<Spec>,
    /// Whether the steps since the image was last written say something that is not in it.
    pending: bool,
    /// Whether the steps from here on work in the mounted image.
    mounted: bool,
}

impl ImageWalk {
    /// The image so far.
    pub fn spec(&self) -> Option<&Spec> {
        self.spec.as_ref()
    }

    /// Whether the steps from here on work in the mounted image instead of the root.
    pub fn is_mounted(&self) -> bool {
        self.mounted
    }

    /// Whether the image is written, so that the root that it was written from is history.
    pub fn is_past(&self) -> bool {
        let deployed = |spec: &Spec| !spec.deploys.is_empty() && spec.deploys.len() <= spec.deployed;
        !self.mounted && self.spec.as_ref().is_some_and(|spec| spec.written && deployed(spec))
    }

    /// Whether the image must be written before this step, `None` being the end of all steps.
    pub fn is_due(&self, next: Option<&dyn Action>, architecture: Architecture, sector_size: u32) -> bool {
        let Some(spec) = self.spec.as_ref().filter(|_| self.pending) else { return false };
        let Some(next) = next else { return true };
        if spec.strategy == Strategy::Mounted && !spec.deploys.is_empty() {
            return true;
        }
        match next.image(ImageSurroundings { spec: Some(spec), architecture, sector_size }) {
            ImageRole::Declares(_) => true,
            ImageRole::Deploys(_) => !spec.deploys.is_empty(),
            ImageRole::PreparesFirstBoot | ImageRole::Writes(_) => false,
            ImageRole::None => next.postprocess() || (next.reads_artifacts() && !next.changes().root),
        }
    }

    /// Says how many bytes the last write has.
    pub fn measured(&mut self, length: u64) {
        if let Some(write) = self.spec.as_mut().and_then(|spec| spec.writes.last_mut()) {
            write.length = Some(length);
        }
    }

    /// Whether what was deployed since the image was last written wants its first start prepared.
    pub fn wants_first_boot(&self) -> bool {
        let Some(spec) = &self.spec else { return false };
        spec.deploys.get(spec.deployed..).and_then(<[_]>::last).is_some_and(|deploy| deploy.first_boot)
    }

    /// Goes past a step that writes the image.
    pub fn wrote(&mut self) {
        self.pending = false;
        if let Some(spec) = &mut self.spec {
            self.mounted = spec.strategy == Strategy::Mounted && !spec.deploys.is_empty();
            spec.written = true;
            spec.deployed = spec.deploys.len();
            spec.writes.clear();
        }
    }

    /// Goes past the step of this number.
    pub fn advance(&mut self, action: &dyn Action, number: usize, architecture: Architecture, sector_size: u32) {
        let surroundings = ImageSurroundings { spec: self.spec.as_ref(), architecture, sector_size };
        let role = action.image(surroundings);
        match role {
            ImageRole::None => {}
            ImageRole::Declares(spec) => {
                self.spec = Some(*spec);
                self.pending = true;
                self.mounted = false;
            }
            ImageRole::Deploys(deploy) => {
                if let Some(spec) = &mut self.spec {
                    spec.deploys.push(deploy);
                    self.pending = true;
                }
            }
            ImageRole::PreparesFirstBoot => {
                if let Some(deploy) = self.spec.as_mut().and_then(|spec| spec.deploys.last_mut()) {
                    deploy.first_boot = false;
                }
            }
            ImageRole::Writes(writes) => {
                if let Some(spec) = &mut self.spec {
                    self.pending |= !writes.is_empty();
                    spec.writes.extend(writes.into_iter().map(|mut write| {
                        if let WriteSource::Step(step) = &mut write.source {
                            *step = number;
                        }
                        write
                    }));
                }
            }
        }
    }
}
