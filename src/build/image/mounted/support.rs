//! Whether this machine can mount images.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::diagnostics::Fault;
use crate::image::FilesystemKind;

/// Why an image with these file systems cannot be mounted here; `None` where it can, by root.
pub fn refused(kinds: &BTreeSet<FilesystemKind>) -> Option<Fault> {
    if !Path::new("/dev/loop-control").exists() {
        return Some(
            Fault::machine("there are no loop devices here, which `strategy: mounted` needs")
                .hint("load the kernel's `loop` module, and in a container allow its devices")
                .hint("or leave `strategy` out, where no step needs a device"),
        );
    }
    let wanted: BTreeSet<&str> =
        kinds.iter().filter_map(|kind| kind.fstab_type()).filter(|kind| *kind != "swap").collect();
    let unknown: Vec<&str> = wanted.into_iter().filter(|kind| !knows(kind)).collect();
    if unknown.is_empty() {
        return None;
    }
    let fault =
        Fault::machine(format!("this kernel cannot mount {}, which `strategy: mounted` needs", unknown.join(", ")));
    Some(fault.hint("leave `strategy` out, where no step needs a device: offline no file system is mounted"))
}

/// Whether root can mount images with a file system here.
pub fn mounts(kind: &str) -> bool {
    Path::new("/dev/loop-control").exists() && knows(kind)
}

/// Whether the kernel has a file system, or a module for it.
fn knows(kind: &str) -> bool {
    let listed = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if listed.lines().any(|line| line.split_whitespace().next_back() == Some(kind)) {
        return true;
    }
    let Ok(system) = nix::sys::utsname::uname() else { return false };
    let modules = Path::new("/lib/modules").join(system.release());
    ["modules.builtin", "modules.dep"].iter().any(|file| {
        let text = fs::read_to_string(modules.join(file)).unwrap_or_default();
        text.lines().any(|line| line.split(':').next().is_some_and(|path| path.contains(&format!("/{kind}.ko"))))
    })
}
