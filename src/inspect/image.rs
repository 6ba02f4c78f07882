//! Container images: OCI layouts and archives of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

use anyhow::{Context, Result};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest, MediaType};
use serde::Serialize;

use super::source::write_sparse;
use super::tree::{Layers, Tar};
use super::{Tree, Window, Workplace};
use crate::build::archive::Compression;
use crate::oci::{self, Layout, SOURCES};

/// An image of a layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Image {
    /// `linux/amd64`.
    pub platform: String,
    /// Of its manifest.
    pub digest: String,
    /// What it is called.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// How containers are started, labels and annotations: what has a value.
    pub configuration: BTreeMap<String, String>,
    /// The lowest first.
    pub layers: Vec<Layer>,
    /// Media types of what refers to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub referrers: Vec<String>,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Layer {
    /// As a client fetches it.
    pub digest: String,
    /// As a client fetches it, in bytes.
    pub size: u64,
    /// Source packages in it, where debforge made it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
}

impl Image {
    /// Of all layers as a client fetches them, in bytes.
    pub fn size(&self) -> u64 {
        let layers: BTreeMap<&str, u64> = self.layers.iter().map(|layer| (layer.digest.as_str(), layer.size)).collect();
        layers.values().sum()
    }

    fn of(layout: &Layout, descriptor: &Descriptor, manifest: &ImageManifest) -> Result<Self> {
        let config: ImageConfiguration = layout.document(manifest.config())?;
        let platform = match descriptor.platform() {
            Some(platform) => oci::platform_name(platform),
            None => format!("{}/{}", config.os(), config.architecture()),
        };
        let layers = manifest.layers().iter().map(|layer| {
            let sources = layer.annotations().as_ref().and_then(|all| all.get(SOURCES));
            let sources = sources.map(|text| text.split_whitespace().map(str::to_owned).collect()).unwrap_or_default();
            Layer { digest: layer.digest().to_string(), size: layer.size(), sources }
        });
        Ok(Self {
            platform,
            digest: descriptor.digest().to_string(),
            tags: layout.tags()?,
            configuration: configuration(&config, manifest)?,
            layers: layers.collect(),
            referrers: Vec::new(),
        })
    }
}

/// What the image says of itself, flat: `cmd`, `env PATH`, `label containers.bootc`.
fn configuration(config: &ImageConfiguration, manifest: &ImageManifest) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let mut put = |name: String, value: String| {
        if !value.is_empty() {
            all.insert(name, value);
        }
    };
    if let Some(config) = config.config() {
        let list = |words: &Option<Vec<String>>| words.as_ref().map(|words| words.join(" ")).unwrap_or_default();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        put("entrypoint".into(), list(config.entrypoint()));
        put("cmd".into(), list(config.cmd()));
        put("user".into(), text(config.user()));
        put("workdir".into(), text(config.working_dir()));
        put("exposed ports".into(), list(config.exposed_ports()));
        put("volumes".into(), list(config.volumes()));
        put("stop signal".into(), text(config.stop_signal()));
        for variable in config.env().iter().flatten() {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            put(format!("env {name}"), value.to_owned());
        }
        for (name, value) in config.labels().iter().flatten() {
            put(format!("label {name}"), value.clone());
        }
    }
    for (name, value) in manifest.annotations().iter().flatten() {
        put(format!("annotation {name}"), value.clone());
    }
    Ok(all)
}

/// The images of a layout, each with its files.
pub(super) fn open(layout: &Layout, workplace: &Workplace<'_>) -> Result<Vec<(Image, Box<dyn Tree>)>> {
    let mut images = Vec::new();
    for (descriptor, manifest) in layout.images()? {
        let mut image = Image::of(layout, &descriptor, &manifest)?;
        image.referrers = referrers(layout, &descriptor)?;
        let layers = manifest.layers().iter().map(|layer| {
            layer_tree(layout, layer, workplace).with_context(|| format!("reading the layer {}", layer.digest()))
        });
        let tree = Layers::new(layers.collect::<Result<Vec<_>>>()?)?;
        images.push((image, Box::new(tree) as Box<dyn Tree>));
    }
    Ok(images)
}

fn referrers(layout: &Layout, subject: &Descriptor) -> Result<Vec<String>> {
    let manifests = layout.manifests()?;
    let about = manifests
        .iter()
        .filter(|(_, manifest)| manifest.subject().as_ref().is_some_and(|other| other.digest() == subject.digest()));
    let kinds: BTreeSet<String> =
        about.filter_map(|(_, manifest)| manifest.artifact_type().as_ref().map(ToString::to_string)).collect();
    Ok(kinds.into_iter().collect())
}

fn layer_tree(layout: &Layout, layer: &Descriptor, workplace: &Workplace<'_>) -> Result<Tar> {
    let (file, start, size) = layout.blob(layer)?;
    let window = Window::whole(file)?.part(start, size);
    let compression = match layer.media_type() {
        MediaType::ImageLayer => Compression::None,
        _ => window.array_at::<16>(0).and_then(|head| Compression::by_content(&head)).unwrap_or(Compression::None),
    };
    if compression == Compression::None {
        return Tar::open(window);
    }
    let path = workplace.fresh("layer")?;
    let to = File::options().read(true).write(true).create_new(true).open(&path)?;
    // The reader takes a file from where it stands.
    let mut from = window.file().try_clone()?;
    std::io::Seek::seek(&mut from, std::io::SeekFrom::Start(start))?;
    write_sparse(&mut compression.reader(from, size)?, &to)?;
    Tar::open(Window::whole(to)?)
}
