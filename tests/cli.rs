//! The program as its users meet it: good input does what it says, bad input gets a clear message.

mod common;

use common::{Place, metrics};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

/// Runs the program and returns its exit status, stdout and stderr.
fn run(place: &Place, arguments: &[&str]) -> (i32, String, String) {
    run_with(place, arguments, &[])
}

fn run_with(place: &Place, arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
    let output = place.eqprop().args(arguments).envs(environment.iter().copied()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Asserts that a command fails with `status`, in one paragraph that holds all of `words`.
fn fails(place: &Place, arguments: &[&str], status: i32, words: &[&str]) {
    let (code, _, said) = run(place, arguments);
    assert_eq!(code, status, "{arguments:?}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?} should mention {word:?}: {said}");
    }
    let complaint: Vec<&str> = said.lines().filter(|line| line.starts_with("eqprop: ")).collect();
    assert!(status == 2 || complaint.len() == 1, "{said}");
}

#[test]
fn a_run_leaves_what_it_should() {
    let place = Place::new();
    let (status, stdout, stderr) = run(&place, &place.small_run("cvf", &["--epochs", "3", "--psi", "45"]));
    assert_eq!(status, 0, "{stderr}");
    assert_eq!(stdout.lines().count(), 1, "the result alone: {stdout}");
    let name = "cvf-1h-psi45-partial-data-seed0";
    let lines = metrics(&place.path(&format!("runs/{name}/metrics.jsonl")));
    assert_eq!(lines.len(), 4);
    for tag in
        ["error/train", "error/test", "loss/train", "settle/residual", "weights/norm/forward.0", "psi/0"]
    {
        assert!(lines[3][tag].is_f64(), "{tag} is missing: {}", lines[3]);
    }
    assert!((lines[0]["psi/0"].as_f64().unwrap() - 45.0).abs() < 15.0);
    for file in ["last", "best", "step-00000036", "step-00000033", "step-00000030"] {
        assert!(place.path(&format!("checkpoints/{name}/{file}.safetensors")).is_file(), "{file}");
    }
    assert_eq!(fs::read_dir(place.path(&format!("checkpoints/{name}"))).unwrap().count(), 6, "and the lock");
    let environment: serde_json::Value =
        serde_json::from_str(&place.read(&format!("runs/{name}/environment.json"))).unwrap();
    assert_eq!(environment["threads"], 1);
    assert_eq!(environment["data"]["sha256"]["train.images"].as_str().unwrap().len(), 64);
    // Not on a terminal: one line an epoch.
    assert_eq!(stderr.lines().filter(|line| line.starts_with("epoch")).count(), 4, "{stderr}");
    // The configuration it left is one that can be used.
    let config = format!("runs/{name}/config.toml");
    let (status, shown, _) = run(&place, &["config", "--config", &config]);
    assert_eq!(status, 0);
    assert!(shown.contains("psi = 45"), "{shown}");
}

#[test]
fn eval_repeats_the_test_error_of_the_run() {
    let place = Place::new();
    run(&place, &place.small_run("ep", &["--epochs", "2", "--name", "e-data"]));
    let lines = metrics(&place.path("runs/e-data/metrics.jsonl"));
    let checkpoint = "checkpoints/e-data/last.safetensors";
    let (status, shown, _) =
        run(&place, &["eval", "--json", "--checkpoint", checkpoint, "--data-dir", "data"]);
    assert_eq!(status, 0);
    let result: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(result["test_error_percent"], lines[2]["error/test"]);
    assert_eq!(result["loss"], lines[2]["loss/test"]);
    let (status, shown, _) = run(&place, &["eval", "--checkpoint", checkpoint, "--data-dir", "data"]);
    assert_eq!(status, 0);
    assert!(shown.contains("test error on data"), "{shown}");
}

#[test]
fn both_engines_and_types_learn_the_same() {
    let place = Place::new();
    let mut errors = Vec::new();
    for (engine, dtype) in [("plain", "f32"), ("plain", "f64"), ("fused", "f32"), ("fused", "f64")] {
        let name = format!("{engine}-{dtype}-data");
        let (engine, dtype) = (format!("training.engine={engine}"), format!("training.dtype={dtype}"));
        let more = ["--epochs", "3", "--name", &name, "--set", &engine, "--set", &dtype];
        assert_eq!(run(&place, &place.small_run("cvf", &more)).0, 0);
        let lines = metrics(&place.path(&format!("runs/{name}/metrics.jsonl")));
        errors.push(lines[3]["loss/test"].as_f64().unwrap());
    }
    for error in &errors[1..] {
        assert!((error / errors[0] - 1.0).abs() < 1e-4, "{errors:?}");
    }
}

#[test]
fn an_activation_that_only_the_plain_engine_has_runs_there_and_is_refused_by_the_fused_one() {
    let place = Place::new();
    let softplus = ["--epochs", "1", "--set", "network.activation=softplus"];
    let (status, _, said) = run(&place, &place.small_run("cvf", &softplus));
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("the plain engine computes") && said.contains("hard sigmoid only"), "{said}");
    let fused = [&softplus[..], &["--name", "fused-data", "--set", "training.engine=fused"]].concat();
    fails(&place, &place.small_run("cvf", &fused), 2, &["\"fused\" has", "hard sigmoid only"]);
}

