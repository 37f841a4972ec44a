//! One array as numpy writes it, a `.npy`: a header in Python syntax, then the values.
//!
//! Read by hand. The crate npyz reads the same, but takes what a header says on its word (it allocates the length that
//! one claims, and sizes that multiply to more than 2⁶⁴ wrap around), needs half a minute for 22 brackets within each
//! other, and brings thirteen crates, a parser generator among them, for a dictionary of three keys.

use super::error::Parsed;
use half::f16;
use std::io::{self, ErrorKind, Read};

/// The first bytes of a `.npy`.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";

/// The most bytes of a header, numpy's own limit.
const MOST_HEADER: usize = 10_000;
/// The most dimensions of an array, numpy's own limit.
const MOST_DIMENSIONS: usize = 64;
/// The number of bytes read at a time.
const CHUNK: usize = 64 << 10;

/// The header of an array.
pub(super) struct Header {
    /// The type of its values in numpy's words, as `<f4`.
    pub descr: String,
    /// Its sizes.
    pub shape: Vec<usize>,
    /// True where the first index runs fastest, not the last.
    fortran: bool,
    /// The number of bytes that follow.
    follow: u64,
}

/// The kind of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Bool,
    Signed,
    Unsigned,
    Float,
    /// A string of bytes.
    Bytes,
    /// A string of characters, of four bytes each.
    Unicode,
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Type {
    pub kind: Kind,
    /// Size in bytes.
    pub size: usize,
    big_endian: bool,
}

impl Header {
    /// Reads the header of an array that takes `size` bytes in all.
    ///
    /// # Errors
    /// Where it is none, or not one that numpy writes.
    pub fn read(reader: &mut dyn Read, size: u64) -> Parsed<Self> {
        let mut start = [0; 8];
        reader.read_exact(&mut start).map_err(damaged)?;
        if !start.starts_with(MAGIC) {
            return Err("is not an array: write it by numpy.savez or numpy.save".into());
        }
        let version = start[MAGIC.len()];
        let width = match version {
            1 => 2,
            2 | 3 => 4,
            _ => return Err(format!("has version {version} of numpy's format, of which 1 to 3 are known")),
        };
        let mut length = [0; 4];
        reader.read_exact(&mut length[..width]).map_err(damaged)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MOST_HEADER {
            return Err(format!(
                "claims a header of {length} bytes, more than numpy's own limit of {MOST_HEADER}"
            ));
        }
        let mut text = vec![0; length];
        reader.read_exact(&mut text).map_err(damaged)?;
        let header = std::str::from_utf8(&text).ok().and_then(parse);
        let (descr, fortran, shape) = header
            .ok_or("has a header that numpy does not write: write it anew by numpy.savez or numpy.save")?;
        let read = start.len() + width + length;
        Ok(Self { descr, shape, fortran, follow: size.saturating_sub(read as u64) })
    }

    /// The type of the values, where they are numbers or strings.
    pub fn item(&self) -> Option<Type> {
        Type::of(&self.descr)
    }

