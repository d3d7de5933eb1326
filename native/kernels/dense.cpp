// Losses of one logit for each yes/no question, quality or height of a heatmap. Their twins, with the formulas, are in
// src/lossatlas/losses: classification.py, focal.py and quality.py.
#include "elementwise.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

// yes ln(1 + e^-x) + no ln(1 + e^x), where both factors add up to `all`, and its derivative.
inline Element entropy(const Logistic& s, float x, float yes, float no, float all) {
  return {all * s.tail + (x > 0.0f ? no : -yes) * x, no * s.sigmoid - yes * s.complement};
}

inline Element entropy(const Logistic& s, float x, float y) { return entropy(s, x, y, 1.0f - y, 1.0f); }

struct BinaryCrossEntropy {
  float smoothing;

  Element operator()(float x, float target) const {
    return entropy(logistic(x), x, target * (1.0f - smoothing) + 0.5f * smoothing);
  }
};

struct WeighedBinaryCrossEntropy {
  float smoothing;

  Element operator()(float x, float target, float factor) const {
    const float y = target * (1.0f - smoothing) + 0.5f * smoothing, yes = y * factor, no = 1.0f - y;
    return entropy(logistic(x), x, yes, no, yes + no);
  }
};

template <int Gamma>
struct SigmoidFocal {
  float positive, negative, gamma;

  Element operator()(float x, float y) const {
    const Logistic s = logistic(x);
    const Element cost = entropy(s, x, y);
    const float miss = s.complement * y + s.sigmoid * (1.0f - y);
    const float balance = positive * y + negative * (1.0f - y);
    const Power focus = power<Gamma>(miss, gamma);
    const float miss_slope = s.product * (1.0f - 2.0f * y);
    return {balance * (focus.value * cost.value),
            balance * (focus.slope * miss_slope * cost.value + focus.value * cost.slope)};
  }
};

template <int Beta>
struct QualityFocal {
  float beta;

  Element operator()(float x, float quality) const {
    const Logistic s = logistic(x);
    const Element cost = entropy(s, x, quality);
    const float excess = cost.slope;
    const Power focus = power<Beta>(absolute(excess), beta);
    const float direction = excess > 0.0f ? 1.0f : (excess < 0.0f ? -1.0f : 0.0f);
    return {focus.value * cost.value, focus.slope * direction * s.product * cost.value + focus.value * cost.slope};
  }
};

template <int Gamma>
struct Varifocal {
  float alpha, gamma;

  Element operator()(float x, float quality) const {
    const Logistic s = logistic(x);
    const Element cost = entropy(s, x, quality);
    const Power focus = power<Gamma>(s.sigmoid, gamma);
    const bool positive = quality > 0.0f;
    const float factor = positive ? quality : alpha * focus.value;
    const float factor_slope = positive ? 0.0f : alpha * focus.slope * s.product;
    return {factor * cost.value, factor_slope * cost.value + factor * cost.slope};
  }
};

template <int Alpha, int Beta>
struct GaussianFocal {
  float alpha, beta;

  Element operator()(float x, float height) const {
    // The two cases are one: the centre of an object is a background whose logit has the other sign.
    const bool centre = height == 1.0f;
    const Logistic s = logistic(centre ? -x : x);
    const Power focus = power<Alpha>(s.sigmoid, alpha);
    const float around = power<Beta>(1.0f - height, beta).value;
    const float factor = centre ? 1.0f : around;
    const float slope = s.sigmoid * (focus.slope * s.complement * s.softplus + focus.value);
    return {factor * (focus.value * s.softplus), factor * (centre ? -slope : slope)};
  }
};

void binary_cross_entropy(const Arguments& arguments) {
  run_elementwise(arguments, BinaryCrossEntropy{parameter(arguments, 0)});
}

void weighed_binary_cross_entropy(const Arguments& arguments) {
  if (!arguments.tensor(7).given()) throw Error{"the factors of the positive targets are missing"};
  run_elementwise(arguments, WeighedBinaryCrossEntropy{parameter(arguments, 0)});
}

void sigmoid_focal(const Arguments& arguments) {
  const float positive = parameter(arguments, 0), negative = parameter(arguments, 1), gamma = parameter(arguments, 2);
  with_exponent<0, 1, 2>(gamma, [&](auto exponent) {
    run_elementwise(arguments, SigmoidFocal<exponent.value>{positive, negative, gamma});
  });
}

void quality_focal(const Arguments& arguments) {
  const float beta = parameter(arguments, 0);
  with_exponent<0, 1, 2>(beta,
                         [&](auto exponent) { run_elementwise(arguments, QualityFocal<exponent.value>{beta}); });
}

void varifocal(const Arguments& arguments) {
  const float alpha = parameter(arguments, 0), gamma = parameter(arguments, 1);
  with_exponent<0, 1, 2>(gamma,
                         [&](auto exponent) { run_elementwise(arguments, Varifocal<exponent.value>{alpha, gamma}); });
}

void gaussian_focal(const Arguments& arguments) {
  const float alpha = parameter(arguments, 0), beta = parameter(arguments, 1);
  with_exponent<2>(alpha, [&](auto first) {
    with_exponent<4>(beta, [&](auto second) {
      run_elementwise(arguments, GaussianFocal<first.value, second.value>{alpha, beta});
    });
  });
}

}  // namespace

void add_dense(Table& table) {
  table.add("binary_cross_entropy", binary_cross_entropy);
  table.add("weighed_binary_cross_entropy", weighed_binary_cross_entropy);
  table.add("sigmoid_focal", sigmoid_focal);
  table.add("quality_focal", quality_focal);
  table.add("varifocal", varifocal);
  table.add("gaussian_focal", gaussian_focal);
}

}  // namespace lossatlas::LOSSATLAS_ISA
