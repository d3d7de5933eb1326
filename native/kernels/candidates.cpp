// Which predictions each object may take, without a matrix of predictions and objects, and which it chooses. The twin is in
// src/lossatlas/assign/candidates.py.
#include "columns.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

// What an object reaches, as a condition on the rectangle of a prediction (its point, or its box) or of many.
struct Inside {
  float x1, y1, x2, y2, margin;
  Inside(const float* box, float margin) : x1(box[0]), y1(box[1]), x2(box[2]), y2(box[3]), margin(margin) {}
  bool operator()(float left, float top, float right, float bottom, float) const {
    return (right - x1 > margin) & (bottom - y1 > margin) & (x2 - left > margin) & (y2 - top > margin);
  }
};

struct Near {
  float x, y;
  Near(const float* box, float) : x((box[0] + box[2]) / 2.0f), y((box[1] + box[3]) / 2.0f) {}
  bool operator()(float left, float top, float right, float bottom, float radius) const {
    return (larger(left - x, x - right) < radius) & (larger(top - y, y - bottom) < radius);
  }
};

struct Either {
  Inside inside;
  Near near;
  Either(const float* box, float margin) : inside(box, margin), near(box, margin) {}
  bool operator()(float left, float top, float right, float bottom, float radius) const {
    return inside(left, top, right, bottom, radius) | near(left, top, right, bottom, radius);
  }
};

// Write the places of those of at most `width` rectangles that an object reaches, and return their number.
template <class Rule>
inline int reached(const Rule& rule, int size, const float* left, const float* top, const float* right,
                   const float* bottom, const float* radius, std::int64_t first, std::int64_t* __restrict places) {
  alignas(64) std::uint8_t within[width] = {};
  for (int i = 0; i < size; ++i) within[i] = rule(left[i], top[i], right[i], bottom[i], radius[i]);
  int count = 0;
  for (int eight = 0; eight < width; eight += 8) {
    std::uint64_t any;
    __builtin_memcpy(&any, within + eight, 8);
    if (any == 0) continue;
    for (int i = eight; i < eight + 8; ++i) {
      places[count] = first + i;
      count += within[i];
    }
  }
  return count;
}

template <class Rule>
void reach(const Arguments& arguments) {
  const int threads = arguments.threads;
  const Columns predictions(arguments.tensor(0), threads);
  const std::int64_t objects = arguments.tensor(1).size[0], count = predictions.count, blocks = predictions.blocks;
  const float* boxes = arguments.tensor(1).floats(objects * 4);
  const float margin = static_cast<float>(arguments.number(1));
  std::int64_t* counts = arguments.tensor(2).integers(objects);
  std::uint8_t* any = arguments.tensor(3).given() ? arguments.tensor(3).booleans(count) : nullptr;
  const std::int64_t* starts = arguments.tensor(4).given() ? arguments.tensor(4).integers(objects) : nullptr;
  std::int64_t* listed = starts != nullptr ? arguments.tensor(5).integers(arguments.tensor(5).size[0]) : nullptr;
  // A point is a rectangle without an area, with its radius beside it if the rule looks at one.
  const int right = predictions.columns == 4 ? 2 : 0, bottom = right + 1, radius = predictions.columns == 3 ? 2 : 0;
  for_parts(objects, objects_in_task, threads, [&](std::int64_t begin, std::int64_t end) {
    std::int64_t near[width], places[width];
    for (std::int64_t g = begin; g < end; ++g) {
      const Rule rule(boxes + g * 4, margin);
      std::int64_t found = 0;
      for (std::int64_t first = 0; first < blocks; first += width) {
        const int size = static_cast<int>(blocks - first < width ? blocks - first : width);
        const int near_count = reached(rule, size, predictions.low(0) + first, predictions.low(1) + first,
                                       predictions.high(right) + first, predictions.high(bottom) + first,
                                       predictions.high(radius) + first, first, near);
        for (int n = 0; n < near_count; ++n) {
          const std::int64_t at = near[n] * width;
          const int place_count = reached(rule, predictions.size_of(near[n]), predictions.of(0) + at,
                                          predictions.of(1) + at, predictions.of(right) + at, predictions.of(bottom) + at,
                                          predictions.of(radius) + at, at, places);
          if (listed != nullptr) {
            for (int i = 0; i < place_count; ++i) listed[starts[g] + found + i] = places[i];
          }
          if (any != nullptr) {
            // Several threads may write the same 1.
            for (int i = 0; i < place_count; ++i) __atomic_store_n(any + places[i], std::uint8_t{1}, __ATOMIC_RELAXED);
          }
          found += place_count;
        }
      }
      counts[g] = found;
    }
  });
}

