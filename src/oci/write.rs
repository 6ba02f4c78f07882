//! Layouts, written.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use oci_spec::image::{Descriptor, ImageIndexBuilder, MediaType, SCHEMA_VERSION};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// What `oci-layout` says.
const MARK: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// A layout in the making: a directory of blobs, each under its digest.
pub struct Writer {
    directory: PathBuf,
}

/// A document as bytes, the keys of its maps in order: the types of the specification keep them in none.
pub fn canonical(document: &impl Serialize) -> Result<Vec<u8>> {
    fn sorted(value: Value) -> Value {
        match value {
            Value::Object(map) => {
                let mut pairs: Vec<(String, Value)> = map.into_iter().map(|(key, v)| (key, sorted(v))).collect();
                pairs.sort_by(|a, b| a.0.cmp(&b.0));
                Value::Object(pairs.into_iter().collect())
            }
            Value::Array(list) => Value::Array(list.into_iter().map(sorted).collect()),
            other => other,
        }
    }
    Ok(serde_json::to_vec(&sorted(serde_json::to_value(document)?))?)
}

impl Writer {
    /// Begins one in an empty directory.
    pub fn create(directory: &Path) -> Result<Self> {
        let doing = || format!("making the layout {}", directory.display());
        fs::create_dir_all(directory.join("blobs/sha256")).with_context(doing)?;
        fs::write(directory.join("oci-layout"), MARK).with_context(doing)?;
        Ok(Self { directory: directory.to_owned() })
    }

    fn path(&self, sha256: &str) -> PathBuf {
        self.directory.join("blobs/sha256").join(sha256)
    }

    /// A file that a blob may be written to, on the same file system.
    pub fn partial(&self, name: &str) -> Result<(PathBuf, File)> {
        let path = self.directory.join(format!("partial-{name}"));
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        Ok((path.clone(), file.with_context(|| format!("making {}", path.display()))?))
    }

    /// Takes over a file of [`Writer::partial`], whose digest is given.
    pub fn adopt(&self, partial: &Path, sha256: &str, size: u64, media_type: MediaType) -> Result<Descriptor> {
        fs::rename(partial, self.path(sha256)).with_context(|| format!("naming the blob {sha256}"))?;
        descriptor(media_type, size, sha256)
    }

    /// Adds a blob.
    pub fn add(&self, bytes: &[u8], media_type: MediaType) -> Result<Descriptor> {
        let sha256 = hex::encode(Sha256::digest(bytes));
        fs::write(self.path(&sha256), bytes).with_context(|| format!("writing the blob {sha256}"))?;
        descriptor(media_type, bytes.len() as u64, &sha256)
    }

    /// Adds a document.
    pub fn add_document(&self, document: &impl Serialize, media_type: MediaType) -> Result<Descriptor> {
        self.add(&canonical(document)?, media_type)
    }

    /// Says what is in the layout, which ends it.
    pub fn finish(self, manifests: Vec<Descriptor>) -> Result<Finished> {
        let index = ImageIndexBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageIndex)
            .manifests(manifests)
            .build()?;
        fs::write(self.directory.join("index.json"), canonical(&index)?).context("writing the layout's index")?;
        Ok(Finished { directory: self.directory })
    }
}

fn descriptor(media_type: MediaType, size: u64, sha256: &str) -> Result<Descriptor> {
    let digest: oci_spec::image::Digest = format!("sha256:{sha256}").parse().context("reading a digest")?;
    Ok(Descriptor::new(media_type, size, digest))
}

/// A whole layout.
pub struct Finished {
    directory: PathBuf,
}

impl Finished {
    /// Its files, relative to its directory, in order.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let blobs = self.directory.join("blobs/sha256");
        let mut names = vec![PathBuf::from("index.json"), PathBuf::from("oci-layout")];
        for blob in fs::read_dir(&blobs).with_context(|| format!("reading {}", blobs.display()))? {
            names.push(Path::new("blobs/sha256").join(blob?.file_name()));
        }
        names.sort();
        Ok(names)
    }

    /// Moves its files into another directory of the same file system; the index comes last.
    pub fn move_to(self, target: &Path) -> Result<()> {
        fs::create_dir_all(target.join("blobs/sha256")).with_context(|| format!("making {}", target.display()))?;
        for name in self.files()? {
            let to = target.join(&name);
            fs::rename(self.directory.join(&name), &to).with_context(|| format!("naming {}", to.display()))?;
        }
        Ok(())
    }

    /// Writes it as an oci-archive: its files in a tar archive.
    pub fn archive(&self, to: &mut impl Write) -> Result<()> {
        let doing = "writing the archive";
        let mut archive = tar::Builder::new(to);
        for directory in ["blobs/", "blobs/sha256/"] {
            archive.append_data(&mut header(tar::EntryType::Directory, 0o755, 0), directory, &[][..]).context(doing)?;
        }
        for name in self.files()? {
            let file = File::open(self.directory.join(&name)).context(doing)?;
            let size = file.metadata().context(doing)?.len();
            archive.append_data(&mut header(tar::EntryType::Regular, 0o644, size), &name, file).context(doing)?;
        }
        archive.finish().context(doing)
    }
}

/// With no owner and no date, which mean nothing here.
fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}
