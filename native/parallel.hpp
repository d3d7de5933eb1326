// The one way in which kernels use threads.
#pragma once

#include <cstdint>

namespace lossatlas {

// Run task(context, 0) to task(context, tasks - 1), by at most `threads` threads of which the caller is one.
//
// Tasks are handed out one after the other to whoever is free, so results must not depend on who runs which: a task is a
// fixed part of the work whatever the number of threads, and writes where no other does.
//
// The threads are those of a pool that is made when it is first needed and sleeps in between. A child of fork() makes its
// own. A call that finds the pool taken by another thread runs alone.
void run_parallel(std::int64_t tasks, int threads, void (*task)(const void* context, std::int64_t index),
                  const void* context);

template <class Task>
inline void parallel(std::int64_t tasks, int threads, const Task& task) {
  run_parallel(
      tasks, threads,
      [](const void* context, std::int64_t index) { (*static_cast<const Task*>(context))(index); }, &task);
}

// Call body(begin, end) for the parts of a range of `count` things, each but the last with `in_part` of them.
template <class Body>
inline void for_parts(std::int64_t count, std::int64_t in_part, int threads, const Body& body) {
  parallel((count + in_part - 1) / in_part, threads, [&](std::int64_t part) {
    const std::int64_t begin = part * in_part, end = begin + in_part;
    body(begin, end < count ? end : count);
  });
}

}  // namespace lossatlas
