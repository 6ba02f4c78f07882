//! What starts an ISO image: the boot catalogue (El Torito specification 1.0, UEFI specification 13.3.2).

use super::Window;

/// Bytes of a sector of a CD.
const SECTOR: u64 = 2048;

/// Platform of an entry of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Platform {
    /// x86 BIOS.
    Bios,
    Efi,
    Other,
}

/// A bootable entry and the bytes that it starts from.
#[derive(Debug, Clone)]
pub(super) struct BootEntry {
    pub(super) platform: Platform,
    /// From where it starts to the end of the disk: FAT images say themselves how long they are.
    pub(super) bytes: Window,
}

/// Whether this is an ISO 9660 image.
pub(super) fn is_iso(disk: &Window) -> bool {
    disk.has(16 * SECTOR + 1, b"CD001")
}

/// What the boot catalogue names.
pub(super) fn boot_entries(disk: &Window) -> Vec<BootEntry> {
    let record = 17 * SECTOR;
    if !disk.has(record, b"\0CD001\x01EL TORITO SPECIFICATION") {
        return Vec::new();
    }
    let Some(catalogue) = disk.array_at::<4>(record + 0x47) else { return Vec::new() };
    let catalogue = u64::from(u32::from_le_bytes(catalogue)) * SECTOR;
    let mut platform = Platform::Other;
    let mut entries = Vec::new();
    for index in 0..64 {
        let Some(entry) = disk.array_at::<32>(catalogue + index * 32) else { break };
        match entry[0] {
            // The validation entry, and headers of sections.
            0x01 | 0x90 | 0x91 => {
                platform = match entry[1] {
                    0 => Platform::Bios,
                    0xef => Platform::Efi,
                    _ => Platform::Other,
                };
            }
            0x88 => {
                let start = u64::from(u32::from_le_bytes([entry[8], entry[9], entry[10], entry[11]])) * SECTOR;
                entries.push(BootEntry { platform, bytes: disk.part(start, u64::MAX) });
            }
            0x44 | 0x00 if index > 1 && entry[0] == 0 => break,
            _ => {}
        }
    }
    entries
}
