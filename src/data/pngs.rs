//! Folders of PNGs: `train/CLASS/*.png` and `test/CLASS/*.png`, all of one size.
//!
//! Classes that are numbers are their own labels; others are numbered in alphabetical order. Images come in turns, the
//! first of each class, the second of each, …, so that the first so many of them are of all classes. Colours become
//! shades of grey (luma of Rec. 601), 16 bits become 8, and transparency is left out.

use super::black::{self, Before};
use super::error::with_causes;
use super::{DataChoice, Dataset, Error, Result, Source, Split};
use crate::base::files;
use png::{BitDepth, ColorType, Decoder, Limits, Transformations};
use std::fs;
use std::io::{BufRead, BufReader, Seek};
use std::path::{Path, PathBuf};

/// The most bytes that decoding one image may take.
const MOST_BYTES: usize = 64 << 20;
/// The most bytes of pixels of a split.
const MOST_PIXELS: usize = 768 << 20;

/// A folder of PNGs by class.
pub(super) struct Pngs;

impl Source for Pngs {
    fn has(&self, choice: DataChoice, path: Option<&Path>) -> bool {
        choice != DataChoice::Glyphs && path.is_some_and(are_in)
    }

    fn read(&self, choice: DataChoice, path: Option<&Path>) -> Result<Dataset> {
        let place = path.unwrap_or(Path::new("."));
        let [train, test] = read(place)?;
        let class_names = names(&labels(&place.join("train"))?);
        Ok(Dataset { class_names, ..Dataset::of_files(choice, place, train, test)? })
    }
}

/// Whether a data folder holds such folders.
pub fn are_in(place: &Path) -> bool {
    ["train", "test"].iter().all(|part| place.join(part).is_dir())
}

/// Training and test images of a folder.
///
/// # Errors
/// Names the file or folder that is missing or not what it should be.
pub fn read(place: &Path) -> Result<[Split; 2]> {
    let classes = labels(&place.join("train"))?;
    let train = split(&place.join("train"), &classes)?;
    for (name, _) in labels(&place.join("test"))? {
        if !classes.iter().any(|(class, _)| *class == name) {
            return Err(Error::files(&place.join("test").join(name), "there is no such class in train/"));
        }
    }
    let test = split(&place.join("test"), &classes)?;
    if train.pixels != test.pixels {
        let problem = format!(
            "images in train/ have {} pixels, those in test/ {}: make all of one size",
            train.pixels, test.pixels
        );
        return Err(Error::files(place, problem));
    }
    Ok([train, test])
}

/// The folders of classes, each with its label.
fn labels(folder: &Path) -> Result<Vec<(String, u8)>> {
    let names: Vec<String> = (sorted(folder)?.into_iter())
        .filter(|path| path.is_dir())
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .filter(|name| !name.starts_with('.'))
        .collect();
    if names.is_empty() {
        let problem = "holds no folders: put the images of each class into one, as train/3/*.png";
        return Err(Error::files(folder, problem));
    }
    let numbers: Option<Vec<u8>> = names.iter().map(|name| name.parse().ok()).collect();
    match numbers {
        Some(numbers) => Ok(names.into_iter().zip(numbers).collect()),
        None if names.len() > 256 => {
            let problem = format!("has {} classes, of which there are at most 256", names.len());
            Err(Error::files(folder, problem))
        }
        None => Ok(names.into_iter().zip(0..=255).collect()),
    }
}

/// What classes are called, by label; none where they are numbers.
fn names(classes: &[(String, u8)]) -> Vec<String> {
    match classes.iter().all(|(name, _)| name.parse::<u8>().is_ok()) {
        true => Vec::new(),
        false => classes.iter().map(|(name, _)| name.clone()).collect(),
    }
}

fn split(folder: &Path, classes: &[(String, u8)]) -> Result<Split> {
    let mut files: Vec<(usize, u8, PathBuf)> = Vec::new();
    for (class, label) in classes {
        let there = folder.join(class);
        let is_png = |path: &PathBuf| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"));
        let images = if there.is_dir() { sorted(&there)? } else { Vec::new() };
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
            let problem = format!(
                "is {width} × {height} pixels, but {} is {w} × {h}: make all of one size",
                first.display()
            );
            return Err(Error::files(path, problem));
        }
        split.pixels = grey.len();
        split.shape = Some([height as usize, width as usize, 1]);
        split.images.extend(grey);
        split.labels.push(*label);
        if split.images.len() > MOST_PIXELS {
            let problem = format!("holds more than the {MOST_PIXELS} pixels that are read at most");
            return Err(Error::files(folder, problem));
        }
    }
    if split.is_empty() {
        let problem = format!("holds no PNGs in folders of classes, as {}/3/*.png", folder.display());
        return Err(Error::files(folder, problem));
    }
    black::check(&split.images, before).map_err(|problem| Error::files(folder, problem))?;
    Ok(split)
}

/// What a folder holds, in the order of the names, numbers in them by value.
fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut paths: Vec<PathBuf> =
        listed.map_err(|cause| Error::unreadable(folder, "cannot be read", &cause))?;
    paths.sort_by_cached_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number: Option<u64> = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        (number.is_none(), number, name)
    });
    Ok(paths)
}

/// A PNG in shades of grey.
pub(super) struct Picture {
    width: u32,
    height: u32,
    /// Row-major.
    pub grey: Vec<u8>,
    /// What is lost of it.
    before: Option<Before>,
}

fn image(path: &Path) -> Result<Picture> {
    let (file, _) = files::open(path).map_err(|cause| Error::files(path, cause))?;
    grey(BufReader::new(file)).map_err(|problem| Error::files(path, problem))
}

/// An encoded PNG in shades of grey, or what is wrong with it.
pub(super) fn grey(png: impl BufRead + Seek) -> std::result::Result<Picture, String> {
    let damaged = |cause| format!("not a readable PNG: {}", with_causes(&cause));
    let mut decoder = Decoder::new_with_limits(png, Limits { bytes: MOST_BYTES });
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(damaged)?;
    let bytes = reader.output_buffer_size().filter(|bytes| *bytes <= MOST_BYTES);
    let bytes = bytes.ok_or("is too large")?;
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
        assert!(are_in(place));
        let [train, test] = read(place).unwrap();
        assert_eq!((train.pixels, train.images, train.labels), (2, vec![1, 2, 5, 6, 3, 4], vec![3, 7, 3]));
        assert_eq!((test.pixels, test.images, test.labels), (2, vec![255, 76], vec![7]));
    }

    #[test]
    fn words_are_numbered_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["train/dog/1.png", "train/cat/1.png", "test/dog/1.png"] {
            write(&folder.path().join(name), (2, 1), ColorType::Grayscale, &[9, 8]);
        }
        let [train, test] = read(folder.path()).unwrap();
        assert_eq!((train.labels, test.labels), (vec![0, 1], vec![1]));
    }

    #[test]
    fn mistakes_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        let complaint = || format!("{:#}", read(place).unwrap_err());
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
