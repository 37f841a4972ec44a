//! TensorBoard event files: records of Event messages, each with its length and masked checksums.
//!
//! Only what this program writes is stated here, of TensorFlow's `event.proto` and `summary.proto`.

use super::plugins::{self, Layout, PluginContent};
use super::tags;
use anyhow::{Context, Result};
use prost::{Enumeration, Message, Oneof};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// `Event`.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = 1)]
    wall_time: f64,
    #[prost(int64, tag = 2)]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, Oneof)]
enum What {
    #[prost(string, tag = 3)]
    FileVersion(String),
    #[prost(message, tag = 5)]
    Summary(Summary),
    #[prost(message, tag = 7)]
    SessionLog(SessionLog),
}

/// `SessionLog`.
#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(enumeration = "Status", tag = 1)]
    status: i32,
}

/// `SessionLog.SessionStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
enum Status {
    Unspecified = 0,
    Start = 1,
}

/// `Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = 1)]
    value: Vec<Tagged>,
}

/// `Summary.Value`.
#[derive(Clone, PartialEq, Message)]
struct Tagged {
    #[prost(string, tag = 1)]
    tag: String,
    /// Needed the first time only that a file names the tag.
    #[prost(message, optional, tag = 9)]
    metadata: Option<Metadata>,
    #[prost(oneof = "Value", tags = "2, 4, 5, 8")]
    value: Option<Value>,
}

/// `SummaryMetadata`.
#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(message, optional, tag = 1)]
    plugin: Option<Plugin>,
    #[prost(string, tag = 2)]
    display_name: String,
    #[prost(string, tag = 3)]
    description: String,
    #[prost(enumeration = "DataClass", tag = 4)]
    data_class: i32,
}

/// `DataClass`: readers take metadata as they are only where this is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
enum DataClass {
    Unknown = 0,
    Scalar = 1,
    Tensor = 2,
    BlobSequence = 3,
}

/// `SummaryMetadata.PluginData`.
#[derive(Clone, PartialEq, Message)]
struct Plugin {
    #[prost(string, tag = 1)]
    name: String,
    #[prost(bytes = "vec", tag = 2)]
    content: Vec<u8>,
}

impl Metadata {
    /// What TensorBoard shows of a tag with such values.
    fn of(tag: &str, value: &Value) -> Self {
        let (plugin, data_class) = match value {
            Value::Number(_) => ("scalars", DataClass::Scalar),
            Value::Image(_) => ("images", DataClass::BlobSequence),
            Value::Histogram(_) => ("histograms", DataClass::Tensor),
            Value::Tensor(_) => ("text", DataClass::Tensor),
        };
        let (display_name, description) = tags::describe(tag);
        let plugin = Some(Plugin { name: plugin.into(), content: Vec::new() });
        Self { plugin, display_name, description, data_class: data_class.into() }
    }

    fn of_plugin(name: &str, content: Vec<u8>) -> Self {
        let plugin = Some(Plugin { name: name.into(), content });
        Self { plugin, data_class: DataClass::Tensor.into(), ..Self::default() }
    }
}

#[derive(Clone, PartialEq, Oneof)]
enum Value {
    #[prost(float, tag = 2)]
    Number(f32),
    #[prost(message, tag = 4)]
    Image(Image),
    #[prost(message, tag = 5)]
    Histogram(Histogram),
    #[prost(message, tag = 8)]
    Tensor(Tensor),
}

/// `HistogramProto`.
#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(double, tag = 1)]
    min: f64,
    #[prost(double, tag = 2)]
    max: f64,
    #[prost(double, tag = 3)]
    count: f64,
    #[prost(double, tag = 4)]
    sum: f64,
    #[prost(double, tag = 5)]
    sum_of_squares: f64,
    /// The upper end of each bucket.
    #[prost(double, repeated, tag = 6)]
    limits: Vec<f64>,
    #[prost(double, repeated, tag = 7)]
    counts: Vec<f64>,
}

