//! Folders of PNGs: `train/CLASS/*.png` and `test/CLASS/*.png`, all of one size, or `test/` alone.
//!
//! `training` and `testing` are the same, in capitals or not, and so is `val` where there is no test.
//! Classes that are numbers are their own labels; others are numbered in alphabetical order. Images come in turns, the
//! first of each class, the second of each, …, so that the first so many of them are of all classes. Colours become
//! shades of grey (luma of Rec. 601), 16 bits become 8, and transparency is left out.

use super::MOST_PIXELS;
use super::black::{self, Before};
use super::error::{refuse, with_causes};
use super::place::{Place, ends_in, list, name};
use super::{DataChoice, Dataset, Error, Result, Source, Split, there};
use crate::base::files;
use png::{BitDepth, ColorType, Decoder, Limits, Transformations};
use std::io::{BufRead, BufReader, Seek};
use std::path::{Path, PathBuf};
use tracing::info;

/// The most bytes that decoding one image may take.
const MOST_BYTES: usize = 64 << 20;

/// A folder of PNGs by class.
pub(super) struct Pngs;

impl Source for Pngs {
    fn has(&self, choice: DataChoice, place: Option<&Place>) -> bool {
        choice != DataChoice::Glyphs && place.is_some_and(|place| Parts::of(place).chosen().is_some())
    }

    fn to_train_on(&self, place: &Place) -> Option<String> {
        let parts = Parts::of(place);
        let (train, test) = parts.chosen()?;
        let train = train.filter(|train| holds_pngs(train))?;
        Some(format!("PNGs in {}/ and {}/", name(train), name(test)))
    }

    fn read(&self, choice: DataChoice, place: Option<&Place>) -> Result<Dataset> {
        let place = there(place)?;
        let parts = Parts::of(place);
        let (train, test) = there(parts.chosen())?;
        if let Some(unread) = parts.validation.iter().find(|folder| *folder != test) {
            info!("{}: is not read; training.validation = N holds out training images", unread.display());
        }
        let (splits, class_names) = read(train, test)?;
        let [train, test] = splits;
        Ok(Dataset::of_files(choice, place.given(), train, test)?.called(class_names))
    }
}

/// The folders in a place that may hold a part of a set.
pub(super) struct Parts {
    train: Vec<PathBuf>,
    test: Vec<PathBuf>,
    validation: Vec<PathBuf>,
}

impl Parts {
    /// The parts in a place, recognised by their names.
    pub fn of(place: &Place) -> Self {
        let called = |names: &[&str]| {
            let is = |path: &&PathBuf| names.contains(&name(path).to_lowercase().as_str());
            place.folders.iter().filter(is).cloned().collect()
        };
        Self {
            train: called(&["train", "training"]),
            test: called(&["test", "testing"]),
            validation: called(&["val", "valid", "validation"]),
        }
    }

    /// The folder of test images, or else the one of validation images.
    fn tests(&self) -> &[PathBuf] {
        if self.test.is_empty() { &self.validation } else { &self.test }
    }

    /// The folder of training images, if any, and the one of test images.
    pub fn chosen(&self) -> Option<(Option<&Path>, &Path)> {
        match (&self.train[..], self.tests()) {
            ([train], [test]) => Some((Some(train), test)),
            // Many folders are called test.
            ([], [test]) => holds_pngs(test).then_some((None, test)),
            _ => None,
        }
    }

    /// The reason why none is chosen, where there are any.
    pub fn trouble(&self) -> Option<String> {
        let names = |folders: &[PathBuf]| {
            folders.iter().map(|folder| format!("{}/", name(folder))).collect::<Vec<_>>().join(" and ")
        };
        match (&self.train[..], self.tests()) {
            ([], []) => None,
            (folders @ [_, _, ..], _) | (_, folders @ [_, _, ..]) => {
                Some(format!("has {}: keep the right one, and move the other away", names(folders)))
            }
            ([train], []) => Some(format!(
                "has {0}/, but no test/: move some of its images to test/, in folders of the same classes",
                name(train)
            )),
            (_, tests) => Some(format!(
                "has {}, but no PNGs by class in it, as test/3/*.png, and no train/ beside it",
                names(tests)
            )),
        }
    }
}

