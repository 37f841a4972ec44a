//! Resources that the runs of one process share: data sets, devices, and the hubs where replicas meet.

use super::error::{Result, refuse};
use super::progress::Progress;
use super::source::Recorded;
use super::train::TEST_BATCH;
use crate::base::panic::guard;
use crate::base::waiting::Waiting;
use crate::config::{Config, DeviceChoice, TrainingConfig};
use crate::data::{self, DataChoice, Dataset, Split};
use crate::engine::replicas::Hub;
use crate::engine::{self, Engine, EngineKind, replicas};
use crate::model::network::Parameters;
use candle_core::Device;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use tracing::{info, warn};

/// Free memory of a GPU in bytes; `None` for a CPU.
///
/// # Errors
/// What the driver says where it does not tell.
#[cfg(feature = "cuda")]
fn free_memory(device: &Device) -> Result<Option<usize>> {
    let Device::Cuda(gpu) = device else { return Ok(None) };
    // Through the context of the device, which may not be the current one of this thread.
    match gpu.cuda_stream().context().mem_get_info() {
        Ok((free, _)) => Ok(Some(free)),
        Err(error) => refuse!(
            "the GPU does not say how much of its memory is free ({error}): is another program hindering it? \
             --workers N says how many runs to train together, and --device cpu goes without"
        ),
    }
}

/// Free memory of a GPU in bytes; `None` for a CPU.
///
/// # Errors
/// None.
#[cfg(not(feature = "cuda"))]
fn free_memory(_: &Device) -> Result<Option<usize>> {
    Ok(None)
}

/// The most runs that compute together: each has a thread, and more would only wait for each other.
const MOST_TOGETHER: usize = 256;

/// Data sets in memory once for all runs, one device for all, and engines that compute together where that pays.
#[derive(Default)]
pub struct Resources {
    data_dir: Option<PathBuf>,
    /// Complete sets.
    data: Mutex<HashMap<String, Arc<Dataset>>>,
    /// Parts of them, for as long as a run uses them.
    limited: Mutex<HashMap<String, Weak<Dataset>>>,
    no_network: bool,
    device: Mutex<Option<Device>>,
    /// Hubs by the properties that replicas must share; `None` where every run computes by itself.
    hubs: Option<Mutex<HashMap<String, Hub>>>,
}

impl Resources {
    /// Resources for runs that compute by themselves, with the user's data folder, if any.
    pub fn new(data_dir: Option<PathBuf>) -> Self {
        Self { data_dir, ..Self::default() }
    }

    /// Never downloads: data that would have to be downloaded are replaced by others of their sizes, with a message.
    /// For plans and outlines.
    pub fn without_network(self) -> Self {
        Self { no_network: true, ..self }
    }

    /// Lets runs of one shape compute together as replicas; each needs a thread of its own.
    pub fn computing_together(self) -> Self {
        Self { hubs: Some(Mutex::default()), ..self }
    }

