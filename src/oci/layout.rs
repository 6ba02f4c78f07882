//! Layouts, read: directories and oci-archives.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::{REF_NAME, Writer};
use crate::diagnostics::Fault;

/// Documents beyond this are not taken seriously.
const LARGEST_DOCUMENT: u64 = 16 << 20;

/// Indexes may stand in indexes, but hardly so deep.
const DEEPEST: usize = 4;

/// A layout that can be read. Nothing in it is trusted: blobs are compared with their digests.
pub struct Layout {
    place: Place,
}

enum Place {
    Directory(PathBuf),
    /// Where each member's bytes are: offset and length.
    Archive(File, HashMap<PathBuf, (u64, u64)>),
}

/// Whether a path is a layout directory.
pub fn is_layout(path: &Path) -> bool {
    path.join("oci-layout").is_file()
}

impl Layout {
    /// Opens a directory or an archive; `None` where it is neither.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        if path.is_dir() {
            return Ok(is_layout(path).then(|| Self { place: Place::Directory(path.to_owned()) }));
        }
        Self::of_archive(File::open(path).with_context(|| format!("opening {}", path.display()))?)
    }

    /// An archive that is not compressed; `None` where it is no oci-archive.
    pub fn of_archive(mut file: File) -> Result<Option<Self>> {
        file.seek(SeekFrom::Start(0))?;
        let mut members = HashMap::new();
        let mut archive = tar::Archive::new(&file);
        let Ok(entries) = archive.entries_with_seek() else { return Ok(None) };
        for entry in entries {
            let Ok(entry) = entry else { break };
            let path = entry.path().context("reading the archive")?;
            let path = path.strip_prefix("./").unwrap_or(&path).to_owned();
            members.insert(path, (entry.raw_file_position(), entry.size()));
        }
        let place = members.contains_key(Path::new("oci-layout")).then_some(Place::Archive(file, members));
        Ok(place.map(|place| Self { place }))
    }

    fn find(&self, name: &Path) -> Result<(File, u64, u64)> {
        let missing = || Fault::failed(format!("the layout has no {}", name.display()));
        match &self.place {
            Place::Directory(directory) => {
                let file = File::open(directory.join(name)).map_err(|_| missing())?;
                let size = file.metadata()?.len();
                Ok((file, 0, size))
            }
            Place::Archive(file, members) => {
                let (start, size) = members.get(name).ok_or_else(missing)?;
                Ok((file.try_clone()?, *start, *size))
            }
        }
    }

    /// The file that a blob is in, and its offset and length in it.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<(File, u64, u64)> {
        let Some(sha256) = descriptor.as_digest_sha256() else {
            bail!("the digest {} is not a sha256", descriptor.digest());
        };
        let found = self.find(&Path::new("blobs/sha256").join(sha256))?;
        ensure!(found.2 == descriptor.size(), "the blob {sha256} has {} bytes, not {}", found.2, descriptor.size());
        Ok(found)
    }

    /// A blob's bytes, as they stand.
    fn bytes(&self, (file, start, size): (File, u64, u64)) -> Result<Vec<u8>> {
        ensure!(size <= LARGEST_DOCUMENT, "a document of {size} bytes is too large");
        let mut bytes = vec![0; usize::try_from(size)?];
        file.read_exact_at(&mut bytes, start)?;
        Ok(bytes)
    }

    /// A document that a descriptor names, compared with its digest.
    pub fn document<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T> {
        serde_json::from_slice(&self.document_bytes(descriptor)?)
            .with_context(|| format!("reading the document {}", descriptor.digest()))
    }

    /// The same as bytes.
    pub fn document_bytes(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let bytes = self.bytes(self.blob(descriptor)?)?;
        ensure!(
            descriptor.as_digest_sha256() == Some(hex::encode(Sha256::digest(&bytes)).as_str()),
            "the blob {} is not what its digest says",
            descriptor.digest()
        );
        Ok(bytes)
    }

    /// What is in it.
    pub fn index(&self) -> Result<ImageIndex> {
        let bytes = self.bytes(self.find(Path::new("index.json"))?)?;
        serde_json::from_slice(&bytes).context("reading the layout's index")
    }

    /// The file that its index is in, and its offset and length in it.
    pub fn index_window(&self) -> Result<(File, u64, u64)> {
        self.find(Path::new("index.json"))
    }

    /// The images in it: descriptor and manifest of each, those of indexes too; no artifacts such as SBOMs.
    pub fn images(&self) -> Result<Vec<(Descriptor, ImageManifest)>> {
        let all = self.manifests()?;
        Ok(all.into_iter().filter(|(_, manifest)| *manifest.config().media_type() == MediaType::ImageConfig).collect())
    }

    /// Every manifest in it, with its descriptor.
    pub fn manifests(&self) -> Result<Vec<(Descriptor, ImageManifest)>> {
        let mut found = Vec::new();
        self.collect(self.index()?, 0, &mut found)?;
        Ok(found)
    }

    fn collect(&self, index: ImageIndex, depth: usize, into: &mut Vec<(Descriptor, ImageManifest)>) -> Result<()> {
        ensure!(depth < DEEPEST, "the layout's indexes are nested too deep");
        for descriptor in index.manifests() {
            match descriptor.media_type() {
                MediaType::ImageIndex => self.collect(self.document(descriptor)?, depth + 1, into)?,
                MediaType::ImageManifest => into.push((descriptor.clone(), self.document(descriptor)?)),
                _ => {}
            }
        }
        Ok(())
    }

    /// The name that a manifest is asked for by.
    pub fn tags(&self) -> Result<Vec<String>> {
        let index = self.index()?;
        let names = index.manifests().iter().filter_map(|manifest| manifest.annotations().as_ref()?.get(REF_NAME));
        Ok(names.cloned().collect())
    }

    /// Copies a blob into another layout, compared with its digest on the way.
    pub fn copy(&self, descriptor: &Descriptor, into: &Writer) -> Result<()> {
        let (file, start, size) = self.blob(descriptor)?;
        let sha256 = descriptor.as_digest_sha256().unwrap_or_default();
        let (path, to) = into.partial(sha256)?;
        let (mut hasher, mut buffer, mut at) = (Sha256::new(), vec![0; 1 << 20], 0);
        while at < size {
            let part = usize::try_from((size - at).min(buffer.len() as u64))?;
            file.read_exact_at(&mut buffer[..part], start + at)?;
            hasher.update(&buffer[..part]);
            to.write_all_at(&buffer[..part], at)?;
            at += part as u64;
        }
        ensure!(hex::encode(hasher.finalize()) == sha256, "the blob {sha256} is not what its digest says");
        into.adopt(&path, sha256, size, descriptor.media_type().clone()).map(drop)
    }
}

/// The manifest that a file is about: a manifest itself, or the first image of a layout.
pub fn manifest_of(path: &Path) -> Result<ImageManifest> {
    let reading = || format!("reading {}", path.display());
    if path.is_file() {
        let mut start = [0; 1];
        let read = File::open(path).with_context(reading)?.read(&mut start).with_context(reading)?;
        if read == 1 && start[0] == b'{' {
            return serde_json::from_slice(&fs::read(path).with_context(reading)?).with_context(reading);
        }
    }
    let layout = Layout::open(path).with_context(reading)?;
    let image = layout.map(|layout| layout.images()).transpose()?.and_then(|images| images.into_iter().next());
    image.map(|(_, manifest)| manifest).ok_or_else(|| {
        Fault::recipe(format!("{} is no OCI image", path.display()))
            .hint("it is a layout directory, an oci-archive or a manifest")
            .into()
    })
}
