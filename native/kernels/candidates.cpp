// Which few predictions each object may take, without a matrix of predictions and objects. The twins are in
// src/lossatlas/assign: nearest.py, candidates.py.
//
// As in matching.cpp the numbers are the twins' to the last bit, and predictions that follow each other in memory lie beside
// each other in the image, as a rule: what the box around a few of them cannot be, none of them is. Rounding keeps the order
// of numbers, so a bound computed by the operations of a distance bounds the distance as computed.
#include "kernels.hpp"
#include "math.hpp"
#include "memory.hpp"
#include "parallel.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

constexpr int width = 64;
constexpr std::int64_t blocks_in_task = 64;
constexpr std::int64_t objects_in_task = 4;

inline float larger(float a, float b) { return a > b ? a : b; }
inline float smaller(float a, float b) { return a < b ? a : b; }

// The lowest of a few numbers: half against half, which is vector code, until one is left. NaN is passed
// over unless it comes last.
inline float lowest_of(const float* numbers) {
  alignas(64) float left[width];
  for (int i = 0; i < width; ++i) left[i] = numbers[i];
  for (int half = width / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) left[i] = smaller(left[i], left[i + half]);
  }
  return left[0];
}

// Call body(begin, end) for the parts of a range of numbers.
template <class Body>
void for_parts(std::int64_t count, std::int64_t in_part, int threads, const Body& body) {
  parallel((count + in_part - 1) / in_part, threads, [&](std::int64_t part) {
    const std::int64_t end = (part + 1) * in_part;
    body(part * in_part, end < count ? end : count);
  });
}

// The numbers of predictions, column by column, with the lowest and the highest one of every few that follow each other. NaN
// is neither.
struct Columns {
  Columns(const Tensor& tensor, int threads)
      : count(tensor.size[0]),
        columns(tensor.size[1]),
        blocks((count + width - 1) / width),
        lowest(columns * blocks, infinity),
        highest(columns * blocks, -infinity) {
    if (columns < 2 || columns > 4) throw Error{"predictions have 2, 3 or 4 numbers"};
    values.allocate(columns * blocks * width);
    const float* rows = tensor.floats(count * columns);
    for_parts(blocks, blocks_in_task, threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t block = begin; block < end; ++block) {
        // With a constant number of columns, taking them apart becomes vector code.
        switch (columns) {
          case 2: read<2>(rows, block); break;
          case 3: read<3>(rows, block); break;
          default: read<4>(rows, block);
        }
      }
    });
  }

  template <int N>
  void read(const float* rows, std::int64_t block) const {
    const int size = size_of(block);
    const float* from = rows + block * width * N;
    alignas(64) float low[width], high[width];
    for (int column = 0; column < N; ++column) {
      float* __restrict few = values.begin() + (column * blocks + block) * width;
      if (size == width) {
        for (int i = 0; i < width; ++i) few[i] = from[i * N + column];
      } else {
        for (int i = 0; i < size; ++i) few[i] = from[i * N + column];
      }
      for (int i = 0; i < width; ++i) {
        const bool counts = (i < size) & (few[i] == few[i]);
        low[i] = counts ? few[i] : infinity;
        high[i] = counts ? -few[i] : infinity;
      }
      lowest[column * blocks + block] = lowest_of(low);
      highest[column * blocks + block] = -lowest_of(high);
    }
  }

  const float* of(std::int64_t column) const { return values.begin() + column * blocks * width; }
  const float* low(std::int64_t column) const { return lowest.begin() + column * blocks; }
  const float* high(std::int64_t column) const { return highest.begin() + column * blocks; }
  int size_of(std::int64_t block) const {
    const std::int64_t left = count - block * width;
    return static_cast<int>(left < width ? left : width);
  }

  std::int64_t count, columns, blocks;
  Array<float> values, lowest, highest;
};

// A number that is not negative and its place, in one integer with their order: of equal numbers the first is smaller. The
// integer of NaN is larger than that of infinity.
using Key = std::uint64_t;

inline Key key_of(float number, std::int64_t place) {
  return static_cast<Key>(static_cast<std::uint32_t>(as_bits(number))) << 32 | static_cast<std::uint32_t>(place);
}
inline float number_of(Key key) { return as_float(static_cast<std::int32_t>(key >> 32)); }
inline std::int64_t place_of(Key key) { return static_cast<std::int64_t>(key & 0xffffffff); }

