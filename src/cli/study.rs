//! The commands that look at a network without training it: `angle`, `settle`, `gdd` and `toy`.

use super::look::{Places, check_page};
use super::{ConfigArgs, count, data_folder, finite, weights_of};
use crate::base::files;
use crate::base::made::Made;
use crate::base::output::{self, usage};
use crate::base::spread::Spread;
use crate::base::time::duration;
use crate::base::waiting::Waiting;
use crate::charts::plot::Style;
use crate::charts::saved;
use crate::config::{Config, Origin, Resolved};
use crate::data::Dataset;
use crate::model::Parameters;
use crate::model::dynamics::Time;
use crate::run::{Resources, angles, initial_parameters, open_device, with_threads};
use crate::study::explain::{self, Explanation};
use crate::study::toy::Toy;
use crate::study::{equilibrium, gdd};
use crate::telemetry::progress::say;
use anyhow::{Result, bail};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use toml::Value;
use tracing::info;

#[derive(Debug, Args)]
pub struct AngleArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    network: NetworkArgs,
    /// Number of random minibatches to measure on.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    batches: usize,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Decompose the angle into its causes: devices and noise, finite β, finite K, unsettled T, continual η, σ′, untied
    /// weights.
    #[arg(long)]
    explain: bool,
    /// Page with the charts of the causes.
    #[arg(long, value_name = "FILE", requires = "explain")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct GddArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    network: NetworkArgs,
    /// Number of training images.
    #[arg(long, value_name = "B", default_value_t = 1)]
    batch_size: usize,
    /// Number of the first image, in file order.
    #[arg(long, value_name = "I", default_value_t = 0)]
    index: usize,
    /// Element type: f32 or f64 [default: f64, where the configuration says nothing of training.dtype].
    #[arg(long, value_name = "TYPE")]
    dtype: Option<String>,
    /// Folder for the summary and the figures.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Also write every state, update and gradient, step by step: trace.safetensors, some hundred megabytes.
    #[arg(long)]
    trace: bool,
    /// Style of the figures.
    #[arg(long, value_enum, default_value_t = Style::Paper)]
    style: Style,
}

#[derive(Debug, Args)]
pub struct SettleArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    network: NetworkArgs,
    /// Number of training images, in file order.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    images: usize,
    /// Folder for settle.html, settle.csv and the figure.
    #[arg(long, value_name = "DIR", default_value = "settle")]
    out: PathBuf,
    /// Style of the figure.
    #[arg(long, value_enum, default_value_t = Style::Paper)]
    style: Style,
}

/// The flags that choose a network and its data.
#[derive(Debug, Args)]
pub struct NetworkArgs {
    /// Take the weights of a run, by its name or folder, or of a safetensors file.
    #[arg(long, value_name = "RUN|FILE")]
    init: Option<PathBuf>,
    #[command(flatten)]
    places: Places,
    /// A data set: an .npz file, or a folder of IDX, .npy or .npz files or of PNGs by class [env: EQPROP_DATA].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Threads to compute with [default: all cores].
    #[arg(long, value_name = "N", value_parser = count())]
    pub threads: Option<usize>,
}

