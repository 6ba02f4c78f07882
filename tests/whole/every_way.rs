//! The same bytes in every way of building, or a word: as root, as users with subordinate ids and without, in
//! containers without mounts, in UML and in QEMU.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::places::places;
use crate::harness::user::work_dir;
use crate::harness::{Project, User, confinement};
use crate::machine::{needs_machine, needs_uml};

/// What programs find in /proc and /dev decides what they write.
const LOOKS_AROUND: &str = "
  - action: run
    chroot: true
    network: false
    command: |
      mkdir -p /srv /etc/masks
      exec 7> /srv/held 8> /srv/closed
      chmod 2640 /proc/self/fd/7
      chown 33:33 /dev/fd/7
      echo in | cat /dev/stdin > /srv/stdin
      echo out > /dev/stdout
      readlink /proc/self/exe > /srv/exe
      ln -s /proc/self/comm /etc/comm
      cat /etc/comm > /srv/comm
      ln -s ../proc/mounts /etc/mtab
      cat /etc/mtab /proc/cpuinfo /proc/filesystems /proc/sys/kernel/hostname > /srv/machine
      { busybox nproc; busybox uname -a; hostname; } > /srv/calls
      ! cat /proc/kcore /proc/config.gz
      busybox cp /proc/version /proc/cpuinfo /proc/sys/kernel/osrelease /srv/
      busybox stat -c '%n %a %u %s %Y' /proc/version /proc/meminfo /proc/sys/kernel/osrelease /sys/devices/system/cpu/online > /srv/stated
      ! test /proc/version -ef /proc/meminfo
      test /proc/version -ef /proc/version
      ! echo > /proc/version
      head -c 7 /dev/zero > /srv/zeros
      test -n \"$(head -c 7 /dev/urandom)\"
      ! echo full > /dev/full
      ln -s /dev/null /etc/masks/unit
      echo gone > /etc/masks/unit
      stat -c '%F %a %t %T' /dev/null > /srv/null
      (cd /proc/self/fd && ls -l > /dev/null && test -e 1)
      (cd / && cat proc/self/comm dev/null) > /srv/relative
      test -d /proc/$$ && test -d /proc/1 && test ! -e /proc/$$$$$$
      touch /tmp/left /dev/left /dev/shm/left
      busybox su -s /bin/sh www-data -c 'cat /proc/self/comm; readlink /proc/self/cwd' > /srv/other
      ! busybox su -s /bin/sh www-data -c 'echo > /proc/self/fd/8'
  - action: pack
    file: out.tar
    compression: none
";

#[test]
fn programs_find_the_same_kernel_in_every_way_of_building() {
    needs_program!("setpriv", "util-linux");
    let mut first: Option<(&str, Vec<u8>)> = None;
    for place in &places() {
        let user = match &place.user {
            Ok(user) => user.clone(),
            Err(reason) => {
                crate::harness::skip::note(&format!("{}: {reason}", place.name));
                continue;
            }
        };
        let Some(project) = Project::of(user).tiny(LOOKS_AROUND) else { skip!("needs a static busybox") };
        project.run_inside(&place.before, ["build", "recipe.yaml", "--artifactdir", "out"]).success();
        let archive = project.path("out/out.tar");
        let listing = crate::golden::listing(&archive);
        assert!(!listing.keys().any(|name| name.contains("left")), "{}: {listing:?}", place.name);
        let bytes = fs::read(&archive).unwrap();
        match &first {
            None => first = Some((place.name, bytes)),
            Some((name, expected)) => {
                let difference = super::places::difference(&archive, expected);
                assert!(*expected == bytes, "{} and {name} differ: {difference}", place.name);
            }
        }
    }
}

/// What a step does, and what is said where it cannot.
const CANNOT: [(&str, &str); 4] = [
    ("mkdir /m; mount -t tmpfs tmpfs /m || true", "the command mounts something on /m"),
    ("mknod /srv/node c 1 3 || true", "the command makes the device node /srv/node"),
    ("hostname elsewhere || true", "the command sets the host name"),
    (
        "cp /bin/busybox /srv/busybox-of-33; chown 33:33 /srv/busybox-of-33; chmod 4755 /srv/busybox-of-33; /srv/busybox-of-33 id",
        "the command runs /srv/busybox-of-33, which is set-user-id",
    ),
];

