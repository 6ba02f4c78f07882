//! What properties are where a recipe leaves them out, as serde's `default` takes it.

pub(super) fn yes() -> bool {
    true
}

pub(super) fn main_component() -> Vec<String> {
    vec!["main".into()]
}

pub(super) fn recipe_origin() -> String {
    "recipe".into()
}

pub(super) fn slash() -> String {
    "/".into()
}
