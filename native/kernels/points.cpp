// Which object each point answers for by FCOS's rule. The twin is `FCOSPoints` in src/lossatlas/assign/fcos_points.py, whose
// numbers these are to the last bit.
#include "kernels.hpp"
#include "memory.hpp"
#include "near.hpp"
#include "parallel.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

struct Objects : Boxes {
  explicit Objects(const Order& order) : Boxes(order.count()), x(count, 0), y(count, 0) {
    for (std::int64_t i = 0; i < count; ++i) {
      const float* box = order.box(i);
      x1[i] = box[0];
      y1[i] = box[1];
      x2[i] = box[2];
      y2[i] = box[3];
      x[i] = (x1[i] + x2[i]) / 2.0f;
      y[i] = (y1[i] + y2[i]) / 2.0f;
    }
  }

  Array<float> x, y;
};

// The sizes that belong to a stride: those that are given, or the paper's.
class Ranges {
 public:
  Ranges(const float* strides, std::int64_t count, const Tensor& low, const Tensor& high)
      : strides_(strides),
        low_(low.given() ? low.floats(count) : nullptr),
        high_(high.given() ? high.floats(count) : nullptr) {
    for (std::int64_t first = 0; first < count; first += few) {
      const Bounds<1> bounds(strides + first, static_cast<int>(count - first < few ? count - first : few));
      smallest_ = smaller(smallest_, bounds.low[0]);
      largest_ = larger(largest_, bounds.high[0]);
    }
  }

  void read(std::int64_t first, int size, float* __restrict low, float* __restrict high) const {
    for (int i = 0; i < size; ++i) {
      const float stride = strides_[first + i];
      low[i] = low_ != nullptr ? low_[first + i] : stride == smallest_ ? 0.0f : 4.0f * stride;
      high[i] = high_ != nullptr ? high_[first + i] : stride == largest_ ? infinity : 8.0f * stride;
    }
  }

 private:
  const float *strides_, *low_, *high_;
  float smallest_ = infinity, largest_ = -infinity;
};

// A few points, one number of all of them after the other.
struct Points {
  alignas(64) float x[few], y[few], low[few] = {}, high[few] = {}, reach[few];

  Points(const float* from, const float* strides, int size, float radius) {
    for (int i = 0; i < few; ++i) {
      const int point = i < size ? i : 0;
      x[i] = from[2 * point];
      y[i] = from[2 * point + 1];
      reach[i] = radius * strides[point];
    }
  }

  // Give the points that are candidates for an object to it.
  template <bool strict, bool anywhere>
  void give(const Objects& objects, std::int32_t object, std::int32_t* __restrict own) const {
    const float x1 = objects.x1[object], y1 = objects.y1[object], x2 = objects.x2[object], y2 = objects.y2[object];
    const float center_x = objects.x[object], center_y = objects.y[object];
    for (int i = 0; i < few; ++i) {
      const float left = x[i] - x1, top = y[i] - y1, right = x2 - x[i], bottom = y2 - y[i];
      const float size = larger(larger(left, right), larger(top, bottom));
      const bool inside = (left > 0.0f) & (top > 0.0f) & (right > 0.0f) & (bottom > 0.0f);
      const bool fits = strict ? (size > low[i]) & (size < high[i]) : (size >= low[i]) & (size <= high[i]);
      const bool central =
          anywhere | ((absolute(center_x - x[i]) < reach[i]) & (absolute(center_y - y[i]) < reach[i]));
      own[i] = (inside & fits & central) ? object : own[i];
    }
  }
};

template <bool strict, bool anywhere>
void assign(const Arguments& arguments) {
  const std::int64_t count = arguments.tensor(0).size[0];
  const float* points = arguments.tensor(0).floats(count * 2);
  const float* strides = arguments.tensor(1).floats(count);
  const Ranges ranges(strides, count, arguments.tensor(2), arguments.tensor(3));
  const Order order(arguments.tensor(4), arguments.tensor(5), arguments.tensor(6));
  const Objects objects(order);
  const Verdicts verdicts(order, arguments.tensor(7), arguments.tensor(8), arguments.tensor(9));
  const float radius = static_cast<float>(arguments.number(0));
  for_parts(count, few_in_task * few, arguments.threads, [&](std::int64_t begin, std::int64_t end) {
    const Array<std::int32_t> near(objects.count + 1, 0);
    for (std::int64_t first = begin; first < end; first += few) {
      const int size = static_cast<int>(end - first < few ? end - first : few);
      const Bounds<2> around(points + first * 2, size);
      std::int64_t left =
          boxes_near(objects, around.low[0], around.low[1], around.high[0], around.high[1], near.begin());
      alignas(64) std::int32_t own[few];
      for (int i = 0; i < few; ++i) own[i] = -1;
      if (left > 0) {
        Points block(points + first * 2, strides + first, size, radius);
        ranges.read(first, size, block.low, block.high);
        while (left-- > 0) block.give<strict, anywhere>(objects, near[left], own);  // the smallest comes last and stays
      }
      alignas(64) const std::uint8_t sure[few] = {};
      verdicts.write(first, size, own, sure);
    }
  });
}

// tensors: points (P, 2); strides (P); lowest and highest size for each point (P), or nothing for the paper's; objects (G, 4);
// their labels (G) int64; mask of crowd regions among them (G), or nothing; mask of points that are ignored unless they are
// positive (P), or nothing; results: the row of each point's object (P) int64, -1 for none, and its state (P) int8; numbers:
// the radius around an object's centre in strides, negative for none, and whether sizes on a bound belong to no range
void fcos_points(const Arguments& arguments) {
  const bool anywhere = arguments.number(0) < 0.0, strict = arguments.number(1) != 0.0;
  if (strict) return anywhere ? assign<true, true>(arguments) : assign<true, false>(arguments);
  return anywhere ? assign<false, true>(arguments) : assign<false, false>(arguments);
}

}  // namespace

void add_points(Table& table) { table.add("fcos_points", fcos_points); }

}  // namespace lossatlas::LOSSATLAS_ISA
