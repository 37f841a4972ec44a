//! Checkpoints: one safetensors file with the weights, and everything else that resuming needs in its metadata.

use super::progress::FORMAT;
pub use super::progress::Progress;
use crate::base::files::{self, failed};
use crate::data::known::sha256;
use crate::model::Parameters;
use crate::model::network::Shapes;
use candle_core::safetensors::Load;
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Metadata, TensorInfo, TensorView};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The metadata key. One key only: with several, their order in the file would change from run to run.
const KEY: &str = "eqprop";

/// Beginning of the checksum, which comes first under that key: as it stands in the file, a text within a text.
const CHECKSUM: &[u8] = br#"{\"checksum\":\""#;

/// Its digits before they are known, and while they are computed: a SHA-256 in hexadecimal.
const NO_CHECKSUM: [u8; 64] = [b'0'; 64];

/// The error of another library.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The reason why a checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refuses to read or write its file or folder.
    #[error(transparent)]
    File(#[from] files::Error),
    /// Its file has more bytes than a checkpoint can have.
    #[error("{}: has {} bytes; a checkpoint has at most {MOST_BYTES}", .0.display(), .1)]
    TooLarge(PathBuf, u64),
    /// Its file is not whole.
    #[error("{}: not a whole safetensors file; use another checkpoint of the run", .0.display())]
    Damaged(PathBuf, #[source] Cause),
    /// Its file holds weights, and nothing else that a run could resume from.
    #[error(
        "{}: holds weights but not the metadata of a checkpoint of eqprop; to start a new run from these weights use \
         `train --init`",
        .0.display()
    )]
    WeightsOnly(PathBuf),
    /// Its metadata were written by another version, or have been altered.
    #[error(
        "{}: its metadata is not what this eqprop writes: use another checkpoint of the run or the version that wrote \
         it, or start from its weights with --init",
        .0.display()
    )]
    Foreign(PathBuf, #[source] Cause),
    /// The weights cannot be read from their device, or not be written.
    #[error(transparent)]
    Unwritable(Cause),
}

/// The result of reading or writing a checkpoint.
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
    let checksum = String::from_utf8_lossy(&NO_CHECKSUM);
    let progress = progress.replacen('{', &format!("{{\"checksum\":\"{checksum}\","), 1);
    let metadata = HashMap::from([(KEY.to_string(), progress)]);
    let memory = memory.iter().map(|(name, tensor)| (name.clone(), tensor));
    let tensors = theta.named().into_iter().chain(memory);
    let mut bytes =
        safetensors::serialize(tensors, Some(metadata)).map_err(|cause| Error::Unwritable(cause.into()))?;
    if let Some(place) = checksum_in(&bytes) {
        let checksum = sha256(&bytes[..]).map_err(|cause| Error::Unwritable(cause.into()))?;
        bytes[place].copy_from_slice(checksum.as_bytes());
    }
    Ok(bytes)
}

/// A checkpoint read from a file.
pub struct Checkpoint {
    /// Its tensors. Those that were not asked for, or have another shape, are not read; zeros stand in for them.
    pub tensors: HashMap<String, Tensor>,
}

/// A safetensors file whose header has been read, and whose tensors have not.
struct Opened {
    path: PathBuf,
    file: File,
    /// The bytes before the tensors.
    begin: Vec<u8>,
    header: Metadata,
}

impl Opened {
    /// Checks the file against its checksum, if it has one.
    fn check(&mut self) -> Result<()> {
        let Some(place) = checksum_in(&self.begin) else { return Ok(()) };
        let mut begin = self.begin.clone();
        begin[place.clone()].copy_from_slice(&NO_CHECKSUM);
        let rest = self.file.seek(SeekFrom::Start(begin.len() as u64));
        let sum =
            rest.and_then(|_| sha256(begin.as_slice().chain(&self.file))).map_err(damaged(&self.path))?;
        match sum.as_bytes() == &self.begin[place] {
            true => Ok(()),
            false => {
                Err(damaged(&self.path)("its bytes have changed since it was written: the checksum differs"))
            }
        }
    }

