//! System calls that commands do without.
//!
//! Durable writes are made no-ops: a build that is cut short is thrown away whole, so nothing in it needs to
//! reach the disk before it goes on. dpkg alone asks for it twice per package. Remounting is refused: of what
//! root's command sees, most is the host's, in whatever mount namespace.

mod machine;

use seccompiler::sock_filter;

pub(super) use self::machine::no_machine;
use super::supervisor::Wanted;

/// The calls by kernel architecture (linux/audit.h) and number (the kernel's syscall tables): sync,
/// fsync, fdatasync, msync, syncfs, sync_file_range or sync_file_range2. A kernel runs programs of
/// its compat architectures too, so all tables are in the program always.
const CALLS: &[(u32, &[u32])] = &[
    // x86-64; x32 numbers are the same after its bit is taken off.
    (0xc000_003e, &[162, 74, 75, 26, 306, 277]),
    // i386
    (0x4000_0003, &[36, 118, 148, 144, 344, 314]),
    // arm64, riscv64, loong64 share the generic table.
    (0xc000_00b7, &[81, 82, 83, 227, 267, 84]),
    (0xc000_00f3, &[81, 82, 83, 227, 267, 84]),
    (0xc000_0102, &[81, 82, 83, 227, 267, 84]),
    // arm
    (0x4000_0028, &[36, 118, 148, 144, 373, 341]),
    // ppc64el
    (0xc000_0015, &[36, 118, 148, 144, 348, 308]),
    // s390x
    (0x8000_0016, &[36, 118, 148, 144, 338, 307]),
];

/// mount(2) by architecture, as in [`CALLS`].
const MOUNT: &[(u32, u32)] = &[
    (0xc000_003e, 165),
    (0x4000_0003, 21),
    (0xc000_00b7, 40),
    (0xc000_00f3, 40),
    (0xc000_0102, 40),
    (0x4000_0028, 21),
    (0xc000_0015, 21),
    (0x8000_0016, 21),
];
/// fsconfig(2), the same everywhere.
const FSCONFIG: u32 = 431;
/// `FSCONFIG_CMD_RECONFIGURE`, its second argument.
const RECONFIGURE: u32 = 7;
/// `MS_REMOUNT` and `MS_BIND` of mount(2), in its fourth argument.
const MS_REMOUNT: u32 = 0x20;
const MS_BIND: u32 = 0x1000;

/// socket(2) and, where there is one, socketcall(2) by architecture, as in [`CALLS`].
const SOCKET: &[(u32, u32, Option<u32>)] = &[
    (0xc000_003e, 41, None),
    (0x4000_0003, 359, Some(102)),
    (0xc000_00b7, 198, None),
    (0xc000_00f3, 198, None),
    (0xc000_0102, 198, None),
    (0x4000_0028, 281, None),
    (0xc000_0015, 326, Some(102)),
    (0x8000_0016, 359, Some(102)),
];
/// io_uring_setup(2), the same everywhere: sockets can be made through it.
const IO_URING_SETUP: u32 = 425;
/// Families of sockets that stay in the machine (linux/socket.h): unix, netlink, alg.
const INWARD: [u32; 3] = [1, 16, 38];
/// Those and the ones that a network namespace keeps apart: inet, inet6, packet. Others, as vsock, know no namespace.
const APART: [u32; 6] = [1, 2, 10, 16, 17, 38];

/// brk(2) of i386 and of arm, which C libraries begin with.
const FOREIGN_BRK: u32 = 45;

