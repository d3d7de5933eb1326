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

Axes::Axes(const Tensor* const* tensors, int operands) : operand_count_(operands) {
  const Tensor& first = *tensors[0];
  int order[max_axes];
  int axes = 0;
  for (int axis = 0; axis < first.axes; ++axis) {
    if (first.size[axis] == 1) continue;
    int place = axes++;
    for (; place > 0 && first.stride[order[place - 1]] < first.stride[axis]; --place) order[place] = order[place - 1];
    order[place] = axis;
  }
  for (int k = 0; k < operands; ++k) {
    operands_[k] = *tensors[k];
    if (operands_[k].given() && operands_[k].axes != first.axes) throw Error{"the tensors have different axes"};
  }
  for (int place = 0; place < axes; ++place) {
    const int axis = order[place];
    for (int k = 0; k < operands; ++k) {
      const bool given = operands_[k].given();
      if (given && operands_[k].size[axis] != first.size[axis]) throw Error{"the tensors have different shapes"};
      stride_[axes_][k] = given ? tensors[k]->stride[axis] : 0;
    }
    size_[axes_] = first.size[axis];
    elements_ *= first.size[axis];
    if (axes_ > 0 && merges()) {
      size_[axes_ - 1] *= size_[axes_];
      for (int k = 0; k < operands; ++k) stride_[axes_ - 1][k] = stride_[axes_][k];
    } else {
      ++axes_;
    }
  }
  if (axes_ == 0) {
    size_[0] = 1;
    axes_ = 1;
  }
}

bool Axes::merges() const {
  for (int k = 0; k < operand_count_; ++k) {
    if (stride_[axes_ - 1][k] != stride_[axes_][k] * size_[axes_]) return false;
  }
  return true;
}

const float* Axes::load(int operand, std::int64_t begin, int count, float* buffer, std::int64_t shift,
                        int width) const {
  if (count == width) {
    if (const float* there = in_place(operand, begin, count, shift)) return there;
  }
  const Tensor& tensor = operands_[operand];
  runs(operand, begin, count, [&](std::int64_t offset, std::int64_t stride, int length, int done) {
    load_run(tensor.dtype, tensor.data, offset + shift, stride, length, buffer + done);
  });
  for (int i = count; i < width; ++i) buffer[i] = 0.0f;
  return buffer;
}

float* Axes::destination(int operand, std::int64_t begin, int count, Block& buffer, std::int64_t shift,
                         int width) const {
  if (count == width) {
    if (float* there = in_place(operand, begin, count, shift)) return there;
  }
  return buffer.values;
}

void Axes::store(int operand, std::int64_t begin, int count, const float* values, std::int64_t shift) const {
  const Tensor& tensor = operands_[operand];
  runs(operand, begin, count, [&](std::int64_t offset, std::int64_t stride, int length, int done) {
    store_run(tensor.dtype, tensor.data, offset + shift, stride, length, values + done);
  });
}

float* Axes::in_place(int operand, std::int64_t begin, int count, std::int64_t shift, std::int64_t step) const {
  const int last = axes_ - 1;
  if (operands_[operand].dtype != DType::float32 || stride_[last][operand] != step) return nullptr;
  // Divisions take longer than all else that is done here.
  std::int64_t rest = last == 0 ? 0 : begin / size_[last], offset = begin - rest * size_[last];
  if (offset + count > size_[last]) return nullptr;
  offset *= step;
  for (int axis = last - 1; axis >= 0; --axis) {
    const std::int64_t above = rest / size_[axis];
    offset += (rest - above * size_[axis]) * stride_[axis][operand];
    rest = above;
  }
  return static_cast<float*>(operands_[operand].data) + offset + shift;
}

