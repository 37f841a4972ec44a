//! How large the numbers of a configuration may be. What is beyond would never end or fit into no memory, and is
//! refused before anything is allocated for it.

use super::{Config, Problem};

/// The most hidden layers a preset is derived for.
pub const MOST_HIDDEN_LAYERS: usize = 100;
/// The most neurons in a layer.
const MOST_NEURONS: usize = 1_000_000;
/// The most weights and biases: 4 GiB of 32-bit floats.
const MOST_PARAMETERS: usize = 1 << 30;

/// Checks the sizes of a configuration that is possible otherwise.
///
/// # Errors
/// The first key that is too large.
pub fn check(config: &Config) -> Result<(), Problem> {
    let Config { network, settle, learning, training } = config;
    let most = [
        ("settle.steps", settle.steps, 100_000, "steps"),
        ("learning.K", learning.K, 100_000, "steps"),
        ("network.dims", network.dims.0.len(), MOST_HIDDEN_LAYERS + 2, "layers"),
        (
            "network.dims",
            network.dims.0.iter().copied().max().unwrap_or(0),
            MOST_NEURONS,
            "neurons in a layer",
        ),
        ("training.epochs", training.epochs, 1_000_000, "epochs"),
        ("training.batch_size", training.batch_size, 1 << 16, "images"),
        ("training.keep_checkpoints", training.keep_checkpoints, 1_000_000, "files (0 keeps all)"),
        ("training.angle_minibatches", training.angle_minibatches, 10_000, "minibatches"),
    ];
    for (key, value, most, unit) in most {
        if value > most {
            return Err(Problem { key, message: format!("must be at most {most} {unit}") });
        }
    }
    let parameters = network.dims.parameter_count(config.tied());
    if parameters > MOST_PARAMETERS {
        let message =
            format!("has {parameters} weights and biases, of which there must be at most {MOST_PARAMETERS}");
        return Err(Problem { key: "network.dims", message });
    }
    Ok(())
}
