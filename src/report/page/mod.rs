//! The report as one HTML file that needs nothing else.

use super::charts::{self, Point, Series};
use super::paper::{HOURS, ROWS, Row, TRIALS};
use super::{Group, Measured, Results, Spread, Verdict};
use crate::learning::Rule;
use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;
use std::collections::BTreeSet;

/// The whole page.
pub fn page(results: &Results) -> Result<String> {
    let other_data = results
        .groups
        .iter()
        .flat_map(|group| &group.runs)
        .any(|run| !run.data.is_empty() && run.data != "mnist");
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "eqprop: " (results.titles.join(", ")) }
                style { (PreEscaped(include_str!("report.css"))) }
            }
            body {
                h1 { "Equilibrium Propagation with continual weight updates: measured beside published" }
                p .dim { (results.titles.join(" · ")) }
                @if other_data {
                    p .warning { "Some runs here are not on MNIST. They are listed, but not compared with the paper." }
                }
                (table(results))
                (error_by_psi(results)?)
                (error_by_angle(results)?)
                (training_curves(results)?)
                (times(results))
                (settings(results))
            }
        }
    };
    Ok(page.into_string())
}

fn degrees(psi: Option<f64>) -> String {
    psi.map_or("–".into(), |psi| format!("{psi}°"))
}

fn percent(spread: Option<Spread>) -> String {
    match spread {
        None => "–".into(),
        Some(Spread { mean, std: None, .. }) => format!("{mean:.2}"),
        Some(Spread { mean, std: Some(std), .. }) => format!("{mean:.2} ± {std:.2}"),
    }
}

fn table(results: &Results) -> Markup {
    let other: Vec<&Group> = results.groups.iter().filter(|group| group.row.is_none()).collect();
    html! {
        h2 { "Table 3 and Appendix F.2" }
        p {
            "Test error on MNIST after the last epoch, percent, as mean ± standard deviation over " i { "n" } " seeds "
            "(published values over " (TRIALS) "), and in parentheses the mean train error. " b .within { "Within" } " means that the mean test errors differ "
            "by at most two standard errors, √(s²/n + s²/5); where n = 1 the published deviation stands for the one "
            "not measured. " b .outside { "Outside" } " is the contrary. Runs shorter than the paper's say so: theirs "
            "is not yet the number to compare. No epoch is chosen in this table. Where best epochs are named, here and in "
            "runs.csv, it is said whether by test error, which flatters, or by the error on images held out of the "
            "training set (training.validation)."
        }
        div .scroll {
            table {
                thead {
                    tr {
                        th { "Network" }
                        th .number { "Ψ" }
                        th .number { "Measured" }
                        th .number { "Paper" }
                        th .number { i { "n" } }
                        th { "Test error" }
                    }
                }
                tbody {
                    @for row in &ROWS {
                        @if results.of_row(row).next().is_none() { (missing(row)) }
                        @for group in results.of_row(row) { (line(group)) }
                    }
                    @for group in other { (line(group)) }
                }
            }
        }
    }
}

fn published(row: &Row) -> String {
    format!("{:.2} ± {:.2} ({:.2})", row.test.mean, row.test.std, row.train)
}

fn missing(row: &Row) -> Markup {
    html! {
        tr {
            td { (row.name()) }
            td .number { (degrees(row.psi)) }
            td .number { "–" }
            td .number { (published(row)) }
            td .number { "0" }
            td .not-run { "not run" }
        }
    }
}

fn line(group: &Group) -> Markup {
    let (test, train) = (group.test(), group.train());
    let (class, word) = match group.verdict() {
        Verdict::Within if group.epochs() < group.epochs_wanted() => ("not-run", "within, so far"),
        Verdict::Outside if group.epochs() < group.epochs_wanted() => ("not-run", "outside, so far"),
        Verdict::Within => ("within", "within"),
        Verdict::Outside => ("outside", "outside"),
        Verdict::NotRun if test.is_some() => ("not-run", "not in the paper"),
        Verdict::NotRun => ("not-run", "not run"),
    };
    let notes = notes(group);
    html! {
        tr {
            td {
                @match group.row {
                    Some(row) => (row.name()),
                    None => (group.name()),
                }
                @if !group.variant.is_empty() && group.row.is_some() { small { (group.variant) } }
            }
            td .number { (degrees(group.psi())) }
            td .number {
                (percent(test)) @if let Some(train) = train { " (" (format!("{:.2}", train.mean)) ")" }
            }
            td .number { (group.row.map_or("–".into(), published)) }
            td .number { (test.map_or(0, |test| test.count)) }
            td {
                span class=(class) { (word) }
                @for note in notes { small { (note) } }
            }
        }
    }
}

