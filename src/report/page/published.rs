//! The part of the report on the paper's runs: the verdict, Table 3, and the paper's figures.

use super::{curves, degrees, judgement, labelled, measured, notes, published};
use crate::charts::axis::{Axis, Scale};
use crate::charts::plot::{Chart, Look, Point, Series, Shape, legend};
use crate::learning::Rule;
use crate::model::network::Init;
use crate::report::measured::Measured;
use crate::report::paper::{ROWS, Row, TRIALS};
use crate::report::results::{Group, Kind, Results, Way};
use crate::report::verdict::Verdict;
use maud::{Markup, html};

/// Rules and depths in the paper's order.
const KINDS: [(Rule, usize); 6] =
    [(Rule::EP, 1), (Rule::EP, 2), (Rule::CEP, 1), (Rule::CEP, 2), (Rule::CVF, 1), (Rule::CVF, 2)];

/// Degrees between two Ψ of the paper's rows.
pub(super) const STEP: f64 = 22.5;

/// The number of the paper's rows that agree, and those that do not: with the paper's steps, and with the presets'.
pub fn verdict(results: &Results) -> Markup {
    let rows = |way: Way| ROWS.iter().filter(move |row| Way::of(row).contains(&way));
    let names = |rows: &[&Row]| {
        let names = rows.iter().map(|row| match row.psi {
            None => row.name(),
            Some(psi) => format!("{} at Ψ = {psi}°", row.name()),
        });
        names.collect::<Vec<_>>().join(", ")
    };
    let settled = |wanted: &[Verdict]| -> Vec<&Row> {
        let mut rows: Vec<&Row> = (results.settled())
            .filter(|group| wanted.contains(&group.verdict()))
            .filter_map(Group::row)
            .collect();
        rows.dedup();
        rows
    };
    let otherwise =
        settled(&[Verdict::Agrees, Verdict::Better, Verdict::Disagrees, Verdict::SingleRun]).len();
    let of_way = |way: Way, what: Markup| {
        let with =
            |verdict| -> Vec<&Row> { rows(way).filter(|row| results.verdict(row, way) == verdict).collect() };
        let (agree, better, disagree) =
            (with(Verdict::Agrees), with(Verdict::Better), with(Verdict::Disagrees));
        let (single, unfinished, not_run) =
            (with(Verdict::SingleRun), with(Verdict::Unfinished), with(Verdict::NotRun));
        html! {
            p .verdict {
                (what) ": " b .agrees { (agree.len()) " in agreement" }
                " (within two standard errors), " b .better { (better.len()) " better than published" } ", "
                b .disagrees { (disagree.len()) " in disagreement" } ", "
                b { (single.len()) " with a single run and no verdict" } ", "
                b { (unfinished.len()) " unfinished" } ", " b { (not_run.len()) " not run" } "."
            }
            @for (word, rows) in [
                ("Better", &better),
                ("In disagreement", &disagree),
                ("Single run, no verdict", &single),
                ("Unfinished", &unfinished),
            ] {
                @if !rows.is_empty() { p { (word) ": " (names(rows)) "." } }
            }
        }
    };
    html! {
        (of_way(Way::Synchronous, html! { "With the paper's synchronous steps, of its " (ROWS.len()) " rows" }))
        (of_way(Way::Alternating, html! {
            "With alternating steps and acceleration, as the presets have them, of its " (rows(Way::Alternating).count())
            " rows with two hidden layers"
        }))
        @if otherwise > 0 {
            p {
                (otherwise) " rows have also been trained with another way to equilibrium; "
                (settled(&[Verdict::Agrees]).len()) " of them agree in at least one way."
            }
        }
    }
}

