#include "elementwise.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

class Elementwise {
 public:
  explicit Elementwise(const Arguments& arguments)
      : arguments_(arguments),
        reduction_(arguments),
        ignored_(static_cast<float>(arguments.number(1))),
        layout_({&arguments.tensor(0), &arguments.tensor(1), &arguments.tensor(2), reduction_.of_elements(3),
                 reduction_.of_elements(4), &arguments.tensor(5), &arguments.tensor(7)}) {
    if (layout_.given(values)) check_storable(arguments.tensor(4));
    if (layout_.given(gradient)) check_storable(arguments.tensor(5));
  }

  void run(Evaluate evaluate, const void* loss) const {
    const std::int64_t tasks = (layout_.elements() + task_size - 1) / task_size;
    reduction_.run(tasks, reduction_.divisor([&] { return valid(tasks); }),
                   [&](std::int64_t task, float scale) { return part(task, evaluate, loss, scale); });
  }

 private:
  enum Operand { input, target, weight, upstream, values, gradient, factors };

  static constexpr std::int64_t task_size = 32 * block_size;

  // How many elements are not ignored.
  double valid(std::int64_t tasks) const {
    if (ignored_ != ignored_) return static_cast<double>(layout_.elements());
    const Partials counts(tasks);
    parallel(tasks, arguments_.threads, [&](std::int64_t task) { *counts[task] = valid_of(task); });
    return counts.total();
  }

  double valid_of(std::int64_t task) const {
    Block buffer;
    std::int64_t found = 0;
    for_blocks(task, task_size, layout_.elements(), block_size, [&](std::int64_t begin, int count) {
      const float* y = layout_.load(target, begin, count, buffer);
      std::int32_t in_block = 0;
      for (int i = 0; i < count; ++i) in_block += y[i] != ignored_;
      found += in_block;
    });
    return static_cast<double>(found);
  }

  double part(std::int64_t task, Evaluate evaluate, const void* loss, float scale) const {
    const bool ignoring = ignored_ == ignored_;
    const bool summing = reduction_.reduces() && arguments_.tensor(4).given();
    Block x_buffer, y_buffer, factor_buffer, kept, buffer, value, own;
    Sum sum;
    for_blocks(task, task_size, layout_.elements(), block_size, [&](std::int64_t begin, int count) {
      const float* x = layout_.load(input, begin, count, x_buffer);
      const float* y = layout_.load(target, begin, count, y_buffer);
      if (ignoring) {
        keep_valid(x, y, x_buffer.values, y_buffer.values, kept.values);
        x = x_buffer.values;
        y = y_buffer.values;
      }
      const float* factor = layout_.given(factors) ? layout_.load(factors, begin, count, factor_buffer) : nullptr;
      float* slope = layout_.given(gradient) ? layout_.destination(gradient, begin, count, own) : own.values;
      evaluate(loss, x, y, factor, scale, value.values, slope);
      if (layout_.given(weight)) {
        const float* w = layout_.load(weight, begin, count, buffer);
        multiply(value.values, w);
        multiply(slope, w);
      }
      if (ignoring) {
        clear_ignored(value.values, kept.values);
        clear_ignored(slope, kept.values);
      }
      if (layout_.given(gradient)) {
        if (layout_.given(upstream)) multiply(slope, layout_.load(upstream, begin, count, buffer));
        if (slope == own.values) layout_.store(gradient, begin, count, slope);
      }
      if (layout_.given(values)) layout_.store(values, begin, count, value.values);
      if (summing) {
        for (int i = count; i < block_size; ++i) value.values[i] = 0.0f;
        sum.add(value.values);
      }
    });
    return sum.total();
  }

  void keep_valid(const float* x, const float* y, float* x_kept, float* y_kept, float* kept) const {
    for (int i = 0; i < block_size; ++i) {
      const bool valid = y[i] != ignored_;
      x_kept[i] = valid ? x[i] : 0.0f;
      y_kept[i] = valid ? y[i] : 0.0f;
      kept[i] = valid ? 1.0f : 0.0f;
    }
  }

  // Not a product: what is ignored may have a weight that is not finite.
  static void clear_ignored(float* __restrict values, const float* __restrict kept) {
    for (int i = 0; i < block_size; ++i) values[i] = kept[i] != 0.0f ? values[i] : 0.0f;
  }

  const Arguments& arguments_;
  Reduction reduction_;
  float ignored_;
  Layout<7> layout_;
};

}  // namespace

void run_elementwise(const Arguments& arguments, Evaluate evaluate, const void* loss) {
  Elementwise(arguments).run(evaluate, loss);
}

}  // namespace lossatlas::LOSSATLAS_ISA
