//! One page about one run: its curves, what its network has learnt, and how the states of one image settle.

use super::record::{CHANCE, Record};
use super::trajectory::Trajectory;
use crate::charts::axis::Scale;
use crate::charts::page::{Illustrated, data_url, page, panels, picture};
use crate::charts::pictures;
use crate::charts::plot::{Chart, Look, Series, Shape};
use crate::config::Config;
use crate::data::{Dataset, Split, class_list, class_name};
use crate::engine::is_cycle;
use crate::model::Order;
use crate::model::Parameters;
use crate::model::Solver;
use crate::run::checkpoint::Progress;
use crate::telemetry::look;
use crate::telemetry::metrics::ANGLE_MINIBATCHES;
use crate::telemetry::records;
use anyhow::{Result, bail};
use candle_core::DType;
use maud::{Markup, html};
use std::path::Path;
use tracing::warn;

/// Numbers of receptive fields and of wrong images shown.
const SHOWN: (usize, usize) = (100, 49);

/// The number of test images among which the least settled one is chosen.
const SOUGHT: usize = 500;

/// The most letters of a class in a legend.
const LEGEND: usize = 20;

/// Rows of a heat map.
const ROWS: usize = 128;

/// The subject of the page.
pub struct Subject<'a> {
    /// The position and metadata of the checkpoint.
    pub progress: &'a Progress,
    /// Its weights.
    pub theta: &'a Parameters,
    /// The data it is tested on: that of its training, or other images.
    pub dataset: &'a Dataset,
    /// The run's folder, where there is one.
    pub folder: Option<&'a Path>,
    /// The checkpoint's file, in words.
    pub checkpoint: String,
    /// The test image whose settling is shown; the least settled by default.
    pub image: Option<usize>,
}

/// The page.
///
/// # Errors
/// Where there is no such image, the run's record cannot be read, and those of candle.
pub fn write(subject: &Subject) -> Result<Illustrated> {
    let Subject { progress, theta, dataset, .. } = *subject;
    let (config, test) = (&progress.config, &dataset.test);
    // The outputs are the classes that the run was trained on.
    let names = if progress.class_names.is_empty() { &dataset.class_names } else { &progress.class_names };
    let looked = look::look(config, theta, test, usize::MAX, &|| false)?;
    let Some(looked) = looked.filter(|look| !look.outputs.is_empty()) else {
        bail!("there are no test images")
    };
    let record = subject.folder.map(|folder| recorded(folder, progress.next_epoch())).transpose()?.flatten();
    let (number, why) = match subject.image {
        Some(number) if number >= test.len() => {
            bail!("--image {number}: there are {} test images, from 0 on", test.len())
        }
        Some(number) => (number, "as --image asks".to_string()),
        None => {
            let of = if test.len() > SOUGHT { format!("the first {SOUGHT}") } else { "all".into() };
            let why = format!("the one that still moves most at T of {of}; --image shows another");
            (look::least_settled(config, theta, test, SOUGHT)?, why)
        }
    };
    let trajectory = Trajectory::record(config, theta, test, number)?;
    let answers = looked.answers();
    let wrong =
        answers.iter().zip(&test.labels).filter(|(answer, label)| **answer != usize::from(**label)).count();
    let curves = record.as_ref().map(curves).unwrap_or_default();
    let settles = settling_charts(&trajectory, names);
    let weights = histograms(theta)?;
    let body = html! {
        h1 { (progress.run) }
        p .dim {
            (subject.checkpoint) ": after " (progress.epoch) " epochs"
            @if progress.minibatch > 0 { " and " (progress.minibatch) " minibatches" }
            ", on " (dataset.name) ". "
            (format!("{wrong} of {} test images wrong: {:.2} %.", test.len(), 100.0 * wrong as f64 / test.len() as f64))
            @if !names.is_empty() { " Classes: " (class_list(names)) "." }
        }
        (summary(config))
        @if let Some(record) = &record {
            @if let Some(epoch) = record.collapsed() {
                p .warning { "The run collapsed in epoch " (epoch) ": it lost what it had learnt." }
            }
            @if let Some(angle) = starting_angle(record) { p { (angle) } }
            @if let Some(asked) = asked_of_devices(record) { p { (asked) } }
            h2 { "Over training" }
            (panels(&curves))
        }
        (settling_of(&trajectory, &settles, (number, &why), &class_name(names, answers[number]), names, &test.images[number * test.pixels..][..test.pixels])?)
        (learnt(theta, test, names, &looked)?)
        h2 { "Weights" }
        (panels(&weights))
        h2 { "Configuration" }
        pre { (toml::to_string(config)?) }
    };
    let charts = [curves, settles, weights].into_iter().flatten().filter(|chart| !chart.is_empty()).collect();
    Ok(Illustrated { page: page(&format!("eqprop: {}", progress.run), &body), charts })
}