/// What else there is to say of a group.
fn notes(group: &Group) -> Vec<String> {
    let mut notes = Vec::new();
    let (epochs, wanted) = (group.epochs(), group.epochs_wanted());
    if epochs < wanted && group.test().is_some() {
        notes.push(format!("after {epochs} of {wanted} epochs"));
    }
    for run in &group.runs {
        if let Some(epoch) = run.collapsed {
            let before = run.best().map_or(String::new(), |best| {
                format!(", {:.2} in its best epoch by {} error, {}", best.test, run.judged_by(), best.number)
            });
            notes.push(format!("seed {} collapsed in epoch {epoch}{before}", run.config.training.seed));
        }
        if let Some(reason) = &run.failed {
            notes.push(format!("seed {} failed: {reason}", run.config.training.seed));
        }
    }
    notes
}

fn legend(entries: &[(usize, bool, String)]) -> Markup {
    html! {
        div .legend {
            @for (color, hollow, text) in entries {
                @let css = charts::css(*color);
                @let fill = if *hollow { "transparent" } else { css.as_str() };
                span { i style=(format!("border-color: {css}; background: {fill}")) {} (text) }
            }
        }
    }
}

/// The variants of a rule and depth in the results, by name.
fn variants(results: &Results, rule: Rule, depth: usize) -> BTreeSet<&str> {
    (results.groups.iter())
        .filter(|group| group.row.is_some_and(|row| (row.rule, row.depth) == (rule, depth)))
        .filter(|group| group.test().is_some())
        .map(|group| group.variant.as_str())
        .collect()
}

fn labelled(name: String, variant: &str) -> String {
    if variant.is_empty() { name } else { format!("{name}, {variant}") }
}

/// Fig. 4, right.
fn error_by_psi(results: &Results) -> Result<Markup> {
    let mut series = Vec::new();
    let mut entries = Vec::new();
    for depth in [1, 2] {
        let rows = || ROWS.iter().filter(move |row| row.rule == Rule::CVF && row.depth == depth);
        for variant in variants(results, Rule::CVF, depth) {
            let color = entries.len();
            let points = rows().filter_map(|row| {
                let group = results.of_row(row).find(|group| group.variant == variant)?;
                Some(Point::new(row.psi?, group.test()?))
            });
            series.push(Series { color, hollow: false, joined: true, points: points.collect() });
            entries.push((color, false, labelled(format!("C-VF-{depth}h, measured"), variant)));
        }
        let color = entries.len();
        let points =
            rows().filter_map(|row| Some(Point { x: row.psi?, y: row.test.mean, std: row.test.std }));
        series.push(Series { color, hollow: true, joined: true, points: points.collect() });
        entries.push((color, true, format!("C-VF-{depth}h, paper")));
    }
    let figure = charts::errors_by_angle("initial Ψ(θf, θb), degrees", -5.0..185.0, &series, None)?;
    Ok(html! {
        h2 { "Figure 4, right: error against the angle between forward and feedback weights" }
        figure {
            (legend(&entries))
            (PreEscaped(figure))
            figcaption { "Test error on MNIST after the last epoch; bars are one standard deviation. Logarithmic axis." }
        }
    })
}

/// Fig. 5a.
fn error_by_angle(results: &Results) -> Result<Markup> {
    let kinds =
        [(Rule::EP, 1), (Rule::EP, 2), (Rule::CEP, 1), (Rule::CEP, 2), (Rule::CVF, 1), (Rule::CVF, 2)];
    let mut series = Vec::new();
    let mut entries = Vec::new();
    for (rule, depth) in kinds {
        for variant in variants(results, rule, depth) {
            let color = entries.len();
            let groups = results.groups.iter().filter(|group| {
                group.row.is_some_and(|row| (row.rule, row.depth) == (rule, depth))
                    && group.variant == variant
            });
            let mut points: Vec<Point> =
                groups.filter_map(|group| Some(Point::new(group.angle()?.mean, group.test()?))).collect();
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
            series.push(Series { color, hollow: false, joined: false, points });
            entries.push((color, false, labelled(format!("{}-{depth}h", rule.title()), variant)));
        }
    }
    let low = series.iter().flat_map(|line| &line.points).filter(|point| point.y < 10.0);
    let farthest = low.map(|point| point.x).fold(0.0, f64::max);
    let inset = (farthest > 0.0).then(|| (0.0..10.0 * ((farthest + 5.0) / 10.0).ceil(), 1.0..6.0));
    let figure =
        charts::errors_by_angle("Ψ(Δtot, −∇BPTT tot) before training, degrees", 0.0..180.0, &series, inset)?;
    Ok(html! {
        h2 { "Figure 5a: error against the angle between updates and gradients before training" }
        @if entries.is_empty() {
            p .not-run { "not run" }
        } @else {
            figure {
                (legend(&entries))
                (PreEscaped(figure))
                figcaption {
                    "Each point is a row of the table: its test error, and the angle between the rule's total update and "
                    "the descent direction of BPTT at the initial weights. Inset: the low errors, linear. The paper "
                    "gives this figure without numbers."
                }
            }
        }
    })
}

