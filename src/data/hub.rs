//! MNIST and Fashion-MNIST from the Hugging Face cache and hub: Parquet files of PNGs with their labels.

use super::pngs::grey;
use super::{DataChoice, Dataset, Error, Place, Result, Source, Split};
use anyhow::{Context, bail};
use hf_hub::api::Progress;
use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Cache, Repo, RepoType};
use indicatif::{ProgressBar, ProgressStyle};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use std::fs::File;
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// The branch into which the hub itself converts data sets.
const REVISION: &str = "refs/convert/parquet";

/// The Hugging Face hub.
pub(super) struct Hub;

impl Source for Hub {
    fn has(&self, choice: DataChoice, place: Option<&Place>) -> bool {
        place.is_none() && choice != DataChoice::Glyphs
    }

    fn remote_name(&self, choice: DataChoice) -> Option<&'static str> {
        Some(match choice {
            DataChoice::FashionMnist => DataChoice::FASHION_MNIST,
            _ => DataChoice::MNIST,
        })
    }

    /// Loads the set from the cache, downloading it first where it is not there.
    fn read(&self, choice: DataChoice, _: Option<&Place>) -> Result<Dataset> {
        load(choice).map_err(|cause| Error::Unavailable {
            problem:
                "the data set could not be had from the Hugging Face hub: check the connection, or give \
                      a folder with its four IDX files by --data-dir or EQPROP_DATA"
                    .into(),
            source: Some(cause.into()),
        })
    }
}

fn load(choice: DataChoice) -> anyhow::Result<Dataset> {
    let (repository, folder, name) = match choice {
        DataChoice::FashionMnist => {
            ("zalando-datasets/fashion_mnist", "fashion_mnist", DataChoice::FASHION_MNIST)
        }
        _ => ("ylecun/mnist", "mnist", DataChoice::MNIST),
    };
    let fetch = |part: &str| fetch(repository, &format!("{folder}/{part}/0000.parquet"));
    let (train, test) = (fetch("train")?, fetch("test")?);
    let split = |file: &Path, part: &str| -> anyhow::Result<Split> {
        let mut split = read(file).with_context(|| file.display().to_string())?;
        split.origin = format!("hub {repository} {part}");
        Ok(split)
    };
    Ok(Dataset::new(
        name.into(),
        format!("Hugging Face hub, {repository}"),
        split(&train, "train")?,
        split(&test, "test")?,
    ))
}

struct Bar(ProgressBar);

impl Progress for Bar {
    fn init(&mut self, size: usize, _: &str) {
        self.0.set_length(size as u64);
    }

    fn update(&mut self, size: usize) {
        self.0.inc(size as u64);
    }

    fn finish(&mut self) {
        self.0.finish_and_clear();
    }
}

/// The path of a file in the cache, into which it is downloaded, with a progress bar, where it is not there.
fn fetch(repository: &str, file: &str) -> anyhow::Result<PathBuf> {
    let repo = || Repo::with_revision(repository.into(), RepoType::Dataset, REVISION.into());
    // Its links lead nowhere from a relative path.
    let folder = std::path::absolute(Cache::from_env().path())?;
    if let Some(path) = Cache::new(folder.clone()).repo(repo()).get(file) {
        return Ok(path);
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}")?;
    let bar = ProgressBar::new(0).with_style(style).with_message(file.to_string());
    let hub = ApiBuilder::from_env().with_cache_dir(folder).build().context("no client for the hub")?;
    (hub.repo(repo()).download_with_progress(file, Bar(bar)))
        .with_context(|| format!("{repository}/{file} is not in the cache and cannot be downloaded"))
}

/// The images of a Parquet file, all of one size, and their labels.
fn read(path: &Path) -> anyhow::Result<Split> {
    let file = SerializedFileReader::new(File::open(path)?).context("is not a readable Parquet file")?;
    let mut split = Split::default();
    for (i, row) in file.get_row_iter(None)?.enumerate() {
        let (png, label) = image_and_label(&row?).with_context(|| {
            format!("row {i} is not a column `image` with `bytes` and a column `label` from 0 to 255")
        })?;
        let (_, _, image) =
            grey(Cursor::new(png)).map_err(anyhow::Error::msg).with_context(|| format!("image {i}"))?;
        if i == 0 {
            split.pixels = image.len();
        }
        if image.len() != split.pixels {
            bail!("image {i} has {} pixels, those before it {}", image.len(), split.pixels);
        }
        split.images.extend(image);
        split.labels.push(label);
    }
    if split.labels.is_empty() {
        bail!("holds no images");
    }
    Ok(split)
}

fn image_and_label(row: &Row) -> Option<(Vec<u8>, u8)> {
    let of = |row: &Row, name: &str| {
        row.get_column_iter().find(|(column, _)| *column == name).map(|(_, field)| field.clone())
    };
    let (Field::Group(image), Field::Long(label)) = (of(row, "image")?, of(row, "label")?) else {
        return None;
    };
    let Field::Bytes(png) = of(&image, "bytes")? else { return None };
    Some((png.data().to_vec(), u8::try_from(label).ok()?))
}
