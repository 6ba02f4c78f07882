//! Standard output and standard error, whose readers may go away (`debforge plan | head`).

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use super::interrupt;

/// What a process that SIGPIPE ended has as its exit code in a shell.
pub const CLOSED: u8 = 141;

static GONE: AtomicBool = AtomicBool::new(false);

/// Whether nobody reads any more what is said.
pub fn is_closed() -> bool {
    GONE.load(Ordering::Relaxed)
}

/// Writes data to standard output, at once.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    noted(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Says something to people, on standard error. What cannot be said is no reason to fail; but where the reader has gone
/// away, what is being done ends as after Ctrl-C.
pub fn say(text: &str) {
    let _ = noted(io::stderr().lock().write_all(text.as_bytes()));
}

/// A line for people.
#[macro_export]
macro_rules! say {
    () => { $crate::sys::output::say("\n") };
    ($($text:tt)*) => { $crate::sys::output::say(&(format!($($text)*) + "\n")) };
}

fn noted(written: io::Result<()>) -> io::Result<()> {
    if let Err(error) = &written
        && error.kind() == ErrorKind::BrokenPipe
        && !GONE.swap(true, Ordering::Relaxed)
    {
        interrupt::ask();
    }
    written
}
