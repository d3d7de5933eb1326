// Which objects are near a few predictions that follow each other in memory, and so, as a rule, in the image: the others
// are passed over, so that the cost is that of the pairs that are near each other.
#pragma once

#include "kernels.hpp"
#include "math.hpp"
#include "memory.hpp"

namespace lossatlas::LOSSATLAS_ISA {

inline constexpr int few = 64;
inline constexpr std::int64_t few_in_task = 32;

// The objects of an image that are no crowd regions, as `canonical_order` in src/lossatlas/assign/assignment.py has them:
// by area, by x1, y1, x2, y2 and by label, NaN last, equal ones as they are given.
class Order {
 public:
  // Boxes (G, 4), labels (G) int64, and mask of the crowd regions (G) or nothing.
  Order(const Tensor& boxes, const Tensor& labels, const Tensor& crowd)
      : boxes_(boxes.floats(boxes.size[0] * 4)), labels_(labels.integers(boxes.size[0])), rows_(boxes.size[0], 0) {
    const std::uint8_t* is_crowd = crowd.given() ? crowd.booleans(boxes.size[0]) : nullptr;
    for (std::int64_t row = 0; row < boxes.size[0]; ++row) {
      if (is_crowd == nullptr || is_crowd[row] == 0) rows_[count_++] = row;
    }
    sort();
  }

  std::int64_t count() const { return count_; }
  std::int64_t operator[](std::int64_t place) const { return rows_[place]; }
  const float* box(std::int64_t place) const { return boxes_ + rows_[place] * 4; }

 private:
  // Merge sorted parts, twice as long every time.
  void sort() {
    const Array<std::int64_t> merged(count_, 0);
    for (std::int64_t length = 1; length < count_; length *= 2) {
      for (std::int64_t first = 0; first < count_; first += 2 * length) {
        const std::int64_t middle = smaller_of(first + length, count_), last = smaller_of(first + 2 * length, count_);
        std::int64_t left = first, right = middle;
        for (std::int64_t i = first; i < last; ++i) {
          const bool take_right = left == middle || (right < last && before(rows_[right], rows_[left]));
          merged[i] = take_right ? rows_[right++] : rows_[left++];
        }
      }
      for (std::int64_t i = 0; i < count_; ++i) rows_[i] = merged[i];
    }
  }

  bool before(std::int64_t a, std::int64_t b) const {
    const float *one = boxes_ + a * 4, *other = boxes_ + b * 4;
    int found = compare(area(one), area(other));
    for (int axis = 0; axis < 4 && found == 0; ++axis) found = compare(one[axis], other[axis]);
    return found < 0 || (found == 0 && labels_[a] < labels_[b]);
  }

  static float side(float length) { return length < 0.0f ? 0.0f : length; }
  static float area(const float* box) { return side(box[2] - box[0]) * side(box[3] - box[1]); }
  static int compare(float a, float b) {
    if (a < b) return -1;
    if (b < a) return 1;
    return (a != a) - (b != b);
  }
  static std::int64_t smaller_of(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

  const float* boxes_;
  const std::int64_t* labels_;
  const Array<std::int64_t> rows_;
  std::int64_t count_ = 0;
};

// Boxes, one coordinate of all of them after the other.
struct Boxes {
  explicit Boxes(std::int64_t boxes) : count(boxes), x1(count, 0), y1(count, 0), x2(count, 0), y2(count, 0) {}

  std::int64_t count;
  Array<float> x1, y1, x2, y2;
};

// The lowest and the highest of each of the `axes` numbers that a few predictions have; NaN is neither.
template <int axes>
struct Bounds {
  float low[axes], high[axes];

  Bounds(const float* __restrict from, int count) {
    constexpr int lanes = 64;
    alignas(64) float least[lanes], most[lanes];
    for (int i = 0; i < lanes; ++i) {
      least[i] = infinity;
      most[i] = -infinity;
    }
    const int numbers = count * axes;
    for (int first = 0; first < numbers; first += lanes) {
      const int size = numbers - first < lanes ? numbers - first : lanes;
      for (int i = 0; i < size; ++i) {
        const float number = from[first + i];
        least[i] = number < least[i] ? number : least[i];
        most[i] = number > most[i] ? number : most[i];
      }
    }
    for (int half = lanes / 2; half >= axes; half /= 2) {
      for (int i = 0; i < half; ++i) {
        least[i] = smaller(least[i], least[i + half]);
        most[i] = larger(most[i], most[i + half]);
      }
    }
    for (int axis = 0; axis < axes; ++axis) {
      low[axis] = least[axis];
      high[axis] = most[axis];
    }
  }
};

// List the boxes that share more than an edge with a rectangle, in their order.
inline std::int64_t boxes_near(const Boxes& boxes, float left, float top, float right, float bottom,
                               std::int32_t* __restrict found) {
  std::int64_t count = 0;
  for (std::int64_t first = 0; first < boxes.count; first += few) {
    const int size = static_cast<int>(boxes.count - first < few ? boxes.count - first : few);
    alignas(64) std::uint8_t touches[few];
    const float* x1 = boxes.x1.begin() + first;
    const float* y1 = boxes.y1.begin() + first;
    const float* x2 = boxes.x2.begin() + first;
    const float* y2 = boxes.y2.begin() + first;
    std::uint8_t any = 0;
    for (int i = 0; i < size; ++i) {
      touches[i] = (x1[i] < right) & (x2[i] > left) & (y1[i] < bottom) & (y2[i] > top);
      any |= touches[i];
    }
    if (!any) continue;
    for (int i = 0; i < size; ++i) {
      found[count] = static_cast<std::int32_t>(first + i);
      count += touches[i];
    }
  }
  return count;
}

// What an assigner writes: the object that each prediction answers for, and its state.
class Verdicts {
 public:
  // `ignored`: mask of predictions that are not trained unless they are positive, or nothing.
  Verdicts(const Order& objects, const Tensor& ignored, const Tensor& matched, const Tensor& state)
      : objects_(objects),
        matched_(matched.integers(matched.size[0])),
        state_(state.bytes(matched.size[0])),
        ignored_(ignored.given() ? ignored.booleans(matched.size[0]) : nullptr) {}

  // `object`: -1 for none; `unsure`: whether a prediction without an object is ignored.
  void write(std::int64_t first, int size, const std::int32_t* __restrict object,
             const std::uint8_t* __restrict unsure) const {
    std::int64_t* __restrict matched = matched_ + first;
    std::int8_t* __restrict state = state_ + first;
    std::int32_t highest = -1;
    for (int i = 0; i < size; ++i) highest = object[i] > highest ? object[i] : highest;
    for (int i = 0; i < size; ++i) matched[i] = -1;
    for (int i = 0; i < size && highest >= 0; ++i) {
      if (object[i] >= 0) matched[i] = objects_[object[i]];
    }
    for (int i = 0; i < size; ++i) {
      state[i] = static_cast<std::int8_t>(object[i] >= 0 ? 1 : unsure[i] != 0 ? -1 : 0);
    }
    if (ignored_ == nullptr) return;
    for (int i = 0; i < size; ++i) state[i] = ((state[i] == 0) & (ignored_[first + i] != 0)) ? -1 : state[i];
  }

  void claim(std::int64_t prediction, std::int32_t object) const {
    matched_[prediction] = objects_[object];
    state_[prediction] = 1;
  }

 private:
  const Order& objects_;
  std::int64_t* matched_;
  std::int8_t* state_;
  const std::uint8_t* ignored_;
};

}  // namespace lossatlas::LOSSATLAS_ISA
