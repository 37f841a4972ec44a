//! `tune.html`: one page that shows every step.

use super::first_phase::{COARSE, FINE, MARGIN, MOST_STEPS, SHARE, Settling};
use super::nudge::{AtBeta, BEND};
use super::probe::Probed;
use super::rates::{GAIN, LOSS, Steps};
use super::second_phase::{Arrival, MISSING};
use super::{Tuner, probes};
use crate::base::time::duration;
use crate::charts::axis::Scale;
use crate::charts::page::{page as whole, panels};
use crate::charts::plot::{Chart, Look, Series};
use crate::config::Config;
use crate::study::record::CHANCE;
use anyhow::Result;
use maud::{Markup, html};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// The most curves of one chart that can be told apart.
const CURVES: usize = 8;

/// The whole page. `kept` names the probes of the result: the winner of the rounds, and the last that was shortened.
///
/// # Errors
/// Where the configuration cannot be written as TOML.
pub fn page(tuner: &Tuner, tuned: &Config, kept: &[&str; 2]) -> Result<String> {
    let title = format!("{} tuned on {}", tuned.learning.rule.title, tuner.dataset.name);
    let body = html! {
        h1 { (title) }
        p .dim {
            "Layers " (tuned.network.dims) ", seed "
            (tuned.training.seed) ", budget " (tuner.request.budget) "; it took " (duration(tuner.log.elapsed().as_secs_f64())) "."
        }
        p .verdict { (found(tuned)) }
        (beside(&tuner.request.config, tuned, last(tuner, kept).as_ref()))
        (first_phase(tuner))
        (second_phase(tuner))
        (nudge(tuner))
        (rates(tuner))
        (rounds(tuner, kept[0]))
        (trimmed(tuner, kept[1]))
        h2 { "What was found" }
        pre { (toml::to_string(tuned)?) }
        h2 { "Train with it" }
        pre { (tuner.command()) }
    };
    Ok(whole(&format!("eqprop: {title}"), &body))
}

/// The probe that shows most of the result.
fn last(tuner: &Tuner, kept: &[&str; 2]) -> Option<Probed> {
    let all: BTreeMap<String, Probed> = probes(&tuner.log).into_iter().collect();
    kept.iter().rev().find_map(|name| all.get(*name)).cloned()
}

/// The result, and below it the starting point, as in the preset; no probe has trained that.
fn beside(preset: &Config, tuned: &Config, probed: Option<&Probed>) -> Markup {
    let error = |errors: fn(&Probed) -> &[f64]| probed.map_or("–".into(), |probed| percent(errors(probed)));
    let row = |name: &str, config: &Config, errors: [String; 2]| {
        let Config { settle, learning, .. } = config;
        html! {
            tr {
                td { (name) }
                td .number { (settle.tolerance) }
                td .number { (settle.steps) }
                td .number { (learning.K) }
                td .number { (learning.nudging.mark()) (learning.beta) }
                td { (rates_of(&learning.learning_rates)) }
                @for error in errors { td .number { (error) } }
            }
        }
    };
    html! {
        div .scroll {
            table {
                thead {
                    tr {
                        th { "" } th .number { "Tolerance" } th .number { "T" } th .number { "K" } th .number { "β" }
                        th { "η, input side first" } th .number { "Held out, %" } th .number { "Train, %" }
                    }
                }
                tbody {
                    (row("found", tuned, [error(|probed| &probed.validation), error(|probed| &probed.train)]))
                    (row("as it started, from the preset", preset, ["not trained".into(), "–".into()]))
                }
            }
        }
    }
}

/// The last of some errors.
fn percent(errors: &[f64]) -> String {
    errors.last().map_or("–".into(), |error| format!("{error:.2}"))
}

/// Learning rates in words.
fn rates_of(rates: &[f64]) -> String {
    rates.iter().map(f64::to_string).collect::<Vec<_>>().join(", ")
}

fn found(tuned: &Config) -> String {
    let learning = &tuned.learning;
    format!(
        "Images settle until a step moves them by no more than {}, for at most T = {} steps; K = {}, β = {}{}, η = {} \
         (input side first).",
        tuned.settle.tolerance,
        tuned.settle.steps,
        learning.K,
        learning.nudging.mark(),
        learning.beta,
        rates_of(&learning.learning_rates)
    )
}

/// The result of a step, if it was done.
fn result<R: DeserializeOwned>(tuner: &Tuner, step: &str) -> Option<R> {
    serde_json::from_value(tuner.log.find(step)?.clone()).ok()
}

/// Values by their number, from `first` on.
fn numbered(values: impl IntoIterator<Item = f64>, first: usize) -> Vec<(f64, f64)> {
    values.into_iter().enumerate().map(|(i, value)| ((first + i) as f64, value)).collect()
}