/// How many buckets a histogram has, of one width.
const BUCKETS: usize = 50;

impl Histogram {
    /// Of those of `values` that are finite; `None` where there are none.
    fn of(values: &[f32]) -> Option<Self> {
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
        let limits = (1..=BUCKETS).map(|i| min + width * i as f64).collect();
        Some(Self { min, max, count, sum, sum_of_squares, limits, counts })
    }
}

/// `TensorProto`, without the shape that a scalar does not have.
#[derive(Clone, PartialEq, Message)]
struct Tensor {
    /// `DataType`.
    #[prost(int32, tag = 1)]
    dtype: i32,
    #[prost(message, optional, tag = 2)]
    shape: Option<Shape>,
    #[prost(float, repeated, tag = 5)]
    floats: Vec<f32>,
    #[prost(bytes = "vec", repeated, tag = 8)]
    strings: Vec<Vec<u8>>,
}

/// `TensorShapeProto` of a scalar.
#[derive(Clone, PartialEq, Message)]
struct Shape {}

impl Tensor {
    /// One string.
    fn string(bytes: Vec<u8>) -> Self {
        Self { dtype: 7, shape: Some(Shape {}), floats: Vec::new(), strings: vec![bytes] }
    }

    /// The number 0, where only the metadata say something.
    fn nothing() -> Self {
        Self { dtype: 1, shape: Some(Shape {}), floats: vec![0.0], strings: Vec::new() }
    }
}

/// `Summary.Image`.
#[derive(Clone, PartialEq, Message)]
struct Image {
    #[prost(int32, tag = 1)]
    height: i32,
    #[prost(int32, tag = 2)]
    width: i32,
    /// 3: RGB.
    #[prost(int32, tag = 3)]
    colorspace: i32,
    /// PNG.
    #[prost(bytes = "vec", tag = 4)]
    encoded: Vec<u8>,
}

/// The checksum of records: CRC-32C, turned and shifted, so that the checksum of a record that holds checksums is
/// one too.
fn masked_checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Writes a record: its length, the checksum of the length, itself, and its checksum.
fn write_record(file: &mut impl Write, record: &[u8]) -> io::Result<()> {
    let length = (record.len() as u64).to_le_bytes();
    file.write_all(&length)?;
    file.write_all(&masked_checksum(&length).to_le_bytes())?;
    file.write_all(record)?;
    file.write_all(&masked_checksum(record).to_le_bytes())
}

/// A new event file in a run's folder.
pub struct EventFile {
    path: PathBuf,
    file: BufWriter<File>,
    /// The tags that this file has named.
    named: HashSet<String>,
}

