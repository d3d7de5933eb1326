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
        there_(count == width && axes.given(operand) ? axes.in_place(operand, begin, count, shift, step_) : nullptr) {}

  // Whether the classes of a pixel lie side by side; then all of them are brought and stored at once, to and from rows that
  // are `stride` apart.
  bool turned() const { return there_ != nullptr && step_ != 1 && planes_.stride == 1 && planes_.classes >= 4; }
  void load_all(float* to, std::int64_t stride) const { turn(there_, step_, width_, planes_.classes, to, stride); }
  void store_all(const float* from, std::int64_t stride) const {
    turn_back(from, stride, width_, planes_.classes, there_, step_);
  }

  // Whether the tensor is given and the pixels of a class lie side by side, from at(c) on.
  bool direct() const { return there_ != nullptr && step_ == 1; }
  float* at(std::int64_t c) const { return there_ + c * planes_.stride; }

  // The numbers of class c, where they lie or brought to `to`.
  const float* load(std::int64_t c, float* to) const {
    if (direct()) return at(c);
    return axes_.load(operand_, begin_, count_, to, shift_ + c * planes_.stride, width_);
  }

  void store(std::int64_t c, const float* __restrict from) const {
    if (!direct()) return axes_.store(operand_, begin_, count_, from, shift_ + c * planes_.stride);
    float* __restrict to = at(c);
    for (int i = 0; i < width_; ++i) to[i] = from[i];
  }

  // Have class c of this block, or of the next, brought to the cache while there is something else to do.
  void expect(std::int64_t c) const {
    if (direct()) prefetch<1>(at(c));
  }
  void expect_next(std::int64_t c) const {
    if (direct()) prefetch<0>(at(c) + width_);
  }

 private:
  template <int writing>
  void prefetch(const float* first) const {
    for (int i = 0; i < width_; i += cache_line) __builtin_prefetch(first + i, writing, 2);
  }

  static constexpr int cache_line = 64 / sizeof(float);

  const Axes& axes_;
  const int operand_;
  const Planes& planes_;
  const std::int64_t begin_;
  const int count_, width_;
  const std::int64_t shift_, step_;
  float* const there_;
};

// A sum for each pixel that is wanted beside the softmax: of the exponentials of all but the true class, times a factor of
// their class.
struct WeightedSum {
  const float* factors;
  float* sum;
};

// The softmax of a block of pixels whose true class is known. The true class, whose probability is nearly 1 where the network
// is right, is kept apart from the others, so that what is left of 1 has no cancellation: its place among the exponentials
// is 0.
class Softmax {
 public:
  explicit Softmax(std::int64_t classes)
      : width(width_for(classes)), classes_(classes), stride_(width + lanes), exponentials_(classes * stride_, 0.0f) {}

