//! TensorBoard event files.
//!
//! Written through the record writer of tensorboard-rs, but not through its threads, which abort
//! where a write fails and lose events at the end of a process.

use anyhow::{Context, Result};
use protobuf::Message;
use std::fs::{File, OpenOptions};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tensorboard_proto::event::{Event, SessionLog, SessionLog_SessionStatus};
use tensorboard_proto::summary::{Summary, Summary_Image, Summary_Value};
use tensorboard_rs::record_writer::RecordWriter;
use tensorboard_rs::summary;

/// A new event file in a run's folder.
pub struct EventFile {
    path: PathBuf,
    writer: RecordWriter<BufWriter<File>>,
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
        let mut events = Self { path, writer: RecordWriter::new(BufWriter::new(file)) };
        let mut version = Event::new();
        version.set_file_version("brain.Event:2".into());
        events.write(version)?;
        if let Some(step) = resumed_at {
            let mut log = SessionLog::new();
            log.set_status(SessionLog_SessionStatus::START);
            let mut event = Event::new();
            event.set_step(step as i64);
            event.set_session_log(log);
            events.write(event)?;
        }
        events.flush()?;
        Ok(events)
    }

    /// Adds a number to a curve.
    ///
    /// # Errors
    /// Names the file where it cannot be written.
    pub fn scalar(&mut self, tag: &str, value: f64, step: usize) -> Result<()> {
        let mut event = Event::new();
        event.set_step(step as i64);
        event.set_summary(summary::scalar(tag, value as f32));
        self.write(event)
    }

    /// Adds a picture, encoded as PNG.
    ///
    /// # Errors
    /// Names the file where it cannot be written.
    pub fn image(&mut self, tag: &str, png: Vec<u8>, width: u32, height: u32, step: usize) -> Result<()> {
        let mut image = Summary_Image::new();
        image.set_width(width as i32);
        image.set_height(height as i32);
        image.set_colorspace(3);
        image.set_encoded_image_string(png);
        let mut value = Summary_Value::new();
        value.set_tag(tag.into());
        value.set_image(image);
        let mut summary = Summary::new();
        summary.mut_value().push(value);
        let mut event = Event::new();
        event.set_step(step as i64);
        event.set_summary(summary);
        self.write(event)
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// Names the file where it cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.writer.flush().with_context(|| self.complaint())
    }

    fn write(&mut self, mut event: Event) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        event.set_wall_time(now.as_secs_f64());
        let bytes = event.write_to_bytes().with_context(|| self.complaint())?;
        self.writer.write(&bytes).with_context(|| self.complaint())
    }

    fn complaint(&self) -> String {
        format!("{}: cannot be written. Is there space left?", self.path.display())
    }
}
