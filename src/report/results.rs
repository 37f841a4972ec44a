//! The results of a sweep's runs, sorted into groups that can be compared.

use super::measured::{Epoch, Measured};
use super::paper::{ROWS, Row};
use super::records;
use super::verdict::Verdict;
use crate::base::spread::Spread;
use crate::config::{Choices, Config, Resolved, SYNCHRONOUS, TrainingConfig};
use crate::learning::Nudging;
use crate::sweep::{SweepFile, SweepFolder};
use anyhow::{Context, Result, bail};
use glob::Pattern;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tracing::warn;

/// The way in which a row of the paper finds the equilibrium here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Synchronous steps, as in the paper.
    Synchronous,
    /// Alternating steps with Anderson's acceleration, as in the presets with two hidden layers.
    Alternating,
}

impl Way {
    /// The ways in which a row is trained; with one hidden layer the preset's way is the paper's.
    pub fn of(row: &Row) -> &'static [Self] {
        if row.depth == 1 { &[Way::Synchronous] } else { &[Way::Synchronous, Way::Alternating] }
    }

    /// The difference from the paper's way, as in [`Group::variant`].
    pub fn variant(self) -> &'static str {
        match self {
            Way::Synchronous => "",
            Way::Alternating => "order = alternating, solver = anderson",
        }
    }
}