#[test]
fn what_cannot_be_given_fails_the_step_and_names_the_machine_that_can() {
    needs_root!();
    needs_program!("setpriv", "util-linux");
    for (command, said) in CANNOT {
        let recipe = format!(
            "  - action: run\n    chroot: true\n    command: mkdir -p /srv; {command}\n  - action: pack\n    file: out.tar\n"
        );
        let Some(project) = Project::new().tiny(&recipe) else { skip!("needs a static busybox") };
        project.build([]).success();
        let args = ["build", "recipe.yaml", "--artifactdir", "there", "--no-cache"];
        project.run_inside(&confinement::without_devices(), args).code(3).says(said).says("--backend uml");
        assert!(!project.path("there/out.tar").exists());
    }
}

#[test]
fn a_device_node_that_a_user_cannot_make_is_not_left_out_without_a_word() {
    let Ok(user) = User::ordinary() else { skip!("needs a user with subordinate ids") };
    let recipe = "  - action: run\n    chroot: true\n    command: mknod /etc/node c 1 3 || true\n";
    let Some(project) = Project::of(user).tiny(recipe) else { skip!("needs a static busybox") };
    project.build(["-b", "local"]).code(3).says("makes the device node /etc/node").says("--backend uml");
}

#[test]
fn a_step_without_network_has_none_in_a_container_either() {
    needs_root!();
    needs_program!("setpriv", "util-linux");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let recipe = |network: bool| {
        format!(
            "  - action: run\n    chroot: true\n    network: {network}\n    command: busybox nc -w 2 127.0.0.1 {port} < /dev/null\n"
        )
    };
    let Some(project) = Project::new().tiny(&recipe(true)) else { skip!("needs a static busybox") };
    let args = ["build", "recipe.yaml", "--artifactdir", "out", "--no-cache"];
    let asked = std::thread::spawn(move || listener.accept().map(drop));
    project.run_inside(&confinement::without_mounts(), args).success();
    asked.join().unwrap().unwrap();
    project.set_actions(&recipe(false));
    project.run_inside(&confinement::without_mounts(), args).code(1).says("Address family not supported");
}

#[test]
fn a_container_whose_keeper_watches_builds_nothing_that_it_cannot_furnish() {
    needs_root!();
    needs_program!("setpriv", "util-linux");
    let Some(project) = Project::new().tiny("  - action: pack\n    file: out.tar\n") else {
        skip!("needs a static busybox");
    };
    let inside = [confinement::watched(), confinement::without_mounts()].concat();
    let args = ["build", "recipe.yaml", "--artifactdir", "out", "-b", "local"];
    project.run_inside(&inside, args).code(3).says("watching over its system calls");
}

