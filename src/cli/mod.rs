//! The command line: flags into choices, choices into commands, outcomes into exit statuses.

mod device;
mod figures;
mod look;
mod manual;
mod report;
mod speed;
mod study;
mod sweep;
mod tune;

use self::look::Saved;
use crate::base::near::did_you_mean;
use crate::base::output::{self, Usage, quoted, usage};
use crate::base::waiting::Waiting;
use crate::config::{self, Choices, DeviceChoice, Resolved, reference};
use crate::data;
use crate::engine::{self, cpu::Isa};
use crate::learning::{RULES, Rule};
use crate::run::locate::locate;
use crate::run::{self, Ending, Interrupt, Options, Outcome, Prepared, Resources, Resume, Run, with_threads};
use crate::telemetry::progress::{Display, Stderr};
use anyhow::{Context, Result, bail};
use clap::builder::RangedU64ValueParser;
use clap::error::{ContextKind, ContextValue};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use toml::Value;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

/// Equilibrium Propagation with continual weight updates: EP, C-EP, VF and C-VF.
#[derive(Debug, Parser)]
#[command(
    name = "eqprop",
    version = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BUILD_COMMIT"), ")"),
    after_help = "Exit status: 0 done, 1 failed, 2 wrong usage, 3 diverged, \
    4 some runs of a sweep failed, 141 where the reader of the result is gone, 128 + n interrupted by signal n after saving: \
    SIGHUP 129, SIGINT 130, SIGUSR1 138, SIGTERM 143, SIGXCPU 152."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a network, or resume training.
    Train(TrainArgs),
    /// Test a checkpoint; the result goes to standard output.
    Eval(EvalArgs),
    /// Make a page about a run: curves, what its network has learnt, how one image settles.
    Inspect(look::InspectArgs),
    /// Make a page that lays runs side by side: curves, results, differences of their settings.
    Compare(look::CompareArgs),
    /// Print the resolved configuration, each value with its origin.
    Config(ConfigCommand),
    /// Train many runs, here or on a cluster, in a folder of their own.
    Sweep(sweep::SweepArgs),
    /// Write the results of a sweep beside the published ones: HTML and CSV.
    Report(report::ReportArgs),
    /// Measure speed: milliseconds per minibatch by phase, beside this machine's peak.
    Bench(speed::BenchArgs),
    /// Search for T, K, β and learning rates as the paper did: a configuration, and a page that shows how.
    Tune(tune::TuneArgs),
    /// Measure the angle between the rule's updates and the gradients of BPTT.
    Angle(study::AngleArgs),
    /// Compare the ways to equilibrium: residual against arithmetic, synchronous or alternating, plain or accelerated.
    Settle(study::SettleArgs),
    /// Record the gradient-descending dynamics of one batch: summary, figures, and the trace with --trace.
    Gdd(study::GddArgs),
    /// Print the four algorithms on the scalar model of Appendix C beside their closed forms.
    Toy(study::ToyArgs),
    /// Apply pulses to devices: the response of a published device, or of one that a configuration describes.
    Device(device::DeviceArgs),
    /// Print completions for a shell: `eqprop completions bash > ~/.local/share/bash-completion/completions/eqprop`.
    Completions(manual::CompletionsArgs),
    /// Print the manual page: `eqprop man | man -l -`.
    Man(manual::ManArgs),
}

/// Runs the command line `words`, whose first word is the program's own: parses, runs, prints errors once. Returns
/// the exit status.
pub fn main(words: impl IntoIterator<Item = OsString>) -> u8 {
    match parse_and_run(words) {
        Ok(status) => status,
        Err(error) => output::complain(&error, is_usage(&error)),
    }
}

