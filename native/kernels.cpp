#include "kernels.hpp"

#include <cstring>

#include "half.hpp"

namespace lossatlas {

std::int64_t Tensor::elements() const {
  std::int64_t product = 1;
  for (int axis = 0; axis < axes; ++axis) product *= size[axis];
  return product;
}

bool Tensor::contiguous() const {
  std::int64_t expected = 1;
  for (int axis = axes - 1; axis >= 0; --axis) {
    if (size[axis] != 1 && stride[axis] != expected) return false;
    expected *= size[axis];
  }
  return true;
}

namespace {

void* array(const Tensor& tensor, DType dtype, std::int64_t expected) {
  if (!tensor.given()) throw Error{"a tensor that is needed is not given"};
  if (tensor.dtype != dtype) throw Error{"a tensor has another dtype than the kernel takes"};
  if (tensor.elements() != expected) throw Error{"a tensor has another number of elements than the kernel takes"};
  if (!tensor.contiguous()) throw Error{"a tensor is not contiguous"};
  return tensor.data;
}

}  // namespace

float* Tensor::floats(std::int64_t expected) const {
  return static_cast<float*>(array(*this, DType::float32, expected));
}
std::int64_t* Tensor::integers(std::int64_t expected) const {
  return static_cast<std::int64_t*>(array(*this, DType::int64, expected));
}
std::uint8_t* Tensor::booleans(std::int64_t expected) const {
  return static_cast<std::uint8_t*>(array(*this, DType::boolean, expected));
}
std::int8_t* Tensor::bytes(std::int64_t expected) const {
  return static_cast<std::int8_t*>(array(*this, DType::int8, expected));
}

double Tensor::scalar() const {
  if (!given() || elements() != 1) throw Error{"a tensor with one element is needed"};
  switch (dtype) {
    case DType::float32: return *static_cast<const float*>(data);
    case DType::float64: return *static_cast<const double*>(data);
    case DType::float16: return LOSSATLAS_ISA::half_to_float(*static_cast<const std::uint16_t*>(data));
    case DType::bfloat16: return LOSSATLAS_ISA::bfloat_to_float(*static_cast<const std::uint16_t*>(data));
    case DType::boolean: return *static_cast<const std::uint8_t*>(data) != 0;
    case DType::uint8: return *static_cast<const std::uint8_t*>(data);
    case DType::int8: return *static_cast<const std::int8_t*>(data);
    case DType::int16: return *static_cast<const std::int16_t*>(data);
    case DType::int32: return *static_cast<const std::int32_t*>(data);
    case DType::int64: return static_cast<double>(*static_cast<const std::int64_t*>(data));
  }
  throw Error{"a tensor has an unknown dtype"};
}

const Tensor& Arguments::tensor(int index) const {
  if (index >= tensor_count) throw Error{"a tensor is missing"};
  return tensors[index];
}

double Arguments::number(int index) const {
  if (index >= number_count) throw Error{"a number is missing"};
  return numbers[index];
}

void Table::add(const char* name, Kernel kernel) {
  if (count_ == capacity) throw Error{"the table of kernels is full"};
  entries_[count_++] = {name, kernel};
}

Kernel Table::find(const char* name) const {
  for (int index = 0; index < count_; ++index) {
    if (std::strcmp(entries_[index].name, name) == 0) return entries_[index].kernel;
  }
  return nullptr;
}

int Table::size() const { return count_; }
const char* Table::name(int index) const { return entries_[index].name; }

}  // namespace lossatlas
