// Cross entropy and focal loss of class logits with class indices, in one pass over all classes of a block of pixels. Their
// twins are in src/lossatlas/losses: classification.py and focal.py.
#include "softmax.hpp"

#include "parallel.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

enum class Reduction { none, sum, mean };

// Tensors and numbers, in this order (src/lossatlas/kernels/softmax.py):
//
//   tensors  input with a class axis; target, weight or nothing, upstream or nothing, value or nothing: without that axis
//            (upstream and value one number each unless the reduction is "none"); gradient, like the input, or nothing;
//            normalizer, one number, or nothing; class weights (C,)
//   numbers  the reduction, the ignored index, the class axis, gamma, label smoothing (for gamma 0)
template <int Width>
class ClassCosts {
 public:
  explicit ClassCosts(const Arguments& arguments)
      : arguments_(arguments),
        reduction_(static_cast<Reduction>(static_cast<int>(arguments.number(0)))),
        ignored_(static_cast<float>(arguments.number(1))),
        gamma_(static_cast<float>(arguments.number(3))),
        focal_(focal_for(arguments.number(3))),
        smoothing_(static_cast<float>(arguments.number(4))),
        input_(arguments.tensor(0), static_cast<int>(arguments.number(2))),
        gradient_(arguments.tensor(5), static_cast<int>(arguments.number(2))),
        class_weight_(arguments.tensor(7).floats(input_.classes)),
        layout_({&input_.first, &arguments.tensor(1), &arguments.tensor(2), of_pixels(3), of_pixels(4),
                 &gradient_.first}) {
    if (layout_.given(gradient)) check_storable(gradient_.first);
    if (layout_.given(values)) check_storable(arguments.tensor(4));
    const std::int64_t blocks = task_elements / (input_.classes * Width);
    task_size_ = Width * (blocks < 1 ? 1 : blocks);
    for (std::int64_t c = 0; c < input_.classes; ++c) mean_weight_ += class_weight_[c];
    mean_weight_ /= static_cast<float>(input_.classes);
  }

  void run() const {
    const std::int64_t tasks = (layout_.elements() + task_size_ - 1) / task_size_;
    const bool reduced = reduction_ != Reduction::none;
    const Partials checked(tasks, 2);
    parallel(tasks, arguments_.threads, [&](std::int64_t task) { check(task, checked[task]); });
    if (checked.total(1) != 0.0) throw Error{"a class index is out of range"};
    double divisor = 1.0;
    if (reduction_ == Reduction::mean) {
      divisor = arguments_.tensor(6).given() ? arguments_.tensor(6).scalar() : checked.total(0);
      if (divisor == 0.0) divisor = 1.0;
    }
    const double outer = reduced && arguments_.tensor(3).given() ? arguments_.tensor(3).scalar() : 1.0;
    const float factor = static_cast<float>(outer / divisor);
    const Partials sums(tasks);
    parallel(tasks, arguments_.threads, [&](std::int64_t task) { *sums[task] = part(task, factor); });
    if (reduced && arguments_.tensor(4).given()) {
      arguments_.tensor(4).floats(1)[0] = static_cast<float>(sums.total() / divisor);
    }
  }

 private:
  enum Operand { input, target, weight, upstream, values, gradient };

  static constexpr std::int64_t task_elements = 262144;

  const Tensor* of_pixels(int index) const {
    static constexpr Tensor nothing{};
    return reduction_ == Reduction::none ? &arguments_.tensor(index) : &nothing;
  }

  template <class Body>
  void for_blocks(std::int64_t task, const Body& body) const {
    const std::int64_t first = task * task_size_;
    const std::int64_t last = first + task_size_ < layout_.elements() ? first + task_size_ : layout_.elements();
    for (std::int64_t begin = first; begin < last; begin += Width) {
      body(begin, static_cast<int>(last - begin < Width ? last - begin : Width));
    }
  }

  // Count the pixels that are not ignored, and those whose index is no class.
  void check(std::int64_t task, double* counts) const {
    const float classes = static_cast<float>(input_.classes);
    Block buffer;
    for_blocks(task, [&](std::int64_t begin, int count) {
      const float* index = layout_.load(target, begin, count, buffer, 0, Width);
      std::int32_t valid = 0, wrong = 0;
      for (int i = 0; i < count; ++i) {
        const bool counts_here = index[i] != ignored_;
        valid += counts_here;
        wrong += counts_here & ((index[i] < 0.0f) | (index[i] >= classes));
      }
      counts[0] += valid;
      counts[1] += wrong;
    });
  }

