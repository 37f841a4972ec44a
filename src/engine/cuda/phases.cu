// Both phases of one minibatch through a network with one hidden layer, in discrete time, without leaving the chip: one
// block per replica, one thread per hidden neuron. E.2, E.4; the same as `Dynamics::step` and `hebbian_update`, with the
// Gram form of the input weights (see engine/cpu/gram.rs). float32.
//
// Loops over images and classes are unrolled, so that the values a thread keeps for each stay in registers.
//
// Given by the compiler: IMAGES (B), HIDDEN (d_1), CLASSES (d_0), FIRST_STEPS (T), SECOND_STEPS (K), RULE,
// ACTIVATION, DAMPING. The block has HIDDEN threads, rounded up to whole warps.
//
// in,  for each replica: drive u_0 (B, d_1) · c·(x·xᵀ + 1) (B, B) · forward.0 (d_0, d_1) · feedback.0 (d_1, d_0) or
//      nothing where weights are tied · bias (d_0) · y (B, d_0) · β, η_0/(βB): the scale of Σ Δ
// out, for each replica: hidden states s_{T−2}, s_{T−1}, s_T, each (B, d_1) · output states of the same, each (B, d_0) ·
//      hidden s_K (B, d_1) · forward.0 · feedback.0 or nothing · bias, as they are after the second phase
//
// i counts images, j hidden neurons, k classes.

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