/// Tables and figures.
pub fn sections(results: &Results) -> Markup {
    html! {
        (table(results))
        (other_ways(
            "As printed",
            "The rows as printed in the paper's text, where the published numbers do not come from that: \
             Glorot \
             weights, updates of C-VF without σ′, biases that all learn. Each row says which of these it has.",
            results.printed(),
        ))
        (other_ways(
            "Another way to equilibrium",
            "These rows with other steps than those of the first table: layers updated in turn, \
             acceleration, damping, images \
             that end the first phase when they are at rest. Each row says how; rules and rates are as above.",
            results.settled(),
        ))
        (charts(results))
    }
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
            "(published values over " (TRIALS) "), and in parentheses the mean train error. With one hidden layer the presets "
            "take the paper's synchronous steps; with two they take alternating ones and Anderson's acceleration, so that these "
            "rows are shown both ways."
        }
        p {
            "A row is " b .better { "better" } " if its mean test error is below the published one by more than the published "
            "standard deviation and the published mean is more than 2 s above it. Else it "
            b .agrees { "agrees" } " if the means differ by at most two standard errors, √(s²/n + s²/5). \
                For a single run there is "
            "no verdict, since nothing is known of its spread. Beside it: "
            "measured less published mean, and whether the published mean lies inside the measured one ± 2 s."
        }
        p {
            "Only runs with all of the paper's epochs count; others are " b { "unfinished" } ", without \
             verdict or line in a "
            "figure. No epoch is chosen in this table. Where best epochs are named, here and in runs.csv, \
             they were chosen either by "
            "test error, which flatters, or by the error on images held out of the training set (training.validation)."
        }
        div .scroll {
            table {
                thead {
                    tr {
                        th { "Network" }
                        th .number { "Ψ" }
                        th .number { "Paper" }
                        th { "Synchronous, as in the paper" }
                        th { "Alternating, Anderson (preset)" }
                    }
                }
                tbody {
                    @for row in &ROWS {
                        tr {
                            td { (row.name()) }
                            td .number { (degrees(row.psi)) }
                            td .number { (published(row)) }
                            td { (cell(results.of_row(row, Way::Synchronous))) }
                            td {
                                @if Way::of(row).contains(&Way::Alternating) {
                                    (cell(results.of_row(row, Way::Alternating)))
                                } @else { "–" }
                            }
                        }
                    }
                }
            }
        }
        (spreads(results))
    }
}

/// The results of a row in one way.
fn cell(group: Option<&Group>) -> Markup {
    let Some(group) = group else {
        return html! { span .not-run { (Verdict::NotRun.word()) } };
    };
    html! {
        @if let Some(test) = group.test() {
            (measured(group)) ", " i { "n" } "\u{a0}=\u{a0}" (test.count) br;
        }
        (judgement(group))
        @for note in notes(group) { small { (note) } }
    }
}

/// The spread between seeds with two hidden layers, here and in the paper; empty where no row has several runs.
fn spreads(results: &Results) -> Markup {
    let groups = results.groups.iter().filter_map(|group| match group.kind {
        Kind::Row(row, way) if row.depth > 1 => Some((row, way, group.test()?)),
        _ => None,
    });
    let texts = groups.filter_map(|(row, way, test)| {
        let psi = row.psi.map_or(String::new(), |psi| format!(" at Ψ = {psi}°"));
        let steps = match way {
            Way::Synchronous => "synchronous",
            Way::Alternating => "alternating",
        };
        let (here, paper, n) = (test.std?, row.test.std, test.count);
        Some(format!("{}{psi}, {steps}: {here:.2} (n = {n}) and {paper:.2}", row.name()))
    });
    let texts: Vec<String> = texts.collect();
    html! {
        @if !texts.is_empty() {
            p {
                "Spread between seeds with two hidden layers, as the standard deviation of the test error \
                 here and in the paper: "
                (texts.join("; ")) "."
            }
        }
    }
}

/// Rows with settings that are not the preset's; empty where there are none.
fn other_ways<'a>(title: &str, what: &str, groups: impl Iterator<Item = &'a Group>) -> Markup {
    let lines: Vec<Markup> = groups.filter_map(|group| Some(line(group, group.row()?))).collect();
    if lines.is_empty() {
        return html! {};
    }
    html! {
        h2 { (title) }
        p { (what) }
        div .scroll {
            table {
                (head("Test error"))
                tbody { @for line in &lines { (line) } }
            }
        }
    }
}

