//! The plan of a sweep: rows × grid, each combination a configuration with a name.

use crate::base::name;
use crate::base::output::{Usage, quoted_lines, usage};
use crate::config::{
    Choices, Config, Preset, Resolved, TrainingConfig, by_key, current_name, file_or_built_in, variable_of,
};
use crate::learning::Rule;
use anyhow::{Context, Result};
use itertools::Itertools;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use toml::Value;
use tracing::info;

/// Keys, as `section.key`, and their values.
type Settings = Vec<(String, Value)>;

/// Keys, each with the values that it takes in turn.
type Grid = Vec<(String, Vec<Value>)>;

/// A sweep file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepFile {
    /// A title for people.
    pub title: String,
    /// Keys set in every run.
    #[serde(default, deserialize_with = "by_key")]
    pub set: Settings,
    /// Keys with a list of values each: every combination, for every row.
    #[serde(default, deserialize_with = "by_key")]
    pub grid: Grid,
    /// The rows.
    pub rows: Vec<SweepRow>,
}

/// A configuration, and a grid of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepRow {
    /// A preset, or a configuration file, relative to the sweep file.
    pub config: Option<PathBuf>,
    /// Instead of `config`: the preset of this rule,
    pub algo: Option<Rule>,
    /// and with this many hidden layers.
    pub depth: Option<usize>,
    /// Part of the names of the row's runs, to distinguish them from those of other rows.
    pub label: Option<String>,
    /// Keys set in every run of the row.
    #[serde(default, deserialize_with = "by_key")]
    pub set: Settings,
    /// Keys with a list of values each: every combination.
    #[serde(default, deserialize_with = "by_key")]
    pub grid: Grid,
}

/// The sweeps of the paper and of the manual, as the files in `configs/reproduce/` and `configs/devices/`.
pub const SWEEPS: [Preset; 19] = [
    ("alignment", include_str!("../../configs/reproduce/alignment.toml")),
    ("collapse", include_str!("../../configs/reproduce/collapse.toml")),
    ("device-asymmetry", include_str!("../../configs/devices/device-asymmetry.toml")),
    ("device-levels", include_str!("../../configs/devices/device-levels.toml")),
    ("device-presets", include_str!("../../configs/devices/device-presets.toml")),
    ("device-pulses", include_str!("../../configs/devices/device-pulses.toml")),
    ("device-spread", include_str!("../../configs/devices/device-spread.toml")),
    ("device-stuck", include_str!("../../configs/devices/device-stuck.toml")),
    ("ep-2h", include_str!("../../configs/reproduce/ep-2h.toml")),
    ("f2", include_str!("../../configs/reproduce/f2.toml")),
    ("f2-synchronous", include_str!("../../configs/reproduce/f2-synchronous.toml")),
    ("fashion", include_str!("../../configs/reproduce/fashion.toml")),
    ("fig4", include_str!("../../configs/reproduce/fig4.toml")),
    ("fig5a", include_str!("../../configs/reproduce/fig5a.toml")),
    ("printed", include_str!("../../configs/reproduce/printed.toml")),
    ("quick", include_str!("../../configs/reproduce/quick.toml")),
    ("settle", include_str!("../../configs/reproduce/settle.toml")),
    ("table3", include_str!("../../configs/reproduce/table3.toml")),
    ("table3-synchronous", include_str!("../../configs/reproduce/table3-synchronous.toml")),
];

/// The most runs in a sweep.
const MOST_RUNS: f64 = 1e5;

impl SweepFile {
    /// The text of a sweep file, or, where there is no such file, of the built-in one in [`SWEEPS`] with this name.
    ///
    /// # Errors
    /// Names the file, and the names that are known.
    pub fn text(path: &Path) -> Result<String> {
        let cannot = "cannot be read as a sweep, and is not one of the built-in ones:";
        Ok(file_or_built_in(path, SWEEPS.iter(), cannot, &SWEEPS)?)
    }

