//! Some runs side by side: curves, differences of their settings, results.

use super::record::{CHANCE, Record};
use crate::base::time::duration;
use crate::charts::axis::Scale;
use crate::charts::page::{Illustrated, page, panels};
use crate::charts::plot::{Chart, Look, Series, css};
use crate::config::Config;
use anyhow::Result;
use maud::{Markup, html};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The whole page about the runs in these folders, each with its `next` for [`Record::read`].
///
/// # Errors
/// Names what cannot be read.
pub fn write(folders: &[(PathBuf, usize)]) -> Result<Illustrated> {
    let runs =
        folders.iter().map(|(folder, next)| Record::read(folder, *next)).collect::<Result<Vec<_>>>()?;
    let chart = |name, title, y, tag: &str| {
        let lines = runs.iter().enumerate();
        let lines = lines.map(|(i, run)| Series::line(&run.name, Look::cycle(i), run.curve(tag)));
        Chart::new((name, title), "epoch", y, lines.collect())
    };
    let error = ("error, %", Scale::Percent);
    let charts = vec![
        chart("test-error", "Test error", error, "error/test"),
        chart("train-error", "Train error", error, "error/train"),
        chart("validation-error", "Error on the images held out", error, "error/validation"),
        chart(
            "angle-to-bptt",
            "Angle Ψ(Δtot, −∇BPTT), all matrices",
            ("angle, degrees", Scale::Linear),
            "angle/total",
        ),
        chart(
            "sign-match",
            "Signs that agree with −∇BPTT",
            ("share of synapses", Scale::Linear),
            "sign_match/total",
        )
        .noted(CHANCE),
        chart(
            "settling",
            "Settling, worst of the epoch",
            ("largest change of a state", Scale::Log),
            "settle/residual",
        )
        .noted("the largest change in the last step of the first phase"),
    ];
    let body = html! {
        h1 { (runs.len()) " runs compared" }
        (results(&runs))
        h2 { "Over training" }
        (panels(&charts))
        (differences(&runs))
    };
    let charts = charts.into_iter().filter(|chart| !chart.is_empty()).collect();
    Ok(Illustrated { page: page(&format!("eqprop: {} runs", runs.len()), &body), charts })
}

fn percent(error: Option<f64>) -> String {
    error.map_or("–".into(), |error| format!("{error:.2}"))
}

fn results(runs: &[Record]) -> Markup {
    html! {
        div .scroll {
            table {
                thead {
                    tr {
                        th { "Run" } th { "Data" } th .number { "Epochs" } th .number { "Test" } th .number { "Train" }
                        th .number { "Lowest test" } th .number { "First angle" } th .number { "Time" }
                    }
                }
                tbody {
                    @for (i, run) in runs.iter().enumerate() {
                        tr {
                            td { b style=(format!("color: {}", css(i))) { "■ " } (run.name)
                                @if let Some(epoch) = run.collapsed() { small { "collapsed in epoch " (epoch) } } }
                            td { (run.data()) }
                            td .number { (run.epochs()) }
                            td .number { (percent(run.last("error/test"))) }
                            td .number { (percent(run.last("error/train"))) }
                            td .number { (percent(run.curve("error/test").into_iter().map(|point| point.1).reduce(f64::min))) }
                            td .number { (run.first("angle/total").map_or("–".into(), |angle| format!("{angle:.1}°"))) }
                            td .number { (time(run)) }
                        }
                    }
                }
            }
        }
        p .dim {
            "Errors after the last epoch, in percent; the lowest is chosen on the test images, so it flatters. The angle is "
            "Ψ(Δtot, −∇BPTT) before training. Time is that of training alone."
         }
    }
}

fn time(run: &Record) -> String {
    let seconds: f64 = run.curve("speed/epoch_seconds").into_iter().map(|point| point.1).sum();
    duration(seconds)
}

/// Every key, `section.key`, with its value.
fn settings(config: &Config) -> BTreeMap<String, String> {
    let values = config.values().unwrap_or_default();
    values.into_iter().map(|(key, value)| (key, value.to_string())).collect()
}

fn differences(runs: &[Record]) -> Markup {
    let all: Vec<_> = runs.iter().map(|run| run.config.as_ref().map(settings).unwrap_or_default()).collect();
    let keys: std::collections::BTreeSet<&String> = all.iter().flat_map(BTreeMap::keys).collect();
    let differs = |key: &&&String| all.iter().any(|settings| settings.get(**key) != all[0].get(**key));
    let different: Vec<&&String> = keys.iter().filter(differs).collect();
    html! {
        h2 { "What differs" }
        @if different.is_empty() {
            p { "Nothing: they have the same settings." }
        } @else {
            div .scroll {
                table {
                    thead { tr { th { "Setting" } @for run in runs { th { (run.name) } } } }
                    tbody {
                        @for key in different {
                            tr { td { (key) } @for settings in &all { td { (settings.get(*key).map_or("–", String::as_str)) } } }
                        }
                    }
                }
            }
            p .dim { "All else is the same in all of them." }
        }
    }
}
