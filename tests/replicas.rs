//! Replicas: each gets the bits it would get alone, whatever the others do.

use candle_core::{DType, Device};
use eqprop::config::{Choices, Config, Resolved, parse_value};
use eqprop::data::{Batch, glyphs};
use eqprop::engine::replicas::Hub;
use eqprop::engine::{Engine, Job, Report, Turn, plain::Plain};
use eqprop::learning::{Learning, Lesson, OwnUpdate, Rule, Schedule, Step, Update};
use eqprop::model::network::Parameters;
use eqprop::rng;
use rand::Rng;
use std::sync::Arc;
use std::thread;

/// The paper's steps, which the presets with two hidden layers do not take.
const SYNCHRONOUS: [&str; 2] = ["settle.order=synchronous", "settle.solver=iterate"];

fn config(rule: Rule, depth: usize, settings: &[&str]) -> Config {
    let dims = if depth == 1 { "[30, 16, 5]" } else { "[30, 16, 12, 5]" };
    let mut flags = vec![("test".to_string(), "network.dims".to_string(), parse_value(dims))];
    for setting in settings {
        let (key, value) = setting.split_once('=').unwrap();
        flags.push(("test".into(), key.into(), parse_value(value)));
    }
    Resolved::new(&Choices { algo: Some(rule), depth: Some(depth), flags, ..Choices::default() })
        .unwrap()
        .config
}

fn theta(config: &Config, seed: u64) -> Parameters {
    let (network, dtype) = (&config.network, config.training.dtype.dtype());
    Parameters::init(config.network(), network.init, network.psi, seed, dtype, &Device::Cpu).unwrap()
}

/// The `m`-th minibatch of the replica with this seed, and its β.
fn minibatch(config: &Config, seed: u64, m: u64) -> (Batch, f64) {
    let mut rng = rng::stream(seed, rng::Purpose::Figure, m);
    // The last one of an epoch is smaller.
    let size = if m == 2 { 3 } else { 6 };
    let images = (0..size * 30).map(|_| rng.random()).collect();
    let labels = (0..size).map(|_| rng.random_range(0..5)).collect();
    (Batch { images, labels }, config.learning.beta * rng::beta_sign(seed, m))
}

/// The reports of a run of `minibatches` minibatches, each classified and then learnt, and its final weights.
fn run(engine: &mut dyn Engine, config: &Config, seed: u64, minibatches: u64) -> (Vec<Report>, Vec<Vec<u8>>) {
    let mut reports = Vec::new();
    for m in 0..minibatches {
        let (batch, beta) = minibatch(config, seed, m);
        reports.push(engine.evaluate(&batch).unwrap());
        reports.push(engine.train(&batch, beta).unwrap());
    }
    (reports, bits(engine))
}

/// The weights of an engine.
fn bits(engine: &dyn Engine) -> Vec<Vec<u8>> {
    (engine.parameters().unwrap().named().into_iter())
        .map(|(_, tensor)| {
            let values =
                tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            values.into_iter().flat_map(f64::to_le_bytes).collect()
        })
        .collect()
}

