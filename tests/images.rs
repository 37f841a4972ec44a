//! Images in every form in which users have them: as numpy writes them, damaged, and invisible.

mod common;
#[path = "torture/process.rs"]
mod process;

use common::{Place, SIDE, python};
use eqprop::data::{DataChoice, load};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use zip::CompressionMethod::{self, Deflated, Stored};
use zip::write::{SimpleFileOptions, ZipWriter};

const PARTS: [(&str, &str); 2] = [("train", "train"), ("test", "t10k")];

/// The pixels and labels of a part of the small set.
fn small(place: &Place, prefix: &str) -> (Vec<u8>, Vec<u8>) {
    let bytes = |name: &str, header: usize| {
        fs::read(place.path(&format!("data/{prefix}-{name}-ubyte"))).unwrap().split_off(header)
    };
    (bytes("images-idx3", 16), bytes("labels-idx1", 8))
}

/// An array as numpy writes it.
fn npy(descr: &str, shape: &[usize], values: &[u8]) -> Vec<u8> {
    let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sizes}), }}\n");
    [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), values].concat()
}

/// Writes an archive of arrays.
fn zip(path: &Path, packing: CompressionMethod, arrays: &[(String, Vec<u8>)]) {
    let mut zip = ZipWriter::new(File::create(path).unwrap());
    let options = SimpleFileOptions::default().compression_method(packing);
    for (name, array) in arrays {
        zip.start_file(format!("{name}.npy"), options).unwrap();
        zip.write_all(array).unwrap();
    }
    zip.finish().unwrap();
}

/// Puts the small set into an archive, its images as values of this type.
fn archive(
    place: &Place,
    name: &str,
    packing: CompressionMethod,
    descr: &str,
    value: impl Fn(u8) -> Vec<u8>,
) {
    let arrays = PARTS.map(|(part, prefix)| {
        let (pixels, labels) = small(place, prefix);
        let values: Vec<u8> = pixels.iter().flat_map(|&pixel| value(pixel)).collect();
        let images = npy(descr, &[labels.len(), SIDE, SIDE], &values);
        [(format!("x_{part}"), images), (format!("y_{part}"), npy("|u1", &[labels.len()], &labels))]
    });
    zip(&place.path(name), packing, &arrays.concat());
}

