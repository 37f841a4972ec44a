//! Both phases of many minibatches in one CUDA launch, the weights of the hidden layers staying on the chip
//! ([`phases.cu`]).
//!
//! A network is computed by a block, or where that has too little memory by a cluster of blocks, which read each
//! other's new states ([`layout`](Chip)). `training.engine = "auto"` takes it on a GPU where it applies.
//!
//! What happens inside is the same as in the plain engine up to rounding, which `tests/kernel.rs` shows without a GPU:
//! it compiles the kernel for the CPU, with threads in the place of CUDA's.
//!
//! [`phases.cu`]: https://docs.rs/crate/eqprop/latest/source/src/engine/cuda/phases.cu

#[cfg(feature = "cuda")]
mod launch;
mod layout;

use super::{Job, Report, Why, cpu};
use crate::learning::{Form, Nudging, Schedule, SigmaPrime};
use crate::model::activation::Activation;
use crate::model::anderson::MOST_WINDOW;
use crate::model::{Network, Order, Parameters, Settle, Solver};
use candle_core::{DType, Result, Tensor, bail};
pub use layout::Chip;
use layout::{Aside, Layout, Sizes};

/// The kernel's source, before which its definitions belong.
const SOURCE: &str = include_str!("phases.cu");

/// The kernel for one job, and networks and minibatches of one size.
#[derive(Clone, Debug)]
pub struct Kernel {
    images: usize,
    pixels: usize,
    layout: Layout,
    /// [`SOURCE`] after the definitions that it asks for.
    source: String,
}

/// Minibatches that replicas learn one after another. All tensors are on the device of θ.
#[derive(Clone, Debug)]
pub struct Course {
    /// All training images as bytes, (n, d_in) u8; x = byte/255.
    pub images: Tensor,
    /// Their classes, (n,) u8.
    pub labels: Tensor,
    /// Numbers of the images of each minibatch, (R, M, B) u32.
    pub order: Tensor,
    /// β of each minibatch with its sign, (R, M) f32.
    pub betas: Tensor,
}

/// The numbers of a minibatch's report, in the order in which the kernel has them.
pub const REPORTED: usize = 6;

/// The most pixels: sums of products of bytes are 32 bits.
const MOST_PIXELS: usize = 1 << 16;

/// Checks that the kernel can run this, whatever the sizes.
///
/// # Errors
/// Why not.
pub fn supports(network: &Network, job: &Job, dtype: DType) -> std::result::Result<(), Why> {
    let Job { model, learning, .. } = job;
    let needs = [
        (cpu::runs(network, job), "runs ep, cep, cep-rescaled, vf and cvf in discrete time"),
        (!network.has_convolutions(), "has no convolutions, which run on the plain engine"),
        (learning.alignment.is_none(), "aligns no weights: it needs learning.alignment = \"none\""),
        (model.synapse.name() == "ideal", "has ideal synapses only: it needs synapse.law = \"ideal\""),
        (
            model.settle.sweeps() > 0,
            "takes steps in the first phase: it needs settle.steps of a sweep at least",
        ),
        (learning.K > 0, "takes steps in the second phase: it needs learning.K of 1 at least"),
        (dtype == DType::F32, "computes in float32: it needs training.dtype = \"f32\""),
    ];
    match needs.into_iter().find(|(met, _)| !met) {
        Some((_, why)) => Err(why.into()),
        None => cpu::supports(network, job),
    }
}

/// The kernel's name for an activation, if it has it.
fn activation_name(activation: Activation) -> Option<&'static str> {
    match activation {
        Activation::Sigmoid => Some("SIGMOID"),
        Activation::Tanh => Some("TANH"),
        Activation::HardSigmoid => Some("HARD_SIGMOID"),
        _ => None,
    }
}

