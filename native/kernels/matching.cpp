// Which object each prior overlaps most, without a matrix of priors and objects. The twin is `MaxIoU` in
// src/lossatlas/assign/max_iou.py.
//
// The numbers are the twin's to the last bit: the same operations in the same order, each rounded on its own, which is why
// this file is compiled without the contraction of a product and a sum (CMakeLists.txt).
//
// An object that does not touch the box around a few priors has an IoU of 0 with each, which changes neither the best of a
// prior nor that of the object.
#include "kernels.hpp"
#include "memory.hpp"
#include "near.hpp"
#include "parallel.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

constexpr float least_area = 0x1p-46f;  // what boxes/geometry.py divides by at least: the square of float32's epsilon

inline bool finite(float x) { return x - x == 0.0f; }

struct Corners {
  float x1, y1, x2, y2;

  // A box with a coordinate that is infinite or not a number overlaps nothing, which a flat one does neither.
  explicit Corners(const float* box) : x1(box[0]), y1(box[1]), x2(box[2]), y2(box[3]) {
    const bool usable = finite(x1) & finite(y1) & finite(x2) & finite(y2);
    x1 = usable ? x1 : 0.0f;
    y1 = usable ? y1 : 0.0f;
    x2 = usable ? x2 : 0.0f;
    y2 = usable ? y2 : 0.0f;
  }

  float area() const { return larger(x2 - x1, 0.0f) * larger(y2 - y1, 0.0f); }
};

struct Objects : Boxes {
  // `box_at(i)`: the four numbers of box i.
  template <class BoxAt>
  Objects(std::int64_t boxes, const BoxAt& box_at) : Boxes(boxes), area(count, 0) {
    for (std::int64_t i = 0; i < count; ++i) {
      const Corners box(box_at(i));
      x1[i] = box.x1;
      y1[i] = box.y1;
      x2[i] = box.x2;
      y2[i] = box.y2;
      area[i] = box.area();
    }
  }

  Array<float> area;
};

// A few priors, one coordinate of all of them after the other.
struct Priors {
  alignas(64) float x1[few], y1[few], x2[few], y2[few], area[few];

  Priors(const float* from, int count) {
    for (int i = 0; i < few; ++i) {
      const Corners box(from + (i < count ? i : 0) * 4);
      x1[i] = box.x1;
      y1[i] = box.y1;
      x2[i] = box.x2;
      y2[i] = box.y2;
      area[i] = box.area();
    }
  }

  // Write the IoU of each prior with one object.
  void overlap(const Objects& objects, std::int64_t object, float* __restrict iou) const {
    const float ox1 = objects.x1[object], oy1 = objects.y1[object];
    const float ox2 = objects.x2[object], oy2 = objects.y2[object], object_area = objects.area[object];
    for (int i = 0; i < few; ++i) {
      const float w = larger(smaller(x2[i], ox2) - larger(x1[i], ox1), 0.0f);
      const float h = larger(smaller(y2[i], oy2) - larger(y1[i], oy1), 0.0f);
      const float intersection = w * h;
      const float united = area[i] + object_area - intersection;
      const float ratio = intersection / united;
      iou[i] = united < least_area ? 0.0f : (ratio > 0.0f ? ratio : 0.0f);  // 0 where areas are infinite
    }
  }
};

// The object that each of a few priors has the highest of some numbers with; of equal ones the first.
struct Best {
  alignas(64) float highest[few] = {};
  alignas(64) std::int32_t object[few] = {};

  void offer(const float* __restrict numbers, std::int32_t of) {
    for (int i = 0; i < few; ++i) {
      const bool better = numbers[i] > highest[i];
      object[i] = better ? of : object[i];
      highest[i] = better ? numbers[i] : highest[i];
    }
  }
};

// Priors that follow each other, and the objects near them.
struct Few {
  std::int64_t first;
  int size;
  std::uint32_t bit;  // its own in the task
  const std::int32_t* near;
  std::int64_t near_count;
};

