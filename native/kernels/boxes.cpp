// Losses of a predicted box and its object. Their twins, with the formulas, are in src/lossatlas/losses: boxes.py,
// box_variants.py, box_transforms.py and wise_iou.py.
#include "box_pairs.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

constexpr float pi = 3.14159265f;

// How two boxes lie to each other: `Overlap` of boxes/geometry.py.
struct Pair {
  Dual width, height, target_width, target_height, intersection, united, iou;
  Dual enclosing_width, enclosing_height, dx, dy;

  Pair(const Box& box, const Box& target)
      : width(at_least(box.x2 - box.x1, 0.0f)),
        height(at_least(box.y2 - box.y1, 0.0f)),
        target_width(at_least(target.x2 - target.x1, 0.0f)),
        target_height(at_least(target.y2 - target.y1, 0.0f)),
        intersection(at_least(minimum(box.x2, target.x2) - maximum(box.x1, target.x1), 0.0f) *
                     at_least(minimum(box.y2, target.y2) - maximum(box.y1, target.y1), 0.0f)),
        united(width * height + target_width * target_height - intersection),
        iou(divide(intersection, united)),
        enclosing_width(at_least(maximum(box.x2, target.x2) - minimum(box.x1, target.x1), 0.0f)),
        enclosing_height(at_least(maximum(box.y2, target.y2) - minimum(box.y1, target.y1), 0.0f)),
        dx(((box.x1 + box.x2) - (target.x1 + target.x2)) * 0.5f),
        dy(((box.y1 + box.y2) - (target.y1 + target.y2)) * 0.5f) {}

  Dual diagonal2() const { return square(enclosing_width) + square(enclosing_height); }
  Dual distance2() const { return square(dx) + square(dy); }
};

Dual enclosing_gap(const Pair& pair) {
  const Dual area = pair.enclosing_width * pair.enclosing_height;
  return divide(area - pair.united, area);
}

Dual distance_penalty(const Pair& pair) { return divide(pair.distance2(), pair.diagonal2()); }

// arctan(w / h), of a square for a box without extent.
Dual aspect_angle(const Dual& width, const Dual& height) {
  const bool empty = width.value * width.value + height.value * height.value < 0x1p-46f;
  const Dual w = choose(empty, 1.0f, width), h = choose(empty, 1.0f, height);
  const bool flat = w.value > h.value;
  const float angle = atan(flat ? h.value / w.value : w.value / h.value);
  const float scale = 1.0f / (w.value * w.value + h.value * h.value);
  return chain(w, h, flat ? 0.5f * pi - angle : angle, h.value * scale, -w.value * scale);
}

Dual aspect_penalty(const Pair& pair) {
  return 4.0f / (pi * pi) *
         square(aspect_angle(pair.target_width, pair.target_height) - aspect_angle(pair.width, pair.height));
}

Dual aspect_weight(const Pair& pair, const Dual& v) { return detached(divide(v, 1.0f - pair.iou + v)); }

Dual side_difference(const Dual& side, const Dual& target) {
  return divide(magnitude(side - target), maximum(side, target));
}

Dual side_cost(const Dual& width, const Dual& height, float theta) {
  return power(-expm1(-width), theta) + power(-expm1(-height), theta);
}

enum class Mode { linear, log, square };

template <Mode mode>
struct IoU {
  Dual operator()(const Pair& pair) const {
    if constexpr (mode == Mode::log) return -log(choose(pair.iou.value < 1e-6f, 1e-6f, pair.iou));
    if constexpr (mode == Mode::square) return 1.0f - square(pair.iou);
    return 1.0f - pair.iou;
  }
};

struct GIoU {
  Dual operator()(const Pair& pair) const { return 1.0f - pair.iou + enclosing_gap(pair); }
};

struct DIoU {
  Dual operator()(const Pair& pair) const { return 1.0f - pair.iou + distance_penalty(pair); }
};

template <bool unscaled>
struct CIoU {
  float least_iou;

  Dual operator()(const Pair& pair) const {
    Dual v = aspect_penalty(pair);
    const Dual alpha = choose(pair.iou.value > least_iou, aspect_weight(pair, v), 0.0f);
    if constexpr (unscaled) v = chain(v, v.value, square(pair.width.value) + square(pair.height.value));
    return 1.0f - pair.iou + distance_penalty(pair) + alpha * v;
  }
};

struct EIoU {
  Dual operator()(const Pair& pair) const {
    const Dual width = divide(square(pair.width - pair.target_width), square(pair.enclosing_width));
    const Dual height = divide(square(pair.height - pair.target_height), square(pair.enclosing_height));
    return 1.0f - pair.iou + distance_penalty(pair) + width + height;
  }
};

