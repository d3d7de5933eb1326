// The functions of math.hpp on arrays, for their tests.
#include "math.hpp"

#include "kernels.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

// Tensors: the arguments and, of the same size, the results; contiguous float32.
template <class Function>
void apply(const Arguments& arguments, const Function& function) {
  const std::int64_t elements = arguments.tensor(0).elements();
  const float* __restrict from = arguments.tensor(0).floats(elements);
  float* __restrict to = arguments.tensor(1).floats(elements);
  for (std::int64_t i = 0; i < elements; ++i) to[i] = function(from[i]);
}

}  // namespace

void add_functions(Table& table) {
  table.add("function_exp", [](const Arguments& a) { apply(a, [](float x) { return exp(x); }); });
  table.add("function_exp_of_negative",
            [](const Arguments& a) { apply(a, [](float x) { return exp_of_negative(-absolute(x)); }); });
  table.add("function_log", [](const Arguments& a) { apply(a, [](float x) { return log(x); }); });
  table.add("function_log1p", [](const Arguments& a) { apply(a, [](float x) { return log1p(x); }); });
  table.add("function_softplus", [](const Arguments& a) { apply(a, [](float x) { return softplus(x); }); });
  table.add("function_sigmoid", [](const Arguments& a) { apply(a, [](float x) { return logistic(x).sigmoid; }); });
  table.add("function_atan", [](const Arguments& a) { apply(a, [](float x) { return atan(x); }); });
}

}  // namespace lossatlas::LOSSATLAS_ISA
