//! Epochs that TensorBoard no longer shows, as after a power cut, though `metrics.jsonl` has them.

use super::records::Told;
use super::tags;
use crate::base::files::{self, failed};
use anyhow::Result;
use protobuf::Message;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufReader, Read};
use std::path::Path;
use tensorboard_proto::event::{Event, Event_oneof_what as What, SessionLog_SessionStatus};
use tensorboard_rs::record_writer::RecordWriter;

/// Beginning of the names of event files.
pub const NAME: &str = "events.out.tfevents.";

/// A tag that every epoch has.
const TAG: &str = "error/test";

/// The most bytes of a record that is read; records of numbers have a hundredth of that.
const MOST_LOOKED_INTO: u64 = 64 << 10;

/// Numbers by epoch and tag, to be written again.
pub type Numbers = BTreeMap<usize, Vec<(String, f64)>>;

/// The numbers of the epochs before `next`, from the first one on that `metrics.jsonl` has and the event files lack.
///
/// # Errors
/// Names the file or folder that cannot be read.
pub fn lost(folder: &Path, next: usize) -> Result<Numbers> {
    let (told, shown) = (Told::read(folder)?, shown(folder)?);
    let Some(first) = told.epochs.range(..next).map(|(epoch, _)| *epoch).find(|epoch| !shown.contains(epoch))
    else {
        return Ok(Numbers::new());
    };
    let numbers = |line: &[u8]| -> Vec<(String, f64)> {
        let line: Map<String, Value> = serde_json::from_slice(line).unwrap_or_default();
        let numbers = line.into_iter().filter(|(tag, _)| tag != "epoch");
        numbers.filter_map(|(tag, value)| Some((tag, value.as_f64()?))).collect()
    };
    Ok(told.epochs.range(first..next).map(|(epoch, line)| (*epoch, numbers(line))).collect())
}

/// The epochs whose numbers are in the event files of a folder, one file after the other as TensorBoard reads them.
fn shown(folder: &Path) -> Result<BTreeSet<usize>> {
    let entries = fs::read_dir(folder).map_err(failed(folder, "cannot be listed"))?;
    let mut names: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    names.retain(|name| name.to_string_lossy().starts_with(NAME));
    names.sort();
    let mut shown = BTreeSet::new();
    for name in names {
        let path = folder.join(name);
        let file = files::open(&path).map_err(failed(&path, "cannot be read"))?.0;
        look_into(BufReader::new(file), &mut shown).map_err(failed(&path, "cannot be read"))?;
    }
    Ok(shown)
}

/// Collects what an event file shows and hides, up to its end or to where it is damaged.
fn look_into(mut file: impl Read, shown: &mut BTreeSet<usize>) -> io::Result<()> {
    let mut start = Vec::new();
    loop {
        start.clear();
        file.by_ref().take(12).read_to_end(&mut start)?;
        let Some(length) = start.first_chunk().copied().map(u64::from_le_bytes).filter(|_| start.len() == 12)
        else {
            return Ok(());
        };
        // The length of the record with its checksum.
        let Some(rest) = length.checked_add(4) else { return Ok(()) };
        if length > MOST_LOOKED_INTO {
            if io::copy(&mut file.by_ref().take(rest), &mut io::sink())? < rest {
                return Ok(());
            }
            continue;
        }
        let mut framed = start.clone();
        file.by_ref().take(rest).read_to_end(&mut framed)?;
        let Some(record) = framed.get(12..12 + length as usize) else { return Ok(()) };
        let mut right = Vec::new();
        RecordWriter::new(&mut right).write(record)?;
        let Some(event) = Event::parse_from_bytes(record).ok().filter(|_| right == framed) else {
            return Ok(());
        };
        let step = event.step.max(0) as usize;
        match event.what {
            Some(What::session_log(log)) if log.status == SessionLog_SessionStatus::START => {
                shown.split_off(&step);
            }
            Some(What::summary(summary))
                if summary.value.iter().any(|value| value.tag == tags::shown(TAG)) =>
            {
                shown.insert(step);
            }
            _ => {}
        }
    }
}
