//! Small roots that are prepared, with programs that stand for dracut; what comes of /var on a machine is made by
//! systemd-tmpfiles itself.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::process::Command;

use rstest::rstest;

use super::ostree;
use crate::harness::Project;
use crate::image::disk::with_capability;
use crate::oci::run;

/// All that `ostree-prepare` looks for.
const ROOT: &str = r#"
  - action: run
    chroot: true
    command: |
      cp -a /bin/. /usr/bin/ && exec 2>&1
      for name in bin sbin; do /usr/bin/busybox rm -rf /$name && /usr/bin/busybox ln -s usr/$name /$name; done
      mkdir -p /usr/lib/dracut/modules.d/98ostree /usr/lib/modules/6.1 /boot /var/lib/dpkg /var/lib/apt && ln -s usr/lib /lib
      printf '#!/bin/sh\nfor last; do :; done\necho initramfs >"$last"\n' > /usr/bin/dracut
      printf '#!/bin/sh\necho initrd-root-fs.target.wants/ostree-prepare-root.service\n' > /usr/bin/lsinitrd
      chmod 755 /usr/bin/dracut /usr/bin/lsinitrd && echo kernel > /boot/vmlinuz-6.1
      printf 'Package: ostree\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2025.2-1\n\n' > /var/lib/dpkg/status
      printf 'Package: ostree\nAuto-Installed: 1\n\n' > /var/lib/apt/extended_states
"#;

/// A command in the chroot, in a recipe.
fn step(command: &str) -> String {
    let lines: String = command.lines().map(|line| format!("      {line}\n")).collect();
    format!("  - action: run\n    chroot: true\n    command: |\n{lines}")
}

const PREPARE: &str = "  - action: ostree-prepare\n";

const COMMIT: &str = "  - action: ostree-commit\n    repository: repo\n    branch: os\n";

fn recipe(steps: &[&str]) -> String {
    [&[ROOT.trim_start_matches('\n')], steps].concat().concat()
}

/// A project with a recipe that was built; `skip!` where the machine lacks something.
macro_rules! built {
    ($steps:expr) => {{
        needs_root!();
        needs_program!("ostree", "ostree");
        needs_program!("systemd-tmpfiles", "systemd");
        let Some(project) = Project::new().tiny(&recipe($steps)) else { skip!("needs a static busybox") };
        project.build([]).success();
        project
    }};
}

/// The commit's tree, with a /var as a machine has it after its first start.
fn machine(project: &Project) -> PathBuf {
    ostree(project, &["init", "--repo=bare", "--mode=bare"]);
    ostree(project, &["pull-local", "--repo=bare", "out/repo", "os"]);
    ostree(project, &["--repo=bare", "checkout", "-C", "os", "tree"]);
    let tree = project.path("tree");
    assert_eq!(fs::read_dir(tree.join("var")).unwrap().count(), 0);
    fs::rename(tree.join("usr/etc"), tree.join("etc")).unwrap();
    let root = format!("--root={}", tree.display());
    let done = Command::new("systemd-tmpfiles").args(["--create", "--prefix=/var", &root]).output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
    tree
}

