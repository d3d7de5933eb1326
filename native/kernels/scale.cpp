// Multiply a gradient, in place, by the gradient of what follows the loss.
#include "blocks.hpp"
#include "parallel.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

// Tensors: what is multiplied, any layout without overlaps; the factor, one number.
void scale(const Arguments& arguments) {
  const Tensor& tensor = arguments.tensor(0);
  check_storable(tensor);
  const float factor = static_cast<float>(arguments.tensor(1).scalar());
  if (factor == 1.0f) return;
  const Layout<1> layout({&tensor});
  constexpr std::int64_t task_size = 64 * block_size;
  const std::int64_t tasks = (layout.elements() + task_size - 1) / task_size;
  parallel(tasks, arguments.threads, [&](std::int64_t task) {
    Block buffer;
    for_blocks(task, task_size, layout.elements(), block_size, [&](std::int64_t begin, int count) {
      const float* values = layout.load(0, begin, count, buffer);
      for (int i = 0; i < block_size; ++i) buffer.values[i] = values[i] * factor;
      layout.store(0, begin, count, buffer.values);
    });
  });
}

}  // namespace

void add_scale(Table& table) { table.add("scale", scale); }

}  // namespace lossatlas::LOSSATLAS_ISA
