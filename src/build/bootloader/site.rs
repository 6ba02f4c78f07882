//! The root that a boot loader is installed into.

use std::ops::Deref;

use anyhow::{Context, Result};

use super::cmdline;
use crate::build::BuildContext;
use crate::build::files::RootFiles;
use crate::diagnostics::Fault;
use crate::image::Spec;

/// What a recipe says of any boot loader.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The kernel command line in the place of the system's own.
    pub kernel_cmdline: Option<String>,
    /// Further words of it.
    pub append: Option<String>,
    /// Seconds that the menu waits; the loader's own default where nothing is said.
    pub timeout: Option<u32>,
    /// A console of the kernel's beside the screen: `ttyS0` or `ttyS0,115200`.
    pub console: Option<String>,
    /// Whether firmware that knows nothing of the disk finds the loader.
    pub removable: bool,
    /// Whether only signed programs will do (`true`), or none are taken (`false`).
    pub secure_boot: Option<bool>,
}

/// A root, the image that it goes to, and what the recipe says of its boot loader.
pub struct Site<'a> {
    /// Runs programs, logs.
    pub cx: &'a BuildContext<'a>,
    /// The image.
    pub spec: &'a Spec,
    /// The deploy that the root is.
    pub slot: Option<&'a str>,
    /// The root.
    pub files: RootFiles,
    /// Words of the kernel command line.
    pub words: Vec<String>,
    /// What the recipe says.
    pub options: Options,
}

/// A kernel of the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// "6.12.43-amd64".
    pub version: String,
    /// "/boot/vmlinuz-6.12.43-amd64".
    pub image: String,
    /// Likewise, where there is one.
    pub initrd: Option<String>,
}

impl Deref for Site<'_> {
    type Target = RootFiles;

    fn deref(&self) -> &RootFiles {
        &self.files
    }
}

impl<'a> Site<'a> {
    /// The root of a step after a deploy.
    pub fn new(cx: &'a BuildContext<'a>, options: Options) -> Result<Self> {
        let spec = cx.image.context("no step before describes an image")?;
        let slot = spec.deploys.last().context("nothing was deployed")?.slot.as_deref();
        let files = RootFiles::open(cx.root)?;
        let mut site = Self { cx, spec, slot, files, words: Vec::new(), options };
        let line = site.text(cmdline::FILE)?.unwrap_or_default();
        site.words = cmdline::words(spec, slot, &line, &site.options);
        Ok(site)
    }

    /// The kernels of the root, by the order of their names; at least one.
    pub fn kernels(&self) -> Result<Vec<Kernel>> {
        let names = self.names("/boot")?;
        let kernels: Vec<Kernel> = names
            .iter()
            .filter_map(|name| Some((name, name.strip_prefix("vmlinuz-").or_else(|| name.strip_prefix("vmlinux-"))?)))
            .filter(|(_, version)| !is_garbage(version))
            .map(|(name, version)| Kernel {
                version: version.to_owned(),
                image: format!("/boot/{name}"),
                initrd: Some(format!("/boot/initrd.img-{version}")).filter(|path| self.has(path)),
            })
            .collect();
        if kernels.is_empty() {
            return Err(self.missing("the root has no kernel", &[&self.kernel_package()]).into());
        }
        Ok(kernels)
    }

    /// Debian's package of the kernel for the architecture.
    fn kernel_package(&self) -> String {
        match self.cx.architecture.name() {
            "i386" => "linux-image-686-pae".to_owned(),
            "armhf" => "linux-image-armmp".to_owned(),
            "armel" => "linux-image-rpi".to_owned(),
            "ppc64el" => "linux-image-powerpc64le".to_owned(),
            name => format!("linux-image-{name}"),
        }
    }

    /// A fault for packages that the root lacks.
    pub fn missing(&self, what: &str, packages: &[&str]) -> Fault {
        Fault::failed(what)
            .hint(format!("before `filesystem-deploy`: `action: apt` with `packages: [{}]`", packages.join(", ")))
    }

    /// Sets the kernel command line of the system: `words` as they are now.
    pub fn write_cmdline(&self) -> Result<()> {
        self.write(cmdline::FILE, format!("{}\n", self.words.join(" ")))
    }

    /// The console's device, without its settings.
    pub fn console_device(&self) -> Option<&str> {
        self.options.console.as_deref().map(|console| console.split(',').next().unwrap_or(console))
    }

    /// What the system calls itself: a field of os-release(5), or what stands for it.
    pub fn os_release(&self, field: &str, or: &str) -> Result<String> {
        let text = match self.text("/etc/os-release")? {
            Some(text) => Some(text),
            None => self.text("/usr/lib/os-release")?,
        };
        let value = text.as_deref().unwrap_or_default().lines().find_map(|line| {
            let value = line.strip_prefix(field)?.strip_prefix('=')?;
            Some(value.trim_matches(['"', '\'']).to_owned())
        });
        Ok(value.filter(|value| !value.is_empty()).unwrap_or_else(|| or.to_owned()))
    }
}

/// What package managers leave beside kernels.
fn is_garbage(name: &str) -> bool {
    [".dpkg-bak", ".dpkg-new", ".dpkg-tmp", ".old", ".old-dkms", "~"].iter().any(|end| name.ends_with(end))
}