impl EventFile {
    /// Begins an event file. Where `resumed_at` is given, TensorBoard forgets what earlier files of
    /// the folder say about that step and later ones.
    ///
    /// # Errors
    /// Names the file.
    pub fn create(folder: &Path, resumed_at: Option<usize>) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let host = gethostname::gethostname();
        // TensorBoard reads the files of a folder in the order of their names; two processes within
        // one second must not write the same one.
        let name = |attempt: usize| {
            let host = host.to_string_lossy();
            format!("events.out.tfevents.{:010}.{host}.{:09}.{attempt}", now.as_secs(), now.subsec_nanos())
        };
        let (path, file) = (0..100)
            .find_map(|attempt| {
                let path = folder.join(name(attempt));
                let file = OpenOptions::new().write(true).create_new(true).open(&path);
                match file {
                    Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => None,
                    result => Some((path, result)),
                }
            })
            .context("no free name for an event file")?;
        let file = file.with_context(|| format!("{}: cannot be created", path.display()))?;
        let mut events = Self { path, file: BufWriter::new(file), named: HashSet::new() };
        events.write(0, What::FileVersion("brain.Event:2".into()))?;
        if let Some(step) = resumed_at {
            events.write(step, What::SessionLog(SessionLog { status: Status::Start.into() }))?;
        }
        events.flush()?;
        Ok(events)
    }

    /// Adds a number to a curve.
    ///
    /// # Errors
    /// Names the file where it cannot be written.
    pub fn scalar(&mut self, tag: &str, value: f64, step: usize) -> Result<()> {
        self.summary(tag, Value::Number(value as f32), step)
    }

    /// Adds a picture, encoded as PNG.
    ///
    /// # Errors
    /// Names the file where it cannot be written.
    pub fn image(&mut self, tag: &str, png: Vec<u8>, width: u32, height: u32, step: usize) -> Result<()> {
        let (height, width) = (height as i32, width as i32);
        self.summary(tag, Value::Image(Image { height, width, colorspace: 3, encoded: png }), step)
    }

    /// Adds a histogram of `values`, unless none of them is finite.
    ///
    /// # Errors
    /// Names the file where it cannot be written.
    pub fn histogram(&mut self, tag: &str, values: &[f32], step: usize) -> Result<()> {
        match Histogram::of(values) {
            Some(histogram) => self.summary(tag, Value::Histogram(histogram), step),
            None => Ok(()),
        }
    }

    /// Adds a text, in Markdown.
    ///
    /// # Errors
    /// Names the file where it cannot be written.
    pub fn text(&mut self, tag: &str, markdown: &str, step: usize) -> Result<()> {
        self.summary(tag, Value::Tensor(Tensor::string(markdown.into())), step)
    }

    /// Says which curves the custom scalars tab draws together.
    ///
    /// # Errors
    /// Names the file where it cannot be written.
    pub fn layout(&mut self, layout: &Layout, step: usize) -> Result<()> {
        let metadata = Metadata::of_plugin(plugins::LAYOUT_PLUGIN, Vec::new());
        let value = Value::Tensor(Tensor::string(layout.encode_to_vec()));
        self.with_metadata(plugins::LAYOUT_TAG, metadata, value, step)
    }

    /// Tells the hparams tab something.
    ///
    /// # Errors
    /// Names the file where it cannot be written.
    pub fn hparams(&mut self, content: &PluginContent, step: usize) -> Result<()> {
        let metadata = Metadata::of_plugin(plugins::HPARAMS_PLUGIN, content.encode_to_vec());
        self.with_metadata(content.tag(), metadata, Value::Tensor(Tensor::nothing()), step)
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// Names the file where it cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().with_context(|| self.complaint())
    }

    fn summary(&mut self, tag: &str, value: Value, step: usize) -> Result<()> {
        let metadata = self.named.insert(tag.to_string()).then(|| Metadata::of(tag, &value));
        let value = vec![Tagged { tag: tag.into(), metadata, value: Some(value) }];
        self.write(step, What::Summary(Summary { value }))
    }

    fn with_metadata(&mut self, tag: &str, metadata: Metadata, value: Value, step: usize) -> Result<()> {
        let value = vec![Tagged { tag: tag.into(), metadata: Some(metadata), value: Some(value) }];
        self.write(step, What::Summary(Summary { value }))
    }

    fn write(&mut self, step: usize, what: What) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = Event { wall_time: now.as_secs_f64(), step: step as i64, what: Some(what) };
        write_record(&mut self.file, &event.encode_to_vec()).with_context(|| self.complaint())
    }

    fn complaint(&self) -> String {
        format!("{}: cannot be written. Is there space left?", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_those_of_the_format() {
        // The check value that goes with the polynomial.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        let event = Event { wall_time: 0.0, step: 0, what: Some(What::FileVersion("brain.Event:2".into())) };
        let record = event.encode_to_vec();
        assert_eq!(record, [&[0x1a, 13][..], b"brain.Event:2"].concat());
        let mut file = Vec::new();
        write_record(&mut file, &record).unwrap();
        assert_eq!((file.len(), &file[..8]), (8 + 4 + 15 + 4, &15u64.to_le_bytes()[..]));
        assert_eq!(file[27..], masked_checksum(&record).to_le_bytes());
    }
}
