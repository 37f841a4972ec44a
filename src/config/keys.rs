//! The reference of all keys, as `eqprop config --keys` prints it and docs/configuration.md has it.

use super::Result;
use super::resolve::default_of;
use std::fmt::Write;

/// An entry of the reference. The default stands with all defaults.
struct Key {
    name: &'static str,
    /// Names between quotes, a number with its range, or other values.
    values: &'static str,
    unit: &'static str,
    /// The rule or the other key that it needs to have an effect; empty where it always has one.
    needs: &'static str,
    meaning: &'static str,
}

/// Makes an entry: name, values, unit, needs, meaning.
const fn key(
    name: &'static str,
    values: &'static str,
    unit: &'static str,
    needs: &'static str,
    meaning: &'static str,
) -> Key {
    Key { name, values, unit, needs, meaning }
}

const SECOND_PHASE: &str = "not bptt, rbp";
const HEBBIAN: &str = "not bptt, rbp, dyadic-ep";
const UNTIED: &str = "untied weights: vf, cvf, asym-ep; bptt, rbp, dyadic-ep with tied = false";
const DEVICE: &str = "law = \"device\"";
const REFERENCE: &str = "device = \"soft-bounds-reference\"";
const EXPONENTIAL: &str = "device = \"exponential\"";
const POWER: &str = "device = \"power\"";

