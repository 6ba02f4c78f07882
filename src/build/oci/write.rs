//! Layers, written on all processors.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use anyhow::{Context, Result, anyhow};
use oci_spec::image::{Descriptor, MediaType};
use sha2::{Digest, Sha256};

use super::divide::Layer;
use crate::build::archive::{Compression, PackStyle, pack_items};
use crate::oci::Writer;

/// A layer that is written.
pub(super) struct Written {
    pub descriptor: Descriptor,
    /// `sha256:…` of it without its compression.
    pub diff_id: String,
}

/// How layers are compressed.
#[derive(Debug, Clone, Copy)]
pub struct LayerCompression {
    /// One of gzip, zstd and none.
    pub format: Compression,
    /// `None` for what the command line tools take.
    pub level: Option<u32>,
}

impl LayerCompression {
    fn media_type(self) -> MediaType {
        match self.format {
            Compression::Zstd => MediaType::ImageLayerZstd,
            Compression::None => MediaType::ImageLayer,
            _ => MediaType::ImageLayerGzip,
        }
    }
}

enum Message {
    /// So many bytes of a layer more.
    Progress(u64),
    Done(usize, Box<Result<Written>>),
}

/// Writes layers, each on a processor of its own, the largest first; one that is larger than a processor's share of
/// all is compressed on several. The same bytes whatever the number of processors.
pub(super) fn layers(
    layers: &[Layer<'_>],
    into: &Writer,
    compression: LayerCompression,
    epoch: i64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<Written>> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let total: u64 = layers.iter().map(|layer| layer.size).sum();
    let share = total / processors as u64;
    let mut order: Vec<usize> = (0..layers.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(layers[*index].size));
    let queue = Mutex::new(VecDeque::from(order));
    let mut written: Vec<Option<Written>> = layers.iter().map(|_| None).collect();
    std::thread::scope(|scope| {
        let (sender, receiver) = channel();
        for _ in 0..processors.min(layers.len()) {
            let (sender, queue) = (sender.clone(), &queue);
            scope.spawn(move || {
                while let Some(index) = queue.lock().ok().and_then(|mut queue| queue.pop_front()) {
                    let threads = if layers[index].size > share { processors } else { 1 };
                    let mut before = 0;
                    let done = layer(&layers[index], index, into, (compression, threads), epoch, &mut |done| {
                        let _ = sender.send(Message::Progress(done - before));
                        before = done;
                    });
                    let failed = done.is_err();
                    if sender.send(Message::Done(index, Box::new(done))).is_err() || failed {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut sum = 0;
        for message in receiver {
            match message {
                Message::Progress(more) => {
                    sum += more;
                    progress(sum.min(total), total);
                }
                Message::Done(index, done) => {
                    if done.is_err() {
                        // Nobody begins another.
                        queue.lock().map_err(|_| anyhow!("a thread broke off"))?.clear();
                    }
                    written[index] = Some((*done)?);
                }
            }
        }
        anyhow::Ok(())
    })?;
    written.into_iter().map(|layer| layer.context("a layer was not written")).collect()
}

fn layer(
    layer: &Layer<'_>,
    number: usize,
    into: &Writer,
    (compression, threads): (LayerCompression, usize),
    epoch: i64,
    progress: &mut dyn FnMut(u64),
) -> Result<Written> {
    // tar-rs, which bootc reads with, does not know sparse files of pax.
    let style = PackStyle { prefix: "", sparse: false, latest: Some(epoch) };
    let (path, file) = into.partial(&number.to_string())?;
    let mut plain = Hashing(Sha256::new());
    let how = (compression.format, compression.level, threads);
    let file = pack_items(&layer.items, style, file, how, &mut plain, progress)?;
    let (sha256, size) = digest(&file).context("reading a layer")?;
    let descriptor = into.adopt(&path, &sha256, size, compression.media_type())?;
    Ok(Written { descriptor, diff_id: format!("sha256:{}", hex::encode(plain.0.finalize())) })
}

struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn digest(file: &File) -> io::Result<(String, u64)> {
    let (mut hasher, mut buffer, mut at) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        match file.read_at(&mut buffer, at)? {
            0 => return Ok((hex::encode(hasher.finalize()), at)),
            read => {
                hasher.update(&buffer[..read]);
                at += read as u64;
            }
        }
    }
}
