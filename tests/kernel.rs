//! The CUDA kernel of both phases, compiled for the CPU by a C++ compiler, against the plain engine.
//!
//! It shows what the kernel computes, and that its threads do not race (ThreadSanitizer, where the compiler has it);
//! that a GPU runs it is for `tests/cuda.rs`. Without g++ it skips with a message.

use candle_core::{DType, Device, Tensor};
use eqprop::config::{Choices, Config, Resolved, parse_value};
use eqprop::data::Batch;
use eqprop::engine::cuda::{Chip, Course, Kernel, REPORTED};
use eqprop::engine::plain::Plain;
use eqprop::engine::{self, Engine, EngineKind, Job, Report, Turn};
use eqprop::learning::Rule;
use eqprop::model::network::Parameters;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

const REPLICAS: usize = 2;
const MINIBATCHES: usize = 3;
const CLASSES: usize = 5;
/// Images of the data set.
const COUNT: usize = 23;
const THREADS: usize = 64;

/// The compiler's flags with which programs run: with ThreadSanitizer where it has that, and without.
fn compilers(place: &Path) -> Option<[Vec<&'static str>; 2]> {
    let empty = place.join("empty.cpp");
    fs::write(&empty, "#include <barrier>\nint main() {}\n").unwrap();
    let works = |flags: &[&str]| {
        let made = Command::new("g++").args(flags).arg(&empty).arg("-o").arg(place.join("empty")).output();
        made.is_ok_and(|made| made.status.success())
            && Command::new(place.join("empty")).status().is_ok_and(|status| status.success())
    };
    let plain = vec!["-std=c++20", "-O0", "-pthread"];
    let sanitized = [&plain[..], &["-O1", "-fsanitize=thread"]].concat();
    if !works(&plain) {
        // Where CI=true everything is installed.
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "skipped in CI: no g++ with C++20");
        eprintln!("SKIPPED: no g++ with C++20");
        return None;
    }
    let sanitized = if works(&sanitized) { sanitized } else { plain.clone() };
    // A thread for each of CUDA's, which ThreadSanitizer can watch.
    Some([[&sanitized[..], &["-DTHREADED"]].concat(), plain])
}

/// A program that runs a kernel on the CPU.
struct Emulator {
    place: tempfile::TempDir,
    program: PathBuf,
}

impl Emulator {
    fn new(flags: &[&str], kernel: &Kernel) -> Self {
        let place = tempfile::tempdir().unwrap();
        let (source, program) = (place.path().join("kernel.cu"), place.path().join("emulate"));
        fs::write(&source, kernel.source()).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let output = Command::new("g++")
            .args(flags)
            .arg(format!("-DKERNEL=\"{}\"", source.display()))
            .arg(root.join("tests/kernel/emulate.cpp"))
            .arg("-o")
            .arg(&program)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { place, program }
    }

    /// Runs it as a GPU would.
    fn launch(&self, theta: &Tensor, course: &Course) -> candle_core::Result<(Tensor, Tensor)> {
        let (replicas, minibatches, _) = course.order.dims3()?;
        let images = course.images.dim(0)?;
        let sizes = [replicas, minibatches, images].map(|size| size as i32);
        let mut bytes: Vec<u8> = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
        let floats = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        bytes.extend(floats(theta)?.iter().flat_map(|number| number.to_le_bytes()));
        bytes.extend(course.images.flatten_all()?.to_vec1::<u8>()?);
        bytes.extend(course.labels.to_vec1::<u8>()?);
        let order = course.order.flatten_all()?.to_vec1::<u32>()?;
        bytes.extend(order.iter().flat_map(|number| number.to_le_bytes()));
        bytes.extend(floats(&course.betas)?.iter().flat_map(|number| number.to_le_bytes()));
        let (given, returned) = (self.place.path().join("in"), self.place.path().join("out"));
        fs::write(&given, bytes)?;
        let output = Command::new(&self.program).args([&given, &returned]).output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let returned = fs::read(returned)?;
        let (learnt, reports) = returned.split_at(4 * theta.elem_count());
        let (learnt, reports) = (learnt.as_chunks::<4>().0, reports.as_chunks::<8>().0);
        let learnt: Vec<f32> = learnt.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        let reports: Vec<f64> = reports.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect();
        Ok((
            Tensor::from_vec(learnt, theta.shape(), &Device::Cpu)?,
            Tensor::from_vec(reports, (replicas, minibatches, REPORTED), &Device::Cpu)?,
        ))
    }
}

