#include "box_pairs.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

std::int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::float64:
    case DType::int64: return 8;
    case DType::float32:
    case DType::int32: return 4;
    case DType::float16:
    case DType::bfloat16:
    case DType::int16: return 2;
    default: return 1;
  }
}

// One of the four numbers of all boxes.
Tensor side(const Tensor& boxes, int place) {
  Tensor tensor = boxes;
  if (!tensor.given()) return tensor;
  const int last = --tensor.axes;
  if (last < 0 || tensor.size[last] != 4) throw Error{"boxes must have a last axis of four"};
  tensor.data = static_cast<char*>(tensor.data) + place * tensor.stride[last] * size_of(tensor.dtype);
  return tensor;
}

class BoxPairs {
 public:
  explicit BoxPairs(const Arguments& arguments)
      : reduction_(arguments),
        sides_{side(arguments.tensor(0), 0), side(arguments.tensor(0), 1), side(arguments.tensor(0), 2),
               side(arguments.tensor(0), 3), side(arguments.tensor(1), 0), side(arguments.tensor(1), 1),
               side(arguments.tensor(1), 2), side(arguments.tensor(1), 3), side(arguments.tensor(5), 0),
               side(arguments.tensor(5), 1), side(arguments.tensor(5), 2), side(arguments.tensor(5), 3)},
        layout_({&sides_[0], &sides_[1], &sides_[2], &sides_[3], &sides_[4], &sides_[5], &sides_[6], &sides_[7],
                 &sides_[8], &sides_[9], &sides_[10], &sides_[11], &arguments.tensor(2), reduction_.of_elements(3),
                 reduction_.of_elements(4)}) {
    if (layout_.given(values)) check_storable(arguments.tensor(4));
    if (layout_.given(gradient)) check_storable(arguments.tensor(5));
  }

  void run(EvaluateBoxes evaluate, const void* loss) const {
    const std::int64_t pairs = layout_.elements();
    const std::int64_t tasks = (pairs + task_size - 1) / task_size;
    reduction_.run(tasks, reduction_.divisor([&] { return static_cast<double>(pairs); }),
                   [&](std::int64_t task, float factor) { return part(task, evaluate, loss, factor); });
  }

 private:
  enum Operand { input = 0, target = 4, gradient = 8, weight = 12, upstream = 13, values = 14 };

  static constexpr std::int64_t task_size = 4 * block_size;

  void bring(int operand, std::int64_t begin, int count, Block& to) const {
    const float* from = layout_.load(operand, begin, count, to);
    if (from == to.values) return;
    for (int i = 0; i < block_size; ++i) to.values[i] = from[i];
  }

  double part(std::int64_t task, EvaluateBoxes evaluate, const void* loss, float factor) const {
    PairBlock pairs;
    DualBlock found;
    Block buffer, factors;
    Sum sum;
    for_blocks(task, task_size, layout_.elements(), block_size, [&](std::int64_t begin, int count) {
      for (int k = 0; k < 4; ++k) {
        bring(input + k, begin, count, pairs.box[k]);
        bring(target + k, begin, count, pairs.target[k]);
      }
      evaluate(loss, &pairs, &found);
      for (int i = 0; i < block_size; ++i) factors.values[i] = factor;
      if (layout_.given(weight)) {
        const float* w = layout_.load(weight, begin, count, buffer);
        multiply(found.value.values, w);
        multiply(factors.values, w);
      }
      if (layout_.given(upstream)) multiply(factors.values, layout_.load(upstream, begin, count, buffer));
      if (layout_.given(gradient)) {
        for (int k = 0; k < 4; ++k) {
          multiply(found.slope[k].values, factors.values);
          layout_.store(gradient + k, begin, count, found.slope[k].values);
        }
      }
      if (layout_.given(values)) layout_.store(values, begin, count, found.value.values);
      for (int i = count; i < block_size; ++i) found.value.values[i] = 0.0f;
      sum.add(found.value.values);
    });
    return sum.total();
  }

  Reduction reduction_;
  Tensor sides_[12];
  Layout<15> layout_;
};

}  // namespace

void run_box_pairs(const Arguments& arguments, EvaluateBoxes evaluate, const void* loss) {
  BoxPairs(arguments).run(evaluate, loss);
}

}  // namespace lossatlas::LOSSATLAS_ISA
