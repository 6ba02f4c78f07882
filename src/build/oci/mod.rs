//! A root as an OCI image.

mod divide;
mod owners;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;
use oci_spec::image::{
    Config, ConfigBuilder, Descriptor, HistoryBuilder, ImageConfigurationBuilder, ImageManifest, ImageManifestBuilder,
    MediaType, RootFsBuilder, SCHEMA_VERSION,
};

use self::divide::Layer;
use self::owners::Owners;
pub use self::write::LayerCompression;
use super::archive::{PackEntry, PackItem, scan};
use super::packages;
use crate::debian::{Architecture, sbom};
use crate::diagnostics::Fault;
use crate::oci::chunk::Kind;
use crate::oci::{self, Finished, LAYER, REF_NAME, SOURCES, Tag, Writer};

/// What containers are started with.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Settings {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub user: Option<String>,
    pub workdir: Option<String>,
    pub exposed_ports: Vec<String>,
    pub volumes: Vec<String>,
    pub stop_signal: Option<String>,
    pub labels: BTreeMap<String, String>,
}

/// An image to be made.
pub struct Image<'a> {
    /// The root.
    pub root: &'a Path,
    /// An empty directory for the layout and what else there is to be written.
    pub scratch: &'a Path,
    /// What it is for.
    pub architecture: Architecture,
    /// Its date, and the latest of its files', in seconds since 1970.
    pub epoch: i64,
    /// What containers are started with.
    pub settings: Settings,
    /// Of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// How layers are compressed.
    pub compression: LayerCompression,
    /// Of all kinds.
    pub max_layers: usize,
    /// Source packages of each layer of an earlier image.
    pub previous: Vec<Vec<String>>,
    /// Files that are in the image and not in the root, by their paths relative to it.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// What the image is called in its layout.
    pub tag: Tag,
    /// Name of the bill of materials, where there is to be one.
    pub sbom: Option<String>,
}

/// What came of it.
pub struct Made {
    /// The layout.
    pub layout: Finished,
    /// Digest of the image's manifest.
    pub digest: String,
    /// How many layers it has.
    pub layers: usize,
    /// Of the layers, compressed, in bytes.
    pub size: u64,
}

/// The source packages of each layer of packages, as an image's annotations have them.
pub fn division(manifest: &ImageManifest) -> Vec<Vec<String>> {
    let sources = |layer: &Descriptor| {
        let sources = layer.annotations().as_ref()?.get(SOURCES)?;
        Some(sources.split_whitespace().map(str::to_owned).collect())
    };
    manifest.layers().iter().filter_map(sources).collect()
}

