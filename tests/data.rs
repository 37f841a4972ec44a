//! Contents of `--data-dir`: data sets are read as they are distributed; for anything else a message says what is
//! there and what to do with it. And networks are tested on any images of their size.

mod common;

use candle_core::{Device, Tensor};
use common::{CLASSES, Place, SIDE, TEST, TRAIN, metrics};
use flate2::{Compression, write::GzEncoder};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::Path;

/// MNIST's names of the four files.
const FILES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

fn write(place: &Place, path: &str, bytes: &[u8]) {
    let path = place.path(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// The bytes of one of the four files of the small data set.
fn idx(place: &Place, file: &str) -> Vec<u8> {
    fs::read(place.path(&format!("data/{file}"))).unwrap()
}

/// Images or labels of the small data set, as an array.
fn array(place: &Place, file: &str) -> Tensor {
    let bytes = idx(place, file);
    let count = if file.starts_with("train") { TRAIN } else { TEST };
    let shape = if file.contains("images") { vec![count, SIDE, SIDE] } else { vec![count] };
    let header = 4 + 4 * shape.len();
    Tensor::from_slice(&bytes[header..], shape, &Device::Cpu).unwrap()
}

fn png(path: &Path, pixels: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), SIDE as u32, SIDE as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
}

/// The small data set, or its test images alone, as PNGs in folders by class.
fn pngs(place: &Place, folder: &str, parts: &[(&str, &str)], class: impl Fn(u8) -> String) {
    for (part, prefix) in parts {
        let images = &idx(place, &format!("{prefix}-images-idx3-ubyte"))[16..];
        let labels = &idx(place, &format!("{prefix}-labels-idx1-ubyte"))[8..];
        for (i, (image, label)) in images.chunks(SIDE * SIDE).zip(labels).enumerate() {
            png(&place.path(&format!("{folder}/{part}/{}/{i}.png", class(*label))), image);
        }
    }
}

/// The program's exit status, stdout and stderr.
fn run(place: &Place, arguments: &[&str]) -> (i32, String, String) {
    let output = place.eqprop().args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Trains a little on `data`, and returns the checksums of what was read, and the messages.
fn read(place: &Place, data: &str, name: &str) -> (Value, String) {
    let fixed =
        ["train", "--algo", "ep", "--threads", "1", "--epochs", "1", "--set", "training.angle_every=0"];
    let sizes = ["--set", r#"network.dims=["auto", 8, "auto"]"#, "--name", name, "--data-dir", data];
    let (status, _, said) = run(place, &[&fixed[..], &sizes].concat());
    assert_eq!(status, 0, "{data}: {said}");
    let set = Path::new(data).file_stem().unwrap().to_str().unwrap();
    let environment = place.read(&format!("runs/{name}-{set}/environment.json"));
    let environment: Value = serde_json::from_str(&environment).unwrap();
    (environment["data"]["sha256"].clone(), said)
}

/// Returns the message why nothing is trained on `data`.
fn refused(place: &Place, data: &str) -> String {
    let (status, _, said) = run(place, &["train", "--algo", "ep", "--dry-run", "--data-dir", data]);
    assert_eq!(status, 1, "{data}: {said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("eqprop: ")).count(), 1, "{said}");
    said
}

#[test]
fn sets_are_read_under_the_names_they_are_distributed_with() {
    let place = Place::new();
    let file = |name: &str| idx(&place, name);
    for name in FILES {
        let (bytes, dotted) = (file(name), name.replacen("-idx", ".idx", 1));
        let test = name.replace("t10k", "test");
        write(&place, &format!("dotted/{dotted}"), &bytes);
        write(&place, &format!("dotted-gz/{dotted}.gz"), &gzip(&bytes));
        // The name of a file does not decide whether it is packed.
        write(&place, &format!("packed/{name}"), &gzip(&bytes));
        write(&place, &format!("unpacked/{name}.gz"), &bytes);
        write(&place, &format!("emnist/emnist-letters-{test}.gz"), &gzip(&bytes));
        write(&place, "emnist/emnist-letters-mapping.txt", b"1 65 97\n");
        write(&place, &format!("torchvision/MNIST/raw/{name}"), &bytes);
        write(&place, &format!("torchvision/MNIST/raw/{name}.gz"), &gzip(&bytes));
        // Unpackers make folders of files' names; and Macs, Windows and network drives leave things about.
        write(&place, &format!("beside/{name}/{dotted}"), b"another");
        write(&place, &format!("beside/{name}.gz"), &gzip(&bytes));
        write(&place, &format!("inside/{name}/{name}"), &bytes);
        write(&place, &format!("mac/._{name}"), &[0, 5, 22, 7]);
        write(&place, &format!("mac/__MACOSX/._{name}"), &[0, 5, 22, 7]);
        write(&place, &format!("mac/@eaDir/{name}/{name}"), b"SYNO");
        write(&place, &format!("mac/{name}"), &bytes);
    }
    for (part, prefix) in [("train", "train"), ("test", "t10k")] {
        let images = file(&format!("{prefix}-images-idx3-ubyte"));
        let labels = file(&format!("{prefix}-labels-idx1-ubyte"));
        // QMNIST: eight 32-bit columns, the first of which is the class.
        let mut columns = [&[0, 0, 12, 2][..], &labels[4..8], &[0, 0, 0, 8]].concat();
        for &label in &labels[8..] {
            for number in [i32::from(label), 4, 2000, 77, -1, 300, 0, 0] {
                columns.extend(number.to_be_bytes());
            }
        }
        write(&place, &format!("qmnist/qmnist-{part}-images-idx3-ubyte.gz"), &gzip(&images));
        write(&place, &format!("qmnist/qmnist-{part}-labels-idx2-int.gz"), &gzip(&columns));
        write(&place, &format!("renamed/{prefix}-images-idx3-ubyte"), &images);
        write(&place, &format!("renamed/{prefix}-labels-idx1-ubyte"), &columns);
        // 16-bit pixels.
        let mut wide = [&[0, 0, 11, 3][..], &images[4..16]].concat();
        wide.extend(images[16..].iter().flat_map(|&pixel| i16::from(pixel).to_be_bytes()));
        write(&place, &format!("wide/{prefix}-images-idx3-short"), &wide);
        write(&place, &format!("wide/{prefix}-labels-idx1-ubyte"), &labels);
        let arrays =
            ["images-idx3-ubyte", "labels-idx1-ubyte"].map(|what| array(&place, &format!("{prefix}-{what}")));
        for (what, array) in ["imgs", "labels"].iter().zip(&arrays) {
            write(&place, "kmnist/kmnist_classmap.csv", b"index,codepoint,char\n");
            let path = place.path(&format!("kmnist/kmnist-{part}-{what}.npz"));
            Tensor::write_npz(&[("arr_0", array)], path).unwrap();
        }
        fs::create_dir_all(place.path("fog")).unwrap();
        for (what, array) in ["images", "labels"].iter().zip(&arrays) {
            array.write_npy(place.path(&format!("fog/{part}_{what}.npy"))).unwrap();
        }
    }
    // PNGs to test on are no reason not to train on what lies beside them.
    for name in FILES {
        write(&place, &format!("pictured/{name}"), &file(name));
    }
    let picture: Vec<u8> = (0..=255).step_by(4).collect();
    png(&place.path("pictured/test/0/0.png"), &picture);
    let (expected, _) = read(&place, "data", "a");
    for data in [
        "dotted",
        "dotted-gz",
        "packed",
        "unpacked",
        "emnist",
        "torchvision",
        "beside",
        "inside",
        "mac",
        "qmnist",
        "renamed",
        "wide",
        "kmnist",
        "fog",
        "pictured",
    ] {
        let (found, said) = read(&place, data, "a");
        assert_eq!(found, expected, "{data}: {said}");
        match data {
            "emnist" => assert!(said.contains("emnist-letters"), "{said}"),
            "torchvision" => assert!(said.contains("the data set in it is torchvision/MNIST/raw"), "{said}"),
            _ => {}
        }
    }
}

#[test]
fn folders_of_pngs_are_read_whatever_their_parts_are_called() {
    let place = Place::new();
    let number = |class: u8| class.to_string();
    pngs(&place, "plain", &[("train", "train"), ("test", "t10k")], number);
    let (expected, _) = read(&place, "plain", "a");
    pngs(&place, "fastai", &[("training", "train"), ("testing", "t10k")], number);
    pngs(&place, "held", &[("Train", "train"), ("val", "t10k")], number);
    pngs(&place, "mac", &[("train", "train"), ("test", "t10k")], number);
    for dropping in ["train/0/._0.png", "test/@eaDir/0.png", "train/.DS_Store", "__MACOSX/train/0/0.png"] {
        write(&place, &format!("mac/{dropping}"), b"no picture");
    }
    for data in ["fastai", "held", "mac"] {
        assert_eq!(read(&place, data, "a").0, expected, "{data}");
    }
}

#[test]
fn every_mistake_is_told_apart() {
    let place = Place::new();
    for name in FILES {
        let bytes = idx(&place, name);
        write(&place, &format!("three/{name}.gz"), &gzip(&bytes));
        write(&place, &format!("splits/emnist-letters-{name}"), &bytes);
        write(&place, &format!("splits/emnist-digits-{name}"), &bytes);
        write(&place, &format!("torchvision/MNIST/raw/{name}"), &bytes);
        write(&place, &format!("torchvision/FashionMNIST/raw/{name}"), &bytes);
    }
    fs::remove_file(place.path("three/t10k-labels-idx1-ubyte.gz")).unwrap();
    for name in ["a.npz", "b.npz"] {
        let images = array(&place, FILES[0]);
        fs::create_dir_all(place.path("two")).unwrap();
        Tensor::write_npz(&[("x_train", images)], place.path(&format!("two/{name}"))).unwrap();
    }
    write(&place, "csv/mnist_train.csv", b"5,0,0\n");
    write(&place, "zip/archive.zip", b"PK");
    write(&place, "parquet/train-00000-of-00001.parquet", b"PAR1");
    write(&place, "matlab/mnist-original.mat", b"MATLAB");
    write(&place, "matlab/mnist.pkl.gz", b"");
    write(&place, "mac/.DS_Store", b"Bud1");
    write(&place, &format!("partial/MNIST/raw/{}", FILES[0]), &idx(&place, FILES[0]));
    // A set that lacks a file is meant, even where another one is below.
    for name in FILES {
        write(&place, &format!("above/old/{name}"), &idx(&place, name));
    }
    write(&place, &format!("above/{}", FILES[0]), &idx(&place, FILES[0]));
    png(&place.path("classes/3/0.png"), &[0; SIDE * SIDE]);
    png(&place.path("both/train/3/0.png"), &[0; SIDE * SIDE]);
    png(&place.path("both/training/3/0.png"), &[0; SIDE * SIDE]);
    png(&place.path("both/test/3/0.png"), &[0; SIDE * SIDE]);
    for (data, words) in [
        ("nosuch", &["nosuch: does not exist"][..]),
        ("data/train-images-idx3-ubyte", &["one of the four files of a set: give its folder, data"]),
        ("three/train-labels-idx1-ubyte.gz", &["give its folder, three"]),
        (
            "three",
            &[
                "has train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images",
                "no t10k-labels-idx1-ubyte",
            ],
        ),
        ("splits", &["several sets, emnist-digits, emnist-letters: give a folder with"]),
        ("torchvision", &["FashionMNIST/raw, MNIST/raw: give one of these folders"]),
        ("two", &["several .npz files, a.npz, b.npz: give one of them"]),
        ("csv", &["holds mnist_train.csv, and CSV is not read", "numpy.savez"]),
        ("csv/mnist_train.csv", &["CSV is not read", "numpy.savez"]),
        ("zip", &["archive.zip", "unpack it"]),
        ("zip/archive.zip", &["is an archive", "unpack it"]),
        ("parquet", &["holds train-00000-of-00001.parquet, and no data set in a known form", "IDX"]),
        ("matlab", &["holds mnist-original.mat, mnist.pkl.gz, and no data set", "docs/data.md"]),
        ("mac", &["mac: is empty", "IDX"]),
        ("partial", &["MNIST/raw in it has train-images-idx3-ubyte, but no train-labels-idx1-ubyte"]),
        ("above", &["has train-images-idx3-ubyte, but no train-labels"]),
        ("/dev/zero", &["is a pipe or a device"]),
        ("classes", &["folders of PNGs by class (3), but no train/ and test/"]),
        ("both", &["has train/ and training/: keep the right one"]),
    ] {
        let said = refused(&place, data);
        for word in words {
            assert!(said.contains(word), "{data} should mention {word:?}: {said}");
        }
    }
}

#[test]
fn numbers_that_do_not_fit_are_said() {
    let place = Place::new();
    let labels = "train-labels-idx1-ubyte";
    let good = idx(&place, labels);
    let header = |code: u8| [&[0, 0, code, 1][..], &good[4..8]].concat();
    let floats: Vec<u8> = (0..TRAIN).flat_map(|_| 1f32.to_be_bytes()).collect();
    let large: Vec<u8> = (0..TRAIN).flat_map(|_| 300i32.to_be_bytes()).collect();
    let one_hot = [&[0, 0, 8, 2][..], &good[4..8], &[0, 0, 0, 4], &vec![1; 4 * TRAIN]].concat();
    for (bytes, word) in [
        ([header(0x0d), floats].concat(), "of type 0x0d"),
        ([header(0x0c), large].concat(), "number 0 is 300: pixels and labels are from 0 to 255"),
        (one_hot, "a label is one number"),
    ] {
        write(&place, &format!("data/{labels}"), &bytes);
        let said = refused(&place, "data");
        assert!(said.contains(labels) && said.contains(word), "{word}: {said}");
    }
    write(&place, &format!("data/{labels}"), &good);
    // The size that the header of an array claims is not allocated unchecked.
    for (part, prefix) in [("train", "train"), ("test", "t10k")] {
        fs::create_dir_all(place.path("npy")).unwrap();
        for what in ["images-idx3-ubyte", "labels-idx1-ubyte"] {
            let name = format!("npy/{part}_{}.npy", &what[..6]);
            array(&place, &format!("{prefix}-{what}")).write_npy(place.path(&name)).unwrap();
        }
    }
    let path = place.path("npy/train_images.npy");
    let (text, claimed) = (format!("({TRAIN},"), "(9999999999,");
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(text.len()).position(|part| part == text.as_bytes()).unwrap();
    fs::write(&path, [&bytes[..at], claimed.as_bytes(), &bytes[at + text.len()..]].concat()).unwrap();
    let said = refused(&place, "npy");
    assert!(said.contains("train_images.npy") && said.contains("9999999999"), "{said}");
}

/// A place with a run, and the test error it ended with.
fn with_run() -> (Place, f64) {
    let place = Place::new();
    let arguments = place.small_run("ep", &["--epochs", "2", "--name", "r-data", "--limit-test", "50"]);
    place.eqprop().args(arguments).assert().success();
    let lines = metrics(&place.path("runs/r-data/metrics.jsonl"));
    let error = lines.last().unwrap()["error/test"].as_f64().unwrap();
    (place, error)
}

/// The result and the messages of `eval` on `data`.
fn eval(place: &Place, data: &str) -> (Value, String) {
    let (status, shown, said) =
        run(place, &["eval", "r-data", "--threads", "1", "--json", "--data-dir", data]);
    assert_eq!(status, 0, "{data}: {said}");
    (serde_json::from_str(&shown).unwrap(), said)
}

#[test]
fn test_images_alone_are_tested_on_and_not_trained_on() {
    let (place, error) = with_run();
    let (images, labels) = (FILES[2], FILES[3]);
    for name in [images, labels] {
        write(&place, &format!("idx/{name}.gz"), &gzip(&idx(&place, name)));
    }
    fs::create_dir(place.path("fog")).unwrap();
    array(&place, images).write_npy(place.path("fog/test_images.npy")).unwrap();
    array(&place, labels).write_npy(place.path("fog/test_labels.npy")).unwrap();
    let arrays = [("x_test", array(&place, images)), ("y_test", array(&place, labels))];
    Tensor::write_npz(&arrays, place.path("one.npz")).unwrap();
    // They are the run's own, of which it was tested on 50.
    for data in ["idx", "fog", "one.npz"] {
        let (result, said) = eval(&place, data);
        assert_eq!(result["test_error_percent"], error, "{data}");
        assert_eq!((&result["images"], said.contains("WARN")), (&50.into(), false), "{data}: {said}");
        assert_eq!(result["data"], Path::new(data).file_stem().unwrap().to_str().unwrap());
        let said = refused(&place, data);
        assert!(said.contains("nothing to train on") && said.contains("eqprop eval RUN"), "{said}");
    }
    // In another order these are other images, so all of them are tested on.
    pngs(&place, "pngs", &[("test", "t10k")], |class| class.to_string());
    let (result, said) = eval(&place, "pngs");
    assert_eq!((&result["data"], &result["images"]), (&"pngs".into(), &TEST.into()));
    assert!(said.contains("WARN") && said.contains("pngs from pngs is other data"), "{said}");
    assert!(refused(&place, "pngs").contains("nothing to train on"));
    for name in ["mnist", "fashion-mnist"] {
        let train = ["train", "--algo", "ep", "--data", name, "--data-dir", "idx"];
        let (status, _, said) = run(&place, &train);
        assert!(status == 1 && said.contains("nothing to train on"), "{said}");
    }
}

#[test]
fn a_network_is_tested_on_any_images_of_its_size() {
    let (place, error) = with_run();
    // The same images, but for the first, which are not of the class they seem.
    let mut wrong = idx(&place, FILES[3]);
    wrong[8..18].iter_mut().for_each(|label| *label = (*label + 1) % CLASSES as u8);
    for name in FILES {
        let bytes = if name == FILES[3] { wrong.clone() } else { idx(&place, name) };
        write(&place, &format!("other/{name}"), &bytes);
    }
    let (own, said) = eval(&place, "data");
    assert!(own["test_error_percent"] == error && !said.contains("WARN"), "{said}");
    let (result, said) = eval(&place, "other");
    assert!(said.contains("WARN the run was trained on data, and other from other is other data"), "{said}");
    assert_eq!((&result["data"], &result["source"]), (&"other".into(), &"other".into()));
    // The limit was that of the run's own data.
    assert_eq!(result["images"], TEST);
    let (_, shown, _) = run(&place, &["eval", "r-data", "--threads", "1", "--data-dir", "other"]);
    assert!(shown.contains("test error on other"), "{shown}");
    let inspect = ["inspect", "r-data", "--threads", "1", "--data-dir", "other", "--out", "page.html"];
    assert_eq!(run(&place, &inspect).0, 0);
    assert!(place.read("page.html").contains("on other. "), "the page names the set");
    // Classes the network does not have, and images it cannot take.
    wrong[8 + 5] = 9;
    write(&place, &format!("other/{}", FILES[3]), &wrong);
    let mut small = idx(&place, FILES[2])[..16 + TEST * 4].to_vec();
    small[8..16].copy_from_slice(&[0, 0, 0, 2, 0, 0, 0, 2]);
    write(&place, &format!("small/{}", FILES[2]), &small);
    write(&place, &format!("small/{}", FILES[3]), &idx(&place, FILES[3]));
    for (data, words) in [
        ("other", ["t10k-labels-idx1-ubyte: image 5 has label 9", "r-data knows classes 0 to 3"]),
        ("small", ["small: its images have 4 pixels", "r-data takes images of 64"]),
    ] {
        let (status, _, said) = run(&place, &["eval", "r-data", "--data-dir", data]);
        assert!(status == 1 && words.iter().all(|word| said.contains(word)), "{data}: {said}");
    }
}

#[test]
fn what_a_run_trained_on_does_not_choose_what_it_is_tested_on() {
    let place = Place::new();
    let small =
        ["train", "--algo", "ep", "--threads", "1", "--epochs", "1", "--data", "glyphs", "--name", "r"];
    let small =
        [&small[..], &["--limit-train", "40", "--limit-test", "20", "--set", "network.dims=[784,8,10]"]]
            .concat();
    assert_eq!(run(&place, &small).0, 0);
    let mut images = [&[0, 0, 8, 3][..], &[0, 0, 0, 2], &[0, 0, 0, 28], &[0, 0, 0, 28]].concat();
    images.extend((0..2 * 784).map(|i| (i % 251) as u8));
    write(&place, &format!("mine/{}", FILES[2]), &images);
    write(&place, &format!("mine/{}", FILES[3]), &[0, 0, 8, 1, 0, 0, 0, 2, 3, 4]);
    let (status, shown, said) = run(&place, &["eval", "r-glyphs", "--json", "--data-dir", "mine"]);
    assert_eq!(status, 0, "{said}");
    let result: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&result["data"], &result["images"]), (&"mine".into(), &2.into()));
}

#[test]
fn classes_and_sets_that_are_there_twice_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    let refused = |words: &[&str]| {
        let said = refused(&place, "set");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
    };
    let picture: Vec<u8> = (0..=255).step_by(4).collect();
    for file in ["train/1/a.png", "train/01/b.png", "train/2/c.png", "test/1/a.png"] {
        png(&place.path(&format!("set/{file}")), &picture);
    }
    refused(&["set/train", "has the class 1 twice, as ", "01"]);
    fs::remove_dir_all(place.path("set/train/01")).unwrap();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
    fs::rename(place.path("set/train/2"), place.path("set/train").join(name)).unwrap();
    refused(&["set/train/caf", "is not UTF-8", "rename it"]);
    // An archive beside the four files of another set.
    fs::remove_dir_all(place.path("set")).unwrap();
    for name in FILES {
        write(&place, &format!("set/{name}"), &idx(&place, name));
    }
    let images = Tensor::arange(0u8, 128, &Device::Cpu).unwrap().reshape((2, 8, 8)).unwrap();
    let labels = Tensor::new(&[0u8, 1], &Device::Cpu).unwrap();
    let arrays = [("x_train", &images), ("y_train", &labels), ("x_test", &images), ("y_test", &labels)];
    Tensor::write_npz(&arrays, place.path("set/mine.npz")).unwrap();
    refused(&[
        "holds several sets, mine.npz, and train-images-idx3-ubyte with",
        "move all but one of them away",
    ]);
    // Images to test on alone are no other set to train on.
    Tensor::write_npz(&arrays[2..], place.path("set/mine.npz")).unwrap();
    let (found, _) = read(&place, "set", "b");
    let (expected, _) = read(&place, "data", "b");
    assert_eq!(found, expected);
}
