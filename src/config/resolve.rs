//! Defaults < file < environment < flags: one configuration, and the origin of each value.

use super::check::MOST_HIDDEN_LAYERS;
use super::error::Result;
use super::keys::values_of;
use super::layers;
use super::older::{self, FORMER};
use super::{Config, presets};
use crate::base::near::did_you_mean;
use crate::base::output::{Usage, is_control, quoted, quoted_lines, usage, visible};
use crate::data::known::Known;
use crate::data::{DataChoice, Dataset};
use crate::learning::Rule;
use crate::model::Dims;
use crate::model::synapse::{SynapseConfig, device};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::{Table, Value};
use tracing::info;

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A file, or a preset.
    File(String),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
    /// The checkpoint that is resumed.
    Checkpoint(String),
    /// A value found where the configuration left it open.
    Found(String),
    /// The published device of this name.
    Device(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Origin::Default => write!(f, "default"),
            Origin::File(name) => write!(f, "{name}"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(flag) => write!(f, "{flag}"),
            Origin::Checkpoint(path) => write!(f, "{path}"),
            Origin::Found(asked) => write!(f, "what {asked} found"),
            Origin::Device(name) => write!(f, "device {name}"),
        }
    }
}

/// The user's choices, before they are resolved.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// A configuration file, or the name of a preset.
    pub config: Option<PathBuf>,
    /// The rule whose preset to use.
    pub algo: Option<Rule>,
    /// The number of hidden layers of that preset.
    pub depth: Option<usize>,
    /// Keys that a file sets on top of it, in order of precedence: (file, key, value).
    pub sets: Vec<(String, String, Value)>,
    /// Flags and the keys they set, in order of precedence: (flag, key, value).
    pub flags: Vec<(String, String, Value)>,
    /// Environment variables that begin with `EQPROP_`, without [`OTHER_VARIABLES`].
    pub environment: Vec<(String, String)>,
}

/// Environment variables of this program that are not keys.
pub const OTHER_VARIABLES: [&str; 7] = [
    "EQPROP_DATA",
    "EQPROP_ISA",
    "EQPROP_GOLDEN",
    "EQPROP_LOG",
    "EQPROP_PYTHON",
    "EQPROP_TORCH",
    "EQPROP_CHROMIUM",
];

/// Keys without a default.
const REQUIRED: [&str; 6] = [
    "network.dims",
    "learning.rule",
    "settle.steps",
    "learning.K",
    "learning.beta",
    "learning.learning_rates",
];

/// Keys that may be left out altogether.
const OPTIONAL: [&str; 14] = [
    "cost.pulse_energy",
    "cost.pulse_time",
    "cost.read_energy",
    "cost.step_time",
    "learning.own",
    "network.input_mean",
    "network.input_std",
    "network.loss",
    "network.tied",
    "training.crops",
    "training.flips",
    "training.limit_train",
    "training.limit_test",
    "training.validation",
];

/// The keys of a law of synapses.
fn keys_of(law: &SynapseConfig) -> Result<Vec<String>> {
    Ok(Table::try_from(law)?.into_iter().map(|(key, _)| format!("synapse.{key}")).collect())
}

/// Beginning of the name of a preset that --algo has chosen, as an origin.
const PRESET: &str = "preset ";

/// Values with their origins, by `section.key`.
type Layers = BTreeMap<String, (Value, Origin)>;

/// A configuration, and the origin of each value.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The configuration.
    pub config: Config,
    /// Notes for the user: that a preset is borrowed or derived, and keys that have been renamed.
    pub notes: Vec<String>,
    values: Layers,
}

impl Resolved {
    /// Resolves the user's choices.
    ///
    /// # Errors
    /// Names the key, the place it came from and the remedy, for anything unknown or impossible.
    pub fn new(choices: &Choices) -> Result<Self> {
        let (mut values, mut notes) = (defaults()?, Vec::new());
        let (name, table) = base(choices, &mut notes)?;
        merge(&mut values, &mut notes, table, &Origin::File(name.clone()))?;
        Self::finish(values, notes, &name, choices)
    }

    /// Puts the user's choices on top of the configuration of a checkpoint.
    ///
    /// # Errors
    /// As [`Resolved::new`].
    pub fn on_checkpoint(config: &Config, path: &Path, choices: &Choices) -> Result<Self> {
        let (mut values, mut notes) = (Layers::new(), Vec::new());
        let origin = Origin::Checkpoint(path.display().to_string());
        merge(&mut values, &mut notes, Table::try_from(config)?, &origin)?;
        // Keys that earlier versions lacked are left out of checkpoints too, as long as they have the earlier
        // behaviour.
        for (key, default) in defaults()? {
            values.entry(key).or_insert(default);
        }
        if choices.config.is_some() || choices.algo.is_some() || choices.depth.is_some() {
            let (name, table) = base(choices, &mut notes)?;
            merge(&mut values, &mut notes, table, &Origin::File(name))?;
        }
        Self::finish(values, notes, &path.display().to_string(), choices)
    }

