//! The source of a run's data, as recorded in its folder, and the same data loaded from there again.

use super::locate;
use crate::config::{Config, TrainingConfig};
use crate::data::{self, DataChoice, Dataset};
use crate::run::checkpoint::CheckpointFolder;
use crate::telemetry::records;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tracing::{info, warn};

/// The record of a run's data.
pub struct Recorded {
    /// The name of the set.
    pub name: String,
    /// The file or folder; generated and downloaded data have none.
    place: PathBuf,
    checksums: BTreeMap<String, String>,
}

impl Recorded {
    /// Reads the record in the folder `runs/NAME`; `None` where it names no file or folder, and, with a warning,
    /// where it cannot be read.
    pub fn read(records: &Path) -> Option<Self> {
        let environment = match records::environment(records) {
            Ok(environment) => environment?,
            Err(error) => {
                let error = anyhow::Error::from(error);
                warn!("{error:#}, so that the data are looked for in the usual places");
                return None;
            }
        };
        let data = &environment["data"];
        let place = PathBuf::from(data["source"].as_str()?);
        // Earlier versions wrote the path as it was typed.
        (place.is_absolute() || place.exists()).then_some(())?;
        let checksums = serde_json::from_value(data["sha256"].clone()).ok()?;
        Some(Self { name: data["name"].as_str()?.into(), place, checksums })
    }

    /// True where something is at the recorded place.
    pub fn is_there(&self) -> bool {
        self.place.exists()
    }

    /// Loads the data of a run with these checksums and this configuration, complete; `None`, with a message, where
    /// they are no longer there.
    pub fn load(&self, training: &TrainingConfig, checksums: &BTreeMap<String, String>) -> Option<Dataset> {
        if self.checksums != *checksums {
            return None;
        }
        let place = self.place.display();
        if !self.is_there() {
            info!("{place}, where the run had its data, no longer exists: looking in the usual places");
            return None;
        }
        match data::load(training.data.again(&self.name), Some(&self.place)) {
            // A folder above it may have given the set its name.
            Ok(dataset) if dataset.checksums == *checksums => {
                Some(Dataset { name: self.name.clone(), ..dataset })
            }
            Ok(_) => {
                info!("{place} holds other data than the run used: looking in the usual places");
                None
            }
            Err(error) => {
                info!(
                    "the data of the run cannot be loaded from {place} ({error}): looking in the usual places"
                );
                None
            }
        }
    }
}

/// The run that a configuration without named data stands for: the only one in `runs` that is called as it would be
/// on its own data, has a checkpoint, and whose data still exist.
pub fn run_on_its_own_data(
    config: &Config,
    runs: &Path,
    checkpoints: &Path,
    called: &dyn Fn(&str) -> Option<String>,
) -> Option<String> {
    let choice = config.training.data;
    let stem = called(DataChoice::MNIST)?;
    // A run on downloaded MNIST has no place of its own, and is then the run in question.
    let is_on_mnist = || CheckpointFolder(checkpoints.join(&stem)).last().is_file();
    if choice == DataChoice::Auto && Recorded::read(&runs.join(&stem)).is_none() && is_on_mnist() {
        return None;
    }
    let begins = stem.split('-').next().unwrap_or_default();
    // Cheap conditions first: a sweep has a thousand runs.
    let mut found = locate::names(runs).into_iter().filter(|name| {
        let checkpoint = CheckpointFolder(checkpoints.join(name)).last();
        name.starts_with(begins) && checkpoint.is_file() && {
            Recorded::read(&runs.join(name)).is_some_and(|recorded| {
                let named = DataChoice::Auto.again(&recorded.name);
                let is_asked_for = choice == DataChoice::Auto || choice == named;
                is_asked_for && recorded.is_there() && called(&recorded.name).as_ref() == Some(name)
            })
        }
    });
    let only = found.next()?;
    found.next().is_none().then_some(only)
}
