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
    use std::path::Path;

    use super::*;

    /// Replays a corpus. Some of its files are good, and some are not.
    fn replay(target: &str, check: fn(&[u8]) -> bool) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let (mut good, mut bad) = (0, 0);
        for file in std::fs::read_dir(&corpus).unwrap() {
            let path = file.unwrap().path();
            let checked = std::panic::catch_unwind(|| check(&std::fs::read(&path).unwrap()));
            let is_good = checked.unwrap_or_else(|_| panic!("with {}", path.display()));
            *(if is_good { &mut good } else { &mut bad }) += 1;
        }
        assert!(good >= 5 && bad >= 5, "{target}: {good} good, {bad} bad");
    }

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