  // `index` is that of the true class of each pixel, of which only `count` count, and of those what is not ignored. The
  // gradient, where one will be stored, is brought to the cache meanwhile.
  void compute(const float* __restrict index, int count, float ignored, const Rows& logits,
               const Rows* gradient = nullptr, const WeightedSum* weighted = nullptr) {
    find(index, count, ignored);
    if (logits.turned()) logits.load_all(row(0), stride_);
    for (std::int64_t c = 0; c < classes_; c += 2) raise(logits, c, c + 1 < classes_ ? c + 1 : c);
    take_out();
    if (weighted != nullptr) {
      for (int i = 0; i < width; ++i) weighted->sum[i] = 0.0f;
    }
    for (std::int64_t c = 0; c < classes_; ++c) {
      logits.expect_next(c);
      if (gradient != nullptr) gradient->expect(c);
      add(row(c));
      if (weighted != nullptr) add_weighted(row(c), weighted->factors[c], weighted->sum);
    }
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

  // Store the rows, of which the kernel has made something else.
  void store(const Rows& to) const {
    if (to.turned()) return to.store_all(row(0), stride_);
    for (std::int64_t c = 0; c < classes_; ++c) to.store(c, row(c));
  }

  // Store formula(c)(i, e) for every class, where e is the exponential of pixel i, but own[i] for its true class, and 0 for
  // what does not count.
  template <class Formula>
  void store_gradient(const Rows& to, const float* own, const Formula& formula) {
    const bool at_once = all_valid() && to.direct();
    for (std::int64_t c = 0; c < classes_; ++c) {
      const auto element = [this, own, number = static_cast<float>(c), other = formula(c)](int i, float e) {
        const float here = own[i], elsewhere = other(i, e);  // both: a branch for each pixel is not vector code
        return truth[i] == number ? here : elsewhere;
      };
      if (at_once) {
        write(element, row(c), to.at(c));
      } else {
        rewrite(element, row(c));
        if (!all_valid()) clear_ignored(row(c));
      }
    }
    if (!at_once) store(to);
  }

  // Set a class to 0 where a pixel does not count.
  void clear_ignored(float* __restrict values) const {
    for (int i = 0; i < width; ++i) values[i] = valid(i) ? values[i] : 0.0f;
  }

  bool valid(int i) const { return truth[i] >= 0.0f; }
  bool all_valid() const { return found == width; }

  // Not a power of two: a processor that compares the lowest bits of addresses takes a load of one array for a load of what
  // was just stored in another.
  static constexpr int most = block_size / 2, room = most + lanes;

  const int width;      // pixels of the block
  std::int32_t found;   // how many of them count
  std::int32_t wrong;   // how many have an index that is no class, and do not count either
  alignas(64) float truth[room];            // the true class, -1 for what does not count
  alignas(64) float maximum[room];          // of the logits
  alignas(64) float scale[room];            // 0 for what does not count, as are the next two
  alignas(64) float hit[room];              // the probability of the true class
  alignas(64) float miss[room];             // 1 - that
  alignas(64) float log_sum[room];          // of the exponentials
  alignas(64) float log_probability[room];  // of the true class; exact in its tail where that is the likeliest one

 private:
  // Few where there are many classes, so that all of them stay in the cache.
  static int width_for(std::int64_t classes) { return classes <= 64 ? most : most / 4; }

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

  // Raise the maximum to the logits of two classes, or twice to those of one, and keep them.
  void raise(const Rows& logits, std::int64_t c, std::int64_t d) {
    if (c == d || !logits.direct() || !all_valid()) {
      bring(logits, c);
      bring(logits, d);
      raise_to(row(c), row(d));
    } else {
      raise_and_keep(logits.at(c), logits.at(d), row(c), row(d));
    }
  }

  void bring(const Rows& logits, std::int64_t c) const {
    float* const kept = row(c);
    if (logits.direct()) {
      copy(logits.at(c), kept);
    } else if (!logits.turned()) {
      logits.load(c, kept);
    }
    if (!all_valid()) clear_ignored(kept);
  }

  void copy(const float* __restrict from, float* __restrict to) const {
    for (int i = 0; i < width; ++i) to[i] = from[i];
  }

  void raise_to(const float* __restrict a, const float* __restrict b) {
    for (int i = 0; i < width; ++i) maximum[i] = larger(larger(a[i], b[i]), maximum[i]);
  }

  // A copy, since planes of a power of two would take each other's place in the cache.
  void raise_and_keep(const float* a, const float* b, float* __restrict kept_a, float* __restrict kept_b) {
    for (int i = 0; i < width; ++i) {
      maximum[i] = larger(larger(a[i], b[i]), maximum[i]);
      kept_a[i] = a[i];
      kept_b[i] = b[i];
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

  void add_weighted(const float* __restrict e, float factor, float* __restrict sum) const {
    for (int i = 0; i < width; ++i) sum[i] += e[i] * factor;
  }

  template <class Element>
  void write(const Element& element, const float* __restrict e, float* __restrict to) const {
    for (int i = 0; i < width; ++i) to[i] = element(i, e[i]);
  }

  template <class Element>
  void rewrite(const Element& element, float* __restrict e) const {
    for (int i = 0; i < width; ++i) e[i] = element(i, e[i]);
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
  alignas(64) std::int32_t place_[room];  // of the true class among the exponentials
  alignas(64) float logit_[room];         // of the true class
  alignas(64) float sum_[room];           // of the exponentials
  alignas(64) float others_[room];        // of those of the other classes
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
