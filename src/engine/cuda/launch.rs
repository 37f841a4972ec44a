//! The launch of the kernel on a GPU.

use super::{Chip, Course, Kernel, REPORTED};
use crate::base::panic::guard;
use candle_core::cuda_backend::cudarc::driver::sys::CUdevice_attribute_enum as DeviceAttribute;
use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute_enum as FunctionAttribute;
use candle_core::cuda_backend::cudarc::driver::{CudaView, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::{CudaDevice, DType, Device, Layout, Result, Storage, Tensor, bail};
use std::collections::HashMap;
use std::sync::Mutex;

/// Code that NVRTC has compiled for an architecture, by its source.
static COMPILED: Mutex<Option<HashMap<(String, String), String>>> = Mutex::new(None);

/// Clusters of more blocks than every chip that has clusters allows.
const PORTABLE_CLUSTER: usize = 8;

fn compiled(source: &str, architecture: &str) -> Result<String> {
    let mut compiled = guard(&COMPILED);
    let known = compiled.get_or_insert_default();
    let key = (source.to_string(), architecture.to_string());
    if let Some(ptx) = known.get(&key) {
        return Ok(ptx.clone());
    }
    // Functions without a name are for the device, too.
    let options = ["--std=c++17", "--device-as-default-execution-space"].map(String::from);
    let options = [&options[..], &[format!("--gpu-architecture={architecture}")]].concat();
    let asked = CompileOptions { options, ..CompileOptions::default() };
    let ptx = match compile_ptx_with_opts(source, asked) {
        Ok(ptx) => ptx.to_src(),
        Err(error) => bail!("the CUDA kernel of both phases does not compile: {error:?}"),
    };
    known.insert(key, ptx.clone());
    Ok(ptx)
}

/// The properties of this GPU that the kernel depends on.
///
/// # Errors
/// What the driver says where it does not tell.
pub fn chip(device: &CudaDevice) -> Result<Chip> {
    let context = device.cuda_stream().context().clone();
    let memory =
        context.attribute(DeviceAttribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN).w()?;
    let (major, _) = context.compute_capability().w()?;
    let cluster = if major < 9 { 1 } else { Chip::HOPPER.cluster };
    Ok(Chip { memory: memory as usize, cluster, ..Chip::HOPPER })
}

/// Runs the kernel: `theta`, (R, parameters), of which no other tensor has the storage, becomes the new θ. Returns it
/// and the numbers of the reports, (R, M, 6).
pub fn launch(kernel: &Kernel, theta: &Tensor, course: &Course) -> Result<(Tensor, Tensor)> {
    let Device::Cuda(device) = theta.device() else {
        bail!("the CUDA kernel of both phases runs on a GPU only: choose training.engine = \"auto\"")
    };
    let (replicas, minibatches, _) = course.order.dims3()?;
    let (layout, context) = (&kernel.layout, device.cuda_stream().context().clone());
    let (major, minor) = context.compute_capability().w()?;
    let ptx = compiled(&kernel.source, &format!("compute_{major}{minor}"))?;
    let function = device.get_or_load_custom_func("phases", &kernel.source, &ptx)?;
    let memory = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    function.set_attribute(memory, layout.shared_bytes as i32).w()?;
    if layout.cluster > PORTABLE_CLUSTER {
        let large = FunctionAttribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED;
        function.set_attribute(large, 1).w()?;
    }

    let reports = Tensor::zeros((replicas, minibatches, REPORTED), DType::F64, theta.device())?;
    let blocks = replicas * layout.cluster;
    let scratch = device.alloc_zeros::<f32>(blocks * layout.scratch)?;
    let minibatches = minibatches as i32;
    let config = LaunchConfig {
        grid_dim: (blocks as u32, 1, 1),
        block_dim: (layout.threads as u32, 1, 1),
        shared_mem_bytes: layout.shared_bytes as u32,
    };
    let [images, labels] = [course.images.contiguous()?, course.labels.contiguous()?];
    let [order, betas] = [course.order.contiguous()?, course.betas.contiguous()?];
    let tensors = [theta, &images, &labels, &order, &betas, &reports];
    if let Some(elsewhere) = tensors.iter().find(|tensor| !tensor.device().same_device(theta.device())) {
        bail!(
            "a course lies on {:?}, and θ on {:?}",
            elsewhere.device().location(),
            theta.device().location()
        );
    }
    let stored = tensors.map(Tensor::storage_and_layout);
    let [theta_at, images, labels, order, betas, reports_at] =
        [0, 1, 2, 3, 4, 5].map(|i| (&*stored[i].0, stored[i].1));
    let (theta_at, images) = (numbers::<f32>(theta_at)?, numbers::<u8>(images)?);
    let (labels, order) = (numbers::<u8>(labels)?, numbers::<u32>(order)?);
    let (betas, reports_at) = (numbers::<f32>(betas)?, numbers::<f64>(reports_at)?);
    let mut builder = function.builder();
    builder.arg(&theta_at).arg(&images).arg(&labels).arg(&order).arg(&betas).arg(&reports_at);
    builder.arg(&scratch).arg(&minibatches);
    // SAFETY: the tensors have the sizes and types that `Kernel::check` and the kernel's source say, the numbers of
    // images are below their count, and nothing else reads or writes θ, the reports and the scratch.
    unsafe { builder.launch(config) }.w()?;
    Ok((theta.clone(), reports.clone()))
}

/// The numbers of a contiguous tensor on a GPU.
fn numbers<'a, T: CudaDType>((storage, layout): (&'a Storage, &Layout)) -> Result<CudaView<'a, T>> {
    match storage {
        Storage::Cuda(storage) => Ok(storage.as_cuda_slice::<T>()?.slice(layout.start_offset()..)),
        _ => bail!("a course and θ lie on one GPU"),
    }
}
