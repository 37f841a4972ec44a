//! What the runs of a sweep have left, sorted into what can be compared.

use super::paper::{ROWS, Row, TRIALS};
use crate::base::files;
use crate::config::{Choices, Config, Resolved, TrainingConfig};
use crate::learning::{Nudging, angle};
use crate::sweep::{State, SweepFile, SweepFolder};
use crate::telemetry::metrics;
use anyhow::{Context, Result, bail};
use glob::Pattern;
use serde::Serialize;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

/// The numbers of one epoch, percent; 0 is before training.
#[derive(Clone, Copy, Debug)]
pub struct Epoch {
    pub number: usize,
    pub train: Option<f64>,
    /// Where images are held out for it.
    pub validation: Option<f64>,
    pub test: f64,
}

impl Epoch {
    /// The error by which the best epoch is chosen.
    fn judged(&self) -> f64 {
        self.validation.unwrap_or(self.test)
    }
}

/// One run: what it was, and what it left.
#[derive(Debug)]
pub struct Measured {
    pub name: String,
    pub config: Config,
    /// The data set it really had; empty where it has not begun.
    pub data: String,
    pub failed: Option<String>,
    pub epochs: Vec<Epoch>,
    /// Ψ(Δtot, −∇BPTT tot) before training, degrees.
    pub angle: Option<f64>,
    pub collapsed: Option<usize>,
    /// Seconds of training, without tests and checkpoints.
    pub seconds: f64,
    /// `environment.json`.
    pub environment: Value,
}

impl Measured {
    /// Reads what the run `name` of the sweep has left so far.
    fn read(folder: &SweepFolder, name: &str) -> Result<Self> {
        let config = Resolved::new(&folder.choices(name))?.config;
        let place = folder.runs().join(name);
        let failed = match folder.state(name)? {
            State::Failed(reason) => Some(reason),
            _ => None,
        };
        let environment = match files::read_if_there(&place.join("environment.json"))? {
            Some(text) => serde_json::from_str(&text)
                .with_context(|| format!("{}/environment.json: not valid JSON", place.display()))?,
            None => Value::Null,
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
        let path = place.join("metrics.jsonl");
        // Absent where the run has not begun.
        let text = files::read_if_there(&path)?.unwrap_or_default();
        for line in metrics::lines(&text, &path)? {
            run.take(&line.into()).with_context(|| format!("{}: not what a run writes", path.display()))?;
        }
        Ok(run)
    }

    fn take(&mut self, line: &Value) -> Result<()> {
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
    pub fn best(&self) -> Option<Epoch> {
        self.last()?;
        self.epochs.iter().copied().min_by(|a, b| a.judged().total_cmp(&b.judged()))
    }

    /// Which images its best epoch is chosen on.
    pub fn judged_by(&self) -> &'static str {
        if self.config.training.validation > 0 { "validation" } else { "test" }
    }

    /// The last epoch that is done.
    pub fn last(&self) -> Option<Epoch> {
        self.epochs.last().copied().filter(|epoch| epoch.number > 0)
    }
}

/// Mean and standard deviation (of a sample, n − 1) of some numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub mean: f64,
    pub std: Option<f64>,
    pub count: usize,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().collect();
        let count = values.len();
        if count == 0 {
            return None;
        }
        let angle::Spread { mean, std } = angle::Spread::of(&values);
        Some(Self { mean, std: (count > 1).then_some(std), count })
    }
}

