//! Software bills of materials: the packages of a root as an SPDX 2.3 document
//! (<https://spdx.github.io/spdx-spec/v2.3/>), the same bytes for the same root.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::deb822::{self, Paragraph};

/// The media type of the document, as registered.
pub const MEDIA_TYPE: &str = "application/spdx+json";

/// Where the ids of documents come from: the URL namespace of RFC 9562, which this is derived in.
const NAMESPACE: &str = "https://spdx.org/spdxdocs/debforge";

const NO_ASSERTION: &str = "NOASSERTION";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: String,
    document_namespace: String,
    creation_info: Creation,
    packages: Vec<Package>,
    relationships: Vec<Relationship>,
}

#[derive(Serialize)]
struct Creation {
    created: String,
    creators: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Package {
    name: String,
    #[serde(rename = "SPDXID")]
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    version_info: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    supplier: Option<String>,
    download_location: &'static str,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    homepage: Option<String>,
    license_concluded: &'static str,
    license_declared: &'static str,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_package_purpose: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<Reference>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: String,
    relationship_type: &'static str,
    related_spdx_element: String,
}

/// What dpkg says of a package's source: `glibc`, `glibc (2.41-12)`, or nothing where both have one name and version.
pub fn source_of(stanza: &Paragraph) -> (String, String) {
    let package = stanza.get("Package").unwrap_or_default();
    let version = stanza.get("Version").unwrap_or_default();
    match stanza.get("Source").unwrap_or(package).split_once(' ') {
        Some((source, given)) => (source.to_owned(), given.trim_matches(['(', ')', ' ']).to_owned()),
        None => (stanza.get("Source").unwrap_or(package).to_owned(), version.to_owned()),
    }
}

/// The document of a root: `status` is dpkg's, `os_release` the text of os-release(5), `name` what the document
/// is about, `epoch` its date in seconds since 1970.
///
/// # Errors
/// Where the status is no deb822 text.
pub fn spdx(status: &str, os_release: &str, name: &str, epoch: i64) -> Result<Vec<u8>> {
    let release = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim_matches(['"', '\'']).to_owned())
    };
    let vendor = release("ID").unwrap_or_else(|| "debian".to_owned());
    let distro = match (release("VERSION_CODENAME"), release("VERSION_ID")) {
        (Some(codename), _) => Some(codename),
        (None, Some(version)) => Some(format!("{vendor}-{version}")),
        (None, None) => None,
    };
    let system = Package {
        source_info: None,
        primary_package_purpose: Some("OPERATING-SYSTEM"),
        ..Package::new(&vendor, "SPDXRef-OperatingSystem".into(), release("VERSION_ID").unwrap_or_default())
    };
    let mut packages = BTreeMap::new();
    let mut sources = BTreeMap::new();
    let mut relationships = vec![Relationship::new("SPDXRef-DOCUMENT", "DESCRIBES", &system.id)];
    let stanzas = deb822::parse(status).context("reading dpkg's status")?;
    for stanza in stanzas.iter().filter(|stanza| stanza.get("Status").is_some_and(|text| text.ends_with(" installed")))
    {
        let field = |name: &str| stanza.get(name).unwrap_or_default().to_owned();
        let (package, version, architecture) = (field("Package"), field("Version"), field("Architecture"));
        let (source, source_version) = source_of(stanza);
        let id = element("Package", &[&package, &architecture]);
        let source_id = element("Source", &[&source, &source_version]);
        let qualifiers = |architecture: &str| match &distro {
            Some(distro) => format!("arch={architecture}&distro={}", percent(distro)),
            None => format!("arch={architecture}"),
        };
        let purl = |name: &str, version: &str, architecture: &str| {
            let (name, version) = (percent(name), percent(version));
            Reference::purl(format!("pkg:deb/{vendor}/{name}@{version}?{}", qualifiers(architecture)))
        };
        let supplier = stanza.get("Maintainer").and_then(spdx_person);
        packages.insert(
            id.clone(),
            Package {
                supplier,
                homepage: stanza.get("Homepage").filter(|text| text.contains("://")).map(str::to_owned),
                source_info: Some(format!("built package from: {source} {source_version}")),
                external_refs: vec![purl(&package, &version, &architecture)],
                ..Package::new(&package, id.clone(), version.clone())
            },
        );
        sources.entry(source_id.clone()).or_insert_with(|| Package {
            primary_package_purpose: Some("SOURCE"),
            external_refs: vec![purl(&source, &source_version, "source")],
            ..Package::new(&source, source_id.clone(), source_version.clone())
        });
        relationships.push(Relationship::new(&system.id, "CONTAINS", &id));
        relationships.push(Relationship::new(&id, "GENERATED_FROM", &source_id));
    }
    relationships[1..].sort_by(|a, b| a.key().cmp(&b.key()));
    let created = Timestamp::from_second(epoch).context("the date of the document is out of range")?;
    let mut document = Document {
        spdx_version: "SPDX-2.3",
        data_license: "CC0-1.0",
        id: "SPDXRef-DOCUMENT",
        name: name.to_owned(),
        document_namespace: String::new(),
        creation_info: Creation {
            created: created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            creators: vec![format!("Tool: debforge-{}", env!("CARGO_PKG_VERSION"))],
        },
        packages: std::iter::once(system).chain(packages.into_values()).chain(sources.into_values()).collect(),
        relationships,
    };
    // Another document has another namespace, and the same one the same.
    let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, &[NAMESPACE.as_bytes(), &serde_json::to_vec(&document)?].concat());
    document.document_namespace = format!("{NAMESPACE}/{id}");
    let mut text = serde_json::to_vec_pretty(&document)?;
    text.push(b'\n');
    Ok(text)
}

