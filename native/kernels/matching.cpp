// Which object each prior overlaps most, without a matrix of priors and objects. The twin is `MaxIoU` in
// src/lossatlas/assign/max_iou.py.
//
// The numbers are the twin's to the last bit: the same operations in the same order, each rounded on its own, which is why
// this file is compiled without the contraction of a product and a sum (CMakeLists.txt).
//
// Priors that follow each other in memory lie beside each other in the image, as a rule. An object that does not touch the
// box around a few of them has an IoU of 0 with each, which changes neither the best of a prior nor that of the object: it
// is passed over, so that the cost is that of the pairs that are near each other.
#include "kernels.hpp"
#include "memory.hpp"
#include "parallel.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

constexpr int width = 64;
constexpr std::int64_t blocks_in_task = 32;
constexpr float least_area = 0x1p-46f;  // what boxes/geometry.py divides by at least: the square of float32's epsilon

inline float larger(float a, float b) { return a > b ? a : b; }
inline float smaller(float a, float b) { return a < b ? a : b; }
inline bool finite(float x) { return x - x == 0.0f; }

struct Corners {
  float x1, y1, x2, y2;

  // A box with a coordinate that is infinite or not a number overlaps nothing, which a flat one does neither.
  explicit Corners(const float* box) : x1(box[0]), y1(box[1]), x2(box[2]), y2(box[3]) {
    if (!(finite(x1) & finite(y1) & finite(x2) & finite(y2))) x1 = y1 = x2 = y2 = 0.0f;
  }

  float area() const { return larger(x2 - x1, 0.0f) * larger(y2 - y1, 0.0f); }
};

// The largest, or smallest, of a few numbers: half against half, which is vector code, until one is left.
template <class Choose>
inline float fold(const float* values, const Choose& choose) {
  alignas(64) float left[width];
  for (int i = 0; i < width; ++i) left[i] = values[i];
  for (int half = width / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) left[i] = choose(left[i], left[i + half]);
  }
  return left[0];
}

// The objects, one coordinate of all of them after the other.
struct Objects {
  explicit Objects(const Tensor& boxes)
      : count(boxes.size[0]), x1(count, 0), y1(count, 0), x2(count, 0), y2(count, 0), area(count, 0) {
    const float* from = boxes.floats(count * 4);
    for (std::int64_t i = 0; i < count; ++i) {
      const Corners box(from + i * 4);
      x1[i] = box.x1;
      y1[i] = box.y1;
      x2[i] = box.x2;
      y2[i] = box.y2;
      area[i] = box.area();
    }
  }

  std::int64_t count;
  Array<float> x1, y1, x2, y2, area;
};

// A few priors that follow each other, and the box around them.
struct Priors {
  alignas(64) float x1[width], y1[width], x2[width], y2[width], area[width];
  float left, top, right, bottom;

  Priors(const float* from, int count) {
    for (int i = 0; i < width; ++i) {
      const Corners box(from + (i < count ? i : 0) * 4);
      x1[i] = box.x1;
      y1[i] = box.y1;
      x2[i] = box.x2;
      y2[i] = box.y2;
      area[i] = box.area();
    }
    left = fold(x1, smaller);
    top = fold(y1, smaller);
    right = fold(x2, larger);
    bottom = fold(y2, larger);
  }

  // List the objects that touch the box around the priors, in their order.
  std::int64_t near(const Objects& objects, std::int32_t* __restrict found) const {
    std::int64_t count = 0;
    for (std::int64_t first = 0; first < objects.count; first += width) {
      const int size = static_cast<int>(objects.count - first < width ? objects.count - first : width);
      alignas(64) std::uint8_t touches[width] = {};
      const float* ox1 = objects.x1.begin() + first;
      const float* oy1 = objects.y1.begin() + first;
      const float* ox2 = objects.x2.begin() + first;
      const float* oy2 = objects.y2.begin() + first;
      for (int i = 0; i < size; ++i) {
        touches[i] = (ox1[i] < right) & (ox2[i] > left) & (oy1[i] < bottom) & (oy2[i] > top);
      }
      for (int i = 0; i < size; ++i) {
        found[count] = static_cast<std::int32_t>(first + i);
        count += touches[i];
      }
    }
    return count;
  }

  // Write the IoU of each prior with one object.
  void overlap(const Objects& objects, std::int64_t object, float* __restrict iou) const {
    const float ox1 = objects.x1[object], oy1 = objects.y1[object];
    const float ox2 = objects.x2[object], oy2 = objects.y2[object], object_area = objects.area[object];
    for (int i = 0; i < width; ++i) {
      const float w = larger(smaller(x2[i], ox2) - larger(x1[i], ox1), 0.0f);
      const float h = larger(smaller(y2[i], oy2) - larger(y1[i], oy1), 0.0f);
      const float intersection = w * h;
      const float united = area[i] + object_area - intersection;
      const float ratio = intersection / united;
      iou[i] = united < least_area ? 0.0f : (ratio > 0.0f ? ratio : 0.0f);  // 0 where areas are infinite
    }
  }
};

