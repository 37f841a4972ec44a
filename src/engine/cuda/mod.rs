//! Both phases in one CUDA kernel, one block for each replica, for networks with one hidden layer ([`phases.cu`]).
//!
//! It has never run on a GPU, so it is taken only where it is asked for: `training.engine = "kernel"`.
//!
//! What surrounds the kernel is candle: the drive before it, the input weights after it. What happens inside is the
//! same as in the plain engine up to rounding, which `tests/kernel.rs` shows without a GPU: it compiles the kernel
//! for the CPU, with threads in the place of CUDA's.
//!
//! [`phases.cu`]: https://docs.rs/crate/eqprop/latest/source/src/engine/cuda/phases.cu

use super::plain::report_of;
use super::{Job, Report, Why, cpu};
use crate::data::{one_hot, pixels};
use crate::learning::{Nudging, Schedule, SigmaPrime};
use crate::model::activation::Activation;
use crate::model::dynamics::{Beta, Nudge};
use crate::model::{Network, Order, Parameters, Settled, Solver};
use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Result, Shape, Tensor, bail};

/// The kernel's source.
pub const SOURCE: &str = include_str!("phases.cu");

/// The kernel for networks and minibatches of one size.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    images: usize,
    hidden: usize,
    classes: usize,
    first_steps: usize,
    second_steps: usize,
    tied: bool,
    schedule: Schedule,
    /// The kernel's name for σ.
    activation: &'static str,
    /// The bits of the damping in f32, which can be compared.
    damping: u32,
}

/// Minibatches that replicas learn one after another; all tensors on the device of θ.
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

/// Most memory that the threads of a block can share, bytes (compute capability 9.0).
const SHARED_MEMORY: usize = 227 << 10;

/// Checks that the kernel can run this, whatever the sizes.
///
/// # Errors
/// Why not.
pub fn supports(network: &Network, job: &Job, dtype: DType) -> std::result::Result<(), Why> {
    let Job { model, learning, .. } = job;
    let needs = [
        (
            cpu::runs(network, job) && learning.rule.schedule() != Some(Schedule::Rescaled),
            "runs ep, cep, vf and cvf in discrete time",
        ),
        (!network.has_convolutions(), "has no convolutions, which run on the plain engine"),
        (learning.alignment.is_none(), "aligns no weights: it needs learning.alignment = \"none\""),
        (model.synapse.name() == "ideal", "has ideal synapses only"),
        (network.dims.depth() == 1, "runs networks with one hidden layer"),
        (model.settle.tolerance == 0.0, "runs all T steps: it needs settle.tolerance = 0.0"),
        (
            model.settle.order == Order::Synchronous,
            "updates all layers at once: it needs settle.order = \"synchronous\"",
        ),
        (model.settle.solver == Solver::Iterate, "iterates plainly: it needs settle.solver = \"iterate\""),
        (
            learning.nudging != Nudging::Centered,
            "nudges once: it needs learning.nudging = \"positive\" or \"random\"",
        ),
        (
            learning.sigma_prime == SigmaPrime::Ignored,
            "has no σ′ in the updates: it needs learning.sigma_prime = \"ignored\"",
        ),
        (dtype == DType::F32, "computes in float32: it needs training.dtype = \"f32\""),
    ];
    match needs.into_iter().find(|(met, _)| !met) {
        Some((_, why)) => Err(why.into()),
        None => cpu::supports(network, job),
    }
}

/// The kernel's name for an activation, if it has it.
fn definition(activation: Activation) -> Option<&'static str> {
    match activation {
        Activation::Sigmoid => Some("SIGMOID"),
        Activation::Tanh => Some("TANH"),
        Activation::HardSigmoid => Some("HARD_SIGMOID"),
        _ => None,
    }
}

