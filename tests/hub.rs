//! MNIST as the Hugging Face hub has it: Parquet files of PNGs, from a server that answers as the hub does.
#![cfg(feature = "hub")]

mod common;

use common::{Place, SIDE};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// The columns of ylecun/mnist.
const COLUMNS: &str = "message schema { optional group image { optional binary bytes; optional binary path (UTF8); } \
                       optional int64 label; }";

/// The small data set's images and labels as the hub would have them.
fn parquet_of(place: &Place, prefix: &str) -> Vec<u8> {
    let images = fs::read(place.path(&format!("data/{prefix}-images-idx3-ubyte"))).unwrap();
    let labels = fs::read(place.path(&format!("data/{prefix}-labels-idx1-ubyte"))).unwrap();
    let images: Vec<ByteArray> = images[16..].chunks(SIDE * SIDE).map(|pixels| png(pixels).into()).collect();
    let labels: Vec<i64> = labels[8..].iter().map(|label| i64::from(*label)).collect();
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

fn png(pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, SIDE as u32, SIDE as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
    bytes
}

/// Answers one request for a part of one of these files.
fn answer(mut stream: TcpStream, files: &[(&str, Vec<u8>)]) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
    let request = lines.next().unwrap();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let range = headers.iter().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("range").then(|| value.trim_start_matches("bytes=").to_string())
    });
    let path = request.split(' ').nth(1).unwrap();
    let Some((_, bytes)) = files.iter().find(|(name, _)| {
        path == format!("/datasets/ylecun/mnist/resolve/refs%2Fconvert%2Fparquet/mnist/{name}/0000.parquet")
    }) else {
        write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        return;
    };
    let (first, last) = range.as_deref().and_then(|range| range.split_once('-')).unwrap();
    let first: usize = first.parse().unwrap();
    let last = last.parse().unwrap_or(bytes.len() - 1);
    let part = &bytes[first..=last];
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{last}/{}\r\n\
         ETag: \"{:x}\"\r\nX-Repo-Commit: abc\r\nConnection: close\r\n\r\n",
        part.len(),
        bytes.len(),
        bytes.len()
    )
    .unwrap();
    stream.write_all(part).unwrap();
}

#[test]
fn the_hubs_mnist_is_downloaded_once_and_is_what_its_files_say() {
    let place = Place::new();
    let hub = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", hub.local_addr().unwrap());
    let files = [("train", parquet_of(&place, "train")), ("test", parquet_of(&place, "t10k"))];
    thread::spawn(move || hub.incoming().for_each(|stream| answer(stream.unwrap(), &files)));
    let train = |data: &[&str], name: &str, endpoint: &str| {
        let mut command = place.eqprop();
        command.args(["train", "--algo", "ep", "--threads", "1", "--epochs", "1", "--name", name]).args(data);
        command.args(["--set", r#"network.dims=["auto", 24, "auto"]"#]);
        // A folder for the cache may be relative.
        command.env("HF_ENDPOINT", endpoint).env("HF_HOME", "hub");
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        said
    };
    let said = train(&["--data", "mnist"], "hub", &address);
    assert!(
        said.contains("data: mnist (Hugging Face hub, ylecun/mnist), 230 training and 60 test images"),
        "{said}"
    );
    // From the cache: no hub is there.
    train(&["--data", "mnist"], "cache", "http://127.0.0.1:9");
    let dry = train(&["--data", "mnist", "--dry-run"], "dry", "http://127.0.0.1:9");
    assert!(dry.contains("230 training") && !dry.contains("would be downloaded"), "{dry}");
    train(&["--data-dir", "data"], "idx-data", "http://127.0.0.1:9");
    let environment = |run: &str| {
        let text = place.read(&format!("runs/{run}/environment.json"));
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["data"]["sha256"].clone()
    };
    assert_eq!(environment("hub"), environment("idx-data"));
    assert_eq!(environment("cache"), environment("idx-data"));
}