#[test]
fn the_host_is_read_only_where_nothing_can_be_mounted() {
    needs_root!();
    needs_program!("setpriv", "util-linux");
    let outside = tempfile::tempdir_in(work_dir()).unwrap();
    let recipe = format!(
        "  - action: run\n    script: scripts/touch.sh {0}\n  - action: run\n    chroot: true\n    script: scripts/touch.sh /srv\n",
        outside.path().display()
    );
    let Some(project) = Project::new().tiny(&recipe) else { skip!("needs a static busybox") };
    let script = "#!/bin/sh\nhere=${0%/*}\n! touch \"$here/new\" && ! mkdir \"$here/new\" && ! ln -s x \"$here/new\"\n\
                  ! echo more >> \"$here/beside\"\n! rm \"$here/beside\"\n! mv \"$here/beside\" \"$here/other\"\n! chmod 600 \"$here/beside\"\n\
                  mkdir -p \"$here\"\ntest \"$(cat \"$here/beside\")\" = here\n! test -e \"$here/.git\"\n\
                  if test \"$1\" = /srv; then mkdir -p /srv && touch /srv/new; else ! touch \"$1/new\"; fi\n";
    project.write("scripts/touch.sh", script);
    project.chmod("scripts/touch.sh", 0o755);
    project.write("scripts/beside", "here");
    project.write("scripts/.git/HEAD", "");
    for inside in [Vec::new(), confinement::without_mounts()] {
        project.run_inside(&inside, ["build", "recipe.yaml", "--artifactdir", "out", "--no-cache"]).success();
        assert_eq!(project.read("scripts/beside"), "here");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

/// What a command may ask of the host's files; whether it succeeds is part of the product.
const ASKED: &str = r#"
: >> /etc/hosts
test -w /etc/passwd
test -r /etc/passwd
test -w "$RECIPEDIR/data"
test -w "$ROOTDIR"
test -w /usr
mkdir /brk
chmod 755 /etc/hosts
chmod 755 /root
touch /etc/ssl
touch /etc
cat /etc/localtime
cat /etc/shadow
cat /etc/shadow-none
echo x > /opt/x
mkdir -p /usr /opt
rmdir /opt
touch /var/lib/dpkg/x
chmod 644 /var/lib/dpkg/status
test -s /var/lib/dpkg/status
ln "$RECIPEDIR/data" "$ROOTDIR/linked"
ln -s /run/brk "$ROOTDIR/dangling" && echo hi > "$ROOTDIR/dangling"
ln -s "$RECIPEDIR/brk" "$ROOTDIR/dangling2" && echo hi > "$ROOTDIR/dangling2"
echo 1 > /tmp/debforge-fixed-name && test -s /tmp/debforge-fixed-name && mv /tmp/debforge-fixed-name /tmp/debforge-other
mkdir /var/tmp/debforge-fixed && touch /var/tmp/debforge-fixed/x
cp -r "$RECIPEDIR/sub/." "$ROOTDIR/copy"
grep -r file "$RECIPEDIR/sub"
test -e "$RECIPEDIR/recipe.yaml"
test -e "$RECIPEDIR/.git"
cat "$RECIPEDIR/outward"
"$RECIPEDIR/script"
test "$(grep -c ^processor /proc/cpuinfo)" = 4
cat /proc/version /proc/filesystems > "$ROOTDIR/told"
ls /dev /sys > "$ROOTDIR/devices"
ls /proc/sys/kernel > "$ROOTDIR/settings"
ls -A "$RECIPEDIR" > "$ROOTDIR/listed"
test "$(nproc)" = 4
test -e /dev/kmsg
cat /proc/kcore
cd "$RECIPEDIR/sub/../sub" && cat ../data
test -d "$HOME" && ls -A "$HOME" > "$ROOTDIR/home"
"#;

#[test]
fn a_command_of_the_host_finds_the_same_in_a_container() {
    needs_root!();
    needs_program!("setpriv", "util-linux");
    let steps: String = ["one", "two"].map(|name| format!("  - action: run\n    script: ask {name}\n")).concat();
    let pack = "  - {action: pack, file: out.tar, compression: none}\n";
    let Some(project) = Project::new().tiny(&format!("{steps}{pack}")) else { skip!("needs a static busybox") };
    let mut ask = "#!/bin/sh\ncd \"$ROOTDIR\"\n".to_owned();
    for (number, line) in ASKED.trim().lines().enumerate() {
        ask.push_str(&format!("( {line} ) >/dev/null 2>&1; echo {number} $? >> \"$ROOTDIR/answers-$1\"\n"));
    }
    // What is there twice is as good as what is there once.
    ask.push_str("rm -rf \"$ROOTDIR\"/dangling* \"$ROOTDIR/linked\"\n");
    project.write("ask", ask);
    project.chmod("ask", 0o755);
    project.write("data", "data");
    project.write("sub/deep/file", "file");
    project.write(".git/HEAD", "");
    project.write("sub/.git/HEAD", "");
    project.write("script", "#!/opt/debforge-none/sh\n");
    project.chmod("script", 0o755);
    symlink("/etc/machine-id", project.path("outward")).unwrap();
    let archives: Vec<Vec<u8>> = [Vec::new(), confinement::without_mounts()]
        .iter()
        .map(|inside| {
            project.run_inside(inside, ["build", "recipe.yaml", "--artifactdir", "out", "--no-cache"]).success();
            fs::read(project.path("out/out.tar")).unwrap()
        })
        .collect();
    let difference = || super::places::difference(&project.path("out/out.tar"), &archives[0]);
    assert!(archives[0] == archives[1], "{}\n{:#?}", difference(), project.read("ask").lines().collect::<Vec<_>>());
    assert_eq!(project.read("data"), "data");
    for left in ["/tmp/debforge-fixed-name", "/tmp/debforge-other", "/var/tmp/debforge-fixed", "/brk", "/run/brk"] {
        assert!(!Path::new(left).exists(), "{left}");
    }
}

/// All formats of one system, and what the digests of their artifacts are compared by.
const FORMATS: [(&str, &str); 6] = [
    ("tar", "every.tar"),
    ("disk image", "every.img"),
    ("ISO", "every.iso"),
    ("OCI", "every.oci.tar"),
    ("OSTree", "repo"),
    ("bootc", "every.bootc.tar"),
];

/// A file's bytes; of an OSTree repository its commits, which are the digests of all that is in them.
fn digest(path: &Path) -> String {
    if path.is_dir() {
        let heads = walkdir::WalkDir::new(path.join("refs/heads")).sort_by_file_name().into_iter().flatten();
        let commits = heads.filter(|entry| entry.file_type().is_file()).map(|entry| fs::read(entry.path()).unwrap());
        return hex::encode(Sha256::digest(commits.collect::<Vec<_>>().concat()));
    }
    let mut state = Sha256::new();
    let mut file = fs::File::open(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return hex::encode(state.finalize()),
            count => state.update(&buffer[..count]),
        }
    }
}

/// A way of building, and what it takes to go it.
struct Way {
    name: &'static str,
    user: Result<User, String>,
    /// Words before the command.
    before: Vec<String>,
    backend: &'static str,
}

fn ways() -> Vec<Way> {
    let root = || User::root().ok_or_else(|| "needs root".to_owned());
    let way = |name, user, before, backend| Way { name, user, before, backend };
    vec![
        way("root", root(), Vec::new(), "local"),
        way("a user with subordinate ids", User::ordinary(), Vec::new(), "local"),
        way("a user without", User::without_ranges(), Vec::new(), "auto"),
        way("a container without mounts", root(), confinement::without_devices(), "local"),
        way("UML", root(), Vec::new(), "uml"),
        way("QEMU", root(), Vec::new(), "qemu"),
    ]
}

#[test]
fn the_same_bytes_in_every_way_of_building() {
    slow!();
    needs_root!();
    needs_uml!();
    needs_program!("qemu-system-x86_64", "qemu-system-x86");
    needs_program!("ostree", "ostree");
    needs_program!("xorriso", "xorriso");
    let recipe = include_str!("every_way.yaml");
    let mut table: BTreeMap<&str, BTreeMap<&str, String>> = BTreeMap::new();
    for Way { name: way, user, before, backend } in ways() {
        let project = Project::of(user.unwrap_or_else(|reason| panic!("{way}: {reason}"))).recipe(recipe);
        // A kind of its own keeps its kernel; a user without ids is given a machine, too.
        let project = match backend {
            "auto" => project.kernel_of("uml"),
            "local" => project,
            machine => project.kernel_of(machine),
        };
        let args = ["build", "recipe.yaml", "--artifactdir", "out", "-b", backend, "-m", "3G"];
        project.run_inside(&before, args).success();
        for (format, name) in FORMATS {
            table.entry(format).or_default().insert(way, digest(&project.path("out").join(name)));
        }
    }
    for (format, digests) in &table {
        let first = digests.values().next().unwrap();
        assert!(digests.values().all(|digest| digest == first), "{format}: {digests:#?}");
    }
}
