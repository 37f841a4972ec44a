//! NumPy archives: one `.npz` file with `x_train`, `y_train`, `x_test` and `y_test`, as Keras' mnist.npz.
//!
//! Images are (N, height, width), (N, height, width, 1) or (N, pixels), as uint8 or as floats from 0 to 1; labels are
//! whole numbers (N,) or (N, 1) from 0 to 255. candle reads the arrays, compressed or not.

use super::error::with_causes;
use super::four::is_one_of_four;
use super::place::{Place, ends_in, name};
use super::{DataChoice, Dataset, Error, Result, Source, Split, there};
use crate::base::files;
use crate::base::near::did_you_mean;
use candle_core::npy::NpzTensors;
use candle_core::{DType, Tensor};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The most values an array may have; MNIST's training images have 47 million.
const MOST_VALUES: usize = 768 << 20;

/// Within how many bytes the header of a `.npy` file ends.
const MOST_HEADER: u64 = 1 << 10;

/// A NumPy archive, or a folder with one.
pub(super) struct Npz;

impl Source for Npz {
    fn has(&self, choice: DataChoice, place: Option<&Place>) -> bool {
        choice != DataChoice::Glyphs && place.is_some_and(|place| archives(place).len() == 1)
    }

    fn read(&self, choice: DataChoice, place: Option<&Place>) -> Result<Dataset> {
        let place = there(place)?;
        let [train, test] = read(&there(archives(place).pop())?)?;
        Dataset::of_files(choice, place.given(), train, test)
    }
}

/// The archives in a place that may be a whole set each: those that are not called as one of a set's four files.
pub fn archives(place: &Place) -> Vec<PathBuf> {
    let is_set = |path: &&PathBuf| ends_in(path, "npz") && !is_one_of_four(path);
    place.files.iter().filter(is_set).cloned().collect()
}

/// Training and test images of an archive; none to train on where it has test images alone.
///
/// # Errors
/// Names the file and the array that is missing or not what it should be.
pub fn read(path: &Path) -> Result<[Split; 2]> {
    let archive = open(path)?;
    let has = |array: &str| archive.names().iter().any(|name| *name == array);
    let only_to_test_on = has("x_test") && has("y_test") && !has("x_train") && !has("y_train");
    let train = if only_to_test_on { Split::default() } else { split(&archive, path, "train")? };
    Ok([train, split(&archive, path, "test")?])
}

fn open(path: &Path) -> Result<NpzTensors> {
    NpzTensors::new(path).map_err(|cause| Error::unreadable(path, "not a readable .npz file", &cause))
}

/// Images and labels from two files, `.npz` or `.npy`, that hold one array each.
///
/// # Errors
/// Names the file that is not what it should be.
pub fn pair(images: &Path, labels: &Path) -> Result<Split> {
    let [x, y] = [images, labels].map(only_array);
    let split = assembled(images, (&name(images), x?), (&name(labels), y?))?;
    Ok(Split { origin: labels.display().to_string(), ..split })
}

/// The array of a file that holds one.
fn only_array(path: &Path) -> Result<Tensor> {
    if !ends_in(path, "npy") {
        let archive = open(path)?;
        return match archive.names()[..] {
            [only] => array(&archive, path, only),
            ref several => {
                let problem =
                    format!("holds {} arrays, and should hold one: images or labels", several.len());
                Err(Error::files(path, problem))
            }
        };
    }
    let unreadable =
        |cause: &dyn std::error::Error| Error::unreadable(path, "not a readable .npy file", cause);
    let (file, size) = files::open(path).map_err(|cause| unreadable(&cause))?;
    let mut header = Vec::new();
    file.take(MOST_HEADER).read_to_end(&mut header).map_err(|cause| unreadable(&cause))?;
    // Before anything is allocated for what the header claims.
    let text = String::from_utf8_lossy(&header);
    let parts: Vec<&str> = text.split("'shape': (").collect();
    let shape = match parts[..] {
        [before, after] if before.starts_with("\u{fffd}NUMPY\u{1}") => {
            after.split_once(')').map(|(shape, _)| shape)
        }
        _ => None,
    };
    let shape = shape.ok_or_else(|| Error::files(path, "not a readable .npy file"))?;
    let mut sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty());
    let values = sizes.try_fold(1u64, |product, size| product.checked_mul(size.parse().ok()?));
    if values.is_none_or(|values| values > size.min(MOST_VALUES as u64)) {
        let problem = format!("claims shape ({shape}), more than the {size} bytes that it has");
        return Err(Error::files(path, problem));
    }
    Tensor::read_npy(path).map_err(|cause| unreadable(&cause))
}