#[test]
fn a_replica_gets_the_bits_it_would_get_alone() {
    for (rule, depth, settings) in [
        (Rule::EP, 1, &[][..]),
        // By the preset's alternating steps with acceleration, and by synchronous ones.
        (Rule::CEP, 2, &[]),
        (Rule::CEP, 2, &SYNCHRONOUS),
        (Rule::VF, 1, &["network.psi=45"]),
        (Rule::CVF, 1, &["network.psi=90", "training.dtype=f64"]),
        (Rule::CVF, 2, &["settle.order=synchronous", "settle.solver=iterate", "settle.damping=0.5"]),
        (Rule::CVF, 1, &["learning.sigma_prime=ignored"]),
        (Rule::VF, 2, &["settle.order=synchronous", "settle.solver=iterate", "learning.sigma_prime=full"]),
        (Rule::CEP_RESCALED, 1, &[]),
        (Rule::CVF, 1, &["network.time=real", "learning.sigma_prime=ignored", "learning.authors_code=false"]),
        // Replicas settle at different steps.
        (Rule::CEP, 1, &["settle.tolerance=1e-2"]),
        (Rule::EP, 2, &["settle.order=alternating", "settle.solver=anderson", "settle.tolerance=1e-3"]),
        (Rule::CVF, 2, &["settle.solver=iterate", "learning.nudging=centered"]),
        (Rule::EP, 1, &["learning.nudging=centered"]),
        (Rule::ASYM_EP, 1, &["network.psi=120"]),
        (Rule::CVF, 1, &["network.psi=120", "learning.alignment=homeostasis", "learning.strength=0.1"]),
    ] {
        let config = config(rule, depth, settings);
        let job = config.job(&Device::Cpu);
        // Of different lengths, so that some leave while others continue.
        let lengths = [5, 3, 5, 4];
        let alone: Vec<_> = (lengths.iter().enumerate())
            .map(|(seed, &length)| {
                let theta = theta(&config, seed as u64);
                let mut engine = Plain::new(job.clone(), theta).unwrap();
                run(&mut engine, &config, seed as u64, length)
            })
            .collect();
        let hub = Hub::new(job.clone());
        let replicas: Vec<_> = (0..4).map(|seed| hub.join(theta(&config, seed))).collect();
        let together: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (replicas.into_iter().enumerate())
                .map(|(seed, mut replica)| {
                    let config = &config;
                    scope.spawn(move || run(&mut replica, config, seed as u64, lengths[seed]))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (seed, (alone, together)) in alone.iter().zip(&together).enumerate() {
            assert_eq!(alone.0, together.0, "{rule:?} {depth} {settings:?}, seed {seed}: reports");
            assert!(alone.1 == together.1, "{rule:?} {depth} {settings:?}, seed {seed}: weights");
        }
        if settings.iter().any(|setting| setting.contains("settle")) {
            let steps: Vec<usize> = alone.iter().map(|(reports, _)| reports[0].steps).collect();
            assert!(steps.iter().any(|&other| other != steps[0]), "all settled together: {steps:?}");
        }
    }
}

/// Learning ahead, from images that lie on the device, is learning minibatch by minibatch: for replicas with one
/// training set and with sets of their own, at different places in it, and where the last minibatch is smaller.
#[test]
fn minibatches_learnt_ahead_have_the_bits_of_those_learnt_one_by_one() {
    let settings = ["network.dims=[784, 16, 10]", "network.psi=45", "learning.nudging=random"];
    let config = config(Rule::CVF, 1, &settings);
    let job = config.job(&Device::Cpu);
    let shared = Arc::new(glyphs::dataset().limited(Some(70), None));
    let own = Arc::new(glyphs::dataset().limited(Some(90), None));
    for sets in [[&shared, &shared, &shared], [&shared, &own, &shared]] {
        let lessons = |seed: usize| -> Vec<(Vec<u32>, Turn)> {
            let order = rng::permutation(seed as u64, 0, sets[seed].train.len());
            // One replica is at its second minibatch.
            let chunks = order.chunks(20).enumerate().skip(seed % 2);
            let turn = |m: usize| {
                let beta = config.learning.beta * rng::beta_sign(seed as u64, m as u64);
                Turn { beta, epochs: m as f64 / 4.0 }
            };
            chunks.map(|(m, images)| (images.to_vec(), turn(m))).collect()
        };
        let one_by_one = |seed: usize| {
            let mut engine = Plain::new(job.clone(), theta(&config, seed as u64)).unwrap();
            let reports: Vec<Report> = (lessons(seed).iter())
                .map(|(images, turn)| engine.train_at(&sets[seed].train.batch(images), *turn).unwrap())
                .collect();
            (reports, bits(&engine))
        };
        let hub = Hub::new(job.clone());
        let replicas: Vec<_> = (0..3).map(|seed| hub.join(theta(&config, seed))).collect();
        let ahead: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (replicas.into_iter().enumerate())
                .map(|(seed, mut replica)| {
                    let lessons = lessons(seed);
                    scope.spawn(move || {
                        let lessons: Vec<_> =
                            lessons.iter().map(|(images, turn)| (&images[..], *turn)).collect();
                        (replica.train_ahead(sets[seed], &lessons).unwrap(), bits(&replica))
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (seed, (reports, bits)) in ahead.iter().enumerate() {
            let expected = one_by_one(seed);
            assert_eq!(reports, &expected.0, "seed {seed}");
            assert!(bits == &expected.1, "seed {seed}: weights");
        }
    }
}

/// A rule that is out of order.
struct Broken;

impl OwnUpdate for Broken {
    fn update(&self, _: &Lesson, _: &Step) -> candle_core::Result<Parameters> {
        panic!("out of order")
    }
}

#[test]
fn a_replica_that_panics_fails_those_it_computes_with_and_keeps_nobody_waiting() {
    let config = config(Rule::CEP, 1, &[]);
    let rule = Rule { update: Update::Own(Schedule::Whole, &Broken), ..Rule::EP };
    let learning = Learning { rule, ..config.learning.clone() };
    let hub = Hub::new(Job { learning, ..config.job(&Device::Cpu) });
    let replicas: Vec<_> = (0..3).map(|seed| hub.join(theta(&config, seed))).collect();
    let outcomes: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (replicas.into_iter().enumerate())
            .map(|(seed, mut replica)| {
                let (batch, beta) = minibatch(&config, seed as u64, 0);
                scope.spawn(move || replica.train(&batch, beta).map(drop))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for outcome in outcomes {
        assert!(outcome.unwrap_err().to_string().contains("panicked"));
    }
}

mod common;

use common::{Place, metrics};
use eqprop::run::{Interrupt, Resources};
use eqprop::sweep::{State, SweepFolder, Workers};
use eqprop::telemetry::board::Board;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

const SWEEP: &str = r#"
title = "two shapes"
set.network.dims = [64, 24, 4]
set.training.epochs = 6
set.training.checkpoint_every = 3
set.training.engine = "plain"
set.settle.steps = 40
grid.training.seed = [0, 1]

[[rows]]
config = "cvf-1h"
grid.network.psi = [0, 90]

[[rows]]
config = "ep-1h"
"#;

/// Not a test but the process that [`runs_that_compute_together_end_as_those_that_do_not`] kills: it trains the sweep
/// in this folder as on a GPU.
#[test]
#[ignore = "the process that another test kills"]
fn train_together() {
    let Some(folder) = std::env::var_os("TRAIN_TOGETHER_IN").map(PathBuf::from) else { return };
    let sweep = SweepFolder { path: folder.join("together") };
    let names: Vec<String> = sweep.entries().unwrap().into_iter().map(|entry| entry.name).collect();
    let resources = Resources::new(Some(folder.join("data"))).computing_together();
    let board = Board::new([], names.len());
    let interrupt = Interrupt::listen().unwrap();
    let workers = Workers { folder: &sweep, resources: &resources, board: &board, interrupt: &interrupt };
    workers.train(names.clone(), names.len()).unwrap();
    assert!(names.iter().all(|name| sweep.state(name).unwrap() == State::Done));
}

#[test]
fn runs_that_compute_together_end_as_those_that_do_not() {
    let place = Place::new();
    fs::write(place.path("s.toml"), SWEEP).unwrap();
    for (out, more) in [("apart", None), ("together", Some("--slurm"))] {
        let mut command = place.process();
        command.args(["sweep", "--config", "s.toml", "--data-dir", "data", "--out", out]).args(more);
        assert!(command.stderr(Stdio::null()).status().unwrap().success());
    }
    let names = [
        "cvf-1h-psi0-partial-data-seed0",
        "cvf-1h-psi0-partial-data-seed1",
        "cvf-1h-psi90-partial-data-seed0",
        "cvf-1h-psi90-partial-data-seed1",
        "ep-1h-data-seed0",
        "ep-1h-data-seed1",
    ];
    let last = |out: &str, name: &str| place.path(&format!("{out}/checkpoints/{name}/last.safetensors"));
    let train = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "train_together", "--ignored"]).env("TRAIN_TOGETHER_IN", place.dir.path());
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut kills = 0;
    while kills < 3 {
        let mut child = train();
        // Killed some time after its first checkpoints.
        while !names.iter().all(|name| last("together", name).is_file())
            && child.try_wait().unwrap().is_none()
        {
            thread::sleep(Duration::from_millis(2));
        }
        thread::sleep(Duration::from_millis(60 + 40 * kills));
        if child.try_wait().unwrap().is_some() {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills > 0, "over before it could be killed");
    assert!(train().wait().unwrap().success());
    for name in names {
        let weights = |out: &str| fs::read(last(out, name)).unwrap();
        assert!(weights("apart") == weights("together"), "{name}: other weights");
        let numbers = |out: &str| metrics(&place.path(&format!("{out}/runs/{name}/metrics.jsonl")));
        assert_eq!(numbers("apart"), numbers("together"), "{name}");
        for (out, engine) in [("apart", "plain"), ("together", "replicas")] {
            let sessions = place.read(&format!("{out}/runs/{name}/sessions.jsonl"));
            for session in sessions.lines() {
                let session: serde_json::Value = serde_json::from_str(session).unwrap();
                assert_eq!(
                    (&session["engine"], &session["threads"]),
                    (&engine.into(), &1.into()),
                    "{session}"
                );
            }
        }
    }
}