    fn finish(mut values: Layers, mut notes: Vec<String>, base: &str, choices: &Choices) -> Result<Self> {
        for (file, key, value) in &choices.sets {
            let (key, value) = older::renamed(key, value.clone(), file, &mut notes);
            check_known(&key, file)?;
            values.insert(key, (value, Origin::File(file.clone())));
        }
        for (variable, text) in &choices.environment {
            let origin = Origin::Environment(variable.clone());
            let known = known_keys()?;
            let names = |key: &str| *variable == variable_of(key);
            let renamed = older::RENAMED.iter().map(|renamed| renamed.former);
            let Some(key) = known.iter().map(String::as_str).chain(renamed).find(|key| names(key)) else {
                let variable = quoted(variable);
                if let Some((_, now)) = FORMER.iter().find(|(former, _)| names(former)) {
                    usage!("{variable} is set in the environment, but no longer names a key; {now}");
                }
                usage!(
                    "{variable} is set in the environment but names no key; EQPROP_SECTION_KEY sets \
                     section.key, for example EQPROP_LEARNING_BETA"
                );
            };
            let (key, value) = older::renamed(key, given_value(variable, text)?, variable, &mut notes);
            values.insert(key, (value, origin));
        }
        for (flag, key, value) in &choices.flags {
            // Parameters of a rule of one's own are a table, to which a flag adds one.
            if let Some(name) = key.strip_prefix("learning.own.") {
                let own = values.remove("learning.own").and_then(|(own, _)| own.as_table().cloned());
                let mut own = own.unwrap_or_default();
                own.insert(name.into(), value.clone());
                values.insert("learning.own".into(), (own.into(), Origin::Flag(flag.clone())));
                continue;
            }
            let (key, value) = older::renamed(key, value.clone(), flag, &mut notes);
            check_known(&key, flag)?;
            values.insert(key, (value, Origin::Flag(flag.clone())));
        }
        fit_preset(&mut values);
        fit_device(&mut values)?;
        let law = values.get("synapse.law").and_then(|(law, _)| law.as_str().map(String::from));
        for known in
            SynapseConfig::all().iter().filter(|known| law.as_deref() == Some(known.synapse().name()))
        {
            for (key, value) in Table::try_from(known)? {
                values.entry(format!("synapse.{key}")).or_insert((value, Origin::Default));
            }
        }
        Self::from_values(values, base, notes)
    }

    fn from_values(values: Layers, base: &str, mut notes: Vec<String>) -> Result<Self> {
        for key in REQUIRED {
            if !values.contains_key(key) {
                usage!("{base}: {key} is not set: it has no default, so the configuration file must give it");
            }
        }
        let mut table = Table::new();
        for (key, (value, _)) in &values {
            let (section, key) = key.split_once('.').unwrap_or(("", key));
            let section = table.entry(section).or_insert_with(|| Table::new().into());
            if let Some(section) = section.as_table_mut() {
                section.insert(key.into(), value.clone());
            }
        }
        let described = |key: &str| match values.get(key) {
            Some((value, origin)) => format!("{key} = {} ({origin})", quoted(value)),
            None => key.to_string(),
        };
        check_law(&values)?;
        let config: Config = serde_path_to_error::deserialize(table.clone()).map_err(|error| {
            let (key, problem) = misread(&values, table, &error);
            Usage(format!("{}: {problem}", described(&key)))
        })?;
        // Checks what can be checked before the data is known.
        let mut checked = config.clone();
        checked.network.dims = config.network.dims.filled(1, 2);
        checked
            .validate()
            .map_err(|problem| Usage(format!("{}: {}", described(problem.key), problem.message)))?;
        for (key, why) in config.idle() {
            let Some((value, origin)) = values.get(key) else { continue };
            if *origin == Origin::Default {
                continue;
            }
            let usual = usual(key)?;
            match origin {
                _ if usual.as_ref() == Some(value) => {}
                Origin::Flag(_) | Origin::Environment(_) => {
                    usage!("{}: has no effect: {why}: leave it out", described(key));
                }
                // Keys without a default must be in the file.
                Origin::File(_) if usual.is_some() => {
                    notes.push(format!("{} has no effect: {why}", described(key)));
                }
                _ => {}
            }
        }
        Ok(Self { config, notes, values })
    }

