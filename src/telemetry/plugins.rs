//! What TensorBoard's tabs for custom scalars and hyperparameters want to know, of their `layout.proto`, `api.proto`
//! and `plugin_data.proto`.

use crate::base::time;
use crate::config::Config;
use protobuf::well_known_types::{Value, Value_oneof_kind as Kind};
use tensorboard_proto::api::{DataType, Experiment, HParamInfo, MetricInfo, MetricName, Status};
use tensorboard_proto::layout::{Category, Chart, Layout, MultilineChartContent};
use tensorboard_proto::plugin_hparams::{HParamsPluginData, HParamsPluginData_oneof_data as Content};
use tensorboard_proto::plugin_hparams::{SessionEndInfo, SessionStartInfo};

/// The plugin that draws several curves in one chart.
pub const LAYOUT_PLUGIN: &str = "custom_scalars";
/// Where its layout stands.
pub const LAYOUT_TAG: &str = "custom_scalars__config__";
/// The plugin with a table of runs.
pub const HPARAMS_PLUGIN: &str = "hparams";

/// Every chart of the layout: its category, its title, and the tags of its curves.
const CHARTS: [(&str, &str, &str); 7] = [
    ("what matters", "error, % (train, validation, test)", "error/"),
    ("what matters", "angle between update and −∇BPTT, degrees (all matrices)", "angle/(?!minibatches)"),
    ("what matters", "settling: largest |s_T − s_{T−1}| and |s_T − s_{T−2}|", "settle/residual"),
    ("more", "share of synapses whose updates have the sign of −∇BPTT", "sign_match/"),
    ("more", "settling: images that have not, %", "settle/unsettled_percent"),
    ("more", "loss (train, validation, test)", "loss/"),
    ("more", "norms of the weights", "weights/norm/"),
];

/// Which curves are drawn together.
pub fn layout() -> Layout {
    let mut layout = Layout::new();
    for (category, title, tags) in CHARTS {
        // Regular expressions, which match from the beginning of a tag.
        let curves = MultilineChartContent { tag: vec![tags.into()].into(), ..Default::default() };
        let mut chart = Chart { title: title.into(), ..Default::default() };
        chart.set_multiline(curves);
        match layout.mut_category().last_mut().filter(|last| last.title == category) {
            Some(last) => last.chart.push(chart),
            None => layout.category.push(Category {
                title: category.into(),
                chart: vec![chart].into(),
                ..Default::default()
            }),
        }
    }
    layout
}

/// What the table shows of a run's results: tag and heading.
const METRICS: [(&str, &str); 3] = [
    ("error/test", "test error, %"),
    ("error/train", "train error, %"),
    ("start/angle", "angle before training, °"),
];

/// What the table shows of a run's settings: heading and value. The first five are shown unless others are ticked.
fn settings(config: &Config, data: &str) -> Vec<(&'static str, Kind)> {
    use Kind::{number_value as Number, string_value as Text};
    let Config { network, settle, learning, training, .. } = config;
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

fn told(content: Content) -> HParamsPluginData {
    HParamsPluginData { data: Some(content), ..Default::default() }
}

/// The columns of the table, the same for all runs.
pub fn columns(config: &Config) -> HParamsPluginData {
    let setting = |(place, (heading, value)): (usize, (&str, Kind))| HParamInfo {
        name: key(place, heading),
        display_name: heading.into(),
        field_type: match value {
            Kind::number_value(_) => DataType::DATA_TYPE_FLOAT64,
            _ => DataType::DATA_TYPE_STRING,
        },
        ..Default::default()
    };
    let metric = |(tag, heading): (&str, &str)| {
        let name = MetricName { tag: tag.into(), ..Default::default() };
        MetricInfo { name: Some(name).into(), display_name: heading.into(), ..Default::default() }
    };
    told(Content::experiment(Experiment {
        hparam_infos: settings(config, "").into_iter().enumerate().map(setting).collect(),
        metric_infos: METRICS.into_iter().map(metric).collect(),
        ..Default::default()
    }))
}

/// The row of a run, on this data: what it was set to.
pub fn row(run: &str, config: &Config, data: &str) -> HParamsPluginData {
    let setting = |(place, (heading, value)): (usize, (&str, Kind))| {
        (key(place, heading), Value { kind: Some(value), ..Default::default() })
    };
    told(Content::session_start_info(SessionStartInfo {
        hparams: settings(config, data).into_iter().enumerate().map(setting).collect(),
        group_name: run.into(),
        start_time_secs: time::since_1970(),
        ..Default::default()
    }))
}

/// The run is complete.
pub fn done() -> HParamsPluginData {
    told(Content::session_end_info(SessionEndInfo {
        status: Status::STATUS_SUCCESS,
        end_time_secs: time::since_1970(),
        ..Default::default()
    }))
}

/// Where it stands.
pub fn tag(content: &HParamsPluginData) -> &'static str {
    match content.data {
        Some(Content::session_start_info(_)) => "_hparams_/session_start_info",
        Some(Content::session_end_info(_)) => "_hparams_/session_end_info",
        _ => "_hparams_/experiment",
    }
}
