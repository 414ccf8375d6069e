//! An interface whose packets this process reads and writes.
//!
//! It is made here and then moved into the namespace of a region: the file stays attached to it, so that nothing of this
//! process ever has to enter a namespace.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use tokio::io::unix::AsyncFd;

const NAME_BYTES: usize = 16;
/// `TUNSETIFF`: `_IOW('T', 202, int)`.
const SET_INTERFACE: libc::c_ulong = 0x4004_54ca;
/// `IFF_TUN | IFF_NO_PI`: IP packets and nothing before them.
const IP_PACKETS: libc::c_short = 0x0001 | 0x1000;

/// The kernel's `struct ifreq`, as far as `TUNSETIFF` reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME_BYTES],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// An open interface.
pub struct Tun {
    file: AsyncFd<File>,
}

impl Tun {
    /// Makes an interface of this name in the namespace of this process.
    #[allow(unsafe_code)]
    pub fn make(name: &str) -> std::io::Result<Tun> {
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")?;
        let mut request = InterfaceRequest {
            name: [0; NAME_BYTES],
            flags: IP_PACKETS,
            rest: [0; 22],
        };
        if name.len() >= NAME_BYTES {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        // SAFETY: the request is as large as the kernel's struct ifreq (40 bytes), its name ends with a zero byte, and it
        // lives until the call returns; the kernel keeps no pointer to it.
        let made = unsafe { libc::ioctl(file.as_raw_fd(), SET_INTERFACE as _, &raw mut request) };
        if made < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the file is owned by what is made here and is never exchanged, so its descriptor is open and the same
        // for as long as it is registered.
        let file = unsafe { AsyncFd::register(file)? };
        Ok(Tun { file })
    }

    /// Waits until there may be packets.
    pub async fn readable(&self) -> std::io::Result<()> {
        self.file.readable().await?.retain_ready();
        Ok(())
    }

    /// The next packet, if one waits.
    pub fn read(&self, buffer: &mut [u8]) -> Option<usize> {
        let reading = self.file.try_io(tokio::io::Interest::READABLE, |file| {
            let mut file = file;
            file.read(buffer)
        });
        reading.ok()
    }

    /// Sends a packet into the namespace; whether the kernel took it.
    pub fn write(&self, packet: &[u8]) -> bool {
        let mut file = self.file.get_ref();
        file.write(packet).is_ok()
    }
}
