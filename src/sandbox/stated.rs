//! What system calls tell of the machine: uname(2), sysinfo(2), sched_getaffinity(2) answered as stated.

use std::collections::HashMap;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::Told;
use super::constant::{MEMORY, NODE_NAME, PROCESSORS, RELEASE, UPTIME, VERSION};
use super::supervisor::{Caller, Handler, Verdict, Wanted};
use crate::sys::notify::Call;

/// Bytes of each of the six texts that uname(2) gives (linux/utsname.h, `__NEW_UTS_LEN`).
const NAME: usize = 65;
/// Bytes of a mask of processors, which the kernel takes in words.
const MASK: usize = size_of::<u64>();
/// The processors that are stated.
const ALL: u64 = (1 << PROCESSORS) - 1;
/// `PER_LINUX32` of linux/personality.h, under which a kernel says that it is the architecture's smaller one.
const SMALLER: u32 = 8;
const PERSONALITIES: u32 = 0xff;

/// Answers in a stated machine's place.
pub(super) struct Stated {
    told: Told,
    /// By thread, the processors that it was bound to.
    bound: HashMap<i32, u64>,
}

impl Stated {
    pub(super) fn new(told: Told) -> Self {
        Self { told, bound: HashMap::new() }
    }

    /// The thread that a call is about, as this process counts them; the caller's number for it is another.
    fn thread(call: &Call) -> Option<i32> {
        let asked = call.arguments[0] as i32;
        (asked == 0 || asked == call.pid).then_some(call.pid)
    }
}

impl Handler for Stated {
    fn calls(&self) -> Vec<Wanted> {
        let mut all = vec![Wanted::all(libc::SYS_uname), Wanted::all(libc::SYS_sysinfo)];
        if self.told != Told::AllProcessors {
            all.extend([libc::SYS_sched_getaffinity, libc::SYS_sched_setaffinity].map(Wanted::all));
        }
        all
    }

    fn begin(&mut self, _child: Pid) -> anyhow::Result<()> {
        Ok(())
    }

    fn required(&self) -> bool {
        false
    }

    fn answer(&mut self, call: &Call, caller: &Caller<'_>) -> Result<Verdict, Errno> {
        let [first, length, mask, ..] = call.arguments;
        match call.number {
            libc::SYS_uname => caller.write(first, &names(&machine(caller.pid())?))?,
            libc::SYS_sysinfo => caller.write(first, &memory())?,
            libc::SYS_sched_getaffinity => {
                let bound = Self::thread(call).and_then(|thread| self.bound.get(&thread)).unwrap_or(&ALL);
                if (length as usize) < MASK || !(length as usize).is_multiple_of(MASK) {
                    return Err(Errno::EINVAL);
                }
                caller.write(mask, &bound.to_ne_bytes())?;
                return Ok(Verdict::Value(MASK as i64));
            }
            libc::SYS_sched_setaffinity => {
                // The kernel has other processors. Which of them a thread runs on is of no concern to it.
                let mut wanted = [0; MASK];
                let room = MASK.min(length as usize);
                caller.read(mask, &mut wanted[..room])?;
                let wanted = u64::from_ne_bytes(wanted) & ALL;
                if wanted == 0 {
                    return Err(Errno::EINVAL);
                }
                if let Some(thread) = Self::thread(call) {
                    self.bound.insert(thread, wanted);
                }
            }
            _ => return Ok(Verdict::Pass),
        }
        Ok(Verdict::Value(0))
    }
}

/// The architecture as the kernel names it to a process.
fn machine(pid: i32) -> Result<String, Errno> {
    let personality = std::fs::read_to_string(format!("/proc/{pid}/personality"));
    let personality = personality.ok().and_then(|text| u32::from_str_radix(text.trim(), 16).ok()).unwrap_or_default();
    Ok(match (personality & PERSONALITIES, std::env::consts::ARCH) {
        (SMALLER, "x86_64") => "i686".into(),
        (SMALLER, "aarch64") => "armv8l".into(),
        _ => nix::sys::utsname::uname()?.machine().to_string_lossy().into_owned(),
    })
}

/// A `struct new_utsname`.
fn names(machine: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (position, text) in ["Linux", NODE_NAME, RELEASE, VERSION, machine, "(none)"].iter().enumerate() {
        bytes.extend(text.bytes().take(NAME - 1));
        bytes.resize((position + 1) * NAME, 0);
    }
    bytes
}

/// A `struct sysinfo` of a machine of 64 bits.
fn memory() -> Vec<u8> {
    let (loads, shared, buffers, swap, high) = ([0; 3], 0, 0, [0; 2], [0; 2]);
    let before = [[UPTIME].as_slice(), &loads, &[MEMORY, MEMORY, shared, buffers], &swap].concat();
    let processes = 1u64;
    let unit = 1u64;
    [before.as_slice(), &[processes], &high, &[unit]].concat().into_iter().flat_map(u64::to_ne_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_as_long_as_the_kernels() {
        assert_eq!(names("x86_64").len(), size_of::<libc::utsname>());
        assert_eq!(memory().len(), size_of::<libc::sysinfo>());
    }
}
