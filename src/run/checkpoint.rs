//! Checkpoints: one safetensors file with the weights, and in its metadata all that resuming needs.

use crate::base::files::{self, failed};
use crate::base::name;
use crate::config::Config;
use crate::engine::Report;
use crate::model::Parameters;
use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::Metadata;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use tracing::warn;

/// The metadata key. One key only: with several, their order in the file would change from run to run.
const KEY: &str = "eqprop";

/// What another library says.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system does not let its file or folder be read or written.
    #[error(transparent)]
    File(#[from] files::Error),
    /// Its file has more bytes than a checkpoint can have.
    #[error("{}: has {size} bytes; a checkpoint has at most {MOST_BYTES}", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        size: u64,
    },
    /// Its file is not whole.
    #[error("{}: not a whole safetensors file; use another checkpoint of the run", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Cause,
    },
    /// Its file holds weights, and nothing else that a run could go on from.
    #[error(
        "{}: holds weights but not the metadata of a checkpoint of eqprop; to start a new run from these weights use \
         `train --init`",
        .0.display()
    )]
    WeightsOnly(PathBuf),
    /// Its metadata are of another version, or have been altered.
    #[error(
        "{}: its metadata is not what this eqprop writes: use another checkpoint of the run or the version that wrote \
         it, or start from its weights with --init",
        .path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        source: Cause,
    },
    /// The weights cannot be had from their device, or not be written down.
    #[error(transparent)]
    Unwritable(Cause),
}

/// What reading or writing a checkpoint gives.
pub type Result<T> = std::result::Result<T, Error>;

/// What a checkpoint says cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Impossible(String);

/// What a checkpoint knows beside the weights.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// Format of this metadata.
    pub format: u32,
    /// The name of the run.
    pub run: String,
    /// The resolved configuration.
    #[serde(deserialize_with = "crate::config::of_any_version")]
    pub config: Config,
    /// The data set that was trained on.
    pub data: String,
    /// Its checksums.
    pub checksums: BTreeMap<String, String>,
    /// What each of its classes is called, by label; none where the labels are all there is, and in checkpoints from before
    /// names were kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
    /// Threads, on which the last bits may depend.
    pub threads: usize,
    /// Completed epochs.
    pub epoch: usize,
    /// Completed minibatches of the epoch under way.
    pub minibatch: u64,
    /// Where the random streams stand.
    pub rng: RngPosition,
    /// What the epoch under way has shown so far.
    pub running: Report,
    /// Best test error so far, percent.
    pub best_test_error: Option<f64>,
    /// Best error on the validation images so far, percent, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_validation_error: Option<f64>,
    /// Best train error of an epoch so far, percent.
    pub best_train_error: Option<f64>,
}

impl Progress {
    /// Whether the network has been tested before training, which is the first thing a run does.
    pub fn begun(&self) -> bool {
        self.best_test_error.is_some() || self.best_validation_error.is_some()
    }

    /// The next epoch whose numbers are to be recorded; 0 is before training.
    pub fn next_epoch(&self) -> usize {
        if self.begun() { self.epoch + 1 } else { 0 }
    }

    /// Checks what can be checked without the data: a checkpoint may have been altered, or made by anyone.
    ///
    /// # Errors
    /// The first thing that cannot be.
    fn check(&self) -> std::result::Result<(), Impossible> {
        (name::check(&self.run, "the run's name"))
            .and_then(|()| name::on_data(&self.run, &self.data).map(drop))
            .map_err(|error| Impossible(error.to_string()))?;
        self.config
            .validate()
            .map_err(|problem| Impossible(format!("{}: {}", problem.key, problem.message)))?;
        let training = &self.config.training;
        if self.epoch > training.epochs {
            let problem = format!("{} epochs are done of training.epochs = {}", self.epoch, training.epochs);
            return Err(Impossible(problem));
        }
        let percent = |error: Option<f64>| error.is_none_or(|error| (0.0..=100.0).contains(&error));
        if ![self.best_test_error, self.best_validation_error, self.best_train_error].into_iter().all(percent)
        {
            return Err(Impossible("its best errors are not from 0 to 100 %".into()));
        }
        Ok(())
    }

