//! What a sweep has measured, beside what the paper published: one HTML file, and CSV.

mod charts;
mod html;
mod paper;

use crate::base::files;
use crate::config::{Choices, Config, Resolved, TrainingConfig};
use crate::sweep::{State, SweepFolder};
use anyhow::{Context, Result, bail};
use paper::{ROWS, Row, TRIALS};
use serde::Serialize;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// The numbers of one epoch, percent; 0 is before training.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    number: usize,
    train: Option<f64>,
    /// Where images are held out for it.
    validation: Option<f64>,
    test: f64,
}

impl Epoch {
    /// The error by which the best epoch is chosen.
    fn judged(&self) -> f64 {
        self.validation.unwrap_or(self.test)
    }
}

/// One run: what it was, and what it left.
#[derive(Debug)]
struct Measured {
    name: String,
    config: Config,
    /// The data set it really had; empty where it has not begun.
    data: String,
    failed: Option<String>,
    epochs: Vec<Epoch>,
    /// Ψ(Δtot, −∇BPTT tot) before training, degrees.
    angle: Option<f64>,
    collapsed: Option<usize>,
    /// Seconds of training, without tests and checkpoints.
    seconds: f64,
    /// `environment.json`.
    environment: Value,
}

impl Measured {
    /// Reads what the run `name` of the sweep has left so far.
    fn read(folder: &SweepFolder, name: &str) -> Result<Self> {
        let choices = Choices { config: Some(folder.config(name)), ..Choices::default() };
        let config = Resolved::new(&choices)?.config;
        let place = folder.runs().join(name);
        let failed = match folder.state(name)? {
            State::Failed(reason) => Some(reason),
            _ => None,
        };
        let environment = match fs::read(place.join("environment.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{}/environment.json: not valid JSON", place.display()))?,
            Err(_) => Value::Null,
        };
        let mut run = Self {
            name: name.to_string(),
            config,
            data: String::new(),
            failed,
            epochs: Vec::new(),
            angle: None,
            collapsed: None,
            seconds: 0.0,
            environment,
        };
        let metrics = place.join("metrics.jsonl");
        // Absent where the run has not begun. The last line may be cut short where it was killed.
        for line in fs::read_to_string(&metrics).unwrap_or_default().split_inclusive('\n') {
            if line.ends_with('\n') {
                run.take(line).with_context(|| format!("{}: not what a run writes", metrics.display()))?;
            }
        }
        Ok(run)
    }

    fn take(&mut self, line: &str) -> Result<()> {
        let line: Value = serde_json::from_str(line)?;
        let number = line["epoch"].as_u64().context("a line without an epoch")? as usize;
        let test = line["error/test"].as_f64().context("a line without error/test")?;
        self.data = line["data"].as_str().unwrap_or_default().to_string();
        let (train, validation) = (line["error/train"].as_f64(), line["error/validation"].as_f64());
        self.epochs.push(Epoch { number, train, validation, test });
        if number == 0 {
            self.angle = line["angle/total"].as_f64();
        }
        if line["collapsed"] == true {
            self.collapsed.get_or_insert(number);
        }
        self.seconds += line["speed/epoch_seconds"].as_f64().unwrap_or_default();
        Ok(())
    }

    /// The first epoch with the lowest error of those that judge it, as in `best.safetensors`: 0 where training has
    /// never beaten its start. `None` before the first epoch is done.
    fn best(&self) -> Option<Epoch> {
        self.last()?;
        self.epochs.iter().copied().min_by(|a, b| a.judged().total_cmp(&b.judged()))
    }

    /// Which images its best epoch is chosen on.
    fn judged_by(&self) -> &'static str {
        if self.config.training.validation > 0 { "validation" } else { "test" }
    }

    fn last(&self) -> Option<Epoch> {
        self.epochs.last().copied().filter(|epoch| epoch.number > 0)
    }
}

/// Mean and standard deviation (of a sample, n − 1) of some numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    mean: f64,
    std: Option<f64>,
    count: usize,
}

impl Spread {
    fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().collect();
        let count = values.len();
        if count == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let std = (count > 1).then(|| (squares / (count - 1) as f64).sqrt());
        Some(Self { mean, std, count })
    }
}

/// Runs that differ in nothing but their seed.
#[derive(Debug)]
struct Group {
    /// The row of the paper it repeats, if any.
    row: Option<&'static Row>,
    /// What it has other than that row's preset; empty where nothing.
    variant: String,
    runs: Vec<Measured>,
}

/// What a comparison with a published number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    /// Within two standard errors of the difference.
    Within,
    /// Outside of them.
    Outside,
    /// There is nothing to compare.
    NotRun,
}

