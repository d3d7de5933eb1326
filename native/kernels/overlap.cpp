// What Dice, Jaccard and Tversky losses count (true positives, false positives, false negatives of each image and class) and
// the pixel-wise loss that is added to them, in one pass each way. The twin is in
// src/lossatlas/losses/segmentation_targets.py.
#include "softmax.hpp"

namespace lossatlas::LOSSATLAS_ISA {
namespace {

enum class Pixel { none, cross_entropy, focal };

// Tensors and numbers, in this order (src/lossatlas/kernels/overlap.py):
//
//   tensors  input (N, C, *spatial); target: class indices (N, *spatial), or like the input for independent channels;
//            counts (N, 5, C) and pixels (N, 2), float32, or nothing;
//            their upstream gradients (N, 5, C) and (N, 2), float32, and the gradient, like the input, or nothing
//   numbers  the ignored target, whether the overlap is the minimum, the pixel-wise loss, its gamma and its factors of the
//            background and of the foreground
struct Problem {
  enum Operand { input, target, gradient };
  enum Count { true_positive, false_positive, false_negative, actual, valid, counts };

  explicit Problem(const Arguments& arguments, bool indices)
      : images(arguments.tensor(0).size[0]),
        classes(arguments.tensor(0).size[1]),
        ignored(static_cast<float>(arguments.number(0))),
        minimum(arguments.number(1) != 0.0),
        pixel(static_cast<Pixel>(static_cast<int>(arguments.number(2)))),
        gamma(static_cast<float>(arguments.number(3))),
        background(static_cast<float>(arguments.number(4))),
        foreground(static_cast<float>(arguments.number(5))),
        threads(arguments.threads),
        input_image(arguments.tensor(0).stride[0]),
        target_image(arguments.tensor(1).stride[0]),
        gradient_image(arguments.tensor(6).stride[0]),
        input_plane(arguments.tensor(0), 1),
        target_plane(indices ? Tensor{} : arguments.tensor(1), 1),
        gradient_plane(arguments.tensor(6), 1),
        input_first(input_plane.first, 0),
        target_first(indices ? arguments.tensor(1) : target_plane.first, 0),
        gradient_first(gradient_plane.first, 0),
        layout({&input_first.first, &target_first.first, &gradient_first.first}) {
    if (layout.given(gradient)) {
      check_storable(gradient_first.first);
      count_slopes = arguments.tensor(4).floats(images * counts * classes);
      pixel_slopes = arguments.tensor(5).floats(images * 2);
    } else {
      count_results = arguments.tensor(2).floats(images * counts * classes);
      pixel_results = arguments.tensor(3).floats(images * 2);
    }
  }

  bool differentiating() const { return count_slopes != nullptr; }
  float slope(std::int64_t image, Count count, std::int64_t c) const {
    return count_slopes[(image * counts + count) * classes + c];
  }
  float pixel_slope(std::int64_t image) const { return pixel_slopes[image * 2]; }

  std::int64_t images, classes;
  float ignored;
  bool minimum;
  Pixel pixel;
  float gamma, background, foreground;
  int threads;
  std::int64_t input_image, target_image, gradient_image;
  Planes input_plane, target_plane, gradient_plane;
  Planes input_first, target_first, gradient_first;
  Layout<3> layout;
  float *count_results = nullptr, *pixel_results = nullptr;
  const float *count_slopes = nullptr, *pixel_slopes = nullptr;
};

// Classes that exclude each other, and the index of the true one.
class Exclusive {
 public:
  explicit Exclusive(const Arguments& arguments) : p_(arguments, true), focal_(focal_for(arguments.number(3))) {
    const std::int64_t blocks = 131072 / (p_.classes * block_size);
    task_size_ = block_size * (blocks < 1 ? 1 : blocks);
    tasks_ = (p_.layout.elements() + task_size_ - 1) / task_size_;
  }

