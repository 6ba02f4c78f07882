//! Answers a command's calls, one after the other.

use std::collections::HashMap;

use nix::errno::Errno;

use super::{ARCHITECTURE, Caller, Handler, Verdict};
use crate::sys::notify::{Call, Listener};

/// Watches over a command and everything that it starts.
pub(super) struct Watch {
    listener: Listener,
    handlers: Vec<Box<dyn Handler>>,
    /// By the call's number, who wants it: positions in `handlers`.
    wanted: HashMap<u32, Vec<usize>>,
}

impl Watch {
    pub(super) fn new(listener: Listener, handlers: Vec<Box<dyn Handler>>) -> Self {
        let mut wanted: HashMap<u32, Vec<usize>> = HashMap::new();
        for (position, handler) in handlers.iter().enumerate() {
            for call in handler.calls() {
                wanted.entry(call.number).or_default().push(position);
            }
        }
        Self { listener, handlers, wanted }
    }

    /// Answers until nobody asks any more.
    pub(super) fn run(mut self) {
        loop {
            let call = match self.listener.next() {
                Ok(Some(call)) => call,
                Ok(None) => continue,
                Err(_) => return,
            };
            let sent = match self.judge(&call) {
                Ok(Verdict::Pass) => self.listener.pass(&call),
                Ok(Verdict::Value(value)) => self.listener.answer(&call, Ok(value)),
                Ok(Verdict::File(file, close_on_exec)) => self.listener.give(&call, &file, close_on_exec),
                Err(error) => self.listener.answer(&call, Err(error)),
            };
            // Without an answer the command would wait for ever; without a listener its calls fail.
            if sent.is_err() {
                return;
            }
        }
    }

    fn judge(&mut self, call: &Call) -> Result<Verdict, Errno> {
        let caller = Caller::new(&self.listener, call);
        if Some(call.architecture) != ARCHITECTURE {
            let concerned = self.handlers.iter_mut().filter(|handler| handler.refuses_foreign());
            concerned.for_each(|handler| handler.foreign());
            return Ok(Verdict::Pass);
        }
        for position in self.wanted.get(&(call.number as u32)).into_iter().flatten() {
            match self.handlers[*position].answer(call, &caller)? {
                Verdict::Pass => {}
                decided => return Ok(decided),
            }
        }
        Ok(Verdict::Pass)
    }
}