    /// Checks the position in the run against the number of training images.
    ///
    /// # Errors
    /// The first thing that does not go together.
    pub fn check_position(&self, images: usize) -> std::result::Result<(), Impossible> {
        let (training, running) = (&self.config.training, &self.running);
        let per_epoch = images.div_ceil(training.batch_size) as u64;
        if self.minibatch > per_epoch {
            let problem = format!("it stands at minibatch {} of {per_epoch} an epoch", self.minibatch);
            return Err(Impossible(problem));
        }
        // No more than images, so that this cannot overflow.
        let seen = (self.minibatch as usize).saturating_mul(training.batch_size).min(images);
        let counted = running.images == seen && running.errors <= seen && running.unsettled <= seen;
        if !counted || running.steps > seen.saturating_mul(self.config.settle.steps) || running.loss < 0.0 {
            return Err(Impossible(format!(
                "{} minibatches are {seen} images, yet it counts {} images, {} errors, {} unsettled and {} steps",
                self.minibatch, running.images, running.errors, running.unsettled, running.steps
            )));
        }
        let global = (self.epoch as u64).checked_mul(per_epoch).and_then(|n| n.checked_add(self.minibatch));
        let expected = global.map(|global| RngPosition::new(training.seed, self.epoch, global));
        if expected.as_ref() != Some(&self.rng) {
            return Err(Impossible(format!(
                "its random streams stand at {:?}, not where epoch {} and minibatch {} of seed {} have them",
                self.rng, self.epoch, self.minibatch, training.seed
            )));
        }
        Ok(())
    }
}

/// The position of the random streams; they are counter-based, so this is their whole state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RngPosition {
    /// The generator.
    pub generator: String,
    /// The seed of all streams.
    pub seed: u64,
    /// The next minibatch of the whole run: index into the β-sign stream.
    pub beta_sign: u64,
    /// The epoch under way: which shuffle stream orders it.
    pub shuffle: u64,
}

impl RngPosition {
    /// The position at a minibatch of the whole run in an epoch.
    pub fn new(seed: u64, epoch: usize, global_minibatch: u64) -> Self {
        Self { generator: "chacha8".into(), seed, beta_sign: global_minibatch, shuffle: epoch as u64 }
    }
}

/// Format written and read by this version.
pub const FORMAT: u32 = 1;

/// The most bytes a checkpoint can have: its header, and as many weights as a network may have, in 64 bits each.
const MOST_BYTES: u64 = MOST_HEADER + 8 * (1 << 30);

/// The most bytes of a header: names, shapes and metadata.
const MOST_HEADER: u64 = 16 << 20;

/// A checkpoint as bytes: the same bytes for the same run at the same place. `memory` is that of the engine's synapses.
///
/// # Errors
/// Where the tensors cannot be read from their device.
pub fn to_bytes(theta: &Parameters, memory: &[(String, Tensor)], progress: &Progress) -> Result<Vec<u8>> {
    let progress = serde_json::to_string(progress).map_err(|cause| Error::Unwritable(cause.into()))?;
    let metadata = HashMap::from([(KEY.to_string(), progress)]);
    let memory = memory.iter().map(|(name, tensor)| (name.clone(), tensor));
    let tensors = theta.named().into_iter().chain(memory);
    safetensors::serialize(tensors, Some(metadata)).map_err(|cause| Error::Unwritable(cause.into()))
}

/// A checkpoint read from a file.
pub struct Checkpoint {
    /// Its tensors.
    pub tensors: HashMap<String, Tensor>,
    /// Its metadata as it stands there; absent in a file of weights made elsewhere.
    metadata: Option<String>,
}

/// Makes of a cause that the file is not whole.
fn damaged<E: Into<Cause>>(path: &Path) -> impl Fn(E) -> Error {
    |cause| Error::Damaged { path: path.to_path_buf(), source: cause.into() }
}

