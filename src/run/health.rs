//! Warnings about first phases that no longer settle, and about the collapse that follows.

use super::error::Result;
use crate::engine::{self, Engine, Report};
use crate::model::network::Parameters;
use tracing::warn;

/// Minibatches in a window.
const WINDOW: usize = 250;

/// Share of unsettled images, percent, from which there is a warning.
const NOTEWORTHY: f64 = 1.0;

/// A change in the last step that slow settling alone does not explain.
const FAR: f64 = 0.1;

/// A norm far beyond that of any network which has learnt anything: those of the paper's stay below a hundred.
const RUN_AWAY: f64 = 1e6;

/// The reason why weights are lost for good, in words: a weight or bias that is not a finite number, or a norm beyond
/// [`RUN_AWAY`]. `None` where they are sound.
///
/// # Errors
/// Only those of candle.
pub fn diverged(theta: &Parameters) -> Result<Option<String>> {
    let ill = theta.norms()?.into_iter().find(|(_, norm)| norm.is_nan() || *norm > RUN_AWAY);
    Ok(ill.map(|(name, norm)| match norm.is_finite() {
        true => format!("weights have run away, ‖{name}‖ = {norm:.2e}"),
        false => format!("{name} holds a value that is no longer a number"),
    }))
}

/// True where a train error (percent) means that the network has lost what it had learnt: at least 20 %, and five
/// times the best so far.
pub fn collapsed(train_error: f64, best: Option<f64>) -> bool {
    best.is_some_and(|best| train_error >= 20.0 && train_error >= 5.0 * best)
}

/// Watches windows of minibatches and warns, at once but not too often.
#[derive(Default)]
pub struct Health {
    window: Report,
    minibatches: usize,
    said_unsettled: f64,
    said_collapsed: bool,
}

impl Health {
    /// Adds a minibatch, in epoch `epoch` (from 1) of a run with the lowest train error `best` so far, percent.
    ///
    /// # Errors
    /// What the engine reports when its weights are read for a warning.
    pub fn watch(
        &mut self,
        epoch: usize,
        report: &Report,
        engine: &dyn Engine,
        best: Option<f64>,
    ) -> Result<()> {
        self.window.add(report);
        self.minibatches += 1;
        if self.minibatches < WINDOW {
            return Ok(());
        }
        let window = std::mem::take(&mut self.window);
        self.minibatches = 0;
        let unsettled = window.unsettled_percent();
        let states = || {
            let cycle = match engine::is_cycle(window.residual, window.residual_two_steps) {
                true => ", a cycle of period 2",
                false => "",
            };
            format!(
                "{unsettled:.2} % of the images unsettled after T steps, largest |s_T − s_T−1| {:.2e}, \
                 |s_T − s_T−2| {:.2e}{cycle}",
                window.residual, window.residual_two_steps
            )
        };
        let noteworthy = unsettled >= NOTEWORTHY.max(4.0 * self.said_unsettled);
        if noteworthy && window.residual > FAR {
            self.said_unsettled = unsettled;
            let norms = norms(&engine.parameters()?)?;
            warn!(
                "epoch {epoch}: the first phase has stopped settling: {}; norms {norms}. \
                 Layers that are updated in turn (`--set settle.order=alternating`) and damped steps \
                 (`--set settle.damping=0.5`) are made for this.",
                states()
            );
        }
        let error = window.error_percent();
        if collapsed(error, best) && !self.said_collapsed {
            self.said_collapsed = true;
            let norms = norms(&engine.parameters()?)?;
            warn!(
                "epoch {epoch}: COLLAPSED: the train error is {error:.1} %, the best epoch had {:.2} %; {}; \
                 norms {norms}. See docs/collapse.md.",
                best.unwrap_or(f64::NAN),
                states()
            );
        }
        Ok(())
    }
}

/// The norms of all weights, in words.
///
/// # Errors
/// Only those of candle.
pub fn norms(theta: &Parameters) -> Result<String> {
    let norms = theta.weight_norms()?;
    let words: Vec<String> = norms.iter().map(|(name, norm)| format!("‖{name}‖ = {norm:.3}")).collect();
    Ok(words.join(", "))
}
