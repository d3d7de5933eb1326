// Losses of a number and its target. Their twins are in src/lossatlas/losses: regression.py, squared.py and wing.py.
#include "elementwise.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

// The distance of a number from its target, and its derivative; NaN stays NaN.
struct Distance {
  float size, direction;

  Distance(float x, float y) : size(absolute(x - y)) {
    const float error = x - y;
    direction = error > 0.0f ? 1.0f : (error < 0.0f ? -1.0f : error);
  }

  // What holds up to a distance is computed as if this one were no larger.
  float at_most(float high) const { return size < high ? size : high; }
  Element choose(bool near, float near_value, float near_slope, float far_value, float far_slope) const {
    return {near ? near_value : far_value, direction * (near ? near_slope : far_slope)};
  }
};

struct Squared {
  float factor;

  Element operator()(float x, float y) const {
    const float error = x - y;
    return {factor * (error * error), 2.0f * factor * error};
  }
};

// L1 for beta 0; Huber's loss for a factor of beta.
struct SmoothL1 {
  float beta, factor;

  Element operator()(float x, float y) const {
    const Distance d(x, y);
    const float ratio = d.size / beta;
    return d.choose(d.size < beta, factor * (0.5f * ratio * d.size), factor * ratio, factor * (d.size - 0.5f * beta),
                    factor);
  }
};

// b = e^(gamma / alpha) - 1
struct BalancedL1 {
  float alpha, gamma, beta, b;

  Element operator()(float x, float y) const {
    const Distance d(x, y);
    const float inlier = d.at_most(beta), rise = log1p(b / beta * inlier);
    return d.choose(d.size < beta, alpha * ((inlier + beta / b) * rise - inlier), alpha * rise,
                    gamma * d.size + (gamma * beta / b - alpha * beta), gamma);
  }
};

struct FocalL1 {
  float alpha, log_beta;

  Element operator()(float x, float y) const {
    const Distance d(x, y);
    const float inlier = d.at_most(1.0f);
    const float fall = log(inlier > smallest_normal ? inlier : smallest_normal) + log_beta;
    return d.choose(d.size < 1.0f, -0.25f * alpha * (inlier * inlier) * (2.0f * fall - 1.0f), -alpha * inlier * fall,
                    alpha * (0.25f * (2.0f * log_beta + 1.0f) - log_beta * d.size), -alpha * log_beta);
  }
};

struct Wing {
  float width, epsilon, offset;

  Element operator()(float x, float y) const {
    const Distance d(x, y);
    const float inlier = d.at_most(width);
    return d.choose(d.size < width, width * log1p(inlier / epsilon), width / (epsilon + inlier), d.size - offset, 1.0f);
  }
};

struct AdaptiveWing {
  float alpha, omega, epsilon, theta;

  Element operator()(float x, float y) const {
    const Distance d(x, y);
    const float exponent = alpha - y;
    const Power near = power<any_exponent>(d.at_most(theta) / epsilon, exponent);
    const Power edge = power<any_exponent>(theta / epsilon, exponent);
    const float slope = omega * edge.slope / (epsilon * (1.0f + edge.value));
    return d.choose(d.size < theta, omega * log1p(near.value), omega * near.slope / (epsilon * (1.0f + near.value)),
                    slope * (d.size - theta) + omega * log1p(edge.value), slope);
  }
};

void squared_error(const Arguments& arguments) { run_elementwise(arguments, Squared{parameter(arguments, 0)}); }

void smooth_l1(const Arguments& arguments) {
  run_elementwise(arguments, SmoothL1{parameter(arguments, 0), parameter(arguments, 1)});
}

void balanced_l1(const Arguments& arguments) {
  run_elementwise(arguments, BalancedL1{parameter(arguments, 0), parameter(arguments, 1), parameter(arguments, 2),
                                        parameter(arguments, 3)});
}

void focal_l1(const Arguments& arguments) {
  run_elementwise(arguments, FocalL1{parameter(arguments, 0), parameter(arguments, 1)});
}

void wing(const Arguments& arguments) {
  run_elementwise(arguments, Wing{parameter(arguments, 0), parameter(arguments, 1), parameter(arguments, 2)});
}

void adaptive_wing(const Arguments& arguments) {
  run_elementwise(arguments, AdaptiveWing{parameter(arguments, 0), parameter(arguments, 1), parameter(arguments, 2),
                                          parameter(arguments, 3)});
}

}  // namespace

void add_regression(Table& table) {
  table.add("squared_error", squared_error);
  table.add("smooth_l1", smooth_l1);
  table.add("balanced_l1", balanced_l1);
  table.add("focal_l1", focal_l1);
  table.add("wing", wing);
  table.add("adaptive_wing", adaptive_wing);
}

}  // namespace lossatlas::LOSSATLAS_ISA
