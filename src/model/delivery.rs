//! Signals through connections: W·s of a connection, its transpose, and its derivative with respect to W.
//!
//! A connection of every neuron with every other delivers s·Wᵀ. A [convolution](super::convolution) delivers P(w ⋆ s)
//! from above and w̃ ⋆ P⁻¹(s) from below, where the windows have their [`Largest`] at the states of the layer above.
//! These are linear in s and in W as long as the largest stay where they are, which is how the rules and references
//! see them.

use super::{Connection, Parameters};
use candle_core::{D, Result, Tensor};

/// The places of the largest values in the windows of convolutions, by the layer that a convolution leads to.
#[derive(Clone, Debug, Default)]
pub struct Largest(Vec<Option<Tensor>>);

impl Largest {
    /// Those of the convolution that a connection is, or of which it is the way back.
    fn of(&self, connection: &Connection) -> Option<&Tensor> {
        self.0.get(connection.rate())?.as_ref()
    }

    fn set(&mut self, n: usize, largest: Option<Tensor>) {
        if self.0.len() <= n {
            self.0.resize(n + 1, None);
        }
        self.0[n] = largest;
    }
}

impl Parameters {
    /// The places of the largest values in the windows of all convolutions, given `rho`: ρ(s) of each layer and, if
    /// known, ρ(x).
    ///
    /// # Errors
    /// Only those of candle.
    pub fn largest(&self, rho: &[Tensor]) -> Result<Largest> {
        let mut largest = Largest::default();
        for n in 0..=self.depth() {
            self.find_largest(n, rho, &mut largest)?;
        }
        Ok(largest)
    }

    /// Finds the largest values of the convolution that leads to layer n, if there is one from a known layer and they
    /// are not there yet.
    pub(super) fn find_largest(&self, n: usize, rho: &[Tensor], largest: &mut Largest) -> Result<()> {
        if let (Some(convolution), Some(above)) = (self.network.convolution_into(n), rho.get(n + 1))
            && convolution.pool > 1
            && largest.0.get(n).is_none_or(Option::is_none)
        {
            largest.set(n, convolution.find_largest(&self.weights[n], above)?);
        }
        Ok(())
    }

    /// W·ρ of a connection, (…, B, d_to), from `rho`, ρ(s) of the layer that it leads from. One that leads downwards
    /// finds the largest of its windows and leaves them in `largest`; for one that leads upwards they are there.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn delivered(&self, c: &Connection, rho: &Tensor, largest: &mut Largest) -> Result<Tensor> {
        match c.convolution {
            Some(convolution) if c.is_forward() => {
                let (delivered, found) = convolution.deliver(&self.weights[c.weight], rho)?;
                largest.set(c.rate(), found);
                Ok(delivered)
            }
            _ => self.through(c, rho, largest),
        }
    }

    /// W·v of a connection, (B, d_to), with the largest of its windows where these are.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn through(&self, c: &Connection, v: &Tensor, largest: &Largest) -> Result<Tensor> {
        let (w, found) = (&self.weights[c.weight], largest.of(c));
        match c.convolution {
            None => v.matmul(&self.transposed(c)?),
            Some(convolution) if c.is_forward() => convolution.through(w, v, found),
            Some(convolution) => convolution.back_through(w, v, found),
        }
    }

    /// Wᵀ·v of a connection, (B, d_from), the same way.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn back_through(&self, c: &Connection, v: &Tensor, largest: &Largest) -> Result<Tensor> {
        let (w, found) = (&self.weights[c.weight], largest.of(c));
        match c.convolution {
            None => v.matmul(&self.transposed(c)?.t()?),
            Some(convolution) if c.is_forward() => convolution.back_through(w, v, found),
            Some(convolution) => convolution.through(w, v, found),
        }
    }

    /// b_n as what is added to each neuron, (…, d_n): that of its map where a convolution leads to the layer.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn bias(&self, n: usize) -> Result<Tensor> {
        let bias = &self.biases[n];
        match self.network.convolution_into(n) {
            None => Ok(bias.clone()),
            Some(convolution) => {
                let positions = self.network.dims.width(n) / convolution.channels;
                bias.unsqueeze(1)?.broadcast_as((convolution.channels, positions))?.flatten_all()
            }
        }
    }

    /// The transpose of [`Parameters::bias`]: what is added to each neuron, (…, d_n), as a change of b_n.
    ///
    /// # Errors
    /// Only those of candle.
    pub(crate) fn bias_of(&self, n: usize, neurons: Tensor) -> Result<Tensor> {
        match self.network.convolution_into(n) {
            None => Ok(neurons),
            Some(convolution) => neurons.reshape((convolution.channels, ()))?.sum(D::Minus1),
        }
    }
}

impl Connection {
    /// ∂(Σ rows·(W·columns))/∂W summed over the images: what these `rows` at its destination (B, d_to) and `columns`
    /// at its source (B, d_from) are as a change of its weight, rowsᵀ·columns where every neuron is connected with
    /// every other.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn outer(&self, rows: &Tensor, columns: &Tensor, largest: &Largest) -> Result<Tensor> {
        let found = largest.of(self);
        match self.convolution {
            None => rows.t()?.matmul(columns),
            Some(convolution) if self.is_forward() => convolution.outer(rows, columns, found),
            Some(convolution) => convolution.outer(columns, rows, found),
        }
    }
}
