//! Who holds a lock, for those who wait for it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};
use serde::{Deserialize, Serialize};

use super::entry::BOOT;

/// The process that a lock belongs to, as it says it in the lock's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Holder {
    /// The process that the user started.
    pub pid: u32,
    /// When it began, in ticks since the kernel did: a pid alone is given to others later.
    began: Option<u64>,
    /// The run of the kernel that it is a process of.
    boot: String,
    /// The pid namespace that it is a process of.
    pids: String,
    /// What it builds, as the user named it; empty where it builds nothing.
    pub recipe: String,
    /// When it took the lock, in seconds since 1970.
    since: Option<i64>,
    /// Whether it holds the lock from within a machine, where this kernel does not see it.
    pub(super) in_machine: bool,
}

static HOLDER: OnceLock<Holder> = OnceLock::new();

/// Sets who takes the locks of this process. Only the first call counts; until then it is the process itself.
pub fn set_holder(holder: Holder) {
    let _ = HOLDER.set(holder);
}

impl Holder {
    /// This process, which builds `recipe`.
    pub fn here(recipe: &str) -> Self {
        Self { recipe: recipe.to_owned(), ..Self::of_process(std::process::id()) }
    }

    /// Another process.
    pub(super) fn of_process(pid: u32) -> Self {
        let (boot, pids) = (BOOT.clone(), pid_namespace());
        Self { pid, began: began(pid), boot, pids, recipe: String::new(), since: None, in_machine: false }
    }

    /// The same process as the one that a machine works for.
    #[must_use]
    pub fn in_machine(self) -> Self {
        Self { in_machine: true, ..self }
    }

    /// Who takes the locks of this process.
    pub(super) fn own() -> Self {
        HOLDER.get().cloned().unwrap_or_else(|| Self::here(""))
    }

    /// Writes into a lock's file who has it now: best effort, nobody relies on it but those who ask.
    pub(super) fn sign(file: &File) {
        let text =
            serde_json::to_vec(&Self { since: Some(Timestamp::now().as_second()), ..Self::own() }).unwrap_or_default();
        let _ = file.set_len(0).and_then(|()| file.write_all_at(&text, 0));
    }

    /// Who says that a lock is his.
    pub(super) fn of(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Whether it still runs; what cannot be seen from here counts as running.
    pub(super) fn runs(&self) -> bool {
        self.boot == *BOOT && (self.pids != pid_namespace() || (self.began.is_some() && began(self.pid) == self.began))
    }
}

/// "pid 4711, board.yaml, since 10:02:13".
impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pid {}", self.pid)?;
        if !self.recipe.is_empty() {
            write!(f, ", {}", self.recipe)?;
        }
        let Some(since) = self.since.and_then(|since| Timestamp::from_second(since).ok()) else { return Ok(()) };
        let since = since.to_zoned_datetime(TimeZone::system());
        let day = if since.date() == ZonedDateTime::now().date() { "" } else { "%Y-%m-%d " };
        write!(f, ", since {}", since.strftime(&format!("{day}%H:%M:%S")))
    }
}

/// What is said while waiting for a lock: `what`, and for whom, where that is known.
pub fn waiting_for(what: &str, holder: Option<&Holder>) -> String {
    match holder {
        Some(holder) => format!("{what} ({holder})"),
        None => what.to_owned(),
    }
}

/// When a process began (proc_pid_stat(5), field 22); the name before it may have spaces.
fn began(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    rest.split(' ').nth(19)?.parse().ok()
}

fn pid_namespace() -> String {
    std::fs::read_link("/proc/self/ns/pid").map_or_else(|_| String::new(), |name| name.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_runs_as_long_as_its_process() {
        assert!(Holder::here("board.yaml").runs());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let other = Holder::of_process(child.id());
        assert!(other.runs());
        assert!(!Holder { began: other.began.map(|began| began + 1), ..other.clone() }.runs(), "a pid given again");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!other.runs());
        assert!(!Holder { boot: "another".into(), ..Holder::here("") }.runs());
    }

    #[test]
    fn a_holder_says_who_it_is() {
        let holder = Holder { pid: 7, since: Some(0), ..Holder::here("board.yaml") };
        let text = waiting_for("waiting", Some(&holder));
        assert!(text.starts_with("waiting (pid 7, board.yaml, since 19"), "{text}");
        assert_eq!(waiting_for("waiting", None), "waiting");
    }
}
