//! Network interfaces (netdevice(7)) and routes.

use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Brings up `lo`, which is down in a new network namespace.
pub fn loopback_up() -> Result<()> {
    up(&socket()?, "lo")
}

/// Gives an interface an address, brings it up, and sends all that is not local to the gateway.
pub fn configure(interface: &str, address: [u8; 4], netmask: [u8; 4], gateway: [u8; 4]) -> Result<()> {
    let socket = socket()?;
    for (request, value) in [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, netmask)] {
        let mut asked = named(interface)?;
        asked.ifr_ifru.ifru_addr = internet(value);
        // SAFETY: an open descriptor and the struct that the request reads.
        check(unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw const asked) })?;
    }
    up(&socket, interface)?;
    // SAFETY: all fields of the struct may be zero.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = internet([0; 4]);
    route.rt_genmask = internet([0; 4]);
    route.rt_gateway = internet(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: an open descriptor and the struct that the request reads.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT, &raw const route) })
}

fn socket() -> Result<OwnedFd> {
    // SAFETY: plain integers in; the descriptor is ours.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 { Err(Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

fn up(socket: &OwnedFd, interface: &str) -> Result<()> {
    let mut asked = named(interface)?;
    // SAFETY: the request is zeroed, named and of the type that both ioctls expect; the first fills the
    // member of the union that is changed then.
    unsafe {
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut asked))?;
        asked.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const asked))
    }
}

fn check(result: libc::c_int) -> Result<()> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

fn named(interface: &str) -> Result<libc::ifreq> {
    // SAFETY: all fields of the struct may be zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// An IPv4 address as the kernel's structs hold it.
fn internet(address: [u8; 4]) -> libc::sockaddr {
    // SAFETY: all fields of the struct may be zero.
    let mut socket: libc::sockaddr = unsafe { std::mem::zeroed() };
    socket.sa_family = libc::AF_INET as libc::sa_family_t;
    // `struct sockaddr_in`: two bytes of a port, then the address in network order.
    for (to, from) in socket.sa_data[2..6].iter_mut().zip(address) {
        *to = from as libc::c_char;
    }
    socket
}
