//! Data sets: images as bytes, with a class each.

pub mod glyphs;
#[cfg(feature = "hub")]
mod hub;
mod idx;
mod npz;
mod pngs;

use crate::base::name;
use crate::base::output::usage;
use crate::config::TrainingConfig;
use crate::engine::Batch;
use crate::model::Dims;
use crate::rng;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tracing::warn;

/// sha256 of the pixels of MNIST's 60,000 training images.
const MNIST_TRAIN_PIXELS: &str = "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757";

/// Which data set to train on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataChoice {
    /// A data folder, the Hugging Face hub, or, where neither can be had, glyphs.
    Auto,
    /// MNIST, from a folder or the hub; never anything else.
    Mnist,
    /// Fashion-MNIST, from a folder or the hub; never anything else.
    FashionMnist,
    /// The built-in procedural set.
    Glyphs,
}

impl DataChoice {
    /// The name of MNIST, which no other set has.
    pub const MNIST: &str = "mnist";
    /// The name of the built-in set, which no other has.
    pub const GLYPHS: &str = "glyphs";

    /// What to load for a run that has been trained on the set of this name: where the choice leaves it open,
    /// that set and no other.
    pub fn again(self, name: &str) -> Self {
        match (self, name) {
            (DataChoice::Auto, Self::MNIST) => DataChoice::Mnist,
            (DataChoice::Auto, Self::GLYPHS) => DataChoice::Glyphs,
            _ => self,
        }
    }
}

/// Some labelled images.
#[derive(Clone, Debug, Default)]
pub struct Split {
    /// Where the labels came from, for error messages.
    pub origin: String,
    /// Pixels an image.
    pub pixels: usize,
    /// Row-major (count, pixels).
    pub images: Vec<u8>,
    /// The class of each.
    pub labels: Vec<u8>,
}

impl Split {
    /// How many images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The images with these numbers, in this order.
    pub fn gather(&self, indices: &[u32], batch: &mut Batch) {
        batch.images.clear();
        batch.labels.clear();
        for &i in indices {
            let i = i as usize;
            batch.images.extend_from_slice(&self.images[i * self.pixels..][..self.pixels]);
            batch.labels.push(self.labels[i]);
        }
    }

    /// The images with these numbers, as a split of their own.
    fn part(&self, indices: &[u32]) -> Self {
        let mut batch = Batch::default();
        self.gather(indices, &mut batch);
        Self { origin: self.origin.clone(), pixels: self.pixels, images: batch.images, labels: batch.labels }
    }

    fn truncate(&mut self, limit: Option<usize>) {
        if let Some(limit) = limit.filter(|limit| *limit < self.len()) {
            self.labels.truncate(limit);
            self.images.truncate(limit * self.pixels);
        }
    }

    /// Checks sizes and labels against a network's input and output.
    fn check(&self, dims: &Dims) -> Result<()> {
        if self.pixels != dims.input() {
            bail!(
                "{}: images have {} pixels, but network.dims = {:?} begins with {}: set network.dims[0] to {}",
                self.origin,
                self.pixels,
                dims.0,
                dims.input(),
                self.pixels
            );
        }
        let outside = self.labels.iter().position(|&l| usize::from(l) >= dims.output());
        if let Some(i) = outside {
            bail!(
                "{}: image {i} has label {}, but network.dims = {:?} ends with {} outputs (classes 0 to {}): \
                 raise the last number of network.dims, or mend the file",
                self.origin,
                self.labels[i],
                dims.0,
                dims.output(),
                dims.output() - 1
            );
        }
        Ok(())
    }
}

/// Training and test images.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// `mnist`, `fashion-mnist`, `glyphs`, or the name of the folder of some other set.
    pub name: String,
    /// Where it was found.
    pub source: String,
    /// What to train on.
    pub train: Split,
    /// What was held out of it to choose the best epoch on; often nothing.
    pub validation: Split,
    /// What to test on.
    pub test: Split,
    /// sha256 of pixels and labels as read, before any limit.
    pub checksums: BTreeMap<String, String>,
}

