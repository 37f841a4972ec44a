//! Devices: their laws, how they are made and pulsed, against golden cases of another program (IBM aihwkit 1.1.0) and
//! closed forms; their random numbers, which depend on nothing but the seed and the moment; and refusals.

mod common;

use candle_core::{Device, Tensor};
use common::{distance, striped_batch as batch};
use eqprop::engine::{self, EngineKind};
use eqprop::model::Parameters;
use eqprop::model::synapse::device::{
    Devices, Management, Preset, Stretch, Tile, Train, responses, settings,
};
use eqprop::model::synapse::{Factor, Factors, Place, RowMajor, SynapseLaw};
use eqprop::rng::{self, Purpose};
use eqprop::{Config, Rule};
use serde_json::Value;
use std::collections::HashMap;

/// The golden cases.
fn golden() -> Value {
    serde_json::from_str(include_str!("golden/devices.json")).unwrap()
}

/// The law that a golden case names: a preset, or single keys.
fn law(keys: &Value, others: &[(&str, toml::Value)]) -> Devices {
    let mut table = toml::Table::new();
    for (key, value) in keys.as_object().unwrap() {
        match key.as_str() {
            "preset" => table.extend(settings(value.as_str().unwrap()).unwrap()),
            _ => {
                table.insert(key.clone(), toml::Value::try_from(value).unwrap());
            }
        }
    }
    table.extend(others.iter().map(|(key, value)| (key.to_string(), value.clone())));
    let law: Devices = table.try_into().unwrap();
    law.seeded(7)
}

