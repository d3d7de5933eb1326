// Value and gradient, in one pass, of a loss of one number and its target.
//
// A loss is a small struct: `loss(x, y)` returns the value of an element and its derivative in x. Everything else (dtypes,
// layouts, ignored elements, weights, reductions, threads) is in elementwise.cpp, once for all of them.
#pragma once

#include "blocks.hpp"
#include "math.hpp"

namespace lossatlas::LOSSATLAS_ISA {

struct Element {
  float value, slope;
};

// Computes the elements of one block, with the slopes times `scale`; the factor is null unless the loss has one for each
// element.
using Evaluate = void (*)(const void* loss, const float* x, const float* y, const float* factor, float scale,
                          float* value, float* slope);

// What every elementwise kernel is given, in this order (src/lossatlas/kernels/elementwise.py):
//
//   tensors  input, target, weight or nothing, all of one shape;
//            upstream: the gradient of what follows, of that shape for the reduction "none", else one number; or nothing;
//            value: where the result goes, of that shape for "none", else one float32; or nothing;
//            gradient: where the gradient goes, of that shape; or nothing;
//            normalizer: one number, which replaces the count of "mean"; or nothing;
//            factor: a further number for each element, of that shape; or nothing
//   numbers  the reduction (0 none, 1 sum, 2 mean), the ignored target (NaN ignores nothing), and the loss's own
void run_elementwise(const Arguments& arguments, Evaluate evaluate, const void* loss);

template <class Loss>
inline void evaluate(const void* given, const float* __restrict x, const float* __restrict y,
                     const float* __restrict factor, float scale, float* __restrict value, float* __restrict slope) {
  const Loss loss = *static_cast<const Loss*>(given);
  for (int i = 0; i < block_size; ++i) {
    Element element;
    if constexpr (requires { loss(x[i], y[i], factor[i]); }) {
      element = loss(x[i], y[i], factor[i]);
    } else {
      element = loss(x[i], y[i]);
    }
    value[i] = element.value;
    slope[i] = element.slope * scale;
  }
}

template <class Loss>
inline void run_elementwise(const Arguments& arguments, const Loss& loss) {
  run_elementwise(arguments, evaluate<Loss>, &loss);
}

// A number of the loss's own.
inline float parameter(const Arguments& arguments, int index) { return static_cast<float>(arguments.number(2 + index)); }

}  // namespace lossatlas::LOSSATLAS_ISA
