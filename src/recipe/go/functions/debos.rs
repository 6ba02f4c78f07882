//! What debos itself adds, and slim-sprig's `fail` and `hello`.

use uuid::Uuid;

use super::Param::{Int, String as Text};
use super::{Error, Function, function, text};
use crate::build::command::shell_word;

pub(super) const TABLE: &[Function] = &[
    Function {
        deprecated: Some("`raw` and `image-partition` take sectors as they are: `64s`"),
        ..function("sector", &[Int], |_, given| text(format!("{}s", given[0].int())))
    },
    function("escape", &[Text], |_, given| text(shell_word(given[0].str()))),
    function("hello", &[], |_, _| text("Hello!")),
    function("fail", &[Text], |_, given| Err(Error::Author(given[0].str().to_owned()))),
    function("uuid5", &[Text, Text], |_, given| {
        let namespace =
            Uuid::parse_str(given[0].str()).map_err(|_| format!("the namespace `{}` is no UUID", given[0].str()))?;
        text(Uuid::new_v5(&namespace, given[1].str().as_bytes()).to_string())
    }),
];
