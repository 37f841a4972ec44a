//! The published results of the paper.

use crate::learning::Rule;

/// Mean and standard deviation over 5 trials, percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Published {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
}

/// Trials behind each published number.
pub const TRIALS: f64 = 5.0;

/// A row of Table 3, or of Appendix F.2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// The preset it is trained with.
    pub preset: &'static str,
    /// The rule.
    pub rule: Rule,
    /// Hidden layers.
    pub depth: usize,
    /// Initial Ψ(θf, θb) in degrees, where weights are untied.
    pub psi: Option<f64>,
    /// True where the sign of β is drawn for every minibatch.
    pub random_beta: bool,
    /// Epochs.
    pub epochs: usize,
    /// Test error.
    pub test: Published,
    /// Mean train error, percent.
    pub train: f64,
}

/// Hours of one run of C-VF-1h and C-VF-2h on a Titan RTX, as the paper's authors give them.
pub const HOURS: [(usize, f64); 2] = [(1, 2.0 + 39.0 / 60.0), (2, 10.0 + 49.0 / 60.0)];

const fn tied(
    preset: &'static str,
    rule: Rule,
    depth: usize,
    epochs: usize,
    test: (f64, f64),
    train: f64,
) -> Row {
    let test = Published { mean: test.0, std: test.1 };
    Row { preset, rule, depth, psi: None, random_beta: false, epochs, test, train }
}

const fn cvf_1h(psi: f64, test: (f64, f64), train: f64) -> Row {
    Row { psi: Some(psi), random_beta: true, ..tied("cvf-1h", Rule::CVF, 1, 100, test, train) }
}

const fn cvf_2h(psi: f64, test: (f64, f64), train: f64) -> Row {
    Row { psi: Some(psi), random_beta: true, ..tied("cvf-2h", Rule::CVF, 2, 150, test, train) }
}

/// Table 3, in its order, and Appendix F.2.
pub const ROWS: [Row; 25] = [
    tied("ep-1h", Rule::EP, 1, 30, (2.00, 0.13), 0.20),
    tied("ep-2h", Rule::EP, 2, 50, (1.95, 0.10), 0.14),
    tied("cep-1h", Rule::CEP, 1, 100, (2.85, 0.18), 0.83),
    Row { random_beta: true, ..tied("cep-1h-random-beta", Rule::CEP, 1, 100, (2.28, 0.16), 0.41) },
    tied("cep-2h", Rule::CEP, 2, 150, (2.44, 0.14), 0.31),
    cvf_1h(0.0, (2.43, 0.08), 0.77),
    cvf_1h(22.5, (2.38, 0.15), 0.74),
    cvf_1h(45.0, (2.37, 0.06), 0.78),
    cvf_1h(67.5, (2.48, 0.15), 0.81),
    cvf_1h(90.0, (2.46, 0.18), 0.78),
    cvf_1h(112.5, (4.51, 3.96), 2.92),
    cvf_1h(135.0, (86.61, 4.27), 88.51),
    cvf_1h(157.5, (91.08, 0.01), 90.98),
    cvf_1h(180.0, (92.82, 3.47), 92.71),
    cvf_2h(0.0, (2.97, 0.19), 1.58),
    cvf_2h(22.5, (3.54, 0.75), 2.70),
    cvf_2h(45.0, (3.78, 0.78), 2.86),
    cvf_2h(67.5, (4.59, 0.92), 4.68),
    cvf_2h(90.0, (5.05, 1.17), 4.81),
    cvf_2h(112.5, (20.33, 13.03), 20.30),
    cvf_2h(135.0, (59.04, 17.97), 60.53),
    cvf_2h(157.5, (77.90, 13.49), 78.04),
    cvf_2h(180.0, (74.17, 12.76), 74.05),
    tied("ep-1h", Rule::CEP_RESCALED, 1, 30, (2.06, 0.13), 0.18),
    tied("ep-2h", Rule::CEP_RESCALED, 2, 50, (1.89, 0.22), 0.02),
];

impl Row {
    /// The row's name, as in the paper.
    pub fn name(&self) -> String {
        let Row { rule, depth, random_beta, .. } = *self;
        if rule == Rule::CEP_RESCALED {
            format!("Algorithm 5-{depth}h")
        } else if rule == Rule::CEP && random_beta {
            // C-VF always has it.
            format!("C-EP-{depth}h, ±β")
        } else {
            format!("{}-{depth}h", rule.title)
        }
    }
}
