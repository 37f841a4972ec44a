//! NumPy archives: one `.npz` file with `x_train`, `y_train`, `x_test` and `y_test`, as in Keras' mnist.npz, and
//! optionally the names of the classes as `classes`.
//!
//! What the arrays may be, [`arrays`](super::arrays) says; they may be compressed or not. An entry is read to its
//! end, where the archive has a checksum of it.

use super::MOST_PIXELS;
use super::arrays::{self, Images, Layout};
use super::error::{Parsed, refuse};
use super::four::is_one_of_four;
use super::npy::{self, Header};
use super::place::{Place, ends_in, name};
use super::{DataChoice, Dataset, Error, Result, Source, Split, there};
use crate::base::files;
use crate::base::near::did_you_mean;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use zip::ZipArchive;

/// A NumPy archive, or a folder with one.
pub(super) struct Npz;

impl Source for Npz {
    fn has(&self, choice: DataChoice, place: Option<&Place>) -> bool {
        choice != DataChoice::Glyphs && place.is_some_and(|place| archives(place).len() == 1)
    }

    fn to_train_on(&self, place: &Place) -> Option<String> {
        let [only] = &archives(place)[..] else { return None };
        let names = archive(only).map(|archive| names(&archive));
        let trains = names.is_ok_and(|names| names.iter().any(|name| name == "x_train"));
        trains.then(|| name(only))
    }

    fn read(&self, choice: DataChoice, place: Option<&Place>) -> Result<Dataset> {
        let place = there(place)?;
        let file = there(archives(place).pop())?;
        let [train, test] = read(&file)?;
        let dataset = Dataset::of_files(choice, place.given(), train, test)?;
        let names = class_names(&file, dataset.classes)?;
        Ok(dataset.called(names))
    }
}

/// The archives in a place that may be a whole set each: those that are not named like one of a set's four files.
pub fn archives(place: &Place) -> Vec<PathBuf> {
    let is_set = |path: &&PathBuf| ends_in(path, "npz") && !is_one_of_four(path);
    place.files.iter().filter(is_set).cloned().collect()
}

/// Training and test images of an archive; no training images where it has test images only.
///
/// # Errors
/// Names the file and the array that is missing or not what it should be.
pub fn read(path: &Path) -> Result<[Split; 2]> {
    let layout = |array: &str| open(path, Some(array), |header, _| Layout::of(header));
    let names = names(&archive(path)?);
    let has = |array: &str| names.iter().any(|name| name == array);
    if has("x_test") && has("y_test") && !has("x_train") && !has("y_train") {
        return Ok([Split::default(), part(path, "test")?]);
    }
    let (train, test) = (layout("x_train")?, layout("x_test")?);
    if train.count * train.pixels + test.count * test.pixels > MOST_PIXELS {
        refuse!(path, "x_train and x_test are more than the {MOST_PIXELS} pixels that are read at most");
    }
    Ok([part(path, "train")?, part(path, "test")?])
}

/// Images and labels from two files, `.npz` or `.npy`, that hold one array each, of at most so many pixels.
///
/// # Errors
/// Names the file that is not what it should be.
pub fn pair(images: &Path, labels: &Path, most: usize) -> Result<Split> {
    let layout = open(images, None, |header, _| Layout::of(header))?;
    if layout.count * layout.pixels > most {
        refuse!(images, "has more than the {MOST_PIXELS} pixels that are read at most of a set");
    }
    split((images, None), (labels, None))
}

fn part(path: &Path, part: &str) -> Result<Split> {
    split((path, Some(&format!("x_{part}"))), (path, Some(&format!("y_{part}"))))
}

/// Images and labels of two arrays, each with its file as in [`images_of`].
fn split(x: (&Path, Option<&str>), y: (&Path, Option<&str>)) -> Result<Split> {
    let Images { count, pixels, shape, bytes: images } = images_of(x.0, x.1)?;
    let labels = labels_of(y.0, y.1, count)?;
    let [images_origin, origin] = [x, y].map(|(path, array)| match array {
        Some(array) => format!("{}: {array}", path.display()),
        None => path.display().to_string(),
    });
    Ok(Split { images_origin, origin, pixels, shape, images, labels })
}

