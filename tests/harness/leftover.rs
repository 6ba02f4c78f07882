//! What a build must not leave behind: mounts, loop devices, processes.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Everything that still holds something below `dir`. Processes that were just killed get a
/// moment to be gone.
pub fn leftovers(dir: &Path) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let found = look(dir);
        if found.is_empty() || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn look(dir: &Path) -> Vec<String> {
    let dir = dir.to_string_lossy();
    let mut found = Vec::new();
    for line in fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
        if line.contains(&*dir) {
            found.push(format!("mount: {line}"));
        }
    }
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let backing = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if backing.contains(&*dir) {
            found.push(format!("loop device: {} on {}", entry.path().display(), backing.trim()));
        }
    }
    let own = fs::read_link("/proc/self/ns/mnt").ok();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) || pid == std::process::id().to_string() {
            continue;
        }
        let proc = entry.path();
        let below =
            |link: &str| fs::read_link(proc.join(link)).is_ok_and(|target| target.to_string_lossy().starts_with(&*dir));
        let mentions =
            |file: &str| fs::read(proc.join(file)).is_ok_and(|text| String::from_utf8_lossy(&text).contains(&*dir));
        // In a mount namespace of its own, our directory among its mounts: a build's process.
        let inside = || fs::read_link(proc.join("ns/mnt")).ok() != own && mentions("mountinfo");
        if below("cwd") || below("root") || mentions("cmdline") || mentions("environ") || inside() {
            let line = fs::read(proc.join("cmdline")).unwrap_or_default();
            found.push(format!("process {pid}: {}", String::from_utf8_lossy(&line).replace('\0', " ").trim()));
        }
    }
    found
}