/// The axes of a chart.
struct Plot {
    x_label: &'static str,
    y_label: &'static str,
    scale: Scale,
    mark: Option<f64>,
}

/// A chart; where there is a mark, it is what was found.
fn chart(title: &str, note: &str, plot: &Plot, lines: Vec<Series>) -> Chart {
    let chart = Chart::new(("tune", title), plot.x_label, (plot.y_label, plot.scale), lines).noted(note);
    match plot.mark {
        Some(at) => chart.marked(at, "found"),
        None => chart,
    }
}

fn solid(name: impl Into<String>, color: usize, points: Vec<(f64, f64)>) -> Series {
    Series::line(name, Look::line(color, 0), points)
}

fn dashed(name: impl Into<String>, color: usize, points: Vec<(f64, f64)>) -> Series {
    Series::line(name, Look::line(color, 1), points)
}

/// The networks that were measured, and their names on the page.
const NETWORKS: [(&str, &str); 4] = [
    ("untrained", "untrained"),
    ("pilot", "after the first probe"),
    ("longer", "after a longer one"),
    ("winner", "after the longest"),
];

fn first_phase(tuner: &Tuner) -> Markup {
    let plot =
        Plot { x_label: "step t", y_label: "largest change of a state", scale: Scale::Log, mark: None };
    let mut lines = Vec::new();
    for (i, (network, title)) in NETWORKS.into_iter().enumerate() {
        let Some(settling) = result::<Settling>(tuner, &format!("settling/{network}")) else { continue };
        lines.push(solid(format!("{title}, 99.9 % of images"), i, numbered(settling.residuals, 1)));
        lines.push(dashed(format!("{title}, half"), i, numbered(settling.median, 1)));
    }
    html! {
        h2 { "How images settle" }
        p {
            "An image settles until F would move it by at most β/" (1.0 / FINE) ", or β/" (1.0 / COARSE) " \
             where the "
            "train error holds. T is " (MARGIN) " times what " (100.0 * SHARE) " % of the images need for it, at most "
            (MOST_STEPS) "."
        }
        (panels(&[chart("Residual against t", "max|s_t − s_{t−1}| of an image", &plot, lines)]))
    }
}

fn second_phase(tuner: &Tuner) -> Markup {
    let plot = |y_label, scale| Plot { x_label: "step t", y_label, scale, mark: None };
    let mut charts = Vec::new();
    for (network, title) in NETWORKS {
        let Some(arrival) = result::<Arrival>(tuner, &format!("arrival/{network}")) else { continue };
        charts.push(chart(
            &format!("‖∇(t)‖ and ‖Δ(t)‖, {title}"),
            "solid the gradient, dashed the update with η = 0",
            &plot("norm", Scale::Log),
            norms(&arrival),
        ));
        charts.push(chart(
            &format!("Missing part, {title}"),
            "‖Σ∇ − ∇tot‖/‖∇tot‖ of the input weights after K steps",
            &plot("part of the gradient", Scale::Log),
            vec![solid("input weights", 0, numbered(arrival.missing, 1))],
        ));
    }
    html! {
        h2 { "K: how gradients arrive" }
        p { "K is the first step after which at most " (100.0 * MISSING) " % of the gradient of the input \
            weights is missing." }
        (panels(&charts))
    }
}

fn norms(arrival: &Arrival) -> Vec<Series> {
    let mut lines = Vec::new();
    for (i, name) in arrival.matrices.iter().enumerate() {
        let of = |norms: &[Vec<f64>]| numbered(norms.iter().map(|norms| norms[i]), 0);
        lines.push(solid(format!("∇ {name}"), i, of(&arrival.gradients)));
        lines.push(dashed(format!("Δ {name}"), i, of(&arrival.updates)));
    }
    lines
}

fn nudge(tuner: &Tuner) -> Markup {
    let Some(curve) = result::<Vec<AtBeta>>(tuner, "nudge") else { return html! {} };
    let of = |value: &dyn Fn(&AtBeta) -> f64| -> Vec<(f64, f64)> {
        curve.iter().map(|at| (at.beta.log10(), value(at))).collect()
    };
    let mark = Some(tuner.config.learning.beta.log10());
    let plot = |y_label| Plot { x_label: "log₁₀ |β|", y_label, scale: Scale::Linear, mark };
    let angle = |sign: usize| of(&|at: &AtBeta| at.degrees[sign].unwrap_or(f64::NAN));
    let signs = |sign: usize| of(&|at: &AtBeta| at.sign_match[sign]);
    html! {
        h2 { "β: between float noise and truncation" }
        p { "β is the largest before the angle of either sign bends, by " (BEND) "°." }
        (panels(&[
            chart("Angle against β", "Ψ(Δtot, −∇), η = 0", &plot("angle, degrees"), vec![
                solid("β > 0", 0, angle(0)), solid("β < 0", 1, angle(1)),
            ]),
            chart("Signs that agree", CHANCE, &plot("share of synapses"), vec![
                solid("β > 0", 0, signs(0)), solid("β < 0", 1, signs(1)),
            ]),
        ]))
    }
}

