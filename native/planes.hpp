// What is drawn on maps, by the map that it is drawn on.
#pragma once

#include <cstdint>

#include "kernels.hpp"
#include "memory.hpp"
#include "parallel.hpp"

namespace lossatlas::LOSSATLAS_ISA {

// The cells of one axis from `first` to before `last`.
struct Range {
  std::int64_t first, last;
};

// A whole number as a place on an axis of `length` cells; NaN becomes the first.
inline std::int64_t place(float x, std::int64_t length) {
  return x > 0.0f ? (x < static_cast<float>(length) ? static_cast<std::int64_t>(x) : length) : 0;
}

// Call body(first plane, end of planes) for as many planes as a task has, each with this many numbers.
template <class Body>
void for_planes(std::int64_t planes, std::int64_t numbers, int threads, const Body& body) {
  constexpr std::int64_t numbers_in_task = 65536;
  const std::int64_t size = numbers < numbers_in_task ? numbers_in_task / (numbers > 0 ? numbers : 1) : 1;
  for_parts(planes, size, threads, body);
}

// The items of a list by the plane that each belongs to, in their order; those without one have a negative plane.
class ByPlane {
 public:
  ByPlane(const std::int64_t* of, std::int64_t count, std::int64_t planes)
      : starts_(planes + 2, 0), items_(count, 0) {
    for (std::int64_t i = 0; i < count; ++i) {
      if (of[i] >= planes) throw Error{"a plane is out of range"};
      if (of[i] >= 0) ++starts_[of[i] + 2];
    }
    for (std::int64_t p = 2; p < planes + 2; ++p) starts_[p] += starts_[p - 1];
    for (std::int64_t i = 0; i < count; ++i) {
      if (of[i] >= 0) items_[starts_[of[i] + 1]++] = i;
    }
  }

  const std::int64_t* begin(std::int64_t plane) const { return items_.begin() + starts_[plane]; }
  const std::int64_t* end(std::int64_t plane) const { return items_.begin() + starts_[plane + 1]; }

 private:
  Array<std::int64_t> starts_, items_;
};

}  // namespace lossatlas::LOSSATLAS_ISA
