//! Options: the command line wins over `DISCOVERY_ETCD`, which wins over the file of `--config`.
//!
//! The definitions of the options are clap's alone. A file is turned into arguments and put before
//! those of the command line, so that a name, a range or a default is written once and a value is
//! refused with the same words wherever it stood.

mod file;
mod values;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, Error};

use crate::fault::Fault;

pub use values::{advertised, etcd_url, fraction, seconds, suspect_seconds};

/// The variable that names etcd's addresses.
pub const ETCD_VARIABLE: &str = "DISCOVERY_ETCD";

/// The two options of which the one asks for etcd and the other does without.
const ETCD: &str = "etcd";
const DEMO: &str = "demo";

/// What the arguments ask for.
#[derive(Debug)]
pub enum Parsed<P> {
    /// To run with these options.
    Run(P),
    /// To print this text.
    Help(String),
}

/// Puts the options together. `args` begins with the program's name; `etcd` is the value of
/// [`ETCD_VARIABLE`].
///
/// # Errors
/// [`Fault::Usage`] names the option or the file, and the value.
pub fn parse<P: clap::Parser>(
    args: impl IntoIterator<Item = OsString>,
    etcd: Option<OsString>,
) -> Result<Parsed<P>, Fault> {
    let command = accepting_negative_numbers(P::command());
    let args: Vec<OsString> = args.into_iter().collect();
    let first = match matches(&command, args.clone()) {
        Ok(first) => first,
        Err(error)
            if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) =>
        {
            return Ok(Parsed::Help(error.render().to_string()));
        }
        Err(error) => return Err(Fault::usage(first_part(&error))),
    };

    let mut lower = Lower::default();
    if let Ok(Some(path)) = first.try_get_one::<PathBuf>("config") {
        let named = |reason: String| Fault::option("--config", path.display(), reason);
        lower.file = file::arguments(path, &command).map_err(&named)?;
        let alone = lower.file.iter().map(|(_, argument)| argument.clone());
        let alone = args.first().cloned().into_iter().chain(alone);
        matches(&command, alone.collect()).map_err(|error| named(first_part(&error)))?;
    }
    let decided = given(&first, ETCD) || given(&first, DEMO);
    let wanted = first.try_contains_id(ETCD).is_ok() && !decided;
    lower.variable = etcd.filter(|value| wanted && !value.is_empty());
    if let Some(value) = &lower.variable {
        let alone = args.first().cloned().into_iter().chain([joined(ETCD, value)]);
        matches(&command, alone.collect())
            .map_err(|error| Fault::option(ETCD_VARIABLE, value.display(), reason(&error)))?;
    }
    let mut all = args.clone();
    all.splice(args.len().min(1)..args.len().min(1), lower.under(&first));
    let all = matches(&command, all).map_err(|error| Fault::usage(first_part(&error)))?;
    let parsed = P::from_arg_matches(&all).map_err(|error| Fault::usage(first_part(&error)))?;
    Ok(Parsed::Run(parsed))
}

fn matches(command: &Command, args: Vec<OsString>) -> Result<ArgMatches, Error> {
    command.clone().try_get_matches_from(args)
}

/// What stands below the command line.
#[derive(Default)]
struct Lower {
    /// The variable's value, if it counts.
    variable: Option<OsString>,
    /// Each option's name and the argument that sets it.
    file: Vec<(String, OsString)>,
}

impl Lower {
    /// The arguments that count beside those of the command line.
    fn under(self, command_line: &ArgMatches) -> Vec<OsString> {
        let given = |name: &str| given(command_line, name);
        // Where to find the instances is one choice, made by who speaks with the most weight.
        let decided = given(ETCD) || given(DEMO) || self.variable.is_some();
        let counts = |name: &str| !(given(name) || decided && (name == ETCD || name == DEMO));
        let file = self.file.into_iter().filter(|(name, _)| counts(name));
        let variable = self.variable.map(|value| joined(ETCD, &value));
        file.map(|(_, argument)| argument).chain(variable).collect()
    }
}

/// Whether the command line has the option.
fn given(command_line: &ArgMatches, name: &str) -> bool {
    // Not every program has every option.
    command_line.try_contains_id(name).is_ok()
        && command_line.value_source(name) == Some(ValueSource::CommandLine)
}

/// So that `--ttl -1` is a bad value of `--ttl` and not an option `-1` that nobody knows.
fn accepting_negative_numbers(command: Command) -> Command {
    command.mut_args(|option| {
        let takes_value = option.get_action().takes_values();
        option.allow_negative_numbers(takes_value)
    })
}

/// `--name=value`.
fn joined(name: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut argument = OsString::from(format!("--{name}="));
    argument.push(value);
    argument
}

/// What is wrong with a value, without the option that clap was told to take it for.
fn reason(error: &Error) -> String {
    std::error::Error::source(error).map_or_else(|| first_part(error), ToString::to_string)
}