/// Opens a safetensors file and reads its header: the file behind it, the bytes read, and what they say.
fn open(path: &Path) -> Result<(File, Vec<u8>, Metadata)> {
    let (mut file, size) = files::open(path).map_err(failed(path, "cannot be read"))?;
    if size > MOST_BYTES {
        return Err(Error::TooLarge { path: path.to_path_buf(), size });
    }
    let mut bytes = Vec::new();
    file.by_ref().take(8).read_to_end(&mut bytes).map_err(damaged(path))?;
    let header = bytes.as_slice().try_into().map_or(u64::MAX, u64::from_le_bytes);
    if header > MOST_HEADER.min(size.saturating_sub(8)) {
        let cause = format!("it has {size} bytes, its header says that it has {header} alone");
        return Err(damaged(path)(cause));
    }
    file.by_ref().take(header).read_to_end(&mut bytes).map_err(damaged(path))?;
    let tensors: Metadata = serde_json::from_slice(&bytes[8..]).map_err(damaged(path))?;
    if 8 + header + tensors.data_len() as u64 != size {
        let said = tensors.data_len() as u64 + header + 8;
        return Err(damaged(path)(format!("it has {size} bytes, its header says {said}")));
    }
    Ok((file, bytes, tensors))
}

/// Our metadata as it stands in a file's header; absent in a file of weights made elsewhere.
fn metadata(header: &Metadata) -> Option<String> {
    header.metadata().as_ref().and_then(|metadata| metadata.get(KEY)).cloned()
}

/// Reads a checkpoint, or any safetensors file of weights.
///
/// # Errors
/// Where the file is missing, too large, or not whole.
pub fn read(path: &Path) -> Result<Checkpoint> {
    let (file, mut bytes, _) = open(path)?;
    file.take(MOST_BYTES).read_to_end(&mut bytes).map_err(damaged(path))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(damaged(path))?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(damaged(path))?;
    Ok(Checkpoint { tensors, metadata: metadata(&header) })
}

/// What a checkpoint knows, read from its header alone; `None` where the file is not there or is no whole checkpoint
/// of this version.
pub fn progress_in_header(path: &Path) -> Option<Progress> {
    let (_, _, header) = open(path).ok()?;
    let progress: Progress = serde_json::from_str(&metadata(&header)?).ok()?;
    (progress.format == FORMAT && progress.check().is_ok()).then_some(progress)
}

/// Reads a checkpoint that must be one of ours.
///
/// # Errors
/// As [`read`], and where the file holds weights only, or metadata that this version does not understand.
pub fn read_progress(path: &Path) -> Result<(Checkpoint, Progress)> {
    let checkpoint = read(path)?;
    let Some(text) = &checkpoint.metadata else { return Err(Error::WeightsOnly(path.to_path_buf())) };
    let progress = parse(text).map_err(|source| Error::Foreign { path: path.to_path_buf(), source })?;
    Ok((checkpoint, progress))
}

/// What the metadata of a checkpoint say.
fn parse(text: &str) -> std::result::Result<Progress, Cause> {
    let value: serde_json::Value = serde_json::from_str(text)?;
    let format = value["format"].as_u64();
    if format != Some(u64::from(FORMAT)) {
        return Err(format!("its format is {format:?}, not {FORMAT}").into());
    }
    let progress: Progress = serde_path_to_error::deserialize(value)?;
    progress.check()?;
    Ok(progress)
}

/// The checkpoint folder of a run.
pub struct CheckpointFolder {
    path: PathBuf,
    keep: usize,
}

impl CheckpointFolder {
    /// `checkpoints/NAME`, of which the newest `keep` numbered files stay (0: all).
    pub fn new(path: PathBuf, keep: usize) -> Self {
        Self { path, keep }
    }

    /// `last.safetensors`.
    pub fn last(&self) -> PathBuf {
        self.path.join("last.safetensors")
    }

