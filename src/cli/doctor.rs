//! `debforge doctor`: what this machine can do, and how to get what is missing.

use std::path::Path;

use anyhow::Result;
use console::measure_text_width;
use serde::Serialize;

use super::StoreArgs;
use super::output::print;
use crate::debian::{Architecture, host};
use crate::diagnostics::{Fault, fault_of};
use crate::machine::vm::{self, Hypervisor};
use crate::machine::{find_program, local};
use crate::report;
use crate::sandbox::Isolation;
use crate::sandbox::binfmt::{self, Support};
use crate::store::{Checkpoints, Store};

/// Show what this machine can do, and how to get what is missing
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// One finding.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    state: State,
    text: String,
    hints: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Ok,
    /// It works, and something better is not there.
    Weak,
    No,
    /// Nothing to judge.
    Info,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Weak => "weak",
            Self::No => "no",
            Self::Info => "",
        }
    }
}

/// Programs that builds may need, the packages that have them, and what for.
const TOOLS: [(&[&str], &str, &str); 8] = [
    (&["debootstrap"], "debootstrap", "the action debootstrap"),
    (&["apt-get"], "apt", "the actions mmdebstrap, apt and install-deb"),
    (&["dpkg"], "dpkg", "the actions mmdebstrap, apt and install-deb"),
    (&["gpgv", "sqv"], "gpgv", "checking repositories' signatures"),
    (&["zstd"], "zstd", "packages and archives compressed with zstd"),
    (&["xz"], "xz-utils", "packages and archives compressed with xz"),
    (&["newuidmap"], "uidmap", "builds as an ordinary user"),
    (&["qemu-aarch64-static", "qemu-aarch64"], "qemu-user-static", "foreign architectures"),
];

/// Prints what is there. The fault at the end, if nothing can be built, is of the kind that exits with 3.
pub fn run(args: &Args) -> Result<()> {
    let store = args.store.path();
    let (mut rows, local) = backend(&store);
    let (machines, virtual_ones) = machines(&store);
    let usable = local || virtual_ones;
    rows.extend(machines);
    rows.push(foreign());
    rows.push(loop_devices());
    rows.extend(tools());
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&serde_json::json!({ "usable": usable, "rows": rows }))?))?;
    } else {
        print(&table(&rows))?;
    }
    if usable { Ok(()) } else { Err(Fault::machine("nothing can be built on this machine as it is").into()) }
}

fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for row in rows {
        let word = format!("{:4}", row.state.word());
        let word = match row.state {
            State::Ok => console::style(word).green(),
            State::Weak => console::style(word).yellow(),
            State::No => console::style(word).red(),
            State::Info => console::style(word),
        };
        let margin = width + 8;
        let lines = wrapped(&row.text, super::output::width().saturating_sub(margin));
        text.push_str(&format!("{:width$}  {word}  {}\n", row.name, lines.join(&format!("\n{:margin$}", ""))));
        // Those are commands, to be copied.
        for hint in &row.hints {
            text.push_str(&format!("{:width$}        {hint}\n", ""));
        }
    }
    text
}

/// A text in lines that are no longer than `width`, where its words are not.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if measure_text_width(line) + 1 + measure_text_width(word) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn backend(store: &Path) -> (Vec<Row>, bool) {
    let local = match local::probe(store) {
        Ok(local) => local,
        Err(error) => {
            let fault = fault_of(&error);
            let row = Row { name: "local backend", state: State::No, text: fault.message, hints: fault.hints };
            return (vec![row], false);
        }
    };
    let state = if local.notes.is_empty() { State::Ok } else { State::Weak };
    let mut parts = vec![match local.sandbox.isolation {
        Isolation::Namespaces => "namespaces",
        Isolation::Chroot => "chroot alone",
    }];
    parts.push(match local.checkpoints {
        Checkpoints::Overlay { .. } => "overlayfs",
        Checkpoints::Reflink => "reflink copies",
        Checkpoints::None => "no checkpoints",
    });
    let description = local.description.strip_prefix("local, ").unwrap_or(&local.description);
    let text = format!("{description}: {}", parts.join(", "));
    let place = Row { name: "store", state: State::Info, text: store.display().to_string(), hints: Vec::new() };
    (vec![Row { name: "local backend", state, text, hints: local.notes }, place], true)
}

