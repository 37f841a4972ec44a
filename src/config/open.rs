//! Sizes that `network.dims` leaves to the data: `["auto", 512, "auto"]`. In [`Dims`] they are 0.

use crate::model::Dims;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::num::NonZeroUsize;

/// A size as it is written.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "a size is a number of neurons above 0, or \"auto\"")]
enum Size {
    Given(NonZeroUsize),
    Open(Auto),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Auto {
    Auto,
}

/// Writes sizes.
pub fn serialize<S: Serializer>(dims: &Dims, serializer: S) -> Result<S::Ok, S::Error> {
    let size = |&size: &usize| NonZeroUsize::new(size).map_or(Size::Open(Auto::Auto), Size::Given);
    serializer.collect_seq(dims.0.iter().map(size))
}

/// Reads sizes.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Dims, D::Error> {
    let sizes = Vec::<Size>::deserialize(deserializer)?;
    let size = |size| match size {
        Size::Given(size) => size.get(),
        Size::Open(Auto::Auto) => 0,
    };
    Ok(Dims(sizes.into_iter().map(size).collect()))
}

/// True where the size of input or output is left to the data.
pub fn is_open(dims: &Dims) -> bool {
    [dims.0.first(), dims.0.last()].contains(&Some(&0))
}

/// The sizes with those of the data where they were left to it.
pub fn filled(dims: &Dims, inputs: usize, outputs: usize) -> Dims {
    let mut dims = dims.clone();
    if let [input @ 0, ..] = &mut dims.0[..] {
        *input = inputs;
    }
    if let [.., output @ 0] = &mut dims.0[..] {
        *output = outputs;
    }
    dims
}
