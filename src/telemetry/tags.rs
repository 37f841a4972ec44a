//! Names, units and descriptions of tags for TensorBoard.

use std::borrow::Cow;

/// The group of all angles but the total. TensorBoard sorts groups by name, and the first two are to be the total
/// angle, alone, and the errors.
const MORE_ANGLES: &str = "more_angles";

/// The group of what devices do, array by array.
const MORE_DEVICES: &str = "more_devices";

/// The name in TensorBoard of a tag of `metrics.jsonl`.
pub fn shown(tag: &str) -> Cow<'_, str> {
    match tag.split_once('/') {
        Some(("angle", name)) if name != "total" => format!("{MORE_ANGLES}/{name}").into(),
        Some(("pulses" | "reads" | "wasted" | "cost", _)) => format!("{MORE_DEVICES}/{tag}").into(),
        _ => tag.into(),
    }
}

/// The name of a tag with its unit, and its description. An unknown tag is its own name.
pub fn describe(tag: &str) -> (String, String) {
    let of_devices = tag.strip_prefix(MORE_DEVICES).and_then(|tag| tag.strip_prefix('/'));
    let (group, name) = of_devices.unwrap_or(tag).split_once('/').unwrap_or(("", tag));
    let (title, description): (String, &str) = match (group, name) {
        ("error", "train") => (
            "train error, %".into(),
            "Share of wrongly classified training images, counted during the epoch, before each minibatch \
             is learnt.",
        ),
        ("error", set) => (format!("{set} error, %"), "Share of wrongly classified images after the epoch."),
        ("loss", set) => (format!("{set} loss"), "Mean of ½‖y − s⁰‖² over the images."),
        ("settle", "residual") => (
            "last step of the first phase, largest".into(),
            "The largest |s_T − s_{T−1}| of any neuron in the epoch. Near 0 where the first phase settles.",
        ),
        ("settle", "residual_two_steps") => (
            "last two steps of the first phase, largest".into(),
            "The largest |s_T − s_{T−2}| of any neuron in the epoch. Small beside the residual over one step in a \
             cycle of period 2.",
        ),
        ("settle", "steps") => {
            ("steps of the first phase, mean".into(), "Steps until an image has settled, at most T.")
        }
        ("settle", "both_phases") => (
            "steps of both phases, mean".into(),
            "Of an image: until it has settled, and K of each second phase.",
        ),
        ("settle", "unsettled_percent") => (
            "images that have not settled, %".into(),
            "Images with a neuron that still moved by more than 0.01 in step T.",
        ),
        (MORE_ANGLES, "minibatches") => (
            "minibatches the angle was measured on".into(),
            "Drawn at random from the training images. A single one has no spread.",
        ),
        ("angle", "total") => (
            "angle Ψ(Δtot, −∇BPTT tot), degrees".into(),
            "Between the rule's total update and −∇BPTT, all matrices, mean of a few random training minibatches; step 0 is \
             before training. 0° is gradient descent, 90° is unrelated.",
        ),
        (MORE_ANGLES, matrix) => (
            format!("angle Ψ, {matrix}, degrees"),
            "Between the rule's total update and −∇BPTT, mean of a few random training minibatches. 0° is gradient \
             descent, 90° is unrelated.",
        ),
        ("start", _) => (
            "angle Ψ before training, degrees".into(),
            "Between the rule's total update and −∇BPTT over all matrices, of the initial weights.",
        ),
        ("sign_match", matrix) => (
            format!("signs that agree, {matrix}, share"),
            "The share of synapses whose total update has the sign of −∇BPTT. ½ is chance, except where \
             both are 0, as at black pixels.",
        ),
        ("spread", of) => {
            (format!("standard deviation of {of}"), "Over the minibatches that it was measured on.")
        }
        ("quartiles", of) => {
            (format!("quartile of {of}"), "Over the minibatches that it was measured on, of 8 and more.")
        }
        ("pulses", "slots") => (
            "slots of trains, mean".into(),
            "Of an image: slots that its trains of pulses take one after the other, in the array that has most.",
        ),
        ("reads", array) => (
            format!("reads a synapse, {array}"),
            "How often a synapse of the array has been read in the epoch: once in each step of an image that updates a \
             layer that it leads into.",
        ),
        ("cost", "energy") => {
            ("energy of an image, J".into(), "Of training: pulses and reads times what [cost] says of them.")
        }
        ("cost", "latency") => (
            "latency of an image, s".into(),
            "Of training: slots of trains and steps of both phases times what [cost] says of them.",
        ),
        ("pulses", array) => (
            format!("pulses a synapse, {array}"),
            "Pulses that a device of the array has taken in the epoch, mean; of exact changes, changes.",
        ),
        ("wasted", array) => (
            format!("steps by net change, {array}"),
            "Σ|Δw| over all pulses of the epoch by Σ|w − w'| from beginning to end of each minibatch: 1 where \
             no step was undone \
             within one.",
        ),
        ("psi", n) => {
            (format!("angle Ψ(forward.{n}, feedback.{n}ᵀ), degrees"), "Between forward and feedback weights.")
        }
        ("speed", "minibatches_per_second") => {
            ("minibatches a second".into(), "Training alone, without tests, angles and pictures.")
        }
        ("speed", "epoch_seconds") => {
            ("seconds an epoch".into(), "Training alone, without tests, angles and pictures.")
        }
        ("weights", name) if name.starts_with("norm/") => {
            (format!("‖{}‖", name.trim_start_matches("norm/")), "Frobenius norm of the matrix.")
        }
        ("weights", matrix) => (format!("weights of {matrix}"), "All weights of the matrix after the epoch."),
        ("states", layer) => (
            format!("states of {layer}"),
            "s at the end of the first phase, of all neurons of the layer and some test images.",
        ),
        ("pictures", "receptive_fields") => (
            "receptive fields".into(),
            "Weights from the image into the first neurons of the hidden layer next to it. Blue is negative, red \
             positive, each neuron on a scale of its own.",
        ),
        ("pictures", "confusion") => (
            "confusion matrix".into(),
            "Numbers of test images, by true class (rows) and answer (columns), after the last epoch.",
        ),
        ("pictures", "most_wrong") => (
            "most wrong".into(),
            "The test images whose answer is farthest from the truth, by s⁰ of the answer less that of the true \
             class. Below each: the truth (green) and the answer (red).",
        ),
        ("run", "configuration") => ("configuration".into(), "As resolved; each value with its origin."),
        ("run", "command") => ("command".into(), "The command, and the engine that computes."),
        _ => (tag.to_string(), ""),
    };
    (title, description.to_string())
}
