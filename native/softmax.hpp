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

// Pixels of a block: few where there are many classes, so that all of them stay in the cache.
inline constexpr int wide = 512, narrow = 64;

// The softmax of a block of pixels whose true class is known; e^(x - max) of class c and pixel i is exponentials[c][i].
template <int Width>
class Softmax {
 public:
  explicit Softmax(std::int64_t classes) : classes_(classes), exponentials_(classes * Width, 0.0f) {}

  // `truth` is the index of the true class, `valid` 0 for pixels whose logits count as 0. `plane(c)` returns the logits
  // of class c.
  template <class Plane>
  void compute(const float* __restrict truth, const float* __restrict valid, const Plane& plane) {
    for (int i = 0; i < Width; ++i) {
      truth_[i] = truth[i];
      valid_[i] = valid[i];
      maximum_[i] = -infinity;
      logit_[i] = sum_[i] = others_[i] = 0.0f;
    }
    for (std::int64_t c = 0; c < classes_; ++c) raise(plane(c));
    for (std::int64_t c = 0; c < classes_; ++c) add(plane(c), static_cast<float>(c), exponentials_.begin() + c * Width);
    for (int i = 0; i < Width; ++i) {
      scale[i] = 1.0f / sum_[i];
      miss[i] = others_[i] * scale[i];
      log_sum[i] = log(sum_[i]);
      const float tail = -log1p(others_[i]);
      const float far = (logit_[i] - maximum_[i]) - log_sum[i];
      log_probability[i] = logit_[i] == maximum_[i] ? tail : far;
    }
  }

  // The probabilities of class c are exponentials(c)[i] * scale[i].
  const float* exponentials(std::int64_t c) const { return exponentials_.begin() + c * Width; }
  bool is_true(int i, float c) const { return truth_[i] == c; }
  const float* maximum() const { return maximum_; }

  alignas(64) float scale[Width];
  alignas(64) float log_sum[Width];          // of the exponentials
  alignas(64) float log_probability[Width];  // of the true class; exact in its tail where that is the likeliest one
  alignas(64) float miss[Width];             // 1 - the probability of the true class, without cancellation

 private:
  void raise(const float* __restrict logits) {
    for (int i = 0; i < Width; ++i) {
      const float x = valid_[i] != 0.0f ? logits[i] : 0.0f;
      maximum_[i] = x > maximum_[i] ? x : maximum_[i];
    }
  }

  void add(const float* __restrict logits, float c, float* __restrict e) {
    for (int i = 0; i < Width; ++i) {
      const float x = valid_[i] != 0.0f ? logits[i] : 0.0f;
      const bool own = truth_[i] == c;
      e[i] = exp(x - maximum_[i]);
      sum_[i] += e[i];
      others_[i] += own ? 0.0f : e[i];
      logit_[i] = own ? x : logit_[i];
    }
  }

  std::int64_t classes_;
  Array<float> exponentials_;
  alignas(64) float truth_[Width];
  alignas(64) float valid_[Width];
  alignas(64) float maximum_[Width];
  alignas(64) float logit_[Width];   // of the true class
  alignas(64) float sum_[Width];     // of the exponentials
  alignas(64) float others_[Width];  // of the exponentials of the other classes
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
