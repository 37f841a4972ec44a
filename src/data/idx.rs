//! The IDX format of MNIST and its kin: a big-endian header (magic, sizes), then unsigned bytes.

use super::black;
use super::{DataChoice, Dataset, Error, Result, Source, Split};
use crate::base::files;
use flate2::read::MultiGzDecoder;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Magic number of unsigned bytes in one dimension: labels.
const LABELS: u32 = 0x0801;
/// Magic number of unsigned bytes in three dimensions: images.
const IMAGES: u32 = 0x0803;

/// The most bytes of pixels that a file of images may hold; MNIST has 47 million.
const MOST_PIXELS: usize = 768 << 20;

/// A folder with the four files of MNIST, raw or `.gz`.
pub(super) struct Idx;

impl Source for Idx {
    fn has(&self, choice: DataChoice, path: Option<&Path>) -> bool {
        path.is_some() && choice != DataChoice::Glyphs
    }

    fn read(&self, choice: DataChoice, path: Option<&Path>) -> Result<Dataset> {
        let folder = path.unwrap_or(Path::new("."));
        Dataset::of_files(choice, folder, read_split(folder, "train")?, read_split(folder, "t10k")?)
    }
}

/// Reads `PREFIX-images-idx3-ubyte` and `PREFIX-labels-idx1-ubyte`, raw or `.gz`, from a folder.
fn read_split(folder: &Path, prefix: &str) -> Result<Split> {
    let images_path = find(folder, &format!("{prefix}-images-idx3-ubyte"))?;
    let labels_path = find(folder, &format!("{prefix}-labels-idx1-ubyte"))?;
    let mut images = Open::header_of(&images_path, IMAGES)?;
    let mut labels = Open::header_of(&labels_path, LABELS)?;
    // Before either is read: what one of them claims need not be there.
    if images.sizes[0] != labels.sizes[0] {
        return Err(Error::files(
            folder,
            format!(
                "{} holds {} images but {} holds {} labels: the two files do not belong together",
                images_path.display(),
                images.sizes[0],
                labels_path.display(),
                labels.sizes[0]
            ),
        ));
    }
    if images.sizes.contains(&0) {
        return Err(Error::files(&images_path, "holds no images"));
    }
    let pixels = images.sizes[1] * images.sizes[2];
    let (images_origin, origin) = (images_path.display().to_string(), labels_path.display().to_string());
    let shape = Some([images.sizes[1], images.sizes[2], 1]);
    let (images, labels) = (images.bytes()?, labels.bytes()?);
    black::check(&images, None).map_err(|problem| Error::files(&images_path, problem))?;
    Ok(Split { images_origin, origin, pixels, shape, images, labels })
}

fn find(folder: &Path, name: &str) -> Result<PathBuf> {
    let candidates = [name.to_string(), format!("{name}.gz"), name.replacen("-idx", ".idx", 1)];
    let found = candidates.iter().map(|c| folder.join(c)).find(|path| path.exists());
    found.ok_or_else(|| {
        let problem = format!(
            "found neither {name} nor {name}.gz; a data folder holds the four IDX files of MNIST \
             (train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-…), raw or .gz, or one .npz file, or folders \
             of PNGs by class (train/3/*.png, test/3/*.png)"
        );
        Error::files(folder, problem)
    })
}

/// An IDX file whose header is read and its bytes are not yet.
struct Open {
    path: PathBuf,
    reader: Box<dyn Read>,
    sizes: Vec<usize>,
}

impl Open {
    fn header_of(path: &Path, magic: u32) -> Result<Self> {
        let (file, _) =
            files::open(path).map_err(|error| Error::files(path, format!("cannot be opened: {error}")))?;
        let file = BufReader::new(file);
        let mut reader: Box<dyn Read> = match path.extension() {
            Some(extension) if extension == "gz" => Box::new(MultiGzDecoder::new(file)),
            _ => Box::new(file),
        };
        let sizes = header(&mut reader, magic).map_err(|problem| unreadable(path, &problem))?;
        Ok(Self { path: path.into(), reader, sizes })
    }

    fn bytes(&mut self) -> Result<Vec<u8>> {
        body(&mut self.reader, &self.sizes).map_err(|problem| unreadable(&self.path, &problem))
    }
}

fn unreadable(path: &Path, problem: &str) -> Error {
    Error::files(path, format!("not a readable IDX file; fetch it again: {problem}"))
}

/// What a part of a file says, or what is wrong with it.
type Parsed<T> = std::result::Result<T, String>;

/// Reads the header of an IDX stream: its sizes, which together are no more than [`MOST_PIXELS`].
fn header(reader: &mut dyn Read, magic: u32) -> Parsed<Vec<usize>> {
    let mut word = || -> Parsed<u32> {
        let mut bytes = [0; 4];
        reader.read_exact(&mut bytes).map_err(|error| format!("the file ends within its header: {error}"))?;
        Ok(u32::from_be_bytes(bytes))
    };
    let found = word()?;
    if found != magic {
        return Err(format!("its magic number is {found:#010x}, not {magic:#010x}"));
    }
    let sizes: Vec<usize> = (0..magic & 0xff).map(|_| Ok(word()? as usize)).collect::<Parsed<_>>()?;
    let bytes = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    if bytes.is_none_or(|bytes| bytes > MOST_PIXELS) {
        return Err(format!(
            "its header claims sizes {sizes:?}, more than the {MOST_PIXELS} bytes that are read at most"
        ));
    }
    Ok(sizes)
}

/// Reads what follows a header with these sizes. Takes no more memory than there really are bytes.
fn body(reader: &mut dyn Read, sizes: &[usize]) -> Parsed<Vec<u8>> {
    let expected = sizes.iter().product();
    let mut bytes = Vec::new();
    (reader.take(expected as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("its data cannot be read: {error}"))?;
    match bytes.len() {
        n if n < expected => Err(format!(
            "its header says {sizes:?}, {expected} bytes, but only {n} follow: the file is cut short"
        )),
        n if n > expected => Err(format!("more bytes follow than the {expected} its header says")),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_bytes(bytes: &[u8], magic: u32) -> Parsed<(Vec<usize>, Vec<u8>)> {
        let mut reader = bytes;
        let sizes = header(&mut reader, magic)?;
        let bytes = body(&mut reader, &sizes)?;
        Ok((sizes, bytes))
    }

    #[test]
    fn headers_are_checked_against_what_follows() {
        let file = [0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9];
        assert_eq!(parse_bytes(&file, LABELS).unwrap(), (vec![3], vec![7, 8, 9]));
        for (bytes, complaint) in [
            (&file[..10], "cut short"),
            (&[0, 0, 8, 1, 0, 0, 0, 2, 7, 8, 9], "more bytes follow"),
            (&[0, 0, 8, 3, 0, 0, 0, 3, 7, 8, 9], "magic number"),
            (&file[..6], "within its header"),
        ] {
            let error = parse_bytes(bytes, LABELS).unwrap_err();
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn absurd_sizes_allocate_nothing() {
        let mut file = vec![0, 0, 8, 3];
        file.extend([0xff; 12]);
        file.extend([1, 2, 3]);
        let error = parse_bytes(&file, IMAGES).unwrap_err();
        assert!(error.contains("header claims sizes"), "{error}");
    }
}
