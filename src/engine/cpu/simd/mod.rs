//! Sixteen numbers at a time, on whatever vector unit the CPU has, chosen at run time.
//!
//! A computation ([`Vectorized`]) is written once against [`Lanes`] and compiled for AVX-512, AVX2 and plain Rust.
//! Every function on the way from [`Simd::run`] to an intrinsic is `#[inline(always)]`, so that it is compiled with
//! the target features of the entry point it is reached from.
//!
//! Why not the crate `pulp`, which is in the tree already: its vectors are as wide as the machine's, eight numbers with
//! AVX2 and one in plain Rust, while sums here always have sixteen parts, so that AVX-512 and AVX2 give the same bits;
//! and σ needs rounding to whole numbers and powers of two, which its portable interface does not have.

/// A loop over the numbers from 0, in place of an iterator: where the compiler leaves a call of an iterator's method,
/// as in incremental builds, it writes all vectors to memory before it.
macro_rules! each {
    ($i:ident < $end:expr => $body:expr) => {
        let mut $i = 0;
        while $i < $end {
            $body;
            $i += 1;
        }
    };
    ($i:ident < $end:expr, $j:ident < $other:expr => $body:expr) => {
        $crate::engine::cpu::simd::each!($i < $end => { $crate::engine::cpu::simd::each!($j < $other => $body); })
    };
}
pub(super) use each;

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use candle_core::WithDType;
use portable::Portable;

/// The count of numbers in a [`Lanes`].
pub const WIDTH: usize = 16;

/// An element type the engine computes in: f32 or f64.
pub trait Real: WithDType + Default + Send + Sync + std::iter::Sum {
    /// Runs a computation with the vectors of `simd`; f64 has plain Rust only.
    fn run<C: Vectorized<Self>>(simd: Simd, computation: C);
}

/// A computation written for any [`Lanes`] of element type `T`.
pub trait Vectorized<T> {
    /// Computes. Implementations are `#[inline(always)]`.
    fn run<L: Lanes<Elem = T>>(self);
}

/// The number of [`Lanes`] that add up a product and stay in registers, beside what they need to do so.
#[derive(Clone, Copy)]
pub enum Room {
    /// 20, as with the 32 registers of 16 numbers of AVX-512.
    Twenty,
    /// 5, as with the 16 registers of 8 numbers of AVX2, or 32 of 4.
    Five,
    /// 2, as with 16 registers of 4 numbers, or 32 of 2.
    Two,
}

/// [`WIDTH`] numbers.
pub trait Lanes: Copy {
    /// Their type.
    type Elem: Real;
    /// The room in registers.
    const ROOM: Room;
    /// x in every lane.
    fn splat(x: Self::Elem) -> Self;
    /// x in every lane, from a constant.
    #[inline(always)]
    fn number(x: f64) -> Self {
        Self::splat(Self::Elem::from_f64(x))
    }
    /// Reads the lanes.
    fn load(from: &[Self::Elem; WIDTH]) -> Self;
    /// Writes the lanes.
    fn store(self, to: &mut [Self::Elem; WIDTH]);
    /// self·a + b, in one rounding where the CPU can.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// self + other.
    fn add(self, other: Self) -> Self;
    /// self − other.
    fn sub(self, other: Self) -> Self;
    /// self / other.
    fn div(self, other: Self) -> Self;
    /// The smaller of each pair.
    fn min(self, other: Self) -> Self;
    /// The larger of each pair.
    fn max(self, other: Self) -> Self;
    /// 1 where self ≤ other, else 0.
    fn le(self, other: Self) -> Self;
    /// exp(self), to about one unit in the last place.
    fn exp(self) -> Self;
}

/// Lanes of f32 that can build an exponential.
trait ExpParts: Lanes<Elem = f32> {
    /// The nearest whole number.
    fn round(self) -> Self;
    /// 2^self, for whole numbers from −126 to 127.
    fn exp2_whole(self) -> Self;
}

