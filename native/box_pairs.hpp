// Value and gradient, in one pass, of a loss of a predicted box and its object.
//
// A loss is a small struct: `loss(box, target)` returns the value of a pair of boxes as a `Dual`, which carries the
// derivatives in the four numbers of the predicted box. Everything else is in box_pairs.cpp, once for all of them.
#pragma once

#include "blocks.hpp"
#include "dual.hpp"

namespace lossatlas::LOSSATLAS_ISA {

struct Box {
  Dual x1, y1, x2, y2;
};

// A block of pairs of boxes, and of losses with their derivatives in the four numbers of the predicted box.
struct PairBlock {
  Block box[4], target[4];
};
struct DualBlock {
  Block value, slope[4];
};

// Computes the elements of one block.
using EvaluateBoxes = void (*)(const void* loss, const PairBlock* pairs, DualBlock* result);

// What every kernel of boxes is given, in this order (src/lossatlas/kernels/box_pairs.py):
//
//   tensors  input and target, of one shape whose last axis has the four numbers; weight or nothing, without that axis;
//            upstream: the gradient of what follows, like the weight for the reduction "none", else one number; or nothing;
//            value: where the result goes, like the weight for "none", else one float32; or nothing;
//            gradient: where the gradient goes, like the input; or nothing;
//            normalizer: one number, which replaces the count of "mean"; or nothing
//   numbers  the reduction (0 none, 1 sum, 2 mean), and the loss's own
void run_box_pairs(const Arguments& arguments, EvaluateBoxes evaluate, const void* loss);

// All calls are inlined, without which the loop does not become vector code.
template <class Loss>
[[gnu::flatten]] inline void evaluate_boxes(const void* given, const PairBlock* __restrict pairs,
                                            DualBlock* __restrict result) {
  const Loss loss = *static_cast<const Loss*>(given);
  for (int i = 0; i < block_size; ++i) {
    const Box box{{pairs->box[0].values[i], 1.0f, 0.0f, 0.0f, 0.0f},
                  {pairs->box[1].values[i], 0.0f, 1.0f, 0.0f, 0.0f},
                  {pairs->box[2].values[i], 0.0f, 0.0f, 1.0f, 0.0f},
                  {pairs->box[3].values[i], 0.0f, 0.0f, 0.0f, 1.0f}};
    const Box target{pairs->target[0].values[i], pairs->target[1].values[i], pairs->target[2].values[i],
                     pairs->target[3].values[i]};
    const Dual element = loss(box, target);
    result->value.values[i] = element.value;
    result->slope[0].values[i] = element.x1;
    result->slope[1].values[i] = element.y1;
    result->slope[2].values[i] = element.x2;
    result->slope[3].values[i] = element.y2;
  }
}

template <class Loss>
inline void run_box_pairs(const Arguments& arguments, const Loss& loss) {
  run_box_pairs(arguments, evaluate_boxes<Loss>, &loss);
}

// A number of the loss's own.
inline float parameter(const Arguments& arguments, int index) { return static_cast<float>(arguments.number(1 + index)); }

}  // namespace lossatlas::LOSSATLAS_ISA
