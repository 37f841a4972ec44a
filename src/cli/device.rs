//! The command that applies pulses to some devices: `device`.

use super::look::check_page;
use super::{finite, settings};
use crate::base::files;
use crate::base::output::{self, Usage, usage};
use crate::charts::axis::Scale;
use crate::charts::page::{page, panels};
use crate::charts::plot::{Chart, Look, Point, Series};
use crate::config::{Choices, Resolved};
use crate::learning::Rule;
use crate::model::synapse::SynapseConfig;
use crate::model::synapse::device::{Devices, Kind, Preset, Response, Stretch, responses, stretches};
use anyhow::Result;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use maud::html;
use std::path::{Path, PathBuf};
use toml::Value;
use tracing::info;

#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// A published device, a law of pulses, or the file of a configuration with synapse.law = "device".
    #[arg(value_name = "NAME")]
    name: String,
    /// Set any key of [synapse], for example --set synapse.dw_min_std=0; beats all else.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Pulses: their number and direction.
    #[arg(long, value_name = "PULSES", default_value = "200 up, 200 down")]
    pulses: String,
    /// The weight that is written before the first pulse.
    #[arg(long, value_name = "W", default_value_t = 0.0, value_parser = finite, allow_negative_numbers = true)]
    start: f64,
    /// Number of devices.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = devices())]
    count: usize,
    /// Seed of devices and noise.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print every pulse as JSON.
    #[arg(long)]
    json: bool,
    /// Page with the charts.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// The range of the number of devices.
fn devices() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=1_000_000)
}

/// Prints and draws the response of devices to pulses.
pub fn device(args: &DeviceArgs) -> Result<u8> {
    args.out.as_deref().map(check_page).transpose()?;
    let pulses = stretches(&args.pulses).map_err(|problem| Usage(format!("--pulses {problem}")))?;
    let law = args.law()?;
    let Some(response) = responses(&law, args.seed, &pulses, args.start, args.count) else {
        usage!("--count {}: there must be a device", args.count)
    };
    if let Some(out) = &args.out {
        files::write_named(out, args.page(&response, &pulses).as_bytes())?;
        info!("the page is {}", out.display());
    }
    output::result(&match args.json {
        true => format!("{}\n", serde_json::to_string(&response)?),
        false => args.table(&response, &pulses),
    })?;
    Ok(0)
}

impl DeviceArgs {
    /// The named law, with the settings on top of it.
    fn law(&self) -> Result<Devices> {
        let flag = |key: &str, value: &str| (self.name.clone(), key.to_string(), Value::from(value));
        let kinds: Vec<String> = Kind::ALL.iter().filter_map(named).collect();
        let mut choices = Choices { algo: Some(Rule::CVF), ..Choices::default() };
        if Preset::ALL.iter().any(|preset| preset.name() == self.name) {
            choices.flags = vec![flag("synapse.law", "device"), flag("synapse.preset", &self.name)];
        } else if kinds.contains(&self.name) {
            choices.flags = vec![flag("synapse.law", "device"), flag("synapse.device", &self.name)];
        } else if Path::new(&self.name).is_file() {
            (choices.algo, choices.config) = (None, Some(self.name.clone().into()));
        } else {
            let presets = Preset::ALL.map(Preset::name).join(" ");
            usage!(
                "{}: no such device, and no such file: choose one of {presets}, a law of pulses ({}), or the file of a \
                 configuration",
                output::quoted(&self.name),
                kinds.join(" ")
            );
        }
        choices.flags.extend(settings(&self.set)?);
        match Resolved::new(&choices)?.told().config.synapse {
            SynapseConfig::Devices(law) => Ok(law),
            _ => {
                usage!("{}: has no devices: synapse.law = \"device\" is not set", output::quoted(&self.name))
            }
        }
    }

    /// The title of the response.
    fn title(&self) -> String {
        let devices = if self.count == 1 { "1 device".into() } else { format!("{} devices", self.count) };
        format!("{}, {devices}, {}", self.name, self.pulses)
    }

