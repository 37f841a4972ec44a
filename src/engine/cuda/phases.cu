// Both phases of one minibatch through a network with one hidden layer, in discrete time, without leaving the chip: one
// block a replica, one thread a hidden neuron. E.2, E.4; the same as `Dynamics::step` and `hebbian_update`, with the
// Gram form of the input weights (see engine/cpu/gram.rs). float32.
//
// Loops over images and classes are unrolled, so that what a thread keeps for each stays in registers.
//
// Given by the compiler: IMAGES (B), HIDDEN (d_1), CLASSES (d_0), FIRST_STEPS (T), SECOND_STEPS (K), RULE,
// ACTIVATION, DAMPING. The block has HIDDEN threads, rounded up to whole warps.
//
// in,  for each replica: drive u_0 (B, d_1) · c·(x·xᵀ + 1) (B, B) · forward.0 (d_0, d_1) · feedback.0 (d_1, d_0) or
//      nothing where weights are tied · bias (d_0) · y (B, d_0) · β, η_0/(βB)
// out, for each replica: hidden states s_{T−2}, s_{T−1}, s_T, each (B, d_1) · output states of the same, each (B, d_0) ·
//      hidden s_K (B, d_1) · forward.0 · feedback.0 or nothing · bias, as they are after the second phase

enum { EP, CEP, VF, CVF };
enum { SIGMOID, TANH, HARD_SIGMOID };

#define UNROLL _Pragma("unroll")
#ifndef EMULATED
#define BLOCK_MEMORY(name)                  \
  extern __shared__ unsigned char memory[]; \
  Shared& name = *reinterpret_cast<Shared*>(memory)
#endif

#define TIED (RULE == EP || RULE == CEP)
#define CONTINUAL (RULE == CEP || RULE == CVF)
#define THREADS ((HIDDEN + 31) / 32 * 32)
#define FEEDBACK (TIED ? 0 : HIDDEN * CLASSES)
#define IN (IMAGES * HIDDEN + IMAGES * IMAGES + CLASSES * HIDDEN + FEEDBACK + CLASSES + IMAGES * CLASSES + 2)
#define OUT (4 * IMAGES * HIDDEN + 3 * IMAGES * CLASSES + CLASSES * HIDDEN + FEEDBACK + CLASSES)

// σ, as activation.rs has it.
__device__ float sigma(float x) {
  if (ACTIVATION == SIGMOID) return 1.0f / (1.0f + expf(2.0f - 4.0f * x));
  if (ACTIVATION == TANH) return tanhf(x);
  return fminf(fmaxf(x, 0.0f), 1.0f);
}

// What all threads of a block see.
struct Shared {
  float hidden[IMAGES][HIDDEN];          // s¹_t
  float forward[CLASSES][HIDDEN];        // forward.0 as it is now
  float gram[IMAGES][IMAGES];            // c·(x·xᵀ + 1)
  float output[IMAGES][CLASSES];         // s⁰_t
  float output_next[IMAGES][CLASSES];    // s⁰_{t+1}
  float output_star[IMAGES][CLASSES];    // s⁰ as the second phase begins
  float bias[CLASSES];
};