fn parse_and_run(words: impl IntoIterator<Item = OsString>) -> Result<u8> {
    let asked = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(mut shown) if shown.use_stderr() => {
            for kind in [ContextKind::InvalidValue, ContextKind::InvalidArg, ContextKind::InvalidSubcommand] {
                if let Some(ContextValue::String(given)) = shown.get(kind) {
                    let given = output::quoted(given);
                    shown.insert(kind, ContextValue::String(given));
                }
            }
            output::to_stderr(&shown.to_string());
            return Ok(2);
        }
        Err(help) => {
            help.print().map_err(output::unwritten)?;
            return Ok(0);
        }
    };
    let color =
        std::env::var_os("NO_COLOR").is_none() && std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(log_filter(asked.default_log())?)
        .with_writer(|| Stderr)
        .with_ansi(color)
        .with_target(false)
        .without_time()
        .init();
    asked.run()
}

/// The filter of the log: from EQPROP_LOG, and else this.
///
/// # Errors
/// Where the variable says nothing that can be understood.
pub(crate) fn log_filter(default: &str) -> Result<EnvFilter> {
    Ok(match std::env::var_os("EQPROP_LOG").filter(|text| !text.is_empty()) {
        None => EnvFilter::new(default),
        Some(text) => EnvFilter::try_new(text.to_string_lossy()).map_err(|error| {
            Usage(format!("EQPROP_LOG={text:?}: {error}; write for example EQPROP_LOG=eqprop=debug"))
        })?,
    })
}

#[derive(Debug, Args)]
struct ConfigCommand {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print all keys instead: values, defaults, units, what each needs and means, as a Markdown table.
    #[arg(long)]
    keys: bool,
}

impl ConfigCommand {
    /// The text that the command prints.
    fn text(&self) -> Result<String> {
        if self.keys {
            return Ok(reference()?);
        }
        Ok(Resolved::new(&self.config.choices()?)?.told().annotated())
    }
}

/// The flags that choose a configuration, common to every command that needs one.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// A configuration file, or the name of one of those in configs/.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The learning rule: picks the preset, together with --depth.
    #[arg(long, value_name = "RULE", value_parser = parse_rule)]
    algo: Option<Rule>,
    /// Number of hidden layers [default: 1].
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// Take the paper's steps to equilibrium, whatever the preset takes: settle.order = "synchronous" and
    /// settle.solver = "iterate".
    #[arg(long)]
    synchronous: bool,
    /// Initial angle between forward and feedback weights, degrees.
    #[arg(long, value_name = "DEG")]
    psi: Option<f64>,
    /// Number of epochs in all, including those before a resume.
    #[arg(long, value_name = "N")]
    epochs: Option<i64>,
    /// Seed of everything random.
    #[arg(long, value_name = "N")]
    seed: Option<i64>,
    /// The data set: auto, mnist, fashion-mnist, cifar10 or glyphs.
    #[arg(long, value_name = "NAME")]
    data: Option<String>,
    /// Train on the first N images only.
    #[arg(long, value_name = "N")]
    limit_train: Option<i64>,
    /// Test on the first N images only.
    #[arg(long, value_name = "N")]
    limit_test: Option<i64>,
    /// Device to compute on: auto, cpu or cuda.
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Set any key, for example --set learning.beta=0.1; beats all else.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Args)]
struct TrainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// A data set: an .npz file, or a folder of IDX, .npy or .npz files or of PNGs by class [env: EQPROP_DATA].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Start from the weights of a run, by its name or folder, or of a safetensors file.
    #[arg(long, value_name = "RUN|FILE")]
    init: Option<PathBuf>,
    /// Resume a run: its name, its folder or a checkpoint; `auto` finds the run that this would be.
    #[arg(long, value_name = "RUN|FILE|auto")]
    resume: Option<PathBuf>,
    /// Threads to compute with [default: all cores].
    #[arg(long, value_name = "N", value_parser = count())]
    threads: Option<usize>,
    /// The name of the run.
    #[arg(long, value_name = "RUN")]
    name: Option<String>,
    /// Folder of runs' metrics and TensorBoard events.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs_dir: PathBuf,
    /// Folder of runs' checkpoints.
    #[arg(long, value_name = "DIR", default_value = "checkpoints")]
    checkpoints_dir: PathBuf,
    /// Check everything and print shapes, parameters, steps and disk space; change and download nothing.
    #[arg(long)]
    dry_run: bool,
    /// Begin anew where a run of this name exists: move its two folders aside, to NAME.1 or the like.
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    /// Print the result as JSON.
    #[arg(long, conflicts_with = "dry_run")]
    json: bool,
}

