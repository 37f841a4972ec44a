//! MNIST from the Hugging Face hub: Parquet files of PNGs, from a server that answers as the hub does.
//!
//! What is served under its name must be MNIST itself, which is here only where `EQPROP_DATA` names it; elsewhere other
//! images are served, downloaded, read and refused.
#![cfg(feature = "hub")]

mod common;

use common::Place;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

/// The columns of ylecun/mnist.
const COLUMNS: &str = "message schema { optional group image { optional binary bytes; optional binary path (UTF8); } \
                       optional int64 label; }";

/// An address without a server.
const NOBODY: &str = "http://127.0.0.1:9";

/// These pictures and labels in the hub's form.
fn parquet_of(images: &[Vec<u8>], labels: &[u8]) -> Vec<u8> {
    let images: Vec<ByteArray> = images.iter().map(|png| png.clone().into()).collect();
    let labels: Vec<i64> = labels.iter().map(|label| i64::from(*label)).collect();
    let compression = parquet::basic::Compression::SNAPPY;
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let schema = Arc::new(parse_message_type(COLUMNS).unwrap());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let (all, none) = (vec![2; images.len()], vec![1; images.len()]);
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&images, Some(&all), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&[], Some(&none), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&labels, Some(&none), None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}

/// A square picture, grey or in colours.
fn png(pixels: &[u8]) -> Vec<u8> {
    let (side, color) = match pixels.len() {
        784 => (28, png::ColorType::Grayscale),
        _ => (32, png::ColorType::Rgb),
    };
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.set_color(color);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
    bytes
}

/// Pictures of so many values that are in no set.
fn others(count: usize, values: usize) -> Vec<u8> {
    let images: Vec<_> = (0..count).map(|i| png(&vec![i as u8; values])).collect();
    let labels: Vec<u8> = (0..count).map(|i| (i % 10) as u8).collect();
    parquet_of(&images, &labels)
}

/// The path of the two files of each set on the hub, without the name of the part.
const PLACES: [(&str, &str); 3] = [
    ("mnist", "ylecun/mnist/resolve/refs%2Fconvert%2Fparquet/mnist"),
    ("fashion-mnist", "zalando-datasets/fashion_mnist/resolve/refs%2Fconvert%2Fparquet/fashion_mnist"),
    ("cifar10", "cifar10/resolve/refs%2Fconvert%2Fparquet/plain_text"),
];

/// A hub where each set has the same two files.
struct Hub {
    address: String,
    /// Every request so far: method and path.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    fn with(train: Vec<u8>, test: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (asked, files) = (Arc::new(Mutex::new(Vec::new())), [("train", train), ("test", test)]);
        let list = asked.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let request = answer(stream.unwrap(), &files);
                list.lock().unwrap().push(request);
            }
        });
        Self { address, asked }
    }

    fn asked(&self, method: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|request| request.starts_with(method)).count()
    }
}

/// Answers one request for one of these files, or for its properties, and returns it.
fn answer(mut stream: TcpStream, files: &[(&str, Vec<u8>)]) -> String {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
    let request = lines.next().unwrap();
    assert!(lines.any(|line| line.is_empty()));
    let path = request.split(' ').nth(1).unwrap();
    let found = files.iter().find(|(name, _)| {
        PLACES.iter().any(|(_, place)| path == format!("/datasets/{place}/{name}/0000.parquet"))
    });
    let (status, length, body) = match found {
        None => ("404 Not Found", 0, &[][..]),
        Some((_, bytes)) if request.starts_with("HEAD ") => ("200 OK", bytes.len(), &[][..]),
        Some((_, bytes)) => ("200 OK", bytes.len(), &bytes[..]),
    };
    let tag = path.split('/').rev().nth(1).unwrap_or_default();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: \"{tag}\"\r\nX-Repo-Commit: {}\r\n\
         Connection: close\r\n\r\n",
        "a".repeat(40)
    )
    .unwrap();
    stream.write_all(body).unwrap();
    request
}

/// Trains an epoch on the data of the hub at `endpoint`: status and messages.
fn train(place: &Place, data: &[&str], name: &str, endpoint: &str) -> (i32, String) {
    let mut command = place.eqprop();
    command.args(["train", "--algo", "ep", "--threads", "1", "--epochs", "1", "--name", name]).args(data);
    command.args(["--limit-train", "100", "--limit-test", "100"]);
    // A folder for the cache may be relative.
    command.env("HF_ENDPOINT", endpoint).env("HF_HOME", "hub");
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_the_hub_has_is_downloaded_once_and_is_not_called_mnist_where_it_is_not() {
    let place = Place::new();
    let hub = Hub::with(others(50, 784), others(20, 784));
    let (status, said) = train(&place, &["--data", "mnist"], "first", &hub.address);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("downloading ylecun/mnist/mnist/train/0000.parquet"), "{said}");
    assert!(said.contains("has 50 training images of 784 pixels, where MNIST has 60000 of 784"), "{said}");
    assert!(said.contains("0000.parquet") && said.contains("remove them"), "{said}");
    assert_eq!((hub.asked("GET"), hub.asked("HEAD")), (2, 2));
    // From the cache: no request.
    let (status, said) = train(&place, &["--data", "mnist"], "second", NOBODY);
    assert!(status == 1 && said.contains("where MNIST has 60000"), "{said}");
    assert!(!said.contains("downloading"), "{said}");
    assert!(!place.path("runs").exists(), "no run has begun");
}

