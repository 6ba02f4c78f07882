//! What is said of the private keys in a product, when it is made and when it comes from the store.

use std::path::Path;

use anyhow::Result;

use super::Run;
use crate::build::Event;
use crate::plan::PlanStep;
use crate::store::EntryId;

impl Run<'_> {
    /// Names the private keys that all copies of a product will share.
    pub(super) fn name_secrets(&mut self, step: &PlanStep, root: &Path) -> Result<()> {
        if let Some(message) = self.secrets.warning(root)? {
            if let Some(id) = &step.id {
                self.store.remember(&secrets_key(id), &message.as_str().into());
            }
            self.reporter.report(Event::Warning { step: Some(step.number), message });
        }
        Ok(())
    }

    /// Names them again where the product comes from the store.
    pub(super) fn name_known_secrets(&self, step: &PlanStep) {
        let said = step.id.as_ref().and_then(|id| self.store.recall(&secrets_key(id)));
        if let Some(message) = said.as_ref().and_then(serde_json::Value::as_str) {
            self.reporter.report(Event::Warning { step: Some(step.number), message: message.to_owned() });
        }
    }
}

/// Where what was said of a product's secrets is kept.
fn secrets_key(id: &EntryId) -> String {
    format!("secrets of {id}")
}