impl Dataset {
    fn new(name: String, source: String, train: Split, test: Split) -> Self {
        let digest = |bytes: &[u8]| -> String {
            Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let checksums = [
            ("train.images", digest(&train.images)),
            ("train.labels", digest(&train.labels)),
            ("test.images", digest(&test.images)),
            ("test.labels", digest(&test.labels)),
        ];
        let checksums = checksums.map(|(key, sum)| (key.to_string(), sum)).into();
        Self { name, source, train, validation: Split::default(), test, checksums }
    }

    /// Keeps the first so many images of each split.
    pub fn limit(&mut self, train: Option<usize>, test: Option<usize>) {
        self.train.truncate(train);
        self.test.truncate(test);
    }

    /// The same set with `count` of the training images, drawn by `seed`, held out for validation.
    ///
    /// # Errors
    /// Where that leaves nothing to train on.
    pub fn hold_out(&self, count: usize, seed: u64) -> Result<Self> {
        if count >= self.train.len() {
            usage!(
                "training.validation = {count} leaves nothing of the {} training images of {} to train on: hold out \
                 fewer",
                self.train.len(),
                self.name
            );
        }
        let (held, others) = rng::hold_out(seed, self.train.len(), count);
        Ok(Self {
            name: self.name.clone(),
            source: self.source.clone(),
            train: self.train.part(&others),
            validation: self.train.part(&held),
            test: self.test.clone(),
            checksums: self.checksums.clone(),
        })
    }

    /// Checks that a network of these sizes can take the images and name the classes.
    ///
    /// # Errors
    /// Names the file and the size or label that does not fit.
    pub fn check(&self, dims: &Dims) -> Result<()> {
        self.train.check(dims)?;
        if !self.validation.is_empty() {
            self.validation.check(dims)?;
        }
        self.test.check(dims)
    }
}

/// The data set a configuration asks for, cut to its limits.
///
/// # Errors
/// As [`load`].
pub fn load_limited(training: &TrainingConfig, folder: Option<&Path>) -> Result<Dataset> {
    let mut dataset = load(training.data, folder)?;
    dataset.limit(training.limit_train, training.limit_test);
    Ok(dataset)
}

/// Finds and reads the chosen data set. `folder` is the user's own data folder, if any.
///
/// # Errors
/// Where the choice cannot be had, or a file is not what it should be; both name the file or place
/// and what to do.
pub fn load(choice: DataChoice, folder: Option<&Path>) -> Result<Dataset> {
    let local = match (folder, choice) {
        (Some(folder), _) => Some(folder.to_path_buf()),
        (None, DataChoice::FashionMnist) => Some(PathBuf::from("data/fashion-mnist")),
        (None, _) => Some(PathBuf::from("data/mnist")),
    };
    let local = local.filter(|path| folder.is_some() || path.is_dir());
    if choice == DataChoice::Glyphs {
        if let Some(folder) = folder {
            bail!(
                "data = \"glyphs\" is generated and reads no files, yet a data folder is given ({}): \
                 leave out one of the two",
                folder.display()
            );
        }
        return Ok(glyphs::dataset());
    }
    if let Some(path) = local {
        return from_folder(choice, &path);
    }
    match from_hub(choice) {
        Ok(dataset) => Ok(dataset),
        Err(error) if choice == DataChoice::Auto => {
            let reason = error.root_cause().to_string();
            warn!("MNIST could not be had: {}", reason.lines().next().unwrap_or_default());
            warn!("**********************************************************************");
            warn!("*  TRAINING ON GLYPHS, A BUILT-IN PROCEDURAL SET. THIS IS NOT MNIST.  *");
            warn!("*  For MNIST: --data-dir DIR with its IDX files, or a way to the hub. *");
            warn!("**********************************************************************");
            Ok(glyphs::dataset())
        }
        Err(error) => Err(error.context(
            "the data set could not be had from the Hugging Face hub: check the connection, or give \
             a folder with its four IDX files by --data-dir or EQPROP_DATA",
        )),
    }
}

fn from_folder(choice: DataChoice, folder: &Path) -> Result<Dataset> {
    let idx = |prefix| idx::read_split(folder, prefix);
    let [train, test] = match npz::find(folder) {
        Some(archive) => npz::read(&archive)?,
        None if pngs::are_in(folder) => pngs::read(folder)?,
        None => [idx("train")?, idx("t10k")?],
    };
    let dataset = Dataset::new(String::new(), folder.display().to_string(), train, test);
    let is_mnist = dataset.checksums["train.images"] == MNIST_TRAIN_PIXELS;
    let name = match choice {
        DataChoice::Mnist if !is_mnist => bail!(
            "{}: these are not the 60,000 training images of MNIST (their checksum differs): use \
             data = \"auto\" to train on another set, or put MNIST's files there",
            folder.display()
        ),
        DataChoice::FashionMnist if is_mnist => bail!(
            "{}: these are the training images of MNIST, not of Fashion-MNIST (their checksum says so): use \
             data = \"mnist\", or give the folder of Fashion-MNIST",
            folder.display()
        ),
        DataChoice::FashionMnist => "fashion-mnist".into(),
        _ if is_mnist => DataChoice::MNIST.into(),
        _ => {
            let folder = folder.canonicalize().context("the data folder has no path")?;
            let name = if folder.is_dir() { folder.file_name() } else { folder.file_stem() };
            let name = name.map_or("idx".into(), |name| name.to_string_lossy().into_owned());
            // It becomes a part of the names of runs.
            name::check(&name, "the data folder")?;
            // A folder of that name which holds something else.
            match name.as_str() {
                DataChoice::MNIST | DataChoice::GLYPHS => format!("idx-in-{name}"),
                _ => name,
            }
        }
    };
    Ok(Dataset { name, ..dataset })
}

#[cfg(feature = "hub")]
fn from_hub(choice: DataChoice) -> Result<Dataset> {
    hub::load(choice)
}

#[cfg(not(feature = "hub"))]
fn from_hub(_: DataChoice) -> Result<Dataset> {
    bail!("this eqprop was built without the feature `hub`")
}