/// True where a folder has a PNG in a folder of a class.
fn holds_pngs(folder: &Path) -> bool {
    let holds_one =
        |class: &PathBuf| list(class).is_ok_and(|(files, _)| files.iter().any(|file| ends_in(file, "png")));
    list(folder).is_ok_and(|(_, classes)| classes.iter().any(holds_one))
}

/// Training and test images, no training images where there is no folder of them, and the names of the classes where
/// they are not numbers.
///
/// # Errors
/// Names the file or folder that is missing or not what it should be.
fn read(train: Option<&Path>, test: &Path) -> Result<([Split; 2], Vec<String>)> {
    let classes = labels(train.unwrap_or(test))?;
    let trained = train.map_or_else(|| Ok(Split::default()), |train| split(train, &classes, MOST_PIXELS))?;
    for (class, _) in labels(test)? {
        if let Some(train) = train.filter(|_| !classes.iter().any(|(known, _)| *known == class)) {
            refuse!(&test.join(class), "there is no such class in {}", train.display());
        }
    }
    let tested = split(test, &classes, MOST_PIXELS - trained.images.len())?;
    if let Some(train) = train.filter(|_| trained.pixels != tested.pixels) {
        refuse!(
            train,
            "its images have {} pixels, those in {} {}: make all of one size",
            trained.pixels,
            test.display(),
            tested.pixels
        );
    }
    let words = classes.iter().any(|(class, _)| class.parse::<u8>().is_err());
    let names = if words { classes.into_iter().map(|(class, _)| class).collect() } else { Vec::new() };
    Ok(([trained, tested], names))
}

/// The folders of classes, each with its label.
fn labels(folder: &Path) -> Result<Vec<(String, u8)>> {
    let folders = sorted(list(folder)?.1);
    if folders.is_empty() {
        refuse!(folder, "holds no folders: put the images of each class into one, as train/3/*.png");
    }
    if let Some(path) =
        folders.iter().find(|path| path.file_name().is_some_and(|name| name.to_str().is_none()))
    {
        refuse!(path, "has a name that is not UTF-8, and its name is that of a class: rename it");
    }
    let names: Vec<String> = folders.iter().map(|path| name(path)).collect();
    let numbers: Option<Vec<u8>> = names.iter().map(|name| name.parse().ok()).collect();
    match numbers {
        Some(numbers) => {
            let twice = (1..numbers.len()).find(|i| numbers[..*i].contains(&numbers[*i]));
            if let Some(i) = twice {
                let first = numbers.iter().position(|number| *number == numbers[i]).unwrap_or(0);
                refuse!(
                    folder,
                    "has the class {} twice, as {} and as {}: put their images into one folder",
                    numbers[i],
                    names[first],
                    names[i]
                );
            }
            Ok(names.into_iter().zip(numbers).collect())
        }
        None if names.len() > 256 => {
            refuse!(folder, "has {} classes, of which there are at most 256", names.len())
        }
        None => Ok(names.into_iter().zip(0..=255).collect()),
    }
}

