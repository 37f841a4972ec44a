//! The layout of the kernel's work and numbers: the blocks that compute a network, and all that fits into their memory.
//!
//! The sizes are those of the structures in `phases.cu`, whose compiler checks that both agree.

/// The chip as the kernel sees it.
#[derive(Clone, Copy, Debug)]
pub struct Chip {
    /// Most memory that the threads of a block can share, bytes.
    pub memory: usize,
    /// Most blocks of a cluster.
    pub cluster: usize,
    /// Threads of a block.
    pub threads: usize,
}

impl Chip {
    /// Compute capability 9.0. Where clusters have more than 8 blocks, the kernel has to ask for it.
    pub const HOPPER: Chip = Chip { memory: 227 << 10, cluster: 16, threads: 512 };
}

/// The sizes on which everything else depends.
#[derive(Clone, Debug)]
pub(super) struct Sizes<'a> {
    /// d_0 to d_N.
    pub widths: &'a [usize],
    /// d_{N+1}.
    pub pixels: usize,
    /// B.
    pub images: usize,
    /// Arrays of a number for every own neuron and image that every step uses, and all of them.
    pub arrays: [usize; 2],
    /// The numbers that the rule puts aside during the second phase.
    pub aside: Aside,
    /// The differences that Anderson's acceleration uses, 0 where there is none.
    pub window: usize,
}

/// The numbers that a rule puts aside during the second phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aside {
    /// Nothing.
    Nothing,
    /// A sum for every weight between layers.
    Weights,
    /// Weights between layers, biases and the drive, as they were.
    Everything,
}

/// The place of a network in the blocks of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Blocks of a cluster.
    pub cluster: usize,
    /// Threads of a block.
    pub threads: usize,
    /// Arrays of own neurons that are in the memory of a block.
    pub on_chip: usize,
    /// Pixels that are worked on together.
    pub chunk: usize,
    /// Memory of a block, bytes.
    pub shared_bytes: usize,
    /// Numbers of a block in global memory.
    pub scratch: usize,
}

/// Pixels that are worked on together: as many as there is room for.
const CHUNKS: [usize; 3] = [256, 128, 64];

/// 16 bytes, which threads read at once.
const QUAD: usize = 4;

impl Layout {
    /// The smallest cluster that has room for what every step uses, or else the largest with as much of that as there
    /// is room for. Where there is too little memory, an error with the bytes that a block of that cluster needs.
    pub fn of(sizes: &Sizes, chip: &Chip) -> Result<Self, usize> {
        let clusters = || (0..).map(|power| 1 << power).take_while(|&cluster| cluster <= chip.cluster);
        let [hot, all] = sizes.arrays;
        let most = |cluster: usize, least: usize| -> Option<Self> {
            let choices = (least..=all).rev().flat_map(|on_chip| CHUNKS.map(|chunk| (on_chip, chunk)));
            let mut layouts =
                choices.map(|(on_chip, chunk)| Self::with(sizes, chip.threads, cluster, on_chip, chunk));
            layouts.find(|layout| layout.shared_bytes <= chip.memory)
        };
        let largest = clusters().last().unwrap_or(1);
        (clusters().find_map(|cluster| most(cluster, hot)))
            .or_else(|| most(largest, 0))
            .ok_or_else(|| Self::with(sizes, chip.threads, largest, 0, CHUNKS[2]).shared_bytes)
    }

    fn with(sizes: &Sizes, threads: usize, cluster: usize, on_chip: usize, chunk: usize) -> Self {
        let &Sizes { widths, pixels, images, arrays: [_, arrays], aside, window } = sizes;
        let owned = |n: usize| widths[n].div_ceil(cluster).next_multiple_of(QUAD);
        let (layers, last) = (widths.len(), widths.len() - 1);
        let own: usize = (0..layers).map(owned).sum();
        let rows: usize = widths.iter().map(|width| width.next_multiple_of(QUAD)).sum();
        let quads = images.div_ceil(QUAD);
        let stride = QUAD * (quads | 1);
        let above = (0..last).map(|n| widths[n + 1] * owned(n));
        let below = (1..layers).map(|n| widths[n - 1] * owned(n));
        let weights: usize = above.chain(below).sum();

        let bytes_of_image = 16 * (pixels.div_ceil(16) | 1);
        let of_input = 2 * (chunk * stride + chunk + pixels.div_ceil(32));
        let input = (2 * images * bytes_of_image + 4 * of_input).next_multiple_of(16);
        let states = 4 * rows * stride * if cluster == 1 { 2 } else { 1 };
        let next = if cluster == 1 { QUAD } else { own * stride };
        let own_arrays = on_chip.min(arrays) * own * stride + QUAD;
        let of_images = (4 + 2 + 4 + 2) * stride;
        let numbers = next + weights + own_arrays + QUAD * quads * stride + own + of_images;
        let aside = match aside {
            Aside::Nothing => 0,
            Aside::Weights => weights,
            Aside::Everything => weights + own + owned(last) * stride,
        };
        let of_mixer = 2 * (2 * (1 + 2 * window) + window + 1 + window.pow(2)) + 4;
        let history = if window == 0 { 0 } else { (2 + 2 * window) * own * stride + of_mixer * stride };
        Self {
            cluster,
            threads,
            on_chip,
            chunk,
            shared_bytes: states.max(input) + 4 * numbers,
            scratch: pixels * owned(last) + arrays.saturating_sub(on_chip) * own * stride + aside + history,
        }
    }
}
