//! Standard output, which holds the documented lines and nothing else.

use std::io::{self, Write as _};

/// Prints a line and flushes: who waits for it in a pipe gets it now.
///
/// # Errors
/// When nobody reads any more. A server goes on serving then; a program that only prints ends.
pub fn line(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}

/// A line on stderr that no `RUST_LOG` can silence, for what the user must see.
pub fn notice(text: &str) {
    // Nobody is there to be told that stderr is closed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}
