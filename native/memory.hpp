// Arrays of numbers whose length is known when a kernel runs.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "kernels.hpp"

namespace lossatlas::LOSSATLAS_ISA {

// Not std::vector: a function of the standard library that is compiled for one instruction set must not be shared with
// code for another by the linker.
template <class Number>
class Array {
 public:
  Array() = default;
  Array(std::int64_t count, Number value) {
    allocate(count);
    for (std::int64_t i = 0; i < count; ++i) values_[i] = value;
  }
  ~Array() { std::free(values_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  // Give an array that has none its memory, which holds anything.
  void allocate(std::int64_t count) {
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(Number);
    values_ = static_cast<Number*>(std::aligned_alloc(alignment, (bytes / alignment + 1) * alignment));
    if (values_ == nullptr) throw Error{"out of memory"};
    count_ = count;
  }

  std::int64_t size() const { return count_; }
  Number* begin() const { return values_; }
  Number& operator[](std::int64_t index) const { return values_[index]; }

 private:
  static constexpr std::size_t alignment = 64;
  std::int64_t count_ = 0;
  Number* values_ = nullptr;
};

}  // namespace lossatlas::LOSSATLAS_ISA
