//! Durable writes made no-ops: a build that is cut short is thrown away whole, so nothing in it
//! needs to reach the disk before it goes on. dpkg alone asks for it twice per package.

use seccompiler::sock_filter;

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

/// In the number of a system call made through the x32 table.
const X32_BIT: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data` (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

// Instructions, linux/bpf_common.h.
const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

// Verdicts, linux/seccomp.h.
const ALLOW: u32 = 0x7fff_0000;
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

/// A program that hands some calls of one architecture over to who listens.
pub(super) fn handed_over(architecture: u32, calls: &[u32]) -> Vec<sock_filter> {
    let count = calls.len() as u8;
    let mut program = vec![
        instruction(LOAD_WORD, 0, 0, ARCHITECTURE),
        instruction(JUMP_IF_EQUAL, 0, count + 1, architecture),
        instruction(LOAD_WORD, 0, 0, NUMBER),
    ];
    for (position, call) in calls.iter().enumerate() {
        program.push(instruction(JUMP_IF_EQUAL, count - position as u8, 0, *call));
    }
    program.push(instruction(RETURN, 0, 0, ALLOW));
    program.push(instruction(RETURN, 0, 0, HAND_OVER));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn judge(program: &[sock_filter], architecture: u32, number: u32) -> u32 {
        let (mut at, mut accumulator) = (0usize, 0u32);
        loop {
            let now = &program[at];
            at += 1;
            match now.code {
                LOAD_WORD => accumulator = if now.k == NUMBER { number } else { architecture },
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
    fn what_is_handed_over_is_of_one_architecture() {
        let program = handed_over(0xc000_00b7, &[61, 79, 291]);
        for number in 0..600 {
            let expected = if [61, 79, 291].contains(&number) { HAND_OVER } else { ALLOW };
            assert_eq!(judge(&program, 0xc000_00b7, number), expected, "{number}");
        }
        assert_eq!(judge(&program, 0xc000_003e, 79), ALLOW);
    }
}
