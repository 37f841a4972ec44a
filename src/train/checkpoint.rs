//! Checkpoints: one safetensors file with the weights, and in its metadata all that resuming needs.

use super::files;
use crate::config::Config;
use crate::engine::Report;
use crate::network::Parameters;
use crate::output::check_name;
use anyhow::{Context, Result, anyhow, bail};
use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::Metadata;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The metadata key. One key only: with several, their order in the file would change from run to run.
const KEY: &str = "eqprop";

/// What a checkpoint knows beside the weights.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// Format of this metadata.
    pub format: u32,
    /// The name of the run.
    pub run: String,
    /// The resolved configuration.
    pub config: Config,
    /// The data set that was trained on.
    pub data: String,
    /// Its checksums.
    pub checksums: BTreeMap<String, String>,
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
    /// Checks what a run relies on.
    ///
    /// # Errors
    /// The first value that no run of ours has written.
    fn check(&self) -> Result<()> {
        check_name("the run", &self.run).map_err(|error| anyhow!("{error}"))?;
        self.config.validate().map_err(|problem| anyhow!("{}: {}", problem.key, problem.message))
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

/// A checkpoint as bytes: the same bytes for the same run at the same place.
///
/// # Errors
/// Where the tensors cannot be read from their device.
pub fn to_bytes(theta: &Parameters, progress: &Progress) -> Result<Vec<u8>> {
    let metadata = HashMap::from([(KEY.to_string(), serde_json::to_string(progress)?)]);
    Ok(safetensors::serialize(theta.named(), Some(metadata))?)
}

/// A checkpoint read from a file.
pub struct Checkpoint {
    /// Its tensors.
    pub tensors: HashMap<String, Tensor>,
    /// Its metadata as it stands there; absent in a file of weights made elsewhere.
    metadata: Option<String>,
}

/// Reads a checkpoint, or any safetensors file of weights.
///
/// # Errors
/// Where the file is missing, cut short or not safetensors.
pub fn read(path: &Path) -> Result<Checkpoint> {
    let name = path.display();
    let damaged = || format!("{name}: not a whole safetensors file; use another checkpoint of the run");
    let (mut file, size) = files::open(path).with_context(|| format!("{name}: cannot be read"))?;
    if size > MOST_BYTES {
        bail!("{name}: has {size} bytes; a checkpoint has at most {MOST_BYTES}");
    }
    let mut bytes = Vec::new();
    file.by_ref().take(8).read_to_end(&mut bytes).with_context(damaged)?;
    let header = bytes.as_slice().try_into().map_or(u64::MAX, u64::from_le_bytes);
    if header > MOST_HEADER.min(size.saturating_sub(8)) {
        bail!("{}: it has {size} bytes, its header says that it has {header} alone", damaged());
    }
    file.by_ref().take(header).read_to_end(&mut bytes).with_context(damaged)?;
    let tensors: Metadata = serde_json::from_slice(&bytes[8..]).with_context(damaged)?;
    if 8 + header + tensors.data_len() as u64 != size {
        bail!(
            "{}: it has {size} bytes, its header says {}",
            damaged(),
            tensors.data_len() as u64 + header + 8
        );
    }
    file.take(size).read_to_end(&mut bytes).with_context(damaged)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).with_context(damaged)?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).with_context(damaged)?;
    let metadata = header.metadata().as_ref().and_then(|metadata| metadata.get(KEY)).cloned();
    Ok(Checkpoint { tensors, metadata })
}

/// Reads a checkpoint that must be one of ours.
///
/// # Errors
/// As [`read`], and where the file holds weights only, or metadata that this version does not understand.
pub fn read_progress(path: &Path) -> Result<(Checkpoint, Progress)> {
    let name = path.display();
    let checkpoint = read(path)?;
    let Some(text) = &checkpoint.metadata else {
        bail!(
            "{name}: holds weights but not the metadata of a checkpoint of eqprop; to start a new run from \
             these weights use `train --init`"
        );
    };
    let other = || {
        format!(
            "{name}: its metadata is not what this eqprop writes: use another checkpoint of the run or the version \
             that wrote it, or start from its weights with --init"
        )
    };
    let value: serde_json::Value = serde_json::from_str(text).with_context(other)?;
    let format = value["format"].as_u64();
    if format != Some(u64::from(FORMAT)) {
        bail!("{}: its format is {format:?}, not {FORMAT}", other());
    }
    let progress: Progress = serde_path_to_error::deserialize(value).with_context(other)?;
    progress.check().with_context(other)?;
    Ok((checkpoint, progress))
}

/// Whether a run has done so many epochs, as this checkpoint says; `false` where there is none.
///
/// # Errors
/// As [`read_progress`].
pub fn is_complete(last: &Path, epochs: usize) -> Result<bool> {
    Ok(last.is_file() && read_progress(last)?.1.epoch >= epochs)
}

/// The checkpoint folder of a run.
pub struct Folder {
    path: PathBuf,
    keep: usize,
}

impl Folder {
    /// `checkpoints/NAME`, of which the newest `keep` numbered files stay (0: all).
    pub fn new(path: PathBuf, keep: usize) -> Self {
        Self { path, keep }
    }

    /// `last.safetensors`.
    pub fn last(&self) -> PathBuf {
        self.path.join("last.safetensors")
    }

    /// Whether it holds nothing but, at most, a part of what a run saves before its first minibatch.
    pub fn is_at_start(&self) -> bool {
        let at_start = |path: &PathBuf| path.ends_with(numbered_name(0));
        !self.last().is_file() && self.numbered().unwrap_or_default().iter().all(at_start)
    }

    /// Writes `step-NNNNNNNN.safetensors`, makes `last.safetensors` the same, and `best.safetensors`
    /// too where `best`. Removes numbered files that are too many.
    ///
    /// # Errors
    /// Names the file that could not be written; earlier checkpoints stay.
    pub fn save(&self, step: u64, bytes: &[u8], best: bool) -> Result<()> {
        if best {
            files::write_atomically(&self.path.join("best.safetensors"), bytes)?;
        }
        let numbered = self.path.join(numbered_name(step));
        files::write_atomically(&numbered, bytes)?;
        self.link_last(&numbered, bytes)?;
        for superfluous in superfluous(self.numbered()?, self.keep) {
            fs::remove_file(&superfluous)
                .with_context(|| format!("{}: cannot be removed", superfluous.display()))?;
        }
        Ok(())
    }

    /// Makes `last.safetensors` the same file as `numbered`, or a copy where links are not to be had.
    fn link_last(&self, numbered: &Path, bytes: &[u8]) -> Result<()> {
        let link = self.path.join("last.safetensors.new");
        fs::remove_file(&link).ok();
        match fs::hard_link(numbered, &link).and_then(|()| fs::rename(&link, self.last())) {
            Ok(()) => Ok(()),
            Err(_) => files::write_atomically(&self.last(), bytes),
        }
    }

    /// The numbered checkpoints, oldest first.
    fn numbered(&self) -> Result<Vec<PathBuf>> {
        let entries =
            fs::read_dir(&self.path).with_context(|| format!("{}: cannot be listed", self.path.display()))?;
        let mut found: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with("step-") && name.ends_with(".safetensors")
            })
            .collect();
        found.sort();
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
        let complaint = || format!("{:#}", read(&path).err().unwrap());
        assert!(complaint().contains("x.safetensors: cannot be read"));
        for bytes in [&b""[..], b"12345678", b"\xff\xff\xff\xff\xff\xff\xff\xff{}"] {
            fs::write(&path, bytes).unwrap();
            assert!(complaint().contains("x.safetensors: not a whole safetensors file"));
        }
    }
}
