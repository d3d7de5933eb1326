#include "elementwise.hpp"

#include "blocks.hpp"
#include "parallel.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

enum class Reduction { none, sum, mean };

class Elementwise {
 public:
  explicit Elementwise(const Arguments& arguments)
      : arguments_(arguments),
        reduction_(static_cast<Reduction>(static_cast<int>(arguments.number(0)))),
        ignored_(static_cast<float>(arguments.number(1))),
        layout_({&arguments.tensor(0), &arguments.tensor(1), &arguments.tensor(2), of_elements(3), of_elements(4),
                 &arguments.tensor(5)}) {
    if (layout_.given(values)) check_storable(arguments.tensor(4));
    if (layout_.given(gradient)) check_storable(arguments.tensor(5));
  }

  void run(Evaluate evaluate, const void* loss) const {
    const std::int64_t elements = layout_.elements();
    const std::int64_t tasks = (elements + task_size - 1) / task_size;
    const Tensor& upstream_tensor = arguments_.tensor(3);
    const double divisor = reduction_ == Reduction::mean ? denominator(tasks) : 1.0;
    const double outer = reduction_ != Reduction::none && upstream_tensor.given() ? upstream_tensor.scalar() : 1.0;
    const float factor = static_cast<float>(outer / divisor);
    Partials sums(tasks);
    parallel(tasks, arguments_.threads, [&](std::int64_t task) { *sums[task] = part(task, evaluate, loss, factor); });
    if (reduction_ != Reduction::none && arguments_.tensor(4).given()) {
      arguments_.tensor(4).floats(1)[0] = static_cast<float>(sums.total() / divisor);
    }
  }

 private:
  enum Operand { input, target, weight, upstream, values, gradient };

  static constexpr std::int64_t task_size = 32 * block_size;

  // The upstream gradient and the value have the shape of the elements only where these are not reduced.
  const Tensor* of_elements(int index) const {
    static constexpr Tensor nothing{};
    return reduction_ == Reduction::none ? &arguments_.tensor(index) : &nothing;
  }

  double denominator(std::int64_t tasks) const {
    if (arguments_.tensor(6).given()) {
      const double given = arguments_.tensor(6).scalar();
      return given == 0.0 ? 1.0 : given;
    }
    double count = static_cast<double>(layout_.elements());
    if (ignored_ == ignored_) {
      Partials ignored(tasks);
      parallel(tasks, arguments_.threads, [&](std::int64_t task) { *ignored[task] = count_ignored(task); });
      count -= ignored.total();
    }
    return count < 1.0 ? 1.0 : count;
  }

  // Call body(begin, count) for the blocks of a task.
  template <class Body>
  void for_blocks(std::int64_t task, const Body& body) const {
    const std::int64_t first = task * task_size;
    const std::int64_t last = first + task_size < layout_.elements() ? first + task_size : layout_.elements();
    for (std::int64_t begin = first; begin < last; begin += block_size) {
      body(begin, static_cast<int>(last - begin < block_size ? last - begin : block_size));
    }
  }

  double count_ignored(std::int64_t task) const {
    Block buffer;
    std::int64_t found = 0;
    for_blocks(task, [&](std::int64_t begin, int count) {
      const float* y = layout_.load(target, begin, count, buffer);
      std::int32_t in_block = 0;
      for (int i = 0; i < count; ++i) in_block += y[i] == ignored_;
      found += in_block;
    });
    return static_cast<double>(found);
  }

  double part(std::int64_t task, Evaluate evaluate, const void* loss, float factor) const {
    const bool ignoring = ignored_ == ignored_;
    const bool summing = reduction_ != Reduction::none && arguments_.tensor(4).given();
    Block x_buffer, y_buffer, kept, buffer, value, slope;
    Sum sum;
    for_blocks(task, [&](std::int64_t begin, int count) {
      const float* x = layout_.load(input, begin, count, x_buffer);
      const float* y = layout_.load(target, begin, count, y_buffer);
      if (ignoring) {
        keep_valid(x, y, x_buffer.values, y_buffer.values, kept.values);
        x = x_buffer.values;
        y = y_buffer.values;
      }
      evaluate(loss, x, y, value.values, slope.values);
      if (layout_.given(weight)) {
        const float* w = layout_.load(weight, begin, count, buffer);
        multiply(value.values, w);
        multiply(slope.values, w);
      }
      if (ignoring) {
        clear_ignored(value.values, kept.values);
        clear_ignored(slope.values, kept.values);
      }
      if (layout_.given(gradient)) {
        if (layout_.given(upstream)) multiply(slope.values, layout_.load(upstream, begin, count, buffer));
        if (factor != 1.0f) scale(slope.values, factor);
        layout_.store(gradient, begin, count, slope.values);
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

  static void multiply(float* __restrict values, const float* __restrict factors) {
    for (int i = 0; i < block_size; ++i) values[i] *= factors[i];
  }

  static void scale(float* __restrict values, float factor) {
    for (int i = 0; i < block_size; ++i) values[i] *= factor;
  }

  const Arguments& arguments_;
  Reduction reduction_;
  float ignored_;
  Layout<6> layout_;
};

}  // namespace

void run_elementwise(const Arguments& arguments, Evaluate evaluate, const void* loss) {
  Elementwise(arguments).run(evaluate, loss);
}

}  // namespace lossatlas::LOSSATLAS_ISA