// Call body(offset, stride, length, done) for each stretch of the innermost axis.
template <class Body>
void Axes::runs(int operand, std::int64_t begin, int count, const Body& body) const {
  const int last = axes_ - 1;
  std::int64_t place[max_axes], rest = begin, offset = 0;
  for (int axis = last; axis >= 0; --axis) {
    place[axis] = rest % size_[axis];
    rest /= size_[axis];
    offset += place[axis] * stride_[axis][operand];
  }
  for (int done = 0; done < count;) {
    const std::int64_t left = size_[last] - place[last];
    const int length = static_cast<int>(left < count - done ? left : count - done);
    body(offset, stride_[last][operand], length, done);
    done += length;
    place[last] += length;
    offset += length * stride_[last][operand];
    for (int axis = last; axis > 0 && place[axis] == size_[axis]; --axis) {
      offset += stride_[axis - 1][operand] - place[axis] * stride_[axis][operand];
      place[axis] = 0;
      ++place[axis - 1];
    }
  }
}

namespace {

using Four = float __attribute__((vector_size(16)));

// Four runs of four numbers, which become four columns of four.
inline void turn_four(const float* __restrict from, std::int64_t step, float* __restrict to, std::int64_t stride) {
  Four a, b, c, d;
  __builtin_memcpy(&a, from, sizeof(a));
  __builtin_memcpy(&b, from + step, sizeof(b));
  __builtin_memcpy(&c, from + 2 * step, sizeof(c));
  __builtin_memcpy(&d, from + 3 * step, sizeof(d));
  const Four ac_low{a[0], c[0], a[1], c[1]}, ac_high{a[2], c[2], a[3], c[3]};
  const Four bd_low{b[0], d[0], b[1], d[1]}, bd_high{b[2], d[2], b[3], d[3]};
  const Four first{ac_low[0], bd_low[0], ac_low[1], bd_low[1]}, second{ac_low[2], bd_low[2], ac_low[3], bd_low[3]};
  const Four third{ac_high[0], bd_high[0], ac_high[1], bd_high[1]};
  const Four fourth{ac_high[2], bd_high[2], ac_high[3], bd_high[3]};
  __builtin_memcpy(to, &first, sizeof(first));
  __builtin_memcpy(to + stride, &second, sizeof(second));
  __builtin_memcpy(to + 2 * stride, &third, sizeof(third));
  __builtin_memcpy(to + 3 * stride, &fourth, sizeof(fourth));
}

// Call body(row) for groups of four rows that cover all of them; the last two groups may overlap.
template <class Body>
inline void for_fours(std::int64_t rows, const Body& body) {
  for (std::int64_t row = 0; row + 4 <= rows; row += 4) body(row);
  if (rows % 4 != 0) body(rows - 4);
}

}  // namespace

void turn(const float* from, std::int64_t step, int columns, std::int64_t rows, float* to, std::int64_t stride) {
  for (int i = 0; i < columns; i += 4) {
    for_fours(rows, [&](std::int64_t row) { turn_four(from + i * step + row, step, to + row * stride + i, stride); });
  }
}

void turn_back(const float* from, std::int64_t stride, int columns, std::int64_t rows, float* to, std::int64_t step) {
  for (int i = 0; i < columns; i += 4) {
    for_fours(rows, [&](std::int64_t row) { turn_four(from + row * stride + i, stride, to + i * step + row, step); });
  }
}

void multiply(float* __restrict values, const float* __restrict factors) {
  for (int i = 0; i < block_size; ++i) values[i] *= factors[i];
}

double Sum::total() const {
  double sums[lanes];
  for (int lane = 0; lane < lanes; ++lane) sums[lane] = sums_[lane];
  for (int half = lanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

const Tensor* Reduction::of_elements(int index) const {
  static constexpr Tensor nothing{};
  return reduces() ? &nothing : &arguments_.tensor(index);
}

double Reduction::outer() const {
  return reduces() && arguments_.tensor(3).given() ? arguments_.tensor(3).scalar() : 1.0;
}

void Reduction::finish(double value) const {
  if (reduces() && arguments_.tensor(4).given()) arguments_.tensor(4).floats(1)[0] = static_cast<float>(value);
}

}  // namespace lossatlas::LOSSATLAS_ISA
