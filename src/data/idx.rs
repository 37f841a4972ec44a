//! The IDX format of MNIST and its kin: a big-endian header (magic, sizes), then unsigned bytes.

use super::Split;
use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Magic number of unsigned bytes in one dimension: labels.
const LABELS: u32 = 0x0801;
/// Magic number of unsigned bytes in three dimensions: images.
const IMAGES: u32 = 0x0803;

/// Reads `PREFIX-images-idx3-ubyte` and `PREFIX-labels-idx1-ubyte`, raw or `.gz`, from a folder.
pub fn read_split(folder: &Path, prefix: &str) -> Result<Split> {
    let images_path = find(folder, &format!("{prefix}-images-idx3-ubyte"))?;
    let labels_path = find(folder, &format!("{prefix}-labels-idx1-ubyte"))?;
    let (sizes, images) = read(&images_path, IMAGES)?;
    let (_, labels) = read(&labels_path, LABELS)?;
    if sizes[0] != labels.len() {
        bail!(
            "{} holds {} images but {} holds {} labels: the two files do not belong together",
            images_path.display(),
            sizes[0],
            labels_path.display(),
            labels.len()
        );
    }
    if labels.is_empty() {
        bail!("{} holds no images", images_path.display());
    }
    let pixels = sizes[1] * sizes[2];
    let origin = labels_path.display().to_string();
    Ok(Split { origin, pixels, images, labels })
}

fn find(folder: &Path, name: &str) -> Result<PathBuf> {
    let candidates = [name.to_string(), format!("{name}.gz"), name.replacen("-idx", ".idx", 1)];
    let found = candidates.iter().map(|c| folder.join(c)).find(|path| path.is_file());
    found.with_context(|| {
        format!(
            "{}: found neither {name} nor {name}.gz; a data folder holds the four IDX files of MNIST \
             (train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-…), raw or .gz",
            folder.display()
        )
    })
}

/// The sizes in the header and the bytes after it.
fn read(path: &Path, magic: u32) -> Result<(Vec<usize>, Vec<u8>)> {
    let file = File::open(path).with_context(|| format!("{}: cannot be opened", path.display()))?;
    let file = BufReader::new(file);
    let mut reader: Box<dyn Read> = match path.extension() {
        Some(extension) if extension == "gz" => Box::new(MultiGzDecoder::new(file)),
        _ => Box::new(file),
    };
    parse(&mut reader, magic)
        .with_context(|| format!("{}: not a readable IDX file; fetch it again", path.display()))
}

/// Parses an IDX stream. Allocates no more than the stream really holds, whatever its header says.
fn parse(reader: &mut dyn Read, magic: u32) -> Result<(Vec<usize>, Vec<u8>)> {
    let mut word = || -> Result<u32> {
        let mut bytes = [0; 4];
        reader.read_exact(&mut bytes).context("the file ends within its header")?;
        Ok(u32::from_be_bytes(bytes))
    };
    let found = word()?;
    if found != magic {
        bail!("its magic number is {found:#010x}, not {magic:#010x}");
    }
    let sizes: Vec<usize> = (0..magic & 0xff).map(|_| Ok(word()? as usize)).collect::<Result<_>>()?;
    let expected = (sizes.iter())
        .try_fold(1usize, |product, &size| product.checked_mul(size))
        .with_context(|| format!("its header claims sizes {sizes:?}, more than memory can hold"))?;
    let mut bytes = Vec::new();
    reader.take(expected as u64 + 1).read_to_end(&mut bytes).context("its data cannot be read")?;
    match bytes.len() {
        n if n < expected => {
            bail!("its header says {sizes:?}, {expected} bytes, but only {n} follow: the file is cut short")
        }
        n if n > expected => bail!("more bytes follow than the {expected} its header says"),
        _ => Ok((sizes, bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_bytes(bytes: &[u8], magic: u32) -> Result<(Vec<usize>, Vec<u8>)> {
        parse(&mut &bytes[..], magic)
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
            let error = format!("{:#}", parse_bytes(bytes, LABELS).unwrap_err());
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn absurd_sizes_allocate_nothing() {
        let mut file = vec![0, 0, 8, 3];
        file.extend([0xff; 12]);
        file.extend([1, 2, 3]);
        let error = format!("{:#}", parse_bytes(&file, IMAGES).unwrap_err());
        assert!(error.contains("more than memory can hold") || error.contains("cut short"), "{error}");
    }
}
