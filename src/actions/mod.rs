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
mod nature;
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

use anyhow::Result;
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::Diagnostics;
use crate::image::Spec;

pub use image_walk::{ImageRole, ImageSurroundings, ImageWalk};
pub use nature::{Changes, Nature, Needs, Reads, RootUse};

/// One kind of step. The struct's doc comment is its manual.
///
/// What decides an id, a need or a permission has no default: each action states it.
pub trait Action: std::fmt::Debug + Send + Sync {
    /// Pure: reports every fault of the properties, not the first.
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics);

    /// What it is to the steps around it and to the machine.
    fn nature(&self) -> Nature;

    /// Whether it uses the image's device, which only an image has that is mounted while the steps run.
    fn wants_device(&self, cx: &CheckContext<'_>) -> bool;

    /// What it has to do with the recipe's disk image.
    fn image(&self, cx: ImageSurroundings<'_>) -> ImageRole;

    /// A few words for the progress line: "trixie, minbase".
    fn summary(&self) -> String;

    /// Collects all that the result depends on beside the properties, the earlier steps and the
    /// architecture.
    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()>;

    /// Does it.
    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()>;

    /// How many bytes it puts over the image, as far as that can be told before anything runs: for checks alone.
    fn image_bytes(&self, _cx: &CheckContext<'_>) -> Option<u64> {
        None
    }

    /// The release of Debian that the root is of after it, where it was `before`, as far as the recipe says: so that
    /// what a release cannot do is said before anything runs. What counts is in the root.
    fn release_after(&self, before: Option<String>) -> Option<String> {
        before
    }

    /// A directory among the artifacts whose files are one artifact for people: a repository.
    fn artifact_tree(&self) -> Option<&str> {
        None
    }

    /// The name it gives to an origin.
    fn origin_name(&self) -> Option<&str> {
        None
    }

    /// Looks after what lies in the artifact directory when the whole build is done and all artifacts are there.
    /// Never cached, so it does nothing that is not already so when it is done again.
    fn published(&self, _cx: &BuildContext<'_>) -> Result<()> {
        Ok(())
    }
}

/// Parts of an action's [`Nature`] by their own names. Not methods of the trait, so that no action can say
/// something else here than there.
impl dyn Action + '_ {
    /// See [`Nature::needs`].
    pub fn needs(&self) -> Needs {
        self.nature().needs
    }

    /// See [`Nature::changes`].
    pub fn changes(&self) -> Changes {
        self.nature().changes
    }

    /// See [`Nature::artifacts`].
    pub fn artifacts(&self) -> Vec<String> {
        self.nature().artifacts
    }

    /// See [`Nature::removes`].
    pub fn removes(&self) -> Vec<String> {
        self.nature().removes
    }

    /// See [`Nature::works_on_disk`].
    pub fn works_on_disk(&self) -> bool {
        self.nature().works_on_disk
    }

    /// See [`Nature::postprocess`].
    pub fn postprocess(&self) -> bool {
        self.nature().postprocess
    }

    /// See [`Reads::artifacts`].
    pub fn reads_artifacts(&self) -> bool {
        self.nature().reads.artifacts
    }

    /// See [`RootUse::reads`].
    pub fn reads_root(&self) -> bool {
        self.nature().root.reads()
    }

    /// See [`RootUse::spoils`].
    pub fn spoils_root(&self, image: Option<&Spec>, mounts: bool) -> bool {
        self.nature().root.spoils(image, mounts)
    }

    /// See [`RootUse::Replaced`].
    pub fn makes_root(&self) -> bool {
        self.nature().root == RootUse::Replaced
    }
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
