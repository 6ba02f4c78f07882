//! Commands of actions: run in the sandbox, logged, and explained when they fail.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use super::BuildContext;
use super::guard::{RootGuard, Surroundings};
use crate::diagnostics::{Fault, FaultKind};
use crate::sandbox::{Bind, Command, Exit, Input, Isolation, Sandbox, Stream, Told, Uniform, View};

/// Lines of output that a fault shows.
const TAIL: usize = 20;

/// What every process finds in its environment, whatever the user's looks like.
pub fn fixed_environment() -> BTreeMap<String, String> {
    let fixed = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("LC_ALL", "C.UTF-8"),
        ("TERM", "dumb"),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
    ];
    fixed.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

/// A text as one word of a shell command.
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r#"'"'"'"#))
}

/// A command as a shell reads it.
pub fn shell_words<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(shell_word).collect::<Vec<_>>().join(" ")
}

/// A shell of the user's in a root that looks as it does for the steps.
pub fn interactive(sandbox: &Sandbox, command: &Command) -> Result<Exit> {
    let View::Chroot { root } = &command.view else { return sandbox.interactive(command) };
    let surroundings = Surroundings { network: command.network, scripts: false, image: None };
    let guard = RootGuard::set(root, surroundings)?;
    let exit = sandbox.interactive(command)?;
    guard.release()?;
    Ok(exit)
}

/// A command about to be run; see [`BuildContext::chroot`] and [`BuildContext::host`].
pub struct Runner<'a> {
    cx: &'a BuildContext<'a>,
    command: Command,
    hints: Vec<String>,
    label: Option<String>,
    scripts: bool,
}

impl BuildContext<'_> {
    /// A program in the target root: private /dev, /proc and /tmp, the fixed environment, no services
    /// started, no network unless asked for.
    pub fn chroot<'a>(&'a self, argv: impl IntoIterator<Item = impl Into<String>>) -> Runner<'a> {
        self.runner(argv, View::Chroot { root: self.root.into() })
    }

    /// A program in a system that stands somewhere in the target root; as [`Self::chroot`].
    pub fn chroot_in<'a>(&'a self, root: &Path, argv: impl IntoIterator<Item = impl Into<String>>) -> Runner<'a> {
        self.runner(argv, View::Chroot { root: root.into() })
    }

    /// A program of the host that works on the target root and may chroot into it: the host's system
    /// is read-only, the root and the step's scratch directory are writable.
    pub fn host<'a>(&'a self, argv: impl IntoIterator<Item = impl Into<String>>) -> Runner<'a> {
        self.runner(argv, View::Host { root: Some(self.root.into()), writable: vec![self.scratch.into()] })
    }

    /// A program of the host that sees nothing of the target root; the host's system is read-only, the
    /// step's scratch directory writable.
    pub fn host_alone<'a>(&'a self, argv: impl IntoIterator<Item = impl Into<String>>) -> Runner<'a> {
        self.runner(argv, View::Host { root: None, writable: vec![self.scratch.into()] })
    }

    fn runner<'a>(&'a self, argv: impl IntoIterator<Item = impl Into<String>>, view: View) -> Runner<'a> {
        Runner {
            cx: self,
            command: Command {
                argv: argv.into_iter().map(Into::into).collect(),
                environment: self.process_environment(),
                directory: None,
                view,
                binds: Vec::new(),
                network: false,
                input: Input::Null,
                uniform: None,
                remounts: false,
                told: if self.disk.is_some() { Told::Mounts } else { Told::Constant },
            },
            hints: Vec::new(),
            label: None,
            scripts: false,
        }
    }

    /// The fixed minimal environment of every process, with the user's variables and proxies.
    pub fn process_environment(&self) -> BTreeMap<String, String> {
        let mut all = fixed_environment();
        all.insert("SOURCE_DATE_EPOCH".into(), self.source_date_epoch.to_string());
        all.extend(self.environment.iter().map(|(k, v)| (k.clone(), v.clone())));
        all
    }
}

