//! The causes of an angle between update and gradient: `eqprop angle --explain`.

use super::referee::{CAUSES, Case, Cause};
use crate::base::spread::Spread;
use crate::config::Config;
use crate::data::{Batch, Split};
use crate::learning::angle::Comparison;
use crate::model::Parameters;
use crate::run::angles;
use anyhow::Result;
use serde_json::{Map, Value, json};

/// Ψ of an update that is 0, as of devices whose steps are larger than the wished change: it follows the gradient no
/// more than chance does.
const UNRELATED: f64 = 90.0;

/// The angles of a minibatch, degrees: first of all matrices together, then of each.
type Angles = Vec<f64>;

/// An angle taken apart: over some minibatches, of all matrices together and of each.
pub struct Explanation {
    /// `all`, then the names of the matrices.
    pub columns: Vec<String>,
    /// Ψ(Δtot, −∇) as trained, by column.
    pub start: Vec<Spread>,
    /// The fall of the angle when each applicable cause is switched off after those before it, by column.
    pub in_order: Vec<(Cause, Vec<Spread>)>,
    /// The fall of the angle when it alone is switched off. For causes that act in float32 only, as in order.
    pub alone: Vec<(Cause, Vec<Spread>)>,
    /// The angle with all causes off, by column.
    pub rest: Vec<Spread>,
    /// Ψ(Δtot, −∇BPTT) with BPTT through the same K of T steps, as in `eqprop angle`; `None` where K > T.
    pub matched: Option<Spread>,
    /// The count of minibatches.
    pub minibatches: usize,
}

impl Explanation {
    /// Decomposes the angle on `minibatches` random minibatches, the same as in `eqprop angle`. `theta` is not
    /// changed.
    ///
    /// # Errors
    /// Where the network settles in no stationary state, and those of candle.
    pub fn of(
        config: &Config,
        theta: &Parameters,
        split: &Split,
        minibatches: usize,
        done: impl FnMut(usize),
    ) -> Result<Self> {
        let drawn = angles::minibatches(config, split, 0).take(minibatches);
        Self::of_batches(config, theta, drawn.map(|indices| split.batch(&indices)), done)
    }

    /// Decomposes the angle on these minibatches; there must be at least one.
    ///
    /// # Errors
    /// As [`Explanation::of`].
    pub fn of_batches(
        config: &Config,
        theta: &Parameters,
        batches: impl IntoIterator<Item = Batch>,
        mut done: impl FnMut(usize),
    ) -> Result<Self> {
        let model = config.model();
        let applies = |cause: &Cause| cause.applies(&model, &config.learning, theta);
        let causes: Vec<Cause> = CAUSES.into_iter().filter(applies).collect();
        let mut columns = Vec::new();
        let (mut ladders, mut singles, mut matched) = (Vec::new(), Vec::new(), Vec::new());
        for (i, batch) in batches.into_iter().enumerate() {
            let (ladder, alone) = take_apart(config, theta, &batch, i, &causes, &mut columns)?;
            ladders.push(ladder);
            singles.push(alone);
            if config.learning.K <= config.settle.steps {
                let trace = angles::record_batch(config, theta, &batch)?;
                matched.push(trace.compare()?.total_degrees);
            }
            done(i + 1);
        }
        let minibatches = ladders.len();
        let spreads = |value: &dyn Fn(usize, usize) -> f64| -> Vec<Spread> {
            (0..columns.len())
                .filter_map(|column| Spread::of((0..minibatches).map(|m| value(m, column))))
                .collect()
        };
        let fall = |angles: &[Vec<Angles>], from: usize, to: usize| {
            spreads(&|m, column| angles[m][from][column] - angles[m][to][column])
        };
        Ok(Self {
            start: spreads(&|m, column| ladders[m][0][column]),
            in_order: (causes.iter().enumerate())
                .map(|(i, &cause)| (cause, fall(&ladders, i, i + 1)))
                .collect(),
            alone: (causes.iter().enumerate())
                .map(|(i, &cause)| match cause {
                    Cause::Rounding => (cause, fall(&ladders, i, i + 1)),
                    _ => (cause, fall(&singles, 0, i + 1)),
                })
                .collect(),
            rest: spreads(&|m, column| ladders[m][causes.len()][column]),
            matched: Spread::of(matched),
            columns,
            minibatches,
        })
    }

    /// As a table for people.
    pub fn table(&self, data: &str) -> String {
        let width = self.columns.iter().map(String::len).max().unwrap_or(0).max(14) + 2;
        let row = |name: &str, cells: &[Spread]| {
            let cells: String =
                (cells.iter()).map(|spread| format!("{:>width$}", in_words(*spread))).collect();
            format!("{name:<24}{cells}\n")
        };
        let mut text = format!(
            "Ψ(Δtot, −∇) on {data} in degrees, ∇ by BPTT with T and K so large that nothing changes; mean ± \
             standard \
             deviation of {} minibatches\n{:<24}{}\n",
            self.minibatches,
            "",
            self.columns.iter().map(|column| format!("{column:>width$}")).collect::<String>()
        );
        text += &row("as trained", &self.start);
        text += "of which, each switched off after those above it:\n";
        for (cause, cells) in &self.in_order {
            text += &row(&format!("  {}", cause.title()), cells);
        }
        text += &row("what remains", &self.rest);
        text += "each switched off alone, the angle falls by:\n";
        for (cause, cells) in &self.alone {
            text += &row(&format!("  {}", cause.title()), cells);
        }
        if let Some(spread) = self.matched {
            text += &format!(
                "against −∇BPTT through the same K of T steps: {} °, all matrices\n",
                in_words(spread)
            );
        }
        text
    }

