//! Good inputs, and mutations of them: bits flipped, pieces lost, doubled or moved, numbers made absurd.

use crate::common::Place;
use flate2::{Compression, write::GzEncoder};
use std::ffi::OsString;
use std::fs;
use std::io::{Cursor, Write};
use std::os::unix::ffi::OsStringExt;
use std::process::Command;
use zip::CompressionMethod::{Deflated, Stored};
use zip::write::{SimpleFileOptions, ZipWriter};

/// Random numbers that do not depend on a library, so that an input is known by its number.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most.max(1)
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Numbers and words that programs stumble over.
const ABSURD: [&str; 24] = [
    "0",
    "-1",
    "1",
    "255",
    "256",
    "65536",
    "2147483648",
    "4294967295",
    "9223372036854775807",
    "18446744073709551615",
    "99999999999999999999999",
    "1e308",
    "1e999",
    "-1e999",
    "nan",
    "inf",
    "1e-320",
    "0.1",
    "[]",
    "{}",
    "null",
    "\"\"",
    "\"\u{1b}[2J\"",
    "[9223372036854775807, 1, 2]",
];

/// Every byte counts: turned bits, lost and doubled pieces.
fn mutate_bytes(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        let length = bytes.len() as u64;
        // Headers are near the beginning, with most of what can go wrong.
        let reach = if dice.below(2) == 0 { length.min(64) } else { length };
        let at = dice.below(reach) as usize;
        let some = dice.below(64) as usize;
        match dice.below(7) {
            _ if bytes.is_empty() => bytes.extend([0; 8]),
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at] = dice.pick(&[&0, &1, &0x7f, &0x80, &0xff, &b'"', &b'['][..]).to_owned(),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..(at + some).min(length as usize))),
            4 => {
                let piece = bytes[at..(at + some).min(length as usize)].to_vec();
                bytes.splice(at..at, piece);
            }
            5 => bytes.extend(std::iter::repeat_n(0, 1 << dice.below(20))),
            _ => {
                let end = (at + 8).min(length as usize);
                bytes[at..end].fill(0xff);
            }
        }
    }
}