fn split(archive: &NpzTensors, path: &Path, part: &str) -> Result<Split> {
    let (x, y) = (format!("x_{part}"), format!("y_{part}"));
    let (images, labels) = (array(archive, path, &x)?, array(archive, path, &y)?);
    assembled(path, (&x, images), (&y, labels))
}

/// A split of these arrays, which are called so.
fn assembled(path: &Path, (x, images): (&str, Tensor), (y, labels): (&str, Tensor)) -> Result<Split> {
    let origin = format!("{}: {y}", path.display());
    let wrong = |problem: String| Error::files(path, problem);
    let (count, pixels, shape) = match *images.dims() {
        [count, pixels] => (count, pixels, None),
        [count, height, width] | [count, height, width, 1] => {
            (count, height * width, Some([height, width, 1]))
        }
        ref other => {
            return Err(wrong(format!(
                "{x} has shape {other:?}: images are (N, height, width) or (N, pixels), in shades of grey"
            )));
        }
    };
    if !matches!(labels.dims(), [n] | [n, 1] if *n == count) {
        return Err(wrong(format!(
            "{x} has {count} images, but {y} has shape {:?}: it should be ({count},)",
            labels.dims()
        )));
    }
    if count == 0 || pixels == 0 {
        return Err(wrong(format!("{x} holds no images")));
    }
    let images = bytes(&images).map_err(|problem| wrong(format!("{x}: {problem}")))?;
    let labels = classes(&labels).map_err(|problem| wrong(format!("{y}: {problem}")))?;
    Ok(Split { origin, pixels, shape, images, labels })
}

fn array(archive: &NpzTensors, path: &Path, array: &str) -> Result<Tensor> {
    if !archive.names().iter().any(|name| *name == array) {
        let mut names: Vec<&str> = archive.names().into_iter().map(String::as_str).collect();
        names.sort_unstable();
        let meant = did_you_mean(array, names.iter().copied());
        let problem = format!(
            "has no array {array}, only {}{meant}; x_train, y_train, x_test and y_test are needed",
            names.join(", ")
        );
        return Err(Error::files(path, problem));
    }
    let unreadable = format!("{array} cannot be read as an array");
    let damaged = |cause: candle_core::Error| Error::unreadable(path, &unreadable, &cause);
    // Before anything is allocated for what the header claims.
    let (shape, _) = archive.get_shape_and_dtype(array).map_err(damaged)?;
    let values = shape.dims().iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    if values.is_none_or(|values| values > MOST_VALUES) {
        let problem = format!(
            "{array} claims shape {shape:?}, more than the {MOST_VALUES} values that are read at most"
        );
        return Err(Error::files(path, problem));
    }
    archive.get(array).map_err(damaged)?.ok_or_else(|| Error::files(path, unreadable.as_str()))
}

