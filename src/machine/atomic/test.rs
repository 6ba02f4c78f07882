//! A test as it goes on: the system, what it is updated from, and what it has to show.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::difference::{self, Difference};
use super::disk::Origin;
use super::serve::Server;
use super::status::{self, Deployment};
use super::system::System;
use super::updates::Updates;
use crate::diagnostics::Fault;

/// What is marked on the system, to see what updates keep.
const EDITED: &str = "/etc/issue";
const ADDED: &str = "/etc/debforge-test-added";
const MARK: &str = "/var/lib/debforge-test-mark";
const LINE: &str = "edited by debforge test-atomic";

/// What goes from stage to stage. In between the system runs.
pub struct Test {
    /// The system.
    pub system: System,
    /// What it is updated from.
    pub updates: Updates,
    server: Server,
    /// What it followed when it was new.
    pub origin: Origin,
    /// The commit that it is updated to, and that commit's own branch.
    pub to: (String, String),
    /// What an update changes.
    pub difference: Difference,
    /// The branch that it follows now.
    pub branch: String,
    /// The commit that runs.
    pub booted: String,
    /// Whether /etc was edited and /var marked.
    pub edited: bool,
    /// Files of /etc that the update has other defaults of, and that nobody has changed.
    pub untouched: Vec<String>,
}

/// What does not hold of a system.
#[derive(Default)]
pub struct Checks {
    passed: usize,
    failed: Vec<String>,
}

impl Checks {
    /// Compares.
    pub fn equal(&mut self, what: &str, expected: &str, found: &str) {
        if expected == found {
            self.passed += 1;
        } else {
            self.failed.push(format!("{what}: expected `{expected}`, found `{found}`"));
        }
    }

    /// What has to hold; `found` is shown where it does not.
    pub fn holds(&mut self, what: &str, is: bool, found: &str) {
        if is {
            self.passed += 1;
        } else {
            let gap = if found.trim().is_empty() { "" } else { ": " };
            self.failed.push(format!("{what}{gap}{}", found.trim()));
        }
    }
}

/// Names users of passwd that shadow has no line of: PAM turns them away.
const WITHOUT_SHADOW: &str = "awk -F: 'NR == FNR { known[$1]; next } $2 == \"x\" && !($1 in known) { print $1 }' \
    /etc/shadow /etc/passwd";

/// Fails where the journal should be on the disk and is not.
const JOURNAL: &str = "[ ! -d /var/log/journal ] || systemd-analyze cat-config systemd/journald.conf | \
    grep -qE '^Storage=(volatile|none)' || journalctl --directory=/var/log/journal --boot --lines=1 --quiet | grep -q .";

impl Test {
    /// A test of a system that does not run yet.
    pub fn new(system: System, origin: Origin, (to, branch): (String, String), updates: Updates) -> Result<Self> {
        let repository = &updates.repository;
        let difference = Difference::between((repository, &origin.commit), (repository, &to));
        let difference = difference.context("comparing the commits")?;
        let server = Server::start(&updates.repository.path)?;
        Ok(Self {
            system,
            updates,
            server,
            to: (to, branch),
            difference,
            branch: origin.branch.clone(),
            booted: origin.commit.clone(),
            edited: false,
            untouched: Vec::new(),
            origin,
        })
    }

    /// The deployments in the order of the boot menu.
    pub(super) fn deployments(&mut self) -> Result<Vec<Deployment>> {
        Ok(status::parse(&self.system.output("ostree admin status")?))
    }

    /// The version of a commit's kernel.
    pub fn kernel(&self, commit: &str) -> Result<String> {
        difference::kernel(&self.updates.repository, commit)
    }

    /// How many files and bytes the system has fetched so far.
    pub fn fetched(&self) -> (u64, u64) {
        self.server.fetched()
    }

    /// Starts the system and looks whether a commit runs as it should.
    pub fn boot(&mut self, commit: &str, fast: bool) -> Result<String> {
        self.system.start(fast)?;
        self.inspect(commit)
    }

    /// Starts the running system anew, through its boot loader.
    pub fn reboot(&mut self, commit: &str) -> Result<String> {
        self.system.shut_down("reboot")?;
        self.boot(commit, false)
    }

    /// Looks whether a commit runs as it should; the kernel's version.
    pub fn inspect(&mut self, commit: &str) -> Result<String> {
        let mut checks = Checks::default();
        let state = self.system.run("systemctl is-system-running --wait")?;
        let failed = self.system.output("systemctl --failed --plain --no-legend | cut -d' ' -f1")?;
        let found = format!("{} {}", state.output.trim(), failed.split_whitespace().collect::<Vec<_>>().join(" "));
        checks.holds("no unit failed", failed.trim().is_empty(), &found);
        let deployments = self.deployments()?;
        let booted = deployments.iter().find(|deployment| deployment.booted);
        let found = booted.map_or("none", |deployment| &deployment.commit);
        checks.equal("the deployment that runs", commit, found);
        let marker = self.system.run("test -e /run/ostree-booted")?;
        checks.holds("/run/ostree-booted is there", marker.code == 0, "");
        for directory in ["/usr", "/sysroot"] {
            let write = self.system.run(&format!("touch {directory}/debforge-test"))?;
            checks.holds(&format!("{directory} cannot be written to"), write.code != 0, "");
        }
        let unknown = self.system.output(WITHOUT_SHADOW)?;
        checks.holds("shadow has all users", unknown.trim().is_empty(), &unknown.replace('\n', " "));
        let journal = self.system.run(JOURNAL)?;
        checks.holds("the journal of this start is in /var/log/journal", journal.code == 0, &journal.output);
        let kernel = self.kernel(commit)?;
        let running = self.system.output("uname -r")?.trim().to_owned();
        checks.equal("the kernel that runs", &kernel, &running);
        if self.edited {
            self.check_kept(&mut checks)?;
        }
        self.finish(checks)?;
        commit.clone_into(&mut self.booted);
        Ok(kernel)
    }

