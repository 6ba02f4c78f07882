//! How a command's input, output and end come through.

use std::time::{Duration, Instant};

use debforge::sandbox::{Exit, Input, View};

use super::{command, needs_mounts, output_of, run, tiny};

fn shell(script: &str) -> debforge::sandbox::Command {
    command(&["sh", "-c", script], View::Host { root: None, writable: Vec::new() })
}

#[test]
fn exit_codes_and_signals_come_through() {
    needs_mounts!();
    let cases = [("exit 0", Exit::Code(0)), ("exit 7", Exit::Code(7)), ("exit 255", Exit::Code(255))];
    let signals =
        [("kill -9 $$", Exit::Signal(9)), ("kill -TERM $$", Exit::Signal(15)), ("kill -SEGV $$", Exit::Signal(11))];
    for (script, expected) in cases.into_iter().chain(signals) {
        assert_eq!(run(&shell(script)).unwrap().0, expected, "{script}");
    }
}

#[test]
fn what_cannot_be_started_is_an_error_with_the_reason() {
    needs_mounts!();
    let error_of = |command| format!("{:#}", run(&command).unwrap_err());
    let view = || View::Host { root: None, writable: Vec::new() };
    assert_eq!(error_of(command(&["no-such-program"], view())), "there is no program `no-such-program`");
    assert_eq!(error_of(command(&["/etc/passwd"], view())), "/etc/passwd: Permission denied");
    let mut elsewhere = command(&["true"], view());
    elsewhere.directory = Some("/no/such/directory".into());
    let error = error_of(elsewhere);
    assert!(error.starts_with("entering the directory /no/such/directory"), "{error}");
}

#[test]
fn a_script_whose_interpreter_is_missing_says_so() {
    needs_mounts!();
    let tiny = tiny!();
    let script = tiny.root().join("bin/script");
    std::fs::write(&script, "#!/no/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let error = run(&command(&["script"], View::Chroot { root: tiny.root() })).unwrap_err();
    assert_eq!(format!("{error:#}"), "the interpreter of /bin/script is missing");
}

#[test]
fn lines_come_as_they_are_written() {
    needs_mounts!();
    let output = output_of(&shell("echo one; echo two >&2; sleep 0.2; printf 'three\\rfour\\n\\nfive'"));
    let mut lines: Vec<&str> = output.lines().collect();
    // The two streams are two pipes: their order is known only across a pause.
    lines[..2].sort_unstable();
    assert_eq!(lines, ["!two", "one", "three", "four", "", "five"]);
}

#[test]
fn much_output_on_both_streams_does_not_block() {
    needs_mounts!();
    let output = output_of(&shell(
        "head -c 3000000 /dev/zero | tr '\\0' 'a\\n' | fold -w 99 & head -c 3000000 /dev/zero | tr '\\0' b | fold -w 99 >&2; wait",
    ));
    let bytes = |letter| output.bytes().filter(|byte| *byte == letter).count();
    assert_eq!((bytes(b'a'), bytes(b'b')), (3_000_000, 3_000_000));
}

#[test]
fn input_is_the_text_or_nothing() {
    needs_mounts!();
    assert_eq!(output_of(&shell("cat; echo end")), "end\n");
    let mut command = shell("cat");
    command.input = Input::Text("line\n".repeat(50_000));
    assert_eq!(output_of(&command).lines().count(), 50_000);
}

#[test]
fn what_the_command_leaves_running_ends_with_it() {
    needs_mounts!();
    let start = Instant::now();
    let marker = format!("1000.{}", std::process::id());
    let output = output_of(&shell(&format!("sleep {marker} & setsid sleep {marker} & echo done")));
    assert_eq!(output, "done\n");
    assert!(start.elapsed() < Duration::from_secs(20));
    assert!(!super::kill::is_running(&marker));
}

#[test]
fn no_descriptors_of_ours_are_inherited() {
    needs_mounts!();
    let _open = std::fs::File::open("/etc/passwd").unwrap();
    assert_eq!(output_of(&shell("ls /proc/self/fd | tr '\\n' ' '")), "0 1 2 3 \n");
}

#[test]
fn durable_writes_do_nothing() {
    needs_mounts!();
    // A descriptor that is not open: the kernel would say so, if it were asked.
    let script = format!(
        "print syscall({}, 999), ' ', syscall({}, 999), ' ', 0+syscall({}, 999)",
        libc::SYS_fsync,
        libc::SYS_fdatasync,
        libc::SYS_close
    );
    assert_eq!(output_of(&shell(&format!("perl -e \"{script}\""))), "0 0 -1\n");
}

#[test]
fn signals_have_their_default_effect() {
    needs_mounts!();
    let output = output_of(&shell("cat /proc/self/status"));
    for mask in ["SigBlk:", "SigIgn:", "SigCgt:"] {
        let bits = output.lines().find_map(|line| line.strip_prefix(mask)).unwrap().trim();
        // Signals 32 and 33 are the C library's own, which changes nothing about them.
        let bits = u64::from_str_radix(bits, 16).unwrap() & !(0b11 << 31);
        assert_eq!(bits, 0, "{mask} {bits:#x}");
    }
}
