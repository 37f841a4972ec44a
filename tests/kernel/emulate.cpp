// Runs the CUDA kernel on a CPU: the blocks of a cluster at once, and clusters in turn.
// usage: emulate IN OUT
//
// With -DTHREADED each of CUDA's threads is a thread of its own, for ThreadSanitizer. Without, threads are fibers,
// which change places at barriers only: that is much faster, and always in the same order.
#include <algorithm>
#include <atomic>
#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <thread>
#include <vector>
#include <ucontext.h>

#define EMULATED
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define CLUSTERED
#define BLOCK_MEMORY(name) Shared& name = *blocks[blockIdx.x % CLUSTER].memory

struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
static float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static float2 make_float2(float x, float y) { return {x, y}; }
static unsigned __float_as_uint(float value) { unsigned bits; std::memcpy(&bits, &value, 4); return bits; }
static float __uint_as_float(unsigned bits) { float value; std::memcpy(&value, &bits, 4); return value; }
static int __popc(unsigned bits) { return __builtin_popcount(bits); }
static unsigned __dp4a(unsigned a, unsigned b, unsigned sum) {
  for (int byte = 0; byte < 32; byte += 8) sum += (a >> byte & 255) * (b >> byte & 255);
  return sum;
}
static void atomicMax(unsigned* to, unsigned value) {
  std::atomic_ref<unsigned> place(*to);
  unsigned old = place.load();
  while (old < value && !place.compare_exchange_weak(old, value)) {}
}

struct Index { int x; };
static thread_local Index threadIdx, blockIdx;

#ifdef THREADED
struct Barrier {
  std::barrier<> barrier;
  using Token = std::optional<std::barrier<>::arrival_token>;
  explicit Barrier(int threads) : barrier(threads) {}
  Token arrive() { return barrier.arrive(); }
  void wait(Token token) { barrier.wait(std::move(*token)); }
};
#else
struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  Index thread, block;
  bool ended = false;
};
static std::vector<Fiber> fibers;
static size_t running;
static ucontext_t scheduler;
static long progress;   // barriers passed and fibers ended
static void yield() { swapcontext(&fibers[running].context, &scheduler); }
struct Barrier {
  int threads, arrived = 0;
  long passed = 0;
  using Token = long;
  explicit Barrier(int threads) : threads(threads) {}
  Token arrive() {
    const long token = passed;
    if (++arrived == threads) arrived = 0, passed++, progress++;
    return token;
  }
  void wait(Token token) { while (passed == token) yield(); }
};
#endif

// What one block has: its memory, its barriers, and where the lanes of a warp give each other numbers.
struct Shared;
struct Block {
  Shared* memory;
  Barrier all;
  std::vector<std::unique_ptr<Barrier>> warps;
  std::vector<unsigned> given;
  std::vector<Barrier::Token> tokens;
  Block();
};
static std::vector<Block> blocks;
static std::unique_ptr<Barrier> whole_cluster;
static int cluster_size();   // which the kernel defines
static Block& own() { return blocks[blockIdx.x % cluster_size()]; }

static int this_thread() { return threadIdx.x; }
static void __syncthreads() { own().all.wait(own().all.arrive()); }
static void cluster_arrive() { own().tokens[threadIdx.x] = whole_cluster->arrive(); }
static void cluster_wait() { whole_cluster->wait(std::move(own().tokens[threadIdx.x])); }
static const Shared& memory_of(const Shared&, int rank) { return *blocks[rank].memory; }

// Calls `read` with what all lanes of the warp give.
template <class Read> static auto exchange(unsigned value, Read read) {
  Barrier& warp = *own().warps[threadIdx.x / 32];
  own().given[threadIdx.x] = value;
  warp.wait(warp.arrive());
  const auto result = read(&own().given[threadIdx.x / 32 * 32]);
  warp.wait(warp.arrive());
  return result;
}
static float __shfl_xor_sync(unsigned, float value, int other) {
  const int lane = threadIdx.x % 32;
  return exchange(__float_as_uint(value), [&](unsigned* warp) { return __uint_as_float(warp[lane ^ other]); });
}
static unsigned __ballot_sync(unsigned, bool yes) {
  return exchange(yes, [](unsigned* warp) {
    unsigned bits = 0;
    for (int lane = 0; lane < 32; lane++) bits |= warp[lane] << lane;
    return bits;
  });
}