/// The records of a run whose epochs before `next` are done; `None`, with a warning, where they are gone.
fn recorded(folder: &Path, next: usize) -> Result<Option<Record>> {
    if records::holds_metrics(folder) {
        return Record::read(folder, next).map(Some);
    }
    if next > 0 {
        warn!("{}: is gone, and with it the curves", folder.join(records::METRICS).display());
    }
    Ok(None)
}

/// A page of a run's records so far: its configuration and its curves.
///
/// # Errors
/// Where its record cannot be read.
pub fn glance(folder: &Path) -> Result<String> {
    let record = Record::read(folder, 0)?;
    let body = html! {
        h1 { (record.name) }
        @if let Some(config) = &record.config { (summary(config)) }
        (panels(&curves(&record)))
    };
    Ok(page(&format!("eqprop: {}", record.name), &body))
}

/// A configuration in a paragraph.
pub fn summary(config: &Config) -> Markup {
    let Config { network, settle, learning, training, .. } = config;
    let rates: Vec<String> = learning.learning_rates.iter().map(f64::to_string).collect();
    html! {
        p {
            (learning.rule.title) ", layers " (network.dims)
            ", T = " (settle.steps) ", K = " (learning.K) ", β = " (learning.nudging.mark()) (learning.beta)
            ", η = " (rates.join(", ")) " (input side first)"
            @if !config.network().is_tied() { ", Ψ = " (network.psi) "°" }
            @if settle.order != Order::Synchronous { ", " (settle.order.name()) " order" }
            @if settle.solver != Solver::Iterate { ", Anderson's acceleration" }
            @if settle.damping > 0.0 { ", damping " (settle.damping) }
            ", seed " (training.seed) "."
        }
    }
}

/// The angle before training in words, where it was measured.
fn starting_angle(record: &Record) -> Option<String> {
    let before = |tag: &str| record.curve(tag).first().filter(|point| point.0 == 0.0).map(|point| point.1);
    let spread = before("spread/angle/total").map_or(String::new(), |std| format!(" ± {std:.1}"));
    let count = before(ANGLE_MINIBATCHES).map_or(String::new(), |n| format!(" (n = {n} minibatches)"));
    let angle = before("angle/total")?;
    Some(format!(
        "Before training Ψ(Δtot, −∇BPTT tot) = {angle:.1}{spread}°{count}: 0° follows the gradient, 90° does not."
    ))
}

/// The work of devices for an image of the last epoch, in words; `None` where there are none.
fn asked_of_devices(record: &Record) -> Option<String> {
    let (steps, slots) = (record.last("settle/both_phases")?, record.last("pulses/slots")?);
    let cost =
        |tag: &str, what: &str| record.last(tag).map_or(String::new(), |cost| format!("; {what} {cost:.2e}"));
    Some(format!(
        "An image of the last epoch took {steps:.1} steps of both phases and {slots:.1} slots of trains, one after \
         the other{}{}.",
        cost("cost/energy", "energy, J:"),
        cost("cost/latency", "latency, s:")
    ))
}

/// A line for each tag with this beginning.
fn lines_of(record: &Record, prefix: &str) -> Vec<Series> {
    // Runs of version 0.1 have the spread of an angle beside it.
    (record
        .tags(prefix)
        .into_iter()
        .filter(|name| !name.ends_with("_std") && format!("{prefix}{name}") != ANGLE_MINIBATCHES)
        .enumerate())
    .map(|(i, name)| {
        let points = record.curve(&format!("{prefix}{name}"));
        // Ψ has a value for each pair.
        let name = if prefix == "psi/" { format!("forward.{name}, feedback.{name}ᵀ") } else { name };
        Series::line(name, Look::cycle(i), points)
    })
    .collect()
}

/// A line for each tag that ends in the name of an array.
fn by_array(record: &Record, prefix: &str) -> Vec<Series> {
    let mut lines = lines_of(record, prefix);
    lines.retain(|line| line.name.contains('.'));
    lines
}

/// The most measurements that are drawn as markers, each with a bar from quartile to quartile where these are known.
const FEW: usize = 40;

