// The Lovász extension of the Jaccard loss of one class: its errors sorted, its value, and its slopes in the errors.
//
// The sort is a stable radix sort, from the lowest digit up, of a key of the error together with the place of its pixel: equal
// errors keep the order of the pixels, as in the twin. Negatives whose error is below that of every positive come where the
// intersection is empty. They add nothing to the value and have no slope, and are left out before anything is sorted.
#pragma once

#include "blocks.hpp"
#include "math.hpp"
#include "parallel.hpp"

namespace lossatlas::LOSSATLAS_ISA {

enum class Errors { softmax, sigmoid, hinge };

// An error with the sign of a positive; what is ignored has bits that no error has.
inline constexpr std::int32_t ignored_bits = -1, sign_bit = static_cast<std::int32_t>(0x80000000u), nan_bits = 0x7fc00000;

inline float mark(float error, bool positive, bool valid) {
  const std::int32_t size = error == error ? as_bits(error) & 0x7fffffff : nan_bits;
  return as_float(valid ? (positive ? size | sign_bit : size) : ignored_bits);
}

// The pixels of one class in an image, or in all images of a batch, as marked errors.
class LovaszRow {
 public:
  // `plane` holds the pixels of the first image, and those of the next lie `step` numbers further.
  LovaszRow(Errors errors, float* plane, std::int64_t images, std::int64_t step, std::int64_t pixels, int threads)
      : errors_(errors), plane_(plane), step_(step), pixels_(pixels), count_(images * pixels), threads_(threads) {}

  static std::int64_t chunks(std::int64_t count) { return (count + chunk_size - 1) / chunk_size; }

  // Replace the errors by the slopes of the value, in probabilities for a softmax and in logits otherwise.
  void run() {
    survey();
    if (positives > 0) {
      sort();
      value = learn();
    } else if (valid > 0) {
      value = only_the_largest();
    } else {
      clear();
    }
  }

  // Replace the errors by slopes of 0.
  void clear() const {
    for_chunks(count_, [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      for_runs(begin, end, [&](std::int64_t place, std::int64_t length) {
        for (std::int64_t i = 0; i < length; ++i) plane_[place + i] = 0.0f;
      });
    });
  }

  double value = 0.0;
  std::int64_t valid = 0, positives = 0;

 private:
  using Item = std::uint64_t;  // from the highest bit: key (32), place in memory (31), whether it is positive

  static constexpr std::int64_t chunk_size = 65536;
  static constexpr int most_digits = 11;  // bits of a digit: the places that are written to at a time stay in the cache

  static bool positive(Item item) { return (item & 1) != 0; }
  static std::int64_t place(Item item) { return static_cast<std::int64_t>((item & 0xffffffffu) >> 1); }

  // Call body(chunk, begin, end) for all chunks of `count` things.
  template <class Body>
  void for_chunks(std::int64_t count, const Body& body) const {
    for_parts(count, chunk_size, threads_,
              [&](std::int64_t begin, std::int64_t end) { body(begin / chunk_size, begin, end); });
  }

  // Call body(place, length) for each run of memory of some pixels.
  template <class Body>
  void for_runs(std::int64_t begin, std::int64_t end, const Body& body) const {
    while (begin < end) {
      const std::int64_t image = begin / pixels_, first = begin - image * pixels_;
      const std::int64_t length = end - begin < pixels_ - first ? end - begin : pixels_ - first;
      body(image * step_ + first, length);
      begin += length;
    }
  }

