//! The CSV files of a report. Errors in percent, angles in degrees, as on the page.

use super::measured::{Measured, rounded};
use super::paper::{ROWS, Row};
use super::results::{Group, Results, Way};
use super::varied;
use super::verdict::Verdict;
use anyhow::Result;
use serde::Serialize;

fn hundredths(value: Option<f64>) -> Option<f64> {
    value.map(|value| rounded(value, 2))
}

fn tenths(value: Option<f64>) -> Option<f64> {
    value.map(|value| rounded(value, 1))
}

/// A line of `table3.csv`, `as-printed.csv` and `equilibrium.csv`.
#[derive(Serialize)]
struct TableLine {
    network: String,
    psi: Option<f64>,
    variant: String,
    verdict: Verdict,
    /// Finished runs.
    n: usize,
    test: Option<f64>,
    test_std: Option<f64>,
    train: Option<f64>,
    train_std: Option<f64>,
    test_paper: f64,
    test_std_paper: f64,
    train_paper: f64,
    epochs: usize,
    /// Runs that have begun and lack epochs.
    unfinished: usize,
    angle_before_training: Option<f64>,
    angle_std: Option<f64>,
    /// The measured mean less the published one.
    difference: Option<f64>,
    /// True where the published mean is within the measured mean ± 2 standard deviations; empty where n = 1.
    published_within_spread: Option<bool>,
}

/// The line of a row; `variant` describes it where it has no run.
fn table_line(row: &Row, variant: &str, group: Option<&Group>) -> TableLine {
    let (test, train) = (group.and_then(Group::test), group.and_then(Group::train));
    let angle = group.and_then(Group::angle);
    TableLine {
        network: row.name(),
        psi: row.psi,
        variant: group.map_or(variant, |group| &group.variant).to_string(),
        verdict: group.map_or(Verdict::NotRun, Group::verdict),
        n: test.map_or(0, |test| test.count),
        test: hundredths(test.map(|test| test.mean)),
        test_std: hundredths(test.and_then(|test| test.std)),
        train: hundredths(train.map(|train| train.mean)),
        train_std: hundredths(train.and_then(|train| train.std)),
        test_paper: row.test.mean,
        test_std_paper: row.test.std,
        train_paper: row.train,
        epochs: row.epochs,
        unfinished: group.map_or(0, |group| group.unfinished().count()),
        angle_before_training: tenths(angle.map(|angle| angle.mean)),
        angle_std: tenths(angle.and_then(|angle| angle.std)),
        difference: hundredths(group.and_then(Group::difference)),
        published_within_spread: group.and_then(Group::published_within_spread),
    }
}

/// A line of `runs.csv`.
#[derive(Serialize)]
struct RunLine<'a> {
    run: &'a str,
    network: String,
    psi: Option<f64>,
    seed: u64,
    epochs: usize,
    epochs_wanted: usize,
    test: Option<f64>,
    train: Option<f64>,
    best_test: Option<f64>,
    best_epoch: Option<usize>,
    best_by: &'static str,
    best_validation: Option<f64>,
    angle_before_training: Option<f64>,
    collapsed_in_epoch: Option<usize>,
    failed: Option<&'a str>,
}

fn run_line<'a>(group: &Group, run: &'a Measured) -> RunLine<'a> {
    let (last, best) = (run.last(), run.best());
    RunLine {
        run: &run.name,
        network: group.name(),
        psi: group.psi(),
        seed: run.config.training.seed,
        epochs: last.map_or(0, |epoch| epoch.number),
        epochs_wanted: group.epochs_wanted(),
        test: hundredths(last.map(|epoch| epoch.test)),
        train: hundredths(last.and_then(|epoch| epoch.train)),
        best_test: hundredths(best.map(|epoch| epoch.test)),
        best_epoch: best.map(|epoch| epoch.number),
        best_by: run.judged_by(),
        best_validation: hundredths(best.and_then(|epoch| epoch.validation)),
        angle_before_training: tenths(run.angle),
        collapsed_in_epoch: run.collapsed,
        failed: run.failed.as_deref(),
    }
}

/// A line of `curves.csv`.
#[derive(Serialize)]
struct CurveLine<'a> {
    run: &'a str,
    epoch: usize,
    train: Option<f64>,
    validation: Option<f64>,
    test: f64,
    /// Training images that have not settled, percent.
    unsettled: Option<f64>,
}

fn csv<T: Serialize>(lines: impl IntoIterator<Item = T>) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for line in lines {
        writer.serialize(line)?;
    }
    Ok(writer.into_inner()?)
}

/// `sweep.csv`: the varied values of each group, and its errors.
fn sweep(groups: &[&Group]) -> Result<Vec<u8>> {
    let keys = varied::keys(groups)?;
    let mut writer = csv::Writer::from_writer(Vec::new());
    let numbers = ["n", "test", "test_std", "train", "train_std", "epochs", "unfinished"];
    let heads = ["network"].into_iter().chain(keys.iter().map(String::as_str)).chain(numbers);
    writer.write_record(heads)?;
    let text = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:?}"));
    for group in groups {
        let (test, train) = (group.test(), group.train());
        let mut line = vec![group.network()];
        for key in &keys {
            line.push(varied::value(group, key)?.replace(['°', '–'], ""));
        }
        line.push(test.map_or(0, |test| test.count).to_string());
        line.push(text(hundredths(test.map(|test| test.mean))));
        line.push(text(hundredths(test.and_then(|test| test.std))));
        line.push(text(hundredths(train.map(|train| train.mean))));
        line.push(text(hundredths(train.and_then(|train| train.std))));
        line.push(group.epochs_wanted().to_string());
        line.push(group.unfinished().count().to_string());
        writer.write_record(line)?;
    }
    Ok(writer.into_inner()?)
}

/// All CSV files of the results: their names and contents.
pub fn all(results: &Results) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let mut files = Vec::new();
    if results.is_papers {
        let ways = ROWS.iter().flat_map(|row| Way::of(row).iter().map(move |way| (row, *way)));
        let rows = ways.map(|(row, way)| table_line(row, way.variant(), results.of_row(row, way)));
        files.push(("table3.csv", csv(rows)?));
        let of = |group| Some(table_line(Group::row(group)?, "", Some(group)));
        let printed: Vec<TableLine> = results.printed().filter_map(of).collect();
        let settled: Vec<TableLine> = results.settled().filter_map(of).collect();
        for (name, lines) in [("as-printed.csv", printed), ("equilibrium.csv", settled)] {
            if !lines.is_empty() {
                files.push((name, csv(lines)?));
            }
        }
        let others: Vec<&Group> = results.others().collect();
        if !others.is_empty() {
            files.push(("sweep.csv", sweep(&others)?));
        }
    } else {
        files.push(("sweep.csv", sweep(&results.groups.iter().collect::<Vec<_>>())?));
    }
    let runs = || results.groups.iter().flat_map(|group| group.runs.iter().map(move |run| (group, run)));
    files.push(("runs.csv", csv(runs().map(|(group, run)| run_line(group, run)))?));
    let curves = runs().flat_map(|(_, run)| {
        run.epochs.iter().map(|epoch| CurveLine {
            run: &run.name,
            epoch: epoch.number,
            train: hundredths(epoch.train),
            validation: hundredths(epoch.validation),
            test: rounded(epoch.test, 2),
            unsettled: epoch.unsettled,
        })
    });
    files.push(("curves.csv", csv(curves)?));
    Ok(files)
}
