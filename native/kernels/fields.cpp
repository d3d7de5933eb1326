// Part affinity fields: unit vectors on the cells of limbs. The twin is `PartAffinityFields` in
// src/lossatlas/targets/fields.py.
//
// Which cells lie on a limb is decided by the twin's numbers to the last bit, which is why this file is compiled without the
// contraction of a product and a sum (CMakeLists.txt).
#include "kernels.hpp"
#include "math.hpp"
#include "memory.hpp"
#include "planes.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

constexpr int width = 32;

inline float larger(float a, float b) { return a > b ? a : b; }

enum Limit { box, straight, round };  // what limits a limb along its direction

// What lies on a limb.
struct Limb {
  float x, y, vx, vy, length;
  float left, right;  // the first and the last column
  float from, to;     // how far along the limb cells may lie
  float roundness;    // 1 where cells beyond an end are as far as from the end, else 0
  float farthest2;    // the largest square of a distance
};

// The maps of x and of y that a limb is drawn on.
struct Maps {
  std::int64_t height, length;
  float* x;
  float* y;
  std::int32_t* count;    // of limbs on each cell
  std::int32_t* crossed;  // whether there are several on a cell of the row
};

// Draw some columns of a limb: `Lanes` of them, or `lanes` if that is 0.
template <bool Add, int Lanes>
void draw(const Limb& limb, const Maps& maps, std::int64_t column, int lanes, Range rows) {
  const Limb l = limb;
  const int first = static_cast<int>(column);
  for (std::int64_t row = rows.first; row < rows.last; ++row) {
    float* __restrict x = maps.x + row * maps.length + column;
    float* __restrict y = maps.y + row * maps.length + column;
    std::int32_t* __restrict count = maps.count + row * maps.length + column;
    const float dy = static_cast<float>(row) - l.y;
    const float dy_along = dy * l.vy, dy_across = dy * l.vx;
    std::int32_t limbs = 0;
    for (int i = 0; i < (Lanes ? Lanes : lanes); ++i) {
      const float cell = static_cast<float>(first + i);
      const float dx = cell - l.x;
      const float along = dx * l.vx + dy_along;
      const float across = dx * l.vy - dy_across;
      const float beyond = larger(larger(-along, along - l.length), 0.0f);
      const float distance2 = square(across) + l.roundness * square(beyond);
      const bool on = (distance2 <= l.farthest2) & (along >= l.from) & (along <= l.to) & (cell >= l.left) & (cell <= l.right);
      if constexpr (Add) {
        x[i] += on ? l.vx : 0.0f;
        y[i] += on ? l.vy : 0.0f;
        count[i] += on ? 1 : 0;
        limbs |= count[i];
      } else {
        x[i] = on ? l.vx : x[i];
        y[i] = on ? l.vy : y[i];
      }
    }
    if constexpr (Add) maps.crossed[row] |= limbs > 1;
  }
}

// Those of some rows in which the line of a limb passes some columns at a distance of `half` at most, and a few more.
Range near(const Limb& limb, float half, float first, float last, Range rows, std::int64_t height) {
  const float rise = limb.vy / limb.vx;
  const float a = (first - limb.x) * rise, b = (last - limb.x) * rise;
  const float more = half / absolute(limb.vx) + 1.0f + 1e-6f * (absolute(a) + absolute(b));
  const std::int64_t top = place(limb.y + (a < b ? a : b) - more, height);
  const float end = limb.y + (a < b ? b : a) + more + 1.0f;
  const std::int64_t bottom = end == end ? place(end, height) : height;  // upright limbs have no rise
  return {rows.first > top ? rows.first : top, rows.last < bottom ? rows.last : bottom};
}

// Divide the sums of a row by the number of limbs on each cell.
void divide(std::int64_t length, const std::int32_t* __restrict count, float* __restrict x, float* __restrict y) {
  for (std::int64_t i = 0; i < length; ++i) {
    const float limbs = static_cast<float>(count[i] > 1 ? count[i] : 1);
    x[i] /= limbs;
    y[i] /= limbs;
  }
}