/// exp(x) = 2ⁿ·exp(r), n = round(x·log₂e), |r| ≤ ½ ln 2, exp(r) by the polynomial of Cephes' expf.
#[inline(always)]
fn exp_f32<L: ExpParts>(x: L) -> L {
    // NaN must stay NaN: min and max return the second operand where one is NaN.
    let x = L::splat(88.0).min(L::splat(-87.0).max(x));
    let zero = L::splat(0.0);
    let n = x.mul_add(L::splat(std::f32::consts::LOG2_E), zero).round();
    let r = n.mul_add(L::splat(-0.693_359_4), x);
    let r = n.mul_add(L::splat(2.121_944_4e-4), r);
    let mut p = L::splat(1.987_569_1e-4);
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5, 1.0, 1.0] {
        p = p.mul_add(r, L::splat(coefficient));
    }
    p.mul_add(n.exp2_whole(), zero)
}

/// A vector instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Whatever the compiler makes of plain Rust.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
}

impl Isa {
    /// The best this CPU has, no better than [`Isa::allowed`].
    pub fn detect() -> Isa {
        static DETECTED: std::sync::OnceLock<Isa> = std::sync::OnceLock::new();
        *DETECTED.get_or_init(|| Isa::allowed().unwrap_or(Isa::Avx512).min(Isa::native()))
    }

    /// The best that the environment variable `EQPROP_ISA` allows (`portable`, `avx2`, `avx512`), which exists
    /// to test the lesser ones.
    ///
    /// # Errors
    /// Where it is set to anything else.
    pub fn allowed() -> anyhow::Result<Isa> {
        match std::env::var_os("EQPROP_ISA").unwrap_or_default().to_str() {
            Some("portable") => Ok(Isa::Portable),
            Some("avx2") => Ok(Isa::Avx2),
            Some("avx512" | "") => Ok(Isa::Avx512),
            other => anyhow::bail!(
                "EQPROP_ISA = {:?} in the environment is no instruction set: use portable, avx2 or avx512, or \
                 leave it out",
                other.unwrap_or_default()
            ),
        }
    }

    /// The best this CPU has.
    #[cfg(target_arch = "x86_64")]
    pub fn native() -> Isa {
        let wide = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        let narrow = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        match (wide, narrow) {
            (true, true) => Isa::Avx512,
            (false, true) => Isa::Avx2,
            _ => Isa::Portable,
        }
    }

    /// The best this CPU has.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn native() -> Isa {
        Isa::Portable
    }
}

/// An instruction set that this CPU is known to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Simd(Isa);

impl Simd {
    /// This one; `None` where the CPU does not have it.
    pub fn new(isa: Isa) -> Option<Simd> {
        (isa <= Isa::native()).then_some(Simd(isa))
    }

    /// The one that [`Isa::detect`] chooses.
    pub fn detect() -> Simd {
        Simd(Isa::detect())
    }

    /// Runs a computation in f32 with it.
    #[inline]
    fn run<C: Vectorized<f32>>(self, computation: C) {
        match self.0 {
            // SAFETY: both ways to make a `Simd` have found these features in the CPU.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { x86::run_avx512(computation) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { x86::run_avx2(computation) },
            _ => computation.run::<Portable<f32>>(),
        }
    }
}

impl Real for f32 {
    #[inline]
    fn run<C: Vectorized<f32>>(simd: Simd, computation: C) {
        simd.run(computation);
    }
}

impl Real for f64 {
    #[inline]
    fn run<C: Vectorized<f64>>(_: Simd, computation: C) {
        computation.run::<Portable<f64>>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Exp<'a>(&'a mut [f32; WIDTH]);

    impl Vectorized<f32> for Exp<'_> {
        #[inline(always)]
        fn run<L: Lanes<Elem = f32>>(self) {
            L::load(self.0).exp().store(self.0);
        }
    }

    fn exp(simd: Simd, x: f32) -> [f32; WIDTH] {
        let mut lanes = [x; WIDTH];
        simd.run(Exp(&mut lanes));
        lanes
    }

    fn all() -> impl Iterator<Item = Simd> {
        [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().filter_map(Simd::new)
    }

    #[test]
    fn exponentials_are_exact_to_two_units_in_the_last_place() {
        for step in -7900..7900 {
            let x = step as f32 * 0.0109;
            let expected = f64::from(x).exp();
            for simd in all() {
                let got = exp(simd, x)[3];
                let error = (f64::from(got) - expected).abs() / expected;
                assert!(error < 2.4e-7, "{simd:?}: exp({x}) = {got}, not {expected}");
            }
        }
    }

    #[test]
    fn nan_stays_nan() {
        for simd in all() {
            assert!(exp(simd, f32::NAN).iter().all(|v| v.is_nan()), "{simd:?}");
        }
    }
}