#[test]
fn var_is_on_machines_what_it_was() {
    let odd = r#"a "b" \n 100%  "#;
    let project = built!(&[
        &step(&format!(
            "mkdir -p /var/lib/x && ln -s '{odd}' /var/lib/x/odd && chown -h 33:33 /var/lib/x/odd\n\
             mknod /var/lib/x/pipe p && chmod 620 /var/lib/x/pipe && chown 33:0 /var/lib/x/pipe\n\
             mkdir -p '/var/lib/x/a \"b\"' && echo text > '/var/lib/x/a \"b\"/file' && chmod 600 '/var/lib/x/a \"b\"/file'\n\
             mkdir -p /srv/data /usr/local/bin /usr/lib/tmpfiles.d && chmod 2775 /srv && chown 0:33 /srv\n\
             mkdir -p /home && chmod 711 /home && mkdir -m 700 /home/me && echo mine > /home/me/file && chown -R 33:33 /home/me\n\
             echo tool > /usr/local/bin/tool && chmod 755 /usr/local/bin/tool && chmod 750 /usr/local/bin\n\
             mkdir -m 700 /var/lib/open && chown 33 /var/lib/open && mkdir -m 700 /var/lib/said\n\
             ln -s /run /var/run && mkdir -p /run && printf 'L /var/run - - - - ../run\\nd /var/lib/open - - - -\\nd /var/lib/said 0755 root root -\\n' > /usr/lib/tmpfiles.d/package.conf"
        )),
        "  - action: run\n    command: setfacl -m d:u:33:rwx,g::r-x $ROOTDIR/var/lib/x\n",
        PREPARE,
        COMMIT,
    ]);
    let tree = machine(&project);
    let at = |path: &str| tree.join(path);
    let stat = |path: &str| {
        let stat = at(path).symlink_metadata().unwrap();
        (stat.mode() & 0o7777, stat.uid(), stat.gid())
    };
    assert_eq!(fs::read_link(at("var/lib/x/odd")).unwrap().to_str(), Some(odd));
    assert_eq!((stat("var/lib/x/odd").1, stat("var/lib/x/odd").2), (33, 33));
    assert!(at("var/lib/x/pipe").symlink_metadata().unwrap().file_type().is_fifo());
    assert_eq!(stat("var/lib/x/pipe"), (0o620, 33, 0));
    assert_eq!(fs::read_to_string(at("var/lib/x/a \"b\"/file")).unwrap(), "text\n");
    assert_eq!(stat("var/lib/x/a \"b\"/file"), (0o600, 0, 0));
    assert_eq!(stat("var/srv"), (0o2775, 0, 33));
    assert_eq!(stat("var/home"), (0o711, 0, 0));
    assert_eq!(stat("var/home/me"), (0o700, 33, 33));
    assert_eq!(stat("usr/share/factory/var/home/me"), (0o700, 33, 33));
    assert_eq!(fs::read_to_string(at("var/home/me/file")).unwrap(), "mine\n");
    assert_eq!((stat("var/usrlocal/bin"), stat("var/usrlocal/bin/tool")), ((0o750, 0, 0), (0o755, 0, 0)));
    // What a package's line leaves open is as it was; what it says it says.
    assert_eq!((stat("var/lib/open"), stat("var/lib/said")), ((0o700, 33, 0), (0o755, 0, 0)));
    let acl = run(&tree, "getfacl", &["-n", "-c", "var/lib/x"]);
    assert!(acl.contains("default:user:33:rwx") && acl.contains("default:group::r-x"), "{acl}");
    // Where dpkg and apt look, and scanners that read their files.
    assert!(fs::read_to_string(at("var/lib/dpkg/status")).unwrap().contains("Package: ostree"));
    assert!(fs::read_to_string(at("var/lib/apt/extended_states")).unwrap().contains("Auto-Installed"));
}

#[test]
fn containers_have_the_databases_where_dpkg_and_apt_look() {
    let project = built!(&[
        &step("mkdir -p /var/lib/apt/lists/partial /var/cache/apt/archives/partial && ln -sf /run /var/run"),
        PREPARE,
        "  - action: pack\n    file: root.tar\n",
        "  - action: bootc-image\n    file: os.oci.tar\n    kargs: ['dyndbg=\"file a.c +p; file b.c +p\"']\n",
    ]);
    let listed = run(&project.path("."), "tar", &["-tvf", "out/root.tar"]);
    for line in
        ["./var/lib/dpkg -> ../../usr/share/dpkg/database", "./usr/share/dpkg/database/status", "./var/lib/apt/"]
    {
        assert!(listed.contains(line), "{line}: {listed}");
    }
    assert!(listed.contains("./var/lib/apt/extended_states -> ../../../usr/share/dpkg/database/apt-extended_states"));
    // Our lint is content with our own lines.
    let lint = project.run(["lint-bootc", "out/os.oci.tar"]).success();
    assert!(!lint.stdout.contains("var-tmpfiles") && !lint.stdout.contains("sysusers"), "{}", lint.stdout);
    let packages = project.run(["inspect", "out/os.oci.tar"]).success();
    assert!(packages.stdout.contains('1'), "{}", packages.stdout);
}

/// What is refused stands at the end of a message, with its path, and dracut was not run.
#[rstest]
#[case("mknod /var/lib/node c 1 3", "a device or pipe: /var/lib/node")]
#[case("mkdir -p /usr/lib/x && mknod /usr/lib/x/pipe p", "a device or pipe: /usr/lib/x/pipe")]
#[case("mkdir /data && echo x > /data/file", "neither in /usr nor in /etc nor in /var: /data")]
#[case("echo x > /settings", "neither in /usr nor in /etc nor in /var: /settings")]
#[case("ln -s /data /srv", "/srv is a link to /data")]
#[case(
    "mkdir -p /usr/lib/tmpfiles.d && echo 'f /var/lib/log' > /usr/lib/tmpfiles.d/p.conf && echo x > /var/lib/log",
    "tmpfiles.d would make something else of /var/lib/log (by /usr/lib/tmpfiles.d/p.conf)"
)]
#[case(
    "mkdir -p /srv/x /var/srv/x && touch /srv/x/a /srv/x/b /var/srv/x/a",
    "/srv/x/a would move to /var/srv/x/a, where"
)]
#[case("mkdir -p /opt/x /var/opt && ln -s / /var/opt/x", "/opt/x would move to /var/opt/x, where something else is")]
#[case("ln -s ../srv /var/srv", "/srv would move to /var/srv, where something else is")]
fn what_cannot_be_kept_is_refused_before_the_initramfs(#[case] command: &str, #[case] said: &str) {
    needs_root!();
    needs_program!("ostree", "ostree");
    let dracut = "printf '#!/bin/sh\\necho DRACUT RAN; exit 1\\n' > /usr/bin/dracut";
    let actions = recipe(&[&step(command), &step(dracut), PREPARE]);
    let Some(project) = Project::new().tiny(&actions) else { skip!("needs a static busybox") };
    let finished = project.build([]).code(1).says(said);
    assert!(!finished.stderr.contains("DRACUT RAN"), "{}", finished.stderr);
}

