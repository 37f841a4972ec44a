//! What a sweep runs: rows × grid, each combination a configuration with a name.

use crate::base::files;
use crate::base::name;
use crate::base::output::{Usage, usage};
use crate::config::{Choices, Resolved};
use crate::learning::Rule;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// A sweep file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepFile {
    /// What it is, for people.
    pub title: String,
    /// Keys that are set in every run.
    #[serde(default)]
    pub set: Table,
    /// Keys with a list of values each: every combination, for every row.
    #[serde(default)]
    pub grid: Table,
    /// What is run.
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
    /// and of so many hidden layers.
    pub depth: Option<usize>,
    /// Put into the names of the row's runs, to tell them from those of other rows.
    pub label: Option<String>,
    /// Keys that are set in every run of the row.
    #[serde(default)]
    pub set: Table,
    /// Keys with a list of values each: every combination.
    #[serde(default)]
    pub grid: Table,
}

/// One run of a sweep.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its name, unlike any other of the sweep.
    pub name: String,
    /// Its configuration.
    pub resolved: Resolved,
}

/// The most runs of a sweep.
pub const MOST_RUNS: usize = 100_000;

/// Keys whose value a run's name always shows.
const NAMED: [&str; 11] = [
    "network.psi",
    "network.time",
    "settle.order",
    "settle.solver",
    "settle.damping",
    "learning.rule",
    "learning.sigma_prime",
    "learning.nudging",
    "training.limit_train",
    "training.limit_test",
    "training.seed",
];

impl SweepFile {
    /// Reads a sweep file.
    ///
    /// # Errors
    /// Names the file, and the key where one is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let text = files::read_text(path).with_context(|| {
            format!("{name}: cannot be read as a sweep; those of the paper are in configs/reproduce/")
        })?;
        let sweep: Self =
            toml::from_str(&text).map_err(|error| Usage(format!("{name}: not a sweep file: {error}")))?;
        if sweep.rows.is_empty() {
            usage!("{name}: has no [[rows]], so there is nothing to run");
        }
        Ok(sweep)
    }

    /// All runs: for each combination of the sweep's grid, every row, and for each row every combination of
    /// its own grid. `overrides` brings what is set from outside; `data` is the name of the data set.
    ///
    /// # Errors
    /// Names the row and the key that is unknown or impossible, and runs that would share a name.
    pub fn expand(&self, path: &Path, overrides: &Choices, data: &str) -> Result<Vec<Planned>> {
        let rows = (self.rows.iter()).map(|row| size(&row.grid)).fold(0, usize::saturating_add);
        let runs = size(&self.grid).saturating_mul(rows);
        if runs > MOST_RUNS {
            usage!("{}: its grids ask for {runs} runs; a sweep has at most {MOST_RUNS}", path.display());
        }
        let mut planned: Vec<Planned> = Vec::new();
        let mut names = BTreeSet::new();
        for outer in combinations(&self.grid, path)? {
            for (i, row) in self.rows.iter().enumerate() {
                for inner in combinations(&row.grid, path)? {
                    let place = format!("{} row {}", path.display(), i + 1);
                    let run = self.planned(path, &place, row, &[&outer, &inner], overrides, data)?;
                    if !names.insert(run.name.clone()) {
                        usage!(
                            "{place}: its run {} has the name of another run: give one of the rows a label",
                            run.name
                        );
                    }
                    planned.push(run);
                }
            }
        }
        Ok(planned)
    }

    fn planned(
        &self,
        path: &Path,
        place: &str,
        row: &SweepRow,
        varied: &[&Vec<(String, Value)>],
        overrides: &Choices,
        data: &str,
    ) -> Result<Planned> {
        let mut flags = Vec::new();
        for (key, value) in flatten(&self.set)?.into_iter().chain(flatten(&row.set)?) {
            flags.push((place.to_string(), key, value));
        }
        let varied = || varied.iter().flat_map(|values| values.iter());
        flags.extend(varied().map(|(key, value)| (place.to_string(), key.clone(), value.clone())));
        flags.extend(overrides.flags.iter().cloned());
        let beside = row.config.as_ref().map(|config| {
            let beside = path.with_file_name(config);
            if beside.is_file() { beside } else { config.clone() }
        });
        let choices = Choices {
            config: beside,
            algo: row.algo,
            depth: row.depth,
            flags,
            environment: overrides.environment.clone(),
        };
        let resolved = Resolved::new(&choices).with_context(|| place.to_string())?;
        let marks: String = (row.label.iter().map(|label| format!("-{label}")))
            .chain(varied().filter(|(key, _)| !NAMED.contains(&key.as_str())).map(|(key, value)| {
                let key = key.split('.').next_back().unwrap_or(key);
                let text: String = value.to_string().chars().filter(|c| !"\"[] ".contains(*c)).collect();
                format!("-{key}{}", text.replace(',', "-"))
            }))
            .collect();
        let name = resolved.config.run_name(data);
        let seed = format!("-seed{}", resolved.config.training.seed);
        let name = name.strip_suffix(&seed).unwrap_or(&name).to_string() + &marks + &seed;
        name::check(&name, place).with_context(|| format!("{place}: choose another label"))?;
        Ok(Planned { name, resolved })
    }
}