impl NetworkArgs {
    /// The configuration with all sizes, the data and the weights.
    pub fn load(&self, resolved: Resolved) -> Result<(Config, Arc<Dataset>, Parameters)> {
        let resources = Resources::new(data_folder(self.data_dir.clone())?);
        let dataset = resources.dataset(&resolved.config.training)?;
        let config = resolved.sized_for(&dataset)?.config;
        dataset.check(&config.network.dims)?;
        let device = open_device(&config)?;
        let file = |what: &PathBuf| weights_of(what, &self.places.runs_dir, &self.places.checkpoints_dir);
        let init = self.init.as_ref().map(file).transpose()?;
        let theta = initial_parameters(&config, init.as_deref(), &device)?;
        Ok((config, dataset, theta))
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

pub fn settle(args: SettleArgs) -> Result<u8> {
    let resolved = Resolved::new(&args.config.choices()?)?.told();
    if resolved.config.network.time != Time::Discrete {
        usage!(
            "network.time = \"real\" has no alternating order to compare with: choose time = \"discrete\""
        );
    }
    with_threads(args.network.threads, || {
        let (config, dataset, theta) = args.network.load(resolved)?;
        let images = args.images.min(dataset.train.len());
        let x = dataset.train.batch(&(0..images as u32).collect::<Vec<_>>()).x_for(&theta)?;
        let ways = equilibrium::compare(&config.model(), &theta, &x)?;
        let about = format!(
            "{}, layers {}, weights {}; {images} images of {}; Anderson's window {}. Dashed: the median \
             of the images; solid: their 99th percentile.",
            config.learning.rule.title,
            config.network.dims,
            args.network
                .init
                .as_ref()
                .map_or("before training".into(), |path| format!("of {}", path.display())),
            dataset.name,
            config.settle.window,
        );
        let chart = equilibrium::chart(&ways);
        let mut made = Made::default();
        saved::save(&mut made, &args.out, "settle", std::slice::from_ref(&chart), args.style)?;
        let place = args.out.join("settle.html");
        made.add(place.clone(), equilibrium::page("Ways to equilibrium", &about, &ways, chart));
        made.add(args.out.join("settle.csv"), equilibrium::csv(&ways));
        made.write()?;
        let mut text = format!(
            "arithmetic, in synchronous steps, until 99 % of {images} images change by at most {}\n",
            equilibrium::AT_REST
        );
        for (way, work) in equilibrium::until_rest(&ways) {
            text += &format!("{way:<24} {work:>11}\n");
        }
        output::result(&text)?;
        info!("the page is {}; the numbers and the figure are beside it", place.display());
        Ok(())
    })?;
    Ok(0)
}

pub fn angle(args: AngleArgs) -> Result<u8> {
    let resolved = Resolved::new(&args.config.choices()?)?.told();
    if args.explain {
        return explain(&args, resolved);
    }
    with_threads(args.network.threads, || {
        let (config, dataset, theta) = args.network.load(resolved)?;
        let _waiting =
            Waiting::on(format!("measuring updates against gradients on {} minibatches", args.batches));
        let Some(summary) = angles::measure(&config, &theta, &dataset.train, args.batches, 0, &|| false)?
        else {
            bail!(
                "there is no angle to measure: rule = \"{}\" has no Hebbian updates, or BPTT cannot go back \
                 K = {} of T = {} steps",
                config.learning.rule.name(),
                config.learning.K,
                config.settle.steps
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
        let total = summary.total_degrees;
        let mut text = format!(
            "Ψ(Δtot, −∇BPTT tot) on {}, mean{}{}, n = {} minibatches\n",
            dataset.name,
            if total.std.is_some() { " ± standard deviation" } else { "" },
            if total.quartiles.is_some() { " (quartiles)" } else { "" },
            total.count
        );
        let row = |spread: &Spread, scale: f64, digits: usize| {
            let mut text = format!("{:.digits$}", scale * spread.mean);
            if let Some(std) = spread.std {
                text += &format!(" ± {:.digits$}", scale * std);
            }
            if let Some([lower, upper]) = spread.quartiles {
                text += &format!(" ({:.digits$} to {:.digits$})", scale * lower, scale * upper);
            }
            text
        };
        for (name, spread) in [("total".to_string(), total)].iter().chain(&summary.per_matrix_degrees) {
            text += &format!("{name:<12} {} °\n", row(spread, 1.0, 2));
        }
        text += &format!("synapses whose totals agree in sign: {} %\n", row(&summary.sign_match, 100.0, 1));
        for (n, psi) in psi.iter().enumerate() {
            text += &format!("Ψ(forward.{n}, feedback.{n}ᵀ) = {psi:.2} °\n");
        }
        output::result(&text)
    })?;
    Ok(0)
}

fn explain(args: &AngleArgs, resolved: Resolved) -> Result<u8> {
    let rule = resolved.config.learning.rule;
    if !rule.is_nudged() {
        bail!("rule = \"{}\" has no Hebbian updates, so there is no angle to explain", rule.name());
    }
    args.out.as_deref().map(check_page).transpose()?;
    with_threads(args.network.threads, || {
        let (config, dataset, theta) = args.network.load(resolved)?;
        let started = Instant::now();
        let explanation = Explanation::of(&config, &theta, &dataset.train, args.batches, |done| {
            let left = started.elapsed() * (args.batches - done) as u32 / done as u32;
            say(&format!("minibatch {done}/{}  {} left", args.batches, duration(left.as_secs_f64())));
        })?;
        if let Some(out) = &args.out {
            files::write_named(out, explain::page(&explanation, &config, &dataset.name)?.as_bytes())?;
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
    let dtype = |name: &str| ("--dtype".into(), "training.dtype".into(), Value::from(name));
    choices.flags.splice(0..0, args.dtype.as_deref().map(dtype));
    let mut resolved = Resolved::new(&choices)?;
    if resolved.origin("training.dtype") == Some(&Origin::Default) {
        choices.flags.push(dtype("f64"));
        resolved = Resolved::new(&choices)?;
    }
    let resolved = resolved.told();
    with_threads(args.network.threads, || {
        let (config, dataset, theta) = args.network.load(resolved)?;
        let (batch, trace) = gdd::record(&config, &theta, &dataset.train, args.index, args.batch_size)?;
        let batch = args.trace.then_some(&batch);
        gdd::write(&config, &theta, &trace, batch, &args.out, args.style)?;
        output::result(&format!("{}\n", gdd::summary(&theta, &trace)?))?;
        info!(
            "summary and figures of {} image(s) of {} are in {}",
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
