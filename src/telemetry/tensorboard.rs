//! TensorBoard event files. `tensorboard-rs` encodes numbers, pictures and histograms and frames the records, over a
//! file of our own: its own writer ends the whole program where the disk is full, and two of its writers within a
//! second write one file.

use super::{plugins, refill, tags};
use crate::base::files;
use crate::base::time;
use crate::charts::pictures::Picture;
use anyhow::{Context, Result, ensure};
use protobuf::{Message, RepeatedField};
use std::collections::HashSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tensorboard_proto::event::{Event, Event_oneof_what as What, SessionLog, SessionLog_SessionStatus};
use tensorboard_proto::layout::Layout;
use tensorboard_proto::plugin_hparams::HParamsPluginData;
use tensorboard_proto::summary::{Summary, Summary_Value, SummaryMetadata, SummaryMetadata_PluginData};
use tensorboard_proto::tensor::TensorProto;
use tensorboard_proto::types::DataType;
use tensorboard_rs::{record_writer::RecordWriter, summary};

/// TensorFlow's `DataClass`; readers leave metadata as they are only where this is set.
#[derive(Clone, Copy)]
enum DataClass {
    Scalar = 1,
    Tensor = 2,
    BlobSequence = 3,
}

/// Metadata for the plugin of this name, with `content`.
fn metadata(plugin: &str, content: Vec<u8>, data_class: DataClass) -> SummaryMetadata {
    let mut metadata = SummaryMetadata::new();
    let plugin = SummaryMetadata_PluginData { plugin_name: plugin.into(), content, ..Default::default() };
    metadata.set_plugin_data(plugin);
    // `data_class`, field 4, is younger than the messages of tensorboard-proto.
    metadata.mut_unknown_fields().add_varint(4, data_class as u64);
    metadata
}

/// The description that TensorBoard shows for this tag.
fn description(tag: &str, plugin: &str, data_class: DataClass) -> SummaryMetadata {
    let (display_name, summary_description) = tags::describe(tag);
    SummaryMetadata { display_name, summary_description, ..metadata(plugin, Vec::new(), data_class) }
}

/// A tensor without dimensions, as a summary: tensorboard-rs has no function for it.
fn tensor(tag: &str, mut tensor: TensorProto) -> Summary {
    tensor.mut_tensor_shape();
    let mut value = Summary_Value { tag: tag.into(), ..Default::default() };
    value.set_tensor(tensor);
    Summary { value: vec![value].into(), ..Default::default() }
}

/// One string.
fn string(bytes: Vec<u8>) -> TensorProto {
    let string_val = RepeatedField::from_vec(vec![bytes]);
    TensorProto { dtype: DataType::DT_STRING, string_val, ..Default::default() }
}

/// The number 0, where only the metadata matter.
fn nothing() -> TensorProto {
    TensorProto { dtype: DataType::DT_FLOAT, float_val: vec![0.0], ..Default::default() }
}

/// The number of buckets of a histogram, all of one width.
const BUCKETS: usize = 50;

/// A histogram of the finite `values`; `None` where there are none.
fn histogram(tag: &str, values: &[f32]) -> Option<Summary> {
    let finite = || values.iter().map(|&value| f64::from(value)).filter(|value| value.is_finite());
    let min = finite().reduce(f64::min)?;
    let max = finite().reduce(f64::max)?;
    let width = ((max - min) / BUCKETS as f64).max(f64::MIN_POSITIVE.max(min.abs() * 1e-9));
    let mut counts = vec![0.0; BUCKETS];
    let (mut count, mut sum, mut sum_of_squares) = (0.0, 0.0, 0.0);
    for value in finite() {
        counts[(((value - min) / width) as usize).min(BUCKETS - 1)] += 1.0;
        (count, sum, sum_of_squares) = (count + 1.0, sum + value, sum_of_squares + value * value);
    }
    // The upper end of each bucket.
    let limits: Vec<f64> = (1..=BUCKETS).map(|i| min + width * i as f64).collect();
    Some(summary::histogram_raw(tag, min, max, count, sum, sum_of_squares, &limits, &counts))
}

/// A picture. `summary::image` panics where the number of pixels is wrong or 0.
fn image(tag: &str, picture: &Picture) -> Result<Summary> {
    let (width, height) = (picture.width as usize, picture.height as usize);
    ensure!(
        width > 0 && height > 0 && picture.pixels.len() == 3 * width * height,
        "a picture of {width} × {height} for TensorBoard has {} bytes of pixels",
        picture.pixels.len()
    );
    // It calls these dimensions height and width, but gives them to its encoder as width and height.
    let mut summary = summary::image(tag, &picture.pixels, &[3, width, height]);
    let stated = summary.mut_value()[0].mut_image();
    (stated.height, stated.width) = (height as i32, width as i32);
    Ok(summary)
}