impl Kernel {
    /// The kernel for these stacked weights and minibatches of so many images, on the chip where the weights lie.
    ///
    /// # Errors
    /// Where it cannot run them ([`supports`]), and for what is too large for the chip.
    pub fn for_shape(job: &Job, theta: &Parameters, images: usize) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let candle_core::Device::Cuda(device) = theta.device() {
            return Self::for_chip(job, theta, images, &launch::chip(device)?);
        }
        Self::for_chip(job, theta, images, &Chip::HOPPER)
    }

    /// [`Kernel::for_shape`] on another chip.
    ///
    /// # Errors
    /// As [`Kernel::for_shape`].
    pub fn for_chip(job: &Job, theta: &Parameters, images: usize, chip: &Chip) -> Result<Self> {
        let Job { model, learning, .. } = job;
        let network = &theta.network;
        if let Err(why) = supports(network, job, theta.dtype()) {
            bail!("the CUDA kernel of both phases {why}");
        }
        let (Some(schedule), Some(activation)) =
            (learning.rule.schedule(), activation_name(model.dynamics.activation))
        else {
            bail!("the CUDA kernel of both phases has no such rule or activation");
        };
        let last = network.dims.depth();
        let widths: Vec<usize> = (0..=last).map(|n| network.dims.width(n)).collect();
        let pixels = network.dims.input();
        let gated = match learning.sigma_prime {
            SigmaPrime::Ignored => 0,
            SigmaPrime::Full => 1,
            SigmaPrime::Partial => 2,
        };
        let centered = learning.nudging == Nudging::Centered;
        let whole = matches!(schedule, Schedule::Whole | Schedule::Rescaled);
        let hot = 2 + gated;
        let arrays = [hot, hot + usize::from(whole || centered) + usize::from(whole && centered)];
        let aside = match schedule {
            Schedule::Sum => Aside::Weights,
            Schedule::Rescaled => Aside::Everything,
            Schedule::Whole | Schedule::Continual => Aside::Nothing,
        };
        let sizes = Sizes { widths: &widths, pixels, images, arrays, aside, window: window(&model.settle) };
        let layout = match Layout::of(&sizes, chip) {
            _ if pixels > MOST_PIXELS || images == 0 => bail!(
                "the CUDA kernel of both phases takes 1 image or more of {MOST_PIXELS} pixels or fewer, and not {images} \
                 of {pixels}: choose training.engine = \"auto\""
            ),
            Ok(layout) => layout,
            Err(bytes) => bail!(
                "the CUDA kernel of both phases has {} bytes of memory in each of {} blocks; network.dims = {:?} with \
                 training.batch_size = {images} needs {bytes}: choose smaller ones, or training.engine = \"auto\"",
                chip.memory,
                chip.cluster,
                network.dims.0
            ),
        };
        let definitions = definitions(job, schedule, activation, &widths, pixels, images, &layout);
        Ok(Self { images, pixels, layout, source: definitions + SOURCE })
    }

    /// Threads in a block.
    pub fn threads(&self) -> usize {
        self.layout.threads
    }

    /// Blocks that compute a network.
    pub fn cluster(&self) -> usize {
        self.layout.cluster
    }

    /// The source for the compiler.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Learns all minibatches: the new stacked θ, and the report of the first phase of every minibatch of every
    /// replica, `[r][m]`. `launch` runs the kernel on θ, (R, parameters) in the order of weights and then biases, and
    /// returns the new θ and its [`REPORTED`] numbers of each report, (R, M, 6) f64.
    ///
    /// # Errors
    /// For a course that does not fit the kernel or θ, and those of candle and of `launch`.
    pub fn learn(
        &self,
        theta: &Parameters,
        course: &Course,
        launch: impl Fn(&Tensor, &Course) -> Result<(Tensor, Tensor)>,
    ) -> Result<(Parameters, Vec<Vec<Report>>)> {
        let replicas = theta.biases[0].dim(0)?;
        self.check(replicas, course)?;
        let parts: Vec<&Tensor> = theta.weights.iter().chain(&theta.biases).collect();
        let flat: Vec<Tensor> =
            parts.iter().map(|part| part.reshape((replicas, ()))).collect::<Result<_>>()?;
        let (learnt, reports) = launch(&Tensor::cat(&flat, 1)?.contiguous()?, course)?;

        let mut start = 0;
        let mut learnt_parts = flat.iter().zip(&parts).map(|(flat, part)| {
            let size = flat.dim(1)?;
            start += size;
            learnt.narrow(1, start - size, size)?.contiguous()?.reshape(part.shape())
        });
        let weights = learnt_parts.by_ref().take(theta.weights.len()).collect::<Result<_>>()?;
        let biases = learnt_parts.collect::<Result<_>>()?;
        let reports = (reports.to_vec3::<f64>()?.iter())
            .map(|replica| replica.iter().map(|numbers| self.report(numbers)).collect())
            .collect();
        Ok((Parameters { network: theta.network.clone(), weights, biases }, reports))
    }

    /// [`Kernel::learn`] on the GPU of θ.
    ///
    /// # Errors
    /// As [`Kernel::learn`]; where θ is not on a GPU, and without the feature `cuda`.
    pub fn learn_on_gpu(
        &self,
        theta: &Parameters,
        course: &Course,
    ) -> Result<(Parameters, Vec<Vec<Report>>)> {
        #[cfg(feature = "cuda")]
        return self.learn(theta, course, |theta, course| launch::launch(self, theta, course));
        #[cfg(not(feature = "cuda"))]
        self.learn(theta, course, |_, _| {
            bail!("the CUDA kernel of both phases needs a build with --features cuda: choose training.engine = \"auto\"")
        })
    }

    /// Checks that the course fits.
    fn check(&self, replicas: usize, course: &Course) -> Result<()> {
        let Course { images, labels, order, betas } = course;
        let (count, pixels) = images.dims2()?;
        let (_, minibatches, size) = order.dims3()?;
        let fits = pixels == self.pixels
            && labels.dims() == [count]
            && order.dims() == [replicas, minibatches, self.images]
            && betas.dims() == [replicas, minibatches];
        if !fits {
            bail!(
                "a kernel for {} images of {} pixels and {replicas} replicas meets a course of {size} of {pixels}, order \
                 {:?}, labels {:?} of {count} images, and betas {:?}",
                self.images,
                self.pixels,
                order.dims(),
                labels.dims(),
                betas.dims()
            );
        }
        let types = [images.dtype(), labels.dtype(), order.dtype(), betas.dtype()];
        if types != [DType::U8, DType::U8, DType::U32, DType::F32] {
            bail!("a course has images, labels, order and betas of u8, u8, u32 and f32, and not {types:?}");
        }
        if order.elem_count() == 0 {
            bail!("a course has one minibatch or more");
        }
        let largest = order.flatten_all()?.max(0)?.to_scalar::<u32>()?;
        if largest as usize >= count {
            bail!("a course of {count} images asks for image {largest}");
        }
        Ok(())
    }

    /// A report from the numbers of the kernel.
    fn report(&self, numbers: &[f64]) -> Report {
        Report {
            images: self.images,
            errors: numbers[0] as usize,
            loss: numbers[1],
            residual: numbers[2],
            residual_two_steps: numbers[3],
            steps: numbers[4] as usize,
            unsettled: numbers[5] as usize,
        }
    }
}