    /// `best.safetensors`.
    pub fn best(&self) -> PathBuf {
        self.path.join("best.safetensors")
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The checkpoint to go on from: `last.safetensors`, or, where that is not whole or not there, the newest
    /// numbered one that is whole, and says so. `None` where there is neither, or only what a run saves before
    /// its first minibatch and that not whole.
    ///
    /// # Errors
    /// As [`read_progress`], and where files are there of which none is whole.
    pub fn newest(&self) -> Result<Option<(PathBuf, Checkpoint, Progress)>> {
        let mut candidates = if self.path.is_dir() { self.numbered()? } else { Vec::new() };
        if self.last().is_file() {
            candidates.push(self.last());
        } else if !candidates.is_empty() {
            warn!("{} is not there", self.last().display());
        }
        let at_start = candidates.iter().all(|path| path.ends_with(numbered_name(0)));
        let mut complaint = None;
        for path in candidates.into_iter().rev() {
            match read_progress(&path) {
                Ok((checkpoint, progress)) => {
                    if path != self.last() {
                        warn!("going on from {}, the newest whole checkpoint of the run", path.display());
                    }
                    return Ok(Some((path, checkpoint, progress)));
                }
                Err(error @ Error::Damaged { .. }) => {
                    warn!("{}: not whole", path.display());
                    complaint.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        complaint.filter(|_| !at_start).map_or(Ok(None), Err)
    }

    /// Writes `step-NNNNNNNN.safetensors`, makes `last.safetensors` the same, and `best.safetensors`
    /// too where `best`. Removes numbered files that are too many and of the run, which is and was called by these `names`.
    ///
    /// # Errors
    /// Names the file that could not be written; earlier checkpoints stay.
    pub fn save(&self, names: &[String], step: u64, bytes: &[u8], best: bool) -> Result<()> {
        if best {
            files::write_atomically(&self.best(), bytes)?;
        }
        let numbered = self.path.join(numbered_name(step));
        files::write_atomically(&numbered, bytes)?;
        self.make_last(&numbered, bytes)?;
        for superfluous in superfluous(self.numbered()?, self.keep) {
            // What is not ours stays, whatever its name.
            if progress_in_header(&superfluous).is_none_or(|progress| !names.contains(&progress.run)) {
                continue;
            }
            fs::remove_file(&superfluous).map_err(failed(&superfluous, "cannot be removed"))?;
        }
        Ok(())
    }

    /// Makes `last.safetensors` the file `numbered`, which holds these bytes: the same file, or a copy where links are
    /// not to be had.
    ///
    /// # Errors
    /// Names the file that could not be written.
    pub fn make_last(&self, numbered: &Path, bytes: &[u8]) -> Result<()> {
        files::link_atomically(numbered, &self.last())
            .or_else(|_| files::write_atomically(&self.last(), bytes))?;
        Ok(())
    }

    /// The numbered checkpoints, oldest first.
    fn numbered(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.path).map_err(failed(&self.path, "cannot be listed"))?;
        let mut found: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let step = name.strip_prefix("step-").and_then(|name| name.strip_suffix(".safetensors"));
                step.is_some_and(|step| step.len() >= 8 && step.bytes().all(|b| b.is_ascii_digit()))
            })
            .collect();
        // More than eight digits come after fewer.
        found.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
        Ok(found)
    }
}

/// The name of the checkpoint after so many minibatches.
fn numbered_name(step: u64) -> String {
    format!("step-{step:08}.safetensors")
}

/// Which of the numbered checkpoints, oldest first, are too many.
fn superfluous(mut numbered: Vec<PathBuf>, keep: usize) -> Vec<PathBuf> {
    let excess = if keep == 0 { 0 } else { numbered.len().saturating_sub(keep) };
    numbered.truncate(excess);
    numbered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_keeps_the_newest() {
        let files: Vec<PathBuf> = (0..5).map(|i| format!("step-{i}").into()).collect();
        assert_eq!(superfluous(files.clone(), 3), files[..2]);
        assert!(superfluous(files.clone(), 5).is_empty());
        assert!(superfluous(files, 0).is_empty());
    }

    #[test]
    fn unreadable_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let complaint = || read(&path).err().unwrap().to_string();
        assert!(complaint().contains("x.safetensors: cannot be read"));
        for bytes in [&b""[..], b"12345678", b"\xff\xff\xff\xff\xff\xff\xff\xff{}"] {
            fs::write(&path, bytes).unwrap();
            assert!(complaint().contains("x.safetensors: not a whole safetensors file"));
        }
    }
}