impl Group {
    /// Test errors after the last epoch of each run.
    fn test(&self) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(Measured::last).map(|epoch| epoch.test))
    }

    /// Train errors of the last epoch of each run.
    fn train(&self) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(Measured::last).filter_map(|epoch| epoch.train))
    }

    /// Angles before training.
    fn angle(&self) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(|run| run.angle))
    }

    /// The fewest epochs that a run that has begun has done.
    fn epochs(&self) -> usize {
        self.runs.iter().filter_map(Measured::last).map(|epoch| epoch.number).min().unwrap_or(0)
    }

    /// Epochs of the paper's row, or those configured.
    fn epochs_wanted(&self) -> usize {
        self.row.map_or(self.runs[0].config.training.epochs, |row| row.epochs)
    }

    /// Whether the measured mean test error is within two standard errors of the published one. The standard
    /// error of the difference is √(s²/n + s_p²/5); of a single run, s is not known and s_p stands for it.
    fn verdict(&self) -> Verdict {
        match (self.test(), self.row) {
            (Some(test), Some(row)) => {
                let published = row.test;
                let variance = |std: f64, count: f64| std.powi(2) / count;
                let error = (variance(test.std.unwrap_or(published.std), test.count as f64)
                    + variance(published.std, TRIALS))
                .sqrt();
                match (test.mean - published.mean).abs() <= 2.0 * error {
                    true => Verdict::Within,
                    false => Verdict::Outside,
                }
            }
            _ => Verdict::NotRun,
        }
    }

    /// A name for people.
    fn name(&self) -> String {
        let config = &self.runs[0].config;
        let name = match self.row {
            Some(row) => row.name(),
            None => format!("{}-{}h", config.learning.rule.title(), config.network.dims.depth()),
        };
        match &self.variant[..] {
            "" => name,
            variant => format!("{name} ({variant})"),
        }
    }

    /// Ψ(θf, θb) before training, degrees, where there are feedback weights.
    fn psi(&self) -> Option<f64> {
        self.runs[0].config.psi_degrees()
    }

    /// The spread of an error over the seeds, in every epoch that all runs have.
    fn curve(&self, pick: fn(&Epoch) -> Option<f64>) -> Vec<(usize, Spread)> {
        (0..=self.epochs())
            .filter_map(|number| {
                let values = self.runs.iter().filter_map(|run| run.epochs.get(number)).filter_map(pick);
                Some((number, Spread::of(values)?))
            })
            .collect()
    }
}

/// All of a sweep, sorted into the paper's rows.
struct Results {
    /// Titles of the sweep files.
    titles: Vec<String>,
    /// In the paper's order, then those that are not in the paper.
    groups: Vec<Group>,
}

impl Results {
    fn read(folder: &SweepFolder) -> Result<Self> {
        let entries = folder.entries()?;
        if entries.is_empty() {
            bail!(
                "{}: holds no sweep; make one with `eqprop sweep --config … --out {0}`",
                folder.path.display()
            );
        }
        let mut titles = Vec::new();
        let sweeps = folder.path.join("sweeps");
        let listed =
            fs::read_dir(&sweeps).with_context(|| format!("{}: cannot be listed", sweeps.display()))?;
        let mut files: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        for file in files {
            titles.push(crate::sweep::SweepFile::read(&file)?.title);
        }
        let mut groups: Vec<Group> = Vec::new();
        for entry in entries {
            let run = Measured::read(folder, &entry.name)?;
            let (row, variant) = classify(&run)?;
            let same = |group: &&mut Group| {
                group.row == row && group.variant == variant && group.psi() == run.config.psi_degrees()
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.runs.push(run),
                None => groups.push(Group { row, variant, runs: vec![run] }),
            }
        }
        let place = |row: Option<&Row>| {
            row.and_then(|row| ROWS.iter().position(|known| known == row)).unwrap_or(ROWS.len())
        };
        groups.sort_by_key(|group| (place(group.row), group.variant.len()));
        for group in &mut groups {
            group.runs.sort_by_key(|run| run.config.training.seed);
        }
        Ok(Self { titles, groups })
    }

    /// The groups that repeat a row of the paper.
    fn of_row(&self, row: &Row) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(move |group| group.row == Some(row))
    }
}

/// The row of the paper that a run repeats, and what it has other than that row's preset.
fn classify(run: &Measured) -> Result<(Option<&'static Row>, String)> {
    let config = &run.config;
    let (rule, depth) = (config.learning.rule, config.network.dims.depth());
    let row = ROWS.iter().find(|row| {
        (row.rule, row.depth, row.psi) == (rule, depth, config.psi_degrees())
            && row.random_beta == config.learning.random_beta
    });
    let base = match row {
        Some(row) => Choices { config: Some(row.preset.into()), ..Choices::default() },
        None => Choices { algo: Some(rule), depth: Some(depth), ..Choices::default() },
    };
    let preset = Resolved::new(&base)?.config;
    let mut ours = config.clone();
    ours.network.psi = preset.network.psi;
    ours.learning.rule = preset.learning.rule;
    let TrainingConfig { batch_size, limit_train, limit_test, validation, dtype, .. } = config.training;
    let preset_training = preset.training.clone();
    ours.training =
        TrainingConfig { batch_size, limit_train, limit_test, validation, dtype, ..preset_training };
    let mut variant: Vec<String> = (ours.changes_from(&preset)?.into_iter())
        .map(|(key, value)| {
            format!("{} = {}", key.split('.').next_back().unwrap_or(&key), value.replace('"', ""))
        })
        .collect();
    if !run.data.is_empty() && run.data != "mnist" {
        variant.push(format!("on {}, not MNIST", run.data));
        return Ok((None, variant.join(", ")));
    }
    Ok((row, variant.join(", ")))
}