#include KERNEL

static int cluster_size() { return CLUSTER; }
Block::Block() : all(THREADS), given(THREADS), tokens(THREADS) {
  // Nothing is said of what is in a block's memory at first: these bytes are NaN.
  memory = static_cast<Shared*>(std::aligned_alloc(16, sizeof(Shared)));
  std::memset(static_cast<void*>(memory), 0xff, sizeof(Shared));
  for (int warp = 0; warp < THREADS / 32; warp++) warps.push_back(std::make_unique<Barrier>(32));
}

static std::vector<float> theta, betas, scratch;
static std::vector<double> reports;
static std::vector<unsigned char> images, labels;
static std::vector<unsigned> order;
static int minibatches;

static void run_thread() {
  phases(theta.data(), images.data(), labels.data(), order.data(), betas.data(), reports.data(), scratch.data(),
         minibatches);
}

#ifdef THREADED
static void run_cluster(int first_block) {
  std::vector<std::thread> threads;
  for (int thread = 0; thread < CLUSTER * THREADS; thread++)
    threads.emplace_back([=] {
      threadIdx.x = thread % THREADS;
      blockIdx.x = first_block + thread / THREADS;
      run_thread();
    });
  for (auto& thread : threads) thread.join();
}
#else
static void run_fiber() {
  run_thread();
  fibers[running].ended = true;
  progress++;
  yield();
}
static void run_cluster(int first_block) {
  fibers = std::vector<Fiber>(CLUSTER * THREADS);
  for (int thread = 0; thread < CLUSTER * THREADS; thread++) {
    Fiber& fiber = fibers[thread];
    fiber.stack.resize(64 << 10);
    fiber.thread.x = thread % THREADS;
    fiber.block.x = first_block + thread / THREADS;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_fiber, 0);
  }
  for (bool left = true; left;) {
    left = false;
    const long before = progress;
    for (running = 0; running < fibers.size(); running++) {
      Fiber& fiber = fibers[running];
      if (fiber.ended) continue;
      left = true;
      threadIdx = fiber.thread, blockIdx = fiber.block;
      swapcontext(&scheduler, &fiber.context);
    }
    if (left && progress == before) {
      std::fprintf(stderr, "threads wait for each other at different barriers\n");
      std::exit(1);
    }
  }
}
#endif

template <class T> static void read(FILE* file, std::vector<T>& values, size_t count) {
  values.resize(count);
  if (std::fread(values.data(), sizeof(T), count, file) != count) std::exit(2);
}

int main(int, char** arguments) {
  FILE* file = std::fopen(arguments[1], "rb");
  if (!file) return 2;
  std::vector<int> sizes;
  read(file, sizes, 3);
  const size_t replicas = sizes[0], count = sizes[2];
  minibatches = sizes[1];
  read(file, theta, replicas * PARAMETERS);
  read(file, images, count * PIXELS);
  read(file, labels, count);
  read(file, order, replicas * minibatches * IMAGES);
  read(file, betas, replicas * minibatches);
  std::fclose(file);
  reports.assign(replicas * minibatches * 6, NAN);
  scratch.assign(replicas * CLUSTER * SCRATCH, NAN);
  for (size_t replica = 0; replica < replicas; replica++) {
    blocks = std::vector<Block>(CLUSTER);
    whole_cluster = std::make_unique<Barrier>(CLUSTER * THREADS);
    run_cluster((int)replica * CLUSTER);
    for (Block& block : blocks) std::free(block.memory);
  }
  file = std::fopen(arguments[2], "wb");
  if (!file || std::fwrite(theta.data(), 4, theta.size(), file) != theta.size()) return 2;
  if (std::fwrite(reports.data(), 8, reports.size(), file) != reports.size()) return 2;
  return std::fclose(file) == 0 ? 0 : 2;
}
