//! Numbers that every version must draw: a dependency that changes them would change every published result.

use eqprop::data::glyphs;
use eqprop::rng::{self, Purpose, stream};
use rand::RngCore;

/// The first number of each stream, of item 0 and of item 5, under seed 3.
const FIRST: [(Purpose, u64, u64); 8] = [
    (Purpose::Weights, 11_491_721_373_609_159_005, 3_818_112_416_865_625_723),
    (Purpose::SignMask, 11_014_445_870_399_385_551, 4_245_079_878_325_378_078),
    (Purpose::Shuffle, 14_595_878_400_187_120_391, 4_664_807_573_464_304_485),
    (Purpose::BetaSign, 7_138_405_213_094_370_679, 5_876_100_967_672_526_453),
    (Purpose::Glyphs, 3_365_988_167_317_156_835, 8_640_626_101_934_134_767),
    (Purpose::Angle, 7_550_958_434_002_823_125, 10_045_303_972_826_839_713),
    (Purpose::Figure, 13_786_412_236_629_780_939, 7_237_685_567_802_109_258),
    (Purpose::Validation, 13_766_263_542_213_186_322, 4_488_931_738_997_839_046),
];

#[test]
fn every_stream_begins_as_ever() {
    let drawn = FIRST
        .map(|(purpose, ..)| (purpose, stream(3, purpose, 0).next_u64(), stream(3, purpose, 5).next_u64()));
    assert_eq!(drawn, FIRST);
}

#[test]
fn what_is_drawn_from_them_is_as_ever() {
    assert_eq!(rng::permutation(3, 1, 10), [7, 9, 8, 1, 6, 2, 5, 3, 0, 4]);
    let signs: String = (0..24).map(|m| if rng::beta_sign(3, m) > 0.0 { '+' } else { '-' }).collect();
    let uniform = rng::uniform(&mut stream(3, Purpose::Weights, 0), 1.0, 3);
    let (held, _) = rng::hold_out(3, 10, 3);
    assert_eq!(
        (signs.as_str(), uniform, held),
        (
            "-++---+++-+--+++-+++--++",
            vec![0.2459349278865155, -0.8373966055740854, -0.35438867429465226],
            vec![0, 2, 5]
        )
    );
}

#[test]
fn glyphs_are_the_same_images_as_ever() {
    let sums = glyphs::dataset().checksums;
    let expected = [
        ("test.images", "cf67501bf12bedbe4da9c8377524377fcb8d73b0760cbfd98829cfaa3b72e858"),
        ("test.labels", "b6a77047b64bf9532e6e81a2de718eb27cec65806cfc4fe453e3c026d7c6a713"),
        ("train.images", "8864941be3a66f6f5648fa43f740e29c94636b534e476eecda4685611f286477"),
        ("train.labels", "790c8e217ae951c48d7b6d32729314d7bfab8f96d0009b8ff69a4912f0955450"),
    ];
    assert_eq!(sums, expected.map(|(part, sum)| (part.to_string(), sum.to_string())).into());
}