/// `section.key` and value of everything in a table of sections.
fn flatten(table: &Table) -> Result<Vec<(String, Value)>> {
    let mut flat = Vec::new();
    for (section, keys) in table {
        let Value::Table(keys) = keys else {
            usage!("{section} stands outside the sections network, learning and training");
        };
        flat.extend(keys.iter().map(|(key, value)| (format!("{section}.{key}"), value.clone())));
    }
    Ok(flat)
}

/// How many combinations a grid has; those of what is no grid are not counted.
fn size(grid: &Table) -> usize {
    let keys = grid.values().filter_map(Value::as_table).flat_map(Table::values);
    keys.filter_map(Value::as_array).map(Vec::len).fold(1, usize::saturating_mul)
}

/// Every combination of a grid's values; the last key varies fastest.
fn combinations(grid: &Table, path: &Path) -> Result<Vec<Vec<(String, Value)>>> {
    let mut all = vec![Vec::new()];
    for (key, values) in flatten(grid)? {
        let Value::Array(values) = values else {
            usage!("{}: grid key {key} needs a list of values", path.display());
        };
        if values.is_empty() {
            usage!("{}: grid key {key} has no values", path.display());
        }
        all = (all.iter())
            .flat_map(|earlier| {
                values.iter().map(|value| {
                    let mut combination = earlier.clone();
                    combination.push((key.clone(), value.clone()));
                    combination
                })
            })
            .collect();
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<Vec<String>> {
        let sweep: SweepFile = toml::from_str(text)?;
        let runs = sweep.expand(Path::new("s.toml"), &Choices::default(), "mnist")?;
        Ok(runs.into_iter().map(|run| run.name).collect())
    }

    #[test]
    fn every_combination_once() {
        let text = r#"
            title = "t"
            grid.training.seed = [0, 1]
            [[rows]]
            config = "ep-1h"
            [[rows]]
            algo = "cvf"
            depth = 2
            grid.network.psi = [0, 22.5]
            grid.learning.beta = [0.1]
        "#;
        assert_eq!(
            expand(text).unwrap(),
            [
                "ep-1h-seed0",
                "cvf-2h-psi0-partial-beta0.1-seed0",
                "cvf-2h-psi22.5-partial-beta0.1-seed0",
                "ep-1h-seed1",
                "cvf-2h-psi0-partial-beta0.1-seed1",
                "cvf-2h-psi22.5-partial-beta0.1-seed1",
            ]
        );
    }

    #[test]
    fn mistakes_name_the_row() {
        let error = |text: &str| format!("{:#}", expand(text).unwrap_err());
        let twice =
            "title = 't'\n[[rows]]\nconfig = 'ep-1h'\n[[rows]]\nconfig = 'ep-1h'\nset.training.epochs = 3";
        assert!(error(twice).contains("row 2: its run ep-1h-seed0 has the name of another"));
        assert!(expand(&format!("{twice}\nlabel = 'short'")).is_ok());
        let unknown = "title = 't'\n[[rows]]\nconfig = 'ep-1h'\nset.learning.betta = 1";
        assert!(error(unknown).contains("s.toml row 1"), "{}", error(unknown));
        let number = "title = 't'\ngrid.training.seed = 3\n[[rows]]\nconfig = 'ep-1h'";
        assert!(error(number).contains("grid key training.seed needs a list"));
    }
}