#[test]
fn fashion_mnist_and_cifar10_are_asked_for_where_the_hub_has_them() {
    for (data, title, values) in [("fashion-mnist", "Fashion-MNIST", 784), ("cifar10", "CIFAR-10", 3072)] {
        let place = Place::new();
        let hub = Hub::with(others(50, values), others(20, values));
        let (status, said) = train(&place, &["--data", data], "r", &hub.address);
        assert_eq!(status, 1, "{said}");
        assert!(
            said.contains(&format!("has 50 training images of {values} pixels, where {title} has")),
            "{said}"
        );
        assert_eq!((hub.asked("GET"), hub.asked("HEAD")), (2, 2), "{data}");
    }
}

#[test]
fn an_image_that_is_none_is_an_error_and_no_panic() {
    let place = Place::new();
    let hub = Hub::with(parquet_of(&[b"no picture".to_vec()], &[3]), others(20, 784));
    let (status, said) = train(&place, &["--data", "mnist"], "r", &hub.address);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("0000.parquet cannot be read as MNIST: remove them"), "{said}");
    assert!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "{said}");
    // A file that is not Parquet either.
    let (place, hub) = (Place::new(), Hub::with(b"no file of that kind".to_vec(), others(20, 784)));
    let (status, said) = train(&place, &["--data", "mnist"], "r", &hub.address);
    assert!(status == 1 && said.contains("cannot be read as MNIST"), "{said}");
    assert!(said.to_lowercase().contains("parquet"), "{said}");
}

#[test]
fn without_a_hub_the_cause_is_said_and_auto_trains_on_glyphs_loudly() {
    let place = Place::new();
    for (data, title) in [("mnist", "MNIST"), ("fashion-mnist", "Fashion-MNIST"), ("cifar10", "CIFAR-10")] {
        let (status, said) = train(&place, &["--data", data], "r", NOBODY);
        assert_eq!(status, 1, "{said}");
        for part in [
            &format!("{title} could not be loaded from the Hugging Face hub"),
            "--data-dir",
            "onnection refused",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    let (status, said) = train(&place, &["--data", "auto"], "r", NOBODY);
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("onnection refused") && said.contains("THIS IS NOT MNIST"), "{said}");
    assert!(place.path("runs/r-glyphs/metrics.jsonl").exists());
}

#[test]
fn the_hubs_mnist_is_to_the_byte_what_its_files_hold() {
    let Some(folder) = std::env::var_os("EQPROP_DATA").map(PathBuf::from) else {
        eprintln!("SKIPPED: EQPROP_DATA names no folder with MNIST");
        return;
    };
    let read = |name: &str, header: usize| {
        let mut bytes = Vec::new();
        let file = fs::File::open(folder.join(format!("{name}.gz"))).unwrap();
        flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
        bytes.split_off(header)
    };
    let parquet_of_part = |part: &str| {
        let images = read(&format!("{part}-images-idx3-ubyte"), 16);
        let images: Vec<_> = images.chunks(784).map(png).collect();
        parquet_of(&images, &read(&format!("{part}-labels-idx1-ubyte"), 8))
    };
    let place = Place::new();
    let hub = Hub::with(parquet_of_part("train"), parquet_of_part("t10k"));
    let (status, said) = train(&place, &["--data", "mnist"], "hub", &hub.address);
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("data: mnist (Hugging Face hub, ylecun/mnist), 100 training"), "{said}");
    let (status, said) = train(&place, &["--data", "mnist"], "cache", NOBODY);
    assert_eq!(status, 0, "{said}");
    let (status, said) = train(&place, &["--data", "mnist", "--dry-run"], "dry", NOBODY);
    assert!(status == 0 && !said.contains("would be downloaded"), "{said}");
    let folder = folder.display().to_string();
    let (status, said) = train(&place, &["--data-dir", &folder], "idx", NOBODY);
    assert_eq!(status, 0, "{said}");
    let environment = |run: &str| {
        let text = place.read(&format!("runs/{run}/environment.json"));
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["data"]["sha256"].clone()
    };
    assert_eq!(environment("hub"), environment("idx"));
    assert_eq!(environment("cache"), environment("idx"));
}

#[test]
fn the_cache_is_checked_before_it_is_taken_for_mnist() {
    let place = Place::new();
    let hub = Hub::with(others(50, 784), others(10_001, 784));
    let (status, said) = train(&place, &["--data", "mnist"], "rows", &hub.address);
    assert!(status == 1 && said.contains("has 10001 test images, where MNIST has 10000"), "{said}");
    // A pipe, which has no end, in the place of a file.
    let blob = place.everything().into_iter().find(|(path, bytes)| {
        path.components().any(|part| part.as_os_str() == "blobs") && bytes.starts_with(b"PAR1")
    });
    let (blob, bytes) = blob.unwrap();
    fs::remove_file(&blob).unwrap();
    let path = std::ffi::CString::new(blob.to_str().unwrap()).unwrap();
    // SAFETY: the path is a string that ends in zero.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    let (status, said) = train(&place, &["--data", "mnist"], "pipe", NOBODY);
    assert!(status == 1 && said.contains("MNIST"), "{said}");
    // A file whose name is its checksum, as in the hub's cache, with a flipped bit.
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, bytes).unwrap();
    let named = blob.with_file_name("0123456789abcdef".repeat(4));
    fs::rename(&blob, &named).unwrap();
    std::os::unix::fs::symlink(&named, &blob).unwrap();
    let (status, said) = train(&place, &["--data", "mnist"], "turned", NOBODY);
    assert!(status == 1 && said.contains("is damaged: its checksum differs"), "{said}");
}
