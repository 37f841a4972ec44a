//! What TensorBoard's tabs for custom scalars and hyperparameters want to know, of their `layout.proto`, `api.proto`
//! and `plugin_data.proto`.

use crate::config::Config;
use prost::{Enumeration, Message, Oneof};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// The plugin that draws several curves in one chart.
pub const LAYOUT_PLUGIN: &str = "custom_scalars";
/// Where its layout stands.
pub const LAYOUT_TAG: &str = "custom_scalars__config__";
/// The plugin with a table of runs.
pub const HPARAMS_PLUGIN: &str = "hparams";

/// Which curves are drawn together.
#[derive(Clone, PartialEq, Message)]
pub struct Layout {
    #[prost(int32, tag = 1)]
    version: i32,
    #[prost(message, repeated, tag = 2)]
    categories: Vec<Category>,
}

#[derive(Clone, PartialEq, Message)]
struct Category {
    #[prost(string, tag = 1)]
    title: String,
    #[prost(message, repeated, tag = 2)]
    charts: Vec<Chart>,
}

#[derive(Clone, PartialEq, Message)]
struct Chart {
    #[prost(string, tag = 1)]
    title: String,
    #[prost(message, optional, tag = 2)]
    curves: Option<Curves>,
}

/// Regular expressions, which match from the beginning of a tag.
#[derive(Clone, PartialEq, Message)]
struct Curves {
    #[prost(string, repeated, tag = 1)]
    tags: Vec<String>,
}

/// Every chart of the layout: its category, its title, and the tags of its curves.
const CHARTS: [(&str, &str, &str); 7] = [
    ("what matters", "error, % (train, validation, test)", "error/"),
    ("what matters", "angle between update and −∇BPTT, degrees (all matrices)", "angle/"),
    ("what matters", "settling: largest |s_T − s_{T−1}| and |s_T − s_{T−2}|", "settle/residual"),
    ("more", "share of synapses whose updates have the sign of −∇BPTT", "sign_match/"),
    ("more", "settling: images that have not, %", "settle/unsettled_percent"),
    ("more", "loss (train, validation, test)", "loss/"),
    ("more", "norms of the weights", "weights/norm/"),
];

impl Layout {
    /// The layout of a run.
    pub fn of_run() -> Self {
        let mut categories: Vec<Category> = Vec::new();
        for (category, title, tags) in CHARTS {
            let curves = Some(Curves { tags: vec![tags.into()] });
            let chart = Chart { title: title.into(), curves };
            match categories.last_mut().filter(|last| last.title == category) {
                Some(last) => last.charts.push(chart),
                None => categories.push(Category { title: category.into(), charts: vec![chart] }),
            }
        }
        Self { version: 0, categories }
    }
}

