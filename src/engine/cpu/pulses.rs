//! Devices that multiply: their pulses on packed weights, and the resulting changes of the drive.

use super::packing::{PackedMatrix, Weights};
use super::simd::{Real, WIDTH};
use super::state::{Block, Move};
use crate::learning::Form;
use crate::model::Synapse;
use crate::model::synapse::{Array, Factor, Factors, Ledger, Place};
use std::borrow::Cow;

/// A step of the second phase as devices see it.
pub struct Moment<'a> {
    /// The law of all arrays.
    pub law: &'a Synapse,
    /// The form of the products.
    pub form: Form,
    /// η_n/(βB), by layer.
    pub rates: &'a [f64],
    /// The number of updates of arrays so far.
    pub clock: u64,
    /// True where the bias of the last hidden layer stays.
    pub frozen: bool,
}

/// The data that stay the same from step to step, and the last step's changes of weights into the last hidden layer.
pub struct Pulsing {
    /// x, (B, d_in), all pixels.
    x: Vec<f64>,
    /// The index of each pixel among the active ones.
    active: Vec<usize>,
    /// Changes of the weights from the input: destination, source, change.
    changes: Vec<(usize, usize, f64)>,
    /// Changes of the bias of the last hidden layer: neuron, 0, change.
    bias: Vec<(usize, usize, f64)>,
}

/// Packed numbers of an array: weights first, then their memory, and the transposed copy of tied weights.
struct Cells<'a, T> {
    /// The number of source neurons.
    from: usize,
    parts: Vec<&'a mut [T]>,
    mirror: Option<(usize, &'a mut [T])>,
    /// The list of changes, where it is wanted.
    changes: Option<&'a mut Vec<(usize, usize, f64)>>,
}

/// The index of a weight in a packed matrix; also of a bias, whose source is one neuron.
fn place_of(from: usize, row: usize, column: usize) -> usize {
    (row / WIDTH * from + column) * WIDTH + row % WIDTH
}

impl<T: Real> Array for Cells<'_, T> {
    fn read(&self, row: usize, column: usize, into: &mut [f64]) {
        let at = place_of(self.from, row, column);
        into.iter_mut().zip(&self.parts).for_each(|(into, part)| *into = part[at].to_f64());
    }

    fn write(&mut self, row: usize, column: usize, from: &[f64]) {
        let at = place_of(self.from, row, column);
        let before = self.parts[0][at];
        for (part, number) in self.parts.iter_mut().zip(from) {
            part[at] = T::from_f64(*number);
        }
        let after = self.parts[0][at];
        if let Some((from, mirror)) = &mut self.mirror {
            mirror[place_of(*from, column, row)] = after;
        }
        if let Some(changes) = &mut self.changes {
            changes.push((row, column, (after - before).to_f64()));
        }
    }
}