impl Image<'_> {
    /// Makes it: the same bytes for the same root, on any machine. `progress` is told how many bytes of files are
    /// done, and of how many.
    pub fn make(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Made> {
        let entries = scan(self.root)?;
        if let Some(entry) = entries.iter().find(|entry| is_whiteout(entry) && !divide::is_left_out(&entry.path)) {
            let path = entry.path.display();
            return Err(Fault::failed(format!(
                "an image cannot hold /{path}: such names mark what is gone from other layers"
            ))
            .hint("remove it before the image is made")
            .into());
        }
        let owners = Owners::of_root(self.root)?;
        let mut layers = divide::layers(self.root, &entries, &owners, &self.previous, self.max_layers);
        let own = self.scratch.join("files");
        let added = if self.files.is_empty() { Vec::new() } else { self.write_files(&own)? };
        if !added.is_empty() {
            layers.push(image_files(self.root, &entries, &own, &added));
        }
        let layout = Writer::create(&self.scratch.join("layout"))?;
        let written = write::layers(&layers, &layout, self.compression, self.epoch, progress)?;
        let config = self.config(&layers, &written)?;
        let config = layout.add_document(&config, MediaType::ImageConfig)?;
        let described: Vec<Descriptor> = layers
            .iter()
            .zip(&written)
            .map(|(layer, written)| {
                let mut annotations = HashMap::from([(LAYER.to_owned(), layer.kind.name().to_owned())]);
                if !layer.sources.is_empty() {
                    annotations.insert(SOURCES.to_owned(), layer.sources.join(" "));
                }
                let mut descriptor = written.descriptor.clone();
                descriptor.set_annotations(Some(annotations));
                descriptor
            })
            .collect();
        let size = described.iter().map(Descriptor::size).sum();
        let mut annotations = self.annotations.clone();
        annotations.entry("org.opencontainers.image.created".into()).or_insert(self.date()?);
        let manifest = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .config(config)
            .layers(described)
            .annotations(annotations.into_iter().collect::<HashMap<_, _>>())
            .build()?;
        let subject = layout.add_document(&manifest, MediaType::ImageManifest)?;
        let mut image = subject.clone();
        image.set_platform(Some(oci::platform(self.architecture)));
        image.set_annotations(Some(HashMap::from([(REF_NAME.to_owned(), self.tag.to_string())])));
        let mut manifests = vec![image];
        if let Some(name) = &self.sbom {
            let document = packages::sbom(self.root, name, self.epoch)?;
            manifests.push(self.referrer(&layout, &subject, &document)?);
        }
        let digest = subject.digest().to_string();
        Ok(Made { layout: layout.finish(manifests)?, digest, layers: layers.len(), size })
    }

    fn date(&self) -> Result<String> {
        let date = Timestamp::from_second(self.epoch).context("the date of the image is out of range")?;
        Ok(date.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    }

    fn config(&self, layers: &[Layer<'_>], written: &[write::Written]) -> Result<oci_spec::image::ImageConfiguration> {
        let platform = oci::platform(self.architecture);
        let date = self.date()?;
        let history = layers.iter().map(|layer| {
            let what = match layer.kind {
                Kind::Packages => layer.sources.join(" "),
                kind => kind.name().to_owned(),
            };
            HistoryBuilder::default().created(date.clone()).created_by(format!("debforge: {what}")).build()
        });
        let diff_ids: Vec<String> = written.iter().map(|layer| layer.diff_id.clone()).collect();
        let mut builder = ImageConfigurationBuilder::default()
            .created(date.clone())
            .architecture(platform.architecture().clone())
            .os(platform.os().clone())
            .config(self.settings.config()?)
            .rootfs(RootFsBuilder::default().typ("layers").diff_ids(diff_ids).build()?)
            .history(history.collect::<Result<Vec<_>, _>>()?);
        if let Some(variant) = platform.variant() {
            builder = builder.variant(variant.clone());
        }
        Ok(builder.build()?)
    }

    /// Adds the bill of materials as an artifact that refers to the image.
    fn referrer(&self, layout: &Writer, subject: &Descriptor, document: &[u8]) -> Result<Descriptor> {
        let kind = MediaType::Other(sbom::MEDIA_TYPE.to_owned());
        let manifest = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .artifact_type(kind.clone())
            .config(layout.add(b"{}", MediaType::EmptyJSON)?)
            .layers(vec![layout.add(document, kind.clone())?])
            .subject(subject.clone())
            .annotations(HashMap::from([("org.opencontainers.image.created".to_owned(), self.date()?)]))
            .build()?;
        let mut descriptor = layout.add_document(&manifest, MediaType::ImageManifest)?;
        descriptor.set_artifact_type(Some(kind));
        Ok(descriptor)
    }

    /// Writes the files that the root does not have.
    fn write_files(&self, directory: &Path) -> Result<Vec<PackEntry>> {
        for (path, contents) in &self.files {
            let mut above = PathBuf::from(directory);
            for part in Path::new("").join(path).parent().into_iter().flat_map(Path::components) {
                above.push(part);
                fs::create_dir_all(&above).with_context(|| format!("making {}", above.display()))?;
                fs::set_permissions(&above, Permissions::from_mode(0o755))?;
            }
            let file = directory.join(path);
            fs::write(&file, contents).with_context(|| format!("writing {}", file.display()))?;
            fs::set_permissions(&file, Permissions::from_mode(0o644))?;
        }
        scan(directory)
    }
}

fn is_whiteout(entry: &PackEntry) -> bool {
    entry.path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".wh."))
}

/// The layer of files that are in the image alone; directories that the root has are as it has them.
fn image_files<'a>(root: &'a Path, entries: &'a [PackEntry], own: &'a Path, added: &'a [PackEntry]) -> Layer<'a> {
    let known: HashMap<&Path, &PackEntry> =
        entries.iter().filter(|entry| entry.meta.is_dir()).map(|entry| (entry.path.as_path(), entry)).collect();
    let items: Vec<PackItem<'a>> = added
        .iter()
        .filter(|entry| !entry.path.as_os_str().is_empty())
        .map(|entry| match known.get(entry.path.as_path()) {
            Some(there) if entry.meta.is_dir() => (root, *there),
            _ => (own, entry),
        })
        .collect();
    Layer { kind: Kind::Image, sources: Vec::new(), items, size: 0 }
}

impl Settings {
    fn config(&self) -> Result<Config> {
        let mut builder = ConfigBuilder::default();
        let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
        if let Some(entrypoint) = some(&self.entrypoint) {
            builder = builder.entrypoint(entrypoint);
        }
        if let Some(cmd) = some(&self.cmd) {
            builder = builder.cmd(cmd);
        }
        if let Some(ports) = some(&self.exposed_ports) {
            builder = builder.exposed_ports(ports);
        }
        if let Some(volumes) = some(&self.volumes) {
            builder = builder.volumes(volumes);
        }
        if let Some(user) = &self.user {
            builder = builder.user(user.clone());
        }
        if let Some(workdir) = &self.workdir {
            builder = builder.working_dir(workdir.clone());
        }
        if let Some(signal) = &self.stop_signal {
            builder = builder.stop_signal(signal.clone());
        }
        if !self.labels.is_empty() {
            builder = builder.labels(self.labels.clone().into_iter().collect::<HashMap<_, _>>());
        }
        // Without a PATH of the image's, containers find nothing of /usr/sbin.
        let mut env = self.env.clone();
        env.entry("PATH".into()).or_insert_with(|| PATH.to_owned());
        let env: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Ok(builder.env(env).build()?)
    }
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
