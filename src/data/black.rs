//! Images that are nearly all black, or all the same: nothing can be learnt from them, and training does not show
//! why.

use super::error::Parsed;

/// The form of pixels before a reader turned them into bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Before {
    /// Floats, of which this was the largest.
    Floats(f32),
    /// Sixteen bits, of which the lower eight are dropped.
    SixteenBits,
    /// With an alpha channel, which is dropped and was not the same everywhere.
    Alpha,
}

/// Checks that some pixel of a set is brighter than 1 of 255, and that not all pixels are equal.
///
/// # Errors
/// What the values are, and what to do about it.
pub(super) fn check(pixels: &[u8], before: Option<Before>) -> Parsed<()> {
    let Some(&first) = pixels.first() else { return Ok(()) };
    let same = pixels.iter().all(|&pixel| pixel == first);
    let dark = pixels.iter().all(|&pixel| pixel <= 1);
    let values = match (same, dark) {
        (false, false) => return Ok(()),
        (true, _) => format!("every pixel is {first} of 255"),
        (false, true) => "no pixel is brighter than 1 of 255".into(),
    };
    let remedy = match before {
        Some(Before::Alpha) => {
            "their content is in the alpha channel, which is left out: flatten the transparency onto a \
             background \
             of another colour"
                .into()
        }
        Some(Before::SixteenBits) if dark => {
            "white is 65535 in 16 bits, and these reach only 511: multiply them by 257, or save them with 8 \
             bits"
                .into()
        }
        Some(Before::Floats(largest)) if dark && largest > 0.0 => {
            format!(
                "white is 1, and the largest float is {largest}: were they divided by 255 twice? Divide once"
            )
        }
        _ if same => "check how they were written".into(),
        _ => "if 1 is to be white, multiply them by 255, or store them as bool in an .npz".into(),
    };
    Err(format!("the images cannot be told apart, since {values}: {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pixel_that_is_brighter_is_enough() {
        let mut pixels = vec![0; 100];
        pixels[99] = 2;
        for before in
            [None, Some(Before::Alpha), Some(Before::SixteenBits), Some(Before::Floats(2.0 / 255.0))]
        {
            assert_eq!(check(&pixels, before), Ok(()));
        }
        assert_eq!(check(&[254, 255], None), Ok(()));
        assert_eq!(check(&[], None), Ok(()));
    }

    #[test]
    fn each_way_to_be_black_has_its_remedy() {
        for (pixels, before, values, remedy) in [
            ([0, 1], None, "no pixel is brighter than 1", "multiply them by 255"),
            ([0, 0], None, "every pixel is 0", "how they were written"),
            ([7, 7], None, "every pixel is 7", "how they were written"),
            ([255, 255], Some(Before::Alpha), "every pixel is 255", "flatten"),
            ([0, 1], Some(Before::Alpha), "no pixel", "flatten"),
            ([0, 0], Some(Before::SixteenBits), "every pixel is 0", "by 257"),
            ([9, 9], Some(Before::SixteenBits), "every pixel is 9", "how they were written"),
            ([0, 1], Some(Before::Floats(1.0 / 255.0)), "no pixel", "largest float is 0.003921569"),
            ([0, 0], Some(Before::Floats(0.0)), "every pixel is 0", "how they were written"),
        ] {
            let error = check(&pixels, before).unwrap_err();
            assert!(error.contains(values) && error.contains(remedy), "{error}");
        }
    }
}
