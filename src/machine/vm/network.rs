//! A network for UML: libslirp-helper, which is a router as an ordinary process. QEMU has one built in.

use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::debian::host::find_program;
use crate::diagnostics::Fault;
use crate::sys::process::{die_with_us, inherit};

/// Name of the program and of its package.
pub(super) const HELPER: &str = "libslirp-helper";

/// A router, ended when dropped.
pub(super) struct Router(Child);

impl Router {
    /// With the machine's end of the line to it.
    pub(super) fn start() -> Result<(Self, OwnedFd)> {
        let program = find_program(HELPER).ok_or_else(missing)?;
        let (plug, theirs) = socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)
            .context("making a line")?;
        let mut command = Command::new(program);
        command.arg(format!("--fd={}", theirs.as_raw_fd()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        inherit(&mut command, &[&theirs]);
        die_with_us(&mut command);
        let child = command.spawn().with_context(|| format!("starting {HELPER}"))?;
        Ok((Self(child), plug))
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What to say where the program is not there.
pub(super) fn missing() -> Fault {
    Fault::machine(format!("{HELPER} is missing, which connects UML machines to the network"))
        .hint(format!("sudo apt install {HELPER}"))
}

/// The value of a variable that names a proxy (`http_proxy`), as the guest reaches it: what listens on this
/// machine's loopback interface is behind the guest's gateway. `no_proxy`, a list, stays as it is.
pub fn proxy(variable: &str, address: &str) -> String {
    if variable.eq_ignore_ascii_case("no_proxy") {
        return address.to_owned();
    }
    let (scheme, rest) = address.split_once("://").map_or(("", address), |(scheme, rest)| (scheme, rest));
    let (login, host) = rest.rsplit_once('@').map_or(("", rest), |(login, host)| (login, host));
    let local = ["localhost", "127.0.0.1", "[::1]", "::1"];
    let Some(name) = local
        .into_iter()
        .find(|name| host.strip_prefix(name).is_some_and(|after| after.is_empty() || after.starts_with([':', '/'])))
    else {
        return address.to_owned();
    };
    let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    let login = if login.is_empty() { String::new() } else { format!("{login}@") };
    format!("{scheme}{login}10.0.2.2{}", &host[name.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_of_this_machine_are_behind_the_gateway() {
        for (before, after) in [
            ("http://localhost:3142", "http://10.0.2.2:3142"),
            ("http://me:secret@127.0.0.1:8080/", "http://me:secret@10.0.2.2:8080/"),
            ("http://[::1]:8080", "http://10.0.2.2:8080"),
            ("localhost:8080", "10.0.2.2:8080"),
            ("http://localhost.example:8080", "http://localhost.example:8080"),
            ("http://proxy.example:8080", "http://proxy.example:8080"),
        ] {
            assert_eq!(proxy("http_proxy", before), after);
        }
        assert_eq!(proxy("NO_PROXY", "localhost,.example"), "localhost,.example");
    }
}