/// The differences that Anderson's acceleration uses, none where sweeps are not accelerated.
fn window(settle: &Settle) -> usize {
    match settle.solver {
        Solver::Iterate => 0,
        Solver::Anderson => settle.window.clamp(1, MOST_WINDOW),
    }
}

/// The definitions that the source asks its compiler for.
fn definitions(
    Job { model, learning, .. }: &Job,
    schedule: Schedule,
    activation: &str,
    widths: &[usize],
    pixels: usize,
    images: usize,
    layout: &Layout,
) -> String {
    let rule = match (schedule, learning.form()) {
        (Schedule::Whole, _) => "EP",
        (Schedule::Rescaled, _) => "CEP_RESCALED",
        (Schedule::Continual, Some(Form::Correlation)) => "CEP",
        (Schedule::Continual, _) => "CVF",
        (Schedule::Sum, _) => "VF",
    };
    let sigma_prime = match learning.sigma_prime {
        SigmaPrime::Ignored => "IGNORED",
        SigmaPrime::Partial => "PARTIAL",
        SigmaPrime::Full => "FULL",
    };
    let order = match model.settle.order {
        Order::Synchronous => "SYNCHRONOUS",
        Order::Alternating => "ALTERNATING",
    };
    let look_every = (0..).find(|&sweep| Settle { tolerance: 1.0, ..model.settle }.looks_after(sweep));
    // η_n/B, half of it in each of two branches.
    let share = learning.nudging.signs().len() * images;
    let rates = (0..widths.len()).map(|n| learning.rate(n) / share as f64);
    let listed = |numbers: Vec<String>| numbers.join(",");
    let float = |number: f64| format!("{:?}f", number as f32);
    let lines = [
        format!("#define LAYERS {}", widths.len()),
        format!("#define WIDTHS {}", listed(widths.iter().map(usize::to_string).collect())),
        format!("#define PIXELS {pixels}"),
        format!("#define IMAGES {images}"),
        format!("#define RULE {rule}"),
        format!("#define SIGMA_PRIME {sigma_prime}"),
        format!("#define CENTERED {}", u8::from(learning.nudging == Nudging::Centered)),
        format!("#define RATES {}", listed(rates.map(float).collect())),
        format!("#define TINY {}", float(learning.tiny)),
        format!("#define LAST_BIAS_FROZEN {}", u8::from(learning.last_bias_frozen())),
        format!("#define SWEEPS {}", model.settle.sweeps()),
        format!("#define ORDER {order}"),
        format!("#define TOLERANCE {:?}", model.settle.tolerance),
        format!("#define LOOK_EVERY {}", look_every.unwrap_or_default() + 1),
        format!("#define DAMPING {}", float(model.settle.damping)),
        format!("#define WINDOW {}", window(&model.settle)),
        format!("#define SECOND_STEPS {}", learning.K),
        format!("#define ACTIVATION {activation}"),
        format!("#define CLUSTER {}", layout.cluster),
        format!("#define THREADS {}", layout.threads),
        format!("#define ON_CHIP {}", layout.on_chip),
        format!("#define CHUNK {}", layout.chunk),
        format!("#define SHARED_BYTES {}", layout.shared_bytes),
        format!("#define SCRATCH {}", layout.scratch),
    ];
    lines.map(|line| line + "\n").concat()
}
