// Both phases of many minibatches, one after another, through a chain of layers in discrete time (E.2, E.4): the same
// as `Model::settle` and `Lesson::learn`, in float32. A network is computed by a cluster of CLUSTER blocks, and its
// weights stay on the chip from the first minibatch to the last; only those from the input are too large for that and
// lie in global memory, where they are read and written once a minibatch.
//
// Each block owns a share of the neurons of every layer. It holds the weights that lead into its own neurons, in both
// directions (so tied weights are there twice, and stay the same bits), and the states of all neurons. After a step
// the blocks tell each other the new states of their own neurons, through the shared memory of the cluster.
//
// Layers are numbered as in the paper: 0 is the output, LAST the last hidden layer, and LAST + 1 the input. k counts
// the neurons of a layer, j a block's own neurons of a layer, i the images. Threads compute tiles of 4 × 4 numbers,
// loops over which are unrolled, so that they stay in registers.
//
// Given by the compiler:
//   LAYERS, WIDTHS        the count of layers without the input, and d_0, d_1, …; PIXELS is d_{N+1}
//   IMAGES                B
//   RULE, SIGMA_PRIME, CENTERED, RATES, TINY    the rule; RATES are η_n/B, or half of that where the nudge is centered
//   LAST_BIAS_FROZEN      1 where the bias of the last hidden layer does not learn
//   SWEEPS, ORDER, TOLERANCE, LOOK_EVERY, DAMPING, SECOND_STEPS, ACTIVATION    the two phases
//   WINDOW                the window of Anderson's acceleration, 0 where sweeps are not accelerated
//   CLUSTER, THREADS, ON_CHIP, CHUNK, SHARED_BYTES, SCRATCH    how the work is laid out, see cuda/mod.rs

enum { EP, CEP, CEP_RESCALED, VF, CVF };
enum { SIGMOID, TANH, HARD_SIGMOID };
enum { IGNORED, PARTIAL, FULL };
enum { SYNCHRONOUS, ALTERNATING };

#define UNROLL _Pragma("unroll")
#define CONSTANT __host__ __device__ constexpr
#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__

constexpr bool TIED = RULE == EP || RULE == CEP || RULE == CEP_RESCALED;
// Weights change during the second phase.
constexpr bool CONTINUAL = RULE == CEP || RULE == CEP_RESCALED || RULE == CVF;
// The products of the states after the phase and before it make one update.
constexpr bool WHOLE = RULE == EP || RULE == CEP_RESCALED;
constexpr bool GATED = SIGMA_PRIME != IGNORED;
constexpr int LAST = LAYERS - 1;
constexpr int BRANCHES = CENTERED ? 2 : 1;
constexpr int HALF_STEPS = ORDER == ALTERNATING ? 2 : 1;
// The share of its learning rate with which a continual rule learns during the second phase.
constexpr float DURING = RULE == CEP_RESCALED ? TINY : 1.0f;

CONSTANT int rounded_up(int count, int unit) { return (count + unit - 1) / unit * unit; }
CONSTANT int smaller(int a, int b) { return a < b ? a : b; }
CONSTANT int width(int n) {
  const int widths[] = {WIDTHS};
  return n > LAST ? PIXELS : widths[n];
}
CONSTANT float rate(int n) {
  const float rates[] = {RATES};
  return rates[n];
}

// Neurons of layer n that a block owns, at most; whole tiles.
CONSTANT int owned(int n) { return rounded_up((width(n) + CLUSTER - 1) / CLUSTER, 4); }
// The first row of layer n among the rows of all own neurons, and among the rows of all neurons.
CONSTANT int own_row(int n) { return n == 0 ? 0 : own_row(n - 1) + owned(n - 1); }
CONSTANT int row(int n) { return n == 0 ? 0 : row(n - 1) + rounded_up(width(n - 1), 4); }
constexpr int OWN = own_row(LAYERS);
constexpr int ROWS = row(LAYERS);
// Tiles of a row that hold images, and the distance between rows: an odd count of 16 bytes, so that neighbouring rows
// begin in different banks.
constexpr int QUADS = (IMAGES + 3) / 4;
constexpr int STRIDE = 4 * (QUADS | 1);

// Where the weights from layer `from` into own neurons of the next layer n begin, (d_from, owned(n)); first all that
// lead from above, then all from below.
CONSTANT int weights_from_above(int n) { return n == 0 ? 0 : weights_from_above(n - 1) + width(n) * owned(n - 1); }
CONSTANT int weights_from_below(int n) {
  return n == 1 ? weights_from_above(LAST) : weights_from_below(n - 1) + width(n - 2) * owned(n - 1);
}
CONSTANT int weights_at(int n, int from) { return from > n ? weights_from_above(n) : weights_from_below(n); }
constexpr int WEIGHTS = weights_from_below(LAYERS);

// Where the weight of a layer from above, from below and its bias begin in θ: forward.0 …, feedback.0 …, biases.
CONSTANT int forward_in_theta(int n) { return n == 0 ? 0 : forward_in_theta(n - 1) + width(n - 1) * width(n); }
CONSTANT int feedback_in_theta(int n) {
  return n == 1 ? forward_in_theta(LAYERS) : feedback_in_theta(n - 1) + width(n - 2) * width(n - 1);
}
CONSTANT int bias_in_theta(int n) {
  return n == 0 ? (TIED ? forward_in_theta(LAYERS) : feedback_in_theta(LAYERS)) : bias_in_theta(n - 1) + width(n - 1);
}
constexpr int PARAMETERS = bias_in_theta(LAYERS);

// Numbers for every own neuron and image, of which as many as fit are on the chip and the others in scratch:
// the drive u_t of layer LAST; the sum of c·Δs so far, gated for the connections from above, in whose place the first
// phase has the states a sweep before; Δs of this step, gated for connections from above and from below; s_*; and where
// the first of two branches ended.
enum { DRIVE, DRIFT, DELTA };
constexpr int BEFORE = DRIFT;
constexpr int DELTA_FROM_BELOW = SIGMA_PRIME == PARTIAL ? DELTA + 1 : DELTA;
constexpr int STAR = !GATED ? DELTA : DELTA_FROM_BELOW + 1;
constexpr int END = STAR + (WHOLE || CENTERED);
constexpr int ARRAYS = END + (WHOLE && CENTERED);

// Scratch of a block: weights from the input (d_{N+1}, owned(LAST)), arrays that are not on the chip, and what a rule
// puts aside during the second phase: VF the sum of its updates, Algorithm 5 weights, biases and drive as they were.
constexpr int ARRAYS_AT = PIXELS * owned(LAST);
constexpr int ASIDE_AT = ARRAYS_AT + (ARRAYS > ON_CHIP ? ARRAYS - ON_CHIP : 0) * OWN * STRIDE;
// Anderson's acceleration: f and G(s) of the last sweep and the differences Δf_j and ΔG_j, of own neurons; then numbers
// of each image in float64: inner products of own neurons and of all, γ, ‖f‖², Δf_i·Δf_j; and counts.
constexpr int HISTORY_AT =
    ASIDE_AT + (RULE == VF ? WEIGHTS : RULE == CEP_RESCALED ? WEIGHTS + OWN + owned(LAST) * STRIDE : 0);
constexpr int SUMS = 1 + 2 * WINDOW;
constexpr int MIXER_AT = HISTORY_AT + (WINDOW > 0 ? 2 + 2 * WINDOW : 0) * OWN * STRIDE;
constexpr int SCRATCH_USED =
    MIXER_AT + (WINDOW > 0 ? 2 * (2 * SUMS + WINDOW + 1 + WINDOW * WINDOW) * STRIDE + 4 * STRIDE : 0);
