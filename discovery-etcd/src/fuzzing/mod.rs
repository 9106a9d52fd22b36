//! What must hold of foreign bytes, whatever they are: called by the targets in `fuzz/`, and by tests
//! with each file of their corpora. Built for these two alone.
//!
//! Each says whether the bytes were good.

mod config;
mod format;
mod translate;

use std::fmt::Display;

pub use config::config;
pub use format::{heartbeat, native};
pub use translate::translate;

/// The text can stand in a log: it is one line, and not a long one.
fn one_line(text: &dyn Display, longest: usize) {
    let text = text.to_string();
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    assert!(!text.is_empty() && !text.contains(breaks), "{text:?}");
    assert!(text.chars().count() <= longest, "{} characters", text.chars().count());
}

#[cfg(test)]
mod tests {
    use discovery_test_support::replay;

    use super::*;

    #[test]
    fn the_corpus_of_native_values() {
        replay("native", native);
    }

    #[test]
    fn the_corpus_of_heartbeats() {
        replay("heartbeat", heartbeat);
    }

    #[test]
    fn the_corpus_of_configurations() {
        replay("config", config);
    }

    #[test]
    fn the_corpus_of_lists_and_events() {
        replay("translate", translate);
    }
}
