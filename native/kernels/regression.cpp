// Losses of a number and its target. Their twins are in src/lossatlas/losses/regression.py.
#include "elementwise.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

// L1 for beta 0; Huber's loss for a factor of beta.
struct SmoothL1 {
  float beta, factor;

  Element operator()(float x, float y) const {
    const float error = x - y;
    const float distance = absolute(error);
    const float direction = error > 0.0f ? 1.0f : (error < 0.0f ? -1.0f : error);  // NaN stays NaN
    const bool near = distance < beta;
    const float value = near ? distance * distance / (2.0f * beta) : distance - 0.5f * beta;
    return {factor * value, factor * (near ? error / beta : direction)};
  }
};

void smooth_l1(const Arguments& arguments) {
  run_elementwise(arguments, SmoothL1{parameter(arguments, 0), parameter(arguments, 1)});
}

}  // namespace

void add_regression(Table& table) { table.add("smooth_l1", smooth_l1); }

}  // namespace lossatlas::LOSSATLAS_ISA
