//! The state of a law: the devices that it has made, and the totals of their changes.

use super::super::Ledger;
use super::Tile;
use crate::base::panic::guard;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// The seed, the devices of each array that has been used, and the ledger. A copy makes its own devices, which are
/// the same, and counts from 0. The state is no part of a law's identity: all are equal.
#[derive(Debug, Default)]
pub struct State {
    seed: u64,
    tiles: Mutex<HashMap<(usize, usize), Arc<Tile>>>,
    ledger: Mutex<Vec<Ledger>>,
}

impl Clone for State {
    fn clone(&self) -> Self {
        Self::seeded(self.seed)
    }
}

impl PartialEq for State {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl State {
    /// The state before any device is made.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// The seed of devices and pulses.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The `count` devices of the array of this number, made on first use.
    pub fn tile(&self, number: usize, count: usize, made: impl FnOnce() -> Tile) -> Arc<Tile> {
        guard(&self.tiles).entry((number, count)).or_insert_with(|| Arc::new(made())).clone()
    }

    /// Adds to the totals of an array.
    pub fn count(&self, number: usize, done: Ledger) {
        let mut ledger = guard(&self.ledger);
        if ledger.len() <= number {
            ledger.resize(number + 1, Ledger::default());
        }
        ledger[number].add(&done);
    }

    /// The totals of all arrays.
    pub fn book(&self) -> MutexGuard<'_, Vec<Ledger>> {
        guard(&self.ledger)
    }
}