/// Text keeps its grammar more often: numbers and words are replaced.
fn mutate_text(text: &str, dice: &mut Dice) -> Vec<u8> {
    let mut text = text.to_string();
    for _ in 0..=dice.below(3) {
        let starts: Vec<usize> = (text.char_indices())
            .filter(|(at, c)| {
                let before = text[..*at].chars().next_back();
                c.is_ascii_digit() && !before.is_some_and(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
            })
            .map(|(at, _)| at)
            .collect();
        let lists: Vec<usize> = text.match_indices('[').map(|(at, _)| at).collect();
        if !lists.is_empty() && dice.below(4) == 0 {
            let start = lists[dice.below(lists.len() as u64) as usize];
            let end = text[start..].find(']').map_or(text.len(), |length| start + length + 1);
            text.replace_range(start..end, dice.pick(&["[]", "[1]", "[64]", "[4, 4]", "[64, 0, 4]", "7"]));
            continue;
        }
        if starts.is_empty() {
            break;
        }
        let start = starts[dice.below(starts.len() as u64) as usize];
        let number = text[start..].find(|c: char| !(c.is_ascii_alphanumeric() || ".-".contains(c)));
        let end = number.map_or(text.len(), |length| start + length);
        text.replace_range(start..end, dice.pick(&ABSURD));
    }
    let mut bytes = text.into_bytes();
    if dice.below(3) == 0 {
        mutate_bytes(&mut bytes, dice);
    }
    bytes
}

const DATA: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// The names of the four arrays in an .npz.
const ARRAYS: [&str; 4] = ["x_train", "y_train", "x_test", "y_test"];

const SWEEP: &str = "title = 't'\nset.training.epochs = 2\ngrid.training.seed = [0, 1]\n[[rows]]\nconfig = 'cvf-1h'\n\
    set.network.dims = [64, 24, 4]\ngrid.network.psi = [0, 45.5]\n[[rows]]\nalgo = 'ep'\ndepth = 2\nlabel = 'x'\n";

/// Commands whose last flag takes a number.
const FLAGS: [&str; 14] = [
    "config --algo cvf --depth",
    "config --algo cvf --psi",
    "config --algo cvf --epochs",
    "config --algo cvf --seed",
    "config --algo cvf --limit-train",
    "toy --first-steps",
    "toy --second-steps",
    "toy --theta",
    "toy --beta",
    "angle --algo ep --data-dir nosuch --batches",
    "bench --algo ep --data-dir nosuch --minibatches",
    "gdd --algo ep --data-dir data --set network.dims=[64,24,4] --out g --index",
    "eval --checkpoint checkpoints/r-data/last.safetensors --data-dir data --threads",
    "sweep --config nosuch.toml --workers",
];

/// The inputs before they are spoilt.
pub struct Good {
    data: Vec<Vec<u8>>,
    checkpoint: Vec<u8>,
    config: String,
    /// Labels: a header that claims 2³² − 1, and more zeros than memory should hold, in a few megabytes.
    bomb: Vec<u8>,
}

impl Good {
    pub fn read(place: &Place) -> Self {
        let data = DATA.iter().map(|name| fs::read(place.path(&format!("data/{name}"))).unwrap()).collect();
        let checkpoint = fs::read(place.path("checkpoints/r-data/last.safetensors")).unwrap();
        let config = place.read("runs/r-data/config.toml");
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        gz.write_all(&[0, 0, 8, 1, 0xff, 0xff, 0xff, 0xff]).unwrap();
        let nothing = vec![0; 1 << 20];
        (0..1200).for_each(|_| gz.write_all(&nothing).unwrap());
        Self { data, checkpoint, config, bomb: gz.finish().unwrap() }
    }

    /// Puts the data back.
    pub fn restore(&self, place: &Place) {
        for (name, bytes) in DATA.iter().zip(&self.data) {
            fs::write(place.path(&format!("data/{name}")), bytes).unwrap();
            fs::remove_file(place.path(&format!("data/{name}.gz"))).ok();
        }
    }

    /// Spoils one input and prepares the command that reads it. Returns a description of the damage.
    pub fn spoil(&self, number: usize, dice: &mut Dice, place: &Place, command: &mut Command) -> String {
        let write = |name: &str, bytes: &[u8]| fs::write(place.path(name), bytes).unwrap();
        let which = dice.below(4) as usize;
        let file = format!("data/{}", DATA[which]);
        match number % 8 {
            0 => {
                let mut bytes = self.data[which].clone();
                mutate_bytes(&mut bytes, dice);
                write(&file, &bytes);
                command.args(place.small_run("ep", &["--dry-run", "--name", "t"]));
                file
            }
            1 => {
                let mut inside = self.data[which].clone();
                if dice.below(2) == 0 {
                    mutate_bytes(&mut inside, dice);
                }
                let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
                gz.write_all(&inside).unwrap();
                let mut bytes = gz.finish().unwrap();
                if which == 1 && dice.below(4) == 0 {
                    bytes = self.bomb.clone();
                } else if dice.below(2) == 0 {
                    mutate_bytes(&mut bytes, dice);
                }
                fs::remove_file(place.path(&file)).unwrap();
                write(&format!("{file}.gz"), &bytes);
                command.args(place.small_run("ep", &["--dry-run", "--name", "t"]));
                format!("{file}.gz")
            }
            2 => {
                write("bad.safetensors", &self.spoilt_checkpoint(dice));
                let resume = ["train", "--resume", "bad.safetensors", "--epochs", "2", "--dry-run"];
                let init = place.small_run("cvf", &["--init", "bad.safetensors", "--dry-run", "--name", "t"]);
                match dice.below(3) {
                    0 => command.args(["eval", "--checkpoint", "bad.safetensors"]),
                    1 => command.args(resume),
                    _ => command.args(init),
                };
                if command.get_args().all(|argument| argument != "--data-dir") {
                    command.args(["--data-dir", "data"]);
                }
                "bad.safetensors".into()
            }
            3 => {
                write("bad.toml", &mutate_text(&self.config, dice));
                // Any sizes of a network that fit into memory would be valid, and are not tried here.
                command.args(["config", "--config", "bad.toml"]);
                "bad.toml".into()
            }
            4 => {
                let (command_and_flag, value) = (dice.pick(&FLAGS), dice.pick(&ABSURD));
                command.args(command_and_flag.split(' ')).arg(value);
                format!("{command_and_flag} {value}")
            }
            5 => {
                let names = [
                    "LEARNING_BETA",
                    "LEARNING_T",
                    "NETWORK_DIMS",
                    "TRAINING_SEED",
                    "TRAINING_DATA",
                    "LOG",
                    "DATA",
                ];
                let name = names[dice.below(names.len() as u64) as usize];
                let mut name = format!("EQPROP_{name}").into_bytes();
                if dice.below(4) == 0 {
                    mutate_bytes(&mut name, dice);
                }
                let mut value = mutate_text("[64, 24, 4]", dice);
                if dice.below(2) == 0 {
                    value = dice.pick(&ABSURD).into();
                }
                // The system takes neither zeros in them, nor a name without a name.
                name.retain(|&byte| byte != 0 && byte != b'=');
                value.retain(|&byte| byte != 0);
                name.truncate(1000);
                value.truncate(10_000);
                if name.is_empty() {
                    name.push(b'X');
                }
                let words =
                    format!("{:?}={:?}", String::from_utf8_lossy(&name), String::from_utf8_lossy(&value));
                command.args(["config", "--algo", "cvf"]);
                command.env(OsString::from_vec(name), OsString::from_vec(value));
                words
            }
            6 => {
                write("bad.npz", &self.spoilt_archive(which, dice));
                let on_data = place.small_run("ep", &["--dry-run", "--name", "t"]);
                command.args(on_data.into_iter().map(|word| if word == "data" { "bad.npz" } else { word }));
                "bad.npz".into()
            }
            _ => {
                write("bad-sweep.toml", &mutate_text(SWEEP, dice));
                // Without a data set of the right size a sweep ends before it measures how long runs take.
                command.args([
                    "sweep",
                    "--config",
                    "bad-sweep.toml",
                    "--data-dir",
                    "nosuch",
                    "--dry-run",
                    "--out",
                    "s",
                ]);
                "bad-sweep.toml".into()
            }
        }
    }

    /// Damage in the header or anywhere in one of its arrays, so that the archive's directory stays right, or
    /// anywhere.
    fn spoilt_archive(&self, which: usize, dice: &mut Dice) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let packing = if dice.below(2) == 0 { Stored } else { Deflated };
        let everywhere = dice.below(2) == 0;
        for (i, (name, idx)) in ARRAYS.iter().zip(&self.data).enumerate() {
            let dimensions = usize::from(idx[3]);
            let sizes = idx[4..][..4 * dimensions].chunks_exact(4);
            let shape: String =
                sizes.map(|size| format!("{}, ", u32::from_be_bytes(size.try_into().unwrap()))).collect();
            let mut header =
                format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({shape}), }}").into_bytes();
            if i == which && !everywhere && dice.below(2) == 0 {
                header = mutate_text(&String::from_utf8(header).unwrap(), dice);
            }
            let length = (header.len() as u16).to_le_bytes();
            let mut array = [b"\x93NUMPY\x01\0", &length[..], &header, &idx[4 + 4 * dimensions..]].concat();
            if i == which && !everywhere && dice.below(2) == 0 {
                mutate_bytes(&mut array, dice);
            }
            let options = SimpleFileOptions::default().compression_method(packing);
            zip.start_file(format!("{name}.npy"), options).unwrap();
            zip.write_all(&array).unwrap();
        }
        let mut bytes = zip.finish().unwrap().into_inner();
        if everywhere {
            mutate_bytes(&mut bytes, dice);
        }
        bytes
    }

    /// Damage anywhere in its bytes, or in the metadata so that its JSON and lengths stay right.
    fn spoilt_checkpoint(&self, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.checkpoint.clone();
        if dice.below(2) == 0 {
            mutate_bytes(&mut bytes, dice);
            return bytes;
        }
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let text = header["__metadata__"]["eqprop"].as_str().unwrap().to_string();
        header["__metadata__"]["eqprop"] = String::from_utf8_lossy(&mutate_text(&text, dice)).into();
        let mut header = header.to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        [&(header.len() as u64).to_le_bytes()[..], &header, &bytes[8 + length..]].concat()
    }
}