    /// The origin of the value of a key; `None` where it is not set.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.values.get(key).map(|(_, origin)| origin)
    }

    /// Prints the notes, and returns the configuration.
    pub fn told(self) -> Self {
        self.notes.iter().for_each(|note| info!("{note}"));
        self
    }

    /// The resolved configuration as a TOML file, each value with its origin as a comment.
    pub fn annotated(&self) -> String {
        let mut text = String::new();
        for section in ["network", "settle", "learning", "synapse", "noise", "cost", "training"] {
            let prefix = format!("{section}.");
            // Sections that may be left out are, where all in them is as it is by default.
            let of_section = self.values.iter().filter(|(key, _)| key.starts_with(&prefix));
            let given = of_section.into_iter().any(|(_, (_, origin))| *origin != Origin::Default);
            if ["noise", "cost"].contains(&section) && !given {
                continue;
            }
            text += &format!("[{section}]\n");
            for (key, (value, origin)) in &self.values {
                if let Some(key) = key.strip_prefix(&prefix) {
                    let origin = visible(&origin.to_string());
                    text += &format!("{:<44} # {origin}\n", format!("{key} = {value}"));
                }
            }
            text.push('\n');
        }
        text.trim_end().to_string() + "\n"
    }

    /// Keeps the epochs of a checkpoint with the configuration `earlier`, unless a flag or a variable gave the
    /// number. Says so where a file or a preset has another number.
    ///
    /// # Errors
    /// Only where the configuration was not valid before.
    pub fn keeping_epochs(self, earlier: &Config) -> Result<Self> {
        let key = "training.epochs";
        let epochs = earlier.training.epochs;
        let Self { mut values, mut notes, config } = self;
        match values.get_mut(key) {
            Some((value, origin @ Origin::File(_))) if config.training.epochs != epochs => {
                notes.push(format!(
                    "the run has {epochs} epochs and keeps them, whereas {origin} has {value}: give \
                     --epochs {value} for those"
                ));
                *origin = Origin::Checkpoint("the checkpoint".into());
                *value = Value::from(epochs as i64);
                Self::from_values(values, key, notes)
            }
            _ => Ok(Self { values, notes, config }),
        }
    }

    /// Fills sizes that `network.dims` leaves open with those of this data set.
    ///
    /// # Errors
    /// Where no network can have them.
    pub fn sized_for(self, dataset: &Dataset) -> Result<Self> {
        let Self { config, notes, mut values } = self;
        let dims = &config.network.dims;
        if !dims.is_open() {
            return Ok(Self { config, notes, values });
        }
        let sizes = dims.filled(dataset.train.pixels, dataset.classes);
        if let Some((value, origin)) = values.get_mut("network.dims") {
            *origin = Origin::Found(format!("{value} ({origin}) in {}", dataset.source));
            *value = Value::try_from(sizes)?;
        }
        Self::from_values(values, &dataset.source, notes)
    }

    /// Sets `training.data` to the name of the data set that was found, where it was left open; unchanged where a
    /// configuration has no word for it.
    pub fn with_data(&self, name: &str) -> Self {
        let mut resolved = self.clone();
        if let (DataChoice::Auto, Ok(found)) =
            (self.config.training.data, serde_json::from_value::<DataChoice>(name.into()))
            && let Some((value, origin)) = resolved.values.get_mut("training.data")
        {
            *origin = Origin::Found(format!("{value} ({origin})"));
            *value = Value::from(name);
            resolved.config.training.data = found;
        }
        resolved
    }

    /// Keys, other than [`super::NOT_SCIENCE`], in which this configuration differs from `earlier`:
    /// one line each.
    pub fn changed_science(&self, earlier: &Config) -> Result<Vec<String>> {
        let before = earlier.values()?;
        Ok((self.config.changes_from(earlier)?.into_iter())
            .map(|(key, value)| {
                let before = before.get(&key).map_or("not set".to_string(), Value::to_string);
                format!("{key}: {before} → {value}")
            })
            .collect())
    }
}

impl Config {
    /// The preset of a rule, as `eqprop train --algo` takes it, for a network of these sizes, input first.
    ///
    /// # Errors
    /// Where there can be no such network.
    pub fn preset(rule: Rule, dims: impl Into<Dims>) -> Result<Self> {
        let dims = dims.into();
        let depth = Some(dims.0.len().saturating_sub(2));
        let choices = Choices { algo: Some(rule), depth, ..Choices::default() };
        Resolved::new(&choices)?.config.with("network.dims", Value::try_from(dims)?)
    }

    /// Returns the configuration with another value of a key.
    ///
    /// # Errors
    /// As [`Resolved::new`].
    pub fn with(&self, key: &str, value: impl Into<Value>) -> Result<Self> {
        self.with_all([(key, value.into())])
    }