  double part(std::int64_t task, float factor) const {
    Softmax<Width> softmax(input_.classes);
    Block buffer, target_buffer, valid, value, slope, outer;
    Sum sum;
    for_blocks(task, [&](std::int64_t begin, int count) {
      const float* index = layout_.load(target, begin, count, target_buffer, 0, Width);
      for (int i = 0; i < Width; ++i) valid.values[i] = (index[i] != ignored_) & (i < count) ? 1.0f : 0.0f;
      softmax.compute(index, valid.values, [&](std::int64_t c) {
        return layout_.load(input, begin, count, buffer, c * input_.stride, Width);
      });
      focal_(softmax.miss, softmax.log_probability, gamma_, Width, value.values, slope.values);
      for (int i = 0; i < Width; ++i) {
        const float w = valid.values[i] != 0.0f ? class_weight_[static_cast<std::int32_t>(index[i])] : 0.0f;
        value.values[i] *= w;
        slope.values[i] *= w;
        outer.values[i] = valid.values[i] != 0.0f ? factor : 0.0f;
      }
      if (smoothing_ != 0.0f) smooth(softmax, begin, count, value.values, slope.values);
      if (layout_.given(weight)) {
        const float* w = layout_.load(weight, begin, count, buffer, 0, Width);
        for (int i = 0; i < Width; ++i) {
          value.values[i] *= w[i];
          outer.values[i] *= w[i];
        }
      }
      for (int i = 0; i < Width; ++i) value.values[i] = valid.values[i] != 0.0f ? value.values[i] : 0.0f;
      if (layout_.given(values)) layout_.store(values, begin, count, value.values);
      if (reduction_ != Reduction::none) sum.add(value.values, Width);
      if (!layout_.given(gradient)) return;
      if (layout_.given(upstream)) {
        const float* u = layout_.load(upstream, begin, count, buffer, 0, Width);
        for (int i = 0; i < Width; ++i) outer.values[i] *= u[i];
      }
      for (int i = 0; i < Width; ++i) outer.values[i] = valid.values[i] != 0.0f ? outer.values[i] : 0.0f;
      for (int i = 0; i < Width; ++i) slope.values[i] *= outer.values[i];
      for (std::int64_t c = 0; c < input_.classes; ++c) {
        float* to = layout_.destination(gradient, begin, count, buffer, c * gradient_.stride, Width);
        differentiate(softmax, c, slope.values, outer.values, to);
        if (to == buffer.values) layout_.store(gradient, begin, count, to, c * gradient_.stride);
      }
    });
    return sum.total();
  }

  // Add the mean cost of all classes, with the label smoothing as its share.
  void smooth(const Softmax<Width>& softmax, std::int64_t begin, int count, float* __restrict value,
              float* __restrict slope) const {
    Block buffer, distance;
    for (int i = 0; i < Width; ++i) distance.values[i] = 0.0f;
    for (std::int64_t c = 0; c < input_.classes; ++c) {
      const float* x = layout_.load(input, begin, count, buffer, c * input_.stride, Width);
      const float w = class_weight_[c] / static_cast<float>(input_.classes);
      for (int i = 0; i < Width; ++i) distance.values[i] += w * (softmax.maximum()[i] - x[i]);
    }
    for (int i = 0; i < Width; ++i) {
      const float every = distance.values[i] + mean_weight_ * softmax.log_sum[i];
      value[i] = (1.0f - smoothing_) * value[i] + smoothing_ * every;
      slope[i] *= 1.0f - smoothing_;
    }
  }

  void differentiate(const Softmax<Width>& softmax, std::int64_t c, const float* __restrict slope,
                     const float* __restrict outer, float* __restrict to) const {
    const float* __restrict e = softmax.exponentials(c);
    const float own = static_cast<float>(c);
    for (int i = 0; i < Width; ++i) {
      const float p = e[i] * softmax.scale[i];
      to[i] = slope[i] * (softmax.is_true(i, own) ? -softmax.miss[i] : p);
    }
    if (smoothing_ == 0.0f) return;
    const float w = class_weight_[c] / static_cast<float>(input_.classes);
    for (int i = 0; i < Width; ++i) to[i] += smoothing_ * outer[i] * (mean_weight_ * (e[i] * softmax.scale[i]) - w);
  }

  const Arguments& arguments_;
  Reduction reduction_;
  float ignored_, gamma_;
  Focal focal_;
  float smoothing_;
  Planes input_, gradient_;
  const float* class_weight_;
  float mean_weight_ = 0.0f;
  std::int64_t task_size_;
  Layout<6> layout_;
};

void class_costs(const Arguments& arguments) {
  if (Planes(arguments.tensor(0), static_cast<int>(arguments.number(2))).classes <= 64) {
    ClassCosts<wide>(arguments).run();
  } else {
    ClassCosts<narrow>(arguments).run();
  }
}

}  // namespace

void add_softmax(Table& table) { table.add("class_costs", class_costs); }

}  // namespace lossatlas::LOSSATLAS_ISA