// Memory shared by all threads of a block.
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
__device__ void next_output(Shared& block, const float* target, float beta) {
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int output = warp; output < IMAGES * CLASSES; output += THREADS / 32) {
    int i = output / CLASSES, k = output % CLASSES;
    float sum = 0.0f;
    for (int j = lane; j < HIDDEN; j += 32) sum += block.forward[k][j] * block.hidden[i][j];
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
    if (lane == 0) {
      float s = block.output[i][k];
      float s_next = sigma(sum + block.bias[k]);
      if (beta != 0.0f) s_next += beta * (target[i * CLASSES + k] - s);
      block.output_next[i][k] = DAMPING > 0.0f ? DAMPING * s + (1.0f - DAMPING) * s_next : s_next;
    }
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) phases(const float* given, float* returned) {
  BLOCK_MEMORY(block);
  const int j = threadIdx.x;
  const bool has_neuron = j < HIDDEN;
  const float* given_drive = given + (size_t)blockIdx.x * IN;
  const float* given_gram = given_drive + IMAGES * HIDDEN;
  const float* given_forward = given_gram + IMAGES * IMAGES;
  const float* given_feedback = given_forward + CLASSES * HIDDEN;
  const float* given_bias = given_feedback + FEEDBACK;
  const float* target = given_bias + CLASSES;
  const float beta = target[IMAGES * CLASSES], scale = target[IMAGES * CLASSES + 1];
  float* hidden_states = returned + (size_t)blockIdx.x * OUT;
  float* output_states = hidden_states + 3 * IMAGES * HIDDEN;
  float* hidden_end = output_states + 3 * IMAGES * CLASSES;
  float* forward_end = hidden_end + IMAGES * HIDDEN;
  float* feedback_end = forward_end + CLASSES * HIDDEN;
  float* bias_end = feedback_end + FEEDBACK;

  // This neuron's states, its drive u_0, and the weights that lead into it from the output.
  float s[IMAGES], s_next[IMAGES], drive[IMAGES], s_star[IMAGES], feedback[CLASSES];
  for (int entry = j; entry < IMAGES * CLASSES; entry += THREADS)
    block.output[entry / CLASSES][entry % CLASSES] = 0.0f;
  for (int entry = j; entry < IMAGES * IMAGES; entry += THREADS)
    block.gram[entry / IMAGES][entry % IMAGES] = given_gram[entry];
  for (int k = j; k < CLASSES; k += THREADS) block.bias[k] = given_bias[k];
  if (has_neuron) {
    UNROLL
    for (int i = 0; i < IMAGES; i++) {
      s[i] = 0.0f;
      drive[i] = given_drive[i * HIDDEN + j];
      block.hidden[i][j] = 0.0f;
    }
    UNROLL
    for (int k = 0; k < CLASSES; k++) {
      block.forward[k][j] = given_forward[k * HIDDEN + j];
      feedback[k] = TIED ? given_forward[k * HIDDEN + j] : given_feedback[j * CLASSES + k];
    }
  }
  __syncthreads();

  for (int t = 0; t < FIRST_STEPS + SECOND_STEPS; t++) {
    const bool nudged = t >= FIRST_STEPS;
    if (t == FIRST_STEPS) {
      for (int entry = j; entry < IMAGES * CLASSES; entry += THREADS)
        block.output_star[entry / CLASSES][entry % CLASSES] = block.output[entry / CLASSES][entry % CLASSES];
      if (has_neuron)
        UNROLL
        for (int i = 0; i < IMAGES; i++) s_star[i] = s[i];
      __syncthreads();
    }

    // s¹_{t+1} = σ(u_t + feedback.0·s⁰_t), with u_t = u_0 + c·(x·xᵀ + 1)·(s¹_t − s¹_*) under a continual rule.
    if (has_neuron) {
      UNROLL
      for (int i = 0; i < IMAGES; i++) {
        float pre_activation = drive[i];
        if (nudged && CONTINUAL)
          UNROLL
          for (int other = 0; other < IMAGES; other++)
            pre_activation += block.gram[i][other] * (s[other] - s_star[other]);
        UNROLL
        for (int k = 0; k < CLASSES; k++) pre_activation += feedback[k] * block.output[i][k];
        const float arrived = sigma(pre_activation);
        s_next[i] = DAMPING > 0.0f ? DAMPING * s[i] + (1.0f - DAMPING) * arrived : arrived;
      }
    }
    next_output(block, target, nudged ? beta : 0.0f);
    __syncthreads();

    // Δ of this step, from s_t (s, output) and s_{t+1} (s_next, output_next).
    if (nudged && RULE != EP) {
      float sum;
      if (has_neuron) {
        UNROLL
        for (int k = 0; k < CLASSES; k++) {
          sum = 0.0f;
          UNROLL
          for (int i = 0; i < IMAGES; i++) {
            float output = block.output[i][k], output_next = block.output_next[i][k];
            sum += TIED ? output_next * s_next[i] - output * s[i] : (output_next - output) * s[i];
          }
          // VF leaves the weights until the end, and sums their updates in their place.
          if (CONTINUAL) block.forward[k][j] += scale * sum;
          else forward_end[k * HIDDEN + j] = (t == FIRST_STEPS ? 0.0f : forward_end[k * HIDDEN + j]) + scale * sum;
          if (TIED) {
            feedback[k] = block.forward[k][j];
          } else {
            sum = 0.0f;
            UNROLL
            for (int i = 0; i < IMAGES; i++) sum += (s_next[i] - s[i]) * block.output[i][k];
            if (CONTINUAL) feedback[k] += scale * sum;
            else feedback_end[j * CLASSES + k] = (t == FIRST_STEPS ? 0.0f : feedback_end[j * CLASSES + k]) + scale * sum;
          }
        }
      }
      if (CONTINUAL && j < CLASSES) {
        sum = 0.0f;
        UNROLL
        for (int i = 0; i < IMAGES; i++) sum += block.output_next[i][j] - block.output[i][j];
        block.bias[j] += scale * sum;
      }
    }
    __syncthreads();

    for (int entry = j; entry < IMAGES * CLASSES; entry += THREADS)
      block.output[entry / CLASSES][entry % CLASSES] = block.output_next[entry / CLASSES][entry % CLASSES];
    if (has_neuron)
      UNROLL
      for (int i = 0; i < IMAGES; i++) {
        s[i] = s_next[i];
        block.hidden[i][j] = s_next[i];
      }
    __syncthreads();

    // The last three states of the first phase; those before the first step are already 0.
    const int kept = t + 1 - (FIRST_STEPS - 2);
    if (!nudged && kept >= 0) {
      if (has_neuron)
        UNROLL
        for (int i = 0; i < IMAGES; i++) hidden_states[(kept * IMAGES + i) * HIDDEN + j] = s[i];
      for (int entry = j; entry < IMAGES * CLASSES; entry += THREADS)
        output_states[kept * IMAGES * CLASSES + entry] = block.output[entry / CLASSES][entry % CLASSES];
    }
  }

  if (has_neuron) {
    UNROLL
    for (int i = 0; i < IMAGES; i++) hidden_end[i * HIDDEN + j] = s[i];
    UNROLL
    for (int k = 0; k < CLASSES; k++) {
      float weight = block.forward[k][j];
      if (RULE == EP) {
        float sum = 0.0f;
        UNROLL
        for (int i = 0; i < IMAGES; i++) sum += block.output[i][k] * s[i] - block.output_star[i][k] * s_star[i];
        weight += scale * sum;
      }
      if (RULE == VF) weight += forward_end[k * HIDDEN + j];
      forward_end[k * HIDDEN + j] = weight;
      if (!TIED) {
        float weight = feedback[k];
        if (RULE == VF) weight += feedback_end[j * CLASSES + k];
        feedback_end[j * CLASSES + k] = weight;
      }
    }
  }
  if (j < CLASSES) {
    float sum = 0.0f;
    if (!CONTINUAL)
      UNROLL
      for (int i = 0; i < IMAGES; i++) sum += block.output[i][j] - block.output_star[i][j];
    bias_end[j] = block.bias[j] + scale * sum;
  }
}
