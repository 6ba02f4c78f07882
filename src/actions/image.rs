//! The step that writes an image: no action of the recipe's, but what its `image-partition`,
//! `filesystem-deploy`, `raw` and `bootloader` come to.

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Changes, Needs};
use crate::build::{BuildContext, CheckContext, InputContext, image};
use crate::diagnostics::Diagnostics;
use crate::image::Spec;

/// Write the disk image that the steps before describe.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WriteImage {}

impl Action for WriteImage {
    fn check(&self, _cx: &CheckContext<'_>, _out: &mut Diagnostics) {}

    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn changes(&self) -> Changes {
        Changes { artifacts: true, ..Changes::default() }
    }

    fn reads_artifacts(&self) -> bool {
        true
    }

    fn reads_image(&self) -> bool {
        true
    }

    fn spoils_root(&self, spec: Option<&Spec>, mounts: bool) -> bool {
        spec.is_some_and(|spec| image::spoils_root(spec, mounts))
    }

    /// 2: what mkfs took from the host in btrfs, and the order of several attributes in squashfs and erofs.
    fn version(&self) -> u32 {
        2
    }

    fn works_on_disk(&self) -> bool {
        true
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