/// Reads the images of an array: of the one called `array` in an archive, or without a name of the only one in a
/// `.npz` or `.npy` file.
///
/// # Errors
/// Names the file and the array that is missing or not what it should be.
pub(super) fn images_of(path: &Path, array: Option<&str>) -> Result<Images> {
    open(path, array, Images::of)
}

/// Reads the labels of `count` images, of an array as [`images_of`] has it.
///
/// # Errors
/// Names the file and the array that is missing or not what it should be.
pub(super) fn labels_of(path: &Path, array: Option<&str>, count: usize) -> Result<Vec<u8>> {
    open(path, array, |header, reader| arrays::labels(header, reader, count))
}

/// The names of the archive's classes; empty where it has no array `classes`.
fn class_names(path: &Path, classes: usize) -> Result<Vec<String>> {
    if index(&archive(path)?, "classes").is_none() {
        return Ok(Vec::new());
    }
    open(path, Some("classes"), |header, reader| arrays::names(header, reader, classes))
}

/// Opens an array and passes its header and the values to `read`; see [`images_of`] for which array.
fn open<T>(
    path: &Path,
    array: Option<&str>,
    read: impl FnOnce(&Header, &mut dyn Read) -> Parsed<T>,
) -> Result<T> {
    let whole =
        |reader: &mut dyn Read, size| Header::read(reader, size).and_then(|header| read(&header, reader));
    let wrong = |problem: String| Error::files(path, problem);
    if array.is_none()
        && let (mut alone, size, true) = begin(path)?
    {
        return whole(&mut alone, size).map_err(wrong);
    }
    let mut archive = archive(path)?;
    let names = names(&archive);
    let array = match (array, &names[..]) {
        (Some(array), _) => array,
        (None, [only]) => only,
        (None, _) => {
            let problem = format!("holds {} arrays ({}) where one is needed", names.len(), names.join(", "));
            return Err(wrong(problem));
        }
    };
    let Some(index) = index(&archive, array) else {
        let meant = did_you_mean(array, names.iter().map(String::as_str));
        return Err(wrong(format!(
            "has no array {array}, only {}{meant}; x_train, y_train, x_test and y_test are needed",
            names.join(", ")
        )));
    };
    let mut entry = archive
        .by_index(index)
        .map_err(|cause| Error::unreadable(path, &format!("{array} cannot be read as an array"), &cause))?;
    let size = entry.size();
    whole(&mut entry, size).map_err(|problem| wrong(format!("{array}: {problem}")))
}

/// A file with its size, and true where it is one array alone.
fn begin(path: &Path) -> Result<(BufReader<File>, u64, bool)> {
    let open = || {
        let (file, size) = files::open(path)?;
        let mut file = BufReader::new(file);
        let alone = file.fill_buf()?.starts_with(npy::MAGIC);
        Ok((file, size, alone))
    };
    open().map_err(|cause: std::io::Error| Error::files(path, format!("cannot be read: {cause}")))
}

fn archive(path: &Path) -> Result<ZipArchive<BufReader<File>>> {
    let (file, _, alone) = begin(path)?;
    if alone {
        refuse!(path, "is one array, and no archive of several: write images and labels by numpy.savez");
    }
    ZipArchive::new(file).map_err(|cause| Error::unreadable(path, "not a readable .npz file", &cause))
}

/// The names of the arrays in an archive, in order.
fn names(archive: &ZipArchive<BufReader<File>>) -> Vec<String> {
    let mut names: Vec<String> = (archive.file_names().flatten())
        .filter(|name| !name.starts_with("__MACOSX/"))
        .map(|name| name.strip_suffix(".npy").unwrap_or(&name).to_string())
        .collect();
    names.sort_unstable();
    names
}

