//! Error against how bad a device is, and where it passes twice that of ideal synapses.

use super::percent;
use super::published::{runs, shape};
use crate::base::spread::Spread;
use crate::charts::axis::{Axis, Scale};
use crate::charts::plot::{Chart, Look, Point, Series, legend};
use crate::model::synapse::SynapseConfig;
use crate::report::measured::Measured;
use crate::report::results::{Group, Results};
use crate::report::varied;
use anyhow::Result;
use itertools::Itertools;
use maud::{Markup, html};
use std::collections::BTreeMap;
use toml::Value;

/// By how much the error is above that of ideal synapses where it has passed.
const PASSED: f64 = 2.0;

/// The least number of values of a quantity that make a figure.
const VALUES: usize = 3;

/// The span of values from which on an axis is logarithmic.
const DECADE: f64 = 10.0;

/// A quantity of devices that a sweep varies by itself.
pub struct Threshold<'a> {
    /// Its key.
    key: String,
    kinds: Vec<Kind<'a>>,
}

/// Groups that differ in nothing else, from the best devices to the worst.
struct Kind<'a> {
    label: String,
    /// The test errors of the same with ideal synapses.
    ideal: Option<Spread>,
    groups: Vec<(f64, &'a Group)>,
}

/// Settings by key.
type Settings = BTreeMap<String, Value>;

/// All keys of a run but its seed.
fn config(run: &Measured) -> Result<Settings> {
    Ok(run.config.values()?.into_iter().filter(|(key, _)| key != "training.seed").collect())
}

fn is_of_devices(group: &Group) -> bool {
    matches!(group.runs[0].config.synapse, SynapseConfig::Devices(_))
}

fn mean(group: &Group) -> Option<f64> {
    group.test().map(|test| test.mean)
}

/// Of each quantity that varies by itself in at least [`VALUES`] values, what the sweep has measured.
pub fn thresholds(results: &Results) -> Result<Vec<Threshold<'_>>> {
    let groups: Vec<&Group> = results.groups.iter().filter(|group| group.test().is_some()).collect();
    let devices: Vec<&Group> = groups.iter().copied().filter(|group| is_of_devices(group)).collect();
    let mut thresholds = Vec::new();
    for key in varied::keys(&devices)?.into_iter().filter(|key| key.starts_with("synapse.")) {
        // Groups by what else they are.
        let mut kinds: Vec<(Settings, Vec<(f64, &Group)>)> = Vec::new();
        for &group in &devices {
            let mut others = config(&group.runs[0])?;
            let number = match others.remove(&key) {
                Some(Value::Float(number)) => number,
                Some(Value::Integer(number)) => number as f64,
                _ => continue,
            };
            match kinds.iter_mut().find(|(known, _)| *known == others) {
                Some((_, of)) => of.push((number, group)),
                None => kinds.push((others, vec![(number, group)])),
            }
        }
        kinds.retain(|(_, of)| of.len() >= VALUES);
        let firsts: Vec<&Group> = kinds.iter().map(|(_, of)| of[0].1).collect();
        let keys = varied::keys(&firsts)?.into_iter().filter(|other| *other != key).collect();
        let labels = varied::labels_by(&firsts, keys)?;
        let without_synapse = |mut all: Settings| {
            all.retain(|key, _| !key.starts_with("synapse."));
            all
        };
        let kinds = kinds.into_iter().zip(labels).map(|((others, mut groups), label)| {
            // The more levels a device has, the better; of all else, the less.
            groups.sort_by(
                |(a, _), (b, _)| if key == "synapse.levels" { b.total_cmp(a) } else { a.total_cmp(b) },
            );
            let others = without_synapse(others);
            // A row of the paper among them would need all epochs of the paper; here as many as those beside it count.
            let mut errors = Vec::new();
            for run in results.groups.iter().flat_map(|group| &group.runs) {
                let last = run.last().filter(|last| last.number >= run.config.training.epochs);
                if let Some(last) = last.filter(|_| run.config.synapse.is_ideal())
                    && without_synapse(config(run)?) == others
                {
                    errors.push(last.test);
                }
            }
            let ideal = Spread::of(errors);
            let continual = groups[0].1.runs[0].config.learning.rule.is_continual();
            let when = if continual { "at every step" } else { "once a batch" };
            Ok(Kind { label: format!("{label}, {when}"), ideal, groups })
        });
        let kinds = kinds.collect::<Result<Vec<_>>>()?;
        if !kinds.is_empty() {
            thresholds.push(Threshold { key, kinds });
        }
    }
    Ok(thresholds)
}