/// Resolves a configuration of these settings, which override those before them.
fn resolve(rule: Rule, depth: usize, settings: &[&str]) -> Result<Resolved, String> {
    let flags = (settings.iter())
        .map(|setting| {
            let (key, value) = setting.split_once('=').unwrap();
            ("test".to_string(), key.to_string(), parse_value(value))
        })
        .collect();
    Resolved::new(&Choices { algo: Some(rule), depth: Some(depth), flags, ..Choices::default() })
        .map_err(|error| format!("{error:#}"))
}

fn parameters(config: &Config, seed: u64) -> Parameters {
    let network = &config.network;
    Parameters::init(config.network(), network.init, network.psi, seed, DType::F32, &Device::Cpu).unwrap()
}

/// Weights with a leading dimension of replicas, as `engine::replicas` stacks them.
fn stacked(all: &[Parameters]) -> Parameters {
    let stack = |of: fn(&Parameters) -> &Vec<Tensor>| -> Vec<Tensor> {
        let one =
            |i: usize| Tensor::stack(&all.iter().map(|theta| &of(theta)[i]).collect::<Vec<_>>(), 0).unwrap();
        (0..of(&all[0]).len()).map(one).collect()
    };
    let biases = stack(|theta| &theta.biases);
    Parameters {
        network: all[0].network.clone(),
        weights: stack(|theta| &theta.weights),
        biases: biases.iter().map(|bias| bias.unsqueeze(1).unwrap()).collect(),
    }
}

/// The images of a minibatch for networks of so many hidden layers: whole tiles of the kernel, and not.
fn size(depth: usize) -> usize {
    if depth == 1 { 6 } else { 12 }
}

/// The pixels of the images of networks of so many hidden layers: more than the kernel works on together, in pieces of
/// 16 and not.
fn pixels(depth: usize) -> usize {
    if depth == 1 { 75 } else { 80 }
}

/// The data set: pixels of any brightness, a third of them black, and some columns black in every image.
fn images(pixels: usize) -> (Vec<u8>, Vec<u8>) {
    let pixel = |at: usize| match (at * 7919 % 1000, at % pixels % 11) {
        (0..333, _) | (_, 4) => 0,
        (number, _) => (number % 256) as u8,
    };
    ((0..COUNT * pixels).map(pixel).collect(), (0..COUNT).map(|i| (i * 3 % CLASSES) as u8).collect())
}

/// The minibatches of each replica: numbers of images.
fn order(depth: usize) -> Vec<Vec<Vec<u32>>> {
    let number = |r: usize, m: usize, i: usize| ((r * 131 + m * 17 + i * 5) % COUNT) as u32;
    let minibatch = |r: usize, m: usize| (0..size(depth)).map(|i| number(r, m, i)).collect();
    (0..REPLICAS).map(|r| (0..MINIBATCHES).map(|m| minibatch(r, m)).collect()).collect()
}

