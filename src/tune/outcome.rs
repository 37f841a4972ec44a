//! `tuned.toml`: the configuration that was found, with a remark on each value.

use super::Tuner;
use super::first_phase::{COARSE, FINE, SHARE, Settling};
use super::probe::Probed;
use super::second_phase::{MISSING, TOO_MUCH};
use crate::base::files;
use crate::config::Config;
use anyhow::Result;
use toml::{Table, Value};

/// Writes the file.
///
/// # Errors
/// Names what cannot be written.
pub fn write(tuner: &Tuner, tuned: &Config, probed: &Probed) -> Result<()> {
    Ok(files::write_atomically(&tuner.folder.join(super::TUNED), text(tuner, tuned, probed)?.as_bytes())?)
}

fn text(tuner: &Tuner, tuned: &Config, probed: &Probed) -> Result<String> {
    let rule = tuned.learning.rule.title;
    let mut text = format!(
        "# {rule} with layers {}, tuned by `eqprop tune` on {}, seed {}; tune.html shows how, tune.jsonl has all of it.\n\
         # The best of the candidates had {:.2} % error on {} images held out, {:.2} % train error, after {} epochs of {} \
         images.\n# The same choice once more, on any machine: --budget {:e}\n",
        tuned.network.dims,
        tuner.dataset.name,
        tuned.training.seed,
        probed.error(),
        tuner.dataset.validation.len(),
        probed.train.last().copied().unwrap_or(f64::NAN),
        probed.train.len(),
        tuner.dataset.train.len(),
        tuner.plan.work,
    );
    for (section, keys) in Table::try_from(tuned)? {
        text += &format!("\n[{section}]\n");
        let Value::Table(keys) = keys else { continue };
        for (key, value) in keys {
            let line = format!("{key} = {value}");
            text += &match (section.as_str(), reason(tuner, tuned, &key)) {
                ("learning" | "settle", Some(reason)) => format!("{line:<40} # {reason}\n"),
                _ => format!("{line}\n"),
            };
        }
    }
    Ok(text)
}

/// The origin of a tuned value.
fn reason(tuner: &Tuner, tuned: &Config, key: &str) -> Option<String> {
    let settling = |network: &str| -> Option<Settling> {
        serde_json::from_value(tuner.log.find(&format!("settling/{network}"))?.clone()).ok()
    };
    let steps = |network: &str| {
        let steps = settling(network).and_then(|settling| settling.steps(tuned.settle.tolerance));
        steps.map_or("more".into(), |steps| steps.to_string())
    };
    Some(match key {
        "steps" => format!(
            "T, which hardly any image needs: {} % settle in {} steps untrained, {} after a probe, {} after \
             the longest",
            100.0 * SHARE,
            steps("untrained"),
            steps("longer"),
            steps("winner")
        ),
        "tolerance" => format!(
            "where F moves an image by β/{}, it is at rest; β/{} if the train error held",
            1.0 / FINE,
            1.0 / COARSE
        ),
        "K" => format!(
            "{} % of the gradient of the input weights arrive; lowered while the train error held, {} % at least",
            100.0 * (1.0 - MISSING),
            100.0 * (1.0 - TOO_MUCH)
        ),
        "beta" => "before the angle to the gradient bends, or half of it".into(),
        "nudging" => {
            "the sign of beta is drawn for every minibatch, so that what is linear in it cancels".into()
        }
        "learning_rates" => "input side first: every matrix moves alike; the best of the probes".into(),
        _ => return None,
    })
}
