//! MNIST and Fashion-MNIST from the Hugging Face cache and hub.

use super::{DataChoice, Dataset, Error, Result, Source, Split};
use anyhow::Context;
use candle_datasets::vision;
use hf_hub::HFClientSync;
use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::Path;

/// Where candle-datasets looks.
const REVISION: &str = "refs/convert/parquet";

struct Bar(ProgressBar);

impl ProgressHandler for Bar {
    fn on_progress(&self, event: &ProgressEvent) {
        match event {
            ProgressEvent::Download(DownloadEvent::Start { total_bytes, .. }) => {
                self.0.set_length(*total_bytes);
            }
            ProgressEvent::Download(DownloadEvent::Progress { files }) => {
                self.0.set_position(files.iter().map(|f| f.bytes_completed).sum());
            }
            ProgressEvent::Download(DownloadEvent::Complete) => self.0.finish_and_clear(),
            _ => {}
        }
    }
}

/// The Hugging Face hub.
pub(super) struct Hub;

impl Source for Hub {
    fn has(&self, choice: DataChoice, path: Option<&Path>) -> bool {
        path.is_none() && choice != DataChoice::Glyphs
    }

    /// Loads the set from the cache, downloading it first where it is not there.
    fn read(&self, choice: DataChoice, _: Option<&Path>) -> Result<Dataset> {
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
    for split in ["test", "train"] {
        fetch(repository, &format!("{folder}/{split}/0000.parquet"))?;
    }
    let set = match choice {
        DataChoice::FashionMnist => vision::fashion_mnist::load(),
        _ => vision::mnist::load(),
    }
    .with_context(|| format!("{repository}: the downloaded files cannot be read"))?;
    let split =
        |part: &str, images: &candle_core::Tensor, labels: &candle_core::Tensor| -> anyhow::Result<Split> {
            let (_, pixels) = images.dims2()?;
            let images = images.affine(255.0, 0.5)?.flatten_all()?.to_vec1::<f32>()?;
            Ok(Split {
                origin: format!("hub {repository} {part}"),
                pixels,
                images: images.into_iter().map(|pixel| pixel as u8).collect(),
                labels: labels.to_vec1()?,
            })
        };
    Ok(Dataset::new(
        name.into(),
        format!("Hugging Face hub, {repository}"),
        split("train", &set.train_images, &set.train_labels)?,
        split("test", &set.test_images, &set.test_labels)?,
    ))
}

/// Makes sure that a file is in the cache, with a progress bar if it must be downloaded.
fn fetch(repository: &str, file: &str) -> anyhow::Result<()> {
    let client = HFClientSync::new().context("no client for the hub")?;
    let (owner, name) = hf_hub::split_id(repository);
    let repo = client.dataset(owner, name);
    let request = || repo.download_file().filename(file).revision(REVISION);
    if request().local_files_only(true).send().is_ok() {
        return Ok(());
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}")?;
    let bar = ProgressBar::new(0).with_style(style).with_message(file.to_string());
    request()
        .progress(Bar(bar))
        .send()
        .with_context(|| format!("{repository}/{file} is not in the cache and cannot be downloaded"))?;
    Ok(())
}