/// Some of the minibatches as a course for networks of so many hidden layers.
fn course(depth: usize, betas: &[Vec<f64>], minibatches: std::ops::Range<usize>) -> Course {
    let pixels = pixels(depth);
    let (images, labels) = images(pixels);
    let order: Vec<u32> =
        order(depth).iter().flat_map(|replica| replica[minibatches.clone()].concat()).collect();
    let betas: Vec<f32> =
        betas.iter().flat_map(|betas| betas[minibatches.clone()].iter().map(|&beta| beta as f32)).collect();
    let cpu = &Device::Cpu;
    Course {
        images: Tensor::from_vec(images, (COUNT, pixels), cpu).unwrap(),
        labels: Tensor::from_vec(labels, COUNT, cpu).unwrap(),
        order: Tensor::from_vec(order, (REPLICAS, minibatches.len(), size(depth)), cpu).unwrap(),
        betas: Tensor::from_vec(betas, (REPLICAS, minibatches.len()), cpu).unwrap(),
    }
}

/// The plain engine on the minibatches of a replica.
fn plain(job: &Job, theta: &Parameters, replica: usize, betas: &[f64]) -> (Parameters, Vec<Report>) {
    let (pixels, depth) = (theta.network.dims.input(), theta.depth());
    let (images, labels) = images(pixels);
    let mut engine = Plain::new(job.clone(), theta.clone()).unwrap();
    let reports = (order(depth)[replica].iter().zip(betas))
        .map(|(numbers, &beta)| {
            let numbers = || numbers.iter().map(|&number| number as usize);
            let batch = Batch {
                images: numbers().flat_map(|i| images[i * pixels..][..pixels].to_vec()).collect(),
                labels: numbers().map(|i| labels[i]).collect(),
            };
            engine.train_at(&batch, Turn { beta, epochs: 0.0 }).unwrap()
        })
        .collect();
    (engine.parameters().unwrap(), reports)
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

/// The place of a network on the chip.
#[derive(Clone, Copy, Debug)]
enum Lies {
    /// In one block.
    Block,
    /// In a cluster of so many.
    Cluster(usize),
    /// In a cluster of so many, with as little memory as it takes, so that states are in global memory.
    Scratch(usize),
}

impl Lies {
    fn kernel(self, job: &Job, theta: &Parameters, threads: usize) -> Kernel {
        let on = |memory: usize, cluster: usize| {
            Kernel::for_chip(job, theta, size(theta.network.dims.depth()), &Chip { memory, cluster, threads })
        };
        let memories = || (0..1024).map(|step| step * 64);
        let found = match self {
            Lies::Block => on(Chip::HOPPER.memory, 1).ok(),
            Lies::Cluster(size) => (memories().rev().filter_map(|memory| on(memory, 16).ok()))
                .find(|kernel| kernel.cluster() == size),
            Lies::Scratch(size) => memories().find_map(|memory| on(memory, size).ok()),
        };
        found.expect("a kernel that lies so")
    }
}

struct Case {
    rule: Rule,
    hidden: &'static [usize],
    lies: Lies,
    settings: &'static [&'static str],
    /// Its threads are threads, which ThreadSanitizer watches.
    watched: bool,
}

