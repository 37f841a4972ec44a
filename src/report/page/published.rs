//! What the report of the paper's runs shows: the verdict, Table 3, and the paper's figures.

use super::{curve, degrees, labelled, legend, measured, notes, plain};
use crate::learning::Rule;
use crate::model::network::Init;
use crate::report::charts::{self, Frame, Line, Look, Percent, Point, Series, Shape};
use crate::report::paper::{ROWS, Row, TRIALS};
use crate::report::results::{Group, Kind, Results, Verdict};
use anyhow::Result;
use maud::{Markup, PreEscaped, html};

/// Rules and depths in the paper's order.
const KINDS: [(Rule, usize); 6] =
    [(Rule::EP, 1), (Rule::EP, 2), (Rule::CEP, 1), (Rule::CEP, 2), (Rule::CVF, 1), (Rule::CVF, 2)];

/// Degrees between two Ψ of the paper's rows.
const STEP: f64 = 22.5;

/// How many rows of the paper agree, and which do not.
pub fn verdict(results: &Results) -> Markup {
    let with = |verdict| -> Vec<&Row> { ROWS.iter().filter(|row| results.verdict(row) == verdict).collect() };
    let (agree, disagree) = (with(Verdict::Agrees), with(Verdict::Disagrees));
    let (unfinished, not_run) = (with(Verdict::Unfinished), with(Verdict::NotRun));
    let names = |rows: &[&Row]| {
        let names = rows.iter().map(|row| match row.psi {
            None => row.name(),
            Some(psi) => format!("{} at Ψ = {psi}°", row.name()),
        });
        names.collect::<Vec<_>>().join(", ")
    };
    html! {
        p .verdict {
            "Of the paper's " (ROWS.len()) " rows: " b .agrees { (agree.len()) " in agreement" }
            " (within two standard errors), " b .disagrees { (disagree.len()) " in disagreement" } ", "
            b { (unfinished.len()) " unfinished" } ", " b { (not_run.len()) " not run" } "."
        }
        @for (word, rows) in [("In disagreement", &disagree), ("Unfinished", &unfinished)] {
            @if !rows.is_empty() { p { (word) ": " (names(rows)) "." } }
        }
    }
}

/// Tables and figures.
pub fn sections(results: &Results) -> Result<Markup> {
    Ok(html! {
        (table(results))
        (as_printed(results))
        (error_by_psi(results)?)
        (error_by_angle(results)?)
        (training_curves(results)?)
    })
}

fn head(extra: &str) -> Markup {
    html! {
        thead {
            tr {
                th { "Network" }
                th .number { "Ψ" }
                th .number { "Measured" }
                th .number { "Paper" }
                th .number { i { "n" } }
                th { (extra) }
            }
        }
    }
}

fn table(results: &Results) -> Markup {
    html! {
        h2 { "Table 3 and Appendix F.2" }
        p {
            "Test error on MNIST after the last epoch, percent, as mean ± standard deviation over " i { "n" } " seeds "
            "(published values over " (TRIALS) "), and in parentheses the mean train error. A row " b .agrees { "agrees" }
            " if the mean test errors differ by at most two standard errors, √(s²/n + s²/5); where n = 1 the published "
            "deviation stands for the one not measured. Only runs that have all of the paper's epochs count; others are "
            b { "unfinished" } ", without verdict or line in a figure. No epoch is chosen in this table. Where best epochs "
            "are named, here and in runs.csv, it is said whether by test error, which flatters, or by the error on images "
            "held out of the training set (training.validation)."
        }
        div .scroll {
            table {
                (head("Test error"))
                tbody {
                    @for row in &ROWS {
                        @match results.of_row(row) {
                            Some(group) => (line(group, row)),
                            None => (missing(row)),
                        }
                    }
                }
            }
        }
    }
}

/// The rules as the text prints them.
fn as_printed(results: &Results) -> Markup {
    if results.printed().next().is_none() {
        return html! {};
    }
    html! {
        h2 { "As printed" }
        p {
            "The same rows as the paper's text has them, where that is not what the published numbers come from: Glorot "
            "weights, updates of C-VF without σ′, biases that all learn. Each row says which of these it has."
        }
        div .scroll {
            table {
                (head("Test error"))
                tbody {
                    @for group in results.printed() {
                        @if let Some(row) = group.row() { (line(group, row)) }
                    }
                }
            }
        }
    }
}