// tensors: the plane (M) int64, start (M, 2), direction (M, 2), length (M), first cell (M, 2) and last cell (M, 2) of each
// limb; result: (planes, 2, H, W); numbers: what limits a limb, half its width, the square of that, whether cells at exactly
// that distance are left out, whether the last limb of a plane covers others instead of being averaged with them.
void fields(const Arguments& arguments) {
  const std::int64_t limbs = arguments.tensor(0).size[0];
  const float* start = arguments.tensor(1).floats(limbs * 2);
  const float* direction = arguments.tensor(2).floats(limbs * 2);
  const float* limb_length = arguments.tensor(3).floats(limbs);
  const float* low = arguments.tensor(4).floats(limbs * 2);
  const float* high = arguments.tensor(5).floats(limbs * 2);
  const Tensor& result = arguments.tensor(6);
  const std::int64_t planes = result.size[0], height = result.size[2], length = result.size[3], size = height * length;
  float* maps = result.floats(planes * 2 * size);
  const int limit = static_cast<int>(arguments.number(0));
  const float half = static_cast<float>(arguments.number(1)), half2 = static_cast<float>(arguments.number(2));
  const float farthest2 = arguments.number(3) != 0 ? as_float(as_bits(half2) - 1) : half2;  // the number below
  const bool cover = arguments.number(4) != 0;
  const ByPlane of(arguments.tensor(0).integers(limbs), limbs, planes);
  of.for_tasks(2 * size, arguments.threads, [&](std::int64_t first_plane, std::int64_t end_plane) {
    Array<std::int32_t> count(size, 0), crossed(height, 0);
    for (std::int64_t plane = first_plane; plane < end_plane; ++plane) {
      float* map = maps + plane * 2 * size;
      for (std::int64_t i = 0; i < 2 * size; ++i) map[i] = 0.0f;
      const Maps both{height, length, map, map + size, count.begin(), crossed.begin()};
      const bool add = !cover && of.end(plane) - of.begin(plane) > 1;
      const auto whole = add ? draw<true, width> : draw<false, width>, rest = add ? draw<true, 0> : draw<false, 0>;
      for (const std::int64_t* item = of.begin(plane); item < of.end(plane); ++item) {
        const std::int64_t i = *item * 2, j = i + 1;
        const float along = limb_length[*item];
        const Limb limb{start[i], start[j], direction[i], direction[j], along, low[i], high[i],
                        limit == straight ? 0.0f : -infinity, limit == straight ? along : infinity,
                        limit == round ? 1.0f : 0.0f, farthest2};
        const Range rows{place(low[j], height), place(high[j] + 1.0f, height)};
        const std::int64_t left = place(low[i], length), right = place(high[i] + 1.0f, length);
        const std::int64_t wanted = (right - left + width - 1) / width * width, span = wanted < length ? wanted : length;
        const std::int64_t begin = left < length - span ? left : length - span, end = begin + span;
        for (std::int64_t column = begin; column < end; column += width) {
          const int lanes = static_cast<int>(end - column < width ? end - column : width);
          const float first = static_cast<float>(column);
          (lanes == width ? whole : rest)(limb, both, column, lanes, near(limb, half, first, first + width, rows, height));
        }
      }
      if (!add) continue;
      for (std::int64_t row = 0; row < height; ++row) {
        std::int32_t* on = &count[row * length];
        if (crossed[row]) divide(length, on, map + row * length, map + size + row * length);
        crossed[row] = 0;
        for (std::int64_t i = 0; i < length; ++i) on[i] = 0;
      }
    }
  });
}

}  // namespace

void add_fields(Table& table) { table.add("fields", fields); }

}  // namespace lossatlas::LOSSATLAS_ISA
