//! The files: where they are, how one is read, and how it is written so that nobody ever sees half.
//! All of this blocks.

use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::BuildHasher as _;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::LastGoodOptions;
use super::format::{Saved, Subject, Unusable, decode, encode, sum};
use crate::{Instance, ServiceName};

/// How every file's name ends …
const ENDING: &str = ".last-good";
/// … and how that of one ends that is being written.
const UNFINISHED: &str = ".last-good.tmp";

/// A name that is longer is shortened: most file systems take 255 bytes.
const LONGEST_NAME: usize = 128;

/// No set is so large; whatever is, is not ours.
const LARGEST: u64 = 1 << 30;

/// Nobody takes so long to write a file.
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);

/// Where the set of one watch is kept.
#[derive(Clone, Debug)]
pub(super) struct Place {
    directory: PathBuf,
    name: String,
    subject: Subject,
    max_age: Duration,
}

impl Place {
    pub(super) fn new(options: &LastGoodOptions, service: Option<&ServiceName>) -> Self {
        let name = match service.map(ServiceName::as_str) {
            None => "all".to_owned(),
            Some(name) if name.len() <= LONGEST_NAME => format!("service.{name}"),
            // No service's name has a tilde.
            Some(name) => format!("service.{:.LONGEST_NAME$}~{:016x}", name, sum(name.as_bytes())),
        };
        Self {
            directory: options.directory.clone(),
            name,
            subject: Subject { source: options.source_name.clone(), service: service.cloned() },
            max_age: options.max_age,
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(format!("{}{ENDING}", self.name))
    }

    /// The set that was saved; `None` if none was.
    pub(super) fn read(&self, now: SystemTime) -> Result<Option<Saved>, Unusable> {
        let path = self.path();
        // Looked at first: to open a pipe would wait for somebody to write to it.
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Err(Unusable::NotAFile),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let mut bytes = Vec::new();
        File::open(&path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST {
            return Err(Unusable::TooLarge(LARGEST));
        }
        decode(&bytes, &self.subject, now, self.max_age).map(Some)
    }

    /// Saves the set. Whatever happens meanwhile, the file is the former one or this one.
    pub(super) fn write<I: AsRef<Instance>>(&self, set: &[I], now: SystemTime) -> io::Result<()> {
        let bytes = encode(&self.subject, set, now)?;
        make_directory(&self.directory)?;
        let (unfinished, file) = self.create_unfinished()?;
        let done = finish(file, &bytes).and_then(|()| fs::rename(&unfinished, self.path()));
        if done.is_err() {
            // What cannot be removed either is found by `prepare`.
            let _ = fs::remove_file(&unfinished);
        }
        done?;
        sync_directory(&self.directory)
    }

    /// A new file that nobody else writes to, in this process or another one.
    fn create_unfinished(&self) -> io::Result<(PathBuf, File)> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            // By chance, since processes in different containers can have the same id.
            let chance = RandomState::new().hash_one(COUNT.fetch_add(1, Ordering::Relaxed));
            let path = self.directory.join(format!(".{}.{chance:016x}{UNFINISHED}", self.name));
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            match options.open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                opened => return opened.map(|file| (path, file)),
            }
        }
    }
}

