//! Sixteen f32 in one register of AVX-512, or in two of AVX2.

use super::{ExpParts, Lanes, Room, Vectorized, WIDTH, exp_f32};
use std::arch::x86_64::*;

/// Intrinsics, in the place of an `unsafe` block at each of them.
macro_rules! avx {
    ($($intrinsics:tt)*) => {
        // SAFETY: the CPU has the instructions. Only `Simd::run` enters a computation with the types of this module,
        // through `run_avx512` or `run_avx2`, and the `Simd` for it exists only where they are there. What is read
        // and written lies within references to WIDTH numbers.
        unsafe { $($intrinsics)* }
    };
}

/// One 512-bit register.
#[derive(Clone, Copy)]
pub struct Avx512(__m512);

/// Two 256-bit registers.
#[derive(Clone, Copy)]
pub struct Avx2(__m256, __m256);

impl Lanes for Avx512 {
    type Elem = f32;
    const ROOM: Room = Room::Twenty;
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self(avx!(_mm512_set1_ps(x)))
    }
    #[inline(always)]
    fn load(from: &[f32; WIDTH]) -> Self {
        Self(avx!(_mm512_loadu_ps(from.as_ptr())))
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; WIDTH]) {
        avx!(_mm512_storeu_ps(to.as_mut_ptr(), self.0))
    }
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        Self(avx!(_mm512_fmadd_ps(self.0, a.0, b.0)))
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(avx!(_mm512_add_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(avx!(_mm512_sub_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Self(avx!(_mm512_div_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(avx!(_mm512_min_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(avx!(_mm512_max_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn le(self, other: Self) -> Self {
        avx! {
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
        Self(avx!(_mm512_roundscale_ps::<NEAREST>(self.0)))
    }
    #[inline(always)]
    fn exp2_whole(self) -> Self {
        Self(avx!(_mm512_scalef_ps(_mm512_set1_ps(1.0), self.0)))
    }
}

impl Lanes for Avx2 {
    type Elem = f32;
    const ROOM: Room = Room::Five;
    #[inline(always)]
    fn splat(x: f32) -> Self {
        let x = avx!(_mm256_set1_ps(x));
        Self(x, x)
    }
    #[inline(always)]
    fn load(from: &[f32; WIDTH]) -> Self {
        avx!(Self(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))))
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; WIDTH]) {
        avx! {
            _mm256_storeu_ps(to.as_mut_ptr(), self.0);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), self.1);
        }
    }
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        avx!(Self(_mm256_fmadd_ps(self.0, a.0, b.0), _mm256_fmadd_ps(self.1, a.1, b.1)))
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        avx!(Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        avx!(Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)))
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        avx!(Self(_mm256_div_ps(self.0, other.0), _mm256_div_ps(self.1, other.1)))
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        avx!(Self(_mm256_min_ps(self.0, other.0), _mm256_min_ps(self.1, other.1)))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        avx!(Self(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)))
    }
    #[inline(always)]
    fn le(self, other: Self) -> Self {
        avx! {
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
        avx!(Self(_mm256_round_ps::<NEAREST>(self.0), _mm256_round_ps::<NEAREST>(self.1)))
    }
    #[inline(always)]
    fn exp2_whole(self) -> Self {
        Self(exp2_half(self.0), exp2_half(self.1))
    }
}

#[inline(always)]
fn exp2_half(n: __m256) -> __m256 {
    avx! {
        let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub fn run_avx512<C: Vectorized<f32>>(computation: C) {
    computation.run::<Avx512>();
}

#[target_feature(enable = "avx2,fma")]
pub fn run_avx2<C: Vectorized<f32>>(computation: C) {
    computation.run::<Avx2>();
}
