//! Where a run had its data, as its folder says, and the same data from there again.

use super::locate;
use crate::config::{Config, TrainingConfig};
use crate::data::{self, DataChoice, Dataset};
use crate::run::checkpoint::CheckpointFolder;
use crate::telemetry::records;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tracing::{info, warn};

/// What a run's folder says of its data.
pub struct Recorded {
    /// The name of the set.
    pub name: String,
    /// The file or folder; what was generated or downloaded has none.
    place: PathBuf,
    checksums: BTreeMap<String, String>,
}

impl Recorded {
    /// What the folder `runs/NAME` says; `None` where it names no file or folder, or, which is said, cannot be read.
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
        // Earlier versions wrote it as it was typed.
        (place.is_absolute() || place.exists()).then_some(())?;
        let checksums = serde_json::from_value(data["sha256"].clone()).ok()?;
        Some(Self { name: data["name"].as_str()?.into(), place, checksums })
    }

    /// Whether something is where the data were.
    pub fn is_there(&self) -> bool {
        self.place.exists()
    }

    /// The data of a run with these checksums and this configuration, whole; `None`, and why is said, where they are not
    /// there any more.
    pub fn load(&self, training: &TrainingConfig, checksums: &BTreeMap<String, String>) -> Option<Dataset> {
        if self.checksums != *checksums {
            return None;
        }
        let place = self.place.display();
        if !self.is_there() {
            info!("{place}, where the run had its data, is not there any more: looking in the usual places");
            return None;
        }
        match data::load(training.data.again(&self.name), Some(&self.place)) {
            // A folder above it may have given the set its name.
            Ok(dataset) if dataset.checksums == *checksums => {
                Some(Dataset { name: self.name.clone(), ..dataset })
            }
            Ok(_) => {
                info!("{place} holds other data than the run had from there: looking in the usual places");
                None
            }
            Err(error) => {
                info!(
                    "the data of the run cannot be had from {place} ({error}): looking in the usual places"
                );
                None
            }
        }
    }
}

/// The run that this configuration would be on data that are not named: the only one in `runs` that is called as it would
/// be on its own data, has a checkpoint, and whose data are still there.
pub fn run_on_its_own_data(
    config: &Config,
    runs: &Path,
    checkpoints: &Path,
    called: &dyn Fn(&str) -> Option<String>,
) -> Option<String> {
    let choice = config.training.data;
    let stem = called(DataChoice::MNIST)?;
    // A run on MNIST that was downloaded has no place of its own, and is the one that is meant.
    let is_on_mnist = || CheckpointFolder(checkpoints.join(&stem)).last().is_file();
    if choice == DataChoice::Auto && Recorded::read(&runs.join(&stem)).is_none() && is_on_mnist() {
        return None;
    }
    let begins = stem.split('-').next().unwrap_or_default();
    // Cheap conditions first: a sweep has a thousand runs beside it.
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
