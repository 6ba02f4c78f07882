//! Network interfaces (netdevice(7)) and routes (rtnetlink(7)).

use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Bytes of `struct nlmsghdr`, `struct ifinfomsg`, `struct rtmsg` and `struct rtattr` (linux/netlink.h, rtnetlink.h).
const HEADER: usize = 16;
const INTERFACE: usize = 16;
const ROUTE: usize = 12;
const ATTRIBUTE: usize = 4;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// Messages end with it, or are about a fault.
const DONE: u16 = 3;
const FAULT: u16 = 2;

/// Brings up `lo`, which is down in a new network namespace.
pub fn loopback_up() -> Result<()> {
    up(&socket()?, "lo")
}

/// What leads out of this process's network namespace: interfaces that are up, and routes, but for those of loopback.
pub fn ways_out() -> Result<Vec<String>> {
    let mut loopback = Vec::new();
    let mut ways = Vec::new();
    for message in dumped(libc::RTM_GETLINK, INTERFACE)? {
        let (Some(index), Some(flags)) = (number(&message, 4), number(&message, 8)) else { return Err(malformed()) };
        if flags & libc::IFF_LOOPBACK.cast_unsigned() != 0 {
            loopback.push(index);
        } else if flags & libc::IFF_UP.cast_unsigned() != 0 {
            let name = attribute(&message, INTERFACE, libc::IFLA_IFNAME).unwrap_or_default();
            ways.push(format!("the interface {}", String::from_utf8_lossy(&name).trim_end_matches('\0')));
        }
    }
    for message in dumped(libc::RTM_GETROUTE, ROUTE)? {
        let outward = attribute(&message, ROUTE, libc::RTA_OIF)
            .is_some_and(|index| number(&index, 0).is_none_or(|index| !loopback.contains(&index)));
        if outward || attribute(&message, ROUTE, libc::RTA_MULTIPATH).is_some() {
            ways.push("a route".to_owned());
        }
    }
    Ok(ways)
}

/// Families of sockets of networks that this process can have.
pub fn families_out() -> Result<Vec<String>> {
    let families =
        [("inet", libc::AF_INET), ("inet6", libc::AF_INET6), ("packet", libc::AF_PACKET), ("vsock", libc::AF_VSOCK)];
    let mut ways = Vec::new();
    for (name, family) in families {
        match open(family, libc::SOCK_DGRAM) {
            Ok(_) => ways.push(format!("sockets of the family {name}")),
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ways)
}

fn malformed() -> Error {
    Error::other("the kernel's answer cannot be read")
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// All that the kernel has of a kind: messages without their headers.
fn dumped(kind: u16, size: usize) -> Result<Vec<Vec<u8>>> {
    let socket = open(libc::AF_NETLINK, libc::SOCK_RAW)?;
    let mut request = vec![0; HEADER + size];
    request[..4].copy_from_slice(&((HEADER + size) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    nix::sys::socket::send(socket.as_raw_fd(), &request, nix::sys::socket::MsgFlags::empty())?;
    let mut all = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = nix::sys::socket::recv(socket.as_raw_fd(), &mut buffer, nix::sys::socket::MsgFlags::empty())?;
        let mut rest = &buffer[..count];
        if rest.is_empty() {
            return Err(malformed());
        }
        while let (Some(length), Some(kind)) = (number(rest, 0), short(rest, 4)) {
            let message = rest.get(HEADER..length as usize).ok_or_else(malformed)?;
            match kind {
                DONE => return Ok(all),
                FAULT => {
                    let code = number(message, 0).ok_or_else(malformed)?.cast_signed();
                    return Err(Error::from_raw_os_error(-code));
                }
                _ => all.push(message.to_vec()),
            }
            rest = &rest[(length as usize).next_multiple_of(4).min(rest.len())..];
        }
    }
}

/// An attribute of a message, after its struct of this size.
fn attribute(message: &[u8], size: usize, wanted: u16) -> Option<Vec<u8>> {
    let mut rest = message.get(size..)?;
    while let (Some(length), Some(kind)) = (short(rest, 0), short(rest, 2)) {
        let length = usize::from(length);
        let value = rest.get(ATTRIBUTE..length)?;
        if kind == wanted {
            return Some(value.to_vec());
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    None
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
    open(libc::AF_INET, libc::SOCK_DGRAM)
}

fn open(family: libc::c_int, kind: libc::c_int) -> Result<OwnedFd> {
    // SAFETY: plain integers in; the descriptor is ours.
    unsafe {
        let fd = libc::socket(family, kind | libc::SOCK_CLOEXEC, 0);
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
