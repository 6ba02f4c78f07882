//! The actions of a recipe: a file per action, and the one table of them.

pub mod apt;
mod artifact;
pub mod bmap;
pub mod bootc_image;
pub mod bootloader;
pub mod checksums;
pub mod compress;
pub mod convert;
pub mod debootstrap;
mod defaults;
pub mod download;
pub mod filesystem_deploy;
pub mod filesystem_image;
pub mod first_boot;
pub mod image;
pub mod image_partition;
mod image_walk;
pub mod install_deb;
pub mod iso;
pub mod mmdebstrap;
pub mod oci_image;
pub mod oci_index;
pub mod oci_push;
pub mod ostree_bundle;
pub mod ostree_commit;
pub mod ostree_deploy;
pub mod ostree_prepare;
pub mod overlay;
pub mod pack;
pub mod pacman;
pub mod pacstrap;
pub mod raw;
pub mod recipe;
pub mod run;
pub mod sign;
mod signing;
pub mod unpack;

use std::path::Path;

use anyhow::Result;
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::Diagnostics;
use crate::image::Spec;

pub use image_walk::{ImageRole, ImageSurroundings, ImageWalk};

/// What a step changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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

/// What a step needs of the machine, checked before anything runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Host programs: name and the Debian package that has it.
    pub tools: Vec<(&'static str, &'static str)>,
    /// Whether it fetches something, or its processes may.
    pub network: bool,
    /// Whether it runs programs of the target's architecture.
    pub emulation: bool,
}