#[test]
fn weights_of_one_run_start_another() {
    let place = Place::new();
    run(&place, &place.small_run("cvf", &["--epochs", "2", "--name", "a-data"]));
    let init = ["--epochs", "1", "--name", "b-data", "--init", "checkpoints/a-data/last.safetensors"];
    assert_eq!(run(&place, &place.small_run("cvf", &init)).0, 0);
    let (a, b) = (
        metrics(&place.path("runs/a-data/metrics.jsonl")),
        metrics(&place.path("runs/b-data/metrics.jsonl")),
    );
    assert_eq!(a[2]["error/test"], b[0]["error/test"]);
    assert_eq!(a[2]["weights/norm/feedback.0"], b[0]["weights/norm/feedback.0"]);
    // By its name and by its folder, too.
    for (name, init) in [("c-data", "a-data"), ("d-data", "runs/a-data")] {
        let init = ["--epochs", "1", "--name", name, "--init", init];
        assert_eq!(run(&place, &place.small_run("cvf", &init)).0, 0);
        assert_eq!(metrics(&place.path(&format!("runs/{name}/metrics.jsonl"))), b);
    }
    let angle = ["angle", "--algo", "cvf", "--set", "network.dims=[64, 24, 4]", "--data-dir", "data"];
    let init = |init: &str| run(&place, &[&angle[..], &["--threads", "1", "--init", init]].concat());
    let by_file = init("checkpoints/a-data/last.safetensors");
    assert_eq!((init("a-data"), by_file.0), (by_file, 0));
    let unknown = place.small_run("cvf", &["--init", "a-dat"]);
    fails(&place, &unknown, 2, &["a-dat: is neither a checkpoint", "did you mean a-data?"]);
    // The tensors that exist and those that are needed: a shape that differs, and one that tied weights lack.
    let there = "there are feedback.0.weight [24, 4], forward.0.bias [4], forward.0.weight [4, 24], \
                 forward.1.bias [24], forward.1.weight [24, 64]";
    let wrong = ["--init", "checkpoints/a-data/last.safetensors", "--set", "network.dims=[64, 25, 4]"];
    let needed = "needs forward.0.weight [4, 25], forward.0.bias [4], forward.1.weight [25, 64], forward.1.bias [25], \
                  feedback.0.weight [25, 4]";
    let said = ["last.safetensors", "forward.0.weight", "shape", needed, there];
    fails(&place, &place.small_run("cvf", &wrong), 1, &said);
    run(&place, &place.small_run("ep", &["--epochs", "1", "--name", "e-data"]));
    let said = ["e-data/last.safetensors", "`feedback.0.weight` is missing", "feedback.0.weight [24, 4]"];
    fails(&place, &place.small_run("cvf", &["--init", "e-data"]), 1, &said);
}

