//! Progress as often as eyes and logs can use it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::build::{Event, Reporter};

/// Between two events that differ only in how far something has got.
const PAUSE: Duration = Duration::from_millis(50);

/// What an action said last of its progress.
type Said = (Instant, usize, String, Option<(u64, u64)>);

/// Passes events on, without progress that says nothing new.
pub(super) struct Paced {
    reporter: Arc<dyn Reporter>,
    said: Mutex<Option<Said>>,
}

impl Paced {
    pub(super) fn new(reporter: Arc<dyn Reporter>) -> Self {
        Self { reporter, said: Mutex::default() }
    }

    /// Whether progress is worth passing on.
    fn is_news(&self, step: usize, message: &str, fraction: Option<(u64, u64)>) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, same_step, same_message, same_fraction)) = &*said
            && (step, message) == (*same_step, same_message.as_str())
        {
            let whole = fraction.is_some_and(|(done, all)| done == all);
            if fraction == *same_fraction || (when.elapsed() < PAUSE && !whole) {
                return false;
            }
        }
        *said = Some((Instant::now(), step, message.to_owned(), fraction));
        true
    }
}

impl Reporter for Paced {
    fn report(&self, event: Event) {
        if let Event::Progress { step, message, fraction } = &event
            && !self.is_news(*step, message, *fraction)
        {
            return;
        }
        self.reporter.report(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Heard(Mutex<Vec<(String, u64)>>);

    impl Reporter for Heard {
        fn report(&self, event: Event) {
            if let Event::Progress { message, fraction: Some((done, _)), .. } = event {
                self.0.lock().unwrap().push((message, done));
            }
        }
    }

    #[test]
    fn repeats_are_dropped_and_ends_are_not() {
        let heard = Arc::new(Heard(Mutex::default()));
        let paced = Paced::new(heard.clone());
        let messages = [("packing", 0), ("packing", 0), ("packing", 1), ("packing", 9), ("packing", 9), ("done", 9)];
        for (message, done) in messages {
            paced.report(Event::Progress { step: 1, message: message.into(), fraction: Some((done, 9)) });
        }
        let expected = [("packing", 0), ("packing", 9), ("done", 9)].map(|(message, done)| (message.to_owned(), done));
        assert_eq!(*heard.0.lock().unwrap(), expected);
    }
}