#[test]
fn capabilities_that_nothing_would_give_again_are_refused() {
    needs_root!();
    needs_program!("ostree", "ostree");
    let unpack = "  - {action: unpack, origin: recipe, file: cap.tar}\n";
    let project = Project::new().file("cap.tar", with_capability()).tiny(&recipe(&[unpack, PREPARE]));
    let Some(project) = project else { skip!("needs a static busybox") };
    project.build([]).code(1).says("what is special of them: /var/srv/capable (security.capability)");
}

#[test]
fn what_goes_with_boot_is_told() {
    needs_root!();
    needs_program!("ostree", "ostree");
    let Some(project) = Project::new().tiny(&recipe(&[&step("echo x > /boot/config.txt"), PREPARE])) else {
        skip!("needs a static busybox")
    };
    project.build([]).success().says("left out of /boot, which is the disk's: config.txt");
}

#[test]
fn a_commit_alone_refuses_what_it_cannot_hold() {
    needs_root!();
    needs_program!("ostree", "ostree");
    let pipe = [step("mkdir -p /usr/share/x && mknod /usr/share/x/pipe p"), COMMIT.into()].concat();
    let Some(project) = Project::new().tiny(&pipe) else { skip!("needs a static busybox") };
    project.build([]).code(1).says("a device or pipe: /usr/share/x/pipe");
    // What came into /var too late would be on no machine.
    project.set_actions(&recipe(&[PREPARE, &step("mkdir -p /var/www && echo page > /var/www/index.html"), COMMIT]));
    project.build([]).code(1).says("a part of /var would not be deployed").says("/var/www/index.html");
}

#[test]
fn users_are_described_once_with_their_numbers() {
    let project = built!(&[
        &step(
            "mkdir -p /usr/lib/sysusers.d && printf 'u! root 0 \"Super User\" /root\\nu www-data - \"Other\"\\nu late -\\n' > /usr/lib/sysusers.d/basic.conf\n\
             echo 'me:x:1000:1000::/home/me:/bin/sh' >> /etc/passwd && echo 'me:x:1000:' >> /etc/group\n\
             mkdir -p /usr/share && touch /usr/share/mine && chown 1000:1000 /usr/share/mine"
        ),
        PREPARE,
        COMMIT,
    ]);
    let cat = |path: &str| ostree(&project, &["--repo=out/repo", "cat", "os", path]);
    let image = cat("/usr/lib/sysusers.d/00-image.conf");
    assert!(
        image.contains("u me 1000:1000 ") && image.contains("g me 1000") && image.contains("u www-data 33:33"),
        "{image}"
    );
    let root = project.path("machine");
    for name in ["00-image.conf", "basic.conf"] {
        let path = format!("/usr/lib/sysusers.d/{name}");
        project.write(&format!("machine{path}"), cat(&path));
    }
    fs::create_dir_all(root.join("etc")).unwrap();
    let argument = format!("--root={}", root.display());
    let done = Command::new("systemd-sysusers").arg(&argument).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success() && !said.contains("Conflict"), "{said}");
    let passwd = fs::read_to_string(root.join("etc/passwd")).unwrap();
    assert!(
        passwd.contains("me:x:1000:1000:") && passwd.contains("www-data:x:33:33:") && passwd.contains("late:"),
        "{passwd}"
    );
}

#[test]
fn files_of_nobody_are_told() {
    needs_root!();
    needs_program!("ostree", "ostree");
    let owned = "mkdir -p /usr/share/x && touch /usr/share/x/file && chown 4711:4712 /usr/share/x/file";
    let Some(project) = Project::new().tiny(&recipe(&[&step(owned), PREPARE])) else { skip!("needs a static busybox") };
    project.build([]).success().says("the user 4711 (/usr/share/x/file)").says("the group 4712 (/usr/share/x/file)");
}
