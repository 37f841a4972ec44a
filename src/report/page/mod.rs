//! The report as one HTML file that needs nothing else.

mod published;
mod sweep;
mod threshold;

use super::measured::{Epoch, Measured};
use super::paper::{HOURS, Row};
use super::results::{Group, Results};
use crate::base::spread::Spread;
use crate::base::time::duration;
use crate::charts::page::frame;
use crate::charts::plot::{Chart, Look, Series};
use crate::learning::Rule;
use anyhow::Result;
use maud::{Markup, html};
use serde_json::Value;
use std::collections::BTreeSet;

/// The whole page.
pub fn page(results: &Results) -> Result<String> {
    let runs = || results.groups.iter().flat_map(|group| &group.runs);
    let other_data = runs().any(|run| !run.data.is_empty() && run.data != "mnist");
    let title = match results.is_papers {
        true => {
            "Equilibrium Propagation with continual weight updates: measured beside published".to_string()
        }
        false => results.titles.join(" · "),
    };
    let body = html! {
        h1 { (title) }
        @if results.is_papers {
            (published::verdict(results))
            p .dim { (results.titles.join(" · ")) }
        } @else {
            (sweep::caption(results)?)
            (sweep::verdict(results))
        }
        @if other_data {
            p .warning { "Some runs here are not on MNIST. They are listed, but not compared with the paper." }
        }
        @if !results.damaged.is_empty() {
            p .warning {
                "Left out, or taken from the last report, because their files cannot be read: \
                 " (results.damaged.join(", ")) "."
            }
        }
        @if results.is_papers { (published::sections(results)) }
        @for threshold in threshold::thresholds(results)? { (threshold.section()) }
        (sweep::sections(results)?)
        (times(results))
        (settings(results))
    };
    Ok(frame(&format!("eqprop: {}", results.titles.join(", ")), &html! {}, &body))
}

/// Every figure of the page, its charts side by side, by the name of its file.
pub fn figures(results: &Results) -> Result<Vec<(String, Vec<Chart>)>> {
    let mut figures = if results.is_papers { published::figures(results) } else { Vec::new() };
    for chart in sweep::by_psi(results)?.into_iter().chain(sweep::overlaid(results)?) {
        figures.push((chart.name.clone(), vec![chart]));
    }
    figures.extend(threshold::thresholds(results)?.iter().map(|threshold| {
        let chart = threshold.chart();
        (chart.name.clone(), vec![chart])
    }));
    figures.retain(|(_, charts)| !charts.iter().all(Chart::is_empty));
    Ok(figures)
}

fn degrees(psi: Option<f64>) -> String {
    psi.map_or("–".into(), |psi| format!("{psi}°"))
}

fn percent(spread: Option<Spread>) -> String {
    match spread {
        None => "–".into(),
        Some(Spread { mean, std: None, .. }) => format!("{mean:.2}"),
        Some(Spread { mean, std: Some(std), .. }) => format!("{mean:.2}\u{a0}±\u{a0}{std:.2}"),
    }
}

/// The measured errors of a group: test, and train in parentheses.
fn measured(group: &Group) -> Markup {
    html! {
        (percent(group.test())) @if let Some(train) = group.train() { " (" (format!("{:.2}", train.mean)) ")" }
    }
}

/// The published errors of a row: test, and train in parentheses.
fn published(row: &Row) -> String {
    format!("{:.2}\u{a0}±\u{a0}{:.2} ({:.2})", row.test.mean, row.test.std, row.train)
}

/// The verdict on a group, the difference of its mean from the published one, and whether that lies within the spread
/// here.
fn judgement(group: &Group) -> Markup {
    let verdict = group.verdict();
    let within = match group.published_within_spread() {
        None => "–",
        Some(true) => "inside",
        Some(false) => "outside",
    };
    html! {
        span class=(verdict.class()) { (verdict.word()) }
        @if let Some(difference) = group.difference() {
            small { (points(difference)) " points; ± 2 s: " (within) }
        }
    }
}

/// A difference with its sign.
fn points(difference: f64) -> String {
    format!("{difference:+.2}").replace('-', "−")
}

/// Further remarks on a group.
fn notes(group: &Group) -> Vec<String> {
    let mut notes = Vec::new();
    let wanted = group.epochs_wanted();
    for (run, last) in group.unfinished() {
        let Epoch { number, test, .. } = last;
        notes.push(format!("seed {}: {test:.2} after {number} of {wanted} epochs", run.config.training.seed));
    }
    for run in &group.runs {
        let seed = run.config.training.seed;
        if let Some(last) = run.last().filter(|last| last.number > wanted) {
            notes.push(format!("seed {seed} has {} epochs, the row {wanted}", last.number));
        }
        if let Some(epoch) = run.collapsed {
            let before = run.best().map_or(String::new(), |best| {
                format!(", {:.2} in its best epoch by {} error, {}", best.test, run.judged_by(), best.number)
            });
            notes.push(format!("seed {seed} collapsed in epoch {epoch}{before}"));
        }
        if let Some(reason) = &run.failed {
            notes.push(format!("seed {seed} failed: {reason}"));
        }
    }
    notes
}

