//! virtiofs: a process of this machine serves its files to QEMU's guest, without a message for each read as 9p
//! has it. One serves all that is shared, as the root that the process is confined to; what the guest may not
//! write to is read-only there already. So it is of use only where processes can be confined.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::modules;
use crate::build::interrupted;
use crate::diagnostics::Fault;
use crate::sandbox::Command;

/// Name under which the guest mounts it.
pub(super) const TAG: &str = "outside";

/// Where Debian has the program: QEMU's own of Debian 12, and the one that followed it.
const PROGRAMS: [(&str, Dialect); 2] =
    [("/usr/libexec/virtiofsd", Dialect::Options), ("/usr/lib/qemu/virtiofsd", Dialect::Mount)];

/// How long the process may take to be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a program takes what it is told.
#[derive(Debug, Clone, Copy)]
enum Dialect {
    /// `--shared-dir /`
    Options,
    /// `-o source=/`
    Mount,
}

/// A process that serves files.
#[derive(Debug)]
pub(super) struct Server {
    /// What runs it.
    pub(super) command: Command,
    /// Where it listens.
    pub(super) socket: PathBuf,
}

/// The program and its arguments for all files that it sees; `None` where there is none, or the kernel with
/// these modules cannot use it.
pub(super) fn find(modules_dir: Option<&Path>, socket: &Path) -> Result<Option<Vec<String>>> {
    let known = match modules_dir {
        Some(directory) => modules::closure(directory, &["virtiofs"])?.missing.is_empty(),
        None => false,
    };
    let found = PROGRAMS.into_iter().find(|(program, _)| known && Path::new(program).is_file());
    Ok(found.map(|(program, dialect)| {
        let socket = socket.display();
        let words: Vec<String> = match dialect {
            Dialect::Options => vec![
                format!("--socket-path={socket}"),
                "--shared-dir=/".into(),
                "--sandbox=none".into(),
                "--cache=always".into(),
                "--announce-submounts".into(),
                "--log-level=warn".into(),
            ],
            Dialect::Mount => {
                let options = "source=/,sandbox=chroot,cache=always,announce_submounts,log_level=warn";
                vec![format!("--socket-path={socket}"), "-f".into(), "-o".into(), options.into()]
            }
        };
        std::iter::once(program.to_owned()).chain(words).collect()
    }))
}

impl Server {
    /// Waits until it listens; `ended` says that it has given up.
    pub(super) fn wait(&self, ended: impl Fn() -> bool) -> Result<()> {
        let started = Instant::now();
        while !self.socket.exists() {
            if ended() || started.elapsed() > PATIENCE {
                return Err(Fault::failed(format!("{} does not serve files", self.command.argv[0]))
                    .hint("the log has what it said; without it directories are shared by 9p")
                    .into());
            }
            if interrupted() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}