// tensors: points of predictions (P, 2), with a radius (P, 3) unless the rule is inside, or their boxes (P, 4), boxes of
// objects (G, 4); results: how many predictions each object reaches (G) int64, which ones any object does (P) bool or none,
// which must be zeros; where the list of each object begins (G) int64 and the lists one after the other, int64, or none of
// both. numbers: the rule, 0 inside, 1 near, 2 either; the margin.
void reachable(const Arguments& arguments) {
  const double rule = arguments.number(0);
  if (rule == 0.0) {
    reach<Inside>(arguments);
  } else if (rule == 1.0) {
    reach<Near>(arguments);
  } else {
    reach<Either>(arguments);
  }
}

// The key of a number of any sign, smaller for a higher number.
inline Key descending(float number, std::int64_t place) {
  const std::uint32_t bits = static_cast<std::uint32_t>(as_bits(number + 0.0f));  // one zero, not two
  const std::uint32_t rank = bits >> 31 ? bits : ~bits & 0x7fffffffu;
  return static_cast<Key>(rank) << 32 | static_cast<std::uint32_t>(place);
}

// tensors: scores of pairs (N), object by object, where the pairs of each object begin, and their end (G + 1) int64, IoUs of
// pairs (N) or none; result: which pairs are among the highest of their object (N) bool; number: at most how many. With IoUs
// it is as many as the highest of them add up to, at least one. NaN and -infinity are never chosen.
void choose(const Arguments& arguments) {
  const std::int64_t count = arguments.tensor(0).size[0], objects = arguments.tensor(1).size[0] - 1;
  const float* score = arguments.tensor(0).floats(count);
  const std::int64_t* starts = arguments.tensor(1).integers(objects + 1);
  const float* iou = arguments.tensor(2).given() ? arguments.tensor(2).floats(count) : nullptr;
  std::uint8_t* chosen = arguments.tensor(3).booleans(count);
  const std::int64_t most = static_cast<std::int64_t>(arguments.number(0));
  for_parts(objects, objects_in_task, arguments.threads, [&](std::int64_t begin, std::int64_t end) {
    Smallest best(most, ~Key{0});
    for (std::int64_t g = begin; g < end; ++g) {
      std::int64_t wanted = most;
      if (iou != nullptr) {
        best.clear(most);
        for (std::int64_t i = starts[g]; i < starts[g + 1]; ++i) best.offer(descending(iou[i] == iou[i] ? iou[i] : 0.0f, i));
        best.sort();
        float sum = 0.0f;
        for (std::int64_t n = 0; n < best.count(); ++n) {
          const float x = iou[place_of(best[n])];
          sum += x == x ? x : 0.0f;
        }
        wanted = sum >= 1.0f ? static_cast<std::int64_t>(sum) : 1;
      }
      best.clear(wanted);
      for (std::int64_t i = starts[g]; i < starts[g + 1]; ++i) {
        chosen[i] = 0;
        if (score[i] > -infinity) best.offer(descending(score[i], i));
      }
      for (std::int64_t n = 0; n < best.count(); ++n) chosen[place_of(best[n])] = 1;
    }
  });
}

}  // namespace

void add_candidates(Table& table) {
  table.add("reachable", reachable);
  table.add("choose", choose);
}

}  // namespace lossatlas::LOSSATLAS_ISA