    /// Returns the configuration with other values of some keys, which need only be valid together.
    ///
    /// # Errors
    /// As [`Resolved::new`].
    pub fn with_all<'a>(&self, values: impl IntoIterator<Item = (&'a str, Value)>) -> Result<Self> {
        let flag = |(key, value): (&str, Value)| ("Config::with".into(), key.into(), value);
        let choices = Choices { flags: values.into_iter().map(flag).collect(), ..Choices::default() };
        Ok(Resolved::on_checkpoint(self, Path::new("a configuration"), &choices)?.config)
    }

    /// Every key that is set, with its value.
    ///
    /// # Errors
    /// Where a value cannot be written as TOML.
    pub fn values(&self) -> Result<BTreeMap<String, Value>> {
        Ok(flatten(Table::try_from(self)?, "a configuration")?.into_iter().collect())
    }

    /// Keys, other than [`super::NOT_SCIENCE`], in which this configuration differs from `other`, and the
    /// values here.
    ///
    /// # Errors
    /// Where a value cannot be written as TOML.
    pub fn changes_from(&self, other: &Config) -> Result<Vec<(String, String)>> {
        let (ours, theirs) = (self.values()?, other.values()?);
        Ok((theirs.keys().chain(ours.keys().filter(|key| !theirs.contains_key(*key))))
            .filter(|key| !super::NOT_SCIENCE.contains(&key.as_str()))
            .filter(|key| ours.get(*key) != theirs.get(*key))
            .map(|key| (key.clone(), ours.get(key).map_or("not set".to_string(), Value::to_string)))
            .collect())
    }
}

/// Keys of `[synapse]` that say how devices are used, and not what the devices are.
const USE_OF_DEVICES: [&str; 6] = ["law", "preset", "pulses", "management", "train_length", "biases"];

/// Sets keys that nobody has given to the values of the published device `synapse.preset`. Where the preset is newly
/// given, the checkpoint's values of another device are dropped.
fn fit_device(values: &mut Layers) -> Result<()> {
    let device = values.get("synapse.law").is_some_and(|(law, _)| law.as_str() == Some("device"));
    let Some((Value::String(name), origin)) = values.get("synapse.preset").filter(|_| device).cloned() else {
        return Ok(());
    };
    if !matches!(origin, Origin::Checkpoint(_)) {
        let of_another = |key: &str, origin: &Origin| {
            matches!(origin, Origin::Checkpoint(_))
                && key.strip_prefix("synapse.").is_some_and(|key| !USE_OF_DEVICES.contains(&key))
        };
        values.retain(|key, (_, origin)| !of_another(key, origin));
    }
    for (key, value) in device::settings(&name)? {
        values.entry(format!("synapse.{key}")).or_insert((value, Origin::Device(name.clone())));
    }
    Ok(())
}

/// Fits a preset, which has MNIST's sizes, to another data set that is asked for by name: its network gets as many
/// inputs and outputs as the set has pixels and classes. Sizes given by the user stay.
fn fit_preset(values: &mut Layers) {
    let Some((known, asked)) = values.get("training.data").and_then(|(data, origin)| {
        let choice: DataChoice = data.clone().try_into().ok()?;
        Some((Known::named_by(choice)?, format!("training.data = {data} ({origin})")))
    }) else {
        return;
    };
    let Some((value, origin)) = values.get_mut("network.dims") else { return };
    let is_preset = |name: &str| {
        name.starts_with(PRESET) || (presets::text(name).is_some() && !Path::new(name).is_file())
    };
    let Some(sizes) = value.as_array().filter(|sizes| sizes.len() > 1) else { return };
    let inputs = match &sizes[0] {
        Value::String(_) => Value::from(layers::images(known.shape)),
        _ => Value::from(known.pixels() as i64),
    };
    let outputs = Value::from(known.classes as i64);
    let hidden = sizes[1..sizes.len() - 1].iter().cloned();
    let fitted: Vec<Value> = [inputs].into_iter().chain(hidden).chain([outputs]).collect();
    if matches!(origin, Origin::File(name) if is_preset(name)) && fitted != *sizes {
        *origin = Origin::Found(format!("{value} ({origin}) with {asked}"));
        *value = fitted.into();
    }
}

/// Parses a value as TOML; anything else is a string, so that `auto` needs no quotes.
pub fn parse_value(text: &str) -> Value {
    text.parse().unwrap_or_else(|_| Value::from(text))
}

/// Parses the value that `place`, a flag or a variable, gives.
///
/// # Errors
/// Where it holds ends of lines or other control characters, which no value does.
pub fn given_value(place: &str, text: &str) -> Result<Value> {
    if text.contains(is_control) {
        let text = quoted(text);
        usage!(
            "{}: the value {text:?} holds control characters: write it on one line, without escape codes",
            visible(place)
        );
    }
    Ok(parse_value(text))
}

