//! The line to the machine around the guest: messages out, a word or two in.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::termios::{self, SetArg};

use crate::machine::process::Message;

/// How often the guest says that it is alive.
const PULSE: Duration = Duration::from_secs(2);

/// What comes in when the user wants it to end.
pub(in crate::machine::vm) const INTERRUPT: &str = "interrupt";

pub(super) struct Channel {
    file: Arc<Mutex<File>>,
}

/// Says every [`PULSE`] that the guest is alive, until dropped.
pub(super) struct Pulse(Arc<AtomicBool>);

impl Drop for Pulse {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Channel {
    /// Opens the line, as bytes and nothing else.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let doing = || format!("opening the channel {}", path.display());
        let file = File::options().read(true).write(true).open(path).with_context(doing)?;
        // A port that is no terminal has nothing to set.
        if let Ok(mut settings) = termios::tcgetattr(&file) {
            termios::cfmakeraw(&mut settings);
            termios::tcsetattr(&file, SetArg::TCSANOW, &settings).with_context(doing)?;
        }
        Ok(Self { file: Arc::new(Mutex::new(file)) })
    }

    /// Sends a message. Nobody listening is no fault: the machine is about to be ended then.
    pub(super) fn say(&self, message: &Message) {
        say(&self.file, message);
    }

    /// Starts to listen, and to say that the guest is alive.
    pub(super) fn listen(&self, interrupt: fn()) -> Pulse {
        let over = Arc::new(AtomicBool::new(false));
        let (file, stop) = (self.file.clone(), over.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                say(&file, &Message::Alive);
                std::thread::sleep(PULSE);
            }
        });
        let reader = self.file.lock().unwrap_or_else(PoisonError::into_inner).try_clone();
        if let Ok(reader) = reader {
            std::thread::spawn(move || {
                for line in BufReader::new(reader).lines().map_while(std::io::Result::ok) {
                    if line.trim() == INTERRUPT {
                        interrupt();
                    }
                }
            });
        }
        Pulse(over)
    }

    /// Waits until all that was said is on its way.
    pub(super) fn drain(&self) {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = termios::tcdrain(&*file);
    }
}

fn say(file: &Mutex<File>, message: &Message) {
    let Ok(mut line) = serde_json::to_vec(message) else { return };
    line.push(b'\n');
    let _ = file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line);
}
