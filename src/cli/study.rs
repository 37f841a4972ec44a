//! The commands that look at a network without training it: `angle`, `gdd` and `toy`.

use super::{ConfigArgs, count, data_folder, finite};
use crate::base::files;
use crate::base::output::{self, usage};
use crate::config::{Config, Resolved};
use crate::data;
use crate::model::Parameters;
use crate::run::{angles, initial_parameters, open_device, with_threads};
use crate::study::explain::{self, Explanation};
use crate::study::gdd;
use crate::study::toy::Toy;
use crate::telemetry::progress::{hours, say};
use anyhow::{Result, bail};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use std::path::PathBuf;
use std::time::Instant;
use toml::Value;
use tracing::info;

#[derive(Debug, Args)]
pub struct AngleArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    network: NetworkArgs,
    /// How many random minibatches to measure on.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    batches: usize,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Say what the angle is made of: finite β, finite K, unsettled T, continual η, σ′, untied weights.
    #[arg(long)]
    explain: bool,
    /// A page with the charts of that.
    #[arg(long, value_name = "FILE", requires = "explain")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct GddArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    network: NetworkArgs,
    /// How many training images.
    #[arg(long, value_name = "B", default_value_t = 1)]
    batch_size: usize,
    /// The number of the first, in file order.
    #[arg(long, value_name = "I", default_value_t = 0)]
    index: usize,
    /// Element type: f32 or f64.
    #[arg(long, value_name = "TYPE", default_value = "f64")]
    dtype: String,
    /// Folder for the trace, the summary and the figures.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Where a network and its data come from.
#[derive(Debug, Args)]
pub struct NetworkArgs {
    /// Take the weights from a safetensors file.
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// A data set: a folder with IDX files or with PNGs by class, or an .npz file [env: EQPROP_DATA].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Threads to compute with [default: all cores].
    #[arg(long, value_name = "N", value_parser = count())]
    pub threads: Option<usize>,
}

impl NetworkArgs {
    pub fn load(&self, config: &Config) -> Result<(data::Dataset, Parameters)> {
        let folder = data_folder(self.data_dir.clone())?;
        let mut dataset = data::load(config.training.data, folder.as_deref())?;
        dataset.limit(config.training.limit_train, None);
        if config.training.validation > 0 {
            dataset = dataset.hold_out(config.training.validation, config.training.seed)?;
        }
        dataset.check(&config.network.dims)?;
        let device = open_device(config.training.device)?;
        Ok((dataset, initial_parameters(config, self.init.as_deref(), &device)?))
    }
}

#[derive(Debug, Args)]
pub struct ToyArgs {
    /// θ.
    #[arg(long, default_value_t = 1.0, allow_hyphen_values = true, value_parser = finite)]
    theta: f64,
    /// β.
    #[arg(long, default_value_t = 0.1, allow_hyphen_values = true, value_parser = finite)]
    beta: f64,
    /// η, of C-EP.
    #[arg(long, default_value_t = 0.01, allow_hyphen_values = true, value_parser = finite)]
    eta: f64,
    /// T, steps of the first phase.
    #[arg(long = "first-steps", value_name = "T", default_value_t = 50, value_parser = RangedU64ValueParser::<usize>::new().range(0..=1_000_000))]
    first_steps: usize,
    /// K, steps of the second phase.
    #[arg(long = "second-steps", value_name = "K", default_value_t = 10, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000))]
    second_steps: usize,
}