static_assert(SCRATCH_USED == SCRATCH, "the launch code has another idea of the scratch of a block");

// The distance between the bytes of two images: an odd count of 16 bytes.
constexpr int BYTES = 16 * ((PIXELS + 15) / 16 | 1);
constexpr int GROUPS = (PIXELS + 31) / 32;
// Bytes that are copied at once.
template <bool many> struct Piece { using Bytes = unsigned char; };
template <> struct Piece<true> { using Bytes = uint4; };
using Bytes = Piece<PIXELS % 16 == 0>::Bytes;
constexpr int PIECE = sizeof(Bytes);

// The images of two minibatches, the one just learnt and the next.
struct alignas(16) Input {
  unsigned char bytes[2][IMAGES][BYTES];
  float x[2][CHUNK][STRIDE];     // x of the active pixels among CHUNK: those that are not black in all images
  unsigned active[2][CHUNK];     // their numbers
  unsigned groups[2][GROUPS];    // a bit for each of 32 pixels that is active
};

// Memory shared by all threads of a block.
struct alignas(16) Shared {
  union {
    // s_t. A single block writes s_{t+1} beside it and changes sides; the blocks of a cluster have `next` for that.
    float state[CLUSTER == 1 ? 2 : 1][ROWS][STRIDE];
    Input input;   // between the phases of two minibatches
  };
  float next[CLUSTER == 1 ? 4 : OWN * STRIDE];   // s_{t+1} of own neurons, which other blocks read
  float weights[WEIGHTS];
  float arrays[(ON_CHIP < ARRAYS ? ON_CHIP : ARRAYS) * OWN * STRIDE + 4];
  float gram[4 * QUADS][STRIDE];                  // x·xᵀ + 1, without the 1 where the bias does not learn
  float bias[OWN];
  unsigned change[2][2][STRIDE];                  // bits of max |s_T − s_{T−1}| and |s_T − s_{T−2}| of own neurons
  float residual[2][STRIDE];                      // the same of all neurons, where the image ended
  int steps[STRIDE];                              // steps of the first phase, 0 while it goes on
  int label[STRIDE];
  int wrong[STRIDE];
  int mixed[STRIDE];                              // differences that the acceleration uses after this sweep
  double loss[STRIDE];
};
static_assert(sizeof(Shared) == SHARED_BYTES, "the launch code has another idea of the memory of a block");

#ifndef EMULATED
// The number of the thread in its block. The compiler is not to know that it is always the same: else it computes the
// addresses of all loops ahead, for which there are not enough registers.
DEVICE int this_thread() {
  int thread = threadIdx.x;
  asm volatile("" : "+r"(thread));
  return thread;
}
#define BLOCK_MEMORY(name)                              \
  extern __shared__ __align__(16) unsigned char memory[]; \
  Shared& name = *reinterpret_cast<Shared*>(memory)
#if CLUSTER > 1
#define CLUSTERED __cluster_dims__(CLUSTER, 1, 1)
// What a thread has written before it arrives is seen by the threads of all blocks that have waited.
DEVICE void cluster_arrive() { asm volatile("barrier.cluster.arrive.release;" ::: "memory"); }
DEVICE void cluster_wait() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }
// The memory of another block of the cluster.
DEVICE const Shared& memory_of(const Shared& block, int rank) {
  const Shared* theirs;
  asm("mapa.u64 %0, %1, %2;" : "=l"(theirs) : "l"(&block), "r"(rank));
  return *theirs;
}
#else
#define CLUSTERED
DEVICE void cluster_arrive() {}
DEVICE void cluster_wait() {}
DEVICE const Shared& memory_of(const Shared& block, int) { return block; }
#endif
#endif

// σ and σ′, as activation/ has them.
DEVICE float sigma(float h) {
  if (ACTIVATION == SIGMOID) return 1.0f / (1.0f + expf(2.0f - 4.0f * h));
  if (ACTIVATION == TANH) return tanhf(h);
  return fminf(fmaxf(h, 0.0f), 1.0f);
}
DEVICE float sigma_prime(float h) {
  const float s = sigma(h);
  if (ACTIVATION == SIGMOID) return 4.0f * s * (1.0f - s);
  if (ACTIVATION == TANH) return 1.0f - s * s;
  return h >= 0.0f && h <= 1.0f ? 1.0f : 0.0f;
}

// L numbers in a row, at once.
template <int L> DEVICE void load(float (&values)[L], const float* from) {
  if constexpr (L == 4) {
    const float4 all = *reinterpret_cast<const float4*>(from);
    values[0] = all.x, values[1] = all.y, values[2] = all.z, values[3] = all.w;
  } else if constexpr (L == 2) {
    const float2 both = *reinterpret_cast<const float2*>(from);
    values[0] = both.x, values[1] = both.y;
  } else {
    values[0] = *from;
  }
}
template <int L> DEVICE void store(float* to, const float (&values)[L]) {
  if constexpr (L == 4) *reinterpret_cast<float4*>(to) = make_float4(values[0], values[1], values[2], values[3]);
  else if constexpr (L == 2) *reinterpret_cast<float2*>(to) = make_float2(values[0], values[1]);
  else *to = values[0];
}

// A number that the compiler knows, for functions of layers.
template <int v> struct Number { static constexpr int value = v; };

// Calls `work` with the number of every layer.
template <int n = 0, class Work> DEVICE void each_layer(Work work) {
  if constexpr (n < LAYERS) {
    work(Number<n>());
    each_layer<n + 1>(work);
  }
}

// Calls `work` with n and m for every connection into layer n from a layer m that is not the input.
template <class Work> DEVICE void each_connection(Work work) {
  each_layer([&](auto layer) {
    constexpr int n = decltype(layer)::value;
    if constexpr (n < LAST) work(layer, Number<n + 1>());
    if constexpr (n > 0) work(layer, Number<n - 1>());
  });
}

// True where step t updates layer n.
DEVICE bool updates(int n, int t) { return ORDER == SYNCHRONOUS || (n + t) % 2 == 0; }

// What a thread knows of its network and block.
struct Here {
  Shared& block;
  float* scratch;
  int rank;           // of the block in its cluster
  int side[LAYERS];   // of `state` where s_t is, in a single block
  bool told;          // other blocks may still be reading `next`
  float beta;         // β of this branch
  float c[LAYERS];    // η_n/(βB) of this branch

  // s_t of layer n, and that of own neurons.
  template <int n> DEVICE_MEMBER float* state() { return &block.state[CLUSTER == 1 ? side[n] : 0][row(n)][0]; }
  template <int n> DEVICE_MEMBER float* own_state() { return state<n>() + rank * owned(n) * STRIDE; }
  // s_{t+1} of own neurons.
  template <int n> DEVICE_MEMBER float* next() {
    return CLUSTER == 1 ? &block.state[CLUSTER == 1 ? 1 - side[n] : 0][row(n)][0] : block.next + own_row(n) * STRIDE;
  }
  // The rows of layer n of an array of own neurons.
  template <int array, int n> DEVICE_MEMBER float* own() {
    if constexpr (array < ON_CHIP) return block.arrays + (array * OWN + own_row(n)) * STRIDE;
    else return scratch + ARRAYS_AT + ((array - ON_CHIP) * OWN + own_row(n)) * STRIDE;
  }
  template <int n> DEVICE_MEMBER float* bias() { return block.bias + own_row(n); }
  DEVICE_MEMBER float* aside() { return scratch + ASIDE_AT; }
  // Own neurons of layer n that there are; the last block has fewer.
  template <int n> DEVICE_MEMBER int neurons() {
    if (CLUSTER == 1) return width(n);
    const int left = width(n) - rank * owned(n);
    return left < 0 ? 0 : smaller(left, owned(n));
  }
  // Δs of four images of own neuron j, gated for connections from one side.
  template <int n, int gated> DEVICE_MEMBER void delta(float (&change)[4], int j, int i) {
    if constexpr (GATED) {
      load(change, own<gated, n>() + j * STRIDE + i);
    } else {
      float s[4];
      load(change, next<n>() + j * STRIDE + i);
      load(s, own_state<n>() + j * STRIDE + i);
      UNROLL
      for (int a = 0; a < 4; a++) change[a] -= s[a];
    }
  }
};