constexpr std::int64_t priors_in_task = few_in_task * few;
constexpr std::uint32_t all_bits = ~std::uint32_t{0};
static_assert(few_in_task == 32);

inline std::int64_t tasks_of(std::int64_t priors) { return (priors + priors_in_task - 1) / priors_in_task; }

// Call body(task, few priors) for those of the `count` priors of each task whose bits choose(task) returns.
template <class Choose, class Body>
void for_each_few(const float* priors, std::int64_t count, const Objects& objects, int threads, const Choose& choose,
                  const Body& body) {
  for_parts(count, priors_in_task, threads, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t task = begin / priors_in_task;
    const std::uint32_t chosen = choose(task);
    if (chosen == 0) return;
    const Array<std::int32_t> near(objects.count + 1, 0);
    for (std::int64_t first = begin; first < end; first += few) {
      const std::uint32_t bit = std::uint32_t{1} << ((first - begin) / few);
      if ((chosen & bit) == 0) continue;
      const int size = static_cast<int>(end - first < few ? end - first : few);
      const Bounds<4> around(priors + first * 4, size);
      const std::int64_t near_count =
          boxes_near(objects, around.low[0], around.low[1], around.high[2], around.high[3], near.begin());
      body(task, Few{first, size, bit, near.begin(), near_count});
    }
  });
}

enum class LowQuality { none, keep, reassign };

// The best IoU that an object has in a task, and the bits of all few priors of the task that have it.
struct Peak {
  float iou = 0.0f;
  std::uint32_t where = 0;

  void offer(float other, std::uint32_t here) {
    where = other > iou ? here : other == iou ? where | here : where;
    iou = larger(iou, other);
  }
};

class Matching {
 public:
  explicit Matching(const Arguments& arguments)
      : arguments_(arguments),
        order_(arguments.tensor(1), arguments.tensor(2), arguments.tensor(3)),
        objects_(order_.count(), [this](std::int64_t i) { return order_.box(i); }),
        count_(arguments.tensor(0).size[0]),
        priors_(arguments.tensor(0).floats(count_ * 4)),
        tasks_(tasks_of(count_)),
        verdicts_(order_, arguments.tensor(4), arguments.tensor(5), arguments.tensor(6)),
        positive_(static_cast<float>(arguments.number(0))),
        negative_(static_cast<float>(arguments.number(1))),
        low_quality_(static_cast<LowQuality>(static_cast<int>(arguments.number(2)))),
        least_claim_(static_cast<float>(arguments.number(3))),
        peaks_(low_quality_ == LowQuality::none ? 0 : tasks_ * objects_.count, Peak{}),
        best_(objects_.count, 0.0f) {}

  void run() const {
    for_each_few(
        priors_, count_, objects_, arguments_.threads, [](std::int64_t) { return all_bits; },
        [this](std::int64_t task, const Few& priors) { by_threshold(task, priors); });
    if (low_quality_ == LowQuality::none) return;
    for (std::int64_t task = 0; task < tasks_; ++task) {
      for (std::int64_t g = 0; g < objects_.count; ++g) best_[g] = larger(best_[g], peak(task, g).iou);
    }
    const auto claimed = [this](std::int64_t task) {
      std::uint32_t where = 0;
      for (std::int64_t g = 0; g < objects_.count; ++g) where |= wanted(task, g) ? peak(task, g).where : 0;
      return where;
    };
    for_each_few(priors_, count_, objects_, arguments_.threads, claimed,
                 [this](std::int64_t task, const Few& priors) { by_claim(task, priors); });
  }

 private:
  void by_threshold(std::int64_t task, const Few& given) const {
    Best best;
    if (given.near_count > 0) {
      const Priors priors(priors_ + given.first * 4, given.size);
      alignas(64) float iou[few];
      for (std::int64_t k = 0; k < given.near_count; ++k) {
        const std::int32_t object = given.near[k];
        priors.overlap(objects_, object, iou);
        best.offer(iou, object);
        if (low_quality_ != LowQuality::none) peak(task, object).offer(fold<larger, few>(iou), given.bit);
      }
    }
    alignas(64) std::uint8_t unsure[few];
    for (int i = 0; i < few; ++i) {
      const bool enough = best.highest[i] >= positive_;
      unsure[i] = (best.highest[i] >= negative_) & !enough;
      best.object[i] = enough ? best.object[i] : -1;
    }
    verdicts_.write(given.first, given.size, best.object, unsure);
  }

