#include "team.h"

#include <pthread.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace sluice {
namespace {

// A worker without work spins this long before it sleeps: longer than the gap between two operations of one
// step, shorter than the gap between two steps of an idle server.
constexpr std::chrono::microseconds kIdleSpin{200};

// The caller spins this long for the last items of an operation: longer than an item should last.
constexpr std::chrono::microseconds kPatience{100};

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spin until `ready()`, or return false after `duration`.
template <class Ready>
bool spin(std::chrono::microseconds duration, Ready ready) {
  const auto deadline = std::chrono::steady_clock::now() + duration;
  do {
    for (int i = 0; i < 64; i++) {
      if (ready()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return false;
}

// Denormals are zero while items run, on every thread alike: a worker must round as the caller does.
class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" : : "r"(saved_ | 1 << 24));
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }

 private:
  uint64_t saved_;
#endif
};

class Team {
 public:
  explicit Team(int threads) {
    for (int i = 1; i < threads; i++) workers_.emplace_back([this] { serve(); });
  }

  ~Team() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    published_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  void run(int64_t items, void (*work)(void*, int64_t), void* context) {
    const FlushDenormals flush;
    if (workers_.empty() || items <= 1 || busy_.exchange(true, std::memory_order_acquire)) {
      for (int64_t item = 0; item < items; item++) work(context, item);
      return;
    }
    publish(items, work, context);
    take_items();
    wait_until_done(items);
    busy_.store(false, std::memory_order_release);
  }

 private:
  void publish(int64_t items, void (*work)(void*, int64_t), void* context) {
    work_ = work;
    context_ = context;
    items_ = items;
    done_.store(0, std::memory_order_relaxed);
    // Sequentially consistent, as is `sleepers_`: a worker going to sleep sees the items, or we see it.
    remaining_.store(items);
    if (sleepers_.load() > 0) wake(published_);
  }

  // Whoever is about to wait holds the mutex until it does, so the news cannot come in between.
  void wake(std::condition_variable& news) {
    { std::lock_guard<std::mutex> lock(mutex_); }
    news.notify_all();
  }

  // Every item is taken; some may be in work. If that takes long, a worker has lost its core to another
  // process: sleeping, unlike yielding, lets the system move it to ours.
  void wait_until_done(int64_t items) {
    const auto is_done = [&] { return done_.load() == items; };
    if (spin(kPatience, is_done)) return;
    std::unique_lock<std::mutex> lock(mutex_);
    caller_sleeps_.store(true);
    finished_.wait(lock, is_done);
    caller_sleeps_.store(false);
  }

  // Take and run items until none remains. An operation's fields may change until an item of it is taken, and
  // cannot from then until the item is done: they are read in between.
  void take_items() {
    int64_t left = remaining_.load(std::memory_order_acquire);
    while (left > 0) {
      if (!remaining_.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel)) continue;
      const int64_t items = items_;
      work_(context_, items - left);
      if (done_.fetch_add(1) + 1 == items && caller_sleeps_.load()) wake(finished_);
      left = remaining_.load(std::memory_order_acquire);
    }
  }

  void serve() {
    const FlushDenormals flush;
    while (wait_for_items()) take_items();
  }

  bool wait_for_items() {
    const auto are_there = [this] { return remaining_.load(std::memory_order_relaxed) > 0; };
    if (spin(kIdleSpin, are_there)) return true;
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1);
    published_.wait(lock, [&] { return stopping_ || remaining_.load() > 0; });
    sleepers_.fetch_sub(1);
    return !stopping_;
  }

  void (*work_)(void*, int64_t) = nullptr;
  void* context_ = nullptr;
  int64_t items_ = 0;
  // Apart, so that a spinning worker does not slow down those that count.
  alignas(64) std::atomic<int64_t> remaining_{0};
  alignas(64) std::atomic<int64_t> done_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  std::atomic<bool> busy_{false}, caller_sleeps_{false};
  bool stopping_ = false;
  std::mutex mutex_;
  std::condition_variable published_, finished_;
  std::vector<std::thread> workers_;
};

std::mutex creation;
std::atomic<Team*> team{nullptr};
int wanted_threads = 1;

// A forked child has none of its parent's threads: it forgets the team (leaking it) and starts its own.
void forget_team() { team.store(nullptr); }

Team& current_team() {
  Team* current = team.load(std::memory_order_acquire);
  if (current) return *current;
  std::lock_guard<std::mutex> lock(creation);
  if (!team.load()) {
    static const int registered = pthread_atfork(nullptr, nullptr, forget_team);
    (void)registered;
    team.store(new Team(wanted_threads), std::memory_order_release);
  }
  return *team.load();
}

}  // namespace

void set_threads(int threads) {
  std::lock_guard<std::mutex> lock(creation);
  wanted_threads = threads < 1 ? 1 : threads;
  delete team.exchange(nullptr);
}

int threads() { return current_team().threads(); }

void parallel(int64_t items, void (*work)(void*, int64_t), void* context) {
  current_team().run(items, work, context);
}

}  // namespace sluice
