//! A package that means harm: its scripts, and all else that runs in the root, try every way to the host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::harness::fixture::dpkg_root_with;
use crate::harness::project::Finished;
use crate::harness::repository::{Deb, Repository};
use crate::harness::user::work_dir;
use crate::harness::{Project, User, confinement};
use crate::machine::{needs_machine, needs_uml};

/// The ways; see there.
const ATTACK: &str = include_str!("attack.pl");

/// Where the package's program runs: its own script, apt's hook that it brings, a script where apt's configuration in the
/// root is a link to the host's files, programs of the root without and with the network, and a program of the host that
/// enters the root.
const STEPS: [&str; 6] = ["postinst-online", "hook", "linked", "root", "root-online", "host"];

/// System calls that the ways make, by name and number.
macro_rules! calls {
    ($($name:ident $number:ident)*) => { [$((stringify!($name), libc::$number)),*] };
}

fn calls() -> Vec<(&'static str, libc::c_long)> {
    let mut all = calls!(
        mount SYS_mount umount2 SYS_umount2 pivot_root SYS_pivot_root unshare SYS_unshare setns SYS_setns
        mknodat SYS_mknodat ptrace SYS_ptrace process_vm_readv SYS_process_vm_readv pidfd_open SYS_pidfd_open
        pidfd_getfd SYS_pidfd_getfd setpriority SYS_setpriority prlimit64 SYS_prlimit64
        sched_setaffinity SYS_sched_setaffinity sched_setscheduler SYS_sched_setscheduler
        init_module SYS_init_module delete_module SYS_delete_module kexec_load SYS_kexec_load reboot SYS_reboot
        clock_settime SYS_clock_settime settimeofday SYS_settimeofday syslog SYS_syslog sethostname SYS_sethostname
        add_key SYS_add_key keyctl SYS_keyctl perf_event_open SYS_perf_event_open bpf SYS_bpf
        userfaultfd SYS_userfaultfd io_uring_setup SYS_io_uring_setup open_by_handle_at SYS_open_by_handle_at
        shmget SYS_shmget mq_open SYS_mq_open mq_unlink SYS_mq_unlink swapon SYS_swapon acct SYS_acct
        quotactl SYS_quotactl
    )
    .to_vec();
    #[cfg(target_arch = "x86_64")]
    all.push(("ioperm", libc::SYS_ioperm));
    all
}

/// What the host has that nobody in a build may reach, and what is to be as it was.
struct Host {
    /// Beside the project, which is shown to commands of the host.
    outside: tempfile::TempDir,
    run: Option<PathBuf>,
    user: User,
    victim: Child,
    streams: UnixListener,
    abstract_streams: UnixListener,
    abstract_datagrams: UnixDatagram,
    tcp: std::net::TcpListener,
    name: String,
    key: u32,
    state: Vec<String>,
}

const SECRET: &str = "secret-of-the-host";

