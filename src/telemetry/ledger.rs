//! The work of devices in an epoch, and its cost.

use super::metrics::Metrics;
use crate::config::{Asked, Config};
use crate::engine::Report;
use crate::model::synapse::device::Biases;
use crate::model::synapse::{Ledger, SynapseConfig};
use crate::model::{Model, Parameters};

/// Steps of an epoch, of all its images together. A step reads every array that leads into a layer that it updates,
/// once for each image; a tied weight is read from both sides.
struct Steps<'a> {
    config: &'a Config,
    model: Model,
    trained: &'a Report,
}

impl Steps<'_> {
    /// Steps of the second phases of all images that update these layers.
    fn second(&self, updates: impl Fn(usize) -> bool) -> f64 {
        let learning = &self.config.learning;
        let phases = if learning.rule.is_nudged() { learning.nudging.signs().len() } else { 0 };
        let steps = (0..learning.K).filter(|&t| updates(t)).count();
        (self.trained.images * phases * steps) as f64
    }

    /// Steps of both phases.
    fn all(&self) -> f64 {
        self.trained.steps as f64 + self.second(|_| true)
    }

    /// Those that update layer `n`.
    fn of_layer(&self, n: usize) -> f64 {
        let sweep = self.config.settle.order.sweep() as f64;
        self.trained.steps as f64 / sweep + self.second(|t| self.model.layers(t).contains(n))
    }
}

impl Metrics {
    /// Of each array of devices: pulses a synapse in the epoch, reads a synapse, and Σ|Δw| over the pulses by Σ|w −
    /// w'| over the minibatches; steps of both phases an image; and energy and latency an image, as far as `[cost]`
    /// knows them.
    pub fn push_ledger(&mut self, config: &Config, theta: &Parameters, ledger: &[Ledger], trained: &Report) {
        let SynapseConfig::Devices(law) = &config.synapse else { return };
        let steps = Steps { config, model: config.model(), trained };
        let reads_of = |weight: usize| -> f64 {
            let connections = theta.network.connections().iter().filter(|c| c.weight == weight);
            connections.map(|c| steps.of_layer(c.to)).sum()
        };
        let weights =
            theta.network.weights().map(|c| (c.name(), &theta.weights[c.weight], reads_of(c.weight)));
        let biases = theta.biases.iter().enumerate().filter(|_| law.biases == Biases::Device);
        let biases = biases.map(|(n, bias)| (format!("forward.{n}.bias"), bias, steps.of_layer(n)));
        let images = trained.images as f64;
        let mut asked = Asked { steps: steps.all() / images, ..Asked::default() };
        for ((name, tensor, reads), own) in weights.chain(biases).zip(ledger) {
            let synapses = tensor.elem_count() as f64;
            self.push(format!("pulses/{name}"), own.pulses as f64 / synapses);
            self.push(format!("reads/{name}"), reads);
            if own.net > 0.0 {
                self.push(format!("wasted/{name}"), own.moved / own.net);
            }
            asked.pulses += own.pulses as f64 / images;
            asked.reads += reads * synapses * law.devices_per_weight() as f64 / images;
            asked.slots = asked.slots.max(own.slots as f64 / images);
        }
        self.push("settle/both_phases", asked.steps);
        self.push("pulses/slots", asked.slots);
        for (tag, cost) in
            [("cost/energy", config.cost.energy(&asked)), ("cost/latency", config.cost.latency(&asked))]
        {
            cost.into_iter().for_each(|cost| self.push(tag, cost));
        }
    }
}
