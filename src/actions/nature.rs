//! What an action says of itself before it runs: all that decides its steps' ids, needs and permissions.
//!
//! None of these types has a default, and no action may leave a field out: what is not said would be a
//! need that nobody meets, or an input that no id has.

use crate::image::Spec;

/// All of it. An action states each part; see [`super::Action::nature`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nature {
    /// Raised when the same properties come to give another result.
    pub version: u32,
    /// What a step changes.
    pub changes: Changes,
    /// What it does with the root that it finds.
    pub root: RootUse,
    /// What its result depends on that earlier steps made, beside the root.
    pub reads: Reads,
    /// What it needs of the machine.
    pub needs: Needs,
    /// Files that it leaves in the artifact directory, as far as the properties say.
    pub artifacts: Vec<String>,
    /// Files that earlier actions left in the artifact directory and that it takes away.
    pub removes: Vec<String>,
    /// Whether it works on the disk itself where the root is one that OSTree deploys to; others work in the
    /// deployment that is started first.
    pub works_on_disk: bool,
    /// Whether it waits until everything else is done.
    pub postprocess: bool,
}

/// What a step changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changes {
    /// The root filesystem: the step gets a layer.
    pub root: bool,
    /// The artifact directory: the step's files there are kept with its id.
    pub artifacts: bool,
    /// A named origin: a `download`.
    pub origin: bool,
    /// Bytes for the image, kept until it is written: `raw`.
    pub write: bool,
    /// Something outside of the build, which nobody else may have left as it is: it is done in every build.
    pub outside: bool,
}

impl Changes {
    /// Nothing: what the step says is all that it is for.
    pub const NOTHING: Self = Self { root: false, artifacts: false, origin: false, write: false, outside: false };
    /// The root alone.
    pub const ROOT: Self = Self { root: true, artifacts: false, origin: false, write: false, outside: false };
    /// The artifacts alone.
    pub const ARTIFACTS: Self = Self { root: false, artifacts: true, origin: false, write: false, outside: false };
    /// A named origin alone.
    pub const ORIGIN: Self = Self { root: false, artifacts: false, origin: true, write: false, outside: false };
    /// Bytes for the image alone.
    pub const WRITE: Self = Self { root: false, artifacts: false, origin: false, write: true, outside: false };
    /// Something outside of the build alone.
    pub const OUTSIDE: Self = Self { root: false, artifacts: false, origin: false, write: false, outside: true };
}

/// What a step does with the root that it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootUse {
    /// It does not look at it: the root is not made for it where it is not there.
    Unused,
    /// It reads it; where it changes it, that is for all steps after it.
    Used,
    /// It also changes it for its own work alone: it gets one that is thrown away, or, where there is but
    /// one, puts back what it changed.
    Spoilt,
    /// As the image asks for that is written from it, and as mounts can spare it.
    SpoiltForImage,
    /// It leaves one that is its own work alone: nothing of the one that it finds is in it.
    Replaced,
}

impl RootUse {
    /// Whether the step looks at the root.
    pub fn reads(self) -> bool {
        match self {
            Self::Unused | Self::Replaced => false,
            Self::Used | Self::Spoilt | Self::SpoiltForImage => true,
        }
    }

    /// Whether the root is changed for the step's own work alone. `mounts` says whether anything can be mounted.
    pub fn spoils(self, image: Option<&Spec>, mounts: bool) -> bool {
        match self {
            Self::Unused | Self::Used | Self::Replaced => false,
            Self::Spoilt => true,
            Self::SpoiltForImage => image.is_some_and(|spec| crate::build::image::spoils_root(spec, mounts)),
        }
    }
}

/// What a step's result depends on that earlier steps made, beside the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reads {
    /// Artifacts or downloads: then it depends on all earlier steps, else only on those that changed the root.
    pub artifacts: bool,
    /// The repositories of packages that the root is set up for, in the state in which they are now. Only the root
    /// itself can tell which those are; until it is there the step has no id.
    pub repositories: bool,
    /// The whole description of the image. What is read of parts of it are inputs.
    pub image: bool,
    /// The system of the host, whatever of it commands may see: its packages, /usr/local, settings. Programs that
    /// a step calls by name are inputs with their versions.
    pub host: bool,
}

impl Reads {
    /// Nothing: the root, the properties and the inputs say all.
    pub const NOTHING: Self = Self { artifacts: false, repositories: false, image: false, host: false };
    /// Artifacts or downloads alone.
    pub const ARTIFACTS: Self = Self { artifacts: true, repositories: false, image: false, host: false };
    /// The root's repositories alone.
    pub const REPOSITORIES: Self = Self { artifacts: false, repositories: true, image: false, host: false };
}

/// What a step needs of the machine, checked before anything runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Host programs: name and the Debian package that has it.
    pub tools: Vec<(&'static str, &'static str)>,
    /// Whether it fetches something, or its processes may.
    pub network: bool,
    /// Whether it runs programs of the target's architecture.
    pub emulation: bool,
}

impl Needs {
    /// Nothing beside debforge.
    pub const NOTHING: Self = Self { tools: Vec::new(), network: false, emulation: false };

    /// Host programs alone.
    pub fn tools(tools: impl IntoIterator<Item = (&'static str, &'static str)>) -> Self {
        Self { tools: tools.into_iter().collect(), network: false, emulation: false }
    }
}