// Where the weight from neuron k into own neuron j lies, j a multiple of 4. Rows of whole 128 bytes are shuffled, so
// that neighbouring rows begin in different banks.
template <int OWNED> DEVICE int place(int k, int j, int k_mod_8) {
  constexpr int tiles = OWNED / 4;
  constexpr int mask = tiles % 8 == 0 ? 7 : tiles % 4 == 0 ? 3 : tiles % 2 == 0 ? 1 : 0;
  return k * OWNED + 4 * ((j / 4) ^ (k_mod_8 & mask));
}
template <int OWNED> DEVICE int place(int k, int j) { return place<OWNED>(k, j, k); }

// Lanes that share the sum of a tile of layer n, so that all threads have work; and the threads that its tiles take.
CONSTANT int lanes(int n) {
  int count = 1;
  while (count < 16 && 2 * count * (owned(n) / 4) * QUADS <= THREADS) count *= 2;
  return count;
}
CONSTANT int tasks(int n) { return owned(n) / 4 * QUADS * lanes(n); }
// The thread that begins with layer n, after those of the layers before it.
CONSTANT int first_thread(int n) {
  return n == 0 ? 0 : (first_thread(n - 1) + rounded_up(tasks(n - 1), 32)) % THREADS;
}

// Calls `work(works, j, i, lane)` for every tile of own neurons j … j + 3 and images i … i + 3 of layer n, with whole
// warps: `works` is false for threads that have none.
template <int n, class Work> DEVICE void each_tile(Here& here, Work work) {
  constexpr int shared_by = lanes(n), count = tasks(n);
  const int first = (this_thread() + THREADS - first_thread(n)) % THREADS;
  for (int task = first; task < rounded_up(count, 32); task += THREADS) {
    const int tile = task / shared_by, j = 4 * (tile / QUADS), i = 4 * (tile % QUADS);
    work(task < count && j < here.neurons<n>(), j, i, task % shared_by);
  }
}

// sum[b][a] += Σ_k W_k(b)·s_k(a) over this lane's share of k.
template <int LANES, class Weights, class States>
DEVICE void multiply(float (&sum)[16], int depth, int lane, Weights weights, States states) {
  _Pragma("unroll 4")
  for (int k = lane; k < depth; k += LANES) {
    float w[4], s[4];
    load(w, weights(k));
    load(s, states(k));
    UNROLL
    for (int b = 0; b < 4; b++)
      UNROLL
      for (int a = 0; a < 4; a++) sum[4 * b + a] += w[b] * s[a];
  }
}

// Adds up the sums of LANES neighbouring lanes. Each keeps 16/LANES of the 16 numbers, from number lane·16/LANES on.
template <int LANES> DEVICE void add_lanes(float (&sum)[16], int lane) {
  int kept = 16;
  UNROLL
  for (int distance = LANES / 2; distance > 0; distance /= 2) {
    kept /= 2;
    const bool upper = lane & distance;
    UNROLL
    for (int e = 0; e < 8; e++)
      if (e < kept) {
        const float given = upper ? sum[e] : sum[e + kept];
        sum[e] = (upper ? sum[e + kept] : sum[e]) + __shfl_xor_sync(0xffffffffu, given, distance);
      }
  }
}

// sum[a][b] += Σ_i left_a(i)·right_b(i) over all images.
template <class Left, class Right> DEVICE void inner_products(float (&sum)[4][4], Left left, Right right) {
  _Pragma("unroll 1")
  for (int i = 0; i < 4 * QUADS; i += 4) {
    float l[4][4], r[4][4];
    UNROLL
    for (int a = 0; a < 4; a++) left(l[a], a, i), right(r[a], a, i);
    UNROLL
    for (int a = 0; a < 4; a++)
      UNROLL
      for (int b = 0; b < 4; b++)
        UNROLL
        for (int e = 0; e < 4; e++) sum[a][b] += l[a][e] * r[b][e];
  }
}

// W_kj += scale·Σ_i s_k(i)·own_j(i), for `depth` neurons k and all own neurons j. GROUP neighbouring threads take
// neighbouring tiles of j.
template <int OWNED, int GROUP, class Weight, class States, class Own>
DEVICE void learn(int depth, int neurons, float scale, Weight weight, States states, Own own) {
  constexpr int together = OWNED / 4 % GROUP == 0 ? GROUP : 1;
  const int tiles = (depth + 3) / 4;
  for (int task = this_thread(); task < tiles * (OWNED / 4); task += THREADS) {
    const int first = task / together % tiles;
    const int j = 4 * (task / together / tiles * together + task % together);
    if (j >= neurons) continue;
    float sum[4][4] = {};
    inner_products(
        sum, [&](float(&s)[4], int a, int i) { states(s, smaller(first + a * tiles, depth - 1), i); },
        [&](float(&s)[4], int b, int i) { own(s, j + b, i); });
    UNROLL
    for (int a = 0; a < 4; a++) {
      const int k = first + a * tiles;
      if (k >= depth) continue;
      float w[4];
      load(w, weight(k, j));
      UNROLL
      for (int b = 0; b < 4; b++) w[b] += scale * sum[a][b];
      store(weight(k, j), w);
    }
  }
}

// W_nm += scale·c·Σ_i sⁿ(i)·sᵐ(i)ᵀ for all weights between layers, with the states as they are now.
DEVICE void learn_products(Here& here, float scale) {
  each_connection([&](auto to, auto from) {
    constexpr int n = decltype(to)::value, m = decltype(from)::value;
    float* weights = here.block.weights + weights_at(n, m);
    learn<owned(n), 2>(
        width(m), here.neurons<n>(), scale * here.c[smaller(n, m)],
        [&](int k, int j) { return weights + place<owned(n)>(k, j); },
        [&](float(&s)[4], int k, int i) { load(s, here.state<m>() + k * STRIDE + i); },
        [&](float(&s)[4], int j, int i) { load(s, here.own_state<n>() + j * STRIDE + i); });
  });
}

// W_nm += c·Σ_i Δsⁿ(i)·sᵐ(i)ᵀ for all weights into layers that step t updates (Eq. 12), in `weights`.
DEVICE void learn_vector_field(Here& here, int t, float* all) {
  each_connection([&](auto to, auto from) {
    constexpr int n = decltype(to)::value, m = decltype(from)::value;
    if (!updates(n, t)) return;
    float* weights = all + weights_at(n, m);
    learn<owned(n), 2>(
        width(m), here.neurons<n>(), here.c[smaller(n, m)],
        [&](int k, int j) { return weights + place<owned(n)>(k, j); },
        [&](float(&s)[4], int k, int i) { load(s, here.state<m>() + k * STRIDE + i); },
        [&](float(&change)[4], int j, int i) { here.delta<n, (m > n ? DELTA : DELTA_FROM_BELOW)>(change, j, i); });
  });
}

