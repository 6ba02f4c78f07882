//! The hardware as it is stated: processors, memory, disks (proc(5)).

use std::fmt::Write;
use std::sync::OnceLock;

/// Number of processors. Enough that `make -j$(nproc)` has something to do on most hosts, few enough that it
/// does not run a small one out of memory; and with more than one, programs that write otherwise with threads
/// than without (xz) write as with threads.
pub const PROCESSORS: usize = 4;

/// Bytes of memory, all of it free: what a host that builds has at least.
pub const MEMORY: u64 = 4 << 30;

/// Seconds since the machine was started.
pub const UPTIME: u64 = 86_400;

/// Files of /proc and /sys.
pub(super) const FILES: &[(&str, &str)] = &[
    ("proc/loadavg", "0.00 0.00 0.00 1/1 1\n"),
    ("proc/meminfo", MEMINFO),
    ("proc/partitions", "major minor  #blocks  name\n\n"),
    ("proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"),
    ("proc/uptime", "86400.00 86400.00\n"),
    ("sys/devices/system/cpu/online", "0-3\n"),
    ("sys/devices/system/cpu/possible", "0-3\n"),
    ("sys/devices/system/cpu/present", "0-3\n"),
];

const MEMINFO: &str = "\
MemTotal:        4194304 kB
MemFree:         4194304 kB
MemAvailable:    4194304 kB
Buffers:               0 kB
Cached:                0 kB
SwapCached:            0 kB
SwapTotal:             0 kB
SwapFree:              0 kB
Shmem:                 0 kB
CommitLimit:     2097152 kB
Committed_AS:          0 kB
HugePages_Total:       0
HugePages_Free:        0
Hugepagesize:       2048 kB
";

/// Makers of the processors that are stated on x86, by number.
///
/// systemd-detect-virt(1), and what asks it (dracut), looks for User Mode Linux's before it asks the processor
/// itself, whose word no kernel can take back: so the answer is `uml` also on bare metal and in whatever virtual
/// machine. The packages of microcode put that into an initramfs if there is a processor of their maker.
const MAKERS: [&str; PROCESSORS] = ["User Mode Linux", "User Mode Linux", "GenuineIntel", "AuthenticAMD"];

/// What the processors of x86 can do: x86-64-v2.
const FLAGS: &str = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
                     ht syscall nx lm constant_tsc cpuid pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm";

/// /proc/cpuinfo; on other architectures than x86 nothing but their numbers is stated of processors.
pub(super) fn processors() -> &'static [u8] {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut text = String::new();
        for (number, maker) in MAKERS.iter().enumerate() {
            let _ = writeln!(text, "processor\t: {number}");
            if cfg!(any(target_arch = "x86_64", target_arch = "x86")) {
                let _ = writeln!(text, "vendor_id\t: {maker}\nmodel name\t: debforge\nflags\t\t: {FLAGS}");
            }
            text.push('\n');
        }
        text
    })
    .as_bytes()
}

/// /proc/stat.
pub(super) fn statistics() -> &'static [u8] {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let idle = "0 0 0 0 0 0 0 0 0 0\n";
        let mut text = format!("cpu  {idle}");
        for number in 0..PROCESSORS {
            let _ = write!(text, "cpu{number} {idle}");
        }
        text.push_str("intr 0\nctxt 0\nbtime 315532800\nprocesses 1\nprocs_running 1\nprocs_blocked 0\nsoftirq 0\n");
        text
    })
    .as_bytes()
}