#[derive(Debug, Args)]
struct EvalArgs {
    /// The network to test: a run's name, its folder, or a checkpoint.
    #[arg(value_name = "RUN|CHECKPOINT", required_unless_present = "checkpoint")]
    what: Option<PathBuf>,
    /// The network to test: a checkpoint.
    #[arg(long, value_name = "FILE", conflicts_with = "what")]
    checkpoint: Option<PathBuf>,
    #[command(flatten)]
    places: look::Places,
    /// Images to test on, any data set of the network's size [default: the run's own, from EQPROP_DATA or where it
    /// had them].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Device to compute on: auto, cpu or cuda [default: as in training].
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Threads to compute with [default: all cores].
    #[arg(long, value_name = "N", value_parser = count())]
    threads: Option<usize>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

fn parse_rule(text: &str) -> Result<Rule, String> {
    let names = || RULES.iter().map(|rule| rule.name());
    Rule::named(text).ok_or_else(|| {
        let meant = did_you_mean(text, names());
        format!("choose {}{meant}", names().collect::<Vec<_>>().join(", "))
    })
}

impl ConfigArgs {
    fn choices(&self) -> Result<Choices> {
        let mut flags = Vec::new();
        let mut flag = |name: &str, key: &str, value: Option<Value>| {
            if let Some(value) = value {
                flags.push((name.to_string(), key.to_string(), value));
            }
        };
        flag("--psi", "network.psi", self.psi.map(Value::from));
        flag("--epochs", "training.epochs", self.epochs.map(Value::from));
        flag("--seed", "training.seed", self.seed.map(Value::from));
        flag("--data", "training.data", self.data.clone().map(Value::from));
        flag("--limit-train", "training.limit_train", self.limit_train.map(Value::from));
        flag("--limit-test", "training.limit_test", self.limit_test.map(Value::from));
        flag("--device", "training.device", self.device.clone().map(Value::from));
        if self.synchronous {
            let keys =
                config::SYNCHRONOUS.map(|(key, value)| ("--synchronous".into(), key.into(), value.into()));
            flags.extend(keys);
        }
        flags.extend(settings(&self.set)?);
        let (config, algo, depth) = (self.config.clone(), self.algo, self.depth);
        Ok(Choices { config, algo, depth, flags, environment: environment()?, ..Choices::default() })
    }
}

/// The settings of `--set KEY=VALUE`: (flag, key, value).
fn settings(set: &[String]) -> Result<Vec<(String, String, Value)>> {
    (set.iter())
        .map(|setting| match setting.split_once('=') {
            Some((key, value)) => {
                let place = quoted(format!("--set {setting}"));
                let value = config::given_value(&place, value.trim())?;
                Ok((place, key.trim().to_string(), value))
            }
            None => {
                let setting = quoted(setting);
                usage!("--set {setting}: write --set section.key=value, for example --set learning.beta=0.1")
            }
        })
        .collect()
}

/// The environment variables that may be ours.
///
/// # Errors
/// Where one of them is not UTF-8, and so not what it is meant to be.
pub(crate) fn environment() -> Result<Vec<(String, String)>> {
    let mut ours = Vec::new();
    for (name, value) in std::env::vars_os() {
        match name.to_string_lossy() {
            name if !name.starts_with("EQPROP_") || config::OTHER_VARIABLES.contains(&name.as_ref()) => {}
            lossy => match (name.to_str(), value.to_str()) {
                (Some(name), Some(value)) => ours.push((name.into(), value.into())),
                _ => usage!("{lossy} in the environment is not UTF-8"),
            },
        }
    }
    Ok(ours)
}

/// The folder given by flag, or by `EQPROP_DATA`.
///
/// # Errors
/// Where the variable names no folder.
pub(crate) fn data_folder(flag: Option<PathBuf>) -> Result<Option<PathBuf>> {
    let variable = || std::env::var_os("EQPROP_DATA").filter(|v| !v.is_empty()).map(PathBuf::from);
    match (flag, variable()) {
        (Some(flag), _) => Ok(Some(flag)),
        (None, Some(folder)) if !folder.exists() => {
            bail!("EQPROP_DATA={}: there is no such folder", folder.display())
        }
        (None, folder) => Ok(folder),
    }
}

/// The range of the number of threads or workers.
fn count() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=1024)
}

