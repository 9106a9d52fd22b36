//! Where etcd keeps its data during a test: a directory of its own, in memory if there is room.
//!
//! etcd waits for the disk at every write. In memory that costs nothing, and a test does not fail because
//! another one kept the disk busy. A test process that was killed leaves its directory behind; the next
//! one that starts removes it.

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    sync::Once,
    time::{Duration, SystemTime},
};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

const PREFIX: &str = "discovery-test-";
const LOCK: &str = "lock";
/// etcd reserves 128 MiB at once, and a container's shared memory is often smaller than that.
const ENOUGH_MEMORY: u64 = 2 << 30;
/// A directory is made a moment before it is locked.
const YOUNG: Duration = Duration::from_secs(60);

/// A directory that is gone when this is dropped, or when the next test process starts.
#[derive(Debug)]
pub(crate) struct DataDir {
    dir: TempDir,
    _lock: File,
}

impl DataDir {
    pub(crate) fn new() -> Self {
        static SWEEP: Once = Once::new();
        let base = base();
        SWEEP.call_once(|| sweep(&base, YOUNG));
        let mut dir =
            tempfile::Builder::new().prefix(PREFIX).tempdir_in(&base).unwrap_or_else(|error| {
                panic!("cannot make a directory in {}: {error}", base.display())
            });
        dir.disable_cleanup(env::var_os("DISCOVERY_TEST_KEEP").is_some());
        let lock = File::create(dir.path().join(LOCK)).expect("a new directory takes a file");
        flock(&lock, FlockOperation::NonBlockingLockExclusive).expect("a new file can be locked");
        Self { dir, _lock: lock }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

fn base() -> PathBuf {
    let memory = Path::new("/dev/shm");
    match rustix::fs::statvfs(memory) {
        Ok(stat) if stat.f_bavail.saturating_mul(stat.f_frsize) > ENOUGH_MEMORY => {
            memory.to_path_buf()
        }
        _ => env::temp_dir(),
    }
}

/// Removes what dead test processes left: directories whose lock nobody holds.
fn sweep(base: &Path, young: Duration) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let ours = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with(PREFIX));
        if !ours || age(&path).is_none_or(|age| age < young) {
            continue;
        }
        // What cannot be opened or locked belongs to somebody, and what cannot be removed does no harm.
        let Ok(lock) = File::open(path.join(LOCK)) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            fs::remove_dir_all(&path).ok();
        }
    }
}

fn age(path: &Path) -> Option<Duration> {
    SystemTime::now().duration_since(fs::metadata(path).ok()?.modified().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_removed_with_its_owner() {
        let data = DataDir::new();
        let path = data.path().to_path_buf();
        assert!(path.is_dir());
        drop(data);
        assert!(!path.exists());
    }

    #[test]
    fn only_what_a_dead_process_left_is_swept() {
        let base = TempDir::new().expect("a temporary directory");
        let make = |name: &str| {
            let path = base.path().join(name);
            fs::create_dir(&path).expect("a new directory");
            let lock = File::create(path.join(LOCK)).expect("a new file");
            (path, lock)
        };
        let (dead, lock) = make("discovery-test-dead");
        drop(lock);
        let (alive, lock) = make("discovery-test-alive");
        flock(&lock, FlockOperation::NonBlockingLockExclusive).expect("a new file can be locked");
        let (foreign, _) = make("something-else");

        sweep(base.path(), YOUNG);
        assert!(dead.exists(), "it may be about to be locked");

        sweep(base.path(), Duration::ZERO);
        assert!(!dead.exists());
        assert!(alive.exists());
        assert!(foreign.exists());
        drop(lock);
    }
}
