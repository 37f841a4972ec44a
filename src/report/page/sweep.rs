//! The part of the report on a sweep that is not the paper's, or on runs that are not in the paper.

use super::published::{INITIAL_PSI, by_angle, published_by_psi, runs, shape};
use super::{curves as lines_of, judgement, measured, notes, published};
use crate::charts::axis::Scale;
use crate::charts::plot::{Chart, Look, Point, Series, legend};
use crate::report::paper::{Row, TRIALS};
use crate::report::results::{Group, Kind, Results};
use crate::report::varied;
use crate::report::verdict::Verdict;
use anyhow::Result;
use itertools::Itertools;
use maud::{Markup, html};
use std::collections::BTreeSet;

/// The most lines that can be told apart in one chart.
const LINES: usize = 8;

/// The progress of the sweep, and verdicts where it repeats rows of the paper.
pub fn verdict(results: &Results) -> Markup {
    let runs: usize = results.groups.iter().map(|group| group.runs.len()).sum();
    let finished: usize = results.groups.iter().map(|group| group.finished().count()).sum();
    let begun: usize = results.groups.iter().map(|group| group.unfinished().count()).sum();
    let rows: Vec<&Group> = results.groups.iter().filter(|group| compared(group).is_some()).collect();
    let with = |verdict| rows.iter().filter(|group| group.verdict() == verdict).count();
    html! {
        p .verdict {
            (runs) " runs with " (results.groups.len()) " different settings: " b { (finished) " finished" } ", "
            b { (begun) " unfinished" } ", " b { (runs - finished - begun) " not begun" } "."
            @if !rows.is_empty() {
                " Rows of the paper among them: " b .agrees { (with(Verdict::Agrees)) " in agreement" }
                " (within two standard errors), " b .better { (with(Verdict::Better)) " better than published" } ", "
                b .disagrees { (with(Verdict::Disagrees)) " in disagreement" } ", "
                b { (with(Verdict::SingleRun)) " with a single run and no verdict" } "."
            }
        }
    }
}

/// The caption: networks, data, varied keys, and settings that differ from the preset in all of it.
pub fn caption(results: &Results) -> Result<Markup> {
    let groups: Vec<&Group> = results.groups.iter().collect();
    let runs = || results.groups.iter().flat_map(|group| &group.runs);
    let list = |texts: BTreeSet<String>| texts.into_iter().collect::<Vec<_>>().join(", ");
    let varied: Vec<_> = varied::keys(&groups)?.iter().map(|key| varied::heading(key).to_string()).collect();
    let shared: Vec<_> = (varied::shared(&groups)?.iter())
        .map(|(key, value)| format!("{} = {value}", varied::heading(key)))
        .collect();
    let (varied, shared) = (varied.join(", "), shared.join(", "));
    let seeds: BTreeSet<u64> = runs().map(|run| run.config.training.seed).collect();
    Ok(html! {
        p .dim {
            (list(groups.iter().map(|group| group.network()).collect()))
            @let data = list(runs().map(|run| run.data.clone()).filter(|data| !data.is_empty()).collect());
            @if !data.is_empty() { " on " (data) }
            "; " (seeds.len()) @if seeds.len() == 1 { " seed" } @else { " seeds" }
            @if !varied.is_empty() { "; what varies: " (varied) }
            @if !shared.is_empty() { "; in all runs, unlike the preset: " (shared) }
            "."
        }
    })
}

/// The row of the paper that a group repeats, whatever its way to equilibrium.
fn compared(group: &Group) -> Option<&'static Row> {
    match group.kind {
        Kind::Row(row, _) | Kind::Settled(row) => Some(row),
        Kind::Printed(_) | Kind::Other => None,
    }
}

/// The groups to show: all, or those that are not in the paper.
fn shown(results: &Results) -> Vec<&Group> {
    match results.is_papers {
        true => results.others().collect(),
        false => results.groups.iter().collect(),
    }
}

