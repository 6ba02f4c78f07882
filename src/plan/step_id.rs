//! What makes a step the same step.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::build::Input;
use crate::debian::Architecture;
use crate::image::Spec;
use crate::store::EntryId;

/// Everything that a step's result depends on. Paths of the checkout, times and host names are not in.
#[derive(Serialize)]
pub(super) struct Identity<'a> {
    pub previous: &'a EntryId,
    pub action: &'a str,
    pub version: u32,
    pub properties: &'a Value,
    pub inputs: &'a [Input],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<&'a Spec>,
    pub architecture: Architecture,
    pub sector_size: u32,
    pub environment: &'a BTreeMap<String, String>,
    pub epoch: i64,
    pub salt: Option<&'a str>,
}

impl Identity<'_> {
    pub(super) fn id(&self) -> EntryId {
        // Struct fields come in their order and maps are sorted, so equal identities give equal text.
        let text = serde_json::to_vec(self).unwrap_or_default();
        digest("step", &text)
    }
}

/// The id that stands before the first step.
pub(super) fn nothing() -> EntryId {
    digest("nothing", b"")
}

/// The id of a step that was run after others.
pub(super) fn after(before: &EntryId, step: &EntryId) -> EntryId {
    digest("after", format!("{before} {step}").as_bytes())
}

/// What digests of steps are made with. The number goes up when results that older versions kept are no longer to
/// be believed: 2, since an unchanged recipe could come to an empty archive where nothing is kept of the root.
const STEP_ID: &str = "debforge 2026 step id 2";

fn digest(domain: &str, text: &[u8]) -> EntryId {
    let mut hasher = blake3::Hasher::new_derive_key(STEP_ID);
    hasher.update(domain.as_bytes());
    hasher.update(&[0]);
    hasher.update(text);
    EntryId(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(change: impl FnOnce(&mut Identity<'_>)) -> EntryId {
        let (previous, environment, properties) = (nothing(), BTreeMap::new(), Value::Null);
        let mut identity = Identity {
            previous: &previous,
            action: "run",
            version: 1,
            properties: &properties,
            inputs: &[],
            image: None,
            architecture: Architecture::Amd64,
            sector_size: 512,
            environment: &environment,
            epoch: 0,
            salt: None,
        };
        change(&mut identity);
        identity.id()
    }

    /// An identity borrows for as long as it lives, and `id` decides how long that is.
    fn leak<T>(value: T) -> &'static T {
        Box::leak(Box::new(value))
    }

    #[test]
    fn every_part_makes_another_id() {
        let other = leak(after(&nothing(), &nothing()));
        let environment = leak(BTreeMap::from([("A".into(), "1".into())]));
        let properties = leak(Value::Bool(true));
        let inputs = leak([Input { what: "tool apt".into(), state: "1".into() }]);
        let ids = [
            id(|_| {}),
            id(|i| i.previous = other),
            id(|i| i.action = "pack"),
            id(|i| i.version = 2),
            id(|i| i.properties = properties),
            id(|i| i.inputs = inputs),
            id(|i| i.architecture = Architecture::Arm64),
            id(|i| i.sector_size = 4096),
            id(|i| i.environment = environment),
            id(|i| i.epoch = 1),
            id(|i| i.salt = Some("x")),
        ];
        let unlike: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(unlike.len(), ids.len());
    }
}