// What the updates of biases and of the weights from the input do to the inputs of the layers that step t updates:
// b_n += c·Σ_i Δsⁿ(i), and u += c·(x·xᵀ + 1)·Δsᴺ, in place of the weights from the input, which stay as they are.
DEVICE void learn_drive_and_biases(Here& here, int t) {
  each_layer([&](auto layer) {
    constexpr int n = decltype(layer)::value;
    if (!updates(n, t)) return;
    const float c = DURING * here.c[n];
    if constexpr (n < LAST) {
      for (int j = this_thread(); j < here.neurons<n>(); j += THREADS) {
        float sum = 0.0f;
        for (int i = 0; i < 4 * QUADS; i += 4) {
          float change[4];
          here.delta<n, DELTA>(change, j, i);
          UNROLL
          for (int a = 0; a < 4; a++) sum += change[a];
        }
        here.bias<n>()[j] += c * sum;
      }
    } else {
      for (int tile = this_thread(); tile < owned(n) / 4 * QUADS; tile += THREADS) {
        const int j = 4 * (tile / QUADS), i = 4 * (tile % QUADS);
        if (j >= here.neurons<n>()) continue;
        float sum[4][4] = {};
        inner_products(
            sum, [&](float(&change)[4], int b, int other) { here.delta<n, DELTA>(change, j + b, other); },
            [&](float(&products)[4], int a, int other) { load(products, &here.block.gram[i + a][other]); });
        UNROLL
        for (int b = 0; b < 4; b++) {
          float* drive = here.own<DRIVE, n>() + (j + b) * STRIDE + i;
          float u[4];
          load(u, drive);
          UNROLL
          for (int a = 0; a < 4; a++) u[a] += c * sum[b][a];
          store(drive, u);
        }
      }
    }
  });
}

// Waits until all blocks have read what this one told them, once.
DEVICE void wait_for_readers(Here& here) {
  if (CLUSTER > 1 && here.told) {
    cluster_wait();
    here.told = false;
  }
}

// Makes s_{t+1} of the layers that `moved` says the states, in all blocks. `meanwhile` works with both.
template <class Moved, class Meanwhile> DEVICE void tell(Here& here, Moved moved, Meanwhile meanwhile) {
  wait_for_readers(here);
  if (CLUSTER > 1) cluster_arrive();
  __syncthreads();
  if (meanwhile()) __syncthreads();
  if (CLUSTER == 1) {
    each_layer([&](auto layer) {
      constexpr int n = decltype(layer)::value;
      if (moved(n)) here.side[n] = 1 - here.side[n];
    });
    return;
  }
  cluster_wait();
  each_layer([&](auto layer) {
    constexpr int n = decltype(layer)::value, length = STRIDE / 4;
    if (!moved(n)) return;
    // Several at once are on their way.
    constexpr int count = rounded_up(width(n), 4) * length, batch = 5;
    for (int first = this_thread(); first < count; first += batch * THREADS) {
      float s[batch][4];
      UNROLL
      for (int b = 0; b < batch; b++) {
        const int e = first + b * THREADS, k = e / length;
        if (e >= count) continue;
        const Shared& theirs = memory_of(here.block, k / owned(n));
        load(s[b], theirs.next + (own_row(n) + k % owned(n)) * STRIDE + e % length * 4);
      }
      UNROLL
      for (int b = 0; b < batch; b++)
        if (first + b * THREADS < count) store(here.state<n>() + (first + b * THREADS) * 4, s[b]);
    }
  });
  cluster_arrive();
  here.told = true;
  __syncthreads();
}

// Copies the states of own neurons into an array, and back from there into the states of all blocks.
template <int array> DEVICE void keep(Here& here) {
  each_layer([&](auto layer) {
    constexpr int n = decltype(layer)::value;
    for (int e = this_thread(); e < rounded_up(here.neurons<n>(), 4) * STRIDE; e += THREADS)
      here.own<array, n>()[e] = here.own_state<n>()[e];
  });
}
template <int array> DEVICE void recall(Here& here) {
  wait_for_readers(here);
  __syncthreads();
  each_layer([&](auto layer) {
    constexpr int n = decltype(layer)::value;
    for (int e = this_thread(); e < rounded_up(here.neurons<n>(), 4) * STRIDE; e += THREADS)
      here.next<n>()[e] = here.own<array, n>()[e];
  });
  tell(here, [](int) { return true; }, [] { return false; });
}

// What a sweep of the first phase does beside its steps: it looks whether images have settled, and keeps the states
// before it for the next sweep, which will.
struct Look {
  bool looks, keeps;
  int buffer;
};