    /// The number of values; `None` where no memory holds that many.
    pub fn len(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))
    }

    /// The contents of the array in words, for a refusal.
    pub fn in_words(&self) -> String {
        let what = match self.descr.trim_start_matches(['<', '>', '|', '=']).chars().next() {
            Some('U' | 'S' | 'a') => "strings",
            Some('O') => "Python objects",
            Some('[') => "records",
            Some('c') => "complex numbers",
            Some('m' | 'M') => "times",
            _ => "values of a type that is not read",
        };
        let shown: String = self.descr.chars().take(40).collect();
        format!("holds {what} (dtype {shown:?})")
    }

    /// Passes each value, as its bytes and its place in C order, to `each`, in the order of the file. Reads to the
    /// end, where an archive checks its contents; that error comes before one of a value.
    ///
    /// # Errors
    /// Where there are fewer or more bytes than the header says, or others than were written, or `each` has one.
    pub fn each(
        &self,
        reader: &mut dyn Read,
        item: Type,
        mut each: impl FnMut(usize, &[u8]) -> Parsed<()>,
    ) -> Parsed<()> {
        let expected = self.len().and_then(|values| values.checked_mul(item.size));
        if expected.is_none_or(|expected| expected as u64 != self.follow) {
            return Err(format!(
                "has shape {:?} and dtype {:?}, but {} bytes: it is cut short or damaged, fetch or write it again",
                self.shape, self.descr, self.follow
            ));
        }
        let mut left = expected.unwrap_or(0);
        let mut buffer = vec![0; (CHUNK / item.size).max(1) * item.size];
        let mut place = self.places();
        while left > 0 {
            let bytes = left.min(buffer.len());
            reader.read_exact(&mut buffer[..bytes]).map_err(damaged)?;
            for value in buffer[..bytes].chunks_exact(item.size) {
                if let Err(problem) = each(place(), value) {
                    io::copy(reader, &mut io::sink()).map_err(damaged)?;
                    return Err(problem);
                }
            }
            left -= bytes;
        }
        match reader.read(&mut [0]).map_err(damaged)? {
            0 => Ok(()),
            _ => Err("is damaged: more bytes follow than its header says".into()),
        }
    }

    /// The places in C order of the values, in the order of the file.
    fn places(&self) -> impl FnMut() -> usize {
        let shape = self.shape.clone();
        let mut strides = vec![1usize; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
        }
        let (fortran, mut index, mut next) = (self.fortran, vec![0; shape.len()], 0);
        move || {
            let place = next;
            if !fortran {
                next += 1;
                return place;
            }
            for (axis, index) in index.iter_mut().enumerate() {
                *index += 1;
                next += strides[axis];
                if *index < shape[axis] {
                    break;
                }
                next -= strides[axis] * *index;
                *index = 0;
            }
            place
        }
    }
}

impl Type {
    fn of(descr: &str) -> Option<Self> {
        let name = descr.strip_prefix(['<', '>', '|', '=']).unwrap_or(descr);
        let size: usize = name.get(1..)?.parse().ok()?;
        let (kind, size) = match (name.as_bytes()[0], size) {
            (b'b', 1) => (Kind::Bool, size),
            (b'i', 1 | 2 | 4 | 8) => (Kind::Signed, size),
            (b'u', 1 | 2 | 4 | 8) => (Kind::Unsigned, size),
            (b'f', 2 | 4 | 8) => (Kind::Float, size),
            (b'S', 1..) => (Kind::Bytes, size),
            (b'U', 1..) => (Kind::Unicode, size.checked_mul(4)?),
            _ => return None,
        };
        Some(Self { kind, size, big_endian: descr.starts_with('>') })
    }

    /// True where a value is a number, or true or false.
    pub fn is_number(self) -> bool {
        !matches!(self.kind, Kind::Bytes | Kind::Unicode)
    }

    /// The number that these bytes encode; for whole numbers beyond 2⁵³ the nearest float.
    pub fn number(self, bytes: &[u8]) -> f64 {
        let mut eight = [0; 8];
        eight[..self.size].copy_from_slice(bytes);
        if self.big_endian {
            eight[..self.size].reverse();
        }
        let bits = u64::from_le_bytes(eight);
        let unused = 64 - 8 * self.size;
        match (self.kind, self.size) {
            (Kind::Float, 2) => f16::from_bits(bits as u16).to_f64(),
            (Kind::Float, 4) => f32::from_bits(bits as u32).into(),
            (Kind::Float, _) => f64::from_bits(bits),
            (Kind::Signed, _) => (((bits << unused) as i64) >> unused) as f64,
            _ => bits as f64,
        }
    }

    /// The string that these bytes encode, without padding zeros; `None` where they are not text.
    pub fn text(self, bytes: &[u8]) -> Option<String> {
        let text = match self.kind {
            Kind::Unicode => (bytes.chunks_exact(4))
                .map(|bytes| {
                    let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
                    let code = if self.big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
                    char::from_u32(code(bytes))
                })
                .collect::<Option<String>>()?,
            _ => String::from_utf8(bytes.to_vec()).ok()?,
        };
        Some(text.trim_end_matches('\0').to_string())
    }
}