/// The configuration file or preset that everything starts from. Adds notes about it to `notes`.
fn base(choices: &Choices, notes: &mut Vec<String>) -> Result<(String, Table)> {
    match (&choices.config, choices.algo) {
        (Some(_), Some(_)) => {
            usage!("--config and --algo both say what to start from: leave out one of them")
        }
        (Some(_), None) if choices.depth.is_some() => {
            usage!("--depth picks a preset together with --algo; with --config use --set network.dims=[…]")
        }
        (Some(path), None) => {
            let name = path.display().to_string();
            let cannot = "cannot be read as a configuration, and is not one of the presets";
            let all = presets::PRESETS.iter().chain(&presets::FIGURES);
            let text = presets::file_or_built_in(path, all, cannot, &presets::PRESETS)?;
            match toml::from_str(&text) {
                Ok(table) => Ok((name, table)),
                Err(error) => usage!("{name}: not valid TOML: {}", quoted_lines(error)),
            }
        }
        (None, Some(rule)) => {
            let depth = choices.depth.unwrap_or(1);
            if !(1..=MOST_HIDDEN_LAYERS).contains(&depth) {
                usage!(
                    "depth = {depth}: it counts hidden layers and must be from 1 to {MOST_HIDDEN_LAYERS} \
                     (--depth, or depth in a row of a sweep)"
                );
            }
            let picked = presets::pick(rule, depth)?;
            notes.extend(picked.note);
            Ok((format!("{PRESET}{}", picked.name), picked.table))
        }
        (None, None) => {
            usage!("nothing to train is named: give --algo ep|cep|vf|cvf with --depth N, or --config FILE")
        }
    }
}

/// The environment variable that sets a key.
pub fn variable_of(key: &str) -> String {
    format!("EQPROP_{}", key.replacen('.', "_", 1).to_uppercase())
}

/// The key whose value is of the wrong kind, with the right kind.
fn misread(
    values: &Layers,
    mut table: Table,
    error: &serde_path_to_error::Error<toml::de::Error>,
) -> (String, String) {
    // The lines after the first repeat the key.
    let first_line = |error: &toml::de::Error| error.message().lines().next().unwrap_or_default().to_string();
    let path = error.path().to_string();
    let mut key = path.split('[').next().unwrap_or(&path).to_string();
    if key == "synapse" {
        key = misread_of_law(values);
    }
    let problem = first_line(error.inner());
    let Some((value, _)) = values.get(&key) else { return (key, problem) };
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
    // A message about a wrong name lists the names that there are.
    if let Some((section, name)) = key.split_once('.')
        && let Some(section) = table.get_mut(section).and_then(Value::as_table_mut)
        && !value.is_str()
    {
        section.insert(name.into(), Value::from(text.clone()));
        let as_name = Config::deserialize(table).err().map(|error| first_line(&error));
        if let Some(problem) = as_name.filter(|problem| problem.contains(&format!("`{text}`"))) {
            return (key, problem.replace(&text, &quoted(&text)));
        }
    }
    let problem = in_words(&key, &problem).unwrap_or_else(|| problem.replace(&text, &quoted(&text)));
    (key, problem)
}

/// What a key takes, where a `problem` is that its value is of another type.
fn in_words(key: &str, problem: &str) -> Option<String> {
    let (_, expected) = problem.strip_prefix("invalid ")?.rsplit_once(", expected ")?;
    let kind = match expected {
        "a boolean" => return Some("give true or false".into()),
        "f64" => "a number",
        "usize" | "u64" | "u32" => "a whole number",
        "a sequence" => "a list",
        _ => return None,
    };
    Some(format!("give {kind}: {}", values_of(key)?))
}

/// The key of `[synapse]` whose value no law takes. Only the section is named where the law decides which keys there
/// are.
fn misread_of_law(values: &Layers) -> String {
    let named = |law: &SynapseConfig| {
        values.get("synapse.law").and_then(|(value, _)| value.as_str()) == Some(law.synapse().name())
    };
    let law = SynapseConfig::all().into_iter().find(named).and_then(|law| Table::try_from(law).ok());
    let takes = |key: &str, value: &Value| {
        let mut law = law.clone().unwrap_or_default();
        law.insert(key.into(), value.clone());
        SynapseConfig::deserialize(law).is_ok()
    };
    let keys = values.iter().filter_map(|(key, (value, _))| Some((key.strip_prefix("synapse.")?, value)));
    let wrong = keys.into_iter().find(|(key, value)| *key != "law" && law.is_some() && !takes(key, value));
    format!("synapse.{}", wrong.map_or("law", |(key, _)| key))
}

/// The default of a key.
fn usual(key: &str) -> Result<Option<Value>> {
    if let Some((value, _)) = defaults()?.remove(key) {
        return Ok(Some(value));
    }
    let Some(name) = key.strip_prefix("synapse.") else { return Ok(None) };
    let laws =
        SynapseConfig::all().into_iter().map(Table::try_from).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(laws.into_iter().find_map(|mut law| law.remove(name)))
}

fn defaults() -> Result<Layers> {
    let mut values = Layers::new();
    let table = toml::from_str(include_str!("defaults.toml"))?;
    for (section, keys) in flatten(table, "defaults.toml")? {
        values.insert(section, (keys, Origin::Default));
    }
    Ok(values)
}