/// Pixels as bytes, or what is wrong with them; floats from 0 to 1 are rounded to 255ths.
fn bytes(images: &Tensor) -> std::result::Result<Vec<u8>, String> {
    let flat = |dtype| images.to_dtype(dtype)?.flatten_all();
    let failed = |cause: candle_core::Error| with_causes(&cause);
    if images.dtype() == DType::U8 {
        return flat(DType::U8).and_then(|images| images.to_vec1()).map_err(failed);
    }
    if !images.dtype().is_float() {
        return Err(format!("has type {:?}; images are uint8, or floats from 0 to 1", images.dtype()));
    }
    let values = flat(DType::F32).and_then(|images| images.to_vec1::<f32>()).map_err(failed)?;
    if let Some(i) = values.iter().position(|value| !(0.0..=1.0).contains(value)) {
        return Err(format!(
            "value {i} is {}, and floats must be from 0 to 1: divide by 255, or store it as uint8",
            values[i]
        ));
    }
    Ok(values.into_iter().map(|value| (value * 255.0).round() as u8).collect())
}

/// Classes as bytes, or what is wrong with them.
fn classes(labels: &Tensor) -> std::result::Result<Vec<u8>, String> {
    let flat = labels.to_dtype(DType::F64).and_then(|labels| labels.flatten_all());
    let labels = flat.and_then(|labels| labels.to_vec1::<f64>()).map_err(|cause| with_causes(&cause))?;
    (labels.iter().enumerate())
        .map(|(i, &label)| match label.fract() == 0.0 && (0.0..=255.0).contains(&label) {
            true => Ok(label as u8),
            false => Err(format!("label {i} is {label}: labels are whole numbers from 0 to 255")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn archive(folder: &Path, arrays: &[(&str, Tensor)]) -> PathBuf {
        let path = folder.join("set.npz");
        Tensor::write_npz(arrays, &path).unwrap();
        path
    }

    fn tensor<T: candle_core::WithDType>(values: Vec<T>, shape: &[usize]) -> Tensor {
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn bytes_and_floats_are_the_same_images() {
        let folder = tempfile::tempdir().unwrap();
        let path = archive(
            folder.path(),
            &[
                ("x_train", tensor((0u8..12).collect(), &[3, 2, 2])),
                ("y_train", tensor(vec![0i64, 1, 2], &[3])),
                ("x_test", tensor((0..4).map(|i| i as f32 / 255.0).collect(), &[1, 4])),
                ("y_test", tensor(vec![1u8], &[1, 1])),
            ],
        );
        assert_eq!(archives(&Place::at(folder.path()).unwrap()), vec![path.clone()]);
        let [train, test] = read(&path).unwrap();
        assert_eq!((train.pixels, train.images, train.labels), (4, (0..12).collect(), vec![0, 1, 2]));
        assert_eq!((test.pixels, test.images, test.labels), (4, vec![0, 1, 2, 3], vec![1]));
    }

    #[test]
    fn mistakes_name_file_and_array() {
        let folder = tempfile::tempdir().unwrap();
        let images = || tensor(vec![0u8; 8], &[2, 4]);
        let labels = || tensor(vec![0u8; 2], &[2]);
        for (x, y, expected) in [
            (images(), tensor(vec![0u8; 3], &[3]), "x_train has 2 images, but y_train has shape [3]"),
            (images(), tensor(vec![0i64, 256], &[2]), "y_train: label 1 is 256"),
            (tensor(vec![0.5f32, 1.5], &[2, 1]), labels(), "x_train: value 1 is 1.5"),
            (tensor(vec![0u8; 2], &[2]), labels(), "x_train has shape [2]"),
            (tensor(vec![0i64; 8], &[2, 4]), labels(), "x_train: has type I64"),
        ] {
            let path = archive(folder.path(), &[("x_train", x), ("y_train", y)]);
            let error = format!("{:#}", read(&path).unwrap_err());
            assert!(error.contains("set.npz") && error.contains(expected), "{error}");
        }
        let path = archive(folder.path(), &[("X_train", images()), ("y_train", labels())]);
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(error.contains("no array x_train") && error.contains("did you mean X_train?"), "{error}");
        std::fs::write(&path, "no zip").unwrap();
        assert!(format!("{:#}", read(&path).unwrap_err()).contains("not a readable .npz file"));
    }
}