impl Kind<'_> {
    /// The error that counts as passed.
    fn bar(&self) -> Option<f64> {
        self.ideal.map(|ideal| PASSED * ideal.mean)
    }

    /// The first value at which the mean error passes it, in words.
    fn passes(&self) -> String {
        let Some(bar) = self.bar() else { return "no run with ideal synapses".into() };
        let passed = |(_, group): &&(f64, &Group)| mean(group).is_some_and(|mean| mean > bar);
        match self.groups.iter().find_position(passed) {
            None => format!("not up to {}", self.groups[self.groups.len() - 1].0),
            Some((0, (value, _))) => format!("at {value} already"),
            Some((i, (value, _))) => format!("between {} and {value}", self.groups[i - 1].0),
        }
    }
}

impl Threshold<'_> {
    fn heading(&self) -> &str {
        varied::heading(&self.key)
    }

    /// The figure: a marker a finished run, a line through them, and where twice the error of ideal synapses lies.
    pub fn chart(&self) -> Chart {
        let values = || self.kinds.iter().flat_map(|kind| &kind.groups).map(|(value, _)| *value);
        let (low, high) = values().minmax().into_option().unwrap_or_default();
        let mut series = Vec::new();
        for (i, kind) in self.kinds.iter().enumerate() {
            let points = kind.groups.iter().flat_map(|(value, group)| runs(group, |_| Some(*value)));
            let points: Vec<Point> = points.sorted_by(|a, b| a.x.total_cmp(&b.x)).collect();
            let depth = kind.groups[0].1.runs[0].config.network.dims.depth();
            let look = Look { marker: Some((shape(depth), false)), ..Look::line(i, 0) };
            let n = kind.groups.iter().map(|(_, group)| group.finished().count()).minmax();
            let (least, most) = n.into_option().unwrap_or_default();
            let n = if least == most { least.to_string() } else { format!("{least} to {most}") };
            series.push(Series {
                name: format!("{} (n = {n})", kind.label),
                look,
                joined: f64::INFINITY,
                points,
            });
            if let Some(bar) = kind.bar() {
                series.push(Series::line("", Look::line(i, 2), [(low, bar), (high, bar)]));
            }
        }
        let name = format!("threshold-{}", self.heading());
        let title = format!("Test error against {}", self.heading());
        let mut chart = Chart::new((&name, &title), &self.key, ("test error, %", Scale::Percent), series);
        if low > 0.0 && high / low >= DECADE {
            chart.x = Axis { log: true, ..Axis::exact(&self.key, values()) };
        }
        Chart { size: (520.0, 350.0), ..chart }
    }

    /// Figure and table.
    pub fn section(&self) -> Markup {
        let chart = self.chart();
        html! {
            h2 { (chart.title) }
            figure {
                (legend(&chart))
                (chart.svg())
                figcaption {
                    "Test error after the last epoch, a marker a finished run. Dotted: twice the mean error of the same rule with "
                    "ideal synapses. The axis is " (chart.y.name()) "."
                }
            }
            div .scroll {
                table {
                    thead {
                        tr {
                            th { "Rule" }
                            th .number { "Ideal synapses" }
                            th .number { i { "n" } }
                            th { "Twice that is passed, by " (self.heading()) }
                        }
                    }
                    tbody {
                        @for kind in &self.kinds {
                            tr {
                                td { (kind.label) }
                                td .number { (percent(kind.ideal)) }
                                td .number { (kind.ideal.map_or(0, |ideal| ideal.count)) }
                                td { (kind.passes()) }
                            }
                        }
                    }
                }
            }
        }
    }
}
