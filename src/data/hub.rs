//! MNIST, Fashion-MNIST and CIFAR-10 from the Hugging Face hub, as candle-datasets reads them.
//!
//! What candle-datasets downloads comes without a word of how far it is, and what fails without its cause. So its files
//! are brought into the cache first, where it finds them; and what it makes of a damaged file is an error here.

use super::known::{Known, Part, sha256};
use super::{DataChoice, Dataset, Error, Place, Result, Source, Split};
use crate::base::{files, panic};
use anyhow::{Context, anyhow, ensure};
use candle_core::Tensor;
use candle_datasets::vision;
use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};
use hf_hub::{HFClientSync, HFError};
use indicatif::{ProgressBar, ProgressStyle};
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::cell::Cell;
use std::fs::File;
use std::io::Seek;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::{Path, PathBuf};
use std::sync::Once;
use tracing::info;

/// The branch into which the hub itself converts data sets to Parquet.
const REVISION: &str = "refs/convert/parquet";

/// The parts of a set, as in the names of its files.
const PARTS: [&str; 2] = ["train", "test"];

/// The most bytes of a file; those of CIFAR-10 have 119 million.
const MOST_BYTES: u64 = 256 << 20;

/// The Hugging Face hub.
pub(super) struct Hub;

impl Source for Hub {
    fn has(&self, choice: DataChoice, place: Option<&Place>) -> bool {
        place.is_none() && choice != DataChoice::Glyphs
    }

    fn remote_name(&self, choice: DataChoice) -> Option<&'static str> {
        Some(wanted(choice).name)
    }

    fn is_here(&self, choice: DataChoice) -> bool {
        let remote = Remote::of(wanted(choice));
        let Ok(hub) = HFClientSync::new() else { return false };
        PARTS.iter().all(|part| remote.file(&hub, part, None).is_ok())
    }

    /// Loads the set from the cache, and downloads it first if necessary.
    fn read(&self, choice: DataChoice, _: Option<&Place>) -> Result<Dataset> {
        let known = wanted(choice);
        load(known).map_err(|cause| Error::Unavailable {
            problem: format!(
                "{} could not be loaded from the Hugging Face hub: check the connection, or give a folder \
                 with its files \
                 by --data-dir or EQPROP_DATA",
                known.title
            ),
            source: Some(cause.into()),
        })
    }
}

/// The set that a choice asks the hub for.
fn wanted(choice: DataChoice) -> &'static Known {
    Known::named_by(choice).unwrap_or(Known::MNIST)
}

/// A set on the hub, as candle-datasets asks for it.
struct Remote {
    owner: &'static str,
    repository: &'static str,
    /// The folder of its files.
    folder: &'static str,
    load: fn() -> candle_core::Result<vision::Dataset>,
}

impl Remote {
    #[cfg_attr(not(test), expect(clippy::disallowed_methods, reason = "`load` below checks the files first"))]
    fn of(known: &Known) -> Self {
        let (owner, repository, folder, load): (_, _, _, fn() -> _) = match known.choice {
            DataChoice::FashionMnist => {
                ("zalando-datasets", "fashion_mnist", "fashion_mnist", vision::fashion_mnist::load)
            }
            DataChoice::Cifar10 => ("", "cifar10", "plain_text", vision::cifar::load),
            _ => ("ylecun", "mnist", "mnist", vision::mnist::load),
        };
        Self { owner, repository, folder, load }
    }

    /// The name of the file of a part in the repository.
    fn name(&self, part: &str) -> String {
        format!("{}/{part}/0000.parquet", self.folder)
    }

    /// The file of a part in the cache; downloaded if it is missing, and only if there is a `bar`.
    fn file(
        &self,
        hub: &HFClientSync,
        part: &str,
        bar: Option<Bar>,
    ) -> std::result::Result<PathBuf, HFError> {
        let repository = hub.dataset(self.owner, self.repository);
        let file = repository.download_file().filename(self.name(part)).revision(REVISION);
        match bar {
            Some(bar) => file.progress(bar).send(),
            None => file.local_files_only(true).send(),
        }
    }

    /// The name of the repository on the hub.
    fn id(&self) -> String {
        [self.owner, self.repository]
            .iter()
            .filter(|word| !word.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join("/")
    }
}

fn load(known: &Known) -> anyhow::Result<Dataset> {
    let remote = Remote::of(known);
    let files = fetch(&remote)?;
    let damaged = || {
        let [train, test] = &files;
        format!(
            "{} and {} cannot be read as {}: remove them, and they are downloaded again",
            train.display(),
            test.display(),
            known.title
        )
    };
    let read = || -> anyhow::Result<_> {
        check(&files[0], &known.train, "training", known)?;
        check(&files[1], &known.test, "test", known)?;
        Ok((remote.load)()?)
    };
    let read =
        without_panic(read).map_err(|said| anyhow!(said)).and_then(|read| read).with_context(damaged)?;
    let id = remote.id();
    let train = split(known, &read.train_images, &read.train_labels, format!("hub {id} train"))?;
    let test = split(known, &read.test_images, &read.test_labels, format!("hub {id} test"))?;
    let differences = known.differences(&train, &test);
    if !differences.is_empty() {
        return Err(anyhow!(differences.join("; ")).context(damaged()));
    }
    let source = format!("Hugging Face hub, {id}");
    Ok(Dataset { class_names: known.class_names(), ..Dataset::new(known.name.into(), source, train, test) })
}

/// Checks a file before candle-datasets reads it: that it exists, has a plausible size, has no more rows than the
/// part of the set, and has the checksum by which the cache names large files.
fn check(path: &Path, part: &Part, word: &str, known: &Known) -> anyhow::Result<()> {
    let open = || -> anyhow::Result<(File, u64)> {
        files::open(path).with_context(|| format!("{}: cannot be read", path.display()))
    };
    let (mut file, size) = open()?;
    ensure!(
        size <= MOST_BYTES,
        "{}: has {size} bytes, more than the {MOST_BYTES} that are read at most",
        path.display()
    );
    let name = path.canonicalize()?.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        ensure!(sha256(&file)? == name, "{}: is damaged: its checksum differs", path.display());
        file.rewind()?;
    }
    let rows = SerializedFileReader::new(file)?.metadata().file_metadata().num_rows();
    ensure!(
        rows <= part.count as i64,
        "{} has {rows} {word} images, where {} has {}",
        path.display(),
        known.title,
        part.count
    );
    Ok(())
}

