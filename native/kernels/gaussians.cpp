// Gaussians on the cells of maps. The twin is `draw_gaussians` in src/lossatlas/targets/gaussians.py.
//
// A Gaussian is the product of a factor for its column and one for its row, so that cells take a product each and no
// exponential. Which cells a Gaussian reaches is decided by the twin's numbers to the last bit, which is why this file is
// compiled without the contraction of a product and a sum (CMakeLists.txt).
#include "kernels.hpp"
#include "math.hpp"
#include "memory.hpp"
#include "planes.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

constexpr int width = 32;
// A factor below e^-43.6 is 0: the product of two others is a normal number, and those that are not normal cost a hundred
// times as much.
constexpr float highest_exponent = 43.6f;
constexpr float widest = 9.35f;  // in units of sigma: beyond, the exponent of an axis is higher

// The cells that the window has on an axis, without those where the factor is 0.
Range cells(float center, float sigma, std::int64_t anchor, std::int64_t reach, std::int64_t length) {
  const std::int64_t first = anchor - reach, last = anchor + reach + 1;
  const std::int64_t low = place(center - widest * sigma, length);
  const float end = center + widest * sigma + 2.0f;
  const std::int64_t high = end == end ? place(end, length) : length;
  return {first > low ? first : low, last < high ? last : high};
}

// Compute exponents and factors of the cells from `first`, those outside the window with a factor of 0.
void compute(int first, int cells, int inside_first, int inside_last, float center, float sigma,
             float* __restrict exponents, float* __restrict factors) {
  const float scale = 2.0f * (sigma * sigma);
  for (int i = 0; i < cells; ++i) {
    const int cell = first + i;
    const float exponent = square(static_cast<float>(cell) - center) / scale;
    const float factor = exp(-exponent);
    const bool drawn = (cell >= inside_first) & (cell < inside_last) & !(exponent > highest_exponent);
    exponents[i] = exponent;
    factors[i] = drawn ? factor : 0.0f;
  }
}

// One axis of a Gaussian, cell by cell: those of a window and, so that vectors divide their number, some beside it.
struct Axis {
  explicit Axis(std::int64_t cells)
      : length(static_cast<int>(cells)), exponents(cells + width, 0.0f), factors(cells + width, 0.0f) {}

  void set(float center, float sigma, Range window) {
    const int inside_first = static_cast<int>(window.first), inside_last = static_cast<int>(window.last);
    const int span = (inside_last - inside_first + width - 1) / width * width;
    count = span < length ? span : length;
    first = inside_first < length - count ? inside_first : length - count;
    compute(first, span, inside_first, inside_last, center, sigma, exponents.begin(), factors.begin());
  }

  int length, first = 0, count = 0;
  Array<float> exponents, factors;
};

// Draw some columns of a Gaussian: `Lanes` of them, or `lanes` if that is 0. NaN stays NaN.
template <bool Sum, bool Least, int Lanes>
void draw(const float* __restrict exponents, const float* __restrict factors, int lanes, const Axis& rows, Range down,
          float limit, std::int64_t length, float* __restrict map) {
  for (std::int64_t y = down.first; y < down.last; ++y) {
    const float exponent = rows.exponents[y - rows.first], factor = rows.factors[y - rows.first];
    float* __restrict row = map + y * length;
    for (int i = 0; i < (Lanes ? Lanes : lanes); ++i) {
      const float value = factors[i] * factor;
      const bool drawn = !Least | (exponents[i] + exponent <= limit);
      if constexpr (Sum) {
        const float sum = row[i] + (drawn ? value : 0.0f);
        row[i] = sum > 1.0f ? 1.0f : sum;
      } else {
        row[i] = drawn & ((value > row[i]) | (value != value)) ? value : row[i];
      }
    }
  }
}

template <bool Sum, bool Least>
void draw_all(const Arguments& arguments, float limit) {
  const std::int64_t count = arguments.tensor(0).size[0];
  const float* center = arguments.tensor(1).floats(count * 2);
  const float* sigma = arguments.tensor(2).floats(count);
  const std::int64_t* anchor = arguments.tensor(3).integers(count * 2);
  const std::int64_t* reach = arguments.tensor(4).integers(count);
  const Tensor& result = arguments.tensor(5);
  const std::int64_t planes = result.size[0], height = result.size[1], length = result.size[2], size = height * length;
  float* maps = result.floats(planes * size);
  const ByPlane gaussians(arguments.tensor(0), planes);
  gaussians.for_tasks(size, arguments.threads, [&](std::int64_t first, std::int64_t end) {
    Axis columns(length), rows(height);
    for (std::int64_t plane = first; plane < end; ++plane) {
      float* map = maps + plane * size;
      for (std::int64_t i = 0; i < size; ++i) map[i] = 0.0f;
      for (const std::int64_t* item = gaussians.begin(plane); item < gaussians.end(plane); ++item) {
        const float x = center[*item * 2], y = center[*item * 2 + 1], s = sigma[*item];
        const Range across = cells(x, s, anchor[*item * 2], reach[*item], length);
        const Range down = cells(y, s, anchor[*item * 2 + 1], reach[*item], height);
        if (across.first >= across.last || down.first >= down.last) continue;
        columns.set(x, s, across);
        rows.set(y, s, down);
        for (int i = 0; i < columns.count; i += width) {
          const int lanes = columns.count - i < width ? columns.count - i : width;
          const auto part = lanes == width ? draw<Sum, Least, width> : draw<Sum, Least, 0>;
          part(&columns.exponents[i], &columns.factors[i], lanes, rows, down, limit, length, map + columns.first + i);
        }
      }
    }
  });
}

// tensors: the plane (M) int64, centre (M, 2), sigma (M), anchor (M, 2) int64 and reach (M) int64 of each Gaussian;
// result: (planes, H, W); numbers: the highest exponent that is drawn, whether Gaussians are added.
void gaussians(const Arguments& arguments) {
  const float limit = static_cast<float>(arguments.number(0));
  const bool sum = arguments.number(1) != 0, least = limit < infinity;
  (sum ? (least ? draw_all<true, true> : draw_all<true, false>)
       : (least ? draw_all<false, true> : draw_all<false, false>))(arguments, limit);
}

}  // namespace

void add_gaussians(Table& table) { table.add("gaussians", gaussians); }

}  // namespace lossatlas::LOSSATLAS_ISA
