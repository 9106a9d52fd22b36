//! The command line.

use crate::report::Style;
use crate::scenario::Scenario;
use crate::subject::Subject;

pub(crate) const USAGE: &str =
    "usage: lab [SCENARIO...] [--seeds N] [--requests N] [--subject NAME]... [--markdown]";

/// What was asked for.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    scenarios: Vec<String>,
    /// Parts of names.
    subjects: Vec<String>,
    pub(crate) seeds: Option<u64>,
    pub(crate) requests: Option<usize>,
    pub(crate) style: Style,
}

impl Arguments {
    pub(crate) fn parse(mut all: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut asked = Self::default();
        while let Some(argument) = all.next() {
            let mut value = || all.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                // Cargo's own.
                "--bench" => (),
                "--markdown" => asked.style = Style::Markdown,
                "--seeds" => asked.seeds = Some(number(&value()?)?),
                "--requests" => asked.requests = Some(number(&value()?)?),
                "--subject" => asked.subjects.push(value()?),
                option if option.starts_with('-') => {
                    return Err(format!("unknown option {option}"));
                }
                name if Scenario::all().iter().any(|scenario| scenario.name == name) => {
                    asked.scenarios.push(argument);
                }
                name => {
                    let known = Scenario::all().iter().map(|one| one.name).collect::<Vec<_>>();
                    return Err(format!("unknown scenario {name}; there are {}", known.join(", ")));
                }
            }
        }
        Ok(asked)
    }

    pub(crate) fn wants(&self, scenario: &Scenario) -> bool {
        self.scenarios.is_empty() || self.scenarios.iter().any(|name| name == scenario.name)
    }

    pub(crate) fn wants_subject(&self, subject: &Subject) -> bool {
        let all = &self.subjects;
        all.is_empty() || all.iter().any(|part| subject.name.contains(part.as_str()))
    }
}

fn number<N: std::str::FromStr + PartialOrd + From<u8>>(text: &str) -> Result<N, String> {
    let parsed = text.replace('_', "").parse().ok().filter(|number| *number >= N::from(1));
    parsed.ok_or_else(|| format!("{text} is no number of at least 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn scenarios_and_subjects_are_chosen_by_name() {
        let asked = parse("slow --subject tower --seeds 3 --requests 10_000 --bench").unwrap();
        let wanted = Scenario::all().into_iter().filter(|one| asked.wants(one));
        assert_eq!(wanted.map(|one| one.name).collect::<Vec<_>>(), ["slow"]);
        let subjects = crate::subjects::all().into_iter().filter(|one| asked.wants_subject(one));
        assert_eq!(subjects.count(), 2);
        assert_eq!((asked.seeds, asked.requests), (Some(3), Some(10_000)));
    }

    #[test]
    fn nothing_asked_is_all() {
        let asked = parse("").unwrap();
        assert!(Scenario::all().iter().all(|one| asked.wants(one)));
        assert!(crate::subjects::all().iter().all(|one| asked.wants_subject(one)));
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for line in ["snail", "--seed 3", "--seeds", "--seeds 0", "--requests many"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
