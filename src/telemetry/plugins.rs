//! Data for TensorBoard's custom-scalars and hyperparameter tabs, in terms of their `layout.proto`, `api.proto` and
//! `plugin_data.proto`.

use crate::base::time;
use crate::config::Config;
use crate::model::synapse::SynapseConfig;
use protobuf::well_known_types::{Value, Value_oneof_kind as Kind};
use tensorboard_proto::api::Status;
use tensorboard_proto::layout::{Category, Chart, Layout, MultilineChartContent};
use tensorboard_proto::plugin_hparams::{HParamsPluginData, HParamsPluginData_oneof_data as Content};
use tensorboard_proto::plugin_hparams::{SessionEndInfo, SessionStartInfo};

/// The plugin that draws several curves in one chart.
pub const LAYOUT_PLUGIN: &str = "custom_scalars";
/// The tag of its layout.
pub const LAYOUT_TAG: &str = "custom_scalars__config__";
/// The plugin with a table of runs.
pub const HPARAMS_PLUGIN: &str = "hparams";

/// Every chart of the layout: its category, its title, and the tags of its curves.
const CHARTS: [(&str, &str, &str); 9] = [
    ("total angle and test error", "angle between update and −∇BPTT, degrees (all matrices)", "angle/total$"),
    ("total angle and test error", "test error, %", "error/test$"),
    (MORE, "error, % (train, validation, test)", "error/"),
    (MORE, "angle between update and −∇BPTT, degrees (by matrix)", "more_angles/(?!minibatches)"),
    (MORE, "share of synapses whose updates have the sign of −∇BPTT", "sign_match/"),
    (MORE, "settling: largest |s_T − s_{T−1}| and |s_T − s_{T−2}|", "settle/residual"),
    (MORE, "settling: images that have not, %", "settle/unsettled_percent"),
    (MORE, "loss (train, validation, test)", "loss/"),
    (MORE, "norms of the weights", "weights/norm/"),
];
/// Further charts of a run with devices.
const CHARTS_OF_DEVICES: [(&str, &str, &str); 5] = [
    (MORE, "pulses a synapse in the epoch", "more_devices/pulses/(?!slots)"),
    (MORE, "Σ|Δw| over pulses by Σ|w − w'| over minibatches", "more_devices/wasted/"),
    (MORE, "reads a synapse in the epoch", "more_devices/reads/"),
    (MORE, "energy of an image, J", "more_devices/cost/energy"),
    (MORE, "latency of an image, s", "more_devices/cost/latency"),
];
/// The category of less important charts, which is closed at first.
const MORE: &str = "more";

/// The layout of a run with this configuration: which curves are drawn together.
pub fn layout(config: &Config) -> Layout {
    let mut layout = Layout::new();
    let of_devices = matches!(config.synapse, SynapseConfig::Devices(_));
    let of_devices = CHARTS_OF_DEVICES.into_iter().filter(|_| of_devices);
    for (category, title, tags) in CHARTS.into_iter().chain(of_devices) {
        // Regular expressions, which match from the beginning of a tag.
        let curves = MultilineChartContent { tag: vec![tags.into()].into(), ..Default::default() };
        let mut chart = Chart { title: title.into(), ..Default::default() };
        chart.set_multiline(curves);
        match layout.mut_category().last_mut().filter(|last| last.title == category) {
            Some(last) => last.chart.push(chart),
            None => layout.category.push(Category {
                title: category.into(),
                closed: category == MORE,
                chart: vec![chart].into(),
                ..Default::default()
            }),
        }
    }
    layout
}

/// The settings of a run in the table: its angle before training, where known, which counts as a setting because
/// TensorBoard shows settings before results; and its configuration. No columns are declared, so that TensorBoard
/// itself finds which settings differ, and shows those, by name.
fn settings(config: &Config, data: &str, angle: Option<f64>) -> Vec<(&'static str, Kind)> {
    use Kind::{number_value as Number, string_value as Text};
    let Config { network, settle, learning, training, .. } = config;
    let rates: Vec<String> = learning.learning_rates.iter().map(f64::to_string).collect();
    // The word as it is written in a configuration.
    let word = |value: Result<serde_json::Value, serde_json::Error>| {
        Text(value.ok().and_then(|value| value.as_str().map(String::from)).unwrap_or_default())
    };
    let known = [("angle before training, °", angle), ("Ψ, °", config.psi_degrees())];
    let known = known.into_iter().filter_map(|(heading, degrees)| Some((heading, Number(degrees?))));
    known
        .chain([
            ("rule", Text(learning.rule.name().into())),
            ("depth", Number(network.dims.depth() as f64)),
            ("damping", Number(settle.damping)),
            ("order", Text(settle.order.name().into())),
            ("solver", word(serde_json::to_value(settle.solver))),
            ("seed", Number(training.seed as f64)),
            ("β", Number(learning.beta)),
            ("nudging", Text(learning.nudging.name().into())),
            ("steps T", Number(settle.steps as f64)),
            ("steps K", Number(learning.K as f64)),
            ("η, input side", Number(learning.learning_rates.first().copied().unwrap_or_default())),
            ("η, all", Text(rates.join(", "))),
            ("σ′", Text(learning.sigma_prime.name().into())),
            ("init", word(serde_json::to_value(network.init))),
            ("batch size", Number(training.batch_size as f64)),
            ("epochs", Number(training.epochs as f64)),
            ("data", Text(data.into())),
        ])
        .collect()
}

fn told(content: Content) -> HParamsPluginData {
    HParamsPluginData { data: Some(content), ..Default::default() }
}

/// The row of a run on this data: its angle before training, degrees, and its settings.
pub fn row(run: &str, config: &Config, data: &str, angle: Option<f64>) -> HParamsPluginData {
    let setting = |(heading, value): (&str, Kind)| {
        (heading.to_string(), Value { kind: Some(value), ..Default::default() })
    };
    told(Content::session_start_info(SessionStartInfo {
        hparams: settings(config, data, angle).into_iter().map(setting).collect(),
        group_name: run.into(),
        start_time_secs: time::since_1970(),
        ..Default::default()
    }))
}

/// The mark of a complete run.
pub fn done() -> HParamsPluginData {
    told(Content::session_end_info(SessionEndInfo {
        status: Status::STATUS_SUCCESS,
        end_time_secs: time::since_1970(),
        ..Default::default()
    }))
}

/// The tag of this content.
pub fn tag(content: &HParamsPluginData) -> &'static str {
    match content.data {
        Some(Content::session_end_info(_)) => "_hparams_/session_end_info",
        _ => "_hparams_/session_start_info",
    }
}