fn published(row: &Row) -> String {
    format!("{:.2}\u{a0}±\u{a0}{:.2} ({:.2})", row.test.mean, row.test.std, row.train)
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

fn line(group: &Group, row: &Row) -> Markup {
    let (class, word) = match group.verdict() {
        Verdict::Agrees => ("agrees", "agrees"),
        Verdict::Disagrees => ("disagrees", "disagrees"),
        Verdict::Unfinished => ("not-run", "unfinished"),
        Verdict::NotRun => ("not-run", "not run"),
    };
    html! {
        tr {
            td { (row.name()) @if !group.variant.is_empty() { small { (group.variant) } } }
            td .number { (degrees(group.psi())) }
            td .number { (measured(group)) }
            td .number { (published(row)) }
            td .number { (group.finished().count()) }
            td {
                span class=(class) { (word) }
                @for note in notes(group) { small { (note) } }
            }
        }
    }
}

/// A rule with one way of updating: what points of one colour share.
fn treatment(group: &Group) -> &'static str {
    match group.kind {
        Kind::Printed(row) if row.rule == Rule::CVF => ", as printed",
        _ => "",
    }
}

/// Groups of a rule and depth that have finished runs, and whether they are as printed.
fn of_kind(results: &Results, rule: Rule, depth: usize) -> impl Iterator<Item = &Group> {
    results.groups.iter().filter(move |group| {
        group.row().is_some_and(|row| (row.rule, row.depth) == (rule, depth)) && group.test().is_some()
    })
}

fn shape(depth: usize) -> Shape {
    if depth == 1 { Shape::Circle } else { Shape::Square }
}

/// Fig. 4, right.
fn error_by_psi(results: &Results) -> Result<Markup> {
    let mut series = Vec::new();
    let mut entries = Vec::new();
    for depth in [1, 2] {
        let mut variants: Vec<&str> = Vec::new();
        for group in of_kind(results, Rule::CVF, depth) {
            if !variants.contains(&&group.variant[..]) {
                variants.push(&group.variant);
            }
        }
        let mut add = |hollow, name: String, points: Vec<Point>| {
            let look = Look { color: entries.len(), shape: shape(depth), hollow };
            entries.push((look, name));
            series.push(Series { look, joined: Some(STEP), points });
        };
        for variant in variants {
            let groups = of_kind(results, Rule::CVF, depth).filter(|group| group.variant == variant);
            let points = groups.filter_map(|group| Some(Point::new(group.psi()?, group.test()?))).collect();
            add(false, labelled(format!("C-VF-{depth}h, measured"), variant), points);
        }
        let rows = ROWS.iter().filter(|row| row.rule == Rule::CVF && row.depth == depth);
        let points = rows.filter_map(|row| Some(Point { x: row.psi?, y: row.test.mean, std: row.test.std }));
        add(true, format!("C-VF-{depth}h, paper"), points.collect());
    }
    let axis = Percent::of(series.iter().flat_map(|line| &line.points).map(|point| point.y));
    let figure = charts::errors_by_angle("initial Ψ(θf, θb), degrees", -5.0..185.0, &axis, &series, None)?;
    Ok(html! {
        h2 { "Figure 4, right: error against the angle between forward and feedback weights" }
        figure {
            (legend(&entries))
            (PreEscaped(figure))
            figcaption {
                "Test error on MNIST after the last epoch; bars are one standard deviation. Circles: one hidden layer, "
                "squares: two; hollow: published. The axis is " (axis.name()) "."
            }
        }
    })
}