pub fn angle(args: AngleArgs) -> Result<u8> {
    let config = Resolved::new(&args.config.choices()?)?.config;
    if args.explain {
        return explain(&args, &config);
    }
    with_threads(args.network.threads, || {
        let (dataset, theta) = args.network.load(&config)?;
        let Some(summary) = angles::measure(&config, &theta, &dataset.train, args.batches, 0, &|| false)?
        else {
            bail!(
                "there is no angle to measure: rule = \"{}\" has no Hebbian updates, or BPTT cannot go back \
                 K = {} of T = {} steps",
                config.learning.rule.name(),
                config.learning.K,
                config.learning.T
            );
        };
        let psi = theta.psi_degrees()?;
        if args.json {
            let per_matrix: serde_json::Map<_, _> = (summary.per_matrix_degrees.iter())
                .map(|(name, spread)| (name.clone(), serde_json::json!(spread)))
                .collect();
            let result = serde_json::json!({
                "data": dataset.name,
                "minibatches": args.batches,
                "angle_total_degrees": summary.total_degrees,
                "angle_per_matrix_degrees": per_matrix,
                "sign_match_total": summary.sign_match,
                "psi_per_pair_degrees": psi,
            });
            return output::result(&format!("{result}\n"));
        }
        let mut text = format!(
            "Ψ(Δtot, −∇BPTT tot) on {}, mean ± standard deviation of {} minibatches\n",
            dataset.name, args.batches
        );
        let total = ("total".to_string(), summary.total_degrees);
        for (name, spread) in [total].iter().chain(&summary.per_matrix_degrees) {
            text += &format!("{name:<12} {:7.2} ± {:.2} °\n", spread.mean, spread.std);
        }
        let signs = summary.sign_match;
        text += &format!(
            "synapses whose totals agree in sign: {:.1} ± {:.1} %\n",
            100.0 * signs.mean,
            100.0 * signs.std
        );
        for (n, psi) in psi.iter().enumerate() {
            text += &format!("Ψ(forward.{n}, feedback.{n}ᵀ) = {psi:.2} °\n");
        }
        output::result(&text)
    })?;
    Ok(0)
}

fn explain(args: &AngleArgs, config: &Config) -> Result<u8> {
    let rule = config.learning.rule;
    if !rule.hebbian() {
        bail!("rule = \"{}\" has no Hebbian updates, so there is no angle to explain", rule.name());
    }
    with_threads(args.network.threads, || {
        let (dataset, theta) = args.network.load(config)?;
        let started = Instant::now();
        let explanation = Explanation::of(config, &theta, &dataset.train, args.batches, |done| {
            let left = started.elapsed() * (args.batches - done) as u32 / done as u32;
            say(&format!("minibatch {done}/{}  {} left", args.batches, hours(left)));
        })?;
        if let Some(out) = &args.out {
            files::write_atomically(out, explain::page(&explanation, config, &dataset.name)?.as_bytes())?;
            info!("the page is {}", out.display());
        }
        output::result(&match args.json {
            true => format!("{}\n", explanation.json(&dataset.name)),
            false => explanation.table(&dataset.name),
        })
    })?;
    Ok(0)
}

pub fn gdd(args: GddArgs) -> Result<u8> {
    let mut choices = args.config.choices()?;
    let dtype = Value::from(args.dtype.clone());
    choices.flags.insert(0, ("--dtype".into(), "training.dtype".into(), dtype));
    let config = Resolved::new(&choices)?.config;
    with_threads(args.network.threads, || {
        let (dataset, theta) = args.network.load(&config)?;
        let (batch, trace) = gdd::record(&config, &theta, &dataset.train, args.index, args.batch_size)?;
        gdd::write(&config, &theta, &batch, &trace, &args.out)?;
        output::result(&format!("{}\n", gdd::summary(&theta, &trace)?))?;
        info!(
            "trace, summary and figures of {} image(s) of {} are in {}",
            args.batch_size,
            dataset.name,
            args.out.display()
        );
        Ok(())
    })?;
    Ok(0)
}

pub fn toy(args: ToyArgs) -> Result<u8> {
    if args.beta == 0.0 {
        usage!("--beta must be a number other than 0");
    }
    let ToyArgs { theta, beta, eta, first_steps, second_steps } = args;
    output::result(&Toy { theta, beta, eta, first_steps, second_steps }.table())?;
    Ok(0)
}
