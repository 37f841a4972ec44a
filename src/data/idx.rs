//! The IDX format of MNIST and its kin: a big-endian header (magic, sizes), then whole numbers.
//!
//! Pixels and labels are from 0 to 255, in bytes or in larger integers. QMNIST's labels are of eight columns, of which
//! the first is the class.

use super::black;
use super::error::{Parsed, refuse};
use super::four::What;
use super::{Error, MOST_PIXELS, Result, Split};
use crate::base::files;
use flate2::bufread::MultiGzDecoder;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// The number of columns of a label of QMNIST.
const QMNIST_COLUMNS: usize = 8;

/// The first bytes of a file compressed by gzip.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Reads a file of images and one of their labels, of at most so many pixels.
///
/// # Errors
/// Names the file that is not what it should be.
pub(super) fn pair(images_path: &Path, labels_path: &Path, most: usize) -> Result<Split> {
    let mut images = Open::header_of(images_path, What::Images)?;
    let mut labels = Open::header_of(labels_path, What::Labels)?;
    // Before either is read: a claimed size need not be real.
    let (count, height, width) = (images.header.sizes[0], images.header.sizes[1], images.header.sizes[2]);
    if count != labels.header.sizes[0] {
        refuse!(
            labels_path,
            "holds {} labels but {} holds {count} images: the two files do not belong together",
            labels.header.sizes[0],
            images_path.display()
        );
    }
    if images.header.sizes.contains(&0) {
        refuse!(images_path, "holds no images");
    }
    if count * height * width > most {
        refuse!(images_path, "has more than the {MOST_PIXELS} pixels that are read at most of a set");
    }
    let (images_origin, origin) = (images_path.display().to_string(), labels_path.display().to_string());
    let (pixels, shape) = (height * width, Some([height, width, 1]));
    let (images, labels) = (images.values()?, labels.values()?);
    black::check(&images, None).map_err(|problem| Error::files(images_path, problem))?;
    Ok(Split { images_origin, origin, pixels, shape, images, labels })
}

/// An IDX file whose header has been read, and whose values have not.
struct Open {
    path: PathBuf,
    reader: Box<dyn Read>,
    header: Header,
}

impl Open {
    fn header_of(path: &Path, what: What) -> Result<Self> {
        let cannot = |error: std::io::Error| Error::files(path, format!("cannot be opened: {error}"));
        let mut file = BufReader::new(files::open(path).map_err(cannot)?.0);
        // Not by its name: browsers decompress files without renaming them.
        let packed = file.fill_buf().map_err(cannot)?.starts_with(&GZIP);
        let mut reader: Box<dyn Read> =
            if packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let header = Header::read(&mut reader, what).map_err(|problem| unreadable(path, &problem))?;
        Ok(Self { path: path.into(), reader, header })
    }

    fn values(&mut self) -> Result<Vec<u8>> {
        self.header.values(&mut self.reader).map_err(|problem| unreadable(&self.path, &problem))
    }
}

fn unreadable(path: &Path, problem: &str) -> Error {
    Error::files(path, format!("cannot be read as an IDX file: {problem}"))
}

/// The type of the numbers in a file: their size in bytes, and a function that decodes one.
type Element = (usize, fn(&[u8]) -> i32);

/// The type for the third byte of a file.
fn element(code: u8) -> Option<Element> {
    match code {
        0x08 => Some((1, |bytes| bytes[0].into())),
        0x09 => Some((1, |bytes| (bytes[0] as i8).into())),
        0x0b => Some((2, |bytes| i16::from_be_bytes([bytes[0], bytes[1]]).into())),
        0x0c => Some((4, |bytes| i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))),
        _ => None,
    }
}

/// The header of a file.
#[derive(Debug)]
struct Header {
    element: Element,
    /// True where the values are bytes, which stay as they are.
    bytes: bool,
    /// The number of images or labels, and then the sizes of each.
    sizes: Vec<usize>,
    /// The number of columns, of which the first is the value.
    columns: usize,
}

impl Header {
    /// Reads the header of an IDX stream, whose sizes together are at most [`MOST_PIXELS`].
    fn read(reader: &mut dyn Read, what: What) -> Parsed<Self> {
        let mut word = || -> Parsed<u32> {
            let mut bytes = [0; 4];
            reader
                .read_exact(&mut bytes)
                .map_err(|error| format!("it ends within its header ({error}): fetch it again"))?;
            Ok(u32::from_be_bytes(bytes))
        };
        let magic = word()?;
        let [zero, nought, code, dimensions] = magic.to_be_bytes();
        let (usual, possible) = match what {
            What::Images => (0x0803, 3..=3),
            What::Labels => (0x0801, 1..=2),
        };
        if (zero, nought) != (0, 0) || !possible.contains(&dimensions) {
            return Err(format!("its magic number is {magic:#010x}, not {usual:#010x}: fetch it again"));
        }
        let element = element(code).ok_or_else(|| {
            format!(
                "its magic number is {magic:#010x}, so its numbers are of type {code:#04x}; those that are read are \
                 whole: 0x08 (unsigned bytes), 0x09, 0x0b and 0x0c"
            )
        })?;
        let sizes: Vec<usize> = (0..dimensions).map(|_| Ok(word()? as usize)).collect::<Parsed<_>>()?;
        let bytes = sizes.iter().try_fold(element.0, |product, &size| product.checked_mul(size));
        if bytes.is_none_or(|bytes| bytes > MOST_PIXELS) {
            return Err(format!(
                "its header claims sizes {sizes:?}, more than the {MOST_PIXELS} bytes that are read at most"
            ));
        }
        let columns = match (what, &sizes[..], element.0) {
            (What::Images, _, _) | (_, [_], _) | (_, [_, 1], _) => 1,
            (_, [_, QMNIST_COLUMNS], 4) => QMNIST_COLUMNS,
            _ => {
                return Err(format!(
                    "its header claims sizes {sizes:?}: a label is one number, or the first of QMNIST's eight 32-bit ones"
                ));
            }
        };
        Ok(Self { bytes: (code, columns) == (0x08, 1), element, sizes, columns })
    }

