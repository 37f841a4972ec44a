//! Sixteen numbers at a time, on whatever vector unit the CPU has, chosen at run time.
//!
//! A [`Kernel`] is written once against [`Lanes`] and compiled for AVX-512, AVX2 and plain Rust.
//! Every function on the way from [`Real::dispatch`] to an intrinsic is `#[inline(always)]`, so that
//! it is compiled with the target features of the entry point it is reached from.

use candle_core::WithDType;
use std::array;

/// How many numbers a [`Lanes`] holds.
pub const WIDTH: usize = 16;

/// An element type the engine computes in: f32 or f64.
pub trait Real: WithDType + Default + Send + Sync + std::iter::Sum {
    /// Runs `kernel` with the widest vectors this CPU has.
    fn dispatch<K: Kernel<Self>>(kernel: K);
}

/// A computation written for any [`Lanes`] of element type `T`.
pub trait Kernel<T> {
    /// Does it. Implementations are `#[inline(always)]`.
    fn run<L: Lanes<Elem = T>>(self);
}

/// [`WIDTH`] numbers.
pub trait Lanes: Copy {
    /// Their type.
    type Elem: Real;
    /// Whether there are registers for 20 accumulators, or for 10 of half the width.
    const MANY_REGISTERS: bool;
    /// x in every lane.
    fn splat(x: Self::Elem) -> Self;
    /// Reads [`WIDTH`] numbers.
    ///
    /// # Safety
    /// They must be readable at `from`.
    unsafe fn load(from: *const Self::Elem) -> Self;
    /// Writes [`WIDTH`] numbers.
    ///
    /// # Safety
    /// They must be writable at `to`.
    unsafe fn store(self, to: *mut Self::Elem);
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
    // NaN must stay NaN: of two operands, min and max return the second where one is NaN.
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

/// Plain Rust, any element type, for CPUs without AVX2 and for f64.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct Portable<T>([T; WIDTH]);

macro_rules! portable {
    ($t:ty, $exp:expr) => {
        impl Lanes for Portable<$t> {
            type Elem = $t;
            const MANY_REGISTERS: bool = false;
            #[inline(always)]
            fn splat(x: $t) -> Self {
                Self([x; WIDTH])
            }
            #[inline(always)]
            unsafe fn load(from: *const $t) -> Self {
                Self(unsafe { from.cast::<[$t; WIDTH]>().read_unaligned() })
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $t) {
                unsafe { to.cast::<[$t; WIDTH]>().write_unaligned(self.0) }
            }
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                Self(array::from_fn(|i| self.0[i] * a.0[i] + b.0[i]))
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                Self(array::from_fn(|i| self.0[i] + other.0[i]))
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                Self(array::from_fn(|i| self.0[i] - other.0[i]))
            }
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                Self(array::from_fn(|i| self.0[i] / other.0[i]))
            }
            #[inline(always)]
            fn min(self, other: Self) -> Self {
                Self(array::from_fn(|i| if self.0[i] < other.0[i] { self.0[i] } else { other.0[i] }))
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                Self(array::from_fn(|i| if self.0[i] > other.0[i] { self.0[i] } else { other.0[i] }))
            }
            #[inline(always)]
            fn le(self, other: Self) -> Self {
                Self(array::from_fn(|i| if self.0[i] <= other.0[i] { 1.0 } else { 0.0 }))
            }
            #[inline(always)]
            fn exp(self) -> Self {
                $exp(self)
            }
        }
    };
}

portable!(f32, exp_f32);
portable!(f64, |x: Portable<f64>| Portable(x.0.map(f64::exp)));