fn line(group: &Group, row: &Row) -> Markup {
    html! {
        tr {
            td { (row.name()) @if !group.variant.is_empty() { small { (group.variant) } } }
            td .number { (degrees(group.psi())) }
            td .number { (measured(group)) }
            td .number { (published(row)) }
            td .number { (group.finished().count()) }
            td {
                (judgement(group))
                @for note in notes(group) { small { (note) } }
            }
        }
    }
}

/// The legend's text for a rule and its treatment of σ′: the points of one colour.
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

/// The test errors of a group's finished runs against another of their numbers.
pub(super) fn runs<'a>(
    group: &'a Group,
    x: impl Fn(&Measured) -> Option<f64> + 'a,
) -> impl Iterator<Item = Point> + 'a {
    group.finished().filter_map(move |run| Some((x(run)?, run.last()?.test).into()))
}

pub(super) fn shape(depth: usize) -> Shape {
    if depth == 1 { Shape::Circle } else { Shape::Square }
}

/// The label of the axis of initial angles.
pub(super) const INITIAL_PSI: &str = "initial Ψ(θf, θb), degrees";

/// Fig. 4, right.
fn error_by_psi(results: &Results) -> Chart {
    let mut series: Vec<Series> = Vec::new();
    for depth in [1, 2] {
        let mut variants: Vec<&str> = Vec::new();
        for group in of_kind(results, Rule::CVF, depth) {
            if !variants.contains(&&group.variant[..]) {
                variants.push(&group.variant);
            }
        }
        let mut add = |hollow, name: String, points: Vec<Point>| {
            let look = Look { marker: Some((shape(depth), hollow)), ..Look::line(series.len(), 0) };
            let joined = if hollow { STEP } else { -1.0 };
            series.push(Series { name, look, joined, points });
        };
        for variant in variants {
            let groups = of_kind(results, Rule::CVF, depth).filter(|group| group.variant == variant);
            let points = groups.flat_map(|group| runs(group, |_| group.psi())).collect();
            add(false, labelled(format!("C-VF-{depth}h, measured"), variant), points);
        }
        add(true, format!("C-VF-{depth}h, paper"), published_by_psi(depth));
    }
    let title = "Figure 4, right: error against the angle between forward and feedback weights";
    by_angle(("figure-4", title), INITIAL_PSI, (-5.0, 185.0), series)
}

/// The paper's test errors of C-VF against Ψ(θf, θb).
pub(super) fn published_by_psi(depth: usize) -> Vec<Point> {
    let rows = ROWS.iter().filter(|row| row.rule == Rule::CVF && row.depth == depth);
    let point = |row: &Row| Some(Point { x: row.psi?, y: row.test.mean, std: row.test.std, quartiles: None });
    rows.filter_map(point).collect()
}

/// Test error against an angle in this range, degrees.
pub(super) fn by_angle(what: (&str, &str), x_label: &str, range: (f64, f64), series: Vec<Series>) -> Chart {
    let mut chart = Chart::new(what, x_label, ("test error, %", Scale::Percent), series);
    chart.x.range = range;
    Chart { size: (520.0, 350.0), ..chart }
}