    /// The fault of what does not hold.
    pub fn finish(&mut self, checks: Checks) -> Result<()> {
        let Checks { passed, failed } = checks;
        let message = match failed.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            several => format!("{} of {} checks failed", several.len(), passed + several.len()),
        };
        let tail = if failed.len() > 1 { failed } else { Vec::new() };
        Err(self.system.hinted(Fault::failed(message).tail(tail)))
    }

    /// Edits files of /etc, a password among them, adds one, and marks /var.
    pub fn edit(&mut self) -> Result<()> {
        self.system.output(&format!(
            "set -e; echo '{LINE}' >>{EDITED}; echo '{LINE}' >{ADDED}; mkdir -p /var/lib; echo '{LINE}' >{MARK}
            sed -i 's/^root:[^:]*:/root:!debforge-test:/' /etc/shadow; sync"
        ))?;
        self.edited = true;
        let candidates = self.difference.changed_defaults.clone();
        let listed = candidates.iter().filter(|path| *path != EDITED).map(|path| {
            let default = path.replacen("/etc", "/usr/etc", 1);
            format!("if cmp -s {path} {default}; then echo {path}; fi")
        });
        let command = listed.collect::<Vec<_>>().join("\n");
        self.untouched = self.system.output(&command)?.lines().map(str::to_owned).collect();
        Ok(())
    }

    fn check_kept(&mut self, checks: &mut Checks) -> Result<()> {
        for (what, path) in [("the edit of", EDITED), ("the added file", ADDED), ("the mark", MARK)] {
            let kept = self.system.run(&format!("tail -n1 {path}"))?;
            checks.equal(&format!("{what} {path}"), LINE, kept.output.trim());
        }
        Ok(())
    }

    /// Looks whether the files of the update are there, or have gone.
    pub fn check_difference(&mut self, updated: bool) -> Result<String> {
        let mut checks = Checks::default();
        let Difference { only_second, new_defaults, .. } = self.difference.clone();
        let files: Vec<&String> = only_second.iter().chain(&new_defaults).collect();
        if !files.is_empty() {
            let list = files.iter().map(|path| path.as_str()).collect::<Vec<_>>().join(" ");
            let count = self.system.output(&format!("ls -d {list} 2>/dev/null | wc -l"))?;
            let expected = if updated { files.len() } else { 0 };
            checks.equal("files that only the update has", &expected.to_string(), count.trim());
        }
        for path in self.untouched.clone() {
            let same = self.system.run(&format!("cmp {path} {}", path.replacen("/etc", "/usr/etc", 1)))?;
            checks.holds(&format!("{path} has the commit's default"), same.code == 0, &same.output);
        }
        self.finish(checks)?;
        let defaults = self.untouched.len() + new_defaults.len();
        Ok(if updated { format!("{} files, {defaults} defaults", files.len()) } else { String::new() })
    }

    /// Leads the system's remote to our repository, and has it trust our key besides its own.
    pub fn connect(&mut self) -> Result<()> {
        let url = self.server.url();
        let remote = self.origin.remote.clone();
        self.network()?;
        let mut script = format!(
            "set -eu\nmount -o remount,rw /sysroot\n\
             ostree config --repo=/sysroot/ostree/repo set --group='remote \"{remote}\"' url {url}\n"
        );
        if let Some(key) = self.updates.public_key() {
            let key = STANDARD.encode(key);
            script.push_str(&format!(
                "echo {key} | base64 -d >/run/debforge-test.key\n\
                 ostree --repo=/sysroot/ostree/repo remote gpg-import -k /run/debforge-test.key {remote}\n"
            ));
        }
        let script = STANDARD.encode(script);
        self.system.output(&format!("echo {script} | base64 -d >/run/debforge-test.connect"))?;
        self.system.output("unshare --mount sh /run/debforge-test.connect").map(drop)
    }

    /// Sees to it that the system reaches this machine: by its own network, else by QEMU's fixed addresses.
    fn network(&mut self) -> Result<()> {
        const SCRIPT: &str = r#"
            reached() { grep -q '10\.0\.2\.' /proc/net/fib_trie; }
            for second in 1 2 3 4 5 6 7 8 9 10; do reached && exit 0; sleep 1; done
            for device in /sys/class/net/*; do
                name=${device##*/}
                [ -e "$device/device" ] || continue
                ip link set "$name" up && ip address add 10.0.2.15/24 dev "$name"
            done
            reached
        "#;
        let answer = self.system.run(SCRIPT)?;
        if answer.code == 0 {
            return Ok(());
        }
        let fault = Fault::failed("the system has no network, and none could be set up for it")
            .hint("a program for DHCP (systemd-networkd, say) or the package iproute2 has to be in the commit");
        Err(self.system.hinted(fault))
    }
}
