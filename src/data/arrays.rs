//! Reads images, labels and names of classes from arrays.
//!
//! Images are (N, height, width), (N, height, width, 1 or 3) or (N, pixels): whole numbers from 0 to 255, floats from
//! 0 to 1, or bool, black and white. Labels are whole numbers (N,) or (N, 1) from 0 to 255. Numbers may be of any
//! size and in either order of bytes and of axes. What is kept is a byte for each, whatever it was before.

use super::MOST_PIXELS;
use super::black::{self, Before};
use super::error::Parsed;
use super::npy::{Header, Kind, Type};
use std::io::Read;

/// The most bytes that the names of classes may take.
const MOST_NAMES: usize = 1 << 20;

/// Images of an array, a byte a pixel.
pub(super) struct Images {
    /// The number of images.
    pub count: usize,
    /// Pixels per image.
    pub pixels: usize,
    /// Height, width and channels, if the array's shape has them.
    pub shape: Option<[usize; 3]>,
    /// Row-major (count, pixels).
    pub bytes: Vec<u8>,
}

impl Images {
    /// Reads the images.
    ///
    /// # Errors
    /// Says what they are and should be.
    pub fn of(header: &Header, reader: &mut dyn Read) -> Parsed<Self> {
        let Layout { count, pixels, shape } = Layout::of(header)?;
        let item = number(header, "images are uint8, floats from 0 to 1, or bool: images.astype('uint8')")?;
        let mut largest = 0f32;
        let mut bytes = vec![0; count * pixels]; // For zeros the system gives memory only where they are written over.
        header.each(reader, item, |place, value| {
            let value = item.number(value);
            largest = largest.max(value as f32);
            let byte = pixel(item.kind, value);
            bytes[place] = byte.map_err(|problem| format!("value {place} is {problem}"))?;
            Ok(())
        })?;
        black::check(&bytes, (item.kind == Kind::Float).then_some(Before::Floats(largest)))?;
        Ok(Self { count, pixels, shape, bytes })
    }
}

/// Reads the labels of `count` images.
///
/// # Errors
/// Says what they are and should be.
pub(super) fn labels(header: &Header, reader: &mut dyn Read, count: usize) -> Parsed<Vec<u8>> {
    let shape = &header.shape;
    if !matches!(shape[..], [n] | [n, 1] if n == count) {
        let one_hot = match shape[..] {
            [n, width] if n == count && width > 1 => "; for labels one-hot, store labels.argmax(1)",
            _ => "",
        };
        return Err(format!("has shape {shape:?} for {count} images: it should be ({count},){one_hot}"));
    }
    let remedy = "labels are whole numbers from 0 to 255: store those of names, labels = np.unique(labels, \
                  return_inverse=True), and the names as the array `classes`";
    let item = number(header, remedy)?;
    let mut labels = vec![0; count];
    header.each(reader, item, |i, label| {
        let label = item.number(label);
        if label.fract() != 0.0 || !(0.0..=255.0).contains(&label) {
            return Err(format!("label {i} is {label}: labels are whole numbers from 0 to 255"));
        }
        labels[i] = label as u8;
        Ok(())
    })?;
    Ok(labels)
}

/// Reads the names of so many classes, or of more.
///
/// # Errors
/// Says what they are and should be.
pub(super) fn names(header: &Header, reader: &mut dyn Read, classes: usize) -> Parsed<Vec<String>> {
    let item = match header.item() {
        Some(item) if !item.is_number() => item,
        item => {
            let held = match item {
                Some(_) => format!("holds numbers (dtype {:?})", header.descr),
                None => header.in_words(),
            };
            return Err(format!(
                "{held}, and should hold the names of classes: classes.astype(str), or leave it out"
            ));
        }
    };
    let [count] = header.shape[..] else {
        return Err(format!(
            "has shape {:?}: it should be ({classes},), a name for each label",
            header.shape
        ));
    };
    if count < classes {
        let last = classes - 1;
        return Err(format!(
            "holds {count} names, but there is a label {last}: it should hold {classes}, a name for each label from 0"
        ));
    }
    if count.saturating_mul(item.size) > MOST_NAMES {
        return Err(format!(
            "takes more than the {MOST_NAMES} bytes that are read at most: shorten the names"
        ));
    }
    let mut names = vec![String::new(); count];
    header.each(reader, item, |i, bytes| {
        let shows = |name: &String| !name.is_empty() && !name.chars().any(char::is_control);
        let name = item.text(bytes).filter(shows);
        names[i] = name.ok_or_else(|| {
            format!("name {i} is empty, is not text, or has control characters: name every class in letters")
        })?;
        Ok(())
    })?;
    let twice = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name));
    match twice {
        Some((_, name)) => Err(format!("holds the name {name:?} twice: give each class its own name")),
        None => Ok(names),
    }
}

/// The number and size of the images of an array.
pub(super) struct Layout {
    pub count: usize,
    pub pixels: usize,
    shape: Option<[usize; 3]>,
}

impl Layout {
    /// The layout that a header describes.
    ///
    /// # Errors
    /// Where that is more than is read, nothing, or of another form.
    pub fn of(header: &Header) -> Parsed<Self> {
        let values = header.len().filter(|values| *values <= MOST_PIXELS).ok_or_else(|| {
            format!(
                "claims shape {:?}, more than the {MOST_PIXELS} pixels that are read at most",
                header.shape
            )
        })?;
        let (count, shape) = match header.shape[..] {
            [count, _] => (count, None),
            [count, height, width] => (count, Some([height, width, 1])),
            [count, height, width, channels @ (1 | 3)] => (count, Some([height, width, channels])),
            ref other => {
                let last = match other {
                    [_, 1 | 3, _, _] => ", channels last: images.transpose(0, 2, 3, 1)",
                    _ => "",
                };
                return Err(format!(
                    "has shape {other:?}: images are (N, height, width), (N, height, width, 1 or 3) or (N, pixels){last}"
                ));
            }
        };
        match values.checked_div(count) {
            None | Some(0) => Err("holds no images".into()),
            Some(pixels) => Ok(Self { count, pixels, shape }),
        }
    }
}

/// The type of an array that should hold numbers.
fn number(header: &Header, remedy: &str) -> Parsed<Type> {
    let item = header.item().filter(|item| item.is_number());
    item.ok_or_else(|| format!("{}; {remedy}", header.in_words()))
}

/// A pixel as a byte, or the problem with it; floats are rounded to 255ths.
fn pixel(kind: Kind, value: f64) -> Parsed<u8> {
    match kind {
        Kind::Bool => Ok(if value == 0.0 { 0 } else { 255 }),
        Kind::Float => {
            let value = value as f32;
            match (0.0..=1.0).contains(&value) {
                true => Ok((value * 255.0).round() as u8),
                false => Err(format!(
                    "{value}, and floats must be from 0 to 1: divide by 255, or store it as uint8"
                )),
            }
        }
        _ if (0.0..=255.0).contains(&value) => Ok(value as u8),
        _ => Err(format!(
            "{value}, and whole numbers must be from 0 to 255: scale them, and store them as uint8"
        )),
    }
}