/// A dry run on a file or folder: its status and its message.
fn dry(place: &Place, data: &str) -> (i32, String) {
    let run = place.small_run("ep", &["--dry-run", "--name", "t"]);
    let words = run.into_iter().map(|word| if word == "data" { data } else { word });
    let output = place.eqprop().args(words).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn refused(place: &Place, data: &str, words: &[&str]) {
    let (status, said) = dry(place, data);
    assert_eq!(status, 1, "{data}: {said}");
    for word in words {
        assert!(said.contains(word), "{data}: {said} should have {word:?}");
    }
}

#[test]
fn numpy_may_write_its_arrays_in_any_way() {
    let Some(python) = python("numpy") else { return };
    let place = Place::new();
    let script = r#"
import itertools, json, numpy, struct
def idx(name):
    data = open(name, "rb").read()
    sizes = struct.unpack(f">{data[3]}I", data[4:4 + 4 * data[3]])
    return numpy.frombuffer(data, "u1", offset=4 + 4 * data[3]).reshape(sizes)
prefixes = {"train": "train", "test": "t10k"}
x = {part: idx(f"data/{prefix}-images-idx3-ubyte") for part, prefix in prefixes.items()}
y = {part: idx(f"data/{prefix}-labels-idx1-ubyte") for part, prefix in prefixes.items()}
numbers = [f"{order}{kind}{size}" for kind in "iu" for size in (2, 4, 8) for order in "<>"]
floats = [f"{order}f{size}" for size in (2, 4, 8) for order in "<>"]
shapes = {
    "images": lambda a: a, "channel": lambda a: a[..., None],
    "flat": lambda a: a.reshape(len(a), -1), "fortran": numpy.asfortranarray,
    "turned": lambda a: numpy.ascontiguousarray(a.transpose(2, 1, 0)).transpose(2, 1, 0),
}
for number, (dtype, (shape, form)) in enumerate(itertools.product(["u1"] + numbers + floats, shapes.items())):
    pixels = lambda part: form((x[part] / 255 if "f" in dtype else x[part]).astype(dtype))
    labels = lambda part: y[part].astype(dtype.replace("f", "i"))
    save = numpy.savez_compressed if number % 2 else numpy.savez
    save(f"{number}.npz", x_train=pixels("train"), x_test=pixels("test"), y_train=labels("train"),
         y_test=labels("test")[:, None], classes=numpy.array(["a", "łódź", "c", "d"], dtype=">U8" if number % 3 else "<U8"))
    print(f"{number}.npz", dtype, shape)
numpy.savez("bool.npz", x_train=x["train"] > 127, x_test=x["test"] > 127, y_train=y["train"], y_test=y["test"])
"#;
    let output = Command::new(python).current_dir(place.dir.path()).args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let written = String::from_utf8(output.stdout).unwrap();
    let whole = load(DataChoice::Auto, Some(&place.path("data"))).unwrap();
    let mut read = 0;
    for line in written.lines() {
        let file = place.path(line.split(' ').next().unwrap());
        let set = load(DataChoice::Auto, Some(&file)).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(set.checksums, whole.checksums, "{line}");
        assert_eq!(set.class_names, ["a", "łódź", "c", "d"], "{line}");
        assert_eq!(set.train.shape, (!line.contains("flat")).then_some([SIDE, SIDE, 1]), "{line}");
        read += 1;
    }
    assert_eq!(read, 19 * 5);
    let set = load(DataChoice::Auto, Some(&place.path("bool.npz"))).unwrap();
    let black_and_white = |pixels: &[u8]| -> Vec<u8> {
        pixels.iter().map(|&pixel| if pixel > 127 { 255 } else { 0 }).collect()
    };
    assert!(set.test.images == black_and_white(&whole.test.images));
}

#[test]
fn a_turned_bit_in_an_archive_is_seen() {
    let place = Place::new();
    for (packing, name) in [(Stored, "stored.npz"), (Deflated, "deflated.npz")] {
        archive(&place, name, packing, "|u1", |pixel| vec![pixel]);
        assert_eq!(dry(&place, name).0, 0, "{name}");
        let good = fs::read(place.path(name)).unwrap();
        // The checksum of the first entry, in the directory at the end of the archive.
        let directory = good.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
        let mut bytes = good.clone();
        bytes[directory + 16] ^= 1;
        fs::write(place.path(name), bytes).unwrap();
        refused(&place, name, &[name, "x_train: is damaged"]);
    }
    // And a pixel.
    archive(&place, "stored.npz", Stored, "|u1", |pixel| vec![pixel]);
    let mut bytes = fs::read(place.path("stored.npz")).unwrap();
    bytes[1000] ^= 4;
    fs::write(place.path("stored.npz"), bytes).unwrap();
    refused(&place, "stored.npz", &["stored.npz", "x_train: is damaged", "write it again"]);
}

#[test]
fn images_that_cannot_be_seen_are_refused_with_a_remedy() {
    let place = Place::new();
    archive(&place, "bool.npz", Stored, "|b1", |pixel| vec![(pixel > 127).into()]);
    assert_eq!(dry(&place, "bool.npz").0, 0);
    let (black, bytes) = (["cannot be told apart", "brighter than 1 of 255"], "multiply them by 255");
    archive(&place, "zero-one.npz", Stored, "|u1", |pixel| vec![(pixel > 127).into()]);
    refused(&place, "zero-one.npz", &[&black[..], &["zero-one.npz: x_train: ", bytes]].concat());
    archive(&place, "twice.npz", Deflated, "<f4", |pixel| {
        (f32::from(pixel) / 255.0 / 255.0).to_le_bytes().to_vec()
    });
    refused(&place, "twice.npz", &[&black[..], &["twice.npz: x_train: ", "divided by 255 twice"]].concat());
    archive(&place, "grey.npz", Deflated, "<i8", |_| 7i64.to_le_bytes().to_vec());
    refused(&place, "grey.npz", &["grey.npz: x_train: ", "every pixel is 7 of 255"]);

    // In IDX files, test images too.
    let path = place.path("data/t10k-images-idx3-ubyte");
    let mut file = fs::read(&path).unwrap();
    file[16..].iter_mut().for_each(|pixel| *pixel /= 128);
    fs::write(&path, &file).unwrap();
    refused(&place, "data", &[&black[..], &["t10k-images-idx3-ubyte: ", bytes]].concat());
    *file.last_mut().unwrap() = 2;
    fs::write(&path, &file).unwrap();
    assert_eq!(dry(&place, "data").0, 0, "one pixel that can be seen is enough");
}

/// Puts the small set into folders of PNGs by class, each pixel as these bytes.
fn folders(
    place: &Place,
    name: &str,
    color: png::ColorType,
    depth: png::BitDepth,
    pixel: impl Fn(u8) -> Vec<u8>,
) {
    for (part, prefix) in PARTS {
        let (pixels, labels) = small(place, prefix);
        for (i, (image, label)) in pixels.chunks_exact(SIDE * SIDE).zip(labels).enumerate() {
            let path = place.path(&format!("{name}/{part}/{label}/{i}.png"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut encoder = png::Encoder::new(File::create(path).unwrap(), SIDE as u32, SIDE as u32);
            encoder.set_color(color);
            encoder.set_depth(depth);
            let bytes: Vec<u8> = image.iter().flat_map(|&value| pixel(value)).collect();
            encoder.write_header().unwrap().write_image_data(&bytes).unwrap();
        }
    }
}

#[test]
fn pngs_whose_ink_is_lost_are_refused_with_a_remedy() {
    use png::{BitDepth::Eight, BitDepth::Sixteen, ColorType::*};
    let place = Place::new();
    folders(&place, "alpha", Rgba, Eight, |pixel| vec![0, 0, 0, pixel]);
    refused(&place, "alpha", &["alpha/train: ", "every pixel is 0 of 255", "flatten"]);
    folders(&place, "white", GrayscaleAlpha, Eight, |pixel| vec![255, pixel]);
    refused(&place, "white", &["white/train: ", "every pixel is 255 of 255", "flatten"]);
    folders(&place, "low", Grayscale, Sixteen, |pixel| vec![0, pixel]);
    refused(&place, "low", &["low/train: ", "every pixel is 0 of 255", "by 257"]);
    for (name, color, depth, pixel) in [
        ("opaque", Rgba, Eight, (|pixel| vec![pixel, pixel, pixel, 255]) as fn(u8) -> Vec<u8>),
        ("partly", GrayscaleAlpha, Eight, |pixel| vec![pixel, 255 - pixel]),
        ("sixteen", Grayscale, Sixteen, |pixel| vec![pixel, pixel]),
    ] {
        folders(&place, name, color, depth, pixel);
        let (status, said) = dry(&place, name);
        assert_eq!(status, 0, "{name}: {said}");
    }
}

/// Writes an archive whose training images are float64, so many of so many pixels, all zero but the last.
fn vast(path: &Path, count: usize, pixels: usize) {
    let mut zip = ZipWriter::new(File::create(path).unwrap());
    let options = SimpleFileOptions::default().compression_method(Deflated).compression_level(Some(1));
    let options = options.large_file(true);
    let some = |count: usize| (0..count).map(|i| (i % 4) as u8).collect::<Vec<u8>>();
    for (name, array) in [
        ("y_train", npy("|u1", &[count], &some(count))),
        ("x_test", npy("|u1", &[4, pixels], &some(4 * pixels))),
        ("y_test", npy("|u1", &[4], &some(4))),
        ("x_train", npy("<f8", &[count, pixels], &[])),
    ] {
        zip.start_file(format!("{name}.npy"), options).unwrap();
        zip.write_all(&array).unwrap();
    }
    let image = vec![0; 8 * pixels];
    (1..count).for_each(|_| zip.write_all(&image).unwrap());
    zip.write_all(&image[8..]).unwrap();
    zip.write_all(&1f64.to_le_bytes()).unwrap();
    zip.finish().unwrap();
}

#[test]
fn an_archive_takes_a_byte_of_memory_for_a_pixel() {
    let place = Place::new();
    let run = |file: &str| {
        let mut command = place.process();
        command.args(["train", "--algo", "ep", "--data-dir", file, "--name", "t", "--dry-run"]);
        command.args(["--set", "network.dims=[\"auto\", 8, \"auto\"]", "--threads", "1"]);
        let ended = process::run(command, Duration::from_secs(300));
        assert!(!ended.hung, "{file} takes longer than five minutes");
        ended
    };
    // 1.25 GiB of float64 in an archive of some megabytes are 160 MiB of pixels.
    vast(&place.path("vast.npz"), 160 << 10, 1 << 10);
    let ended = run("vast.npz");
    assert_eq!(ended.status, Some(0), "{}", ended.said);
    assert!(ended.memory < 512 << 20, "{} MiB", ended.memory >> 20);
    // A header that claims more than is there.
    for (shape, words) in [([99_999_999, 8, 8], "claims shape"), ([9_999_999, 8, 8], "cut short or damaged")]
    {
        let arrays = [
            ("x_train".into(), npy("<f8", &shape, &[0; 800])),
            ("y_train".into(), npy("|u1", &[9_999_999], &vec![0; 9_999_999])),
            ("x_test".into(), npy("|u1", &[4, 64], &[0; 256])),
            ("y_test".into(), npy("|u1", &[4], &[0; 4])),
        ];
        zip(&place.path("claims.npz"), Stored, &arrays);
        let ended = run("claims.npz");
        assert_eq!(ended.status, Some(1), "{}", ended.said);
        assert!(ended.said.contains("claims.npz: x_train: ") && ended.said.contains(words), "{}", ended.said);
        assert!(ended.memory < 128 << 20, "{} MiB", ended.memory >> 20);
    }
}
