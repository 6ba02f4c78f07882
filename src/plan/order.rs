//! The steps of a recipe in the order in which they run.

use std::collections::{BTreeMap, BTreeSet};

use super::PlanStep;
use crate::actions::first_boot::FirstBoot;
use crate::actions::image::WriteImage;
use crate::actions::{Action, FIRST_BOOT, ImageWalk, Needs, WRITE_IMAGE};
use crate::diagnostics::Place;
use crate::image::{FilesystemKind, Spec, Strategy};
use crate::recipe::{Recipe, Step};

/// All steps with what they do, and between them those that write the recipe's images.
pub(super) fn order(recipe: &Recipe) -> Vec<(PlanStep, &dyn Action)> {
    let (last, first): (Vec<_>, Vec<_>) = recipe.steps.iter().partition(|step| step.action.postprocess());
    let mut order = Order { recipe, walk: ImageWalk::default(), declared: None, steps: Vec::new() };
    for step in first {
        order.image(Some(step.action.as_ref()));
        order.step(step);
    }
    order.image(None);
    for step in last {
        order.step(step);
    }
    order.steps
}

/// What all steps need of the machine, each with the action of the recipe that wants it.
pub fn needs(recipe: &Recipe) -> Vec<(String, Needs)> {
    let steps = order(recipe).into_iter();
    let needs = steps.map(|(step, action)| match step.image.filter(|_| step.action == WRITE_IMAGE) {
        Some(spec) => {
            let tools = crate::build::image::programs(&spec).into_iter().collect();
            ("image-partition".to_owned(), Needs { tools, network: false, emulation: false })
        }
        None => (step.action, action.needs()),
    });
    needs.collect()
}

/// The file systems that a recipe's steps want mounted.
pub fn mounted(recipe: &Recipe) -> BTreeSet<FilesystemKind> {
    let steps = order(recipe).into_iter().filter(|(step, _)| step.action == WRITE_IMAGE);
    let specs = steps.filter_map(|(step, _)| step.image).filter(|spec| spec.strategy == Strategy::Mounted);
    let mounted = |spec: Spec| {
        let mounts: BTreeSet<String> = spec.mounts.iter().map(|mount| mount.partition.clone()).collect();
        let partitions = spec.partitions.into_iter().filter(move |partition| mounts.contains(&partition.name));
        partitions.map(|partition| partition.contents.kind)
    };
    specs.flat_map(mounted).collect()
}

/// How many steps a recipe comes to.
pub fn step_count(recipe: &Recipe) -> usize {
    order(recipe).len()
}

struct Order<'a> {
    recipe: &'a Recipe,
    walk: ImageWalk,
    /// The step that declared the image.
    declared: Option<&'a Step>,
    steps: Vec<(PlanStep, &'a dyn Action)>,
}

impl<'a> Order<'a> {
    /// Adds a step that writes the image, where it is time for that, and one before it that prepares the
    /// first start of what was deployed.
    fn image(&mut self, next: Option<&dyn Action>) {
        let (architecture, sector_size) = (self.recipe.architecture, self.recipe.sector_size);
        let Some(declared) = self.declared.filter(|_| self.walk.is_due(next, architecture, sector_size)) else {
            return;
        };
        if self.walk.wants_first_boot() {
            let step = PlanStep {
                action: FIRST_BOOT.to_owned(),
                properties: serde_json::to_value(FirstBoot::USUAL).unwrap_or_default(),
                summary: FirstBoot::USUAL.summary(),
                ..self.planned(declared)
            };
            self.steps.push((step, FirstBoot::USUAL));
        }
        let summary = self.walk.spec().map(crate::build::image::summary).unwrap_or_default();
        let step = PlanStep {
            action: WRITE_IMAGE.to_owned(),
            properties: serde_json::Value::Object(serde_json::Map::new()),
            summary,
            parts: self.partitions(declared),
            ..self.planned(declared)
        };
        self.steps.push((step, &WriteImage {}));
        self.walk.wrote();
    }

    fn step(&mut self, step: &'a Step) {
        let action = step.action.as_ref();
        let number = self.steps.len() + 1;
        self.steps.push((self.planned(step), action));
        let declared = self.walk.spec().map(|spec| spec.name.clone());
        self.walk.advance(action, number, self.recipe.architecture, self.recipe.sector_size);
        if self.walk.spec().map(|spec| &spec.name) != declared.as_ref() {
            self.declared = Some(step);
        }
    }

    /// Where the step that declares the image describes its partitions.
    fn partitions(&self, declared: &Step) -> BTreeMap<String, Place> {
        let partitions = self.walk.spec().map(|spec| spec.partitions.as_slice()).unwrap_or_default();
        let places = partitions.iter().enumerate().filter_map(|(index, partition)| {
            let span = declared.spans.value(&format!("partitions[{index}]"))?;
            Some((partition.name.clone(), span.place()))
        });
        places.collect()
    }

    fn planned(&self, step: &Step) -> PlanStep {
        PlanStep {
            number: self.steps.len() + 1,
            action: step.kind.to_owned(),
            properties: step.properties.clone(),
            image: self.walk.spec().cloned(),
            mounted: self.walk.is_mounted() && !step.action.postprocess(),
            summary: step.description.clone().unwrap_or_else(|| step.action.summary()),
            place: step.spans.whole.as_ref().map(|span| span.place()),
            parts: BTreeMap::new(),
            recipe_dir: step.recipe_dir.clone(),
            variables: (*step.variables).clone(),
            inputs: Vec::new(),
            previous: None,
            id: None,
            epoch: None,
            hit: false,
            reason: String::new(),
        }
    }
}
