//! CIFAR-10's binary version from small files made here, normalised, mirrored and shifted images, and that runs on
//! them go on in the same bits.

mod common;

use common::{Place, metrics};
use std::fs;

const PIXELS: usize = 32 * 32 * 3;

/// Images of one colour and a bar, a class each: a byte for the class, then red, green, blue.
fn batch(count: usize, salt: usize) -> Vec<u8> {
    let record = |i: usize| {
        let class = (i + salt) % 3;
        let pixel = move |at: usize| {
            let (channel, column) = (at / 1024, at % 32);
            let bar = if column < 4 + (i * 7 + salt) % 20 { 60 } else { 0 };
            (if channel == class { 150 } else { 20 }) + bar as u8
        };
        std::iter::once(class as u8).chain((0..PIXELS).map(pixel))
    };
    (0..count).flat_map(record).collect()
}

fn place() -> Place {
    let place = Place::new();
    fs::create_dir(place.path("cifar")).unwrap();
    for (name, count, salt) in [("data_batch_1", 31, 0), ("data_batch_2", 20, 5), ("test_batch", 9, 2)] {
        fs::write(place.path(&format!("cifar/{name}.bin")), batch(count, salt)).unwrap();
    }
    place
}

/// The output of a command, and its status.
fn run(place: &Place, arguments: &[&str]) -> (i32, String) {
    let output = place.eqprop().args(arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

const SMALL: [&str; 17] = [
    "train",
    "--algo",
    "cep",
    "--threads",
    "1",
    "--epochs",
    "2",
    "--data-dir",
    "cifar",
    "--set",
    "network.dims=[\"auto\", 12, \"auto\"]",
    "--set",
    "training.checkpoint_every=1",
    "--set",
    "training.keep_checkpoints=0",
    "--name",
    "r-cifar",
];
const AUGMENTED: [&str; 8] = [
    "--set",
    "training.flips=true",
    "--set",
    "training.crops=4",
    "--set",
    "network.input_mean=[0.4914, 0.4822, 0.4465]",
    "--set",
    "network.input_std=[0.2470, 0.2435, 0.2616]",
];

#[test]
fn the_binary_version_is_read_with_the_channels_of_a_pixel_together() {
    let dataset =
        |place: &Place| eqprop::data::load(eqprop::data::DataChoice::Auto, Some(&place.path("cifar")));
    let place = place();
    let read = dataset(&place).unwrap();
    assert_eq!((read.train.len(), read.test.len(), read.classes, &read.name[..]), (51, 9, 3, "cifar"));
    assert_eq!(read.train.shape, Some([32, 32, 3]));
    // The first image of the second file is of class 2: little red and green, much blue; its bar is 4 + 5 wide.
    let image = &read.train.images[31 * PIXELS..][..PIXELS];
    assert_eq!(
        (read.train.labels[31], &image[..3], &image[9 * 3..][..3]),
        (2, &[80, 80, 210][..], &[20, 20, 150][..])
    );
    // What is cut off is refused by the name of its file, and so are batches without one to test on.
    let whole = batch(9, 2);
    fs::write(place.path("cifar/test_batch.bin"), &whole[..whole.len() - 1]).unwrap();
    let refused = dataset(&place).unwrap_err().to_string();
    assert!(refused.contains("test_batch.bin") && refused.contains("no whole images of 3073"), "{refused}");
    fs::remove_file(place.path("cifar/test_batch.bin")).unwrap();
    let refused = dataset(&place).unwrap_err().to_string();
    assert!(refused.contains("no test_batch.bin"), "{refused}");
    // It is none of the official set's.
    fs::write(place.path("cifar/test_batch.bin"), whole).unwrap();
    let (status, said) = run(&place, &[&SMALL[..], &["--data", "cifar10"]].concat());
    assert!(status == 1 && said.contains("this is not CIFAR-10"), "{said}");
}

#[test]
fn mirrored_shifted_and_normalised_images_are_the_same_when_a_run_goes_on() {
    let (place, plain) = (place(), place());
    assert_eq!(run(&plain, &SMALL).0, 0);
    let (status, said) = run(&place, &[&SMALL[..], &AUGMENTED].concat());
    assert!(
        status == 0 && said.contains("takes pixels as they are, from 0 to 1, and normalises none"),
        "{said}"
    );
    let last = place.path("checkpoints/r-cifar/last.safetensors");
    let lines = |place: &Place| metrics(&place.path("runs/r-cifar/metrics.jsonl"));
    let (expected, expected_metrics) = (fs::read(&last).unwrap(), lines(&place));
    assert_ne!(expected_metrics, lines(&plain));
    // 51 images are 3 minibatches.
    for step in 1..6 {
        let from = format!("checkpoints/r-cifar/step-{step:08}.safetensors");
        let (status, said) =
            run(&place, &["train", "--threads", "1", "--data-dir", "cifar", "--resume", &from]);
        assert_eq!(status, 0, "{said}");
        assert!(fs::read(&last).unwrap() == expected && lines(&place) == expected_metrics, "from {step}");
    }
    // Mirrored and shifted alone, both engines learn the same images.
    let error = |engine: &str| {
        let place = self::place();
        let engine = format!("training.engine={engine}");
        let (status, said) = run(&place, &[&SMALL[..], &AUGMENTED[..4], &["--set", &engine]].concat());
        assert_eq!(status, 0, "{said}");
        lines(&place)[2]["loss/train"].as_f64().unwrap()
    };
    let (fused, plain) = (error("fused"), error("plain"));
    assert!((fused - plain).abs() < 1e-4 * plain, "{fused} and {plain}");
}

#[test]
fn what_cannot_be_normalised_or_shifted_is_refused() {
    let place = place();
    for (set, words) in [
        ("network.input_mean=[0.5, 0.5]", "as many numbers as input_mean has, 2"),
        ("network.input_std=[0.5]", "as many numbers as input_mean has, 0"),
        ("training.crops=32", "would shift out of themselves"),
    ] {
        let (status, said) = run(&place, &[&SMALL[..], &["--set", set]].concat());
        assert!(status != 0 && said.contains(words), "{set}: {said}");
    }
    let two = [
        "--set",
        "network.input_mean=[0.5, 0.5, 0.5, 0.5]",
        "--set",
        "network.input_std=[1.0, 1.0, 1.0, 0.0]",
    ];
    let (status, said) = run(&place, &[&SMALL[..], &two].concat());
    assert!(status != 0 && said.contains("above 0"), "{said}");
}