// Step t of either phase: s_{t+1} of own neurons of the layers that it updates, from s_t.
//   sⁿ ← σ(W_nn+1·sⁿ⁺¹ + b_n + W_nn−1·sⁿ⁻¹), and where it is nudged, s⁰ ← … + β(y − s⁰)
template <bool NUDGED> DEVICE void step(Here& here, int t, Look look) {
  each_layer([&](auto layer) {
    constexpr int n = decltype(layer)::value, shared_by = lanes(n);
    // Each lane ends with the inputs of `numbers` images of some neurons of its tile.
    constexpr int numbers = shared_by <= 4 ? 4 : 16 / shared_by, rows = 16 / shared_by / numbers;
    if (!updates(n, t)) return;
    each_tile<n>(here, [&](bool works, int j, int i, int lane) {
      float above[16] = {}, below[16] = {};
      // Where this lane's numbers begin; what may come from far away is asked for ahead.
      const int number = lane * (16 / shared_by), image = i + number % 4, begin = (j + number / 4) * STRIDE + image;
      float u[rows][numbers], before[rows][numbers];
      UNROLL
      for (int r = 0; works && r < rows; r++) {
        if constexpr (n == LAST) load(u[r], here.own<DRIVE, n>() + begin + r * STRIDE);
        if (!NUDGED && look.looks) load(before[r], here.own<BEFORE, n>() + begin + r * STRIDE);
      }
      const int* steps = here.block.steps + i;
      const bool rests = !NUDGED && TOLERANCE > 0.0 && steps[0] && steps[1] && steps[2] && steps[3];
      if (works && !rests) {
        auto from = [&](auto source, float(&sum)[16]) {
          constexpr int m = decltype(source)::value;
          const float* weights = here.block.weights + weights_at(n, m);
          const float* states = here.state<m>() + i;
          // A lane that takes every 8th or 16th k always has the same k mod 8.
          multiply<shared_by>(
              sum, width(m), lane,
              [&](int k) { return weights + place<owned(n)>(k, j, shared_by % 8 == 0 ? lane : k); },
              [&](int k) { return states + k * STRIDE; });
        };
        if constexpr (n > 0) from(Number<n - 1>(), SIGMA_PRIME == PARTIAL ? below : above);
        if constexpr (n < LAST) from(Number<n + 1>(), above);
      }
      add_lanes<shared_by>(above, lane);
      if (SIGMA_PRIME == PARTIAL && n > 0) add_lanes<shared_by>(below, lane);
      wait_for_readers(here);
      if (!works) return;

      unsigned largest[2][4] = {};
      UNROLL
      for (int r = 0; r < rows; r++) {
        const int neuron = j + number / 4 + r, at = begin + r * STRIDE;
        float s[numbers] = {}, s_next[numbers], delta[numbers], delta_from_below[numbers];
        if (NUDGED || DAMPING > 0.0f || TOLERANCE > 0.0 || look.looks || look.keeps)
          load(s, here.own_state<n>() + at);
        UNROLL
        for (int a = 0; a < numbers; a++) {
          const float h_from_above = above[r * numbers + a] + (n == LAST ? u[r][a] : here.bias<n>()[neuron]);
          const float h_from_below = below[r * numbers + a], h = h_from_above + h_from_below;
          s_next[a] = sigma(h);
          if (NUDGED && n == 0) {
            const float y = here.rank * owned(n) + neuron == here.block.label[image + a] ? 1.0f : 0.0f;
            s_next[a] += here.beta * (y - s[a]);
          }
          if (DAMPING > 0.0f) s_next[a] = DAMPING * s[a] + (1.0f - DAMPING) * s_next[a];
          if (!NUDGED && TOLERANCE > 0.0 && here.block.steps[image + a] > 0) s_next[a] = s[a];
          if (image + a >= IMAGES) s_next[a] = 0.0f;
          delta[a] = delta_from_below[a] = s_next[a] - s[a];
          if (NUDGED && SIGMA_PRIME == FULL) delta[a] *= sigma_prime(h);
          if (NUDGED && SIGMA_PRIME == PARTIAL) {
            delta[a] *= sigma_prime(h_from_above);
            delta_from_below[a] *= sigma_prime(h_from_below);
          }
          if (image + a >= IMAGES) delta[a] = delta_from_below[a] = 0.0f;
        }
        store(here.next<n>() + at, s_next);
        if (NUDGED) {
          if constexpr (GATED) store(here.own<DELTA, n>() + at, delta);
          if constexpr (SIGMA_PRIME == PARTIAL && n > 0) store(here.own<DELTA_FROM_BELOW, n>() + at, delta_from_below);
          if (!CONTINUAL || WHOLE || n == LAST) {
            float* drift = here.own<DRIFT, n>() + at;
            float sum[numbers];
            load(sum, drift);
            UNROLL
            for (int a = 0; a < numbers; a++) sum[a] += here.c[n] * delta[a];
            store(drift, sum);
          }
        } else {
          if (look.looks) {
            UNROLL
            for (int a = 0; a < numbers; a++) {
              // The bits of numbers from 0 on are in the order of the numbers, and those of NaN above them.
              const unsigned one = __float_as_uint(fabsf(s_next[a] - s[a]));
              const unsigned two = __float_as_uint(fabsf(s_next[a] - before[r][a]));
              if (neuron < here.neurons<n>()) {
                if (one > largest[0][a]) largest[0][a] = one;
                if (two > largest[1][a]) largest[1][a] = two;
              }
            }
          }
          if (look.keeps) store(here.own<BEFORE, n>() + at, s);
        }
      }
      if (!NUDGED && look.looks && !rests)
        UNROLL
        for (int a = 0; a < numbers; a++)
          if (here.block.steps[image + a] == 0) {
            atomicMax(&here.block.change[look.buffer][0][image + a], largest[0][a]);
            atomicMax(&here.block.change[look.buffer][1][image + a], largest[1][a]);
          }
    });
  });
}

// True where the states are looked at after this sweep, as `Settle::looks_after` says and after the last.
DEVICE bool looks_after(int sweep) {
  return sweep == SWEEPS - 1 || (TOLERANCE > 0.0 && (sweep + 1) % LOOK_EVERY == 0);
}

// Ends the first phase of the images that have settled, or of all after the last sweep. True where all have ended.
DEVICE bool ended(Here& here, int sweep, int buffer) {
  for (int i = this_thread(); i < IMAGES; i += THREADS) {
    unsigned largest[2] = {0, 0};
    for (int rank = 0; rank < CLUSTER; rank++)
      for (int sweeps = 0; sweeps < 2; sweeps++) {
        const unsigned theirs = memory_of(here.block, rank).change[buffer][sweeps][i];
        if (theirs > largest[sweeps]) largest[sweeps] = theirs;
      }
    const bool rests = TOLERANCE > 0.0 && __uint_as_float(largest[0]) <= TOLERANCE;
    if (here.block.steps[i] == 0 && (rests || sweep == SWEEPS - 1)) {
      here.block.steps[i] = (sweep + 1) * HALF_STEPS;
      for (int sweeps = 0; sweeps < 2; sweeps++) here.block.residual[sweeps][i] = __uint_as_float(largest[sweeps]);
    }
    for (int sweeps = 0; sweeps < 2; sweeps++) here.block.change[1 - buffer][sweeps][i] = 0;
  }
  __syncthreads();
  bool all = true;
  for (int i = 0; i < IMAGES; i++) all = all && here.block.steps[i] > 0;
  return all;
}

// True for the layers whose states the acceleration mixes: those that the next sweep reads first, see
// `Settle::read_first`.
CONSTANT bool mixes(int n) { return ORDER == SYNCHRONOUS || DAMPING > 0.0f || n % 2 == 1; }
CONSTANT int mixed_neurons(int n) { return n == LAYERS ? 0 : mixed_neurons(n + 1) + (mixes(n) ? width(n) : 0); }

// What model/anderson.rs has for each image, in scratch: arrays of a number for each image, one after another.
struct Mixer {
  double *sums, *totals, *gamma, *norm, *products;
  int *first, *pause, *pause_before, *count;
};
DEVICE Mixer mixer_in(float* scratch) {
  double* numbers = reinterpret_cast<double*>(scratch + MIXER_AT);
  Mixer mixer = {numbers, numbers + SUMS * STRIDE, numbers + 2 * SUMS * STRIDE};
  mixer.norm = mixer.gamma + WINDOW * STRIDE;
  mixer.products = mixer.norm + STRIDE;
  mixer.first = reinterpret_cast<int*>(mixer.products + WINDOW * WINDOW * STRIDE);
  mixer.pause = mixer.first + STRIDE;
  mixer.pause_before = mixer.pause + STRIDE;
  mixer.count = mixer.pause_before + STRIDE;
  return mixer;
}

DEVICE void reset_mixer(Here& here) {
  const Mixer mixer = mixer_in(here.scratch);
  for (int i = this_thread(); i < IMAGES; i += THREADS) {
    mixer.first[i] = 1;
    mixer.pause[i] = mixer.pause_before[i] = mixer.count[i] = 0;
  }
}

// Calls `work(n, at, i)` for every number of own neurons of the layers that are mixed; `at` is its place in an array of
// own neurons, and `i` its image.
template <class Work> DEVICE void each_mixed(Here& here, Work work) {
  each_layer([&](auto layer) {
    constexpr int n = decltype(layer)::value;
    if (!mixes(n)) return;
    for (int e = this_thread(); e < here.neurons<n>() * STRIDE; e += THREADS)
      if (e % STRIDE < IMAGES) work(layer, own_row(n) * STRIDE + e, e % STRIDE);
  });
}

