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

/// Files of /proc by name.
pub(super) const FILES: &[(&str, &str)] = &[
    ("loadavg", "0.00 0.00 0.00 1/1 1\n"),
    ("meminfo", MEMINFO),
    ("partitions", "major minor  #blocks  name\n\n"),
    ("swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"),
    ("uptime", "86400.00 86400.00\n"),
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

/// /proc/cpuinfo. On x86 each processor says that it is User Mode Linux's, for this is what systemd-detect-virt(1),
/// and what asks it (dracut), looks for before it asks the processor itself, whose word no kernel can take back:
/// so the answer is `uml` also on bare metal and in whatever virtual machine. Its flags are those of x86-64-v2.
/// Elsewhere nothing but the number is stated.
pub(super) fn processors() -> &'static [u8] {
    static TEXT: OnceLock<String> = OnceLock::new();
    let described = if cfg!(any(target_arch = "x86_64", target_arch = "x86")) {
        "vendor_id\t: User Mode Linux\nmodel name\t: debforge\nflags\t\t: fpu vme de pse tsc msr pae mce cx8 apic sep \
         mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ht syscall nx lm constant_tsc cpuid pni ssse3 cx16 \
         sse4_1 sse4_2 popcnt lahf_lm\n"
    } else {
        ""
    };
    TEXT.get_or_init(|| {
        (0..PROCESSORS).fold(String::new(), |mut text, number| {
            let _ = write!(text, "processor\t: {number}\n{described}\n");
            text
        })
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