/// Fig. 5a: colour is the rule, shape the depth, fill the initialisation.
fn error_by_angle(results: &Results) -> Result<Markup> {
    const COLORS: [(Rule, &str); 4] =
        [(Rule::EP, ""), (Rule::CEP, ""), (Rule::CVF, ""), (Rule::CVF, ", as printed")];
    let mut series: Vec<Series> = Vec::new();
    let mut entries: Vec<(Look, String)> = Vec::new();
    for (rule, depth) in KINDS {
        for group in of_kind(results, rule, depth) {
            let (Some(angle), Some(test)) = (group.angle(), group.test()) else { continue };
            let of = (rule, treatment(group));
            let color = COLORS.iter().position(|known| *known == of).unwrap_or(COLORS.len());
            let glorot = group.runs[0].config.network.init == Init::Glorot;
            let look = Look { color, shape: shape(depth), hollow: glorot };
            let point = Point::new(angle.mean, test);
            match series.iter_mut().find(|line| line.look == look) {
                Some(line) => line.points.push(point),
                None => {
                    let init = if glorot { "Glorot" } else { "fan-in" };
                    entries.push((look, format!("{}-{depth}h{}, {init}", rule.title(), of.1)));
                    series.push(Series { look, joined: None, points: vec![point] });
                }
            }
        }
    }
    let low = series.iter().flat_map(|line| &line.points).filter(|point| point.y < 10.0);
    let farthest = low.map(|point| point.x).fold(0.0, f64::max);
    let inset = (farthest > 0.0).then(|| (0.0..10.0 * ((farthest + 5.0) / 10.0).ceil(), 1.0..6.0));
    let axis =
        Percent::of(series.iter().flat_map(|line| &line.points).map(|point| point.y).chain([1.0, 100.0]));
    let x_label = "Ψ(Δtot, −∇BPTT tot) before training, degrees";
    let figure = charts::errors_by_angle(x_label, 0.0..180.0, &axis, &series, inset)?;
    Ok(html! {
        h2 { "Figure 5a: error against the angle between updates and gradients before training" }
        @if entries.is_empty() {
            p .not-run { "not run" }
        } @else {
            figure {
                (legend(&entries))
                (PreEscaped(figure))
                figcaption {
                    "Each point is a row of a table above: its test error, and the angle between the rule's total update and "
                    "the descent direction of BPTT at the initial weights. Colour: rule; circles: one hidden layer, squares: "
                    "two; filled: fan-in weights, hollow: Glorot. Inset: the low errors, on linear axes. The paper gives "
                    "this figure without numbers."
                }
            }
        }
    })
}

/// Figs. 16 to 18: the panels of a figure share their axes.
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
        let groups: Vec<&Group> = depths.iter().flat_map(|depth| of_kind(results, rule, *depth)).collect();
        if groups.is_empty() {
            continue;
        }
        let lines: Vec<[Line; 2]> = (groups.iter())
            .map(|group| {
                let line = |color, dashed, points| Line { color, dashed, label: String::new(), points };
                [
                    line(1, true, curve(group, |epoch| epoch.train)),
                    line(0, false, curve(group, |epoch| Some(epoch.test))),
                ]
            })
            .collect();
        let points = || lines.iter().flatten().flat_map(|line| &line.points);
        let frame = Frame {
            size: (360, 260),
            epochs: points().map(|point| point.x as usize).max().unwrap_or(1),
            axis: Percent::of(points().map(|point| point.y)),
            y_label: "error, %",
            alone: false,
        };
        let panels = (groups.iter().zip(&lines))
            .map(|(group, lines)| {
                let mut name = labelled(group.network(), &group.variant);
                if let Some(psi) = group.psi() {
                    name += &format!(", Ψ = {psi}°");
                }
                name += &format!(", n = {}", group.finished().count());
                Ok((name, charts::curves(&frame, lines)?))
            })
            .collect::<Result<Vec<_>>>()?;
        all = html! {
            (all)
            h2 { (title) }
            (legend(&[(plain(0), "test error".into()), (plain(1), "train error (dashed)".into())]))
            div .panels {
                @for (name, figure) in panels {
                    figure { figcaption { (name) } (PreEscaped(figure)) }
                }
            }
        };
    }
    Ok(html! {
        (all)
        p .dim { "Means over the seeds; bands are one standard deviation. The panels of a figure share their axes." }
    })
}
