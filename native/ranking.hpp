// What ranking losses do with positives that are sorted by their logits: look others up among them, and compare all of them
// with each other.
#pragma once

#include "blocks.hpp"
#include "parallel.hpp"

namespace lossatlas::LOSSATLAS_ISA {

inline double safe_divide(double a, double b) { return b > 0.0 ? a / b : 0.0; }

// The negatives of a block that come near a positive or beat it, and where they stand among the sorted positives.
struct Found {
  int count;
  std::int32_t place[block_size];
  double logit[block_size];
  std::int64_t clear[block_size], near[block_size];
};

// Sorted numbers, found in steps of powers of two.
class Ladder {
 public:
  void set(const double* sorted, std::int64_t count) {
    while ((std::int64_t{1} << steps_) <= count) ++steps_;
    padded_.allocate(std::int64_t{1} << steps_);
    for (std::int64_t i = 0; i < padded_.size(); ++i) padded_[i] = i < count ? sorted[i] : __builtin_inf();
  }

  // How many are below a number.
  std::int64_t below(double x) const {
    std::int64_t place = 0;
    for (std::int64_t half = padded_.size() / 2; half > 0; half /= 2) place += padded_[place + half - 1] < x ? half : 0;
    return place;
  }

  // Find the negatives of a block, whose target is 0, and how many positives each beats by delta, and beats nearly.
  void look_up(const float* __restrict x, const float* __restrict y, int size, float ignored, double delta,
               Found& found) const {
    const double least = padded_[0] - delta;
    std::uint8_t kept[block_size];
    for (int i = 0; i < size; ++i) kept[i] = (y[i] == 0.0f) & (y[i] != ignored) & (static_cast<double>(x[i]) > least);
    int count = 0;
    for (int i = 0; i < size; ++i) {
      found.place[count] = i;
      count += kept[i];
    }
    found.count = count;
    for (int i = 0; i < count; ++i) found.logit[i] = x[found.place[i]];
    for (int i = 0; i < count; ++i) found.clear[i] = found.near[i] = 0;
    const double* __restrict sorted = padded_.begin();
    for (int k = steps_ - 1; k >= 0; --k) {
      const std::int64_t half = std::int64_t{1} << k;
      for (int i = 0; i < count; ++i) {
        found.clear[i] += sorted[found.clear[i] + half - 1] <= found.logit[i] - delta ? half : 0;
        found.near[i] += sorted[found.near[i] + half - 1] < found.logit[i] + delta ? half : 0;
      }
    }
  }

 private:
  Array<double> padded_;  // with infinity up to a power of two
  int steps_ = 0;
};

// Sums side by side, so that their additions are vector code.
struct Doubles {
  static constexpr int lanes = 8;
  double sums[lanes] = {};
  double total() const {
    double sum = 0.0;
    for (int lane = 0; lane < lanes; ++lane) sum += sums[lane];
    return sum;
  }
};

// Positives that are to be in the order of their qualities. Every one is compared with those that beat it.
struct ByQuality {
  const double* logit;
  const double* quality;
  std::int64_t count;
  double delta;
  const Ladder& ladder;

  double step(double difference) const {
    const double x = difference / (2.0 * delta) + 0.5;
    return x < 0.0 ? 0.0 : (x > 1.0 ? 1.0 : x);
  }

  // Call body(i) for all of them, in parts.
  template <class Body>
  void for_each(int threads, const Body& body) const {
    for_parts(count, 64, threads, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) body(i);
    });
  }

  // Call body(i, error, beaten): how wrongly each is placed, and how much those of lower quality beat it.
  template <class Body>
  void errors(int threads, const Body& body) const {
    for_each(threads, [&](std::int64_t i) {
      const double* __restrict s = logit;
      const double* __restrict q = quality;
      const double own = s[i], own_quality = q[i];
      Doubles all, all_costs, right, right_costs;
      for (std::int64_t first = ladder.below(own - delta); first < count; first += Doubles::lanes) {
        for (int lane = 0; lane < Doubles::lanes; ++lane) {
          const std::int64_t k = first + lane;
          const double beats = k < count ? step(s[k] - own) : 0.0, cost = k < count ? 1.0 - q[k] : 0.0;
          const double rightly = (k < count ? q[k] : 0.0) >= own_quality ? beats : 0.0;
          all.sums[lane] += beats;
          all_costs.sums[lane] += beats * cost;
          right.sums[lane] += rightly;
          right_costs.sums[lane] += rightly * cost;
        }
      }
      const double error = all_costs.total() / all.total() - right_costs.total() / right.total();
      body(i, error > 0.0 ? error : 0.0, all.total() - right.total());
    });
  }

  // Call body(i, update), of what each is pushed up and of what it is pushed down by those of higher quality that it beats.
  template <class Body>
  void update(const double* __restrict push, const double* beaten, int threads, const Body& body) const {
    for_each(threads, [&](std::int64_t k) {
      const double* __restrict s = logit;
      const double* __restrict q = quality;
      const double own = s[k], own_quality = q[k];
      const std::int64_t end = ladder.below(own + delta);
      Doubles down;
      for (std::int64_t first = 0; first < end; first += Doubles::lanes) {
        for (int lane = 0; lane < Doubles::lanes; ++lane) {
          const std::int64_t i = first + lane;
          const double worse = ((i < end) & (own_quality < (i < end ? q[i] : 0.0))) ? push[i] : 0.0;
          down.sums[lane] += worse != 0.0 ? worse * step(own - s[i]) : 0.0;
        }
      }
      body(k, down.total() - push[k] * beaten[k]);
    });
  }
};

}  // namespace lossatlas::LOSSATLAS_ISA
