//! Shared parts of the tests of the program: the binary, small data sets, and runs of them.
#![allow(dead_code)]

use assert_cmd::Command;
use candle_core::Tensor;
use eqprop::Batch;
use eqprop::model::Parameters;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process;
use tempfile::TempDir;

/// A folder for a test, with a small data set in IDX form.
pub struct Place {
    pub dir: TempDir,
}

/// Sizes of the small data set.
pub const SIDE: usize = 8;
pub const TRAIN: usize = 230;
pub const TEST: usize = 60;
pub const CLASSES: usize = 4;

impl Place {
    pub fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(place.path("data")).unwrap();
        for (prefix, count, salt) in [("train", TRAIN, 0), ("t10k", TEST, 1_000_003)] {
            let (images, labels) = small_set(count, salt);
            fs::write(place.path(&format!("data/{prefix}-images-idx3-ubyte")), images).unwrap();
            fs::write(place.path(&format!("data/{prefix}-labels-idx1-ubyte")), labels).unwrap();
        }
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// All files below it with their bytes, except locks, which say who was there last.
    pub fn everything(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let (mut files, mut folders) = (Vec::new(), vec![self.dir.path().to_path_buf()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false if path.ends_with("lock") => {}
                    // A link to a missing file.
                    false if !path.exists() => {}
                    false => files.push((path.clone(), fs::read(&path).unwrap())),
                }
            }
        }
        files.sort();
        files
    }

    /// The program, run in this folder.
    pub fn eqprop(&self) -> Command {
        Command::from_std(self.process())
    }

    /// The program as a process that is to be interrupted. It receives a hangup even where the tests run under
    /// `nohup`.
    pub fn process(&self) -> process::Command {
        let mut command = process::Command::new(assert_cmd::cargo::cargo_bin!("eqprop"));
        command.current_dir(self.dir.path()).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        // SAFETY: between fork and exec it makes one call, which is allowed there.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGHUP, libc::SIG_DFL);
                Ok(())
            });
        }
        command
    }

    /// Arguments of a small training run on this folder's data.
    pub fn small_run<'a>(&self, rule: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let fixed = [
            "train",
            "--algo",
            rule,
            "--threads",
            "1",
            "--data-dir",
            "data",
            "--set",
            "network.dims=[64, 24, 4]",
            "--set",
            "training.checkpoint_every=3",
            "--set",
            "learning.nudging=random",
        ];
        fixed.into_iter().chain(more.iter().copied()).collect()
    }
}

/// An IDX pair of blurred, noisy bars, one direction a class: easy, but not at once.
fn small_set(count: usize, salt: u64) -> (Vec<u8>, Vec<u8>) {
    let mut images = vec![0, 0, 8, 3];
    for size in [count, SIDE, SIDE] {
        images.extend((size as u32).to_be_bytes());
    }
    let mut labels = vec![0, 0, 8, 1];
    labels.extend((count as u32).to_be_bytes());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ salt;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..count {
        let class = draw(CLASSES as u64) as usize;
        let place = 2 + draw(SIDE as u64 - 4) as usize;
        for row in 0..SIDE {
            for column in 0..SIDE {
                let on = match class {
                    0 => row == place,
                    1 => column == place,
                    2 => row == column,
                    _ => row + column == SIDE - 1,
                };
                images.push(if on { 255 - draw(80) as u8 } else { draw(90) as u8 });
            }
        }
        labels.push(class as u8);
    }
    (images, labels)
}

/// The lines of a run's metrics without anything that depends on the clock.
pub fn metrics(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines()
        .map(|line| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            line.as_object_mut().unwrap().retain(|name, _| !name.starts_with("speed/"));
            line
        })
        .collect()
}

/// A Python with the packages `modules`, or `None` with a message (see [`skip`]): the one that EQPROP_PYTHON names.
pub fn python(modules: &str) -> Option<PathBuf> {
    python_in("EQPROP_PYTHON", modules)
}

/// The Python that an environment `variable` names, or the one on the PATH, where it has the packages `modules`.
pub fn python_in(variable: &str, modules: &str) -> Option<PathBuf> {
    let python = std::env::var_os(variable).map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let check = process::Command::new(&python).args(["-c", &format!("import {modules}")]).output();
    if check.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    skip(&format!("{} has no {modules}", python.display()));
    None
}

/// Says that a test is skipped for want of a tool. Where CI=true everything is installed, and that is a failure.
pub fn skip(want: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "skipped in CI: {want}");
    eprintln!("SKIPPED: {want}");
}

/// A seed that gives the same cases every time, so that a defect shows at once; PROPTEST_RNG_SEED sets another (`make
/// torture` draws it).
pub fn seed() -> proptest::test_runner::RngSeed {
    let given = std::env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok());
    proptest::test_runner::RngSeed::Fixed(given.unwrap_or(1))
}

/// ‖t‖.
pub fn norm(t: &Tensor) -> f64 {
    t.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
}

/// ‖a − b‖ of all weights and biases.
pub fn distance(a: &Parameters, b: &Parameters) -> f64 {
    let pairs = a.named().into_iter().zip(b.named());
    pairs.map(|((_, a), (_, b))| norm(&(a - b).unwrap()).powi(2)).sum::<f64>().sqrt()
}

/// Seven images of 30 pixels in 4 classes; every fifth pixel is black in all of them.
pub fn striped_batch(salt: usize) -> Batch {
    let pixel = |i: usize| if i % 30 % 5 == 4 { 0 } else { (((i + salt) * 2_654_435_761) >> 9) as u8 };
    Batch { images: (0..7 * 30).map(pixel).collect(), labels: (0..7).map(|i| (i % 4) as u8).collect() }
}
