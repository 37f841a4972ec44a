//! The stand-in for the hub in a build without it.

use super::{DataChoice, Dataset, Error, Place, Result, Source};

pub(super) struct Hub;

impl Source for Hub {
    fn has(&self, choice: DataChoice, place: Option<&Place>) -> bool {
        place.is_none() && choice != DataChoice::Glyphs
    }

    fn read(&self, _: DataChoice, _: Option<&Place>) -> Result<Dataset> {
        Err(Error::Unavailable {
            problem: "the data set is in no folder here, and this eqprop was built without the feature `hub`: give a \
                      folder with its four IDX files by --data-dir or EQPROP_DATA"
                .into(),
            source: None,
        })
    }
}
