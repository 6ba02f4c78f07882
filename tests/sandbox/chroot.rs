//! What a command in the target root sees, and what it leaves there.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;

use super::{assert_same, bind, needs_mounts, output_of, run, tiny};

#[test]
fn only_its_own_processes_are_there() {
    needs_mounts!();
    let tiny = tiny!();
    let pids = output_of(&tiny.script("for dir in /proc/[0-9]*; do echo ${dir#/proc/}; done"));
    let pids: Vec<u32> = pids.lines().map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.contains(&1) && pids.iter().all(|pid| *pid < 10), "{pids:?}");
}

#[test]
fn no_way_leads_out_of_the_root() {
    needs_mounts!();
    let tiny = tiny!();
    fs::write(tiny.beside("secret"), "").unwrap();
    let script = "ls / /.. /proc/1/root/ /proc/self/root/..; cat /proc/1/mountinfo; ls -l /proc/self/fd /proc/1/cwd";
    let output = output_of(&tiny.script(script));
    for hidden in ["secret", "lost+found", "home"] {
        assert!(!output.contains(hidden), "{hidden} in {output}");
    }
    // The root's own mount is shown with its path inside its file system, but is mounted on `/`.
    let outside: Vec<&str> = output
        .lines()
        .filter_map(|line| line.split(' ').nth(4).filter(|_| line.contains(" - ")))
        .filter(|at| *at != "/" && !["/proc", "/dev", "/sys", "/tmp"].iter().any(|own| at.starts_with(own)))
        .collect();
    assert_eq!(outside, [""; 0]);
}

#[test]
fn the_surroundings_are_fixed() {
    needs_mounts!();
    let tiny = tiny!();
    let mut command = tiny.script("hostname; umask; pwd; env; ls /sys; touch /sys/x 2>/dev/null || echo read-only");
    command.directory = Some("/etc".into());
    command.environment.insert("LANG".into(), "C.UTF-8".into());
    let output = output_of(&command);
    let mut lines: Vec<&str> =
        output.lines().filter(|line| !line.starts_with("SHLVL=") && !line.starts_with("_=")).collect();
    lines[3..].sort_unstable();
    let path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(lines, ["debforge", "0022", "/etc", "LANG=C.UTF-8", path, "PWD=/etc", "devices", "read-only"]);
}

#[test]
fn the_devices_are_private_and_work() {
    needs_mounts!();
    let tiny = tiny!();
    let script = "cd /dev; echo *; ls -l ptmx; echo x > full; echo x > null && cat null; \
        head -c 3 zero > shm/x; head -c 5 urandom >> shm/x; stat -c %s shm/x; cat < /dev/fd/0; test -d pts";
    let before = tiny.listing();
    let output = output_of(&tiny.script(script));
    let lines: Vec<&str> = output.lines().filter(|line| !line.starts_with('!')).collect();
    assert_eq!(lines.len(), 3, "{output}");
    assert_eq!(lines[0], "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero");
    assert!(lines[1].ends_with("ptmx -> pts/ptmx"), "{output}");
    assert_eq!(lines[2], "8");
    assert!(output.contains("!sh: write error: No space left on device"), "{output}");
    assert_same(&before, &tiny.listing());
}

#[test]
fn tmp_is_empty_each_time_and_nothing_stays() {
    needs_mounts!();
    let tiny = tiny!();
    let before = tiny.listing();
    let script = "ls /tmp /dev/shm; echo x > /tmp/x; echo x > /dev/shm/x; stat -c %a /tmp /dev/shm";
    for _ in 0..2 {
        assert_eq!(output_of(&tiny.script(script)), "/dev/shm:\n\n/tmp:\n1777\n1777\n");
    }
    assert_same(&before, &tiny.listing());
}

#[test]
fn a_root_without_directories_for_mounts_keeps_none() {
    needs_mounts!();
    let tiny = tiny!();
    for name in ["proc", "sys", "dev", "tmp"] {
        fs::remove_dir(tiny.root().join(name)).unwrap();
    }
    let before = tiny.listing();
    output_of(&tiny.script("test -e /proc/self/exe && test -c /dev/null && test -d /tmp"));
    assert_same(&before, &tiny.listing());
}

#[test]
fn binds_are_seen_and_leave_nothing() {
    needs_mounts!();
    let tiny = tiny!();
    fs::create_dir(tiny.beside("lists")).unwrap();
    fs::write(tiny.beside("lists/one"), "one").unwrap();
    fs::write(tiny.beside("file"), "file").unwrap();
    let before = tiny.listing();
    let mut command = tiny.script(
        "cat /var/lib/apt/lists/one /opt/a/file; echo; echo two > /var/lib/apt/lists/two; echo x > /opt/a/file || echo refused",
    );
    command.binds =
        vec![bind(&tiny.beside("lists"), "/var/lib/apt/lists", false), bind(&tiny.beside("file"), "/opt/a/file", true)];
    let output = output_of(&command);
    assert!(output.starts_with("onefile\n") && output.contains("refused\n"), "{output}");
    assert_eq!(fs::read_to_string(tiny.beside("lists/two")).unwrap(), "two\n");
    assert_eq!(fs::read_to_string(tiny.beside("file")).unwrap(), "file");
    assert_same(&before, &tiny.listing());
}

