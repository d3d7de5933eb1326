// The predictions that are nearest to each object. The twin is in src/lossatlas/assign/nearest.py.
#include "columns.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

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
      : predictions_(predictions),
        bounds_(predictions.blocks, 0.0f),
        furthest_(predictions.blocks, 0.0f),
        most_(most),
        nearest(most, key_of(infinity, 0)) {}

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
    const float least = fold<smaller, width>(distance);
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

}  // namespace

void add_nearest(Table& table) { table.add("nearest", nearest); }

}  // namespace lossatlas::LOSSATLAS_ISA
