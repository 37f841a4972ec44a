//! A data set: training and test images, its name and its source.

use super::error::{Error, Result, refuse};
use super::known::{KNOWN, Known, hex};
use super::{DataChoice, Split};
use crate::base::name;
use crate::base::output::{usage, visible};
use crate::model::Dims;
use crate::rng;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use tracing::info;

/// Training and test images.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// `mnist`, `fashion-mnist`, `cifar10`, `glyphs`, or the name of the folder of some other set.
    pub name: String,
    /// The place where it was found, or how it was made.
    pub source: String,
    /// The training images; empty in a set for testing only.
    pub train: Split,
    /// The images held out of them to choose the best epoch on; often empty.
    pub validation: Split,
    /// The test images.
    pub test: Split,
    /// One more than the greatest label as read, before any limit.
    pub classes: usize,
    /// The name of each class, by label; empty where there are only labels.
    pub class_names: Vec<String>,
    /// sha256 of pixels and labels as read, before any limit.
    pub checksums: BTreeMap<String, String>,
}

impl Dataset {
    /// A set of this name from `source`, nothing held out.
    pub fn new(name: String, source: String, train: Split, test: Split) -> Self {
        let digest = |bytes: &[u8]| hex(&Sha256::digest(bytes));
        let checksums = [
            ("train.images", digest(&train.images)),
            ("train.labels", digest(&train.labels)),
            ("test.images", digest(&test.images)),
            ("test.labels", digest(&test.labels)),
        ];
        let checksums = checksums.map(|(key, sum)| (key.to_string(), sum)).into();
        let classes =
            train.labels.iter().chain(&test.labels).max().map_or(0, |&label| usize::from(label) + 1);
        Self {
            name,
            source,
            train,
            validation: Split::default(),
            test,
            classes,
            class_names: Vec::new(),
            checksums,
        }
    }

    /// Keeps the first `train` and `test` images of the splits.
    pub fn limit(&mut self, train: Option<usize>, test: Option<usize>) {
        self.train.truncate(train);
        self.test.truncate(test);
    }

    /// Copies the set with the first `train` and `test` images of the splits.
    pub fn limited(&self, train: Option<usize>, test: Option<usize>) -> Self {
        let first = |split: &Split, limit: Option<usize>| {
            let mut part =
                split.part(&(0..limit.unwrap_or(usize::MAX).min(split.len()) as u32).collect::<Vec<_>>());
            part.images.shrink_to_fit();
            part
        };
        Self {
            name: self.name.clone(),
            source: self.source.clone(),
            train: first(&self.train, train),
            validation: self.validation.clone(),
            test: first(&self.test, test),
            classes: self.classes,
            class_names: self.class_names.clone(),
            checksums: self.checksums.clone(),
        }
    }

