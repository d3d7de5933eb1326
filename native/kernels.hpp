// What a kernel is given, and how it is found by its name.
#pragma once

#include <cstdint>

// Functions of this header are not inline: code that is compiled for one instruction set must not be shared, by the linker,
// with code for another.
namespace lossatlas {

enum class DType : std::uint8_t { float32, float64, float16, bfloat16, boolean, uint8, int8, int16, int32, int64 };

inline constexpr int max_axes = 8;
inline constexpr int max_tensors = 12;
inline constexpr int max_numbers = 16;

// A message for the user, a string literal.
struct Error {
  const char* message;
};

// The memory of a tensor; sizes and strides in elements.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::float32;
  int axes = 0;
  std::int64_t size[max_axes] = {};
  std::int64_t stride[max_axes] = {};

  bool given() const { return data != nullptr; }

  std::int64_t elements() const;
  bool contiguous() const;

  // The memory as an array without gaps, after checking that it is one of exactly this many elements.
  float* floats(std::int64_t expected) const;
  std::int64_t* integers(std::int64_t expected) const;
  std::uint8_t* booleans(std::int64_t expected) const;
  std::int8_t* bytes(std::int64_t expected) const;

  // The number that a tensor with one element holds.
  double scalar() const;
};

struct Arguments {
  Tensor tensors[max_tensors];
  int tensor_count = 0;
  double numbers[max_numbers] = {};
  int number_count = 0;
  int threads = 1;

  const Tensor& tensor(int index) const;
  double number(int index) const;
};

using Kernel = void (*)(const Arguments&);

// The kernels that were compiled for one instruction set.
class Table {
 public:
  void add(const char* name, Kernel kernel);
  Kernel find(const char* name) const;  // null if there is none
  int size() const;
  const char* name(int index) const;

 private:
  struct Entry {
    const char* name;
    Kernel kernel;
  };
  static constexpr int capacity = 128;
  Entry entries_[capacity] = {};
  int count_ = 0;
};

}  // namespace lossatlas
