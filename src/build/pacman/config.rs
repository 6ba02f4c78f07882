//! pacman's configuration (pacman.conf(5)), as far as it says what comes into a root.

use anyhow::{Context, Result, bail};

use crate::debian::Architecture;

/// Where configurations include the list of mirrors from.
pub const MIRROR_LIST: &str = "/etc/pacman.d/mirrorlist";

/// Options that say what comes into the root. The others are paths of a machine, downloads and looks.
const HEEDED: [&str; 7] =
    ["IgnoreGroup", "IgnorePkg", "LocalFileSigLevel", "NoExtract", "NoUpgrade", "RemoteFileSigLevel", "SigLevel"];

/// Configurations that include each other deeper than this do so in a circle (as in pacman).
const MAX_DEPTH: usize = 10;

/// pacman's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Architectures that it names; none for the machine's own (`auto`).
    pub architectures: Vec<String>,
    options: Vec<(String, String)>,
    /// In the order that decides which of them a package comes from.
    pub repositories: Vec<Repository>,
}

/// A repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// `core`.
    pub name: String,
    /// Addresses, with `$repo` and `$arch` in them.
    pub servers: Vec<String>,
    options: Vec<(String, String)>,
}

/// Whether signatures are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SignatureLevel {
    /// They are not looked at.
    Never,
    /// Those that are there have to be good.
    Optional,
    /// They have to be there.
    Required,
}

/// The name that Arch Linux and its ports have for an architecture; `None` where there is no port.
pub fn architecture_name(architecture: Architecture) -> Option<&'static str> {
    match architecture {
        Architecture::Amd64 => Some("x86_64"),
        Architecture::Arm64 => Some("aarch64"),
        Architecture::Armel => Some("arm"),
        Architecture::Armhf => Some("armv7h"),
        Architecture::I386 => Some("i686"),
        Architecture::Loong64 => Some("loong64"),
        Architecture::Riscv64 => Some("riscv64"),
        Architecture::Mips64el | Architecture::Mipsel | Architecture::Ppc64el | Architecture::S390x => None,
    }
}

impl Config {
    /// Reads a configuration; `include` gives the texts of the files that an `Include` means.
    pub fn parse(text: &str, include: &mut dyn FnMut(&str) -> Result<Vec<String>>) -> Result<Self> {
        let mut config = Self::default();
        let mut section = None;
        config.read(text, &mut section, include, 0)?;
        Ok(config)
    }

    fn read(
        &mut self,
        text: &str,
        section: &mut Option<String>,
        include: &mut dyn FnMut(&str) -> Result<Vec<String>>,
        depth: usize,
    ) -> Result<()> {
        if depth > MAX_DEPTH {
            bail!("files include each other more than {MAX_DEPTH} levels deep");
        }
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                if name.is_empty() || name.contains('/') {
                    bail!("line {}: a section without a name", number + 1);
                }
                if name != "options" && self.repositories.iter().all(|repository| repository.name != name) {
                    let name = name.to_owned();
                    self.repositories.push(Repository { name, servers: Vec::new(), options: Vec::new() });
                }
                *section = Some(name.to_owned());
                continue;
            }
            let (key, value) = line.split_once('=').map_or((line, ""), |(key, value)| (key.trim(), value.trim()));
            if key == "Include" {
                for text in include(value).with_context(|| format!("line {}: `Include = {value}`", number + 1))? {
                    self.read(&text, section, include, depth + 1)?;
                }
                continue;
            }
            let Some(section) = section.as_deref() else {
                bail!("line {}: `{key}` stands before any section", number + 1);
            };
            self.option(section, key, value);
        }
        Ok(())
    }

    fn option(&mut self, section: &str, key: &str, value: &str) {
        let repository = self.repositories.iter_mut().find(|repository| repository.name == section);
        match (repository, key) {
            (Some(repository), "Server") => repository.servers.push(value.to_owned()),
            (Some(repository), "SigLevel" | "Usage") => repository.options.push((key.to_owned(), value.to_owned())),
            (Some(_), _) => {}
            (None, "Architecture") => {
                let named = value.split_whitespace().filter(|name| *name != "auto").map(str::to_owned);
                self.architectures.extend(named);
            }
            (None, key) if HEEDED.contains(&key) => self.options.push((key.to_owned(), value.to_owned())),
            (None, _) => {}
        }
    }

    /// The same as a file for one use of pacman: nothing of the machine in it, no paths, no downloads.
    pub fn text(&self, architecture: &str) -> String {
        let mut text = format!("[options]\nArchitecture = {architecture}\n");
        let lines = |options: &[(String, String)]| -> String {
            options.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
        };
        text.push_str(&lines(&self.options));
        for repository in &self.repositories {
            text.push_str(&format!("\n[{}]\n{}", repository.name, lines(&repository.options)));
            text.extend(repository.servers.iter().map(|server| format!("Server = {server}\n")));
        }
        text
    }

    /// What is wanted of the signatures of a repository's packages.
    pub fn package_level(&self, repository: &Repository) -> SignatureLevel {
        self.level(repository, "Package")
    }

    /// What is wanted of the signature of a repository's database.
    pub fn database_level(&self, repository: &Repository) -> SignatureLevel {
        self.level(repository, "Database")
    }

    /// `what` is `Package` or `Database`; words without either mean both, and the last one counts.
    fn level(&self, repository: &Repository, what: &str) -> SignatureLevel {
        let values = self.options.iter().chain(&repository.options).filter(|(key, _)| key == "SigLevel");
        let words = values.flat_map(|(_, value)| value.split_whitespace());
        let mut levels = words.filter_map(|word| match word.strip_prefix(what).unwrap_or(word) {
            "Never" => Some(SignatureLevel::Never),
            "Optional" => Some(SignatureLevel::Optional),
            "Required" => Some(SignatureLevel::Required),
            _ => None,
        });
        levels.next_back().unwrap_or(SignatureLevel::Optional)
    }

    /// The most that any repository wants of signatures.
    pub fn highest_level(&self) -> SignatureLevel {
        let levels = self.repositories.iter().map(|repo| self.package_level(repo).max(self.database_level(repo)));
        levels.max().unwrap_or(SignatureLevel::Never)
    }
}

