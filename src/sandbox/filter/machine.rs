//! System calls and sockets that lead to the machine rather than to what a command has of it.

use seccompiler::sock_filter;

use super::{
    AND, ARCHITECTURE, JUMP_IF_EQUAL, LOAD_WORD, NUMBER, REFUSE, RETURN, UNKNOWN_CALL, X32_BIT, argument, instruction,
};
use crate::sandbox::filter::ALLOW;

/// The calls by architecture, as in [`super::CALLS`]: add_key, request_key, keyctl (whose keyrings are those of the
/// user, in whatever namespace), perf_event_open, bpf, userfaultfd, syslog (which everybody may read on some); and ioctl.
const CALLS: &[(u32, [u32; 7], u32)] = &[
    (0xc000_003e, [248, 249, 250, 298, 321, 323, 103], 16),
    (0x4000_0003, [286, 287, 288, 336, 357, 374, 103], 54),
    (0xc000_00b7, [217, 218, 219, 241, 280, 282, 116], 29),
    (0xc000_00f3, [217, 218, 219, 241, 280, 282, 116], 29),
    (0xc000_0102, [217, 218, 219, 241, 280, 282, 116], 29),
    (0x4000_0028, [309, 310, 311, 364, 386, 388, 103], 54),
    (0xc000_0015, [269, 270, 271, 319, 361, 364, 103], 54),
    (0x8000_0016, [278, 279, 280, 331, 351, 355, 103], 54),
];

/// Requests of ioctl(2) by which a terminal takes what a program writes for what its user types (ioctl_tty(2)):
/// `TIOCSTI`, `TIOCLINUX`.
const TYPING: [u32; 2] = [0x5412, 0x541c];

/// Answers them as a kernel that was built without them, and refuses to type on a terminal.
pub(in crate::sandbox) fn no_machine() -> Vec<sock_filter> {
    let mut program = vec![instruction(LOAD_WORD, 0, 0, ARCHITECTURE)];
    for (architecture, calls, ioctl) in CALLS {
        let count = calls.len() as u8;
        let mut block = vec![instruction(LOAD_WORD, 0, 0, NUMBER), instruction(AND, 0, 0, !X32_BIT)];
        for (position, call) in calls.iter().enumerate() {
            // To the verdict past the other calls and the five instructions about ioctl.
            block.push(instruction(JUMP_IF_EQUAL, count - position as u8 + 4, 0, *call));
        }
        block.extend([
            instruction(JUMP_IF_EQUAL, 0, 3, *ioctl),
            instruction(LOAD_WORD, 0, 0, argument(*architecture, 1)),
            instruction(JUMP_IF_EQUAL, 3, 0, TYPING[0]),
            instruction(JUMP_IF_EQUAL, 2, 0, TYPING[1]),
            instruction(RETURN, 0, 0, ALLOW),
            instruction(RETURN, 0, 0, UNKNOWN_CALL),
            instruction(RETURN, 0, 0, REFUSE),
        ]);
        program.push(instruction(JUMP_IF_EQUAL, 0, block.len() as u8, *architecture));
        program.extend(block);
    }
    program.push(instruction(RETURN, 0, 0, ALLOW));
    program
}

#[cfg(test)]
mod tests {
    use super::super::tests::judge_with;
    use super::*;

    #[test]
    fn what_leads_to_the_machine_is_unknown_and_nothing_else_is() {
        let program = no_machine();
        for (architecture, calls, ioctl) in CALLS {
            let judged = |number, request| judge_with(&program, *architecture, number, [0, request, 0, 0, 0, 0]);
            for number in 0..600 {
                let expected = if calls.contains(&number) { UNKNOWN_CALL } else { ALLOW };
                assert_eq!(judged(number, 0), expected, "{architecture:#x} {number}");
            }
            assert_eq!([0x5412, 0x541c, 0x5413].map(|request| judged(*ioctl, request)), [REFUSE, REFUSE, ALLOW]);
            assert_eq!(judged(ioctl + 1, 0x5412), ALLOW);
        }
    }
}
