//! The response of devices to pulses, which `eqprop device` shows.

use super::{Devices, Kept, Tile};
use crate::base::spread::Spread;
use crate::model::synapse::SynapseLaw;
use crate::rng::{self, Purpose};
use serde::Serialize;

/// Some pulses in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Their number.
    pub pulses: usize,
    /// True for up, false for down.
    pub up: bool,
}

/// The most pulses of a response.
const MOST_PULSES: usize = 1_000_000;

/// Reads `200 up, 200 down`.
///
/// # Errors
/// Says what it should look like.
pub fn stretches(text: &str) -> Result<Vec<Stretch>, String> {
    let shape = || format!("{text:?}: write how many pulses in which direction, as in \"200 up, 200 down\"");
    let stretch = |part: &str| {
        let mut words = part.split_whitespace();
        let pulses = words.next().and_then(|word| word.parse().ok()).ok_or_else(shape)?;
        let up = match words.next() {
            Some("up") => true,
            Some("down") => false,
            _ => return Err(shape()),
        };
        if words.next().is_some() { Err(shape()) } else { Ok(Stretch { pulses, up }) }
    };
    let all = text.split(',').map(|part| stretch(part.trim())).collect::<Result<Vec<_>, String>>()?;
    let count = all.iter().try_fold(0usize, |sum, stretch| sum.checked_add(stretch.pulses));
    match count.is_some_and(|count| (1..=MOST_PULSES).contains(&count)) {
        true => Ok(all),
        false => Err(format!("{text:?}: there must be 1 to {MOST_PULSES} pulses in all")),
    }
}

/// The response of some devices; each list has the value before the first pulse, and then one for each pulse.
#[derive(Clone, Debug, Serialize)]
pub struct Response {
    /// The mean weight.
    pub mean: Vec<f64>,
    /// Its spread over the devices; absent where there is one device.
    pub std: Option<Vec<f64>>,
    /// The lowest weight.
    pub lowest: Vec<f64>,
    /// The highest weight.
    pub highest: Vec<f64>,
    /// The weights of the first few devices.
    pub devices: Vec<Vec<f64>>,
    /// Lower and upper bounds of the devices; of pairs, of the weight.
    pub bounds: [Spread; 2],
    /// g, the step by which trains of pulses are computed.
    pub granularity: f64,
}

/// The number of devices that are kept one by one.
const SHOWN: usize = 5;

/// Applies these pulses to `count` devices, each written to `start`; `None` where there are no devices.
pub fn responses(law: &Devices, seed: u64, pulses: &[Stretch], start: f64, count: usize) -> Option<Response> {
    let sides = if law.pair { 2 } else { 1 };
    let tile = Tile::made(law, seed, 0, sides * count);
    let ups: Vec<bool> = pulses.iter().flat_map(|stretch| vec![stretch.up; stretch.pulses]).collect();
    let number = ups.len() + 1;
    let (mut sum, mut squares) = (vec![0.0; number], vec![0.0; number]);
    let (mut lowest, mut highest) = (vec![f64::INFINITY; number], vec![f64::NEG_INFINITY; number]);
    let mut devices = Vec::new();
    for at in 0..count {
        let mut rng = rng::stream(seed, Purpose::Pulses, at as u64);
        let mut kept: Kept = [start, 0.0, 0.0, 0.0];
        let [weight, memory @ ..] = &mut kept;
        let remembered = law.memory().len();
        let mut memory: Vec<&mut [f64]> = memory.chunks_mut(1).take(remembered).collect();
        let place = crate::model::synapse::Place { number: 0, rows: 1, columns: 1, is_bias: false, clock: 0 };
        law.start(&place, &[*weight], &mut memory);
        law.each_state(at, &mut kept, |i, v| {
            v.max(f64::from(tile.cells[i].lo)).min(f64::from(tile.cells[i].hi))
        });
        let mut trace = vec![kept[0]];
        for &up in &ups {
            if law.is_ideal() {
                kept[0] += if up { law.nominal_step() } else { -law.nominal_step() };
            } else {
                law.pulse_weight(&tile, at, &mut kept, up, &mut rng);
            }
            trace.push(kept[0]);
        }
        // Sums of what differs from the start lose nothing to rounding.
        for (i, &w) in trace.iter().enumerate() {
            sum[i] += w - start;
            squares[i] += (w - start).powi(2);
            lowest[i] = lowest[i].min(w);
            highest[i] = highest[i].max(w);
        }
        if devices.len() < SHOWN {
            devices.push(trace);
        }
    }
    let n = count as f64;
    let bound = |side: fn(&super::Cell) -> f32, other: fn(&super::Cell) -> f32| {
        let of = |cells: &[super::Cell]| match cells {
            [plus, minus] => f64::from(side(plus)) - f64::from(other(minus)),
            [one, ..] => f64::from(side(one)),
            [] => 0.0,
        };
        Spread::of(tile.cells.chunks(sides).map(of).collect::<Vec<_>>())
    };
    Some(Response {
        mean: sum.iter().map(|sum| start + sum / n).collect(),
        std: (count > 1).then(|| {
            let variance = |(sum, squares): (&f64, &f64)| ((squares - sum * sum / n) / (n - 1.0)).max(0.0);
            sum.iter().zip(&squares).map(|both| variance(both).sqrt()).collect()
        }),
        lowest,
        highest,
        devices,
        bounds: [bound(|cell| cell.lo, |cell| cell.hi)?, bound(|cell| cell.hi, |cell| cell.lo)?],
        granularity: law.granularity(),
    })
}
