use anyhow::Result;
use candle_core::{DType, Device};
use eqprop::config::{Choices, Resolved};
use eqprop::data::{self, Batch};
use eqprop::engine::plain;
use eqprop::learning::{Rule, angle::Comparison};
use eqprop::model::{Dynamics, dynamics::Nudge};
use eqprop::reference::rbp;
use eqprop::run::{angles, initial_parameters, with_threads};
use eqprop::study::referee::total;
use std::path::PathBuf;

fn main() -> Result<()> {
    with_threads(None, go)
}
fn go() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let choices =
        Choices { algo: Rule::named(&args[1]), depth: Some(args[2].parse()?), ..Choices::default() };
    let mut config = Resolved::new(&choices)?.config;
    let init: Option<PathBuf> = args.get(3).map(PathBuf::from);
    let dataset = data::load(config.training.data, Some(&PathBuf::from("/work/shared/data/mnist")))?;
    let theta = initial_parameters(&config, init.as_deref(), &Device::Cpu)?;
    let model = config.model();
    // settle
    let mut worst: Vec<Vec<f64>> = vec![];
    for indices in angles::minibatches(&config, &dataset.train, 1).take(25) {
        let mut batch = Batch::default();
        dataset.train.gather(&indices, &mut batch);
        let x = plain::images(&batch, DType::F32, &Device::Cpu)?;
        let drive = model.dynamics.drive(&theta, &x)?;
        let mut s = Dynamics::initial_state(&theta, &x)?;
        for t in 0..200 {
            let next = model.dynamics.step(&theta, &drive, &s, None)?;
            let mut r = vec![0.0f64; 20];
            for (a, b) in next.iter().zip(&s) {
                for (i, v) in
                    (a - b)?.abs()?.max(1)?.to_dtype(DType::F64)?.to_vec1::<f64>()?.into_iter().enumerate()
                {
                    r[i] = r[i].max(v);
                }
            }
            if worst.len() <= t {
                worst.push(vec![]);
            }
            worst[t].extend(r);
            s = next;
        }
    }
    for (t, w) in worst.iter_mut().enumerate() {
        w.sort_by(f64::total_cmp);
        if t % 5 == 4 && t < 100 || t % 40 == 39 {
            println!("t {} median {:.1e} p99 {:.1e} max {:.1e}", t + 1, w[250], w[494], w[499]);
        }
    }
    let mut m2 = model.clone();
    m2.settle.steps = 400;
    m2.settle.tolerance = 1e-6;
    let batches: Vec<Batch> = angles::minibatches(&config, &dataset.train, 0)
        .take(5)
        .map(|i| {
            let mut b = Batch::default();
            dataset.train.gather(&i, &mut b);
            b
        })
        .collect();
    let mut whole = vec![];
    for (bi, batch) in batches.iter().enumerate() {
        let x = plain::images(batch, DType::F32, &Device::Cpu)?;
        let y = plain::one_hot(batch, 10, DType::F32, &Device::Cpu)?;
        let settled = m2.settle(&theta, &x)?;
        let (g, k) = rbp::whole(&model.dynamics, &theta, &x, &y, settled.state(), 1e-4, 400)?;
        if bi == 0 {
            println!("arrival 1e-4: {k}");
            let mut part = theta.plus(&theta, |_| -1.0)?;
            let mut t = 0;
            rbp::each(&model.dynamics, &theta, &x, &y, settled.state(), |_, p| {
                part = part.plus(&p, |_| 1.0)?;
                t += 1;
                if t < 10 || t % 5 == 0 {
                    let d = part.plus(&g, |_| -1.0)?;
                    let f: Vec<String> = d
                        .weight_norms()?
                        .iter()
                        .zip(g.weight_norms()?)
                        .map(|(a, b)| format!("{} {:.3}", a.0, a.1 / b.1))
                        .collect();
                    println!("K {t} missing {}", f.join("  "));
                }
                Ok(t < 60.min(k))
            })?;
            for ((n, a), (_, w)) in g.weight_norms()?.iter().zip(theta.weight_norms()?) {
                println!("{n} |g| {a:.3e} |W| {w:.3e} ratio W/g {:.3}", w / a);
            }
        }
        whole.push((x, y, settled, g));
    }
    let mut protocol = config.protocol();
    let rates = protocol.learning_rates.clone();
    protocol.learning_rates.fill(0.0);
    for beta in [1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0] {
        let mut line = format!("beta {beta}");
        for sign in [1.0, -1.0] {
            let (mut a, mut s, mut n) = (0.0, 0.0, 0.0);
            for (x, y, _, g) in &whole {
                let settled = model.settle(&theta, x)?;
                let u = total(
                    &model,
                    &protocol,
                    &theta,
                    x,
                    Nudge { target: y, beta: (sign * beta).into() },
                    &settled,
                )?;
                let c = Comparison::new(&u, g)?;
                a += c.total_degrees;
                s += c.sign_match;
                n += c.per_matrix_degrees[model.dims.depth()].1;
            }
            line += &format!("  {sign:+} angle {:.2} signs {:.3} input {:.2}", a / 5.0, s / 5.0, n / 5.0);
        }
        println!("{line}");
    }
    if config.learning.rule.continual() {
        for scale in [0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0] {
            protocol.learning_rates = rates.iter().map(|r| r * scale).collect();
            let mut line = format!("eta x{scale}");
            for beta in [0.1, 0.2, 0.5] {
                for sign in [1.0, -1.0] {
                    let (mut a, mut n) = (0.0, vec![0.0; 9]);
                    for (x, y, _, g) in &whole {
                        let settled = model.settle(&theta, x)?;
                        let u = total(
                            &model,
                            &protocol,
                            &theta,
                            x,
                            Nudge { target: y, beta: (sign * beta).into() },
                            &settled,
                        )?;
                        let c = Comparison::new(&u, g)?;
                        a += c.total_degrees / 5.0;
                        for (i, m) in c.per_matrix_degrees.iter().enumerate() {
                            n[i] += m.1 / 5.0;
                        }
                    }
                    line += &format!(
                        "  b {:+}: {a:.1} [{}]",
                        sign * beta,
                        n[..whole[0].3.weight_norms()?.len()]
                            .iter()
                            .map(|v| format!("{v:.0}"))
                            .collect::<Vec<_>>()
                            .join(" ")
                    );
                }
            }
            println!("{line}");
        }
    }
    Ok(())
}