// γ of image i, from the normal equations by Cholesky's decomposition, see `Anderson::weights`; false where they cannot
// be solved.
DEVICE bool solve_for_gamma(const Mixer& mixer, int i, int rows, const double (&right)[WINDOW + 1]) {
  // Loops to WINDOW are unrolled, so that all of this stays in registers.
  double lower[WINDOW + 1][WINDOW + 1], gamma[WINDOW + 1];
  UNROLL
  for (int a = 0; a < WINDOW; a++)
    if (a < rows) {
      UNROLL
      for (int b = 0; b < a; b++) {
        double sum = mixer.products[(a * WINDOW + b) * STRIDE + i];
        UNROLL
        for (int k = 0; k < b; k++) sum -= lower[a][k] * lower[b][k];
        lower[a][b] = sum / lower[b][b];
      }
      double sum = mixer.products[(a * WINDOW + a) * STRIDE + i];
      sum += 1e-8 * sum;
      UNROLL
      for (int k = 0; k < a; k++) sum -= lower[a][k] * lower[a][k];
      if (!(sum > 0.0)) return false;
      lower[a][a] = sqrt(sum);
      gamma[a] = right[a];
      UNROLL
      for (int k = 0; k < a; k++) gamma[a] -= lower[a][k] * gamma[k];
      gamma[a] /= lower[a][a];
    }
  UNROLL
  for (int a = WINDOW - 1; a >= 0; a--)
    if (a < rows) {
      UNROLL
      for (int k = a + 1; k < WINDOW; k++)
        if (k < rows) gamma[a] -= lower[k][a] * gamma[k];
      gamma[a] /= lower[a][a];
      mixer.gamma[a * STRIDE + i] = gamma[a];
    }
  return true;
}

// The differences that image i uses for its next state, 0 where that is G(s) itself: see `Anderson::mix`. `sums` are
// ‖f‖², the products of the newest Δf with all, and those of all with f.
DEVICE int decide(const Mixer& mixer, int i, const double (&sums)[SUMS]) {
  const double norm = sums[0], epsilon = 1.1920928955078125e-7;
  const bool first = mixer.first[i];
  const bool grown = !first && (norm != norm || norm > mixer.norm[i]);
  const bool at_rest = norm <= mixed_neurons(0) * (epsilon * epsilon);
  mixer.norm[i] = norm;
  mixer.first[i] = 0;
  if (grown) {
    const int pause = 2 * mixer.pause_before[i] + 1;
    mixer.pause[i] = mixer.pause_before[i] = smaller(pause, 1000);
  }
  if (first || grown || at_rest || mixer.pause[i] > 0) {
    if (mixer.pause[i] > 0) mixer.pause[i]--;
    mixer.count[i] = 0;
    return 0;
  }
  const int newest = mixer.count[i] % (WINDOW + !WINDOW);
  const int rows = smaller(++mixer.count[i], WINDOW);
  double right[WINDOW + 1];
  UNROLL
  for (int j = 0; j < WINDOW; j++) {
    right[j] = sums[1 + WINDOW + j];
    if (j < rows) {
      mixer.products[(newest * WINDOW + j) * STRIDE + i] = sums[1 + j];
      mixer.products[(j * WINDOW + newest) * STRIDE + i] = sums[1 + j];
    }
  }
  if (solve_for_gamma(mixer, i, rows, right)) return rows;
  mixer.count[i] = 0;
  return 0;
}

// Anderson's acceleration between two sweeps: s ← G(s) − Σ_j γ_j·ΔG_j.
DEVICE void mix(Here& here) {
  const Mixer mixer = mixer_in(here.scratch);
  constexpr int length = OWN * STRIDE, window = WINDOW + !WINDOW;
  float* f = here.scratch + HISTORY_AT;
  float *g = f + length, *delta_f = g + length, *delta_g = delta_f + WINDOW * length;
  each_mixed(here, [&](auto layer, int at, int i) {
    constexpr int n = decltype(layer)::value;
    const int newest = mixer.count[i] % window * length + at;
    const float now = here.own_state<n>()[at - own_row(n) * STRIDE];
    const float off = now - here.own<BEFORE, n>()[at - own_row(n) * STRIDE];
    delta_f[newest] = off - f[at];
    delta_g[newest] = now - g[at];
    f[at] = off;
    g[at] = now;
  });
  __syncthreads();

  // ‖f‖², the newest Δf times each, and each times f; of own neurons, and then of all.
  for (int e = this_thread(); e < SUMS * IMAGES; e += THREADS) {
    const int which = e / IMAGES, i = e % IMAGES;
    const float* newest = delta_f + mixer.count[i] % window * length;
    const float* left = which == 0 ? f : which <= WINDOW ? newest : f;
    const float* right = which == 0 ? f : delta_f + (which - 1) % window * length;
    // Rows of before the history began hold nothing.
    const bool there = which == 0 || (which - 1) % window <= mixer.count[i];
    double sum = 0.0;
    if (there)
      each_layer([&](auto layer) {
        constexpr int n = decltype(layer)::value;
        const int count = mixes(n) ? here.neurons<n>() : 0;
        _Pragma("unroll 8")
        for (int j = 0; j < count; j++) {
          const int at = (own_row(n) + j) * STRIDE + i;
          sum += (double)left[at] * right[at];
        }
      });
    mixer.sums[which * STRIDE + i] = sum;
  }
  wait_for_readers(here);
  if (CLUSTER > 1) {
    cluster_arrive();
    cluster_wait();
  } else {
    __syncthreads();
  }
  for (int e = this_thread(); e < SUMS * STRIDE; e += THREADS) {
    if (e % STRIDE >= IMAGES) continue;
    double theirs[CLUSTER], total = 0.0;
    UNROLL
    for (int rank = 0; rank < CLUSTER; rank++) {
      // Volatile, so that no cache of this block's multiprocessor answers.
      const volatile double* sums = mixer_in(here.scratch + (rank - here.rank) * SCRATCH).sums;
      theirs[rank] = sums[e];
    }
    UNROLL
    for (int rank = 0; rank < CLUSTER; rank++) total += theirs[rank];
    mixer.totals[e] = total;
  }
  __syncthreads();
  for (int i = this_thread(); i < IMAGES; i += THREADS) {
    double totals[SUMS];
    UNROLL
    for (int which = 0; which < SUMS; which++) totals[which] = mixer.totals[which * STRIDE + i];
    const int rows = decide(mixer, i, totals);
    here.block.mixed[i] = here.block.steps[i] > 0 ? 0 : rows;
  }
  __syncthreads();
  bool any = false;
  for (int i = 0; i < IMAGES; i++) any = any || here.block.mixed[i] > 0;
  if (!any) return;
  each_layer([&](auto layer) {
    constexpr int n = decltype(layer)::value;
    if (!mixes(n)) return;
    for (int e = this_thread(); e < rounded_up(here.neurons<n>(), 4) * STRIDE; e += THREADS) {
      const int i = e % STRIDE, at = own_row(n) * STRIDE + e;
      float s = here.own_state<n>()[e];
      if (i < IMAGES && here.block.mixed[i] > 0) {
        double mixed = s;
        for (int j = 0; j < here.block.mixed[i]; j++) mixed -= mixer.gamma[j * STRIDE + i] * delta_g[j * length + at];
        s = (float)mixed;
      }
      here.next<n>()[e] = s;
    }
  });
  tell(here, [](int n) { return mixes(n); }, [] { return false; });
}

