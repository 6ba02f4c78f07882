//! The step that writes an image: no action of the recipe's, but what its `image-partition`,
//! `filesystem-deploy`, `raw` and `bootloader` come to.

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::{BuildContext, CheckContext, InputContext, image};
use crate::diagnostics::Diagnostics;

/// Write the disk image that the steps before describe.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WriteImage {}

impl Action for WriteImage {
    fn check(&self, _cx: &CheckContext<'_>, _out: &mut Diagnostics) {}

    fn nature(&self) -> Nature {
        Nature {
            // 2: what mkfs took from the host in btrfs, and the order of several attributes in squashfs and erofs.
            // 3: whether it starts is looked at.
            version: 4,
            changes: Changes::ARTIFACTS,
            root: RootUse::SpoiltForImage,
            reads: Reads { artifacts: true, repositories: false, image: true, host: false },
            // Those of the image that it writes: `plan::needs`.
            needs: Needs::NOTHING,
            artifacts: Vec::new(),
            removes: Vec::new(),
            works_on_disk: true,
            postprocess: false,
        }
    }

    fn wants_device(&self, _cx: &CheckContext<'_>) -> bool {
        false
    }

    fn image(&self, _cx: ImageSurroundings<'_>) -> ImageRole {
        ImageRole::None
    }

    fn summary(&self) -> String {
        String::new()
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        let spec = cx.image.context("no step before describes an image")?;
        image::inputs(spec, cx)
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        image::write(cx)
    }
}
