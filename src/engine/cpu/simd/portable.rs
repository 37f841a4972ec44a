//! Sixteen numbers in plain Rust: f64, and f32 on CPUs without AVX2.

use super::{ExpParts, Lanes, Room, WIDTH, exp_f32};

/// Numbers of any type, for the compiler to make vectors of.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct Portable<T>([T; WIDTH]);

/// An expression for every lane `i`, in a loop that the compiler makes vectors of.
macro_rules! lanes {
    ($self:ident, $i:ident => $lane:expr) => {{
        let mut lanes = $self.0;
        each!($i < WIDTH => lanes[$i] = $lane);
        Self(lanes)
    }};
}

macro_rules! portable {
    ($t:ty, $room:expr, $exp:expr) => {
        impl Lanes for Portable<$t> {
            type Elem = $t;
            const ROOM: Room = $room;
            #[inline(always)]
            fn splat(x: $t) -> Self {
                Self([x; WIDTH])
            }
            #[inline(always)]
            fn load(from: &[$t; WIDTH]) -> Self {
                Self(*from)
            }
            #[inline(always)]
            fn store(self, to: &mut [$t; WIDTH]) {
                *to = self.0;
            }
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                lanes!(self, i => self.0[i] * a.0[i] + b.0[i])
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                lanes!(self, i => self.0[i] + other.0[i])
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                lanes!(self, i => self.0[i] - other.0[i])
            }
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                lanes!(self, i => self.0[i] / other.0[i])
            }
            #[inline(always)]
            fn min(self, other: Self) -> Self {
                lanes!(self, i => if self.0[i] < other.0[i] { self.0[i] } else { other.0[i] })
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                lanes!(self, i => if self.0[i] > other.0[i] { self.0[i] } else { other.0[i] })
            }
            #[inline(always)]
            fn le(self, other: Self) -> Self {
                lanes!(self, i => if self.0[i] <= other.0[i] { 1.0 } else { 0.0 })
            }
            #[inline(always)]
            fn exp(self) -> Self {
                $exp(self)
            }
        }
    };
}

// SSE2 has half the registers of other CPUs.
const SSE2: bool = cfg!(target_arch = "x86_64");

portable!(f32, if SSE2 { Room::Two } else { Room::Five }, exp_f32);
portable!(f64, Room::Five, |x: Portable<f64>| Portable(x.0.map(f64::exp)));

impl ExpParts for Portable<f32> {
    #[inline(always)]
    fn round(self) -> Self {
        // Adding and subtracting 1.5·2²³ rounds to the nearest whole number.
        const SHIFT: f32 = 12_582_912.0;
        lanes!(self, i => (self.0[i] + SHIFT) - SHIFT)
    }
    #[inline(always)]
    fn exp2_whole(self) -> Self {
        lanes!(self, i => f32::from_bits(((self.0[i] as i32 + 127) as u32) << 23))
    }
}
