//! The disk image that the actions of a recipe describe, followed while they are read.

use serde_json::Value;

use super::check::Loading;
use crate::actions::{Action, ImageWalk, Kind};
use crate::debian::Architecture;
use crate::diagnostics::{Diagnostic, Spans};
use crate::image::Spec;

impl Loading<'_> {
    /// Goes past a step with the image that the recipe describes.
    pub(super) fn follow_image(
        &mut self,
        action: &dyn Action,
        kind: &'static Kind,
        architecture: Architecture,
        sector_size: u32,
        bytes: Option<u64>,
    ) {
        // What waits until all is done is not in the order of the recipe.
        if action.postprocess() {
            return;
        }
        if self.image.is_due(Some(action), architecture, sector_size) {
            self.image.wrote();
            self.image_for = kind.name;
        }
        let deploys = |walk: &ImageWalk| walk.spec().map(|spec| (spec.name.clone(), spec.deploys.len()));
        let before = deploys(&self.image);
        self.image.advance(action, self.step_count() + 1, architecture, sector_size);
        if deploys(&self.image) != before {
            self.late = None;
        }
        if let Some(bytes) = bytes {
            self.image.measured(bytes);
        }
    }

    /// What debos makes without a look at it is made, where a recipe is read as debos reads it.
    pub(super) fn excuse_image(lenient: bool, kind: &Kind, properties: &mut Value) {
        if lenient
            && kind.name == "image-partition"
            && let Value::Object(properties) = properties
        {
            properties.entry("boot-check").or_insert_with(|| "warn".into());
        }
    }

    /// Has an image mounted for the steps that follow, where one of them wants its device.
    pub(super) fn mount_image(&self, kind: &Kind, properties: &mut Value) {
        if self.mounts_images
            && kind.name == "image-partition"
            && let Value::Object(properties) = properties
        {
            properties.entry("strategy").or_insert_with(|| "mounted".into());
        }
    }

    /// Keeps the warning of the first step that changes the root when the image is written already, in
    /// case that no other deploy follows.
    pub(super) fn note_late(&mut self, kind: &'static Kind, action: &dyn Action, properties: &Value, spans: &Spans) {
        // A command outside of the root may look at it and no more.
        let may = kind.name == "run" && properties["chroot"] != true;
        if action.changes().root && !action.postprocess() && !may && self.image.is_past() && self.late.is_none() {
            self.late = Some(late(spans, kind.name, self.image_for, self.image.spec()));
        }
    }
}

/// The warning of a step that changes the root when the image is written already.
fn late(spans: &Spans, name: &str, image_for: &str, image: Option<&Spec>) -> Diagnostic {
    let image = image.map_or("", |spec| spec.name.as_str());
    let message = format!("what `{name}` changes in the root is not in `{image}`");
    let mut diagnostic = Diagnostic::warning(message, spans.whole.clone());
    diagnostic.included_from.clone_from(&spans.included_from);
    diagnostic.hint(format!("the image is written for `{image_for}`: move this action in front of that"))
}
