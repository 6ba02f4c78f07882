//! Layers of an image, one over the other (OCI image layer specification).

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::catalogue::Catalogue;
use super::{Entry, EntryKind, Tar, Tree};

/// What marks a file of the layers below as gone, before its name.
const WHITEOUT: &str = ".wh.";
/// What marks all files of the layers below as gone.
const OPAQUE: &str = ".wh..wh..opq";

/// An image's files as a container sees them.
pub struct Layers {
    layers: Vec<Tar>,
    /// With the number of the layer that has the contents.
    files: Catalogue<usize>,
}

impl Layers {
    /// Puts layers together, the lowest first.
    pub fn new(layers: Vec<Tar>) -> Result<Self> {
        let mut files: Catalogue<usize> = Catalogue::new();
        for (number, layer) in layers.iter().enumerate() {
            let mut entries = Vec::new();
            (layer as &dyn Tree).walk(&mut |entry| {
                entries.push(entry);
                Ok(())
            })?;
            // Marks mean the layers below, wherever they stand in this one.
            for (parent, name) in entries.iter().filter_map(mark) {
                match name {
                    None => files.clear(parent),
                    Some(name) => files.remove(&parent.join(name)),
                }
            }
            for entry in entries.into_iter().filter(|entry| mark(entry).is_none()) {
                let directory = entry.kind == EntryKind::Directory;
                let there = files.get(&entry.path).map(|(there, _)| there.kind.clone());
                match there {
                    // Not in the archive itself, but something below it is.
                    Some(EntryKind::Directory) if directory && entry.owner.is_none() => continue,
                    Some(EntryKind::Directory) if !directory => files.remove(&entry.path),
                    _ => {}
                }
                files.add(entry, number);
            }
        }
        Ok(Self { layers, files })
    }
}

/// The directory that a mark is in, and the name that it takes away; no name where it takes all.
fn mark(entry: &Entry) -> Option<(&Path, Option<PathBuf>)> {
    let (parent, name) = (entry.path.parent()?, entry.path.file_name()?.to_str()?);
    if name == OPAQUE {
        return Some((parent, None));
    }
    Some((parent, Some(name.strip_prefix(WHITEOUT)?.into())))
}

impl Tree for Layers {
    fn list(&self, directory: &Path) -> Result<Vec<Entry>> {
        Ok(self.files.list(directory))
    }

    fn open(&self, file: &Path) -> Result<Box<dyn Read + '_>> {
        let (_, layer) = self.files.get(file).with_context(|| format!("{} is not in the image", file.display()))?;
        self.layers[*layer].open(file)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::inspect::Window;

    fn layer(files: &[(&str, &str)]) -> Tar {
        let mut archive = tar::Builder::new(tempfile::tempfile().unwrap());
        for (path, text) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        let file: File = archive.into_inner().unwrap();
        Tar::open(Window::whole(file).unwrap()).unwrap()
    }

    #[test]
    fn marks_take_away_what_is_below() {
        let lower = layer(&[("etc/a", "1"), ("etc/b", "1"), ("opt/x/y", "1"), ("var/z", "1")]);
        let upper =
            layer(&[("etc/.wh.a", ""), ("etc/b", "2"), ("opt/.wh..wh..opq", ""), ("opt/new", "2"), ("var", "2")]);
        let image = Layers::new(vec![lower, upper]).unwrap();
        let tree: &dyn Tree = &image;
        assert_eq!(tree.text("etc/a").unwrap(), None);
        assert_eq!(tree.text("etc/b").unwrap().as_deref(), Some("2"));
        assert_eq!(tree.text("opt/x/y").unwrap(), None);
        assert_eq!(tree.text("opt/new").unwrap().as_deref(), Some("2"));
        assert_eq!(tree.text("var").unwrap().as_deref(), Some("2"));
        assert_eq!(tree.list(Path::new("var")).unwrap(), []);
    }
}