impl ExpParts for Portable<f32> {
    #[inline(always)]
    fn round(self) -> Self {
        // Adding and subtracting 1.5·2²³ rounds to the nearest whole number.
        const SHIFT: f32 = 12_582_912.0;
        Self(array::from_fn(|i| (self.0[i] + SHIFT) - SHIFT))
    }
    #[inline(always)]
    fn exp2_whole(self) -> Self {
        Self(array::from_fn(|i| f32::from_bits(((self.0[i] as i32 + 127) as u32) << 23)))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{ExpParts, Lanes, exp_f32};
    use std::arch::x86_64::*;

    /// One 512-bit register.
    #[derive(Clone, Copy)]
    pub struct Avx512(__m512);

    /// Two 256-bit registers.
    #[derive(Clone, Copy)]
    pub struct Avx2(__m256, __m256);

    // SAFETY (both impls): values of these types are only made by kernels entered through
    // `Real::dispatch`, which has checked that the CPU has the instructions.
    impl Lanes for Avx512 {
        type Elem = f32;
        const MANY_REGISTERS: bool = true;
        #[inline(always)]
        fn splat(x: f32) -> Self {
            Self(unsafe { _mm512_set1_ps(x) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Self(unsafe { _mm512_loadu_ps(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        fn mul_add(self, a: Self, b: Self) -> Self {
            Self(unsafe { _mm512_fmadd_ps(self.0, a.0, b.0) })
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            Self(unsafe { _mm512_sub_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn div(self, other: Self) -> Self {
            Self(unsafe { _mm512_div_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn min(self, other: Self) -> Self {
            Self(unsafe { _mm512_min_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            Self(unsafe { _mm512_max_ps(self.0, other.0) })
        }
        #[inline(always)]
        fn le(self, other: Self) -> Self {
            unsafe {
                let mask = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(self.0, other.0);
                Self(_mm512_maskz_mov_ps(mask, _mm512_set1_ps(1.0)))
            }
        }
        #[inline(always)]
        fn exp(self) -> Self {
            exp_f32(self)
        }
    }

    impl ExpParts for Avx512 {
        #[inline(always)]
        fn round(self) -> Self {
            const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
            Self(unsafe { _mm512_roundscale_ps::<NEAREST>(self.0) })
        }
        #[inline(always)]
        fn exp2_whole(self) -> Self {
            Self(unsafe { _mm512_scalef_ps(_mm512_set1_ps(1.0), self.0) })
        }
    }

    impl Lanes for Avx2 {
        type Elem = f32;
        const MANY_REGISTERS: bool = false;
        #[inline(always)]
        fn splat(x: f32) -> Self {
            let x = unsafe { _mm256_set1_ps(x) };
            Self(x, x)
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe {
                _mm256_storeu_ps(to, self.0);
                _mm256_storeu_ps(to.add(8), self.1);
            }
        }
        #[inline(always)]
        fn mul_add(self, a: Self, b: Self) -> Self {
            unsafe { Self(_mm256_fmadd_ps(self.0, a.0, b.0), _mm256_fmadd_ps(self.1, a.1, b.1)) }
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            unsafe { Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
        }
        #[inline(always)]
        fn div(self, other: Self) -> Self {
            unsafe { Self(_mm256_div_ps(self.0, other.0), _mm256_div_ps(self.1, other.1)) }
        }
        #[inline(always)]
        fn min(self, other: Self) -> Self {
            unsafe { Self(_mm256_min_ps(self.0, other.0), _mm256_min_ps(self.1, other.1)) }
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            unsafe { Self(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
        }
        #[inline(always)]
        fn le(self, other: Self) -> Self {
            unsafe {
                let one = _mm256_set1_ps(1.0);
                let low = _mm256_cmp_ps::<_CMP_LE_OQ>(self.0, other.0);
                let high = _mm256_cmp_ps::<_CMP_LE_OQ>(self.1, other.1);
                Self(_mm256_and_ps(low, one), _mm256_and_ps(high, one))
            }
        }
        #[inline(always)]
        fn exp(self) -> Self {
            exp_f32(self)
        }
    }

    impl ExpParts for Avx2 {
        #[inline(always)]
        fn round(self) -> Self {
            const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
            unsafe { Self(_mm256_round_ps::<NEAREST>(self.0), _mm256_round_ps::<NEAREST>(self.1)) }
        }
        #[inline(always)]
        fn exp2_whole(self) -> Self {
            unsafe { Self(exp2_half(self.0), exp2_half(self.1)) }
        }
    }

    #[inline(always)]
    unsafe fn exp2_half(n: __m256) -> __m256 {
        unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub fn run_avx512<K: super::Kernel<f32>>(kernel: K) {
        kernel.run::<Avx512>();
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn run_avx2<K: super::Kernel<f32>>(kernel: K) {
        kernel.run::<Avx2>();
    }
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

    /// Runs `kernel` with this.
    ///
    /// # Safety
    /// The CPU must have it: no more than [`Isa::native`].
    #[inline]
    pub unsafe fn run<K: Kernel<f32>>(self, kernel: K) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { x86::run_avx512(kernel) },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { x86::run_avx2(kernel) },
            _ => kernel.run::<Portable<f32>>(),
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

impl Real for f32 {
    #[inline]
    fn dispatch<K: Kernel<f32>>(kernel: K) {
        // SAFETY: `detect` has found the features.
        unsafe { Isa::detect().run(kernel) }
    }
}

impl Real for f64 {
    #[inline]
    fn dispatch<K: Kernel<f64>>(kernel: K) {
        kernel.run::<Portable<f64>>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Exp<'a>(&'a mut [f32; WIDTH]);

    impl Kernel<f32> for Exp<'_> {
        #[inline(always)]
        fn run<L: Lanes<Elem = f32>>(self) {
            unsafe { L::load(self.0.as_ptr()).exp().store(self.0.as_mut_ptr()) }
        }
    }

    #[test]
    fn exponentials_are_exact_to_two_units_in_the_last_place() {
        for step in -7900..7900 {
            let x = step as f32 * 0.0109;
            let expected = f64::from(x).exp();
            let mut native = [x; WIDTH];
            f32::dispatch(Exp(&mut native));
            let mut portable = [x; WIDTH];
            Exp(&mut portable).run::<Portable<f32>>();
            for got in [native[3], portable[5]] {
                let error = (f64::from(got) - expected).abs() / expected;
                assert!(error < 2.4e-7, "exp({x}) = {got}, not {expected}");
            }
        }
    }

    #[test]
    fn nan_stays_nan() {
        let mut x = [f32::NAN; WIDTH];
        f32::dispatch(Exp(&mut x));
        assert!(x.iter().all(|v| v.is_nan()));
        let mut x = [f32::NAN; WIDTH];
        Exp(&mut x).run::<Portable<f32>>();
        assert!(x.iter().all(|v| v.is_nan()));
    }
}