/// The default of a key, for the manual; where there is none, who decides: preset, rule or data.
pub(super) fn default_of(key: &str) -> Result<String> {
    let without = match key {
        "learning.own" => "the rule's",
        "network.tied" => "the rule's",
        "network.loss" => "`\"squared-error\"`",
        "training.limit_train" | "training.limit_test" => "all",
        "training.validation" | "training.crops" => "`0`",
        "training.flips" => "`false`",
        "network.input_mean" | "network.input_std" => "`[]`",
        _ if key.starts_with("cost.") => "not known",
        _ => "the preset's",
    };
    Ok(usual(key)?.map_or(without.to_string(), |value| format!("`{value}`")))
}

pub(super) fn known_keys() -> Result<Vec<String>> {
    let named = REQUIRED.iter().chain(&OPTIONAL).map(|key| key.to_string());
    let mut known: Vec<String> = defaults()?.into_keys().chain(named).collect();
    for law in SynapseConfig::all() {
        known.extend(keys_of(&law)?);
    }
    known.sort();
    known.dedup();
    Ok(known)
}

/// The key that a name in a program means: `section.key`, `section_key`, or `key` where only one section has a key of
/// that name.
///
/// # Errors
/// Where there is none, or more than one.
pub fn key_named(word: &str) -> Result<String> {
    let known = known_keys()?;
    if known.iter().any(|key| key == word) {
        return Ok(word.into());
    }
    let means = |key: &&String| {
        key.replacen('.', "_", 1) == word || key.split_once('.').is_some_and(|(_, name)| name == word)
    };
    let found: Vec<&String> = known.iter().filter(means).collect();
    match found[..] {
        [key] => Ok(key.clone()),
        [] => {
            let names = known.iter().filter_map(|key| Some(key.split_once('.')?.1));
            usage!("there is no setting {word}{}", did_you_mean(word, names))
        }
        [key, ..] => {
            let all: Vec<String> = found.iter().map(|key| key.replacen('.', "_", 1)).collect();
            let name = key.split_once('.').map_or("", |(_, name)| name);
            usage!("{name} may be any of {}: say which", all.join(", "))
        }
    }
}

/// Checks that no key of another law of synapses is given.
fn check_law(values: &Layers) -> Result<()> {
    let Some((law, _)) = values.get("synapse.law") else { return Ok(()) };
    for known in SynapseConfig::all() {
        let keys = keys_of(&known)?;
        if law.as_str() != Some(known.synapse().name()) {
            continue;
        }
        let own = |(key, _): &(&String, _)| !key.starts_with("synapse.") || keys.contains(key);
        if let Some((key, (value, origin))) = values.iter().find(|given| !own(given)) {
            usage!(
                "{key} = {value} ({origin}): synapse.law = {law} has no such key: leave it out, or choose another law"
            );
        }
    }
    Ok(())
}

fn check_known(key: &str, place: &str) -> Result<()> {
    let known = known_keys()?;
    if known.iter().any(|k| k == key) {
        return Ok(());
    }
    if let Some((_, now)) = FORMER.iter().find(|(former, _)| *former == key) {
        usage!("{place}: {key} is no longer a key; {now}");
    }
    let section = key.split('.').next().unwrap_or_default();
    let mut near: Vec<&str> =
        known.iter().filter(|k| k.split('.').next() == Some(section)).map(String::as_str).collect();
    if near.is_empty() {
        near = vec!["network.…", "settle.…", "learning.…", "synapse.…", "noise.…", "cost.…", "training.…"];
    }
    let name = |key: &str| key.split('.').next_back().unwrap_or_default().to_string();
    // A key that is right but for its section, or similar.
    let meant = match known.iter().find(|known| name(known) == name(key)) {
        Some(known) => format!(" (did you mean {known}?)"),
        None => did_you_mean(key, known.iter().map(String::as_str)),
    };
    usage!("{}: unknown key {}{meant}; there are {}", quoted(place), quoted(key), near.join(", "))
}

fn merge(values: &mut Layers, notes: &mut Vec<String>, table: Table, origin: &Origin) -> Result<()> {
    let place = origin.to_string();
    let given = flatten(table, &place)?;
    for (key, _) in &given {
        let now = older::current_name(key);
        if now != key && given.iter().any(|(other, _)| other == now) {
            usage!(
                "{place}: {key} and {now} say the same thing twice: leave out {key}, as {now} was once called"
            );
        }
    }
    for (key, value) in given {
        if older::says_nothing(&key, &value) {
            continue;
        }
        let (key, value) = older::renamed(&key, value, &place, notes);
        check_known(&key, &place)?;
        values.insert(key, (value, origin.clone()));
    }
    Ok(())
}

/// `section.key` and value of everything in a table.
fn flatten(table: Table, place: &str) -> Result<Vec<(String, Value)>> {
    if let Some((key, _)) = table.iter().find(|(_, section)| !section.is_table()) {
        usage!(
            "{place}: key {key} stands outside the sections [network], [settle], [learning], [synapse] and \
             [training]"
        );
    }
    Ok(by_key(table)?)
}

