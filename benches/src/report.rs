//! The table at the end of a benchmark.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use crate::Pairs;

/// One result beside what it is measured against.
#[derive(Debug)]
pub struct Row {
    what: String,
    ours: String,
    against: String,
    ratio: String,
    goal: Option<f64>,
    met: bool,
}

impl Row {
    /// The medians of pairs of times in seconds, their ratio and, in brackets, the middle half of the
    /// ratios. Without a goal it is there for information.
    pub fn times(what: impl Into<String>, pairs: &Pairs, goal: Option<f64>) -> Self {
        if pairs.is_empty() {
            let [ours, against, ratio] = ["", "", "not run"].map(str::to_owned);
            return Self { what: what.into(), ours, against, ratio, goal: None, met: true };
        }
        let (low, ratio, high) = (pairs.ratio(25), pairs.ratio(50), pairs.ratio(75));
        Self {
            what: what.into(),
            ours: time(pairs.ours()),
            against: time(pairs.floor()),
            ratio: format!("{ratio:.2} ({low:.2}-{high:.2})"),
            goal,
            met: goal.is_none_or(|goal| ratio <= goal),
        }
    }

    /// Two numbers with their units, and their ratio.
    pub fn numbers(
        what: impl Into<String>,
        ours: f64,
        against: f64,
        shown: fn(f64) -> String,
        goal: Option<f64>,
    ) -> Self {
        let ratio = ours / against;
        Self {
            what: what.into(),
            ours: shown(ours),
            against: shown(against),
            ratio: format!("{ratio:.2}"),
            goal,
            met: goal.is_none_or(|goal| ratio <= goal),
        }
    }
}

/// All results of one benchmark.
#[derive(Debug)]
pub struct Report {
    title: String,
    ours: &'static str,
    against: &'static str,
    rows: Vec<Row>,
}

impl Report {
    /// An empty one; `ours` and `against` say what the two columns of numbers are.
    pub fn new(title: impl Into<String>, ours: &'static str, against: &'static str) -> Self {
        Self { title: title.into(), ours, against, rows: Vec::new() }
    }

    /// Adds a result.
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// The table as text.
    pub fn render(&self) -> String {
        let head = ["", self.ours, self.against, "ratio", "goal", "met"].map(str::to_owned);
        let lines = self.rows.iter().map(|row| {
            let goal = row.goal.map_or(String::new(), |goal| format!("<= {goal:.2}"));
            let met = match (row.goal, row.met) {
                (None, _) => "",
                (_, true) => "yes",
                (_, false) => "NO",
            };
            [row.what.as_str(), &row.ours, &row.against, &row.ratio, &goal, met].map(str::to_owned)
        });
        let lines: Vec<[String; 6]> = std::iter::once(head).chain(lines).collect();
        let width = |column: usize| {
            lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
        };
        let widths: [usize; 6] = std::array::from_fn(width);
        let mut text = format!("\n{}\n", self.title);
        for line in &lines {
            let mut shown = String::new();
            for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
                // Words to the left, numbers to the right.
                let _ = match column {
                    0 => write!(shown, "{cell:<width$}"),
                    _ => write!(shown, "  {cell:>width$}"),
                };
            }
            text.push_str(shown.trim_end());
            text.push('\n');
        }
        text
    }

    /// Prints the table. A goal that was missed is a failure, if `counts`.
    pub fn finish(self, counts: bool) -> ExitCode {
        if self.show(counts) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Prints the table; `false` if a goal was missed, and that `counts`.
    pub fn show(self, counts: bool) -> bool {
        let missed = self.rows.iter().filter(|row| !row.met).count();
        let mut text = self.render();
        if !counts {
            text.push_str("(a trial run: the numbers mean nothing)\n");
        } else if missed > 0 {
            let _ = writeln!(text, "{missed} goal(s) missed");
        }
        // Nobody to read it is no failure of the benchmark.
        let _ = std::io::stdout().write_all(text.as_bytes());
        !(counts && missed > 0)
    }
}

/// Seconds for people to read.
pub fn time(seconds: f64) -> String {
    for (unit, size) in [("s", 1.0), ("ms", 1e-3), ("us", 1e-6)] {
        if seconds >= size {
            return format!("{:.3} {unit}", seconds / size);
        }
    }
    format!("{:.0} ns", seconds / 1e-9)
}

/// A mere number of things.
pub fn number(number: f64) -> String {
    format!("{number:.0}")
}

/// A share for people to read.
pub fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// Many bytes for people to read.
pub fn megabytes(bytes: f64) -> String {
    format!("{:.2} MB", bytes / 1e6)
}

/// Bytes for people to read, exact to a tenth.
pub fn bytes(bytes: f64) -> String {
    format!("{bytes:.1} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_with_a_fitting_unit() {
        let shown: Vec<String> = [2.5, 0.0125, 0.000_25, 0.000_000_3].map(time).to_vec();
        assert_eq!(shown, ["2.500 s", "12.500 ms", "250.000 us", "300 ns"]);
    }

    #[test]
    fn a_missed_goal_is_seen_and_a_row_without_goal_cannot_miss() {
        let mut report = Report::new("title", "ours", "floor");
        report.add(Row::numbers("within", 2.0, 1.0, bytes, Some(2.0)));
        report.add(Row::numbers("for information", 9.0, 1.0, bytes, None));
        assert!(!report.render().contains("NO"));
        report.add(Row::numbers("missed", 2.1, 1.0, bytes, Some(2.0)));
        let text = report.render();
        let line = text.lines().last().unwrap();
        assert!(line.starts_with("missed") && line.contains(" 2.10 "), "{line}");
        assert!(line.ends_with("NO"), "{line}");
        report.add(Row::times("left out", &Pairs::default(), Some(2.0)));
        let text = report.render();
        let line = text.lines().last().unwrap();
        assert!(line.starts_with("left out") && line.ends_with("not run"), "{line}");
    }
}
