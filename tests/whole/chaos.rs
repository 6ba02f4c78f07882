//! Builds that are killed at random moments, run out of disk, find their store damaged, are lied to by their mirror, or
//! meet another in the same place. Whatever happens: what was good stays whole, nothing is left behind, and the next
//! build makes what a fresh one makes.
//!
//! `./x chaos 500` goes on for longer, `./x chaos 500 SEED` does again what a seed did.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill, killpg};
use sha2::{Digest, Sha256};

use super::stopped::engine_of;
use crate::harness::Project;
use crate::harness::confinement::without_mounts;
use crate::harness::http::{Manner, Server};
use crate::harness::project::Finished;

/// How many rounds there are where nobody says so.
const ROUNDS: usize = 50;
/// How many versions of the recipe there are.
const VERSIONS: usize = 4;
/// The longest that a build takes which is killed.
const LONGEST: u64 = 900;

/// Names and contents of artifacts.
type Artifacts = BTreeMap<String, String>;

/// What is done to a build.
#[derive(Debug, Clone, Copy)]
enum Blow {
    KillFront,
    KillEngine,
    Interrupt,
    FullDisk,
    DamagedStore,
    BadMirror,
    TwoAtOnce,
    TwoOfWhichOneIsKilled,
}

const BLOWS: [Blow; 8] = [
    Blow::KillFront,
    Blow::KillEngine,
    Blow::Interrupt,
    Blow::FullDisk,
    Blow::DamagedStore,
    Blow::BadMirror,
    Blow::TwoAtOnce,
    Blow::TwoOfWhichOneIsKilled,
];

/// Numbers that a seed gives (xorshift64*).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % end.max(1)
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// A recipe of which there are several versions, what each makes, and where it is built.
struct Place {
    project: Project,
    server: Server,
    expected: Vec<Artifacts>,
}

impl Place {
    fn new() -> Option<Self> {
        let project = Project::new().tiny("")?;
        project.write("served/file", vec![7; 300_000]);
        project.write("scratch/none", "");
        let server = Server::new(&project.path("served"));
        let mut place = Self { project, server, expected: Vec::new() };
        for version in 0..VERSIONS {
            let fresh = Project::new().tiny("")?;
            fresh.write("recipe.yaml", place.recipe(version));
            fresh.build([]).success();
            let made = artifacts(&fresh.path("out"));
            assert_eq!(made.len(), 4, "{made:?}");
            place.expected.push(made);
        }
        Some(place)
    }

    fn recipe(&self, version: usize) -> String {
        format!(
            "architecture: {}
actions:
  - {{action: unpack, origin: recipe, file: root.tar}}
  - {{action: download, url: '{}', sha256sum: {}, name: file}}
  - {{action: overlay, origin: file, destination: /srv/file}}
  - action: run
    chroot: true
    command: |
      mkdir -p /srv/many
      for name in 1 2 3 4 5 6 7 8 9; do echo {version} > /srv/many/$name; done
  - action: run
    command: |
      echo {version} > $ARTIFACTDIR/notes
      head -c 2000000 /dev/zero | tr '\\0' {version} > $ARTIFACTDIR/large
  - {{action: pack, file: out.tar, compression: none}}
  - {{action: checksums, file: SHA256SUMS}}
",
            debforge::debian::Architecture::host(),
            self.server.url("file"),
            hex::encode(Sha256::digest(vec![7; 300_000]))
        )
    }

    fn write(&self, version: usize) {
        // At once: a build may be about to read it.
        self.project.write("recipe.new", self.recipe(version));
        fs::rename(self.project.path("recipe.new"), self.project.path("recipe.yaml")).unwrap();
    }

    /// A build, in one of the ways that there are.
    fn words(chance: &mut Chance) -> Vec<String> {
        if chance.below(4) == 0 { without_mounts() } else { Vec::new() }
    }

    fn build(&self, before: &[String], blow: impl FnOnce(&Running)) -> Finished {
        let program = env!("CARGO_BIN_EXE_debforge").to_owned();
        let mut words = before.to_vec();
        words.extend([program, "build".into(), "recipe.yaml".into(), "--artifactdir".into(), "out".into()]);
        let mut command = std::process::Command::new(&words[0]);
        command.args(&words[1..]).current_dir(self.project.path(".")).process_group(0);
        command.env("DEBFORGE_STORE", self.project.store()).env("TMPDIR", self.project.path("scratch"));
        command.env("HOME", self.project.path("home")).stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
        let child = command.spawn().expect("starting debforge");
        let running = Running { pid: nix::unistd::Pid::from_raw(child.id() as i32) };
        blow(&running);
        let output = child.wait_with_output().expect("waiting for debforge");
        Finished::of(&self.project, &words, &output)
    }