  Peak& peak(std::int64_t task, std::int64_t object) const { return peaks_[task * objects_.count + object]; }

  // Whether the priors with the best IoU of an object are in this task, and have a claim to it.
  bool wanted(std::int64_t task, std::int64_t object) const {
    const float best = best_[object];
    return peak(task, object).iou == best && best > 0.0f && best >= least_claim_;
  }

  void by_claim(std::int64_t task, const Few& given) const {
    Best claimant;
    alignas(64) float iou[few];
    const Priors priors(priors_ + given.first * 4, given.size);
    for (std::int64_t k = 0; k < given.near_count; ++k) {
      if (!wanted(task, given.near[k])) continue;
      const float claim = best_[given.near[k]];
      priors.overlap(objects_, given.near[k], iou);
      for (int i = 0; i < few; ++i) iou[i] = iou[i] == claim ? iou[i] : 0.0f;
      claimant.offer(iou, given.near[k]);
    }
    Best own;
    for (std::int64_t k = 0; k < given.near_count && low_quality_ == LowQuality::keep; ++k) {
      priors.overlap(objects_, given.near[k], iou);
      own.offer(iou, given.near[k]);
    }
    const Best& winner = low_quality_ == LowQuality::keep ? own : claimant;
    for (int i = 0; i < given.size; ++i) {
      if (claimant.highest[i] > 0.0f) verdicts_.claim(given.first + i, winner.object[i]);
    }
  }

  const Arguments& arguments_;
  const Order order_;
  const Objects objects_;
  const std::int64_t count_;
  const float* priors_;
  const std::int64_t tasks_;
  const Verdicts verdicts_;
  const float positive_, negative_;
  const LowQuality low_quality_;
  const float least_claim_;
  const Array<Peak> peaks_;
  const Array<float> best_;
};

// tensors: priors (P, 4); objects (G, 4); their labels (G) int64; mask of crowd regions among them (G), or nothing; mask of
// priors that are ignored unless they are positive (P), or nothing; results: the row of each prior's object (P) int64, -1 for
// none, and its state (P) int8; numbers: positive threshold, negative threshold, low quality (0 none, 1 keep, 2 reassign), the
// least IoU of low-quality matches
void max_iou(const Arguments& arguments) { Matching(arguments).run(); }

// tensors: priors (P, 4), boxes (G, 4); result: the highest IoU of each prior with one of the boxes (P)
void highest_iou(const Arguments& arguments) {
  const std::int64_t count = arguments.tensor(0).size[0];
  const float* priors = arguments.tensor(0).floats(count * 4);
  const float* boxes = arguments.tensor(1).floats(arguments.tensor(1).size[0] * 4);
  float* highest = arguments.tensor(2).floats(count);
  const Objects objects(arguments.tensor(1).size[0], [boxes](std::int64_t i) { return boxes + i * 4; });
  for_each_few(
      priors, count, objects, arguments.threads, [](std::int64_t) { return all_bits; },
      [&](std::int64_t, const Few& given) {
        alignas(64) float iou[few], best[few] = {};
        if (given.near_count > 0) {
          const Priors block(priors + given.first * 4, given.size);
          for (std::int64_t k = 0; k < given.near_count; ++k) {
            block.overlap(objects, given.near[k], iou);
            for (int i = 0; i < few; ++i) best[i] = larger(best[i], iou[i]);
          }
        }
        for (int i = 0; i < given.size; ++i) highest[given.first + i] = best[i];
      });
}

}  // namespace

void add_matching(Table& table) {
  table.add("max_iou", max_iou);
  table.add("highest_iou", highest_iou);
}

}  // namespace lossatlas::LOSSATLAS_ISA