impl Host {
    fn new(project: &Project) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("debforge-doors-{}-{number}", std::process::id());
        let user = project.user().clone();
        let outside = tempfile::Builder::new().prefix("outside-").tempdir_in(work_dir()).unwrap();
        fs::write(outside.path().join("secret"), SECRET).unwrap();
        let streams = UnixListener::bind(outside.path().join("socket")).unwrap();
        for (name, mode) in [("", 0o777), ("secret", 0o644), ("socket", 0o777)] {
            fs::set_permissions(outside.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let address = |name: &str| SocketAddr::from_abstract_name(name).unwrap();
        let abstract_streams = UnixListener::bind_addr(&address(&name)).unwrap();
        let abstract_datagrams = UnixDatagram::bind_addr(&address(&format!("{name}-datagrams"))).unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let run = user.is_root().then(|| PathBuf::from("/run").join(&name));
        if let Some(run) = &run {
            fs::write(run, SECRET).unwrap();
        }
        let victim = user.command("sleep").arg("1200").env("SECRET", SECRET).stdin(Stdio::null()).spawn().unwrap();
        let key = (0x0deb + number) << 16 | std::process::id() & 0xffff;
        let mut host = Self {
            outside,
            run,
            user,
            victim,
            streams,
            abstract_streams,
            abstract_datagrams,
            tcp,
            name,
            key,
            state: Vec::new(),
        };
        host.perl(&format!(
            "defined shmget({key}, 64, 01600) or die; $n = '{}'; syscall({}, $n, 0102, 0600, 0) >= 0 or die",
            host.name,
            libc::SYS_mq_open
        ));
        fs::write(Path::new("/dev/shm").join(&host.name), "").unwrap();
        host.state = host.state();
        host
    }

    fn perl(&self, text: &str) {
        let status = self.user.command("perl").args(["-e", text]).status().unwrap();
        assert!(status.success(), "perl -e {text}");
    }

    /// What the ways are told, as Perl.
    fn told(&self, plain: bool) -> String {
        let disk = fs::read_dir("/sys/block").into_iter().flatten().flatten();
        let disk = disk
            .filter(|disk| disk.path().join("device").exists())
            .find_map(|disk| fs::read_to_string(disk.path().join("dev")).ok().map(|numbers| numbers.trim().to_owned()));
        let host: Vec<(&str, String)> = vec![
            ("outside", self.outside.path().display().to_string()),
            ("secret", SECRET.to_owned()),
            ("victim", self.victim.id().to_string()),
            ("abstract", self.name.clone()),
            ("queue", self.name.clone()),
            ("shmfile", self.name.clone()),
            ("port", self.tcp.local_addr().unwrap().port().to_string()),
            ("shm", self.key.to_string()),
            ("disk", disk.unwrap_or_default()),
        ];
        let mut text = "#!/usr/bin/perl\n".to_owned();
        for (name, value) in host {
            text.push_str(&format!("$HOST{{'{name}'}} = '{value}';\n"));
        }
        if plain {
            text.push_str("$HOST{plain} = 1;\n");
        }
        if let Some(run) = &self.run {
            text.push_str(&format!("$HOST{{run}} = '{}';\n", run.display()));
        }
        for (name, number) in calls() {
            text.push_str(&format!("$SYS{{'{name}'}} = {number};\n"));
        }
        text + ATTACK
    }

    /// What may not change.
    fn state(&self) -> Vec<String> {
        let mut all = Vec::new();
        for entry in walkdir::WalkDir::new(self.outside.path()).sort_by_file_name() {
            let entry = entry.unwrap();
            let text = if entry.file_type().is_file() { fs::read_to_string(entry.path()).unwrap() } else { "".into() };
            all.push(format!("{} {text}", entry.path().display()));
        }
        for setting in [
            "/proc/sys/kernel/hostname",
            "/proc/sys/kernel/core_pattern",
            "/proc/sys/kernel/modprobe",
            "/proc/sys/vm/swappiness",
            "/proc/swaps",
            "/proc/mounts",
        ] {
            all.push(format!("{setting} {}", fs::read_to_string(setting).unwrap_or_default()));
        }
        let status = fs::read_to_string(format!("/proc/{}/status", self.victim.id())).unwrap_or_default();
        all.extend(status.lines().filter(|line| line.starts_with("Cpus_allowed_list")).map(str::to_owned));
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.victim.id())).unwrap_or_default();
        // State, priority and so on of the process (proc_pid_stat(5)).
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        all.push(format!("victim {:?}", fields.get(15..18)));
        all
    }

    /// That nobody has come by.
    fn assert_untouched(&mut self, finished: &Finished) {
        assert!(self.victim.try_wait().unwrap().is_none(), "the victim has ended: {finished}");
        assert_eq!(self.state(), self.state, "{finished}");
        self.streams.set_nonblocking(true).unwrap();
        self.abstract_streams.set_nonblocking(true).unwrap();
        self.abstract_datagrams.set_nonblocking(true).unwrap();
        assert!(self.streams.accept().is_err(), "a socket was reached: {finished}");
        assert!(self.abstract_streams.accept().is_err(), "an abstract socket was reached: {finished}");
        assert!(self.abstract_datagrams.recv(&mut [0; 8]).is_err(), "an abstract socket was reached: {finished}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.victim.kill();
        let _ = self.victim.wait();
        let text = format!(
            "shmctl(shmget({}, 0, 0), 0, 0); $n = '{}'; syscall({}, $n)",
            self.key,
            self.name,
            libc::SYS_mq_unlink
        );
        let _ = self.user.command("perl").args(["-e", &text]).status();
        let _ = fs::remove_file(Path::new("/dev/shm").join(&self.name));
        if let Some(run) = &self.run {
            let _ = fs::remove_file(run);
        }
    }
}

