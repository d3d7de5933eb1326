// Tensors of any dtype and layout, as short arrays of floats.
//
// A kernel runs over the elements of one tensor in the order of its memory, a block at a time; a block of every operand is
// either read where it lies or brought into an array that stays in the first-level cache.
#pragma once

#include "kernels.hpp"
#include "memory.hpp"
#include "parallel.hpp"

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
class Axes {
 public:
  std::int64_t elements() const { return elements_; }
  bool given(int operand) const { return operands_[operand].given(); }

  // Elements begin to begin + count of an operand, followed by zeros up to the width of a block: where they lie, or in the
  // buffer. `shift` moves the operand in memory, to another class of what has a further axis.
  const float* load(int operand, std::int64_t begin, int count, float* buffer, std::int64_t shift = 0,
                    int width = block_size) const;
  const float* load(int operand, std::int64_t begin, int count, Block& buffer, std::int64_t shift = 0,
                    int width = block_size) const {
    return load(operand, begin, count, buffer.values, shift, width);
  }

  // Where a block of results can be written without a copy, else the buffer, which `store` then copies.
  float* destination(int operand, std::int64_t begin, int count, Block& buffer, std::int64_t shift = 0,
                     int width = block_size) const;

  void store(int operand, std::int64_t begin, int count, const float* values, std::int64_t shift = 0) const;

  // The memory of float32 elements that lie side by side, or any other `step` apart; null if they do not.
  float* in_place(int operand, std::int64_t begin, int count, std::int64_t shift, std::int64_t step = 1) const;
  std::int64_t step(int operand) const { return stride_[axes_ - 1][operand]; }

 protected:
  static constexpr int max_operands = 16;

  Axes(const Tensor* const* tensors, int operands);

 private:
  bool merges() const;
  template <class Body>
  void runs(int operand, std::int64_t begin, int count, const Body& body) const;

  int operand_count_;
  Tensor operands_[max_operands];
  int axes_ = 0;
  std::int64_t elements_ = 1;
  std::int64_t size_[max_axes + 1] = {};
  std::int64_t stride_[max_axes + 1][max_operands] = {};
};

template <int Operands>
class Layout : public Axes {
 public:
  explicit Layout(const Tensor* const (&tensors)[Operands]) : Axes(tensors, Operands) {
    static_assert(Operands <= max_operands);
  }
};

// Call body(begin, count) for the blocks of a task, which has `task_size` of the elements.
template <class Body>
inline void for_blocks(std::int64_t task, std::int64_t task_size, std::int64_t elements, int width, const Body& body) {
  const std::int64_t first = task * task_size;
  const std::int64_t last = first + task_size < elements ? first + task_size : elements;
  for (std::int64_t begin = first; begin < last; begin += width) {
    body(begin, static_cast<int>(last - begin < width ? last - begin : width));
  }
}

// Turn `columns` columns, `step` apart, of at least 4 numbers each into `rows` rows, `stride` apart, and back.
void turn(const float* from, std::int64_t step, int columns, std::int64_t rows, float* to, std::int64_t stride);
void turn_back(const float* from, std::int64_t stride, int columns, std::int64_t rows, float* to, std::int64_t step);

// Multiply a block by another.
void multiply(float* values, const float* factors);

// 16 numbers side by side, in as many registers as they take. The order of the additions of a sum is that of the source,
// which no compiler changes to make vector code; so this is done by the vector types that all of them have.
#if defined(__AVX512F__)
using Register = float __attribute__((vector_size(64)));
#elif defined(__AVX2__)
using Register = float __attribute__((vector_size(32)));
#else
using Register = float __attribute__((vector_size(16)));
#endif
inline constexpr int lanes = 16, register_size = sizeof(Register) / sizeof(float), registers = lanes / register_size;

struct Lanes {
  Register part[registers] = {};
};

inline void load(Register& to, const float* from) { __builtin_memcpy(&to, from, sizeof(Register)); }

// A sum whose order of additions is fixed: 16 sums side by side, of a block in single precision and of the blocks in double
// precision, added up at the end.
class Sum {
 public:
  // Several sums at a time, since an addition is done only some cycles after it began.
  void add(const float* values, int width = block_size) {
    constexpr int chains = 4;
    Lanes sums[chains];
    Register next;
    for (int i = 0; i < width; i += chains * lanes) {
      for (int chain = 0; chain < chains; ++chain) {
        for (int k = 0; k < registers; ++k) {
          load(next, values + i + chain * lanes + k * register_size);
          sums[chain].part[k] += next;
        }
      }
    }
    for (int k = 0; k < registers; ++k) {
      sums[0].part[k] = (sums[0].part[k] + sums[1].part[k]) + (sums[2].part[k] + sums[3].part[k]);
    }
    add(sums[0]);
  }

  void add(const Lanes& block) {
    float values[lanes];
    __builtin_memcpy(values, &block, sizeof(values));
    for (int lane = 0; lane < lanes; ++lane) sums_[lane] += static_cast<double>(values[lane]);
  }

  double total() const;

 private:
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

// What becomes of the elements of a loss: they stay what they are, or they are added up and divided by a number. The kernels
// of all families that do this have in the same places of their arguments:
//
//   tensors  3 upstream, 4 value: like the elements for the reduction "none", else one number; 6 normalizer: one number,
//            which replaces the count of "mean", or nothing
//   numbers  0 the reduction
class Reduction {
 public:
  explicit Reduction(const Arguments& arguments) : arguments_(arguments), kind_(static_cast<int>(arguments.number(0))) {}

  bool reduces() const { return kind_ != none; }

  // A tensor that has the shape of the elements only where these are not reduced.
  const Tensor* of_elements(int index) const;

  // What the sum is divided by; `count()` is how many elements there are.
  template <class Count>
  double divisor(const Count& count) const {
    if (kind_ != mean) return 1.0;
    return nonzero(arguments_.tensor(6).given() ? arguments_.tensor(6).scalar() : count());
  }

  // Call part(task, factor), which returns the sum of the values of a task and multiplies its gradients by the factor.
  template <class Part>
  void run(std::int64_t tasks, double divisor, const Part& part) const {
    const float factor = static_cast<float>(outer() / divisor);
    const Partials sums(tasks);
    parallel(tasks, arguments_.threads, [&](std::int64_t task) { *sums[task] = part(task, factor); });
    finish(sums.total() / divisor);
  }

 private:
  enum Kind { none, sum, mean };

  static double nonzero(double divisor) { return divisor == 0.0 ? 1.0 : divisor; }
  double outer() const;
  void finish(double value) const;

  const Arguments& arguments_;
  int kind_;
};

}  // namespace lossatlas::LOSSATLAS_ISA
