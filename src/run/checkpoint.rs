//! Checkpoints: one safetensors file with the weights, and in its metadata all that resuming needs.

use super::progress::FORMAT;
pub use super::progress::Progress;
use crate::base::files::{self, failed};
use crate::model::Parameters;
use candle_core::{Device, Tensor};
use safetensors::tensor::Metadata;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

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
    #[error("{}: has {} bytes; a checkpoint has at most {MOST_BYTES}", .0.display(), .1)]
    TooLarge(PathBuf, u64),
    /// Its file is not whole.
    #[error("{}: not a whole safetensors file; use another checkpoint of the run", .0.display())]
    Damaged(PathBuf, #[source] Cause),
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
        .0.display()
    )]
    Foreign(PathBuf, #[source] Cause),
    /// The weights cannot be had from their device, or not be written down.
    #[error(transparent)]
    Unwritable(Cause),
}

/// What reading or writing a checkpoint gives.
pub type Result<T> = std::result::Result<T, Error>;

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
    |cause| Error::Damaged(path.to_path_buf(), cause.into())
}

/// Opens a safetensors file and reads its header: the file behind it, the bytes read, and what they say.
fn open(path: &Path) -> Result<(File, Vec<u8>, Metadata)> {
    let (mut file, size) = files::open(path).map_err(failed(path, "cannot be read"))?;
    if size > MOST_BYTES {
        return Err(Error::TooLarge(path.to_path_buf(), size));
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
    let (file, mut bytes, header) = open(path)?;
    file.take(MOST_BYTES).read_to_end(&mut bytes).map_err(damaged(path))?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(damaged(path))?;
    Ok(Checkpoint { tensors, metadata: metadata(&header) })
}

/// What a checkpoint knows, read from its header alone; `None` where the file is not there or is no whole checkpoint
/// of this version.
pub fn progress_in_header(path: &Path) -> Option<Progress> {
    let (_, _, header) = open(path).ok()?;
    parse(&metadata(&header)?).ok()
}

/// Reads a checkpoint that must be one of ours.
///
/// # Errors
/// As [`read`], and where the file holds weights only, or metadata that this version does not understand.
pub fn read_progress(path: &Path) -> Result<(Checkpoint, Progress)> {
    let checkpoint = read(path)?;
    let Some(text) = &checkpoint.metadata else { return Err(Error::WeightsOnly(path.to_path_buf())) };
    let progress = parse(text).map_err(|cause| Error::Foreign(path.to_path_buf(), cause))?;
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

/// The name of the checkpoint that a run goes on from.
pub const LAST: &str = "last.safetensors";

/// The checkpoint folder of a run, `checkpoints/NAME`.
pub struct CheckpointFolder(pub PathBuf);

impl CheckpointFolder {
    /// `last.safetensors`.
    pub fn last(&self) -> PathBuf {
        self.0.join(LAST)
    }

    /// `best.safetensors`.
    pub fn best(&self) -> PathBuf {
        self.0.join("best.safetensors")
    }

    /// Writes `step-NNNNNNNN.safetensors`, makes `last.safetensors` the same, and `best.safetensors`
    /// too where `best`. Of the numbered files of the run, which is and was called by these `names`, the newest `keep` stay
    /// (0: all).
    ///
    /// # Errors
    /// Names the file that could not be written; earlier checkpoints stay.
    pub fn save(&self, names: &[String], keep: usize, step: u64, bytes: &[u8], best: bool) -> Result<()> {
        if best {
            files::write_atomically(&self.best(), bytes)?;
        }
        let numbered = self.0.join(numbered_name(step));
        files::write_atomically(&numbered, bytes)?;
        self.make_last(&numbered, bytes)?;
        for superfluous in superfluous(self.numbered()?, keep) {
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
    pub fn numbered(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.0).map_err(failed(&self.0, "cannot be listed"))?;
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
pub fn numbered_name(step: u64) -> String {
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