/// Keys that switch off every spread from device to device, and write noise.
fn alike() -> Vec<(&'static str, toml::Value)> {
    [
        "dw_min_dtod",
        "up_down_dtod",
        "w_max_dtod",
        "w_min_dtod",
        "slope_up_dtod",
        "slope_down_dtod",
        "reference_dtod",
        "reset_dtod",
        "pow_gamma_dtod",
        "lifetime_dtod",
        "write_noise",
    ]
    .map(|key| (key, 0.0.into()))
    .to_vec()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

/// Mean, standard deviation, and the standard errors of both.
fn moments(values: &[f64]) -> [f64; 4] {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let central = |k: i32| values.iter().map(|value| (value - mean).powi(k)).sum::<f64>() / n;
    let (variance, fourth) = (central(2), central(4));
    let std = variance.sqrt();
    let of_std =
        if std > 0.0 { ((fourth - variance * variance) / n).max(0.0).sqrt() / (2.0 * std) } else { 0.0 };
    [mean, std, std / n.sqrt(), of_std]
}

/// True where two measurements agree within four standard errors.
fn agree(a: f64, error_a: f64, b: f64, error_b: f64) -> bool {
    (a - b).abs() <= 4.0 * (error_a * error_a + error_b * error_b).sqrt() + 1e-8
}

fn place(rows: usize, columns: usize, clock: u64) -> Place {
    Place { number: 0, rows, columns, is_bias: false, clock }
}

#[test]
fn responses_without_noise_are_those_of_the_other_program() {
    let golden = golden();
    let mut seen = 0;
    for case in golden["traces"].as_array().unwrap() {
        let law = law(&case["law"], &[("reference_dtod", 0.0.into())]);
        let name = &case["name"];
        if let Some(g) = case["granularity"].as_f64() {
            assert!((law.granularity() / g - 1.0).abs() < 1e-6, "{name}: {} {g}", law.granularity());
        }
        let every = case["every"].as_u64().unwrap() as usize;
        for (start, expected) in case["starts"].as_array().unwrap().iter().zip(case["w"].as_array().unwrap())
        {
            // The place where the other program has put it when it was told to.
            assert!(start.is_string() || start == 0);
            let start = number(&expected[0]) * 1e-7;
            let trace = match case["leaks"].as_bool().unwrap() {
                false => {
                    let pulses = [Stretch { pulses: 200, up: true }, Stretch { pulses: 200, up: false }];
                    responses(&law, 0, &pulses, start, 1).unwrap().mean
                }
                true => leaking(&law, start),
            };
            for (i, expected) in numbers(expected).into_iter().enumerate() {
                let (w, expected) = (trace[i * every], expected * 1e-7);
                assert!(
                    (w - expected).abs() < 1e-5,
                    "{name} from {start}, pulse {}: {w} {expected}",
                    i * every
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 1500, "{seen}");
}

/// 200 pulses up and 200 down, a leak after each.
fn leaking(law: &Devices, start: f64) -> Vec<f64> {
    let cell = Tile::made(law, 0, 0, 1).cells[0];
    let mut rng = rng::stream(0, Purpose::Pulses, 0);
    let mut trace = vec![start];
    let mut w = start;
    for i in 0..400 {
        w = law.pulsed(&cell, w, i < 200, &mut rng);
        let mut weights = [w];
        law.rest(&place(1, 1, i), &mut weights, &mut []);
        w = weights[0];
        trace.push(w);
    }
    trace
}

#[test]
fn noise_of_a_pulse_has_the_golden_moments_bounds_included() {
    let golden = golden();
    let mut seen = 0;
    for case in golden["noise"].as_array().unwrap() {
        let mut settings = alike();
        settings.push(("pair", false.into()));
        settings.push(("refresh", false.into()));
        let law = law(&case["law"], &settings);
        let cell = Tile::made(&law, 0, 0, 1).cells[0];
        let mut rng = rng::stream(3, Purpose::Pulses, 0);
        for row in case["rows"].as_array().unwrap() {
            let row = numbers(row);
            let [w, direction, mean, std, se_mean, se_std] = row[..6] else { panic!() };
            let changes: Vec<f64> =
                (0..40_000).map(|_| law.pulsed(&cell, w, direction > 0.0, &mut rng) - w).collect();
            let own = moments(&changes);
            let name = &case["name"];
            assert!(agree(own[0], own[2], mean, se_mean), "{name} {w} {direction}: {own:?} {mean} {se_mean}");
            assert!(agree(own[1], own[3], std, se_std), "{name} {w} {direction}: {own:?} {std} {se_std}");
            seen += 1;
        }
    }
    assert!(seen > 150, "{seen}");
}

#[test]
fn devices_are_made_as_those_of_the_other_program() {
    let golden = golden();
    let count = golden["c_n"].as_u64().unwrap() as usize;
    let quantiles = numbers(&golden["quantiles_percent"]);
    let mut seen = 0;
    for case in golden["construction"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let law = law(&case["law"], &[]);
        let tile = Tile::made(&law, 5, 0, count);
        let rests = tile.rests(&law, 5, 0);
        let scale = |i: usize| if law.lifetime > 0.0 { rests.of(i).0 } else { 1.0 };
        let of = |what: &str| -> Option<Vec<f64>> {
            let cells = tile.cells.iter().enumerate();
            let values = cells.map(|(i, cell)| match what {
                "max_bound" => cell.hi.into(),
                "min_bound" => cell.lo.into(),
                "dwmin_up" => cell.up.into(),
                "dwmin_down" => cell.down.into(),
                "reset_bias" => cell.reset.into(),
                "slope_up" | "reference" => cell.extra[0].into(),
                "slope_down" => cell.extra[1].into(),
                "decay_scales" => scale(i),
                "diffusion_rates" => rests.of(i).1,
                _ => f64::NAN,
            });
            Some(values.collect())
        };
        for what in [
            "max_bound",
            "min_bound",
            "dwmin_up",
            "dwmin_down",
            "reset_bias",
            "slope_up",
            "slope_down",
            "reference",
            "decay_scales",
            "diffusion_rates",
        ] {
            let Some(expected) = case[what].as_array() else { continue };
            // A reset has no effect without a leak, and the other program does not draw it then.
            let own = of(what).unwrap();
            if expected.len() == 1 {
                let expected = number(&expected[0]);
                assert!(
                    own.iter().all(|value| (value - expected).abs() < 1e-6),
                    "{name} {what}: {expected} {}",
                    own[0]
                );
                continue;
            }
            let [mean, std, se_mean, se_std] = moments(&own);
            if let (Some(golden_mean), Some(golden_std)) = (expected[0].as_f64(), expected[1].as_f64()) {
                let (error_mean, error_std) = (number(&expected[2]), number(&expected[3]));
                assert!(
                    agree(mean, se_mean, golden_mean, error_mean),
                    "{name} {what}: {mean} {golden_mean} {se_mean}"
                );
                assert!(
                    agree(std, se_std, golden_std, error_std),
                    "{name} {what}: {std} {golden_std} {se_std}"
                );
            }
            for (percent, at) in quantiles.iter().zip(&expected[4..]) {
                let share = percent / 100.0;
                // The other program stores them in 32 bits.
                let rounding = 1.2e-7 * number(at).abs();
                let below = |of: &dyn Fn(f64) -> bool| {
                    own.iter().filter(|value| of(**value)).count() as f64 / count as f64
                };
                let (low, high) =
                    (below(&|v| v < number(at) - rounding), below(&|v| v <= number(at) + rounding));
                let error = 4.0 * (2.0 * share * (1.0 - share) / count as f64).sqrt();
                assert!(
                    low - error <= share && share <= high + error,
                    "{name} {what}: {low} to {high} are below that of {share}"
                );
            }
            seen += 1;
        }
        let dead = tile.cells.iter().filter(|cell| cell.hi == cell.lo).count() as f64 / count as f64;
        let expected = number(&case["dead"]);
        let error = (2.0 * expected * (1.0 - expected) / count as f64).sqrt();
        assert!((dead - expected).abs() <= 4.0 * error, "{name}: {dead} are stuck");
        let pairs = tile.cells.iter().map(|cell| (f64::from(cell.up), f64::from(cell.down)));
        if let Some(expected) = case["corr"].as_f64() {
            let correlation = correlation(&pairs.collect::<Vec<_>>());
            assert!((correlation - expected).abs() < 0.02, "{name}: {correlation} {expected}");
        }
    }
    assert!(seen > 60, "{seen}");
}

fn correlation(pairs: &[(f64, f64)]) -> f64 {
    let a = moments(&pairs.iter().map(|pair| pair.0).collect::<Vec<_>>());
    let b = moments(&pairs.iter().map(|pair| pair.1).collect::<Vec<_>>());
    let product = pairs.iter().map(|(x, y)| (x - a[0]) * (y - b[0])).sum::<f64>() / pairs.len() as f64;
    product / (a[1] * b[1])
}

/// A device with constant steps of 1e-3 without noise and with bounds far away.
fn counter(management: &str, length: u64) -> Devices {
    let keys = serde_json::json!({ "device": "constant", "dw_min": 1e-3, "dw_min_dtod": 0.0, "dw_min_std": 0.0,
        "up_down_dtod": 0.0, "w_max": 1e6, "w_min": -1e6, "w_max_dtod": 0.0, "w_min_dtod": 0.0,
        "management": management, "train_length": length });
    law(&keys, &[])
}

/// The counts of pulses of one change −lr·d·xᵀ, with their signs, row by row.
fn counts(law: &Devices, lr: f64, d: &[f64], x: &[f64], clock: u64) -> Vec<f64> {
    let place = place(d.len(), x.len(), clock);
    let mut weights = vec![0.0; d.len() * x.len()];
    let factor = Factor { sign: 1.0, rows: d.into(), columns: x.into() };
    let wished = Factors { rate: -lr, images: 1, products: vec![factor] };
    law.pulse(&place, &mut RowMajor::new(&place, &mut weights, &mut []), &wished);
    weights.iter().map(|w| (w / 1e-3).round()).collect()
}

#[test]
fn trains_have_the_golden_numbers_of_pulses() {
    let golden = golden();
    let mut seen = 0;
    for case in golden["trains"].as_array().unwrap() {
        let mode = case["mode"].as_str().unwrap().split(':').next().unwrap();
        let (lr, length) = (number(&case["lr"]), case["bl"].as_u64().unwrap());
        let law = counter(mode, length);
        let rows: Vec<Vec<f64>> = case["rows"].as_array().unwrap().iter().map(numbers).collect();
        let (x, d): (Vec<f64>, Vec<f64>) =
            ([0, 3, 6].map(|i| rows[i][0]).to_vec(), [0, 1, 2].map(|i| rows[i][1]).to_vec());
        let most = |all: &[f64]| all.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        let train = Train::of(lr, most(&x), most(&d), 1e-3, length as usize, law.management);
        assert_eq!(train.length as u64, case["BL_used"].as_u64().unwrap(), "{case}");
        for (sizes, factor, golden) in [(&x, train.column, "px"), (&d, train.row, "pd")] {
            for (size, expected) in sizes.iter().zip(numbers(&case[golden])) {
                let p = (factor * size.abs()).min(1.0);
                assert!((p - expected).abs() < 1e-5 * expected, "{mode} {lr} {golden}: {p} {expected}");
            }
        }
        let updates = 4000;
        let all: Vec<Vec<f64>> = (0..updates).map(|clock| counts(&law, lr, &d, &x, clock)).collect();
        for (i, row) in rows.iter().enumerate() {
            // Golden rows go by x and then d, counts by d and then x.
            let at = (i % 3) * 3 + i / 3;
            let own = moments(&all.iter().map(|counts| counts[at]).collect::<Vec<_>>());
            let [mean, se_mean, variance, se_variance] = row[2..6] else { panic!() };
            // For few pulses the error is that of their expected number.
            let error = own[2].max((row[7] / updates as f64).sqrt());
            let error_variance = (2.0 * own[1] * own[3]).max((row[7] / updates as f64).sqrt());
            assert!(agree(own[0], error, mean, se_mean), "{mode} {lr} {length}: {own:?} {row:?}");
            assert!(
                agree(own[1].powi(2), error_variance, variance, se_variance),
                "{mode} {lr} {length}: {own:?} {row:?}"
            );
            seen += 1;
        }
    }
    assert!(seen > 400, "{seen}");
}

#[test]
fn pulses_of_a_line_are_shared_by_its_devices() {
    let golden = golden();
    for case in golden["covariance"]["cases"].as_array().unwrap() {
        let (mode, lr) = (case["mode"].as_str().unwrap(), number(&case["lr"]));
        let law = counter(mode, 31);
        let all: Vec<Vec<f64>> =
            (0..8000).map(|clock| counts(&law, lr, &[1.0, 1.0], &[1.0, 1.0], clock)).collect();
        let covariance = |a: usize, b: usize| {
            let mean = |i: usize| all.iter().map(|counts| counts[i]).sum::<f64>() / all.len() as f64;
            let (mean_a, mean_b) = (mean(a), mean(b));
            moments(&all.iter().map(|counts| (counts[a] - mean_a) * (counts[b] - mean_b)).collect::<Vec<_>>())
        };
        for (name, a, b) in [("same_row", 0, 1), ("same_col", 0, 2), ("neither", 0, 3)] {
            let (own, expected) = (covariance(a, b), numbers(&case[name]));
            assert!(
                agree(own[0], own[2], expected[0], expected[1]),
                "{mode} {lr} {name}: {own:?} {expected:?}"
            );
        }
    }
}

#[test]
fn tiny_requests_reach_published_devices_as_often_as_in_the_other_program() {
    let golden = golden();
    let mut seen = 0;
    for case in golden["tiny"].as_array().unwrap() {
        let request = number(&case["req"]);
        if request.abs() < 5e-5 {
            continue;
        }
        let mut settings = alike();
        settings.push(("refresh", false.into()));
        let law = law(&serde_json::json!({ "preset": case["preset"] }), &settings);
        let place = |clock| place(1, 1, clock);
        let count = 60_000;
        let changes: Vec<f64> = (0..count)
            .map(|clock| {
                let (mut weights, mut memory) = ([0.0], [[0.0], [0.0]]);
                let mut memory: Vec<&mut [f64]> =
                    memory.iter_mut().map(|m| &mut m[..]).take(law.memory().len()).collect();
                let factor = Factor { sign: 1.0, rows: vec![1.0].into(), columns: vec![1.0].into() };
                let wished = Factors { rate: request, images: 1, products: vec![factor] };
                law.pulse(
                    &place(clock),
                    &mut RowMajor::new(&place(clock), &mut weights, &mut memory),
                    &wished,
                );
                weights[0]
            })
            .collect();
        let own = moments(&changes);
        // As many pulses as are expected, each of which may be large.
        let error = (number(&case["spec_E2"]) / count as f64).sqrt();
        assert!(
            agree(own[0], error, number(&case["E"]), number(&case["seE"])),
            "{}: {own:?} {case}",
            case["dev"]
        );
        let squares = moments(&changes.iter().map(|change| change * change).collect::<Vec<_>>());
        assert!(
            agree(squares[0], squares[2], number(&case["E2"]), number(&case["seE2"])),
            "{squares:?} {case}"
        );
        seen += 1;
    }
    assert!(seen >= 20, "{seen}");
}

#[test]
fn weights_leak_towards_their_reset_and_diffuse_before_that() {
    let golden = golden();
    let of = |keys: Value| {
        let mut settings = alike();
        settings.extend([("w_max", 1.0.into()), ("w_min", (-1.0).into()), ("reset_std", 0.0.into())]);
        law(&keys, &settings)
    };
    for case in golden["decay"].as_array().unwrap() {
        let law = of(serde_json::json!({ "lifetime": case["lifetime"], "reset": case["reset"] }));
        let mut weights = numbers(&case["w0"]);
        let after = case["w_after"].as_array().unwrap();
        for minibatch in 1..=1000 {
            law.rest(&place(1, 2, minibatch), &mut weights, &mut []);
            for row in after.iter().map(numbers).filter(|row| row[0] == minibatch as f64) {
                for (w, expected) in weights.iter().zip(&row[1..]) {
                    // The other program keeps the lifetime and each weight in 32 bits.
                    let tolerance = if number(&case["lifetime"]) > 1e5 { 5e-5 } else { 1e-6 };
                    assert!((w - expected).abs() < tolerance, "{case} {minibatch}: {w} {expected}");
                }
            }
        }
    }
    for case in golden["diffusion"].as_array().unwrap() {
        let law = of(serde_json::json!({ "diffusion": case["diffusion"] }));
        let mut weights = vec![number(&case["w0"]); 40_000];
        let calls = case["calls"].as_u64().unwrap_or(1);
        (0..calls).for_each(|clock| law.rest(&place(200, 200, clock), &mut weights, &mut []));
        let own = moments(&weights);
        assert!(agree(own[1], own[3], number(&case["std"]), number(&case["std"]) * 0.004), "{own:?} {case}");
    }
    let case = &golden["order"];
    let law = of(serde_json::json!({ "diffusion": case["diffusion"], "lifetime": case["lifetime"] }));
    let mut weights = vec![number(&case["w0"]); 10_000];
    law.rest(&place(100, 100, 0), &mut weights, &mut []);
    let own = moments(&weights);
    assert!(agree(own[0], own[2], number(&case["mean"]), 1e-4), "{own:?}");
    assert!(agree(own[1], own[3], number(&case["std"]), 8e-5), "{own:?}");
}

#[test]
fn pairs_wear_out_unless_they_are_written_anew() {
    let golden = golden();
    for case in golden["pcm_refresh"].as_array().unwrap().iter().filter(|case| case["pulses"] == "alternate")
    {
        let anew = case["refresh"].as_str().unwrap().contains("preset");
        let law = law(&serde_json::json!({ "preset": "pcm" }), &[("refresh", anew.into())]);
        let (rows, mut state) = (900, [vec![0.0; 900], vec![0.0; 900], vec![0.0; 900]]);
        for clock in 0..200 {
            // Trains of one certain pulse: each device of a column takes it.
            let rate = if clock % 2 == 0 { law.granularity() } else { -law.granularity() };
            let place = place(rows, 1, clock);
            let factor = Factor { sign: 1.0, rows: vec![1.0; rows].into(), columns: vec![1.0].into() };
            let wished = Factors { rate, images: 1, products: vec![factor] };
            let [weights, plus, minus] = &mut state;
            law.pulse(&place, &mut RowMajor::new(&place, weights, &mut [plus, minus]), &wished);
        }
        let golden =
            case["rows"].as_array().unwrap().iter().map(numbers).find(|row| row[0] == 200.0).unwrap();
        for (values, mean, std) in [(&state[1], 1, 2), (&state[2], 3, 4), (&state[0], 5, 6)] {
            let own = moments(values);
            let n = 30.0;
            assert!(agree(own[0], own[2], golden[mean], golden[std] / n), "{case}: {own:?}");
            assert!(agree(own[1], own[3], golden[std], golden[std] / (2.0f64.sqrt() * n)), "{case}: {own:?}");
        }
    }
}

fn config(rule: Rule, settings: &[(&str, toml::Value)]) -> Config {
    let base = [
        ("training.dtype", "f64".into()),
        ("learning.learning_rates", toml::Value::try_from([0.05, 0.03]).unwrap()),
        ("settle.steps", 12.into()),
        ("learning.K", 6.into()),
        ("training.data", "glyphs".into()),
    ];
    let set = |config: Config, (key, value): &(&str, toml::Value)| config.with(key, value.clone()).unwrap();
    base.iter().chain(settings).fold(Config::preset(rule, [30, 20, 4]).unwrap(), set)
}

fn device(rule: Rule, settings: &[(&str, toml::Value)]) -> Config {
    config(rule, &[&[("synapse.law", "device".into())], settings].concat())
}

/// Weights after some minibatches.
fn trained(config: &Config, kind: EngineKind) -> Parameters {
    let mut engine =
        engine::build(kind, config.job(&Device::Cpu), config.parameters(&Device::Cpu).unwrap()).unwrap();
    for (i, beta) in [0.3, -0.3, 0.3].into_iter().enumerate() {
        engine.train(&batch(i), beta).unwrap();
    }
    engine.parameters().unwrap()
}

const RULES: [Rule; 4] = [Rule::EP, Rule::CEP, Rule::VF, Rule::CVF];

#[test]
fn the_ideal_device_is_the_ideal_synapse_to_the_bit() {
    for rule in RULES {
        for kind in [EngineKind::Plain, EngineKind::Fused] {
            let (ideal, same) = (config(rule, &[]), device(rule, &[("synapse.device", "ideal".into())]));
            assert_eq!(distance(&trained(&ideal, kind), &trained(&same, kind)), 0.0, "{rule:?} {kind:?}");
        }
    }
}

#[test]
fn exact_changes_of_devices_with_distant_bounds_are_those_of_ideal_synapses() {
    for rule in RULES {
        let exact = [
            ("synapse.pulses", "exact".into()),
            ("synapse.w_max", 1e3.into()),
            ("synapse.w_min", (-1e3).into()),
        ];
        let exact =
            [&exact[..], &[("synapse.w_max_dtod", 0.0.into()), ("synapse.w_min_dtod", 0.0.into())]].concat();
        let (ideal, exact) = (
            trained(&config(rule, &[]), EngineKind::Plain),
            trained(&device(rule, &exact), EngineKind::Auto),
        );
        assert!(distance(&ideal, &exact) < 1e-12, "{rule:?}");
    }
}

/// Many small random steps add up to the wished change: all that is left is their noise, √(g·Σ|u|).
#[test]
fn fine_devices_learn_what_ideal_synapses_do() {
    for (rule, most) in RULES.into_iter().zip([0.15, 0.5, 0.15, 0.15]) {
        let fine = [
            ("synapse.preset", "idealized".into()),
            ("synapse.dw_min", 1e-6.into()),
            ("synapse.dw_min_dtod", 0.0.into()),
            ("synapse.train_length", 10_000.into()),
            ("synapse.w_max", 10.0.into()),
            ("synapse.w_min", (-10.0).into()),
        ];
        let (ideal, fine) = (config(rule, &[]), device(rule, &fine));
        let start = ideal.parameters(&Device::Cpu).unwrap();
        let once = |config: &Config, kind| {
            let mut engine = engine::build(kind, config.job(&Device::Cpu), start.clone()).unwrap();
            engine.train(&batch(0), 0.3).unwrap();
            engine.parameters().unwrap()
        };
        let (ideal, fine) = (once(&ideal, EngineKind::Plain), once(&fine, EngineKind::Auto));
        let off = distance(&ideal, &fine) / distance(&ideal, &start);
        assert!(off < most, "{rule:?}: {off}");
    }
}

/// Both engines draw the same pulses, in double precision to the last one.
#[test]
fn the_fused_engine_pulses_as_the_plain_one() {
    for rule in [Rule::CEP, Rule::CVF] {
        for preset in ["gokmen-vlasov", "reram-es", "pcm", "capacitor"] {
            for order in ["synchronous", "alternating"] {
                let law = device(
                    rule,
                    &[
                        ("synapse.preset", preset.into()),
                        ("synapse.dw_min", 1e-3.into()),
                        ("settle.order", order.into()),
                        ("synapse.lifetime", 300.0.into()),
                    ],
                );
                let (plain, fused) = (trained(&law, EngineKind::Plain), trained(&law, EngineKind::Fused));
                let moved = distance(&plain, &law.parameters(&Device::Cpu).unwrap());
                let off = distance(&plain, &fused);
                assert!(off < 1e-9 * moved, "{rule:?} {preset} {order}: {off:.1e} of {moved:.1e}");
            }
        }
    }
}

#[test]
fn what_devices_do_goes_on_elsewhere_to_the_bit() {
    let laws: [&[(&str, toml::Value)]; 5] = [
        &[("synapse.preset", "idealized".into())],
        &[("synapse.preset", "reram-es".into())],
        &[("synapse.preset", "pcm".into())],
        &[
            ("synapse.preset", "capacitor".into()),
            ("synapse.lifetime", 50.0.into()),
            ("synapse.diffusion", 1e-3.into()),
        ],
        &[("synapse.preset", "reram-sb".into()), ("synapse.pulses", "deterministic".into())],
    ];
    for settings in laws {
        let law = device(Rule::CVF, settings);
        let start = |theta| engine::build(EngineKind::Auto, law.job(&Device::Cpu), theta).unwrap();
        let mut whole = start(law.parameters(&Device::Cpu).unwrap());
        let mut first = start(law.parameters(&Device::Cpu).unwrap());
        for engine in [&mut whole, &mut first] {
            engine.train(&batch(0), 0.3).unwrap();
        }
        let saved: HashMap<String, Tensor> = first.memory().unwrap().into_iter().collect();
        let mut second = start(first.parameters().unwrap());
        second.recall(&saved).unwrap();
        for engine in [&mut whole, &mut second] {
            engine.train(&batch(1), 0.3).unwrap();
        }
        let (whole, second) = (whole.parameters().unwrap(), second.parameters().unwrap());
        assert_eq!(distance(&whole, &second), 0.0, "{settings:?}");
        assert!(distance(&whole, &law.parameters(&Device::Cpu).unwrap()) > 0.0);
        let error = start(second).recall(&HashMap::new()).unwrap_err();
        assert!(
            format!("{error:#}").contains("synapse.clock") || format!("{error:#}").contains("missing"),
            "{error:#}"
        );
    }
}

#[test]
fn the_seed_decides_devices_and_pulses() {
    let law = device(Rule::CVF, &[("synapse.preset", "gokmen-vlasov".into())]);
    let start = law.parameters(&Device::Cpu).unwrap();
    let with = |seed: i64| {
        let config = law.with("training.seed", seed).unwrap();
        let mut engine = engine::build(EngineKind::Auto, config.job(&Device::Cpu), start.clone()).unwrap();
        engine.train(&batch(0), 0.3).unwrap();
        engine.parameters().unwrap()
    };
    assert_eq!(distance(&with(1), &with(1)), 0.0);
    assert!(distance(&with(1), &with(2)) > 0.0);
}

#[test]
fn stuck_devices_stay_where_they_are_stuck() {
    let stuck = device(
        Rule::CEP,
        &[
            ("synapse.stuck", 1.0.into()),
            ("synapse.stuck_value", 0.05.into()),
            ("synapse.stuck_range", 0.0.into()),
            ("synapse.w_max_dtod", 0.0.into()),
        ],
    );
    let theta = trained(&stuck, EngineKind::Auto);
    for tensor in theta.weights.iter().chain(&theta.biases) {
        let off = (tensor - 0.05).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
        assert!(off < 1e-8, "{off}");
    }
}

#[test]
fn a_preset_gives_what_is_not_given_and_another_one_takes_its_place() {
    let law = |config: &Config| config.model().synapse.name();
    let first = device(Rule::CVF, &[("synapse.preset", "ecram".into()), ("synapse.dw_min", 0.003.into())]);
    let values = first.values().unwrap();
    assert_eq!(values["synapse.dw_min"].as_float(), Some(0.003));
    assert_eq!(values["synapse.slope_down"].as_float(), Some(0.5085));
    let second = first.with("synapse.preset", "reram-es").unwrap();
    let fresh = device(Rule::CVF, &[("synapse.preset", "reram-es".into())]);
    assert_eq!(second.changes_from(&fresh).unwrap(), []);
    assert_eq!(law(&second), "device");
    for preset in Preset::ALL {
        device(Rule::CVF, &[("synapse.preset", preset.name().into())]);
    }
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    let base = device(Rule::CVF, &[]);
    let says = |config: &Config, key: &str, value: toml::Value| {
        format!("{:#}", config.with(key, value).unwrap_err())
    };
    for (key, value, what) in [
        ("synapse.w_min", 1.0.into(), "lower bound"),
        ("synapse.dw_min", 0.0.into(), "above 0"),
        ("synapse.levels", 1.into(), "from 2"),
        ("synapse.up_down", 1.0.into(), "below 1"),
        ("synapse.stuck", 1.5.into(), "from 0 to 1"),
        ("synapse.refresh", true.into(), "synapse.pair"),
        ("synapse.device", "measured".into(), "synapse.file"),
        ("synapse.device", "magic".into(), "soft-bounds"),
        ("synapse.file", "no/such/file.csv".into(), "no/such/file.csv"),
        ("learning.alignment", "homeostasis".into(), "learning.strength"),
        ("training.engine", "kernel".into(), "kernel"),
    ] {
        let message = says(&base, key, value);
        assert!(message.contains(what), "{key}: {message}");
    }
    let flags = |rule: Rule| {
        let ideal = config(rule, &[]);
        format!("{:#}", ideal.with("synapse.law", "device").unwrap_err())
    };
    assert!(flags(Rule::BPTT).contains("not products of two sides"));
    let bptt = config(Rule::BPTT, &[]);
    let deterministic =
        bptt.with_all([("synapse.law", "device".into()), ("synapse.pulses", "deterministic".into())]);
    assert!(deterministic.is_ok());
    assert_eq!(Management::Ublm, Devices::default().management);
}

/// A training of one epoch by the program: the last line of its metrics, and its folder.
fn told(place: &common::Place, more: &[&str]) -> serde_json::Map<String, Value> {
    let fixed = ["train", "--algo", "cvf", "--epochs", "1", "--data-dir", "data", "--name", "r-data"];
    let law = ["--set", "network.dims=[64, 24, 4]", "--set", "synapse.law=device"];
    let output = place.eqprop().args(fixed).args(law).args(more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metrics = place.read("runs/r-data/metrics.jsonl");
    serde_json::from_str(metrics.lines().last().unwrap()).unwrap()
}

#[test]
fn the_ledger_tells_what_was_asked_for_and_what_it_costs() {
    let place = common::Place::new();
    let costs =
        ["cost.pulse_energy=1 pJ", "cost.read_energy=2 fJ", "cost.pulse_time=10 ns", "cost.step_time=3 ns"];
    let costs: Vec<&str> = costs.iter().flat_map(|cost| ["--set", cost]).collect();
    let preset =
        ["--set", "synapse.preset=pcm", "--set", "learning.K=7", "--set", "learning.nudging=centered"];
    let told = told(&place, &[&preset[..], &costs].concat());
    let of = |tag: &str| told[tag].as_f64().unwrap_or_else(|| panic!("{tag}"));
    let images = common::TRAIN as f64;
    // Every layer moves in every step, of the first phase and of two second ones.
    let steps = of("settle/steps") + 14.0;
    assert!((of("settle/both_phases") - steps).abs() < 1e-9);
    let arrays = [("forward.0", 24 * 4), ("forward.1", 64 * 24), ("feedback.0", 24 * 4)];
    let arrays = arrays.into_iter().chain([("forward.0.bias", 4), ("forward.1.bias", 24)]);
    let (mut pulses, mut reads) = (0.0, 0.0);
    for (name, synapses) in arrays {
        assert!((of(&format!("reads/{name}")) / (steps * images) - 1.0).abs() < 1e-9, "{name}");
        pulses += of(&format!("pulses/{name}")) * f64::from(synapses);
        // Pairs are two devices.
        reads += of(&format!("reads/{name}")) * f64::from(2 * synapses);
    }
    assert!(pulses > 0.0 && of("pulses/slots") >= 1.0);
    let energy = (1e-12 * pulses + 2e-15 * reads) / images;
    assert!((of("cost/energy") / energy - 1.0).abs() < 1e-9);
    let latency = 10e-9 * of("pulses/slots") + 3e-9 * steps;
    assert!((of("cost/latency") / latency - 1.0).abs() < 1e-9);
    let page = place
        .eqprop()
        .args(["inspect", "r-data", "--data-dir", "data", "--out", "page.html"])
        .output()
        .unwrap();
    assert!(page.status.success(), "{}", String::from_utf8_lossy(&page.stderr));
    for said in ["Pulses a synapse", "Reads a synapse", "Energy of an image", "slots of trains"] {
        assert!(place.read("page.html").contains(said), "{said}");
    }
}

#[test]
fn slots_are_those_of_trains() {
    // A train of 31 slots for each of two images; whole steps of the device that takes most; one exact change.
    let slots = |pulses: &str, management: &str| {
        let keys = serde_json::json!({ "device": "constant", "dw_min": 1e-3, "pulses": pulses, "management": management,
            "w_max": 10.0, "w_min": -10.0 });
        let law = law(&keys, &[]);
        let place = place(2, 1, 0);
        let mut weights = vec![0.0; 2];
        match pulses {
            "stochastic" => {
                let factor = Factor {
                    sign: 1.0,
                    rows: vec![1.0, 0.5, 1.0, 0.0].into(),
                    columns: vec![1.0, 1.0].into(),
                };
                let wished = Factors { rate: 1e-3, images: 2, products: vec![factor] };
                law.pulse(&place, &mut RowMajor::new(&place, &mut weights, &mut []), &wished);
            }
            _ => {
                let mut waiting = vec![0.0; 2];
                law.change_array(&place, &mut weights, &[2.5e-3, -4.5e-3], &mut [&mut waiting]);
            }
        }
        law.ledger().unwrap()[0].slots
    };
    assert_eq!(slots("stochastic", "um"), 62);
    assert_eq!(slots("stochastic", "ublm"), 2);
    assert_eq!(slots("deterministic", "ublm"), 4);
    assert_eq!(slots("exact", "ublm"), 1);
}

#[test]
fn a_cost_that_is_none_is_refused() {
    let place = common::Place::new();
    let says = |more: &[&str]| {
        let fixed = ["config", "--algo", "cvf"];
        let output = place.eqprop().args(fixed).args(more).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for wrong in ["1", "1 parsec", "-1 pJ", "1 ns", "1e-12"] {
        let said = says(&["--set", "synapse.law=device", "--set", &format!("cost.pulse_energy={wrong}")]);
        assert!(said.contains("cost.pulse_energy") && said.contains("1 pJ"), "{wrong}: {said}");
    }
    let said = says(&["--set", "cost.pulse_energy=1 pJ"]);
    assert!(said.contains("has no effect") && said.contains("synapse.law"), "{said}");
}

/// Keys of `[noise]` with which everything is noisy.
const NOISY: [(&str, f64); 4] =
    [("noise.states", 0.02), ("noise.reads", 0.03), ("noise.dac_bits", 5.0), ("noise.adc_bits", 6.0)];

fn noisy(rule: Rule, more: &[(&str, toml::Value)]) -> Config {
    let number = |(key, value): (&'static str, f64)| match key.ends_with("bits") {
        true => (key, toml::Value::from(value as i64)),
        false => (key, value.into()),
    };
    config(rule, more).with_all(NOISY.map(number)).unwrap()
}

#[test]
fn noise_goes_on_elsewhere_to_the_bit_and_tests_do_not_disturb_it() {
    for law in ["ideal", "device"] {
        let config = noisy(Rule::CVF, &[("synapse.law", law.into())]);
        let start = |theta| engine::build(EngineKind::Auto, config.job(&Device::Cpu), theta).unwrap();
        let mut whole = start(config.parameters(&Device::Cpu).unwrap());
        let mut first = start(config.parameters(&Device::Cpu).unwrap());
        whole.train(&batch(0), 0.3).unwrap();
        let tested = [whole.evaluate(&batch(2)).unwrap(), whole.evaluate(&batch(2)).unwrap()];
        assert_eq!(tested[0].loss, tested[1].loss, "{law}");
        first.train(&batch(0), 0.3).unwrap();
        let saved: HashMap<String, Tensor> = first.memory().unwrap().into_iter().collect();
        let mut second = start(first.parameters().unwrap());
        second.recall(&saved).unwrap();
        for engine in [&mut whole, &mut second] {
            engine.train(&batch(1), 0.3).unwrap();
        }
        let (whole, second) = (whole.parameters().unwrap(), second.parameters().unwrap());
        assert_eq!(distance(&whole, &second), 0.0, "{law}");
        let other = config.with("training.seed", 77).unwrap();
        let mut other = engine::build(
            EngineKind::Auto,
            other.job(&Device::Cpu),
            config.parameters(&Device::Cpu).unwrap(),
        )
        .unwrap();
        other.train(&batch(0), 0.3).unwrap();
        assert!(distance(&other.parameters().unwrap(), &first.parameters().unwrap()) > 0.0, "{law}");
    }
}

#[test]
fn every_minibatch_has_noise_of_its_own() {
    let config = noisy(Rule::EP, &[("learning.learning_rates", vec![0.0; 2].into())]);
    let mut engine =
        engine::build(EngineKind::Auto, config.job(&Device::Cpu), config.parameters(&Device::Cpu).unwrap())
            .unwrap();
    let losses = [0, 1].map(|_| engine.train(&batch(0), 0.3).unwrap().loss);
    assert_ne!(losses[0], losses[1]);
}

/// η·b is what a constant adds to each weight, at each change: once where learning is once a minibatch, K times where
/// it is at every step. Weights that learn nothing else show it.
#[test]
fn a_constant_is_added_to_every_update() {
    for rule in [Rule::EP, Rule::CEP, Rule::VF, Rule::CVF] {
        for law in ["ideal", "device"] {
            let fine = [
                ("synapse.law", law.into()),
                ("learning.beta", 0.5.into()),
                ("learning.learning_rates", vec![1e-6; 2].into()),
            ];
            let mut without = config(rule, &fine);
            if rule == Rule::CVF {
                without = without.with("learning.authors_code", false).unwrap();
            }
            if law == "device" {
                let exact = [
                    ("synapse.pulses", "exact".into()),
                    ("synapse.w_max", 1e3.into()),
                    ("synapse.w_min", (-1e3).into()),
                ];
                without = without.with_all(exact).unwrap();
            }
            let with = without.with("noise.updates", 0.25).unwrap();
            let learnt = |config: &Config| {
                let mut engine = engine::build(
                    EngineKind::Plain,
                    config.job(&Device::Cpu),
                    config.parameters(&Device::Cpu).unwrap(),
                )
                .unwrap();
                engine.train(&batch(0), 0.5).unwrap();
                engine.parameters().unwrap()
            };
            let (plain, shifted) = (learnt(&without), learnt(&with));
            let changes = if [Rule::CEP, Rule::CVF].contains(&rule) { with.learning.K as f64 } else { 1.0 };
            for (plain, shifted) in
                plain.weights.iter().chain(&plain.biases).zip(shifted.weights.iter().chain(&shifted.biases))
            {
                let shift = ((shifted - plain).unwrap() / (changes * 0.25e-6)).unwrap();
                let [low, high] = [
                    shift.flatten_all().unwrap().min(0).unwrap(),
                    shift.flatten_all().unwrap().max(0).unwrap(),
                ]
                .map(|end| end.to_scalar::<f64>().unwrap());
                assert!(low > 0.99 && high < 1.01, "{rule:?} {law}: {low} to {high}");
            }
        }
    }
}

/// Trains of pulses get the same share of such a constant on average.
#[test]
fn trains_carry_a_constant_of_every_update_too() {
    let fine = [
        ("synapse.device", "constant".into()),
        ("synapse.dw_min", 1e-7.into()),
        ("synapse.dw_min_dtod", 0.0.into()),
        ("synapse.dw_min_std", 0.0.into()),
        ("synapse.up_down_dtod", 0.0.into()),
        ("synapse.train_length", 1000.into()),
        ("synapse.w_max", 1e3.into()),
        ("synapse.w_min", (-1e3).into()),
        ("noise.updates", 2.0.into()),
    ];
    for (rule, changes) in [(Rule::EP, 1.0), (Rule::CEP, 0.0), (Rule::VF, 1.0), (Rule::CVF, 0.0)] {
        let law = device(rule, &fine).with("learning.learning_rates", vec![1e-4; 2]).unwrap();
        let changes = if changes > 0.0 { changes } else { law.learning.K as f64 };
        let start = law.parameters(&Device::Cpu).unwrap();
        let mut engine = engine::build(EngineKind::Plain, law.job(&Device::Cpu), start.clone()).unwrap();
        engine.train(&batch(0), 0.3).unwrap();
        for (before, after) in start.weights.iter().zip(&engine.parameters().unwrap().weights) {
            let mean = (after - before).unwrap().mean_all().unwrap().to_scalar::<f64>().unwrap();
            // Of Δ itself little is left in the mean of all weights.
            let mean = mean / (changes * 1e-4 * 2.0);
            assert!((mean - 1.0).abs() < 0.2, "{rule:?}: {mean}");
        }
    }
}

#[test]
fn the_fused_engine_refuses_noise_and_the_plain_one_is_taken() {
    let place = common::Place::new();
    let run = |more: &[&str]| {
        let fixed = [
            "train",
            "--algo",
            "cvf",
            "--epochs",
            "1",
            "--data-dir",
            "data",
            "--set",
            "network.dims=[64, 24, 4]",
        ];
        place.eqprop().args(fixed).args(["--set", "noise.reads=0.1"]).args(more).output().unwrap()
    };
    let refused = run(&["--set", "training.engine=fused"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("[noise]") && said.contains("auto"), "{said}");
    let dry = run(&["--dry-run"]);
    let said = String::from_utf8_lossy(&dry.stderr).into_owned() + &String::from_utf8_lossy(&dry.stdout);
    assert!(dry.status.success() && said.contains("plain"), "{said}");
    for (key, what) in [
        ("noise.states=-1", "0 or above"),
        ("noise.adc_bits=1", "2 to 24"),
        ("noise.dac_range=2", "has no effect"),
    ] {
        let refused = run(&["--set", key]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && said.contains(what), "{key}: {said}");
    }
}

#[test]
fn the_sweeps_of_devices_are_inside_the_program_and_can_be_run() {
    use eqprop::sweep::SweepFile;
    let one = [
        ("device-levels", 84),
        ("device-asymmetry", 84),
        ("device-spread", 84),
        ("device-stuck", 84),
        ("device-presets", 990),
        ("device-pulses", 45),
    ];
    for (name, count) in one {
        let path = std::path::Path::new(name);
        let sweep = SweepFile::read(path).unwrap();
        let runs = sweep.expand(path, &Default::default(), |_| Ok("mnist".into())).unwrap();
        assert_eq!(runs.len(), count, "{name}");
        for (run, resolved) in &runs {
            let job = resolved.config.job(&Device::Cpu);
            assert!(job.learning.check(&job.model, &resolved.config.network()).is_ok(), "{run}");
        }
    }
}

/// Algorithm 5 pulses what the whole phase wishes, after it: fine devices learn what ideal synapses do.
#[test]
fn algorithm_5_learns_with_devices_too() {
    let fine = [
        ("synapse.preset", "idealized".into()),
        ("synapse.dw_min", 1e-6.into()),
        ("synapse.dw_min_dtod", 0.0.into()),
        ("synapse.train_length", 10_000.into()),
        ("synapse.w_max", 10.0.into()),
        ("synapse.w_min", (-10.0).into()),
    ];
    for pulses in ["stochastic", "mean", "exact"] {
        let law = device(Rule::CEP_RESCALED, &fine).with("synapse.pulses", pulses);
        // Exact changes have no trains.
        let law = law.unwrap_or_else(|_| {
            let rest: Vec<_> = fine.iter().filter(|(key, _)| !key.ends_with("length")).cloned().collect();
            device(Rule::CEP_RESCALED, &[&rest[..], &[("synapse.pulses", pulses.into())]].concat())
        });
        let ideal = config(Rule::CEP_RESCALED, &[]);
        let start = ideal.parameters(&Device::Cpu).unwrap();
        let once = |config: &Config| {
            let mut engine =
                engine::build(EngineKind::Plain, config.job(&Device::Cpu), start.clone()).unwrap();
            engine.train(&batch(0), 0.3).unwrap();
            engine.parameters().unwrap()
        };
        let (ideal, fine) = (once(&ideal), once(&law));
        let off = distance(&ideal, &fine) / distance(&ideal, &start);
        assert!(off < if pulses == "stochastic" { 0.5 } else { 1e-5 }, "{pulses}: {off}");
    }
}

/// The mean of many trains is what `pulses = "mean"` does, of every kind of device.
#[test]
fn the_mean_of_pulses_is_that_of_many_trains() {
    for preset in ["gokmen-vlasov", "ecram", "reram-es", "reram-sb"] {
        let of = |pulses: &str| {
            let mut settings = alike();
            settings.push(("pulses", pulses.into()));
            law(&serde_json::json!({ "preset": preset }), &settings)
        };
        let request = 0.2 * of("mean").granularity();
        let change = |law: &Devices, clock: u64| {
            let place = place(1, 1, clock);
            let mut weights = [0.1];
            let factor = Factor { sign: 1.0, rows: vec![-0.5].into(), columns: vec![2.0].into() };
            let wished = Factors { rate: request, images: 1, products: vec![factor] };
            law.pulse(&place, &mut RowMajor::new(&place, &mut weights, &mut []), &wished);
            weights[0] - 0.1
        };
        let expected = change(&of("mean"), 0);
        let step = of("mean").step(&Tile::made(&of("mean"), 7, 0, 1).cells[0], 0.1, false).mean;
        assert!((expected / (0.2 * step) - 1.0).abs() < 1e-9, "{preset}: {expected} {step}");
        let trains = of("stochastic");
        let own = moments(&(0..40_000).map(|clock| change(&trains, clock)).collect::<Vec<_>>());
        assert!((own[0] - expected).abs() < 4.0 * own[2], "{preset}: {own:?} {expected}");
    }
}