/// Parses type, order and shape of `{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }`.
fn parse(text: &str) -> Option<(String, bool, Vec<usize>)> {
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
    while !rest.is_empty() {
        let (key, after) = quoted(rest)?;
        let value = after.trim_start().strip_prefix(':')?.trim_start();
        rest = match key {
            "descr" => {
                let (text, after) = quoted(value).or_else(|| records(value))?;
                descr = Some(text.to_string());
                after
            }
            "fortran_order" => {
                fortran = Some(value.starts_with("True"));
                value.strip_prefix("True").or_else(|| value.strip_prefix("False"))?
            }
            "shape" => {
                let (inside, after) = value.strip_prefix('(')?.split_once(')')?;
                shape = Some(sizes(inside)?);
                after
            }
            _ => return None,
        };
        rest = rest.trim_start();
        if !rest.is_empty() {
            rest = rest.strip_prefix(',')?.trim_start();
        }
    }
    Some((descr?, fortran?, shape?))
}

/// A string in quotation marks of either kind, and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let mark = text.chars().next().filter(|mark| matches!(mark, '\'' | '"'))?;
    text[1..].split_once(mark)
}

/// A list of fields, whatever they are, and what follows: nothing else in a header is in such brackets.
fn records(text: &str) -> Option<(&str, &str)> {
    text.starts_with('[').then(|| text.rfind(']').map(|end| text.split_at(end + 1)))?
}

/// `3, 4`, or `3,`, or nothing; Python 2 wrote `3L, 4L`.
fn sizes(text: &str) -> Option<Vec<usize>> {
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    let sizes: Vec<usize> =
        words.map(|word| word.trim_end_matches('L').parse().ok()).collect::<Option<_>>()?;
    Some(sizes).filter(|sizes| sizes.len() <= MOST_DIMENSIONS)
}