#[rustfmt::skip]
const KEYS: [Key; 118] = [
    key("network.dims", "sizes ≥ 1, \"auto\" at either end, \"28x28\" first, \"conv 32 5 pool 2\"", "neurons", "", "layers, input first; \"auto\" leaves input and output to the data; convolutions read images (docs/convolutions.md)"),
    key("network.activation", "\"sigmoid\", \"tanh\", \"hard-sigmoid\", \"softplus\"", "", "", "σ; \"sigmoid\" is 1/(1 + exp(−4(x − ½))), Eq. 102; \"softplus\" runs on the plain engine alone"),
    key("network.init", "\"fan-in\", \"glorot\"", "", "", "initial weights: U(±1/√fan_in), as the authors' code, or Glorot's, as the paper's text"),
    key("network.psi", "0 to 180", "degrees", UNTIED, "Ψ(θf, θb) of the initial forward and feedback weights"),
    key("network.tied", "true, false", "", "bptt, rbp, dyadic-ep", "true where feedback weights are the transposed forward weights; other rules decide that themselves"),
    key("network.time", "\"discrete\", \"real\"", "", "", "steps that replace the states, or a differential equation (E.3, E.5)"),
    key("network.epsilon", "above 0, at most 1", "time", "time = \"real\"", "ε, the step of the differential equation"),
    key("network.clamp", "true, false", "", "time = \"real\"", "keep states in [0, 1]"),
    key("network.loss", "\"squared-error\"", "", "", "ℓ, by which the output is judged and nudged"),
    key("network.readout", "\"none\", \"softmax\"", "", "plain engine; not asym-ep, dyadic-ep", "an output layer with states, or a softmax of the last hidden layer with the cross-entropy as its loss (docs/readout.md)"),
    key("network.input_mean", "list of 1 to 4 numbers", "0 to 1", "plain engine; with input_std", "the mean of each channel of the images, which is subtracted (docs/data.md)"),
    key("network.input_std", "list of as many numbers above 0", "0 to 1", "with input_mean", "the standard deviation of each channel, by which the difference is divided"),
    key("settle.order", "\"synchronous\", \"alternating\"", "", "\"alternating\": discrete time", "all layers at once, or even layers, then odd ones, in both phases"),
    key("settle.solver", "\"iterate\", \"anderson\"", "", "", "nothing, or Anderson's acceleration, between the sweeps of the first phase"),
    key("settle.window", "2 to 5", "sweeps", "solver = \"anderson\"", "number of differences between sweeps that the acceleration uses"),
    key("settle.steps", "1 to 100000, even where alternating", "steps", "", "T, the most steps of the first phase; half-steps of the alternating order"),
    key("settle.damping", "0 to below 1", "", "", "d of s ← d·s + (1 − d)·F(s), in both phases"),
    key("settle.tolerance", "0 to below 1", "change of a state", "", "an image's first phase ends where no neuron moves by more in a sweep; 0 runs all T"),
    key("learning.rule", "\"ep\", \"cep\", \"cep-rescaled\", \"vf\", \"cvf\", \"bptt\", \"rbp\", \"asym-ep\", \"dyadic-ep\"", "", "", "the learning rule; \"cep-rescaled\" is Algorithm 5"),
    key("learning.K", "1 to 100000", "steps", "", "steps of the second phase; of bptt, steps back; of rbp, steps"),
    key("learning.beta", "not 0", "", SECOND_PHASE, "β, strength of the nudge"),
    key("learning.nudging", "\"positive\", \"random\", \"centered\"", "", HEBBIAN, "β as given, its sign drawn for every minibatch, or both signs in every minibatch"),
    key("learning.learning_rates", "one ≥ 0 a layer", "", "", "η of the weights into each layer, input side first, as in Table 2"),
    key("learning.sigma_prime", "\"ignored\", \"partial\", \"full\"", "", "vf, cvf; asym-ep: \"full\"", "the σ′ in their updates: none, as printed; of what each connection delivers; of the whole input"),
    key("learning.tiny", "above 0, at most 1", "", "cep-rescaled", "η_tiny/η of Algorithm 5"),
    key("learning.authors_code", "true, false", "", "cvf", "as in the authors' code, the bias of the last hidden layer never learns"),
    key("learning.alignment", "\"none\", \"kolen-pollack\", \"homeostasis\", \"fixed\"", "", "vf, cvf", "alignment of feedback with forward weights (docs/alignment.md)"),
    key("learning.decay", "0 to below 1", "a minibatch", "alignment = \"kolen-pollack\"", "λ, the share of each weight that is lost"),
    key("learning.strength", "above 0, below 1", "a minibatch", "alignment = \"homeostasis\"", "κ, the step down the asymmetry of the Jacobian"),
    key("learning.own", "table of numbers", "", "a rule of one's own", "its parameters, for example own = { decay = 0.1 } (docs/adding-a-rule.md)"),
    key("synapse.law", "\"ideal\", \"momentum\", \"device\"", "", "", "the law by which a wished change η·Δ changes a weight"),
    key("synapse.momentum", "0 to below 1", "", "law = \"momentum\"", "μ of v ← μ·v + η·Δ, at every change"),
    key("synapse.decay", "0 to below 1", "a minibatch", "law = \"momentum\"", "the share of each weight, not of biases, that is lost"),
    key("synapse.schedule", "\"constant\", \"cosine\", \"step\"", "", "law = \"momentum\"", "fall of learning rates: none; η·½(1 + cos πt); η/10 from ½, η/100 from ¾"),
    key("synapse.horizon", "≥ 1 where learning rates fall", "epochs", "schedule \"cosine\" or \"step\"", "epochs over which t goes from 0 to 1"),
    key("synapse.preset", "\"none\", \"idealized\", \"gokmen-vlasov\", \"ecram\", \"ecram-mo\", \"capacitor\", \"reram-sb\", \"reram-es\", \"reram-array-om\", \"reram-array-hfo2\", \"pcm\"", "", DEVICE, "the published device whose values are the defaults of all other keys (docs/devices.md)"),
    key("synapse.device", "\"ideal\", \"constant\", \"linear\", \"soft-bounds\", \"soft-bounds-reference\", \"exponential\", \"power\", \"piecewise\", \"measured\"", "", DEVICE, "the law of a pulse"),
    key("synapse.pulses", "\"stochastic\", \"deterministic\", \"mean\", \"exact\"", "", DEVICE, "trains of random pulses on rows and columns; whole steps, and a remainder beside the weight (not local); what pulses do on average; the change itself, clipped"),
    key("synapse.management", "\"none\", \"um\", \"ublm\"", "", "pulses = \"stochastic\"", "trains as they are; balanced between rows and columns; and no longer than necessary"),
    key("synapse.train_length", "1 to 10000", "slots", DEVICE, "BL, the most slots of a train, and the most pulses of a deterministic change"),
    key("synapse.biases", "\"device\", \"ideal\"", "", DEVICE, "biases as devices, in a column whose input is 1, or as ideal numbers"),
    key("synapse.dw_min", "above 0", "weight", DEVICE, "the mean step of a pulse at weight 0"),
    key("synapse.dw_min_dtod", "≥ 0", "share", DEVICE, "its spread from device to device"),
    key("synapse.dw_min_log_normal", "true, false", "", DEVICE, "true for a log-normal spread"),
    key("synapse.dw_min_std", "≥ 0", "share", DEVICE, "noise of a pulse, from cycle to cycle"),
    key("synapse.levels", "0, or 2 to 16777216", "levels", DEVICE, "sets the step to (w_max − w_min)/(levels − 1); 0 leaves dw_min"),
    key("synapse.up_down", "above −1, below 1", "share", DEVICE, "reduction of steps down; of steps up where negative"),
    key("synapse.up_down_dtod", "≥ 0", "share", DEVICE, "spread of the difference between up and down"),
    key("synapse.w_max", "≥ 0", "weight", DEVICE, "upper bound"),
    key("synapse.w_max_dtod", "≥ 0", "share", DEVICE, "its spread"),
    key("synapse.w_min", "≤ 0, below w_max", "weight", DEVICE, "lower bound"),
    key("synapse.w_min_dtod", "≥ 0", "share", DEVICE, "its spread"),
    key("synapse.write_noise", "≥ 0", "steps", DEVICE, "noise of the visible weight around the state, drawn at each pulse"),
    key("synapse.noise", "\"multiplicative\", \"additive\"", "", "device \"linear\", \"soft-bounds\", \"soft-bounds-reference\"", "noise of a pulse as a share of the step at this weight, or at weight 0"),
    key("synapse.lifetime", "≥ 0", "minibatches", DEVICE, "minibatches in which a weight leaks to 1/e; 0 does not leak, up to 1 leaks all at once"),
    key("synapse.lifetime_dtod", "≥ 0", "share", "lifetime above 0", "its spread"),
    key("synapse.diffusion", "≥ 0", "weight", DEVICE, "standard deviation that a minibatch adds to a weight"),
    key("synapse.diffusion_dtod", "≥ 0", "share", "diffusion above 0", "its spread"),
    key("synapse.reset", "≥ 0", "weight", "lifetime above 0, or refresh", "value after a reset, towards which a weight leaks"),
    key("synapse.reset_dtod", "≥ 0", "weight", "lifetime above 0, or refresh", "its spread"),
    key("synapse.reset_std", "≥ 0", "weight", "refresh = true", "noise of a reset"),
    key("synapse.stuck", "0 to 1", "share", DEVICE, "devices that no pulse moves"),
    key("synapse.stuck_value", "a number", "weight", "stuck above 0", "weight at which they are stuck"),
    key("synapse.stuck_range", "≥ 0", "weight", "stuck above 0", "largest distance from it"),
    key("synapse.slope_up", "≥ 0", "share", "device = \"linear\"", "share of the step up that is lost at w_max"),
    key("synapse.slope_up_dtod", "≥ 0", "share", "device = \"linear\"", "its spread"),
    key("synapse.slope_down", "≥ 0", "share", "device = \"linear\"", "share of the step down that is lost at w_min"),
    key("synapse.slope_down_dtod", "≥ 0", "share", "device = \"linear\"", "its spread"),
    key("synapse.bound_up_dtod", "≥ 0", "share", REFERENCE, "spread of the bound that steps up fall towards"),
    key("synapse.bound_down_dtod", "≥ 0", "share", REFERENCE, "spread of the bound that steps down fall towards"),
    key("synapse.reference", "a number", "weight", REFERENCE, "weight of the reference device"),
    key("synapse.reference_dtod", "≥ 0", "weight", REFERENCE, "its spread"),
    key("synapse.subtract_symmetry_point", "true, false", "", REFERENCE, "true where the reference is the weight at which a step up and one down cancel"),
    key("synapse.exp_a_up", "a number", "", EXPONENTIAL, "A of steps up"),
    key("synapse.exp_a_down", "a number", "", EXPONENTIAL, "A of steps down"),
    key("synapse.exp_gamma_up", "a number", "", EXPONENTIAL, "γ of steps up"),
    key("synapse.exp_gamma_down", "a number", "", EXPONENTIAL, "γ of steps down"),
    key("synapse.exp_stretch", "a number", "", EXPONENTIAL, "a of z = 2a·w/(w_max − w_min) + b"),
    key("synapse.exp_shift", "a number", "", EXPONENTIAL, "b of z"),
    key("synapse.exp_noise", "≥ 0", "weight", EXPONENTIAL, "noise of a pulse at weight 0 beside its share of the step, times dw_min_std"),
    key("synapse.exp_noise_slope", "≥ 0", "", EXPONENTIAL, "its growth with the size of the weight"),
    key("synapse.pow_gamma", "≥ 0", "", POWER, "exponent of the distance to the bound"),
    key("synapse.pow_gamma_dtod", "≥ 0", "share", POWER, "its spread"),
    key("synapse.pow_up_down", "above −1, below 1", "share", POWER, "reduction of the exponent down; of the one up where negative"),
    key("synapse.pow_up_down_dtod", "≥ 0", "share", POWER, "its spread"),
    key("synapse.piecewise_up", "list of numbers ≥ 0", "dw_min", "device = \"piecewise\"", "steps up at weights evenly spaced from w_min to w_max"),
    key("synapse.piecewise_down", "list of numbers ≥ 0", "dw_min", "device = \"piecewise\"", "steps down at the same weights"),
    key("synapse.file", "path of a CSV file", "", "device = \"measured\"", "responses: pulse, up [uS], down [uS], and device where there are several"),
    key("synapse.pair", "true, false", "", DEVICE, "true where a weight is the difference of two devices that are pulsed up only"),
    key("synapse.refresh", "true, false", "", "pair = true", "true where pairs out of range are reset and written anew"),
    key("synapse.refresh_noise", "≥ 0", "weight", "refresh = true", "noise of the reading before that"),
    key("noise.states", "≥ 0", "state", "", "σ_s, standard deviation of what every step adds to a state, in both phases; the plain engine alone has [noise]"),
    key("noise.reads", "≥ 0", "input of a neuron", "", "σ_read, of what every read of an array adds to what it delivers"),
    key("noise.updates", "a number", "Δ", "", "a constant that is added to every update Δ of each weight and bias"),
    key("noise.dac_bits", "0, or 2 to 24", "bits", "", "of what is sent into arrays: 2^bits − 1 levels; 0 has all digits"),
    key("noise.dac_range", "above 0", "state", "dac_bits above 0", "its largest size"),
    key("noise.adc_bits", "0, or 2 to 24", "bits", "", "of what arrays deliver"),
    key("noise.adc_range", "above 0", "input of a neuron", "adc_bits above 0", "its largest size"),
    key("cost.pulse_energy", "an energy, \"1 pJ\"", "", DEVICE, "of a pulse of a device; what is known makes cost/energy in metrics.jsonl"),
    key("cost.pulse_time", "a time, \"10 ns\"", "", DEVICE, "of a slot of a train of pulses; what is known makes cost/latency"),
    key("cost.read_energy", "an energy, \"1 fJ\"", "", DEVICE, "of reading a device once, in a step of a phase"),
    key("cost.step_time", "a time, \"10 ns\"", "", DEVICE, "of a step of a phase"),
    key("training.epochs", "1 to 1000000", "epochs", "", "epochs in all, including those before a resume"),
    key("training.batch_size", "1 to 65536", "images", "", "images of a minibatch"),
    key("training.seed", "0 to 2⁶³ − 1", "", "", "seed of everything random"),
    key("training.checkpoint_every", "≥ 1", "minibatches", "", "minibatches between checkpoints; there is one at the end of each epoch anyway"),
    key("training.keep_checkpoints", "0 to 1000000", "files", "", "number of numbered checkpoints kept; 0 keeps all"),
    key("training.data", "\"auto\", \"mnist\", \"fashion-mnist\", \"cifar10\", \"glyphs\"", "", "", "the data set (docs/data.md); \"auto\" takes glyphs where MNIST is not available"),
    key("training.limit_train", "≥ 1", "images", "", "limit to the first training images"),
    key("training.limit_test", "≥ 1", "images", "", "limit to the first test images"),
    key("training.validation", "0 to all but one", "images", "", "training images held out, drawn by the seed; the best epoch is then chosen on them"),
    key("training.flips", "true, false", "", "", "true to mirror every second training image, drawn, from left to right"),
    key("training.crops", "0 to below the side of an image", "pixels", "", "the most pixels by which training images are shifted in each direction, drawn; black fills in"),
    key("training.dtype", "\"f32\", \"f64\"", "", "", "type of states and weights"),
    key("training.device", "\"auto\", \"cpu\", \"cuda\"", "", "", "where to compute"),
    key("training.engine", "\"auto\", \"plain\", \"fused\", \"kernel\"", "", "", "the engine: candle step by step, the fast path of CPUs, a CUDA kernel"),
    key("training.angle_minibatches", "0 to 10000", "minibatches", HEBBIAN, "number of minibatches for Ψ(Δtot, −∇BPTT) before training; 0 never measures it"),
    key("training.angle_every", "≥ 0", "epochs", "angle_minibatches ≥ 1", "interval of measurements of Ψ(Δtot, −∇BPTT); 0 measures before training only"),
];

