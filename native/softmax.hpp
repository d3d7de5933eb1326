// The softmax of a block of pixels over all classes, which stays in the cache while it is used.
#pragma once

#include "blocks.hpp"
#include "math.hpp"

namespace lossatlas::LOSSATLAS_ISA {

// The pixels of a tensor (N, C, *spatial) without its class axis: the plane of the first class.
struct Planes {
  Tensor first;
  std::int64_t classes = 1;
  std::int64_t stride = 0;

  // An absent tensor has no planes.
  explicit Planes(const Tensor& tensor, int axis) {
    if (!tensor.given()) return;
    if (axis >= tensor.axes) throw Error{"a tensor has no class axis"};
    first = tensor;
    classes = tensor.size[axis];
    stride = tensor.stride[axis];
    --first.axes;
    for (int k = axis; k < first.axes; ++k) {
      first.size[k] = tensor.size[k + 1];
      first.stride[k] = tensor.stride[k + 1];
    }
  }
};

// A block of pixels of every class.
class Rows {
 public:
  // `shift` leads to an image of a tensor whose axes are those of one.
  Rows(const Axes& axes, int operand, const Planes& planes, std::int64_t begin, int count, int width,
       std::int64_t shift = 0)
      : axes_(axes),
        operand_(operand),
        planes_(planes),
        begin_(begin),
        count_(count),
        width_(width),
        shift_(shift),
        step_(axes.step(operand)),
        there_(count == width ? axes.in_place(operand, begin, count, shift, step_) : nullptr) {}

  // Whether the classes of a pixel lie side by side; then all of them are brought and stored at once, to and from rows that
  // are `stride` apart.
  bool turned() const { return there_ != nullptr && step_ != 1 && planes_.stride == 1 && planes_.classes >= 4; }
  void load_all(float* to, std::int64_t stride) const { turn(there_, step_, width_, planes_.classes, to, stride); }
  void store_all(const float* from, std::int64_t stride) const {
    turn_back(from, stride, width_, planes_.classes, there_, step_);
  }

  // The numbers of class c, where they lie or brought to `to`.
  const float* load(std::int64_t c, float* to) const {
    if (there_ != nullptr && step_ == 1) return there_ + c * planes_.stride;
    return axes_.load(operand_, begin_, count_, to, shift_ + c * planes_.stride, width_);
  }

  void store(std::int64_t c, const float* __restrict from) const {
    if (there_ == nullptr || step_ != 1) {
      return axes_.store(operand_, begin_, count_, from, shift_ + c * planes_.stride);
    }
    float* __restrict to = there_ + c * planes_.stride;
    for (int i = 0; i < width_; ++i) to[i] = from[i];
  }

 private:
  const Axes& axes_;
  const int operand_;
  const Planes& planes_;
  const std::int64_t begin_;
  const int count_, width_;
  const std::int64_t shift_, step_;
  float* const there_;
};

// The softmax of a block of pixels whose true class is known. The true class, whose probability is nearly 1 where the network
// is right, is kept apart from the others, so that what is left of 1 has no cancellation and sums over the others need no
// comparisons: its place among the exponentials is 0.
class Softmax {
 public:
  explicit Softmax(std::int64_t classes)
      : width(width_for(classes)), classes_(classes), stride_(width + lanes), exponentials_(classes * stride_, 0.0f) {}

  // `index` is that of the true class of each pixel, of which only `count` count, and of those what is not ignored.
  void compute(const float* __restrict index, int count, float ignored, const Rows& logits) {
    find(index, count, ignored);
    if (logits.turned()) logits.load_all(row(0), stride_);
    for (std::int64_t c = 0; c < classes_; ++c) raise(logits.turned() ? row(c) : logits.load(c, row(c)), row(c));
    take_out();
    for (std::int64_t c = 0; c < classes_; ++c) add(row(c));
    finish();
  }

  // What finite numbers give for log_sum and log_probability.
  void logarithms() {
    for (int i = 0; i < width; ++i) {
      log_sum[i] = log(sum_[i]);
      const float tail = -log1p(others_[i]);
      const float far = (logit_[i] - maximum[i]) - log_sum[i];
      log_probability[i] = logit_[i] == maximum[i] ? tail : far;
    }
  }

  // e^(x - max) of a class, 0 for the pixels whose true class it is; times `scale` it is the probability.
  float* row(std::int64_t c) const { return exponentials_.begin() + c * stride_; }

  // Give the true class of each pixel a number of its own.
  void put_back(const float* values) {
    for (int i = 0; i < width; ++i) exponentials_[place_[i]] = values[i];
  }

  // Store the rows, of which the kernel has made the gradient.
  void store(const Rows& to) const {
    if (to.turned()) return to.store_all(row(0), stride_);
    for (std::int64_t c = 0; c < classes_; ++c) to.store(c, row(c));
  }