impl Package {
    fn new(name: &str, id: String, version_info: String) -> Self {
        Self {
            name: name.to_owned(),
            id,
            version_info,
            supplier: None,
            download_location: NO_ASSERTION,
            files_analyzed: false,
            homepage: None,
            license_concluded: NO_ASSERTION,
            license_declared: NO_ASSERTION,
            copyright_text: NO_ASSERTION,
            source_info: None,
            primary_package_purpose: None,
            external_refs: Vec::new(),
        }
    }
}

impl Reference {
    fn purl(reference_locator: String) -> Self {
        Self { reference_category: "PACKAGE-MANAGER", reference_type: "purl", reference_locator }
    }
}

impl Relationship {
    fn new(element: &str, relationship_type: &'static str, related: &str) -> Self {
        Self { spdx_element_id: element.to_owned(), relationship_type, related_spdx_element: related.to_owned() }
    }

    fn key(&self) -> (&str, &str, &str) {
        (&self.spdx_element_id, self.relationship_type, &self.related_spdx_element)
    }
}

/// `Person: Jane Doe (jane@example.org)`, or an organisation where the name says so.
fn spdx_person(maintainer: &str) -> Option<String> {
    let (name, address) = maintainer.split_once('<')?;
    let (name, address) = (name.trim().trim_matches('"'), address.trim_end_matches(['>', ' ']));
    let team = ["team", "group", "maintainers", "developers", "project"];
    let kind = if team.iter().any(|word| name.to_lowercase().contains(word)) { "Organization" } else { "Person" };
    Some(format!("{kind}: {name} ({address})"))
}

/// An id of letters, digits, `.` and `-`. Other characters are written by their numbers, so that no two names meet.
fn element(kind: &str, parts: &[&str]) -> String {
    let mut id = format!("SPDXRef-{kind}");
    for part in parts {
        id.push('-');
        for character in part.chars() {
            match character {
                'a'..='z' | 'A'..='Z' | '0'..='9' | '.' => id.push(character),
                '-' => id.push_str("--"),
                other => id.push_str(&format!("-x{:x}.", u32::from(other))),
            }
        }
    }
    id
}

/// Percent-encoding as package URLs want it.
fn percent(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => encoded.push(char::from(byte)),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    const STATUS: &str = "Package: libc6\nStatus: install ok installed\nMaintainer: GNU Libc Maintainers <debian-glibc@lists.debian.org>\nArchitecture: amd64\nSource: glibc\nVersion: 2.41-12\n\nPackage: libstdc++6\nStatus: install ok installed\nMaintainer: Jane Doe <jane@example.org>\nArchitecture: amd64\nSource: gcc-14 (14.2.0-19)\nVersion: 1:14.2.0-19+b1\n\nPackage: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n";
    const RELEASE: &str = "ID=debian\nVERSION_ID=\"13\"\nVERSION_CODENAME=trixie\n";

    fn document() -> Value {
        serde_json::from_slice(&spdx(STATUS, RELEASE, "test", 1_700_000_000).unwrap()).unwrap()
    }

    #[test]
    fn packages_have_their_sources() {
        let document = document();
        let packages = document["packages"].as_array().unwrap();
        let names: Vec<_> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["debian", "libc6", "libstdc++6", "gcc-14", "glibc"]);
        assert_eq!(packages[2]["sourceInfo"], "built package from: gcc-14 14.2.0-19");
        assert_eq!(
            packages[2]["externalRefs"][0]["referenceLocator"],
            "pkg:deb/debian/libstdc%2B%2B6@1%3A14.2.0-19%2Bb1?arch=amd64&distro=trixie"
        );
        assert_eq!(packages[1]["supplier"], "Organization: GNU Libc Maintainers (debian-glibc@lists.debian.org)");
        assert_eq!(packages[2]["supplier"], "Person: Jane Doe (jane@example.org)");
    }

    #[test]
    fn relationships_are_between_elements() {
        let document = document();
        let packages = document["packages"].as_array().unwrap();
        let mut ids: BTreeSet<&str> = packages.iter().map(|package| package["SPDXID"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), packages.len());
        ids.insert("SPDXRef-DOCUMENT");
        for id in &ids {
            assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c)), "{id}");
        }
        let relationships = document["relationships"].as_array().unwrap();
        assert_eq!(relationships.len(), 5);
        for relationship in relationships {
            assert!(ids.contains(relationship["spdxElementId"].as_str().unwrap()));
            assert!(ids.contains(relationship["relatedSpdxElement"].as_str().unwrap()));
        }
    }

    #[test]
    fn the_same_packages_give_the_same_document() {
        assert_eq!(document(), document());
        assert_eq!(document()["creationInfo"]["created"], "2023-11-14T22:13:20Z");
        let other: Value = serde_json::from_slice(&spdx(STATUS, RELEASE, "other", 1_700_000_000).unwrap()).unwrap();
        assert_ne!(other["documentNamespace"], document()["documentNamespace"]);
    }
}