/// Bytes and labels from candle-datasets' tensors: pixels from 0 to 1 as (N, pixels) or (N, channels, height, width).
fn split(known: &Known, images: &Tensor, labels: &Tensor, origin: String) -> candle_core::Result<Split> {
    let mut bytes = Vec::new();
    for start in (0..images.dim(0)?).step_by(1000) {
        let some = images.narrow(0, start, 1000.min(images.dim(0)? - start))?;
        let some = match some.rank() {
            // candle-datasets 0.11.1 gives (N, channels, width, height): the pictures lie on their side.
            4 => some.permute((0, 3, 2, 1))?,
            _ => some,
        };
        let values = some.flatten_all()?.to_vec1::<f32>()?;
        bytes.extend(values.into_iter().map(|value| (value * 255.0).round() as u8));
    }
    Ok(Split {
        images_origin: origin.clone(),
        origin,
        pixels: known.pixels(),
        shape: Some(known.shape),
        images: bytes,
        labels: labels.to_vec1()?,
    })
}

/// The training and the test file of a set in the cache; downloaded if they are missing.
fn fetch(remote: &Remote) -> anyhow::Result<[PathBuf; 2]> {
    let hub = HFClientSync::new().context("no client for the hub")?;
    let fetch = |part: &str| -> anyhow::Result<PathBuf> {
        let id = format!("{}/{}", remote.id(), remote.name(part));
        match remote.file(&hub, part, None) {
            Err(HFError::LocalEntryNotFound { .. }) => {}
            cached => return Ok(cached?),
        }
        info!("downloading {id} from the Hugging Face hub");
        (remote.file(&hub, part, Some(Bar::new(&id)?)))
            .with_context(|| format!("{id} is not in the cache and cannot be downloaded"))
    };
    let [train, test] = PARTS.map(fetch);
    Ok([train?, test?])
}

/// A bar on a terminal, while a file is downloaded.
struct Bar(ProgressBar);

impl Bar {
    fn new(file: &str) -> anyhow::Result<Self> {
        let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}")?;
        Ok(Self(ProgressBar::new(0).with_style(style).with_message(file.to_string())))
    }
}

impl ProgressHandler for Bar {
    fn on_progress(&self, event: &ProgressEvent) {
        let ProgressEvent::Download(event) = event else { return };
        match event {
            DownloadEvent::Start { total_bytes, .. } => self.0.set_length(*total_bytes),
            DownloadEvent::Progress { files } => {
                self.0.set_position(files.iter().map(|file| file.bytes_completed).max().unwrap_or(0));
            }
            DownloadEvent::AggregateProgress { bytes_completed, .. } => self.0.set_position(*bytes_completed),
            DownloadEvent::Complete => {}
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

thread_local! {
    /// True where a panic of this thread is caught and becomes an error.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` and turns a panic into an error that is not printed: candle-datasets panics on invalid images.
fn without_panic<T>(work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let loud = take_hook();
        set_hook(Box::new(move |panic| {
            if !CAUGHT.get() {
                loud(panic);
            }
        }));
    });
    CAUGHT.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CAUGHT.set(false);
    outcome.map_err(|panic| panic::words(&*panic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_panic_is_an_error_and_the_next_one_is_loud_again() {
        assert_eq!(without_panic(|| 3), Ok(3));
        assert_eq!(without_panic::<()>(|| panic!("no {}", "picture")), Err("no picture".into()));
        assert!(!CAUGHT.get());
    }

    #[test]
    fn colours_lie_in_the_order_of_the_rows() -> candle_core::Result<()> {
        let known = Known::named_by(DataChoice::Cifar10).unwrap();
        // Row, column and channel of a pixel make its value; then as candle-datasets turns them.
        let value = |row: usize, column: usize, channel: usize| (100 * channel + 3 * row + column) as u8;
        let rows: Vec<u8> = (0..32 * 32 * 3).map(|i| value(i / 96, i / 3 % 32, i % 3)).collect();
        let images = Tensor::from_vec(rows.clone(), (1, 32, 32, 3), &Device::Cpu)?
            .to_dtype(candle_core::DType::F32)?
            .permute((0, 3, 2, 1))?;
        let split = split(known, &(images / 255.0)?, &Tensor::new(&[7u8], &Device::Cpu)?, "here".into())?;
        assert_eq!((split.images, split.labels, split.pixels), (rows, vec![7], 3072));
        Ok(())
    }
}