/// The relation of runs to the paper.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A row of it, with the preset's settings except for the way to equilibrium: only Ψ and the seed differ.
    Row(&'static Row, Way),
    /// A row of it as its text prints it: Glorot weights, no σ′, all biases learn, where the preset differs from
    /// that.
    Printed(&'static Row),
    /// One of these, but with another way to equilibrium: other settings of `[settle]`.
    Settled(&'static Row),
    /// Not in the paper.
    Other,
}

/// Runs that differ in nothing but their seed.
#[derive(Debug)]
pub struct Group {
    pub kind: Kind,
    /// Keys that differ from the preset with synchronous steps.
    pub changed: Vec<String>,
    /// These keys with their values, for people; and the data, where it is not MNIST.
    pub variant: String,
    pub runs: Vec<Measured>,
}

impl Group {
    /// The row of the paper to compare with.
    pub fn row(&self) -> Option<&'static Row> {
        match self.kind {
            Kind::Row(row, _) | Kind::Printed(row) | Kind::Settled(row) => Some(row),
            Kind::Other => None,
        }
    }

    /// Runs with all the epochs they need. Only these count in means, verdicts and lines of figures.
    pub fn finished(&self) -> impl Iterator<Item = &Measured> {
        let wanted = self.epochs_wanted();
        self.runs.iter().filter(move |run| run.last().is_some_and(|last| last.number >= wanted))
    }

    /// Runs that have begun and lack epochs, each with its last epoch.
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

    /// The verdict on its mean test error, beside the published one.
    pub fn verdict(&self) -> Verdict {
        match (self.test(), self.row()) {
            (Some(test), Some(row)) => Verdict::on(test, row.test),
            (None, _) if self.unfinished().next().is_some() => Verdict::Unfinished,
            _ => Verdict::NotRun,
        }
    }

    /// Its mean test error less the published one, in percentage points.
    pub fn difference(&self) -> Option<f64> {
        Some(self.test()?.mean - self.row()?.test.mean)
    }

    /// True where the published mean lies within the spread here, mean ± 2 s; unknown for a single run.
    pub fn published_within_spread(&self) -> Option<bool> {
        self.test()?.holds(self.row()?.test.mean)
    }

    /// The name of its network, for people.
    pub fn network(&self) -> String {
        let config = &self.runs[0].config;
        match self.row() {
            Some(row) => row.name(),
            None => format!("{}{}", config.learning.rule.title, config.network.dims.kind()),
        }
    }

    /// The name of its network, and its differences.
    pub fn name(&self) -> String {
        match &self.variant[..] {
            "" => self.network(),
            variant => format!("{} ({variant})", self.network()),
        }
    }

    /// Ψ(θf, θb) before training, degrees, where weights are untied.
    pub fn psi(&self) -> Option<f64> {
        self.runs[0].config.psi_degrees()
    }
}

/// The runs of some sweeps, sorted.
pub struct Results {
    /// Titles of the sweep files.
    pub titles: Vec<String>,
    /// The paper's rows in its order, these as printed, these with another way to equilibrium, and others as planned;
    /// all as planned where the sweep is not the paper's.
    pub groups: Vec<Group>,
    /// True where more than half of it are rows of the paper, so that missing rows count.
    pub is_papers: bool,
    /// The names of all runs that were read, including those not counted because others repeat them.
    pub names: BTreeSet<String>,
    /// The names of runs whose files cannot be read: they are left out, or taken from an earlier report.
    pub damaged: Vec<String>,
}

impl Results {
    /// Reads the runs whose names match one of `only`, or all where that is empty. A choice of runs is a sweep of its
    /// own, which lacks nothing of the paper.
    pub fn read(sources: &[PathBuf], only: &[Pattern]) -> Result<Self> {
        let mut titles: Vec<String> = Vec::new();
        let mut groups: Vec<Group> = Vec::new();
        let (mut names, mut damaged) = (BTreeSet::new(), Vec::new());
        let chosen = |name: &str| only.is_empty() || only.iter().any(|pattern| pattern.matches(name));
        for source in sources {
            for run in measured_in(source, &chosen, &mut damaged)? {
                for title in &run.titles {
                    if !titles.contains(title) {
                        titles.push(title.clone());
                    }
                }
                names.insert(run.name.clone());
                place(run, &mut groups)?;
            }
        }
        if groups.is_empty() {
            match damaged.is_empty() {
                true => bail!("--only leaves no run to report"),
                false => bail!("there is no other run to report"),
            }
        }
        for group in &mut groups {
            group.runs.sort_by_key(|run| run.config.training.seed);
        }
        let is_row = |group: &&Group| matches!(group.kind, Kind::Row(..) | Kind::Printed(_));
        let is_papers = only.is_empty() && 2 * groups.iter().filter(is_row).count() > groups.len();
        if is_papers {
            let position = |row| ROWS.iter().position(|known| known == row).unwrap_or(ROWS.len());
            groups.sort_by_key(|group| match group.kind {
                Kind::Row(row, way) => (0, position(row), way.variant().len()),
                Kind::Printed(row) => (1, position(row), group.variant.len()),
                Kind::Settled(row) => (2, position(row), group.variant.len()),
                Kind::Other => (3, 0, 0),
            });
        }
        Ok(Self { titles, groups, is_papers, names, damaged })
    }

    /// The group that has the settings of a row of the paper, with this way to equilibrium.
    pub fn of_row(&self, row: &Row, way: Way) -> Option<&Group> {
        self.groups
            .iter()
            .find(|group| matches!(group.kind, Kind::Row(known, its) if (known, its) == (row, way)))
    }

    /// The groups that are rows of the paper as printed.
    pub fn printed(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| matches!(group.kind, Kind::Printed(_)))
    }

    /// The groups that are rows of the paper with another way to equilibrium.
    pub fn settled(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| matches!(group.kind, Kind::Settled(_)))
    }

    /// The groups that are not in the paper.
    pub fn others(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| group.kind == Kind::Other)
    }

    /// The verdict on a row of the paper.
    pub fn verdict(&self, row: &Row, way: Way) -> Verdict {
        self.of_row(row, way).map_or(Verdict::NotRun, Group::verdict)
    }
}

/// Reads the chosen runs of a sweep's folder, or of the records of an earlier report. Those that cannot be read go to
/// `damaged`.
fn measured_in(
    source: &Path,
    chosen: &dyn Fn(&str) -> bool,
    damaged: &mut Vec<String>,
) -> Result<Vec<Measured>> {
    let folder = SweepFolder { path: source.to_path_buf() };
    let entries = if source.is_file() { Vec::new() } else { folder.entries()? };
    if entries.is_empty() {
        let runs = records::read(&records::file_of(source))?.with_context(|| {
            format!(
                "{}: holds no sweep, and no {} of a report; make a sweep with `eqprop sweep --config … --out {0}`",
                source.display(),
                records::FILE
            )
        })?;
        return Ok(runs.into_iter().filter(|run| chosen(&run.name)).collect());
    }
    let titles = sweep_titles(&folder)?;
    let mut runs = Vec::new();
    for name in entries.iter().map(|entry| &entry.name[..]).filter(|name| chosen(name)) {
        match Measured::read(&folder, name, &titles) {
            Ok(run) => runs.push(run),
            // An error in one run does not end a report.
            Err(problem) => {
                let kept = records::read(&records::file_of(source))?.unwrap_or_default();
                let kept = kept.into_iter().find(|run| run.name == name);
                let instead = match &kept {
                    Some(_) => "its numbers are those of the last report here",
                    None => "it is left out",
                };
                warn!("run {name}: {instead}: {problem:#}");
                runs.extend(kept);
                damaged.push(name.to_string());
            }
        }
    }
    Ok(runs)
}

