//! What is left when the caller of a sandbox ends in the middle of a command.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use debforge::sandbox::{Exit, Input, Isolation, Sandbox, View};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::needs_mounts;
use crate::harness::{Project, User};

/// Whether a process has this word among its arguments.
pub(super) fn is_running(word: &str) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    processes.flatten().any(|process| {
        std::fs::read(process.path().join("cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes()))
    })
}

fn waits_until(condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

fn gone(word: &str) -> bool {
    waits_until(|| !is_running(word))
}

/// The shell says that it is up before its children are the programs they become.
fn comes_up(word: &str) -> bool {
    waits_until(|| is_running(word))
}

/// The caller: this test binary once more, in which only [`caller`] runs.
fn start(isolation: &str, word: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sandbox::kill::caller", "--ignored", "--nocapture"])
        .env("DEBFORGE_TEST_ISOLATION", isolation)
        .env("DEBFORGE_TEST_WORD", word)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("up") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the caller ended");
    }
    (child, output)
}

#[test]
#[ignore = "the inner side of other tests"]
fn caller() {
    let Ok(word) = std::env::var("DEBFORGE_TEST_WORD") else { return };
    let isolation = match std::env::var("DEBFORGE_TEST_ISOLATION").as_deref() {
        Ok("chroot") => Isolation::Chroot,
        _ => Isolation::Namespaces,
    };
    super::use_program();
    debforge::machine::interruptible().unwrap();
    let script = format!(
        "sleep {word} & setsid sh -c 'sleep {word}; true' & trap '' TERM HUP INT; echo up; sleep {word}; sleep {word}"
    );
    let mut command = super::command(&["sh", "-c", &script], View::Host { root: None, writable: Vec::new() });
    command.input = Input::Null;
    let start = Instant::now();
    let exit = Sandbox::new(isolation).run(&command, &mut |_, line| println!("{line}")).unwrap();
    println!("ended {exit:?} {}", start.elapsed().as_millis());
    assert_eq!(exit, Exit::Signal(9));
    assert!(debforge::build::interrupted());
}

fn word(test: u32) -> String {
    format!("1{test}00.{}", std::process::id())
}

#[test]
fn killing_the_caller_kills_all_that_it_ran() {
    needs_mounts!();
    let word = word(1);
    let (mut child, _output) = start("namespaces", &word);
    assert!(comes_up(&word));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    assert!(gone(&word));
}

#[test]
fn without_namespaces_too() {
    needs_mounts!();
    let word = word(2);
    let (mut child, _output) = start("chroot", &word);
    assert!(comes_up(&word));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
    assert!(gone(&word));
}

#[test]
fn an_interrupted_command_and_all_below_it_are_gone_when_run_returns() {
    needs_mounts!();
    for (number, isolation) in [(3, "namespaces"), (4, "chroot")] {
        let word = word(number);
        let (mut child, output) = start(isolation, &word);
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
        let said: Vec<String> = output.lines().map(Result::unwrap).collect();
        assert!(child.wait().unwrap().success(), "{said:?}");
        assert!(!is_running(&word), "{isolation}");
    }
}

/// A build of an ordinary user, in the middle of a command in its root.
fn rootless_build(word: &str) -> Result<Project, String> {
    let user = User::ordinary()?;
    let project = Project::of(user).tiny("").ok_or("needs a static busybox (package busybox-static)")?;
    project.set_actions(&format!("  - action: run\n    chroot: true\n    command: sleep {word} & sleep {word}\n"));
    Ok(project)
}

#[test]
fn an_ordinary_users_build_ends_whole_when_it_is_killed_or_interrupted() {
    for (number, signal, code) in [(5, Signal::SIGKILL, None), (6, Signal::SIGINT, Some(130))] {
        let word = word(number);
        let project = match rootless_build(&word) {
            Ok(project) => project,
            Err(reason) => skip!("{reason}"),
        };
        let mut build = project.start(["build", "recipe.yaml", "--artifactdir", "out"]);
        build.wait_until("the long step", || is_running(&word));
        build.signal(signal);
        assert_eq!(build.finish().code, code);
        assert!(gone(&word), "{signal}");
    }
}