/// The angles between updates and gradients: markers, or a line where there are many.
fn angles(record: &Record) -> Vec<Series> {
    let mut series = lines_of(record, "angle/");
    for line in series.iter_mut().filter(|line| line.points.len() <= FEW) {
        let quartile = |which: &str| record.curve(&format!("quartiles/angle/{}/{which}", line.name));
        let (lower, upper) = (quartile("lower"), quartile("upper"));
        for point in &mut line.points {
            let at = |curve: &[(f64, f64)]| curve.iter().find(|(epoch, _)| *epoch == point.x).map(|at| at.1);
            point.quartiles = at(&lower).zip(at(&upper)).map(|(lower, upper)| [lower, upper]);
        }
        line.look.marker = Some((Shape::Circle, false));
        line.joined = -1.0;
    }
    series
}

/// Charts over the epochs.
fn curves(record: &Record) -> Vec<Chart> {
    let lines = |tags: &[(&str, &str)]| -> Vec<Series> {
        let all = tags.iter().enumerate();
        let all = all.map(|(i, (tag, name))| Series::line(*name, Look::cycle(i), record.curve(tag)));
        all.filter(|line| !line.points.is_empty()).collect()
    };
    let chart = |name, title, y, lines| Chart::new((name, title), "epoch", y, lines);
    let errors =
        lines(&[("error/test", "test"), ("error/train", "train"), ("error/validation", "validation")]);
    let residuals = lines(&[("settle/residual", "one step"), ("settle/residual_two_steps", "two steps")]);
    let degrees = ("angle, degrees", Scale::Linear);
    vec![
        chart("error", "Error", ("error, %", Scale::Percent), errors),
        chart("angle-to-bptt", "Angle Ψ(Δtot, −∇BPTT)", degrees, angles(record))
            .noted("0° follows the gradient, 90° does not; bars from quartile to quartile, of 8 minibatches and more"),
        chart(
            "sign-match",
            "Signs that agree with −∇BPTT",
            ("share of synapses", Scale::Linear),
            lines_of(record, "sign_match/"),
        )
        .noted(CHANCE),
        chart(
            "settling-over-training",
            "Settling, worst of the epoch",
            ("largest change of a state", Scale::Log),
            residuals,
        )
        .noted(
            "largest change over the last one and two steps of the first phase; two steps far below one is a cycle of \
             period 2",
        ),
        chart("norms", "Norms of the weights", ("‖W‖", Scale::Linear), lines_of(record, "weights/norm/")),
        chart("pulses", "Pulses a synapse", ("pulses in the epoch", Scale::Log), by_array(record, "pulses/"))
            .noted("mean of the devices of an array"),
        chart("wasted", "Steps by net change", ("Σ|Δw|/Σ|w − w'|", Scale::Log), by_array(record, "wasted/"))
            .noted("1 where no pulse of a minibatch has undone another"),
        chart("reads", "Reads a synapse", ("reads in the epoch", Scale::Log), by_array(record, "reads/"))
            .noted("one in each step of an image that updates a layer that the array leads into"),
        chart("energy", "Energy of an image", ("J", Scale::Log), lines(&[("cost/energy", "")])),
        chart("latency", "Latency of an image", ("s", Scale::Log), lines(&[("cost/latency", "")])),
        chart("angle-of-feedback", "Angle Ψ(θf, θb)", degrees, lines_of(record, "psi/"))
            .noted("between forward.n and the transpose of feedback.n"),
    ]
}

/// Charts of the residuals as an image settles, and of its output.
fn settling_charts(trajectory: &Trajectory, names: &[String]) -> Vec<Chart> {
    let Trajectory { first, sweep, states, truth, output, .. } = trajectory;
    let mut moves = vec![
        Series::line("change over a sweep", Look::cycle(0), trajectory.residuals(*sweep)),
        Series::line("change over two sweeps", Look::cycle(1), trajectory.residuals(2 * sweep)),
    ];
    if states.len() > first + 1 {
        moves.push(Series::line("change by the nudge", Look::cycle(2), trajectory.nudge()));
    }
    let outputs = (0..states[0][0].len())
        .map(|class| {
            let mut name = class_name(names, class);
            if name.chars().count() > LEGEND {
                name = name.chars().take(LEGEND - 1).chain(['…']).collect();
            }
            if class == *truth {
                name += ", the truth";
            }
            let points = states.iter().enumerate().map(|(t, layers)| (t as f64, layers[0][class]));
            Series::line(name, Look::cycle(class), points)
        })
        .collect();
    let chart =
        |name, title, y, lines| Chart::new((name, title), "t, steps", y, lines).marked(*first as f64, "T");
    vec![
        chart("settling", "What still moves", ("change in a state", Scale::Log), moves)
            .noted("the largest of all neurons"),
        chart("output", "The output", (output, Scale::Linear), outputs).noted("one line a class"),
    ]
}