/// clap's message without the hints that follow it.
fn first_part(error: &Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let ends = ["\n\n  tip: ", "\n\nUsage: ", "\n\nFor more information"];
    let end = ends.iter().filter_map(|end| text.rfind(end)).min();
    text[..end.unwrap_or(text.len())].to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Example {
        #[arg(long)]
        config: Option<PathBuf>,
        #[arg(long, value_delimiter = ',', value_parser = etcd_url)]
        etcd: Vec<String>,
        #[arg(long)]
        demo: bool,
        #[arg(long, default_value_t = 15)]
        ttl: u64,
        #[arg(long, default_value_t = 0.0, value_parser = fraction)]
        fail_rate: f64,
    }

    fn parsed(args: &[&str], variable: &str) -> Result<Example, String> {
        let args = ["example"].iter().chain(args).map(OsString::from);
        match parse(args, Some(variable.into())) {
            Ok(Parsed::Run(example)) => Ok(example),
            Ok(Parsed::Help(text)) => Err(text),
            Err(fault) => Err(fault.to_string()),
        }
    }

    /// The same with a file of this content after the arguments.
    fn with_file(content: &str, args: &[&str], variable: &str) -> Result<Example, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap();
        parsed(&[args, &["--config", path]].concat(), variable)
    }

    fn etcd(example: &Example) -> String {
        example.etcd.join(" ")
    }

    #[test]
    fn the_command_line_wins_over_the_variable_over_the_file() {
        let file = "etcd = ['http://file:1', 'http://file:2']\nttl = 7\nfail-rate = 1\n";
        let example = with_file(file, &[], "").unwrap();
        assert_eq!(etcd(&example), "http://file:1 http://file:2");
        assert_eq!((example.ttl, example.fail_rate), (7, 1.0));
        let example = with_file(file, &["--ttl=8"], "http://variable:1").unwrap();
        assert_eq!((etcd(&example).as_str(), example.ttl), ("http://variable:1", 8));
        let example = with_file(file, &["--etcd", "http://line:1"], "http://variable:1").unwrap();
        assert_eq!(etcd(&example), "http://line:1");
        let example = with_file("etcd = 'http://a:1,http://b:1'", &[], "").unwrap();
        assert_eq!(etcd(&example), "http://a:1 http://b:1");
    }

    #[test]
    fn the_choice_between_demo_and_etcd_is_one() {
        let example = parsed(&["--demo"], "http://variable:1").unwrap();
        assert_eq!((example.demo, etcd(&example).as_str()), (true, ""));
        let example = with_file("etcd = 'http://a:1'", &["--demo"], "").unwrap();
        assert_eq!((example.demo, etcd(&example).as_str()), (true, ""));
        let example = with_file("demo = true", &["--etcd=http://a:1"], "").unwrap();
        assert_eq!((example.demo, etcd(&example).as_str()), (false, "http://a:1"));
        let example = with_file("demo = true", &[], "").unwrap();
        assert!(example.demo);
        assert!(!with_file("demo = false", &[], "").unwrap().demo);
        // Both at one place: for the program to refuse.
        let example = parsed(&["--demo", "--etcd=http://a:1"], "").unwrap();
        assert_eq!((example.demo, etcd(&example).as_str()), (true, "http://a:1"));
    }

    #[test]
    fn what_is_wrong_is_named_in_one_line() {
        let wrong = |args: &[&str], parts: &[&str]| {
            let line = parsed(args, "").unwrap_err();
            assert!(parts.iter().all(|part| line.contains(part)), "{args:?}: {line}");
            assert!(!line.contains('\n') && !line.starts_with("error"), "{args:?}: {line}");
        };
        wrong(&["--ttl", "x"], &["--ttl", "'x'"]);
        wrong(&["--ttl", "-1"], &["--ttl", "'-1'"]);
        wrong(&["--fail-rate", "-0.5"], &["--fail-rate", "'-0.5'"]);
        wrong(&["--demo", "-1"], &["'-1'"]);
        wrong(&["--ttl"], &["--ttl"]);
        wrong(&["--ttl", "--demo"], &["--ttl", "value is required"]);
        wrong(&["--ttl", "x\n\ny"], &["--ttl", "x y"]);
        wrong(&["--tl", "1"], &["--tl"]);
        wrong(&["extra"], &["extra"]);
        wrong(&["--fail-rate=1.1"], &["--fail-rate", "1.1"]);
        wrong(&["--etcd", "http://a:1,ftp://b"], &["--etcd", "ftp://b"]);
        wrong(&["--config", "/nowhere/x.toml"], &["--config", "/nowhere/x.toml", "No such file"]);
        let wrong = |file: &str, parts: &[&str]| {
            let line = with_file(file, &[], "").unwrap_err();
            assert!(parts.iter().all(|part| line.contains(part)), "{file:?}: {line}");
            assert!(line.contains("--config /") && !line.contains('\n'), "{file:?}: {line}");
        };
        wrong("\nttl = ", &["line 2"]);
        wrong("tll = 1", &["tll", "not known"]);
        wrong("fail_rate = 1", &["fail_rate", "not known"]);
        wrong("config = 'x'", &["config", "not known"]);
        wrong("ttl = 'x'", &["--ttl", "'x'"]);
        wrong("ttl = 1.5", &["--ttl", "1.5"]);
        wrong("ttl = [1]", &["ttl", "array"]);
        wrong("etcd = [1]", &["etcd", "strings"]);
        wrong("demo = 1", &["demo", "true or false"]);
        wrong("[ttl]\nx = 1", &["ttl", "table"]);
    }

    #[test]
    fn what_is_wrong_in_the_variable_is_named_with_the_variable() {
        let line = parsed(&[], "http://a:1,ftp://b:1").unwrap_err();
        assert!(line.starts_with("DISCOVERY_ETCD http://a:1,ftp://b:1: "), "{line}");
        assert!(line.contains("\"ftp\"") && !line.contains("--etcd"), "{line}");
        // Only if it counts.
        assert!(parsed(&["--etcd=http://a:1"], "nonsense").is_ok());
        assert!(parsed(&["--demo"], "nonsense").is_ok());
    }

    #[test]
    fn help_is_no_fault() {
        assert!(parsed(&["--ttl", "1", "--help"], "").unwrap_err().contains("Usage: example"));
    }
}
