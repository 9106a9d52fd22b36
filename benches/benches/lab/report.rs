//! The tables: a scenario each, a balancer a row, as text or as markdown.

use std::fmt::Write as _;

use crate::scenario::{Goal, Metric, Odd, Scenario, Shape};
use crate::subject::Role;
use crate::summary::{Line, limit, missed};

/// How tables are written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Style {
    #[default]
    Text,
    Markdown,
}

/// The table of a scenario.
pub(crate) fn table(scenario: &Scenario, lines: &[Line], style: Style) -> String {
    let columns = columns(scenario);
    let mut rows = vec![head(&columns)];
    rows.extend(lines.iter().map(|line| {
        let mut row = vec![line.subject.clone()];
        row.extend(columns.iter().map(|(shape, metrics)| {
            let shown = metrics.iter().map(|metric| shown(*metric, line.get(*shape, *metric)));
            shown.collect::<Vec<_>>().join(" / ")
        }));
        row.push(verdict(line, scenario, lines));
        row
    }));
    let goals = scenario.goals.iter().filter_map(|goal| {
        Some(format!("{} <= {}", what(*goal), shown(goal.metric, limit(*goal, lines)?)))
    });
    let goals = goals.collect::<Vec<_>>().join("; ");
    let mut text = match style {
        Style::Text => format!("\n{}: {}\n", scenario.name, scenario.about),
        Style::Markdown => format!("\n### `{}`: {}\n\n", scenario.name, scenario.about),
    };
    text.push_str(&laid_out(&rows, style));
    let _ = match style {
        Style::Text => writeln!(text, "goals: {goals}"),
        Style::Markdown => writeln!(text, "\nGoals: {goals}."),
    };
    text
}

type Columns = Vec<(Shape, Vec<Metric>)>;

fn columns(scenario: &Scenario) -> Columns {
    let mut columns = Columns::new();
    for shape in Shape::ALL {
        columns.push((shape, vec![Metric::P50, Metric::P99, Metric::P999]));
        if matches!(scenario.odd, Odd::Fails { .. }) {
            columns.push((shape, vec![Metric::Errors]));
        }
        if scenario.has_odd() {
            columns.push((shape, vec![Metric::Share]));
        }
        if matches!(scenario.odd, Odd::SlowThenRecovers { .. }) {
            columns.push((shape, vec![Metric::Back]));
        }
    }
    columns
}

fn head(columns: &Columns) -> Vec<String> {
    let mut head = vec![String::new()];
    head.extend(columns.iter().map(|(shape, metrics)| {
        let names = metrics.iter().map(|metric| name(*metric));
        format!("{}: {}", shape.name(), names.collect::<Vec<_>>().join(" / "))
    }));
    head.push("goals".to_owned());
    head
}

fn name(metric: Metric) -> &'static str {
    match metric {
        Metric::P50 => "p50",
        Metric::P99 => "p99",
        Metric::P999 => "p99.9 ms",
        Metric::Errors => "errors",
        Metric::Share => "share",
        Metric::Back => "back",
    }
}

fn what(goal: Goal) -> String {
    format!("{} {}", goal.shape.name(), name(goal.metric).trim_end_matches(" ms"))
}

fn shown(metric: Metric, value: f64) -> String {
    match metric {
        Metric::P50 | Metric::P99 | Metric::P999 => match value * 1e3 {
            // A queue that grows all the time: the number is that of the length of the run.
            ms if ms >= 10_000.0 => "> 10 s".to_owned(),
            ms if ms >= 999.5 => format!("{ms:.0}"),
            ms => format!("{ms:.1}"),
        },
        Metric::Errors => format!("{:.3} %", value * 1e2),
        Metric::Share => format!("{:.2} %", value * 1e2),
        Metric::Back if value.is_infinite() => "never".to_owned(),
        Metric::Back => format!("{value:.1} s"),
    }
}

fn verdict(line: &Line, scenario: &Scenario, lines: &[Line]) -> String {
    if !matches!(line.role, Role::Candidate | Role::Ours) {
        return String::new();
    }
    let missed = missed(line, scenario, lines);
    if missed.is_empty() {
        return "met".to_owned();
    }
    format!("MISSED: {}", missed.into_iter().map(what).collect::<Vec<_>>().join(", "))
}

fn laid_out(rows: &[Vec<String>], style: Style) -> String {
    let mut text = String::new();
    if style == Style::Markdown {
        for (index, row) in rows.iter().enumerate() {
            let _ = writeln!(text, "| {} |", row.join(" | "));
            if index == 0 {
                let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
            }
        }
        return text;
    }
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::Medians;

    fn line(role: Role) -> Line {
        let shapes = [Medians::default(), Medians::default()];
        Line { subject: "one".to_owned(), role, shapes }
    }

    #[test]
    fn each_scenario_shows_what_it_is_about() {
        for scenario in Scenario::all() {
            let text = table(&scenario, &[line(Role::Peer)], Style::Text);
            let has = |what: &str| text.lines().nth(2).unwrap().contains(what);
            assert!(has("50 clients: p50 / p99 / p99.9 ms"), "{text}");
            assert_eq!(has("errors"), scenario.name == "fails-fast", "{text}");
            assert_eq!(has(": share"), scenario.has_odd(), "{text}");
            assert_eq!(has("back"), scenario.name == "slow-recovers", "{text}");
        }
    }

    #[test]
    fn rows_of_markdown_have_as_many_cells_as_the_head() {
        let scenario = Scenario::all().swap_remove(1);
        let text = table(&scenario, &[line(Role::Peer), line(Role::Ours)], Style::Markdown);
        let cells = text.lines().filter(|line| line.starts_with('|'));
        let cells: Vec<usize> = cells.map(|line| line.matches('|').count()).collect();
        assert_eq!(cells, [cells[0]; 4]);
    }

    #[test]
    fn only_who_has_goals_is_told_of_them() {
        let scenario = Scenario::all().swap_remove(1);
        let text = |role| table(&scenario, &[line(role)], Style::Text);
        assert!(!text(Role::Tower).contains("met"));
        assert!(text(Role::Ours).contains("met"));
    }

    #[test]
    fn numbers_have_their_units() {
        let values = [
            (Metric::P50, 0.0069, "6.9"),
            (Metric::P99, 1.2534, "1253"),
            (Metric::P99, 40.0, "> 10 s"),
            (Metric::Errors, 0.0008, "0.080 %"),
            (Metric::Back, 3.25, "3.2 s"),
            (Metric::Back, f64::INFINITY, "never"),
        ];
        for (metric, value, expected) in values {
            assert_eq!(shown(metric, value), expected);
        }
    }
}