impl Kernel {
    /// The kernel for these stacked weights and minibatches of so many images.
    ///
    /// # Errors
    /// Where it cannot run them ([`supports`]), and for what is too large for a block.
    pub fn for_shape(job: &Job, theta: &Parameters, images: usize) -> Result<Self> {
        let Job { model, learning, .. } = job;
        let (_, classes, hidden) = theta.weights[0].dims3()?;
        let supported = supports(&theta.network, job, theta.dtype());
        let (schedule, activation) =
            match (learning.rule.schedule(), definition(model.dynamics.activation), supported) {
                (Some(schedule), Some(activation), Ok(())) => (schedule, activation),
                (.., Err(why)) => bail!("the CUDA kernel of both phases {why}"),
                (.., Ok(())) => {
                    bail!("the CUDA kernel of both phases runs both phases, of activations that it knows")
                }
            };
        let kernel = Self {
            images,
            hidden,
            classes,
            first_steps: model.settle.steps,
            second_steps: learning.K,
            tied: theta.network.is_tied(),
            schedule,
            activation,
            damping: (model.settle.damping as f32).to_bits(),
        };
        if classes > hidden || hidden > 1024 || kernel.shared_bytes() > SHARED_MEMORY {
            bail!(
                "the CUDA kernel of both phases holds at most 1024 hidden neurons, no more classes than those, and \
                 {SHARED_MEMORY} bytes; {hidden} hidden neurons, {classes} classes and {images} images take {}: \
                 choose training.engine = \"auto\"",
                kernel.shared_bytes()
            );
        }
        Ok(kernel)
    }

    /// Learns all minibatches, each in one launch: the new θ, and the reports of each replica.
    ///
    /// # Errors
    /// Those of candle and of the GPU.
    pub fn learn_on_gpu(
        &self,
        job: &Job,
        theta: &Parameters,
        course: &Course,
    ) -> Result<(Parameters, Vec<Vec<Report>>)> {
        let (replicas, minibatches, images) = course.order.dims3()?;
        let betas = course.betas.to_vec2::<f32>()?;
        let mut theta = theta.clone();
        let mut reports = vec![Vec::new(); replicas];
        for m in 0..minibatches {
            let numbers = course.order.narrow(1, m, 1)?.flatten_all()?;
            let x = pixels(&course.images.index_select(&numbers, 0)?, DType::F32)?;
            let labels = course.labels.index_select(&numbers, 0)?.to_vec1::<u8>()?;
            let target = Tensor::from_vec(
                one_hot(&labels, self.classes),
                (replicas, images, self.classes),
                x.device(),
            )?;
            let target = &target.to_dtype(DType::F32)?;
            let of_minibatch: Vec<f64> = betas.iter().map(|betas| f64::from(betas[m])).collect();
            let signs = Beta::signs(&of_minibatch, DType::F32, x.device())?;
            let beta = Beta::of_replicas(job.learning.beta, &signs);
            let nudge = Nudge { loss: job.model.loss, target, beta };
            let launch = |given: &Tensor| given.apply_op1_no_bwd(self);
            let recent;
            (recent, theta) = self.run(job, &theta, &x.reshape((replicas, images, ()))?, nudge, launch)?;
            let steps = vec![self.first_steps; replicas * images];
            let converged = vec![false; steps.len()];
            let settled = Settled { recent, steps, converged, nearest: 0 };
            let outcome = settled.outcome()?.to_vec2::<f64>()?;
            for (r, reports) in reports.iter_mut().enumerate() {
                let rows = r * images..(r + 1) * images;
                let (outcome, steps) = (&outcome[rows.clone()], &settled.steps[rows.clone()]);
                reports.push(report_of(job.model.loss, outcome, steps, &labels[rows])?);
            }
        }
        Ok((theta, reports))
    }

    /// Threads in a block.
    pub fn threads(&self) -> usize {
        self.hidden.div_ceil(32) * 32
    }

    /// Size of `Shared`, bytes.
    fn shared_bytes(&self) -> usize {
        let (b, d, c) = (self.images, self.hidden, self.classes);
        4 * (b * d + c * d + b * b + 3 * b * c + c)
    }

