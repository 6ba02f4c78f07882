//! Programs that are to run as another than their caller, where the kernel does not let them: told, so that nobody
//! takes what they then write, or leave out, for what they write elsewhere.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::statvfs::{FsFlags, fstatvfs, statvfs};
use nix::unistd::Pid;

use super::calls::{self, Act};
use super::resolve::absolute;
use crate::sandbox::supervisor::{Caller, Handler, Verdict, Wanted};
use crate::sandbox::view::held;
use crate::sandbox::{Isolation, View};
use crate::sys::notify::Call;

/// The attribute with a program's capabilities (capabilities(7)).
const CAPABILITIES: &str = "security.capability";

/// Looks at each program that is started.
pub(in crate::sandbox) struct SetId {
    /// Hears what would have no effect, as the end of a sentence that begins with the command.
    tell: Box<dyn Fn(String) + Send>,
    told: HashSet<(u64, u64)>,
}

impl SetId {
    /// `None` where such programs have their effect.
    pub(in crate::sandbox) fn new(
        view: &View,
        isolation: Isolation,
        tell: impl Fn(String) + Send + 'static,
    ) -> Option<Self> {
        let root = match view {
            // It has been entered by now.
            View::Chroot { .. } if isolation == Isolation::Namespaces => Path::new("/"),
            View::Chroot { root } => root,
            View::Host { root, .. } | View::HostPrograms { root, .. } => root.as_deref()?,
        };
        // Without CAP_SYS_ADMIN over the machine nobody is watched who may become another (seccomp(2)).
        // Where it is not known, such programs are looked at.
        let able = statvfs(root).is_ok_and(|about| !about.flags().contains(FsFlags::ST_NOSUID));
        let unable = isolation == Isolation::Chroot || !able;
        unable.then(|| Self { tell: Box::new(tell), told: HashSet::new() })
    }

    /// What the program would be given and is not.
    fn lost(&mut self, call: &Call, caller: &Caller<'_>) -> Option<String> {
        let asked = calls::asked(call.number).filter(|asked| asked.act == Act::Execute)?;
        let path = caller.path(call.arguments[asked.path]).ok().filter(|path| !path.as_os_str().is_empty())?;
        let process = format!("/proc/{}", caller.pid());
        let own = caller.as_itself(|| fs::read_link(format!("{process}/root"))).ok()?;
        let shown = absolute(&own, call, caller, asked.directory, path)?;
        let root = caller.as_itself(|| File::open(format!("{process}/root"))).ok()?;
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        let program: OwnedFd = openat2(&root, shown.strip_prefix("/").ok()?, how).ok()?;
        let about = File::from(program.try_clone().ok()?).metadata().ok().filter(fs::Metadata::is_file)?;
        let ids = Ids::of(&process)?;
        let user = about.mode() & libc::S_ISUID != 0 && about.uid() != ids.user;
        // Without the right to run it, the bit is one of locking (chmod(2)).
        let locks = about.mode() & libc::S_IXGRP == 0;
        // To root a group gives nothing but that of the files that it makes; PAM runs such helpers all the time.
        let group = about.mode() & libc::S_ISGID != 0 && !locks && about.gid() != ids.group && ids.user != 0;
        let capable = ids.user != 0 && xattr::get(held(&program), CAPABILITIES).is_ok_and(|value| value.is_some());
        let nosuid = fstatvfs(&program).is_ok_and(|about| about.flags().contains(FsFlags::ST_NOSUID));
        if !(user || group || capable) || !(nosuid || ids.no_new_privileges) {
            return None;
        }
        if !self.told.insert((about.dev(), about.ino())) {
            return None;
        }
        let shown = shown.display();
        Some(match (user, group) {
            (true, _) => format!("runs {shown}, which is set-user-id"),
            (_, true) => format!("runs {shown}, which is set-group-id"),
            _ => format!("runs {shown}, which has capabilities of its own"),
        })
    }
}

impl Handler for SetId {
    fn calls(&self) -> Vec<Wanted> {
        [libc::SYS_execve, libc::SYS_execveat].map(Wanted::all).to_vec()
    }

    fn begin(&mut self, _child: Pid) -> anyhow::Result<()> {
        Ok(())
    }

    fn required(&self) -> bool {
        true
    }

    fn answer(&mut self, call: &Call, caller: &Caller<'_>) -> Result<Verdict, Errno> {
        if let Some(what) = self.lost(call, caller) {
            (self.tell)(what);
        }
        Ok(Verdict::Pass)
    }
}

/// Who a process is.
struct Ids {
    user: u32,
    group: u32,
    no_new_privileges: bool,
}

impl Ids {
    fn of(process: &str) -> Option<Self> {
        let status = fs::read_to_string(Path::new(process).join("status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        // The second of the ids is the effective one (proc_pid_status(5)).
        let id = |name: &str| field(name)?.split_whitespace().nth(1)?.parse().ok();
        let no_new_privileges = field("NoNewPrivs:").is_some_and(|value| value.trim() == "1");
        Some(Self { user: id("Uid:")?, group: id("Gid:")?, no_new_privileges })
    }
}