    /// Reads the tensors that are `needed`, where they have the needed shape.
    fn tensors(&self, needed: &Shapes) -> Result<HashMap<String, Tensor>> {
        let tensors = self.header.tensors().into_iter().map(|(name, info)| {
            let is_needed = needed.iter().any(|(other, shape)| *other == name && *shape == info.shape);
            let tensor =
                if is_needed { self.tensor(info)? } else { stand_in(info).map_err(damaged(&self.path))? };
            Ok((name, tensor))
        });
        tensors.collect()
    }

    fn tensor(&self, info: &TensorInfo) -> Result<Tensor> {
        let (begin, end) = info.data_offsets;
        let mut bytes = vec![0; end - begin];
        let (mut file, place) = (&self.file, SeekFrom::Start((self.begin.len() + begin) as u64));
        (file.seek(place).and_then(|_| file.read_exact(&mut bytes))).map_err(damaged(&self.path))?;
        let view = TensorView::new(info.dtype, info.shape.clone(), &bytes).map_err(damaged(&self.path))?;
        view.load(&Device::Cpu).map_err(damaged(&self.path))
    }
}

/// A tensor of this type and shape that takes no memory.
fn stand_in(info: &TensorInfo) -> candle_core::Result<Tensor> {
    let dtype = DType::try_from(info.dtype).unwrap_or(DType::U8);
    Tensor::zeros((), dtype, &Device::Cpu)?.broadcast_as(info.shape.clone())
}

/// The place of the checksum in a file that begins with these bytes; `None` in files written before there were
/// checksums.
fn checksum_in(header: &[u8]) -> Option<Range<usize>> {
    let begin = header.windows(CHECKSUM.len()).position(|bytes| bytes == CHECKSUM)? + CHECKSUM.len();
    let there = begin..begin + NO_CHECKSUM.len();
    header.get(there.clone()).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)).then_some(there)
}

/// Turns a cause into the error that the file is not whole.
fn damaged<E: Into<Cause>>(path: &Path) -> impl Fn(E) -> Error {
    |cause| Error::Damaged(path.to_path_buf(), cause.into())
}

/// Opens a safetensors file and reads its header.
fn open(path: &Path) -> Result<Opened> {
    let (mut file, size) = files::open(path).map_err(failed(path, "cannot be read"))?;
    if size > MOST_BYTES {
        return Err(Error::TooLarge(path.to_path_buf(), size));
    }
    let mut begin = Vec::new();
    file.by_ref().take(8).read_to_end(&mut begin).map_err(damaged(path))?;
    let length = begin.as_slice().try_into().map_or(u64::MAX, u64::from_le_bytes);
    if length > MOST_HEADER.min(size.saturating_sub(8)) {
        let cause = format!("it has {size} bytes, its header alone says {length}");
        return Err(damaged(path)(cause));
    }
    file.by_ref().take(length).read_to_end(&mut begin).map_err(damaged(path))?;
    let header: Metadata =
        serde_json::from_slice(begin.get(8..).unwrap_or_default()).map_err(damaged(path))?;
    let said = 8 + length + header.data_len() as u64;
    if said != size {
        return Err(damaged(path)(format!("it has {size} bytes, its header says {said}")));
    }
    Ok(Opened { path: path.to_path_buf(), file, begin, header })
}

/// Our metadata in a file's header, as a text; `None` in a file of weights made elsewhere.
fn metadata(header: &Metadata) -> Option<String> {
    header.metadata().as_ref().and_then(|metadata| metadata.get(KEY)).cloned()
}

/// Reads the tensors of these names and shapes from a checkpoint, or any safetensors file of weights.
///
/// # Errors
/// Where the file is missing, too large, or not whole.
pub fn read(path: &Path, needed: &Shapes) -> Result<Checkpoint> {
    let mut opened = open(path)?;
    opened.check()?;
    Ok(Checkpoint { tensors: opened.tensors(needed)? })
}

