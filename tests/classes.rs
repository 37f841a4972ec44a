//! Names of classes: printed when training begins, kept with the run, and shown in the place of numbers.

mod common;

use common::Place;
use serde_json::Value;
use std::fs;

const NAMES: [&str; 4] = ["bird", "cat", "great white shark", "zebra & foal"];

/// The images of the place's data set, as folders of PNGs called by these names.
fn folders(place: &Place, folder: &str, names: [&str; 4]) {
    for (prefix, part) in [("train", "train"), ("t10k", "test")] {
        let images = fs::read(place.path(&format!("data/{prefix}-images-idx3-ubyte"))).unwrap();
        let labels = fs::read(place.path(&format!("data/{prefix}-labels-idx1-ubyte"))).unwrap();
        let pixels = common::SIDE * common::SIDE;
        for (i, (image, label)) in images[16..].chunks(pixels).zip(&labels[8..]).enumerate() {
            let there = place.path(&format!("{folder}/{part}/{}", names[usize::from(*label)]));
            fs::create_dir_all(&there).unwrap();
            let file = fs::File::create(there.join(format!("{i}.png"))).unwrap();
            let mut encoder = png::Encoder::new(file, common::SIDE as u32, common::SIDE as u32);
            encoder.set_color(png::ColorType::Grayscale);
            encoder.write_header().unwrap().write_image_data(image).unwrap();
        }
    }
}

/// Status and stderr.
fn run(place: &Place, arguments: &[&str]) -> (i32, String) {
    let output = place.eqprop().args(arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn train(place: &Place, name: &str, data: &str) -> String {
    let fixed =
        ["train", "--algo", "ep", "--threads", "1", "--epochs", "1", "--set", "network.dims=[64, 24, 4]"];
    let (status, said) = run(place, &[&fixed[..], &["--name", name, "--data-dir", data]].concat());
    assert_eq!(status, 0, "{said}");
    said
}

/// The metadata of a run's last checkpoint.
fn metadata(place: &Place, run: &str) -> Value {
    let bytes = fs::read(place.path(&format!("checkpoints/{run}/last.safetensors"))).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    serde_json::from_str(header["__metadata__"]["eqprop"].as_str().unwrap()).unwrap()
}

fn environment(place: &Place, run: &str) -> Value {
    serde_json::from_str(&place.read(&format!("runs/{run}/environment.json"))).unwrap()
}

/// Widths and heights of the PNGs in a run's TensorBoard events.
fn pictures(place: &Place, run: &str) -> Vec<(u32, u32)> {
    let folder = fs::read_dir(place.path(&format!("runs/{run}"))).unwrap();
    let events =
        folder.map(|entry| entry.unwrap().path()).find(|path| path.to_string_lossy().contains("tfevents"));
    let bytes = fs::read(events.unwrap()).unwrap();
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let begins = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"\x89PNG\r\n\x1a\n"));
    begins.map(|at| (number(at + 16), number(at + 20))).collect()
}

#[test]
fn names_of_classes_are_said_kept_and_shown() {
    let place = Place::new();
    folders(&place, "animals", NAMES);
    let said = train(&place, "r", "animals");
    let list = "0 = bird, 1 = cat, 2 = great white shark, 3 = zebra & foal";
    assert_eq!(said.matches(&format!("classes: {list}\n")).count(), 1, "{said}");
    assert_eq!(environment(&place, "r-animals")["data"]["classes"], serde_json::json!(NAMES));
    assert_eq!(metadata(&place, "r-animals")["class_names"], serde_json::json!(NAMES));
    // Four columns of 54 pixels, rows of 38, and room for 14 letters of 14 pixels and the labels of the axes.
    let room = 14 * 14 + 14 + 28;
    let (width, height) = (room + 4 * 54 + 4, room + 4 * 38 + 4);
    assert!(pictures(&place, "r-animals").contains(&(width, height)), "{:?}", pictures(&place, "r-animals"));

    let (status, said) = run(&place, &["inspect", "r-animals", "--threads", "1", "--data-dir", "animals"]);
    assert_eq!(status, 0, "{said}");
    let page = place.read("runs/r-animals/inspect.html");
    for name in ["bird", "cat", "great white shark", "zebra &amp; foal"] {
        assert!(page.contains(&format!("<th>{name}</th>")), "no row {name}");
        assert!(page.contains(&format!("<th class=\"number\">{name}</th>")), "no column {name}");
        assert!(page.contains(&format!("</svg>{name}")), "no line {name}");
    }
    assert!(page.contains("Classes: 0 = bird,"));
    let (_, caption) = page.split_once("<p>Test image ").unwrap();
    let (_, caption) = caption.split_once(", a ").unwrap();
    assert!(
        NAMES
            .iter()
            .any(|name| caption.starts_with(&format!("{}, classified as ", name.replace('&', "&amp;"))))
    );
    assert!(!page.contains("<th>0</th>"));
}

#[test]
fn sets_without_names_leave_what_they_left_before() {
    let place = Place::new();
    folders(&place, "numbers", ["0", "1", "2", "3"]);
    for data in ["data", "numbers"] {
        let said = train(&place, "r", data);
        assert!(!said.contains("classes:"), "{said}");
        let run = format!("r-{data}");
        assert_eq!(environment(&place, &run)["data"].get("classes"), None);
        assert_eq!(metadata(&place, &run).get("class_names"), None);
        // The matrix, as it has been drawn for numbers.
        assert!(pictures(&place, &run).contains(&(28 + 28 + 4 * 54 + 4, 54 + 4 * 38 + 4)));
    }
}

#[test]
fn classes_that_are_called_otherwise_now_are_noticed_and_the_runs_names_stay() {
    let place = Place::new();
    folders(&place, "animals", NAMES);
    train(&place, "r", "animals");
    // The same images; one class has another name at the same place of the order.
    fs::remove_dir_all(place.path("animals")).unwrap();
    folders(&place, "animals", ["bird", "civet", "great white shark", "zebra & foal"]);
    let resume =
        ["train", "--resume", "r-animals", "--threads", "1", "--epochs", "2", "--data-dir", "animals"];
    let (status, said) = run(&place, &resume);
    assert_eq!(status, 0, "{said}");
    assert!(
        said.contains("WARN") && said.contains("1 = civet") && said.contains("classes: 0 = bird, 1 = cat,"),
        "{said}"
    );
    assert_eq!(metadata(&place, "r-animals")["class_names"], serde_json::json!(NAMES));
    let eval = ["eval", "r-animals", "--threads", "1", "--data-dir", "animals"];
    let (status, said) = run(&place, &eval);
    assert_eq!((status, said.contains("1 = civet") && said.contains("1 = cat")), (0, true), "{said}");
    // Images without names, of the same classes, take the run's names.
    let inspect = ["inspect", "r-animals", "--threads", "1", "--data-dir", "data", "--out", "page.html"];
    assert_eq!(run(&place, &inspect).0, 0);
    assert!(place.read("page.html").contains("<th>great white shark</th>"));
}
