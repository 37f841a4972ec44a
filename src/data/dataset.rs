//! A data set: training and test images, what it is called, and where it is from.

use super::error::{Error, Result};
use super::{DataChoice, Split};
use crate::base::name;
use crate::base::output::usage;
use crate::model::Dims;
use crate::rng;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// sha256 of the pixels of MNIST's 60,000 training images.
const MNIST_TRAIN_PIXELS: &str = "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757";

/// Training and test images.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// `mnist`, `fashion-mnist`, `glyphs`, or the name of the folder of some other set.
    pub name: String,
    /// Where it was found.
    pub source: String,
    /// What to train on; nothing in a set to test on alone.
    pub train: Split,
    /// What was held out of it to choose the best epoch on; often nothing.
    pub validation: Split,
    /// What to test on.
    pub test: Split,
    /// One more than the greatest label as read, before any limit.
    pub classes: usize,
    /// What each class is called, by label; none where the labels are all there is.
    pub class_names: Vec<String>,
    /// sha256 of pixels and labels as read, before any limit.
    pub checksums: BTreeMap<String, String>,
}

impl Dataset {
    /// A set of this name from `source`, nothing held out.
    pub fn new(name: String, source: String, train: Split, test: Split) -> Self {
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

    /// Whether these are the data that have these checksums; of a set to test on alone, whether its images are their
    /// test images.
    pub fn is_that_of(&self, checksums: &BTreeMap<String, String>) -> bool {
        if self.train.is_empty() {
            let same = |key: &str| self.checksums.get(key) == checksums.get(key);
            return same("test.images") && same("test.labels");
        }
        self.checksums == *checksums
    }

    /// The same with the labels that its classes have in a network which was taught these names, by label. Unchanged
    /// where either knows its classes by number only.
    ///
    /// # Errors
    /// Where a class is none of them.
    pub fn with_classes(mut self, names: &[String]) -> Result<Self> {
        if names.is_empty() || self.class_names.is_empty() || self.class_names.len() < self.classes {
            return Ok(self);
        }
        let label = |class: &String| {
            let found =
                names.iter().position(|name| name == class).and_then(|label| u8::try_from(label).ok());
            found.ok_or_else(|| Error::Misfit {
                place: self.source.clone(),
                problem: format!(
                    "has a class {class}, and the network was taught only {}: leave it out, or call it as there",
                    names.join(", ")
                ),
            })
        };
        let labels = self.class_names.iter().map(label).collect::<Result<Vec<u8>>>()?;
        for split in [&mut self.train, &mut self.validation, &mut self.test] {
            split.labels.iter_mut().for_each(|label| *label = labels[usize::from(*label)]);
        }
        Ok(Self { class_names: names.to_vec(), classes: names.len(), ..self })
    }

    /// What was found in a file or folder of the user's, named by what it holds, or else by the path.
    ///
    /// # Errors
    /// Where it is not the set that was chosen, or the path can name nothing.
    pub fn of_files(choice: DataChoice, path: &Path, train: Split, test: Split) -> Result<Self> {
        if let (Some([height, width, _]), Some([h, w, _])) = (train.shape, test.shape)
            && (height, width) != (h, w)
        {
            let problem = format!(
                "training images are {height} × {width} pixels, test images {h} × {w}: make all of one size"
            );
            return Err(Error::files(path, problem));
        }
        if train.is_empty() && choice != DataChoice::Auto {
            return Err(Error::only_to_test_on(&path.display().to_string()));
        }
        let dataset = Self::new(String::new(), path.display().to_string(), train, test);
        let is_mnist = dataset.checksums["train.images"] == MNIST_TRAIN_PIXELS;
        let wrong = |problem: &str| Err(Error::files(path, problem));
        let name = match choice {
            DataChoice::Mnist if !is_mnist => {
                return wrong(
                    "these are not the 60,000 training images of MNIST (their checksum differs): use \
                     data = \"auto\" to train on another set, or put MNIST's files there",
                );
            }
            DataChoice::FashionMnist if is_mnist => {
                return wrong(
                    "these are the training images of MNIST, not of Fashion-MNIST (their checksum says so): use \
                     data = \"mnist\", or give the folder of Fashion-MNIST",
                );
            }
            DataChoice::FashionMnist => DataChoice::FASHION_MNIST.into(),
            _ if is_mnist => DataChoice::MNIST.into(),
            _ => own_name(path)?,
        };
        Ok(Self { name, ..dataset })
    }
}

/// A set that is none we know is called like its file or folder.
fn own_name(path: &Path) -> Result<String> {
    let path = path.canonicalize().map_err(|error| Error::files(path, error))?;
    let named = if path.is_dir() { path.file_name() } else { path.file_stem() };
    let name = named.map_or("idx".into(), |name| name.to_string_lossy().into_owned());
    // It becomes a part of the names of runs.
    name::check(&name, "the data folder")?;
    // A folder of that name which holds something else.
    Ok(match name.as_str() {
        DataChoice::MNIST | DataChoice::GLYPHS => format!("idx-in-{name}"),
        _ => name,
    })
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
        assert!(error.contains("a class dog") && error.contains("only cat, cow"), "{error}");
    }
}