fn settling_of(
    trajectory: &Trajectory,
    charts: &[Chart],
    (number, why): (usize, &str),
    answer: &str,
    names: &[String],
    pixels: &[u8],
) -> Result<Markup> {
    let Trajectory { first, states, truth, .. } = trajectory;
    let truth = class_name(names, *truth);
    // Changes in the last two steps of the first phase: much smaller over two steps than over one means a cycle.
    let at_end = |lag: usize| {
        trajectory.residuals(lag).into_iter().find(|(t, _)| *t as usize == *first).map_or(0.0, |p| p.1)
    };
    let (one, two) = (at_end(trajectory.sweep), at_end(2 * trajectory.sweep));
    let mut maps = Vec::new();
    for n in (0..states[0].len()).rev() {
        let title =
            if n == 0 { format!("output, {}", trajectory.output) } else { format!("hidden layer {n}") };
        let rows = rows(trajectory, n);
        let shown = rows.len();
        let cell = (10, (256 / shown.max(1)).clamp(2, 16));
        let map = pictures::heat_map(&rows, cell, first + 1);
        maps.push((title, shown, states[0][n].len(), map));
    }
    Ok(html! {
        h2 { "How one image settles" }
        p {
            "Test image " (number) " (" (why) "), a " (truth) ", classified as " (answer) ". From s = 0 it takes T = " (first)
            " steps without a nudge"
            @if states.len() > first + 1 { ", then " (states.len() - 1 - first) " with one" }
            @if one == 0.0 { ". At T its states no longer move at all" } @else {
                ". At T its states still move by up to " (format!("{one:.1e}")) " in a sweep over all layers, and by "
                (format!("{two:.1e}")) " in two"
            }
            @if is_cycle(one, two) { ": " b { "a cycle of period 2" } "." } @else { "." }
        }
        @if let Some(image) = pictures::image(pixels) {
            figure { img width="112" height="112" src=(data_url(&image)?) alt=(format!("test image {number}")); }
        }
        (panels(charts))
        div .panels .heat {
            @for (title, shown, all, map) in &maps {
                figure {
                    figcaption {
                        (title)
                        small {
                            "one row per neuron" @if shown < all { " (" (shown) " of " (all) ", those that \
                             move most in the last sweep of the first phase)" }
                            ", one column per step; white 0, dark blue 1; the red line is T. A cycle shows \
                             as stripes."
                        }
                    }
                    (picture(map, &format!("states of the {title} over the steps"), true)?)
                }
            }
        }
    })
}

/// The states of a layer, a row a neuron: those that move most at the end of the first phase, by their last state.
fn rows(trajectory: &Trajectory, n: usize) -> Vec<Vec<f64>> {
    let &Trajectory { first, sweep, ref states, .. } = trajectory;
    let moved = |i: usize| (states[first][n][i] - states[first.saturating_sub(sweep)][n][i]).abs();
    let mut neurons: Vec<usize> = (0..states[0][n].len()).collect();
    if neurons.len() > ROWS {
        neurons.sort_by(|&a, &b| moved(b).total_cmp(&moved(a)));
        neurons.truncate(ROWS);
    }
    if n > 0 {
        neurons.sort_by(|&a, &b| states[first][n][b].total_cmp(&states[first][n][a]));
    }
    neurons.into_iter().map(|i| states.iter().map(|layers| layers[n][i]).collect()).collect()
}