constexpr std::int64_t priors_in_task = width * blocks_in_task;

std::int64_t tasks_of(const Tensor& priors) { return (priors.size[0] + priors_in_task - 1) / priors_in_task; }

// Call body(task, first, count, priors, near, number of near objects) for every few priors.
template <class Body>
void for_blocks(const Arguments& arguments, const Objects& objects, const Body& body) {
  const std::int64_t count = arguments.tensor(0).size[0];
  const float* priors = arguments.tensor(0).floats(count * 4);
  parallel(tasks_of(arguments.tensor(0)), arguments.threads, [&](std::int64_t task) {
    const Array<std::int32_t> near(objects.count + 1, 0);
    const std::int64_t end = (task + 1) * priors_in_task < count ? (task + 1) * priors_in_task : count;
    for (std::int64_t first = task * priors_in_task; first < end; first += width) {
      const int size = static_cast<int>(end - first < width ? end - first : width);
      const Priors block(priors + first * 4, size);
      body(task, first, size, block, near.begin(), block.near(objects, near.begin()));
    }
  });
}

// tensors: priors (P, 4), objects (G, 4); results: best IoU of each prior (P), its object (P) int64, and the best IoU of
// each object (G). Of equal ones the first object is the prior's; where all are 0 it is object 0.
void max_iou(const Arguments& arguments) {
  const Objects objects(arguments.tensor(1));
  const std::int64_t count = arguments.tensor(0).size[0];
  float* best = arguments.tensor(2).floats(count);
  std::int64_t* own = arguments.tensor(3).integers(count);
  float* object_best = arguments.tensor(4).floats(objects.count);
  const std::int64_t tasks = tasks_of(arguments.tensor(0));
  const Array<float> bests(tasks * objects.count, 0.0f);  // of the objects in each task
  for_blocks(arguments, objects, [&](std::int64_t task, std::int64_t first, int size, const Priors& priors,
                                     const std::int32_t* near, std::int64_t near_count) {
    float* best_of = bests.begin() + task * objects.count;
    alignas(64) float iou[width], highest[width] = {};
    alignas(64) std::int32_t object[width] = {};
    for (std::int64_t k = 0; k < near_count; ++k) {
      priors.overlap(objects, near[k], iou);
      for (int i = 0; i < width; ++i) {
        const bool better = iou[i] > highest[i];
        object[i] = better ? near[k] : object[i];
        highest[i] = better ? iou[i] : highest[i];
      }
      best_of[near[k]] = larger(best_of[near[k]], fold(iou, larger));
    }
    for (int i = 0; i < size; ++i) {
      best[first + i] = highest[i];
      own[first + i] = object[i];
    }
  });
  for (std::int64_t g = 0; g < objects.count; ++g) {
    float most = 0.0f;
    for (std::int64_t task = 0; task < tasks; ++task) most = larger(most, bests[task * objects.count + g]);
    object_best[g] = most;
  }
}

// tensors: priors (P, 4), objects (G, 4), the IoU with each object (G) that is a claim to it, above 0, infinite where none
// is; result: (P) int64, the object that each prior has the highest claim to, the first of equal ones, -1 without any.
void claims(const Arguments& arguments) {
  const Objects objects(arguments.tensor(1));
  const float* wanted = arguments.tensor(2).floats(objects.count);
  std::int64_t* claimant = arguments.tensor(3).integers(arguments.tensor(0).size[0]);
  for_blocks(arguments, objects, [&](std::int64_t, std::int64_t first, int size, const Priors& priors,
                                     const std::int32_t* near, std::int64_t near_count) {
    alignas(64) float iou[width], highest[width] = {};
    alignas(64) std::int32_t object[width];
    for (int i = 0; i < width; ++i) object[i] = -1;
    for (std::int64_t k = 0; k < near_count; ++k) {
      priors.overlap(objects, near[k], iou);
      const float claim = wanted[near[k]];
      for (int i = 0; i < width; ++i) {
        const bool better = (iou[i] == claim) & (iou[i] > highest[i]);
        object[i] = better ? near[k] : object[i];
        highest[i] = better ? iou[i] : highest[i];
      }
    }
    for (int i = 0; i < size; ++i) claimant[first + i] = object[i];
  });
}

}  // namespace

void add_matching(Table& table) {
  table.add("max_iou", max_iou);
  table.add("claims", claims);
}

}  // namespace lossatlas::LOSSATLAS_ISA