/// `HParamsPluginData`.
#[derive(Clone, PartialEq, Message)]
pub struct PluginContent {
    #[prost(int32, tag = 1)]
    version: i32,
    #[prost(oneof = "Content", tags = "2, 3, 4")]
    content: Option<Content>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Content {
    #[prost(message, tag = 2)]
    Experiment(Experiment),
    #[prost(message, tag = 3)]
    Start(Start),
    #[prost(message, tag = 4)]
    End(End),
}

/// The columns of the table.
#[derive(Clone, PartialEq, Message)]
struct Experiment {
    #[prost(message, repeated, tag = 4)]
    settings: Vec<SettingInfo>,
    #[prost(message, repeated, tag = 5)]
    metrics: Vec<MetricInfo>,
}

/// `HParamInfo`.
#[derive(Clone, PartialEq, Message)]
struct SettingInfo {
    #[prost(string, tag = 1)]
    name: String,
    #[prost(string, tag = 2)]
    display_name: String,
    #[prost(enumeration = "DataType", tag = 4)]
    data_type: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
enum DataType {
    Unset = 0,
    String = 1,
    Float64 = 3,
}

#[derive(Clone, PartialEq, Message)]
struct MetricInfo {
    #[prost(message, optional, tag = 1)]
    name: Option<MetricName>,
    #[prost(string, tag = 3)]
    display_name: String,
}

#[derive(Clone, PartialEq, Message)]
struct MetricName {
    #[prost(string, tag = 2)]
    tag: String,
}

/// A row: what a run was set to.
#[derive(Clone, PartialEq, Message)]
struct Start {
    #[prost(btree_map = "string, message", tag = 1)]
    settings: BTreeMap<String, Setting>,
    #[prost(string, tag = 4)]
    group: String,
    #[prost(double, tag = 5)]
    seconds: f64,
}

/// `google.protobuf.Value`.
#[derive(Clone, PartialEq, Message)]
struct Setting {
    #[prost(oneof = "SettingValue", tags = "2, 3")]
    value: Option<SettingValue>,
}

#[derive(Clone, PartialEq, Oneof)]
enum SettingValue {
    #[prost(double, tag = 2)]
    Number(f64),
    #[prost(string, tag = 3)]
    Text(String),
}

#[derive(Clone, PartialEq, Message)]
struct End {
    /// 1: success.
    #[prost(int32, tag = 1)]
    status: i32,
    #[prost(double, tag = 2)]
    seconds: f64,
}

/// What the table shows of a run's results: tag and heading.
const METRICS: [(&str, &str); 3] = [
    ("error/test", "test error, %"),
    ("error/train", "train error, %"),
    ("start/angle", "angle before training, °"),
];

/// What the table shows of a run's settings: heading and value. The first five are shown unless others are ticked.
fn settings(config: &Config, data: &str) -> Vec<(&'static str, SettingValue)> {
    use SettingValue::{Number, Text};
    let Config { network, settle, learning, training } = config;
    let rates: Vec<String> = learning.learning_rates.iter().map(f64::to_string).collect();
    // As it is written in a configuration.
    let word = |value: Result<serde_json::Value, serde_json::Error>| {
        Text(value.ok().and_then(|value| value.as_str().map(String::from)).unwrap_or_default())
    };
    vec![
        ("rule", Text(learning.rule.name().into())),
        ("depth", Number(network.dims.depth() as f64)),
        ("Ψ, °", Number(network.psi)),
        ("damping", Number(settle.damping)),
        ("order", Text(settle.order.name().into())),
        ("solver", word(serde_json::to_value(settle.solver))),
        ("seed", Number(training.seed as f64)),
        ("β", Number(learning.beta)),
        ("nudging", Text(learning.nudging.name().into())),
        ("T", Number(settle.steps as f64)),
        ("K", Number(learning.K as f64)),
        ("η, input side", Number(learning.learning_rates.first().copied().unwrap_or_default())),
        ("all η", Text(rates.join(", "))),
        ("σ′", Text(learning.sigma_prime.name().into())),
        ("init", word(serde_json::to_value(network.init))),
        ("batch size", Number(training.batch_size as f64)),
        ("epochs", Number(training.epochs as f64)),
        ("data", Text(data.into())),
    ]
}

/// The name of a setting; the table has its columns in the order of these.
fn key(place: usize, heading: &str) -> String {
    format!("{place:02} {heading}")
}

fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl PluginContent {
    fn new(content: Content) -> Self {
        Self { version: 0, content: Some(content) }
    }

    /// The columns of the table, the same for all runs.
    pub fn columns(config: &Config) -> Self {
        let settings = (settings(config, "").into_iter().enumerate())
            .map(|(place, (heading, value))| {
                let data_type = match value {
                    SettingValue::Number(_) => DataType::Float64,
                    SettingValue::Text(_) => DataType::String,
                };
                SettingInfo {
                    name: key(place, heading),
                    display_name: heading.into(),
                    data_type: data_type.into(),
                }
            })
            .collect();
        let metrics = METRICS
            .map(|(tag, heading)| MetricInfo {
                name: Some(MetricName { tag: tag.into() }),
                display_name: heading.into(),
            })
            .into();
        Self::new(Content::Experiment(Experiment { settings, metrics }))
    }

    /// The row of a run, on this data.
    pub fn row(run: &str, config: &Config, data: &str) -> Self {
        let settings = (settings(config, data).into_iter().enumerate())
            .map(|(place, (heading, value))| (key(place, heading), Setting { value: Some(value) }))
            .collect();
        Self::new(Content::Start(Start { settings, group: run.into(), seconds: seconds() }))
    }

    /// The run is complete.
    pub fn done() -> Self {
        Self::new(Content::End(End { status: 1, seconds: seconds() }))
    }

    /// Where it stands.
    pub fn tag(&self) -> &'static str {
        match self.content {
            Some(Content::Start(_)) => "_hparams_/session_start_info",
            Some(Content::End(_)) => "_hparams_/session_end_info",
            _ => "_hparams_/experiment",
        }
    }
}