// The first phase, from s_0 = 0: an image stays as it is once it has settled.
DEVICE void first_phase(Here& here) {
  float* states = &here.block.state[0][0][0];
  for (int e = this_thread(); e < (CLUSTER == 1 ? 2 : 1) * ROWS * STRIDE; e += THREADS) states[e] = 0.0f;
  each_layer([&](auto layer) {
    constexpr int n = decltype(layer)::value;
    for (int e = this_thread(); e < owned(n) * STRIDE; e += THREADS) here.own<BEFORE, n>()[e] = 0.0f;
  });
  for (int i = this_thread(); i < STRIDE; i += THREADS) {
    here.block.steps[i] = i < IMAGES ? 0 : 1;
    for (int buffer = 0; buffer < 2; buffer++)
      here.block.change[buffer][0][i] = here.block.change[buffer][1][i] = 0;
  }
  if (WINDOW > 0) reset_mixer(here);
  __syncthreads();
  int buffer = 0;
  for (int sweep = 0; sweep < SWEEPS; sweep++) {
    // The last three sweeps are plain ones.
    const bool accelerated = WINDOW > 0 && sweep + 4 <= SWEEPS;
    const Look look = {looks_after(sweep), looks_after(sweep + 1) || accelerated, buffer};
    for (int t = 0; t < HALF_STEPS; t++) {
      step<false>(here, t, look);
      tell(here, [&](int n) { return updates(n, t); }, [] { return false; });
    }
    if (look.looks) {
      if (ended(here, sweep, buffer)) break;
      buffer = 1 - buffer;
    }
    if (accelerated) mix(here);
  }
}

// The larger of two numbers, or no number where either is none.
DEVICE double larger(double a, double b) { return a != a || a >= b ? a : b; }

// What the first phase came to, added up: errors, loss, residuals over one sweep and over two, steps, unsettled.
DEVICE void report(Here& here, double* sums) {
  const double settled = 1e-2;
  const float* output = here.state<0>();
  for (int i = this_thread(); i < IMAGES; i += THREADS) {
    int answer = 0;
    double loss = 0.0;
    for (int k = 0; k < width(0); k++) {
      const float s = output[k * STRIDE + i];
      const double off = (k == here.block.label[i] ? 1.0 : 0.0) - s;
      if (s > output[answer * STRIDE + i]) answer = k;
      loss += 0.5 * off * off;
    }
    here.block.wrong[i] = answer != here.block.label[i];
    here.block.loss[i] = loss;
  }
  __syncthreads();
  if (this_thread() == 0) {
    for (int e = 0; e < 6; e++) sums[e] = 0.0;
    for (int i = 0; i < IMAGES; i++) {
      const double one = here.block.residual[0][i], two = here.block.residual[1][i];
      sums[0] += here.block.wrong[i];
      sums[1] += here.block.loss[i];
      sums[2] = larger(sums[2], one);
      sums[3] = larger(sums[3], two);
      sums[4] += here.block.steps[i];
      sums[5] += !(one <= settled);
    }
  }
}

// Copies the weights between layers, the biases and the drive aside, or back.
template <bool BACK> DEVICE void set_aside(Here& here) {
  auto copy = [&](float* here_now, float* aside, int count) {
    for (int e = this_thread(); e < count; e += THREADS)
      if (BACK) here_now[e] = aside[e];
      else aside[e] = here_now[e];
  };
  copy(here.block.weights, here.aside(), WEIGHTS);
  copy(here.block.bias, here.aside() + WEIGHTS, OWN);
  copy(here.own<DRIVE, LAST>(), here.aside() + WEIGHTS + OWN, owned(LAST) * STRIDE);
}

// The second phases, each from s_* with a β of its own, and what the rule learns from them but for the weights from the
// input, whose updates are in the drift.
DEVICE void second_phase(Here& here, float beta) {
  if (WHOLE || CENTERED) keep<STAR>(here);
  each_layer([&](auto layer) {
    constexpr int n = decltype(layer)::value;
    for (int e = this_thread(); e < owned(n) * STRIDE; e += THREADS) here.own<DRIFT, n>()[e] = 0.0f;
  });
  if (RULE == VF)
    for (int e = this_thread(); e < WEIGHTS; e += THREADS) here.aside()[e] = 0.0f;
  if (RULE == CEP_RESCALED) set_aside<false>(here);
  __syncthreads();

  for (int branch = 0; branch < BRANCHES; branch++) {
    if (branch > 0) recall<STAR>(here);
    here.beta = branch == 0 ? beta : -beta;
    UNROLL
    for (int n = 0; n < LAYERS; n++) here.c[n] = rate(n) / here.beta;
    for (int t = 0; t < SECOND_STEPS; t++) {
      step<true>(here, t, {});
      tell(here, [&](int n) { return updates(n, t); }, [&] {
        // C-EP: W ← W + c·(s_{t+1}·s_{t+1}ᵀ − s_t·s_tᵀ), the latter now and the former when all know s_{t+1}.
        if (CONTINUAL && TIED) learn_products(here, -DURING);
        if (RULE == CVF) learn_vector_field(here, t, here.block.weights);
        if (RULE == VF) learn_vector_field(here, t, here.aside());
        if (CONTINUAL) learn_drive_and_biases(here, t);
        return RULE != EP;
      });
      if (CONTINUAL && TIED) {
        learn_products(here, DURING);
        __syncthreads();
      }
    }
    if (RULE == CEP_RESCALED) {
      __syncthreads();
      set_aside<true>(here);
      __syncthreads();
    }
    // W ← W + c·(s_K·s_Kᵀ − s_*·s_*ᵀ); where there are two branches, s_* cancels.
    if (WHOLE && branch + 1 < BRANCHES) {
      keep<(CENTERED ? END : STAR)>(here);
    } else if (WHOLE) {
      __syncthreads();
      learn_products(here, 1.0f);
      recall<(CENTERED ? END : STAR)>(here);
      learn_products(here, -1.0f);
    }
  }

  __syncthreads();
  if (RULE == VF)
    for (int e = this_thread(); e < WEIGHTS; e += THREADS) here.block.weights[e] += here.aside()[e];
  each_layer([&](auto layer) {
    constexpr int n = decltype(layer)::value;
    if (n == LAST ? LAST_BIAS_FROZEN : CONTINUAL && !WHOLE) return;
    for (int j = this_thread(); j < here.neurons<n>(); j += THREADS) {
      float sum = 0.0f;
      for (int i = 0; i < IMAGES; i++) sum += here.own<DRIFT, n>()[j * STRIDE + i];
      here.bias<n>()[j] += sum;
    }
  });
}

// The numbers of the images of a minibatch, or null where there is none, and the data set.
struct Images {
  const unsigned char* bytes;
  const unsigned* learnt;
  const unsigned* next;
};

// Finds the active pixels of both minibatches.
DEVICE void find_active(Input& input) {
  for (int e = this_thread(); e < 2 * 32 * GROUPS; e += THREADS) {
    const int which = e / (32 * GROUPS), p = e % (32 * GROUPS);
    unsigned any = 0;
    if (p < PIXELS)
      for (int i = 0; i < IMAGES; i++) any |= input.bytes[which][i][p];
    const unsigned group = __ballot_sync(0xffffffffu, any != 0);
    if (p % 32 == 0) input.groups[which][p / 32] = group;
  }
}

// Writes the numbers of the active pixels among CHUNK from `start` on, and returns their count.
DEVICE int list_active(Input& input, int which, int start) {
  int count = 0;
  for (int g = start / 32; g < smaller(GROUPS, (start + CHUNK) / 32); g++) {
    const unsigned group = input.groups[which][g];
    const int p = this_thread();
    if (p < 32 && (group >> p & 1))
      input.active[which][count + __popc(group & ((1u << p) - 1))] = 32 * g + p;
    count += __popc(group);
  }
  return count;
}

