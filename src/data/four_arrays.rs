//! Sets of four files that hold one array each: KMNIST's `kmnist-train-imgs.npz` and so on, and MNIST-C's
//! `test_images.npy` and so on.

use super::four::{Files, Kind, Sets};
use super::place::Place;
use super::{DataChoice, Dataset, Result, Source, npz, there};

/// Four files of one array each, or two to test on.
pub(super) struct FourArrays;

impl Source for FourArrays {
    fn has(&self, choice: DataChoice, place: Option<&Place>) -> bool {
        choice != DataChoice::Glyphs && chosen(place).is_some()
    }

    fn read(&self, choice: DataChoice, place: Option<&Place>) -> Result<Dataset> {
        let files = there(chosen(place))?;
        let [train, test] = files.read(npz::pair)?;
        Dataset::of_files(choice, there(place)?.given(), train, test)
    }
}

fn chosen(place: Option<&Place>) -> Option<Files> {
    Sets::in_place(place?, Kind::Arrays).chosen().cloned()
}