/// Table and curves.
pub fn sections(results: &Results) -> Result<Markup> {
    let groups = shown(results);
    if groups.is_empty() {
        return Ok(html! {});
    }
    Ok(html! {
        h2 { (if results.is_papers { "Not in the paper" } else { "Errors" }) }
        (table(&groups)?)
        (psi_figure(by_psi(results)?.as_ref()))
        (curves(&overlaid(results)?))
    })
}

fn table(groups: &[&Group]) -> Result<Markup> {
    let keys = varied::keys(groups)?;
    let with_paper = groups.iter().any(|group| compared(group).is_some());
    let lines = (groups.iter())
        .map(|group| {
            let values = keys.iter().map(|key| varied::value(group, key)).collect::<Result<Vec<_>>>()?;
            Ok(line(group, &values, with_paper))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(html! {
        p {
            "Test error after the last epoch, percent, as mean ± standard deviation over " i { "n" } " seeds, and in "
            "parentheses the mean train error. Only finished runs count."
            @if with_paper { " The paper's number stands beside the runs that repeat one of its rows." }
        }
        div .scroll {
            table {
                thead {
                    tr {
                        th { "Network" }
                        @for key in &keys { th { (varied::heading(key)) } }
                        th .number { "Measured" }
                        @if with_paper { th .number { "Paper" } }
                        th .number { i { "n" } }
                        th { "Epochs" }
                    }
                }
                tbody { @for line in lines { (line) } }
            }
        }
    })
}

fn line(group: &Group, values: &[String], with_paper: bool) -> Markup {
    html! {
        tr {
            td { (group.network()) }
            @for value in values { td { (value) } }
            td .number { (measured(group)) }
            @if with_paper {
                td .number {
                    @if let Some(row) = compared(group) {
                        (published(row))
                        @if group.test().is_some() { br; (judgement(group)) }
                    } @else { "–" }
                }
            }
            td .number { (group.finished().count()) }
            td {
                (group.epochs_wanted())
                @if group.test().is_none() {
                    span .not-run { (if group.unfinished().next().is_some() { ", unfinished" } else { ", not run" }) }
                }
                @for note in notes(group) { small { (note) } }
            }
        }
    }
}

/// Groups with finished runs, and their names.
fn drawn<'a>(groups: &[&'a Group]) -> Result<Vec<(&'a Group, String)>> {
    let groups: Vec<&Group> = groups.iter().copied().filter(|group| group.test().is_some()).collect();
    let labels = varied::labels(&groups)?;
    let all = groups.into_iter().zip(labels);
    Ok(all.map(|(group, label)| (group, format!("{label} (n = {})", group.finished().count()))).collect())
}

/// The curves of all groups, laid over each other; in as many charts, of equal axes, as keep them legible.
pub fn overlaid(results: &Results) -> Result<Vec<Chart>> {
    let drawn = drawn(&shown(results))?;
    let lines = |(i, (group, label)): (usize, &(&Group, String))| {
        lines_of(label, Look::cycle(i), group, |epoch| Some(epoch.test))
    };
    let chart = |name: &str, lines| {
        let errors = ("test error, %", Scale::Percent);
        let chart = Chart::new((name, "Test error over the epochs"), "epoch", errors, lines);
        Chart { size: (520.0, 330.0), ..chart }
    };
    let all = chart("", drawn.iter().enumerate().flat_map(lines).collect());
    let parts = drawn.chunks(LINES).enumerate().map(|(part, some)| {
        let name = if part == 0 { "curves".into() } else { format!("curves-{}", part + 1) };
        Chart {
            x: all.x.clone(),
            y: all.y.clone(),
            ..chart(&name, some.iter().enumerate().flat_map(lines).collect())
        }
    });
    Ok(parts.collect())
}

