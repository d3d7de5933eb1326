// Which few predictions each object may take, without a matrix of predictions and objects. The twins are in
// src/lossatlas/assign/nearest.py.
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
        values(columns * blocks * width, 0.0f),
        lowest(columns * blocks, infinity),
        highest(columns * blocks, -infinity) {
    const float* rows = tensor.floats(count * columns);
    for_parts(blocks, blocks_in_task, threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t block = begin; block < end; ++block) {
        for (std::int64_t column = 0; column < columns; ++column) read(rows + column, column, block);
      }
    });
  }

  void read(const float* rows, std::int64_t column, std::int64_t block) const {
    float* few = values.begin() + (column * blocks + block) * width;
    const int size = size_of(block);
    alignas(64) float low[width], high[width];
    for (int i = 0; i < width; ++i) low[i] = high[i] = infinity;
    for (int i = 0; i < size; ++i) {
      const float x = rows[(block * width + i) * columns];
      few[i] = x;
      low[i] = x == x ? x : infinity;
      high[i] = x == x ? -x : infinity;
    }
    lowest[column * blocks + block] = lowest_of(low);
    highest[column * blocks + block] = -lowest_of(high);
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

// The few smallest keys of many: a heap whose root is the largest of them.
class Smallest {
 public:
  explicit Smallest(std::int64_t most) : keys_(most, 0) {}

  void clear() { count_ = 0; }
  bool full() const { return count_ == keys_.size(); }
  std::int64_t count() const { return count_; }
  Key operator[](std::int64_t index) const { return keys_[index]; }

  // What a key must be below to be taken.
  Key limit() const { return full() ? keys_[0] : key_of(infinity, 0); }

  void offer(Key key) {
    if (key >= limit()) return;
    if (full()) {
      keys_[0] = key;
      sink(0, count_);
      return;
    }
    std::int64_t child = count_++;
    for (; child > 0 && keys_[(child - 1) / 2] < key; child = (child - 1) / 2) keys_[child] = keys_[(child - 1) / 2];
    keys_[child] = key;
  }

  // Sort by place. It is no heap any more.
  void sort_by_place() {
    for (std::int64_t i = 0; i < count_; ++i) keys_[i] = keys_[i] << 32 | keys_[i] >> 32;
    for (std::int64_t root = count_ / 2; root-- > 0;) sink(root, count_);
    for (std::int64_t last = count_; last-- > 1;) {
      const Key largest = keys_[0];
      keys_[0] = keys_[last];
      keys_[last] = largest;
      sink(0, last);
    }
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
      : predictions_(predictions), bounds_(predictions.blocks, 0.0f), furthest_(predictions.blocks, 0.0f), nearest(most) {}

  // `object`: as many numbers as there are columns.
  void run(const float* object) {
    nearest.clear();
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

}  // namespace

void add_candidates(Table& table) { table.add("nearest", nearest); }

}  // namespace lossatlas::LOSSATLAS_ISA