/// What runs have to do with the paper.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A row of it, with the preset's settings: only Ψ and the seed differ.
    Row(&'static Row),
    /// A row of it as its text prints it: Glorot weights, no σ′, biases that all learn, where the preset has other.
    Printed(&'static Row),
    /// One of these, but the equilibrium is found in another way: other settings of `[settle]`.
    Settled(&'static Row),
    /// Nothing that it has measured.
    Other,
}

/// Runs that differ in nothing but their seed.
#[derive(Debug)]
pub struct Group {
    pub kind: Kind,
    /// Keys in which it is not the preset it comes from.
    pub changed: Vec<String>,
    /// The same with values, for people; and the data, where it is not MNIST.
    pub variant: String,
    pub runs: Vec<Measured>,
}

/// What a comparison with a published number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Within two standard errors of the difference.
    Agrees,
    /// Outside of them.
    Disagrees,
    /// Some runs have begun, and none is done.
    Unfinished,
    /// No run has begun.
    NotRun,
}

impl Group {
    /// The row of the paper to compare with.
    pub fn row(&self) -> Option<&'static Row> {
        match self.kind {
            Kind::Row(row) | Kind::Printed(row) | Kind::Settled(row) => Some(row),
            Kind::Other => None,
        }
    }

    /// Runs that have all the epochs they need. Only these make means, verdicts and lines in figures.
    pub fn finished(&self) -> impl Iterator<Item = &Measured> {
        let wanted = self.epochs_wanted();
        self.runs.iter().filter(move |run| run.last().is_some_and(|last| last.number >= wanted))
    }

    /// Runs that have begun and lack epochs: the last they have.
    pub fn unfinished(&self) -> impl Iterator<Item = (&Measured, Epoch)> {
        let wanted = self.epochs_wanted();
        let lasts = self.runs.iter().filter_map(|run| Some((run, run.last()?)));
        lasts.filter(move |(_, last)| last.number < wanted)
    }

    /// Epochs of the paper's row, or those configured.
    pub fn epochs_wanted(&self) -> usize {
        self.row().map_or(self.runs[0].config.training.epochs, |row| row.epochs)
    }

    /// Test errors after the last epoch of each finished run.
    pub fn test(&self) -> Option<Spread> {
        Spread::of(self.finished().filter_map(Measured::last).map(|epoch| epoch.test))
    }

    /// Train errors of the last epoch of each finished run.
    pub fn train(&self) -> Option<Spread> {
        Spread::of(self.finished().filter_map(Measured::last).filter_map(|epoch| epoch.train))
    }

    /// Angles before training, of all runs that have begun.
    pub fn angle(&self) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(|run| run.angle))
    }

    /// Whether the measured mean test error is within two standard errors of the published one. The standard
    /// error of the difference is √(s²/n + s_p²/5); of a single run, s is not known and s_p stands for it.
    pub fn verdict(&self) -> Verdict {
        match (self.test(), self.row()) {
            (Some(test), Some(row)) => {
                let published = row.test;
                let variance = |std: f64, count: f64| std.powi(2) / count;
                let error = (variance(test.std.unwrap_or(published.std), test.count as f64)
                    + variance(published.std, TRIALS))
                .sqrt();
                match (test.mean - published.mean).abs() <= 2.0 * error {
                    true => Verdict::Agrees,
                    false => Verdict::Disagrees,
                }
            }
            (None, _) if self.unfinished().next().is_some() => Verdict::Unfinished,
            _ => Verdict::NotRun,
        }
    }

    /// The name of its network, for people.
    pub fn network(&self) -> String {
        let config = &self.runs[0].config;
        match self.row() {
            Some(row) => row.name(),
            None => format!("{}-{}h", config.learning.rule.title, config.network.dims.depth()),
        }
    }

    /// That, and what it has of its own.
    pub fn name(&self) -> String {
        match &self.variant[..] {
            "" => self.network(),
            variant => format!("{} ({variant})", self.network()),
        }
    }

    /// Ψ(θf, θb) before training, degrees, where there are feedback weights.
    pub fn psi(&self) -> Option<f64> {
        self.runs[0].config.psi_degrees()
    }

    /// The spread of an error over the seeds, in every epoch that all finished runs have.
    pub fn curve(&self, pick: fn(&Epoch) -> Option<f64>) -> Vec<(usize, Spread)> {
        let last = self.finished().filter_map(Measured::last).map(|epoch| epoch.number).min().unwrap_or(0);
        (0..=last)
            .filter_map(|number| {
                let values = self.finished().filter_map(|run| run.epochs.get(number)).filter_map(pick);
                Some((number, Spread::of(values)?))
            })
            .collect()
    }
}

/// All of some sweeps, sorted.
pub struct Results {
    /// Titles of the sweep files.
    pub titles: Vec<String>,
    /// The paper's rows in its order, these as printed, these with another way to equilibrium, and what is not in the
    /// paper as planned; all as planned where the sweep is not the paper's.
    pub groups: Vec<Group>,
    /// Whether more of it are rows of the paper than not, so that those that are missing count.
    pub is_papers: bool,
}

impl Results {
    /// Reads the runs whose names match one of `only`, or all where there is none: a choice of runs is a sweep of
    /// its own, from which nothing of the paper is missing.
    pub fn read(folders: &[SweepFolder], only: &[Pattern]) -> Result<Self> {
        let mut titles = Vec::new();
        let mut groups: Vec<Group> = Vec::new();
        for folder in folders {
            let entries = folder.entries()?;
            if entries.is_empty() {
                bail!(
                    "{}: holds no sweep; make one with `eqprop sweep --config … --out {0}`",
                    folder.path.display()
                );
            }
            for title in sweep_titles(folder)? {
                if !titles.contains(&title) {
                    titles.push(title);
                }
            }
            let chosen = |name: &str| only.is_empty() || only.iter().any(|pattern| pattern.matches(name));
            for entry in entries.into_iter().filter(|entry| chosen(&entry.name)) {
                place(Measured::read(folder, &entry.name)?, &mut groups)?;
            }
        }
        if groups.is_empty() {
            bail!("--only leaves no run to report");
        }
        for group in &mut groups {
            group.runs.sort_by_key(|run| run.config.training.seed);
        }
        // Other ways to equilibrium count for neither side.
        let count = |wanted: fn(&Kind) -> bool| groups.iter().filter(|group| wanted(&group.kind)).count();
        let papers = count(|kind| matches!(kind, Kind::Row(_) | Kind::Printed(_)));
        let is_papers = only.is_empty() && papers > count(|kind| *kind == Kind::Other);
        if is_papers {
            let position = |row| ROWS.iter().position(|known| known == row).unwrap_or(ROWS.len());
            groups.sort_by_key(|group| match group.kind {
                Kind::Row(row) => (0, position(row), group.epochs_wanted()),
                Kind::Printed(row) => (1, position(row), group.variant.len()),
                Kind::Settled(row) => (2, position(row), group.variant.len()),
                Kind::Other => (3, 0, 0),
            });
        }
        Ok(Self { titles, groups, is_papers })
    }

