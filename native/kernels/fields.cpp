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

enum Region { capsule, limb, box, box_floor, box_inclusive };

// What lies on a limb.
struct Limb {
  float x, y, vx, vy, length;
  float left, right, top, bottom;  // the first and the last column and row
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

// How limbs are drawn.
struct Options {
  float factor_x, factor_y, shift;  // from cells to pixels
  Region region;
  float half;       // of the width
  float farthest2;  // the largest square of a distance

  explicit Options(const Arguments& arguments)
      : factor_x(static_cast<float>(arguments.number(0))),
        factor_y(static_cast<float>(arguments.number(1))),
        shift(static_cast<float>(arguments.number(2))),
        region(static_cast<Region>(static_cast<int>(arguments.number(3)))),
        half(static_cast<float>(arguments.number(4))),
        farthest2(static_cast<float>(arguments.number(5))) {
    if (arguments.number(6) != 0) farthest2 = as_float(as_bits(farthest2) - 1);  // the number below
  }

  // The first and the last cell that lie in the region of a limb between two places on an axis.
  void reach(float a, float b, float& first, float& last) const {
    const float low = (a < b ? a : b) - half, high = (a < b ? b : a) + half;
    first = __builtin_floorf(region == box ? low + 0.5f : low);
    last = region == box ? __builtin_floorf(high + 0.5f) - 1.0f
                         : (region == box_floor ? __builtin_floorf(high) - 1.0f : __builtin_ceilf(high));
  }

  // Make the limb between two keypoints (x, y, visibility); false if there is none.
  bool make(const float* a, const float* b, Limb& made) const {
    if (!(a[2] > 0.0f && b[2] > 0.0f)) return false;
    const float x = (a[0] - shift) / factor_x, y = (a[1] - shift) / factor_y;
    const float end_x = (b[0] - shift) / factor_x, end_y = (b[1] - shift) / factor_y;
    const float length = __builtin_sqrtf(square(end_x - x) + square(end_y - y));
    made = {x, y, (end_x - x) / length, (end_y - y) / length, length, 0.0f, 0.0f, 0.0f, 0.0f,
            region == limb ? 0.0f : -infinity, region == limb ? length : infinity,
            region == capsule ? 1.0f : 0.0f, farthest2};
    reach(x, end_x, made.left, made.right);
    reach(y, end_y, made.top, made.bottom);
    return length > 1e-7f;
  }
};

// Draw a limb on both of its maps.
template <bool Add>
void draw(const Limb& limb, const Maps& maps, float half) {
  const Range rows{place(limb.top, maps.height), place(limb.bottom + 1.0f, maps.height)};
  const std::int64_t left = place(limb.left, maps.length), right = place(limb.right + 1.0f, maps.length);
  const std::int64_t wanted = (right - left + width - 1) / width * width;
  const std::int64_t span = wanted < maps.length ? wanted : maps.length;
  const std::int64_t begin = left < maps.length - span ? left : maps.length - span, end = begin + span;
  for (std::int64_t column = begin; column < end; column += width) {
    const int lanes = static_cast<int>(end - column < width ? end - column : width);
    const float first = static_cast<float>(column);
    const Range some = near(limb, half, first, first + width, rows, maps.height);
    (lanes == width ? draw<Add, width> : draw<Add, 0>)(limb, maps, column, lanes, some);
  }
}

// tensors: keypoints (B, N, K, 3), the ends of limbs (L, 2) int64; result: (B, L, 2, H, W); numbers: the factors of x and y
// and the shift from cells to pixels, the region, half the width of a limb, the square of that, whether cells at exactly
// that distance are left out, whether the last limb of a map covers others instead of being averaged with them.
void fields(const Arguments& arguments) {
  const Tensor& points = arguments.tensor(0);
  const Tensor& result = arguments.tensor(2);
  const std::int64_t people = points.size[1], kinds = points.size[2], limbs = result.size[1];
  const float* keypoints = points.floats(points.size[0] * people * kinds * 3);
  const std::int64_t* ends = arguments.tensor(1).integers(limbs * 2);
  for (std::int64_t i = 0; i < limbs * 2; ++i) {
    if (ends[i] < 0 || ends[i] >= kinds) throw Error{"a limb has an end that is no keypoint"};
  }
  const std::int64_t planes = points.size[0] * limbs, height = result.size[3], length = result.size[4];
  const std::int64_t size = height * length;
  float* maps = result.floats(planes * 2 * size);
  const Options options(arguments);
  const bool cover = arguments.number(7) != 0;
  for_planes(planes, 2 * size, arguments.threads, [&](std::int64_t first_plane, std::int64_t end_plane) {
    const Array<std::int32_t> count(size, 0), crossed(height, 0);
    const Array<Limb> found(people, Limb{});
    for (std::int64_t plane = first_plane; plane < end_plane; ++plane) {
      const float* image = keypoints + plane / limbs * people * kinds * 3;
      const std::int64_t* of = ends + plane % limbs * 2;
      std::int64_t drawn = 0;
      for (std::int64_t person = 0; person < people; ++person) {
        const float* body = image + person * kinds * 3;
        drawn += options.make(body + of[0] * 3, body + of[1] * 3, found[drawn]);
      }
      float* map = maps + plane * 2 * size;
      for (std::int64_t i = 0; i < 2 * size; ++i) map[i] = 0.0f;
      const Maps both{height, length, map, map + size, count.begin(), crossed.begin()};
      const bool add = !cover && drawn > 1;
      for (std::int64_t i = 0; i < drawn; ++i) (add ? draw<true> : draw<false>)(found[i], both, options.half);
      for (std::int64_t row = 0; add && row < height; ++row) {
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
