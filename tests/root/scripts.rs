//! What maintainer scripts find while packages are installed, and what they cannot start.

use std::fs;

use super::apt::{Case, DATE, SIGNED};
use crate::harness::http::Server;
use crate::harness::repository::Deb;
use crate::harness::{Project, confinement};

/// start-stop-daemon as a package of this version has it: it notes that it was called.
fn supervisor(version: &str) -> Deb {
    let program = format!("#!/bin/sh\n# {version}\necho \"$@\" >> /var/started\n");
    Deb::new("supervisor", version).file("sbin/start-stop-daemon", 0o755, program)
}

#[test]
fn no_daemon_is_started_while_packages_come() {
    let mut case = case!();
    let init = "#!/bin/sh\nstart-stop-daemon --start --exec /usr/sbin/served\n";
    let script = "#!/bin/sh
set -e
/etc/init.d/served $0
start-stop-daemon --start --exec /usr/sbin/served
/sbin/start-stop-daemon --start --exec /usr/sbin/served
code=0; /usr/sbin/policy-rc.d || code=$?
test $code = 101
";
    case.repository.add(supervisor("1.0"));
    case.repository.add(
        Deb::new("served", "1.0")
            .file("etc/init.d/served", 0o755, init)
            .script("preinst", "#!/bin/sh\n/sbin/start-stop-daemon --start\n")
            .script("postinst", script),
    );
    case.repository.publish(DATE);
    case.recipe("[supervisor]", SIGNED, "");
    let first = case.project.read("recipe.yaml");
    let then = |case: &Case, first: &str, packages: &str, more: &str| {
        let text = format!("  - action: apt\n    packages: {packages}\n{more}  - action: pack\n");
        case.project.write("recipe.yaml", first.replace("  - action: pack\n", &text));
        case.build().success();
        case.text("sbin/start-stop-daemon").expect("start-stop-daemon")
    };
    let program = then(&case, &first, "[served]", "");
    assert_eq!(case.text("var/started"), None);
    assert!(program.contains("# 1.0\n"), "{program}");
    // A command of the recipe's own says what it means.
    then(&case, &first, "[served]", "  - action: run\n    chroot: true\n    command: /etc/init.d/served\n");
    assert_eq!(case.text("var/started").as_deref(), Some("--start --exec /usr/sbin/served\n"));
    // The program is brought up to date in the same step: nothing is started by that one, and it stays.
    case.repository.add(supervisor("2.0"));
    case.repository.publish("Tue, 03 Nov 2020 10:00:00 UTC");
    let program = then(&case, &first.replace("[supervisor]", "[supervisor=1.0]"), "[supervisor, served]", "");
    assert_eq!(case.text("var/started"), None);
    assert!(program.contains("# 2.0\n"), "{program}");
    let names = case.files().into_iter().map(|(name, _)| name);
    let left: Vec<String> =
        names.filter(|name| name.contains(".debforge") || name.contains("dpkg/diversions")).collect();
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn an_upgrade_of_dpkg_brings_its_own_start_stop_daemon() {
    needs_root!();
    needs_program!("gpgv", "gpgv");
    let Ok(mirror) = debforge::debian::host::default_mirror() else { skip!("needs a mirror of Debian") };
    // Between these the package comes to have it in another directory, by another name of the same.
    let project = Project::new().shared_store().recipe(&format!(
        "architecture: {}\nactions:\n  - {{action: mmdebstrap, suite: bookworm, variant: apt, mirrors: ['{mirror}']}}\n  - action: run\n    chroot: true\n    command: cat /var/lib/dpkg/diversions > /before\n  - action: apt\n    packages: [dpkg/trixie]\n    repositories: [{{name: trixie, uris: ['{mirror}'], suites: [trixie]}}]\n  - action: run\n    chroot: true\n    command: |\n      set -- $(md5sum /usr/sbin/start-stop-daemon)\n      grep \"^$1  usr/sbin/start-stop-daemon$\" /var/lib/dpkg/info/dpkg.md5sums\n      test \"$(ls /usr/sbin | grep ^start-stop)\" = start-stop-daemon\n      ! grep start-stop /before /var/lib/dpkg/diversions\n",
        debforge::debian::Architecture::host()
    ));
    project.build([]).success();
}

#[test]
fn what_a_script_leaves_running_ends_with_the_step() {
    let mut case = case!();
    let script = "#!/bin/sh\n(sleep 3737 </dev/null >/dev/null 2>&1 &)\n";
    case.repository.add(Deb::new("lingers", "1.0").script("postinst", script));
    case.repository.publish(DATE);
    case.recipe("[lingers]", SIGNED, "");
    case.build().success();
    let running =
        |pid: &fs::DirEntry| fs::read(pid.path().join("cmdline")).is_ok_and(|line| line == b"sleep\x003737\0");
    let left = fs::read_dir("/proc").expect("/proc").flatten().filter(running).count();
    assert_eq!(left, 0);
}

#[test]
fn scripts_see_nothing_of_how_they_are_run() {
    let mut case = case!();
    let script = "#!/bin/sh\nexport -p > /usr/share/exported\n";
    case.repository.add(Deb::new("asks", "1.0").script("postinst", script));
    case.repository.publish(DATE);
    case.recipe("[asks]", SIGNED, "");
    case.build().success();
    let exported = case.text("usr/share/exported").expect("what the script wrote");
    let mut names: Vec<&str> = exported
        .lines()
        .filter_map(|line| line.strip_prefix("export "))
        .map(|line| line.split('=').next().unwrap_or_default())
        .collect();
    names.sort_unstable();
    names.retain(|name| !name.starts_with("DPKG_"));
    let expected = [
        "DEBCONF_NONINTERACTIVE_SEEN",
        "DEBIAN_FRONTEND",
        "HOME",
        "LC_ALL",
        "OLDPWD",
        "PATH",
        "PWD",
        "SOURCE_DATE_EPOCH",
        "TERM",
    ];
    names.retain(|name| !expected.contains(name));
    assert_eq!(names, Vec::<&str>::new(), "{exported}");
    assert!(!exported.contains("debforge") && !exported.contains("/tmp/"), "{exported}");
}

#[test]
fn the_roots_own_apt_conf_holds_and_its_hooks_see_no_more() {
    let case = case!();
    case.project.write("root/etc/apt/apt.conf", "DPkg::Post-Invoke { \"export -p > /hook\"; };\n");
    case.project.write("root/etc/apt/apt.conf.d/10own", "DPkg::Pre-Invoke { \"echo > /hook-of-part\"; };\n");
    case.recipe("[two]", SIGNED, "");
    let recipe = case.project.read("recipe.yaml");
    let text = "  - {action: overlay, source: root}\n  - action: apt\n";
    case.project.write("recipe.yaml", recipe.replacen("  - action: apt\n", text, 1));
    case.build().success();
    let exported = case.text("hook").expect("what the hook wrote");
    assert!(!exported.contains("APT_CONFIG") && !exported.contains("debforge"), "{exported}");
    assert!(case.text("hook-of-part").is_some());
    // Only apt knows this release for none.
    case.project.write("root/etc/apt/apt.conf", "APT::Default-Release \"nowhere\";\n");
    case.build().code(1).says("nowhere");
}

#[test]
fn where_nothing_can_be_mounted_scripts_find_the_same() {
    needs_root!();
    needs_program!("setpriv", "util-linux");
    let mut case = case!();
    let script = "#!/bin/sh\nexport -p > /usr/share/exported\n/sbin/start-stop-daemon --start\n";
    case.repository.add(supervisor("1.0"));
    case.repository.add(Deb::new("asks", "1.0").field("Pre-Depends", "supervisor").script("postinst", script));
    case.repository.publish(DATE);
    case.recipe("[supervisor]", SIGNED, "");
    let first = case.project.read("recipe.yaml");
    let text = "  - action: apt\n    packages: [asks]\n  - action: pack\n";
    case.project.write("recipe.yaml", first.replace("  - action: pack\n", text));
    let args = ["build", "recipe.yaml", "--artifactdir", "out"];
    case.project.run_inside(&confinement::without_mounts(), args).success();
    let exported = case.text("usr/share/exported").expect("what the script wrote");
    assert!(!exported.contains("APT_CONFIG") && !exported.contains("debforge"), "{exported}");
    assert_eq!(case.text("var/started"), None);
    assert!(case.text("sbin/start-stop-daemon").expect("start-stop-daemon").contains("# 1.0\n"));
}

#[test]
fn scripts_have_the_network_unless_it_is_kept_from_them() {
    let mut case = case!();
    let server = Server::new(&case.project.path("repository"));
    let address = server.url("").trim_end_matches('/').rsplit(':').next().expect("a port").to_owned();
    // What the sandbox lets a script see of the network and of who knows names.
    let script = format!(
        "#!/bin/sh\n: {address}\nmkdir -p /usr/share\ncat /proc/net/tcp > /usr/share/sockets\ncat /etc/resolv.conf > /usr/share/names || :\n"
    );
    case.repository.add(Deb::new("asks", "1.0").script("postinst", &script));
    case.repository.publish(DATE);
    let port: u16 = address.parse().expect("a port");
    let listens = |text: &str| text.contains(&format!(":{port:04X} "));
    case.recipe("[asks]", SIGNED, "");
    case.build().success();
    assert!(listens(&case.text("usr/share/sockets").expect("sockets")));
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    assert_eq!(case.text("usr/share/names").unwrap_or_default(), host);
    assert_eq!(case.text("etc/resolv.conf"), None);
    case.recipe("[asks]", SIGNED, "network: false");
    case.build().success();
    assert!(!listens(&case.text("usr/share/sockets").unwrap_or_default()));
    assert_eq!(case.text("usr/share/names").unwrap_or_default(), "");
}

#[test]
fn what_packages_copy_of_this_machines_name_servers_goes() {
    if fs::read("/etc/resolv.conf").is_ok_and(|text| text.is_empty()) {
        skip!("needs a resolver configuration");
    }
    let mut case = case!();
    let script = "#!/bin/sh
set -e
mkdir -p /var/spool/chroot/etc
read -r line < /etc/resolv.conf
for copy in /etc/.resolv.conf.systemd-resolved.bak /var/spool/chroot/etc/resolv.conf; do
    while IFS= read -r line; do echo \"$line\"; done < /etc/resolv.conf > $copy
done
echo own > /etc/copier.conf
";
    case.repository.add(Deb::new("copier", "1.0").script("postinst", script));
    case.repository.publish(DATE);
    case.recipe("[copier]", SIGNED, "");
    case.build().success();
    let names: Vec<String> = case.files().into_iter().map(|(name, _)| name).collect();
    let copies: Vec<&String> = names.iter().filter(|name| name.contains("resolv.conf")).collect();
    assert!(copies.is_empty() && names.iter().any(|name| name == "etc/copier.conf"), "{copies:?}");
    // Of the root's own file they are copies of that.
    case.project.write("root/etc/resolv.conf", "nameserver 192.0.2.1\n");
    let text = case.project.read("recipe.yaml");
    case.project.write(
        "recipe.yaml",
        text.replace("  - action: apt\n", "  - {action: overlay, source: root}\n  - action: apt\n"),
    );
    case.build().success();
    for path in ["etc/resolv.conf", "etc/.resolv.conf.systemd-resolved.bak", "var/spool/chroot/etc/resolv.conf"] {
        assert_eq!(case.text(path).as_deref(), Some("nameserver 192.0.2.1\n"), "{path}");
    }
}
