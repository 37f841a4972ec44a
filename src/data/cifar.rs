//! CIFAR-10 as its authors distribute it for C programs: `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`.
//!
//! An image is a byte for its class and 32 × 32 bytes of red, as many of green and as many of blue. They are kept as
//! those of all other sets, a pixel's three channels together.

use super::error::refuse;
use super::place::{Place, ends_in, name};
use super::{DataChoice, Dataset, Error, MOST_PIXELS, Result, Source, Split, there};
use crate::base::files;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Height and width of an image.
const SIDE: usize = 32;
/// Red, green, blue.
const CHANNELS: usize = 3;
/// Bytes of a channel.
const PLANE: usize = SIDE * SIDE;
/// Bytes of an image with its class.
const RECORD: usize = 1 + CHANNELS * PLANE;
/// The file to test on.
const TEST: &str = "test_batch.bin";

/// A folder with the files of the binary version.
pub(super) struct Binary;

impl Source for Binary {
    fn has(&self, choice: DataChoice, place: Option<&Place>) -> bool {
        let here = |place: &Place| !batches(place).is_empty() || test(place).is_some();
        matches!(choice, DataChoice::Auto | DataChoice::Cifar10) && place.is_some_and(here)
    }

    fn to_train_on(&self, place: &Place) -> Option<String> {
        batches(place).first().map(|first| format!("{} and those like it", name(first)))
    }

    fn read(&self, choice: DataChoice, place: Option<&Place>) -> Result<Dataset> {
        let place = there(place)?;
        let (batches, Some(test)) = (batches(place), test(place)) else {
            refuse!(place.path(), "has training images of CIFAR-10, but no {TEST}: put that beside them");
        };
        let train =
            if batches.is_empty() { Split::default() } else { split(place.path(), &batches, MOST_PIXELS)? };
        let test = split(&test, std::slice::from_ref(&test), MOST_PIXELS - train.images.len())?;
        Dataset::of_files(choice, place.given(), train, test)
    }
}

/// The files to train on, in the order of their names.
fn batches(place: &Place) -> Vec<PathBuf> {
    let is_one = |path: &&PathBuf| name(path).starts_with("data_batch_") && ends_in(path, "bin");
    place.files.iter().filter(is_one).cloned().collect()
}

fn test(place: &Place) -> Option<PathBuf> {
    place.files.iter().find(|path| name(path) == TEST).cloned()
}

/// The images of these files, one after the other, of at most so many bytes.
fn split(origin: &Path, paths: &[PathBuf], most: usize) -> Result<Split> {
    let mut split = Split {
        images_origin: origin.display().to_string(),
        origin: origin.display().to_string(),
        pixels: CHANNELS * PLANE,
        shape: Some([SIDE, SIDE, CHANNELS]),
        ..Split::default()
    };
    for path in paths {
        let wrong = |cause: std::io::Error| Error::unreadable(path, "cannot be read", &cause);
        let (file, size) = files::open(path).map_err(wrong)?;
        if size == 0 || size % RECORD as u64 != 0 {
            refuse!(
                path,
                "has {size} bytes, which are no whole images of {RECORD}: a byte for the class and {CHANNELS} × {SIDE} × \
                 {SIDE} for the pixels; download CIFAR-10's binary version again"
            );
        }
        if size > (most - split.images.len()) as u64 {
            refuse!(path, "has more than the {MOST_PIXELS} pixels that are read at most of a set");
        }
        let (mut reader, mut record) = (BufReader::new(file), [0; RECORD]);
        for _ in 0..size / RECORD as u64 {
            reader.read_exact(&mut record).map_err(wrong)?;
            let [label, planes @ ..] = &record;
            split.labels.push(*label);
            split.images.extend((0..PLANE).flat_map(|at| (0..CHANNELS).map(move |c| planes[c * PLANE + at])));
        }
    }
    Ok(split)
}