impl Repository {
    /// Addresses of a file of it, the one to ask first in front.
    pub fn urls(&self, architecture: &str, file: &str) -> Vec<String> {
        let address = |server: &String| {
            let server = server.replace("$repo", &self.name).replace("$arch", architecture);
            format!("{}/{file}", server.trim_end_matches('/'))
        };
        self.servers.iter().map(address).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARCH: &str = "
# /etc/pacman.conf
[options]
HoldPkg     = pacman glibc
Architecture = auto
CheckSpace
NoExtract = usr/share/man/*
SigLevel    = Required DatabaseOptional

[core]
Include = /etc/pacman.d/mirrorlist

[own]
SigLevel = Never
Server = file:///srv/$repo/
";

    fn parse(text: &str) -> Result<Config> {
        Config::parse(text, &mut |path| match path {
            MIRROR_LIST => Ok(vec!["#Server = http://off.example\nServer = https://m.example/$repo/os/$arch\n".into()]),
            _ => bail!("there is no such file"),
        })
    }

    #[test]
    fn repositories_come_with_their_servers_and_levels() {
        let config = parse(ARCH).unwrap();
        let [core, own] = config.repositories.as_slice() else { panic!("{config:?}") };
        assert_eq!(core.urls("x86_64", "core.db"), ["https://m.example/core/os/x86_64/core.db"]);
        assert_eq!(own.urls("x86_64", "own.db"), ["file:///srv/own/own.db"]);
        assert_eq!(config.package_level(core), SignatureLevel::Required);
        assert_eq!(config.database_level(core), SignatureLevel::Optional);
        assert_eq!(config.package_level(own), SignatureLevel::Never);
        assert_eq!(config.highest_level(), SignatureLevel::Required);
    }

    #[test]
    fn a_use_of_pacman_knows_nothing_of_the_machine() {
        let text = parse(ARCH).unwrap().text("aarch64");
        assert!(text.starts_with("[options]\nArchitecture = aarch64\nNoExtract = usr/share/man/*\n"), "{text}");
        assert!(!text.contains("CheckSpace") && !text.contains("Include"), "{text}");
        assert_eq!(parse(&text).unwrap().text("aarch64"), text);
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_line() {
        for (text, said) in [
            ("SigLevel = Never\n", "line 1: `SigLevel` stands before any section"),
            ("[options]\nInclude = /etc/other\n", "line 2: `Include = /etc/other`"),
            ("[]\n", "line 1: a section without a name"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), said);
        }
        let circle = Config::parse("[options]\nInclude = x\n", &mut |_| Ok(vec!["Include = x\n".into()]));
        assert!(format!("{:#}", circle.unwrap_err()).contains("levels deep"));
    }
}
