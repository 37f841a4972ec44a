//! A dry run uses no network: everything it needs about a set that is not here is known without it.
#![cfg(feature = "hub")]

mod common;

use common::Place;
use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;

/// A hub that must not be asked.
struct Hub(TcpListener);

impl Hub {
    fn new() -> Self {
        let hub = TcpListener::bind("127.0.0.1:0").unwrap();
        hub.set_nonblocking(true).unwrap();
        Self(hub)
    }

    /// Status, stdout and stderr of a command, during which the hub has not been asked.
    fn unasked(&self, place: &Place, arguments: &[&str]) -> (i32, String, String) {
        let address = format!("http://{}", self.0.local_addr().unwrap());
        let mut command = place.eqprop();
        command.args(arguments).envs([("HF_ENDPOINT", address.as_str()), ("HF_HOME", "nowhere")]);
        let output = command.output().unwrap();
        let asked = self.0.accept().map_err(|error| error.kind());
        assert_eq!(asked.err(), Some(ErrorKind::WouldBlock), "{arguments:?} has asked the hub");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

#[test]
fn a_dry_run_of_training_says_what_would_be_downloaded_and_asks_nobody() {
    let (hub, place) = (Hub::new(), Place::new());
    // 60,000 images are 3000 minibatches of 20 in each of the preset's 30 epochs.
    for (data, name, run) in [
        ("auto", "mnist", "ep-1h-seed0"),
        ("mnist", "mnist", "ep-1h-seed0"),
        ("fashion-mnist", "fashion-mnist", "ep-1h-fashion-mnist-seed0"),
    ] {
        let dry = ["train", "--algo", "ep", "--threads", "1", "--data", data, "--dry-run"];
        let (status, shown, said) = hub.unasked(&place, &dry);
        assert_eq!(status, 0, "{said}");
        assert!(said.contains(&format!("{name} would be downloaded from the Hugging Face hub")), "{said}");
        assert!(said.contains("60000 training and 10000 test images"), "{said}");
        assert_eq!(said.contains("glyphs"), data == "auto", "{said}");
        assert!(shown.starts_with(&format!("run {run} on {name} ")), "{shown}");
        assert!(shown.contains("90000 minibatches of 20 images in 30 epochs"), "{shown}");
    }
    let open = ["--set", r#"network.dims=["auto", 512, "auto"]"#, "--set", "training.validation=5000"];
    let dry = [&["train", "--algo", "ep", "--data", "mnist", "--dry-run"], &open[..]].concat();
    let (status, shown, said) = hub.unasked(&place, &dry);
    assert_eq!(status, 0, "{said}");
    assert!(shown.contains("  10 × 512 ") && shown.contains(" 512 × 784 "), "{shown}");
    assert!(shown.contains("55000 training images, and 5000 of them held out"), "{shown}");
    // A network that the set would not fit.
    let dry = ["train", "--algo", "ep", "--data", "mnist", "--dry-run", "--set", "network.dims=[64, 24, 4]"];
    let (status, _, said) = hub.unasked(&place, &dry);
    assert_eq!((status, said.contains("images have 784 pixels")), (1, true), "{said}");
    assert!(!place.path("runs").exists() && !place.path("nowhere").exists());
}

#[test]
fn a_dry_run_of_going_on_asks_nobody() {
    let (hub, place) = (Hub::new(), Place::new());
    // A run on what its checkpoint calls MNIST, and is not here.
    let glyphs = ["train", "--algo", "ep", "--threads", "1", "--data", "glyphs", "--limit-train", "200"];
    let limits = ["--limit-test", "20", "--epochs", "1", "--name", "r", "--set", "network.dims=[784, 8, 10]"];
    place.eqprop().args([&glyphs[..], &limits].concat()).assert().success();
    let last = "checkpoints/r-glyphs/last.safetensors";
    // Of the same length, so that the header stays as long.
    let bytes = fs::read(place.path(last)).unwrap();
    let text = bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
    // Without a checksum, as before there were any.
    let text =
        text.replace(r#"\"data\":\"glyphs\""#, r#"\"data\":\"mnist\" "#).replacen("checksum", "unknown_", 1);
    let altered: Vec<u8> = text.chars().map(|c| c as u8).collect();
    assert_ne!(altered, bytes);
    fs::create_dir(place.path("elsewhere")).unwrap();
    fs::write(place.path("elsewhere/m.safetensors"), altered).unwrap();
    let resume =
        ["train", "--resume", "elsewhere/m.safetensors", "--name", "m", "--epochs", "2", "--dry-run"];
    let (status, shown, said) = hub.unasked(&place, &resume);
    assert_eq!(status, 0, "{said}");
    assert!(
        said.contains("mnist would be downloaded") && shown.starts_with("run m on mnist "),
        "{shown}{said}"
    );
}

#[test]
fn a_dry_run_of_a_sweep_asks_nobody() {
    let (hub, place) = (Hub::new(), Place::new());
    let sweep = "title = 's'\nset.training.data = 'mnist'\nset.training.limit_train = 200\nset.network.dims = [784, 8, 10]\n\
                 [[rows]]\nconfig = 'ep-1h'\n[[rows]]\nconfig = 'cep-1h'\n";
    fs::write(place.path("s.toml"), sweep).unwrap();
    let dry = ["sweep", "--config", "s.toml", "--out", "s", "--workers", "1", "--dry-run"];
    let (status, shown, said) = hub.unasked(&place, &dry);
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("mnist would be downloaded from the Hugging Face hub"), "{said}");
    for run in ["ep-1h-train200-seed0 ", "cep-1h-train200-seed0 "] {
        assert!(shown.contains(run), "{shown}");
    }
    assert!(!place.path("s").exists());
}
