// Predictions column by column, and the few best of many: what kernels of candidates share.
//
// As in matching.cpp the numbers are the twins' to the last bit, and predictions that follow each other in memory lie beside
// each other in the image, as a rule: what the box around a few of them cannot be, none of them is. Rounding keeps the order
// of numbers, so a bound computed by the operations of a distance bounds the distance as computed.
#pragma once

#include "kernels.hpp"
#include "math.hpp"
#include "memory.hpp"
#include "parallel.hpp"

namespace lossatlas::LOSSATLAS_ISA {

inline constexpr int width = 64;
inline constexpr std::int64_t blocks_in_task = 64;
inline constexpr std::int64_t objects_in_task = 4;

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
        high[i] = counts ? few[i] : -infinity;
      }
      lowest[column * blocks + block] = fold<smaller, width>(low);
      highest[column * blocks + block] = fold<larger, width>(high);
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

}  // namespace lossatlas::LOSSATLAS_ISA
