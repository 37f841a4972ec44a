//! Sizes no machine has, files that never end, and values that are not what they seem: refused at once with a
//! message, before anything is allocated for them.

mod common;

use common::Place;
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Runs the program, which must fail with `status`, not hang, and print a message that contains all of `words` and no
/// control characters.
fn refused(place: &Place, arguments: &[&str], environment: &[(&str, &str)], status: i32, words: &[&str]) {
    let mut command = place.eqprop();
    command.args(arguments).envs(environment.iter().copied()).env("RUST_BACKTRACE", "1");
    let output = command.timeout(Duration::from_secs(300)).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?} {environment:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?} {environment:?} should mention {word:?}: {said}");
    }
    assert!(!said.contains("panicked") && !said.contains("   0: "), "{said}");
    assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "{said:?}");
}

#[test]
fn impossible_sizes_are_refused_with_their_bounds() {
    let place = Place::new();
    let huge = i64::MAX.to_string();
    for (key, value, bound) in [
        ("training.batch_size", "2147483648", "65536"),
        ("training.epochs", &huge, "1000000"),
        ("training.keep_checkpoints", &huge, "1000000"),
        ("training.angle_minibatches", &huge, "10000"),
        ("settle.steps", &huge, "100000"),
        ("learning.K", &huge, "100000"),
        ("network.dims", "[64, 9223372036854775807, 4]", "1000000 neurons"),
        ("network.dims", "[64, 1000000, 1000000, 4]", "weights and biases"),
    ] {
        let setting = format!("{key}={value}");
        let mut arguments = vec!["train", "--algo", "ep", "--data-dir", "data", "--set", &setting];
        if value.contains("1000000, 1000000") {
            arguments.extend(["--set", "learning.learning_rates=[0.1, 0.1, 0.1]"]);
        }
        refused(&place, &arguments, &[], 2, &[key, "--set", bound]);
    }
    let most = u64::MAX.to_string();
    refused(&place, &["config", "--algo", "ep", "--depth", &most], &[], 2, &["depth", "100"]);
    refused(&place, &["toy", "--first-steps", &most], &[], 2, &["--first-steps", "1000000"]);
    refused(&place, &["toy", "--second-steps", &most], &[], 2, &["--second-steps", "1000"]);
    refused(&place, &["toy", "--theta", "nan"], &[], 2, &["--theta", "finite"]);
    refused(&place, &["angle", "--algo", "ep", "--batches", &most], &[], 2, &["--batches", "10000"]);
    refused(&place, &["bench", "--algo", "ep", "--minibatches", &most], &[], 2, &["--minibatches"]);
    for threads in ["0", &most] {
        refused(&place, &["train", "--algo", "ep", "--threads", threads], &[], 2, &["--threads", "1024"]);
    }
    let gdd =
        ["gdd", "--algo", "ep", "--data-dir", "data", "--set", "network.dims=[64, 24, 4]", "--out", "g"];
    refused(&place, &[&gdd[..], &["--index", &most]].concat(), &[], 2, &["--index", "230 training images"]);
    assert!(!place.path("runs").exists() && !place.path("g").exists());
}

#[test]
fn limits_beyond_the_data_are_no_limits() {
    let place = Place::new();
    let limit = format!("training.limit_train={}", i64::MAX);
    place.eqprop().args(place.small_run("ep", &["--epochs", "1", "--set", &limit])).assert().success();
}

#[test]
fn a_sweep_of_too_many_runs_is_refused() {
    let place = Place::new();
    let list: Vec<String> = (1..=10_000).map(|i| i.to_string()).collect();
    let list = list.join(", ");
    let text = format!(
        "title = 't'\ngrid.training.seed = [{list}]\n[[rows]]\nconfig = 'ep-1h'\ngrid.settle.steps = [{list}]\ngrid.learning.K = [{list}]\n"
    );
    fs::write(place.path("s.toml"), text).unwrap();
    let arguments = ["sweep", "--config", "s.toml", "--data-dir", "data", "--dry-run"];
    refused(&place, &arguments, &[], 2, &["s.toml", "1000000000000 runs", "at most 100000"]);
    for workers in ["0", &u64::MAX.to_string()] {
        refused(&place, &[&arguments[..], &["--workers", workers]].concat(), &[], 2, &["--workers", "1024"]);
    }
    fs::write(place.path("s.toml"), format!("title = 't'\n[[rows]]\nalgo = 'ep'\ndepth = {}\n", i64::MAX))
        .unwrap();
    refused(&place, &arguments, &[], 2, &["s.toml row 1", "depth"]);
}