fn split(folder: &Path, classes: &[(String, u8)], most: usize) -> Result<Split> {
    let mut files: Vec<(usize, u8, PathBuf)> = Vec::new();
    for (class, label) in classes {
        let there = folder.join(class);
        let is_png = |path: &PathBuf| ends_in(path, "png");
        let images = if there.is_dir() { sorted(list(&there)?.0) } else { Vec::new() };
        files.extend(images.into_iter().filter(is_png).enumerate().map(|(turn, path)| (turn, *label, path)));
    }
    files.sort();
    let origin = folder.display().to_string();
    let mut split = Split { images_origin: origin.clone(), origin, ..Split::default() };
    let (mut size, mut before) = (None, None);
    for (_, label, path) in &files {
        let Picture { width, height, grey, before: this } = image(path)?;
        before = before.or(this);
        let (w, h, first) = *size.get_or_insert((width, height, path));
        if (width, height) != (w, h) {
            refuse!(
                path,
                "is {width} × {height} pixels, but {} is {w} × {h}: make all of one size",
                first.display()
            );
        }
        if split.images.len() + grey.len() > most {
            refuse!(folder, "holds more than the {MOST_PIXELS} pixels that are read at most of a set");
        }
        split.pixels = grey.len();
        split.shape = Some([height as usize, width as usize, 1]);
        split.images.extend(grey);
        split.labels.push(*label);
    }
    if split.is_empty() {
        refuse!(folder, "holds no PNGs in folders of classes, as {}/3/*.png", folder.display());
    }
    black::check(&split.images, before).map_err(|problem| Error::files(folder, problem))?;
    Ok(split)
}

/// Paths in the order of their names, numbers by value and before words.
fn sorted(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.sort_by_cached_key(|path| {
        let number: Option<u64> = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        (number.is_none(), number, name(path))
    });
    paths
}

/// A PNG in shades of grey.
pub(super) struct Picture {
    width: u32,
    height: u32,
    /// Row-major.
    pub grey: Vec<u8>,
    /// The information lost in the conversion.
    before: Option<Before>,
}

fn image(path: &Path) -> Result<Picture> {
    let (file, _) = files::open(path).map_err(|cause| Error::files(path, cause))?;
    grey(BufReader::new(file)).map_err(|problem| Error::files(path, problem))
}