#[test]
fn a_bind_through_an_absolute_link_stays_in_the_root() {
    needs_mounts!();
    let tiny = tiny!();
    let outside = tiny.beside("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, tiny.root().join("link")).unwrap();
    symlink("../run/systemd/resolve/stub-resolv.conf", tiny.root().join("etc/resolv.conf")).unwrap();
    fs::write(tiny.beside("file"), "text\n").unwrap();
    let before = tiny.listing();
    let mut command = tiny.script("cat /link/inside /etc/resolv.conf");
    command.binds =
        vec![bind(&tiny.beside("file"), "/link/inside", true), bind(&tiny.beside("file"), "/etc/resolv.conf", true)];
    assert_eq!(output_of(&command), "text\ntext\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_same(&before, &tiny.listing());
}

#[test]
fn a_command_that_replaces_what_a_bind_needs_keeps_what_it_made() {
    needs_mounts!();
    let tiny = tiny!();
    fs::write(tiny.beside("file"), "").unwrap();
    let mut command = tiny.script("echo kept > /opt/a/other");
    command.binds = vec![bind(&tiny.beside("file"), "/opt/a/file", true)];
    output_of(&command);
    assert_eq!(fs::read_to_string(tiny.root().join("opt/a/other")).unwrap(), "kept\n");
    assert!(!tiny.root().join("opt/a/file").exists());
}

#[test]
fn the_network_is_there_when_asked_for_and_else_not() {
    needs_mounts!();
    let tiny = tiny!();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nhi\n");
        }
    });
    let mut command = tiny.script(&format!("wget -q -O - http://{address}/"));
    let (exit, output) = run(&command).unwrap();
    assert!(!exit.success(), "{output}");
    command.network = true;
    assert_eq!(output_of(&command), "hi\n");
    let interfaces = output_of(&tiny.script("grep -c : /proc/net/dev; ping -c 1 -W 1 127.0.0.1 >/dev/null 2>&1; true"));
    assert_eq!(interfaces, "1\n");
}

#[test]
fn owners_and_modes_are_the_roots_own() {
    needs_mounts!();
    let tiny = tiny!();
    let output =
        output_of(&tiny.script(
            "id -u; echo x > /etc/x; chown 33:33 /etc/x; chmod 4750 /etc/x; stat -c '%u %g %a' /etc/x; rm /etc/x",
        ));
    assert_eq!(output, "0\n33 33 4750\n");
}

#[test]
fn a_missing_root_is_an_error_that_names_it() {
    needs_mounts!();
    let tiny = tiny!();
    let mut command = tiny.script("true");
    let missing = tiny.beside("missing");
    command.view = debforge::sandbox::View::Chroot { root: missing.clone() };
    let error = format!("{:#}", run(&command).unwrap_err());
    assert!(error.contains(&*missing.to_string_lossy()), "{error}");
}

#[test]
fn memory_and_what_is_there_is_mounted_for_a_command_and_unmounted() {
    needs_mounts!();
    let tiny = tiny!();
    let script = "mkdir /m && mount -t tmpfs -o size=1m tmpfs /m && echo x > /m/x && umount /m && test ! -e /m/x \
        && mount -o bind /etc /m && cat /m/hostname && umount /m \
        && mount -t proc proc /m && test -d /m/self && grep -c debforge /m/version && umount /m \
        && mount -t devtmpfs dev /m && echo x > /m/null && test ! -e /m/kmsg && umount /m \
        && cd /m && mkdir sub && mount -t tmpfs tmpfs sub && echo y > sub/y && umount sub && rmdir sub && cd / \
        && hostname other && rmdir /m";
    assert_eq!(output_of(&tiny.script(script)), "tiny\n1\n");
    assert!(!tiny.root().join("m").exists());
}

#[test]
fn what_came_along_with_a_mount_goes_with_it() {
    needs_mounts!();
    let tiny = tiny!();
    // As `umount -R` does it, the innermost first; and nothing is uncovered by it.
    let script = "mkdir /m && mount -o rbind /dev /m && echo x > /m/null && umount /m/null && umount /m \
        && test ! -e /m/null && mount -o rbind / /m && umount /m/proc/sys && ! touch /m/proc/sys/x 2>/dev/null \
        && ! umount /m/proc/sys 2>/dev/null && umount /m && test ! -e /m/proc && rmdir /m && echo gone";
    assert_eq!(output_of(&tiny.script(script)), "gone\n");
}

#[test]
fn nothing_of_the_machine_is_mounted_for_a_command_and_no_cover_is_taken_off() {
    needs_mounts!();
    let tiny = tiny!();
    let script = "mkdir /m; for type in cgroup2 debugfs securityfs ext4; do \
            mount -t $type none /m 2>/dev/null && echo $type; done; \
        mount -o remount,rw,bind /sys 2>/dev/null; touch /sys/x 2>/dev/null && echo sys is writable; \
        umount /proc/sys 2>/dev/null && echo uncovered; umount /sys 2>/dev/null && echo uncovered; \
        mount -o move /tmp /m 2>/dev/null && echo moved; rmdir /m; echo done";
    assert_eq!(output_of(&tiny.script(script)), "done\n");
}