// Between two minibatches: W_x += Σ_i drift(i)·x(i)ᵀ of the one just learnt, and then the drive u = W_x·x + b and the
// inner products of the images of the next. All weights from the input are read and written once.
DEVICE void pass_over_input(Here& here, Images images) {
  Input& input = here.block.input;
  __syncthreads();
  UNROLL
  for (int which = 0; which < 2; which++) {
    const unsigned* numbers = which == 0 ? images.learnt : images.next;
    for (int e = this_thread(); e < IMAGES * (BYTES / PIECE); e += THREADS) {
      const int i = e / (BYTES / PIECE), p = e % (BYTES / PIECE) * PIECE;
      Bytes piece = {};
      if (numbers && p < PIXELS)
        piece = *reinterpret_cast<const Bytes*>(images.bytes + (size_t)numbers[i] * PIXELS + p);
      *reinterpret_cast<Bytes*>(&input.bytes[which][i][p]) = piece;
    }
  }
  if (images.next)
    for (int e = this_thread(); e < owned(LAST) * STRIDE; e += THREADS)
      here.own<DRIVE, LAST>()[e] = here.bias<LAST>()[e / STRIDE];
  __syncthreads();
  if (CONTINUAL && images.next)
    for (int e = this_thread(); e < 16 * QUADS * QUADS; e += THREADS) {
      const int i = e / (4 * QUADS), other = e % (4 * QUADS);
      unsigned sum = 0;
      if (i < IMAGES && other < IMAGES)
        for (int p = 0; p < BYTES; p += 16) {
          const uint4 a = *reinterpret_cast<const uint4*>(&input.bytes[1][i][p]);
          const uint4 b = *reinterpret_cast<const uint4*>(&input.bytes[1][other][p]);
          sum = __dp4a(a.x, b.x, __dp4a(a.y, b.y, __dp4a(a.z, b.z, __dp4a(a.w, b.w, sum))));
        }
      const float one = LAST_BIAS_FROZEN ? 0.0f : 1.0f;
      here.block.gram[i][other] = i < IMAGES && other < IMAGES ? one + (float)sum / (255.0f * 255.0f) : 0.0f;
    }
  find_active(input);
  // What is added up in which order does not depend on the other minibatch.
  for (int start = 0; start < PIXELS; start += CHUNK) {
    __syncthreads();
    const int counts[2] = {list_active(input, 0, start), list_active(input, 1, start)};
    __syncthreads();
    UNROLL
    for (int which = 0; which < 2; which++)
      for (int e = this_thread(); e < 4 * QUADS * counts[which]; e += THREADS) {
        const int p = e % counts[which], i = e / counts[which];
        const unsigned byte = i < IMAGES ? input.bytes[which][i][input.active[which][p]] : 0;
        input.x[which][p][i] = (float)byte * (1.0f / 255.0f);
      }
    __syncthreads();
    auto weight = [&](int which) {
      return [&, which](int p, int j) { return here.scratch + input.active[which][p] * owned(LAST) + j; };
    };
    if (images.learnt) {
      learn<owned(LAST), 8>(
          counts[0], here.neurons<LAST>(), 1.0f, weight(0),
          [&](float(&x)[4], int p, int i) { load(x, &input.x[0][p][i]); },
          [&](float(&drift)[4], int j, int i) { load(drift, here.own<DRIFT, LAST>() + j * STRIDE + i); });
      __syncthreads();
    }
    if (images.next)
      each_tile<LAST>(here, [&](bool works, int j, int i, int lane) {
        constexpr int shared_by = lanes(LAST);
        constexpr int numbers = shared_by <= 4 ? 4 : 16 / shared_by, rows = 16 / shared_by / numbers;
        float sum[16] = {};
        if (works)
          multiply<shared_by>(
              sum, counts[1], lane, [&](int p) { return weight(1)(p, j); },
              [&](int p) { return &input.x[1][p][i]; });
        add_lanes<shared_by>(sum, lane);
        const int number = lane * (16 / shared_by);
        UNROLL
        for (int r = 0; works && r < rows; r++) {
          float* drive = here.own<DRIVE, LAST>() + (j + number / 4 + r) * STRIDE + i + number % 4;
          float u[numbers];
          load(u, drive);
          UNROLL
          for (int a = 0; a < numbers; a++) u[a] += sum[r * numbers + a];
          store(drive, u);
        }
      });
  }
  __syncthreads();
}

// Copies what leads into own neurons from θ to where the kernel has it, or back. Tied weights go back from above.
template <bool BACK> DEVICE void copy_parameters(Here& here, float* theta) {
  auto copy = [&](float& own, float& given) {
    if (BACK) given = own;
    else own = given;
  };
  // Rows are those of a weight in θ; k is the quicker index there, unless its transpose is used.
  each_connection([&](auto to, auto from) {
    constexpr int n = decltype(to)::value, m = decltype(from)::value;
    constexpr bool transposed = TIED && m < n;
    if (BACK && transposed) return;
    float* weights = theta + (m > n ? forward_in_theta(n) : transposed ? forward_in_theta(m) : feedback_in_theta(n));
    for (int e = this_thread(); e < width(m) * here.neurons<n>(); e += THREADS) {
      const int j = e / width(m), k = e % width(m), own = here.rank * owned(n) + j;
      copy(here.block.weights[weights_at(n, m) + place<owned(n)>(k, j / 4 * 4) + j % 4],
           weights[transposed ? k * width(n) + own : own * width(m) + k]);
    }
  });
  for (int e = this_thread(); e < PIXELS * here.neurons<LAST>(); e += THREADS) {
    const int j = e / PIXELS, p = e % PIXELS;
    copy(here.scratch[p * owned(LAST) + j],
         theta[forward_in_theta(LAST) + (size_t)(here.rank * owned(LAST) + j) * PIXELS + p]);
  }
  each_layer([&](auto layer) {
    constexpr int n = decltype(layer)::value;
    for (int j = this_thread(); j < here.neurons<n>(); j += THREADS)
      copy(here.bias<n>()[j], theta[bias_in_theta(n) + here.rank * owned(n) + j]);
  });
}

// theta (R, PARAMETERS) is changed; images (…, PIXELS); labels of all images; order (R, M, IMAGES); betas (R, M);
// reports (R, M, 6); scratch (R·CLUSTER, SCRATCH).
extern "C" __global__ void CLUSTERED __launch_bounds__(THREADS, 1)
    phases(float* theta, const unsigned char* images, const unsigned char* labels, const unsigned* order,
           const float* betas, double* reports, float* scratch, int minibatches) {
  BLOCK_MEMORY(block);
  const int replica = blockIdx.x / CLUSTER;
  Here here = {block, scratch + (size_t)blockIdx.x * SCRATCH, (int)blockIdx.x % CLUSTER};
  float* own_theta = theta + (size_t)replica * PARAMETERS;
  copy_parameters<false>(here, own_theta);
  for (int m = 0; m < minibatches; m++) {
    const size_t now = (size_t)replica * minibatches + m;
    const unsigned* numbers = order + now * IMAGES;
    if (m == 0) pass_over_input(here, {images, nullptr, numbers});
    for (int i = this_thread(); i < STRIDE; i += THREADS) block.label[i] = i < IMAGES ? labels[numbers[i]] : 0;
    first_phase(here);
    if (here.rank == 0) report(here, reports + now * 6);
    second_phase(here, betas[now]);
    pass_over_input(here, {images, numbers, m + 1 < minibatches ? numbers + IMAGES : nullptr});
  }
  copy_parameters<true>(here, own_theta);
  wait_for_readers(here);
}