    /// The name of the engine that [`Resources::engine`] makes.
    pub fn engine_name(&self, config: &Config, device: &Device) -> &'static str {
        let (job, kind) = (config.job(device), config.training.engine);
        match kind.chosen(&config.network(), &job, config.training.dtype.dtype()).unwrap_or(kind) {
            EngineKind::Fused => "fused",
            EngineKind::Kernel => "kernel",
            _ if (self.hubs.is_some() || device.is_cuda())
                && replicas::supports(&config.network(), &job).is_ok() =>
            {
                "replicas"
            }
            _ => "plain",
        }
    }

    /// A sentence about that engine; for the plain one it says why the fast one does not compute, and what that
    /// costs.
    pub fn engine_in_words(&self, config: &Config, device: &Device) -> String {
        let (name, dtype) = (self.engine_name(config, device), config.training.dtype.dtype());
        if name == "kernel" {
            return "the kernel computes: both phases of many minibatches in one launch".into();
        }
        if device.is_cuda() {
            let why = match EngineKind::Kernel.chosen(&config.network(), &config.job(device), dtype) {
                Ok(_) => "as training.engine asks for".to_string(),
                Err(why) => format!("since the kernel {why}"),
            };
            // docs/cuda.md, "What is fastest".
            return format!(
                "the {name} engine computes step by step, {why}: a minibatch takes tens of milliseconds"
            );
        }
        if name != "plain" {
            return format!("the {name} engine computes");
        }
        if config.network.dims.has_convolutions() {
            return "the plain engine computes, which alone has convolutions".into();
        }
        let why = match EngineKind::Fused.chosen(&config.network(), &config.job(device), dtype) {
            Ok(_) => "as training.engine asks for".to_string(),
            Err(why) => format!("since the fused one {why}"),
        };
        // docs/performance.md, "With and without the fused engine".
        format!("the plain engine computes, {why}: a minibatch takes about 7 to 25 times as long")
    }

    /// The user's data folder, if any.
    pub fn data_dir(&self) -> Option<&Path> {
        self.data_dir.as_deref()
    }

    /// The data set that a configuration asks for.
    ///
    /// # Errors
    /// As [`data::load`], and [`Dataset::hold_out`].
    pub fn dataset(&self, training: &TrainingConfig) -> Result<Arc<Dataset>> {
        let whole = self.whole_dataset(training)?;
        hold_out(whole, training)
    }

    fn whole_dataset(&self, training: &TrainingConfig) -> Result<Arc<Dataset>> {
        let key = format!("{:?}", training.data);
        let mut loaded = guard(&self.data);
        if let Some(dataset) = loaded.get(&key) {
            let dataset = dataset.clone();
            drop(loaded);
            return Ok(self.limited(&key, dataset, training));
        }
        let _waiting = Waiting::on("reading the data");
        let dataset = Arc::new(match self.stand_in(training.data) {
            Some(stand_in) => stand_in,
            None => data::load(training.data, self.data_dir.as_deref())?,
        });
        loaded.insert(key.clone(), dataset.clone());
        drop(loaded);
        Ok(self.limited(&key, dataset, training))
    }

    /// The first images of the set `key`, where the configuration limits them. Runs that use them at the same time
    /// share them; they are freed afterwards.
    fn limited(&self, key: &str, whole: Arc<Dataset>, training: &TrainingConfig) -> Arc<Dataset> {
        let (train, test) = (training.limit_train, training.limit_test);
        let all = |limit: Option<usize>, split: &Split| limit.is_none_or(|limit| limit >= split.len());
        if all(train, &whole.train) && all(test, &whole.test) {
            return whole;
        }
        let key = format!("{key} {train:?} {test:?}");
        let mut limited = guard(&self.limited);
        if let Some(dataset) = limited.get(&key).and_then(Weak::upgrade) {
            return dataset;
        }
        let dataset = Arc::new(whole.limited(train, test));
        limited.retain(|_, dataset| dataset.strong_count() > 0);
        limited.insert(key, Arc::downgrade(&dataset));
        dataset
    }

    /// The replacement for a set that would have to be downloaded, where the network may not be used.
    fn stand_in(&self, choice: DataChoice) -> Option<Dataset> {
        if !self.no_network {
            return None;
        }
        let dataset = data::stand_in(choice, self.data_dir.as_deref())?;
        let otherwise = match choice {
            DataChoice::Auto => "; where it is not available, a run trains on glyphs instead",
            _ => "",
        };
        warn!(
            "{} would be downloaded from the Hugging Face hub: what follows is from its known sizes{otherwise}",
            dataset.name
        );
        Some(dataset)
    }

    /// The data set of a resumed run that was trained on the set of this name, where the configuration leaves it
    /// open.
    ///
    /// # Errors
    /// As [`data::load`].
    pub fn dataset_again(&self, training: &TrainingConfig, name: &str) -> Result<Arc<Dataset>> {
        self.dataset(&TrainingConfig { data: training.data.again(name), ..training.clone() })
    }

    /// The data of a run that is resumed or looked at: where the user names no folder, the data that its `records`
    /// name, as long as they exist, and else as [`Resources::dataset_again`].
    ///
    /// # Errors
    /// As [`data::load`].
    pub fn dataset_of(
        &self,
        training: &TrainingConfig,
        run: &Progress,
        records: Option<&Path>,
    ) -> Result<Arc<Dataset>> {
        let recorded = records.filter(|_| self.data_dir.is_none()).and_then(Recorded::read);
        let Some(recorded) = recorded else { return self.dataset_again(training, &run.data) };
        let key = format!("{:?}", run.checksums);
        let mut loaded = guard(&self.data);
        let known = loaded.get(&key).cloned();
        let found = known.or_else(|| {
            let _waiting = Waiting::on("reading the data");
            Some(Arc::new(recorded.load(training, &run.checksums)?))
        });
        let Some(whole) = found else {
            drop(loaded);
            return self.dataset_again(training, &run.data);
        };
        loaded.insert(key.clone(), whole.clone());
        drop(loaded);
        hold_out(self.limited(&key, whole, training), training)
    }

    /// Opens the device of a configuration; a GPU is opened once.
    ///
    /// # Errors
    /// As [`open_device`].
    pub fn device(&self, config: &Config) -> Result<Device> {
        let choice = fastest(config);
        if choice == DeviceChoice::Cpu {
            return Ok(Device::Cpu);
        }
        let mut opened = guard(&self.device);
        if let Some(device) =
            opened.as_ref().filter(|device| device.is_cuda() || choice == DeviceChoice::Auto)
        {
            return Ok(device.clone());
        }
        let device = open(choice)?;
        *opened = Some(device.clone());
        Ok(device)
    }

    /// The number of runs of this configuration that fit into the memory of its GPU; `None` on a CPU.
    ///
    /// # Errors
    /// As [`open_device`].
    pub fn room_for(&self, config: &Config) -> Result<Option<usize>> {
        let device = self.device(config)?;
        let Some(free) = free_memory(&device)? else { return Ok(None) };
        let dims = &config.network.dims;
        // θ with the memory of the synapses, an update and its factors; and the states of some steps while testing,
        // with x.
        let weights = 5 * config.network().parameter_count() + config.remembered();
        let states = TEST_BATCH * (3 * dims.input() + 8 * dims.0[1..].iter().sum::<usize>());
        let bytes = (weights + states) * config.training.dtype.dtype().size_in_bytes();
        Ok(Some((free / 10 * 9 / bytes).clamp(1, MOST_TOGETHER)))
    }

    /// Makes an engine for a run, holding `theta`: a replica where runs compute together on the plain engine, else as
    /// [`engine::build`].
    ///
    /// # Errors
    /// As [`engine::build`].
    pub fn engine(&self, config: &Config, theta: Parameters, device: &Device) -> Result<Box<dyn Engine>> {
        let (job, kind) = (config.job(device), config.training.engine);
        match &self.hubs {
            Some(hubs) if matches!(self.engine_name(config, device), "replicas" | "kernel") => {
                kind.chosen(&theta.network, &job, theta.dtype())
                    .map_err(|why| engine::refused(kind, &why))?;
                // The debug text of a synapse has its name only, and not its settings.
                let key = format!("{job:?} {:?} {:?} {kind:?}", config.synapse, config.training.dtype);
                let hub = || Hub::new(job).with_engine(kind);
                Ok(Box::new(guard(hubs).entry(key).or_insert_with(hub).join(theta)))
            }
            _ => Ok(engine::build(kind, job, theta)?),
        }
    }
}