fn index(archive: &ZipArchive<BufReader<File>>, array: &str) -> Option<usize> {
    archive.index_for_name(&format!("{array}.npy")).or_else(|| archive.index_for_name(array))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use zip::write::{SimpleFileOptions, ZipWriter};

    /// A `.npy` of this type and shape.
    fn npy(descr: &str, shape: &[usize], values: &[u8]) -> Vec<u8> {
        let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sizes}), }}\n");
        [npy::MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes(), values].concat()
    }

    fn archive_of(folder: &Path, arrays: &[(&str, Vec<u8>)]) -> PathBuf {
        let path = folder.join("set.npz");
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        for (name, array) in arrays {
            zip.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
            zip.write_all(array).unwrap();
        }
        zip.finish().unwrap();
        path
    }

    /// Two images of two pixels, with the classes 0 and 1.
    fn small() -> [(&'static str, Vec<u8>); 4] {
        [
            ("x_train", npy("|u1", &[2, 2], &[0, 50, 100, 255])),
            ("y_train", npy("|u1", &[2], &[0, 1])),
            ("x_test", npy("|u1", &[2, 2], &[0, 50, 100, 255])),
            ("y_test", npy("|u1", &[2], &[0, 1])),
        ]
    }

    #[test]
    fn bytes_floats_and_bool_are_the_same_images() {
        let folder = tempfile::tempdir().unwrap();
        let quarters: Vec<u8> = (0..4).flat_map(|i| (i as f32 / 255.0).to_le_bytes()).collect();
        let labels: Vec<u8> = [0i64, 1, 2].iter().flat_map(|label| label.to_be_bytes()).collect();
        let path = archive_of(
            folder.path(),
            &[
                ("x_train", npy("|u1", &[3, 2, 2], &(0..12).collect::<Vec<u8>>())),
                ("y_train", npy(">i8", &[3], &labels)),
                ("x_test", npy("<f4", &[1, 4], &quarters)),
                ("y_test", npy("|u1", &[1, 1], &[1])),
            ],
        );
        assert_eq!(archives(&Place::at(folder.path()).unwrap()), vec![path.clone()]);
        let [train, test] = read(&path).unwrap();
        assert_eq!((train.pixels, train.images, train.labels), (4, (0..12).collect(), vec![0, 1, 2]));
        assert_eq!((test.pixels, test.images, test.labels), (4, vec![0, 1, 2, 3], vec![1]));
        fs::write(&path, npy("|b1", &[2, 1, 2, 1], &[0, 1, 1, 0])).unwrap();
        let images = images_of(&path, None).unwrap();
        assert_eq!((images.shape, images.bytes), (Some([1, 2, 1]), vec![0, 255, 255, 0]));
        fs::write(&path, npy("|u1", &[1, 1, 2, 3], &[1, 2, 3, 4, 5, 6])).unwrap();
        let images = images_of(&path, None).unwrap();
        assert_eq!((images.pixels, images.shape), (6, Some([1, 2, 3])));
    }

    #[test]
    fn an_array_alone_is_read_without_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = archive_of(folder.path(), &[("arr_0", npy("<i4", &[2], &[3, 0, 0, 0, 4, 0, 0, 0]))]);
        assert_eq!(labels_of(&path, None, 2).unwrap(), [3, 4]);
        assert!(
            labels_of(&path, None, 3).unwrap_err().to_string().contains("arr_0: has shape [2] for 3 images")
        );
        let path = archive_of(folder.path(), &small());
        let error = labels_of(&path, None, 2).unwrap_err().to_string();
        assert!(error.contains("holds 4 arrays (x_test, x_train, y_test, y_train)"), "{error}");
        fs::write(&path, npy("|u1", &[2], &[3, 4])).unwrap();
        assert_eq!(labels_of(&path, None, 2).unwrap(), [3, 4]);
        assert!(read(&path).unwrap_err().to_string().contains("is one array, and no archive"));
    }

    #[test]
    fn mistakes_name_file_and_array() {
        let folder = tempfile::tempdir().unwrap();
        let halves: Vec<u8> = [0.5f32, 1.5].iter().flat_map(|value| value.to_le_bytes()).collect();
        for (name, array, expected) in [
            ("y_train", npy("|u1", &[3], &[0; 3]), "y_train: has shape [3] for 2 images: it should be (2,)"),
            ("y_train", npy("|u1", &[2, 2], &[0; 4]), "argmax(1)"),
            ("y_train", npy("<i2", &[2], &[0, 0, 0, 1]), "y_train: label 1 is 256"),
            ("y_train", npy("|i1", &[2], &[0, 0xff]), "y_train: label 1 is -1"),
            (
                "y_train",
                npy("<U1", &[2], &[0x61; 8]),
                "y_train: holds strings (dtype \"<U1\"); labels are whole",
            ),
            ("y_train", npy("|O", &[2], &[0]), "y_train: holds Python objects"),
            (
                "x_train",
                npy("<f4", &[2, 1], &halves),
                "x_train: value 1 is 1.5, and floats must be from 0 to 1",
            ),
            ("x_train", npy("<i2", &[2, 1], &[0, 0, 0, 1]), "x_train: value 1 is 256, and whole numbers"),
            (
                "x_train",
                npy("|S1", &[2, 1], &[0; 2]),
                "x_train: holds strings (dtype \"|S1\"); images are uint8",
            ),
            ("x_train", npy("|u1", &[2], &[0; 2]), "x_train: has shape [2]"),
            ("x_train", npy("|u1", &[2, 3, 1, 2], &[0; 12]), "transpose(0, 2, 3, 1)"),
            ("x_train", npy("|u1", &[1 << 40, 1 << 40, 0], &[]), "x_train: claims shape"),
            ("x_train", npy("|u1", &[0, 28, 28], &[]), "x_train: holds no images"),
            ("x_train", npy("|u1", &[2, 0], &[]), "x_train: holds no images"),
            ("x_train", npy("<f8", &[1 << 20, 1 << 10], &[]), "x_train: claims shape [1048576, 1024]"),
            (
                "x_train",
                npy("|u1", &[2, 2], &[0, 1, 1]),
                "x_train: has shape [2, 2] and dtype \"|u1\", but 3 bytes",
            ),
            ("x_train", npy("|u1", &[2, 2], &[0, 1, 1, 0]), "x_train: the images cannot be told apart"),
            ("x_train", b"text".to_vec(), "x_train: is cut short"),
        ] {
            let arrays =
                small().map(|(known, good)| (known, if known == name { array.clone() } else { good }));
            let error = read(&archive_of(folder.path(), &arrays)).unwrap_err().to_string();
            assert!(
                error.contains("set.npz: ") && error.contains(expected),
                "{error} should have {expected}"
            );
        }
        let arrays = small().map(|(name, array)| (if name == "x_train" { "X_train" } else { name }, array));
        let path = archive_of(folder.path(), &arrays);
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("no array x_train") && error.contains("did you mean X_train?"), "{error}");
        fs::write(&path, "no zip").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("not a readable .npz file"));
    }

    #[test]
    fn classes_are_named_or_the_names_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let names = |classes: Vec<u8>| {
            let arrays = [&small()[..], &[("classes", classes)]].concat();
            class_names(&archive_of(folder.path(), &arrays), 2).map_err(|error| error.to_string())
        };
        assert_eq!(names(npy("|S3", &[3], b"catdogant")).unwrap(), ["cat", "dog", "ant"]);
        assert_eq!(class_names(&archive_of(folder.path(), &small()), 2).unwrap(), [""; 0]);
        for (classes, expected) in [
            (npy("|S3", &[1], b"cat"), "classes: holds 1 names, but there is a label 1: it should hold 2"),
            (npy("|S3", &[1, 2], b"catdog"), "classes: has shape [1, 2]"),
            (npy("|S3", &[2], b"cat\0\0\0"), "classes: name 1 is empty"),
            (npy("|S3", &[2], b"cat\x1b[m"), "classes: name 1 is empty, no text, or"),
            (npy("|u1", &[2], &[0, 1]), "classes: holds numbers (dtype \"|u1\")"),
            (npy("|O", &[2], &[0]), "classes: holds Python objects"),
            (npy("<U99999999", &[2], &[0]), "classes: takes more than"),
        ] {
            let error = names(classes).unwrap_err();
            assert!(
                error.contains("set.npz: ") && error.contains(expected),
                "{error} should have {expected}"
            );
        }
    }
}