/// A number of a group's finished runs over the epochs, one line per run, all with one look and one entry in the
/// legend: a mean of few would lie where no run is.
fn curves(name: &str, look: Look, group: &Group, pick: fn(&Epoch) -> Option<f64>) -> Vec<Series> {
    let line = |(i, run): (usize, &Measured)| {
        let points = run.epochs.iter().filter_map(|epoch| Some((epoch.number as f64, pick(epoch)?)));
        Series::line(if i == 0 { name } else { "" }, look, points)
    };
    group.finished().enumerate().map(line).collect()
}

fn labelled(name: String, variant: &str) -> String {
    if variant.is_empty() { name } else { format!("{name}, {variant}") }
}

fn times(results: &Results) -> Markup {
    let groups = || results.groups.iter().filter(|group| group.test().is_some());
    // Runs known by their errors alone have no time.
    let mean = |group: &Group| {
        let timed = group.finished().map(|run| run.seconds).filter(|seconds| *seconds > 0.0);
        Spread::of(timed).map(|spread| spread.mean)
    };
    let an_epoch = |group: &Group, seconds: Option<f64>| {
        seconds.map_or("–".into(), |seconds| format!("{:.1} s", seconds / group.epochs_wanted() as f64))
    };
    let paper = |group: &Group| {
        let row = group.row().filter(|row| row.rule == Rule::CVF)?;
        HOURS.iter().find(|(depth, _)| *depth == row.depth).map(|(_, hours)| hours * 3600.0)
    };
    html! {
        section #times {
            h2 { "Time" }
            p {
                "Training time of one finished run, mean over the seeds, without tests and checkpoints"
                @if results.is_papers {
                    ", on a shared machine. The paper's authors give (Discussion) "
                    "2 h 39 min for C-VF-1h and 10 h 49 min for C-VF-2h on a Titan RTX, all epochs"
                }
                "."
            }
            div .scroll {
                table {
                    thead {
                        tr {
                            th { "Network" }
                            th .number { "Ψ" }
                            th .number { "Epochs" }
                            th .number { "Here" }
                            th .number { "Here, an epoch" }
                            @if results.is_papers { th .number { "Titan RTX, per epoch" } }
                        }
                    }
                    tbody {
                        @for group in groups() {
                            tr {
                                td { (group.name()) }
                                td .number { (degrees(group.psi())) }
                                td .number { (group.epochs_wanted()) }
                                td .number { (mean(group).map_or("–".into(), duration)) }
                                td .number { (an_epoch(group, mean(group))) }
                                @if results.is_papers { td .number { (an_epoch(group, paper(group))) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// One text for all runs, or the several texts there are.
fn common(runs: &[&Measured], pick: impl Fn(&Measured) -> String) -> String {
    let all: BTreeSet<String> = runs.iter().map(|run| pick(run)).filter(|text| !text.is_empty()).collect();
    all.into_iter().collect::<Vec<_>>().join(", ")
}

fn settings(results: &Results) -> Markup {
    let runs: Vec<&Measured> = results.groups.iter().flat_map(|group| &group.runs).collect();
    let text = |key: &'static str| {
        move |run: &Measured| match run.environment.get(key) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    };
    let unknown = runs.iter().filter(|run| run.last().is_some() && run.environment.is_empty()).count();
    html! {
        h2 { "Settings" }
        div .scroll {
            table {
                tbody {
                    tr { th { "eqprop" } td { (common(&runs, text("version"))) ", commit " (common(&runs, text("commit"))) } }
                    tr { th { "Device" } td { (common(&runs, text("device"))) ", " (common(&runs, text("vector_instructions"))) } }
                    tr { th { "Threads a run" } td { (common(&runs, text("threads"))) } }
                    tr { th { "Seeds" } td { (common(&runs, |run| run.config.training.seed.to_string())) } }
                    tr { th { "Data" } td { (common(&runs, |run| run.data.clone())) } }
                    @if unknown > 0 {
                        tr { th { "Not known" } td { "commit, device and threads of " (unknown) " runs" } }
                    }
                }
            }
        }
        @for group in &results.groups {
            @let run = &group.runs[0];
            details {
                summary { (group.name()) @if group.psi().is_some() { ", Ψ = " (degrees(group.psi())) } }
                pre { (toml::to_string(&run.config).unwrap_or_default()) }
            }
        }
    }
}
