// Tensors of any dtype and layout, as short arrays of floats.
//
// A kernel runs over the elements of one tensor in the order of its memory, a block at a time; a block of every operand is
// either read where it lies or brought into an array that stays in the first-level cache.
#pragma once

#include "kernels.hpp"
#include "memory.hpp"

namespace lossatlas::LOSSATLAS_ISA {

inline constexpr int block_size = 512;

struct alignas(64) Block {
  float values[block_size];
};

// Bring `count` elements that lie `stride` apart into an array of floats, and back.
void load_run(DType dtype, const void* data, std::int64_t offset, std::int64_t stride, int count, float* to);
void store_run(DType dtype, void* data, std::int64_t offset, std::int64_t stride, int count, const float* from);

// Raise an error unless results of this dtype can be stored.
void check_storable(const Tensor& tensor);

// The axes of an elementwise computation, of which the first operand gives the order; neighbouring axes that are one run
// of memory for every operand are one axis.
template <int Operands>
class Layout {
 public:
  explicit Layout(const Tensor* const (&tensors)[Operands]) {
    const Tensor& first = *tensors[0];
    int order[max_axes];
    int axes = 0;
    for (int axis = 0; axis < first.axes; ++axis) {
      if (first.size[axis] == 1) continue;
      int place = axes++;
      for (; place > 0 && first.stride[order[place - 1]] < first.stride[axis]; --place) order[place] = order[place - 1];
      order[place] = axis;
    }
    for (int k = 0; k < Operands; ++k) {
      operands_[k] = *tensors[k];
      if (operands_[k].given() && operands_[k].axes != first.axes) throw Error{"the tensors have different axes"};
    }
    for (int place = 0; place < axes; ++place) {
      const int axis = order[place];
      for (int k = 0; k < Operands; ++k) {
        const bool given = operands_[k].given();
        if (given && operands_[k].size[axis] != first.size[axis]) throw Error{"the tensors have different shapes"};
        stride_[axes_][k] = given ? tensors[k]->stride[axis] : 0;
      }
      size_[axes_] = first.size[axis];
      if (axes_ > 0 && merges()) {
        size_[axes_ - 1] *= size_[axes_];
        for (int k = 0; k < Operands; ++k) stride_[axes_ - 1][k] = stride_[axes_][k];
      } else {
        ++axes_;
      }
    }
    elements_ = 1;
    for (int axis = 0; axis < axes_; ++axis) elements_ *= size_[axis];
    if (axes_ == 0) {
      size_[0] = 1;
      axes_ = 1;
    }
  }

  std::int64_t elements() const { return elements_; }
  bool given(int operand) const { return operands_[operand].given(); }

  // Elements begin to begin + count of an operand, followed by zeros up to the width of a block. `shift` moves the operand
  // in memory, to another class of what has a further axis.
  const float* load(int operand, std::int64_t begin, int count, Block& buffer, std::int64_t shift = 0,
                    int width = block_size) const {
    const Tensor& tensor = operands_[operand];
    if (tensor.dtype == DType::float32 && count == width) {
      if (const void* there = in_place(operand, begin, count, shift)) return static_cast<const float*>(there);
    }
    runs(operand, begin, count, [&](std::int64_t offset, std::int64_t stride, int length, int done) {
      load_run(tensor.dtype, tensor.data, offset + shift, stride, length, buffer.values + done);
    });
    for (int i = count; i < width; ++i) buffer.values[i] = 0.0f;
    return buffer.values;
  }

  // Where a block of results can be written without a copy, else the buffer, which `store` then copies.
  float* destination(int operand, std::int64_t begin, int count, Block& buffer, std::int64_t shift = 0,
                     int width = block_size) const {
    if (operands_[operand].dtype == DType::float32 && count == width) {
      if (void* there = in_place(operand, begin, count, shift)) return static_cast<float*>(there);
    }
    return buffer.values;
  }

  void store(int operand, std::int64_t begin, int count, const float* values, std::int64_t shift = 0) const {
    const Tensor& tensor = operands_[operand];
    runs(operand, begin, count, [&](std::int64_t offset, std::int64_t stride, int length, int done) {
      store_run(tensor.dtype, tensor.data, offset + shift, stride, length, values + done);
    });
  }

 private:
  bool merges() const {
    for (int k = 0; k < Operands; ++k) {
      if (stride_[axes_ - 1][k] != stride_[axes_][k] * size_[axes_]) return false;
    }
    return true;
  }

  // The memory of float32 elements that lie side by side, else null.
  void* in_place(int operand, std::int64_t begin, int count, std::int64_t shift) const {
    const int last = axes_ - 1;
    if (stride_[last][operand] != 1) return nullptr;
    std::int64_t rest = begin / size_[last], offset = begin - rest * size_[last];
    if (offset + count > size_[last]) return nullptr;
    for (int axis = last - 1; axis >= 0; --axis) {
      const std::int64_t above = rest / size_[axis];
      offset += (rest - above * size_[axis]) * stride_[axis][operand];
      rest = above;
    }
    return static_cast<float*>(operands_[operand].data) + offset + shift;
  }

  // Call body(offset, stride, length, done) for each stretch of the innermost axis.
  template <class Body>
  void runs(int operand, std::int64_t begin, int count, const Body& body) const {
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

  Tensor operands_[Operands];
  int axes_ = 0;
  std::int64_t elements_ = 0;
  std::int64_t size_[max_axes + 1] = {};
  std::int64_t stride_[max_axes + 1][Operands] = {};
};

// A sum in double precision whose order of additions is fixed: 16 sums side by side, added up at the end.
class Sum {
 public:
  void add(const float* __restrict values, int width = block_size) {
    for (int i = 0; i < width; i += lanes) {
      for (int lane = 0; lane < lanes; ++lane) sums_[lane] += static_cast<double>(values[i + lane]);
    }
  }

  double total() const {
    double sums[lanes];
    for (int lane = 0; lane < lanes; ++lane) sums[lane] = sums_[lane];
    for (int half = lanes / 2; half > 0; half /= 2) {
      for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
    }
    return sums[0];
  }

 private:
  static constexpr int lanes = 16;
  double sums_[lanes] = {};
};

// Numbers for each task, added up in the order of the tasks.
class Partials {
 public:
  explicit Partials(std::int64_t tasks, std::int64_t numbers = 1)
      : tasks_(tasks), numbers_(numbers), values_(tasks * numbers, 0.0) {}

  double* operator[](std::int64_t task) const { return values_.begin() + task * numbers_; }

  double total(std::int64_t number = 0) const { return total(number, 0, tasks_); }

  double total(std::int64_t number, std::int64_t first, std::int64_t end) const {
    double sum = 0.0;
    for (std::int64_t task = first; task < end; ++task) sum += values_[task * numbers_ + number];
    return sum;
  }

 private:
  std::int64_t tasks_, numbers_;
  Array<double> values_;
};

}  // namespace lossatlas::LOSSATLAS_ISA