/// Decodes a PNG into shades of grey.
pub(super) fn grey(png: impl BufRead + Seek) -> std::result::Result<Picture, String> {
    let damaged = |cause| format!("not a readable PNG: {}", with_causes(&cause));
    let mut decoder = Decoder::new_with_limits(png, Limits { bytes: MOST_BYTES });
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(damaged)?;
    let bytes = reader.output_buffer_size().filter(|bytes| *bytes <= MOST_BYTES).ok_or_else(|| {
        let (width, height) = reader.info().size();
        format!("is {width} × {height} pixels, more than the {MOST_BYTES} bytes that are read at most: make it smaller")
    })?;
    let mut pixels = vec![0; bytes];
    let frame = reader.next_frame(&mut pixels).map_err(damaged)?;
    pixels.truncate(frame.buffer_size());
    let channels = frame.color_type.samples();
    let mut alpha = pixels.iter().skip(channels - 1).step_by(channels);
    let opaque = alpha.next();
    let before = match frame.color_type {
        ColorType::GrayscaleAlpha | ColorType::Rgba if alpha.any(|alpha| Some(alpha) != opaque) => {
            Some(Before::Alpha)
        }
        _ => (reader.info().bit_depth == BitDepth::Sixteen).then_some(Before::SixteenBits),
    };
    let luma = |rgb: &[u8]| {
        let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(u32::from);
        ((299 * r + 587 * g + 114 * b + 500) / 1000) as u8
    };
    let grey = match frame.color_type {
        ColorType::Grayscale => pixels,
        ColorType::GrayscaleAlpha => pixels.chunks_exact(2).map(|pixel| pixel[0]).collect(),
        ColorType::Rgb => pixels.chunks_exact(3).map(luma).collect(),
        ColorType::Rgba => pixels.chunks_exact(4).map(luma).collect(),
        ColorType::Indexed => return Err("not a readable PNG".into()),
    };
    Ok(Picture { width: frame.width, height: frame.height, grey, before })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// The result of [`read`] for the folders in a place.
    fn read_in(place: &Path) -> Result<([Split; 2], Vec<String>)> {
        let place = Place::at(place)?;
        let parts = Parts::of(&place);
        let (train, test) = parts.chosen().expect("one of each");
        read(train, test)
    }

    fn write(path: &Path, (width, height): (u32, u32), color: ColorType, pixels: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), width, height);
        encoder.set_color(color);
        encoder.write_header().unwrap().write_image_data(pixels).unwrap();
    }

    #[test]
    fn images_come_in_turns_and_numbers_are_labels() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        for (name, pixels) in
            [("train/3/2.png", [1, 2]), ("train/3/10.png", [3, 4]), ("train/7/1.png", [5, 6])]
        {
            write(&place.join(name), (2, 1), ColorType::Grayscale, &pixels);
        }
        write(&place.join("test/7/a.png"), (2, 1), ColorType::Rgb, &[255, 255, 255, 255, 0, 0]);
        let ([train, test], names) = read_in(place).unwrap();
        assert!(names.is_empty(), "numbers are no names");
        assert_eq!((train.pixels, train.images, train.labels), (2, vec![1, 2, 5, 6, 3, 4], vec![3, 7, 3]));
        assert_eq!((test.pixels, test.images, test.labels), (2, vec![255, 76], vec![7]));
    }

    #[test]
    fn words_are_numbered_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["train/dog/1.png", "train/cat/1.png", "test/dog/1.png"] {
            write(&folder.path().join(name), (2, 1), ColorType::Grayscale, &[9, 8]);
        }
        let ([train, test], names) = read_in(folder.path()).unwrap();
        assert_eq!((train.labels, test.labels), (vec![0, 1], vec![1]));
        assert_eq!(names, ["cat", "dog"]);
    }

    #[test]
    fn parts_are_known_by_their_names() {
        // Folders, and the two that are chosen, or the error.
        for (folders, taken) in [
            (&["training", "testing"][..], Ok((Some("training"), "testing"))),
            (&["Training", "Test", "val"], Ok((Some("Training"), "Test"))),
            (&["train", "val"], Ok((Some("train"), "val"))),
            (&["test"], Ok((None, "test"))),
            (&["train", "test", "testing"], Err("has test/ and testing/")),
            (&["train"], Err("has train/, but no test/")),
        ] {
            let folder = tempfile::tempdir().unwrap();
            for part in folders {
                write(&folder.path().join(part).join("3/1.png"), (1, 1), ColorType::Grayscale, &[9]);
            }
            let parts = Parts::of(&Place::at(folder.path()).unwrap());
            let chosen = parts.chosen().map(|(train, test)| (train.map(name), name(test)));
            match taken {
                Ok((train, test)) => assert_eq!(chosen, Some((train.map(String::from), test.to_string()))),
                Err(trouble) => {
                    assert!(chosen.is_none() && parts.trouble().unwrap().contains(trouble), "{folders:?}");
                }
            }
        }
    }

    #[test]
    fn droppings_are_neither_classes_nor_images() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["train/3/1.png", "test/3/1.png"] {
            write(&folder.path().join(name), (2, 1), ColorType::Grayscale, &[9, 200]);
        }
        for name in ["train/3/._1.png", "train/@eaDir/1.png", "test/__MACOSX/1.png", "test/3/.DS_Store"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "no picture").unwrap();
        }
        let ([train, test], _) = read_in(folder.path()).unwrap();
        assert_eq!((train.labels, test.labels), (vec![3], vec![3]));
    }

    #[test]
    fn mistakes_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        let complaint = || format!("{:#}", read_in(place).unwrap_err());
        write(&place.join("train/0/a.png"), (1, 1), ColorType::Grayscale, &[9]);
        write(&place.join("train/1/b.png"), (2, 1), ColorType::Grayscale, &[9, 9]);
        fs::create_dir(place.join("test")).unwrap();
        assert!(complaint().contains("b.png: is 2 × 1 pixels"), "{}", complaint());
        fs::write(place.join("train/1/b.png"), "no picture").unwrap();
        assert!(complaint().contains("b.png: not a readable PNG"), "{}", complaint());
        write(&place.join("train/1/b.png"), (1, 1), ColorType::Grayscale, &[8]);
        assert!(complaint().contains("test: holds no folders"), "{}", complaint());
        write(&place.join("test/2/c.png"), (1, 1), ColorType::Grayscale, &[9]);
        assert!(complaint().contains("test/2: there is no such class"), "{}", complaint());
    }
}