/// What each step is, beside the one that unpacks the root.
fn step(project: &Project, host: &Host, name: &str) -> String {
    let repository = project.path("repository");
    match name {
        "postinst-online" => format!(
            "  - action: apt
    packages: [invader]
    repositories:
      - {{name: tests, uris: ['file:{}'], suites: [stable], signed-by: key.asc}}
",
            repository.display()
        ),
        "hook" => "  - action: install-deb\n    packages: ['debs/*.deb']\n    network: false\n".into(),
        "linked" => format!(
            "  - action: run
    chroot: true
    command: rm -r /etc/apt/apt.conf.d && ln -s {} /etc/apt/apt.conf.d
{}",
            host.outside.path().display(),
            step(project, host, "hook")
        ),
        "host" => "  - action: run\n    network: false\n    command: chroot \"$ROOTDIR\" /usr/bin/attack host\n".into(),
        name => format!(
            "  - action: run\n    chroot: true\n    network: {}\n    command: exec /usr/bin/attack {name}\n",
            name.contains("online")
        ),
    }
}

/// What came out, by step and way.
type Said = BTreeMap<(String, String), String>;

/// Runs all ways in all steps, each in a build of its own: a step that does what cannot be done somewhere fails there.
fn attacked(user: User, before: &[String], args: &[&str], plain: bool) -> Option<(String, Said)> {
    let machine = args.windows(2).find(|words| words[0] == "-b" && words[1] != "local").map(|words| words[1]);
    let mut project = Project::of(user).file("root.tar", dpkg_root_with(&["perl", "cat", "ln"])?).env("DOORS", SECRET);
    if let Some(machine) = machine {
        project = project.kernel_of(machine);
    }
    let mut host = Host::new(&project);
    let hook = "DPkg::Post-Invoke { \"test ! -e /run-the-hook || /usr/bin/attack hook\"; };\n";
    let invader = Deb::new("invader", "1")
        .file("usr/bin/attack", 0o755, host.told(plain))
        .file("etc/apt/apt.conf.d/hook", 0o644, hook)
        .script("postinst", "#!/bin/sh\nexec /usr/bin/attack postinst-online\n");
    let repository = Repository::new(&project.path("repository"), "stable").with(invader);
    repository.publish("Mon, 02 Nov 2020 10:00:00 UTC");
    project.write("key.asc", repository.public_key());
    Deb::new("second", "1")
        .file("run-the-hook", 0o644, "")
        .script("postinst", "#!/bin/sh\ntest ! -L /etc/apt/apt.conf.d || exec /usr/bin/attack linked\n")
        .write(&project.path("debs"));
    // With files of the host open, as a careless caller has them.
    let open = format!("exec 8< '{0}' 9< '{0}/secret'; exec \"$@\"", host.outside.path().display());
    let mut before = before.to_vec();
    before.extend(["sh".to_owned(), "-c".into(), open, "sh".into()]);
    let (mut said, mut all) = (Said::new(), String::new());
    for name in STEPS {
        let first = step(&project, &host, STEPS[0]);
        project.set_actions(&if name == STEPS[0] { first } else { first + &step(&project, &host, name) });
        let words = ["build", "recipe.yaml", "--artifactdir", "out", "-v"].into_iter().chain(args.iter().copied());
        let finished = project.run_inside(&before, words);
        for line in finished.stderr.lines() {
            let Some((_, door)) = line.split_once("door ") else { continue };
            let mut words = door.splitn(3, ' ');
            if let (Some(step), Some(way)) = (words.next(), words.next()) {
                said.insert((step.to_owned(), way.to_owned()), words.next().unwrap_or_default().to_owned());
            }
        }
        host.assert_untouched(&finished);
        all.push_str(&finished.to_string());
    }
    // What is set-user-id in a root may not be for others of this machine to run.
    if let Ok(other) = User::without_ranges() {
        let found = other.command("find").arg(project.store()).args(["-perm", "/6000", "-type", "f"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    }
    Some((all, said))
}

/// Whether an entry of a list of ways is about this one.
fn named(entry: &str, way: &str) -> bool {
    entry.strip_suffix('*').map_or(entry == way, |start| way.starts_with(start))
}

/// Asserts that every way was tried in every step, and that only those that are named here have led out.
#[track_caller]
fn all_held(user: User, before: &[String], args: &[&str], known: &[(&str, &str)]) {
    let plain = !before.is_empty();
    let Some((finished, said)) = attacked(user, before, args, plain) else { skip!("needs dpkg and perl") };
    let out: BTreeMap<_, _> = said.iter().filter(|(_, how)| how.starts_with("out")).collect();
    let unknown: Vec<_> =
        out.iter().filter(|((_, way), _)| !known.iter().any(|(known, _)| named(known, way))).collect();
    assert!(unknown.is_empty(), "{unknown:#?}\n{finished}");
    let ways: BTreeSet<&str> = said.keys().map(|(_, way)| way.as_str()).collect();
    assert!(ways.len() > 90, "{ways:?}\n{finished}");
    for step in STEPS {
        let count = said.keys().filter(|(of, _)| of == step).count();
        assert_eq!(count, ways.len(), "ways tried by {step}: {finished}");
    }
}

#[test]
fn no_door_is_open_to_what_root_builds() {
    needs_root!();
    needs_program!("gpg", "gnupg");
    all_held(User::root().unwrap(), &[], &["-b", "local"], &[]);
}

#[test]
fn no_door_is_open_to_what_a_user_builds() {
    needs_root!();
    needs_program!("gpg", "gnupg");
    match User::ordinary() {
        Ok(user) => all_held(user, &[], &["-b", "local"], &[]),
        Err(reason) => skip!("{reason}"),
    }
}

#[test]
fn no_door_is_open_to_what_is_built_in_uml() {
    needs_root!();
    needs_uml!();
    needs_program!("gpg", "gnupg");
    all_held(User::root().unwrap(), &[], &["-b", "uml"], &[]);
}

#[test]
fn no_door_is_open_to_what_is_built_in_qemu() {
    slow!();
    needs_root!();
    needs_machine!("qemu");
    needs_program!("gpg", "gnupg");
    all_held(User::root().unwrap(), &[], &["-b", "qemu"], &[]);
}

/// What a container without mounts cannot keep from what it builds, and why; `*` stands for whatever follows.
const OPEN_IN_A_CONTAINER: &[(&str, &str)] = &[
    ("shared-memory", "there is no namespace of ipc, and programs need memory of that kind"),
    ("device-*", "nodes are part of products, and which devices open is for the container's own list to say"),
    ("disk-in-*", "likewise"),
];
/// The same on kernels without Landlock, or with an old one.
const OPEN_WITHOUT_LANDLOCK: &[(&str, &str)] =
    &[("climb*", "nothing but the paths that it names says where a process is"), ("own-users", "likewise")];

#[test]
fn what_is_built_in_a_container_finds_the_doors_that_are_known() {
    needs_root!();
    needs_program!("gpg", "gnupg");
    needs_program!("setpriv", "util-linux");
    let before = confinement::without_mounts();
    let mut known = OPEN_IN_A_CONTAINER.to_vec();
    if debforge::sandbox::unfenced().is_some() {
        known.extend(OPEN_WITHOUT_LANDLOCK);
    }
    all_held(User::root().unwrap(), &before, &["-b", "local"], &known);
}