/// The values that a key takes, in words.
pub(super) fn values_of(key: &str) -> Option<&'static str> {
    KEYS.iter().find(|known| known.name == key).map(|known| known.values)
}

/// All keys as a Markdown table, in the order of the sections.
///
/// # Errors
/// Only those of the built-in defaults.
pub fn reference() -> Result<String> {
    let mut table =
        String::from("| key | values | default | unit | needs | meaning |\n|---|---|---|---|---|---|\n");
    for Key { name, values, unit, needs, meaning } in KEYS {
        let default = default_of(name)?;
        let _ = writeln!(table, "| `{name}` | {values} | {default} | {unit} | {needs} | {meaning} |");
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::super::resolve::known_keys;
    use super::*;
    use crate::config::{Choices, Resolved, parse_value};
    use crate::learning::Rule;
    use std::collections::BTreeSet;

    #[test]
    fn every_key_is_there_once() {
        let stated: BTreeSet<String> = KEYS.iter().map(|key| key.name.to_string()).collect();
        assert_eq!(stated.len(), KEYS.len());
        assert_eq!(stated, known_keys().unwrap().into_iter().collect());
    }

    /// The stated values are those that the message about a wrong value lists.
    #[test]
    fn names_are_all_that_a_key_takes() {
        for key in KEYS.iter().filter(|key| key.values.starts_with('"')) {
            let flag = |value: &str| ("--set".to_string(), key.name.to_string(), parse_value(value));
            // A law that has this key, and a device in which the key has an effect.
            let set = |key: &str, value: &str| ("--set".to_string(), key.to_string(), value.into());
            let momentum = ["momentum", "decay", "schedule", "horizon"];
            let of_momentum = momentum.iter().any(|name| key.name == format!("synapse.{name}"));
            let law = if of_momentum { "momentum" } else { "device" };
            let flags = vec![set("synapse.law", law), flag("no-such-name")];
            let choices = Choices { algo: Some(Rule::CVF), flags, ..Choices::default() };
            let message = Resolved::new(&choices).unwrap_err().to_string();
            let stated = quoted_names(key.values);
            for name in &stated {
                assert!(message.contains(name), "{}: {name} is not in {message:?}", key.name);
            }
            let listed = message.split_once("expected").map_or("", |(_, listed)| listed);
            let listed = listed.split(['`', '"']).skip(1).step_by(2).collect::<BTreeSet<_>>();
            assert!(
                listed.is_empty() || listed == stated.iter().copied().collect(),
                "{}: {message:?}",
                key.name
            );
        }
    }

    fn quoted_names(values: &str) -> Vec<&str> {
        values.split('"').skip(1).step_by(2).collect()
    }

    #[test]
    fn the_manual_has_the_table() {
        let manual = include_str!("../../docs/configuration.md");
        assert!(
            manual.contains(&reference().unwrap()),
            "put what `eqprop config --keys` prints into the manual"
        );
    }
}
