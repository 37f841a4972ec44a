//! Data sets: images as bytes, with a class each.
//!
//! A way to have a set (a format of files, a generator, a download) is a file here that implements [`Source`], and a
//! line in [`SOURCES`].

mod arrays;
mod augment;
mod black;
mod cifar;
mod dataset;
mod error;
mod explain;
mod four;
pub mod glyphs;
#[cfg(feature = "hub")]
mod hub;
mod idx;
pub mod known;
#[cfg(not(feature = "hub"))]
mod no_hub;
mod npy;
mod npz;
mod place;
mod pngs;
mod split;

pub use augment::Augment;
pub use dataset::{Dataset, class_list, class_name};
use error::with_causes;
pub use error::{Error, Result};
use four::{FourFiles, Kind};
use known::{Known, Part};
pub use place::Place;
pub use split::{Batch, Split, one_hot, pixels};

#[cfg(not(feature = "hub"))]
use no_hub as hub;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tracing::{info, warn};

/// The most pixels read of a set, one byte each; MNIST's training images have 47 million.
const MOST_PIXELS: usize = 768 << 20;

/// All ways to load a data set. The first that [has](Source::has) the requested set gives it; with data = "auto", the
/// next one is tried if that fails.
pub const SOURCES: [&dyn Source; 7] = [
    &npz::Npz,
    &cifar::Binary,
    &FourFiles { kind: Kind::Arrays, pair: npz::pair },
    &pngs::Pngs,
    &FourFiles { kind: Kind::Idx, pair: idx::pair },
    &hub::Hub,
    &glyphs::Glyphs,
];

/// A way to load a data set.
pub trait Source: Sync {
    /// True where this is the way to load the chosen set: from the user's file or folder, where there is a `place`.
    fn has(&self, choice: DataChoice, place: Option<&Place>) -> bool;

    /// The name of the set that [`read`](Source::read) gives, where it may have to use the network: the name is then
    /// checked first.
    fn remote_name(&self, _: DataChoice) -> Option<&'static str> {
        None
    }

    /// The training set in a place, in words; `None` where there is none, or test images only.
    fn to_train_on(&self, _: &Place) -> Option<String> {
        None
    }

    /// True where [`read`](Source::read) needs no network.
    fn is_here(&self, _: DataChoice) -> bool {
        true
    }

    /// Reads, generates or downloads the set; called only where it [has](Source::has) that. Files are best passed to
    /// [`Dataset::of_files`]. Where there are only test images, the training set is empty.
    ///
    /// # Errors
    /// Names the file or place, and says what to do.
    fn read(&self, choice: DataChoice, place: Option<&Place>) -> Result<Dataset>;
}

/// The file or folder that a [`Source`] was asked to read.
fn there<T>(found: Option<T>) -> Result<T> {
    let none = || Error::Unavailable { problem: "there is no data set of this kind".into(), source: None };
    found.ok_or_else(none)
}

/// The data set to train on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataChoice {
    /// A data folder, the Hugging Face hub, or, if both fail, glyphs.
    Auto,
    /// MNIST, from a folder or the hub; never anything else.
    Mnist,
    /// Fashion-MNIST, from a folder or the hub; never anything else.
    FashionMnist,
    /// CIFAR-10, from a file or the hub; never anything else.
    #[serde(rename = "cifar10")]
    Cifar10,
    /// The built-in procedural set.
    Glyphs,
}

impl DataChoice {
    /// The name of MNIST, which no other set has.
    pub const MNIST: &str = "mnist";
    /// The name of Fashion-MNIST.
    pub const FASHION_MNIST: &str = "fashion-mnist";
    /// The name of CIFAR-10.
    pub const CIFAR10: &str = "cifar10";
    /// The name of the built-in set, which no other has.
    pub const GLYPHS: &str = "glyphs";

    /// The choice for a run that was trained on the set of this name: where the choice is open, that set and no
    /// other.
    pub fn again(self, name: &str) -> Self {
        match (self, name) {
            (DataChoice::Auto, Self::GLYPHS) => DataChoice::Glyphs,
            (DataChoice::Auto, name) => Known::named(name).map_or(self, |known| known.choice),
            _ => self,
        }
    }
}