    /// Sizes of the kernel's inputs for a replica, in order.
    fn given(&self) -> [usize; 7] {
        let (b, d, c) = (self.images, self.hidden, self.classes);
        [b * d, b * b, c * d, if self.tied { 0 } else { d * c }, c, b * c, 2]
    }

    /// Sizes of its outputs for a replica, in order.
    fn returned(&self) -> [usize; 6] {
        let (b, d, c) = (self.images, self.hidden, self.classes);
        [3 * b * d, 3 * b * c, b * d, c * d, if self.tied { 0 } else { d * c }, c]
    }

    /// Definitions for the compiler.
    pub fn definitions(&self) -> Vec<String> {
        let rule = match (self.tied, self.schedule) {
            (true, Schedule::Continual) => "CEP",
            (true, _) => "EP",
            (false, Schedule::Continual) => "CVF",
            (false, _) => "VF",
        };
        vec![
            format!("-DIMAGES={}", self.images),
            format!("-DHIDDEN={}", self.hidden),
            format!("-DCLASSES={}", self.classes),
            format!("-DFIRST_STEPS={}", self.first_steps),
            format!("-DSECOND_STEPS={}", self.second_steps),
            format!("-DRULE={rule}"),
            format!("-DACTIVATION={}", self.activation),
            format!("-DDAMPING={:?}f", f32::from_bits(self.damping)),
        ]
    }

    /// The count of numbers that the kernel returns for a replica.
    pub fn returned_size(&self) -> usize {
        self.returned().iter().sum()
    }

    /// Runs both phases and returns s_{T−2}, s_{T−1}, s_T, and the new θ. `launch` runs the kernel on its input, (R,
    /// numbers in), and returns its output, (R, numbers out).
    ///
    /// # Errors
    /// Those of candle and of `launch`.
    pub fn run(
        &self,
        Job { model, learning, .. }: &Job,
        theta: &Parameters,
        x: &Tensor,
        nudge: Nudge,
        launch: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<([Vec<Tensor>; 3], Parameters)> {
        let (replicas, images, _) = x.dims3()?;
        let (b, d, c) = (self.images, self.hidden, self.classes);
        if images != b {
            bail!("a kernel for {b} images meets {images}");
        }
        let (dtype, device) = (x.dtype(), x.device());
        let Some(drive) = model.dynamics.drive(theta, x)?.remove(1) else { bail!("no input") };
        let one = Tensor::ones((replicas, 1, 1), dtype, device)?;
        let Nudge { target, beta, .. } = nudge;
        // c_N and η_0/(βB) with the sign of each replica's β.
        let c_n = |n: usize| beta.scale(&one, |beta| learning.rate(n) / (beta * images as f64));
        let with_bias = if learning.last_bias_frozen() { 0.0 } else { 1.0 };
        let gram = (x.matmul(&x.t()?)? + with_bias)?.broadcast_mul(&c_n(1)?)?;
        let mut given = vec![drive, gram, theta.weights[0].clone()];
        given.extend(theta.weights.get(2).cloned());
        let beta = beta.scale(&one, |beta| beta)?;
        given.extend([theta.biases[0].clone(), target.clone(), beta, c_n(0)?]);
        let given: Vec<Tensor> =
            given.iter().map(|tensor| tensor.reshape((replicas, ()))).collect::<Result<_>>()?;
        let packed = Tensor::cat(&given, 1)?.contiguous()?;
        debug_assert_eq!(packed.dim(1)?, self.given().iter().sum::<usize>());

        let returned = launch(&packed)?;
        let mut start = 0;
        let mut parts = Vec::new();
        for size in self.returned() {
            parts.push(returned.narrow(1, start, size)?.contiguous()?);
            start += size;
        }
        let hidden = parts[0].reshape((replicas, 3, b, d))?;
        let output = parts[1].reshape((replicas, 3, b, c))?;
        let state = |age: usize| -> Result<Vec<Tensor>> {
            Ok(vec![
                output.narrow(1, age, 1)?.squeeze(1)?.contiguous()?,
                hidden.narrow(1, age, 1)?.squeeze(1)?.contiguous()?,
            ])
        };
        let recent = [state(0)?, state(1)?, state(2)?];
        let moved = (parts[2].reshape((replicas, b, d))? - &recent[2][1])?;
        let c_last = c_n(1)?;
        let (w, b_n) = (&theta.weights[1], &theta.biases[1]);
        let weight = (w + moved.t()?.contiguous()?.matmul(x)?.broadcast_mul(&c_last)?)?;
        let bias = match learning.last_bias_frozen() {
            true => b_n.clone(),
            false => (b_n + moved.sum_keepdim(D::Minus2)?.broadcast_mul(&c_last)?)?,
        };
        let mut weights = vec![parts[3].reshape((replicas, c, d))?, weight];
        if !self.tied {
            weights.push(parts[4].reshape((replicas, d, c))?);
        }
        let biases = vec![parts[5].reshape((replicas, 1, c))?, bias];
        Ok((recent, Parameters { network: theta.network.clone(), weights, biases }))
    }
}

impl CustomOp1 for Kernel {
    fn name(&self) -> &'static str {
        "both phases"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("the kernel of both phases runs on a GPU; on a CPU the fused engine does the same")
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        launch::launch(self, storage, layout)
    }
}

