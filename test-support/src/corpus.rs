//! The corpora of the fuzz targets, for tests that replay them.

use std::{fs, panic, path::Path};

/// Gives `check` each file of the corpus of this fuzz target; it says whether the bytes were good. Of a
/// corpus that is worth something some are, and some are not.
///
/// # Panics
///
/// If `check` does, naming the file; or if there are too few files of either kind.
pub fn replay(target: &str, check: fn(&[u8]) -> bool) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files =
        fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display()));
    let (mut good, mut bad) = (0, 0);
    for file in files {
        let path = file.expect("the corpus can be listed").path();
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let checked = panic::catch_unwind(|| check(&bytes));
        let is_good = checked.unwrap_or_else(|_| panic!("with {}", path.display()));
        *(if is_good { &mut good } else { &mut bad }) += 1;
    }
    assert!(good >= 5 && bad >= 5, "{target}: {good} good, {bad} bad");
}