    /// The response as a table for people: the first and last pulses of each stretch, and some between.
    fn table(&self, response: &Response, pulses: &[Stretch]) -> String {
        let bound = |spread: &crate::base::spread::Spread| match spread.std {
            Some(std) => format!("{:.4} ± {std:.4}", spread.mean),
            None => format!("{:.4}", spread.mean),
        };
        let [lower, upper] = &response.bounds;
        let mut text = format!(
            "{}\nbounds {} and {}, granularity {:.4e}\n{:>8} {:>10} {:>10} {:>10} {:>10}\n",
            self.title(),
            bound(lower),
            bound(upper),
            response.granularity,
            "pulses",
            "mean",
            "std",
            "lowest",
            "highest"
        );
        let mut shown = vec![0];
        let mut before = 0;
        for stretch in pulses {
            shown.extend((1..=10).map(|tenth| before + (stretch.pulses * tenth).div_ceil(10)));
            before += stretch.pulses;
        }
        shown.dedup();
        for i in shown {
            let std = response.std.as_ref().map_or("—".into(), |std| format!("{:.5}", std[i]));
            text += &format!(
                "{i:>8} {:>10.5} {std:>10} {:>10.5} {:>10.5}\n",
                response.mean[i], response.lowest[i], response.highest[i]
            );
        }
        text
    }

    /// The page.
    fn page(&self, response: &Response, pulses: &[Stretch]) -> String {
        let charts = [responding(response), stepping(response, pulses)];
        let title = self.title();
        let body = html! {
            h1 { (title) }
            p { "Weights after each pulse, from " (self.start) "; seed " (self.seed) "." }
            (panels(&charts))
            pre { (self.table(response, pulses)) }
        };
        page(&title, &body)
    }
}

/// The name of a law in configurations.
fn named(kind: &Kind) -> Option<String> {
    serde_json::to_value(kind).ok()?.as_str().map(String::from)
}

/// Weights over pulses: the mean with its spread, some devices, and the ends.
fn responding(response: &Response) -> Chart {
    let line = |name: &str, look: Look, values: &[f64]| {
        Series::line(name, look, values.iter().enumerate().map(|(i, &w)| (i as f64, w)))
    };
    let mut series = vec![
        line("lowest", Look::line(3, 2), &response.lowest),
        line("highest", Look::line(3, 2), &response.highest),
    ];
    for (i, device) in response.devices.iter().enumerate() {
        series.push(line(if i == 0 { "single devices" } else { "" }, Look::line(2, 1), device));
    }
    let mean = response.mean.iter().enumerate().map(|(i, &w)| Point {
        x: i as f64,
        y: w,
        std: response.std.as_ref().map_or(0.0, |std| std[i]),
        quartiles: None,
    });
    series.push(Series::line("mean", Look::line(0, 0), mean));
    Chart::new(("response", "Weight"), "pulses", ("weight", Scale::Linear), series)
        .noted("mean with standard deviation; the first devices one by one")
}

/// The mean step of a pulse over the mean weight.
fn stepping(response: &Response, pulses: &[Stretch]) -> Chart {
    let ups = pulses.iter().flat_map(|stretch| std::iter::repeat_n(stretch.up, stretch.pulses));
    let steps: Vec<(bool, f64, f64)> =
        ups.zip(response.mean.windows(2)).map(|(up, pair)| (up, pair[0], pair[1] - pair[0])).collect();
    let of = |name: &str, color: usize, wanted: bool| {
        let chosen = steps.iter().filter(|(up, ..)| *up == wanted).map(|&(_, w, step)| (w, step));
        let mut points: Vec<(f64, f64)> = chosen.collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series::line(name, Look::line(color, 0), points)
    };
    let series = vec![of("up", 0, true), of("down", 1, false)];
    Chart::new(("steps", "Step of a pulse"), "weight", ("step", Scale::Linear), series)
        .noted("of the mean over all devices")
}
