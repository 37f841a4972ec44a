//! The GPU against the CPU: the first minibatch within rounding, for every rule, depth and time.
//!
//! Skips with a message where this was built without the feature `cuda`, or no GPU answers.

use candle_core::{DType, Device, Tensor};
use eqprop::config::{Choices, Config, Resolved, parse_value};
use eqprop::data::Batch;
use eqprop::data::glyphs;
use eqprop::engine::replicas::Hub;
use eqprop::engine::{Engine, EngineKind, plain::Plain};
use eqprop::learning::Rule;
use eqprop::model::network::Parameters;

const KERNEL: &str = "training.engine=kernel";
const ALL_STEPS: &str = "settle.tolerance=0.0";

fn gpu() -> Option<Device> {
    if !candle_core::utils::cuda_is_available() {
        eprintln!("SKIPPED: built without the feature cuda");
        return None;
    }
    let device = Device::new_cuda(0);
    if let Err(error) = &device {
        eprintln!("SKIPPED: no GPU answers: {error}");
    }
    device.ok()
}

fn config(rule: Rule, depth: usize, settings: &[&str]) -> Config {
    let flags = (settings.iter())
        .map(|setting| {
            let (key, value) = setting.split_once('=').unwrap();
            ("test".to_string(), key.to_string(), parse_value(value))
        })
        .collect();
    Resolved::new(&Choices { algo: Some(rule), depth: Some(depth), flags, ..Choices::default() })
        .unwrap()
        .config
}

fn theta(config: &Config, device: &Device) -> Parameters {
    let network = &config.network;
    Parameters::init(config.network(), network.init, network.psi, 0, DType::F32, device).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_device(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn the_first_minibatch_is_the_cpus_within_rounding() {
    let Some(gpu) = gpu() else { return };
    let data = glyphs::dataset();
    let mut batch = Batch::default();
    data.train.gather(&(0..20).collect::<Vec<u32>>(), &mut batch);
    for (rule, depth, settings) in [
        (Rule::EP, 1, &[][..]),
        (Rule::CEP, 1, &[]),
        (Rule::VF, 1, &["network.psi=45"]),
        // In one kernel: in a block, in clusters of 2 and of 16; and step by step.
        (Rule::EP, 1, &[KERNEL, ALL_STEPS]),
        (Rule::EP, 1, &[KERNEL, "settle.tolerance=1e-4"]),
        (Rule::CEP, 1, &[KERNEL, ALL_STEPS]),
        (Rule::CEP_RESCALED, 1, &[KERNEL]),
        (Rule::VF, 1, &[KERNEL, ALL_STEPS, "network.psi=45", "learning.sigma_prime=ignored"]),
        (Rule::CVF, 1, &[KERNEL, ALL_STEPS, "network.psi=45", "learning.sigma_prime=ignored"]),
        (Rule::CVF, 1, &[KERNEL, "network.psi=45"]),
        (Rule::CVF, 1, &[KERNEL, "network.psi=45", "learning.nudging=centered", "settle.order=alternating"]),
        (Rule::EP, 2, &[KERNEL, ALL_STEPS, "settle.order=synchronous", "settle.solver=iterate"]),
        (Rule::EP, 2, &[KERNEL]),
        (Rule::CEP, 2, &[KERNEL]),
        (Rule::VF, 2, &[KERNEL, "network.psi=45"]),
        (Rule::CVF, 2, &[KERNEL, ALL_STEPS, "settle.order=synchronous", "settle.solver=iterate"]),
        (Rule::CVF, 2, &[KERNEL, "network.psi=45"]),
        (Rule::CVF, 1, &["network.psi=45", "learning.sigma_prime=ignored"]),
        (Rule::CVF, 1, &["network.psi=45"]),
        (Rule::CVF, 1, &["network.psi=45", "settle.tolerance=1e-7"]),
        (Rule::EP, 2, &["settle.tolerance=0.0"]),
        (Rule::CVF, 2, &["settle.tolerance=0.0"]),
        (Rule::EP, 2, &["settle.tolerance=0.0", "settle.order=synchronous", "settle.solver=iterate"]),
        (Rule::CVF, 2, &["settle.tolerance=0.0", "settle.order=synchronous", "settle.solver=iterate"]),
        (Rule::CEP_RESCALED, 1, &[]),
        (Rule::BPTT, 1, &[]),
        (Rule::RBP, 1, &[]),
        (Rule::CEP, 1, &["network.time=real"]),
        (Rule::CVF, 1, &["network.time=real", "learning.sigma_prime=ignored", "learning.authors_code=false"]),
    ] {
        let config = config(rule, depth, &[settings, &["network.init=fan-in"]].concat());
        let beta = config.learning.beta;
        let mut ours: Box<dyn Engine> = match rule.is_nudged() {
            true => {
                let hub = Hub::new(config.job(&gpu));
                let kernel = config.training.engine == EngineKind::Kernel;
                Box::new(hub.with_kernel(kernel).join(theta(&config, &gpu)))
            }
            false => Box::new(Plain::new(config.job(&gpu), theta(&config, &gpu)).unwrap()),
        };
        let mut cpu = Plain::new(config.job(&Device::Cpu), theta(&config, &Device::Cpu)).unwrap();
        let (ours_report, expected) = (ours.train(&batch, beta).unwrap(), cpu.train(&batch, beta).unwrap());
        let close = (ours_report.loss - expected.loss).abs() <= 1e-4 * expected.loss;
        assert!(close, "{rule:?} {settings:?}: loss {} and {}", ours_report.loss, expected.loss);
        let (ours, cpu, start) =
            (ours.parameters().unwrap(), cpu.parameters().unwrap(), theta(&config, &Device::Cpu));
        for (((name, ours), (_, cpu)), (_, start)) in ours.named().iter().zip(cpu.named()).zip(start.named())
        {
            let (ours, cpu, start) = (values(ours), values(cpu), values(start));
            let change = cpu.iter().zip(&start).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let difference = ours.iter().zip(&cpu).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let allowed = 1e-6 + 1e-2 * change;
            assert!(difference <= allowed, "{rule:?} {settings:?} {name}: {difference:e} of {change:e}");
        }
    }
}
