//! Images of several architectures under one name.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result};
use oci_spec::image::{
    Arch, Descriptor, ImageConfiguration, ImageIndexBuilder, ImageManifest, MediaType, Os, Platform, PlatformBuilder,
    SCHEMA_VERSION,
};

use super::{Finished, Layout, REF_NAME, Tag, Writer, platform_name};
use crate::diagnostics::Fault;

/// Copies all images of some layouts, each with its name, into one, under one index that is called `tag`; what refers
/// to the images (SBOMs) comes along. The digest of the index, and the names of the platforms.
///
/// # Errors
/// Two images for the same platform; a blob that is not what its digest says.
pub fn join(
    layouts: &[(String, Layout)],
    into: Writer,
    annotations: BTreeMap<String, String>,
    tag: &Tag,
) -> Result<(Finished, String, Vec<String>)> {
    let mut images: BTreeMap<String, (&str, Descriptor)> = BTreeMap::new();
    let mut referrers: BTreeMap<String, Descriptor> = BTreeMap::new();
    let mut copied = HashSet::new();
    for (name, layout) in layouts {
        let reading = || format!("reading {name}");
        for (mut descriptor, manifest) in layout.manifests().with_context(reading)? {
            let blobs = manifest.layers().iter().chain([manifest.config(), &descriptor]);
            for blob in blobs.filter(|blob| copied.insert(blob.digest().to_string())) {
                layout.copy(blob, &into).with_context(reading)?;
            }
            if *manifest.config().media_type() != MediaType::ImageConfig {
                referrers.insert(descriptor.digest().to_string(), descriptor);
                continue;
            }
            let platform = platform_of(layout, &descriptor, &manifest).with_context(reading)?;
            let shown = platform_name(&platform);
            descriptor.set_platform(Some(platform));
            descriptor.set_annotations(None);
            if let Some((other, _)) = images.insert(shown.clone(), (name, descriptor)) {
                return Err(Fault::failed(format!("`{other}` and `{name}` both have an image for {shown}"))
                    .hint("an index has one image for each architecture")
                    .into());
            }
        }
    }
    let platforms = images.keys().cloned().collect();
    let mut builder = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(images.into_values().map(|(_, descriptor)| descriptor).collect::<Vec<_>>());
    if !annotations.is_empty() {
        builder = builder.annotations(annotations.into_iter().collect::<HashMap<_, _>>());
    }
    let mut index = into.add_document(&builder.build()?, MediaType::ImageIndex)?;
    let digest = index.digest().to_string();
    index.set_annotations(Some(HashMap::from([(REF_NAME.to_owned(), tag.to_string())])));
    let manifests = std::iter::once(index).chain(referrers.into_values()).collect();
    Ok((into.finish(manifests)?, digest, platforms))
}

/// The platform of an image: its descriptor says so, or its configuration.
fn platform_of(layout: &Layout, descriptor: &Descriptor, manifest: &ImageManifest) -> Result<Platform> {
    if let Some(platform) = descriptor.platform() {
        return Ok(platform.clone());
    }
    let config: ImageConfiguration = layout.document(manifest.config())?;
    let (architecture, os): (&Arch, &Os) = (config.architecture(), config.os());
    let mut builder = PlatformBuilder::default().architecture(architecture.clone()).os(os.clone());
    if let Some(variant) = config.variant() {
        builder = builder.variant(variant.clone());
    }
    Ok(builder.build()?)
}