    /// Deals a blow to a build of a version; what the artifacts may be of afterwards.
    fn strike(&self, blow: Blow, version: usize, chance: &mut Chance, log: &mut String) -> BTreeSet<usize> {
        let before = Self::words(chance);
        let delay = Duration::from_millis(chance.below(LONGEST));
        let later = |done: &dyn Fn(&Running)| {
            let done = |running: &Running| {
                std::thread::sleep(delay);
                done(running);
            };
            self.build(&before, done)
        };
        let _ = write!(log, "{blow:?} of version {version}, {before:?}, after {delay:?}");
        self.write(version);
        let finished = match blow {
            Blow::KillFront => later(&|running| {
                let _ = kill(running.pid, Signal::SIGKILL);
            }),
            Blow::KillEngine => later(&|running| {
                if let Some(engine) = engine_of(running.pid) {
                    let _ = kill(engine, Signal::SIGKILL);
                }
            }),
            Blow::Interrupt => later(&|running| {
                let _ = killpg(running.pid, Signal::SIGINT);
            }),
            Blow::FullDisk => {
                let kilobytes = 500 + chance.below(12_000);
                let _ = write!(log, ", {kilobytes} kB");
                let mount = format!("mount -t tmpfs -o size={kilobytes}k,mode=755 none store && exec \"$@\"");
                let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &mount, "sh"];
                self.build(&words.map(str::to_owned), |_| {})
            }
            Blow::DamagedStore => {
                for _ in 0..=chance.below(3) {
                    self.damage(chance, log);
                }
                self.build(&before, |_| {})
            }
            Blow::BadMirror => {
                let manner = match chance.below(4) {
                    0 => Manner::Status { code: 503, times: 1 + chance.below(6) as usize },
                    1 => Manner::Cut { after: chance.below(300_000) as usize, times: 1 + chance.below(6) as usize },
                    2 => Manner::Status { code: 404, times: 1 },
                    _ => Manner::Redirect(self.server.url("file")),
                };
                let _ = write!(log, ", {manner:?}");
                self.server.set("file", manner);
                self.project.run(["store", "clear"]).success();
                let finished = self.build(&before, |_| {});
                self.server.set("file", Manner::Status { code: 200, times: 0 });
                finished
            }
            Blow::TwoAtOnce | Blow::TwoOfWhichOneIsKilled => {
                let other = chance.below(VERSIONS as u64) as usize;
                let _ = write!(log, ", and of {other}");
                let killed = matches!(blow, Blow::TwoOfWhichOneIsKilled);
                return std::thread::scope(|scope| {
                    let first = scope.spawn(|| {
                        self.build(&before, |running| {
                            if killed {
                                std::thread::sleep(delay);
                                let _ = kill(running.pid, Signal::SIGKILL);
                            }
                        })
                    });
                    // By now the first may have read its recipe, or will read the other.
                    std::thread::sleep(Duration::from_millis(150));
                    self.write(other);
                    let second = self.build(&[], |_| {});
                    let first = first.join().expect("the first build");
                    if !killed {
                        first.success();
                    }
                    second.success();
                    [version, other].into()
                });
            }
        };
        match finished.code {
            Some(0) => [version].into(),
            code => {
                assert!(!matches!(code, Some(101 | 134)), "{finished}");
                (0..VERSIONS).collect()
            }
        }
    }

    /// Does something to a file of the store.
    fn damage(&self, chance: &mut Chance, log: &mut String) {
        let store = self.project.store().join("v1");
        let mut files: Vec<PathBuf> = walkdir::WalkDir::new(&store)
            .into_iter()
            .filter_map(Result::ok)
            .filter(|entry| entry.file_type().is_file())
            .map(walkdir::DirEntry::into_path)
            .collect();
        files.sort();
        if files.is_empty() {
            return;
        }
        let file = &files[chance.below(files.len() as u64) as usize];
        let length = fs::metadata(file).map_or(0, |meta| meta.len());
        let shown = file.strip_prefix(&store).unwrap_or(file).display();
        let how = match chance.below(4) {
            0 => {
                let _ = fs::remove_file(file);
                "removed"
            }
            1 if length > 0 => {
                let at = chance.below(length);
                let mut byte = [0];
                let opened = fs::File::options().read(true).write(true).open(file).unwrap();
                opened.read_exact_at(&mut byte, at).unwrap();
                opened.write_all_at(&[byte[0] ^ 0xff], at).unwrap();
                "changed"
            }
            2 => {
                fs::File::options().write(true).open(file).unwrap().set_len(length / 2).unwrap();
                "cut"
            }
            _ => {
                fs::remove_file(file).unwrap();
                fs::create_dir(file).unwrap();
                "made a directory"
            }
        };
        let _ = write!(log, ", {shown} {how}");
    }

    /// What holds after every blow.
    fn look(&self, may_be: &BTreeSet<usize>, was: Option<usize>) -> Result<(), String> {
        let left = self.project.leftovers();
        if !left.is_empty() {
            return Err(format!("left behind: {left:#?}"));
        }
        let scratch: Vec<_> = fs::read_dir(self.project.path("scratch")).unwrap().flatten().collect();
        if scratch.len() > 1 {
            return Err(format!("left in TMPDIR: {scratch:?}"));
        }
        let mut made = artifacts(&self.project.path("out"));
        if !may_be.is_empty() {
            // What a killed build has ready beside goes with the next.
            made.retain(|name, _| !name.starts_with(".debforge-publishing"));
        }
        let fits = |version: &usize| self.expected[*version] == made;
        if made.is_empty() && was.is_none() || may_be.iter().chain(&was).any(fits) {
            return Ok(());
        }
        let of = |name: &String, digest: &String| {
            let versions = (0..VERSIONS).filter(|version| self.expected[*version].get(name) == Some(digest));
            versions.map(|version| version.to_string()).collect::<Vec<_>>().join("/")
        };
        let parts: Vec<_> = made.iter().map(|(name, digest)| format!("{name}: {}", of(name, digest))).collect();
        Err(format!("the artifacts are of no version that they may be of ({may_be:?}, {was:?}): {parts:?}"))
    }
}