struct FocalEIoU {
  float gamma;

  Dual operator()(const Pair& pair) const { return detached(power(pair.iou, gamma)) * EIoU{}(pair); }
};

struct SIoU {
  float theta;

  Dual operator()(const Pair& pair) const {
    const Dual gamma = 2.0f - divide(2.0f * magnitude(pair.dx * pair.dy), pair.distance2());
    const Dual distance = -expm1(-gamma * divide(square(pair.dx), square(pair.enclosing_width))) -
                          expm1(-gamma * divide(square(pair.dy), square(pair.enclosing_height)));
    const Dual shape = side_cost(side_difference(pair.width, pair.target_width),
                                 side_difference(pair.height, pair.target_height), theta);
    return 1.0f - pair.iou + 0.5f * (distance + shape);
  }
};

struct ShapeIoU {
  float scale;

  Dual operator()(const Pair& pair) const {
    const float w = pair.target_width.value, h = pair.target_height.value;
    const float ratio = scale * (log(w < smallest_normal ? smallest_normal : w) -
                                 log(h < smallest_normal ? smallest_normal : h));
    const Logistic share = logistic(ratio);
    const float ww = 2.0f * share.sigmoid, hh = 2.0f * share.complement;
    const Dual distance = divide(hh * square(pair.dx) + ww * square(pair.dy), pair.diagonal2());
    const Dual shape = side_cost(hh * side_difference(pair.width, pair.target_width),
                                 ww * side_difference(pair.height, pair.target_height), 4.0f);
    return 1.0f - pair.iou + distance + 0.5f * shape;
  }
};

struct WIoU {
  Dual operator()(const Pair& pair) const {
    return exp(divide(pair.distance2(), detached(pair.diagonal2()))) * (1.0f - pair.iou);
  }
};

struct NWD {
  float constant;

  Dual operator()(const Pair& pair) const {
    const Dual sides =
        0.25f * (square(pair.width - pair.target_width) + square(pair.height - pair.target_height));
    return -expm1(root(pair.distance2() + sides) * (-1.0f / constant));
  }
};

struct BoundedIoU {
  float beta;

  Dual operator()(const Pair& pair) const {
    const Dual x = 2.0f * magnitude(pair.dx), y = 2.0f * magnitude(pair.dy);
    return smooth(at_most(divide(2.0f * x, pair.target_width + x), 1.0f)) +
           smooth(at_most(divide(2.0f * y, pair.target_height + y), 1.0f)) +
           smooth(side_difference(pair.width, pair.target_width)) +
           smooth(side_difference(pair.height, pair.target_height));
  }

  Dual smooth(const Dual& t) const {
    return choose(t.value < beta, square(t) * (beta > 0.0f ? 0.5f / beta : 0.0f), t - 0.5f * beta);
  }
};

enum class Base { iou, giou, diou, ciou };

template <Base base>
struct AlphaIoU {
  float alpha;

  Dual operator()(const Pair& pair) const {
    Dual loss = 1.0f - power(pair.iou, alpha);
    if constexpr (base == Base::giou) loss = loss + power(enclosing_gap(pair), alpha);
    if constexpr (base == Base::diou || base == Base::ciou) loss = loss + power(distance_penalty(pair), alpha);
    if constexpr (base == Base::ciou) {
      const Dual v = aspect_penalty(pair);
      loss = loss + power(aspect_weight(pair, v) * v, alpha);
    }
    return loss;
  }
};

// A loss of how boxes lie to each other as one of the boxes themselves.
template <class Loss>
struct OfPair {
  Loss loss;

  Dual operator()(const Box& box, const Box& target) const { return loss(Pair(box, target)); }
};

struct MPDIoU {
  float diagonal2;

  Dual operator()(const Box& box, const Box& target) const {
    const Dual corners = square(box.x1 - target.x1) + square(box.y1 - target.y1) + square(box.x2 - target.x2) +
                         square(box.y2 - target.y2);
    return 1.0f - Pair(box, target).iou + corners * (1.0f / diagonal2);
  }
};

template <bool focused>
struct PowerfulIoU {
  float lambda;

  Dual operator()(const Box& box, const Box& target) const {
    const Pair pair(box, target);
    const Dual across = magnitude(box.x1 - target.x1) + magnitude(box.x2 - target.x2);
    const Dual along = magnitude(box.y1 - target.y1) + magnitude(box.y2 - target.y2);
    const Dual penalty = 0.25f * (divide(across, pair.target_width) + divide(along, pair.target_height));
    const Dual loss = 1.0f - pair.iou - expm1(-square(penalty));
    if constexpr (!focused) return loss;
    const Dual quality = lambda * exp(-penalty);
    return 3.0f * quality * exp(-square(quality)) * loss;
  }
};