/// A line of `table3.csv`.
#[derive(Serialize)]
struct TableLine {
    network: String,
    psi: Option<f64>,
    variant: String,
    runs: usize,
    epochs: usize,
    epochs_paper: Option<usize>,
    test: Option<f64>,
    test_std: Option<f64>,
    train: Option<f64>,
    train_std: Option<f64>,
    test_paper: Option<f64>,
    test_std_paper: Option<f64>,
    train_paper: Option<f64>,
    verdict: Verdict,
    angle_before_training: Option<f64>,
    angle_std: Option<f64>,
}

/// A line of `runs.csv`.
#[derive(Serialize)]
struct RunLine<'a> {
    run: &'a str,
    network: String,
    psi: Option<f64>,
    seed: u64,
    epochs: usize,
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

/// A line of `curves.csv`.
#[derive(Serialize)]
struct CurveLine<'a> {
    run: &'a str,
    epoch: usize,
    train: Option<f64>,
    validation: Option<f64>,
    test: f64,
}

fn csv<T: Serialize>(lines: impl IntoIterator<Item = T>) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for line in lines {
        writer.serialize(line)?;
    }
    Ok(writer.into_inner()?)
}

/// Writes `report.html`, `table3.csv`, `runs.csv` and `curves.csv` into `out`.
///
/// # Errors
/// Where the sweep cannot be read, or a file not written.
pub fn write(sweep: &Path, out: &Path) -> Result<PathBuf> {
    let results = Results::read(&SweepFolder::new(sweep.to_path_buf()))?;
    files::create_folder(out)?;
    let missing = ROWS.iter().filter(|row| results.of_row(row).next().is_none()).map(|row| TableLine {
        network: row.name(),
        psi: row.psi,
        variant: String::new(),
        runs: 0,
        epochs: 0,
        epochs_paper: Some(row.epochs),
        test: None,
        test_std: None,
        train: None,
        train_std: None,
        test_paper: Some(row.test.mean),
        test_std_paper: Some(row.test.std),
        train_paper: Some(row.train),
        verdict: Verdict::NotRun,
        angle_before_training: None,
        angle_std: None,
    });
    let measured = results.groups.iter().map(|group| {
        let (test, train, angle) = (group.test(), group.train(), group.angle());
        TableLine {
            network: group.name(),
            psi: group.psi(),
            variant: group.variant.clone(),
            runs: test.map_or(0, |test| test.count),
            epochs: group.epochs(),
            epochs_paper: group.row.map(|row| row.epochs),
            test: test.map(|test| test.mean),
            test_std: test.and_then(|test| test.std),
            train: train.map(|train| train.mean),
            train_std: train.and_then(|train| train.std),
            test_paper: group.row.map(|row| row.test.mean),
            test_std_paper: group.row.map(|row| row.test.std),
            train_paper: group.row.map(|row| row.train),
            verdict: group.verdict(),
            angle_before_training: angle.map(|angle| angle.mean),
            angle_std: angle.and_then(|angle| angle.std),
        }
    });
    let runs = || results.groups.iter().flat_map(|group| group.runs.iter().map(move |run| (group, run)));
    let run_lines = runs().map(|(group, run)| RunLine {
        run: &run.name,
        network: group.name(),
        psi: group.psi(),
        seed: run.config.training.seed,
        epochs: run.last().map_or(0, |epoch| epoch.number),
        test: run.last().map(|epoch| epoch.test),
        train: run.last().and_then(|epoch| epoch.train),
        best_test: run.best().map(|epoch| epoch.test),
        best_epoch: run.best().map(|epoch| epoch.number),
        best_by: run.judged_by(),
        best_validation: run.best().and_then(|epoch| epoch.validation),
        angle_before_training: run.angle,
        collapsed_in_epoch: run.collapsed,
        failed: run.failed.as_deref(),
    });
    let curve_lines = runs().flat_map(|(_, run)| {
        run.epochs.iter().map(|epoch| CurveLine {
            run: &run.name,
            epoch: epoch.number,
            train: epoch.train,
            validation: epoch.validation,
            test: epoch.test,
        })
    });
    files::write_atomically(&out.join("table3.csv"), &csv(measured.chain(missing))?)?;
    files::write_atomically(&out.join("runs.csv"), &csv(run_lines)?)?;
    files::write_atomically(&out.join("curves.csv"), &csv(curve_lines)?)?;
    let report = out.join("report.html");
    files::write_atomically(&report, html::page(&results)?.as_bytes())?;
    Ok(report)
}