#[cfg(feature = "cuda")]
mod launch {
    use super::{Kernel, SOURCE};
    use candle_core::backend::BackendStorage;
    use candle_core::cuda_backend::WrapErr;
    use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute_enum;
    use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
    use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
    use candle_core::{CudaStorage, Layout, Result, Shape, bail};
    use std::collections::HashMap;
    use std::sync::Mutex;

    /// Code that NVRTC has compiled, by kernel.
    static COMPILED: Mutex<Option<HashMap<Kernel, String>>> = Mutex::new(None);

    fn compiled(kernel: &Kernel) -> Result<String> {
        let mut compiled = COMPILED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = compiled.get_or_insert_default();
        if let Some(ptx) = known.get(kernel) {
            return Ok(ptx.clone());
        }
        let options = CompileOptions { options: kernel.definitions(), ..CompileOptions::default() };
        let ptx = match compile_ptx_with_opts(SOURCE, options) {
            Ok(ptx) => ptx.to_src(),
            Err(error) => bail!("the CUDA kernel of both phases does not compile: {error:?}"),
        };
        known.insert(kernel.clone(), ptx.clone());
        Ok(ptx)
    }

    pub fn launch(kernel: &Kernel, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let device = storage.device().clone();
        let (replicas, _) = layout.shape().dims2()?;
        let given = storage.as_cuda_slice::<f32>()?.slice(layout.start_offset()..);
        let name = format!("{kernel:?}");
        let function = device.get_or_load_custom_func("phases", &name, &compiled(kernel)?)?;
        let shared = kernel.shared_bytes();
        let attribute = CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function.set_attribute(attribute, shared as i32).w()?;
        let size = kernel.returned_size();
        // Zeros, as the states before the first step are.
        let returned = device.alloc_zeros::<f32>(replicas * size)?;
        let config = LaunchConfig {
            grid_dim: (replicas as u32, 1, 1),
            block_dim: (kernel.threads() as u32, 1, 1),
            shared_mem_bytes: shared as u32,
        };
        let mut builder = function.builder();
        builder.arg(&given);
        builder.arg(&returned);
        // SAFETY: the kernel reads IN and writes OUT numbers for each replica, the sizes of both.
        unsafe { builder.launch(config) }.w()?;
        Ok((CudaStorage::wrap_cuda_slice(returned, device), Shape::from((replicas, size))))
    }
}
