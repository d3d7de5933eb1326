// Numbers with their derivatives: a formula over them gives its value and its gradient.
//
// The rules at points without a derivative are those of PyTorch, whose code is the twin: of two equal numbers each has half
// of the derivative of their maximum, and a number on the bound of a clamp has none.
#pragma once

#include "math.hpp"

namespace lossatlas::LOSSATLAS_ISA {

// A number and its derivatives in the four numbers of a box. They are members and no array, which compilers leave in memory
// where it keeps a loop from becoming vector code.
struct Dual {
  float value;
  float x1 = 0.0f, y1 = 0.0f, x2 = 0.0f, y2 = 0.0f;

  Dual(float constant = 0.0f) : value(constant) {}
  Dual(float number, float in_x1, float in_y1, float in_x2, float in_y2)
      : value(number), x1(in_x1), y1(in_y1), x2(in_x2), y2(in_y2) {}
};

// f(x) with derivative f'(x) = slope.
inline Dual chain(const Dual& x, float value, float slope) {
  return {value, slope * x.x1, slope * x.y1, slope * x.x2, slope * x.y2};
}

// f(x, y) with partial derivatives a and b.
inline Dual chain(const Dual& x, const Dual& y, float value, float a, float b) {
  return {value, a * x.x1 + b * y.x1, a * x.y1 + b * y.y1, a * x.x2 + b * y.x2, a * x.y2 + b * y.y2};
}

inline float choose(bool condition, float x, float y) { return condition ? x : y; }

inline Dual choose(bool condition, const Dual& x, const Dual& y) {
  return {choose(condition, x.value, y.value), choose(condition, x.x1, y.x1), choose(condition, x.y1, y.y1),
          choose(condition, x.x2, y.x2), choose(condition, x.y2, y.y2)};
}

inline Dual detached(const Dual& x) { return Dual(x.value); }

inline Dual operator-(const Dual& x) { return chain(x, -x.value, -1.0f); }
inline Dual operator+(const Dual& x, const Dual& y) { return chain(x, y, x.value + y.value, 1.0f, 1.0f); }
inline Dual operator-(const Dual& x, const Dual& y) { return chain(x, y, x.value - y.value, 1.0f, -1.0f); }
inline Dual operator*(const Dual& x, const Dual& y) { return chain(x, y, x.value * y.value, y.value, x.value); }
inline Dual operator+(const Dual& x, float y) { return chain(x, x.value + y, 1.0f); }
inline Dual operator+(float x, const Dual& y) { return chain(y, x + y.value, 1.0f); }
inline Dual operator-(const Dual& x, float y) { return chain(x, x.value - y, 1.0f); }
inline Dual operator-(float x, const Dual& y) { return chain(y, x - y.value, -1.0f); }
inline Dual operator*(const Dual& x, float y) { return chain(x, x.value * y, y); }
inline Dual operator*(float x, const Dual& y) { return y * x; }
inline Dual square(const Dual& x) { return chain(x, x.value * x.value, 2.0f * x.value); }

// What is not a number is not hidden by the other one: it compares neither way, and stays in the mean of the two.
inline Dual maximum(const Dual& x, const Dual& y) {
  const float a = x.value > y.value ? 1.0f : (x.value < y.value ? 0.0f : 0.5f);
  const float value = x.value > y.value ? x.value : (x.value < y.value ? y.value : 0.5f * x.value + 0.5f * y.value);
  return chain(x, y, value, a, 1.0f - a);
}

inline Dual minimum(const Dual& x, const Dual& y) { return -maximum(-x, -y); }

inline Dual at_least(const Dual& x, float low) { return choose(x.value <= low, Dual(low), x); }
inline Dual at_most(const Dual& x, float high) { return choose(x.value >= high, Dual(high), x); }

inline Dual magnitude(const Dual& x) {
  return chain(x, absolute(x.value), x.value > 0.0f ? 1.0f : (x.value < 0.0f ? -1.0f : 0.0f));
}

// x / y where y does not vanish, else 0: `safe_divide` of boxes/geometry.py.
inline Dual divide(const Dual& x, const Dual& y) {
  const bool vanishing = y.value < 0x1p-46f;
  const float inverse = 1.0f / (vanishing ? 1.0f : y.value);
  const float ratio = vanishing ? 0.0f : x.value * inverse;
  return chain(x, y, ratio, vanishing ? 0.0f : inverse, -ratio * inverse);
}

inline Dual exp(const Dual& x) {
  const float value = exp(x.value);
  return chain(x, value, value);
}

// e^x - 1 for x of at most 0, which is all that is needed.
inline Dual expm1(const Dual& x) {
  const float near = x.value * (1.0f + x.value * (0.5f + x.value * (0.16666667f + x.value * (0.041666667f +
                     x.value * (0.0083333333f + x.value * 0.0013888889f)))));
  const float e = exp(x.value);
  return chain(x, absolute(x.value) < 0.35f ? near : e - 1.0f, e);
}

inline Dual log(const Dual& x) { return chain(x, log(x.value), 1.0f / x.value); }

// x^exponent for an exponent above 0, held constant at 0 where x vanishes: `safe_power` of losses/arithmetic.py.
inline Dual power(const Dual& x, float exponent) {
  const bool vanishing = x.value < smallest_normal;
  const float base = vanishing ? 1.0f : x.value;
  const float value = exp(exponent * log(base));
  return chain(x, vanishing ? 0.0f : value, vanishing ? 0.0f : exponent * value / base);
}

inline Dual root(const Dual& x) {
  const bool vanishing = x.value < smallest_normal;
  const float value = __builtin_sqrtf(vanishing ? 1.0f : x.value);
  return chain(x, vanishing ? 0.0f : value, vanishing ? 0.0f : 0.5f / value);
}

}  // namespace lossatlas::LOSSATLAS_ISA