/// Holds out as many training images as the configuration says.
fn hold_out(whole: Arc<Dataset>, training: &TrainingConfig) -> Result<Arc<Dataset>> {
    match training.validation {
        0 => Ok(whole),
        // Each seed has its own, so it is kept only as long as its run.
        count => Ok(Arc::new(whole.hold_out(count, training.seed)?)),
    }
}

/// The device that is fastest for a run whose configuration leaves it open: a GPU where the kernel runs it, or where
/// the fused engine of CPUs does not. docs/cuda.md, "What is fastest", has the measurements.
fn fastest(config: &Config) -> DeviceChoice {
    let choice = config.training.device;
    let (network, job, dtype) = (config.network(), config.job(&Device::Cpu), config.training.dtype.dtype());
    let runs = |kind: EngineKind| kind.supports(&network, &job, dtype).is_ok();
    match choice {
        DeviceChoice::Auto if runs(EngineKind::Fused) && !runs(EngineKind::Kernel) => DeviceChoice::Cpu,
        _ => choice,
    }
}

/// Opens the device of a configuration.
///
/// # Errors
/// Where CUDA is asked for and this binary has none, or no GPU answers.
pub fn open_device(config: &Config) -> Result<Device> {
    open(fastest(config))
}

/// Opens the requested device.
///
/// # Errors
/// As [`open_device`].
fn open(choice: DeviceChoice) -> Result<Device> {
    let cuda = candle_core::utils::cuda_is_available();
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Auto if !cuda => Ok(Device::Cpu),
        DeviceChoice::Cuda if !cuda => refuse!(
            "device = \"cuda\": this eqprop was built without CUDA; build it with `cargo build --release \
             --features cuda` on a machine with a CUDA toolkit, or choose --device cpu"
        ),
        DeviceChoice::Auto | DeviceChoice::Cuda => match open_gpu() {
            Ok(device) => Ok(device),
            Err(error) => {
                // The rest is a backtrace.
                let reason = error.to_string().lines().next().unwrap_or_default().to_string();
                if choice == DeviceChoice::Cuda {
                    refuse!(
                        "device = \"cuda\": no GPU answers ({reason}); is its driver loaded? --device cpu goes without"
                    );
                }
                info!("no GPU answers ({reason}); computing on the CPU");
                Ok(Device::Cpu)
            }
        },
    }
}

/// Opens the first GPU with one stream for all threads. candle's usual device has a stream for each thread, and nothing
/// that lets one wait for what another computes, as replicas on threads of their own need.
///
/// # Errors
/// Where this binary has no CUDA, or no GPU answers.
pub fn open_gpu() -> candle_core::Result<Device> {
    let device = Device::new_cuda_with_stream(0)?;
    #[cfg(feature = "cuda")]
    if let Device::Cuda(gpu) = &device {
        // SAFETY: all tensors of this device are made, used and freed on its one stream, in the order of the calls.
        unsafe { gpu.disable_event_tracking() };
    }
    Ok(device)
}

/// A device in words.
pub fn describe(device: &Device) -> String {
    match device {
        Device::Cpu => "cpu".into(),
        other => format!("{:?}", other.location()).to_lowercase(),
    }
}