/// Reads sections of keys as a list of `section.key`, each with its value, in alphabetical order.
///
/// # Errors
/// Those of the deserializer: what is no section, or a value of the wrong kind.
pub fn by_key<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<(String, T)>, D::Error> {
    let sections = BTreeMap::<String, BTreeMap<String, T>>::deserialize(deserializer)?;
    let keys = |(section, keys): (String, BTreeMap<String, T>)| {
        keys.into_iter().map(move |(key, value)| (format!("{section}.{key}"), value))
    };
    Ok(sections.into_iter().flat_map(keys).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learning::Nudging;
    use crate::model::{Order, Settle};

    fn choices(algo: Rule, depth: usize) -> Choices {
        Choices { algo: Some(algo), depth: Some(depth), ..Choices::default() }
    }

    fn flag(text: &str) -> (String, String, Value) {
        let (key, value) = text.split_once('=').unwrap();
        (format!("--set {text}"), key.into(), parse_value(value))
    }

    fn error(choices: &Choices) -> String {
        format!("{:#}", Resolved::new(choices).unwrap_err())
    }

    #[test]
    fn a_preset_takes_the_sizes_of_a_set_that_is_asked_for_by_name() {
        let dims = |flags: &[&str]| {
            let flags = flags.iter().map(|text| flag(text)).collect();
            Resolved::new(&Choices { flags, ..choices(Rule::CVF, 2) }).unwrap().config.network.dims.0.clone()
        };
        assert_eq!(dims(&["training.data=cifar10"]), [3072, 512, 512, 10]);
        assert_eq!(dims(&["training.data=mnist"]), [784, 512, 512, 10]);
        assert_eq!(dims(&["training.data=auto"]), [784, 512, 512, 10]);
        // Sizes given by the user stay, and are found not to fit when the images are read.
        let given = ["training.data=cifar10", "network.dims=[784, 512, 512, 10]"];
        assert_eq!(dims(&given), [784, 512, 512, 10]);
    }

    #[test]
    fn every_preset_is_table_2() {
        // (T, K, β, random β, epochs, learning rates)
        let rows = [
            ("ep-1h", 30, 10, 0.1, false, 30, vec![0.08, 0.04]),
            ("ep-2h", 100, 20, 0.5, false, 50, vec![0.2, 0.05, 0.005]),
            ("ep-2h-synchronous", 100, 20, 0.5, false, 50, vec![0.2, 0.05, 0.005]),
            ("cep-1h", 40, 15, 0.2, false, 100, vec![0.0056, 0.0028]),
            ("cep-1h-random-beta", 40, 15, 0.2, true, 100, vec![0.0056, 0.0028]),
            ("cep-2h", 100, 20, 0.5, false, 150, vec![0.01, 0.0018, 0.00018]),
            ("cep-2h-synchronous", 100, 20, 0.5, false, 150, vec![0.01, 0.0018, 0.00018]),
            ("cvf-1h", 40, 15, 0.2, true, 100, vec![0.0076, 0.0038]),
            ("cvf-2h", 100, 20, 0.35, true, 150, vec![0.009, 0.0016, 0.00016]),
            ("cvf-2h-synchronous", 100, 20, 0.35, true, 150, vec![0.009, 0.0016, 0.00016]),
        ];
        for (name, t, k, beta, random_beta, epochs, rates) in rows {
            let choices = Choices { config: Some(name.into()), ..Choices::default() };
            let config = Resolved::new(&choices).unwrap().config;
            assert_eq!((config.settle.steps, config.learning.K), (t, k), "{name}");
            assert_eq!(config.learning.beta, beta, "{name}");
            let nudging = if random_beta { Nudging::Random } else { Nudging::Positive };
            assert_eq!(config.learning.nudging, nudging, "{name}");
            assert_eq!(config.training.epochs, epochs, "{name}");
            assert_eq!(config.learning.learning_rates, rates, "{name}");
            assert_eq!(config.training.batch_size, 20, "{name}");
        }
    }

    #[test]
    fn a_synchronous_preset_is_the_other_with_the_papers_steps() {
        let synchronous = presets::SYNCHRONOUS.map(|(key, value)| flag(&format!("{key}={value}")));
        for name in ["ep-2h", "cep-2h", "cvf-2h"] {
            let resolve = |name: String, flags: &[_]| {
                let config = Some(name.into());
                Resolved::new(&Choices { config, flags: flags.to_vec(), ..Choices::default() })
                    .unwrap()
                    .config
            };
            let (preset, papers) = (resolve(name.into(), &[]), resolve(format!("{name}-synchronous"), &[]));
            let differs: Vec<String> =
                preset.changes_from(&papers).unwrap().into_iter().map(|(key, _)| key).collect();
            assert_eq!(differs, presets::SYNCHRONOUS.map(|(key, _)| key), "{name}");
            assert_eq!(resolve(name.into(), &synchronous), papers, "{name}");
        }
        // Deeper networks begin from the preset with two layers, and the same keys give the paper's steps.
        let deep = |flags: &[_]| {
            let asked = Choices { flags: flags.to_vec(), ..choices(Rule::CVF, 3) };
            Resolved::new(&asked).unwrap().config.model().settle
        };
        assert_eq!(deep(&synchronous), Settle::synchronous(160, 5e-7));
        assert_eq!((deep(&[]).order, deep(&[]).sweeps()), (Order::Alternating, 80));
    }

    #[test]
    fn flags_beat_environment_beats_file_beats_defaults() {
        let mut asked = choices(Rule::CVF, 1);
        let resolve = |asked: &Choices| Resolved::new(asked).unwrap().config;
        assert_eq!(resolve(&asked).learning.beta, 0.2);
        asked.environment =
            vec![("EQPROP_LEARNING_BETA".into(), "0.3".into()), ("EQPROP_LEARNING_T".into(), "50".into())];
        assert_eq!(resolve(&asked).learning.beta, 0.3);
        asked.flags = vec![flag("learning.beta=0.4")];
        assert_eq!(resolve(&asked).learning.beta, 0.4);
        assert_eq!(resolve(&asked).settle.steps, 50);
        assert_eq!(resolve(&asked).training.seed, 0);
    }

    #[test]
    fn mistakes_name_key_place_and_remedy() {
        for (setting, expected) in [
            ("learning.betta=1", "unknown key learning.betta"),
            ("learning.beta=big", "learning.beta = \"big\" (--set learning.beta=big): give a number: not 0"),
            ("training.epochs=1.5", "give a whole number: 1 to 1000000"),
            ("network.dims=784", "give a list: sizes ≥ 1, \"auto\" at either end"),
            ("network.clamp=maybe", "give true or false"),
            ("network.psi=200", "from 0 to 180"),
            ("learning.learning_rates=[0.1]", "has 1 rates"),
            ("network.dims=[784, 10]", "at least one hidden layer"),
            ("settle.steps=0", "settle.steps = 0"),
            ("learning.T=0", "settle.steps = 0 (--set learning.T=0)"),
            ("learning.K=-1", "learning.K = -1"),
            ("training.dtype=f16", "training.dtype"),
            ("training.seed=-1", "training.seed = -1"),
            ("training.batch_size=2147483648", "training.batch_size = 2147483648"),
            ("training.replicas=3", "training.replicas is no longer a key"),
            ("learning.T=9223372036854775807", "at most 100000 steps"),
            ("network.dims=[784, 9223372036854775807, 10]", "at most 1000000 neurons"),
            ("network.dims=[1000000, 1000000, 10]", "weights and biases"),
        ] {
            let mut asked = choices(Rule::CVF, 1);
            asked.flags = vec![flag(setting)];
            let message = error(&asked);
            assert!(message.contains(expected), "{setting}: {message}");
        }
        let mut asked = choices(Rule::EP, 1);
        asked.flags = vec![flag("network.psi=45")];
        assert!(error(&asked).contains("ties them"));
        let mut asked = choices(Rule::EP, 1);
        asked.environment = vec![("EQPROP_LERNING_T".into(), "1".into())];
        assert!(error(&asked).contains("EQPROP_LERNING_T"));
        assert!(error(&Choices::default()).contains("--algo"));
    }

    #[test]
    fn other_depths_derive_from_the_nearest() {
        for depth in 1..5 {
            let config = Resolved::new(&choices(Rule::CVF, depth)).unwrap().config;
            assert_eq!(config.network.dims.depth(), depth);
        }
        let config = Resolved::new(&choices(Rule::VF, 1)).unwrap().config;
        assert_eq!((config.learning.rule, config.settle.steps), (Rule::VF, 30));
    }

    #[test]
    fn learning_rates_are_written_input_first_and_used_output_first() {
        let config = Resolved::new(&choices(Rule::EP, 2)).unwrap().config;
        assert_eq!(config.learning.learning_rates, [0.2, 0.05, 0.005]);
        assert_eq!([0, 1, 2].map(|n| config.learning.rate(n)), [0.005, 0.05, 0.2]);
    }

    #[test]
    fn the_annotated_configuration_is_itself_one() {
        let fresh = Resolved::new(&choices(Rule::CEP, 2)).unwrap();
        // A resumed run writes it too.
        let going_on =
            Resolved::on_checkpoint(&fresh.config, Path::new("last"), &Choices::default()).unwrap();
        for resolved in [fresh, going_on] {
            let again: Config = toml::from_str(&resolved.annotated()).unwrap();
            assert_eq!(again, resolved.config);
            assert!(resolved.changed_science(&again).unwrap().is_empty());
        }
    }
}