const fn case(rule: Rule, hidden: &'static [usize], lies: Lies, settings: &'static [&'static str]) -> Case {
    Case { rule, hidden, lies, settings, watched: false }
}

const ONE: &[usize] = &[22];
const TWO: &[usize] = &[18, 22];
const IGNORED: &str = "learning.sigma_prime=ignored";
const PARTIAL: &str = "learning.sigma_prime=partial";
const FULL: &str = "learning.sigma_prime=full";
const ALTERNATING: &str = "settle.order=alternating";
const LEARNS: &str = "learning.authors_code=false";
const CENTERED: &str = "learning.nudging=centered";
const RANDOM: &str = "learning.nudging=random";
const ANDERSON: &str = "settle.solver=anderson";
const TOLERANCE: &str = "settle.tolerance=3e-3";
const LOOSE: &str = "settle.tolerance=5e-2";

/// All rules, and with each of them what the kernel does differently.
const CASES: &[Case] = &[
    case(Rule::EP, ONE, Lies::Block, &[]),
    case(Rule::EP, TWO, Lies::Cluster(2), &[TOLERANCE, "settle.steps=24"]),
    case(Rule::EP, TWO, Lies::Scratch(4), &[CENTERED, ALTERNATING, TOLERANCE, "settle.steps=24"]),
    case(Rule::CEP, ONE, Lies::Block, &[RANDOM, "network.activation=tanh"]),
    case(Rule::CEP, TWO, Lies::Cluster(4), &["settle.damping=0.3", ALTERNATING]),
    Case { watched: true, ..case(Rule::CEP, TWO, Lies::Scratch(2), &[CENTERED, LOOSE, "settle.steps=5"]) },
    case(Rule::CEP_RESCALED, ONE, Lies::Block, &[]),
    case(Rule::CEP_RESCALED, TWO, Lies::Cluster(2), &[CENTERED, "learning.tiny=0.5"]),
    case(Rule::VF, ONE, Lies::Block, &[IGNORED, "network.psi=45"]),
    case(Rule::VF, TWO, Lies::Cluster(2), &[PARTIAL, CENTERED, "network.psi=45"]),
    case(Rule::VF, ONE, Lies::Scratch(2), &[FULL, ALTERNATING, LOOSE, "network.psi=45"]),
    // The rule that changes most while other threads read.
    Case { watched: true, ..case(Rule::CVF, ONE, Lies::Block, &[PARTIAL, LEARNS, RANDOM, "network.psi=90"]) },
    case(
        Rule::CVF,
        &[32],
        Lies::Block,
        &[IGNORED, LEARNS, "settle.damping=0.8", "network.activation=hard-sigmoid"],
    ),
    case(Rule::CVF, ONE, Lies::Cluster(2), &[FULL, CENTERED, TOLERANCE, "settle.steps=24"]),
    case(Rule::CVF, TWO, Lies::Cluster(4), &[PARTIAL, RANDOM]),
    case(
        Rule::CVF,
        TWO,
        Lies::Scratch(8),
        &[FULL, ALTERNATING, LOOSE, "settle.steps=40", LEARNS, "network.activation=tanh"],
    ),
    // Accelerated, as the presets with two hidden layers are.
    case(
        Rule::EP,
        TWO,
        Lies::Cluster(2),
        &[ANDERSON, ALTERNATING, "settle.tolerance=1e-4", "settle.steps=40"],
    ),
    case(
        Rule::CEP,
        ONE,
        Lies::Block,
        &[ANDERSON, "settle.window=2", "settle.tolerance=1e-4", "settle.steps=30"],
    ),
    Case {
        watched: true,
        ..case(Rule::CVF, TWO, Lies::Scratch(2), &[ANDERSON, ALTERNATING, PARTIAL, "settle.damping=0.1"])
    },
    case(Rule::CVF, &[14, 12, 10], Lies::Scratch(2), &[PARTIAL, ALTERNATING, "settle.damping=0.2"]),
];

impl Case {
    fn name(&self) -> String {
        format!("{:?} {:?} {:?} {:?}", self.rule, self.hidden, self.lies, self.settings)
    }

    fn config(&self) -> Config {
        let hidden: Vec<String> = self.hidden.iter().map(usize::to_string).collect();
        let dims = format!("network.dims=[{}, {}, {CLASSES}]", pixels(hidden.len()), hidden.join(", "));
        // Rates large enough for every update to be seen.
        let rates = ["0.06"; 8][..=self.hidden.len()].join(", ");
        let rates = format!("learning.learning_rates=[{rates}]");
        let short = [
            &dims,
            &rates,
            "settle.solver=iterate",
            "settle.order=synchronous",
            "settle.tolerance=0.0",
            "settle.steps=10",
            "learning.K=4",
        ];
        let settings = [&short[..], self.settings].concat();
        resolve(self.rule, self.hidden.len(), &settings).unwrap().config
    }

    /// β of each minibatch of each replica.
    fn betas(&self, config: &Config) -> Vec<Vec<f64>> {
        (0..REPLICAS as u64)
            .map(|r| (0..MINIBATCHES as u64).map(|m| config.beta(r * 31 + m)).collect())
            .collect()
    }

    /// The differences from the plain engine. Adds the right answers to `right`.
    fn problems(&self, compilers: &[Vec<&'static str>; 2], right: &AtomicUsize) -> Vec<String> {
        let (config, mut problems) = (self.config(), Vec::new());
        // The computation does not need a GPU.
        let job = config.job(&Device::Cpu);
        let alone: Vec<Parameters> = (0..REPLICAS as u64).map(|seed| parameters(&config, seed)).collect();
        let (theta, betas) = (stacked(&alone), self.betas(&config));
        // Fewer threads where each is one of the machine's.
        let threads = if self.watched { THREADS / 2 } else { THREADS };
        let kernel = self.lies.kernel(&job, &theta, threads);
        let emulator = Emulator::new(&compilers[usize::from(!self.watched)], &kernel);
        let learn = |theta: &Parameters, minibatches| {
            kernel
                .learn(theta, &course(self.hidden.len(), &betas, minibatches), |theta, course| {
                    emulator.launch(theta, course)
                })
                .unwrap()
        };
        let minibatches = if self.watched { MINIBATCHES - 1 } else { MINIBATCHES };
        let (learnt, reports) = learn(&theta, 0..minibatches);
        for (r, before) in alone.iter().enumerate() {
            let (expected, expected_reports) = plain(&job, before, r, &betas[r][..minibatches]);
            assert_eq!(reports[r].len(), minibatches);
            let answers = expected_reports.iter().map(|report| report.images - report.errors).sum();
            right.fetch_add(answers, Ordering::Relaxed);
            for (m, (ours, expected)) in reports[r].iter().zip(&expected_reports).enumerate() {
                let near = |ours: f64, expected: f64, off: f64| (ours - expected).abs() <= off;
                let same = near(ours.loss, expected.loss, 1e-4)
                    && near(ours.residual, expected.residual, 2e-5)
                    && near(ours.residual_two_steps, expected.residual_two_steps, 2e-5);
                let rounded = Report {
                    loss: expected.loss,
                    residual: expected.residual,
                    residual_two_steps: expected.residual_two_steps,
                    ..*ours
                };
                if !same || rounded != *expected {
                    problems.push(format!("replica {r}, minibatch {m}: {ours:?} and not {expected:?}"));
                }
            }
            let ends_early = expected_reports[0].steps < size(self.hidden.len()) * config.settle.steps;
            if (config.settle.tolerance > 0.0) != ends_early {
                problems.push(format!("replica {r}: {} steps of the images", expected_reports[0].steps));
            }
            for (((name, ours), (_, before)), (_, expected)) in
                learnt.named().iter().zip(before.named()).zip(expected.named())
            {
                let ours = ours.get(r).unwrap().reshape(expected.shape()).unwrap();
                let change = largest_difference(expected, before);
                let difference = largest_difference(&ours, expected);
                let last_bias = format!("forward.{}.bias", self.hidden.len());
                let frozen = *name == last_bias && config.learning.last_bias_frozen();
                let is_seen = if frozen { change == 0.0 } else { change > 1e-4 };
                if !is_seen || difference.is_nan() || difference > 1e-6 + 1e-4 * change {
                    problems.push(format!("replica {r}: {name}: off by {difference:e} of {change:e}"));
                }
            }
        }
        // The same bits in two launches; a second look at what takes longest is not worth its time.
        if !self.watched {
            let (first, _) = learn(&theta, 0..1);
            let (second, _) = learn(&first, 1..MINIBATCHES);
            for ((name, once), (_, twice)) in learnt.named().iter().zip(second.named()) {
                let difference = largest_difference(once, twice);
                if difference != 0.0 {
                    problems.push(format!("{name}: off by {difference:e} in two launches"));
                }
            }
        }
        problems.into_iter().map(|problem| format!("{}: {problem}", self.name())).collect()
    }
}

#[test]
fn the_kernel_equals_the_plain_engine() {
    let place = tempfile::tempdir().unwrap();
    let Some(compilers) = compilers(place.path()) else { return };
    let (next, right) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || -> Vec<String> {
        let mine = std::iter::from_fn(|| CASES.get(next.fetch_add(1, Ordering::Relaxed)));
        mine.flat_map(|case| case.problems(&compilers, &right)).collect()
    };
    let problems: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    // Else their count says nothing of the answers.
    assert!(right.into_inner() > 0, "all answers of all networks are wrong");
}

/// The presets at their own sizes, one minibatch: all that the kernel does with a chip's threads.
#[test]
#[ignore = "runs 8,192 threads in turn, for minutes"]
fn the_presets_equal_the_plain_engine() {
    let place = tempfile::tempdir().unwrap();
    if compilers(place.path()).is_none() {
        return;
    }
    let (size, pixels) = (20, 784);
    for (rule, depth) in [(Rule::CVF, 1), (Rule::CEP, 1), (Rule::CVF, 2), (Rule::EP, 2)] {
        let config = resolve(rule, depth, &[]).unwrap().config;
        let (job, theta) = (config.job(&Device::Cpu), parameters(&config, 0));
        let stacked = stacked(std::slice::from_ref(&theta));
        let kernel = Kernel::for_shape(&job, &stacked, size).unwrap();
        let emulator = Emulator::new(&["-std=c++20", "-O2", "-pthread"], &kernel);
        let images: Vec<u8> =
            (0..size * pixels).map(|at| if at % 7 < 5 { 0 } else { (at * 7919 % 251) as u8 }).collect();
        let labels: Vec<u8> = (0..size as u8).map(|i| i * 3 % 10).collect();
        let cpu = &Device::Cpu;
        let course = Course {
            images: Tensor::from_slice(&images, (size, pixels), cpu).unwrap(),
            labels: Tensor::from_slice(&labels, size, cpu).unwrap(),
            order: Tensor::arange(0, size as u32, cpu).unwrap().reshape((1, 1, size)).unwrap(),
            betas: Tensor::new(&[[config.learning.beta as f32]], cpu).unwrap(),
        };
        let (learnt, reports) =
            kernel.learn(&stacked, &course, |theta, course| emulator.launch(theta, course)).unwrap();
        let mut plain = Plain::new(job, theta.clone()).unwrap();
        let expected = plain.train(&Batch { images, labels }, config.learning.beta).unwrap();
        let report = reports[0][0];
        assert!((report.loss - expected.loss).abs() < 1e-4, "{report:?} and not {expected:?}");
        assert_eq!((report.errors, report.unsettled), (expected.errors, expected.unsettled));
        let plain = plain.parameters().unwrap();
        for (((name, ours), (_, before)), (_, expected)) in
            learnt.named().iter().zip(theta.named()).zip(plain.named())
        {
            let change = largest_difference(expected, before);
            let difference = largest_difference(&ours.reshape(expected.shape()).unwrap(), expected);
            eprintln!("{rule:?} {depth} {name}: off by {difference:e} of {change:e}");
            assert!(
                difference <= 1e-7 + 1e-2 * change,
                "{rule:?} {depth} {name}: off by {difference:e} of {change:e}"
            );
        }
    }
}

/// Weights that are no numbers leave no numbers in the report, and everything runs to its end.
#[test]
fn states_that_are_no_numbers_are_reported_as_such() {
    let place = tempfile::tempdir().unwrap();
    let Some([_, flags]) = compilers(place.path()) else { return };
    let case = case(Rule::CVF, ONE, Lies::Cluster(2), &[IGNORED, TOLERANCE]);
    let config = case.config();
    let job = config.job(&Device::Cpu);
    let mut lost = parameters(&config, 0);
    lost.weights[0] = (&lost.weights[0] * f64::NAN).unwrap();
    let (theta, betas) = (stacked(&[lost.clone(), parameters(&config, 1)]), case.betas(&config));
    let kernel = case.lies.kernel(&job, &theta, THREADS);
    let emulator = Emulator::new(&flags, &kernel);
    let (_, reports) = kernel
        .learn(&theta, &course(1, &betas, 0..MINIBATCHES), |theta, course| emulator.launch(theta, course))
        .unwrap();
    let (_, expected) = plain(&job, &lost, 0, &betas[0]);
    for (ours, expected) in reports[0].iter().zip(&expected) {
        let numbers = |report: &Report| {
            let counts = [report.images, report.errors, report.steps, report.unsettled];
            let residuals = [report.residual, report.residual_two_steps];
            (report.loss.is_nan(), residuals.map(f64::is_nan), counts)
        };
        assert!(expected.loss.is_nan() && expected.residual.is_nan());
        assert_eq!(numbers(ours), numbers(expected));
    }
    assert!(reports[1].iter().all(|report| report.is_finite()), "another replica is lost, too");
}

/// Jobs that the kernel cannot do are errors that say why, and `auto` never takes it.
#[test]
fn the_kernel_is_taken_only_where_it_is_asked_for_and_applies() {
    let asked = |rule: Rule, depth: usize, settings: &[&str]| {
        resolve(rule, depth, &[settings, &["training.engine=kernel"]].concat())
    };
    let mut wrong = Vec::new();
    for (rule, depth, settings, why) in [
        (Rule::CEP, 1, &["training.device=cpu"][..], "runs on a GPU only"),
        (Rule::CEP, 1, &["network.time=real"], "discrete time"),
        (Rule::BPTT, 1, &[], "ep, cep, cep-rescaled, vf and cvf"),
        (Rule::ASYM_EP, 1, &[], "ep, cep, cep-rescaled, vf and cvf"),
        (Rule::CEP, 1, &["training.dtype=f64"], "training.dtype = \"f32\""),
        (Rule::CEP, 1, &["synapse.law=momentum"], "ideal synapses"),
        (
            Rule::CVF,
            1,
            &[IGNORED, LEARNS, "learning.alignment=kolen-pollack"],
            "learning.alignment = \"none\"",
        ),
        (Rule::CEP, 1, &["network.activation=softplus"], "sigmoid, tanh and the hard sigmoid"),
        (Rule::CEP, 1, &["network.readout=softmax"], "softmax readout"),
        (Rule::CEP, 1, &["noise.states=0.01"], "[noise]"),
        (Rule::CEP, 1, &["network.input_mean=[0.1]", "network.input_std=[0.3]"], "normalises none"),
    ] {
        match asked(rule, depth, settings) {
            Ok(_) => wrong.push(format!("{rule:?} {settings:?} is taken")),
            Err(error) if !error.contains(why) => wrong.push(format!("{rule:?} {settings:?}: {error}")),
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    for (rule, depth) in
        [(Rule::EP, 2), (Rule::CEP, 1), (Rule::CEP_RESCALED, 2), (Rule::VF, 2), (Rule::CVF, 2)]
    {
        let config = asked(rule, depth, &[]).unwrap().config;
        let theta = parameters(&config, 0);
        let build = |kind, theta| engine::build(kind, config.job(&Device::Cpu), theta);
        let refused = build(config.training.engine, theta.clone()).err().expect("a kernel without a GPU");
        assert!(refused.to_string().contains("runs on a GPU only"), "{refused}");
        assert!(build(EngineKind::Auto, theta).is_ok());
    }
}

/// Sizes for which the chip has no room are errors that name them and say what to do.
#[test]
fn the_kernel_says_what_is_too_large_for_it() {
    let refusal = |dims: &str, images: usize, settings: &[&str]| {
        let settings = [settings, &[dims, "learning.learning_rates=[0.1, 0.1, 0.1]"]];
        let config = resolve(Rule::CVF, 2, &settings.concat()).unwrap().config;
        let theta = parameters(&config, 0);
        Kernel::for_shape(&config.job(&Device::Cpu), &theta, images).err().map(|error| error.to_string())
    };
    const PAPERS: &str = "network.dims=[784, 512, 512, 10]";
    assert_eq!(refusal(PAPERS, 20, &[]), None);
    for (dims, images, needed) in [
        ("network.dims=[784, 1024, 1024, 10]", 20, "[784, 1024, 1024, 10]"),
        (PAPERS, 200, "training.batch_size = 200"),
        (PAPERS, 0, "1 image or more"),
        ("network.dims=[70000, 12, 12, 10]", 20, "65536 pixels or fewer"),
    ] {
        let refusal = refusal(dims, images, &[]).unwrap_or_default();
        let remedy = "choose training.engine = \"auto\"";
        let remedies = [remedy, "or training.engine = \"auto\""];
        assert!(refusal.contains(needed), "{dims}: {refusal}");
        assert!(remedies.iter().any(|remedy| refusal.contains(remedy)), "{dims}: {refusal}");
    }
}

/// The presets' networks with one hidden layer lie in a block, or two where σ′ needs room, and those with two in 16.
#[test]
fn networks_of_the_paper_lie_in_as_few_blocks_as_they_can() {
    for (rule, depth, settings, blocks) in [
        (Rule::EP, 1, &[][..], 1),
        (Rule::CEP, 1, &[], 1),
        (Rule::CVF, 1, &[IGNORED], 1),
        (Rule::CVF, 1, &[PARTIAL], 2),
        (Rule::EP, 2, &[], 16),
        (Rule::CVF, 2, &[], 16),
    ] {
        let config = resolve(rule, depth, settings).unwrap().config;
        let theta = parameters(&config, 0);
        let kernel =
            Kernel::for_shape(&config.job(&Device::Cpu), &theta, config.training.batch_size).unwrap();
        assert_eq!(kernel.cluster(), blocks, "{rule:?} {depth} {settings:?}");
    }
}

/// Courses that do not fit are errors, and not memory that the kernel does not own.
#[test]
fn courses_that_do_not_fit_are_refused() {
    let case = case(Rule::EP, ONE, Lies::Block, &[]);
    let config = case.config();
    let theta = stacked(&[parameters(&config, 0), parameters(&config, 1)]);
    let kernel = case.lies.kernel(&config.job(&Device::Cpu), &theta, THREADS);
    let fitting = course(1, &case.betas(&config), 0..MINIBATCHES);
    let refusal = |course: Course| {
        let launch = |_: &Tensor, _: &Course| candle_core::bail!("launched");
        kernel.learn(&theta, &course, launch).unwrap_err().to_string()
    };
    assert!(refusal(fitting.clone()).contains("launched"));
    let cut = |tensor: &Tensor, dim: usize| tensor.narrow(dim, 0, 1).unwrap();
    let far = (&fitting.order + COUNT as f64).unwrap();
    for (course, why) in [
        (Course { order: far, ..fitting.clone() }, "asks for image"),
        (Course { order: cut(&fitting.order, 2), ..fitting.clone() }, "a course of 1 of 75"),
        (Course { order: cut(&fitting.order, 0), ..fitting.clone() }, "2 replicas"),
        (Course { images: cut(&fitting.images, 1), ..fitting.clone() }, "a course of 6 of 1"),
        (Course { labels: cut(&fitting.labels, 0), ..fitting.clone() }, "labels [1] of 23 images"),
        (Course { betas: cut(&fitting.betas, 1), ..fitting.clone() }, "betas [2, 1]"),
        (
            Course { labels: fitting.labels.to_dtype(DType::U32).unwrap(), ..fitting.clone() },
            "u8, u8, u32 and f32",
        ),
    ] {
        let refusal = refusal(course);
        assert!(refusal.contains(why), "{refusal}");
    }
}