  void run() const {
    const std::int64_t numbers = Problem::counts * p_.classes + 3;
    const Partials sums(p_.images * tasks_, p_.differentiating() ? 1 : numbers);
    parallel(p_.images * tasks_, p_.threads, [&](std::int64_t task) {
      if (p_.differentiating()) {
        differentiate(task / tasks_, task % tasks_);
      } else {
        count(task / tasks_, task % tasks_, sums[task]);
      }
    });
    if (p_.differentiating()) return;
    if (sums.total(numbers - 1) != 0.0) throw Error{"a class index is out of range"};
    for (std::int64_t image = 0; image < p_.images; ++image) {
      const std::int64_t first = image * tasks_, end = first + tasks_;
      for (std::int64_t k = 0; k < Problem::counts * p_.classes; ++k) {
        p_.count_results[image * Problem::counts * p_.classes + k] = static_cast<float>(sums.total(k, first, end));
      }
      for (int k = 0; k < 2; ++k) {
        p_.pixel_results[image * 2 + k] = static_cast<float>(sums.total(numbers - 3 + k, first, end));
      }
    }
  }

 private:
  // Call body(softmax, gradient) for the blocks of a task, after computing the softmax.
  template <class Body>
  void for_softmax(std::int64_t image, std::int64_t task, const WeightedSum* weighted, const Body& body) const {
    Softmax softmax(p_.classes);
    Block buffer;
    for_blocks(task, task_size_, p_.layout.elements(), softmax.width, [&](std::int64_t begin, int count) {
      const float* index =
          p_.layout.load(Problem::target, begin, count, buffer, image * p_.target_image, softmax.width);
      const Rows logits(p_.layout, Problem::input, p_.input_plane, begin, count, softmax.width,
                        image * p_.input_image);
      const Rows gradient(p_.layout, Problem::gradient, p_.gradient_plane, begin, count, softmax.width,
                          image * p_.gradient_image);
      softmax.compute(index, count, p_.ignored, logits, &gradient, weighted);
      body(softmax, gradient);
    });
  }

  void count(std::int64_t image, std::int64_t task, double* sums) const {
    // The false positives, true positives, false negatives and true pixels of each class.
    const Array<Sum> totals(p_.classes * 4, Sum{});
    Block values, slopes;
    Sum loss;
    double found = 0.0, wrong = 0.0;
    for_softmax(image, task, nullptr, [&](Softmax& softmax, const Rows&) {
      for (std::int64_t c = 0; c < p_.classes; ++c) add(softmax, c, &totals[c * 4]);
      found += softmax.found;
      wrong += softmax.wrong;
      if (p_.pixel == Pixel::none) return;
      softmax.logarithms();
      focal_(softmax.miss, softmax.log_probability, p_.gamma, softmax.width, values.values, slopes.values);
      weigh(softmax, 1.0f, values.values);
      loss.add(values.values, softmax.width);
    });
    for (std::int64_t c = 0; c < p_.classes; ++c) {
      sums[Problem::false_positive * p_.classes + c] = totals[c * 4].total();
      sums[Problem::true_positive * p_.classes + c] = totals[c * 4 + 1].total();
      sums[Problem::false_negative * p_.classes + c] = totals[c * 4 + 2].total();
      sums[Problem::actual * p_.classes + c] = totals[c * 4 + 3].total();
      sums[Problem::valid * p_.classes + c] = found;
    }
    double* const pixel = sums + Problem::counts * p_.classes;
    pixel[0] = loss.total();
    pixel[1] = found;
    pixel[2] = wrong;
  }

  static void add(const Softmax& softmax, std::int64_t c, Sum* totals) {
    const float* e = softmax.row(c);
    const Register nothing = {}, one = nothing + 1.0f, own = nothing + static_cast<float>(c);
    Lanes alarms, hits, misses, actual;
    Register exponentials, scale, truth, hit, miss;
    for (int i = 0; i < softmax.width; i += lanes) {
      for (int k = 0; k < registers; ++k) {
        const int at = i + k * register_size;
        load(exponentials, e + at);
        load(scale, softmax.scale + at);
        load(truth, softmax.truth + at);
        load(hit, softmax.hit + at);
        load(miss, softmax.miss + at);
        alarms.part[k] += exponentials * scale;
        hits.part[k] += truth == own ? hit : nothing;
        misses.part[k] += truth == own ? miss : nothing;
        actual.part[k] += truth == own ? one : nothing;
      }
    }
    totals[0].add(alarms);
    totals[1].add(hits);
    totals[2].add(misses);
    totals[3].add(actual);
  }