impl Runner<'_> {
    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.command.environment.insert(name.into(), value.into());
        self
    }

    /// Sets its working directory.
    #[must_use]
    pub fn directory(mut self, directory: impl AsRef<Path>) -> Self {
        self.command.directory = Some(directory.as_ref().into());
        self
    }

    /// Shows it the target root at the empty directory `at`, or where it stands if nothing can be mounted; these
    /// variables tell it ([`BuildContext::host`] only).
    #[must_use]
    pub fn root_at(mut self, at: &Path, variables: &[&str]) -> Self {
        let stands = self.cx.root;
        let mut seen = stands;
        if let (View::Host { root, .. } | View::HostPrograms { root, .. }, Isolation::Namespaces) =
            (&mut self.command.view, self.cx.sandbox.isolation)
        {
            *root = Some(at.into());
            self.command.binds.push(Bind { source: stands.into(), target: at.into(), read_only: false });
            seen = at;
        }
        variables.iter().fold(self, |runner, variable| runner.env(*variable, seen.display().to_string()))
    }

    /// Shows it programs of the host's system alone, and in /etc only what `settings` has: the rest of what it sees
    /// is bound to it, without what is hidden ([`BuildContext::host`] and its like only).
    #[must_use]
    pub fn programs_only(mut self, settings: &Path, hidden: Vec<PathBuf>) -> Self {
        if let View::Host { root, writable } = self.command.view {
            self.command.view = View::HostPrograms { root, writable, settings: settings.into(), hidden };
        }
        match self.cx.sandbox.isolation {
            Isolation::Namespaces => self.bind(settings, "/etc", true),
            Isolation::Chroot => self,
        }
    }

    /// Lets it change how file systems are mounted.
    #[must_use]
    pub fn remounts(mut self) -> Self {
        self.command.remounts = true;
        self
    }

    /// Makes a file or directory of the host visible to it; see [`Bind::target`].
    #[must_use]
    pub fn bind(mut self, source: impl AsRef<Path>, target: impl AsRef<Path>, read_only: bool) -> Self {
        self.command.binds.push(Bind { source: source.as_ref().into(), target: target.as_ref().into(), read_only });
        self
    }

    /// Leaves a host path writable to it ([`BuildContext::host`] only).
    #[must_use]
    pub fn writable(mut self, path: impl AsRef<Path>) -> Self {
        if let View::Host { writable, .. } | View::HostPrograms { writable, .. } = &mut self.command.view {
            writable.push(path.as_ref().into());
        }
        self
    }

    /// Whether it has the network.
    #[must_use]
    pub fn network(mut self, network: bool) -> Self {
        self.command.network = network;
        self
    }

    /// A tree that it is to see the same on every host; where that cannot be done, a warning says so.
    #[must_use]
    pub fn uniform(mut self, tree: Uniform) -> Self {
        self.command.uniform = Some(tree);
        self
    }

    /// What it runs are packages' maintainer scripts, which start no daemon by any way.
    #[must_use]
    pub fn maintainer_scripts(mut self) -> Self {
        self.scripts = true;
        self
    }

    /// Lets it run on all processors of the machine: for tools that write the same, however many there are.
    #[must_use]
    pub fn all_processors(mut self) -> Self {
        self.command.told = Told::AllProcessors;
        self
    }

    /// What it reads from standard input.
    #[must_use]
    pub fn input(mut self, text: impl Into<String>) -> Self {
        self.command.input = Input::Text(text.into());
        self
    }

    /// A way out to show when it fails.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Puts a label in front of each line of its output in the log.
    #[must_use]
    pub fn label(mut self, label: Option<impl Into<String>>) -> Self {
        self.label = label.map(Into::into);
        self
    }

    /// Runs it; output goes to the log. `doing` ("installing packages") starts the fault when it fails.
    pub fn run(self, doing: &str) -> Result<()> {
        self.run_with(doing, &mut |_, _| {})
    }

    /// Runs it and returns its standard output.
    pub fn output(self, doing: &str) -> Result<String> {
        let mut output = String::new();
        self.run_with(doing, &mut |stream, line| {
            if stream == Stream::Out {
                output.push_str(line);
                output.push('\n');
            }
        })?;
        Ok(output)
    }

    /// Runs it and hands over each line, which goes to the log too.
    pub fn run_with(self, doing: &str, on_line: &mut dyn FnMut(Stream, &str)) -> Result<()> {
        let Self { cx, command, hints, label, scripts } = self;
        let surroundings = Surroundings { network: command.network, scripts, image: cx.image };
        let guard = match &command.view {
            View::Chroot { root } => Some(RootGuard::set(root, surroundings)?),
            // Wherever it is shown.
            View::Host { root: Some(_), .. } | View::HostPrograms { root: Some(_), .. } => {
                Some(RootGuard::set(cx.root, surroundings)?)
            }
            View::Host { root: None, .. } | View::HostPrograms { root: None, .. } => None,
        };
        let mut tail = VecDeque::with_capacity(TAIL);
        let exit = cx
            .sandbox
            .run(&command, &mut |stream, line| {
                if stream == Stream::Note && command.uniform.is_none() {
                    return known_machine(cx, line);
                }
                if stream == Stream::Note {
                    let program = &command.argv[0];
                    return cx.warn(format!(
                        "{doing}: this image is not reproducible: `{program}` takes the order of files from this machine, where it cannot be watched ({line})"
                    ));
                }
                match &label {
                    Some(label) => cx.log(format!("{label} | {line}")),
                    None => cx.log(line),
                }
                if tail.len() == TAIL {
                    tail.pop_front();
                }
                tail.push_back(line.to_owned());
                on_line(stream, line);
            })
            .with_context(|| format!("{doing}: starting `{}`", command.argv[0]))?;
        if let Some(disk) = cx.disk.filter(|_| command.remounts) {
            disk.write_again()?;
        }
        if let Some(guard) = guard {
            guard.release()?;
        }
        if super::interrupted() {
            return Err(Fault::new(FaultKind::Interrupted, "interrupted").into());
        }
        match exit {
            Exit::Code(0) => Ok(()),
            exit => {
                cx.log(format!("failed: {}", shell_words(command.argv.iter().map(String::as_str))));
                Err(explain(doing, &command, exit, tail.into(), hints).into())
            }
        }
    }
}

/// Says, once, that commands are told of the machine what only their system calls could keep from them.
fn known_machine(cx: &BuildContext<'_>, why: &str) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        cx.warn(format!(
            "steps see which kernel this machine runs, and how many processors and how much memory it has: their system calls cannot be watched ({why})"
        ));
    }
}

fn explain(doing: &str, command: &Command, exit: Exit, tail: Vec<String>, hints: Vec<String>) -> Fault {
    let how = match exit {
        Exit::Code(code) => format!("exited with code {code}"),
        Exit::Signal(9) => "was killed by signal 9".to_owned(),
        Exit::Signal(signal) => format!("was ended by signal {signal}"),
    };
    let mut fault = Fault::failed(format!("{doing}: `{}` {how}", command.argv[0])).tail(tail);
    if matches!(command.view, View::Chroot { .. }) && command.binds.is_empty() {
        fault.replay = Some(shell_words(command.argv.iter().map(String::as_str)));
    }
    if exit == Exit::Signal(9) {
        fault = fault.hint("most often this is the kernel ending a process because memory ran out (see `dmesg`)");
    }
    fault.hints.extend(hints);
    fault
}
