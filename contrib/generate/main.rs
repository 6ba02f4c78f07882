//! Writes what is generated from the code, or with `--check` says what is out of date.
#![allow(clippy::print_stderr)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

mod files;

/// Directories that hold nothing but generated files; what else is in them is stale.
const DIRECTORIES: &[&str] = &["docs/src/actions", "contrib/man", "contrib/completions"];

fn main() -> Result<ExitCode> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => write(top).map(|()| ExitCode::SUCCESS),
        ["--check"] => {
            let stale = stale(top);
            for path in &stale {
                eprintln!("out of date: {} (`./x generate` refreshes it)", path.display());
            }
            Ok(if stale.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        _ => bail!("usage: generate [--check]"),
    }
}

fn write(top: &Path) -> Result<()> {
    for path in stale(top) {
        let full = top.join(&path);
        match files::files().into_iter().find(|(known, _)| *known == path) {
            Some((_, text)) => {
                if let Some(dir) = full.parent() {
                    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
                }
                fs::write(&full, text)
            }
            None => fs::remove_file(&full),
        }
        .with_context(|| format!("refreshing {}", path.display()))?;
        eprintln!("refreshed {}", path.display());
    }
    Ok(())
}

/// Files that differ from what would be generated, are missing, or are generated no more.
fn stale(top: &Path) -> Vec<PathBuf> {
    let files = files::files();
    let mut stale: Vec<PathBuf> = files
        .iter()
        .filter(|(path, text)| fs::read_to_string(top.join(path)).ok().as_ref() != Some(text))
        .map(|(path, _)| path.clone())
        .collect();
    for dir in DIRECTORIES {
        for entry in fs::read_dir(top.join(dir)).into_iter().flatten().flatten() {
            let path = Path::new(dir).join(entry.file_name());
            if !files.iter().any(|(known, _)| *known == path) {
                stale.push(path);
            }
        }
    }
    stale
}