/// In the number of a system call made through the x32 table.
const X32_BIT: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data` (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

// Instructions, linux/bpf_common.h.
const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

// Verdicts, linux/seccomp.h.
const ALLOW: u32 = 0x7fff_0000;
/// Fails with `EPERM`.
const REFUSE: u32 = 0x0005_0001;
/// Fails with `ENOSYS`.
const UNKNOWN_CALL: u32 = 0x0005_0026;
/// Fails with `EAFNOSUPPORT`.
const NO_FAMILY: u32 = 0x0005_0061;
/// "Fails" with error number 0: the caller sees success.
const SUCCEED: u32 = 0x0005_0000;
/// Whoever listens answers.
const HAND_OVER: u32 = 0x7fc0_0000;

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// The program. Other architectures than those above are left alone rather than killed, so it is
/// written by hand: seccompiler's own compiler kills where the architecture differs.
pub(super) fn no_durable_writes() -> Vec<sock_filter> {
    let mut program = vec![instruction(LOAD_WORD, 0, 0, ARCHITECTURE)];
    for (architecture, calls) in CALLS {
        // Past this block: the load, the mask, one test per call, and the two verdicts.
        let count = calls.len() as u8;
        program.push(instruction(JUMP_IF_EQUAL, 0, count + 4, *architecture));
        program.push(instruction(LOAD_WORD, 0, 0, NUMBER));
        program.push(instruction(AND, 0, 0, !X32_BIT));
        for (position, call) in calls.iter().enumerate() {
            program.push(instruction(JUMP_IF_EQUAL, count - position as u8, 0, *call));
        }
        program.push(instruction(RETURN, 0, 0, ALLOW));
        program.push(instruction(RETURN, 0, 0, SUCCEED));
    }
    program.push(instruction(RETURN, 0, 0, ALLOW));
    program
}

/// Refuses to change the options of a file system itself, which a remount does unless it is that of a bind.
pub(super) fn no_remounts() -> Vec<sock_filter> {
    let mut program = vec![instruction(LOAD_WORD, 0, 0, ARCHITECTURE)];
    for (architecture, mount) in MOUNT {
        program.extend([
            instruction(JUMP_IF_EQUAL, 0, 11, *architecture),
            instruction(LOAD_WORD, 0, 0, NUMBER),
            instruction(AND, 0, 0, !X32_BIT),
            instruction(JUMP_IF_EQUAL, 3, 0, *mount),
            instruction(JUMP_IF_EQUAL, 0, 5, FSCONFIG),
            instruction(LOAD_WORD, 0, 0, argument(*architecture, 1)),
            instruction(JUMP_IF_EQUAL, 4, 3, RECONFIGURE),
            instruction(LOAD_WORD, 0, 0, argument(*architecture, 3)),
            instruction(AND, 0, 0, MS_REMOUNT | MS_BIND),
            instruction(JUMP_IF_EQUAL, 1, 0, MS_REMOUNT),
            instruction(RETURN, 0, 0, ALLOW),
            instruction(RETURN, 0, 0, REFUSE),
        ]);
    }
    program.push(instruction(RETURN, 0, 0, ALLOW));
    program
}

/// Refuses sockets of every network, as a kernel without it would.
pub(super) fn no_network() -> Vec<sock_filter> {
    only_sockets(&INWARD)
}

/// Refuses sockets that no network namespace keeps apart, as those to a hypervisor.
pub(super) fn no_strange_sockets() -> Vec<sock_filter> {
    only_sockets(&APART)
}

fn only_sockets(families: &[u32]) -> Vec<sock_filter> {
    let mut program = vec![instruction(LOAD_WORD, 0, 0, ARCHITECTURE)];
    for (architecture, socket, call) in SOCKET {
        let mut block = vec![
            instruction(LOAD_WORD, 0, 0, NUMBER),
            instruction(AND, 0, 0, !X32_BIT),
            instruction(JUMP_IF_EQUAL, 0, 1, IO_URING_SETUP),
            instruction(RETURN, 0, 0, UNKNOWN_CALL),
        ];
        if let Some(call) = call {
            // Which socket it makes stands in memory; C libraries have taken socket(2) for long.
            block.extend([
                instruction(JUMP_IF_EQUAL, 0, 4, *call),
                instruction(LOAD_WORD, 0, 0, argument(*architecture, 0)),
                instruction(JUMP_IF_EQUAL, 0, 1, 1),
                instruction(RETURN, 0, 0, NO_FAMILY),
                instruction(RETURN, 0, 0, ALLOW),
            ]);
        }
        block.extend([
            instruction(JUMP_IF_EQUAL, 0, families.len() as u8 + 2, *socket),
            instruction(LOAD_WORD, 0, 0, argument(*architecture, 0)),
        ]);
        for (position, family) in families.iter().enumerate() {
            block.push(instruction(JUMP_IF_EQUAL, (families.len() - position) as u8, 0, *family));
        }
        block.extend([instruction(RETURN, 0, 0, NO_FAMILY), instruction(RETURN, 0, 0, ALLOW)]);
        program.push(instruction(JUMP_IF_EQUAL, 0, block.len() as u8, *architecture));
        program.extend(block);
    }
    program.push(instruction(RETURN, 0, 0, ALLOW));
    program
}

/// Where the lower half of an argument is.
fn argument(architecture: u32, index: u32) -> u32 {
    // `__AUDIT_ARCH_LE` is not set for s390x.
    let lower = if architecture & 0x4000_0000 == 0 { 4 } else { 0 };
    ARGUMENTS + 8 * index + lower
}

/// A program that hands some calls of one architecture over to who listens. Of a call that is named more than
/// once, each name is tried. With `foreign` it also hands over the first call of each program of another one.
pub(super) fn handed_over(architecture: u32, calls: &[Wanted], foreign: bool) -> Vec<sock_filter> {
    let others = if foreign { HAND_OVER } else { ALLOW };
    let mut program = vec![
        instruction(LOAD_WORD, 0, 0, ARCHITECTURE),
        instruction(JUMP_IF_EQUAL, 4, 0, architecture),
        instruction(LOAD_WORD, 0, 0, NUMBER),
        instruction(JUMP_IF_EQUAL, 0, 1, FOREIGN_BRK),
        instruction(RETURN, 0, 0, others),
        instruction(RETURN, 0, 0, ALLOW),
        instruction(LOAD_WORD, 0, 0, NUMBER),
    ];
    for call in calls {
        match call.unless {
            None => {
                program.extend([instruction(JUMP_IF_EQUAL, 0, 1, call.number), instruction(RETURN, 0, 0, HAND_OVER)])
            }
            Some((index, bit)) => program.extend([
                instruction(JUMP_IF_EQUAL, 0, 5, call.number),
                instruction(LOAD_WORD, 0, 0, argument(architecture, index)),
                instruction(AND, 0, 0, bit),
                instruction(JUMP_IF_EQUAL, 0, 1, 0),
                instruction(RETURN, 0, 0, HAND_OVER),
                instruction(LOAD_WORD, 0, 0, NUMBER),
            ]),
        }
    }
    program.push(instruction(RETURN, 0, 0, ALLOW));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(program: &[sock_filter], architecture: u32, number: u32) -> u32 {
        judge_with(program, architecture, number, [0; 6])
    }

    /// Runs the program as the kernel would.
    pub(super) fn judge_with(program: &[sock_filter], architecture: u32, number: u32, arguments: [u32; 6]) -> u32 {
        let word = |offset: u32| match offset {
            NUMBER => number,
            ARCHITECTURE => architecture,
            offset => {
                let lower = if architecture & 0x4000_0000 == 0 { 4 } else { 0 };
                assert_eq!(offset % 8, lower, "not the lower half of an argument");
                arguments[(offset - ARGUMENTS) as usize / 8]
            }
        };
        let (mut at, mut accumulator) = (0usize, 0u32);
        loop {
            let now = &program[at];
            at += 1;
            match now.code {
                LOAD_WORD => accumulator = word(now.k),
                AND => accumulator &= now.k,
                JUMP_IF_EQUAL => at += usize::from(if accumulator == now.k { now.jt } else { now.jf }),
                RETURN => return now.k,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn each_architecture_has_its_own_calls_and_no_others() {
        let program = no_durable_writes();
        for (architecture, calls) in CALLS {
            for number in 0..600 {
                let expected = if calls.contains(&number) { SUCCEED } else { ALLOW };
                assert_eq!(judge(&program, *architecture, number), expected, "{architecture:#x} {number}");
            }
        }
    }

    #[test]
    fn x32_counts_as_x86_64_and_unknown_architectures_are_left_alone() {
        let program = no_durable_writes();
        assert_eq!(judge(&program, 0xc000_003e, X32_BIT | 74), SUCCEED);
        assert_eq!(judge(&program, 0xc000_003e, X32_BIT | 1), ALLOW);
        assert_eq!(judge(&program, 0x1234_5678, 74), ALLOW);
    }

    #[test]
    fn only_what_changes_a_file_system_is_refused() {
        let program = no_remounts();
        for (architecture, mount) in MOUNT {
            let judged = |number, arguments| judge_with(&program, *architecture, number, arguments);
            for (flags, verdict) in [(0x20, REFUSE), (0x21, REFUSE), (0x1020, ALLOW), (0x1021, ALLOW), (0x1, ALLOW)] {
                assert_eq!(judged(*mount, [0x20, 7, 7, flags, 0x20, 0]), verdict, "{architecture:#x} {flags:#x}");
            }
            assert_eq!(judged(FSCONFIG, [0, 7, 0, 0, 0, 0]), REFUSE);
            assert_eq!(judged(FSCONFIG, [7, 6, 0, 0x20, 0, 0]), ALLOW);
            assert_eq!(judged(mount + 1, [0x20; 6]), ALLOW);
        }
    }

    #[test]
    fn sockets_of_networks_are_refused_and_others_are_not() {
        let program = no_network();
        for (architecture, socket, call) in SOCKET {
            let judged = |number, family| judge_with(&program, *architecture, number, [family, 0, 0, 0, 0, 0]);
            for family in [1, 16, 38] {
                assert_eq!(judged(*socket, family), ALLOW, "{architecture:#x} {family}");
            }
            for family in [2, 10, 17, 40] {
                assert_eq!(judged(*socket, family), NO_FAMILY, "{architecture:#x} {family}");
            }
            assert_eq!(judged(*socket + 1, 2), ALLOW);
            assert_eq!(judged(IO_URING_SETUP, 2), UNKNOWN_CALL);
            let apart = |family| judge_with(&no_strange_sockets(), *architecture, *socket, [family, 0, 0, 0, 0, 0]);
            assert!([1, 2, 10, 16, 17].map(apart).iter().all(|verdict| *verdict == ALLOW));
            assert!([15, 31, 40, 44].map(apart).iter().all(|verdict| *verdict == NO_FAMILY));
            if let Some(call) = call {
                assert_eq!((judged(*call, 1), judged(*call, 3)), (NO_FAMILY, ALLOW));
            }
        }
    }

    #[test]
    fn what_is_handed_over_is_of_one_architecture() {
        let program = handed_over(0xc000_00b7, &[61, 79, 291].map(Wanted::all), false);
        for number in 0..600 {
            let expected = if [61, 79, 291].contains(&number) { HAND_OVER } else { ALLOW };
            assert_eq!(judge(&program, 0xc000_00b7, number), expected, "{number}");
        }
        assert_eq!(judge(&program, 0xc000_003e, 79), ALLOW);
        assert_eq!(judge(&program, 0x4000_0028, 45), ALLOW);
        let program = handed_over(0xc000_00b7, &[], true);
        assert_eq!((judge(&program, 0x4000_0028, 45), judge(&program, 0x4000_0028, 46)), (HAND_OVER, ALLOW));
        assert_eq!(judge(&program, 0xc000_00b7, 45), ALLOW);
    }

    #[test]
    fn what_has_a_bit_is_not_handed_over_unless_somebody_else_wants_it() {
        let about = Wanted::without(262, 3, libc::AT_EMPTY_PATH);
        let judged = |wanted: &[Wanted], flags| {
            judge_with(
                &handed_over(0xc000_003e, wanted, false),
                0xc000_003e,
                262,
                [0x1000, 0x1000, 0x1000, flags, 0, 0],
            )
        };
        assert_eq!(judged(&[about], 0x100), HAND_OVER);
        assert_eq!(judged(&[about], 0x1100), ALLOW);
        assert_eq!(judged(&[about, Wanted::all(262)], 0x1100), HAND_OVER);
    }
}
