#include "blocks.hpp"

#include "half.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

template <class From, class Convert>
inline void load_run(const void* data, std::int64_t offset, std::int64_t stride, int count, float* __restrict to,
                     const Convert& convert) {
  const From* from = static_cast<const From*>(data) + offset;
  if (stride == 1) {
    for (int i = 0; i < count; ++i) to[i] = convert(from[i]);
  } else if (stride == 0) {
    const float value = convert(from[0]);
    for (int i = 0; i < count; ++i) to[i] = value;
  } else {
    for (int i = 0; i < count; ++i) to[i] = convert(from[i * stride]);
  }
}

template <class To, class Convert>
inline void store_run(void* data, std::int64_t offset, std::int64_t stride, int count, const float* __restrict from,
                      const Convert& convert) {
  To* to = static_cast<To*>(data) + offset;
  if (stride == 1) {
    for (int i = 0; i < count; ++i) to[i] = convert(from[i]);
  } else {
    for (int i = 0; i < count; ++i) to[i * stride] = convert(from[i]);
  }
}

}  // namespace

void load_run(DType dtype, const void* data, std::int64_t offset, std::int64_t stride, int count, float* to) {
  const auto plain = [](auto x) { return static_cast<float>(x); };
  switch (dtype) {
    case DType::float32: return load_run<float>(data, offset, stride, count, to, plain);
    case DType::float64: return load_run<double>(data, offset, stride, count, to, plain);
    case DType::float16: return load_run<std::uint16_t>(data, offset, stride, count, to, half_to_float);
    case DType::bfloat16: return load_run<std::uint16_t>(data, offset, stride, count, to, bfloat_to_float);
    case DType::boolean:
    case DType::uint8: return load_run<std::uint8_t>(data, offset, stride, count, to, plain);
    case DType::int8: return load_run<std::int8_t>(data, offset, stride, count, to, plain);
    case DType::int16: return load_run<std::int16_t>(data, offset, stride, count, to, plain);
    case DType::int32: return load_run<std::int32_t>(data, offset, stride, count, to, plain);
    case DType::int64: return load_run<std::int64_t>(data, offset, stride, count, to, plain);
  }
}

void store_run(DType dtype, void* data, std::int64_t offset, std::int64_t stride, int count, const float* from) {
  switch (dtype) {
    case DType::float32: return store_run<float>(data, offset, stride, count, from, [](float x) { return x; });
    case DType::float16: return store_run<std::uint16_t>(data, offset, stride, count, from, float_to_half);
    case DType::bfloat16: return store_run<std::uint16_t>(data, offset, stride, count, from, float_to_bfloat);
    default: return;
  }
}

void check_storable(const Tensor& tensor) {
  if (tensor.dtype != DType::float32 && tensor.dtype != DType::float16 && tensor.dtype != DType::bfloat16) {
    throw Error{"a result must be float32, float16 or bfloat16"};
  }
}

}  // namespace lossatlas::LOSSATLAS_ISA
