// The thread team: `parallel` runs the items of one operation on every thread of the process's team.
//
// Threads take items one at a time from an atomic counter, in ascending order, so a thread that the system
// takes off its core delays one item, not a fixed half of the work. An item should last 5 to 50 microseconds.
// Nothing about a result may depend on which thread runs an item.
#pragma once

#include <cstdint>
#include <type_traits>

namespace sluice {

// Use `threads` threads from the next operation on, the calling one included. Not during an operation.
void set_threads(int threads);
int threads();

// Run `work(context, item)` for every item in [0, items); return when all are done. The caller takes part.
// Called from within an item, or while another thread's operation runs, it runs everything on its own thread.
void parallel(int64_t items, void (*work)(void* context, int64_t item), void* context);

// The same for a callable `work(item)`.
template <class Work>
void parallel(int64_t items, Work&& work) {
  using Callable = std::remove_reference_t<Work>;
  parallel(
      items, [](void* context, int64_t item) { (*static_cast<Callable*>(context))(item); },
      const_cast<void*>(static_cast<const void*>(&work)));
}

}  // namespace sluice
