// Elementary functions as short polynomials, written so that compilers turn loops over them into vector code.
//
// Relative errors are below 4e-7 over the whole range (tests/kernels/test_math.py measures them); infinities give what
// the C library gives, NaN gives NaN. Results below the smallest normal number are 0. There are no calls, no tables and
// no branches: a condition is a choice between two numbers that are both computed. None of this relies on fast-math.
#pragma once

#include <cstdint>

namespace lossatlas::LOSSATLAS_ISA {

inline constexpr float infinity = __builtin_inff();
inline constexpr float smallest_normal = 0x1p-126f;

// Not std::bit_cast: a function of the standard library that is compiled for one instruction set must not be shared
// with code for another by the linker.
inline float as_float(std::int32_t bits) { return __builtin_bit_cast(float, bits); }
inline std::int32_t as_bits(float x) { return __builtin_bit_cast(std::int32_t, x); }

inline float absolute(float x) { return as_float(as_bits(x) & 0x7fffffff); }
inline float square(float x) { return x * x; }
inline float larger(float a, float b) { return a > b ? a : b; }
inline float smaller(float a, float b) { return a < b ? a : b; }

// The one of a few numbers that is picked of each two: half against half, which is vector code, until one is left. NaN is
// passed over unless it comes last.
template <float (*pick)(float, float), int count>
inline float fold(const float* numbers) {
  alignas(64) float left[count];
  for (int i = 0; i < count; ++i) left[i] = numbers[i];
  for (int half = count / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) left[i] = pick(left[i], left[i + half]);
  }
  return left[0];
}

// e^x = 2^n e^r with |r| <= ln(2) / 2.
inline float exp(float x) {
  const float low = -87.3365f, high = 88.72284f;
  float bounded = x < low ? low : x;
  bounded = bounded > high ? high : bounded;
  const float magic = 0x1.8p23f;  // adding it rounds to the nearest integer, which is then in its lowest bits
  const float shifted = bounded * 1.44269504f + magic;
  const float n = shifted - magic;
  const float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 0.00139422f;
  p = p * r + 0.00836378f;
  p = p * r + 0.04166636f;
  p = p * r + 0.16666573f;
  p = p * r + 0.5f;
  p = p * (r * r) + r + 1.0f;
  // 2^n in two factors, of which each is a normal number for n up to 128.
  const std::int32_t whole = as_bits(shifted) - as_bits(magic);
  const std::int32_t first = whole >> 1;
  const float y = p * as_float((first + 127) << 23) * as_float((whole - first + 127) << 23);
  return x < low ? 0.0f : (x > high ? infinity : y);
}

// e^x for x <= 0, of which no more is computed than is needed: below the smallest normal number all is garbage until the
// last choice, and 2^n is one factor, whose exponent the lowest bits of n + 127 are.
inline float exp_of_negative(float x) {
  const float magic = 0x1.8p23f + 127.0f;
  const float shifted = x * 1.44269504f + magic;
  const float n = shifted - magic;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 0.0083125f;
  p = p * r + 0.04189033f;
  p = p * r + 0.16667115f;
  p = p * r + 0.4999923f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return x < -87.3365f ? 0.0f : p * as_float(as_bits(shifted) << 23);
}

// ln(x) = n ln(2) + ln(m) with m from sqrt(1/2) to sqrt(2).
inline float log(float x) {
  const bool tiny = x < smallest_normal;
  const float scaled = tiny ? x * 0x1p23f : x;
  const std::int32_t shifted = as_bits(scaled) - 0x3f3504f3;
  const float n = static_cast<float>(shifted >> 23) - (tiny ? 23.0f : 0.0f);
  const float f = as_float((shifted & 0x007fffff) + 0x3f3504f3) - 1.0f;
  float p = 0.08992468f;
  p = p * f - 0.14417258f;
  p = p * f + 0.14875101f;
  p = p * f - 0.16553125f;
  p = p * f + 0.19964482f;
  p = p * f - 0.25002518f;
  p = p * f + 0.33333904f;
  p = p * f - 0.49999985f;
  const float y = (p * (f * f) + n * -2.12194440e-4f) + f + n * 0.693359375f;
  const float ordinary = x > 0.0f ? (x < infinity ? y : infinity) : (x == 0.0f ? -infinity : x - x);
  return x < 0.0f ? __builtin_nanf("") : ordinary;
}