    /// Reads a sweep file, or one of [`SWEEPS`].
    ///
    /// # Errors
    /// Names the file, and the key where one is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let text = Self::text(path)?;
        let sweep: Self = toml::from_str(&text)
            .map_err(|error| Usage(format!("{name}: not a sweep file: {}", quoted_lines(error))))?;
        if sweep.rows.is_empty() {
            usage!("{name}: has no [[rows]], so there is nothing to run");
        }
        Ok(sweep)
    }

    /// Checks that a key has one value in a run: a key that varies is not set as well, here or from outside, and does
    /// not vary in two ways. A row's own setting beats that of all rows.
    fn check_keys(&self, path: &Path, overrides: &Choices) -> Result<()> {
        fn keys<'a, T>(place: &'a str, of: &'a [(String, T)]) -> impl Iterator<Item = (&'a str, &'a str)> {
            of.iter().map(move |(key, _)| (place, &key[..]))
        }
        for (row, i) in self.rows.iter().zip(1..) {
            let place = format!("{} row {i}", path.display());
            let set = keys("set", &self.set).chain(keys("set of the row", &row.set));
            let varied = || keys("grid", &self.grid).chain(keys("grid of the row", &row.grid));
            let all: Vec<(&str, &str)> = set.chain(varied()).collect();
            for (n, (section, key)) in all.iter().enumerate() {
                let contradicts = |(other, same): &&(&str, &str)| {
                    current_name(key) == current_name(same)
                        && (section.starts_with("grid") || other == section)
                };
                if let Some((other, same)) = all[..n].iter().find(contradicts) {
                    usage!(
                        "{place}: {same} in {other} and {key} in {section} are two values for one key: leave out one of \
                         them"
                    );
                }
            }
            for (_, key) in varied() {
                let (now, former) = (current_name(key), variable_of(key));
                let flag = overrides.flags.iter().find(|(_, flag, _)| current_name(flag) == now);
                let variable = overrides
                    .environment
                    .iter()
                    .find(|(name, _)| [variable_of(now), former.clone()].contains(name));
                if let Some(given) = flag.map(|(flag, ..)| flag).or(variable.map(|(name, _)| name)) {
                    usage!(
                        "{given}: {place} varies {key} itself: leave that out, change the file, or choose some of its runs \
                         by name with --only"
                    );
                }
            }
        }
        Ok(())
    }

    /// Expands all runs, each with its own name: for each combination of the sweep's grid, every row, and for each
    /// row every combination of its own grid. `overrides` holds the settings from outside; `data` returns the name of
    /// a run's data set.
    ///
    /// # Errors
    /// Names the row and the key that is unknown or impossible, and runs that would share a name.
    pub fn expand(
        &self,
        path: &Path,
        overrides: &Choices,
        data: impl Fn(&TrainingConfig) -> Result<String>,
    ) -> Result<Vec<(String, Resolved)>> {
        let file = path.display();
        let grids = self.rows.iter().map(|row| &row.grid).chain([&self.grid]);
        if let Some((key, _)) = grids.flatten().find(|(_, values)| values.is_empty()) {
            usage!("{file}: grid key {key} has no values");
        }
        // The product may be beyond all integers.
        let size = |grid: &Grid| grid.iter().map(|(_, values)| values.len() as f64).product::<f64>();
        let runs = size(&self.grid) * self.rows.iter().map(|row| size(&row.grid)).sum::<f64>();
        if runs > MOST_RUNS {
            usage!("{file}: its grids ask for {} runs; a sweep has at most {MOST_RUNS}", runs as u64);
        }
        self.check_keys(path, overrides)?;
        let mut resolved = Vec::new();
        for outer in combinations(&self.grid) {
            for (row, i) in self.rows.iter().zip(1..) {
                let place = format!("{file} row {i}");
                for inner in combinations(&row.grid) {
                    let varied = [&outer[..], &inner].concat();
                    let set = [&self.set[..], &row.set, &varied].concat();
                    let run = row.resolve(path, &place, set, overrides)?;
                    check_parts(&place, &run.config, &varied)?;
                    let marks = row.marks(&run.config, &varied);
                    resolved.push((place.clone(), run, marks));
                }
            }
        }
        // Data are loaded once all keys are known to be right.
        let mut names = BTreeSet::new();
        let notes = resolved.iter().flat_map(|(_, resolved, _)| &resolved.notes);
        notes.unique().for_each(|note| info!("{note}"));
        let planned = resolved.into_iter().map(|(place, resolved, marks)| {
            let name = resolved.config.run_name(&data(&resolved.config.training)?, &marks);
            name::check(&name, &place).with_context(|| format!("{place}: choose another label"))?;
            if !names.insert(name.clone()) {
                usage!("{place}: its run {name} has the name of another run: give one of the rows a label");
            }
            Ok((name, resolved))
        });
        planned.collect()
    }
}

/// Checks that every key that varies has an effect.
fn check_parts(place: &str, config: &Config, varied: &[(String, Value)]) -> Result<()> {
    for (key, why) in config.idle() {
        if varied.iter().any(|(varied, _)| current_name(varied) == key) {
            usage!(
                "{place}: {key} has no effect here, so its runs would all be the same: {why}: leave it out"
            );
        }
    }
    Ok(())
}

impl SweepRow {
    /// The configuration with these keys set. `place` names the row in messages.
    fn resolve(&self, path: &Path, place: &str, set: Settings, overrides: &Choices) -> Result<Resolved> {
        let sets = set.into_iter().map(|(key, value)| (place.to_string(), key, value)).collect();
        let beside = self.config.as_ref().map(|config| path.with_file_name(config));
        let choices = Choices {
            config: beside.filter(|beside| beside.is_file()).or_else(|| self.config.clone()),
            algo: self.algo,
            depth: self.depth,
            sets,
            ..overrides.clone()
        };
        Resolved::new(&choices).with_context(|| place.to_string())
    }

    /// The part of a run's name that distinguishes it within the sweep: the row's label, and the values that vary.
    fn marks(&self, config: &Config, varied: &[(String, Value)]) -> String {
        let varied = varied.iter().filter(|(key, _)| !config.is_in_name(key)).map(|(key, value)| {
            let key = key.split('.').next_back().unwrap_or(key);
            let text: String = value.to_string().chars().filter(|c| !"\"[] ".contains(*c)).collect();
            format!("-{key}{}", text.replace(',', "-"))
        });
        self.label.iter().map(|label| format!("-{label}")).chain(varied).collect()
    }
}

/// Every combination of a grid's values; the last key varies fastest.
fn combinations(grid: &Grid) -> impl Iterator<Item = Settings> {
    let axis = |(key, values): &(String, Vec<Value>)| {
        values.iter().map(|value| (key.clone(), value.clone())).collect::<Settings>()
    };
    grid.iter().map(axis).multi_cartesian_product()
}
