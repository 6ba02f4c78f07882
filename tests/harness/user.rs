//! Whom debforge runs as in a test.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{find_program, is_root};

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Numeric id.
    pub uid: u32,
    /// Numeric id of the login group.
    pub gid: u32,
}

impl User {
    /// Whoever runs the tests.
    pub fn current() -> Self {
        let uid = nix::unistd::Uid::effective();
        let gid = nix::unistd::Gid::effective().as_raw();
        let name = nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
        Self { name, uid: uid.as_raw(), gid }
    }

    /// Root, where the tests run as root.
    pub fn root() -> Option<Self> {
        is_root().then(Self::current)
    }

    /// A user with ranges in /etc/subuid and /etc/subgid: `debforge-test`, made where the tests run
    /// as root, else whoever runs them. The error is why there is none.
    pub fn ordinary() -> Result<Self, String> {
        static USER: OnceLock<Result<User, String>> = OnceLock::new();
        USER.get_or_init(|| {
            let user = if is_root() { made("debforge-test")? } else { Self::current() };
            for file in ["/etc/subuid", "/etc/subgid"] {
                if has_range(file, &user) {
                    continue;
                }
                if !is_root() {
                    return Err(format!("needs a range for {} in {file}", user.name));
                }
                let start = 1_000_000 + u64::from(user.uid) * 65_536;
                let option = if file.ends_with("subuid") { "--add-subuids" } else { "--add-subgids" };
                let range = format!("{start}-{}", start + 65_535);
                command("usermod", &[option, &range, &user.name])?;
            }
            Ok(user)
        })
        .clone()
    }

    /// A user without such ranges: `debforge-test-bare`; only where the tests run as root.
    pub fn without_ranges() -> Result<Self, String> {
        static USER: OnceLock<Result<User, String>> = OnceLock::new();
        USER.get_or_init(|| {
            if !is_root() {
                return Err("needs root, to make a user without subordinate ids".into());
            }
            let user = made("debforge-test-bare")?;
            for (file, option) in [("/etc/subuid", "--del-subuids"), ("/etc/subgid", "--del-subgids")] {
                for line in fs::read_to_string(file).unwrap_or_default().lines() {
                    let parts: Vec<&str> = line.split(':').collect();
                    if let [name, start, count] = parts[..]
                        && name == user.name
                        && let (Ok(start), Ok(count)) = (start.parse::<u64>(), count.parse::<u64>())
                    {
                        command("usermod", &[option, &format!("{start}-{}", start + count - 1), name])?;
                    }
                }
            }
            Ok(user)
        })
        .clone()
    }

    /// Whether it is root.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// A command run as this user, with nothing of the environment but PATH.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let program = program.as_ref();
        let mut command = if self.uid == nix::unistd::Uid::effective().as_raw() {
            Command::new(program)
        } else {
            let mut command = Command::new(find_program("setpriv").unwrap_or_else(|| "setpriv".into()));
            command
                .args(["--reuid", &self.uid.to_string(), "--regid", &self.gid.to_string()])
                .args(["--clear-groups", "--inh-caps=-all", "--"])
                .arg(program);
            command
        };
        command.env_clear().env("PATH", search_path()).env("USER", &self.name).env("LOGNAME", &self.name);
        command
    }

    /// A program where this user can run it: itself, or a copy where its directories are closed to others.
    pub fn reachable(&self, program: &Path) -> PathBuf {
        if self.uid == nix::unistd::Uid::effective().as_raw() || self.is_root() || open_to_all(program) {
            return program.into();
        }
        let stat = fs::metadata(program).expect("the program under test");
        let stamp = stat.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let dir = work_dir().join(format!("bin-{}-{}", stat.len(), stamp.map_or(0, |stamp| stamp.as_nanos())));
        let copy = dir.join("debforge");
        if !copy.exists() {
            fs::create_dir_all(&dir).expect("making a directory for the program under test");
            let half = dir.join(format!("half-{}-{:?}", std::process::id(), std::thread::current().id()));
            fs::copy(program, &half).expect("copying the program under test");
            fs::rename(&half, &copy).expect("copying the program under test");
        }
        copy
    }
}

/// A directory on a real file system where every user can go: overlay mounts refuse other overlays
/// as their upper layer, and `target/` may lie below a closed home directory.
pub fn work_dir() -> PathBuf {
    let dir = PathBuf::from("/var/tmp").join(format!("debforge-tests-{}", nix::unistd::Uid::effective()));
    fs::create_dir_all(&dir).expect("making the tests' directory");
    dir
}

fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    std::env::join_paths(dirs).expect("PATH")
}

fn open_to_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.ancestors().all(|part| fs::metadata(part).is_ok_and(|stat| stat.permissions().mode() & 0o001 != 0))
}

fn has_range(file: &str, user: &User) -> bool {
    let uid = user.uid.to_string();
    fs::read_to_string(file)
        .unwrap_or_default()
        .lines()
        .any(|line| line.split(':').next().is_some_and(|name| name == user.name || name == uid))
}

fn made(name: &str) -> Result<User, String> {
    let known = |name: &str| nix::unistd::User::from_name(name).map_err(|error| error.to_string());
    if known(name)?.is_none() {
        let made = command("useradd", &["--create-home", "--shell", "/bin/sh", name]);
        if known(name)?.is_none() {
            made?;
        }
    }
    let user = known(name)?.ok_or_else(|| format!("user {name} was not made"))?;
    Ok(User { name: name.into(), uid: user.uid.as_raw(), gid: user.gid.as_raw() })
}

fn command(program: &str, args: &[&str]) -> Result<(), String> {
    let path = find_program(program).ok_or_else(|| format!("needs {program}"))?;
    let output = Command::new(path).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