/// A finite number.
fn finite(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_string())?;
    if number.is_finite() { Ok(number) } else { Err("must be finite".into()) }
}

impl Cli {
    /// The default of EQPROP_LOG: for the many runs of a sweep, only warnings.
    pub fn default_log(&self) -> &'static str {
        match self.command {
            Command::Sweep(_) => "warn,hf_hub=off,eqprop::cli=info,eqprop::sweep=info",
            Command::Tune(_) => "error,hf_hub=off,eqprop::data=warn,eqprop::cli=info",
            _ => "warn,hf_hub=off,eqprop=info",
        }
    }

    /// Says so where a program that was not optimised is about to compute much.
    fn warn_if_slow(&self) {
        let level = env!("BUILD_OPT_LEVEL");
        let computes = matches!(
            self.command,
            Command::Train(_)
                | Command::Sweep(_)
                | Command::Bench(_)
                | Command::Tune(_)
                | Command::Angle(_)
                | Command::Settle(_)
                | Command::Gdd(_)
        );
        if computes && matches!(level, "0" | "1") {
            warn!(
                "this program was built with opt-level {level}: training takes about twenty times as long as with one \
                that `cargo build --release` makes"
            );
        }
    }

    /// Runs the command and returns the exit status.
    ///
    /// # Errors
    /// What went wrong, in one paragraph.
    pub fn run(self) -> Result<u8> {
        Isa::allowed()?;
        self.warn_if_slow();
        match self.command {
            Command::Train(args) => run_train(args),
            Command::Eval(args) => run_eval(args),
            Command::Sweep(args) => sweep::sweep(args),
            Command::Report(args) => report::report(args),
            Command::Bench(args) => speed::bench(args),
            Command::Tune(args) => tune::tune(args),
            Command::Angle(args) => study::angle(args),
            Command::Settle(args) => study::settle(args),
            Command::Gdd(args) => study::gdd(args),
            Command::Toy(args) => study::toy(args),
            Command::Device(args) => device::device(&args),
            Command::Inspect(args) => look::inspect(args),
            Command::Compare(args) => look::compare(args),
            Command::Completions(args) => manual::completions(args),
            Command::Man(args) => manual::man(args),
            Command::Config(args) => {
                output::result(&args.text()?)?;
                Ok(0)
            }
        }
    }
}

/// The file that `what` names, or the last checkpoint of the run that it names. A path that looks like a file is one,
/// even if it does not exist.
pub(crate) fn weights_of(what: &Path, runs: &Path, checkpoints: &Path) -> Result<PathBuf> {
    if what.is_file() || what.extension().is_some_and(|extension| extension == "safetensors") {
        return Ok(what.to_path_buf());
    }
    Ok(locate(what, runs, checkpoints)?.saved(checkpoints)?.to_path_buf())
}