    /// Reads the values. Takes no more memory than there really are bytes.
    fn values(&self, reader: &mut dyn Read) -> Parsed<Vec<u8>> {
        let Self { element: (width, number), ref sizes, columns, .. } = *self;
        let expected = sizes.iter().product::<usize>() * width;
        let mut bytes = Vec::new();
        (reader.take(expected as u64 + 1).read_to_end(&mut bytes))
            .map_err(|error| format!("its data cannot be read ({error}): fetch it again"))?;
        match bytes.len() {
            n if n < expected => Err(format!(
                "its header says {sizes:?}, {expected} bytes, but only {n} follow: it is cut short, fetch it again"
            )),
            n if n > expected => {
                Err(format!("more bytes follow than the {expected} its header says: fetch it again"))
            }
            _ if self.bytes => Ok(bytes),
            _ => (bytes.chunks_exact(width * columns).enumerate())
                .map(|(i, bytes)| {
                    let number = number(bytes);
                    let outside = |_| format!("number {i} is {number}: pixels and labels are from 0 to 255");
                    u8::try_from(number).map_err(outside)
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_bytes(mut bytes: &[u8], what: What) -> Parsed<(Vec<usize>, Vec<u8>)> {
        let header = Header::read(&mut bytes, what)?;
        let values = header.values(&mut bytes)?;
        Ok((header.sizes, values))
    }

    #[test]
    fn headers_are_checked_against_what_follows() {
        let file = [0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9];
        assert_eq!(parse_bytes(&file, What::Labels).unwrap(), (vec![3], vec![7, 8, 9]));
        for (bytes, complaint) in [
            (&file[..10], "cut short"),
            (&[0, 0, 8, 1, 0, 0, 0, 2, 7, 8, 9], "more bytes follow"),
            (&[0, 0, 8, 3, 0, 0, 0, 3, 7, 8, 9], "magic number"),
            (&[0, 0, 13, 1, 0, 0, 0, 3, 7, 8, 9], "of type 0x0d"),
            (&[0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 2, 7, 8], "a label is one number"),
            (&file[..6], "within its header"),
        ] {
            let error = parse_bytes(bytes, What::Labels).unwrap_err();
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn numbers_of_any_integer_type_are_taken_where_they_fit() {
        // (type, the numbers 5 and 200 or 100 in it).
        for (code, numbers, expected) in [
            (0x09, &[5, 100][..], [5, 100]),
            (0x0b, &[0, 5, 0, 200], [5, 200]),
            (0x0c, &[0, 0, 0, 5, 0, 0, 0, 200], [5, 200]),
        ] {
            let labels = [&[0, 0, code, 1, 0, 0, 0, 2], numbers].concat();
            assert_eq!(parse_bytes(&labels, What::Labels).unwrap().1, expected);
            let images = [&[0, 0, code, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1], numbers].concat();
            assert_eq!(parse_bytes(&images, What::Images).unwrap(), (vec![1, 2, 1], expected.to_vec()));
        }
        for (code, numbers, said) in [(0x09, &[0xff][..], "0 is -1"), (0x0b, &[1, 0], "0 is 256")] {
            let labels = [&[0, 0, code, 1, 0, 0, 0, 1], numbers].concat();
            let error = parse_bytes(&labels, What::Labels).unwrap_err();
            assert!(error.contains(said) && error.contains("from 0 to 255"), "{error}");
        }
    }

    #[test]
    fn the_first_of_eight_columns_is_the_class() {
        let mut file = vec![0, 0, 12, 2, 0, 0, 0, 2, 0, 0, 0, 8];
        for number in [3, 4, 2000, -1, 0, 0, 0, 0, 9, 4, 2000, -1, 0, 0, 0, 0] {
            file.extend(i32::to_be_bytes(number));
        }
        assert_eq!(parse_bytes(&file, What::Labels).unwrap().1, [3, 9]);
    }

    #[test]
    fn absurd_sizes_allocate_nothing() {
        let mut file = vec![0, 0, 8, 3];
        file.extend([0xff; 12]);
        file.extend([1, 2, 3]);
        let error = parse_bytes(&file, What::Images).unwrap_err();
        assert!(error.contains("header claims sizes"), "{error}");
        // As many numbers as may be bytes, each of four.
        let file = [&[0, 0, 12, 1][..], &u32::to_be_bytes(MOST_PIXELS as u32)].concat();
        assert!(parse_bytes(&file, What::Labels).unwrap_err().contains("header claims sizes"));
    }
}