fn finish(mut file: File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes the directory if need be, and removes what writers that were killed left in it.
pub(super) fn prepare(directory: &Path) -> io::Result<()> {
    make_directory(directory)?;
    let now = SystemTime::now();
    for entry in fs::read_dir(directory)?.flatten() {
        let name = entry.file_name();
        let is_ours = name.as_encoded_bytes().starts_with(b".") && ends_with(&name, UNFINISHED);
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        let age = changed.ok().and_then(|changed| now.duration_since(changed).ok());
        if is_ours && age.is_some_and(|age| age > ABANDONED_AFTER) {
            // Another process may have been faster.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

fn ends_with(name: &OsStr, ending: &str) -> bool {
    name.as_encoded_bytes().ends_with(ending.as_bytes())
}

fn make_directory(directory: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// So that the new name is on the disk, too.
fn sync_directory(directory: &Path) -> io::Result<()> {
    // Elsewhere a directory cannot be opened.
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn place(directory: &Path, service: Option<&str>) -> Place {
        let service = service.map(|name| name.parse().unwrap());
        Place::new(&LastGoodOptions::new(directory), service.as_ref())
    }

    fn set(count: u16) -> Vec<Arc<Instance>> {
        let one = |id: u16| Instance::parse("orders", &id.to_string(), "127.0.0.1:80").unwrap();
        (0..count).map(|id| Arc::new(one(id))).collect()
    }

    fn count(place: &Place) -> Option<usize> {
        place.read(SystemTime::now()).unwrap().map(|saved| saved.set.len())
    }

    fn names(directory: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let names = fs::read_dir(directory).unwrap().map(name);
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn each_watch_has_its_file_whatever_the_service_is_called() {
        let directory = tempfile::tempdir().unwrap();
        let long = "x".repeat(252);
        let services =
            [None, Some("all"), Some("."), Some(".."), Some("a"), Some("a.last-good"), Some(&long)];
        let other_long = format!("{}y", "x".repeat(251));
        let mut count = 0;
        for service in services.into_iter().chain([Some(&*other_long)]) {
            let place = place(directory.path(), service);
            place.write::<Arc<Instance>>(&[], SystemTime::now()).unwrap();
            assert_eq!(place.path().parent().unwrap(), directory.path());
            count += 1;
            assert_eq!(names(directory.path()).len(), count, "{service:?}");
        }
        assert!(names(directory.path()).iter().all(|name| name.len() < 200));
    }

    #[test]
    fn a_write_that_never_ended_leaves_the_former_file_good() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path(), Some("orders"));
        assert_eq!(count(&place), None);
        place.write(&set(2), SystemTime::now()).unwrap();
        // Killed before the rename: the new set is there, whole or in part, under another name.
        let (path, mut file) = place.create_unfinished().unwrap();
        file.write_all(b"discovery last good").unwrap();
        assert_eq!(count(&place), Some(2));
        place.write(&set(3), SystemTime::now()).unwrap();
        assert_eq!(count(&place), Some(3));

        // Cleared away when it is certain that nobody writes to it any more.
        prepare(directory.path()).unwrap();
        assert!(path.exists());
        file.set_modified(SystemTime::now() - ABANDONED_AFTER * 2).unwrap();
        prepare(directory.path()).unwrap();
        assert_eq!(names(directory.path()), ["service.orders.last-good"]);
    }

    #[test]
    fn writers_of_one_file_do_not_mix() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path(), Some("orders"));
        place.write(&set(1), SystemTime::now()).unwrap();
        std::thread::scope(|scope| {
            for writer in 1..=4 {
                let place = &place;
                scope.spawn(move || {
                    for _ in 0..25 {
                        place.write(&set(writer * 100), SystemTime::now()).unwrap();
                    }
                });
            }
            for _ in 0..200 {
                let count = count(&place).unwrap();
                assert!(count == 1 || count.is_multiple_of(100), "{count}");
            }
        });
        assert_eq!(names(directory.path()).len(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn files_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("a/b");
        prepare(&inner).unwrap();
        let place = place(&inner, None);
        place.write(&set(1), SystemTime::now()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&place.path()), mode(&inner)), (0o600, 0o700));
    }

    #[test]
    fn what_is_no_file_is_neither_read_nor_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path(), None);
        fs::create_dir(place.path()).unwrap();
        assert!(matches!(place.read(SystemTime::now()), Err(Unusable::NotAFile)));
        place.write(&set(1), SystemTime::now()).unwrap_err();
        assert_eq!(names(directory.path()), ["all.last-good"], "nothing is left lying about");
        let error = prepare(&directory.path().join("x\0y")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_directory_that_was_removed_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(&directory.path().join("sets"), None);
        for _ in 0..2 {
            place.write(&set(1), SystemTime::now()).unwrap();
            assert_eq!(count(&place), Some(1));
            fs::remove_dir_all(directory.path().join("sets")).unwrap();
        }
    }
}