#[test]
fn more_memory_than_there_is_is_not_asked_for() {
    let place = Place::new();
    let dims = ["--set", "network.dims=[64, 1000000, 1000, 4]", "--set", "training.batch_size=65536"];
    let rates = ["--set", "learning.learning_rates=[0.1, 0.1, 0.1]", "--dry-run"];
    let arguments = [&["train", "--algo", "ep", "--data-dir", "data"][..], &dims, &rates].concat();
    refused(&place, &arguments, &[], 1, &["network.dims", "training.batch_size", "GiB"]);
    // The memory of synapses counts: for 1,065,005,004 weights and biases three times 4 bytes more.
    let needed = |more: &[&str]| {
        let said = place.eqprop().args(&arguments).args(more).output().unwrap().stderr;
        let said = String::from_utf8(said).unwrap();
        let (_, after) = said.split_once("needs ").unwrap_or_else(|| panic!("{said}"));
        after.split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let more = needed(&["--set", "synapse.law=momentum"]) - needed(&[]);
    assert!((more - 11.9).abs() < 0.15, "{more}");
}

/// Makes a pipe.
fn pipe(place: &Place, name: &str) {
    let path = CString::new(place.path(name).as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is a string that ends in zero.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

/// Calls `look` twice: with a pipe in the place of a file, and with a link to a device that never ends.
fn with_what_never_ends(place: &Place, file: &str, look: impl Fn()) {
    let (there, kept) = (place.path(file), place.path("kept"));
    if there.exists() {
        fs::rename(&there, &kept).unwrap();
    }
    for device in [false, true] {
        match device {
            false => pipe(place, file),
            true => std::os::unix::fs::symlink("/dev/zero", &there).unwrap(),
        }
        look();
        fs::remove_file(&there).unwrap();
    }
    if kept.exists() {
        fs::rename(&kept, &there).unwrap();
    }
}

#[test]
fn what_a_run_leaves_is_no_pipe_and_no_device() {
    let place = Place::new();
    let first = ["--epochs", "1", "--name", "r-data"];
    place.eqprop().args(place.small_run("ep", &first)).assert().success();
    let on = place.small_run("ep", &["--epochs", "2", "--name", "r-data", "--resume", "auto"]);
    for file in ["environment.json", "metrics.jsonl", "sessions.jsonl", "config.toml"] {
        with_what_never_ends(&place, &format!("runs/r-data/{file}"), || {
            refused(&place, &on, &[], 1, &[file, "regular file"]);
            // Commands that only read need the metrics alone, and report what else they miss.
            let says = ["metrics.jsonl", "config.toml"].contains(&file);
            let words: &[&str] = if says { &[file, "regular file"] } else { &[] };
            for command in ["inspect", "compare"] {
                let status = i32::from(file == "metrics.jsonl");
                refused(&place, &[command, "r-data"], &[("EQPROP_DATA", "data")], status, words);
            }
            // This one says where the data are.
            if file == "environment.json" {
                let nobody = [("HF_ENDPOINT", "http://127.0.0.1:9"), ("HF_HOME", "nowhere")];
                refused(&place, &["inspect", "r-data"], &nobody, 1, &[file, "regular file"]);
            }
        });
    }
    with_what_never_ends(&place, "checkpoints/r-data/last.safetensors", || {
        let mut going_on = place.eqprop();
        let output =
            going_on.args(&on[..]).arg("--dry-run").timeout(Duration::from_secs(100)).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("last.safetensors is no regular file"), "{said}");
    });
    place.eqprop().args(&on).assert().success();
    fs::create_dir_all(place.path("set")).unwrap();
    with_what_never_ends(&place, "set/set.npz", || {
        refused(
            &place,
            &["train", "--algo", "ep", "--data-dir", "set"],
            &[],
            1,
            &["set.npz", "regular file"],
        );
    });
    fs::create_dir_all(place.path("t")).unwrap();
    let tune =
        ["tune", "--algo", "ep", "--data-dir", "data", "--out", "t", "--set", "network.dims=[64, 24, 4]"];
    with_what_never_ends(&place, "t/tune.jsonl", || {
        refused(&place, &tune, &[], 1, &["tune.jsonl", "regular file"]);
    });
}

#[test]
fn what_a_sweep_leaves_is_no_pipe_and_no_device() {
    let place = Place::new();
    fs::write(
        place.path("s.toml"),
        "title = 's'\nset.network.dims = [64, 24, 4]\nset.training.epochs = 1\n[[rows]]\nconfig = 'ep-1h'\n",
    )
    .unwrap();
    let sweep = ["sweep", "--config", "s.toml", "--out", "s", "--data-dir", "data", "--workers", "1"];
    place.eqprop().args(sweep).assert().success();
    let run = "ep-1h-data-seed0";
    with_what_never_ends(&place, "s/plan.json", || {
        refused(&place, &sweep, &[], 1, &["plan.json", "regular file"]);
        refused(&place, &["report", "s"], &[], 1, &["plan.json", "regular file"]);
    });
    with_what_never_ends(&place, &format!("s/failed/{run}"), || {
        refused(&place, &[&sweep[..], &["--dry-run"]].concat(), &[], 1, &["failed", "regular file"]);
    });
    for file in ["metrics.jsonl", "environment.json"] {
        with_what_never_ends(&place, &format!("s/runs/{run}/{file}"), || {
            let output =
                place.eqprop().args(["report", "s"]).timeout(Duration::from_secs(100)).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.code().is_some() && said.contains(file) && said.contains("regular file"),
                "{said}"
            );
        });
    }
}

/// Runs the program with at most so many KiB of address space.
fn within(place: &Place, kib: u64, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = assert_cmd::Command::new("sh");
    let limited = format!("ulimit -v {kib}; exec \"$0\" \"$@\"");
    command.args(["-c", &limited]).arg(place.process().get_program()).args(arguments);
    command.current_dir(place.dir.path()).env("RAYON_NUM_THREADS", "1").env("RUST_BACKTRACE", "1");
    let output = command.timeout(Duration::from_secs(300)).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Makes a file of that length, whose end takes no room on the disk.
fn stretch(place: &Place, file: &str, bytes: u64) {
    File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .open(place.path(file))
        .unwrap()
        .set_len(bytes)
        .unwrap();
}

#[test]
fn files_larger_than_memory_take_none() {
    let place = Place::new();
    place.eqprop().args(place.small_run("ep", &["--epochs", "1", "--name", "r-data"])).assert().success();
    let good = fs::read(place.path("checkpoints/r-data/last.safetensors")).unwrap();
    let gib = 1 << 20;
    // Zeros behind the lines of a run are a line that was cut short.
    stretch(&place, "runs/r-data/metrics.jsonl", 3 << 29);
    let on = place.small_run("ep", &["--epochs", "2", "--name", "r-data", "--resume", "auto"]);
    let (status, said) = within(&place, gib, &on);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(place.read("runs/r-data/metrics.jsonl").lines().count(), 3);
    let on = place.small_run("ep", &["--epochs", "3", "--name", "r-data", "--resume", "auto"]);
    for file in ["environment.json", "sessions.jsonl", "config.toml"] {
        let file = format!("runs/r-data/{file}");
        let kept = fs::read(place.path(&file)).unwrap();
        stretch(&place, &file, 3 << 29);
        let (status, said) = within(&place, gib, &on);
        assert!(status == Some(1) && said.contains(&file) && said.contains("1610612736 bytes"), "{said}");
        fs::write(place.path(&file), kept).unwrap();
    }
    // A tensor of 4 GiB that no network needs, in a file of before there were checksums.
    let length = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&good[8..8 + length]).unwrap();
    let metadata = header["__metadata__"]["eqprop"].as_str().unwrap().replacen("checksum", "unknown_", 1);
    header["__metadata__"]["eqprop"] = metadata.into();
    let data = &good[8 + length..];
    let (begin, end) = (data.len(), data.len() + (4 << 30));
    header["extra"] = serde_json::json!({ "dtype": "F32", "shape": [1 << 30], "data_offsets": [begin, end] });
    let mut header = header.to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    fs::write(
        place.path("big.safetensors"),
        [&(header.len() as u64).to_le_bytes()[..], &header, data].concat(),
    )
    .unwrap();
    stretch(&place, "big.safetensors", (8 + header.len() + end) as u64);
    let eval = ["eval", "--checkpoint", "big.safetensors", "--data-dir", "data", "--threads", "1"];
    let (status, said) = within(&place, gib, &eval);
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn a_set_has_so_many_pixels_in_all() {
    let place = Place::new();
    // Each part alone is possible, and both together are more than is read.
    for part in ["train", "t10k"] {
        let images = format!("data/{part}-images-idx3-ubyte");
        let mut header = vec![0, 0, 8, 3];
        [1u32, 20480, 20480].iter().for_each(|size| header.extend(size.to_be_bytes()));
        header.extend([0, 255, 128, 7]);
        fs::write(place.path(&images), header).unwrap();
        stretch(&place, &images, 16 + 20480 * 20480);
        fs::write(place.path(&format!("data/{part}-labels-idx1-ubyte")), [0, 0, 8, 1, 0, 0, 0, 1, 0])
            .unwrap();
    }
    let dry = [
        "train",
        "--algo",
        "ep",
        "--set",
        "network.dims=['auto', 4, 'auto']",
        "--data-dir",
        "data",
        "--dry-run",
    ];
    refused(&place, &dry, &[], 1, &["t10k-images-idx3-ubyte", "pixels that are read at most of a set"]);
}

#[test]
fn limits_of_memory_are_seen_and_its_end_is_a_sentence() {
    let place = Place::new();
    let run = ["train", "--algo", "ep", "--data-dir", "data", "--dry-run", "--threads", "1", "--set"];
    let (status, said) = within(&place, 2 << 20, &[&run[..], &["network.dims=[64, 3000000, 4]"]].concat());
    assert!(status == Some(2), "{said}");
    let wide = ["network.dims=[64, 990000, 4]", "--set", "training.batch_size=200"];
    let (status, said) = within(&place, 2 << 20, &[&run[..], &wide].concat());
    assert!(status == Some(1) && said.contains("network.dims") && said.contains("by ulimit -v"), "{said}");
    // The data that are read take memory as well.
    let images = "data/train-images-idx3-ubyte";
    let mut header = vec![0, 0, 8, 3];
    [1u32, 20480, 20480].iter().for_each(|size| header.extend(size.to_be_bytes()));
    fs::write(place.path(images), header).unwrap();
    stretch(&place, images, 16 + 20480 * 20480);
    fs::write(place.path("data/train-labels-idx1-ubyte"), [0, 0, 8, 1, 0, 0, 0, 1, 0]).unwrap();
    let (status, said) = within(&place, 500 << 10, &[&run[..], &["network.dims=[64, 24, 4]"]].concat());
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("eqprop: out of memory: ") && said.lines().count() < 4, "{said}");
}

#[test]
fn pipes_and_devices_are_refused_instead_of_waited_for() {
    let place = Place::new();
    place.eqprop().args(place.small_run("ep", &["--epochs", "1", "--name", "r-data"])).assert().success();
    pipe(&place, "pipe");
    for file in ["pipe", "/dev/zero"] {
        let what = [file, "regular file"];
        refused(&place, &["eval", "--checkpoint", file, "--data-dir", "data"], &[], 1, &what);
        refused(&place, &["train", "--resume", file, "--data-dir", "data"], &[], 1, &what);
        refused(&place, &place.small_run("ep", &["--init", file]), &[], 1, &what);
        refused(&place, &["config", "--config", file], &[], 1, &what);
        refused(&place, &["sweep", "--config", file, "--out", "s", "--dry-run"], &[], 1, &what);
    }
    fs::remove_file(place.path("data/train-labels-idx1-ubyte")).unwrap();
    pipe(&place, "data/train-labels-idx1-ubyte");
    refused(
        &place,
        &place.small_run("ep", &["--dry-run"]),
        &[],
        1,
        &["train-labels-idx1-ubyte", "regular file"],
    );
}

#[test]
fn a_checkpoint_is_as_large_as_its_header_says() {
    let place = Place::new();
    place.eqprop().args(place.small_run("ep", &["--epochs", "1", "--name", "r-data"])).assert().success();
    let good = fs::read(place.path("checkpoints/r-data/last.safetensors")).unwrap();
    // As a checkpoint of before there were checksums.
    let at = good.windows(8).position(|bytes| bytes == b"checksum").unwrap();
    let good = [&good[..at], b"unknown_", &good[at + 8..]].concat();
    let eval = ["eval", "--checkpoint", "bad.safetensors", "--data-dir", "data"];
    // A terabyte of nothing behind it, and headers that claim more than there is.
    fs::write(place.path("bad.safetensors"), &good).unwrap();
    File::options().write(true).open(place.path("bad.safetensors")).unwrap().set_len(1 << 40).unwrap();
    refused(&place, &eval, &[], 1, &["bad.safetensors", "1099511627776 bytes"]);
    File::options().write(true).open(place.path("bad.safetensors")).unwrap().set_len(1 << 32).unwrap();
    refused(&place, &eval, &[], 1, &["bad.safetensors", "4294967296 bytes"]);
    fs::write(place.path("bad.safetensors"), [&u64::MAX.to_le_bytes()[..], &good[8..]].concat()).unwrap();
    refused(&place, &eval, &[], 1, &["bad.safetensors", "header"]);
    // A metadata that no run has written: sizes without a hidden layer, and a name that leaves the folder.
    for (from, to, word) in [
        ("[64,24,4]", "[64]     ", "network.dims"),
        (r#"\"run\":\"r-data\""#, r#"\"run\":\"../../\""#, "cannot name a run"),
        (r#"\"K\":10"#, r#"\"K\":-1"#, "learning.K"),
    ] {
        let header = String::from_utf8_lossy(&good[8..]).into_owned();
        assert!(header.contains(from), "{header}");
        let at = header.find(from).unwrap() + 8;
        let bytes = [&good[..at], to.as_bytes(), &good[at + from.len()..]].concat();
        fs::write(place.path("bad.safetensors"), bytes).unwrap();
        refused(&place, &eval, &[], 1, &["bad.safetensors", word]);
    }
}

#[test]
fn what_a_data_header_claims_is_not_read_on_its_word() {
    let place = Place::new();
    // Two gigabytes of zeros in two megabytes, as labels of images that are not there.
    let path = place.path("data/train-labels-idx1-ubyte.gz");
    let mut gz = flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
    gz.write_all(&[0, 0, 8, 1, 0xff, 0xff, 0xff, 0xff]).unwrap();
    let zeros = vec![0; 1 << 20]; // Not an array, which unoptimized code would put on the stack of the test.
    for _ in 0..2048 {
        gz.write_all(&zeros).unwrap();
    }
    gz.finish().unwrap();
    fs::remove_file(place.path("data/train-labels-idx1-ubyte")).unwrap();
    let dry = place.small_run("ep", &["--dry-run"]);
    refused(&place, &dry, &[], 1, &["train-labels-idx1-ubyte.gz", "4294967295"]);
    // A size that could be, behind which more follows: read no further than that.
    let mut bytes = vec![0, 0, 8, 1];
    bytes.extend(230u32.to_be_bytes());
    bytes.extend(&zeros);
    fs::remove_file(&path).unwrap();
    fs::write(place.path("data/train-labels-idx1-ubyte"), bytes).unwrap();
    refused(&place, &dry, &[], 1, &["train-labels-idx1-ubyte", "more bytes follow"]);
}

#[test]
fn names_and_values_with_control_characters_are_refused() {
    let place = Place::new();
    for name in ["a\nb", "a\x1b[31mb", "-x", "..", ""] {
        let arguments = place.small_run("ep", &["--name", name]);
        let status = place.eqprop().args(arguments).arg("--dry-run").output().unwrap().status;
        assert_eq!(status.code(), Some(2), "{name:?}");
    }
    refused(&place, &place.small_run("ep", &["--name", "a\nb"]), &[], 2, &["--name", r"a\nb"]);
    fs::write(place.path("s.toml"), "title = 't'\n[[rows]]\nconfig = 'ep-1h'\nlabel = \"a\\nb\"\n").unwrap();
    refused(&place, &["sweep", "--config", "s.toml", "--dry-run"], &[], 2, &["s.toml row 1", "label"]);
    fs::rename(place.path("data"), place.path("da\nta")).unwrap();
    let folder = ["train", "--algo", "ep", "--data-dir", "da\nta", "--dry-run"];
    refused(&place, &folder, &[], 2, &["data folder", r"da\nta"]);

    let config = ["config", "--algo", "ep"];
    let set = |setting: &'static str| [&config[..], &["--set", setting]].concat();
    refused(&place, &set("learning.beta=0.1\nx=1"), &[], 2, &["--set learning.beta", "control characters"]);
    refused(&place, &set("learning.b\x1b[31m=1"), &[], 2, &["unknown key", r"\u{1b}"]);
    refused(&place, &["config", "--al\x1b[31mgo"], &[], 2, &["unexpected argument"]);
    for (variable, value, word) in [
        ("EQPROP_LEARNING_BETA", "0.1\nx = 1", "control characters"),
        ("EQPROP_LEARNING_BETA", "big", "learning.beta"),
        ("EQPROP_LEARNING_BETA", "", "learning.beta"),
        ("EQPROP_LEARNING_T", "0", "at least 1"),
        ("EQPROP_EQPROP_LEARNING_BETA", "0.1", "names no key"),
        ("EQPROP_learning_beta", "0.1", "names no key"),
        ("EQPROP_LOG", "=,=", "filter"),
    ] {
        refused(&place, &config, &[(variable, value)], 2, &[variable, word]);
    }
    let mut command = place.eqprop();
    let output =
        command.args(config).env("EQPROP_LEARNING_BETA", OsStr::from_bytes(b"0.1\xff")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("EQPROP_LEARNING_BETA"));
    refused(
        &place,
        &["train", "--algo", "ep", "--dry-run"],
        &[("EQPROP_DATA", "nosuch")],
        1,
        &["EQPROP_DATA", "nosuch"],
    );
    fs::write(place.path("c.toml"), "[network]\ndims = [64, 24, 4]\n").unwrap();
    refused(&place, &["config", "--config", "c.toml"], &[], 2, &["c.toml", "learning.rule", "not set"]);
}

#[test]
fn a_dry_run_counts_what_synapses_remember() {
    let place = Place::new();
    let outline = |more: &[&str]| {
        let output = place.eqprop().args(place.small_run("ep", more)).arg("--dry-run").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let wide = ["--set", "training.dtype=f64", "--set", "network.dims=[64, 2400, 4]"];
    let momentum = ["--set", "synapse.law=momentum"];
    // 2400 · (64 + 1) + 4 · (2400 + 1) = 165,604 numbers of 8 bytes are 1.3 MB.
    assert!(
        outline(&wide).contains("165604 parameters, 1.3 MB per checkpoint, 7 MB for 5"),
        "{}",
        outline(&wide)
    );
    let both = outline(&[&wide[..], &momentum].concat());
    assert!(
        both.contains("165604 parameters with a velocity each, 2.6 MB per checkpoint, 13 MB for 5"),
        "{both}"
    );
}