// IoU minus the IoU of both boxes with their sides times `ratio`: what Inner-IoU adds to another loss.
struct InnerGap {
  float ratio;

  Dual operator()(const Box& box, const Box& target) const {
    return Pair(box, target).iou - Pair(scaled(box), scaled(target)).iou;
  }

  Box scaled(const Box& box) const {
    const Dual x = 0.5f * (box.x1 + box.x2), y = 0.5f * (box.y1 + box.y2);
    const Dual w = 0.5f * ratio * (box.x2 - box.x1), h = 0.5f * ratio * (box.y2 - box.y1);
    return {x - w, y - h, x + w, y + h};
  }
};

// IoU minus the IoU stretched over an interval: what Focaler-IoU adds to another loss.
struct FocalerGap {
  float lower, upper;

  Dual operator()(const Pair& pair) const {
    const Dual focused = (pair.iou - lower) * (1.0f / (upper - lower));
    return pair.iou - at_most(at_least(focused, 0.0f), 1.0f);
  }
};

template <class Loss>
void run_pair(const Arguments& arguments, const Loss& loss) {
  run_box_pairs(arguments, OfPair<Loss>{loss});
}

void linear_iou(const Arguments& a) { run_pair(a, IoU<Mode::linear>{}); }
void log_iou(const Arguments& a) { run_pair(a, IoU<Mode::log>{}); }
void square_iou(const Arguments& a) { run_pair(a, IoU<Mode::square>{}); }
void giou(const Arguments& a) { run_pair(a, GIoU{}); }
void diou(const Arguments& a) { run_pair(a, DIoU{}); }
void ciou(const Arguments& a) {
  if (parameter(a, 0) != 0.0f) return run_pair(a, CIoU<true>{parameter(a, 1)});
  run_pair(a, CIoU<false>{parameter(a, 1)});
}
void eiou(const Arguments& a) { run_pair(a, EIoU{}); }
void focal_eiou(const Arguments& a) {
  if (parameter(a, 0) == 0.0f) return run_pair(a, EIoU{});
  run_pair(a, FocalEIoU{parameter(a, 0)});
}
void siou(const Arguments& a) { run_pair(a, SIoU{parameter(a, 0)}); }
void shape_iou(const Arguments& a) { run_pair(a, ShapeIoU{parameter(a, 0)}); }
void wiou(const Arguments& a) { run_pair(a, WIoU{}); }
void nwd(const Arguments& a) { run_pair(a, NWD{parameter(a, 0)}); }
void bounded_iou(const Arguments& a) { run_pair(a, BoundedIoU{parameter(a, 0)}); }
void alpha_iou(const Arguments& a) {
  const float alpha = parameter(a, 0);
  switch (static_cast<Base>(static_cast<int>(parameter(a, 1)))) {
    case Base::iou: return run_pair(a, AlphaIoU<Base::iou>{alpha});
    case Base::giou: return run_pair(a, AlphaIoU<Base::giou>{alpha});
    case Base::diou: return run_pair(a, AlphaIoU<Base::diou>{alpha});
    case Base::ciou: return run_pair(a, AlphaIoU<Base::ciou>{alpha});
  }
}
void mpdiou(const Arguments& a) { run_box_pairs(a, MPDIoU{parameter(a, 0)}); }
void powerful_iou(const Arguments& a) {
  if (parameter(a, 0) == 2.0f) return run_box_pairs(a, PowerfulIoU<true>{parameter(a, 1)});
  run_box_pairs(a, PowerfulIoU<false>{parameter(a, 1)});
}
void inner_gap(const Arguments& a) { run_box_pairs(a, InnerGap{parameter(a, 0)}); }
void focaler_gap(const Arguments& a) { run_pair(a, FocalerGap{parameter(a, 0), parameter(a, 1)}); }

}  // namespace

void add_boxes(Table& table) {
  table.add("linear_iou", linear_iou);
  table.add("log_iou", log_iou);
  table.add("square_iou", square_iou);
  table.add("giou", giou);
  table.add("diou", diou);
  table.add("ciou", ciou);
  table.add("eiou", eiou);
  table.add("focal_eiou", focal_eiou);
  table.add("siou", siou);
  table.add("shape_iou", shape_iou);
  table.add("wiou", wiou);
  table.add("nwd", nwd);
  table.add("bounded_iou", bounded_iou);
  table.add("alpha_iou", alpha_iou);
  table.add("mpdiou", mpdiou);
  table.add("powerful_iou", powerful_iou);
  table.add("inner_gap", inner_gap);
  table.add("focaler_gap", focaler_gap);
}

}  // namespace lossatlas::LOSSATLAS_ISA
