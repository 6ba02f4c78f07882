//! What a recipe's `compression` can say of a file system.

use crate::image::FilesystemKind;

/// Names that a kind of file system knows, the usual one first; none where it does not compress.
pub fn compressions(kind: FilesystemKind) -> &'static [&'static str] {
    match kind {
        FilesystemKind::Btrfs => &["zstd", "zlib", "lzo"],
        FilesystemKind::Erofs => &["lz4hc", "lz4", "zstd", "deflate", "lzma"],
        FilesystemKind::Squashfs => &["zstd", "gzip", "xz", "lz4", "lzo"],
        FilesystemKind::F2fs => &["lz4", "lzo"],
        _ => &[],
    }
}

/// `zstd:3` as its name and level.
pub(super) fn parts(text: &str) -> (&str, Option<&str>) {
    match text.split_once([':', ',']) {
        Some((name, level)) => (name, Some(level)),
        None => (text, None),
    }
}