/// Fig. 5a: colour is the rule, shape the depth, fill the initialisation. `None` where nothing has been run.
fn error_by_angle(results: &Results) -> Option<Chart> {
    const COLORS: [(Rule, &str); 4] =
        [(Rule::EP, ""), (Rule::CEP, ""), (Rule::CVF, ""), (Rule::CVF, ", as printed")];
    let mut series: Vec<Series> = Vec::new();
    for (rule, depth) in KINDS {
        for group in of_kind(results, rule, depth) {
            let points: Vec<Point> = runs(group, |run| run.angle).collect();
            if points.is_empty() {
                continue;
            }
            let of = (rule, treatment(group));
            let color = COLORS.iter().position(|known| *known == of).unwrap_or(COLORS.len());
            let glorot = group.runs[0].config.network.init == Init::Glorot;
            let look = Look { marker: Some((shape(depth), glorot)), ..Look::line(color, 0) };
            match series.iter_mut().find(|line| line.look == look) {
                Some(line) => line.points.extend(points),
                None => {
                    let init = if glorot { "Glorot" } else { "fan-in" };
                    let name = format!("{}-{depth}h{}, {init}", rule.title, of.1);
                    series.push(Series { name, look, joined: -1.0, points });
                }
            }
        }
    }
    if series.is_empty() {
        return None;
    }
    for line in &mut series {
        line.points.sort_by(|a, b| a.x.total_cmp(&b.x));
    }
    let low = series.iter().flat_map(|line| &line.points).filter(|point| point.y < 10.0);
    let farthest = low.map(|point| point.x).fold(0.0, f64::max);
    let title = "Figure 5a: error against the angle between updates and gradients before training";
    let x_label = "Ψ(Δtot, −∇BPTT tot) before training, degrees";
    let mut chart = by_angle(("figure-5a", title), x_label, (0.0, 180.0), series);
    let errors = chart.series.iter().flat_map(|line| &line.points).map(|point| point.y);
    chart.y = Axis::roomy(&chart.y.label, Scale::Percent, errors.chain([1.0, 100.0]));
    let inset = |range| Axis { label: String::new(), range, log: false };
    chart.inset =
        (farthest > 0.0).then(|| (inset((0.0, 10.0 * ((farthest + 5.0) / 10.0).ceil())), inset((1.0, 6.0))));
    Some(chart)
}

/// Figs. 16 to 18, and those of rows that the paper shows no curves of: the panels of a figure share their axes.
fn training_curves(results: &Results) -> Vec<(&'static str, &'static str, Vec<Chart>)> {
    let figures = [
        ("figure-16", "Figure 16: training of C-EP", Rule::CEP, &[1, 2][..]),
        ("figure-17", "Figure 17: training of C-VF with one hidden layer", Rule::CVF, &[1]),
        ("figure-18", "Figure 18: training of C-VF with two hidden layers", Rule::CVF, &[2]),
        ("training-of-ep", "Training of EP", Rule::EP, &[1, 2]),
        ("training-with-algorithm-5", "Training with Algorithm 5", Rule::CEP_RESCALED, &[1, 2]),
    ];
    let panels = |rule, depths: &[usize]| {
        let groups = depths.iter().flat_map(|depth| of_kind(results, rule, *depth));
        let mut charts: Vec<Chart> = groups.map(panel).collect();
        share_axes("error, %", &mut charts);
        charts
    };
    let all = figures.map(|(name, title, rule, depths)| (name, title, panels(rule, depths)));
    all.into_iter().filter(|(.., charts)| !charts.is_empty()).collect()
}

fn panel(group: &Group) -> Chart {
    let mut name = labelled(group.network(), &group.variant);
    if let Some(psi) = group.psi() {
        name += &format!(", Ψ = {psi}°");
    }
    name += &format!(", n = {}", group.finished().count());
    let test = curves("test error", Look::line(0, 0), group, |epoch| Some(epoch.test));
    let train = curves("train error", Look::line(1, 1), group, |epoch| epoch.train);
    let lines = test.into_iter().chain(train).collect();
    let chart = Chart::new((&name, &name), "epoch", ("error, %", Scale::Percent), lines);
    Chart { size: (360.0, 260.0), ..chart }
}

/// The name and the title of the figure of [`unsettled`].
const UNSETTLED: (&str, &str) =
    ("unsettled-images", "Images that have not settled: synchronous steps against alternating ones");

