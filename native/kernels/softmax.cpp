// Cross entropy and focal loss of class logits with class indices, in one pass over all classes of a block of pixels. Their
// twins are in src/lossatlas/losses: classification.py and focal.py.
#include "softmax.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

// Tensors and numbers, in this order (src/lossatlas/kernels/softmax.py):
//
//   tensors  input with a class axis; target, weight or nothing, upstream or nothing, value or nothing: without that axis
//            (upstream and value one number each unless the reduction is "none"); gradient, like the input, or nothing;
//            normalizer, one number, or nothing; class weights (C,)
//   numbers  the reduction, the ignored index, the class axis, gamma, label smoothing (for gamma 0)
class ClassCosts {
 public:
  explicit ClassCosts(const Arguments& arguments)
      : arguments_(arguments),
        reduction_(arguments),
        ignored_(static_cast<float>(arguments.number(1))),
        gamma_(static_cast<float>(arguments.number(3))),
        focal_(focal_for(arguments.number(3))),
        smoothing_(static_cast<float>(arguments.number(4))),
        input_(arguments.tensor(0), static_cast<int>(arguments.number(2))),
        gradient_(arguments.tensor(5), static_cast<int>(arguments.number(2))),
        class_weight_(arguments.tensor(7).floats(input_.classes)),
        layout_({&input_.first, &arguments.tensor(1), &arguments.tensor(2), reduction_.of_elements(3),
                 reduction_.of_elements(4), &gradient_.first}) {
    if (layout_.given(gradient)) check_storable(gradient_.first);
    if (layout_.given(values)) check_storable(arguments.tensor(4));
    const std::int64_t blocks = task_elements / (input_.classes * block_size);
    task_size_ = block_size * (blocks < 1 ? 1 : blocks);
    for (std::int64_t c = 0; c < input_.classes; ++c) mean_weight_ += class_weight_[c];
    mean_weight_ /= static_cast<float>(input_.classes);
  }

  void run() const {
    const std::int64_t tasks = (layout_.elements() + task_size_ - 1) / task_size_;
    const Partials checked(tasks, 2);
    parallel(tasks, arguments_.threads, [&](std::int64_t task) { check(task, checked[task]); });
    if (checked.total(1) != 0.0) throw Error{"a class index is out of range"};
    reduction_.run(tasks, reduction_.divisor([&] { return checked.total(0); }),
                   [&](std::int64_t task, float factor) { return part(task, factor); });
  }

 private:
  enum Operand { input, target, weight, upstream, values, gradient };

  static constexpr std::int64_t task_elements = 262144;

  // Count the pixels that are not ignored, and those whose index is no class.
  void check(std::int64_t task, double* counts) const {
    const float classes = static_cast<float>(input_.classes);
    Block buffer;
    for_blocks(task, task_size_, layout_.elements(), block_size, [&](std::int64_t begin, int count) {
      const float* index = layout_.load(target, begin, count, buffer);
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
    Softmax softmax(input_.classes);
    const int width = softmax.width;
    Block buffer, value, slope, outer, own, shared;
    Sum sum;
    for_blocks(task, task_size_, layout_.elements(), width, [&](std::int64_t begin, int count) {
      const float* index = layout_.load(target, begin, count, buffer, 0, width);
      const Rows logits(layout_, input, input_, begin, count, width);
      const Rows gradients(layout_, gradient, gradient_, begin, count, width);
      softmax.compute(index, count, ignored_, logits, &gradients);
      softmax.logarithms();
      focal_(softmax.miss, softmax.log_probability, gamma_, width, value.values, slope.values);
      for (int i = 0; i < width; ++i) {
        const float w = softmax.valid(i) ? class_weight_[static_cast<std::int32_t>(softmax.truth[i])] : 0.0f;
        value.values[i] *= w;
        slope.values[i] *= w;
        outer.values[i] = factor;
      }
      if (smoothing_ != 0.0f) smooth(softmax, begin, count, value.values, slope.values);
      if (layout_.given(weight)) {
        const float* w = layout_.load(weight, begin, count, buffer, 0, width);
        for (int i = 0; i < width; ++i) {
          value.values[i] *= w[i];
          outer.values[i] *= w[i];
        }
      }
      softmax.clear_ignored(value.values);
      if (layout_.given(values)) layout_.store(values, begin, count, value.values);
      if (reduction_.reduces()) sum.add(value.values, width);
      if (!layout_.given(gradient)) return;
      if (layout_.given(upstream)) {
        const float* u = layout_.load(upstream, begin, count, buffer, 0, width);
        for (int i = 0; i < width; ++i) outer.values[i] *= u[i];
      }
      softmax.clear_ignored(outer.values);
      // The gradient is e shared - smoothed w, where w is the weight of the class, and a number of its own for the true one.
      float* smoothed = outer.values;
      for (int i = 0; i < width; ++i) {
        const float s = slope.values[i] * outer.values[i];
        smoothed[i] = smoothing_ * outer.values[i];
        shared.values[i] = softmax.scale[i] * (s + smoothed[i] * mean_weight_);
        own.values[i] = smoothed[i] * (mean_weight_ * softmax.hit[i]) - s * softmax.miss[i];
      }
      if (smoothing_ != 0.0f) {
        for (int i = 0; i < width; ++i) {
          const float w = softmax.valid(i) ? class_weight_[static_cast<std::int32_t>(softmax.truth[i])] : 0.0f;
          own.values[i] -= smoothed[i] * w / static_cast<float>(input_.classes);
        }
      }
      softmax.store_gradient(gradients, own.values, [&](std::int64_t c) {
        return [&shared, smoothed, w = class_weight_[c] / static_cast<float>(input_.classes)](int i, float e) {
          return e * shared.values[i] - smoothed[i] * w;
        };
      });
    });
    return sum.total();
  }

  // Add the mean cost of all classes, with the label smoothing as its share.
  void smooth(const Softmax& softmax, std::int64_t begin, int count, float* __restrict value,
              float* __restrict slope) const {
    Block buffer, distance;
    for (int i = 0; i < softmax.width; ++i) distance.values[i] = 0.0f;
    for (std::int64_t c = 0; c < input_.classes; ++c) {
      const float* x = layout_.load(input, begin, count, buffer, c * input_.stride, softmax.width);
      const float w = class_weight_[c] / static_cast<float>(input_.classes);
      for (int i = 0; i < softmax.width; ++i) distance.values[i] += w * (softmax.maximum[i] - x[i]);
    }
    for (int i = 0; i < softmax.width; ++i) {
      const float every = distance.values[i] + mean_weight_ * softmax.log_sum[i];
      value[i] = (1.0f - smoothing_) * value[i] + smoothing_ * every;
      slope[i] *= 1.0f - smoothing_;
    }
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

void class_costs(const Arguments& arguments) { ClassCosts(arguments).run(); }

}  // namespace

void add_softmax(Table& table) { table.add("class_costs", class_costs); }

}  // namespace lossatlas::LOSSATLAS_ISA
