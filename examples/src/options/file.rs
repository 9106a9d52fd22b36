//! From a TOML file to arguments.

use std::ffi::OsString;
use std::path::Path;

use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

/// The arguments that say what the file says, each with the name of its option.
///
/// The error says what is wrong with the file, without its name.
pub(super) fn arguments(path: &Path, command: &Command) -> Result<Vec<(String, OsString)>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let table: Table = text.parse().map_err(|error| parse_error(&text, &error))?;
    let mut arguments = Vec::new();
    for (key, value) in table {
        let option = option(command, &key).ok_or_else(|| format!("key {key:?} is not known"))?;
        if let Some(argument) = argument(option, &key, &value)? {
            arguments.push((key, argument));
        }
    }
    Ok(arguments)
}

fn option<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    let mut options = command.get_arguments();
    options
        .find(|option| option.get_long() == Some(key) && key != "config" && !asks_for_help(option))
}

fn asks_for_help(option: &Arg) -> bool {
    !matches!(option.get_action(), ArgAction::Set | ArgAction::Append | ArgAction::SetTrue)
}

/// `None` for what an option says by its absence.
fn argument(option: &Arg, key: &str, value: &Value) -> Result<Option<OsString>, String> {
    if matches!(option.get_action(), ArgAction::SetTrue) {
        return match value {
            Value::Boolean(true) => Ok(Some(format!("--{key}").into())),
            Value::Boolean(false) => Ok(None),
            _ => Err(format!("key {key:?} must be true or false")),
        };
    }
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Array(parts) if option.get_value_delimiter().is_some() => {
            let parts = parts.iter().map(Value::as_str).collect::<Option<Vec<_>>>();
            parts.ok_or_else(|| format!("key {key:?} must be an array of strings"))?.join(",")
        }
        other => return Err(format!("key {key:?} cannot be of type {}", other.type_str())),
    };
    Ok(Some(super::joined(key, text)))
}

fn parse_error(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map(|before| format!("line {}: ", before.matches('\n').count() + 1));
    format!("{}{}", line.unwrap_or_default(), error.message())
}
