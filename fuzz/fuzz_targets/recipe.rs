//! Reads any text as a recipe. What is before the first NUL is the recipe, what follows a file beside it.
#![no_main]

use std::path::Path;

use debforge::recipe::{self, MemoryLoader, Options};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (recipe, part) = text.split_once('\0').unwrap_or((text, ""));
    let loader = MemoryLoader::new().with("recipe", recipe).with("part", part);
    let options = Options { variables: [("name".to_owned(), "part".to_owned())].into(), ..Options::default() };
    let (loaded, diagnostics) = recipe::load(Path::new("recipe"), &options, &loader);
    assert_eq!(loaded.is_none(), diagnostics.has_errors());
    for diagnostic in diagnostics.iter() {
        for span in diagnostic.span.iter().chain(&diagnostic.included_from) {
            assert!(span.source.text.get(span.start..span.end).is_some());
        }
    }
    diagnostics.render(true);
});