// ln(1 + e) for e from 0 to 1, exact also where e is far below 1.
inline float log1p_unit(float e) {
  float p = 0.0052326927f;
  p = p * e - 0.029505232f;
  p = p * e + 0.07822595f;
  p = p * e - 0.13663244f;
  p = p * e + 0.19106007f;
  p = p * e - 0.24842982f;
  p = p * e + 0.33319098f;
  p = p * e - 0.49999493f;
  p = p * e + 0.99999994f;
  return p * e;
}

// ln(1 + x): what rounding 1 + x loses is given back to first order.
inline float log1p(float x) {
  const float u = 1.0f + x;
  const float lost = x - (u - 1.0f);
  const float y = log(u) + lost / u;
  return u > 0.0f && u < infinity ? y : log(u);
}

// arctan(x), by arctan(x) = pi/2 - arctan(1/x) beyond 1.
inline float atan(float x) {
  const float size = absolute(x);
  const bool steep = size > 1.0f;
  const float t = steep ? 1.0f / size : size;
  const float z = t * t;
  float p = 0.0028498899f;
  p = p * z - 0.016068626f;
  p = p * z + 0.042691514f;
  p = p * z - 0.07504294f;
  p = p * z + 0.10640934f;
  p = p * z - 0.14203644f;
  p = p * z + 0.1999262f;
  p = p * z - 0.33333072f;
  p = p * (z * t) + t;
  const float y = steep ? 1.57079633f - p : p;
  return x < 0.0f ? -y : y;
}

// What the losses of a logit are made of, each without cancellation: s(x), s(-x), their product, ln(1 + e^x), ln(1 + e^-x)
// and ln(1 + e^-|x|).
struct Logistic {
  float sigmoid, complement, product, softplus, softminus, tail;
};

inline Logistic logistic(float x) {
  const float e = exp_of_negative(-absolute(x));
  const float large = 1.0f / (1.0f + e);
  const float small = e * large;
  const float tail = log1p_unit(e);
  const bool positive = x > 0.0f;
  return {positive ? large : small, positive ? small : large,     large * small, tail + (positive ? x : 0.0f),
          tail + (positive ? 0.0f : -x), tail};
}

inline float softplus(float x) { return log1p_unit(exp_of_negative(-absolute(x))) + (x > 0.0f ? x : 0.0f); }

// b^gamma for b >= 0 and its derivative in b, held constant at 0 where b is below the smallest normal number.
struct Power {
  float value, slope;
};

inline constexpr int any_exponent = -1;

// The exponents that papers use are known at compile time; for any other, `Exponent` is `any_exponent`.
template <int Exponent>
inline Power power(float base, float exponent) {
  if constexpr (Exponent == 0) {
    return {1.0f, 0.0f};
  } else {
    Power y;
    if constexpr (Exponent == 1) {
      y = {base, 1.0f};
    } else if constexpr (Exponent == 2) {
      y = {base * base, 2.0f * base};
    } else if constexpr (Exponent == 4) {
      y = {square(base * base), 4.0f * base * (base * base)};
    } else {
      const float value = exp(exponent * log(base));
      y = {value, exponent * value / base};
    }
    // Each by itself: a choice between two structs is not vector code for every compiler.
    const bool tiny = base < smallest_normal;
    return {tiny ? 0.0f : y.value, tiny ? 0.0f : y.slope};
  }
}

template <int Value>
struct Constant {
  static constexpr int value = Value;
};

// Call `run` with a constant: the exponent if it is one of those listed, else `any_exponent`.
template <int... Known, class Run>
inline void with_exponent(double exponent, const Run& run) {
  bool found = false;
  auto attempt = [&]<int Exponent>() {
    if (!found && exponent == Exponent) {
      found = true;
      run(Constant<Exponent>{});
    }
  };
  (attempt.template operator()<Known>(), ...);
  if (!found) run(Constant<any_exponent>{});
}

}  // namespace lossatlas::LOSSATLAS_ISA