/// Machines of a build's own, each seen starting; and whether any does.
fn machines(store: &Path) -> (Vec<Row>, bool) {
    let Ok(store) = Store::open(store) else { return (Vec::new(), false) };
    let waiting = super::Waiting::start();
    let row = |hypervisor: Hypervisor| {
        let name = hypervisor.name();
        waiting.say(&format!("starting a machine ({name})"));
        match vm::known_to_work(hypervisor, &store) {
            Ok(working) => {
                let (kernel, start) = (working.machine.kernel_shown(), report::seconds(working.start.as_secs_f64()));
                let state = if working.machine.notes.is_empty() { State::Ok } else { State::Weak };
                let text = format!("first process after {start} ({kernel})");
                Row { name, state, text, hints: working.machine.notes }
            }
            Err(error) => {
                let fault = fault_of(&error);
                Row { name, state: State::No, text: fault.message, hints: fault.hints }
            }
        }
    };
    let rows: Vec<Row> = vm::KINDS.into_iter().map(row).collect();
    let usable = rows.iter().any(|row| row.state != State::No);
    (rows, usable)
}

fn foreign() -> Row {
    let (mut native, mut registered, mut own, mut missing) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut hints: Vec<String> = Vec::new();
    for architecture in Architecture::ALL.into_iter().filter(|architecture| *architecture != Architecture::host()) {
        match binfmt::support(architecture) {
            Support::Native => native.push(architecture.name()),
            Support::Emulated { registered: true, .. } => registered.push(architecture.name()),
            Support::Emulated { registered: false, .. } => own.push(architecture.name()),
            Support::Missing { hint, .. } => {
                missing.push(architecture.name());
                if !hints.contains(&hint) {
                    hints.push(hint);
                }
            }
        }
    }
    let part = |names: &[&str], how: &str| (!names.is_empty()).then(|| format!("{} ({how})", names.join(", ")));
    let parts: Vec<String> = [
        part(&native, "this kernel"),
        part(&registered, "qemu-user, binfmt flag F"),
        part(&own, "qemu-user, registered for each build alone"),
        part(&missing, "missing"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let state = match (native.len() + registered.len() + own.len(), missing.is_empty()) {
        (_, true) => State::Ok,
        (0, false) => State::No,
        (_, false) => State::Weak,
    };
    Row { name: "foreign machines", state, text: parts.join(" · "), hints }
}

/// Not used by builds so far; what a recipe's own scripts could count on.
fn loop_devices() -> Row {
    let text = match loopdev::LoopControl::open().and_then(|control| control.next_free()) {
        Ok(device) => {
            format!("{} is free; builds use none", device.path().unwrap_or_else(|| "/dev/loop".into()).display())
        }
        Err(error) => format!("none ({error}); builds use none"),
    };
    Row { name: "loop devices", state: State::Info, text, hints: Vec::new() }
}

fn tools() -> Vec<Row> {
    let mut there = Vec::new();
    let mut rows = Vec::new();
    for (programs, package, purpose) in TOOLS {
        let Some(program) = programs.iter().find(|program| find_program(program).is_some()) else {
            rows.push(Row {
                name: "missing",
                state: State::Weak,
                text: format!("{} for {purpose}: sudo apt install {package}", programs[0]),
                hints: Vec::new(),
            });
            continue;
        };
        // gpgv's place may be taken by sqv, which is a package of its own.
        let package = if programs[0] == *program { package } else { program };
        match host::package_version(package) {
            Some(version) => there.push(format!("{package} {version}")),
            None => there.push((*program).to_owned()),
        }
    }
    rows.insert(0, Row { name: "tools", state: State::Info, text: there.join(" · "), hints: Vec::new() });
    rows
}
