//! The HiFive Unleashed as QEMU has it, `sifive_u`: what its boot ROM would do with a card, and what the
//! flash beside it has to hold so that U-Boot starts from the card.

use std::path::Path;

use flate2::Crc;

use super::preparation::Preparation;
use crate::image::table::{Entry, Table};

/// Bytes of its flash, an IS25WP256 (QEMU's hw/riscv/sifive_u.c).
pub const FLASH_SIZE: u64 = 32 << 20;

/// Memory in MiB that its U-Boot takes for granted, as the board has it.
pub const MEMORY: u64 = 8192;

/// Type of the partition that the boot ROM starts from (the FU540's manual, "Boot Process").
const FIRST_STAGE: &str = "5b193300-fc78-40cd-8002-e86c45580b47";

/// Where its U-Boot looks for a script in the flash (`script_offset_f`, include/configs/sifive-unleashed.h).
const SCRIPT_AT: u64 = 0x1ff_f000;

/// QEMU's card does not answer when U-Boot asks for the first time, and U-Boot goes on to the flash; it
/// answers the second time.
const SCRIPT: &[u8] = b"run bootcmd_mmc0\n";

/// Whether QEMU's name of a board, with its options, is this one's.
pub fn is(board: &str) -> bool {
    board.split(',').next() == Some("sifive_u")
}

/// The board with its switches set to start from its card, and the partition of the card that its boot ROM
/// would start, which QEMU's does not look for. `None` where the switches say something else, or there is none.
pub fn from_card<'a>(board: &str, card: &'a Table) -> Option<(String, &'a Entry)> {
    let first_stage = card.entries.iter().find(|entry| entry.kind == FIRST_STAGE).filter(|_| is(board))?;
    match board.split(',').find_map(|option| option.strip_prefix("msel=")) {
        None => Some((format!("{board},msel=11"), first_stage)),
        Some(set) => (set == "11").then(|| (board.to_owned(), first_stage)),
    }
}

/// A flash that has nothing but a script.
pub fn flash(path: &Path) -> Preparation {
    Preparation::File { path: path.to_owned(), size: FLASH_SIZE, at: SCRIPT_AT, bytes: script(SCRIPT) }
}

/// A script as U-Boot takes it: a header of 64 bytes, all numbers big-endian, then the length of each
/// script, a zero, and the scripts (`struct legacy_img_hdr`, U-Boot's include/image.h).
fn script(text: &[u8]) -> Vec<u8> {
    let sum = |bytes: &[u8]| {
        let mut crc = Crc::new();
        crc.update(bytes);
        crc.sum().to_be_bytes()
    };
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    let data = [&length(text), &[0; 4], text].concat();
    let mut header = [0; 64];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &0x2705_1956_u32.to_be_bytes());
    put(12, &length(&data));
    put(24, &sum(&data));
    // Linux, RISC-V, script, not compressed.
    put(28, &[5, 26, 6, 0]);
    put(32, b"debforge boot");
    // The header's own sum is made while it is zero.
    let own = sum(&header);
    header[4..8].copy_from_slice(&own);
    [&header, data.as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::TableKind;

    #[test]
    fn a_script_is_what_mkimage_makes() {
        // SOURCE_DATE_EPOCH=0 mkimage -A riscv -T script -C none -n 'debforge boot' -d FILE
        let made = script(SCRIPT);
        assert_eq!(hex::encode(&made[..32]), "2705195602fa926b0000000000000019000000000000000059a402e2051a0600");
        assert_eq!(made.len(), 64 + 8 + SCRIPT.len());
        assert!(made.ends_with(b"\0\0\0\x11\0\0\0\0run bootcmd_mmc0\n"));
    }

    #[test]
    fn the_card_is_started_unless_the_switches_say_something_else() {
        let first_stage = Entry {
            number: 1,
            start: 34 * 512,
            length: 1 << 20,
            kind: FIRST_STAGE.into(),
            uuid: String::new(),
            label: String::new(),
            attributes: Vec::new(),
            active: false,
        };
        let mut card = Table {
            kind: TableKind::Gpt,
            disk_id: String::new(),
            sector_size: 512,
            records: Vec::new(),
            entries: vec![first_stage],
        };
        let board = |board: &str| Some(from_card(board, &card)?.0);
        assert_eq!(board("sifive_u").as_deref(), Some("sifive_u,msel=11"));
        assert_eq!(board("sifive_u,msel=11,serial=3").as_deref(), Some("sifive_u,msel=11,serial=3"));
        assert_eq!(board("sifive_u,msel=6"), None);
        assert_eq!(board("sifive_e"), None);
        card.entries.clear();
        assert_eq!(from_card("sifive_u", &card), None);
    }
}