/// Share of the training images that have not settled over the epochs, for each row with two hidden layers, both ways.
fn unsettled(results: &Results) -> Vec<Chart> {
    let rows = ROWS.iter().filter(|row| row.depth > 1);
    let mut charts: Vec<Chart> = rows
        .map(|row| {
            let name = row.psi.map_or(row.name(), |psi| format!("{}, Ψ = {psi}°", row.name()));
            let lines = |(color, name, way)| {
                let group = results.of_row(row, way).filter(|group| group.test().is_some());
                let lines =
                    group.map(|group| curves(name, Look::line(color, color), group, |epoch| epoch.unsettled));
                // Panels share the legend of the first, which names both.
                lines.unwrap_or_else(|| vec![Series::line(name, Look::line(color, color), [(0.0, 0.0); 0])])
            };
            let ways = [(0, "synchronous", Way::Synchronous), (1, "alternating, Anderson", Way::Alternating)];
            let lines = ways.into_iter().flat_map(lines).collect();
            let label = ("unsettled images, %", Scale::Percent);
            Chart { size: (360.0, 260.0), ..Chart::new((&name, &name), "epoch", label, lines) }
        })
        .filter(|chart| !chart.is_empty())
        .collect();
    share_axes("unsettled images, %", &mut charts);
    charts
}

/// Gives the panels of a figure over epochs the same axes.
fn share_axes(label: &str, charts: &mut [Chart]) {
    let points: Vec<Point> =
        charts.iter().flat_map(|chart| &chart.series).flat_map(|line| &line.points).copied().collect();
    let x = Axis::exact("epoch", points.iter().map(|point| point.x).chain([0.0]));
    let y = Axis::roomy(label, Scale::Percent, points.iter().map(|point| point.y));
    for chart in charts {
        (chart.x, chart.y) = (x.clone(), y.clone());
    }
}

/// Every figure, its charts side by side, by the name of its file.
pub fn figures(results: &Results) -> Vec<(String, Vec<Chart>)> {
    let by_angle = [Some(error_by_psi(results)), error_by_angle(results)].into_iter().flatten();
    let by_angle = by_angle.map(|chart| (chart.name.clone(), vec![chart]));
    let curves = training_curves(results).into_iter().map(|(name, _, charts)| (name.to_string(), charts));
    by_angle.chain(curves).chain([(UNSETTLED.0.to_string(), unsettled(results))]).collect()
}

/// The charts within the page.
fn charts(results: &Results) -> Markup {
    let by_psi = error_by_psi(results);
    html! {
        h2 { (by_psi.title) }
        figure {
            (legend(&by_psi))
            (by_psi.svg())
            figcaption {
                "Test error on MNIST after the last epoch. Circles: one hidden layer, squares: two; filled: \
                 one marker per run here; "
                "hollow: published, mean and one standard deviation. The axis is " (by_psi.y.name()) "."
            }
        }
        @if let Some(by_angle) = error_by_angle(results) {
            h2 { (by_angle.title) }
            figure {
                (legend(&by_angle))
                (by_angle.svg())
                figcaption {
                    "Each point is a run of a row of a table above: its test error, and the angle between the rule's total update and "
                    "the descent direction of BPTT at the initial weights. Colour: rule; circles: one hidden layer, squares: "
                    "two; filled: fan-in weights, hollow: Glorot. Inset: the low errors, on linear axes. The paper gives "
                    "this figure without numbers."
                }
            }
        }
        @for (_, title, charts) in training_curves(results) {
            h2 { (title) }
            (legend(&charts[0]))
            div .panels {
                @for chart in &charts {
                    figure { figcaption { (chart.title) } (chart.svg()) }
                }
            }
        }
        @let unsettled = unsettled(results);
        @if !unsettled.is_empty() {
            h2 { (UNSETTLED.1) }
            (legend(&unsettled[0]))
            div .panels {
                @for chart in &unsettled {
                    figure { figcaption { (chart.title) } (chart.svg()) }
                }
            }
            p .dim {
                "Share of the training images with a neuron that still moves by more than 0.01 when the first phase ends, in each "
                "epoch. The axis is " (unsettled[0].y.name()) "; values below it lie at its foot. Runs \
                 without these numbers "
                "have no line."
            }
        }
        p .dim { "Each line is a run. The panels of a figure share their axes." }
    }
}