  // Multiply the pixel-wise loss, or its slope, by the factor of the true class; 0 for what does not count.
  void weigh(const Softmax& softmax, float factor, float* __restrict values) const {
    const float background = factor * p_.background, foreground = factor * p_.foreground;
    for (int i = 0; i < softmax.width; ++i) {
      const float weighed = values[i] * (softmax.truth[i] == 0.0f ? background : foreground);
      values[i] = softmax.valid(i) ? weighed : 0.0f;
    }
  }

  // The probability p of a class changes the result by a p, that of the true class by an amount of its own; with
  // d = sum over all classes of both, the gradient is p (a - d).
  void differentiate(std::int64_t image, std::int64_t task) const {
    const float* others = p_.count_slopes + (image * Problem::counts + Problem::false_positive) * p_.classes;
    const Array<float> own(p_.classes, 0.0f);
    for (std::int64_t c = 0; c < p_.classes; ++c) {
      own[c] = p_.slope(image, Problem::true_positive, c) - p_.slope(image, Problem::false_negative, c);
    }
    Block drift, pixel, values;
    const WeightedSum of_others{others, drift.values};
    for_softmax(image, task, &of_others, [&](Softmax& softmax, const Rows& gradient) {
      const int width = softmax.width;
      // The slope of cross entropy is 1, which needs no logarithms.
      for (int i = 0; i < width; ++i) pixel.values[i] = p_.pixel == Pixel::none ? 0.0f : 1.0f;
      if (p_.pixel == Pixel::focal) {
        softmax.logarithms();
        focal_(softmax.miss, softmax.log_probability, p_.gamma, width, values.values, pixel.values);
      }
      if (p_.pixel != Pixel::none) weigh(softmax, p_.pixel_slope(image), pixel.values);
      for (int i = 0; i < width; ++i) {
        const float a = own[static_cast<std::int32_t>(softmax.valid(i) ? softmax.truth[i] : 0.0f)];
        const float moved = drift.values[i] * softmax.scale[i];
        // Not a - d: nothing is left of that where the true class is certain.
        values.values[i] = softmax.hit[i] * (a * softmax.miss[i] - moved) - pixel.values[i] * softmax.miss[i];
        drift.values[i] = softmax.scale[i] * (pixel.values[i] - (moved + softmax.hit[i] * a));
      }
      softmax.store_gradient(gradient, values.values, [&](std::int64_t c) {
        return [&softmax, &drift, a = others[c]](int i, float e) {
          return e * (a * softmax.scale[i] + drift.values[i]);
        };
      });
    });
  }

  Problem p_;
  Focal focal_;
  std::int64_t task_size_, tasks_;
};

// Channels that are a yes/no question each, with targets from 0 to 1.
template <int Gamma>
class Independent {
 public:
  explicit Independent(const Arguments& arguments) : p_(arguments, false) {
    tasks_ = (p_.layout.elements() + task_size - 1) / task_size;
  }

  void run() const {
    const std::int64_t planes = p_.images * p_.classes;
    const Partials sums(planes * tasks_, Problem::counts + 1);
    parallel(planes * tasks_, p_.threads, [&](std::int64_t task) { part(task / tasks_, task % tasks_, sums[task]); });
    if (p_.differentiating()) return;
    for (std::int64_t image = 0; image < p_.images; ++image) {
      double loss = 0.0, valid = 0.0;
      for (std::int64_t c = 0; c < p_.classes; ++c) {
        const std::int64_t first = (image * p_.classes + c) * tasks_, end = first + tasks_;
        for (int k = 0; k < Problem::counts; ++k) {
          p_.count_results[(image * Problem::counts + k) * p_.classes + c] =
              static_cast<float>(sums.total(k, first, end));
        }
        loss += sums.total(Problem::counts, first, end);
        valid += sums.total(Problem::valid, first, end);
      }
      p_.pixel_results[image * 2] = static_cast<float>(loss);
      p_.pixel_results[image * 2 + 1] = static_cast<float>(valid);
    }
  }

 private:
  static constexpr std::int64_t task_size = 32 * block_size;

