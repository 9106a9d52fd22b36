//! Which etcd there is to test against, and where its binary lies.
//!
//! Both versions are meant to be there, but a machine with one of them can still run the tests of it.

use std::{
    collections::BTreeMap,
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// A line of etcd releases that the project is tested against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// etcd 3.5.
    V3_5,
    /// etcd 3.4.
    V3_4,
}

impl Version {
    const ALL: [Self; 2] = [Self::V3_5, Self::V3_4];

    /// What names this version in the environment: `35` or `34`.
    const fn digits(self) -> &'static str {
        match self {
            Self::V3_5 => "35",
            Self::V3_4 => "34",
        }
    }

    /// The line that a release such as `3.5.1` belongs to.
    fn of(release: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| release.starts_with(&format!("{known}.")))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V3_5 => "3.5",
            Self::V3_4 => "3.4",
        })
    }
}

/// The versions that can be run here, newest first.
///
/// # Panics
///
/// If there is none, saying how to get one; or if a variable names a binary that does not run.
pub fn versions() -> Vec<Version> {
    let found: Vec<_> = binaries().keys().copied().collect();
    assert!(
        !found.is_empty(),
        "no etcd to test against: run ./scripts/setup, or set ETCD_BIN to an etcd 3.5 or 3.4"
    );
    found
}

/// The binary of `version`.
///
/// # Panics
///
/// If there is none.
pub fn binary(version: Version) -> &'static Path {
    binaries().get(&version).unwrap_or_else(|| {
        panic!(
            "no etcd {version} to test against: run ./scripts/setup, or set DISCOVERY_TEST_ETCD_{}",
            version.digits()
        )
    })
}

/// Everything found, looked up once: asking a binary for its version starts a process.
fn binaries() -> &'static BTreeMap<Version, PathBuf> {
    static FOUND: OnceLock<BTreeMap<Version, PathBuf>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let given: BTreeMap<_, _> = Version::ALL
            .into_iter()
            .filter_map(|version| {
                Some((version, named(&format!("DISCOVERY_TEST_ETCD_{}", version.digits()))?))
            })
            .collect();
        if !given.is_empty() {
            return given;
        }
        if let Some(path) = named("ETCD_BIN") {
            let release =
                ask(&path).unwrap_or_else(|| panic!("ETCD_BIN={} is no etcd", path.display()));
            // Somebody who asks for a newer one wants to know whether it does as well.
            return BTreeMap::from([(Version::of(&release).unwrap_or(Version::V3_5), path)]);
        }
        let mut found = parse_versions(read_setup(&cache().join("env")));
        if let Some(path) = on_path("etcd")
            && let Some(version) = ask(&path).and_then(|release| Version::of(&release))
        {
            found.insert(version, path);
        }
        found
    })
}

/// Where `scripts/setup` keeps what it got.
pub(crate) fn cache() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.join(env::var_os("DISCOVERY_CACHE").unwrap_or_else(|| ".cache".into()))
}

/// The file that `variable` names. A name that leads nowhere is a mistake to hear about, not to skip.
pub(crate) fn named(variable: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os(variable).filter(|value| !value.is_empty())?);
    let is_name = path.components().count() == 1;
    let found = path.to_str().filter(|_| is_name).and_then(on_path).unwrap_or_else(|| path.clone());
    let absolute = fs::canonicalize(found)
        .unwrap_or_else(|error| panic!("{variable}={} cannot be used: {error}", path.display()));
    Some(absolute)
}

pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Asks a binary for its release, such as `3.5.1`. `None` if it is no etcd.
fn ask(binary: &Path) -> Option<String> {
    let output = Command::new(binary)
        .arg("--version")
        .output()
        .unwrap_or_else(|error| panic!("cannot run {} --version: {error}", binary.display()));
    release(&String::from_utf8_lossy(&output.stdout)).map(str::to_owned)
}

fn release(printed: &str) -> Option<&str> {
    printed.lines().find_map(|line| line.strip_prefix("etcd Version: "))
}

/// What `scripts/setup` wrote down: lines like `export ETCD_35=/path`.
pub(crate) fn read_setup(file: &Path) -> BTreeMap<String, PathBuf> {
    fs::read_to_string(file).map(|text| parse_setup(&text)).unwrap_or_default()
}

fn parse_setup(text: &str) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let line = line.trim();
        let Some((name, value)) = line.strip_prefix("export ").unwrap_or(line).split_once('=')
        else {
            continue;
        };
        // The shell's own quoting, of which a path to a binary shows no more than a backslash.
        let path = PathBuf::from(value.trim_matches(['"', '\'']).replace('\\', ""));
        // The setup may have been removed with the rest of the cache since the file was written.
        if path.is_file() {
            found.insert(name.to_owned(), path);
        }
    }
    found
}

fn parse_versions(setup: BTreeMap<String, PathBuf>) -> BTreeMap<Version, PathBuf> {
    let version = |name: &str| {
        Version::ALL.into_iter().find(|version| {
            name.strip_suffix(version.digits()).is_some_and(|it| it.ends_with("ETCD_"))
        })
    };
    setup.into_iter().filter_map(|(name, path)| Some((version(&name)?, path))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_etcd_prints() {
        let printed = "etcd Version: 3.5.1\nGit SHA: e8732fb5f\nGo Version: go1.16.3\n";
        assert_eq!(release(printed), Some("3.5.1"));
        assert_eq!(release("something else"), None);
        assert_eq!(Version::of("3.5.1"), Some(Version::V3_5));
        assert_eq!(Version::of("3.4.23"), Some(Version::V3_4));
        assert_eq!(Version::of("3.51.0"), None);
    }

    #[test]
    fn the_setup_file_is_read_as_a_shell_would() {
        let here = env::current_exe().expect("a running test has a binary");
        let text = format!(
            "# comment\nexport ETCD_35=\"{0}\"\nDISCOVERY_TEST_ETCD_34='{0}'\nexport PATH=\"$PATH:/x\"\n",
            here.display()
        );
        let found = parse_versions(parse_setup(&text));
        assert_eq!(found.get(&Version::V3_5), Some(&here));
        assert_eq!(found.get(&Version::V3_4), Some(&here));
        assert!(parse_setup("export ETCD_35=/nowhere/etcd\n").is_empty());
    }
}