  // Set a class to 0 where a pixel does not count.
  void clear_ignored(float* __restrict values) const {
    for (int i = 0; i < width; ++i) values[i] = valid(i) ? values[i] : 0.0f;
  }

  bool valid(int i) const { return truth[i] >= 0.0f; }
  bool all_valid() const { return found == width; }

  const int width;      // pixels of the block
  std::int32_t found;   // how many of them count
  std::int32_t wrong;   // how many have an index that is no class, and do not count either
  alignas(64) float truth[block_size];            // the true class, -1 for what does not count
  alignas(64) float maximum[block_size];          // of the logits
  alignas(64) float scale[block_size];            // 0 for what does not count, as are the next two
  alignas(64) float hit[block_size];              // the probability of the true class
  alignas(64) float miss[block_size];             // 1 - that
  alignas(64) float log_sum[block_size];          // of the exponentials
  alignas(64) float log_probability[block_size];  // of the true class; exact in its tail where that is the likeliest one

 private:
  // Few where there are many classes, so that all of them stay in the cache.
  static int width_for(std::int64_t classes) { return classes <= 64 ? block_size / 2 : block_size / 8; }

  void find(const float* __restrict index, int count, float ignored) {
    const float classes = static_cast<float>(classes_);
    const std::int32_t stride = static_cast<std::int32_t>(stride_);
    found = wrong = 0;
    for (int i = 0; i < width; ++i) {
      const bool here = (index[i] != ignored) & (i < count);
      const bool known = (index[i] >= 0.0f) & (index[i] < classes);
      const bool counts = here & known;
      found += counts;
      wrong += here & !known;
      truth[i] = counts ? index[i] : -1.0f;
      place_[i] = static_cast<std::int32_t>(counts ? index[i] : 0.0f) * stride + i;
      maximum[i] = -infinity;
      others_[i] = 0.0f;
    }
  }

  void raise(const float* logits, float* kept) {
    if (!all_valid()) {
      for (int i = 0; i < width; ++i) kept[i] = valid(i) ? logits[i] : 0.0f;
      logits = kept;
    }
    if (logits == kept) {
      for (int i = 0; i < width; ++i) maximum[i] = kept[i] > maximum[i] ? kept[i] : maximum[i];
    } else {
      raise_and_keep(logits, kept);
    }
  }

  // A copy, since planes of a power of two would take each other's place in the cache.
  void raise_and_keep(const float* __restrict logits, float* __restrict kept) {
    for (int i = 0; i < width; ++i) {
      maximum[i] = logits[i] > maximum[i] ? logits[i] : maximum[i];
      kept[i] = logits[i];
    }
  }

  void take_out() {
    for (int i = 0; i < width; ++i) {
      logit_[i] = exponentials_[place_[i]];
      exponentials_[place_[i]] = -infinity;
    }
  }

  void add(float* __restrict e) {
    for (int i = 0; i < width; ++i) {
      e[i] = exp_of_negative(e[i] - maximum[i]);
      others_[i] += e[i];
    }
  }

  void finish() {
    for (int i = 0; i < width; ++i) {
      const float own = exp_of_negative(logit_[i] - maximum[i]);
      sum_[i] = others_[i] + own;
      scale[i] = valid(i) ? 1.0f / sum_[i] : 0.0f;
      hit[i] = own * scale[i];
      miss[i] = others_[i] * scale[i];
    }
  }

  std::int64_t classes_, stride_;
  Array<float> exponentials_;
  alignas(64) std::int32_t place_[block_size];  // of the true class among the exponentials
  alignas(64) float logit_[block_size];         // of the true class
  alignas(64) float sum_[block_size];           // of the exponentials
  alignas(64) float others_[block_size];        // of those of the other classes
};

// The focal loss of a block of pixels, and its derivative in minus the log-probability of the true class. With gamma 0 it
// is cross entropy.
using Focal = void (*)(const float* miss, const float* log_probability, float gamma, int width, float* value,
                       float* slope);

template <int Gamma>
inline void focal(const float* __restrict miss, const float* __restrict log_probability, float gamma, int width,
                  float* __restrict value, float* __restrict slope) {
  for (int i = 0; i < width; ++i) {
    const float l = log_probability[i];
    const Power focus = power<Gamma>(miss[i], gamma);
    value[i] = -focus.value * l;
    slope[i] = Gamma == 0 ? 1.0f : focus.value - focus.slope * exp(l) * l;
  }
}

inline Focal focal_for(double gamma) {
  Focal found = nullptr;
  with_exponent<0, 2>(gamma, [&](auto exponent) { found = focal<exponent.value>; });
  return found;
}

}  // namespace lossatlas::LOSSATLAS_ISA
