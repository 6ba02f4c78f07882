//! The kernel as it is stated: its names, its parameters (proc(5), the kernel's Documentation/admin-guide/sysctl),
//! what file systems and devices it has.

/// Host name that commands see, whatever the host's is.
pub const NODE_NAME: &str = "debforge";

/// `uname -r`. A kernel that no root has modules for, because it ends in a word that no package uses: what is
/// made for "the running kernel" is made for none. New enough for what the C libraries of all releases of
/// Debian want, whose number it shares with the longterm kernel of one.
pub const RELEASE: &str = "6.12.0-debforge";

/// `uname -v`.
pub const VERSION: &str = "#1 SMP debforge";

/// Files of /proc and /proc/sys.
///
/// `filesystems` names none of a security module, so that programs label nothing; `cmdline` gives nothing to
/// those who take the running system's for the new one's (kernel-install(8)).
pub(super) const FILES: &[(&str, &str)] = &[
    ("proc/cmdline", "\n"),
    ("proc/devices", DEVICES),
    ("proc/filesystems", FILESYSTEMS),
    ("proc/modules", ""),
    ("proc/mounts", MOUNTS),
    ("proc/version", "Linux version 6.12.0-debforge (debforge@debforge) (gcc, ld) #1 SMP debforge\n"),
    ("proc/sys/crypto/fips_enabled", "0\n"),
    ("proc/sys/fs/aio-max-nr", "65536\n"),
    ("proc/sys/fs/file-max", "9223372036854775807\n"),
    ("proc/sys/fs/file-nr", "1024\t0\t9223372036854775807\n"),
    ("proc/sys/fs/inotify/max_queued_events", "16384\n"),
    ("proc/sys/fs/inotify/max_user_instances", "128\n"),
    ("proc/sys/fs/inotify/max_user_watches", "65536\n"),
    ("proc/sys/fs/nr_open", "1048576\n"),
    ("proc/sys/fs/pipe-max-size", "1048576\n"),
    ("proc/sys/fs/protected_hardlinks", "1\n"),
    ("proc/sys/fs/protected_symlinks", "1\n"),
    ("proc/sys/fs/suid_dumpable", "0\n"),
    ("proc/sys/kernel/cap_last_cap", "40\n"),
    ("proc/sys/kernel/core_pattern", "core\n"),
    ("proc/sys/kernel/core_uses_pid", "0\n"),
    ("proc/sys/kernel/domainname", "(none)\n"),
    ("proc/sys/kernel/hostname", "debforge\n"),
    ("proc/sys/kernel/msgmax", "8192\n"),
    ("proc/sys/kernel/msgmnb", "16384\n"),
    ("proc/sys/kernel/msgmni", "32000\n"),
    ("proc/sys/kernel/ngroups_max", "65536\n"),
    ("proc/sys/kernel/osrelease", "6.12.0-debforge\n"),
    ("proc/sys/kernel/ostype", "Linux\n"),
    ("proc/sys/kernel/overflowgid", "65534\n"),
    ("proc/sys/kernel/overflowuid", "65534\n"),
    ("proc/sys/kernel/panic", "0\n"),
    ("proc/sys/kernel/pid_max", "4194304\n"),
    ("proc/sys/kernel/printk", "4\t4\t1\t7\n"),
    ("proc/sys/kernel/random/boot_id", "6465626f-7267-4665-8000-000000000001\n"),
    ("proc/sys/kernel/random/entropy_avail", "256\n"),
    ("proc/sys/kernel/random/poolsize", "256\n"),
    ("proc/sys/kernel/randomize_va_space", "2\n"),
    ("proc/sys/kernel/sem", "32000\t1024000000\t500\t32000\n"),
    ("proc/sys/kernel/shmall", "18446744073692774399\n"),
    ("proc/sys/kernel/shmmax", "18446744073692774399\n"),
    ("proc/sys/kernel/shmmni", "4096\n"),
    ("proc/sys/kernel/tainted", "0\n"),
    ("proc/sys/kernel/threads-max", "65536\n"),
    ("proc/sys/kernel/version", "#1 SMP debforge\n"),
    ("proc/sys/net/core/somaxconn", "4096\n"),
    ("proc/sys/net/ipv4/ip_forward", "0\n"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
    ("proc/sys/net/ipv6/bindv6only", "0\n"),
    ("proc/sys/net/ipv6/conf/all/disable_ipv6", "0\n"),
    ("proc/sys/net/ipv6/conf/default/disable_ipv6", "0\n"),
    ("proc/sys/net/ipv6/conf/lo/disable_ipv6", "0\n"),
    ("proc/sys/net/unix/max_dgram_qlen", "512\n"),
    ("proc/sys/vm/max_map_count", "65530\n"),
    ("proc/sys/vm/mmap_min_addr", "65536\n"),
    ("proc/sys/vm/nr_hugepages", "0\n"),
    ("proc/sys/vm/overcommit_memory", "0\n"),
    ("proc/sys/vm/overcommit_ratio", "50\n"),
    ("proc/sys/vm/swappiness", "60\n"),
];

/// The devices of a step's /dev.
const DEVICES: &str = "\
Character devices:
  1 mem
  5 /dev/tty
  5 /dev/console
  5 /dev/ptmx
136 pts

Block devices:
  7 loop
259 blkext
";

const FILESYSTEMS: &str = "\
nodev\tsysfs
nodev\ttmpfs
nodev\tproc
nodev\tcgroup2
nodev\tdevtmpfs
nodev\tdevpts
nodev\tmqueue
nodev\toverlay
\text4
\tvfat
";

/// The mounts of a step's view, without what it is mounted from.
const MOUNTS: &str = "\
debforge / rootfs rw 0 0
proc /proc proc rw,nosuid,nodev,noexec 0 0
tmpfs /dev tmpfs rw,nosuid,mode=755 0 0
tmpfs /dev/shm tmpfs rw,nosuid,nodev 0 0
devpts /dev/pts devpts rw,nosuid,noexec 0 0
tmpfs /tmp tmpfs rw,nosuid,nodev 0 0
tmpfs /sys tmpfs ro,nosuid,nodev,noexec 0 0
";