// s⁰_{t+1} = σ(forward.0·s¹_t + b) + β(y − s⁰_t), warp by warp: one image and class at a time.
__device__ void next_output(Shared& sh, const float* y, float beta) {
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int o = warp; o < IMAGES * CLASSES; o += THREADS / 32) {
    int i = o / CLASSES, k = o % CLASSES;
    float sum = 0.0f;
    for (int j = lane; j < HIDDEN; j += 32) sum += sh.forward[k][j] * sh.hidden[i][j];
    for (int other = 16; other > 0; other /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, other);
    if (lane == 0) {
      float s = sh.output[i][k];
      float next = sigma(sum + sh.bias[k]);
      if (beta != 0.0f) next += beta * (y[i * CLASSES + k] - s);
      sh.output_next[i][k] = DAMPING > 0.0f ? DAMPING * s + (1.0f - DAMPING) * next : next;
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) phases(const float* all_in, float* all_out) {
  BLOCK_MEMORY(sh);
  const int j = threadIdx.x;
  const bool mine = j < HIDDEN;
  const float* drive = all_in + (size_t)blockIdx.x * IN;
  const float* gram = drive + IMAGES * HIDDEN;
  const float* forward = gram + IMAGES * IMAGES;
  const float* feedback = forward + CLASSES * HIDDEN;
  const float* bias = feedback + FEEDBACK;
  const float* y = bias + CLASSES;
  const float beta = y[IMAGES * CLASSES], c_0 = y[IMAGES * CLASSES + 1];
  float* states = all_out + (size_t)blockIdx.x * OUT;
  float* outputs = states + 3 * IMAGES * HIDDEN;
  float* end = outputs + 3 * IMAGES * CLASSES;
  float* forward_end = end + IMAGES * HIDDEN;
  float* feedback_end = forward_end + CLASSES * HIDDEN;
  float* bias_end = feedback_end + FEEDBACK;

  // This neuron's states, drive, and weights from (`back`) the output.
  float s[IMAGES], next[IMAGES], u[IMAGES], star[IMAGES], back[CLASSES];
  for (int o = j; o < IMAGES * CLASSES; o += THREADS) sh.output[o / CLASSES][o % CLASSES] = 0.0f;
  for (int o = j; o < IMAGES * IMAGES; o += THREADS) sh.gram[o / IMAGES][o % IMAGES] = gram[o];
  for (int k = j; k < CLASSES; k += THREADS) sh.bias[k] = bias[k];
  if (mine) {
    UNROLL
    for (int i = 0; i < IMAGES; i++) {
      s[i] = 0.0f;
      u[i] = drive[i * HIDDEN + j];
      sh.hidden[i][j] = 0.0f;
    }
    UNROLL
    for (int k = 0; k < CLASSES; k++) {
      sh.forward[k][j] = forward[k * HIDDEN + j];
      back[k] = TIED ? forward[k * HIDDEN + j] : feedback[j * CLASSES + k];
    }
  }
  __syncthreads();

  for (int t = 0; t < FIRST_STEPS + SECOND_STEPS; t++) {
    const bool nudged = t >= FIRST_STEPS;
    if (t == FIRST_STEPS) {
      for (int o = j; o < IMAGES * CLASSES; o += THREADS)
        sh.output_star[o / CLASSES][o % CLASSES] = sh.output[o / CLASSES][o % CLASSES];
      if (mine)
        UNROLL
        for (int i = 0; i < IMAGES; i++) star[i] = s[i];
      __syncthreads();
    }

    // s¹_{t+1} = σ(u_t + feedback.0·s⁰_t), with u_t = u_0 + c·(x·xᵀ + 1)·(s¹_t − s¹_*) under a continual rule.
    if (mine) {
      UNROLL
      for (int i = 0; i < IMAGES; i++) {
        float h = u[i];
        if (nudged && CONTINUAL)
          UNROLL
          for (int other = 0; other < IMAGES; other++) h += sh.gram[i][other] * (s[other] - star[other]);
        UNROLL
        for (int k = 0; k < CLASSES; k++) h += back[k] * sh.output[i][k];
        next[i] = DAMPING > 0.0f ? DAMPING * s[i] + (1.0f - DAMPING) * sigma(h) : sigma(h);
      }
    }
    next_output(sh, y, nudged ? beta : 0.0f);
    __syncthreads();

    // Δ of this step, from s_t (s, output) and s_{t+1} (next, output_next).
    if (nudged && RULE != EP) {
      float sum;
      if (mine) {
        UNROLL
        for (int k = 0; k < CLASSES; k++) {
          sum = 0.0f;
          UNROLL
          for (int i = 0; i < IMAGES; i++) {
            float o = sh.output[i][k], o_next = sh.output_next[i][k];
            sum += TIED ? o_next * next[i] - o * s[i] : (o_next - o) * s[i];
          }
          // VF leaves the weights as they are until the end: their sum builds up where they go.
          if (CONTINUAL) sh.forward[k][j] += c_0 * sum;
          else forward_end[k * HIDDEN + j] = (t == FIRST_STEPS ? 0.0f : forward_end[k * HIDDEN + j]) + c_0 * sum;
          if (TIED) {
            back[k] = sh.forward[k][j];
          } else {
            sum = 0.0f;
            UNROLL
            for (int i = 0; i < IMAGES; i++) sum += (next[i] - s[i]) * sh.output[i][k];
            if (CONTINUAL) back[k] += c_0 * sum;
            else feedback_end[j * CLASSES + k] = (t == FIRST_STEPS ? 0.0f : feedback_end[j * CLASSES + k]) + c_0 * sum;
          }
        }
      }
      if (CONTINUAL && j < CLASSES) {
        sum = 0.0f;
        UNROLL
        for (int i = 0; i < IMAGES; i++) sum += sh.output_next[i][j] - sh.output[i][j];
        sh.bias[j] += c_0 * sum;
      }
    }
    __syncthreads();

    for (int o = j; o < IMAGES * CLASSES; o += THREADS)
      sh.output[o / CLASSES][o % CLASSES] = sh.output_next[o / CLASSES][o % CLASSES];
    if (mine)
      UNROLL
      for (int i = 0; i < IMAGES; i++) {
        s[i] = next[i];
        sh.hidden[i][j] = next[i];
      }
    __syncthreads();

    // The last three states of the first phase; what comes before the first step is 0 already.
    const int slot = t + 1 - (FIRST_STEPS - 2);
    if (!nudged && slot >= 0) {
      if (mine)
        UNROLL
        for (int i = 0; i < IMAGES; i++) states[(slot * IMAGES + i) * HIDDEN + j] = s[i];
      for (int o = j; o < IMAGES * CLASSES; o += THREADS)
        outputs[slot * IMAGES * CLASSES + o] = sh.output[o / CLASSES][o % CLASSES];
    }
  }

  if (mine) {
    UNROLL
    for (int i = 0; i < IMAGES; i++) end[i * HIDDEN + j] = s[i];
    UNROLL
    for (int k = 0; k < CLASSES; k++) {
      float f = sh.forward[k][j];
      if (RULE == EP) {
        float sum = 0.0f;
        UNROLL
        for (int i = 0; i < IMAGES; i++) sum += sh.output[i][k] * s[i] - sh.output_star[i][k] * star[i];
        f += c_0 * sum;
      }
      if (RULE == VF) f += forward_end[k * HIDDEN + j];
      forward_end[k * HIDDEN + j] = f;
      if (!TIED) {
        float b = back[k];
        if (RULE == VF) b += feedback_end[j * CLASSES + k];
        feedback_end[j * CLASSES + k] = b;
      }
    }
  }
  if (j < CLASSES) {
    float sum = 0.0f;
    if (!CONTINUAL)
      UNROLL
      for (int i = 0; i < IMAGES; i++) sum += sh.output[i][j] - sh.output_star[i][j];
    bias_end[j] = sh.bias[j] + c_0 * sum;
  }
}
