//! The programs that make file systems, run in the build's sandbox.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::cover::Covers;
use crate::build::BuildContext;
use crate::build::inside::Inside;
use crate::image::{Tool, Tools};
use crate::sandbox::{Isolation, Uniform};
use crate::sys::label::labels_files;

/// Runs programs that read the root and write the image.
pub struct SandboxTools<'a> {
    cx: &'a BuildContext<'a>,
    /// Where stand-ins are made.
    scratch: PathBuf,
    /// Empty directories that are seen in the place of others.
    empty: RefCell<BTreeMap<PathBuf, PathBuf>>,
}

impl<'a> SandboxTools<'a> {
    /// Makes stand-ins in an empty directory on the root's file system.
    pub fn new(cx: &'a BuildContext<'a>, scratch: PathBuf) -> Self {
        Self { cx, scratch, empty: RefCell::default() }
    }

    /// An empty directory with the owner, mode, date and attributes of another.
    fn empty(&self, directory: &Path) -> Result<PathBuf> {
        if let Some(made) = self.empty.borrow().get(directory) {
            return Ok(made.clone());
        }
        let name = format!("empty-{}", self.empty.borrow().len());
        let slot = Inside::open(&self.scratch)?.slot(Path::new(&name))?;
        slot.create_dir()?;
        slot.apply(&super::cover::attributes(directory)?)?;
        let made = self.scratch.join(name);
        self.empty.borrow_mut().insert(directory.to_owned(), made.clone());
        Ok(made)
    }
}

impl Tools for SandboxTools<'_> {
    fn run(&self, tool: &Tool, doing: &str) -> Result<String> {
        let mut runner = self.cx.host_alone(tool.argv.clone()).all_processors().bind(self.cx.root, self.cx.root, true);
        let mut covers = Covers::default();
        match self.cx.sandbox.isolation {
            Isolation::Namespaces => {
                for hidden in &tool.hidden {
                    runner = runner.bind(self.empty(hidden)?, hidden, true);
                }
                for (seen, really) in &tool.replaced {
                    runner = runner.bind(really, seen, true);
                }
            }
            Isolation::Chroot => {
                let aside = self.scratch.join("aside");
                fs::create_dir_all(&aside).context("making a place for covered directories")?;
                for hidden in &tool.hidden {
                    covers.hide(hidden, &aside)?;
                }
                for (seen, really) in &tool.replaced {
                    covers.replace(seen, really, &aside)?;
                }
            }
        }
        // A tool that takes files with all their attributes is shown none of the host's labels.
        let unlabelled = || Uniform { top: self.cx.root.into(), attributes_only: true, labelled: true };
        if let Some(uniform) = tool.uniform.clone().or_else(|| labels_files().then(unlabelled)) {
            runner = runner.uniform(uniform);
        }
        for (name, value) in &tool.environment {
            runner = runner.env(name, value);
        }
        if let Some(input) = &tool.input {
            runner = runner.input(input);
        }
        for path in &tool.writable {
            runner = runner.writable(path);
        }
        let output = runner.output(doing);
        covers.undo()?;
        output
    }

    fn progress(&self, message: &str) {
        self.cx.progress(message, None);
    }
}