/// Finds and reads the chosen data set. `folder` is the user's own data folder, if any.
///
/// # Errors
/// Where the choice cannot be had, or a file is not what it should be; both name the file or place
/// and what to do.
pub fn load(choice: DataChoice, folder: Option<&Path>) -> Result<Dataset> {
    if let (DataChoice::Glyphs, Some(folder)) = (choice, folder) {
        return Err(Error::Unavailable {
            problem: format!(
                "data = \"glyphs\" is generated and reads no files, yet a data folder is given ({}): \
                 leave out one of the two",
                folder.display()
            ),
            source: None,
        });
    }
    let place = match folder.map(Path::to_path_buf).or_else(|| usual_folder(choice)) {
        Some(path) => Some(place_of_set(&path)?),
        None => None,
    };
    let place = place.as_ref();
    let mut failed = None;
    for source in SOURCES.iter().filter(|source| source.has(choice, place)) {
        match read(*source, choice, place) {
            Err(error) if choice == DataChoice::Auto && place.is_none() => {
                warn!("MNIST is not available: {}", with_causes(&error));
                failed = Some(error);
            }
            Ok(dataset) if failed.is_some() && dataset.name == DataChoice::GLYPHS => {
                warn!("**********************************************************************");
                warn!("*  TRAINING ON GLYPHS, A BUILT-IN PROCEDURAL SET. THIS IS NOT MNIST.  *");
                warn!("*  For MNIST: --data-dir DIR with its IDX files, or a way to the hub. *");
                warn!("**********************************************************************");
                return Ok(dataset);
            }
            // There may be others beside them to train on.
            Ok(dataset) if dataset.train.is_empty() => failed = Some(Error::only_to_test_on(&dataset.source)),
            outcome => return outcome,
        }
    }
    Err(failed.unwrap_or_else(|| Error::Unavailable {
        problem: format!("data = {choice:?}: nothing here can read that"),
        source: None,
    }))
}

/// Reads any set in a user's file or folder to test a network on; it may have no training images.
///
/// # Errors
/// As [`load`].
pub fn load_test(path: &Path) -> Result<Dataset> {
    let place = place_of_set(path)?;
    let source = SOURCES.iter().find(|source| source.has(DataChoice::Auto, Some(&place)));
    read(*there(source)?, DataChoice::Auto, Some(&place))
}

/// Reads a source, and records the exact place.
fn read(source: &dyn Source, choice: DataChoice, place: Option<&Place>) -> Result<Dataset> {
    let dataset = source.read(choice, place)?;
    Ok(match place {
        Some(place) => Dataset { source: place.path().display().to_string(), ..dataset },
        None => dataset,
    })
}

/// The place of a set: the user's file or folder, or the only folder below it that holds one.
///
/// # Errors
/// Says what is there instead, and what to do.
fn place_of_set(path: &Path) -> Result<Place> {
    let place = Place::at(path)?;
    let holds = |place: &Place| SOURCES.iter().any(|source| source.has(DataChoice::Auto, Some(place)));
    if holds(&place) {
        return match &SOURCES.iter().filter_map(|source| source.to_train_on(&place)).collect::<Vec<_>>()[..] {
            several @ [_, _, ..] => Err(Error::files(
                path,
                format!(
                    "holds several sets, {}: move all but one of them away, or give a folder or .npz file with the one",
                    several.join(", and ")
                ),
            )),
            _ => Ok(place),
        };
    }
    // An incomplete set in a folder is the set that is meant.
    let mut below = if explain::unclear(&place).is_some() { Vec::new() } else { place.below(&holds) };
    match below.pop() {
        Some(found) if below.is_empty() => {
            info!("{}: the data set in it is {}", path.display(), found.path().display());
            Ok(found)
        }
        last => Err(explain::no_set(&place, &below.into_iter().chain(last).collect::<Vec<_>>())),
    }
}

/// The name of the set that [`load`] would ask the network for; `None` where a folder or a generator gives it.
pub fn remote_name(choice: DataChoice, folder: Option<&Path>) -> Option<&'static str> {
    first_source(choice, folder)?.remote_name(choice)
}

/// A stand-in for a set that [`load`] would have to download: with its name and sizes, but without its images or
/// checksums, for plans. `None` where the set is here.
pub fn stand_in(choice: DataChoice, folder: Option<&Path>) -> Option<Dataset> {
    let source = first_source(choice, folder).filter(|source| !source.is_here(choice))?;
    let name = source.remote_name(choice)?;
    let known = Known::named(name)?;
    let source = "the Hugging Face hub, not downloaded yet";
    let split = |part: &Part| Split::of_noise(source, part.count, known.shape, known.classes);
    Some(Dataset {
        name: name.into(),
        source: source.into(),
        train: split(&known.train),
        validation: Split::default(),
        test: split(&known.test),
        classes: known.classes,
        class_names: known.class_names(),
        checksums: BTreeMap::new(),
    })
}

/// The first source to try for the chosen set.
fn first_source(choice: DataChoice, folder: Option<&Path>) -> Option<&'static dyn Source> {
    if folder.is_some() || usual_folder(choice).is_some() {
        return None;
    }
    SOURCES.into_iter().find(|source| source.has(choice, None))
}

/// The folder where the set usually is if the user names none, if it is there.
fn usual_folder(choice: DataChoice) -> Option<PathBuf> {
    let folder = match choice {
        DataChoice::Glyphs => return None,
        DataChoice::FashionMnist => "data/fashion-mnist",
        DataChoice::Cifar10 => "data/cifar10",
        DataChoice::Auto | DataChoice::Mnist => "data/mnist",
    };
    Some(PathBuf::from(folder)).filter(|folder| folder.is_dir())
}