/// The position of a run, read from the header of its checkpoint alone; `None` where there is no file, or no whole
/// checkpoint of this version.
pub fn progress_in_header(path: &Path) -> Option<Progress> {
    parse(&metadata(&open(path).ok()?.header)?).ok()
}

/// True where a file is a whole checkpoint, judged by its checksum if it has one.
pub fn is_whole(path: &Path) -> bool {
    open(path).and_then(|mut opened| opened.check()).is_ok()
}

/// Reads a checkpoint that must be one of ours.
///
/// # Errors
/// As [`read`], and where the file holds weights only, or metadata that this version does not understand.
pub fn read_progress(path: &Path) -> Result<(Checkpoint, Progress)> {
    let mut opened = open(path)?;
    opened.check()?;
    let Some(text) = metadata(&opened.header) else { return Err(Error::WeightsOnly(path.to_path_buf())) };
    let progress = parse(&text).map_err(|cause| Error::Foreign(path.to_path_buf(), cause))?;
    Ok((Checkpoint { tensors: opened.tensors(&progress.config.saved())? }, progress))
}

/// Parses the metadata of a checkpoint.
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

/// The name of the checkpoint that a run resumes from.
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

    /// Writes `step-NNNNNNNN.safetensors`, makes `last.safetensors` the same, and `best.safetensors` too where
    /// `best`. Keeps the newest `keep` of the run's numbered files (0: all); the run is or was called by these
    /// `names`.
    ///
    /// # Errors
    /// Names the file that could not be written; earlier checkpoints stay.
    pub fn save(&self, names: &[String], keep: usize, step: u64, bytes: &[u8], best: bool) -> Result<()> {
        if best {
            files::write_atomically(&self.best(), bytes)?;
        }
        let numbered = self.0.join(numbered_name(step));
        files::write_atomically(&numbered, bytes)?;
        self.make_last(&numbered)?;
        for superfluous in superfluous(self.numbered()?, keep) {
            // Other files stay, whatever their names.
            if progress_in_header(&superfluous).is_none_or(|progress| !names.contains(&progress.run)) {
                continue;
            }
            fs::remove_file(&superfluous).map_err(failed(&superfluous, "cannot be removed"))?;
        }
        Ok(())
    }

    /// Makes `last.safetensors` the file `numbered`: the same file, or a copy where the file system has no links.
    ///
    /// # Errors
    /// Names the file that could not be written.
    pub fn make_last(&self, numbered: &Path) -> Result<()> {
        Ok(files::link_atomically(numbered, &self.last())?)
    }

    /// The numbered checkpoints, oldest first.
    pub fn numbered(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.0).map_err(failed(&self.0, "cannot be listed"))?;
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut found: Vec<PathBuf> = paths.filter(|path| step_of(path).is_some()).collect();
        // Names with more than eight digits come after those with fewer.
        found.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
        Ok(found)
    }
}

/// The name of the checkpoint after so many minibatches.
pub fn numbered_name(step: u64) -> String {
    format!("step-{step:08}.safetensors")
}

/// The number of minibatches in the name of a numbered checkpoint.
pub fn step_of(path: &Path) -> Option<u64> {
    let step = path.file_name()?.to_str()?.strip_prefix("step-")?.strip_suffix(".safetensors")?;
    let is_number = step.len() >= 8 && step.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| step.parse().ok()).flatten()
}

/// The superfluous ones of the numbered checkpoints, given oldest first.
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
        let complaint = || read(&path, &Shapes::new()).err().unwrap().to_string();
        assert!(complaint().contains("x.safetensors: cannot be read"));
        for bytes in [&b""[..], b"12345678", b"\xff\xff\xff\xff\xff\xff\xff\xff{}"] {
            fs::write(&path, bytes).unwrap();
            assert!(complaint().contains("x.safetensors: not a whole safetensors file"));
        }
    }
}
