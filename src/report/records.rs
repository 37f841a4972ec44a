//! `records.jsonl`: the runs of a report, one per line, from which it can be made again when their folders are gone.
//!
//! Errors have three decimals, which tell single images apart. Configurations are whole, so that they mean the same
//! when presets have changed.

use super::measured::{Epoch, Measured};
use crate::base::name;
use crate::config::{Config, of_any_version};
use crate::telemetry::records;
use anyhow::{Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The name of the file.
pub const FILE: &str = "records.jsonl";

/// A line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    run: String,
    /// Titles of the sweeps in its folder.
    sweeps: Vec<String>,
    #[serde(deserialize_with = "of_any_version")]
    config: Config,
    data: String,
    environment: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
    /// Before training, degrees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    angle: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    collapsed_in_epoch: Option<usize>,
    /// Absent where unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    epochs: Columns,
}

/// The numbers of all epochs, 0 first; a column without numbers is left out.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Columns {
    /// Their numbers, where these are not 0, 1, 2 ….
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    number: Vec<usize>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    train: Vec<Option<f64>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    validation: Vec<Option<f64>>,
    test: Vec<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unsettled: Vec<Option<f64>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    steps: Vec<Option<f64>>,
}

impl Columns {
    fn of(epochs: &[Epoch]) -> Self {
        let column = |pick: fn(&Epoch) -> Option<f64>| -> Vec<Option<f64>> {
            let column: Vec<_> = epochs.iter().map(pick).collect();
            if column.iter().any(Option::is_some) { column } else { Vec::new() }
        };
        let numbered = epochs.iter().enumerate().all(|(i, epoch)| epoch.number == i);
        Self {
            number: if numbered { Vec::new() } else { epochs.iter().map(|epoch| epoch.number).collect() },
            train: column(|epoch| epoch.train),
            validation: column(|epoch| epoch.validation),
            test: epochs.iter().map(|epoch| epoch.test).collect(),
            unsettled: column(|epoch| epoch.unsettled),
            steps: column(|epoch| epoch.steps),
        }
    }

    fn epochs(self) -> Result<Vec<Epoch>> {
        let Self { number, train, validation, test, unsettled, steps } = self;
        let lengths = [
            ("number", number.len()),
            ("train", train.len()),
            ("validation", validation.len()),
            ("unsettled", unsettled.len()),
            ("steps", steps.len()),
        ];
        for (name, length) in lengths {
            ensure!(
                [0, test.len()].contains(&length),
                "it has {} test errors, but {length} numbers in {name}",
                test.len()
            );
        }
        let at = |column: &[Option<f64>], i: usize| column.get(i).copied().flatten();
        let epoch = |(i, test)| Epoch {
            number: number.get(i).copied().unwrap_or(i),
            train: at(&train, i),
            validation: at(&validation, i),
            test,
            unsettled: at(&unsettled, i),
            steps: at(&steps, i),
        };
        Ok(test.into_iter().enumerate().map(epoch).collect())
    }
}

impl Record {
    fn of(run: &Measured) -> Self {
        Self {
            run: run.name.clone(),
            sweeps: run.titles.clone(),
            config: run.config.clone(),
            data: run.data.clone(),
            environment: run.environment.clone(),
            failed: run.failed.clone(),
            angle: run.angle,
            collapsed_in_epoch: run.collapsed,
            seconds: (run.seconds > 0.0).then_some(run.seconds),
            epochs: Columns::of(&run.epochs),
        }
    }

    fn measured(self) -> Result<Measured> {
        // An error in a file is not an error of usage.
        name::check(&self.run, "run").map_err(|wrong| anyhow!("{wrong}"))?;
        // A network without hidden layers has no depth.
        ensure!(self.config.network.dims.0.len() > 2, "network.dims has no hidden layer");
        Ok(Measured {
            name: self.run,
            titles: self.sweeps,
            config: self.config,
            data: self.data,
            failed: self.failed,
            epochs: self.epochs.epochs()?,
            angle: self.angle,
            collapsed: self.collapsed_in_epoch,
            seconds: self.seconds.unwrap_or_default(),
            environment: self.environment,
        })
    }
}

/// The records that `source` names: a file, or a folder that holds one.
pub fn file_of(source: &Path) -> PathBuf {
    if source.is_file() { source.to_path_buf() } else { source.join(FILE) }
}

/// Reads records; `None` where there are none.
///
/// # Errors
/// Names the file, and the line that is not what a report writes.
pub fn read(path: &Path) -> Result<Option<Vec<Measured>>> {
    records::read_lines(path, "a report", |line| {
        let record: Record = serde_json::from_slice(line).map_err(|error| records::in_line(&error))?;
        record.measured().map_err(|error| error.to_string())
    })
}

/// The text of the records of some runs, without those that have not begun.
///
/// # Errors
/// None but what serde cannot write.
pub fn text<'a>(runs: impl IntoIterator<Item = &'a Measured>) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for run in runs.into_iter().filter(|run| !run.epochs.is_empty() || run.failed.is_some()) {
        serde_json::to_writer(&mut text, &Record::of(run))?;
        text.push(b'\n');
    }
    Ok(text)
}

/// Checks that writing records into the folder `out` loses none: existing records that are not among `names` may be
/// all that is left of a run. In a sweep's folder nothing is lost, since the runs are there.
///
/// # Errors
/// Says which runs would be lost, and what to do.
pub fn check_none_lost(out: &Path, names: &BTreeSet<String>) -> Result<()> {
    let path = out.join(FILE);
    if out.join("plan.json").exists() {
        return Ok(());
    }
    let there = read(&path)?.unwrap_or_default();
    let lost: Vec<&str> =
        there.iter().map(|run| &run.name[..]).filter(|name| !names.contains(*name)).collect();
    ensure!(
        lost.is_empty(),
        "{}: {} of its runs would be lost, {} among them: name {} as a source, too, or choose another folder with --out",
        path.display(),
        lost.len(),
        lost.first().unwrap_or(&""),
        out.display()
    );
    Ok(())
}
