//! What the report shows of a sweep that is not the paper's, or of the paper's beyond what is in the paper.

use super::{curve, legend, measured, notes, plain};
use crate::report::charts::{self, Frame, Line, Percent};
use crate::report::results::{Group, Kind, Results, Verdict};
use crate::report::varied;
use anyhow::Result;
use maud::{Markup, PreEscaped, html};

/// The most lines that can be told apart in one figure.
const LINES: usize = 8;

/// How far the sweep is, and what it says of the paper where it repeats rows of it.
pub fn verdict(results: &Results) -> Markup {
    let runs: usize = results.groups.iter().map(|group| group.runs.len()).sum();
    let finished: usize = results.groups.iter().map(|group| group.finished().count()).sum();
    let begun: usize = results.groups.iter().map(|group| group.unfinished().count()).sum();
    let rows: Vec<&Group> =
        results.groups.iter().filter(|group| matches!(group.kind, Kind::Row(_))).collect();
    let with = |verdict| rows.iter().filter(|group| group.verdict() == verdict).count();
    html! {
        p .verdict {
            (runs) " runs with " (results.groups.len()) " different settings: " b { (finished) " finished" } ", "
            b { (begun) " unfinished" } ", " b { (runs - finished - begun) " not begun" } "."
            @if !rows.is_empty() {
                " Rows of the paper among them: " b .agrees { (with(Verdict::Agrees)) " in agreement" }
                " (within two standard errors), " b .disagrees { (with(Verdict::Disagrees)) " in disagreement" } "."
            }
        }
    }
}

/// The groups to show: all, or those that the paper does not have.
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
        (overlaid(&groups)?)
    })
}

fn table(groups: &[&Group]) -> Result<Markup> {
    let keys = varied::keys(groups)?;
    let compared = groups.iter().any(|group| matches!(group.kind, Kind::Row(_)));
    let lines = (groups.iter())
        .map(|group| {
            let values = keys.iter().map(|key| varied::value(group, key)).collect::<Result<Vec<_>>>()?;
            Ok(line(group, &values, compared))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(html! {
        p {
            "Test error after the last epoch, percent, as mean ± standard deviation over " i { "n" } " seeds, and in "
            "parentheses the mean train error. Only finished runs count."
            @if compared { " The paper's number stands beside the runs that repeat one of its rows." }
        }
        div .scroll {
            table {
                thead {
                    tr {
                        th { "Network" }
                        @for key in &keys { th { (varied::heading(key)) } }
                        th .number { "Measured" }
                        @if compared { th .number { "Paper" } }
                        th .number { i { "n" } }
                        th { "Epochs" }
                    }
                }
                tbody { @for line in lines { (line) } }
            }
        }
    })
}

fn line(group: &Group, values: &[String], compared: bool) -> Markup {
    let (class, word) = match group.verdict() {
        Verdict::Agrees => ("agrees", "agrees"),
        Verdict::Disagrees => ("disagrees", "disagrees"),
        _ => ("", ""),
    };
    html! {
        tr {
            td { (group.network()) }
            @for value in values { td { (value) } }
            td .number { (measured(group)) }
            @if compared {
                td .number {
                    @if let Kind::Row(row) = group.kind {
                        (format!("{:.2}\u{a0}±\u{a0}{:.2} ({:.2})", row.test.mean, row.test.std, row.train))
                        @if !word.is_empty() { small class=(class) { (word) } }
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

/// Groups with finished runs, and what to call them.
fn drawn<'a>(groups: &[&'a Group]) -> Result<Vec<(&'a Group, String)>> {
    let groups: Vec<&Group> = groups.iter().copied().filter(|group| group.test().is_some()).collect();
    let labels = varied::labels(&groups)?;
    let all = groups.into_iter().zip(labels);
    Ok(all.map(|(group, label)| (group, format!("{label} (n = {})", group.finished().count()))).collect())
}

fn lines(groups: &[(&Group, String)]) -> Vec<Line> {
    let line = |(color, (group, label)): (usize, &(&Group, String))| {
        let points = curve(group, |epoch| Some(epoch.test));
        Line { color, dashed: false, label: label.clone(), points }
    };
    groups.iter().enumerate().map(line).collect()
}

fn frame(lines: &[Line], size: (u32, u32), alone: bool) -> Frame {
    let points = || lines.iter().flat_map(|line| &line.points);
    Frame {
        size,
        epochs: points().map(|point| point.x as usize).max().unwrap_or(1),
        axis: Percent::of(points().map(|point| point.y)),
        y_label: "test error, %",
        alone,
    }
}

/// The curves of all groups, laid over each other; in as many figures, of the same axes, as keep them apart.
fn overlaid(groups: &[&Group]) -> Result<Markup> {
    let drawn = drawn(groups)?;
    if drawn.is_empty() {
        return Ok(html! {});
    }
    let common = frame(&lines(&drawn), (640, 400), false);
    let figures = (drawn.chunks(LINES))
        .map(|some| {
            let entries: Vec<_> =
                some.iter().enumerate().map(|(color, (_, label))| (plain(color), label.clone())).collect();
            Ok((entries, charts::curves(&common, &lines(some))?))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(html! {
        h2 { "Test error over the epochs" }
        @for (entries, figure) in figures {
            figure { (legend(&entries)) (PreEscaped(figure)) }
        }
        p .dim {
            "Means over the seeds; bands are one standard deviation. The axis is " (common.axis.name())
            ". Unfinished runs have no line."
        }
    })
}

/// The curves as a picture of its own, where one figure has room for all.
pub fn picture(results: &Results) -> Result<Option<String>> {
    let drawn = drawn(&shown(results))?;
    if drawn.is_empty() || drawn.len() > LINES {
        return Ok(None);
    }
    let lines = lines(&drawn);
    Ok(Some(charts::curves(&frame(&lines, (760, 460), true), &lines)?))
}
