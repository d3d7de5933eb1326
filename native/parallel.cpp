#include "parallel.hpp"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#ifndef _WIN32
#include <pthread.h>
#endif

namespace lossatlas {
namespace {

struct Job {
  void (*task)(const void*, std::int64_t);
  const void* context;
  std::int64_t tasks;
  std::atomic<std::int64_t> next{0};

  void work() {
    for (;;) {
      const std::int64_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= tasks) return;
      task(context, index);
    }
  }
};

class Pool {
 public:
  void run(Job& job, int helpers) {
    std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (!owner.owns_lock() || !ensure(helpers)) {
      job.work();
      return;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      places_ = helpers;
    }
    start_.notify_all();
    job.work();
    std::unique_lock<std::mutex> lock(mutex_);
    // A helper that wakes up only now finds no place, and need not be waited for.
    places_ = 0;
    job_ = nullptr;
    done_.wait(lock, [this] { return working_ == 0; });
  }

 private:
  // Have at least this many helpers; false where the system gives no more threads.
  bool ensure(int helpers) {
    while (count_ < helpers) {
      try {
        std::thread([this] { serve(); }).detach();
      } catch (const std::system_error&) {
        return count_ > 0;
      }
      ++count_;
    }
    return true;
  }

  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      start_.wait(lock, [this] { return places_ > 0; });
      --places_;
      ++working_;
      Job* const job = job_;
      lock.unlock();
      job->work();
      lock.lock();
      if (--working_ == 0) done_.notify_one();
    }
  }

  std::mutex owner_;  // held by the thread whose job runs
  std::mutex mutex_;
  std::condition_variable start_, done_;
  Job* job_ = nullptr;
  int places_ = 0;   // helpers that may still join the job
  int working_ = 0;  // helpers that work on it
  int count_ = 0;
};

std::atomic<Pool*> current{nullptr};

// The helpers of the parent do not exist in the child, and its locks may be held forever: neither is ever touched again.
void forget_pool() { current.store(nullptr); }

// Never destroyed: its threads live until the process ends.
Pool& pool() {
  Pool* existing = current.load();
  if (existing != nullptr) return *existing;
#ifndef _WIN32
  static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
  (void)registered;
#endif
  Pool* fresh = new Pool;
  if (current.compare_exchange_strong(existing, fresh)) return *fresh;
  delete fresh;
  return *existing;
}

}  // namespace

void run_parallel(std::int64_t tasks, int threads, void (*task)(const void*, std::int64_t), const void* context) {
  Job job{task, context, tasks};
  const int helpers = static_cast<int>(tasks < threads ? tasks : threads) - 1;
  if (helpers < 1) {
    job.work();
  } else {
    pool().run(job, helpers);
  }
}

}  // namespace lossatlas
