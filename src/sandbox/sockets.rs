//! Abstract sockets where the kernel does not keep them apart by itself (before Linux 6.12): they belong to a network
//! namespace, so a command that has the host's network would have the host's abstract sockets.
//!
//! The address is looked at before the kernel reads it, so who changes it in between gets around this; and so does who
//! sends datagrams by sendmsg(2), by which the command itself says who answers its calls.

use nix::errno::Errno;
use nix::unistd::Pid;

use super::supervisor::{Caller, Handler, Verdict, Wanted};
use super::{Command, Isolation, fence, powers};
use crate::sys::notify::Call;

/// Bytes of a `struct sockaddr_un` (unix(7)).
const ADDRESS: usize = 110;

/// Refuses to reach abstract sockets.
pub(super) struct Sockets;

impl Sockets {
    /// `None` where the kernel does, or the command has a network of its own.
    pub(super) fn new(command: &Command, isolation: Isolation) -> Option<Self> {
        let shares = isolation == Isolation::Chroot || command.network;
        (shares && powers::held(command) && !fence::keeps_sockets_apart()).then_some(Self)
    }
}

/// Whether an address is of an abstract socket: a path that begins with a zero.
fn is_abstract(address: &[u8]) -> bool {
    let family = (libc::AF_UNIX as u16).to_ne_bytes();
    address.get(..2) == Some(&family) && address.get(2) == Some(&0)
}

fn reaches(caller: &Caller<'_>, at: u64, length: u64) -> bool {
    let mut address = [0xff; ADDRESS];
    let length = ADDRESS.min(length as u32 as usize);
    at != 0 && length > 2 && caller.read(at, &mut address[..length]).is_ok_and(|count| is_abstract(&address[..count]))
}

impl Handler for Sockets {
    fn calls(&self) -> Vec<Wanted> {
        [libc::SYS_connect, libc::SYS_sendto].map(Wanted::all).to_vec()
    }

    fn begin(&mut self, _child: Pid) -> anyhow::Result<()> {
        Ok(())
    }

    fn required(&self) -> bool {
        true
    }

    fn answer(&mut self, call: &Call, caller: &Caller<'_>) -> Result<Verdict, Errno> {
        let [_, second, third, _, fifth, sixth] = call.arguments;
        let reaches = match call.number {
            libc::SYS_connect => reaches(caller, second, third),
            _ => reaches(caller, fifth, sixth),
        };
        if reaches { Err(Errno::ECONNREFUSED) } else { Ok(Verdict::Pass) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abstract_address_begins_with_a_zero() {
        let address = |family: i32, path: &[u8]| [&(family as u16).to_ne_bytes(), path].concat();
        assert!(is_abstract(&address(libc::AF_UNIX, b"\0name")));
        for other in [
            address(libc::AF_UNIX, b"/run/socket\0"),
            address(libc::AF_UNIX, b""),
            address(libc::AF_INET, b"\0\x50\x7f\0\0\x01"),
        ] {
            assert!(!is_abstract(&other), "{other:?}");
        }
    }
}