/// One kind of step. The struct's doc comment is its manual.
pub trait Action: std::fmt::Debug + Send + Sync {
    /// Pure: reports every fault of the properties, not the first.
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics);

    /// Whether it uses the image's device, which only an image has that is mounted while the steps run.
    fn wants_device(&self, _cx: &CheckContext<'_>) -> bool {
        false
    }

    /// What it needs of the machine.
    fn needs(&self) -> Needs;

    /// What it changes.
    fn changes(&self) -> Changes;

    /// Whether it may read artifacts or downloads that earlier steps made; then it depends on all
    /// earlier steps, else only on those that changed the root.
    fn reads_artifacts(&self) -> bool {
        false
    }

    /// Whether it looks at the root; else the root is not made for it where it is not there.
    fn reads_root(&self) -> bool {
        !self.postprocess()
    }

    /// Whether it depends on the apt repositories that the root is set up for.
    fn reads_apt_sources(&self) -> bool {
        false
    }

    /// The apt repositories that the root will be set up for after it, as one deb822 text, where they
    /// are `before` it, each as far as that can be told before anything runs. A wrong guess costs
    /// nothing: what is in the root counts once it is made.
    fn foresee_apt_sources(&self, before: Option<&str>, _recipe_dir: &Path) -> Option<String> {
        before.map(str::to_owned)
    }

    /// What it has to do with the recipe's disk image.
    fn image(&self, _cx: ImageSurroundings<'_>) -> ImageRole {
        ImageRole::None
    }

    /// How many bytes it puts over the image, as far as that can be told before anything runs.
    fn image_bytes(&self, _cx: &CheckContext<'_>) -> Option<u64> {
        None
    }

    /// Whether its result depends on how the image is described so far.
    fn reads_image(&self) -> bool {
        false
    }

    /// Whether it changes the root for its own work alone: then it gets one that is thrown away, or, where
    /// there is but one, puts back what it changed. `mounts` says whether anything can be mounted.
    fn spoils_root(&self, _image: Option<&Spec>, _mounts: bool) -> bool {
        false
    }

    /// Whether it waits until everything else is done.
    fn postprocess(&self) -> bool {
        false
    }

    /// Files it leaves in the artifact directory, as far as the properties say.
    fn artifacts(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether it works on the disk itself where the root is one that OSTree deploys to; others work in the
    /// deployment that is started first.
    fn works_on_disk(&self) -> bool {
        false
    }

    /// A directory among the artifacts whose files are one artifact for people: a repository.
    fn artifact_tree(&self) -> Option<&str> {
        None
    }

    /// Whether the root that it leaves is its own work alone: what was in the root before is not in it.
    fn makes_root(&self) -> bool {
        false
    }

    /// Looks after what lies in the artifact directory when the whole build is done and all artifacts are there.
    /// Never cached, so it does nothing that is not already so when it is done again.
    fn published(&self, _cx: &BuildContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Files that earlier actions left in the artifact directory and that it takes away.
    fn removes(&self) -> Vec<String> {
        Vec::new()
    }

    /// The name it gives to an origin.
    fn origin_name(&self) -> Option<&str> {
        None
    }

    /// Raised when the same properties come to give another result.
    fn version(&self) -> u32 {
        1
    }

    /// A few words for the progress line: "trixie, minbase".
    fn summary(&self) -> String;

    /// Collects all that the result depends on beside the properties, the earlier steps and the
    /// architecture.
    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()>;

    /// Does it.
    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()>;
}

/// What went wrong when properties were read.
#[derive(Debug)]
pub struct DecodeError {
    /// Path of the property, as in `packages[2]`; empty for the action itself.
    pub property: String,
    /// What serde says.
    pub message: String,
}

/// A row of the table of actions.
pub struct Kind {
    /// As written after `action:`.
    pub name: &'static str,
    /// Reads properties (without `action`, `description` and `when`).
    pub decode: fn(Value) -> Result<Box<dyn Action>, DecodeError>,
    /// Properties after defaults are filled in, in a fixed order: what enters the step's id.
    pub normalise: fn(Value) -> Result<Value, DecodeError>,
    /// Manual and properties.
    pub schema: fn() -> Schema,
}

/// All actions, in the alphabet's order.
pub const KINDS: &[Kind] = &[
    kind::<apt::Apt>("apt"),
    kind::<bmap::Bmap>("bmap"),
    kind::<bootc_image::BootcImage>("bootc-image"),
    kind::<bootloader::Bootloader>("bootloader"),
    kind::<checksums::Checksums>("checksums"),
    kind::<compress::Compress>("compress"),
    kind::<convert::Convert>("convert"),
    kind::<debootstrap::Debootstrap>("debootstrap"),
    kind::<download::Download>("download"),
    kind::<filesystem_deploy::FilesystemDeploy>("filesystem-deploy"),
    kind::<filesystem_image::FilesystemImage>("filesystem-image"),
    kind::<first_boot::FirstBoot>(FIRST_BOOT),
    kind::<image_partition::ImagePartition>("image-partition"),
    kind::<install_deb::InstallDeb>("install-deb"),
    kind::<iso::Iso>("iso"),
    kind::<mmdebstrap::Mmdebstrap>("mmdebstrap"),
    kind::<oci_image::OciImage>("oci-image"),
    kind::<oci_index::OciIndex>("oci-index"),
    kind::<oci_push::OciPush>("oci-push"),
    kind::<ostree_bundle::OstreeBundle>("ostree-bundle"),
    kind::<ostree_commit::OstreeCommit>("ostree-commit"),
    kind::<ostree_deploy::OstreeDeploy>("ostree-deploy"),
    kind::<ostree_prepare::OstreePrepare>("ostree-prepare"),
    kind::<overlay::Overlay>("overlay"),
    kind::<pack::Pack>("pack"),
    kind::<pacman::Pacman>("pacman"),
    kind::<pacstrap::Pacstrap>("pacstrap"),
    kind::<raw::Raw>("raw"),
    kind::<recipe::RecipeAction>("recipe"),
    kind::<run::Run>("run"),
    kind::<sign::Sign>("sign"),
    kind::<unpack::Unpack>("unpack"),
];

/// Steps that follow from a recipe without standing in it.
const IMPLIED: &[Kind] = &[kind::<image::WriteImage>(WRITE_IMAGE)];

/// Name of the step that prepares the first start of an image.
pub const FIRST_BOOT: &str = "first-boot";

/// Name of the step that writes an image.
pub const WRITE_IMAGE: &str = "image";

/// The row of a step's action, also of those that no recipe can ask for.
pub fn find_step(name: &str) -> Option<&'static Kind> {
    KINDS.iter().chain(IMPLIED).find(|kind| kind.name == name)
}

/// The row of an action.
pub fn find(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

const fn kind<A>(name: &'static str) -> Kind
where
    A: Action + DeserializeOwned + Serialize + JsonSchema + 'static,
{
    Kind { name, decode: decode::<A>, normalise: normalise::<A>, schema: || schemars::schema_for!(A) }
}

fn typed<A: DeserializeOwned>(properties: Value) -> Result<A, DecodeError> {
    serde_path_to_error::deserialize(properties).map_err(|error| DecodeError {
        property: match error.path().to_string() {
            path if path == "." => String::new(),
            path => path,
        },
        message: error.into_inner().to_string(),
    })
}

fn decode<A: Action + DeserializeOwned + 'static>(properties: Value) -> Result<Box<dyn Action>, DecodeError> {
    typed::<A>(properties).map(|action| Box::new(action) as Box<dyn Action>)
}

fn normalise<A: DeserializeOwned + Serialize>(properties: Value) -> Result<Value, DecodeError> {
    let action = typed::<A>(properties)?;
    serde_json::to_value(action).map_err(|error| DecodeError { property: String::new(), message: error.to_string() })
}
