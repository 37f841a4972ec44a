//! Well-known data sets: their contents, and how they are recognised.

use super::{DataChoice, Split};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::io::{self, BufRead, BufReader, Read};

/// A set with a name that no other set may have.
pub struct Known {
    /// The choice that asks for it.
    pub choice: DataChoice,
    /// Its name.
    pub name: &'static str,
    /// Its title for people.
    pub title: &'static str,
    /// The names of its classes, by label, with commas between; empty where they are the digits.
    class_names: &'static str,
    /// The number of classes.
    pub classes: usize,
    /// Height, width and channels of an image.
    pub shape: [usize; 3],
    /// The training images.
    pub train: Part,
    /// The test images.
    pub test: Part,
    /// The [`Fingerprint`] of all images of both, each with its label, where it is known.
    together: Option<&'static str>,
}

/// The properties of a part of a set. Neither fingerprint depends on the order of the images, which differs between
/// the files and the hub's copy of CIFAR-10.
pub struct Part {
    /// The number of images.
    pub count: usize,
    /// The [`Fingerprint`] of the images.
    images: &'static str,
    /// The fingerprint of the images, each with its label.
    labelled: &'static str,
}

/// All well-known sets.
pub const KNOWN: [Known; 3] = [
    Known {
        choice: DataChoice::Mnist,
        name: DataChoice::MNIST,
        title: "MNIST",
        class_names: "",
        classes: 10,
        shape: [28, 28, 1],
        train: Part {
            count: 60_000,
            images: "03a8a048601ebb4610dcd79cd759c718bed893982a4c153c4f33a41885101c0b",
            labelled: "48202dcb183a2747c97e6a684cc47b03ae71c8b55dea4c7b28d86e0177f83b0e",
        },
        test: Part {
            count: 10_000,
            images: "e2842441ab1468bab7eeaa886875a3a7662245f3768610c4b4ca84d7ac309c70",
            labelled: "7618f4aaa52089a8bf911a35b3effcd1cb544cef27554e01289b0f2207de7075",
        },
        together: Some("50e7dbdd99636e09c627c8835256d0b88b8392a1a8a37efcdf6ff5fa3fdd31ec"),
    },
    Known {
        choice: DataChoice::FashionMnist,
        name: DataChoice::FASHION_MNIST,
        title: "Fashion-MNIST",
        class_names: "T-shirt/top, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot",
        classes: 10,
        shape: [28, 28, 1],
        train: Part {
            count: 60_000,
            images: "aa670e63ae523d8fb206db0595287cd9ecee8f29b1b8ea690da7712c7444eb56",
            labelled: "3e22ffe4ec83294f53865d6f8953a3ef35781d547d0db982aee02288a538698f",
        },
        test: Part {
            count: 10_000,
            images: "f966ad9a453e7d5ef297476fd4939780e707ce15a852b67597069832263d31bd",
            labelled: "3d95d1fce5882cd6de086c139161a5010dc540dbc3b29605c337694f9d415217",
        },
        together: Some("bcc15e38dfd8b3246c61ec45c8992d3f22ac37ef11e8849965b0858a58b51690"),
    },
    Known {
        choice: DataChoice::Cifar10,
        name: DataChoice::CIFAR10,
        title: "CIFAR-10",
        class_names: "airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck",
        classes: 10,
        shape: [32, 32, 3],
        train: Part {
            count: 50_000,
            images: "6bebf6967ad9d2d12d9cf95f54164bd95a0954d3177f1285fa8dd3673671ca76",
            labelled: "eac1a8ceabb6fe2741e0097e93107f0b6cb7515f8cabf797b24ee00858017d31",
        },
        test: Part {
            count: 10_000,
            images: "eb97bdfceb97fec3832a6abdbbf9f16340a510375c77ce1b32c45de1e6d88318",
            labelled: "63ee2a7ddc9909f270aacf970c6b1fd78a81bb62739ca08c3af8eed50bae4b81",
        },
        together: None,
    },
];

impl Known {
    /// The set of handwritten digits.
    pub const MNIST: &Self = &KNOWN[0];