/// (B, width) of all blocks, without padding.
fn gathered<'a, T: Real + 'a>(rows: impl Iterator<Item = (usize, &'a [T])>, width: usize) -> Vec<f64> {
    let mut all = Vec::new();
    for (images, layer) in rows {
        for row in layer.chunks_exact(layer.len() / images) {
            all.extend(row[..width].iter().map(|number| number.to_f64()));
        }
    }
    all
}

impl Pulsing {
    /// Prepares the pulses of a phase, before its first step.
    pub fn new<T: Real>(weights: &Weights<T>, blocks: &[Block<T>]) -> Self {
        let pixels = weights.input.from;
        let mut active = vec![usize::MAX; pixels];
        for (i, &pixel) in blocks[0].active_pixels.iter().enumerate() {
            active[pixel as usize] = i;
        }
        let mut x = Vec::new();
        for block in blocks {
            for row in block.x.chunks_exact(block.active_pixels.len()) {
                let start = x.len();
                x.resize(start + pixels, 0.0);
                for (&pixel, value) in block.active_pixels.iter().zip(row) {
                    x[start + pixel as usize] = value.to_f64();
                }
            }
        }
        Self { x, active, changes: Vec::new(), bias: Vec::new() }
    }

    /// Pulses every array that learns, in the order of the tensors.
    pub fn pulse<T: Real>(
        &mut self,
        moment: &Moment,
        learns: &dyn Fn(usize, usize) -> bool,
        weights: &mut Weights<T>,
        memory: &mut [(&'static str, Weights<T>)],
        blocks: &[Block<T>],
        moves: &[Move<T>],
    ) {
        let (network, last) = (weights.network.clone(), weights.last());
        let images = blocks.iter().map(|block| block.rows).sum();
        let widths = weights.widths.clone();
        let both = || blocks.iter().zip(moves);
        let moved = |n: usize| moves[0].layers.contains(n);
        let before = |n: usize| gathered(both().map(|(block, _)| (block.rows, &block.s[n][..])), widths[n]);
        let after = |n: usize| {
            let layer = |(block, step): (&'_ Block<T>, &'_ Move<T>)| match step.layers.contains(n) {
                true => gathered([(block.rows, &step.s_next[n][..])].into_iter(), widths[n]),
                false => gathered([(block.rows, &block.s[n][..])].into_iter(), widths[n]),
            };
            both().flat_map(layer).collect::<Vec<_>>()
        };
        let delta = |from: usize, to: usize| {
            gathered(both().map(|(block, step)| (block.rows, step.delta(from, to))), widths[to])
        };
        let Self { x, changes, bias: bias_changes, .. } = self;
        changes.clear();
        bias_changes.clear();
        let product = |sign: f64, rows: Vec<f64>, columns: Vec<f64>| Factor {
            sign,
            rows: Cow::Owned(rows),
            columns: Cow::Owned(columns),
        };
        for (number, c) in network.weights().enumerate().filter(|(_, c)| learns(c.from, c.to)) {
            let (from, to) = (c.from, c.to);
            let products = match moment.form {
                _ if from > last && !moved(to) => continue,
                _ if from > last => vec![Factor {
                    sign: 1.0,
                    rows: Cow::Owned(delta(from, to)),
                    columns: Cow::Borrowed(&x[..]),
                }],
                Form::VectorField if !moved(to) => continue,
                Form::VectorField => vec![product(1.0, delta(from, to), before(from))],
                Form::Correlation => {
                    vec![product(1.0, after(to), after(from)), product(-1.0, before(to), before(from))]
                }
            };
            let width_from = if from > last { weights.input.from } else { widths[from] };
            let place =
                Place { number, rows: widths[to], columns: width_from, is_bias: false, clock: moment.clock };
            let tied = network.connections().iter().any(|other| other.weight == c.weight && other.transposed);
            let (matrix, mirror) = matrices(weights, from, to, tied);
            let Some(matrix) = matrix else { continue };
            let mut parts = vec![&mut matrix.panels[..]];
            for (_, remembered) in memory.iter_mut() {
                parts.extend(matrices(remembered, from, to, false).0.map(|matrix| &mut matrix.panels[..]));
            }
            let mirror = mirror.map(|matrix| (matrix.from, &mut matrix.panels[..]));
            let changes = (from > last).then_some(&mut *changes);
            let mut cells = Cells { from: width_from, parts, mirror, changes };
            let wished = Factors { rate: moment.rates[c.rate()], images, products };
            moment.law.pulse(&place, &mut cells, &wished);
        }
        let first_bias = network.weights().count();
        let one: Vec<f64> = vec![1.0; images];
        for n in (0..=last).filter(|&n| moved(n) && !(moment.frozen && n == last)) {
            let place = Place {
                number: first_bias + n,
                rows: widths[n],
                columns: 1,
                is_bias: true,
                clock: moment.clock,
            };
            let mut parts = vec![&mut weights.bias[n][..]];
            parts.extend(memory.iter_mut().map(|(_, remembered)| &mut remembered.bias[n][..]));
            let changes = (n == last).then_some(&mut *bias_changes);
            let mut cells = Cells { from: 1, parts, mirror: None, changes };
            let factor = Factor { sign: 1.0, rows: delta(n + 1, n).into(), columns: Cow::Borrowed(&one[..]) };
            let wished = Factors { rate: moment.rates[n], images, products: vec![factor] };
            moment.law.pulse(&place, &mut cells, &wished);
        }
    }

    /// Adds the last step's changes of the input weights to the drive of every block; returns false where computing
    /// the drive anew is less work.
    pub fn drive<T: Real>(&self, blocks: &mut [Block<T>], weights: &Weights<T>) -> bool {
        let active = blocks[0].active_pixels.len();
        // A scattered change costs about as much as this many multiply-adds of a product.
        if self.changes.len() * 8 > active * weights.input.to {
            return false;
        }
        let stride = weights.stride(weights.last());
        for block in blocks {
            let Block { drive, x, active_pixels, .. } = block;
            for (drive, x) in drive.chunks_exact_mut(stride).zip(x.chunks_exact(active_pixels.len())) {
                for &(row, column, change) in &self.changes {
                    // A pixel that is black in all images of the minibatch took no pulse.
                    if let Some(&x) = x.get(self.active[column]) {
                        drive[row] += T::from_f64(change) * x;
                    }
                }
                for &(row, _, change) in &self.bias {
                    drive[row] += T::from_f64(change);
                }
            }
        }
        true
    }
}

/// The packed weights from one layer into another, and where they are `tied` their transposed copy.
fn matrices<T: Real>(
    weights: &mut Weights<T>,
    from: usize,
    to: usize,
    tied: bool,
) -> (Option<&mut PackedMatrix<T>>, Option<&mut PackedMatrix<T>>) {
    if from > weights.last() {
        return (Some(&mut weights.input), None);
    }
    let (mut matrix, mut mirror) = (None, None);
    for connection in &mut weights.between {
        if (connection.from, connection.to) == (from, to) {
            matrix = Some(&mut connection.matrix);
        } else if tied && (connection.from, connection.to) == (to, from) {
            mirror = Some(&mut connection.matrix);
        }
    }
    (matrix, mirror)
}

/// Packed weights before a minibatch, by array in the order of the tensors.
pub struct Before<T>(Vec<Vec<T>>);

impl<T: Real> Before<T> {
    /// Copies the weights.
    pub fn of(weights: &mut Weights<T>) -> Self {
        Self(arrays(weights).into_iter().map(|array| array.to_vec()).collect())
    }

    /// Adds the change of each array to the ledgers of a law.
    pub fn book(self, law: &Synapse, weights: &mut Weights<T>) {
        let Some(mut book) = law.ledger() else { return };
        for (i, (before, after)) in self.0.into_iter().zip(arrays(weights)).enumerate() {
            if book.len() <= i {
                book.resize(i + 1, Ledger::default());
            }
            let changes =
                before.iter().zip(after).map(|(&before, &mut after)| (after - before).to_f64().abs());
            book[i].net += changes.sum::<f64>();
        }
    }
}

/// The packed numbers of each array, in the order of the tensors.
fn arrays<T: Real>(weights: &mut Weights<T>) -> Vec<&mut [T]> {
    let (network, last) = (weights.network.clone(), weights.last());
    let Weights { input, between, bias, .. } = weights;
    let mut input = Some(&mut input.panels[..]);
    let mut between: Vec<_> =
        between.iter_mut().map(|c| ((c.from, c.to), Some(&mut c.matrix.panels[..]))).collect();
    let mut of = |from: usize, to: usize| match from > last {
        true => input.take(),
        false => {
            between.iter_mut().find(|(ends, _)| *ends == (from, to)).and_then(|(_, panels)| panels.take())
        }
    };
    let weights: Vec<&mut [T]> = network.weights().filter_map(|c| of(c.from, c.to)).collect();
    weights.into_iter().chain(bias.iter_mut().map(|bias| &mut bias[..])).collect()
}