/// Test error against Ψ(θf, θb) before training, where that varies: one line, through medians, for all groups that
/// differ in nothing else, and the paper's rows of their depths. `None` where Ψ does not vary, or the paper's own
/// figure shows it.
pub fn by_psi(results: &Results) -> Result<Option<Chart>> {
    let groups: Vec<&Group> = shown(results).into_iter().filter(|group| group.test().is_some()).collect();
    let alike = |a: &Group, b: &Group| {
        (a.network(), &a.variant, a.epochs_wanted()) == (b.network(), &b.variant, b.epochs_wanted())
    };
    let mut kinds: Vec<Vec<&Group>> = Vec::new();
    for group in groups.into_iter().filter(|group| group.psi().is_some()) {
        match kinds.iter_mut().find(|kind| alike(kind[0], group)) {
            Some(kind) => kind.push(group),
            None => kinds.push(vec![group]),
        }
    }
    if results.is_papers || kinds.iter().all(|kind| kind.len() < 2) {
        return Ok(None);
    }
    let firsts: Vec<&Group> = kinds.iter().map(|kind| kind[0]).collect();
    let keys = varied::keys(&firsts)?.into_iter().filter(|key| key != "network.psi").collect();
    let mut series = Vec::new();
    let depth_of = |group: &Group| group.runs[0].config.network.dims.depth();
    for (i, (kind, label)) in kinds.iter().zip(varied::labels_by(&firsts, keys)?).enumerate() {
        let points = kind.iter().flat_map(|group| runs(group, |_| group.psi()));
        let mut points: Vec<_> = points.collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x).then(a.y.total_cmp(&b.y)));
        let medians = points.chunk_by(|a, b| a.x == b.x).map(|runs| (runs[0].x, median(runs)));
        series.push(Series::line("", Look::line(i, 0), medians.collect::<Vec<_>>()));
        let runs = kind.iter().map(|group| group.finished().count()).minmax();
        let (least, most) = runs.into_option().unwrap_or_default();
        let n = if least == most { least.to_string() } else { format!("{least} to {most}") };
        let look = Look { marker: Some((shape(depth_of(kind[0])), false)), ..Look::line(i, 0) };
        series.push(Series { name: format!("{label} (n = {n})"), look, joined: -1.0, points });
    }
    let depths: BTreeSet<usize> = firsts.iter().map(|group| depth_of(group)).collect();
    for depth in depths.into_iter().filter(|depth| !published_by_psi(*depth).is_empty()) {
        let look = Look { marker: Some((shape(depth), true)), ..Look::line(7, 0) };
        let name = format!("C-VF-{depth}h, paper (n = {TRIALS})");
        series.push(Series { name, look, joined: f64::INFINITY, points: published_by_psi(depth) });
    }
    let title = "Test error against the angle between forward and feedback weights";
    Ok(Some(by_angle(("error-by-psi", title), INITIAL_PSI, (-5.0, 185.0), series)))
}

/// The median ordinate of points that ascend in it.
fn median(points: &[Point]) -> f64 {
    let middle = points.len() / 2;
    if points.len() % 2 == 1 { points[middle].y } else { (points[middle - 1].y + points[middle].y) / 2.0 }
}

fn psi_figure(chart: Option<&Chart>) -> Markup {
    let Some(chart) = chart else { return html! {} };
    html! {
        h2 { (chart.title) }
        figure {
            (legend(chart))
            (chart.svg())
            figcaption {
                "Test error after the last epoch. Circles: one hidden layer, squares: two; filled: one \
                 marker per finished run here, lines through their medians; "
                "hollow: published, mean and one standard deviation. The axis is " (chart.y.name()) "."
            }
        }
    }
}

fn curves(charts: &[Chart]) -> Markup {
    let Some(first) = charts.first() else { return html! {} };
    html! {
        h2 { (first.title) }
        @for chart in charts {
            figure { (legend(chart)) (chart.svg()) }
        }
        p .dim {
            "Each line is a run; those that differ only in the seed look alike. The axis is " (first.y.name())
            ". Unfinished runs have no line."
        }
    }
}
