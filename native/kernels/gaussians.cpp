// Gaussians on the cells of maps. The twins are `draw_gaussians` in src/lossatlas/targets/gaussians.py and
// `KeypointHeatmaps` in src/lossatlas/targets/heatmaps.py.
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

struct Gaussians {
  std::int64_t count;
  const std::int64_t* plane;   // negative for one that is not drawn
  const float* center;         // x, y
  const float* sigma;
  const std::int64_t* anchor;  // column, row
  const std::int64_t* reach;
};

template <bool Sum, bool Least>
void draw_all(const Gaussians& all, float limit, const Tensor& result, int threads) {
  const std::int64_t planes = result.size[0], height = result.size[1], length = result.size[2], size = height * length;
  float* maps = result.floats(planes * size);
  const ByPlane gaussians(all.plane, all.count, planes);
  for_planes(planes, size, threads, [&](std::int64_t first, std::int64_t end) {
    Axis columns(length), rows(height);
    for (std::int64_t plane = first; plane < end; ++plane) {
      float* map = maps + plane * size;
      for (std::int64_t i = 0; i < size; ++i) map[i] = 0.0f;
      for (const std::int64_t* item = gaussians.begin(plane); item < gaussians.end(plane); ++item) {
        const float x = all.center[*item * 2], y = all.center[*item * 2 + 1], s = all.sigma[*item];
        const Range across = cells(x, s, all.anchor[*item * 2], all.reach[*item], length);
        const Range down = cells(y, s, all.anchor[*item * 2 + 1], all.reach[*item], height);
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

// Draw Gaussians with exponents up to the highest, and either their sum or the highest of them.
void draw_all(const Gaussians& all, double highest, bool sum, const Tensor& result, int threads) {
  const float limit = static_cast<float>(highest);
  const bool least = limit < infinity;
  (sum ? (least ? draw_all<true, true> : draw_all<true, false>)
       : (least ? draw_all<false, true> : draw_all<false, false>))(all, limit, result, threads);
}

// tensors: the plane (M) int64, centre (M, 2), sigma (M), anchor (M, 2) int64 and reach (M) int64 of each Gaussian;
// result: (planes, H, W); numbers: the highest exponent that is drawn, whether Gaussians are added.
void gaussians(const Arguments& arguments) {
  const std::int64_t count = arguments.tensor(0).size[0];
  const Gaussians all{count,
                      arguments.tensor(0).integers(count),
                      arguments.tensor(1).floats(count * 2),
                      arguments.tensor(2).floats(count),
                      arguments.tensor(3).integers(count * 2),
                      arguments.tensor(4).integers(count)};
  draw_all(all, arguments.number(0), arguments.number(1) != 0, arguments.tensor(5), arguments.threads);
}

enum Center { exact, rounded, floored };

// tensors: keypoints (B, N, K, 3), sigma (B, N) and reach (B, N) int64 of each person; results: the plane (B, N, K) int64 of
// each keypoint, -1 for one that is not drawn, and (B K, H, W); numbers: the highest exponent that is drawn, whether Gaussians
// are added, the factors of x and y and the shift from cells to pixels, where Gaussians stand, whether those outside are
// drawn, whether the cells that they peak in are 1.
void heatmaps(const Arguments& arguments) {
  const Tensor& points = arguments.tensor(0);
  const Tensor& result = arguments.tensor(4);
  const std::int64_t people = points.size[0] * points.size[1], kinds = points.size[2], count = people * kinds;
  const float* keypoints = points.floats(count * 3);
  const float* sigma_of = arguments.tensor(1).floats(people);
  const std::int64_t* reach_of = arguments.tensor(2).integers(people);
  std::int64_t* plane = arguments.tensor(3).integers(count);
  const std::int64_t length[2] = {result.size[2], result.size[1]};
  const float factor[2] = {static_cast<float>(arguments.number(2)), static_cast<float>(arguments.number(3))};
  const float shift = static_cast<float>(arguments.number(4));
  const int stand = static_cast<int>(arguments.number(5));
  const bool outside = arguments.number(6) != 0, unit_peaks = arguments.number(7) != 0;
  const Array<float> center(count * 2, 0.0f), sigma(count, 0.0f);
  const Array<std::int64_t> anchor(count * 2, 0), reach(count, 0);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t person = i / kinds, margin = outside ? reach_of[person] : 0;
    bool drawn = keypoints[i * 3 + 2] > 0.0f;
    sigma[i] = sigma_of[person];
    reach[i] = reach_of[person];
    for (int axis = 0; axis < 2 && drawn; ++axis) {
      const float place = (keypoints[i * 3 + axis] - shift) / factor[axis];
      const float cell = __builtin_floorf(stand == floored ? place : place + 0.5f);
      drawn = cell >= static_cast<float>(-margin) && cell < static_cast<float>(length[axis] + margin);  // false for NaN
      if (!drawn) break;
      anchor[i * 2 + axis] = static_cast<std::int64_t>(cell);
      center[i * 2 + axis] = stand == exact ? place : cell;
    }
    plane[i] = drawn ? person / points.size[1] * kinds + i % kinds : -1;
  }
  const Gaussians all{count, plane, center.begin(), sigma.begin(), anchor.begin(), reach.begin()};
  draw_all(all, arguments.number(0), arguments.number(1) != 0, result, arguments.threads);
  for (std::int64_t i = 0; unit_peaks && i < count; ++i) {
    const std::int64_t column = anchor[i * 2], row = anchor[i * 2 + 1];
    const bool inside = column >= 0 && column < length[0] && row >= 0 && row < length[1];
    if (plane[i] >= 0 && inside) static_cast<float*>(result.data)[(plane[i] * length[1] + row) * length[0] + column] = 1.0f;
  }
}

}  // namespace

void add_gaussians(Table& table) {
  table.add("gaussians", gaussians);
  table.add("heatmaps", heatmaps);
}

}  // namespace lossatlas::LOSSATLAS_ISA