/// Figs. 16 to 18.
fn training_curves(results: &Results) -> Result<Markup> {
    let figures = [
        ("Figure 16: training of C-EP", Rule::CEP, &[1, 2][..]),
        ("Figure 17: training of C-VF with one hidden layer", Rule::CVF, &[1]),
        ("Figure 18: training of C-VF with two hidden layers", Rule::CVF, &[2]),
        ("Training of EP", Rule::EP, &[1, 2]),
        ("Training with Algorithm 5", Rule::CEP_RESCALED, &[1, 2]),
    ];
    let mut all = html! {};
    for (title, rule, depths) in figures {
        let mut panels = Vec::new();
        for group in &results.groups {
            let Some(row) = group.row.filter(|row| row.rule == rule && depths.contains(&row.depth)) else {
                continue;
            };
            if group.test().is_none() {
                continue;
            }
            let points = |pick| -> Vec<Point> {
                let curve = group.curve(pick).into_iter();
                curve.map(|(epoch, spread)| Point::new(epoch as f64, spread)).collect()
            };
            let (train, test) = (points(|epoch| epoch.train), points(|epoch| Some(epoch.test)));
            let mut name = labelled(row.name(), &group.variant);
            if let Some(psi) = row.psi {
                name += &format!(", Ψ = {psi}°");
            }
            panels.push((name, charts::curves(group.epochs(), &train, &test)?));
        }
        if !panels.is_empty() {
            all = html! {
                (all)
                h2 { (title) }
                (legend(&[(0, false, "test error, %".into()), (1, false, "train error, % (dashed)".into())]))
                div .panels {
                    @for (name, figure) in panels {
                        figure { figcaption { (name) } (PreEscaped(figure)) }
                    }
                }
            };
        }
    }
    Ok(html! {
        (all)
        p .dim { "Means over the seeds; bands are one standard deviation. Logarithmic axes." }
    })
}

fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    match minutes {
        0 => format!("{seconds:.0} s"),
        1..60 => format!("{minutes} min"),
        _ => format!("{} h {:02} min", minutes / 60, minutes % 60),
    }
}

fn times(results: &Results) -> Markup {
    let groups = || results.groups.iter().filter(|group| group.test().is_some());
    let mean = |group: &Group| {
        Spread::of(group.runs.iter().map(|run| run.seconds)).map_or(0.0, |spread| spread.mean)
    };
    let paper = |group: &Group| {
        let row = group.row.filter(|row| row.rule == Rule::CVF)?;
        HOURS.iter().find(|(depth, _)| *depth == row.depth).map(|(_, hours)| hours * 3600.0)
    };
    html! {
        section #times {
            h2 { "Time" }
            p {
                "Training time of one run, mean over the seeds, without tests and checkpoints. The paper's authors give "
                "2 h 39 min for C-VF-1h and 10 h 49 min for C-VF-2h on a Titan RTX, all epochs."
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
                            th .number { "Titan RTX, an epoch" }
                        }
                    }
                    tbody {
                        @for group in groups() {
                            tr {
                                td { (group.name()) }
                                td .number { (degrees(group.psi())) }
                                td .number { (group.epochs()) }
                                td .number { (duration(mean(group))) }
                                td .number { (format!("{:.1} s", mean(group) / group.epochs() as f64)) }
                                td .number {
                                    (paper(group).map_or("–".into(), |seconds| {
                                        format!("{:.1} s", seconds / group.epochs_wanted() as f64)
                                    }))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// One text for all runs, or those there are.
fn common(runs: &[&Measured], pick: impl Fn(&Value) -> String) -> String {
    let all: BTreeSet<String> =
        runs.iter().map(|run| pick(&run.environment)).filter(|text| !text.is_empty()).collect();
    all.into_iter().collect::<Vec<_>>().join(", ")
}

fn settings(results: &Results) -> Markup {
    let runs: Vec<&Measured> = results.groups.iter().flat_map(|group| &group.runs).collect();
    let text = |key: &'static str| {
        move |value: &Value| match &value[key] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    };
    html! {
        h2 { "Settings" }
        div .scroll {
            table {
                tbody {
                    tr { th { "eqprop" } td { (common(&runs, text("version"))) ", commit " (common(&runs, text("commit"))) } }
                    tr { th { "Device" } td { (common(&runs, text("device"))) ", " (common(&runs, text("vector_instructions"))) } }
                    tr { th { "Threads a run" } td { (common(&runs, text("threads"))) } }
                    tr { th { "Seeds" } td { (common(&runs, text("seed"))) } }
                    tr { th { "Data" } td { (common(&runs, |value| text("name")(&value["data"]))) } }
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