// The few smallest keys of many, below a limit: a heap whose root is the largest of them.
class Smallest {
 public:
  Smallest(std::int64_t most, Key below) : below_(below), most_(most), keys_(most, 0) {}

  // Begin anew, with so many or fewer.
  void clear(std::int64_t most) {
    count_ = 0;
    most_ = most < keys_.size() ? most : keys_.size();
  }

  std::int64_t count() const { return count_; }
  Key operator[](std::int64_t index) const { return keys_[index]; }

  // What a key must be below to be taken.
  Key limit() const { return count_ == most_ ? keys_[0] : below_; }

  void offer(Key key) {
    if (key >= limit()) return;
    if (count_ == most_) {
      keys_[0] = key;
      sink(0, count_);
      return;
    }
    std::int64_t child = count_++;
    for (; child > 0 && keys_[(child - 1) / 2] < key; child = (child - 1) / 2) keys_[child] = keys_[(child - 1) / 2];
    keys_[child] = key;
  }

  // Afterwards it is no heap any more.
  void sort() {
    for (std::int64_t root = count_ / 2; root-- > 0;) sink(root, count_);
    for (std::int64_t last = count_; last-- > 1;) {
      const Key largest = keys_[0];
      keys_[0] = keys_[last];
      keys_[last] = largest;
      sink(0, last);
    }
  }

  void sort_by_place() {
    for (std::int64_t i = 0; i < count_; ++i) keys_[i] = keys_[i] << 32 | keys_[i] >> 32;
    sort();
    for (std::int64_t i = 0; i < count_; ++i) keys_[i] = keys_[i] << 32 | keys_[i] >> 32;
  }

 private:
  void sink(std::int64_t root, std::int64_t count) {
    const Key key = keys_[root];
    for (std::int64_t child = 2 * root + 1; child < count; child = 2 * root + 1) {
      child += child + 1 < count && keys_[child + 1] > keys_[child];
      if (keys_[child] <= key) break;
      keys_[root] = keys_[child];
      root = child;
    }
    keys_[root] = key;
  }

  std::int64_t count_ = 0;
  Key below_;
  std::int64_t most_;
  Array<Key> keys_;
};

// (x - x')^2 + (y - y')^2, at most the largest number there is: everybody has candidates.
struct Squared {
  static float term(float difference) { return difference * difference; }
  static float finish(float sum) { return sum <= largest ? sum : largest; }
  static constexpr float largest = 0x1.fffffep127f;
};

// The sum of the absolute differences. What is infinitely far away, or not a number, is no candidate.
struct Absolute {
  static float term(float difference) { return absolute(difference); }
  static float finish(float sum) { return sum < infinity ? sum : infinity; }
};

// The predictions that are nearest to one object after the other.
template <class Metric>
class Search {
 public:
  Search(const Columns& predictions, std::int64_t most)
      : predictions_(predictions), bounds_(predictions.blocks, 0.0f), furthest_(predictions.blocks, 0.0f), most_(most), nearest(most, key_of(infinity, 0)) {}

  // `object`: as many numbers as there are columns.
  void run(const float* object) {
    nearest.clear(most_);
    const std::int64_t blocks = predictions_.blocks;
    const std::int64_t start = bound(object);
    limit_ = infinity;
    // Outwards from the block that is nearest as a whole.
    for (std::int64_t step = 0; step < blocks; ++step) {
      const std::int64_t after = start + step, before = start - step;
      if (after < blocks && bounds_[after] <= limit_) visit(after, object);
      if (step > 0 && before >= 0 && bounds_[before] <= limit_) visit(before, object);
    }
  }