fn sweep_titles(folder: &SweepFolder) -> Result<Vec<String>> {
    let sweeps = folder.path.join("sweeps");
    let listed = fs::read_dir(&sweeps).with_context(|| format!("{}: cannot be listed", sweeps.display()))?;
    let mut files: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    files.iter().map(|file| Ok(SweepFile::read(file)?.title)).collect()
}

/// Puts a run into the group of those that differ in nothing but their seed. For a row of the paper the wanted epochs
/// are the paper's, so the configured number may differ. Of two runs with one seed the longer stays, and the first
/// where they are equally long.
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
        Some(group) => {
            let seed = run.config.training.seed;
            match group.runs.iter_mut().find(|known| known.config.training.seed == seed) {
                Some(known) if run.epochs.len() > known.epochs.len() => *known = run,
                Some(_) => {}
                None => group.runs.push(run),
            }
        }
        None => groups.push(Group { kind, changed, variant, runs: vec![run] }),
    }
    Ok(())
}

/// The relation of a run to the paper, and its differences from its preset with synchronous steps.
fn classify(run: &Measured) -> Result<(Kind, Vec<String>, String)> {
    let config = &run.config;
    let (rule, depth) = (config.learning.rule, config.network.dims.depth());
    let row = ROWS.iter().find(|row| {
        (row.rule, row.depth, row.psi) == (rule, depth, config.psi_degrees())
            && row.random_beta == (config.learning.nudging == Nudging::Random)
            && !config.network.dims.has_convolutions()
    });
    let of_rule = Choices { algo: Some(rule), depth: Some(depth), ..Choices::default() };
    let of_row = |row: &Row| Choices { config: Some(row.preset.into()), ..Choices::default() };
    let base = row.map_or(of_rule.clone(), of_row);
    let changes = changes_from(config, &base, &SYNCHRONOUS)?;
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
        Some(row) if changes.is_empty() => Kind::Row(row, Way::Synchronous),
        Some(row) if changes_from(config, &base, &[])?.is_empty() => Kind::Row(row, Way::Alternating),
        Some(row) if !gated && changes.iter().all(as_printed) => Kind::Printed(row),
        Some(row) if changes.iter().all(|change| is_settle(change) || !gated && as_printed(change)) => {
            Kind::Settled(row)
        }
        _ => Kind::Other,
    };
    // What is not in the paper is told by its differences from the rule's preset: two rows may share the rule.
    let changes = match kind {
        Kind::Other if row.is_some() => changes_from(config, &of_rule, &SYNCHRONOUS)?,
        _ => changes,
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

/// The keys, with their values, in which a run differs from a preset with these keys set in place of its own; not Ψ,
/// the name of the rule, nor what says how a run is carried out.
fn changes_from(config: &Config, preset: &Choices, set: &[(&str, &str)]) -> Result<Vec<(String, String)>> {
    let flags = set.iter().map(|&(key, value)| (String::new(), key.into(), value.into())).collect();
    let preset = Resolved::new(&Choices { flags, ..preset.clone() })?.config;
    let mut ours = config.clone();
    ours.network.psi = preset.network.psi;
    ours.learning.rule = preset.learning.rule;
    let TrainingConfig { batch_size, limit_train, limit_test, validation, dtype, .. } = config.training;
    ours.training =
        TrainingConfig { batch_size, limit_train, limit_test, validation, dtype, ..preset.training.clone() };
    Ok(ours.changes_from(&preset)?)
}
