//! What an action sees while it is checked: nothing has run, nothing is touched.

use std::ffi::OsString;
use std::path::Path;

use crate::debian::Architecture;
use crate::diagnostics::{Diagnostic, Diagnostics, Spans, has_login};
use crate::image::Spec;

/// What stands beside the recipe; the only I/O that checking does.
pub trait Files {
    /// Whether the path is there, and if so whether it is a directory.
    fn kind(&self, path: &Path) -> Option<FileKind>;

    /// Bytes of a file, where it is one.
    fn size(&self, path: &Path) -> Option<u64>;

    /// Names of what is in a directory, sorted.
    fn names(&self, path: &Path) -> Vec<OsString>;

    /// Whether it is a symbolic link.
    fn is_link(&self, path: &Path) -> bool;

    /// The text of a file, where it is one that people read.
    fn text(&self, path: &Path) -> Option<String>;
}

/// See [`Files::kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file, or a link to one.
    File,
    /// A directory, or a link to one.
    Directory,
    /// A device, socket or pipe.
    Other,
}

/// The way out for addresses that have no property for a login beside them.
pub const LOGIN_FILE: &str = "put it into apt_auth.conf(5) of this machine, or a file of that form that `NETRC` names: \
                              `machine HOST login USER password PASSWORD`";

/// An action's surroundings while it is checked.
pub struct CheckContext<'a> {
    /// What is built.
    pub architecture: Architecture,
    /// Directory of the recipe file that the action stands in (a nested recipe has its own).
    pub recipe_dir: &'a Path,
    /// Where artifacts go and come from.
    pub artifact_dir: &'a Path,
    /// The file system, or a test's.
    pub files: &'a dyn Files,
    /// Where the action's parts stand.
    pub spans: &'a Spans,
    /// Names that earlier `download` actions gave.
    pub downloads: &'a [String],
    /// Files that earlier actions leave in the artifact directory, relative to it.
    pub artifacts: &'a [String],
    /// Bytes of a sector of disk images.
    pub sector_size: u32,
    /// The image as the actions before this one describe it.
    pub image: Option<&'a Spec>,
    /// The release of Debian that the root is of, as far as the actions before say.
    pub release: Option<&'a str>,
    /// Whether an earlier action made the root (a bootstrap, `unpack`, …).
    pub has_root: bool,
    /// Whether an earlier action of the recipe may write any artifact (a `run` outside the chroot).
    pub any_artifacts: bool,
    /// Whether what debos takes is a warning at most.
    pub lenient: bool,
}

impl CheckContext<'_> {
    /// An error at the value of a property (`packages[2]`), with the includes that led there.
    pub fn error(&self, property: &str, message: impl Into<String>) -> Diagnostic {
        self.placed(Diagnostic::error(message, self.spans.value(property)))
    }

    /// A warning at the value of a property.
    pub fn warning(&self, property: &str, message: impl Into<String>) -> Diagnostic {
        self.placed(Diagnostic::warning(message, self.spans.value(property)))
    }

    /// Refuses a login in an address at the value of a property; `instead` is the way out.
    pub fn refuse_login(&self, property: &str, text: &str, instead: &str, out: &mut Diagnostics) {
        if has_login(text) {
            out.push(
                self.error(
                    property,
                    "the address has a login in it, which would stay in the image, the plan and the log",
                )
                .hint(instead),
            );
        }
    }

    fn placed(&self, mut diagnostic: Diagnostic) -> Diagnostic {
        diagnostic.included_from.clone_from(&self.spans.included_from);
        diagnostic
    }
}