 private:
  // Compute how near a prediction of each block can be, and return the block whose furthest prediction can be least far.
  std::int64_t bound(const float* object) {
    const std::int64_t blocks = predictions_.blocks;
    float *__restrict least = bounds_.begin(), *__restrict most = furthest_.begin();
    for (std::int64_t b = 0; b < blocks; ++b) least[b] = most[b] = 0.0f;
    for (std::int64_t column = 0; column < predictions_.columns; ++column) {
      const float *low = predictions_.low(column), *high = predictions_.high(column);
      const float own = object[column];
      for (std::int64_t b = 0; b < blocks; ++b) {
        const float below = low[b] - own, above = own - high[b];
        least[b] += Metric::term(larger(larger(below, above), 0.0f));
        most[b] += Metric::term(smaller(below, above));
      }
    }
    std::int64_t start = 0;
    float lowest = infinity;
    for (std::int64_t b = 0; b < blocks; ++b) {
      least[b] = Metric::finish(least[b]);
      start = most[b] < lowest ? b : start;
      lowest = smaller(most[b], lowest);
    }
    return start;
  }

  void visit(std::int64_t block, const float* object) {
    const int size = predictions_.size_of(block);
    alignas(64) float distance[width];
    for (int i = 0; i < width; ++i) distance[i] = i < size ? 0.0f : infinity;
    for (std::int64_t column = 0; column < predictions_.columns; ++column) {
      const float* few = predictions_.of(column) + block * width;
      const float own = object[column];
      for (int i = 0; i < size; ++i) distance[i] += Metric::term(few[i] - own);
    }
    for (int i = 0; i < size; ++i) distance[i] = Metric::finish(distance[i]);
    const float least = lowest_of(distance);
    if (least > limit_) return;
    // In a row of a grid, distances grow from the nearest one on: beginning there, few are taken only to be dropped.
    int middle = 0;
    while (middle + 1 < size && distance[middle] != least) ++middle;
    for (int i = middle; i < size; ++i) offer(distance[i], block * width + i);
    for (int i = middle; i-- > 0;) offer(distance[i], block * width + i);
  }

  void offer(float distance, std::int64_t place) {
    if (distance <= limit_) {
      nearest.offer(key_of(distance, place));
      limit_ = number_of(nearest.limit());
    }
  }

  float limit_ = infinity;
  const Columns& predictions_;
  Array<float> bounds_, furthest_;
  std::int64_t most_;

 public:
  Smallest nearest;
};

template <class Metric>
void search(const Arguments& arguments) {
  const Columns predictions(arguments.tensor(0), arguments.threads);
  const std::int64_t columns = predictions.columns, objects = arguments.tensor(1).size[0];
  const std::int64_t most = arguments.tensor(2).size[1];
  const float* object = arguments.tensor(1).floats(objects * columns);
  std::int64_t* place = arguments.tensor(2).integers(objects * most);
  float* distance = arguments.tensor(3).floats(objects * most);
  for_parts(objects, objects_in_task, arguments.threads, [&](std::int64_t begin, std::int64_t end) {
    Search<Metric> search(predictions, most);
    for (std::int64_t g = begin; g < end; ++g) {
      search.run(object + g * columns);
      search.nearest.sort_by_place();
      for (std::int64_t i = 0; i < most; ++i) {
        const bool found = i < search.nearest.count();
        place[g * most + i] = found ? place_of(search.nearest[i]) : -1;
        distance[g * most + i] = found ? number_of(search.nearest[i]) : infinity;
      }
    }
  });
}

// tensors: the numbers of predictions (P, N), of objects (G, N); results: the predictions nearest to each object (G, K) int64
// in their order, -1 where there are fewer, and their distances (G, K); number: 0 for the squared distance, 1 for absolute
// differences. Of equal distances the first prediction is taken.
void nearest(const Arguments& arguments) {
  if (arguments.number(0) == 0.0) {
    search<Squared>(arguments);
  } else {
    search<Absolute>(arguments);
  }
}

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

// tensors: points of predictions (P, 2), with a radius (P, 3) unless the rule is inside, or their boxes (P, 4), boxes of objects
// (G, 4); results: how many
// predictions each object reaches (G) int64, which ones any object does (P) bool or none, which must be zeros; where the list
// of each object begins (G) int64 and the lists one after the other, int64, or none of both. numbers: the rule, 0 inside, 1
// near, 2 either; the margin.
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
  table.add("nearest", nearest);
  table.add("reachable", reachable);
  table.add("choose", choose);
}

}  // namespace lossatlas::LOSSATLAS_ISA
