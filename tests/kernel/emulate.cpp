// Runs the CUDA kernel on a CPU: one thread for each of its threads, barriers for __syncthreads, blocks in turn.
// usage: emulate IN OUT REPLICAS
#include <barrier>
#include <cmath>
#include <cstdio>
#include <memory>
#include <thread>
#include <vector>

#define EMULATED
#define __global__
#define __device__
#define __launch_bounds__(...)
#define BLOCK_MEMORY(name) Shared& name = *block_memory
struct Index { int x; };
static thread_local Index threadIdx, blockIdx;
struct Shared;
static Shared* block_memory;
static std::barrier<>* whole_block;
static std::vector<std::unique_ptr<std::barrier<>>> warps;
static std::vector<float> exchanged;
static void __syncthreads() { whole_block->arrive_and_wait(); }
static float __shfl_xor_sync(unsigned, float value, int other) {
  std::barrier<>& warp = *warps[threadIdx.x / 32];
  exchanged[threadIdx.x] = value;
  warp.arrive_and_wait();
  float theirs = exchanged[threadIdx.x ^ other];
  warp.arrive_and_wait();
  return theirs;
}

#include KERNEL

int main(int, char** arguments) {
  int replicas = std::atoi(arguments[3]);
  std::vector<float> in((size_t)replicas * IN), out((size_t)replicas * OUT);
  FILE* file = std::fopen(arguments[1], "rb");
  if (!file || std::fread(in.data(), 4, in.size(), file) != in.size()) return 1;
  std::fclose(file);
  std::barrier<> all(THREADS);
  whole_block = &all;
  for (int warp = 0; warp < THREADS / 32; warp++) warps.push_back(std::make_unique<std::barrier<>>(32));
  exchanged.resize(THREADS);
  for (int block = 0; block < replicas; block++) {
    // Nothing is said of what is in a block's memory at first.
    std::vector<float> memory((sizeof(Shared) + 3) / 4, NAN);
    block_memory = reinterpret_cast<Shared*>(memory.data());
    std::vector<std::thread> threads;
    for (int thread = 0; thread < THREADS; thread++)
      threads.emplace_back([&, thread] {
        threadIdx.x = thread;
        blockIdx.x = block;
        phases(in.data(), out.data());
      });
    for (auto& thread : threads) thread.join();
  }
  file = std::fopen(arguments[2], "wb");
  return std::fwrite(out.data(), 4, out.size(), file) == out.size() && std::fclose(file) == 0 ? 0 : 1;
}