/// A new event file in a run's folder. A file that cannot be written is an error that names it; a picture without
/// pixels is an error too.
pub struct EventFile {
    path: PathBuf,
    records: RecordWriter<BufWriter<File>>,
    /// The file, to wait for the disk.
    file: File,
    /// The tags that this file has described.
    named: HashSet<String>,
}

impl EventFile {
    /// Begins an event file. TensorBoard forgets the values of earlier files of the folder for the step `resumed_at`,
    /// or 0, and later ones.
    pub fn create(folder: &Path, resumed_at: Option<usize>) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let host = gethostname::gethostname();
        // TensorBoard reads the files of a folder in the order of their names; two processes within
        // one second must not write the same one.
        let name = |attempt: usize| {
            let host = host.to_string_lossy();
            format!("{}{:010}.{host}.{:09}.{attempt}", refill::NAME, now.as_secs(), now.subsec_nanos())
        };
        let (path, file) = (0..100)
            .find_map(|attempt| {
                let path = folder.join(name(attempt));
                match files::create_new(&path) {
                    Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => None,
                    result => Some((path, result)),
                }
            })
            .context("no free name for an event file")?;
        let file = file.with_context(|| format!("{}: cannot be created", path.display()))?;
        let mut events = Self::over(path, file)?;
        events.write(0, What::file_version("brain.Event:2".into()))?;
        let start = SessionLog { status: SessionLog_SessionStatus::START, ..Default::default() };
        events.write(resumed_at.unwrap_or(0), What::session_log(start))?;
        events.flush()?;
        Ok(events)
    }

    fn over(path: PathBuf, file: File) -> Result<Self> {
        let same = file.try_clone().with_context(|| format!("{}: cannot be opened", path.display()))?;
        let records = RecordWriter::new(BufWriter::new(file));
        Ok(Self { path, records, file: same, named: HashSet::new() })
    }

    /// Adds a number to a curve; TensorBoard may show the tag under another name.
    pub fn scalar(&mut self, tag: &str, value: f64, step: usize) -> Result<()> {
        let tag = &tags::shown(tag);
        self.described(tag, ("scalars", DataClass::Scalar), summary::scalar(tag, value as f32), step)
    }

    /// Adds a picture.
    pub fn image(&mut self, tag: &str, picture: &Picture, step: usize) -> Result<()> {
        self.described(tag, ("images", DataClass::BlobSequence), image(tag, picture)?, step)
    }

    /// Adds a histogram of `values`, unless none of them is finite.
    pub fn histogram(&mut self, tag: &str, values: &[f32], step: usize) -> Result<()> {
        match histogram(tag, values) {
            Some(histogram) => self.described(tag, ("histograms", DataClass::Tensor), histogram, step),
            None => Ok(()),
        }
    }

    /// Adds a text, in Markdown.
    pub fn text(&mut self, tag: &str, markdown: &str, step: usize) -> Result<()> {
        self.described(tag, ("text", DataClass::Tensor), tensor(tag, string(markdown.into())), step)
    }

    /// Sets which curves the custom-scalars tab draws together.
    pub fn layout(&mut self, layout: &Layout, step: usize) -> Result<()> {
        let metadata = metadata(plugins::LAYOUT_PLUGIN, Vec::new(), DataClass::Tensor);
        let layout = string(layout.write_to_bytes()?);
        self.summary(tensor(plugins::LAYOUT_TAG, layout), Some(metadata), step)
    }

    /// Adds content for the hparams tab.
    pub fn hparams(&mut self, content: &HParamsPluginData, step: usize) -> Result<()> {
        let metadata = metadata(plugins::HPARAMS_PLUGIN, content.write_to_bytes()?, DataClass::Tensor);
        self.summary(tensor(plugins::tag(content), nothing()), Some(metadata), step)
    }

    /// Flushes everything, and waits until it would survive a power cut.
    pub fn flush(&mut self) -> Result<()> {
        self.records.flush().and_then(|()| self.file.sync_data()).with_context(|| self.complaint())
    }

    /// Adds a value with its metadata, which a file needs only once for each tag.
    fn described(
        &mut self,
        tag: &str,
        (plugin, data_class): (&str, DataClass),
        summary: Summary,
        step: usize,
    ) -> Result<()> {
        let new = self.named.insert(tag.to_string());
        self.summary(summary, new.then(|| description(tag, plugin, data_class)), step)
    }

    /// Adds a summary of one value.
    fn summary(
        &mut self,
        mut summary: Summary,
        metadata: Option<SummaryMetadata>,
        step: usize,
    ) -> Result<()> {
        if let (Some(metadata), [value]) = (metadata, summary.mut_value().as_mut()) {
            value.set_metadata(metadata);
        }
        self.write(step, What::summary(summary))
    }

    fn write(&mut self, step: usize, what: What) -> Result<()> {
        let event = Event {
            wall_time: time::since_1970(),
            step: step as i64,
            what: Some(what),
            ..Default::default()
        };
        self.records.write(&event.write_to_bytes()?).with_context(|| self.complaint())
    }

    fn complaint(&self) -> String {
        format!("{}: cannot be written. Is there space left?", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC-32C, bit by bit.
    fn checksum(bytes: &[u8]) -> u32 {
        let bit = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
        !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), bit))
    }

    /// The masked checksum of the format: rotated and shifted, so that data with checksums in them still have good
    /// checksums.
    fn masked(bytes: &[u8]) -> [u8; 4] {
        checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
    }

    /// The records of a file, each with its length, the checksum of that, and its own.
    fn records(path: &Path) -> Vec<Vec<u8>> {
        let file = std::fs::read(path).unwrap();
        let (mut rest, mut records) = (&file[..], Vec::new());
        while let Some((length, after)) = rest.split_at_checked(8) {
            let (of_length, after) = after.split_at(4);
            assert_eq!(of_length, masked(length));
            let (record, after) = after.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
            let (of_record, after) = after.split_at(4);
            assert_eq!(of_record, masked(record));
            records.push(record.to_vec());
            rest = after;
        }
        assert!(rest.is_empty());
        records
    }

    /// Without the time, which comes first: its key and eight bytes.
    fn untimed(record: &[u8]) -> &[u8] {
        assert_eq!(record[0], 1 << 3 | 1);
        &record[9..]
    }

    #[test]
    fn records_are_those_of_the_format_and_the_first_say_where_the_file_begins() {
        // The check value that goes with the polynomial.
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
        let folder = tempfile::tempdir().unwrap();
        for (resumed_at, step) in [(None, &[][..]), (Some(3), &[2 << 3, 3])] {
            let mut events = EventFile::create(folder.path(), resumed_at).unwrap();
            events.scalar("t", 1.5, 4).unwrap();
            events.flush().unwrap();
            let records = records(&events.path);
            assert_eq!(records.len(), 3);
            assert_eq!(untimed(&records[0]), [&[3 << 3 | 2, 13][..], b"brain.Event:2"].concat());
            // SessionLog { status: START }, field 7.
            let start = [step, &[7 << 3 | 2, 2, 1 << 3, 1]].concat();
            assert_eq!(untimed(&records[1]), start);
            assert_eq!(untimed(&records[2])[..2], [2 << 3, 4]);
            assert!(
                records[2]
                    .windows(5)
                    .any(|bytes| bytes == [&[2 << 3 | 5][..], &1.5f32.to_le_bytes()].concat())
            );
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn metadata_have_the_class_of_data_that_readers_ask_for() {
        let plugin = [&[1 << 3 | 2, 7][..], b"hparams", &[2 << 3 | 2, 1, 42]].concat();
        let expected = [&[1 << 3 | 2, plugin.len() as u8][..], &plugin, &[4 << 3, 2]].concat();
        assert_eq!(metadata("hparams", vec![42], DataClass::Tensor).write_to_bytes().unwrap(), expected);
    }

    #[test]
    fn a_picture_is_as_wide_and_as_high_as_it_was_drawn() {
        let picture = Picture { pixels: (0..18).collect(), width: 3, height: 2 };
        let mut summary = image("t", &picture).unwrap();
        let stated = summary.mut_value()[0].take_image();
        assert_eq!((stated.width, stated.height, stated.colorspace), (3, 2, 3));
        let mut reader =
            png::Decoder::new(std::io::Cursor::new(stated.encoded_image_string)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height, info.color_type), (3, 2, png::ColorType::Rgb));
        assert_eq!(pixels, picture.pixels);
        // Sizes at which tensorboard-rs would panic.
        for (width, height) in [(2, 2), (0, 0)] {
            assert!(image("t", &Picture { pixels: Vec::new(), width, height }).is_err());
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_an_error_that_names_the_file() {
        let file = File::options().write(true).open("/dev/full").unwrap();
        let mut events = EventFile::over("events.out".into(), file).unwrap();
        let error = events.text("t", &"long ".repeat(10_000), 0).unwrap_err();
        assert!(error.to_string().starts_with("events.out: cannot be written"), "{error}");
        let error = events.scalar("t", 1.0, 0).and_then(|()| events.flush()).unwrap_err();
        assert!(error.to_string().starts_with("events.out: cannot be written"), "{error}");
    }
}