fn rates(tuner: &Tuner) -> Markup {
    let Some(steps) = result::<Steps>(tuner, "rates") else { return html! {} };
    let points: Vec<(f64, f64)> =
        steps.tried.iter().map(|at| (at.step.log10(), at.shows.unwrap_or(f64::NAN))).collect();
    let y_label = if steps.continual { "angle, degrees" } else { "part of the first gain" };
    let plot = Plot { x_label: "log₁₀ s", y_label, scale: Scale::Linear, mark: Some(steps.step.log10()) };
    let shown = match steps.continual {
        true => chart(
            "Angle against η",
            "Ψ(Δtot, −∇), mean of both signs of β",
            &plot,
            vec![solid("continual updates", 0, points)],
        ),
        false => chart(
            "Gain against η",
            "fall of the loss of a minibatch, for each unit of s",
            &plot,
            vec![solid("gain", 0, points)],
        ),
    };
    html! {
        h2 { "η: how far a step may go" }
        p {
            "η of layer n is s/‖∇_n‖, so that every matrix moves by s. "
            @if steps.continual {
                "s is the longest step that turns continual updates by no more than " (LOSS) "° from those of η = 0."
            } @else {
                "s is the longest step for each unit of which the loss still falls by " (GAIN) " of its \
                 fall for the "
                "shortest."
            }
        }
        (panels(&[shown]))
    }
}

/// The longest results of each probe whose name begins so.
fn longest(tuner: &Tuner, begins: &str) -> BTreeMap<String, Probed> {
    probes(&tuner.log).into_iter().filter(|(name, _)| name.starts_with(begins)).collect()
}

fn rounds(tuner: &Tuner, kept: &str) -> Markup {
    let candidates = longest(tuner, "c");
    let mut best: Vec<(&String, &Probed)> = candidates.iter().collect();
    best.sort_by(|a, b| (b.1.train.len().cmp(&a.1.train.len())).then(a.1.error().total_cmp(&b.1.error())));
    let plot = |y_label| Plot { x_label: "epoch", y_label, scale: Scale::Log, mark: None };
    let lines = |errors: &dyn Fn(&Probed) -> Vec<f64>| -> Vec<Series> {
        (best.iter().take(CURVES).enumerate())
            .map(|(i, (name, probed))| solid(marked(name, kept), i, numbered(errors(probed), 1)))
            .collect()
    };
    html! {
        h2 { "Probes: the better half continues" }
        (panels(&[
            chart("Error on the images held out", "the probes trained longest", &plot("error, \
                %"), lines(&|p| p.validation.clone())),
            chart("Train error", "", &plot("error, %"), lines(&|p| p.train.clone())),
        ]))
        (table(&best, kept))
    }
}

/// A name, marked if its settings were kept.
fn marked(name: &str, kept: &str) -> String {
    if name == kept { format!("{name}, kept") } else { name.into() }
}

fn trimmed(tuner: &Tuner, kept: &str) -> Markup {
    let mut tries: Vec<(String, Probed)> = longest(tuner, "raised").into_iter().collect();
    tries.extend(longest(tuner, "t"));
    if tries.is_empty() {
        return html! {};
    }
    html! {
        h2 { "Both phases, shortened while the train error holds" }
        (table(&tries.iter().map(|(name, probed)| (name, probed)).collect::<Vec<_>>(), kept))
        @if !tries.iter().any(|(name, _)| name == kept) { p .dim { "None was kept: the train error rose." } }
    }
}

/// `kept` is marked, which the others are not.
fn table(probes: &[(&String, &Probed)], kept: &str) -> Markup {
    html! {
        div .scroll {
            table {
                thead {
                    tr {
                        th { "Probe" } th .number { "Tolerance" } th .number { "Steps" } th .number { "K" } th .number { "β" } th { "η, input side first" }
                        th .number { "Epochs" } th .number { "Held out, %" } th .number { "Train, %" } th .number { "Unsettled, %" }
                    }
                }
                tbody {
                    @for (name, probed) in probes {
                        tr .kept[*name == kept] {
                            td { (marked(name, kept)) @if probed.lost { small .disagrees { "diverged or collapsed" } } }
                            td .number { (probed.tolerance) }
                            td .number { (format!("{:.1}", probed.steps)) }
                            td .number { (probed.second_steps) }
                            td .number { "±" (probed.beta) }
                            td { (rates_of(&probed.learning_rates)) }
                            td .number { (probed.train.len()) }
                            td .number { (percent(&probed.validation)) }
                            td .number { (percent(&probed.train)) }
                            td .number { (format!("{:.2}", probed.unsettled_percent)) }
                        }
                    }
                }
            }
        }
    }
}