fn learnt(theta: &Parameters, test: &Split, names: &[String], looked: &look::Look) -> Result<Markup> {
    let first = theta.that_look_at_images()?;
    let fields = pictures::receptive_fields(&first, SHOWN.0);
    let counts = looked.confusion(test);
    let wrong = looked.most_wrong(test, SHOWN.1);
    let pictured: Vec<_> = wrong.iter().map(look::Wrong::answered).collect();
    let wrong_picture = pictures::most_wrong(&pictured, names);
    let called = |class: usize| class_name(names, class);
    Ok(html! {
        h2 { "What it has learnt" }
        @if let Some(fields) = fields {
            figure {
                (picture(&fields, "receptive fields", false)?)
                figcaption {
                    @match theta.network.convolution_into(theta.depth()) {
                        Some(_) => { "The first " (SHOWN.0.min(first.len())) " filters of the layer next to the image" }
                        None => {
                            "Weights from the image into the first " (SHOWN.0.min(first.len())) " neurons of the hidden layer next to it"
                        }
                    }
                    ", each on a scale of its own: " (pictures::weights_in_words(first[0].len())) "."
                }
            }
        }
        h2 { "Confusion matrix" }
        div .scroll {
            table {
                thead { tr { th { "truth ↓ answer →" } @for class in 0..counts.len() { th .number { (called(class)) } } th .number { "error" } } }
                tbody {
                    @for (class, row) in counts.iter().enumerate() {
                        tr {
                            th { (called(class)) }
                            @for (answer, count) in row.iter().enumerate() {
                                td .number style=(shade(*count, row, class == answer)) { @if *count > 0 { (count) } }
                            }
                            td .number { (error_of(row, class)) }
                        }
                    }
                }
            }
        }
        @if let Some(pictured) = wrong_picture {
            figure {
                (picture(&pictured, "the most wrongly classified test images", false)?)
                figcaption {
                    "The " (wrong.len()) " test images whose answer is farthest from the truth, by s⁰ of the answer (red) less "
                    "that of the truth (green); the first is image " (wrong[0].number) ", a " (called(wrong[0].truth)) " classified as "
                    (called(wrong[0].answer)) ", by " (format!("{:.2}", wrong[0].margin)) "."
                }
            }
        }
    })
}

fn error_of(row: &[usize], class: usize) -> String {
    let all: usize = row.iter().sum();
    if all == 0 { String::new() } else { format!("{:.1} %", 100.0 * (all - row[class]) as f64 / all as f64) }
}

/// The colour of a cell: darker for larger counts within its row.
fn shade(count: usize, row: &[usize], right: bool) -> String {
    let share = (count as f64 / row.iter().sum::<usize>().max(1) as f64).sqrt();
    let color = if right { "33 102 172" } else { "200 60 0" };
    format!("background: rgb({color} / {:.2})", if right { 0.45 * share } else { share.min(0.8) })
}

/// Charts of the distribution of each matrix's weights.
fn histograms(theta: &Parameters) -> Result<Vec<Chart>> {
    let mut charts = Vec::new();
    for (name, tensor) in theta.named() {
        let Some(matrix) = name.strip_suffix(".weight") else { continue };
        let values = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let line = Series::line("", Look::line(0, 0), histogram(&values));
        let name = format!("weights-{matrix}");
        charts.push(Chart::new((&name, matrix), "weight", ("synapses", Scale::Log), vec![line]));
    }
    Ok(charts)
}

/// Steps of a histogram, as a line.
fn histogram(values: &[f64]) -> Vec<(f64, f64)> {
    const BUCKETS: usize = 60;
    let (low, high) =
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    let width = (high - low) / BUCKETS as f64;
    if width.is_nan() || width <= 0.0 {
        return Vec::new();
    }
    let mut counts = vec![0.0; BUCKETS];
    for value in values {
        counts[(((value - low) / width) as usize).min(BUCKETS - 1)] += 1.0;
    }
    let edge = |i: usize| low + width * i as f64;
    // Values that a logarithmic axis cannot show lie at its foot.
    counts
        .into_iter()
        .enumerate()
        .flat_map(|(i, count)| [(edge(i), f64::max(count, 0.5)), (edge(i + 1), f64::max(count, 0.5))])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_neurons_shown_are_those_that_move_most_in_a_sweep() {
        let count = ROWS + 1;
        // Layer 0 moves in even half-steps, two to a sweep: neuron 0 alone stays in the last of them.
        let states = [0.0, 0.5, 0.5].map(|moved| {
            let state = |i: usize| if i == 0 { 0.25 } else { moved };
            vec![(0..count).map(state).collect::<Vec<f64>>()]
        });
        let trajectory =
            Trajectory {
                first: 2, sweep: 2, states: states.to_vec(), output: "s⁰", truth: 0, strength: 0.5
            };
        let shown = rows(&trajectory, 0);
        assert_eq!(shown.len(), ROWS);
        assert!(shown.iter().all(|states| states[2] == 0.5), "neuron 0 has not moved");
    }
}
