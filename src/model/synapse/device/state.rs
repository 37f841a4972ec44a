//! What a law keeps for itself: the devices that it has made, and what has been done to them.

use super::super::Ledger;
use super::Tile;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// The seed, the devices of each array as far as they have been asked for, and the ledger. A copy makes its own devices,
/// which are the same, and counts from 0. It is no part of what a law is: all are equal.
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

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl State {
    /// Nothing made yet.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// What devices and pulses are drawn with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The `count` devices of the array of this number, made where it has not been asked for yet.
    pub fn tile(&self, number: usize, count: usize, made: impl FnOnce() -> Tile) -> Arc<Tile> {
        guard(&self.tiles).entry((number, count)).or_insert_with(|| Arc::new(made())).clone()
    }

    /// Adds what has been done to an array.
    pub fn count(&self, number: usize, done: Ledger) {
        let mut ledger = guard(&self.ledger);
        if ledger.len() <= number {
            ledger.resize(number + 1, Ledger::default());
        }
        ledger[number].pulses += done.pulses;
        ledger[number].moved += done.moved;
    }

    /// What has been done to all.
    pub fn ledger(&self) -> Vec<Ledger> {
        guard(&self.ledger).clone()
    }
}