  void part(std::int64_t plane, std::int64_t task, double* sums) const {
    const std::int64_t image = plane / p_.classes, c = plane % p_.classes;
    Block x_buffer, target_buffer, out;
    Block terms[Problem::counts + 1];
    Sum totals[Problem::counts + 1];
    for_blocks(task, task_size, p_.layout.elements(), block_size, [&](std::int64_t begin, int count) {
      const float* x = p_.layout.load(Problem::input, begin, count, x_buffer,
                                      image * p_.input_image + c * p_.input_plane.stride);
      const float* g = p_.layout.load(Problem::target, begin, count, target_buffer,
                                      image * p_.target_image + c * p_.target_plane.stride);
      if (!p_.differentiating()) {
        evaluate(x, g, count, terms);
        for (int k = 0; k <= Problem::counts; ++k) totals[k].add(terms[k].values);
        return;
      }
      const std::int64_t shift = image * p_.gradient_image + c * p_.gradient_plane.stride;
      float* to = p_.layout.destination(Problem::gradient, begin, count, out, shift);
      differentiate(x, g, image, c, to);
      if (to == out.values) p_.layout.store(Problem::gradient, begin, count, to, shift);
    });
    if (p_.differentiating()) return;
    for (int k = 0; k <= Problem::counts; ++k) sums[k] = totals[k].total();
  }

  void evaluate(const float* __restrict x, const float* __restrict targets, int count, Block* __restrict terms) const {
    const float with_pixels = p_.pixel == Pixel::none ? 0.0f : 1.0f;
    for (int i = 0; i < block_size; ++i) {
      const bool valid = (targets[i] != p_.ignored) & (i < count);
      const float g = valid ? targets[i] : 0.0f;
      const Logistic s = logistic(valid ? x[i] : 0.0f);
      const float least = s.sigmoid < g ? s.sigmoid : g;
      const float match = p_.minimum ? least : s.sigmoid * g;
      const float alarm = p_.minimum ? s.sigmoid - least : s.sigmoid * (1.0f - g);
      const float miss = p_.minimum ? g - least : g * s.complement;
      const float hit_loss = power<Gamma>(s.complement, p_.gamma).value * s.softminus;
      const float miss_loss = power<Gamma>(s.sigmoid, p_.gamma).value * s.softplus;
      const float loss = p_.foreground * g * hit_loss + p_.background * (1.0f - g) * miss_loss;
      terms[Problem::true_positive].values[i] = valid ? match : 0.0f;
      terms[Problem::false_positive].values[i] = valid ? alarm : 0.0f;
      terms[Problem::false_negative].values[i] = valid ? miss : 0.0f;
      terms[Problem::actual].values[i] = g;
      terms[Problem::valid].values[i] = valid ? 1.0f : 0.0f;
      terms[Problem::counts].values[i] = valid ? with_pixels * loss : 0.0f;
    }
  }

  void differentiate(const float* __restrict x, const float* __restrict targets, std::int64_t image, std::int64_t c,
                     float* __restrict to) const {
    const float a = p_.slope(image, Problem::false_positive, c), b = p_.slope(image, Problem::false_negative, c);
    const float extra = p_.slope(image, Problem::true_positive, c) - a - b;
    const float pixel = p_.pixel == Pixel::none ? 0.0f : p_.pixel_slope(image);
    for (int i = 0; i < block_size; ++i) {
      const bool valid = targets[i] != p_.ignored;
      const float g = valid ? targets[i] : 0.0f;
      const Logistic s = logistic(valid ? x[i] : 0.0f);
      // The derivative of the minimum is shared where both are equal.
      const float least = s.sigmoid < g ? 1.0f : (s.sigmoid > g ? 0.0f : 0.5f);
      const float match = p_.minimum ? least : g;
      const Power hit = power<Gamma>(s.complement, p_.gamma), miss = power<Gamma>(s.sigmoid, p_.gamma);
      const float hit_slope = -(hit.slope * s.product * s.softminus + hit.value * s.complement);
      const float miss_slope = miss.slope * s.product * s.softplus + miss.value * s.sigmoid;
      const float slope = p_.foreground * g * hit_slope + p_.background * (1.0f - g) * miss_slope;
      const float both = (a + match * extra) * s.product + pixel * slope;
      to[i] = valid ? both : 0.0f;
    }
  }

  Problem p_;
  std::int64_t tasks_;
};

void exclusive(const Arguments& arguments) { Exclusive(arguments).run(); }

void independent(const Arguments& arguments) {
  with_exponent<0, 2>(arguments.number(3), [&](auto gamma) { Independent<gamma.value>(arguments).run(); });
}

}  // namespace

void add_overlap(Table& table) {
  table.add("overlap_exclusive", exclusive);
  table.add("overlap_independent", independent);
}

}  // namespace lossatlas::LOSSATLAS_ISA
