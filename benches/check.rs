//! How long a recipe of a hundred actions takes to read; an editor does it at every pause in typing.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use debforge::recipe::{self, MemoryLoader, Options};

/// The promise, in milliseconds.
const LIMIT: u128 = 50;

/// A bootstrap and 99 actions that use what recipes use: variables, loops, an include, a macro, anchors.
fn recipe() -> MemoryLoader {
    let mut text = String::from(
        "{% from 'macros.yaml' import say %}\narchitecture: {{ arch }}\n.common: &common\n  recommends: false\nactions:\n  \
         - action: mmdebstrap\n    suite: {{ suite | default(\"trixie\") }}\n",
    );
    for number in 0..32 {
        let _ = write!(
            text,
            "  - action: apt\n    <<: *common\n    packages:\n      - one{number}\n      - {{{{ arch }}}}-tools\n\
             {{{{ say({number}) }}}}\n\
             {{%- if arch == \"amd64\" %}}\n  - action: run\n    chroot: true\n    when: arch == \"amd64\"\n    command: |\n      \
             echo {number} > /etc/number\n      sync\n{{%- endif %}}\n"
        );
    }
    text.push_str("{% include \"end.yaml\" %}\n");
    let macros = "{% macro say(what) %}\n  - action: run\n    chroot: true\n    command: echo {{ what | escape }}\n{% endmacro %}\n";
    let end = "{% for name in [\"a\", \"b\", \"c\"] %}\n  - action: run\n    chroot: true\n    command: echo {{ name }}\n{% endfor %}\n";
    MemoryLoader::new().with("recipe.yaml", text).with("macros.yaml", macros).with("end.yaml", end)
}

fn check(criterion: &mut Criterion) {
    let loader = recipe();
    let options = Options { variables: [("arch".to_owned(), "amd64".to_owned())].into(), ..Options::default() };
    let load = || recipe::load(Path::new("recipe.yaml"), &options, &loader);
    let (loaded, diagnostics) = load();
    let steps = loaded.unwrap_or_else(|| panic!("{}", diagnostics.render(false))).steps.len();
    assert_eq!(steps, 100);
    let start = std::time::Instant::now();
    black_box(load());
    let taken = start.elapsed().as_millis();
    assert!(taken < LIMIT, "a recipe of {steps} actions took {taken} ms to check, more than {LIMIT}");
    criterion.bench_function("check a recipe of 100 actions", |bencher| bencher.iter(|| black_box(load())));
}

criterion_group!(benches, check);
criterion_main!(benches);