  // Find the largest error and the smallest of a positive, and count.
  void survey() {
    struct Found {
      std::int32_t largest, smallest, positives, valid;
    };
    const Array<Found> found(chunks(count_), Found{0, nan_bits, 0, 0});
    for_chunks(count_, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end) {
      Found all = found[chunk];
      for_runs(begin, end, [&](std::int64_t place, std::int64_t length) {
        const float* __restrict from = plane_ + place;
        for (std::int64_t i = 0; i < length; ++i) {
          const std::int32_t bits = as_bits(from[i]), size = bits & 0x7fffffff;
          const bool counts = bits != ignored_bits, own = counts & (bits < 0);
          const std::int32_t candidate = counts ? size : 0, own_candidate = own ? size : nan_bits;
          all.largest = candidate > all.largest ? candidate : all.largest;
          all.smallest = own_candidate < all.smallest ? own_candidate : all.smallest;
          all.positives += own;
          all.valid += counts;
        }
      });
      found[chunk] = all;
    });
    for (std::int64_t chunk = 0; chunk < found.size(); ++chunk) {
      largest_ = found[chunk].largest > largest_ ? found[chunk].largest : largest_;
      smallest_ = found[chunk].smallest < smallest_ ? found[chunk].smallest : smallest_;
      positives += found[chunk].positives;
      valid += found[chunk].valid;
    }
  }

  // Without positives the first wrong pixel takes the loss from 0 to 1, and no other changes it.
  double only_the_largest() const {
    std::int64_t first = -1;
    for_runs(0, count_, [&](std::int64_t place, std::int64_t length) {
      for (std::int64_t i = 0; i < length && first < 0; ++i) {
        if (as_bits(plane_[place + i]) == largest_) first = place + i;
      }
    });
    clear();
    const float error = as_float(largest_);
    plane_[first] = slope(error, 1.0f);
    return static_cast<double>(error);
  }

  // The slope of an error in what the slopes are for, but for its sign.
  float slope(float error, float step) const {
    const float inner = errors_ == Errors::sigmoid ? error * (1.0f - error) : (error > 0.0f ? 1.0f : 0.0f);
    const float whole = errors_ == Errors::softmax ? step : step * inner;
    return error == error ? whole : error;
  }

  // Call body(item) for the pixels of a chunk that are sorted; the key is 0 for the largest error.
  template <class Body>
  void for_marked(std::int64_t begin, std::int64_t end, const Body& body) const {
    for_runs(begin, end, [&](std::int64_t place, std::int64_t length) {
      for (std::int64_t first = 0; first < length; first += block_size) {
        const int width = static_cast<int>(length - first < block_size ? length - first : block_size);
        const float* __restrict from = plane_ + place + first;
        std::uint8_t kept[block_size];
        std::int32_t found[block_size];
        for (int i = 0; i < width; ++i) {
          const std::int32_t bits = as_bits(from[i]);
          kept[i] = (bits != ignored_bits) & ((bits & 0x7fffffff) >= smallest_);
        }
        int count = 0;
        for (int i = 0; i < width; ++i) {
          found[count] = i;
          count += kept[i];
        }
        for (int k = 0; k < count; ++k) {
          const std::int32_t bits = as_bits(from[found[k]]);
          const Item key = static_cast<Item>(largest_ - (bits & 0x7fffffff));
          body(key << 32 | static_cast<Item>(place + first + found[k]) << 1 | static_cast<Item>(bits < 0));
        }
      }
    });
  }

  void sort() {
    int bits = 1;
    while (bits < 31 && (largest_ - smallest_) >> bits != 0) ++bits;
    const int passes = (bits + most_digits - 1) / most_digits;
    const int digits = (bits + passes - 1) / passes;
    distribute(count_, 32, digits, 0, [&](std::int64_t begin, std::int64_t end, const auto& body) {
      for_marked(begin, end, body);
    });
    for (int pass = 1; pass < passes; ++pass) {
      const Item* const from = items_[(pass - 1) % 2].begin();
      distribute(sorted_, 32 + pass * digits, digits, pass % 2,
                 [&](std::int64_t begin, std::int64_t end, const auto& body) {
                   for (std::int64_t i = begin; i < end; ++i) body(from[i]);
                 });
    }
    order_ = items_[(passes - 1) % 2].begin();
  }

