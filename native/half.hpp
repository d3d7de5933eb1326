// float16 and bfloat16 by their bits, in loops that compilers turn into vector code.
#pragma once

#include <cstdint>

namespace lossatlas::LOSSATLAS_ISA {

inline float bfloat_to_float(std::uint16_t x) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(x) << 16);
}

// Round to nearest, ties to even.
inline std::uint16_t float_to_bfloat(float x) {
  const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, x);
  const std::uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return static_cast<std::uint16_t>(x == x ? rounded : (bits >> 16) | 0x40);
}

inline float half_to_float(std::uint16_t x) {
  const std::uint32_t sign = static_cast<std::uint32_t>(x & 0x8000) << 16;
  const std::uint32_t bits = static_cast<std::uint32_t>(x & 0x7fff) << 13;
  // The product moves the exponent's bias, and makes normal numbers of subnormal ones.
  const float finite = __builtin_bit_cast(float, bits) * 0x1p112f;
  const std::uint32_t special = bits | 0x7f800000;
  const std::uint32_t magnitude = (x & 0x7c00) == 0x7c00 ? special : __builtin_bit_cast(std::uint32_t, finite);
  return __builtin_bit_cast(float, magnitude | sign);
}

// Round to nearest, ties to even; what is too large becomes infinity.
inline std::uint16_t float_to_half(float x) {
  const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, x);
  const std::uint32_t sign = (bits >> 16) & 0x8000;
  const std::uint32_t size = bits & 0x7fffffff;
  // Adding 1/2 leaves a subnormal result, rounded, in the lowest bits.
  const float shifted = __builtin_bit_cast(float, size) + 0.5f;
  const std::uint32_t subnormal = __builtin_bit_cast(std::uint32_t, shifted) - 0x3f000000;
  const std::uint32_t normal = (size - 0x38000000 + 0xfff + ((size >> 13) & 1)) >> 13;
  const std::uint32_t special = size > 0x7f800000 ? 0x7e00 : 0x7c00;
  const std::uint32_t finite = size < 0x38800000 ? subnormal : normal;
  return static_cast<std::uint16_t>(sign | (size >= 0x47800000 ? special : finite));
}

}  // namespace lossatlas::LOSSATLAS_ISA