    /// The set that a choice names, if any.
    pub fn named_by(choice: DataChoice) -> Option<&'static Self> {
        KNOWN.iter().find(|known| known.choice == choice)
    }

    /// The set that these images and labels are all of, but otherwise divided into those to train and those to test on.
    pub fn divided_otherwise(train: &Split, test: &Split) -> Option<&'static Self> {
        let count = train.len() + test.len();
        let of_size = |known: &&Self| {
            let pixels = [train.pixels, test.pixels];
            known.together.is_some() && known.count() == count && pixels == [known.pixels(); 2]
        };
        let candidates: Vec<&Self> = KNOWN.iter().filter(of_size).collect();
        if candidates.is_empty() {
            return None;
        }
        let found = Fingerprint::of_both(train, test);
        candidates.into_iter().find(|known| known.together == Some(&*found.labelled))
    }

    /// The number of images in all.
    fn count(&self) -> usize {
        self.train.count + self.test.count
    }

    /// The name of all its images where they are divided otherwise than it is.
    pub fn name_otherwise_divided(&self) -> String {
        format!("{}-own-split", self.name)
    }

    /// The set of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        KNOWN.iter().find(|known| known.name == name)
    }

    /// Pixels per image, all channels together.
    pub fn pixels(&self) -> usize {
        self.shape.iter().product()
    }

    /// The names of its classes.
    pub fn class_names(&self) -> Vec<String> {
        self.class_names.split_terminator(", ").map(String::from).collect()
    }

    /// The parts in which these images and labels differ from this set, in words; empty where none does.
    pub fn differences(&self, train: &Split, test: &Split) -> Vec<String> {
        let parts = [("training", &self.train, train), ("test", &self.test, test)];
        parts.into_iter().filter_map(|(word, part, split)| self.difference(word, part, split)).collect()
    }

    fn difference(&self, word: &str, part: &Part, split: &Split) -> Option<String> {
        let (count, pixels) = (split.len(), split.pixels);
        if (count, pixels) != (part.count, self.pixels()) {
            return Some(format!(
                "{} has {count} {word} images of {pixels} pixels, where {} has {} of {}",
                split.images_origin,
                self.title,
                part.count,
                self.pixels()
            ));
        }
        let found = Fingerprint::of(split);
        if found.images != part.images {
            return Some(format!("{} has other {word} images (their checksum says so)", split.images_origin));
        }
        (found.labelled != part.labelled).then(|| {
            format!("{} gives the {word} images other labels (their checksum says so)", split.origin)
        })
    }
}

/// The identity of images in any order: the SHA-256 of the sorted SHA-256s of each.
struct Fingerprint {
    images: String,
    /// The fingerprint of the images with their labels.
    labelled: String,
}

impl Fingerprint {
    fn of(split: &Split) -> Self {
        Self::of_both(split, &Split { pixels: split.pixels, ..Split::default() })
    }

    /// Of the images of two splits, whose pixels are as many.
    fn of_both(one: &Split, other: &Split) -> Self {
        let images_of = |split: &Split| {
            let images = split.images.par_chunks(split.pixels).zip(&split.labels);
            let digests = images.map(|(image, &label)| {
                let digest = Sha256::digest(image);
                (digest, Sha256::new().chain_update(digest).chain_update([label]).finalize())
            });
            digests.collect::<Vec<_>>()
        };
        let all = [images_of(one), images_of(other)].concat();
        let (mut images, mut labelled): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        let of_all = |digests: &mut Vec<_>| {
            digests.par_sort_unstable();
            let whole = digests.iter().fold(Sha256::new(), |hash, digest| hash.chain_update(digest));
            hex(&whole.finalize())
        };
        Self { images: of_all(&mut images), labelled: of_all(&mut labelled) }
    }
}

/// The SHA-256 of a reader's bytes, a little of them in memory at a time.
///
/// # Errors
/// Those of the reader.
pub(crate) fn sha256(reader: impl Read) -> io::Result<String> {
    let (mut reader, mut hash) = (BufReader::with_capacity(64 << 10, reader), Sha256::new());
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(bytes);
        let length = bytes.len();
        reader.consume(length);
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(images: &[u8], labels: &[u8]) -> Split {
        let pixels = images.len() / labels.len();
        Split { pixels, images: images.into(), labels: labels.into(), ..Split::default() }
    }

    #[test]
    fn a_fingerprint_knows_images_and_their_labels_and_no_order() {
        let of = |images: &[u8], labels: &[u8]| Fingerprint::of(&split(images, labels));
        let one = of(&[1, 2, 3, 4, 5, 6], &[7, 8, 9]);
        let turned = of(&[5, 6, 1, 2, 3, 4], &[9, 7, 8]);
        assert_eq!((&one.images, &one.labelled), (&turned.images, &turned.labelled));
        let swapped = of(&[1, 2, 3, 4, 5, 6], &[8, 7, 9]);
        assert!(one.images == swapped.images && one.labelled != swapped.labelled);
        let other = of(&[1, 2, 3, 4, 5, 7], &[7, 8, 9]);
        assert!(one.images != other.images && one.labelled != other.labelled);
        // The fingerprint of a single image, from its definition.
        let digest = Sha256::digest(Sha256::digest([1, 2]));
        // However they are divided.
        let both = Fingerprint::of_both(&split(&[5, 6, 3, 4], &[9, 8]), &split(&[1, 2], &[7]));
        assert_eq!((&one.images, &one.labelled), (&both.images, &both.labelled));
        assert_eq!(of(&[1, 2], &[7]).images, hex(&digest));
    }

    #[test]
    fn names_and_sizes_go_together() {
        for known in &KNOWN {
            assert!([0, known.classes].contains(&known.class_names().len()), "{}", known.name);
            assert_eq!(Known::named_by(known.choice).map(|found| found.name), Some(known.name));
        }
        assert!(Known::named_by(DataChoice::Auto).is_none());
    }
}
