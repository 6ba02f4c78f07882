//! Kernels without their compression: undoing it takes an emulated processor longer than all the rest.
//!
//! QEMU starts the program that is inside a `bzImage` (Documentation/arch/x86/boot.rst of Linux) by the
//! entry that it has for Xen's PVH guests.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use object::Endianness;
use object::elf::{FileHeader64, NoteType};
use object::read::elf::{ElfFile, ProgramHeader};

use super::Kernel;
use crate::build::archive::Compression;
use crate::store::{EntryId, Store};

/// Raised when the same image comes to be unpacked otherwise.
const VERSION: u32 = 1;

/// The note of a kernel that says where a PVH guest enters it (`XEN_ELFNOTE_PHYS32_ENTRY`).
const PVH_ENTRY: NoteType = NoteType(18);

/// Most bytes of a kernel.
const LIMIT: u32 = 512 << 20;

/// The same kernel with the image as QEMU starts it soonest.
pub(super) fn unpacked(mut kernel: Kernel, store: &Store) -> Result<Kernel> {
    let image = &kernel.image;
    let Some(payload) = Payload::find(image).with_context(|| format!("reading the kernel {}", image.display()))? else {
        return Ok(kernel);
    };
    let digest = store.digest_tree(image)?.into_iter().map(|entry| entry.digest).collect::<String>();
    let key = blake3::hash(format!("{VERSION}\0{digest}").as_bytes());
    let kept = store.state_dir("kernel-image", &EntryId(key.to_hex().to_string()), &mut |dir| {
        // Where QEMU could not start it, the entry is empty.
        if let Ok(program) = payload.read()
            && has_pvh_entry(&program)
        {
            fs::write(dir.join("vmlinux"), program)
                .with_context(|| format!("unpacking the kernel {}", image.display()))
                .map_err(|error| store.explain_work(error))?;
        }
        Ok(())
    })?;
    let program = kept.path.join("vmlinux");
    if program.exists() {
        kernel.image = program;
        kernel.kept.push(kept);
    }
    Ok(kernel)
}

/// The compressed program in an image.
struct Payload {
    file: File,
    start: u64,
    size: u64,
    compression: Compression,
    /// Of the program.
    length: u32,
}

impl Payload {
    /// `None` where the image is no `bzImage`, or compressed in a way that is not known here.
    fn find(image: &Path) -> Result<Option<Self>> {
        let file = File::open(image)?;
        let mut head = [0; 0x250];
        if file.metadata()?.len() < 1024 {
            return Ok(None);
        }
        file.read_exact_at(&mut head, 0)?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        // The payload is named since version 2.08 of the protocol.
        if head[0x202..0x206] != *b"HdrS" || u16::from_le_bytes([head[0x206], head[0x207]]) < 0x208 {
            return Ok(None);
        }
        let setup = if head[0x1f1] == 0 { 4 } else { u64::from(head[0x1f1]) };
        let (start, size) = ((setup + 1) * 512 + u64::from(word(0x248)), u64::from(word(0x24c)));
        if size < 16 {
            return Ok(None);
        }
        let (mut magic, mut length) = ([0; 16], [0; 4]);
        file.read_exact_at(&mut magic, start)?;
        file.read_exact_at(&mut length, start + size - 4)?;
        let length = u32::from_le_bytes(length);
        Ok(Compression::by_content(&magic)
            .filter(|compression| *compression != Compression::Lzop && length < LIMIT)
            .map(|compression| Self { file, start, size, compression, length }))
    }

    fn read(&self) -> Result<Vec<u8>> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(self.start))?;
        let mut program = vec![0; self.length as usize];
        // Not to the end of the payload: there stands the program's length, which no decoder knows.
        self.compression.reader(file, self.size)?.read_exact(&mut program)?;
        ensure!(program.starts_with(b"\x7fELF"), "the kernel in the image is no ELF file");
        Ok(program)
    }
}

fn has_pvh_entry(program: &[u8]) -> bool {
    let Ok(file) = ElfFile::<FileHeader64<Endianness>, _>::parse(program) else { return false };
    let endian = file.endian();
    file.elf_program_headers().iter().any(|header| {
        let Ok(Some(mut notes)) = header.notes(endian, program) else { return false };
        std::iter::from_fn(|| notes.next().ok().flatten())
            .any(|note| note.name() == b"Xen" && note.n_type(endian) == PVH_ENTRY)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file of one note.
    fn program(kind: NoteType) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        for word in [0u64, 64, 0] {
            file.extend(word.to_le_bytes());
        }
        file.extend([0; 4]);
        for half in [64u16, 56, 1, 64, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        // p_type (PT_NOTE), p_flags, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
        file.extend([4, 0, 0, 0, 4, 0, 0, 0]);
        for word in [120u64, 0, 0, 20, 20, 4] {
            file.extend(word.to_le_bytes());
        }
        for word in [4, 4, kind.0] {
            file.extend(u32::to_le_bytes(word));
        }
        file.extend(b"Xen\0\x01\0\0\0");
        file
    }

    fn image(program: &[u8], packed: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x202..0x208].copy_from_slice(b"HdrS\x0f\x02");
        image[0x248..0x24c].copy_from_slice(&100u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(packed.len() as u32 + 4).to_le_bytes());
        image.resize(1124, 0x90);
        image.extend(packed);
        image.extend((program.len() as u32).to_le_bytes());
        image.resize(image.len() + 100, 0x90);
        image
    }

    fn kernel(image: &Path) -> Kernel {
        Kernel::new(String::new(), image.into(), None)
    }

    #[test]
    fn compression_is_taken_off_and_kept_off() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let path = dir.path().join("vmlinuz");
        let program = program(PVH_ENTRY);
        for packed in [liblzma::encode_all(&program[..], 1).unwrap(), zstd::encode_all(&program[..], 1).unwrap()] {
            fs::write(&path, image(&program, &packed)).unwrap();
            for _ in 0..2 {
                let unpacked = unpacked(kernel(&path), &store).unwrap();
                assert_ne!(unpacked.image, path);
                assert!(fs::read(&unpacked.image).unwrap() == program);
            }
        }
    }

    #[test]
    fn other_images_stay_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let path = dir.path().join("vmlinuz");
        let without_entry = program(NoteType(1));
        let packed = zstd::encode_all(&without_entry[..], 1).unwrap();
        for bytes in [
            image(&without_entry, &packed),
            vec![0; 5000],
            b"short".to_vec(),
            image(&without_entry, b"\x02\x21\x4c\x18 lz4 is not known"),
        ] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(unpacked(kernel(&path), &store).unwrap().image, path);
        }
    }
}