fn run_train(args: TrainArgs) -> Result<u8> {
    let choices = args.config.choices()?;
    let file = |what: &PathBuf| weights_of(what, &args.runs_dir, &args.checkpoints_dir);
    let options = Options {
        init: args.init.as_ref().map(file).transpose()?,
        resume: match &args.resume {
            Some(auto) if auto.as_os_str() == "auto" => Some(Resume::Auto),
            what => what.as_ref().map(file).transpose()?.map(Resume::File),
        },
        name: args.name,
        runs_dir: args.runs_dir,
        checkpoints_dir: args.checkpoints_dir,
        dry_run: args.dry_run,
        overwrite: args.overwrite,
        keep_epochs: args.resume.as_ref().is_some_and(|what| what.as_os_str() == "auto"),
    };
    let resources = Resources::new(data_folder(args.data_dir)?);
    let resources = if args.dry_run { resources.without_network() } else { resources };
    let outcome = with_threads(args.threads, || {
        let run = match Run::prepare(&choices, &options, &resources)? {
            Prepared::Ready(run) => run,
            Prepared::Complete(ending) => {
                conclude(&ending, args.json)?;
                return Ok(Outcome::Done);
            }
        };
        if options.dry_run {
            output::result(&run.outline())?;
            return Ok(Outcome::Done);
        }
        let (ending, mut display) = (run.ending(), Display::new(&run.extent()));
        let outcome = run::train(*run, &mut display, &Interrupt::listen()?)?;
        drop(display);
        if outcome == Outcome::Done {
            conclude(&ending, args.json)?;
        }
        Ok(outcome)
    })?;
    Ok(status(outcome))
}

/// Prints the result of a run, and the commands that may follow.
fn conclude(ending: &Ending, json: bool) -> Result<()> {
    let finished = ending.finished()?;
    ending.next.iter().for_each(|(what_for, command)| info!("{what_for}: {command}"));
    output::result(&match json {
        true => format!("{}\n", serde_json::to_string(&finished)?),
        false => finished.line(),
    })
}

/// True where an error, from any module, means that the request is wrong.
pub fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<Usage>()
        || matches!(error.downcast_ref(), Some(data::Error::Usage(_)))
        || matches!(error.downcast_ref(), Some(config::Error::Usage(_)))
        || error.downcast_ref().is_some_and(run::Error::is_usage)
}

fn status(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Done => 0,
        Outcome::Diverged => 3,
        Outcome::Interrupted(signal) => 128 + signal as u8,
    }
}

fn run_eval(args: EvalArgs) -> Result<u8> {
    let what = args.what.or(args.checkpoint).context("nothing to test is named")?;
    let path = weights_of(&what, &args.places.runs_dir, &args.places.checkpoints_dir)?;
    let chosen = match &args.device {
        None => None,
        Some(name) => Some(
            serde_json::from_value::<DeviceChoice>(name.as_str().into())
                .map_err(|_| Usage(format!("--device {name}: choose auto, cpu or cuda")))?,
        ),
    };
    let found = locate(&path, &args.places.runs_dir, &args.places.checkpoints_dir);
    let records = found.ok().and_then(|found| found.folder);
    let (saved, report) = with_threads(args.threads, || {
        let records = records.as_deref();
        let saved = Saved::open(&path, records, args.data_dir, chosen)?;
        let config = &saved.progress.config;
        let kind = config.training.engine.available_on(&saved.device);
        let theta = saved.theta.clone();
        let mut engine = engine::build(kind, config.job(&saved.device), theta)?;
        let _waiting = Waiting::on(format!("testing on {} images", saved.dataset.test.len()));
        let report = run::evaluate(engine.as_mut(), &saved.dataset.test, &|| false)?;
        Ok((saved, report))
    })?;
    let Saved { progress, dataset, .. } = saved;
    if !report.is_finite() {
        tracing::error!("{}: diverged: its states are no longer numbers", path.display());
        return Ok(status(Outcome::Diverged));
    }
    if args.json {
        let result = serde_json::json!({
            "run": progress.run,
            "epoch": progress.epoch,
            "minibatch": progress.minibatch,
            "data": dataset.name,
            "source": dataset.source,
            "images": report.images,
            "errors": report.errors,
            "test_error_percent": report.error_percent(),
            "loss": report.mean_loss(),
        });
        output::result(&format!("{result}\n"))?;
    } else {
        output::result(&format!(
            "{}: {:.2} % test error on {} ({} of {} images wrong, loss {:.5}), after {} epochs and {} minibatches\n",
            progress.run,
            report.error_percent(),
            dataset.name,
            report.errors,
            report.images,
            report.mean_loss(),
            progress.epoch,
            progress.minibatch
        ))?;
    }
    Ok(0)
}