#[test]
fn resume_auto_starts_anew_or_goes_on() {
    let place = Place::new();
    for (epochs, expected) in [("1", "a new run"), ("2", "resuming")] {
        let more = ["--epochs", epochs, "--resume", "auto"];
        let (status, _, said) = run(&place, &place.small_run("ep", &more));
        assert_eq!(status, 0);
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_dry_run_touches_nothing() {
    let place = Place::new();
    let (status, shown, _) = run(&place, &place.small_run("cvf", &["--dry-run"]));
    assert_eq!(status, 0);
    assert!(shown.contains("forward.1      24 × 64") && shown.contains("1756 parameters"), "{shown}");
    assert!(!place.path("runs").exists() && !place.path("checkpoints").exists());
}

#[test]
fn wrong_choices_name_key_place_and_remedy() {
    let place = Place::new();
    let train = |more: &[&'static str]| place.small_run("cvf", more);
    fails(&place, &["train"], 2, &["--algo"]);
    fails(&place, &["train", "--algo", "dfa"], 2, &["ep, cep, cep-rescaled, vf, cvf, bptt, rbp"]);
    fails(&place, &["config", "--algo", "ep", "--psi", "45"], 2, &["network.psi", "--psi", "ties"]);
    fails(&place, &["config", "--algo", "ep", "--config", "ep-1h"], 2, &["--config", "--algo"]);
    fails(&place, &["config", "--config", "nosuch.toml"], 1, &["nosuch.toml", "presets"]);
    fails(&place, &train(&["--set", "settle.steps=0"]), 2, &["settle.steps = 0", "--set", "at least 1"]);
    // A renamed key still works, and the error gives its new name.
    fails(
        &place,
        &train(&["--set", "learning.T=0"]),
        2,
        &["settle.steps = 0", "--set learning.T=0", "at least 1"],
    );
    let odd = ["--set", "settle.order=alternating", "--set", "settle.steps=31"];
    fails(&place, &train(&odd), 2, &["settle.steps = 31", "must be even"]);
    let printed = ["--set", "learning.sigma_prime=ignored", "--set", "learning.authors_code=false"];
    let real = [&printed[..], &["--set", "settle.order=alternating", "--set", "network.time=real"]].concat();
    fails(&place, &train(&real), 2, &["settle.order = \"alternating\"", "discrete time", "synchronous"]);
    // The presets with two hidden layers have that order.
    let deep = ["config", "--algo", "cvf", "--depth", "2", "--set", "network.time=real"];
    let deep = [&deep[..], &printed].concat();
    fails(&place, &deep, 2, &["settle.order = \"alternating\"", "synchronous"]);
    assert_eq!(run(&place, &[&deep[..], &["--synchronous"]].concat()).0, 0);
    let wide = ["--set", "settle.solver=anderson", "--set", "settle.window=9"];
    fails(&place, &train(&wide), 2, &["settle.window = 9", "from 2 to 5"]);
    let none =
        [&printed[..], &["--set", "learning.rule=bptt", "--set", "learning.nudging=centered"]].concat();
    fails(&place, &train(&none), 2, &["learning.nudging = \"centered\"", "leave it out"]);
    fails(&place, &train(&["--set", "learning.tau=1"]), 2, &["learning.tau", "learning.K"]);
    fails(&place, &train(&["--threads", "0"]), 2, &[]);
    fails(&place, &train(&["--name", "../x"]), 2, &["--name"]);
    fails(&place, &train(&["--set", "network.dims=[49, 24, 4]"]), 1, &["64 pixels", "network.dims"]);
    fails(&place, &train(&["--set", "network.dims=[64, 24, 3]"]), 1, &["label 3", "network.dims"]);
    fs::write(place.path("c.toml"), "[network]\ndims = [64,").unwrap();
    fails(&place, &["config", "--config", "c.toml"], 2, &["c.toml", "not valid TOML"]);
    fs::write(place.path("c.toml"), "[learning]\nbetta = 1").unwrap();
    fails(&place, &["config", "--config", "c.toml"], 2, &["c.toml", "learning.betta"]);
    fs::write(place.path("c.toml"), "[learning]\nbeta = 1").unwrap();
    fails(&place, &["config", "--config", "c.toml"], 2, &["network.dims", "not set"]);
    let (status, _, said) = run_with(&place, &["config", "--algo", "ep"], &[("EQPROP_LEARNING_BETTA", "1")]);
    assert_eq!(status, 2);
    assert!(said.contains("EQPROP_LEARNING_BETTA"), "{said}");
}

#[test]
fn damaged_data_is_named() {
    let place = Place::new();
    let images = place.path("data/train-images-idx3-ubyte");
    let good = fs::read(&images).unwrap();
    let train = place.small_run("ep", &["--epochs", "1"]);
    let write = |bytes: &[u8]| fs::write(&images, bytes).unwrap();
    write(&good[..good.len() - 1]);
    fails(&place, &train, 1, &["train-images-idx3-ubyte", "cut short"]);
    write(b"not an IDX file");
    fails(&place, &train, 1, &["train-images-idx3-ubyte", "magic number"]);
    write(&[&good[..4], &[0xff; 12], &good[16..]].concat());
    fails(&place, &train, 1, &["train-images-idx3-ubyte", "header"]);
    write(&[&good[..7], &[229], &good[8..good.len() - 64]].concat());
    fails(&place, &train, 1, &["229 images", "230 labels"]);
    fs::remove_file(&images).unwrap();
    fails(&place, &train, 1, &["data: has train-labels-idx1-ubyte, t10k-", "but no train-images-idx3-ubyte"]);
    fs::write(place.path("data/train-images-idx3-ubyte.gz"), b"not gzip").unwrap();
    fails(&place, &train, 1, &["train-images-idx3-ubyte.gz"]);
    fails(&place, &["train", "--algo", "ep", "--data", "mnist", "--data-dir", "nosuch"], 1, &["nosuch"]);
    assert!(!place.path("runs").exists(), "a failed start leaves nothing");
}

#[test]
fn damaged_checkpoints_are_named() {
    let place = Place::new();
    run(&place, &place.small_run("ep", &["--epochs", "1", "--name", "r-data"]));
    let path = "checkpoints/r-data/last.safetensors";
    let good = fs::read(place.path(path)).unwrap();
    let resume = ["train", "--resume", "bad.safetensors", "--data-dir", "data", "--epochs", "2"];
    let eval = ["eval", "--checkpoint", "bad.safetensors", "--data-dir", "data"];
    for bytes in [&good[..good.len() / 2], b"", &[0xff; 100]] {
        fs::write(place.path("bad.safetensors"), bytes).unwrap();
        fails(&place, &resume, 1, &["bad.safetensors"]);
        fails(&place, &eval, 1, &["bad.safetensors"]);
    }
    fails(
        &place,
        &["eval", "--checkpoint", "nosuch.safetensors"],
        1,
        &["nosuch.safetensors", "cannot be read"],
    );
}

#[test]
fn an_existing_run_is_not_overwritten() {
    let place = Place::new();
    let train = place.small_run("ep", &["--epochs", "1", "--name", "r-data"]);
    assert_eq!(run(&place, &train).0, 0);
    let before = fs::read(place.path("checkpoints/r-data/last.safetensors")).unwrap();
    fails(&place, &train, 1, &["runs/r-data", "--resume auto", "--name"]);
    assert_eq!(fs::read(place.path("checkpoints/r-data/last.safetensors")).unwrap(), before);
}

#[test]
fn divergence_is_said_and_keeps_the_last_good_checkpoint() {
    let place = Place::new();
    // tanh and a huge nudge: states leave all bounds.
    let more = [
        "--epochs",
        "5",
        "--name",
        "r-data",
        "--set",
        "learning.beta=1e30",
        "--set",
        "learning.learning_rates=[1e30, 1e30]",
    ];
    let (status, _, said) = run(&place, &place.small_run("cvf", &more));
    assert_eq!(status, 3, "{said}");
    for word in ["diverged in epoch 1", "residual", "‖forward.0‖", "last.safetensors"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let checkpoint = "checkpoints/r-data/last.safetensors";
    assert_eq!(run(&place, &["eval", "--checkpoint", checkpoint, "--data-dir", "data"]).0, 0);
}

#[test]
fn weights_that_run_away_but_stay_numbers_are_divergence_too() {
    let place = Place::new();
    let more = ["--epochs", "2", "--name", "r-data", "--set", "learning.learning_rates=[1e10, 1e10]"];
    let (status, _, said) = run(&place, &place.small_run("cep", &more));
    assert_eq!(status, 3, "{said}");
    assert!(said.contains("diverged in epoch 1") && said.contains("weights have run away"), "{said}");
    // The last save is from before.
    let checkpoint = "checkpoints/r-data/last.safetensors";
    assert_eq!(run(&place, &["eval", "--checkpoint", checkpoint, "--data-dir", "data"]).0, 0);
}

#[test]
fn what_cannot_be_written_is_named() {
    let place = Place::new();
    fs::write(place.path("file"), "").unwrap();
    let train = place.small_run("ep", &["--epochs", "1", "--runs-dir", "file/runs"]);
    fails(&place, &train, 1, &["file/runs", "cannot be created"]);
    if fs::create_dir(place.path("closed")).is_ok() {
        fs::set_permissions(place.path("closed"), fs::Permissions::from_mode(0o500)).unwrap();
        // Root may write anywhere.
        if fs::write(place.path("closed/x"), "").is_err() {
            let train = place.small_run("ep", &["--epochs", "1", "--checkpoints-dir", "closed/c"]);
            fails(&place, &train, 1, &["closed/c", "cannot be created"]);
        }
    }
}

#[test]
fn files_may_be_read_by_whom_the_umask_lets() {
    let place = Place::new();
    for (umask, mode) in [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)] {
        let name = format!("r{umask}");
        let train = place.small_run("ep", &["--epochs", "1", "--name", &name]);
        let mut command = place.process();
        command.args(train).stderr(Stdio::null());
        // SAFETY: between fork and exec it makes one call, which is allowed there.
        unsafe {
            command.pre_exec(move || {
                libc::umask(umask);
                Ok(())
            });
        }
        assert!(command.status().unwrap().success());
        for file in ["checkpoints/NAME-data/last.safetensors", "runs/NAME-data/config.toml"] {
            let file = place.path(&file.replace("NAME", &name));
            let found = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{}: {found:o}", file.display());
        }
    }
}

#[test]
fn a_preset_that_is_borrowed_is_said_once() {
    let place = Place::new();
    let train =
        ["train", "--algo", "vf", "--dry-run", "--data-dir", "data", "--set", "network.dims=[64,8,4]"];
    let (status, _, said) = run(&place, &train);
    assert_eq!((status, said.matches("Table 2 has no such row").count()), (0, 1), "{said}");
}

#[test]
fn without_mnist_the_run_says_glyphs_loudly_and_mnist_never_falls_back() {
    let place = Place::new();
    let offline = [
        ("HF_ENDPOINT", "http://127.0.0.1:9"),
        ("HF_HOME", "nowhere"),
        ("HTTPS_PROXY", "http://127.0.0.1:9"),
    ];
    let small = ["train", "--algo", "ep", "--limit-train", "100", "--limit-test", "20", "--epochs", "1"];
    let small = [&small[..], &["--set", "network.dims=[784, 16, 10]"]].concat();
    let (status, _, said) = run_with(&place, &small, &offline);
    assert_eq!(status, 0, "{said}");
    let run = "run ep-1h-glyphs-train100-test20-seed0 on cpu";
    assert!(said.contains("THIS IS NOT MNIST") && said.contains(run), "{said}");
    let (status, _, said) = run_with(&place, &[&small[..], &["--data", "mnist"]].concat(), &offline);
    assert_eq!(status, 1);
    assert!(said.contains("--data-dir") && !said.contains("panicked"), "{said}");
}

#[test]
fn a_run_on_mnist_does_not_go_on_as_one_on_glyphs() {
    let place = Place::new();
    let offline = [("HF_ENDPOINT", "http://127.0.0.1:9"), ("HF_HOME", "nowhere")];
    // The records of a run on MNIST, found by name.
    fs::create_dir_all(place.path("runs/ep-1h-train40-seed0")).unwrap();
    fs::write(place.path("runs/ep-1h-train40-seed0/metrics.jsonl"), "{\"epoch\":1}\n").unwrap();
    let auto = ["train", "--algo", "ep", "--limit-train", "40", "--epochs", "1", "--resume", "auto"];
    let (status, _, said) = run_with(&place, &auto, &offline);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("ep-1h-train40-seed0 is on MNIST") && said.contains("--data-dir"), "{said}");
    assert_eq!(fs::read_dir(place.path("runs")).unwrap().count(), 1);
    assert!(!place.path("checkpoints").exists());
}

#[test]
fn a_run_is_resumed_and_tested_on_its_own_data_only() {
    let place = Place::new();
    let offline = [("HF_ENDPOINT", "http://127.0.0.1:9"), ("HF_HOME", "nowhere")];
    let small = ["train", "--algo", "ep", "--limit-train", "40", "--limit-test", "20", "--epochs"];
    let started =
        run_with(&place, &[&small[..], &["1", "--set", "network.dims=[784,16,10]"]].concat(), &offline);
    assert_eq!(started.0, 0, "{}", started.2);
    let checkpoint = "checkpoints/ep-1h-glyphs-train40-test20-seed0/last.safetensors";
    // `auto` found glyphs, and stands for them from then on.
    let (status, _, said) =
        run(&place, &["train", "--resume", checkpoint, "--epochs", "2", "--data-dir", "data"]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("glyphs") && said.contains("reads no files"), "{said}");
    assert_eq!(run(&place, &["eval", "--checkpoint", checkpoint]).0, 0);
    assert_eq!(run(&place, &["train", "--resume", checkpoint, "--epochs", "2"]).0, 0);
}

#[test]
fn the_number_of_classes_and_pixels_is_that_of_the_data() {
    let place = Place::new();
    // An 11th class in the test labels.
    let labels = place.path("data/t10k-labels-idx1-ubyte");
    let mut bytes = fs::read(&labels).unwrap();
    bytes[8 + 5] = 10;
    fs::write(&labels, bytes).unwrap();
    let train = place.small_run("ep", &["--epochs", "1"]);
    fails(&place, &train, 1, &["t10k-labels-idx1-ubyte", "image 5", "label 10"]);
}

#[test]
fn open_sizes_are_those_of_the_data() {
    let place = Place::new();
    let open = |more: &[&'static str]| {
        let dims = ["--set", r#"network.dims=["auto", 24, "auto"]"#, "--epochs", "1"];
        place.small_run("ep", &[&dims, more].concat())
    };
    // A class of which the first images have none counts too.
    assert_eq!(run(&place, &open(&["--name", "o-data", "--limit-train", "1", "--limit-test", "1"])).0, 0);
    assert_eq!(run(&place, &place.small_run("ep", &["--epochs", "1", "--name", "g-data"])).0, 0);
    assert_eq!(run(&place, &open(&["--name", "p-data"])).0, 0);
    for run in ["o-data", "p-data"] {
        let config = place.read(&format!("runs/{run}/config.toml"));
        assert!(config.contains("dims = [64, 24, 4]"), "{config}");
    }
    let weights = |run: &str| fs::read(place.path(&format!("checkpoints/{run}/last.safetensors"))).unwrap();
    // But for the name and the checksum, 64 digits.
    let same = |run: &str| {
        let text = String::from_utf8_lossy(&weights(run)).replace(run, "");
        let (before, after) = text.split_once(r#"checksum\":\""#).unwrap();
        (before.to_string(), after[64..].to_string())
    };
    assert!(same("g-data") == same("p-data"), "the same weights, and the same configuration beside them");
    let last = "checkpoints/p-data/last.safetensors";
    let again = ["train", "--resume", last, "--data-dir", "data", "--epochs", "2"];
    let again = [&again[..], &["--set", r#"network.dims=["auto", 24, "auto"]"#]].concat();
    let (status, _, said) = run(&place, &again);
    assert_eq!(status, 0, "{said}");
    for wrong in
        [r#"network.dims=[64, "auto", 4]"#, "network.dims=[0, 24, 4]", r#"network.dims=["car", 24, 4]"#]
    {
        fails(&place, &place.small_run("ep", &["--set", wrong]), 2, &["network.dims", "\"auto\""]);
    }
    // One class is nothing to learn.
    for labels in ["train", "t10k"].map(|part| place.path(&format!("data/{part}-labels-idx1-ubyte"))) {
        let mut bytes = fs::read(&labels).unwrap();
        bytes[8..].fill(0);
        fs::write(&labels, bytes).unwrap();
    }
    fails(&place, &open(&["--name", "q-data"]), 2, &["network.dims = [64, 24, 1]", "data", "2 to 256"]);
}

#[cfg(feature = "hub")]
#[test]
fn a_taken_name_is_found_out_before_the_network_is_asked() {
    let place = Place::new();
    let hub = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    hub.set_nonblocking(true).unwrap();
    let address = format!("http://{}", hub.local_addr().unwrap());
    let asked = [("HF_ENDPOINT", address.as_str()), ("HF_HOME", "nowhere")];
    fs::create_dir_all(place.path("checkpoints/ep-1h-seed0")).unwrap();
    fs::write(place.path("checkpoints/ep-1h-seed0/last.safetensors"), "").unwrap();
    for data in ["auto", "mnist"] {
        let (status, _, said) = run_with(&place, &["train", "--algo", "ep", "--data", data], &asked);
        assert_eq!(status, 1, "{said}");
        assert!(said.contains("checkpoints/ep-1h-seed0 already holds a run"), "{said}");
        assert_eq!(hub.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }
}

#[test]
fn bench_says_how_fast_and_settling_early_saves_steps() {
    let place = Place::new();
    let bench = |more: &[&str]| -> serde_json::Value {
        let small = [
            "bench",
            "--algo",
            "ep",
            "--data-dir",
            "data",
            "--threads",
            "1",
            "--minibatches",
            "20",
            "--json",
        ];
        let sizes = [
            "--set",
            "network.dims=[64, 24, 4]",
            "--set",
            "network.init=fan-in",
            "--set",
            "settle.steps=100",
        ];
        let (status, shown, said) = run(&place, &[&small[..], &sizes, more].concat());
        assert_eq!(status, 0, "{said}");
        serde_json::from_str(&shown).unwrap()
    };
    let full = bench(&[]);
    for key in [
        "ms_per_minibatch",
        "ms_first_phase",
        "gflops",
        "ms_per_1000_tested",
        "gflops_testing",
        "peak_gflops",
        "threads",
        "peak_rss_mib",
    ] {
        assert!(full[key].as_f64().unwrap() > 0.0, "{key}: {full}");
    }
    assert_eq!(full["first_phase_steps"], 100.0);
    for engine in ["fused", "plain"] {
        let engine = format!("training.engine={engine}");
        let early = bench(&["--set", "settle.tolerance=1e-5", "--set", &engine]);
        assert!(early["first_phase_steps"].as_f64().unwrap() < 80.0, "{early}");
    }
}

#[test]
fn every_vector_instruction_set_learns_the_same() {
    let place = Place::new();
    let loss = |isa: &str| {
        let more = ["--epochs", "3", "--name", isa];
        let (status, _, said) = run_with(&place, &place.small_run("cvf", &more), &[("EQPROP_ISA", isa)]);
        assert_eq!(status, 0, "{said}");
        metrics(&place.path(&format!("runs/{isa}-data/metrics.jsonl")))[3]["loss/test"].as_f64().unwrap()
    };
    let (portable, avx2, avx512) = (loss("portable"), loss("avx2"), loss("avx512"));
    assert!((portable / avx512 - 1.0).abs() < 1e-4 && (avx2 / avx512 - 1.0).abs() < 1e-4);
}

#[test]
fn settle_shows_how_much_arithmetic_each_way_takes() {
    let place = Place::new();
    let arguments = ["settle", "--algo", "ep", "--data-dir", "data", "--threads", "1", "--images", "30"];
    let network =
        ["--set", "network.dims=[64, 24, 4]", "--set", "training.dtype=f64", "--set", "settle.steps=60"];
    let (status, shown, said) = run(&place, &[&arguments[..], &network].concat());
    assert_eq!(status, 0, "{said}");
    let work = |way: &str| -> f64 {
        let line = shown.lines().find(|line| line.starts_with(&format!("{way}  "))).unwrap();
        line.split_whitespace().last().unwrap().parse().unwrap()
    };
    // An alternating sweep is two steps of one of the two chains of the synchronous phase, so it needs half of the
    // steps, and one more since its even layers are a step behind.
    assert!(work("alternating") <= (work("synchronous") / 2.0).ceil() + 1.0, "{shown}");
    assert!(work("alternating, Anderson") < work("alternating"), "{shown}");
    assert!(work("synchronous, Anderson") < work("synchronous"), "{shown}");
    // The page, which is named, has the same table.
    assert!(said.contains("settle/settle.html"), "{said}");
    let page = place.read("settle/settle.html");
    for line in shown.lines().skip(1) {
        let (way, work) = line.rsplit_once(' ').unwrap();
        let row = format!("<tr><td>{}</td><td class=\"number\">{work}</td></tr>", way.trim());
        assert!(page.contains(&row), "{row}: {page}");
    }
    let table = place.read("settle/settle.csv");
    assert_eq!(table.lines().count(), 1 + 4 * 60);
    let last: Vec<f64> = table
        .lines()
        .last()
        .unwrap()
        .split(',')
        .rev()
        .take(4)
        .map(|number| number.parse().unwrap())
        .collect();
    assert!(last[0] >= last[1] && last[1] >= last[2] && last[3] == 60.0, "{last:?}");
    for file in ["settle.html", "settle.svg", "settle.pdf"] {
        assert!(place.path(&format!("settle/{file}")).is_file());
    }
    let real = ["--set", "network.time=real"];
    fails(&place, &[&arguments[..], &network, &real].concat(), 2, &["network.time", "discrete"]);
}

#[test]
fn keys_of_before_work_and_say_what_they_are_called_now() {
    let place = Place::new();
    let preset = include_str!("../configs/cep-1h.toml");
    let older = preset
        .replace("[settle]\nsteps = 40", "[learning]\nT = 40\nsettle_tolerance = 1e-3\ndamping = 0.25\n")
        .replace("\n[learning]\nrule", "\nrule")
        .replace("nudging = \"positive\"", "random_beta = true");
    fs::write(place.path("older.toml"), older).unwrap();
    let (status, config, said) = run(&place, &["config", "--config", "older.toml"]);
    assert_eq!(status, 0, "{said}");
    for line in ["steps = 40", "tolerance = 0.001", "damping = 0.25", "nudging = \"random\""] {
        assert!(config.contains(line), "{line}: {config}");
    }
    assert!(!config.contains("random_beta") && !config.contains("\nT ="));
    for now in [
        "settle.steps = 40",
        "settle.tolerance = 0.001",
        "settle.damping = 0.25",
        "learning.nudging = \"random\"",
    ] {
        assert!(said.contains(now) && said.contains("older.toml"), "{now}: {said}");
    }
    // Both names in one file: one of them would be forgotten.
    let both = preset.replace("K = 15", "T = 30\nK = 15");
    fs::write(place.path("both.toml"), both).unwrap();
    fails(
        &place,
        &["config", "--config", "both.toml"],
        2,
        &["both.toml", "learning.T", "settle.steps", "twice"],
    );
    // The environment and flags, too; the later one counts.
    let (_, config, _) = run_with(
        &place,
        &["config", "--config", "older.toml", "--set", "learning.T=20"],
        &[("EQPROP_LEARNING_T", "30"), ("EQPROP_LEARNING_RANDOM_BETA", "false")],
    );
    assert!(config.contains("steps = 20") && config.contains("nudging = \"positive\""), "{config}");
}

#[test]
fn keys_that_play_no_part_are_refused_or_said() {
    let place = Place::new();
    let second_phase = "not the steps of a second phase";
    for (rule, key, value, why) in [
        ("ep", "network.epsilon", "0.1", "time = \"real\""),
        ("ep", "settle.window", "4", "solver = \"anderson\""),
        ("cep", "learning.tiny", "0.0001", "rule = \"cep-rescaled\""),
        ("bptt", "learning.beta", "0.3", second_phase),
        ("rbp", "learning.beta", "0.3", second_phase),
        ("bptt", "learning.nudging", "\"random\"", second_phase),
        ("rbp", "training.angle_minibatches", "8", second_phase),
        ("bptt", "training.angle_every", "2", second_phase),
    ] {
        let set = format!("{key}={value}");
        let words = [&format!("{key} = {value} (--set {set}): has no effect")[..], why, "leave it out"];
        fails(&place, &["config", "--algo", rule, "--set", &set], 2, &words);
        let variable = format!("EQPROP_{}", key.replace('.', "_").to_uppercase());
        let (status, _, said) = run_with(&place, &["config", "--algo", rule], &[(&variable, value)]);
        assert!(status == 2 && said.contains(&variable) && said.contains("has no effect"), "{said}");
        // A file may hold keys for another rule; a note says so.
        let (_, printed, _) = run(&place, &["config", "--algo", rule]);
        let (section, name) = key.split_once('.').unwrap();
        let (before, after) = printed.split_once(&format!("[{section}]\n")).unwrap();
        let others = after.lines().filter(|line| !line.starts_with(&format!("{name} = ")));
        let with =
            format!("{before}[{section}]\n{name} = {value}\n{}\n", others.collect::<Vec<_>>().join("\n"));
        fs::write(place.path("c.toml"), with).unwrap();
        let (status, _, said) = run(&place, &["config", "--config", "c.toml"]);
        assert_eq!(status, 0, "{said}");
        // β has no default, so that every file has it.
        let told = said.contains(&format!("{key} = {value} (c.toml) has no effect"));
        assert_eq!(told, key != "learning.beta", "{said}");
    }
    for (flags, key) in [
        (&["training.angle_minibatches=0", "training.angle_every=2"][..], "training.angle_every"),
        (&["synapse.law=momentum", "synapse.horizon=9"], "synapse.horizon"),
    ] {
        let flags: Vec<&str> = flags.iter().flat_map(|set| ["--set", set]).collect();
        fails(&place, &[&["config", "--algo", "ep"], &flags[..]].concat(), 2, &[key, "has no effect"]);
    }
    // Where keys have an effect, or the value that holds anyway, nothing is wrong; and a preset prints no notes.
    for flags in [
        &["network.time=real", "network.epsilon=0.1"][..],
        &["settle.solver=anderson", "settle.window=4"],
        &["learning.rule=cep-rescaled", "learning.tiny=1e-4"],
        &["training.angle_minibatches=0", "training.angle_every=0"],
        &["network.epsilon=0.08"],
        &["learning.rule=bptt"],
    ] {
        let sets: Vec<&str> = flags.iter().flat_map(|set| ["--set", set]).collect();
        let (status, _, said) = run(&place, &[&["config", "--algo", "ep"], &sets[..]].concat());
        assert!(status == 0 && !said.contains("has no effect"), "{flags:?}: {said}");
    }
}

#[test]
fn what_there_is_to_choose_from_is_listed_whatever_stands_there() {
    let place = Place::new();
    for (key, names) in [
        ("network.activation", "sigmoid"),
        ("network.init", "fan-in"),
        ("network.time", "`discrete` or `real`"),
        ("settle.order", "alternating"),
        ("learning.rule", "cep-rescaled"),
        ("learning.nudging", "centered"),
        ("learning.alignment", "kolen-pollack"),
        ("synapse.law", "momentum"),
        ("training.dtype", "f64"),
        ("training.device", "cuda"),
        ("training.engine", "fused"),
        ("training.data", "fashion-mnist"),
    ] {
        for value in ["true", "[1, 2]", "3", "\"magic\""] {
            let set = format!("{key}={value}");
            let words = [&format!("{key} = {value}")[..], names];
            fails(&place, &["config", "--algo", "cvf", "--set", &set], 2, &words);
        }
    }
}

#[test]
fn a_wrong_value_of_a_synapse_names_its_key() {
    let place = Place::new();
    for (set, words) in [
        ("synapse.momentum=much", &["synapse.momentum = \"much\" (--set synapse.momentum=much)"][..]),
        ("synapse.decay=[0.1]", &["synapse.decay = [0.1]"]),
        ("synapse.schedule=soon", &["synapse.schedule = \"soon\"", "cosine"]),
        ("synapse.schedule=true", &["synapse.schedule = true", "cosine"]),
        ("synapse.horizon=-1", &["synapse.horizon = -1"]),
        ("synapse.horizon=1.5", &["synapse.horizon = 1.5"]),
        ("synapse.law=elastic", &["synapse.law = \"elastic\"", "ideal", "momentum"]),
    ] {
        let arguments = ["config", "--algo", "ep", "--set", "synapse.law=momentum", "--set", set];
        fails(&place, &arguments, 2, words);
    }
}

#[test]
fn messages_quote_the_beginning_of_long_values_and_spell_out_what_turns_text_around() {
    let place = Place::new();
    let long = "x".repeat(100_000);
    fs::write(place.path("c.toml"), format!("[network]\nactivation = \"{long}\"\n")).unwrap();
    fs::write(place.path("line.toml"), format!("[network]\ndims = {long}\n")).unwrap();
    for arguments in [
        &["config", "--algo", "ep", "--set", &format!("learning.beta={long}")][..],
        &["config", "--algo", "ep", "--set", &format!("training.dtype={long}")],
        &["config", "--algo", "ep", "--set", &format!("learning.{long}=1")],
        &["config", "--algo", "ep", "--set", &long],
        &["config", "--algo", &long],
        &[&long],
        &["config", "--config", "line.toml"],
        &["train", "--algo", "ep", "--data-dir", "data", "--name", &long],
    ] {
        let (status, _, said) = run(&place, arguments);
        assert_eq!(status, 2, "{said}");
        assert!(said.contains(&"x".repeat(180)) && said.len() < 3000, "{} bytes", said.len());
    }
    let turned = "a\u{202e}b\u{2066}c\u{feff}";
    fs::write(place.path("s.toml"), format!("title = 't'\n[[rows]]\nconfig = 'ep-1h'\nlabel = '{turned}'\n"))
        .unwrap();
    fs::write(place.path("c.toml"), format!("[network]\n\"{turned}\" = 1\n")).unwrap();
    for arguments in [
        &["config", "--algo", "ep", "--set", &format!("learning.{turned}=1")][..],
        &["config", "--algo", "ep", "--set", &format!("training.dtype={turned}")],
        &["config", "--config", "c.toml"],
        &["train", "--algo", "ep", "--data-dir", "data", "--name", turned],
        &["sweep", "--config", "s.toml", "--data-dir", "data", "--dry-run"],
        &["inspect", turned],
    ] {
        let (status, shown, said) = run(&place, arguments);
        assert_ne!(status, 0, "{said}");
        assert!(said.contains("\\u{202e}") && said.contains("\\u{2066}"), "{arguments:?}: {said}");
        assert!(!format!("{shown}{said}").contains(['\u{202e}', '\u{2066}', '\u{feff}']), "{said:?}");
    }
}

#[test]
fn devices_answer_to_pulses_on_paper_and_on_a_page() {
    let place = Place::new();
    let quiet = [
        "synapse.dw_min_std=0",
        "synapse.dw_min_dtod=0",
        "synapse.up_down_dtod=0",
        "synapse.w_max_dtod=0",
        "synapse.w_min_dtod=0",
    ];
    let set: Vec<&str> = quiet.iter().flat_map(|setting| ["--set", setting]).collect();
    let arguments = [
        &["device", "gokmen-vlasov", "--pulses", "10 up, 5 down", "--start", "-0.5", "--count", "3"],
        &set[..],
    ];
    let (status, stdout, stderr) = run(&place, &[&arguments.concat()[..], &["--json"]].concat());
    assert_eq!(status, 0, "{stderr}");
    let response: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let mean: Vec<f64> = serde_json::from_value(response["mean"].clone()).unwrap();
    assert_eq!(mean.len(), 16);
    for (pulse, steps) in [(0, 0.0), (10, 10.0), (15, 5.0)] {
        assert!((mean[pulse] - (-0.5 + 1.6e-3 * steps)).abs() < 1e-7, "{pulse}: {}", mean[pulse]);
    }
    let (status, stdout, stderr) = run(&place, &[&arguments.concat()[..], &["--out", "page.html"]].concat());
    assert_eq!(status, 0, "{stderr}");
    assert!(stdout.contains("granularity 1.6000e-3") && stdout.contains("-0.48400"), "{stdout}");
    assert!(place.read("page.html").contains("<svg"));
    fails(&place, &["device", "granite"], 2, &["granite", "gokmen-vlasov", "soft-bounds"]);
    fails(&place, &["device", "ecram", "--pulses", "ten up"], 2, &["--pulses", "200 up, 200 down"]);
    fails(&place, &["device", "ecram", "--set", "synapse.stuck=2"], 2, &["synapse.stuck", "from 0 to 1"]);
    fs::write(place.path("turns.csv"), "pulse,up [uS],down [uS]\n0,1,3\n1,2,2\n2,1.5,1\n").unwrap();
    let turns = ["device", "measured", "--set", "synapse.file=turns.csv"];
    fails(&place, &turns, 2, &["turns.csv", "line 4", "turns back"]);
}

#[test]
fn a_run_on_devices_counts_its_pulses() {
    let place = Place::new();
    let device =
        ["--epochs", "1", "--name", "r-data", "--set", "synapse.law=device", "--set", "synapse.preset=ecram"];
    let (status, _, stderr) = run(&place, &place.small_run("cvf", &device));
    assert_eq!(status, 0, "{stderr}");
    let lines = metrics(&place.path("runs/r-data/metrics.jsonl"));
    for array in ["forward.0", "forward.1", "feedback.0", "forward.0.bias"] {
        assert!(lines[0][format!("pulses/{array}")].is_null());
        let [pulses, wasted] =
            ["pulses", "wasted"].map(|tag| lines[1][format!("{tag}/{array}")].as_f64().unwrap());
        assert!(pulses > 0.0 && wasted > 0.999, "{array}: {pulses} {wasted}");
    }
}
