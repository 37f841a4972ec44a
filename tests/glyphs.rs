//! The procedural data set is hard enough to mean something, and easy enough to be learnt.

mod common;

use eqprop::data::{Dataset, Split, glyphs};
use eqprop::rng;

/// Test error in percent of softmax regression, trained by plain SGD for some epochs.
fn softmax_regression(data: &Dataset, epochs: usize) -> f64 {
    let (pixels, classes, batch) = (data.train.pixels, 10, 20);
    let mut weights = vec![0f32; (pixels + 1) * classes];
    let image = |split: &Split, i: usize| -> Vec<f32> {
        let bytes = &split.images[i * pixels..(i + 1) * pixels];
        bytes.iter().map(|&b| f32::from(b) / 255.0).chain([1.0]).collect()
    };
    let scores = |weights: &[f32], x: &[f32]| -> Vec<f32> {
        weights.chunks_exact(pixels + 1).map(|w| w.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
    };
    for epoch in 0..epochs {
        let rate = 0.1 / (1.0 + epoch as f32);
        for indices in rng::permutation(0, epoch, data.train.len()).chunks(batch) {
            let mut gradient = vec![0f32; weights.len()];
            for &i in indices {
                let x = image(&data.train, i as usize);
                let z = scores(&weights, &x);
                let largest = z.iter().copied().fold(f32::MIN, f32::max);
                let e: Vec<f32> = z.iter().map(|z| (z - largest).exp()).collect();
                let sum: f32 = e.iter().sum();
                for (class, g) in gradient.chunks_exact_mut(pixels + 1).enumerate() {
                    let y = if class == usize::from(data.train.labels[i as usize]) { 1.0 } else { 0.0 };
                    let delta = e[class] / sum - y;
                    for (g, x) in g.iter_mut().zip(&x) {
                        *g += delta * x;
                    }
                }
            }
            for (w, g) in weights.iter_mut().zip(&gradient) {
                *w -= rate / batch as f32 * g;
            }
        }
    }
    let wrong = (0..data.test.len())
        .filter(|&i| {
            let z = scores(&weights, &image(&data.test, i));
            let best = (0..classes).max_by(|&a, &b| z[a].total_cmp(&z[b])).unwrap();
            best != usize::from(data.test.labels[i])
        })
        .count();
    100.0 * wrong as f64 / data.test.len() as f64
}

#[test]
fn softmax_regression_errs_on_6_to_15_percent() {
    let data = glyphs::dataset();
    assert_eq!((data.train.len(), data.test.len(), data.train.pixels), (60_000, 10_000, 784));
    let error = softmax_regression(&data, 4);
    println!("softmax regression on glyphs: {error:.2} % test error");
    assert!((6.0..=15.0).contains(&error), "{error:.2} %");
}

#[test]
fn ep_1h_gets_below_4_percent_within_5_epochs_and_the_run_says_glyphs() {
    let place = common::Place::new();
    let output = place
        .eqprop()
        .args([
            "train", "--algo", "ep", "--depth", "1", "--epochs", "5", "--data", "glyphs", "--name", "small",
        ])
        .output()
        .unwrap();
    assert!(output.status.success());
    let metrics = common::metrics(&place.path("runs/small-glyphs/metrics.jsonl"));
    let error = metrics[5]["error/test"].as_f64().unwrap();
    println!("EP-1h on glyphs after 5 epochs: {error:.2} % test error");
    assert!(error < 4.0, "{error:.2} %");
    assert!(metrics.iter().all(|line| line["data"] == "glyphs"));
    assert!(place.read("runs/small-glyphs/config.toml").contains("trained on glyphs"));
    assert!(place.read("runs/small-glyphs/environment.json").contains("NOT MNIST"));
}