struct Running {
    pid: nix::unistd::Pid,
}

/// Names and digests of what is in a directory.
fn artifacts(dir: &Path) -> Artifacts {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let digest = |path: PathBuf| fs::read(path).map_or("?".to_owned(), |bytes| hex::encode(Sha256::digest(bytes)));
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), digest(entry.path()))).collect()
}

#[test]
fn whatever_happens_what_is_good_stays_and_what_follows_is_right() {
    needs_root!();
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64);
    let seed = number("DEBFORGE_CHAOS_SEED").unwrap_or_else(clock) | 1;
    let rounds = number("DEBFORGE_CHAOS").map_or(ROUNDS, |rounds| rounds as usize);
    let Some(place) = Place::new() else { skip!("needs a static busybox (package busybox-static)") };
    println!("chaos: {rounds} rounds, seed {seed}");
    let mut chance = Chance(seed);
    let (mut was, started) = (None, Instant::now());
    for round in 1..=rounds {
        let (blow, version) = (chance.of(&BLOWS), chance.below(VERSIONS as u64) as usize);
        let mut log = format!("round {round} (seed {seed}): ");
        let may_be = place.strike(blow, version, &mut chance, &mut log);
        place.look(&may_be, was).unwrap_or_else(|why| panic!("{log}\n{why}"));
        // Undisturbed, it makes what a fresh build makes.
        let next = chance.below(VERSIONS as u64) as usize;
        place.write(next);
        let finished = place.build(&[], |_| {});
        assert!(finished.code == Some(0), "{log}\nthen version {next}: {finished}");
        place.look(&BTreeSet::new(), Some(next)).unwrap_or_else(|why| panic!("{log}\nthen version {next}: {why}"));
        for left in ["scratch", "trash"] {
            let left: Vec<_> = fs::read_dir(place.project.store().join("v1").join(left)).unwrap().flatten().collect();
            assert!(left.is_empty(), "{log}\nleft in the store: {left:?}");
        }
        was = Some(next);
        if rounds > ROUNDS && round % ROUNDS == 0 {
            println!("chaos: {round} rounds in {:.0} s", started.elapsed().as_secs_f64());
        }
    }
    // What was damaged and nobody wanted since is found now, and gone.
    place.project.run(["store", "verify"]);
    place.project.run(["store", "verify"]).success();
}