  // Write what `source(begin, end, body)` lists of `count` things in the order of one digit.
  template <class Source>
  void distribute(std::int64_t count, int shift, int digits, int target, const Source& source) {
    const std::int64_t buckets = std::int64_t{1} << digits, parts = chunks(count);
    const Array<std::int32_t> starts(parts * buckets, 0);
    const auto bucket = [&](Item item) { return static_cast<std::int64_t>(item >> shift) & (buckets - 1); };
    for_chunks(count, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end) {
      std::int32_t* const counts = starts.begin() + chunk * buckets;
      source(begin, end, [&](Item item) { ++counts[bucket(item)]; });
    });
    std::int32_t total = 0;
    for (std::int64_t k = 0; k < buckets; ++k) {
      for (std::int64_t chunk = 0; chunk < parts; ++chunk) {
        std::int32_t& start = starts[chunk * buckets + k];
        const std::int32_t here = start;
        start = total;
        total += here;
      }
    }
    sorted_ = total;
    if (items_[target].size() == 0) items_[target].allocate(total);
    Item* const to = items_[target].begin();
    for_chunks(count, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end) {
      std::int32_t* const next = starts.begin() + chunk * buckets;
      source(begin, end, [&](Item item) { to[next[bucket(item)]++] = item; });
    });
  }

  // Go through the errors from the largest down; each further one is wrong too.
  double learn() const {
    clear();
    const std::int64_t parts = chunks(sorted_);
    const Array<std::int32_t> before(parts, 0);
    for_chunks(sorted_, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end) {
      std::int32_t found = 0;
      for (std::int64_t i = begin; i < end; ++i) found += positive(order_[i]);
      before[chunk] = found;
    });
    std::int32_t total = 0;
    for (std::int64_t chunk = 0; chunk < parts; ++chunk) {
      const std::int32_t here = before[chunk];
      before[chunk] = total;
      total += here;
    }
    const Partials sums(parts);
    for_chunks(sorted_, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end) {
      std::int32_t hits = before[chunk];
      Sum sum;
      for (std::int64_t first = begin; first < end; first += block_size) {
        hits = learn(first, static_cast<int>(end - first < block_size ? end - first : block_size), hits, sum);
      }
      *sums[chunk] = sum.total();
    });
    return sums.total();
  }

  // A wrong positive takes 1 from the intersection, a wrong negative adds 1 to the union. `hits` counts the positives.
  std::int32_t learn(std::int64_t first, int width, std::int32_t hits, Sum& sum) const {
    std::int32_t seen[block_size];
    Block error, slopes, terms;
    for (int i = 0; i < width; ++i) seen[i] = hits += positive(order_[first + i]);
    for (int i = width; i < block_size; ++i) terms.values[i] = 0.0f;
    const std::int32_t size = static_cast<std::int32_t>(positives), start = static_cast<std::int32_t>(first) + 1;
    for (int i = 0; i < width; ++i) {
      const Item item = order_[first + i];
      error.values[i] = as_float(largest_ - static_cast<std::int32_t>(item >> 32));
      const float intersection = static_cast<float>(size - seen[i]);
      const std::int32_t united = size + start + i - seen[i];
      const float without = static_cast<float>(united - 1 < 1 ? 1 : united - 1);
      const float step = (positive(item) ? 1.0f : intersection / without) / static_cast<float>(united);
      const float steep = slope(error.values[i], step);
      slopes.values[i] = positive(item) ? -steep : steep;
      terms.values[i] = error.values[i] * step;
    }
    sum.add(terms.values);
    for (int i = 0; i < width; ++i) plane_[place(order_[first + i])] = slopes.values[i];
    return hits;
  }

  Errors errors_;
  float* plane_;
  std::int64_t step_, pixels_, count_;
  int threads_;
  std::int32_t largest_ = 0, smallest_ = nan_bits;
  std::int64_t sorted_ = 0;
  Array<Item> items_[2];
  const Item* order_ = nullptr;
};

}  // namespace lossatlas::LOSSATLAS_ISA