    /// Holds out `count` of the training images, drawn by `seed`, for validation.
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
            classes: self.classes,
            class_names: self.class_names.clone(),
            checksums: self.checksums.clone(),
        })
    }

    /// Checks that a network of these sizes can take the images and name the classes.
    ///
    /// # Errors
    /// Names the file and the size or label that does not fit.
    pub fn check(&self, dims: &Dims) -> Result<()> {
        let splits = [&self.train, &self.validation, &self.test];
        splits.into_iter().filter(|split| !split.is_empty()).try_for_each(|split| split.check(dims))
    }

    /// True where the data have these checksums; for a set of test images only, where its images are the test images
    /// of those data.
    pub fn is_that_of(&self, checksums: &BTreeMap<String, String>) -> bool {
        if self.train.is_empty() {
            let same = |key: &str| self.checksums.get(key) == checksums.get(key);
            return same("test.images") && same("test.labels");
        }
        self.checksums == *checksums
    }

    /// Sets the names of its classes, by label; unchanged where there are none.
    pub(super) fn called(self, class_names: Vec<String>) -> Self {
        if class_names.is_empty() { self } else { Self { class_names, ..self } }
    }

    /// Relabels the set to match a network that was trained with these names of classes, by label. Unchanged where
    /// either knows its classes by number only.
    ///
    /// # Errors
    /// Where a class is none of them.
    pub fn with_classes(mut self, names: &[String]) -> Result<Self> {
        let known = !names.is_empty() && self.class_names.len() >= self.classes;
        if !known || self.class_names == names || self.class_names.is_empty() {
            return Ok(self);
        }
        let label = |class: &String| {
            let found = names.iter().position(|name| name == class);
            let found = found.and_then(|label| u8::try_from(label).ok());
            found.ok_or_else(|| Error::Misfit {
                place: self.source.clone(),
                problem: format!(
                    "has a class {class}, and the network was trained on {} only: leave it out, or use one \
                     of these names",
                    names.join(", ")
                ),
            })
        };
        let labels = self.class_names[..self.classes].iter().map(label).collect::<Result<Vec<u8>>>()?;
        for split in [&mut self.train, &mut self.validation, &mut self.test] {
            split.labels.iter_mut().for_each(|label| *label = labels[usize::from(*label)]);
        }
        Ok(Self { class_names: names.to_vec(), classes: names.len(), ..self })
    }

    /// Makes a set from a file or folder of the user's. Its name is that of a known set if it is one, or else that of
    /// the path.
    ///
    /// # Errors
    /// Where it is not the set that was chosen, or the path can name nothing.
    pub fn of_files(choice: DataChoice, path: &Path, train: Split, test: Split) -> Result<Self> {
        if let (Some([height, width, _]), Some([h, w, _])) = (train.shape, test.shape)
            && (height, width) != (h, w)
        {
            refuse!(
                path,
                "training images are {height} × {width} pixels, test images {h} × {w}: make all of one size"
            );
        }
        // Test images alone cannot be trained on, whatever was chosen.
        let known = match Known::named_by(choice).filter(|_| !train.is_empty()) {
            Some(known) => {
                let differences = known.differences(&train, &test);
                if !differences.is_empty() {
                    refuse!(
                        path,
                        "this is not {}: {}. Use data = \"auto\" to train on it under another name, or put the \
                         files of {} there",
                        known.title,
                        differences.join(", and "),
                        known.title
                    );
                }
                Some(known)
            }
            None => KNOWN.iter().find(|known| known.differences(&train, &test).is_empty()),
        };
        // All images of a set that everybody knows, but not in the split that everybody compares.
        let divided = known.is_none().then(|| Known::divided_otherwise(&train, &test)).flatten();
        if let Some(divided) = divided {
            let (title, name) = (divided.title, divided.name_otherwise_divided());
            info!(
                "{}: these are all images of {title}, but otherwise divided into training and test images: results are \
                 called {name}, and are not to be compared with those of {title}",
                path.display()
            );
        }
        let name = match (known, divided) {
            (Some(known), _) => known.name.to_string(),
            (None, Some(divided)) => divided.name_otherwise_divided(),
            (None, None) => own_name(path)?,
        };
        let class_names = known.or(divided).map(Known::class_names).unwrap_or_default();
        let dataset = Self::new(name, path.display().to_string(), train, test);
        Ok(Self { class_names, ..dataset })
    }
}

/// The name of a class: from `names` where that has one, else its number.
pub fn class_name(names: &[String], class: usize) -> String {
    names.get(class).cloned().unwrap_or_else(|| class.to_string())
}

/// The names of all classes beside their numbers, in a line: `0 = cat, 1 = dog`.
pub fn class_list(names: &[String]) -> String {
    let described = names.iter().enumerate().map(|(class, name)| format!("{class} = {}", visible(name)));
    described.collect::<Vec<_>>().join(", ")
}

/// The name of a set that is none of the known ones: that of its file or folder.
fn own_name(path: &Path) -> Result<String> {
    let path = path.canonicalize().map_err(|error| Error::files(path, error))?;
    let named = if path.is_dir() { path.file_name() } else { path.file_stem() };
    let name = named.map_or("idx".into(), |name| name.to_string_lossy().into_owned());
    // It becomes a part of the names of runs.
    name::check(&name, "the data folder")?;
    // A folder of that name with other contents.
    let divided = KNOWN.iter().any(|known| known.name_otherwise_divided() == name);
    let taken = divided || name == DataChoice::GLYPHS || Known::named(&name).is_some();
    Ok(if taken { format!("idx-in-{name}") } else { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_known_by_their_names() {
        let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        let test = Split { pixels: 1, images: vec![1, 2, 3], labels: vec![0, 1, 0], ..Split::default() };
        let set = Dataset::new("pets".into(), "pets".into(), Split::default(), test);
        let set = Dataset { class_names: words(&["cat", "dog"]), ..set };
        let renamed = set.clone().with_classes(&words(&["ape", "dog", "cat"])).unwrap();
        assert_eq!(renamed.test.labels, [2, 1, 2]);
        assert_eq!(set.clone().with_classes(&[]).unwrap().test.labels, [0, 1, 0]);
        let error = set.with_classes(&words(&["cat", "cow"])).unwrap_err().to_string();
        assert!(error.contains("a class dog") && error.contains("cat, cow only"), "{error}");
    }
}