    /// As JSON: `start`, `in_order`, `alone` and `rest`, each by matrix (`all` together) as mean and standard
    /// deviation.
    pub fn json(&self, data: &str) -> Value {
        let cells = |cells: &[Spread]| -> Map<String, Value> {
            self.columns.iter().zip(cells).map(|(column, cell)| (column.clone(), json!(cell))).collect()
        };
        let rows = |rows: &[(Cause, Vec<Spread>)]| -> Vec<Value> {
            rows.iter().map(|(cause, row)| json!({ "cause": cause.name(), "degrees": cells(row) })).collect()
        };
        json!({
            "data": data,
            "minibatches": self.minibatches,
            "start_degrees": cells(&self.start),
            "in_order": rows(&self.in_order),
            "rest_degrees": cells(&self.rest),
            "alone": rows(&self.alone),
            "against_bptt_of_the_same_steps_degrees": self.matched,
        })
    }
}

/// Mean and, where it is known, standard deviation.
fn in_words(Spread { mean, std, .. }: Spread) -> String {
    let spread = std.map_or(String::new(), |std| format!(" ± {std:.2}"));
    format!("{:.2}{spread}", rounded(mean))
}

/// To two places, and no −0.00.
fn rounded(degrees: f64) -> f64 {
    (100.0 * degrees).round() / 100.0 + 0.0
}

/// The page: a chart of all matrices together and one of each, and the table.
#[cfg(feature = "cli")]
pub fn page(explanation: &Explanation, config: &Config, data: &str) -> Result<String> {
    use crate::charts::bars::{self, Bar};
    use maud::{PreEscaped, html};
    let title = format!("Causes of the angle of {}", config.learning.rule.title);
    // From the whole angle down to the rest, each bar from where the one before ends.
    let bars = |column: usize| -> Vec<Bar> {
        let whole = |name: &str, Spread { mean, std, .. }: Spread, color| Bar {
            name: name.into(),
            from: 0.0,
            to: mean,
            says: (mean, std),
            color,
        };
        let mut bars = vec![whole("as trained", explanation.start[column], 7)];
        let mut level = explanation.start[column].mean;
        for (i, (cause, falls)) in explanation.in_order.iter().enumerate() {
            let Spread { mean, std, .. } = falls[column];
            let says = (mean, std);
            bars.push(Bar { name: cause.title().into(), from: level, to: level - mean, says, color: i });
            level -= mean;
        }
        bars.push(whole("what remains", explanation.rest[column], 7));
        bars
    };
    let body = html! {
        h1 { (title) }
        p {
            "Ψ(Δtot, −∇) on " (data) ", over " (explanation.minibatches) (if explanation.minibatches == 1 { " minibatch" } else { " minibatches" }) ": the angle between the update of a minibatch \
             and the descent direction of BPTT with T and K so large that nothing changes. Each bar is the \
             fall of the angle when that cause is switched off after those above it; the line is one \
             standard deviation."
        }
        div .panels {
            @for (i, column) in explanation.columns.iter().enumerate() {
                figure {
                    figcaption { @if i == 0 { "All matrices" } @else { (column) } }
                    (PreEscaped(bars::svg(&bars(i), "degrees")))
                }
            }
        }
        h2 { "In numbers" }
        pre { (explanation.table(data)) }
        p .dim {
            "In another order the shares would differ: docs/angles.md explains each switch, and the order."
        }
        h2 { "Configuration" }
        pre { (toml::to_string(config)?) }
    };
    Ok(crate::charts::page::page(&format!("eqprop: {title}"), &body))
}

/// The angles of a minibatch: as trained, after each cause is switched off in order; and in float64 with none off,
/// and each alone.
fn take_apart(
    config: &Config,
    theta: &Parameters,
    batch: &Batch,
    number: usize,
    causes: &[Cause],
    columns: &mut Vec<String>,
) -> Result<(Vec<Angles>, Vec<Angles>)> {
    let (model, learning) = (config.model(), &config.learning);
    let beta = learning.beta;
    // As many changes as a second phase may have lie between two minibatches.
    let case = Case::new(&model, theta, batch)?.at_moment((number as u64 + 1) << 20);
    let mut angles = |update: &Parameters, gradient: &Parameters| -> Result<Angles> {
        let Comparison { total_degrees, per_matrix_degrees, .. } = Comparison::new(update, gradient)?;
        *columns = [vec!["all".into()], per_matrix_degrees.iter().map(|of| of.0.clone()).collect()].concat();
        let norms = update.norms()?.into_iter().filter(|(name, _)| name.ends_with(".weight"));
        let still: Vec<bool> = norms.map(|(_, norm)| norm == 0.0).collect();
        let all_still = still.iter().all(|still| *still);
        let degrees = [(total_degrees, all_still)]
            .into_iter()
            .chain(per_matrix_degrees.iter().map(|of| of.1).zip(still));
        Ok(degrees.map(|(degrees, still)| if still { UNRELATED } else { degrees }).collect())
    };
    let mut with_off =
        |off: &[Cause]| -> Result<Angles> { angles(&case.update(learning, beta, off)?, &case.gradient) };
    let exact = |off: &[Cause]| [&[Cause::Rounding][..], off].concat();
    let as_trained = with_off(&[])?;
    let float64 = with_off(&exact(&[]))?;
    let (mut ladder, mut alone) = (vec![as_trained], vec![float64.clone()]);
    for (i, &cause) in causes.iter().enumerate() {
        let off = &causes[..=i];
        // The angle without rounding alone has already been measured.
        ladder.push(if off == [Cause::Rounding] { float64.clone() } else { with_off(off)? });
        alone.push(if cause == Cause::Rounding { float64.clone() } else { with_off(&exact(&[cause]))? });
    }
    Ok((ladder, alone))
}