    /// The groups that have the settings of a row of the paper.
    pub fn of_row(&self, row: &Row) -> Option<&Group> {
        self.groups.iter().find(|group| matches!(group.kind, Kind::Row(known) if known == row))
    }

    /// The groups that are rows of the paper as printed.
    pub fn printed(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| matches!(group.kind, Kind::Printed(_)))
    }

    /// The groups that are rows of the paper whose equilibrium is found in another way.
    pub fn settled(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| matches!(group.kind, Kind::Settled(_)))
    }

    /// The groups that the paper does not have.
    pub fn others(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| group.kind == Kind::Other)
    }

    /// The verdict on a row of the paper.
    pub fn verdict(&self, row: &Row) -> Verdict {
        self.of_row(row).map_or(Verdict::NotRun, Group::verdict)
    }
}

fn sweep_titles(folder: &SweepFolder) -> Result<Vec<String>> {
    let sweeps = folder.path.join("sweeps");
    let listed = fs::read_dir(&sweeps).with_context(|| format!("{}: cannot be listed", sweeps.display()))?;
    let mut files: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    files.iter().map(|file| Ok(SweepFile::read(file)?.title)).collect()
}

/// Puts a run beside those that differ in nothing but their seed. Runs of a row of the paper need its epochs, so
/// that they may ask for other numbers of them.
fn place(run: Measured, groups: &mut Vec<Group>) -> Result<()> {
    let (kind, changed, variant) = classify(&run)?;
    let same = |group: &&mut Group| {
        (group.kind, group.psi()) == (kind, run.config.psi_degrees())
            && group.variant == variant
            && (group.runs[0].config.learning.rule, group.runs[0].config.network.dims.depth())
                == (run.config.learning.rule, run.config.network.dims.depth())
            && (kind != Kind::Other || group.epochs_wanted() == run.config.training.epochs)
    };
    match groups.iter_mut().find(same) {
        Some(group) => group.runs.push(run),
        None => groups.push(Group { kind, changed, variant, runs: vec![run] }),
    }
    Ok(())
}

/// What a run has to do with the paper, and what it has other than the preset it comes from.
fn classify(run: &Measured) -> Result<(Kind, Vec<String>, String)> {
    let config = &run.config;
    let (rule, depth) = (config.learning.rule, config.network.dims.depth());
    let row = ROWS.iter().find(|row| {
        (row.rule, row.depth, row.psi) == (rule, depth, config.psi_degrees())
            && row.random_beta == (config.learning.nudging == Nudging::Random)
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
    let changes = ours.changes_from(&preset)?;
    let as_printed = |(key, value): &(String, String)| {
        matches!(
            (key.as_str(), value.trim_matches('"')),
            ("network.init", "glorot")
                | ("learning.sigma_prime", "ignored")
                | ("learning.authors_code", "false")
        )
    };
    let is_settle = |(key, _): &(String, String)| key.starts_with("settle.");
    let not_mnist = !run.data.is_empty() && run.data != "mnist";
    let gated = config.learning.sigma_prime != crate::learning::SigmaPrime::Ignored;
    let kind = match row {
        _ if not_mnist => Kind::Other,
        Some(row) if changes.is_empty() => Kind::Row(row),
        Some(row) if !gated && changes.iter().all(as_printed) => Kind::Printed(row),
        Some(row) if changes.iter().all(|change| is_settle(change) || !gated && as_printed(change)) => {
            Kind::Settled(row)
        }
        _ => Kind::Other,
    };
    let mut variant: Vec<String> = (changes.iter())
        .map(|(key, value)| match (&key[..], value.trim_matches('"')) {
            ("learning.sigma_prime", value) => format!("σ′ {value}"),
            ("learning.authors_code", "false") => "all biases learn".into(),
            ("network.init", "glorot") => "Glorot weights".into(),
            (key, value) => format!("{} = {value}", key.split('.').next_back().unwrap_or(key)),
        })
        .collect();
    if not_mnist {
        variant.push(format!("on {}, not MNIST", run.data));
    }
    Ok((kind, changes.into_iter().map(|(key, _)| key).collect(), variant.join(", ")))
}
