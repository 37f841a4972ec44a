//! The distance from equilibrium after a given amount of arithmetic, for each way to find it.

use crate::charts::axis::Scale;
use crate::charts::page;
use crate::charts::plot::{Chart, Look, Series, legend};
use crate::model::settle::percentiles;
use crate::model::{Model, Order, Parameters, Settle, Solver};
use candle_core::{Result, Tensor};
use maud::html;

/// A way to find the equilibrium, and its course.
pub struct Way {
    /// Its name.
    pub name: String,
    /// After every sweep.
    pub course: Vec<Distance>,
}

/// The largest |F(s) − s| of any neuron of an image, over some images.
#[derive(Clone, Copy, Debug)]
pub struct Distance {
    /// The arithmetic so far, in synchronous steps; without that of acceleration itself, a few percent of a sweep.
    pub work: f64,
    /// The median over the images (nearest rank).
    pub median: f64,
    /// The 99th percentile (nearest rank).
    pub percentile_99: f64,
    /// The largest of all images.
    pub largest: f64,
}

/// The ways that are compared: both orders, plain and accelerated.
fn ways() -> [(String, Order, Solver); 4] {
    let orders = [Order::Synchronous, Order::Alternating];
    let plain = orders.map(|order| (order.name().to_string(), order, Solver::Iterate));
    let accelerated = orders.map(|order| (format!("{}, Anderson", order.name()), order, Solver::Anderson));
    let [a, b] = plain;
    let [c, d] = accelerated;
    [a, b, c, d]
}

/// Runs the first phase on the images `x` (B, d_in) in every way, for as much arithmetic as T synchronous steps take.
///
/// # Errors
/// Only those of candle.
pub fn compare(model: &Model, theta: &Parameters, x: &Tensor) -> Result<Vec<Way>> {
    ways().into_iter().map(|(name, order, solver)| follow(model, theta, x, name, order, solver)).collect()
}

fn follow(
    model: &Model,
    theta: &Parameters,
    x: &Tensor,
    name: String,
    order: Order,
    solver: Solver,
) -> Result<Way> {
    let steps = model.settle.steps * order.sweep();
    let model =
        Model { settle: Settle { order, solver, steps, tolerance: 0.0, ..model.settle }, ..model.clone() };
    let mut phase = model.follow(theta, x)?;
    let mut course = Vec::new();
    for sweep in 1..=model.settle.sweeps() {
        for _ in 0..order.sweep() {
            phase.step()?;
        }
        let [median, percentile_99, largest] = percentiles(phase.distances()?, [0.5, 0.99, 1.0]);
        course.push(Distance { work: sweep as f64, median, percentile_99, largest });
    }
    Ok(Way { name, course })
}

impl Way {
    /// The arithmetic after which 99 % of the images stay within `tolerance`, in synchronous steps; `None` where they
    /// do not.
    pub fn work_until(&self, tolerance: f64) -> Option<f64> {
        let beyond =
            self.course.iter().rposition(|d| d.percentile_99.is_nan() || d.percentile_99 > tolerance);
        let first = beyond.map_or(0, |last| last + 1);
        self.course.get(first).map(|distance| distance.work)
    }
}

/// One line for each way and sweep: way, work, median, percentile_99, largest.
pub fn csv(ways: &[Way]) -> String {
    let mut text = String::from("way,work,median,percentile_99,largest\n");
    for Way { name, course } in ways {
        for Distance { work, median, percentile_99, largest } in course {
            text += &format!("\"{name}\",{work},{median:e},{percentile_99:e},{largest:e}\n");
        }
    }
    text
}

/// The bound on |F(s) − s| of every neuron for an image at rest.
pub const AT_REST: f64 = 5e-7;

/// Each way, and the arithmetic until 99 % of the images are at rest, in words.
pub fn until_rest(ways: &[Way]) -> Vec<(&str, String)> {
    let work = |way: &Way| way.work_until(AT_REST).map_or("not reached".into(), |work| work.to_string());
    ways.iter().map(|way| (&way.name[..], work(way))).collect()
}

/// Residual against arithmetic.
pub fn chart(ways: &[Way]) -> Chart {
    let line = |(i, way): (usize, &Way), dash: usize, value: fn(&Distance) -> f64, which: &str| {
        let name = format!("{}: {which}", way.name);
        Series::line(name, Look::line(i, dash), way.course.iter().map(|d| (d.work, value(d))))
    };
    let most = ways.iter().enumerate().map(|way| line(way, 0, |d| d.percentile_99, "99 % of images"));
    let median = ways.iter().enumerate().map(|way| line(way, 1, |d| d.median, "median"));
    Chart::new(
        ("settle", "How far from equilibrium, after how much arithmetic"),
        "arithmetic, synchronous steps",
        ("largest |F(s) − s|", Scale::Log),
        most.chain(median).collect(),
    )
}

/// The page: the table that the command prints, and the chart, which is wider there.
pub fn page(title: &str, about: &str, ways: &[Way], chart: Chart) -> String {
    let chart = Chart { size: (720.0, 400.0), ..chart };
    page::page(
        title,
        &html! {
            h1 { (title) }
            p { (about) }
            p { "Arithmetic until F would move 99 % of the images by no more than " (AT_REST) ":" }
            div .scroll {
                table style="width: auto" {
                    thead {
                        tr {
                            th { "Way" }
                            th .number { "Arithmetic, in synchronous steps" }
                        }
                    }
                    tbody { @for (way, work) in until_rest(ways) { tr { td { (way) } td .number { (work) } } } }
                }
            }
            figure {
                figcaption { (chart.title) }
                (chart.svg())
                (legend(&chart))
            }
        },
    )
}