fn damaged(cause: io::Error) -> String {
    match cause.kind() {
        ErrorKind::UnexpectedEof => "is cut short: fetch or write it again".into(),
        _ => format!("is damaged ({cause}): fetch or write it again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of an array with this header.
    fn npy(version: u8, header: &str, values: &[u8]) -> Vec<u8> {
        let length = (header.len() as u32).to_le_bytes();
        let width = if version == 1 { 2 } else { 4 };
        [MAGIC, &[version, 0], &length[..width], header.as_bytes(), values].concat()
    }

    fn read(bytes: &[u8]) -> Parsed<(Vec<usize>, Vec<f64>)> {
        let mut reader = bytes;
        let header = Header::read(&mut reader, bytes.len() as u64)?;
        let item = header.item().ok_or_else(|| header.in_words())?;
        let mut values = vec![f64::NAN; header.len().unwrap_or(0)];
        header.each(&mut reader, item, |place, bytes| {
            values[place] = item.number(bytes);
            Ok(())
        })?;
        Ok((header.shape, values))
    }

    fn header(descr: &str, fortran: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}  \n")
    }

    #[test]
    fn every_number_in_either_byte_order() {
        for (descr, bytes, expected) in [
            ("|b1", vec![1], 1.0),
            ("|u1", vec![200], 200.0),
            ("|i1", vec![0xfe], -2.0),
            ("<u2", vec![1, 2], 513.0),
            (">u2", vec![1, 2], 258.0),
            ("<i2", vec![0xfe, 0xff], -2.0),
            (">i4", vec![0xff, 0xff, 0xff, 0xfe], -2.0),
            ("<u4", vec![0, 0, 0, 0x80], 2_147_483_648.0),
            ("<i8", vec![0xff; 8], -1.0),
            (">u8", vec![0, 0, 0, 0, 0, 0, 1, 0], 256.0),
            ("<f2", vec![0x00, 0x3c], 1.0),
            (">f2", vec![0x38, 0x00], 0.5),
            ("<f4", 0.25f32.to_le_bytes().to_vec(), 0.25),
            (">f4", 0.25f32.to_be_bytes().to_vec(), 0.25),
            ("<f8", (-1e-9f64).to_le_bytes().to_vec(), -1e-9),
            (">f8", (-1e-9f64).to_be_bytes().to_vec(), -1e-9),
        ] {
            let bytes = npy(1, &header(descr, "False", "(1,)"), &bytes);
            assert_eq!(read(&bytes).unwrap(), (vec![1], vec![expected]), "{descr}");
        }
    }

    #[test]
    fn fortran_order_is_turned_and_versions_and_spellings_are_one() {
        // numpy.asfortranarray([[1, 2, 3], [4, 5, 6]]) lies column by column.
        let columns = [1, 4, 2, 5, 3, 6];
        let expected = (vec![2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let turned = npy(1, &header("|u1", "True", "(2, 3)"), &columns);
        assert_eq!(read(&turned).unwrap(), expected);
        for (version, text) in [
            (1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2L, 3L), }"),
            (2, "{'shape': (2,3),'fortran_order':False,'descr':'|u1'}"),
            (3, "{\"descr\": \"u1\", \"fortran_order\": False, \"shape\": (2, 3)}\n"),
        ] {
            assert_eq!(read(&npy(version, text, &[1, 2, 3, 4, 5, 6])).unwrap(), expected, "{text}");
        }
        // Three dimensions: element (i, j, k) of shape (2, 2, 2) is 4i + 2j + k, the first index fastest in the file.
        let cube = npy(1, &header("|u1", "True", "(2, 2, 2)"), &[0, 4, 2, 6, 1, 5, 3, 7]);
        assert_eq!(read(&cube).unwrap().1, (0..8).map(f64::from).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_wrong_is_said_before_anything_is_allocated() {
        let good = npy(1, &header("|u1", "False", "(3,)"), &[1, 2, 3]);
        let claims = [MAGIC, &[2, 0], &u32::MAX.to_le_bytes()].concat();
        let nested = npy(1, &"[".repeat(5000), &[]);
        let records = "{'descr': [('a', '<u2')], 'fortran_order': False, 'shape': (1,)}";
        for (bytes, complaint) in [
            (good[..good.len() - 1].to_vec(), "cut short or damaged"),
            ([&good[..], &[4]].concat(), "cut short or damaged"),
            (good[..20].to_vec(), "cut short"),
            (claims, "claims a header of 4294967295 bytes"),
            (nested, "header that numpy does not write"),
            (b"no array at all".to_vec(), "is not an array"),
            (npy(9, "{}", &[]), "version 9"),
            (npy(1, "{'descr': '|u1'}", &[]), "header that numpy does not write"),
            (npy(1, &header("|u1", "False", "(3, -1)"), &[]), "header that numpy does not write"),
            (npy(1, &header("<u8", "False", "(4294967296, 4294967296)"), &[1]), "cut short or damaged"),
            (npy(1, &header("<U5", "False", "(1,)"), &[0; 19]), "cut short or damaged"),
            (npy(1, &header("|O", "False", "(1,)"), &[0]), "Python objects"),
            (npy(1, &header("<c16", "False", "(1,)"), &[0; 16]), "complex"),
            (npy(1, &header("<f16", "False", "(1,)"), &[0; 16]), "type that is not read"),
            (npy(1, records, &[0; 2]), "records"),
        ] {
            let error = read(&bytes).unwrap_err();
            assert!(error.contains(complaint), "{error} should have {complaint}");
        }
    }

    #[test]
    fn strings_lose_the_zeros_that_fill_them() {
        let text = |descr: &str, bytes: &[u8]| Type::of(descr).unwrap().text(bytes);
        assert_eq!(text("|S4", b"cat\0").as_deref(), Some("cat"));
        assert_eq!(text("<U2", &[0x42, 1, 0, 0, 0, 0, 0, 0]).as_deref(), Some("ł"));
        assert_eq!(text(">U2", &[0, 0, 1, 0x42, 0, 0, 0, 0x61]).as_deref(), Some("ła"));
        assert_eq!(text("|S2", &[0xff, 0xfe]), None);
        assert_eq!(text("<U1", &[0, 0xd8, 0, 0]), None);
    }
}
